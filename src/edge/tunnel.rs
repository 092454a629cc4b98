//! Pure: which tunnel is used: ours, somebody else's by the operator's word, or one to be made.
//!
//! | known | found | `adopt: false` | `adopt: true` |
//! |---|---|---|---|
//! | ours by id | under our name | used | refused: withdraw ours first |
//! | ours by id | under another name with our suffix | renamed | refused |
//! | ours by id | without our suffix | refused: somebody took it | refused |
//! | adopted by id | alive, and the operator's name is the same | refused: withdraw first | used |
//! | nothing, or gone | one under our name | used, after a kill or a lost database | - |
//! | nothing, or gone | one under the operator's name | left alone | used |
//! | nothing, or gone | neither | made | refused: nothing to adopt |
//!
//! One that a file of its connector configures is refused where its routes are to be managed, as
//! nothing that is written would count; else it is used.

use super::state::Stored;
use super::wire::Tunnel;

/// The tunnel as the operator wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// The name in the configuration.
    pub name: &'a str,
    /// What stands for this machine, some hexadecimal digits.
    pub suffix: &'a str,
    /// Whether it is somebody else's.
    pub adopt: bool,
    /// Whether its routes are managed.
    pub routes: bool,
}

impl Wish<'_> {
    /// The name at the provider.
    pub fn full(&self) -> String {
        if self.adopt { self.name.to_owned() } else { format!("{}-{}", self.name, self.suffix) }
    }

    fn is_ours(&self, tunnel: &Tunnel) -> bool {
        tunnel.name.strip_suffix(self.suffix).is_some_and(|rest| rest.ends_with('-'))
    }
}

/// What is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is used as it is.
    Use(Tunnel),
    /// It is used under another name.
    Rename(Tunnel, String),
    /// There is none: one of this name is made.
    Create(String),
    /// None of ours, with the cause and what to do.
    Refuse(String, String),
}

