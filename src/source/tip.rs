//! A branch as it is on the remote now, to be edited; the revision in force stays what it is.
//!
//! The tip is fetched into the source's own mirror, where most of its objects lie already, and is
//! named by no ref: once nobody edits it, it is dead weight of a few kilobytes until the mirror is
//! made anew. That happens here as in a poll, above the same number of packs, so that a branch
//! which only automation reads does not fill the mirror while the source's own branch rests.
//!
//! How two tips stand to each other is told by their history, of which a shallow mirror has little:
//! commits that were a tip once, and the parents that they name. Where that is not enough, history
//! is fetched, a little first, and what it does not tell is not asked for again.

use super::error::{SourceError, public_url};
use super::fetch::{self, Deepening};
use super::lineage::{self, Standing};
use super::mirror::Mirror;
use super::poll::{MAX_PACK_BYTES, MAX_PACKS, Remote, Source, State};
use super::select::Revision;
use super::tree::Tree;
use super::within::Limit;
use crate::flux::GitReference;
use std::sync::Arc;

/// How many commits deep history is asked for: what was merged is found in the first as a rule.
const DEPTHS: [u32; 2] = [50, 1000];

/// Bytes that history may add to a mirror.
const MAX_HISTORY: u64 = 256 << 20;

/// Pairs of tips that are kept as asked in vain.
const MAX_ASKED: usize = 64;

/// A commit of the remote and all its files.
#[derive(Clone, Debug)]
pub struct Tip {
    /// What was asked for and the commit that it is at, `main@sha1:…`.
    pub revision: Revision,
    /// All regular files: neither `.sourceignore` nor the defaults apply, since automation may
    /// edit what deploys leave out.
    pub tree: Tree,
    pub(super) mirror: Arc<Mirror>,
    /// What the remote is asked for to get it: a full ref, or the commit itself.
    want: String,
}

impl Source {
    /// The commit that `remote.reference` is at now; `remote.ignore` does not matter.
    ///
    /// A branch that is not there is [`SourceError::RefNotFound`], a repository without any commit
    /// [`SourceError::Empty`]. The refs are listed once; nothing is fetched if the tip is the
    /// revision in force or that of one of the last calls.
    pub fn tip(&self, remote: &Remote) -> Result<Tip, SourceError> {
        self.alone(remote, |state| self.find_tip(state, remote))
    }

    fn find_tip(&self, state: &mut State, remote: &Remote) -> Result<Tip, SourceError> {
        let limit = Limit::new(public_url(&remote.url), remote.timeout);
        let mirror = state.mirror.clone();
        let found = self.exchange(state, &mirror, remote, state.known(), &limit)?;
        let (revision, want) = (found.choice.revision, found.choice.want);
        if found.fetched {
            mirror.complete(&revision.commit)?;
            mirror.sync()?;
            state.note_tip(&revision.commit);
            if mirror.packs()? > MAX_PACKS {
                // The old mirror has everything too; the next tip tries again.
                if let Err(error) = self.remake(state, remote, &revision, &limit) {
                    tracing::warn!(%error, "the mirror could not be made anew");
                }
            }
        }
        Tip::read(state.mirror.clone(), revision, want)
    }

    /// How the tip of a branch stands to that of a checkout. History that does not tell is fetched
    /// once for two tips; one that is too much, or twice too slow, once for the branch's tip.
    ///
    /// # Errors
    /// What may pass: on a mere guess a commit could go to a branch that was merged.
    pub fn standing(
        &self,
        remote: &Remote,
        branch: &Tip,
        checkout: &Tip,
    ) -> Result<Standing, SourceError> {
        self.alone(remote, |state| self.find_standing(state, remote, branch, checkout))
    }

