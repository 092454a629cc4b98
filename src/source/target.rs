//! Pure: which refs a push changes, judged by what the remote says they are.
//!
//! Never force: a branch is created where there is none, or moved where it is at the commit's
//! parent, or at a commit that was merged into that one. Anything else means that somebody else was
//! there. The destination of a refspec may lag behind: it is moved from any commit that is known to
//! come before. A shallow mirror knows those that were a tip once; from others a full clone might
//! tell that it is harmless, we refuse.

use super::error::SourceError;
use super::report::PushError;
use super::select::RemoteRef;
use crate::flux::{push_destination, valid_ref};
use std::collections::BTreeMap;

/// Bytes of all push options together; each must fit a line of 64 KiB.
const MAX_OPTIONS: usize = 32 << 10;

/// Where a commit goes.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// The branch, without `refs/heads/`.
    pub branch: Option<&'a str>,
    /// Where the branch was when the tip was read, and must still be.
    pub start: Start<'a>,
    /// `spec.git.push.refspec`, `SOURCE:DESTINATION`: the commit goes to the destination too.
    pub refspec: Option<&'a str>,
    /// Push options for the server's hooks.
    pub options: &'a BTreeMap<String, String>,
}

/// Where a branch is before it is moved to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// Nowhere: it is made.
    Absent,
    /// At the commit's parent.
    Parent,
    /// At this commit, which was merged into the commit's parent.
    Merged(&'a str),
}

/// A ref to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Full name.
    pub name: String,
    /// What it must be at.
    pub expected: Expected,
}

/// What a ref must be at before it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: it is made.
    Absent,
    /// The commit's parent.
    Parent,
    /// This commit, which comes before the parent.
    At(String),
    /// Nothing, or a commit that comes before.
    Behind,
}

/// The commit that is sent, and what is known to come before it.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its parent's.
    pub parent: &'a str,
    /// Commits before the parent, as far as they are known.
    pub earlier: &'a [String],
}

/// One line of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Full name.
    pub name: String,
    /// The id that it is at, none to make it.
    pub old: Option<String>,
}

/// A second place, or what is wrong with it: no error of the first.
type Beside = Option<Result<Aim, SourceError>>;

/// Reads where a push goes, first and then; nothing is an error.
pub fn aims(push: &Push<'_>) -> Result<(Aim, Beside), SourceError> {
    let expected = match push.start {
        Start::Absent => Expected::Absent,
        Start::Parent => Expected::Parent,
        Start::Merged(commit) => Expected::At(commit.to_owned()),
    };
    let branch = push.branch.map(branch_ref).transpose()?;
    let branch = branch.map(|name| Aim { name, expected });
    let beside = push.refspec.map(destination);
    let beside = beside.map(|name| name.map(|name| Aim { name, expected: Expected::Behind }));
    match (branch, beside) {
        (Some(branch), beside) => {
            let same = |beside: &Result<Aim, SourceError>| {
                beside.as_ref().is_ok_and(|beside| beside.name == branch.name)
            };
            let other = beside.filter(|beside| !same(beside));
            Ok((branch, other))
        }
        (None, Some(only)) => Ok((only?, None)),
        (None, None) => Err(refuse("neither a branch nor a refspec says where to push")),
    }
}

fn branch_ref(name: &str) -> Result<String, SourceError> {
    let name = format!("refs/heads/{name}");
    match valid_ref(&name) {
        true => Ok(name),
        false => Err(refuse(&format!("{name:?} is not a valid name of a ref"))),
    }
}

fn destination(refspec: &str) -> Result<String, SourceError> {
    push_destination(refspec).map_err(|told| refuse(&format!("refspec {refspec:?}: {told}")))
}

/// Push options as lines; an option without a value is its name alone.
pub fn options(options: &BTreeMap<String, String>) -> Result<Vec<String>, SourceError> {
    let mut lines = Vec::new();
    for (key, value) in options {
        let line = if value.is_empty() { key.clone() } else { format!("{key}={value}") };
        if key.is_empty() || line.contains(['\n', '\0']) {
            return Err(refuse(&format!("push option {key:?} is empty or has a line break")));
        }
        lines.push(line);
    }
    match lines.iter().map(String::len).sum::<usize>() > MAX_OPTIONS {
        true => Err(refuse("the push options are longer than 32 KiB")),
        false => Ok(lines),
    }
}

/// What is to be sent for one ref, given the refs as they are. One that is at the commit already
/// needs nothing.
pub fn update(
    url: &str,
    Aim { name, expected }: &Aim,
    sent: Sent<'_>,
    listed: &[RemoteRef],
) -> Result<Option<Update>, PushError> {
    let found = listed.iter().find(|found| found.name == *name);
    let old = found.map(|found| found.commit.as_str());
    let fits = match (expected, old) {
        (_, Some(old)) if old == sent.id => return Ok(None),
        (Expected::Absent | Expected::Behind, None) => true,
        (Expected::Parent, Some(old)) => old == sent.parent,
        (Expected::At(commit), Some(old)) => old == commit,
        (Expected::Behind, Some(old)) => {
            old == sent.parent || sent.earlier.iter().any(|earlier| earlier == old)
        }
        (Expected::Absent, Some(_)) | (Expected::Parent | Expected::At(_), None) => false,
    };
    let (url, what) = (url.to_owned(), name.clone());
    // Git keeps refs as files: a name cannot be a directory of others. The server would call
    // that a failed update, which is what a lost race is called as well.
    let nested =
        |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    let crossed = listed.iter().find(|at| nested(&at.name, name) || nested(name, &at.name));
    if let Some(crossed) = crossed {
        let words = format!("{} is there, and the two cannot both be", crossed.name);
        return Err(PushError::Refused { url, what, words });
    }
    match expected {
        _ if fits => Ok(Some(Update { name: what, old: old.map(str::to_owned) })),
        Expected::Behind => {
            let words = "it is at a commit that is not known to come before, and a push is never \
                         forced";
            Err(PushError::Refused { url, what, words: words.to_owned() })
        }
        Expected::Absent | Expected::Parent | Expected::At(_) => {
            Err(PushError::Moved { url, what, words: String::new() })
        }
    }
}

