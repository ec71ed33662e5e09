//! EndpointSlices for Endpoints that someone writes himself, for a Service without a selector.
//!
//! Owns: slices with its managed-by label. Who writes slices, too, says so by the label that forbids mirroring.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::endpoint_slice::{self, Changes, Group, MANAGED_BY, Port, SERVICE_NAME, Wanted, pack};
use crate::events::Events;
use crate::meta;
use crate::queue::{self, Key, Next};
use crate::trigger_time;

/// On Endpoints that are the lock of a leader election.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of one subset that are mirrored.
const ADDRESSES_MAX: usize = 1000;

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (shared, events) = (Arc::clone(cluster), Events::new(cluster, "endpoint-slice-mirroring-controller"));
    let queue = queue::start("endpointslicemirroring", tasks, move |key| {
        let (cluster, events) = (Arc::clone(&shared), events.clone());
        async move { reconcile(&cluster, &events, &key).await }
    });
    causes::itself(&cluster.endpoints, &queue);
    causes::itself(&cluster.services, &queue);
    endpoint_slice::own_slices(cluster, MANAGER, queue);
}

async fn reconcile(cluster: &Cluster, events: &Events, key: &Key) -> anyhow::Result<Next> {
    let existing = endpoint_slice::slices_of(cluster, MANAGER, key);
    let endpoints = cluster.endpoints.get(&key.namespace, &key.name).filter(|endpoints| may_mirror(endpoints));
    let service = cluster.services.get(&key.namespace, &key.name);
    let has_selector = |spec: Option<&_>| spec.is_some_and(endpoint_slice::has_selector);
    let mirror = match (&endpoints, &service) {
        (Some(endpoints), Some(service)) if !has_selector(service.spec.as_ref()) => mirror(endpoints),
        _ => Mirror::default(),
    };
    if let Some(endpoints) = &endpoints {
        tell_skipped(events, endpoints, &mirror);
    }
    let metadata = endpoints.as_ref().map(|endpoints| metadata(endpoints)).unwrap_or_default();
    let mut changes: Changes = pack(&metadata, mirror.wanted, &existing, ADDRESSES_MAX);
    if endpoints.as_ref().is_some_and(|endpoints| meta::is_deleting(&**endpoints)) {
        changes.create.clear();
    }
    endpoint_slice::apply(&Api::namespaced(cluster.client.clone(), &key.namespace), changes).await?;
    Ok(Next::Await)
}

fn may_mirror(endpoints: &Endpoints) -> bool {
    let skips = endpoints.labels().get(SKIP).is_some_and(|value| value == "true");
    !skips && !endpoints.annotations().contains_key(LEADER)
}

fn tell_skipped(events: &Events, endpoints: &Endpoints, mirror: &Mirror) {
    if mirror.invalid > 0 {
        let note = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", mirror.invalid);
        events.warning(endpoints, "InvalidIPAddress", note);
    }
    if mirror.skipped > mirror.invalid {
        let note = format!(
            "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            mirror.skipped
        );
        events.warning(endpoints, "TooManyAddressesToMirror", note);
    }
}

#[derive(Debug, Default)]
struct Mirror {
    wanted: Wanted,
    /// Addresses that are none, and all that were left out.
    invalid: usize,
    skipped: usize,
}

fn mirror(endpoints: &Endpoints) -> Mirror {
    let mut mirror = Mirror::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let list = |list: &'_ Option<Vec<EndpointAddress>>, ready| {
            list.iter().flatten().map(|address| (address.clone(), ready)).collect::<Vec<_>>()
        };
        let mut added = 0;
        for (address, ready) in
            list(&subset.addresses, true).into_iter().chain(list(&subset.not_ready_addresses, false))
        {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                mirror.invalid += 1;
                mirror.skipped += 1;
                continue;
            };
            if added == ADDRESSES_MAX {
                mirror.skipped += 1;
                continue;
            }
            added += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = Group { family: family.into(), ports: ports.clone() };
            mirror.wanted.entry(group).or_default().entry(ip.to_string()).or_insert(Endpoint {
                addresses: vec![ip.to_string()],
                conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
                hostname: address.hostname.filter(|name| !name.is_empty()),
                node_name: address.node_name,
                target_ref: address.target_ref,
                ..Endpoint::default()
            });
        }
    }
    mirror
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), protocol, Some(port.port), port.app_protocol.clone())
    });
    ports.collect()
}

