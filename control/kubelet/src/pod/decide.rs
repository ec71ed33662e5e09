//! What to do next for a pod: a pure function from what is seen and remembered to actions.
//!
//! Every action is safe to ask for again: an effect that failed leaves no trace in the runtime, and the next decision
//! asks for it anew.

use control_runtime::{Container as Instance, ContainerState, SandboxState};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::{Backoff, Restart};
use super::memory::{Busy, Condemned, Memory};
use super::observed::Observed;
use crate::spec::container::{HASH_LABEL, definition_hash};
use crate::spec::pod_ref::{PodRef, as_container, is_sidecar};
use crate::spec::resources::{self, Change};
use crate::spec::{restart, sysctl};

/// Even a container that used up its grace gets this long between SIGTERM and SIGKILL.
pub(crate) const GRACE_MIN_S: i64 = 2;
const GRACE_DEFAULT_S: i64 = 30;
/// Instances kept of one container: the newest and the one before it, whose log `--previous` shows.
const INSTANCES_KEPT: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    SetUpVolumes,
    RunSandbox {
        attempt: u32,
    },
    Start {
        name: String,
        attempt: u32,
    },
    Kill(Kill),
    /// Give a running container the limits that its definition has now.
    Resize {
        id: String,
        name: String,
    },
    /// Forget a dead instance.
    Discard {
        id: String,
        name: String,
        attempt: u32,
    },
    /// Disconnect the sandbox and end its processes.
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// End the pod with this reason.
    Fail {
        reason: &'static str,
        message: String,
    },
    /// Nothing runs any more: give back the volumes, report for the last time, remove the API object.
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub id: String,
    pub name: String,
    pub cause: KillCause,
    pub grace_s: i64,
    /// Whether the preStop hook is still to be run.
    pub with_hook: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillCause {
    /// The pod ends.
    Stopping,
    /// Its definition is another now.
    Changed,
    /// It has other resources now and is to take them from its start.
    Resized,
    Unhealthy(Condemned),
    /// The runtime has lost track of it.
    Lost,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub actions: Vec<Action>,
    /// When to decide again even if nothing happens.
    pub wake: Option<Timestamp>,
    /// Containers held back after crashes, with the delay.
    pub crash_loops: Vec<(String, SignedDuration)>,
}

/// Decides; `ended` says that no container may be started any more.
pub(crate) fn next(pod: &Pod, observed: &Observed, memory: &Memory, ended: bool, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    if ended {
        end(pod, observed, memory, now, &mut decision);
    } else if let Some(action) = overdue(pod, now, &mut decision) {
        decision.actions.push(action);
    } else {
        advance(pod, observed, memory, now, &mut decision);
    }
    decision
}

impl Decision {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Adds an action unless its effect is under way.
    fn push(&mut self, memory: &Memory, busy: &Busy, action: Action) {
        if !memory.busy.contains(busy) {
            self.actions.push(action);
        }
    }
}

fn overdue(pod: &Pod, now: Timestamp, decision: &mut Decision) -> Option<Action> {
    let limit = pod.pod_spec().active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let deadline = started.saturating_add(SignedDuration::from_secs(limit)).ok()?;
    if now < deadline {
        decision.wake_at(deadline);
        return None;
    }
    let message = "Pod was active on the node longer than the specified deadline".to_owned();
    Some(Action::Fail { reason: "DeadlineExceeded", message })
}

