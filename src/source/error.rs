//! Pure: what can go wrong with a source, what to do about it and whether time heals it.
//!
//! Causes are texts in which no credential can be: URLs arrive without their userinfo
//! ([`public_url`]), headers and keys are never part of a message.

use std::time::Duration;

/// A failure of a Source or of a Tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The remote cannot be reached or answered with a server error.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// The remote.
        url: String,
        /// Why.
        cause: String,
    },
    /// The remote wants other credentials than it got.
    #[error("{url} refused the credentials: {cause}")]
    AuthenticationFailed {
        /// The remote.
        url: String,
        /// What it said.
        cause: String,
    },
    /// There is no such repository, or none that these credentials may see.
    #[error("there is no repository at {url}, or none that these credentials may see")]
    RepositoryNotFound {
        /// The remote.
        url: String,
    },
    /// The repository has no such branch, tag, ref or commit.
    #[error("{url} has no {what}")]
    RefNotFound {
        /// The remote.
        url: String,
        /// Kind and name: `branch main`, `tag in the range >=1`.
        what: String,
        /// Names there that resemble it, nearest first, at most five.
        similar: Vec<String>,
    },
    /// The host key of an ssh server is not in `known_hosts`, or another one is.
    #[error("the ssh host key of {url} is not the one in known_hosts: {cause}")]
    HostKeyUnknown {
        /// The remote.
        url: String,
        /// ssh's own words.
        cause: String,
    },
    /// The server's certificate is not signed by anybody we know, or not for this name or date.
    #[error("the certificate of {url} is not trusted: {cause}")]
    CertificateUntrusted {
        /// The remote.
        url: String,
        /// The verdict.
        cause: String,
    },
    /// The repository has no commit at all.
    #[error("the repository at {url} is empty")]
    Empty {
        /// The remote.
        url: String,
    },
    /// The poll took longer than `spec.timeout`.
    #[error("{url} took longer than {} s", after.as_secs())]
    Timeout {
        /// The remote.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// The remote speaks, but not what we understand.
    #[error("unexpected answer from {url}: {cause}")]
    Protocol {
        /// The remote.
        url: String,
        /// What was unexpected.
        cause: String,
    },
    /// The URL cannot be used.
    #[error("the URL {url} is not usable: {cause}")]
    InvalidUrl {
        /// The URL without userinfo.
        url: String,
        /// Why.
        cause: String,
    },
    /// `ref.semver` cannot be read.
    #[error("spec.ref.semver {range:?}: {cause}")]
    InvalidRange {
        /// The range as written.
        range: String,
        /// Why.
        cause: String,
    },
    /// The Secret does not hold what the URL needs.
    #[error("the credentials are not usable: {cause}")]
    InvalidCredential {
        /// Which key is wrong and how.
        cause: String,
    },
    /// The key that is to sign commits cannot.
    #[error("the signing key is not usable: {cause}")]
    InvalidSigningKey {
        /// What is wrong with it.
        cause: String,
    },
    /// A commit cannot be made as it was asked for.
    #[error("cannot make the commit: {cause}")]
    InvalidCommit {
        /// Why.
        cause: String,
    },
    /// A push cannot be made as it was asked for.
    #[error("spec.git.push: {cause}")]
    InvalidPush {
        /// Why.
        cause: String,
    },
    /// No space left for the mirror.
    #[error("no space left on the disk: {cause}")]
    DiskFull {
        /// What was being written.
        cause: String,
    },
    /// A file or a repository above our limits.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Path of the file, or the repository.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The mirror on disk is damaged; the next poll makes a new one.
    #[error("the mirror on disk is damaged: {cause}")]
    BrokenMirror {
        /// What could not be read.
        cause: String,
    },
    /// The state directory cannot be read or written.
    #[error("{what}: {cause}")]
    Storage {
        /// What was being done.
        what: String,
        /// The system's own words.
        cause: String,
    },
    /// A path that leaves the tree or is not one.
    #[error("the path {path:?} is outside the repository")]
    PathEscapes {
        /// The path as given.
        path: String,
    },
    /// Nothing of the wanted kind at this path.
    #[error("there is no {kind} at {path:?}")]
    PathNotFound {
        /// The path.
        path: String,
        /// `file` or `directory`.
        kind: &'static str,
    },
}

