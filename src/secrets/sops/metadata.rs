//! Pure: the `sops` section: who can open the file, which values are sealed, the MAC.
//!
//! Numbers and booleans may come as text, since dotenv and INI know nothing else. Fields that only
//! sealing needs are not read.

use super::shamir;
use crate::secrets::age::Unwrapped;
use crate::secrets::{Keyring, SecretsError};
use regex::Regex;
use serde_json::Value;
use zeroize::Zeroizing;

/// Kinds of master keys other than age.
const FOREIGN: [&str; 6] = ["pgp", "kms", "gcp_kms", "azure_kv", "hc_vault", "hckms"];

/// Which leaves are sealed, by the keys on their path.
pub(super) enum Rule {
    /// All but those below a key with this suffix; `_unencrypted` where nothing is said.
    LeaveSuffix(String),
    /// All but those below a key that matches.
    LeaveRegex(Regex),
    /// Only those below a key with this suffix.
    SealSuffix(String),
    /// Only those below a key that matches.
    SealRegex(Regex),
    /// By the comments in front of them.
    Comments,
}

impl Rule {
    /// True where a key meets the rule's suffix or expression.
    pub(super) fn names(&self, key: &str) -> bool {
        match self {
            Rule::LeaveSuffix(suffix) | Rule::SealSuffix(suffix) => key.ends_with(suffix.as_str()),
            Rule::LeaveRegex(regex) | Rule::SealRegex(regex) => regex.is_match(key),
            Rule::Comments => false,
        }
    }
}

/// Master keys of which any one opens the data key, or one share of it.
struct Group {
    /// Recipient and wrapped key.
    age: Vec<(String, String)>,
    foreign: Vec<&'static str>,
}

/// The `sops` section, as far as opening needs it.
pub(super) struct Metadata {
    pub(super) rule: Rule,
    pub(super) mac: Option<String>,
    pub(super) mac_only_encrypted: bool,
    pub(super) last_modified: String,
    groups: Vec<Group>,
    threshold: usize,
}

impl Metadata {
    pub(super) fn read(section: &Value) -> Result<Metadata, SecretsError> {
        if !section.is_object() {
            return Err(bad("sops", "is not a mapping"));
        }
        let groups = groups(section)?;
        let threshold = match section.get("shamir_threshold") {
            None | Some(Value::Null) => 0,
            Some(Value::Number(number)) => number.as_u64().unwrap_or(0) as usize,
            Some(Value::String(text)) => {
                text.parse().map_err(|_| bad("shamir_threshold", "is not a number"))?
            }
            Some(_) => return Err(bad("shamir_threshold", "is not a number")),
        };
        let mac_only_encrypted = match section.get("mac_only_encrypted") {
            Some(Value::Bool(truth)) => *truth,
            Some(Value::String(text)) => text.eq_ignore_ascii_case("true") || text == "1",
            _ => false,
        };
        Ok(Metadata {
            rule: rule(section)?,
            mac: text(section, "mac").map(str::to_owned),
            mac_only_encrypted,
            last_modified: text(section, "lastmodified").unwrap_or_default().to_owned(),
            groups,
            threshold,
        })
    }

    /// The age recipients of all groups, in order.
    pub(super) fn recipients(&self) -> Vec<String> {
        let age = self.groups.iter().flat_map(|group| &group.age);
        age.map(|(recipient, _)| recipient.clone()).collect()
    }

