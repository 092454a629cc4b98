//! Pure: what the cluster has of ingress controllers → which Service requests go to.
//!
//! Nothing is installed for it. The controller that is there is used: k3s's Traefik, or one that the
//! repository brings, found by the IngressClass or GatewayClass that names it and its Service by the
//! labels that it usually has. Of several, one has to be named. At a cold start there is none yet,
//! and that is no failure: the run comes again.

use super::state::Zoned;
use crate::config::{Discover, EdgeSettings, IngressBy, Scheme, ServiceRef};
use std::collections::{BTreeMap, BTreeSet};

/// What identifies a controller, and the name that its Service has as a label or selects by.
const KNOWN: [(&str, &str); 2] =
    [("traefik.io/ingress-controller", "traefik"), (NGINX, "ingress-nginx")];

const NGINX: &str = "k8s.io/ingress-nginx";

/// The label with that name.
const NAME: &str = "app.kubernetes.io/name";

/// Label of the Service that a Gateway gets from its controller.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

/// What the cluster has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// IngressClasses.
    pub classes: Vec<Class>,
    /// GatewayClasses.
    pub gateways: Vec<Class>,
    /// Services.
    pub services: Vec<Service>,
    /// True when k3s's Helm controller is there.
    pub helm: bool,
    /// True when it has a chart of Traefik.
    pub traefik: bool,
    /// Who else has written Traefik's HelmChartConfig.
    pub tuned_by: Option<String>,
    /// Connectors that we have not made, `Kind/namespace/name`.
    pub connectors: Vec<String>,
    /// Hosts of Ingresses and HTTPRoutes.
    pub published: Vec<Published>,
    /// True when one of these takes requests for any host.
    pub catch_all: bool,
    /// Ranges of the pods' addresses, as the nodes have them.
    pub ranges: Vec<String>,
    /// True when cert-manager is there.
    pub cert_manager: bool,
}

impl Facts {
    /// Whether an Ingress or HTTPRoute takes requests for a host or, of a wildcard, for some of its
    /// hosts.
    pub fn serves(&self, host: &str) -> bool {
        let covers =
            |wide: &str, host: &str| wide.strip_prefix('*').is_some_and(|end| host.ends_with(end));
        let takes = |known: &str| known == host || covers(known, host) || covers(host, known);
        self.catch_all || self.published.iter().any(|published| takes(&published.host))
    }

    /// What the operator should know of what else is there.
    pub fn advice(&self) -> Option<&'static str> {
        self.cert_manager.then_some(
            "cert-manager is there: behind a tunnel its HTTP-01 challenges need a route, DNS-01 \
             needs none",
        )
    }
}

/// An IngressClass or GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// The controller that it names.
    pub controller: String,
    /// Whether Ingresses without a class belong to it.
    pub default: bool,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, and what it selects its pods by.
    pub labels: BTreeMap<String, String>,
    /// Its TCP ports.
    pub ports: Vec<Port>,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its number.
    pub number: u16,
}

/// A host of an Ingress or HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host.
    pub host: String,
    /// `Kind/namespace/name`.
    pub object: String,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `namespace/name` of the Service.
    pub service: (String, String),
    /// Its URL inside the cluster.
    pub url: String,
    /// Whether it is spoken to with TLS.
    pub tls: bool,
    /// Whether Traefik's class is to be the default one; `None` when it is not ours to say.
    pub default: Option<bool>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why there is nowhere to send requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A sentence.
    pub cause: String,
    /// What to do.
    pub hint: String,
    /// True when it may just not be there yet.
    pub wait: bool,
}

impl Trouble {
    fn new(cause: impl Into<String>, hint: impl Into<String>, wait: bool) -> Self {
        Trouble { cause: cause.into(), hint: hint.into(), wait }
    }
}

