//! `make demo`: the loop from an empty cluster to a healthy one, and what happens to it then.
//!
//! Each chapter does something that a user or an accident would do, shows what gitopsd made of it
//! with the times it took, and checks what it claims. Times are those of the history
//! (`gitopsd history show`) and of watching `gitopsd status` every 50 ms. It ends by itself, leaves
//! nothing running, and exits 1 if a claim failed.
//!
//! It stands on the parts of the tests, `tests/it/bed` and `tests/it/world.rs`.

#[path = "../it/bed/mod.rs"]
mod bed;
mod edge;
mod page;
#[path = "../bench/proc.rs"]
#[allow(dead_code, reason = "the bench asks more of it")]
mod proc;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "the demo needs a part of what scenarios need")]
mod world;

use bed::{RegistryServer, Repo, SECRETS, git, pipeline_tag};
use page::{Page, span};
use proc::{cpu, resident};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use world::{World, mk_config_map};

/// Image of the dev Deployment, at the start and after the push.
const FIRST: &str = "dev-20261122.3";
const SECOND: &str = "dev-20261122.4";

/// A tag for which the fake kubelet answers as a registry without that image would.
const BROKEN: &str = "dev-20261122.5-broken";

/// Pipelines that push an image in the end, by stage, branch and number: the tenth of a day is newer
/// than the ninth.
const PIPELINES: [(&str, &str, u32); 3] =
    [("prod", "main", 12), ("dev", "develop", 9), ("dev", "develop", 10)];

/// ConfigMaps of the push in whose middle the daemon is killed: some seconds of work.
const MANY: usize = 60;

