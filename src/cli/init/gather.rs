//! The answers and what was named by file: from flags, from what stands, from questions.

use super::answers::{Answers, AtHand, Missing, Recovery};
use super::faults::Faults;
use super::plan::{IDS, Place, Wanted, named};
use super::tell::Halt;
use super::{Args, ask, ssh, url};
use crate::config::{self, Config, Problem, Problems, Proposal, RootError, entry_path};
use crate::secrets::{Plaintext, public_key, read_credential};
use std::collections::BTreeMap;
use std::path::Path;

/// What is going on between the steps.
pub struct Course {
    /// What was said.
    pub answers: Answers,
    /// What the files are to be.
    pub wanted: Wanted,
    /// The deploy key was made just now: nobody accepts it yet.
    pub fresh: bool,
}

impl Course {
    /// The answers as a file of the configuration, with the credentials that go with it.
    pub fn proposal(&self, place: &Place) -> Proposal {
        let ids =
            IDS.iter().filter(|id| has(&self.wanted, id) || self.fresh && **id == "git-identity");
        Proposal {
            file: place.config.clone(),
            text: self.answers.config(),
            credentials: ids.map(|id| (*id).to_owned()).collect(),
        }
    }
}

/// Who gathers them.
pub struct Gather<'a> {
    /// The flags.
    pub args: &'a Args,
    /// Somebody is there to be asked.
    pub asks: bool,
    /// Where credentials lie.
    pub place: &'a Place,
}

