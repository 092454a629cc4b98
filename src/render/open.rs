//! Pure: sealed files opened where they are referenced, and every file checked before the build.
//!
//! The first pass goes over the files that the Kustomization reaches: generator inputs, patches
//! and manifests that SOPS sealed are opened in place, whole files, so that the MAC can be
//! checked (Flux: Kustomization, Decryption, and beyond it). The second pass goes over built objects:
//! what still carries `.sops`, and sealed text inside `Secret.data`; kustomize has rearranged
//! objects by then, so no MAC is checked for those. Nothing sealed is passed on in silence: inputs
//! of a configMapGenerator are not opened, as in Flux, and one that is sealed is an error.
//!
//! What is wrong is collected over all files. Texts name files and keys, never values.

use super::document;
use super::error::{Problem, RenderError, Warning, WarningKind};
use super::finish::{self, Built, Lines, Stands};
use super::reach::{Reached, Role};
use super::redact::Redactor;
use crate::secrets::{
    Format, Keyring, MacState, Plaintext, SecretsError, detect, is_sealed, open, open_tree,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a wrong MAC means; bots that edit cleartext of sealed files make it common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacPolicy {
    /// Applied, with a warning that names the command to re-seal.
    #[default]
    Warn,
    /// An error.
    Enforce,
}

/// Leaves an object sealed, in any letter case.
const DECRYPT: &str = "kustomize.toolkit.fluxcd.io/decrypt";

/// Opens and checks the files of one build, and remembers what came of it.
pub(crate) struct Opening {
    /// `None` without `spec.decryption`: whatever is sealed is then an error.
    keyring: Option<Arc<Keyring>>,
    policy: MacPolicy,
    /// Over every opened value.
    pub redactor: Redactor,
    /// Files that were opened.
    pub opened: BTreeSet<String>,
    /// Where documents stand.
    pub lines: Lines,
    /// Wrong MACs.
    pub warnings: Vec<Warning>,
    /// Files that are wrong in themselves.
    invalid: Vec<Problem>,
    /// Files that could not be opened.
    sealed: Vec<Problem>,
    retry: bool,
    hint: Option<String>,
}

impl Opening {
    /// Nothing opened yet.
    pub fn new(keyring: Option<Arc<Keyring>>, policy: MacPolicy) -> Self {
        Opening {
            keyring,
            policy,
            redactor: Redactor::default(),
            opened: BTreeSet::new(),
            lines: Lines::new(),
            warnings: Vec::new(),
            invalid: Vec::new(),
            sealed: Vec::new(),
            retry: false,
            hint: None,
        }
    }

    /// All problems at once.
    ///
    /// # Errors
    /// [`RenderError::Sealed`] when a file could not be opened, else [`RenderError::Invalid`].
    pub fn verdict(&mut self) -> Result<(), RenderError> {
        let invalid = std::mem::take(&mut self.invalid);
        let mut problems = std::mem::take(&mut self.sealed);
        if problems.is_empty() {
            return if invalid.is_empty() {
                Ok(())
            } else {
                Err(RenderError::Invalid { problems: invalid })
            };
        }
        problems.extend(invalid);
        Err(RenderError::Sealed { problems, retry: self.retry, hint: self.hint.take() })
    }

    /// One file, as it goes into the workspace.
    pub fn file(&mut self, path: &str, reached: &Reached, bytes: Vec<u8>) -> Plaintext {
        let bytes = Plaintext::new(bytes);
        let sealed = reached
            .roles
            .iter()
            .filter_map(|role| format_of(role, path))
            .find(|format| is_sealed(bytes.expose(), *format));
        let manifests = reached.roles.contains(&Role::Resource);
        // Opened for whoever else reads it, it would stand there in plain text.
        let why = reached.roles.iter().find_map(|role| closed(role, path, bytes.expose()));
        if let Some(why) = why {
            // No key would change that.
            self.invalid.push(Problem::at(path, None, format!("is sealed, and {why}")));
        }
        let Some(format) = sealed else {
            let documents = self.check(path, reached, bytes.expose());
            self.note(path, manifests, &documents);
            return bytes;
        };
        // Lines are those of the file in Git, not of the text written anew.
        let text = std::str::from_utf8(bytes.expose()).unwrap_or_default();
        let documents =
            if manifests { document::read(text).unwrap_or_default() } else { Vec::new() };
        self.note(path, manifests, &documents);
        let told = self.sealed.len();
        let content = self.open_file(path, format, &documents, &bytes).unwrap_or(bytes);
        if self.sealed.len() == told {
            self.check(path, reached, content.expose());
        }
        content
    }

    /// Remembers where the documents of a file stand.
    fn note(&mut self, path: &str, manifests: bool, documents: &[document::Document]) {
        if !manifests {
            return;
        }
        let stands = documents.iter().map(|document| {
            let text = |pointer| {
                document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
            };
            let (kind, name) = (text("/kind").to_owned(), text("/metadata/name").to_owned());
            Stands { line: document.line, kind, name }
        });
        self.lines.insert(path.to_owned(), stands.collect());
    }

    /// `None` leaves the file as it is: exempt, or told as a problem.
    fn open_file(
        &mut self,
        path: &str,
        format: Format,
        documents: &[document::Document],
        bytes: &Plaintext,
    ) -> Option<Plaintext> {
        if !documents.is_empty() && documents.iter().all(|document| exempt(&document.value)) {
            return None;
        }
        let Some(keyring) = self.keyring.clone() else {
            let message = "is sealed, and the Kustomization has no spec.decryption";
            self.sealed.push(Problem::at(path, None, message));
            self.hint = Some("set spec.decryption.provider: sops on the Kustomization".to_owned());
            return None;
        };
        if separately_sealed(documents) {
            let text = std::str::from_utf8(bytes.expose()).unwrap_or_default();
            return self.open_documents(path, text, &keyring);
        }
        match open(bytes.expose(), format, format, &keyring) {
            Ok(opened) => {
                let kind = kind_of(documents);
                self.took(path, kind, &opened.mac, &opened.values);
                Some(opened.text)
            }
            Err(error) => {
                self.failed(Some(path), None, String::new(), &error);
                None
            }
        }
    }

    /// A file put together from documents that were sealed one by one.
    fn open_documents(&mut self, path: &str, text: &str, keyring: &Keyring) -> Option<Plaintext> {
        let mut whole = Plaintext::default();
        for (line, chunk) in document::split(text) {
            let bytes = Plaintext::new(chunk.into_bytes());
            let content = if is_sealed(bytes.expose(), Format::Yaml) {
                match open(bytes.expose(), Format::Yaml, Format::Yaml, keyring) {
                    Ok(opened) => {
                        self.took(path, None, &opened.mac, &opened.values);
                        opened.text
                    }
                    Err(error) => {
                        self.failed(Some(path), Some(line), String::new(), &error);
                        return None;
                    }
                }
            } else {
                bytes
            };
            whole = Plaintext::new([whole.expose(), b"\n---\n", content.expose()].concat());
        }
        Some(whole)
    }

    fn took(&mut self, path: &str, kind: Option<&str>, mac: &MacState, values: &[Plaintext]) {
        self.opened.insert(path.to_owned());
        for value in values {
            self.redactor.add(value.expose());
        }
        let cause = match mac {
            MacState::Valid => return,
            MacState::Absent => "it has no MAC".to_owned(),
            MacState::Wrong { last_modified, cause } => {
                format!("its MAC is wrong ({cause}; last sealed {last_modified})")
            }
        };
        let remedy = match kind {
            Some(kind) => format!(
                "set its kind to what it is, which seals the rest again: \
                 `sops set --ignore-mac {path} '[\"kind\"]' '\"{kind}\"'`"
            ),
            // Any other key would be added to the file, or stand in another document of it.
            None => {
                format!("seal it again by a change of any value in `sops edit --ignore-mac {path}`")
            }
        };
        let message = format!(
            "{cause}: changed since it was sealed; see that the change is wanted, then {remedy}"
        );
        let (file, line) = (Some(path.to_owned()), None);
        match self.policy {
            MacPolicy::Warn => {
                let kind = WarningKind::Mac;
                self.warnings.push(Warning { kind, file, line, message });
            }
            MacPolicy::Enforce => self.sealed.push(Problem { file, line, message }),
        }
    }

    fn failed(
        &mut self,
        file: Option<&str>,
        line: Option<u32>,
        what: String,
        error: &SecretsError,
    ) {
        self.retry |= error.retry();
        if self.hint.is_none() {
            self.hint = error.hint();
        }
        let message = self.redactor.mask(&format!("{what}{error}"));
        self.sealed.push(Problem { file: file.map(str::to_owned), line, message });
    }

    /// YAML that kustomize would refuse is refused here, with its line.
    fn check(&mut self, path: &str, reached: &Reached, bytes: &[u8]) -> Vec<document::Document> {
        let parsed = reached
            .roles
            .iter()
            .any(|role| matches!(role, Role::Resource | Role::Patch | Role::Setting));
        if !parsed {
            return Vec::new();
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.invalid.push(Problem::at(path, None, "is not UTF-8 text"));
            return Vec::new();
        };
        let documents = match document::read(text) {
            Ok(documents) => documents,
            Err(error) => {
                // JSON may be indented by tabs, which YAML refuses.
                if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                    let message = format!("is not valid YAML: {}", error.message);
                    self.invalid.push(Problem::at(path, error.line, message));
                }
                return Vec::new();
            }
        };
        if reached.roles.contains(&Role::Resource) {
            for document in &documents {
                self.check_object(path, document);
            }
        }
        documents
    }

    fn check_object(&mut self, path: &str, document: &document::Document) {
        let value = &document.value;
        let message = match finish::missing(value) {
            _ if !value.is_object() => "is no Kubernetes object, as every resource must be".into(),
            Some(field) if !finish::is_list(value) && !finish::own(value) => {
                format!("is no Kubernetes object: it has no {field}")
            }
            _ => return,
        };
        self.invalid.push(Problem::at(path, Some(document.line), message));
    }

    /// The second pass, over one built object; true when it holds something opened.
    pub fn object(&mut self, built: &mut Built) -> bool {
        let from_opened = built.file.as_ref().is_some_and(|file| self.opened.contains(file));
        if exempt(&built.value) {
            return from_opened;
        }
        let opened = if built.value.pointer("/sops/mac").is_some() {
            self.open_object(built)
        } else {
            self.open_data(built)
        };
        opened || from_opened || (!self.opened.is_empty() && self.holds_opened(&built.value))
    }

    fn open_object(&mut self, built: &mut Built) -> bool {
        let what = format!("{}: ", super::ObjectId::of(&built.value));
        let file = built.file.clone();
        let Some(keyring) = self.keyring.clone() else {
            self.unconfigured(file, what);
            return false;
        };
        match open_tree(&built.value, &keyring) {
            Ok((value, _, values)) => {
                for value in &values {
                    self.redactor.add(value.expose());
                }
                built.value = value;
                if let Some(body) = built.value.as_object_mut() {
                    body.shift_remove("sops");
                }
                self.opened.extend(file);
                true
            }
            Err(error) => {
                self.failed(file.as_deref(), None, what, &error);
                false
            }
        }
    }

    /// Sealed text inside `Secret.data`: its format is told by its marker, the one that is
    /// written by the key.
    fn open_data(&mut self, built: &mut Built) -> bool {
        let id = super::ObjectId::of(&built.value);
        if id.kind != "Secret" || !id.group.is_empty() {
            return false;
        }
        let Some(data) = built.value.get_mut("data").and_then(Value::as_object_mut) else {
            return false;
        };
        let mut any = false;
        for (key, value) in data.iter_mut() {
            let Some(bytes) = value.as_str().and_then(|text| STANDARD.decode(text.trim()).ok())
            else {
                continue;
            };
            let bytes = Plaintext::new(bytes);
            let Some(format) = detect(bytes.expose()) else { continue };
            let what = format!("{id} data.{key}: ");
            let file = built.file.clone();
            let Some(keyring) = self.keyring.clone() else {
                self.unconfigured(file, what);
                continue;
            };
            match open(bytes.expose(), format, Format::by_name(key), &keyring) {
                Ok(opened) => {
                    for value in &opened.values {
                        self.redactor.add(value.expose());
                    }
                    *value = Value::String(STANDARD.encode(opened.text.expose()));
                    self.opened.extend(file);
                    any = true;
                }
                Err(error) => self.failed(file.as_deref(), None, what, &error),
            }
        }
        any
    }

    fn unconfigured(&mut self, file: Option<String>, what: String) {
        let message = format!("{what}is sealed, and the Kustomization has no spec.decryption");
        self.sealed.push(Problem { file, line: None, message });
        self.hint = Some("set spec.decryption.provider: sops on the Kustomization".to_owned());
    }

    /// Opened values reach objects of other files through patches, generators and replacements.
    fn holds_opened(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.redactor.mask(text) != *text,
            Value::Array(items) => items.iter().any(|item| self.holds_opened(item)),
            Value::Object(fields) => fields.values().any(|field| self.holds_opened(field)),
            _ => false,
        }
    }
}

