//! Rules for Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::{address, meta};
use crate::names;
use crate::value::{int, is_set, is_zero, items, text};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(crate) fn service(service: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &service["spec"];
    let kind = text(&spec["type"]);
    errors.required_one_of(&path.at("type"), &spec["type"], TYPES);
    ports(spec, &path, errors);
    meta::labels(&spec["selector"], &path.at("selector"), errors);
    affinity(spec, &path, errors);
    if kind == "ExternalName" {
        external_name(spec, &path, errors);
    } else {
        cluster_ips(spec, &path, errors);
        families(spec, &path, errors);
    }
    external(spec, &path, errors);
    traffic_policies(spec, &path, errors);
}

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

fn ports(spec: &Value, path: &Path, errors: &mut Errors) {
    let ports = items(&spec["ports"]);
    let kind = text(&spec["type"]);
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&path.at("ports"), "");
    }
    let mut names_seen = BTreeSet::new();
    let mut numbers_seen = BTreeSet::new();
    let mut node_ports_seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.at("ports").index(index);
        let (name, protocol) = (text(&port["name"]), text(&port["protocol"]));
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.at("name"), "");
            }
        } else {
            errors.complaints(&path.at("name"), name, names::dns_label(name));
            if !names_seen.insert(name) {
                errors.duplicate(&path.at("name"), name);
            }
        }
        errors.port_number(&path.at("port"), &port["port"]);
        errors.required_one_of(&path.at("protocol"), &port["protocol"], PROTOCOLS);
        if is_set(&port["targetPort"]) {
            errors.port(&path.at("targetPort"), &port["targetPort"]);
        }
        if is_set(&port["appProtocol"]) {
            let name = text(&port["appProtocol"]);
            errors.complaints(&path.at("appProtocol"), name, names::qualified_name(name));
        }
        if !numbers_seen.insert((protocol, int(&port["port"]))) {
            // The whole Go struct is the bad value here, unset fields and all.
            let value = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": port["port"],
                "TargetPort": 0, "NodePort": 0});
            errors.duplicate(&path, value);
        }
        let node_port = int(&port["nodePort"]);
        if node_port == 0 {
            continue;
        }
        if kind == "ClusterIP" {
            errors.forbidden(&path.at("nodePort"), "may not be used when `type` is 'ClusterIP'");
        } else if !node_ports_seen.insert((protocol, node_port)) {
            errors.duplicate(&path.at("nodePort"), node_port);
        }
        errors.port_number(&path.at("nodePort"), &port["nodePort"]);
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut Errors) {
    errors.required_one_of(&path.at("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    let config = path.at("sessionAffinityConfig");
    if spec["sessionAffinity"] == "ClientIP" {
        let seconds = int(&spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]);
        if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
            let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            errors.invalid(&config.at("clientIP").at("timeoutSeconds"), seconds, &detail);
        }
    } else if is_set(&spec["sessionAffinityConfig"]) {
        errors.forbidden(&config, "must not be set when session affinity is None");
    }
}

fn external_name(spec: &Value, path: &Path, errors: &mut Errors) {
    let name = text(&spec["externalName"]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(&path.at("externalName"), "");
    } else {
        errors.complaints(&path.at("externalName"), name, names::dns_subdomain(name));
    }
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !is_zero(&spec[field]) {
            errors.forbidden(&path.at(field), "may not be set for ExternalName services");
        }
    }
}

fn cluster_ips(spec: &Value, path: &Path, errors: &mut Errors) {
    let ips = items(&spec["clusterIPs"]);
    let single = text(&spec["clusterIP"]);
    let first = ips.first().map_or("", text);
    if !single.is_empty() && ips.is_empty() {
        errors.required(&path.at("clusterIPs"), "");
    } else if single != first {
        errors.invalid(&path.at("clusterIPs"), ips.to_vec(), "first value must match `clusterIP`");
    }
    let path = path.at("clusterIPs");
    if ips.len() > 2 {
        errors.invalid(&path, ips.to_vec(), "may only hold up to 2 values");
    }
    let kind = text(&spec["type"]);
    if first == "None" && kind != "ClusterIP" {
        errors.invalid(&path.index(0), "None", &format!("may not be set to 'None' for {kind} services"));
    }
    if ips.len() > 1 && ips.iter().any(|ip| ip == "None") {
        errors.invalid(&path, ips.to_vec(), "'None' must be the first and only value");
        return;
    }
    let parsed: Vec<bool> = ips
        .iter()
        .enumerate()
        .filter(|(_, ip)| *ip != "None")
        .filter_map(|(index, ip)| address::ip(text(ip), &path.index(index), errors))
        .map(|ip| ip.is_ipv4())
        .collect();
    if matches!(parsed[..], [a, b] if a == b) {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&path, ips.to_vec(), detail);
    }
    let families = items(&spec["ipFamilies"]);
    for (index, (is_v4, family)) in parsed.iter().zip(families).enumerate() {
        if *is_v4 != (family == "IPv4") {
            let detail = format!("expected an {} value as indicated by `ipFamilies[{index}]`", text(family));
            errors.invalid(&path.index(index), text(&ips[index]), &detail);
        }
    }
}

