//! `gitopsd init` on a terminal, with a service, and with systemd's sealing.
//!
//! Where a service manager is needed, a script called `systemctl` stands in that records its
//! arguments and starts the daemon: the real one is met in the tests of the package. The terminal
//! and `systemd-creds` are real.

use super::*;
use crate::world::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Instant;

/// `init` on a terminal of its own.
fn script(world: &World) -> Command {
    let program = env!("CARGO_BIN_EXE_gitopsd");
    let config = world.path("config.yaml");
    let command = format!("{program} --config {} init --no-restart", config.display());
    // A question that nobody answers ends the test, not the day.
    let mut script = Command::new("timeout");
    script.args(["--foreground", "90", "script"]);
    script.args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"]);
    script.env("NO_COLOR", "1");
    script
}

/// Answers questions on a terminal, typed ahead, a line for each; what it shows comes back.
fn on_terminal(world: &World, answers: &str) -> (Option<i32>, String) {
    let mut script = script(world);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    child.stdin.take().expect("piped").write_all(answers.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), said(&output))
}

#[test]
fn on_a_terminal_everything_is_asked_for_and_nothing_is_written_without_a_yes() {
    let (world, server) = (World::new(), private_git());
    host(&world);
    repository(&world, &server);
    let (url, password) = (server.url_of("infra/flux-config"), world.path("password"));
    let second = recipient();
    let answers = |last: &str| {
        let password = password.display();
        // What is no answer is asked for again before the next question.
        let (url, path) = (format!("nowhere\n{url}"), "../a\nclusters/a");
        format!("{url}\n\n/nowhere\n{password}\n{path}\nnonsense\n{second}\n{last}\n")
    };
    let before = files(&world);
    let (code, told) = on_terminal(&world, &answers("n"));
    assert_eq!(code, Some(1), "{told}");
    for part in ["Repository", "Branch [main]", "/nowhere", "is no public key of age", "✓ path"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let place = |part: &str| told.find(part).unwrap_or_else(|| panic!("{part}: {told}"));
    assert!(place("no scheme, say https://") < place("Branch [main]"), "{told}");
    assert!(place("is not a directory below") < place("is no public key of age"), "{told}");
    assert_eq!(files(&world), before);
    let (code, told) = on_terminal(&world, &answers("y"));
    assert_eq!(code, Some(0), "{told}");
    let after = files(&world);
    let config = text(&after["config.d/50-init.yaml"].1);
    assert!(config.contains("branch: main") && config.contains(&second), "{config}");
    assert_eq!(text(&after["credentials/git-password"].1), PASSWORD);
    let (code, told) = on_terminal(&world, "");
    assert_eq!(code, Some(0), "nothing is left to ask: {told}");
    assert!(told.contains("nothing was changed"), "{told}");
}

#[test]
fn on_a_terminal_the_host_key_is_compared_and_a_deploy_key_waits_to_be_added() {
    let world = World::new();
    host(&world);
    repository(&world, &world.git);
    let server = SshServer::start(world.git.root());
    let mut script = script(&world);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    let mut typed = child.stdin.take().expect("piped");
    let url = server.url_of("infra/flux-config");
    // The branch, no file of a key, no second recipient; the host key is refused at first.
    let answers = format!("{url}\n\nclusters/a\n\n\nwhat\nyes\n");
    typed.write_all(answers.as_bytes()).expect("it reads");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut told = String::new();
    let mut public = None;
    while let Some(Ok(line)) = lines.next() {
        told += &format!("{line}\n");
        if line.starts_with("ssh-ed25519 ") {
            public = Some(line.trim().to_owned());
            // Too early: nobody has added it.
            typed.write_all(b"\n").expect("it reads");
        } else if line.contains("try again, or Ctrl-C") {
            let accepted = server.identity().with_file_name("authorized_keys");
            let line = fs::read_to_string(&accepted).expect("the bed wrote it");
            let (forced, _) = line.split_once("ssh-ed25519").expect("a key");
            let public = public.clone().expect("it was shown before");
            fs::write(&accepted, format!("{forced}{public}\n")).expect("ours");
            typed.write_all(b"\ny\n").expect("it reads");
        }
    }
    let code = child.wait().expect("it ends").code();
    assert_eq!(code, Some(0), "{told}");
    for part in ["answer yes or no", "✓ host key", "is pinned: SHA256:", "✓ files"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let shown = world.json(&["key", "show"]);
    let line = public.expect("it was shown");
    assert_eq!(shown["deploy"]["public"].as_str(), line.strip_suffix(" gitopsd"));
}

/// Puts a `systemctl` on the program's `$PATH` that records its arguments; `restart` does what
/// is said.
fn systemctl(world: &World, restart: &str) -> String {
    service_manager(world, &world.path("config.yaml"), "restart", restart)
}

/// The same for a service with this configuration, and another verb.
fn service_manager(world: &World, config: &Path, verb: &str, does: &str) -> String {
    let (bin, log) = (world.path("bin"), world.path("systemctl.log"));
    fs::create_dir_all(&bin).expect("ours");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>'{log}'\ncase $1 in\nshow) echo LoadState=loaded; \
         echo 'ExecStart={{ argv[]=gitopsd --config {config} run ; }}' ;;\n{verb}) {does} ;;\n\
         esac\n",
        log = log.display(),
        config = config.display(),
    );
    fs::write(bin.join("systemctl"), script).expect("ours");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bin.join("systemctl"), mode).expect("ours");
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())
}

