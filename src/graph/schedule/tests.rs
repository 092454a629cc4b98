//! The graph as a story of events and effects; times in milliseconds.

use super::*;
use crate::flux::{GitReference, Kind, root};
use crate::pipeline::Order;
use serde_json::{Value, json};

mod line;
mod stops;

const MINUTE: Time = 60_000;

fn graph() -> Graph {
    let branch = GitReference::Branch("main".into());
    Graph::new(root("https://git.example/r", branch, "clusters/x", Duration::from_secs(60)), 0)
}

fn source_key() -> Key {
    Key::new(Kind::GitRepository, "flux-system", "flux-system")
}

fn key(name: &str) -> Key {
    Key::new(Kind::Kustomization, "flux-system", name)
}

fn revision(id: &str) -> Revision {
    Revision { id: id.into(), ..Revision::unknown() }
}

fn order(name: &str, extra: Value) -> Order {
    let mut spec = json!({"interval": "10m", "prune": true, "path": name,
        "sourceRef": {"kind": "GitRepository", "name": "flux-system"}});
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let manifest = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"}, "spec": spec});
    let object = Object::read(&manifest).unwrap().unwrap();
    Order { object, manifest, origin: None }
}

fn orders(revision: &str, work: Vec<Order>) -> WorkOrders {
    WorkOrders { revision: revision.into(), work, ..WorkOrders::default() }
}

fn report(outcome: Outcome, id: &str) -> Box<Report> {
    Box::new(Report {
        outcome,
        revision: revision(id),
        objects: Some(1),
        warnings: Vec::new(),
        others: Default::default(),
        prune_pending: false,
        judged: true,
        observed: true,
        held: Vec::new(),
        changes: 0,
    })
}

fn ready(id: &str) -> Box<Report> {
    report(Outcome::Ready("Applied".into()), id)
}

fn failed(retry: Retry, id: &str) -> Box<Report> {
    let failure = Failure::new(crate::pipeline::Step::Render, "BuildFailed", "no").retry(retry);
    report(Outcome::Failed(failure), id)
}

/// Names of what is started at `now`.
fn started(graph: &mut Graph, now: Time) -> Vec<String> {
    let name = |effect: Effect| match effect {
        Effect::Poll(key) => format!("poll {}", key.name),
        Effect::Run { key, trigger, .. } => format!("run {} by {trigger}", key.name),
        other => format!("{other:?}"),
    };
    graph.due(now).into_iter().map(name).collect()
}

/// A graph whose root has run at `r1` and declared the given orders.
fn declared(work: Vec<Order>) -> Graph {
    let mut graph = graph();
    started(&mut graph, 0);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r1")))), 1);
    assert_eq!(started(&mut graph, 1), ["run flux-system by revision"]);
    graph.handle(Event::Rendered(key("flux-system"), orders("r1", work)), 2);
    graph.handle(Event::Finished(key("flux-system"), ready("r1")), 3);
    graph
}

#[test]
fn the_root_waits_for_its_source_and_runs_when_a_revision_comes() {
    let mut graph = graph();
    assert_eq!(started(&mut graph, 0), ["poll flux-system"]);
    let waiting = &graph.item(&key("flux-system")).unwrap().condition;
    assert_eq!((waiting.status, waiting.reason.as_str()), (Ready::False, "ArtifactFailed"));
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r1")))), 5);
    assert_eq!(started(&mut graph, 5), ["run flux-system by revision"]);
    assert_eq!(started(&mut graph, 6), Vec::<String>::new(), "it runs once");
}

