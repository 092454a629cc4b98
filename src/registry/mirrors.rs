//! Pure: k3s's `registries.yaml`: mirrors of registries, credentials and certificates by host.
//!
//! Read as k3s does: `mirrors` maps a registry (`docker.io`, `host:port`, or `"*"` for all that
//! have no entry) to endpoints and rewrites, `configs` maps a host to `auth` and `tls`. An endpoint
//! without a path gets `/v2`; one with a path is taken as it stands. Rewrites are for the
//! endpoints that are written down, not for the registry itself, which is asked last. Keys that
//! nothing here needs are left alone, since the file is k3s's; what is of the wrong kind is a
//! problem with its line, and all of them are told at once. Values are never repeated.

mod tree;

use super::docker::{Login, pair};
use super::reference::{HUB, Repository, is_authority};
use crate::secrets::Plaintext;
use regex::Regex;
use std::collections::BTreeMap;
use tree::{Node, Value};
use url::Url;

/// Where Docker Hub's API is for mirrors' sake; k3s says `docker.io` for it.
const HUB_NAMES: [&str; 3] = [HUB, "docker.io", "registry-1.docker.io"];

/// What the file says. The default is that of a host without one: nothing.
#[derive(Clone, Debug, Default)]
pub struct Mirrors {
    mirrors: BTreeMap<String, Mirror>,
    hosts: BTreeMap<String, HostConfig>,
}

/// The mirrors of one registry.
#[derive(Clone, Debug, Default)]
struct Mirror {
    endpoints: Vec<Url>,
    rewrites: Vec<(Regex, String)>,
}

/// How to talk to one host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostConfig {
    pub login: Option<Login>,
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub insecure_skip_verify: bool,
}

/// One place to ask for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `https://host:port/v2`, without a slash at the end.
    pub base: Url,
    /// Host and port, as keys have them.
    pub host: String,
    /// The repository's path there.
    pub path: String,
    /// The registry that a mirror stands in for.
    pub mirrored: Option<String>,
    /// What may be done where TLS fails.
    pub plain: Plain,
}

/// Whether plain HTTP may take the place of HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// Never.
    No,
    /// Where HTTPS cannot be had, and without credentials: Flux does so for private addresses.
    Anonymous,
    /// The operator said so.
    Yes,
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}, {fix}")]
pub struct MirrorsProblem {
    /// The file as it was named to `parse`.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, beginning with the key.
    pub what: String,
    /// What to write.
    pub fix: &'static str,
}

impl Mirrors {
    /// Reads the text of the file; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Mirrors, Vec<MirrorsProblem>> {
        let mut reader = Reader { file, problems: Vec::new() };
        let root = match tree::read(text) {
            Ok(root) => root,
            Err((line, what, fix)) => {
                reader.problem(line, what, fix);
                return Err(reader.problems);
            }
        };
        let mut read = Mirrors::default();
        for (key, node) in reader.map(&root, "the file") {
            match key.as_str() {
                "mirrors" => {
                    for (name, node) in reader.map(node, "mirrors") {
                        let mirror = reader.mirror(name, node);
                        read.mirrors.insert(canonical(name), mirror);
                    }
                }
                "configs" => {
                    for (name, node) in reader.map(node, "configs") {
                        let host = reader.host(name, node);
                        read.hosts.insert(canonical(name), host);
                    }
                }
                _ => {}
            }
        }
        if reader.problems.is_empty() { Ok(read) } else { Err(reader.problems) }
    }

    /// Where to ask for a repository, in order; the registry itself is last.
    pub(super) fn endpoints(&self, repository: &Repository, insecure: bool) -> Vec<Endpoint> {
        let registry = repository.registry();
        let own = own(repository, insecure);
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut all: Vec<Endpoint> = Vec::new();
        for base in mirror.iter().flat_map(|mirror| &mirror.endpoints) {
            let path = mirror.map_or(repository.path().to_owned(), |mirror| {
                rewritten(&mirror.rewrites, repository.path())
            });
            let host = canonical(&authority(base));
            let mirrored = (host != registry).then(|| registry.to_owned());
            let plain = if base.scheme() == "http" { Plain::Yes } else { Plain::No };
            let endpoint = Endpoint { base: base.clone(), host, path, mirrored, plain };
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        let listed = |own: &Endpoint| {
            all.iter().any(|known| known.base == own.base && known.path == own.path)
        };
        if !own.as_ref().is_none_or(listed) {
            all.extend(own);
        }
        all
    }

    /// What is written down for a host and port, or for all others.
    pub(super) fn host(&self, host: &str) -> Option<(&str, &HostConfig)> {
        let found = self.hosts.get_key_value(host).or_else(|| self.hosts.get_key_value("*"));
        found.map(|(key, config)| (key.as_str(), config))
    }
}

