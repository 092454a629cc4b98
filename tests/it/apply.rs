//! Applying and pruning on a real API server.

use crate::bed;
use crate::cluster::connect;
use gitopsd::apply::{Applied, Applier, ApplyError, Pruned};
use gitopsd::cluster::{Cluster, Select};
use gitopsd::pipeline::edge_kustomization;
use gitopsd::plan::{
    Action, Entry, Gate, Owner, Probe, Refusal, RefusalKind, Step, decide, desired,
};
use gitopsd::render::{Manifest, ObjectId};
use serde_json::{Value, json};

struct World {
    cluster: Cluster,
    applier: Applier,
    namespace: String,
}

fn owner() -> Owner {
    Owner { namespace: "flux-system".into(), name: "apps".into() }
}

fn manifest(mut body: Value) -> Manifest {
    for (label, value) in
        [(Owner::NAME_LABEL, owner().name), (Owner::NAMESPACE_LABEL, owner().namespace)]
    {
        body["metadata"]["labels"][label] = json!(value);
    }
    Manifest::new(body, None, false)
}

impl World {
    /// A connection and a namespace of the test's own.
    async fn new(name: &str) -> Self {
        let namespace = &format!("{name}-{}", std::process::id());
        let cluster = connect(bed::Cluster::shared()).await;
        let applier = Applier::new(cluster.clone());
        let world = World { cluster, applier, namespace: namespace.to_owned() };
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        world.run(&manifest(body)).await.unwrap();
        world
    }

