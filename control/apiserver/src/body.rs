//! Request bodies: bounded, in any of the encodings, as values of the type that the endpoint takes.

use bytes::Bytes;
use control_api::protobuf;
use control_api::registry::{GroupVersionKind, Resource, api_version};
use control_api::schema::{self, Message};
use control_api::status::Status;
use control_api::strict::{self, Body};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::handler::Context;

/// As upstream: what etcd takes, twice.
const BODY_BYTES_MAX: usize = 3 << 20;
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
const CUSTOM_PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

pub(crate) async fn read(body: Incoming) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::bad_request(format!("cannot read the request body: {error}"))),
    }
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
pub(crate) async fn object(context: &Context, kind: &GroupVersionKind, body: Incoming) -> Result<Value, Status> {
    object_as(context, kind, message(kind)?, body).await
}

/// Reads a body that must hold an object of this resource.
pub(crate) async fn object_of(context: &Context, resource: &Resource, body: Incoming) -> Result<Value, Status> {
    object_as(context, &resource.gvk(), message_of(resource)?, body).await
}

async fn object_as(
    context: &Context,
    kind: &GroupVersionKind,
    message: &Message,
    body: Incoming,
) -> Result<Value, Status> {
    let validation = FieldValidation::of(context)?;
    let bytes = read(body).await?;
    let body = decode(context, message, &bytes)?;
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
pub(crate) async fn optional(context: &Context, kind: &GroupVersionKind, body: Incoming) -> Result<Value, Status> {
    let bytes = read(body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    decode(context, message(kind)?, &bytes).map(|body| body.value)
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
    let wanted = api_version(&kind.group, &kind.version);
    for (field, wanted) in [("apiVersion", wanted.as_str()), ("kind", kind.kind.as_str())] {
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
