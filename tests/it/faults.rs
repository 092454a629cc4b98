//! Every kind of request to the API server, answered with every kind of fault.
//!
//! A [`Bench`] is a daemon behind a [`Proxy`]. Each round pushes a commit that changes one object,
//! prunes one and takes one over that somebody has just written with kubectl, while one [`Asks`]
//! meets one fault. What passes by itself must be over without help, and at once: the retry
//! interval of the Kustomization is ten minutes. What does not pass must be said with object and
//! file, and must not be asked for in a hot loop. In both cases everything that is wanted keeps
//! its uid.

use crate::bed::Repo;
use crate::bed::effects::Front;
use crate::bed::proxy::{Fault, Pattern, Proxy, pattern};
use crate::world::{
    App, PATIENCE, World, mk_config_map, mk_deployment, mk_kustomization, mk_namespace,
};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

/// What the daemon asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Discovery,
    Get,
    DryRun,
    Apply,
    Delete,
    Patch,
    Variables,
    List,
    Watch,
    Identity,
    Version,
    Flux,
}

use Asks::*;

/// Asked for in a run.
const RUN: [Asks; 6] = [Get, DryRun, Apply, Delete, Patch, Variables];

/// Asked for with a new connection, or by a watch.
const LINK: [Asks; 6] = [Discovery, List, Watch, Identity, Version, Flux];

/// When a busy server wants to be asked again, as its header says.
const BUSY: Duration = Duration::from_secs(4);

/// A daemon behind a proxy.
struct Bench {
    world: World,
    proxy: Proxy,
    repo: Repo,
    _front: Front,
    round: usize,
    /// What is substituted into `a`.
    value: String,
    /// Uids of what must stay.
    uids: Vec<String>,
    /// Where it is, for whoever reads a failure.
    place: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&format!("FAILED at {}", self.place));
        }
    }
}

