//! Pure: the merged file as ready types, a struct for each consumer.
//!
//! Defaults, ranges and combinations are decided here and nowhere else. Every problem is
//! collected; a value that is wrong is replaced by its default so that reading can go on, and the
//! whole is thrown away when there was any problem.

use super::edge::EdgeSettings;
use super::fragment::{Node, Value};
use super::problem::{Place, Problem};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Credential ids of the unit (`LoadCredential=ID:PATH`) and the key that each stands in for.
///
/// A key in the file wins, and where it names the very file that the unit takes the credential from,
/// which may be root's alone, what the unit was given of it is read. An id that is missing or empty
/// counts as not given. Where systemd hands none over, a file of that name in `credentials/` beside
/// the main file counts.
pub const CREDENTIALS: [(&str, &str); 9] = [
    ("kubeconfig", "kubeconfig"),
    ("registries", "registries"),
    ("age-key", "decryption.ageKeyFile"),
    ("git-password", "root.credentials.passwordFile"),
    ("git-token", "root.credentials.bearerTokenFile"),
    ("git-identity", "root.credentials.identityFile"),
    ("git-known-hosts", "root.credentials.knownHostsFile"),
    ("git-ca", "root.credentials.caFile"),
    ("cloudflare-token", "edge.cloudflare.tokenFile"),
];

/// The whole configuration of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The entry: repository, ref, path.
    pub root: RootSettings,
    /// The API server.
    pub cluster: ClusterSettings,
    /// How sealed files are opened.
    pub decryption: DecryptionSettings,
    /// k3s's `registries.yaml`: mirrors and credentials of image registries.
    pub registries: Option<PathBuf>,
    /// Where state and sockets live.
    pub directories: Directories,
    /// The render child.
    pub render: RenderSettings,
    /// How much is done at once.
    pub work: WorkSettings,
    /// How much of the past is kept.
    pub history: HistorySettings,
    /// How the box is reached from outside; nothing is done about it when absent.
    pub edge: Option<EdgeSettings>,
    /// Holds the token of the edge's provider. It is named though there is no `edge`, because
    /// what was made before is withdrawn with it.
    pub edge_token_file: Option<PathBuf>,
    /// The files that were read, in the order of merging.
    pub files: Vec<PathBuf>,
}

/// The flux-config repository.
#[derive(Clone, Debug, PartialEq)]
pub struct RootSettings {
    /// `https://`, `http://` or `ssh://`, without a password.
    pub url: String,
    /// What is followed; branch `master` unless said, as in Flux.
    pub reference: RootRef,
    /// Directory of the entry below the repository's top, without `./`; `.` is the top.
    pub path: String,
    /// How often the remote is asked, 1 s to 24 h; 1 m unless said.
    pub interval: Duration,
    /// Files with what the remote asks for.
    pub credentials: RootCredentials,
}

/// What the root follows: the five kinds of Flux's `spec.ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootRef {
    /// A branch.
    Branch(String),
    /// One tag.
    Tag(String),
    /// Highest tag in a Masterminds range.
    Semver(String),
    /// A full ref name, `refs/…`.
    Name(String),
    /// One commit.
    Commit {
        /// 40 hex digits, lower case.
        sha: String,
        /// The branch to fetch it from.
        branch: Option<String>,
    },
}

/// Credentials of the root's remote, by file; all paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootCredentials {
    /// For basic auth; `git` when there is a password and no name.
    pub username: Option<String>,
    /// Holds the password of basic auth.
    pub password_file: Option<PathBuf>,
    /// Holds a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// SSH private key.
    pub identity_file: Option<PathBuf>,
    /// SSH `known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
    /// PEM bundle of a private CA.
    pub ca_file: Option<PathBuf>,
}

/// The API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `/etc/rancher/k3s/k3s.yaml` unless said or given as a credential.
    pub kubeconfig: PathBuf,
    /// True when others own objects in the cluster the way Flux does: those that carry owner
    /// labels and are in no inventory are then left alone.
    pub shared: bool,
    /// How often every object is compared whatever the watches say, 10 s to 168 h; 24 h unless
    /// said.
    pub verify: Duration,
}

/// How sealed files are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecryptionSettings {
    /// The host's age identities.
    pub age_key_file: Option<PathBuf>,
    /// What a wrong SOPS MAC means.
    pub mac: MacPolicy,
    /// A second age recipient, whose key lies elsewhere: `key show` and `init` print it for
    /// `.sops.yaml`, and nothing else reads it.
    pub recovery: Option<String>,
}

