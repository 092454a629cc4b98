//! Pure: GitRepository, its fields, defaults and limits (Flux: GitRepository).

use super::{Key, Kind, Reader, Unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// A Git source. Revision strings, reasons and precedence of refs are Flux's.
#[derive(Clone, Debug, PartialEq)]
pub struct GitRepository {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `https://`, `http://` or `ssh://`.
    pub url: String,
    /// How often the remote is asked.
    pub interval: Duration,
    /// Limit of one poll, fetch included; 60 s unless said.
    pub timeout: Duration,
    /// What is followed.
    pub reference: GitReference,
    /// Secret with credentials, in the same namespace.
    pub secret_ref: Option<String>,
    /// `.sourceignore` lines of the spec.
    pub ignore: Option<String>,
    /// True when polling is stopped in Git.
    pub suspend: bool,
    /// Fields we do not act upon yet.
    pub unsupported: Vec<Unsupported>,
}

/// What a source follows, in Flux's precedence: commit, name, semver, tag, branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "RawReference")]
pub enum GitReference {
    /// One commit; with a branch only that branch is fetched.
    Commit {
        /// 40 hex digits.
        sha: String,
        /// Branch said beside it.
        branch: Option<String>,
    },
    /// A full ref name such as `refs/heads/x` or `refs/pull/420/head`.
    Name(String),
    /// Highest tag in a Masterminds range.
    Semver(String),
    /// One tag.
    Tag(String),
    /// A branch; `master` when nothing is said.
    Branch(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawReference {
    branch: Option<String>,
    tag: Option<String>,
    semver: Option<String>,
    name: Option<String>,
    commit: Option<String>,
}

#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

impl From<RawReference> for GitReference {
    fn from(raw: RawReference) -> Self {
        let said = |field: Option<String>| field.filter(|text| !text.is_empty());
        let branch = said(raw.branch);
        if let Some(sha) = said(raw.commit) {
            GitReference::Commit { sha, branch }
        } else if let Some(name) = said(raw.name) {
            GitReference::Name(name)
        } else if let Some(range) = said(raw.semver) {
            GitReference::Semver(range)
        } else if let Some(tag) = said(raw.tag) {
            GitReference::Tag(tag)
        } else {
            GitReference::Branch(branch.unwrap_or_else(|| "master".to_owned()))
        }
    }
}

impl GitRepository {
    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(Kind::GitRepository, &self.namespace, &self.name)
    }

    pub(super) fn read(manifest: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(manifest);
        let url: Option<String> = reader.required("url");
        if let Some(url) = &url {
            let known = ["https://", "http://", "ssh://"].iter().any(|p| url.starts_with(p));
            if !known {
                let hint = "write ssh://git@host/path for git@host:path";
                reader.problems.push(format!(
                    "spec.url: {url:?} must begin with https://, http:// or ssh:// ({hint})"
                ));
            }
        }
        reader.required::<String>("interval");
        let interval = reader.duration("interval");
        let timeout = reader.duration("timeout").unwrap_or(Duration::from_secs(60));
        let reference =
            reader.field("ref").unwrap_or_else(|| GitReference::from(RawReference::default()));
        if let GitReference::Commit { sha, .. } = &reference
            && (sha.len() != 40 || !sha.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            reader.problems.push(format!("spec.ref.commit: {sha:?} is not 40 hex digits"));
        }
        let secret_ref = reader.field::<NameOnly>("secretRef").map(|r| r.name);
        let ignore = reader.field("ignore");
        let suspend = reader.field("suspend").unwrap_or(false);
        if let Some(provider) = reader.field::<String>("provider")
            && provider != "generic"
        {
            reader.unsupported_field("provider", true);
        }
        let supported = [
            "url",
            "interval",
            "timeout",
            "ref",
            "secretRef",
            "ignore",
            "suspend",
            "provider",
            // Which Git library to use: gone from Flux since 0.41, never meant anything to us.
            "gitImplementation",
        ];
        // An unverified commit must not pass as a verified one.
        reader.refuse_others(&supported, &["verify", "include", "recurseSubmodules"]);
        let (_, namespace, name) = reader.identity.clone();
        match (url, interval) {
            (Some(url), Some(interval)) if reader.problems.is_empty() => Ok(GitRepository {
                namespace,
                name,
                url,
                interval,
                timeout,
                reference,
                secret_ref,
                ignore,
                suspend,
                unsupported: reader.unsupported,
            }),
            _ => Err(reader.wrong()),
        }
    }
}

impl GitRepository {
    /// What a repository says of the source that the host has named, its own entry, and that is
    /// not heeded there: the host's word is read before any file of it is.
    pub fn unheeded(&self) -> Vec<Unsupported> {
        let (kind, field) = (Kind::GitRepository.as_str().to_owned(), "spec.ignore".to_owned());
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let ignore = Unsupported { kind, namespace, name, field, blocks: false };
        let said = self.ignore.as_ref().map(|_| ignore);
        self.unsupported.iter().cloned().chain(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn repository(spec: Value) -> Result<GitRepository, Vec<String>> {
        GitRepository::read(&json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1beta2", "kind": "GitRepository",
            "metadata": {"name": "app", "namespace": "flux-system"}, "spec": spec,
        }))
    }

    #[test]
    fn commit_beats_name_beats_semver_beats_tag_beats_branch() {
        let all = json!({"branch": "b", "tag": "t", "semver": ">=1", "name": "refs/x",
            "commit": "0123456789012345678901234567890123456789"});
        let mut spec = json!({"url": "https://h/r", "interval": "1m", "ref": all});
        for (drop, expected) in [
            (
                "commit",
                GitReference::Commit {
                    sha: "0123456789012345678901234567890123456789".into(),
                    branch: Some("b".into()),
                },
            ),
            ("name", GitReference::Name("refs/x".into())),
            ("semver", GitReference::Semver(">=1".into())),
            ("tag", GitReference::Tag("t".into())),
            ("branch", GitReference::Branch("b".into())),
            ("none", GitReference::Branch("master".into())),
        ] {
            assert_eq!(repository(spec.clone()).unwrap().reference, expected);
            spec["ref"].as_object_mut().unwrap().remove(drop);
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = repository(json!({"url": "git@host:path", "interval": "10"})).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("ssh://git@host/path"));
    }

    #[test]
    fn a_misspelt_field_is_told_beside_what_is_missing() {
        let problems = repository(json!({"ulr": "https://h/r", "interval": "1m", "branch": "b"}));
        let expected = [
            "spec.url: missing",
            "spec.branch: unknown here, it belongs in spec.ref",
            "spec.ulr: unknown field, did you mean url?",
        ];
        let mut problems = problems.unwrap_err();
        problems[1..].sort();
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_field_that_would_be_skipped_in_silence_is_named() {
        let spec = json!({"url": "https://h/r", "interval": "1m", "verify": {"mode": "HEAD"}, "sparseCheckout": ["a"]});
        let named: Vec<_> = repository(spec)
            .unwrap()
            .unsupported
            .iter()
            .map(|u| (u.field.clone(), u.blocks))
            .collect();
        assert_eq!(named, [("spec.verify".into(), true), ("spec.sparseCheckout".into(), false)]);
    }
}
