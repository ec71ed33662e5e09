//! Which slices a Service should have: a pure function of the Service, its pods and the slices that exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::endpoint_slice::pack::{Changes, Group, MANAGED_BY, Port, SERVICE_NAME, Wanted, pack};
use crate::meta::{self, HEADLESS};

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const ENDPOINTS_PER_SLICE_MAX: usize = 100;

pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Changes {
    let mut wanted = Wanted::new();
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
    pack(&metadata(service), wanted, existing, ENDPOINTS_PER_SLICE_MAX)
}

/// What every slice of a Service has.
fn metadata(service: &Service) -> ObjectMeta {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if meta::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![meta::controller_reference(service)]),
        ..ObjectMeta::default()
    }
}

pub(crate) fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".into()] } else { families }
}

/// The pod's address of a family.
pub(crate) fn address<'a>(status: &'a PodStatus, family: &str) -> Option<&'a str> {
    let mut addresses = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    addresses.find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// The name that a pod has below its headless Service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_named = spec.subdomain.as_deref() == Some(&service.name_any());
    spec.hostname.clone().filter(|name| is_named && !name.is_empty())
}

/// The pod as what stands behind an address.
pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
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
    let address = address(status, family)?.to_owned();
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.iter().flatten().filter_map(|port| resolve(port, pod)).collect::<Vec<_>>();
    if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
        return None;
    }
    let is_ready = meta::ready_since(pod).is_some();
    let is_terminating = meta::is_deleting(pod);
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (is_ready && !is_terminating)),
            serving: Some(is_ready),
            terminating: Some(is_terminating),
        }),
        hostname: hostname(service, pod),
        zone: pod_spec.node_name.as_deref().and_then(zone_of),
        node_name: pod_spec.node_name,
        target_ref: Some(target(pod)),
        ..Endpoint::default()
    };
    Some((ports, endpoint))
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = target_port(port, pod)?;
    Some((port.name.clone().unwrap_or_default(), protocol, Some(number), port.app_protocol.clone()))
}

/// A named target port is looked up in each pod, so pods of one Service may differ.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => named_port(pod, name, port.protocol.as_deref().unwrap_or("TCP")),
    }
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
