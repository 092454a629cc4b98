//! Image automation from a pushed tag to a healthy pod, with a real registry and real Git servers.
//!
//! [`Stage`] is the small setting of most tests: one app repository whose markers stand in a
//! ConfigMap, so that nothing has to roll out, and the image objects that follow its registry.
//! `flow.rs` is the whole way with the example repositories, `killed.rs` cuts the small one at every
//! write to the record, and `restart` at everything else, the push included;
//! `fields.rs` goes through what the objects may ask for, `commits.rs` through what commits and pushes
//! may, `branches.rs` through where they go, and `figures.rs` prints what all of it costs.
//!
//! [`mk_app`] and [`mk_objects`] are what the small setting consists of, [`values`] what became of it
//! in Git.

mod branches;
mod commits;
mod fields;
mod figures;
mod flow;

mod killed;

use crate::bed::{PASSWORD, RegistryOptions, RegistryServer, Repo, USER};
use crate::world::{PATIENCE, World, mk_kustomization, mk_namespace};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// Interval of an automation in most tests: no commit waits for it.
const LONG: &str = "1h";

/// One app whose image tags are followed.
struct Stage {
    world: World,
    registry: RegistryServer,
    config: Repo,
    app: Repo,
}

/// What differs from one stage to the next.
pub struct Setting {
    /// Names of the policies; each follows the tags `NAME-N` and writes the key `NAME`.
    pub policies: &'static [&'static str],
    /// Interval of the registry's scans.
    pub scan: &'static str,
    /// Interval of the automation.
    pub interval: &'static str,
    /// Further lines of the automation's `git`, each indented by four spaces.
    pub git: &'static str,
    /// How the registry is set up; with a password or TLS, the Secrets for it are made.
    pub registry: RegistryOptions,
}

/// What can be said only once the servers are there. Lines are indented as where they go.
#[derive(Default)]
pub struct Extra {
    /// URL of the app's source, instead of plain HTTP.
    url: Option<String>,
    /// Further lines of the source's spec.
    source: String,
    /// Further lines of the repository's spec.
    repository: String,
    /// Further lines of a policy's spec, by its name.
    policies: BTreeMap<&'static str, String>,
    /// Further entries of the automation's `commit`.
    commit: String,
    /// Further objects.
    objects: Vec<String>,
    /// Not all of it is to become ready.
    unready: bool,
}

impl Default for Setting {
    fn default() -> Self {
        let registry = RegistryOptions::default();
        Setting { policies: &["a"], scan: "1h", interval: LONG, git: "", registry }
    }
}

/// A policy that follows the tags `NAME-N` by number.
fn mk_policy(name: &str, order: &str) -> String {
    format!(
        "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImagePolicy\nmetadata:\n  name: {name}\n  \
         namespace: flux-system\nspec:\n  imageRepositoryRef: {{name: app}}\n  \
         filterTags: {{pattern: '^{name}-(?P<n>[0-9]+)$', extract: $n}}\n  \
         policy: {{numerical: {{order: {order}}}}}\n"
    )
}

fn mk_automation(interval: &str, commit: &str, git: &str) -> String {
    format!(
        "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageUpdateAutomation\nmetadata:\n  \
         name: app\n  namespace: flux-system\nspec:\n  interval: {interval}\n  \
         sourceRef: {{kind: GitRepository, name: app}}\n  git:\n    \
         commit: {{author: {{name: Robot, email: robot@test.invalid}}{commit}}}\n{git}"
    )
}

/// What the ImageRepository says of its registry, and the Secrets that it names.
fn keys(world: &World, registry: &RegistryServer, options: RegistryOptions) -> String {
    let mut spec = String::new();
    if !options.tls {
        spec.push_str("  insecure: true\n");
    }
    world.cluster().apply(&mk_namespace("flux-system"));
    let secret = |name: &str, kind: &str, key: &str, value: &str| {
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        world.cluster().apply(&format!(
            "apiVersion: v1\nkind: Secret\ntype: {kind}\nmetadata:\n  name: {name}\n  \
             namespace: flux-system\ndata:\n  {key}: {value}\n"
        ));
    };
    if options.password {
        let name = format!("login-{}", world.namespace);
        let login = serde_json::json!({"auths": {(registry.host()):
            {"username": USER, "password": PASSWORD}}});
        let kind = "kubernetes.io/dockerconfigjson";
        secret(&name, kind, ".dockerconfigjson", &login.to_string());
        spec.push_str(&format!("  secretRef: {{name: {name}}}\n"));
    }
    if options.tls {
        let name = format!("ca-{}", world.namespace);
        secret(&name, "Opaque", "ca.crt", registry.ca().pem());
        spec.push_str(&format!("  certSecretRef: {{name: {name}}}\n"));
    }
    spec
}

