//! Pure: Flux's Kustomization, its fields, defaults and limits (Flux: Kustomization).

use super::{Expression, Key, Kind, Reader, Unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// One Kustomization with Flux's defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Kustomization {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Directory inside the source; empty for its root.
    pub path: String,
    /// The source's key.
    pub source: Key,
    /// Full pass period.
    pub interval: Duration,
    /// Delay after a failed attempt; the interval unless said.
    pub retry_interval: Duration,
    /// Limit of health checks: `interval - 30s`, at least 30 s, unless said.
    pub timeout: Duration,
    /// Whether objects that left Git are deleted.
    pub prune: bool,
    /// What happens to the objects when the Kustomization itself leaves Git.
    pub deletion_policy: DeletionPolicy,
    /// Recreate on immutable fields.
    pub force: bool,
    /// Ready waits for every applied object.
    pub wait: bool,
    /// Objects that Ready waits for when `wait` is not set.
    pub health_checks: Vec<HealthCheck>,
    /// CEL rules that replace the built-in ones for their kinds.
    pub health_check_exprs: Vec<HealthCheckExpr>,
    /// Kustomizations that must be ready first.
    pub depends_on: Vec<Dependency>,
    /// Namespace put on every namespaced object.
    pub target_namespace: Option<String>,
    /// Prefix of every name.
    pub name_prefix: Option<String>,
    /// Suffix of every name.
    pub name_suffix: Option<String>,
    /// Labels written on every object at apply time.
    pub common_labels: BTreeMap<String, String>,
    /// Annotations written on every object at apply time.
    pub common_annotations: BTreeMap<String, String>,
    /// Patches, after those of the file; kustomize's own shape.
    pub patches: Vec<Patch>,
    /// Image overrides, merged into the file's by name.
    pub images: Vec<Image>,
    /// Component directories.
    pub components: Vec<String>,
    /// Drop component directories that are not there.
    pub ignore_missing_components: bool,
    /// kustomize's buildMetadata.
    pub build_metadata: Vec<String>,
    /// Substitution after the build; `None` skips it altogether.
    pub post_build: Option<PostBuild>,
    /// Opening of sealed files; `None` leaves them sealed, which is an error where one is met.
    pub decryption: Option<Decryption>,
    /// True when stopped in Git.
    pub suspend: bool,
    /// Fields we do not act upon yet.
    pub unsupported: Vec<Unsupported>,
}

/// `spec.deletionPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
pub enum DeletionPolicy {
    /// As `prune` says.
    #[default]
    MirrorPrune,
    /// Delete.
    Delete,
    /// Delete, and wait for the end.
    WaitForTermination,
    /// Leave everything.
    Orphan,
}

/// `kind`, `name`, `namespace` of another object, for reading.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrossReference {
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Its namespace; the referrer's unless said.
    pub namespace: Option<String>,
}

/// One entry of `spec.healthChecks`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// `apps/v1` unless said.
    #[serde(default = "apps_v1")]
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Its namespace; empty for cluster-scoped kinds.
    #[serde(default)]
    pub namespace: String,
}

fn apps_v1() -> String {
    "apps/v1".to_owned()
}

/// One entry of `spec.healthCheckExprs`, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheckExpr {
    /// Group it speaks of.
    pub group: String,
    /// Kind, or the whole group.
    pub kind: Option<String>,
    /// True when the object is current.
    pub current: Expression,
    /// True while it is under way.
    pub in_progress: Option<Expression>,
    /// True when it has failed.
    pub failed: Option<Expression>,
}

/// One entry of `spec.dependsOn`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// The Kustomization depended upon.
    pub key: Key,
    /// CEL over `self` and `dep` that replaces the built-in test.
    pub ready_expr: Option<Expression>,
}

/// kustomize's target selector of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Regex of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Regex of the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Regex of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Regex of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Regex of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Label selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// Annotation selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation_selector: Option<String>,
}

/// A strategic merge or JSON 6902 patch, as text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The patch itself.
    pub patch: String,
    /// What it is applied to; a strategic merge patch may name its object itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Selector>,
}

/// An image override.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Image name as in the manifests.
    pub name: String,
    /// Replacement of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// Replacement of the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<String>,
    /// Replacement by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// `spec.postBuild`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostBuild {
    /// Inline variables; they win over all others.
    #[serde(default)]
    pub substitute: BTreeMap<String, String>,
    /// ConfigMaps and Secrets, later ones win.
    #[serde(default)]
    pub substitute_from: Vec<SubstituteFrom>,
    /// Whether to substitute when no variable was found.
    #[serde(default)]
    pub substitute_strategy: SubstituteStrategy,
    /// True when a secret value may be among the inline variables: whoever declares this object
    /// has opened or substituted one in it. No field of the manifest.
    #[serde(skip)]
    pub sensitive: bool,
}

/// `spec.postBuild.substituteStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
pub enum SubstituteStrategy {
    /// Only when at least one variable was resolved.
    #[default]
    WithVariables,
    /// Even without variables.
    Always,
}

