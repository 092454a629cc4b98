//! A Kubernetes control plane: `testcluster up` as a child, see `tests/cluster/up.go`.
//!
//! It runs until its stdin ends, that is until this process does. The shared one is started by the
//! first test that asks for it (four seconds on two idle cores); tests keep apart in it by
//! namespaces, and by [`Cluster::user`] where they count requests.

use super::tools;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tempfile::TempDir;

/// A running control plane.
pub struct Cluster {
    dir: PathBuf,
    server: String,
    /// Numbers of the users that are in use, and the one that was handed out last.
    taken: Mutex<(BTreeSet<usize>, usize)>,
    pipes: Mutex<Pipes>,
    child: Mutex<Child>,
    pids: Value,
}

struct Pipes {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A place in the audit log; what is logged later can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Cluster {
    /// The control plane that all tests of this process share.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start_own)
    }

    /// A control plane of one's own, for a test that stops parts of it.
    ///
    /// The start is bounded by testcluster itself: four minutes. `GITOPSD_TEST_KEEP=1` keeps its
    /// directory, with the logs of all parts, after the test.
    pub fn start_own() -> Cluster {
        let dir = TempDir::with_prefix("gitopsd-cluster-").expect("a temporary directory").keep();
        let log = File::create(dir.join("testcluster.log")).expect("a fresh directory");
        let mut command = Command::new(tools::bin().join("testcluster"));
        command.args(["up", "--dir"]).arg(&dir);
        if std::env::var_os("GITOPSD_TEST_KEEP").is_none() {
            command.arg("--remove");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("testcluster can be run");
        let commands = child.stdin.take().expect("stdin is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("testcluster's stdout can be read");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = fs::read_to_string(dir.join("testcluster.log")).unwrap_or_default();
            panic!("testcluster did not come up:\n{log}")
        });
        Cluster {
            server: ready["server"].as_str().expect("a URL").to_owned(),
            pids: ready["pids"].clone(),
            dir,
            taken: Mutex::new((BTreeSet::new(), 99)),
            pipes: Mutex::new(Pipes { commands, answers }),
            child: Mutex::new(child),
        }
    }

