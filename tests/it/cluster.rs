//! The connection to a real API server.

use crate::bed;
use gitopsd::cluster::{Apply, Cluster, ClusterError, Limits, Select, WatchEvent, When};
use serde_json::json;

/// Connects to a control plane as a user of one's own.
pub async fn connect(bed: &bed::Cluster) -> Cluster {
    let kubeconfig = std::fs::read(bed.user().1).unwrap();
    Cluster::connect(&kubeconfig, Limits::default()).await.unwrap()
}

async fn shared() -> Cluster {
    connect(bed::Cluster::shared()).await
}

#[tokio::test]
async fn a_cluster_is_known_by_kube_system_and_ready() {
    let cluster = shared().await;
    assert_eq!(cluster.identity().await.unwrap().len(), 36);
    assert!(cluster.version().await.unwrap().starts_with('v'));
    cluster.ready().await.unwrap();
}

#[tokio::test]
async fn the_kubeconfig_of_k3s_is_taken_as_it_is() {
    let kubeconfig = std::fs::read(bed::Cluster::shared().k3s_kubeconfig()).unwrap();
    let cluster = Cluster::connect(&kubeconfig, Limits::default()).await.unwrap();
    assert_eq!(cluster.identity().await, shared().await.identity().await);
}

#[tokio::test]
async fn a_token_that_the_server_does_not_know_is_said_so() {
    let kubeconfig = std::fs::read_to_string(bed::Cluster::shared().kubeconfig()).unwrap();
    let (before, token) = kubeconfig.split_once("token: ").unwrap();
    let after = token.split_once('\n').map_or("", |(_, after)| after);
    let kubeconfig = format!("{before}token: nobody\n{after}");
    let cluster = Cluster::connect(kubeconfig.as_bytes(), Limits::default()).await.unwrap();
    let error = cluster.identity().await.unwrap_err();
    assert!(matches!(error, ClusterError::Unauthorized(_)), "{error:?}");
    assert!(!error.retry() && error.hint().is_some());
}

#[tokio::test]
async fn discovery_asks_once_per_group_and_version() {
    let cluster = shared().await;
    for kind in ["Deployment", "StatefulSet", "Deployment"] {
        assert!(cluster.resource("apps/v1", kind).await.unwrap().is_some());
    }
    assert_eq!(cluster.resource("apps/v9", "Deployment").await, Ok(None));
    assert_eq!(cluster.resource("apps/v9", "StatefulSet").await, Ok(None));
    assert_eq!(cluster.requests(), 2);
    let found = cluster.any_version("apps", "Deployment").await.unwrap().unwrap();
    assert_eq!(found.api_version(), "apps/v1");
    let all = cluster.everything().await.unwrap();
    assert!(all.resources.iter().any(|r| r.kind == "ConfigMap" && r.group.is_empty()));
    assert!(!all.resources.iter().any(|r| r.kind == "TokenReview"));
    assert_eq!(all.failed, Vec::<String>::new());
}

#[tokio::test]
async fn lists_are_read_in_pages_and_carry_their_kind() {
    let cluster = shared().await;
    let namespaces = cluster.resource("v1", "Namespace").await.unwrap().unwrap();
    let before = cluster.requests();
    let list = cluster.list_metadata(&namespaces, Select::default()).await.unwrap();
    assert_eq!(cluster.requests() - before, 1);
    let system = list.items.iter().find(|i| i["metadata"]["name"] == json!("kube-system")).unwrap();
    assert_eq!((&system["kind"], &system["apiVersion"]), (&json!("Namespace"), &json!("v1")));
    assert_eq!(system.get("spec"), None, "metadata only");
}

#[tokio::test]
async fn unknown_fields_are_warned_of_and_preconditions_hold() {
    let cluster = shared().await;
    let maps = cluster.resource("v1", "ConfigMap").await.unwrap().unwrap();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-test", "namespace": "default"}, "data": {"a": "1"}});
    let how = Apply { dry_run: false, manager: "test", sensitive: false };
    let first = cluster.apply(&maps, &body, how).await.unwrap();
    let uid = first.object["metadata"]["uid"].as_str().unwrap();
    let services = cluster.resource("v1", "Service").await.unwrap().unwrap();
    let misspelt = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "cluster-test", "namespace": "default"},
        "spec": {"prots": [], "ports": [{"port": 80, "protocol": "TCP"}]}});
    let dry = Apply { dry_run: true, ..how };
    match cluster.apply(&services, &misspelt, dry).await {
        Ok(answer) => assert!(
            answer.warnings.iter().any(|w| w.contains("spec.prots")),
            "{:?}",
            answer.warnings
        ),
        Err(error) => assert!(matches!(error, ClusterError::Invalid { .. }), "{error}"),
    }

    let other = When { uid: Some("00000000-0000-0000-0000-000000000000"), ..When::default() };
    let refused = cluster.delete(&maps, "default", "cluster-test", other).await;
    assert!(matches!(refused, Err(ClusterError::Conflict(_))), "{refused:?}");
    let right = When { uid: Some(uid), ..When::default() };
    assert_eq!(cluster.delete(&maps, "default", "cluster-test", right).await, Ok(true));
    assert_eq!(cluster.delete(&maps, "default", "cluster-test", right).await, Ok(false));
}

#[tokio::test]
async fn a_watch_tells_of_metadata_and_an_old_version_asks_for_a_list() {
    let cluster = shared().await;
    let maps = cluster.resource("v1", "ConfigMap").await.unwrap().unwrap();
    let select = Select { labels: "watched=yes", ..Select::default() };
    let list = cluster.list_metadata(&maps, select).await.unwrap();
    let from = &list.resource_version;
    let select = Select { labels: "watched=yes", ..Select::default() };
    let mut watch = cluster.watch_metadata(&maps, select, from).await.unwrap();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "metadata":
        {"name": "watch-test", "namespace": "default", "labels": {"watched": "yes"}}});
    let how = Apply { dry_run: false, manager: "test", sensitive: false };
    cluster.apply(&maps, &body, how).await.unwrap();
    let Some(WatchEvent::Added(seen)) = watch.next().await.unwrap() else { panic!("no event") };
    assert_eq!((seen.get("data"), &seen["kind"]), (None, &json!("ConfigMap")));
    cluster.delete(&maps, "default", "watch-test", When::default()).await.unwrap();
    loop {
        match watch.next().await.unwrap() {
            Some(WatchEvent::Deleted(gone)) => {
                assert_eq!(gone["metadata"]["uid"], seen["metadata"]["uid"]);
                break;
            }
            Some(_) => {}
            None => panic!("the watch ended"),
        }
    }
}
