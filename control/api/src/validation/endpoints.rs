//! Rules for Endpoints and EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::address;
use super::errors::{Errors, Path};
use crate::names;
use crate::value::{is_set, items, text};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const ENDPOINTS_MAX: usize = 1_000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub(crate) fn endpoints(endpoints: &Value, errors: &mut Errors) {
    for (index, subset) in items(&endpoints["subsets"]).iter().enumerate() {
        let path = Path::new("subsets").index(index);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| items(&subset[list]).is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in lists {
            for (index, entry) in items(&subset[list]).iter().enumerate() {
                let path = path.at(list).index(index);
                address::ordinary(text(&entry["ip"]), &path.at("ip"), errors);
                label(&entry["hostname"], &path.at("hostname"), errors);
            }
        }
        let ports = items(&subset["ports"]);
        for (index, port) in ports.iter().enumerate() {
            let path = path.at("ports").index(index);
            let name = text(&port["name"]);
            if name.is_empty() && ports.len() > 1 {
                errors.required(&path.at("name"), "");
            }
            label(&port["name"], &path.at("name"), errors);
            errors.port_number(&path.at("port"), &port["port"]);
            errors.required_one_of(&path.at("protocol"), &port["protocol"], PROTOCOLS);
        }
    }
}

fn label(value: &Value, path: &Path, errors: &mut Errors) {
    let name = text(value);
    if !name.is_empty() {
        errors.complaints(path, name, names::dns_label(name));
    }
}

pub(crate) fn endpoint_slice(slice: &Value, errors: &mut Errors) {
    let kind = text(&slice["addressType"]);
    errors.required_one_of(&Path::new("addressType"), &slice["addressType"], &["FQDN", "IPv4", "IPv6"]);
    let endpoints = items(&slice["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        errors.too_many(&Path::new("endpoints"), endpoints.len(), ENDPOINTS_MAX);
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(endpoint, kind, &Path::new("endpoints").index(index), errors);
    }
    slice_ports(items(&slice["ports"]), errors);
}

fn endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let addresses = items(&endpoint["addresses"]);
    if addresses.is_empty() {
        errors.required(&path.at("addresses"), "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(&path.at("addresses"), addresses.len(), ADDRESSES_MAX);
    }
    for (index, entry) in addresses.iter().map(text).enumerate() {
        let path = path.at("addresses").index(index);
        match kind {
            "IPv4" | "IPv6" => {
                let is_right = match entry.parse::<IpAddr>() {
                    Ok(ip) => ip.is_ipv4() == (kind == "IPv4"),
                    Err(_) => false,
                };
                if is_right {
                    address::ordinary(entry, &path, errors);
                } else {
                    errors.invalid(&path, entry, &format!("must be an {kind} address"));
                }
            }
            "FQDN" => errors.complaints(&path, entry, names::dns_subdomain(entry)),
            _ => {}
        }
    }
    if is_set(&endpoint["nodeName"]) {
        let name = text(&endpoint["nodeName"]);
        errors.complaints(&path.at("nodeName"), name, names::dns_subdomain(name));
    }
    label(&endpoint["hostname"], &path.at("hostname"), errors);
}

fn slice_ports(ports: &[Value], errors: &mut Errors) {
    let path = Path::new("ports");
    if ports.len() > PORTS_MAX {
        errors.too_many(&path, ports.len(), PORTS_MAX);
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port["name"]);
        label(&port["name"], &path.at("name"), errors);
        if !seen.insert(name) {
            errors.duplicate(&path.at("name"), name);
        }
        errors.required_one_of(&path.at("protocol"), &port["protocol"], PROTOCOLS);
        if is_set(&port["port"]) {
            errors.port_number(&path.at("port"), &port["port"]);
        }
    }
}

pub(crate) fn endpoint_slice_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("addressType"), &old["addressType"], &new["addressType"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_slices_are_named() {
        let mut slice = json!({"addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}, {"addresses": []}],
            "ports": [{"port": 80}, {"port": 0}]});
        crate::defaults::endpoint_slice(&mut slice);
        assert_eq!(
            texts(|errors| endpoint_slice(&slice, errors)),
            [
                "endpoints[1].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address",
                "endpoints[2].addresses: Required value: must contain at least 1 address",
                "ports[1].name: Duplicate value: \"\"",
                "ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
        let other = json!({"addressType": "IPv6"});
        assert_eq!(
            texts(|errors| endpoint_slice_update(&slice, &other, errors)),
            ["addressType: Invalid value: \"IPv6\": field is immutable"]
        );
    }

    #[test]
    fn a_subset_of_endpoints_has_addresses() {
        let mut object = json!({"subsets": [{"ports": [{"port": 80}]}, {"addresses": [{"ip": "127.0.0.1"}]}]});
        crate::defaults::endpoints(&mut object);
        assert_eq!(
            texts(|errors| endpoints(&object, errors)),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ]
        );
    }
}
