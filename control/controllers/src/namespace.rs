//! Namespaces that end: everything in them is deleted, pods first, then the last finalizer goes.
//!
//! Owns: the finalizer `kubernetes` in `spec.finalizers`, and the deletion conditions of the status.

use std::collections::BTreeMap;
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
/// After a look that found what the one before had found: somebody else's finalizer may never go.
const LOOK_AGAIN_LATER: Duration = Duration::from_secs(1);

/// What is still in a namespace: objects by `resource.group`, and how many of them wait for each finalizer.
#[derive(Debug, Default)]
struct Remaining {
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

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
    if !left.objects.is_empty() {
        let is_news = report(cluster, &namespace, &left).await?;
        return Ok(Next::After(if is_news { LOOK_AGAIN } else { LOOK_AGAIN_LATER }));
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

/// Asks for the deletion of all there is; returns what is still there.
async fn empty(cluster: &Cluster, namespace: &str) -> anyhow::Result<Remaining> {
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
    let mut left = Remaining::default();
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
            left.objects.insert(format!("{}.{}", resource.plural, resource.group), found.items.len());
            for finalizer in found.items.iter().flat_map(ResourceExt::finalizers) {
                *left.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            if resource.plural == "pods" {
                break;
            }
        }
    }
    Ok(left)
}

/// Says in the status what the deletion waits for; tells whether that is news.
async fn report(cluster: &Cluster, namespace: &Namespace, left: &Remaining) -> anyhow::Result<bool> {
    let mut new = namespace.clone();
    let status = new.status.get_or_insert_default();
    let present = status.conditions.get_or_insert_default();
    let conditions = conditions(left, present, Timestamp::now());
    if *present == conditions {
        return Ok(false);
    }
    *present = conditions;
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.replace_status(&namespace.name_any(), &PostParams::default(), &new).await {
        // Somebody else wrote meanwhile; the next look says it again.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(true),
        result => Ok(result.map(|_| true)?),
    }
}

/// The conditions of a namespace in deletion, those of others kept.
fn conditions(left: &Remaining, present: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        let parts = counts.iter().map(|(what, count)| format!("{what} {verb} {count} resource instances"));
        parts.collect::<Vec<_>>().join(", ")
    };
    let remaining = match list(&left.objects, "has") {
        none if none.is_empty() => ("False", "ContentRemoved", "All content successfully removed".into()),
        some => ("True", "SomeResourcesRemain", format!("Some resources are remaining: {some}")),
    };
    let finalizers = match list(&left.finalizers, "in") {
        none if none.is_empty() => {
            ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".into())
        }
        some => {
            let message = format!("Some content in the namespace has finalizers remaining: {some}");
            ("True", "SomeFinalizersRemain", message)
        }
    };
    let done = |reason, message: &str| ("False", reason, message.to_owned());
    let ours = [
        ("NamespaceDeletionDiscoveryFailure", done("ResourcesDiscovered", "All resources successfully discovered")),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            done("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            done("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", finalizers),
    ];
    let mut all = present.to_vec();
    for (kind, (status, reason, message)) in ours {
        let at = all.iter().position(|one| one.type_ == kind);
        let since = at.filter(|&at| all[at].status == status).and_then(|at| all[at].last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match at {
            Some(at) => all[at] = condition,
            None => all.push(condition),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Remaining, conditions};

    #[test]
    fn the_status_names_what_remains_and_what_it_waits_for() {
        let mut left = Remaining::default();
        left.objects.insert("widgets.example.com".into(), 2);
        left.finalizers.insert("example.com/hold".into(), 1);
        let then = Timestamp::from_second(100).unwrap();
        let first = conditions(&left, &[], then);
        let message = |kind: &str| {
            first.iter().find(|one| one.type_ == kind).and_then(|one| one.message.clone()).unwrap_or_default()
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: widgets.example.com has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert_eq!(first.len(), 5);
        // Nothing new: not even the times change.
        assert_eq!(conditions(&left, &first, Timestamp::from_second(200).unwrap()), first);
        left.finalizers.clear();
        let second = conditions(&left, &first, Timestamp::from_second(200).unwrap());
        assert_eq!(second[4].status, "False");
        assert_ne!(second[4].last_transition_time, first[4].last_transition_time);
        assert_eq!(second[3], first[3]);
    }
}
