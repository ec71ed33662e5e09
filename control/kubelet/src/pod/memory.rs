//! What a worker knows of its pod beyond the API object and the runtime's records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::backoff::{Backoff, Retry};

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Effects under way: none of them is asked for twice.
    pub busy: BTreeSet<Busy>,
    /// Latest time by which each container being stopped is to be gone.
    pub kill_deadlines: BTreeMap<String, Timestamp>,
    pub volumes_ready: bool,
    pub volumes_retry: Retry,
    pub sandbox_retry: Retry,
    pub pod_ips: Vec<IpAddr>,
    /// The API object is gone: everything must go, whatever it last said.
    pub gone: bool,
    /// The kubelet itself ended the pod.
    pub failed: Option<Reason>,
    /// Since when the pod is being ended.
    pub terminating_since: Option<Timestamp>,
    /// When the kubelet first saw the pod.
    pub seen_at: Timestamp,
    /// Sandboxes that are disconnected and hold no process any more.
    pub stopped_sandboxes: BTreeSet<String>,
    pub next_sandbox_attempt: u32,
    /// This process made the pod's sandbox, so that it can tell how long the start took.
    pub made_sandbox: bool,
    pub has_run: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerMemory {
    pub backoff: Option<Backoff>,
    /// Why the last attempt to start it failed.
    pub waiting: Option<Reason>,
    /// A pull that has failed and does not yet show as held back.
    pub failed_pull: Option<FailedPull>,
    pub retry: Retry,
    pub health: Health,
    pub applied: Option<Applied>,
}

/// The resources that a running instance has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Applied {
    pub id: String,
    pub resources: ResourceRequirements,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedPull {
    pub image: String,
    pub at: Timestamp,
}

/// What probes say of one container instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub container_id: String,
    /// Last readiness result; meaningless without a readiness probe.
    pub ready: bool,
    /// Startup result; meaningless without a startup probe.
    pub started: bool,
    /// A probe wants it dead.
    pub condemned: Option<Condemned>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condemned {
    Liveness,
    Startup,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub reason: String,
    pub message: String,
}

impl Reason {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Busy {
    Volumes,
    Sandbox,
    /// By container name.
    Start(String),
    /// By container id.
    Kill(String),
    Resize(String),
    Discard(String),
    StopSandbox(String),
    RemoveSandbox(String),
    Delete,
}

impl Memory {
    pub(crate) fn health(&self, name: &str, id: &str) -> Option<&Health> {
        self.containers.get(name).map(|memory| &memory.health).filter(|health| health.container_id == id)
    }

    pub(crate) fn is_starting(&self, name: &str) -> bool {
        self.busy.contains(&Busy::Start(name.into()))
    }

    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.into()).or_default()
    }
}
