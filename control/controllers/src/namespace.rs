//! Namespaces that end: everything in them is deleted, pods first, then the last finalizer goes.
//!
//! Owns: the finalizer `kubernetes` in `spec.finalizers`, and the deletion conditions of the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::meta;
use crate::queue::{self, Key, Next};

const FINALIZER: &str = "kubernetes";
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let shared = Arc::clone(cluster);
    let queue = queue::start("namespace", tasks, move |key| {
        let cluster = Arc::clone(&shared);
        async move { reconcile(&cluster, &key.name).await }
    });
    cluster.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|namespace| meta::is_deleting(*namespace)) {
            queue.add(Key::of(namespace));
        }
    });
}

async fn reconcile(cluster: &Cluster, name: &str) -> anyhow::Result<Next> {
    let Some(namespace) = cluster.namespaces.get("", name) else { return Ok(Next::Await) };
    let is_ours = |finalizer: &String| finalizer == FINALIZER;
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !meta::is_deleting(&*namespace) || !finalizers.iter().any(is_ours) {
        return Ok(Next::Await);
    }
    let left = empty(cluster, name).await?;
    if !left.is_empty() {
        report(cluster, &namespace, &left).await?;
        return Ok(Next::After(LOOK_AGAIN));
    }
    let mut done = (*namespace).clone();
    done.spec.get_or_insert_default().finalizers =
        Some(finalizers.into_iter().filter(|finalizer| !is_ours(finalizer)).collect());
    let request = http_put(&format!("/api/v1/namespaces/{name}/finalize"), &done)?;
    match cluster.client.request::<Namespace>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Await),
        result => {
            result?;
            Ok(Next::Await)
        }
    }
}

fn http_put(path: &str, namespace: &Namespace) -> anyhow::Result<http::Request<Vec<u8>>> {
    let body = serde_json::to_vec(namespace)?;
    Ok(http::Request::put(path).header("content-type", "application/json").body(body)?)
}

/// Asks for the deletion of all there is; returns what is still there, as `pods.v1: 3`.
async fn empty(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<String>> {
    let discovery = Discovery::new(cluster.client.clone()).run().await?;
    let mut resources: Vec<ApiResource> = discovery
        .groups()
        .flat_map(|group| group.recommended_resources())
        .filter(|(_, facts)| facts.scope == Scope::Namespaced)
        .filter(|(_, facts)| facts.supports_operation(verbs::LIST) && facts.supports_operation(verbs::DELETE))
        .map(|(resource, _)| resource)
        .collect();
    // Pods first: what they use must stay until they are gone (KEP-5080).
    resources.sort_by_key(|resource| (resource.plural != "pods", resource.group.clone(), resource.plural.clone()));
    let mut left = Vec::new();
    for resource in &resources {
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, resource);
        let found = api.list_metadata(&ListParams::default()).await?;
        for object in &found.items {
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
        if !found.items.is_empty() {
            left.push(format!("{}.{}: {}", resource.plural, resource.version, found.items.len()));
            if resource.plural == "pods" {
                break;
            }
        }
    }
    Ok(left)
}

/// Says in the status what the deletion waits for.
async fn report(cluster: &Cluster, namespace: &Namespace, left: &[String]) -> anyhow::Result<()> {
    let message = format!("Some resources are remaining: {}", left.join(", "));
    let mut new = namespace.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    let kind = "NamespaceContentRemaining";
    if conditions.iter().any(|one| one.type_ == kind && one.message.as_deref() == Some(&message)) {
        return Ok(());
    }
    conditions.retain(|one| one.type_ != kind);
    conditions.push(NamespaceCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some("SomeResourcesRemain".into()),
        message: Some(message),
        last_transition_time: Some(Time(Timestamp::now())),
    });
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.replace_status(&namespace.name_any(), &PostParams::default(), &new).await {
        // Somebody else wrote meanwhile; the next look says it again.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
