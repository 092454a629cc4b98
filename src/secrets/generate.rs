//! New age identities, in the words of `age-keygen`.
//!
//! The file opens with `# created:` and `# public key:` as the original tool writes it, so that
//! people and other tools find what they know. Who stores it, and where, is not decided here.

use super::{Plaintext, SecretsError};
use ::age::secrecy::ExposeSecret;
use ::age::{ssh, x25519};
use zeroize::Zeroizing;

/// A new X25519 identity.
#[derive(Debug)]
pub struct NewIdentity {
    /// The whole key file.
    pub text: Plaintext,
    /// Its public key, `age1…`.
    pub recipient: String,
}

/// Makes an identity; `created` is the time as it is to be written down, in RFC 3339.
pub fn generate(created: &str) -> NewIdentity {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = identity.to_string();
    let secret = secret.expose_secret();
    // Room for all of it at once, so that the text does not move and leave copies behind.
    let length = 64 + created.len() + recipient.len() + secret.len();
    let mut text = Zeroizing::new(String::with_capacity(length));
    for part in ["# created: ", created, "\n# public key: ", &recipient, "\n", secret, "\n"] {
        text.push_str(part);
    }
    let bytes = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
    NewIdentity { text: bytes.into(), recipient }
}

/// Reads a public key that SOPS takes as an age recipient, and answers it as it is written there.
///
/// # Errors
/// [`SecretsError::BadRecipient`] for anything else; a secret key given by mistake is not repeated.
pub fn public_key(said: &str) -> Result<String, SecretsError> {
    let said = said.trim();
    if said.starts_with("AGE-SECRET-KEY-") || said.contains("PRIVATE KEY") {
        return Err(SecretsError::BadRecipient { problem: "is a secret key" });
    }
    if let Ok(recipient) = said.parse::<x25519::Recipient>() {
        return Ok(recipient.to_string());
    }
    match said.parse::<ssh::Recipient>() {
        Ok(recipient) => Ok(recipient.to_string()),
        Err(_) => Err(SecretsError::BadRecipient { problem: "is no public key of age" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Keyring;

    #[test]
    fn a_new_identity_is_a_key_file_that_names_its_public_key() {
        let made = generate("2026-11-23T02:04:50Z");
        let ring = Keyring::parse(made.text.expose()).expect("our own format");
        assert_eq!(ring.recipients(), std::slice::from_ref(&made.recipient));
        let text = String::from_utf8(made.text.expose().to_vec()).expect("text");
        let head = format!("# created: 2026-11-23T02:04:50Z\n# public key: {}\n", made.recipient);
        let secret = text.strip_prefix(&head).expect("both comments");
        assert!(secret.starts_with("AGE-SECRET-KEY-1") && secret.ends_with('\n'));
        assert_eq!(secret.lines().count(), 1);
        assert_ne!(generate("").recipient, made.recipient);
    }

    #[test]
    fn a_public_key_is_read_and_a_secret_one_is_refused_unseen() {
        let made = generate("now");
        assert_eq!(public_key(&format!(" {}\n", made.recipient)), Ok(made.recipient.clone()));
        let text = String::from_utf8_lossy(made.text.expose()).into_owned();
        let secret = text.lines().last().expect("three lines");
        assert_eq!(
            public_key(secret).expect_err("secret").to_string(),
            "a recipient is a secret key"
        );
        assert!(public_key("age1nonsense").is_err());
    }
}
