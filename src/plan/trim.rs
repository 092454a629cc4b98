//! Pure: what is left out of a manifest before it is applied, because applying it would fight the
//! cluster for ever.
//!
//! [`without_bundle`] needs the manifest alone. The rest depends on the live object: a number of
//! replicas that an autoscaler has set, and a volume that was grown by hand. Each is told in a
//! notice that names file and line, so that Git can be put right.

use super::writer::{entries, text};
use crate::render::Manifest;
use serde_json::{Value, json};

/// Managers of an autoscaler's writes to the `scale` subresource: the controller-manager alone and
/// inside k3s, and KEDA, which scales from and to zero itself. `kubectl scale` is not among them.
const SCALERS: &[&str] = &["kube-controller-manager", "k3s", "keda"];

/// A manifest as it is applied to one live object, and why it is not as in Git.
#[derive(Clone, Debug)]
pub struct Trimmed {
    /// What is applied.
    pub manifest: Manifest,
    /// A sentence for each field that is left out, or that somebody else is going to fight for.
    pub notices: Vec<String>,
}

/// Whether an autoscaler may have set `spec.replicas`: then it is worth asking for one.
pub fn scaled(manifest: &Manifest, live: &Value) -> bool {
    manifest.body().pointer("/spec/replicas").is_some()
        && entries(live).any(|entry| {
            text(entry, "subresource") == "scale"
                && SCALERS.contains(&text(entry, "manager"))
                && entry.pointer("/fieldsV1/f:spec/f:replicas").is_some()
        })
}

/// Whether a HorizontalPodAutoscaler scales this object.
pub fn scales(autoscaler: &Value, manifest: &Manifest) -> bool {
    let target = |key: &str| autoscaler.pointer(&format!("/spec/scaleTargetRef/{key}"));
    let is = |key: &str, value: &str| target(key).and_then(Value::as_str) == Some(value);
    is("kind", &manifest.id.kind) && is("name", &manifest.id.name)
}

/// The manifest as it is applied to the live object; `autoscaled` when an autoscaler sets the
/// replicas.
pub fn trim(manifest: &Manifest, live: &Value, autoscaled: bool) -> Trimmed {
    let mut trimmed = Trimmed { manifest: manifest.clone(), notices: Vec::new() };
    let place = place(manifest);
    if autoscaled {
        remove(&mut trimmed.manifest, "spec", "replicas");
        trimmed.notices.push(format!(
            "{place}: spec.replicas is left out, a HorizontalPodAutoscaler sets it: take it out of Git"
        ));
    }
    if manifest.id.kind == "PersistentVolumeClaim"
        && let Some((size, wanted)) = grown(manifest.body(), live)
    {
        trimmed.notices.push(format!(
            "{place}: the volume was grown to {size} and stays so, Git says {wanted}: a volume \
             cannot shrink"
        ));
        trimmed
            .manifest
            .edit(|body| body["spec"]["resources"]["requests"]["storage"] = json!(size));
    }
    if let Some(addon) = addon(manifest, live) {
        trimmed.notices.push(format!(
            "{place}: k3s's deploy controller writes this object too, for its addon {addon}: start \
             k3s with --disable={addon} where it is one of its own, or put a file \
             {addon}.yaml.skip beside its manifest in the server's manifests directory"
        ));
    }
    trimmed
}

/// Takes out every `caBundle` that somebody in the cluster fills in: all of them under
/// cert-manager's injection, else those that hold no certificate.
pub(super) fn without_bundle(body: &mut Value, place: &str, notices: &mut Vec<String>) {
    let annotations = body.pointer("/metadata/annotations").and_then(Value::as_object);
    let injected = annotations.is_some_and(|annotations| {
        annotations.keys().any(|key| {
            key.starts_with("cert-manager.io/inject-ca-from")
                || key == "cert-manager.io/inject-apiserver-ca"
        })
    });
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default();
    let holders: Vec<&mut Value> = match kind {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            let webhooks = body.get_mut("webhooks").and_then(Value::as_array_mut);
            webhooks.into_iter().flatten().filter_map(|hook| hook.get_mut("clientConfig")).collect()
        }
        "CustomResourceDefinition" => {
            body.pointer_mut("/spec/conversion/webhook/clientConfig").into_iter().collect()
        }
        "APIService" => body.get_mut("spec").into_iter().collect(),
        _ => return,
    };
    let mut left_out = false;
    for holder in holders {
        let Some(bundle) = holder.get("caBundle") else { continue };
        if injected || !certificate(bundle) {
            // An empty one says nothing, and is no news.
            left_out |= bundle.as_str().is_some_and(|text| !text.is_empty());
            if let Some(holder) = holder.as_object_mut() {
                holder.shift_remove("caBundle");
            }
        }
    }
    if left_out {
        let why = if injected { "cert-manager injects it" } else { "it is a placeholder" };
        notices.push(format!("{place}: caBundle is left out, {why}: take it out of Git"));
    }
}

/// `Kind/namespace/name (file:line)`.
pub(super) fn place(manifest: &Manifest) -> String {
    let origin = manifest.origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default();
    format!("{}{origin}", manifest.id)
}

fn certificate(bundle: &Value) -> bool {
    use base64::Engine as _;
    let text = bundle.as_str().unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&decoded).contains("-----BEGIN CERTIFICATE-----")
}

