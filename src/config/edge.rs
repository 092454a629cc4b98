//! Pure: the `edge` section: through which tunnel the box is reached, and which hosts are public.
//!
//! A host is public because it is named here, or because its Ingress carries the label, or matches
//! the pattern, that is named here: a new Ingress never becomes public by accident. Names outside
//! the zones are refused. What only the provider or the cluster can tell (whether a zone exists,
//! which Service an ingress controller has) is met by the run, not here.

use super::fragment::{Node, Value};
use super::problem::{Place, Problem};
use super::settings::Reader;
use std::path::Path;
use std::time::Duration;

/// The provider's API.
const URL: &str = "https://api.cloudflare.com/client/v4";

/// What runs as a connector unless said; a digest may follow the tag, and is then what counts.
const IMAGE: &str = "docker.io/cloudflare/cloudflared:2025.8.1";

/// How the box is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSettings {
    /// Base of the provider's API, without a slash at its end.
    pub url: String,
    /// Account by name or id; that of the zones unless said.
    pub account: Option<String>,
    /// Zones by name or id, at least one.
    pub zones: Vec<String>,
    /// Name of the tunnel; one that we make has a suffix besides.
    pub tunnel: String,
    /// True when a tunnel of exactly this name is somebody else's, and ours to add routes to.
    pub adopt: bool,
    /// Public hosts, lower case; `*.` may stand first.
    pub hosts: Vec<String>,
    /// Which hosts of Ingresses and HTTPRoutes are public besides.
    pub discover: Option<Discover>,
    /// Where requests go.
    pub ingress: IngressSettings,
    /// Who runs the tunnel's end in the cluster.
    pub connector: ConnectorSettings,
    /// Whether the tunnel's configuration is managed.
    pub routes: bool,
    /// Whether DNS records are managed.
    pub dns: bool,
    /// How often the provider is asked, 1 min to 24 h; 10 min unless said.
    pub interval: Duration,
}

/// Which hosts of the cluster's own objects are public; with both, both must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// Label of the object, key and value.
    pub label: Option<(String, String)>,
    /// Pattern of the host, in which `*` stands for anything.
    pub pattern: Option<String>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressSettings {
    /// Who brings the controller.
    pub controller: IngressBy,
    /// The IngressClass or GatewayClass, where there are several.
    pub class: Option<String>,
    /// Its Service, where it cannot be told from labels.
    pub service: Option<ServiceRef>,
    /// How it is spoken to; http when it has a port for that, unless said.
    pub scheme: Option<Scheme>,
    /// Whether its certificate is checked, with https.
    pub verify: bool,
}

/// Who brings the ingress controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IngressBy {
    /// Whoever has: what is found is used, and nothing is written.
    #[default]
    Auto,
    /// k3s brings Traefik, and we write its HelmChartConfig.
    Traefik,
    /// The repository.
    Repository,
}

/// A Service, `namespace/name` or `namespace/name:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The port, where it is not to be chosen by its name.
    pub port: Option<u16>,
}

/// How the ingress controller is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear, inside the cluster.
    Http,
    /// With TLS, by the public host's name.
    Https,
}

/// Who runs the tunnel's end in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorSettings {
    /// Who brings it.
    pub by: ConnectorBy,
    /// How many, 1 to 8; 2 unless said.
    pub replicas: u32,
    /// Its image.
    pub image: String,
}

/// Who brings the connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectorBy {
    /// The daemon.
    #[default]
    Gitopsd,
    /// The repository; it is only looked at.
    Repository,
}