/// The daemon that a recorded `systemctl restart` started goes with this.
struct Started(PathBuf);

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

#[test]
fn the_service_is_restarted_and_its_first_reconcile_followed_to_its_end() {
    let (world, server) = (World::new(), private_git());
    host(&world);
    let repo = repository(&world, &server);
    let (url, password) = (server.url_of("infra/flux-config"), world.path("password"));
    let password = password.to_str().expect("UTF-8");
    let restart = format!(
        "setsid {} --config '{}' run </dev/null >>'{}' 2>&1 & echo $! >'{}'",
        env!("CARGO_BIN_EXE_gitopsd"),
        world.path("config.yaml").display(),
        world.path("log").display(),
        world.path("pid").display(),
    );
    let path = systemctl(&world, &restart);
    let call = |more: &[&str]| {
        let mut all = arguments(&url, password, more);
        all.retain(|argument| *argument != "--no-restart");
        let mut command = world.command(&all);
        command.env("PATH", &path).stdin(Stdio::null()).output().expect("the program is built")
    };

    let failing = systemctl(&world, "echo 'Job for gitopsd.service failed.' >&2; exit 1");
    assert_eq!(failing, path);
    let before = files(&world);
    let failed = call(&[]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("Job for gitopsd.service failed."), "{}", said(&failed));
    assert!(said(&failed).contains("journalctl -u gitopsd"), "{}", said(&failed));
    let key = world.path("credentials/age-key");
    let stays = format!("every file is as it was, but for the new {}", key.display());
    assert!(said(&failed).contains(&stays), "{}", said(&failed));
    let mut after = files(&world);
    for new in ["credentials/", "credentials/age-key"] {
        assert!(after.remove(new).is_some(), "{new}: what was shown stays");
    }
    assert_eq!(after, before, "a service that does not start costs nothing");

    systemctl(&world, &restart);
    fs::remove_file(world.path("systemctl.log")).expect("it was called");
    let started = Started(world.path("pid"));
    let began = Instant::now();
    let done = call(&["--timeout", "80s", "--json"]);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(done.status.code(), Some(0), "{}\n{}", said(&done), world.log());
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["ready"], true);
    assert_eq!(report["changed"].as_array().map(Vec::len), Some(2), "the key was there");
    let progress = text(&done.stderr);
    assert!(progress.contains(&format!("Kustomization/flux-system/{}: ready", world.namespace)));
    assert!(world.get("configmap", "made").is_some());
    let calls = fs::read_to_string(world.path("systemctl.log")).expect("it was called");
    assert_eq!(
        calls,
        "show --property=LoadState,ExecStart gitopsd.service\nrestart gitopsd.service\n"
    );

    drop(started);
    let again = call(&["--timeout", "80s"]);
    let started = Started(world.path("pid"));
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    for part in ["nothing was changed", "is restarted", "the cluster follows Git"] {
        assert!(said(&again).contains(part), "a daemon that is away is started: {}", said(&again));
    }

    // What is not ready is named with its cause; what is set up stays.
    drop(started);
    let name = &world.namespace;
    repo.write(&format!("apps/{name}/cm.yaml"), &mk_config_map("no-such-namespace", "lost", "x"));
    repo.commit("broken");
    repo.push("main");
    let broken = call(&["--timeout", "80s", "--interval", "7m"]);
    let _started = Started(world.path("pid"));
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    let told = said(&broken);
    assert!(told.contains("not ready") && told.contains("no-such-namespace"), "{told}");
    let config = fs::read_to_string(world.path("config.d/50-init.yaml")).expect("it stays");
    assert!(config.contains("interval: \"7m\""), "{config}");
}

