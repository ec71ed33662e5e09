//! Rules for CustomResourceDefinitions.
//!
//! What all versions have in common is reported once, as if it stood in `spec` itself (`spec.validation`), because that is
//! where upstream keeps it internally.

mod defaults;
mod names;
mod openapi;
mod selectable;
mod structural;
mod subresources;

use serde_json::Value;

use super::errors::{Errors, Path};
use crate::custom::{Approval, approval, is_true};
use crate::meta;
use crate::names::{dns_label_1035, dns_subdomain};
use crate::value::{items, text};

const APPROVAL: &str = "api-approved.kubernetes.io";
const WARNING_LENGTH_MAX: usize = 256;

pub(crate) fn definition(definition: &Value, errors: &mut Errors) {
    let spec = &definition["spec"];
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if meta::name(definition) != wanted {
        let path = Path::new("metadata.name");
        errors.invalid(&path, meta::name(definition), "must be spec.names.plural+\".\"+spec.group");
    }
    check_spec(spec, &Path::new("spec"), errors);
    stored_versions(definition, errors);
    if spec["preserveUnknownFields"] == true {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&Path::new("spec.preserveUnknownFields"), true, detail);
    }
}

/// A new definition needs approval where its group is the community's.
pub(crate) fn approved(old: Option<&Value>, definition: &Value, errors: &mut Errors) {
    let annotation = |definition| meta::annotation(definition, APPROVAL).unwrap_or_default().to_owned();
    let state = |annotation: &str| approval(text(&definition["spec"]["group"]), annotation);
    let now = annotation(definition);
    if old.is_some_and(|old| annotation(old) == now) {
        return;
    }
    let path = Path::new("metadata").at("annotations").key(APPROVAL);
    match state(&now) {
        Some(Approval::Invalid(reason)) => errors.invalid(&path, now, &reason),
        Some(Approval::Missing(reason)) => errors.required(&path, &reason),
        _ => {}
    }
}

pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (old_spec, new_spec) = (&old["spec"], &new["spec"]);
    let mut immutable = |field: &str, pointer: &str| {
        let value = |spec: &Value| spec.pointer(pointer).cloned().unwrap_or_default();
        errors.immutable(&path.at(field), &value(old_spec), &value(new_spec));
    };
    if is_true(items(&old["status"]["conditions"]), "Established") {
        immutable("scope", "/scope");
        immutable("names.kind", "/names/kind");
    }
    immutable("group", "/group");
    immutable("names.plural", "/names/plural");
    approved(Some(old), new, errors);
}

fn check_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    let group = text(&spec["group"]);
    let complaints = dns_subdomain(group);
    if group.is_empty() {
        errors.required(&path.at("group"), "");
    } else if !complaints.is_empty() {
        errors.invalid(&path.at("group"), group, &complaints.join(","));
    } else if !group.contains('.') {
        errors.invalid(&path.at("group"), group, "should be a domain with at least one dot");
    }
    errors.required_one_of(&path.at("scope"), &spec["scope"], &["Cluster", "Namespaced"]);
    let versions = items(&spec["versions"]);
    for (at, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.required(&path.at("versions").index(at).at("schema").at("openAPIV3Schema"), "");
        }
    }
    for (at, version) in versions.iter().enumerate() {
        let path = path.at("versions").index(at);
        complain(&path.at("name"), text(&version["name"]), "", dns_label_1035(text(&version["name"])), errors);
        deprecation(version, &path, errors);
        if !is_common(versions, "schema") {
            schema(version, &path.at("schema"), errors);
        }
        parts(versions, version, false, &path, errors);
    }
    check_versions(versions, &path.at("versions"), errors);
    names::required(&spec["names"], &path.at("names"), errors);
    names::check(&spec["names"], &path.at("names"), errors);
    if let Some(first) = versions.first() {
        if is_common(versions, "schema") {
            schema(first, &path.at("validation"), errors);
        }
        parts(versions, first, true, path, errors);
    }
    subresources::conversion(&spec["conversion"], &path.at("conversion"), errors);
}

/// Whether every version has the same.
fn is_common(versions: &[Value], field: &str) -> bool {
    versions.iter().all(|version| version[field] == versions[0][field])
}

/// What can be common to all versions or not: subresources, columns and selectable fields.
fn parts(versions: &[Value], version: &Value, common: bool, path: &Path, errors: &mut Errors) {
    let here = |field: &str| is_common(versions, field) == common;
    if here("subresources") {
        subresources::check(&version["subresources"], &path.at("subresources"), errors);
    }
    if here("additionalPrinterColumns") {
        for (at, column) in items(&version["additionalPrinterColumns"]).iter().enumerate() {
            subresources::column(column, &path.at("additionalPrinterColumns").index(at), errors);
        }
    }
    if here("selectableFields") {
        selectable::check(version, &path.at("selectableFields"), errors);
    }
}

fn check_versions(versions: &[Value], path: &Path, errors: &mut Errors) {
    let mut names: Vec<&str> = versions.iter().map(|version| text(&version["name"])).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        errors.invalid(path, versions.to_vec(), "must contain unique version names");
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.invalid(path, versions.to_vec(), "must have exactly one version marked as storage version");
    }
}

fn deprecation(version: &Value, path: &Path, errors: &mut Errors) {
    let path = path.at("deprecationWarning");
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    if version["deprecated"] != true {
        errors.invalid(&path, warning, "can only be set for deprecated versions");
        return;
    }
    if warning.len() > WARNING_LENGTH_MAX {
        errors.invalid(&path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid(&path, warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(&path, warning, &detail);
    }
}

/// The schema of a version: that it is structural, that its defaults fit, and what OpenAPI asks beside.
fn schema(version: &Value, path: &Path, errors: &mut Errors) {
    let schema = &version["schema"]["openAPIV3Schema"];
    if !schema.is_object() {
        return;
    }
    let path = path.at("openAPIV3Schema");
    let before = errors.count();
    if version["subresources"]["status"].is_object() {
        openapi::root_with_status(schema, &path, errors);
    }
    if schema["nullable"] == true {
        errors.forbidden(&path.at("nullable"), "nullable cannot be true at the root");
    }
    let mut found = Errors::default();
    let unsupported = structural::unsupported(schema);
    if unsupported.is_none() {
        structural::check(schema, &path, &mut found);
        if found.is_empty() {
            defaults::check(schema, &path, &mut found);
        }
    }
    errors.extend(found);
    openapi::check(schema, &path, errors);
    if let (Some(why), true) = (unsupported, errors.count() == before) {
        errors.invalid(&path, "", &why);
    }
}

fn stored_versions(definition: &Value, errors: &mut Errors) {
    let path = Path::new("status").at("storedVersions");
    let stored = &definition["status"]["storedVersions"];
    let versions = items(&definition["spec"]["versions"]);
    if items(stored).is_empty() {
        errors.invalid(&path, stored.clone(), "must have at least one stored version");
        return;
    }
    for version in versions.iter().filter(|version| version["storage"] == true) {
        if !items(stored).contains(&version["name"]) {
            let detail = format!("must have the storage version {}", text(&version["name"]));
            errors.invalid(&path, stored.clone(), &detail);
        }
    }
    for (at, name) in items(stored).iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let name = text(name);
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.invalid(&path.index(at), name, &detail);
        }
    }
}

/// All complaints about a value as one cause.
fn complain(path: &Path, value: &str, before: &str, complaints: Vec<String>, errors: &mut Errors) {
    if !complaints.is_empty() {
        errors.invalid(path, value, &format!("{before}{}", complaints.join(",")));
    }
}

#[cfg(test)]
mod tests;
