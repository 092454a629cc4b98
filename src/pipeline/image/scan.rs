//! One scan of a registry, and what it is asked with.
//!
//! Nothing is written unless the list is another one. Credentials are read from the cluster once
//! and again after a failure, so that a scan costs the API server nothing.

use super::Scanned;
use crate::flux::{ImageRepository, Key, Pattern};
use crate::history::{Tags, Trigger};
use crate::net::Trust;
use crate::pipeline::inputs::{Data, read, secret};
use crate::pipeline::{Connection, Failure, Pipeline, Retry, Step, lock, record};
use crate::registry::{Access, DockerConfig, RegistryError, Repository, Scan, Validator};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Scans of one registry at the same time: a start with fifty repositories is no storm.
const AT_ONCE: usize = 4;

/// Longest that a registry is left alone because it asked for it.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// Longest pause before the first scan after a start, where tags are stored.
const SPREAD: Duration = Duration::from_secs(300);

/// What is known of a repository from its last scan.
pub(super) struct Listed {
    asked: String,
    validator: Option<Validator>,
    tags: usize,
    checksum: String,
    /// When it was, Unix milliseconds.
    pub at_ms: i64,
}

/// What a repository is asked with, and the spec that says so.
pub(super) struct Keys {
    repository: ImageRepository,
    access: Access,
}

/// What a list of tags depends on: the image and what is left out.
pub(super) fn asked(repository: &ImageRepository) -> String {
    let excluded = repository.exclusion_list.iter().map(|pattern| pattern.as_str());
    let parts: Vec<&str> = std::iter::once(repository.image.as_str()).chain(excluded).collect();
    parts.join("\n")
}

impl Pipeline {
    /// Lists the tags of a repository. At the start, and when its spec has changed, stored tags of
    /// the same question will do until its turn comes.
    pub async fn scan(
        &self,
        repository: &ImageRepository,
        trigger: &Trigger,
    ) -> Result<Scanned, Failure> {
        if matches!(trigger, Trigger::Boot | Trigger::Revision)
            && let Some(stored) = self.stored(repository).await?
        {
            return Ok(stored);
        }
        let parsed = parse(repository)?;
        let turn = self.registry_turn(parsed.registry());
        // The semaphore is never closed.
        let _turn = turn.acquire().await;
        self.rests(parsed.registry())?;
        let listed = self.list(repository, &parsed).await;
        if listed.is_err() {
            lock(&self.images).keys.remove(&repository.key());
        }
        listed.map_err(|failure| failure.object(repository.key()))
    }

    /// Stored tags of the same question, in force until the scan that they put off.
    async fn stored(&self, repository: &ImageRepository) -> Result<Option<Scanned>, Failure> {
        let name = format!("{}/{}", repository.namespace, repository.name);
        let stored = self.database(move |history| history.tags(&name)).await?;
        let asked = asked(repository);
        let Some(stored) = stored.filter(|s| s.asked == asked && !s.tags.is_empty()) else {
            return Ok(None);
        };
        let key = repository.key();
        let now_ms = record::now_ms();
        let at_ms = {
            let images = lock(&self.images);
            images.listed.get(&key).map_or(stored.scanned_ms, |listed| listed.at_ms)
        };
        Ok(Some(Scanned {
            tags: stored.tags.len(),
            checksum: checksum(&stored.tags),
            changed: false,
            next: Some(put_off(&key, repository.interval, now_ms - at_ms)),
        }))
    }

    /// At most so many scans of one registry at once; one that hangs keeps no other from its turn.
    fn registry_turn(&self, registry: &str) -> Arc<Semaphore> {
        let mut images = lock(&self.images);
        images.registries.retain(|_, turn| Arc::strong_count(turn) > 1);
        let fresh = || Arc::new(Semaphore::new(AT_ONCE));
        images.registries.entry(registry.to_owned()).or_insert_with(fresh).clone()
    }

    /// Whether a registry has asked to be left alone for a while.
    fn rests(&self, registry: &str) -> Result<(), Failure> {
        let now_ms = record::now_ms();
        let mut images = lock(&self.images);
        images.rests.retain(|_, until| *until > now_ms);
        let Some(until) = images.rests.get(registry) else { return Ok(()) };
        let seconds = (until - now_ms) / 1000 + 1;
        let cause = format!("{registry} wants no request for another {seconds} s");
        Err(Failure::new(Step::Scan, "ReadOperationFailed", cause).retry(Retry::Soon))
    }

    /// A registry's error, and its wish to be left alone kept in mind.
    fn heeded(&self, parsed: &Repository, error: RegistryError) -> Failure {
        if let Some(pause) = error.retry_after() {
            let pause = i64::try_from(pause.min(LONGEST_REST).as_millis()).unwrap_or(0);
            let until = record::now_ms() + pause;
            lock(&self.images).rests.insert(parsed.registry().to_owned(), until);
        }
        failed(error)
    }

