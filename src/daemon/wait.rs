//! The service of a host that nobody has configured yet: it waits, and says so.
//!
//! A fresh installation is no failure. The unit is up, `systemctl status` tells what to do, and
//! nothing is touched. `gitopsd init` restarts the unit; credentials of a running one cannot be
//! refreshed, so a reload could not do it.

use super::DaemonError;
use super::systemd::Manager;
use crate::logging::Message;
use tokio::signal::unix::{SignalKind, signal};

/// The STATUS line while there is nothing to follow.
const LINE: &str = "not configured: run gitopsd init";

/// Waits for the signal that ends it.
pub fn wait() -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(async {
        let hook = |kind| signal(kind).map_err(DaemonError::Runtime);
        let mut terminate = (hook(SignalKind::terminate())?, hook(SignalKind::interrupt())?);
        // A reload changes nothing here, and must not end the process.
        let mut hangup = hook(SignalKind::hangup())?;
        let mut manager = Manager::new();
        let mut watchdog = manager.watchdog();
        tracing::info!(message_id = Message::NotConfigured.id(), "{LINE}");
        manager.status(LINE);
        manager.ready();
        loop {
            tokio::select! {
                _ = terminate.0.recv() => break,
                _ = terminate.1.recv() => break,
                _ = hangup.recv() => {}
                _ = watchdog.tick() => manager.alive(),
            }
        }
        manager.stopping();
        Ok(())
    })
}