/// The format in which a file of this role would be sealed; `None` for roles never opened.
fn format_of(role: &Role, path: &str) -> Option<Format> {
    let by_name = Format::by_name(path);
    match role {
        Role::Resource | Role::Patch if by_name == Format::Json => Some(Format::Json),
        Role::Resource | Role::Patch => Some(Format::Yaml),
        Role::SecretFile(key) => Some(Format::by_name(key)),
        Role::SecretEnv if by_name == Format::Binary => Some(Format::Dotenv),
        Role::SecretEnv => Some(by_name),
        Role::Kustomization | Role::ConfigInput | Role::Setting => None,
    }
}

/// Why a sealed file of a role that is never opened cannot be used, and what to do; `None` for what
/// is not sealed. Such a file may be sealed in any format, but the short marker of INI counts only
/// in one that is named so.
fn closed(role: &Role, path: &str, bytes: &[u8]) -> Option<&'static str> {
    let why = match role {
        Role::ConfigInput => {
            "inputs of a configMapGenerator are not opened, as in Flux: read it by a \
             secretGenerator, or keep it unsealed"
        }
        Role::Setting => {
            "what configures kustomize is not opened: keep it unsealed, and the values that are \
             secret in a Secret"
        }
        _ => return None,
    };
    let named = Format::by_name(path);
    detect(bytes).filter(|format| *format != Format::Ini || named == Format::Ini).map(|_| why)
}

