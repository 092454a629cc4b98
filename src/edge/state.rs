//! Pure: what must be known of the edge after a restart. It holds no secret.
//!
//! It is one note in the database. All of it can be lost: the tunnel is found again by its name and
//! suffix, the records by their comment and target, and routes that nobody remembers are named and
//! left alone.

use super::rules::Rules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Tunnels that were used before and are remembered, so that records that point at them are known.
const FORMER: usize = 8;

/// The note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Base of the API that the rest belongs to.
    pub url: String,
    /// Account id.
    pub account: Option<String>,
    /// Zones that records were made in.
    pub zones: Vec<Zoned>,
    /// The tunnel.
    pub tunnel: Option<Stored>,
    /// Ids of tunnels that were ours and are gone.
    pub former: Vec<String>,
    /// Rules of ours that the tunnel's configuration has, or may have.
    #[serde(rename = "hosts")]
    pub rules: Rules,
    /// Tunnels that are not used any more and may have something of ours.
    pub left: Vec<Left>,
    /// Hosts that were public because an Ingress had them.
    pub discovered: BTreeSet<String>,
    /// Who has taken the edge down, until it is brought up again.
    pub down: Option<String>,
    /// Nothing is known of what stands at the provider: it is to be looked for by its name.
    pub unsure: bool,
}

/// A tunnel that was used before: one of ours in another account, or an adopted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Account id.
    pub account: String,
    /// The tunnel.
    pub tunnel: Stored,
    /// Rules of ours in it.
    pub rules: Rules,
}

/// A zone by id and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Zoned {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The domain.
    pub name: String,
}

/// A tunnel that is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// A UUID.
    pub id: String,
    /// Its name when it was found or made.
    pub name: String,
    /// True when somebody else made it.
    pub adopted: bool,
}

impl State {
    /// True when there may be something of ours at the provider.
    pub fn stands(&self) -> bool {
        self.tunnel.is_some() || !self.zones.is_empty() || !self.left.is_empty()
    }

    /// The zones that the configuration has, by name or id, and those that have left it.
    pub fn zones_by(&self, said: &[String]) -> (Vec<Zoned>, Vec<Zoned>) {
        let has = |zone: &Zoned| said.contains(&zone.id) || said.contains(&zone.name);
        self.zones.iter().cloned().partition(has)
    }

    /// Takes a tunnel in place of the one before, which is remembered by its id, and for what of
    /// ours may stand in it.
    pub fn take(&mut self, account: &str, tunnel: Stored) {
        let id = tunnel.id.clone();
        let (before, home) =
            (self.tunnel.replace(tunnel), self.account.replace(account.to_owned()));
        if let Some(before) = before.filter(|before| before.id != id) {
            self.remember(before.id.clone());
            let rules = std::mem::take(&mut self.rules);
            let home = home.unwrap_or_else(|| account.to_owned());
            // One of ours in the same account is replaced only once it is gone.
            let stands = if before.adopted { !rules.is_empty() } else { home != account };
            if stands {
                self.left.push(Left { account: home, tunnel: before, rules });
                let surplus = self.left.len().saturating_sub(FORMER);
                self.left.drain(..surplus);
            }
        }
        if let Some(at) = self.left.iter().position(|left| left.tunnel.id == id) {
            // It is used again.
            self.rules.add(self.left.remove(at).rules);
        }
    }

    /// Remembers the id of a tunnel that is gone.
    pub fn remember(&mut self, id: String) {
        if !self.former.contains(&id) {
            self.former.push(id);
        }
        let surplus = self.former.len().saturating_sub(FORMER);
        self.former.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::routes::Route;

    fn stored(id: &str) -> Stored {
        Stored { id: id.into(), name: "home-0".into(), adopted: false }
    }

    fn rules() -> Rules {
        let (host, service) = ("a.b".to_owned(), "http://x".to_owned());
        Rules::of(&[Route { host, service, origin: serde_json::Value::Null }])
    }

    #[test]
    fn a_tunnel_that_is_replaced_is_remembered_and_its_rules_are_not() {
        let mut state = State { rules: rules(), ..State::default() };
        state.take("home", stored("one"));
        assert_eq!((state.former.len(), &state.rules), (0, &rules()));
        state.take("home", stored("one"));
        assert_eq!((state.former.len(), &state.rules), (0, &rules()), "the same again");
        state.take("home", stored("two"));
        assert_eq!(
            (state.former.as_slice(), &state.rules),
            (&["one".into()][..], &Rules::default())
        );
        assert_eq!(state.left, [], "it was gone");
        (0..20).for_each(|n| state.remember(n.to_string()));
        assert_eq!(state.former.len(), FORMER);
    }

    #[test]
    fn a_zone_is_configured_by_its_name_or_its_id() {
        let zone = |id: &str, name: &str| Zoned { id: id.into(), name: name.into() };
        let (one, two, three) = (zone("1", "a.b"), zone("2", "c.d"), zone("3", "e.f"));
        let zones = vec![one.clone(), two.clone(), three.clone()];
        let state = State { zones, ..State::default() };
        let said = ["a.b".to_owned(), "3".to_owned()];
        assert_eq!(state.zones_by(&said), (vec![one, three], vec![two]));
    }

    #[test]
    fn what_may_stand_in_another_account_or_an_adopted_tunnel_is_remembered_until_it_is_used_again()
    {
        for (adopted, account) in [(false, "other"), (true, "home"), (true, "other")] {
            let mut state = State { rules: rules(), ..State::default() };
            let before = Stored { adopted, ..stored("one") };
            state.take("home", before.clone());
            state.take(account, stored("two"));
            let left = Left { account: "home".into(), tunnel: before.clone(), rules: rules() };
            assert_eq!((state.left.as_slice(), &state.rules), (&[left][..], &Rules::default()));
            state.take("home", before);
            assert_eq!(state.rules, rules());
            assert!(state.left.iter().all(|left| left.tunnel.id == "two"));
        }
    }
}
