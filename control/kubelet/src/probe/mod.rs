//! Probes: one task per probe of a running container instance.
//!
//! `target` resolves what to ask (pure), `tally` counts results against thresholds (pure), `task` keeps the time,
//! `http`, `tcp`, `grpc` and `exec` ask. Results go to the pod's worker.

mod exec;
mod grpc;
pub(crate) mod http;
mod tally;
pub(crate) mod target;
mod task;
mod tcp;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use crate::runtime::PodRuntime;
use target::Target;
pub(crate) use task::{Instance, Report, run};

/// Longest part of an answer that is read or shown.
pub(crate) const OUTPUT_MAX: usize = 10 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure(String),
    /// The question could not be asked; says nothing about the container.
    Error(String),
}

/// A probe's numbers, with upstream's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
            Duration::from_secs(value.unwrap_or(default))
        };
        let count = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

/// A failed connect as Go words it, which people search their events for.
pub(crate) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        _ => error.to_string(),
    }
}

/// Asks one target; the outcome comes within the timeout.
pub(crate) struct Prober {
    pub runtime: Arc<dyn PodRuntime>,
    pub container_id: String,
    pub target: Target,
    pub timeout: Duration,
}

impl task::Ask for Prober {
    async fn ask(&self) -> Outcome {
        match &self.target {
            Target::Exec(command) => {
                exec::probe(&*self.runtime, &self.container_id, command.clone(), self.timeout).await
            }
            Target::Http(request) => http::probe(request, self.timeout).await,
            Target::Tcp(address) => tcp::probe(address, self.timeout).await,
            Target::Grpc { address, service } => grpc::probe(address, service, self.timeout).await,
            Target::Broken(reason) => Outcome::Error(reason.clone()),
        }
    }
}
