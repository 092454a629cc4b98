//! Registries that want tokens, and where credentials must not go.

use super::{docker, listed, plain, repository};
use crate::bed::standin::json;
use crate::bed::{Ca, Reply, StandIn};
use gitopsd::net::Trust;
use gitopsd::registry::{Access, DockerConfig, Registry, RegistryError, Scan};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A token service and a registry that takes its last token only.
struct Guarded {
    service: StandIn,
    registry: StandIn,
    /// The token in force.
    token: Arc<Mutex<String>>,
}

/// `lives` is what the service says of its tokens, in seconds.
fn guarded(lives: u32) -> Guarded {
    let token = Arc::new(Mutex::new("none yet".to_owned()));
    let (given, count) = (token.clone(), AtomicUsize::new(0));
    let service = StandIn::start(move |_, asked| {
        let allowed = asked.authorization.as_deref() == Some("Basic Y2k6aHVudGVyMg==")
            || asked.body.contains("refresh_token=long-lived");
        if !allowed {
            return Some(json(401, r#"{"errors": [{"message": "no user ci with hunter3"}]}"#));
        }
        let fresh = format!("token-{}", count.fetch_add(1, Ordering::SeqCst));
        *given.lock().unwrap() = fresh.clone();
        Some(json(200, format!(r#"{{"token": "{fresh}", "expires_in": {lives}}}"#)))
    });
    let (wanted, realm) = (token.clone(), format!("{}/token?account=x", service.url()));
    let registry = StandIn::start(move |_, asked| {
        let bearer = format!("Bearer {}", wanted.lock().unwrap());
        if asked.authorization != Some(bearer) {
            let challenge = format!(
                "Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:a/b:pull,push\""
            );
            return Some(Reply::empty(401).with("WWW-Authenticate", &challenge));
        }
        Some(json(200, r#"{"tags": ["1"]}"#))
    });
    Guarded { service, registry, token }
}

impl Guarded {
    fn image(&self) -> gitopsd::registry::Repository {
        repository(&format!("{}/a/b", self.registry.host()))
    }

    fn access(&self, password: &str) -> Access {
        Access { docker: Some(docker(&self.registry.host(), "ci", password)), ..plain() }
    }

    /// Requests to the registry and to the service since the last count.
    fn counts(&self) -> (usize, usize) {
        let counts = (self.registry.asked().len(), self.service.asked().len());
        self.registry.forget();
        self.service.forget();
        counts
    }
}

#[tokio::test]
async fn a_token_is_used_until_it_expires_or_is_refused() {
    let (server, registry) = (guarded(2), Registry::default());
    let (image, access) = (server.image(), server.access("hunter2"));
    let (tags, known) = listed(registry.tags(&image, &access, None).await);
    assert_eq!(tags, ["1"]);
    let asked = server.service.asked().remove(0);
    assert_eq!(asked.query, "account=x&service=test&scope=repository%3Aa%2Fb%3Apull");
    let passwords = server
        .registry
        .asked()
        .iter()
        .filter(|a| a.authorization.as_ref().is_some_and(|h| h.starts_with("Basic")))
        .count();
    assert_eq!(passwords, 0, "the password is the token service's alone");
    server.counts();

    let again = registry.tags(&image, &access, Some(&known)).await;
    assert_eq!((again, server.counts()), (Ok(Scan::Unchanged), (1, 0)));
    // Revoked: refused once, then replaced.
    *server.token.lock().unwrap() = "another".into();
    let again = registry.tags(&image, &access, Some(&known)).await;
    assert_eq!((again, server.counts()), (Ok(Scan::Unchanged), (2, 1)));
    // Expired: replaced before it is sent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = registry.tags(&image, &access, Some(&known)).await;
    assert_eq!((again, server.counts()), (Ok(Scan::Unchanged), (1, 1)));
}

#[tokio::test]
async fn a_wrong_password_is_refused_once_and_seen_nowhere() {
    let (server, registry) = (guarded(60), Registry::default());
    let access = server.access("hunter3");
    let error = registry.tags(&server.image(), &access, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::CredentialsRefused { .. }), "{error}");
    assert_eq!(server.counts(), (1, 1));
    let said = format!("{error} {error:?} {:?}", error.hint());
    assert!(said.contains("no user ci with ***") && !said.contains("hunter3"), "{said}");
    let none = registry.tags(&server.image(), &plain(), None).await.unwrap_err();
    assert!(matches!(none, RegistryError::CredentialsMissing { .. }), "{none}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_a_registry_token_is_sent_as_it_is() {
    let (server, registry) = (guarded(60), Registry::default());
    let with = |entry: &str| {
        let text = format!("{{\"auths\": {{\"{}\": {entry}}}}}", server.registry.host());
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), text.into_bytes())]);
        Access { docker: Some(DockerConfig::from_secret(&data).unwrap()), ..plain() }
    };
    let access = with(r#"{"auth": "PHRva2VuPjo=", "identitytoken": "long-lived"}"#);
    assert_eq!(listed(registry.tags(&server.image(), &access, None).await).0, ["1"]);
    let asked = server.service.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.authorization), ("POST", None));
    assert_eq!(
        asked.body,
        "grant_type=refresh_token&client_id=gitopsd&scope=repository%3Aa%2Fb%3Apull&service=test\
         &refresh_token=long-lived"
    );
    server.counts();
    *server.token.lock().unwrap() = "given".into();
    let access = with(r#"{"registrytoken": "given"}"#);
    assert_eq!(listed(registry.tags(&server.image(), &access, None).await).0, ["1"]);
    assert_eq!(server.counts(), (2, 0));
}

#[tokio::test]
async fn a_token_that_is_never_good_enough_ends_in_one_error() {
    let service = StandIn::start(|_, _| Some(json(200, r#"{"token": "useless-secret"}"#)));
    let challenge = format!("Bearer realm=\"{}/t\",service=\"s\"", service.url());
    let server = StandIn::start(move |_, _| {
        let body = r#"{"errors": [{"code": "DENIED", "message": "useless-secret is useless"}]}"#;
        Some(json(401, body).with("WWW-Authenticate", &challenge))
    });
    let image = repository(&format!("{}/a", server.host()));
    let access = Access { docker: Some(docker(&server.host(), "ci", "hunter2")), ..plain() };
    let error = Registry::default().tags(&image, &access, None).await.unwrap_err();
    assert_eq!(
        error,
        RegistryError::CredentialsRefused {
            registry: server.host(),
            cause: "DENIED: *** is useless".into()
        }
    );
    assert_eq!((server.asked().len(), service.asked().len()), (2, 1));
}

#[tokio::test]
async fn credentials_follow_no_redirect_to_another_host_and_no_service_without_tls() {
    let ca = Ca::new();
    let trust = Trust { ca: Some(ca.pem().as_bytes().to_vec()), ..Trust::default() };
    let other = StandIn::start_tls(&ca, |_, _| Some(json(200, r#"{"tags": ["there"]}"#)));
    let to = other.url();
    let server = StandIn::start_tls(&ca, move |_, asked| match &asked.authorization {
        None => Some(Reply::empty(401).with("WWW-Authenticate", "Basic realm=\"x\"")),
        Some(_) => Some(Reply::empty(307).with("Location", &format!("{to}{}", asked.path))),
    });
    let with = |server: &StandIn| Access {
        docker: Some(docker(&server.host(), "ci", "hunter2")),
        trust: trust.clone(),
        ..plain()
    };
    let image = repository(&format!("{}/a", server.host()));
    let scan = Registry::default().tags(&image, &with(&server), None).await;
    assert_eq!(listed(scan).0, ["there"]);
    assert_eq!(other.asked().len(), 1);
    assert_eq!(other.asked()[0].authorization, None);

    let service = StandIn::start(|_, _| Some(json(200, r#"{"token": "t"}"#)));
    let challenge = format!("Bearer realm=\"{}/t\"", service.url());
    let server = StandIn::start_tls(&ca, move |_, _| {
        Some(Reply::empty(401).with("WWW-Authenticate", &challenge))
    });
    let image = repository(&format!("{}/a", server.host()));
    let error = Registry::default().tags(&image, &with(&server), None).await.unwrap_err();
    assert!(error.to_string().contains("its token service 127.0.0.1"), "{error}");
    assert!(service.asked().is_empty());
}
