//! The two shapes of an Event: `v1` is stored, `events.k8s.io/v1` is the same with other field names.

use serde_json::Value;

use super::Conversion;

/// (`v1`, `events.k8s.io/v1`)
const FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) const CONVERSION: Conversion = Conversion { to_stored, from_stored };

fn to_stored(event: &mut Value) {
    for (core, new) in FIELDS {
        rename(event, new, core);
    }
    event["apiVersion"] = "v1".into();
}

fn from_stored(event: &mut Value) {
    for (core, new) in FIELDS {
        rename(event, core, new);
    }
    event["apiVersion"] = "events.k8s.io/v1".into();
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(object) = object.as_object_mut()
        && let Some(value) = object.remove(from)
    {
        object.insert(to.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn converting_there_and_back_changes_nothing() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"kind": "Pod"},
            "deprecatedCount": 2, "reportingController": "c", "action": "a"});
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "n", "involvedObject": {"kind": "Pod"},
            "count": 2, "reportingComponent": "c", "action": "a"});
        let mut event = new.clone();
        to_stored(&mut event);
        assert_eq!(event, core);
        from_stored(&mut event);
        assert_eq!(event, new);
    }
}
