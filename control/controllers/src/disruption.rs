//! PodDisruptionBudget: keeps the count of pods that may be evicted, which the API server charges for each eviction.
//!
//! Owns: the status of budgets. [`plan`] decides, this file looks up and calls.

mod plan;

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::disruption::plan::plan;
use crate::events::Events;
use crate::meta;
use crate::queue::{self, Key, Next};

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (shared, events) = (Arc::clone(cluster), Events::new(cluster, "controllermanager"));
    let queue = queue::start("disruption", tasks, move |key| {
        let (cluster, events) = (Arc::clone(&shared), events.clone());
        async move { reconcile(&cluster, &events, &key).await }
    });
    causes::itself(&cluster.budgets, &queue);
    causes::selected_pods(cluster, |cluster| &cluster.budgets, selects, &queue);
}

/// A budget without any requirement selects every pod of its namespace; one without a selector selects none.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.and_then(|selector| meta::selector(selector).ok());
    selector.is_some_and(|selector| kube::core::SelectorExt::matches(&selector, pod.labels()))
}

async fn reconcile(cluster: &Cluster, events: &Events, key: &Key) -> anyhow::Result<Next> {
    let Some(budget) = cluster.budgets.get(&key.namespace, &key.name) else { return Ok(Next::Await) };
    let pods = cluster.pods.filter(&key.namespace, |pod| selects(&budget, pod));
    if pods.is_empty() {
        events.normal(&*budget, "NoPods", "No matching pods found".into());
    }
    let plan = plan(&budget, &pods, |pod| scale(cluster, &key.namespace, pod), Timestamp::now());
    if budget.status.as_ref() != Some(&plan.status) {
        let api: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), &key.namespace);
        let mut new = (*budget).clone();
        new.status = Some(plan.status);
        // An eviction that was approved meanwhile makes this write fail, and the next look sees it.
        let written = api.replace_status(&budget.name_any(), &PostParams::default(), &new).await;
        meta::ignore_missing(written).context("cannot write the status of a budget")?;
    }
    Ok(plan.look_again.map_or(Next::Await, |wait| Next::After(wait.unsigned_abs())))
}

/// The uid of what scales a pod, and how many pods it wants. Pods that nobody controls count for nothing.
fn scale(cluster: &Cluster, namespace: &str, pod: &Pod) -> Result<Option<(String, i32)>, String> {
    let Some(owner) = meta::controller_of(&pod.metadata) else { return Ok(None) };
    let unknown = || format!("found no controllers for pod {:?}", pod.name_any());
    let found = match owner.kind.as_str() {
        "ReplicaSet" => cluster.replica_sets.get(namespace, &owner.name).map(|set| {
            let deployment = meta::controller_name(&set.metadata, "Deployment");
            let deployment = deployment.and_then(|name| cluster.deployments.get(namespace, name));
            match deployment {
                Some(top) => (meta::uid(&*top), top.spec.as_ref().and_then(|spec| spec.replicas)),
                None => (meta::uid(&*set), set.spec.as_ref().and_then(|spec| spec.replicas)),
            }
        }),
        "ReplicationController" => cluster
            .replication_controllers
            .get(namespace, &owner.name)
            .map(|set| (meta::uid(&*set), set.spec.as_ref().and_then(|spec| spec.replicas))),
        "StatefulSet" => cluster
            .stateful_sets
            .get(namespace, &owner.name)
            .map(|set| (meta::uid(&*set), set.spec.as_ref().and_then(|spec| spec.replicas))),
        _ => None,
    };
    let (uid, replicas) = found.ok_or_else(unknown)?;
    Ok(Some((uid, replicas.unwrap_or(1))))
}
