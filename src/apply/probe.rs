//! Asks, without writing: is the object there, and what would it become?

use super::refusal::{own, refusal};
use super::{Applier, ApplyError};
use crate::cluster::{Apply, ClusterError, Resource, Select};
use crate::plan::{self, MANAGER, Probe, Refusal, RefusalKind, Trimmed};
use crate::render::{Manifest, ObjectId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use std::collections::HashMap;

/// Objects probed at once, two requests each, one after the other.
const AT_ONCE: usize = 8;

/// How often the two requests are repeated when the object moves between them: a rolling
/// Deployment writes its status several times a second, for seconds.
const TRIES: u32 = 5;

impl Applier {
    /// Gives every manifest the namespace that its kind asks for, before claims and inventory.
    ///
    /// A cluster-scoped object loses a stray namespace; a namespaced one without a namespace is
    /// refused, as in Flux. The scope of a kind is taken from CRDs among the manifests first,
    /// since those are not in the cluster yet; a kind that nobody knows is left as it is, its
    /// probe will say so. Returns the refusals. A scope that cannot be asked for is an error,
    /// whatever the reason: ids would come out wrong, and claims and prunes with them.
    pub async fn normalise(
        &self,
        manifests: &mut [Manifest],
    ) -> Result<Vec<(ObjectId, Refusal)>, ApplyError> {
        let defined: HashMap<(String, String), bool> =
            manifests.iter().filter_map(|m| defined_scope(m.body())).collect();
        let mut refused = Vec::new();
        for manifest in manifests {
            let id = manifest.id.clone();
            let key = (id.group.clone(), id.kind.clone());
            let namespaced = match defined.get(&key) {
                Some(namespaced) => *namespaced,
                None => match self.cluster.resource(&manifest.api_version, &id.kind).await {
                    Ok(Some(resource)) => resource.namespaced,
                    Ok(None) => continue,
                    Err(error) => return Err(ApplyError::cluster(&id, error)),
                },
            };
            if namespaced && id.namespace.is_empty() {
                let message = format!(
                    "namespace not specified: set metadata.namespace of {id}, or targetNamespace \
                     of the Kustomization"
                );
                refused.push((id, own(RefusalKind::Invalid, message)));
            } else if !namespaced && !id.namespace.is_empty() {
                manifest.edit(|body| {
                    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
                    {
                        metadata.shift_remove("namespace");
                    }
                });
            }
        }
        Ok(refused)
    }

    /// Reads the live object of each manifest and asks for a dry-run of its apply, in the order
    /// of the manifests. Writes nothing.
    pub async fn probe(&self, manifests: &[Manifest]) -> Vec<Probe> {
        // Boxed one by one: a closure over references would not be Send for every lifetime.
        let mut looks: Vec<BoxFuture<'_, Probe>> = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            looks.push(self.probe_one(manifest).boxed());
        }
        futures::stream::iter(looks).buffered(AT_ONCE).collect().await
    }

    async fn probe_one(&self, manifest: &Manifest) -> Probe {
        let mut probe = Probe { live: None, dry_run: Ok(Value::Null), trimmed: None };
        probe.dry_run = match self.resource_of(manifest).await {
            Err(refusal) => Err(refusal),
            Ok(resource) => {
                self.ask(&resource, manifest, &mut probe).await.map_err(|e| refusal(&e))
            }
        };
        probe
    }

    /// Both answers speak of the same state of the object: the dry-run names the resourceVersion
    /// that was read, or a controller's write in between would show as a difference.
    async fn ask(
        &self,
        resource: &Resource,
        manifest: &Manifest,
        probe: &mut Probe,
    ) -> Result<Value, ClusterError> {
        let id = &manifest.id;
        let how = Apply { dry_run: true, manager: MANAGER, sensitive: manifest.sensitive };
        let mut tries = 0;
        loop {
            tries += 1;
            probe.live = self.cluster.get(resource, &id.namespace, &id.name).await?;
            probe.trimmed = self.trim(manifest, probe.live.as_ref()).await;
            let body = probe.trimmed.as_ref().map_or(manifest, |trimmed| &trimmed.manifest).body();
            let version =
                probe.live.as_ref().and_then(|live| live.pointer("/metadata/resourceVersion"));
            let answer = match version {
                None => self.cluster.apply(resource, body, how).await,
                Some(version) => {
                    let mut body = body.clone();
                    body["metadata"]["resourceVersion"] = version.clone();
                    self.cluster.apply(resource, &body, how).await
                }
            };
            match answer {
                Err(ClusterError::Conflict(_)) if tries < TRIES => {}
                answer => return Ok(answer?.object),
            }
        }
    }

    /// What is left out for the live object; `None` when nothing is.
    async fn trim(&self, manifest: &Manifest, live: Option<&Value>) -> Option<Trimmed> {
        let live = live?;
        let autoscaled = plan::scaled(manifest, live) && self.autoscaled(manifest).await;
        let trimmed = plan::trim(manifest, live, autoscaled);
        (!trimmed.notices.is_empty()).then_some(trimmed)
    }

    /// Whether an autoscaler is there for the object. If that cannot be told, its number stays.
    async fn autoscaled(&self, manifest: &Manifest) -> bool {
        let found = self.cluster.resource("autoscaling/v2", "HorizontalPodAutoscaler").await;
        let Ok(Some(resource)) = found else { return true };
        let select = Select { namespace: Some(&manifest.id.namespace), ..Select::default() };
        match self.cluster.list(&resource, select).await {
            Ok(list) => list.items.iter().any(|item| plan::scales(item, manifest)),
            Err(_) => true,
        }
    }

    /// The endpoint of a manifest's kind, or why there is none.
    pub(super) async fn resource_of(&self, manifest: &Manifest) -> Result<Resource, Refusal> {
        let found = self.cluster.resource(&manifest.api_version, &manifest.id.kind).await;
        let resource = found.map_err(|error| refusal(&error))?.ok_or_else(|| {
            let message = format!(
                "the API server has no kind {} in {}",
                manifest.id.kind, manifest.api_version
            );
            own(RefusalKind::UnknownKind, message)
        })?;
        if resource.namespaced && manifest.id.namespace.is_empty() {
            return Err(own(RefusalKind::Invalid, "namespace not specified".to_owned()));
        }
        Ok(resource)
    }
}

/// Group, kind and scope that a CustomResourceDefinition defines.
fn defined_scope(body: &Value) -> Option<((String, String), bool)> {
    if body.get("kind")?.as_str()? != "CustomResourceDefinition" {
        return None;
    }
    let text = |pointer| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let key = (text("/spec/group")?, text("/spec/names/kind")?);
    Some((key, text("/spec/scope")? == "Namespaced"))
}