impl Bench {
    fn new() -> Bench {
        let world = World::new();
        let front = Front::start(&world.path("kubeconfig"), &world.path(""));
        let proxy = Proxy::before(&front.kubeconfig);
        world.drop_in(&format!("kubeconfig: {}\n", front.kubeconfig.display()));
        world.cluster().apply(&mk_namespace(&world.namespace));
        world.cluster().apply(&mk_namespace("flux-system"));
        let vars = mk_config_map("flux-system", &format!("vars-{}", world.namespace), "v");
        world.cluster().apply(&vars);
        let spec = format!(
            "  postBuild:\n    substituteFrom: [{{kind: ConfigMap, name: vars-{}}}]\n",
            world.namespace
        );
        let repo = world.flux_config();
        let kustomization = mk_kustomization("apps", "./apps/apps", &spec);
        let kustomization = kustomization.replace("retryInterval: 1s", "retryInterval: 10m");
        repo.write("clusters/my-cluster/apps.yaml", &kustomization);
        let lease = format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: lease, namespace: \
             {}}}\nspec: {{holderIdentity: nobody}}\n",
            world.namespace
        );
        repo.write("apps/apps/lease.yaml", &lease);
        let (uids, place) = (Vec::new(), "the start".to_owned());
        let mut bench = Bench {
            world,
            proxy,
            repo,
            _front: front,
            round: 0,
            value: "v".to_owned(),
            uids,
            place,
        };
        bench.commit();
        bench.world.start();
        bench.settled();
        bench.uids = bench.wanted();
        bench
    }

    /// The next commit: `a` and `taken` change, `extra` has another name.
    fn commit(&mut self) {
        self.round += 1;
        let (ns, n) = (&self.world.namespace, self.round);
        let map = |name: &str, value: &str| mk_config_map(ns, name, value);
        self.repo.write("apps/apps/a.yaml", &map("a", &format!("{n}-${{key}}")));
        self.repo.write("apps/apps/taken.yaml", &map("taken", &n.to_string()));
        self.repo.write("apps/apps/extra.yaml", &map(&format!("extra-{n}"), "1"));
        self.repo.commit(&format!("round {n}"));
        self.repo.push("main");
    }

    /// Somebody writes `taken` as kubectl's client-side apply does, one key more than Git has.
    fn by_hand(&self) {
        let data = json!({"key": self.round.to_string(), "byhand": "1"});
        let annotation = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let body = json!({"metadata": {"annotations": annotation}, "data": data});
        self.patch(&self.world.namespace, "taken", "kubectl-client-side-apply", &body);
    }

    fn patch(&self, ns: &str, name: &str, manager: &str, body: &Value) {
        let path = format!("/api/v1/namespaces/{ns}/configmaps/{name}?fieldManager={manager}");
        let kind = "application/merge-patch+json";
        let (head, said) = self.proxy.ask(&format!("PATCH {path}"), kind, &body.to_string());
        assert!(head.contains(" 200 "), "{head}\n{said}");
    }

    fn requests(&self, asks: Asks) -> Pattern {
        let ns = &self.world.namespace;
        let object = |method: &str, name: &str| {
            format!("{method} /api/v1/namespaces/{ns}/configmaps/{name}?")
        };
        let before = format!("extra-{}", self.round.saturating_sub(1));
        match asks {
            Discovery => pattern(&["GET /apis/coordination.k8s.io/v1? "]),
            Get => pattern(&[&object("GET", "a")]),
            DryRun => pattern(&[&object("PATCH", "a"), "dryRun=All"]),
            Apply => pattern(&[&object("PATCH", "a"), "!dryRun=All"]),
            Delete => pattern(&[&object("DELETE", &before)]),
            Patch => pattern(&[&object("PATCH", "taken"), "json-patch"]),
            Variables => {
                pattern(&[&format!("GET /api/v1/namespaces/flux-system/configmaps/vars-{ns}?")])
            }
            List => pattern(&["GET /api/v1/configmaps?limit="]),
            Watch => pattern(&["GET /api/v1/configmaps?watch=true"]),
            Identity => pattern(&["GET /api/v1/namespaces/kube-system?"]),
            Version => pattern(&["GET /version?"]),
            Flux => pattern(&["GET /apis/apps/v1/deployments?limit="]),
        }
    }

    /// The next round, in which a request meets a fault so many times.
    fn meet(&mut self, asks: Asks, fault: &Fault, times: usize) -> Pattern {
        self.commit();
        let requests = self.requests(asks);
        self.proxy.inject(&requests, times, fault.clone());
        if LINK.contains(&asks) && asks != Watch {
            // A watch that cannot be opened again, and a server that does not tell its version
            // either, are an outage: the connection is made anew.
            self.proxy.inject(&self.requests(Watch), 1, Fault::Reset);
            if asks != Version {
                self.proxy.inject(&self.requests(Version), 1, Fault::Reset);
            }
        }
        if asks == Watch {
            // A watch that stood for less than a second has failed, and the pause after it doubles:
            // here each fault is the first.
            std::thread::sleep(Duration::from_millis(1100));
        }
        if LINK.contains(&asks) {
            self.proxy.cut_off();
        }
        if asks == Variables {
            // They are read when they have changed.
            self.value = format!("v{}", self.round);
            let name = format!("vars-{}", self.world.namespace);
            let body = json!({"data": {"key": self.value}});
            self.patch("flux-system", &name, "somebody", &body);
        }
        if asks == Apply && matches!(fault, Fault::Answer(..)) && times > 1 {
            // Beside what stays, something passes by itself.
            let dry = pattern(&["PATCH", "configmaps/taken?", "dryRun=All"]);
            let busy = answer(500, "InternalError", "leader changed", &json!({}));
            self.proxy.inject(&dry, 1, busy);
        } else {
            self.by_hand();
        }
        self.world.run(&["reconcile", "--with-source", "--no-wait"]);
        requests
    }

    fn is_settled(&self) -> bool {
        let status = self.world.status();
        let head = self.repo.head();
        let at_head = |item: &Value| {
            item["running"] == false
                && item["revision"].as_str().is_some_and(|revision| revision.ends_with(&head))
        };
        let items = status.pointer("/summary/items").and_then(Value::as_array);
        status["ready"] == true
            && status["cluster"]["blind"] == json!({})
            && items.is_some_and(|items| items.iter().all(at_head))
    }

    /// Name, uid and data of everything there.
    fn objects(&self) -> Vec<(String, String, Value)> {
        let path = format!("/api/v1/namespaces/{}/configmaps", self.world.namespace);
        let (_, list) = self.proxy.ask(&format!("GET {path}"), "-", "");
        let list: Value = serde_json::from_str(&list).expect("the API server answers JSON");
        let items = list["items"].as_array().expect("a list").iter();
        let object = items.map(|item| {
            let text = |key: &str| item["metadata"][key].as_str().expect("all have one").to_owned();
            (text("name"), text("uid"), item["data"].clone())
        });
        object.filter(|(name, ..)| name != "kube-root-ca.crt").collect()
    }

    fn seen(&self) -> Value {
        self.objects().into_iter().map(|(name, _, data)| (name, data)).collect()
    }

    /// Waits until the cluster is as the last commit says, and the daemon says so.
    fn settled(&self) -> Duration {
        let n = self.round;
        let wanted = json!({"a": {"key": format!("{n}-{}", self.value)}, "taken": {"key": n.to_string()},
            format!("extra-{n}"): {"key": "1"}});
        let began = Instant::now();
        while !(self.is_settled() && self.seen() == wanted) {
            let waited = began.elapsed();
            assert!(
                waited < PATIENCE,
                "{}: after {waited:?} {:#} is not {wanted:#}\n{}\n{:#}",
                self.place,
                self.seen(),
                self.world.log(),
                self.world.status()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        began.elapsed()
    }

    /// What passes by itself: the round ends as if nothing had been.
    fn passes(&mut self, asks: Asks, name: &str, fault: &Fault) {
        self.place = format!("{asks:?} × {name}");
        let (began, before) = (Instant::now(), self.proxy.len());
        let requests = self.meet(asks, fault, 1);
        self.world
            .eventually(&format!("{} is met", self.place), |_| self.proxy.hits(&requests) > 0);
        self.settled();
        if [List, Watch].contains(&asks) {
            self.drifts();
        }
        self.keeps();
        let took = began.elapsed().as_millis();
        tell(&format!("{}: passed after {took} ms", self.place));
        if name == "429" && (RUN.contains(&asks) || asks == Watch) {
            let apart = self.proxy.apart(&requests, before).expect("it was made again");
            assert!(apart >= BUSY, "{}: made again after {apart:?}", self.place);
        }
        self.proxy.heal();
    }

    /// A hand edit is healed: somebody watches.
    fn drifts(&self) {
        self.patch(&self.world.namespace, "a", "somebody", &json!({"data": {"key": "drifted"}}));
        self.settled();
    }

    /// Uids of what every commit wants.
    fn wanted(&self) -> Vec<String> {
        let objects =
            self.objects().into_iter().filter(|(name, ..)| ["a", "taken"].contains(&name.as_str()));
        objects.map(|(_, uid, _)| uid).collect()
    }

    fn keeps(&self) {
        let same = self.wanted() == self.uids;
        assert!(same, "{}: something was deleted and made again", self.place);
    }

    /// What does not pass: it is said, asked for a few times only, and over with its cause.
    fn stays(&mut self, asks: Asks, name: &str, fault: &Fault, said: &str) {
        self.place = format!("{asks:?} × {name}");
        let requests = self.meet(asks, fault, usize::MAX);
        let mut words = vec![said.to_owned()];
        let ns = &self.world.namespace;
        match asks {
            Get | DryRun | Apply => {
                words.extend([format!("ConfigMap/{ns}/a"), "apps/apps/a.yaml".into()]);
            }
            Patch => {
                words.extend([format!("ConfigMap/{ns}/taken"), "apps/apps/taken.yaml".into()]);
            }
            Delete => words.push(format!("ConfigMap/{ns}/extra-{}", self.round - 1)),
            Variables => words.push(format!("ConfigMap/flux-system/vars-{ns}")),
            Discovery => {
                words.extend([format!("Lease/{ns}/lease"), "apps/apps/lease.yaml".into()]);
            }
            _ => {}
        }
        let where_said = |world: &World| match asks {
            List | Watch => world.status()["cluster"]["blind"].to_string(),
            Identity | Version | Flux => world.status()["cluster"]["message"].to_string(),
            _ => world.message("apps"),
        };
        self.world.eventually(&format!("{} says {words:?}", self.place), |world| {
            let message = where_said(world);
            words.iter().all(|word| message.contains(word))
        });
        let before = self.proxy.len();
        std::thread::sleep(Duration::from_secs(1));
        let asked = self.proxy.asked(&requests, before).len();
        // The shortest pause is a quarter of a second, and it doubles; what has moved meanwhile is
        // looked at once more, by two requests for a take-over. A loop would ask a hundred times.
        assert!(asked <= 8, "{}: asked {asked} times in 1 s", self.place);
        if asks == Apply {
            let n = self.round.to_string();
            self.world.eventually(&format!("{}: others are applied", self.place), |_| {
                let seen = self.seen();
                seen[format!("extra-{n}")]["key"] == "1" && seen["taken"]["key"] == n.as_str()
            });
        }
        self.proxy.heal();
        self.commit();
        self.world.run(&["reconcile", "--with-source", "--no-wait"]);
        let over = self.settled().as_millis();
        self.keeps();
        tell(&format!("{}: said, asked {asked} times in 1 s; over after {over} ms", self.place));
    }
}

impl Bench {
    /// What the API server itself says to a duplicate list key.
    fn typed(&self) -> Fault {
        let ns = &self.world.namespace;
        let path = format!("/apis/apps/v1/namespaces/{ns}/deployments/twice");
        let line = format!("PATCH {path}?fieldManager=x&force=true");
        let (head, body) = self.proxy.ask(&line, "application/apply-patch+yaml", &twice(ns));
        assert!(head.contains(" 500 "), "{head}\n{body}");
        Fault::Answer(500, "", body)
    }

    /// Reconciles, and stops the daemon while a request of this pattern is under way.
    fn stop_at(&mut self, requests: &Pattern) {
        self.proxy.inject(requests, 1, Fault::Slow(Duration::from_secs(3)));
        self.world.run(&["reconcile", "--with-source", "--no-wait"]);
        self.world.eventually("the request is under way", |_| self.proxy.hits(requests) > 0);
        let began = Instant::now();
        assert_eq!(self.world.stop(), Some(0), "{}", self.world.log());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "the stop took {took:?}");
        self.proxy.heal();
    }

    /// The next start does the rest; the run that was stopped is on record with what it did.
    fn goes_on(&mut self, changes: u64) {
        self.world.start();
        self.settled();
        self.keeps();
        let subject = format!("round {}", self.round);
        let runs = self.world.json(&["history", "apps"]);
        let runs = runs.as_array().expect("a list").iter();
        let runs: Vec<&Value> = runs.filter(|run| run["subject"] == subject.as_str()).collect();
        let [last, .., stopped] = runs.as_slice() else { panic!("{runs:#?}") };
        let told = [&last["verdict"], &stopped["verdict"], &stopped["changes"]];
        assert_eq!(told, [&json!("succeeded"), &json!("cancelled"), &json!(changes)]);
    }

    /// A slow API server costs time and nothing else.
    fn is_slow(&mut self) {
        for asks in [Apply, Identity] {
            self.place = format!("{asks:?}, 300 ms each");
            let slow = Fault::Slow(Duration::from_millis(300));
            self.proxy.inject(&pattern(&[]), usize::MAX, slow.clone());
            self.meet(asks, &slow, usize::MAX);
            let took = self.settled().as_millis();
            self.drifts();
            self.keeps();
            self.proxy.heal();
            tell(&format!("{}: settled after {took} ms", self.place));
        }
    }
}

