//! The normal form of an object: what is left after Go decodes it into its types and writes it again.
//!
//! Unknown fields and nulls go. Empty values go where Go omits them, and come where Go always writes them (a container's
//! `resources: {}`), so that equal objects are equal values whichever way a client spelled them. Quantities and times get
//! their canonical spelling. Values of the wrong type are left for [`crate::strict`] to report.

use serde_json::{Map, Value};

use crate::custom;
use crate::quantity::Quantity;
use crate::schema::{self, Alternative, Field, Message, Presence, Shape};

/// Brings an object of this type into its normal form.
pub fn prune(message: &Message, value: &mut Value) {
    if let Some(schema) = &message.structural {
        custom::prune(schema, value);
    } else if let Value::Object(object) = value {
        prune_object(message, object);
    }
}

fn prune_object(message: &Message, object: &mut Map<String, Value>) {
    object.retain(|name, value| match message.field(name) {
        _ if value.is_null() => false,
        None => message.keeps_unknown,
        Some(field) => {
            prune_shape(&field.shape, value);
            !omitted(field, value)
        }
    });
    for field in message.always_written() {
        if !object.contains_key(field.name.as_ref()) {
            object.insert(field.name.as_ref().to_owned(), zero(&field.shape));
        }
    }
}

fn prune_shape(shape: &Shape, value: &mut Value) {
    match (shape, &mut *value) {
        (Shape::Message(link), Value::Object(object)) => prune_object(link.get(), object),
        (Shape::List { item, .. }, Value::Array(list)) => {
            for value in list {
                replace_null(item, value);
                prune_shape(item, value);
            }
        }
        (Shape::Map(shape), Value::Object(map)) => {
            for value in map.values_mut() {
                replace_null(shape, value);
                prune_shape(shape, value);
            }
        }
        (Shape::Quantity, Value::String(text)) => {
            if let Ok(quantity) = Quantity::parse(text) {
                *text = quantity.to_string();
            }
        }
        (Shape::Quantity, Value::Number(number)) => {
            if let Ok(quantity) = Quantity::parse(&number.to_string()) {
                *value = quantity.to_string().into();
            }
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            if let Ok(time) = schema::time::parse(text) {
                let micro = matches!(shape, Shape::MicroTime);
                *text = if micro { schema::time::micros(time) } else { schema::time::seconds(time) };
            }
        }
        (Shape::SchemaOr(Alternative::Array), Value::Array(list)) => list.iter_mut().for_each(prune_json_schema),
        (Shape::SchemaOr(_), Value::Object(_)) => prune_json_schema(value),
        _ => {}
    }
}

fn prune_json_schema(value: &mut Value) {
    if let Some(message) = schema::message("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps") {
        prune(message, value);
    }
}

/// A null in a list or map is the zero of its type.
fn replace_null(shape: &Shape, value: &mut Value) {
    if value.is_null() && (shape.is_scalar() || matches!(shape, Shape::Message(_) | Shape::Quantity | Shape::Bytes)) {
        *value = zero(shape);
    }
}

fn omitted(field: &Field, value: &Value) -> bool {
    if !field.omit_empty {
        return false;
    }
    // An empty list of managed fields asks for a reset, which field tracking must still see.
    if field.name == "managedFields" {
        return false;
    }
    match (&field.shape, value) {
        (Shape::List { .. }, Value::Array(list)) => list.is_empty(),
        (Shape::Map(_), Value::Object(map)) => map.is_empty(),
        (Shape::Bytes, Value::String(text)) => text.is_empty(),
        (Shape::IntOrString, value) if field.presence == Presence::Value => value == &Value::from(0),
        (shape, value) => shape.is_scalar() && field.presence == Presence::Value && is_zero(value),
    }
}

fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Message(link) => {
            let mut object = Map::new();
            prune_object(link.get(), &mut object);
            object.into()
        }
        Shape::Quantity => "0".into(),
        Shape::String | Shape::Bytes => "".into(),
        Shape::Bool => false.into(),
        _ => 0.into(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pruned(api_version: &str, kind: &str, mut value: Value) -> Value {
        let message = schema::of_type(api_version, kind).unwrap();
        prune(message, &mut value);
        let once = value.clone();
        prune(message, &mut value);
        assert_eq!(value, once, "pruning twice is pruning once");
        value
    }

    #[test]
    fn drops_what_go_drops() {
        let pod = json!({"metadata": {"name": "p", "labels": {}, "Name": "x"}, "extra": 1, "spec": {
            "hostNetwork": false, "priority": 0, "nodeName": null, "containers": [{"name": "c", "env": [], "bogus": {}}]}});
        assert_eq!(
            pruned("v1", "Pod", pod),
            json!({"metadata": {"name": "p"}, "spec": {"priority": 0, "containers": [{"name": "c", "resources": {}}]},
                "status": {}})
        );
    }

    #[test]
    fn writes_what_go_writes() {
        let service = pruned("v1", "Service", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}));
        assert_eq!(
            service,
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {}}})
        );
    }

    #[test]
    fn spells_quantities_and_times_one_way() {
        let pod = pruned(
            "v1",
            "Pod",
            json!({"metadata": {"deletionTimestamp": "2020-01-01T02:00:00.5+02:00"}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}}),
        );
        assert_eq!(pod["metadata"]["deletionTimestamp"], "2020-01-01T00:00:00Z");
        assert_eq!(pod["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "500m", "memory": "1Gi"}}));
    }

    #[test]
    fn keeps_a_request_to_reset_managed_fields() {
        let map = pruned("v1", "ConfigMap", json!({"metadata": {"managedFields": []}}));
        assert_eq!(map["metadata"]["managedFields"], json!([]));
    }
}
