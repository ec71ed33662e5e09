//! Which addresses offer which ports: addresses that offer the same ones share a subset.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};

use crate::endpoint_slice::{Port, address, families, hostname, target, target_port};
use crate::meta;

/// Addresses of one Endpoints object: more would make it too large for all that watch it.
const ADDRESSES_MAX: usize = 1000;

/// An address and the uid of what has it.
type Host = (String, String);

/// The hosts that offer a port, and whether they are ready.
type Offered = BTreeMap<Host, bool>;

pub(super) fn of(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<Host, EndpointAddress> = BTreeMap::new();
    let mut offers: BTreeMap<Option<Port>, Offered> = BTreeMap::new();
    for pod in pods {
        let Some(address) = endpoint_address(service, pod) else { continue };
        let host = (address.ip.clone(), meta::uid(&**pod));
        let is_ready = publishes_all(service) || meta::ready_since(pod).is_some();
        for port in ports(service, pod) {
            // Of two claims to one host's port the better one counts.
            *offers.entry(port).or_default().entry(host.clone()).or_default() |= is_ready;
        }
        addresses.insert(host, address);
    }
    let mut groups: BTreeMap<Offered, Vec<Port>> = BTreeMap::new();
    for (port, offered) in offers {
        groups.entry(offered).or_default().extend(port);
    }
    groups.into_iter().map(|(offered, ports)| subset(&addresses, &offered, ports)).collect()
}

/// Cuts the addresses down to as many as one object may hold, in each subset alike and the ready ones last. Whether it had
/// to.
pub(super) fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let unready: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    if ready + unready <= ADDRESSES_MAX {
        return false;
    }
    let cuts_ready = ready > ADDRESSES_MAX;
    let (total, room) = if cuts_ready { (ready, ADDRESSES_MAX) } else { (unready, ADDRESSES_MAX - ready) };
    let mut left = room;
    for subset in subsets {
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cuts_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (count(list) * room).div_ceil(total).min(left);
        if let Some(addresses) = list {
            addresses.truncate(share);
            left -= addresses.len();
        }
        list.take_if(|list| list.is_empty());
    }
    true
}

fn subset(addresses: &BTreeMap<Host, EndpointAddress>, offered: &Offered, ports: Vec<Port>) -> EndpointSubset {
    let of = |wanted: bool| {
        let hosts = offered.iter().filter(|(_, ready)| **ready == wanted);
        Some(hosts.filter_map(|(host, _)| addresses.get(host).cloned()).collect())
            .filter(|list: &Vec<_>| !list.is_empty())
    };
    let ports = ports.into_iter().map(|(name, protocol, port, app_protocol)| EndpointPort {
        name: Some(name).filter(|name| !name.is_empty()),
        port: port.unwrap_or_default(),
        protocol: Some(protocol),
        app_protocol,
    });
    EndpointSubset {
        addresses: of(true),
        not_ready_addresses: of(false),
        ports: Some(ports.collect()).filter(|list: &Vec<_>| !list.is_empty()),
    }
}

/// The ports that a pod offers; a headless Service without ports has addresses alone.
fn ports(service: &Service, pod: &Pod) -> Vec<Option<Port>> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    if ports.is_empty() && meta::is_headless(service) {
        return vec![None];
    }
    let resolved = ports.iter().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let number = target_port(port, pod)?;
        Some(Some((port.name.clone().unwrap_or_default(), protocol, Some(number), port.app_protocol.clone())))
    });
    resolved.collect()
}

/// A pod's address for the Service's first family; none of a pod that has ended, is going or has no address yet.
fn endpoint_address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    if meta::is_terminal(pod) || (meta::is_deleting(pod) && !publishes_all(service)) {
        return None;
    }
    let family = families(service).into_iter().next()?;
    Some(EndpointAddress {
        ip: address(pod.status.as_ref()?, &family)?.to_owned(),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref()?.node_name.clone(),
        target_ref: Some(target(pod)),
    })
}

