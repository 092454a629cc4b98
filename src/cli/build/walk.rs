//! The whole graph without a cluster: every Kustomization that can be reached is rendered.
//!
//! Goes in waves. Each wave renders what can be rendered now, two children at once; what it
//! declares (sources, Kustomizations, ConfigMaps and Secrets for `substituteFrom`) is taken in
//! before the next. What is left when a wave finds nothing to do lacks something, and says what.
//! One failure never stops the others. `dependsOn` orders nothing here, because nothing is
//! applied; a cycle, or a dependency that does not exist, is told. So is what image objects name
//! and nobody declares.

use super::claims::claim;
use super::images::{self, Declared, Marked};
use super::report::{Entry, Missing, Note, Outcome, Report};
use super::scope::Scopes;
use super::sources::{Sources, normal};
use super::values::{Lack, Values};
use crate::flux::{Class, ImageUpdateAutomation, Key, Kind, Kustomization, Object, Root, classify};
use crate::image::check_template;
use crate::pipeline::{Order, SetAsideEntry, marked_files, sort};
use crate::plan::{Claims, Owner, desired, label};
use crate::render::{Manifest, Redactor, RenderError, Rendered, Renderer, Request};
use crate::secrets::Keyring;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Flux objects that are followed; a tree that declares more of them is declaring itself.
const FOLLOWED: usize = 10_000;

/// Kinds of Flux that are not acted upon and declare no object: anything else of the sort may bring
/// image objects of its own.
const BARREN: &[&str] = &[
    "Alert",
    "ArtifactGenerator",
    "Bucket",
    "ExternalArtifact",
    "HelmChart",
    "HelmRepository",
    "OCIRepository",
    "Provider",
    "Receiver",
];

/// Renders under way at once; the renderer starts two children at a time.
const AT_ONCE: usize = 4;

/// What came of the walk.
pub struct Walked {
    /// The report.
    pub report: Report,
    /// What was rendered, by its place in the report.
    pub outputs: Vec<Option<Output>>,
}

/// One Kustomization's objects.
pub struct Output {
    /// As they would be applied, Flux objects included, set-aside ones not.
    pub manifests: Vec<Manifest>,
    /// Over what was opened.
    pub opened: Redactor,
    /// Over secret values that were substituted.
    pub substituted: Redactor,
}

/// The walk, between its waves.
pub struct Walk {
    renderer: Renderer,
    keyring: Arc<Keyring>,
    root: Root,
    sources: Sources,
    values: Values,
    waiting: Vec<Kustomization>,
    /// Every Flux object that was met, with the file that declares it.
    seen: BTreeMap<Key, Option<String>>,
    met: Vec<Met>,
    set_aside: Vec<SetAsideEntry>,
    /// The repository's own entry is in force.
    adopted: bool,
    /// What suspended Kustomizations declare, by the place of the one that does: nobody runs it. It is
    /// followed when all else is done, so that whoever declares the same and runs has it.
    later: Vec<(usize, Object, Option<String>)>,
    /// Objects that would not run: suspended, or declared by nobody else.
    idle: BTreeSet<Key>,
    /// Image objects, to be judged when all of them are known.
    images: Vec<Declared>,
    /// Work orders that could not be read, as `Kind/namespace/name`: they are declared even so.
    unread: BTreeSet<String>,
    /// A Kustomization was not followed, or an object left out.
    skipped: bool,
}

/// A Kustomization that was dealt with.
struct Met {
    kustomization: Kustomization,
    entry: Entry,
    output: Option<Output>,
}

/// A Kustomization that can be rendered.
struct Ready {
    kustomization: Kustomization,
    request: Request,
    substituted: Redactor,
}

