//! The Gateway API's own definitions at work: its rules written in CEL refuse what its types alone would let through.
//! The definitions are not part of this repository.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::TestServer;

const GROUP: &str = "gateway.networking.k8s.io";

/// The files of a folder of the shared data, in order; none, and said so, where there are none.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/gateway-api").join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no Gateway API definitions, {} is absent", folder.display());
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let mut files: Vec<_> = yaml
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").map(|part| serde_saphyr::from_str::<Value>(part).unwrap_or_default());
    parts.filter(Value::is_object).collect()
}

/// A server with the definitions of a channel; `None` where they are absent.
async fn with_channel(channel: &str) -> Option<TestServer> {
    let files = files(&format!("crd/{channel}"));
    if files.is_empty() {
        return None;
    }
    let server = TestServer::start().await;
    let mut count = 0;
    for (name, text) in files {
        for document in documents(&text).into_iter().filter(|one| one["kind"] == "CustomResourceDefinition") {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let answer = server.admin.post(path, document).await;
            assert_eq!(answer.code, 201, "{name}: {:.2000}", answer.body["message"]);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} definitions");
    Some(server)
}

async fn create(server: &TestServer, group: &str, version: &str, kind: &str, name: &str, spec: Value) -> (u16, String) {
    let plural = if kind.ends_with('s') || kind.ends_with("sh") {
        format!("{}es", kind.to_lowercase())
    } else if kind.ends_with('y') {
        format!("{}s", kind.to_lowercase()).replace("policys", "policies").replace("gatewaies", "gateways")
    } else {
        format!("{}s", kind.to_lowercase())
    };
    let scope = if matches!(kind, "GatewayClass" | "XMesh") { "" } else { "namespaces/default/" };
    let path = format!("/apis/{group}/{version}/{scope}{plural}");
    let object =
        json!({"apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec});
    let answer = server.admin.post(&path, object).await;
    (answer.code.as_u16(), answer.body["message"].as_str().unwrap_or_default().to_owned())
}

fn route(rule: Value) -> Value {
    json!({"parentRefs": [{"name": "gw"}], "rules": [rule]})
}

fn listeners(listeners: Value) -> Value {
    json!({"gatewayClassName": "c", "listeners": listeners})
}

/// Kind, spec, and where and why it is refused; of parents, the experimental channel words it otherwise.
fn refused() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let path = |kind: &str, value: &str| route(json!({"matches": [{"path": {"type": kind, "value": value}}]}));
    let filters = |filters: Value| route(json!({"filters": filters}));
    let header =
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    let parents = |refs: Value| json!({"parentRefs": refs});
    let at = "spec.rules[0].matches[0].path";
    let filter = "spec.rules[0].filters[0]";
    vec![
        (
            "HTTPRoute",
            path("Exact", "a"),
            at,
            "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
        ),
        (
            "HTTPRoute",
            path("PathPrefix", "/a//b"),
            at,
            "must not contain '//' when type one of ['Exact', 'PathPrefix']",
        ),
        ("HTTPRoute", path("Exact", "/a/../b"), at, "must not contain '/../' when type one of ['Exact', 'PathPrefix']"),
        ("HTTPRoute", path("Exact", "/a%2Fb"), at, "must not contain '%2F' when type one of ['Exact', 'PathPrefix']"),
        ("HTTPRoute", path("Exact", "/a/.."), at, "must not end with '/..' when type one of ['Exact', 'PathPrefix']"),
        (
            "HTTPRoute",
            path("Exact", "/a b"),
            at,
            "must only contain valid characters (matching ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']",
        ),
        (
            "HTTPRoute",
            filters(json!([header, header])),
            "spec.rules[0].filters",
            "RequestHeaderModifier filter cannot be repeated",
        ),
        (
            "HTTPRoute",
            filters(json!([{"type": "RequestHeaderModifier"}])),
            filter,
            "filter.requestHeaderModifier must be specified for RequestHeaderModifier filter.type",
        ),
        (
            "HTTPRoute",
            filters(json!([{"type": "URLRewrite", "urlRewrite": {"hostname": "x.example"}, "requestRedirect": {}}])),
            filter,
            "filter.requestRedirect must be nil if the filter.type is not RequestRedirect",
        ),
        (
            "HTTPRoute",
            filters(json!([redirect, {"type": "URLRewrite", "urlRewrite": {"hostname": "x.example"}}])),
            "spec.rules[0].filters",
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
        ),
        (
            "HTTPRoute",
            route(json!({"filters": [redirect], "backendRefs": [{"name": "s", "port": 80}]})),
            "spec.rules[0]",
            "RequestRedirect filter must not be used together with backendRefs",
        ),
        (
            "HTTPRoute",
            route(json!({"backendRefs": [{"name": "s"}]})),
            "spec.rules[0].backendRefs[0]",
            "Must have port for Service reference",
        ),
        (
            "HTTPRoute",
            filters(
                json!([{"type": "RequestRedirect", "requestRedirect": {"path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/x"}}}]),
            ),
            "spec.rules[0].filters[0].requestRedirect.path",
            "replaceFullPath must be specified when type is set to 'ReplaceFullPath'",
        ),
        (
            "HTTPRoute",
            route(
                json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}}]}),
            ),
            "spec.rules[0]",
            "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        ),
        (
            "HTTPRoute",
            filters(
                json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}, "percent": 5, "fraction": {"numerator": 1}}}]),
            ),
            "spec.rules[0].filters[0].requestMirror",
            "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
        ),
        (
            "HTTPRoute",
            filters(
                json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}, "fraction": {"numerator": 5, "denominator": 2}}}]),
            ),
            "spec.rules[0].filters[0].requestMirror.fraction",
            "numerator must be less than or equal to denominator",
        ),
        (
            "HTTPRoute",
            route(json!({"timeouts": {"request": "1s", "backendRequest": "1m"}})),
            "spec.rules[0].timeouts",
            "backendRequest timeout cannot be longer than request timeout",
        ),
        (
            "HTTPRoute",
            filters(json!([{"type": "CORS", "cors": {"allowMethods": ["*", "GET"]}}])),
            "spec.rules[0].filters[0].cors.allowMethods",
            "AllowMethods cannot contain '*' alongside other methods",
        ),
        ("HTTPRoute", parents(json!([{"name": "gw"}, {"name": "gw"}])), "spec.parentRefs", "sectionName"),
        (
            "HTTPRoute",
            parents(json!([{"name": "gw"}, {"name": "gw", "sectionName": "a"}])),
            "spec.parentRefs",
            "sectionName",
        ),
        (
            "HTTPRoute",
            json!({"rules": (0..3).map(|_| json!({"matches": (0..60).map(|at| json!({"path": {"value": format!("/{at}")}})).collect::<Vec<_>>()})).collect::<Vec<_>>()}),
            "spec.rules",
            "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128",
        ),
        (
            "Gateway",
            listeners(
                json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "a", "port": 81, "protocol": "HTTP"}]),
            ),
            "spec.listeners",
            "Listener name must be unique within the Gateway",
        ),
        (
            "Gateway",
            listeners(
                json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 80, "protocol": "HTTP"}]),
            ),
            "spec.listeners",
            "Combination of port, protocol and hostname must be unique for each listener",
        ),
        (
            "Gateway",
            listeners(json!([{"name": "a", "port": 80, "protocol": "HTTP", "tls": {"options": {"a/b": "c"}}}])),
            "spec.listeners",
            "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
        ),
        (
            "Gateway",
            listeners(json!([{"name": "a", "port": 443, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}}])),
            "spec.listeners",
            "tls mode must be Terminate for protocol HTTPS",
        ),
        (
            "Gateway",
            listeners(json!([{"name": "a", "port": 80, "protocol": "TCP", "hostname": "a.example"}])),
            "spec.listeners",
            "hostname must not be specified for protocols ['TCP', 'UDP']",
        ),
        (
            "Gateway",
            json!({"gatewayClassName": "c", "addresses": [{"type": "Hostname", "value": "bad_name"}], "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
            "spec.addresses[0]",
            "Hostname value must be empty or contain only valid characters",
        ),
        (
            "Gateway",
            json!({"gatewayClassName": "c", "addresses": [{"value": "10.0.0.1"}, {"value": "10.0.0.1"}], "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
            "spec.addresses",
            "IPAddress values must be unique",
        ),
        (
            "Gateway",
            json!({"gatewayClassName": "c", "infrastructure": {"labels": {"-bad": "x"}}, "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
            "spec.infrastructure.labels",
            "Label keys must be in the form of an optional DNS subdomain prefix",
        ),
        (
            "GRPCRoute",
            route(json!({"matches": [{"method": {"type": "Exact", "service": "a b"}}]})),
            "spec.rules[0].matches[0].method",
            "service must only contain valid characters",
        ),
        (
            "GRPCRoute",
            route(json!({"matches": [{"method": {"type": "Exact"}}]})),
            "spec.rules[0].matches[0].method",
            "One or both of 'service' or 'method' must be specified",
        ),
        (
            "TLSRoute",
            json!({"hostnames": ["10.0.0.1"], "rules": [{"backendRefs": [{"name": "s", "port": 443}]}]}),
            "spec.hostnames",
            "Hostnames cannot contain an IP",
        ),
        (
            "TLSRoute",
            json!({"hostnames": ["a.*.example"], "rules": [{"backendRefs": [{"name": "s", "port": 443}]}]}),
            "spec.hostnames",
            "Wildcards on hostnames must be the first label",
        ),
        (
            "BackendTLSPolicy",
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "validation": {"hostname": "a.example"}}),
            "spec.validation",
            "must specify either CACertificateRefs or WellKnownCACertificates",
        ),
        (
            "BackendTLSPolicy",
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "validation": {"hostname": "a.example", "wellKnownCACertificates": "System", "subjectAltNames": [{"type": "URI", "hostname": "a.example"}]}}),
            "spec.validation.subjectAltNames[0]",
            "SubjectAltName element must not contain Hostname, if Type is not set to Hostname",
        ),
        (
            "ListenerSet",
            json!({"parentRef": {"name": "gw"}, "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "a", "port": 81, "protocol": "HTTP"}]}),
            "spec.listeners",
            "Listener name must be unique within the Gateway",
        ),
        (
            "UDPRoute",
            json!({"rules": [{"backendRefs": [{"name": "s"}]}]}),
            "spec.rules[0].backendRefs[0]",
            "Must have port for Service reference",
        ),
    ]
}

/// One good object of each kind.
fn good() -> Vec<(&'static str, Value)> {
    let backend = json!([{"name": "s", "port": 80}]);
    vec![
        ("GatewayClass", json!({"controllerName": "example.com/gateway"})),
        (
            "Gateway",
            listeners(
                json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}}]),
            ),
        ),
        (
            "HTTPRoute",
            route(
                json!({"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}], "backendRefs": backend, "timeouts": {"request": "10s", "backendRequest": "1s"}}),
            ),
        ),
        (
            "GRPCRoute",
            route(json!({"matches": [{"method": {"service": "a.B", "method": "C"}}], "backendRefs": backend})),
        ),
        ("TLSRoute", json!({"hostnames": ["*.example"], "rules": [{"backendRefs": [{"name": "s", "port": 443}]}]})),
        ("TCPRoute", json!({"rules": [{"backendRefs": backend}]})),
        ("UDPRoute", json!({"rules": [{"backendRefs": backend}]})),
        (
            "ReferenceGrant",
            json!({"from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "a"}], "to": [{"group": "", "kind": "Service"}]}),
        ),
        (
            "BackendTLSPolicy",
            json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "validation": {"hostname": "a.example", "wellKnownCACertificates": "System"}}),
        ),
        (
            "ListenerSet",
            json!({"parentRef": {"name": "gw"}, "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
        ),
    ]
}

#[tokio::test]
async fn every_kind_of_both_channels_is_served_and_its_rules_hold() {
    for channel in ["standard", "experimental"] {
        let Some(server) = with_channel(channel).await else { return };
        for (kind, spec) in good() {
            let (code, message) = create(&server, GROUP, "v1", kind, "good", spec).await;
            assert_eq!(code, 201, "{channel} {kind}: {message}");
        }
        for (kind, spec, path, why) in refused() {
            let (code, message) = create(&server, GROUP, "v1", kind, "bad", spec.clone()).await;
            assert_eq!(code, 422, "{channel} {kind} {spec}: {message}");
            let wanted = [
                format!("{path}: Invalid value: \"object\": {why}"),
                format!("{path}: Invalid value: \"array\": {why}"),
            ];
            assert!(
                wanted.iter().any(|wanted| message.contains(wanted)),
                "{channel} {kind}: {message}\nwanted {}",
                wanted[0]
            );
        }
        let path = format!("/apis/{GROUP}/v1/gatewayclasses/good");
        let message =
            server.admin.merge(&path, json!({"spec": {"controllerName": "example.com/other"}})).await.message(422);
        let why = "spec.controllerName: Invalid value: \"string\": Value is immutable";
        assert_eq!(message, format!("GatewayClass.{GROUP} \"good\" is invalid: {why}"));
        server.admin.merge(&path, json!({"spec": {"description": "mutable"}})).await.expect(200);
    }
}

#[tokio::test]
async fn experimental_kinds_are_served_and_their_rules_hold() {
    let Some(server) = with_channel("experimental").await else { return };
    let group = "gateway.networking.x-k8s.io";
    let backend = |hostname: &str, port: &str| {
        json!({"type": "ExternalHostname", "externalHostname": {"hostname": hostname},
        "port": {"name": port, "port": 443}, "protocol": "TCP"})
    };
    let target = json!([{"group": "", "kind": "Service", "name": "s"}]);
    let cookie = |kind: &str| json!({"targetRefs": target, "sessionPersistence": {"type": kind, "cookieConfig": {"lifetimeType": "Permanent"}}});
    let budget = |interval: &str| json!({"targetRefs": target, "retryConstraint": {"budget": {"percent": 20, "interval": interval}, "minRetryRate": {"count": 10, "interval": "1s"}}});
    for (kind, spec, why) in [
        ("XMesh", json!({"controllerName": "example.com/mesh"}), ""),
        ("XBackendTrafficPolicy", budget("10s"), ""),
        ("XBackendTrafficPolicy", budget("2h"), "interval cannot be greater than one hour or less than one second"),
        (
            "XBackendTrafficPolicy",
            cookie("Cookie"),
            "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
        ),
        ("XBackendTrafficPolicy", cookie("Header"), "cookieConfig can only be set with type Cookie"),
        ("XBackend", backend("a.example", "web"), ""),
        ("XBackend", backend("a.example", "Not_A_Label"), "Name must be a valid DNS label"),
        (
            "XBackend",
            backend("a.cluster.local", "web"),
            "hostname must not be an IP address or end with .cluster.local",
        ),
    ] {
        let name = if why.is_empty() { "good" } else { "bad" };
        let (code, message) = create(&server, group, "v1alpha1", kind, name, spec).await;
        assert_eq!(code, if why.is_empty() { 201 } else { 422 }, "{kind}: {message}");
        assert!(message.contains(why), "{kind}: {message}\nwanted {why}");
    }
}

/// What upstream's own conformance tests create must be accepted.
#[tokio::test]
async fn the_manifests_of_the_conformance_tests_are_accepted() {
    let Some(server) = with_channel("experimental").await else { return };
    let mut created = 0;
    for (file, text) in files("conformance-manifests") {
        for object in
            documents(&text.replace("{GATEWAY_CLASS_NAME}", "c").replace("{GATEWAY_CONTROLLER_NAME}", "example.com/c"))
        {
            let (Some(api_version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
                continue;
            };
            // Addresses that its runner fills in.
            if !api_version.starts_with(GROUP) || object.to_string().contains("PLACEHOLDER") {
                continue;
            }
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            // It is there from the second object on.
            server.admin.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
            let plural = if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") };
            let plural = plural.replace("Policys", "Policies").to_lowercase();
            let scope = if kind == "GatewayClass" { String::new() } else { format!("namespaces/{namespace}/") };
            let answer = server.admin.post(&format!("/apis/{api_version}/{scope}{plural}"), object.clone()).await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            assert!(
                matches!(answer.code.as_u16(), 201 | 409),
                "{file} {kind} {}: {message}",
                object["metadata"]["name"]
            );
            created += 1;
        }
    }
    assert!(created > 100, "{created} objects");
}