/// Tells the operator of the tests; print macros would be swallowed when a test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "faults: {line}");
}

pub fn answer(code: u16, reason: &str, message: &str, details: &Value) -> Fault {
    let headers = if code == 429 { "Retry-After: 4\r\n" } else { "" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code, "details": details});
    Fault::Answer(code, headers, status.to_string())
}

/// What passes by itself.
fn transient() -> Vec<(&'static str, Fault)> {
    let moved = "the object has been modified; please apply your changes to the latest version";
    vec![
        ("409", answer(409, "Conflict", moved, &json!({}))),
        ("429", answer(429, "TooManyRequests", "too many", &json!({"retryAfterSeconds": 1}))),
        ("500", answer(500, "InternalError", "etcdserver: request timed out", &json!({}))),
        ("reset", Fault::Reset),
        ("cut off", Fault::Cut),
        ("no JSON", Fault::Answer(200, "", "<html>Sign in to the network</html>".to_owned())),
    ]
}

/// A watch whose place is lost, and the same of a list.
fn expired(asks: Asks) -> Fault {
    let Fault::Answer(_, headers, status) =
        answer(410, "Expired", "too old resource version: 1 (2)", &json!({}))
    else {
        unreachable!("an answer")
    };
    if asks == List {
        return Fault::Answer(410, headers, status);
    }
    Fault::Answer(200, headers, format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"))
}

/// All that passes, then all that stays.
fn through(asked: &[Asks]) -> Bench {
    let mut bench = Bench::new();
    for asks in asked {
        for (name, fault) in transient() {
            bench.passes(*asks, name, &fault);
        }
        if [List, Watch].contains(asks) {
            bench.passes(*asks, "410", &expired(*asks));
        }
    }
    let cause = json!({"causes": [{"reason": "FieldValueInvalid", "field": "data[x]",
        "message": "Invalid value: \"x\": must not be"}]});
    let invalid = answer(422, "Invalid", "it is invalid: must not be", &cause);
    let typed = bench.typed();
    for asks in asked {
        bench.stays(*asks, "422", &invalid, "must not be");
        bench.stays(*asks, "typed 500", &typed, "duplicate entries for key");
    }
    bench
}

#[test]
fn whatever_a_request_meets_the_daemon_converges_without_help_or_says_why_it_cannot() {
    std::thread::scope(|scope| {
        for asked in [&LINK[..3], &LINK[3..], &RUN[3..]] {
            scope.spawn(|| through(asked));
        }
        scope.spawn(|| through(&RUN[..3]).is_slow());
    });
}

#[test]
fn a_request_that_is_never_answered_is_given_up_and_made_again() {
    std::thread::scope(|scope| {
        for (run, link) in RUN.into_iter().zip(LINK) {
            scope.spawn(move || {
                let mut bench = Bench::new();
                bench.passes(run, "no answer", &Fault::Silence);
                bench.passes(link, "no answer", &Fault::Silence);
            });
        }
    });
}

#[test]
fn a_watch_that_an_overloaded_server_refuses_for_a_moment_costs_no_comparison_of_the_rest() {
    let bench = Bench::new();
    let (watch, looks) = (bench.requests(Watch), pattern(&["configmaps/taken?"]));
    for (code, reason) in [(429, "TooManyRequests"), (500, "InternalError")] {
        // A watch that stood for less than a second is not renewed at once.
        std::thread::sleep(Duration::from_millis(1100));
        bench.proxy.inject(&watch, 2, answer(code, reason, "overloaded", &json!({})));
        let before = bench.proxy.len();
        bench.proxy.cut_off();
        bench.world.eventually("it is refused", |_| bench.proxy.hits(&watch) > 0);
        // Unseen by the watch: its new list tells of it.
        bench.drifts();
        assert_eq!(bench.proxy.hits(&watch), 2);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(bench.proxy.asked(&looks, before), Vec::<String>::new(), "{code}");
        bench.keeps();
        bench.proxy.heal();
    }
}

/// A Secret that can only be changed by being deleted and created again, which it asks for.
fn frozen(namespace: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: frozen\n  namespace: {namespace}\n  \
         annotations: {{kustomize.toolkit.fluxcd.io/force: enabled}}\nimmutable: true\n\
         stringData:\n  key: {value}\n"
    )
}

