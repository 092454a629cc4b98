//! Pure: the `root` section: which repository, which ref, with which credentials.
//!
//! What cannot work together is refused here, so that a mistake is met at `gitopsd check` with its
//! line and not at the first poll. Whether the remote agrees is not known before that poll.

use super::fragment::dotted;
use super::problem::Problem;
use super::settings::{Reader, RootCredentials, RootRef, RootSettings};
use std::time::Duration;

impl Reader<'_> {
    pub(super) fn root(&mut self) -> Option<RootSettings> {
        let place = self.find("root")?.place.clone();
        let missing = |reader: &mut Self, key: &str, fix: &str| {
            let (place, key, fix) = (place.clone(), dotted("root", key), fix.to_owned());
            reader.problems.push(Problem::Missing { place, key, fix });
        };
        let url = self.text("root.url");
        match url {
            None => missing(self, "url", "write url: https://… or ssh://…"),
            Some((url, place)) => {
                if let Err(error) = check_url(url) {
                    self.invalid("root.url", place, error.to_string(), error.hint());
                }
            }
        }
        let said = self.text("root.path");
        let path = said.map(|(path, _)| entry_path(path));
        match (&path, said) {
            (None, _) => missing(self, "path", "write path: clusters/my-cluster"),
            (Some(Err(error)), Some((_, place))) => {
                self.invalid("root.path", place, error.to_string(), error.hint());
            }
            _ => {}
        }
        let reference = self.reference();
        let minute = Duration::from_secs(60);
        let interval = ("root.interval", minute);
        let interval = self.duration(interval, Duration::from_secs(1), 24 * 60 * minute);
        let (url, _) = url?;
        let credentials = self.credentials(url);
        let path = path?.ok()?;
        Some(RootSettings { url: url.to_owned(), reference, path, interval, credentials })
    }

    /// One of the five; only a branch may stand beside a commit.
    fn reference(&mut self) -> RootRef {
        let branch = self.text("root.ref.branch").map(|(said, _)| said.to_owned());
        let kinds = ["commit", "name", "semver", "tag", "branch"];
        let paths = kinds.map(|kind| dotted("root.ref", kind));
        let said: Vec<_> = kinds
            .iter()
            .zip(&paths)
            .filter_map(|(kind, path)| Some((*kind, self.text(path)?)))
            .collect();
        for (kind, (text, place)) in &said {
            if text.is_empty() {
                self.invalid(&dotted("root.ref", kind), place, "empty", "write a name");
            }
        }
        let Some((kind, (text, place))) = said.first().copied() else {
            return RootRef::Branch("master".to_owned());
        };
        for (other, (_, place)) in &said[1..] {
            if (kind, *other) != ("commit", "branch") {
                let what = format!("said beside {kind}");
                self.invalid(&dotted("root.ref", other), place, what, "keep one of the two");
            }
        }
        let text = text.to_owned();
        match kind {
            "commit" => {
                let sha = text.to_lowercase();
                if sha.len() != 40 || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    let what = format!("{text:?} is not a full commit id");
                    self.invalid("root.ref.commit", place, what, "write all 40 hex digits");
                }
                RootRef::Commit { sha, branch }
            }
            "name" => {
                if !text.starts_with("refs/") {
                    let what = format!("{text:?} is not a full ref name");
                    self.invalid("root.ref.name", place, what, "write refs/heads/… or refs/tags/…");
                }
                RootRef::Name(text)
            }
            "semver" => RootRef::Semver(text),
            "tag" => RootRef::Tag(text),
            _ => RootRef::Branch(text),
        }
    }

    fn credentials(&mut self, url: &str) -> RootCredentials {
        let at = |key| dotted("root.credentials", key);
        let ssh = url.starts_with("ssh://");
        let (http_only, ssh_only) = (
            ["username", "passwordFile", "bearerTokenFile", "caFile"],
            ["identityFile", "knownHostsFile"],
        );
        let (strange, scheme) =
            if ssh { (&http_only[..], "ssh") } else { (&ssh_only[..], "http and https") };
        for key in strange {
            if let Some((_, place)) = self.text(&at(key)) {
                let what = format!("has no use with {scheme}");
                self.invalid(&at(key), place, what, "remove it or correct root.url");
            }
        }
        if let (Some((_, place)), true) =
            (self.text(&at("bearerTokenFile")), self.text(&at("passwordFile")).is_some())
        {
            let what = "said beside passwordFile";
            self.invalid(&at("bearerTokenFile"), place, what, "keep one of the two");
        }
        if let (Some((_, place)), None) =
            (self.text(&at("username")), self.secret_file(&at("passwordFile")))
        {
            self.invalid(&at("username"), place, "said without passwordFile", "add passwordFile");
        }
        // Credentials of the unit may hold what another scheme needs: only the fitting ones count.
        let mut file = |key, fits: bool| {
            let named = self.named_file(&at(key));
            if fits { named.or_else(|| self.credential(&at(key))) } else { named }
        };
        let bearer_named = file("bearerTokenFile", false);
        let password_file = file("passwordFile", !ssh && bearer_named.is_none());
        let bearer_token_file =
            bearer_named.or_else(|| file("bearerTokenFile", !ssh && password_file.is_none()));
        let (identity_file, known_hosts_file, ca_file) =
            (file("identityFile", ssh), file("knownHostsFile", ssh), file("caFile", !ssh));
        let username = self.text(&at("username")).map(|(name, _)| name.to_owned());
        RootCredentials {
            username: username.or_else(|| password_file.as_ref().map(|_| "git".to_owned())),
            password_file,
            bearer_token_file,
            identity_file,
            known_hosts_file,
            ca_file,
        }
    }
}

