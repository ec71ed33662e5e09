//! Subresources that are no plain part of their object: `scale`, `binding`, `token`.

use std::sync::Arc;

use bytes::Bytes;
use control_api::registry::{GroupVersionKind, Resource};
use control_api::status::{Cause, Status};
use control_api::{defaults, meta, strategy, validation};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{self, Operation};
use crate::authn::token::{Bindings, Reference};
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::patch::{self, Patch};
use crate::reply::{self, Reply};
use crate::{apply, body, form, write};

pub(crate) fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

pub(crate) async fn scale_get(context: &Context, resource: &Arc<Resource>) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let info = &context.info;
    let found = context.server.read(resource, &info.namespace, &info.name).await?;
    let (_, mut object) = found.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, &info.name))?;
    resource.from_stored(&mut object);
    reply::value(StatusCode::OK, &strategy::scale_of(resource, &object)?, wanted)
}

pub(crate) async fn scale_update(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let scale = body::object(context, &scale_kind(), &body)?;
    let scaled = write::modify(context, resource, |current| with_scale(resource, current, &scale)).await?;
    reply::value(StatusCode::OK, &strategy::scale_of(resource, &scaled)?, wanted)
}

pub(crate) async fn scale_patch(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    if patch::is_apply(context) {
        return apply::apply_scale(context, resource, body).await;
    }
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let patch = Patch::read(context, &body)?;
    let message = body::message(&scale_kind())?;
    let scaled = write::modify(context, resource, |current| {
        let scale = patch.apply(context, message, &strategy::scale_of(resource, current)?)?;
        with_scale(resource, current, &scale)
    });
    reply::value(StatusCode::OK, &strategy::scale_of(resource, &scaled.await?)?, wanted)
}

pub(crate) fn with_scale(resource: &Resource, current: &Value, scale: &Value) -> Result<Value, Status> {
    refuse(&scale_kind(), meta::name(current), validation::validate_scale(scale))?;
    let mut object = current.clone();
    strategy::apply_scale(resource, &mut object, scale)?;
    // Of a scale without a version, any concurrent write is as good.
    if meta::resource_version(scale).is_empty() {
        meta::set_field(&mut object, "resourceVersion", Value::Null);
    }
    Ok(object)
}

fn refuse(kind: &GroupVersionKind, name: &str, causes: Vec<Cause>) -> Result<(), Status> {
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&kind.group, &kind.kind, name, causes)) }
}

/// Assigns a pod to a node.
pub(crate) async fn bind(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let binding = body::object(context, &GroupVersionKind::new("", "v1", "Binding"), &body)?;
    let uid = meta::uid(&binding);
    write::modify(context, resource, |pod| {
        if !uid.is_empty() && uid != meta::uid(pod) {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(pod));
            return Err(Status::conflict("", "pods", meta::name(pod), why));
        }
        let mut bound = pod.clone();
        strategy::bind(&mut bound, &binding, jiff::Timestamp::now())?;
        meta::set_field(&mut bound, "resourceVersion", Value::Null);
        Ok(bound)
    })
    .await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    reply::value(StatusCode::CREATED, &success, wanted)
}

/// Issues a service-account token.
pub(crate) async fn token(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let info = &context.info;
    let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let mut request = body::object(context, &kind, &body)?;
    defaults::token_request(&mut request);
    let found = context.server.read(resource, &info.namespace, &info.name).await?;
    let (_, account) = found.ok_or_else(|| Status::not_found("", "serviceaccounts", &info.name))?;
    let admitted = admission::Request::new(context, resource, Operation::Connect, "token", None);
    admission::validate(&admitted, &request).await?;
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(3600);
    refuse(&kind, &info.name, validation::validate_token_request(&request))?;
    let bindings = bindings(context, &account, &spec["boundObjectRef"]).await?;
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let now = jiff::Timestamp::now();
    let tokens = &context.server.tokens;
    let token = tokens.issue(bindings, &audiences, seconds, now.as_second());
    let token = token.map_err(|error| Status::internal(format!("cannot issue a token: {error:#}")))?;
    let expires = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
    if audiences.is_empty() {
        request["spec"]["audiences"] = json!([tokens.issuer()]);
    }
    meta::set_field(&mut request, "name", info.name.as_str());
    meta::set_field(&mut request, "namespace", info.namespace.as_str());
    meta::set_field(&mut request, "creationTimestamp", control_api::schema::time::seconds(now));
    request["status"] = json!({"token": token, "expirationTimestamp": control_api::schema::time::seconds(expires)});
    form::one(context, resource, request, wanted, StatusCode::CREATED)
}

/// What the token stands and falls with.
async fn bindings(context: &Context, account: &Value, bound: &Value) -> Result<Bindings, Status> {
    let info = &context.info;
    let reference = |object: &Value| Reference { name: meta::name(object).into(), uid: meta::uid(object).into() };
    let mut bindings =
        Bindings { namespace: info.namespace.clone(), serviceaccount: reference(account), ..Bindings::default() };
    if !bound.is_object() {
        return Ok(bindings);
    }
    let (plural, namespace) = match bound["kind"].as_str() {
        Some("Pod") => ("pods", info.namespace.as_str()),
        Some("Secret") => ("secrets", info.namespace.as_str()),
        Some("Node") => ("nodes", ""),
        other => {
            let text = other.unwrap_or_default();
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {} to object of kind \"{text}\"",
                info.name
            )));
        }
    };
    let name = bound["name"].as_str().unwrap_or_default();
    let server = &context.server;
    let resource = server.builtin("", plural)?;
    let found = server.read(&resource, namespace, name).await?;
    let (_, object) = found.ok_or_else(|| Status::not_found("", plural, name))?;
    let uid = bound["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, name, why));
    }
    match plural {
        "pods" => {
            if object["spec"]["serviceAccountName"] != info.name.as_str() {
                let why = format!("cannot bind token to pod {name}: it runs as another service account");
                return Err(Status::bad_request(why));
            }
            let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
            if !node.is_empty() {
                let nodes = server.builtin("", "nodes")?;
                bindings.node = server.read(&nodes, "", node).await?.map(|(_, node)| reference(&node));
            }
            bindings.pod = Some(reference(&object));
        }
        "secrets" => bindings.secret = Some(reference(&object)),
        _ => bindings.node = Some(reference(&object)),
    }
    Ok(bindings)
}