impl Walk {
    /// A walk from the root pair.
    pub fn new(renderer: Renderer, keyring: Keyring, root: Root, sources: Sources) -> Self {
        Walk {
            renderer,
            keyring: Arc::new(keyring),
            waiting: vec![root.kustomization.clone()],
            seen: [(root.kustomization.key(), None)].into(),
            root,
            sources,
            values: Values::default(),
            met: Vec::new(),
            set_aside: Vec::new(),
            adopted: false,
            later: Vec::new(),
            idle: BTreeSet::new(),
            images: Vec::new(),
            unread: BTreeSet::new(),
            skipped: false,
        }
    }

    /// Goes through everything.
    pub async fn go(mut self) -> Walked {
        loop {
            let mut wave = self.wave(false);
            if wave.is_empty() && self.follow_idle() {
                continue;
            }
            if wave.is_empty() {
                // Optional values that nobody declares are done without, but only at the end.
                wave = self.wave(true);
            }
            if wave.is_empty() {
                break;
            }
            let renderer = &self.renderer;
            let renders = wave.into_iter().map(|ready| async move {
                let result = renderer.render(&ready.request).await;
                (ready, result)
            });
            let done: Vec<_> = futures::stream::iter(renders).buffered(AT_ONCE).collect().await;
            for (ready, result) in done {
                self.take(ready, result);
            }
        }
        self.left_over();
        self.finish()
    }

    /// What can be rendered now. With `without`, optional values may be missing.
    fn wave(&mut self, without: bool) -> Vec<Ready> {
        let mut wave = Vec::new();
        for kustomization in std::mem::take(&mut self.waiting) {
            if let Some(entry) = unsupported(&kustomization) {
                self.met.push(Met { kustomization, entry, output: None });
                continue;
            }
            let tree = self.sources.tree(&kustomization.source);
            let variables = self.values.variables(&kustomization, without);
            let (Ok(source_root), Ok((variables, substituted))) = (tree, variables) else {
                self.waiting.push(kustomization);
                continue;
            };
            let request = Request {
                kustomization: kustomization.clone(),
                source_root,
                keyring: self.keyring.clone(),
                variables,
                // Each is asked for once in one walk.
                copy_age: Duration::MAX,
            };
            wave.push(Ready { kustomization, request, substituted });
        }
        wave
    }

    /// Takes in one render.
    fn take(&mut self, ready: Ready, result: Result<Rendered, RenderError>) {
        let Ready { kustomization, substituted, .. } = ready;
        let mut entry = Entry::of(&kustomization);
        if kustomization.suspend {
            entry.warnings.push(Note::new("spec.suspend is set: it would not run"));
            self.idle.insert(kustomization.key());
        } else if self.idle.contains(&kustomization.key()) {
            entry.warnings.push(Note::new("what declares it is suspended: it would not run"));
        }
        let rendered = match result {
            Ok(rendered) => rendered,
            Err(error) => {
                entry.result = Outcome::Error;
                entry.errors = Note::of(&error);
                entry.sealed = matches!(error, RenderError::Sealed { .. });
                entry.mask(&substituted);
                self.met.push(Met { kustomization, entry, output: None });
                return;
            }
        };
        let mut manifests = rendered.manifests.to_vec();
        if kustomization.post_build.is_some() {
            manifests.iter_mut().for_each(|manifest| manifest.guard(&substituted));
        }
        let mut secrets = rendered.redactor.clone();
        secrets.merge(&substituted);
        let orders = sort(&manifests, "").orders;
        manifests.retain(|m| !matches!(classify(m.body()), Class::SetAside(_)));
        for manifest in &mut manifests {
            entry.warnings.extend(desired(manifest, &kustomization).into_iter().map(Note::new));
            // Also of the entry that is about to be adopted: it may state itself with variables of
            // its own, which a cluster that is set up has.
            self.values.learn(manifest, &secrets);
        }
        self.sources.learn(&kustomization, &self.root, &orders.work);
        if self.adopt(&kustomization, &orders.work) {
            return;
        }
        entry.engine = Some(rendered.engine.to_owned());
        entry.warnings.extend(rendered.warnings.iter().map(Note::from));
        entry.unsupported.extend(orders.unsupported.iter().map(Missing::from));
        let tree = self.sources.tree(&kustomization.source);
        for problem in orders.problems {
            let message = format!("{}: {}", problem.object, problem.message);
            let note = Note::in_file(problem.origin.as_deref(), message);
            let read = |file: &String| tree.as_ref().ok()?.read(file).ok();
            let text = note.file.as_ref().and_then(read).unwrap_or_default();
            entry.errors.push(note.at_field(&problem.message, &text));
            self.unread.insert(in_namespace(&problem.object));
        }
        let (place, idle) = (self.met.len(), self.idle.contains(&kustomization.key()));
        for order in orders.work {
            match idle {
                true => self.later.push((place, order.object, order.origin)),
                false => self.order((place, &mut entry), order.object, order.origin.as_deref()),
            }
        }
        self.set_aside.extend(orders.set_aside);
        // A message may cite a value that a variable has brought.
        entry.mask(&secrets);
        let output = Output { manifests, opened: rendered.redactor, substituted };
        self.met.push(Met { kustomization, entry, output: Some(output) });
    }

