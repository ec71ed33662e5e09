//! Subresources, printer columns and conversion.

use serde_json::Value;

use super::{Errors, Path};
use crate::names::dns_label_1035;
use crate::value::{is_set, items, text};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "string"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn check(subresources: &Value, path: &Path, errors: &mut Errors) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    let path = path.at("scale");
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (path, value) = (path.at(field), text(&scale[field]));
        if value.is_empty() {
            errors.required(&path, "");
        } else if simple_path(value, &path, errors) && !value.starts_with(root) {
            let root = root.trim_end_matches('.');
            errors.invalid(&path, value, &format!("should be a json path under {root}"));
        }
    }
    let (path, selector) = (path.at("labelSelectorPath"), text(&scale["labelSelectorPath"]));
    let is_placed = selector.starts_with(".spec.") || selector.starts_with(".status.");
    if !selector.is_empty() && simple_path(selector, &path, errors) && !is_placed {
        errors.invalid(&path, selector, "should be a json path under either .spec or .status");
    }
}

pub(super) fn column(column: &Value, path: &Path, errors: &mut Errors) {
    if text(&column["name"]).is_empty() {
        errors.required(&path.at("name"), "");
    }
    let kind = text(&column["type"]);
    let wanted = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.required(&path.at("type"), &wanted);
    } else if !COLUMN_TYPES.contains(&kind) {
        errors.invalid(&path.at("type"), kind, &wanted);
    }
    let format = text(&column["format"]);
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&path.at("format"), format, &format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    match text(&column["jsonPath"]) {
        "" => errors.required(&path.at("JSONPath"), ""),
        value => drop(simple_path(value, &path.at("JSONPath"), errors)),
    }
}

fn simple_path(value: &str, path: &Path, errors: &mut Errors) -> bool {
    let is_simple = value.starts_with('.');
    if !is_simple {
        errors.invalid(path, value, "must be a simple json path starting with .");
    }
    is_simple
}

pub(super) fn conversion(conversion: &Value, path: &Path, errors: &mut Errors) {
    if !conversion.is_object() {
        return;
    }
    errors.required_one_of(&path.at("strategy"), &conversion["strategy"], &["None", "Webhook"]);
    let (webhook, client) = (&conversion["webhook"], &conversion["webhook"]["clientConfig"]);
    let client_path = path.at("webhookClientConfig");
    let versions = items(&webhook["conversionReviewVersions"]);
    let versions_path = path.at("conversionReviewVersions");
    if conversion["strategy"] != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if is_set(client) {
            errors.forbidden(&client_path, detail);
        }
        if !versions.is_empty() {
            errors.forbidden(&versions_path, detail);
        }
        return;
    }
    if !is_set(client) {
        errors.required(&client_path, "required when strategy is set to Webhook");
    } else if is_set(&client["url"]) == is_set(&client["service"]) {
        errors.required(&client_path, "exactly one of url or service is required");
    }
    if versions.is_empty() {
        errors.required(&versions_path, "");
    }
    for (at, version) in versions.iter().enumerate() {
        if versions[..at].contains(version) {
            errors.invalid(&versions_path.index(at), text(version), "duplicate version");
        } else {
            errors.complaints(&versions_path.index(at), text(version), dns_label_1035(text(version)));
        }
    }
    if !versions.is_empty() && !versions.iter().any(|version| REVIEW_VERSIONS.contains(&text(version))) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(&versions_path, versions.to_vec(), &detail);
    }
}
