//! Flux objects as work orders: what a manifest of the Flux API groups asks of us.
//!
//! [`Object::read`] turns one manifest (JSON, whatever API version the repository still carries)
//! into a typed object with its defaults filled in, or into the list of everything that is wrong
//! with it. [`classify()`] says of any manifest whether it is a work order, a part of Flux itself
//! that is set aside, or a plain object that is applied. [`root()`] writes the host's configuration
//! as the GitRepository and Kustomization that it stands for, so that the root is no special case.
//!
//! Fields and kinds that we do not act upon yet are named in [`Unsupported`], never dropped; which
//! of them Flux does not have either is told by [`unknown_field`]. This folder stands far left
//! because nearly every step needs a spec; it reads JSON only and knows neither Git nor a cluster.
//!
//! The reference for every rule is Flux 2.9: its documentation (fluxcd.io/flux/components, a page
//! for each kind) and, where that is silent or says otherwise, the code of its controllers. Such a
//! rule is marked in all folders as `Flux: KIND, TOPIC`, after page and section.

mod cel;
mod classify;
mod duration;
mod image;
mod known;
mod kustomization;
mod pattern;
mod root;
mod semver;
mod source;

pub use cel::{Expression, ExpressionError};
pub use classify::{Class, SetAside, classify, is_flux_group};
pub use duration::{format_duration, parse_duration};
pub use image::{
    AccessFrom, Author, DigestReflection, Direction, ImagePolicy, ImageRepository,
    ImageUpdateAutomation, LabelSelector, NamespacedName, PushRefspec, SigningKey, SigningKind,
    TagFilter, TagOrder, push_destination, valid_ref,
};
pub use known::unknown_field;
pub use kustomization::{
    CrossReference, Decryption, DeletionPolicy, Dependency, HealthCheck, HealthCheckExpr, Image,
    Kustomization, Patch, PostBuild, Selector, SubstituteFrom, SubstituteStrategy,
};
pub use pattern::Pattern;
pub use root::{Root, is_root_source, root};
pub use semver::{Range, Version};
pub use source::{GitReference, GitRepository};

use serde_json::Value;
use std::fmt;

/// Kinds that the graph runs as items of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `source.toolkit.fluxcd.io`, GitRepository.
    GitRepository,
    /// `kustomize.toolkit.fluxcd.io`, Kustomization.
    Kustomization,
    /// `image.toolkit.fluxcd.io`, ImageRepository.
    ImageRepository,
    /// `image.toolkit.fluxcd.io`, ImagePolicy.
    ImagePolicy,
    /// `image.toolkit.fluxcd.io`, ImageUpdateAutomation.
    ImageUpdateAutomation,
}

impl Kind {
    /// The kind as written in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::GitRepository => "GitRepository",
            Kind::Kustomization => "Kustomization",
            Kind::ImageRepository => "ImageRepository",
            Kind::ImagePolicy => "ImagePolicy",
            Kind::ImageUpdateAutomation => "ImageUpdateAutomation",
        }
    }

    /// The kind that a person means: by its name, or by a short form that Flux's own definitions
    /// give it, in capitals or not.
    pub fn named(said: &str) -> Option<Kind> {
        Some(match said.to_ascii_lowercase().as_str() {
            "gitrepository" | "gitrepo" => Kind::GitRepository,
            "kustomization" | "ks" => Kind::Kustomization,
            "imagerepository" | "imgrepo" => Kind::ImageRepository,
            "imagepolicy" | "imgpol" => Kind::ImagePolicy,
            "imageupdateautomation" | "iua" | "imgupd" | "imgauto" => Kind::ImageUpdateAutomation,
            _ => return None,
        })
    }
}

/// Names one Flux object: kind, namespace and name, printed `Kustomization/flux-system/apps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object's kind.
    pub kind: Kind,
    /// Its namespace, never empty.
    pub namespace: String,
    /// Its name, never empty.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// A field or kind that is read but not acted upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Kind of the object that carries it.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.field`, or empty when the whole kind is not supported.
    pub field: String,
    /// True where going on without the field could do harm: the object is then not run.
    pub blocks: bool,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        Ok(())
    }
}

/// A work order with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Git source.
    GitRepository(Box<GitRepository>),
    /// A Kustomization.
    Kustomization(Box<Kustomization>),
    /// An image whose tags are listed.
    ImageRepository(Box<ImageRepository>),
    /// A choice among its tags.
    ImagePolicy(Box<ImagePolicy>),
    /// Where choices are written to.
    ImageUpdateAutomation(Box<ImageUpdateAutomation>),
}

impl Object {
    /// Reads a manifest of a supported Flux kind.
    ///
    /// Returns `None` for any other kind, and every problem of the spec at once as
    /// `spec.field: what is wrong` otherwise.
    pub fn read(manifest: &Value) -> Option<Result<Object, Vec<String>>> {
        let group = group_of(manifest);
        match (group, text(manifest, "/kind").as_str()) {
            ("source.toolkit.fluxcd.io", "GitRepository") => {
                Some(GitRepository::read(manifest).map(|g| Object::GitRepository(Box::new(g))))
            }
            ("kustomize.toolkit.fluxcd.io", "Kustomization") => {
                Some(Kustomization::read(manifest).map(|k| Object::Kustomization(Box::new(k))))
            }
            ("image.toolkit.fluxcd.io", "ImageRepository") => {
                Some(ImageRepository::read(manifest).map(|r| Object::ImageRepository(Box::new(r))))
            }
            ("image.toolkit.fluxcd.io", "ImagePolicy") => {
                Some(ImagePolicy::read(manifest).map(|p| Object::ImagePolicy(Box::new(p))))
            }
            ("image.toolkit.fluxcd.io", "ImageUpdateAutomation") => {
                let read = ImageUpdateAutomation::read(manifest);
                Some(read.map(|a| Object::ImageUpdateAutomation(Box::new(a))))
            }
            _ => None,
        }
    }