/// Chooses the Service.
///
/// # Errors
/// What is missing or not clear.
pub fn choose(settings: &EdgeSettings, facts: &Facts) -> Result<Target, Trouble> {
    let wanted = &settings.ingress;
    let defaults: Vec<&Class> = facts.classes.iter().filter(|class| class.default).collect();
    if let [one, other, ..] = defaults.as_slice() {
        return Err(Trouble::new(
            format!("IngressClasses {} and {} are both the default", one.name, other.name),
            "take the annotation ingressclass.kubernetes.io/is-default-class from one of them",
            false,
        ));
    }
    let class = match (&wanted.service, wanted.controller) {
        (Some(_), by) if by != IngressBy::Traefik => None,
        (_, IngressBy::Traefik) => Some(traefik(facts)?),
        _ => Some(class(settings, facts, &defaults)?),
    };
    let found = match (&wanted.service, &class) {
        (Some(said), _) => named(facts, said)?,
        (None, Some(class)) => of_class(facts, class)?,
        (None, None) => return Err(nothing(facts)),
    };
    let (port, tls) = port(found, wanted.scheme, wanted.service.as_ref())?;
    let Service { namespace, name, .. } = found;
    let scheme = if tls { "https" } else { "http" };
    let mut warnings = Vec::new();
    let nginx = |class: &Class| class.controller == NGINX;
    if class.as_ref().is_some_and(nginx) || (class.is_none() && facts.classes.iter().any(nginx)) {
        warnings.push(
            "ingress-nginx is retired upstream since March 2026 and gets no security fixes: plan a \
             move to another controller"
                .to_owned(),
        );
    }
    let default = (wanted.controller == IngressBy::Traefik).then(|| default_class(facts));
    if default == Some(false) {
        warnings.push(format!(
            "Traefik's IngressClass is not made the default, as {} is",
            defaults[0].name
        ));
    }
    Ok(Target {
        service: (namespace.clone(), name.clone()),
        url: format!("{scheme}://{name}.{namespace}.svc.cluster.local:{port}"),
        tls,
        default,
        warnings,
    })
}

/// Whether Traefik's class may be the default one: not beside another.
pub fn default_class(facts: &Facts) -> bool {
    !facts.classes.iter().any(|class| class.default && class.controller != KNOWN[0].0)
}

/// k3s's own Traefik.
fn traefik(facts: &Facts) -> Result<Class, Trouble> {
    if let Some(other) = &facts.tuned_by {
        return Err(Trouble::new(
            format!("HelmChartConfig/kube-system/traefik is {other}"),
            "keep its settings there and write edge.ingress: auto, or remove it",
            false,
        ));
    }
    let known = facts.classes.iter().find(|class| class.controller == KNOWN[0].0);
    match known {
        Some(class) => Ok(class.clone()),
        None if facts.traefik => Err(Trouble::new(
            "Traefik's chart is there, its IngressClass is not yet",
            "see kubectl -n kube-system get jobs",
            true,
        )),
        None if facts.helm => Err(Trouble::new(
            "k3s runs without its Traefik",
            "take traefik from `disable:` in /etc/rancher/k3s/config.yaml and traefik.yaml.skip \
             from /var/lib/rancher/k3s/server/manifests, then: systemctl restart k3s",
            true,
        )),
        None => Err(Trouble::new(
            "there is no Traefik of k3s, nor k3s's Helm controller",
            "write edge.ingress: repository, and bring a controller in Git",
            true,
        )),
    }
}

/// The class that is meant, of those that are there.
fn class(settings: &EdgeSettings, facts: &Facts, defaults: &[&Class]) -> Result<Class, Trouble> {
    let all = || facts.classes.iter().chain(&facts.gateways);
    if let Some(said) = &settings.ingress.class {
        return all().find(|class| class.name == *said).cloned().ok_or_else(|| {
            Trouble::new(
                format!("there is no IngressClass or GatewayClass {said} yet"),
                "correct edge.ingress.class, or see whether its Kustomization is ready",
                true,
            )
        });
    }
    if let [only] = defaults {
        return Ok((*only).clone());
    }
    let controllers: BTreeSet<&str> = all().map(|class| class.controller.as_str()).collect();
    match (all().next(), controllers.len()) {
        (None, _) => Err(nothing(facts)),
        (Some(class), 1) => Ok(class.clone()),
        _ => {
            let names: Vec<&str> = all().map(|class| class.name.as_str()).collect();
            Err(Trouble::new(
                format!("there are several ingress controllers: {}", names.join(", ")),
                "name one as edge.ingress.class",
                false,
            ))
        }
    }
}

fn nothing(facts: &Facts) -> Trouble {
    let hint = if facts.helm {
        "k3s's Traefik may still be starting; else see edge.ingress in gitopsd.config(5)"
    } else {
        "bring one in Git, or name its Service as edge.ingress.service"
    };
    Trouble::new("there is no ingress controller yet", hint, true)
}

fn named<'a>(facts: &'a Facts, said: &ServiceRef) -> Result<&'a Service, Trouble> {
    let is = |service: &&Service| service.namespace == said.namespace && service.name == said.name;
    facts.services.iter().find(is).ok_or_else(|| {
        Trouble::new(
            format!("there is no Service {}/{} yet", said.namespace, said.name),
            "correct edge.ingress.service, or see whether its Kustomization is ready",
            true,
        )
    })
}

