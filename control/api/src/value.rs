//! Reading and comparing untyped objects, where an absent field, null and the zero value mean the same.

use serde_json::{Map, Value};

/// A string; empty if absent or of another type.
#[must_use]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The elements of a list; none if absent or of another type.
#[must_use]
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The objects in a list, to change; what is no object is left alone.
pub fn items_mut<'a>(parent: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    parent.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object())
}

/// A child object, to change, if there is one.
pub fn child_mut<'a>(parent: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    parent.get_mut(key).filter(|child| child.is_object())
}

/// Sets a field of an object; a value that is no object is left alone.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value.into());
    }
}

/// The entries of a map; none if absent or of another type.
pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// An integer; zero if absent or of another type.
#[must_use]
pub fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Whether values are nested deeper than this. Takes any depth itself.
#[must_use]
pub fn is_deeper(value: &Value, max: usize) -> bool {
    let mut level = vec![value];
    for _ in 0..max {
        let mut below = Vec::new();
        for value in level {
            match value {
                Value::Array(list) => below.extend(list),
                Value::Object(map) => below.extend(map.values()),
                _ => {}
            }
        }
        if below.is_empty() {
            return false;
        }
        level = below;
    }
    level.iter().any(|value| value.is_array() || value.is_object())
}

/// Whether a field is set at all: null is not.
#[must_use]
pub fn is_set(value: &Value) -> bool {
    !value.is_null()
}

/// Whether a value is absent, null or the zero value of its type.
#[must_use]
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Whether two values mean the same: zero values are as good as absent ones.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_maps(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

fn same_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
    };
    covers(a, b) && b.iter().all(|(key, value)| a.contains_key(key) || is_zero(value))
}

/// Sets a field that is absent or null.
pub fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut()
        && object.get(key).is_none_or(Value::is_null)
    {
        object.insert(key.into(), value.into());
    }
}

/// Sets a field that is absent, null or the zero value.
pub fn set_if_zero(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut()
        && object.get(key).is_none_or(is_zero)
    {
        object.insert(key.into(), value.into());
    }
}

/// Removes a field.
pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut()?.remove(key)
}

/// Makes a field of `to` what it is in `from`, also if it is absent there.
pub fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) => set(to, key, value.clone()),
        None => {
            remove(to, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_values_are_as_good_as_absent() {
        assert!(same(&json!({"a": 1, "b": "", "c": {}, "d": null}), &json!({"a": 1, "e": []})));
        assert!(same(&json!({"a": {"b": false}}), &json!({"a": {}})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [1, 0]})));
        assert!(!same(&json!({}), &json!({"a": true})));
        assert!(!same(&json!({"a": {"b": 1}}), &json!({"a": {"b": 2}})));
    }

    #[test]
    fn defaults_fill_only_what_is_missing() {
        let mut object = json!({"a": null, "b": "", "c": 0});
        for key in ["a", "b", "c", "d"] {
            set_default(&mut object, key, 1);
        }
        assert_eq!(object, json!({"a": 1, "b": "", "c": 0, "d": 1}));
        set_if_zero(&mut object, "b", "x");
        assert_eq!(object["b"], "x");
    }
}