/// What a wrong SOPS MAC means; each value is authenticated by its own tag in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacPolicy {
    /// Applied, and named in `status` and by `check`.
    #[default]
    Warn,
    /// The Kustomization stops.
    Enforce,
}

/// Where state and sockets live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// `stateDirectory`, else `$STATE_DIRECTORY`, else `/var/lib/gitopsd`.
    pub state: PathBuf,
    /// `runtimeDirectory`, else `$RUNTIME_DIRECTORY`, else `/run/gitopsd`.
    pub runtime: PathBuf,
}

/// The render child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderSettings {
    /// A kubectl or kustomize to use instead of the one that is found.
    pub engine: Option<PathBuf>,
    /// Where k3s keeps its own kubectl.
    pub k3s_data_directory: PathBuf,
    /// Limit of one child, 1 s to 1 h; 60 s unless said.
    pub timeout: Duration,
    /// Limit of its resident memory in bytes, 64 MiB to 64 GiB; 512 MiB unless said.
    pub memory: u64,
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkSettings {
    /// Kustomizations run side by side, 1 to 64; 4 unless said.
    pub workers: usize,
    /// Requests in flight to the API server, 1 to 256; 16 unless said.
    pub api_requests: usize,
}

/// How much of the past is kept; the inventory never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// Runs older than this expire, 1 to 3650 days; 90 unless said.
    pub days: u32,
    /// Runs beyond this number expire, oldest first, 10 to 1 000 000; 10 000 unless said.
    pub runs: u32,
}

/// What systemd handed over, gathered by `load`.
#[derive(Clone, Debug, Default)]
pub(super) struct Handed {
    pub state: Option<PathBuf>,
    pub runtime: Option<PathBuf>,
    /// Id and path of each credential that is there and not empty.
    pub credentials: Vec<(String, PathBuf)>,
    /// Files that credentials were taken from, and what is to be read in their place.
    pub copies: Vec<(PathBuf, PathBuf)>,
}

/// Types the merged tree; `main` is the main file, for problems that have no line.
pub(super) fn settings(tree: &Node, main: &str, handed: &Handed) -> (Option<Config>, Vec<Problem>) {
    let mut reader = Reader { tree, handed, problems: Vec::new() };
    let root = if reader.find("root").is_some() {
        reader.root()
    } else {
        reader.problems.push(Problem::NotConfigured { file: main.to_owned(), there: true });
        None
    };
    let policy =
        reader.one("decryption.mac", MacPolicy::Warn, "warn or enforce", |said| match said {
            "warn" => Some(MacPolicy::Warn),
            "enforce" => Some(MacPolicy::Enforce),
            _ => None,
        });
    let second = Duration::from_secs(1);
    let timeout = ("render.timeout", Duration::from_secs(60));
    let render = RenderSettings {
        engine: reader.path("render.engine"),
        k3s_data_directory: reader
            .path("render.k3sDataDirectory")
            .unwrap_or_else(|| "/var/lib/rancher/k3s".into()),
        timeout: reader.duration(timeout, second, 3600 * second),
        memory: reader.one("render.memory", 512 << 20, "64Mi to 64Gi, such as 512Mi", |said| {
            bytes(said).filter(|bytes| (64 << 20..=64 << 30).contains(bytes))
        }),
    };
    let work = WorkSettings {
        workers: reader.number("limits.workers", 4, 1, 64) as usize,
        api_requests: reader.number("limits.apiRequests", 16, 1, 256) as usize,
    };
    let history = HistorySettings {
        days: reader.number("limits.historyDays", 90, 1, 3650),
        runs: reader.number("limits.historyRuns", 10_000, 10, 1_000_000),
    };
    let state = reader.path("stateDirectory").or_else(|| handed.state.clone());
    let runtime = reader.path("runtimeDirectory").or_else(|| handed.runtime.clone());
    let directories = Directories {
        state: state.unwrap_or_else(|| "/var/lib/gitopsd".into()),
        runtime: runtime.unwrap_or_else(|| "/run/gitopsd".into()),
    };
    let kubeconfig = reader.secret_file("kubeconfig");
    let cluster = ClusterSettings {
        kubeconfig: kubeconfig.unwrap_or_else(|| "/etc/rancher/k3s/k3s.yaml".into()),
        shared: reader.one("cluster.shared", false, "true or false", |said| said.parse().ok()),
        verify: reader.duration(
            ("cluster.verify", 24 * 3600 * second),
            10 * second,
            168 * 3600 * second,
        ),
    };
    let age_key_file = reader.secret_file("decryption.ageKeyFile");
    let takes = "a public key: age1…, ssh-ed25519 … or ssh-rsa …";
    let recovery = reader.one("decryption.recovery", None, takes, |said| {
        let public = ["age1", "ssh-ed25519 ", "ssh-rsa "].iter().any(|kind| said.starts_with(kind));
        public.then(|| Some(said.to_owned()))
    });
    let decryption = DecryptionSettings { age_key_file, mac: policy, recovery };
    let registries = reader.secret_file("registries");
    let edge = reader.edge();
    let edge_token_file = reader.secret_file("edge.cloudflare.tokenFile");
    let config = root.map(|root| Config {
        root,
        cluster,
        decryption,
        registries,
        directories,
        render,
        work,
        history,
        edge,
        edge_token_file,
        files: Vec::new(),
    });
    (config, reader.problems)
}

