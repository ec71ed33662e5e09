//! Rules for pods and pod templates, and for what an update of a pod may change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::container::{self, Role};
use super::errors::{Errors, Path};
use super::{diff, meta, scheduling, volume};
use crate::names;
use crate::value::{copy, entries, int, is_set, items, items_mut, same, text};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn pod(pod: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    spec(&pod["spec"], &path, errors);
    if !items(&pod["spec"]["ephemeralContainers"]).is_empty() {
        errors.forbidden(&path.at("ephemeralContainers"), "cannot be set on create");
    }
}

/// The template in a workload.
pub(crate) fn template(template: &Value, path: &Path, errors: &mut Errors) {
    meta::template(&template["metadata"], &path.at("metadata"), errors);
    spec(&template["spec"], &path.at("spec"), errors);
}

fn spec(spec: &Value, path: &Path, errors: &mut Errors) {
    let volumes = volume::list(items(&spec["volumes"]), &path.at("volumes"), errors);
    let containers = items(&spec["containers"]);
    if containers.is_empty() {
        errors.required(&path.at("containers"), "");
    }
    let mut names_seen = BTreeSet::new();
    container::list(containers, Role::Main, &volumes, &mut names_seen, &path.at("containers"), errors);
    let init = items(&spec["initContainers"]);
    container::list(init, Role::Init, &volumes, &mut names_seen, &path.at("initContainers"), errors);
    policies(spec, path, errors);
    sysctls(items(&spec["securityContext"]["sysctls"]), &path.at("securityContext").at("sysctls"), errors);
    host_network(spec, path, errors);
    scheduling::spec(spec, path, errors);
    identity(spec, path, errors);
}

fn policies(spec: &Value, path: &Path, errors: &mut Errors) {
    let restart = &["Always", "OnFailure", "Never"];
    errors.required_one_of(&path.at("restartPolicy"), &spec["restartPolicy"], restart);
    let dns = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.required_one_of(&path.at("dnsPolicy"), &spec["dnsPolicy"], dns);
    if spec["dnsPolicy"] == "None" && items(&spec["dnsConfig"]["nameservers"]).is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(&path.at("dnsConfig").at("nameservers"), detail);
    }
    let deadline = &spec["activeDeadlineSeconds"];
    if is_set(deadline) && !(1..=i64::from(i32::MAX)).contains(&int(deadline)) {
        errors.invalid(&path.at("activeDeadlineSeconds"), int(deadline), &names::range(1, i64::from(i32::MAX)));
    }
}

fn sysctls(sysctls: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index).at("name");
        let name = text(&sysctl["name"]);
        if name.is_empty() {
            errors.required(&path, "");
        } else {
            errors.complaints(&path, name, names::sysctl(name));
        }
        if !seen.insert(name.replace('/', ".")) {
            errors.duplicate(&path, name);
        }
    }
}

fn host_network(spec: &Value, path: &Path, errors: &mut Errors) {
    if spec["hostNetwork"] != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(&spec[list]).iter().enumerate() {
            for (at, port) in items(&container["ports"]).iter().enumerate() {
                if port["hostPort"] != port["containerPort"] {
                    let path = path.at(list).index(index).at("ports").index(at).at("hostPort");
                    errors.invalid(
                        &path,
                        int(&port["hostPort"]),
                        "must match `containerPort` when `hostNetwork` is true",
                    );
                }
            }
        }
    }
}

fn identity(spec: &Value, path: &Path, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let names: [(&str, Rule); 6] = [
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ];
    for (field, rule) in names {
        let name = text(&spec[field]);
        if !name.is_empty() {
            errors.complaints(&path.at(field), name, rule(name));
        }
    }
    for (index, alias) in items(&spec["hostAliases"]).iter().enumerate() {
        let path = path.at("hostAliases").index(index);
        if text(&alias["ip"]).parse::<IpAddr>().is_err() {
            errors.invalid(&path.at("ip"), text(&alias["ip"]), super::address::INVALID_IP);
        }
        for hostname in items(&alias["hostnames"]).iter().map(text) {
            errors.complaints(&path.at("hostnames"), hostname, names::dns_subdomain(hostname));
        }
    }
    for (index, gate) in items(&spec["readinessGates"]).iter().enumerate() {
        let name = text(&gate["conditionType"]);
        let path = path.at("readinessGates").index(index).at("conditionType");
        errors.complaints(&path, name, names::qualified_name(name));
    }
    for (name, value) in entries(&spec["overhead"]) {
        errors.quantity(&path.at("overhead").key(name), value);
    }
}

