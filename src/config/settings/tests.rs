//! Whole configurations in, whole settings or whole lists of problems out.

use super::*;
use crate::config::fragment::parse;
use crate::config::root::entry_path;

fn read(text: &str) -> Result<Config, Vec<String>> {
    read_with(text, &Handed::default())
}

fn read_with(text: &str, handed: &Handed) -> Result<Config, Vec<String>> {
    let (node, mut problems) = parse("c.yaml", text);
    let (config, more) = settings(&node.expect("the sample is YAML"), "c.yaml", handed);
    problems.extend(more);
    if problems.is_empty() {
        return Ok(config.expect("no problem means a configuration"));
    }
    Err(problems.iter().map(ToString::to_string).collect())
}

fn root(more: &str) -> String {
    format!("root:\n  url: https://git.example/a.git\n  path: clusters/x\n{more}")
}

#[test]
fn two_keys_are_enough_and_the_rest_has_defaults() {
    let expected = Config {
        root: RootSettings {
            url: "https://git.example/a.git".into(),
            reference: RootRef::Branch("master".into()),
            path: "clusters/x".into(),
            interval: Duration::from_secs(60),
            credentials: RootCredentials::default(),
        },
        cluster: ClusterSettings {
            kubeconfig: "/etc/rancher/k3s/k3s.yaml".into(),
            shared: false,
            verify: Duration::from_secs(86_400),
        },
        decryption: DecryptionSettings { age_key_file: None, mac: MacPolicy::Warn, recovery: None },
        registries: None,
        directories: Directories {
            state: "/var/lib/gitopsd".into(),
            runtime: "/run/gitopsd".into(),
        },
        render: RenderSettings {
            engine: None,
            k3s_data_directory: "/var/lib/rancher/k3s".into(),
            timeout: Duration::from_secs(60),
            memory: 512 << 20,
        },
        work: WorkSettings { workers: 4, api_requests: 16 },
        history: HistorySettings { days: 90, runs: 10_000 },
        edge: None,
        edge_token_file: None,
        files: Vec::new(),
    };
    assert_eq!(read(&root("")), Ok(expected));
}

