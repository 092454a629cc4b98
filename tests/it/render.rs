//! Rendering with the reference kustomize in its sandbox: what a user's repository becomes, what
//! each mistake in it is told as, and what a hostile engine can reach.
//!
//! kubectl comes from the test tools (`GITOPSD_TEST_BIN`), sealed files from the golden fixtures
//! that SOPS itself made.

use base64::Engine as _;
use gitopsd::flux::{Kustomization, Object};
use gitopsd::render::{MacPolicy, RenderError, Rendered, Renderer, Request, Settings, Variables};
use gitopsd::secrets::Keyring;
use gitopsd::source::Tree;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod bases; // what lies outside the source

/// A repository, a renderer and a key.
struct Bench {
    dir: tempfile::TempDir,
    renderer: Renderer,
    keyring: Arc<Keyring>,
    variables: Variables,
}

fn tool(name: &str) -> PathBuf {
    let bin = std::env::var_os("GITOPSD_TEST_BIN").unwrap_or_else(|| {
        panic!("GITOPSD_TEST_BIN is not set: run the tests by `make test`, which builds kubectl")
    });
    Path::new(&bin).join(name)
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|settings| settings.engine = Some(tool("kubectl")))
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        let mut settings = Settings::new(dir.path().join("run"), [7; 32]);
        settings.remotes = Some(dir.path().join("remotes"));
        change(&mut settings);
        let renderer = Renderer::new(settings).unwrap();
        let keyring = Arc::new(Keyring::parse(fixture("keys.txt").as_bytes()).unwrap());
        Bench { dir, renderer, keyring, variables: Variables::new() }
    }

    fn write(&self, files: &[(&str, &str)]) -> &Self {
        for (path, text) in files {
            let full = self.dir.path().join("repo").join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        self
    }

    fn request(&self, fields: Value) -> Request {
        Request {
            kustomization: spec(fields),
            source_root: Tree::from_dir(&self.dir.path().join("repo")).unwrap(),
            keyring: self.keyring.clone(),
            variables: self.variables.clone(),
            copy_age: Duration::ZERO,
        }
    }

    async fn render(&self, fields: Value) -> Result<Rendered, RenderError> {
        let rendered = self.renderer.render(&self.request(fields)).await;
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("run/render")).unwrap().collect();
        assert!(left.is_empty(), "workspaces left behind: {left:?}");
        rendered
    }
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/render/sealed").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn spec(fields: Value) -> Kustomization {
    let mut spec = json!({"interval": "10m", "prune": true, "path": "apps",
        "sourceRef": {"kind": "GitRepository", "name": "app"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let manifest = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": "apps", "namespace": "flux-system"}, "spec": spec});
    match Object::read(&manifest) {
        Some(Ok(Object::Kustomization(read))) => *read,
        other => panic!("{other:?}"),
    }
}

fn sops() -> Value {
    json!({"decryption": {"provider": "sops"}})
}

/// JSON inside base64, as a Secret holds it.
fn decoded(value: &Value) -> Value {
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Alters one character of the first sealed value.
fn flip(sealed: &str) -> String {
    let at = sealed.find("ENC[AES256_GCM,data:").unwrap() + "ENC[AES256_GCM,data:".len();
    let other = if sealed[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &sealed[..at], &sealed[at + 1..])
}

/// `Kind/name file:line`, sensitive ones with a star.
fn listed(rendered: &Rendered) -> Vec<String> {
    let mut listed: Vec<String> = rendered
        .manifests
        .iter()
        .map(|manifest| {
            let origin = manifest.origin.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} {origin}{}", manifest.id, if manifest.sensitive { " *" } else { "" })
        })
        .collect();
    listed.sort();
    listed
}

fn warned(rendered: &Rendered) -> Vec<String> {
    rendered.warnings.iter().map(ToString::to_string).collect()
}

fn body<'r>(rendered: &'r Rendered, id: &str) -> &'r Value {
    let found = rendered.manifests.iter().find(|manifest| manifest.id.to_string() == id);
    found.unwrap_or_else(|| panic!("no {id} in {:?}", rendered.manifests)).body()
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata: {k: v}\n";

const OVERLAY: [(&str, &str); 5] = [
    (
        "apps/kustomization.yaml",
        "resources: [../base]\nnamespace: prod\npatches: [{path: p.yaml}]\n",
    ),
    (
        "apps/p.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n",
    ),
    (
        "base/kustomization.yaml",
        "resources: [web.yaml]\nconfigMapGenerator:\n- name: conf\n  files: [app.ini]\n",
    ),
    (
        "base/web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\n# the server\napiVersion: apps/v1\n\
         kind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n\
         \x20     - {name: web, image: registry.example/web:1}\n",
    ),
    ("base/app.ini", "[a]\nb = ${c}\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_is_built_and_every_object_knows_its_file() {
    let bench = Bench::new();
    bench.write(&OVERLAY);
    let fields = json!({"images": [{"name": "registry.example/web", "newTag": "2"}],
        "namePrefix": "x-"});
    let rendered = bench.render(fields).await.unwrap();
    assert_eq!(
        listed(&rendered),
        [
            "ConfigMap/prod/x-conf-kk8m768664 base/kustomization.yaml",
            "Deployment/prod/x-web base/web.yaml:6",
            "Service/prod/x-web base/web.yaml:1",
        ]
    );
    let web = body(&rendered, "Deployment/prod/x-web");
    assert_eq!(web["spec"]["replicas"], 3);
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example/web:2");
    assert_eq!(web["metadata"], json!({"name": "x-web", "namespace": "prod"}));
    assert_eq!(warned(&rendered), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_kustomization_yaml_is_every_yaml_below_it() {
    let bench = Bench::new();
    bench.write(&[("apps/a/c.yaml", CONFIG_MAP), ("apps/README.md", "x"), ("apps/d.json", "x")]);
    bench.write(&[
        ("apps/k/kustomization.yaml", "namePrefix: k-\nresources: [c.yaml]\n"),
        ("apps/k/c.yaml", CONFIG_MAP),
        ("apps/k/ignored.yaml", "- not an object\n"),
    ]);
    let rendered = bench.render(json!({"targetNamespace": "n"})).await.unwrap();
    assert_eq!(
        listed(&rendered),
        ["ConfigMap/n/c apps/a/c.yaml:1", "ConfigMap/n/k-c apps/k/c.yaml:1",]
    );
    let empty = Bench::new();
    empty.write(&[("apps/README.md", "x")]);
    assert_eq!(listed(&empty.render(json!({})).await.unwrap()), [""; 0]);
}

/// What kustomize itself makes of the words that YAML 1.1 takes for booleans.
#[tokio::test(flavor = "multi_thread")]
async fn words_that_look_like_booleans_are_text_with_and_without_a_kustomization_yaml() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: yes, on: off}\n";
    for own in [None, Some("resources: [m.yaml]\n")] {
        let bench = Bench::new();
        bench.write(&[("apps/m.yaml", text)]);
        if let Some(own) = own {
            bench.write(&[("apps/kustomization.yaml", own)]);
        }
        let rendered = bench.render(json!({})).await.unwrap();
        assert_eq!(listed(&rendered), ["ConfigMap/y apps/m.yaml:1"], "{own:?}");
        assert_eq!(body(&rendered, "ConfigMap/y")["data"], json!({"a": "yes", "on": "off"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_inputs_cost_no_child_and_unrelated_files_change_nothing() {
    let bench = Bench::new();
    bench.write(&OVERLAY);
    let first = bench.render(json!({})).await.unwrap();
    let digest = bench.renderer.digest(&bench.request(json!({}))).await.unwrap();
    bench.write(&[("other/x.yaml", CONFIG_MAP), ("apps/README.md", "x")]);
    let second = bench.render(json!({})).await.unwrap();
    assert_eq!((first.cached, second.cached, bench.renderer.children()), (false, true, 1));
    assert_eq!((&first.digest, &first.manifests), (&second.digest, &second.manifests));
    assert_eq!(digest.0, first.digest);

    bench.write(&[("base/app.ini", "[a]\nb = 2\n")]);
    let third = bench.render(json!({})).await.unwrap();
    assert_ne!(third.digest, first.digest);
    let fourth = bench.render(json!({"namePrefix": "x-"})).await.unwrap();
    assert_ne!(fourth.digest, third.digest);
    assert_eq!(bench.renderer.children(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_all_at_once_with_file_and_line_and_no_child() {
    let bench = Bench::new();
    bench.write(&[
        ("apps/kustomization.yaml", "resources:\n- a.yaml\n- b.yaml\n- c.yaml\n"),
        ("apps/a.yaml", "apiVersion: v1\nkind: ConfigMap\n metadata: {}\n"),
        ("apps/b.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n---\nkind: Job\n"),
        ("apps/c.yaml", CONFIG_MAP),
    ]);
    let error = bench.render(json!({})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "apps/a.yaml:3: is not valid YAML: mapping values are not allowed \
        in this context; apps/b.yaml:5: is no Kubernetes object: it has no apiVersion"
    );
    assert!(!error.retry());

    bench.write(&[("apps/kustomization.yaml", "resources:\n- gone.yaml\n")]);
    let error = bench.render(json!({})).await.unwrap_err();
    let expected = "apps/kustomization.yaml:2: gone.yaml is not there (looked for apps/gone.yaml)";
    assert_eq!(error.to_string(), expected);

    assert_eq!(bench.renderer.children(), 0);

    let error = bench.render(json!({"path": "gone"})).await.unwrap_err();
    assert_eq!(error, RenderError::PathNotFound { path: "gone".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kustomize_refuses_is_told_in_its_words_without_our_paths() {
    let bench = Bench::new();
    bench.write(&[
        ("apps/kustomization.yaml", "resources: [c.yaml]\nresorces: [c.yaml]\n"),
        ("apps/c.yaml", CONFIG_MAP),
    ]);
    let error = bench.render(json!({})).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("unknown field \"resorces\""), "{told}");
    assert!(told.starts_with("kustomize: apps/kustomization.yaml:2: "), "{told}");
    assert!(!told.contains(bench.dir.path().to_str().unwrap()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_manifests_and_generator_inputs_are_opened() {
    let bench = Bench::new();
    let text = "resources: [secret.yaml]\nsecretGenerator:\n- {name: env, envs: [app.env]}\n\
        - {name: files, files: [config.json=app.json]}\n";
    bench.write(&[
        ("apps/kustomization.yaml", text),
        ("apps/secret.yaml", &fixture("secret.yaml")),
        ("apps/app.env", &fixture("app.env")),
        ("apps/app.json", &fixture("app.json")),
    ]);
    let rendered = bench.render(sops()).await.unwrap();
    assert_eq!(warned(&rendered), [""; 0]);
    let secret = body(&rendered, "Secret/s");
    assert_eq!(secret["stringData"], json!({"password": "correct-horse"}));
    assert_eq!(secret.get("sops"), None);
    assert!(listed(&rendered).iter().all(|line| line.ends_with('*')), "{:?}", listed(&rendered));
    let of = |name: &str| {
        let found = rendered.manifests.iter().find(|m| m.id.name.starts_with(name)).unwrap();
        found.body()["data"].clone()
    };
    assert_eq!(of("env-"), json!({"TOKEN": "aHVudGVyMi1odW50ZXIy"}));
    assert_eq!(decoded(&of("files-")["config.json"]), json!({"api": {"key": "staple-battery"}}));
    assert!(!rendered.redactor.mask("is it correct-horse?").contains("correct-horse"));

    let again = bench.render(sops()).await.unwrap();
    assert!(!again.cached, "secrets are never kept");
    assert_eq!(again.digest, rendered.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_kustomize_assembled_from_sealed_text_are_opened_after_the_build() {
    let bench = Bench::new();
    let two = format!("{CONFIG_MAP}---\n{}", fixture("secret.yaml"));
    let data = base64::engine::general_purpose::STANDARD.encode(fixture("app.json"));
    let nested =
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: g}}\ndata:\n  app.json: {data}\n");
    bench.write(&[("apps/two.yaml", &two), ("apps/nested.yaml", &nested)]);
    let rendered = bench.render(sops()).await.unwrap();
    assert_eq!(warned(&rendered), [""; 0]);
    assert_eq!(
        listed(&rendered),
        [
            "ConfigMap/c apps/two.yaml:1 *",
            "Secret/g apps/nested.yaml:1 *",
            "Secret/s apps/two.yaml:7 *",
        ]
    );
    assert_eq!(body(&rendered, "Secret/s")["stringData"], json!({"password": "correct-horse"}));
    assert_eq!(
        decoded(&body(&rendered, "Secret/g")["data"]["app.json"]),
        json!({"api": {"key": "staple-battery"}})
    );
    assert!(rendered.redactor.mask("staple-battery") != "staple-battery");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_stops_the_kustomization_and_names_the_file() {
    let mut bench = Bench::new();
    bench.write(&[("apps/secret.yaml", &fixture("secret.yaml"))]);
    let error = bench.render(json!({})).await.unwrap_err();
    let expected = "apps/secret.yaml: is sealed, and the Kustomization has no spec.decryption";
    assert_eq!(error.to_string(), expected);

    let flipped = flip(&fixture("secret.yaml"));
    bench.write(&[("apps/secret.yaml", &flipped)]);
    let error = bench.render(sops()).await.unwrap_err();
    assert!(
        error.to_string().starts_with("apps/secret.yaml: sealed value at stringData.password"),
        "{error}"
    );

    bench.write(&[("apps/secret.yaml", &fixture("secret.yaml"))]);
    bench.keyring = Arc::new(Keyring::parse(fixture("other.txt").as_bytes()).unwrap());
    let error = bench.render(sops()).await.unwrap_err();
    assert!(error.to_string().starts_with("apps/secret.yaml: sealed to age1"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("updatekeys")));
    assert_eq!(bench.renderer.children(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mac_is_a_warning_or_an_error_as_configured() {
    let edited = fixture("secret.yaml").replace("name: s", "name: t");
    let warn = Bench::new();
    warn.write(&[("apps/secret.yaml", &edited)]);
    let rendered = warn.render(sops()).await.unwrap();
    assert_eq!(listed(&rendered), ["Secret/t apps/secret.yaml:1 *"]);
    let told = warned(&rendered).join("\n");
    assert!(told.starts_with("apps/secret.yaml: its MAC is wrong"), "{told}");
    let remedy =
        |kind: &str| format!("`sops set --ignore-mac apps/secret.yaml '[\"kind\"]' {kind}`");
    assert!(told.contains(&remedy("'\"Secret\"'")), "{told}");

    // The remedy changes nothing else: neither the kind of another object nor the keys of a file.
    let other = edited.replace("kind: Secret", "kind: ConfigMap");
    warn.write(&[("apps/secret.yaml", &other)]);
    let told = warned(&warn.render(sops()).await.unwrap()).join("\n");
    assert!(told.contains(&remedy("'\"ConfigMap\"'")), "{told}");
    let generates = "secretGenerator: [{name: s, files: [secret.yaml]}]\n";
    warn.write(&[("apps/kustomization.yaml", generates)]);
    let told = warned(&warn.render(sops()).await.unwrap()).join("\n");
    assert!(told.contains("`sops edit --ignore-mac apps/secret.yaml`"), "{told}");

    let enforce = Bench::with(|settings| {
        settings.engine = Some(tool("kubectl"));
        settings.mac = MacPolicy::Enforce;
    });
    enforce.write(&[("apps/secret.yaml", &edited)]);
    let error = enforce.render(sops()).await.unwrap_err();
    assert!(matches!(error, RenderError::Sealed { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_secret_is_applied_and_warned_of() {
    let bench = Bench::new();
    let secret = "# c\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n";
    bench.write(&[("apps/s.yaml", secret)]);
    let rendered = bench.render(json!({})).await.unwrap();
    let told = warned(&rendered).join("\n");
    assert!(told.starts_with("apps/s.yaml:2: Secret/s is plaintext in Git"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn substitution_follows_the_build_and_names_file_and_object() {
    let mut bench = Bench::new();
    bench.write(&[(
        "apps/c.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: '${a}'}\n",
    )]);
    bench.variables.insert("a", "one").unwrap();
    let fields = json!({"postBuild": {"substitute": {"a": "one"}}});
    let rendered = bench.render(fields.clone()).await.unwrap();
    assert_eq!(body(&rendered, "ConfigMap/c")["data"], json!({"k": "one"}));
    bench.variables = Variables::new();
    bench.variables.insert("b", "two").unwrap();
    let error = bench.render(fields).await.unwrap_err();
    assert!(error.to_string().starts_with("apps/c.yaml:1: ConfigMap/c: "), "{error}");
}

/// Compiles a static program; a C compiler is there wherever gitopsd itself was built.
fn hostile(dir: &Path) -> PathBuf {
    let (source, program) = (dir.join("hostile.c"), dir.join("kubectl"));
    std::fs::write(&source, include_str!("render/hostile.c")).unwrap();
    let status = std::process::Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .args([&program, &source])
        .status()
        .expect("cc is part of the build dependencies");
    assert!(status.success());
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_engine_reaches_nothing_but_its_workspace() {
    let tools = tempfile::tempdir().unwrap();
    let program = hostile(tools.path());
    let bench = Bench::with(|settings| settings.engine = Some(program));
    let other = bench.dir.path().join("run/render/w-other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("secret"), "x").unwrap();
    bench.write(&[("apps/kustomization.yaml", "# empty\n")]);
    let rendered = bench.renderer.render(&bench.request(json!({}))).await.unwrap();
    let tried = &body(&rendered, "ConfigMap/tried")["data"];
    assert_eq!(
        *tried,
        json!({
            "own file": "allowed", "write": "refused", "/etc/passwd": "refused", "/proc/1/environ": "refused",
            "other workspace": "refused", "socket": "refused", "unix socket": "refused",
            "ptrace": "refused", "kill parent": "refused", "namespace": "refused", "exec shell": "refused",
            "io_uring": "refused", "environment": "6", "core": "0",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_floods_or_grows_is_killed() {
    let tools = tempfile::tempdir().unwrap();
    let program = hostile(tools.path());
    let seconds = std::time::Duration::from_secs;
    for (name, timeout, expected) in [
        ("hang", 1, RenderError::Timeout { after: seconds(1) }),
        ("grow", 30, RenderError::Memory { limit: 64 << 20 }),
        ("flood", 30, RenderError::Output { limit: 64 << 20 }),
    ] {
        let bench = Bench::with(|settings| {
            settings.engine = Some(program.clone());
            settings.timeout = seconds(timeout);
            settings.memory = 64 << 20;
        });
        bench.write(&[(&format!("{name}/kustomization.yaml"), "")]);
        let error = bench.render(json!({"path": name})).await.unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(error.retry() || name == "flood");
    }
}
