//! RBAC: roles and bindings compiled into rules per subject.

use std::collections::HashMap;
use std::sync::Arc;

use control_api::rbac::Rule;
use serde_json::Value;

use super::Attributes;
use crate::authn::User;

/// One binding as it applies to a subject.
#[derive(Debug, Clone)]
struct Grant {
    /// Empty for the whole cluster.
    namespace: Arc<str>,
    rules: Arc<Vec<Rule>>,
    /// Named in reviews.
    binding: Arc<str>,
}

/// Everything that RBAC grants.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    /// By namespace (empty for cluster roles) and name.
    roles: HashMap<(String, String), Arc<Vec<Rule>>>,
}

/// The objects that a policy is made from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) cluster_roles: Vec<Value>,
    pub(crate) roles: Vec<Value>,
    pub(crate) cluster_role_bindings: Vec<Value>,
    pub(crate) role_bindings: Vec<Value>,
}

impl Policy {
    pub(crate) fn compile(sources: &Sources) -> Self {
        let text = |value: &Value, path: &[&str]| crate::object::text(value, path).to_owned();
        let mut roles: HashMap<(String, String), Arc<Vec<Rule>>> = HashMap::new();
        for role in &sources.cluster_roles {
            roles.insert((String::new(), text(role, &["metadata", "name"])), cluster_rules(role, sources));
        }
        for role in &sources.roles {
            let namespace = text(role, &["metadata", "namespace"]);
            roles.insert((namespace, text(role, &["metadata", "name"])), Arc::new(Rule::list(role)));
        }
        let mut policy = Self::default();
        for binding in sources.cluster_role_bindings.iter().chain(&sources.role_bindings) {
            let namespace = text(binding, &["metadata", "namespace"]);
            let role = &binding["roleRef"];
            let home = if role["kind"] == "Role" { namespace.clone() } else { String::new() };
            // A binding to a role that does not exist grants nothing.
            let Some(rules) = roles.get(&(home, text(role, &["name"]))) else { continue };
            let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
            let full_name = match namespace.as_str() {
                "" => text(binding, &["metadata", "name"]),
                namespace => format!("{}/{namespace}", text(binding, &["metadata", "name"])),
            };
            let role_kind = role["kind"].as_str().unwrap_or_default();
            let described = format!("{kind} \"{full_name}\" of {role_kind} \"{}\"", text(role, &["name"]));
            let grant =
                Grant { namespace: namespace.as_str().into(), rules: Arc::clone(rules), binding: described.into() };
            for subject in binding["subjects"].as_array().map(Vec::as_slice).unwrap_or_default() {
                policy.add(subject, &namespace, &grant);
            }
        }
        policy.roles = roles;
        policy
    }

    /// What a role grants, aggregation included.
    pub(super) fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn add(&mut self, subject: &Value, binding_namespace: &str, grant: &Grant) {
        let name = subject["name"].as_str().unwrap_or_default();
        let described = |kind: &str, who: &str| Grant {
            binding: format!("{} to {kind} \"{who}\"", grant.binding).into(),
            ..grant.clone()
        };
        match subject["kind"].as_str() {
            Some("User") => self.users.entry(name.into()).or_default().push(described("User", name)),
            Some("Group") => self.groups.entry(name.into()).or_default().push(described("Group", name)),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().filter(|namespace| !namespace.is_empty());
                let namespace = namespace.unwrap_or(binding_namespace);
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let grant = described("ServiceAccount", &format!("{name}/{namespace}"));
                self.users.entry(user).or_default().push(grant);
            }
            _ => {}
        }
    }

    fn grants<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(by_group).flatten()
    }

    /// The binding that allows this.
    pub(super) fn granting(&self, user: &User, wanted: &Attributes<'_>) -> Option<Arc<str>> {
        let in_place = |grant: &&Grant| {
            grant.namespace.is_empty() || (wanted.is_resource && *grant.namespace == *wanted.namespace)
        };
        let request = wanted.request();
        let mut grants = self.grants(user).filter(in_place);
        grants
            .find(|grant| grant.rules.iter().any(|rule| rule.allows(&request)))
            .map(|grant| Arc::clone(&grant.binding))
    }

    pub(super) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let grants = self.grants(user).filter(|grant| grant.namespace.is_empty() || *grant.namespace == *namespace);
        let mut rules: Vec<Rule> = Vec::new();
        for rule in grants.flat_map(|grant| grant.rules.iter()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        rules
    }
}

