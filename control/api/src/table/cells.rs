//! The cells of rows: how the fields of each kind become what a person reads.

use jiff::Timestamp;
use serde_json::Value;

pub(super) use super::batch::{cron_job, job};
use super::duration::since;
use crate::meta;
use crate::registry::split_api_version;
use crate::selector::LabelSelector;
use crate::value::{entries, int, is_set, is_zero, items, text};

const LISTED_MAX: usize = 3;

pub(super) fn name(object: &Value) -> Value {
    meta::name(object).into()
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

fn or(value: &str, substitute: &str) -> String {
    if value.is_empty() { substitute.to_owned() } else { value.to_owned() }
}

/// Names and images of the containers of a workload.
pub(super) fn template(workload: &Value) -> (String, String) {
    let containers = items(&workload["spec"]["template"]["spec"]["containers"]);
    let join = |field: &str| containers.iter().map(|container| text(&container[field])).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

pub(super) fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (status, (containers, images)) = (&set["status"], template(set));
    let mut cells = vec![name(set)];
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    cells.extend(counts.iter().map(|count| Value::from(int(&status[count]))));
    cells.extend([
        labels(&set["spec"]["template"]["spec"]["nodeSelector"]).into(),
        age(set, now),
        containers.into(),
        images.into(),
        selector(&set["spec"]["selector"]).into(),
    ]);
    cells
}

/// Limits stand apart from all the rest.
pub(super) fn resource_quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = &quota["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in entries(&status["hard"]) {
        let used = status["used"][name].as_str().unwrap_or("0");
        let list = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{name}: {used}/{}", text(hard)));
    }
    requests.sort();
    limits.sort();
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}

pub(super) fn disruption_budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |value: &Value| match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    let spec = &budget["spec"];
    vec![
        name(budget),
        amount(&spec["minAvailable"]).into(),
        amount(&spec["maxUnavailable"]).into(),
        int(&budget["status"]["disruptionsAllowed"]).into(),
        age(budget, now),
    ]
}

/// A label selector object; `<none>` if it requires nothing.
pub(super) fn selector(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Ok(selector) => or(&selector.to_string(), "<none>"),
        Err(_) => "<error>".to_owned(),
    }
}

/// A map of labels; `<none>` if it is empty.
pub(super) fn labels(map: &Value) -> String {
    let list: Vec<String> = entries(map).map(|(key, value)| format!("{key}={}", text(value))).collect();
    or(&list.join(","), "<none>")
}

fn with_more(list: &[String], count: usize) -> String {
    if count > LISTED_MAX {
        format!("{} + {} more...", list[..LISTED_MAX].join(","), count - LISTED_MAX)
    } else {
        list.join(",")
    }
}

pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(&node["status"]["conditions"]).iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = items(&node["status"]["addresses"]).iter().find(|address| address["type"] == kind);
        found.map_or("<none>", |address| text(&address["address"])).to_owned()
    };
    let info = |field: &str| or(text(&node["status"]["nodeInfo"][field]), "<unknown>");
    vec![
        name(node),
        status.into(),
        or(&roles(node).join(","), "<none>").into(),
        age(node, now),
        text(&node["status"]["nodeInfo"]["kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn roles(node: &Value) -> Vec<String> {
    let mut roles: Vec<String> = entries(&node["metadata"]["labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(text(value)),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .map(str::to_owned)
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

pub(super) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = if is_zero(&event["firstTimestamp"]) { &event["eventTime"] } else { &event["firstTimestamp"] };
    let first = since(first, now);
    let series = &event["series"];
    let (last, count) = if is_set(series) {
        (since(&series["lastObservedTime"], now), int(&series["count"]))
    } else if is_zero(&event["lastTimestamp"]) {
        (first.clone(), int(&event["count"]).max(1))
    } else {
        (since(&event["lastTimestamp"], now), int(&event["count"]).max(1))
    };
    let involved = &event["involvedObject"];
    let kind = text(&involved["kind"]).to_lowercase();
    let object = match text(&involved["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let first_of = |a: &Value, b: &Value| or(text(a), text(b));
    let component = first_of(&event["source"]["component"], &event["reportingComponent"]);
    let instance = first_of(&event["source"]["host"], &event["reportingInstance"]);
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        last.into(),
        text(&event["type"]).into(),
        text(&event["reason"]).into(),
        object.into(),
        text(&involved["fieldPath"]).into(),
        source.into(),
        text(&event["message"]).trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let ip = items(&spec["clusterIPs"]).first().map_or_else(|| text(&spec["clusterIP"]), text);
    let ports: Vec<String> = items(&spec["ports"])
        .iter()
        .map(|port| match int(&port["nodePort"]) {
            0 => format!("{}/{}", int(&port["port"]), text(&port["protocol"])),
            node_port => format!("{}:{node_port}/{}", int(&port["port"]), text(&port["protocol"])),
        })
        .collect();
    vec![
        name(service),
        text(&spec["type"]).into(),
        or(ip, "<none>").into(),
        external_addresses(service).into(),
        or(&ports.join(","), "<none>").into(),
        age(service, now),
        labels(&spec["selector"]).into(),
    ]
}

fn external_addresses(service: &Value) -> String {
    let fixed: Vec<String> = items(&service["spec"]["externalIPs"]).iter().map(|ip| text(ip).to_owned()).collect();
    match text(&service["spec"]["type"]) {
        "ClusterIP" | "NodePort" => or(&fixed.join(","), "<none>"),
        "LoadBalancer" => {
            let mut all = balancer_addresses(&service["status"]["loadBalancer"]);
            all.extend(fixed);
            or(&all.join(","), "<pending>")
        }
        "ExternalName" => text(&service["spec"]["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(balancer: &Value) -> Vec<String> {
    let mut addresses: Vec<String> = items(&balancer["ingress"])
        .iter()
        .map(|entry| or(text(&entry["ip"]), text(&entry["hostname"])))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) fn subsets(endpoints: &Value) -> String {
    let subsets = items(&endpoints["subsets"]);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut list = Vec::new();
    for subset in subsets {
        let addresses = items(&subset["addresses"]);
        let ports = items(&subset["ports"]);
        if ports.is_empty() {
            list.extend(addresses.iter().map(|address| text(&address["ip"]).to_owned()));
        }
        for port in ports {
            list.extend(addresses.iter().map(|address| host_port(text(&address["ip"]), int(&port["port"]))));
        }
    }
    with_more(&list, list.len())
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(&slice["ports"])
        .iter()
        .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = items(&slice["endpoints"])
        .iter()
        .flat_map(|endpoint| items(&endpoint["addresses"]))
        .map(|address| text(address).to_owned())
        .collect();
    vec![
        name(slice),
        text(&slice["addressType"]).into(),
        or(&with_more(&ports, ports.len()), "<unset>").into(),
        or(&with_more(&addresses, addresses.len()), "<unset>").into(),
        age(slice, now),
    ]
}

pub(super) fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &ingress["spec"];
    let ports = if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(ingress),
        or(text(&spec["ingressClassName"]), "<none>").into(),
        hosts(items(&spec["rules"])).into(),
        balancer_addresses(&ingress["status"]["loadBalancer"]).join(",").into(),
        ports.into(),
        age(ingress, now),
    ]
}

/// The first hosts; what is left over counts rules, also those without a host.
fn hosts(rules: &[Value]) -> String {
    let mut list: Vec<String> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= list.len() == LISTED_MAX;
        if !more && !text(&rule["host"]).is_empty() {
            list.push(text(&rule["host"]).to_owned());
        }
    }
    if list.is_empty() {
        "*".to_owned()
    } else if more {
        format!("{} + {} more...", list.join(","), rules.len() - LISTED_MAX)
    } else {
        list.join(",")
    }
}

pub(super) fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = &class["spec"]["parameters"];
    let shown = if is_set(parameters) {
        let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
    } else {
        "<none>".to_owned()
    };
    vec![name(class), text(&class["spec"]["controller"]).into(), shown.into(), age(class, now)]
}

pub(super) fn role_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = &binding["roleRef"];
    let subjects = |kind: &str| {
        let named = items(&binding["subjects"]).iter().filter(|subject| subject["kind"] == kind).map(|subject| {
            match text(&subject["namespace"]) {
                "" => text(&subject["name"]).to_owned(),
                namespace => format!("{namespace}/{}", text(&subject["name"])),
            }
        });
        named.collect::<Vec<_>>().join(", ")
    };
    vec![
        name(binding),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        age(binding, now),
        subjects("User").into(),
        subjects("Group").into(),
        subjects("ServiceAccount").into(),
    ]
}

/// `deployment.apps/web`.
pub(super) fn reference(owner: &Value) -> String {
    let (group, _) = split_api_version(text(&owner["apiVersion"]));
    let kind = text(&owner["kind"]).to_lowercase();
    crate::status::qualified(group, &kind) + "/" + text(&owner["name"])
}
