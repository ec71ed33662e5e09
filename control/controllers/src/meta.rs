//! Owners, selectors and small questions that several controllers ask of objects.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};

/// On what is made for a headless Service.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// A selector that is ready to match.
pub(crate) fn selector(selector: &LabelSelector) -> anyhow::Result<Selector> {
    selector.clone().try_into().context("the selector is not valid")
}

pub(crate) fn matches(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    // A workload's empty selector selects nothing; upstream refuses to act on it.
    !selector.to_string().is_empty() && selector.matches(labels)
}

/// The owner that controls an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The name of the controlling owner, if it is of this kind.
pub(crate) fn controller_name<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a str> {
    controller_of(meta).filter(|owner| owner.kind == kind).map(|owner| owner.name.as_str())
}

/// A reference that makes `owner` the controller of another object.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn is_deleting<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// When the pod became Ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|one| one.type_ == "Ready" && one.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// When the pod's readiness last changed.
pub(crate) fn ready_changed(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|one| one.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether a Service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// Ready for at least `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    ready_since(pod).is_some_and(|since| {
        min_ready_seconds == 0 || since + SignedDuration::from_secs(min_ready_seconds.into()) <= now
    })
}

/// Go's `omitempty`: zero is absent.
pub(crate) fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

/// What went wrong, in the API server's words where it was the one to say so.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The same of a failure that has been told with what was tried.
pub(crate) fn cause(error: &anyhow::Error) -> String {
    error.chain().find_map(|one| one.downcast_ref()).map_or_else(|| format!("{error:#}"), said)
}

/// Whether an object is refused because its namespace is going: trying again would be in vain.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// What is gone meanwhile needs no more work.
pub(crate) fn ignore_missing<T>(result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Empty only for an object that was never stored.
pub(crate) fn uid<K: Resource>(object: &K) -> String {
    object.uid().unwrap_or_default()
}
