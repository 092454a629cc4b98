//! `gitopsd init`: from a bare host to one that follows Git.
//!
//! [`run`] goes through the steps in `steps`, each told by a line (`tell`): rights, the answers
//! (`answers`°; `gather` has them from flags, from what stands, from questions of `ask`, and `faults`
//! says of all that is wrong with them whose fault it is), `cluster`, the keys of an ssh server
//! (`ssh`), the `repository`, the `age` key, and then everything at once into place (`plan` says
//! what, `store` does it, `force` has both done), the `service` restarted and its first pass
//! followed. `seal` is `systemd-creds`, `child` runs other programs, `url`° knows short forms.
//!
//! Nothing is written before everything was tried, but for a deploy key that was made for a
//! repository, which has to be added there. The main file is never written: what was answered lies
//! in `config.d/50-init.yaml`, secrets in `credentials/`, a file for each credential of the unit.
//! All paths follow from `--config`.
//!
//! A step that cannot go on ends everything by a [`Halt`], and the host is as it was, but for new
//! keys: the deploy key, and an age key once files are written at all. They stay from then on. Where
//! the process itself is killed, the next one settles it, see `store`.

mod age;
mod answers;
mod ask;
mod child;
mod cluster;
mod faults;
mod force;
mod gather;
mod plan;
mod repository;
mod seal;
mod service;
mod ssh;
mod steps;
mod store;
mod tell;
mod url;

pub use seal::{open as open_sealed, open_all};

use super::words;
use super::{Context, Exit};
use crate::config::RootRef;
use std::path::PathBuf;
use std::time::Duration;
use steps::Init;
use tell::Halt;

const EXAMPLES: &str = "EXAMPLES
  sudo gitopsd init                                    asks for everything
  sudo gitopsd init --repo https://git.example/infra/flux-config.git \\
      --path clusters/my-cluster --password-file token --recovery age1...
  sudo gitopsd init --repo git@git.example:infra/flux-config.git \\
      --path clusters/my-cluster --generate-identity \\
      --host-key-fingerprint SHA256:... --no-recovery
  sudo gitopsd init --seal                             later: seal the keys to this machine

EXIT CODES
  0 done, and the cluster follows Git   1 something stands in the way, or is not ready
  2 something was not said, or cannot be meant so   78 the configuration would be wrong";

/// Set this host up: repository, keys, first reconcile
///
/// Asks on a terminal, and takes flags elsewhere. Tries everything before it writes anything, and
/// can be run again: what is so already is left alone, and an age key is never replaced or removed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The flux-config repository: https://, ssh:// or git@HOST:PATH
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The entry directory in it, such as clusters/my-cluster
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Follow a branch [default: main]
    #[arg(long, value_name = "NAME", group = "reference")]
    branch: Option<String>,
    /// Follow one tag
    #[arg(long, value_name = "NAME", group = "reference")]
    tag: Option<String>,
    /// Follow the highest tag in a range
    #[arg(long, value_name = "RANGE", group = "reference")]
    semver: Option<String>,
    /// Stay at one commit
    #[arg(long, value_name = "SHA", group = "reference")]
    commit: Option<String>,
    /// How often the remote is asked [default: 1m]
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
    /// User for https [default: git]
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File with the password or access token for https
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    password_file: Option<PathBuf>,
    /// File with a bearer token for https
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the CA that signed the server's certificate
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Private key for ssh
    #[arg(long, value_name = "FILE", conflicts_with = "generate_identity")]
    identity: Option<PathBuf>,
    /// Make a deploy key for ssh, unless there is one
    #[arg(long)]
    generate_identity: bool,
    /// File with the ssh server's key
    #[arg(long, value_name = "FILE", conflicts_with = "host_key_fingerprint")]
    known_hosts: Option<PathBuf>,
    /// Fingerprint that the ssh server's key must have
    #[arg(long, value_name = "SHA256:…")]
    host_key_fingerprint: Option<String>,
    /// File with the age identities of this host
    #[arg(long, value_name = "FILE", conflicts_with = "generate_age_key")]
    age_key: Option<PathBuf>,
    /// Make an age key even if Flux left one in the cluster, unless there is one here
    #[arg(long)]
    generate_age_key: bool,
    /// Public key of a second recipient, whose secret half lies elsewhere
    #[arg(long, value_name = "AGE_RECIPIENT", conflicts_with = "no_recovery")]
    recovery: Option<String>,
    /// Do without one: who loses this host loses what is sealed to it alone
    #[arg(long)]
    no_recovery: bool,
    /// The cluster's kubeconfig [default: /etc/rancher/k3s/k3s.yaml]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Seal keys and credentials to this machine with systemd-creds
    #[arg(long)]
    seal: bool,
    /// Try everything, write nothing, and say what would be written
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before writing
    #[arg(long, short)]
    yes: bool,
    /// Leave the service alone
    #[arg(long)]
    no_restart: bool,
    /// Do not follow the first reconcile
    #[arg(long)]
    no_wait: bool,
    /// Give up following after this time; the run goes on
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = words::duration)]
    timeout: Duration,
}

impl Args {
    fn reference(&self) -> Option<RootRef> {
        let branch = self.branch.clone().map(RootRef::Branch);
        let tag = self.tag.clone().map(RootRef::Tag);
        let semver = self.semver.clone().map(RootRef::Semver);
        let sha = self.commit.clone();
        let commit = sha.map(|sha| RootRef::Commit { sha, branch: None });
        branch.or(tag).or(semver).or(commit)
    }

    /// The flag that has said what stands under a key of the configuration, if one has.
    fn flag(&self, key: &str) -> Option<&'static str> {
        let (flag, said) = match key {
            "root.url" => ("--repo", self.repo.is_some()),
            "root.path" => ("--path", self.path.is_some()),
            "root.ref.branch" => ("--branch", self.branch.is_some()),
            "root.ref.tag" => ("--tag", self.tag.is_some()),
            "root.ref.semver" => ("--semver", self.semver.is_some()),
            "root.ref.commit" => ("--commit", self.commit.is_some()),
            "root.interval" => ("--interval", self.interval.is_some()),
            "root.credentials.username" => ("--username", self.username.is_some()),
            "kubeconfig" => ("--kubeconfig", self.kubeconfig.is_some()),
            "decryption.recovery" => ("--recovery", self.recovery.is_some()),
            _ => return None,
        };
        said.then_some(flag)
    }
}

/// Sets the host up.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let init = Init::new(context, args)?;
    let exit = match init.go() {
        Ok(exit) => exit,
        Err(Halt::Found(findings, exit)) => {
            findings.into_iter().try_for_each(|finding| init.teller.tell(finding))?;
            exit
        }
        Err(Halt::Error(error)) => return Err(error),
    };
    if context.terminal.is_json() {
        context.terminal.json(&init.report())?;
    }
    Ok(exit)
}
