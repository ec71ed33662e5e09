//! Deployment: ReplicaSets per template, rolled out one step at a time.
//!
//! Owns: ReplicaSets it controls and the Deployment's status. [`rollout`] decides, this file looks up, calls and waits.

mod rollout;
mod template;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::deployment::rollout::Intent;
use crate::events::Events;
use crate::meta;
use crate::queue::{self, Key, Next};

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (shared, events) = (Arc::clone(cluster), Events::new(cluster, "deployment-controller"));
    let queue = queue::start("deployment", tasks, move |key| {
        let (cluster, events) = (Arc::clone(&shared), events.clone());
        async move { reconcile(&cluster, &events, &key).await }
    });
    causes::itself(&cluster.deployments, &queue);
    causes::controlled(&cluster.replica_sets, "Deployment", &queue);
    // Recreate waits until the last old pod is gone, which no ReplicaSet's status says.
    let weak = Arc::downgrade(cluster);
    cluster.pods.on_change(move |old, new| {
        let (Some(pod), None, Some(cluster)) = (old, new, weak.upgrade()) else { return };
        let namespace = pod.namespace().unwrap_or_default();
        let set = meta::controller_name(&pod.metadata, "ReplicaSet");
        let set = set.and_then(|name| cluster.replica_sets.get(&namespace, name));
        if let Some(name) = set.as_ref().and_then(|set| meta::controller_name(&set.metadata, "Deployment")) {
            queue.add(Key::new(namespace, name));
        }
    });
}

async fn reconcile(cluster: &Cluster, events: &Events, key: &Key) -> anyhow::Result<Next> {
    let Some(deployment) = cluster.deployments.get(&key.namespace, &key.name) else { return Ok(Next::Await) };
    let spec = deployment.spec.as_ref().context("a Deployment without a spec")?;
    let selector = meta::selector(&spec.selector)?;
    let uid = meta::uid(&*deployment);
    let related = |set: &ReplicaSet| match meta::controller_of(&set.metadata) {
        Some(owner) => owner.uid == uid,
        None => meta::matches(&selector, set.labels()) && !meta::is_deleting(set),
    };
    let sets = cluster.replica_sets.filter(&key.namespace, related);
    let pods = cluster.pods.filter(&key.namespace, |pod: &Pod| {
        meta::controller_name(&pod.metadata, "ReplicaSet")
            .is_some_and(|name| sets.iter().any(|set| set.name_any() == name))
    });
    let outcome = rollout::plan(&deployment, &sets, &pods, Timestamp::now());
    // Writes of the Deployment itself follow each other, each over the version that the one before made: whoever else
    // has changed it meanwhile makes them fail, and the next look sees that.
    let mut newest = (*deployment).clone();
    for intent in outcome.intents {
        apply(cluster, events, &mut newest, intent).await?;
    }
    Ok(outcome.look_again_seconds.map_or(Next::Await, |seconds| Next::After(Duration::from_secs(seconds))))
}

async fn apply(cluster: &Cluster, events: &Events, deployment: &mut Deployment, intent: Intent) -> anyhow::Result<()> {
    let namespace = deployment.namespace().unwrap_or_default();
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), &namespace);
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
    let name = deployment.name_any();
    match intent {
        Intent::Adopt { set } => {
            let patch = json!({"metadata": {"ownerReferences": [meta::controller_reference(deployment)]}});
            sets.patch(&set, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        }
        Intent::Create(set) => match sets.create(&PostParams::default(), &set).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let found = sets.get(&set.name_any()).await?;
                let ours = meta::controller_of(&found.metadata).is_some_and(|owner| owner.uid == meta::uid(deployment));
                // Ours with the same template is only not yet in our view; anything else is a hash collision.
                if !(ours && template::is_same(&found, deployment)) {
                    bump_collision_count(&deployments, deployment).await?;
                }
            }
            result => {
                let made = result?;
                let size = made.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                tell_scale(events, deployment, &made.name_any(), (0, size));
            }
        },
        Intent::Change(change) => {
            let mut patch = json!({"metadata": {"annotations": change.annotations}});
            if let Some((_, replicas)) = change.replicas {
                patch["spec"]["replicas"] = replicas.into();
            }
            if let Some(seconds) = change.min_ready_seconds {
                patch["spec"]["minReadySeconds"] = seconds.into();
            }
            sets.patch(&change.set, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            if let Some(sizes) = change.replicas {
                tell_scale(events, deployment, &change.set, sizes);
            }
        }
        Intent::Delete { set } => {
            let params =
                DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
            sets.delete(&set, &params).await?;
        }
        Intent::Annotate { annotations } => {
            deployment.metadata.annotations.get_or_insert_default().extend(annotations);
            // Through the status, because what a controller notes is no new generation of what a user wants.
            *deployment = deployments.replace_status(&name, &PostParams::default(), deployment).await?;
        }
        Intent::Status(status) => {
            deployment.status = Some(*status);
            *deployment = deployments.replace_status(&name, &PostParams::default(), deployment).await?;
        }
    }
    Ok(())
}

fn tell_scale(events: &Events, deployment: &Deployment, set: &str, (before, after): (i32, i32)) {
    if before != after {
        let direction = if after > before { "up" } else { "down" };
        let note = format!("Scaled {direction} replica set {set} from {before} to {after}");
        events.normal(deployment, "ScalingReplicaSet", note);
    }
}

async fn bump_collision_count(api: &Api<Deployment>, deployment: &Deployment) -> anyhow::Result<()> {
    let mut new = deployment.clone();
    let status = new.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    api.replace_status(&deployment.name_any(), &PostParams::default(), &new).await?;
    Ok(())
}
