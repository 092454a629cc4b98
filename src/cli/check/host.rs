//! This host: everything that the daemon will need, in the order in which it will need it.

use super::finding::{Finding, Level};
use super::{edge, sealed};
use crate::api::{ApiError, Client};
use crate::cli::build::{Given, private};
use crate::cli::init::open_all;
use crate::cli::{Context, terminal};
use crate::cluster::{Cluster, ClusterError, Limits};
use crate::config::{self, Config};
use crate::daemon::{edge_token, entry, host_secrets};
use crate::flux::{GitReference, root};
use crate::pipeline::HostSecrets;
use crate::registry::Mirrors;
use crate::render::{Renderer, Request, Settings, Variables};
use crate::secrets::Keyring;
use crate::source::{Entry, Poll, Remote, Source, Tree};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// A clock this far behind our own files is wrong, whatever time zones do: a day.
const BEHIND_MS: i64 = 86_400_000;

/// Where findings are told as they come.
pub type Tell<'a> = &'a dyn Fn(&Finding) -> std::io::Result<()>;

/// Checks the host; true when the configuration itself is wrong.
pub fn check(
    context: &Context,
    (given, online): (&Given, bool),
    tell: Tell<'_>,
) -> anyhow::Result<(Vec<Finding>, bool)> {
    let mut findings = Vec::new();
    let mut add = |finding: Finding| -> std::io::Result<()> {
        tell(&finding)?;
        findings.push(finding);
        Ok(())
    };
    let mut config = match config::load(&context.config) {
        Ok(config) => config,
        Err(problems) => {
            let fix = problems.not_configured().then(|| "sudo gitopsd init".to_owned());
            for problem in &problems.0 {
                add(Finding::fail("configuration", problem.to_string(), fix.clone()))?;
            }
            return Ok((findings, true));
        }
    };
    let files: Vec<String> = config.files.iter().map(|file| file.display().to_string()).collect();
    add(Finding::ok("configuration", files.join(", ")))?;
    add(clock(&config))?;
    add(directory("state directory", &config.directories.state))?;
    add(directory("runtime directory", &config.directories.runtime))?;
    crate::net::install_crypto();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let opened = private()?;
    if let Err(error) = runtime.block_on(open_all(&mut config, opened.path())) {
        let fix = Some("only root opens sealed credentials: try sudo".to_owned());
        add(Finding::fail("host credentials", format!("{error:#}"), fix))?;
    }
    let secrets = host_secrets(&config);
    let token = edge_token(&config);
    // At once: a Ctrl-C later must not leave them behind.
    drop(opened);
    add(match &secrets {
        Ok(secrets) => keys(&secrets.keyring),
        Err(error) => Finding::fail("host credentials", error.to_string(), error.hint()),
    })?;
    // What is wide open was refused above.
    let key_file = config.decryption.age_key_file.as_deref().filter(|_| secrets.is_ok());
    if let Some(warning) = key_file.and_then(crate::secrets::too_open) {
        add(Finding::warn("age key", warning, None))?;
    }
    if let Some(path) = &config.registries {
        add(registries(path))?;
    }
    add(runtime.block_on(engine(&config, given))?)?;
    add(runtime.block_on(cluster(&config)))?;
    if let Ok(secrets) = &secrets {
        for finding in repository(&config, secrets)? {
            add(finding)?;
        }
    } else {
        let found = "not asked: the host credentials cannot be read";
        add(Finding::warn("root repository", found, None))?;
    }
    for finding in runtime.block_on(edge::check(&config, token, online)) {
        add(finding)?;
    }
    add(runtime.block_on(running(&context.client())))?;
    runtime.shutdown_background();
    Ok((findings, false))
}

/// A Pi has no clock of its own: certificates and timers go wrong with it.
fn clock(config: &Config) -> Finding {
    let database = config.directories.state.join("history.db");
    let newest = config.files.iter().chain([&database]).filter_map(|file| {
        let changed = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()?;
        i64::try_from(changed.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    });
    let now = terminal::now_ms();
    let told = terminal::local(now);
    let fix = || Some("timedatectl set-ntp true, and wait for it".to_owned());
    if newest.max().is_some_and(|newest| newest > now.saturating_add(BEHIND_MS)) {
        let found = format!("{told} is before files of this host were written");
        return Finding::fail("clock", found, fix());
    }
    let timesync = Path::new("/run/systemd/timesync");
    if timesync.exists() && !timesync.join("synchronized").exists() {
        return Finding::warn("clock", format!("{told}, not synchronised yet"), fix());
    }
    Finding::ok("clock", told)
}

fn directory(what: &str, path: &Path) -> Finding {
    let shown = path.display();
    if !path.exists() {
        let fix = "systemd makes it when the service starts".to_owned();
        return Finding::warn(what, format!("{shown} is not there yet"), Some(fix));
    }
    match tempfile::Builder::new().prefix(".gitopsd-check-").tempfile_in(path) {
        Ok(_) => Finding::ok(what, format!("{shown} is writable")),
        Err(error) => {
            let fix = format!("run this as the service's user or root; see ls -ld {shown}");
            Finding::fail(what, format!("{shown}: {error}"), Some(fix))
        }
    }
}

fn keys(keyring: &Keyring) -> Finding {
    if keyring.is_empty() {
        let fix = "name decryption.ageKeyFile, or give the credential age-key".to_owned();
        return Finding::warn("age key", "none: sealed files cannot be opened", Some(fix));
    }
    Finding::ok("age key", keyring.recipients().join(", "))
}

/// k3s's file, which only image automation reads: what is wrong with it stops nothing else.
fn registries(path: &Path) -> Finding {
    let what = "image registries";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let fix = "name a file that is there, or take registries out".to_owned();
            return Finding::warn(what, format!("{}: {error}", path.display()), Some(fix));
        }
    };
    match Mirrors::parse(&path.display().to_string(), &text) {
        Ok(_) => Finding::ok(what, path.display().to_string()),
        Err(problems) => {
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let fix = "until then they are asked as if the file were not there".to_owned();
            Finding::warn(what, told.join("; "), Some(fix))
        }
    }
}

