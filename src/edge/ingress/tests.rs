//! Clusters in, the Service that requests go to or a sentence out.

use super::*;
use crate::config::{ConnectorBy, ConnectorSettings, IngressSettings};
use std::time::Duration;

fn settings(controller: IngressBy) -> EdgeSettings {
    EdgeSettings {
        url: "https://api".into(),
        account: None,
        zones: vec!["muppit.au".into()],
        tunnel: "home".into(),
        adopt: false,
        hosts: vec!["blaster.muppit.au".into()],
        discover: None,
        ingress: IngressSettings {
            controller,
            class: None,
            service: None,
            scheme: None,
            verify: true,
        },
        connector: ConnectorSettings { by: ConnectorBy::Gitopsd, replicas: 2, image: "c:1".into() },
        routes: true,
        dns: true,
        interval: Duration::from_secs(600),
    }
}

fn class(name: &str, controller: &str, default: bool) -> Class {
    Class { name: name.into(), controller: controller.into(), default }
}

fn service(namespace: &str, name: &str, labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Service {
    let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    let port = |(name, number): &(&str, u16)| Port { name: (*name).to_owned(), number: *number };
    Service {
        namespace: namespace.into(),
        name: name.into(),
        labels: labels.iter().map(own).collect(),
        ports: ports.iter().map(port).collect(),
    }
}

fn k3s() -> Facts {
    Facts {
        classes: vec![class("traefik", "traefik.io/ingress-controller", true)],
        services: vec![service(
            "kube-system",
            "traefik",
            &[("app.kubernetes.io/name", "traefik")],
            &[("web", 80), ("websecure", 443)],
        )],
        helm: true,
        traefik: true,
        ..Facts::default()
    }
}

fn nginx() -> Facts {
    let labels = [("app.kubernetes.io/name", "ingress-nginx")];
    Facts {
        classes: vec![class("nginx", NGINX, false)],
        services: vec![
            service("ingress-nginx", "controller", &labels, &[("http", 80), ("https", 443)]),
            service("ingress-nginx", "admission", &labels, &[("https-webhook", 443)]),
        ],
        ..Facts::default()
    }
}

fn said(settings: &EdgeSettings, facts: &Facts) -> String {
    match choose(settings, facts) {
        Ok(target) => target.url,
        Err(trouble) => format!("{}{}", if trouble.wait { "wait: " } else { "" }, trouble.cause),
    }
}

#[test]
fn the_controller_that_is_there_is_used() {
    let auto = settings(IngressBy::Auto);
    assert_eq!(said(&auto, &k3s()), "http://traefik.kube-system.svc.cluster.local:80");
    assert_eq!(said(&auto, &nginx()), "http://controller.ingress-nginx.svc.cluster.local:80");
    let warnings = choose(&auto, &nginx()).expect("nginx").warnings;
    assert!(warnings[0].contains("retired upstream"), "{warnings:?}");
    let gateway = Facts {
        gateways: vec![class("cilium", "io.cilium/gateway-controller", false)],
        services: vec![service("web", "gw", &[(GATEWAY, "main")], &[("", 443)])],
        ..Facts::default()
    };
    assert_eq!(said(&auto, &gateway), "https://gw.web.svc.cluster.local:443");
    let own = Facts {
        classes: vec![class("haproxy", "haproxy.org/ingress-controller/x", false)],
        services: vec![service(
            "lb",
            "ha",
            &[("app.kubernetes.io/name", "haproxy")],
            &[("http", 8080)],
        )],
        ..Facts::default()
    };
    assert_eq!(said(&auto, &own), "http://ha.lb.svc.cluster.local:8080");
}

#[test]
fn what_is_missing_is_waited_for_and_what_is_not_clear_is_asked() {
    let auto = settings(IngressBy::Auto);
    assert_eq!(said(&auto, &Facts::default()), "wait: there is no ingress controller yet");
    let mut both = k3s();
    both.classes[0].default = false;
    both.classes.extend(nginx().classes);
    both.services.extend(nginx().services);
    assert_eq!(said(&auto, &both), "there are several ingress controllers: traefik, nginx");
    let mut named = auto.clone();
    named.ingress.class = Some("nginx".into());
    assert_eq!(said(&named, &both), "http://controller.ingress-nginx.svc.cluster.local:80");
    both.classes.iter_mut().for_each(|class| class.default = true);
    assert_eq!(said(&named, &both), "IngressClasses traefik and nginx are both the default");
    let mut service = auto;
    service.ingress.service =
        Some(ServiceRef { namespace: "a".into(), name: "b".into(), port: Some(9000) });
    assert_eq!(said(&service, &k3s()), "wait: there is no Service a/b yet");
}

#[test]
fn traefik_is_made_the_default_only_where_there_is_no_other() {
    let traefik = settings(IngressBy::Traefik);
    assert_eq!(choose(&traefik, &k3s()).expect("traefik").default, Some(true));
    let mut facts = k3s();
    facts.classes[0].default = false;
    facts.classes.push(class("nginx", NGINX, true));
    let target = choose(&traefik, &facts).expect("traefik");
    assert_eq!(target.default, Some(false));
    assert_eq!(
        target.warnings,
        ["Traefik's IngressClass is not made the default, as nginx is".to_owned()]
    );
    facts.tuned_by = Some("written by kubectl-edit".into());
    assert_eq!(
        said(&traefik, &facts),
        "HelmChartConfig/kube-system/traefik is written by kubectl-edit"
    );
    let off = Facts { helm: true, ..Facts::default() };
    assert_eq!(said(&traefik, &off), "wait: k3s runs without its Traefik");
}

#[test]
fn only_what_is_named_or_marked_is_public_and_only_under_the_zones() {
    let published = |host: &str, labels: &[(&str, &str)]| Published {
        host: host.into(),
        object: "Ingress/a/b".into(),
        labels: labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
    };
    let facts = Facts {
        published: vec![
            published("new.muppit.au", &[]),
            published("shop.muppit.au", &[("public", "true")]),
            published("blaster.reids.net.au", &[("public", "true")]),
        ],
        ..Facts::default()
    };
    let zones = [Zoned { id: "z".into(), name: "muppit.au".into() }];
    let hosts = |discover: Option<Discover>| {
        let settings = EdgeSettings { discover, ..settings(IngressBy::Auto) };
        found(&settings, &zones, &facts).into_iter().collect::<Vec<_>>().join(" ")
    };
    let label = Some(("public".to_owned(), "true".to_owned()));
    let pattern = |text: &str| Some(text.to_owned());
    assert_eq!(hosts(None), "");
    let by = |label, pattern| hosts(Some(Discover { label, pattern }));
    assert_eq!(by(label.clone(), None), "shop.muppit.au");
    assert_eq!(by(None, pattern("*.muppit.au")), "new.muppit.au shop.muppit.au");
    assert_eq!(by(label, pattern("n*.muppit.au")), "");
}

#[test]
fn a_host_is_served_by_its_name_by_a_wildcard_or_by_what_takes_any() {
    let of = |hosts: &[&str]| {
        let published = |host: &&str| Published {
            host: (*host).to_owned(),
            object: "Ingress/a/b".into(),
            labels: BTreeMap::new(),
        };
        Facts { published: hosts.iter().map(published).collect(), ..Facts::default() }
    };
    for (hosts, host, served) in [
        (&["a.x.au"][..], "a.x.au", true),
        (&["a.x.au"], "b.x.au", false),
        (&["*.x.au"], "b.x.au", true),
        (&["*.x.au"], "x.au", false),
        (&["a.x.au"], "*.x.au", true),
        (&["a.y.au"], "*.x.au", false),
        (&[], "a.x.au", false),
    ] {
        assert_eq!(of(hosts).serves(host), served, "{hosts:?} {host}");
        assert!(Facts { catch_all: true, ..of(hosts) }.serves(host));
    }
}

#[test]
fn cert_manager_is_a_hint_and_its_absence_none() {
    assert_eq!(k3s().advice(), None);
    let advice = Facts { cert_manager: true, ..k3s() }.advice();
    assert!(advice.is_some_and(|advice| advice.contains("DNS-01")), "{advice:?}");
}

#[test]
fn a_star_stands_for_anything_and_a_zone_for_what_lies_below_it() {
    for (pattern, host, fits) in [
        ("*.x.au", "a.x.au", true),
        ("*.x.au", "x.au", false),
        ("a.x.au", "a.x.au", true),
        ("a*c*e.au", "abcde.au", true),
        ("a*c*e.au", "ae.au", false),
        ("a*", "a", true),
    ] {
        assert_eq!(glob(pattern, host), fits, "{pattern} {host}");
    }
    assert!(within("a.x.au", "x.au") && within("x.au", "x.au") && within("*.x.au", "x.au"));
    assert!(!within("ax.au", "x.au") && !within("x.au.evil", "x.au"));
}
