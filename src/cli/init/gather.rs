//! The answers and what was named by file: from flags, from what stands, from questions.

use super::answers::{Answers, AtHand, Missing, Recovery, entry};
use super::plan::{IDS, Place, Wanted, named};
use super::tell::Halt;
use super::{Args, ask, ssh, url};
use crate::cli::Exit;
use crate::cli::check::Finding;
use crate::config::{self, Config, Proposal};
use crate::secrets::{Plaintext, public_key, read_credential};
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
    /// Gathers the answers; asks for what is missing, or names all of it.
    pub async fn gather(&self, standing: Option<&Config>) -> Result<Course, Halt> {
        let args = self.args;
        let recovery = match (&args.recovery, args.no_recovery) {
            (Some(said), _) => Some(
                recovery(said)
                    .map_err(|found| Halt::at("--recovery", found, "give a public key: age1…"))?,
            ),
            (None, true) => Some(Recovery::None),
            (None, false) => None,
        };
        let mut answers = Answers {
            url: args.repo.as_deref().map(url::normal),
            path: args.path.as_deref().map(entry),
            reference: args.reference(),
            interval: args.interval.clone(),
            username: args.username.clone(),
            kubeconfig: args.kubeconfig.as_deref().map(std::path::absolute).transpose()?,
            recovery,
        };
        let mut wanted = Wanted { seal: args.seal, ..Wanted::default() };
        for (id, file) in [
            ("git-password", &args.password_file),
            ("git-token", &args.token_file),
            ("git-ca", &args.ca_file),
            ("git-identity", &args.identity),
            ("git-known-hosts", &args.known_hosts),
            ("age-key", &args.age_key),
        ] {
            if let Some(file) = file {
                wanted.given.insert(id, given(file)?);
            }
        }
        for id in IDS {
            let held = self.place.held(id).await?;
            let held = match held {
                None => elsewhere(standing, id)?,
                held => held,
            };
            held.into_iter().for_each(|held| drop(wanted.held.insert(id, held)));
        }
        answers.fill(standing, self.own(&wanted).as_ref());
        let mut fresh = args.generate_identity && !wanted.held.contains_key("git-identity");
        loop {
            let at_hand = AtHand {
                identity: fresh || has(&wanted, "git-identity"),
                known_hosts: lines(&wanted),
                fingerprint: args.host_key_fingerprint.is_some(),
                // Whoever has a key in place has answered that before.
                recovery: standing.is_some_and(|config| {
                    config.decryption.recovery.is_some() || config.decryption.age_key_file.is_some()
                }),
            };
            let missing = answers.missing(&at_hand);
            match missing.as_slice() {
                // The scan shows what there is to compare, whether or not somebody is asked.
                [] | [Missing::HostKey] => break,
                _ if !self.asks => {
                    let flags: Vec<&str> = missing.iter().map(|missing| missing.flags()).collect();
                    let fix = "say it, or run this on a terminal to be asked".to_owned();
                    let found = format!("not said: {}", flags.join("; "));
                    let finding = Finding::fail("flags", found, Some(fix));
                    return Err(Halt::Found(Box::new(finding), Exit::Usage));
                }
                [first, rest @ ..] => {
                    let first = if *first == Missing::HostKey { rest[0] } else { *first };
                    self.ask(first, &mut answers, &mut wanted, &mut fresh)?;
                }
            }
        }
        if fresh && !self.args.dry_run {
            let made = ssh::identity().await?;
            wanted.given.insert("git-identity", made);
        }
        for (one, other) in [("git-password", "git-token"), ("git-token", "git-password")] {
            if wanted.given.contains_key(one) && wanted.held.remove(other).is_some() {
                wanted.dropped.insert(other);
            }
        }
        Ok(Course { answers, wanted, fresh })
    }

    /// What an earlier `init` wrote, by itself.
    fn own(&self, wanted: &Wanted) -> Option<Config> {
        let credentials = wanted.held.keys().map(|id| (*id).to_owned()).collect();
        let file = self.place.config.with_file_name("config.d").join("none.yaml");
        let nothing = Proposal { file, text: String::new(), credentials };
        config::propose(&self.place.config, &nothing).ok()
    }

    fn ask(
        &self,
        missing: Missing,
        answers: &mut Answers,
        wanted: &mut Wanted,
        fresh: &mut bool,
    ) -> Result<(), Halt> {
        let some = |answer: &str| match answer {
            "" => Err("something has to be said".to_owned()),
            said => Ok(said.to_owned()),
        };
        match missing {
            Missing::Repository => {
                let said = ask::until("Repository (https://… or git@HOST:PATH)", None, some)?;
                answers.url = Some(url::normal(&said));
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
                answers.path = Some(entry(&ask::until(question, None, some)?));
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
