//! What `check` looks at on a host, part by part.

use crate::bed::tools;
use crate::sealed::seal;
use crate::world::{App, World, mk_config_map};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Who may open what is sealed to the key of the examples.
const OURS: &str = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";

/// The exit code of `check`, and what it prints.
fn check(world: &World) -> (Option<i32>, String) {
    let output = world.run(&["check"]);
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn on_a_host_where_all_is_well_every_part_has_a_line_that_says_so() {
    let mut world = World::new();
    let sealed = seal(&mk_config_map(&world.namespace, "sealed", "hidden"), OURS, "^data$");
    let spec = "  decryption: {provider: sops}\n";
    let repo = world.apps(&[App { name: "apps", spec, files: &[("sealed.yaml", sealed)] }]);
    let registries = world.path("registries.yaml");
    let mirrors = "mirrors:\n  docker.io:\n    endpoint: [\"https://mirror.test.invalid\"]\n";
    fs::write(&registries, mirrors).expect("ours to write");
    fs::set_permissions(&registries, fs::Permissions::from_mode(0o600)).expect("ours");
    world.drop_in(&format!("registries: {}\n", registries.display()));
    world.start();
    world.settled();
    let (code, told) = check(&world);
    let shown = |name: &str| world.path(name).display().to_string();
    let (head, url) = (repo.head(), world.git.url_of("infra/flux-config"));
    let engine = fs::canonicalize(tools::bin().join("kubectl")).expect("the bed built it");
    let expected = [
        format!("configuration: {}, {}", shown("config.yaml"), shown("config.d/test.yaml")),
        "clock: 2".to_owned(),
        format!("state directory: {} is writable", shown("state")),
        format!("runtime directory: {} is writable", shown("run")),
        format!("age key: {OURS}"),
        format!("image registries: {}", shown("registries.yaml")),
        format!("render engine: {} builds in its sandbox", engine.display()),
        format!("API server: {}", world.cluster().server()),
        format!("root repository: {url} is at main@sha1:{head}"),
        "root path: clusters/my-cluster".to_owned(),
        "sealed files: the keys held here open all 1 of the repository".to_owned(),
        format!("daemon: main@{}", &head[..7]),
    ];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "a line for each: {told}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(&format!("ok    {expected}")), "{expected}: {told}");
    }
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn an_api_server_and_a_git_server_that_are_away_are_both_named() {
    let world = World::new();
    let kubeconfig = fs::read_to_string(world.path("kubeconfig")).expect("the bed wrote it");
    let away = kubeconfig.replace(world.cluster().server(), "https://127.0.0.1:1");
    fs::write(world.path("kubeconfig"), away).expect("ours to write");
    world.git.down();
    let (code, told) = check(&world);
    let failed: Vec<&str> = told.lines().filter(|line| line.starts_with("fail  ")).collect();
    let [server, repository] = failed.as_slice() else { panic!("two lines: {told}") };
    assert!(server.starts_with("fail  API server: the API server cannot be reached: "), "{told}");
    assert!(told.contains("\n      -> is it running? see `systemctl status k3s`"), "{told}");
    let url = world.git.url_of("infra/flux-config");
    let named = format!("fail  root repository: cannot reach {url}: ");
    assert!(repository.starts_with(&named), "{told}");
    assert_eq!(code, Some(1), "{told}");
}
