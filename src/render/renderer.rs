//! The long-lived renderer and one render of it.
//!
//! [`Renderer::digest`] walks what a Kustomization can read, which costs one look-up for each
//! file and is remembered by the tree's id, and hashes it with everything else that the result
//! depends on. [`Renderer::render`] goes on from there only when no result is kept under that
//! digest. Git and parsing run on the blocking pool, the child is started on a worker.

use super::cache::{Cache, Entry};
use super::child::{Failure, Limits};
use super::engine::Engine;
use super::error::{Problem, WarningKind};
use super::fetch::{Copy, Remotes};
use super::finish;
use super::kustomization::{Composed, compose};
use super::mount::{Files, Mounts};
use super::open::{MacPolicy, Opening};
use super::reach::{Reach, Role, Unreachable, View, reach};
use super::workspace::{Workspace, sweep};
use super::{Manifest, Origin, Redactor, RenderError, Variables, Warning, substitute};
use crate::flux::Kustomization;
use crate::secrets::Keyring;
use crate::source::Tree;
use futures::StreamExt;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Walks that are remembered: several for each Kustomization of a large cluster. One is some
/// 100 bytes for each file that is read.
const REMEMBERED: usize = 256;

/// How deep bases outside the source may name others outside theirs.
const MAX_ROUNDS: usize = 8;

/// Longest time that a render waits for its bases: two that do not answer at all, one after the
/// other.
pub const REMOTES_WITHIN: Duration = Duration::from_secs(60);

/// Bases of one render that are asked for at once: each may be a thread and a connection.
const AT_ONCE: usize = 4;

/// What a renderer needs from the configuration. It holds the host's key, so it has no `Debug`.
#[derive(Clone)]
pub struct Settings {
    /// A directory on tmpfs; workspaces lie in `render/` below it, which is emptied at the start.
    pub runtime_dir: PathBuf,
    /// kubectl or kustomize, if not to be looked for.
    pub engine: Option<PathBuf>,
    /// k3s's data directory.
    pub data_dir: PathBuf,
    /// Longest build.
    pub timeout: Duration,
    /// Most resident memory of a build, in bytes.
    pub memory: u64,
    /// Most memory for results that are kept, in bytes.
    pub cache_bytes: usize,
    /// The host's key for digests of what may hold a secret.
    pub digest_key: [u8; 32],
    /// What a wrong MAC means.
    pub mac: MacPolicy,
    /// Most builds at once.
    pub concurrency: usize,
    /// Where copies of what lies outside the source are kept; `None` fetches nothing.
    pub remotes: Option<PathBuf>,
    /// Longest time that a render waits for all of these.
    pub remotes_within: Duration,
}

impl Settings {
    /// The defaults, for a runtime directory and a host key: 60 s, 512 MiB, a cache of 16 MiB,
    /// two builds at once, nothing fetched, and where it is, within 60 s.
    pub fn new(runtime_dir: impl Into<PathBuf>, digest_key: [u8; 32]) -> Self {
        Settings {
            runtime_dir: runtime_dir.into(),
            engine: None,
            data_dir: "/var/lib/rancher/k3s".into(),
            timeout: Duration::from_secs(60),
            memory: 512 << 20,
            cache_bytes: 16 << 20,
            digest_key,
            mac: MacPolicy::Warn,
            concurrency: 2,
            remotes: None,
            remotes_within: REMOTES_WITHIN,
        }
    }
}

impl Settings {
    /// The program that builds, if there is one: the one named, else k3s's, else one of `PATH`.
    pub fn program(&self) -> Option<PathBuf> {
        self.find().ok().map(|Engine::Child(program)| program.path)
    }

    fn find(&self) -> Result<Engine, RenderError> {
        let search = std::env::var_os("PATH");
        Engine::find(self.engine.as_deref(), &self.data_dir, search.as_deref())
    }
}

/// What is to be rendered.
#[derive(Clone, Debug)]
pub struct Request {
    /// The Kustomization.
    pub kustomization: Kustomization,
    /// The files of its source's revision.
    pub source_root: Tree,
    /// Keys that may open its sealed files.
    pub keyring: Arc<Keyring>,
    /// Variables of `postBuild`, already resolved.
    pub variables: Variables,
    /// How old copies of what lies outside the source may be before the remote is asked again.
    pub copy_age: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The objects, in the order of the build.
    pub manifests: Arc<Vec<Manifest>>,
    /// Keyed digest of all inputs, hex.
    pub digest: String,
    /// True when no child was needed.
    pub cached: bool,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// Over every value that was opened.
    pub redactor: Redactor,
    /// The engine's kind.
    pub engine: &'static str,
}

