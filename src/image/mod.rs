//! Image automation, the deciding half: from the tags of a registry to the bytes of a commit.
//!
//! In the order of their use: [`choose`] takes the tags of an ImageRepository and an ImagePolicy
//! and says which one is the latest; [`explain`] says of every tag why it lost. [`edit`] writes
//! what was chosen into a file that is [`concerned`], wherever a marker stands, and changes no
//! other byte; [`markers`] only says which policies they name. [`message()`] writes the commit's
//! message from the changes of all files, by the user's template or by our own; [`check_template`]
//! finds mistakes before there is a change.
//!
//! Nothing here reads a registry, a file or a repository: tags, file bytes and names are
//! arguments, and the results are values. The reference is Flux 2.9, its pages on ImagePolicy and
//! ImageUpdateAutomation.

mod marker;
mod message;
mod policy;

pub use marker::{
    Change, Edit, Finding, ImageRef, Marker, ObjectName, Target, concerned, edit, markers,
};
pub use message::{MessageData, TemplateError, check_template, message};
pub use policy::{
    Candidate, Choice, ChooseError, Explanation, Notice, Suggestion, Verdict, choose, explain,
};
