//! Does an object fit its type? Unknown and repeated fields, and values of the wrong type, in the API server's words.
//!
//! Field names are case sensitive. A null fits everywhere. What a wrong value hides is not looked at, as in Go, where the
//! first wrong value is the one that gets reported.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

use crate::custom;
use crate::decode::{self, Node};
use crate::protobuf;
use crate::prune::prune;
use crate::quantity::{Quantity, QuantityError};
use crate::schema::{self, Alternative, Home, Message, Shape};
use crate::status::Status;

/// The most unknown and repeated fields that one answer lists.
pub(crate) const STRICT_ERRORS_MAX: usize = 100;

/// What is wrong with an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// `unknown field "spec.foo"` and `duplicate field "spec.bar"`, in the order of the text.
    pub strict: Vec<String>,
    /// The first value that does not fit its field.
    pub type_error: Option<String>,
}

/// A request body that fits its type, in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    pub value: Value,
    /// Unknown and repeated fields: warnings, an error or nothing, as `fieldValidation` says.
    pub strict: Vec<String>,
    context: String,
}

/// Reads a JSON or protobuf body that should hold an object of this type.
///
/// # Errors
/// 400 for malformed text and for values that do not fit.
pub fn decode_body(message: &Message, body: &[u8]) -> Result<Body, Status> {
    if protobuf::is_protobuf(body) {
        let decoded = protobuf::decode_reporting(body)?;
        let strict = decoded.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        let context = context(message, decoded.value["kind"].as_str(), decoded.value["apiVersion"].as_str());
        return Ok(Body { value: decoded.value, strict, context });
    }
    let node = decode::parse(body).map_err(|error| {
        let wanted = message.short_name();
        let text = format!("couldn't get version/kind; json parse error: {error} ({})", summary(body));
        Status::bad_request(format!("the object provided is unrecognized (must be of type {wanted}): {text}"))
    })?;
    let findings = check(message, &node);
    let context =
        context(message, node.get("kind").and_then(Node::as_str), node.get("apiVersion").and_then(Node::as_str));
    fitting(message, findings, node.into_value(), context)
}

/// The same for an object that is a value already, such as one read from YAML.
///
/// # Errors
/// 400 for values that do not fit.
pub fn decode_value(message: &Message, value: Value) -> Result<Body, Status> {
    let context = context(message, value["kind"].as_str(), value["apiVersion"].as_str());
    fitting(message, check(message, &value), value, context)
}

/// Compares an object with its type.
pub fn check<T: Json>(message: &Message, object: &T) -> Findings {
    match &message.structural {
        Some(schema) => custom::findings(schema, object),
        None => check_below(message, object, ""),
    }
}

/// The same for a part of an object; what is found gets this path.
pub(crate) fn check_below<T: Json>(message: &Message, object: &T, path: &str) -> Findings {
    let mut walk = Walk { path: path.to_owned(), ..Walk::default() };
    // An error stops the walk; what it says is in the findings.
    let _ = walk.object(message, object);
    walk.findings
}

fn fitting(message: &Message, findings: Findings, mut value: Value, context: String) -> Result<Body, Status> {
    if let Some(error) = findings.type_error {
        return Err(Status::bad_request(format!("{context}: {error}")));
    }
    prune(message, &mut value);
    Ok(Body { value, strict: findings.strict, context })
}

/// `Deployment in version "v1" cannot be handled as a Deployment`
fn context(message: &Message, kind: Option<&str>, api_version: Option<&str>) -> String {
    let wanted = message.short_name();
    let version = match (api_version.filter(|text| !text.is_empty()), &message.kind) {
        (Some(api_version), _) => schema::split_api_version(api_version).1,
        (None, Some(Home::Of { version, .. })) => version,
        (None, _) => "v1",
    };
    let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or(wanted);
    format!("{kind} in version {version:?} cannot be handled as a {wanted}")
}

/// The beginning of a body that could not be read.
fn summary(body: &[u8]) -> String {
    const SUMMARY_MAX: usize = 30;
    let head = &body[..body.len().min(SUMMARY_MAX)];
    let text = match head.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SUMMARY_MAX { text + " ..." } else { text }
}

