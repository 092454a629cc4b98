//! Full, broken and read-only disks under a running daemon.

use std::time::Duration;

/// How long a daemon lives with a fault before it is stopped.
pub(super) const LONG: Duration = Duration::from_secs(3);