/// The app's repository, pushed: a ConfigMap with a marker for each policy, at tag 1, which is in the
/// registry.
pub fn mk_app(world: &World, registry: &RegistryServer, policies: &[&str]) -> Repo {
    let image = registry.image("games/app");
    let app = Repo::create(&world.git, "games/app");
    let mut map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: images\n  namespace: {}\ndata:\n",
        world.namespace
    );
    for name in policies {
        registry.push("games/app", &format!("{name}-1"), name);
        let mark = format!("{{\"$imagepolicy\": \"flux-system:{name}\"}}");
        map.push_str(&format!("  {name}: {image}:{name}-1 # {mark}\n"));
    }
    app.write("k8s/images.yaml", &map);
    app.commit("first");
    app.push("main");
    app
}

/// What the flux-config repository declares of the app: its source, its registry, a Kustomization,
/// an automation and the policies.
pub fn mk_objects(
    world: &World,
    registry: &RegistryServer,
    setting: &Setting,
    extra: &Extra,
) -> Vec<String> {
    let mut objects = vec![
        format!(
            "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata:\n  \
             name: app\n  namespace: flux-system\nspec:\n  interval: 1h\n  url: {}\n  \
             ref: {{branch: main}}\n{}",
            extra.url.clone().unwrap_or_else(|| world.git.url_of("games/app")),
            extra.source
        ),
        format!(
            "apiVersion: image.toolkit.fluxcd.io/v1beta2\nkind: ImageRepository\nmetadata:\n  \
             name: app\n  namespace: flux-system\nspec:\n  image: {}\n  \
             interval: {}\n  timeout: 5s\n{}{}",
            registry.image("games/app"),
            setting.scan,
            keys(world, registry, setting.registry),
            extra.repository
        ),
        mk_kustomization("app", "./k8s", "").replace("name: flux-system}\n", "name: app}\n"),
        mk_automation(setting.interval, &extra.commit, setting.git),
    ];
    for name in setting.policies {
        let more = extra.policies.get(name).cloned().unwrap_or_default();
        objects.push(mk_policy(name, "asc") + &more);
    }
    objects.extend(extra.objects.iter().cloned());
    objects
}

impl Stage {
    /// Everything declared and settled, with tag 1 of every policy in the registry and in Git.
    fn new(setting: &Setting) -> Stage {
        Stage::with(setting, |_, _| Extra::default())
    }

    /// The same with more of it.
    fn with(setting: &Setting, extra: impl Fn(&World, &RegistryServer) -> Extra) -> Stage {
        let mut world = World::new();
        let registry = RegistryServer::start(setting.registry);
        world.cluster().apply(&mk_namespace(&world.namespace));
        let app = mk_app(&world, &registry, setting.policies);
        let extra = extra(&world, &registry);
        let objects = mk_objects(&world, &registry, setting, &extra);
        let config = world.entry(&[("clusters/my-cluster/all.yaml", objects.join("---\n"))]);
        world.start();
        let stage = Stage { world, registry, config, app };
        let settled = || {
            if !extra.unready {
                stage.world.settled();
            }
        };
        settled();
        stage.world.eventually("a tag is chosen", |_| {
            stage.image(setting.policies[0])["chosen"]["tag"].is_string()
        });
        settled();
        stage
    }

    fn push(&self, tag: &str) {
        self.registry.push("games/app", tag, tag);
    }

    /// The value of a policy's key on the remote's branch.
    fn in_git(&self, branch: &str, name: &str) -> String {
        let file = format!("{branch}:k8s/images.yaml");
        let text = git(&self.app, &["show", &file]);
        let line = text.lines().find(|line| line.trim().starts_with(&format!("{name}: ")));
        let value = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default();
        value.rsplit(':').next().unwrap_or_default().to_owned()
    }

