//! One pass of an automation: look, and where a value is not what is chosen, edit, commit, push.
//!
//! The look is at the files that the source holds already, so that a pass with nothing to do asks
//! nobody. Where commits go to another branch than the one that is followed, only the remote knows
//! what is on it, and its refs are listed. The edit is made on the remote's present tip (`target`);
//! when somebody else was faster, on the next one. A commit is stored before it is pushed: what is
//! killed in between leaves a row that at worst names a commit nobody has.

use super::edit::{Edited, edit, message, unsupported};
use super::files::marked_files;
use super::hold::{Held, held};
use super::target::{Base, Target, start};
use super::{Automated, Pushed};
use crate::flux::{GitRepository, ImageUpdateAutomation};
use crate::history::{Choice, Push as Row, PushId};
use crate::pipeline::poll::blocking;
use crate::pipeline::write::STOPPING;
use crate::pipeline::{Failure, Pipeline, Retry, Revision, Step, inputs, lock, record};
use crate::source::{
    Change, Commit, Person, Push, PushError, Remote, SigningKey, Source, SourceError, Tip, Tree,
    public_url,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Times that a commit is made anew because the branch has moved meanwhile.
const ATTEMPTS: u32 = 5;

/// Pause before the second of them; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// Ids without a marker that are remembered: some 70 bytes each.
const UNMARKED: usize = 50_000;

/// Latest commits that are looked at for values that come back.
const LATEST: usize = 50;

/// Stack of a template: its values nest as deep as it has steps, 200,000 at some hundred bytes.
const STACK: usize = 64 << 20;

/// One pass that is to be made.
pub struct Automation {
    /// The automation.
    pub automation: ImageUpdateAutomation,
    /// Its source.
    pub source: GitRepository,
    /// The source's revision.
    pub revision: Revision,
    /// Files of that revision.
    pub tree: Option<Tree>,
    /// What is chosen, by policy (`namespace/name`).
    pub choices: BTreeMap<String, Choice>,
    /// Every policy that is declared.
    pub policies: BTreeSet<String>,
}

/// A push that found the branch moved, as it seemed.
struct Outrun {
    /// Where the branch was.
    at: Option<String>,
    /// The ref, as the error names it.
    what: String,
    /// The server's words; none where its listing alone told.
    words: String,
}

/// One pass under way.
struct Pass<'a> {
    pipeline: &'a Pipeline,
    job: &'a Automation,
    target: Target,
    name: String,
    held: Held,
    /// How the last try ended, if that was because the branch seemed to move.
    outrun: Option<Outrun>,
    /// What a person should know of the branch.
    word: Option<String>,
}

impl Pipeline {
    /// Makes one pass.
    pub async fn automate(&self, job: Automation) -> Result<Automated, Failure> {
        let name = format!("{}/{}", job.automation.namespace, job.automation.name);
        let mut pass = Pass {
            pipeline: self,
            target: Target::of(&job)?,
            job: &job,
            name,
            held: Held::new(),
            outrun: None,
            word: None,
        };
        pass.run().await.map_err(|failure| match failure.object {
            Some(_) => failure,
            None => failure.object(job.automation.key()),
        })
    }

    /// One automation at a time works on a remote: its own commits need not outrun each other.
    fn turn(&self, url: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut images = lock(&self.images);
        images.remotes.retain(|_, turn| Arc::strong_count(turn) > 1);
        images.remotes.entry(url.to_owned()).or_default().clone()
    }
}

/// A commit on its way, from before it is stored until it is known what became of it: whoever stops
/// the daemon waits for that, and for nothing else that an automation does.
struct Pushing<'a>(&'a Pipeline);

