//! Rules for NetworkPolicies.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::{address, meta};
use crate::value::{int, is_set, items, text};

pub(crate) fn network_policy(policy: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &policy["spec"];
    meta::selector(&spec["podSelector"], &path.at("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[direction]).iter().enumerate() {
            let path = path.at(direction).index(index);
            for (index, port) in items(&rule["ports"]).iter().enumerate() {
                self::port(port, &path.at("ports").index(index), errors);
            }
            for (index, peer) in items(&rule[peers]).iter().enumerate() {
                self::peer(peer, &path.at(peers).index(index), errors);
            }
        }
    }
    let types = items(&spec["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.invalid(&path.at("policyTypes"), types.to_vec(), detail);
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        errors.one_of(&path.at("policyTypes").index(index), kind, &["Egress", "Ingress"]);
    }
}

fn port(port: &Value, path: &Path, errors: &mut Errors) {
    if is_set(&port["protocol"]) {
        errors.one_of(&path.at("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    }
    let (first, last) = (&port["port"], &port["endPort"]);
    if is_set(first) {
        errors.port(&path.at("port"), first);
    }
    if !is_set(last) {
        return;
    }
    let path = path.at("endPort");
    if !is_set(first) {
        errors.invalid(&path, int(last), "must not be specified when `port` is not specified");
    } else if first.is_string() {
        errors.invalid(&path, int(last), "must not be specified when `port` is non-numeric");
    } else {
        if int(last) < int(first) {
            errors.invalid(&path, int(last), "must be greater than or equal to `port`");
        }
        errors.port_number(&path, last);
    }
}

fn peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let selectors: Vec<&str> =
        ["podSelector", "namespaceSelector"].into_iter().filter(|field| is_set(&peer[*field])).collect();
    for field in &selectors {
        meta::selector(&peer[*field], &path.at(field), errors);
    }
    let block = &peer["ipBlock"];
    if is_set(block) {
        ip_block(block, &path.at("ipBlock"), errors);
    }
    if selectors.is_empty() && !is_set(block) {
        errors.required(path, "must specify a peer");
    } else if !selectors.is_empty() && is_set(block) {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Value, path: &Path, errors: &mut Errors) {
    let text_of = text(&block["cidr"]);
    if text_of.is_empty() {
        errors.required(&path.at("cidr"), "");
        return;
    }
    let Some(outer) = address::cidr(text_of, &path.at("cidr"), errors) else { return };
    for (index, except) in items(&block["except"]).iter().enumerate() {
        let path = path.at("except").index(index);
        if let Some(inner) = address::cidr(text(except), &path, errors)
            && !address::strictly_contains(outer, inner)
        {
            errors.invalid(&path, text(except), "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_policies_are_named() {
        let policy = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Sideways"],
            "ingress": [{"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}, "podSelector": {}}],
                "ports": [{"port": 10, "endPort": 5}, {"port": "x", "endPort": 5}, {"port": 70000}]}]}});
        assert_eq!(
            texts(|errors| network_policy(&policy, errors)),
            [
                "spec.ingress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`",
                "spec.ingress[0].ports[1].endPort: Invalid value: 5: must not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[2].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.policyTypes[1]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\"",
            ]
        );
    }
}
