//! The daemon under a supervisor that numbers its effects and makes one of them the last.
//!
//! The supervisor is `effects.c`, compiled once for a run of the tests. It sees every system call
//! that changes a file below one directory, and every request that changes something behind an API
//! server, as long as that is asked in plain HTTP: [`front`] puts `kubectl proxy` before a control
//! plane for this.

use super::children::{dying, spawn};
use super::tools;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What is to happen at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: the effects are counted.
    Count,
    /// Killed just before effect number N; the first is 1.
    Kill(usize),
    /// The first half of effect N is written, then killed.
    Tear(usize),
    /// From effect N on (0: from the start), and while the file `fault` is there, the disk answers with this error.
    Fault(usize, &'static str),
    /// The same from the first effect that reads so, `sync NAME`.
    FaultOn(&'static str, &'static str),
}

/// The supervisor's command line; the program and its arguments are to follow.
///
/// `log` gets a line for each effect, see [`read`].
pub fn supervise(root: &Path, log: &Path, fate: Fate, fault: &Path) -> Command {
    let mut command = dying(supervisor());
    command.arg("--root").arg(root).arg("--log").arg(log);
    let when = |at: usize| ("--at", at.to_string());
    let order = match fate {
        Fate::Count => None,
        Fate::Kill(at) => Some((when(at), "kill")),
        Fate::Tear(at) => Some((when(at), "tear")),
        Fate::Fault(at, error) => Some((when(at), error)),
        Fate::FaultOn(effect, error) => Some((("--on", effect.to_owned()), error)),
    };
    if let Some(((option, value), what)) = order {
        command.args([option, &value, "--do", what]).arg("--while").arg(fault);
    }
    command.arg("--");
    command
}

/// What a log tells.
#[derive(Debug, Default)]
pub struct Effects {
    /// `write history.db-wal 4096 @32` or `PATCH /api/v1/…`, in order.
    pub all: Vec<String>,
    /// Whether the program was killed by its supervisor.
    pub cut: bool,
    /// Calls that were answered with an error.
    pub failed: usize,
}

/// Reads the log of a supervisor.
pub fn read(log: &Path) -> Effects {
    let mut effects = Effects::default();
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        match line.split_once(' ') {
            Some(("pid", _)) => {}
            Some(("failed", _)) => effects.failed += 1,
            None if line == "cut" => effects.cut = true,
            _ => effects.all.push(line.to_owned()),
        }
    }
    effects
}

/// Whether an effect is one that others can see or that must last: a request, a flush, a rename,
/// a write to a file that has its name already.
pub fn matters(effect: &str) -> bool {
    ["sync ", "rename ", "unlink "].iter().any(|verb| effect.starts_with(verb))
        || effect.contains(" /api")
        || (effect.starts_with("write ") && !effect.contains("/.tmp"))
}

fn supervisor() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = PROGRAM.get_or_init(|| {
        let dir = TempDir::with_prefix("gitopsd-effects-").expect("a temporary directory");
        let program = dir.path().join("effects");
        // A C compiler is there wherever gitopsd itself was built.
        let made = Command::new("cc")
            .args(["-O1", "-Wall", "-o"])
            .arg(&program)
            .arg(tools::source("tests/it/bed/effects.c"))
            .status();
        assert!(made.expect("cc is part of the build dependencies").success());
        (dir, program)
    });
    program
}

/// A kubeconfig that reaches a control plane in plain HTTP, with the rights of another one.
pub fn front(kubeconfig: &Path, dir: &Path) -> (PathBuf, Child) {
    let mut command = dying(tools::bin().join("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(["proxy", "--port=0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = spawn(command).expect("kubectl can be run");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("kubectl tells its port");
    let address = line.trim().rsplit(' ').next().expect("`Starting to serve on HOST:PORT`");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n"
    );
    let path = dir.join("kubeconfig.front");
    fs::write(&path, text).expect("ours to write");
    (path, child)
}
