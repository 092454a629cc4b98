//! New configuration and new credentials under a running daemon, and a host without any.

use crate::bed::{TEST_KEY, dying};
use crate::world::{App, PATIENCE, World, executable, mk_config_map};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Asked at the daemon's own socket: what a wrong configuration says of it does not count.
fn status(world: &World) -> serde_json::Value {
    let socket = world.path("run/api.sock");
    let output = world.run(&["--socket", socket.to_str().expect("UTF-8"), "status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn started(world: &World) -> i64 {
    status(world)["daemon"]["started_ms"].as_i64().unwrap_or_default()
}

/// The verb at the same socket.
fn reload(world: &World, more: &[&str]) -> std::process::Output {
    let socket = world.path("run/api.sock");
    let socket = socket.to_str().expect("UTF-8");
    world.run(&[&["--socket", socket, "reload"], more].concat())
}

fn mk_world() -> World {
    let mut world = mk_quiet_world();
    world.start();
    world.settled();
    world
}

/// Nothing runs in it yet.
fn mk_quiet_world() -> World {
    let world = World::new();
    let files = [("a.yaml", mk_config_map(&world.namespace, "a", "1"))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world
}

/// One whose configuration names no age key: the credential counts.
fn mk_keyless_world() -> World {
    let mut world = mk_quiet_world();
    world.drop_in(NO_KEY);
    world.start();
    world.settled();
    world
}

const NO_KEY: &str = "decryption: {ageKeyFile: null}\n";

#[test]
fn a_right_configuration_is_taken_by_the_same_process_and_a_wrong_one_refused() {
    let world = mk_world();
    let (pid, first) = (world.pid(), started(&world));

    world.drop_in("limits:\n  workers: many\n  color: blue\n");
    let refused = reload(&world, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("test.yaml:2: limits.workers:"), "{said}");
    assert!(said.contains("test.yaml:3: limits.color: unknown key"), "{said}");
    assert_eq!(started(&world), first, "what was in force stays in force");
    assert!(world.log().contains("what was in force stays in force"), "{}", world.log());
    let line = || status(&world)["line"].as_str().unwrap_or_default().to_owned();
    let told = |_: &World| line().contains("the last reload was refused: ");
    world.eventually("status tells of it", told);
    assert!(line().contains("test.yaml:3: limits.color: unknown key"), "{}", line());
    std::fs::remove_file(world.path("config.d/test.yaml")).expect("it was written");
    world.ok(&["reload"]);
    world.eventually("what is on disk is in force again", |world| !told(world));
    assert_eq!(started(&world), first);

    world.drop_in("limits:\n  workers: 2\n");
    world.ok(&["reload"]);
    world.settled();
    let second = started(&world);
    assert!(second > first);
    assert_eq!(world.status()["daemon"]["pid"], pid);
    let history = world.ok(&["history"]);
    assert!(!history.contains("failed"), "{history}");

    assert_eq!(world.ok(&["reload"]).trim(), "nothing has changed");
    // One that is gone is not taken for one that never was: this daemon has one in force.
    let aside = world.path("aside.yaml");
    std::fs::rename(world.path("config.yaml"), &aside).unwrap();
    let refused = reload(&world, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("config.yaml: there is no such file; root: not configured"), "{said}");
    std::fs::rename(aside, world.path("config.yaml")).unwrap();
    assert_eq!(world.ok(&["reload"]).trim(), "nothing has changed");
    assert_eq!(started(&world), second);
}

#[test]
fn sighup_does_the_same() {
    let world = mk_world();
    let first = started(&world);
    world.drop_in("limits:\n  workers: 2\n");
    let pid = nix::unistd::Pid::from_raw(world.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    world.eventually("it has started anew", |world| started(world) > first);
    world.settled();
}

#[test]
fn a_credential_is_handed_over_and_taken_back() {
    let world = mk_keyless_world();
    let first = started(&world);
    let key = world.path("other.key");
    let text = "AGE-SECRET-KEY-1D7HJ92AV4QN0F32WLPGH6VCXVQAYJE5PWNVSE2UDAAZRCSHRLLWSANAL78";
    std::fs::write(&key, "not a key\n").unwrap();
    let credential = format!("age-key={}", key.display());
    let refused = world.run(&["reload", "--credential", &credential]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(!said.contains("not a key"), "{said}");
    assert_eq!(started(&world), first);

    // What was refused is still not in force: one that hands nothing over does not know.
    let refused = |world: &World| {
        let line = status(world)["line"].as_str().unwrap_or_default().to_owned();
        line.contains("the last reload was refused: ")
    };
    world.eventually("status tells of it", refused);
    assert_eq!(world.ok(&["reload"]).trim(), "nothing has changed");
    assert!(refused(&world));

    let unknown = world.run(&["reload", "--credential", &format!("nonsense={}", key.display())]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("no credential is called \"nonsense\""), "{said}");

    std::fs::write(&key, format!("{text}\n")).unwrap();
    let given = format!("age-key={}", key.display());
    world.ok(&["reload", "--credential", &given]);
    let second = started(&world);
    assert!(second > first);
    assert_eq!(world.ok(&["reload", "--credential", &given]).trim(), "nothing has changed");
    // A file that is gone says nothing; an empty one takes the credential back.
    let aside = world.path("aside.key");
    std::fs::rename(&key, &aside).unwrap();
    assert_eq!(world.ok(&["reload", "--credential", &given]).trim(), "nothing has changed");
    std::fs::write(&key, "").unwrap();
    world.ok(&["reload", "--credential", &given]);
    assert!(started(&world) > second);
    assert!(!world.log().contains(text), "{}", world.log());
}

#[test]
fn a_file_that_the_configuration_names_wins_over_what_the_unit_hands_over() {
    let mut world = mk_quiet_world();
    let handed = world.path("handed");
    std::fs::create_dir(&handed).unwrap();
    let hand = |id: &str, text: &str| {
        let file = handed.join(id);
        let _ = std::fs::remove_file(&file);
        std::fs::write(&file, text).unwrap();
        // As it looks under systemd, for its ACL mask.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
    };
    let check = |world: &World| {
        let mut command = world.command(&["run", "--check"]);
        let output = command.env("CREDENTIALS_DIRECTORY", &handed).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The key has a file, and of password and token the password is what counts.
    hand("age-key", "not a key\n");
    hand("git-password", "password\n");
    hand("git-token", "token\n");
    assert_eq!(check(&world), (Some(0), String::new()));
    world.drop_in(NO_KEY);
    let (code, said) = check(&world);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("age key file, line 1"), "{said}");

    hand("age-key", TEST_KEY);
    let mut env = dying("env");
    env.arg(format!("CREDENTIALS_DIRECTORY={}", handed.display()));
    world.start_under(env);
    world.settled();
    assert!(!world.log().contains("run chmod"), "what systemd guards is guarded: {}", world.log());
}

#[test]
fn reloads_at_the_same_time_lose_no_credential() {
    let world = mk_keyless_world();
    let keys = ["a.key", "b.key"].map(|name| world.path(name));
    std::fs::copy(world.path("age.key"), &keys[0]).unwrap();
    std::fs::write(&keys[1], world.ok(&["keygen"])).unwrap();
    let given = keys.map(|key| format!("age-key={}", key.display()));
    for round in 0..6 {
        let ask = || {
            let mut command = world.command(&["reload", "--credential", &given[round % 2]]);
            command.stdout(Stdio::null()).spawn().unwrap()
        };
        let asking: Vec<_> = (0..4).map(|_| ask()).collect();
        for mut one in asking {
            assert_eq!(one.wait().unwrap().code(), Some(0), "round {round}: {}", world.log());
        }
        let environment = std::fs::read(format!("/proc/{}/environ", world.pid())).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let directory =
            environment.split('\0').find_map(|v| v.strip_prefix("CREDENTIALS_DIRECTORY="));
        let held = std::path::Path::new(directory.expect("handed over")).join("age-key");
        let wanted = given[round % 2].strip_prefix("age-key=").unwrap();
        assert_eq!(std::fs::read(held).unwrap(), std::fs::read(wanted).unwrap(), "round {round}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_refused_with_the_chmod_to_run() {
    let world = mk_world();
    let first = started(&world);
    let key = world.path("age.key");
    let mode =
        |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    world.drop_in("limits:\n  workers: 2\n");
    let refused = reload(&world, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("has mode 0644") && said.contains("chmod 0400 "), "{said}");
    assert_eq!(started(&world), first, "what was in force stays in force");
    let check = world.run(&["run", "--check"]);
    assert_eq!(check.status.code(), Some(78), "{}", String::from_utf8_lossy(&check.stderr));
    mode(0o400);
    assert_eq!(reload(&world, &[]).status.code(), Some(0));
    let second = started(&world);
    assert!(second > first);

    // So is the edge's token, which each start reads whether there is an edge or not.
    let token = world.path("credentials/cloudflare-token");
    std::fs::create_dir(world.path("credentials")).unwrap();
    std::fs::write(&token, "token\n").unwrap();
    let mode =
        |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let remedy = format!("chmod 0400 {}", token.display());
    let refused = reload(&world, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&remedy), "{said}");
    assert_eq!(started(&world), second);
    let check = world.run(&["run", "--check"]);
    assert_eq!(check.status.code(), Some(78), "{}", String::from_utf8_lossy(&check.stderr));
    let check = world.run(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{said}");
    assert!(said.contains(&remedy), "{said}");
    mode(0o400);
    assert_eq!(reload(&world, &[]).status.code(), Some(0));
    assert!(started(&world) > second);
}

#[test]
fn a_host_that_nobody_configured_waits_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut command = dying("env");
    command.arg(format!("NOTIFY_SOCKET={}", dir.path().join("notify").display()));
    command.arg("WATCHDOG_USEC=400000").arg(executable());
    command.arg("--config").arg(dir.path().join("config.yaml")).arg("run");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut heard, mut buffer, began) = (String::new(), [0; 4096], Instant::now());
    let all = |heard: &str| {
        ["READY=1", "STATUS=not configured: run gitopsd init", "WATCHDOG=1"]
            .iter()
            .all(|part| heard.contains(part))
    };
    while !all(&heard) {
        assert!(began.elapsed() < PATIENCE, "{heard}");
        let Ok(length) = told.recv(&mut buffer) else { continue };
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    let mut reload = dying(executable());
    reload.arg("--config").arg(dir.path().join("config.yaml"));
    reload.arg("--socket").arg(dir.path().join("none.sock")).arg("reload");
    let nothing = reload.output().unwrap();
    assert_eq!(nothing.status.code(), Some(0), "a fresh host is no failure");
    assert!(String::from_utf8_lossy(&nothing.stdout).contains("run gitopsd init"));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
