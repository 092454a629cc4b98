//! Pure: the fields that Flux has, level by level, and what a misspelt one may have meant.
//!
//! The names are those of every version that Flux has ever served, up to 2.9: a field that is gone
//! is old, not misspelt, unless it has only moved to another level. Levels whose keys are the user's
//! own (labels, variables, push options) are not here, nor what stands below a field that is not
//! acted upon.
//!
//! In the path of a field a key that could be taken for more than one stands in quotes:
//! `spec."sourceRef.name"`.

use crate::config::distance;
use serde_json::Value;

/// Names by the level that they stand on; the spec itself is the empty one, lists are one level.
type Levels = &'static [(&'static str, &'static [&'static str])];

const NAME: &[&str] = &["name"];

const REF: &[&str] = &["branch", "commit", "name", "semver", "tag"];

const GIT_REPOSITORY: Levels = &[
    (
        "",
        &[
            "accessFrom",
            "gitImplementation",
            "ignore",
            "include",
            "interval",
            "provider",
            "proxySecretRef",
            "recurseSubmodules",
            "ref",
            "secretRef",
            "serviceAccountName",
            "sparseCheckout",
            "suspend",
            "timeout",
            "url",
            "verify",
        ],
    ),
    ("ref", REF),
    ("secretRef", NAME),
];

const KUSTOMIZATION: Levels = &[
    (
        "",
        &[
            "buildMetadata",
            "commonMetadata",
            "components",
            "decryption",
            "deletionPolicy",
            "dependsOn",
            "force",
            "healthCheckExprs",
            "healthChecks",
            "ignore",
            "ignoreMissingComponents",
            "images",
            "interval",
            "kubeConfig",
            "namePrefix",
            "nameSuffix",
            "patches",
            "patchesJson6902",
            "patchesStrategicMerge",
            "path",
            "postBuild",
            "prune",
            "retryInterval",
            "serviceAccount",
            "serviceAccountName",
            "sourceRef",
            "suspend",
            "targetNamespace",
            "timeout",
            "validation",
            "wait",
        ],
    ),
    ("commonMetadata", &["annotations", "labels"]),
    ("decryption", &["provider", "secretRef", "serviceAccountName"]),
    ("decryption.secretRef", NAME),
    ("dependsOn", &["name", "namespace", "readyExpr"]),
    ("healthCheckExprs", &["apiVersion", "current", "failed", "inProgress", "kind"]),
    ("healthChecks", &["apiVersion", "kind", "name", "namespace"]),
    ("images", &["digest", "name", "newName", "newTag"]),
    ("patches", &["patch", "target"]),
    (
        "patches.target",
        &["annotationSelector", "group", "kind", "labelSelector", "name", "namespace", "version"],
    ),
    ("postBuild", &["substitute", "substituteFrom", "substituteStrategy"]),
    ("postBuild.substituteFrom", &["kind", "name", "optional"]),
    ("sourceRef", &["apiVersion", "kind", "name", "namespace"]),
];

const IMAGE_REPOSITORY: Levels = &[
    (
        "",
        &[
            "accessFrom",
            "certSecretRef",
            "exclusionList",
            "image",
            "insecure",
            "interval",
            "provider",
            "proxySecretRef",
            "scanInterval",
            "secretRef",
            "serviceAccountName",
            "suspend",
            "timeout",
        ],
    ),
    ("accessFrom", &["namespaceSelectors"]),
    ("accessFrom.namespaceSelectors", &["matchLabels"]),
    ("certSecretRef", NAME),
    ("proxySecretRef", NAME),
    ("secretRef", NAME),
];

const IMAGE_POLICY: Levels = &[
    (
        "",
        &[
            "digestReflectionPolicy",
            "filterTags",
            "imageRepositoryRef",
            "interval",
            "policy",
            "suspend",
        ],
    ),
    ("filterTags", &["extract", "pattern"]),
    ("imageRepositoryRef", &["name", "namespace"]),
    ("policy", &["alphabetical", "numerical", "semver"]),
    ("policy.alphabetical", &["order"]),
    ("policy.numerical", &["order"]),
    ("policy.semver", &["range"]),
];