/// Why something cannot be the entry's URL or directory; a password in a URL is never repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// `HOST:PATH`, which Flux does not take either.
    #[error("the short form HOST:PATH is not taken")]
    ShortForm,
    /// It does not say how to get there.
    #[error("no scheme")]
    NoScheme,
    /// Another one than https, http or ssh.
    #[error("scheme {0:?} is not taken")]
    Scheme(String),
    /// A password in it, or for https a user.
    #[error("credentials inside the URL")]
    Credentials,
    /// Nothing that could be a server's name.
    #[error("no host, or a blank in it")]
    Host,
    /// It leaves the repository.
    #[error("{0:?} is not a directory below the repository's top")]
    Outside(String),
}

impl RootError {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        match self {
            RootError::ShortForm => "write ssh://git@HOST/PATH, as Flux wants it",
            RootError::NoScheme | RootError::Scheme(_) => "write https://… or ssh://…",
            RootError::Credentials => "move it to root.credentials: username and passwordFile",
            RootError::Host => "write https://HOST/PATH",
            RootError::Outside(_) => "write it without a leading / and without ..",
        }
    }
}

/// Whether this can be the URL of the entry's repository.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), RootError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(match url.split_once(':') {
            Some((host, _)) if !host.contains('/') => RootError::ShortForm,
            _ => RootError::NoScheme,
        });
    };
    if !["https", "http", "ssh"].contains(&scheme) {
        return Err(RootError::Scheme(scheme.to_owned()));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') || (scheme != "ssh" && !user.is_empty()) {
        return Err(RootError::Credentials);
    }
    if host.is_empty() || url.contains(char::is_whitespace) {
        return Err(RootError::Host);
    }
    Ok(())
}

/// The entry's directory as it is kept: `./clusters/x/` is `clusters/x`, and the top is `.`.
///
/// # Errors
/// It leaves the repository.
pub fn entry_path(said: &str) -> Result<String, RootError> {
    let parts: Vec<_> = said.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if said.starts_with('/') || parts.contains(&"..") {
        return Err(RootError::Outside(said.to_owned()));
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}
