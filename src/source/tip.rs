//! A branch as it is on the remote now, to be edited; the revision in force stays what it is.
//!
//! The tip is fetched into the source's own mirror, where most of its objects lie already, and is
//! named by no ref: once nobody edits it, it is dead weight of a few kilobytes until the mirror is
//! made anew. That happens here as in a poll, above the same number of packs, so that a branch
//! which only automation reads does not fill the mirror while the source's own branch rests.

use super::error::{SourceError, public_url};
use super::mirror::Mirror;
use super::poll::{MAX_PACKS, Remote, Source, State};
use super::select::Revision;
use super::tree::Tree;
use super::within::Limit;
use crate::flux::GitReference;
use std::sync::Arc;

/// A commit of the remote and all its files.
#[derive(Clone, Debug)]
pub struct Tip {
    /// What was asked for and the commit that it is at, `main@sha1:…`.
    pub revision: Revision,
    /// All regular files: neither `.sourceignore` nor the defaults apply, since automation may
    /// edit what deploys leave out.
    pub tree: Tree,
    pub(super) mirror: Arc<Mirror>,
}

impl Source {
    /// The commit that `remote.reference` is at now; `remote.ignore` does not matter.
    ///
    /// A branch that is not there is [`SourceError::RefNotFound`], a repository without any commit
    /// [`SourceError::Empty`]. The refs are listed once; nothing is fetched if the tip is the
    /// revision in force or the tip of the last call.
    pub fn tip(&self, remote: &Remote) -> Result<Tip, SourceError> {
        self.alone(remote, |state| self.find_tip(state, remote))
    }

    fn find_tip(&self, state: &mut State, remote: &Remote) -> Result<Tip, SourceError> {
        let limit = Limit::new(public_url(&remote.url), remote.timeout);
        let mirror = state.mirror.clone();
        let found = self.exchange(state, &mirror, remote, state.known(), &limit)?;
        let revision = found.choice.revision;
        if found.fetched {
            mirror.complete(&revision.commit)?;
            mirror.sync()?;
            state.tip = Some(revision.commit.clone());
            if mirror.packs()? > MAX_PACKS {
                // The old mirror has everything too; the next tip tries again.
                if let Err(error) = self.remake(state, remote, &revision, &limit) {
                    tracing::warn!(%error, "the mirror could not be made anew");
                }
            }
        }
        Tip::read(state.mirror.clone(), revision)
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
        state.tip = Some(tip.commit.clone());
        Ok(())
    }
}

impl Tip {
    fn read(mirror: Arc<Mirror>, revision: Revision) -> Result<Tip, SourceError> {
        let failed = |error: gix::Error| mirror.broken(&revision.commit, &error);
        let id = gix::ObjectId::from_hex(revision.commit.as_bytes()).map_err(failed)?;
        let repo = mirror.repository();
        let root = repo.find_commit(id).and_then(|commit| Ok(commit.tree_id()?.detach()));
        let root = root.map_err(failed)?;
        let tree = Tree::whole(mirror.clone(), root);
        Ok(Tip { revision, tree, mirror })
    }
}