#[test]
fn triggers_collapse_and_what_comes_during_a_run_leads_to_one_more() {
    let mut graph = declared(vec![order("a", json!({}))]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    for _ in 0..3 {
        let by = Trigger::Request { by: "root".into() };
        graph.handle(Event::Request(key("a"), by, 0), 4);
    }
    assert_eq!(started(&mut graph, 4), Vec::<String>::new());
    graph.handle(Event::Finished(key("a"), ready("r1")), 5);
    assert_eq!(started(&mut graph, 5).len(), 1);
    graph.handle(Event::Finished(key("a"), ready("r1")), 6);
    assert_eq!(started(&mut graph, 7), Vec::<String>::new());
    let next = graph.wake().unwrap();
    assert!(next > MINUTE / 2 && next < 11 * MINUTE, "{next}");
}

#[test]
fn a_dependency_that_becomes_ready_starts_its_dependents_at_once() {
    let depends = json!({"dependsOn": [{"name": "a"}]});
    let mut graph = declared(vec![order("a", json!({})), order("b", depends)]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    assert_eq!(graph.item(&key("b")).unwrap().condition.reason, "DependencyNotReady");
    let waits = "dependency Kustomization/flux-system/a is not ready";
    assert_eq!(graph.item(&key("b")).unwrap().condition.message, waits, "a cause would go stale");
    graph.handle(Event::Finished(key("a"), ready("r1")), 9);
    assert_eq!(started(&mut graph, 9), ["run b by dependency"]);
}

#[test]
fn a_dependency_on_the_same_source_must_have_applied_that_very_revision() {
    let depends = json!({"dependsOn": [{"name": "a"}]});
    let mut graph = declared(vec![order("a", json!({})), order("b", depends)]);
    started(&mut graph, 3);
    graph.handle(Event::Finished(key("a"), ready("r1")), 4);
    started(&mut graph, 4);
    graph.handle(Event::Finished(key("b"), ready("r1")), 5);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 6);
    assert_eq!(started(&mut graph, 6), ["run a by revision", "run flux-system by revision"]);
    let waiting = &graph.item(&key("b")).unwrap().condition;
    assert!(waiting.message.contains("has applied r1, not yet r2"), "{}", waiting.message);
    graph.handle(Event::Finished(key("a"), ready("r2")), 7);
    assert_eq!(started(&mut graph, 7), ["run b by dependency"]);
}

#[test]
fn a_cycle_is_named_and_its_members_do_not_run() {
    let on = |name: &str| json!({"dependsOn": [{"name": name}]});
    let work = vec![order("a", on("b")), order("b", on("a")), order("c", json!({}))];
    let mut graph = declared(work);
    assert_eq!(started(&mut graph, 3), ["run c by boot"]);
    let condition = &graph.item(&key("a")).unwrap().condition;
    assert_eq!(
        condition.message,
        "dependsOn runs in a circle: flux-system/a -> flux-system/b -> flux-system/a"
    );
}

#[test]
fn an_outage_is_tried_again_within_seconds_and_at_once_when_it_ends() {
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Finished(key("a"), failed(Retry::Soon, "r1")), 10);
    let wake = graph.wake().unwrap();
    assert!((500..1500).contains(&wake), "{wake}");
    graph.handle(Event::ClusterBack, 20);
    assert_eq!(started(&mut graph, 20), ["run a by retry"]);
    graph.handle(Event::Finished(key("a"), failed(Retry::Interval, "r1")), 30);
    assert!(graph.wake().unwrap() > MINUTE / 2, "a wrong manifest waits for the interval");
}

#[test]
fn a_source_that_fails_keeps_its_revision_in_force_and_backs_off() {
    let mut graph = declared(vec![]);
    let failure = |_| Failure::new(crate::pipeline::Step::Fetch, "GitOperationFailed", "down");
    let mut delays = Vec::new();
    let mut now = MINUTE;
    for round in 0..4 {
        graph.handle(Event::Request(source_key(), Trigger::Interval, 0), now);
        started(&mut graph, now);
        graph.handle(Event::Polled(source_key(), Err(failure(round))), now);
        let Phase::Idle { due: Some((at, _)) } = graph.item(&source_key()).unwrap().phase.clone()
        else {
            panic!("not idle");
        };
        delays.push(at - now);
        now = at;
    }
    assert!(delays.windows(2).all(|pair| pair[0] < pair[1]), "{delays:?}");
    let source = graph.item(&source_key()).unwrap();
    assert_eq!(source.revision.as_ref().unwrap().id, "r1");
    assert_eq!(source.condition.status, Ready::False);
}