/// Renders Kustomizations; cheap to clone.
#[derive(Clone)]
pub struct Renderer(Arc<Inner>);

struct Inner {
    settings: Settings,
    engine: Mutex<Option<Engine>>,
    walks: Mutex<VecDeque<(String, Arc<Reach>)>>,
    cache: Cache,
    children: AtomicU64,
    places: Semaphore,
    remotes: Arc<Remotes>,
}

/// A walk and the digest that it leads to.
struct Known {
    reach: Arc<Reach>,
    mounts: Mounts,
    /// Copies that may be old.
    old: Vec<Warning>,
    engine: Engine,
    digest: String,
}

impl Renderer {
    /// A renderer with an empty cache; removes workspaces of a former process.
    ///
    /// # Errors
    /// The runtime directory cannot be written.
    pub fn new(settings: Settings) -> Result<Renderer, RenderError> {
        sweep(&settings.runtime_dir)?;
        let remotes = Remotes::new(settings.remotes.clone(), settings.runtime_dir.clone());
        Ok(Renderer(Arc::new(Inner {
            engine: Mutex::new(None),
            walks: Mutex::new(VecDeque::new()),
            cache: Cache::new(settings.cache_bytes),
            children: AtomicU64::new(0),
            places: Semaphore::new(settings.concurrency.max(1)),
            remotes: Arc::new(remotes),
            settings,
        })))
    }

    /// Keyed digest of everything that the result depends on, hex, and which copies of what lies
    /// outside the source may be old; starts no child and opens nothing.
    ///
    /// # Errors
    /// A path, a file or an engine that is not there, or kustomization files that are wrong.
    pub async fn digest(&self, request: &Request) -> Result<(String, Vec<Warning>), RenderError> {
        self.known(request).await.map(|known| (known.digest, known.old))
    }

    /// Renders; a child is started only when no result is kept under the same digest.
    ///
    /// # Errors
    /// See [`RenderError`]; nothing of the workspace remains in any case.
    pub async fn render(&self, request: &Request) -> Result<Rendered, RenderError> {
        let known = self.known(request).await?;
        if let Some(entry) = self.0.cache.get(&known.digest) {
            return Ok(Rendered {
                manifests: entry.manifests,
                digest: known.digest,
                cached: true,
                warnings: [entry.warnings, known.old].concat(),
                redactor: Redactor::default(),
                engine: known.engine.name(),
            });
        }
        let _place = self.0.places.acquire().await.map_err(|_| RenderError::Source {
            problem: "the renderer is shutting down".to_owned(),
            retry: true,
        })?;
        self.build(request, known).await
    }

    /// Child processes started so far.
    pub fn children(&self) -> u64 {
        self.0.children.load(Ordering::Relaxed)
    }

    async fn build(&self, request: &Request, known: Known) -> Result<Rendered, RenderError> {
        let job = Job {
            settings: self.0.settings.clone(),
            request: request.clone(),
            reach: known.reach,
            mounts: known.mounts,
        };
        let (job, prepared) = blocking(move || {
            let prepared = job.prepare();
            (job, prepared)
        })
        .await?;
        let prepared = prepared.map_err(|error| error.public(|text| job.mounts.public(text)))?;
        let limits = Limits { timeout: job.settings.timeout, memory: job.settings.memory };
        self.0.children.fetch_add(1, Ordering::Relaxed);
        let built = known.engine.build(&prepared.workspace, &job.reach.root, &limits).await;
        let text = built.map_err(|failure| job.explain(failure, &prepared))?;
        let size = text.len();
        let (manifests, warnings, redactor) =
            blocking(move || job.finish(&text, prepared)).await??;
        let manifests = Arc::new(manifests);
        self.0.cache.put(Entry {
            digest: known.digest.clone(),
            manifests: manifests.clone(),
            warnings: warnings.clone(),
            text: size,
        });
        let (digest, engine) = (known.digest, known.engine.name());
        let warnings = [warnings, known.old].concat();
        Ok(Rendered { manifests, digest, cached: false, warnings, redactor, engine })
    }

