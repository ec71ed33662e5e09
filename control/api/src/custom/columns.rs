//! Printer columns: what `kubectl get` shows of a custom resource.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::JsonPath;
use super::number::whole;
use crate::meta;
use crate::table::duration::since;
use crate::value::{int, items, text};

/// The columns after the name.
#[derive(Debug)]
pub struct Columns(Vec<Column>);

#[derive(Debug)]
struct Column {
    definition: Value,
    kind: String,
    path: JsonPath,
}

/// What is shown of a kind that names no columns.
fn default_column() -> Value {
    json!({"name": "Age", "type": "date", "description": "Time since the object was created.",
        "jsonPath": ".metadata.creationTimestamp"})
}

impl Columns {
    /// Reads `additionalPrinterColumns`. A path that cannot be read ends the list, as upstream.
    #[must_use]
    pub fn parse(columns: &Value) -> Self {
        let default = [default_column()];
        let columns = if items(columns).is_empty() { &default } else { items(columns) };
        Self(columns.iter().map_while(Column::parse).collect())
    }

    pub(crate) fn definitions(&self) -> impl Iterator<Item = Value> {
        self.0.iter().map(|column| column.definition.clone())
    }

    /// The cells of an object: its name, then one for each column.
    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(meta::name(object));
        std::iter::once(name).chain(self.0.iter().map(|column| column.cell(object, now))).collect()
    }
}

impl Column {
    fn parse(column: &Value) -> Option<Self> {
        let path = text(&column["jsonPath"]);
        let description = match text(&column["description"]) {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            text => text.to_owned(),
        };
        let kind = text(&column["type"]);
        Some(Self {
            definition: json!({
                "name": column["name"], "type": kind, "format": text(&column["format"]), "description": description,
                "priority": int(&column["priority"]),
            }),
            kind: kind.to_owned(),
            path: JsonPath::parse(path)?,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.find(object).into_iter().next() else { return Value::Null };
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => whole(number).map_or(Value::Null, Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) if text.parse::<Timestamp>().is_err() => "<invalid>".into(),
            ("date", Value::String(_)) => since(value, now).into(),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_typed() {
        let columns = Columns::parse(&json!([
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
            {"name": "Tags", "type": "string", "jsonPath": ".spec.tags"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Bad", "type": "string", "jsonPath": ".x["},
        ]));
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"size": 3, "on": true, "tags": ["x", "y"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let now = "2026-01-01T00:00:30Z".parse().expect("time");
        assert_eq!(
            columns.cells(&object, now),
            [json!("a"), json!("True"), json!(3), json!(true), json!("[\"x\",\"y\"]"), json!("30s")]
        );
        let empty = columns.cells(&json!({"metadata": {"name": "b"}, "spec": {"size": "x"}}), now);
        assert_eq!(empty, [json!("b"), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
        let definitions: Vec<Value> = columns.definitions().collect();
        assert_eq!((&definitions[1]["priority"], definitions.len()), (&json!(1), 5));
        assert_eq!(Columns::parse(&Value::Null).definitions().next().expect("age")["name"], "Age");
    }
}
