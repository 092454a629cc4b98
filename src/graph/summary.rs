//! Pure: the one value that `status`, the STATUS line and the API describe.

use super::{Condition, Graph, Item, Phase, Ready};
use crate::flux::{Key, Kind, Object};
use crate::history::Choice;
use crate::pipeline::{Failure, Problem, SetAsideEntry, left_alone};
use crate::source::public_url;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of everything, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Every Flux object that is acted upon, sources first.
    pub items: Vec<ItemView>,
    /// Kinds and fields that are declared but not acted upon.
    pub unsupported: Vec<UnsupportedView>,
    /// Manifests that are parts of Flux itself.
    pub set_aside: Vec<SetAsideEntry>,
    /// Work orders that could not be read.
    pub problems: Vec<Problem>,
}

/// One Flux object as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemView {
    /// `GitRepository`, `Kustomization`, `ImageRepository`, `ImagePolicy` or
    /// `ImageUpdateAutomation`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub ready: Ready,
    /// Flux's reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Revision in force, last applied or last pushed; a policy's tag.
    pub revision: Option<String>,
    /// Author of its commit.
    pub author: Option<String>,
    /// Subject of its commit.
    pub subject: Option<String>,
    /// URL of a source, path of a Kustomization or automation, image of a repository or policy.
    pub location: String,
    /// Source of a Kustomization or automation, repository of a policy, `namespace/name`.
    pub source: Option<String>,
    /// File in Git that declares it.
    pub origin: Option<String>,
    /// The Kustomization that renders it, `namespace/name`; none for the root.
    #[serde(default)]
    pub parent: Option<String>,
    /// Stopped, and why.
    pub suspended: Option<String>,
    /// True while a run is under way.
    pub running: bool,
    /// When the next run is due, Unix milliseconds.
    pub next_ms: Option<i64>,
    /// Objects in the inventory; tags of an image repository.
    pub objects: usize,
    /// Notices of the last run.
    pub warnings: Vec<String>,
    /// Objects that somebody else writes too, and who.
    #[serde(default)]
    pub others: BTreeMap<String, Vec<String>>,
    /// The last failure, in fields.
    pub failure: Option<Failure>,
}

/// A kind or field that is not acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsupportedView {
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Field, or empty for the whole kind.
    pub field: String,
}

impl ItemView {
    fn of(key: &Key, item: &Item, epoch_ms: i64) -> Self {
        let (location, source, in_git) = match &item.object {
            Object::GitRepository(git) => (public_url(&git.url), None, git.suspend),
            Object::Kustomization(ks) => {
                let source = format!("{}/{}", ks.source.namespace, ks.source.name);
                (ks.path.clone(), Some(source), ks.suspend)
            }
            Object::ImageRepository(repository) => {
                (repository.image.clone(), None, repository.suspend)
            }
            Object::ImagePolicy(policy) => {
                let chosen = item.choice.as_ref().map(Choice::whole).unwrap_or_default();
                (chosen, Some(policy.repository.to_string()), policy.suspend)
            }
            Object::ImageUpdateAutomation(automation) => {
                let Key { namespace, name, .. } = &automation.source;
                let source = format!("{namespace}/{name}");
                (automation.path.clone(), Some(source), automation.suspend)
            }
        };
        let revision = item.revision.as_ref();
        let Condition { status, reason, message } = item.condition.clone();
        ItemView {
            kind: key.kind.as_str().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ready: status,
            reason,
            message,
            revision: revision.map(|r| r.id.clone()),
            author: revision.map(|r| r.author.clone()),
            subject: revision.map(|r| r.subject.clone()),
            location,
            source,
            origin: item.origin.clone(),
            parent: item.parent.as_ref().map(|key| format!("{}/{}", key.namespace, key.name)),
            suspended: item.suspended.clone().or_else(|| {
                let why = left_alone(&item.manifest).unwrap_or("spec.suspend in Git");
                in_git.then(|| why.to_owned())
            }),
            running: matches!(item.phase, Phase::Running { .. }),
            next_ms: match &item.phase {
                Phase::Idle { due: Some((at, _)) } => Some(epoch_ms.saturating_add_unsigned(*at)),
                _ => None,
            },
            objects: item.objects,
            warnings: item.warnings.clone(),
            others: item.others.clone(),
            failure: item.failure.clone(),
        }
    }

    /// True when nothing is to be done about it: ready, or stopped on purpose.
    pub fn fine(&self) -> bool {
        self.ready == Ready::True || self.suspended.is_some()
    }
}