    /// Commits on a branch of the remote.
    fn commits(&self, branch: &str) -> usize {
        git(&self.app, &["rev-list", "--count", branch]).trim().parse().expect("a number")
    }

    /// The value in the cluster.
    fn deployed(&self, name: &str) -> String {
        let object = self.world.get("configmap", "images").unwrap_or_default();
        let value = object["data"][name].as_str().unwrap_or_default();
        value.rsplit(':').next().unwrap_or_default().to_owned()
    }

    /// One policy as `gitopsd images --json` shows it.
    fn image(&self, name: &str) -> Value {
        let all = self.world.json(&["images"]);
        let policy = format!("flux-system/{name}");
        let all = all.as_array().cloned().unwrap_or_default();
        all.into_iter().find(|image| image["policy"] == policy.as_str()).unwrap_or_default()
    }

    /// Waits until a policy has chosen `NAME-number`.
    fn chosen(&self, name: &str, number: &str) {
        let tag = format!("{name}-{number}");
        self.world.eventually(&format!("{tag} is chosen"), |_| {
            self.image(name)["chosen"]["tag"] == tag.as_str()
        });
    }

    /// Waits until a value is in Git and in the cluster.
    fn arrived(&self, name: &str, number: &str) {
        let tag = format!("{name}-{number}");
        self.world.eventually(&format!("{tag} is deployed"), |_| self.deployed(name) == tag);
        assert_eq!(self.in_git("main", name), tag);
    }

    fn automation(&self) -> Value {
        self.world.item("ImageUpdateAutomation/flux-system/app")
    }

    /// `gitopsd reconcile image NAME`; whether all of the chain ended ready.
    fn reconcile(&self, name: &str) -> bool {
        self.world.run(&["reconcile", "image", name]).status.success()
    }
}

/// A Secret in the namespace of the objects; its name is the scenario's own.
fn mk_secret(world: &World, name: &str, data: &[(&str, &[u8])]) -> String {
    let name = format!("{name}-{}", world.namespace);
    let data = data.iter().map(|(key, value)| {
        format!("  {key}: {}\n", base64::engine::general_purpose::STANDARD.encode(value))
    });
    world.cluster().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: flux-system\n\
         data:\n{}",
        data.collect::<String>()
    ));
    name
}

/// The tags that a branch had in the place of a policy, commit by commit; empty for a commit that
/// did not touch it.
pub fn values(app: &Repo, branch: &str, policy: &str) -> Vec<String> {
    let log = ["log", "--reverse", "--format=tformat:commit", "--patch", "--unified=0", branch];
    let written = format!("+  {policy}: ");
    let mut values = Vec::new();
    for line in git(app, &log).lines() {
        if line == "commit" {
            values.push(String::new());
        } else if let (Some(image), Some(value)) = (line.strip_prefix(&written), values.last_mut())
        {
            let image = image.split_whitespace().next().unwrap_or_default();
            *value = image.rsplit(':').next().unwrap_or_default().to_owned();
        }
    }
    values
}

/// Runs git on the bare repository.
fn git(repo: &Repo, arguments: &[&str]) -> String {
    let bare = repo.bare().to_str().expect("a plain name");
    repo.git(&[&["--git-dir", bare], arguments].concat())
}

#[test]
fn ten_policies_that_change_together_make_one_commit_and_own_commits_lead_to_none() {
    let names = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let stage = Stage::new(&Setting { policies: names, ..Setting::default() });
    assert_eq!(stage.commits("main"), 1, "tag 1 is in place already");
    names.iter().for_each(|name| stage.push(&format!("{name}-2")));
    assert!(stage.reconcile("ImageRepository/flux-system/app"), "{}", stage.world.log());
    names.iter().for_each(|name| stage.arrived(name, "2"));
    assert_eq!(stage.commits("main"), 2);
    let message = git(&stage.app, &["log", "-1", "--format=%an <%ae>%n%B", "main"]);
    assert!(message.starts_with("Robot <robot@test.invalid>\n"), "{message}");
    assert!(message.contains("[skip ci]") && message.contains("a-2"), "{message}");
    assert!(stage.reconcile("a"));
    assert_eq!(stage.commits("main"), 2, "its own commit leads to no other");

    let shown = stage.world.ok(&["history", "app", "-n", "1"]);
    assert!(shown.contains("a-1 → a-2 by ImagePolicy a"), "{shown}");
    let text = stage.world.ok(&["images", "a"]);
    assert!(text.contains("a-2") && text.contains("chosen") && text.contains("lower"), "{text}");
}

