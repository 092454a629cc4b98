//! What the image objects may ask for: digests, other namespaces, mirrors, pull secrets; and what
//! is named as unsupported.

use super::{Extra, Setting, Stage, git};
use crate::bed::standin::json;
use crate::bed::{PASSWORD, RegistryOptions, RegistryServer, Reply, StandIn, USER};
use crate::world::{World, mk_namespace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_digest_is_written_with_its_tag_once_or_followed_as_the_policy_says() {
    let stage = Stage::with(&Setting { policies: &["a", "b"], ..Setting::default() }, |_, _| {
        let once = "  digestReflectionPolicy: IfNotPresent\n".to_owned();
        let always = "  digestReflectionPolicy: Always\n  interval: 1s\n".to_owned();
        Extra { policies: BTreeMap::from([("a", once), ("b", always)]), ..Extra::default() }
    });
    // The same content again: the registry says the digest and nothing changes.
    let first = ["a", "b"].map(|name| stage.registry.push("games/app", &format!("{name}-1"), name));
    let written = |name: &str| {
        let text = git(&stage.app, &["show", "main:k8s/images.yaml"]);
        let line = text.lines().find(|line| line.trim().starts_with(&format!("{name}: ")));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
    };
    let image = stage.registry.image("games/app");
    let wanted = |name: &str, digest: &str| format!("{image}:{name}-1@{digest}");
    stage.world.eventually("both digests are written", |_| {
        written("a") == wanted("a", &first[0]) && written("b") == wanted("b", &first[1])
    });
    let other =
        ["a", "b"].map(|name| stage.registry.push("games/app", &format!("{name}-1"), "new"));
    assert_ne!(first[1], other[1]);
    stage.world.eventually("the one that is followed is another one", |_| {
        written("b") == wanted("b", &other[1])
    });
    assert_eq!(written("a"), wanted("a", &first[0]), "the other stays as it was");
    stage.world.eventually("it is deployed", |world| {
        let map = world.get("configmap", "images").unwrap_or_default();
        map["data"]["b"] == wanted("b", &other[1]).as_str()
    });
    let shown = stage.image("b");
    assert_eq!(shown["chosen"]["digest"], other[1].as_str(), "{shown}");
}

#[test]
fn the_journal_says_once_that_flux_would_choose_otherwise() {
    let stage = Stage::with(&Setting::default(), |_, registry| {
        registry.push("games/app", "d-20261122.9", "d");
        let dated = super::mk_policy("d", "asc").replace("[0-9]+", "[0-9.]+");
        Extra { objects: vec![dated], ..Extra::default() }
    });
    // Flux takes .9 for newer than .10, agrees on the next day's first tags, and no more then.
    for (number, otherwise) in
        [("20261122.10", true), ("20261123.1", false), ("20261123.9", false), ("20261123.10", true)]
    {
        let tag = format!("d-{number}");
        stage.push(&tag);
        stage.reconcile("d");
        stage.world.eventually(&format!("{tag} is chosen, with the notice or without"), |world| {
            let item = world.item("ImagePolicy/flux-system/d");
            let notices = item["warnings"].as_array().map_or(0, Vec::len);
            item["revision"] == tag.as_str() && (notices > 0) == otherwise
        });
    }
    let log = stage.world.log();
    assert_eq!(log.matches(" order would choose").count(), 1, "{log}");
}

#[test]
fn another_namespace_may_use_a_repository_only_where_its_access_from_says_so() {
    let stage = Stage::with(&Setting::default(), |world, _| {
        let far = &world.namespace;
        let policy = super::mk_policy("far", "asc")
            .replace("namespace: flux-system", &format!("namespace: {far}"))
            .replace("{name: app}", "{name: app, namespace: flux-system}")
            .replace("'^far-", "'^a-");
        Extra {
            repository: "  accessFrom: {namespaceSelectors: [{matchLabels: {team: games}}]}\n"
                .into(),
            objects: vec![policy],
            unready: true,
            ..Extra::default()
        }
    });
    let policy = format!("ImagePolicy/{}/far", stage.world.namespace);
    let item = || stage.world.item(&policy);
    stage.world.eventually("it is denied", |_| item()["reason"] == "AccessDenied");
    let told = item()["message"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains("does not admit namespace"), "{told}");
    let label = |label: &str| {
        let namespace = &stage.world.namespace;
        stage.world.cluster().kubectl_ok(&["label", "--overwrite", "namespace", namespace, label]);
    };
    label("team=games");
    stage.world.run(&["reconcile", "image", &policy]);
    stage.world.eventually("it is admitted", |_| item()["revision"] == "a-1");
    label("team=music");
    stage.world.run(&["reconcile", "image", &policy]);
    stage.world.eventually("it is denied again", |_| item()["reason"] == "AccessDenied");
    assert_eq!(item()["revision"], "a-1", "what was chosen stays in force");
    assert_eq!(stage.world.item("ImagePolicy/flux-system/a")["ready"], "True");
}

#[test]
fn a_mirror_of_registries_yaml_is_asked_in_the_place_of_the_registry() {
    let options = RegistryOptions { tls: true, password: true, ..Default::default() };
    let mirror = RegistryServer::start(options);
    for tag in ["a-1", "a-2"] {
        mirror.push("games/app", tag, tag);
    }
    let stage = Stage::with(&Setting { scan: "2s", ..Setting::default() }, |world, origin| {
        let file = world.path("registries.yaml");
        let text = format!(
            "mirrors:\n  \"{}\": {{endpoint: [\"https://{mirror}\"]}}\nconfigs:\n  \
             \"{mirror}\":\n    auth: {{username: {USER}, password: {PASSWORD}}}\n    \
             tls: {{ca_file: {}/ca.pem}}\n",
            origin.host(),
            mirror.dir().display(),
            mirror = mirror.host(),
        );
        fs::write(&file, text).expect("ours to write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        world.drop_in(&format!("registries: {}\n", file.display()));
        Extra::default()
    });
    stage.arrived("a", "2");
    let text = git(&stage.app, &["show", "main:k8s/images.yaml"]);
    assert!(text.contains(&stage.registry.image("games/app")), "the name stays: {text}");
    assert_eq!(stage.registry.count("tags/list"), 0, "the registry itself was not asked");
    // Without the mirror the registry is asked itself.
    mirror.down();
    stage.push("a-3");
    stage.arrived("a", "3");
    assert!(!stage.world.log().contains(PASSWORD));
}

#[test]
fn pull_secrets_of_a_service_account_open_a_registry_and_a_clouds_login_is_named_unsupported() {
    let closed = RegistryServer::start(RegistryOptions { password: true, ..Default::default() });
    closed.push("app", "1", "x");
    let repository = |name: &str, more: &str| {
        format!(
            "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nmetadata:\n  \
             name: {name}\n  namespace: flux-system\nspec:\n  image: {}\n  interval: 1h\n  \
             insecure: true\n{more}",
            closed.image("app")
        )
    };
    let stage = Stage::with(&Setting::default(), |world, _| {
        let login = serde_json::json!({"auths": {(closed.host()):
            {"username": USER, "password": PASSWORD}}});
        let name = format!("puller-{}", world.namespace);
        let cluster = world.cluster();
        cluster.apply(&mk_namespace("flux-system"));
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata:\n  \
             name: {name}\n  namespace: flux-system\nstringData:\n  .dockerconfigjson: '{login}'\n\
             ---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  \
             namespace: flux-system\nimagePullSecrets: [{{name: {name}}}]\n"
        ));
        let account = format!("  serviceAccountName: {name}\n");
        let objects = vec![
            repository("pulls", &account),
            repository("nobody", "  serviceAccountName: nobody\n"),
            repository("cloud", "  provider: aws\n"),
            super::mk_policy("cloudy", "asc").replace("{name: app}", "{name: cloud}"),
        ];
        Extra { objects, unready: true, ..Extra::default() }
    });
    let item = |name: &str| stage.world.item(&format!("ImageRepository/flux-system/{name}"));
    stage.world.eventually("the pull secret opens it", |_| item("pulls")["ready"] == "True");
    assert_eq!(item("pulls")["objects"], 1);
    stage.world.eventually("the missing account is named", |_| {
        let told = item("nobody")["message"].as_str().unwrap_or_default().to_owned();
        told.contains("ServiceAccount flux-system/nobody does not exist")
    });
    let cloud = item("cloud");
    assert_eq!((&cloud["ready"], &cloud["reason"]), (&"False".into(), &"Unsupported".into()));
    assert!(cloud["message"].as_str().is_some_and(|told| told.contains("provider")), "{cloud}");
    let unsupported = stage.world.status()["summary"]["unsupported"].to_string();
    assert!(unsupported.contains("provider"), "{unsupported}");
    assert_eq!(stage.world.item("ImagePolicy/flux-system/a")["ready"], "True");

    // A policy that waits for it says why, and a repository that no policy follows is shown.
    stage.world.eventually("the policy says what it waits for", |_| {
        let told = stage.image("cloudy")["failure"].to_string();
        told.contains("no tags of ImageRepository/flux-system/cloud") && told.contains("provider")
    });
    let all = stage.world.json(&["images"]);
    let lone = all.as_array().into_iter().flatten();
    let lone = lone.filter(|image| image["policy"].is_null());
    let lone: Vec<_> = lone.map(|image| (&image["repository"], &image["latest"])).collect();
    let name = |name: &str| Value::from(format!("flux-system/{name}"));
    let (nobody, pulls, latest) = (name("nobody"), name("pulls"), Value::from("1"));
    assert_eq!(lone, [(&nobody, &Value::Null), (&pulls, &latest)], "{all}");
    assert_eq!(stage.world.run(&["images"]).status.code(), Some(1));
    let shown = stage.world.ok(&["images", "pulls"]);
    assert!(shown.starts_with("flux-system/pulls\n") && shown.contains("tags "), "{shown}");
}

