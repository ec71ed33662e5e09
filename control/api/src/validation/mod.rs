//! What is wrong with an object: every rule answers with upstream's field paths and texts.
//!
//! Rules run after defaulting and after the strategy has prepared the object.

mod address;
pub(crate) mod cluster;
pub(crate) mod config;
mod container;
pub(crate) mod definition;
mod diff;
pub(crate) mod disruption;
pub(crate) mod endpoints;
mod errors;
pub(crate) mod ingress;
pub(crate) mod job;
pub(crate) mod limit_range;
pub(crate) mod meta;
pub(crate) mod network_policy;
pub(crate) mod pod;
mod pod_subresource;
pub(crate) mod quota;
pub(crate) mod rbac;
mod scheduling;
pub(crate) mod service;
pub(crate) mod stateful;
mod volume;
pub(crate) mod workload;

use serde_json::Value;

#[cfg(test)]
pub(crate) use errors::texts;
pub use errors::{Errors, Path};

use crate::custom;
use crate::names::NameRule;
use crate::registry::Resource;
use crate::status::{Cause, Status};

/// What is wrong with an object to create; empty if nothing is.
#[must_use]
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    if !resource.is_virtual {
        meta::create(object, resource.hooks.names, resource.namespaced, &mut errors);
    }
    match &resource.custom {
        Some(custom) => custom.validate(None, object, &mut errors),
        None => (resource.hooks.validate)(&resource.as_stored(object), &mut errors),
    }
    if custom::is_definition(resource) {
        definition::approved(None, object, &mut errors);
    }
    errors.into_causes()
}

/// What is wrong with a change; `subresource` is empty for the resource itself.
#[must_use]
pub fn validate_update(resource: &Resource, subresource: &str, old: &Value, new: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    meta::update(old, new, &mut errors);
    if let Some(custom) = &resource.custom {
        match subresource {
            "status" => custom.validate_status(old, new, &mut errors),
            _ => custom.validate(Some(old), new, &mut errors),
        }
        return errors.into_causes();
    }
    // The status is its writer's own business, and what the server itself does needs no check.
    match subresource {
        "ephemeralcontainers" => pod_subresource::ephemeral_containers(old, new, &mut errors),
        "resize" => pod_subresource::resize(old, new, &mut errors),
        _ => {}
    }
    if matches!(subresource, "" | "scale" | "finalize") {
        let (old, new) = (resource.as_stored(old), resource.as_stored(new));
        (resource.hooks.validate_update)(&old, &new, &mut errors);
        // Whether the desired state is sound is asked only where it changed: a pod's was when it was created.
        if resource.hooks.revalidate {
            (resource.hooks.validate)(&new, &mut errors);
        }
    }
    errors.into_causes()
}

/// The causes as the 422 they lead to.
///
/// # Errors
/// If there is any cause.
pub fn check(resource: &Resource, object: &Value, causes: Vec<Cause>) -> Result<(), Status> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&resource.group, &resource.kind, crate::meta::name(object), causes))
}

/// What is wrong with a Scale.
#[must_use]
pub fn validate_scale(scale: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    workload::scale(scale, &mut errors);
    errors.into_causes()
}

/// What is wrong with a TokenRequest.
#[must_use]
pub fn validate_token_request(request: &Value) -> Vec<Cause> {
    let mut errors = Errors::default();
    cluster::token_request(request, &mut errors);
    errors.into_causes()
}

/// What is wrong with the metadata of an object inside another.
pub(crate) fn validate_metadata(object: &Value, rule: NameRule, path: &Path, errors: &mut Errors) {
    meta::embedded(object, rule, path, errors);
}

pub(crate) fn nothing(_: &Value, _: &mut Errors) {}

pub(crate) fn no_change_rules(_: &Value, _: &Value, _: &mut Errors) {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn both_event_kinds_are_checked_alike() {
        let registry = Registry::builtin();
        let new = registry.get("events.k8s.io", "v1", "events").expect("events");
        let event = |namespace: &str| json!({"metadata": {"name": "e", "namespace": "a"}, "regarding": {"kind": "Pod", "namespace": namespace}});
        assert_eq!(validate_create(new, &event("a")), []);
        assert_eq!(validate_create(new, &event("b"))[0].field, "involvedObject.namespace");
    }

    #[test]
    fn causes_become_one_status() {
        let registry = Registry::builtin();
        let pods = registry.get("", "v1", "pods").expect("pods");
        let pod = json!({"metadata": {"name": "a", "namespace": "d"},
            "spec": {"restartPolicy": "Always", "dnsPolicy": "Default"}});
        let status = check(pods, &pod, validate_create(pods, &pod)).expect_err("no containers");
        assert_eq!(status.code, 422);
        assert_eq!(status.message, "Pod \"a\" is invalid: spec.containers: Required value");
        assert!(check(pods, &pod, Vec::new()).is_ok());
    }

    #[test]
    fn a_status_update_does_not_recheck_the_spec() {
        let registry = Registry::builtin();
        let deployments = registry.get("apps", "v1", "deployments").expect("deployments");
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"replicas": -1}});
        assert_eq!(validate_update(deployments, "status", &old, &old), []);
        assert!(!validate_update(deployments, "", &old, &old).is_empty());
    }
}
