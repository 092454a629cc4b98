//! Pure: what came of a push, read from the server's report and its words.
//!
//! The report is git's `report-status`: a line `unpack …`, then `ok REF` or `ng REF REASON` for
//! each ref. Reasons that mean "somebody was faster" become [`PushError::Moved`]; every other one
//! is a refusal, told in the server's own words: what its hooks said, then the reason. A server
//! that cannot write the ref, say for a lock that was left behind, gives the same reasons, so a
//! move keeps the words too: whoever finds the ref where it was has a refusal. Words are stripped of
//! escapes and control characters and cut at [`MAX_WORDS`] characters.

use super::error::SourceError;

/// Characters of the server's words that are kept: a hook's paragraph fits.
const MAX_WORDS: usize = 1000;

/// What came of a push that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Refs that were changed by it; none where they were at the commit already.
    pub refs: Vec<String>,
    /// What the server said meanwhile, say where to open a merge request.
    pub words: String,
    /// Why the refspec's destination does not have the commit, though the branch does.
    pub left: Option<PushError>,
}

/// Why a push did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The ref is not where it was any more: read the tip again, edit it, push again. Where it is
    /// still there, the server could not write it.
    #[error("{what} of {url} has moved meanwhile{}", after(words))]
    Moved {
        /// The remote.
        url: String,
        /// The ref.
        what: String,
        /// The server's own words; empty where its listing alone told.
        words: String,
    },
    /// A hook, a protected branch or a rule of the server.
    #[error("{url} refused the push to {what}: {words}")]
    Refused {
        /// The remote.
        url: String,
        /// The ref.
        what: String,
        /// The server's own words.
        words: String,
    },
    /// The credentials may read, but not write.
    #[error("these credentials may not push to {url}: {words}")]
    ReadOnly {
        /// The remote.
        url: String,
        /// The server's own words.
        words: String,
    },
    /// The server lacks something that the push needs.
    #[error("{url} does not support {what}")]
    Unsupported {
        /// The remote.
        url: String,
        /// What is missing: `push options`.
        what: &'static str,
    },
    /// Everything that can go wrong with a fetch as well: network, credentials, time.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl PushError {
    /// Whether the same push may succeed later without anybody changing anything here.
    pub fn retry(&self) -> bool {
        match self {
            // Rules of a server are changed there; asking again is the way to notice.
            PushError::Moved { .. } | PushError::Refused { .. } | PushError::ReadOnly { .. } => {
                true
            }
            PushError::Unsupported { .. } => false,
            PushError::Source(error) => error.retry(),
        }
    }

    /// What the operator can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            PushError::Moved { .. } => None,
            PushError::Refused { .. } => Some(
                "allow this user to push to the branch, or push to another one \
                 (spec.git.push.branch)"
                    .into(),
            ),
            PushError::ReadOnly { url, .. } if url.starts_with("ssh://") => {
                Some("give the deploy key write access".into())
            }
            PushError::ReadOnly { .. } => {
                Some("the token needs the right to write to the repository".into())
            }
            PushError::Unsupported { what: "push options", .. } => {
                Some("leave spec.git.push.options out".into())
            }
            PushError::Unsupported { .. } => None,
            PushError::Source(error) => error.hint(),
        }
    }
}

/// Judges the lines of a report on the ref that was sent.
pub fn judge(url: &str, name: &str, report: &[u8], words: &str) -> Result<(), PushError> {
    let text = String::from_utf8_lossy(report);
    let mut lines = text.lines().map(str::trim_end);
    let unpack = lines.next().and_then(|line| line.strip_prefix("unpack "));
    let refused = |reason: &str| {
        let words = joined(words, reason);
        Err(PushError::Refused { url: url.to_owned(), what: name.to_owned(), words })
    };
    match unpack {
        None if words.is_empty() => {
            let cause = "it did not report what became of the push".into();
            return Err(SourceError::Protocol { url: url.to_owned(), cause }.into());
        }
        None => return refused(""),
        Some("ok") => {}
        Some(reason) => return refused(&format!("unpack {}", clean(reason.as_bytes()))),
    }
    let mut reason = "no word about this ref";
    for line in lines {
        if line.strip_prefix("ok ") == Some(name) {
            return Ok(());
        }
        let told = line.strip_prefix("ng ").and_then(|rest| rest.strip_prefix(name));
        reason = told.and_then(|told| told.strip_prefix(' ')).unwrap_or(reason);
    }
    let reason = clean(reason.as_bytes());
    match outrun(&reason) {
        true => {
            let (url, what) = (url.to_owned(), name.to_owned());
            Err(PushError::Moved { url, what, words: joined(words, &reason) })
        }
        false => refused(&reason),
    }
}

