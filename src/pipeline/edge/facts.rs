//! Gathers what the cluster has of ingress controllers, hosts and connectors.
//!
//! A dozen lists at most, at each run that asks the provider too. Kinds that the server does not
//! have are empty lists.

use crate::cluster::{Cluster, ClusterError, Select};
use crate::config::{EdgeSettings, IngressBy};
use crate::edge::{CONNECTOR, Class, Facts, NAMESPACE, Port, Published, Service};
use crate::plan::{Owner, owned};
use serde_json::Value;
use std::collections::BTreeMap;

const DEFAULT: &str = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";

/// Gathers them.
pub(super) async fn facts(
    cluster: &Cluster,
    settings: &EdgeSettings,
) -> Result<Facts, ClusterError> {
    let classes = list(cluster, "networking.k8s.io/v1", "IngressClass").await?;
    let gateways = list(cluster, "gateway.networking.k8s.io/v1", "GatewayClass").await?;
    let services = list(cluster, "v1", "Service").await?;
    let (mut published, mut catch_all) = (Vec::new(), false);
    for ingress in list(cluster, "networking.k8s.io/v1", "Ingress").await? {
        catch_all |= takes_any(&ingress);
        hosts(&ingress, "Ingress", rule_hosts(&ingress), &mut published);
    }
    for route in list(cluster, "gateway.networking.k8s.io/v1", "HTTPRoute").await? {
        let named = texts(route.pointer("/spec/hostnames"));
        catch_all |= named.is_empty();
        hosts(&route, "HTTPRoute", named, &mut published);
    }
    let mut connectors = Vec::new();
    for kind in ["Deployment", "DaemonSet", "StatefulSet"] {
        for object in list(cluster, "apps/v1", kind).await? {
            // Ours by its name is judged when it is applied, whoever wrote it last.
            let ours = name(&object) == format!("{NAMESPACE}/{CONNECTOR}");
            if connects(&object) && !ours && !owned(&object, &Owner::edge()) {
                connectors.push(format!("{kind}/{}", name(&object)));
            }
        }
    }
    let chart = cluster.resource("helm.cattle.io/v1", "HelmChart").await?;
    let traefik = match &chart {
        Some(chart) => cluster.get_metadata(chart, "kube-system", "traefik").await?.is_some(),
        None => false,
    };
    let cert_manager = cluster.resource("cert-manager.io/v1", "ClusterIssuer").await?.is_some();
    Ok(Facts {
        classes: classes.iter().map(class).collect(),
        gateways: gateways.iter().map(class).collect(),
        services: services.iter().map(service).collect(),
        helm: chart.is_some(),
        traefik,
        tuned_by: tuned_by(cluster, settings).await?,
        connectors,
        published,
        catch_all,
        ranges: ranges(cluster, settings).await?,
        cert_manager,
    })
}

/// Where pods speak from, where Traefik is to believe them.
async fn ranges(cluster: &Cluster, settings: &EdgeSettings) -> Result<Vec<String>, ClusterError> {
    if settings.ingress.controller != IngressBy::Traefik {
        return Ok(Vec::new());
    }
    let nodes = list(cluster, "v1", "Node").await?;
    Ok(nodes.iter().flat_map(|node| texts(node.pointer("/spec/podCIDRs"))).collect())
}

/// Whether the Service has an address that answers.
pub(super) async fn answers(
    cluster: &Cluster,
    (namespace, name): &(String, String),
) -> Result<bool, ClusterError> {
    let Some(slices) = cluster.resource("discovery.k8s.io/v1", "EndpointSlice").await? else {
        return Ok(true);
    };
    let labels = format!("kubernetes.io/service-name={name}");
    let select = Select { namespace: Some(namespace), labels: &labels, ..Select::default() };
    let found = cluster.list(&slices, select).await?;
    let endpoints = found.items.iter().filter_map(|slice| slice.get("endpoints")?.as_array());
    Ok(endpoints.flatten().any(|endpoint| {
        // Absent means ready.
        endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
    }))
}

/// Who else has written Traefik's settings, where they are to be ours.
async fn tuned_by(
    cluster: &Cluster,
    settings: &EdgeSettings,
) -> Result<Option<String>, ClusterError> {
    if settings.ingress.controller != IngressBy::Traefik {
        return Ok(None);
    }
    let Some(configs) = cluster.resource("helm.cattle.io/v1", "HelmChartConfig").await? else {
        return Ok(None);
    };
    let live = cluster.get(&configs, "kube-system", "traefik").await?;
    Ok(live.filter(|live| !owned(live, &Owner::edge())).map(|live| match Owner::on(&live) {
        Some(owner) => format!("of Kustomization {owner}"),
        None => "written by somebody else".to_owned(),
    }))
}

async fn list(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
) -> Result<Vec<Value>, ClusterError> {
    match cluster.resource(api_version, kind).await? {
        Some(resource) => Ok(cluster.list(&resource, Select::default()).await?.items),
        None => Ok(Vec::new()),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn name(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(pair).collect()
}

/// Labels of a Service, and what it selects by where no label says otherwise.
fn named(service: &Value) -> BTreeMap<String, String> {
    let selector = service.pointer("/spec/selector").and_then(Value::as_object);
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let mut all: BTreeMap<String, String> =
        selector.into_iter().flatten().filter_map(pair).collect();
    all.extend(labels(service));
    all
}

fn class(object: &Value) -> Class {
    let controller = match text(object, "/spec/controller") {
        "" => text(object, "/spec/controllerName"),
        said => said,
    };
    Class {
        name: text(object, "/metadata/name").to_owned(),
        controller: controller.to_owned(),
        default: text(object, DEFAULT) == "true",
    }
}

fn service(object: &Value) -> Service {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let port = |port: &Value| {
        let tcp = matches!(text(port, "/protocol"), "" | "TCP");
        let number = port.get("port")?.as_u64().and_then(|number| u16::try_from(number).ok())?;
        tcp.then(|| Port { name: text(port, "/name").to_owned(), number })
    };
    Service {
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        labels: named(object),
        ports: ports.filter_map(port).collect(),
    }
}

fn rule_hosts(ingress: &Value) -> Vec<String> {
    rules(ingress).filter_map(|rule| rule.get("host")?.as_str()).map(str::to_owned).collect()
}

/// Whether an Ingress has a backend for hosts that it does not name.
fn takes_any(ingress: &Value) -> bool {
    ingress.pointer("/spec/defaultBackend").is_some()
        || rules(ingress).any(|rule| text(rule, "/host").is_empty())
}

fn rules(ingress: &Value) -> impl Iterator<Item = &Value> {
    ingress.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten()
}

fn hosts(object: &Value, kind: &str, found: Vec<String>, published: &mut Vec<Published>) {
    published.extend(found.into_iter().map(|host| Published {
        host: host.to_ascii_lowercase(),
        object: format!("{kind}/{}", name(object)),
        labels: labels(object),
    }));
}

/// Whether a workload runs cloudflared, and is not switched off.
fn connects(object: &Value) -> bool {
    let off = object.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0);
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let is = |container: &Value| {
        let image = text(container, "/image");
        let last = image.rsplit('/').next().unwrap_or_default();
        image.contains("cloudflare/cloudflared")
            || last.split([':', '@']).next() == Some("cloudflared")
    };
    !off && containers.into_iter().flatten().any(is)
}
