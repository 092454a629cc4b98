//! `STATE/state.json`: what a person decided and no cluster can tell us again.
//!
//! Suspends, confirmations and whether the edge was taken down live outside the database because
//! they must survive its loss: a suspended Kustomization that wakes up after a bad shutdown does what
//! somebody forbade, and so does an edge that brings itself up again. The file
//! is written whole to a temporary one, flushed, and renamed, so a reader sees the old or the new.

use super::History;
use super::error::HistoryError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

const FILE: &str = "state.json";

/// Bytes of the file: 1 MiB holds some 5000 suspends.
const MAX_FILE: u64 = 1 << 20;

/// Confirmations kept; each is used up by one run, older ones are stale.
const MAX_CONFIRMED: usize = 64;

/// What a person decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// By key: a Flux object (`Kustomization/apps/web`) or an object of the cluster.
    pub suspends: BTreeMap<String, Suspend>,
    /// Digests of the delete sets that may go ahead, oldest first.
    pub confirmed: Vec<String>,
    /// The Kustomization that held such a set when it was confirmed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<String, String>,
    /// Who has taken the edge down, until it is brought up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_down: Option<String>,
    /// Somebody has asked for it to be up again, and no run has noted that yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub edge_up: bool,
}

/// One suspend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspend {
    /// When it ends by itself, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who.
    pub by: String,
    /// Since when, in Unix milliseconds; 0 in a file of an older version.
    #[serde(default)]
    pub since_ms: i64,
}

impl State {
    /// Takes a confirmation; of more than 64 the oldest are stale.
    pub fn confirm(&mut self, digest: &str) {
        if !self.confirmed.iter().any(|known| known == digest) {
            self.confirmed.push(digest.to_owned());
            let surplus = self.confirmed.len().saturating_sub(MAX_CONFIRMED);
            self.confirmed.drain(..surplus);
        }
        self.holders.retain(|digest, _| self.confirmed.contains(digest));
    }

    /// Drops a confirmation. True when there was one.
    pub fn used(&mut self, digest: &str) -> bool {
        let before = self.confirmed.len();
        self.confirmed.retain(|known| known != digest);
        self.holders.remove(digest);
        self.confirmed.len() < before
    }

    /// Reads the file; a missing one is an empty state.
    ///
    /// # Errors
    /// A file that is not what [`State::save`] writes is refused rather than taken as empty.
    fn load(dir: &Path) -> Result<State, HistoryError> {
        let path = dir.join(FILE);
        let io = |error| HistoryError::from_io("read the suspends", &path, error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(HistoryError::State { path, cause: "larger than 1 MiB".to_owned() });
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| HistoryError::State { path, cause: error.to_string() })
    }

    /// Replaces the file, on disk when this returns.
    fn save(&self, dir: &Path) -> Result<(), HistoryError> {
        let path = dir.join(FILE);
        let io = |error| HistoryError::from_io("store the suspends", &path, error);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| HistoryError::State {
            path: path.clone(),
            cause: error.to_string(),
        })?;
        text.push(b'\n');
        if text.len() as u64 > MAX_FILE {
            let cause = "too many suspends: larger than 1 MiB".to_owned();
            return Err(HistoryError::State { path, cause });
        }
        replace(dir, &path, &text).map_err(io)
    }
}

impl History {
    /// What a person decided in an earlier process.
    ///
    /// # Errors
    /// A file that is not what [`History::save_state`] writes is refused.
    pub fn state(&self) -> Result<State, HistoryError> {
        State::load(&self.directory)
    }

    /// Replaces what a person decided, on disk when this returns. It takes no turn with the
    /// database, but uses up the same reserve.
    pub fn save_state(&self, state: &State) -> Result<(), HistoryError> {
        match state.save(&self.directory) {
            Err(HistoryError::DiskFull { .. }) if self.spend() => state.save(&self.directory),
            done => done,
        }
    }
}

/// Temporary file, flush, rename, flush of the directory: the rename is lost otherwise.
fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new().prefix(".state.json.").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_as_it_was_saved_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(State::load(dir.path()).expect("a missing file is empty"), State::default());
        let suspend = Suspend {
            until_ms: Some(7),
            reason: Some("disk".into()),
            by: "root".into(),
            since_ms: 5,
        };
        let quiet = Suspend { until_ms: None, reason: None, by: "leo".into(), since_ms: 6 };
        let state = State {
            suspends: [("Kustomization/a/b".into(), suspend), ("c".into(), quiet)].into(),
            confirmed: vec!["x".into()],
            holders: [("x".into(), "Kustomization/a/b".into())].into(),
            edge_down: Some("leo".into()),
            edge_up: true,
        };
        state.save(dir.path()).expect("saved");
        state.save(dir.path()).expect("saved again");
        assert_eq!(State::load(dir.path()).expect("loaded"), state);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn only_the_newest_confirmations_are_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut state = State::default();
        state.confirm("0");
        state.holders.insert("0".into(), "Kustomization/a/b".into());
        (0..70).for_each(|n| state.confirm(&n.to_string()));
        assert!(state.holders.is_empty(), "it goes with its confirmation");
        state.confirm("69");
        state.save(dir.path()).expect("saved");
        let kept = State::load(dir.path()).expect("loaded").confirmed;
        assert_eq!((kept.len(), kept[0].as_str(), kept[63].as_str()), (64, "6", "69"));
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused_and_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        for text in ["{\"suspends\":", "{\"holds\": {}}", ""] {
            fs::write(dir.path().join(FILE), text).expect("written");
            let error = State::load(dir.path()).expect_err(text);
            assert!(matches!(error, HistoryError::State { .. }) && !error.retry(), "{error}");
            assert!(error.hint().is_some());
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).expect("read"), text);
        }
    }
}
