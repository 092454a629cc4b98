//! The whole way with the example repositories, on a control plane of their own.

use super::git;
use crate::bed::{RegistryServer, Repo, SECRETS, pipeline_tag};
use crate::world::{PATIENCE, World};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn the_pipeline_names_its_tags_by_branch_date_and_number() {
    assert_eq!(pipeline_tag("develop", 7), "dev-20261122.7");
    assert_eq!(pipeline_tag("main", 12), "prod-20261122.12");
}

/// Dev and prod: tags that CI pushes are chosen, committed to their branches, deployed and healthy;
/// the tenth of a day is newer than the ninth; an image that fails is named with the last one that
/// did not; and no secret is where it must not be.
#[test]
fn a_pushed_tag_is_committed_deployed_and_healthy_on_dev_and_on_prod() {
    let mut world = World::alone();
    let registry = RegistryServer::plain();
    let blaster = "games/blaster";
    for tag in ["dev-20261122.3", "prod-20261118.1"] {
        registry.push(blaster, tag, tag);
    }
    let (_config, app) = world.examples_with_images("15s", &registry.host());
    world.start();
    world.settled();
    let image = |name: &str| {
        let object = world.cluster().get("blaster", "deployment", name).unwrap_or_default();
        let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
        image.as_str().unwrap_or_default().to_owned()
    };
    assert!(image("blaster-dev").ends_with(":dev-20261122.3"));

    for number in [9, 10] {
        let tag = pipeline_tag("develop", number);
        registry.push(blaster, &tag, &tag);
        deliver(&world, &app, &tag);
        assert!(image("blaster-dev").ends_with(&tag), "{tag}: {}", image("blaster-dev"));
        let head = git(&app, &["log", "-1", "--format=%B", "develop"]);
        assert!(head.contains("[skip ci]") && head.contains(&tag), "{head}");
    }
    let history = world.ok(&["history", "blaster", "-n", "1"]);
    let told = "dev-20261122.9 → dev-20261122.10 by ImagePolicy blaster-dev";
    assert!(history.contains(told), "{history}");
    let notice = world.item("ImagePolicy/flux-system/blaster-dev")["warnings"].to_string();
    assert!(notice.contains("Flux"), "that Flux would choose otherwise is told: {notice}");
    assert_eq!(world.log().matches(" order would choose").count(), 1, "told once: {}", world.log());

    let prod = pipeline_tag("main", 12);
    registry.push(blaster, &prod, &prod);
    assert!(world.run(&["reconcile", "image", "blaster-prod"]).status.success(), "{}", world.log());
    assert!(image("blaster").ends_with(":prod-20261122.12"), "{}", image("blaster"));
    assert!(git(&app, &["show", "main:k8s/prod/kustomization.yaml"]).contains("prod-20261122.12"));
    let develop = git(&app, &["show", "develop:k8s/prod/kustomization.yaml"]);
    assert!(develop.contains("prod-20261118.1"), "prod's tag is no business of develop");

    // The kubelet of the tests cannot pull a tag that ends in `broken`.
    broken(&world, &registry);

    assert_eq!(world.stop(), Some(0), "{}", world.log());
    let secrets = SECRETS.lines().filter_map(|line| line.split_once('='));
    let log = world.log();
    for (_, secret) in secrets {
        assert!(!log.contains(secret.trim()), "the log holds a secret");
    }
}

/// Has a pushed tag delivered at once and prints how long that took: the interval is taken out.
fn deliver(world: &World, app: &Repo, tag: &str) {
    let head = || git(app, &["rev-parse", "develop"]);
    let (before, began) = (head(), Instant::now());
    let mut child = world
        .command(&["reconcile", "image", "blaster-dev"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program is built");
    while head() == before && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let committed = began.elapsed();
    assert!(child.wait().expect("our child").success(), "{}", world.log());
    let healthy = began.elapsed();
    println!("{tag}: pushed as a commit after {committed:?}, its pods healthy after {healthy:?}");
    assert!(healthy < PATIENCE, "{healthy:?}");
}

/// A tag whose rollout fails is named with its policy, the cause and the last healthy tag.
fn broken(world: &World, registry: &RegistryServer) {
    let config = world.path("config-again");
    let bare = world.git.root().join("infra/flux-config.git");
    let run = |arguments: &[&str]| {
        let output = crate::bed::git().args(arguments).output().expect("git can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (work, from) = (config.to_str().expect("plain"), bare.to_str().expect("plain"));
    run(&["clone", "--quiet", from, work]);
    let path = config.join("clusters/my-cluster/blaster/20-blaster-image.yaml");
    let text = std::fs::read_to_string(&path).expect("a file");
    let both = text.replace("\\.\\d+)$", "\\.\\d+)(-broken)?$");
    assert_ne!(both, text, "the pattern is another one");
    std::fs::write(&path, both).expect("ours to write");
    run(&["-C", work, "commit", "--quiet", "--all", "--message", "broken tags count too"]);
    run(&["-C", work, "push", "--quiet"]);
    registry.push("games/blaster", "dev-20261122.11-broken", "broken");
    assert!(world.reconcile(), "{}", world.log());
    let output = world.run(&["reconcile", "image", "blaster-dev"]);
    assert!(!output.status.success(), "the rollout fails");
    let item = world.item("Kustomization/flux-system/blaster");
    let failure = item["failure"].to_string();
    for part in ["dev-20261122.11-broken", "ImagePolicy flux-system/blaster-dev", "dev-20261122.10"]
    {
        assert!(failure.contains(part), "{part}: {failure}");
    }
    let shown = world.run(&["images"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text.contains("not healthy, dev-20261122.10 was"), "{text}");
}