fn refuse(cause: &str) -> SourceError {
    SourceError::InvalidPush { cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push<'a>(
        branch: Option<&'a str>,
        refspec: Option<&'a str>,
        options: &'a BTreeMap<String, String>,
    ) -> Push<'a> {
        Push { branch, start: Start::Parent, refspec, options }
    }

    #[test]
    fn branch_and_refspec_say_where_a_commit_goes() {
        let none = BTreeMap::new();
        let names = |branch, refspec| -> Result<Vec<String>, SourceError> {
            let (first, second) = aims(&push(branch, refspec, &none))?;
            Ok(std::iter::once(first).chain(second.transpose()?).map(|aim| aim.name).collect())
        };
        assert_eq!(names(Some("main"), None), Ok(vec!["refs/heads/main".to_owned()]));
        let gerrit = Some("refs/heads/main:refs/for/main");
        assert_eq!(names(None, gerrit), Ok(vec!["refs/for/main".to_owned()]));
        assert_eq!(names(Some("main"), gerrit).map(|names| names.len()), Ok(2));
        let same = Some("HEAD:refs/heads/main");
        assert_eq!(names(Some("main"), same), Ok(vec!["refs/heads/main".to_owned()]));
        for (branch, refspec, cause) in [
            (None, None, "neither a branch nor a refspec"),
            (Some("a..b"), None, "not a valid name"),
            (Some("a b"), None, "not a valid name"),
            (Some("x.lock"), None, "not a valid name"),
            (Some(""), None, "not a valid name"),
            (None, Some("+refs/heads/a:refs/heads/b"), "never forced"),
            (None, Some(":refs/heads/b"), "it deletes"),
            (None, Some("a:b"), "full name"),
            (None, Some("refs/heads/*:refs/heads/*"), "not a valid name"),
        ] {
            let error = names(branch, refspec).unwrap_err().to_string();
            assert!(error.contains(cause), "{branch:?} {refspec:?}: {error}");
        }
        // The branch is pushed whatever is wrong with the second place.
        let forced = Some("+refs/heads/main:refs/heads/copy");
        let (first, second) = aims(&push(Some("main"), forced, &none)).unwrap();
        assert_eq!(first.name, "refs/heads/main");
        assert!(matches!(second, Some(Err(SourceError::InvalidPush { .. }))), "{second:?}");
    }

    fn judged(name: &str, expected: Expected, listed: &[(&str, &str)]) -> String {
        let aim = Aim { name: name.into(), expected };
        let sent = Sent { id: "commit", parent: "parent", earlier: &["earlier".into()] };
        let at = |(name, id): &(&str, &str)| RemoteRef {
            name: (*name).to_owned(),
            commit: (*id).to_owned(),
        };
        let listed: Vec<RemoteRef> = listed.iter().map(at).collect();
        match update("u", &aim, sent, &listed) {
            Ok(None) => "done".to_owned(),
            Ok(Some(update)) => format!("from {}", update.old.as_deref().unwrap_or("nothing")),
            Err(PushError::Moved { .. }) => "moved".to_owned(),
            Err(PushError::Refused { .. }) => "refused".to_owned(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_ref_is_made_or_moved_from_what_comes_before_and_nothing_else() {
        for (at, told) in [
            (&[][..], ["from nothing", "moved", "moved", "from nothing"]),
            (&[("refs/heads/a", "parent")], ["moved", "from parent", "moved", "from parent"]),
            (&[("refs/heads/a", "merged")], ["moved", "moved", "from merged", "refused"]),
            (&[("refs/heads/a", "earlier")], ["moved", "moved", "moved", "from earlier"]),
            (&[("refs/heads/a", "other")], ["moved", "moved", "moved", "refused"]),
            (&[("refs/heads/a", "commit")], ["done", "done", "done", "done"]),
        ] {
            let merged = Expected::At("merged".to_owned());
            let all = [Expected::Absent, Expected::Parent, merged, Expected::Behind];
            assert_eq!(all.map(|expected| judged("refs/heads/a", expected, at)), told, "{at:?}");
        }
    }

    #[test]
    fn a_branch_cannot_be_a_directory_of_branches() {
        let listed = [("refs/heads/a/b", "1")];
        for (name, refused) in
            [("a", true), ("a/b/c", true), ("a/c", false), ("a/bc", false), ("ab", false)]
        {
            let found = judged(&format!("refs/heads/{name}"), Expected::Absent, &listed);
            assert_eq!(found == "refused", refused, "{name}");
        }
    }

    #[test]
    fn options_are_lines() {
        let of = |key: &str, value: &str| options(&BTreeMap::from([(key.into(), value.into())]));
        assert_eq!(of("ci.skip", ""), Ok(vec!["ci.skip".to_owned()]));
        assert_eq!(of("a", "b=c"), Ok(vec!["a=b=c".to_owned()]));
        for (key, value) in [("", "x"), ("a", "b\nc"), ("a", &"x".repeat(MAX_OPTIONS))] {
            assert!(of(key, value).is_err(), "{key}");
        }
    }
}