impl Gather<'_> {
    /// Gathers the answers. All that is wrong with what was said is told at once, before anything is
    /// asked; what is missing is then asked for, or named with it where nobody is there to be asked.
    pub async fn gather(&self, standing: Option<&Config>) -> Result<Course, Halt> {
        let mut faults = Faults::default();
        let answers = self.said(&mut faults);
        let given = self.files(&mut faults);
        let wanted = Wanted { seal: self.args.seal, given, ..Wanted::default() };
        let mut course = Course { answers, wanted, fresh: false };
        match self.held(standing).await {
            Ok(held) => course.wanted.held = held,
            Err(error) => {
                faults.stop()?;
                return Err(error.into());
            }
        }
        let identity = course.wanted.held.contains_key("git-identity");
        course.fresh = self.args.generate_identity && !identity;
        self.fill(standing, &mut course);
        self.judge(standing, &course, faults)?;
        loop {
            let missing = course.answers.missing(&at_hand(self.args, standing, &course));
            match missing.as_slice() {
                // The scan shows what there is to compare, whether or not somebody is asked.
                [] | [Missing::HostKey] => break,
                [first, rest @ ..] => {
                    let first = if *first == Missing::HostKey { rest[0] } else { *first };
                    self.ask(first, &mut course)?;
                }
            }
        }
        if course.fresh && !self.args.dry_run {
            let made = ssh::identity().await?;
            course.wanted.given.insert("git-identity", made);
        }
        Ok(course)
    }

    /// What the flags say, each judged by itself.
    fn said(&self, faults: &mut Faults) -> Answers {
        let args = self.args;
        let unfit = |error: RootError| (error.to_string(), url::remedy(&error));
        let url = args.repo.as_deref().map(|said| url::repository(said).map_err(unfit));
        let path = args.path.as_deref().map(|said| entry_path(said.trim()).map_err(unfit));
        let kubeconfig = args.kubeconfig.as_deref().map(|said| {
            std::path::absolute(said).map_err(|error| (error.to_string(), "name a file"))
        });
        let second = args
            .recovery
            .as_deref()
            .map(|said| recovery(said).map_err(|found| (found, "give a public key: age1…")));
        let nobody = args.no_recovery.then_some(Recovery::None);
        Answers {
            url: url.and_then(|read| faults.read("--repo", read)),
            path: path.and_then(|read| faults.read("--path", read)),
            reference: args.reference(),
            interval: args.interval.clone(),
            username: args.username.clone(),
            kubeconfig: kubeconfig.and_then(|read| faults.read("--kubeconfig", read)),
            recovery: second.and_then(|read| faults.read("--recovery", read)).or(nobody),
        }
    }

    /// What flags name by file.
    fn files(&self, faults: &mut Faults) -> BTreeMap<&'static str, Plaintext> {
        let args = self.args;
        let mut found = BTreeMap::new();
        for (flag, id, file) in [
            ("--password-file", "git-password", &args.password_file),
            ("--token-file", "git-token", &args.token_file),
            ("--ca-file", "git-ca", &args.ca_file),
            ("--identity", "git-identity", &args.identity),
            ("--known-hosts", "git-known-hosts", &args.known_hosts),
            ("--age-key", "age-key", &args.age_key),
        ] {
            if let Some(file) = file {
                found.insert(id, faults.file(flag, given(file)));
            }
        }
        found
    }

    /// What lies here, or where the configuration that stands says.
    async fn held(
        &self,
        standing: Option<&Config>,
    ) -> anyhow::Result<BTreeMap<&'static str, Plaintext>> {
        let mut held = BTreeMap::new();
        for id in IDS {
            let found = match self.place.held(id).await? {
                None => elsewhere(standing, id)?,
                found => found,
            };
            if let Some(found) = found {
                held.insert(id, found);
            }
        }
        Ok(held)
    }

    /// Adds what stands, and drops what something else takes the place of.
    fn fill(&self, standing: Option<&Config>, course: &mut Course) {
        let own = self.own(&course.wanted);
        // Whether such a one is the repository that stands, nobody knows.
        let strange = self.args.repo.is_some() && course.answers.url.is_none();
        course.answers.fill(standing, own.as_ref());
        if strange {
            course.answers.url = None;
        }
        let wanted = &mut course.wanted;
        for (one, other) in [("git-password", "git-token"), ("git-token", "git-password")] {
            if wanted.given.contains_key(one) && wanted.held.remove(other).is_some() {
                wanted.dropped.insert(other);
            }
        }
        // The name that stands goes with its password.
        if wanted.dropped.contains("git-password") && self.args.username.is_none() {
            course.answers.username = None;
        }
    }

    /// Stops at what is wrong by now, and at what is missing where nobody can be asked.
    fn judge(
        &self,
        standing: Option<&Config>,
        course: &Course,
        mut faults: Faults,
    ) -> Result<(), Halt> {
        if let Err(Problems(mut problems)) =
            config::propose(&self.place.main, &course.proposal(self.place))
        {
            // These are told as flags.
            let unsaid = |problem: &Problem| {
                matches!(problem, Problem::Missing { key, .. }
                    if ["root.url", "root.path"].contains(&key.as_str()))
            };
            problems.retain(|problem| !unsaid(problem));
            faults.config(self.args, &self.place.config, problems);
        }
        if !self.asks {
            let mut missing = course.answers.missing(&at_hand(self.args, standing, course));
            missing.retain(|missing| !said_wrongly(self.args, *missing));
            faults.unsaid(&missing);
        }
        faults.stop()
    }

    /// What an earlier `init` wrote, by itself.
    fn own(&self, wanted: &Wanted) -> Option<Config> {
        let credentials = wanted.held.keys().map(|id| (*id).to_owned()).collect();
        let file = self.place.config.with_file_name("config.d").join("none.yaml");
        let nothing = Proposal { file, text: String::new(), credentials };
        config::propose(&self.place.config, &nothing).ok()
    }

    fn ask(&self, missing: Missing, course: &mut Course) -> Result<(), Halt> {
        let Course { answers, wanted, fresh } = course;
        let unfit = |error: RootError| format!("{error}, {}", url::remedy(&error));
        match missing {
            Missing::Repository => {
                let question = "Repository (https://… or git@HOST:PATH)";
                let read = |said: &str| url::repository(said).map_err(unfit);
                answers.url = Some(ask::until(question, None, read)?);
                if answers.reference.is_none() {
                    let branch = ask::line("Branch", Some("main"))?;
                    answers.reference = Some(config::RootRef::Branch(branch));
                }
                let ssh = answers.server().is_some_and(|server| server.scheme == "ssh");
                if !ssh && !has(wanted, "git-password") && !has(wanted, "git-token") {
                    let question = "File with the password or access token (empty: it is public)";
                    let read = |said: &str| match said {
                        "" => Ok(None),
                        file => given(Path::new(file)).map(Some).map_err(|error| error.to_string()),
                    };
                    let found = ask::until(question, None, read)?;
                    found.into_iter().for_each(|f| drop(wanted.given.insert("git-password", f)));
                }
            }
            Missing::Path => {
                let question = "Entry directory in it, such as clusters/my-cluster";
                let read = |said: &str| match said {
                    "" => Err("something has to be said".to_owned()),
                    said => entry_path(said).map_err(unfit),
                };
                answers.path = Some(ask::until(question, None, read)?);
            }
            Missing::Identity => {
                let question = "File with the private key (empty: a deploy key is made)";
                let read = |said: &str| match said {
                    "" => Ok(None),
                    file => given(Path::new(file)).map(Some).map_err(|error| error.to_string()),
                };
                match ask::until(question, None, read)? {
                    Some(found) => drop(wanted.given.insert("git-identity", found)),
                    None => *fresh = true,
                }
            }
            Missing::HostKey => {}
            Missing::Recovery => {
                let question = "Public age key of a second recipient, kept off this host (empty: \
                                none, who loses this host loses its secrets)";
                answers.recovery = Some(ask::until(question, None, |said| match said {
                    "" => Ok(Recovery::None),
                    said => recovery(said),
                })?);
            }
        }
        Ok(())
    }
}

