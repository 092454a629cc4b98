//! Pure: image items: what a scan, a choice and a commit lead to (Flux: image automation).
//!
//! A scan that finds other tags asks the policies of that repository; a policy whose choice is
//! another one asks the automations of its namespace that select it, a second later, so that
//! policies which change together make one commit; a commit that was pushed asks the sources that
//! follow its branch. Each waits for an event otherwise: policies have no interval, unless they
//! follow a digest, and an automation that finds every value in place costs no request.

use super::schedule::{LEAST, back_off, settle};
use super::{Condition, Effect, Graph, Item, Phase, Ready, Time, normal_url};
use crate::flux::{
    DigestReflection, GitReference, ImagePolicy, ImageUpdateAutomation, Key, Kind, Object,
};
use crate::history::{Choice, Trigger};
use crate::pipeline::{Automated, Chosen, Failure, Pushed, Retry, Scanned};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after a new choice a commit is made: what was scanned together comes together.
const TOGETHER: Time = 1000;

/// Longest delay of an item that fails, as in Flux.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Pause of a policy that only a person can help.
const LATER: Duration = Duration::from_secs(10 * 60);

/// Why an item waits for another one.
const WAITS: &str = "DependencyNotReady";

/// Whether an item may start, or the condition that says why not.
type Verdict = Result<Effect, Option<Condition>>;

fn waits(status: Ready, message: String) -> Verdict {
    Err(Some(Condition::new(status, WAITS, message)))
}

/// True for one that has said nothing yet and will: nothing is decided without it.
fn untold(item: &Item) -> bool {
    item.active() && item.blocked().is_none() && item.condition.status == Ready::Unknown
}

impl Graph {
    /// Whether a policy may choose now: once its repository has said what it knows.
    pub(super) fn may_choose(&self, key: &Key, policy: &ImagePolicy) -> Verdict {
        let repository = repository_of(policy);
        let Some(item) = self.items.get(&repository) else {
            return waits(Ready::False, format!("{repository} does not exist"));
        };
        if untold(item) {
            return waits(Ready::Unknown, format!("{repository} was not scanned yet"));
        }
        let Object::ImageRepository(repository) = &item.object else { return Err(None) };
        let (key, repository) = (key.clone(), repository.clone());
        Ok(Effect::Choose { key, repository })
    }

    /// Whether an automation may look for values to replace.
    pub(super) fn may_automate(&self, key: &Key, automation: &ImageUpdateAutomation) -> Verdict {
        let source = self.resolve(&automation.source);
        let Some(from) = self.items.get(&source) else {
            return waits(Ready::False, format!("source {source} does not exist"));
        };
        let Some(revision) = from.revision.clone() else {
            return waits(Ready::False, format!("source {source} has no revision yet"));
        };
        // A commit may change the values and the rules for them at once: the new rules count.
        let own = self.items.get(key);
        let policies = self.selected(automation).map(|(_, item)| item);
        let repositories = self.selected(automation).filter_map(|(_, item)| match &item.object {
            Object::ImagePolicy(policy) => self.items.get(&repository_of(policy)),
            _ => None,
        });
        let mut all = own.into_iter().chain(policies).chain(repositories);
        if let Some(parent) = all.find_map(|item| self.restating(item)) {
            return waits(Ready::Unknown, format!("{parent} is rendering a new revision"));
        }
        let mut choices = BTreeMap::new();
        for (policy, item) in self.selected(automation) {
            if untold(item) || matches!(item.phase, Phase::Running { .. }) {
                return waits(Ready::Unknown, format!("{policy} has not chosen yet"));
            }
            if let Some(choice) = &item.choice {
                choices.insert(name(policy), choice.clone());
            }
        }
        let declared = self.items.keys().filter(|key| key.kind == Kind::ImagePolicy);
        let policies = declared.map(name).collect();
        Ok(Effect::Automate { key: key.clone(), source, revision, choices, policies })
    }

