//! The names of a custom resource.

use serde_json::Value;

use super::{Errors, Path, complain};
use crate::names::dns_label_1035;
use crate::value::{items, text};

const MIXED: &str = "may have mixed case, but should otherwise match: ";

pub(super) fn required(names: &Value, path: &Path, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&names[field]).is_empty() {
            errors.required(&path.at(field), "");
        }
    }
}

pub(super) fn check(names: &Value, path: &Path, errors: &mut Errors) {
    let given = |field: &str| Some(text(&names[field])).filter(|name| !name.is_empty());
    for field in ["plural", "singular"] {
        if let Some(name) = given(field) {
            complain(&path.at(field), name, "", dns_label_1035(name), errors);
        }
    }
    for field in ["kind", "listKind"] {
        if let Some(name) = given(field) {
            complain(&path.at(field), name, MIXED, dns_label_1035(&name.to_lowercase()), errors);
        }
    }
    list(names, "shortNames", path, errors);
    if let Some(kind) = given("kind").filter(|kind| given("listKind") == Some(kind)) {
        errors.invalid(&path.at("listKind"), kind, "kind and listKind may not be the same");
    }
    list(names, "categories", path, errors);
}

fn list(names: &Value, field: &str, path: &Path, errors: &mut Errors) {
    for (at, name) in items(&names[field]).iter().enumerate() {
        complain(&path.at(field).index(at), text(name), "", dns_label_1035(text(name)), errors);
    }
}
