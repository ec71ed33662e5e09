//! CustomResourceDefinitions: which versions objects may be stored in, and how a definition begins to end.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::custom::{FINALIZER, set_condition};
use crate::meta;
use crate::value::{items, set, text};

pub(crate) fn create(definition: &mut Value) {
    set(definition, "status", json!({"acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []}));
    remember_storage(definition);
}

pub(crate) fn update(_: &Value, new: &mut Value) {
    remember_storage(new);
}

/// A version that objects were ever stored in stays on record.
fn remember_storage(definition: &mut Value) {
    let stored = items(&definition["spec"]["versions"]).iter().find(|version| version["storage"] == true);
    let Some(name) = stored.map(|version| text(&version["name"]).to_owned()) else { return };
    let mut versions = items(&definition["status"]["storedVersions"]).to_vec();
    if !versions.iter().any(|version| *version == name.as_str()) {
        versions.push(name.into());
        definition["status"]["storedVersions"] = versions.into();
    }
}

/// The objects of a definition go before it does.
pub(super) fn begin_deletion(definition: &mut Value, now: Timestamp) {
    let mut finalizers: Vec<String> = meta::finalizers(definition).into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    meta::set_finalizers(definition, &finalizers.iter().map(String::as_str).collect::<Vec<_>>());
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(definition, "Terminating", "True", "InstanceDeletionPending", message, now);
}