    /// The object's key.
    pub fn key(&self) -> Key {
        match self {
            Object::GitRepository(g) => g.key(),
            Object::Kustomization(k) => k.key(),
            Object::ImageRepository(r) => r.key(),
            Object::ImagePolicy(p) => p.key(),
            Object::ImageUpdateAutomation(a) => a.key(),
        }
    }

    /// What the object asks for that is not supported yet.
    pub fn unsupported(&self) -> &[Unsupported] {
        match self {
            Object::GitRepository(g) => &g.unsupported,
            Object::Kustomization(k) => &k.unsupported,
            Object::ImageRepository(r) => &r.unsupported,
            Object::ImagePolicy(p) => &p.unsupported,
            Object::ImageUpdateAutomation(a) => &a.unsupported,
        }
    }
}

/// The group part of a manifest's `apiVersion`; empty for the core group.
fn group_of(manifest: &Value) -> &str {
    manifest
        .get("apiVersion")
        .and_then(Value::as_str)
        .and_then(|v| v.split_once('/'))
        .map_or("", |(group, _)| group)
}

/// The string at a JSON pointer, or the empty string.
fn text(manifest: &Value, pointer: &str) -> String {
    manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Collects every problem of one spec while its fields are read.
struct Reader<'a> {
    spec: &'a Value,
    problems: Vec<String>,
    unsupported: Vec<Unsupported>,
    identity: (String, String, String),
}

impl<'a> Reader<'a> {
    fn new(manifest: &'a Value) -> Self {
        static NULL: Value = Value::Null;
        let mut problems = Vec::new();
        let name = text(manifest, "/metadata/name");
        if name.is_empty() {
            problems.push("metadata.name: missing".to_owned());
        }
        let spec = manifest.get("spec").unwrap_or(&NULL);
        if !spec.is_object() {
            problems.push("spec: missing".to_owned());
        }
        let mut namespace = text(manifest, "/metadata/namespace");
        if namespace.is_empty() {
            namespace = "default".to_owned();
        }
        let identity = (text(manifest, "/kind"), namespace, name);
        Reader { spec, problems, unsupported: Vec::new(), identity }
    }

    /// One typed field; absent and null are `None`, a wrong shape is a problem.
    fn field<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.spec.get(name)?;
        if value.is_null() {
            return None;
        }
        match T::deserialize(value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problems.push(format!("spec.{name}: {error}"));
                None
            }
        }
    }

    /// A field that must be there.
    fn required<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if self.spec.is_object() && self.spec.get(name).is_none_or(Value::is_null) {
            self.problems.push(format!("spec.{name}: missing"));
            return None;
        }
        self.field(name)
    }

    /// A duration field.
    fn duration(&mut self, name: &str) -> Option<std::time::Duration> {
        let said: String = self.field(name)?;
        match parse_duration(&said) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.problems.push(format!("spec.{name}: {error}"));
                None
            }
        }
    }

    /// Names every field of the spec that is in neither list; `blocking` ones stop the object.
    /// Further down, those that Flux does not have: nobody reads them, and they would be lost in
    /// silence. A list where a map belongs is a problem.
    fn refuse_others(&mut self, supported: &[&str], blocking: &[&str]) {
        let Some(spec) = self.spec.as_object() else { return };
        for (name, value) in spec {
            if supported.contains(&name.as_str()) || value.is_null() {
                continue;
            }
            self.unsupported_field(&known::key(name), blocking.contains(&name.as_str()));
        }
        let known::Strays { unknown, lists } = known::strays(&self.identity.0, self.spec);
        for path in lists {
            // What came of reading it entry by entry says nothing.
            let field = format!("spec.{path}: ");
            self.problems.retain(|problem| !problem.starts_with(&field));
            self.problems.push(format!("{field}must be a map, not a list"));
        }
        for name in unknown {
            let field = format!("spec.{name}");
            if self.unsupported.iter().all(|named| named.field != field) {
                self.unsupported_field(&name, false);
            }
        }
    }

    /// All that is wrong, and the fields that Flux does not have: one of them may be the one that is
    /// missing, under a misspelt name.
    fn wrong(self) -> Vec<String> {
        let Reader { mut problems, unsupported, .. } = self;
        let told = unsupported.iter().filter_map(|found| {
            let why = unknown_field(&found.kind, &found.field)?;
            Some(format!("{}: {why}", found.field))
        });
        problems.extend(told);
        problems
    }

    fn unsupported_field(&mut self, name: &str, blocks: bool) {
        let (kind, namespace, object) = self.identity.clone();
        let field = format!("spec.{name}");
        self.unsupported.push(Unsupported { kind, namespace, name: object, field, blocks });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_name_and_its_short_forms_in_capitals_or_not() {
        for (kind, short) in [
            (Kind::GitRepository, &["gitrepo"][..]),
            (Kind::Kustomization, &["ks"]),
            (Kind::ImageRepository, &["imgrepo"]),
            (Kind::ImagePolicy, &["imgpol"]),
            (Kind::ImageUpdateAutomation, &["iua", "imgupd", "imgauto"]),
        ] {
            for said in [&[kind.as_str()][..], short].concat() {
                for said in [said.to_owned(), said.to_lowercase(), said.to_uppercase()] {
                    assert_eq!(Kind::named(&said), Some(kind), "{said}");
                }
            }
        }
        for said in ["", "hr", "helmrelease", "kustomizations", "k s"] {
            assert_eq!(Kind::named(said), None, "{said}");
        }
    }
}