fn advance(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp, decision: &mut Decision) {
    let is_new = observed.sandboxes.is_empty() && observed.containers.is_empty();
    if is_new && let Some(message) = sysctl::forbidden(pod) {
        decision.actions.push(Action::Fail { reason: "SysctlForbidden", message });
        return;
    }
    if !memory.volumes_ready {
        match memory.volumes_retry.wait(now) {
            None => decision.push(memory, &Busy::Volumes, Action::SetUpVolumes),
            Some(at) => decision.wake_at(at),
        }
        return;
    }
    retire_sandboxes(pod, observed, memory, decision);
    let connected = !memory.pod_ips.is_empty() || pod.host_network();
    let Some(sandbox) = observed.ready_sandbox().filter(|_| connected) else {
        if observed.sandboxes.is_empty() && wants_anything(pod, observed) {
            match memory.sandbox_retry.wait(now) {
                None => {
                    decision.push(memory, &Busy::Sandbox, Action::RunSandbox { attempt: memory.next_sandbox_attempt });
                }
                Some(at) => decision.wake_at(at),
            }
        }
        return;
    };
    let view = View { pod, observed, memory, sandbox: &sandbox.id, now };
    discard_old(&view, decision);
    view.debug(decision);
    if view.initialise(decision) {
        for container in pod.containers() {
            view.keep_running(container, decision);
        }
    }
}

/// Sandboxes that cannot hold containers any more are stopped and removed before a new one is made.
fn retire_sandboxes(pod: &Pod, observed: &Observed, memory: &Memory, decision: &mut Decision) {
    let connected = !memory.pod_ips.is_empty() || pod.host_network();
    for (index, sandbox) in observed.sandboxes.iter().enumerate() {
        let usable = index == 0 && sandbox.state == SandboxState::Ready && connected;
        if usable || memory.busy.contains(&Busy::Sandbox) {
            continue;
        }
        if memory.stopped_sandboxes.contains(&sandbox.id) {
            decision.push(
                memory,
                &Busy::RemoveSandbox(sandbox.id.clone()),
                Action::RemoveSandbox { id: sandbox.id.clone() },
            );
        } else {
            decision.push(
                memory,
                &Busy::StopSandbox(sandbox.id.clone()),
                Action::StopSandbox { id: sandbox.id.clone() },
            );
        }
    }
}

/// Whether any container is to run, so that the pod needs a sandbox.
fn wants_anything(pod: &Pod, observed: &Observed) -> bool {
    pod.containers().iter().any(|container| match observed.latest(&container.name) {
        None => true,
        Some(instance) => restart::again(pod, container, instance.exit_code),
    })
}

fn discard_old(view: &View<'_>, decision: &mut Decision) {
    let names = view.pod.init_containers().iter().chain(view.pod.containers()).map(|container| container.name.as_str());
    for name in names {
        let dead = |instance: &&Instance| instance.state == ContainerState::Exited && !instance.sandbox_id.is_empty();
        for instance in view.observed.of(name).skip(INSTANCES_KEPT).filter(dead) {
            view.discard(instance, decision);
        }
    }
}

struct View<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    sandbox: &'a str,
    now: Timestamp,
}

