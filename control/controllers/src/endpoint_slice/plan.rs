//! Which slices a Service should have: a pure function of the Service, its pods and the slices that exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::meta;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ENDPOINTS_PER_SLICE_MAX: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<String>,
}

/// Slices are separate for each address family and each set of resolved ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: String,
    ports: Vec<Port>,
}

/// A resolved port: name, protocol, number, application protocol.
type Port = (String, String, Option<i32>, Option<String>);

pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Changes {
    let mut wanted: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for family in families(service) {
        for pod in pods {
            if let Some((ports, endpoint)) = endpoint(service, pod, &family, &zone_of) {
                let address = endpoint.addresses.concat();
                wanted.entry(Group { family: family.clone(), ports }).or_default().insert(address, endpoint);
            }
        }
        if !wanted.keys().any(|group| group.family == family) {
            // A Service without pods still has a slice, so that watchers can tell "none" from "not yet known".
            wanted.insert(Group { family, ports: vec![] }, BTreeMap::new());
        }
    }
    let mut changes = Changes::default();
    let mut unused: Vec<&Arc<EndpointSlice>> = existing.iter().filter(|slice| !meta::is_deleting(&***slice)).collect();
    for (group, endpoints) in wanted {
        let (same, rest): (Vec<_>, Vec<_>) = unused.into_iter().partition(|slice| group_of(slice) == group);
        unused = rest;
        fill(service, &group, endpoints, &same, &mut changes);
    }
    changes.delete.extend(unused.iter().map(|slice| slice.name_any()));
    changes
}

/// Keeps endpoints in the slices that hold them, puts new ones where there is room, drops slices that end up empty.
fn fill(
    service: &Service,
    group: &Group,
    mut endpoints: BTreeMap<String, Endpoint>,
    same: &[&Arc<EndpointSlice>],
    changes: &mut Changes,
) {
    let is_placeholder = endpoints.is_empty();
    let mut kept: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in same {
        let held = slice.endpoints.iter().flatten();
        let kept_here: Vec<Endpoint> = held.filter_map(|old| endpoints.remove(&old.addresses.concat())).collect();
        kept.push((slice, kept_here));
    }
    let mut fresh = endpoints.into_values();
    for (_, list) in &mut kept {
        let room = ENDPOINTS_PER_SLICE_MAX.saturating_sub(list.len());
        list.extend(fresh.by_ref().take(room));
    }
    let mut has_one = false;
    for (slice, list) in kept {
        if list.is_empty() && (!is_placeholder || has_one) {
            changes.delete.push(slice.name_any());
            continue;
        }
        has_one = true;
        let new = slice_of(service, group, list);
        let same_labels = slice.metadata.labels == new.metadata.labels;
        if slice.endpoints.clone().unwrap_or_default() != new.endpoints.clone().unwrap_or_default() || !same_labels {
            let mut updated = slice.clone();
            updated.endpoints = new.endpoints;
            updated.metadata.labels = new.metadata.labels;
            changes.update.push(updated);
        }
    }
    let rest: Vec<Endpoint> = fresh.collect();
    changes.create.extend(rest.chunks(ENDPOINTS_PER_SLICE_MAX).map(|chunk| slice_of(service, group, chunk.to_vec())));
    if is_placeholder && !has_one {
        changes.create.push(slice_of(service, group, vec![]));
    }
}

