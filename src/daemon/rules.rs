//! What the API server makes of an object may change without anybody touching the object: another
//! webhook fills in or refuses other things, a CustomResourceDefinition knows other fields.
//!
//! No watch of the objects tells of that, a comparison does. So the definitions and the webhook
//! configurations are watched themselves, whoever owns them, and of these only the generation
//! counts: it moves with the spec. Once they have been left alone for a while, since an installation
//! changes a dozen of them, what they concern is compared at the pace of the daily comparison.
//!
//! In a cluster that others share with us their webhooks come and go all day: there the daily
//! comparison has to do. A changed version of the server needs no look of its own: a server that was
//! restarted is followed by a comparison anyway.

use crate::cluster::Resource;
use crate::observe::{Event, Observer, Seen};
use crate::render::ObjectId;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Without another change for so long, the installation is over; but no longer than this in all.
const SETTLED: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// Least time between two comparisons at first, and at last: it doubles while changes go on, as they
/// do where two controllers write one configuration by turns.
const BETWEEN: Duration = Duration::from_secs(60);
const SELDOM: Duration = Duration::from_secs(3600);

const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "CustomResourceDefinition");
const WEBHOOKS: &str = "admissionregistration.k8s.io";

/// Whom a change concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// Nobody can tell which objects a webhook is asked about.
    All,
    /// The objects of these API groups.
    Groups(BTreeSet<String>),
}

impl Concerned {
    /// Whether an object is to be compared.
    pub fn has(&self, id: &ObjectId) -> bool {
        match self {
            Concerned::All => true,
            Concerned::Groups(groups) => groups.contains(&id.group),
        }
    }
}

/// What has changed since the last comparison.
struct Changed {
    whom: Concerned,
    first: Instant,
    last: Instant,
}

impl Changed {
    fn due(&self) -> Instant {
        (self.last + SETTLED).min(self.first + LONGEST)
    }
}

/// Definitions and webhook configurations.
#[derive(Default)]
pub struct Rules {
    /// uid and generation: what was replaced begins to count anew.
    generations: HashMap<ObjectId, (String, u64)>,
    changed: Option<Changed>,
    /// The last comparison, and the least time from it to the next.
    last: Option<(Instant, Duration)>,
}

impl Rules {
    /// Takes in what a watch saw of any object.
    pub fn see(&mut self, seen: &Seen, now: Instant) {
        let id = &seen.id;
        let definition = (id.group.as_str(), id.kind.as_str()) == DEFINITIONS;
        if !definition && id.group != WEBHOOKS {
            return;
        }
        let generation = seen.metadata.pointer("/metadata/generation").and_then(Value::as_u64);
        let uid = seen.metadata.pointer("/metadata/uid").and_then(Value::as_str);
        let generation = generation.map(|number| (uid.unwrap_or_default().to_owned(), number));
        let before = match (seen.event, &generation) {
            (Event::Deleted, _) => self.generations.remove(id),
            (_, Some(generation)) => self.generations.insert(id.clone(), generation.clone()),
            (_, None) => return,
        };
        let changed = match (seen.event, &before) {
            // A definition takes its objects along.
            (Event::Deleted, _) => before.is_some() && !definition,
            // Of a new definition there is no object yet, and what was listed is not known to be new.
            (Event::Added, None) => !definition,
            (_, None) => false,
            (_, Some(_)) => before != generation,
        };
        if changed {
            let group = id.name.split_once('.').map(|(_, group)| group.to_owned());
            self.change(group.filter(|_| definition), now);
        }
    }

    fn change(&mut self, group: Option<String>, now: Instant) {
        let nobody = Concerned::Groups(BTreeSet::new());
        let changed = self.changed.get_or_insert(Changed { whom: nobody, first: now, last: now });
        changed.last = now;
        match (&mut changed.whom, group) {
            (Concerned::Groups(groups), Some(group)) => drop(groups.insert(group)),
            (whom, None) => *whom = Concerned::All,
            (Concerned::All, Some(_)) => {}
        }
    }

    /// Whom to compare now.
    pub fn due(&mut self, now: Instant) -> Option<Concerned> {
        if self.wake().is_none_or(|at| at > now) {
            return None;
        }
        let next = match self.last {
            Some((at, between)) if now < at + between * 2 => (between * 2).min(SELDOM),
            _ => BETWEEN,
        };
        self.last = Some((now, next));
        self.changed.take().map(|changed| changed.whom)
    }

