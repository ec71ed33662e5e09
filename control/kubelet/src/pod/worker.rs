//! The loop of one pod: look, decide, act, report.

mod acts;
mod outcomes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::ContainerState;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::backoff::{BACKOFF_MAX, BACKOFF_MIN};
use super::context::Context;
use super::decide::{self, Action};
use super::effects::EffectError;
use super::files;
use super::manager::Index;
use super::memory::{Applied, Busy, Memory, Reason};
use super::observed::{Observed, Remembered};
use super::phase::Phase;
use super::probes::Probes;
use super::start::StartError;
use super::status::{self, Input};
use super::status_writer::StatusWriter;
use crate::events::Severity;
use crate::probe::Report;
use crate::spec::pod_ref::{PodRef, version};
use crate::volume::{VolumeError, Volumes};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const VOLUMES_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(250), SignedDuration::from_secs(120));
const SANDBOX_RETRY: (SignedDuration, SignedDuration) = (SECOND, SignedDuration::from_secs(30));
const IMAGE_RETRY: (SignedDuration, SignedDuration) = (BACKOFF_MIN, BACKOFF_MAX);
/// How long a failed pull shows as such before it shows as held back.
const PULL_FAILURE_SHOWN: SignedDuration = SignedDuration::from_secs(3);
const START_RETRY: (SignedDuration, SignedDuration) = (SECOND, SignedDuration::from_secs(15));
/// Pause after an effect that should not have failed.
const EFFECT_RETRY: Duration = Duration::from_secs(1);
const REPORTS: usize = 64;

#[derive(Debug)]
pub(crate) enum Message {
    /// The API server's newest version of the pod.
    Pod(Arc<Pod>),
    /// The object is gone.
    Gone,
    /// The runtime may have changed.
    Look,
}

/// How an effect ended.
enum Done {
    Volumes(Result<Timestamp, VolumeError>),
    Sandbox(Result<Vec<std::net::IpAddr>, EffectError>),
    Started { name: String, result: Result<(), StartError> },
    Killed { id: String, failure: Option<String> },
    Resized { applied: Applied, name: String, failure: Option<String> },
    Discarded { id: String },
    SandboxStopped { id: String, result: Result<(), EffectError> },
    SandboxRemoved { id: String, result: Result<(), EffectError> },
    Deleted(Result<(), EffectError>),
}

pub(crate) struct Worker {
    context: Arc<Context>,
    index: Arc<Index>,
    pod: Arc<Pod>,
    observed: Arc<Observed>,
    remembered: Remembered,
    memory: Memory,
    effects: JoinSet<Done>,
    kills: HashMap<String, AbortHandle>,
    probes: Probes,
    reports: mpsc::Receiver<Report>,
    writer: StatusWriter,
    /// Cancelled once no container may be started any more.
    ending: CancellationToken,
    /// When the volumes' content is to be looked at again.
    volumes_due: Option<Timestamp>,
    crash_loops: Vec<(String, SignedDuration)>,
    stale: bool,
    finished: bool,
}

