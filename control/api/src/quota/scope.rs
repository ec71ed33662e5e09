//! Scopes: which pods a quota is about.

use serde_json::Value;

use crate::strategy::qos_class;
use crate::value::{items, text};

/// Whether a quota is about an object. Scopes are questions about pods; nothing else is in any of them.
pub(super) fn covers(quota: &Value, is_pod: bool, object: &Value) -> bool {
    let spec = &quota["spec"];
    let (scopes, expressions) = (items(&spec["scopes"]), items(&spec["scopeSelector"]["matchExpressions"]));
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    is_pod
        && scopes.iter().all(|scope| is_in(object, text(scope)))
        && expressions.iter().all(|expression| selects(expression, object))
}

fn selects(expression: &Value, pod: &Value) -> bool {
    let scope = text(&expression["scopeName"]);
    if scope != "PriorityClass" {
        return is_in(pod, scope);
    }
    let class = text(&pod["spec"]["priorityClassName"]);
    let is_named = items(&expression["values"]).iter().any(|value| text(value) == class);
    match text(&expression["operator"]) {
        "In" => is_named,
        "NotIn" => !is_named,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

fn is_in(pod: &Value, scope: &str) -> bool {
    let spec = &pod["spec"];
    let terminates = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminates,
        "NotTerminating" => !terminates,
        "BestEffort" => qos_class(spec) == "BestEffort",
        "NotBestEffort" => qos_class(spec) != "BestEffort",
        "PriorityClass" => !text(&spec["priorityClassName"]).is_empty(),
        "CrossNamespacePodAffinity" => names_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// Whether any term of the pod's affinity looks at pods of other namespaces.
fn names_namespaces(affinity: &Value) -> bool {
    let reaches_out = |term: &Value| !items(&term["namespaces"]).is_empty() || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = &affinity[kind];
        let preferred = items(&terms["preferredDuringSchedulingIgnoredDuringExecution"]);
        items(&terms["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(reaches_out)
            || preferred.iter().any(|term| reaches_out(&term["podAffinityTerm"]))
    })
}