    /// Everything is compared anyway.
    pub fn give_up(&mut self) {
        self.changed = None;
    }

    /// When to go round without any event.
    pub fn wake(&self) -> Option<Instant> {
        let due = self.changed.as_ref()?.due();
        Some(self.last.map_or(due, |(at, between)| due.max(at + between)))
    }
}

/// Has changes of all definitions and webhook configurations told.
pub fn follow(observer: &Observer) {
    let resource = |group: &str, kind: &str, plural: &str| Resource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        namespaced: false,
    };
    for resource in [
        resource(DEFINITIONS.0, DEFINITIONS.1, "customresourcedefinitions"),
        resource(WEBHOOKS, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        resource(WEBHOOKS, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ] {
        observer.watch_all(&resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Gate;
    use serde_json::json;
    use std::sync::Arc;

    fn seen(event: Event, (group, kind): (&str, &str), name: &str, generation: u64) -> Seen {
        let metadata = json!({"metadata": {"name": name, "generation": generation}});
        Seen {
            id: ObjectId {
                namespace: String::new(),
                name: name.into(),
                group: group.into(),
                kind: kind.into(),
            },
            api_version: "v1".into(),
            event,
            gate: Gate::of(&metadata),
            metadata: Arc::new(metadata),
        }
    }

    const HOOK: (&str, &str) = (WEBHOOKS, "MutatingWebhookConfiguration");

    #[test]
    fn a_definition_concerns_its_group_and_only_its_generation_counts() {
        let (mut rules, now) = (Rules::default(), Instant::now());
        let games = "games.example.org";
        rules.see(&seen(Event::Listed, DEFINITIONS, games, 1), now);
        rules.see(&seen(Event::Modified, DEFINITIONS, games, 1), now);
        rules.see(&seen(Event::Added, DEFINITIONS, "new.example.com", 1), now);
        rules.see(&seen(Event::Modified, ("apps", "Deployment"), "x", 2), now);
        assert_eq!(rules.wake(), None);
        rules.see(&seen(Event::Modified, DEFINITIONS, games, 2), now);
        assert_eq!(rules.due(now), None, "more may follow");
        let whom = rules.due(now + SETTLED).expect("it has settled");
        let id = |group| seen(Event::Added, (group, "Game"), "x", 1).id;
        assert!(whom.has(&id("example.org")) && !whom.has(&id("example.com")));
        assert_eq!(rules.due(now + SETTLED), None, "once");
        rules.see(&seen(Event::Deleted, DEFINITIONS, games, 2), now);
        assert_eq!(rules.wake(), None, "its objects are gone");
    }

    #[test]
    fn a_webhook_that_comes_changes_or_goes_concerns_everybody() {
        let now = Instant::now();
        for (event, generation) in [(Event::Modified, 2), (Event::Listed, 2), (Event::Deleted, 1)] {
            let mut rules = Rules::default();
            rules.see(&seen(Event::Listed, HOOK, "h", 1), now);
            rules.see(&seen(event, HOOK, "h", generation), now);
            assert_eq!(rules.due(now + SETTLED), Some(Concerned::All), "{event:?}");
        }
        let mut rules = Rules::default();
        rules.see(&seen(Event::Listed, HOOK, "there", 1), now);
        assert_eq!(rules.wake(), None);
        rules.see(&seen(Event::Added, HOOK, "new", 1), now);
        assert_eq!(rules.wake(), Some(now + SETTLED));
        rules.give_up();
        assert_eq!(rules.wake(), None, "everything is compared anyway");
    }

    #[test]
    fn an_installation_is_waited_for_but_not_for_ever_and_what_goes_on_is_followed_ever_less() {
        let (mut rules, start) = (Rules::default(), Instant::now());
        rules.see(&seen(Event::Listed, HOOK, "h", 0), start);
        let mut compared = Vec::new();
        for second in 0..2000 {
            let now = start + Duration::from_secs(second);
            if second.is_multiple_of(5) {
                rules.see(&seen(Event::Modified, HOOK, "h", second + 1), now);
            }
            if rules.due(now).is_some() {
                compared.push(second);
            }
        }
        assert_eq!(compared, [60, 125, 245, 485, 965, 1925]);
    }
}
