//! Pure: which rules of a tunnel's configuration we have written, by host and service.
//!
//! A host alone does not make a rule ours: its owner may have pointed it elsewhere since. So the
//! services are noted too, all of them that may stand there while a write is under way.

use super::routes::Route;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Services by host. A host without any is known from a note that had hosts alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Noted")]
pub struct Rules(BTreeMap<String, BTreeSet<String>>);

/// A note as it was and as it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Noted {
    Hosts(Vec<String>),
    Rules(BTreeMap<String, BTreeSet<String>>),
}

impl From<Noted> for Rules {
    fn from(noted: Noted) -> Self {
        Rules(match noted {
            Noted::Hosts(hosts) => hosts.into_iter().map(|host| (host, BTreeSet::new())).collect(),
            Noted::Rules(rules) => rules,
        })
    }
}

impl Rules {
    /// What is about to be written.
    pub fn of(routes: &[Route]) -> Self {
        let one = |route: &Route| (route.host.clone(), [route.service.clone()].into());
        Rules(routes.iter().map(one).collect())
    }

    /// Adds others to these. A host that is known without a service, on either side, stays so: only
    /// what has been written says that nothing else of ours stands there.
    pub fn add(&mut self, others: Rules) {
        for (host, services) in others.0 {
            match self.0.entry(host) {
                Entry::Vacant(none) => {
                    none.insert(services);
                }
                Entry::Occupied(mut known) if services.is_empty() => known.get_mut().clear(),
                Entry::Occupied(mut known) if !known.get().is_empty() => {
                    known.get_mut().extend(services);
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// True for a host that we have written a rule for.
    pub fn host(&self, host: &str) -> bool {
        self.0.contains_key(host)
    }

    /// True for a rule that is as we have written it.
    pub fn rule(&self, host: &str, service: &str) -> bool {
        self.0.get(host).is_some_and(|known| known.is_empty() || known.contains(service))
    }

    /// The hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_known_by_host_and_service_and_from_an_older_note_by_host_alone() {
        let route = |host: &str, service: &str| Route {
            host: host.to_owned(),
            service: service.to_owned(),
            origin: serde_json::Value::Null,
        };
        let mut rules = Rules::of(&[route("a.x", "http://one")]);
        rules.add(Rules::of(&[route("a.x", "http://two"), route("b.x", "http://two")]));
        let text = serde_json::to_string(&rules).expect("plain data");
        assert_eq!(serde_json::from_str::<Rules>(&text).expect("its own"), rules);
        let known = [("a.x", "http://one"), ("a.x", "http://two"), ("a.x", "http://theirs")]
            .map(|(host, service)| rules.rule(host, service));
        assert_eq!(
            (known, rules.host("b.x"), rules.host("c.x")),
            ([true, true, false], true, false)
        );
        let older: Rules = serde_json::from_str(r#"["a.x"]"#).expect("an older note");
        assert!(older.rule("a.x", "http://any") && !older.host("b.x"));
        let mut before = older.clone();
        before.add(Rules::of(&[route("a.x", "http://one")]));
        assert_eq!(before, older, "a write that is still to come narrows nothing");
        rules.add(older);
        assert!(rules.rule("a.x", "http://any"), "nor does one before");
    }
}