#[test]
fn the_repositorys_own_entry_is_the_root_and_is_not_run_twice() {
    let entry = order("cluster", json!({"path": "./clusters/x/"}));
    let mut graph = declared(vec![entry]);
    assert_eq!(started(&mut graph, 3), Vec::<String>::new());
    assert_eq!(graph.items().count(), 2);
    let depends = json!({"dependsOn": [{"name": "cluster"}]});
    let entry = order("cluster", json!({"path": "./clusters/x/"}));
    let work = vec![entry, order("b", depends)];
    graph.handle(Event::Rendered(key("flux-system"), orders("r1", work)), 4);
    assert_eq!(started(&mut graph, 4), ["run b by boot"], "its name leads to the root");
}

#[test]
fn what_left_git_is_ended_only_when_every_render_of_the_source_is_there() {
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Rendered(key("a"), orders("r1", vec![])), 4);
    graph.handle(Event::Rendered(key("b"), orders("r1", vec![])), 4);
    graph.handle(Event::Finished(key("a"), ready("r1")), 4);
    graph.handle(Event::Finished(key("b"), ready("r1")), 4);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    started(&mut graph, 5);
    let effects = graph
        .handle(Event::Rendered(key("flux-system"), orders("r2", vec![order("a", json!({}))])), 6);
    assert!(effects.is_empty(), "a has not rendered r2 and may declare b now");
    assert!(!graph.may_prune(&key("flux-system"), "r2"));
    let effects = graph.handle(Event::Rendered(key("a"), orders("r2", vec![])), 7);
    assert!(matches!(&effects[..], [Effect::Finalize { kustomization, orphan: false, revision }]
        if kustomization.name == "b" && *revision == Some(self::revision("r2"))));
    assert!(graph.may_prune(&key("flux-system"), "r2"));
}

#[test]
fn a_declaration_that_moves_to_another_parent_ends_nothing() {
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    let root = orders("r2", vec![order("a", json!({}))]);
    graph.handle(Event::Rendered(key("flux-system"), root), 6);
    let moved = orders("r2", vec![order("b", json!({}))]);
    let effects = graph.handle(Event::Rendered(key("a"), moved), 7);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(graph.item(&key("b")).unwrap().parent, Some(key("a")));
}

#[test]
fn suspended_items_do_not_run_and_resume_at_once() {
    let mut graph = declared(vec![order("a", json!({}))]);
    graph.handle(Event::Suspend(key("a"), Some("maintenance".into())), 3);
    assert_eq!(started(&mut graph, 3), Vec::<String>::new());
    graph.handle(Event::Suspend(key("a"), None), 4);
    assert_eq!(started(&mut graph, 4), ["run a by resume"]);
}

#[test]
fn a_field_that_must_not_be_ignored_stops_the_item_by_name() {
    let mut graph = declared(vec![order("a", json!({"serviceAccountName": "x"}))]);
    assert_eq!(started(&mut graph, 3), Vec::<String>::new());
    let condition = &graph.item(&key("a")).unwrap().condition;
    assert!(condition.message.starts_with("spec.serviceAccountName is not supported yet"));
}

#[test]
fn a_work_order_that_became_unreadable_is_still_declared() {
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Finished(key("a"), ready("r1")), 4);
    let problem = crate::pipeline::Problem {
        object: key("a").to_string(),
        origin: None,
        message: "spec.interval: missing".into(),
    };
    let broken = WorkOrders { problems: vec![problem], ..orders("r1", vec![]) };
    let effects = graph.handle(Event::Rendered(key("flux-system"), broken), 5);
    assert!(effects.is_empty(), "{effects:?}");
    assert!(graph.item(&key("a")).is_some(), "a typo must not delete what it owns");
}

