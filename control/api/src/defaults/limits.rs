//! Defaults of LimitRanges and ResourceQuotas: quantities in canonical form, and what a range's bounds imply.

use serde_json::{Value, json};

use super::pod::quantities;
use crate::value::{child_mut, entries, items_mut, set_default};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

pub(crate) fn resource_quota(quota: &mut Value) {
    for part in ["spec", "status"] {
        let Some(part) = child_mut(quota, part) else { continue };
        for list in ["hard", "used"] {
            if let Some(list) = child_mut(part, list) {
                quantities(list);
            }
        }
    }
}

pub(crate) fn limit_range(range: &mut Value) {
    let Some(spec) = child_mut(range, "spec") else { return };
    for item in items_mut(spec, "limits") {
        for list in LISTS {
            if let Some(list) = child_mut(item, list) {
                quantities(list);
            }
        }
        if item["type"] == "Container" {
            // Unsaid limits are the maximum, unsaid requests the limit or else the minimum.
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                copy_missing(item, from, to);
            }
        }
    }
}

fn copy_missing(item: &mut Value, from: &str, to: &str) {
    let source = item[from].clone();
    if entries(&source).next().is_none() {
        return;
    }
    set_default(item, to, json!({}));
    if let Some(target) = child_mut(item, to) {
        for (name, value) in entries(&source) {
            set_default(target, name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_become_defaults_of_containers() {
        let mut range = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "1000m"}, "min": {"cpu": "0.1", "memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "2"}}]}});
        limit_range(&mut range);
        assert_eq!(
            range["spec"]["limits"],
            json!([
                {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m", "memory": "1Mi"},
                    "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1", "memory": "1Mi"}},
                {"type": "Pod", "max": {"cpu": "2"}}])
        );
    }
}