    /// A manifest in the test's namespace.
    fn make(&self, api_version: &str, kind: &str, name: &str, rest: Value) -> Manifest {
        let mut body = json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace}});
        let fields = body.as_object_mut().unwrap();
        fields.extend(rest.as_object().unwrap().clone());
        manifest(body)
    }

    fn deployment(&self, name: &str, app: &str, image: &str) -> Manifest {
        self.make(
            "apps/v1",
            "Deployment",
            name,
            json!({"spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "main", "image": image}]}}}}),
        )
    }

    async fn probe(&self, manifest: &Manifest) -> Probe {
        self.applier.probe(std::slice::from_ref(manifest)).await.remove(0)
    }

    async fn refusal(&self, manifest: &Manifest) -> Refusal {
        self.probe(manifest).await.dry_run.expect_err("a refusal")
    }

    async fn plan(&self, manifest: &Manifest, force: bool) -> Step {
        decide(manifest.clone(), self.probe(manifest).await, force)
    }

    /// Probe, decide, apply.
    async fn run(&self, manifest: &Manifest) -> Result<Applied, ApplyError> {
        self.applier.apply(&self.plan(manifest, false).await).await
    }

    async fn live(&self, manifest: &Manifest) -> Option<Value> {
        let id = &manifest.id;
        let resource = self.cluster.resource(&manifest.api_version, &id.kind).await.unwrap();
        self.cluster.get(&resource.unwrap(), &id.namespace, &id.name).await.unwrap()
    }

    fn kubectl(&self, args: &[&str], input: &Value) {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(args);
        let done = bed::Cluster::shared().kubectl_with_input(&all, &input.to_string());
        assert!(done.status.success(), "{all:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
async fn an_object_is_created_configured_and_then_left_alone() {
    let world = World::new("apply-basic").await;
    let first = world.deployment("web", "web", "nginx:1");
    assert_eq!(world.plan(&first, false).await.action, Action::Create);
    let applied = world.run(&first).await.unwrap();
    let live = world.live(&first).await.unwrap();
    assert_eq!(json!(applied.uid), live["metadata"]["uid"]);

    let step = world.plan(&first, false).await;
    assert_eq!(step.action, Action::Unchanged);
    assert_eq!(step.differences, []);

    let second = world.deployment("web", "web", "nginx:2");
    let step = world.plan(&second, false).await;
    assert_eq!(step.action, Action::Configure);
    let paths: Vec<&str> = step.differences.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(paths, ["spec.template.spec.containers[0].image"]);
    let applied = world.applier.apply(&step).await.unwrap();
    assert_eq!(world.plan(&second, false).await.action, Action::Unchanged);

    // Status has moved since, the gate has not.
    assert_eq!(Gate::of(&world.live(&second).await.unwrap()), applied.gate);
    world.kubectl(&["set", "image", "deployment/web", "main=nginx:3"], &json!(null));
    assert_ne!(Gate::of(&world.live(&second).await.unwrap()), applied.gate);
}

#[tokio::test]
async fn fields_that_kubectl_applied_are_taken_over_and_go_when_they_leave_git() {
    let world = World::new("apply-takeover").await;
    let by_hand = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": world.namespace},
        "data": {"a": "1", "b": "2"}});
    world.kubectl(&["apply", "-f", "-"], &by_hand);
    let in_git = world.make("v1", "ConfigMap", "c", json!({"data": {"a": "1"}}));
    let step = world.plan(&in_git, false).await;
    assert_eq!((step.action.clone(), step.take_over), (Action::Configure, true));
    world.applier.apply(&step).await.unwrap();

    let live = world.live(&in_git).await.unwrap();
    assert_eq!(live["data"], json!({"a": "1"}));
    assert_eq!(live["metadata"].get("annotations"), None);
    let managers: Vec<&Value> = live["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["manager"])
        .collect();
    assert_eq!(managers, ["kustomize-controller"]);
    assert_eq!(world.plan(&in_git, false).await.action, Action::Unchanged);
}

#[tokio::test]
async fn a_rollout_restart_is_neither_drift_nor_undone() {
    let world = World::new("apply-restart").await;
    let web = world.deployment("web", "web", "nginx:1");
    let applied = world.run(&web).await.unwrap();
    world.kubectl(&["rollout", "restart", "deployment/web"], &json!(null));
    let step = world.plan(&web, false).await;
    assert_eq!(step.action, Action::Unchanged);
    let restarted = world.live(&web).await.unwrap();
    assert_ne!(restarted["metadata"]["generation"], applied.object["metadata"]["generation"]);
}

#[tokio::test]
async fn a_heal_never_hits_another_object_of_the_same_name() {
    let world = World::new("apply-race").await;
    let map = world.make("v1", "ConfigMap", "c", json!({"data": {"a": "1"}}));
    world.run(&map).await.unwrap();
    world.kubectl(&["patch", "configmap/c", "-p", r#"{"data":{"a":"2"}}"#], &json!(null));
    let heal = world.plan(&map, false).await;
    assert_eq!(heal.action, Action::Configure);
    // Between the look and the heal it is deleted, and somebody makes another one.
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": world.namespace}, "data": {"a": "theirs"}});
    world.kubectl(&["delete", "configmap/c"], &json!(null));
    let gone = world.applier.apply(&Step { take_over: false, ..heal.clone() }).await.map(|_| ());
    assert!(matches!(gone, Err(ApplyError::Moved { .. })), "{gone:?}");
    assert!(world.live(&map).await.is_none(), "a heal makes nothing");
    world.kubectl(&["create", "-f", "-"], &theirs);
    for take_over in [true, false] {
        let step = Step { take_over, ..heal.clone() };
        let moved = world.applier.apply(&step).await.map(|_| ());
        assert!(matches!(moved, Err(ApplyError::Moved { .. })), "{moved:?}");
        assert_eq!(world.live(&map).await.unwrap()["data"]["a"], "theirs");
    }
}

#[tokio::test]
async fn immutable_fields_are_named_and_recreated_only_with_force() {
    let world = World::new("apply-immutable").await;
    let job = |image: &str| {
        world.make(
            "batch/v1",
            "Job",
            "migrate",
            json!({"spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": image}]}}}}),
        )
    };
    let service = |ip: &str| {
        world.make(
            "v1",
            "Service",
            "web",
            json!({"spec": {"clusterIP": ip, "ports": [{"port": 80, "protocol": "TCP"}]}}),
        )
    };
    let stateful = |name: &str| {
        world.make(
            "apps/v1",
            "StatefulSet",
            "db",
            json!({"spec": {
            "serviceName": name, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "main", "image": "pg:1"}]}}}}),
        )
    };
    // Addresses are the cluster's, so that two runs on one cluster do not meet.
    let ip = |last: u32| format!("10.43.{}.{last}", std::process::id() % 200 + 20);
    let pairs = [
        (
            world.deployment("web", "a", "nginx"),
            world.deployment("web", "b", "nginx"),
            "spec.selector",
        ),
        (job("migrate:1"), job("migrate:2"), "spec.template"),
        (service(&ip(7)), service(&ip(8)), "spec.clusterIPs[0]"),
        (stateful("a"), stateful("b"), "spec.serviceName"),
    ];
    for (before, after, field) in pairs {
        let old = world.run(&before).await.unwrap();
        let refused = world.refusal(&after).await;
        assert_eq!(refused.kind, RefusalKind::Immutable(vec![field.to_owned()]), "{}", after.id);
        assert!(refused.message.len() < 300, "{}", refused.message);
        let step = world.plan(&after, false).await;
        assert!(matches!(step.action, Action::Refuse(_)));
        let step = world.plan(&after, true).await;
        if after.id.kind == "StatefulSet" {
            assert!(matches!(step.action, Action::Refuse(_)), "it holds data");
            continue;
        }
        assert_eq!(step.action, Action::Recreate(vec![field.to_owned()]));
        let new = world.applier.apply(&step).await.unwrap_or_else(|e| panic!("{e}"));
        assert_ne!(new.uid, old.uid);
        assert_eq!(world.plan(&after, true).await.action, Action::Unchanged, "{}", after.id);
        // The step was planned on an object that is gone: nothing is deleted by it again.
        let stale = world.applier.apply(&step).await.map(|_| ());
        assert!(matches!(stale, Err(ApplyError::Moved { .. })), "{stale:?}");
        assert_eq!(world.live(&after).await.unwrap()["metadata"]["uid"], json!(new.uid));
    }
}

