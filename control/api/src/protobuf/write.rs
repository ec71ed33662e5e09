//! JSON values to protobuf, byte for byte as Go writes them: fields by number, everything that is no pointer always.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::MAGIC;
use super::raw::{FIXED64, put_bytes, put_key, put_number};
use crate::quantity::Quantity;
use crate::schema::{self, Alternative, Field, Message, Presence, Shape, Wire, WireContent};

pub(super) const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

#[derive(Debug, thiserror::Error)]
#[error("cannot encode {field}: {value} is no {shape}")]
pub(super) struct WriteError {
    field: String,
    value: Value,
    shape: String,
}

/// The envelope and the object in it.
pub(super) fn object(api_version: &str, kind: &str, message: &Message, object: &Value) -> Result<Vec<u8>, WriteError> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut content = Vec::with_capacity(512);
    self::message(&mut content, message, message.wire(), object.as_object())?;
    let mut out = Vec::with_capacity(content.len() + type_meta.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, &content);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Ok(out)
}

fn message(
    out: &mut Vec<u8>,
    message: &Message,
    wire: &[Wire],
    object: Option<&Map<String, Value>>,
) -> Result<(), WriteError> {
    for entry in wire {
        match &entry.content {
            WireContent::Inlined(inner) => {
                let mut content = Vec::new();
                self::message(&mut content, message, inner, object)?;
                put_bytes(out, entry.tag, &content);
            }
            WireContent::Field(index) => {
                let field = &message.fields()[*index];
                let value = object.and_then(|object| object.get(field.name.as_ref())).filter(|value| !value.is_null());
                self::field(out, entry.tag, field, value).map_err(|error| error.inside(message, &field.name))?;
            }
        }
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, tag: u32, field: &Field, value: Option<&Value>) -> Result<(), WriteError> {
    match (&field.shape, value) {
        (Shape::List { item, wrapped: false }, Some(Value::Array(list))) => {
            list.iter().try_for_each(|value| self::value(out, tag, item, Some(value)))
        }
        (Shape::Map(shape), Some(Value::Object(map))) => map.iter().try_for_each(|(key, value)| {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            self::value(&mut entry, 2, shape, Some(value))?;
            put_bytes(out, tag, &entry);
            Ok(())
        }),
        (shape @ (Shape::List { wrapped: false, .. } | Shape::Map(_)), Some(other)) => Err(mismatch(shape, other)),
        (shape, Some(value)) => self::value(out, tag, shape, Some(value)),
        (shape, None) if field.presence == Presence::Value => self::value(out, tag, shape, None),
        (_, None) => Ok(()),
    }
}

/// One value; `None` and null are the zero of its type.
fn value(out: &mut Vec<u8>, tag: u32, shape: &Shape, value: Option<&Value>) -> Result<(), WriteError> {
    let value = value.unwrap_or(&Value::Null);
    let wrong = || mismatch(shape, value);
    match shape {
        Shape::String => put_bytes(out, tag, text(value).ok_or_else(wrong)?.as_bytes()),
        Shape::Int32 | Shape::Int64 => put_number(out, tag, integer(value).ok_or_else(wrong)? as u64),
        Shape::Bool => put_number(out, tag, u64::from(boolean(value).ok_or_else(wrong)?)),
        Shape::Double => {
            let number = if value.is_null() { 0.0 } else { value.as_f64().ok_or_else(wrong)? };
            put_key(out, tag, FIXED64);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Shape::Bytes => {
            let bytes = STANDARD.decode(text(value).ok_or_else(wrong)?).map_err(|_| wrong())?;
            put_bytes(out, tag, &bytes);
        }
        _ => {
            let mut content = Vec::new();
            composite(&mut content, shape, value)?;
            put_bytes(out, tag, &content);
        }
    }
    Ok(())
}

/// The content of everything that is a message on the wire.
fn composite(out: &mut Vec<u8>, shape: &Shape, value: &Value) -> Result<(), WriteError> {
    let wrong = || mismatch(shape, value);
    match (shape, value) {
        (Shape::Message(link), Value::Object(_) | Value::Null) => {
            let inner = link.get();
            message(out, inner, inner.wire(), value.as_object())?;
        }
        (Shape::List { item, .. }, Value::Array(list)) => {
            list.iter().try_for_each(|value| self::value(out, 1, item, Some(value)))?;
        }
        (Shape::Quantity, Value::Null) => put_bytes(out, 1, b"0"),
        (Shape::Quantity, Value::String(text)) => {
            let quantity = Quantity::parse(text).map_err(|_| wrong())?;
            put_bytes(out, 1, quantity.to_string().as_bytes());
        }
        (Shape::Quantity, Value::Number(number)) => put_bytes(out, 1, number.to_string().as_bytes()),
        (Shape::IntOrString, _) => {
            put_number(out, 1, u64::from(value.is_string()));
            put_number(out, 2, integer(value).unwrap_or_default() as u64);
            put_bytes(out, 3, text(value).unwrap_or_default().as_bytes());
        }
        (Shape::Time | Shape::MicroTime | Shape::RawExtension | Shape::FieldsV1 | Shape::Json, Value::Null) => {}
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let time = schema::time::parse(text).map_err(|_| wrong())?;
            let nanos = if matches!(shape, Shape::MicroTime) { time.subsec_nanosecond() / 1000 * 1000 } else { 0 };
            put_number(out, 1, time.as_second() as u64);
            put_number(out, 2, nanos as u64);
        }
        (Shape::SchemaOr(alternative), _) => schema_or(out, *alternative, value)?,
        (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, _) => {
            put_bytes(out, 1, value.to_string().as_bytes());
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn schema_or(out: &mut Vec<u8>, alternative: Alternative, value: &Value) -> Result<(), WriteError> {
    let json_schema = |out: &mut Vec<u8>, tag: u32, value: &Value| -> Result<(), WriteError> {
        let mut content = Vec::new();
        if let Some(schema) = schema::message(JSON_SCHEMA) {
            message(&mut content, schema, schema.wire(), value.as_object())?;
        }
        put_bytes(out, tag, &content);
        Ok(())
    };
    match (alternative, value) {
        (Alternative::Bool, Value::Object(_)) => {
            put_number(out, 1, 1);
            json_schema(out, 2, value)?;
        }
        (Alternative::Bool, _) => put_number(out, 1, u64::from(value == &Value::Bool(true))),
        (_, Value::Object(_)) => json_schema(out, 1, value)?,
        (Alternative::Array, Value::Array(list)) => list.iter().try_for_each(|item| json_schema(out, 2, item))?,
        (Alternative::Strings, Value::Array(list)) => {
            list.iter().for_each(|item| put_bytes(out, 2, text(item).unwrap_or_default().as_bytes()));
        }
        _ => {}
    }
    Ok(())
}

fn text(value: &Value) -> Option<&str> {
    if value.is_null() { Some("") } else { value.as_str() }
}

fn integer(value: &Value) -> Option<i64> {
    if value.is_null() { Some(0) } else { value.as_i64() }
}

fn boolean(value: &Value) -> Option<bool> {
    if value.is_null() { Some(false) } else { value.as_bool() }
}

fn mismatch(shape: &Shape, value: &Value) -> WriteError {
    WriteError { field: String::new(), value: value.clone(), shape: shape.go_type().into_owned() }
}

impl WriteError {
    /// Names the innermost message and field.
    fn inside(mut self, message: &Message, field: &str) -> Self {
        if self.field.is_empty() {
            self.field = format!("{}.{field}", message.short_name());
        }
        self
    }
}