#[test]
fn a_move_ends_nothing_either_when_the_new_parent_renders_first() {
    let work = vec![order("a", json!({})), order("b", json!({})), order("c", json!({}))];
    let mut graph = declared(work);
    started(&mut graph, 3);
    for name in ["a", "b", "c"] {
        graph.handle(Event::Rendered(key(name), orders("r1", vec![])), 4);
        graph.handle(Event::Finished(key(name), ready("r1")), 4);
    }
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    let moved = || vec![order("b", json!({}))];
    graph.handle(Event::Rendered(key("a"), orders("r2", moved())), 6);
    graph.handle(Event::Rendered(key("c"), orders("r2", vec![])), 6);
    graph.handle(Event::Rendered(key("b"), orders("r2", vec![])), 6);
    let rest = vec![order("a", json!({})), order("c", json!({}))];
    let effects = graph.handle(Event::Rendered(key("flux-system"), orders("r2", rest)), 7);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(graph.item(&key("b")).unwrap().parent, Some(key("a")));
}

#[test]
fn a_failed_render_does_not_count_as_rendered() {
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Finished(key("a"), failed(Retry::Interval, "r1")), 4);
    assert!(!graph.may_prune(&key("flux-system"), "r1"), "a may be about to take the object");
}

#[test]
fn an_entry_that_lost_most_of_its_children_is_held_until_it_is_confirmed() {
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    let effects = graph.handle(Event::Rendered(key("flux-system"), orders("r2", vec![])), 6);
    assert!(effects.is_empty(), "{effects:?}");
    let digest = graph.cascades().next().map(|(_, held)| held.digest.clone()).unwrap();
    let effects = graph.handle(Event::Agree(digest), 7);
    assert_eq!(effects.len(), 2);
}

#[test]
fn what_left_and_comes_back_runs_at_the_revision_that_brought_it_back() {
    let work = || vec![order("a", json!({})), order("b", json!({}))];
    let mut graph = declared(work());
    started(&mut graph, 3);
    for name in ["a", "b"] {
        graph.handle(Event::Finished(key(name), ready("r1")), 4);
    }
    for (id, back) in [("r2", false), ("r3", true)] {
        graph.handle(Event::Polled(source_key(), Ok(Some(revision(id)))), 5);
        started(&mut graph, 5);
        let work = if back { work() } else { vec![] };
        graph.handle(Event::Rendered(key("flux-system"), orders(id, work)), 6);
        graph.handle(Event::Finished(key("flux-system"), ready(id)), 7);
        // What they ran when they left.
        for name in ["a", "b"].iter().filter(|_| !back) {
            graph.handle(Event::Finished(key(name), ready("r2")), 7);
        }
    }
    assert_eq!(started(&mut graph, 8), ["run a by revision", "run b by revision"]);
}

#[test]
fn a_repository_is_no_child_that_a_loss_is_weighed_against() {
    let repository = |name: &str| {
        let manifest = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": {"name": name, "namespace": "flux-system"},
            "spec": {"interval": "1m", "url": format!("https://git.example/{name}.git")}});
        let object = Object::read(&manifest).unwrap().unwrap();
        Order { object, manifest, origin: None }
    };
    let sources = || vec![repository("x"), repository("y")];
    let mut work = sources();
    work.extend([order("a", json!({})), order("b", json!({}))]);
    let mut graph = declared(work);
    started(&mut graph, 3);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    graph.handle(Event::Rendered(key("flux-system"), orders("r2", sources())), 6);
    let held: Vec<&str> = graph.cascades().map(|(_, held)| held.reason.as_str()).collect();
    let root = "Kustomization/flux-system/flux-system";
    assert_eq!(held, [format!("{root} lost 2 of its 2 children at once")]);
}