#[test]
fn a_marker_added_in_git_is_filled_at_once_and_one_without_a_policy_is_named() {
    let stage = Stage::new(&Setting::default());
    stage.push("a-7");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.app.git(&["pull", "--quiet", stage.app.bare().to_str().expect("plain"), "main"]);
    let map = |name: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {}\ndata:\n  \
             new: old-tag # {{\"$imagepolicy\": \"flux-system:{policy}:tag\"}}\n",
            stage.world.namespace
        )
    };
    stage.app.write("k8s/more.yaml", &map("more", "a"));
    stage.app.write("k8s/lost.yaml", &map("lost", "nobody"));
    stage.app.commit("a marker");
    stage.app.push("main");
    stage.world.run(&["reconcile", "GitRepository/flux-system/app"]);
    stage.world.eventually("the marker is filled and deployed", |world| {
        world.get("configmap", "more").is_some_and(|map| map["data"]["new"] == "a-7")
    });
    let warnings = stage.automation()["warnings"].to_string();
    assert!(warnings.contains("nobody") && warnings.contains("k8s/lost.yaml"), "{warnings}");
}

#[test]
fn a_tag_that_goes_back_and_forth_is_committed_once_in_an_interval() {
    let stage = Stage::new(&Setting::default());
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    let file = "clusters/my-cluster/all.yaml";
    stage.config.replace(file, "order: asc", "order: desc");
    stage.config.commit("the smallest");
    stage.config.push("main");
    stage.world.run(&["reconcile", "flux-system", "--with-source"]);
    stage.chosen("a", "1");
    stage.world.eventually("status says that it waits", |_| {
        stage.automation()["warnings"].to_string().contains("goes back and forth")
    });
    assert_eq!((stage.commits("main"), stage.in_git("main", "a")), (2, "a-2".to_owned()));
    // What is new does not wait.
    stage.config.replace(file, "order: desc", "order: asc");
    stage.config.commit("the greatest");
    stage.config.push("main");
    stage.push("a-3");
    stage.world.run(&["reconcile", "flux-system", "--with-source"]);
    stage.reconcile("ImageRepository/flux-system/app");
    stage.arrived("a", "3");
}

#[test]
fn a_registry_that_is_away_and_a_restart_change_no_choice() {
    let mut stage = Stage::new(&Setting { scan: "2s", ..Setting::default() });
    stage.push("a-2");
    stage.arrived("a", "2");
    stage.registry.down();
    let repository = "ImageRepository/flux-system/app";
    stage.world.eventually("status says that the registry is away", |world| {
        world.item(repository)["ready"] == "False"
    });
    assert_eq!(stage.world.item("ImagePolicy/flux-system/a")["ready"], "True");
    assert_eq!(stage.image("a")["chosen"]["tag"], "a-2");
    stage.world.stop();
    stage.world.start();
    stage
        .world
        .eventually("the choice is there again", |_| stage.image("a")["chosen"]["tag"] == "a-2");
    stage.world.eventually("the registry is asked again", |world| {
        world.item(repository)["ready"] == "False"
    });
    assert_eq!((stage.commits("main"), stage.deployed("a")), (2, "a-2".to_owned()));
    stage.registry.up();
    stage.push("a-3");
    stage.arrived("a", "3");
}

#[test]
fn what_has_not_changed_costs_no_write_and_no_request_but_the_scan() {
    let stage = Stage::new(&Setting { scan: "1s", interval: "1s", ..Setting::default() });
    let wal = stage.world.path("state/history.db-wal");
    let written = || std::fs::metadata(&wal).expect("the database is open").modified().ok();
    let (before, git_requests) = (written(), stage.world.git.requests().len());
    let scans = || stage.registry.count("GET /v2/games/app/tags/list");
    let first = scans();
    let began = Instant::now();
    stage.world.eventually("the registry was asked five times", |_| scans() >= first + 5);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(written(), before, "nothing was written");
    assert_eq!(stage.world.git.requests().len(), git_requests, "no Git server was asked");
}

