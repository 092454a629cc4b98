//! Pure: which refs a push changes, judged by what the remote says they are.
//!
//! Never force: a ref is created where there is none, or moved where it is at the commit's parent,
//! the one commit that is known to come before. Anything else means that somebody else was there.
//! A shallow mirror cannot tell more, so the destination of a refspec that lags behind is refused,
//! although a full clone might prove it harmless.

use super::error::SourceError;
use super::report::PushError;
use super::select::RemoteRef;
use std::collections::BTreeMap;

/// Bytes of all push options together; each must fit a line of 64 KiB.
const MAX_OPTIONS: usize = 32 << 10;

/// Where a commit goes.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// The branch, without `refs/heads/`.
    pub branch: Option<&'a str>,
    /// The branch was not there when the tip was read, and is made. Otherwise it must still be at
    /// the commit's parent.
    pub create: bool,
    /// `spec.git.push.refspec`, `SOURCE:DESTINATION`: the commit goes to the destination too.
    pub refspec: Option<&'a str>,
    /// Push options for the server's hooks.
    pub options: &'a BTreeMap<String, String>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: it is made.
    Absent,
    /// The commit's parent.
    Parent,
    /// Either.
    Any,
}

/// One line of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Full name.
    pub name: String,
    /// The id that it is at, none to make it.
    pub old: Option<String>,
}

/// Reads where a push goes; nothing is an error.
pub fn aims(push: &Push<'_>) -> Result<Vec<Aim>, SourceError> {
    let mut aims = Vec::new();
    if let Some(branch) = push.branch {
        let expected = if push.create { Expected::Absent } else { Expected::Parent };
        aims.push(Aim { name: checked(&format!("refs/heads/{branch}"))?, expected });
    }
    if let Some(refspec) = push.refspec {
        let name = destination(refspec)?;
        if aims.iter().all(|aim| aim.name != name) {
            aims.push(Aim { name, expected: Expected::Any });
        }
    }
    match aims.is_empty() {
        true => Err(refuse("neither a branch nor a refspec says where to push")),
        false => Ok(aims),
    }
}

fn destination(refspec: &str) -> Result<String, SourceError> {
    let named = |cause: &str| refuse(&format!("refspec {refspec:?}: {cause}"));
    if refspec.starts_with('+') {
        return Err(named("a push is never forced, leave the + out"));
    }
    let (source, destination) = refspec.split_once(':').unwrap_or((refspec, refspec));
    if source.is_empty() {
        return Err(named("it deletes, which automation never does"));
    }
    if !destination.starts_with("refs/") {
        return Err(named("the destination must be a full name, refs/heads/…"));
    }
    checked(destination).map_err(|_| named("the destination is not a valid name"))
}

/// A ref name that git would accept.
fn checked(name: &str) -> Result<String, SourceError> {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let valid = name.split('/').all(part)
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.len() <= 1024;
    match valid {
        true => Ok(name.to_owned()),
        false => Err(refuse(&format!("{name:?} is not a valid name of a ref"))),
    }
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

/// What is to be sent, given the refs as they are. Refs that are at `commit` already need nothing.
pub fn updates(
    url: &str,
    aims: &[Aim],
    (parent, commit): (&str, &str),
    listed: &[RemoteRef],
) -> Result<Vec<Update>, PushError> {
    let mut updates = Vec::new();
    for Aim { name, expected } in aims {
        let found = listed.iter().find(|found| found.name == *name);
        let old = found.map(|found| found.commit.as_str());
        let fits = match (expected, old) {
            (_, Some(old)) if old == commit => continue,
            (Expected::Absent | Expected::Any, None) => true,
            (Expected::Parent | Expected::Any, Some(old)) => old == parent,
            (Expected::Absent, Some(_)) | (Expected::Parent, None) => false,
        };
        let (url, what) = (url.to_owned(), name.clone());
        // Git keeps refs as files: a name cannot be a directory of others. The server would call
        // that a failed update, which is what a lost race is called as well.
        let nested = |one: &str, other: &str| {
            one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
        };
        let crossed = listed.iter().find(|at| nested(&at.name, name) || nested(name, &at.name));
        if let Some(crossed) = crossed {
            let words = format!("{} is there, and the two cannot both be", crossed.name);
            return Err(PushError::Refused { url, what, words });
        }
        if fits {
            updates.push(Update { name: what, old: old.map(str::to_owned) });
        } else if *expected == Expected::Any {
            let words = "it holds other commits than the tip, and a push is never forced".into();
            return Err(PushError::Refused { url, what, words });
        } else {
            return Err(PushError::Moved { url, what });
        }
    }
    Ok(updates)
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
        Push { branch, create: false, refspec, options }
    }

    #[test]
    fn branch_and_refspec_say_where_a_commit_goes() {
        let none = BTreeMap::new();
        let names = |branch, refspec| -> Result<Vec<String>, SourceError> {
            let aims = aims(&push(branch, refspec, &none))?;
            Ok(aims.into_iter().map(|aim| aim.name).collect())
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
    }

    #[test]
    fn a_ref_is_made_or_moved_from_the_parent_and_nothing_else() {
        let (parent, commit, other) = ("1".repeat(40), "2".repeat(40), "3".repeat(40));
        let at = |id: &str| vec![RemoteRef { name: "refs/heads/a".into(), commit: id.into() }];
        let all = [Expected::Absent, Expected::Parent, Expected::Any];
        let judge = |listed: &[RemoteRef]| {
            all.map(|expected| {
                let aims = [Aim { name: "refs/heads/a".into(), expected }];
                match updates("u", &aims, (&parent, &commit), listed) {
                    Ok(updates) if updates.is_empty() => "done",
                    Ok(_) => "send",
                    Err(PushError::Moved { .. }) => "moved",
                    Err(PushError::Refused { .. }) => "refused",
                    Err(other) => panic!("{other}"),
                }
            })
        };
        assert_eq!(judge(&[]), ["send", "moved", "send"]);
        assert_eq!(judge(&at(&parent)), ["moved", "send", "send"]);
        assert_eq!(judge(&at(&other)), ["moved", "moved", "refused"]);
        assert_eq!(judge(&at(&commit)), ["done", "done", "done"]);
    }

    #[test]
    fn a_branch_cannot_be_a_directory_of_branches() {
        let listed = [RemoteRef { name: "refs/heads/a/b".into(), commit: "1".repeat(40) }];
        for (name, refused) in
            [("a", true), ("a/b/c", true), ("a/c", false), ("a/bc", false), ("ab", false)]
        {
            let aims = [Aim { name: format!("refs/heads/{name}"), expected: Expected::Absent }];
            let found = updates("u", &aims, ("1", "2"), &listed);
            assert_eq!(matches!(found, Err(PushError::Refused { .. })), refused, "{name}");
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