    /// The repository's own statement of the entry replaces the host's, as in the daemon.
    fn adopt(&mut self, own: &Kustomization, work: &[Order]) -> bool {
        let stated = self.stated(own, work);
        // Once only: a render that never agrees with itself must end.
        let stated = stated.filter(|_| !std::mem::replace(&mut self.adopted, true));
        let Some((stated, origin)) = stated else { return false };
        self.seen.insert(stated.key(), origin);
        self.root.kustomization = stated.clone();
        self.waiting.push(stated);
        true
    }

    /// How the entry states itself, if not as it was rendered: under the host's name, or else by
    /// the first that points back at it. Name and source stay the host's, by which its objects are
    /// known. In another namespace it would read other Secrets: there it is a mere name. With its
    /// file in Git.
    fn stated(
        &self,
        own: &Kustomization,
        work: &[Order],
    ) -> Option<(Kustomization, Option<String>)> {
        if own.key() != self.root.kustomization.key() {
            return None;
        }
        let declared = || {
            work.iter().filter_map(|order| match &order.object {
                Object::Kustomization(kustomization) => Some((&**kustomization, &order.origin)),
                _ => None,
            })
        };
        let (stated, origin) = match declared().find(|(k, _)| k.key() == own.key()) {
            Some((named, origin)) if normal(&named.path) == normal(&own.path) => {
                (named.clone(), origin)
            }
            Some(_) => return None,
            None => {
                let (entry, origin) = declared().find(|(k, _)| self.is_entry(k))?;
                let mut stated = entry.clone();
                (stated.name, stated.source) = (own.name.clone(), own.source.clone());
                // Only how it is written.
                stated.path.clone_from(&own.path);
                (stated, origin)
            }
        };
        let differs = stated.namespace == own.namespace && stated != *own;
        differs.then(|| (stated, origin.clone()))
    }

    /// True for a Kustomization that would render the entry again, whatever it is called.
    fn is_entry(&self, kustomization: &Kustomization) -> bool {
        self.sources.is_root(&kustomization.source)
            && normal(&kustomization.path) == normal(&self.root.kustomization.path)
    }

    /// Follows what suspended Kustomizations declare. False when nothing new came of it.
    fn follow_idle(&mut self) -> bool {
        let before = self.seen.len();
        for (place, object, origin) in std::mem::take(&mut self.later) {
            let key = object.key();
            if self.seen.contains_key(&key) {
                continue;
            }
            self.idle.insert(key);
            let mut entry = self.met[place].entry.clone();
            self.order((place, &mut entry), object, origin.as_deref());
            self.met[place].entry = entry;
        }
        self.seen.len() > before
    }