/// Words behind a sentence.
fn after(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// Whether a reason means that the ref was changed by somebody else. A rule against rewriting
/// history says so too, and rightly: what we push follows the tip that we saw.
fn outrun(reason: &str) -> bool {
    const REASONS: &[&str] = &[
        "non-fast-forward",
        "fetch first",
        "stale info",
        "failed to update ref",
        "failed to lock",
        "cannot lock ref",
        "incorrect old value",
        "already exists",
    ];
    REASONS.iter().any(|known| reason.contains(known))
}

/// Whether ssh's or the server's words mean that the key may read but not write. Forges differ.
pub fn read_only(words: &str) -> bool {
    const SIGNS: &[&str] = &[
        "read only",
        "read-only",
        "not allowed to push",
        "not authorized to write",
        "write access",
        "denied to",
    ];
    let words = words.to_lowercase();
    SIGNS.iter().any(|sign| words.contains(sign))
}

fn joined(words: &str, reason: &str) -> String {
    match (words, reason) {
        ("", "") => "without a reason".to_owned(),
        (words, "") => words.to_owned(),
        ("", reason) => reason.to_owned(),
        (words, reason) => format!("{words} ({reason})"),
    }
}

/// A server's words on one line: no escapes, no control characters, no empty lines, bounded.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split(['\n', '\r']).map(|line| visible(line).trim().to_owned());
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    let text = lines.join("; ");
    if text.chars().count() <= MAX_WORDS {
        return text;
    }
    text.chars().take(MAX_WORDS - 1).chain(['…']).collect()
}

/// A line without terminal escapes (`ESC [ … letter`) and control characters.
fn visible(line: &str) -> String {
    let mut kept = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            chars.next();
        } else if c == '\t' {
            kept.push(' ');
        } else if !c.is_control() {
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(report: &str, words: &str) -> String {
        match judge("u", "refs/heads/a", report.as_bytes(), words) {
            Ok(()) => "ok".into(),
            Err(PushError::Moved { what, words, .. }) => format!("moved {what}: {words}"),
            Err(PushError::Refused { what, words, .. }) => format!("refused {what}: {words}"),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn a_report_is_read_ref_by_ref() {
        for (report, words, expected) in [
            ("unpack ok\nok refs/heads/a\n", "open a merge request", "ok"),
            (
                "unpack ok\nng refs/heads/a pre-receive hook declined\n",
                "no tags on Friday",
                "refused refs/heads/a: no tags on Friday (pre-receive hook declined)",
            ),
            (
                "unpack ok\nng refs/heads/a failed to update ref\n",
                "error: cannot lock ref",
                "moved refs/heads/a: error: cannot lock ref (failed to update ref)",
            ),
            ("unpack ok\nng refs/heads/a fetch first\n", "", "moved refs/heads/a: fetch first"),
            (
                "unpack index-pack abnormal exit\nng refs/heads/a unpacker error\n",
                "",
                "refused refs/heads/a: unpack index-pack abnormal exit",
            ),
            ("unpack ok\n", "", "refused refs/heads/a: no word about this ref"),
            ("unpack ok\nok refs/heads/ab\n", "", "refused refs/heads/a: no word about this ref"),
            ("", "fatal: disk full", "refused refs/heads/a: fatal: disk full"),
            ("", "", "unexpected answer from u: it did not report what became of the push"),
        ] {
            assert_eq!(judged(report, words), expected, "{report:?}");
        }
    }

    #[test]
    fn words_are_cleaned_and_bounded() {
        let said = b"\x1b[31;1mGitLab:\x1b[0m You may not\r\n\n\tpush \x07here\xff\n";
        assert_eq!(clean(said), "GitLab: You may not; push here\u{fffd}");
        let long = clean("wörds ".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), MAX_WORDS);
        assert!(long.ends_with('…'));
        assert_eq!(clean(b"\x1b["), "");
    }

    #[test]
    fn forges_say_in_many_ways_that_a_key_may_only_read() {
        for words in [
            "ERROR: The key you are authenticating with has been marked as read only.",
            "ERROR: Permission to o/r.git denied to deploy key",
            "ERROR: You are not allowed to push code to this project.",
            "ERROR: This deploy key does not have write access to this project.",
            "Gitea: Key: 3:ci is not authorized to write to o/r.",
        ] {
            assert!(read_only(words), "{words}");
        }
        assert!(!read_only("git@h: Permission denied (publickey)."));
        assert!(!read_only("fatal: '/r' does not appear to be a git repository"));
    }
}
