//! Starts effects: what a decision asks for becomes a task, whose end the worker hears of.

use std::sync::Arc;

use control_runtime::ContainerState;
use jiff::{SignedDuration, Timestamp};

use super::{Done, EFFECT_RETRY, Worker};
use crate::cluster::chain;
use crate::events::Severity;
use crate::pod::backoff::Backoff;
use crate::pod::decide::{Action, Kill};
use crate::pod::kill::kill;
use crate::pod::memory::{Applied, Busy, Reason};
use crate::pod::{effects, files, start};
use crate::spec::pod_ref::PodRef;
use crate::spec::resources;

impl Worker {
    pub(super) fn set_up_volumes(&mut self) {
        self.memory.busy.insert(Busy::Volumes);
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        let facts = context.facts(&self.memory.pod_ips);
        self.effects
            .spawn(async move { Done::Volumes(context.volumes.set_up(&pod, &facts, crate::clock::now()).await) });
    }

    pub(super) fn act(&mut self, action: Action, now: Timestamp) {
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        match action {
            Action::SetUpVolumes => self.set_up_volumes(),
            Action::RunSandbox { attempt } => {
                if attempt > 0 && self.memory.sandbox_retry.failures() == 0 {
                    let message = "Pod sandbox changed, it will be killed and re-created.";
                    context.events.pod(&pod, Severity::Normal, "SandboxChanged", message);
                }
                self.memory.busy.insert(Busy::Sandbox);
                self.effects.spawn(async move { Done::Sandbox(effects::run_sandbox(context, pod, attempt).await) });
            }
            Action::Start { name, attempt } => self.start(name, attempt, now),
            Action::Kill(order) => self.kill(order, now),
            Action::Resize { id, name } => {
                let Some(container) = pod.container(&name) else { return };
                self.memory.busy.insert(Busy::Resize(id.clone()));
                let limits = resources::cgroup_values(&pod, &container, context.settings.machine_memory);
                let applied = Applied { id: id.clone(), resources: container.resources.unwrap_or_default() };
                self.effects.spawn(async move {
                    let result = held_back(context.runtime.limit_container(&id, limits).await).await;
                    Done::Resized { applied, name, failure: result.err().map(|error| chain(&error)) }
                });
            }
            Action::Discard { id, name, attempt } => {
                self.memory.busy.insert(Busy::Discard(id.clone()));
                let pod_dir = context.pod_dir(pod.uid());
                self.effects.spawn(async move {
                    match held_back(context.runtime.remove_container(&id).await).await {
                        Ok(()) => files::forget_instance(&pod_dir, &name, attempt),
                        Err(error) => {
                            tracing::warn!(container = %id, error = %chain(&error), "cannot remove a dead container")
                        }
                    }
                    Done::Discarded { id }
                });
            }
            Action::StopSandbox { id } => {
                self.memory.busy.insert(Busy::StopSandbox(id.clone()));
                let host_network = pod.host_network();
                self.effects.spawn(async move {
                    let result = held_back(effects::stop_sandbox(context, id.clone(), host_network).await).await;
                    Done::SandboxStopped { id, result }
                });
            }
            Action::RemoveSandbox { id } => {
                self.memory.busy.insert(Busy::RemoveSandbox(id.clone()));
                self.effects.spawn(async move {
                    let result = held_back(effects::remove_sandbox(context, id.clone()).await).await;
                    Done::SandboxRemoved { id, result }
                });
            }
            Action::Fail { reason, message } => {
                let severity = if reason == "DeadlineExceeded" { Severity::Normal } else { Severity::Warning };
                context.events.pod(&pod, severity, reason, message.clone());
                self.memory.failed = Some(Reason::new(reason, message));
            }
            Action::Delete => {
                self.memory.busy.insert(Busy::Delete);
                let sandboxes = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
                let (gone, flushed) = (self.memory.gone, self.writer.flushed());
                self.effects.spawn(async move {
                    if !gone {
                        flushed.await;
                    }
                    Done::Deleted(held_back(effects::delete(context, pod, sandboxes, gone).await).await)
                });
            }
        }
    }

    fn start(&mut self, name: String, attempt: u32, now: Timestamp) {
        let Some(container) = self.pod.container(&name) else { return };
        let Some(sandbox) = self.observed.ready_sandbox() else { return };
        let sandbox_id = sandbox.id.clone();
        let last = self.observed.latest(&name).filter(|last| last.state == ContainerState::Exited);
        if let Some(finished) = last.map(|last| last.finished_at.unwrap_or(now)) {
            let memory = self.memory.container(&name);
            memory.backoff = Some(Backoff::restarted(memory.backoff.as_ref(), finished, now));
        }
        // A new instance has what its definition says now.
        self.memory.container(&name).applied = None;
        self.memory.busy.insert(Busy::Start(name.clone()));
        let order = start::Order {
            pod: Arc::clone(&self.pod),
            container,
            attempt,
            sandbox_id,
            pod_ips: self.memory.pod_ips.clone(),
            cancelled: self.ending.clone(),
            target: self.target(&name),
        };
        let context = Arc::clone(&self.context);
        self.effects.spawn(async move { Done::Started { name, result: start::start(context, order).await } });
    }

    /// The running container that an ephemeral one names as its target.
    fn target(&self, name: &str) -> Result<Option<String>, String> {
        let ephemeral = self.pod.ephemeral_containers().iter().find(|container| container.name == name);
        let wanted = ephemeral.and_then(|container| container.target_container_name.as_deref());
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
        let running = self.observed.latest(wanted).filter(|target| target.state == ContainerState::Running);
        running.map(|target| Some(target.id.clone())).ok_or_else(|| format!("unable to find target container {wanted}"))
    }

    fn kill(&mut self, order: Kill, now: Timestamp) {
        let id = order.id.clone();
        let deadline = now.saturating_add(SignedDuration::from_secs(order.grace_s)).unwrap_or(Timestamp::MAX);
        self.memory.kill_deadlines.insert(id.clone(), deadline);
        self.memory.busy.insert(Busy::Kill(id.clone()));
        if let Some(longer) = self.kills.remove(&id) {
            longer.abort();
        }
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        let pod_ip = self.memory.pod_ips.first().copied();
        let handle = self.effects.spawn({
            let id = id.clone();
            async move {
                let failure = held_back(kill(context, pod, order, pod_ip).await).await.err().map(|error| chain(&error));
                Done::Killed { id, failure }
            }
        });
        self.kills.insert(id, handle);
    }
}

/// A failed effect stays under way for a moment, so that it is not tried again at once.
async fn held_back<T, E>(result: Result<T, E>) -> Result<T, E> {
    if result.is_err() {
        tokio::time::sleep(EFFECT_RETRY).await;
    }
    result
}
