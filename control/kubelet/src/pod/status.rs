//! The pod's status from what is seen: container statuses, phase, conditions, addresses. Pure.

use std::net::IpAddr;

use control_runtime::{Container as Instance, ContainerState as Seen};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use super::observed::Observed;
use super::phase::{self, Phase};
use crate::spec::pod_ref::{PodRef, as_container, is_sidecar};
use crate::spec::resources::qos;

#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub host_ips: &'a [IpAddr],
    /// Containers held back after crashes.
    pub crash_loops: &'a [(String, SignedDuration)],
    /// No container will be started again.
    pub ended: bool,
    pub now: Timestamp,
}

/// The phase alone, for deciding whether the pod has ended by itself.
pub(crate) fn natural_phase(input: &Input<'_>) -> Phase {
    let (init, main) = container_statuses(input);
    phase::phase(input.pod, &init, &main, false)
}

/// The whole status as it should read at the API server; conditions of others are carried over.
pub(crate) fn compute(input: &Input<'_>) -> PodStatus {
    let Input { pod, memory, .. } = input;
    let old = pod.status.clone().unwrap_or_default();
    let (init, main) = container_statuses(input);
    let phase = reported_phase(input, &init, &main);
    let failed = memory.failed.as_ref();
    let pod_ips = if pod.host_network() { input.host_ips } else { &memory.pod_ips };
    let texts = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (pod_ip, pod_ips) = if pod_ips.is_empty() {
        (old.pod_ip.clone(), old.pod_ips.clone())
    } else {
        (texts(pod_ips).into_iter().next(), Some(texts(pod_ips).into_iter().map(|ip| PodIP { ip }).collect()))
    };
    let host_ips = texts(input.host_ips);
    let start = old.start_time.clone().unwrap_or(Time(memory.seen_at));
    PodStatus {
        phase: Some(phase.name().into()),
        reason: failed.map(|failed| failed.reason.clone()).or_else(|| old.reason.clone()),
        message: failed.map(|failed| failed.message.clone()).or_else(|| old.message.clone()),
        conditions: Some(conditions(input, &old, phase, &init, &main)),
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip,
        pod_ips,
        start_time: Some(start),
        qos_class: Some(qos(pod).name().into()),
        observed_generation: pod.metadata.generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ephemeral_container_statuses: ephemeral_statuses(input),
        ..old
    }
}

