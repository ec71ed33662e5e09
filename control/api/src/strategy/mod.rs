//! What the server does to an object before it is stored: identity, generation, and who may write which half.

mod binding;
pub(crate) mod daemon_set;
pub(crate) mod definition;
mod delete;
pub(crate) mod job;
pub(crate) mod namespace;
pub(crate) mod pod;
mod scale;
pub mod service;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use binding::bind;
pub use delete::{DeleteOptions, Deletion, Propagation, is_finished, prepare_for_delete};
pub use pod::qos_class;
pub use scale::{apply_scale, replicas_path, scale_of};

use crate::managed_fields::{Element, FieldSet};
use crate::meta;
use crate::names;
use crate::registry::Resource;
use crate::schema::Message;
use crate::schema::time::seconds;
use crate::status::Status;
use crate::value::{copy, entries, remove, same, set};

/// What a write through `status` may change.
const KEPT_BY_STATUS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// What a new object is given from outside.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'a> {
    /// The namespace of the request; empty for cluster-wide resources.
    pub namespace: &'a str,
    pub now: Timestamp,
    pub uid: &'a str,
    /// For `generateName`; see [`names::suffix`].
    pub suffix: &'a str,
}

/// Prepares an object for its creation: identity, empty status, first generation.
///
/// # Errors
/// If the object says that it lives in another namespace, or that it exists already.
pub fn prepare_for_create(resource: &Resource, object: &mut Value, birth: &Birth<'_>) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is not a JSON object"));
    }
    if resource.namespaced {
        take_namespace(object, birth.namespace)?;
    }
    if resource.is_virtual {
        return Ok(());
    }
    if !meta::resource_version(object).is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let base = meta::field(object, "generateName");
    if meta::name(object).is_empty() && !base.is_empty() {
        let name = names::generate(base, birth.suffix);
        meta::set_field(object, "name", name);
    }
    meta::set_field(object, "uid", birth.uid);
    meta::set_field(object, "creationTimestamp", seconds(birth.now));
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta::set_field(object, field, Value::Null);
    }
    if resource.has_generation {
        meta::set_field(object, "generation", 1);
    }
    if let Some(custom) = &resource.custom {
        if custom.has_status() {
            remove(object, "status");
        }
        return Ok(());
    }
    // A node is the one object that may be born with a status: its kubelet registers it as a whole.
    if resource.has_status() && !resource.is_core("Node") {
        object["status"] = first_status(resource);
    }
    (resource.hooks.create)(object);
    Ok(())
}

fn take_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let own = meta::namespace(object);
    if own.is_empty() {
        meta::set_field(object, "namespace", namespace);
    } else if own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {own:?} != {namespace:?}"
        )));
    }
    Ok(())
}

fn first_status(resource: &Resource) -> Value {
    match resource.kind.as_str() {
        "Ingress" | "Service" => json!({"loadBalancer": {}}),
        "ReplicaSet" => json!({"replicas": 0}),
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        }),
        "PodDisruptionBudget" => {
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
        }
        _ => json!({}),
    }
}

/// Prepares a change; `subresource` is empty for the resource itself. Each writer keeps to its half: through `status`
/// only the status changes, through the resource itself everything but the status.
pub fn prepare_for_update(resource: &Resource, subresource: &str, old: &Value, new: &mut Value) {
    if !new.is_object() {
        return;
    }
    keep_identity(old, new);
    match subresource {
        "status" => {
            if resource.custom.is_some() {
                take_status_only(old, new);
                return;
            }
            keep_all_but_status(old, new);
            if resource.is_core("Pod") {
                pod::update_status(old, new);
            }
        }
        "ephemeralcontainers" => pod::update_ephemeral_containers(old, new),
        "resize" => pod::update_resources(old, new),
        "finalize" => copy(old, new, "status"),
        "" | "scale" => {
            if resource.has_status() {
                copy(old, new, "status");
            }
            (resource.hooks.update)(old, new);
        }
        // What the server itself does to an object, such as binding a pod, touches both halves.
        _ => {}
    }
    let generation = meta::generation(old);
    let by_a_client = matches!(subresource, "" | "scale" | "ephemeralcontainers" | "resize");
    let grows = resource.has_generation && by_a_client && desired_state_changed(resource, old, new);
    let generation = if grows { generation + 1 } else { generation };
    meta::set_field(new, "generation", if generation == 0 { Value::Null } else { generation.into() });
}

