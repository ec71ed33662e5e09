//! The scheduler: filter and score as pure functions, binding through the API.
//!
//! ```text
//! pods, nodes ──watch──► cluster view ──► [filter] ──► [score] ──► POST pods/NAME/binding
//!                             ▲                                        │
//!                             └── assumed until the watch shows it ◄───┘
//! ```
//! One pod is decided at a time, against a view that counts what was bound a moment ago. A pod that fits nowhere is tried
//! again when anything changes and, at the latest, after a while.

mod filter;
mod preemption;
mod resources;
mod score;
mod view;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::events::{Event as Record, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event as Watched, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::view::{Refusals, View};

pub const SCHEDULER_NAME: &str = "default-scheduler";
/// A pod that fits nowhere is tried again after this time even if nothing changes.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Schedules pods until the token is cancelled.
///
/// # Errors
/// If a watch ends for good.
pub async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let reporter = Reporter { controller: SCHEDULER_NAME.into(), instance: None };
    let mut scheduler = Scheduler {
        recorder: Recorder::new(client.clone(), reporter),
        client: client.clone(),
        view: View::default(),
        waiting: BTreeMap::new(),
    };
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let pods = watcher(Api::<Pod>::all(client), watcher::Config::default()).default_backoff();
    let (mut nodes, mut pods) = (nodes.boxed(), pods.boxed());
    let (mut nodes_known, mut pods_known) = (false, false);
    tracing::info!("scheduler started");
    loop {
        if nodes_known && pods_known {
            scheduler.schedule_due().await;
        }
        let wake = scheduler.next_due().filter(|_| nodes_known && pods_known);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = nodes.try_next() => match event {
                Ok(event) => nodes_known |= scheduler.see_node(event.context("the watch of nodes ended")?),
                Err(error) => tracing::warn!(%error, "watch of nodes interrupted"),
            },
            event = pods.try_next() => match event {
                Ok(event) => pods_known |= scheduler.see_pod(event.context("the watch of pods ended")?),
                Err(error) => tracing::warn!(%error, "watch of pods interrupted"),
            },
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    view: View,
    /// Pods without a node, by uid, and when to try them.
    waiting: BTreeMap<String, Waiting>,
}

struct Waiting {
    pod: Box<Pod>,
    due: Instant,
    delay: Duration,
    /// What the last attempt said, so that the same refusal is told once.
    told: String,
}

impl Scheduler {
    /// Returns whether the initial list is complete.
    fn see_node(&mut self, event: Watched<Node>) -> bool {
        match event {
            Watched::Init => self.view.begin_nodes(),
            Watched::InitApply(node) | Watched::Apply(node) => {
                if self.view.put_node(node) {
                    self.try_all_again();
                }
            }
            Watched::Delete(node) => self.view.remove_node(&node.name_any()),
            Watched::InitDone => {
                self.view.end_nodes();
                return true;
            }
        }
        false
    }

    fn see_pod(&mut self, event: Watched<Pod>) -> bool {
        match event {
            Watched::Init => {
                self.view.begin_pods();
                self.waiting.clear();
            }
            Watched::InitApply(pod) | Watched::Apply(pod) => self.put_pod(pod),
            Watched::Delete(pod) => {
                self.waiting.remove(&pod.uid().unwrap_or_default());
                self.view.remove_pod(&pod);
                self.try_all_again();
            }
            Watched::InitDone => return true,
        }
        false
    }

