//! The `scale` subresource of workloads that have a number of replicas.

use serde_json::{Value, json};

use crate::custom::Scale;
use crate::meta;
use crate::registry::Resource;
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::value::int;

/// The Scale that a workload shows.
///
/// # Errors
/// If a custom resource does not say how many replicas it wants.
pub fn scale_of(resource: &Resource, workload: &Value) -> Result<Value, Status> {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !meta::field(workload, field).is_empty() {
            metadata[field] = meta::field(workload, field).into();
        }
    }
    let (replicas, status) = match custom_scale(resource) {
        Some(scale) => scale.read(workload)?,
        None => {
            let selector = &workload["spec"]["selector"];
            let selector = if resource.is_core("ReplicationController") {
                LabelSelector::from_object(&json!({"matchLabels": selector}))
            } else {
                LabelSelector::from_object(selector)
            };
            let selector = selector.unwrap_or_default().to_string();
            let status = json!({"replicas": int(&workload["status"]["replicas"]), "selector": selector});
            (int(&workload["spec"]["replicas"]), status)
        }
    };
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": scale_spec(replicas),
        "status": status,
    }))
}

/// Where a workload keeps the number of replicas that a Scale sets.
#[must_use]
pub fn replicas_path(resource: &Resource) -> Vec<&str> {
    custom_scale(resource).map_or_else(|| vec!["spec", "replicas"], Scale::spec_path)
}

fn custom_scale(resource: &Resource) -> Option<&Scale> {
    resource.custom.as_ref()?.scale.as_ref()
}

fn scale_spec(replicas: i64) -> Value {
    if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) }
}

/// Writes a changed Scale back into its workload: the number of replicas and nothing else.
///
/// # Errors
/// If the Scale names another object or was read from an older one.
pub fn apply_scale(resource: &Resource, workload: &mut Value, scale: &Value) -> Result<(), Status> {
    let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
    let name = meta::name(workload);
    if !meta::name(scale).is_empty() && meta::name(scale) != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            meta::name(scale)
        )));
    }
    let version = meta::resource_version(scale);
    if !version.is_empty() && version != meta::resource_version(workload) {
        return Err(Status::modified(group, plural, name));
    }
    let uid = meta::uid(scale);
    if !uid.is_empty() && uid != meta::uid(workload) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(workload));
        return Err(Status::conflict(group, plural, name, why));
    }
    let replicas = int(&scale["spec"]["replicas"]);
    match custom_scale(resource) {
        Some(scale) => scale.write(workload, replicas),
        None => drop(meta::child_mut(workload, "spec").insert("replicas".into(), replicas.into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn a_scale_shows_and_changes_replicas() {
        let mut workload = json!({"metadata": {"name": "web", "namespace": "d", "uid": "1", "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web", "a": "b"}}}, "status": {"replicas": 2}});
        let registry = Registry::builtin();
        let deployments = registry.get("apps", "v1", "deployments").expect("deployments");
        let mut scale = scale_of(deployments, &workload).expect("scale");
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b,app=web"}));
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        let mut older = workload.clone();
        older["spec"]["selector"] = json!({"app": "web", "a": "b"});
        let controllers = registry.get("", "v1", "replicationcontrollers").expect("replicationcontrollers");
        assert_eq!(scale_of(controllers, &older).expect("scale")["status"], scale["status"]);
        scale["spec"]["replicas"] = 5.into();
        apply_scale(deployments, &mut workload, &scale).expect("scaled");
        assert_eq!(workload["spec"]["replicas"], 5);
        scale["metadata"]["resourceVersion"] = "6".into();
        assert_eq!(apply_scale(deployments, &mut workload, &scale).expect_err("old").code, 409);
    }
}
