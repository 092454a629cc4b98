//! Pure: what an entry outside the source asks for, in kustomize's reading of URLs.
//!
//! An entry is a file behind https or a directory of a Git repository. Where the repository ends
//! and the directory begins is said by `_git/`, by `//` or by `.git`, else it is the first two
//! words of the path, as on GitHub. `?ref=` (or `?version=`) names a branch, a tag or a commit.
//! kustomize finds out by trying whether a plain URL is a file; here it is one unless something
//! in it says Git, so that the same entry never means two things.

use sha2::{Digest, Sha256};

/// Where copies lie in a workspace, seen from its root.
pub(crate) const DIR: &str = ".gitopsd-remote";

/// What has to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// One file of manifests.
    File {
        /// Its URL.
        url: String,
    },
    /// A directory of a repository.
    Git {
        /// The repository's URL.
        url: String,
        /// Branch, tag or commit; none is the remote's default branch.
        reference: Option<String>,
        /// Path in the repository, normalised; empty for its root.
        path: String,
    },
}

/// Hosts whose plain URLs name repositories.
const FORGES: [&str; 4] = ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"];

/// Reads an entry.
///
/// # Errors
/// Why it cannot be fetched and what to write instead, to be put behind the entry.
pub(crate) fn address(entry: &str) -> Result<Address, String> {
    let (forced, entry) = match entry.strip_prefix("git::") {
        Some(entry) => (true, entry),
        None => (false, entry),
    };
    let (base, query) = entry.split_once('?').unwrap_or((entry, ""));
    let (scheme, rest) = match base.split_once("://") {
        Some(("https" | "http", _)) => base.split_once("://").unwrap_or_default(),
        Some((scheme, _)) => return Err(needs_key(&format!("{scheme}://"))),
        None if base.contains('@') || base.starts_with("github.com:") => {
            return Err(needs_key("ssh"));
        }
        None => ("https", base),
    };
    let Some((host, path)) = rest.split_once('/').filter(|(_, path)| !path.is_empty()) else {
        return Err("names no path behind the host".to_owned());
    };
    if host.contains('@') {
        return Err("carries a user name: bases are fetched without credentials".to_owned());
    }
    let reference = parameter(query, "ref").or_else(|| parameter(query, "version"));
    let marked = split_at_marker(path);
    let file = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    let git =
        forced || marked.is_some() || reference.is_some() || (FORGES.contains(&host) && !file);
    if !git {
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        return Ok(Address::File { url: format!("{scheme}://{host}/{path}{query}") });
    }
    let (repository, below) = match marked {
        Some(split) => split,
        None => split_by_words(path).ok_or("names no repository: write HOST/OWNER/REPOSITORY")?,
    };
    let mut parts = Vec::new();
    for part in below.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or("leaves the repository that it names")?),
            name => parts.push(name),
        }
    }
    let url = format!("{scheme}://{host}/{}", repository.trim_end_matches('/'));
    Ok(Address::Git { url, reference, path: parts.join("/") })
}

/// The name of an entry's copy, in the workspace and on disk: 16 hex digits.
pub(crate) fn place(entry: &str) -> String {
    let digest = Sha256::digest(entry.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn needs_key(how: &str) -> String {
    format!("would need an ssh key ({how}), which a base has no place for: write its https URL")
}

/// kustomize's three explicit marks, in its order.
fn split_at_marker(path: &str) -> Option<(&str, &str)> {
    if let Some(at) = path.find("_git/") {
        let from = at + "_git/".len();
        let end = path[from..].find('/').map_or(path.len(), |end| from + end);
        return Some((&path[..end], &path[end..]));
    }
    if let Some(split) = path.split_once("//") {
        return Some(split);
    }
    let ends = |at: &usize| matches!(path.as_bytes().get(at + 4), None | Some(b'/'));
    let at = path.match_indices(".git").map(|(at, _)| at).find(ends)?;
    Some((&path[..at + 4], &path[at + 4..]))
}

fn split_by_words(path: &str) -> Option<(&str, &str)> {
    let first = path.find('/')?;
    let end = path[first + 1..].find('/').map_or(path.len(), |end| first + 1 + end);
    (end > first + 1).then(|| (&path[..end], &path[end..]))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next()?;
    (!value.is_empty()).then_some(value)
}

/// Undoes percent-encoding; what is no such code stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(url: &str, reference: Option<&str>, path: &str) -> Result<Address, String> {
        let reference = reference.map(str::to_owned);
        Ok(Address::Git { url: url.into(), reference, path: path.into() })
    }

    fn file(url: &str) -> Result<Address, String> {
        Ok(Address::File { url: url.into() })
    }

    #[test]
    fn urls_are_split_as_kustomize_splits_them() {
        for (entry, wanted) in [
            ("github.com/o/r", git("https://github.com/o/r", None, "")),
            ("https://github.com/o/r/a/b?ref=v1", git("https://github.com/o/r", Some("v1"), "a/b")),
            (
                "https://github.com/o/r//a?version=v2",
                git("https://github.com/o/r", Some("v2"), "a"),
            ),
            ("https://h/g/s/r.git/a/./b", git("https://h/g/s/r.git", None, "a/b")),
            ("https://h/g/s/r.git?ref=x%2By", git("https://h/g/s/r.git", Some("x+y"), "")),
            ("https://h/g/s/r//a/b?ref=x&timeout=9", git("https://h/g/s/r", Some("x"), "a/b")),
            ("git::https://h/o/r/a", git("https://h/o/r", None, "a")),
            ("https://d/o/p/_git/r/a?ref=x", git("https://d/o/p/_git/r", Some("x"), "a")),
            ("https://h/o/.github/x.yaml", file("https://h/o/.github/x.yaml")),
            (
                "https://github.com/o/r/releases/download/v1/i.yaml",
                file("https://github.com/o/r/releases/download/v1/i.yaml"),
            ),
            (
                "https://h/x/-/raw/main/i.yaml?inline=false",
                file("https://h/x/-/raw/main/i.yaml?inline=false"),
            ),
            ("https://h/manifests/install", file("https://h/manifests/install")),
        ] {
            assert_eq!(address(entry), wanted, "{entry}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_told_with_a_remedy() {
        for (entry, wanted) in [
            ("ssh://git@h/o/r?ref=x", "https URL"),
            ("git@github.com:o/r", "https URL"),
            ("https://me:pw@h/o/r.git", "without credentials"),
            ("https://h", "no path"),
            ("https://h/r?ref=x", "HOST/OWNER/REPOSITORY"),
            ("https://h/o/r//../..?ref=x", "leaves the repository"),
        ] {
            let told = address(entry).unwrap_err();
            assert!(told.contains(wanted), "{entry}: {told}");
        }
    }
}
