//! Pure: the docker config of a pull Secret, and which of its entries a repository gets.
//!
//! Read as Kubernetes and Flux do (Flux: ImageRepository, Secret): a key is a host, with port and
//! path where they matter, each label of the host possibly a glob; the scheme and a leading `/v1/` or
//! `/v2/` do not count; keys are tried in reverse order of their bytes, so that of two paths on one
//! host the longer wins. All names of Docker Hub mean Docker Hub. Errors name keys, never values.

use super::error::RegistryError;
use super::reference::{HUB, Repository};
use crate::secrets::Plaintext;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Base64 with or without padding: some tools leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials by registry. `Debug` shows the keys only.
#[derive(Clone, Default)]
pub struct DockerConfig {
    /// Normalised key and login, greatest key first.
    entries: Vec<(String, Login)>,
}

/// One way to prove who we are.
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    /// May be empty where there is a token.
    pub user: Plaintext,
    pub password: Plaintext,
    /// Exchanged for an access token at the token service (OAuth 2 refresh token).
    pub identity_token: Option<Plaintext>,
    /// Sent to the registry as it is.
    pub registry_token: Option<Plaintext>,
}

impl Login {
    /// `user:password` in base64, as basic authentication has it.
    pub fn basic(&self) -> Option<Plaintext> {
        if self.user.is_empty() {
            return None;
        }
        let pair = Plaintext::new([self.user.expose(), b":", self.password.expose()].concat());
        let coded = base64::engine::general_purpose::STANDARD.encode(pair.expose());
        Some(Plaintext::new(coded.into_bytes()))
    }

    /// All that must not be seen, for whoever cleans a text.
    pub fn secrets(&self) -> Vec<Plaintext> {
        let tokens = [self.identity_token.clone(), self.registry_token.clone(), self.basic()];
        let all = tokens.into_iter().flatten().chain([self.password.clone()]);
        all.filter(|secret| !secret.is_empty()).collect()
    }
}

impl DockerConfig {
    /// Reads the decoded `data` of a Secret: `.dockerconfigjson`, or the older `.dockercfg`.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<DockerConfig, RegistryError> {
        if let Some(text) = data.get(".dockerconfigjson") {
            let config = object(".dockerconfigjson", text)?;
            let auths = match config.get("auths") {
                Some(Value::Object(auths)) => auths,
                None | Some(Value::Null) => {
                    let helper = ["credsStore", "credHelpers"];
                    return match helper.iter().find(|key| config.contains_key(**key)) {
                        Some(key) => refuse(format!(
                            ".dockerconfigjson has {key} and no auths: its credentials lie \
                             elsewhere, on the machine where it was made"
                        )),
                        None => Ok(DockerConfig::default()),
                    };
                }
                Some(_) => return refuse(".dockerconfigjson: auths is not a map".into()),
            };
            return DockerConfig::read(".dockerconfigjson: auths", auths);
        }
        match data.get(".dockercfg") {
            Some(text) => DockerConfig::read(".dockercfg", &object(".dockercfg", text)?),
            None => refuse("the Secret has no key .dockerconfigjson".into()),
        }
    }

    /// Adds the entries of another Secret; where both have a key, the one here stays.
    pub fn merge(mut self, other: DockerConfig) -> DockerConfig {
        for (key, login) in other.entries {
            if self.entries.iter().all(|(known, _)| *known != key) {
                self.entries.push((key, login));
            }
        }
        self.entries.sort_by(|(a, _), (b, _)| b.cmp(a));
        self
    }

    fn read(at: &str, auths: &Map<String, Value>) -> Result<DockerConfig, RegistryError> {
        let mut entries = Vec::new();
        for (key, entry) in auths {
            let login = login(entry).map_err(|what| RegistryError::BadDockerConfig {
                cause: format!("{at}: {}: {what}", shown(key)),
            })?;
            entries.push((normal(key), login));
        }
        // A stable sort: of two spellings of one key the first counts.
        entries.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(DockerConfig { entries })
    }

    /// The login for a repository; None is anonymous.
    pub(super) fn login(&self, repository: &Repository) -> Option<&Login> {
        self.login_at(repository.registry(), repository.path())
    }

    /// The login for a path on a host with its port.
    pub(super) fn login_at(&self, host: &str, path: &str) -> Option<&Login> {
        let found = self.entries.iter().find(|(key, _)| matches(key, host, path));
        found.map(|(_, login)| login).filter(|login| !login.secrets().is_empty())
    }
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(key, _)| key)).finish()
    }
}

/// A key without what somebody may have written before the host.
fn shown(key: &str) -> &str {
    key.rsplit_once('@').map_or(key, |(_, host)| host)
}

