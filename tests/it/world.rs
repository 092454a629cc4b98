//! A scenario in one line: a Git server, a control plane, a configuration and the real daemon.
//!
//! [`World::new`] uses the control plane that all tests share, with a user of its own so that its
//! requests can be counted, and a namespace of its own. [`World::alone`] has a control plane that
//! it may stop. The daemon is the built program, started and killed as systemd would.

use crate::bed::{Cluster, GitServer, Repo, TEST_KEY, dying, spawn, tools};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for anything: generous, because two cores run everything.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

enum Plane {
    Shared(&'static Cluster),
    Own(Box<Cluster>),
}

/// One scenario.
pub struct World {
    dir: TempDir,
    /// Serves the repositories.
    pub git: GitServer,
    plane: Plane,
    /// User of the daemon's requests in the audit log.
    pub user: String,
    /// Namespace of this test.
    pub namespace: String,
    daemon: Option<Child>,
}

impl World {
    /// A scenario on the shared control plane.
    pub fn new() -> World {
        let cluster = Cluster::shared();
        let (user, kubeconfig) = cluster.user();
        World::on(Plane::Shared(cluster), user, &kubeconfig)
    }

    /// A scenario with a control plane of its own.
    pub fn alone() -> World {
        let cluster = Cluster::start_own();
        let kubeconfig = cluster.kubeconfig();
        World::on(Plane::Own(Box::new(cluster)), "gitopsd".to_owned(), &kubeconfig)
    }

    fn on(plane: Plane, user: String, kubeconfig: &Path) -> World {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = TempDir::with_prefix("gitopsd-world-").expect("a temporary directory");
        let git = GitServer::http();
        // The daemons of all scenarios on the shared control plane own objects of the same names.
        let extra = match &plane {
            Plane::Shared(_) => "cluster: {shared: true}\n",
            Plane::Own(_) => "",
        };
        let world = World { dir, git, plane, user, namespace, daemon: None };
        fs::write(world.path("age.key"), TEST_KEY).expect("ours to write");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(world.path("age.key"), private).expect("ours to write");
        fs::copy(kubeconfig, world.path("kubeconfig")).expect("ours to write");
        world.configure(extra);
        world
    }

    /// The control plane.
    pub fn cluster(&self) -> &Cluster {
        match &self.plane {
            Plane::Shared(cluster) => cluster,
            Plane::Own(cluster) => cluster,
        }
    }

    /// A path in the scenario's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the main configuration file, with further lines.
    pub fn configure(&self, extra: &str) {
        let engine = tools::bin().join("kubectl");
        let text = format!(
            "root:\n  url: {url}\n  ref: {{branch: main}}\n  path: clusters/my-cluster\n  \
             interval: 1h\nkubeconfig: {kubeconfig}\ndecryption: {{ageKeyFile: {key}}}\n\
             stateDirectory: {state}\nruntimeDirectory: {run}\nrender: {{engine: {engine}}}\n{extra}",
            url = self.git.url_of("infra/flux-config"),
            kubeconfig = self.path("kubeconfig").display(),
            key = self.path("age.key").display(),
            state = self.path("state").display(),
            run = self.path("run").display(),
            engine = engine.display(),
        );
        fs::write(self.path("config.yaml"), text).expect("ours to write");
    }

    /// Adds a file below `config.d`.
    pub fn drop_in(&self, text: &str) {
        fs::create_dir_all(self.path("config.d")).expect("ours to write");
        fs::write(self.path("config.d/test.yaml"), text).expect("ours to write");
    }

    /// The flux-config repository, empty.
    pub fn flux_config(&self) -> Repo {
        Repo::create(&self.git, "infra/flux-config")
    }

    /// A flux-config repository whose entry holds these files, committed and pushed.
    pub fn entry(&self, files: &[(&str, String)]) -> Repo {
        let repo = self.flux_config();
        for (path, text) in files {
            repo.write(path, text);
        }
        repo.commit("first");
        repo.push("main");
        repo
    }

