//! Pure: `report.json`, version 1: what came of each Kustomization.
//!
//! `{"version":1, "objects":N, "set_aside":[{"kind","namespace","name","reason"}],
//! "kustomizations":[{"namespace","name","path","source","result","engine","objects",
//! "errors":[{"file","line","message"}], "warnings":[the same],
//! "unsupported":[{"kind","namespace","name","field"}]}]}`
//!
//! Files are paths inside the source; file and line are null where they are not known. A field is
//! empty where a whole kind is meant. `engine` is null where nothing was rendered.

mod lines;

use crate::flux::{Kind, Kustomization, Unsupported, unknown_field};
use crate::pipeline::SetAsideEntry;
use crate::render::{Origin, Problem, Redactor, RenderError, Warning};
use crate::secrets::NO_KEY;
use serde::Serialize;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 1.
    pub version: u32,
    /// Objects of all Kustomizations, Flux objects included.
    pub objects: usize,
    /// Manifests that are parts of Flux itself.
    pub set_aside: Vec<SetAsideEntry>,
    /// Every Kustomization, in the order in which they were met.
    pub kustomizations: Vec<Entry>,
}

/// What came of one Kustomization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Rendered.
    Ok,
    /// Something in the repository is wrong.
    Error,
    /// Something that it needs is not there.
    Blocked,
    /// It asks for what gitopsd cannot do yet.
    Unsupported,
}

impl Outcome {
    /// The outcome in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Blocked => "blocked",
            Outcome::Unsupported => "unsupported",
        }
    }
}

/// One Kustomization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.path` as written.
    pub path: String,
    /// Its source, `namespace/name`.
    pub source: String,
    /// What came of it.
    pub result: Outcome,
    /// What rendered it.
    pub engine: Option<String>,
    /// Its objects, Flux objects included, set-aside ones not.
    pub objects: usize,
    /// What is wrong.
    pub errors: Vec<Note>,
    /// What the operator should know.
    pub warnings: Vec<Note>,
    /// What it declares and we do not act upon.
    pub unsupported: Vec<Missing>,
    /// Sealed files are what is wrong; not part of the report.
    #[serde(skip)]
    pub sealed: bool,
    /// It says how sealed files are opened; not part of the report.
    #[serde(skip)]
    pub decrypts: bool,
}

/// A sentence about a place in a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Path inside the source.
    pub file: Option<String>,
    /// Line from 1.
    pub line: Option<u32>,
    /// The sentence.
    pub message: String,
}

/// A kind or field that is not acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.field`, or empty for the whole kind.
    pub field: String,
    /// It is why the Kustomization does not run, so its error has said so; not part of the report.
    #[serde(skip)]
    pub blocks: bool,
    /// Its `FILE` or `FILE:LINE`, where that is known; not part of the report.
    #[serde(skip)]
    pub place: Option<String>,
}

impl Entry {
    /// The entry of a Kustomization that nothing has come of yet.
    pub fn of(kustomization: &Kustomization) -> Self {
        let Kustomization { namespace, name, path, source, decryption, unsupported, .. } =
            kustomization;
        Entry {
            namespace: namespace.clone(),
            name: name.clone(),
            path: path.clone(),
            source: format!("{}/{}", source.namespace, source.name),
            result: Outcome::Ok,
            engine: None,
            objects: 0,
            errors: Vec::new(),
            warnings: Vec::new(),
            unsupported: unsupported.iter().map(Missing::from).collect(),
            sealed: false,
            decrypts: decryption.is_some(),
        }
    }

    /// Takes secret values out of what is told.
    pub fn mask(&mut self, secrets: &Redactor) {
        for note in self.errors.iter_mut().chain(&mut self.warnings) {
            note.message = secrets.mask(&note.message);
        }
        for missing in &mut self.unsupported {
            missing.field = secrets.mask(&missing.field);
        }
    }

    /// Gives what has no file of its own that of the Kustomization, which it is about.
    pub fn declared_in(&mut self, place: Option<&str>) {
        for error in self.errors.iter_mut().filter(|error| error.file.is_none()) {
            *error = Note::in_file(place, std::mem::take(&mut error.message));
        }
        for missing in &mut self.unsupported {
            // Those of others stand with the others; the entry may have another name in Git.
            if missing.kind == Kind::Kustomization.as_str() && missing.place.is_none() {
                missing.place = place.map(str::to_owned);
            }
        }
    }

    /// What is not acted upon and no error has named.
    pub fn missing(&self) -> impl Iterator<Item = &Missing> {
        let named = self.result == Outcome::Unsupported;
        self.unsupported.iter().filter(move |missing| !(named && missing.blocks))
    }
}

impl Note {
    /// A note without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Note { file: None, line: None, message: message.into() }
    }

    /// A note about an object's file.
    pub fn at(origin: Option<&Origin>, message: impl Into<String>) -> Self {
        let file = origin.map(|origin| origin.file.clone());
        Note { file, line: origin.and_then(|origin| origin.line), message: message.into() }
    }

    /// A note about `FILE` or `FILE:LINE`.
    pub fn in_file(place: Option<&str>, message: String) -> Self {
        let Some(place) = place else { return Note::new(message) };
        match place.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
            Some((file, Ok(line))) => Note { file: Some(file.into()), line: Some(line), message },
            _ => Note { file: Some(place.to_owned()), line: None, message },
        }
    }

    /// The same at the line of the field that `problem` begins with, or of what lacks it; `text` is
    /// the whole file.
    pub fn at_field(self, problem: &str, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let line = self.line.and_then(|object| lines::of(&text, object, problem));
        Note { line: line.or(self.line), ..self }
    }

    /// What is wrong with a render; what to do about it stands at the end of the last one.
    pub fn of(error: &RenderError) -> Vec<Note> {
        let problem =
            |p: &Problem| Note { file: p.file.clone(), line: p.line, message: p.message.clone() };
        let mut notes: Vec<Note> = error.problems().iter().map(problem).collect();
        if notes.is_empty() {
            notes.push(Note::new(error.to_string()));
        }
        if let (Some(hint), Some(last)) = (error.hint(), notes.last_mut()) {
            let hint = hint.replace(NO_KEY, "give the age key's file with --identity");
            last.message = format!("{}; {hint}", last.message);
        }
        notes
    }
}

