//! EndpointSlice: for each Service with a selector, the addresses of its pods, in slices of at most a hundred.
//!
//! Owns: slices with our managed-by label. [`plan`] compares what should be with what is and keeps every slice that can be
//! kept, so that one pod's change rewrites one slice.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::endpoint_slice::plan::{MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::meta;
use crate::queue::{self, Key, Next};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let shared = Arc::clone(cluster);
    let queue = queue::start("endpointslice", tasks, move |key| {
        let cluster = Arc::clone(&shared);
        async move { reconcile(&cluster, &key).await }
    });
    causes::itself(&cluster.services, &queue);
    causes::selected_pods(cluster, |cluster| &cluster.services, selects, &queue);
    cluster.slices.on_change(move |old, new| {
        for slice in [old, new].into_iter().flatten().filter(|slice| is_ours(slice)) {
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                queue.add(Key::new(slice.namespace().unwrap_or_default(), service));
            }
        }
    });
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

/// A Service's selector is a plain map; an empty one selects nothing here.
fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

async fn reconcile(cluster: &Cluster, key: &Key) -> anyhow::Result<Next> {
    let existing = cluster.slices.filter(&key.namespace, |slice| {
        is_ours(slice) && slice.labels().get(SERVICE_NAME).is_some_and(|name| *name == key.name)
    });
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let Some(service) = cluster.services.get(&key.namespace, &key.name) else {
        // Garbage collection does the same, later; slices of a Service that is gone must not serve a new one.
        for slice in existing {
            delete(&api, &slice.name_any()).await?;
        }
        return Ok(Next::Await);
    };
    let spec = service.spec.clone().unwrap_or_default();
    if meta::is_deleting(&*service) || spec.selector.is_none() || spec.type_.as_deref() == Some("ExternalName") {
        return Ok(Next::Await);
    }
    let pods = cluster.pods.filter(&key.namespace, |pod| selects(&service, pod));
    let zone_of = |node: &str| cluster.nodes.get("", node).and_then(|node| node.labels().get(ZONE_LABEL).cloned());
    let changes = plan::plan(&service, &pods, &existing, zone_of);
    for slice in changes.create {
        api.create(&PostParams::default(), &slice).await?;
    }
    for slice in changes.update {
        api.replace(&slice.name_any(), &PostParams::default(), &slice).await?;
    }
    for name in changes.delete {
        delete(&api, &name).await?;
    }
    Ok(Next::Await)
}

async fn delete(api: &Api<EndpointSlice>, name: &str) -> anyhow::Result<()> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