    fn put_pod(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let is_assigned = spec.is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()));
        let is_over = view::is_terminal(&pod) || pod.meta().deletion_timestamp.is_some();
        if is_assigned {
            self.waiting.remove(&uid);
            if self.view.put_pod(&pod) {
                self.try_all_again();
            }
            return;
        }
        let is_ours =
            spec.is_some_and(|spec| spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME);
        let is_gated = spec.is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()));
        if is_over || !is_ours || is_gated || self.view.is_assumed(&uid) {
            self.waiting.remove(&uid);
            return;
        }
        match self.waiting.get_mut(&uid) {
            // Our own status patch comes back as a change; it is no reason to try again at once.
            Some(waiting) if waiting.pod.spec == pod.spec => *waiting.pod = pod,
            _ => {
                let waiting =
                    Waiting { pod: Box::new(pod), due: Instant::now(), delay: RETRY_MIN, told: String::new() };
                self.waiting.insert(uid, waiting);
            }
        }
    }

    fn try_all_again(&mut self) {
        let now = Instant::now();
        self.waiting.values_mut().for_each(|waiting| waiting.due = now);
    }

    fn next_due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Tries every pod whose time has come: higher priority first, then older.
    async fn schedule_due(&mut self) {
        let now = Instant::now();
        let mut due: Vec<(i32, Option<Timestamp>, String)> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.due <= now)
            .map(|(uid, waiting)| {
                let priority = waiting.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
                (-priority, waiting.pod.creation_timestamp().map(|time| time.0), uid.clone())
            })
            .collect();
        due.sort();
        for (_, _, uid) in due {
            let Some(mut waiting) = self.waiting.remove(&uid) else { continue };
            if let Err(error) = self.schedule(&mut waiting).await {
                tracing::warn!(pod = %waiting.pod.name_any(), error = format!("{error:#}"), "scheduling failed");
                waiting.due = Instant::now() + waiting.delay;
                waiting.delay = (waiting.delay * 2).min(RETRY_MAX);
                self.waiting.insert(uid, waiting);
            }
        }
    }

    /// Binds the pod, or leaves it waiting with its refusal told.
    async fn schedule(&mut self, waiting: &mut Waiting) -> anyhow::Result<()> {
        let pod = &waiting.pod;
        let (fitting, refusals) = self.view.filter(pod);
        let ineligible = preemption::ineligible(pod);
        let best = fitting.into_iter().max_by_key(|node| (score::score(pod, node), node.name.clone()));
        let Some(node) = best.map(|node| node.name.clone()) else {
            let message = refusal(self.view.node_count(), &refusals, ineligible);
            if waiting.told != message {
                self.tell_refusal(&waiting.pod, &message).await?;
                waiting.told.clone_from(&message);
            }
            anyhow::bail!("{message}");
        };
        self.bind(pod, &node).await?;
        self.view.assume(pod, &node);
        let note =
            format!("Successfully assigned {}/{} to {node}", pod.namespace().unwrap_or_default(), pod.name_any());
        self.record(pod, EventType::Normal, "Scheduled", "Binding", note).await;
        Ok(())
    }

    async fn bind(&self, pod: &Pod, node: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let binding = Binding {
            metadata: kube::api::ObjectMeta {
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                ..Default::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.into()),
                ..ObjectReference::default()
            },
        };
        let params = PostParams::default();
        match api.create_subresource::<_, serde_json::Value>("binding", &pod.name_any(), &params, &binding).await {
            // Gone, or bound by another: the watch will say so.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            result => result.map(drop).with_context(|| format!("cannot bind to {node}")),
        }
    }

    async fn tell_refusal(&self, pod: &Pod, message: &str) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        let patch = json!({"status": {"conditions": [condition]}});
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            result => drop(result?),
        }
        self.record(pod, EventType::Warning, "FailedScheduling", "Scheduling", message.to_owned()).await;
        Ok(())
    }

    /// Events are news, not state: one that cannot be written is not worth failing for.
    async fn record(&self, pod: &Pod, kind: EventType, reason: &str, action: &str, note: String) {
        let event =
            Record { type_: kind, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &pod.object_ref(&())).await {
            tracing::debug!(%error, "event not written");
        }
    }
}

/// Upstream's sentences: how many nodes, and why not, by count; then why preemption does not help.
fn refusal(nodes: usize, refusals: &Refusals, ineligible: Option<&str>) -> String {
    fn available<T: Display>(nodes: usize, reasons: &BTreeMap<T, usize>) -> String {
        let mut reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
    }
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let preemption = ineligible.map_or_else(|| available(nodes, &refusals.preemption), str::to_owned);
    format!("{} preemption: {preemption}", available(nodes, &refusals.filters))
}

#[cfg(test)]
mod tests {
    use super::refusal;
    use crate::filter::Verdict;
    use crate::view::Refusals;

    #[test]
    fn refusals_read_as_upstreams() {
        let refusals = Refusals {
            filters: [(Verdict::Insufficient("cpu".into()), 2), (Verdict::Unschedulable, 1)].into(),
            preemption: [("b", 2), ("a", 1)].into(),
        };
        assert_eq!(
            refusal(3, &refusals, None),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. \
             preemption: 0/3 nodes are available: 1 a, 2 b."
        );
        assert!(
            refusal(3, &refusals, Some("not eligible.")).ends_with("2 Insufficient cpu. preemption: not eligible.")
        );
    }
}
