//! Defaults of CustomResourceDefinitions.

use serde_json::{Value, json};

use crate::value::{child_mut, items, set, set_default, set_if_zero, text};

pub(crate) fn definition(definition: &mut Value) {
    let Some(spec) = child_mut(definition, "spec") else { return };
    if let Some(names) = child_mut(spec, "names") {
        let kind = text(&names["kind"]).to_owned();
        set_if_zero(names, "singular", kind.to_lowercase());
        if !kind.is_empty() {
            set_if_zero(names, "listKind", format!("{kind}List"));
        }
    }
    set_default(spec, "conversion", json!({"strategy": "None"}));
    let service = child_mut(spec, "conversion")
        .and_then(|conversion| child_mut(conversion, "webhook"))
        .and_then(|webhook| child_mut(webhook, "clientConfig"))
        .and_then(|client| child_mut(client, "service"));
    if let Some(service) = service {
        set_default(service, "port", 443);
    }
    let stored = items(&spec["versions"]).iter().find(|version| version["storage"] == true);
    let stored = stored.map(|version| version["name"].clone());
    if let (Some(name), true) = (stored, items(&definition["status"]["storedVersions"]).is_empty()) {
        if !definition["status"].is_object() {
            set(definition, "status", json!({}));
        }
        definition["status"]["storedVersions"] = json!([name]);
    }
}