/// Renders an object of its own, as the daemon would: sandbox, limits and all.
async fn engine(config: &Config, given: &Given) -> anyhow::Result<Finding> {
    let what = "render engine";
    let (files, place) = (tempfile::tempdir()?, private()?);
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: check\n";
    std::fs::write(files.path().join("check.yaml"), object)?;
    let mut settings = Settings::new(place.path(), [0; 32]);
    settings.engine = given.engine.clone().or_else(|| config.render.engine.clone());
    settings.data_dir.clone_from(&config.render.k3s_data_directory);
    settings.timeout = config.render.timeout;
    settings.memory = config.render.memory;
    let branch = GitReference::Branch(String::new());
    let request = Request {
        kustomization: root("", branch, "", Duration::from_secs(60)).kustomization,
        source_root: Tree::from_dir(files.path())?,
        keyring: Arc::new(Keyring::empty()),
        variables: Variables::default(),
        copy_age: Duration::MAX,
    };
    let rendered = match Renderer::new(settings.clone()) {
        Ok(renderer) => renderer.render(&request).await,
        Err(error) => Err(error),
    };
    Ok(match rendered {
        Ok(rendered) if rendered.manifests.len() == 1 => {
            let named = settings.program();
            let named = named.map(|path| format!("{} ", path.display())).unwrap_or_default();
            Finding::ok(what, format!("{named}builds in its sandbox"))
        }
        Ok(_) => Finding::fail(what, "builds something else than it was given", None),
        Err(error) => Finding::fail(what, error.to_string(), error.hint()),
    })
}

async fn cluster(config: &Config) -> Finding {
    let what = "API server";
    let path = &config.cluster.kubeconfig;
    let kubeconfig = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let fix = "is k3s installed and started? only root may read its kubeconfig".to_owned();
            return Finding::fail(what, format!("{}: {error}", path.display()), Some(fix));
        }
    };
    let tried = async {
        let cluster = Cluster::connect(&kubeconfig, Limits::default()).await?;
        cluster.ready().await?;
        let version = cluster.version().await?;
        // What the daemon asks first of all.
        cluster.identity().await?;
        let all = cluster.may_everything().await?;
        Ok::<_, ClusterError>((format!("{} is {version}", cluster.server()), all))
    };
    match tried.await {
        Ok((found, true)) => Finding::ok(what, found),
        Ok((found, false)) => {
            let found = format!("{found}, but the kubeconfig's user may not do everything");
            let fix = "bind it to cluster-admin, or some objects will be refused".to_owned();
            Finding::warn(what, found, Some(fix))
        }
        Err(error) => Finding::fail(what, error.to_string(), error.hint()),
    }
}

/// Asks the remote, and fetches one revision into a directory that goes again.
fn repository(config: &Config, secrets: &HostSecrets) -> anyhow::Result<Vec<Finding>> {
    let what = "root repository";
    let source = entry(config).source;
    let remote = Remote {
        url: source.url,
        reference: source.reference,
        credential: secrets.git.clone(),
        timeout: source.timeout,
        ignore: None,
    };
    let (place, runtime) = (tempfile::tempdir()?, private()?);
    let polled = Source::open(place.path(), runtime.path()).and_then(|source| source.poll(&remote));
    let snapshot = match polled {
        Ok(Poll::New(snapshot)) => snapshot,
        Ok(Poll::Unchanged) => anyhow::bail!("an empty mirror cannot be unchanged"),
        Err(error) => return Ok(vec![Finding::fail(what, error.to_string(), error.hint())]),
    };
    let url = crate::source::public_url(&config.root.url);
    let mut findings = vec![Finding::ok(what, format!("{url} is at {}", snapshot.revision))];
    let path = &config.root.path;
    findings.push(match snapshot.tree.entry(path) {
        Ok(Some(Entry::Dir { .. })) => Finding::ok("root path", path.as_str()),
        Ok(_) => {
            let fix = "correct root.path, or the branch".to_owned();
            Finding::fail("root path", format!("{path} is no directory there"), Some(fix))
        }
        Err(error) => Finding::fail("root path", error.to_string(), error.hint()),
    });
    findings.extend(sealed::check(&snapshot.tree, &secrets.keyring.recipients()));
    Ok(findings)
}

async fn running(client: &Client) -> Finding {
    let what = "daemon";
    match client.status(None).await {
        Ok(document) => {
            let fine = document.ready && document.held.is_empty();
            let level = if fine { Level::Ok } else { Level::Warn };
            let fix = (!fine).then(|| "gitopsd status".to_owned());
            Finding { level, what: what.to_owned(), found: document.line, fix }
        }
        Err(error @ ApiError::NotRunning { .. }) => {
            Finding::warn(what, error.to_string(), Some("systemctl start gitopsd".to_owned()))
        }
        Err(error) => Finding::warn(what, error.to_string(), error.hint()),
    }
}