/// What may change in the spec of a pod: images, a deadline that comes closer, more tolerations, fewer gates.
pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (old, new) = (&old["spec"], &new["spec"]);
    for list in ["containers", "initContainers"] {
        if items(&old[list]).len() != items(&new[list]).len() {
            errors.forbidden(&path.at(list), "pod updates may not add or remove containers");
            return;
        }
        for (index, container) in items(&new[list]).iter().enumerate() {
            if text(&container["image"]).is_empty() {
                errors.required(&path.at(list).index(index).at("image"), "");
            }
        }
    }
    deadline(old, new, &path, errors);
    scheduling::update(old, new, &path, errors);
    let allowed = with_allowed_changes(old, new);
    if !same(&allowed, old) {
        let changes = diff::unified(old, &allowed);
        errors.forbidden(&path, &format!("pod updates may not change fields other than {UPDATABLE}\n{changes}"));
    }
}

fn deadline(old: &Value, new: &Value, path: &Path, errors: &mut Errors) {
    let path = path.at("activeDeadlineSeconds");
    let (old, new) = (&old["activeDeadlineSeconds"], &new["activeDeadlineSeconds"]);
    if !is_set(old) {
        return;
    }
    if !is_set(new) {
        errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value");
    } else if int(new) > int(old) {
        errors.invalid(&path, int(new), "must be less than or equal to previous value");
    }
}

/// The new spec with every change undone that is allowed: what still differs is not.
fn with_allowed_changes(old: &Value, new: &Value) -> Value {
    let mut result = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in items_mut(&mut result, list).zip(items(&old[list])) {
            copy(before, container, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(old, &mut result, field);
    }
    if int(&old["terminationGracePeriodSeconds"]) < 0 && int(&new["terminationGracePeriodSeconds"]) == 1 {
        copy(old, &mut result, "terminationGracePeriodSeconds");
    }
    // A gated pod may still be aimed at fewer nodes.
    if !items(&old["schedulingGates"]).is_empty() {
        for field in ["nodeSelector", "affinity"] {
            copy(old, &mut result, field);
        }
    }
    // Set by the API server in its own subresource.
    copy(old, &mut result, "ephemeralContainers");
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn defaulted(spec: Value) -> Value {
        let mut object = json!({"spec": spec});
        crate::defaults::pod(&mut object);
        object
    }

    fn minimal() -> Value {
        defaulted(json!({"containers": [{"name": "c", "image": "i:1"}]}))
    }

    #[test]
    fn a_good_pod_has_no_complaints() {
        assert_eq!(texts(|errors| pod(&minimal(), errors)), Vec::<String>::new());
    }

    #[test]
    fn mistakes_in_pods_are_named() {
        let cases = [
            (json!({}), "spec.containers: Required value"),
            (
                json!({"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Sometimes"}),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "c", "image": "i"}]}),
                "spec.initContainers[0].name: Duplicate value: \"c\"",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}],
                    "securityContext": {"sysctls": [{"name": "foo-", "value": "1"}]}}),
                "spec.securityContext.sysctls[0].name: Invalid value: \"foo-\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i",
                    "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}]}),
                "spec.containers[0].restartPolicyRules: Required value: must specify restartPolicy when restart rules are used",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}], "dnsPolicy": "None"}),
                "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}], "activeDeadlineSeconds": 0}),
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
            (
                json!({"containers": [{"name": "c", "image": "i"}],
                    "initContainers": [{"name": "d", "image": "i", "readinessProbe": {"exec": {"command": ["a"]}}}]}),
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(texts(|errors| pod(&defaulted(spec.clone()), errors)), [expected], "{spec}");
        }
    }

    #[test]
    fn only_a_few_fields_of_a_pod_may_change() {
        let old = minimal();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "i:2".into();
        new["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
        new["spec"]["activeDeadlineSeconds"] = 5.into();
        assert_eq!(texts(|errors| update(&old, &new, errors)), Vec::<String>::new());

        new["spec"]["containers"][0]["command"] = json!(["x"]);
        new["spec"]["hostname"] = "h".into();
        let found = texts(|errors| update(&old, &new, errors));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
            )
        );
        assert!(found[0].contains("\n@@ -") && found[0].contains("\n+ \"hostname\": \"h\","), "{}", found[0]);

        new["spec"]["containers"] = json!([]);
        assert_eq!(
            texts(|errors| update(&old, &new, errors)),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
    }
}
