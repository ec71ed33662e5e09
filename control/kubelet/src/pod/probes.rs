//! Keeps a probe task for every probe of every running container of a pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::{Container as Instance, ContainerState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::memory::Memory;
use super::observed::Observed;
use crate::probe::target::Target;
use crate::probe::{self, Kind, Prober, Report, Timing};
use crate::spec::pod_ref::{PodRef, is_sidecar};

pub(crate) struct Probes {
    context: Arc<Context>,
    reports: mpsc::Sender<Report>,
    tasks: HashMap<(String, Kind), Task>,
}

/// Ends with this value; a task that ended by itself stays, so that it is not started again for the same instance.
struct Task {
    container_id: String,
    _handle: AbortOnDropHandle<()>,
}

impl Probes {
    pub(crate) fn new(context: Arc<Context>, reports: mpsc::Sender<Report>) -> Self {
        Self { context, reports, tasks: HashMap::new() }
    }

    /// Starts what is missing and ends what is over. While a pod ends, only readiness is still asked.
    pub(crate) fn sync(&mut self, pod: &Pod, observed: &Observed, memory: &Memory, ended: bool) {
        let sidecars = pod.init_containers().iter().filter(|container| is_sidecar(container));
        let mut wanted = Vec::new();
        for container in sidecars.chain(pod.containers()) {
            let running = |instance: &&Instance| instance.state == ContainerState::Running;
            let Some(instance) = observed.latest(&container.name).filter(running) else { continue };
            if memory.is_starting(&container.name) {
                continue;
            }
            let started = memory.health(&container.name, &instance.id).is_some_and(|health| health.started);
            for (kind, probe) in due(container, started, ended) {
                wanted.push((container, instance, kind, probe));
            }
        }
        self.tasks.retain(|(name, kind), task| {
            let still = |(container, instance, wanted, _): &(&Container, &Instance, Kind, &Probe)| {
                container.name == *name && *wanted == *kind && instance.id == task.container_id
            };
            wanted.iter().any(still)
        });
        for (container, instance, kind, probe) in wanted {
            let key = (container.name.clone(), kind);
            if !self.tasks.contains_key(&key) {
                let task = self.spawn(pod, container, instance, kind, probe, memory);
                self.tasks.insert(key, task);
            }
        }
    }

    fn spawn(
        &self,
        pod: &Pod,
        container: &Container,
        instance: &Instance,
        kind: Kind,
        probe: &Probe,
        memory: &Memory,
    ) -> Task {
        let timing = Timing::of(probe);
        let pod_ips = if pod.host_network() { &self.context.settings.node_ips } else { &memory.pod_ips };
        let prober = Prober {
            runtime: Arc::clone(&self.context.runtime),
            container_id: instance.id.clone(),
            target: Target::of(probe, container, pod_ips.first().copied()),
            timeout: timing.timeout,
        };
        let subject = probe::Instance { container: container.name.clone(), container_id: instance.id.clone(), kind };
        let first = first_tick(self.context.started, instance.started_at, timing);
        let task = tokio::spawn(probe::run(subject, timing, first, prober, self.reports.clone()));
        Task { container_id: instance.id.clone(), _handle: AbortOnDropHandle::new(task) }
    }
}

/// The probes of a container that are to be asked now.
fn due(container: &Container, started: bool, ended: bool) -> Vec<(Kind, &Probe)> {
    let mut due = Vec::new();
    let startup = container.startup_probe.as_ref();
    if startup.is_some() && !started {
        due.extend(startup.filter(|_| !ended).map(|probe| (Kind::Startup, probe)));
        return due;
    }
    due.extend(container.liveness_probe.as_ref().filter(|_| !ended).map(|probe| (Kind::Liveness, probe)));
    due.extend(container.readiness_probe.as_ref().map(|probe| (Kind::Readiness, probe)));
    due
}

/// The initial delay counts from the container's start. Right after a restart of this process the first questions are
/// spread over one period, so that not all containers of the node are asked at once.
fn first_tick(process_started: Instant, container_started: Option<Timestamp>, timing: Timing) -> Instant {
    let age = container_started.map(|started| crate::clock::now().duration_since(started));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    let mut first = Instant::now() + timing.initial_delay.saturating_sub(age);
    let is_adopted = age > process_started.elapsed();
    if is_adopted && process_started.elapsed() < timing.period {
        first += timing.period.mul_f64(rand::random::<f64>());
    }
    first
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn startup_holds_the_other_probes_back() {
        let probe = json!({"tcpSocket": {"port": 1}});
        let all = json!({"name": "c", "startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe});
        let container: Container = serde_json::from_value(all).unwrap();
        let kinds =
            |started, ended| due(&container, started, ended).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(false, false), [Kind::Startup]);
        assert_eq!(kinds(true, false), [Kind::Liveness, Kind::Readiness]);
        assert_eq!(kinds(true, true), [Kind::Readiness]);
        assert_eq!(kinds(false, true), []);
    }
}
