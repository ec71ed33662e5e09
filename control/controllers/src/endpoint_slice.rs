//! EndpointSlice: for each Service with a selector, the addresses of its pods, in slices of at most a hundred.
//!
//! Owns: slices with our managed-by label. [`plan`] says what should be, [`pack`] compares it with what is and keeps every
//! slice that can be kept, so that one pod's change rewrites one slice.

mod pack;
mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::endpoint_slice::plan::MANAGER;
use crate::meta;
use crate::queue::{self, Key, Next, Queue};
use crate::trigger_time::{self, TriggerTimes};

pub(crate) use self::pack::{Changes, Group, MANAGED_BY, Port, SERVICE_NAME, Wanted, pack};
pub(crate) use self::plan::{address, families, hostname, target, target_port};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (shared, times) = (Arc::clone(cluster), Arc::new(TriggerTimes::default()));
    let queue = queue::start("endpointslice", tasks, move |key| {
        let (cluster, times) = (Arc::clone(&shared), Arc::clone(&times));
        async move { reconcile(&cluster, &times, &key).await }
    });
    causes::itself(&cluster.services, &queue);
    causes::selected_pods(cluster, |cluster| &cluster.services, selects, &queue);
    own_slices(cluster, MANAGER, queue);
}

/// A manager looks at a Service again when one of its slices changes.
pub(crate) fn own_slices(cluster: &Cluster, manager: &'static str, queue: Queue) {
    cluster.slices.on_change(move |old, new| {
        for slice in [old, new].into_iter().flatten().filter(|slice| is_managed_by(slice, manager)) {
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                queue.add(Key::new(slice.namespace().unwrap_or_default(), service));
            }
        }
    });
}

/// A manager's slices of a Service.
pub(crate) fn slices_of(cluster: &Cluster, manager: &str, service: &Key) -> Vec<Arc<EndpointSlice>> {
    cluster.slices.filter(&service.namespace, |slice| {
        is_managed_by(slice, manager) && slice.labels().get(SERVICE_NAME).is_some_and(|name| *name == service.name)
    })
}

fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|named| named == manager)
}

/// A Service's selector is a plain map; an empty one selects nothing here.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

pub(crate) fn has_selector(spec: &ServiceSpec) -> bool {
    spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
}

/// Whether pods stand behind a Service, rather than what someone writes or a name elsewhere.
pub(crate) fn has_pods(service: &Service) -> bool {
    let is_here = |spec: &ServiceSpec| has_selector(spec) && spec.type_.as_deref() != Some("ExternalName");
    !meta::is_deleting(service) && service.spec.as_ref().is_some_and(is_here)
}

async fn reconcile(cluster: &Cluster, times: &TriggerTimes, key: &Key) -> anyhow::Result<Next> {
    let existing = slices_of(cluster, MANAGER, key);
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let Some(service) = cluster.services.get(&key.namespace, &key.name) else {
        // Garbage collection does the same, later; slices of a Service that is gone must not serve a new one.
        times.forget(key);
        let delete = existing.iter().map(|slice| slice.name_any()).collect();
        apply(&api, Changes { delete, ..Changes::default() }).await?;
        return Ok(Next::Await);
    };
    if !has_pods(&service) {
        return Ok(Next::Await);
    }
    let pods = cluster.pods.filter(&key.namespace, |pod| selects(&service, pod));
    let changed = times.change(key, &service, &pods).map(|time| time.to_string());
    let zone_of = |node: &str| cluster.nodes.get("", node).and_then(|node| node.labels().get(ZONE_LABEL).cloned());
    let mut changes = plan::plan(&service, &pods, &existing, zone_of);
    for slice in changes.create.iter_mut().chain(&mut changes.update) {
        match &changed {
            Some(time) => drop(slice.annotations_mut().insert(trigger_time::ANNOTATION.into(), time.clone())),
            None => drop(slice.annotations_mut().remove(trigger_time::ANNOTATION)),
        }
    }
    apply(&api, changes).await?;
    Ok(Next::Await)
}

/// Makes, rewrites and removes slices; in a namespace that is going nothing is made any more.
pub(crate) async fn apply(api: &Api<EndpointSlice>, changes: Changes) -> anyhow::Result<()> {
    for slice in changes.create {
        match api.create(&PostParams::default(), &slice).await {
            Err(error) if meta::is_namespace_terminating(&error) => return Ok(()),
            result => drop(result?),
        }
    }
    for slice in changes.update {
        api.replace(&slice.name_any(), &PostParams::default(), &slice).await?;
    }
    for name in changes.delete {
        meta::ignore_missing(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}
