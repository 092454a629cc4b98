//! Pure: ImageUpdateAutomation, which branch chosen tags are written to (Flux: same name).

use super::{NameOnly, Rest, name_others, push_destination, valid_ref};
use crate::flux::{CrossReference, GitReference, Key, Kind, Reader, Unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which policies' tags are committed where, how often and in whose name.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageUpdateAutomation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The GitRepository that gives address, credentials and timeout.
    pub source: Key,
    /// Lower bound between two attempts.
    pub interval: Duration,
    /// What is checked out; the source's reference unless said.
    pub checkout: Option<GitReference>,
    /// Author and committer.
    pub author: Author,
    /// Key that signs commits.
    pub signing_key: Option<SigningKey>,
    /// Go template of the commit message; ours unless said.
    pub message_template: Option<String>,
    /// `.Values` of the template.
    pub message_values: BTreeMap<String, String>,
    /// Branch pushed to; see [`ImageUpdateAutomation::push_branch`].
    pub push_branch: Option<String>,
    /// A refspec that is pushed after the branch. One that cannot be served is none: the branch does
    /// not wait for it.
    pub push_refspec: Option<PushRefspec>,
    /// Push options, sent as `key=value`.
    pub push_options: BTreeMap<String, String>,
    /// Which policies of the namespace; all unless said.
    pub policy_selector: Option<LabelSelector>,
    /// Directory below which files are edited; empty for the whole repository.
    pub path: String,
    /// True when the automation is stopped in Git.
    pub suspend: bool,
    /// Fields we do not act upon yet.
    pub unsupported: Vec<Unsupported>,
}

/// Who commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// May be empty.
    pub name: String,
    /// Never empty.
    pub email: String,
}

/// A second place that commits are pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRefspec {
    /// As it is written.
    pub said: String,
    /// The full name of the ref that it sends a commit to.
    pub destination: String,
}

/// A key that signs commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// What the Secret holds.
    pub kind: SigningKind,
    /// Secret in the automation's namespace.
    pub secret_ref: String,
}

/// What kind of key a signing Secret holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKind {
    /// OpenPGP, key `git.asc`.
    #[default]
    Gpg,
    /// SSH, key `identity`.
    Ssh,
}

/// A Kubernetes label selector: all of its parts must hold; an empty one selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |r: &Requirement| {
            let value = labels.get(&r.key);
            match r.operator {
                Operator::In => value.is_some_and(|v| r.values.contains(v)),
                Operator::NotIn => value.is_none_or(|v| !r.values.contains(v)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(holds)
    }
}