    /// `https://127.0.0.1:PORT`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Everything of this cluster; logs are in `logs/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kubeconfig of user `gitopsd`, a cluster administrator with a token.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The same rights by client certificate, in the form that k3s writes.
    pub fn k3s_kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig.k3s")
    }

    /// A user that nobody else has (`gitopsd-0` to `gitopsd-99`) and its kubeconfig, so that a
    /// test on the shared cluster counts its own requests only. It is the asker's until
    /// [`Cluster::free`].
    pub fn user(&self) -> (String, PathBuf) {
        let mut taken = self.taken();
        // testcluster makes tokens for a hundred users. The one that was free longest comes first:
        // the log may still tell of the last requests of others.
        let last = taken.1;
        let number = (1..=100).map(|step| (last + step) % 100).find(|n| !taken.0.contains(n));
        let number = number.expect("at most a hundred scenarios at a time");
        taken.0.insert(number);
        taken.1 = number;
        let user = format!("gitopsd-{number}");
        let path = self.dir.join("users").join(&user);
        (user, path)
    }

    /// Gives a user back.
    pub fn free(&self, user: &str) {
        if let Some(number) = user.strip_prefix("gitopsd-").and_then(|n| n.parse().ok()) {
            self.taken().0.remove(&number);
        }
    }

    fn taken(&self) -> MutexGuard<'_, (BTreeSet<usize>, usize)> {
        // A test that failed in here has left whole values behind.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs kubectl as user `admin`, whose requests [`Cluster::audit`] leaves out.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with_input(arguments, "")
    }

    /// The same with text on stdin, for `apply -f -`.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(tools::bin().join("kubectl"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.join("home"))
            .env("KUBECONFIG", self.dir.join("kubeconfig.admin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl can be run");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // kubectl may end without reading; its own message then says why.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// What a kubectl that must succeed prints.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {error}", arguments.join(" "));
        String::from_utf8(output.stdout).expect("kubectl prints UTF-8")
    }

    /// Applies manifests as user `admin`.
    pub fn apply(&self, manifests: &str) {
        let output = self.kubectl_with_input(&["apply", "--server-side", "-f", "-"], manifests);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl apply: {error}");
    }

    /// One object as JSON, None if it is not there.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let arguments =
            ["get", "--ignore-not-found", "-o", "json", "--namespace", namespace, kind, name];
        let text = self.kubectl_ok(&arguments);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("kubectl prints JSON"))
    }

    /// The end of the audit log as it is now.
    pub fn mark(&self) -> Mark {
        Mark(fs::metadata(self.audit_log()).map_or(0, |data| data.len()))
    }

    /// The requests that a user has finished since a mark, oldest first, as audit events of level
    /// Metadata. A watch appears when it ends.
    pub fn audit_of(&self, user: &str, since: Mark) -> Vec<Value> {
        let mut file = File::open(self.audit_log()).expect("the API server opens its log at start");
        file.seek(SeekFrom::Start(since.0)).expect("a regular file");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("JSON is UTF-8");
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str::<Value>(line).expect("a line is one event"))
            .filter(|event| event["user"]["username"] == user)
            .collect()
    }

    /// The same for user `gitopsd`.
    pub fn audit(&self, since: Mark) -> Vec<Value> {
        self.audit_of("gitopsd", since)
    }

    /// How many rows the datastore has ever got: the difference of two calls counts writes.
    pub fn writes(&self) -> i64 {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(self.dir.join("kine.db"), flags);
        database
            .and_then(|db| db.query_row("select max(id) from kine", [], |row| row.get(0)))
            .expect("kine keeps its rows in a table called kine")
    }

    /// The process id of a part as it was at the start.
    pub fn pid(&self, part: &str) -> u64 {
        self.pids[part].as_u64().expect("a part of the control plane")
    }

    /// Keeps a copy of the datastore for [`Cluster::put_back`].
    pub fn remember(&self) {
        self.quiesce(|| self.copy_datastore("", ".old"));
    }

    /// Puts the datastore back to what it was: as after a power cut that cost it its last
    /// commits, only longer ago. The API server is away while this happens.
    pub fn put_back(&self) {
        self.quiesce(|| self.copy_datastore(".old", ""));
    }

    fn quiesce(&self, work: impl FnOnce()) {
        for part in ["kube-apiserver", "kine"] {
            self.stop(part);
        }
        work();
        for part in ["kine", "kube-apiserver"] {
            self.start(part);
        }
    }

    fn copy_datastore(&self, from: &str, to: &str) {
        for part in ["", "-wal", "-shm"] {
            let at = |suffix: &str| self.dir.join(format!("kine.db{part}{suffix}"));
            let _ = fs::remove_file(at(to));
            if at(from).exists() {
                fs::copy(at(from), at(to)).expect("ours to write");
            }
        }
    }

    /// Kills `kube-apiserver`, `kine`, `kwok` or another part.
    pub fn stop(&self, part: &str) {
        self.tell("stop", part);
    }

    /// Starts it again, same port and same data; returns when it answers.
    pub fn start(&self, part: &str) {
        self.tell("start", part);
    }

    /// Stops a part's clock: connections stay open and nobody answers.
    pub fn freeze(&self, part: &str) {
        self.tell("freeze", part);
    }

    /// Lets a frozen part go on.
    pub fn thaw(&self, part: &str) {
        self.tell("thaw", part);
    }

    fn tell(&self, verb: &str, part: &str) {
        let mut pipes = self.pipes.lock().expect("no test panics while it talks to testcluster");
        writeln!(pipes.commands, "{verb} {part}").expect("testcluster reads its stdin");
        let mut line = String::new();
        pipes.answers.read_line(&mut line).expect("testcluster answers each line");
        drop(pipes);
        let answer: Value = serde_json::from_str(&line).expect("the answer is JSON");
        assert_eq!(answer["ok"], true, "{verb} {part}: {answer}");
    }

    fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGTERM, so that testcluster ends its parts and removes the directory before we go on.
        if let Ok(child) = self.child.get_mut() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}
