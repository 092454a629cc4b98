//! Pure: event × now → effects, and when to look again (Flux: retries).
//!
//! Triggers collapse: an item is idle with at most one due time, the earliest, or running with at
//! most one reason to run again. A dependency that becomes ready starts its dependents at once.

use super::depends::{cycles, unmet};
use super::{Condition, Graph, Item, Phase, Ready, Time};
use crate::flux::{ImageRepository, Key, Kustomization, Object};
use crate::history::{Choice, Trigger};
use crate::pipeline::{
    Automated, Chosen, Failure, Outcome, Report, Retry, Revision, Scanned, WorkOrders,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What happened.
pub enum Event {
    /// A source was asked: a new revision, none (`Ok(None)`), or a failure.
    Polled(Key, Result<Option<Revision>, Failure>),
    /// A source's mirror was opened; its last good revision, if there is one on disk.
    Restored(Key, Option<Revision>),
    /// A Kustomization has rendered a revision and these are its work orders.
    Rendered(Key, WorkOrders),
    /// A run of a Kustomization ended.
    Finished(Key, Box<Report>),
    /// Somebody or something asks for a run, this many milliseconds from now.
    Request(Key, Trigger, Time),
    /// Stopped by the host (`Some(reason)`) or released (`None`).
    Suspend(Key, Option<String>),
    /// A held end of many children was confirmed, by its digest.
    Agree(String),
    /// The API server answers again: everything that failed for it is tried at once.
    ClusterBack,
    /// Every Kustomization is to compare its objects with the cluster.
    Verify,
    /// A registry was asked for the tags of a repository.
    Scanned(Key, Result<Scanned, Failure>),
    /// A policy has looked at the tags.
    Chose(Key, Box<Chosen>),
    /// An automation has looked at the files, and pushed what it replaced.
    Automated(Key, Result<Automated, Failure>),
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Ask a source.
    Poll(Key),
    /// Run a Kustomization on a revision of its source.
    Run {
        /// The Kustomization.
        key: Key,
        /// Why.
        trigger: Trigger,
        /// Its source, with aliases resolved.
        source: Key,
        /// The source's revision.
        revision: Revision,
    },
    /// Stop waiting, for bases or for health: something newer is there, or a suspend.
    Cancel(Key),
    /// A Kustomization left Git: delete what it owned, as its policy says.
    Finalize {
        /// As it was last specified.
        kustomization: Box<Kustomization>,
        /// True when everything is left in place.
        orphan: bool,
        /// The revision that no longer declares it, when that is known.
        revision: Option<Revision>,
    },
    /// A source, or an image object, left Git.
    Forget(Key),
    /// List the tags of an image repository.
    Scan {
        /// The repository.
        key: Key,
        /// Why: at the start what is stored may do.
        trigger: Trigger,
    },
    /// Choose among stored tags.
    Choose {
        /// The policy.
        key: Key,
        /// Its repository.
        repository: Box<ImageRepository>,
    },
    /// Replace what policies have chosen.
    Automate {
        /// The automation.
        key: Key,
        /// Its source, with aliases resolved.
        source: Key,
        /// The source's revision.
        revision: Revision,
        /// By policy, `namespace/name`: what is chosen.
        choices: BTreeMap<String, Choice>,
        /// Every policy that is declared, also by others: no marker of theirs is a mistake.
        policies: BTreeSet<String>,
    },
}

/// First delay of a back-off; it doubles up to the limit.
const FIRST_RETRY: Duration = Duration::from_millis(750);
/// Longest delay of a failing source, as in Flux.
const SOURCE_RETRY: Duration = Duration::from_secs(15 * 60);
/// Shortest time between two runs or polls that nothing else asks for: `interval: 0s` is no loop.
pub(super) const LEAST: Duration = Duration::from_secs(1);
/// Longest delay while the API server is away; its return ends the wait at once.
const CLUSTER_RETRY: Duration = Duration::from_secs(30);

impl Graph {
    /// Takes in one event. The caller then asks [`Graph::due`].
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        match event {
            Event::Restored(key, revision) => {
                if let Some(item) = self.items.get_mut(&key) {
                    item.phase = Phase::Idle { due: Some((now, Trigger::Boot)) };
                }
                revision.map_or_else(Vec::new, |revision| self.new_revision(&key, revision, now))
            }
            Event::Polled(key, result) => self.polled(&key, result, now),
            Event::Rendered(key, orders) => self.register(&key, orders, now),
            Event::Finished(key, report) => self.finished(&key, report, now),
            Event::Request(key, trigger, delay) => {
                let key = self.resolve(&key);
                if let Some(item) = self.items.get_mut(&key) {
                    item.request(now + delay, trigger);
                }
                Vec::new()
            }
            Event::Suspend(key, reason) => {
                let key = self.resolve(&key);
                if let Some(item) = self.items.get_mut(&key) {
                    if reason.is_none() && item.suspended.is_some() {
                        item.request(now, Trigger::Resume);
                    }
                    item.suspended.clone_from(&reason);
                }
                let runs = |item: &Item| matches!(item.phase, Phase::Running { .. });
                let stops = reason.is_some() && self.items.get(&key).is_some_and(runs);
                match reason {
                    Some(reason) => self.preset.insert(key.to_string(), reason),
                    None => self.preset.remove(&key.to_string()),
                };
                // What waits, for a base or for health, waits no longer.
                if stops { vec![Effect::Cancel(key)] } else { Vec::new() }
            }
            Event::Agree(digest) => {
                self.agree(&digest);
                self.release_prunes(now)
            }
            Event::Verify => {
                for item in self.items.values_mut() {
                    if matches!(item.object, Object::Kustomization(_)) && item.active() {
                        item.request(now, Trigger::Verify);
                    }
                }
                Vec::new()
            }
            Event::ClusterBack => {
                for item in self.items.values_mut() {
                    let soon = item.failure.as_ref().is_some_and(|f| f.retry == Retry::Soon);
                    if soon && !matches!(item.object, Object::GitRepository(_)) {
                        item.request(now, Trigger::Retry);
                    }
                }
                Vec::new()
            }
            Event::Scanned(key, result) => {
                self.scanned(&key, result, now);
                Vec::new()
            }
            Event::Chose(key, chosen) => {
                self.chose(&key, *chosen, now);
                Vec::new()
            }
            Event::Automated(key, result) => {
                self.automated(&key, result, now);
                Vec::new()
            }
        }
    }

    /// Starts everything that is due and may start; the items are marked as running.
    pub fn due(&mut self, now: Time) -> Vec<Effect> {
        let due: Vec<(Key, Trigger)> = self
            .items
            .iter()
            .filter_map(|(key, item)| match &item.phase {
                Phase::Idle { due: Some((at, trigger)) } if *at <= now => {
                    Some((key.clone(), trigger.clone()))
                }
                _ => None,
            })
            .collect();
        due.into_iter().filter_map(|(key, trigger)| self.start(&key, trigger)).collect()
    }

    /// When the next item is due.
    pub fn wake(&self) -> Option<Time> {
        let due = self.items.values().filter_map(|item| match &item.phase {
            Phase::Idle { due: Some((at, _)) } => Some(*at),
            _ => None,
        });
        due.min()
    }

    fn start(&mut self, key: &Key, trigger: Trigger) -> Option<Effect> {
        let verdict = self.may_start(key);
        let item = self.items.get_mut(key)?;
        match verdict {
            Ok(effect) => {
                item.phase = Phase::Running { again: None };
                let stale = item.condition.status == Ready::False && item.failures == 0;
                if stale || item.condition.status == Ready::Unknown {
                    item.condition = Condition::new(Ready::Unknown, "Progressing", "reconciling");
                }
                Some(match effect {
                    Effect::Run { key, source, revision, .. } => {
                        Effect::Run { key, trigger, source, revision }
                    }
                    Effect::Scan { key, .. } => Effect::Scan { key, trigger },
                    other => other,
                })
            }
            Err(condition) => {
                item.wait(trigger);
                if let Some(condition) = condition {
                    item.condition = condition;
                }
                None
            }
        }
    }

    /// Whether an item may run now; the error is the condition that says why not.
    fn may_start(&self, key: &Key) -> Result<Effect, Option<Condition>> {
        let item = self.items.get(key).ok_or(None)?;
        if !item.active() {
            // Flux keeps the last condition of a suspended object.
            return Err(None);
        }
        let not = |reason: &str, message: String| {
            Err(Some(Condition::new(Ready::False, reason, message)))
        };
        if let Some(fields) = item.blocked() {
            let message = format!("{fields} is not supported yet, and ignoring it could do harm");
            return not("Unsupported", message);
        }
        let kustomization = match &item.object {
            Object::GitRepository(_) => return Ok(Effect::Poll(key.clone())),
            Object::ImageRepository(_) => {
                let (key, trigger) = (key.clone(), Trigger::Interval);
                return Ok(Effect::Scan { key, trigger });
            }
            Object::ImagePolicy(policy) => return self.may_choose(key, policy),
            Object::ImageUpdateAutomation(automation) => return self.may_automate(key, automation),
            Object::Kustomization(kustomization) => kustomization,
        };
        if item.condition.reason == "DependencyCycle" {
            return Err(None);
        }
        let source = self.resolve(&kustomization.source);
        let Some(from) = self.items.get(&source) else {
            return not("ArtifactFailed", format!("source {source} does not exist"));
        };
        let Some(revision) = from.revision.clone() else {
            return not("ArtifactFailed", format!("source {source} has no revision yet"));
        };
        let resolve = |key: &Key| self.resolve(key);
        match unmet(&self.items, kustomization, &source, &revision.id, resolve) {
            Some(why) => not("DependencyNotReady", why),
            None => {
                let trigger = Trigger::Interval;
                Ok(Effect::Run { key: key.clone(), trigger, source, revision })
            }
        }
    }

    fn polled(
        &mut self,
        key: &Key,
        result: Result<Option<Revision>, Failure>,
        now: Time,
    ) -> Vec<Effect> {
        let Some(item) = self.items.get_mut(key) else { return Vec::new() };
        let Object::GitRepository(source) = &item.object else { return Vec::new() };
        let interval = source.interval;
        match result {
            Ok(new) => {
                item.failures = 0;
                item.failure = None;
                settle(item, key, now, interval.max(LEAST));
                let revision = new.or_else(|| item.revision.clone());
                let Some(revision) = revision else { return Vec::new() };
                let message = format!("stored artifact for revision '{}'", revision.id);
                item.condition = Condition::new(Ready::True, "Succeeded", message);
                self.new_revision(key, revision, now)
            }
            Err(failure) => {
                item.failures = item.failures.saturating_add(1);
                let limit = SOURCE_RETRY.min(interval.max(Duration::from_secs(30)));
                item.condition = Condition::new(Ready::False, &failure.reason, failure.to_string());
                item.failure = Some(failure);
                let delay = back_off(item.failures, limit);
                settle(item, key, now, delay);
                // Readers without any revision say why they wait.
                self.wake_waiting(now, "ArtifactFailed");
                Vec::new()
            }
        }
    }

    fn new_revision(&mut self, key: &Key, revision: Revision, now: Time) -> Vec<Effect> {
        let Some(item) = self.items.get_mut(key) else { return Vec::new() };
        if item.revision.as_ref().is_some_and(|old| old.id == revision.id) {
            return Vec::new();
        }
        item.revision = Some(revision);
        self.values_moved(key, now);
        let mut effects = Vec::new();
        for reader in self.readers(key) {
            let Some(item) = self.items.get_mut(&reader) else { continue };
            if matches!(item.phase, Phase::Running { .. }) {
                effects.push(Effect::Cancel(reader.clone()));
            }
            item.request(now, Trigger::Revision);
        }
        effects
    }

    fn finished(&mut self, key: &Key, report: Box<Report>, now: Time) -> Vec<Effect> {
        let report = *report;
        // Also one that is leaving: another parent may take it up again.
        let known = match self.items.get_mut(key) {
            Some(item) => Some(item),
            None => self.leaving.get_mut(key),
        };
        let Some(item) = known else { return Vec::new() };
        let Object::Kustomization(kustomization) = &item.object else { return Vec::new() };
        let (interval, retry) = (kustomization.interval, kustomization.retry_interval);
        // A run that was stopped before it had rendered has learnt nothing of these.
        if !(matches!(report.outcome, Outcome::Cancelled) && report.objects.is_none()) {
            item.warnings = report.warnings;
            item.others = report.others;
        }
        // What failed before it came to that knows nothing of what waits.
        if report.judged {
            item.held = report.held;
            item.prune_pending = false;
        }
        item.prune_pending |= report.prune_pending;
        if let Some(objects) = report.objects {
            item.objects = objects;
        }
        match report.outcome {
            Outcome::Ready(message) => {
                item.failures = 0;
                item.failure = None;
                item.revision = Some(report.revision);
                settle(item, key, now, interval.max(LEAST));
                let condition = Condition::new(Ready::True, "ReconciliationSucceeded", message);
                self.set_condition(key, condition, now);
            }
            Outcome::Failed(failure) => {
                item.failures = item.failures.saturating_add(1);
                let delay = match failure.retry {
                    Retry::Soon => back_off(item.failures, CLUSTER_RETRY.min(retry)),
                    Retry::Interval => retry.max(LEAST),
                    Retry::Never => interval.max(LEAST),
                };
                settle(item, key, now, delay);
                let condition = Condition::new(Ready::False, &failure.reason, failure.to_string());
                item.failure = Some(failure);
                self.set_condition(key, condition, now);
            }
            Outcome::Cancelled => {
                settle(item, key, now, Duration::ZERO);
                // What is ready stays so, as in Flux: others may depend on it.
                if item.suspended.is_some() && item.condition.status != Ready::True {
                    let told = "stopped by the suspend, before its end";
                    let condition = Condition::new(Ready::Unknown, "Progressing", told);
                    self.set_condition(key, condition, now);
                }
            }
            Outcome::Adopted(adopted) => {
                // The repository states its own entry: its spec replaces the host's stand-in.
                item.object = Object::Kustomization(adopted.clone());
                self.root.kustomization = *adopted;
                item.phase = Phase::Idle { due: Some((now, Trigger::Revision)) };
            }
        }
        self.wake_automations(now);
        self.release_prunes(now)
    }

    /// Sets a condition, and wakes those that wait for it: that it is ready, or whatever else a
    /// `readyExpr` reads in it. Who has to wait on costs a look and no run.
    fn set_condition(&mut self, key: &Key, condition: Condition, now: Time) {
        let Some(item) = self.items.get_mut(key) else { return };
        item.condition = condition;
        self.wake_waiting(now, "DependencyNotReady");
    }

    pub(super) fn wake_waiting(&mut self, now: Time, reason: &str) {
        for item in self.items.values_mut() {
            if item.condition.reason == reason && !matches!(item.object, Object::GitRepository(_)) {
                item.request(now, Trigger::Dependency);
            }
        }
    }

    /// Names the cycles of `dependsOn`; their members do not run until Git cuts the circle.
    pub(super) fn name_cycles(&mut self, now: Time) {
        let none: &[crate::flux::Dependency] = &[];
        let edges = |key: &Key| match self.items.get(key).map(|item| &item.object) {
            Some(Object::Kustomization(kustomization)) => kustomization.depends_on.as_slice(),
            _ => none,
        };
        let cycles = cycles(edges, self.items.keys().cloned());
        let caught: BTreeSet<&Key> = cycles.iter().flatten().collect();
        for (key, item) in &mut self.items {
            if item.condition.reason == "DependencyCycle" {
                item.condition = Condition::new(Ready::Unknown, "Progressing", "reconciling");
                if !caught.contains(key) {
                    item.request(now, Trigger::Dependency);
                }
            }
        }
        for cycle in cycles {
            let mut names: Vec<String> =
                cycle.iter().map(|key| format!("{}/{}", key.namespace, key.name)).collect();
            names.extend(names.first().cloned());
            let message = format!("dependsOn runs in a circle: {}", names.join(" -> "));
            for key in &cycle {
                if let Some(item) = self.items.get_mut(key) {
                    item.condition = Condition::new(Ready::False, "DependencyCycle", &message);
                }
            }
        }
    }
}

/// Ends a run: at once again if something arrived meanwhile, else after the delay.
pub(super) fn settle(item: &mut Item, key: &Key, now: Time, delay: Duration) {
    let again = match &item.phase {
        Phase::Running { again } => again.clone(),
        Phase::Idle { .. } => None,
    };
    let trigger = if item.failures > 0 { Trigger::Retry } else { Trigger::Interval };
    item.phase = Phase::Idle {
        due: Some(match again {
            Some((at, trigger)) => (at.max(now), trigger),
            None => (now + jitter(key, delay), trigger),
        }),
    };
}

/// Delay ± 5 %, the same for one key at all times, so that items do not run in one burst.
fn jitter(key: &Key, delay: Duration) -> Time {
    let millis = Time::try_from(delay.as_millis()).unwrap_or(Time::MAX / 2);
    let seed = key
        .to_string()
        .bytes()
        .fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let span = millis / 10;
    if span == 0 { millis } else { millis - span / 2 + seed % span }
}

/// Delay after so many failures in a row.
pub(super) fn back_off(failures: u32, limit: Duration) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(limit)
}

#[cfg(test)]
mod tests;
