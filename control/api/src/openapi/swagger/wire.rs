//! A Swagger document as protobuf: gnostic's `openapi.v2.Document`, which is what clients decode.

use serde_json::{Map, Value};

use crate::protobuf::raw::{put_bytes, put_number};

/// The document on the wire.
#[must_use]
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    put_fields(&mut out, DOCUMENT, document);
    out
}

/// How a JSON value is written under its tag.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Message(Fields),
    /// An object whose entries become messages of name and value: the tag is that of the entries inside.
    Named(fn(&mut Vec<u8>, &Value)),
    Write(fn(&mut Vec<u8>, u32, &Value)),
}

type Fields = &'static [(&'static str, u32, Form)];

const DOCUMENT: Fields = &[
    ("swagger", 1, Form::Text),
    ("info", 2, Form::Message(&[("title", 1, Form::Text), ("version", 2, Form::Text)])),
    ("paths", 8, Form::Write(|out, tag, value| put_wrapped(out, tag, 2, value, path_item))),
    ("definitions", 9, Form::Named(schema)),
];

const OPERATION: Fields = &[
    ("operationId", 5, Form::Text),
    ("produces", 6, Form::Texts),
    ("consumes", 7, Form::Texts),
    ("parameters", 8, Form::Write(parameters)),
    ("responses", 9, Form::Named(response)),
];

const SCHEMA: Fields = &[
    ("$ref", 1, Form::Text),
    ("format", 2, Form::Text),
    ("title", 3, Form::Text),
    ("description", 4, Form::Text),
    ("pattern", 13, Form::Text),
    ("required", 19, Form::Texts),
    (
        "enum",
        20,
        Form::Write(|out, tag, value| value.as_array().into_iter().flatten().for_each(|v| put_any(out, tag, v))),
    ),
    ("additionalProperties", 21, Form::Write(additional_properties)),
    ("type", 22, Form::Write(|out, tag, value| put_message(out, tag, |out| put_texts(out, 1, value)))),
    (
        "items",
        23,
        Form::Write(|out, tag, value| put_message(out, tag, |out| put_message(out, 1, |out| schema(out, value)))),
    ),
    ("properties", 25, Form::Named(schema)),
];

const METHODS: [(&str, u32); 7] =
    [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];

/// The tags of the vendor extensions in each message that has some.
const SCHEMA_EXTENSIONS: u32 = 31;
const OPERATION_EXTENSIONS: u32 = 13;

fn schema(out: &mut Vec<u8>, value: &Value) {
    put_fields(out, SCHEMA, value);
    put_extensions(out, SCHEMA_EXTENSIONS, value);
}

fn path_item(out: &mut Vec<u8>, value: &Value) {
    for (method, tag) in METHODS {
        if let Some(operation) = value.get(method) {
            put_message(out, tag, |out| {
                put_fields(out, OPERATION, operation);
                put_extensions(out, OPERATION_EXTENSIONS, operation);
            });
        }
    }
    parameters(out, 9, &value["parameters"]);
}

fn parameters(out: &mut Vec<u8>, tag: u32, value: &Value) {
    for parameter in value.as_array().into_iter().flatten() {
        put_message(out, tag, |out| put_message(out, 1, |out| self::parameter(out, parameter)));
    }
}

/// The place of a parameter decides which message it is.
fn parameter(out: &mut Vec<u8>, value: &Value) {
    const BODY: Fields = &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, Form::Write(|out, tag, value| put_message(out, tag, |out| schema(out, value)))),
    ];
    const IN_QUERY: Fields = &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("uniqueItems", 20, Form::Flag),
    ];
    const IN_PATH: Fields = &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("uniqueItems", 19, Form::Flag),
    ];
    match value["in"].as_str() {
        Some("body") => put_message(out, 1, |out| put_fields(out, BODY, value)),
        Some("path") => put_message(out, 2, |out| put_message(out, 4, |out| put_fields(out, IN_PATH, value))),
        _ => put_message(out, 2, |out| put_message(out, 3, |out| put_fields(out, IN_QUERY, value))),
    }
}

fn response(out: &mut Vec<u8>, value: &Value) {
    const RESPONSE: Fields = &[
        ("description", 1, Form::Text),
        (
            "schema",
            2,
            Form::Write(|out, tag, value| put_message(out, tag, |out| put_message(out, 1, |out| schema(out, value)))),
        ),
    ];
    put_message(out, 1, |out| put_fields(out, RESPONSE, value));
}

fn additional_properties(out: &mut Vec<u8>, tag: u32, value: &Value) {
    put_message(out, tag, |out| match value {
        Value::Bool(allowed) => put_number(out, 2, u64::from(*allowed)),
        value => put_message(out, 1, |out| schema(out, value)),
    });
}

fn put_fields(out: &mut Vec<u8>, fields: Fields, value: &Value) {
    for (name, tag, form) in fields {
        let Some(value) = value.get(name) else { continue };
        match form {
            Form::Text => put_bytes(out, *tag, value.as_str().unwrap_or_default().as_bytes()),
            Form::Texts => put_texts(out, *tag, value),
            Form::Flag if value == true => put_number(out, *tag, 1),
            Form::Flag => {}
            Form::Message(fields) => put_message(out, *tag, |out| put_fields(out, fields, value)),
            Form::Named(write) => put_wrapped(out, *tag, 1, value, *write),
            Form::Write(write) => write(out, *tag, value),
        }
    }
}

/// One text or several.
fn put_texts(out: &mut Vec<u8>, tag: u32, value: &Value) {
    let texts = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
    texts.into_iter().filter_map(Value::as_str).for_each(|text| put_bytes(out, tag, text.as_bytes()));
}

fn put_message(out: &mut Vec<u8>, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    write(&mut content);
    put_bytes(out, tag, &content);
}

/// A message of nothing but named entries.
fn put_wrapped(out: &mut Vec<u8>, tag: u32, inner: u32, value: &Value, write: fn(&mut Vec<u8>, &Value)) {
    put_message(out, tag, |out| {
        for (name, value) in object(value) {
            put_message(out, inner, |out| {
                put_bytes(out, 1, name.as_bytes());
                put_message(out, 2, |out| write(out, value));
            });
        }
    });
}

fn put_extensions(out: &mut Vec<u8>, tag: u32, value: &Value) {
    for (name, value) in object(value).filter(|(name, _)| name.starts_with("x-")) {
        put_message(out, tag, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_any(out, 2, value);
        });
    }
}

/// Any value travels as YAML text, and JSON is YAML.
fn put_any(out: &mut Vec<u8>, tag: u32, value: &Value) {
    put_message(out, tag, |out| put_bytes(out, 2, value.to_string().as_bytes()));
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_the_messages_of_gnostic() {
        let document = json!({"swagger": "2.0", "definitions": {"D": {"type": "object", "required": ["a"],
            "properties": {"a": {"$ref": "#/definitions/E"}}, "x-k": ["v"]}}});
        let expected = [
            b"\x0a\x032.0".as_slice(),                                       // swagger
            b"\x4a\x42\x0a\x40\x0a\x01D\x12\x3b",                            // definitions, entry, its name and value
            b"\x9a\x01\x01a",                                                // required
            b"\xb2\x01\x08\x0a\x06object",                                   // type
            b"\xca\x01\x18\x0a\x16\x0a\x01a\x12\x11\x0a\x0f#/definitions/E", // properties
            b"\xfa\x01\x0e\x0a\x03x-k\x12\x07\x12\x05[\"v\"]",               // extension
        ];
        assert_eq!(encode(&document), expected.concat());
    }
}
