//! Pure: what was said, what stands already, and what is still missing.
//!
//! An answer comes from a flag, from a question, or from the configuration that stands; `init`
//! asks for the rest on a terminal and names all of it at once elsewhere.

use super::url::{Server, server};
use crate::cli::public::knows_host;
use crate::config::{Config, RootRef};
use std::path::{Path, PathBuf};

/// Where k3s writes its kubeconfig: the configuration's own default, which needs no line.
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// What is followed when nobody says: what `flux bootstrap` follows.
const BRANCH: &str = "main";

/// The second recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// This public key.
    Recipient(String),
    /// None, on purpose.
    None,
}

/// Answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The repository, in the configuration's form.
    pub url: Option<String>,
    /// The entry.
    pub path: Option<String>,
    /// What is followed.
    pub reference: Option<RootRef>,
    /// As written.
    pub interval: Option<String>,
    /// For basic auth.
    pub username: Option<String>,
    /// If it is not k3s's own place.
    pub kubeconfig: Option<PathBuf>,
    /// The second recipient.
    pub recovery: Option<Recovery>,
}

/// Something that nobody has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Which repository.
    Repository,
    /// Which directory of it.
    Path,
    /// The deploy key of an ssh source.
    Identity,
    /// The server's own key.
    HostKey,
    /// Who else can open sealed files.
    Recovery,
}

impl Missing {
    /// The flags that say it.
    pub fn flags(self) -> &'static str {
        match self {
            Missing::Repository => "--repo URL",
            Missing::Path => "--path DIRECTORY, such as clusters/my-cluster",
            Missing::Identity => "--identity FILE, or --generate-identity",
            Missing::HostKey => "--known-hosts FILE, or --host-key-fingerprint SHA256:…",
            Missing::Recovery => {
                "--recovery AGE_RECIPIENT (gitopsd keygen makes one), or --no-recovery"
            }
        }
    }
}

/// What is at hand besides the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtHand {
    /// A deploy key lies here, was named, or is to be made.
    pub identity: bool,
    /// The lines of `known_hosts` that lie here or were named.
    pub known_hosts: String,
    /// The fingerprint of the server's key was said.
    pub fingerprint: bool,
    /// A second recipient was configured by hand.
    pub recovery: bool,
}

impl Answers {
    /// What stands, where it still counts: what is said of another repository says nothing here.
    /// `own` is the file of an earlier `init` alone, for what need not be repeated where somebody
    /// wrote it by hand.
    pub fn fill(&mut self, standing: Option<&Config>, own: Option<&Config>) {
        if let Some(Config { root, .. }) = standing
            && self.url.as_ref().is_none_or(|url| *url == root.url)
        {
            self.url = Some(root.url.clone());
            self.path.get_or_insert_with(|| root.path.clone());
            self.reference.get_or_insert_with(|| root.reference.clone());
        }
        let Some(Config { root, cluster, decryption, .. }) = own else { return };
        if self.kubeconfig.is_none() && cluster.kubeconfig != Path::new(KUBECONFIG) {
            self.kubeconfig = Some(cluster.kubeconfig.clone());
        }
        if self.recovery.is_none() {
            self.recovery = decryption.recovery.clone().map(Recovery::Recipient);
        }
        if self.url.as_ref() != Some(&root.url) {
            return;
        }
        if self.interval.is_none() && root.interval.as_secs() != 60 {
            self.interval = Some(crate::flux::format_duration(root.interval));
        }
        if self.username.is_none() {
            self.username = root.credentials.username.clone().filter(|name| name != "git");
        }
    }

    /// The repository's server.
    pub fn server(&self) -> Option<Server> {
        server(self.url.as_deref()?)
    }

