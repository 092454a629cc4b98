//! From a new tag to the poll of what was pushed; times in milliseconds.

use super::*;
use crate::flux::root;
use crate::graph::Event;
use crate::pipeline::{Order, Report, Revision, Step, WorkOrders};
use serde_json::{Value, json};

const MINUTE: Time = 60_000;

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "flux-system", name)
}

fn order(kind: &str, name: &str, spec: Value) -> Order {
    let group = match kind {
        "GitRepository" => "source.toolkit.fluxcd.io/v1",
        _ => "image.toolkit.fluxcd.io/v1",
    };
    let manifest = json!({"apiVersion": group, "kind": kind,
        "metadata": {"name": name, "namespace": "flux-system", "labels": {"app": name}},
        "spec": spec});
    let object = Object::read(&manifest).expect("a Flux kind").expect("a sound spec");
    Order { object, manifest, origin: None }
}

fn repository(name: &str) -> Order {
    order("ImageRepository", name, json!({"image": format!("r.example/{name}"), "interval": "1m"}))
}

fn policy(name: &str, repository: &str) -> Order {
    let spec = json!({"imageRepositoryRef": {"name": repository},
        "policy": {"alphabetical": {}}});
    order("ImagePolicy", name, spec)
}

fn automation(name: &str, more: Value) -> Order {
    let mut spec = json!({"interval": "30m", "sourceRef": {"kind": "GitRepository", "name": "app"},
        "git": {"commit": {"author": {"email": "bot@example.com"}}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    order("ImageUpdateAutomation", name, spec)
}

fn source(name: &str, branch: &str) -> Order {
    let spec = json!({"url": "https://git.example/app.git", "interval": "10m",
        "ref": {"branch": branch}});
    order("GitRepository", name, spec)
}

fn at(id: &str) -> Revision {
    crate::graph::revision(id)
}

/// A graph whose root has declared these, and whose source `app` is at a revision.
fn declared(work: Vec<Order>) -> Graph {
    recalling(Vec::new(), work)
}

/// The same with what a former process knew.
fn recalling(choices: Vec<(String, Choice)>, work: Vec<Order>) -> Graph {
    let branch = GitReference::Branch("main".into());
    let minute = Duration::from_secs(60);
    let mut graph = Graph::new(root("https://git.example/r", branch, "clusters/x", minute), 0);
    graph.recall(choices.into_iter());
    graph.due(0);
    let root = (key(Kind::GitRepository, "flux-system"), key(Kind::Kustomization, "flux-system"));
    graph.handle(Event::Polled(root.0, Ok(Some(at("main@sha1:1")))), 0);
    graph.due(0);
    let revision = "main@sha1:1".to_owned();
    let work = work.into_iter().chain([source("app", "develop")]).collect();
    let orders = WorkOrders { revision, work, ..WorkOrders::default() };
    graph.handle(Event::Rendered(root.1.clone(), orders), 0);
    let report = Report {
        outcome: crate::pipeline::Outcome::Ready("Applied".into()),
        revision: at("main@sha1:1"),
        objects: Some(0),
        warnings: Vec::new(),
        others: BTreeMap::new(),
        prune_pending: false,
        judged: true,
        observed: true,
        held: Vec::new(),
        changes: 0,
    };
    graph.handle(Event::Finished(root.1, Box::new(report)), 0);
    graph
}

/// What is started at `now` beside the root, in a word and a name each.
fn started(graph: &mut Graph, now: Time) -> Vec<String> {
    let told = |effect: Effect| match effect {
        Effect::Poll(key) => format!("poll {}", key.name),
        Effect::Scan { key, trigger } => format!("scan {} by {trigger}", key.name),
        Effect::Choose { key, .. } => format!("choose {}", key.name),
        Effect::Automate { key, choices, .. } => {
            let chosen: Vec<String> = choices.values().map(Choice::tagged).collect();
            format!("automate {} {}", key.name, chosen.join(" "))
        }
        other => format!("{other:?}"),
    };
    let beside = |told: &String| !told.ends_with("flux-system");
    graph.due(now).into_iter().map(told).filter(beside).collect()
}

fn scan(graph: &mut Graph, name: &str, changed: bool, now: Time) {
    let scanned = Scanned { tags: 3, checksum: "1".into(), changed, next: None };
    graph.handle(Event::Scanned(key(Kind::ImageRepository, name), Ok(scanned)), now);
}

fn choose(graph: &mut Graph, name: &str, tag: &str, now: Time) {
    let choice = Choice {
        name: "r.example/app".into(),
        tag: tag.into(),
        digest: None,
        previous: None,
        since_ms: 0,
    };
    let chosen = Chosen { choice: Some(choice), news: true, notice: None, result: Ok("ok".into()) };
    graph.handle(Event::Chose(key(Kind::ImagePolicy, name), Box::new(chosen)), now);
}

fn done(pushed: Option<Pushed>) -> Result<Automated, Failure> {
    Ok(Automated { message: "ok".into(), pushed, warnings: Vec::new(), again: None })
}

fn automate(graph: &mut Graph, result: Result<Automated, Failure>, now: Time) {
    graph.handle(Event::Automated(key(Kind::ImageUpdateAutomation, "all"), result), now);
}

fn condition(graph: &Graph, kind: Kind, name: &str) -> (Ready, String) {
    let condition = &graph.item(&key(kind, name)).expect("declared").condition;
    (condition.status, condition.message.clone())
}

/// Repository, policy and automation, all of which have settled on tag `1` at time 2.
fn settled() -> Graph {
    let work = vec![repository("app"), policy("app", "app"), automation("all", json!({}))];
    let mut graph = declared(work);
    assert_eq!(started(&mut graph, 0), ["poll app", "scan app by boot"]);
    let waits = condition(&graph, Kind::ImagePolicy, "app");
    let told = "ImageRepository/flux-system/app was not scanned yet".to_owned();
    assert_eq!(waits, (Ready::Unknown, told));
    graph.handle(Event::Polled(key(Kind::GitRepository, "app"), Ok(Some(at("develop@sha1:1")))), 1);
    assert_eq!(started(&mut graph, 1), Vec::<String>::new(), "what is chosen is not known yet");
    scan(&mut graph, "app", true, 1);
    assert_eq!(started(&mut graph, 1), ["choose app"]);
    choose(&mut graph, "app", "1", 2);
    assert_eq!(started(&mut graph, 2 + TOGETHER), ["automate all r.example/app:1"]);
    automate(&mut graph, done(None), 3 + TOGETHER);
    graph
}

#[test]
fn a_new_tag_is_chosen_committed_and_polled_for_and_the_same_tags_cost_nothing() {
    let mut graph = settled();
    assert_eq!(started(&mut graph, 2 * MINUTE), ["scan app by interval"]);
    scan(&mut graph, "app", false, 2 * MINUTE);
    assert_eq!(started(&mut graph, 2 * MINUTE + TOGETHER), Vec::<String>::new());

    assert_eq!(started(&mut graph, 4 * MINUTE), ["scan app by interval"]);
    scan(&mut graph, "app", true, 4 * MINUTE);
    assert_eq!(started(&mut graph, 4 * MINUTE), ["choose app"]);
    choose(&mut graph, "app", "1", 4 * MINUTE);
    assert_eq!(started(&mut graph, 4 * MINUTE + TOGETHER), Vec::<String>::new(), "not another one");

    started(&mut graph, 6 * MINUTE);
    scan(&mut graph, "app", true, 6 * MINUTE);
    started(&mut graph, 6 * MINUTE);
    choose(&mut graph, "app", "2", 6 * MINUTE);
    let now = 6 * MINUTE + TOGETHER;
    assert_eq!(started(&mut graph, now), ["automate all r.example/app:2"]);
    let pushed = Pushed {
        url: "https://git.example/app".into(),
        branches: vec!["develop".into()],
        revision: at("develop@sha1:2"),
        replaced: Vec::new(),
    };
    automate(&mut graph, done(Some(pushed)), now);
    assert_eq!(started(&mut graph, now), ["poll app"]);
    let source = key(Kind::GitRepository, "app");
    graph.handle(Event::Polled(source, Ok(Some(at("develop@sha1:2")))), now + 1);
    let again = started(&mut graph, now + 1);
    assert_eq!(again, ["automate all r.example/app:2"], "finds its own values in place");
    let policy = graph.item(&key(Kind::ImagePolicy, "app")).expect("declared");
    assert_eq!(policy.revision.as_ref().map(|r| r.id.as_str()), Some("2"));
}

#[test]
fn policies_that_change_together_make_one_commit() {
    let names: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
    let mut work = vec![repository("app"), automation("all", json!({}))];
    work.extend(names.iter().map(|name| policy(name, "app")));
    let mut graph = declared(work);
    started(&mut graph, 0);
    graph.handle(Event::Polled(key(Kind::GitRepository, "app"), Ok(Some(at("develop@sha1:1")))), 0);
    scan(&mut graph, "app", true, 0);
    assert_eq!(started(&mut graph, 0).len(), 10);
    let mut commits = Vec::new();
    for (n, name) in (0..).zip(&names) {
        choose(&mut graph, name, "2", n * 50);
        commits.extend(started(&mut graph, n * 50));
    }
    assert_eq!(commits, Vec::<String>::new());
    let started = started(&mut graph, 10 * TOGETHER);
    assert_eq!(started.len(), 1, "{started:?}");
    assert_eq!(started[0].matches("app:2").count(), 10);
}

#[test]
fn an_automation_takes_only_what_it_selects_and_waits_for_what_has_not_chosen() {
    let only = json!({"policySelector": {"matchLabels": {"app": "a"}}});
    let work =
        vec![repository("app"), policy("a", "app"), policy("b", "app"), automation("all", only)];
    let mut graph = declared(work);
    started(&mut graph, 0);
    graph.handle(Event::Polled(key(Kind::GitRepository, "app"), Ok(Some(at("develop@sha1:1")))), 0);
    scan(&mut graph, "app", true, 0);
    started(&mut graph, 0);
    choose(&mut graph, "b", "9", 1);
    assert_eq!(started(&mut graph, 5 * TOGETHER), Vec::<String>::new());
    let (ready, message) = condition(&graph, Kind::ImageUpdateAutomation, "all");
    assert_eq!((ready, message.contains("a has not chosen")), (Ready::Unknown, true), "{message}");
    choose(&mut graph, "a", "1", 6 * TOGETHER);
    assert_eq!(started(&mut graph, 7 * TOGETHER), ["automate all r.example/app:1"]);
}

#[test]
fn what_fails_is_tried_again_ever_later_and_the_choice_stands() {
    let mut graph = settled();
    let failure = |retry| Failure::new(Step::Scan, "ReadOperationFailed", "away").retry(retry);
    let mut now = 2 * MINUTE;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert_eq!(started(&mut graph, now).len(), 1);
        let repository = key(Kind::ImageRepository, "app");
        graph.handle(Event::Scanned(repository, Err(failure(Retry::Soon))), now);
        let next = match graph.item(&key(Kind::ImageRepository, "app")).expect("there").phase {
            Phase::Idle { due: Some((at, _)) } => at,
            _ => panic!("it is not tried again"),
        };
        pauses.push((next - now) / 1000);
        now = next;
    }
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]) && pauses[7] >= 57, "{pauses:?}");
    let policy = graph.item(&key(Kind::ImagePolicy, "app")).expect("declared");
    assert_eq!(policy.choice.as_ref().map(|choice| choice.tag.as_str()), Some("1"));
    assert_eq!(policy.condition.status, Ready::True);

    let refused = Failure::new(Step::Push, "GitOperationFailed", "protected branch");
    let by = Trigger::Request { by: "root".into() };
    graph.handle(Event::Request(key(Kind::ImageUpdateAutomation, "all"), by, 0), now);
    started(&mut graph, now);
    automate(&mut graph, Err(refused), now);
    let item = graph.item(&key(Kind::ImageUpdateAutomation, "all")).expect("declared");
    assert_eq!(item.condition.reason, "GitOperationFailed");
    let Phase::Idle { due: Some((at, _)) } = item.phase else { panic!("it is not tried again") };
    assert!(at > now + 25 * MINUTE, "not before its interval");
}

