//! JSON text to values, keeping what plain values lose: the order of keys and keys given twice.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::Status;

/// Repeated keys that are told of; nobody reads more.
const DUPLICATES_MAX: usize = 100;

/// A value and the paths of keys that its text gave more than once.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// JSON as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Malformed JSON, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

/// Reads JSON without a schema. Of a key given twice the last one counts.
///
/// # Errors
/// 400 with Go's text for malformed JSON.
pub fn decode_json(body: &[u8]) -> Result<Decoded, Status> {
    let node = parse(body).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut duplicates = Vec::new();
    node.duplicates(&mut Vec::new(), &mut duplicates);
    let mut seen = HashSet::new();
    duplicates.retain(|path| seen.insert(path.clone()));
    Ok(Decoded { value: node.into_value(), duplicates })
}

/// Reads JSON as it was written.
///
/// # Errors
/// When the text is no JSON.
pub fn parse(body: &[u8]) -> Result<Node, SyntaxError> {
    serde_json::from_slice(body).map_err(|error| SyntaxError(go_text(body, &error)))
}

impl Node {
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Number(number) => Value::Number(number),
            Self::String(text) => Value::String(text),
            Self::List(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (key, value.into_value()));
                Value::Object(entries.collect::<Map<String, Value>>())
            }
        }
    }

    /// The last entry of this name, if this is an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Paths are spelled only where something is found: long keys with many children would cost their product.
    fn duplicates<'a>(&'a self, path: &mut Vec<Step<'a>>, found: &mut Vec<String>) {
        match self {
            Self::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    path.push(Step::Index(at));
                    item.duplicates(path, found);
                    path.pop();
                }
            }
            Self::Object(entries) => {
                let mut seen = HashSet::with_capacity(entries.len());
                for (key, value) in entries {
                    path.push(Step::Key(key));
                    if !seen.insert(key) && found.len() < DUPLICATES_MAX {
                        found.push(spell(path));
                    }
                    value.duplicates(path, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn spell(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", *key]),
            Step::Index(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Number::from_f64(number).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}

/// What Go's parser says of the same fault.
fn go_text(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let text = error.to_string();
    let line_start = body.split_inclusive(|byte| *byte == b'\n').take(error.line() - 1).map(<[u8]>::len).sum::<usize>();
    let at = (line_start + error.column()).saturating_sub(1);
    let byte = body.get(at).copied().unwrap_or_default();
    let place = match text.as_str() {
        text if text.starts_with("key must be a string") => "looking for beginning of object key string",
        text if text.starts_with("trailing comma") && byte == b'}' => "looking for beginning of object key string",
        text if text.starts_with("trailing comma") || text.starts_with("expected value") => {
            "looking for beginning of value"
        }
        text if text.starts_with("expected `:`") => "after object key",
        text if text.starts_with("expected `,` or `}`") => "after object key:value pair",
        text if text.starts_with("expected `,` or `]`") => "after array element",
        text if text.starts_with("trailing characters") => "after top-level value",
        text if text.starts_with("control character") => "in string literal",
        text if text.starts_with("invalid escape") => "in string escape code",
        text if text.starts_with("invalid number") => "in numeric literal",
        text if text.starts_with("expected ident") => return literal(body, at),
        text if text.starts_with("recursion limit") => return "exceeded max depth".into(),
        _ => return text,
    };
    format!("invalid character {} {place}", quoted(byte))
}

/// `invalid character 'x' in literal true (expecting 'e')`
fn literal(body: &[u8], at: usize) -> String {
    let start = body[..at].iter().rposition(|byte| !byte.is_ascii_lowercase()).map_or(0, |before| before + 1);
    let word = match body.get(start) {
        Some(b't') => "true",
        Some(b'f') => "false",
        _ => "null",
    };
    let expected = word.as_bytes().get(at - start).copied().unwrap_or_default();
    let byte = body.get(at).copied().unwrap_or_default();
    format!("invalid character {} in literal {word} (expecting {})", quoted(byte), quoted(expected))
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => r"'\n'".into(),
        b'\t' => r"'\t'".into(),
        b'\r' => r"'\r'".into(),
        byte if byte.is_ascii_control() => format!(r"'\x{byte:02x}'"),
        byte => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_keys_given_twice() {
        let decoded = decode_json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":3,"a":4}"#).unwrap();
        assert_eq!(decoded.value, json!({"a": 4, "b": [{"c": 2}]}));
        assert_eq!(decoded.duplicates, ["b[0].c", "a"]);
    }

    #[test]
    fn speaks_like_go() {
        for (text, want) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (r#"{"a":b}"#, "invalid character 'b' looking for beginning of value"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            ("{\"a\":1\n \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("[nul]", "invalid character ']' in literal null (expecting 'l')"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), want, "{text}");
        }
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in ["null", "-1", "18446744073709551615", "1.5", "[]", r#"{"a":[true,"x"]}"#] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap().into_value(), value);
        }
    }
}
