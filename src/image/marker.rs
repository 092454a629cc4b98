//! Pure: setter markers, and the edit of a marked scalar (Flux: ImageUpdateAutomation).
//!
//! A marker is a YAML comment of JSON alone, `# {"$imagepolicy": "NAMESPACE:NAME"}`, with `:tag`,
//! `:name` or `:digest` after the name for a part of the image. It marks the scalar that it stands
//! behind on the line, or that stands alone in the line below it, by the rules of kyaml, which
//! Flux uses ([`attach`]). Markers are looked for in `*.yaml`, `*.yml` and `Kustomization`.
//!
//! Flux writes every document of a touched file anew. [`edit`] replaces the bytes of the scalar
//! and nothing else: comments, anchors, quotes, line ends, indentation and order stay. The result
//! is read again before it is handed out: it is the same tree but for the values.
//!
//! A file is left alone as a whole when anything in it cannot be done: a sealed file, whose MAC an
//! edit would break, a file that is not YAML, a marker that names no policy, or one that marks an
//! alias, a collection or nothing. Each is a [`Finding`] with its line. So is a marker in the text of
//! a value, which is no comment: it is told, and the rest of the file is edited.

mod attach;
mod scalar;
mod scan;
#[cfg(test)]
mod tests;

use crate::flux::NamespacedName;
use scan::{Scanned, Value};
use std::collections::BTreeMap;
use std::fmt;

/// An image as a policy chose it, printed `name:tag` or `name:tag@digest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRef {
    /// The image as its ImageRepository writes it.
    pub name: String,
    /// The chosen tag.
    pub tag: String,
    /// Its digest, where the policy reflects it.
    pub digest: Option<String>,
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// What a marked scalar is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This image, or the part of it that the marker names.
    Set(ImageRef),
    /// What it is: another automation's policy, or one that has chosen nothing yet.
    Leave,
    /// No such policy exists.
    Unknown,
}

/// The object that a changed scalar belongs to; parts that it lacks are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One scalar that an edit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub object: ObjectName,
    /// Its field: `spec.template.spec.containers[0].image`.
    pub field: String,
    /// Line of the scalar, from 1.
    pub line: usize,
    /// The value that was there.
    pub old: String,
    /// The value that is there now.
    pub new: String,
    /// What the marker says: `flux-system:app:tag`.
    pub setter: String,
    /// The policy that it names.
    pub policy: NamespacedName,
    /// The image that the policy chose.
    pub image: ImageRef,
}

/// Something about a file that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub told: String,
    /// Whether the file was left alone because of it.
    pub blocks: bool,
}

/// What came of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The whole new file; `None` where nothing changes or the file is left alone.
    pub text: Option<String>,
    /// The scalars that changed, in order of the file.
    pub changes: Vec<Change>,
    /// What a person should know, in order of the file.
    pub findings: Vec<Finding>,
}

/// A marker that marks a scalar and names a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its line, from 1.
    pub line: usize,
    /// The policy that it names.
    pub policy: NamespacedName,
}

/// The bytes without which a file has no marker.
const TOKEN: &str = "\"$imagepolicy\"";

/// Whether a file is one that markers are looked for in: by its name and by what it contains.
pub fn concerned(path: &str, text: &[u8]) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let named = name.ends_with(".yaml") || name.ends_with(".yml") || name == "Kustomization";
    named && text.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes())
}

/// Every marker of a file that marks a scalar and names a policy, in order of the scalars. What is
/// wrong with the others, or with the file, is said by [`edit`].
pub fn markers(text: &[u8]) -> Vec<Marker> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let Ok(scanned) = Scanned::read(text) else { return Vec::new() };
    let marks = attach::attach(text, &scanned).marks.into_iter();
    let named = marks.filter_map(|mark| {
        let (policy, _) = parse_setter(&mark.setter)?;
        Some(Marker { line: mark.line, policy })
    });
    named.collect()
}

