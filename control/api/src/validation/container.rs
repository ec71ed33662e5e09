//! Rules for containers: ports, environment, mounts, resources, probes, lifecycle.

use std::collections::BTreeSet;

use serde_json::Value;

use super::errors::{Errors, Path};
use super::volume;
use crate::names;
use crate::value::{entries, int, is_set, items, text};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const STANDARD_RESOURCES: &[&str] = &["cpu", "ephemeral-storage", "memory", "storage"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const RESTART_RULES_MAX: usize = 20;
const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

/// What a list of containers of a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Init,
    Main,
    Ephemeral,
}

/// Checks one list; `names` collects the container names of the whole pod.
pub(crate) fn list<'a>(
    containers: &'a [Value],
    role: Role,
    volumes: &BTreeSet<&str>,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
    errors: &mut Errors,
) {
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let name = text(&container["name"]);
        if name.is_empty() {
            errors.required(&path.at("name"), "");
        } else {
            errors.complaints(&path.at("name"), name, names::dns_label(name));
            if !names.insert(name) {
                errors.duplicate(&path.at("name"), name);
            }
        }
        one(container, volumes, &path, errors);
        if role != Role::Ephemeral {
            restarts(container, &path, errors);
        }
        match role {
            Role::Init => init_only(container, &path, errors),
            Role::Main => probes(container, &path, errors),
            Role::Ephemeral => {}
        }
    }
    host_ports(containers, path, errors);
}