    /// Walks what the Kustomization can read, with what lies outside the source fetched. What was
    /// fetched may name more of that, so each round may bring another.
    async fn known(&self, request: &Request) -> Result<Known, RenderError> {
        let deadline = Instant::now() + self.0.settings.remotes_within;
        let mut mounts = Mounts::default();
        let mut old = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let (engine, reach, digest) = self.round(request, &mounts).await?;
            if let Some(digest) = digest {
                let old = old.into_iter().collect();
                return Ok(Known { reach, mounts, old, engine, digest });
            }
            self.fetch((request, deadline), &reach, &mut mounts, &mut old).await?;
        }
        let message = format!("bases name bases of other repositories more than {MAX_ROUNDS} deep");
        Err(RenderError::Invalid { problems: vec![problem(&message)] })
    }

    /// One walk; the digest is there once nothing has to be fetched any more.
    async fn round(
        &self,
        request: &Request,
        mounts: &Mounts,
    ) -> Result<(Engine, Arc<Reach>, Option<String>), RenderError> {
        let (renderer, request, mounts) = (self.clone(), request.clone(), mounts.clone());
        blocking(move || {
            let engine = renderer.engine()?;
            let reach = renderer.walk(&request, &mounts)?;
            if !reach.problems.is_empty() {
                let problems = reach.problems.iter().map(|problem| public(problem, &mounts));
                return Err(RenderError::Invalid { problems: problems.collect() });
            }
            let whole = reach.remotes.is_empty();
            let digest = whole.then(|| renderer.hash(&request, &reach, &engine));
            Ok((engine, reach, digest))
        })
        .await?
    }

    fn engine(&self) -> Result<Engine, RenderError> {
        let mut known = self.0.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = known.as_ref().filter(|engine| engine.is_current()) {
            return Ok(engine.clone());
        }
        let found = self.0.settings.find()?;
        *known = Some(found.clone());
        Ok(found)
    }

    /// Fetches what one walk has found outside, some at once; all that fail are named.
    async fn fetch(
        &self,
        (request, deadline): (&Request, Instant),
        reach: &Reach,
        mounts: &mut Mounts,
        old: &mut BTreeSet<Warning>,
    ) -> Result<(), RenderError> {
        let ask = |entry: &String| {
            let (remotes, entry) = (self.0.remotes.clone(), entry.clone());
            let age = request.copy_age;
            async move { remotes.get(&entry, age, deadline).await }
        };
        let asked = reach.remotes.iter().enumerate().map(|(at, remote)| {
            let answer = ask(&remote.entry);
            async move { (at, answer.await) }
        });
        let asked: Vec<_> = asked.collect();
        // As they come: one that hangs holds up no other's turn.
        let answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut answers: Vec<_> = answers.collect().await;
        answers.sort_by_key(|(at, _)| *at);
        let mut problems = Vec::new();
        let mut retry = false;
        let mut fetched = Mounts::default();
        for (remote, (_, got)) in reach.remotes.iter().zip(answers) {
            let place = |message| public(&Problem::at(&remote.file, remote.line, message), mounts);
            match got {
                Ok(Copy { mount, stale }) => {
                    if let Some(cause) = stale {
                        let message = format!("{}: the last copy stands; it {cause}", remote.entry);
                        let Problem { file, line, message } = place(message);
                        old.insert(Warning { kind: WarningKind::OldCopy, file, line, message });
                    }
                    fetched.add(mount);
                }
                Err(failed) => {
                    retry |= failed.retry;
                    problems.push(place(format!("{}: {}", remote.entry, failed.cause)));
                }
            }
        }
        mounts.extend(fetched);
        if problems.is_empty() { Ok(()) } else { Err(RenderError::Remote { problems, retry }) }
    }

    /// One walk, from memory while the tree and the copies are the same.
    fn walk(&self, request: &Request, mounts: &Mounts) -> Result<Arc<Reach>, RenderError> {
        let (tree, spec) = (&request.source_root, &request.kustomization);
        let missing = spec.ignore_missing_components;
        let states = mounts.states();
        let key =
            json!([tree.id(), tree.rules_digest(), spec.path, spec.components, missing, states]);
        let key = key.to_string();
        {
            let mut walks = self.0.walks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = walks.iter().position(|(kept, _)| *kept == key)
                && let Some(kept) = walks.remove(at)
            {
                let reach = kept.1.clone();
                walks.push_back(kept);
                return Ok(reach);
            }
        }
        let files = Files { tree, mounts };
        let view = View {
            entry: &|path| files.entry(path).map_err(|e| e.to_string()),
            list: &|dir| files.list(dir).map_err(|e| e.to_string()),
            read: &|path| files.read(path).map_err(|e| e.to_string()),
            copy: &|entry| mounts.target(entry),
        };
        let walked =
            reach(&view, &spec.path, &spec.components, missing).map_err(|error| match error {
                Unreachable::NoPath(path) => RenderError::PathNotFound { path },
                // A kustomization file beyond the size limit is the one error here that lasts.
                Unreachable::Source(problem) => RenderError::Source { problem, retry: true },
            })?;
        let walked = Arc::new(walked);
        let mut walks = self.0.walks.lock().unwrap_or_else(PoisonError::into_inner);
        walks.push_back((key, walked.clone()));
        while walks.len() > REMEMBERED {
            walks.pop_front();
        }
        Ok(walked)
    }

    /// Everything that the result depends on, under the host's key.
    fn hash(&self, request: &Request, reach: &Reach, engine: &Engine) -> String {
        let spec = &request.kustomization;
        let settings = &self.0.settings;
        let files: Vec<_> = reach.files.iter().map(|(path, file)| (path, &file.id)).collect();
        let post_build = spec.post_build.as_ref().map(|post| {
            format!(
                "{:?} {}",
                post.substitute_strategy,
                request.variables.digest(&settings.digest_key)
            )
        });
        let keys = spec.decryption.as_ref().map(|_| request.keyring.fingerprint());
        let inputs = json!([
            concat!("render ", env!("CARGO_PKG_VERSION")),
            reach.root,
            files,
            reach.components,
            [spec.target_namespace, spec.name_prefix, spec.name_suffix],
            spec.patches,
            spec.images,
            spec.build_metadata,
            post_build,
            keys,
            settings.mac == MacPolicy::Enforce,
            engine.identity(),
        ]);
        let mut mac = Hmac::<Sha256>::new_from_slice(&settings.digest_key)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(inputs.to_string().as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A problem in terms of what the user wrote, not of the workspace.
fn public(problem: &Problem, mounts: &Mounts) -> Problem {
    Problem {
        file: problem.file.as_deref().map(|file| mounts.public(file)),
        line: problem.line,
        message: mounts.public(&problem.message),
    }
}

/// Runs `work` on the blocking pool; a panic in it costs this render only.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RenderError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RenderError::Source {
        problem: format!("rendering stopped: {error}"),
        retry: true,
    })
}

