//! Events at the API server: repeated ones become a count, floods are cut, nobody waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cluster::{Cluster, ClusterError};
use crate::spec::pod_ref::{PodRef, field_path};

const COMPONENT: &str = "kubelet";
const QUEUE: usize = 1_024;
/// Known events that can be counted up; beyond this the oldest are forgotten.
const KNOWN_MAX: usize = 4_096;
/// A source of events per object: this many at once, then one per five minutes.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Draft>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Draft {
    object: Subject,
    severity: Severity,
    reason: &'static str,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
}

impl Events {
    /// Starts the writer.
    pub(crate) fn spawn(cluster: Arc<dyn Cluster>, node_name: String) -> Self {
        let (queue, drafts) = mpsc::channel(QUEUE);
        tokio::spawn(Recorder { cluster, node_name, known: HashMap::new(), budgets: HashMap::new() }.run(drafts));
        Self { queue, lost: Arc::default() }
    }

    pub(crate) fn pod(&self, pod: &Pod, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.send(Draft { object: subject(pod, None), severity, reason, message: message.into() });
    }

    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let object = subject(pod, Some(field_path(pod, container)));
        self.send(Draft { object, severity, reason, message: message.into() });
    }

    pub(crate) fn node(&self, node: &Node, severity: Severity, reason: &'static str, message: impl Into<String>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let object = Subject {
            kind: "Node",
            namespace: "default".into(),
            // kubectl describe looks for events with uid = name as well as with the real one.
            uid: node.metadata.uid.clone().unwrap_or_else(|| name.clone()),
            name,
            field_path: None,
        };
        self.send(Draft { object, severity, reason, message: message.into() });
    }

    fn send(&self, draft: Draft) {
        if self.queue.try_send(draft).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(lost, "event queue is full");
        }
    }
}

fn subject(pod: &Pod, field_path: Option<String>) -> Subject {
    Subject {
        kind: "Pod",
        namespace: pod.namespace().into(),
        name: pod.name().into(),
        uid: pod.uid().into(),
        field_path,
    }
}

struct Recorder {
    cluster: Arc<dyn Cluster>,
    node_name: String,
    known: HashMap<Draft, Known>,
    budgets: HashMap<String, Budget>,
}

#[derive(Debug, Clone)]
struct Known {
    name: String,
    count: i32,
    last: Timestamp,
}

/// A token bucket per object.
#[derive(Debug, Clone, Copy)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> bool {
        let seconds = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + seconds * REFILL_PER_SECOND).min(BURST);
        self.at = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

impl Recorder {
    async fn run(mut self, mut drafts: mpsc::Receiver<Draft>) {
        while let Some(draft) = drafts.recv().await {
            let now = crate::clock::now();
            let key = format!("{}/{}", draft.object.kind, draft.object.uid);
            if !self.budgets.entry(key).or_insert(Budget { tokens: BURST, at: now }).take(now) {
                continue;
            }
            if let Err(error) = self.record(draft, now).await {
                tracing::debug!(%error, "cannot record an event");
            }
            self.forget_old();
        }
    }

    async fn record(&mut self, draft: Draft, now: Timestamp) -> Result<(), ClusterError> {
        if let Some(known) = self.known.get_mut(&draft) {
            known.count += 1;
            known.last = now;
            let patch = json!({"count": known.count, "lastTimestamp": Time(now)});
            match self.cluster.patch_event(&draft.object.namespace, &known.name, &patch).await {
                // It has expired at the API server: begin anew.
                Err(ClusterError::Gone(_)) => {}
                result => return result,
            }
        }
        let event = event(&draft, &self.node_name, now);
        self.cluster.create_event(&event).await?;
        let name = event.metadata.name.unwrap_or_default();
        self.known.insert(draft, Known { name, count: 1, last: now });
        Ok(())
    }

    fn forget_old(&mut self) {
        if self.known.len() > KNOWN_MAX {
            let mut times: Vec<Timestamp> = self.known.values().map(|known| known.last).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.known.retain(|_, known| known.last > middle);
        }
        if self.budgets.len() > KNOWN_MAX {
            self.budgets.retain(|_, budget| budget.tokens < BURST - 1.0);
        }
    }
}

fn event(draft: &Draft, node_name: &str, now: Timestamp) -> Event {
    let Draft { object, severity, reason, message } = draft;
    let unique = now.as_nanosecond() as u64 ^ rand::random::<u32>() as u64;
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{unique:x}", object.name)),
            namespace: Some(object.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(object.kind.into()),
            name: Some(object.name.clone()),
            namespace: (object.kind != "Node").then(|| object.namespace.clone()),
            uid: Some(object.uid.clone()),
            field_path: object.field_path.clone(),
            resource_version: None,
        },
        reason: Some((*reason).into()),
        message: Some(message.clone()),
        type_: Some(match severity {
            Severity::Normal => "Normal".into(),
            Severity::Warning => "Warning".into(),
        }),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node_name.into()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node_name.into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_recovers() {
        let start = Timestamp::from_second(0).unwrap();
        let mut budget = Budget { tokens: BURST, at: start };
        let allowed = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(allowed, 25);
        assert!(!budget.take(Timestamp::from_second(200).unwrap()));
        assert!(budget.take(Timestamp::from_second(301).unwrap()));
    }

    #[test]
    fn events_name_their_object_and_part() {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}}))
            .unwrap();
        let object = subject(&pod, Some(field_path(&pod, "i")));
        let draft = Draft { object, severity: Severity::Warning, reason: "BackOff", message: "m".into() };
        let event = event(&draft, "node", Timestamp::from_second(5).unwrap());
        assert!(event.metadata.name.unwrap().starts_with("p."));
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.initContainers{i}"));
        assert_eq!((event.type_.as_deref(), event.count), (Some("Warning"), Some(1)));
    }
}