fn exempt(value: &Value) -> bool {
    let annotations = value.pointer("/metadata/annotations").and_then(Value::as_object);
    annotations
        .and_then(|annotations| annotations.get(DECRYPT)?.as_str())
        .is_some_and(|said| said.eq_ignore_ascii_case("disabled"))
}

/// The kind of a file that is one object in cleartext but for its values.
fn kind_of(documents: &[document::Document]) -> Option<&str> {
    let [only] = documents else { return None };
    let kind = only.value.pointer("/kind").and_then(Value::as_str)?;
    kind.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(kind)
}

/// True when the documents do not share one `sops` section, as those of one sealed file do.
fn separately_sealed(documents: &[document::Document]) -> bool {
    let first = documents.first().and_then(|document| document.value.pointer("/sops/mac"));
    documents.len() > 1
        && documents.iter().any(|document| document.value.pointer("/sops/mac") != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "key: ENC[AES256_GCM,data:x]\nsops:\n    mac: ENC[AES256_GCM,data:x]\n";

    /// What is told of one file that is read in these roles, with or without keys.
    fn told(path: &str, roles: &[Role], text: &str, keyring: bool) -> Vec<String> {
        let keyring = keyring.then(|| Arc::new(Keyring::empty()));
        let mut opening = Opening::new(keyring, MacPolicy::Warn);
        let roles = roles.iter().cloned().collect();
        let reached = Reached { id: String::new(), size: 0, roles };
        let kept = opening.file(path, &reached, text.as_bytes().to_vec());
        assert_eq!(kept.expose(), text.as_bytes(), "{path}");
        let problems = opening.verdict().err().map(|error| error.problems().to_vec());
        problems.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sealed_input_of_a_config_map_is_a_problem_with_and_without_decryption() {
        let json = r#"{"data": "ENC[x]", "sops": {"mac": "ENC[x]"}}"#;
        for (path, text) in [
            ("apps/app.enc.yaml", YAML),
            ("apps/app.conf", YAML),
            ("apps/app.bin", json),
            ("apps/app.env", "A=ENC[x]\nsops_mac=ENC[x]\n"),
            ("apps/app.ini", "[a]\nb = ENC[x]\n[sops]\nmac = ENC[x]\n"),
        ] {
            for keyring in [false, true] {
                let told = told(path, &[Role::ConfigInput], text, keyring);
                let [only] = told.as_slice() else { panic!("{path}: {told:?}") };
                let start = format!("{path}: is sealed, and inputs of a configMapGenerator");
                assert!(only.starts_with(&start) && only.contains("secretGenerator"), "{only}");
            }
        }
        let both = told("apps/app.enc.yaml", &[Role::Resource, Role::ConfigInput], YAML, true);
        assert!(both.concat().contains("inputs of a configMapGenerator"), "{both:?}");
        let told = told("apps/labels.yaml", &[Role::Setting], YAML, true).concat();
        assert!(told.starts_with("apps/labels.yaml: is sealed, and what configures"), "{told}");
    }

    #[test]
    fn what_is_not_sealed_goes_into_a_config_map_as_it_is() {
        for (path, text) in [
            ("apps/app.yaml", "key: value\nsops: is a tool\n"),
            ("apps/notes.md", "Sealed files of INI end with a section\n[sops]\n"),
        ] {
            assert_eq!(told(path, &[Role::ConfigInput], text, true), Vec::<String>::new());
        }
    }
}