/// What nobody can change is taken from the old object; a uid that was sent must match, which is for validation.
fn keep_identity(old: &Value, new: &mut Value) {
    let metadata = &old["metadata"];
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta::set_field(new, field, metadata[field].clone());
    }
    for field in ["uid", "name", "namespace"] {
        if meta::field(new, field).is_empty() {
            meta::set_field(new, field, metadata[field].clone());
        }
    }
    meta::set_field(new, "selfLink", Value::Null);
}

/// The fields that an endpoint does not write: nobody can own them by it.
#[must_use]
pub fn ignored_fields(resource: &Resource, message: &Message, subresource: &str) -> FieldSet {
    let is_ignored = |name: &str| match subresource {
        // Through the status of a custom resource not even metadata is written.
        "status" if resource.custom.is_some() => !matches!(name, "apiVersion" | "kind" | "status"),
        "status" => !KEPT_BY_STATUS.contains(&name),
        _ => name == "status" && resource.has_status(),
    };
    let fields = message.fields().iter().filter(|field| is_ignored(&field.name));
    let mut ignored = FieldSet::new();
    fields.for_each(|field| ignored.insert(&[Element::field(field.name.as_ref())]));
    ignored
}

fn keep_all_but_status(old: &Value, new: &mut Value) {
    let keys: Vec<String> = entries(old).chain(entries(new)).map(|(key, _)| key.clone()).collect();
    for key in keys.iter().filter(|key| !KEPT_BY_STATUS.contains(&key.as_str())) {
        copy(old, new, key);
    }
    meta::set_field(new, "ownerReferences", old["metadata"]["ownerReferences"].clone());
}

/// Of a custom resource, not even metadata is written through the status, but for the record of who wrote it.
fn take_status_only(old: &Value, new: &mut Value) {
    let status = remove(new, "status");
    let managed = new["metadata"]["managedFields"].take();
    new.clone_from(old);
    match status {
        Some(status) => set(new, "status", status),
        None => drop(remove(new, "status")),
    }
    meta::set_field(new, "managedFields", managed);
}

fn desired_state_changed(resource: &Resource, old: &Value, new: &Value) -> bool {
    if resource.custom.is_some() {
        return !same_but_metadata(old, new);
    }
    if resource.hooks.annotations_count && !same(&old["metadata"]["annotations"], &new["metadata"]["annotations"]) {
        return true;
    }
    if old["spec"].is_object() || new["spec"].is_object() {
        return !same(&old["spec"], &new["spec"]);
    }
    // A kind without a spec is desired state as a whole.
    let bare = |object: &Value| {
        let labels = object["metadata"]["labels"].clone();
        let mut rest = object.clone();
        remove(&mut rest, "metadata");
        remove(&mut rest, "status");
        (rest, labels)
    };
    let ((old, old_labels), (new, new_labels)) = (bare(old), bare(new));
    !same(&old, &new) || !same(&old_labels, &new_labels)
}

fn same_but_metadata(old: &Value, new: &Value) -> bool {
    let rest = |object| entries(object).filter(|(key, _)| *key != "metadata");
    rest(old).eq(rest(new))
}

pub(crate) fn nothing(_: &mut Value) {}

