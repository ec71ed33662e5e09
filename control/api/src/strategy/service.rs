//! Services: which addresses and ports one wants, keeps and gives up. Allocating them is the server's part.

use std::net::IpAddr;

use serde_json::Value;

use crate::status::Cause;
use crate::value::{child_mut, copy, int, is_set, is_zero, items, items_mut, remove, same, set, text};

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn other(self) -> Self {
        if self == Self::V4 { Self::V6 } else { Self::V4 }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }
}

/// The addresses a Service is to have, in the order of its families.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPlan {
    /// `None` where the allocator chooses. Empty for a Service without cluster addresses.
    pub wanted: Vec<(Family, Option<IpAddr>)>,
}

/// Whether a Service of this type has cluster addresses.
#[must_use]
pub fn needs_cluster_ip(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName" && !is_headless(service)
}

#[must_use]
pub fn is_headless(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName"
        && (service["spec"]["clusterIP"] == "None" || service["spec"]["clusterIPs"][0] == "None")
}

/// Whether the ports of a Service are open on every node.
#[must_use]
pub fn needs_node_ports(service: &Value) -> bool {
    match text(&service["spec"]["type"]) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether a Service has a port where balancers ask for local endpoints.
#[must_use]
pub fn needs_health_check_port(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

pub(crate) fn create(service: &mut Value) {
    normalize(None, service);
}

pub(crate) fn update(old: &Value, new: &mut Value) {
    keep_allocated(old, new);
    normalize(Some(old), new);
    drop_left_over(old, new);
}

/// Brings `clusterIP` and `clusterIPs` into agreement, whichever of the two the client changed.
pub fn normalize(old: Option<&Value>, new: &mut Value) {
    let Some(spec) = child_mut(new, "spec") else { return };
    let single = text(&spec["clusterIP"]).to_owned();
    let Some(old) = old.map(|old| &old["spec"]) else {
        if !single.is_empty() && is_zero(&spec["clusterIPs"]) {
            set(spec, "clusterIPs", vec![single]);
        }
        return;
    };
    let before = text(&old["clusterIP"]);
    let list_unchanged = same(&old["clusterIPs"], &spec["clusterIPs"]);
    if single.is_empty() && !before.is_empty() {
        if list_unchanged {
            remove(spec, "clusterIPs");
        }
    } else if single != before && list_unchanged || (!single.is_empty() && is_zero(&spec["clusterIPs"])) {
        set(spec, "clusterIPs", vec![single]);
    }
}

/// A client that leaves allocated values out does not mean to give them up.
fn keep_allocated(old: &Value, new: &mut Value) {
    let addresses = needs_cluster_ip(old) && needs_cluster_ip(new);
    let node_ports = needs_node_ports(old) && needs_node_ports(new);
    let health_port = needs_health_check_port(old) && needs_health_check_port(new);
    let Some(spec) = child_mut(new, "spec") else { return };
    if addresses {
        let before = &old["spec"];
        if is_zero(&spec["clusterIP"]) && is_zero(&spec["clusterIPs"]) {
            copy(before, spec, "clusterIP");
        }
        if is_zero(&spec["clusterIPs"]) && spec["clusterIP"] == before["clusterIP"] {
            copy(before, spec, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if is_zero(&spec[field]) {
                copy(before, spec, field);
            }
        }
    }
    if node_ports {
        keep_node_ports(old, spec);
    }
    if health_port && is_zero(&spec["healthCheckNodePort"]) {
        copy(&old["spec"], spec, "healthCheckNodePort");
    }
}

fn keep_node_ports(old: &Value, spec: &mut Value) {
    let mut taken: Vec<i64> = items(&spec["ports"]).iter().map(|port| int(&port["nodePort"])).collect();
    let key = |port: &Value| (text(&port["protocol"]).to_owned(), int(&port["port"]));
    for port in items_mut(spec, "ports") {
        if int(&port["nodePort"]) != 0 {
            continue;
        }
        let before = items(&old["spec"]["ports"]).iter().find(|before| key(before) == key(port));
        let number = before.map_or(0, |before| int(&before["nodePort"]));
        if number != 0 && !taken.contains(&number) {
            taken.push(number);
            set(port, "nodePort", number);
        }
    }
}

/// What only the old type had goes away with it, unless the client just set it.
fn drop_left_over(old: &Value, new: &mut Value) {
    let mut fields: Vec<&str> = Vec::new();
    if old["spec"]["type"] != "ExternalName" && new["spec"]["type"] == "ExternalName" {
        fields.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) {
        fields.push("healthCheckNodePort");
    }
    if old["spec"]["type"] == "LoadBalancer" && new["spec"]["type"] != "LoadBalancer" {
        fields.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"]);
    }
    let reachable = |service: &Value| {
        matches!(text(&service["spec"]["type"]), "NodePort" | "LoadBalancer")
            || !is_zero(&service["spec"]["externalIPs"])
    };
    if reachable(old) && !reachable(new) {
        fields.push("externalTrafficPolicy");
    }
    let has_ports = matches!(text(&new["spec"]["type"]), "NodePort" | "LoadBalancer");
    let Some(spec) = child_mut(new, "spec") else { return };
    for field in fields {
        if same(&old["spec"][field], &spec[field]) {
            remove(spec, field);
        }
    }
    if needs_node_ports(old) && !has_ports {
        let before: Vec<i64> = items(&old["spec"]["ports"]).iter().map(|port| int(&port["nodePort"])).collect();
        for port in items_mut(spec, "ports") {
            if before.contains(&int(&port["nodePort"])) {
                remove(port, "nodePort");
            }
        }
    }
}

/// Settles the families of a Service on a cluster that offers `cluster` (first is the default), writes `ipFamilies` and
/// `ipFamilyPolicy`, and says which addresses are wanted.
///
/// # Errors
/// If the Service asks for a family or for two families that the cluster does not offer.
pub fn plan_addresses(service: &mut Value, cluster: &[Family]) -> Result<AddressPlan, Vec<Cause>> {
    let Some(&default) = cluster.first() else { return Ok(AddressPlan::default()) };
    if service["spec"]["type"] == "ExternalName" {
        return Ok(AddressPlan::default());
    }
    let headless = is_headless(service);
    let fixed: Vec<IpAddr> =
        items(&service["spec"]["clusterIPs"]).iter().filter_map(|ip| text(ip).parse().ok()).collect();
    let mut families: Vec<Family> =
        items(&service["spec"]["ipFamilies"]).iter().filter_map(|family| Family::parse(text(family))).collect();
    for address in &fixed {
        if !families.contains(&Family::of(*address)) {
            families.push(Family::of(*address));
        }
    }
    let without_selector = headless && is_zero(&service["spec"]["selector"]);
    let policy = match text(&service["spec"]["ipFamilyPolicy"]) {
        "" if without_selector || families.len() > 1 => "RequireDualStack",
        "" => "SingleStack",
        given => given,
    }
    .to_owned();
    check_offer(&families, &policy, without_selector, cluster)?;
    if families.is_empty() {
        families.push(default);
    }
    if families.len() == 1 && policy != "SingleStack" && (cluster.len() > 1 || without_selector) {
        families.push(families[0].other());
    }
    if policy == "SingleStack" {
        families.truncate(1);
    }
    if let Some(spec) = child_mut(service, "spec") {
        set(spec, "ipFamilies", families.iter().map(|family| family.as_str()).collect::<Vec<_>>());
        set(spec, "ipFamilyPolicy", policy);
    }
    if headless {
        return Ok(AddressPlan::default());
    }
    let wanted = families
        .into_iter()
        .map(|family| (family, fixed.iter().copied().find(|address| Family::of(*address) == family)))
        .collect();
    Ok(AddressPlan { wanted })
}

fn check_offer(
    families: &[Family],
    policy: &str,
    without_selector: bool,
    cluster: &[Family],
) -> Result<(), Vec<Cause>> {
    if without_selector {
        return Ok(());
    }
    if let Some((index, family)) = families.iter().enumerate().find(|(_, family)| !cluster.contains(family)) {
        return Err(vec![Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {:?}: not configured on this cluster", family.as_str()),
            field: format!("spec.ipFamilies[{index}]"),
        }]);
    }
    if policy == "RequireDualStack" && cluster.len() < 2 {
        return Err(vec![Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {policy:?}: this cluster is not configured for dual-stack services"),
            field: "spec.ipFamilyPolicy".into(),
        }]);
    }
    Ok(())
}

/// Writes the addresses that were allocated, in the order of the plan.
pub fn set_addresses(service: &mut Value, addresses: &[IpAddr]) {
    if let (Some(spec), Some(first)) = (child_mut(service, "spec"), addresses.first()) {
        set(spec, "clusterIP", first.to_string());
        set(spec, "clusterIPs", addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
}

/// The addresses a Service holds.
#[must_use]
pub fn addresses_of(service: &Value) -> Vec<IpAddr> {
    items(&service["spec"]["clusterIPs"]).iter().filter_map(|ip| text(ip).parse().ok()).collect()
}

/// The node ports a Service holds, with their protocol; its health check port counts as TCP.
#[must_use]
pub fn node_ports_of(service: &Value) -> Vec<(String, u16)> {
    let spec = &service["spec"];
    let ports = items(&spec["ports"]).iter().map(|port| (text(&port["protocol"]).to_owned(), &port["nodePort"]));
    ports
        .chain([("TCP".to_owned(), &spec["healthCheckNodePort"])])
        .filter(|(_, number)| is_set(number))
        .filter_map(|(protocol, number)| Some((protocol, u16::try_from(int(number)).ok().filter(|port| *port != 0)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DUAL: &[Family] = &[Family::V4, Family::V6];
    const SINGLE: &[Family] = &[Family::V4];

    fn plan(spec: Value, cluster: &[Family]) -> (Vec<(Family, Option<IpAddr>)>, Value) {
        let mut service = json!({"spec": spec});
        normalize(None, &mut service);
        let plan = plan_addresses(&mut service, cluster).expect("plan");
        (plan.wanted, json!([service["spec"]["ipFamilies"], service["spec"]["ipFamilyPolicy"]]))
    }

    #[test]
    fn families_follow_what_is_asked_and_offered() {
        let free = |family| (family, None);
        let ip = |text: &str| Some(text.parse().expect("address"));
        let cases = [
            (json!({}), DUAL, vec![free(Family::V4)], json!([["IPv4"], "SingleStack"])),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                DUAL,
                vec![free(Family::V4), free(Family::V6)],
                json!([["IPv4", "IPv6"], "PreferDualStack"]),
            ),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                SINGLE,
                vec![free(Family::V4)],
                json!([["IPv4"], "PreferDualStack"]),
            ),
            (json!({"ipFamilies": ["IPv6"]}), DUAL, vec![free(Family::V6)], json!([["IPv6"], "SingleStack"])),
            (
                json!({"ipFamilies": ["IPv6", "IPv4"]}),
                DUAL,
                vec![free(Family::V6), free(Family::V4)],
                json!([["IPv6", "IPv4"], "RequireDualStack"]),
            ),
            (
                json!({"clusterIP": "fd00::1"}),
                DUAL,
                vec![(Family::V6, ip("fd00::1"))],
                json!([["IPv6"], "SingleStack"]),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ipFamilyPolicy": "RequireDualStack"}),
                DUAL,
                vec![(Family::V4, ip("10.0.0.1")), free(Family::V6)],
                json!([["IPv4", "IPv6"], "RequireDualStack"]),
            ),
            (json!({"clusterIP": "None", "selector": {"a": "b"}}), DUAL, vec![], json!([["IPv4"], "SingleStack"])),
            (json!({"clusterIP": "None"}), SINGLE, vec![], json!([["IPv4", "IPv6"], "RequireDualStack"])),
            (json!({"type": "ExternalName"}), DUAL, vec![], json!([null, null])),
        ];
        for (spec, cluster, wanted, families) in cases {
            assert_eq!(plan(spec.clone(), cluster), (wanted, families), "{spec}");
        }
    }

    #[test]
    fn a_family_that_is_not_offered_is_refused() {
        let refuse =
            |spec: Value| plan_addresses(&mut json!({"spec": spec}), SINGLE).expect_err("refused")[0].field.clone();
        assert_eq!(refuse(json!({"ipFamilies": ["IPv6"]})), "spec.ipFamilies[0]");
        assert_eq!(refuse(json!({"ipFamilyPolicy": "RequireDualStack"})), "spec.ipFamilyPolicy");
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        update(&old, &mut new);
        assert_eq!(addresses_of(&new), addresses_of(&old));
        assert_eq!(node_ports_of(&new), [("TCP".to_owned(), 30001)]);
    }

    #[test]
    fn a_change_of_type_gives_up_what_the_old_type_had() {
        let old = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 30002, "allocateLoadBalancerNodePorts": true,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        update(&old, &mut new);
        assert_eq!(
            new["spec"],
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
                "ports": [{"port": 80, "protocol": "TCP"}]})
        );
        let mut new = old.clone();
        new["spec"]["type"] = "ExternalName".into();
        update(&old, &mut new);
        assert!(addresses_of(&new).is_empty());
    }

    #[test]
    fn the_two_address_fields_agree_whichever_is_changed() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let mut new = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}});
        update(&old, &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.2"]));
    }
}