impl SourceError {
    /// Whether the same poll may succeed later without anybody changing anything in Git or here.
    pub fn retry(&self) -> bool {
        use SourceError::*;
        match self {
            Unreachable { .. } | Timeout { .. } | Protocol { .. } => true,
            DiskFull { .. } | BrokenMirror { .. } | Storage { .. } => true,
            // Somebody may push the branch or grant the access; asking again is the way to notice.
            RefNotFound { .. } | Empty { .. } | RepositoryNotFound { .. } => true,
            AuthenticationFailed { .. } | HostKeyUnknown { .. } | CertificateUntrusted { .. } => {
                true
            }
            InvalidUrl { .. } | InvalidRange { .. } | InvalidCredential { .. } => false,
            InvalidSigningKey { .. } | InvalidCommit { .. } | InvalidPush { .. } => false,
            TooLarge { .. } | PathEscapes { .. } | PathNotFound { .. } => false,
        }
    }

    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        use SourceError::*;
        let text = match self {
            AuthenticationFailed { url, .. } if url.starts_with("ssh://") => {
                "add the public half of the key (identity) to the repository's deploy keys; \
                 a passphrase of the key goes into password"
                    .into()
            }
            AuthenticationFailed { .. } => {
                "check username and password (an access token goes into password), \
                 or bearerToken, and that the token has not expired"
                    .into()
            }
            RefNotFound { similar, .. } if !similar.is_empty() => {
                format!("it has {}", similar.join(", "))
            }
            HostKeyUnknown { url, .. } => {
                let (host, port) = host_and_port(url);
                let port = port.map(|port| format!("-p {port} ")).unwrap_or_default();
                format!("compare and add to known_hosts: ssh-keyscan {port}{host}")
            }
            CertificateUntrusted { cause, .. } => crate::net::remedy(cause).into(),
            Empty { .. } => "push a first commit".into(),
            // They lie on the tmpfs of the runtime directory, see `ssh`.
            DiskFull { cause } if cause.contains("the files for ssh") => {
                "make room in the runtime directory: df -h /run".into()
            }
            DiskFull { .. } => "free space in the state directory".into(),
            Storage { .. } => {
                "the user gitopsd must own the state directory and its disk must be mounted \
                 read-write: journalctl -k -p warning tells why a disk turned read-only"
                    .into()
            }
            Protocol { cause, .. } if cause.contains("redirect") => {
                "write the URL that the server redirects to".into()
            }
            InvalidCredential { .. } => {
                "https needs username and password, or bearerToken; ssh needs identity and \
                 known_hosts; caFile is ca.crt in a Secret"
                    .into()
            }
            InvalidSigningKey { .. } => {
                "an OpenSSH private key signs: ssh-keygen -t ed25519 -f KEY makes one".into()
            }
            _ => return None,
        };
        Some(text)
    }
}

/// A URL without user and password, fit for messages and records.
pub fn public_url(url: &str) -> String {
    match split_userinfo(url) {
        Some((scheme, _, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

/// `scheme`, `userinfo` and what follows the `@`, if the URL has userinfo.
pub(super) fn split_userinfo(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..authority].rfind('@')?;
    Some((scheme, &rest[..at], &rest[at + 1..]))
}

fn host_and_port(url: &str) -> (String, Option<String>) {
    let public = public_url(url);
    let rest = public.split_once("://").map_or(public.as_str(), |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (host.trim_matches(['[', ']']).to_owned(), Some(port.to_owned()))
        }
        _ => (authority.trim_matches(['[', ']']).to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_never_survives_in_a_public_url() {
        for (url, public) in [
            ("https://u:p@h/r", "https://h/r"),
            ("https://u:p%40@h:1/r@v", "https://h:1/r@v"),
            ("https://h/r@v", "https://h/r@v"),
            ("ssh://git@h/r", "ssh://h/r"),
            ("https://a@b@h", "https://h"),
            ("not a url", "not a url"),
        ] {
            assert_eq!(public_url(url), public);
        }
    }

    #[test]
    fn an_unknown_host_key_comes_with_the_command_that_shows_it() {
        let error = SourceError::HostKeyUnknown {
            url: "ssh://git@git.example:2222/r".into(),
            cause: String::new(),
        };
        let hint = error.hint().unwrap();
        assert!(hint.ends_with("ssh-keyscan -p 2222 git.example"), "{hint}");
    }
}