/// How long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // A wait that ends without what it waited for panics; everything started is ended on the way.
    let told = std::panic::catch_unwind(|| {
        let mut page = Page::new();
        let mut story = begin(&page);
        story.first(&mut page);
        story.push(&mut page);
        story.drift(&mut page);
        story.deletion(&mut page);
        story.bad_commit(&mut page);
        story.kill(&mut page);
        story.guard(&mut page);
        story.images(&mut page);
        story.rest(&mut page);
        edge::outside(&mut story.world, &mut page);
        drop(story);
        page.end()
    });
    if matches!(told, Ok(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Story {
    world: World,
    /// The cluster's own repository.
    config: Repo,
    app: Repo,
    /// Where CI pushes images to, once there is one.
    registry: Option<RegistryServer>,
}

fn begin(page: &Page) -> Story {
    page.chapter("1. A control plane and two Git repositories");
    page.say(
        "kube-apiserver, controller-manager and scheduler are upstream Kubernetes, built from",
    );
    page.say(
        "source; the datastore is kine on SQLite, as in k3s; the node and its pods are simulated",
    );
    page.say("by kwok. It is not k3s, and no container runs. Nothing of this machine is touched.");
    let began = Instant::now();
    let world = World::alone();
    page.took(began.elapsed(), format!("control plane answers at {}", world.cluster().server()));

    let began = Instant::now();
    let (config, app) = world.examples("8s");
    page.took(began.elapsed(), "served over HTTP:");
    page.say(format!(
        "         {}  (what runs in the cluster)",
        world.git.url_of("infra/flux-config")
    ));
    page.say(format!(
        "         {}  (the app: develop and main)",
        world.git.url_of("games/blaster")
    ));
    Story { world, config, app, registry: None }
}

impl Story {
    fn first(&mut self, page: &mut Page) {
        page.chapter("2. gitopsd run: pulled, opened, rendered, applied, healthy");
        let began = Instant::now();
        self.world.start();
        page.took(began.elapsed(), "started, its socket answers");
        for (what, at) in self.until_ready(began) {
            page.took(at, what);
        }
        self.steps(page);
        page.quote(&self.world.ok(&["status"]));

        let cluster = self.world.cluster();
        let absent = |kind: &str, name: &str| cluster.get("flux-system", kind, name).is_none();
        page.claim(
            self.image("blaster-dev").ends_with(FIRST),
            "dev runs the image that develop names",
        );
        page.claim(self.image("blaster").contains(":prod-"), "prod runs the image that main names");
        page.claim(self.sealed_is_open(), "the Secret sealed with SOPS is open in the cluster");
        page.claim(
            cluster.get("", "clusterissuer", "letsencrypt").is_some(),
            "an object of a CRD from the same repository is there",
        );
        page.claim(
            absent("deployment", "source-controller")
                && absent("deployment", "kustomize-controller"),
            "Flux's own controllers, which the repository also declares, are set aside",
        );
    }

    /// Watches the status document until all is ready: what became ready, and when.
    fn until_ready(&self, began: Instant) -> Vec<(String, Duration)> {
        let seen: RefCell<BTreeMap<String, Duration>> = RefCell::default();
        self.world.eventually("everything is ready", |world| {
            let status = world.status();
            let at = began.elapsed();
            let new = items(&status).filter(|item| item["ready"] == "True").map(|item| {
                let verb = if item["kind"] == "GitRepository" { "pulled" } else { "healthy" };
                let revision = item["revision"].as_str().unwrap_or_default();
                let short = revision.split(':').next_back().unwrap_or_default();
                let short = short.get(..7).unwrap_or_default();
                (format!("{verb} {} {short}", text(item, "name")), at)
            });
            for (what, at) in new {
                seen.borrow_mut().entry(what).or_insert(at);
            }
            settled(&status)
        });
        let mut seen: Vec<(String, Duration)> = seen.into_inner().into_iter().collect();
        seen.sort_by_key(|(_, at)| *at);
        seen
    }

    /// Where the time of the first runs went, from the history.
    fn steps(&self, page: &Page) {
        let columns = ["open", "render", "plan", "apply", "observe"];
        let head = columns.map(|column| format!("{column:>9}")).concat();
        page.say(format!("{:<20} {:>7}{head}", "from the history", "changes"));
        let runs = self.json(&["history", "--json"]);
        let mut runs: Vec<Value> = runs.as_array().cloned().unwrap_or_default();
        runs.reverse();
        for run in runs.iter().filter(|run| run["changes"].as_u64() > Some(0)) {
            let shown = self.json(&["history", "show", text(run, "run"), "--json"]);
            let took = |step: &str| {
                let steps = shown["steps"].as_array().into_iter().flatten();
                let micros =
                    steps.filter(|pair| pair[0] == step).filter_map(|pair| pair[1].as_u64());
                format!("{:>9}", span(Duration::from_micros(micros.sum())))
            };
            let owner = text(run, "owner").trim_start_matches("flux-system/");
            page.say(format!("{owner:<20} {:>7}{}", run["changes"], columns.map(took).concat()));
        }
    }

    fn push(&mut self, page: &mut Page) {
        page.chapter("3. A push is deployed");
        self.app.replace("k8s/dev/deployment.yaml", FIRST, SECOND);
        let commit = self.app.commit("new image");
        self.app.push("develop");
        let began = Instant::now();
        let well = self.world.reconcile();
        page.took(began.elapsed(), "gitopsd reconcile --with-source: fetched, applied, rolled out");
        page.quote(&self.last_run());
        page.claim(well && self.image("blaster-dev").ends_with(SECOND), "dev runs the new image");
        let last = self.json(&["history", "blaster", "--json"])[0].clone();
        page.claim(
            text(&last, "revision").ends_with(&commit) && text(&last, "author").starts_with("Ada"),
            "the history names commit and author",
        );
    }

    fn drift(&mut self, page: &mut Page) {
        page.chapter("4. A change by hand is healed");
        let before = self.replicas();
        let began = Instant::now();
        self.world.cluster().kubectl_ok(&[
            "--namespace",
            "blaster",
            "scale",
            "deployment",
            "blaster",
            "--replicas=0",
        ]);
        page.took(began.elapsed(), "kubectl scale deployment blaster --replicas=0");
        let took = self.world.eventually("the drift is healed", |_| self.replicas() == before);
        page.took(took, format!("until it asked for {before} replicas again"));
        self.world.eventually("the history tells", |_| self.last_action() == "healed");
        self.world.settled();
        page.quote(&self.last_run());
        page.claim(
            self.replicas() == before,
            "the Deployment is as in Git, without a commit or a poll",
        );
    }

    fn deletion(&mut self, page: &mut Page) {
        page.chapter("5. What leaves Git leaves the cluster");
        let list = "k8s/dev/kustomization.yaml";
        self.app.write("k8s/dev/extra.yaml", &mk_config_map("blaster", "extra", "1"));
        self.app.replace(list, "resources:\n", "resources:\n- extra.yaml\n");
        self.app.commit("an extra");
        self.app.push("develop");
        let came = self.world.reconcile()
            && self.world.cluster().get("blaster", "configmap", "extra-dev").is_some();
        page.claim(came, "a ConfigMap was added by a commit");
        self.app.replace(list, "- extra.yaml\n", "");
        self.app.remove("k8s/dev/extra.yaml");
        self.app.commit("no extra");
        self.app.push("develop");
        let began = Instant::now();
        let well = self.world.reconcile();
        page.took(began.elapsed(), "reconciled the commit that removes it");
        page.quote(&self.last_run());
        let cluster = self.world.cluster();
        page.claim(
            well && cluster.get("blaster", "configmap", "extra-dev").is_none(),
            "it is gone",
        );
        page.claim(
            cluster.get("", "namespace", "blaster").is_some(),
            "the Namespace, which dev and prod both declare, stays",
        );
    }

    fn bad_commit(&mut self, page: &mut Page) {
        page.chapter("6. A bad commit is explained");
        self.app.replace("k8s/dev/deployment.yaml", SECOND, BROKEN);
        self.app.commit("a tag that does not exist");
        self.app.push("develop");
        let began = Instant::now();
        let well = self.world.reconcile();
        page.took(
            began.elapsed(),
            "reconciled; it waited for health as long as spec.timeout says (8 s)",
        );
        let status = self.world.run(&["status"]);
        page.say("gitopsd status now says:");
        page.quote(&String::from_utf8_lossy(&status.stdout));
        let message = self.world.message("blaster");
        page.claim(!well && status.status.code() == Some(1), "reconcile and status exit with 1");
        page.claim(
            message.contains(BROKEN) && message.contains("pull"),
            "the message names the image and why it does not run",
        );
        let ready = |name: &str| {
            let object =
                self.world.cluster().get("blaster", "deployment", name).unwrap_or_default();
            object["status"]["readyReplicas"].as_u64() >= Some(1)
        };
        page.claim(
            ready("blaster") && ready("blaster-dev"),
            "prod is untouched, dev's old pod still serves",
        );
        self.app.replace("k8s/dev/deployment.yaml", BROKEN, SECOND);
        self.app.commit("back to the image that works");
        self.app.push("develop");
        let began = Instant::now();
        let well = self.world.reconcile();
        page.took(began.elapsed(), "reconciled the commit that goes back");
        page.claim(well, "everything is ready again");
    }

    fn kill(&mut self, page: &mut Page) {
        page.chapter("7. Killed in the middle, it goes on");
        let list = "k8s/dev/kustomization.yaml";
        let maps: Vec<String> =
            (0..MANY).map(|n| mk_config_map("blaster", &format!("many-{n}"), "1")).collect();
        self.app.write("k8s/dev/many.yaml", &maps.join("---\n"));
        self.app.replace(list, "resources:\n", "resources:\n- many.yaml\n");
        self.app.commit("many at once");
        self.app.push("develop");
        self.world.run(&["reconcile", "blaster", "--with-source", "--no-wait"]);
        self.world.eventually("the first of them is there", |_| self.many() > 0);
        let began = Instant::now();
        self.world.kill();
        let done = self.many();
        page.say(format!("kill -9 with {done} of {MANY} ConfigMaps of one commit applied"));
        self.world.start();
        self.world.settled();
        page.took(began.elapsed(), "from the kill until everything was ready again");
        let recorded = self.json(&["history", "blaster", "--json"]);
        let verdicts: Vec<&str> =
            recorded.as_array().into_iter().flatten().map(|run| text(run, "verdict")).collect();
        page.claim(done < MANY, "the kill came in the middle");
        page.claim(self.many() == MANY, "all of them are there");
        page.claim(verdicts.contains(&"interrupted"), "the history tells of the interrupted run");
    }

    fn guard(&mut self, page: &mut Page) {
        page.chapter("8. A commit that removes most of it is held until somebody confirms");
        self.app.replace("k8s/dev/kustomization.yaml", "- many.yaml\n", "");
        self.app.remove("k8s/dev/many.yaml");
        self.app.commit("none of them");
        self.app.push("develop");
        self.world.reconcile();
        let status = self.world.status();
        let held = &status["held"][0];
        let digest = text(held, "digest").to_owned();
        page.say(format!("held: {}", text(held, "reason")));
        page.claim(self.many() == MANY && !digest.is_empty(), "nothing was deleted yet");
        page.say(format!("gitopsd confirm {digest}"));
        self.world.ok(&["confirm", &digest]);
        let took = self.world.eventually("they are deleted", |_| self.many() == 0);
        page.took(took, "until they were gone");
        self.world.settled();
        let after = self.world.cluster().get("blaster", "deployment", "blaster-dev");
        page.claim(after.is_some(), "exactly these were deleted, and none is orphaned");
    }

    fn images(&mut self, page: &mut Page) {
        page.chapter("9. CI pushes a tag, and Git and the cluster follow");
        page.say("A registry (Debian's docker-registry) is started; CI has pushed one tag so far.");
        let registry = RegistryServer::plain();
        registry.push("games/blaster", SECOND, SECOND);
        let name = "registry.test.invalid";
        for path in ["base/deployment.yaml", "dev/deployment.yaml", "prod/kustomization.yaml"] {
            self.app.replace(&format!("k8s/{path}"), name, &registry.host());
        }
        self.app.commit("the registry has an address");
        self.app.push("develop");
        self.app.push("main");
        for kustomization in ["blaster", "blaster-prod"] {
            let file = format!("clusters/my-cluster/{kustomization}/20-blaster-image.yaml");
            let example = bed::tools::source(&format!("tests/examples/flux-config/{file}"));
            let objects = std::fs::read_to_string(example).expect("an example");
            let objects = objects.replace(name, &registry.host());
            let objects = objects.replace("interval: 1m\n", "interval: 1m\n  insecure: true\n");
            self.config.write(&file, &objects);
        }
        let first = "prod-20261118.1";
        registry.push("games/blaster", first, first);
        self.config.commit("blaster: follow the images of dev and prod");
        self.config.push("main");
        let well = self.world.reconcile();
        self.world.settled();
        page.claim(well, "ImageRepository, ImagePolicies and ImageUpdateAutomations are ready");
        let mut last = String::new();
        for (stage, branch, number) in PIPELINES {
            let began = Instant::now();
            let tag = pipeline_tag(branch, number);
            registry.push("games/blaster", &tag, &tag);
            page.took(began.elapsed(), format!("CI has pushed games/blaster:{tag}"));
            let policy = format!("blaster-{stage}");
            page.say(format!("gitopsd reconcile image {policy}  (else within the interval, 1m)"));
            let mut reconcile = self.world.command(&["reconcile", "image", &policy]);
            let quiet = || std::process::Stdio::null();
            let reconcile = reconcile.stdout(quiet()).stderr(quiet()).spawn();
            let mut reconcile = reconcile.expect("the program is built");
            self.world.eventually("the commit is pushed", |_| self.head_of(branch).contains(&tag));
            page.took(began.elapsed(), format!("a commit with it is on {branch}"));
            let well = reconcile.wait().expect("it is our child").success();
            page.took(began.elapsed(), "rolled out, healthy");
            let deployment = if stage == "prod" { "blaster" } else { "blaster-dev" };
            let runs = self.image(deployment).ends_with(&tag);
            page.claim(well && runs, format!("{stage} runs it"));
            last = tag;
        }
        page.quote(&self.head_of("develop"));
        page.quote(&self.world.ok(&["images"]));
        page.quote(&self.world.ok(&["history", "blaster", "-n", "2"]));
        let run = self.json(&["history", "blaster", "--json"])[0].clone();
        page.claim(
            text(&run["images"][0], "new").ends_with(&last)
                && text(&run["images"][0], "policy") == "flux-system/blaster-dev",
            "the history names the policy that chose it",
        );
        let notices = self.world.item("ImagePolicy/flux-system/blaster-dev")["warnings"].clone();
        page.claim(
            notices[0].as_str().is_some_and(|notice| notice.contains("Flux")),
            "status says that Flux would take .9 for newer than .10",
        );
        self.registry = Some(registry);
    }

    /// The latest commit of a branch on the server.
    fn head_of(&self, branch: &str) -> String {
        let output = git()
            .arg("--git-dir")
            .arg(self.app.bare())
            .args(["show", "--unified=0", "--format=%an: %s", branch])
            .output()
            .expect("git can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn rest(&mut self, page: &mut Page) {
        page.chapter("10. At rest");
        let cluster = self.world.cluster();
        // What is still on its way after the last change (metadata, end of watches) gets a moment.
        std::thread::sleep(Duration::from_secs(1));
        let (mark, before) = (cluster.mark(), cpu(self.world.pid()));
        std::thread::sleep(IDLE);
        let requests = cluster.audit(mark);
        let writes =
            requests.iter().filter(|event| event["verb"] == "patch" || event["verb"] == "update");
        let used = cpu(self.world.pid()).saturating_sub(before);
        page.say(format!(
            "in {} without a change: {} requests to the API server, {} ms of CPU",
            span(IDLE),
            requests.len(),
            used.as_millis()
        ));
        page.say(format!("resident memory: {:.1} MiB", resident(self.world.pid())));
        page.claim(writes.count() == 0, "an idle daemon writes nothing");
        let code = self.world.stop();
        page.claim(code == Some(0), "SIGTERM ends it in order");
    }

    /// A verb's JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.world.ok(arguments)).expect("--json prints JSON")
    }

    /// `history show` of the latest run of the app's dev Kustomization or prod's.
    fn last_run(&self) -> String {
        let last = self.json(&["history", "-n", "1", "--json"])[0].clone();
        self.world.ok(&["history", "show", text(&last, "run")])
    }

    fn last_action(&self) -> String {
        let last = self.json(&["history", "-n", "1", "--json"])[0].clone();
        let shown = self.json(&["history", "show", text(&last, "run"), "--json"]);
        text(&shown["objects"][0], "action").to_owned()
    }

    fn image(&self, name: &str) -> String {
        let object = self.world.cluster().get("blaster", "deployment", name).unwrap_or_default();
        text(&object["spec"]["template"]["spec"]["containers"][0], "image").to_owned()
    }

    fn replicas(&self) -> u64 {
        let object = self.world.cluster().get("blaster", "deployment", "blaster");
        object.and_then(|object| object["spec"]["replicas"].as_u64()).unwrap_or_default()
    }

    fn many(&self) -> usize {
        let names = self.world.cluster().kubectl_ok(&[
            "--namespace",
            "blaster",
            "get",
            "configmaps",
            "-o",
            "name",
        ]);
        names.lines().filter(|name| name.contains("/many-")).count()
    }

    /// Some Secret of dev has a value that is only in the sealed file. The value is not shown.
    fn sealed_is_open(&self) -> bool {
        use base64::Engine as _;
        let secrets = self.world.cluster().kubectl_ok(&[
            "--namespace",
            "blaster",
            "get",
            "secrets",
            "-o",
            "json",
        ]);
        let encoded = |value: &str| base64::engine::general_purpose::STANDARD.encode(value.trim());
        let values = SECRETS.lines().filter_map(|line| line.split_once('='));
        values
            .map(|(_, value)| encoded(value))
            .any(|value| value.len() > 8 && secrets.contains(&value))
    }
}

fn items(status: &Value) -> impl Iterator<Item = &Value> {
    status.pointer("/summary/items").and_then(Value::as_array).into_iter().flatten()
}

fn settled(status: &Value) -> bool {
    status["ready"] == true && items(status).all(|item| item["running"] == false)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
