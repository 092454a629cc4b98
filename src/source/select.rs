//! Pure: from the remote's refs and `spec.ref` to one commit and its revision string.
//!
//! Revision strings are Flux's (GitRepository, Artifact): `main@sha1:…` for branch, tag and semver,
//! the full ref for `ref.name`, `sha1:…` for a commit alone. The commit is the one behind an
//! annotated tag, not the tag object. Versions of equal precedence (build metadata) are ordered by
//! name here, where Flux asks for the commit time, which a listing does not tell.

use crate::flux::{GitReference, Range, Version};
use std::fmt;

/// A ref of the remote and the commit behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRef {
    /// Full name, `refs/heads/main`.
    pub name: String,
    /// 40 hex digits of the commit; annotated tags are peeled.
    pub commit: String,
}

/// One state of a source, printed as Flux prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Branch, tag or full ref; none for a commit alone.
    pub name: Option<String>,
    /// 40 hex digits.
    pub commit: String,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}@sha1:{}", self.commit),
            None => write!(f, "sha1:{}", self.commit),
        }
    }
}

/// What the listing leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The revision.
    pub revision: Revision,
    /// What to ask the remote for: a full ref, or the commit itself.
    pub want: String,
}

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// The semver range cannot be read.
    BadRange(String),
    /// There is no such ref.
    Missing,
}

/// Refspecs whose listing is enough to choose. A pattern must have two sides, even though the
/// second is not written when a listing is all that happens.
pub fn listing(reference: &GitReference) -> Vec<String> {
    match reference {
        GitReference::Commit { sha, .. } => vec![sha.clone()],
        GitReference::Name(name) => vec![name.clone()],
        GitReference::Semver(_) => vec!["+refs/tags/*:refs/gitopsd/tags/*".to_owned()],
        GitReference::Tag(tag) => vec![format!("refs/tags/{tag}")],
        GitReference::Branch(branch) => vec![format!("refs/heads/{branch}")],
    }
}

/// Chooses among the refs that the remote listed.
pub fn choose(reference: &GitReference, refs: &[RemoteRef]) -> Result<Choice, NoChoice> {
    let exact = |want: String, name: &str| {
        let found = refs.iter().find(|found| found.name == want).ok_or(NoChoice::Missing)?;
        let revision = Revision { name: Some(name.to_owned()), commit: found.commit.clone() };
        Ok(Choice { revision, want })
    };
    match reference {
        GitReference::Commit { sha, branch } => {
            let commit = sha.to_ascii_lowercase();
            let revision = Revision { name: branch.clone(), commit: commit.clone() };
            Ok(Choice { revision, want: commit })
        }
        GitReference::Name(name) => exact(name.clone(), name),
        GitReference::Tag(tag) => exact(format!("refs/tags/{tag}"), tag),
        GitReference::Branch(branch) => exact(format!("refs/heads/{branch}"), branch),
        GitReference::Semver(range) => {
            let range = Range::parse(range).map_err(NoChoice::BadRange)?;
            let tags = refs.iter().filter_map(|found| found.name.strip_prefix("refs/tags/"));
            let versions = tags.filter_map(|tag| Some((Version::parse_strict(tag)?, tag)));
            let admitted = versions.filter(|(version, _)| range.matches(version));
            let (_, tag) = admitted.max().ok_or(NoChoice::Missing)?;
            exact(format!("refs/tags/{tag}"), tag)
        }
    }
}

/// The reference in words: `branch main`.
pub fn describe(reference: &GitReference) -> String {
    match reference {
        GitReference::Commit { sha, .. } => format!("commit {sha}"),
        GitReference::Name(name) => format!("ref {name}"),
        GitReference::Semver(range) => format!("tag in the range {range}"),
        GitReference::Tag(tag) => format!("tag {tag}"),
        GitReference::Branch(branch) => format!("branch {branch}"),
    }
}

