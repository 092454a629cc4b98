//! What the API server, its controllers, autoscalers and injectors change is no drift: it costs no
//! write, and what would be fought over for ever is left out and told.

use crate::drift::written;
use crate::world::{App, World, mk_deployment};
use serde_json::json;
use std::time::Duration;

/// Manifests in forms that the API server rewrites, defaults or drops, as people write them.
fn known(ns: &str) -> Vec<(&'static str, String)> {
    let meta = |name: &str| {
        format!("metadata: {{name: {name}, namespace: {ns}, creationTimestamp: null}}")
    };
    let pods = "selector: {matchLabels: {app: x}}\n  template:\n    metadata: {labels: {app: x}, creationTimestamp: null}\n";
    vec![
        (
            "quantities.yaml",
            format!(
                "apiVersion: apps/v1\nkind: Deployment\n{}\nspec:\n  replicas: 1\n  {pods}    spec:\n      \
             containers:\n      - name: main\n        image: registry.test.invalid/app:1\n        \
             resources:\n          limits: {{cpu: 1000m, memory: 2048Mi}}\n          \
             requests: {{cpu: 0.5, memory: 1.5Gi, ephemeral-storage: \"1e9\"}}\n        \
             command: []\n        env:\n        - {{name: EMPTY, value: \"\"}}\n        - {{name: B, value: b}}\n        \
             - {{name: A, value: $(B)}}\n        ports:\n        - containerPort: 80\n        \
             livenessProbe: {{httpGet: {{path: /, port: 80}}}}\n        \
             readinessProbe: {{httpGet: {{path: /, port: http}}}}\n        securityContext: {{}}\n      \
             nodeSelector: null\n      hostNetwork: false\n      affinity:\n        podAntiAffinity:\n          \
             preferredDuringSchedulingIgnoredDuringExecution:\n          - weight: 1\n            podAffinityTerm:\n              \
             {{topologyKey: x, namespaceSelector: {{}}, labelSelector: {{matchLabels: {{}}}}}}\n      volumes:\n      - {{name: tmp, emptyDir: {{}}}}\n      \
             - {{name: mem, emptyDir: {{medium: Memory, sizeLimit: 1024Ki}}}}\nstatus: {{replicas: 3}}\n",
                meta("quantities")
            ),
        ),
        (
            "service.yaml",
            format!(
                "apiVersion: v1\nkind: Service\n{}\nspec:\n  type: ClusterIP\n  selector: {{app: x}}\n  \
             ports:\n  - {{port: 80, name: http}}\n  - {{port: 53, name: dns, protocol: UDP, targetPort: dns}}\n  \
             - {{port: 53, name: dns-tcp, protocol: TCP, targetPort: 53}}\n",
                meta("web").replace("web,", "web, annotations: {empty: \"\"},")
            ),
        ),
        (
            "headless.yaml",
            format!(
                "apiVersion: v1\nkind: Service\n{}\nspec:\n  clusterIP: None\n  ports: [{{name: a, port: 1, targetPort: 1}}]\n  \
             externalIPs: []\n",
                meta("headless").replace("headless,", "headless, labels: {},")
            ),
        ),
        (
            "secret.yaml",
            format!(
                "apiVersion: v1\nkind: Secret\n{}\ntype: Opaque\nstringData: {{token: not-a-secret}}\ndata: {{empty: \"\"}}\n",
                meta("secret")
            ),
        ),
        ("map.yaml", format!("apiVersion: v1\nkind: ConfigMap\n{}\ndata:\n", meta("map"))),
        (
            "cron.yaml",
            format!(
                "apiVersion: batch/v1\nkind: CronJob\n{}\nspec:\n  schedule: \"0 3 * * *\"\n  jobTemplate:\n    \
             metadata: {{creationTimestamp: null}}\n    spec:\n      template:\n        spec:\n          \
             restartPolicy: OnFailure\n          containers:\n          - {{name: main, image: x, resources: {{limits: {{cpu: 2}}}}}}\n",
                meta("cron")
            ),
        ),
        (
            "ingress.yaml",
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\n{}\nspec:\n  rules:\n  - host: a.test.invalid\n    \
             http:\n      paths:\n      - pathType: ImplementationSpecific\n        backend: {{service: {{name: web, port: {{number: 80}}}}}}\n",
                meta("ingress")
            ),
        ),
        (
            "policy.yaml",
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{}\nspec:\n  podSelector: {{}}\n  ingress:\n  \
             - ports: [{{port: 80}}]\n    from: [{{podSelector: {{}}}}]\n  egress: [{{}}]\n",
                meta("policy")
            ),
        ),
        (
            "claim.yaml",
            format!(
                "apiVersion: v1\nkind: PersistentVolumeClaim\n{}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
             storageClassName: none-{ns}\n  resources: {{requests: {{storage: 1024Mi}}}}\n",
                meta("claim")
            ),
        ),
        (
            "stateful.yaml",
            format!(
                "apiVersion: apps/v1\nkind: StatefulSet\n{}\nspec:\n  replicas: 0\n  serviceName: headless\n  {pods}    spec:\n      \
             containers: [{{name: main, image: x}}]\n  volumeClaimTemplates:\n  - metadata: {{name: d, creationTimestamp: null}}\n    \
             spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 0.5Gi}}}}}}\n    status: {{}}\n",
                meta("stateful")
            ),
        ),
        (
            "budget.yaml",
            format!(
                "apiVersion: policy/v1\nkind: PodDisruptionBudget\n{}\nspec: {{maxUnavailable: 50%, selector: {{matchLabels: {{app: x}}}}}}\n",
                meta("budget")
            ),
        ),
        (
            "quota.yaml",
            format!(
                "apiVersion: v1\nkind: ResourceQuota\n{}\nspec: {{hard: {{limits.cpu: 100, limits.memory: 100Gi, pods: \"50\"}}}}\n",
                meta("quota")
            ),
        ),
        (
            "account.yaml",
            format!(
                "apiVersion: v1\nkind: ServiceAccount\n{}\nautomountServiceAccountToken: null\nimagePullSecrets: []\n",
                meta("account")
            ),
        ),
        (
            "role.yaml",
            format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n{}\nrules:\n- {{apiGroups: [\"\"], resources: [pods], verbs: [get]}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n{}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: role}}\n\
             subjects:\n- {{kind: ServiceAccount, name: account}}\n",
                meta("role"),
                meta("binding")
            ),
        ),
        (
            "aggregated.yaml",
            format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: sum-{ns}}}\n\
             aggregationRule: {{clusterRoleSelectors: [{{matchLabels: {{sum: {ns}}}}}]}}\nrules: []\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: part-{ns}, labels: {{sum: {ns}}}}}\n\
             rules:\n- {{apiGroups: [\"\"], resources: [pods], verbs: [list]}}\n"
            ),
        ),
    ]
}

