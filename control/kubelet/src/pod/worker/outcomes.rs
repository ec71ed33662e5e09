//! Takes note of how effects ended and of what probes say.

use jiff::Timestamp;

use super::{Done, IMAGE_RETRY, SANDBOX_RETRY, START_RETRY, VOLUMES_RETRY, Worker};
use crate::cluster::chain;
use crate::events::Severity;
use crate::pod::effects::EffectError;
use crate::pod::memory::{Busy, Condemned, FailedPull, Reason};
use crate::pod::start::StartError;
use crate::probe::{self, Outcome, Report};
use crate::spec::pod_ref::PodRef;
use crate::volume::VolumeError;

impl Worker {
    pub(super) fn settle(&mut self, done: Result<Done, tokio::task::JoinError>) {
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
            Ok(Done::Resized { applied, name, failure }) => {
                self.memory.busy.remove(&Busy::Resize(applied.id.clone()));
                match failure {
                    None => self.memory.container(&name).applied = Some(applied),
                    Some(error) => {
                        tracing::warn!(pod = %self.pod.label(), container = %name, error, "cannot resize a container");
                        self.count_failure("resize");
                    }
                }
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
    pub(super) fn note_running(&mut self, now: Timestamp) {
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
            Err(VolumeError::Exceeded(message)) => {
                self.context.events.pod(&self.pod, Severity::Warning, "Evicted", message.clone());
                self.memory.failed = Some(Reason::new("Evicted", message));
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

    pub(super) fn report(&mut self, report: Report) {
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
