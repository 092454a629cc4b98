//! Which files are to be how: the configuration, the credentials, the unit's drop-in.
//!
//! A credential lies plain, or sealed once that was asked for; a new value of one that lies sealed
//! is sealed too.

use super::store::Change;
use super::tell::Halt;
use super::{repository, seal};
use crate::config::{Config, credentials_directory};
use crate::secrets::{Plaintext, SecretsError, guarded, read_credential};
use crate::source::Credential;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Ids of the credentials that lie in `credentials/`; the kubeconfig stays where k3s writes it.
pub const IDS: [&str; 6] =
    ["age-key", "git-password", "git-token", "git-identity", "git-known-hosts", "git-ca"];

/// Where a configuration says that a credential lies.
pub fn named<'a>(config: &'a Config, id: &str) -> Option<&'a Path> {
    let files = &config.root.credentials;
    let path = match id {
        "age-key" => &config.decryption.age_key_file,
        "git-password" => &files.password_file,
        "git-token" => &files.bearer_token_file,
        "git-identity" => &files.identity_file,
        "git-known-hosts" => &files.known_hosts_file,
        "git-ca" => &files.ca_file,
        _ => return None,
    };
    path.as_deref()
}

/// The files of one configuration.
#[derive(Clone, Debug)]
pub struct Place {
    /// The main file, absolute.
    pub main: PathBuf,
    /// Its directory.
    pub directory: PathBuf,
    /// Where credentials lie.
    pub credentials: PathBuf,
    /// What `init` writes.
    pub config: PathBuf,
}

impl Place {
    /// Everything follows from the main file.
    pub fn new(main: &Path) -> anyhow::Result<Place> {
        let main = std::path::absolute(main)?;
        Ok(Place {
            directory: main.parent().unwrap_or(Path::new("/")).to_owned(),
            credentials: credentials_directory(&main),
            config: main.with_file_name("config.d").join("50-init.yaml"),
            main,
        })
    }

    /// When the last of the files was written that the daemon reads, in Unix milliseconds; `None` when
    /// that cannot be told.
    pub fn written_ms(&self) -> Option<i64> {
        let fragments = self.config.parent().unwrap_or(Path::new("."));
        let listed = [fragments, &self.credentials].into_iter().filter_map(|d| d.read_dir().ok());
        let files = listed.flatten().flatten().map(|entry| entry.path());
        let written = files.chain([self.main.clone()]).filter_map(|file| {
            let modified = file.metadata().ok()?.modified().ok()?;
            i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
        });
        written.max()
    }

    /// Where a sealed credential lies.
    pub fn sealed(&self, id: &str) -> PathBuf {
        self.credentials.join(format!("{id}.cred"))
    }

    /// A credential that lies here, opened if it is sealed.
    pub async fn held(&self, id: &str) -> anyhow::Result<Option<Plaintext>> {
        if let Some(found) = read_credential(Some(&self.credentials), id, None)? {
            return Ok(Some(found.content));
        }
        let sealed = self.sealed(id);
        if sealed.exists() { seal::open(id, &sealed).await.map(Some) } else { Ok(None) }
    }

    /// The unit's drop-in for these sealed credentials; nothing where there are none, or no unit.
    pub fn drop_in(&self, sealed: &[&str]) -> Option<Change> {
        let path = seal::drop_in(&self.directory).filter(|_| !sealed.is_empty())?;
        let text = seal::unit(&self.credentials, sealed);
        Some(Change { path, content: Some(Plaintext::new(text.into_bytes())), mode: 0o644 })
    }

    /// Refuses a key that others can get at, as each start of the service does: here beside the
    /// configuration, or where that names one. What is written or removed anyway does not count.
    pub fn guard(&self, config: &Config, changes: &[Change]) -> Result<(), SecretsError> {
        for id in IDS {
            let usual = self.credentials.join(id);
            if changes.iter().all(|change| change.path != usual) {
                guarded(id, &usual, 0o077)?;
            }
            if let Some(elsewhere) = named(config, id).filter(|path| *path != usual) {
                guarded(id, elsewhere, 0o007)?;
            }
        }
        Ok(())
    }
}

/// What is to be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The text of `50-init.yaml`.
    pub config: String,
    /// Credentials with a new value.
    pub given: BTreeMap<&'static str, Plaintext>,
    /// Credentials that lie here and stay.
    pub held: BTreeMap<&'static str, Plaintext>,
    /// Credentials that another one takes the place of.
    pub dropped: BTreeSet<&'static str>,
    /// All of them are to be sealed.
    pub seal: bool,
    /// Nothing is to be sealed yet: that might make a key on this host.
    pub dry: bool,
}

impl Wanted {
    /// The changes: credentials, the drop-in for sealed ones, the configuration. What is plain goes
    /// last of all: whenever the power fails, the unit finds a key, plain or sealed.
    pub async fn changes(&self, place: &Place) -> anyhow::Result<Vec<Change>> {
        let (mut changes, mut plains) = (Vec::new(), Vec::new());
        let mut sealed = Vec::new();
        let gone = |path: PathBuf| Change { path, content: None, mode: 0 };
        for id in IDS {
            let (plain, cred) = (place.credentials.join(id), place.sealed(id));
            if self.dropped.contains(id) {
                changes.extend([gone(plain), gone(cred)]);
                continue;
            }
            let new = self.given.get(id);
            let Some(content) = new.or_else(|| self.held.get(id)) else { continue };
            if !self.seal && !cred.exists() {
                if new.is_some() {
                    let content = Some(content.clone());
                    changes.push(Change { path: plain, content, mode: 0o400 });
                }
                continue;
            }
            sealed.push(id);
            // Sealing the same again gives other bytes: only what is not sealed yet is.
            let same = match cred.exists() {
                true => seal::open(id, &cred).await?.expose() == content.expose(),
                false => false,
            };
            if !same {
                let content = match self.dry {
                    true => Some(Plaintext::default()),
                    false => Some(seal::seal(id, content).await?),
                };
                changes.push(Change { path: cred, content, mode: 0o400 });
            }
            plains.push(gone(plain));
        }
        changes.extend(place.drop_in(&sealed));
        let content = Some(Plaintext::new(self.config.clone().into_bytes()));
        changes.push(Change { path: place.config.clone(), content, mode: 0o644 });
        changes.extend(plains);
        Ok(changes)
    }

    /// The proof for the repository, as the daemon would put it together.
    pub fn credential(&self, config: &Config) -> Result<Credential, Halt> {
        let mut data = BTreeMap::new();
        let files = &config.root.credentials;
        for (key, id, used) in [
            ("password", "git-password", files.password_file.is_some()),
            ("bearerToken", "git-token", files.bearer_token_file.is_some()),
            ("identity", "git-identity", files.identity_file.is_some()),
            ("known_hosts", "git-known-hosts", files.known_hosts_file.is_some()),
            ("ca.crt", "git-ca", files.ca_file.is_some()),
        ] {
            let found = self.given.get(id).or_else(|| self.held.get(id)).filter(|_| used);
            if let Some(found) = found {
                let text = found.expose();
                let word = matches!(key, "password" | "bearerToken");
                let text = if word { text.trim_ascii_end() } else { text };
                data.insert(key.to_owned(), text.to_vec());
            }
        }
        if data.contains_key("password") {
            let name = files.username.clone().unwrap_or_else(|| "git".to_owned());
            data.insert("username".to_owned(), name.into_bytes());
        }
        if data.is_empty() {
            return Ok(Credential::default());
        }
        Credential::from_secret(&config.root.url, &data)
            .map_err(|error| repository::stopped(&error))
    }
}