#[test]
fn what_is_owed_is_done_whatever_asks_beside_it() {
    let by = || Trigger::Request { by: "root".into() };
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    // A confirmation beside requests and commits, in whatever order they come during a run.
    for others in [vec![by()], vec![Trigger::Revision, Trigger::Interval], vec![Trigger::Drift]] {
        for first in [true, false] {
            let owed = std::iter::once(Trigger::Retry);
            let all: Vec<Trigger> = if first {
                owed.chain(others.clone()).collect()
            } else {
                others.clone().into_iter().chain(owed).collect()
            };
            for trigger in all {
                graph.handle(Event::Request(key("a"), trigger, 0), 4);
            }
            graph.handle(Event::Finished(key("a"), ready("r1")), 5);
            assert_eq!(started(&mut graph, 5), ["run a by retry"], "{others:?} {first}");
        }
    }
    // What Git or a person asks for is not recorded as what was noticed.
    graph.handle(Event::Request(key("a"), Trigger::Drift, 0), 6);
    graph.handle(Event::Request(key("a"), by(), 0), 6);
    graph.handle(Event::Request(key("a"), Trigger::Verify, 0), 6);
    graph.handle(Event::Finished(key("a"), ready("r1")), 7);
    assert_eq!(started(&mut graph, 7), ["run a by request"]);
}

#[test]
fn what_is_owed_outlasts_a_wait_for_a_dependency() {
    let depends = json!({"dependsOn": [{"name": "a"}]});
    let mut graph = declared(vec![order("a", json!({})), order("b", depends)]);
    started(&mut graph, 3);
    graph.handle(Event::Request(key("b"), Trigger::Prune, 0), 4);
    assert_eq!(started(&mut graph, 4), Vec::<String>::new());
    graph.handle(Event::Finished(key("a"), ready("r1")), 9);
    assert_eq!(started(&mut graph, 9), ["run b by prune"]);
}

#[test]
fn a_run_of_what_has_left_git_meanwhile_declares_nothing_any_more() {
    let mut graph = declared(vec![order("a", json!({})), order("z", json!({}))]);
    started(&mut graph, 3);
    for name in ["a", "z"] {
        let children = if name == "a" { vec![order("b", json!({}))] } else { vec![] };
        graph.handle(Event::Rendered(key(name), orders("r1", children)), 4);
        graph.handle(Event::Finished(key(name), ready("r1")), 4);
    }
    started(&mut graph, 4);
    graph.handle(Event::Rendered(key("b"), orders("r1", vec![])), 4);
    graph.handle(Event::Finished(key("b"), ready("r1")), 4);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    started(&mut graph, 5);
    // The directory of a is still there, but nobody declares it: its run is at work meanwhile.
    for name in ["z", "b"] {
        graph.handle(Event::Rendered(key(name), orders("r2", vec![])), 6);
    }
    let root = orders("r2", vec![order("z", json!({}))]);
    let ends = graph.handle(Event::Rendered(key("flux-system"), root), 7);
    assert_eq!(ends.len(), 2, "a, and b with it: {ends:?}");
    assert!(!graph.may_prune(&key("a"), "r2"), "its end deletes, and nothing before");
    let late = orders("r2", vec![order("b", json!({}))]);
    let effects = graph.handle(Event::Rendered(key("a"), late), 8);
    assert!(effects.is_empty(), "{effects:?}");
    assert!(graph.item(&key("b")).is_none(), "it would be applied again and never end");
    graph.handle(Event::Finished(key("a"), ready("r2")), 9);
    let names: Vec<&str> = graph.items().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(names, ["flux-system", "flux-system", "z"]);
}

#[test]
fn an_entry_that_is_stated_under_another_name_tells_the_root_its_spec() {
    let stated = json!({"path": "./clusters/x", "wait": true,
        "postBuild": {"substituteFrom": [{"kind": "Secret", "name": "settings"}]}});
    let work = || vec![order("cluster", stated.clone())];
    let mut graph = declared(work());
    let entry = graph.entry(&key("flux-system")).expect("it differs from the host's stand-in");
    assert_eq!(
        (entry.name.as_str(), entry.path.as_str(), entry.wait),
        ("flux-system", "clusters/x", true)
    );
    assert_eq!(entry.post_build.as_ref().unwrap().substitute_from.len(), 1);
    assert_eq!(graph.entry(&key("a")), None, "it is the root's business alone");
    graph.handle(Event::Finished(key("flux-system"), report(Outcome::Adopted(entry), "r1")), 3);
    assert_eq!(started(&mut graph, 3), ["run flux-system by revision"]);
    graph.handle(Event::Rendered(key("flux-system"), orders("r1", work())), 4);
    assert_eq!(graph.entry(&key("flux-system")), None, "it runs as it is stated now");
    // Stated under the host's own name too, that name counts.
    let mut work = work();
    work.push(order("flux-system", json!({"path": "./clusters/x"})));
    graph.handle(Event::Rendered(key("flux-system"), orders("r1", work)), 5);
    assert_eq!(graph.entry(&key("flux-system")), None);
}