#[derive(Deserialize)]
struct RawGit {
    checkout: Option<RawCheckout>,
    commit: Option<RawCommit>,
    push: Option<RawPush>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawCheckout {
    #[serde(rename = "ref")]
    reference: GitReference,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCommit {
    author: Option<RawAuthor>,
    signing_key: Option<RawSigningKey>,
    message_template: Option<String>,
    message_template_values: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawAuthor {
    name: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSigningKey {
    secret_ref: NameOnly,
    #[serde(default, rename = "type")]
    kind: SigningKind,
}

#[derive(Deserialize, Default)]
struct RawPush {
    branch: Option<String>,
    refspec: Option<String>,
    options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize, Default)]
struct RawUpdate {
    strategy: Option<String>,
    path: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

const SUPPORTED: &[&str] = &["sourceRef", "interval", "git", "policySelector", "update", "suspend"];

impl ImageUpdateAutomation {
    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(Kind::ImageUpdateAutomation, &self.namespace, &self.name)
    }

    /// Reads a manifest of the kind.
    ///
    /// # Errors
    ///
    /// Every problem of the spec at once, as `spec.field: what is wrong`.
    pub fn read(manifest: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(manifest);
        let (_, namespace, name) = reader.identity.clone();
        reader.required::<String>("interval");
        let update = read_update(&mut reader);
        let mut parsed = ImageUpdateAutomation {
            source: read_source(&mut reader),
            interval: reader.duration("interval").unwrap_or_default(),
            checkout: None,
            author: Author::default(),
            signing_key: None,
            message_template: None,
            message_values: BTreeMap::new(),
            push_branch: None,
            push_refspec: None,
            push_options: BTreeMap::new(),
            policy_selector: reader.field("policySelector"),
            path: update.path.unwrap_or_default(),
            suspend: reader.field("suspend").unwrap_or(false),
            unsupported: Vec::new(),
            namespace,
            name,
        };
        if let Some(git) = reader.required::<RawGit>("git") {
            parsed.read_git(&mut reader, git);
        }
        reader.refuse_others(SUPPORTED, &[]);
        if reader.problems.is_empty() {
            Ok(ImageUpdateAutomation { unsupported: reader.unsupported, ..parsed })
        } else {
            Err(reader.wrong())
        }
    }

    /// The branch that is pushed to: the one said, else the one checked out, which is the source's
    /// unless said. `None` where neither names a branch.
    pub fn push_branch<'a>(&'a self, source: &'a GitReference) -> Option<&'a str> {
        match (&self.push_branch, self.checkout.as_ref().unwrap_or(source)) {
            (Some(branch), _) | (None, GitReference::Branch(branch)) => Some(branch),
            (None, GitReference::Commit { branch, .. }) => branch.as_deref(),
            (None, GitReference::Name(name)) => name.strip_prefix("refs/heads/"),
            (None, GitReference::Semver(_) | GitReference::Tag(_)) => None,
        }
    }

    fn read_git(&mut self, reader: &mut Reader<'_>, git: RawGit) {
        name_others(reader, "git", &git.rest);
        match git.commit {
            Some(commit) => self.read_commit(reader, commit),
            None => reader.problems.push("spec.git.commit: missing".to_owned()),
        }
        let push = git.push.unwrap_or_default();
        name_others(reader, "git.push", &push.rest);
        self.push_branch = said(push.branch);
        if let Some(branch) = &self.push_branch {
            check_branch(reader, "git.push.branch", branch);
        }
        if let Some(said) = said(push.refspec) {
            match push_destination(&said) {
                Ok(destination) => self.push_refspec = Some(PushRefspec { said, destination }),
                Err(told) => reader.unsupported_field(&format!("git.push.refspec ({told})"), false),
            }
        }
        self.push_options = push.options.unwrap_or_default();
        if let Some(checkout) = git.checkout {
            name_others(reader, "git.checkout", &checkout.rest);
            if let GitReference::Branch(branch)
            | GitReference::Commit { branch: Some(branch), .. } = &checkout.reference
            {
                check_branch(reader, "git.checkout.ref.branch", branch);
            }
            self.checkout = Some(checkout.reference);
            if self.push_branch(&GitReference::Branch(String::new())).is_none() {
                let told = "missing: spec.git.checkout.ref is no branch that could be pushed to";
                reader.problems.push(format!("spec.git.push.branch: {told}"));
            }
        }
    }

    fn read_commit(&mut self, reader: &mut Reader<'_>, commit: RawCommit) {
        name_others(reader, "git.commit", &commit.rest);
        let author = commit.author.map(|a| (said(a.name).unwrap_or_default(), said(a.email)));
        match author {
            Some((name, Some(email))) => self.author = Author { name, email },
            _ => reader.problems.push("spec.git.commit.author.email: missing".to_owned()),
        }
        self.message_template = said(commit.message_template);
        self.message_values = commit.message_template_values.unwrap_or_default();
        if let Some(key) = commit.signing_key {
            if key.kind == SigningKind::Gpg {
                // An unsigned commit must not pass where signed ones are wanted.
                reader.unsupported_field("git.commit.signingKey", true);
            }
            self.signing_key = Some(SigningKey { kind: key.kind, secret_ref: key.secret_ref.name });
        }
    }
}

/// A branch that git refuses is not there, and cannot be made: no server need be asked.
fn check_branch(reader: &mut Reader<'_>, field: &str, branch: &str) {
    if !valid_ref(&format!("refs/heads/{branch}")) {
        reader.problems.push(format!(
            "spec.{field}: {branch:?} is no name that git takes for a branch: no spaces or control \
             characters, no .., no @{{, none of ~^:?*[\\, no dot at its end, no part that is empty, \
             begins with a dot or ends with .lock, and at most 1013 bytes"
        ));
    }
}

fn said(field: Option<String>) -> Option<String> {
    field.filter(|text| !text.is_empty())
}

fn read_source(reader: &mut Reader<'_>) -> Key {
    #[derive(Deserialize)]
    struct Raw {
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
    }
    let raw: Option<Raw> = reader.required("sourceRef");
    let reference = raw.map(|raw| CrossReference {
        kind: said(raw.kind).unwrap_or_else(|| "GitRepository".to_owned()),
        name: raw.name,
        namespace: said(raw.namespace),
    });
    let Some(reference) = reference else { return Key::new(Kind::GitRepository, "", "") };
    if reference.kind != "GitRepository" {
        let told = format!("spec.sourceRef.kind: {:?} is not GitRepository", reference.kind);
        reader.problems.push(told);
    }
    let namespace = reference.namespace.unwrap_or_else(|| reader.identity.1.clone());
    Key::new(Kind::GitRepository, namespace, reference.name)
}

fn read_update(reader: &mut Reader<'_>) -> RawUpdate {
    let update: RawUpdate = reader.field("update").unwrap_or_default();
    name_others(reader, "update", &update.rest);
    if let Some(strategy) = said(update.strategy.clone())
        && strategy != "Setters"
    {
        let told = format!("spec.update.strategy: {strategy:?} is not Setters");
        reader.problems.push(told);
    }
    update
}