fn at_hand(args: &Args, standing: Option<&Config>, course: &Course) -> AtHand {
    AtHand {
        identity: course.fresh || has(&course.wanted, "git-identity"),
        known_hosts: lines(&course.wanted),
        fingerprint: args.host_key_fingerprint.is_some(),
        // Whoever has a key in place has answered that before.
        recovery: standing.is_some_and(|config| {
            config.decryption.recovery.is_some() || config.decryption.age_key_file.is_some()
        }),
    }
}

/// Whether what is missing was said after all, and is told as what is wrong with its flag.
fn said_wrongly(args: &Args, missing: Missing) -> bool {
    match missing {
        Missing::Repository => args.repo.is_some(),
        Missing::Path => args.path.is_some(),
        Missing::Identity => args.identity.is_some(),
        Missing::HostKey => args.known_hosts.is_some(),
        Missing::Recovery => args.recovery.is_some(),
    }
}

/// Whether a credential is at hand.
pub fn has(wanted: &Wanted, id: &str) -> bool {
    wanted.given.contains_key(id) || wanted.held.contains_key(id)
}

/// The lines of `known_hosts` at hand.
pub fn lines(wanted: &Wanted) -> String {
    let found = wanted.given.get("git-known-hosts").or(wanted.held.get("git-known-hosts"));
    found.map(|found| String::from_utf8_lossy(found.expose()).into_owned()).unwrap_or_default()
}

fn recovery(said: &str) -> Result<Recovery, String> {
    public_key(said).map(Recovery::Recipient).map_err(|error| error.to_string())
}

/// What a flag or an answer names as a file.
fn given(file: &Path) -> anyhow::Result<Plaintext> {
    let found = read_credential(None, "given", Some(file))?;
    found.map(|found| found.content).ok_or_else(|| anyhow::anyhow!("{}: empty", file.display()))
}

/// A credential that a configuration by hand names, and that lies elsewhere.
fn elsewhere(standing: Option<&Config>, id: &str) -> anyhow::Result<Option<Plaintext>> {
    standing.and_then(|config| named(config, id)).map(given).transpose()
}
