//! Where a pass reads and writes, and which commit it edits.
//!
//! Commits may go to a branch of their own. Flux sets such a branch back to the checkout by force
//! in every pass; nothing is forced here. A branch that was merged goes on from the checkout, which
//! has all of it. One that was not is built upon as it is, and where it lacks commits of the
//! checkout, a person is told.

use super::Automation;
use crate::flux::{GitReference, GitRepository, PushRefspec};
use crate::pipeline::poll::blocking;
use crate::pipeline::{Failure, Retry, Step};
use crate::source::{Remote, Source, SourceError, Standing, Start, Tip};
use std::sync::Arc;

/// Where a pass reads and writes.
#[derive(Debug)]
pub(super) struct Target {
    pub checkout: GitReference,
    pub branch: Option<String>,
    /// The second place; where there is no branch, the only one.
    pub refspec: Option<PushRefspec>,
    /// Commits go to the very branch that is checked out.
    pub same: bool,
}

/// A commit to edit.
pub(super) struct Base {
    pub tip: Tip,
    /// Where the branch is; none where the push makes it.
    pub at: Option<String>,
    /// What a person should know of the branch.
    pub word: Option<String>,
}

impl Target {
    pub(super) fn of(job: &Automation) -> Result<Target, Failure> {
        let Automation { automation, source, .. } = job;
        let checkout = automation.checkout.clone().unwrap_or_else(|| source.reference.clone());
        let branch = automation.push_branch(&source.reference).map(str::to_owned);
        let refspec = automation.push_refspec.clone();
        if branch.is_none() && refspec.is_none() {
            let cause = format!("{} follows no branch that could be pushed to", source.key());
            return Err(Failure::new(Step::Push, "InvalidSourceConfiguration", cause)
                .retry(Retry::Never)
                .hint(Some("say where to: spec.git.push.branch".into())));
        }
        let same = match &checkout {
            GitReference::Branch(name) => branch.as_deref() == Some(name),
            GitReference::Name(name) => {
                name.strip_prefix("refs/heads/").is_some_and(|name| branch.as_deref() == Some(name))
            }
            _ => false,
        };
        Ok(Target { checkout, branch, refspec, same })
    }

    /// The branch, or the refspec's destination where there is none.
    pub(super) fn destination(&self) -> String {
        let beside = self.refspec.as_ref().map(|refspec| refspec.destination.clone());
        self.branch.clone().or(beside).unwrap_or_default()
    }

    /// The commit that is edited: the tip of the branch that is pushed to, or of what is checked
    /// out where that has all of the branch.
    pub(super) async fn base(
        &self,
        of: &GitRepository,
        source: &Arc<Source>,
        remote: &Remote,
    ) -> Result<Base, Failure> {
        let own = self.branch.clone().filter(|_| !self.same);
        let (source, remote) = (source.clone(), remote.clone());
        blocking(of, move || {
            let Some(branch) = own else {
                let tip = source.tip(&remote)?;
                return Ok(Base { at: Some(tip.revision.commit.clone()), tip, word: None });
            };
            let reference = GitReference::Branch(branch.clone());
            let found = match source.tip(&Remote { reference, ..remote.clone() }) {
                Err(SourceError::RefNotFound { .. }) => {
                    return Ok(Base { tip: source.tip(&remote)?, at: None, word: None });
                }
                found => found?,
            };
            let checkout = source.tip(&remote)?;
            let standing = source.standing(&remote, &found, &checkout)?;
            let revision = &checkout.revision;
            let from = revision.name.as_ref().unwrap_or(&revision.commit);
            let word = told(&branch, from, &standing);
            let at = Some(found.revision.commit.clone());
            let tip = if standing == Standing::Merged { checkout } else { found };
            Ok(Base { tip, at, word })
        })
        .await
    }
}

/// Where a branch must be for a commit to be pushed to it.
pub(super) fn start<'a>(at: Option<&'a str>, parent: &str) -> Start<'a> {
    match at {
        None => Start::Absent,
        Some(commit) if commit == parent => Start::Parent,
        Some(commit) => Start::Merged(commit),
    }
}

