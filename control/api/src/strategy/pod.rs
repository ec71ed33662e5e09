//! Pods: the status they are born with and the quality of service they get.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::defaults::pod::containers;
use crate::quantity::Quantity;
use crate::value::{copy, entries, items, items_mut, text};

pub(crate) fn create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(&pod["spec"])});
    if !items(&pod["spec"]["schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": null,
        }]);
    }
    pod["status"] = status;
}

/// The class of a pod never changes; its first address is told in two fields.
pub(crate) fn update_status(old: &Value, new: &mut Value) {
    let class = match text(&old["status"]["qosClass"]) {
        "" => qos_class(&old["spec"]),
        _ => text(&old["status"]["qosClass"]),
    }
    .to_owned();
    let status = crate::meta::child_mut(new, "status");
    status.insert("qosClass".into(), class.into());
    let first = status.get("podIP").and_then(Value::as_str).unwrap_or("").to_owned();
    let listed = status.get("podIPs").map_or(&[][..], items);
    if !first.is_empty() && listed.is_empty() {
        status.insert("podIPs".into(), json!([{"ip": first}]));
    } else if first.is_empty()
        && let Some(ip) = listed.first().map(|entry| entry["ip"].clone())
    {
        status.insert("podIP".into(), ip);
    }
}

/// Through this subresource only the ephemeral containers change.
pub(crate) fn update_ephemeral_containers(old: &Value, new: &mut Value) {
    let sent = std::mem::replace(new, old.clone());
    copy(&sent["metadata"], child_mut_or_new(new, "metadata"), "managedFields");
    copy(&sent["spec"], child_mut_or_new(new, "spec"), "ephemeralContainers");
}

/// Through this subresource only the containers' resources change, and how they are to be changed.
pub(crate) fn update_resources(old: &Value, new: &mut Value) {
    let sent = std::mem::replace(new, old.clone());
    copy(&sent["metadata"], child_mut_or_new(new, "metadata"), "managedFields");
    for list in ["containers", "initContainers"] {
        for container in items_mut(child_mut_or_new(new, "spec"), list) {
            let same = |other: &&Value| other["name"] == container["name"];
            if let Some(sent) = items(&sent["spec"][list]).iter().find(same) {
                copy(sent, container, "resources");
                copy(sent, container, "resizePolicy");
            }
        }
    }
}

fn child_mut_or_new<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if !object[field].is_object() {
        object[field] = json!({});
    }
    &mut object[field]
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the CPU and memory its containers ask for.
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    let mut guaranteed = true;
    for container in containers(spec) {
        add(&container["resources"]["requests"], &mut requests);
        // Each container must limit both.
        guaranteed &= add(&container["resources"]["limits"], &mut limits) == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds what a list says of CPU and memory to the sums; returns how many of the two it names.
fn add<'a>(list: &'a Value, sums: &mut BTreeMap<&'a str, i128>) -> usize {
    entries(list)
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .filter_map(|(name, value)| Some((name, Quantity::parse(&as_text(value)).ok()?)))
        .filter(|(_, quantity)| !quantity.is_zero())
        .map(|(name, quantity)| *sums.entry(name.as_str()).or_default() += quantity.nano())
        .count()
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let half = json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        let cases = [
            (vec![full.clone()], "Guaranteed"),
            (vec![full.clone(), full.clone()], "Guaranteed"),
            (vec![full.clone(), json!({})], "Burstable"),
            (vec![half], "Burstable"),
            (vec![json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})], "Burstable"),
            (vec![json!({"requests": {"ephemeral-storage": "1Gi"}})], "BestEffort"),
            (vec![json!({})], "BestEffort"),
        ];
        for (resources, class) in cases {
            let containers: Vec<Value> = resources.iter().map(|resources| json!({"resources": resources})).collect();
            assert_eq!(qos_class(&json!({"containers": containers})), class, "{resources:?}");
        }
    }

    #[test]
    fn each_subresource_changes_its_own_part_only() {
        let old = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "a", "resources": {}}]}, "status": {"phase": "Running"}});
        let sent = json!({"metadata": {"name": "p", "labels": {"x": "y"}}, "spec": {
            "containers": [{"name": "c", "image": "b", "resources": {"limits": {"cpu": "1"}}}],
            "ephemeralContainers": [{"name": "e"}]}});
        let mut debugged = sent.clone();
        update_ephemeral_containers(&old, &mut debugged);
        let mut expected = old.clone();
        expected["spec"]["ephemeralContainers"] = json!([{"name": "e"}]);
        assert_eq!(debugged, expected);
        let mut resized = sent;
        update_resources(&old, &mut resized);
        let mut expected = old.clone();
        expected["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        assert_eq!(resized, expected);
    }

    #[test]
    fn a_status_update_keeps_the_class_and_tells_the_address_twice() {
        let old = json!({"spec": {}, "status": {"qosClass": "Burstable"}});
        let mut new = json!({"status": {"podIP": "10.0.0.1"}});
        update_status(&old, &mut new);
        assert_eq!(
            new["status"],
            json!({"qosClass": "Burstable", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})
        );
    }
}
