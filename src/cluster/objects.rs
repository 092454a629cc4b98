//! Reading and writing objects, as plain JSON.

use super::client::{Call, Cluster, JSON};
use super::discovery::{Resource, segment};
use super::error::ClusterError;
use http::Method;
use serde_json::{Value, json};

/// Objects per page of a list.
const PAGE: usize = 500;

/// Most pages of one list: 100,000 objects.
const PAGES: usize = 200;

/// Metadata of one object, or of a list, instead of the whole.
pub(super) const ONE_METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
const LIST_METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";

/// Which objects of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Select<'a> {
    /// One namespace; all when `None`.
    pub namespace: Option<&'a str>,
    /// Label selector; empty for all.
    pub labels: &'a str,
    /// Field selector; empty for all.
    pub fields: &'a str,
}

/// A whole list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The objects, `apiVersion` and `kind` filled in.
    pub items: Vec<Value>,
    /// Where a watch goes on.
    pub resource_version: String,
}

/// How an object is applied. Always with force: Git is the only statement of intent.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    /// Ask what would happen, write nothing.
    pub dry_run: bool,
    /// Field manager.
    pub manager: &'a str,
    /// Keep values out of errors and warnings. Secrets are sensitive in any case.
    pub sensitive: bool,
}

/// What the server made of an object.
#[derive(Clone)]
pub struct Answer {
    /// The object as it is now, or would be.
    pub object: Value,
    /// Warnings, such as unknown fields or deprecated versions.
    pub warnings: Vec<String>,
}

/// Preconditions of a deletion.
#[derive(Clone, Copy, Debug, Default)]
pub struct When<'a> {
    /// Only this very object, not one of the same name.
    pub uid: Option<&'a str>,
    /// Only this state of it.
    pub resource_version: Option<&'a str>,
    /// Ask what would happen, delete nothing.
    pub dry_run: bool,
}

impl Cluster {
    /// One object; `None` when it is not there.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        found(self.call(Call::get(resource.object(namespace, name))).await.map(|s| s.body))
    }

    /// Metadata of one object; `None` when it is not there.
    pub async fn get_metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let call = Call::get(resource.object(namespace, name)).accept(ONE_METADATA);
        found(self.call(call).await.map(|s| s.body))
    }

    /// All selected objects of a kind, in pages.
    pub async fn list(
        &self,
        resource: &Resource,
        select: Select<'_>,
    ) -> Result<List, ClusterError> {
        self.pages(resource, select, JSON).await
    }

    /// Metadata of all selected objects of a kind, in pages.
    pub async fn list_metadata(
        &self,
        resource: &Resource,
        select: Select<'_>,
    ) -> Result<List, ClusterError> {
        self.pages(resource, select, LIST_METADATA).await
    }

    /// The newest selected objects, at most `limit`, of one page: for what may be incomplete.
    pub async fn list_some(
        &self,
        resource: &Resource,
        select: Select<'_>,
        limit: usize,
    ) -> Result<Vec<Value>, ClusterError> {
        let path = list_path(resource, select, limit, "");
        let mut page = self.call(Call::get(path)).await?.body;
        items(resource, &mut page)
    }

    /// Server-side apply. `body` names its object itself.
    ///
    /// Unknown fields are warned of, as Flux drops them silently (Flux: Kustomization, Apply).
    pub async fn apply(
        &self,
        resource: &Resource,
        body: &Value,
        how: Apply<'_>,
    ) -> Result<Answer, ClusterError> {
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let mut path = resource.object(namespace, name);
        path.push_str("?force=true&fieldValidation=Warn&fieldManager=");
        path.push_str(&segment(how.manager));
        if how.dry_run {
            path.push_str("&dryRun=All");
        }
        let sensitive = (how.sensitive || resource.is_secret()).then_some(name);
        let call = Call {
            method: Method::PATCH,
            content_type: "application/apply-patch+yaml",
            body: serialise(body),
            sensitive,
            ..Call::get(path)
        };
        let success = self.call(call).await?;
        Ok(Answer { object: success.body, warnings: success.warnings })
    }

    /// Whether our credentials may do everything, as the server judges itself.
    pub async fn may_everything(&self) -> Result<bool, ClusterError> {
        let body = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}});
        let call = Call {
            method: Method::POST,
            body: serialise(&body),
            ..Call::get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        };
        let answer = self.call(call).await?.body;
        Ok(answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Makes an object; a conflict when there is one of its name. `body` names its object itself.
    pub async fn create(
        &self,
        resource: &Resource,
        body: &Value,
        manager: &str,
    ) -> Result<(), ClusterError> {
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str);
        let path = resource.collection(text("/metadata/namespace"));
        let call = Call {
            method: Method::POST,
            body: serialise(body),
            sensitive: text("/metadata/name").filter(|_| resource.is_secret()),
            ..Call::get(format!("{path}?fieldManager={}", segment(manager)))
        };
        self.call(call).await.map(|_| ())
    }

    /// JSON patch (RFC 6902) of a live object under a field manager.
    ///
    /// A `replace` of `/metadata/resourceVersion` among the operations makes it conditional: the
    /// server answers 409 when the object has moved.
    pub async fn json_patch(
        &self,
        resource: &Resource,
        live: &Value,
        operations: &[Value],
        manager: &str,
    ) -> Result<Value, ClusterError> {
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let path = resource.object(namespace, name);
        let call = Call {
            method: Method::PATCH,
            content_type: "application/json-patch+json",
            body: serialise(&operations),
            sensitive: resource.is_secret().then_some(name),
            ..Call::get(format!("{path}?fieldManager={}", segment(manager)))
        };
        Ok(self.call(call).await?.body)
    }

    /// Deletes an object in the background. `false` when it was not there.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        when: When<'_>,
    ) -> Result<bool, ClusterError> {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Background"});
        if let Some(uid) = when.uid {
            options["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = when.resource_version {
            options["preconditions"]["resourceVersion"] = json!(version);
        }
        if when.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        let call = Call {
            method: Method::DELETE,
            body: serialise(&options),
            ..Call::get(resource.object(namespace, name))
        };
        Ok(found(self.call(call).await.map(|_| ()))?.is_some())
    }

    /// Events about one object, at most 100.
    pub async fn events_for(&self, namespace: &str, uid: &str) -> Result<Vec<Value>, ClusterError> {
        let events = Resource {
            group: String::new(),
            version: "v1".to_owned(),
            plural: "events".to_owned(),
            kind: "Event".to_owned(),
            namespaced: true,
        };
        // Events of cluster-scoped objects stand in `default`.
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let fields = format!("involvedObject.uid={uid}");
        let select = Select { namespace: Some(namespace), fields: &fields, labels: "" };
        self.list_some(&events, select, 100).await
    }

    async fn pages(
        &self,
        resource: &Resource,
        select: Select<'_>,
        accept: &str,
    ) -> Result<List, ClusterError> {
        let mut restarted = false;
        'list: loop {
            let (mut all, mut token) = (Vec::new(), String::new());
            for _ in 0..PAGES {
                let path = list_path(resource, select, PAGE, &token);
                let mut page = match self.call(Call::get(path).accept(accept)).await {
                    // The snapshot was compacted between two pages: begin again, once.
                    Err(ClusterError::Expired(_)) if !token.is_empty() && !restarted => {
                        restarted = true;
                        continue 'list;
                    }
                    other => other?.body,
                };
                all.append(&mut items(resource, &mut page)?);
                let text = |pointer| page.pointer(pointer).and_then(Value::as_str);
                token = text("/metadata/continue").unwrap_or_default().to_owned();
                if token.is_empty() {
                    let version = text("/metadata/resourceVersion").unwrap_or_default();
                    return Ok(List { items: all, resource_version: version.to_owned() });
                }
            }
            let message = format!("{}: more than {} objects", resource.plural, PAGE * PAGES);
            return Err(ClusterError::Unreadable(message));
        }
    }
}

