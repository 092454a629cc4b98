//! One child process, from spawn to the last byte, with a limit on everything.
//!
//! Its environment is empty but for a handful of names, stdin is `/dev/null`, it leads its own
//! process group and dies with us. Output and errors are read with limits; time and resident
//! memory are watched, because Go dies under an address-space limit that would be worth having.
//! Whatever ends the build, and dropping the future is one way, kills the whole group.

use super::RenderError;
use super::engine::Program;
use super::sandbox::Sandbox;
use super::workspace::Workspace;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// Largest build that is read: four times the largest public one (kube-prometheus, 15 MiB).
const MAX_OUTPUT: usize = 64 << 20;

/// Errors are sentences; kustomize repeats itself in long chains.
const MAX_ERRORS: usize = 64 << 10;

/// How often resident memory is looked at: a build grows by some 100 MiB in this time at most.
const WATCH: Duration = Duration::from_millis(100);

/// Bounds of one build.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Longest build.
    pub timeout: Duration,
    /// Most resident memory in bytes.
    pub memory: u64,
}

/// Why there is no output.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine exited with an error; its words, not yet redacted.
    Refused(Zeroizing<String>),
    /// Something else stopped it.
    Stopped(RenderError),
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        Failure::Stopped(error)
    }
}

/// Kills the group unless the child has ended and was waited for.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is what we want.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// Runs the engine on `dir` of the workspace.
///
/// Must be polled on a thread that lives as long as the runtime (a worker, not the blocking
/// pool): the death signal is bound to the thread that forks.
///
/// # Errors
/// The engine's refusal, or what stopped it.
pub(crate) async fn build(
    program: &Program,
    workspace: &Workspace,
    dir: &str,
    limits: &Limits,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let start = |error: std::io::Error| RenderError::Start {
        program: program.path.clone(),
        problem: error.to_string(),
    };
    let mut child = spawn(program, workspace, dir, limits).map_err(start)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let output = child.stdout.take();
    let errors = child.stderr.take();
    let watched = child.id();
    let run = async {
        let (output, errors) = tokio::join!(read(output, MAX_OUTPUT), read(errors, MAX_ERRORS));
        child.wait().await.map(|status| (status, output, errors))
    };
    let (status, output, errors) = tokio::select! {
        ended = tokio::time::timeout(limits.timeout, run) => match ended {
            Ok(ended) => ended.map_err(start)?,
            Err(_) => return Err(RenderError::Timeout { after: limits.timeout }.into()),
        },
        () = outgrown(watched, limits.memory) => {
            return Err(RenderError::Memory { limit: limits.memory }.into());
        }
    };
    group.0 = None;
    conclude(status, output, &errors)
}

fn conclude(
    status: ExitStatus,
    output: Option<Zeroizing<Vec<u8>>>,
    errors: &Option<Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Some(output) = output else {
        return Err(RenderError::Output { limit: MAX_OUTPUT }.into());
    };
    if status.success() {
        return Ok(output);
    }
    let said = errors.as_ref().map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let said = match said {
        None => format!("more than {} KiB of errors", MAX_ERRORS >> 10),
        Some(said) if said.is_empty() => format!("ended with {status} and no message"),
        Some(said) => said,
    };
    Err(Failure::Refused(Zeroizing::new(said)))
}

#[allow(unsafe_code)] // pre_exec: the sandbox must be entered by the child itself.
fn spawn(
    program: &Program,
    workspace: &Workspace,
    dir: &str,
    limits: &Limits,
) -> std::io::Result<Child> {
    let sandbox = Sandbox::prepare(workspace.path(), &program.path)?;
    if !sandbox.confines_files() {
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| {
            tracing::warn!("this kernel has no Landlock: builds are confined by seccomp only");
        });
    }
    let parent = nix::unistd::getpid().as_raw();
    let mut command = Command::new(&program.path);
    command
        .arg0(&program.name)
        .args(program.arguments(&workspace.path().join(dir)))
        .current_dir(workspace.path())
        .env_clear()
        .env("HOME", workspace.path())
        .env("TMPDIR", workspace.path())
        .env("KUBECONFIG", "/dev/null")
        .env("KUBERC", "off")
        // The collector works harder from three quarters of the limit on.
        .env("GOMEMLIMIT", (limits.memory / 4 * 3).to_string())
        .env("GOMAXPROCS", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: `enter` makes system calls only, on values prepared above; it neither allocates
    // nor takes a lock, as the time between fork and exec demands.
    unsafe {
        command.pre_exec(move || sandbox.enter(parent));
    }
    command.spawn()
}

/// Reads to the end; `None` when there is more than `limit`, which closes the pipe and so ends
/// the child.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut read = Zeroizing::new(Vec::new());
    let Some(mut pipe) = pipe else { return Some(read) };
    let mut chunk = Zeroizing::new(vec![0; 64 << 10]);
    // An error of a pipe whose other end died is its end.
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            break;
        }
        if read.len() + count > limit {
            return None;
        }
        read.extend_from_slice(&chunk[..count]);
    }
    Some(read)
}

/// Returns once the process holds more than `limit` bytes in memory; never when it ends before.
async fn outgrown(pid: Option<u32>, limit: u64) {
    let Some(pid) = pid else { return std::future::pending().await };
    loop {
        tokio::time::sleep(WATCH).await;
        // The second field is the resident set in pages of 4 KiB (both our architectures).
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        match pages {
            Some(pages) if pages * 4096 > limit => return,
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}