impl Reader<'_> {
    pub(super) fn edge(&mut self) -> Option<EdgeSettings> {
        let section = self.find("edge")?;
        let Value::Map(_) = &section.value else {
            // It was said what is wrong with it; what it lacks besides is no help.
            return None;
        };
        let place = section.place.clone();
        let url = self.edge_url();
        let zones = self.many("edge.cloudflare.zones", |said| match is_id(said) || is_host(said) {
            true => Ok(said.to_ascii_lowercase()),
            false => Err("the name or id of a zone, such as example.com"),
        });
        if self.unsaid("edge.cloudflare.zones") {
            self.no_zones(&place);
        }
        let tunnel = self.tunnel(&place);
        let adopt = self.flag("edge.tunnel.adopt", false);
        let hosts = self.many("edge.hosts", |said| {
            let host = said.to_ascii_lowercase();
            match is_host(host.strip_prefix("*.").unwrap_or(&host)) {
                true => Ok(host),
                false => Err("a host name, such as blaster.example.com"),
            }
        });
        self.outside(&zones);
        let discover = self.discover();
        if ["hosts", "discover.label", "discover.pattern"]
            .iter()
            .all(|key| self.unsaid(&format!("edge.{key}")))
        {
            let fix =
                "write below edge hosts: [www.example.com], or discover with a label or a pattern";
            let (key, fix) = ("edge.hosts".to_owned(), fix.to_owned());
            self.problems.push(Problem::Missing { place, key, fix });
        }
        let ingress = self.ingress();
        let connector = self.connector(adopt);
        let managed = |said: &str| match said {
            "manage" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        let minute = Duration::from_secs(60);
        Some(EdgeSettings {
            url,
            account: self.text("edge.cloudflare.account").map(|(said, _)| said.to_owned()),
            zones,
            tunnel,
            adopt,
            hosts,
            discover,
            ingress,
            connector,
            routes: self.one("edge.routes", true, "manage or off", managed),
            dns: self.one("edge.dns", true, "manage or off", managed),
            interval: self.duration(("edge.interval", 10 * minute), minute, 24 * 60 * minute),
        })
    }

    /// True where a key says nothing: it is absent, or an empty list.
    fn unsaid(&self, path: &str) -> bool {
        self.find(path).is_none_or(|node| matches!(&node.value, Value::List(l) if l.is_empty()))
    }

    /// No zone is named: where it is to stand, and what it most likely is, told from a host.
    fn no_zones(&mut self, edge: &Place) {
        let mut hosts = self.listed("edge.hosts").into_iter().map(|(said, _)| said.to_lowercase());
        let zone = hosts.find(|host| is_host(host.strip_prefix("*.").unwrap_or(host)));
        let zone = zone.map(|host| match host.split_once('.') {
            Some((_, rest)) if rest.contains('.') => rest.to_owned(),
            _ => host,
        });
        let zone = zone.as_deref().unwrap_or("example.com");
        let (place, fix) = match self.find("edge.cloudflare") {
            Some(node) => {
                (node.place.clone(), format!("write below edge.cloudflare zones: [{zone}]"))
            }
            None => (edge.clone(), format!("write below edge cloudflare: {{zones: [{zone}]}}")),
        };
        let key = "edge.cloudflare.zones".to_owned();
        self.problems.push(Problem::Missing { place, key, fix });
    }

    /// The token goes along with every request: in the clear, to this machine only.
    fn edge_url(&mut self) -> String {
        let takes = "https://…, or http:// on 127.0.0.1 alone";
        let said = self.one("edge.cloudflare.url", URL.to_owned(), takes, |said| {
            let loopback = ["http://127.0.0.1:", "http://[::1]:"];
            let safe = said.starts_with("https://") || loopback.iter().any(|l| said.starts_with(l));
            // What stands before an @ is a user name, whatever it looks like.
            (safe && !said.contains('@')).then(|| said.to_owned())
        });
        said.trim_end_matches('/').to_owned()
    }

    /// A single value that may stand at a key or, with others, below it.
    fn short(&self, path: &str, first: &str) -> String {
        match self.text(path) {
            Some(_) => path.to_owned(),
            None => format!("{path}.{first}"),
        }
    }

    fn tunnel(&mut self, edge: &Place) -> String {
        let path = self.short("edge.tunnel", "name");
        if self.text(&path).is_none() {
            let section =
                self.find("edge.tunnel").filter(|node| matches!(node.value, Value::Map(_)));
            let (place, fix) = match section {
                Some(node) => (node.place.clone(), "write below edge.tunnel name: home"),
                None => (edge.clone(), "write below edge tunnel: home"),
            };
            let key = "edge.tunnel.name".to_owned();
            self.problems.push(Problem::Missing { place, key, fix: fix.to_owned() });
        }
        self.one(&path, String::new(), "at most 80 letters, digits, - and _", |said| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let fine = (1..=80).contains(&said.len()) && said.bytes().all(fits);
            fine.then(|| said.to_owned())
        })
    }

    fn flag(&mut self, path: &str, default: bool) -> bool {
        self.one(path, default, "true or false", |said| said.parse().ok())
    }

    /// Hosts that lie in none of the zones. A zone that is given by its id has a name that is not
    /// known here.
    fn outside(&mut self, zones: &[String]) {
        if zones.is_empty() || zones.iter().any(|zone| is_id(zone)) {
            return;
        }
        let under = |host: &str| {
            let host = host.strip_prefix("*.").unwrap_or(host);
            zones.iter().any(|zone| within(host, zone))
        };
        for (said, place) in self.listed("edge.hosts") {
            let host = said.to_ascii_lowercase();
            if is_host(host.strip_prefix("*.").unwrap_or(&host)) && !under(&host) {
                let what = format!("{said:?} lies in none of the zones ({})", zones.join(", "));
                let fix = "add its zone to edge.cloudflare.zones, or remove it";
                self.invalid("edge.hosts", &place, what, fix);
            }
        }
    }

    fn discover(&mut self) -> Option<Discover> {
        self.find("edge.discover")?;
        let label = self.one("edge.discover.label", None, "KEY=VALUE", |said| {
            let (key, value) = said.split_once('=')?;
            let fine = !key.is_empty() && !value.is_empty() && !said.contains([' ', ',', '!']);
            fine.then(|| Some((key.to_owned(), value.to_owned())))
        });
        let takes = "a host in which * stands for anything, such as *.example.com";
        let pattern = self.one("edge.discover.pattern", None, takes, |said| {
            let plain = said.replace('*', "x");
            is_host(&plain).then(|| Some(said.to_ascii_lowercase()))
        });
        Some(Discover { label, pattern }).filter(|d| d.label.is_some() || d.pattern.is_some())
    }

    fn ingress(&mut self) -> IngressSettings {
        let path = self.short("edge.ingress", "controller");
        let takes = "auto, traefik or repository";
        let controller = self.one(&path, IngressBy::Auto, takes, |said| match said {
            "auto" => Some(IngressBy::Auto),
            "traefik" => Some(IngressBy::Traefik),
            "repository" => Some(IngressBy::Repository),
            _ => None,
        });
        let takes = "NAMESPACE/NAME or NAMESPACE/NAME:PORT";
        let scheme = self.one("edge.ingress.scheme", None, "http or https", |said| match said {
            "http" => Some(Some(Scheme::Http)),
            "https" => Some(Some(Scheme::Https)),
            _ => None,
        });
        IngressSettings {
            controller,
            class: self.text("edge.ingress.class").map(|(said, _)| said.to_owned()),
            service: self.one("edge.ingress.service", None, takes, |said| service(said).map(Some)),
            scheme,
            verify: self.flag("edge.ingress.verify", true),
        }
    }

    fn connector(&mut self, adopt: bool) -> ConnectorSettings {
        let path = self.short("edge.connector", "by");
        let by =
            self.one(&path, ConnectorBy::Gitopsd, "gitopsd or repository", |said| match said {
                "gitopsd" => Some(ConnectorBy::Gitopsd),
                "repository" => Some(ConnectorBy::Repository),
                _ => None,
            });
        if let (ConnectorBy::Repository, false, Some((_, place))) = (by, adopt, self.text(&path)) {
            let what = "the repository's connector has a tunnel already";
            self.invalid(&path, place, what, "name that one, and write tunnel.adopt: true");
        }
        let takes = "an image, such as docker.io/cloudflare/cloudflared:TAG@sha256:…";
        ConnectorSettings {
            by,
            replicas: self.number("edge.connector.replicas", 2, 1, 8),
            image: self.one("edge.connector.image", IMAGE.to_owned(), takes, |said| {
                let tagged = said.contains('@') || last(said).contains(':');
                let plain = !said.contains(char::is_whitespace) && !said.ends_with(":latest");
                (tagged && plain && Path::new(said).is_relative()).then(|| said.to_owned())
            }),
        }
    }

    /// Values of a list, each checked; what is refused is a problem of its own line.
    fn many(
        &mut self,
        path: &str,
        parse: impl Fn(&str) -> Result<String, &'static str>,
    ) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        for (said, place) in self.listed(path) {
            match parse(&said) {
                Ok(value) if values.contains(&value) => {
                    self.invalid(path, &place, format!("{said:?} is said twice"), "remove one");
                }
                Ok(value) => values.push(value),
                Err(takes) => {
                    let what = format!("{said:?} is not taken");
                    self.invalid(path, &place, what, &format!("write {takes}"));
                }
            }
        }
        values
    }

    fn listed(&self, path: &str) -> Vec<(String, Place)> {
        let Some(Node { value: Value::List(items), .. }) = self.find(path) else {
            return Vec::new();
        };
        let text = |item: &Node| match &item.value {
            Value::Scalar(text) => Some((text.clone(), item.place.clone())),
            _ => None,
        };
        items.iter().filter_map(text).collect()
    }
}

