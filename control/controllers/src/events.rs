//! Events: what a controller did or could not do to an object, for people who ask `kubectl describe`.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::Mutex;

use crate::Cluster;

/// Events that can still be counted up instead of written anew.
const REMEMBERED_MAX: usize = 1000;
const NOTE_CHARS_MAX: usize = 1024;

/// Says what one controller does.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    controller: Arc<str>,
    written: Arc<Mutex<HashMap<Said, Written>>>,
}

/// What makes two events the same.
#[derive(PartialEq, Eq, Hash)]
struct Said {
    uid: String,
    reason: String,
    note: String,
}

/// An event that exists.
struct Written {
    name: String,
    count: i32,
}

impl Events {
    pub(crate) fn new(cluster: &Arc<Cluster>, controller: &str) -> Self {
        Self { client: cluster.client.clone(), controller: controller.into(), written: Arc::default() }
    }

    pub(crate) fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        self.spawn(object, "Normal", reason, note);
    }

    pub(crate) fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        self.spawn(object, "Warning", reason, note);
    }

    /// Nobody waits for an event, and losing one is no failure.
    fn spawn<K: Resource<DynamicType = ()>>(&self, object: &K, kind: &'static str, reason: &str, note: String) {
        let (events, regarding, reason) = (self.clone(), object.object_ref(&()), reason.to_owned());
        let note: String = note.chars().take(NOTE_CHARS_MAX).collect();
        tokio::spawn(async move {
            if let Err(error) = events.publish(regarding, kind, &reason, note).await {
                tracing::debug!(reason, %error, "event lost");
            }
        });
    }

    async fn publish(&self, regarding: ObjectReference, kind: &str, reason: &str, note: String) -> kube::Result<()> {
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let now = Timestamp::now();
        let uid = regarding.uid.clone().unwrap_or_default();
        let said = Said { uid, reason: reason.to_owned(), note: note.clone() };
        // Held while writing, so that the same event seen twice at once is one event.
        let mut written = self.written.lock().await;
        if let Some(before) = written.get_mut(&said) {
            before.count += 1;
            let patch = json!({"count": before.count, "lastTimestamp": Time(now)});
            match api.patch(&before.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                // Its time is over; a new one begins.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => return result.map(drop),
            }
        }
        let event = self.event(regarding, &namespace, kind, reason, note, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if written.len() >= REMEMBERED_MAX {
            written.clear();
        }
        written.insert(said, Written { name, count: 1 });
        Ok(())
    }

    fn event(
        &self,
        regarding: ObjectReference,
        namespace: &str,
        kind: &str,
        reason: &str,
        note: String,
        now: Timestamp,
    ) -> Event {
        let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.into()), ..ObjectMeta::default() },
            involved_object: regarding,
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            message: Some(note),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(self.controller.to_string()), host: None }),
            reporting_component: Some(self.controller.to_string()),
            ..Event::default()
        }
    }
}
