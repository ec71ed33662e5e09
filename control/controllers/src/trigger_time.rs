//! When what a Service's endpoints are made of last changed, as the annotation that measures how long networking takes to
//! follow.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::meta;
use crate::queue::Key;

pub(crate) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What each Service was like when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct TriggerTimes {
    seen: Mutex<HashMap<Key, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change since the last call; of a Service that is new here, when it was made.
    pub(crate) fn change(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let made = service.creation_timestamp().map(|time| time.0);
        let pods: HashMap<String, Timestamp> =
            pods.iter().filter_map(|pod| Some((pod.name_any(), meta::ready_changed(pod)?))).collect();
        let mut all = self.seen.lock();
        let before = all.insert(key.clone(), Seen { service: made, pods: pods.clone() });
        let Some(before) = before else { return made };
        let changed = pods.iter().filter(|(name, time)| before.pods.get(*name).is_none_or(|old| *time > old));
        changed.map(|(_, time)| *time).chain(made.filter(|_| made > before.service)).min()
    }

    /// The Service of this key is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.seen.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::TriggerTimes;
    use crate::queue::Key;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn the_earliest_of_the_changes_not_yet_seen_counts() {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"}}))
                .unwrap();
        let pod = |name: &str, time: &str| -> Arc<Pod> {
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": time}]);
            let pod = json!({"metadata": {"name": name}, "status": {"conditions": ready}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let (times, key) = (TriggerTimes::default(), Key::new("n", "s"));
        let mut pods = vec![pod("a", "2026-01-01T00:00:05Z"), pod("b", "2026-01-01T00:00:06Z")];
        let change =
            |times: &TriggerTimes, pods: &[Arc<Pod>]| times.change(&key, &service, pods).map(|time| time.to_string());
        assert_eq!(change(&times, &pods).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(change(&times, &pods), None);
        pods =
            vec![pod("a", "2026-01-01T00:00:09Z"), pod("b", "2026-01-01T00:00:08Z"), pod("c", "2026-01-01T00:01:00Z")];
        assert_eq!(change(&times, &pods).as_deref(), Some("2026-01-01T00:00:08Z"));
        // A pod that goes has no time of its own.
        assert_eq!(change(&times, &pods[..1]), None);
        times.forget(&key);
        assert_eq!(change(&times, &pods).as_deref(), Some("2026-01-01T00:00:00Z"));
    }
}