/// Chooses. `stored` is the tunnel of the known id, `named` are those of the wished name.
pub fn select(
    wish: Wish<'_>,
    known: Option<&Stored>,
    stored: Option<Tunnel>,
    named: &[Tunnel],
) -> Choice {
    let lives = stored.filter(Tunnel::lives);
    let choice = match (known, lives) {
        (Some(known), Some(tunnel)) if known.adopted != wish.adopt => {
            let whose = if known.adopted { "adopted" } else { "made by gitopsd" };
            return Choice::Refuse(
                format!("tunnel {} was {whose}, and edge.tunnel.adopt says otherwise", tunnel.name),
                "take it down first with: gitopsd edge down, then: gitopsd edge up".to_owned(),
            );
        }
        (Some(known), Some(tunnel)) if wish.adopt && known.name == wish.name => Choice::Use(tunnel),
        (Some(_), Some(tunnel)) if !wish.adopt && tunnel.name == wish.full() => Choice::Use(tunnel),
        (Some(_), Some(tunnel)) if !wish.adopt && wish.is_ours(&tunnel) => {
            Choice::Rename(tunnel, wish.full())
        }
        (Some(known), Some(tunnel)) if !wish.adopt => {
            return Choice::Refuse(
                format!("tunnel {}, which gitopsd made, is now called {}", known.name, tunnel.name),
                format!(
                    "call it {} again in Cloudflare's dashboard, or delete it there",
                    wish.full()
                ),
            );
        }
        _ => match named.iter().find(|tunnel| tunnel.lives()) {
            Some(tunnel) => Choice::Use(tunnel.clone()),
            None if wish.adopt => {
                return Choice::Refuse(
                    format!("there is no tunnel called {} to adopt", wish.name),
                    "correct edge.tunnel.name, or let gitopsd make one with edge.tunnel.adopt: false"
                        .to_owned(),
                );
            }
            None => Choice::Create(wish.full()),
        },
    };
    match &choice {
        Choice::Use(tunnel) | Choice::Rename(tunnel, _)
            if wish.routes && tunnel.config_src.as_deref() == Some("local") =>
        {
            Choice::Refuse(
                format!("tunnel {} is configured by a file of its connector", tunnel.name),
                "migrate it in Cloudflare's dashboard, keep the routes in that file with \
                 edge.routes: off, or name another tunnel"
                    .to_owned(),
            )
        }
        _ => choice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(id: &str, name: &str) -> Tunnel {
        Tunnel {
            id: id.into(),
            name: name.into(),
            config_src: Some("cloudflare".into()),
            deleted_at: None,
            connections: Vec::new(),
        }
    }

    fn dead(id: &str, name: &str) -> Tunnel {
        Tunnel { deleted_at: Some("2026-01-01T00:00:00Z".into()), ..tunnel(id, name) }
    }

    fn known(name: &str, adopted: bool) -> Stored {
        Stored { id: "1".into(), name: name.into(), adopted }
    }

    const OURS: Wish<'static> = Wish { name: "home", suffix: "3fa9", adopt: false, routes: true };
    const THEIRS: Wish<'static> = Wish { adopt: true, ..OURS };
    const UNROUTED: Wish<'static> = Wish { routes: false, ..THEIRS };

    fn said(choice: Choice) -> String {
        match choice {
            Choice::Use(tunnel) => format!("use {}", tunnel.id),
            Choice::Rename(tunnel, to) => format!("rename {} to {to}", tunnel.id),
            Choice::Create(name) => format!("create {name}"),
            Choice::Refuse(cause, _) => format!("refuse: {cause}"),
        }
    }

    /// Wish, what is known, the tunnel of that id, tunnels of the name, and what is chosen.
    type Case<'a> = (Wish<'a>, Option<&'a Stored>, Option<Tunnel>, Vec<Tunnel>, &'a str);

    #[test]
    fn every_row_of_the_table() {
        let mine = known("home-3fa9", false);
        let theirs = known("home", true);
        let one = |name| Some(tunnel("1", name));
        let by_file = || Tunnel { config_src: Some("local".into()), ..tunnel("2", "home") };
        let cases: [Case<'_>; 14] = [
            (OURS, Some(&mine), one("home-3fa9"), vec![], "use 1"),
            (OURS, Some(&mine), one("lab-3fa9"), vec![], "rename 1 to home-3fa9"),
            (
                OURS,
                Some(&mine),
                one("mine"),
                vec![],
                "refuse: tunnel home-3fa9, which gitopsd made, is now called mine",
            ),
            (
                THEIRS,
                Some(&mine),
                one("home-3fa9"),
                vec![tunnel("2", "home")],
                "refuse: tunnel home-3fa9 was made by gitopsd, and edge.tunnel.adopt says otherwise",
            ),
            (
                OURS,
                Some(&theirs),
                one("home"),
                vec![],
                "refuse: tunnel home was adopted, and edge.tunnel.adopt says otherwise",
            ),
            (THEIRS, Some(&theirs), one("renamed"), vec![], "use 1"),
            (OURS, None, None, vec![tunnel("2", "home-3fa9")], "use 2"),
            (OURS, None, None, vec![dead("2", "home-3fa9")], "create home-3fa9"),
            (
                OURS,
                Some(&mine),
                Some(dead("1", "home-3fa9")),
                vec![tunnel("2", "home-3fa9")],
                "use 2",
            ),
            (OURS, Some(&mine), None, vec![], "create home-3fa9"),
            (THEIRS, None, None, vec![tunnel("2", "home")], "use 2"),
            (THEIRS, None, None, vec![], "refuse: there is no tunnel called home to adopt"),
            (
                THEIRS,
                None,
                None,
                vec![by_file()],
                "refuse: tunnel home is configured by a file of its connector",
            ),
            (UNROUTED, None, None, vec![by_file()], "use 2"),
        ];
        for (wish, known, stored, named, expected) in cases {
            assert_eq!(said(select(wish, known, stored, &named)), expected);
        }
    }
}