/// A registry that lists tags and pleads for patience when it is asked for a digest, or that pleads
/// at once.
fn pleading(at_once: bool) -> StandIn {
    StandIn::start(move |_, asked| {
        Some(match asked.method.as_str() {
            "HEAD" => Reply::empty(429).with("Retry-After", "3600"),
            _ if at_once => Reply::empty(429).with("Retry-After", "3600"),
            _ => {
                json(200, r#"{"name": "app", "tags": ["a-1", "b-1", "c-1", "d-1", "e-1", "f-1"]}"#)
            }
        })
    })
}

#[test]
fn a_registry_that_wants_to_be_left_alone_is_asked_for_no_more_tags_or_digests() {
    let (registry, busy) = (pleading(false), pleading(true));
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::new();
    let repository = |name: &str, registry: &StandIn, interval: &str| {
        format!(
            "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nmetadata:\n  \
             name: {name}\n  namespace: flux-system\nspec:\n  image: {}/{name}\n  \
             interval: {interval}\n  insecure: true\n",
            registry.host()
        )
    };
    let mut objects = vec![repository("app", &registry, "1h"), repository("busy", &busy, "1s")];
    let always = "  digestReflectionPolicy: Always\n  interval: 1s\n";
    objects.extend(names.map(|name| super::mk_policy(name, "asc") + always));
    let _config = world.entry(&[("clusters/my-cluster/all.yaml", objects.join("---\n"))]);
    world.start();
    let told = |name: &str| {
        let item = world.item(&format!("ImagePolicy/flux-system/{name}"));
        item["message"].as_str().unwrap_or_default().to_owned()
    };
    world.eventually("every policy says why it has to wait", |_| {
        names.iter().all(|name| told(name).contains("wants no request"))
    });
    world.eventually("so does the repository that was refused its tags", |_| {
        let item = world.item("ImageRepository/flux-system/busy");
        item["message"].as_str().is_some_and(|told| told.contains("wants no request"))
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    let scans = busy.asked().iter().filter(|asked| asked.path.ends_with("/tags/list")).count();
    assert_eq!(scans, 1, "once, whatever the interval: {:?}", busy.asked());
    let asked = registry.asked().iter().filter(|asked| asked.method == "HEAD").count();
    assert!((1..=4).contains(&asked), "{asked} requests for a digest: those under way at once");
}