    /// The Kustomization that is about to declare an item anew, if there is one.
    fn restating<'a>(&self, item: &'a Item) -> Option<&'a Key> {
        let parent = item.parent.as_ref()?;
        let above = self.items.get(parent)?;
        let Object::Kustomization(kustomization) = &above.object else { return None };
        let current = self.items.get(&self.resolve(&kustomization.source))?.revision.as_ref()?;
        let behind = above.attempted.as_deref() != Some(current.id.as_str());
        (behind && matches!(above.phase, Phase::Running { .. })).then_some(parent)
    }

    /// Wakes the automations that wait: a Kustomization has rendered, or given up.
    pub(super) fn wake_automations(&mut self, now: Time) {
        for item in self.items.values_mut() {
            let automation = matches!(item.object, Object::ImageUpdateAutomation(_));
            if automation && item.condition.reason == WAITS {
                item.request(now, Trigger::Dependency);
            }
        }
    }

    /// The policies that an automation takes its values from.
    fn selected<'a>(
        &'a self,
        automation: &'a ImageUpdateAutomation,
    ) -> impl Iterator<Item = (&'a Key, &'a Item)> {
        self.items.iter().filter(|(_, item)| selects(automation, &item.object))
    }

    /// Takes in what a registry listed.
    pub(super) fn scanned(&mut self, key: &Key, result: Result<Scanned, Failure>, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        let Object::ImageRepository(repository) = &item.object else { return };
        let interval = repository.interval.max(LEAST);
        let changed = match result {
            Ok(scanned) => {
                (item.failures, item.failure) = (0, None);
                item.objects = scanned.tags;
                settle(item, key, now, scanned.next.unwrap_or(interval));
                let Scanned { tags, checksum, changed, .. } = scanned;
                let message =
                    format!("successful scan: found {tags} tags with checksum {checksum}");
                item.condition = Condition::new(Ready::True, "Succeeded", message);
                changed
            }
            Err(failure) => {
                self.fails(key, failure, interval, now);
                false
            }
        };
        let reads = |item: &Item| match &item.object {
            Object::ImagePolicy(policy) => repository_of(policy) == *key,
            _ => false,
        };
        for item in self.items.values_mut().filter(|item| reads(item)) {
            if changed || item.condition.status != Ready::True {
                item.request(now, Trigger::Revision);
            }
        }
    }

    /// Takes in what a policy made of the tags.
    pub(super) fn chose(&mut self, key: &Key, chosen: Chosen, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        let Object::ImagePolicy(policy) = &item.object else { return };
        let (digest, interval) = (policy.digest, policy.interval.max(LEAST));
        let other = chosen.choice.as_ref().map(Choice::whole);
        let changed = other.is_some() && other != item.choice.as_ref().map(Choice::whole);
        if let Some(choice) = &chosen.choice {
            item.revision = Some(super::revision(&choice.tag));
        }
        item.choice = chosen.choice;
        item.warnings = chosen.notice.into_iter().collect();
        match chosen.result {
            Ok(message) => {
                (item.failures, item.failure) = (0, None);
                let follows = digest == DigestReflection::Always;
                rest(item, key, now, follows.then_some(interval));
                item.condition = Condition::new(Ready::True, "Succeeded", message);
            }
            Err(failure) if failure.reason == WAITS => {
                item.failure = None;
                rest(item, key, now, None);
                item.condition = Condition::new(Ready::False, WAITS, failure.cause);
            }
            Err(failure) => self.fails(key, failure, LATER, now),
        }
        let object = self.items.get(key).map(|item| item.object.clone());
        for item in self.items.values_mut() {
            let Object::ImageUpdateAutomation(automation) = &item.object else { continue };
            let concerned = object.as_ref().is_some_and(|policy| selects(automation, policy));
            if concerned && (changed || item.condition.reason == WAITS) {
                item.request(now + TOGETHER, Trigger::Revision);
            }
        }
    }

    /// Takes in what an automation did.
    pub(super) fn automated(&mut self, key: &Key, result: Result<Automated, Failure>, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        let Object::ImageUpdateAutomation(automation) = &item.object else { return };
        let interval = automation.interval.max(LEAST);
        match result {
            Ok(done) => {
                (item.failures, item.failure) = (0, None);
                item.warnings = done.warnings;
                item.condition = Condition::new(Ready::True, "Succeeded", done.message);
                settle(item, key, now, done.again.unwrap_or(interval).min(interval));
                if let Some(pushed) = done.pushed {
                    item.revision = Some(pushed.revision.clone());
                    self.hand_over(&pushed, now);
                }
            }
            Err(failure) => self.fails(key, failure, interval, now),
        }
    }

    /// Has every source asked that follows a branch which was pushed to: what hangs from it runs
    /// without waiting for a poll.
    fn hand_over(&mut self, pushed: &Pushed, now: Time) {
        for item in self.items.values_mut() {
            let Object::GitRepository(source) = &item.object else { continue };
            let follows = match &source.reference {
                GitReference::Branch(branch) => pushed.branches.contains(branch),
                GitReference::Name(name) => {
                    let branch = name.strip_prefix("refs/heads/");
                    branch.is_some_and(|branch| pushed.branches.iter().any(|b| b == branch))
                }
                _ => false,
            };
            if follows && normal_url(&source.url) == normal_url(&pushed.url) {
                item.request(now, Trigger::Revision);
            }
        }
    }

    /// A source has a new revision: the values in it may not be those that are chosen.
    pub(super) fn values_moved(&mut self, source: &Key, now: Time) {
        let reads = |graph: &Graph, item: &Item| match &item.object {
            Object::ImageUpdateAutomation(automation) => {
                graph.resolve(&automation.source) == *source
            }
            _ => false,
        };
        let readers: Vec<Key> =
            self.items.iter().filter(|(_, i)| reads(self, i)).map(|(key, _)| key.clone()).collect();
        for key in readers {
            if let Some(item) = self.items.get_mut(&key) {
                item.request(now, Trigger::Revision);
            }
        }
    }

    /// Everything of a policy or repository by name that `reconcile image` asks for: repositories,
    /// policies, automations, and the sources and Kustomizations that follow them.
    pub fn image_chain(&self, found: &[Key]) -> Vec<Key> {
        let mut repositories: Vec<Key> =
            found.iter().filter(|key| key.kind == Kind::ImageRepository).cloned().collect();
        let mut policies = Vec::new();
        for (key, item) in &self.items {
            let Object::ImagePolicy(policy) = &item.object else { continue };
            let repository = repository_of(policy);
            if found.contains(key) {
                policies.push(key.clone());
                repositories.push(repository);
            } else if found.contains(&repository) {
                policies.push(key.clone());
            }
        }
        let mut automations: Vec<Key> = Vec::new();
        for (key, item) in &self.items {
            let Object::ImageUpdateAutomation(automation) = &item.object else { continue };
            let of = |policy: &Key| {
                self.items.get(policy).is_some_and(|p| selects(automation, &p.object))
            };
            if found.contains(key) || policies.iter().any(of) {
                automations.push(key.clone());
            }
        }
        let urls: Vec<&str> = automations
            .iter()
            .filter_map(|key| match &self.items.get(key)?.object {
                Object::ImageUpdateAutomation(automation) => self.source(&automation.source),
                _ => None,
            })
            .map(|source| normal_url(&source.url))
            .collect();
        let sources = self.items.iter().filter(|(_, item)| match &item.object {
            Object::GitRepository(source) => urls.contains(&normal_url(&source.url)),
            _ => false,
        });
        let sources: Vec<Key> = sources.map(|(key, _)| key.clone()).collect();
        let readers = sources.iter().flat_map(|source| self.readers(source));
        let mut chain = [repositories, policies, automations].concat();
        chain.extend(readers);
        chain.extend(sources);
        chain.retain(|key| self.items.contains_key(key));
        chain.sort();
        chain.dedup();
        chain
    }

    /// Ends a try that failed: again after a back-off where that may help.
    fn fails(&mut self, key: &Key, failure: Failure, interval: Duration, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        item.failures = item.failures.saturating_add(1);
        let delay = match failure.retry {
            Retry::Soon => {
                back_off(item.failures, LONGEST.min(interval.max(Duration::from_secs(30))))
            }
            Retry::Interval | Retry::Never => interval,
        };
        item.condition = Condition::new(Ready::False, &failure.reason, failure.to_string());
        item.failure = Some(failure);
        settle(item, key, now, delay);
    }
}

/// Ends a run with the next one after a delay, or with none before something happens.
fn rest(item: &mut Item, key: &Key, now: Time, delay: Option<Duration>) {
    let again = matches!(item.phase, Phase::Running { again: Some(_) });
    settle(item, key, now, delay.unwrap_or_default());
    if delay.is_none() && !again {
        item.phase = Phase::Idle { due: None };
    }
}

/// `namespace/name`.
fn name(key: &Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// Key of a policy's repository.
fn repository_of(policy: &ImagePolicy) -> Key {
    let at = &policy.repository;
    Key::new(Kind::ImageRepository, &at.namespace, &at.name)
}

/// Whether an automation takes values from a policy: one of its namespace that it selects.
fn selects(automation: &ImageUpdateAutomation, object: &Object) -> bool {
    let Object::ImagePolicy(policy) = object else { return false };
    let selector = automation.policy_selector.as_ref();
    policy.namespace == automation.namespace
        && selector.is_none_or(|selector| selector.matches(&policy.labels))
}

#[cfg(test)]
mod tests;
