//! Namespaces: their finalizer keeps them until they are empty.

use serde_json::{Value, json};

use crate::meta;
use crate::value::{copy, items};

pub(crate) const FINALIZER: &str = "kubernetes";

pub(crate) fn create(namespace: &mut Value) {
    namespace["status"] = json!({"phase": "Active"});
    let mut finalizers = items(&namespace["spec"]["finalizers"]).to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    meta::child_mut(namespace, "spec").insert("finalizers".into(), finalizers.into());
    let name = meta::name(namespace).to_owned();
    meta::set_label(namespace, "kubernetes.io/metadata.name", &name);
}

/// Finalizers change through the `finalize` subresource alone.
pub(crate) fn update(old: &Value, new: &mut Value) {
    copy(old, new, "spec");
    let name = meta::name(new).to_owned();
    meta::set_label(new, "kubernetes.io/metadata.name", &name);
}
