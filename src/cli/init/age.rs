//! The host's age key: the one that lies here, one that is imported, or a new one.

use super::cluster::flux_keys;
use super::tell::{Halt, Teller};
use crate::cli::keygen::now;
use crate::cluster::Cluster;
use crate::secrets::{Keyring, Plaintext, generate};
use std::path::Path;

const WHAT: &str = "age key";

/// The keys of the host.
pub struct Keys {
    /// What opens sealed files.
    pub keyring: Keyring,
    /// The file, if it is to be written.
    pub new: Option<Plaintext>,
    /// It is one that nobody has yet: nothing is sealed to it.
    pub made: bool,
}

/// What there is to choose from.
pub struct Choice<'a> {
    /// Lies here already, with its place.
    pub held: Option<(&'a Plaintext, &'a Path)>,
    /// Was named to be imported.
    pub named: Option<&'a Plaintext>,
    /// A new one was asked for in so many words: the cluster's is left alone.
    pub generate: bool,
    /// Only to say what would be done.
    pub dry: bool,
}

/// Chooses. A key that lies here is never replaced.
pub async fn choose(
    choice: Choice<'_>,
    cluster: &Cluster,
    teller: &Teller<'_>,
) -> Result<Keys, Halt> {
    let named = choice.named.map(|text| read(text, "--age-key")).transpose()?;
    if let Some((text, path)) = choice.held {
        let held = read(text, &path.display().to_string())?;
        let recipients = held.recipients();
        let strange = |other: &Keyring| {
            other
                .recipients()
                .into_iter()
                .filter(|key| !recipients.contains(key))
                .collect::<Vec<_>>()
        };
        if let Some(strange) = named.as_ref().map(strange).filter(|strange| !strange.is_empty()) {
            let shown = path.display();
            let found = format!("{shown} holds another key than {}", strange.join(", "));
            let fix = format!(
                "a key is never overwritten: add its AGE-SECRET-KEY line to {shown} yourself, or \
                 move that file away if nothing is sealed to it any more"
            );
            return Err(Halt::at(WHAT, found, fix));
        }
        teller.done(WHAT, format!("{} is here already", recipients.join(", ")))?;
        return Ok(Keys { keyring: held, new: None, made: false });
    }
    if let (Some(keyring), Some(text)) = (named, choice.named) {
        let told = format!("{} is imported", keyring.recipients().join(", "));
        teller.done(WHAT, told)?;
        return Ok(Keys { keyring, new: Some(text.clone()), made: false });
    }
    let theirs = if choice.generate { None } else { flux_keys(cluster).await? };
    if let Some(text) = theirs {
        let keyring = read(&text, "the Secret flux-system/sops-age")?;
        let told = keyring.recipients().join(", ");
        teller.done(WHAT, format!("{told} is imported from Flux's Secret sops-age"))?;
        return Ok(Keys { keyring, new: Some(text), made: false });
    }
    if choice.dry {
        teller.done(WHAT, "a new one would be made")?;
        return Ok(Keys { keyring: Keyring::empty(), new: None, made: true });
    }
    let made = generate(&now());
    let keyring = Keyring::parse(made.text.expose())?;
    teller.done(WHAT, format!("{} is new", made.recipient))?;
    Ok(Keys { keyring, new: Some(made.text), made: true })
}

fn read(text: &Plaintext, from: &str) -> Result<Keyring, Halt> {
    let stopped = |error: crate::secrets::SecretsError| {
        Halt::at(WHAT, format!("{from}: {error}"), error.hint().unwrap_or_default())
    };
    let keyring = Keyring::parse(text.expose()).map_err(stopped)?;
    if keyring.is_empty() {
        let fix = "a key file holds a line AGE-SECRET-KEY-1…";
        return Err(Halt::at(WHAT, format!("{from} holds no identity"), fix));
    }
    Ok(keyring)
}
