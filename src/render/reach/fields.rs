//! Pure: the fields of a kustomization file that name files.

use super::{Generator, Node, Place, Remote, Role, Unreachable, Walk, copy, join, resolve};
use crate::render::document;
use crate::render::error::Problem;
use serde_json::Value;

impl Walk<'_> {
    /// Follows every field of one kustomization file.
    pub(super) fn fields(&mut self, place: &Place<'_>, content: &Value) -> Result<(), Unreachable> {
        self.header(place, content);
        for field in ["resources", "bases"] {
            for entry in strings(content, field) {
                self.resource(place, entry, false)?;
            }
        }
        for entry in strings(content, "components") {
            self.resource(place, entry, true)?;
        }
        for entry in objects(content, "patches").chain(objects(content, "patchesJson6902")) {
            if let Some(path) = entry.get("path").and_then(Value::as_str) {
                self.file(place, path, Role::Patch)?;
            }
        }
        for entry in strings(content, "patchesStrategicMerge") {
            self.file_or_inline(place, entry, Role::Patch)?;
        }
        for entry in objects(content, "replacements") {
            if let Some(path) = entry.get("path").and_then(Value::as_str) {
                self.file(place, path, Role::Setting)?;
            }
        }
        for entry in objects(content, "configMapGenerator") {
            self.generator(place, entry, false)?;
        }
        for entry in objects(content, "secretGenerator") {
            self.generator(place, entry, true)?;
        }
        for entry in strings(content, "configurations").chain(strings(content, "crds")) {
            self.file(place, entry, Role::Setting)?;
        }
        if let Some(path) = content.pointer("/openapi/path").and_then(Value::as_str) {
            self.file(place, path, Role::Setting)?;
        }
        for field in ["transformers", "generators", "validators"] {
            for entry in strings(content, field) {
                self.plugin(place, entry)?;
            }
        }
        Ok(())
    }

    /// Refuses what is no kustomization file, and what is switched off.
    fn header(&mut self, place: &Place<'_>, content: &Value) {
        let text = |field: &str| content.get(field).and_then(Value::as_str).unwrap_or_default();
        if !content.is_object() && !content.is_null() {
            let message = "is no mapping of kustomization fields";
            self.reach.problems.push(Problem::at(place.file, Some(1), message));
        }
        let foreign = !matches!(text("kind"), "" | "Kustomization" | "Component");
        if foreign || text("apiVersion").starts_with("kustomize.toolkit.fluxcd.io/") {
            let message = format!(
                "{} {} cannot stand in a file of this name, which kustomize reads as its own; \
                 rename the file",
                text("apiVersion"),
                text("kind")
            );
            self.reach.problems.push(place.problem(text("kind"), message));
        }
        for field in ["helmCharts", "helmChartInflationGenerator", "helmGlobals"] {
            if content.get(field).is_some() {
                let message =
                    format!("{field}: charts are not inflated here, as in Flux; use a HelmRelease");
                self.reach.problems.push(place.problem(&format!("{field}:"), message));
            }
        }
    }

    /// An entry of `resources`, `bases` or `components`.
    fn resource(
        &mut self,
        place: &Place<'_>,
        entry: &str,
        component: bool,
    ) -> Result<(), Unreachable> {
        let found = match self.local(place, entry)? {
            Found::Local(path, node) => (path, node),
            Found::Told => return Ok(()),
        };
        match found {
            (path, Node::Dir) => {
                self.directory(&path, Some((place, entry)))?;
            }
            (_, Node::File { .. }) if component => {
                let message = format!("components: {entry} is a file, not a directory");
                self.reach.problems.push(place.problem(entry, message));
            }
            (path, Node::File { .. }) => {
                self.add(&path, Role::Resource)?;
            }
        }
        Ok(())
    }

    /// An entry that must be a file.
    fn file(&mut self, place: &Place<'_>, entry: &str, role: Role) -> Result<(), Unreachable> {
        match self.local(place, entry)? {
            Found::Local(path, Node::File { .. }) => {
                self.add(&path, role)?;
            }
            Found::Local(_, Node::Dir) => {
                let message = format!("{entry} is a directory, not a file");
                self.reach.problems.push(place.problem(entry, message));
            }
            Found::Told => {}
        }
        Ok(())
    }

    /// An entry that is a file or the YAML itself.
    fn file_or_inline(
        &mut self,
        place: &Place<'_>,
        entry: &str,
        role: Role,
    ) -> Result<(), Unreachable> {
        let inline = entry.contains('\n')
            || matches!(document::read_one(entry), Ok(Value::Object(_) | Value::Array(_)));
        if inline { Ok(()) } else { self.file(place, entry, role) }
    }

    fn generator(
        &mut self,
        place: &Place<'_>,
        entry: &Value,
        secret: bool,
    ) -> Result<(), Unreachable> {
        let mut inputs = Vec::new();
        for said in strings(entry, "files") {
            let (key, path) = said.split_once('=').unwrap_or((base_name(said), said));
            let role = if secret { Role::SecretFile(key.to_owned()) } else { Role::ConfigInput };
            self.file(place, path, role)?;
            inputs.extend(resolve(place.dir, path));
        }
        let env = entry.get("env").and_then(Value::as_str);
        for path in strings(entry, "envs").chain(env) {
            let role = if secret { Role::SecretEnv } else { Role::ConfigInput };
            self.file(place, path, role)?;
            inputs.extend(resolve(place.dir, path));
        }
        if secret {
            let name = entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            self.reach.generators.push(Generator { file: place.file.to_owned(), name, inputs });
        }
        Ok(())
    }

    /// Configuration of a built-in transformer or generator: inline, a file, or a directory; what
    /// it names is relative to the kustomization file.
    fn plugin(&mut self, place: &Place<'_>, entry: &str) -> Result<(), Unreachable> {
        if entry.contains('\n') {
            return self.plugin_text(place, entry);
        }
        match self.local(place, entry)? {
            Found::Local(path, Node::Dir) => {
                self.directory(&path, Some((place, entry)))?;
            }
            Found::Local(path, Node::File { .. }) => {
                self.add(&path, Role::Setting)?;
                let bytes = (self.view.read)(&path)?;
                return self.plugin_text(place, &String::from_utf8_lossy(&bytes));
            }
            Found::Told => {}
        }
        Ok(())
    }

    fn plugin_text(&mut self, place: &Place<'_>, text: &str) -> Result<(), Unreachable> {
        // Broken YAML is told with its file when the workspace is written.
        let Ok(documents) = document::read(text) else { return Ok(()) };
        for plugin in documents.iter().map(|document| &document.value) {
            let kind = plugin.get("kind").and_then(Value::as_str).unwrap_or_default();
            match kind {
                "ConfigMapGenerator" | "SecretGenerator" => {
                    self.generator(place, plugin, kind == "SecretGenerator")?;
                }
                "ReplacementTransformer" => {
                    for entry in objects(plugin, "replacements") {
                        if let Some(path) = entry.get("path").and_then(Value::as_str) {
                            self.file(place, path, Role::Setting)?;
                        }
                    }
                }
                _ => {
                    let path = plugin.get("path").and_then(Value::as_str);
                    if kind.starts_with("Patch") {
                        for entry in strings(plugin, "paths").chain(path) {
                            self.file_or_inline(place, entry, Role::Patch)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds an entry in the source; whatever keeps it from being there is told here.
    fn local(&mut self, place: &Place<'_>, entry: &str) -> Result<Found, Unreachable> {
        if !entry.contains("://")
            && let Some(path) = resolve(place.dir, entry)
        {
            if copy::leaves(place.dir, &path) {
                let message = format!("{entry} leaves the repository that it stands in");
                self.reach.problems.push(place.problem(entry, message));
                return Ok(Found::Told);
            }
            if path.is_empty() {
                return Ok(Found::Local(path, Node::Dir));
            }
            if let Some(node) = (self.view.entry)(&path)? {
                return Ok(Found::Local(path, node));
            }
        }
        if is_remote(entry)
            && let Some(path) = (self.view.copy)(entry)
            && let Some(node) = self.copied(place, entry, &path)?
        {
            return Ok(Found::Local(path, node));
        }
        if is_remote(entry) {
            self.reach.remotes.push(Remote {
                file: place.file.to_owned(),
                line: place.line(entry),
                entry: entry.to_owned(),
            });
            return Ok(Found::Told);
        }
        let message = match resolve(place.dir, entry) {
            None => format!("{entry} lies outside the source"),
            Some(path) => format!("{entry} is not there (looked for {})", join("", &path)),
        };
        self.reach.problems.push(place.problem(entry, message));
        Ok(Found::Told)
    }
}

enum Found {
    /// In the source, or in the copy of what lies outside.
    Local(String, Node),
    /// Not here: recorded as a remote or a problem.
    Told,
}

/// kustomize's notion of a remote: a URL, or the shorthand of a Git repository.
pub(super) fn is_remote(entry: &str) -> bool {
    const HOSTS: [&str; 3] = ["github.com/", "gitlab.com/", "bitbucket.org/"];
    entry.contains("://")
        || entry.starts_with("git@")
        || entry.starts_with("git::")
        || entry.contains("?ref=")
        || entry.contains(".git//")
        || entry.ends_with(".git")
        || HOSTS.iter().any(|host| entry.starts_with(host))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The strings of a list; what is no string is left to kustomize to refuse.
fn strings<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v str> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn objects<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter(|entry| entry.is_object())
}