/// One render, between its steps.
struct Job {
    settings: Settings,
    request: Request,
    reach: Arc<Reach>,
    mounts: Mounts,
}

/// A workspace ready to build, and what opening its files has taught.
struct Prepared {
    workspace: Workspace,
    composed: Composed,
    opening: Opening,
}

type Finished = (Vec<Manifest>, Vec<Warning>, Redactor);

impl Job {
    fn prepare(&self) -> Result<Prepared, RenderError> {
        let spec = &self.request.kustomization;
        let keyring = spec.decryption.as_ref().map(|_| self.request.keyring.clone());
        let mut opening = Opening::new(keyring, self.settings.mac);
        let workspace = Workspace::create(&self.settings.runtime_dir)?;
        workspace.directory(&self.reach.root)?;
        let files = Files { tree: &self.request.source_root, mounts: &self.mounts };
        for (path, reached) in &self.reach.files {
            let bytes = files.read(path);
            let bytes = bytes.map_err(|error| RenderError::Source {
                problem: error.to_string(),
                retry: error.retry(),
            })?;
            let content = opening.file(path, reached, bytes);
            match self.reach.rewritten.get(path) {
                Some(rewritten) => workspace.write(path, rewritten.to_string().as_bytes())?,
                None => workspace.write(path, content.expose())?,
            }
        }
        opening.verdict()?;
        let composed = compose(&self.reach, spec);
        workspace.write(&composed.file, composed.text.as_bytes())?;
        Ok(Prepared { workspace, composed, opening })
    }

