//! The daemon under a supervisor that numbers its effects and makes one of them the last.
//!
//! The supervisor is `effects.c`, compiled once for a run of the tests. It sees every system call
//! that changes a file below one directory, and every request that changes something behind an API
//! server or pushes to a Git server, as long as that is asked in plain HTTP: [`Front`] puts `kubectl
//! proxy` before a control plane for this, and the Git server of the bed speaks it anyway.

use super::children::{dying, spawn};
use super::tools;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// One effect, told by what it is: numbers over all of them would drift, for a mirror has more
/// packs to flush with every fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// A shell pattern of its line in the log without sizes, `sync NAME` or `PATCH *NAME*`.
    pub effect: String,
    /// It is the Nth that the pattern fits; the first is 1.
    pub nth: usize,
}

impl Point {
    /// The first effect that a pattern fits.
    pub fn first(effect: &str) -> Point {
        Point { effect: effect.to_owned(), nth: 1 }
    }
}

/// What is to happen at an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: the effects are counted.
    Count,
    /// Killed just before the effect.
    Kill(Point),
    /// The first half of the effect is written, then killed.
    Tear(Point),
    /// From the effect on, and while the file `fault` is there, the disk answers with this error.
    Fault(Point, &'static str),
    /// The same from the start.
    Always(&'static str),
}

impl Fate {
    /// Where it happens, if that is at an effect.
    pub fn point(&self) -> Option<&Point> {
        match self {
            Fate::Kill(at) | Fate::Tear(at) | Fate::Fault(at, _) => Some(at),
            Fate::Count | Fate::Always(_) => None,
        }
    }
}

/// The supervisor's command line; the program and its arguments are to follow.
///
/// `log` gets a line for each effect, see [`read`].
pub fn supervise(root: &Path, log: &Path, fate: &Fate, fault: &Path) -> Command {
    let mut command = dying(supervisor());
    command.arg("--root").arg(root).arg("--log").arg(log);
    let order = match fate {
        Fate::Count => None,
        Fate::Kill(at) => Some((Some(at), "kill")),
        Fate::Tear(at) => Some((Some(at), "tear")),
        Fate::Fault(at, error) => Some((Some(at), *error)),
        Fate::Always(error) => Some((None, *error)),
    };
    if let Some((at, what)) = order {
        command.args(["--do", what]).arg("--while").arg(fault);
        if let Some(Point { effect, nth }) = at {
            command.args(["--on", effect, "--at", &nth.to_string()]);
        }
    }
    command.arg("--");
    command
}

/// What a log tells.
#[derive(Debug, Default)]
pub struct Effects {
    /// `write history.db-wal 4096 @32`, `PATCH /api/v1/…` or `POST /a.git/git-receive-pack`, in
    /// order.
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

/// The name in a line of a log: the path of a request, or of a file relative to the directory.
fn name(effect: &str) -> &str {
    effect.split(' ').nth(1).unwrap_or_default()
}

/// Whether an effect is one that others can see or that must last: a request, a flush, a rename,
/// a write to a file that has its name already.
pub fn matters(effect: &str) -> bool {
    ["sync ", "rename ", "unlink "].iter().any(|verb| effect.starts_with(verb))
        || name(effect).starts_with('/')
        || (effect.starts_with("write ") && !effect.contains("/.tmp"))
}

/// How many effects there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// On files, the database's aside.
    pub files: usize,
    /// On the database and its log.
    pub database: usize,
    /// Requests to the API server.
    pub api: usize,
    /// Pushes to a Git server.
    pub pushes: usize,
}

impl Kinds {
    /// Counts them.
    pub fn of(all: &[String]) -> Kinds {
        let mut kinds = Kinds::default();
        for effect in all {
            let kind = match name(effect) {
                name if name.ends_with("/git-receive-pack") => &mut kinds.pushes,
                name if name.starts_with('/') => &mut kinds.api,
                name if name.starts_with("history.db") => &mut kinds.database,
                _ => &mut kinds.files,
            };
            *kind += 1;
        }
        kinds
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kinds { files, database, api, pushes } = self;
        let all = files + database + api + pushes;
        write!(f, "{all} (file {files}, database {database}, API {api}, push {pushes})")
    }
}

/// What to call each effect of a log so that it is found again when the same is done once more.
pub fn points(all: &[String]) -> Vec<Point> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let point = |line: &String| {
        let effect = pattern(line);
        let nth = known.entry(effect.clone()).or_insert(0);
        *nth += 1;
        Point { effect, nth: *nth }
    };
    all.iter().map(point).collect()
}

