//! One exchange with a remote: list its refs, choose, fetch depth 1 if the choice moved; or fetch
//! the history of some refs, so many commits deep.
//!
//! Listing and fetching share one connection where the wanted ref is known beforehand; a semver
//! range needs a second one, since its refspec follows from the listing. Nothing is written but a
//! pack and the list of shallow commits: what the exchange means is up to `mirror`.
//!
//! The listing itself has no size limit in gix; the deadline bounds it. Nor does gix close a
//! silent http connection at the deadline: the caller gives up on time, this thread follows when
//! the read times out.

use super::error::SourceError;
use super::select::{Choice, NoChoice, RemoteRef, choose, describe, listing, similar};
use super::wire::Wire;
use crate::flux::GitReference;
use gix::protocol::handshake::Ref;
use gix::remote::{Direction, fetch::Shallow, fetch::Tags};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Everything one exchange needs, owned, since it runs on a thread of its own.
pub(super) struct Job {
    pub mirror: PathBuf,
    pub wire: Wire,
    pub reference: GitReference,
    /// Commits that the mirror already holds in full.
    pub known: Vec<String>,
}

/// What is asked for to learn how two tips stand to each other.
pub(super) struct Deepening {
    pub mirror: PathBuf,
    pub wire: Wire,
    /// Full refs, or ids of commits.
    pub wants: Vec<String>,
    /// Commits on each way from a ref.
    pub depth: u32,
}

/// How an exchange ended.
pub(super) struct Exchanged {
    pub choice: Choice,
    /// False where the choice is a known commit and nothing was asked for.
    pub fetched: bool,
}

/// Every branch; only a commit that no server gives by its id leads to refs of that name.
const ALL_BRANCHES: &str = "+refs/heads/*:refs/gitopsd/heads/*";

/// Runs one exchange. `stop` ends it at the next piece of data.
pub(super) fn run(job: &Job, stop: &AtomicBool) -> Result<Exchanged, SourceError> {
    exchange(job, stop).map_err(|failure| match failure {
        Failure::Known(error) => error,
        Failure::Git(error) => job.wire.explain(&error),
    })
}

/// Fetches history. `stop` ends it at the next piece of data.
pub(super) fn deepen(job: &Deepening, stop: &AtomicBool) -> Result<(), SourceError> {
    let depth = NonZeroU32::new(job.depth).unwrap_or(NonZeroU32::MIN);
    let repo = job.wire.open(&job.mirror).map_err(|error| job.wire.explain(&error))?;
    receive(&repo, &job.wire, &job.wants, Shallow::DepthAtRemote(depth), stop)
        .map_err(|error| job.wire.explain(&error))
}

fn receive(
    repo: &gix::Repository,
    wire: &Wire,
    specs: &[String],
    depth: Shallow,
    stop: &AtomicBool,
) -> Result<(), gix::Error> {
    let remote = remote(repo, wire, specs)?;
    let line = wire.connect(&remote)?;
    let listed = line.prepare_fetch(gix::progress::Discard, Default::default())?;
    listed.with_shallow(depth).receive(gix::progress::Discard, stop)?;
    Ok(())
}

/// Either already named, or still in gix's words.
enum Failure {
    Known(SourceError),
    Git(gix::Error),
}

impl From<gix::Error> for Failure {
    fn from(error: gix::Error) -> Self {
        Failure::Git(error)
    }
}

fn exchange(job: &Job, stop: &AtomicBool) -> Result<Exchanged, Failure> {
    let repo = job.wire.open(&job.mirror)?;
    if let GitReference::Commit { .. } = &job.reference {
        return fetch_commit(job, &repo, stop);
    }
    let remote = remote(&repo, &job.wire, &listing(&job.reference))?;
    let listed =
        job.wire.connect(&remote)?.prepare_fetch(gix::progress::Discard, Default::default())?;
    let choice = match choose(&job.reference, &refs_of(&listed.ref_map().remote_refs)) {
        Ok(choice) => choice,
        Err(missing) => {
            drop(listed);
            return Err(Failure::Known(not_chosen(job, &repo, missing)?));
        }
    };
    if job.known.contains(&choice.revision.commit) {
        return Ok(Exchanged { choice, fetched: false });
    }
    if !matches!(job.reference, GitReference::Semver(_)) {
        listed.with_shallow(depth_one()).receive(gix::progress::Discard, stop)?;
        return Ok(Exchanged { choice, fetched: true });
    }
    drop(listed);
    receive(&repo, &job.wire, std::slice::from_ref(&choice.want), depth_one(), stop)?;
    Ok(Exchanged { choice, fetched: true })
}

