//! Registries that page, plead for fewer requests, redirect, lie or say nothing: a stand-in does.

use super::{listed, plain, repository};
use crate::bed::standin::{Asked, json};
use crate::bed::{Ca, Reply, StandIn};
use gitopsd::net::{Proxy, Trust};
use gitopsd::registry::{Access, Registry, RegistryError, Scan};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The value of a query's key.
fn value<'q>(query: &'q str, key: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn tags_json(tags: impl IntoIterator<Item = String>) -> String {
    serde_json::json!({"name": "a", "tags": tags.into_iter().collect::<Vec<_>>()}).to_string()
}

/// Serves `count` tags in pages as the protocol has them, with an ETag for a list of one page.
fn paging(count: usize) -> StandIn {
    let all: Vec<String> = (0..count).map(|n| format!("t{n:06}")).collect();
    StandIn::start(move |_, asked| {
        let n: usize = value(&asked.query, "n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let last = value(&asked.query, "last").unwrap_or_default();
        let from = all.partition_point(|tag| tag.as_str() <= last);
        let page: Vec<String> = all[from..].iter().take(n).cloned().collect();
        let etag = format!("\"{}-{from}\"", all.len());
        if asked.if_none_match.as_ref() == Some(&etag) {
            return Some(Reply::empty(304));
        }
        let more = from + page.len() < all.len();
        let next = page.last().cloned().unwrap_or_default();
        let reply = json(200, tags_json(page)).with("ETag", &etag);
        Some(match more {
            true => {
                reply.with("Link", &format!("<{}?last={next}&n={n}>; rel=\"next\"", asked.path))
            }
            false => reply,
        })
    })
}

#[tokio::test]
async fn pages_are_followed_to_the_last_and_an_etag_saves_the_list() {
    let (server, registry) = (paging(2500), Registry::default());
    let image = repository(&format!("{}/a", server.host()));
    let (tags, known) = listed(registry.tags(&image, &plain(), None).await);
    assert_eq!((tags.len(), tags[2499].as_str()), (2500, "t002499"));
    let queries: Vec<String> = server.asked().into_iter().map(|asked| asked.query).collect();
    assert_eq!(queries, ["n=1000", "last=t000999&n=1000", "last=t001999&n=1000"]);
    // An ETag of the first page says nothing of the others: the list is read again.
    server.forget();
    assert_eq!(registry.tags(&image, &plain(), Some(&known)).await, Ok(Scan::Unchanged));
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].if_none_match.as_deref()), (3, None));

    let small = paging(999);
    let image = repository(&format!("{}/a", small.host()));
    let (_, known) = listed(registry.tags(&image, &plain(), None).await);
    small.forget();
    // A validator survives being stored.
    let stored = serde_json::to_string(&known).unwrap();
    let known = serde_json::from_str(&stored).unwrap();
    assert_eq!(registry.tags(&image, &plain(), Some(&known)).await, Ok(Scan::Unchanged));
    let asked = small.asked();
    assert_eq!((asked.len(), asked[0].if_none_match.as_deref()), (1, Some("\"999-0\"")));
}

#[tokio::test]
async fn a_plea_for_fewer_requests_is_heeded_while_it_fits() {
    let server = |after: &'static str, times: usize| {
        let seen = AtomicUsize::new(0);
        StandIn::start(move |_, _| {
            if seen.fetch_add(1, Ordering::SeqCst) < times {
                let reply = Reply::empty(429);
                return Some(if after.is_empty() {
                    reply
                } else {
                    reply.with("Retry-After", after)
                });
            }
            Some(json(200, tags_json(["1".to_owned()])))
        })
    };
    let scan = async |server: &StandIn| {
        let image = repository(&format!("{}/a", server.host()));
        Registry::default().tags(&image, &plain(), None).await
    };
    let (short, begun) = (server("1", 2), Instant::now());
    assert_eq!(listed(scan(&short).await).0, ["1"]);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(short.asked().len(), 3);
    for (after, times, told) in [
        ("3600", 1, Some(Duration::from_secs(3600))),
        ("", 1, None),
        ("0", 99, Some(Duration::ZERO)),
    ] {
        let server = server(after, times);
        let error = scan(&server).await.unwrap_err();
        assert!(matches!(error, RegistryError::RateLimited { .. }), "{error}");
        assert_eq!((error.retry(), error.retry_after()), (true, told), "{after}");
        assert!(server.asked().len() <= 4, "it is not asked again and again");
    }
}