/// A terminal phase never changes, and is not reported while a container still runs.
fn reported_phase(input: &Input<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> Phase {
    if let Some(phase) = Phase::terminal_of(input.pod) {
        return phase;
    }
    let phase = match &input.memory.failed {
        Some(_) => Phase::Failed,
        None => phase::phase(input.pod, init, main, input.ended),
    };
    let runs = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    if phase.is_terminal() && init.iter().chain(main).any(runs) { Phase::Running } else { phase }
}

fn container_statuses(input: &Input<'_>) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let init = input.pod.init_containers().iter().map(|container| container_status(input, container, true)).collect();
    let main = input.pod.containers().iter().map(|container| container_status(input, container, false)).collect();
    (init, main)
}

/// Ephemeral containers are never ready: nothing depends on them.
fn ephemeral_statuses(input: &Input<'_>) -> Option<Vec<ContainerStatus>> {
    let containers = input.pod.ephemeral_containers().iter().filter_map(as_container);
    let statuses = containers.map(|container| {
        let status = container_status(input, &container, false);
        ContainerStatus { ready: false, started: None, ..status }
    });
    Some(statuses.collect()).filter(|list: &Vec<_>| !list.is_empty())
}

fn container_status(input: &Input<'_>, container: &Container, init: bool) -> ContainerStatus {
    let name = &container.name;
    let mut instances = input.observed.of(name);
    let current = instances.next();
    let previous = instances.next().filter(|instance| instance.state == Seen::Exited);
    let waiting = waiting(input, container, current);
    let (state, last) = match (waiting, current) {
        (Some(waiting), Some(current)) if current.state == Seen::Exited => (waiting, Some(current)),
        (Some(waiting), _) => (waiting, previous),
        (None, Some(current)) if current.state == Seen::Exited => (exited(current), previous),
        (None, current) => (running(current), previous),
    };
    let is_running = state.running.is_some();
    let health = current.and_then(|current| input.memory.health(name, &current.id));
    let started = is_running && (container.startup_probe.is_none() || health.is_some_and(|health| health.started));
    let once = init && !is_sidecar(container);
    let ready = if once {
        state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0)
    } else {
        started && (container.readiness_probe.is_none() || health.is_some_and(|health| health.ready))
    };
    let spec_image = container.image.clone().unwrap_or_default();
    let memory = input.memory.containers.get(name);
    let applied = memory.and_then(|memory| memory.applied.as_ref());
    let applied = applied.filter(|applied| current.is_some_and(|current| current.id == applied.id));
    ContainerStatus {
        name: name.clone(),
        image: current.map(|current| current.image.clone()).filter(|image| is_name(image)).unwrap_or(spec_image),
        image_id: current.map(|current| current.image_id.clone()).unwrap_or_default(),
        container_id: current.filter(|current| !current.id.is_empty()).map(|current| url(&current.id)),
        restart_count: current.map_or(0, |current| i32::try_from(current.attempt).unwrap_or(i32::MAX)),
        ready,
        started: Some(started),
        state: Some(state),
        last_state: Some(last.map(exited).unwrap_or_default()),
        resources: applied.filter(|_| is_running).map(|applied| applied.resources.clone()),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        volume_mounts: container.volume_mounts.as_ref().map(|mounts| mounts.iter().map(mounted).collect()),
        ..ContainerStatus::default()
    }
}

fn mounted(mount: &VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only.unwrap_or(false);
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: Some(read_only).filter(|read_only| *read_only),
        recursive_read_only: read_only.then(|| "Disabled".into()),
        ..VolumeMountStatus::default()
    }
}

/// The waiting state, unless the container runs or has ended for good.
fn waiting(input: &Input<'_>, container: &Container, current: Option<&Instance>) -> Option<ContainerState> {
    let memory = input.memory.containers.get(&container.name);
    let state = |reason: &str, message: Option<String>| {
        let waiting = ContainerStateWaiting { reason: Some(reason.into()), message };
        Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() })
    };
    let starting = input.memory.is_starting(&container.name);
    let seen = current.map(|current| current.state);
    if matches!(seen, Some(Seen::Running | Seen::Unknown)) && !starting {
        return None;
    }
    if let Some(Seen::Exited) = seen {
        if input.ended {
            return None;
        }
        if let Some((_, delay)) = input.crash_loops.iter().find(|(name, _)| *name == container.name) {
            let delay = crate::duration::go(*delay);
            let message =
                format!("back-off {delay} restarting failed container={} pod={}", container.name, input.pod.label());
            return state("CrashLoopBackOff", Some(message));
        }
    }
    match memory.and_then(|memory| memory.waiting.as_ref()) {
        Some(failure) if !input.ended || seen.is_none() => state(&failure.reason, Some(failure.message.clone())),
        _ if seen == Some(Seen::Exited) => None,
        _ if input.pod.init_containers().is_empty() => state("ContainerCreating", None),
        _ => state("PodInitializing", None),
    }
}