impl From<&Warning> for Note {
    fn from(warning: &Warning) -> Self {
        Note { file: warning.file.clone(), line: warning.line, message: warning.message.clone() }
    }
}

impl From<&Unsupported> for Missing {
    fn from(found: &Unsupported) -> Self {
        Missing {
            kind: found.kind.clone(),
            namespace: found.namespace.clone(),
            name: found.name.clone(),
            field: found.field.clone(),
            blocks: found.blocks,
            place: None,
        }
    }
}

impl Missing {
    /// What an object of `FILE` or `FILE:LINE` asks for.
    pub fn at(found: &Unsupported, place: Option<&str>) -> Self {
        Missing { place: place.map(str::to_owned), ..Missing::from(found) }
    }

    /// The sentence for a person: a field that Flux has is not supported yet, any other misspelt.
    pub fn told(&self) -> String {
        let Some(why) = unknown_field(&self.kind, &self.field) else {
            return format!("not supported yet: {self}");
        };
        Note::in_file(self.place.as_deref(), format!("{self}: {why}")).to_string()
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let space = if self.field.is_empty() { "" } else { " " };
        write!(f, "{}/{}/{}{space}{}", self.kind, self.namespace, self.name, self.field)
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(f, "{file}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_report_has_the_agreed_shape() {
        let missing = Missing {
            kind: "HelmRelease".into(),
            namespace: "web".into(),
            name: "h".into(),
            field: String::new(),
            blocks: false,
            place: None,
        };
        let report = Report {
            version: 1,
            objects: 2,
            set_aside: vec![SetAsideEntry {
                kind: "Namespace".into(),
                namespace: String::new(),
                name: "flux-system".into(),
                reason: "r".into(),
            }],
            kustomizations: vec![Entry {
                namespace: "flux-system".into(),
                name: "apps".into(),
                path: "./apps".into(),
                source: "flux-system/flux-system".into(),
                result: Outcome::Error,
                engine: Some("child".into()),
                objects: 2,
                errors: vec![Note::in_file(Some("a.yaml:3"), "wrong".into())],
                warnings: vec![Note::new("w")],
                unsupported: vec![missing],
                sealed: false,
                decrypts: false,
            }],
        };
        assert_eq!(
            serde_json::to_value(&report).expect("plain data"),
            json!({"version": 1, "objects": 2,
                "set_aside": [{"kind": "Namespace", "namespace": "", "name": "flux-system",
                    "reason": "r"}],
                "kustomizations": [{"namespace": "flux-system", "name": "apps", "path": "./apps",
                    "source": "flux-system/flux-system", "result": "error", "engine": "child",
                    "objects": 2,
                    "errors": [{"file": "a.yaml", "line": 3, "message": "wrong"}],
                    "warnings": [{"file": null, "line": null, "message": "w"}],
                    "unsupported": [{"kind": "HelmRelease", "namespace": "web", "name": "h",
                        "field": ""}]}]})
        );
    }

    #[test]
    fn a_field_that_flux_has_not_is_told_as_misspelt_with_its_file() {
        let missing = |field: &str| {
            let (kind, namespace, name) = ("Kustomization".into(), "web".into(), "apps".into());
            let found = Unsupported { kind, namespace, name, field: field.into(), blocks: false };
            Missing::at(&found, Some("a.yaml:3")).told()
        };
        let expected =
            "a.yaml:3: Kustomization/web/apps spec.prun: unknown field, did you mean prune?";
        assert_eq!(missing("spec.prun"), expected);
        let expected = "not supported yet: Kustomization/web/apps spec.ignore";
        assert_eq!(missing("spec.ignore"), expected);
    }

    #[test]
    fn a_value_of_a_secret_is_masked_in_the_name_of_a_field_too() {
        let root = crate::flux::root(
            "",
            crate::flux::GitReference::Branch(String::new()),
            "a",
            std::time::Duration::from_secs(60),
        );
        let mut entry = Entry::of(&root.kustomization);
        let (kind, namespace, name) = ("Kustomization".into(), "web".into(), "apps".into());
        let field = "spec.hunter2hunter2".to_owned();
        entry.unsupported =
            vec![Missing { kind, namespace, name, field, blocks: false, place: None }];
        let mut secrets = Redactor::default();
        secrets.add(b"hunter2hunter2");
        entry.mask(&secrets);
        assert_eq!(entry.unsupported[0].field, "spec.***");
    }

    #[test]
    fn a_failed_render_is_told_by_problem_with_the_remedy_last() {
        let error = RenderError::PathNotFound { path: "apps".into() };
        let [note] = Note::of(&error).try_into().expect("one note");
        assert_eq!(note.file, None);
        assert!(note.message.contains("\"apps\"") && note.message.contains("correct spec.path"));
    }
}