#[test]
fn what_waits_for_a_missing_object_says_so_and_goes_on_when_it_comes() {
    let mut graph = declared(vec![policy("app", "app")]);
    started(&mut graph, 0);
    let (ready, message) = condition(&graph, Kind::ImagePolicy, "app");
    assert_eq!(ready, Ready::False);
    assert_eq!(message, "ImageRepository/flux-system/app does not exist");
    let orders = WorkOrders {
        revision: "main@sha1:2".into(),
        work: vec![policy("app", "app"), repository("app"), source("app", "develop")],
        ..WorkOrders::default()
    };
    graph.handle(Event::Rendered(key(Kind::Kustomization, "flux-system"), orders), 1);
    assert_eq!(started(&mut graph, 1), ["scan app by boot"]);
    scan(&mut graph, "app", false, 2);
    assert_eq!(started(&mut graph, 2), ["choose app"], "its tags were stored before");
}

#[test]
fn an_image_object_that_left_git_is_let_go_of() {
    let mut graph = settled();
    let orders = WorkOrders {
        revision: "main@sha1:1".into(),
        work: vec![repository("app"), source("app", "develop")],
        ..WorkOrders::default()
    };
    let effects = graph.handle(Event::Rendered(key(Kind::Kustomization, "flux-system"), orders), 1);
    let gone: Vec<String> = effects
        .into_iter()
        .map(|effect| match effect {
            Effect::Forget(key) => key.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = ["ImagePolicy/flux-system/app", "ImageUpdateAutomation/flux-system/all"];
    assert_eq!(gone, expected);
}

#[test]
fn a_chain_is_everything_from_the_registry_to_what_runs_the_image() {
    let graph = settled();
    for name in ["ImagePolicy/flux-system/app", "imgrepo/flux-system/app"] {
        let chain = graph.image_chain(&graph.find(name));
        let told: Vec<String> = chain.iter().map(ToString::to_string).collect();
        let expected = [
            "GitRepository/flux-system/app",
            "ImageRepository/flux-system/app",
            "ImagePolicy/flux-system/app",
            "ImageUpdateAutomation/flux-system/all",
        ];
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn what_one_commit_says_of_values_and_rules_is_judged_by_its_own_rules() {
    // Everything in one repository: the revision that moves the values may change the rules.
    let own = json!({"sourceRef": {"kind": "GitRepository", "name": "flux-system"}});
    let work = || vec![repository("app"), policy("app", "app"), automation("all", own.clone())];
    let mut graph = declared(work());
    started(&mut graph, 0);
    scan(&mut graph, "app", true, 0);
    started(&mut graph, 0);
    choose(&mut graph, "app", "1", 0);
    started(&mut graph, 1000);
    automate(&mut graph, done(None), 1000);
    let root = key(Kind::GitRepository, "flux-system");
    graph.handle(Event::Polled(root, Ok(Some(at("main@sha1:2")))), 2000);
    let automates = |told: &String| told.starts_with("automate");
    assert!(!started(&mut graph, 2000).iter().any(automates), "the old rules are not applied");
    let told = condition(&graph, Kind::ImageUpdateAutomation, "all");
    assert!(told.1.ends_with("is rendering a new revision"), "{told:?}");
    let revision = "main@sha1:2".to_owned();
    let work = work().into_iter().chain([source("app", "develop")]).collect();
    let orders = WorkOrders { revision, work, ..WorkOrders::default() };
    graph.handle(Event::Rendered(key(Kind::Kustomization, "flux-system"), orders), 2500);
    let begun = started(&mut graph, 2500);
    assert!(begun.contains(&"automate all r.example/app:1".to_owned()), "{begun:?}");
}

#[test]
fn a_suspended_repository_is_not_scanned_and_a_suspended_automation_commits_nothing() {
    // In Git.
    let spec = json!({"image": "r.example/app", "interval": "1m", "suspend": true});
    let stopped = order("ImageRepository", "app", spec);
    let work = vec![stopped, policy("app", "app"), automation("all", json!({"suspend": true}))];
    let mut graph = declared(work);
    assert_eq!(started(&mut graph, 0), ["poll app", "choose app"], "what is stored is chosen from");
    graph.handle(Event::Polled(key(Kind::GitRepository, "app"), Ok(Some(at("develop@sha1:1")))), 1);
    choose(&mut graph, "app", "1", 1);
    assert_eq!(started(&mut graph, 5 * MINUTE), Vec::<String>::new());

    // On the host, and back.
    let mut graph = settled();
    let both = [key(Kind::ImageRepository, "app"), key(Kind::ImageUpdateAutomation, "all")];
    for key in &both {
        graph.handle(Event::Suspend(key.clone(), Some("a freeze".into())), MINUTE);
    }
    let begun = |graph: &mut Graph, now| {
        let all = started(graph, now);
        ["scan app", "automate all"].map(|what| all.iter().any(|told| told.starts_with(what)))
    };
    assert_eq!(begun(&mut graph, 40 * MINUTE), [false, false]);
    for key in both {
        graph.handle(Event::Suspend(key, None), 41 * MINUTE);
    }
    assert_eq!(begun(&mut graph, 41 * MINUTE), [true, true]);
}

#[test]
fn a_suspended_policy_keeps_what_it_had_chosen_over_a_restart() {
    let choice = Choice {
        name: "r.example/app".into(),
        tag: "7".into(),
        digest: None,
        previous: None,
        since_ms: 0,
    };
    let suspended = |name: &str| {
        let spec = json!({"imageRepositoryRef": {"name": "app"}, "suspend": true,
            "policy": {"alphabetical": {}}});
        order("ImagePolicy", name, spec)
    };
    let work =
        vec![repository("app"), suspended("app"), suspended("never"), automation("all", json!({}))];
    let mut graph = recalling(vec![("flux-system/app".to_owned(), choice)], work);
    assert_eq!(started(&mut graph, 0), ["poll app", "scan app by boot"]);
    graph.handle(Event::Polled(key(Kind::GitRepository, "app"), Ok(Some(at("develop@sha1:1")))), 1);
    scan(&mut graph, "app", true, 1);
    assert_eq!(started(&mut graph, 1), ["automate all r.example/app:7"]);
    let item = |name: &str| graph.item(&key(Kind::ImagePolicy, name)).expect("declared");
    let tag = |name: &str| item(name).revision.as_ref().map(|r| r.id.clone());
    assert_eq!((tag("app"), tag("never")), (Some("7".to_owned()), None));
}
