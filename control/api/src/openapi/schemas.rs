//! The schema components of a document: every type that its operations name, and what these refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::custom;
use super::descriptions::Descriptions;
use crate::custom::Kind;
use crate::registry::Resource;
use crate::schema::{self, Alternative, Field, Home, Merging, Message, Presence, Shape};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

pub(super) struct Schemas<'a> {
    group: &'a str,
    version: &'a str,
    descriptions: &'a Descriptions,
    done: BTreeMap<String, Value>,
    /// The names of custom schemas, by their kinds.
    custom: BTreeMap<String, String>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(group: &'a str, version: &'a str, descriptions: &'a Descriptions) -> Self {
        Self { group, version, descriptions, done: BTreeMap::new(), custom: BTreeMap::new() }
    }

    pub(super) fn finish(self) -> Value {
        self.done.into_iter().collect::<Map<String, Value>>().into()
    }

    /// Makes the schemas of a custom resource and of its lists part of the document.
    pub(super) fn custom(&mut self, resource: &Resource, kind: &Kind) {
        let (object_meta, list_meta) = (self.meta("ObjectMeta"), self.meta("ListMeta"));
        self.custom.insert(resource.kind.clone(), kind.message.name.to_string());
        self.custom.insert(resource.list_kind.clone(), custom::list_name(resource, kind));
        self.done.extend(custom::schemas(resource, kind, &object_meta, &list_meta));
    }

    /// A reference to the schema of a kind, which becomes part of the document.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Option<Value> {
        if let Some(name) = self.custom.get(kind).filter(|_| (group, version) == (self.group, self.version)) {
            return Some(reference(name));
        }
        let message = schema::kind(group, version, kind)?;
        self.add(message);
        Some(reference(&message.name))
    }

    /// The same for the meta types that every group uses.
    pub(super) fn meta(&mut self, name: &str) -> Value {
        let full = format!("{META}.{name}");
        match schema::message(&full) {
            Some(message) => self.add(message),
            None => drop(self.done.insert(full.clone(), json!({"type": "object"}))),
        }
        reference(&full)
    }

    fn add(&mut self, message: &Message) {
        if self.done.contains_key(message.name.as_ref()) {
            return;
        }
        // Types refer to themselves: the place is taken before the fields are looked at.
        self.done.insert(message.name.to_string(), Value::Null);
        let mut properties = Map::new();
        for field in message.fields() {
            let text = self.descriptions.of(&message.name, Some(&field.name));
            properties.insert(field.name.to_string(), self.property(field, text));
        }
        let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
        if let Some(text) = self.descriptions.of(&message.name, None) {
            schema.insert("description".into(), text.into());
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        let required: Vec<&str> =
            message.fields().iter().filter(|field| field.required).map(|field| field.name.as_ref()).collect();
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        if message.atomic {
            schema.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        if let Some(home) = &message.kind {
            let (group, version) = match home {
                Home::Of { group, version } => (group.as_ref(), version.as_ref()),
                Home::Everywhere => (self.group, self.version),
            };
            let kind = json!([{"group": group, "version": version, "kind": message.short_name()}]);
            schema.insert("x-kubernetes-group-version-kind".into(), kind);
        }
        self.done.insert(message.name.to_string(), schema.into());
    }

    fn property(&mut self, field: &Field, description: Option<&str>) -> Value {
        let default = field.default.clone().or_else(|| default(field));
        let mut property = self.shape(&field.shape);
        // A reference takes no siblings but inside `allOf`.
        let marks = marks(field);
        if property.contains_key("$ref") && (default.is_some() || description.is_some() || !marks.is_empty()) {
            property = Map::from_iter([("allOf".to_owned(), json!([property]))]);
        }
        if let Some(default) = default {
            property.insert("default".into(), default);
        }
        if let Some(text) = description {
            property.insert("description".into(), text.into());
        }
        property.extend(marks);
        property.into()
    }

    fn shape(&mut self, shape: &Shape) -> Map<String, Value> {
        let schema = match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Message(link) => {
                self.add(link.get());
                reference(&link.get().name)
            }
            Shape::List { item, .. } => json!({"type": "array", "items": self.element(item)}),
            Shape::Map(values) => json!({"type": "object", "additionalProperties": self.element(values)}),
            special => self.special(special),
        };
        if let Value::Object(schema) = schema { schema } else { Map::new() }
    }

    fn element(&mut self, shape: &Shape) -> Value {
        let mut element = self.shape(shape);
        if let Shape::Message(_) = shape {
            element = Map::from_iter([("allOf".to_owned(), json!([element])), ("default".to_owned(), json!({}))]);
        }
        element.into()
    }

    fn special(&mut self, shape: &Shape) -> Value {
        let (name, schema) = match shape {
            Shape::Quantity => (
                "io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(),
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            ),
            Shape::IntOrString => (
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(),
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            Shape::Time => (format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Shape::MicroTime => (format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"})),
            Shape::FieldsV1 => (format!("{META}.FieldsV1"), json!({"type": "object"})),
            Shape::RawExtension => {
                ("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(), json!({"type": "object"}))
            }
            Shape::SchemaOr(Alternative::Bool) => (format!("{EXTENSIONS}.JSONSchemaPropsOrBool"), json!({})),
            Shape::SchemaOr(Alternative::Array) => (format!("{EXTENSIONS}.JSONSchemaPropsOrArray"), json!({})),
            Shape::SchemaOr(Alternative::Strings) => (format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray"), json!({})),
            _ => (format!("{EXTENSIONS}.JSON"), json!({})),
        };
        let reference = reference(&name);
        self.done.insert(name, schema);
        reference
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What Go fills in for a value that is always there.
fn default(field: &Field) -> Option<Value> {
    if field.presence == Presence::Pointer {
        return None;
    }
    match &field.shape {
        Shape::Message(_) => Some(json!({})),
        _ if field.omit_empty => None,
        Shape::String => Some(json!("")),
        Shape::Int32 | Shape::Int64 | Shape::Double => Some(json!(0)),
        Shape::Bool => Some(json!(false)),
        _ => None,
    }
}

fn marks(field: &Field) -> Map<String, Value> {
    let mut marks = Map::new();
    match (&field.merging, &field.shape) {
        (Some(Merging::Map(keys)), _) => {
            marks.insert("x-kubernetes-list-type".into(), json!("map"));
            marks.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
        (Some(Merging::Set), _) => drop(marks.insert("x-kubernetes-list-type".into(), json!("set"))),
        (Some(Merging::Atomic), Shape::List { .. }) => {
            drop(marks.insert("x-kubernetes-list-type".into(), json!("atomic")))
        }
        (Some(Merging::Atomic), _) => drop(marks.insert("x-kubernetes-map-type".into(), json!("atomic"))),
        (Some(Merging::Granular), _) => drop(marks.insert("x-kubernetes-map-type".into(), json!("granular"))),
        (None, _) => {}
    }
    let patch = &field.patch;
    let strategies: Vec<&str> = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
    if !strategies.is_empty() {
        marks.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
    }
    if let Some(key) = &patch.merge_key {
        marks.insert("x-kubernetes-patch-merge-key".into(), json!(key));
    }
    marks
}
