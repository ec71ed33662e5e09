//! The `scale` subresource of workloads that have a number of replicas.

use serde_json::{Value, json};

use crate::meta;
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::value::int;

/// The Scale that a workload shows.
#[must_use]
pub fn scale_of(workload: &Value) -> Value {
    let selector = LabelSelector::from_object(&workload["spec"]["selector"]).unwrap_or_default().to_string();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !meta::field(workload, field).is_empty() {
            metadata[field] = meta::field(workload, field).into();
        }
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": scale_spec(int(&workload["spec"]["replicas"])),
        "status": {"replicas": int(&workload["status"]["replicas"]), "selector": selector},
    })
}

fn scale_spec(replicas: i64) -> Value {
    if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) }
}

/// Writes a changed Scale back into its workload: the number of replicas and nothing else.
///
/// # Errors
/// If the Scale names another object or was read from an older one.
pub fn apply_scale(group: &str, plural: &str, workload: &mut Value, scale: &Value) -> Result<(), Status> {
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
    meta::child_mut(workload, "spec").insert("replicas".into(), int(&scale["spec"]["replicas"]).into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_changes_replicas() {
        let mut workload = json!({"metadata": {"name": "web", "namespace": "d", "uid": "1", "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web", "a": "b"}}}, "status": {"replicas": 2}});
        let mut scale = scale_of(&workload);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b,app=web"}));
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        scale["spec"]["replicas"] = 5.into();
        apply_scale("apps", "deployments", &mut workload, &scale).expect("scaled");
        assert_eq!(workload["spec"]["replicas"], 5);
        scale["metadata"]["resourceVersion"] = "6".into();
        assert_eq!(apply_scale("apps", "deployments", &mut workload, &scale).expect_err("old").code, 409);
    }
}
