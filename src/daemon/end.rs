//! The end in good order: the object in hand is finished, nothing new is begun.
//!
//! Runs end by themselves between two objects, and give up what only looks or waits. What changes
//! something is waited for: runs, ends, the edge, pushes, files that are removed. What only asks,
//! such as a poll of a Git server that is silent, is dropped.

use super::{Daemon, Ending};
use crate::logging::Message;
use std::time::Duration;

/// Longest wait for what is in hand: an object that is deleted to be created again takes up to 65 s
/// ([`IN_HAND`](crate::apply::IN_HAND)), and its run is recorded after that.
const STOP: Duration = Duration::from_secs(75);

/// Longest wait for the disk after that: a few small files. systemd kills 90 s after it has asked
/// for the end, so that 10 s are left.
pub(super) const CLOSE: Duration = Duration::from_secs(5);

impl Daemon {
    /// Ends what is under way; without an ending because the daemon cannot go on.
    pub(super) async fn end(&mut self, ending: Option<&Ending>) {
        self.ending = true;
        match ending {
            Some(Ending::Stopped) | None => self.manager.stopping(),
            Some(Ending::Restart(_)) => self.manager.reloading(),
        }
        self.manager.status("finishing the object in hand");
        self.pipeline.stop();
        self.workers.cancel_all();
        let deadline = tokio::time::Instant::now() + STOP;
        let mut late = false;
        let mut watchdog = self.manager.watchdog();
        while self.workers.in_hand() && !late {
            tokio::select! {
                _ = self.workers.next() => {}
                Some(question) = self.questions.recv() => self.answer(question),
                () = tokio::time::sleep_until(deadline) => late = true,
                // It goes on watching over a process that starts itself anew.
                _ = watchdog.tick() => self.manager.alive(),
            }
        }
        self.stop.send_replace(true);
        if late {
            let waited = STOP.as_secs();
            tracing::warn!("not all ended within {waited} s: the next start goes on with the rest");
        } else if matches!(ending, Some(Ending::Stopped)) {
            tracing::info!(message_id = Message::Stopped.id(), "gitopsd stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_leaves_time_for_the_object_in_hand_and_is_over_before_systemd_kills() {
        let unit = include_str!("../../systemd/gitopsd.service");
        let (_, limit) = unit.split_once("\nTimeoutStopSec=").expect("the unit says so");
        let limit = limit.lines().next().and_then(|said| said.strip_suffix('s'));
        let limit = limit.and_then(|said| said.parse().ok()).expect("in seconds");
        let limits = [crate::apply::IN_HAND, STOP, STOP + CLOSE, Duration::from_secs(limit)];
        assert!(limits.is_sorted_by(|shorter, longer| shorter < longer), "{limits:?}");
    }
}
