//! Request bodies: bounded, in any of the encodings, as values of the type that the endpoint takes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use control_api::protobuf;
use control_api::registry::{GroupVersionKind, Resource, api_version};
use control_api::schema::{self, Message};
use control_api::status::Status;
use control_api::strict::{self, Body};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::handler::Context;
use crate::limits::{DISCARD_TIMEOUT, DISCARDED_BYTES_MAX};
use crate::state::Server;

/// Room for bodies is given out in pieces of this size.
const ROOM_BYTES: usize = 4 << 10;
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
const CUSTOM_PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// A whole body, and the room that it takes in memory.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Room for all bodies at once, in the pieces that [`receive`] takes.
pub(crate) fn room(bytes: usize) -> usize {
    bytes.div_ceil(ROOM_BYTES)
}

/// Takes a body in. The caller holds nothing meanwhile that others wait for.
///
/// # Errors
/// 413 for a body that is too large, 408 for one that does not come, 429 when there is no room for it.
pub(crate) async fn receive(server: &Server, headers: &HeaderMap, mut body: Incoming) -> Result<Received, Status> {
    let limits = &server.limits;
    let max = limits.body_bytes;
    let too_large = || Status::too_large(format!("Request entity too large: limit is {max}"));
    if body.size_hint().lower() > max as u64 {
        discard(headers, body);
        return Err(too_large());
    }
    let deadline = Instant::now() + limits.body;
    let mut room: Option<OwnedSemaphorePermit> = None;
    let mut bytes = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => {
                let why = format!("Timeout: the body of the request did not arrive within {:?}", limits.body);
                return Err(Status::new(408, "Timeout", why));
            }
            Ok(None) => return Ok(Received { bytes: bytes.freeze(), _room: room }),
            Ok(Some(Err(error))) => {
                return Err(Status::bad_request(format!("cannot read the request body: {error}")));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(chunk) = frame.into_data() else { continue };
        if bytes.len() + chunk.len() > max {
            discard(headers, body);
            return Err(too_large());
        }
        let had = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self::room(bytes.len() + chunk.len()).saturating_sub(had);
        let Ok(permit) = Arc::clone(&server.bodies).try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX))
        else {
            discard(headers, body);
            return Err(Status::too_many_requests("too many requests, please try again later", 1));
        };
        match &mut room {
            Some(room) => room.merge(permit),
            None => room = Some(permit),
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// Goes on taking what a refused client sends, for a while: closing a connection with something unread would take back
/// the answer before the client has read it.
pub(crate) fn discard(headers: &HeaderMap, mut body: Incoming) {
    // Who asks before it sends has not sent anything.
    if body.is_end_stream() || headers.contains_key(http::header::EXPECT) {
        return;
    }
    tokio::spawn(timeout(DISCARD_TIMEOUT, async move {
        let mut left = DISCARDED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}

/// The media type without parameters; empty if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// How unknown and repeated fields are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(crate) fn of(context: &Context) -> Result<Self, Status> {
        match context.info.query.get("fieldValidation") {
            Some("Ignore") => Ok(Self::Ignore),
            None | Some("Warn") => Ok(Self::Warn),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Custom resources are not written as protobuf, and know no strategic merge patch.
///
/// # Errors
/// 415 for these.
pub(crate) fn check_media_type(context: &Context, headers: &HeaderMap) -> Result<(), Status> {
    match (context.info.verb, media_type(headers)) {
        ("patch", "application/strategic-merge-patch+json") => Err(Status::unsupported_media_type(CUSTOM_PATCH_TYPES)),
        ("create" | "update", protobuf::MEDIA_TYPE) if context.info.subresource != "scale" => {
            Err(Status::unsupported_media_type(&MEDIA_TYPES[..2]))
        }
        _ => Ok(()),
    }
}

/// The message of a resource's objects.
pub(crate) fn message_of(resource: &Resource) -> Result<&Message, Status> {
    resource.message().ok_or_else(|| no_schema(&resource.gvk()))
}

fn no_schema(kind: &GroupVersionKind) -> Status {
    Status::internal(format!("kind {} of {} has no schema", kind.kind, kind.api_version()))
}

/// The message of a kind that this server serves.
pub(crate) fn message(kind: &GroupVersionKind) -> Result<&'static Message, Status> {
    schema::kind(&kind.group, &kind.version, &kind.kind).ok_or_else(|| no_schema(kind))
}

/// Reads a body that must hold an object of this kind.
pub(crate) fn object(context: &Context, kind: &GroupVersionKind, body: &Bytes) -> Result<Value, Status> {
    object_as(context, kind, message(kind)?, body)
}

/// Reads a body that must hold an object of this resource.
pub(crate) fn object_of(context: &Context, resource: &Resource, body: &Bytes) -> Result<Value, Status> {
    object_as(context, &resource.gvk(), message_of(resource)?, body)
}

fn object_as(context: &Context, kind: &GroupVersionKind, message: &Message, body: &Bytes) -> Result<Value, Status> {
    let validation = FieldValidation::of(context)?;
    let body = decode(context, message, body)?;
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => body.strict.iter().for_each(|text| context.warn(text.clone())),
        FieldValidation::Strict => {
            if let Some(status) = body.strict_status() {
                return Err(status);
            }
        }
    }
    let mut value = body.value;
    check_type(kind, &mut value)?;
    Ok(value)
}

/// The same where the body may be left out: null then.
pub(crate) fn optional(context: &Context, kind: &GroupVersionKind, bytes: &Bytes) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    decode(context, message(kind)?, bytes).map(|body| body.value)
}

fn decode(context: &Context, message: &Message, bytes: &[u8]) -> Result<Body, Status> {
    match media_type(&context.headers) {
        "application/yaml" | "text/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("the body is not UTF-8"))?;
            let value: Value = serde_saphyr::from_str(text)
                .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
            strict::decode_value(message, value)
        }
        "" | "application/json" | protobuf::MEDIA_TYPE => strict::decode_body(message, bytes),
        _ => Err(Status::unsupported_media_type(MEDIA_TYPES)),
    }
}

/// A body may leave its type out, but not have another one.
fn check_type(kind: &GroupVersionKind, value: &mut Value) -> Result<(), Status> {
    keep_type(&api_version(&kind.group, &kind.version), &kind.kind, value)
}

/// The type that an object must have, which it gets if it says none.
pub(crate) fn keep_type(api_version: &str, kind: &str, value: &mut Value) -> Result<(), Status> {
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        let found = value.get(field).and_then(Value::as_str).unwrap_or_default();
        if !found.is_empty() && found != wanted {
            let what = if field == "kind" { "kind" } else { "API version" };
            return Err(Status::bad_request(format!(
                "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
            )));
        }
        value[field] = wanted.into();
    }
    Ok(())
}
