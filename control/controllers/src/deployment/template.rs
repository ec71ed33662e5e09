//! Which ReplicaSet belongs to which template: comparison and the hash that names it.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::hash::{fnv32a, safe_encode};

pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// Whether a set was made from the Deployment's template (the hash label apart).
pub(super) fn is_same(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    of_set.map(plain) == wanted.map(plain)
}

/// Names a template, and differently each time that the name turns out to be taken.
pub(super) fn hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let text = plain(template).to_string();
    let collisions = collision_count.map(|count| count.to_le_bytes()).unwrap_or_default();
    safe_encode(fnv32a(text.bytes().chain(collisions)))
}

/// The template as JSON with sorted keys and without the hash label.
fn plain(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::hash;
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::json;

    #[test]
    fn the_hash_ignores_its_own_label_and_changes_with_collisions() {
        let plain: PodTemplateSpec = serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
        let labelled: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}}})).unwrap();
        assert_eq!(hash(&plain, None), hash(&labelled, None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        assert!(hash(&plain, None).len() <= 10);
    }
}
