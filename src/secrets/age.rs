//! Pure: age identities, and the data key that is wrapped for one of them.
//!
//! X25519 keys and unencrypted ssh-ed25519 and ssh-rsa keys, as SOPS takes them. Identities are
//! tried against the wrapped key itself, not picked by the recipient's text: the text is only a
//! label that anyone may edit. Post-quantum and plugin identities are refused by name.

use super::SecretsError;
use ::age::{DecryptError, Decryptor, Identity as AgeIdentity, armor::ArmoredReader, ssh, x25519};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use zeroize::Zeroizing;

/// A data key has 32 bytes, a share of one 33; anything longer is no data key.
const MAX_DATA_KEY: u64 = 64;

/// One identity and the public key that belongs to it.
#[derive(Clone)]
struct Held {
    recipient: String,
    identity: Identity,
}

#[derive(Clone)]
enum Identity {
    X25519(x25519::Identity),
    Ssh(Box<ssh::Identity>),
}

impl Identity {
    fn as_age(&self) -> &dyn AgeIdentity {
        match self {
            Identity::X25519(identity) => identity,
            Identity::Ssh(identity) => identity.as_ref(),
        }
    }
}

/// The identities that this host holds; `Debug` prints their public keys only.
#[derive(Clone, Default)]
pub struct Keyring {
    held: Vec<Held>,
}

/// What came of one wrapped data key.
pub(super) enum Unwrapped {
    /// The data key, or one share of it.
    Key(Zeroizing<Vec<u8>>),
    /// Wrapped for somebody else.
    NotOurs,
    /// Wrapped for one of ours, or not wrapped at all, and unreadable.
    Damaged,
}

impl Keyring {
    /// A keyring without identities: everything sealed stays sealed.
    pub fn empty() -> Self {
        Keyring::default()
    }

    /// Reads the text of an age key file: `AGE-SECRET-KEY-1...` lines, OpenSSH private keys in
    /// PEM form, blank lines and `#` comments, in any order and number.
    ///
    /// # Errors
    /// [`SecretsError::BadIdentity`] with the line, never with its content.
    pub fn parse(agekey_text: &[u8]) -> Result<Keyring, SecretsError> {
        let text = std::str::from_utf8(agekey_text)
            .map_err(|_| SecretsError::BadIdentity { line: 1, problem: "is not UTF-8 text" })?;
        let mut ring = Keyring::empty();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let bad = |problem| SecretsError::BadIdentity { line: index + 1, problem };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("-----BEGIN ") {
                let mut pem = Zeroizing::new(String::with_capacity(text.len() + 1));
                pem.push_str(line);
                pem.push('\n');
                for (_, next) in lines.by_ref() {
                    pem.push_str(next.trim());
                    pem.push('\n');
                    if next.trim().starts_with("-----END ") {
                        break;
                    }
                }
                ring.add(ssh_identity(&pem).map_err(bad)?);
            } else {
                ring.add(x25519_identity(line).map_err(bad)?);
            }
        }
        Ok(ring)
    }

    /// Takes over the identities of another keyring, each public key once.
    pub fn merge(&mut self, other: Keyring) {
        for held in other.held {
            self.add(held);
        }
    }

    /// True where there is no identity.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Public keys in the order of reading: `age1...`, `ssh-ed25519 ...`, `ssh-rsa ...`.
    pub fn recipients(&self) -> Vec<String> {
        self.held.iter().map(|held| held.recipient.clone()).collect()
    }

    /// SHA-256 in hex over the sorted public keys, a line each: the same identities in any order
    /// give the same value, and it tells nothing secret. For keys of caches.
    pub fn fingerprint(&self) -> String {
        let sorted: BTreeSet<&str> = self.held.iter().map(|h| h.recipient.as_str()).collect();
        let mut hash = Sha256::new();
        for recipient in sorted {
            hash.update(recipient.as_bytes());
            hash.update(b"\n");
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Tries every identity on one wrapped data key (`sops.age[].enc`, armored).
    pub(super) fn unwrap(&self, wrapped: &str) -> Unwrapped {
        let Ok(decryptor) = Decryptor::new_buffered(ArmoredReader::new(wrapped.as_bytes())) else {
            return Unwrapped::Damaged;
        };
        match decryptor.decrypt(self.held.iter().map(|held| held.identity.as_age())) {
            Err(DecryptError::NoMatchingKeys) => Unwrapped::NotOurs,
            Err(_) => Unwrapped::Damaged,
            Ok(reader) => {
                let mut key = Zeroizing::new(Vec::with_capacity(MAX_DATA_KEY as usize));
                match reader.take(MAX_DATA_KEY).read_to_end(&mut key) {
                    Ok(_) => Unwrapped::Key(key),
                    Err(_) => Unwrapped::Damaged,
                }
            }
        }
    }

    fn add(&mut self, held: Held) {
        if !self.held.iter().any(|known| known.recipient == held.recipient) {
            self.held.push(held);
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.held.iter().map(|held| &held.recipient)).finish()
    }
}

fn x25519_identity(line: &str) -> Result<Held, &'static str> {
    if line.starts_with("AGE-SECRET-KEY-PQ-") {
        return Err("is a post-quantum identity, which is not supported yet");
    }
    if line.starts_with("AGE-PLUGIN-") {
        return Err("needs an age plugin, which a daemon cannot ask");
    }
    let identity: x25519::Identity =
        line.parse().map_err(|_| "is not an AGE-SECRET-KEY-1 identity")?;
    Ok(Held { recipient: identity.to_public().to_string(), identity: Identity::X25519(identity) })
}

