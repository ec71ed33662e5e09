//! Nobody grants permissions that he does not hold, unless he may `escalate` or `bind`.

use control_api::meta;
use control_api::rbac::{Rule, uncovered};
use control_api::status::Status;
use serde_json::Value;

use super::{Operation, Request, Step};
use crate::authn::MASTERS;
use crate::authz::Attributes;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct Escalation;

#[async_trait::async_trait]
impl Step for Escalation {
    async fn validate(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if request.resource.group != GROUP || !writes || request.context.user.is_in(MASTERS) {
            return Ok(());
        }
        // A binding often follows its role at once.
        request.context.server.authorizer.catch_up().await;
        let unchanged = |field: &str| request.old.is_some_and(|old| old[field] == object[field]);
        match request.resource.plural.as_str() {
            "roles" | "clusterroles" if !unchanged("rules") || !unchanged("aggregationRule") => {
                let plural = request.resource.plural.as_str();
                check(request, object, "escalate", plural, meta::name(object), &granted_by(object)).await
            }
            "rolebindings" | "clusterrolebindings" if !unchanged("subjects") => {
                let role = &object["roleRef"];
                let name = role["name"].as_str().unwrap_or_default();
                let (plural, namespace) =
                    if role["kind"] == "Role" { ("roles", meta::namespace(object)) } else { ("clusterroles", "") };
                let rules = request.context.server.authorizer.role(namespace, name);
                let rules = rules.ok_or_else(|| Status::not_found(GROUP, plural, name))?;
                check(request, object, "bind", plural, name, &rules).await
            }
            _ => Ok(()),
        }
    }
}

/// A role that aggregates may come to grant anything.
fn granted_by(role: &Value) -> Vec<Rule> {
    if role["aggregationRule"].is_object() { Rule::everything() } else { Rule::list(role) }
}

async fn check(
    request: &Request<'_>,
    object: &Value,
    verb: &str,
    plural: &str,
    name: &str,
    rules: &[Rule],
) -> Result<(), Status> {
    let (user, authorizer) = (&request.context.user, &request.context.server.authorizer);
    let namespace = meta::namespace(object);
    let missing = uncovered(&authorizer.rules(user, namespace), rules);
    if missing.is_empty() {
        return Ok(());
    }
    let exempt = Attributes {
        verb,
        group: GROUP,
        resource: plural,
        subresource: "",
        namespace,
        name,
        path: "",
        is_resource: true,
    };
    if authorizer.decide(user, &exempt).await.allowed {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(describe).collect();
    let why = format!(
        "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        missing.join("\n")
    );
    Err(request.forbidden(meta::name(object), why))
}

fn describe(rule: &Rule) -> String {
    if rule.paths.is_empty() {
        return format!("{{APIGroups:{:?}, Resources:{:?}, Verbs:{:?}}}", rule.groups, rule.resources, rule.verbs);
    }
    format!("{{NonResourceURLs:{:?}, Verbs:{:?}}}", rule.paths, rule.verbs)
}