    async fn list(
        &self,
        repository: &ImageRepository,
        parsed: &Repository,
    ) -> Result<Scanned, Failure> {
        let (key, asked) = (repository.key(), asked(repository));
        let access = self.access(repository).await?;
        let known = {
            let images = lock(&self.images);
            let listed = images.listed.get(&key).filter(|listed| listed.asked == asked);
            listed.and_then(|listed| listed.validator.clone())
        };
        let found = self.registry.tags(parsed, &access, known.as_ref()).await;
        let found = found.map_err(|error| self.heeded(parsed, error))?;
        let at_ms = record::now_ms();
        let (tags, validator) = match found {
            Scan::Tags { tags, validator } => (tags, validator),
            Scan::Unchanged => {
                let mut images = lock(&self.images);
                let Some(listed) = images.listed.get_mut(&key) else {
                    let cause = "the registry says that nothing changed, to no question";
                    return Err(Failure::new(Step::Scan, "ReadOperationFailed", cause));
                };
                listed.at_ms = at_ms;
                let (tags, checksum) = (listed.tags, listed.checksum.clone());
                return Ok(Scanned { tags, checksum, changed: false, next: None });
            }
        };
        let tags = kept(tags, &repository.exclusion_list);
        let (count, checksum) = (tags.len(), checksum(&tags));
        let name = format!("{}/{}", repository.namespace, repository.name);
        let row = Tags { asked: asked.clone(), tags, scanned_ms: at_ms };
        let changed = self.database(move |history| history.store_tags(&name, &row)).await?;
        let listed = Listed { asked, validator, tags: count, checksum: checksum.clone(), at_ms };
        lock(&self.images).listed.insert(key, listed);
        Ok(Scanned { tags: count, checksum, changed, next: None })
    }

    /// The digest that a tag names. The registry is asked as for a scan: in turn, and not while it
    /// wants to be left alone.
    pub(super) async fn digest_of(
        &self,
        repository: &ImageRepository,
        tag: &str,
    ) -> Result<String, Failure> {
        let parsed = parse(repository)?;
        let turn = self.registry_turn(parsed.registry());
        // The semaphore is never closed.
        let _turn = turn.acquire().await;
        self.rests(parsed.registry())?;
        let access = self.access(repository).await?;
        let found = self.registry.digest(&parsed, tag, &access).await;
        if found.is_err() {
            lock(&self.images).keys.remove(&repository.key());
        }
        found.map_err(|error| self.heeded(&parsed, error))
    }

    /// What a repository is asked with, as its Secrets were read last.
    async fn access(&self, repository: &ImageRepository) -> Result<Access, Failure> {
        let key = repository.key();
        if let Some(keys) = lock(&self.images).keys.get(&key)
            && keys.repository == *repository
        {
            return Ok(keys.access.clone());
        }
        let access = self.read_access(repository).await?;
        let keys = Keys { repository: repository.clone(), access: access.clone() };
        lock(&self.images).keys.insert(key, keys);
        Ok(access)
    }

    async fn read_access(&self, repository: &ImageRepository) -> Result<Access, Failure> {
        let mut access = Access {
            docker: None,
            trust: Trust::default(),
            insecure: repository.insecure,
            timeout: repository.timeout,
        };
        let of =
            [&repository.secret_ref, &repository.cert_secret_ref, &repository.proxy_secret_ref];
        if of.iter().all(|name| name.is_none()) && repository.service_account.is_none() {
            return Ok(access);
        }
        let connection = self.connected(Step::Scan, "AuthenticationFailed").await?;
        let namespace = &repository.namespace;
        if let Some(name) = &repository.secret_ref {
            let data = wanted(&connection, namespace, name).await?;
            access.docker = Some(docker(namespace, name, &data)?);
        } else if let Some(account) = &repository.service_account {
            access.docker = pull_secrets(&connection, namespace, account).await?;
        }
        if let Some(name) = &repository.cert_secret_ref {
            let data = wanted(&connection, namespace, name).await?;
            let added = access.trust.add_certificates(&data);
            added.map_err(|error| unusable(namespace, name, &error.to_string()))?;
        }
        if let Some(name) = &repository.proxy_secret_ref {
            let data = wanted(&connection, namespace, name).await?;
            let added = access.trust.add_proxy(&data);
            added.map_err(|error| unusable(namespace, name, &error.to_string()))?;
        }
        Ok(access)
    }
}

/// The tags that are stored, the greatest first: those that no pattern of the exclusion list finds
/// itself in.
fn kept(mut tags: Vec<String>, excluded: &[Pattern]) -> Vec<String> {
    tags.retain(|tag| !excluded.iter().any(|pattern| pattern.matches(tag)));
    tags.sort_unstable_by(|a, b| b.cmp(a));
    tags
}

/// How long a scan can wait, given the age of the stored tags: the rest of the interval, or where
/// that is over a part of it that is each repository's own.
fn put_off(key: &Key, interval: Duration, age_ms: i64) -> Duration {
    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
    if let Some(rest) = interval.checked_sub(age).filter(|_| age_ms >= 0) {
        return rest;
    }
    let seed = key
        .to_string()
        .bytes()
        .fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    interval.min(SPREAD) * (seed % 100) / 100
}

