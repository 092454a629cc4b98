//! `make bench`: what the loop costs, beside `kubectl apply` of the same objects in the same run.
//!
//! Every figure is a median; cold figures have a fresh state directory and new objects each time.
//! Times end when `gitopsd` says so (`status` and `reconcile`), memory is the kernel's `VmRSS`,
//! requests are those of the API server's audit log. The machine is shared with the control plane,
//! so compare the ratios of one run, not the times of two machines. Nothing fails on a figure.

#[path = "../it/bed/mod.rs"]
mod bed;
#[allow(dead_code, reason = "the demo asks more of it")]
mod proc;
mod table;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "the bench needs a part of what scenarios need")]
mod world;

use bed::{Cluster, Repo};
use proc::{anonymous, peak, resident};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use table::{Row, Samples, Table};
use world::{World, mk_config_map, mk_deployment, mk_kustomization};

/// Applications, objects of each, and levels of the chain.
const APPS: usize = 20;
const OBJECTS: usize = 4;
const LEVELS: usize = 5;

/// How often a cold figure is taken, and a warm one.
const COLD: usize = 3;
const WARM: usize = 10;

/// Objects of the repository in which drift is healed, and how many are edited one by one.
const MANY: usize = 1000;
const EDITS: usize = 100;

fn main() -> ExitCode {
    let done = std::panic::catch_unwind(|| {
        eprintln!("starting the control plane: upstream Kubernetes with simulated pods, not k3s");
        let cluster = Cluster::shared();
        let mut figures = Figures::default();
        empty(&mut figures);
        for run in 1..=COLD {
            eprintln!("cold run {run} of {COLD}");
            reference(cluster, run, &mut figures);
            applications(run == COLD, &mut figures);
            figures.chain.push(chain());
        }
        eprintln!("drift among {MANY} objects");
        heals(&mut figures);
        figures.table().print();
    });
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Figures {
    cold: Samples,
    chain: Samples,
    unchanged: Samples,
    push: Samples,
    /// `kubectl apply` of all objects: new, until ready, and again unchanged.
    apply: Samples,
    ready: Samples,
    again: Samples,
    /// MiB; `nothing` is what an empty daemon has allocated.
    empty: Samples,
    nothing: Samples,
    after: Samples,
    anonymous: Samples,
    peak: Samples,
    /// Requests of the cold start, of one unchanged pass, and of one object changed in Git.
    requests: Samples,
    quiet_requests: Samples,
    push_requests: Samples,
    /// Render children of all unchanged passes.
    children: u64,
    /// From an edit's answer to the healed object, one object and all of a burst.
    heal: Samples,
    burst: Samples,
    /// KiB for each of that many objects, MiB with all of them, and requests of one heal.
    each: Samples,
    many: Samples,
    heal_requests: Samples,
}

impl Figures {
    fn table(&self) -> Table {
        let mut table = Table::default();
        let objects = APPS * OBJECTS;
        table.add(
            Row::time(
                format!("{APPS} applications, {objects} objects, start to ready"),
                &self.cold,
            )
            .aim("2 s")
            .flux("8.3 s")
            .against(&self.ready, "kubectl apply + wait"),
        );
        table.add(
            Row::time(format!("chain of {LEVELS} dependsOn levels, start to ready"), &self.chain)
                .aim("2 s")
                .flux("122 s"),
        );
        table.add(
            Row::time(format!("unchanged pass over {APPS}"), &self.unchanged)
                .aim("0.1 s")
                .flux("4.0 s")
                .against(&self.again, "kubectl apply, unchanged"),
        );
        table.add(Row::time("push to applied and ready, one application", &self.push).aim("1 s"));
        table.add(
            Row::mebibytes("resident, nothing to do yet", &self.empty).aim("40 MB").flux("166 MB"),
        );
        table.add(
            Row::mebibytes("resident, after all of the above", &self.after)
                .aim("40 MB")
                .flux("220 MB"),
        );
        table.add(Row::mebibytes("resident, highest (children apart)", &self.peak));
        table.add(Row::mebibytes("of it not the program's own file", &self.anonymous));
        table.add(Row::count("requests, start to ready", &self.requests));
        table.add(Row::count("requests of an unchanged pass", &self.quiet_requests).aim("0"));
        table.add(Row::count("requests of a push that changes one object", &self.push_requests));
        let one = format!("one of {MANY} objects edited, until healed");
        table.add(Row::time(one.clone(), &self.heal).aim("1 s"));
        table.add(Row::percentile(format!("{one}, p99"), &self.heal, 99));
        table.add(Row::percentile(format!("all {MANY} edited at once, p50"), &self.burst, 50));
        table.add(Row::percentile(format!("all {MANY} edited at once, p99"), &self.burst, 99));
        table.add(Row::count("requests of one heal", &self.heal_requests));
        table.add(Row::mebibytes(format!("resident with {MANY} objects, after it"), &self.many));
        table.add(Row::kibibytes(format!("allocated for each of {MANY} objects"), &self.each));
        table.add(Row::time("reference: kubectl apply --server-side, new objects", &self.apply));
        table.add(Row::time("reference: the same until ready (kubectl wait)", &self.ready));
        table.add(Row::time("reference: the same again, unchanged", &self.again));
        table.note(format!("render children in {WARM} unchanged passes: {}", self.children));
        table
    }
}

/// Memory of a daemon whose repository declares nothing.
fn empty(figures: &mut Figures) {
    let mut world = World::new();
    let _repo =
        world.entry(&[("clusters/my-cluster/kustomization.yaml", "resources: []\n".into())]);
    world.start();
    world.settled();
    std::thread::sleep(Duration::from_secs(2));
    figures.empty.push(resident(world.pid()));
    figures.nothing.push(anonymous(world.pid()));
}

/// kubectl on the very objects that gitopsd gets, in a namespace of its own.
fn reference(cluster: &Cluster, run: usize, figures: &mut Figures) {
    let namespace = format!("reference-{run}");
    cluster.kubectl_ok(&["create", "namespace", &namespace]);
    let all: Vec<String> =
        (0..APPS).map(|n| objects(&namespace, &format!("app-{n}"), "1")).collect();
    let all = all.join("---\n");
    let began = Instant::now();
    cluster.apply(&all);
    figures.apply.took(began);
    cluster.kubectl_ok(&[
        "--namespace",
        &namespace,
        "wait",
        "--for=condition=Available",
        "deployment",
        "--all",
        "--timeout=90s",
    ]);
    figures.ready.took(began);
    for _ in 0..WARM.div_ceil(COLD) {
        let began = Instant::now();
        cluster.apply(&all);
        figures.again.took(began);
    }
}

/// The applications from nothing; in the last run also what follows.
fn applications(all: bool, figures: &mut Figures) {
    let mut world = World::new();
    let namespace = world.namespace.clone();
    world.cluster().kubectl_ok(&["create", "namespace", &namespace]);
    let repo = mk_repo(&world, APPS, false);
    let mark = world.cluster().mark();
    let began = Instant::now();
    world.start();
    world.settled();
    figures.cold.took(began);
    figures.requests.count(world.cluster().audit_of(&world.user, mark).len());
    steps(&world);
    if !all {
        return;
    }
    for _ in 0..WARM {
        let (mark, before) = (world.cluster().mark(), children(&world));
        let began = Instant::now();
        world.ok(&["reconcile"]);
        figures.unchanged.took(began);
        figures.quiet_requests.count(world.cluster().audit_of(&world.user, mark).len());
        figures.children += children(&world) - before;
    }
    let name = format!("{namespace}-app-3");
    for round in 0..WARM {
        repo.write(
            &format!("apps/{name}/all.yaml"),
            &objects(&namespace, &name, &format!("round {round}")),
        );
        repo.commit("one value");
        repo.push("main");
        let (mark, began) = (world.cluster().mark(), Instant::now());
        world.ok(&["reconcile", &name, "--with-source"]);
        figures.push.took(began);
        figures.push_requests.count(world.cluster().audit_of(&world.user, mark).len());
        let live = world.get("configmap", &name).unwrap_or_default();
        assert_eq!(live["data"]["key"], format!("round {round}"), "it was applied");
    }
    std::thread::sleep(Duration::from_secs(5));
    figures.after.push(resident(world.pid()));
    figures.anonymous.push(anonymous(world.pid()));
    figures.peak.push(peak(world.pid()));
}

/// Edits of one object after the other, then of all of them in one request stream. The times are
/// those of the API server's audit log, so that looking at them costs nothing: from the edit's
/// answer to the answer of the heal's apply.
fn heals(figures: &mut Figures) {
    let mut world = World::new();
    let namespace = world.namespace.clone();
    world.cluster().kubectl_ok(&["create", "namespace", &namespace]);
    let name = |n: usize| format!("c{n}");
    let all = |value: &str| {
        let maps: Vec<String> =
            (0..MANY).map(|n| mk_config_map(&namespace, &name(n), value)).collect();
        maps.join("---\n")
    };
    let repo = world.flux_config();
    let app = format!("{namespace}-many");
    let order = mk_kustomization(&app, &format!("./apps/{app}"), "");
    repo.write(&format!("clusters/my-cluster/{app}.yaml"), &order);
    repo.write(&format!("apps/{app}/all.yaml"), &all("1"));
    repo.commit("first");
    repo.push("main");
    world.start();
    world.settled();
    std::thread::sleep(Duration::from_secs(5));
    let allocated = anonymous(world.pid()) - figures.nothing.median();
    figures.each.push(allocated * 1024.0 / MANY as f64);
    for n in 0..EDITS {
        let mark = world.cluster().mark();
        let object = name(n * MANY / EDITS);
        let patch = r#"{"data":{"key":"edited"}}"#;
        let by = "--field-manager=somebody";
        world.cluster().kubectl_ok(&[
            "-n",
            &namespace,
            "patch",
            "configmap",
            &object,
            by,
            "-p",
            patch,
        ]);
        world.eventually("it is healed", |world| !applies(world, mark).is_empty());
        let healed = applies(&world, mark)[0].1;
        let edited = edits(&world, mark)[0].1;
        figures.heal.push(healed - edited);
        figures.heal_requests.count(world.cluster().audit_of(&world.user, mark).len());
    }
    let mark = world.cluster().mark();
    let input = all("edited");
    let by = ["apply", "--server-side", "--force-conflicts", "--field-manager=somebody", "-f", "-"];
    assert!(world.cluster().kubectl_with_input(&by, &input).status.success());
    world.eventually("all are healed", |world| applies(world, mark).len() >= MANY);
    let edits: std::collections::HashMap<String, f64> = edits(&world, mark).into_iter().collect();
    for (object, healed) in applies(&world, mark) {
        figures.burst.push(healed - edits[&object]);
    }
    figures.many.push(resident(world.pid()));
}

/// Objects that the daemon has applied since a mark, and when; seconds.
fn applies(world: &World, mark: bed::Mark) -> Vec<(String, f64)> {
    patches(world.cluster().audit_of(&world.user, mark))
}

/// The same for everybody else.
fn edits(world: &World, mark: bed::Mark) -> Vec<(String, f64)> {
    patches(world.cluster().audit_of("admin", mark))
}

fn patches(events: Vec<serde_json::Value>) -> Vec<(String, f64)> {
    let written = events.iter().filter(|event| {
        event["verb"] == "patch" && !event["requestURI"].as_str().unwrap_or("").contains("dryRun")
    });
    let read = |event: &serde_json::Value| {
        let name = event["objectRef"]["name"].as_str()?.to_owned();
        let at: jiff::Timestamp = event["stageTimestamp"].as_str()?.parse().ok()?;
        Some((name, at.as_microsecond() as f64 / 1e6))
    };
    written.filter_map(read).collect()
}

/// Render children that the daemon has started so far, as it counts them itself.
fn children(world: &World) -> u64 {
    world.status()["daemon"]["render_children"].as_u64().expect("status counts them")
}

/// Five applications, each of which depends on the one before.
fn chain() -> f64 {
    let mut world = World::new();
    world.cluster().kubectl_ok(&["create", "namespace", &world.namespace]);
    let _repo = mk_repo(&world, LEVELS, true);
    let began = Instant::now();
    world.start();
    world.settled();
    began.elapsed().as_secs_f64()
}

/// A flux-config repository with applications, named after the world's namespace so that two
/// worlds on one control plane never speak of the same owner.
fn mk_repo(world: &World, apps: usize, chained: bool) -> Repo {
    let namespace = &world.namespace;
    let repo = world.flux_config();
    for n in 0..apps {
        let name = format!("{namespace}-app-{n}");
        let mut extra = "  wait: true\n  timeout: 2m\n".to_owned();
        if chained && n > 0 {
            extra += &format!("  dependsOn: [{{name: {namespace}-app-{}}}]\n", n - 1);
        }
        let order = mk_kustomization(&name, &format!("./apps/{name}"), &extra);
        repo.write(&format!("clusters/my-cluster/{name}.yaml"), &order);
        repo.write(&format!("apps/{name}/kustomization.yaml"), "resources: [all.yaml]\n");
        repo.write(&format!("apps/{name}/all.yaml"), &objects(namespace, &name, "1"));
    }
    repo.commit("first");
    repo.push("main");
    repo
}

/// The objects of one application.
fn objects(namespace: &str, name: &str, value: &str) -> String {
    let metadata = format!("metadata:\n  name: {name}\n  namespace: {namespace}\n");
    [
        mk_config_map(namespace, name, value),
        format!("apiVersion: v1\nkind: ServiceAccount\n{metadata}"),
        format!(
            "apiVersion: v1\nkind: Service\n{metadata}spec:\n  selector: {{app: {name}}}\n  ports: [{{port: 80}}]\n"
        ),
        mk_deployment(namespace, name, "v1"),
    ]
    .join("---\n")
}

/// Where the time of the cold runs went, summed over all Kustomizations, on stderr.
fn steps(world: &World) {
    let read = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&world.ok(arguments)).expect("--json prints JSON")
    };
    let mut sums: Vec<(String, u64)> = Vec::new();
    for run in read(&["history", "-n", "100", "--json"]).as_array().into_iter().flatten() {
        let shown = read(&["history", "show", run["run"].as_str().unwrap_or_default(), "--json"]);
        for pair in shown["steps"].as_array().into_iter().flatten() {
            let (step, micros) =
                (pair[0].as_str().unwrap_or_default(), pair[1].as_u64().unwrap_or(0));
            match sums.iter_mut().find(|(known, _)| known == step) {
                Some((_, sum)) => *sum += micros,
                None => sums.push((step.to_owned(), micros)),
            }
        }
    }
    let told: Vec<String> = sums
        .iter()
        .map(|(step, sum)| format!("{step} {:.2} s", Duration::from_micros(*sum).as_secs_f64()))
        .collect();
    eprintln!("  steps, summed over {APPS} runs side by side: {}", told.join(", "));
}
