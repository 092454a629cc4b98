//! Pure: how long a write that was refused for real stands, for an object that no dry-run can ask
//! about.
//!
//! Each try of it is a write and asks an admission webhook for real. So one that was refused is not
//! tried again at the pace of whatever else fails beside it, but after `retryInterval`, or once
//! anything is different: the manifest, the live object, the commit, or `force`.

use super::Failure;
use std::time::Duration;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Keyed digest of the manifest.
    pub digest: String,
    /// The live object; none when it was to be created.
    pub uid: Option<String>,
    /// The commit, which may bring what the webhook wants beside it.
    pub revision: String,
    /// Whether it might have been deleted and created again.
    pub force: bool,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Turned {
    asked: Asked,
    /// When, in steady milliseconds.
    at: u64,
    failure: Failure,
}

impl Turned {
    /// A write was refused now.
    pub fn new(asked: Asked, failure: Failure, now: u64) -> Self {
        Turned { asked, at: now, failure }
    }

    /// The refusal, as long as it counts.
    pub fn stands(&self, asked: &Asked, retry: Duration, now: u64) -> Option<&Failure> {
        // The runs themselves come at that interval, some a little early.
        let pause = u64::try_from(retry.as_millis() * 9 / 10).unwrap_or(u64::MAX);
        (self.asked == *asked && now.saturating_sub(self.at) < pause).then_some(&self.failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Step;

    #[test]
    fn a_refusal_stands_for_the_retry_interval_unless_something_is_different() {
        let asked = || Asked {
            digest: "d".into(),
            uid: Some("u".into()),
            revision: "r1".into(),
            force: false,
        };
        let failure = Failure::new(Step::Apply, "ReconciliationFailed", "not on my watch");
        let turned = Turned::new(asked(), failure.clone(), 5_000);
        let stands = |asked: &Asked, now| {
            turned.stands(asked, Duration::from_secs(60), now).map(|failure| failure.to_string())
        };
        assert_eq!(stands(&asked(), 5_001), Some(failure.to_string()));
        assert!(stands(&asked(), 58_999).is_some() && stands(&asked(), 59_000).is_none());
        for (what, other) in [
            ("the manifest", Asked { digest: "e".into(), ..asked() }),
            ("somebody has deleted it", Asked { uid: None, ..asked() }),
            ("another commit", Asked { revision: "r2".into(), ..asked() }),
            ("it may be forced", Asked { force: true, ..asked() }),
        ] {
            assert_eq!(stands(&other, 5_001), None, "{what}");
        }
    }
}
