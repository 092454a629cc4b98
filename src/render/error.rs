//! Pure: why a Kustomization could not be rendered, in which file, and what to do about it.
//!
//! Errors carry file names, lines and the engine's words after redaction, never content of files.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One thing that is wrong with the repository, as near to its place as can be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path from the root of the source, when known.
    pub file: Option<String>,
    /// Line from 1, when known.
    pub line: Option<u32>,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
}

impl Problem {
    /// A problem in a file, at a line where that is known.
    pub(crate) fn at(file: &str, line: Option<u32>, message: impl Into<String>) -> Self {
        Problem { file: Some(file.to_owned()), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, self.file.as_deref(), self.line)?;
        f.write_str(&self.message)
    }
}

/// What a [`Warning`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// A sealed file's MAC does not match.
    Mac,
    /// A Secret stands in Git in plain text.
    PlaintextSecret,
    /// What lies outside the source could not be asked after; the last copy stands.
    OldCopy,
}

/// Something the operator should know although the render succeeded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// Path from the root of the source, when known.
    pub file: Option<String>,
    /// Line from 1, when known.
    pub line: Option<u32>,
    /// What is the matter and what to do, without a full stop.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, self.file.as_deref(), self.line)?;
        f.write_str(&self.message)
    }
}

fn place(f: &mut fmt::Formatter<'_>, file: Option<&str>, line: Option<u32>) -> fmt::Result {
    match (file, line) {
        (Some(file), Some(line)) => write!(f, "{file}:{line}: "),
        (Some(file), None) => write!(f, "{file}: "),
        _ => Ok(()),
    }
}

/// Everything that can go wrong between a tree and its manifests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// `spec.path` is not a directory of the source; nothing may be pruned on its account.
    #[error("spec.path {path:?} is not a directory of this revision")]
    PathNotFound {
        /// The path, normalised.
        path: String,
    },
    /// The repository's files are wrong.
    #[error("{}", list(problems))]
    Invalid {
        /// Each of them, in order of files.
        problems: Vec<Problem>,
    },
    /// Sealed files that could not be opened.
    #[error("{}", list(problems))]
    Sealed {
        /// Each of them, in order of files.
        problems: Vec<Problem>,
        /// Whether trying again can help.
        retry: bool,
        /// What to do about the first of them.
        hint: Option<String>,
    },
    /// What lies outside the source could not be fetched.
    #[error("{}", list(problems))]
    Remote {
        /// One for each entry.
        problems: Vec<Problem>,
        /// Whether trying again can help.
        retry: bool,
    },
    /// kustomize refused the files.
    #[error("kustomize: {}", list(problems))]
    Build {
        /// Its words, with a file where they name one.
        problems: Vec<Problem>,
    },
    /// Substitution failed.
    #[error("{}", list(problems))]
    Substitute {
        /// One for each object that failed.
        problems: Vec<Problem>,
    },
    /// There is no program that builds kustomizations.
    #[error("no kubectl or kustomize that may be run (looked for {})", paths(looked))]
    NoEngine {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The program could not be started.
    #[error("cannot start {}: {problem}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's words.
        problem: String,
    },
    /// The build took too long and was killed.
    #[error("the build was killed after {} s", after.as_secs())]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The build took too much memory and was killed.
    #[error("the build was killed at {} MiB of memory", limit >> 20)]
    Memory {
        /// The limit in bytes.
        limit: u64,
    },
    /// The build printed more than is read.
    #[error("the build printed more than {} MiB and was killed", limit >> 20)]
    Output {
        /// The limit in bytes.
        limit: usize,
    },
    /// The private workspace could not be written.
    #[error("workspace {}: {problem}", path.display())]
    Workspace {
        /// The path.
        path: PathBuf,
        /// The system's words.
        problem: String,
    },
    /// The revision's files could not be read from the mirror.
    #[error("reading the source: {problem}")]
    Source {
        /// The source's words.
        problem: String,
        /// Whether trying again can help.
        retry: bool,
    },
}

impl RenderError {
    /// True where trying again without a change in Git can help.
    pub fn retry(&self) -> bool {
        match self {
            RenderError::PathNotFound { .. }
            | RenderError::Invalid { .. }
            | RenderError::Build { .. }
            | RenderError::Substitute { .. }
            | RenderError::Output { .. } => false,
            RenderError::Sealed { retry, .. }
            | RenderError::Remote { retry, .. }
            | RenderError::Source { retry, .. } => *retry,
            RenderError::NoEngine { .. }
            | RenderError::Start { .. }
            | RenderError::Timeout { .. }
            | RenderError::Memory { .. }
            | RenderError::Workspace { .. } => true,
        }
    }

    /// What the operator can do, as one sentence.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            RenderError::PathNotFound { .. } => {
                "correct spec.path, or remove the Kustomization from Git to remove its objects; \
                 nothing is pruned meanwhile"
            }
            RenderError::Sealed { hint, .. } => return hint.clone(),
            RenderError::NoEngine { .. } => {
                "k3s brings its own kubectl; else install kubectl or kustomize, or name one in \
                 the configuration"
            }
            RenderError::Timeout { .. } | RenderError::Memory { .. } => {
                "split the Kustomization, or raise the limit in the configuration"
            }
            RenderError::Workspace { .. } => "see that the runtime directory has room",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The same error with its files and words put differently.
    pub(crate) fn public(mut self, put: impl Fn(&str) -> String) -> Self {
        let problems = match &mut self {
            RenderError::Invalid { problems }
            | RenderError::Sealed { problems, .. }
            | RenderError::Remote { problems, .. }
            | RenderError::Build { problems }
            | RenderError::Substitute { problems } => problems,
            _ => return self,
        };
        for problem in problems {
            problem.file = problem.file.as_deref().map(&put);
            problem.message = put(&problem.message);
        }
        self
    }

    /// What is wrong with files of the repository, if that is what failed.
    pub fn problems(&self) -> &[Problem] {
        match self {
            RenderError::Invalid { problems }
            | RenderError::Sealed { problems, .. }
            | RenderError::Remote { problems, .. }
            | RenderError::Build { problems }
            | RenderError::Substitute { problems } => problems,
            _ => &[],
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

fn paths(looked: &[PathBuf]) -> String {
    looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
