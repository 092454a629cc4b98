//! Tags and digests of real registries, and what a registry may do that none should.

mod faults;
mod tokens;

use crate::bed::registry::{PASSWORD, USER};
use crate::bed::{RegistryOptions, RegistryServer};
use gitopsd::net::{ClientCertificate, Trust};
use gitopsd::registry::{
    Access, DockerConfig, Mirrors, Registry, RegistryError, Repository, Scan, Validator,
};
use gitopsd::secrets::Plaintext;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn repository(image: &str) -> Repository {
    Repository::parse(image).expect("an image name")
}

/// Access to a plain registry for anyone.
fn plain() -> Access {
    Access { insecure: true, timeout: Duration::from_secs(30), ..Access::default() }
}

/// The Secret that `kubectl create secret docker-registry` makes.
fn docker(host: &str, user: &str, password: &str) -> DockerConfig {
    let text = json!({"auths": {host: {"username": user, "password": password}}}).to_string();
    let data = BTreeMap::from([(".dockerconfigjson".to_owned(), text.into_bytes())]);
    DockerConfig::from_secret(&data).expect("a docker config")
}

fn believing(pem: &str) -> Trust {
    Trust { ca: Some(pem.as_bytes().to_vec()), ..Trust::default() }
}

fn listed(scan: Result<Scan, RegistryError>) -> (Vec<String>, Validator) {
    match scan {
        Ok(Scan::Tags { tags, validator: Some(validator) }) => (tags, validator),
        other => panic!("tags were expected: {other:?}"),
    }
}

#[tokio::test]
async fn tags_are_listed_and_a_digest_is_that_of_the_manifest_or_index() {
    let (server, registry) = (RegistryServer::plain(), Registry::default());
    let image = repository(&server.image("games/blaster"));
    let missing = registry.tags(&image, &plain(), None).await;
    let (host, path) = (server.host(), "games/blaster".to_owned());
    assert_eq!(
        missing,
        Err(RegistryError::NoSuchRepository { registry: host.clone(), path: path.clone() })
    );
    let one = server.push("games/blaster", "dev-20261122.10", "one");
    let two = server.push("games/blaster", "dev-20261122.9", "two");
    let (tags, known) = listed(registry.tags(&image, &plain(), None).await);
    assert_eq!(tags, ["dev-20261122.10", "dev-20261122.9"]);
    assert_eq!(registry.tags(&image, &plain(), Some(&known)).await, Ok(Scan::Unchanged));
    let index = server.push_index("games/blaster", "multi", &[&one, &two]);
    let (tags, _) = listed(registry.tags(&image, &plain(), Some(&known)).await);
    assert_eq!(tags.len(), 3);
    for (tag, digest) in [("dev-20261122.10", &one), ("dev-20261122.9", &two), ("multi", &index)] {
        assert_eq!(registry.digest(&image, tag, &plain()).await.as_ref(), Ok(digest), "{tag}");
    }
    let tag = "dev-20261122.11".to_owned();
    assert_eq!(
        registry.digest(&image, &tag, &plain()).await,
        Err(RegistryError::NoSuchTag { registry: host, path, tag })
    );
    // Heads only, and a known repository is one request.
    assert_eq!(server.count("\"GET /v2/games/blaster/manifests"), 0);
    assert_eq!(server.count("\"GET /v2/games/blaster/tags/list?n=1000"), 4);
}

