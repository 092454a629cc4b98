//! Image automation, the deciding half: from the tags of a registry to the bytes of a commit.
//!
//! [`choose`] takes the tags of an ImageRepository and an ImagePolicy and says which one is the
//! latest; [`explain`] says of every tag why it lost.
//!
//! Nothing here reads a registry, a file or a repository: tags, file bytes and names are
//! arguments, and the results are values. `flux-semantics §6` is the reference.

mod policy;

pub use policy::{
    Candidate, Choice, ChooseError, Explanation, Notice, Suggestion, Verdict, choose, explain,
};