/// Sets every marked scalar of a file to what its policy chose.
///
/// `target` says for a policy what its scalars become. Text without markers gives the default.
pub fn edit(text: &[u8], target: &dyn Fn(&NamespacedName) -> Target) -> Edit {
    let left_alone = |line: usize, told: String| Edit {
        findings: vec![Finding { line, told, blocks: true }],
        ..Edit::default()
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return left_alone(1, "the file is not UTF-8; save it as UTF-8".to_owned());
    };
    let scanned = match Scanned::read(text) {
        Ok(scanned) => scanned,
        Err((line, error)) => return left_alone(line, format!("the file is not YAML: {error}")),
    };
    let attached = attach::attach(text, &scanned);
    if let Some(line) = scanned.sealed
        && attached.marks.len() + attached.findings.len() > 0
    {
        let told = "the file is sealed by SOPS, and an edit would break its MAC; \
                    move what is marked into a file that is not sealed";
        return left_alone(line, told.to_owned());
    }
    let mut edit = Edit { findings: attached.findings, ..Edit::default() };
    edit.findings.extend(attach::inside(text, &scanned));
    let mut replaced = Vec::new();
    for mark in attached.marks {
        let value = &scanned.values[mark.value];
        match set(text, value, &mark.setter, target) {
            Ok(Some((replacement, change))) => {
                let object = scanned.objects[value.object].clone();
                edit.changes.push(Change { object, ..change });
                replaced.push((mark.value, replacement));
            }
            Ok(None) => {}
            Err(told) => edit.findings.push(Finding { line: mark.line, told, blocks: true }),
        }
    }
    edit.findings.sort_by_key(|finding| finding.line);
    if edit.findings.iter().any(|finding| finding.blocks) {
        edit.changes.clear();
    } else if !replaced.is_empty() {
        match rewrite(text, &scanned, &replaced) {
            Some(rewritten) => edit.text = Some(rewritten),
            None => {
                let told = "the file would read otherwise after the edit; write the marked \
                            value as a plain or quoted scalar on one line";
                return left_alone(edit.changes[0].line, told.to_owned());
            }
        }
    }
    edit
}

/// What a marker names: the policy, and which part of the image.
fn parse_setter(setter: &str) -> Option<(NamespacedName, Part)> {
    let mut parts = setter.split(':');
    let (namespace, name) = (parts.next()?, parts.next()?);
    let part = match (parts.next(), parts.next()) {
        (None, _) => Part::Whole,
        (Some("tag"), None) => Part::Tag,
        (Some("name"), None) => Part::Name,
        (Some("digest"), None) => Part::Digest,
        _ => return None,
    };
    if namespace.is_empty() || name.is_empty() {
        return None;
    }
    Some((NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() }, part))
}

#[derive(Clone, Copy)]
enum Part {
    Whole,
    Tag,
    Name,
    Digest,
}

impl Part {
    fn of(self, image: &ImageRef) -> String {
        match self {
            Part::Whole => image.to_string(),
            Part::Tag => image.tag.clone(),
            Part::Name => image.name.clone(),
            Part::Digest => image.digest.clone().unwrap_or_default(),
        }
    }
}

/// The new bytes of a scalar and the change that they are; `None` where it is as it should be.
fn set(
    text: &str,
    value: &Value,
    setter: &str,
    target: &dyn Fn(&NamespacedName) -> Target,
) -> Result<Option<(scalar::Replacement, Change)>, String> {
    let (policy, part) = parse_setter(setter).ok_or_else(|| {
        format!(
            "the marker {setter:?} is not NAMESPACE:NAME, with :tag, :name or :digest after it \
             for a part"
        )
    })?;
    let image = match target(&policy) {
        Target::Set(image) => image,
        Target::Leave => return Ok(None),
        Target::Unknown => {
            return Err(format!(
                "the marker names ImagePolicy {policy}, which does not exist; create it, or take \
                 the marker away"
            ));
        }
    };
    let new = part.of(&image);
    if value.same_as(&new) {
        return Ok(None);
    }
    let replacement = scalar::replace(text, value, &new)?;
    let change = Change {
        object: ObjectName::default(),
        field: value.path.clone(),
        line: value.line,
        old: value.text.clone(),
        new,
        setter: setter.to_owned(),
        policy,
        image,
    };
    Ok(Some((replacement, change)))
}

/// The file with its scalars replaced, if it then reads as the same tree but for these values.
fn rewrite(
    text: &str,
    before: &Scanned,
    replaced: &[(usize, scalar::Replacement)],
) -> Option<String> {
    let mut rewritten = String::with_capacity(text.len() + 64);
    let mut at = 0;
    let mut expected = BTreeMap::new();
    let mut in_order: Vec<_> = replaced.iter().collect();
    in_order.sort_by_key(|(_, replacement)| replacement.range.start);
    for (index, replacement) in in_order {
        rewritten.push_str(text.get(at..replacement.range.start)?);
        rewritten.push_str(&replacement.bytes);
        at = replacement.range.end;
        expected.insert(*index, replacement.value.as_str());
    }
    rewritten.push_str(text.get(at..)?);
    let after = Scanned::read(&rewritten).ok()?;
    before.same_but_for(&after, &expected).then_some(rewritten)
}
