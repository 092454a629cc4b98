//! Watches and health on a real API server.

use crate::bed;
use crate::cluster::connect;
use gitopsd::cluster::{Apply, Cluster, Resource, When};
use gitopsd::observe::{Event, Notice, Notices, Observer, Outcome, Status, Wanted};
use gitopsd::plan::{Gate, MANAGER, Owner};
use gitopsd::render::ObjectId;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

struct World {
    cluster: Cluster,
    observer: Observer,
    namespace: String,
}

impl World {
    async fn new(name: &str) -> Self {
        World::on(bed::Cluster::shared(), name).await
    }

    async fn on(bed: &bed::Cluster, name: &str) -> Self {
        let cluster = connect(bed).await;
        let observer = Observer::new(cluster.clone());
        let namespace = format!("{name}-{}", std::process::id());
        let world = World { cluster, observer, namespace };
        let body = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": world.namespace}});
        world.apply(body).await;
        world
    }

    async fn resource(&self, api_version: &str, kind: &str) -> Resource {
        self.cluster.resource(api_version, kind).await.unwrap().unwrap()
    }

    /// Applies as the daemon does: its manager, an owner's labels.
    async fn apply(&self, mut body: Value) -> Value {
        body["metadata"]["labels"] =
            json!({Owner::NAME_LABEL: "apps", Owner::NAMESPACE_LABEL: "flux-system"});
        let text = |key: &str| body[key].as_str().unwrap();
        let resource = self.resource(text("apiVersion"), text("kind")).await;
        let how = Apply { dry_run: false, manager: MANAGER, sensitive: false };
        self.cluster.apply(&resource, &body, how).await.unwrap().object
    }