/// Names of the same kind that resemble the one that is missing: nearest first, at most five.
/// With five names or fewer all of them are told.
pub fn similar(reference: &GitReference, refs: &[RemoteRef]) -> Vec<String> {
    let (prefix, wanted) = match reference {
        GitReference::Commit { .. } => return Vec::new(),
        GitReference::Name(name) => ("", name.as_str()),
        GitReference::Semver(_) => ("refs/tags/", ""),
        GitReference::Tag(tag) => ("refs/tags/", tag.as_str()),
        GitReference::Branch(branch) => ("refs/heads/", branch.as_str()),
    };
    let names = refs.iter().filter(|found| found.name != "HEAD");
    let names: Vec<&str> = names.filter_map(|found| found.name.strip_prefix(prefix)).collect();
    let all = names.len() <= 5;
    // Beyond 2,000 names the search for resemblance is not worth its time.
    let measured = names.into_iter().take(2000).map(|name| (distance(wanted, name), name));
    let near = measured.filter(|(far, _)| all || *far <= wanted.len().max(4) / 2);
    let mut near: Vec<(usize, &str)> = near.collect();
    near.sort_unstable();
    near.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
}

/// Edits from one name to the other (Levenshtein), names cut at 100 bytes.
fn distance(one: &str, other: &str) -> usize {
    let other = &other.as_bytes()[..other.len().min(100)];
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let keep = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = keep.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(names: &[&str]) -> Vec<RemoteRef> {
        let commit = |index: usize| format!("{index:040x}");
        let made = names.iter().enumerate();
        made.map(|(i, name)| RemoteRef { name: (*name).into(), commit: commit(i) }).collect()
    }

    fn chosen(reference: GitReference, names: &[&str]) -> Result<(String, String), NoChoice> {
        choose(&reference, &refs(names)).map(|c| (c.revision.to_string(), c.want))
    }

    #[test]
    fn revisions_are_printed_as_flux_prints_them() {
        let names = ["refs/heads/main", "refs/tags/main", "refs/pull/4/head"];
        let hash = |i: u8| format!("{i:040x}");
        for (reference, revision, want) in [
            (GitReference::Branch("main".into()), format!("main@sha1:{}", hash(0)), names[0]),
            (GitReference::Tag("main".into()), format!("main@sha1:{}", hash(1)), names[1]),
            (
                GitReference::Name("refs/pull/4/head".into()),
                format!("refs/pull/4/head@sha1:{}", hash(2)),
                names[2],
            ),
        ] {
            assert_eq!(chosen(reference, &names), Ok((revision, want.to_owned())));
        }
        let sha = "AB".repeat(20);
        let low = "ab".repeat(20);
        for (branch, revision) in
            [(None, format!("sha1:{low}")), (Some("main".into()), format!("main@sha1:{low}"))]
        {
            let reference = GitReference::Commit { sha: sha.clone(), branch };
            assert_eq!(chosen(reference, &[]), Ok((revision, low.clone())));
        }
    }

    #[test]
    fn semver_takes_the_highest_tag_that_the_range_admits() {
        let names = [
            "refs/heads/9.9.9",
            "refs/tags/v1.9.0",
            "refs/tags/1.10.0",
            "refs/tags/2.0.0",
            "refs/tags/1.11.0-rc.1",
            "refs/tags/1.99",
            "refs/tags/latest",
        ];
        let semver = |range: &str| chosen(GitReference::Semver(range.into()), &names).map(|c| c.1);
        assert_eq!(semver("1.x"), Ok("refs/tags/1.10.0".into()));
        assert_eq!(semver(">=1.0.0-0 <2"), Ok("refs/tags/1.11.0-rc.1".into()));
        assert_eq!(semver(">=3"), Err(NoChoice::Missing));
        assert!(matches!(semver("one"), Err(NoChoice::BadRange(_))));
    }

    #[test]
    fn a_missing_branch_names_those_that_resemble_it() {
        let names = [
            "HEAD",
            "refs/heads/main",
            "refs/heads/develop",
            "refs/heads/feature/a",
            "refs/heads/feature/b",
            "refs/heads/release-1",
            "refs/heads/release-2",
            "refs/tags/mains",
        ];
        let near = |branch: &str| similar(&GitReference::Branch(branch.into()), &refs(&names));
        assert_eq!(near("mian"), ["main"]);
        assert_eq!(near("develpo"), ["develop"]);
        assert_eq!(near("zzzzzzzz"), Vec::<String>::new());
        let few = similar(&GitReference::Branch("prod".into()), &refs(&names[..3]));
        assert_eq!(few, ["main", "develop"]);
    }
}
