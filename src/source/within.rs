//! Work with a deadline: a thread of its own that is left behind when the time is over.
//!
//! gix's transports bound a single read at best. Whoever waits here returns on time; the thread
//! that was given up comes back as a handle, so that the caller starts no second one beside it.

use super::error::SourceError;
use super::record::storage;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often running work is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long, and with whom.
pub(super) struct Limit {
    /// The remote, fit for messages.
    pub url: String,
    /// The limit as a whole, for the message.
    pub after: Duration,
    /// When it ends.
    pub deadline: Instant,
}

impl Limit {
    /// A limit that begins now.
    pub(super) fn new(url: String, after: Duration) -> Limit {
        Limit { url, after, deadline: Instant::now() + after }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Result<Duration, SourceError> {
        let left = self.deadline.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero()).ok_or_else(|| self.passed())
    }

    /// The error of a limit that has passed.
    pub(super) fn passed(&self) -> SourceError {
        SourceError::Timeout { url: self.url.clone(), after: self.after }
    }
}

/// Work that was given up, or could not be begun.
pub(super) struct GivenUp {
    /// Why.
    pub error: SourceError,
    /// The thread that is still at it.
    pub late: Option<JoinHandle<()>>,
}

/// Runs `work` until it ends, the limit has passed or `look` objects. `work` is told by its flag
/// that nobody waits any more.
pub(super) fn within<T: Send + 'static>(
    limit: &Limit,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    look: impl Fn() -> Option<SourceError>,
) -> Result<T, GivenUp> {
    let stop = Arc::new(AtomicBool::new(false));
    let (answer, answered) = mpsc::sync_channel(1);
    let flag = stop.clone();
    let run = move || {
        // Nobody listens any more once the deadline has passed.
        let _ = answer.send(work(&flag));
    };
    let thread = match std::thread::Builder::new().name("git".into()).spawn(run) {
        Ok(thread) => thread,
        Err(error) => {
            return Err(GivenUp { error: storage("cannot start a thread", &error), late: None });
        }
    };
    let error = loop {
        let left = limit.deadline.saturating_duration_since(Instant::now());
        match answered.recv_timeout(left.min(TICK)) {
            Ok(result) => return Ok(result),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let cause = "the transport gave up without a reason (see the journal)".into();
                let error = SourceError::Protocol { url: limit.url.clone(), cause };
                return Err(GivenUp { error, late: None });
            }
            Err(mpsc::RecvTimeoutError::Timeout) if left.is_zero() => break limit.passed(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some(objection) = look() {
            break objection;
        }
    };
    stop.store(true, Ordering::Relaxed);
    Err(GivenUp { error, late: Some(thread) })
}
