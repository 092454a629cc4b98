//! Pure: what must be known of the edge after a restart. It holds no secret.
//!
//! It is one note in the database. All of it can be lost: the tunnel is found again by its name and
//! suffix, the records by their comment and target, and routes that nobody remembers are named and
//! left alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Ids of deleted tunnels that are remembered, so that records that point at them are known.
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
    /// Hosts that the tunnel's configuration has, or may have, a rule of ours for.
    pub hosts: BTreeSet<String>,
    /// Who has taken the edge down, until it is brought up again.
    pub down: Option<String>,
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
        self.tunnel.is_some()
    }

    /// Takes a tunnel in place of the one before, which is remembered by its id.
    pub fn take(&mut self, tunnel: Stored) {
        let before = self.tunnel.replace(tunnel);
        let now = self.tunnel.as_ref().map(|tunnel| tunnel.id.clone());
        if let Some(before) = before.filter(|before| Some(&before.id) != now.as_ref()) {
            // An adopted one was never ours: records at it are known by the present id only.
            self.remember(before.id);
            self.hosts.clear();
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

    fn stored(id: &str) -> Stored {
        Stored { id: id.into(), name: "home-0".into(), adopted: false }
    }

    #[test]
    fn a_tunnel_that_is_replaced_is_remembered_and_its_hosts_are_not() {
        let mut state = State { hosts: ["a.b".to_owned()].into(), ..State::default() };
        state.take(stored("one"));
        assert_eq!((state.former.len(), state.hosts.len()), (0, 1));
        state.take(stored("one"));
        assert_eq!((state.former.len(), state.hosts.len()), (0, 1), "the same again");
        state.take(stored("two"));
        assert_eq!((state.former.clone(), state.hosts.len()), (vec!["one".to_owned()], 0));
        (0..20).for_each(|n| state.remember(n.to_string()));
        assert_eq!(state.former.len(), FORMER);
    }
}