    /// Follows one work order of the Kustomization at a place.
    fn order(&mut self, (place, entry): (usize, &mut Entry), object: Object, origin: Option<&str>) {
        let key = object.key();
        match &object {
            Object::GitRepository(git) if self.sources.is_root(&key) => {
                let unheeded = git.unheeded();
                entry.unsupported.extend(unheeded.iter().map(|found| Missing::at(found, origin)));
                return;
            }
            Object::Kustomization(kustomization)
                if key == self.root.kustomization.key() || self.is_entry(kustomization) =>
            {
                return;
            }
            _ => {}
        }
        if self.seen.contains_key(&key) {
            let message = format!("{key} is declared twice: keep one of the two");
            entry.errors.push(Note::in_file(origin, message));
            self.skipped |= matches!(object, Object::Kustomization(_));
            return;
        }
        if self.seen.len() >= FOLLOWED {
            self.skipped = true;
            let message = format!("more than {FOLLOWED} Flux objects: {key} is left out");
            entry.errors.push(Note::in_file(origin, message));
            return;
        }
        self.seen.insert(key, origin.map(str::to_owned));
        match object {
            Object::Kustomization(kustomization) => self.waiting.push(*kustomization),
            // They render nothing; what they ask for beyond our reach is named.
            other => {
                let missing = other.unsupported().iter().map(|found| Missing::at(found, origin));
                entry.unsupported.extend(missing);
                if let Object::ImageUpdateAutomation(automation) = &other {
                    try_template(entry, automation, origin);
                }
                if !matches!(other, Object::GitRepository(_)) {
                    let origin = origin.map(str::to_owned);
                    self.images.push(Declared { place, object: other, origin });
                }
            }
        }
    }

    /// What never became ready, with what it lacks.
    fn left_over(&mut self) {
        for kustomization in std::mem::take(&mut self.waiting) {
            let mut entry = Entry::of(&kustomization);
            entry.result = Outcome::Blocked;
            if let Err(lacks) = self.sources.tree(&kustomization.source) {
                entry.errors.push(Note::new(lacks));
            }
            if let Err(Lack { message, wrong }) = self.values.variables(&kustomization, true) {
                if wrong {
                    entry.result = Outcome::Error;
                }
                entry.errors.push(Note::new(message));
            }
            self.met.push(Met { kustomization, entry, output: None });
        }
    }

    fn finish(mut self) -> Walked {
        let mut scopes = Scopes::default();
        let outputs = || self.met.iter().filter_map(|met| met.output.as_ref());
        outputs().flat_map(|o| &o.manifests).for_each(|m| scopes.learn(m.body()));
        let mut claims = Claims::default();
        for met in &mut self.met {
            let owner = Owner::of(&met.kustomization);
            let Some(output) = &mut met.output else { continue };
            for manifest in &mut output.manifests {
                if let Some(told) = scopes.settle(manifest) {
                    met.entry.warnings.push(Note::at(manifest.origin.as_ref(), told));
                }
            }
            let of = (&met.kustomization, self.idle.contains(&met.kustomization.key()));
            claim(&mut claims, of, &output.manifests, &mut met.entry);
            output.manifests.iter_mut().for_each(|manifest| label(manifest, &owner));
            met.entry.objects = output.manifests.len();
        }
        super::depends::tell(self.met.iter_mut().map(|met| (&met.kustomization, &mut met.entry)));
        self.tell_images();
        for met in &mut self.met {
            let declared = self.seen.get(&met.kustomization.key()).and_then(Option::as_deref);
            met.entry.declared_in(declared);
            if met.entry.result == Outcome::Ok && !met.entry.errors.is_empty() {
                met.entry.result = Outcome::Error;
            }
        }
        let objects = self.met.iter().map(|met| met.entry.objects).sum();
        let (kustomizations, outputs) =
            self.met.into_iter().map(|met| (met.entry, met.output)).unzip();
        let report = Report { version: 1, objects, set_aside: self.set_aside, kustomizations };
        Walked { report, outputs }
    }