#[test]
fn an_interval_of_nothing_is_no_busy_loop() {
    let mut graph = declared(vec![order("a", json!({"interval": "0s", "retryInterval": "0s"}))]);
    for (at, report) in [(3, ready("r1")), (9_000, failed(Retry::Interval, "r1"))] {
        assert_eq!(started(&mut graph, at).len(), 1);
        graph.handle(Event::Finished(key("a"), report), at);
        assert_eq!(started(&mut graph, at + 900), Vec::<String>::new());
    }
}

#[test]
fn a_ready_expression_is_read_again_when_a_dependency_fails() {
    let failing = "dep.status.conditions.exists(c, c.type == 'Ready' && c.reason == 'BuildFailed')";
    let depends = json!({"dependsOn": [{"name": "a", "readyExpr": failing}]});
    let mut graph = declared(vec![order("a", json!({})), order("b", depends)]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    graph.handle(Event::Finished(key("a"), failed(Retry::Interval, "r1")), 4);
    assert_eq!(started(&mut graph, 4), ["run b by dependency"]);
}

#[test]
fn a_token_in_git_asks_for_a_run_once() {
    let asks = |token: &str| {
        let mut order = order("a", json!({}));
        order.manifest["metadata"]["annotations"] =
            json!({"reconcile.fluxcd.io/requestedAt": token});
        orders("r1", vec![order])
    };
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Rendered(key("a"), orders("r1", vec![])), 4);
    graph.handle(Event::Finished(key("a"), ready("r1")), 4);
    for (token, runs) in [("1", 1), ("1", 0), ("2", 1)] {
        graph.handle(Event::Rendered(key("flux-system"), asks(token)), 5);
        let said = started(&mut graph, 5);
        assert_eq!(said, vec!["run a by request"; runs], "{token}");
        graph.handle(Event::Finished(key("a"), ready("r1")), 6);
    }
}

#[test]
fn a_held_deletion_may_be_confirmed_in_git() {
    let confirms = |digest: &str| {
        let mut entry = order("flux-system", json!({"path": "./clusters/x"}));
        entry.manifest["metadata"]["annotations"] = json!({"gitopsd.io/confirm": digest});
        orders("r2", vec![entry])
    };
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    assert_eq!(started(&mut graph, 5), ["run flux-system by revision"]);
    graph.handle(Event::Rendered(key("flux-system"), orders("r2", vec![])), 6);
    let digest = graph.cascades().next().map(|(_, held)| held.digest.clone()).expect("it is held");
    let effects = graph.handle(Event::Rendered(key("flux-system"), confirms("other")), 7);
    assert!(effects.is_empty() && graph.cascades().count() == 1, "{effects:?}");
    let effects = graph.handle(Event::Rendered(key("flux-system"), confirms(&digest)), 8);
    assert_eq!((effects.len(), graph.cascades().count()), (2, 0));
    // Its own run is to look again with that word.
    graph.handle(Event::Finished(key("flux-system"), ready("r2")), 9);
    assert_eq!(started(&mut graph, 9), ["run flux-system by retry"]);
}

