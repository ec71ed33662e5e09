//! Reading and writing the metadata of an object; absent and null are the same.

use serde_json::{Map, Value};

/// An object's metadata, if it has any.
#[must_use]
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// An object's metadata, made if absent.
///
/// # Panics
/// If the value is neither an object nor null.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// A child object, made if it is absent or not an object.
///
/// # Panics
/// If the parent is neither an object nor null.
pub fn child_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let child = &mut parent[key];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    match child {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// A string field of the metadata; empty if absent.
#[must_use]
pub fn field<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).and_then(|metadata| metadata.get(key)).and_then(Value::as_str).unwrap_or("")
}

/// Sets a field of the metadata, or removes it for null and the empty string.
pub fn set_field(object: &mut Value, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let metadata = metadata_mut(object);
    if value.is_null() || value == "" {
        metadata.remove(key);
    } else {
        metadata.insert(key.into(), value);
    }
}

#[must_use]
pub fn api_version(object: &Value) -> &str {
    object["apiVersion"].as_str().unwrap_or("")
}

#[must_use]
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("")
}

#[must_use]
pub fn name(object: &Value) -> &str {
    field(object, "name")
}

#[must_use]
pub fn namespace(object: &Value) -> &str {
    field(object, "namespace")
}

#[must_use]
pub fn uid(object: &Value) -> &str {
    field(object, "uid")
}

#[must_use]
pub fn resource_version(object: &Value) -> &str {
    field(object, "resourceVersion")
}

pub fn set_resource_version(object: &mut Value, revision: u64) {
    set_field(object, "resourceVersion", revision.to_string());
}

#[must_use]
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|metadata| metadata.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

/// RFC 3339; empty if absent.
#[must_use]
pub fn creation_timestamp(object: &Value) -> &str {
    field(object, "creationTimestamp")
}

/// RFC 3339, while the object is being deleted.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    Some(field(object, "deletionTimestamp")).filter(|time| !time.is_empty())
}

#[must_use]
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

#[must_use]
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("labels")?.as_object()
}

#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_in(object, "labels", key, value);
}

#[must_use]
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("annotations")?.as_object()
}

#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    set_in(object, "annotations", key, value);
}

#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    list(object, "finalizers").iter().filter_map(Value::as_str).collect()
}

pub fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    let finalizers: Vec<Value> = finalizers.iter().map(|&finalizer| finalizer.into()).collect();
    set_field(object, "finalizers", if finalizers.is_empty() { Value::Null } else { finalizers.into() });
}

#[must_use]
pub fn owner_references(object: &Value) -> &[Value] {
    list(object, "ownerReferences")
}

/// The owner reference that is marked as the controller.
#[must_use]
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|owner| owner["controller"] == true)
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    metadata(object).and_then(|metadata| metadata.get(key)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn set_in(object: &mut Value, map: &str, key: &str, value: &str) {
    let entries = metadata_mut(object).entry(map).or_insert_with(|| Value::Object(Map::new()));
    if !entries.is_object() {
        *entries = Value::Object(Map::new());
    }
    entries[key] = value.into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let pod = json!({"metadata": {"name": "a", "generation": 3, "labels": {"x": "y"}, "annotations": null,
            "finalizers": ["f"], "ownerReferences": [{"name": "r"}, {"name": "c", "controller": true}]}});
        assert_eq!((name(&pod), namespace(&pod), generation(&pod)), ("a", "", 3));
        assert_eq!((label(&pod, "x"), annotation(&pod, "x")), (Some("y"), None));
        assert_eq!(finalizers(&pod), ["f"]);
        assert_eq!(controller_of(&pod).expect("controller")["name"], "c");
        assert_eq!(name(&json!({})), "");
    }

    #[test]
    fn writes_make_what_is_missing() {
        let mut object = json!({"metadata": {"labels": null}});
        set_label(&mut object, "a", "b");
        set_annotation(&mut object, "c", "d");
        set_resource_version(&mut object, 7);
        set_finalizers(&mut object, &[]);
        assert_eq!(
            object,
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "resourceVersion": "7"}})
        );
    }
}
