//! What was decided, put in force: files, service, first reconcile.

use super::gather::{Course, has};
use super::plan::IDS;
use super::steps::{Init, Sops};
use super::store::{self, Change, Left};
use super::tell::Halt;
use super::{ask, seal, service};
use crate::cli::{Exit, reconcile};
use serde_json::json;
use std::path::PathBuf;

impl Init<'_> {
    /// Which files are not yet as they are to be.
    pub(super) fn changes(&self, course: &mut Course) -> Result<Vec<Change>, Halt> {
        course.wanted.config = course.answers.config();
        course.wanted.dry = self.args.dry_run;
        self.offer_sealing(course)?;
        Ok(store::pending(self.runtime.block_on(course.wanted.changes(&self.place))?))
    }

    fn offer_sealing(&self, course: &mut Course) -> Result<(), Halt> {
        let fits = seal::drop_in(&self.place.directory).is_some();
        let plain = |id: &&str| !self.place.sealed(id).exists() && has(&course.wanted, id);
        if course.wanted.seal || !self.asks || !fits || !IDS.iter().any(plain) {
            return Ok(());
        }
        if let Some(with) = self.runtime.block_on(seal::offered()) {
            let question = format!("Seal keys and credentials to this machine, with {with}?");
            course.wanted.seal = ask::yes(&question, false)?;
        }
        Ok(())
    }

    /// Says what a run that is not dry would do.
    pub(super) fn would(&self, changes: &[Change]) -> Result<Exit, Halt> {
        for change in changes {
            self.teller.done("files", self.said(change, "would be "))?;
        }
        self.note("wouldChange", json!(paths(changes)));
        self.note("changed", json!([]));
        self.teller.done("dry run", "nothing was changed")?;
        Ok(Exit::Ok)
    }

    /// Writes, restarts, follows.
    pub(super) fn in_force(
        &self,
        changes: &[Change],
        sops: &Sops,
        left: Left,
    ) -> Result<Exit, Halt> {
        // Whoever was cut short may have been about to have these read.
        let unread = left != Left::Nothing;
        self.note("changed", json!(paths(changes)));
        self.note("sops", json!(sops.lines));
        if changes.is_empty() {
            self.teller.done("files", "everything is as it should be; nothing was changed")?;
            self.commit(sops)?;
            if !unread && self.answers_now() {
                return Ok(Exit::Ok);
            }
            self.read_anew(unread)?;
            return self.follow(self.start()?);
        }
        if self.asks && !self.args.yes {
            for change in changes {
                self.context.terminal.note(&format!("  {}", change.path.display()));
            }
            if !ask::yes("Write these and go on?", true)? {
                return Err(Halt::at("files", "nothing was changed", ""));
            }
        }
        let drop_in = seal::drop_in(&self.place.directory);
        let new = unread || changes.iter().any(|change| Some(&change.path) == drop_in.as_ref());
        let key = self.keep_key(changes)?;
        let written = store::write(&self.place.directory, changes, || self.read_anew(new))?;
        match self.start() {
            Ok(started) => {
                written.keep()?;
                for change in changes {
                    self.teller.done("files", self.said(change, ""))?;
                }
                self.commit(sops)?;
                self.follow(started)
            }
            Err(error) => {
                written.put_back()?;
                // With the old configuration, as far as it goes.
                let _ = self.read_anew(new).and_then(|()| self.start());
                self.note("changed", json!(key.iter().collect::<Vec<_>>()));
                let key = key.map(|path| format!(", but for the new {}", path.display()));
                let fix = "journalctl -u gitopsd -n 30 tells why; every file is as it was";
                let fix = fix.to_owned() + &key.unwrap_or_default();
                Err(Halt::at("service", format!("{error:#}"), fix))
            }
        }
    }

    /// Puts a new age key in place for good: its public half was shown, and secrets may be sealed to
    /// it from now on, whatever becomes of the rest.
    fn keep_key(&self, changes: &[Change]) -> anyhow::Result<Option<PathBuf>> {
        let id = "age-key";
        let (plain, sealed) = (self.place.credentials.join(id), self.place.sealed(id));
        let is_key = |change: &&Change| change.path == plain || change.path == sealed;
        let written = changes.iter().filter(|change| change.content.is_some()).find(is_key);
        let Some(key) = written.filter(|_| !plain.exists() && !sealed.exists()) else {
            return Ok(None);
        };
        let mut first = vec![key.clone()];
        let seals = key.path == sealed;
        if seals {
            let there = |other: &&str| *other == id || self.place.sealed(other).exists();
            let ids: Vec<&str> = IDS.into_iter().filter(there).collect();
            first.extend(self.place.drop_in(&ids));
        }
        store::write(&self.place.directory, &first, || self.read_anew(seals))?.keep()?;
        Ok(Some(key.path.clone()))
    }

    fn commit(&self, Sops { lines, known, there }: &Sops) -> anyhow::Result<()> {
        if *known {
            return self.teller.done("sops", ".sops.yaml names these recipients already");
        }
        let what = match there {
            true => {
                "The repository's .sops.yaml does not name all of these recipients: add them \
                 beside those it has, then run sops updatekeys FILE for each sealed file"
            }
            false => "Commit this as .sops.yaml",
        };
        self.teller.block(&format!("\n{what}:\n\n{lines}\n"))
    }

    /// Whether a daemon is there already that has read all of it: an init that was cut short may have
    /// written what nobody has read since.
    fn answers_now(&self) -> bool {
        let client = self.context.client();
        let Ok(document) = self.runtime.block_on(client.status(None)) else { return false };
        let written = self.place.written_ms();
        written.is_none_or(|written| written <= document.daemon.started_ms)
    }

    /// Has systemd read the unit's files again where one of them is new.
    pub(super) fn read_anew(&self, new: bool) -> anyhow::Result<()> {
        if new && self.runtime.block_on(service::installed(&self.place.main))? {
            self.runtime.block_on(service::read_anew())?;
        }
        Ok(())
    }

    /// Restarts the service where there is one.
    fn start(&self) -> anyhow::Result<Started> {
        if self.args.no_restart {
            return Ok(Started::LeftAlone);
        }
        if !self.runtime.block_on(service::installed(&self.place.main))? {
            return Ok(Started::NotInstalled);
        }
        self.runtime.block_on(service::restart())?;
        Ok(Started::Yes)
    }

    fn follow(&self, started: Started) -> Result<Exit, Halt> {
        match started {
            Started::Yes => self.teller.done("service", "gitopsd.service is restarted")?,
            Started::LeftAlone => {
                self.teller.done("service", "left alone; systemctl restart gitopsd")?;
                return Ok(Exit::Ok);
            }
            Started::NotInstalled => {
                let main = self.place.main.display();
                let fix = format!("to run it in a terminal: gitopsd --config {main} run");
                self.teller.warn("service", "no gitopsd.service reads this configuration", &fix)?;
                return Ok(Exit::Ok);
            }
        }
        if self.args.no_wait {
            return Ok(Exit::Ok);
        }
        let first = reconcile::first(self.context, self.args.timeout);
        let first = self.runtime.block_on(first).map_err(|error| {
            let fix = "what is set up stays; see systemctl status gitopsd";
            Halt::at("first reconcile", format!("{error:#}"), fix)
        })?;
        self.teller.block(&first.text)?;
        self.note("ready", json!(first.ready));
        if first.ready {
            self.teller.done("first reconcile", "the cluster follows Git")?;
            return Ok(Exit::Ok);
        }
        let fix = "see gitopsd status; what is set up stays, and goes on trying";
        Err(Halt::at("first reconcile", "not everything is ready", fix))
    }

    fn said(&self, change: &Change, verb: &str) -> String {
        let done = if change.content.is_some() { "written" } else { "removed" };
        format!("{} {verb}{done}", change.path.display())
    }
}

/// What became of the service.
enum Started {
    Yes,
    LeftAlone,
    NotInstalled,
}

fn paths(changes: &[Change]) -> Vec<PathBuf> {
    changes.iter().map(|change| change.path.clone()).collect()
}