#[tokio::test]
async fn wrong_objects_are_invalid_whatever_status_the_server_gives_them() {
    let world = World::new("apply-invalid").await;
    let mut twice = world.deployment("twice", "x", "nginx");
    twice.edit(|body| {
        let containers = body["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.push(containers[0].clone());
    });
    let number = world.make("v1", "ConfigMap", "number", json!({"data": {"a": 1}}));
    let port = world.make("v1", "Service", "port", json!({"spec": {"ports": [{"port": 0}]}}));
    for wrong in [twice, number, port] {
        let refused = world.refusal(&wrong).await;
        assert_eq!(refused.kind, RefusalKind::Invalid, "{}: {}", wrong.id, refused.message);
        assert!(!refused.retry());
    }
    let secret = world.make(
        "v1",
        "Secret",
        "s",
        json!({"type": "kubernetes.io/tls",
        "data": {"tls.crt": "aHVudGVyMg==", "x": "hunter2 no base64"}}),
    );
    let refused = world.refusal(&secret).await;
    assert_eq!(refused.kind, RefusalKind::Invalid);
    assert!(!refused.message.contains("hunter2"), "{}", refused.message);

    // A number where only text may stand is refused by its key, and not left out.
    let mut port = world.make("v1", "Secret", "port", json!({"stringData": {"PORT": 54321}}));
    desired(&mut port, &edge_kustomization());
    let refused = world.refusal(&port).await;
    assert_eq!(refused.kind, RefusalKind::Invalid);
    let message = &refused.message;
    assert!(message.contains("stringData.PORT") && !message.contains("54321"), "{message}");
}

#[tokio::test]
async fn missing_kinds_and_namespaces_are_told_apart() {
    let world = World::new("apply-missing").await;
    let thing = world.make("nowhere.example/v1", "Thing", "t", json!({}));
    assert_eq!(world.refusal(&thing).await.kind, RefusalKind::UnknownKind);
    let mut homeless = world.make("v1", "ConfigMap", "c", json!({}));
    homeless.edit(|body| body["metadata"]["namespace"] = json!("not-there"));
    assert_eq!(world.refusal(&homeless).await.kind, RefusalKind::MissingNamespace);

    let mut stray = world.make("rbac.authorization.k8s.io/v1", "ClusterRole", "r", json!({}));
    let mut none = world.make("v1", "ConfigMap", "c", json!({}));
    none.edit(|body| {
        body["metadata"].as_object_mut().unwrap().remove("namespace");
    });
    let refused = world.applier.normalise(std::slice::from_mut(&mut stray)).await.unwrap();
    assert_eq!((refused, stray.id.to_string()), (vec![], "ClusterRole/r".to_owned()));
    let refused = world.applier.normalise(std::slice::from_mut(&mut none)).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].1.kind, RefusalKind::Invalid);
}