impl View<'_> {
    /// Runs init containers in order; true once the main containers may run.
    fn initialise(&self, decision: &mut Decision) -> bool {
        let begun = self.pod.containers().iter().any(|container| self.instance(container).is_some());
        for container in self.pod.init_containers() {
            if is_sidecar(container) {
                self.keep_running(container, decision);
                if !begun && !self.has_started(container) {
                    return false;
                }
            } else if !begun {
                let done = self.instance(container).is_some_and(|instance| instance.exit_code == Some(0));
                if !done {
                    // One that may not fail again has already failed the pod.
                    self.keep_running(container, decision);
                    return false;
                }
            }
        }
        true
    }

    /// Ephemeral containers run once, whatever the others do.
    fn debug(&self, decision: &mut Decision) {
        for ephemeral in self.pod.ephemeral_containers() {
            let is_new = self.observed.latest(&ephemeral.name).is_none() && !self.memory.is_starting(&ephemeral.name);
            if is_new && let Some(container) = as_container(ephemeral) {
                self.start(&container, 0, decision);
            }
        }
    }

    /// Newest instance in the present sandbox.
    fn instance(&self, container: &Container) -> Option<&Instance> {
        self.observed.latest(&container.name).filter(|instance| instance.sandbox_id == self.sandbox)
    }

    fn has_started(&self, container: &Container) -> bool {
        let Some(instance) = self.instance(container).filter(|instance| instance.state == ContainerState::Running)
        else {
            return false;
        };
        let probed = || self.memory.health(&container.name, &instance.id).is_some_and(|health| health.started);
        !self.memory.is_starting(&container.name) && (container.startup_probe.is_none() || probed())
    }

    /// Starts, restarts, replaces or leaves alone.
    fn keep_running(&self, container: &Container, decision: &mut Decision) {
        if self.memory.is_starting(&container.name) {
            return;
        }
        let latest = self.observed.latest(&container.name);
        let is_main = self.pod.containers().iter().any(|main| main.name == container.name);
        // Init containers run again in a new sandbox; a main container that ended well does not.
        let Some(instance) = latest.filter(|instance| is_main || instance.sandbox_id == self.sandbox) else {
            return self.start(container, latest.map_or(0, |instance| instance.attempt + 1), decision);
        };
        match instance.state {
            ContainerState::Running => self.check(container, instance, decision),
            ContainerState::Created => self.discard(instance, decision),
            ContainerState::Unknown => self.kill(container, instance, KillCause::Lost, decision),
            ContainerState::Exited if restart::again(self.pod, container, instance.exit_code) => {
                self.restart(container, instance, decision)
            }
            ContainerState::Exited => {}
        }
    }

    fn check(&self, container: &Container, instance: &Instance, decision: &mut Decision) {
        let changed = instance.labels.get(HASH_LABEL).is_some_and(|hash| *hash != definition_hash(container));
        let condemned = self.memory.health(&container.name, &instance.id).and_then(|health| health.condemned);
        if changed {
            self.kill(container, instance, KillCause::Changed, decision);
        } else if let Some(condemned) = condemned {
            self.kill(container, instance, KillCause::Unhealthy(condemned), decision);
        } else {
            self.resize(container, instance, decision);
        }
    }

    fn resize(&self, container: &Container, instance: &Instance, decision: &mut Decision) {
        let memory = self.memory.containers.get(&container.name);
        let Some(applied) = memory.and_then(|memory| memory.applied.as_ref()).filter(|it| it.id == instance.id) else {
            return;
        };
        match resources::change(&applied.resources, container) {
            None => {}
            Some(Change::Live) => {
                let Instance { id, name, .. } = instance.clone();
                decision.push(self.memory, &Busy::Resize(id.clone()), Action::Resize { id, name });
            }
            Some(Change::Restart) => self.kill(container, instance, KillCause::Resized, decision),
        }
    }

    fn restart(&self, container: &Container, instance: &Instance, decision: &mut Decision) {
        let backoff = self.memory.containers.get(&container.name).and_then(|memory| memory.backoff.as_ref());
        let finished = instance.finished_at.unwrap_or(self.now);
        match Backoff::check(backoff, finished, self.now) {
            Restart::Now => self.start(container, instance.attempt + 1, decision),
            Restart::At(at, delay) => {
                decision.crash_loops.push((container.name.clone(), delay));
                decision.wake_at(at);
            }
        }
    }

    /// One start at a time: the next container waits until this one runs and its postStart hook has ended.
    fn start(&self, container: &Container, attempt: u32, decision: &mut Decision) {
        let starting = self.memory.busy.iter().any(|busy| matches!(busy, Busy::Start(_)))
            || decision.actions.iter().any(|action| matches!(action, Action::Start { .. }));
        if starting {
            return;
        }
        match self.memory.containers.get(&container.name).and_then(|memory| memory.retry.wait(self.now)) {
            None => decision.actions.push(Action::Start { name: container.name.clone(), attempt }),
            Some(at) => decision.wake_at(at),
        }
    }

    fn kill(&self, container: &Container, instance: &Instance, cause: KillCause, decision: &mut Decision) {
        let probe_grace = match cause {
            KillCause::Unhealthy(Condemned::Liveness) => container.liveness_probe.as_ref(),
            KillCause::Unhealthy(Condemned::Startup) => container.startup_probe.as_ref(),
            _ => None,
        }
        .and_then(|probe| probe.termination_grace_period_seconds);
        let grace_s = probe_grace.or(self.pod.pod_spec().termination_grace_period_seconds).unwrap_or(GRACE_DEFAULT_S);
        let kill = Kill { id: instance.id.clone(), name: container.name.clone(), cause, grace_s, with_hook: true };
        decision.push(self.memory, &Busy::Kill(instance.id.clone()), Action::Kill(kill));
    }

    fn discard(&self, instance: &Instance, decision: &mut Decision) {
        let Instance { id, name, attempt, .. } = instance.clone();
        decision.push(self.memory, &Busy::Discard(id.clone()), Action::Discard { id, name, attempt });
    }
}

