//! Pure: what the commit of an automation says (Flux: ImageUpdateAutomation).
//!
//! `spec.git.commit.messageTemplate` is a Go template with sprig's functions. What people write in
//! commit messages is supported: text, pipelines and parentheses, variables, `if`, `with` and
//! `range` with `else`, `break` and `continue`, `define`, `template` and `block`, trim marks and
//! comments, Go's comparison and printing functions, and sprig's functions of text, lists,
//! defaults and whole numbers. What is not is refused by name, with its line: dates, randomness,
//! crypto, regular expressions, JSON, reflection, decimals, and the methods of values.
//!
//! The data is Flux's: `.AutomationObject`, `.Values` and `.Changed`, with `.FileChanges`,
//! `.Objects` and `.Changes`. `.Updated`, which Flux took out in v1, is still here with `.Files`,
//! `.Objects` and `.Images`. Where Flux goes through a map in any order, the order here is that of
//! files and lines.
//!
//! A template is somebody else's program: output, steps and depth are bounded. It is left as it is
//! written, also where it does not keep CI from running again. Without one the message is ours,
//! and says `[skip ci]`.

mod data;
mod exec;
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use super::marker::Change;
use crate::flux::NamespacedName;
use std::collections::{BTreeMap, BTreeSet};

/// What a message can speak of.
#[derive(Clone, Copy, Debug)]
pub struct MessageData<'a> {
    /// The ImageUpdateAutomation.
    pub automation: &'a NamespacedName,
    /// `spec.git.commit.messageTemplateValues`
    pub values: &'a BTreeMap<String, String>,
    /// Every change with its file, in order of files and lines.
    pub changes: &'a [(String, Change)],
}

/// A template that cannot be read or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.git.commit.messageTemplate line {line}: {told}")]
pub struct TemplateError {
    /// Line of the template, from 1.
    pub line: usize,
    /// What is wrong there.
    pub told: String,
}

impl TemplateError {
    fn new(line: usize, told: impl Into<String>) -> Self {
        TemplateError { line, told: told.into() }
    }
}

/// Writes the commit message: by the template, or ours where there is none.
///
/// # Errors
///
/// See [`TemplateError`].
pub fn message(template: Option<&str>, data: &MessageData<'_>) -> Result<String, TemplateError> {
    match template.filter(|template| !template.is_empty()) {
        None => Ok(standard(data)),
        Some(template) => exec::run(&parse::parse(template)?, data::root(data)),
    }
}

/// Checks a template without running it: `check` tells its mistakes before there is a change.
///
/// # Errors
///
/// See [`TemplateError`]; what only shows with data is not found.
pub fn check_template(template: &str) -> Result<(), TemplateError> {
    parse::parse(template).map(drop)
}

/// Our own message: what changes to what, by which policy, and where.
fn standard(data: &MessageData<'_>) -> String {
    /// Lines of a message that a person reads.
    const MOST: usize = 50;
    let images: BTreeSet<_> = data.changes.iter().map(|(_, change)| &change.image).collect();
    let subject = match images.first() {
        Some(image) if images.len() == 1 => {
            let short = image.name.rsplit('/').next().unwrap_or_default();
            format!("Update {short} to {}", image.tag)
        }
        _ => format!("Update {} images", images.len()),
    };
    let mut text = format!("{subject} [skip ci]\n\n");
    for (file, change) in data.changes.iter().take(MOST) {
        let Change { old, new, policy, line, .. } = change;
        text.push_str(&format!("{file}:{line}: {old} → {new} by ImagePolicy {policy}\n"));
    }
    if let Some(more) = data.changes.len().checked_sub(MOST).filter(|more| *more > 0) {
        text.push_str(&format!("and {more} more\n"));
    }
    text.push_str(&format!("\nBy ImageUpdateAutomation {}.\n", data.automation));
    text
}
