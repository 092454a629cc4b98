//! The steps, in their order.

use super::age::{self, Choice, Keys};
use super::faults::Faults;
use super::gather::{Course, Gather, lines};
use super::plan::Place;
use super::repository::{self, Failure, Reached};
use super::ssh::{self, Known};
use super::store::{self, Change, Left};
use super::tell::{Halt, Teller};
use super::{Args, ask, cluster, seal, url};
use crate::cli::check::Finding;
use crate::cli::public::sops_lines;
use crate::cli::{Context, Exit};
use crate::config::{self, Config};
use crate::secrets::Plaintext;
use crate::source::SourceError;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// One setting-up.
pub struct Init<'a> {
    pub(super) context: &'a Context,
    pub(super) args: &'a Args,
    /// Tells what is done.
    pub teller: Teller<'a>,
    pub(super) place: Place,
    pub(super) asks: bool,
    pub(super) runtime: Runtime,
    /// What a program wants to know at the end, beside the steps.
    result: RefCell<serde_json::Map<String, Value>>,
}

/// What the repository has to say to sops.
pub struct Sops {
    /// The lines of `.sops.yaml`.
    pub lines: String,
    /// It says so already.
    pub known: bool,
    /// It is there, and may name others too.
    pub there: bool,
}

impl<'a> Init<'a> {
    /// Reads nothing yet.
    pub fn new(context: &'a Context, args: &'a Args) -> anyhow::Result<Self> {
        crate::net::install_crypto();
        Ok(Init {
            context,
            args,
            teller: Teller::new(&context.terminal),
            place: Place::new(&context.config)?,
            asks: ask::possible(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            result: RefCell::default(),
        })
    }

    /// What came of it, for a program.
    pub fn report(&self) -> Value {
        let mut report = self.result.borrow().clone();
        report.insert("steps".to_owned(), json!(self.teller.all()));
        Value::Object(report)
    }

    pub(super) fn note(&self, key: &str, value: Value) {
        self.result.borrow_mut().insert(key.to_owned(), value);
    }

    /// Goes through all of it.
    pub fn go(&self) -> Result<Exit, Halt> {
        let (_lock, left) = self.rights()?;
        let standing = config::load(&self.place.main).ok();
        let asked = Gather { args: self.args, asks: self.asks, place: &self.place };
        let mut course = self.runtime.block_on(asked.gather(standing.as_ref()))?;
        self.same_server(standing.as_ref(), &course)?;
        let config = self.propose(&course)?;
        let cluster = self.runtime.block_on(cluster::find(&config, &self.teller))?;
        self.host_key(&mut course)?;
        let config = self.propose(&course)?;
        let reached = self.reach(&config, &mut course)?;
        reached.entry(&config, &self.teller)?;
        let keys = self.age_key(&config, &mut course, &cluster)?;
        if keys.made && !self.args.generate_age_key {
            reached.opens(&config, &self.teller)?;
        } else {
            reached.contents(&config, &keys.keyring, &self.teller)?;
        }
        let recipients = self.recipients(&config, &keys)?;
        let commit = Sops {
            lines: sops_lines(&recipients),
            known: reached.names(&recipients),
            there: reached.has_rules(),
        };
        drop((reached, cluster));
        let changes = self.changes(&mut course)?;
        self.guard(&config, &changes)?;
        if self.args.dry_run {
            return self.would(&changes);
        }
        self.in_force(&changes, &commit, left)
    }

    /// Whoever cannot write here need not be asked anything.
    fn rights(&self) -> Result<(Option<store::Lock>, Left), Halt> {
        let directory = &self.place.directory;
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let writable = nix::unistd::access(there, nix::unistd::AccessFlags::W_OK);
        if let Err(error) =
            writable.or_else(|error| if self.args.dry_run { Ok(()) } else { Err(error) })
        {
            let found = format!("{}: {}", directory.display(), error.desc());
            return Err(Halt::at("rights", found, "run it as root: sudo gitopsd init"));
        }
        if self.args.seal && seal::drop_in(directory).is_none() {
            let found = format!("no unit reads credentials beside {}", self.place.main.display());
            let fix = "keep the configuration in /etc/gitopsd, or leave --seal out";
            return Err(Halt::at("rights", found, fix));
        }
        if self.args.dry_run {
            return Ok((None, Left::Nothing));
        }
        let Ok(lock) = store::lock(directory) else {
            let fix = "wait for it, or end it: pgrep -af 'gitopsd init'";
            return Err(Halt::at("rights", "another gitopsd init is under way", fix));
        };
        let left = store::recover(directory)?;
        let became = match left {
            Left::Nothing => return Ok((lock, left)),
            Left::PutBack => "what it had changed is put back",
            Left::Placed => "it had put everything in place, and that stays",
        };
        if left == Left::PutBack {
            // It may have had systemd read a drop-in that is gone again.
            self.read_anew(true)?;
        }
        self.teller.warn("rights", format!("an earlier init was cut short; {became}"), "")?;
        Ok((lock, left))
    }

    /// A password that was meant for one server is not shown to another.
    fn same_server(&self, standing: Option<&Config>, course: &Course) -> Result<(), Halt> {
        let before = standing.and_then(|config| url::server(&config.root.url));
        let now = course.answers.server();
        // A key proves itself to a server without being shown.
        let ssh = now.as_ref().is_some_and(|server| server.scheme == "ssh");
        if before.is_none() || before == now || ssh {
            return Ok(());
        }
        let secret = ["git-password", "git-token"];
        let kept = secret.into_iter().find(|id| course.wanted.held.contains_key(id));
        let given = secret.into_iter().any(|id| course.wanted.given.contains_key(id));
        match (kept, before) {
            (Some(id), Some(before)) if !given => {
                let found =
                    format!("{id} was meant for {}, and this is another server", before.host);
                let path = self.place.credentials.join(id);
                let fix = format!(
                    "give --password-file or --token-file for it; for a public repository remove \
                     {} first",
                    path.display()
                );
                Err(Halt::at("credentials", found, fix))
            }
            _ => Ok(()),
        }
    }

    /// No start of the service would take a key that others can get at: the one that runs goes on.
    fn guard(&self, config: &Config, changes: &[Change]) -> Result<(), Halt> {
        self.place.guard(config, changes).map_err(|error| {
            let fix = error.hint().map(|run| format!("{run}, then run the same again"));
            Halt::at("credentials", error.to_string(), fix.unwrap_or_default())
        })
    }

    /// The configuration as it would be.
    fn propose(&self, course: &Course) -> Result<Config, Halt> {
        let proposed = config::propose(&self.place.main, &course.proposal(&self.place));
        let config = proposed.map_err(|problems| {
            let mut faults = Faults::default();
            faults.config(self.args, &self.place.config, problems.0);
            faults.halt()
        })?;
        if Some(&config.root.url) != course.answers.url.as_ref() {
            let files = self.place.config.with_file_name("*.yaml");
            let found = format!("{} of a later name sets another root", files.display());
            return Err(Halt::at("configuration", found, "remove root from that file"));
        }
        Ok(config)
    }

    fn host_key(&self, course: &mut Course) -> Result<(), Halt> {
        let Some(server) = course.answers.server().filter(|server| server.scheme == "ssh") else {
            return Ok(());
        };
        let known_hosts = lines(&course.wanted);
        let known = Known {
            lines: &known_hosts,
            given: self.args.known_hosts.is_some(),
            fingerprint: self.args.host_key_fingerprint.as_deref(),
            asks: self.asks,
        };
        let pinned = self.runtime.block_on(ssh::pin(&server, known, &self.teller))?;
        if let Some(text) = pinned {
            course.wanted.given.insert("git-known-hosts", Plaintext::new(text.into_bytes()));
        }
        Ok(())
    }

    /// Reaches the repository; a deploy key that was just made has to be accepted first.
    fn reach(&self, config: &Config, course: &mut Course) -> Result<Reached, Halt> {
        if !course.fresh {
            return repository::reach(config, course.wanted.credential(config)?);
        }
        let Some(identity) = course.wanted.given.get("git-identity") else {
            let found = "one would be made; until the repository accepts it, nothing else is tried";
            return Err(Halt::Found(vec![Finding::ok("deploy key", found)], Exit::Ok));
        };
        let (line, fingerprint) = ssh::deploy_line(identity).unwrap_or_default();
        let path = self.keep_identity(identity.clone())?;
        self.note("deployKey", json!({"path": path, "public": line, "fingerprint": fingerprint}));
        self.teller.done("deploy key", format!("{fingerprint} is new, in {}", path.display()))?;
        self.teller.block(&format!("{line}\n"))?;
        loop {
            if self.asks {
                ask::line("Add this line to the repository's deploy keys, then press Enter", None)?;
            }
            match repository::fetch(config, course.wanted.credential(config)?) {
                Ok(reached) => return Ok(reached),
                Err(Failure::Other(error)) => return Err(error.into()),
                Err(Failure::Git(error @ SourceError::AuthenticationFailed { .. })) => {
                    if !self.asks {
                        let fix = "add the line above to the repository's deploy keys, then run \
                                   the same again; the key stays";
                        return Err(Halt::at("repository", error.to_string(), fix));
                    }
                    self.teller.warn("repository", error.to_string(), "try again, or Ctrl-C")?;
                }
                Err(Failure::Git(error)) => return Err(repository::stopped(&error)),
            }
        }
    }

    /// The one thing that is written although not everything could be tried: what was shown may
    /// have been added to the repository.
    fn keep_identity(&self, identity: Plaintext) -> Result<PathBuf, Halt> {
        let path = self.place.credentials.join("git-identity");
        let change = Change { path: path.clone(), content: Some(identity), mode: 0o400 };
        store::write(&self.place.directory, &[change], || Ok(()))?.keep()?;
        Ok(path)
    }

    fn age_key(
        &self,
        config: &Config,
        course: &mut Course,
        cluster: &crate::cluster::Cluster,
    ) -> Result<Keys, Halt> {
        let usual = self.place.credentials.join("age-key");
        let path = config.decryption.age_key_file.clone().unwrap_or(usual);
        let wanted = &mut course.wanted;
        let named = wanted.given.remove("age-key");
        let choice = Choice {
            held: wanted.held.get("age-key").map(|held| (held, path.as_path())),
            named: named.as_ref(),
            generate: self.args.generate_age_key,
            dry: self.args.dry_run,
        };
        let keys = self.runtime.block_on(age::choose(choice, cluster, &self.teller))?;
        keys.new.iter().for_each(|new| drop(wanted.given.insert("age-key", new.clone())));
        Ok(keys)
    }

    /// To whom secrets are to be sealed from now on.
    fn recipients(&self, config: &Config, keys: &Keys) -> Result<Vec<String>, Halt> {
        let mut recipients = keys.keyring.recipients();
        match &config.decryption.recovery {
            Some(second) if recipients.contains(second) => {
                let found = "the second recipient is this host's own key";
                let fix = "say --recovery with a key that lies elsewhere, or --no-recovery";
                return Err(Halt::at("recovery", found, fix));
            }
            Some(second) => {
                recipients.push(second.clone());
                self.teller.done("recovery", format!("{second} can open sealed files too"))?;
            }
            None => {
                let fix = "keep a copy of the age key off this host";
                self.teller.warn("recovery", "nobody else can open what is sealed", fix)?;
            }
        }
        Ok(recipients)
    }
}