#[tokio::test]
async fn a_definition_is_applied_and_then_an_object_of_it() {
    let world = World::new("apply-crd").await;
    let crd = manifest(json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "metadata": {"name": "wheels.apply.example"},
        "spec": {"group": "apply.example", "scope": "Namespaced",
            "names": {"kind": "Wheel", "plural": "wheels", "singular": "wheel", "listKind": "WheelList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object",
                        "properties": {"size": {"type": "integer"}}}}}}}]}}));
    let wheel = world.make("apply.example/v1", "Wheel", "w", json!({"spec": {"size": 3}}));
    assert_eq!(world.refusal(&wheel).await.kind, RefusalKind::UnknownKind);
    let applied = world.run(&crd).await.unwrap();
    world.applier.wait_current(std::slice::from_ref(&applied.object)).await.unwrap();
    world.run(&wheel).await.unwrap();
    assert_eq!(world.plan(&wheel, false).await.action, Action::Unchanged);

    // With the definition the objects go, whatever version the inventory names.
    bed::Cluster::shared().kubectl_ok(&["delete", "crd", "wheels.apply.example"]);
    world.cluster.forget();
    let pruned = world.applier.prune(&Entry::of(&wheel), &owner()).await;
    assert_eq!(pruned, Ok(Pruned::Gone));
}

#[tokio::test]
async fn prune_takes_only_what_is_ours_and_not_marked_to_stay() {
    let world = World::new("apply-prune").await;
    let config = |name: &str| world.make("v1", "ConfigMap", name, json!({"data": {"a": "1"}}));
    let (ours, kept) = (config("ours"), config("kept"));
    for manifest in [&ours, &kept] {
        world.run(manifest).await.unwrap();
    }
    let prune = async |manifest: &Manifest, owner: &Owner| {
        world.applier.prune(&Entry::of(manifest), owner).await.unwrap()
    };
    let stranger = Owner { name: "infra".into(), ..owner() };
    assert_eq!(prune(&ours, &stranger).await, Pruned::NotOurs);
    world.kubectl(
        &["annotate", "configmap/kept", "kustomize.toolkit.fluxcd.io/prune=disabled"],
        &json!(null),
    );
    let reason = "kustomize.toolkit.fluxcd.io/prune: disabled";
    assert_eq!(prune(&kept, &owner()).await, Pruned::Kept(reason));
    assert_eq!(prune(&ours, &owner()).await, Pruned::Deleted);
    assert_eq!(prune(&ours, &owner()).await, Pruned::Gone);
    assert!(world.live(&kept).await.is_some() && world.live(&ours).await.is_none());
}

#[tokio::test]
async fn labels_handed_down_to_endpoint_slices_do_not_make_them_ours() {
    let world = World::new("apply-inherit").await;
    let service = world.make(
        "v1",
        "Service",
        "web",
        json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    world.run(&service).await.unwrap();
    let slices = world.cluster.resource("discovery.k8s.io/v1", "EndpointSlice").await.unwrap();
    let select = Select { namespace: Some(&world.namespace), ..Select::default() };
    let mut found = Vec::new();
    for _ in 0..100 {
        found = world.cluster.list(slices.as_ref().unwrap(), select).await.unwrap().items;
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let slice = found.first().expect("a slice");
    assert_eq!(Owner::on(slice), Some(owner()), "the label is handed down");
    let entry = Entry { id: ObjectId::of(slice), version: "v1".into() };
    assert_eq!(world.applier.prune(&entry, &owner()).await, Ok(Pruned::NotOurs));
}
