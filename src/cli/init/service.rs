//! The unit `gitopsd.service`: is it installed, does it read this configuration, restart it.

use super::child;
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

const UNIT: &str = "gitopsd.service";

/// The configuration that the unit reads unless its command line says another.
const USUAL: &str = "/etc/gitopsd/config.yaml";

/// systemd waits 90 s for a start and as long for a stop.
const LIMIT: Duration = Duration::from_secs(200);

/// Whether there is a unit that reads `config`.
pub async fn installed(config: &Path) -> anyhow::Result<bool> {
    let arguments = ["show", "--property=LoadState,ExecStart", UNIT];
    let Some(ended) = child::run("systemctl", &arguments, b"", LIMIT).await? else {
        return Ok(false);
    };
    // Without a running systemd it fails, and there is no unit then either.
    Ok(ended.fine && reads(&ended.text(), config))
}

/// Reads the answer of `systemctl show`.
fn reads(shown: &str, config: &Path) -> bool {
    let loaded = shown.lines().any(|line| line == "LoadState=loaded");
    let start = shown.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap_or_default();
    let config = config.to_string_lossy();
    let named = start.contains("--config");
    loaded && if named { start.contains(config.as_ref()) } else { config == USUAL }
}

/// Has systemd read the unit's files again; the service itself is left alone by that.
pub async fn read_anew() -> anyhow::Result<()> {
    call(&["daemon-reload"]).await
}

/// Restarts it.
pub async fn restart() -> anyhow::Result<()> {
    call(&["restart", UNIT]).await
}

async fn call(arguments: &[&str]) -> anyhow::Result<()> {
    let ended = child::run("systemctl", arguments, b"", LIMIT).await?;
    let ended = ended.context("there is no systemctl")?;
    let (verb, words) = (arguments.join(" "), &ended.words);
    anyhow::ensure!(ended.fine, "systemctl {verb}: {words}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_counts_when_it_is_loaded_and_reads_this_configuration() {
        let usual = Path::new(USUAL);
        let start =
            "LoadState=loaded\nExecStart={ path=/usr/bin/gitopsd ; argv[]=gitopsd run ; }\n";
        assert!(reads(start, usual));
        assert!(!reads(start, Path::new("/tmp/config.yaml")));
        assert!(!reads("LoadState=not-found\n", usual));
        let own = start.replace("gitopsd run", "gitopsd --config /srv/c.yaml run");
        assert!(reads(&own, Path::new("/srv/c.yaml")) && !reads(&own, usual));
    }
}
