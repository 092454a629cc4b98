//! `gitopsd key show`: the public halves of this host's keys, and where the secret ones lie.

use super::init::open_sealed;
use super::public::{SshPublic, sops_lines, ssh_public};
use super::{Context, Exit, words};
use crate::config::{Config, credentials_directory};
use crate::secrets::{Keyring, Plaintext, read_credential};
use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "EXAMPLES
  sudo gitopsd key show                        what to write into .sops.yaml
  sudo gitopsd key show --json | jq -r .deploy.public
                                               the line for the repository's deploy keys

EXIT CODES
  0 shown   1 there is no age key, or it cannot be read   2 wrong usage";

/// Show the keys of this host
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print public keys, fingerprints and the lines of .sops.yaml; never a secret
    #[command(after_help = EXAMPLES)]
    Show,
}

/// Where the keys of a host lie.
#[derive(Debug)]
struct Places {
    age: PathBuf,
    identity: PathBuf,
    recovery: Option<String>,
}

impl Places {
    /// As configured, else where `init` puts them: keys may be there before a configuration is.
    fn of(path: &Path, config: Option<Config>) -> Places {
        let directory = credentials_directory(path);
        let (age, identity) = (directory.join("age-key"), directory.join("git-identity"));
        let Some(config) = config else { return Places { age, identity, recovery: None } };
        // A sealed one is found again beside the plain one's place.
        let plain = |path: PathBuf| match path.extension() {
            Some(ending) if ending == "cred" => path.with_extension(""),
            _ => path,
        };
        Places {
            age: config.decryption.age_key_file.map_or(age, plain),
            identity: config.root.credentials.identity_file.map_or(identity, plain),
            recovery: config.decryption.recovery,
        }
    }
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Shown {
    age: Option<Age>,
    deploy: Option<Deploy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sops: Option<String>,
}

#[derive(Debug, Serialize)]
struct Age {
    path: PathBuf,
    recipients: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Deploy {
    path: PathBuf,
    fingerprint: Option<String>,
    public: Option<String>,
}

/// Reads the keys and shows what may be seen of them.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let Verb::Show = args.verb;
    let places = Places::of(&context.config, crate::config::load(&context.config).ok());
    let shown = gather(places).await?;
    let terminal = &context.terminal;
    let found = shown.age.is_some();
    if terminal.is_json() {
        terminal.json(&shown)?;
    } else {
        terminal.out(&text(&shown))?;
        if !found {
            terminal.note("there is no age key: gitopsd init makes or imports one");
        }
    }
    Ok(if found { Exit::Ok } else { Exit::Problems })
}

async fn gather(places: Places) -> anyhow::Result<Shown> {
    let age = match held(&places.age).await? {
        None => None,
        Some((found, path)) => {
            let keys = Keyring::parse(found.expose());
            let recipients = keys.with_context(|| path.display().to_string())?.recipients();
            Some(Age { path, recipients })
        }
    };
    let deploy = held(&places.identity).await?.map(|(found, path)| {
        let public = ssh_public(found.expose());
        let (line, fingerprint) = match public {
            Some(SshPublic { line, fingerprint, .. }) => (Some(line), Some(fingerprint)),
            None => (None, None),
        };
        Deploy { path, fingerprint, public: line }
    });
    let sops = age.as_ref().map(|age| {
        let all = age.recipients.iter().chain(&places.recovery).cloned();
        sops_lines(&all.collect::<Vec<_>>())
    });
    Ok(Shown { age, deploy, recovery: places.recovery, sops })
}

/// A key that lies in a file, plain or sealed, with its place.
async fn held(path: &Path) -> anyhow::Result<Option<(Plaintext, PathBuf)>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let name = name.to_string_lossy();
    let root = "only root reads the keys of a host: try sudo";
    if let Some(found) = read_credential(Some(directory), &name, None).context(root)? {
        return Ok(Some((found.content, found.path)));
    }
    let sealed = directory.join(format!("{name}.cred"));
    if !sealed.exists() {
        return Ok(None);
    }
    let opened = open_sealed(&name, &sealed).await.context(root)?;
    Ok(Some((opened, sealed)))
}

fn text(shown: &Shown) -> String {
    let mut text = String::new();
    if let Some(Age { path, recipients }) = &shown.age {
        text += &format!("age key  {}\n", path.display());
        recipients.iter().for_each(|recipient| text += &format!("  {recipient}\n"));
    }
    if let Some(recovery) = &shown.recovery {
        text += &format!("second recipient\n  {recovery}\n");
    }
    if let Some(Deploy { path, fingerprint, public }) = &shown.deploy {
        text += &format!("deploy key  {}\n", path.display());
        match (fingerprint, public) {
            (Some(fingerprint), Some(public)) => {
                text += &format!("  {fingerprint}\n  {public}\n");
            }
            _ => text += "  in an older format: its public half is told by ssh-keygen -y -f FILE\n",
        }
    }
    if let Some(sops) = &shown.sops {
        text += ".sops.yaml\n";
        text += &words::indent(sops, "  ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_by_their_public_halves_and_places() {
        let shown = Shown {
            age: Some(Age { path: "/c/age-key".into(), recipients: vec!["age1a".into()] }),
            deploy: Some(Deploy {
                path: "/c/git-identity".into(),
                fingerprint: None,
                public: None,
            }),
            recovery: Some("age1b".into()),
            sops: Some(sops_lines(&["age1a".into(), "age1b".into()])),
        };
        assert_eq!(
            text(&shown),
            "age key  /c/age-key\n  age1a\nsecond recipient\n  age1b\n\
             deploy key  /c/git-identity\n  \
             in an older format: its public half is told by ssh-keygen -y -f FILE\n\
             .sops.yaml\n  creation_rules:\n    - encrypted_regex: ^(data|stringData)$\n      \
             age: age1a,age1b\n"
        );
    }
}