#[test]
fn what_the_api_server_rewrites_is_written_once_and_never_again() {
    let mut world = World::new();
    let files = known(&world.namespace);
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let ns = world.namespace.clone();
    world.eventually("the rules are summed up", |world| {
        let role = world.cluster().get("", "clusterrole", &format!("sum-{ns}")).unwrap();
        role["rules"].as_array().is_some_and(|rules| rules.len() == 1)
    });
    // A list turned round is put right once, or left: `A` reads `B`, so its order has a meaning.
    let env = "/spec/template/spec/containers/0/env";
    let turned = format!(r#"[{{"op":"move","from":"{env}/2","path":"{env}/0"}}]"#);
    let arguments = ["-n", &ns, "patch", "deployment/quantities", "--type=json", "-p", &turned];
    world.cluster().kubectl_ok(&[&arguments[..], &["--field-manager=somebody"]].concat());
    let order = |world: &World| {
        let web = world.get("deployment", "quantities").unwrap();
        let env = web["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned();
        let names = env.into_iter().flatten().map(|item| item["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    world.eventually("the order is as in Git", |world| order(world) == "EMPTY B A");
    world.settled();
    let mark = world.cluster().mark();
    world.kill();
    world.start();
    world.settled();
    assert!(world.reconcile());
    assert_eq!(written(&world, mark), Vec::<String>::new(), "{}", world.log());
    let looked_at = world.cluster().audit_of(&world.user, mark);
    let dry = looked_at.iter().filter(|e| e["requestURI"].as_str().unwrap().contains("dryRun=All"));
    assert!(dry.count() >= files.len(), "the start has verified every object");

    // A change that stands in the names of empty maps alone: all namespaces in place of this one.
    repo.replace("apps/apps/policy.yaml", "from: [{podSelector:", "from: [{namespaceSelector:");
    repo.commit("from everywhere");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
    let policy = world.get("networkpolicy", "policy").unwrap();
    let from = json!([{"namespaceSelector": {}}]);
    assert_eq!(policy.pointer("/spec/ingress/0/from"), Some(&from));
}

fn warnings(world: &World) -> String {
    world.item("Kustomization/flux-system/apps")["warnings"].to_string()
}

#[test]
fn restarts_autoscalers_injectors_and_grown_volumes_are_left_alone_and_told() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let hook = format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata:\n  \
         name: inject-{ns}\n  annotations: {{cert-manager.io/inject-ca-from: {ns}/ca}}\nwebhooks:\n- name: a.test.invalid\n  \
         admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Ignore\n  rules: []\n  \
         clientConfig: {{url: \"https://a.test.invalid\", caBundle: Cg==}}\n"
    );
    let claim = format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data, namespace: {ns}}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  storageClassName: grow-{ns}\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    );
    let files = [
        ("web.yaml", mk_deployment(&ns, "web", "1")),
        ("scaled.yaml", mk_deployment(&ns, "scaled", "1")),
        ("hook.yaml", hook),
        ("claim.yaml", claim),
    ];
    // A volume of a class that may grow, bound beforehand.
    world.cluster().apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: grow-{ns}}}\n\
         provisioner: kubernetes.io/no-provisioner\nallowVolumeExpansion: true\n---\n\
         apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: grow-{ns}}}\nspec:\n  \
         capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteOnce]\n  storageClassName: grow-{ns}\n  \
         hostPath: {{path: /data}}\n"
    ));
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.settled();
    let kubectl = |world: &World, arguments: &[&str]| {
        world.cluster().kubectl_ok(&[&["-n", &ns], arguments].concat())
    };
    world.eventually("the claim is bound", |world| {
        world.get("pvc", "data").unwrap()["status"]["phase"] == "Bound"
    });

    kubectl(&world, &["rollout", "restart", "deployment/web"]);
    kubectl(
        &world,
        &["patch", "pvc", "data", "-p", r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#],
    );
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";
    let patch = format!(
        r#"[{{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"{bundle}"}}]"#
    );
    let injector = "--field-manager=cert-manager-cainjector";
    kubectl(
        &world,
        &[
            "patch",
            "validatingwebhookconfiguration",
            &format!("inject-{ns}"),
            "--type=json",
            "-p",
            &patch,
            injector,
        ],
    );
    kubectl(&world, &["autoscale", "deployment/scaled", "--min=3", "--max=4"]);
    let replicas =
        |world: &World| world.get("deployment", "scaled").unwrap()["spec"]["replicas"].clone();
    world.eventually("the autoscaler has scaled", |world| replicas(world) == 3);
    world.eventually("all is told", |world| {
        let told = warnings(world);
        let all = [
            "scaled (apps/apps/scaled.yaml",
            "HorizontalPodAutoscaler",
            "grown to 2Gi",
            "hook.yaml",
            "cert-manager injects it",
        ];
        all.iter().all(|part| told.contains(part))
    });

    // A new manifest later carries all of it along.
    for file in ["web", "scaled"] {
        repo.replace(&format!("apps/apps/{file}.yaml"), "app:1", "app:2");
    }
    repo.commit("a new image");
    repo.push("main");
    assert!(world.reconcile());
    world.kill();
    let mark = world.cluster().mark();
    world.start();
    world.settled();
    let template = |name: &str| world.get("deployment", name).unwrap()["spec"]["template"].clone();
    let restarted =
        &template("web")["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"];
    assert!(restarted.is_string(), "{restarted}");
    assert!(template("web")["spec"]["containers"][0]["image"].as_str().unwrap().ends_with("app:2"));
    assert!(
        template("scaled")["spec"]["containers"][0]["image"].as_str().unwrap().ends_with("app:2")
    );
    assert_eq!(replicas(&world), 3);
    assert_eq!(
        world.get("pvc", "data").unwrap()["spec"]["resources"]["requests"]["storage"],
        "2Gi"
    );
    let hook =
        world.cluster().get("", "validatingwebhookconfiguration", &format!("inject-{ns}")).unwrap();
    assert_eq!(hook["webhooks"][0]["clientConfig"]["caBundle"], bundle);
    assert_eq!(written(&world, mark), Vec::<String>::new(), "{}", world.log());

    // Without its autoscaler, Git sets the number again.
    kubectl(&world, &["delete", "hpa", "scaled"]);
    assert!(!kubectl(&world, &["get", "deployment", "scaled", "-o", "name"]).is_empty());
    kubectl(&world, &["scale", "deployment/scaled", "--replicas=5"]);
    world.eventually("the scale of Git is back", |world| replicas(world) == 1);
}

