//! Reviews: questions about identities and permissions, answered from the request and never stored.

use bytes::Bytes;
use control_api::rbac::Rule;
use control_api::registry::Resource;
use control_api::status::Status;
use http::StatusCode;
use serde_json::{Value, json};

use crate::authn::User;
use crate::authz::Attributes;
use crate::body;
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::reply::{self, Reply};

pub(crate) async fn answer(context: &Context, resource: &Resource, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    if context.info.verb != "create" || !context.info.subresource.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let mut review = body::object(context, &resource.gvk(), &body)?;
    review["status"] = match resource.kind.as_str() {
        "SelfSubjectReview" => json!({"userInfo": context.user.to_json()}),
        "TokenReview" => token(context, &review["spec"]).await,
        "SelfSubjectRulesReview" => rules(context, &review["spec"])?,
        "SelfSubjectAccessReview" => access(context, &context.user, &review["spec"]).await?,
        "SubjectAccessReview" => access(context, &subject(&review["spec"])?, &review["spec"]).await?,
        "LocalSubjectAccessReview" => {
            let namespace = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
            if namespace != context.info.namespace {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {}",
                    context.info.namespace
                )));
            }
            access(context, &subject(&review["spec"])?, &review["spec"]).await?
        }
        other => return Err(Status::internal(format!("nothing answers reviews of kind {other}"))),
    };
    reply::value(StatusCode::CREATED, &review, wanted)
}

fn subject(spec: &Value) -> Result<User, Status> {
    let user = User::from_spec(spec);
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(Status::bad_request(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(user)
}

async fn access(context: &Context, user: &User, spec: &Value) -> Result<Value, Status> {
    if spec["resourceAttributes"].is_object() == spec["nonResourceAttributes"].is_object() {
        return Err(Status::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let decision = context.server.authorizer.decide(user, &Attributes::of_spec(spec)).await;
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

fn rules(context: &Context, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?;
    let rules = context.server.authorizer.rules(&context.user, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.paths.is_empty());
    let json = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_json).collect::<Vec<_>>();
    Ok(json!({"resourceRules": json(resources), "nonResourceRules": json(paths), "incomplete": false}))
}

async fn token(context: &Context, spec: &Value) -> Value {
    let server = &context.server;
    let token = spec["token"].as_str().unwrap_or_default();
    let audiences = spec["audiences"].as_array().into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    match server.tokens.authenticate(server, token, &audiences).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.to_json(), "audiences": audiences}),
        Err(error) => json!({"authenticated": false, "user": {}, "error": error}),
    }
}
