//! What a node's identity may do: its own Node, Lease and pods, and read what those pods use.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;
use serde_json::Value;

use super::Attributes;

/// Reads and writes that every node may do; admission narrows the writes to the node's own objects.
/// (group, resource, verbs)
const COMMON: &[(&str, &str, &[&str])] = &[
    ("", "nodes", &["create", "get", "list", "watch", "update", "patch"]),
    ("", "nodes/status", &["update", "patch"]),
    ("", "pods", &["get", "list", "watch", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "services", &["get", "list", "watch"]),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("discovery.k8s.io", "endpointslices", &["get", "list", "watch"]),
    ("node.k8s.io", "runtimeclasses", &["get", "list", "watch"]),
];
const LEASE_NAMESPACE: &str = "kube-node-lease";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Used {
    resource: &'static str,
    namespace: String,
    name: String,
}

/// Which secrets, config maps and service accounts the pods of each node use.
#[derive(Debug, Default)]
pub(crate) struct Graph(RwLock<Pods>);

#[derive(Debug, Default)]
struct Pods {
    /// What each scheduled pod uses, by its key in the store.
    by_pod: HashMap<String, (String, HashSet<Used>)>,
    /// How many pods of a node use a thing.
    by_node: HashMap<String, HashMap<Used, usize>>,
}

impl Graph {
    /// Takes note of a pod's newest state.
    pub(crate) fn set(&self, key: &str, pod: &Value) {
        let node = crate::object::text(pod, &["spec", "nodeName"]);
        let mut pods = self.0.write();
        pods.remove(key);
        if node.is_empty() {
            return;
        }
        let used = used_by(pod);
        let counts = pods.by_node.entry(node.to_owned()).or_default();
        for thing in &used {
            *counts.entry(thing.clone()).or_default() += 1;
        }
        pods.by_pod.insert(key.to_owned(), (node.to_owned(), used));
    }

    pub(crate) fn remove(&self, key: &str) {
        self.0.write().remove(key);
    }

    pub(crate) fn clear(&self) {
        *self.0.write() = Pods::default();
    }

    pub(super) fn allows(&self, node: &str, wanted: &Attributes<'_>) -> bool {
        if !wanted.is_resource {
            return false;
        }
        let resource = wanted.qualified();
        if COMMON
            .iter()
            .any(|(group, name, verbs)| *group == wanted.group && *name == resource && verbs.contains(&wanted.verb))
        {
            return true;
        }
        match (wanted.group, resource.as_str(), wanted.verb) {
            ("coordination.k8s.io", "leases", "create") => wanted.namespace == LEASE_NAMESPACE,
            ("coordination.k8s.io", "leases", "get" | "update" | "patch" | "delete") => {
                wanted.namespace == LEASE_NAMESPACE && wanted.name == node
            }
            ("", "secrets", "get" | "list" | "watch") => self.uses(node, "secrets", wanted),
            ("", "configmaps", "get" | "list" | "watch") => self.uses(node, "configmaps", wanted),
            ("", "serviceaccounts", "get") | ("", "serviceaccounts/token", "create") => {
                self.uses(node, "serviceaccounts", wanted)
            }
            _ => false,
        }
    }

    fn uses(&self, node: &str, resource: &'static str, wanted: &Attributes<'_>) -> bool {
        let used = Used { resource, namespace: wanted.namespace.into(), name: wanted.name.into() };
        self.0.read().by_node.get(node).is_some_and(|counts| counts.contains_key(&used))
    }
}

impl Pods {
    fn remove(&mut self, key: &str) {
        let Some((node, used)) = self.by_pod.remove(key) else { return };
        let Some(counts) = self.by_node.get_mut(&node) else { return };
        for thing in used {
            if let Some(count) = counts.get_mut(&thing) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&thing);
                }
            }
        }
        if counts.is_empty() {
            self.by_node.remove(&node);
        }
    }
}

fn used_by(pod: &Value) -> HashSet<Used> {
    let namespace = crate::object::text(pod, &["metadata", "namespace"]);
    let spec = &pod["spec"];
    let mut used = HashSet::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str() {
            used.insert(Used { resource, namespace: namespace.into(), name: name.into() });
        }
    };
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for volume in list(&spec["volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        for source in list(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
    }
    for container in
        ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|field| list(&spec[*field]))
    {
        for source in list(&container["envFrom"]) {
            add("secrets", &source["secretRef"]["name"]);
            add("configmaps", &source["configMapRef"]["name"]);
        }
        for variable in list(&container["env"]) {
            add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
        }
    }
    used
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Graph;
    use crate::authz::Attributes;
    use serde_json::json;

    fn may(graph: &Graph, node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
        let wanted = Attributes { verb, group, resource, subresource, namespace, name, path: "", is_resource: true };
        graph.allows(node, &wanted)
    }

    #[test]
    fn a_node_reads_what_its_pods_use_and_nothing_else() {
        let graph = Graph::default();
        let pod = json!({"metadata": {"namespace": "a"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "sa",
            "volumes": [{"secret": {"secretName": "s1"}}, {"projected": {"sources": [{"configMap": {"name": "c1"}}]}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}]}]}});
        graph.set("pod", &pod);
        graph.set("other", &pod);
        graph.remove("other");
        assert!(may(&graph, "n1", "get", "secrets", "a", "s1"));
        assert!(may(&graph, "n1", "watch", "secrets", "a", "s2"));
        assert!(may(&graph, "n1", "get", "configmaps", "a", "c1"));
        assert!(may(&graph, "n1", "create", "serviceaccounts/token", "a", "sa"));
        assert!(!may(&graph, "n1", "list", "secrets", "a", ""));
        assert!(!may(&graph, "n1", "get", "secrets", "b", "s1"));
        assert!(!may(&graph, "n2", "get", "secrets", "a", "s1"));
        assert!(!may(&graph, "n1", "update", "secrets", "a", "s1"));
        graph.remove("pod");
        assert!(!may(&graph, "n1", "get", "secrets", "a", "s1"));
    }

    #[test]
    fn a_node_has_its_own_lease() {
        let graph = Graph::default();
        assert!(may(&graph, "n1", "update", "leases", "kube-node-lease", "n1"));
        assert!(!may(&graph, "n1", "update", "leases", "kube-node-lease", "n2"));
        assert!(!may(&graph, "n1", "update", "leases", "default", "n1"));
        assert!(may(&graph, "n1", "patch", "nodes/status", "", "n1"));
    }
}
