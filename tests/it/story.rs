//! The main job as its user lives it: the example repositories on a control plane of their own.

use crate::bed::SECRETS;
use crate::world::{World, mk_config_map};
use std::fs;
use std::path::Path;

/// From an empty cluster to a healthy one, a push deployed, a deletion pruned, a bad commit
/// explained; and no plaintext of the sealed files anywhere but in the cluster.
#[test]
fn a_flux_config_repository_becomes_a_healthy_cluster_and_follows_git() {
    let mut world = World::alone();
    let (config, app) = world.examples("15s");
    world.start();
    world.settled();
    let cluster = world.cluster();
    let image = |name: &str| {
        let object = cluster.get("blaster", "deployment", name).expect("it was applied");
        object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    assert!(image("blaster-dev").ends_with(":dev-20261122.3"));
    assert!(image("blaster").contains(":prod-"));
    assert!(cluster.get("", "clusterissuer", "letsencrypt").is_some(), "an object of our own CRD");
    assert!(cluster.get("flux-system", "deployment", "source-controller").is_none());
    assert!(cluster.get("", "crd", "kustomizations.kustomize.toolkit.fluxcd.io").is_none());

    // A push is deployed.
    app.replace("k8s/dev/deployment.yaml", "dev-20261122.3", "dev-20261122.4");
    app.commit("new image");
    app.push("develop");
    assert!(world.reconcile(), "{}", world.log());
    assert!(image("blaster-dev").ends_with(":dev-20261122.4"));
    assert!(world.ok(&["history", "blaster"]).contains("new image"));

    // A deletion is pruned.
    app.write("k8s/dev/extra.yaml", &mk_config_map("blaster", "extra", "1"));
    app.replace("k8s/dev/kustomization.yaml", "resources:\n", "resources:\n- extra.yaml\n");
    app.commit("an extra");
    app.push("develop");
    assert!(world.reconcile(), "{}", world.log());
    assert!(cluster.get("blaster", "configmap", "extra-dev").is_some());
    app.replace("k8s/dev/kustomization.yaml", "- extra.yaml\n", "");
    app.remove("k8s/dev/extra.yaml");
    app.commit("no extra");
    app.push("develop");
    assert!(world.reconcile(), "{}", world.log());
    assert!(cluster.get("blaster", "configmap", "extra-dev").is_none());
    assert!(cluster.get("", "namespace", "blaster").is_some(), "prod declares it too");

    // A bad commit is explained, and what runs goes on.
    app.replace("k8s/dev/deployment.yaml", "dev-20261122.4", "dev-20261122.5-broken");
    let bad = app.commit("a tag that does not exist");
    app.push("develop");
    world.run(&["reconcile", "blaster", "--with-source", "--no-wait"]);
    world.eventually("the cause is told", |world| {
        let item = world.item("Kustomization/flux-system/blaster");
        item["failure"]["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("dev-20261122.5-broken") && cause.contains("pull"))
            && item["failure"]["revision"].as_str().is_some_and(|r| r.ends_with(&bad))
    });
    let status = world.run(&["status"]);
    assert_eq!(status.status.code(), Some(1), "not everything is ready");

    assert_eq!(world.stop(), Some(0), "{}", world.log());
    leaks(&world);
    drop(config);
}

/// Looks for the opened values in everything the daemon wrote.
fn leaks(world: &World) {
    let secrets: Vec<&str> = SECRETS
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(_, value)| value.trim())
        .filter(|value| value.len() >= 6)
        .collect();
    assert!(!secrets.is_empty(), "there is something to look for");
    let mut files = vec![world.path("log")];
    collect(&world.path("state"), &mut files);
    collect(&world.path("run"), &mut files);
    assert!(files.iter().any(|file| file.ends_with("history.db")));
    for file in files {
        let bytes = fs::read(&file).unwrap_or_default();
        for secret in &secrets {
            for form in forms(secret) {
                let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
                assert!(!found, "{} holds a secret", file.display());
            }
        }
    }
}

/// A value as it is, and in base64.
fn forms(secret: &str) -> [String; 2] {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    [secret.to_owned(), encoded]
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}
