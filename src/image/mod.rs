//! Image automation, the deciding half: from the tags of a registry to the bytes of a commit.
//!
//! [`choose`] takes the tags of an ImageRepository and an ImagePolicy and says which one is the
//! latest; [`explain`] says of every tag why it lost. [`edit`] writes what was chosen into a file that
//! is [`concerned`], wherever a marker stands, and changes no other byte.
//!
//! Nothing here reads a registry, a file or a repository: tags, file bytes and names are
//! arguments, and the results are values. `flux-semantics §6` is the reference.

mod marker;
mod policy;

pub use marker::{Change, Edit, Finding, ImageRef, ObjectName, Target, concerned, edit};
pub use policy::{
    Candidate, Choice, ChooseError, Explanation, Notice, Suggestion, Verdict, choose, explain,
};
