//! Rules for Ingresses and IngressClasses.

use std::net::IpAddr;

use serde_json::Value;

use super::errors::{Errors, Path};
use crate::names;
use crate::value::{int, is_set, items, text};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const CONTROLLER_BYTES_MAX: usize = 250;

pub(crate) fn ingress(ingress: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &ingress["spec"];
    let rules = items(&spec["rules"]);
    if rules.is_empty() && !is_set(&spec["defaultBackend"]) {
        errors.invalid(&path, spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
    }
    for (index, rule) in rules.iter().enumerate() {
        self::rule(rule, &path.at("rules").index(index), errors);
    }
    if is_set(&spec["defaultBackend"]) {
        backend(&spec["defaultBackend"], &path.at("defaultBackend"), errors);
    }
    for (index, tls) in items(&spec["tls"]).iter().enumerate() {
        let path = path.at("tls").index(index);
        for (index, host) in items(&tls["hosts"]).iter().enumerate() {
            host_name(text(host), &path.at("hosts").index(index), errors);
        }
        let secret = text(&tls["secretName"]);
        if !secret.is_empty() {
            errors.complaints(&path.at("secretName"), secret, names::dns_subdomain(secret));
        }
    }
    if is_set(&spec["ingressClassName"]) {
        let name = text(&spec["ingressClassName"]);
        errors.complaints(&path.at("ingressClassName"), name, names::dns_subdomain(name));
    }
}

fn host_name(host: &str, path: &Path, errors: &mut Errors) {
    let complaints = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns_subdomain(host) };
    errors.complaints(path, host, complaints);
}

fn rule(rule: &Value, path: &Path, errors: &mut Errors) {
    let host = text(&rule["host"]);
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(&path.at("host"), host, "must be a DNS name, not an IP address");
    } else if !host.is_empty() {
        host_name(host, &path.at("host"), errors);
    }
    if !is_set(&rule["http"]) {
        return;
    }
    let path = path.at("http").at("paths");
    let paths = items(&rule["http"]["paths"]);
    if paths.is_empty() {
        errors.required(&path, "");
    }
    for (index, entry) in paths.iter().enumerate() {
        let path = path.index(index);
        http_path(entry, &path, errors);
        backend(&entry["backend"], &path.at("backend"), errors);
    }
}

