//! Whose password a Git server is sent: the host's own, or that of a Secret.

use crate::bed::{Auth, GitServer, Options, Repo};
use crate::world::{World, mk_config_map, mk_kustomization, mk_namespace};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "correct-horse-Xw63mTq8Rd";

/// A server that answers whoever has the password.
fn private() -> GitServer {
    let auth = Auth::Basic { user: "git".to_owned(), password: PASSWORD.to_owned() };
    GitServer::start(Options { auth, tls: false })
}

/// A source that names a Secret, and what is read of it: a ConfigMap of the same name.
fn source(world: &World, server: &GitServer, name: &str, secret: &str) -> String {
    let repo = Repo::create(server, &format!("apps/{name}"));
    repo.write("map.yaml", &mk_config_map(&world.namespace, name, "1"));
    repo.commit("first");
    repo.push("main");
    let url = server.url_of(&format!("apps/{name}"));
    let kustomization =
        mk_kustomization(name, "./", "").replace("name: flux-system}", &format!("name: {name}}}"));
    format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata:\n  name: {name}\n  \
         namespace: flux-system\nspec:\n  interval: 1h\n  url: {url}\n  ref: {{branch: main}}\n  \
         secretRef: {{name: {secret}}}\n---\n{kustomization}"
    )
}

#[test]
fn the_hosts_password_stands_in_for_a_missing_secret_on_the_roots_server_and_on_no_other() {
    let mut world = World::new();
    world.git = private();
    let elsewhere = private();
    let password = world.path("password");
    fs::write(&password, PASSWORD).expect("ours to write");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("ours to write");
    world.configure("cluster: {shared: true}\n");
    world.drop_in(&format!("root: {{credentials: {{passwordFile: {}}}}}\n", password.display()));
    world.cluster().apply(&mk_namespace(&world.namespace));
    let secret = format!("login-{}", world.namespace);
    world.entry(&[
        ("clusters/my-cluster/near.yaml", source(&world, &world.git, "near", &secret)),
        ("clusters/my-cluster/far.yaml", source(&world, &elsewhere, "far", &secret)),
    ]);
    world.start();
    world.eventually("the root's server takes the host's password", |world| {
        world.is_ready("near") && world.get("configmap", "near").is_some()
    });
    let far = |world: &World| world.item("GitRepository/flux-system/far");
    world.eventually("the other source says what it lacks", |world| {
        let message = far(world)["message"].as_str().unwrap_or_default().to_owned();
        message.contains(&secret) && message.contains("does not exist")
    });
    world.run(&["reconcile", "--with-source"]);
    assert_eq!(world.item("GitRepository/flux-system/near")["ready"], "True");
    assert_eq!(far(&world)["ready"], "False");
    let asked = elsewhere.requests();
    assert!(asked.is_empty(), "the other server may log what it is sent: {asked:?}");

    // Whoever may write that Secret has decided.
    world.cluster().apply(&mk_namespace("flux-system"));
    world.cluster().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {secret}\n  namespace: flux-system\n\
         stringData:\n  username: git\n  password: {PASSWORD}\n"
    ));
    world.run(&["reconcile", "--with-source"]);
    world.eventually("the Secret's password is sent", |world| world.is_ready("far"));
    assert_ne!(far(&world)["revision"], Value::Null);
}
