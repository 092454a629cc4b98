//! Suspends and confirmations: decided by a person, in force at once, stored beside the loop.
//!
//! [`HostState`] changes in memory; each change is handed to one task that writes the whole file,
//! so that a slow card never stops the loop. Whoever waits for an answer gets it when the file is
//! on the disk.

use super::boot::{DaemonError, now_ms};
use crate::api::SuspendView;
use crate::flux::Key;
use crate::graph::{Event, Graph};
use crate::history::{History, HistoryError, State, Suspend};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Changes on their way to the disk: commands come one at a time from people.
const QUEUE: usize = 64;

/// Pause before a state that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Whether a change is on the disk; several may hear of one attempt.
type Saved = Result<(), Arc<HistoryError>>;

/// Tells when a change is on the disk, or why it is not.
pub type Stored = oneshot::Receiver<Saved>;

/// A state to be written, and who waits for it.
type Save = (State, oneshot::Sender<Saved>);

/// What the host's operator has decided.
pub struct HostState {
    state: State,
    saves: mpsc::Sender<Save>,
    writer: JoinHandle<()>,
}

impl HostState {
    /// Reads the file. Must be called inside the runtime.
    pub(super) fn load(history: Arc<History>) -> Result<Self, DaemonError> {
        let state = history.state()?;
        let (saves, asked) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(history, asked));
        Ok(HostState { state, saves, writer })
    }

    /// Waits until everything is on the disk.
    pub(super) async fn close(self) {
        drop(self.saves);
        // It ends with the last save; a panic there was told by the runtime.
        let _ = self.writer.await;
    }

    fn save(&self) -> Stored {
        let (done, stored) = oneshot::channel();
        if self.saves.try_send((self.state.clone(), done)).is_err() {
            tracing::warn!("too many changes wait for the disk: the last one is not stored");
        }
        stored
    }

    /// Puts the suspends in force.
    pub(super) fn apply(&self, graph: &mut Graph) {
        graph.preset(
            self.state.suspends.iter().map(|(key, suspend)| (key.clone(), describe(suspend))),
        );
    }

    /// Digests of delete sets that were confirmed.
    pub(super) fn confirmed(&self) -> Vec<String> {
        self.state.confirmed.clone()
    }

    /// Suspends. Answers how that is shown.
    pub(super) fn suspend(&mut self, key: &Key, suspend: Suspend) -> (String, Stored) {
        let shown = describe(&suspend);
        self.state.suspends.insert(key.to_string(), suspend);
        (shown, self.save())
    }

    /// Whether an item is suspended by the host.
    pub(super) fn stopped(&self, key: &Key) -> bool {
        self.state.suspends.contains_key(&key.to_string())
    }

    /// Drops a suspend.
    pub(super) fn resume(&mut self, key: &Key) -> Stored {
        self.state.suspends.remove(&key.to_string());
        self.save()
    }

    /// Takes a confirmation of what a Kustomization holds, if it is one that does.
    pub(super) fn confirm(&mut self, digest: &str, holder: Option<&Key>) -> Stored {
        self.state.confirm(digest);
        if let Some(holder) = holder {
            self.state.holders.insert(digest.to_owned(), holder.to_string());
        }
        self.save()
    }

    /// Digests that were confirmed when a Kustomization held them, also before a restart.
    pub(super) fn confirmed_of(&self, holder: &Key) -> impl Iterator<Item = &String> {
        let holder = holder.to_string();
        self.state.holders.iter().filter(move |(_, of)| **of == holder).map(|(digest, _)| digest)
    }

    /// Drops a confirmation that is used: the same deletions are asked about again. `None` when
    /// there is no such confirmation.
    pub(super) fn used(&mut self, digest: &str) -> Option<Stored> {
        self.state.used(digest).then(|| self.save())
    }

    /// Notes who has taken the edge down, or that it is up.
    pub(super) fn edge(&mut self, down: Option<String>) -> Stored {
        (self.state.edge_down, self.state.edge_up) = (down, false);
        self.save()
    }

    /// Notes that the edge is to come up: until a run has noted that too, the next start asks for it.
    pub(super) fn edge_up(&mut self) -> Stored {
        self.state.edge_up = true;
        self.save()
    }

    /// Who has taken the edge down, and whether somebody has asked for it since.
    pub(super) fn edge_said(&self) -> (Option<String>, bool) {
        (self.state.edge_down.clone(), self.state.edge_up)
    }

    /// Everything that the host has stopped.
    pub(super) fn suspended(&self) -> Vec<SuspendView> {
        let view = |(object, suspend): (&String, &Suspend)| SuspendView {
            object: object.clone(),
            until_ms: suspend.until_ms,
            reason: suspend.reason.clone().unwrap_or_default(),
            by: suspend.by.clone(),
            since_ms: suspend.since_ms,
        };
        self.state.suspends.iter().map(view).collect()
    }

    /// When the next suspend ends by itself.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let now = now_ms();
        let ends = self.state.suspends.values().filter_map(|suspend| suspend.until_ms);
        // One that is over and still there waits for its object to be declared.
        let next = ends.filter(|end| *end > now).min()?;
        let left = u64::try_from(next.saturating_sub(now)).unwrap_or(0);
        Some(Instant::now() + Duration::from_millis(left + 1))
    }

    /// Drops the suspends that have ended and answers them as events.
    pub(super) fn ended(&mut self, graph: &Graph) -> Vec<Event> {
        let now = now_ms();
        let over = |suspend: &Suspend| suspend.until_ms.is_some_and(|until| until <= now);
        // Suspends of what is not declared yet stay until it is, so that their end reaches it.
        let keys: Vec<Key> = graph
            .items()
            .map(|(key, _)| key.clone())
            .filter(|key| self.state.suspends.get(&key.to_string()).is_some_and(over))
            .collect();
        let declared: Vec<String> = keys.iter().map(ToString::to_string).collect();
        self.state.suspends.retain(|key, suspend| !(over(suspend) && declared.contains(key)));
        if !keys.is_empty() {
            self.save();
        }
        keys.into_iter().map(|key| Event::Suspend(key, None)).collect()
    }
}

