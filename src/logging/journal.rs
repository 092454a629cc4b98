//! Wires events to the journal or to stderr, and keeps response bodies out of both.

use std::fmt::Debug;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when `GITOPSD_LOG` is not set.
const DEFAULT_LEVELS: &str = "warn,kube_client=off,gitopsd=info";

/// Where events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The journal when stderr is connected to it, the terminal otherwise.
    #[default]
    Auto,
    /// The journal.
    Journal,
    /// Lines on stderr; coloured and with the time of day when that is a terminal.
    Terminal,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// journald's socket does not answer.
    #[error("the journal cannot be reached: {0}")]
    Journal(#[source] std::io::Error),
    /// `GITOPSD_LOG` is not a filter.
    #[error("GITOPSD_LOG={said:?} is not a filter: {cause}")]
    Filter {
        /// The variable's value.
        said: String,
        /// What the parser said.
        cause: String,
    },
    /// Logging was set up before.
    #[error("logging is already set up")]
    Twice,
}

impl LoggingError {
    /// Whether trying again later may help.
    pub fn retry(&self) -> bool {
        matches!(self, LoggingError::Journal(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            LoggingError::Journal(_) => Some("look at: systemctl status systemd-journald".into()),
            LoggingError::Filter { .. } => Some(
                "write for example GITOPSD_LOG=debug or GITOPSD_LOG=gitopsd::graph=trace".into(),
            ),
            LoggingError::Twice => None,
        }
    }
}

/// Sets up logging for the whole process, once.
///
/// # Errors
/// A bad `GITOPSD_LOG`, or no journal when [`Target::Journal`] was asked for. With
/// [`Target::Auto`] a journal that does not answer falls back to stderr.
pub fn init(target: Target) -> Result<(), LoggingError> {
    let filter = levels(std::env::var("GITOPSD_LOG").ok())?;
    let filter = filter.and(filter_fn(no_response_bodies));
    let journal = match target {
        Target::Journal => Some(tracing_journald::layer().map_err(LoggingError::Journal)?),
        Target::Auto if to_journal() => tracing_journald::layer().ok(),
        Target::Auto | Target::Terminal => None,
    };
    let done = match journal {
        Some(layer) => {
            let layer = layer
                .with_field_prefix(None)
                .with_syslog_identifier("gitopsd".to_owned())
                .with_priority_mappings(PriorityMappings {
                    // systemd's own scale: what a service does in the ordinary course is "info".
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::new()
                });
            tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
        }
        None => tracing_subscriber::registry().with(lines().with_filter(filter)).try_init(),
    };
    done.map_err(|_| LoggingError::Twice)
}

/// Human lines; the message id is for machines and left out.
fn lines() -> Box<dyn Layer<registry::Registry> + Send + Sync> {
    let terminal = std::io::stderr().is_terminal();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal && !no_colour)
        .with_target(false)
        .fmt_fields(debug_fn(write_field));
    // A service manager has its own clock.
    let stamped = std::env::var_os("INVOCATION_ID").is_some();
    if stamped { layer.without_time().boxed() } else { layer.boxed() }
}

/// `text gitopsd_run=7` reads `text run=7`. tracing puts the message first.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    match field.name() {
        "message_id" => Ok(()),
        "message" => write!(writer, "{}", printable(&format!("{value:?}"))),
        _ if format!("{value:?}") == "\"\"" => Ok(()),
        "gitopsd_run" => write!(writer, " run={}", printable(&format!("{value:?}"))),
        // For machines, in the journal; the text says the same.
        name if name.starts_with("gitopsd_") => Ok(()),
        name => write!(writer, " {name}={}", printable(&format!("{value:?}"))),
    }
}

/// Causes quote pods and remotes: what they say must not steer the operator's terminal.
fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

fn levels(said: Option<String>) -> Result<EnvFilter, LoggingError> {
    let said = said.filter(|said| !said.trim().is_empty());
    let said = said.unwrap_or_else(|| DEFAULT_LEVELS.to_owned());
    EnvFilter::try_new(&said)
        .map_err(|error| LoggingError::Filter { cause: error.to_string(), said })
}

/// False for what may print a response body of the API server, whatever `GITOPSD_LOG` says.
///
/// `kube_client::client` logs the whole body at WARN when it cannot parse it, and at TRACE when it
/// is a Status. A body may be a Secret. Errors reach us as values anyway.
fn no_response_bodies(metadata: &Metadata<'_>) -> bool {
    let ours_to_silence = metadata.target().starts_with("kube_client::client");
    !ours_to_silence || *metadata.level() == Level::ERROR || metadata.is_span()
}

/// True when nobody but the journal reads stderr: it is the stream that systemd named in
/// `$JOURNAL_STREAM` (`DEVICE:INODE`).
pub fn to_journal() -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(found) = nix::sys::stat::fstat(std::io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", found.st_dev, found.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is printed under a value of `GITOPSD_LOG`.
    fn printed(said: Option<&str>, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let filter = levels(said.map(str::to_owned)).expect("a filter");
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .fmt_fields(debug_fn(write_field))
            .with_filter(filter.and(filter_fn(no_response_bodies)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let bytes = kept.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[test]
    fn a_line_shows_the_fields_without_the_machine_s_id() {
        let text = printed(None, || {
            tracing::info!(
                target: "gitopsd::x",
                message_id = crate::logging::Message::Applied.id(),
                gitopsd_object = %"Service/a/b",
                gitopsd_run = 7,
                "configured \x1b[2J"
            );
            tracing::info!(target: "some_library", "quiet");
            tracing::warn!(target: "some_library", "loud");
        });
        assert_eq!(text, " INFO configured \u{fffd}[2J run=7\n WARN loud\n");
    }

    #[test]
    fn response_bodies_of_the_api_server_are_never_printed() {
        let text = printed(Some("trace,kube_client::client=trace"), || {
            tracing::warn!(target: "kube_client::client", "{{\"kind\":\"Secret\"}}, error");
            tracing::trace!(target: "kube_client::client::middleware", "Status from body");
            tracing::error!(target: "kube_client::client", "connection refused");
            tracing::debug!(target: "kube_runtime", "watch restarted");
        });
        assert_eq!(text, "ERROR connection refused\nDEBUG watch restarted\n");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = levels(Some("gitopsd=loud".to_owned())).expect_err("no such level");
        assert!(error.to_string().starts_with("GITOPSD_LOG=\"gitopsd=loud\" is not a filter: "));
        assert!(levels(Some("  ".to_owned())).is_ok());
    }
}
