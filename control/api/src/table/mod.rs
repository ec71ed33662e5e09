//! Server-side printing: what `kubectl get` shows. Every column is always sent; kubectl hides those of priority 1.

mod batch;
mod cells;
pub mod duration;
mod pod;
pub(crate) mod printers;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::registry::Resource;
use crate::status::Status;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only in wide output.
    pub priority: u8,
}

/// How a kind is printed.
#[derive(Debug)]
pub struct Printer {
    pub columns: &'static [Column],
    /// One cell per column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// How much of an object a row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Reads the `includeObject` parameter; empty means the metadata.
    ///
    /// # Errors
    /// If the value is unknown.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// What a table is made for.
#[derive(Debug, Clone, Copy)]
pub struct TableOptions<'a> {
    /// The version of `meta.k8s.io` that was asked for: `v1` or `v1beta1`.
    pub version: &'a str,
    pub include: IncludeObject,
    /// A watch sends the columns with its first event only.
    pub with_columns: bool,
    pub now: Timestamp,
}

/// A table of objects. `list_metadata` is the metadata of the list, or of the one object.
#[must_use]
pub fn table<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    list_metadata: Value,
    options: TableOptions<'_>,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, options)).collect();
    let columns = if options.with_columns { column_definitions(resource) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", options.version),
        "metadata": list_metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// A table of one object, as a GET of it or a watch event shows it.
#[must_use]
pub fn table_of_one(resource: &Resource, object: &Value, options: TableOptions<'_>) -> Value {
    let metadata = json!({"resourceVersion": meta::resource_version(object)});
    table(resource, [object], metadata, options)
}

/// The columns of a kind.
#[must_use]
pub fn column_definitions(resource: &Resource) -> Value {
    let definition = |column: &Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    match &resource.custom {
        Some(custom) => std::iter::once(definition(&printers::NAME)).chain(custom.columns.definitions()).collect(),
        None => resource.hooks.printer.columns.iter().map(definition).collect(),
    }
}

fn row(resource: &Resource, object: &Value, options: TableOptions<'_>) -> Value {
    let cells = match &resource.custom {
        Some(custom) => custom.columns.cells(object, options.now),
        None => (resource.hooks.printer.cells)(&resource.as_stored(object), options.now),
    };
    let carried = match options.include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial(object, options.version),
        IncludeObject::Object => object.clone(),
    };
    let mut row = json!({"cells": cells, "object": carried});
    if resource.is_core("Pod")
        && let Some(condition) = pod::completion(object)
    {
        row["conditions"] = json!([condition]);
    }
    row
}

/// The metadata of an object alone, as `PartialObjectMetadata` of the version asked for.
#[must_use]
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

/// The metadata of several objects.
#[must_use]
pub fn partial_list<'a>(objects: impl IntoIterator<Item = &'a Value>, list_metadata: Value, version: &str) -> Value {
    let items: Vec<Value> = objects.into_iter().map(|object| partial(object, version)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": list_metadata,
        "items": items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn options(include: IncludeObject) -> TableOptions<'static> {
        let now = "2026-01-01T00:01:00Z".parse().expect("time");
        TableOptions { version: "v1", include, with_columns: true, now }
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for resource in Registry::builtin().iter().filter(|resource| !resource.is_virtual) {
            let printer = resource.hooks.printer;
            let cells = (printer.cells)(&json!({}), options(IncludeObject::None).now);
            assert_eq!(cells.len(), printer.columns.len(), "{}", resource.qualified());
            assert!(printer.columns.iter().any(|column| column.name == "Name"), "{}", resource.qualified());
        }
    }

    #[test]
    fn a_row_carries_what_was_asked_for() {
        let registry = Registry::builtin();
        let maps = registry.get("", "v1", "configmaps").expect("configmaps");
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"x": "y"}});
        let table = table_of_one(maps, &object, options(IncludeObject::Metadata));
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "60s"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        let bare = table_of_one(maps, &object, options(IncludeObject::None));
        assert_eq!(bare["rows"][0]["object"], Value::Null);
        assert_eq!(table_of_one(maps, &object, options(IncludeObject::Object))["rows"][0]["object"], object);
        assert_eq!(IncludeObject::parse("x").expect_err("unknown").code, 400);
    }

    #[test]
    fn both_event_kinds_print_alike() {
        let registry = Registry::builtin();
        let stored = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "go ",
            "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:00:55Z"});
        let core = registry.get("", "v1", "events").expect("core");
        let new = registry.get("events.k8s.io", "v1", "events").expect("new");
        let mut converted = stored.clone();
        new.from_stored(&mut converted);
        let cells =
            |resource, object| table_of_one(resource, object, options(IncludeObject::None))["rows"][0]["cells"].clone();
        assert_eq!(cells(core, &stored), cells(new, &converted));
        assert_eq!(
            cells(core, &stored),
            json!(["5s", "Normal", "Started", "pod/p", "", "", "go", "<unknown>", 1, "e"])
        );
    }
}