fn ssh_identity(pem: &str) -> Result<Held, &'static str> {
    let identity = ssh::Identity::from_buffer(pem.as_bytes(), None)
        .map_err(|_| "is not an OpenSSH private key")?;
    match &identity {
        ssh::Identity::Unencrypted(_) => {}
        ssh::Identity::Encrypted(_) => return Err("is an OpenSSH key with a passphrase"),
        ssh::Identity::Unsupported(_) => return Err("is an OpenSSH key of an unsupported type"),
    }
    let recipient = ssh::Recipient::try_from(identity.clone())
        .map_err(|_| "is an OpenSSH key of an unsupported type")?;
    Ok(Held { recipient: recipient.to_string(), identity: Identity::Ssh(Box::new(identity)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generated for this test with `age-keygen`; it seals nothing.
    const KEY: &str = "AGE-SECRET-KEY-14ASJ60EYZE2PW0ARLE7Z6WWCRX44UU8M0CJFEKRMXPVAS5KT59TSK48XV3";

    #[test]
    fn a_key_file_with_comments_and_a_repeated_key_holds_it_once() {
        let text = format!("# created: today\n# public key: x\n{KEY}\n\n  {KEY}  \n");
        let ring = Keyring::parse(text.as_bytes()).expect("well formed");
        assert_eq!(ring.recipients().len(), 1);
        assert!(ring.recipients()[0].starts_with("age1"));
    }

    #[test]
    fn debug_of_a_keyring_prints_public_keys_only() {
        let ring = Keyring::parse(KEY.as_bytes()).expect("well formed");
        let shown = format!("{ring:?}");
        assert!(!shown.contains("AGE-SECRET"), "{shown}");
        assert_eq!(shown, format!("[{:?}]", ring.recipients()[0]));
    }

    #[test]
    fn bad_lines_are_named_by_number_and_not_quoted() {
        let cases = [
            ("\n\nhunter2\n", 3, "is not an AGE-SECRET-KEY-1 identity"),
            ("AGE-SECRET-KEY-PQ-1QQ", 1, "is a post-quantum identity, which is not supported yet"),
            ("#\nAGE-PLUGIN-YUBIKEY-1", 2, "needs an age plugin, which a daemon cannot ask"),
            ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n", 1, "is not an OpenSSH private key"),
        ];
        for (text, line, problem) in cases {
            let error = Keyring::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error, SecretsError::BadIdentity { line, problem });
        }
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_order() {
        let [a, b] = [(); 2].map(|()| x25519::Identity::generate());
        let text = |first: &x25519::Identity, second: &x25519::Identity| {
            use ::age::secrecy::ExposeSecret;
            format!("{}\n{}", first.to_string().expose_secret(), second.to_string().expose_secret())
        };
        let one = Keyring::parse(text(&a, &b).as_bytes()).expect("well formed");
        let mut two = Keyring::parse(text(&b, &a).as_bytes()).expect("well formed");
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_ne!(one.fingerprint(), Keyring::empty().fingerprint());
        two.merge(one.clone());
        assert_eq!(one.fingerprint(), two.fingerprint());
    }
}