pub(super) struct Reader<'a> {
    tree: &'a Node,
    handed: &'a Handed,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// The node at a dotted path; `null` counts as absent.
    pub(super) fn find(&self, path: &str) -> Option<&'a Node> {
        let mut node = self.tree;
        for key in path.split('.') {
            let Value::Map(keys) = &node.value else { return None };
            node = &keys.iter().find(|(known, _)| known == key)?.1;
        }
        (node.value != Value::Null).then_some(node)
    }

    pub(super) fn text(&self, path: &str) -> Option<(&'a str, &'a Place)> {
        match self.find(path)? {
            Node { value: Value::Scalar(text), place } => Some((text, place)),
            _ => None,
        }
    }

    pub(super) fn invalid(
        &mut self,
        path: &str,
        place: &Place,
        what: impl Into<String>,
        fix: &str,
    ) {
        let (place, what) = (place.clone(), what.into());
        self.problems.push(Problem::Invalid { place, key: path.into(), what, fix: fix.into() });
    }

    /// A value or its default; what `parse` refuses is a problem that says what is taken.
    pub(super) fn one<T>(
        &mut self,
        path: &str,
        default: T,
        takes: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some((said, place)) = self.text(path) else { return default };
        parse(said).unwrap_or_else(|| {
            self.invalid(path, place, format!("{said:?} is not taken"), &format!("write {takes}"));
            default
        })
    }

    pub(super) fn number(&mut self, path: &str, default: u32, least: u32, most: u32) -> u32 {
        self.one(path, default, &format!("a number from {least} to {most}"), |said| {
            said.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    pub(super) fn duration(
        &mut self,
        (path, default): (&str, Duration),
        least: Duration,
        most: Duration,
    ) -> Duration {
        let (low, high) = (least.as_secs(), most.as_secs() / 3600);
        let takes = format!("{low}s to {high}h, such as 90s, 10m or 1h30m");
        self.one(path, default, &takes, |said| {
            duration(said).filter(|length| (least..=most).contains(length))
        })
    }

    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        let (said, place) = self.text(path)?;
        if !Path::new(said).is_absolute() {
            let what = format!("{said:?} is not an absolute path");
            self.invalid(path, place, what, "write it from the root: /…");
        }
        Some(PathBuf::from(said))
    }

    /// A path that the file names, or the credential that stands in for it.
    pub(super) fn secret_file(&mut self, path: &str) -> Option<PathBuf> {
        self.named_file(path).or_else(|| self.credential(path))
    }

    /// A path that the file names, or the copy of that very file that is to be read.
    pub(super) fn named_file(&mut self, path: &str) -> Option<PathBuf> {
        let named = self.path(path)?;
        let copy = self.handed.copies.iter().find(|(original, _)| *original == named);
        Some(copy.map(|(_, copy)| copy.clone()).unwrap_or(named))
    }

    pub(super) fn credential(&self, path: &str) -> Option<PathBuf> {
        let (id, _) = CREDENTIALS.iter().find(|(_, key)| *key == path)?;
        let found = self.handed.credentials.iter().find(|(known, _)| known == id);
        found.map(|(_, file)| file.clone())
    }
}

/// `90s`, `1h30m`, `250ms`: whole numbers with a unit, as Go writes durations.
fn duration(said: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, said);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (unit, millis) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find(|(unit, _)| tail.starts_with(unit))?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &tail[unit.len()..];
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// `512Mi`, `1G`, `1048576`: Kubernetes' quantities, whole numbers only.
fn bytes(said: &str) -> Option<u64> {
    let digits = said.find(|c: char| !c.is_ascii_digit()).unwrap_or(said.len());
    let (number, unit) = said.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests;
