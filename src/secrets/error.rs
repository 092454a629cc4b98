//! Pure: why a sealed file or a credential could not be opened, and what to do about it.
//!
//! Texts hold paths of keys, public keys, line numbers and names of metadata fields. Values are
//! left out without exception, cleartext ones too: a value in the wrong place is still a secret.

use super::store::Format;
use std::path::PathBuf;

/// What to do on a host where no age key is held; a verb that is given keys says it otherwise.
pub const NO_KEY: &str = "no age key is configured: name its file as decryption.ageKeyFile";

/// Everything that can go wrong between sealed bytes and opened text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// The file exceeds what Flux would look at.
    #[error("sealed file of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Size of the file in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The text is not of its format at all.
    #[error("not valid {format}{}: {problem}", at_line(*line))]
    Malformed {
        /// The format it was read as.
        format: Format,
        /// Line from 1, or 0 where it is not known.
        line: usize,
        /// What is wrong, without content.
        problem: String,
    },
    /// There is no `sops` section.
    #[error("no SOPS metadata in this {format} file")]
    NoMetadata {
        /// The format it was read as.
        format: Format,
    },
    /// The `sops` section is there but cannot be used.
    #[error("SOPS metadata `{field}`: {problem}")]
    Metadata {
        /// Field below `sops`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// None of our identities is among the recipients.
    #[error("sealed to {}; {}", list(sealed_to), holding(held))]
    MissingKey {
        /// Public keys that the file is sealed to.
        sealed_to: Vec<String>,
        /// Public keys of our identities.
        held: Vec<String>,
    },
    /// The data key is split over key groups and too few of them could be opened.
    #[error(
        "{opened} of {needed} key groups could be opened; sealed to {}; {}",
        list(sealed_to),
        holding(held)
    )]
    MissingGroups {
        /// How many groups the file asks for.
        needed: usize,
        /// How many our identities open.
        opened: usize,
        /// age recipients of all groups.
        sealed_to: Vec<String>,
        /// Public keys of our identities.
        held: Vec<String>,
    },
    /// The file names recipients of other kinds only.
    #[error("sealed with {} only; gitopsd opens age recipients", kinds.join(" and "))]
    OnlyForeignKeys {
        /// Kinds as they stand in the metadata: `pgp`, `kms`, `gcp_kms`, `azure_kv`, ...
        kinds: Vec<String>,
    },
    /// A recipient is ours, but what was wrapped for it does not open.
    #[error("the data key wrapped for {recipient} is damaged")]
    DamagedDataKey {
        /// The recipient whose entry is damaged.
        recipient: String,
    },
    /// A value's tag does not fit its content and path.
    #[error("sealed value at {path} does not authenticate: altered, or moved from another path")]
    Unauthentic {
        /// Path of keys, joined by dots.
        path: String,
    },
    /// The file's rules say that this value is sealed, but it is cleartext.
    #[error("value at {path} is cleartext where the file's rules want it sealed")]
    NotSealed {
        /// Path of keys, joined by dots.
        path: String,
    },
    /// A sealed value is not of the form `ENC[AES256_GCM,...]`, or of an unknown type.
    #[error("sealed value at {path}: {problem}")]
    BadValue {
        /// Path of keys, joined by dots.
        path: String,
        /// What is wrong, without content.
        problem: &'static str,
    },
    /// The opened tree does not fit the format that is asked for.
    #[error("cannot be written as {format}: {path} {problem}")]
    Unwritable {
        /// The format that was asked for.
        format: Format,
        /// Path of keys, joined by dots.
        path: String,
        /// Why it does not fit.
        problem: &'static str,
    },
    /// A key file holds a line that is no identity.
    #[error("age key file, line {line}: {problem}")]
    BadIdentity {
        /// Line from 1.
        line: usize,
        /// What is wrong, without content.
        problem: &'static str,
    },
    /// What was given as a public key is none.
    #[error("a recipient {problem}")]
    BadRecipient {
        /// What is wrong, without content.
        problem: &'static str,
    },
    /// A key file lies open to others.
    #[error(
        "{} holds key material and has mode {mode:04o}, which lets others at it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A credential exists but cannot be read.
    #[error("credential {}: {problem}", path.display())]
    Credential {
        /// Where it was looked for.
        path: PathBuf,
        /// The system's words.
        problem: String,
    },
}

impl SecretsError {
    /// True where trying again without a change in Git or on the host can help.
    pub fn retry(&self) -> bool {
        matches!(self, SecretsError::Credential { .. })
    }

    /// What the operator can do, as one sentence.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            SecretsError::MissingKey { held, .. } | SecretsError::MissingGroups { held, .. }
                if held.is_empty() =>
            {
                NO_KEY.to_owned()
            }
            SecretsError::MissingKey { held, .. } | SecretsError::MissingGroups { held, .. } => {
                format!(
                    "add {} to .sops.yaml and run `sops updatekeys FILE`, or import the key that \
                     the file is sealed to",
                    held[0]
                )
            }
            SecretsError::OnlyForeignKeys { .. } => {
                "add an age recipient to .sops.yaml and run `sops updatekeys FILE`".to_owned()
            }
            SecretsError::DamagedDataKey { .. } => {
                "restore the `sops` section from Git's history, or run `sops updatekeys FILE` \
                 where another key still opens it"
                    .to_owned()
            }
            SecretsError::Unauthentic { .. } | SecretsError::BadValue { .. } => {
                "restore the value from Git's history, then change it with `sops edit FILE`"
                    .to_owned()
            }
            SecretsError::NotSealed { .. } => {
                "take the value out again, change it if it was published, then add it with \
                 `sops edit FILE`"
                    .to_owned()
            }
            SecretsError::BadIdentity { .. } => {
                "a key file holds AGE-SECRET-KEY-1 lines, unencrypted OpenSSH keys and # comments"
                    .to_owned()
            }
            SecretsError::BadRecipient { .. } => {
                "give the line that follows `# public key:` in a key file: age1…".to_owned()
            }
            SecretsError::Exposed { path, .. } => format!("chmod 0400 {}", path.display()),
            SecretsError::Credential { problem, .. } if problem.contains("is not there") => {
                "put the file there, or correct the setting; gitopsd init takes credentials and \
                 writes both"
                    .to_owned()
            }
            SecretsError::Credential { problem, .. } if problem.contains("ermission denied") => {
                "let the user gitopsd read it, or put it into /etc/gitopsd/credentials/, from where \
                 systemctl reload gitopsd hands it over; in a terminal: try sudo"
                    .to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

/// ` at line N`, or nothing where the line is not known.
fn at_line(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" at line {line}") }
}

/// The public keys of our identities.
fn holding(keys: &[String]) -> String {
    match keys {
        [] => "no key is held here".to_owned(),
        [key] => format!("the key held here is {key}"),
        keys => format!("the keys held here are {}", keys.join(", ")),
    }
}

/// Public keys one after the other, or `none`.
fn list(keys: &[String]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}
