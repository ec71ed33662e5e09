//! Rules for volumes and their mounts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::errors::{Errors, Path};
use crate::names;
use crate::value::{entries, is_set, items, text};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes of a pod and returns their names.
pub(crate) fn list<'a>(volumes: &'a [Value], path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name = text(&volume["name"]);
        if name.is_empty() {
            errors.required(&path.at("name"), "");
        } else {
            errors.complaints(&path.at("name"), name, names::dns_label(name));
            if !seen.insert(name) {
                errors.duplicate(&path.at("name"), name);
            }
        }
        source(volume, &path, errors);
    }
    seen
}

fn source(volume: &Value, path: &Path, errors: &mut Errors) {
    let sources: Vec<(&String, &Value)> =
        entries(volume).filter(|(key, value)| *key != "name" && is_set(value)).collect();
    if sources.is_empty() {
        errors.required(path, "must specify a volume type");
    }
    for (index, (kind, source)) in sources.into_iter().enumerate() {
        let path = path.at(kind);
        if index > 0 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "emptyDir" => empty_dir(source, &path, errors),
            "hostPath" => host_path(source, &path, errors),
            "secret" => required(source, "secretName", &path, errors),
            "configMap" => required(source, "name", &path, errors),
            "persistentVolumeClaim" => required(source, "claimName", &path, errors),
            "projected" => projected(source, &path, errors),
            _ => {}
        }
        if matches!(kind.as_str(), "secret" | "configMap" | "downwardAPI" | "projected") {
            mode(&source["defaultMode"], &path.at("defaultMode"), errors);
            files(source, &path, errors);
        }
    }
}

fn required(source: &Value, field: &str, path: &Path, errors: &mut Errors) {
    if text(&source[field]).is_empty() {
        errors.required(&path.at(field), "");
    }
}

fn empty_dir(source: &Value, path: &Path, errors: &mut Errors) {
    let limit = &source["sizeLimit"];
    let path = path.at("sizeLimit");
    if is_set(limit) && errors.quantity(&path, limit).is_some_and(crate::quantity::Quantity::is_negative) {
        errors.forbidden(&path, "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(source: &Value, path: &Path, errors: &mut Errors) {
    let location = text(&source["path"]);
    if location.is_empty() {
        errors.required(&path.at("path"), "");
    } else if location.split('/').any(|part| part == "..") {
        errors.invalid(&path.at("path"), location, "must not contain '..'");
    }
    if is_set(&source["type"]) {
        errors.one_of(&path.at("type"), &source["type"], HOST_PATH_TYPES);
    }
}

fn projected(source: &Value, path: &Path, errors: &mut Errors) {
    for (index, source) in items(&source["sources"]).iter().enumerate() {
        let path = path.at("sources").index(index);
        let kinds: Vec<(&String, &Value)> = entries(source).filter(|(_, value)| is_set(value)).collect();
        for (index, (kind, source)) in kinds.iter().enumerate() {
            let path = path.at(kind);
            if index > 0 {
                errors.forbidden(&path, "may not specify more than 1 volume type per source");
                continue;
            }
            match kind.as_str() {
                "secret" | "configMap" => required(source, "name", &path, errors),
                "serviceAccountToken" => token(source, &path, errors),
                _ => {}
            }
            files(source, &path, errors);
        }
    }
}

fn token(source: &Value, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = source["expirationSeconds"].as_i64().filter(|seconds| *seconds < 600) {
        errors.invalid(&path.at("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
    }
    if text(&source["path"]).is_empty() {
        errors.required(&path.at("path"), "");
    } else {
        descending(text(&source["path"]), &path.at("path"), errors);
    }
}

/// The files a source puts into the volume.
fn files(source: &Value, path: &Path, errors: &mut Errors) {
    for (index, item) in items(&source["items"]).iter().enumerate() {
        let path = path.at("items").index(index);
        let refers = is_set(&item["fieldRef"]) || is_set(&item["resourceFieldRef"]);
        if !refers && text(&item["key"]).is_empty() {
            errors.required(&path.at("key"), "");
        }
        if text(&item["path"]).is_empty() {
            errors.required(&path.at("path"), "");
        } else {
            descending(text(&item["path"]), &path.at("path"), errors);
        }
        mode(&item["mode"], &path.at("mode"), errors);
    }
}

fn mode(mode: &Value, path: &Path, errors: &mut Errors) {
    if let Some(bits) = mode.as_i64().filter(|bits| !(0..=0o777).contains(bits)) {
        errors.invalid(path, bits, MODE);
    }
}

/// A relative path that stays below where it starts.
fn descending(location: &str, path: &Path, errors: &mut Errors) {
    if location.starts_with('/') {
        errors.invalid(path, location, "must be a relative path");
    }
    if location.split('/').any(|part| part == "..") {
        errors.invalid(path, location, "must not contain '..'");
    }
}

/// The mounts of a container.
pub(crate) fn mounts(mounts: &[Value], volumes: &BTreeSet<&str>, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = path.index(index);
        let name = text(&mount["name"]);
        if name.is_empty() {
            errors.required(&path.at("name"), "");
        } else if !volumes.contains(name) {
            errors.not_found(&path.at("name"), name);
        }
        let location = text(&mount["mountPath"]);
        if location.is_empty() {
            errors.required(&path.at("mountPath"), "");
        } else if !seen.insert(location) {
            errors.invalid(&path.at("mountPath"), location, "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            descending(text(&mount[field]), &path.at(field), errors);
        }
        if !text(&mount["subPath"]).is_empty() && !text(&mount["subPathExpr"]).is_empty() {
            errors.invalid(
                &path.at("subPathExpr"),
                text(&mount["subPathExpr"]),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_volumes_are_named() {
        let volumes = [
            json!({"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}),
            json!({"name": "a", "configMap": {"items": [{"path": "../x"}]}}),
            json!({"name": "B", "hostPath": {"path": "/a", "type": "Nope"}}),
            json!({"name": "c"}),
            json!({"name": "d", "secret": {"secretName": "s", "defaultMode": 4096}}),
        ];
        let found = texts(|errors| {
            list(&volumes, &Path::new("v"), errors);
        });
        assert_eq!(found[0], "v[0].secret: Forbidden: may not specify more than 1 volume type");
        assert_eq!(found[1], "v[1].name: Duplicate value: \"a\"");
        assert_eq!(found[2], "v[1].configMap.name: Required value");
        assert_eq!(found[3], "v[1].configMap.items[0].key: Required value");
        assert_eq!(found[4], "v[1].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'");
        assert!(found[5].starts_with("v[2].name: Invalid value: \"B\": a lowercase RFC 1123 label"));
        assert!(found[6].starts_with("v[2].hostPath.type: Unsupported value: \"Nope\""));
        assert_eq!(found[7], "v[3]: Required value: must specify a volume type");
        assert!(found[8].starts_with("v[4].secret.defaultMode: Invalid value: 4096"));
        assert_eq!(found.len(), 9);
    }
}
