//! What systemd is told: READY, STATUS on change, WATCHDOG from the loop itself, STOPPING.

use sd_notify::NotifyState;
use std::time::Duration;

/// What an ordinary start may take after a pause; the unit gives it as much.
const START: Duration = Duration::from_secs(120);

/// The service manager, or nobody when the daemon runs in a terminal.
pub struct Manager {
    last: String,
}

impl Manager {
    /// Nothing has been said yet.
    pub fn new() -> Self {
        Manager { last: String::new() }
    }

    /// Ticks when the watchdog wants to be fed: at once, then at half its limit, when there is one.
    pub fn watchdog(&self) -> tokio::time::Interval {
        let limit = sd_notify::watchdog_enabled();
        tokio::time::interval(limit.map_or(Duration::from_secs(3600), |limit| limit / 2))
    }

    /// Configuration valid, database open, socket answering.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The loop has gone round.
    pub fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// The STATUS line, when it has changed.
    pub fn status(&mut self, line: &str) {
        if self.last != line {
            line.clone_into(&mut self.last);
            tell(&[NotifyState::Status(line)]);
        }
    }

    /// The process is about to execute itself anew; READY follows.
    pub fn reloading(&self) {
        let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let micros = clock
            .map_or(0, |at| i128::from(at.tv_sec()) * 1_000_000 + i128::from(at.tv_nsec()) / 1000);
        let stamp = format!("MONOTONIC_USEC={micros}");
        tell(&[NotifyState::Reloading, NotifyState::Custom(&stamp)]);
    }

    /// An orderly end has begun.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// Asks for more time before READY, and says what for.
pub fn patience(extra: Duration, why: &str) {
    let micros = u32::try_from((extra + START).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(why)]);
}

/// A manager that does not listen is no reason to stop working.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("service manager not told: {error}");
    }
}
