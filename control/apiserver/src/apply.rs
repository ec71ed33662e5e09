//! Server-side apply: PATCH with `application/apply-patch+yaml`, for objects, their status and their scale. An object that
//! does not exist is created.

use std::sync::Arc;

use bytes::Bytes;
use control_api::decode::decode_json;
use control_api::managed_fields::{self, Application};
use control_api::registry::{GroupVersionKind, Resource};
use control_api::schema::Message;
use control_api::status::Status;
use control_api::{meta, strategy};
use http::StatusCode;
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy;

use crate::authz::Attributes;
use crate::body::{self, FieldValidation};
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::reply::{self, Reply};
use crate::subresource::{scale_kind, with_scale};
use crate::write::{self, Ownership};
use crate::{form, patch};

/// How often an object that came or went meanwhile is tried again.
const ATTEMPTS_MAX: usize = 5;

pub(crate) async fn apply(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let config = read(context, &body)?;
    for _ in 0..ATTEMPTS_MAX {
        match update(context, resource, &config).await {
            Err(status) if status.code == 404 && context.info.subresource.is_empty() => {}
            updated => {
                let updated = updated?;
                write::published(context, resource, &updated).await;
                return form::one(context, resource, updated, wanted, StatusCode::OK);
            }
        }
        match create(context, resource, &config).await {
            Err(status) if status.reason == "AlreadyExists" => {}
            created => {
                let created = created?;
                write::published(context, resource, &created).await;
                return form::one(context, resource, created, wanted, StatusCode::CREATED);
            }
        }
    }
    Err(Status::internal("the object came and went again and again"))
}

/// The replicas of a workload, applied as a Scale.
pub(crate) async fn apply_scale(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let config = read(context, &body)?;
    let kind = scale_kind();
    let message = body::message(&kind)?;
    let scaled = write::modify_as(context, resource, Ownership::Decided, |current| {
        let shown = strategy::scale_of(resource, current)?;
        let time = now();
        let request = Application { live: Some(&shown), ..application(context, &config, &kind, message, &time) };
        let (scale, managers) = managed_fields::apply_scale(&request, current, &strategy::replicas_path(resource))?;
        let mut object = with_scale(resource, current, &scale)?;
        managed_fields::write(&mut object, &managers);
        Ok(object)
    });
    reply::value(StatusCode::OK, &strategy::scale_of(resource, &scaled.await?)?, wanted)
}

async fn update(context: &Context, resource: &Arc<Resource>, config: &Value) -> Result<Value, Status> {
    write::modify_as(context, resource, Ownership::Decided, |current| merged(context, resource, config, Some(current)))
        .await
}

async fn create(context: &Context, resource: &Arc<Resource>, config: &Value) -> Result<Value, Status> {
    let attributes = Attributes { verb: "create", ..Attributes::of(&context.info) };
    context.server.authorizer.require(&context.user, &attributes).await?;
    let mut object = merged(context, resource, config, None)?;
    let (name, uid) = (&context.info.name, meta::uid(&object));
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(&resource.group, &resource.plural, name, why));
    }
    meta::set_field(&mut object, "resourceVersion", Value::Null);
    write::create_as(context, resource, object, Ownership::Decided).await
}

/// What becomes of the object, which must still be the one that the path names.
fn merged(context: &Context, resource: &Resource, config: &Value, live: Option<&Value>) -> Result<Value, Status> {
    let (kind, info) = (resource.gvk(), &context.info);
    let message = body::message_of(resource)?;
    let ignored = strategy::ignored_fields(resource, message, &info.subresource);
    let time = now();
    let request = Application { live, ignored: &ignored, ..application(context, config, &kind, message, &time) };
    let merged = managed_fields::apply(&request)?;
    let namespace = meta::namespace(&merged);
    if resource.namespaced && !namespace.is_empty() && namespace != info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    match meta::name(&merged) {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            info.name
        ))),
        name if name != info.name => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            info.name
        ))),
        _ => Ok(merged),
    }
}