    /// A flux-config repository with one Kustomization for each app, `./apps/NAME`, and the
    /// scenario's namespace made beforehand by somebody else.
    pub fn apps(&self, apps: &[App<'_>]) -> Repo {
        self.cluster().apply(&mk_namespace(&self.namespace));
        let repo = self.flux_config();
        for app in apps {
            app.write(&repo);
        }
        repo.commit("first");
        repo.push("main");
        repo
    }

    /// Both example repositories, pushed, but for the image objects: there is no registry. Two
    /// minutes of patience with a bad image are more than a test or a demo has: dev has as much as
    /// is said.
    pub fn examples(&self, patience: &str) -> (Repo, Repo) {
        self.load_examples(patience, None)
    }

    /// The same with the image objects, which ask the registry at this address in plain HTTP.
    pub fn examples_with_images(&self, patience: &str, registry: &str) -> (Repo, Repo) {
        self.load_examples(patience, Some(registry))
    }

    fn load_examples(&self, patience: &str, registry: Option<&str>) -> (Repo, Repo) {
        let url = self.git.url();
        let config = self.flux_config();
        config.load_example("flux-config", &url);
        let dev = "clusters/my-cluster/blaster/10-blaster-kustomization.yaml";
        config.replace(dev, "timeout: 2m", &format!("timeout: {patience}"));
        let app = Repo::create(&self.git, "games/blaster");
        app.load_example("games/blaster", &url);
        let images = ["blaster", "blaster-prod"]
            .map(|name| format!("clusters/my-cluster/{name}/20-blaster-image.yaml"));
        match registry {
            None => images.iter().for_each(|path| config.remove(path)),
            Some(address) => {
                let name = "registry.test.invalid";
                config.replace(&images[0], name, address);
                config.replace(&images[0], "interval: 1m\n", "interval: 1m\n  insecure: true\n");
                for path in ["base/deployment", "dev/deployment", "prod/kustomization"] {
                    app.replace(&format!("k8s/{path}.yaml"), name, address);
                }
            }
        }
        config.commit("the cluster");
        config.push("main");
        app.commit("the game");
        app.push("main");
        app.push("develop");
        (config, app)
    }

    /// Key of a Kustomization in namespace `flux-system`, and whether it is ready.
    pub fn is_ready(&self, name: &str) -> bool {
        self.item(&format!("Kustomization/flux-system/{name}"))["ready"] == "True"
    }

    /// The root source as `status` shows it.
    pub fn source(&self) -> Value {
        self.item("GitRepository/flux-system/flux-system")
    }

    /// Uid of a live object.
    pub fn uid(&self, kind: &str, name: &str) -> String {
        let object = self.get(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"));
        object["metadata"]["uid"].as_str().expect("every object has one").to_owned()
    }

    /// The JSON that a verb prints, whatever its exit code.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let (out, err) = (&output.stdout, &output.stderr);
            let text = String::from_utf8_lossy;
            panic!("{arguments:?} prints no JSON: {error}\n{}\n{}", text(out), text(err))
        })
    }

    fn program(&self) -> Command {
        self.configured(Command::new(executable()))
    }

    fn configured(&self, mut command: Command) -> Command {
        command.arg("--config").arg(self.path("config.yaml")).env("NO_COLOR", "1");
        command
    }