/// What a stand-in answers to everything.
type Liar = fn(&Asked, usize) -> Option<Reply>;

fn html(_: &Asked, _: usize) -> Option<Reply> {
    let mut page = Reply::empty(200).with("Content-Type", "text/html; charset=utf-8");
    page.body = b"<html>Please log in</html>".to_vec();
    Some(page)
}

fn html_404(asked: &Asked, n: usize) -> Option<Reply> {
    html(asked, n).map(|reply| Reply { status: 404, ..reply })
}

fn link(to: &str, tags: Vec<String>) -> Option<Reply> {
    Some(json(200, tags_json(tags)).with("Link", &format!("<{to}>; rel=\"next\"")))
}

fn looping(asked: &Asked, n: usize) -> Option<Reply> {
    link(&format!("{}?n=1000&last=x", asked.path), vec![format!("t{n}")])
}

fn barren(asked: &Asked, n: usize) -> Option<Reply> {
    link(&format!("{}?last={n}", asked.path), vec!["same".into()])
}

fn endless(asked: &Asked, n: usize) -> Option<Reply> {
    let tags = (0..5000).map(|t| format!("t{n}-{t}")).collect();
    link(&format!("{}?last={n}", asked.path), tags)
}

fn huge(_: &Asked, _: usize) -> Option<Reply> {
    Some(json(200, tags_json((0..400_000).map(|t| format!("tag-number-{t:09}")))))
}

fn shouting(_: &Asked, _: usize) -> Option<Reply> {
    Some(json(200, "x".repeat(7 << 20)))
}

fn elsewhere(_: &Asked, _: usize) -> Option<Reply> {
    link("http://registry.invalid/v2/a/tags/list", vec!["1".into()])
}