/// One entry of `spec.postBuild.substituteFrom`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubstituteFrom {
    /// `ConfigMap` or `Secret`.
    pub kind: String,
    /// Its name, in the Kustomization's namespace.
    pub name: String,
    /// Whether it may be absent.
    #[serde(default)]
    pub optional: bool,
}

/// `spec.decryption`, provider `sops`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decryption {
    /// Secret with the keys, in the Kustomization's namespace.
    pub secret_ref: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExpr {
    api_version: String,
    kind: Option<String>,
    current: String,
    in_progress: Option<String>,
    failed: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDependency {
    name: String,
    namespace: Option<String>,
    ready_expr: Option<String>,
}

#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDecryption {
    provider: String,
    secret_ref: Option<NameOnly>,
    service_account_name: Option<String>,
}

#[derive(Deserialize, Default)]
struct CommonMetadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

const SUPPORTED: &[&str] = &[
    "interval",
    "retryInterval",
    "timeout",
    "sourceRef",
    "path",
    "prune",
    "deletionPolicy",
    "force",
    "wait",
    "healthChecks",
    "healthCheckExprs",
    "dependsOn",
    "targetNamespace",
    "namePrefix",
    "nameSuffix",
    "commonMetadata",
    "patches",
    "images",
    "components",
    "ignoreMissingComponents",
    "buildMetadata",
    "postBuild",
    "decryption",
    "suspend",
    // Client-side validation: gone since server-side apply, never meant anything to us.
    "validation",
];

/// Another cluster, or somebody else's rights: going on without these could do harm.
const BLOCKING: &[&str] =
    &["serviceAccountName", "kubeConfig", "patchesStrategicMerge", "patchesJson6902"];

impl Kustomization {
    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(Kind::Kustomization, &self.namespace, &self.name)
    }

    pub(super) fn read(manifest: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(manifest);
        let namespace = reader.identity.1.clone();
        let source = read_source(&mut reader, &namespace);
        reader.required::<String>("interval");
        let interval = reader.duration("interval").unwrap_or_default();
        let half_minute = Duration::from_secs(30);
        let parsed = Kustomization {
            name: reader.identity.2.clone(),
            path: reader.field("path").unwrap_or_default(),
            source: source.unwrap_or_else(|| Key::new(Kind::GitRepository, "", "")),
            interval,
            retry_interval: reader.duration("retryInterval").unwrap_or(interval),
            timeout: reader
                .duration("timeout")
                .unwrap_or_else(|| interval.saturating_sub(half_minute).max(half_minute)),
            prune: reader.required("prune").unwrap_or(false),
            deletion_policy: reader.field("deletionPolicy").unwrap_or_default(),
            force: reader.field("force").unwrap_or(false),
            wait: reader.field("wait").unwrap_or(false),
            health_checks: reader.field("healthChecks").unwrap_or_default(),
            health_check_exprs: read_exprs(&mut reader),
            depends_on: read_dependencies(&mut reader, &namespace),
            target_namespace: reader.field("targetNamespace"),
            name_prefix: reader.field("namePrefix"),
            name_suffix: reader.field("nameSuffix"),
            common_labels: reader
                .field::<CommonMetadata>("commonMetadata")
                .unwrap_or_default()
                .labels,
            common_annotations: reader
                .field::<CommonMetadata>("commonMetadata")
                .unwrap_or_default()
                .annotations,
            patches: reader.field("patches").unwrap_or_default(),
            images: reader.field("images").unwrap_or_default(),
            components: reader.field("components").unwrap_or_default(),
            ignore_missing_components: reader.field("ignoreMissingComponents").unwrap_or(false),
            build_metadata: reader.field("buildMetadata").unwrap_or_default(),
            post_build: reader.field("postBuild"),
            decryption: read_decryption(&mut reader),
            suspend: reader.field("suspend").unwrap_or(false),
            namespace,
            unsupported: Vec::new(),
        };
        reader.refuse_others(SUPPORTED, BLOCKING);
        if reader.problems.is_empty() {
            Ok(Kustomization { unsupported: reader.unsupported, ..parsed })
        } else {
            Err(reader.wrong())
        }
    }
}

fn read_source(reader: &mut Reader<'_>, namespace: &str) -> Option<Key> {
    let reference: CrossReference = reader.required("sourceRef")?;
    let namespace = reference.namespace.unwrap_or_else(|| namespace.to_owned());
    if reference.kind != "GitRepository" {
        reader.unsupported_field(&format!("sourceRef.kind={}", reference.kind), true);
    }
    Some(Key::new(Kind::GitRepository, namespace, reference.name))
}