    /// Starts the daemon; its log is appended to one file over restarts.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("ours to write");
        let mut command = self.configured(dying(executable()));
        command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(spawn(command).expect("the program is built"));
        let began = Instant::now();
        while self.run(&["status", "--json"]).status.code() == Some(69) {
            let ended = self.ended();
            assert!(ended.is_none(), "it ended at its start: {ended:?}\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "the socket does not answer\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Starts the daemon behind a supervisor's command line, without waiting for its socket.
    pub fn start_under(&mut self, mut supervisor: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"));
        supervisor.arg(executable());
        let mut command = self.configured(supervisor);
        let log = log.expect("ours to write");
        command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(spawn(command).expect("the program is built"));
    }

    /// The exit code of a daemon that has ended by itself; -1 if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let ended = self.daemon.as_mut()?.try_wait().expect("it is our child")?;
        self.daemon = None;
        Some(ended.code().unwrap_or(-1))
    }

    /// Kills the daemon as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("it is our child");
            daemon.wait().expect("it is our child");
        }
    }

    /// Stops the daemon as systemd does, and answers its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take()?;
        let pid = daemon.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill is everywhere");
        daemon.wait().expect("it is our child").code()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon was started").id()
    }

    /// A verb that goes on until it is killed, at the latest when the test process is gone.
    pub fn lasting(&self, arguments: &[&str]) -> Child {
        let mut command = self.configured(dying(executable()));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        spawn(command).expect("the program is built")
    }

    /// A verb that is not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut program = self.program();
        program.args(arguments);
        program
    }

    /// Runs a verb.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program is built")
    }

    /// Runs a verb that must succeed, and answers what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).expect("text")
    }

    /// The status document.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// One item of the status document by `Kind/namespace/name`.
    pub fn item(&self, key: &str) -> Value {
        let status = self.status();
        let items = status.pointer("/summary/items").and_then(Value::as_array);
        let named = |item: &&Value| {
            let part = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            format!("{}/{}/{}", part("kind"), part("namespace"), part("name")) == key
        };
        items.into_iter().flatten().find(named).cloned().unwrap_or_default()
    }

    /// Message of a Kustomization in namespace `flux-system`.
    pub fn message(&self, name: &str) -> String {
        let item = self.item(&format!("Kustomization/flux-system/{name}"));
        item["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Everything the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until a condition holds.
    pub fn eventually(&self, what: &str, holds: impl Fn(&World) -> bool) -> Duration {
        let began = Instant::now();
        while !holds(self) {
            let waited = began.elapsed();
            assert!(
                waited < PATIENCE,
                "not within {waited:?}: {what}\n{}\n{:#}",
                self.log(),
                self.status()
            );
            std::thread::sleep(LOOK);
        }
        began.elapsed()
    }

    /// Waits until everything is ready and has applied the heads that were pushed.
    pub fn settled(&self) -> Duration {
        self.eventually("everything is ready", |world| {
            let status = world.status();
            let idle = |item: &Value| item["running"] == false;
            status["ready"] == true
                && status["summary"]["items"].as_array().is_some_and(|items| items.iter().all(idle))
        })
    }

    /// Asks for a run with the source and waits for its end; true when it ended well.
    pub fn reconcile(&self) -> bool {
        self.run(&["reconcile", "--with-source"]).status.success()
    }

    /// A live object in the scenario's namespace.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.cluster().get(&self.namespace, kind, name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        if let Plane::Shared(cluster) = &self.plane {
            cluster.free(&self.user);
        }
    }
}

/// The built program: cargo tells tests where it is, and a script tells examples. Who names one
/// by hand wants that one.
pub fn executable() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_gitopsd").map(PathBuf::from);
    let named = std::env::var_os("GITOPSD_PROGRAM").map(PathBuf::from);
    named.or(built).expect("GITOPSD_PROGRAM names the program")
}

/// One Kustomization and the files of its path.
pub struct App<'a> {
    /// Its name, and that of its directory below `apps/`.
    pub name: &'a str,
    /// Further lines of its spec, each indented by two spaces.
    pub spec: &'a str,
    /// File names and texts.
    pub files: &'a [(&'a str, String)],
}

impl App<'_> {
    /// Writes the Kustomization and its files into a flux-config work tree.
    pub fn write(&self, repo: &Repo) {
        let App { name, spec, files } = self;
        let text = mk_kustomization(name, &format!("./apps/{name}"), spec);
        repo.write(&format!("clusters/my-cluster/{name}.yaml"), &text);
        for (file, text) in *files {
            repo.write(&format!("apps/{name}/{file}"), text);
        }
    }
}

/// A Kustomization of the flux-config repository itself, in namespace `flux-system`.
pub fn mk_kustomization(name: &str, path: &str, extra: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  \
         name: {name}\n  namespace: flux-system\nspec:\n  interval: 1h\n  retryInterval: 1s\n  \
         path: {path}\n  prune: true\n  sourceRef: {{kind: GitRepository, name: flux-system}}\n{extra}"
    )
}

/// A Namespace.
pub fn mk_namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// A ConfigMap with one key.
pub fn mk_config_map(namespace: &str, name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         data:\n  key: {value:?}\n"
    )
}

/// A Deployment of one replica whose image has the given tag.
pub fn mk_deployment(namespace: &str, name: &str, tag: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      \
         - name: main\n        image: registry.test.invalid/app:{tag}\n"
    )
}
