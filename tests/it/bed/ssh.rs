//! Git over SSH: OpenSSH's `sshd` on loopback, with host keys and a client key of its own.
//!
//! One key may log in, as the user who runs the test, and can do nothing but `git-upload-pack` and
//! `git-receive-pack` below the root; a file `read-only` there makes it a key that may not push. sshd needs `/run/sshd` when it runs as root; it is made if
//! it is missing, as the package's own unit would.

use super::children;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running sshd.
pub struct SshServer {
    dir: TempDir,
    port: u16,
    user: String,
    child: Child,
}

impl SshServer {
    /// Serves the bare repositories below `root`, say those of a [`super::GitServer`].
    pub fn start(root: &Path) -> SshServer {
        let dir = TempDir::with_prefix("gitopsd-ssh-").expect("a temporary directory");
        for key in ["host_key", "id_ed25519"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "gitopsd test", "-f"])
                .arg(dir.path().join(key))
                .status();
            assert!(made.is_ok_and(|status| status.success()), "ssh-keygen works");
        }
        let me = nix::unistd::User::from_uid(nix::unistd::Uid::current());
        let user = me.ok().flatten().expect("the user who runs the test has a name").name;
        if nix::unistd::Uid::current().is_root() && !Path::new("/run/sshd").exists() {
            fs::DirBuilder::new().mode(0o755).create("/run/sshd").expect("root may make it");
        }

        let file = |name: &str| dir.path().join(name);
        let public = fs::read_to_string(file("id_ed25519.pub")).expect("ssh-keygen wrote it");
        let write = |name: &str, text: String| {
            fs::write(file(name), text).expect("a temporary directory can be written");
        };
        write("git-only", git_only(root));
        fs::set_permissions(file("git-only"), fs::Permissions::from_mode(0o700)).expect("ours");
        let forced = format!("command=\"{}\",restrict {public}", file("git-only").display());
        write("authorized_keys", forced);

        let port = free_port();
        write("sshd_config", sshd_config(dir.path(), port));
        let host = fs::read_to_string(file("host_key.pub")).expect("ssh-keygen wrote it");
        write("known_hosts", format!("[127.0.0.1]:{port} {host}"));

        // sshd insists on an absolute path of its own.
        let mut command = children::dying("/usr/sbin/sshd");
        command.args(["-D", "-f"]).arg(file("sshd_config")).arg("-E").arg(file("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = children::spawn(command).expect("sshd can be run");
        let server = SshServer { dir, port, user, child };
        server.await_port();
        server
    }

    /// `ssh://USER@127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("ssh://{}@127.0.0.1:{}", self.user, self.port)
    }

    /// The URL of a repository, say `infra/flux-config`.
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url())
    }

    /// The private key that may log in.
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("id_ed25519")
    }

    /// A `known_hosts` file with this server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// What sshd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn await_port(&self) {
        // sshd answers within a second; ten are for loaded machines.
        let limit = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < limit, "sshd did not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only program that the key may run.
fn git_only(root: &Path) -> String {
    format!(
        r#"#!/bin/sh
set -eu
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
set -- $SSH_ORIGINAL_COMMAND
verb=$1
path=${{2-}}
path=${{path#\'}}
path=${{path%\'}}
case "$verb $path" in *..*) exit 1 ;; esac
if [ "$verb" = git-receive-pack ] && [ -e "{0}/read-only" ]; then
    echo "ERROR: The key you are authenticating with has been marked as read only." >&2
    exit 1
fi
case $verb in
git-upload-pack | git-receive-pack) exec git "${{verb#git-}}" "{0}/${{path#/}}" ;;
esac
echo "only git is served here" >&2
exit 1
"#,
        root.display()
    )
}

fn sshd_config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey {dir}/host_key\n\
         PidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\n\
         StrictModes no\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         AcceptEnv GIT_PROTOCOL\n\
         PrintMotd no\n\
         MaxStartups 100\n\
         LogLevel VERBOSE\n"
    )
}

/// A port that is free now. sshd cannot be asked which one it took.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    listener.local_addr().expect("a bound socket has an address").port()
}
