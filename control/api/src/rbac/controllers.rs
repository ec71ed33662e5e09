//! One role per controller, as upstream has them. Upstream runs each controller under a service account of its own; the
//! bundled controllers share one identity, which is bound to all of these roles.

use serde_json::{Value, json};

use super::bootstrap::{READ, ResourceRule, binding, role, rules, user};

const IDENTITY: &str = "system:kube-controller-manager";
const EVENTS: ResourceRule = (&["create", "patch", "update"], "", &["events"]);
const NEW_EVENTS: ResourceRule = (&["create", "patch", "update"], "events.k8s.io", &["events"]);
const EDIT_PODS: ResourceRule = (&["create", "delete", "get", "list", "patch", "update", "watch"], "", &["pods"]);

/// The controllers, each with what it needs beyond events.
const CONTROLLERS: &[(&str, &[ResourceRule])] = &[
    (
        "deployment-controller",
        &[
            (&["get", "list", "update", "watch"], "apps", &["deployments"]),
            (&["update"], "apps", &["deployments/finalizers", "deployments/status"]),
            (&["create", "delete", "get", "list", "patch", "update", "watch"], "apps", &["replicasets"]),
            (&["get", "list", "update", "watch"], "", &["pods"]),
        ],
    ),
    (
        "replicaset-controller",
        &[
            (&["get", "list", "update", "watch"], "apps", &["replicasets"]),
            (&["update"], "apps", &["replicasets/finalizers", "replicasets/status"]),
            EDIT_PODS,
        ],
    ),
    (
        "replication-controller",
        &[
            (&["get", "list", "update", "watch"], "", &["replicationcontrollers"]),
            (&["update"], "", &["replicationcontrollers/finalizers", "replicationcontrollers/status"]),
            EDIT_PODS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            (READ, "apps", &["daemonsets"]),
            (&["update"], "apps", &["daemonsets/finalizers", "daemonsets/status"]),
            (&["create", "delete", "get", "list", "patch", "update", "watch"], "apps", &["controllerrevisions"]),
            (READ, "", &["nodes"]),
            EDIT_PODS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            (READ, "apps", &["statefulsets"]),
            (&["update"], "apps", &["statefulsets/finalizers", "statefulsets/status"]),
            (&["create", "delete", "get", "list", "patch", "update", "watch"], "apps", &["controllerrevisions"]),
            EDIT_PODS,
        ],
    ),
    (
        "job-controller",
        &[
            (&["get", "list", "patch", "update", "watch"], "batch", &["jobs"]),
            (&["update"], "batch", &["jobs/finalizers", "jobs/status"]),
            EDIT_PODS,
        ],
    ),
    (
        "cronjob-controller",
        &[
            (&["get", "list", "update", "watch"], "batch", &["cronjobs"]),
            (&["update"], "batch", &["cronjobs/finalizers", "cronjobs/status"]),
            (&["create", "delete", "get", "list", "patch", "update", "watch"], "batch", &["jobs"]),
        ],
    ),
    ("ttl-after-finished-controller", &[(&["delete", "get", "list", "watch"], "batch", &["jobs"])]),
    (
        "disruption-controller",
        &[
            (READ, "apps", &["deployments", "replicasets", "statefulsets"]),
            (READ, "policy", &["poddisruptionbudgets"]),
            (&["update"], "policy", &["poddisruptionbudgets/status"]),
            (READ, "", &["pods"]),
            (&["get"], "*", &["*/scale"]),
        ],
    ),
    ("resourcequota-controller", &[(&["list", "watch"], "*", &["*"]), (&["update"], "", &["resourcequotas/status"])]),
    (
        "pod-garbage-collector",
        &[
            (&["delete", "get", "list", "watch"], "", &["pods"]),
            (&["patch"], "", &["pods/status"]),
            (READ, "", &["nodes"]),
        ],
    ),
    (
        "endpoint-controller",
        &[
            (READ, "", &["pods", "services"]),
            (&["create", "delete", "get", "list", "update", "watch"], "", &["endpoints"]),
            (&["create"], "", &["endpoints/restricted"]),
        ],
    ),
    (
        "endpointslice-controller",
        &[
            (READ, "", &["nodes", "pods", "services"]),
            (&["update"], "", &["services/finalizers"]),
            (&["create", "delete", "get", "list", "update", "watch"], "discovery.k8s.io", &["endpointslices"]),
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            (READ, "", &["endpoints", "services"]),
            (&["update"], "", &["endpoints/finalizers", "services/finalizers"]),
            (&["create", "delete", "get", "list", "update", "watch"], "discovery.k8s.io", &["endpointslices"]),
        ],
    ),
    (
        "namespace-controller",
        &[
            (&["delete", "get", "list", "watch"], "", &["namespaces"]),
            (&["update"], "", &["namespaces/finalize", "namespaces/status"]),
            (&["delete", "deletecollection", "get", "list"], "*", &["*"]),
        ],
    ),
    ("generic-garbage-collector", &[(&["delete", "get", "list", "patch", "update", "watch"], "*", &["*"])]),
    (
        "service-account-controller",
        &[(&["create", "get", "list", "watch"], "", &["serviceaccounts"]), (READ, "", &["namespaces"])],
    ),
    (
        "root-ca-cert-publisher",
        &[(&["create", "get", "list", "update", "watch"], "", &["configmaps"]), (READ, "", &["namespaces"])],
    ),
    (
        "node-controller",
        &[
            (&["delete", "get", "list", "patch", "update", "watch"], "", &["nodes"]),
            (&["patch", "update"], "", &["nodes/status", "pods/status"]),
            (&["delete", "get", "list", "watch"], "", &["pods"]),
            (READ, "coordination.k8s.io", &["leases"]),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[(&["escalate", "get", "list", "patch", "update", "watch"], "rbac.authorization.k8s.io", &["clusterroles"])],
    ),
];

/// What the runner of the controllers needs for itself: its lease.
const RUNNER: &[ResourceRule] = &[
    (&["create", "get", "list", "patch", "update", "watch"], "coordination.k8s.io", &["leases"]),
    (READ, "*", &["*"]),
    (&["create"], "authentication.k8s.io", &["tokenreviews"]),
    (&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
    EVENTS,
    NEW_EVENTS,
];

pub(super) fn roles() -> Vec<Value> {
    let runner = role(IDENTITY, rules(RUNNER));
    let controllers = CONTROLLERS.iter().map(|(name, table)| {
        let table: Vec<ResourceRule> = table.iter().copied().chain([EVENTS, NEW_EVENTS]).collect();
        role(&format!("system:controller:{name}"), rules(&table))
    });
    std::iter::once(runner).chain(controllers).collect()
}

pub(super) fn bindings() -> Vec<Value> {
    let runner = binding(IDENTITY, vec![user(IDENTITY)]);
    let controllers = CONTROLLERS.iter().map(|(name, _)| {
        let account = json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"});
        binding(&format!("system:controller:{name}"), vec![account, user(IDENTITY)])
    });
    std::iter::once(runner).chain(controllers).collect()
}