fn one(container: &Value, volumes: &BTreeSet<&str>, path: &Path, errors: &mut Errors) {
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.required(&path.at("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.at("image"), image, "must not have leading or trailing whitespace");
    }
    errors.required_one_of(&path.at("imagePullPolicy"), &container["imagePullPolicy"], PULL_POLICIES);
    errors.required_one_of(
        &path.at("terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &["File", "FallbackToLogsOnError"],
    );
    ports(items(&container["ports"]), &path.at("ports"), errors);
    environment(items(&container["env"]), &path.at("env"), errors);
    environment_from(items(&container["envFrom"]), &path.at("envFrom"), errors);
    volume::mounts(items(&container["volumeMounts"]), volumes, &path.at("volumeMounts"), errors);
    resources(&container["resources"], &path.at("resources"), errors);
    security(&container["securityContext"], &path.at("securityContext"), errors);
}

fn init_only(container: &Value, path: &Path, errors: &mut Errors) {
    if container["restartPolicy"] == "Always" {
        probes(container, path, errors);
        return;
    }
    for field in PROBES.iter().chain(&["lifecycle"]) {
        if is_set(&container[field]) {
            errors.forbidden(&path.at(field), ONLY_SIDECARS);
        }
    }
}

/// A container's own restart policy, and the rules that go before it.
fn restarts(container: &Value, path: &Path, errors: &mut Errors) {
    let policy = &container["restartPolicy"];
    if is_set(policy) {
        errors.one_of(&path.at("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
    let rules = items(&container["restartPolicyRules"]);
    let path = path.at("restartPolicyRules");
    if !rules.is_empty() && !is_set(policy) {
        errors.required(&path, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > RESTART_RULES_MAX {
        errors.invalid(&path, rules.len(), &format!("must have at most {RESTART_RULES_MAX} items"));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        errors.required_one_of(&path.at("action"), &rule["action"], &["Restart"]);
        let (codes, path) = (&rule["exitCodes"], path.at("exitCodes"));
        if is_set(codes) {
            errors.required_one_of(&path.at("operator"), &codes["operator"], &["In", "NotIn"]);
        } else {
            errors.required(&path, "must be specified");
        }
    }
}

fn probes(container: &Value, path: &Path, errors: &mut Errors) {
    for field in PROBES {
        let probe = &container[field];
        if !is_set(probe) {
            continue;
        }
        let path = path.at(field);
        handler(probe, &["exec", "grpc", "httpGet", "tcpSocket"], &path, errors);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            errors.not_negative(&path.at(number), &probe[number]);
        }
        if field != "readinessProbe" && int(&probe["successThreshold"]) != 1 {
            errors.invalid(&path.at("successThreshold"), int(&probe["successThreshold"]), "must be 1");
        }
        let grace = &probe["terminationGracePeriodSeconds"];
        if is_set(grace) {
            if field == "readinessProbe" {
                let path = path.at("terminationGracePeriodSeconds");
                errors.invalid(&path, int(grace), "must not be set for readinessProbes");
            } else if int(grace) <= 0 {
                errors.invalid(&path.at("terminationGracePeriodSeconds"), int(grace), "must be greater than 0");
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        let action = &container["lifecycle"][hook];
        if is_set(action) {
            handler(action, &["exec", "httpGet", "sleep", "tcpSocket"], &path.at("lifecycle").at(hook), errors);
        }
    }
}

fn handler(handler: &Value, kinds: &[&str], path: &Path, errors: &mut Errors) {
    let mut seen = false;
    for kind in kinds.iter().filter(|kind| is_set(&handler[**kind])) {
        let action = &handler[*kind];
        let path = path.at(kind);
        if seen {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        seen = true;
        match *kind {
            "exec" if items(&action["command"]).is_empty() => errors.required(&path.at("command"), ""),
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" => errors.port(&path.at("port"), &action["port"]),
            "grpc" => errors.port_number(&path.at("port"), &action["port"]),
            "sleep" => errors.not_negative(&path.at("seconds"), &action["seconds"]),
            _ => {}
        }
    }
    if !seen {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut Errors) {
    if text(&action["path"]).is_empty() {
        errors.required(&path.at("path"), "");
    }
    errors.port(&path.at("port"), &action["port"]);
    errors.one_of(&path.at("scheme"), &action["scheme"], &["HTTP", "HTTPS"]);
    for (index, header) in items(&action["httpHeaders"]).iter().enumerate() {
        let name = text(&header["name"]);
        errors.complaints(&path.at("httpHeaders").index(index).at("name"), name, names::http_header(name));
    }
}

fn ports(ports: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let complaints = names::port_name(name);
            if complaints.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.at("name"), name);
            }
            errors.complaints(&path.at("name"), name, complaints);
        }
        if int(&port["containerPort"]) == 0 {
            errors.required(&path.at("containerPort"), "");
        } else {
            errors.port_number(&path.at("containerPort"), &port["containerPort"]);
        }
        if int(&port["hostPort"]) != 0 {
            errors.port_number(&path.at("hostPort"), &port["hostPort"]);
        }
        errors.required_one_of(&path.at("protocol"), &port["protocol"], PROTOCOLS);
    }
}

/// No two ports of the pod may claim the same port of the host.
fn host_ports(containers: &[Value], path: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in items(&container["ports"]).iter().enumerate() {
            let number = int(&port["hostPort"]);
            if number == 0 {
                continue;
            }
            let claim = format!("{}/{}/{number}", text(&port["hostIP"]), text(&port["protocol"]));
            if !taken.insert(claim.clone()) {
                errors.duplicate(&path.index(index).at("ports").index(at).at("hostPort"), claim);
            }
        }
    }
}

fn environment(variables: &[Value], path: &Path, errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = text(&variable["name"]);
        if name.is_empty() {
            errors.required(&path.at("name"), "");
        } else {
            errors.complaints(&path.at("name"), name, names::environment_name(name));
        }
        let source = &variable["valueFrom"];
        if is_set(source) {
            value_from(source, !text(&variable["value"]).is_empty(), &path.at("valueFrom"), errors);
        }
    }
}

fn value_from(source: &Value, has_value: bool, path: &Path, errors: &mut Errors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = SOURCES.into_iter().filter(|kind| is_set(&source[*kind])).collect();
    for kind in &given {
        let (reference, path) = (&source[*kind], path.at(kind));
        match *kind {
            "configMapKeyRef" | "secretKeyRef" => {
                for field in ["name", "key"] {
                    if text(&reference[field]).is_empty() {
                        errors.required(&path.at(field), "");
                    }
                }
                let key = text(&reference["key"]);
                if !key.is_empty() {
                    errors.complaints(&path.at("key"), key, names::config_key(key));
                }
            }
            "fieldRef" if text(&reference["fieldPath"]).is_empty() => errors.required(&path.at("fieldPath"), ""),
            "resourceFieldRef" if text(&reference["resource"]).is_empty() => errors.required(&path.at("resource"), ""),
            _ => {}
        }
    }
    if given.is_empty() {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if has_value {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if given.len() > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn environment_from(sources: &[Value], path: &Path, errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let path = path.index(index);
        let prefix = text(&source["prefix"]);
        if !prefix.is_empty() {
            errors.complaints(&path.at("prefix"), prefix, names::environment_name(prefix));
        }
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| is_set(&source[*kind])).collect();
        for kind in &given {
            if text(&source[*kind]["name"]).is_empty() {
                errors.required(&path.at(kind).at("name"), "");
            }
        }
        match given.len() {
            0 => errors.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// Limits and requests of a container or pod.
pub(crate) fn resources(resources: &Value, path: &Path, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        for (name, value) in entries(&resources[list]) {
            let path = path.at(list).key(name);
            resource_name(name, &path, errors);
            if let Some(quantity) = errors.quantity(&path, value)
                && quantity.is_negative()
            {
                errors.invalid(&path, quantity.to_string(), super::errors::NOT_NEGATIVE);
            }
        }
    }
    for (name, request) in entries(&resources["requests"]) {
        let mut unread = Errors::default();
        let limit = &resources["limits"][name];
        let (Some(request), Some(limit)) =
            (unread.quantity(path, request), if is_set(limit) { unread.quantity(path, limit) } else { None })
        else {
            continue;
        };
        if request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&path.at("requests"), request.to_string(), &detail);
        }
    }
}

fn resource_name(name: &str, path: &Path, errors: &mut Errors) {
    errors.complaints(path, name, names::qualified_name(name));
    let standard = STANDARD_RESOURCES.contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

fn security(context: &Value, path: &Path, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        let id = &context[field];
        if is_set(id) && !(0..=i64::from(i32::MAX)).contains(&int(id)) {
            errors.invalid(&path.at(field), int(id), &names::range(0, i64::from(i32::MAX)));
        }
    }
    if context["allowPrivilegeEscalation"] == false && context["privileged"] == true {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, context.clone(), detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn check(container: Value) -> Vec<String> {
        let mut pod = json!({"spec": {"containers": [container]}});
        crate::defaults::pod(&mut pod);
        let containers = items(&pod["spec"]["containers"]).to_vec();
        texts(|errors| {
            list(&containers, Role::Main, &["v"].into(), &mut BTreeSet::new(), &Path::new("c"), errors);
        })
    }

    #[test]
    fn mistakes_in_containers_are_named() {
        let cases = [
            (json!({"name": "a", "image": "i"}), vec![]),
            (json!({}), vec!["c[0].name: Required value", "c[0].image: Required value"]),
            (
                json!({"name": "a", "image": "i", "imagePullPolicy": "x"}),
                vec![
                    "c[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "ports": [{"containerPort": 70000}, {}, {"containerPort": 1, "protocol": "X"}]}),
                vec![
                    "c[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                    "c[0].ports[1].containerPort: Required value",
                    "c[0].ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]}),
                vec!["c[0].ports[1].name: Duplicate value: \"x\""],
            ),
            (
                json!({"name": "a", "image": "i", "ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]}),
                vec!["c[0].ports[1].hostPort: Duplicate value: \"/TCP/8\""],
            ),
            (json!({"name": "a", "image": "i", "env": [{"value": "x"}]}), vec!["c[0].env[0].name: Required value"]),
            (
                json!({"name": "a", "image": "i", "env": [{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
                vec![
                    "c[0].env[0].valueFrom.secretKeyRef.key: Required value",
                    "c[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "volumeMounts": [{"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]}),
                vec![
                    "c[0].volumeMounts[0].name: Not found: \"w\"",
                    "c[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
                vec!["c[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
            ),
            (
                json!({"name": "a", "image": "i", "resources": {"limits": {"memory": "-1Mi", "gpu": "1"}}}),
                vec![
                    "c[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                    "c[0].resources.limits[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0",
                    "c[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                    "c[0].resources.requests[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "livenessProbe": {"successThreshold": 2, "httpGet": {"port": 0}}}),
                vec![
                    "c[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "c[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                json!({"name": "a", "image": "i", "readinessProbe": {}}),
                vec!["c[0].readinessProbe: Required value: must specify a handler type"],
            ),
        ];
        for (container, expected) in cases {
            assert_eq!(check(container.clone()), expected, "{container}");
        }
    }
}