/// A commit is asked for by its id; a server that refuses that is asked for the branch, or for
/// everything, with its history.
fn fetch_commit(
    job: &Job,
    repo: &gix::Repository,
    stop: &AtomicBool,
) -> Result<Exchanged, Failure> {
    let choice = choose(&job.reference, &[]).map_err(|_| unlisted(job))?;
    let commit = &choice.revision.commit;
    if job.known.contains(commit) {
        return Ok(Exchanged { choice, fetched: false });
    }
    let wanted = std::slice::from_ref(commit);
    if let Err(error) = receive(repo, &job.wire, wanted, depth_one(), stop) {
        if !matches!(job.wire.explain(&error), SourceError::Protocol { .. }) {
            return Err(error.into());
        }
        let branch = choice.revision.name.as_ref().map(|name| format!("refs/heads/{name}"));
        let spec = branch.unwrap_or_else(|| ALL_BRANCHES.to_owned());
        receive(repo, &job.wire, &[spec], Shallow::undo(), stop)?;
    }
    let id = gix::ObjectId::from_hex(commit.as_bytes()).map_err(|_| unlisted(job))?;
    match repo.has_object(id) {
        true => Ok(Exchanged { choice, fetched: true }),
        false => Err(unlisted(job)),
    }
}

fn unlisted(job: &Job) -> Failure {
    let what = describe(&job.reference);
    let url = job.wire.public_url();
    Failure::Known(SourceError::RefNotFound { url, what, similar: Vec::new() })
}

/// Asks for all refs, to tell an empty repository from a missing name and to name similar ones.
fn not_chosen(
    job: &Job,
    repo: &gix::Repository,
    reason: NoChoice,
) -> Result<SourceError, gix::Error> {
    let url = job.wire.public_url();
    if let (NoChoice::BadRange(cause), GitReference::Semver(range)) = (&reason, &job.reference) {
        return Ok(SourceError::InvalidRange { range: range.clone(), cause: cause.clone() });
    }
    let remote = remote(repo, &job.wire, &[ALL_BRANCHES.to_owned()])?;
    let options = gix::remote::ref_map::Options {
        prefix_from_spec_as_filter_on_remote: false,
        ..Default::default()
    };
    let (listed, _) = job.wire.connect(&remote)?.ref_map(gix::progress::Discard, options)?;
    let refs = refs_of(&listed.remote_refs);
    if refs.is_empty() {
        return Ok(SourceError::Empty { url });
    }
    let similar = similar(&job.reference, &refs);
    Ok(SourceError::RefNotFound { url, what: describe(&job.reference), similar })
}

fn remote<'repo>(
    repo: &'repo gix::Repository,
    wire: &Wire,
    specs: &[String],
) -> Result<gix::Remote<'repo>, gix::Error> {
    let remote = repo.remote_at_without_url_rewrite(wire.url())?;
    let specs = specs.iter().map(|spec| gix::bstr::BStr::new(spec.as_bytes()));
    Ok(remote.with_refspecs(specs, Direction::Fetch)?.with_fetch_tags(Tags::None))
}

fn depth_one() -> Shallow {
    Shallow::DepthAtRemote(NonZeroU32::MIN)
}

fn refs_of(listed: &[Ref]) -> Vec<RemoteRef> {
    let read = |found: &Ref| {
        // Of an annotated tag, `unpack` gives the tag object second and its commit third.
        let (name, target, peeled) = found.unpack();
        let commit = peeled.or(target)?.to_string();
        Some(RemoteRef { name: name.to_string(), commit })
    };
    listed.iter().filter_map(read).collect()
}