impl Worker {
    /// Runs until nothing of the pod is left, here and at the API server.
    pub(crate) fn spawn(
        context: Arc<Context>,
        index: Arc<Index>,
        pod: Arc<Pod>,
        messages: mpsc::UnboundedReceiver<Message>,
        own: mpsc::UnboundedSender<Message>,
    ) -> tokio::task::JoinHandle<()> {
        let (sender, reports) = mpsc::channel(REPORTS);
        let answers = own;
        let writer = StatusWriter::spawn(Arc::clone(&context.cluster), Arc::clone(&pod), move |pod| {
            // The worker has ended if nobody receives.
            let _ = answers.send(Message::Pod(pod));
        });
        let memory = Memory { seen_at: crate::clock::now(), ..Memory::default() };
        let worker = Self {
            probes: Probes::new(Arc::clone(&context), sender),
            remembered: Remembered::from_status(&pod),
            context,
            index,
            pod,
            observed: Arc::default(),
            memory,
            effects: JoinSet::new(),
            kills: HashMap::new(),
            reports,
            writer,
            ending: CancellationToken::new(),
            volumes_due: None,
            crash_loops: Vec::new(),
            stale: true,
            finished: false,
        };
        tokio::spawn(worker.run(messages))
    }

    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            if self.stale {
                self.observe().await;
            }
            let wake = self.think();
            if self.finished {
                return;
            }
            let pause = wake.duration_since(crate::clock::now()).max(SignedDuration::ZERO);
            let pause = Duration::try_from(pause).unwrap_or_default();
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    // The manager has gone: the process ends, containers stay.
                    None => return,
                },
                Some(done) = self.effects.join_next(), if !self.effects.is_empty() => self.settle(done),
                Some(report) = self.reports.recv() => self.report(report),
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            while let Ok(report) = self.reports.try_recv() {
                self.report(report);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            // Answers to our own writes and the watch overtake each other.
            Message::Pod(pod) if version(&pod) >= version(&self.pod) && pod.uid() == self.pod.uid() => self.pod = pod,
            Message::Pod(_) => {}
            Message::Gone => self.memory.gone = true,
            Message::Look => self.stale = true,
        }
    }

    async fn observe(&mut self) {
        self.stale = false;
        let seen = self.look().await;
        for sandbox in &seen.sandboxes {
            self.index.own(&sandbox.id, self.pod.uid());
            let next = sandbox.spec.attempt + 1;
            self.memory.next_sandbox_attempt = self.memory.next_sandbox_attempt.max(next);
        }
        self.adopt_network(&seen).await;
        let mut observed = self.remembered.complete(seen);
        self.add_messages(&mut observed);
        self.observed = Arc::new(observed);
    }

    async fn look(&self) -> Observed {
        let uid = self.pod.uid();
        let mut sandboxes = self.context.runtime.sandboxes().await;
        sandboxes.retain(|sandbox| sandbox.spec.pod_uid == uid);
        let mut containers = Vec::new();
        for sandbox in &sandboxes {
            containers.extend(self.context.runtime.containers(&sandbox.id).await);
        }
        Observed::new(sandboxes, containers)
    }

    /// After a restart of this process, the addresses of a sandbox that an earlier one connected.
    async fn adopt_network(&mut self, seen: &Observed) {
        let Some(sandbox) = seen.ready_sandbox().filter(|_| self.memory.pod_ips.is_empty()) else { return };
        if self.pod.host_network() || self.memory.busy.contains(&Busy::Sandbox) {
            return;
        }
        let mut network = self.context.network.clone();
        // Without the node's network nothing can be said of the sandbox; the relist looks again.
        let ready = tokio::time::timeout(EFFECT_RETRY, network.wait_for(Option::is_some)).await;
        let network = ready.ok().and_then(Result::ok).and_then(|network| network.clone());
        match network {
            Some(network) => self.memory.pod_ips = network.addresses(&sandbox.id).await.unwrap_or_default(),
            None => self.stale = true,
        }
    }

    fn add_messages(&self, observed: &mut Observed) {
        let pod_dir = self.context.pod_dir(self.pod.uid());
        for container in &mut observed.containers {
            if container.state == ContainerState::Exited
                && container.message.is_none()
                && !container.sandbox_id.is_empty()
            {
                container.message = files::termination_message(&self.pod, &pod_dir, container);
            }
        }
    }

    /// Decides, reports and starts effects; returns when to think again at the latest.
    fn think(&mut self) -> Timestamp {
        let now = crate::clock::now();
        let far = now.saturating_add(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX);
        if self.stale {
            // Deciding without knowing how the pod is connected would replace its sandbox.
            return now;
        }
        self.adopt_health();
        let ended = self.has_ended(now);
        if ended {
            self.memory.terminating_since.get_or_insert(now);
            self.ending.cancel();
        }
        let decision = decide::next(&self.pod, &self.observed, &self.memory, ended, now);
        self.note_crash_loops(&decision.crash_loops);
        let held_back = if ended { None } else { self.note_held_back_pulls(now) };
        self.note_running(now);
        self.probes.sync(&self.pod, &self.observed, &self.memory, ended);
        self.publish(ended, now);
        let mut wake = decision.wake.unwrap_or(far).min(held_back.unwrap_or(far));
        if decision.actions.iter().any(|action| matches!(action, Action::Fail { .. })) {
            // The pod has just ended: what that means is decided at once.
            wake = now;
        }
        for action in decision.actions {
            self.act(action, now);
        }
        if !ended && self.memory.volumes_ready && Volumes::is_refreshable(&self.pod) {
            wake = wake.min(self.refresh_volumes(now, far));
        }
        wake
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        let wanted = self.memory.gone || self.pod.is_deleting() || self.memory.failed.is_some();
        wanted
            || Phase::terminal_of(&self.pod).is_some()
            || status::natural_phase(&self.input(false, now)).is_terminal()
    }

    fn input(&self, ended: bool, now: Timestamp) -> Input<'_> {
        Input {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            host_ips: &self.context.settings.node_ips,
            crash_loops: &self.crash_loops,
            ended,
            now,
        }
    }

    fn publish(&self, ended: bool, now: Timestamp) {
        self.index.publish(Arc::clone(&self.pod), Arc::clone(&self.observed));
        let settled = Phase::terminal_of(&self.pod).is_some() && self.observed.sandboxes.is_empty();
        if !self.memory.gone && !settled {
            self.writer.wish(&self.pod, status::compute(&self.input(ended, now)));
        }
    }

    /// A container that was ready before this process started stays so until a probe says otherwise.
    fn adopt_health(&mut self) {
        let statuses = self.pod.status.as_ref();
        let statuses = statuses.map(|status| [&status.init_container_statuses, &status.container_statuses]);
        let statuses: Vec<_> = statuses.into_iter().flatten().flatten().flatten().collect();
        for container in self.observed.containers.iter().filter(|container| container.state == ContainerState::Running)
        {
            let memory = self.memory.containers.entry(container.name.clone()).or_default();
            let health = &mut memory.health;
            if health.container_id == container.id {
                continue;
            }
            let url = format!("tidegate://{}", container.id);
            let known = statuses.iter().find(|status| status.container_id.as_deref() == Some(&url));
            health.container_id.clone_from(&container.id);
            health.ready = known.is_some_and(|known| known.ready);
            health.started = known.is_some_and(|known| known.started.unwrap_or(false));
            health.condemned = None;
            let resources = known.and_then(|known| known.resources.clone());
            let resources = resources.or_else(|| self.pod.container(&container.name)?.resources);
            let applied = Applied { id: container.id.clone(), resources: resources.unwrap_or_default() };
            memory.applied.get_or_insert(applied);
        }
    }

    fn note_crash_loops(&mut self, crash_loops: &[(String, SignedDuration)]) {
        for (name, _) in crash_loops.iter().filter(|entry| !self.crash_loops.contains(entry)) {
            let message = format!("Back-off restarting failed container {name} in pod {}", self.pod.label());
            self.context.events.container(&self.pod, name, Severity::Warning, "BackOff", message);
        }
        self.crash_loops = crash_loops.to_vec();
    }

    /// Lets a failed pull show as held back after a moment; returns when to look again.
    fn note_held_back_pulls(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        for (name, memory) in &mut self.memory.containers {
            let Some(pull) = memory.failed_pull.as_ref() else { continue };
            let due = pull.at.saturating_add(PULL_FAILURE_SHOWN).unwrap_or(now);
            if now < due {
                next = Some(next.map_or(due, |next: Timestamp| next.min(due)));
                continue;
            }
            let message = format!("Back-off pulling image \"{}\"", pull.image);
            let cause = memory.waiting.take().map(|waiting| waiting.message).unwrap_or_default();
            memory.waiting = Some(Reason::new("ImagePullBackOff", format!("{message}: ErrImagePull: {cause}")));
            memory.failed_pull = None;
            let events = &self.context.events;
            events.container(&self.pod, name, Severity::Normal, "BackOff", message);
            events.container(&self.pod, name, Severity::Warning, "Failed", "Error: ImagePullBackOff");
        }
        next
    }

    fn refresh_volumes(&mut self, now: Timestamp, far: Timestamp) -> Timestamp {
        match self.volumes_due {
            Some(due) if due <= now && !self.memory.busy.contains(&Busy::Volumes) => {
                self.set_up_volumes();
                far
            }
            Some(due) if due > now => due,
            _ => far,
        }
    }
}