    async fn config(&self, name: &str) -> Value {
        self.apply(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace}, "data": {"a": "1"}}))
            .await
    }

    async fn workload(&self, api_version: &str, kind: &str, spec: Value) -> Value {
        self.apply(json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": "web", "namespace": self.namespace}, "spec": spec}))
            .await
    }

    async fn deployment(&self, image: &str) -> Value {
        let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": image}]}}});
        self.workload("apps/v1", "Deployment", spec).await
    }

    /// Waits for a notice about one object of this world.
    async fn hear(&self, notices: &mut Notices, event: Event, name: &str) -> Gate {
        let heard = async {
            loop {
                let seen = match notices.next().await.unwrap() {
                    Notice::Seen(seen) => vec![seen],
                    Notice::Listed { objects, .. } => objects.to_vec(),
                    _ => continue,
                };
                let ours = |id: &ObjectId| id.namespace == self.namespace && id.name == name;
                if let Some(seen) = seen.iter().find(|s| ours(&s.id) && s.event == event) {
                    return seen.gate;
                }
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, heard).await.unwrap_or_else(|_| panic!("{event:?} {name}"))
    }
}

fn wanted(object: Value, known: bool) -> Vec<Wanted> {
    let api_version = object["apiVersion"].as_str().unwrap().to_owned();
    vec![Wanted { id: ObjectId::of(&object), api_version, object: known.then_some(object) }]
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_watch_lists_first_and_then_tells_of_edits_and_deletes_at_once() {
    let world = World::new("observe-watch").await;
    let maps = world.resource("v1", "ConfigMap").await;
    let first = world.config("first").await;
    let mut notices = world.observer.subscribe();
    world.observer.watch(&maps);
    world.observer.watch(&maps);
    assert_eq!(world.hear(&mut notices, Event::Listed, "first").await, Gate::of(&first));

    let second = world.config("second").await;
    assert_eq!(world.hear(&mut notices, Event::Added, "second").await, Gate::of(&second));
    let patch = ["-n", &world.namespace, "patch", "configmap/first", "-p", r#"{"data":{"a":"2"}}"#];
    bed::Cluster::shared().kubectl_ok(&patch);
    assert_ne!(world.hear(&mut notices, Event::Modified, "first").await, Gate::of(&first));

    let before = Instant::now();
    world.cluster.delete(&maps, &world.namespace, "second", When::default()).await.unwrap();
    world.hear(&mut notices, Event::Deleted, "second").await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());

    let quiet = world.cluster.requests();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.cluster.requests(), quiet, "an idle watch asks nothing");
    world.observer.relist();
    world.hear(&mut notices, Event::Listed, "first").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_a_restart_of_the_api_server_and_tells_what_it_missed() {
    let bed = block_in_place(bed::Cluster::start_own);
    let world = World::on(&bed, "observe-outage").await;
    let maps = world.resource("v1", "ConfigMap").await;
    world.config("before").await;
    let mut notices = world.observer.subscribe();
    world.observer.watch(&maps);
    world.hear(&mut notices, Event::Listed, "before").await;
    // A watch that was open for less than a second counts as one that could not be opened.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    block_in_place(|| bed.stop("kube-apiserver"));
    let outage = async { while !matches!(notices.next().await, Some(Notice::Outage { .. })) {} };
    tokio::time::timeout(Duration::from_secs(5), outage).await.expect("an outage is told");
    block_in_place(|| bed.start("kube-apiserver"));
    world.hear(&mut notices, Event::Listed, "before").await;
    world.config("after").await;
    world.hear(&mut notices, Event::Added, "after").await;
    block_in_place(|| drop(bed));
}

#[tokio::test]
async fn what_is_current_by_the_answer_to_its_apply_costs_no_request() {
    let world = World::new("observe-free").await;
    let object = world.config("plain").await;
    let before = world.cluster.requests();
    let report = world.observer.health(wanted(object, true), &[], within(5), |_, _| {}).await;
    assert_eq!(report.outcome, Outcome::Healthy);
    assert_eq!(world.cluster.requests(), before);
}

#[tokio::test]
async fn a_deployment_gets_healthy_by_events_and_few_requests() {
    let world = World::new("observe-health").await;
    let deployments = world.resource("apps/v1", "Deployment").await;
    let mut notices = world.observer.subscribe();
    world.observer.watch(&deployments);
    while !matches!(notices.next().await, Some(Notice::Listed { .. })) {}
    let object = world.deployment("nginx:1").await;
    let before = world.cluster.requests();
    let mut heard = Vec::new();
    let report = world
        .observer
        .health(wanted(object, true), &[], within(60), |_, v| heard.push(v.status))
        .await;
    assert_eq!(report.outcome, Outcome::Healthy, "{report:?}");
    assert_eq!((heard[0], heard[heard.len() - 1]), (Status::InProgress, Status::Current));
    let asked = world.cluster.requests() - before;
    assert!(asked <= 20, "{asked} requests");
}

#[tokio::test]
async fn without_a_watch_an_object_is_polled() {
    let world = World::new("observe-poll").await;
    let object = world.deployment("nginx:1").await;
    let report = world.observer.health(wanted(object, false), &[], within(60), |_, _| {}).await;
    assert_eq!(report.outcome, Outcome::Healthy, "{report:?}");
}

#[tokio::test]
async fn a_failed_job_ends_the_wait_early_and_a_missing_image_at_the_deadline() {
    let world = World::new("observe-failed").await;
    let object = world.deployment("nginx:broken").await;
    let report = world.observer.health(wanted(object, false), &[], within(3), |_, _| {}).await;
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert_eq!(report.unhealthy().count(), 1);

    let spec = json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "migrate:fail"}]}}});
    let object = world.workload("batch/v1", "Job", spec).await;
    let begun = Instant::now();
    let report = world.observer.health(wanted(object, true), &[], within(120), |_, _| {}).await;
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn the_cause_of_a_missing_image_is_one_sentence() {
    let world = World::new("observe-cause").await;
    let object = world.deployment("registry.example/web:broken").await;
    let report = world.observer.health(wanted(object, true), &[], within(3), |_, _| {}).await;
    let (id, _) = report.unhealthy().next().unwrap();
    let before = world.cluster.requests();
    let cause = world.observer.cause_of(id, "apps/v1").await.unwrap().expect("a cause");
    let pod = cause.object.to_string();
    assert!(pod.starts_with(&format!("Pod/{}/web-", world.namespace)), "{pod}");
    let start = format!("container main of {pod} cannot pull image registry.example/web:broken");
    assert!(cause.sentence.starts_with(&start), "{}", cause.sentence);
    assert!(world.cluster.requests() - before <= 8);
}

#[tokio::test]
async fn a_secret_that_the_pods_need_and_nobody_made_is_named() {
    let world = World::new("observe-missing").await;
    let spec = json!({"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "main", "image": "web:nosecret",
                "envFrom": [{"secretRef": {"name": "db"}}]}]}}});
    let object = world.workload("apps/v1", "Deployment", spec).await;
    let report = world.observer.health(wanted(object, true), &[], within(3), |_, _| {}).await;
    let (id, _) = report.unhealthy().next().unwrap();
    let cause = world.observer.cause_of(id, "apps/v1").await.unwrap().expect("a cause");
    assert!(cause.sentence.contains("does not exist"), "{}", cause.sentence);
}