fn read_dependencies(reader: &mut Reader<'_>, namespace: &str) -> Vec<Dependency> {
    let raw: Vec<RawDependency> = reader.field("dependsOn").unwrap_or_default();
    raw.into_iter()
        .enumerate()
        .map(|(index, entry)| Dependency {
            key: Key::new(
                Kind::Kustomization,
                entry.namespace.unwrap_or_else(|| namespace.to_owned()),
                entry.name,
            ),
            ready_expr: compile(reader, entry.ready_expr, &format!("dependsOn[{index}].readyExpr")),
        })
        .collect()
}

fn read_exprs(reader: &mut Reader<'_>) -> Vec<HealthCheckExpr> {
    let raw: Vec<RawExpr> = reader.field("healthCheckExprs").unwrap_or_default();
    let mut read = Vec::new();
    for (index, entry) in raw.into_iter().enumerate() {
        let at = |part: &str| format!("healthCheckExprs[{index}].{part}");
        let current = compile(reader, Some(entry.current), &at("current"));
        let in_progress = compile(reader, entry.in_progress, &at("inProgress"));
        let failed = compile(reader, entry.failed, &at("failed"));
        let group = entry.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        if let Some(current) = current {
            read.push(HealthCheckExpr { group, kind: entry.kind, current, in_progress, failed });
        }
    }
    read
}

fn compile(reader: &mut Reader<'_>, said: Option<String>, at: &str) -> Option<Expression> {
    let said = said.filter(|text| !text.is_empty())?;
    match Expression::compile(&said) {
        Ok(expression) => Some(expression),
        Err(error) => {
            reader.problems.push(format!("spec.{at}: {error}"));
            None
        }
    }
}

fn read_decryption(reader: &mut Reader<'_>) -> Option<Decryption> {
    let raw: RawDecryption = reader.field("decryption")?;
    if raw.provider != "sops" {
        reader.problems.push(format!("spec.decryption.provider: {:?} is not sops", raw.provider));
    }
    if raw.service_account_name.is_some() {
        reader.unsupported_field("decryption.serviceAccountName", false);
    }
    Some(Decryption { secret_ref: raw.secret_ref.map(|r| r.name) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kustomization(spec: Value) -> Result<Kustomization, Vec<String>> {
        Kustomization::read(&json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1beta2", "kind": "Kustomization",
            "metadata": {"name": "apps", "namespace": "flux-system"}, "spec": spec,
        }))
    }

    fn minimal() -> Value {
        json!({"interval": "10m", "prune": true, "path": "./apps",
            "sourceRef": {"kind": "GitRepository", "name": "app"}})
    }

    #[test]
    fn defaults_are_those_of_the_controller_not_of_the_crd() {
        let read = kustomization(minimal()).unwrap();
        assert_eq!(read.timeout, Duration::from_secs(570));
        assert_eq!(read.retry_interval, Duration::from_secs(600));
        assert_eq!(read.source, Key::new(Kind::GitRepository, "flux-system", "app"));
        let mut short = minimal();
        short["interval"] = json!("20s");
        assert_eq!(kustomization(short).unwrap().timeout, Duration::from_secs(30));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let spec = json!({"interval": "x", "path": 3, "decryption": {"provider": "vault"}});
        let problems = kustomization(spec).unwrap_err();
        for field in ["interval", "path", "decryption.provider", "sourceRef", "prune"] {
            let at = format!("spec.{field}:");
            assert!(problems.iter().any(|p| p.starts_with(&at)), "{field}: {problems:?}");
        }
    }

    #[test]
    fn a_required_field_that_is_misspelt_is_named_with_what_was_meant() {
        let spec = json!({"intreval": "10m", "prun": true, "ignore": [],
            "sourceRef": {"kind": "GitRepository", "nmae": "app"}});
        let mut problems = kustomization(spec).unwrap_err();
        problems.sort();
        let expected = [
            "spec.interval: missing",
            "spec.intreval: unknown field, did you mean interval?",
            "spec.prun: unknown field, did you mean prune?",
            "spec.prune: missing",
            "spec.sourceRef.nmae: unknown field, did you mean name?",
            "spec.sourceRef: missing field `name`",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_list_where_a_map_belongs_is_a_problem() {
        let mut spec = minimal();
        spec["sourceRef"] = json!(["GitRepository", "app", null]);
        spec["postBuild"] = json!([]);
        let mut problems = kustomization(spec).unwrap_err();
        problems.sort();
        let told = |field: &str| format!("spec.{field}: must be a map, not a list");
        assert_eq!(problems, [told("postBuild"), told("sourceRef")]);
    }

    #[test]
    fn what_would_run_with_the_wrong_rights_is_blocked() {
        let mut spec = minimal();
        spec["serviceAccountName"] = json!("reconciler");
        spec["ignore"] = json!([{"paths": ["/spec/replicas"]}]);
        let named: Vec<_> = kustomization(spec)
            .unwrap()
            .unsupported
            .into_iter()
            .map(|u| (u.field, u.blocks))
            .collect();
        let expected =
            [("spec.serviceAccountName".to_owned(), true), ("spec.ignore".to_owned(), false)];
        assert_eq!(named, expected);
    }
}