/// The rules of a cluster role: its own, or those of all roles that its aggregation selects.
fn cluster_rules(role: &Value, sources: &Sources) -> Arc<Vec<Rule>> {
    let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else {
        return Arc::new(Rule::list(role));
    };
    let selectors: Vec<_> = selectors
        .iter()
        .filter_map(|selector| control_api::selector::LabelSelector::from_object(selector).ok())
        .collect();
    let selected = sources.cluster_roles.iter().filter(|other| {
        let labels = control_api::meta::labels(other);
        selectors.iter().any(|selector| selector.matches(labels))
    });
    // A role that aggregates itself has no rules of its own to add.
    Arc::new(selected.flat_map(Rule::list).collect())
}

#[cfg(test)]
mod tests {
    use super::{Policy, Sources};
    use crate::authn::User;
    use crate::authz::Attributes;
    use serde_json::json;

    fn policy() -> Policy {
        let role = |name: &str, namespace: &str, rules| json!({"metadata": {"name": name, "namespace": namespace, "labels": {"part": "yes"}}, "rules": rules});
        Policy::compile(&Sources {
            cluster_roles: vec![
                role(
                    "view",
                    "",
                    json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]),
                ),
                role("paths", "", json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/apis/*"]}])),
                json!({"metadata": {"name": "all-parts"},
                    "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}}),
            ],
            roles: vec![role(
                "one",
                "a",
                json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale", "secrets"], "resourceNames": ["x"]}]),
            )],
            cluster_role_bindings: vec![
                json!({"metadata": {"name": "b1"}, "roleRef": {"kind": "ClusterRole", "name": "paths"},
                    "subjects": [{"kind": "Group", "name": "all"}]}),
                json!({"metadata": {"name": "b2"}, "roleRef": {"kind": "ClusterRole", "name": "all-parts"},
                    "subjects": [{"kind": "User", "name": "boss"}]}),
                json!({"metadata": {"name": "b3"}, "roleRef": {"kind": "ClusterRole", "name": "missing"},
                    "subjects": [{"kind": "User", "name": "eve"}]}),
            ],
            role_bindings: vec![
                json!({"metadata": {"name": "b4", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
                    "subjects": [{"kind": "ServiceAccount", "name": "robot"}]}),
                json!({"metadata": {"name": "b5", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"},
                    "subjects": [{"kind": "User", "name": "ann"}]}),
            ],
        })
    }

    #[test]
    fn grants_exactly_what_the_rules_say() {
        let policy = policy();
        // user, verb, group, resource, subresource, namespace, name
        let cases = [
            (true, "system:serviceaccount:a:robot", "list", "", "pods", "", "a", ""),
            (true, "system:serviceaccount:a:robot", "get", "", "pods", "log", "a", "p"),
            (false, "system:serviceaccount:a:robot", "get", "", "pods", "exec", "a", "p"),
            (false, "system:serviceaccount:a:robot", "list", "", "pods", "", "b", ""),
            (false, "system:serviceaccount:a:robot", "list", "", "pods", "", "", ""),
            (false, "system:serviceaccount:a:robot", "list", "apps", "pods", "", "a", ""),
            (false, "system:serviceaccount:b:robot", "list", "", "pods", "", "a", ""),
            (true, "ann", "patch", "apps", "deployments", "scale", "a", "x"),
            (true, "ann", "get", "", "secrets", "", "a", "x"),
            (false, "ann", "get", "", "secrets", "", "a", "y"),
            (false, "ann", "list", "", "secrets", "", "a", ""),
            (true, "boss", "get", "", "pods", "", "anywhere", "p"),
            (false, "eve", "get", "", "pods", "", "a", "p"),
        ];
        for (expected, name, verb, group, resource, subresource, namespace, object) in cases {
            let user = User { name: name.into(), groups: vec!["all".into()], ..User::default() };
            let wanted =
                Attributes { verb, group, resource, subresource, namespace, name: object, path: "", is_resource: true };
            assert_eq!(policy.granting(&user, &wanted).is_some(), expected, "{name} {wanted:?}");
        }
    }

    #[test]
    fn paths_are_granted_apart_from_resources() {
        let policy = policy();
        let user = User { name: "x".into(), groups: vec!["all".into()], ..User::default() };
        for (path, expected) in [("/api", true), ("/apis/apps", true), ("/metrics", false), ("/api/v1", false)] {
            let wanted = Attributes {
                verb: "get",
                group: "",
                resource: "",
                subresource: "",
                namespace: "",
                name: "",
                path,
                is_resource: false,
            };
            assert_eq!(policy.granting(&user, &wanted).is_some(), expected, "{path}");
        }
    }
}