fn http_path(entry: &Value, path: &Path, errors: &mut Errors) {
    let kind = text(&entry["pathType"]);
    if kind.is_empty() {
        errors.required(&path.at("pathType"), "pathType must be specified");
        return;
    }
    let (location, path_here) = (text(&entry["path"]), path.at("path"));
    match kind {
        "Exact" | "Prefix" => {
            if !location.starts_with('/') {
                errors.invalid(&path_here, location, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if location.contains(sequence) {
                    errors.invalid(&path_here, location, &format!("must not contain '{sequence}'"));
                }
            }
            for suffix in ["/..", "/."] {
                if location.ends_with(suffix) {
                    errors.invalid(&path_here, location, &format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !location.is_empty() && !location.starts_with('/') {
                errors.invalid(&path_here, location, "must be an absolute path");
            }
        }
        _ => errors.not_supported(&path.at("pathType"), kind, PATH_TYPES),
    }
}

fn backend(backend: &Value, path: &Path, errors: &mut Errors) {
    match (is_set(&backend["resource"]), is_set(&backend["service"])) {
        (true, true) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (false, false) => errors.invalid(path, "", "resource or service backend is required"),
        (true, false) => {
            for field in ["kind", "name"] {
                if text(&backend["resource"][field]).is_empty() {
                    errors.required(&path.at("resource").at(field), "");
                }
            }
        }
        (false, true) => service_backend(&backend["service"], path, errors),
    }
}

fn service_backend(service: &Value, path: &Path, errors: &mut Errors) {
    let at = path.at("service");
    let name = text(&service["name"]);
    if name.is_empty() {
        errors.required(&at.at("name"), "");
    } else {
        errors.complaints(&at.at("name"), name, names::dns_label_1035(name));
    }
    let (port_name, port_number) = (text(&service["port"]["name"]), int(&service["port"]["number"]));
    match (port_name.is_empty(), port_number == 0) {
        (false, false) => errors.invalid(path, "", "cannot set both port name & port number"),
        (true, true) => errors.required(path, "port name or number is required"),
        (false, true) => {
            errors.complaints(&at.at("port").at("name"), port_name, names::port_name(port_name));
        }
        (true, false) => errors.port_number(&at.at("port").at("number"), &service["port"]["number"]),
    }
}

pub(crate) fn class(class: &Value, errors: &mut Errors) {
    let path = Path::new("spec").at("controller");
    let controller = text(&class["spec"]["controller"]);
    if controller.is_empty() {
        errors.required(&path, "");
    } else if controller.len() > CONTROLLER_BYTES_MAX {
        errors.too_long(&path, CONTROLLER_BYTES_MAX);
    } else {
        match controller.split_once('/') {
            Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
                errors.complaints(&path, host, names::dns_subdomain(host));
            }
            _ => errors.invalid(&path, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
    }
    let parameters = &class["spec"]["parameters"];
    if is_set(parameters) {
        let path = Path::new("spec").at("parameters");
        for field in ["kind", "name"] {
            if text(&parameters[field]).is_empty() {
                errors.required(&path.at(field), "");
            }
        }
        errors.one_of(&path.at("scope"), &parameters["scope"], &["Cluster", "Namespace"]);
    }
}

pub(crate) fn class_update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec").at("controller");
    errors.immutable(&path, &old["spec"]["controller"], &new["spec"]["controller"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn with_path(entry: Value) -> Vec<String> {
        texts(|errors| ingress(&json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [entry]}}]}}), errors))
    }

    #[test]
    fn mistakes_in_paths_and_backends_are_named() {
        let good = json!({"service": {"name": "web", "port": {"number": 80}}});
        let p = "spec.rules[0].http.paths[0]";
        let cases = [
            (json!({"path": "/", "pathType": "Prefix", "backend": good}), vec![]),
            (json!({"pathType": "ImplementationSpecific", "backend": good}), vec![]),
            (
                json!({"path": "/", "backend": good}),
                vec![format!("{p}.pathType: Required value: pathType must be specified")],
            ),
            (
                json!({"path": "a", "pathType": "Exact", "backend": good}),
                vec![format!("{p}.path: Invalid value: \"a\": must be an absolute path")],
            ),
            (
                json!({"path": "/a//b", "pathType": "Exact", "backend": good}),
                vec![format!("{p}.path: Invalid value: \"/a//b\": must not contain '//'")],
            ),
            (
                json!({"path": "/", "pathType": "X", "backend": good}),
                vec![format!(
                    "{p}.pathType: Unsupported value: \"X\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                )],
            ),
            (
                json!({"path": "/", "pathType": "Exact", "backend": {}}),
                vec![format!("{p}.backend: Invalid value: \"\": resource or service backend is required")],
            ),
            (
                json!({"path": "/", "pathType": "Exact", "backend": {"service": {}}}),
                vec![
                    format!("{p}.backend.service.name: Required value"),
                    format!("{p}.backend: Required value: port name or number is required"),
                ],
            ),
        ];
        for (entry, expected) in cases {
            assert_eq!(with_path(entry.clone()), expected, "{entry}");
        }
    }

    #[test]
    fn hosts_and_emptiness_are_checked() {
        assert_eq!(
            texts(|errors| ingress(&json!({"spec": {}}), errors)),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        let found = texts(|errors| {
            ingress(&json!({"spec": {"rules": [{"host": "10.0.0.1"}, {"host": "*.a.b"}, {"host": "a*.b"}]}}), errors);
        });
        assert_eq!(found[0], "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address");
        assert!(found[1].starts_with("spec.rules[2].host: Invalid value: \"a*.b\": a wildcard DNS-1123 subdomain"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_class_names_a_controller() {
        let check = |controller: &str| texts(|errors| class(&json!({"spec": {"controller": controller}}), errors));
        assert_eq!(check("tidegate.dev/ingress"), Vec::<String>::new());
        assert_eq!(check(""), ["spec.controller: Required value"]);
        assert_eq!(
            check("nope"),
            ["spec.controller: Invalid value: \"nope\": must be a domain-prefixed path (such as \"acme.io/foo\")"]
        );
    }
}