/// Writes one state after the other; of several that wait only the last, which holds them all. A
/// state that could not be written is tried again until it, or a newer one, is.
async fn write(history: Arc<History>, mut saves: mpsc::Receiver<Save>) {
    let mut unsaved: Option<State> = None;
    loop {
        let next = match &unsaved {
            None => saves.recv().await,
            Some(_) => match tokio::time::timeout(AGAIN, saves.recv()).await {
                Ok(next) => next,
                Err(_) => unsaved.clone().map(|state| (state, oneshot::channel().0)),
            },
        };
        let ended = next.is_none();
        let (state, mut waiting) = match (next, unsaved.take()) {
            (Some((state, done)), _) => (state, vec![done]),
            // The last try, on the way out.
            (None, Some(state)) => (state, Vec::new()),
            (None, None) => return,
        };
        let mut state = state;
        while let Ok((newer, done)) = saves.try_recv() {
            state = newer;
            waiting.push(done);
        }
        let (to, what) = (history.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || to.save_state(&what)).await;
        // After a panic the senders are dropped: whoever waits hears that nothing was stored.
        let Ok(saved) = saved else { continue };
        if let Err(error) = &saved {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            tracing::error!("suspends and confirmations could not be stored: {error}{hint}");
            unsaved = Some(state);
        }
        let saved = saved.map_err(Arc::new);
        for done in waiting {
            // Most changes have nobody waiting.
            let _ = done.send(saved.clone());
        }
        if ended {
            return;
        }
    }
}

fn describe(suspend: &Suspend) -> String {
    let reason = suspend.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let until = suspend
        .until_ms
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|until| format!(" until {}", until.strftime("%F %H:%M UTC")))
        .unwrap_or_default();
    format!("by {}{until}: {reason}", suspend.by)
}