#[test]
fn a_refused_push_is_told_in_the_servers_own_words_and_tried_again() {
    let stage = Stage::new(&Setting::default());
    let hook = stage.app.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().expect("below")).expect("ours to write");
    std::fs::write(&hook, "#!/bin/sh\necho 'main is protected by Ada' >&2\nexit 1\n")
        .expect("ours to write");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, open).expect("ours");
    stage.push("a-2");
    assert!(!stage.reconcile("a"), "the commit cannot be pushed");
    let item = stage.automation();
    let message = item["message"].as_str().unwrap_or_default();
    assert!(message.contains("main is protected by Ada"), "{item}");
    assert_eq!(item["reason"], "GitOperationFailed");
    assert_eq!(stage.commits("main"), 1);
    std::fs::remove_file(&hook).expect("ours");
    stage.arrived("a", "2");
    assert_eq!(stage.commits("main"), 2);

    // A lock that a killed git left behind: nobody moved the branch.
    let lock = stage.app.bare().join("refs/heads/main.lock");
    std::fs::write(&lock, "").expect("ours to write");
    stage.push("a-3");
    assert!(!stage.reconcile("a"), "the ref cannot be written");
    let message = stage.automation()["message"].to_string();
    assert!(message.contains("main.lock") && !message.contains("moved"), "{message}");
    std::fs::remove_file(&lock).expect("ours");
    stage.arrived("a", "3");
    assert_eq!(stage.commits("main"), 3);
}

#[test]
fn the_commits_of_somebody_who_pushes_all_the_time_survive_and_so_do_ours() {
    let stage = Stage::new(&Setting::default());
    let url = stage.app.bare().to_str().expect("a plain name").to_owned();
    let other = tempfile::tempdir().expect("a temporary directory");
    let work = other.path().to_str().expect("a plain name").to_owned();
    stage.app.git(&["clone", "--quiet", "--branch=main", &url, &work]);
    // A commit, then a push that is rebased until it goes through, 40 times.
    let script = "set -e; cd \"$1\"; for n in $(seq 40); do echo $n >n$n; git add .; \
                  git commit -qm other$n; until git push -q origin HEAD:main 2>/dev/null; do \
                  git pull -q --rebase origin main; done; done";
    let mut pusher = Command::new("sh")
        .args(["-c", script, "sh", &work])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "Eve"), ("GIT_AUTHOR_EMAIL", "eve@test.invalid")])
        .envs([("GIT_COMMITTER_NAME", "Eve"), ("GIT_COMMITTER_EMAIL", "eve@test.invalid")])
        .spawn()
        .expect("sh is everywhere");
    for number in 2..6 {
        stage.push(&format!("a-{number}"));
        stage.reconcile("a");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(pusher.wait().expect("our child").success());
    stage.arrived("a", "5");
    let names = git(&stage.app, &["ls-tree", "--name-only", "main"]);
    let theirs = names.lines().filter(|name| name.starts_with('n')).count();
    assert_eq!(theirs, 40, "{names}");
    let ours = git(&stage.app, &["log", "--format=%an", "main"]);
    assert!(ours.lines().filter(|author| *author == "Robot").count() >= 1, "{ours}");
}

#[test]
fn a_registry_with_a_password_and_a_private_ca_is_asked_and_the_password_stays_a_secret() {
    let registry = RegistryOptions { password: true, tls: true, client_certificate: false };
    let mut stage = Stage::new(&Setting { registry, ..Setting::default() });
    stage.push("a-2");
    assert!(stage.reconcile("a"), "{}", stage.world.log());
    stage.arrived("a", "2");
    stage.world.stop();
    let basic =
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("{USER}:{PASSWORD}"));
    let mut files = vec![stage.world.path("log")];
    files.extend(files_below(&stage.world.path("state")));
    assert!(files.iter().any(|file| file.ends_with("history.db")));
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for secret in [PASSWORD, &basic] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds the password", file.display());
        }
    }
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files_below(&path),
        path => vec![path],
    });
    below.collect()
}