/// Its end is waited for by name, and it takes a while to go: something holds it.
#[test]
fn a_job_that_has_ended_and_goes_is_no_failure_and_nothing_to_wait_for() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let job = |tag: &str, mark: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: once\n  namespace: {ns}\n  \
             annotations: {{{mark}}}\nspec:\n  ttlSecondsAfterFinished: 2\n  template:\n    spec:\n      \
             restartPolicy: Never\n      \
             containers: [{{name: main, image: \"registry.test.invalid/app:{tag}\"}}]\n"
        )
    };
    let spec = format!(
        "  timeout: 5s\n  healthChecks: [{{apiVersion: batch/v1, kind: Job, name: once, namespace: {ns}}}]\n"
    );
    let repo =
        world.apps(&[App { name: "apps", spec: &spec, files: &[("job.yaml", job("1", ""))] }]);
    world.start();
    world.eventually("it is there", |world| world.get("job", "once").is_some());
    world.cluster().kubectl_ok(&[
        "-n",
        &ns,
        "patch",
        "job",
        "once",
        "--field-manager=holder",
        "-p",
        r#"{"metadata":{"finalizers":["x.test/held"]}}"#,
    ]);
    let going = |world: &World| {
        let job = world.get("job", "once").unwrap_or_default();
        job["metadata"]["deletionTimestamp"].is_string()
    };
    world.eventually("it has ended and goes", going);
    let mark = world.cluster().mark();
    for _ in 0..2 {
        assert!(world.reconcile(), "{}", world.log());
        world.settled();
    }
    assert!(going(&world) && written(&world, mark).is_empty());
    let free = r#"{"metadata":{"finalizers":null}}"#;
    world.cluster().kubectl_ok(&["-n", &ns, "patch", "job", "once", "-p", free]);
    world.eventually("it is gone", |world| world.get("job", "once").is_none());
    assert!(world.reconcile(), "{}", world.log());
    world.settled();
    assert!(world.get("job", "once").is_none(), "it has done its work");
    assert!(!world.log().contains("is being deleted by somebody else"), "{}", world.log());

    // One that is only made where there is none is made, when its manifest has changed meanwhile.
    let mark = "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent";
    for tag in ["2", "3"] {
        repo.write("apps/apps/job.yaml", &job(tag, mark));
        repo.commit(tag);
        repo.push("main");
        assert!(world.reconcile(), "{}", world.log());
    }
    let image = |world: &World| {
        let job = world.get("job", "once").unwrap_or_default();
        job["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    world.eventually("the third runs after the second", |world| {
        image(world) == "registry.test.invalid/app:3"
    });
}

