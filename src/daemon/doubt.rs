//! How soon everything is compared with Git once something gave cause to doubt the cluster.
//!
//! A comparison asks about every object and lists every kind: more than a server that is uneasy
//! should get each time that it comes back. So the least time between two doubles from one to the
//! next, and is short again after a quiet while. Causes in between are answered by one comparison.

use std::time::{Duration, Instant};

/// Least time between two comparisons at first.
const BETWEEN: Duration = Duration::from_secs(10);

/// Longest: of an outage that comes again and again, 12 comparisons an hour are left.
const LONGEST: Duration = Duration::from_secs(300);

/// Without a cause for so long, trouble is over: twice the longest time between two.
const QUIET: Duration = Duration::from_secs(600);

/// When everything was compared, and is to be again.
#[derive(Debug, Default)]
pub struct Doubt {
    /// When there was a cause last.
    cause: Option<Instant>,
    /// The last comparison, and the least time from it to the next.
    last: Option<(Instant, Duration)>,
    due: Option<Instant>,
}

impl Doubt {
    /// There is a cause. True when everything is to be compared now; otherwise it will be.
    pub fn arises(&mut self, now: Instant) -> bool {
        if self.cause.is_some_and(|at| now >= at + QUIET) {
            self.last = None;
        }
        self.cause = Some(now);
        if let Some((at, between)) = self.last
            && now < at + between
        {
            self.due = Some(at + between);
            return false;
        }
        self.compared(now);
        true
    }

    /// It is sure that the cluster is an older one: that cannot wait for long.
    pub fn is_certain(&mut self) {
        self.last = self.last.map(|(at, between)| (at, between.min(BETWEEN)));
    }

    /// True when the time has come for a comparison that had to wait.
    pub fn ripens(&mut self, now: Instant) -> bool {
        let ripe = self.due.is_some_and(|at| now >= at);
        if ripe {
            self.compared(now);
        }
        ripe
    }

    /// There is nothing to compare with. The next connection is a cause of its own.
    pub fn rests(&mut self) {
        self.due = None;
    }

    /// When to go round without any event.
    pub fn wake(&self) -> Option<Instant> {
        self.due
    }

    fn compared(&mut self, now: Instant) {
        let next = self.last.map_or(BETWEEN, |(_, between)| (between * 2).min(LONGEST));
        self.last = Some((now, next));
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which everything is compared when causes come every `step` seconds for `span`.
    fn compared(doubt: &mut Doubt, from: Instant, step: usize, span: u64) -> Vec<u64> {
        let mut compared = Vec::new();
        for second in 0..=span {
            let now = from + Duration::from_secs(second);
            let cause = (second as usize).is_multiple_of(step) && doubt.arises(now);
            if cause || doubt.ripens(now) {
                compared.push(second);
            }
        }
        compared
    }

    #[test]
    fn while_causes_come_comparisons_get_rarer_and_after_a_quiet_while_they_are_soon_again() {
        let (mut doubt, start) = (Doubt::default(), Instant::now());
        let rarer = [0, 10, 30, 70, 150, 310, 610, 910];
        assert_eq!(compared(&mut doubt, start, 5, 1000), rarer);
        let later = start + Duration::from_secs(1000) + QUIET;
        assert_eq!(compared(&mut doubt, later, 5, 20), [0, 10]);
    }

    #[test]
    fn a_cause_that_had_to_wait_is_answered_once_and_none_is_lost() {
        let (mut doubt, start) = (Doubt::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert!(doubt.arises(at(0)) && !doubt.arises(at(1)) && !doubt.arises(at(2)));
        assert_eq!(doubt.wake(), Some(at(10)));
        assert!(!doubt.ripens(at(9)) && doubt.ripens(at(10)) && !doubt.ripens(at(40)));
        assert!(doubt.arises(at(100)), "the twenty seconds are over");
        assert!(!doubt.arises(at(105)));
        doubt.rests();
        assert!(!doubt.ripens(at(500)), "the connection is lost");
        doubt.is_certain();
        assert!(!doubt.arises(at(106)) && doubt.ripens(at(110)), "an older cluster for sure");
    }
}