fn families(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, family) in items(&spec["ipFamilies"]).iter().enumerate() {
        let path = path.at("ipFamilies").index(index);
        errors.one_of(&path, family, FAMILIES);
        if !seen.insert(text(family)) {
            errors.duplicate(&path, text(family));
        }
    }
    if is_set(&spec["ipFamilyPolicy"]) {
        let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.at("ipFamilyPolicy"), &spec["ipFamilyPolicy"], policies);
        if spec["ipFamilyPolicy"] == "SingleStack" {
            for field in ["ipFamilies", "clusterIPs"] {
                if items(&spec[field]).len() > 1 {
                    let detail = format!("may not be 'SingleStack' when more than one of `{field}` is given");
                    errors.invalid(&path.at("ipFamilyPolicy"), "SingleStack", &detail);
                }
            }
        }
    }
}

fn external(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, ip) in items(&spec["externalIPs"]).iter().enumerate() {
        address::ordinary(text(ip), &path.at("externalIPs").index(index), errors);
    }
    let ranges = items(&spec["loadBalancerSourceRanges"]);
    let balancer = spec["type"] == "LoadBalancer";
    if !ranges.is_empty() && !balancer {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.forbidden(&path.at("loadBalancerSourceRanges"), detail);
    }
    for (index, range) in ranges.iter().enumerate() {
        address::cidr(text(range), &path.at("loadBalancerSourceRanges").index(index), errors);
    }
    for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        if is_set(&spec[field]) && !balancer {
            errors.forbidden(&path.at(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
}

fn traffic_policies(spec: &Value, path: &Path, errors: &mut Errors) {
    let kind = text(&spec["type"]);
    let policy = &spec["externalTrafficPolicy"];
    let reachable =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !is_zero(&spec["externalIPs"]));
    if !is_zero(policy) && !reachable {
        let detail = "may only be set for externally-accessible services";
        errors.invalid(&path.at("externalTrafficPolicy"), text(policy), detail);
    } else if reachable {
        errors.required_one_of(&path.at("externalTrafficPolicy"), policy, TRAFFIC_POLICIES);
    }
    if is_set(&spec["internalTrafficPolicy"]) {
        errors.one_of(&path.at("internalTrafficPolicy"), &spec["internalTrafficPolicy"], TRAFFIC_POLICIES);
    } else if kind != "ExternalName" {
        errors.required(&path.at("internalTrafficPolicy"), "");
    }
    let health = int(&spec["healthCheckNodePort"]);
    if health != 0 && !(kind == "LoadBalancer" && policy == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.at("healthCheckNodePort"), health, detail);
    }
}

/// An address once given is kept for as long as the Service has the type that needs it.
pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (old, new) = (&old["spec"], &new["spec"]);
    if old["type"] != "ExternalName" && new["type"] != "ExternalName" {
        let before = items(&old["clusterIPs"]);
        let after = items(&new["clusterIPs"]);
        for (index, ip) in before.iter().enumerate() {
            let path = path.at("clusterIPs").index(index);
            match after.get(index) {
                // The second address goes with the second family.
                None if index == 1 => {}
                None => errors.invalid(&path, after.to_vec(), "primary clusterIP can not be unset"),
                Some(other) if other != ip => errors.invalid(&path, after.to_vec(), "may not change once set"),
                Some(_) => {}
            }
        }
        let (before, after) = (items(&old["ipFamilies"]), items(&new["ipFamilies"]));
        if let (Some(first), Some(other)) = (before.first(), after.first())
            && first != other
        {
            errors.invalid(&path.at("ipFamilies").index(0), text(other), "may not change once set");
        }
    }
    if old["type"] == "LoadBalancer" && new["type"] == "LoadBalancer" {
        let (before, after) = (&old["loadBalancerClass"], &new["loadBalancerClass"]);
        if before != after && (is_set(before) || is_set(after)) {
            errors.invalid(&path.at("loadBalancerClass"), after.clone(), "may not change once set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::errors::texts;

    fn check(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        crate::defaults::service(&mut object);
        crate::strategy::service::normalize(None, &mut object);
        texts(|errors| service(&object, errors))
    }

    #[test]
    fn mistakes_in_services_are_named() {
        let cases = [
            (json!({"ports": [{"port": 80}]}), vec![]),
            (json!({"clusterIP": "None"}), vec![]),
            (json!({"type": "ExternalName", "externalName": "a.b."}), vec![]),
            (json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [{"port": 1}]}), vec![]),
            (json!({}), vec!["spec.ports: Required value"]),
            (
                json!({"type": "Foo", "ports": [{"port": 80}], "internalTrafficPolicy": "Cluster"}),
                vec![
                    "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"ports": [{"port": 0}]}),
                vec![
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}), vec!["spec.ports[0].name: Required value"]),
            (
                json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}]}),
                vec![
                    "spec.ports[1].name: Duplicate value: \"a\"",
                    "spec.ports[1]: Duplicate value: {\"AppProtocol\":null,\"Name\":\"\",\"NodePort\":0,\"Port\":80,\"Protocol\":\"TCP\",\"TargetPort\":0}",
                ],
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"clusterIP": "x", "ports": [{"port": 80}]}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
                vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
            (
                json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
                vec![
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}),
                vec![
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
                vec![
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(check(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn addresses_do_not_change_once_set() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let new = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}});
        assert_eq!(
            texts(|errors| update(&old, &new, errors)),
            ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
        );
        let unset = json!({"spec": {"type": "ClusterIP"}});
        assert_eq!(
            texts(|errors| update(&old, &unset, errors)),
            ["spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset"]
        );
        let external = json!({"spec": {"type": "ExternalName", "externalName": "a"}});
        assert_eq!(texts(|errors| update(&old, &external, errors)), Vec::<String>::new());
    }
}