const IMAGE_UPDATE_AUTOMATION: Levels = &[
    (
        "",
        &[
            "git",
            "interval",
            "minimumRunInterval",
            "policySelector",
            "sourceRef",
            "suspend",
            "update",
        ],
    ),
    ("git", &["checkout", "commit", "push"]),
    ("git.checkout", &["ref"]),
    ("git.checkout.ref", REF),
    ("git.commit", &["author", "messageTemplate", "messageTemplateValues", "signingKey"]),
    ("git.commit.author", &["email", "name"]),
    ("git.commit.signingKey", &["secretRef", "type"]),
    ("git.commit.signingKey.secretRef", NAME),
    ("git.push", &["branch", "options", "refspec"]),
    ("policySelector", &["matchExpressions", "matchLabels"]),
    ("policySelector.matchExpressions", &["key", "operator", "values"]),
    ("sourceRef", &["apiVersion", "kind", "name", "namespace"]),
    ("update", &["path", "setters", "strategy"]),
];

/// Levels that are lists, with their kinds.
const LISTS: &[(&str, &str)] = &[
    ("Kustomization", "dependsOn"),
    ("Kustomization", "healthCheckExprs"),
    ("Kustomization", "healthChecks"),
    ("Kustomization", "images"),
    ("Kustomization", "patches"),
    ("Kustomization", "postBuild.substituteFrom"),
    ("ImageRepository", "accessFrom.namespaceSelectors"),
    ("ImageUpdateAutomation", "policySelector.matchExpressions"),
];

fn levels(kind: &str) -> Option<Levels> {
    Some(match kind {
        "GitRepository" => GIT_REPOSITORY,
        "Kustomization" => KUSTOMIZATION,
        "ImageRepository" => IMAGE_REPOSITORY,
        "ImagePolicy" => IMAGE_POLICY,
        "ImageUpdateAutomation" => IMAGE_UPDATE_AUTOMATION,
        _ => return None,
    })
}

/// The names of a level; none where it is not known here.
fn names(kind: &str, path: &str) -> Option<&'static [&'static str]> {
    // `dependsOn[0]` is the level `dependsOn`.
    let parts = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
    let path: String = parts.collect();
    levels(kind)?.iter().find(|(level, _)| *level == path).map(|(_, names)| *names)
}

/// What a spec says and Flux would not take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Strays {
    /// Fields that Flux does not have, as `postBuild.substituteFrom[0].nmae`.
    pub unknown: Vec<String>,
    /// Lists where there must be a map: the reader would take their entries for its fields.
    pub lists: Vec<String>,
}

/// Every stray of a spec, on all levels.
pub(super) fn strays(kind: &str, spec: &Value) -> Strays {
    let mut found = Strays::default();
    walk(kind, "", spec, &mut found);
    found
}

fn walk(kind: &str, path: &str, value: &Value, found: &mut Strays) {
    match value {
        Value::Array(items) if LISTS.contains(&(kind, path)) => {
            for (index, item) in items.iter().enumerate() {
                walk(kind, &format!("{path}[{index}]"), item, found);
            }
        }
        Value::Array(_) if names(kind, path).is_some() => found.lists.push(path.to_owned()),
        Value::Object(fields) => {
            let Some(names) = names(kind, path) else { return };
            for (name, below) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", key(name));
                match names.contains(&name.as_str()) {
                    true => walk(kind, &path, below, found),
                    false => found.unknown.push(path),
                }
            }
        }
        _ => {}
    }
}

/// A key as it stands in the path of a field.
pub(super) fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match !name.is_empty() && name.chars().all(plain) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

/// What is to be said of a field that Flux does not have, such as
/// `unknown field, did you mean prune?`. `None` of one that it has: that is merely not supported
/// yet, as is a whole kind, whose field is empty.
pub fn unknown_field(kind: &str, field: &str) -> Option<String> {
    let (level, name) = parse(field)?;
    let names = names(kind, &level)?;
    if names.contains(&name) {
        return None;
    }
    let told = elsewhere(kind, name)
        .or_else(|| near(name, names).map(|meant| format!("unknown field, did you mean {meant}?")));
    Some(told.unwrap_or_else(|| "unknown field, Flux has none of this name: take it out".into()))
}