/// The registry itself. None cannot be for a name that was parsed; were it so, nothing is asked.
fn own(repository: &Repository, insecure: bool) -> Option<Endpoint> {
    let registry = repository.registry();
    let base = Url::parse(&format!("https://{registry}/v2")).ok()?;
    let plain = match insecure {
        true => Plain::Yes,
        false if is_private(registry) => Plain::Anonymous,
        false => Plain::No,
    };
    let path = repository.path().to_owned();
    Some(Endpoint { base, host: registry.to_owned(), path, mirrored: None, plain })
}

/// Addresses for which Flux tries plain HTTP unasked: loopback, private networks, `.local`.
fn is_private(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    };
    let inner = host.trim_matches(['[', ']']);
    match inner.parse::<core::net::IpAddr>() {
        Ok(core::net::IpAddr::V4(four)) => four.is_loopback() || four.is_private(),
        Ok(core::net::IpAddr::V6(six)) => six.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".local") || host.ends_with(".localhost"),
    }
}

/// Host and port of a URL, the port where it was needed.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// The one name of Docker Hub for all that it has.
fn canonical(name: &str) -> String {
    if HUB_NAMES.contains(&name) { HUB.to_owned() } else { name.to_owned() }
}

/// The path after the first rewrite that changes it.
fn rewritten(rewrites: &[(Regex, String)], path: &str) -> String {
    let tried = rewrites.iter().map(|(pattern, by)| pattern.replace_all(path, by.as_str()));
    tried.into_iter().find(|new| new != path).map_or(path.to_owned(), |new| new.into_owned())
}

/// Turns the tree into what it means and gathers problems.
struct Reader<'a> {
    file: &'a str,
    problems: Vec<MirrorsProblem>,
}

