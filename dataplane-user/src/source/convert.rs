//! From Kubernetes objects to our own values; `None` means "not for us".

use std::net::IpAddr;
use std::sync::Arc;

use dataplane_plan::{Protocol, ServiceName};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{NodeSpec, ServicePort, ServiceSpec, SliceEndpoint, SliceName, SliceSpec};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The name of a Service, whether or not we serve it.
pub(super) fn service_name(service: &Service) -> Option<ServiceName> {
    Some(ServiceName::new(service.metadata.namespace.as_deref()?, service.metadata.name.as_deref()?))
}

/// A Service with a ClusterIP that no other proxy claims.
pub(super) fn service(service: &Service) -> Option<ServiceSpec> {
    if has_label(service.metadata.labels.as_ref(), PROXY_NAME_LABEL) {
        return None;
    }
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let listed = spec.cluster_ips.iter().flatten();
    // Servers before dual stack fill only the singular field.
    let addresses: Vec<&String> = if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        listed.collect()
    } else {
        spec.cluster_ip.iter().collect()
    };
    // "None" marks a headless Service and is no address.
    let cluster_ips: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: u16::try_from(port.port).ok().filter(|port| *port != 0)?,
            protocol: protocol(port.protocol.as_deref())?,
        })
    });
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    (!cluster_ips.is_empty()).then(|| ServiceSpec { cluster_ips, ports: ports.collect(), internal_local })
}

/// The name of a slice, whether or not we use it.
pub(super) fn slice_name(slice: &EndpointSlice) -> Option<SliceName> {
    let metadata = &slice.metadata;
    Some(SliceName { namespace: metadata.namespace.as_deref()?.into(), name: metadata.name.as_deref()?.into() })
}

/// A slice of IP endpoints that belongs to a Service with a ClusterIP.
pub(super) fn slice(slice: &EndpointSlice, node: &str) -> Option<SliceSpec> {
    let labels = slice.metadata.labels.as_ref();
    if has_label(labels, PROXY_NAME_LABEL) || has_label(labels, HEADLESS_LABEL) {
        return None;
    }
    let namespace = slice.metadata.namespace.as_deref()?;
    let service = labels?.get(SERVICE_NAME_LABEL)?;
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        return None;
    }
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            // No number means every port, which a ClusterIP cannot be balanced over.
            port: u16::try_from(port.port?).ok().filter(|port| *port != 0)?,
            protocol: protocol(port.protocol.as_deref())?,
        })
    });
    Some(SliceSpec {
        service: ServiceName::new(namespace, service.as_str()),
        ports: ports.collect(),
        endpoints: slice
            .endpoints
            .iter()
            .flatten()
            .filter_map(|known| endpoint(known, &slice.address_type, node))
            .collect(),
    })
}

/// Our own Node.
pub(super) fn node(node: &Node) -> Option<(Arc<str>, NodeSpec)> {
    let name = node.metadata.name.as_deref()?.into();
    Some((name, NodeSpec { deleting: node.metadata.deletion_timestamp.is_some() }))
}

fn endpoint(endpoint: &Endpoint, address_type: &str, node: &str) -> Option<SliceEndpoint> {
    // All addresses of an endpoint lead to the same place; the first one stands for it.
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    if address.is_ipv4() != (address_type == "IPv4") {
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let condition = |read: fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> Option<bool>, absent| {
        conditions.and_then(read).unwrap_or(absent)
    };
    Some(SliceEndpoint {
        address,
        local: endpoint.node_name.as_deref() == Some(node),
        ready: condition(|conditions| conditions.ready, true),
        serving: condition(|conditions| conditions.serving, true),
        terminating: condition(|conditions| conditions.terminating, false),
    })
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        _ => None,
    }
}

fn has_label(labels: Option<&std::collections::BTreeMap<String, String>>, name: &str) -> bool {
    labels.is_some_and(|labels| labels.contains_key(name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::{Value, json};

    use super::{service, slice};

    fn parse_service(labels: Value, spec: Value) -> Option<super::ServiceSpec> {
        let object = json!({"metadata": {"namespace": "a", "name": "b", "labels": labels}, "spec": spec});
        service(&serde_json::from_value::<Service>(object).unwrap())
    }

    fn parse_slice(labels: Value, rest: Value) -> Option<super::SliceSpec> {
        let mut object = rest;
        object["metadata"] = json!({"namespace": "a", "name": "b-1", "labels": labels});
        slice(&serde_json::from_value::<EndpointSlice>(object).unwrap(), "here")
    }

    #[test]
    fn services_of_others_and_services_without_an_address_are_left_alone() {
        let ports = json!([{"port": 80}]);
        let spec = |spec: Value| parse_service(json!({}), spec);
        assert!(spec(json!({"clusterIP": "10.96.0.1", "ports": ports})).is_some());
        assert!(spec(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})).is_none());
        assert!(spec(json!({"clusterIP": "", "ports": ports})).is_none());
        assert!(spec(json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "externalName": "x"})).is_none());
        let foreign = json!({"service.kubernetes.io/service-proxy-name": "other"});
        assert!(parse_service(foreign, json!({"clusterIP": "10.96.0.1", "ports": ports})).is_none());
    }

    #[test]
    fn both_families_and_every_port_are_taken() {
        let found = parse_service(
            json!({}),
            json!({
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "internalTrafficPolicy": "Local",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 80}, {"port": 1, "protocol": "SCTP"}],
            }),
        )
        .unwrap();
        assert_eq!(found.cluster_ips.len(), 2);
        assert!(found.internal_local);
        let ports: Vec<_> = found.ports.iter().map(|port| (&*port.name, port.port, port.protocol.name())).collect();
        assert_eq!(ports, [("dns", 53, "UDP"), ("", 80, "TCP")]);
    }

    #[test]
    fn absent_conditions_mean_ready_and_serving() {
        let labels = json!({"kubernetes.io/service-name": "b"});
        let found = parse_slice(
            labels,
            json!({
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
                "endpoints": [
                    {"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "here"},
                    {"addresses": ["10.0.0.2"], "nodeName": "there", "conditions": {"ready": false, "serving": true, "terminating": true}},
                    {"addresses": ["fd00::1"]},
                ],
            }),
        )
        .unwrap();
        assert_eq!(found.ports.len(), 1);
        let flags = |at: usize| {
            let endpoint: &super::SliceEndpoint = &found.endpoints[at];
            (endpoint.address.to_string(), endpoint.local, endpoint.ready, endpoint.serving, endpoint.terminating)
        };
        assert_eq!(flags(0), ("10.0.0.1".to_owned(), true, true, true, false));
        assert_eq!(flags(1), ("10.0.0.2".to_owned(), false, false, true, true));
        assert_eq!(found.endpoints.len(), 2);
    }

    #[test]
    fn slices_without_a_service_or_with_host_names_are_left_alone() {
        let ipv4 = || json!({"addressType": "IPv4", "endpoints": []});
        assert!(parse_slice(json!({}), ipv4()).is_none());
        let headless = json!({"kubernetes.io/service-name": "b", "service.kubernetes.io/headless": ""});
        assert!(parse_slice(headless, ipv4()).is_none());
        let labels = json!({"kubernetes.io/service-name": "b"});
        assert!(parse_slice(labels.clone(), json!({"addressType": "FQDN", "endpoints": []})).is_none());
        assert!(parse_slice(labels, ipv4()).is_some());
    }
}
