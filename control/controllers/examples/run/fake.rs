//! Nodes that only pretend.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

const STEP: Duration = Duration::from_millis(300);
const END: &str = "fake/end";

pub(crate) async fn start(client: Client, count: usize) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let names: Vec<String> = (0..count).map(|number| format!("fake-{number}")).collect();
    for name in &names {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": status()}))?;
        match nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            result => drop(result.context("cannot create a fake node")?),
        }
    }
    tokio::spawn(async move {
        loop {
            for name in &names {
                let beat = Patch::Merge(json!({"status": status()}));
                if let Err(error) = nodes.patch_status(name, &PatchParams::default(), &beat).await {
                    eprintln!("fake node {name}: {error}");
                }
            }
            if let Err(error) = step(&client, &names).await {
                eprintln!("fake nodes: {error:#}");
            }
            tokio::time::sleep(STEP).await;
        }
    });
    Ok(())
}

fn status() -> Value {
    let now = Time(Timestamp::now());
    json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "", "lastHeartbeatTime": now,
        "lastTransitionTime": now}]})
}

async fn step(client: &Client, names: &[String]) -> anyhow::Result<()> {
    let all: Api<Pod> = Api::all(client.clone());
    for pod in all.list(&ListParams::default()).await? {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let done = step_pod(&api, &pod, names).await;
        if let Err(error) = done {
            eprintln!("fake node, pod {}: {error}", pod.name_any());
        }
    }
    Ok(())
}

async fn step_pod(api: &Api<Pod>, pod: &Pod, names: &[String]) -> anyhow::Result<()> {
    let spec = pod.spec.as_ref().context("a pod without a spec")?;
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let Some(node) = spec.node_name.as_ref() else {
        let wanted = wanted_node(pod).unwrap_or_else(|| names[name.len() % names.len()].clone());
        let binding: Binding =
            serde_json::from_value(json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": wanted}}))?;
        let _: Value = api.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        return Ok(());
    };
    if !names.contains(node) {
        return Ok(());
    }
    let is_terminal = matches!(phase.as_str(), "Succeeded" | "Failed");
    if pod.metadata.deletion_timestamp.is_some() {
        if !is_terminal {
            let patch = Patch::Merge(json!({"status": {"phase": "Failed"}}));
            api.patch_status(&name, &PatchParams::default(), &patch).await?;
        }
        api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
        return Ok(());
    }
    if phase == "Pending" {
        let now = Time(Timestamp::now());
        let container = &spec.containers[0];
        let bad = container.image.as_deref().is_some_and(|image| image.contains("bad"));
        let ready = if bad { "False" } else { "True" };
        let status = json!({"phase": "Running", "podIP": "10.244.0.9",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
            "containerStatuses": [{"name": container.name, "image": container.image, "imageID": "", "ready": !bad,
                "restartCount": 0, "started": true, "state": {"running": {"startedAt": now}}}]});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    } else if let Some(end) = pod.annotations().get(END).filter(|_| phase == "Running") {
        let code = i32::from(end == "Failed");
        let now = Time(Timestamp::now());
        let status = json!({"phase": end, "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
            "containerStatuses": [{"name": spec.containers[0].name, "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    }
    Ok(())
}

fn wanted_node(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let term = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms[0];
    term.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}