    fn finish(&self, text: &[u8], prepared: Prepared) -> Result<Finished, RenderError> {
        let Prepared { workspace, composed, mut opening } = prepared;
        // Plaintext on tmpfs lives no longer than the child.
        drop(workspace);
        let text = std::str::from_utf8(text).map_err(|_| RenderError::Build {
            problems: vec![problem("the build's output is not UTF-8")],
        })?;
        let built = finish::objects(text, &self.reach.root, composed.keep_origin)
            .map_err(|problems| RenderError::Invalid { problems })?;
        let mut manifests = Vec::with_capacity(built.len());
        let mut plaintext = Vec::new();
        for mut object in built {
            let sensitive = opening.object(&mut object);
            let origin = finish::origin(&object, &opening.lines);
            if !sensitive {
                let generators = &self.reach.generators;
                plaintext.extend(finish::plaintext(
                    &object,
                    origin.as_ref(),
                    generators,
                    &opening.opened,
                ));
            }
            let origin = origin
                .map(|Origin { file, line }| Origin { file: self.mounts.public(&file), line });
            manifests.push(Manifest::new(object.value, origin, sensitive));
        }
        opening.verdict()?;
        let manifests = self.substitute(manifests, &opening.redactor)?;
        let mut warnings = opening.warnings;
        warnings.extend(plaintext);
        for warning in &mut warnings {
            warning.file = warning.file.as_deref().map(|file| self.mounts.public(file));
        }
        Ok((manifests, warnings, opening.redactor))
    }

    /// `postBuild`, for each object by itself; all that fail are named.
    fn substitute(
        &self,
        manifests: Vec<Manifest>,
        redactor: &Redactor,
    ) -> Result<Vec<Manifest>, RenderError> {
        let Some(post) = &self.request.kustomization.post_build else { return Ok(manifests) };
        let mut done = Vec::with_capacity(manifests.len());
        let mut problems = Vec::new();
        for manifest in manifests {
            match substitute(&manifest, &self.request.variables, post.substitute_strategy) {
                Ok(Some(changed)) => done.push(changed),
                Ok(None) => done.push(manifest),
                Err(error) => problems.push(Problem {
                    file: manifest.origin.as_ref().map(|origin| origin.file.clone()),
                    line: manifest.origin.as_ref().and_then(|origin| origin.line),
                    message: redactor.mask(&format!("{}: {error}", manifest.id)),
                }),
            }
        }
        if problems.is_empty() { Ok(done) } else { Err(RenderError::Substitute { problems }) }
    }

    /// The engine's words, redacted, in terms of the repository.
    fn explain(&self, failure: Failure, prepared: &Prepared) -> RenderError {
        let said = match failure {
            Failure::Stopped(error) => return error,
            Failure::Refused(said) => said,
        };
        let home = format!("{}/", prepared.workspace.path().display());
        let said: Zeroizing<String> = Zeroizing::new(said.replace(&home, ""));
        let masked = prepared.opening.redactor.mask(said.trim_start_matches("error: "));
        let named = self.reach.files.keys().find(|path| masked.contains(path.as_str())).cloned();
        let (file, line) = match self.field(&masked) {
            Some((file, line)) => (Some(file), Some(line)),
            None => (named.or_else(|| self.reach.file.clone()), None),
        };
        let told = Problem { file, line, message: masked };
        RenderError::Build { problems: vec![public(&told, &self.mounts)] }
    }

    /// Where the field stands that kustomize calls unknown without saying where.
    fn field(&self, said: &str) -> Option<(String, u32)> {
        let field = said.split("unknown field \"").nth(1)?.split('"').next()?;
        let files = self.reach.files.iter();
        files.filter(|(_, file)| file.roles.contains(&Role::Kustomization)).find_map(|(path, _)| {
            let files = Files { tree: &self.request.source_root, mounts: &self.mounts };
            let bytes = files.read(path).ok()?;
            let text = String::from_utf8_lossy(&bytes);
            let at = text.lines().position(|line| {
                line.trim_start_matches([' ', '-', '"'])
                    .strip_prefix(field)
                    .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
            })?;
            Some((path.clone(), u32::try_from(at + 1).ok()?))
        })
    }
}

fn problem(message: &str) -> Problem {
    Problem { file: None, line: None, message: message.to_owned() }
}
