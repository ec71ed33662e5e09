//! Kubernetes' protobuf encoding: `k8s\0`, an envelope that names the type, and the object.
//!
//! Go writes every field that is no pointer even when it is zero, so zero means absent unless the schema says pointer; the
//! values that come out are in the normal form of [`crate::prune`].

pub(crate) mod raw;
mod read;
mod write;

use serde_json::Value;

use crate::prune::prune;
use crate::schema::{self, Message};
use crate::status::Status;

const MAGIC: &[u8] = b"k8s\0";

/// The media type of this encoding.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// An object and what of it this server does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// Paths of fields with a tag that the schema lacks, such as `spec.template.#99`. Their values are lost.
    pub unknown: Vec<String>,
}

/// Whether a body carries the protobuf envelope.
#[must_use]
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads an object, refusing fields that this server does not know.
///
/// # Errors
/// 400 for a malformed body, an unknown kind or an unknown field.
pub fn decode(body: &[u8]) -> Result<Value, Status> {
    let Decoded { value, unknown } = decode_reporting(body)?;
    if unknown.is_empty() {
        return Ok(value);
    }
    let unknown: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    Err(Status::bad_request(format!("strict decoding error: {}", unknown.join(", "))))
}

/// Reads an object and reports the fields that this server does not know.
///
/// # Errors
/// 400 for a malformed body or an unknown kind.
pub fn decode_reporting(body: &[u8]) -> Result<Decoded, Status> {
    read::object(body).map_err(|error| match error {
        ReadError::Kind { api_version, kind } => no_kind(&api_version, &kind),
        malformed => Status::bad_request(format!("unable to decode protobuf: {malformed}")),
    })
}

/// Writes an object, whose `apiVersion` and `kind` name its type.
///
/// # Errors
/// 400 for an unknown kind, 500 when a field does not hold what its schema says.
pub fn encode(object: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind, message) = type_of(object)?;
    write::object(api_version, kind, message, object).map_err(|error| Status::internal(error.to_string()))
}

fn type_of(object: &Value) -> Result<(&str, &str, &'static Message), Status> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = schema::of_type(api_version, kind).ok_or_else(|| no_kind(api_version, kind))?;
    Ok((api_version, kind, message))
}

fn no_kind(api_version: &str, kind: &str) -> Status {
    Status::bad_request(format!("no kind {kind:?} is registered for version {api_version:?} in scheme"))
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the body lacks its prefix")]
    Prefix,
    #[error("no kind {kind:?} in {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("unexpected end of the message at {0:?}")]
    Truncated(String),
    #[error("a number of more than 64 bits at {0:?}")]
    Varint(String),
    #[error("wrong wire type {wire_type} at {path:?}")]
    WireType { path: String, wire_type: u8 },
    #[error("text that is not UTF-8 at {0:?}")]
    Utf8(String),
    #[error("embedded JSON at {path:?}: {source}")]
    Json { path: String, source: serde_json::Error },
    #[error("a time out of range at {0:?}")]
    Time(String),
    #[error("more than {} levels of messages", read::DEPTH_MAX)]
    Depth,
}

fn normal(message: &Message, mut value: Value) -> Value {
    prune(message, &mut value);
    value
}

#[cfg(test)]
mod tests;