fn last(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

fn service(said: &str) -> Option<ServiceRef> {
    let (namespace, rest) = said.split_once('/')?;
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port > 0)?)),
        None => (rest, None),
    };
    let label = |text: &str| is_label(text) && !text.contains('_');
    let fine = label(namespace) && label(name);
    fine.then(|| ServiceRef { namespace: namespace.to_owned(), name: name.to_owned(), port })
}

/// True for the id of an account or zone: 32 hexadecimal digits.
fn is_id(said: &str) -> bool {
    said.len() == 32 && said.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_host(said: &str) -> bool {
    said.len() <= 253 && said.contains('.') && said.split('.').all(is_label)
}

/// Whether a host is the zone itself or lies below it.
fn within(host: &str, zone: &str) -> bool {
    host == zone || host.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fragment::parse;
    use crate::config::settings::{Handed, settings};

    fn read(edge: &str) -> Result<EdgeSettings, Vec<String>> {
        let text = format!("root: {{url: https://g/a.git, path: x}}\nedge:\n{edge}");
        let (node, mut problems) = parse("c.yaml", &text);
        let tree = node.expect("the sample is YAML");
        let (config, more) = settings(&tree, "c.yaml", &Handed::default());
        problems.extend(more);
        match problems.is_empty() {
            true => Ok(config.and_then(|config| config.edge).expect("it was said")),
            false => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn three_keys_are_enough_and_the_rest_has_defaults() {
        let read = read(
            "  cloudflare: {zones: [example.com]}\n  tunnel: home\n  hosts: [Blaster.example.com]\n",
        );
        let expected = EdgeSettings {
            url: URL.into(),
            account: None,
            zones: vec!["example.com".into()],
            tunnel: "home".into(),
            adopt: false,
            hosts: vec!["blaster.example.com".into()],
            discover: None,
            ingress: IngressSettings {
                controller: IngressBy::Auto,
                class: None,
                service: None,
                scheme: None,
                verify: true,
            },
            connector: ConnectorSettings {
                by: ConnectorBy::Gitopsd,
                replicas: 2,
                image: IMAGE.into(),
            },
            routes: true,
            dns: true,
            interval: Duration::from_secs(600),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn every_key_is_read() {
        let read = read(
            "  cloudflare:\n    tokenFile: /t\n    account: Home\n    zones: [0123456789abcdef0123456789abcdef]\n    \
             url: http://127.0.0.1:9/v4/\n  tunnel: {name: lab, adopt: true}\n  \
             hosts: ['*.example.com']\n  discover: {label: public=yes, pattern: '*.example.com'}\n  \
             ingress: {controller: repository, class: nginx, service: 'a/b:8080', scheme: https, verify: false}\n  \
             connector: {by: repository, replicas: 1, image: 'x/c:1@sha256:00'}\n  routes: off\n  dns: off\n  interval: 5m\n",
        );
        let expected = EdgeSettings {
            url: "http://127.0.0.1:9/v4".into(),
            account: Some("Home".into()),
            zones: vec!["0123456789abcdef0123456789abcdef".into()],
            tunnel: "lab".into(),
            adopt: true,
            hosts: vec!["*.example.com".into()],
            discover: Some(Discover {
                label: Some(("public".into(), "yes".into())),
                pattern: Some("*.example.com".into()),
            }),
            ingress: IngressSettings {
                controller: IngressBy::Repository,
                class: Some("nginx".into()),
                service: Some(ServiceRef {
                    namespace: "a".into(),
                    name: "b".into(),
                    port: Some(8080),
                }),
                scheme: Some(Scheme::Https),
                verify: false,
            },
            connector: ConnectorSettings {
                by: ConnectorBy::Repository,
                replicas: 1,
                image: "x/c:1@sha256:00".into(),
            },
            routes: false,
            dns: false,
            interval: Duration::from_secs(300),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn every_problem_comes_at_once_with_its_line_and_remedy() {
        assert_eq!(
            read("  hosts: nowhere\n").unwrap_err(),
            [
                "c.yaml:3: edge.hosts: not a list, write [nowhere]",
                "c.yaml:2: edge.cloudflare.zones: missing, write below edge cloudflare: \
                 {zones: [example.com]}",
                "c.yaml:2: edge.tunnel.name: missing, write below edge tunnel: home",
            ]
        );
        let text = "  cloudflare:\n    zones: [example.com]\n    url: http://api.example\n  tunnel: a b\n  \
                    hosts:\n  - www.example.com\n  - www.example.com\n  - blaster.reids.net.au\n  - -x\n  \
                    ingress: haproxy\n  connector: {by: repository, image: 'c:latest'}\n  dns: yes\n";
        assert_eq!(
            read(text).unwrap_err(),
            [
                "c.yaml:5: edge.cloudflare.url: \"http://api.example\" is not taken, write https://…, \
                 or http:// on 127.0.0.1 alone",
                "c.yaml:6: edge.tunnel: \"a b\" is not taken, write at most 80 letters, digits, - and _",
                "c.yaml:9: edge.hosts: \"www.example.com\" is said twice, remove one",
                "c.yaml:11: edge.hosts: \"-x\" is not taken, write a host name, such as blaster.example.com",
                "c.yaml:10: edge.hosts: \"blaster.reids.net.au\" lies in none of the zones \
                 (example.com), add its zone to edge.cloudflare.zones, or remove it",
                "c.yaml:12: edge.ingress: \"haproxy\" is not taken, write auto, traefik or repository",
                "c.yaml:13: edge.connector.by: the repository's connector has a tunnel already, name \
                 that one, and write tunnel.adopt: true",
                "c.yaml:13: edge.connector.image: \"c:latest\" is not taken, write an image, such as \
                 docker.io/cloudflare/cloudflared:TAG@sha256:…",
                "c.yaml:14: edge.dns: \"yes\" is not taken, write manage or off",
            ]
        );
    }

    #[test]
    fn a_usual_mistake_is_one_problem_that_says_where_things_belong() {
        // No zone; it can be told from the host. As one value; at the wrong depth.
        let told = |text: &str| read(text).unwrap_err();
        assert_eq!(
            told("  cloudflare: {account: Home}\n  tunnel: home\n  hosts: [www.lab.example]\n"),
            [
                "c.yaml:3: edge.cloudflare.zones: missing, write below edge.cloudflare zones: [lab.example]"
            ]
        );
        assert_eq!(
            told(
                "  cloudflare:\n    zones: lab.example\n  tunnel: home\n  hosts: [www.lab.example]\n"
            ),
            ["c.yaml:4: edge.cloudflare.zones: not a list, write [lab.example]"]
        );
        assert_eq!(
            told(
                "  cloudflare:\n    zones: [lab.example]\n    hosts: [www.lab.example]\n  tunnel: home\n"
            ),
            [
                "c.yaml:5: edge.cloudflare.hosts: unknown key, it belongs at edge.hosts; mind the \
                 indentation",
                "c.yaml:2: edge.hosts: missing, write below edge hosts: [www.example.com], or discover \
                 with a label or a pattern",
            ]
        );
        // Nothing is indented: each key says where it belongs.
        let flat = "cloudflare: {zones: [lab.example]}\ntunnel: home\n";
        assert_eq!(
            told(flat),
            [
                "c.yaml:3: cloudflare: unknown key, it belongs at edge.cloudflare; mind the indentation",
                "c.yaml:4: tunnel: unknown key, it belongs at edge.tunnel; mind the indentation",
            ]
        );
        assert_eq!(
            told(" true\n"),
            ["c.yaml:2: edge: not a map, write keys below it: cloudflare, tunnel, hosts, \
                 discover, ingress, connector, routes, dns, interval"]
        );
        assert_eq!(
            told(
                "  cloudflare: {zones: [lab.example]}\n  tunnel: {adopt: true}\n  name: home\n  \
                 discover: {label: public}\n"
            ),
            [
                "c.yaml:5: edge.name: unknown key, it belongs at edge.tunnel.name; mind the indentation",
                "c.yaml:4: edge.tunnel.name: missing, write below edge.tunnel name: home",
                "c.yaml:6: edge.discover.label: \"public\" is not taken, write KEY=VALUE",
            ]
        );
    }
}