fn bad_tag(_: &Asked, _: usize) -> Option<Reply> {
    Some(json(200, r#"{"tags": ["\u001b[31mred; rm -rf /"]}"#))
}

fn not_modified(_: &Asked, _: usize) -> Option<Reply> {
    Some(Reply::empty(304))
}

fn broken(_: &Asked, _: usize) -> Option<Reply> {
    Some(json(500, r#"{"errors": [{"code": "UNKNOWN", "message": "disk on fire"}]}"#))
}

fn hang_up(_: &Asked, _: usize) -> Option<Reply> {
    None
}

fn silent(_: &Asked, _: usize) -> Option<Reply> {
    std::thread::sleep(Duration::from_secs(20));
    None
}

fn around(asked: &Asked, n: usize) -> Option<Reply> {
    Some(Reply::empty(302).with("Location", &format!("{}?round={n}", asked.path)))
}

fn nowhere(_: &Asked, _: usize) -> Option<Reply> {
    Some(Reply::empty(302).with("Location", "file:///etc/passwd"))
}

#[tokio::test]
async fn whatever_a_registry_answers_ends_in_an_error_with_a_name_and_soon() {
    let cases: &[(Liar, &str)] = &[
        (html, "answered with text/html; charset=utf-8 where a registry answers with JSON"),
        (html_404, "answered with text/html; charset=utf-8 and HTTP status 404 where"),
        (looping, "lists tags without end: a next page that was there already"),
        (barren, "lists tags without end: page after page without a new tag"),
        (endless, "answered with more than 100000 tags"),
        (huge, "answered with more than 8388608 bytes in one page"),
        (shouting, "unexpected answer from 127.0.0.1"),
        (elsewhere, "another host: http://registry.invalid/"),
        (bad_tag, "in the list of tags is none"),
        (not_modified, "answered HTTP status 304"),
        (broken, "answered HTTP status 500: UNKNOWN: disk on fire"),
        (hang_up, "cannot reach 127.0.0.1"),
        (silent, "took longer than 3 s"),
        (around, "leads elsewhere: more than 5 redirects"),
        (nowhere, "a redirect without a usable address"),
    ];
    let access = Access { timeout: Duration::from_secs(3), ..plain() };
    for (liar, expected) in cases {
        let (liar, seen) = (*liar, AtomicUsize::new(0));
        let server =
            StandIn::start(move |_, asked| liar(asked, seen.fetch_add(1, Ordering::SeqCst)));
        let image = repository(&format!("{}/a", server.host()));
        let begun = Instant::now();
        let error = Registry::default().tags(&image, &access, None).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(error.retry(), "{said}");
        assert!(said.len() < 400 && !said.contains(['\n', '\u{1b}']), "{said:?}");
        assert!(begun.elapsed() < Duration::from_secs(6), "{said}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_manifest_is_fetched_only_where_its_digest_is_not_in_the_head() {
    const MANIFEST: &str = r#"{"schemaVersion": 2, "manifests": []}"#;
    const DIGEST: &str = "sha256:90574a71d0de2c8b6aa7e4a6f79f1b81bf31a2d5b3b1a0ca9d1e0b9ae2ab6b9f";
    let digest = async |tag: &str| {
        let server = StandIn::start(|_, asked| {
            let tag = asked.path.rsplit('/').next().unwrap_or_default();
            let kind = "application/vnd.oci.image.index.v1+json";
            let mut reply = Reply::empty(200).with("Content-Type", kind);
            match (tag, asked.method.as_str()) {
                ("no-head", "HEAD") => return Some(Reply::empty(405)),
                ("odd", "HEAD") => reply = reply.with("Docker-Content-Digest", "crc32:00"),
                ("lie", "GET") => reply = reply.with("Docker-Content-Digest", DIGEST),
                ("page", _) => return html(asked, 0),
                ("other", "GET") => return Some(json(200, "{}")),
                _ => {}
            }
            if asked.method == "GET" {
                reply.body = MANIFEST.as_bytes().to_vec();
            }
            Some(reply)
        });
        let image = repository(&format!("{}/a", server.host()));
        let found = Registry::default().digest(&image, tag, &plain()).await;
        let methods: Vec<String> = server.asked().into_iter().map(|asked| asked.method).collect();
        (found.map_err(|error| error.to_string()), methods.join(" "))
    };
    let hash = <sha2::Sha256 as sha2::Digest>::digest(MANIFEST);
    let computed: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let computed = Ok(format!("sha256:{computed}"));
    for tag in ["bare", "no-head", "odd"] {
        assert_eq!(digest(tag).await, (computed.clone(), "HEAD GET".to_owned()), "{tag}");
    }
    for (tag, expected) in [
        ("lie", "the manifest of lie is not the one that it names"),
        ("page", "answered with text/html"),
        ("other", "what it has for the tag other is no manifest"),
    ] {
        let said = digest(tag).await.0.unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    let (said, methods) = digest("../../evil").await;
    assert!(said.unwrap_err().contains("no tag ../../evil") && methods.is_empty());
}

#[tokio::test]
async fn from_tls_no_redirect_leads_to_plain_http() {
    let (ca, target) = (Ca::new(), paging(1));
    let to = format!("{}/v2/a/tags/list", target.url());
    let server = StandIn::start_tls(&ca, move |_, _| Some(Reply::empty(307).with("Location", &to)));
    let trust = Trust { ca: Some(ca.pem().as_bytes().to_vec()), ..Trust::default() };
    let access = Access { trust, ..plain() };
    let image = repository(&format!("{}/a", server.host()));
    let error = Registry::default().tags(&image, &access, None).await.unwrap_err();
    assert!(error.to_string().contains("a redirect from TLS to http://127.0.0.1"), "{error}");
    assert!(target.asked().is_empty());
}

#[tokio::test]
async fn a_proxy_gets_its_own_credentials_and_every_request() {
    let proxy = StandIn::start(|_, asked| match asked.method.as_str() {
        "CONNECT" => Some(Reply::empty(502)),
        _ => Some(json(200, tags_json(["through".to_owned()]))),
    });
    let data = [("address", proxy.url()), ("username", "p".into()), ("password", "hunter2".into())];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect();
    let trust = Trust { proxy: Some(Proxy::from_secret(&data).unwrap()), ..Trust::default() };
    let access = Access { trust, ..plain() };
    let image = repository("registry.invalid:5000/a");
    assert_eq!(listed(Registry::default().tags(&image, &access, None).await).0, ["through"]);
    let asked = proxy.asked();
    let methods: Vec<&str> = asked.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(methods, ["CONNECT", "GET"], "TLS was tried first");
    assert_eq!(asked[1].path, "http://registry.invalid:5000/v2/a/tags/list");
    let basic = Some("Basic cDpodW50ZXIy".to_owned());
    assert!(asked.iter().all(|asked| asked.proxy_authorization == basic), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.authorization.is_none()));
    assert!(!format!("{access:?}").contains("hunter2"));
}
