//! The loop of one pod: look, decide, act, report.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::ContainerState;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
use super::context::Context;
use super::decide::{self, Action, Kill};
use super::effects::{self, EffectError};
use super::files;
use super::kill::kill;
use super::manager::Index;
use super::memory::{Busy, Condemned, FailedPull, Memory, Reason};
use super::observed::{Observed, Remembered};
use super::phase::Phase;
use super::probes::Probes;
use super::start::{self, StartError};
use super::status::{self, Input};
use super::status_writer::StatusWriter;
use crate::cluster::chain;
use crate::events::Severity;
use crate::probe::{self, Outcome, Report};
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
            let health = &mut self.memory.containers.entry(container.name.clone()).or_default().health;
            if health.container_id == container.id {
                continue;
            }
            let url = format!("tidegate://{}", container.id);
            let known = statuses.iter().find(|status| status.container_id.as_deref() == Some(&url));
            health.container_id.clone_from(&container.id);
            health.ready = known.is_some_and(|known| known.ready);
            health.started = known.is_some_and(|known| known.started.unwrap_or(false));
            health.condemned = None;
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

    fn set_up_volumes(&mut self) {
        self.memory.busy.insert(Busy::Volumes);
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        let facts = context.facts(&self.memory.pod_ips);
        self.effects
            .spawn(async move { Done::Volumes(context.volumes.set_up(&pod, &facts, crate::clock::now()).await) });
    }

    fn act(&mut self, action: Action, now: Timestamp) {
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
                context.events.pod(&pod, Severity::Normal, reason, message.clone());
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
        let containers = self.pod.init_containers().iter().chain(self.pod.containers());
        let Some(container) = containers.into_iter().find(|container| container.name == name).cloned() else { return };
        let Some(sandbox) = self.observed.ready_sandbox() else { return };
        let sandbox_id = sandbox.id.clone();
        let last = self.observed.latest(&name).filter(|last| last.state == ContainerState::Exited);
        if let Some(finished) = last.map(|last| last.finished_at.unwrap_or(now)) {
            let memory = self.memory.container(&name);
            memory.backoff = Some(Backoff::restarted(memory.backoff.as_ref(), finished, now));
        }
        self.memory.busy.insert(Busy::Start(name.clone()));
        let order = start::Order {
            pod: Arc::clone(&self.pod),
            container,
            attempt,
            sandbox_id,
            pod_ips: self.memory.pod_ips.clone(),
            cancelled: self.ending.clone(),
        };
        let context = Arc::clone(&self.context);
        self.effects.spawn(async move { Done::Started { name, result: start::start(context, order).await } });
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

    fn settle(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = crate::clock::now();
        self.stale = true;
        match done {
            // A kill that a shorter one replaced.
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(pod = %self.pod.label(), %error, "an effect panicked");
                self.memory.busy.clear();
            }
            Ok(Done::Volumes(result)) => self.volumes_done(result, now),
            Ok(Done::Sandbox(result)) => self.sandbox_done(result, now),
            Ok(Done::Started { name, result }) => self.started(&name, result, now),
            Ok(Done::Killed { id, failure }) => {
                if let Some(error) = failure {
                    tracing::warn!(pod = %self.pod.label(), container = %id, error, "cannot stop a container");
                    self.count_failure("kill");
                }
                self.kills.remove(&id);
                self.memory.kill_deadlines.remove(&id);
                self.memory.busy.remove(&Busy::Kill(id));
            }
            Ok(Done::Discarded { id }) => {
                self.memory.busy.remove(&Busy::Discard(id));
            }
            Ok(Done::SandboxStopped { id, result }) => {
                self.memory.busy.remove(&Busy::StopSandbox(id.clone()));
                match result {
                    Ok(()) => {
                        self.memory.pod_ips.clear();
                        self.memory.stopped_sandboxes.insert(id);
                    }
                    Err(error) => self.failed_effect("stop-sandbox", &error),
                }
            }
            Ok(Done::SandboxRemoved { id, result }) => {
                self.memory.busy.remove(&Busy::RemoveSandbox(id.clone()));
                match result {
                    Ok(()) => {
                        self.memory.stopped_sandboxes.remove(&id);
                        self.index.disown(&id);
                    }
                    Err(error) => self.failed_effect("remove-sandbox", &error),
                }
            }
            Ok(Done::Deleted(result)) => {
                self.memory.busy.remove(&Busy::Delete);
                match result {
                    Ok(()) => self.finished = true,
                    Err(error) => self.failed_effect("delete", &error),
                }
                self.stale = !self.finished;
            }
        }
    }

    fn failed_effect(&self, effect: &'static str, error: &dyn std::error::Error) {
        tracing::warn!(pod = %self.pod.label(), effect, error = %chain(error), "an effect failed");
        self.count_failure(effect);
    }

    fn count_failure(&self, effect: &'static str) {
        self.context.metrics.effect_errors.with_label_values(&[effect]).inc();
    }

    /// Takes the time once, when every container runs for the first time.
    fn note_running(&mut self, now: Timestamp) {
        if self.memory.has_run
            || !self.pod.containers().iter().all(|container| self.observed.is_running(&container.name))
        {
            return;
        }
        self.memory.has_run = true;
        if self.memory.made_sandbox {
            let seconds = now.duration_since(self.memory.seen_at).as_secs_f64();
            self.context.metrics.pod_start_seconds.observe(seconds);
        }
    }

    fn volumes_done(&mut self, result: Result<Timestamp, VolumeError>, now: Timestamp) {
        self.memory.busy.remove(&Busy::Volumes);
        match result {
            Ok(again) => {
                self.memory.volumes_ready = true;
                self.memory.volumes_retry.reset();
                self.volumes_due = Some(again);
            }
            Err(error) => {
                let (first, max) = VOLUMES_RETRY;
                self.memory.volumes_retry.failed(now, first, max);
                // A pod that is set up keeps what it has and tries again.
                self.volumes_due = self.memory.volumes_retry.wait(now);
                self.count_failure("volumes");
                self.context.events.pod(&self.pod, Severity::Warning, "FailedMount", chain(&error));
            }
        }
    }

    fn sandbox_done(&mut self, result: Result<Vec<std::net::IpAddr>, EffectError>, now: Timestamp) {
        self.memory.busy.remove(&Busy::Sandbox);
        match result {
            Ok(ips) => {
                self.memory.sandbox_retry.reset();
                self.memory.made_sandbox = true;
                self.memory.pod_ips = if self.pod.host_network() { Vec::new() } else { ips };
            }
            Err(error) => {
                let (first, max) = SANDBOX_RETRY;
                self.memory.sandbox_retry.failed(now, first, max);
                self.count_failure("run-sandbox");
                let message = format!("Failed to create pod sandbox: {error}");
                self.context.events.pod(&self.pod, Severity::Warning, "FailedCreatePodSandBox", message);
            }
        }
    }

    fn started(&mut self, name: &str, result: Result<(), StartError>, now: Timestamp) {
        self.memory.busy.remove(&Busy::Start(name.to_owned()));
        let outcome = result.as_ref().map_or_else(StartError::reason, |()| "started");
        self.context.metrics.container_starts.with_label_values(&[outcome]).inc();
        let memory = self.memory.containers.entry(name.to_owned()).or_default();
        let error = match result {
            Ok(()) => {
                memory.waiting = None;
                memory.failed_pull = None;
                memory.retry.reset();
                return;
            }
            Err(StartError::Cancelled) => return,
            Err(error) => error,
        };
        memory.waiting = Some(Reason::new(error.reason(), error.to_string()));
        memory.failed_pull = match &error {
            StartError::Pull { image, .. } => Some(FailedPull { image: image.clone(), at: now }),
            _ => None,
        };
        match error {
            // An instance that ended is held back by its restart delay.
            StartError::PostStart(_) => {}
            StartError::Pull { .. } | StartError::NeverPull(_) => {
                memory.retry.failed(now, IMAGE_RETRY.0, IMAGE_RETRY.1)
            }
            _ => memory.retry.failed(now, START_RETRY.0, START_RETRY.1),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Failed(instance, outcome) => {
                let kind = instance.kind.name();
                let message = match outcome {
                    Outcome::Failure(text) => format!("{kind} probe failed: {text}"),
                    Outcome::Error(text) => format!("{kind} probe errored: {text}"),
                    Outcome::Success => return,
                };
                self.context.events.container(&self.pod, &instance.container, Severity::Warning, "Unhealthy", message);
            }
            Report::Result(instance, result) => {
                let health = &mut self.memory.container(&instance.container).health;
                if health.container_id != instance.container_id {
                    return;
                }
                match (instance.kind, result) {
                    (probe::Kind::Readiness, ready) => health.ready = ready,
                    (probe::Kind::Startup, true) => health.started = true,
                    (probe::Kind::Startup, false) => health.condemned = Some(Condemned::Startup),
                    (probe::Kind::Liveness, false) => health.condemned = Some(Condemned::Liveness),
                    (probe::Kind::Liveness, true) => {}
                }
            }
        }
    }
}

/// A failed effect stays under way for a moment, so that it is not tried again at once.
async fn held_back<T, E>(result: Result<T, E>) -> Result<T, E> {
    if result.is_err() {
        tokio::time::sleep(EFFECT_RETRY).await;
    }
    result
}
