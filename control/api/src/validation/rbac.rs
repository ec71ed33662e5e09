//! Rules for roles and role bindings.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::meta;
use crate::names;
use crate::value::{items, same, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn role(role: &Value, errors: &mut Errors) {
    rules(role, true, errors);
}

pub(crate) fn cluster_role(role: &Value, errors: &mut Errors) {
    rules(role, false, errors);
    let path = Path::new("aggregationRule").at("clusterRoleSelectors");
    let selectors = &role["aggregationRule"]["clusterRoleSelectors"];
    if role["aggregationRule"].is_object() && items(selectors).is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in items(selectors).iter().enumerate() {
        meta::selector(selector, &path.index(index), errors);
    }
}

fn rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    for (index, rule) in items(&role["rules"]).iter().enumerate() {
        self::rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
}

fn rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let is_empty = |field: &str| items(&rule[field]).is_empty();
    if is_empty("verbs") {
        errors.required(&path.at("verbs"), "verbs must contain at least one value");
    }
    if !is_empty("nonResourceURLs") {
        let path = path.at("nonResourceURLs");
        let urls = rule["nonResourceURLs"].clone();
        if namespaced {
            errors.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if !["apiGroups", "resources", "resourceNames"].into_iter().all(is_empty) {
            errors.invalid(&path, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if is_empty("apiGroups") {
        errors.required(&path.at("apiGroups"), "resource rules must supply at least one api group");
    }
    if is_empty("resources") {
        errors.required(&path.at("resources"), "resource rules must supply at least one resource");
    }
}

pub(crate) fn role_binding(binding: &Value, errors: &mut Errors) {
    self::binding(binding, &["ClusterRole", "Role"], errors);
}

pub(crate) fn cluster_role_binding(binding: &Value, errors: &mut Errors) {
    self::binding(binding, &["ClusterRole"], errors);
}

fn binding(binding: &Value, kinds: &[&str], errors: &mut Errors) {
    let reference = &binding["roleRef"];
    let path = Path::new("roleRef");
    errors.one_of(&path.at("apiGroup"), &reference["apiGroup"], &[GROUP]);
    errors.one_of(&path.at("kind"), &reference["kind"], kinds);
    let name = text(&reference["name"]);
    if name.is_empty() {
        errors.required(&path.at("name"), "");
    } else {
        errors.complaints(&path.at("name"), name, names::path_segment(name, false));
    }
    for (index, subject) in items(&binding["subjects"]).iter().enumerate() {
        self::subject(subject, kinds.len() > 1, &Path::new("subjects").index(index), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let name = text(&subject["name"]);
    if name.is_empty() {
        errors.required(&path.at("name"), "");
    }
    let group = subject["apiGroup"].as_str().unwrap_or("");
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.complaints(&path.at("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.at("apiGroup"), group, &[""]);
            }
            if !namespaced && text(&subject["namespace"]).is_empty() {
                errors.required(&path.at("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.at("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.at("kind"), other, &["Group", "ServiceAccount", "User"]),
    }
}

pub(crate) fn binding_update(old: &Value, new: &Value, errors: &mut Errors) {
    if !same(&old["roleRef"], &new["roleRef"]) {
        errors.invalid(&Path::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_rules_are_named() {
        let object = json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/a"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(
            texts(|errors| role(&object, errors)),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
    }

    #[test]
    fn mistakes_in_bindings_are_named() {
        let mut object = json!({"roleRef": {"kind": "Role", "name": ""},
            "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Robot", "name": "r"}]});
        crate::defaults::role_binding(&mut object);
        assert_eq!(
            texts(|errors| cluster_role_binding(&object, errors)),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Required value",
                "subjects[0].namespace: Required value",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ]
        );
        let new = json!({"roleRef": {"kind": "ClusterRole", "name": "x"}});
        assert_eq!(texts(|errors| binding_update(&object, &new, errors)).len(), 1);
    }
}
