//! The roles and bindings that every cluster starts with, under upstream's names, and those of Tidegate's own parts.

use serde_json::{Value, json};

use super::{controllers, user_facing};

const GROUP: &str = "rbac.authorization.k8s.io";
const HEALTH_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

pub(super) const READ: &[&str] = &["get", "list", "watch"];
pub(super) const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// A rule as the tables below write it: verbs, group, resources.
pub(super) type ResourceRule = (&'static [&'static str], &'static str, &'static [&'static str]);

/// Every role and binding to make, roles first.
#[must_use]
pub fn bootstrap() -> Vec<Value> {
    let mut roles = basic_roles();
    roles.extend(part_roles());
    roles.extend(user_facing::roles());
    roles.extend(controllers::roles());
    let mut bindings = basic_bindings();
    bindings.extend(controllers::bindings());
    roles.into_iter().chain(bindings).collect()
}

pub(super) fn role(name: &str, rules: Vec<Value>) -> Value {
    json!({
        "kind": "ClusterRole",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": metadata(name),
        "rules": rules,
    })
}

/// A binding of a cluster role of the same name.
pub(super) fn binding(name: &str, subjects: Vec<Value>) -> Value {
    json!({
        "kind": "ClusterRoleBinding",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    })
}

pub(super) fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": GROUP, "name": name})
}

pub(super) fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": GROUP, "name": name})
}

