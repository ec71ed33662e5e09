//! LimitRanges: what a pod gets that says nothing, and what it may not say.

use serde_json::{Value, json};

use crate::meta;
use crate::quantity::Quantity;
use crate::quota::{Amounts, pod_limits, pod_requests};
use crate::value::{entries, items, set_default, text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Quantities up to here are compared in thousandths; upstream's `MaxMilliValue`.
const MILLI_MAX: i64 = i64::MAX / 1000;

/// Fills in requests and limits of every container that lacks them, and notes it on the pod.
pub fn fill_in(range: &Value, pod: &mut Value) {
    let (mut limits, mut requests) = (serde_json::Map::new(), serde_json::Map::new());
    for item in items(&range["spec"]["limits"]).iter().filter(|item| item["type"] == "Container") {
        limits.extend(entries(&item["default"]).map(|(name, value)| (name.clone(), value.clone())));
        requests.extend(entries(&item["defaultRequest"]).map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            for (field, kind, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let added = add_missing(container, field, defaults);
                if !added.is_empty() {
                    notes.push(format!("{} {kind} for {word} {}", added.join(", "), text(&container["name"])));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = meta::child_mut(pod, "metadata").entry("annotations").or_insert(Value::Null);
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

fn add_missing(container: &mut Value, field: &str, defaults: &serde_json::Map<String, Value>) -> Vec<String> {
    let missing = |name: &String| container["resources"][field].get(name).is_none_or(Value::is_null);
    let added: Vec<String> = defaults.keys().filter(|name| missing(name)).cloned().collect();
    if added.is_empty() {
        return added;
    }
    set_default(container, "resources", json!({}));
    let list = &mut container["resources"][field];
    if !list.is_object() {
        *list = json!({});
    }
    for name in &added {
        list[name] = defaults[name].clone();
    }
    added
}

/// What a range forbids about a pod, worded as upstream words it; none if nothing.
#[must_use]
pub fn complaint(range: &Value, pod: &Value) -> Option<String> {
    let mut found = Vec::new();
    let spec = &pod["spec"];
    for item in items(&range["spec"]["limits"]) {
        let limit = Item {
            kind: text(&item["type"]),
            min: Amounts::read(&item["min"]),
            max: Amounts::read(&item["max"]),
            ratio: Amounts::read(&item["maxLimitRequestRatio"]),
        };
        match limit.kind {
            "Container" => {
                for container in items(&spec["containers"]).iter().chain(items(&spec["initContainers"])) {
                    let list = |name: &str| Amounts::read(&container["resources"][name]);
                    limit.check(&list("requests"), &list("limits"), &mut found);
                }
            }
            "Pod" => limit.check(&pod_requests(pod), &pod_limits(pod), &mut found),
            _ => {}
        }
    }
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// One entry of a range.
struct Item<'a> {
    kind: &'a str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl Item<'_> {
    fn check(&self, requests: &Amounts, limits: &Amounts, found: &mut Vec<String>) {
        for name in self.min.names() {
            let said = (requests.get(name), limits.get(name));
            found.extend(self.too_little(name, self.min.value(name), said));
        }
        for name in self.max.names() {
            let said = (requests.get(name), limits.get(name));
            found.extend(self.too_much(name, self.max.value(name), said));
        }
        for name in self.ratio.names() {
            let said = (requests.get(name), limits.get(name));
            found.extend(self.too_far_apart(name, self.ratio.value(name), said));
        }
    }

    fn too_little(&self, name: &str, min: Quantity, said: (Option<Quantity>, Option<Quantity>)) -> Option<String> {
        let rule = format!("minimum {name} usage per {} is {min}", self.kind);
        match said {
            (None, _) => Some(format!("{rule}.  No request is specified")),
            (Some(request), _) if request < min => Some(format!("{rule}, but request is {request}")),
            (_, Some(limit)) if limit < min => Some(format!("{rule}, but limit is {limit}")),
            _ => None,
        }
    }

    fn too_much(&self, name: &str, max: Quantity, said: (Option<Quantity>, Option<Quantity>)) -> Option<String> {
        let rule = format!("maximum {name} usage per {} is {max}", self.kind);
        match said {
            (_, None) => Some(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if limit > max => Some(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if request > max => Some(format!("{rule}, but request is {request}")),
            _ => None,
        }
    }

    fn too_far_apart(&self, name: &str, most: Quantity, said: (Option<Quantity>, Option<Quantity>)) -> Option<String> {
        let rule = format!("{name} max limit to request ratio per {} is {most}, but", self.kind);
        let is_some = |said: &Quantity| !said.is_zero();
        let Some(request) = said.0.filter(is_some) else {
            return Some(format!("{rule} no request is specified or request is 0"));
        };
        let Some(limit) = said.1.filter(is_some) else {
            return Some(format!("{rule} no limit is specified or limit is 0"));
        };
        let value = |quantity: Quantity| -> f64 {
            if limit.whole() <= MILLI_MAX { quantity.milli() as f64 } else { quantity.whole() as f64 }
        };
        let ratio = value(limit) / value(request);
        (ratio * 1000.0 > most.milli() as f64).then(|| format!("{rule} provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn silence_is_filled_in_and_noted() {
        let range = range(json!({"type": "Container", "default": {"cpu": "500m", "memory": "256Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}));
        let mut pod = pod(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        fill_in(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "1", "memory": "128Mi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c; memory limit for container c"
        );
        let once = pod.clone();
        fill_in(&range, &mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn bounds_are_enforced_in_upstreams_words() {
        let bounds = range(json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}}));
        let said = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        let cases = [
            (said("200m", "1"), None),
            (said("200m", "2"), Some("maximum cpu usage per Container is 1, but limit is 2")),
            (said("50m", "1"), Some("minimum cpu usage per Container is 100m, but request is 50m")),
            (
                json!({}),
                Some(
                    "[minimum cpu usage per Container is 100m.  No request is specified, maximum cpu usage per Container \
                     is 1.  No limit is specified]",
                ),
            ),
        ];
        for (resources, expected) in cases {
            assert_eq!(complaint(&bounds, &pod(resources)).as_deref(), expected);
        }
    }

    #[test]
    fn limits_stay_near_requests() {
        let ratio = range(json!({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}));
        let said =
            |request: &str, limit: &str| pod(json!({"requests": {"memory": request}, "limits": {"memory": limit}}));
        assert_eq!(complaint(&ratio, &said("1Gi", "2Gi")), None);
        assert_eq!(
            complaint(&ratio, &said("1Gi", "3Gi")).as_deref(),
            Some("memory max limit to request ratio per Container is 2, but provided ratio is 3.000000")
        );
    }

    #[test]
    fn a_pod_is_judged_as_a_whole() {
        let whole = range(json!({"type": "Pod", "max": {"memory": "1Gi"}}));
        let mut pod = pod(json!({"limits": {"memory": "600Mi"}}));
        assert_eq!(complaint(&whole, &pod), None);
        let twin = pod["spec"]["containers"][0].clone();
        pod["spec"]["containers"].as_array_mut().unwrap().push(twin);
        assert_eq!(
            complaint(&whole, &pod).as_deref(),
            Some("maximum memory usage per Pod is 1Gi, but limit is 1200Mi")
        );
    }
}
