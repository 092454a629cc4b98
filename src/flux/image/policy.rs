//! Pure: ImagePolicy, which of an image's tags is the latest (Flux: ImagePolicy).

use super::{NamespacedName, Rest, labels, name_others};
use crate::flux::{Key, Kind, Pattern, Range, Reader, Unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How one tag is chosen among those of a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePolicy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, which an automation may select by.
    pub labels: BTreeMap<String, String>,
    /// The ImageRepository; in another namespace only where that one's `accessFrom` admits it.
    pub repository: NamespacedName,
    /// Which tags count, and what of them is compared; all and the whole tag unless said.
    pub filter: Option<TagFilter>,
    /// How keys are compared.
    pub order: TagOrder,
    /// Whether the digest of the chosen tag is written as well.
    pub digest: DigestReflection,
    /// How often the digest is asked for under [`DigestReflection::Always`].
    pub interval: Duration,
    /// True when choosing is stopped in Git.
    pub suspend: bool,
    /// Fields we do not act upon.
    pub unsupported: Vec<Unsupported>,
}

/// Which tags count, and what of them is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct TagFilter {
    /// Tags without a match somewhere in them do not count.
    pub pattern: Pattern,
    /// Go's Expand template for the compared key; empty compares the whole tag.
    pub extract: String,
}

/// How the keys of tags are compared.
#[derive(Clone, Debug, PartialEq)]
pub enum TagOrder {
    /// The highest version in a Masterminds range.
    Semver {
        /// The range.
        range: Range,
        /// The range as written.
        said: String,
    },
    /// Byte by byte.
    Alphabetical(Direction),
    /// As numbers.
    Numerical(Direction),
}

/// Which end of the order is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The greatest key.
    Asc,
    /// The smallest key.
    Desc,
}

/// When the digest of the chosen tag is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum DigestReflection {
    /// Every interval.
    Always,
    /// Once, when the tag is chosen.
    IfNotPresent,
    /// Not at all.
    #[default]
    Never,
}

#[derive(Deserialize)]
struct RawReference {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct RawFilter {
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    extract: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawChoice {
    semver: Option<RawRange>,
    alphabetical: Option<RawOrder>,
    numerical: Option<RawOrder>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawRange {
    range: String,
}

#[derive(Deserialize)]
struct RawOrder {
    #[serde(default)]
    order: Option<String>,
}

const SUPPORTED: &[&str] = &[
    "imageRepositoryRef",
    "policy",
    "filterTags",
    "digestReflectionPolicy",
    "interval",
    "suspend",
];

impl ImagePolicy {
    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(Kind::ImagePolicy, &self.namespace, &self.name)
    }

    /// Reads a manifest of the kind.
    ///
    /// # Errors
    ///
    /// Every problem of the spec at once, as `spec.field: what is wrong`.
    pub fn read(manifest: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(manifest);
        let (_, namespace, name) = reader.identity.clone();
        let repository = reader.required::<RawReference>("imageRepositoryRef").map(|said| {
            let namespace = said.namespace.filter(|n| !n.is_empty());
            let namespace = namespace.unwrap_or_else(|| reader.identity.1.clone());
            NamespacedName { namespace, name: said.name }
        });
        let filter = read_filter(&mut reader);
        let order = read_order(&mut reader);
        let digest = reader.field("digestReflectionPolicy").unwrap_or_default();
        let interval = reader.duration("interval");
        let told = match (digest, interval) {
            (DigestReflection::Always, None) => Some("missing: it must say how often"),
            (DigestReflection::IfNotPresent | DigestReflection::Never, Some(_)) => {
                Some("only for digestReflectionPolicy: Always, tags have the ImageRepository's")
            }
            _ => None,
        };
        if let Some(told) = told {
            reader.problems.push(format!("spec.interval: {told}"));
        }
        let suspend = reader.field("suspend").unwrap_or(false);
        reader.refuse_others(SUPPORTED, &[]);
        match (repository, order) {
            (Some(repository), Some(order)) if reader.problems.is_empty() => Ok(ImagePolicy {
                namespace,
                name,
                labels: labels(manifest),
                repository,
                filter,
                order,
                digest,
                interval: interval.unwrap_or(Duration::from_secs(600)),
                suspend,
                unsupported: reader.unsupported,
            }),
            _ => Err(reader.wrong()),
        }
    }
}

fn read_filter(reader: &mut Reader<'_>) -> Option<TagFilter> {
    let raw: RawFilter = reader.field("filterTags")?;
    name_others(reader, "filterTags", &raw.rest);
    match Pattern::parse(&raw.pattern) {
        Ok(pattern) => Some(TagFilter { pattern, extract: raw.extract }),
        Err(error) => {
            reader.problems.push(format!("spec.filterTags.pattern: {error}"));
            None
        }
    }
}

/// The first of semver, alphabetical and numerical that is said, as in Flux.
fn read_order(reader: &mut Reader<'_>) -> Option<TagOrder> {
    let raw: RawChoice = reader.required("policy")?;
    name_others(reader, "policy", &raw.rest);
    let said = [
        ("semver", raw.semver.is_some()),
        ("alphabetical", raw.alphabetical.is_some()),
        ("numerical", raw.numerical.is_some()),
    ];
    for (name, _) in said.iter().filter(|(_, said)| *said).skip(1) {
        reader.unsupported_field(&format!("policy.{name}"), false);
    }
    if let Some(RawRange { range: said }) = raw.semver {
        // An empty range is any release to the library's reader of old, and refused by today's.
        let parsed = match said.trim() {
            "" => Err("empty: write '*' for any release".to_owned()),
            said => Range::parse(said),
        };
        match parsed {
            Ok(range) => return Some(TagOrder::Semver { range, said }),
            Err(error) => reader.problems.push(format!("spec.policy.semver.range: {error}")),
        }
    } else if let Some(raw) = raw.alphabetical {
        return direction(reader, "alphabetical", raw).map(TagOrder::Alphabetical);
    } else if let Some(raw) = raw.numerical {
        return direction(reader, "numerical", raw).map(TagOrder::Numerical);
    } else {
        let told = "spec.policy: none of semver, alphabetical and numerical is said";
        reader.problems.push(told.to_owned());
    }
    None
}

fn direction(reader: &mut Reader<'_>, policy: &str, raw: RawOrder) -> Option<Direction> {
    let said = raw.order.unwrap_or_default();
    match said.to_ascii_lowercase().as_str() {
        "" | "asc" => Some(Direction::Asc),
        "desc" => Some(Direction::Desc),
        _ => {
            let told = format!("spec.policy.{policy}.order: {said:?} is neither asc nor desc");
            reader.problems.push(told);
            None
        }
    }
}
