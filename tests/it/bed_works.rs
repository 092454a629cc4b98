//! The test bed itself does what the other tests rely on.

use crate::bed::{Auth, Cluster, Command, Fault, GitServer, Options, Repo, SshServer, git, tools};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks until the answer is as wanted, for 30 s.
fn eventually<T: PartialEq + std::fmt::Debug>(wanted: T, mut ask: impl FnMut() -> T) {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let got = ask();
        if got == wanted {
            return;
        }
        assert!(Instant::now() < limit, "wanted {wanted:?}, still {got:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn pod(name: &str, tag: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "bed-pods"},
        "spec": {"containers": [{"name": "main", "image": format!("reg.test:5000/app:{tag}")}]}})
    .to_string()
}

/// Phase, readiness and the reason why the only container waits.
fn state(cluster: &Cluster, name: &str) -> (String, bool, String) {
    let pod = cluster.get("bed-pods", "pod", name).unwrap_or_default();
    let status = &pod["status"];
    let container = &status["containerStatuses"][0];
    (
        status["phase"].as_str().unwrap_or_default().to_owned(),
        container["ready"] == json!(true),
        container["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

#[test]
fn pods_run_or_fail_as_their_tags_say() {
    let cluster = Cluster::shared();
    cluster.kubectl_ok(&["create", "namespace", "bed-pods"]);
    eventually(true, || cluster.get("bed-pods", "serviceaccount", "default").is_some());
    for (name, tag, phase, ready, waiting) in [
        ("good", "dev-20261122.3", "Running", true, ""),
        ("broken", "broken", "Pending", false, "ImagePullBackOff"),
        ("crash", "crash", "Running", false, "CrashLoopBackOff"),
        ("unready", "dev-unready", "Running", false, ""),
        ("nosecret", "nosecret", "Pending", false, "CreateContainerConfigError"),
    ] {
        cluster.apply(&pod(name, tag));
        eventually((phase.to_owned(), ready, waiting.to_owned()), || state(cluster, name));
    }
}

#[test]
fn requests_are_counted_per_user_and_an_idle_cluster_writes_nothing() {
    let cluster = Cluster::start_own();
    let (user, kubeconfig) = cluster.user();
    let mark = cluster.mark();
    let path = kubeconfig.to_str().unwrap();
    cluster.kubectl_ok(&["--kubeconfig", path, "get", "--raw", "/api/v1/namespaces/default"]);
    cluster.kubectl_ok(&["get", "--raw", "/api/v1/nodes"]);
    let seen: Vec<Value> =
        cluster.audit_of(&user, mark).iter().map(|event| event["requestURI"].clone()).collect();
    assert_eq!(seen, [json!("/api/v1/namespaces/default")]);

    let mut before = cluster.writes();
    eventually(true, || {
        std::thread::sleep(Duration::from_secs(3));
        let still = cluster.writes() == before;
        before = cluster.writes();
        still
    });
}

#[test]
fn the_api_can_be_taken_away_and_brought_back() {
    let cluster = Cluster::start_own();
    cluster.kubectl_ok(&["create", "namespace", "kept"]);
    cluster.stop("kube-apiserver");
    let refused = cluster.kubectl(&["get", "namespaces", "--request-timeout=2s"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refused"), "{refused:?}");
    cluster.start("kube-apiserver");
    assert!(cluster.kubectl_ok(&["get", "namespaces"]).contains("kept"));

    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert!(!dir.exists(), "the directory goes with the cluster");
}

#[test]
fn kubectl_stands_where_k3s_has_it_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let kubectl = tools::k3s_data(dir.path());
    assert_eq!(kubectl, dir.path().join("data/current/bin/kubectl"));
    let output = std::process::Command::new(kubectl).args(["version", "--client"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("v1.37.2+gitopsd-testbed"), "{text}");
    let k3s = std::process::Command::new(tools::bin().join("k3s")).arg("--version").output();
    assert!(String::from_utf8(k3s.unwrap().stdout).unwrap().contains("not k3s"));
}

/// The commit that a clone by the git program ends at, or its message.
fn clone(url: &str, config: &[&str]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = git();
    for pair in config {
        command.args(["-c", pair]);
    }
    let output = command.args(["clone", "--quiet", url]).arg(dir.path()).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let head = git().arg("-C").arg(dir.path()).args(["rev-parse", "HEAD"]).output().unwrap();
    Ok(String::from_utf8(head.stdout).unwrap().trim().to_owned())
}

/// A server with the example `flux-config` on it, and the commit.
fn served(options: Options) -> (GitServer, Repo, String) {
    let server = GitServer::start(options);
    let repo = Repo::create(&server, "infra/flux-config");
    repo.load_example("flux-config", &server.url());
    let commit = repo.commit("first");
    repo.push("main");
    (server, repo, commit)
}

#[test]
fn git_over_http_is_counted_and_can_fail() {
    let (server, repo, commit) = served(Options::default());
    let url = server.url_of("infra/flux-config");
    assert_eq!(clone(&url, &[]), Ok(commit));
    let counts = [Command::Advertise, Command::ListRefs, Command::Fetch, Command::Push];
    assert_eq!(counts.map(|command| server.count(command)), [1, 1, 1, 0]);
    assert!(repo.read("clusters/my-cluster/flux-system/gotk-sync.yaml").contains(&url));

    server.fault(Fault::Status(503));
    assert!(clone(&url, &[]).unwrap_err().contains("503"));
    server.fault(Fault::HangUp);
    assert!(clone(&url, &[]).is_err());
    server.fault(Fault::None);
    server.down();
    assert!(clone(&url, &[]).is_err());
    server.up();
    repo.write("new", "text");
    let commit = repo.commit("second");
    repo.push("main");
    assert_eq!(clone(&url, &[]), Ok(commit));
}

#[test]
fn long_pushes_over_http_arrive_chunked_and_whole() {
    let (server, repo, _) = served(Options::default());
    // Longer than http.postBuffer (1 MiB) and not compressible, so that git sends it in chunks.
    let mut seed = 1_u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from((seed >> 33) % 90).unwrap())
    });
    repo.write("big", &noise.take(4 << 20).collect::<String>());
    let commit = repo.commit("big");
    let url = server.url_of("infra/flux-config");
    repo.git(&["push", "--quiet", &url, "HEAD:refs/heads/main"]);
    assert_eq!(clone(&url, &[]), Ok(commit));
    assert_eq!(server.count(Command::Push), 2, "a probe and the push itself");
}

#[test]
fn git_over_https_asks_for_the_private_ca_and_a_password() {
    let auth = Auth::Basic { user: "flux".into(), password: "s3cret".into() };
    let (server, _repo, commit) = served(Options { auth, tls: true });
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.crt");
    std::fs::write(&ca, server.ca()).unwrap();
    let trust = format!("http.sslCAInfo={}", ca.display());
    let with = |user: &str| {
        server.url_of("infra/flux-config").replace("https://", &format!("https://{user}@"))
    };

    assert!(clone(&with("flux:s3cret"), &[]).unwrap_err().contains("certificate"));
    assert!(clone(&with("flux:wrong"), &[&trust]).unwrap_err().contains("Authentication failed"));
    assert_eq!(clone(&with("flux:s3cret"), &[&trust]), Ok(commit));
}

#[test]
fn a_bearer_token_opens_what_nothing_else_does() {
    let (server, _repo, commit) =
        served(Options { auth: Auth::Bearer("t0ken".into()), tls: false });
    let url = server.url_of("infra/flux-config");
    assert!(clone(&url, &[]).is_err());
    assert_eq!(clone(&url, &["http.extraHeader=Authorization: Bearer t0ken"]), Ok(commit));
}

#[test]
fn git_over_ssh_takes_one_key_and_runs_nothing_but_git() {
    let (server, _repo, commit) = served(Options::default());
    let ssh = SshServer::start(server.root());
    let program = |hosts: &Path| {
        format!(
            "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes \
             -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
            ssh.identity().display(),
            hosts.display()
        )
    };
    let known = program(&ssh.known_hosts());
    let url = ssh.url_of("infra/flux-config");
    let config = |ssh: &str| format!("core.sshCommand={ssh}");
    assert_eq!(clone(&url, &[&config(&known)]), Ok(commit), "{}", ssh.log());
    let unknown = clone(&url, &[&config(&program(Path::new("/dev/null")))]);
    assert!(unknown.unwrap_err().contains("Host key verification failed"));

    let other = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{known} {} id", ssh.url()))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("only git is served here"));
}
