//! Effects on a whole pod: its sandbox with network and files, and its removal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::{RuntimeError, Sandbox};
use k8s_openapi::api::core::v1::Pod;

use super::context::Context;
use super::files;
use crate::cluster::{ClusterError, chain};
use crate::network::PodNet;
use crate::spec::container;
use crate::spec::pod_ref::PodRef;
use crate::volume::blocking;

/// How long a pod waits for the node's network before it reports a failure.
const NETWORK_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum EffectError {
    #[error("network is not ready: the node has no pod address range yet")]
    NoNetwork,
    #[error("failed to setup network for sandbox: {0}")]
    Network(String),
    #[error("{0}")]
    Runtime(String),
    #[error("{0}")]
    Files(String),
    #[error("user namespaces (hostUsers: false) are not supported by this node")]
    UserNamespace,
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<RuntimeError> for EffectError {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(chain(&error))
    }
}

/// Makes a sandbox, connects it and writes the pod's files; leaves nothing behind if a step fails.
pub(crate) async fn run_sandbox(
    context: Arc<Context>,
    pod: Arc<Pod>,
    attempt: u32,
) -> Result<Vec<IpAddr>, EffectError> {
    if pod.pod_spec().host_users == Some(false) {
        return Err(EffectError::UserNamespace);
    }
    let network = if pod.host_network() { None } else { Some(await_network(&context).await?) };
    let sandbox = context.runtime.run_sandbox(container::sandbox(&pod, attempt)).await?;
    match connect(&context, &pod, &sandbox, network.as_deref()).await {
        Ok(ips) => Ok(ips),
        Err(error) => {
            if let Err(undo) = discard(&context, &sandbox.id).await {
                tracing::warn!(sandbox = %sandbox.id, error = %undo, "cannot undo a failed sandbox");
            }
            Err(error)
        }
    }
}

/// Disconnects a sandbox and ends its processes.
pub(crate) async fn stop_sandbox(context: Arc<Context>, id: String, host_network: bool) -> Result<(), EffectError> {
    if !host_network {
        let network = await_network(&context).await?;
        network.detach(&id).await.map_err(|error| EffectError::Network(chain(&error)))?;
    }
    ignore_missing(context.runtime.stop_sandbox(&id).await)
}

pub(crate) async fn remove_sandbox(context: Arc<Context>, id: String) -> Result<(), EffectError> {
    ignore_missing(context.runtime.remove_sandbox(&id).await)
}

/// Removes what is left of an ended pod on this node, then its object; the status has been written before.
pub(crate) async fn delete(
    context: Arc<Context>,
    pod: Arc<Pod>,
    sandboxes: Vec<String>,
    gone: bool,
) -> Result<(), EffectError> {
    for id in sandboxes {
        remove_sandbox(Arc::clone(&context), id).await?;
    }
    context.volumes.tear_down(pod.uid()).await.map_err(|error| EffectError::Files(error.to_string()))?;
    if gone {
        return Ok(());
    }
    match context.cluster.delete_pod(pod.namespace(), pod.name(), pod.uid()).await {
        Ok(()) | Err(ClusterError::Gone(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn await_network(context: &Context) -> Result<Arc<dyn PodNet>, EffectError> {
    let mut network = context.network.clone();
    let ready = tokio::time::timeout(NETWORK_PATIENCE, network.wait_for(Option::is_some)).await;
    ready.ok().and_then(Result::ok).and_then(|network| network.clone()).ok_or(EffectError::NoNetwork)
}

async fn connect(
    context: &Context,
    pod: &Arc<Pod>,
    sandbox: &Sandbox,
    network: Option<&dyn PodNet>,
) -> Result<Vec<IpAddr>, EffectError> {
    let ips = match network {
        Some(network) => network.attach(sandbox).await.map_err(|error| EffectError::Network(chain(&error)))?,
        None => context.settings.node_ips.clone(),
    };
    let (pod, pod_dir) = (Arc::clone(pod), context.pod_dir(pod.uid()));
    let (settings, pod_ips) = (context.settings.clone(), ips.clone());
    blocking(move || files::write_pod_files(&pod, &pod_dir, &pod_ips, &settings))
        .await
        .map_err(|error| EffectError::Files(error.to_string()))?;
    Ok(ips)
}

async fn discard(context: &Context, id: &str) -> Result<(), EffectError> {
    if let Some(network) = context.network() {
        network.detach(id).await.map_err(|error| EffectError::Network(chain(&error)))?;
    }
    ignore_missing(context.runtime.stop_sandbox(id).await)?;
    ignore_missing(context.runtime.remove_sandbox(id).await)
}

fn ignore_missing(result: Result<(), RuntimeError>) -> Result<(), EffectError> {
    match result {
        Ok(()) | Err(RuntimeError::NoSandbox(_) | RuntimeError::SandboxEnded(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