fn list_path(resource: &Resource, select: Select<'_>, limit: usize, token: &str) -> String {
    let mut path = format!("{}?limit={limit}", resource.collection(select.namespace));
    for (name, value) in
        [("labelSelector", select.labels), ("fieldSelector", select.fields), ("continue", token)]
    {
        if !value.is_empty() {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    path
}

/// Takes the items out of a page; the server leaves out what the list says of all of them.
///
/// An answer without items is no list: read as an empty one, it would say that all is gone.
fn items(resource: &Resource, page: &mut Value) -> Result<Vec<Value>, ClusterError> {
    let mut items = match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        Some(Value::Null) => Vec::new(),
        _ => return Err(ClusterError::Garbled(format!("{}: no list", resource.plural))),
    };
    for item in &mut items {
        if let Some(object) = item.as_object_mut() {
            object.insert("apiVersion".to_owned(), json!(resource.api_version()));
            object.insert("kind".to_owned(), json!(resource.kind));
        }
    }
    Ok(items)
}

/// An object that is not there is an answer; a path that is not served is an error.
fn found<T>(answer: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(ClusterError::NotFound { kind, .. }) if !kind.is_empty() => Ok(None),
        Err(error) => Err(error),
    }
}

fn serialise(value: &impl serde::Serialize) -> Vec<u8> {
    // Invariant: JSON values have string keys, so they serialise.
    serde_json::to_vec(value).expect("a JSON value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Resource {
        Resource {
            group: String::new(),
            version: "v1".into(),
            plural: "pods".into(),
            kind: "Pod".into(),
            namespaced: true,
        }
    }

    #[test]
    fn a_list_names_its_selectors_encoded() {
        let select = Select { namespace: Some("prod"), labels: "a in (b,c)", fields: "" };
        assert_eq!(
            list_path(&pods(), select, 500, "next=="),
            "/api/v1/namespaces/prod/pods?limit=500&labelSelector=a%20in%20%28b%2Cc%29&continue=next%3D%3D"
        );
    }

    #[test]
    fn an_answer_without_items_is_no_empty_list() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        for (mut page, expected) in [
            (json!({"items": [{"metadata": {"name": "a"}}]}), Ok(vec![pod])),
            (json!({"items": null}), Ok(vec![])),
            (json!({}), Err(ClusterError::Garbled("pods: no list".into()))),
        ] {
            let read = items(&pods(), &mut page).map(|read| json!(read));
            assert_eq!(read, expected.map(|list| json!(list)));
        }
    }

    #[test]
    fn a_missing_object_is_an_answer_and_a_path_that_is_not_served_an_error() {
        let missing = |kind: &str| {
            found::<()>(Err(ClusterError::NotFound { message: "m".into(), kind: kind.into() }))
        };
        assert_eq!(missing("pods"), Ok(None));
        assert!(missing("").is_err());
    }
}
