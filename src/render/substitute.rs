//! Pure: `postBuild` substitution, object by object (Flux: Kustomization, Post build).
//!
//! An object is written as YAML the way Flux writes it, `${…}` is expanded in that text, and the
//! text is read back as Kubernetes reads YAML. So a value may turn text into a number or a
//! structure, as it does in Flux. A variable that is not set fails unless its expression brings a
//! default: there is no lenient mode. Where variables come from is not known here.

use super::{Manifest, Redactor};
use crate::flux::{PostBuild, SubstituteStrategy};
use hmac::{Hmac, Mac};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

mod expand;
mod glob;
mod text;

/// Label or annotation that exempts an object; the value is compared exactly.
const MARK: &str = "kustomize.toolkit.fluxcd.io/substitute";

/// Why an object could not be substituted in. No message cites a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    /// A key of a ConfigMap, a Secret or `postBuild.substitute` is no variable name.
    #[error("{name:?} is no variable name: letters, digits and _ only, and no digit first")]
    BadName {
        /// The key.
        name: String,
    },
    /// Variables that are not set and have no default.
    #[error("variable not set (strict mode): {}", quoted(names))]
    Unset {
        /// Their names, in the order of the text.
        names: Vec<String>,
    },
    /// A malformed `${…}`.
    #[error("{what}")]
    Syntax {
        /// What is wrong with it.
        what: &'static str,
    },
    /// `${v:1:2}` counts bytes and met the middle of a character.
    #[error("an offset or length splits a character of more than one byte")]
    SplitCharacter,
    /// The result is larger than any object can be.
    #[error("the object grows above {} MiB", limit >> 20)]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The expanded text is not YAML any more.
    #[error("with its variables filled in, the object is not YAML any more")]
    NotYaml,
    /// Any of these, in a field of an object.
    #[error("envsubst error in {path}: {cause}")]
    At {
        /// Path of the field, parts joined by dots.
        path: String,
        /// What is wrong there.
        cause: Box<SubstituteError>,
    },
}

impl SubstituteError {
    /// Whether the same input could do better later: never.
    pub fn retry(&self) -> bool {
        false
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            SubstituteError::Unset { names } => {
                let first = names.first().map_or("name", String::as_str);
                format!(
                    "set it in postBuild, give it a default (${{{first}:=value}}), write $${{{first}}} \
                     for the text itself, or label the object {MARK}: disabled"
                )
            }
            SubstituteError::Syntax { .. } => format!(
                "write $${{ where the text is meant for a shell, or label the object {MARK}: disabled"
            ),
            SubstituteError::BadName { .. } => {
                "rename the key, or keep it in a ConfigMap or Secret of its own".to_owned()
            }
            SubstituteError::NotYaml => {
                "a value holds quotes, a colon or a bracket: put the expression in quotes by a \
                 variable that is a quote"
                    .to_owned()
            }
            SubstituteError::At { cause, .. } => return cause.hint(),
            SubstituteError::SplitCharacter | SubstituteError::TooLarge { .. } => return None,
        };
        Some(text)
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Substitution variables by name. Values are wiped on drop and never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, Zeroizing<String>>,
}

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Variables from the pairs, of which later ones win.
    ///
    /// # Errors
    ///
    /// [`SubstituteError::BadName`], as from [`Variables::insert`].
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, SubstituteError> {
        let mut variables = Self::new();
        for (name, value) in pairs {
            variables.insert(name.as_ref(), value.as_ref())?;
        }
        Ok(variables)
    }

    /// Sets a variable; newlines are deleted from its value.
    ///
    /// # Errors
    ///
    /// [`SubstituteError::BadName`] unless the name matches
    /// `^[_[:alpha:]][_[:alpha:][:digit:]]*$`.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), SubstituteError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(fits)
        {
            return Err(SubstituteError::BadName { name: name.to_owned() });
        }
        self.values.insert(name.to_owned(), Zeroizing::new(value.replace('\n', "")));
        Ok(())
    }

    /// Sets the inline variables of `postBuild`, which win over those set before. All of them go
    /// to the redactor where whoever declares them may have written a secret into one.
    ///
    /// # Errors
    ///
    /// [`SubstituteError::BadName`], as from [`Variables::insert`].
    pub fn inline(
        &mut self,
        post_build: &PostBuild,
        redactor: &mut Redactor,
    ) -> Result<(), SubstituteError> {
        for (name, value) in &post_build.substitute {
            if post_build.sensitive {
                redactor.add(value.as_bytes());
            }
            self.insert(name, value)?;
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.as_str())
    }

    /// Names and values by name, for a redactor.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// HMAC-SHA256 of all names and values under the key, in lower-case hex: tells whether a
    /// variable changed without saying anything about its value.
    pub fn digest(&self, key: &[u8]) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        for part in self.iter().flat_map(|(name, value)| [name, value]) {
            // The length goes first, so that no two sets of variables are the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Replaces every `${…}` of a text.
///
/// # Errors
///
/// [`SubstituteError::Syntax`], [`SubstituteError::Unset`], [`SubstituteError::SplitCharacter`] or
/// [`SubstituteError::TooLarge`]; the text is then not used at all.
pub fn expand(text: &str, variables: &Variables) -> Result<String, SubstituteError> {
    expand::expand(text, variables).map_err(|(_, error)| error)
}

/// The object with its variables filled in; `None` if it stays as it is.
///
/// It stays when it is marked `substitute: disabled` by label or annotation, when the strategy
/// wants variables and there are none, and when it holds no dollar sign.
///
/// # Errors
///
/// [`SubstituteError::At`] with the field where the trouble lies, or [`SubstituteError::NotYaml`].
pub fn substitute(
    manifest: &Manifest,
    variables: &Variables,
    strategy: SubstituteStrategy,
) -> Result<Option<Manifest>, SubstituteError> {
    let marked = |map| manifest.metadata(map, MARK) == Some("disabled");
    let wanted = strategy == SubstituteStrategy::Always || !variables.is_empty();
    if !wanted || marked("labels") || marked("annotations") || !text::has_dollar(manifest.body()) {
        return Ok(None);
    }
    let mut written = text::Text::of(manifest.body());
    let before = Zeroizing::new(std::mem::take(&mut written.yaml));
    let after = expand::expand(&before, variables).map_err(|(offset, cause)| {
        match written.path_at(offset) {
            Some(path) => SubstituteError::At { path: path.to_owned(), cause: Box::new(cause) },
            None => cause,
        }
    })?;
    let after = Zeroizing::new(after);
    let body = read(&after)?;
    Ok(Some(Manifest::new(body, manifest.origin.clone(), manifest.sensitive)))
}

/// Reads one object as Kubernetes reads YAML. The reader's own words are dropped: it may cite.
fn read(text: &str) -> Result<Value, SubstituteError> {
    match serde_saphyr::from_str_with_options(text, super::document::options(false)) {
        Ok(body @ Value::Object(_)) => Ok(body),
        Ok(_) | Err(_) => Err(SubstituteError::NotYaml),
    }
}

#[cfg(test)]
mod tests;