/// What every slice of these Endpoints has: their own labels and annotations, and whose mirror it is.
fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.into(), endpoints.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let is_copied = |key: &str| key != trigger_time::ANNOTATION && key != LAST_APPLIED;
    let annotations: BTreeMap<_, _> =
        endpoints.annotations().clone().into_iter().filter(|(key, _)| is_copied(key)).collect();
    ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name_any())),
        namespace: endpoints.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![meta::controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES_MAX, may_mirror, metadata, mirror};
    use crate::endpoint_slice::pack;
    use k8s_openapi::api::core::v1::Endpoints;
    use serde_json::{Value, json};

    fn endpoints(metadata: Value, subsets: Value) -> Endpoints {
        let mut metadata = metadata;
        metadata["name"] = "db".into();
        metadata["namespace"] = "n".into();
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    }

    #[test]
    fn each_family_and_set_of_ports_gets_a_slice() {
        let written = endpoints(
            json!({"labels": {"a": "b"}, "annotations": {"x": "y", "kubectl.kubernetes.io/last-applied-configuration": "{}"}}),
            json!([{"addresses": [{"ip": "10.1.1.1", "nodeName": "n1"}, {"ip": "fd00::1"}],
                    "notReadyAddresses": [{"ip": "10.1.1.2"}, {"ip": "nonsense"}],
                    "ports": [{"name": "pg", "port": 5432}]}]),
        );
        let mirrored = mirror(&written);
        assert_eq!((mirrored.invalid, mirrored.skipped), (1, 1));
        let made = json!(pack(&metadata(&written), mirrored.wanted, &[], ADDRESSES_MAX).create);
        assert_eq!(made.as_array().unwrap().len(), 2);
        assert_eq!(
            made[0]["endpoints"],
            json!([{"addresses": ["10.1.1.1"], "conditions": {"ready": true}, "nodeName": "n1"},
                   {"addresses": ["10.1.1.2"], "conditions": {"ready": false}}])
        );
        assert_eq!(made[0]["ports"], json!([{"name": "pg", "port": 5432, "protocol": "TCP"}]));
        assert_eq!(
            made[0]["metadata"]["labels"],
            json!({"a": "b", "kubernetes.io/service-name": "db",
                   "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
        );
        assert_eq!(made[0]["metadata"]["annotations"], json!({"x": "y"}));
        assert_eq!(made[0]["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        assert_eq!(made[1]["addressType"], "IPv6");
    }

    #[test]
    fn nothing_to_mirror_leaves_nothing() {
        let empty = endpoints(json!({}), json!([]));
        let changes = pack(&metadata(&empty), mirror(&empty).wanted, &[], ADDRESSES_MAX);
        assert!(changes.create.is_empty());
        assert!(!may_mirror(&endpoints(
            json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}),
            json!([])
        )));
        let lock = json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}});
        assert!(!may_mirror(&endpoints(lock, json!([]))));
    }

    #[test]
    fn too_many_addresses_are_cut() {
        let many: Vec<Value> = (0..1005).map(|i| json!({"ip": format!("10.0.{}.{}", i / 250, i % 250)})).collect();
        let mirrored = mirror(&endpoints(json!({}), json!([{"addresses": many, "ports": [{"port": 1}]}])));
        assert_eq!((mirrored.invalid, mirrored.skipped), (0, 5));
        assert_eq!(mirrored.wanted.values().next().unwrap().len(), 1000);
    }
}