/// Adler-32 over the tags, a line each: Flux shows such a number.
fn checksum(tags: &[String]) -> String {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in tags.iter().flat_map(|tag| tag.bytes().chain([b'\n'])) {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    ((b << 16) | a).to_string()
}

fn parse(repository: &ImageRepository) -> Result<Repository, Failure> {
    Repository::parse(&repository.image).map_err(|error| {
        Failure::new(Step::Scan, "ImageURLInvalid", error.to_string())
            .hint(error.hint())
            .retry(Retry::Never)
    })
}

fn failed(error: RegistryError) -> Failure {
    use RegistryError::{CredentialsMissing, CredentialsRefused, Denied};
    let reason = match &error {
        CredentialsMissing { .. } | CredentialsRefused { .. } | Denied { .. } => {
            "AuthenticationFailed"
        }
        _ => "ReadOperationFailed",
    };
    let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
    Failure::new(Step::Scan, reason, error.to_string()).hint(error.hint()).retry(retry)
}

/// The bytes of a Secret's values.
type Bytes = BTreeMap<String, Vec<u8>>;

fn bytes(data: &Data) -> Bytes {
    data.iter().map(|(key, value)| (key.clone(), value.expose().to_vec())).collect()
}

fn unusable(namespace: &str, name: &str, cause: &str) -> Failure {
    Failure::new(Step::Scan, "AuthenticationFailed", format!("Secret {namespace}/{name}: {cause}"))
}

async fn wanted(connection: &Connection, namespace: &str, name: &str) -> Result<Bytes, Failure> {
    let data = secret(connection, namespace, name).await?;
    let data = data.ok_or_else(|| {
        let hint = "create it, or seal it in the flux-config repository".to_owned();
        unusable(namespace, name, "it does not exist").hint(Some(hint)).retry(Retry::Soon)
    })?;
    Ok(bytes(&data))
}

fn docker(namespace: &str, name: &str, data: &Bytes) -> Result<DockerConfig, Failure> {
    DockerConfig::from_secret(data).map_err(|error| unusable(namespace, name, &error.to_string()))
}

/// The credentials of all pull Secrets of a ServiceAccount; one that is not there counts for
/// nothing, as for the kubelet.
async fn pull_secrets(
    connection: &Connection,
    namespace: &str,
    account: &str,
) -> Result<Option<DockerConfig>, Failure> {
    let found = read(connection, "ServiceAccount", namespace, account).await?;
    let found = found.ok_or_else(|| {
        let cause = format!("ServiceAccount {namespace}/{account} does not exist");
        Failure::new(Step::Scan, "AuthenticationFailed", cause).retry(Retry::Soon)
    })?;
    let named = found.get("imagePullSecrets").and_then(Value::as_array).into_iter().flatten();
    let mut all: Option<DockerConfig> = None;
    for name in named.filter_map(|secret| secret.get("name").and_then(Value::as_str)) {
        let Some(data) = secret(connection, namespace, name).await? else { continue };
        let read = docker(namespace, name, &bytes(&data))?;
        all = Some(match all {
            Some(first) => first.merge(read),
            None => read,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    #[test]
    fn a_scan_after_a_start_waits_for_its_interval_and_never_long() {
        let key = |name: &str| Key::new(Kind::ImageRepository, "n", name);
        let hour = Duration::from_secs(3600);
        assert_eq!(put_off(&key("a"), hour, 600_000), Duration::from_secs(3000));
        let spread: Vec<Duration> =
            (0..50).map(|n| put_off(&key(&format!("r{n}")), hour, 7_200_000)).collect();
        assert!(spread.iter().all(|pause| *pause < SPREAD));
        let early = spread.iter().filter(|pause| **pause < SPREAD / 2).count();
        assert!((10..40).contains(&early), "they are spread: {early} of 50 in the first half");
        assert!(put_off(&key("a"), hour, -5) < SPREAD, "the clock was put back");
        assert!(put_off(&key("a"), Duration::from_secs(10), 20_000) <= Duration::from_secs(10));
    }

    #[test]
    fn excluded_tags_are_not_stored_and_the_others_stand_in_falling_order() {
        let tags = ["v1", "v2", "sha256-0.sig", "v10-rc", "nightly"].map(str::to_owned).to_vec();
        let stored = |patterns: &[&str]| {
            let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern).expect("sound"));
            kept(tags.clone(), &patterns.collect::<Vec<_>>())
        };
        assert_eq!(stored(&[]), ["v2", "v10-rc", "v1", "sha256-0.sig", "nightly"]);
        assert_eq!(stored(&[r"^.*\.sig$"]), ["v2", "v10-rc", "v1", "nightly"]);
        // Any of them, anywhere in the tag, as in Go.
        assert_eq!(stored(&["rc", "^night", "sig"]), ["v2", "v1"]);
    }

    #[test]
    fn a_checksum_is_adler_32() {
        assert_eq!(checksum(&["Wikipedia".to_owned()]), (0x1588_03a2_u32).to_string());
        assert_ne!(checksum(&["a".into(), "b".into()]), checksum(&["b".into(), "a".into()]));
    }
}
