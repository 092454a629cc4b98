//! Pure: what can be wrong with the configuration, one line for each problem.
//!
//! A line reads `FILE:LINE: key: what, fix`, the shape that editors jump to. Values that may be
//! secret (a URL with a password in it) are never repeated.

use std::fmt;
use std::sync::Arc;

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named to `load`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One thing that is wrong. A restart alone mends none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No file names a root repository, or there is no file.
    #[error(
        "{file}: {}root: not configured: name the repository as root.url, root.ref and root.path",
        if *.there { "" } else { "there is no such file; " }
    )]
    NotConfigured {
        /// The main file.
        file: String,
        /// Whether that is there.
        there: bool,
    },
    /// A file or the drop-in directory could not be read.
    #[error("{file}: cannot be read: {cause}, {fix}")]
    Unreadable {
        /// The file or directory.
        file: String,
        /// What the system said.
        cause: String,
        /// What to do.
        fix: &'static str,
    },
    /// Not YAML, or YAML beyond what this file needs.
    #[error("{place}: {what}, {fix}")]
    Syntax {
        /// Where the reader gave up.
        place: Place,
        /// What it found.
        what: String,
        /// What to do.
        fix: &'static str,
    },
    /// A key that nothing reads.
    #[error("{place}: {key}: unknown key, {fix}")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// The dotted key.
        key: String,
        /// `did you mean …?`, where it belongs, or the keys there are.
        fix: String,
    },
    /// One key twice in one map.
    #[error("{place}: {key}: already said on line {first}, remove one of the two")]
    Twice {
        /// The second place.
        place: Place,
        /// The key, without what stands above it.
        key: String,
        /// The first line.
        first: usize,
    },
    /// A key that must be there.
    #[error("{place}: {key}: missing, {fix}")]
    Missing {
        /// The section that lacks it.
        place: Place,
        /// The dotted key.
        key: String,
        /// What to write.
        fix: String,
    },
    /// A value that its key does not take.
    #[error("{place}: {key}: {what}, {fix}")]
    Invalid {
        /// Where it stands.
        place: Place,
        /// The dotted key.
        key: String,
        /// What is wrong.
        what: String,
        /// What to write.
        fix: String,
    },
}

impl Problem {
    /// Whether loading the same files again could succeed: never, someone has to edit them.
    pub fn retry(&self) -> bool {
        false
    }

    /// The remedy alone, without the place.
    pub fn hint(&self) -> Option<String> {
        match self {
            Problem::NotConfigured { .. } => {
                Some("name the repository as root.url, root.ref and root.path".to_owned())
            }
            Problem::Unreadable { fix, .. } | Problem::Syntax { fix, .. } => {
                Some((*fix).to_owned())
            }
            Problem::UnknownKey { fix, .. }
            | Problem::Missing { fix, .. }
            | Problem::Invalid { fix, .. } => Some(fix.clone()),
            Problem::Twice { .. } => Some("remove one of the two".to_owned()),
        }
    }
}

/// Everything that is wrong, in the order of files and lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// True when the only thing that is wrong is that nobody configured anything yet.
    pub fn not_configured(&self) -> bool {
        matches!(self.0.as_slice(), [Problem::NotConfigured { .. }])
    }

    /// True when a file is not ours to read: then nothing is known about what it says.
    pub fn unreadable(&self) -> bool {
        self.0.iter().any(|problem| matches!(problem, Problem::Unreadable { .. }))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