/// A line of the log without sizes, queries and what is random or counted in names.
fn pattern(line: &str) -> String {
    let mut words = line.split(' ');
    let (what, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = path.split_once('?').map_or((path, ""), |(path, _)| (path, "*"));
    let name = |part: &str| {
        for prefix in [".tmp", ".state.json."] {
            if part.starts_with(prefix) {
                return format!("{prefix}*");
            }
        }
        // A mirror; what a push is sent to has a word there.
        if part.strip_prefix("git-").is_some_and(|number| number.parse::<u64>().is_ok()) {
            return "git-*".to_owned();
        }
        match part.strip_prefix("pack-").and_then(|rest| rest.split_once('.')) {
            Some((_, ending)) => format!("pack-*.{ending}"),
            // Definitions are named for the round in one scenario.
            None if part.ends_with(".test.invalid") => "*.test.invalid".to_owned(),
            None => part.to_owned(),
        }
    };
    let parts: Vec<String> = path.split('/').map(name).collect();
    format!("{what} {}{query}", parts.join("/"))
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

/// A control plane in plain HTTP, with the rights of one kubeconfig: `kubectl proxy`.
pub struct Front {
    /// Reaches it.
    pub kubeconfig: PathBuf,
    address: String,
    child: Child,
}

impl Front {
    /// Puts one before a control plane; its kubeconfig is written to `dir`.
    pub fn start(kubeconfig: &Path, dir: &Path) -> Front {
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
        let kubeconfig = dir.join("kubeconfig.front");
        fs::write(&kubeconfig, text).expect("ours to write");
        Front { kubeconfig, address: address.to_owned(), child }
    }

    /// The items of a list, none if there is no such list; a tenth of what starting kubectl costs.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let mut answer = Vec::new();
        let asked = TcpStream::connect(&self.address).and_then(|mut stream| {
            // 1.0: the answer comes in one piece and ends the connection.
            let host = &self.address;
            write!(
                stream,
                "GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n"
            )?;
            stream.read_to_end(&mut answer)
        });
        asked.expect("kubectl proxy is running");
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = head.map_or(&[][..], |end| &answer[end + 4..]);
        let list: Value = serde_json::from_slice(body).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // It dies with us in any case; so it does not outlive the scenario.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_effect_has_the_same_name_when_it_is_made_again() {
    let log = |mirror: u32, pack: &str, temporary: &str| -> Vec<String> {
        let mirror = format!("mirrors/s/git-{mirror}/objects/pack");
        let lines = [
            format!("write {mirror}/.tmp{temporary} 165 @0"),
            format!("sync {mirror}/pack-{pack}.idx"),
            format!("sync {mirror}/pack-0a0b.idx"),
            format!("rename .state.json.{temporary}"),
            format!("PATCH /api/v1/namespaces/t/configmaps/a?fieldManager={temporary}"),
            "POST /games/app.git/git-receive-pack".to_owned(),
        ];
        lines.to_vec()
    };
    let point = |effect: &str, nth| Point { effect: effect.to_owned(), nth };
    let wanted = vec![
        point("write mirrors/s/git-*/objects/pack/.tmp*", 1),
        point("sync mirrors/s/git-*/objects/pack/pack-*.idx", 1),
        point("sync mirrors/s/git-*/objects/pack/pack-*.idx", 2),
        point("rename .state.json.*", 1),
        point("PATCH /api/v1/namespaces/t/configmaps/a*", 1),
        point("POST /games/app.git/git-receive-pack", 1),
    ];
    assert_eq!(points(&log(1, "58c7", "aB3dE9")), wanted);
    assert_eq!(points(&log(12, "f0f0", "Zz0000")), wanted);
}

#[test]
fn effects_are_told_apart_by_kind() {
    let all = [
        "write mirrors/s/git-1/objects/pack/.tmp1 165 @0",
        "rename .state.json.x",
        "create history.db-wal",
        "pwrite history.db 4096 @0",
        "sync history.db",
        "PATCH /apis/apps/v1/namespaces/t/deployments/a?force=true",
        "POST /games/app.git/git-receive-pack",
    ];
    let kinds = Kinds::of(&all.map(str::to_owned));
    assert_eq!(kinds, Kinds { files: 2, database: 3, api: 1, pushes: 1 });
    assert_eq!(kinds.to_string(), "7 (file 2, database 3, API 1, push 1)");
    assert!(matters(all[5]) && matters(all[6]) && !matters(all[0]));
}