fn publishes_all(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{of, truncate};
    use k8s_openapi::api::core::v1::{EndpointSubset, Pod, Service};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap()
    }

    /// A ready pod whose port `http` is the one given.
    fn pod(index: u8, http: i32, change: impl Fn(&mut Value)) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": format!("p{index}"), "namespace": "n", "uid": format!("u{index}")},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": http}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{index}"),
                "podIPs": [{"ip": format!("10.0.0.{index}")}, {"ip": format!("fd00::{index}")}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn unready(pod: &mut Value) {
        pod["status"]["conditions"][0]["status"] = "False".into();
    }

    #[test]
    fn addresses_with_the_same_ports_share_a_subset() {
        let two_ports = service(json!({"ports": [{"name": "a", "port": 80, "targetPort": 8080},
            {"name": "b", "port": 81, "targetPort": 8081, "protocol": "UDP", "appProtocol": "dns"}]}));
        let pods = [pod(1, 80, |_| {}), pod(2, 80, unready)];
        let target =
            |index| json!({"kind": "Pod", "namespace": "n", "name": format!("p{index}"), "uid": format!("u{index}")});
        let address = |index| json!({"ip": format!("10.0.0.{index}"), "nodeName": "node", "targetRef": target(index)});
        assert_eq!(
            json!(of(&two_ports, &pods)),
            json!([{"addresses": [address(1)], "notReadyAddresses": [address(2)], "ports": [
                {"name": "a", "port": 8080, "protocol": "TCP"},
                {"name": "b", "port": 8081, "protocol": "UDP", "appProtocol": "dns"}]}])
        );
        let named = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let subsets = json!(of(&named, &[pod(1, 80, |_| {}), pod(2, 81, |_| {}), pod(3, 80, |_| {})]));
        assert_eq!(subsets[0]["addresses"], json!([address(1), address(3)]));
        assert_eq!(subsets[1]["ports"], json!([{"port": 81, "protocol": "TCP"}]));
    }

    #[test]
    fn who_is_in_it() {
        let plain = json!({"ports": [{"port": 80}]});
        let ended = |pod: &mut Value| pod["status"]["phase"] = "Succeeded".into();
        let going = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let new = |pod: &mut Value| pod["status"] = json!({"phase": "Pending"});
        let pods = [pod(1, 80, ended), pod(2, 80, going), pod(3, 80, new), pod(4, 80, unready)];
        let subsets = of(&service(plain.clone()), &pods);
        assert_eq!(json!(subsets)[0]["notReadyAddresses"].as_array().unwrap().len(), 1);
        assert!(subsets[0].addresses.is_none());
        let mut all = plain;
        all["publishNotReadyAddresses"] = true.into();
        let subsets = json!(of(&service(all), &pods));
        assert_eq!(subsets[0]["addresses"].as_array().unwrap().len(), 2);
        let v6 = service(json!({"ports": [{"port": 80}], "ipFamilies": ["IPv6", "IPv4"]}));
        assert_eq!(json!(of(&v6, &pods))[0]["notReadyAddresses"][0]["ip"], "fd00::4");
    }

    #[test]
    fn a_headless_service_needs_no_ports_and_gives_hostnames() {
        let headless = service(json!({"clusterIP": "None"}));
        let named = |pod: &mut Value| {
            pod["spec"]["hostname"] = "h".into();
            pod["spec"]["subdomain"] = "web".into();
        };
        let subsets = json!(of(&headless, &[pod(1, 80, named)]));
        assert_eq!((&subsets[0]["addresses"][0]["hostname"], &subsets[0]["ports"]), (&json!("h"), &Value::Null));
        assert!(of(&service(json!({"clusterIP": "10.96.0.7"})), &[pod(1, 80, named)]).is_empty());
    }

    #[test]
    fn cutting_spares_the_ready() {
        let subset = |ready: usize, unready: usize| -> EndpointSubset {
            let list =
                |count: usize| (0..count).map(|index| json!({"ip": format!("10.0.0.{index}")})).collect::<Vec<_>>();
            serde_json::from_value(json!({"addresses": list(ready), "notReadyAddresses": list(unready)})).unwrap()
        };
        let sizes = |subsets: &[EndpointSubset]| -> Vec<(usize, usize)> {
            let size = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
            subsets.iter().map(|one| (size(&one.addresses), size(&one.not_ready_addresses))).collect()
        };
        let mut fits = [subset(999, 1)];
        assert!(!truncate(&mut fits));
        let mut unready = [subset(500, 400), subset(100, 200)];
        assert!(truncate(&mut unready));
        assert_eq!(sizes(&unready), [(500, 267), (100, 133)]);
        let mut ready = [subset(1500, 10), subset(501, 10)];
        assert!(truncate(&mut ready));
        assert_eq!(sizes(&ready), [(750, 0), (250, 0)]);
    }
}
