//! What stops a run, and what the entry says of its own source.

use super::*;
use crate::plan::Held;

#[test]
fn a_suspend_stops_what_waits_and_forgets_nothing_that_was_known() {
    let mut graph = declared(vec![order("a", json!({}))]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    let mut before = report(Outcome::Ready("Applied".into()), "r1");
    (before.objects, before.warnings) = (Some(1), vec!["w".into()]);
    graph.handle(Event::Finished(key("a"), before), 4);
    assert!(graph.handle(Event::Suspend(key("a"), Some("by me".into())), 5).is_empty());
    graph.handle(Event::Suspend(key("a"), None), 6);
    assert_eq!(started(&mut graph, 6), ["run a by resume"]);
    let effects = graph.handle(Event::Suspend(key("a"), Some("by me".into())), 7);
    assert!(matches!(&effects[..], [Effect::Cancel(of)] if *of == key("a")), "{effects:?}");
    let mut stopped = report(Outcome::Cancelled, "r1");
    stopped.objects = None;
    graph.handle(Event::Finished(key("a"), stopped), 8);
    let item = graph.item(&key("a")).unwrap();
    let told = (item.warnings.clone(), item.condition.message.as_str());
    assert_eq!(told, (vec!["w".to_owned()], "Applied"), "others may depend on what is ready");
    let later = started(&mut graph, 99_000_000);
    assert_eq!(later, ["poll flux-system", "run flux-system by interval"], "and no run of it");
}

#[test]
fn a_suspend_before_the_first_end_says_so_until_it_runs_again() {
    let mut graph = declared(vec![order("a", json!({}))]);
    assert_eq!(started(&mut graph, 3), ["run a by boot"]);
    graph.handle(Event::Suspend(key("a"), Some("by me".into())), 4);
    graph.handle(Event::Finished(key("a"), report(Outcome::Cancelled, "r1")), 5);
    let told = |graph: &Graph| graph.item(&key("a")).unwrap().condition.message.clone();
    assert_eq!(told(&graph), "stopped by the suspend, before its end");
    graph.handle(Event::Suspend(key("a"), None), 6);
    assert_eq!(started(&mut graph, 6), ["run a by resume"]);
    assert_eq!(told(&graph), "reconciling");
}

#[test]
fn a_run_that_fails_before_its_prune_forgets_nothing_that_waits_for_a_word() {
    let mut graph = declared(vec![order("a", json!({}))]);
    started(&mut graph, 3);
    let mut holds = report(Outcome::Ready("Applied".into()), "r1");
    let held = Held { digest: "d".into(), ids: Vec::new(), reason: "it holds data".into() };
    (holds.held, holds.prune_pending) = (vec![held], true);
    graph.handle(Event::Finished(key("a"), holds), 4);
    let mut broken = failed(Retry::Interval, "r1");
    broken.judged = false;
    graph.handle(Event::Finished(key("a"), broken), 5);
    let item = graph.item(&key("a")).unwrap();
    assert_eq!((item.held.len(), item.prune_pending), (1, true));
    graph.handle(Event::Finished(key("a"), ready("r1")), 6);
    let item = graph.item(&key("a")).unwrap();
    assert_eq!((item.held.len(), item.prune_pending), (0, false));
}

#[test]
fn a_run_whose_prune_waits_for_other_renders_knows_nothing_of_what_is_held() {
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    let mut holds = report(Outcome::Ready("Applied".into()), "r1");
    holds.held = vec![Held { digest: "d".into(), ids: Vec::new(), reason: "it holds data".into() }];
    graph.handle(Event::Finished(key("a"), holds), 4);
    let mut waits = report(Outcome::Ready("Applied".into()), "r1");
    (waits.judged, waits.prune_pending) = (false, true);
    graph.handle(Event::Finished(key("a"), waits), 5);
    let item = graph.item(&key("a")).unwrap();
    assert_eq!((item.held.len(), item.prune_pending), (1, true));
    graph.handle(Event::Finished(key("a"), ready("r1")), 6);
    let item = graph.item(&key("a")).unwrap();
    assert_eq!((item.held.len(), item.prune_pending), (0, false));
}

#[test]
fn an_end_that_was_confirmed_is_not_held_again_while_it_waits_for_other_renders() {
    let work = || vec![order("a", json!({})), order("b", json!({})), order("c", json!({}))];
    let mut graph = declared(work());
    started(&mut graph, 3);
    graph.handle(Event::Polled(source_key(), Ok(Some(revision("r2")))), 5);
    let left = || orders("r2", vec![order("c", json!({}))]);
    graph.handle(Event::Rendered(key("flux-system"), left()), 6);
    let digest = graph.cascades().next().map(|(_, held)| held.digest.clone()).unwrap();
    // c has not rendered r2: nothing ends yet.
    let effects = graph.handle(Event::Agree(digest), 7);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = graph.handle(Event::Rendered(key("flux-system"), left()), 8);
    assert!(effects.is_empty() && graph.cascades().next().is_none(), "it was confirmed");
    let effects = graph.handle(Event::Rendered(key("c"), orders("r2", Vec::new())), 9);
    assert_eq!(effects.len(), 2, "both end: {effects:?}");
}

#[test]
fn what_the_entry_says_of_its_own_source_and_is_not_heeded_is_named() {
    let manifest = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": {"name": "flux-system", "namespace": "flux-system"},
        "spec": {"url": "https://git.example/r", "interval": "1m", "ref": {"branch": "main"},
            "ignore": "/docs", "verify": {"mode": "HEAD", "secretRef": {"name": "k"}}}});
    let object = Object::read(&manifest).unwrap().unwrap();
    let graph = declared(vec![Order { object, manifest, origin: None }]);
    let named = graph.summary(0).unsupported;
    let told: Vec<(&str, &str)> =
        named.iter().map(|found| (found.kind.as_str(), found.field.as_str())).collect();
    assert_eq!(told, [("GitRepository", "spec.verify"), ("GitRepository", "spec.ignore")]);
}
