//! Pure: heals of one object, and when they have become a fight.
//!
//! Three heals of one field in ten minutes are no accident: somebody else keeps writing it. From
//! then on heals are a minute apart, then two, up to an hour, so that the API server sees a
//! bounded number of requests whatever the other does. A new manifest ends it (the caller forgets
//! the contest), and so does an hour in which nothing had to be healed.

use std::collections::BTreeMap;

/// Heals of one field that look like accidents, and the time they are counted over.
const IN_PEACE: usize = 3;
const WINDOW: u64 = 10 * 60 * 1000;

/// First and last pause between two heals of a contested object; milliseconds.
const FIRST_PAUSE: u64 = 60 * 1000;
const LAST_PAUSE: u64 = 60 * 60 * 1000;

/// Without a heal for so long after the pause, the fight is over.
const QUIET: u64 = 60 * 60 * 1000;

/// Fields remembered of one object, of 200 bytes or less mostly; what is beyond is not counted.
const FIELDS: usize = 100;

/// The heals of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contest {
    /// Times of the heals of each field, milliseconds of a steady clock; at most three.
    heals: BTreeMap<String, Vec<u64>>,
    fight: Option<Fight>,
}

/// Somebody else keeps writing what Git says.
#[derive(Clone, Debug, PartialEq)]
pub struct Fight {
    /// The contested fields, each with the manager that writes it, where the server knows.
    pub fields: BTreeMap<String, Option<String>>,
    /// Milliseconds between two heals.
    pub pause: u64,
    /// When the last heal was.
    pub last: u64,
}

impl Contest {
    /// One that is a fight already.
    pub fn of(fight: Fight) -> Self {
        Contest { fight: Some(fight), ..Contest::default() }
    }

    /// Notes a heal of these fields, each with its other writer. True when it became a fight now.
    pub fn heal(&mut self, fields: &[(String, Option<String>)], now: u64) -> bool {
        if self.over(now) {
            *self = Contest::default();
        }
        let mut often = Vec::new();
        for (field, manager) in fields {
            if self.heals.len() >= FIELDS && !self.heals.contains_key(field) {
                continue;
            }
            let heals = self.heals.entry(field.clone()).or_default();
            heals.retain(|at| now.saturating_sub(*at) < WINDOW);
            heals.push(now);
            if heals.len() >= IN_PEACE {
                heals.remove(0);
                often.push((field.clone(), manager.clone()));
            }
        }
        match &mut self.fight {
            Some(fight) => {
                fight.pause = (fight.pause * 2).min(LAST_PAUSE);
                fight.last = now;
                for (field, manager) in fields.iter().cloned() {
                    if often.iter().any(|(name, _)| *name == field)
                        || fight.fields.contains_key(&field)
                    {
                        fight.fields.insert(field, manager);
                    }
                }
                false
            }
            None if often.is_empty() => false,
            None => {
                let fields = often.into_iter().collect();
                self.fight = Some(Fight { fields, pause: FIRST_PAUSE, last: now });
                true
            }
        }
    }

    /// Milliseconds that the next heal has to wait.
    pub fn wait(&self, now: u64) -> u64 {
        self.fight.as_ref().map_or(0, |fight| (fight.last + fight.pause).saturating_sub(now))
    }

    /// The fight, if there is one and it is not over.
    pub fn fight(&self, now: u64) -> Option<&Fight> {
        self.fight.as_ref().filter(|_| !self.over(now))
    }

    /// True when a quiet hour has passed.
    pub fn over(&self, now: u64) -> bool {
        match &self.fight {
            Some(fight) => now >= fight.last + fight.pause + QUIET,
            None => {
                let last = self.heals.values().flatten().max();
                last.is_some_and(|last| now.saturating_sub(*last) >= WINDOW)
            }
        }
    }
}

impl std::fmt::Display for Fight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut managers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (field, manager) in &self.fields {
            let manager = manager.as_deref().unwrap_or("somebody who leaves no name");
            managers.entry(manager).or_default().push(field);
        }
        for (number, (manager, fields)) in managers.iter().enumerate() {
            let and = if number == 0 { "contested: " } else { ", and " };
            write!(f, "{and}{manager} writes {}", fields.join(", "))?;
        }
        let minutes = self.pause / 60_000;
        write!(
            f,
            " again after each heal; heals are {minutes} min apart now: stop the other writer, or \
             take the fields out of Git"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn edit(field: &str) -> Vec<(String, Option<String>)> {
        vec![(field.to_owned(), Some("kubectl-edit".to_owned()))]
    }

    #[test]
    fn the_fourth_heal_of_one_field_waits_a_minute_and_then_twice_as_long_up_to_an_hour() {
        let mut contest = Contest::default();
        for at in [0, 1000] {
            assert!(!contest.heal(&edit("a"), at));
            assert_eq!(contest.wait(at), 0);
        }
        assert!(contest.heal(&edit("a"), 2000));
        let mut now = 2000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = contest.wait(now);
            waits.push(wait / MINUTE);
            now += wait;
            assert_eq!(contest.wait(now), 0);
            assert!(!contest.heal(&edit("a"), now), "it is told once");
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn accidents_are_no_fight() {
        let mut different = Contest::default();
        let fields = ["a", "b", "c", "d"];
        assert!(fields.iter().all(|field| !different.heal(&edit(field), 1000)));
        let mut seldom = Contest::default();
        assert!((0..9).all(|n| !seldom.heal(&edit("a"), n * 6 * MINUTE)));
    }

    #[test]
    fn a_quiet_hour_ends_it_and_nothing_less() {
        let mut contest = Contest::default();
        for at in 0..3 {
            contest.heal(&edit("a"), at);
        }
        let quiet = 2 + MINUTE + QUIET;
        assert!(!contest.over(quiet - 1) && contest.fight(quiet - 1).is_some());
        assert!(contest.over(quiet) && contest.fight(quiet).is_none());
        assert!(!contest.heal(&edit("a"), quiet), "the next heal is the first again");
        assert_eq!(contest.wait(quiet), 0);
    }

    #[test]
    fn it_names_the_writers_and_their_fields_only() {
        let mut contest = Contest::default();
        for at in 0..3 {
            let mut fields = edit("spec.replicas");
            fields.push(("data.key".to_owned(), None));
            if at == 1 {
                fields.push(("once".to_owned(), None));
            }
            contest.heal(&fields, at);
        }
        assert_eq!(
            contest.fight(3).map(ToString::to_string).as_deref(),
            Some(
                "contested: kubectl-edit writes spec.replicas, and somebody who leaves no name \
                 writes data.key again after each heal; heals are 1 min apart now: stop the other \
                 writer, or take the fields out of Git"
            )
        );
    }
}