#[test]
fn a_stop_finishes_the_object_in_hand_begins_no_other_and_the_next_start_goes_on() {
    let mut bench = Bench::new();
    let ns = bench.world.namespace.clone();
    // Of the four changes of the round, the first is slow.
    let before = bench.seen();
    bench.commit();
    let apply = bench.requests(Apply);
    bench.stop_at(&apply);
    let mut expected = before;
    expected["a"]["key"] = json!(format!("{}-v", bench.round));
    assert_eq!(bench.seen(), expected, "{}", bench.world.log());
    bench.goes_on(1);

    // What is deleted to be created again is not left deleted; the deletion of the round waits.
    bench.repo.write("apps/apps/frozen.yaml", &frozen(&ns, "first"));
    bench.commit();
    bench.world.run(&["reconcile", "--with-source", "--no-wait"]);
    bench.settled();
    let uid = bench.world.uid("secret", "frozen");
    bench.repo.write("apps/apps/frozen.yaml", &frozen(&ns, "second"));
    bench.commit();
    bench.stop_at(&pattern(&[&format!("DELETE /api/v1/namespaces/{ns}/secrets/frozen?")]));
    assert_ne!(bench.world.uid("secret", "frozen"), uid);
    let left = format!("extra-{}", bench.round - 1);
    assert_ne!(bench.seen()[&left], Value::Null, "it is pruned by the next start");
    assert_eq!(bench.seen()["a"]["key"], format!("{}-v", bench.round));
    bench.goes_on(4);
}