pub(crate) fn no_change(_: &Value, _: &mut Value) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn birth() -> Birth<'static> {
        let now = "2026-01-02T03:04:05.678Z".parse().expect("time");
        Birth { namespace: "default", now, uid: "u-1", suffix: "x2z4c" }
    }

    fn create(group: &str, plural: &str, mut object: Value) -> Value {
        let registry = Registry::builtin();
        let resource = registry.get(group, "v1", plural).expect(plural);
        crate::defaults::apply(resource, &mut object);
        let birth = if resource.namespaced { birth() } else { Birth { namespace: "", ..birth() } };
        prepare_for_create(resource, &mut object, &birth).expect("prepared");
        object
    }

    #[test]
    fn a_new_object_gets_its_identity_and_an_empty_status() {
        let object = create(
            "apps",
            "deployments",
            json!({"metadata": {"generateName": "web-", "uid": "mine", "deletionTimestamp": "x", "generation": 7},
                "status": {"replicas": 9}}),
        );
        assert_eq!(
            object["metadata"],
            json!({"generateName": "web-", "name": "web-x2z4c", "namespace": "default", "uid": "u-1", "generation": 1,
                "creationTimestamp": "2026-01-02T03:04:05Z"})
        );
        assert_eq!(object["status"], json!({}));
    }

    #[test]
    fn another_namespace_or_a_resource_version_is_refused() {
        let registry = Registry::builtin();
        let pods = registry.get("", "v1", "pods").expect("pods");
        let mut object = json!({"metadata": {"namespace": "other"}});
        assert_eq!(prepare_for_create(pods, &mut object, &birth()).expect_err("namespace").code, 400);
        let mut object = json!({"metadata": {"resourceVersion": "1"}});
        assert_eq!(prepare_for_create(pods, &mut object, &birth()).expect_err("version").code, 400);
    }

    #[test]
    fn a_namespace_is_born_active_with_its_finalizer() {
        let object = create("", "namespaces", json!({"metadata": {"name": "a"}}));
        assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(object["status"], json!({"phase": "Active"}));
        assert_eq!(meta::label(&object, "kubernetes.io/metadata.name"), Some("a"));
    }

    #[test]
    fn each_writer_keeps_to_its_half() {
        let registry = Registry::builtin();
        let deployments = registry.get("apps", "v1", "deployments").expect("deployments");
        let old =
            json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let changed = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}, "status": {"replicas": 2}});

        let mut new = changed.clone();
        prepare_for_update(deployments, "", &old, &mut new);
        assert_eq!((&new["spec"]["replicas"], &new["status"]["replicas"]), (&json!(2), &json!(1)));
        assert_eq!(meta::generation(&new), 4);

        let mut new = changed.clone();
        prepare_for_update(deployments, "status", &old, &mut new);
        assert_eq!((&new["spec"]["replicas"], &new["status"]["replicas"]), (&json!(1), &json!(2)));
        assert_eq!(meta::generation(&new), 3);
    }

    #[test]
    fn nobody_owns_what_an_endpoint_does_not_write() {
        let registry = Registry::builtin();
        let message = crate::schema::of_type("v1", "Pod").expect("Pod");
        let ignored = |plural: &str, subresource: &str| {
            ignored_fields(registry.get("", "v1", plural).expect(plural), message, subresource).to_json()
        };
        assert_eq!(ignored("pods", ""), json!({"f:status": {}}));
        assert_eq!(ignored("pods", "status"), json!({"f:spec": {}}));
        assert_eq!(ignored("configmaps", ""), json!({}));
    }

    #[test]
    fn binding_a_pod_touches_both_halves_and_no_generation() {
        let registry = Registry::builtin();
        let pods = registry.get("", "v1", "pods").expect("pods");
        let old = json!({"metadata": {"name": "a", "generation": 1}, "spec": {}, "status": {"phase": "Pending"}});
        let bound = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"conditions": [{"type": "PodScheduled"}]}});
        let mut new = bound.clone();
        prepare_for_update(pods, "binding", &old, &mut new);
        assert_eq!((&new["spec"], &new["status"]), (&bound["spec"], &bound["status"]));
        assert_eq!(meta::generation(&new), 1);
    }

    #[test]
    fn generation_counts_only_what_is_desired() {
        let registry = Registry::builtin();
        let grows = |group: &str, plural: &str, old: Value, new: Value| {
            let resource = registry.get(group, "v1", plural).expect(plural);
            let mut new = new;
            prepare_for_update(resource, "", &old, &mut new);
            meta::generation(&new) > meta::generation(&old)
        };
        let with = |metadata: Value, rest: Value| {
            let mut object = rest;
            object["metadata"] = metadata;
            object["metadata"]["generation"] = 1.into();
            object
        };
        let spec = json!({"spec": {"a": 1}});
        let annotated = json!({"annotations": {"a": "b"}});
        assert!(grows("apps", "deployments", with(json!({}), spec.clone()), with(annotated.clone(), spec.clone())));
        assert!(!grows("apps", "replicasets", with(json!({}), spec.clone()), with(annotated, spec)));
        let slice = json!({"endpoints": []});
        let labelled = json!({"labels": {"a": "b"}});
        assert!(grows("discovery.k8s.io", "endpointslices", with(json!({}), slice.clone()), with(labelled, slice)));
        assert!(!grows(
            "",
            "configmaps",
            json!({"metadata": {}, "data": {}}),
            json!({"metadata": {}, "data": {"a": "b"}})
        ));
    }

    #[test]
    fn identity_survives_an_update_that_forgets_or_forges_it() {
        let registry = Registry::builtin();
        let maps = registry.get("", "v1", "configmaps").expect("configmaps");
        let old = json!({"metadata": {"name": "a", "uid": "1", "creationTimestamp": "t", "deletionTimestamp": "d"}});
        let mut new = json!({"metadata": {"name": "a", "creationTimestamp": "forged", "selfLink": "x"}});
        prepare_for_update(maps, "", &old, &mut new);
        assert_eq!(new, old);
    }
}