#[tokio::test]
async fn a_password_is_sent_where_it_is_wanted_and_a_wrong_one_is_named() {
    let server = RegistryServer::start(RegistryOptions { password: true, ..Default::default() });
    let registry = Registry::default();
    server.push("app", "1", "x");
    let image = repository(&server.image("app"));
    let with =
        |password: &str| Access { docker: Some(docker(&server.host(), USER, password)), ..plain() };
    let (tags, known) = listed(registry.tags(&image, &with(PASSWORD), None).await);
    assert_eq!(tags, ["1"]);
    let asked = server.count("/v2/app/tags/list");
    let again = registry.tags(&image, &with(PASSWORD), Some(&known)).await;
    assert_eq!(again, Ok(Scan::Unchanged));
    assert_eq!(server.count("/v2/app/tags/list"), asked + 1, "the way is remembered");
    assert!(registry.digest(&image, "1", &with(PASSWORD)).await.is_ok());

    let none = registry.tags(&image, &plain(), None).await.unwrap_err();
    assert!(matches!(none, RegistryError::CredentialsMissing { .. }), "{none}");
    assert!(none.hint().unwrap().contains("spec.secretRef"));
    let wrong = registry.tags(&image, &with("hunter2"), None).await.unwrap_err();
    assert!(matches!(wrong, RegistryError::CredentialsRefused { .. }), "{wrong}");
    assert!(!format!("{wrong:?} {:?}", with("hunter2")).contains("hunter2"));
    let other = Access { docker: Some(docker("reg.lan", USER, PASSWORD)), ..plain() };
    let other = registry.tags(&image, &other, None).await.unwrap_err();
    assert!(matches!(other, RegistryError::CredentialsMissing { .. }), "{other}");
    // The address is private, so plain HTTP is tried unasked, but not with a password.
    let unasked = Access { insecure: false, ..with(PASSWORD) };
    let unasked = Registry::default().tags(&image, &unasked, None).await.unwrap_err();
    assert!(matches!(unasked, RegistryError::PlainCredentials { .. }), "{unasked}");
    assert!(unasked.hint().unwrap().contains("spec.insecure"));
}

#[tokio::test]
async fn a_private_ca_is_believed_where_it_is_named() {
    let options = RegistryOptions { tls: true, password: true, ..Default::default() };
    let (server, registry) = (RegistryServer::start(options), Registry::default());
    server.push("app", "1", "x");
    let image = repository(&server.image("app"));
    let docker = Some(docker(&server.host(), USER, PASSWORD));
    let stranger = Access { insecure: false, docker: docker.clone(), ..plain() };
    let error = registry.tags(&image, &stranger, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::CertificateUntrusted { .. }), "{error}");
    assert!(error.hint().unwrap().contains("ca.crt"));
    let friend = Access { trust: believing(server.ca().pem()), ..stranger };
    assert_eq!(listed(registry.tags(&image, &friend, None).await).0, ["1"]);
    let broken = Access { trust: believing("no certificate"), ..friend };
    let error = registry.tags(&image, &broken, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Setup { .. }) && !error.retry(), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_registry_that_wants_one() {
    let options = RegistryOptions { tls: true, client_certificate: true, ..Default::default() };
    let (server, registry) = (RegistryServer::start(options), Registry::default());
    server.push("app", "1", "x");
    let image = repository(&server.image("app"));
    let mut access = Access { insecure: false, trust: believing(server.ca().pem()), ..plain() };
    let error = registry.tags(&image, &access, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    // With TLS 1.3 the registry's reason and the end of the connection race each other.
    println!("without a certificate: {error}; {:?}", error.hint());
    let signed = server.client();
    access.trust.certificate = Some(ClientCertificate {
        chain: signed.certificate.clone().into_bytes(),
        key: Plaintext::new(signed.key.clone().into_bytes()),
    });
    assert_eq!(listed(registry.tags(&image, &access, None).await).0, ["1"]);
    // A key that belongs to another certificate.
    let other = server.ca().client("other").key;
    access.trust.certificate = Some(ClientCertificate {
        chain: signed.certificate.clone().into_bytes(),
        key: Plaintext::new(other.clone().into_bytes()),
    });
    let error = registry.tags(&image, &access, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Setup { .. }), "{error}");
    assert!(!format!("{error:?} {access:?}").contains(&other[40..80]));
}

