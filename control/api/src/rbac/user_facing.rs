//! The roles for people: `view`, `edit` and `admin`, each made of the roles that carry its label, so that others can add
//! to them.

use serde_json::{Value, json};

use super::bootstrap::{READ, ResourceRule, WRITE, role, rules};

const CORE_VIEWED: &[&str] = &[
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "serviceaccounts",
    "services",
    "services/status",
];
const APPS_VIEWED: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];
const APPS_EDITED: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/rollback",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
];
const CORE_EDITED: &[&str] = &[
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/exec",
    "pods/portforward",
    "pods/proxy",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "secrets",
    "serviceaccounts",
    "services",
    "services/proxy",
];

const VIEW: &[ResourceRule] = &[
    (READ, "", CORE_VIEWED),
    (READ, "discovery.k8s.io", &["endpointslices"]),
    (READ, "apps", APPS_VIEWED),
    (READ, "autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    (READ, "batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    (READ, "networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    (READ, "policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
];
const EDIT: &[ResourceRule] = &[
    (READ, "", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
    (&["impersonate"], "", &["serviceaccounts"]),
    (WRITE, "", CORE_EDITED),
    (&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
    (WRITE, "apps", APPS_EDITED),
    (WRITE, "autoscaling", &["horizontalpodautoscalers"]),
    (WRITE, "batch", &["cronjobs", "jobs"]),
    (WRITE, "networking.k8s.io", &["ingresses", "networkpolicies"]),
    (WRITE, "policy", &["poddisruptionbudgets"]),
    (
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "coordination.k8s.io",
        &["leases"],
    ),
];
const ADMIN: &[ResourceRule] = &[
    (&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
    (
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "rbac.authorization.k8s.io",
        &["rolebindings", "roles"],
    ),
];

pub(super) fn roles() -> Vec<Value> {
    let (view, edit, admin) = (rules(VIEW), rules(EDIT), rules(ADMIN));
    let edit_all = [edit.clone(), view.clone()].concat();
    let admin_all = [admin.clone(), edit_all.clone()].concat();
    vec![
        labelled(role("system:aggregate-to-view", view.clone()), "view"),
        labelled(role("system:aggregate-to-edit", edit), "edit"),
        labelled(role("system:aggregate-to-admin", admin), "admin"),
        labelled(aggregated(role("view", view), "view"), "edit"),
        labelled(aggregated(role("edit", edit_all), "edit"), "admin"),
        aggregated(role("admin", admin_all), "admin"),
    ]
}

fn label(into: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{into}")
}

/// Makes a role part of another.
fn labelled(mut role: Value, into: &str) -> Value {
    crate::meta::set_label(&mut role, &label(into), "true");
    role
}

/// Makes a role of all that carry its label. Its rules are filled in too, for readers that do not aggregate.
fn aggregated(mut role: Value, name: &str) -> Value {
    let labels = json!({label(name): "true"});
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
    role
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta;
    use crate::selector::LabelSelector;

    #[test]
    fn filled_in_rules_are_what_aggregation_gives() {
        let roles = roles();
        let find = |name: &str| roles.iter().find(|role| meta::name(role) == name).expect(name);
        for name in ["view", "edit", "admin"] {
            let target = find(name);
            let selector =
                LabelSelector::from_object(&target["aggregationRule"]["clusterRoleSelectors"][0]).expect("selector");
            let mut gathered: Vec<String> = roles
                .iter()
                .filter(|role| selector.matches(meta::labels(role)))
                .flat_map(|role| role["rules"].as_array().expect("rules").iter().map(ToString::to_string))
                .collect();
            let mut own: Vec<String> =
                target["rules"].as_array().expect("rules").iter().map(ToString::to_string).collect();
            gathered.sort();
            own.sort();
            assert_eq!(own, gathered, "{name}");
        }
    }
}
