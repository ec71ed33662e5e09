//! Defaults of the core kinds other than pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pod::quantities;
use crate::meta;
use crate::value::{child_mut, entries, is_zero, items_mut, remove, set, set_default, set_if_zero, text};

const SESSION_AFFINITY_TIMEOUT_SECONDS: u32 = 10_800;

pub(crate) fn namespace(namespace: &mut Value) {
    let name = meta::name(namespace).to_owned();
    if !name.is_empty() {
        meta::set_label(namespace, "kubernetes.io/metadata.name", &name);
    }
    set_default(namespace, "status", json!({}));
    if let Some(status) = child_mut(namespace, "status") {
        set_if_zero(status, "phase", "Active");
    }
}

pub(crate) fn node(node: &mut Value) {
    let Some(status) = child_mut(node, "status") else { return };
    let capacity = status["capacity"].clone();
    if !is_zero(&capacity) {
        set_if_zero(status, "allocatable", capacity);
    }
    for list in ["capacity", "allocatable"] {
        if let Some(list) = status.get_mut(list) {
            quantities(list);
        }
    }
}

/// `stringData` is write-only: it ends up in `data`, and wins there.
pub(crate) fn secret(secret: &mut Value) {
    set_if_zero(secret, "type", "Opaque");
    let Some(plain) = remove(secret, "stringData") else { return };
    for (key, value) in entries(&plain) {
        let encoded = STANDARD.encode(text(value));
        meta::child_mut(secret, "data").insert(key.clone(), encoded.into());
    }
}

pub(crate) fn endpoints(endpoints: &mut Value) {
    for subset in items_mut(endpoints, "subsets") {
        for port in items_mut(subset, "ports") {
            set_if_zero(port, "protocol", "TCP");
        }
    }
}

pub(crate) fn service(service: &mut Value) {
    if let Some(status) = service.get_mut("status") {
        load_balancer(status);
    }
    let Some(spec) = child_mut(service, "spec") else { return };
    set_if_zero(spec, "sessionAffinity", "None");
    set_if_zero(spec, "type", "ClusterIP");
    if spec["sessionAffinity"] == "ClientIP" {
        let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        if seconds.is_null() {
            let config = json!({"clientIP": {"timeoutSeconds": SESSION_AFFINITY_TIMEOUT_SECONDS}});
            set(spec, "sessionAffinityConfig", config);
        }
    } else if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    for port in items_mut(spec, "ports") {
        set_if_zero(port, "protocol", "TCP");
        let number = port["port"].clone();
        set_if_zero(port, "targetPort", number);
    }
    let kind = text(&spec["type"]).to_owned();
    let external = !is_zero(&spec["externalIPs"]);
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external) {
        set_if_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn load_balancer(status: &mut Value) {
    let Some(balancer) = status.get_mut("loadBalancer") else { return };
    for ingress in items_mut(balancer, "ingress") {
        if !is_zero(&ingress["ip"]) {
            set_default(ingress, "ipMode", "VIP");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_wins_over_data_and_is_gone() {
        let mut object = json!({"data": {"a": "b2xk", "b": "eA=="}, "stringData": {"a": "new"}});
        secret(&mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "eA=="}}));
    }

    #[test]
    fn a_minimal_service_is_a_cluster_ip() {
        let mut object = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}});
        service(&mut object);
        assert_eq!(
            object["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80},
                    {"port": 81, "protocol": "TCP", "targetPort": "http"}]})
        );
    }

    #[test]
    fn balancers_and_affinity_get_their_own_defaults() {
        let mut object = json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}});
        service(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
        assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
        let mut object = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
        service(&mut object);
        assert!(object["spec"]["internalTrafficPolicy"].is_null());
    }

    #[test]
    fn namespaces_carry_their_name_as_a_label() {
        let mut object = json!({"metadata": {"name": "a"}});
        namespace(&mut object);
        assert_eq!(meta::label(&object, "kubernetes.io/metadata.name"), Some("a"));
        assert_eq!(object["status"]["phase"], "Active");
    }
}