impl Reader<'_> {
    fn problem(&mut self, line: usize, what: String, fix: &'static str) {
        self.problems.push(MirrorsProblem { file: self.file.to_owned(), line, what, fix });
    }

    fn map<'n>(&mut self, node: &'n Node, key: &str) -> &'n [(String, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.problem(node.line, format!("{key}: not a map"), "write keys below it");
                &[]
            }
        }
    }

    fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(text) if !text.is_empty() => Some(text),
            Value::Scalar(_) | Value::Null => None,
            _ => {
                self.problem(node.line, format!("{key}: not a text"), "write one value");
                None
            }
        }
    }

    fn mirror(&mut self, name: &str, node: &Node) -> Mirror {
        let mut mirror = Mirror::default();
        for (key, node) in self.map(node, &format!("mirrors.{name}")) {
            let at = format!("mirrors.{name}.{key}");
            match (key.as_str(), &node.value) {
                ("endpoint", Value::Null) => {}
                ("endpoint", Value::List(items)) => {
                    for item in items {
                        let Some(text) = self.text(item, &at) else { continue };
                        match endpoint(text) {
                            Ok(url) => mirror.endpoints.push(url),
                            Err(fix) => {
                                self.problem(item.line, format!("{at}: no usable address"), fix);
                            }
                        }
                    }
                }
                ("endpoint", _) => {
                    self.problem(node.line, format!("{at}: not a list"), "write - before each one");
                }
                ("rewrite", _) => {
                    for (pattern, by) in self.map(node, &at) {
                        let (line, by) = (by.line, self.text(by, &at).unwrap_or_default());
                        match Regex::new(pattern) {
                            Ok(pattern) => mirror.rewrites.push((pattern, by.to_owned())),
                            Err(_) => self.problem(
                                line,
                                format!("{at}: {pattern:?} is no regular expression"),
                                "write it as in \"^library/(.*)\": \"mirror/$1\"",
                            ),
                        }
                    }
                }
                _ => {}
            }
        }
        mirror
    }

    fn host(&mut self, name: &str, node: &Node) -> HostConfig {
        let mut config = HostConfig::default();
        if name != "*" && !is_authority(name) {
            let what = format!("configs: {name:?} is no host with an optional port");
            self.problem(node.line, what, "write it without scheme and path");
        }
        for (key, node) in self.map(node, &format!("configs.{name}")) {
            let at = format!("configs.{name}.{key}");
            match key.as_str() {
                "auth" => config.login = self.login(&at, node),
                "tls" => self.tls(&at, node, &mut config),
                _ => {}
            }
        }
        config
    }

    fn login(&mut self, at: &str, node: &Node) -> Option<Login> {
        let mut login = Login::default();
        let plain = |text: &str| Plaintext::new(text.as_bytes().to_vec());
        for (key, value) in self.map(node, at) {
            let key_at = format!("{at}.{key}");
            let Some(text) = self.text(value, &key_at) else { continue };
            match key.as_str() {
                "username" => login.user = plain(text),
                "password" => login.password = plain(text),
                "identity_token" => login.identity_token = Some(plain(text)),
                "auth" => match pair(&plain(text)) {
                    Ok((user, password)) => (login.user, login.password) = (user, password),
                    Err(what) => {
                        self.problem(
                            value.line,
                            format!("{at}: {what}"),
                            "write user:password in base64",
                        );
                    }
                },
                _ => {}
            }
        }
        Some(login).filter(|login| !login.secrets().is_empty())
    }

    fn tls(&mut self, at: &str, node: &Node, config: &mut HostConfig) {
        for (key, value) in self.map(node, at) {
            let key_at = format!("{at}.{key}");
            let Some(text) = self.text(value, &key_at) else { continue };
            match key.as_str() {
                "ca_file" => config.ca_file = Some(text.to_owned()),
                "cert_file" => config.cert_file = Some(text.to_owned()),
                "key_file" => config.key_file = Some(text.to_owned()),
                "insecure_skip_verify" => match text {
                    "true" | "True" | "yes" | "on" => config.insecure_skip_verify = true,
                    "false" | "False" | "no" | "off" => {}
                    _ => self.problem(
                        value.line,
                        format!("{key_at}: neither true nor false"),
                        "write true or false",
                    ),
                },
                _ => {}
            }
        }
        if config.cert_file.is_some() != config.key_file.is_some() {
            let what = format!("{at}: cert_file and key_file belong together");
            self.problem(node.line, what, "write both");
        }
    }
}

/// An endpoint as k3s reads it; the error is what to write.
fn endpoint(text: &str) -> Result<Url, &'static str> {
    const FIX: &str = "write http:// or https://, a host, and what it needs of port and path";
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else if is_private(text.split('/').next().unwrap_or_default()) && text.contains(':') {
        // As k3s: a local one on a port of its own speaks plain HTTP.
        format!("http://{text}")
    } else {
        format!("https://{text}")
    };
    let mut url = Url::parse(&with_scheme).map_err(|_| FIX)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(FIX);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("write user and password below configs, not into the address");
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(if path.is_empty() { "/v2" } else { &path });
    if HUB_NAMES.contains(&url.host_str().unwrap_or_default()) {
        url.set_host(Some(HUB)).map_err(|_| FIX)?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