#[test]
fn one_parent_that_takes_most_of_what_there_is_along_is_held_as_a_whole() {
    let names =
        |parent: &str| ["b", "c", "d"].map(|name| order(&format!("{parent}{name}"), json!({})));
    let mut graph = declared(vec![order("a", json!({})), order("z", json!({}))]);
    started(&mut graph, 3);
    graph.handle(Event::Rendered(key("a"), orders("r1", names("a").into())), 4);
    for name in ["a", "z", "ab", "ac", "ad"] {
        if name != "a" {
            graph.handle(Event::Rendered(key(name), orders("r1", vec![])), 4);
        }
        graph.handle(Event::Finished(key(name), ready("r1")), 4);
    }
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    started(&mut graph, 5);
    for name in ["z", "ab", "ac", "ad"] {
        graph.handle(Event::Rendered(key(name), orders("r2", vec![])), 6);
    }
    let root = orders("r2", vec![order("z", json!({}))]);
    let effects = graph.handle(Event::Rendered(key("flux-system"), root), 7);
    assert!(effects.is_empty(), "{effects:?}");
    let (parent, held) = graph.cascades().next().map(|(k, h)| (k.clone(), h.clone())).unwrap();
    assert_eq!(parent, key("flux-system"));
    assert_eq!(held.reason, "4 of 6 Kustomizations left Git at once");
    assert!(graph.item(&key("ab")).is_some(), "nothing of it has ended");
    let effects = graph.handle(Event::Agree(held.digest), 8);
    assert_eq!((effects.len(), graph.cascades().count()), (4, 0), "asked once");
}

#[test]
fn what_is_removed_together_with_the_source_of_its_children_ends_all_the_same() {
    let manifest = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": {"name": "g", "namespace": "flux-system"},
        "spec": {"interval": "1m", "url": "https://git.example/g"}});
    let source = || {
        let object = Object::read(&manifest).unwrap().unwrap();
        Order { object, manifest: manifest.clone(), origin: None }
    };
    let kept = || ["x", "y", "z"].map(|name| order(name, json!({})));
    let mut work = vec![source(), order("a", json!({}))];
    work.extend(kept());
    let mut graph = declared(work);
    started(&mut graph, 3);
    let child = order("c", json!({"sourceRef": {"kind": "GitRepository", "name": "g"}}));
    graph.handle(Event::Rendered(key("a"), orders("r1", vec![child])), 4);
    let g = Key::new(Kind::GitRepository, "flux-system", "g");
    graph.handle(Event::Polled(g, Ok(Some(revision("g1")))), 4);
    graph.handle(Event::Rendered(key("c"), orders("g1", vec![])), 4);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    graph.handle(Event::Rendered(key("flux-system"), orders("r2", kept().into())), 6);
    let root = graph
        .summary(0)
        .items
        .into_iter()
        .find(|item| item.parent.is_none() && item.kind == "Kustomization");
    let told = "Kustomization/flux-system/a left Git; what it owns stays until \
                Kustomization/flux-system/x has rendered";
    assert_eq!(root.unwrap().warnings, [told]);
    let mut effects = Vec::new();
    for name in ["x", "y", "z"] {
        assert!(effects.is_empty(), "{effects:?}");
        effects = graph.handle(Event::Rendered(key(name), orders("r2", vec![])), 7);
    }
    assert_eq!(effects.len(), 3, "a, c and their source: {effects:?}");
}

#[test]
fn a_run_by_the_old_spec_does_not_keep_the_new_one_waiting() {
    let mut graph = declared(vec![order("a", json!({}))]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    let same = orders("r1", vec![order("a", json!({}))]);
    assert!(graph.handle(Event::Rendered(key("flux-system"), same), 4).is_empty());
    let other = orders("r1", vec![order("a", json!({"wait": true}))]);
    let effects = graph.handle(Event::Rendered(key("flux-system"), other), 5);
    assert!(matches!(&effects[..], [Effect::Cancel(of)] if *of == key("a")), "{effects:?}");
    graph.handle(Event::Finished(key("a"), report(Outcome::Cancelled, "r1")), 6);
    assert_eq!(started(&mut graph, 6), ["run a by revision"]);
}