pub(super) fn rules(table: &[ResourceRule]) -> Vec<Value> {
    table
        .iter()
        .map(|(verbs, group, resources)| json!({"verbs": verbs, "apiGroups": [group], "resources": resources}))
        .collect()
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn paths(paths: &[&str]) -> Value {
    json!({"verbs": ["get"], "nonResourceURLs": paths})
}

fn basic_roles() -> Vec<Value> {
    let everything = super::Rule::everything().iter().map(super::Rule::to_json).collect();
    let discovery = [HEALTH_PATHS, &["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]].concat();
    vec![
        role("cluster-admin", everything),
        role("system:discovery", vec![paths(&discovery)]),
        role("system:public-info-viewer", vec![paths(HEALTH_PATHS)]),
        role(
            "system:basic-user",
            rules(&[
                (&["create"], "authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                (&["create"], "authentication.k8s.io", &["selfsubjectreviews"]),
            ]),
        ),
        role(
            "system:auth-delegator",
            rules(&[
                (&["create"], "authentication.k8s.io", &["tokenreviews"]),
                (&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ]),
        ),
        role(
            "system:monitoring",
            vec![paths(&[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ])],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        role(
            "system:kubelet-api-admin",
            rules(&[
                (READ, "", &["nodes"]),
                (&["proxy"], "", &["nodes"]),
                (&["*"], "", &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats"]),
            ]),
        ),
    ]
}

fn basic_bindings() -> Vec<Value> {
    vec![
        binding("cluster-admin", vec![group("system:masters")]),
        binding("system:discovery", vec![group(AUTHENTICATED)]),
        binding("system:public-info-viewer", vec![group(AUTHENTICATED), group(UNAUTHENTICATED)]),
        binding("system:basic-user", vec![group(AUTHENTICATED)]),
        binding("system:monitoring", vec![group("system:monitoring")]),
        binding("system:service-account-issuer-discovery", vec![group("system:serviceaccounts")]),
        binding("system:kube-scheduler", vec![user("system:kube-scheduler")]),
        binding("system:node-proxier", vec![user("system:kube-proxy")]),
        binding("system:tidegate:agent", vec![user("system:tidegate:agent")]),
        binding("system:tidegate:ingress", vec![user("system:tidegate:ingress")]),
        binding("system:tidegate:dns", vec![user("system:tidegate:dns")]),
    ]
}

/// The parts that run beside the API server. `system:node` is bound to nobody: nodes have an authorizer of their own.
fn part_roles() -> Vec<Value> {
    let events: &[&str] = &["create", "patch", "update"];
    vec![
        role(
            "system:node",
            rules(&[
                (&["create"], "authentication.k8s.io", &["tokenreviews"]),
                (&["create"], "authorization.k8s.io", &["localsubjectaccessreviews", "subjectaccessreviews"]),
                (READ, "", &["services"]),
                (&["create", "get", "list", "watch"], "", &["nodes"]),
                (&["patch", "update"], "", &["nodes", "nodes/status"]),
                (events, "", &["events"]),
                (&["create", "delete", "get", "list", "watch"], "", &["pods"]),
                (&["patch", "update"], "", &["pods/status"]),
                (&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
                (READ, "", &["configmaps", "secrets"]),
                (&["get", "create", "delete", "patch", "update"], "coordination.k8s.io", &["leases"]),
            ]),
        ),
        role(
            "system:node-proxier",
            rules(&[
                (READ, "", &["nodes", "services", "endpoints"]),
                (READ, "discovery.k8s.io", &["endpointslices"]),
                (events, "events.k8s.io", &["events"]),
                (events, "", &["events"]),
            ]),
        ),
        role(
            "system:kube-scheduler",
            rules(&[
                (events, "", &["events"]),
                (events, "events.k8s.io", &["events"]),
                (&["create", "get", "list", "watch", "update", "patch"], "coordination.k8s.io", &["leases"]),
                (READ, "", &["nodes", "namespaces", "services", "replicationcontrollers"]),
                (&["delete", "get", "list", "watch"], "", &["pods"]),
                (&["create"], "", &["bindings", "pods/binding"]),
                (&["patch", "update"], "", &["pods/status"]),
                (READ, "apps", &["replicasets", "statefulsets"]),
                (READ, "policy", &["poddisruptionbudgets"]),
                (READ, "scheduling.k8s.io", &["priorityclasses"]),
            ]),
        ),
        role(
            "system:tidegate:agent",
            rules(&[
                (READ, "", &["namespaces", "nodes", "pods", "services"]),
                (READ, "discovery.k8s.io", &["endpointslices"]),
                (READ, "networking.k8s.io", &["networkpolicies"]),
                (&["create", "patch"], "events.k8s.io", &["events"]),
            ]),
        ),
        role(
            "system:tidegate:ingress",
            rules(&[
                (READ, "networking.k8s.io", &["ingressclasses", "ingresses"]),
                (READ, "", &["secrets", "services"]),
                (READ, "discovery.k8s.io", &["endpointslices"]),
                (&["patch", "update"], "networking.k8s.io", &["ingresses/status"]),
                (&["create", "patch"], "", &["events"]),
                (&["create", "patch"], "events.k8s.io", &["events"]),
            ]),
        ),
        role(
            "system:tidegate:dns",
            rules(&[(READ, "", &["namespaces", "services"]), (READ, "discovery.k8s.io", &["endpointslices"])]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::meta;
    use crate::rbac::{Request, Rule};
    use crate::registry::Registry;
    use crate::validation::validate_create;

    fn allows(role: &str, request: &Request<'_>) -> bool {
        let all = bootstrap();
        let found = all.iter().find(|object| meta::kind(object) == "ClusterRole" && meta::name(object) == role);
        Rule::list(found.expect(role)).iter().any(|rule| rule.allows(request))
    }

    fn resource<'a>(verb: &'a str, group: &'a str, resource: &'a str) -> Request<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Request::Resource { verb, group, resource, subresource, name: "x" }
    }

    #[test]
    fn every_object_is_valid_unique_and_every_binding_has_its_role() {
        let registry = Registry::builtin();
        let mut roles = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for object in bootstrap() {
            let kind = registry.by_kind(meta::api_version(&object), meta::kind(&object)).expect("kind");
            assert_eq!(validate_create(kind, &object), [], "{}", meta::name(&object));
            assert!(seen.insert((meta::kind(&object).to_owned(), meta::name(&object).to_owned())), "{object}");
            if meta::kind(&object) == "ClusterRole" {
                roles.insert(meta::name(&object).to_owned());
            } else {
                assert!(roles.contains(object["roleRef"]["name"].as_str().expect("role")), "{object}");
            }
        }
    }

    #[test]
    fn parts_may_do_their_work_and_no_more() {
        let cases = [
            ("system:tidegate:agent", resource("watch", "discovery.k8s.io", "endpointslices"), true),
            ("system:tidegate:agent", resource("get", "", "secrets"), false),
            ("system:tidegate:agent", resource("update", "", "services"), false),
            ("system:tidegate:agent", resource("create", "events.k8s.io", "events"), true),
            ("system:tidegate:ingress", resource("list", "", "secrets"), true),
            ("system:tidegate:ingress", resource("update", "networking.k8s.io", "ingresses/status"), true),
            ("system:tidegate:ingress", resource("update", "networking.k8s.io", "ingresses"), false),
            ("system:tidegate:ingress", resource("create", "", "events"), true),
            ("system:tidegate:dns", resource("list", "", "services"), true),
            ("system:tidegate:dns", resource("list", "", "pods"), false),
            ("system:kube-scheduler", resource("create", "", "pods/binding"), true),
            ("view", resource("get", "", "pods/log"), true),
            ("view", resource("get", "", "secrets"), false),
            ("view", resource("delete", "", "pods"), false),
            ("edit", resource("create", "apps", "deployments"), true),
            ("edit", resource("get", "", "secrets"), true),
            ("edit", resource("create", "rbac.authorization.k8s.io", "roles"), false),
            ("admin", resource("create", "rbac.authorization.k8s.io", "roles"), true),
            ("admin", resource("get", "", "pods/log"), true),
            ("admin", resource("get", "", "nodes"), false),
            ("cluster-admin", resource("anything", "x.y", "z"), true),
            ("system:public-info-viewer", Request::Path { verb: "get", path: "/version" }, true),
            ("system:public-info-viewer", Request::Path { verb: "get", path: "/api" }, false),
            ("system:discovery", Request::Path { verb: "get", path: "/apis/apps/v1" }, true),
        ];
        for (role, request, allowed) in cases {
            assert_eq!(allows(role, &request), allowed, "{role} {request:?}");
        }
    }
}