#[test]
fn a_job_that_has_ended_and_is_gone_runs_again_for_a_new_manifest_only() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: once, namespace: {ns}}}\nspec:\n  \
         ttlSecondsAfterFinished: 1\n  template:\n    spec:\n      restartPolicy: Never\n      \
         containers: [{{name: main, image: \"registry.test.invalid/app:1\"}}]\n"
    );
    let repo =
        world.apps(&[App { name: "apps", spec: "  wait: true\n", files: &[("job.yaml", job)] }]);
    world.start();
    world.settled();
    let gone = |world: &World| world.get("job", "once").is_none();
    world.eventually("it has ended and is gone", gone);
    world.settled();
    for _ in 0..2 {
        let mark = world.cluster().mark();
        std::thread::sleep(Duration::from_secs(1));
        assert!(world.reconcile(), "{}", world.log());
        world.settled();
        assert!(gone(&world));
        assert_eq!(written(&world, mark), Vec::<String>::new());
        // Also when another process of ours finds it missing.
        world.kill();
        world.start();
        world.settled();
    }
    assert!(!world.ok(&["diff", "apps"]).contains("create"), "the plan says so too");
    repo.replace("apps/apps/job.yaml", "app:1", "app:2");
    repo.commit("the job again");
    repo.push("main");
    let mark = world.cluster().mark();
    assert!(world.reconcile(), "{}", world.log());
    let requests = written(&world, mark);
    assert_eq!(requests.len(), 1, "{requests:?}");
}