fn slice_of(service: &Service, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let ports = group.ports.iter().map(|(name, protocol, port, application)| EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: *port,
        app_protocol: application.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![meta::controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: group.family.clone(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

fn group_of(slice: &EndpointSlice) -> Group {
    let ports = slice.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    });
    Group { family: slice.address_type.clone(), ports: ports.collect() }
}

fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".into()] } else { families }
}

/// The endpoint that a pod is, with its ports resolved; none while it has no address of the family or has ended.
fn endpoint(
    service: &Service,
    pod: &Pod,
    family: &str,
    zone_of: impl Fn(&str) -> Option<String>,
) -> Option<(Vec<Port>, Endpoint)> {
    if meta::is_terminal(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let addresses = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let address = addresses.into_iter().find(|ip| ip.contains(':') == (family == "IPv6"))?.to_owned();
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.iter().flatten().filter_map(|port| resolve(port, pod)).collect::<Vec<_>>();
    if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
        return None;
    }
    let is_ready = meta::ready_since(pod).is_some();
    let is_terminating = meta::is_deleting(pod);
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let is_named = pod_spec.subdomain.as_deref() == Some(&service.name_any());
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (is_ready && !is_terminating)),
            serving: Some(is_ready),
            terminating: Some(is_terminating),
        }),
        hostname: pod_spec.hostname.filter(|_| is_named),
        zone: pod_spec.node_name.as_deref().and_then(zone_of),
        node_name: pod_spec.node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    };
    Some((ports, endpoint))
}

/// A named target port is looked up in each pod, so pods of one Service may differ.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some((port.name.clone().unwrap_or_default(), protocol, Some(number), port.app_protocol.clone()))
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    // Sidecars (restartable init containers) may serve, too.
    let sidecars = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let found = ports
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol)?;
    Some(found.container_port)
}

#[cfg(test)]
mod tests {
    use super::{ENDPOINTS_PER_SLICE_MAX, plan};
    use k8s_openapi::api::core::v1::{Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;
    use std::sync::Arc;

    fn service(families: &[&str]) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "s"},
            "spec": {"ipFamilies": families, "selector": {"app": "web"},
                     "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }))
        .unwrap()
    }

    fn pod(index: usize, port: i32, ready: bool, deleting: bool) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": format!("p{index}"), "namespace": "n", "uid": format!("u{index}")},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", index / 250, index % 250),
                "podIPs": [{"ip": format!("10.0.{}.{}", index / 250, index % 250)}, {"ip": format!("fd00::{index:x}")}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn named(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
        let name = |(index, mut slice): (usize, EndpointSlice)| {
            slice.metadata.name = Some(format!("web-{index}"));
            Arc::new(slice)
        };
        slices.into_iter().enumerate().map(name).collect()
    }

    #[test]
    fn both_families_get_slices_and_conditions_follow_the_pod() {
        let pods = [pod(1, 8080, true, false), pod(2, 8080, false, false), pod(3, 8080, true, true)];
        let made = plan(&service(&["IPv4", "IPv6"]), &pods, &[], |_| None).create;
        assert_eq!(made.len(), 2);
        let conditions: Vec<_> = made[0]
            .endpoints
            .as_ref()
            .unwrap()
            .iter()
            .map(|endpoint| {
                let c = endpoint.conditions.clone().unwrap();
                (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
            })
            .collect();
        assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
    }

    #[test]
    fn pods_with_other_port_numbers_go_to_other_slices() {
        let made = plan(&service(&["IPv4"]), &[pod(1, 8080, true, false), pod(2, 9090, true, false)], &[], |_| None);
        assert_eq!(made.create.len(), 2);
    }

    #[test]
    fn a_hundred_is_the_limit_and_one_change_rewrites_one_slice() {
        let mut pods: Vec<_> = (0..250).map(|index| pod(index, 8080, true, false)).collect();
        let existing = named(plan(&service(&["IPv4"]), &pods, &[], |_| None).create);
        assert_eq!(existing.len(), 3);
        assert!(existing.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= ENDPOINTS_PER_SLICE_MAX));
        pods[7] = pod(7, 8080, false, false);
        let changes = plan(&service(&["IPv4"]), &pods, &existing, |_| None);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
    }

    #[test]
    fn no_pods_leave_one_placeholder_and_nothing_to_do_afterwards() {
        let existing = named(plan(&service(&["IPv4"]), &[], &[], |_| None).create);
        assert_eq!(existing.len(), 1);
        let changes = plan(&service(&["IPv4"]), &[], &existing, |_| None);
        assert!(changes.create.is_empty() && changes.update.is_empty() && changes.delete.is_empty());
    }
}