fn object(key: &str, text: &[u8]) -> Result<Map<String, Value>, RegistryError> {
    // serde_json's own words could quote the content; the place is enough.
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => refuse(format!("{key} is not a JSON object")),
        Err(error) => {
            refuse(format!("{key} is not JSON (line {}, column {})", error.line(), error.column()))
        }
    }
}

fn login(entry: &Value) -> Result<Login, String> {
    let Value::Object(entry) = entry else { return Err("not a map".into()) };
    let text = |key: &str| match entry.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.contains(['\n', '\r', '\0']) && key != "auth" => {
            Err(format!("{key} contains a line break (written with echo? use echo -n)"))
        }
        Some(Value::String(text)) => Ok(Some(Plaintext::new(text.clone().into_bytes()))),
        Some(_) => Err(format!("{key} is not a text")),
    };
    let mut login = Login {
        user: text("username")?.unwrap_or_default(),
        password: text("password")?.unwrap_or_default(),
        identity_token: text("identitytoken")?,
        registry_token: text("registrytoken")?,
    };
    if let Some(auth) = text("auth")? {
        (login.user, login.password) = pair(&auth)?;
    }
    if login.user.is_empty() && !login.password.is_empty() {
        return Err("password is there, but username is missing".into());
    }
    Ok(login)
}

/// `auth`, which is `user:password` in base64.
pub(super) fn pair(auth: &Plaintext) -> Result<(Plaintext, Plaintext), String> {
    let decoded = BASE64.decode(auth.expose().trim_ascii());
    let decoded = Plaintext::new(decoded.map_err(|_| "auth is not base64")?);
    let bytes = decoded.expose();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let Some(colon) = colon else { return Err("auth has no colon after base64".into()) };
    // Docker trims zeros that older versions of it padded with.
    let mut password = &bytes[colon + 1..];
    while let [rest @ .., 0] = password {
        password = rest;
    }
    if bytes[..colon].iter().chain(password).any(|b| matches!(b, b'\n' | b'\r' | 0)) {
        return Err(
            "auth contains a line break after base64 (written with echo? use echo -n)".into()
        );
    }
    Ok((Plaintext::new(bytes[..colon].to_vec()), Plaintext::new(password.to_vec())))
}

/// A key as host, port and path.
fn normal(key: &str) -> String {
    let key = key.trim();
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let rest = shown(rest);
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let versioned = path.starts_with("/v1/") || path.starts_with("/v2/");
    let path = if versioned { &path[3..] } else { path };
    let path = if matches!(path, "/" | "/v1" | "/v2") { "" } else { path };
    format!("{}{path}", hub(host))
}

/// The one name of Docker Hub for all that it has.
fn hub(host: &str) -> &str {
    if matches!(host, "docker.io" | "registry-1.docker.io") { HUB } else { host }
}

fn matches(key: &str, host: &str, path: &str) -> bool {
    let (glob, prefix) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let (glob, glob_port) = port(glob);
    let (host, host_port) = port(hub(host));
    let (globs, labels): (Vec<_>, Vec<_>) = (glob.split('.').collect(), host.split('.').collect());
    glob_port == host_port
        && globs.len() == labels.len()
        && globs.iter().zip(&labels).all(|(glob, label)| is_like(glob.as_bytes(), label.as_bytes()))
        && format!("/{path}").starts_with(prefix)
}

/// Host and port.
fn port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    }
}

/// Go's `path.Match` without classes, which no host has: `*` is anything, `?` one character.
fn is_like(glob: &[u8], label: &[u8]) -> bool {
    match (glob, label) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=label.len()).any(|taken| is_like(rest, &label[taken..])),
        ([b'?', rest @ ..], [_, label @ ..]) => is_like(rest, label),
        ([one, rest @ ..], [other, label @ ..]) => one == other && is_like(rest, label),
        _ => false,
    }
}

