//! Objects for the scripted API server.

use std::net::IpAddr;

use base64::Engine;
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::backend::Backend;

pub(crate) const NAMESPACE: &str = "shop";

/// The class of the gateway under test.
pub(crate) fn class(api: &ApiServer) {
    api.apply(
        "ingressclasses",
        json!({"metadata": {"name": "tidegate"}, "spec": {"controller": "tidegate.dev/ingress"}}),
    );
}

/// A Service `name` with the port 80, named `http`.
pub(crate) fn service(api: &ApiServer, name: &str) {
    api.apply(
        "services",
        json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
        }),
    );
}

/// The EndpointSlice of a Service; all endpoints have the same port.
pub(crate) fn slice<'a>(api: &ApiServer, service: &str, backends: impl IntoIterator<Item = &'a Backend>) {
    let backends: Vec<_> = backends.into_iter().collect();
    let port = backends.first().map_or(1, |backend| backend.address.port());
    let endpoints: Vec<_> = backends.iter().map(|backend| (backend.ip(), json!({"ready": true}))).collect();
    slice_with(api, service, port, &endpoints);
}

/// The EndpointSlice of a Service: addresses on one port, each with its conditions.
pub(crate) fn slice_with(api: &ApiServer, service: &str, port: u16, endpoints: &[(IpAddr, Value)]) {
    let endpoints: Vec<_> =
        endpoints.iter().map(|(ip, conditions)| json!({"addresses": [ip], "conditions": conditions})).collect();
    api.apply(
        "endpointslices",
        json!({
            "metadata": {"name": format!("{service}-1"), "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        }),
    );
}

/// A Service with endpoints.
pub(crate) fn served<'a>(api: &ApiServer, name: &str, backends: impl IntoIterator<Item = &'a Backend>) {
    service(api, name);
    slice(api, name, backends);
}

pub(crate) fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"name": "http"}}})
}

/// A rule: host, path type, path, Service.
pub(crate) fn rule(host: &str, kind: &str, path: &str, service: &str) -> Value {
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend(service)}]}})
}

pub(crate) fn ingress(api: &ApiServer, name: &str, spec: Value) {
    let mut spec = spec;
    spec.as_object_mut().unwrap().entry("ingressClassName").or_insert("tidegate".into());
    api.apply("ingresses", json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}));
}

/// A TLS Secret with a fresh certificate; returns that in DER.
pub(crate) fn certificate(api: &ApiServer, name: &str, host: &str) -> Vec<u8> {
    let pair = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    secret(api, name, "kubernetes.io/tls", &pair.cert.pem(), &pair.signing_key.serialize_pem());
    pair.cert.der().to_vec()
}

pub(crate) fn secret(api: &ApiServer, name: &str, kind: &str, certificate: &str, key: &str) {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    api.apply(
        "secrets",
        json!({
            "metadata": {"name": name, "namespace": NAMESPACE}, "type": kind,
            "data": {"tls.crt": encode(certificate), "tls.key": encode(key)},
        }),
    );
}