impl Findings {
    /// The text that stands for all unknown and repeated fields.
    #[must_use]
    pub fn strict_error(&self) -> Option<String> {
        strict_error(&self.strict)
    }
}

/// `strict decoding error: unknown field "spec.foo", duplicate field "spec.bar"`
#[must_use]
pub fn strict_error(errors: &[String]) -> Option<String> {
    (!errors.is_empty()).then(|| format!("strict decoding error: {}", errors.join(", ")))
}

impl Body {
    /// The refusal that `fieldValidation=Strict` asks for.
    #[must_use]
    pub fn strict_status(&self) -> Option<Status> {
        strict_error(&self.strict).map(|error| Status::bad_request(format!("{}: {error}", self.context)))
    }
}

/// JSON as the check sees it.
pub trait Json: Sized {
    fn view(&self) -> View<'_, Self>;
}

pub enum View<'a, T> {
    Null,
    Bool,
    Number(&'a Number),
    String(&'a str),
    List(&'a [T]),
    Object(Vec<(&'a str, &'a T)>),
}

impl Json for Value {
    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Null => View::Null,
            Self::Bool(_) => View::Bool,
            Self::Number(number) => View::Number(number),
            Self::String(text) => View::String(text),
            Self::Array(items) => View::List(items),
            Self::Object(map) => View::Object(map.iter().map(|(key, value)| (key.as_str(), value)).collect()),
        }
    }
}

impl Json for Node {
    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Null => View::Null,
            Self::Bool(_) => View::Bool,
            Self::Number(number) => View::Number(number),
            Self::String(text) => View::String(text),
            Self::List(items) => View::List(items),
            Self::Object(entries) => View::Object(entries.iter().map(|(key, value)| (key.as_str(), value)).collect()),
        }
    }
}

impl<T> View<'_, T> {
    /// What Go calls this kind of value.
    fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Go stops at an error that a type's own decoder raises.
struct Stop;

#[derive(Default)]
struct Walk<'a> {
    findings: Findings,
    /// With list indices and map keys: `spec.containers[0]`.
    path: String,
    /// Struct fields only: `spec.containers`.
    fields: Vec<&'a str>,
    /// The innermost struct, as Go names it.
    owner: &'a str,
}

impl<'a> Walk<'a> {
    fn object<T: Json>(&mut self, message: &'a Message, object: &T) -> Result<(), Stop> {
        let entries = match object.view() {
            View::Object(entries) => entries,
            View::Null => return Ok(()),
            other => {
                self.wrong(other.word(), message.go_name());
                return Ok(());
            }
        };
        let outer = std::mem::replace(&mut self.owner, message.short_name());
        let mut seen = HashSet::with_capacity(entries.len());
        for (name, value) in entries {
            if !seen.insert(name) {
                self.strict("duplicate", name);
            }
            match message.field(name) {
                Some(field) => {
                    self.fields.push(field.name.as_ref());
                    let length = self.enter(name);
                    self.shape(&field.shape, field.go_type.as_deref(), value)?;
                    self.path.truncate(length);
                    self.fields.pop();
                }
                None if message.keeps_unknown => {}
                None => self.strict("unknown", name),
            }
        }
        self.owner = outer;
        Ok(())
    }