/// What a person should know of a branch that is built upon.
fn told(branch: &str, checkout: &str, standing: &Standing) -> Option<String> {
    match standing {
        Standing::Merged | Standing::Ahead => None,
        Standing::Apart { lacking } => {
            let commits = if *lacking == 1 { "commit" } else { "commits" };
            Some(format!(
                "branch {branch} lacks {lacking} {commits} of {checkout}, and is built upon as it \
                 is: merge {checkout} into it, or delete it once its own commits are in {checkout}"
            ))
        }
        Standing::Untold { cause } => Some(format!(
            "whether branch {branch} was merged into {checkout} cannot be told, and it is built \
             upon as it is: {cause}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::ImageUpdateAutomation;
    use crate::pipeline::Revision;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};

    fn job(git: Value, reference: GitReference) -> Automation {
        let mut spec = json!({"interval": "1m", "sourceRef": {"name": "app"}, "git": git});
        spec["git"]["commit"] = json!({"author": {"email": "a@b"}});
        let manifest = json!({"apiVersion": "image.toolkit.fluxcd.io/v1",
            "kind": "ImageUpdateAutomation", "metadata": {"name": "all", "namespace": "n"},
            "spec": spec});
        let minute = std::time::Duration::from_secs(60);
        let source = GitRepository {
            namespace: "n".into(),
            name: "app".into(),
            url: "https://git.example/app".into(),
            interval: minute,
            timeout: minute,
            reference,
            secret_ref: None,
            ignore: None,
            suspend: false,
            unsupported: Vec::new(),
        };
        Automation {
            automation: ImageUpdateAutomation::read(&manifest).expect("an automation"),
            source,
            revision: Revision::unknown(),
            tree: None,
            choices: BTreeMap::new(),
            policies: BTreeSet::new(),
        }
    }

    #[test]
    fn commits_go_to_the_branch_that_is_said_or_checked_out_or_to_the_refspec_alone() {
        let (main, tag) = (GitReference::Branch("main".into()), GitReference::Tag("v1".into()));
        let refspec = json!({"push": {"refspec": "refs/heads/main:refs/heads/copy"}});
        let develop = json!({"checkout": {"ref": {"branch": "develop"}}});
        for (git, reference, branch, destination, same) in [
            (json!({}), &main, Some("main"), "main", true),
            (develop, &main, Some("develop"), "develop", true),
            (json!({"push": {"branch": "bot"}}), &main, Some("bot"), "bot", false),
            (refspec.clone(), &main, Some("main"), "main", true),
            (refspec, &tag, None, "refs/heads/copy", false),
        ] {
            let target = Target::of(&job(git.clone(), reference.clone())).expect("a target");
            let found = (target.branch.as_deref(), target.destination(), target.same);
            assert_eq!(found, (branch, destination.to_owned(), same), "{git}");
        }
        // A refspec that cannot be served is none.
        let forced = json!({"push": {"refspec": "+refs/heads/main:refs/heads/copy"}});
        let error = Target::of(&job(forced, tag)).expect_err("nowhere to push to");
        assert_eq!(error.reason, "InvalidSourceConfiguration");
    }

    #[test]
    fn a_branch_that_falls_behind_is_told_and_one_that_was_merged_is_not() {
        let told = |standing| told("bot", "main", &standing);
        assert_eq!((told(Standing::Merged), told(Standing::Ahead)), (None, None));
        let one = told(Standing::Apart { lacking: 1 }).expect("told");
        assert!(one.starts_with("branch bot lacks 1 commit of main"), "{one}");
        let away = told(Standing::Untold { cause: "away".into() }).expect("told");
        assert!(away.ends_with(": away"), "{away}");
        assert_eq!(start(None, "p"), Start::Absent);
        assert_eq!(start(Some("p"), "p"), Start::Parent);
        assert_eq!(start(Some("b"), "p"), Start::Merged("b"));
    }
}
