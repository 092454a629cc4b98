//! Pure: versions and Masterminds' ranges.

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version;
/// A range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range;