    fn shape<T: Json>(&mut self, shape: &'a Shape, go_type: Option<&str>, value: &T) -> Result<(), Stop> {
        let view = value.view();
        match (shape, &view) {
            (_, View::Null) => Ok(()),
            (Shape::Message(link), _) => self.object(link.get(), value),
            (Shape::List { item, .. }, View::List(items)) => {
                let item_type = go_type.and_then(|name| name.strip_prefix("[]"));
                self.list(item, item_type, items)
            }
            (Shape::Map(shape), View::Object(entries)) => {
                let value_type = go_type.and_then(|name| name.split_once(']')).map(|(_, value)| value);
                self.map(shape, value_type, entries)
            }
            (Shape::Int32 | Shape::Int64, View::Number(number)) if !fits(shape, number) => {
                self.wrong(&format!("number {number}"), &shape.go_type());
                Ok(())
            }
            (Shape::String, View::String(_)) | (Shape::Bool, View::Bool) => Ok(()),
            (Shape::Int32 | Shape::Int64 | Shape::Double, View::Number(_)) => Ok(()),
            (Shape::Bytes, View::String(text)) => {
                if let Err(error) = STANDARD.decode(text) {
                    self.type_error(bad_base64(&error, text));
                }
                Ok(())
            }
            (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, _) => Ok(()),
            (special, view) if has_own_decoder(special) => match own_decoder(special, view) {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.findings.type_error = Some(error);
                    Err(Stop)
                }
            },
            (shape, view) => {
                let wanted = go_type.map_or_else(|| shape.go_type(), |name| name.to_owned().into());
                self.wrong(view.word(), &wanted);
                Ok(())
            }
        }
    }

    fn list<T: Json>(&mut self, item: &'a Shape, item_type: Option<&str>, items: &[T]) -> Result<(), Stop> {
        for (at, value) in items.iter().enumerate() {
            let length = self.path.len();
            self.path.push_str(&format!("[{at}]"));
            self.shape(item, item_type, value)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn map<T: Json>(&mut self, shape: &'a Shape, value_type: Option<&str>, entries: &[(&str, &T)]) -> Result<(), Stop> {
        let mut seen = HashSet::with_capacity(entries.len());
        for (key, value) in entries {
            if !seen.insert(*key) {
                self.strict("duplicate", key);
            }
            let length = self.enter(key);
            self.shape(shape, value_type, *value)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    /// Goes one key down and returns what to cut the path back to.
    fn enter(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }

    fn strict(&mut self, what: &str, name: &str) {
        let length = self.enter(name);
        let error = format!("{what} field {:?}", self.path);
        self.path.truncate(length);
        if self.findings.strict.len() < STRICT_ERRORS_MAX && !self.findings.strict.contains(&error) {
            self.findings.strict.push(error);
        }
    }

    fn wrong(&mut self, found: &str, wanted: &str) {
        let place = if self.fields.is_empty() {
            "Go value".to_owned()
        } else {
            format!("Go struct field {}.{}", self.owner, self.fields.join("."))
        };
        self.type_error(format!("json: cannot unmarshal {found} into {place} of type {wanted}"));
    }

    fn type_error(&mut self, error: String) {
        self.findings.type_error.get_or_insert(error);
    }
}

fn fits(shape: &Shape, number: &Number) -> bool {
    number.as_i64().is_some_and(|value| matches!(shape, Shape::Int64) || i32::try_from(value).is_ok())
}

fn has_own_decoder(shape: &Shape) -> bool {
    matches!(shape, Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::SchemaOr(_))
}

/// Types that read themselves say in their own words what is wrong.
fn own_decoder<T>(shape: &Shape, view: &View<'_, T>) -> Result<(), String> {
    let go_value = |wanted: &str| Err(format!("json: cannot unmarshal {} into Go value of type {wanted}", view.word()));
    match (shape, view) {
        (Shape::Quantity, View::String(text)) => quantity(text),
        (Shape::Quantity, View::Number(number)) => quantity(&number.to_string()),
        (Shape::Quantity, _) => Err(QuantityError.to_string()),
        (Shape::IntOrString, View::Number(number)) if !fits(&Shape::Int32, number) => {
            Err(format!("json: cannot unmarshal number {number} into Go value of type int32"))
        }
        (Shape::IntOrString, View::String(_) | View::Number(_)) => Ok(()),
        (Shape::IntOrString, _) => go_value("int32"),
        (Shape::Time | Shape::MicroTime, View::String(text)) => schema::time::parse(text).map(drop),
        (Shape::Time | Shape::MicroTime, _) => go_value("string"),
        (Shape::SchemaOr(Alternative::Bool), View::Bool | View::Object(_)) => Ok(()),
        (Shape::SchemaOr(Alternative::Bool), _) => Err("boolean or JSON schema expected".into()),
        _ => Ok(()),
    }
}

fn quantity(text: &str) -> Result<(), String> {
    Quantity::parse(text).map(drop).map_err(|error| error.to_string())
}

fn bad_base64(error: &base64::DecodeError, text: &str) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests;