fn application<'a>(
    context: &'a Context,
    config: &'a Value,
    kind: &'a GroupVersionKind,
    message: &'a Message,
    time: &'a str,
) -> Application<'a> {
    let query = &context.info.query;
    Application {
        live: None,
        config,
        kind,
        message,
        manager: query.get("fieldManager").unwrap_or_default(),
        subresource: &context.info.subresource,
        time,
        force: query.flag("force"),
        ignored: managed_fields::FieldSet::none(),
    }
}

fn now() -> String {
    control_api::schema::time::seconds(jiff::Timestamp::now())
}

/// The applied configuration: YAML, which JSON is, too.
fn read(context: &Context, body: &Bytes) -> Result<Value, Status> {
    patch::check_options(context, true)?;
    let validation = FieldValidation::of(context)?;
    let (config, repeated) = parse(body)?;
    if let Some(error) = repeated {
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => context.warn(error),
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("error strict decoding YAML: {error}")));
            }
        }
    }
    Ok(config)
}

/// The object, and what is wrong with it if a key occurs twice.
fn parse(bytes: &[u8]) -> Result<(Value, Option<String>), Status> {
    let refused = |why: &dyn std::fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| refused(&error))?;
    let (value, once) = match decode_json(bytes) {
        Ok(decoded) => (decoded.value, decoded.duplicates.is_empty()),
        Err(_) => {
            let value = from_yaml(text, DuplicateKeyPolicy::LastWins);
            let wrong = |error: &serde_saphyr::Error| format!("error converting YAML to JSON: yaml: {error}");
            (value.map_err(|error| refused(&wrong(error.without_snippet())))?, false)
        }
    };
    let value = match value {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => value,
        other => {
            let found = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            return Err(refused(&format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type \
                 map[string]interface {{}}"
            )));
        }
    };
    if once {
        return Ok((value, None));
    }
    let strict = from_yaml(text, DuplicateKeyPolicy::Error).err();
    Ok((value, strict.as_ref().and_then(|error| repeated_key(error.without_snippet()))))
}

fn repeated_key(error: &serde_saphyr::Error) -> Option<String> {
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error else { return None };
    let (line, key) = (location.line(), key.as_deref().unwrap_or_default());
    let error = format!("  line {line}: key {key:?} already set in map");
    Some(format!("error converting YAML to JSON: yaml: unmarshal errors:\n{error}"))
}

fn from_yaml(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { duplicate_keys: duplicate_keys })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn json_and_yaml_are_read_alike() {
        let expected = json!({"kind": "ConfigMap", "data": {"a": "1", "b": "x"}});
        for text in [
            expected.to_string(),
            "kind: ConfigMap\ndata:\n  a: \"1\"\n  b: x\n".to_owned(),
            "{kind: ConfigMap, data: {a: '1', b: x}}".to_owned(),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), (expected.clone(), None), "{text}");
        }
        assert_eq!(parse(b"").unwrap().0, json!({}));
    }

    #[test]
    fn what_is_no_object_is_refused_and_repeated_keys_are_told() {
        for (text, why) in [
            ("[1]", "cannot unmarshal array into Go value"),
            ("just text", "cannot unmarshal string into Go value"),
            ("a: [", "error converting YAML to JSON"),
        ] {
            let status = parse(text.as_bytes()).unwrap_err();
            assert!(status.code == 400 && status.message.starts_with("error decoding YAML: "), "{}", status.message);
            assert!(status.message.contains(why), "{}", status.message);
        }
        for text in ["a: 1\nb: 2\na: 3\n", "{\"a\": 1,\n \"b\": 2,\n\"a\": 3}"] {
            let (value, repeated) = parse(text.as_bytes()).unwrap();
            assert_eq!(value, json!({"a": 3, "b": 2}));
            let expected =
                "error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"a\" already set in map";
            assert_eq!(repeated.as_deref(), Some(expected));
        }
    }
}
