//! Credentials sealed to this machine by `systemd-creds`.
//!
//! The key is the TPM's or the host's, or both, as systemd chooses. No PCR is bound: a firmware
//! update must not leave a box behind that cannot open its own keys. A sealed credential lies in
//! `ID.cred`; a drop-in of the unit names it in place of the plain file.

use super::child;
use crate::config::Config;
use crate::secrets::Plaintext;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const PROGRAM: &str = "systemd-creds";

/// A TPM takes a second or two.
const LIMIT: Duration = Duration::from_secs(60);

/// The host key of systemd, if it has been made.
const HOST_KEY: &str = "/var/lib/systemd/credential.secret";

/// Whether this machine has something to seal with, by its name.
pub async fn offered() -> Option<&'static str> {
    let asked = child::run(PROGRAM, &["has-tpm2", "--quiet"], b"", LIMIT).await;
    match asked {
        Ok(Some(ended)) if ended.fine => Some("the TPM"),
        Ok(Some(_)) if Path::new(HOST_KEY).exists() => Some("the host key of systemd"),
        _ => None,
    }
}

/// Seals a credential under its id.
pub async fn seal(id: &str, content: &Plaintext) -> anyhow::Result<Plaintext> {
    let name = format!("--name={id}");
    let arguments =
        ["encrypt", &name, "--with-key=auto", "--tpm2-pcrs=", "--tpm2-public-key-pcrs=", "-", "-"];
    work(&arguments, content.expose()).await.with_context(|| format!("cannot seal {id}"))
}

/// Opens a sealed credential; only root can.
pub async fn open(id: &str, path: &Path) -> anyhow::Result<Plaintext> {
    // A FIFO would be waited for as long as nobody writes.
    let is_file = tokio::fs::metadata(path).await?.is_file();
    anyhow::ensure!(is_file, "{} is not a regular file", path.display());
    let (name, sealed) = (format!("--name={id}"), tokio::fs::read(path).await?);
    let opened = work(&["decrypt", &name, "-", "-"], &sealed).await;
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Opens what a configuration finds sealed into a private directory, and names the files there: for
/// verbs that do in root's terminal what the unit does.
pub async fn open_all(config: &mut Config, private: &Path) -> anyhow::Result<()> {
    let files = &mut config.root.credentials;
    for path in [
        &mut config.decryption.age_key_file,
        &mut files.password_file,
        &mut files.bearer_token_file,
        &mut files.identity_file,
        &mut files.known_hosts_file,
        &mut files.ca_file,
        &mut config.edge_token_file,
    ] {
        let Some(sealed) = path.as_ref().filter(|path| path.extension() == Some("cred".as_ref()))
        else {
            continue;
        };
        let id = sealed.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let content = open(&id, sealed).await?;
        let opened = private.join(id);
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&opened).await?;
        file.write_all(content.expose()).await?;
        file.flush().await?;
        *path = Some(opened);
    }
    Ok(())
}

async fn work(arguments: &[&str], input: &[u8]) -> anyhow::Result<Plaintext> {
    let ended = child::run(PROGRAM, arguments, input, LIMIT).await?;
    let ended = ended.context("there is no systemd-creds on this host")?;
    anyhow::ensure!(ended.fine && !ended.out.is_empty(), "systemd-creds: {}", ended.words);
    Ok(ended.out)
}

/// Where the unit's drop-in lies for a configuration directory: `/etc/gitopsd` makes
/// `/etc/systemd/system`. Nothing for a directory of another name, which no unit reads.
pub fn drop_in(directory: &Path) -> Option<PathBuf> {
    let etc = directory.parent().filter(|_| directory.ends_with("gitopsd"))?;
    Some(etc.join("systemd/system/gitopsd.service.d/50-sealed.conf"))
}

/// The text of the drop-in.
pub fn unit(credentials: &Path, ids: &[&str]) -> String {
    let mut text = String::from("# Written by `gitopsd init`, which writes it anew.\n[Service]\n");
    for id in ids {
        let path = credentials.join(format!("{id}.cred"));
        text.push_str(&format!("LoadCredentialEncrypted={id}:{}\n", path.display()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_lies_beside_the_units_and_names_each_sealed_credential() {
        let path = drop_in(Path::new("/etc/gitopsd"));
        let expected = "/etc/systemd/system/gitopsd.service.d/50-sealed.conf";
        assert_eq!(path.as_deref(), Some(Path::new(expected)));
        assert_eq!(drop_in(Path::new("/home/me/config")), None);
        assert_eq!(
            unit(Path::new("/etc/gitopsd/credentials"), &["age-key"]),
            "# Written by `gitopsd init`, which writes it anew.\n[Service]\n\
             LoadCredentialEncrypted=age-key:/etc/gitopsd/credentials/age-key.cred\n"
        );
    }
}
