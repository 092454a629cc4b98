//! How often the daemon failed to live: each failed start is followed by a longer wait.
//!
//! systemd of Debian 12 restarts at one fixed pace, the unit's `RestartSec=` (`RestartSteps=` came
//! later), so the rest of the pause is made here, before anything that may have brought the last
//! process down is touched again. A file in the runtime directory counts; an orderly end takes it
//! away. What fails before the program runs, such as a credential that systemd cannot open, is not
//! counted and keeps to that pace. Without systemd there is no pause: a person is watching.

use crate::daemon::systemd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A process that lived this long was not brought down by its start.
const SETTLED: Duration = Duration::from_secs(600);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// The pause after so many failed starts in a row: none, none, 2 s, 4 s, 8 s … 5 min, on top of
/// the unit's. One crash is answered by that alone.
fn pause(failed: u32) -> Duration {
    match failed {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_secs(1 << (failed - 1).min(16)).min(LONGEST),
    }
}

/// The count of one runtime directory.
pub struct Starts {
    path: PathBuf,
}

impl Starts {
    /// Counts this start and waits as long as the ones before it make advisable.
    pub fn begin(runtime: &Path) -> Starts {
        let starts = Starts { path: runtime.join("starts") };
        // systemd names each start so; nobody else restarts us by the dozen.
        if std::env::var_os("INVOCATION_ID").is_none() {
            return starts;
        }
        let failed = starts.failed();
        // A runtime directory that cannot be written to fails later, and with a better message.
        let _ = std::fs::write(&starts.path, failed.saturating_add(1).to_string());
        let pause = pause(failed);
        if !pause.is_zero() {
            let seconds = pause.as_secs();
            tracing::warn!("ended badly {failed} times in a row: waiting {seconds} s");
            systemd::patience(pause, &format!("ended badly {failed} times: waits {seconds} s"));
            std::thread::sleep(pause);
        }
        starts
    }

    /// The process ends as it should.
    pub fn end(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// How many starts in a row ended badly and soon.
    fn failed(&self) -> u32 {
        let Ok(written) = std::fs::metadata(&self.path).and_then(|file| file.modified()) else {
            return 0;
        };
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        if age > SETTLED + LONGEST {
            return 0;
        }
        std::fs::read_to_string(&self.path).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_crash_is_answered_at_the_units_pace_and_each_further_one_later() {
        let pauses: Vec<u64> = (0..12).map(|failed| pause(failed).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn what_fails_before_the_program_runs_is_tried_for_ever_and_not_every_second() {
        let unit = include_str!("../../systemd/gitopsd.service");
        let said = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
        let pace = said("RestartSec=").and_then(|pace| pace.strip_suffix('s')?.parse::<u64>().ok());
        assert!(pace.is_some_and(|pace| (5..=15).contains(&pace)), "{pace:?}");
        assert_eq!(said("StartLimitIntervalSec="), Some("0"));
    }

    #[test]
    fn what_was_counted_is_read_back_until_an_orderly_end() {
        let dir = tempfile::tempdir().expect("temp dir");
        let starts = Starts { path: dir.path().join("starts") };
        assert_eq!(starts.failed(), 0);
        std::fs::write(&starts.path, "3").expect("temp dir is writable");
        assert_eq!(starts.failed(), 3);
        std::fs::write(&starts.path, "garbage").expect("temp dir is writable");
        assert_eq!(starts.failed(), 0);
        starts.end();
        assert!(!starts.path.exists());
    }
}
