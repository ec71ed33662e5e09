//! Endpoints: the older form of what EndpointSlices say, one object for each Service with a selector.
//!
//! Owns: the Endpoints object of every such Service, and removes any whose Service is gone. [`subsets`] says what should be
//! in it.

mod subsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Service};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::endpoint_mirror::LEADER;
use crate::endpoint_slice;
use crate::events::Events;
use crate::meta::{self, HEADLESS};
use crate::queue::{self, Key, Next};
use crate::trigger_time::{self, TriggerTimes};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let controller = Arc::new(Controller {
        cluster: Arc::clone(cluster),
        events: Events::new(cluster, MANAGER),
        times: TriggerTimes::default(),
    });
    let queue = queue::start("endpoints", tasks, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    causes::itself(&cluster.services, &queue);
    causes::selected_pods(cluster, |cluster| &cluster.services, endpoint_slice::selects, &queue);
    // What a Service left behind while nobody looked; locks of leader elections have no Service.
    for left in cluster.endpoints.all().iter().filter(|one| !one.annotations().contains_key(LEADER)) {
        queue.add(Key::of(&**left));
    }
    cluster.endpoints.on_change(move |old, new| {
        if let (Some(gone), None) = (old, new) {
            queue.add(Key::of(gone));
        }
    });
}

struct Controller {
    cluster: Arc<Cluster>,
    events: Events,
    times: TriggerTimes,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let api: Api<Endpoints> = Api::namespaced(self.cluster.client.clone(), &key.namespace);
        let existing = self.cluster.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.cluster.services.get(&key.namespace, &key.name) else {
            self.times.forget(key);
            if existing.is_some() {
                meta::ignore_missing(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            return Ok(Next::Await);
        };
        if !endpoint_slice::has_pods(&service) {
            return Ok(Next::Await);
        }
        let pods = self.cluster.pods.filter(&key.namespace, |pod| endpoint_slice::selects(&service, pod));
        let changed = self.times.change(key, &service, &pods);
        let Some(wanted) = plan(&service, subsets::of(&service, &pods), existing.as_deref(), changed) else {
            return Ok(Next::Await);
        };
        let written = match &existing {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(_) => api.replace(&key.name, &PostParams::default(), &wanted).await,
        };
        match written {
            Err(error) if existing.is_none() && meta::is_namespace_terminating(&error) => Ok(Next::Await),
            Err(error) => {
                self.tell_failure(&wanted, existing.is_some(), &error);
                Err(error.into())
            }
            Ok(_) => Ok(Next::Await),
        }
    }

    /// An old view is no news: the next attempt has a newer one.
    fn tell_failure(&self, endpoints: &Endpoints, exists: bool, error: &kube::Error) {
        if matches!(error, kube::Error::Api(status) if status.code == 409) {
            return;
        }
        let (namespace, name) = (endpoints.namespace().unwrap_or_default(), endpoints.name_any());
        let error = meta::said(error);
        let (reason, note) = if exists {
            ("FailedToUpdateEndpoint", format!("Failed to update endpoint {namespace}/{name}: {error}"))
        } else {
            ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {namespace}/{name}: {error}"))
        };
        self.events.warning(endpoints, reason, note);
    }
}

/// The object to write, if there is something to write.
fn plan(
    service: &Service,
    mut subsets: Vec<EndpointSubset>,
    existing: Option<&Endpoints>,
    changed: Option<Timestamp>,
) -> Option<Endpoints> {
    let is_truncated = subsets::truncate(&mut subsets);
    let labels = labels(service);
    if let Some(existing) = existing {
        let same_subsets = existing.subsets.as_deref().unwrap_or_default() == subsets;
        let says_truncated = existing.annotations().contains_key(OVER_CAPACITY);
        if same_subsets && *existing.labels() == labels && says_truncated == is_truncated {
            return None;
        }
    }
    let mut wanted = existing.cloned().unwrap_or_default();
    wanted.metadata.name = service.metadata.name.clone();
    wanted.metadata.namespace = service.metadata.namespace.clone();
    wanted.metadata.labels = Some(labels);
    wanted.subsets = Some(subsets);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    let mut note = |key: &str, value: Option<String>| match value {
        Some(value) => drop(annotations.insert(key.into(), value)),
        None => drop(annotations.remove(key)),
    };
    note(trigger_time::ANNOTATION, changed.map(|time| time.to_string()));
    note(OVER_CAPACITY, is_truncated.then(|| TRUNCATED.into()));
    Some(wanted)
}

/// The Service's own labels and what the controller says of itself and the Service.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if meta::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::{OVER_CAPACITY, plan};
    use crate::trigger_time;
    use k8s_openapi::api::core::v1::{EndpointSubset, Service};
    use kube::ResourceExt;
    use serde_json::json;

    fn service(cluster_ip: &str) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"clusterIP": cluster_ip, "selector": {"app": "web"}}}))
        .unwrap()
    }

    fn subset(count: usize) -> EndpointSubset {
        let addresses: Vec<_> =
            (0..count).map(|index| json!({"ip": format!("10.0.{}.{}", index / 250, index % 250)})).collect();
        serde_json::from_value(json!({"addresses": addresses, "ports": [{"port": 80}]})).unwrap()
    }

    #[test]
    fn it_is_written_when_it_says_something_new() {
        let changed = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let made = plan(&service("10.96.0.7"), vec![subset(1)], None, changed).unwrap();
        let labels = json!({"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"});
        assert_eq!(json!(made.metadata.labels), labels);
        assert_eq!(made.annotations()[trigger_time::ANNOTATION], "2026-01-01T00:00:00Z");
        assert!(plan(&service("10.96.0.7"), vec![subset(1)], Some(&made), None).is_none());
        let changed = plan(&service("10.96.0.7"), vec![subset(2)], Some(&made), None).unwrap();
        assert!(changed.annotations().is_empty());
        let headless = plan(&service("None"), vec![subset(1)], Some(&made), None).unwrap();
        assert_eq!(headless.labels()["service.kubernetes.io/headless"], "");
    }

    #[test]
    fn a_thousand_addresses_are_the_limit() {
        let made = plan(&service("10.96.0.7"), vec![subset(1001)], None, None).unwrap();
        assert_eq!(made.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
        assert_eq!(made.annotations()[OVER_CAPACITY], "truncated");
        assert!(plan(&service("10.96.0.7"), vec![subset(1001)], Some(&made), None).is_none());
        let fewer = plan(&service("10.96.0.7"), vec![subset(1000)], Some(&made), None).unwrap();
        assert!(!fewer.annotations().contains_key(OVER_CAPACITY));
    }
}
