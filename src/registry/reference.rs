//! Pure: image names as `spec.image` of an ImageRepository has them (Flux: ImageRepository).
//!
//! The rules are those of Flux's parser: what stands before the first slash is a registry only if
//! it has a dot or a colon; without one the image is Docker Hub's, and a name without a slash
//! there lies below `library/`. Scheme, tag and digest are refused, since a repository has none.
//! Beyond Flux, the path must be one that a registry can have: components of lower-case letters
//! and digits, parted by `.`, `_`, `__` or dashes.

use std::fmt;

/// Docker Hub, as Flux writes it.
pub(super) const HUB: &str = "index.docker.io";

/// Longest path of a repository, as the registry protocol has it.
const PATH_LIMIT: usize = 255;

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// Why an image name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing.
    #[error("the image name is empty")]
    Empty,
    /// It begins like a URL.
    #[error("{image:?} begins with a scheme; write it without {scheme}://")]
    Scheme {
        /// As written.
        image: String,
        /// What to remove.
        scheme: String,
    },
    /// It ends in a tag.
    #[error("{image:?} has a tag; a repository has none: write it without :{tag}")]
    Tag {
        /// As written.
        image: String,
        /// What to remove.
        tag: String,
    },
    /// It ends in a digest.
    #[error("{image:?} has a digest; a repository has none: write it without @{digest}")]
    Digest {
        /// As written.
        image: String,
        /// What to remove.
        digest: String,
    },
    /// The part before the first slash is no host.
    #[error("{image:?}: {registry:?} is no host name or address with an optional port")]
    Registry {
        /// As written.
        image: String,
        /// What stands for the registry.
        registry: String,
    },
    /// The rest is no path.
    #[error("{image:?}: {what}")]
    Path {
        /// As written.
        image: String,
        /// What is wrong.
        what: String,
    },
}

impl ReferenceError {
    /// Whether time alone heals it: never, someone has to edit the name.
    pub fn retry(&self) -> bool {
        false
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        Some("write host[:port]/path, or a name on Docker Hub, without scheme and tag".into())
    }
}

impl Repository {
    /// Reads `registry.lan:5000/games/blaster`, `ghcr.io/org/app` or `podinfo`.
    pub fn parse(image: &str) -> Result<Repository, ReferenceError> {
        let whole = || image.to_owned();
        if image.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some((scheme, _)) = image.split_once("://") {
            return Err(ReferenceError::Scheme { image: whole(), scheme: scheme.to_owned() });
        }
        if let Some((_, digest)) = image.split_once('@') {
            return Err(ReferenceError::Digest { image: whole(), digest: digest.to_owned() });
        }
        let (registry, path) = match image.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) => (Some(first), rest),
            _ => (None, image),
        };
        if let Some((_, tag)) = path.split_once(':') {
            return Err(ReferenceError::Tag { image: whole(), tag: tag.to_owned() });
        }
        if let Some(registry) = registry.filter(|registry| !is_authority(registry)) {
            let registry = registry.to_owned();
            return Err(ReferenceError::Registry { image: whole(), registry });
        }
        if let Some(what) = path_problem(path) {
            return Err(ReferenceError::Path { image: whole(), what });
        }
        let registry = registry.map_or(HUB, |said| if said == "docker.io" { HUB } else { said });
        let implied = registry == HUB && !path.contains('/');
        let path = if implied { format!("library/{path}") } else { path.to_owned() };
        Ok(Repository { registry: registry.to_owned(), path })
    }

    /// Host and, where it was written, port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// What follows the registry: `library/podinfo`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name in full, as in Flux's `status.canonicalImageName`:
    /// `index.docker.io/library/podinfo`.
    pub fn canonical(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// Whether it is a host name, an IPv4 or a bracketed IPv6 address, with an optional port.
pub(super) fn is_authority(said: &str) -> bool {
    let (host, port) = match said.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (said, None),
    };
    let word = |host: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        !host.is_empty() && host.bytes().all(allowed)
    };
    let six = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<core::net::Ipv6Addr>().is_ok())
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && (word(host) || six(host))
}

