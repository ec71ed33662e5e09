//! The smallest strategic-merge patch from one pod status to another.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the API server merges by a key: a changed one is replaced as a whole.
const REPLACED: [&str; 2] = ["podIPs", "hostIPs"];

/// `None` if nothing changed. Conditions are sent one by one, so that those of other writers stay.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut changes = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let change = match key.as_str() {
            // The order of conditions is the API server's own affair.
            "conditions" => match changed_conditions(before, value) {
                list if list.is_empty() => continue,
                list => Value::Array(list),
            },
            key if REPLACED.contains(&key) && before.is_some() => replacement(value),
            _ => value.clone(),
        };
        changes.insert(key.clone(), change);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn changed_conditions(old: Option<&Value>, new: &Value) -> Vec<Value> {
    let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut list = Vec::new();
    for condition in new.as_array().map(Vec::as_slice).unwrap_or_default() {
        if old.contains(condition) {
            continue;
        }
        let mut condition = condition.clone();
        // A field that is absent now must be named to be removed.
        let same = old.iter().find(|before| before["type"] == condition["type"]);
        if let (Some(Value::Object(before)), Value::Object(now)) = (same, &mut condition) {
            for key in before.keys() {
                now.entry(key.clone()).or_insert(Value::Null);
            }
        }
        list.push(condition);
    }
    list
}

fn replacement(new: &Value) -> Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(new.as_array().into_iter().flatten().cloned());
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_statuses_need_no_patch() {
        let same = status(json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.5"}]}));
        assert_eq!(patch("u", &same, &same), None);
    }

    #[test]
    fn conditions_in_another_order_are_the_same() {
        let list =
            |types: [&str; 2]| status(json!({"conditions": types.map(|name| json!({"type": name, "status": "True"}))}));
        assert_eq!(patch("u", &list(["Ready", "PodScheduled"]), &list(["PodScheduled", "Ready"])), None);
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = status(
            json!({"phase": "Pending", "qosClass": "BestEffort", "reason": "x", "podIPs": [{"ip": "10.244.0.5"}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
                {"type": "PodScheduled", "status": "True"},
                {"type": "example.com/gate", "status": "True"}]}),
        );
        let new = status(json!({"phase": "Running", "qosClass": "BestEffort", "podIPs": [{"ip": "10.244.0.9"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}));
        let expected = json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running",
            "reason": null,
            "podIPs": [{"$patch": "replace"}, {"ip": "10.244.0.9"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}]}});
        assert_eq!(patch("u", &old, &new), Some(expected));
    }
}