    /// Everything that must be said before anything can be done, in the order of asking.
    pub fn missing(&self, at_hand: &AtHand) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut need = |lacks: bool, what: Missing| {
            if lacks {
                missing.push(what);
            }
        };
        need(self.url.is_none(), Missing::Repository);
        need(self.path.is_none(), Missing::Path);
        if let Some(Server { host, port, .. }) = self.server().filter(|s| s.scheme == "ssh") {
            need(!at_hand.identity, Missing::Identity);
            let known = knows_host(&at_hand.known_hosts, &host, Some(port));
            need(!known && !at_hand.fingerprint, Missing::HostKey);
        }
        need(self.recovery.is_none() && !at_hand.recovery, Missing::Recovery);
        missing
    }

    /// The text of `50-init.yaml`. The same answers give the same text.
    pub fn config(&self) -> String {
        let mut text = String::from(
            "# Written by `gitopsd init`, which writes it anew: settings of your own belong into \
             another\n# file of config.d. Files with later names win.\nroot:\n",
        );
        let mut line = |indent: usize, key: &str, value: &str| {
            let value = if value.is_empty() { String::new() } else { format!(" {}", quote(value)) };
            text.push_str(&format!("{}{key}:{value}\n", " ".repeat(indent)));
        };
        line(2, "url", self.url.as_deref().unwrap_or_default());
        line(2, "ref", "");
        match self.reference.clone().unwrap_or_else(|| RootRef::Branch(BRANCH.to_owned())) {
            RootRef::Branch(name) => line(4, "branch", &name),
            RootRef::Tag(name) => line(4, "tag", &name),
            RootRef::Semver(range) => line(4, "semver", &range),
            RootRef::Name(name) => line(4, "name", &name),
            RootRef::Commit { sha, branch } => {
                line(4, "commit", &sha);
                branch.iter().for_each(|branch| line(4, "branch", branch));
            }
        }
        line(2, "path", self.path.as_deref().unwrap_or_default());
        if let Some(interval) = &self.interval {
            line(2, "interval", interval);
        }
        if let Some(username) = &self.username {
            line(2, "credentials", "");
            line(4, "username", username);
        }
        if let Some(kubeconfig) = &self.kubeconfig
            && kubeconfig != Path::new(KUBECONFIG)
        {
            line(0, "kubeconfig", &kubeconfig.display().to_string());
        }
        if let Some(Recovery::Recipient(recipient)) = &self.recovery {
            line(0, "decryption", "");
            line(2, "recovery", recipient);
        }
        text
    }
}

/// Plain where YAML reads it as the same text, else quoted as JSON does, which YAML reads too.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+".contains(c);
    let safe = value.chars().all(plain)
        && value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !value.ends_with(':')
        && !value.eq_ignore_ascii_case("null");
    if safe { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(url: &str) -> Answers {
        Answers { url: Some(url.to_owned()), path: Some("clusters/a".into()), ..Answers::default() }
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once_and_ssh_needs_more() {
        use Missing::*;
        let nothing = AtHand::default();
        assert_eq!(Answers::default().missing(&nothing), [Repository, Path, Recovery]);
        let https = Answers { recovery: Some(super::Recovery::None), ..answers("https://h/r") };
        assert_eq!(https.missing(&nothing), []);
        let ssh = answers("ssh://git@h:2222/r");
        assert_eq!(ssh.missing(&nothing), [Identity, HostKey, Recovery]);
        let known = |name: &str| AtHand {
            identity: true,
            known_hosts: format!("{name} ssh-ed25519 AAAA\n"),
            ..AtHand::default()
        };
        assert_eq!(ssh.missing(&known("[h]:2222")), [Recovery]);
        assert_eq!(ssh.missing(&known("h")), [HostKey, Recovery]);
        assert_eq!(ssh.missing(&AtHand { fingerprint: true, ..known("h") }), [Recovery]);
    }

    #[test]
    fn the_configuration_says_what_was_answered_and_no_default() {
        let full = Answers {
            reference: Some(RootRef::Semver(">=1.0".into())),
            interval: Some("5m".into()),
            username: Some("a \"b\"".into()),
            kubeconfig: Some("/srv/kubeconfig".into()),
            recovery: Some(Recovery::Recipient("age1b".into())),
            ..answers("https://h/r")
        };
        let (_, body) = full
            .config()
            .split_once("root:\n")
            .map(|(a, b)| (a.len(), b.to_owned()))
            .expect("a head");
        assert_eq!(
            body,
            "  url: https://h/r\n  ref:\n    semver: \">=1.0\"\n  path: clusters/a\n  \
             interval: \"5m\"\n  credentials:\n    username: \"a \\\"b\\\"\"\n\
             kubeconfig: /srv/kubeconfig\ndecryption:\n  recovery: age1b\n"
        );
        let least = answers("https://h/r").config();
        assert!(
            least.ends_with(
                "root:\n  url: https://h/r\n  ref:\n    branch: main\n  path: clusters/a\n"
            ),
            "{least}"
        );
        let usual = Answers { kubeconfig: Some(KUBECONFIG.into()), ..answers("https://h/r") };
        assert_eq!(usual.config(), least);
    }

    #[test]
    fn words_that_yaml_would_take_for_something_else_are_quoted() {
        for (said, written) in [
            ("main", "main"),
            ("feature/x", "feature/x"),
            ("1.0", "\"1.0\""),
            ("a: b", "\"a: b\""),
            ("*", "\"*\""),
            ("#x", "\"#x\""),
            ("null", "\"null\""),
        ] {
            assert_eq!(quote(said), written, "{said}");
        }
    }
}