/// A Deployment that names one environment variable twice.
fn twice(namespace: &str) -> String {
    let deployment = mk_deployment(namespace, "twice", "1");
    format!("{deployment}        env: [{{name: A, value: one}}, {{name: A, value: two}}]\n")
}

#[test]
fn a_duplicate_list_key_is_the_files_fault_though_the_server_says_500() {
    let mut world = World::new();
    let ns = world.namespace.clone();
    let files = [("twice.yaml", twice(&ns)), ("a.yaml", mk_config_map(&ns, "a", "1"))];
    let repo = world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.eventually("object and file are named", |world| {
        let message = world.message("apps");
        let words = [&format!("Deployment/{ns}/twice"), "apps/apps/twice.yaml", "duplicate"];
        words.iter().all(|word| message.contains(*word))
    });
    assert!(world.get("configmap", "a").is_some(), "the rest is applied");
    repo.write("apps/apps/twice.yaml", &mk_deployment(&ns, "twice", "1"));
    repo.commit("once");
    repo.push("main");
    assert!(world.reconcile(), "{}", world.log());
}

#[test]
fn while_no_controller_leads_a_deployment_is_not_healthy_and_recovers_with_them() {
    let mut world = World::alone();
    let ns = world.namespace.clone();
    let files = [("a.yaml", mk_config_map(&ns, "a", "1"))];
    let spec = "  wait: true\n  timeout: 3s\n";
    let repo = world.apps(&[App { name: "apps", spec, files: &files }]);
    world.start();
    world.settled();
    world.cluster().stop("kube-controller-manager");
    repo.write("apps/apps/web.yaml", &mk_deployment(&ns, "web", "1"));
    repo.commit("web");
    repo.push("main");
    assert!(!world.reconcile(), "nobody makes its pods");
    world.eventually("it is said", |world| {
        let item = world.item("Kustomization/flux-system/apps");
        let message = item["message"].as_str().unwrap_or_default();
        let words = [&format!("Deployment/{ns}/web"), "no controller has looked at it"];
        item["reason"] == "HealthCheckFailed" && words.iter().all(|word| message.contains(*word))
    });
    tell(&format!("without a leader: {}", world.message("apps")));
    world.cluster().start("kube-controller-manager");
    world.settled();
}