    /// Tells what image objects name and nobody declares.
    fn tell_images(&mut self) {
        let marked = self.marked();
        let exists = |key: &Key| {
            let known = self.seen.contains_key(key) || self.sources.is_root(key);
            known || self.unread.contains(&key.to_string())
        };
        let elsewhere = |place: usize, source: &Key| {
            let own = &self.met[place].kustomization.source;
            own != source && !(self.sources.is_root(own) && self.sources.is_root(source))
        };
        let known = images::Known {
            objects: &self.images,
            whole: self.whole(),
            exists: &exists,
            elsewhere: &elsewhere,
            idle: &self.idle,
            unread: &self.unread,
            marked: &marked,
        };
        let all = images::tell(&known);
        for images::Told { place, wrong, mut note } in all {
            let met = &mut self.met[place];
            // A name may be a value that a variable has brought.
            if let Some(output) = &met.output {
                note.message = output.substituted.mask(&output.opened.mask(&note.message));
            }
            let notes = if wrong { &mut met.entry.errors } else { &mut met.entry.warnings };
            notes.push(note);
        }
    }

    /// Whether all that the entry leads to is known: what could not be read, or is of a kind that
    /// nobody here acts upon, may declare objects too.
    fn whole(&self) -> bool {
        let barren = |missing: &Missing| {
            !missing.field.is_empty() || BARREN.contains(&missing.kind.as_str())
        };
        let known = |met: &Met| met.output.is_some() && met.entry.unsupported.iter().all(barren);
        let kustomization = format!("{}/", Kind::Kustomization.as_str());
        !self.skipped
            && self.met.iter().all(known)
            && !self.unread.iter().any(|object| object.starts_with(&kustomization))
    }

    /// What is marked where each automation edits, as far as its files are at hand.
    fn marked(&self) -> BTreeMap<Key, Result<Marked, String>> {
        let mut unmarked = HashSet::new();
        let mut all = BTreeMap::new();
        for declared in &self.images {
            let Object::ImageUpdateAutomation(automation) = &declared.object else { continue };
            let Some(tree) = self.sources.edited(automation) else { continue };
            let found = marked_files(&tree, &automation.path, &unmarked).map(|found| {
                unmarked.extend(found.unmarked);
                Marked::of(&found.files)
            });
            all.insert(automation.key(), found.map_err(|error| error.to_string()));
        }
        all
    }
}

/// `Kind/namespace/name` of an object that may lack its namespace: Flux objects are then read as of
/// `default`.
fn in_namespace(object: &str) -> String {
    match object.split('/').collect::<Vec<_>>().as_slice() {
        [kind, name] => format!("{kind}/default/{name}"),
        _ => object.to_owned(),
    }
}

/// Tells what is wrong with the message of an automation's commits.
fn try_template(entry: &mut Entry, automation: &ImageUpdateAutomation, origin: Option<&str>) {
    let Some(template) = &automation.message_template else { return };
    let Err(error) = check_template(template) else { return };
    let key = automation.key();
    if error.unsupported {
        entry.unsupported.push(Missing {
            kind: key.kind.as_str().to_owned(),
            field: format!("spec.git.commit.messageTemplate: {}", error.told),
            namespace: key.namespace,
            name: key.name,
            blocks: false,
            place: origin.map(str::to_owned),
        });
    } else {
        entry.errors.push(Note::in_file(origin, format!("{key}: {error}")));
    }
}

/// The entry of a Kustomization that is not run, because ignoring a field could do harm.
fn unsupported(of: &Kustomization) -> Option<Entry> {
    let fields: Vec<&str> =
        of.unsupported.iter().filter(|u| u.blocks).map(|u| u.field.as_str()).collect();
    if fields.is_empty() {
        return None;
    }
    let mut entry = Entry::of(of);
    entry.result = Outcome::Unsupported;
    let message =
        format!("{} is not supported yet, and ignoring it could do harm", fields.join(", "));
    entry.errors.push(Note::new(message));
    Some(entry)
}