#[test]
fn credentials_are_sealed_by_systemd_and_named_in_a_drop_in() {
    let (world, server) = (World::new(), private_git());
    host(&world);
    repository(&world, &server);
    let etc = world.path("etc/gitopsd");
    fs::create_dir_all(&etc).expect("ours");
    fs::copy(world.path("config.yaml"), etc.join("config.yaml")).expect("ours");
    let (url, password) = (server.url_of("infra/flux-config"), world.path("password"));
    let (password, key) = (password.display().to_string(), world.path("age.key"));
    // systemd keeps its host key there: this one goes with the mount namespace, or with the test.
    let vault = world.path("run/vault");
    fs::create_dir_all(&vault).expect("ours");
    // What there is as systemd reads the drop-in.
    let seen = world.path("run/seen");
    let look = format!("ls '{}' >'{}'", etc.join("credentials").display(), seen.display());
    let path = service_manager(&world, &etc.join("config.yaml"), "daemon-reload", &look);
    let call_in = |dir: &Path, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /var/lib/systemd && exec \"$@\"").arg(&vault);
        command.arg(env!("CARGO_BIN_EXE_gitopsd")).arg("--config").arg(dir.join("config.yaml"));
        command.args(arguments).env("PATH", &path).stdin(Stdio::null());
        command.output().expect("util-linux is everywhere")
    };
    let call = |arguments: &[&str]| call_in(&etc, arguments);
    let whole = arguments(&url, &password, &["--age-key", key.to_str().expect("UTF-8")]);
    let whole: Vec<&str> = whole.into_iter().filter(|a| *a != "--generate-age-key").collect();
    let plain = call(&whole);
    assert_eq!(plain.status.code(), Some(0), "{}", said(&plain));
    let sealed = call(&["init", "--seal", "--no-recovery", "--no-wait"]);
    assert_eq!(sealed.status.code(), Some(0), "{}", said(&sealed));
    // A power cut in between, or a restart of the unit as it was known, finds the keys.
    let keys = "age-key\nage-key.cred\ngit-password\ngit-password.cred\n";
    assert_eq!(fs::read_to_string(&seen).expect("systemd was told"), keys);
    let below = |dir: &Path| {
        let mut found = BTreeMap::new();
        gather(dir, dir, &mut found);
        found
    };
    let after = below(&world.path("etc"));
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "gitopsd/",
            "gitopsd/config.d/",
            "gitopsd/config.d/50-init.yaml",
            "gitopsd/config.yaml",
            "gitopsd/credentials/",
            "gitopsd/credentials/age-key.cred",
            "gitopsd/credentials/git-password.cred",
            "systemd/",
            "systemd/system/",
            "systemd/system/gitopsd.service.d/",
            "systemd/system/gitopsd.service.d/50-sealed.conf",
        ]
    );
    let unit = text(&after["systemd/system/gitopsd.service.d/50-sealed.conf"].1);
    for id in ["age-key", "git-password"] {
        let cred = etc.join("credentials").join(format!("{id}.cred"));
        assert!(unit.contains(&format!("LoadCredentialEncrypted={id}:{}\n", cred.display())));
        let sealed = &after[&format!("gitopsd/credentials/{id}.cred")].1;
        assert!(!text(sealed).contains(PASSWORD) && !text(sealed).contains("AGE-SECRET"));
    }
    // The same again opens what is sealed, and finds nothing to do; so does whoever shows keys.
    let again = call(&whole);
    assert!(said(&again).contains("nothing was changed"), "{}", said(&again));
    assert_eq!(below(&world.path("etc")), after);
    let shown = call(&["key", "show"]);
    assert!(said(&shown).contains(OURS), "{}", said(&shown));
    let checked = said(&call(&["check"]));
    for part in [&format!("ok    age key: {OURS}"), "ok    root path: clusters/a"] {
        assert!(checked.contains(part), "{part}: {checked}");
    }
    let run = call(&["run"]);
    assert_eq!(run.status.code(), Some(78), "{}", said(&run));
    assert!(said(&run).contains("age-key.cred: is sealed by systemd-creds"), "{}", said(&run));

    // A service that does not start leaves a key that was sealed from the first, and its drop-in.
    let fresh = world.path("fresh/gitopsd");
    fs::create_dir_all(&fresh).expect("ours");
    fs::copy(world.path("config.yaml"), fresh.join("config.yaml")).expect("ours");
    service_manager(&world, &fresh.join("config.yaml"), "restart", "exit 1");
    let mut at_once = arguments(&url, &password, &["--seal"]);
    at_once.retain(|argument| *argument != "--no-restart");
    let failed = call_in(&fresh, &at_once);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("but for the new "), "{}", said(&failed));
    let after = below(&world.path("fresh"));
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "gitopsd/",
            "gitopsd/config.yaml",
            "gitopsd/credentials/",
            "gitopsd/credentials/age-key.cred",
            "systemd/",
            "systemd/system/",
            "systemd/system/gitopsd.service.d/",
            "systemd/system/gitopsd.service.d/50-sealed.conf",
        ]
    );
    let unit = text(&after["systemd/system/gitopsd.service.d/50-sealed.conf"].1);
    assert!(unit.contains("age-key.cred") && !unit.contains("git-password"), "{unit}");
}