impl Summary {
    /// True when every item is ready or suspended, and nothing was unreadable.
    pub fn fine(&self) -> bool {
        self.problems.is_empty() && self.items.iter().all(ItemView::fine)
    }

    /// True when every item is ready and no run is under way.
    pub fn settled(&self) -> bool {
        self.fine() && !self.items.iter().any(|item| item.running)
    }

    /// What is wrong, before what only waits for it.
    fn root_cause(&self) -> Option<&ItemView> {
        let wrong = self.items.iter().filter(|item| item.ready == Ready::False && !item.fine());
        wrong.min_by_key(|item| match (&item.failure, item.reason.as_str()) {
            (_, "DependencyNotReady") => 2,
            (Some(_), _) => 0,
            (None, _) => 1,
        })
    }

    /// The STATUS line: revision, health, and what is wrong first. At most 240 bytes or so.
    pub fn line(&self) -> String {
        let kustomizations: Vec<&ItemView> =
            self.items.iter().filter(|item| item.kind == "Kustomization").collect();
        if let [root] = kustomizations.as_slice()
            && root.ready == Ready::Unknown
            && root.running
            && root.revision.is_none()
        {
            // What it declares is not known yet, so there is nothing to count.
            return format!("starting with {}", root.location);
        }
        let stopped = kustomizations.iter().filter(|item| item.suspended.is_some()).count();
        let ready = |item: &&&ItemView| item.ready == Ready::True && item.suspended.is_none();
        let ready = kustomizations.iter().filter(ready).count();
        let objects: usize = kustomizations.iter().map(|item| item.objects).sum();
        let suspended = if stopped > 0 { format!(", {stopped} suspended") } else { String::new() };
        let mut line = format!(
            "{ready}/{} Kustomizations ready{suspended}, {objects} objects",
            kustomizations.len()
        );
        let root = kustomizations.iter().find(|item| item.parent.is_none());
        if let Some(root) = root.and_then(|item| item.revision.as_ref()) {
            line = format!("{}; {line}", short(root));
        }
        if let Some(wrong) = self.root_cause() {
            let message = brief(&wrong.message);
            line = format!("{line}; {}/{}: {message}", wrong.namespace, wrong.name);
        } else if let Some(problem) = self.problems.first() {
            line = format!("{line}; {}: {}", problem.object, problem.message);
        }
        line
    }
}

/// A message as it fits into the STATUS line: one line of some 140 bytes.
pub fn brief(message: &str) -> String {
    let mut message = message.replace('\n', " ");
    if message.len() > 140 {
        let cut = (0..140).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        message.push('…');
    }
    message
}

/// `main@sha1:0123456…` → `main@0123456`.
pub fn short(revision: &str) -> String {
    match revision.split_once("sha1:") {
        Some((name, sha)) => format!("{name}{}", sha.get(..7).unwrap_or(sha)),
        None => revision.to_owned(),
    }
}

impl Graph {
    /// The state of everything; `epoch_ms` is the wall clock, Unix milliseconds, at time 0.
    pub fn summary(&self, epoch_ms: i64) -> Summary {
        let notices = || self.notices.values();
        let view = |(key, item): (&Key, &Item)| {
            let mut view = ItemView::of(key, item, epoch_ms);
            view.warnings.extend(self.unfinished(key));
            view
        };
        Summary {
            items: self.items.iter().map(view).collect(),
            unsupported: notices()
                .flat_map(|n| &n.unsupported)
                .map(|u| UnsupportedView {
                    kind: u.kind.clone(),
                    namespace: u.namespace.clone(),
                    name: u.name.clone(),
                    field: u.field.clone(),
                })
                .collect(),
            set_aside: notices().flat_map(|n| n.set_aside.iter().cloned()).collect(),
            problems: notices().flat_map(|n| n.problems.iter().cloned()).collect(),
        }
    }

    /// What left an item and cannot end yet, because somebody has not rendered.
    fn unfinished(&self, parent: &Key) -> Vec<String> {
        let of = |(key, item): &(&Key, &Item)| {
            let declared = item.parent.as_ref().filter(|key| self.items.contains_key(*key));
            key.kind == Kind::Kustomization && declared.unwrap_or(&self.root()) == parent
        };
        let mut left = self.leaving.iter().filter(of).map(|(key, _)| key).peekable();
        if left.peek().is_none() {
            return Vec::new();
        }
        let Some(behind) = self.unrendered() else { return Vec::new() };
        let told = |key| format!("{key} left Git; what it owns stays until {behind} has rendered");
        left.map(told).collect()
    }
}
