//! Bases outside the source: a repository over HTTP, a file behind HTTP, and both of them away.

use super::*;
use crate::bed::{Fault, GitServer, Repo};
use crate::world::{App, World};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

/// A repository with a directory that names its neighbour.
fn upstream(server: &GitServer) -> Repo {
    let repo = Repo::create(server, "them/deploy");
    repo.write("overlay/kustomization.yaml", "resources: [../base]\nnamePrefix: up-\n");
    repo.write("base/kustomization.yaml", "resources: [web.yaml]\n");
    repo.write("base/web.yaml", WEB);
    repo.write(".sourceignore", "/*\n");
    repo.commit("one");
    repo.push("main");
    repo
}

fn naming(server: &GitServer, end: &str) -> String {
    format!("resources:\n- {}//overlay{end}\nnamespace: prod\n", server.url_of("them/deploy"))
}

/// Files behind HTTP: a path and what it answers; counts what it is asked.
fn files(answers: Vec<(&'static str, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let read = stream.read(&mut request).unwrap_or_default();
            let line = String::from_utf8_lossy(&request[..read]).into_owned();
            count.fetch_add(1, Ordering::Relaxed);
            let found = answers.iter().find(|(path, _)| line.starts_with(&format!("GET {path} ")));
            let (status, body) = found.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
            let length = body.len();
            // The other side may have gone.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_repository_is_built_and_followed() {
    let server = GitServer::http();
    let repo = upstream(&server);
    let bench = Bench::new();
    bench.write(&[("apps/kustomization.yaml", &naming(&server, "?ref=main"))]);
    let first = bench.render(json!({})).await.unwrap();
    let commit = repo.head();
    let place = format!("{}@{}/base/web.yaml:1", server.url_of("them/deploy"), &commit[..7]);
    assert_eq!(listed(&first), [format!("Service/prod/up-web {place}")]);

    // Nothing has moved: no child. It moves: the next question finds it.
    let mut request = bench.request(json!({}));
    request.copy_age = Duration::MAX;
    repo.write("base/web.yaml", &WEB.replace("web", "shop"));
    repo.commit("two");
    repo.push("main");
    assert_eq!(bench.renderer.digest(&request).await.unwrap().0, first.digest);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let second = bench.render(json!({})).await.unwrap();
    assert!(listed(&second)[0].starts_with("Service/prod/up-shop "), "{:?}", listed(&second));

    // Without an uplink the copy stands and says so; after a restart it does so unasked.
    server.fault(Fault::Status(503));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let third = bench.render(json!({})).await.unwrap();
    assert_eq!((third.digest, third.cached), (second.digest.clone(), true));
    let told = &third.warnings[0].to_string();
    assert!(told.starts_with("apps/kustomization.yaml:2: http://"), "{told}");
    assert!(told.contains("the last copy stands; it cannot be fetched"), "{told}");
    let mut settings = Settings::new(bench.dir.path().join("again"), [7; 32]);
    settings.remotes = Some(bench.dir.path().join("remotes"));
    settings.engine = Some(tool("kubectl"));
    let fresh = Renderer::new(settings).unwrap();
    server.forget();
    assert_eq!(fresh.digest(&request).await.unwrap().0, second.digest);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_commits_and_the_default_branch_are_told_apart() {
    let server = GitServer::http();
    let repo = upstream(&server);
    let first = repo.head();
    repo.tag("v1");
    repo.write("base/web.yaml", &WEB.replace("web", "shop"));
    repo.commit("two");
    repo.push("main");
    let bench = Bench::new();
    for (end, name) in
        [("?ref=v1", "up-web"), ("", "up-shop"), (&format!("?ref={first}"), "up-web")]
    {
        bench.write(&[("apps/kustomization.yaml", &naming(&server, end))]);
        let rendered = bench.render(json!({})).await.unwrap();
        assert_eq!(rendered.manifests[0].id.to_string(), format!("Service/prod/{name}"), "{end}");
    }
    // A commit cannot move: it is not asked after again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.forget();
    bench.render(json!({})).await.unwrap();
    assert_eq!(server.requests().len(), 0);

    bench.write(&[("apps/kustomization.yaml", &naming(&server, "?ref=gone"))]);
    let error = bench.render(json!({})).await.unwrap_err();
    let told = error.to_string();
    assert!(told.starts_with("apps/kustomization.yaml:2: http"), "{told}");
    assert!(told.ends_with("has neither a tag nor a branch gone"), "{told}");
    assert!(error.retry());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_behind_http_is_built_patched_and_named() {
    let (url, asked) = files(vec![("/install.yaml", CONFIG_MAP.to_owned())]);
    let bench = Bench::new();
    let patch = r#"patches: [{patch: '[{"op": "add", "path": "/data/more", "value": "x"}]',
  target: {kind: ConfigMap}}]"#;
    let file = format!("resources:\n- {url}/install.yaml\n{patch}\n");
    bench.write(&[("apps/kustomization.yaml", &file)]);
    let rendered = bench.render(json!({})).await.unwrap();
    assert_eq!(listed(&rendered), [format!("ConfigMap/c {url}/install.yaml:1")]);
    assert_eq!(body(&rendered, "ConfigMap/c")["data"], json!({"k": "v", "more": "x"}));
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    // All that are wrong are named, each with its line, and nothing is built.
    let file = format!("resources:\n- {url}/gone.yaml\n- git@host:o/r\n");
    bench.write(&[("apps/kustomization.yaml", &file)]);
    let told = bench.render(json!({})).await.unwrap_err().to_string();
    assert!(told.contains("apps/kustomization.yaml:2: http") && told.contains("404"), "{told}");
    assert!(told.contains("apps/kustomization.yaml:3: git@host:o/r: would need"), "{told}");
    assert_eq!(bench.renderer.children(), 1);
}

/// A server that answers each request after a while, with a file that is named after its path;
/// tells how many it was asked for, and how many at once.
fn slow(delay: Duration) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak, open) = (asked.clone(), most.clone(), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (count, peak, open) = (count.clone(), peak.clone(), open.clone());
            std::thread::spawn(move || {
                let mut request = [0; 2048];
                let read = stream.read(&mut request).unwrap_or_default();
                let line = String::from_utf8_lossy(&request[..read]).into_owned();
                let name = line.split(['/', '.']).nth(1).unwrap_or("x").to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                peak.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(delay);
                open.fetch_sub(1, Ordering::SeqCst);
                let body = CONFIG_MAP.replace("name: c", &format!("name: {name}"));
                let length = body.len();
                // The other side may have gone.
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            });
        }
    });
    (url, asked, most)
}