    /// Unwraps the data key with whatever identity fits.
    pub(super) fn data_key(&self, keyring: &Keyring) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
        let mut shares = Vec::new();
        let mut damaged = None;
        for group in &self.groups {
            match group.unwrap(keyring) {
                Ok(Some(share)) => shares.push(share),
                Ok(None) => {}
                Err(recipient) => damaged = Some(recipient),
            }
        }
        let needed = match self.groups.len() {
            1 => 1,
            // Two shares are the least that mean anything; SOPS asks for all where it is not said.
            count if self.threshold == 0 => count,
            _ => self.threshold.max(2),
        };
        if shares.len() < needed {
            return Err(self.refusal(damaged, shares.len(), needed, keyring));
        }
        if self.groups.len() == 1 {
            // One group and as many shares as needed: there is exactly one.
            return Ok(shares.remove(0));
        }
        shamir::combine(&shares).ok_or_else(|| bad("key_groups", "shares do not fit together"))
    }

    fn refusal(
        &self,
        damaged: Option<String>,
        opened: usize,
        needed: usize,
        keyring: &Keyring,
    ) -> SecretsError {
        if let Some(recipient) = damaged {
            return SecretsError::DamagedDataKey { recipient };
        }
        let (sealed_to, held) = (self.recipients(), keyring.recipients());
        if sealed_to.is_empty() {
            let mut kinds: Vec<String> = Vec::new();
            for kind in self.groups.iter().flat_map(|group| &group.foreign) {
                if !kinds.iter().any(|known| known == kind) {
                    kinds.push((*kind).to_owned());
                }
            }
            return SecretsError::OnlyForeignKeys { kinds };
        }
        match needed {
            1 => SecretsError::MissingKey { sealed_to, held },
            _ => SecretsError::MissingGroups { needed, opened, sealed_to, held },
        }
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.age.is_empty() && self.foreign.is_empty()
    }

    /// The share that any of the age keys opens; an error names the recipient of a damaged one.
    fn unwrap(&self, keyring: &Keyring) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let mut damaged = None;
        for (recipient, wrapped) in &self.age {
            match keyring.unwrap(wrapped) {
                Unwrapped::Key(key) => return Ok(Some(key)),
                Unwrapped::NotOurs => {}
                Unwrapped::Damaged => damaged = Some(recipient.clone()),
            }
        }
        damaged.map_or(Ok(None), Err)
    }
}

/// The keys at top level are one group; without them `key_groups` counts, as in SOPS.
fn groups(section: &Value) -> Result<Vec<Group>, SecretsError> {
    let single = group(section)?;
    if !single.is_empty() {
        return Ok(vec![single]);
    }
    let groups = match section.get("key_groups") {
        Some(Value::Array(groups)) => groups.iter().map(group).collect::<Result<Vec<_>, _>>()?,
        _ => Vec::new(),
    };
    // A share's x coordinate is one byte and never 0.
    match groups.len() {
        0 => Err(bad("age", "there are no recipients")),
        1..=255 => Ok(groups),
        _ => Err(bad("key_groups", "has more than 255 groups")),
    }
}

fn group(section: &Value) -> Result<Group, SecretsError> {
    let entries = |kind: &str| match section.get(kind) {
        Some(Value::Array(entries)) => entries.as_slice(),
        _ => &[],
    };
    let mut age = Vec::new();
    for entry in entries("age") {
        let recipient = text(entry, "recipient").unwrap_or("an unnamed recipient").to_owned();
        let wrapped = text(entry, "enc").ok_or_else(|| bad("age", "an entry has no `enc`"))?;
        age.push((recipient, wrapped.to_owned()));
    }
    let foreign = FOREIGN.into_iter().filter(|kind| !entries(kind).is_empty()).collect();
    Ok(Group { age, foreign })
}

/// At most one rule may be given.
fn rule(section: &Value) -> Result<Rule, SecretsError> {
    let fields = [
        "unencrypted_suffix",
        "encrypted_suffix",
        "unencrypted_regex",
        "encrypted_regex",
        "unencrypted_comment_regex",
        "encrypted_comment_regex",
    ];
    let mut given = fields.into_iter().filter_map(|field| Some((field, text(section, field)?)));
    let Some((field, value)) = given.next() else {
        return Ok(Rule::LeaveSuffix("_unencrypted".to_owned()));
    };
    if let Some((other, _)) = given.next() {
        return Err(bad(other, &format!("cannot be used beside {field}")));
    }
    let regex = || Regex::new(value).map_err(|_| bad(field, "is not a regular expression"));
    Ok(match field {
        "unencrypted_suffix" => Rule::LeaveSuffix(value.to_owned()),
        "encrypted_suffix" => Rule::SealSuffix(value.to_owned()),
        "unencrypted_regex" => Rule::LeaveRegex(regex()?),
        "encrypted_regex" => Rule::SealRegex(regex()?),
        _ => Rule::Comments,
    })
}

/// A field that is text and not empty.
fn text<'a>(section: &'a Value, field: &str) -> Option<&'a str> {
    section.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn bad(field: &str, problem: &str) -> SecretsError {
    SecretsError::Metadata { field: field.to_owned(), problem: problem.to_owned() }
}
