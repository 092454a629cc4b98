//! Pure: image objects of the whole walk: what they name, and the markers that name them.
//!
//! In the daemon a policy without its repository and an automation without its source wait. These
//! are errors where everything could be walked; otherwise what could not be may declare them, and
//! they are warnings, as they are of what is suspended. A file with a marker of a policy that does
//! not exist is left alone as a whole; Flux passes over such a marker, and of a repository that two
//! clusters share it may be the other one's: whatever there is to say of a file is a warning. So is
//! a policy that no marker names. Files that are not at hand say nothing.

use super::report::Note;
use crate::flux::{
    AccessFrom, ImagePolicy, ImageUpdateAutomation, Key, Kind, NamespacedName, Object,
};
use crate::image::{Finding, Marker, Target, edit, markers};
use std::collections::{BTreeMap, BTreeSet};

/// What is told of the files of one automation; the others are counted.
const MOST: usize = 20;

/// An image object.
pub struct Declared {
    /// Place of the Kustomization that declares it.
    pub place: usize,
    /// The object.
    pub object: Object,
    /// Its file in Git.
    pub origin: Option<String>,
}

/// What is marked in the files that an automation edits.
#[derive(Debug, Default)]
pub struct Marked {
    /// Each marker with its file.
    markers: Vec<(String, Marker)>,
    /// What else there is to say of the files.
    findings: Vec<(String, Finding)>,
}

impl Marked {
    /// Looks through files, each a path and its content.
    pub fn of(files: &[(String, Vec<u8>)]) -> Self {
        let mut marked = Marked::default();
        for (path, content) in files {
            let found = markers(content).into_iter().map(|marker| (path.clone(), marker));
            marked.markers.extend(found);
            // Whether a policy exists is not known before the end of the walk.
            let findings = edit(content, &|_| Target::Leave).findings.into_iter();
            marked.findings.extend(findings.map(|finding| (path.clone(), finding)));
        }
        marked
    }

    fn names(&self, policy: &NamespacedName) -> bool {
        self.markers.iter().any(|(_, marker)| marker.policy == *policy)
    }

    /// Whether a file is not read to its end, or not edited: what it marks is not known then.
    fn closed(&self) -> bool {
        self.findings.iter().any(|(_, finding)| finding.blocks)
    }
}

/// What the walk knows.
pub struct Known<'a> {
    /// The image objects.
    pub objects: &'a [Declared],
    /// All that the entry leads to could be rendered.
    pub whole: bool,
    /// Whether an object is declared.
    pub exists: &'a dyn Fn(&Key) -> bool,
    /// Whether a source has other files than that of the Kustomization at a place.
    pub elsewhere: &'a dyn Fn(usize, &Key) -> bool,
    /// Objects that would not run.
    pub idle: &'a BTreeSet<Key>,
    /// Objects that could not be read, `Kind/namespace/name`.
    pub unread: &'a BTreeSet<String>,
    /// What is marked where an automation edits, or why that cannot be read; nothing of those
    /// whose files are not at hand.
    pub marked: &'a BTreeMap<Key, Result<Marked, String>>,
}

/// A sentence about an image object.
pub struct Told {
    /// Place of the Kustomization that declares it.
    pub place: usize,
    /// True for an error, false for a warning.
    pub wrong: bool,
    /// The sentence.
    pub note: Note,
}

/// Something about a file that an automation edits.
struct Trouble<'a> {
    path: &'a str,
    line: usize,
    cause: String,
    /// The file is left alone because of it.
    blocks: bool,
}

/// What was said of a file already, by its source: several automations may edit it.
type Said = BTreeSet<(Key, String, usize, String)>;

/// Everything that is to be said.
pub fn tell(known: &Known<'_>) -> Vec<Told> {
    let (mut told, mut said) = (Vec::new(), Said::new());
    for declared in known.objects {
        match &declared.object {
            Object::ImagePolicy(policy) => told.extend(known.policy(declared, policy)),
            Object::ImageUpdateAutomation(automation) => {
                told.extend(known.automation(declared, automation, &mut said));
            }
            _ => {}
        }
    }
    told
}