fn path_problem(path: &str) -> Option<String> {
    if path.len() > PATH_LIMIT {
        return Some(format!("the path is longer than {PATH_LIMIT} characters"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("the path must be in lower case".into());
    }
    let bad = path.split('/').find(|component| !is_component(component))?;
    Some(match bad {
        "" => "an empty component: a slash too many".into(),
        bad => format!(
            "{bad:?} is no component of a path: letters a-z and digits, parted by . _ __ or -"
        ),
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut last_was_word = false;
    for byte in component.bytes() {
        if word(byte) {
            let fits = separator.is_empty()
                || matches!(separator.as_str(), "." | "_" | "__")
                || separator.bytes().all(|b| b == b'-');
            if !fits || (!separator.is_empty() && separator.len() == component.len()) {
                return false;
            }
            separator.clear();
            last_was_word = true;
        } else if matches!(byte, b'.' | b'_' | b'-') && (last_was_word || !separator.is_empty()) {
            separator.push(byte as char);
            last_was_word = false;
        } else {
            return false;
        }
    }
    last_was_word
}

/// Whether a string can be a tag.
pub(super) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let rest = |b: u8| word(b) || matches!(b, b'.' | b'-');
    (1..=128).contains(&tag.len()) && word(tag.as_bytes()[0]) && tag.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_flux_does() {
        for (image, canonical) in [
            ("podinfo", "index.docker.io/library/podinfo"),
            ("docker.io/podinfo", "index.docker.io/library/podinfo"),
            ("docker.io/stefanprodan/podinfo", "index.docker.io/stefanprodan/podinfo"),
            ("registry/games/blaster", "index.docker.io/registry/games/blaster"),
            ("localhost/app", "index.docker.io/localhost/app"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("registry.lan/app", "registry.lan/app"),
            ("registry.lan:5000/games/blaster", "registry.lan:5000/games/blaster"),
            ("10.0.0.2:5000/a/b/c", "10.0.0.2:5000/a/b/c"),
            ("[fd00::1]:5000/app", "[fd00::1]:5000/app"),
            ("ghcr.io/o/a__b.c--d", "ghcr.io/o/a__b.c--d"),
        ] {
            let read = Repository::parse(image).unwrap();
            assert_eq!(read.canonical(), canonical, "{image}");
            assert_eq!(Repository::parse(&read.to_string()).unwrap(), read, "{image}");
        }
    }

    #[test]
    fn what_is_no_repository_is_refused_with_what_to_remove() {
        for (image, expected) in [
            ("", "empty"),
            ("https://ghcr.io/o/a", "without https://"),
            ("oci://ghcr.io/o/a", "without oci://"),
            ("podinfo:6.0", "without :6.0"),
            ("reg.lan:5000/a:v1", "without :v1"),
            ("ghcr.io/o/a@sha256:00", "without @sha256:00"),
            ("reg.lan:port/a", "is no host name"),
            ("reg.lan:0/a", "is no host name"),
            ("reg lan.x/a", "is no host name"),
            ("ghcr.io/Org/App", "lower case"),
            ("ghcr.io//a", "a slash too many"),
            ("ghcr.io/", "a slash too many"),
            ("ghcr.io/a/", "a slash too many"),
            ("ghcr.io/a..b", "no component"),
            ("ghcr.io/a___b", "no component"),
            ("ghcr.io/-a", "no component"),
            ("ghcr.io/a/../b", "no component"),
            ("ghcr.io/ä", "no component"),
            ("ghcr.io/a?x=1", "no component"),
        ] {
            let error = Repository::parse(image).unwrap_err();
            assert!(error.to_string().contains(expected), "{image}: {error}");
        }
        assert!(Repository::parse(&format!("reg.lan/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn tags_follow_the_protocol() {
        for tag in ["latest", "dev-20261122.7", "_x", "1.2.3-rc.1", "V1", &"a".repeat(128)] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in ["", "-a", ".a", "a b", "a/b", "a\n", "ä", "a+b", &"a".repeat(129)] {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}