#[tokio::test]
async fn mirrors_of_registries_yaml_are_asked_first_with_its_credentials_and_certificates() {
    let options = RegistryOptions { tls: true, password: true, ..Default::default() };
    let (mirror, origin) = (RegistryServer::start(options), RegistryServer::plain());
    mirror.push("cache/games/blaster", "mirrored", "x");
    origin.push("games/blaster", "original", "x");
    let file = format!(
        "mirrors:\n  \"{origin}\":\n    endpoint: [\"https://{mirror}\"]\n    rewrite:\n      \
         \"^games/(.*)\": \"cache/games/$1\"\nconfigs:\n  \"{mirror}\":\n    auth: {{username: \
         {USER}, password: {PASSWORD}}}\n    tls: {{ca_file: {dir}/ca.pem}}\n",
        origin = origin.host(),
        mirror = mirror.host(),
        dir = mirror.dir().display(),
    );
    let registry = Registry::new(Mirrors::parse("registries.yaml", &file).unwrap());
    let image = repository(&origin.image("games/blaster"));
    let (tags, known) = listed(registry.tags(&image, &plain(), None).await);
    assert_eq!(tags, ["mirrored"]);
    assert_eq!(mirror.count("tags/list?ns=127.0.0.1"), 2, "asked in the registry's name");
    assert!(registry.digest(&image, "original", &plain()).await.is_ok(), "origin has it");
    assert_eq!(origin.count("tags/list"), 0);

    // The mirror is gone: the registry answers. Both gone: both are named.
    mirror.down();
    let (tags, _) = listed(registry.tags(&image, &plain(), Some(&known)).await);
    assert_eq!(tags, ["original"]);
    origin.down();
    let error = registry.tags(&image, &plain(), None).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&mirror.host()) && said.contains(&origin.host()), "{said}");
    assert!(error.retry());
    mirror.up();
    assert_eq!(listed(registry.tags(&image, &plain(), None).await).0, ["mirrored"]);

    // Without a check of the certificate, because the operator wrote so for this host.
    let careless = file.replace(
        &format!("ca_file: {}/ca.pem", mirror.dir().display()),
        "insecure_skip_verify: true",
    );
    let careless = Registry::new(Mirrors::parse("registries.yaml", &careless).unwrap());
    assert_eq!(listed(careless.tags(&image, &plain(), None).await).0, ["mirrored"]);
    let lost = file.replace("ca.pem", "lost.pem");
    let lost = Registry::new(Mirrors::parse("registries.yaml", &lost).unwrap());
    let error = lost.tags(&image, &plain(), None).await.unwrap_err();
    assert!(error.to_string().contains("lost.pem, which registries.yaml names for"), "{error}");
}

#[tokio::test]
async fn five_thousand_tags_are_listed_within_a_second() {
    let (server, registry) = (RegistryServer::plain(), Registry::default());
    let all: Vec<String> = (0..5000).map(|n| format!("dev-202611{:02}.{n}", n % 30 + 1)).collect();
    let pushing = Instant::now();
    server.push_many("games/blaster", &all, "x");
    let pushed = pushing.elapsed();
    let image = repository(&server.image("games/blaster"));
    let before = resident();
    let scanning = Instant::now();
    let (tags, known) = listed(registry.tags(&image, &plain(), None).await);
    let scanned = scanning.elapsed();
    let grown = resident().saturating_sub(before);
    assert_eq!(tags.len(), 5000);
    assert!(registry.digest(&image, &all[4999], &plain()).await.is_ok());
    let again = Instant::now();
    assert_eq!(registry.tags(&image, &plain(), Some(&known)).await, Ok(Scan::Unchanged));
    println!(
        "5,000 tags: made in {pushed:?}, listed in {scanned:?} by {} requests, again in {:?}; \
         resident memory grew by {grown} KiB",
        server.count("tags/list"),
        again.elapsed()
    );
    assert!(scanned < Duration::from_secs(5), "{scanned:?} is far from a second");
}

/// Resident memory of this process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_can_be_spawned() {
    let server = RegistryServer::plain();
    server.push("app", "1", "x");
    let image = repository(&server.image("app"));
    let registry = std::sync::Arc::new(Registry::default());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (registry, image) = (registry.clone(), image.clone());
            tokio::spawn(async move {
                let tags = listed(registry.tags(&image, &plain(), None).await).0;
                (tags, registry.digest(&image, "1", &plain()).await.is_ok())
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), (vec!["1".to_owned()], true));
    }
}