/// Level and name of a field. What is said behind the name is no part of it:
/// `spec.git.push.refspec (…)`.
fn parse(field: &str) -> Option<(String, &str)> {
    let mut rest = field.strip_prefix("spec.")?;
    let mut level = String::new();
    loop {
        let (name, mut behind) = first(rest);
        while let Some((_, after)) = behind.strip_prefix('[').and_then(|i| i.split_once(']')) {
            behind = after;
        }
        let Some(below) = behind.strip_prefix('.') else { return Some((level, name)) };
        if !level.is_empty() {
            level.push('.');
        }
        level.push_str(name);
        rest = below;
    }
}

/// The first key of a path, without its quotes, and what follows.
fn first(path: &str) -> (&str, &str) {
    let Some(quoted) = path.strip_prefix('"') else {
        let end = path.find([' ', ':', '=', '(', '.', '[']).unwrap_or(path.len());
        return path.split_at(end);
    };
    let mut escaped = false;
    let end = quoted.find(|c: char| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end
    });
    let end = end.unwrap_or(quoted.len());
    (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
}

/// The other levels of the kind, the highest of each branch, that have a field of exactly this name;
/// nothing where they are too many to be a help.
fn elsewhere(kind: &str, said: &str) -> Option<String> {
    if let Some((level, name)) = said.rsplit_once('.')
        && names(kind, level).is_some_and(|names| names.contains(&name))
    {
        return Some(format!("unknown here, {name} belongs in spec.{level}"));
    }
    let having = levels(kind)?.iter().filter(|(_, names)| names.contains(&said));
    let having: Vec<&str> = having.map(|(level, _)| *level).collect();
    let below = |level: &str, other: &str| {
        let rest = level.strip_prefix(other);
        rest.is_some_and(|rest| rest.starts_with('.') || other.is_empty() && !rest.is_empty())
    };
    let highest = having.iter().filter(|level| !having.iter().any(|other| below(level, other)));
    let named = highest.map(|level| match *level {
        "" => "spec".to_owned(),
        level => format!("spec.{level}"),
    });
    let named: Vec<String> = named.collect();
    matches!(named.len(), 1 | 2)
        .then(|| format!("unknown here, it belongs in {}", named.join(" or ")))
}