fn running(current: Option<&Instance>) -> ContainerState {
    let started_at = current.and_then(|current| current.started_at).map(Time);
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn exited(instance: &Instance) -> ContainerState {
    let exit_code = instance.exit_code.unwrap_or(137);
    let default_reason = if exit_code == 0 { "Completed" } else { "Error" };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(instance.id.as_str()).filter(|id| !id.is_empty()).map(url),
            exit_code,
            reason: Some(instance.reason.clone().unwrap_or_else(|| default_reason.into())),
            message: instance.message.clone().filter(|message| !message.is_empty()),
            started_at: instance.started_at.map(Time),
            finished_at: instance.finished_at.map(Time),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn url(id: &str) -> String {
    format!("tidegate://{id}")
}

/// Whether the runtime's record names the image and does not just hold its digest.
fn is_name(image: &str) -> bool {
    !image.is_empty() && !image.starts_with("sha256:")
}

/// Verdict of one condition.
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn good() -> Self {
        Self { status: true, reason: None, message: None }
    }

    fn bad(reason: &'static str, message: Option<String>) -> Self {
        Self { status: false, reason: Some(reason), message }
    }
}

fn conditions(
    input: &Input<'_>,
    old: &PodStatus,
    phase: Phase,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let old = old.conditions.as_deref().unwrap_or_default();
    let sandbox_up =
        input.observed.ready_sandbox().is_some_and(|sandbox| !input.memory.stopped_sandboxes.contains(&sandbox.id));
    let connected = input.pod.host_network() || !input.memory.pod_ips.is_empty();
    let network =
        if sandbox_up && connected { Verdict::good() } else { Verdict { status: false, reason: None, message: None } };
    let containers = containers_ready(input, phase, main);
    let own = [
        ("PodReadyToStartContainers", network),
        ("Initialized", initialized(input, phase, init)),
        ("Ready", ready(input, &containers, old)),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::good()),
    ];
    let names = own.each_ref().map(|(name, _)| *name);
    let mut list: Vec<PodCondition> = own
        .into_iter()
        .map(|(name, verdict)| condition(name, verdict, old, input.pod.metadata.generation, input.now))
        .collect();
    list.extend(old.iter().filter(|condition| !names.contains(&condition.type_.as_str())).cloned());
    list
}

/// The transition time moves only when the status flips.
fn condition(
    name: &str,
    verdict: Verdict,
    old: &[PodCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let known = old.iter().find(|condition| condition.type_ == name).filter(|condition| condition.status == status);
    PodCondition {
        type_: name.into(),
        status: status.into(),
        reason: verdict.reason.map(Into::into),
        message: verdict.message,
        last_transition_time: known.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
        last_probe_time: None,
        observed_generation: generation,
    }
}

fn initialized(input: &Input<'_>, phase: Phase, init: &[ContainerStatus]) -> Verdict {
    let mut incomplete = Vec::new();
    for (container, status) in input.pod.init_containers().iter().zip(init) {
        let complete = if is_sidecar(container) { status.started.unwrap_or(false) } else { status.ready };
        if !complete {
            incomplete.push(status.name.as_str());
        }
    }
    let completed = || Verdict { status: true, reason: Some("PodCompleted"), message: None };
    let begun = input.pod.containers().iter().any(|container| input.observed.latest(&container.name).is_some());
    match phase {
        Phase::Succeeded => completed(),
        _ if incomplete.is_empty() || begun => Verdict::good(),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::bad("ContainersNotInitialized", Some(message))
        }
    }
}

fn containers_ready(input: &Input<'_>, phase: Phase, main: &[ContainerStatus]) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::bad("PodCompleted", None),
        Phase::Failed => return Verdict::bad("PodFailed", None),
        _ => {}
    }
    let sidecars = input.pod.init_containers().iter().filter(|container| is_sidecar(container));
    let sidecars: Vec<ContainerStatus> = sidecars.map(|container| container_status(input, container, true)).collect();
    let unready: Vec<&str> =
        sidecars.iter().chain(main).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        Verdict::good()
    } else {
        Verdict::bad("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
    }
}

fn ready(input: &Input<'_>, containers: &Verdict, old: &[PodCondition]) -> Verdict {
    if !containers.status {
        return Verdict { status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let gates = input.pod.pod_spec().readiness_gates.as_deref().unwrap_or_default();
    let problems: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match old.iter().find(|condition| condition.type_ == *name) {
                None => Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if problems.is_empty() {
        Verdict::good()
    } else {
        Verdict::bad("ReadinessGatesNotReady", Some(problems.join(", ")))
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