#[test]
fn every_key_is_read() {
    let text = "root:
  url: ssh://git@git.example:2222/infra/flux-config.git
  ref: {commit: 0123456789ABCDEF0123456789abcdef01234567, branch: main}
  path: .
  interval: 1h30m
  credentials: {identityFile: /k/id, knownHostsFile: /k/known_hosts}
kubeconfig: /k/kubeconfig
registries: /k/registries.yaml
cluster: {shared: true, verify: 2h}
decryption: {ageKeyFile: /k/age, mac: enforce, recovery: age1paper}
stateDirectory: /s
runtimeDirectory: /r
render: {engine: /usr/bin/kubectl, k3sDataDirectory: /d, timeout: 90s, memory: 1Gi}
limits: {workers: 1, apiRequests: 2, historyDays: 3, historyRuns: 40}
";
    let expected = Config {
        root: RootSettings {
            url: "ssh://git@git.example:2222/infra/flux-config.git".into(),
            reference: RootRef::Commit {
                sha: "0123456789abcdef0123456789abcdef01234567".into(),
                branch: Some("main".into()),
            },
            path: ".".into(),
            interval: Duration::from_secs(5400),
            credentials: RootCredentials {
                identity_file: Some("/k/id".into()),
                known_hosts_file: Some("/k/known_hosts".into()),
                ..Default::default()
            },
        },
        cluster: ClusterSettings {
            kubeconfig: "/k/kubeconfig".into(),
            shared: true,
            verify: Duration::from_secs(7200),
        },
        decryption: DecryptionSettings {
            age_key_file: Some("/k/age".into()),
            mac: MacPolicy::Enforce,
            recovery: Some("age1paper".into()),
        },
        registries: Some("/k/registries.yaml".into()),
        directories: Directories { state: "/s".into(), runtime: "/r".into() },
        render: RenderSettings {
            engine: Some("/usr/bin/kubectl".into()),
            k3s_data_directory: "/d".into(),
            timeout: Duration::from_secs(90),
            memory: 1 << 30,
        },
        work: WorkSettings { workers: 1, api_requests: 2 },
        history: HistorySettings { days: 3, runs: 40 },
        edge: None,
        edge_token_file: None,
        files: Vec::new(),
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn a_bad_value_says_what_is_taken_and_all_are_named_at_once() {
    let text = root("  interval: soon\n  ref: {branch: a, tag: b}\n")
        + "kubeconfig: k3s.yaml\ndecryption: {mac: maybe}\nrender: {memory: 1Ti, timeout: 2h}\n\
           limits:\n  workers: 0\n";
    assert_eq!(
        read(&text).expect_err("all of it is wrong"),
        [
            "c.yaml:5: root.ref.branch: said beside tag, keep one of the two",
            "c.yaml:4: root.interval: \"soon\" is not taken, write 1s to 24h, such as 90s, 10m or 1h30m",
            "c.yaml:7: decryption.mac: \"maybe\" is not taken, write warn or enforce",
            "c.yaml:8: render.timeout: \"2h\" is not taken, write 1s to 1h, such as 90s, 10m or 1h30m",
            "c.yaml:8: render.memory: \"1Ti\" is not taken, write 64Mi to 64Gi, such as 512Mi",
            "c.yaml:10: limits.workers: \"0\" is not taken, write a number from 1 to 64",
            "c.yaml:6: kubeconfig: \"k3s.yaml\" is not an absolute path, write it from the root: /…",
        ]
    );
}

#[test]
fn a_url_that_cannot_work_is_explained_without_repeating_a_password() {
    for (url, line) in [
        (
            "git@git.example:a.git",
            "the short form HOST:PATH is not taken, write ssh://git@HOST/PATH, as Flux wants it",
        ),
        ("file:///srv/a.git", "scheme \"file\" is not taken, write https://… or ssh://…"),
        (
            "https://me:hunter2@h/a",
            "credentials inside the URL, move it to root.credentials: username and passwordFile",
        ),
        (
            "https://token@h/a",
            "credentials inside the URL, move it to root.credentials: username and passwordFile",
        ),
        ("https:///a", "no host, or a blank in it, write https://HOST/PATH"),
    ] {
        let text = format!("root:\n  path: .\n  url: {url}\n");
        assert_eq!(read(&text), Err(vec![format!("c.yaml:3: root.url: {line}")]), "{url}");
    }
}

#[test]
fn an_entry_outside_the_repository_is_refused() {
    for (said, path) in [
        ("./a//b/", Some("a/b")),
        ("a/b", Some("a/b")),
        ("", Some(".")),
        ("./", Some(".")),
        ("..", None),
        ("../a", None),
        ("/a/", None),
    ] {
        assert_eq!(entry_path(said).ok().as_deref(), path, "{said}");
    }
    let text = "root:\n  url: https://h/r\n  path: a/../b\n";
    let told = "c.yaml:3: root.path: \"a/../b\" is not a directory below the repository's top, \
                write it without a leading / and without ..";
    assert_eq!(read(text), Err(vec![told.to_owned()]));
}

#[test]
fn credentials_must_fit_the_scheme_and_each_other() {
    let text = root("  credentials: {identityFile: /k, username: me, bearerTokenFile: /t}\n");
    assert_eq!(
        read(&text),
        Err(vec![
            "c.yaml:4: root.credentials.identityFile: has no use with http and https, remove it or \
             correct root.url"
                .to_owned(),
            "c.yaml:4: root.credentials.username: said without passwordFile, add passwordFile"
                .to_owned(),
        ])
    );
}

#[test]
fn credentials_of_the_unit_stand_in_where_they_fit_and_the_file_wins() {
    let given = |id: &str| (id.to_owned(), PathBuf::from(format!("/c/{id}")));
    let handed = Handed {
        credentials: CREDENTIALS.iter().map(|(id, _)| given(id)).collect(),
        ..Default::default()
    };
    let config = read_with(&root("kubeconfig: /mine\n"), &handed).expect("valid");
    assert_eq!(config.cluster.kubeconfig, Path::new("/mine"));
    assert_eq!(config.decryption.age_key_file, Some("/c/age-key".into()));
    assert_eq!(config.registries, Some("/c/registries".into()));
    assert_eq!(
        config.root.credentials,
        RootCredentials {
            username: Some("git".into()),
            password_file: Some("/c/git-password".into()),
            ca_file: Some("/c/git-ca".into()),
            ..Default::default()
        }
    );
    let token = root("  credentials: {bearerTokenFile: /t}\n");
    let config = read_with(&token, &handed).expect("valid");
    assert_eq!(config.root.credentials.bearer_token_file, Some("/t".into()));
    assert_eq!(config.root.credentials.password_file, None);
    assert_eq!(config.root.credentials.username, None);
}

#[test]
fn a_named_file_that_the_unit_takes_a_credential_from_is_read_from_its_copy() {
    let copy = |id: &str| (PathBuf::from(format!("/e/{id}")), PathBuf::from(format!("/c/{id}")));
    let ids = ["age-key", "git-token", "git-password", "cloudflare-token"];
    let credentials = ids.iter().map(|id| ((*id).to_owned(), copy(id).1)).collect();
    let copies = ids.iter().map(|id| copy(id)).collect();
    let handed = Handed { credentials, copies, ..Default::default() };
    let text = root("  credentials: {bearerTokenFile: /e/git-token}\n")
        + "decryption: {ageKeyFile: /mine}\n";
    let config = read_with(&text, &handed).expect("valid");
    let credentials = config.root.credentials;
    assert_eq!(credentials.bearer_token_file, Some("/c/git-token".into()));
    assert_eq!(credentials.password_file, None, "the token is what was chosen");
    assert_eq!(config.decryption.age_key_file, Some("/mine".into()));
    assert_eq!(config.edge_token_file, Some("/c/cloudflare-token".into()));
}

#[test]
fn the_example_is_valid_as_shipped_and_with_every_line_in_force() {
    let shipped = include_str!("../../../packaging/etc/gitopsd/config.yaml");
    assert_eq!(
        read(shipped),
        Err(vec![
            "c.yaml: root: not configured: name the repository as root.url, root.ref and root.path"
                .to_owned()
        ])
    );
    let in_force: String = shipped
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' ') || line.starts_with("  "))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = read(&in_force).unwrap_or_else(|problems| panic!("{problems:#?}\n{in_force}"));
    let quiet = read(&root("")).expect("valid");
    // What the example shows besides the root are the defaults, so that it documents the truth.
    assert_eq!(
        (config.render, config.work, config.history),
        (quiet.render, quiet.work, quiet.history)
    );
    assert_eq!((config.cluster, config.directories), (quiet.cluster, quiet.directories));
}