fn remove(manifest: &mut Manifest, section: &str, field: &str) {
    manifest.edit(|body| {
        if let Some(section) = body.get_mut(section).and_then(Value::as_object_mut) {
            section.shift_remove(field);
        }
    });
}

/// The live request of a claim and the wanted one, where the live one is larger.
fn grown(wanted: &Value, live: &Value) -> Option<(String, String)> {
    let size = |object: &Value| {
        let value = object.pointer("/spec/resources/requests/storage")?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let (wanted, live) = (size(wanted)?, size(live)?);
    (bytes(&live)? > bytes(&wanted)?).then_some((live, wanted))
}

/// A quantity of Kubernetes as a number; exact enough to tell which of two is larger.
fn bytes(quantity: &str) -> Option<f64> {
    let end = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let exponent = |suffix: &str| suffix.get(1..)?.parse::<i32>().ok();
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        other if other.starts_with(['e', 'E']) => 10f64.powi(exponent(other)?),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// The k3s addon that a live object belongs to, where Git does not say so itself.
fn addon(manifest: &Manifest, live: &Value) -> Option<String> {
    const NAME: &str = "objectset.rio.cattle.io/owner-name";
    if manifest.metadata("annotations", NAME).is_some() {
        return None;
    }
    let kind = live.pointer("/metadata/annotations/objectset.rio.cattle.io~1owner-gvk");
    let of_k3s = kind.and_then(Value::as_str).is_some_and(|kind| kind.contains("k3s.cattle.io"));
    let name = live.pointer("/metadata/annotations/objectset.rio.cattle.io~1owner-name");
    name.and_then(Value::as_str).filter(|_| of_k3s).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Origin;

    fn manifest(body: Value) -> Manifest {
        Manifest::new(body, Some(Origin { file: "a.yaml".into(), line: Some(3) }), false)
    }

    fn deployment() -> Manifest {
        manifest(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": 1, "paused": true}}))
    }

    fn written_by(manager: &str, subresource: &str) -> Value {
        json!({"metadata": {"managedFields": [{"manager": manager, "operation": "Update",
            "subresource": subresource, "fieldsV1": {"f:spec": {"f:replicas": {}}}}]}})
    }

    #[test]
    fn replicas_that_an_autoscaler_has_set_are_left_out() {
        for (manager, subresource, expected) in [
            ("kube-controller-manager", "scale", true),
            ("k3s", "scale", true),
            ("kubectl", "scale", false),
            ("kube-controller-manager", "", false),
        ] {
            let live = written_by(manager, subresource);
            assert_eq!(scaled(&deployment(), &live), expected, "{manager} {subresource}");
        }
        let Trimmed { manifest, notices } = trim(&deployment(), &json!({}), true);
        assert_eq!(manifest.body()["spec"], json!({"paused": true}));
        assert_eq!(
            notices,
            ["Deployment/n/web (a.yaml:3): spec.replicas is left out, a HorizontalPodAutoscaler \
              sets it: take it out of Git"]
        );
        let of =
            |name: &str| json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": name}}});
        assert!(scales(&of("web"), &deployment()) && !scales(&of("api"), &deployment()));
    }

    #[test]
    fn a_claim_is_never_shrunk() {
        for (wanted, live, expected) in [
            ("1Gi", "2Gi", "2Gi"),
            ("1Gi", "1024Mi", "1Gi"),
            ("1G", "1Gi", "1Gi"),
            ("2Gi", "1Gi", "2Gi"),
            ("1e9", "2000M", "2000M"),
        ] {
            let claim = |size: &str| {
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": size}}}})
            };
            let trimmed = trim(&manifest(claim(wanted)), &claim(live), false);
            assert_eq!(trimmed.manifest.body(), &claim(expected), "{wanted} {live}");
            assert_eq!(trimmed.notices.len(), usize::from(wanted != expected));
        }
    }

    #[test]
    fn a_ca_bundle_is_left_out_under_injection_and_as_a_placeholder() {
        const CERTIFICATE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";
        for (annotation, bundle, told, stays) in [
            ("cert-manager.io/inject-ca-from", CERTIFICATE, 1, false),
            ("cert-manager.io/inject-ca-from-secret", "Cg==", 1, false),
            ("other", "Cg==", 1, false),
            ("other", "", 0, false),
            ("other", CERTIFICATE, 0, true),
        ] {
            let mut body = json!({"kind": "ValidatingWebhookConfiguration",
                "metadata": {"annotations": {annotation: "x"}},
                "webhooks": [{"clientConfig": {"url": "u", "caBundle": bundle}}]});
            let mut notices = Vec::new();
            without_bundle(&mut body, "place", &mut notices);
            assert_eq!(notices.len(), told, "{annotation} {bundle}");
            let kept = body.pointer("/webhooks/0/clientConfig/caBundle").is_some();
            assert_eq!(kept, stays, "{annotation} {bundle}");
        }
    }

    #[test]
    fn an_object_of_k3s_is_told_with_the_remedy() {
        let live = json!({"metadata": {"annotations": {
            "objectset.rio.cattle.io/owner-gvk": "k3s.cattle.io/v1, Kind=Addon",
            "objectset.rio.cattle.io/owner-name": "traefik"}}});
        let notices = trim(&deployment(), &live, false).notices;
        assert!(notices[0].contains("--disable=traefik"), "{notices:?}");
        assert!(notices[0].contains("traefik.yaml.skip"), "{notices:?}");
        assert_eq!(trim(&deployment(), &json!({}), false).notices, Vec::<String>::new());
    }
}