fn listing(url: &str, names: &[&str]) -> String {
    let entries = names.iter().map(|name| format!("- {url}/{name}.yaml\n"));
    format!("resources:\n{}", entries.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_are_fetched_four_at_once_and_one_question_serves_all_who_ask() {
    let (url, asked, most) = slow(Duration::from_millis(1500));
    let bench = Bench::new();
    let names = ["a", "b", "d", "e", "f", "g", "h", "i"];
    bench.write(&[
        ("apps/kustomization.yaml", &listing(&url, &names)),
        ("other/kustomization.yaml", &listing(&url, &["a", "b"])),
    ]);
    let since = std::time::Instant::now();
    let requests = (bench.request(json!({})), bench.request(json!({"path": "other"})));
    let (all, two) =
        tokio::join!(bench.renderer.render(&requests.0), bench.renderer.render(&requests.1),);
    let took = since.elapsed();
    assert_eq!((all.unwrap().manifests.len(), two.unwrap().manifests.len()), (8, 2));
    assert_eq!(asked.load(Ordering::SeqCst), 8, "each once");
    assert_eq!(most.load(Ordering::SeqCst), 4);
    assert!(took < Duration::from_secs(9), "one after the other takes 12 s: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_render_waits_for_its_bases_no_longer_than_its_limit_and_no_stop_waits_at_all() {
    let (url, asked, _) = slow(Duration::from_secs(6));
    let bench = Bench::new();
    let mut settings = Settings::new(bench.dir.path().join("short"), [7; 32]);
    settings.remotes = Some(bench.dir.path().join("copies"));
    settings.engine = Some(tool("kubectl"));
    settings.remotes_within = Duration::from_secs(1);
    let renderer = Renderer::new(settings).unwrap();
    bench.write(&[("apps/kustomization.yaml", &listing(&url, &["a", "b", "d", "e", "f", "g"]))]);
    let request = bench.request(json!({}));
    let since = std::time::Instant::now();
    let error = renderer.render(&request).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(error.retry());
    let told = error.to_string();
    let late = "did not answer in the time that a render waits for its bases";
    let unasked = "was not asked: others took all the time that a render waits for its bases";
    assert_eq!((told.matches(late).count(), told.matches(unasked).count()), (4, 2), "{told}");
    let last = format!("apps/kustomization.yaml:7: {url}/g.yaml: {unasked}");
    assert!(told.contains(&last), "{told}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "what had no time left was not asked for");

    // The questions go on: whoever asks later has their answers, without another.
    tokio::time::sleep(Duration::from_secs(7)).await;
    bench.write(&[("apps/kustomization.yaml", &listing(&url, &["a", "b", "d", "e"]))]);
    let request = bench.request(json!({}));
    let rendered = renderer.render(&request).await.unwrap();
    assert_eq!((rendered.manifests.len(), asked.load(Ordering::SeqCst)), (4, 4));

    // Dropping the future is all that a stop does, and a runtime that ends waits for nothing.
    bench.write(&[("apps/kustomization.yaml", &listing(&url, &["x"]))]);
    let (renderer, request) = (bench.renderer.clone(), bench.request(json!({})));
    let since = std::time::Instant::now();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_millis(500);
            assert!(tokio::time::timeout(limit, renderer.digest(&request)).await.is_err());
        });
    })
    .join()
    .unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn neither_a_suspend_nor_a_stop_waits_for_a_base_that_does_not_answer() {
    let (url, asked, _) = slow(Duration::from_secs(60));
    let mut world = World::new();
    let files = [("kustomization.yaml", listing(&url, &["a"]))];
    world.apps(&[App { name: "apps", spec: "", files: &files }]);
    world.start();
    world.eventually("it is asked for", |_| asked.load(Ordering::SeqCst) > 0);
    let running = |world: &World| world.item("Kustomization/flux-system/apps")["running"] == true;
    assert!(running(&world), "{}", world.status());
    let since = std::time::Instant::now();
    world.ok(&["suspend", "apps"]);
    world.eventually("the run has ended", |world| !running(world));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    world.ok(&["resume", "apps"]);
    world.eventually("it runs again", running);
    let since = std::time::Instant::now();
    assert_eq!(world.stop(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_reads_no_file_of_the_source_that_names_it() {
    let server = GitServer::http();
    let repo = upstream(&server);
    repo.write("overlay/kustomization.yaml", "resources: [../../../apps/mine.yaml]\n");
    repo.commit("curious");
    repo.push("main");
    let bench = Bench::new();
    bench.write(&[
        ("apps/kustomization.yaml", &naming(&server, "?ref=main")),
        ("apps/mine.yaml", CONFIG_MAP),
    ]);
    let told = bench.render(json!({})).await.unwrap_err().to_string();
    assert!(told.contains("/overlay/kustomization.yaml:1: ../../../apps/mine.yaml"), "{told}");
    assert!(told.ends_with("leaves the repository that it stands in"), "{told}");
}