impl Known<'_> {
    fn policy(&self, of: &Declared, policy: &ImagePolicy) -> Vec<Told> {
        let at = &policy.repository;
        let repository = Key::new(Kind::ImageRepository, &at.namespace, &at.name);
        let found = [
            self.lacking(of, "spec.imageRepositoryRef", &repository),
            self.denied(of, policy, &repository),
            self.unwritten(of, policy),
        ];
        found.into_iter().flatten().collect()
    }

    fn automation(
        &self,
        of: &Declared,
        automation: &ImageUpdateAutomation,
        said: &mut Said,
    ) -> Vec<Told> {
        let lacking = self.lacking(of, "spec.sourceRef", &automation.source);
        let mut told: Vec<Told> = lacking.into_iter().collect();
        match self.marked.get(&automation.key()) {
            None => {}
            Some(Err(error)) => {
                told.push(self.about(of, true, &format!("spec.update.path: {error}")))
            }
            Some(Ok(marked)) => told.extend(self.files(of, &automation.source, marked, said)),
        }
        told
    }

    /// What is wrong in the files that an automation edits, and was not said yet.
    fn files(&self, of: &Declared, source: &Key, marked: &Marked, said: &mut Said) -> Vec<Told> {
        let key = of.object.key();
        let (mut told, mut more) = (Vec::new(), 0);
        for Trouble { path, line, cause, blocks } in self.troubles(marked) {
            if !said.insert((source.clone(), path.to_owned(), line, cause.clone())) {
                continue;
            }
            if told.len() == MOST {
                more += 1;
                continue;
            }
            let message = match blocks {
                true => format!("{cause}; until then {key} leaves this file of {source} alone"),
                false if (self.elsewhere)(of.place, source) => {
                    format!("{cause} (a file of {source})")
                }
                false => cause,
            };
            let (file, line) = (Some(path.to_owned()), u32::try_from(line).ok());
            told.push(self.told(of, false, Note { file, line, message }));
        }
        if more > 0 {
            let message = format!("and {more} more of the kind in the files that it edits");
            told.push(self.about(of, false, &message));
        }
        told
    }

    /// Markers of policies that nobody declares, and whatever else keeps a file from being edited.
    fn troubles<'b>(&self, marked: &'b Marked) -> Vec<Trouble<'b>> {
        let mut troubles = Vec::new();
        for (path, marker) in &marked.markers {
            let NamespacedName { namespace, name } = &marker.policy;
            let policy = Key::new(Kind::ImagePolicy, namespace, name);
            if !(self.exists)(&policy) {
                let nowhere = self.nowhere();
                let cause = format!(
                    "the marker names {policy}, which {nowhere}, or it belongs to another cluster: \
                     correct the name, or declare it"
                );
                troubles.push(Trouble { path, line: marker.line, cause, blocks: true });
            }
        }
        for (path, finding) in &marked.findings {
            let Finding { line, told, blocks } = finding.clone();
            troubles.push(Trouble { path, line, cause: told, blocks });
        }
        troubles
    }

    /// What one object says of another that nobody declares.
    fn lacking(&self, of: &Declared, field: &str, key: &Key) -> Option<Told> {
        let nowhere = self.nowhere();
        let message = format!("{field}: {key} {nowhere}: correct the name, or declare it");
        (!(self.exists)(key)).then(|| self.about(of, self.whole, &message))
    }

    /// A repository of another namespace that is for the policies of its own alone.
    fn denied(&self, of: &Declared, policy: &ImagePolicy, repository: &Key) -> Option<Told> {
        let closed = self.objects.iter().any(|other| match &other.object {
            Object::ImageRepository(found) => {
                let from = found.access_from.as_ref();
                found.key() == *repository && from.is_none_or(AccessFrom::admits_nobody)
            }
            _ => false,
        });
        let message = format!(
            "spec.imageRepositoryRef: {repository} is for policies of its own namespace only: \
             admit namespace {} in its spec.accessFrom.namespaceSelectors",
            policy.namespace
        );
        (closed && policy.namespace != repository.namespace).then(|| self.about(of, true, &message))
    }

    /// A policy that no marker names, as far as all that could hold one is known.
    fn unwritten(&self, of: &Declared, policy: &ImagePolicy) -> Option<Told> {
        let unread = format!("{}/", Kind::ImageUpdateAutomation.as_str());
        if !self.whole || self.unread.iter().any(|object| object.starts_with(&unread)) {
            return None;
        }
        let ImagePolicy { namespace, name, .. } = policy;
        let own = NamespacedName { namespace: namespace.clone(), name: name.clone() };
        let mut takers = 0;
        for taker in self.takers(policy) {
            takers += 1;
            let marked = self.marked.get(&taker.key())?.as_ref().ok()?;
            if marked.names(&own) || marked.closed() {
                return None;
            }
        }
        let message = match takers {
            0 => format!(
                "its tag is written nowhere: no ImageUpdateAutomation of namespace {namespace} \
                 selects it"
            ),
            _ => format!(
                "its tag is written nowhere: put # {{\"$imagepolicy\": \"{namespace}:{name}\"}} \
                 behind the value"
            ),
        };
        Some(self.about(of, false, &message))
    }

    /// The automations that take their values from a policy.
    fn takers<'b>(
        &'b self,
        policy: &'b ImagePolicy,
    ) -> impl Iterator<Item = &'b ImageUpdateAutomation> {
        self.objects.iter().filter_map(move |other| match &other.object {
            Object::ImageUpdateAutomation(automation) => {
                let selector = automation.policy_selector.as_ref();
                let takes = automation.namespace == policy.namespace
                    && selector.is_none_or(|selector| selector.matches(&policy.labels));
                takes.then_some(&**automation)
            }
            _ => None,
        })
    }

    fn nowhere(&self) -> &'static str {
        match self.whole {
            true => "is declared nowhere",
            false => "is declared nowhere in what could be walked",
        }
    }

    /// A sentence about an object itself.
    fn about(&self, of: &Declared, wrong: bool, message: &str) -> Told {
        let message = format!("{}: {message}", of.object.key());
        self.told(of, wrong, Note::in_file(of.origin.as_deref(), message))
    }

    /// What would not run is wrong for nobody yet.
    fn told(&self, of: &Declared, wrong: bool, note: Note) -> Told {
        let idle = self.idle.contains(&of.object.key()) || suspended(&of.object);
        Told { place: of.place, wrong: wrong && !idle, note }
    }
}

fn suspended(object: &Object) -> bool {
    match object {
        Object::GitRepository(source) => source.suspend,
        Object::Kustomization(kustomization) => kustomization.suspend,
        Object::ImageRepository(repository) => repository.suspend,
        Object::ImagePolicy(policy) => policy.suspend,
        Object::ImageUpdateAutomation(automation) => automation.suspend,
    }
}

#[cfg(test)]
mod tests;