/// The Service of a class's controller.
fn of_class<'a>(facts: &'a Facts, class: &Class) -> Result<&'a Service, Trouble> {
    let gateway = facts.gateways.contains(class);
    let known = KNOWN.iter().find(|(controller, _)| *controller == class.controller);
    let last = class.controller.rsplit('/').next().unwrap_or_default();
    let called =
        |service: &Service, name: &str| service.labels.get(NAME).is_some_and(|n| n == name);
    let fits = |service: &&Service| match known {
        Some((_, name)) => called(service, name),
        None if gateway => service.labels.contains_key(GATEWAY),
        None => called(service, last) || called(service, &class.name),
    };
    // A Service for the controller's own webhook has port 443 too.
    let by = |port: fn(&Port) -> bool| -> Vec<&Service> {
        let serves = |service: &&Service| service.ports.iter().any(port);
        facts.services.iter().filter(fits).filter(serves).collect()
    };
    let found = Some(by(web)).filter(|found| !found.is_empty()).unwrap_or_else(|| by(secure));
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(Trouble::new(
            format!("no Service of the controller of class {} is found", class.name),
            "wait until it is there, or name it as edge.ingress.service",
            true,
        )),
        several => {
            let names: Vec<String> =
                several.iter().map(|s| format!("{}/{}", s.namespace, s.name)).collect();
            Err(Trouble::new(
                format!("class {} has several Services: {}", class.name, names.join(", ")),
                "name one as edge.ingress.service",
                false,
            ))
        }
    }
}

fn web(port: &Port) -> bool {
    port.number == 80 || matches!(port.name.as_str(), "web" | "http")
}

fn secure(port: &Port) -> bool {
    let webhook = port.name.contains("webhook");
    !webhook && (port.number == 443 || matches!(port.name.as_str(), "websecure" | "https"))
}

/// The port, and whether it speaks TLS.
fn port(
    service: &Service,
    scheme: Option<Scheme>,
    said: Option<&ServiceRef>,
) -> Result<(u16, bool), Trouble> {
    if let Some(number) = said.and_then(|said| said.port) {
        let guessed = service.ports.iter().any(|port| port.number == number && secure(port));
        return Ok((number, scheme.map_or(guessed, |scheme| scheme == Scheme::Https)));
    }
    let of = |fits: fn(&Port) -> bool| service.ports.iter().find(|port| fits(port));
    let found = match scheme {
        Some(Scheme::Http) => of(web).map(|port| (port.number, false)),
        Some(Scheme::Https) => of(secure).map(|port| (port.number, true)),
        None => of(web)
            .map(|port| (port.number, false))
            .or_else(|| of(secure).map(|port| (port.number, true))),
    };
    found.ok_or_else(|| {
        let Service { namespace, name, .. } = service;
        Trouble::new(
            format!("Service {namespace}/{name} has no port that is called http or https"),
            "say which one: edge.ingress.service: NAMESPACE/NAME:PORT",
            false,
        )
    })
}

/// Every host that is public though the configuration does not name it: those that are discovered
/// under the zones.
pub fn found(settings: &EdgeSettings, zones: &[Zoned], facts: &Facts) -> BTreeSet<String> {
    let Some(discover) = &settings.discover else { return BTreeSet::new() };
    let found = facts.published.iter().filter(|published| discovered(discover, published));
    let under = |host: &&str| zones.iter().any(|zone| within(host, &zone.name));
    let found = found.map(|published| published.host.as_str()).filter(under);
    let named = |host: &&str| settings.hosts.iter().any(|named| named == host);
    found.filter(|host| !named(host)).map(str::to_owned).collect()
}

fn discovered(discover: &Discover, published: &Published) -> bool {
    let labelled = discover
        .label
        .as_ref()
        .is_none_or(|(key, value)| published.labels.get(key).is_some_and(|v| v == value));
    let named = discover.pattern.as_ref().is_none_or(|pattern| glob(pattern, &published.host));
    labelled && named
}

/// Whether a host fits a pattern in which `*` stands for anything.
fn glob(pattern: &str, host: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = host.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Whether a host is the zone itself or lies below it.
pub fn within(host: &str, zone: &str) -> bool {
    let host = host.strip_prefix("*.").unwrap_or(host);
    host == zone || host.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests;
