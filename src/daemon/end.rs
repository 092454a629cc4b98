//! The end in good order: the object in hand is finished, nothing new is begun.
//!
//! Runs end by themselves between two objects, and give up what only looks or waits. What changes
//! something is waited for: runs, ends, the edge, pushes, files that are removed. What only asks,
//! such as a poll of a Git server that is silent, is dropped.

use super::systemd::Manager;
use super::{Daemon, DaemonError, Ending};
use crate::logging::Message;
use futures::FutureExt;
use std::time::Duration;
use tokio::signal::unix::Signal;

/// Longest wait for what is in hand: an object that is deleted to be created again takes up to 65 s
/// ([`IN_HAND`](crate::apply::IN_HAND)), and its run is recorded after that.
const STOP: Duration = Duration::from_secs(75);

/// Longest wait for the disk after that: a few small files. systemd kills 90 s after it has asked
/// for the end, so that 10 s are left.
pub(super) const CLOSE: Duration = Duration::from_secs(5);

impl Daemon {
    /// Ends what is under way, and answers how the daemon ends: who is told to stop while it makes
    /// ready to start anew, stops.
    pub(super) async fn end(
        &mut self,
        mut ending: Result<Ending, DaemonError>,
    ) -> Result<Ending, DaemonError> {
        self.ending = true;
        match ending {
            Ok(Ending::Stopped) | Err(_) => self.manager.stopping(),
            Ok(Ending::Restart(_)) => self.manager.reloading(),
        }
        self.manager.status("finishing the object in hand");
        self.pipeline.stop();
        self.workers.cancel_all();
        let deadline = tokio::time::Instant::now() + STOP;
        let mut late = false;
        let mut watchdog = self.manager.watchdog();
        while self.workers.in_hand() && !late {
            let anew = matches!(ending, Ok(Ending::Restart(_)));
            tokio::select! {
                _ = self.workers.next() => {}
                Some(question) = self.questions.recv() => self.answer(question),
                () = tokio::time::sleep_until(deadline) => late = true,
                // It goes on watching over a process that starts itself anew.
                _ = watchdog.tick() => self.manager.alive(),
                _ = self.terminate.0.recv(), if anew => ending = self.stops_instead(),
                _ = self.terminate.1.recv(), if anew => ending = self.stops_instead(),
            }
        }
        self.workers.drop_rest().await;
        self.stop.send_replace(true);
        if late {
            let waited = STOP.as_secs();
            tracing::warn!("not all ended within {waited} s: the next start goes on with the rest");
        } else if matches!(ending, Ok(Ending::Stopped)) {
            tracing::info!(message_id = Message::Stopped.id(), "gitopsd stopped");
        }
        ending
    }

    fn stops_instead(&self) -> Result<Ending, DaemonError> {
        self.manager.stopping();
        Ok(Ending::Stopped)
    }
}

/// Once more, now that nothing is waited for any more: who has been told to stop meanwhile, stops.
pub(super) fn at_last(
    (terminate, interrupt, _): &mut (Signal, Signal, Signal),
    manager: &Manager,
    ending: Result<Ending, DaemonError>,
) -> Result<Ending, DaemonError> {
    let told = [terminate, interrupt].map(|signal| signal.recv().now_or_never().is_some());
    match ending {
        Ok(Ending::Restart(_)) if told.contains(&true) => {
            manager.stopping();
            Ok(Ending::Stopped)
        }
        ending => ending,
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