impl<'a> Pushing<'a> {
    /// Refuses once the daemon is stopping.
    fn begin(pipeline: &'a Pipeline) -> Result<Self, Failure> {
        pipeline.pushing.fetch_add(1, Ordering::SeqCst);
        let pushing = Pushing(pipeline);
        match *pipeline.stopping.borrow() {
            true => {
                let cause = "the daemon is stopping; the next start goes on";
                Err(Failure::new(Step::Push, STOPPING, cause).retry(Retry::Soon))
            }
            false => Ok(pushing),
        }
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        self.0.pushing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<Automated, Failure> {
        if let Some(done) = self.look().await? {
            return Ok(done);
        }
        let turn = self.pipeline.turn(&public_url(&self.job.source.url));
        let _turn = turn.lock().await;
        let credential = self.pipeline.credential(&self.job.source).await?;
        let remote = Remote {
            url: self.job.source.url.clone(),
            reference: self.target.checkout.clone(),
            credential,
            timeout: self.job.source.timeout,
            ignore: None,
        };
        let source = self.pipeline.mirror(&self.job.source).await?;
        let key = self.signing_key().await?;
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS {
            let done = self.attempt(&source, &remote, key.as_ref()).await;
            if done.is_err() {
                self.pipeline.doubt(&self.job.source);
            }
            if let Some(done) = done? {
                return Ok(done);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let words = self.outrun.iter().filter(|last| !last.words.is_empty());
        let words: String = words.map(|last| format!(": {}", last.words)).collect();
        let cause = format!("the branch moved {ATTEMPTS} times while it was edited{words}");
        Err(Failure::new(Step::Push, "GitOperationFailed", cause).retry(Retry::Soon))
    }

    /// Looks at the files that are at hand. Answers when they already say what is chosen.
    async fn look(&mut self) -> Result<Option<Automated>, Failure> {
        let at_hand = self.target.same && self.target.checkout == self.job.source.reference;
        let Some(tree) = self.job.tree.as_ref().filter(|_| at_hand) else { return Ok(None) };
        let edited = self.edit(tree.unfiltered()).await?;
        if !edited.files.is_empty() {
            return Ok(None);
        }
        if let Some((_, commit)) = self.job.revision.id.split_once("sha1:") {
            self.arrived(commit).await?;
        }
        Ok(Some(self.nothing(edited)))
    }

    /// One try: edits the tip, commits, pushes. `None` when somebody else was faster.
    async fn attempt(
        &mut self,
        source: &Arc<Source>,
        remote: &Remote,
        key: Option<&SigningKey>,
    ) -> Result<Option<Automated>, Failure> {
        let base = self.target.base(&self.job.source, source, remote).await?;
        self.has_moved(&base)?;
        self.word.clone_from(&base.word);
        let edited = self.edit(base.tip.tree.clone()).await?;
        if edited.files.is_empty() {
            self.arrived(base.at.as_deref().unwrap_or(&base.tip.revision.commit)).await?;
            return Ok(Some(self.nothing(edited)));
        }
        let (message, word) = written(&self.job.automation, &edited)?;
        let Some(commit) = self.commit(&base.tip, &edited, &message, key)? else {
            return Ok(Some(self.nothing(edited)));
        };
        let _pushing = Pushing::begin(self.pipeline)?;
        let id = self.store(&commit, &edited).await?;
        let (source, remote, made) = (source.clone(), remote.clone(), commit.clone());
        let (branch, at) = (self.target.branch.clone(), base.at.clone());
        let refspec = self.target.refspec.as_ref().map(|refspec| refspec.said.clone());
        let options = self.job.automation.push_options.clone();
        let pushed = tokio::task::spawn_blocking(move || {
            let start = start(at.as_deref(), &made.parent);
            let (branch, refspec) = (branch.as_deref(), refspec.as_deref());
            let push = Push { branch, start, refspec, options: &options };
            source.push(&remote, &made, &push)
        });
        match pushed.await {
            Ok(Ok(pushed)) => {
                let now_ms = record::now_ms();
                self.pipeline.database(move |history| history.pushed(id, now_ms)).await?;
                Ok(Some(self.pushed(&commit, &message, (pushed.left, word), edited)))
            }
            Ok(Err(error)) => {
                let (what, words) = self.refused(id, error).await?;
                self.outrun = Some(Outrun { at: base.at, what, words });
                Ok(None)
            }
            Err(_) => {
                let cause = "the pushing thread ended unexpectedly";
                Err(Failure::new(Step::Push, "GitOperationFailed", cause).retry(Retry::Soon))
            }
        }
    }

    /// A branch that is where it was did not move: the server could not write it, and has said why.
    fn has_moved(&self, base: &Base) -> Result<(), Failure> {
        let same = |last: &&Outrun| last.at == base.at && !last.words.is_empty();
        let Some(last) = self.outrun.as_ref().filter(same) else { return Ok(()) };
        let url = public_url(&self.job.source.url);
        let cause = format!("{url} did not take the push to {}: {}", last.what, last.words);
        let hint = "look at the repository on the server: a lock that was left behind, or a \
                    directory that cannot be written, keeps the ref as it is";
        let failure = Failure::new(Step::Push, "GitOperationFailed", cause);
        Err(failure.retry(Retry::Soon).hint(Some(hint.to_owned())))
    }

    /// What is to be replaced in a tree, without what is held.
    async fn edit(&mut self, tree: Tree) -> Result<Edited, Failure> {
        let known = lock(&self.pipeline.images).unmarked.clone();
        let path = self.job.automation.path.clone();
        let found = blocking(&self.job.source, move || marked_files(&tree, &path, &known));
        let found = found.await.map_err(|failure| Failure { step: Step::Edit, ..failure })?;
        {
            let mut images = lock(&self.pipeline.images);
            if images.unmarked.len() + found.unmarked.len() > UNMARKED {
                images.unmarked = Arc::default();
            }
            if !found.unmarked.is_empty() {
                Arc::make_mut(&mut images.unmarked).extend(found.unmarked);
            }
        }
        let mut choices = self.job.choices.clone();
        let edited = edit(&found.files, &choices, &self.job.policies);
        if edited.changes.is_empty() {
            return Ok(edited);
        }
        let name = self.name.clone();
        let latest = self.pipeline.database(move |history| history.pushes(Some(&name), LATEST));
        let interval = self.job.automation.interval.as_millis();
        let interval = i64::try_from(interval).unwrap_or(i64::MAX);
        let mut latest = latest.await?;
        let (url, branch) = (public_url(&self.job.source.url), self.target.destination());
        latest.retain(|push| push.url == url && push.branch == branch);
        self.held = held(&latest, &edited.changes, interval, record::now_ms());
        if self.held.is_empty() {
            return Ok(edited);
        }
        choices.retain(|policy, _| !self.held.contains_key(policy));
        Ok(edit(&found.files, &choices, &self.job.policies))
    }

    /// Makes the commit; `None` where it would change nothing.
    fn commit(
        &self,
        tip: &Tip,
        edited: &Edited,
        message: &str,
        key: Option<&SigningKey>,
    ) -> Result<Option<Commit>, Failure> {
        let author = &self.job.automation.author;
        let person = Person { name: author.name.clone(), email: author.email.clone() };
        let change = Change {
            edits: &edited.files,
            author: &person,
            committer: &person,
            message,
            time: record::now_ms() / 1000,
            sign: key,
        };
        tip.commit(&change).map_err(|error| {
            let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
            let hint = error.hint();
            Failure::new(Step::Edit, "UpdateFailed", error.to_string()).hint(hint).retry(retry)
        })
    }

    /// Stores a commit before it leaves the host.
    async fn store(&self, commit: &Commit, edited: &Edited) -> Result<PushId, Failure> {
        let row = Row {
            automation: self.name.clone(),
            sha: commit.id.clone(),
            url: public_url(&self.job.source.url),
            branch: self.target.destination(),
            made_ms: record::now_ms(),
            pushed_ms: None,
            changes: edited.changes.clone(),
        };
        self.pipeline.database(move |history| history.push_begun(&row)).await
    }

    /// Takes in why a push failed. Where a ref has moved, that is no failure yet: which one, and
    /// what the server said.
    async fn refused(&self, id: PushId, error: PushError) -> Result<(String, String), Failure> {
        // Without an answer it may have arrived all the same: then the row is right.
        let unanswered = matches!(
            error,
            PushError::Source(
                SourceError::Unreachable { .. }
                    | SourceError::Timeout { .. }
                    | SourceError::Protocol { .. }
            )
        );
        if !unanswered {
            self.pipeline.database(move |history| history.push_failed(id)).await?;
        }
        if let PushError::Moved { what, words, .. } = error {
            return Ok((what, words));
        }
        let reason = match &error {
            PushError::Source(SourceError::AuthenticationFailed { .. }) => "AuthenticationFailed",
            _ => "GitOperationFailed",
        };
        let retry = if error.retry() { Retry::Soon } else { Retry::Interval };
        Err(Failure::new(Step::Push, reason, error.to_string()).hint(error.hint()).retry(retry))
    }

    /// Notes that the latest commit has arrived, if it is the tip and that was not known: a kill or
    /// a lost answer came between.
    async fn arrived(&self, tip: &str) -> Result<(), Failure> {
        let (name, tip, now_ms) = (self.name.clone(), tip.to_owned(), record::now_ms());
        self.pipeline.database(move |history| history.found_pushed(&name, &tip, now_ms)).await
    }

    /// There was nothing to replace.
    fn nothing(&self, edited: Edited) -> Automated {
        Automated {
            message: "repository up-to-date".to_owned(),
            pushed: None,
            warnings: self.warnings(edited.warnings),
            again: self.again(),
        }
    }

    /// A commit has arrived: with what a person should know of it until the next one.
    fn pushed(
        &self,
        commit: &Commit,
        message: &str,
        (left, word): (Option<PushError>, Option<String>),
        edited: Edited,
    ) -> Automated {
        let at = self.target.destination();
        let author = &self.job.automation.author;
        let refspec = self.target.refspec.as_ref();
        let beside = refspec.and_then(|refspec| refspec.destination.strip_prefix("refs/heads/"));
        let beside = beside.filter(|_| left.is_none());
        let left = left.map(|error| {
            let said = refspec.map(|refspec| refspec.said.as_str()).unwrap_or_default();
            format!(
                "spec.git.push.refspec {said}: the branch has the commit, the second place does \
                 not: {error}"
            )
        });
        let told: Vec<String> = left.into_iter().chain(word).collect();
        lock(&self.pipeline.images).told.insert(self.name.clone(), told);
        let branches: BTreeSet<String> =
            self.target.branch.clone().into_iter().chain(beside.map(str::to_owned)).collect();
        let short = commit.id.get(..7).unwrap_or(&commit.id);
        Automated {
            message: format!("pushed commit '{short}' to branch '{at}'"),
            pushed: Some(Pushed {
                url: self.job.source.url.clone(),
                branches: branches.into_iter().collect(),
                revision: Revision {
                    id: format!("{at}@sha1:{}", commit.id),
                    author: format!("{} <{}>", author.name, author.email),
                    subject: message.lines().next().unwrap_or_default().to_owned(),
                    time: record::now_ms() / 1000,
                },
                replaced: edited.changes,
            }),
            warnings: self.warnings(edited.warnings),
            again: self.again(),
        }
    }

    fn warnings(&self, mut warnings: Vec<String>) -> Vec<String> {
        warnings.extend(self.held.values().map(|(_, told)| told.clone()));
        warnings.extend(self.word.clone());
        warnings.extend(unsupported(&self.job.automation));
        for told in lock(&self.pipeline.images).told.get(&self.name).into_iter().flatten() {
            if !warnings.contains(told) {
                warnings.push(told.clone());
            }
        }
        warnings
    }

    /// When what is held may go.
    fn again(&self) -> Option<Duration> {
        let until = self.held.values().map(|(until, _)| *until).min()?;
        let left = u64::try_from(until - record::now_ms()).unwrap_or(0);
        Some(Duration::from_millis(left + 1))
    }

    /// The key that signs, from the Secret in the automation's namespace.
    async fn signing_key(&self) -> Result<Option<SigningKey>, Failure> {
        let Some(wanted) = &self.job.automation.signing_key else { return Ok(None) };
        let connection = self.pipeline.connected(Step::Edit, "GitOperationFailed").await?;
        let (namespace, name) = (&self.job.automation.namespace, &wanted.secret_ref);
        let failed = |cause: String| {
            let cause = format!("Secret {namespace}/{name} with the signing key: {cause}");
            Failure::new(Step::Edit, "GitOperationFailed", cause)
        };
        let data = inputs::secret(&connection, namespace, name).await?;
        let data = data.ok_or_else(|| failed("it does not exist".to_owned()))?;
        let Some(identity) = data.get("identity") else {
            return Err(failed("the key identity is missing".to_owned()));
        };
        let key = SigningKey::from_openssh(identity, data.get("password"));
        let key = key.map_err(|error| failed(error.to_string()).hint(error.hint()))?;
        Ok(Some(key))
    }
}

/// The commit's message. A template is a user's program: values that nest without end must not end
/// the daemon, so it has a stack of its own.
fn written(
    automation: &ImageUpdateAutomation,
    edited: &Edited,
) -> Result<(String, Option<String>), Failure> {
    let failed = |cause: String| Failure::new(Step::Edit, "UpdateFailed", cause);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("message".into()).stack_size(STACK);
        let writing = thread.spawn_scoped(scope, || message(automation, edited));
        let writing = writing.map_err(|error| failed(format!("cannot start a thread: {error}")))?;
        writing.join().map_err(|_| failed("the template ended unexpectedly".to_owned()))?
    })
}