fn refuse<T>(cause: String) -> Result<T, RegistryError> {
    Err(RegistryError::BadDockerConfig { cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(auths: Value) -> Result<DockerConfig, RegistryError> {
        let text = json!({ "auths": auths }).to_string().into_bytes();
        DockerConfig::from_secret(&BTreeMap::from([(".dockerconfigjson".to_owned(), text)]))
    }

    fn user(config: &DockerConfig, image: &str) -> Option<String> {
        let login = config.login(&Repository::parse(image).unwrap())?;
        Some(String::from_utf8(login.user.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_entry_follows_from_host_port_glob_and_longest_path() {
        let entry = |user: &str| json!({"username": user, "password": "p"});
        let config = config(json!({
            "https://index.docker.io/v1/": entry("hub"),
            "reg.lan": entry("host"),
            "reg.lan/team": entry("team"),
            "reg.lan/team/app": entry("app"),
            "http://reg.lan:5000/v2/": entry("port"),
            "*.azurecr.io": entry("glob"),
            "x.azurecr.io": entry("exact"),
            "*": entry("one label"),
        }))
        .unwrap();
        for (image, expected) in [
            ("podinfo", Some("hub")),
            ("docker.io/o/a", Some("hub")),
            ("reg.lan/a", Some("host")),
            ("reg.lan/team/x", Some("team")),
            ("reg.lan/team/app", Some("app")),
            ("reg.lan:5000/a", Some("port")),
            ("reg.lan:5001/a", None),
            ("y.azurecr.io/a", Some("glob")),
            ("x.azurecr.io/a", Some("exact")),
            ("x.y.azurecr.io/a", None),
            ("ghcr.io/o/a", None),
        ] {
            assert_eq!(user(&config, image).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn auth_counts_before_username_and_may_lack_its_padding() {
        for (auth, expected) in [
            ("Y2k6aHVudGVyMg==", "ci:hunter2"),
            ("Y2k6aHVudGVyMg", "ci:hunter2"),
            ("Y2k6aHVudGVyMgA=\n", "ci:hunter2"),
            ("Y2k6YTpi", "ci:a:b"),
        ] {
            let config =
                config(json!({"reg.lan": {"auth": auth, "username": "u", "password": "p"}}));
            let config = config.unwrap();
            let login = config.login(&Repository::parse("reg.lan/a").unwrap()).unwrap();
            let read = [login.user.expose(), b":", login.password.expose()].concat();
            assert_eq!(String::from_utf8(read).unwrap(), expected);
        }
    }

    #[test]
    fn the_legacy_form_is_the_map_itself_and_empty_entries_are_anonymous() {
        let text = br#"{"reg.lan": {"username": "u", "password": "p"}, "ghcr.io": {}}"#;
        let data = BTreeMap::from([(".dockercfg".to_owned(), text.to_vec())]);
        let config = DockerConfig::from_secret(&data).unwrap();
        assert_eq!(user(&config, "reg.lan/a").as_deref(), Some("u"));
        assert_eq!(user(&config, "ghcr.io/o/a"), None);
    }

    #[test]
    fn of_two_secrets_the_first_counts() {
        let one = config(json!({"reg.lan": {"username": "a", "password": "p"}})).unwrap();
        let two = config(json!({
            "reg.lan": {"username": "b", "password": "p"},
            "reg.lan/x": {"username": "c", "password": "p"},
        }));
        let both = one.merge(two.unwrap());
        assert_eq!(user(&both, "reg.lan/a").as_deref(), Some("a"));
        assert_eq!(user(&both, "reg.lan/x").as_deref(), Some("c"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key_and_shows_no_value() {
        let read = |key: &str, text: &str| {
            let data = BTreeMap::from([(key.to_owned(), text.as_bytes().to_vec())]);
            DockerConfig::from_secret(&data).unwrap_err().to_string()
        };
        for (key, text, expected) in [
            ("password", "hunter2", "no key .dockerconfigjson"),
            (".dockerconfigjson", "{\"auths\": hunter2}", "is not JSON (line 1, column 11)"),
            (".dockerconfigjson", "[\"hunter2\"]", "not a JSON object"),
            (".dockerconfigjson", r#"{"auths": "hunter2"}"#, "auths is not a map"),
            (".dockerconfigjson", r#"{"credsStore": "desktop"}"#, "has credsStore and no auths"),
            (".dockerconfigjson", r#"{"auths": {"r.lan": "hunter2"}}"#, "r.lan: not a map"),
            (".dockerconfigjson", r#"{"auths": {"r.lan": {"auth": "hunter2!"}}}"#, "not base64"),
            (".dockerconfigjson", r#"{"auths": {"r.lan": {"auth": "aHVudGVyMg=="}}}"#, "no colon"),
            (".dockerconfigjson", r#"{"auths": {"r.lan": {"password": "hunter2"}}}"#, "username"),
            (
                ".dockerconfigjson",
                r#"{"auths": {"hunter2@r.lan": {"username": "u", "password": "hunter2\n"}}}"#,
                "auths: r.lan: password contains a line break",
            ),
        ] {
            let said = read(key, text);
            assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
        }
        let config = config(json!({"r.lan": {"username": "u", "password": "hunter2"}})).unwrap();
        assert!(!format!("{config:?} {:?}", config.entries).contains("hunter2"));
    }
}