/// Stops main and init containers, then sidecars in reverse order, then the sandbox, then lets the object go.
fn end(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp, decision: &mut Decision) {
    let since = memory.terminating_since.unwrap_or(now);
    let deadline = since.saturating_add(SignedDuration::from_secs(grace(pod, memory))).unwrap_or(Timestamp::MAX);
    let remaining_s = deadline.duration_since(now).as_secs().max(0);
    let active = |name: &str| {
        observed
            .latest(name)
            .filter(|instance| !matches!(instance.state, ContainerState::Exited | ContainerState::Created))
    };
    let sidecars: Vec<&Container> = pod.init_containers().iter().filter(|container| is_sidecar(container)).collect();
    let others = pod.init_containers().iter().filter(|container| !is_sidecar(container)).chain(pod.containers());
    let others = others.map(|container| container.name.as_str());
    let others = others.chain(pod.ephemeral_containers().iter().map(|container| container.name.as_str()));
    let mut doomed: Vec<&Instance> = others.filter_map(active).collect();
    if doomed.is_empty() {
        doomed.extend(sidecars.iter().rev().find_map(|sidecar| active(&sidecar.name)));
    }
    for instance in &doomed {
        stop(instance, memory, remaining_s, deadline, decision);
    }
    let busy =
        |busy: &Busy| matches!(busy, Busy::Kill(_) | Busy::Start(_) | Busy::Sandbox | Busy::Volumes | Busy::Discard(_));
    if doomed.is_empty() && !memory.busy.iter().any(busy) {
        let standing = observed.sandboxes.iter().filter(|sandbox| !memory.stopped_sandboxes.contains(&sandbox.id));
        let mut all_stopped = true;
        for sandbox in standing {
            all_stopped = false;
            decision.push(
                memory,
                &Busy::StopSandbox(sandbox.id.clone()),
                Action::StopSandbox { id: sandbox.id.clone() },
            );
        }
        if all_stopped && (memory.gone || pod.is_deleting()) {
            decision.push(memory, &Busy::Delete, Action::Delete);
        }
    }
}

/// Stops once, and again without its hook if the grace was shortened meanwhile.
fn stop(instance: &Instance, memory: &Memory, remaining_s: i64, deadline: Timestamp, decision: &mut Decision) {
    let under_way = memory.busy.contains(&Busy::Kill(instance.id.clone()));
    let known = memory.kill_deadlines.get(&instance.id).copied();
    let sooner =
        known.is_some_and(|known| deadline < known.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(known));
    if under_way && !sooner {
        return;
    }
    decision.actions.push(Action::Kill(Kill {
        id: instance.id.clone(),
        name: instance.name.clone(),
        cause: KillCause::Stopping,
        grace_s: remaining_s,
        with_hook: !under_way,
    }));
}

fn grace(pod: &Pod, memory: &Memory) -> i64 {
    let own = pod.pod_spec().termination_grace_period_seconds.unwrap_or(GRACE_DEFAULT_S);
    // An object that vanished was deleted by force; if that happened while nobody watched, its own grace is kept.
    if memory.gone && !pod.is_deleting() {
        return own.min(GRACE_MIN_S);
    }
    pod.metadata.deletion_grace_period_seconds.unwrap_or(own)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
