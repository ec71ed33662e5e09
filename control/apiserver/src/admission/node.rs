//! Nodes: a new one takes no pods until it is ready, and its identity changes nothing but its own objects.

use control_api::meta;
use control_api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Request, Step};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const RESTRICTED_LABEL: &str = "node-restriction.kubernetes.io/";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub(super) struct TaintNodesByCondition;
pub(super) struct NodeRestriction;

#[async_trait::async_trait]
impl Step for TaintNodesByCondition {
    async fn mutate(&self, request: &Request<'_>, node: &mut Value) -> Result<(), Status> {
        if !request.is(Operation::Create, "", "nodes") {
            return Ok(());
        }
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        node["spec"]["taints"] = taints.into();
        Ok(())
    }
}

#[async_trait::async_trait]
impl Step for NodeRestriction {
    async fn validate(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let Some(node) = request.context.user.node() else { return Ok(()) };
        match (request.resource.group.as_str(), request.resource.plural.as_str()) {
            ("", "nodes") => check_node(request, node, object),
            ("", "pods") => check_pod(request, node, object),
            ("coordination.k8s.io", "leases") => check_lease(request, node, object),
            ("", "serviceaccounts") if request.subresource == "token" => check_token(request, node, object).await,
            _ => Ok(()),
        }
    }
}

fn check_node(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    if name != node {
        return Err(request.forbidden(name, format!("node \"{node}\" is not allowed to modify node \"{name}\"")));
    }
    let empty = Value::Null;
    let old = request.old.unwrap_or(&empty);
    let restricted = |object: &Value| -> Vec<(String, Value)> {
        let labels = meta::labels(object).into_iter().flatten();
        let chosen = labels.filter(|(key, _)| key.starts_with(RESTRICTED_LABEL));
        chosen.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    if restricted(object) != restricted(old) {
        let why = format!("node \"{node}\" is not allowed to modify labels below {RESTRICTED_LABEL}");
        return Err(request.forbidden(name, why));
    }
    if request.operation == Operation::Update && object["spec"]["taints"] != old["spec"]["taints"] {
        return Err(request.forbidden(name, format!("node \"{node}\" is not allowed to modify taints")));
    }
    Ok(())
}

fn check_pod(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    let runs_on = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let why = match request.operation {
        Operation::Create if meta::annotation(object, MIRROR_ANNOTATION).is_none() => {
            format!("pod does not have \"{MIRROR_ANNOTATION}\" annotation, node \"{node}\" can only create mirror pods")
        }
        _ if runs_on != node => format!("node \"{node}\" can only change pods with spec.nodeName set to itself"),
        _ => return Ok(()),
    };
    Err(request.forbidden(name, why))
}

fn check_lease(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let (namespace, name) = (meta::namespace(object), meta::name(object));
    if namespace == "kube-node-lease" && name == node {
        return Ok(());
    }
    Err(request.forbidden(name, "can only access node lease with the same name as the requesting node"))
}

/// A node gets tokens for its own pods only, bound to them.
async fn check_token(request: &Request<'_>, node: &str, token_request: &Value) -> Result<(), Status> {
    let server = &request.context.server;
    let info = &request.context.info;
    let bound = &token_request["spec"]["boundObjectRef"];
    if bound["kind"] != "Pod" {
        return Err(request.forbidden(&info.name, "node requested token not bound to a pod"));
    }
    let pods = server.builtin("", "pods")?;
    let name = bound["name"].as_str().unwrap_or_default();
    let found = server.read(&pods, &info.namespace, name).await?;
    let on_node = found.is_some_and(|(_, pod)| {
        pod["spec"]["nodeName"] == node && pod["spec"]["serviceAccountName"] == info.name.as_str()
    });
    if on_node {
        return Ok(());
    }
    Err(request.forbidden(&info.name, "node requested token bound to a pod scheduled on a different node"))
}