/// The name that was most likely meant.
fn near(said: &str, names: &[&'static str]) -> Option<&'static str> {
    let said = said.to_ascii_lowercase();
    let far = |name: &str| distance(&said, &name.to_ascii_lowercase());
    let (far, name) = names.iter().map(|name| (far(name), *name)).min()?;
    // Two letters are most of a short name.
    (far <= (name.len() / 3).clamp(1, 2)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_misspelt_field_is_unknown_and_the_near_one_of_its_level_is_named() {
        let meant = |name: &str| format!("unknown field, did you mean {name}?");
        let nothing = "unknown field, Flux has none of this name: take it out".to_owned();
        let belongs = |to: &str| Some(format!("unknown here, it belongs in {to}"));
        for (kind, field, told) in [
            ("Kustomization", "spec.prun", Some(meant("prune"))),
            ("Kustomization", "spec.intreval", Some(meant("interval"))),
            ("Kustomization", "spec.DependsOn", Some(meant("dependsOn"))),
            ("Kustomization", "spec.healthCheck", Some(meant("healthChecks"))),
            ("Kustomization", "spec.colour", Some(nothing.clone())),
            ("Kustomization", "spec.ignore", None),
            ("Kustomization", "spec.sourceRef.kind=Bucket", None),
            ("Kustomization", "spec.dependsOn[3].nmae", Some(meant("name"))),
            ("Kustomization", "spec.patches[0].anything", Some(nothing.clone())),
            ("Kustomization", "spec.kubeConfig.anything", None),
            ("Kustomization", "spec.secretRef", belongs("spec.decryption")),
            ("Kustomization", "spec.substituteFrom", belongs("spec.postBuild")),
            ("Kustomization", "spec.dependsOn[0].interval", belongs("spec")),
            ("Kustomization", "spec.name", Some(nothing.clone())),
            ("Kustomization", "spec.\"prune \"", Some(meant("prune"))),
            (
                "Kustomization",
                "spec.\"sourceRef.name\"",
                Some("unknown here, name belongs in spec.sourceRef".to_owned()),
            ),
            ("Kustomization", "spec.\"toolkit.fluxcd.io/prune\"", Some(nothing.clone())),
            ("Kustomization", "spec.dependsOn[3].\"a\\\".b\"", Some(nothing.clone())),
            ("GitRepository", "spec.branch", belongs("spec.ref")),
            ("GitRepository", "spec.ref.brnch", Some(meant("branch"))),
            ("GitRepository", "spec.brnch", Some(nothing.clone())),
            ("GitRepository", "spec.verify", None),
            ("ImageRepository", "spec.verify", Some(nothing)),
            ("ImageRepository", "spec.secretRef.nam", Some(meant("name"))),
            ("ImagePolicy", "spec.policy.semVer", Some(meant("semver"))),
            ("ImageUpdateAutomation", "spec.git.push.refspec (a: b.c)", None),
            ("ImageUpdateAutomation", "spec.git.comit", Some(meant("commit"))),
            ("ImageUpdateAutomation", "spec.push", belongs("spec.git")),
            (
                "ImageUpdateAutomation",
                "spec.branch",
                belongs("spec.git.checkout.ref or spec.git.push"),
            ),
            ("ImageUpdateAutomation", "spec.git.commit.messageTemplate: line 1: a.b", None),
            ("HelmRelease", "spec.anything", None),
            ("HelmRelease", "", None),
        ] {
            assert_eq!(unknown_field(kind, field), told, "{kind} {field}");
        }
    }

    #[test]
    fn unknown_fields_are_found_on_every_level_that_is_read_and_no_key_of_the_users_is_one() {
        let spec = json!({"prun": true, "interval": "1m", "timeout": null, "color": null,
            "commonMetadata": {"labels": {"any": "x"}, "label": {}},
            "dependsOn": [{"name": "a"}, {"name": "b", "namspace": "n"}],
            "postBuild": {"substitute": {"any": "x"}, "substituteFrom": [{"knid": "Secret"}]},
            "kubeConfig": {"anything": 1}, "sourceRef": "no map", "sourceRef.name": "a"});
        let Strays { unknown: mut found, lists } = strays("Kustomization", &spec);
        found.sort();
        let expected = [
            "\"sourceRef.name\"",
            "commonMetadata.label",
            "dependsOn[1].namspace",
            "postBuild.substituteFrom[0].knid",
            "prun",
        ];
        assert_eq!((found, lists), (expected.map(str::to_owned).to_vec(), Vec::new()));
        assert_eq!(strays("HelmRelease", &spec), Strays::default());
    }

    #[test]
    fn a_list_where_a_map_belongs_is_found_and_no_list_of_flux_is_one() {
        let spec = json!({"sourceRef": ["GitRepository", "a"], "postBuild": [],
            "components": ["a"], "dependsOn": [["a"], {"name": "b"}], "images": [{"name": "a"}],
            "patches": [{"patch": "p", "target": ["a"]}], "healthChecks": [], "ignore": [[]],
            "decryption": {"provider": "sops", "secretRef": ["a"]}});
        let mut lists = strays("Kustomization", &spec).lists;
        lists.sort();
        let expected =
            ["decryption.secretRef", "dependsOn[0]", "patches[0].target", "postBuild", "sourceRef"];
        assert_eq!(lists, expected);
        let spec = json!({"ref": ["main"], "sparseCheckout": ["a"], "include": [{}]});
        assert_eq!(strays("GitRepository", &spec).lists, ["ref"]);
    }
}