    fn find_standing(
        &self,
        state: &mut State,
        remote: &Remote,
        branch: &Tip,
        checkout: &Tip,
    ) -> Result<Standing, SourceError> {
        if let Some(standing) = known(&state.mirror, branch, checkout) {
            return Ok(standing);
        }
        let pair = (branch.revision.commit.clone(), checkout.revision.commit.clone());
        let whole = (pair.0.clone(), String::new());
        if let Some(cause) = state.asked.get(&pair).or_else(|| state.asked.get(&whole)) {
            return Ok(Standing::Untold { cause: cause.clone() });
        }
        if state.asked.len() >= MAX_ASKED {
            state.asked.clear();
        }
        match self.ask(state, remote, branch, checkout) {
            Ok(Some(standing)) => Ok(standing),
            Ok(None) => {
                let [.., deepest] = DEPTHS;
                let cause = format!("their latest {deepest} commits do not tell");
                state.asked.insert(pair, cause.clone());
                Ok(Standing::Untold { cause })
            }
            Err(error) => {
                let slow = matches!(error, SourceError::Timeout { .. });
                if state.slow.len() >= MAX_ASKED {
                    state.slow.clear();
                }
                let again = slow && !state.slow.insert(whole.0.clone());
                if error.retry() && !again {
                    return Err(error);
                }
                let cause = error.to_string();
                state.asked.insert(whole, cause.clone());
                Ok(Standing::Untold { cause })
            }
        }
    }

    /// Fetches history until it tells.
    fn ask(
        &self,
        state: &mut State,
        remote: &Remote,
        branch: &Tip,
        checkout: &Tip,
    ) -> Result<Option<Standing>, SourceError> {
        let limit = Limit::new(public_url(&remote.url), remote.timeout);
        let mirror = state.mirror.clone();
        let most = (mirror.pack_bytes() + MAX_HISTORY).min(MAX_PACK_BYTES);
        for depth in DEPTHS {
            let (wire, path) = (self.wire(remote, &limit)?, mirror.path().to_owned());
            let wants = vec![branch.want.clone(), checkout.want.clone()];
            let job = Deepening { mirror: path, wire, wants, depth };
            state.bounded(&mirror, most, &limit, move |stop| fetch::deepen(&job, stop))?;
            mirror.sync()?;
            if let Some(standing) = known(&mirror, branch, checkout) {
                return Ok(Some(standing));
            }
        }
        Ok(None)
    }

    /// Makes the mirror anew with the revision in force and one tip.
    fn remake(
        &self,
        state: &mut State,
        remote: &Remote,
        tip: &Revision,
        limit: &Limit,
    ) -> Result<(), SourceError> {
        let fresh = Mirror::create(&self.dir, state.mirror.number() + 1)?;
        let mut commits = vec![tip.commit.clone()];
        commits.extend(state.record.as_ref().map(|record| record.revision().commit));
        for sha in &commits {
            let reference = GitReference::Commit { sha: sha.clone(), branch: None };
            let remote = Remote { reference, ..remote.clone() };
            self.exchange(state, &fresh, &remote, Vec::new(), limit)?;
            fresh.complete(sha)?;
        }
        match &state.record {
            Some(record) => {
                let record = record.moved_to(&fresh.name());
                self.take_over(state, fresh, record)?;
            }
            None => std::mem::replace(&mut state.mirror, Arc::new(fresh)).retire(),
        }
        state.tips = vec![tip.commit.clone()];
        Ok(())
    }
}

/// How two tips stand to each other by the commits that a mirror holds.
fn known(mirror: &Mirror, branch: &Tip, checkout: &Tip) -> Option<Standing> {
    let repo = mirror.repository();
    let parse = |tip: &Tip| gix::ObjectId::from_hex(tip.revision.commit.as_bytes()).ok();
    let parents = |id: gix::ObjectId| {
        let commit = repo.find_commit(id).ok()?;
        Some(commit.parent_ids().map(|id| id.detach()).collect::<Vec<_>>())
    };
    lineage::standing(parse(branch)?, parse(checkout)?, &parents)
}

impl Tip {
    fn read(mirror: Arc<Mirror>, revision: Revision, want: String) -> Result<Tip, SourceError> {
        let failed = |error: gix::Error| mirror.broken(&revision.commit, &error);
        let id = gix::ObjectId::from_hex(revision.commit.as_bytes()).map_err(failed)?;
        let repo = mirror.repository();
        let root = repo.find_commit(id).and_then(|commit| Ok(commit.tree_id()?.detach()));
        let root = root.map_err(failed)?;
        let tree = Tree::whole(mirror.clone(), root);
        Ok(Tip { revision, tree, mirror, want })
    }
}
