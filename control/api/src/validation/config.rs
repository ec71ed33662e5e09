//! Rules for ConfigMaps and Secrets: keys are file names, the whole is small, and may be immutable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::errors::{Errors, Path};
use crate::names;
use crate::value::{entries, is_set, same, text};

/// For a ConfigMap and for a Secret alike.
const BYTES_MAX: usize = 1 << 20;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(crate) fn config_map(map: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(&map["data"]) {
        let path = Path::new("data").key(key);
        errors.complaints(&path, key, names::config_key(key));
        if is_set(&map["binaryData"][key]) {
            errors.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
        }
        size += text(value).len();
    }
    for (key, value) in entries(&map["binaryData"]) {
        errors.complaints(&Path::new("binaryData").key(key), key, names::config_key(key));
        size += decoded_length(text(value));
    }
    if size > BYTES_MAX {
        errors.too_long(&Path::new(""), BYTES_MAX);
    }
}

pub(crate) fn config_map_update(old: &Value, new: &Value, errors: &mut Errors) {
    frozen(old, new, &["data", "binaryData"], errors);
}

pub(crate) fn secret(secret: &Value, errors: &mut Errors) {
    let path = Path::new("data");
    let data = &secret["data"];
    let mut size = 0;
    for (key, value) in entries(data) {
        errors.complaints(&path.key(key), key, names::config_key(key));
        if STANDARD.decode(text(value)).is_err() {
            errors.invalid(&path.key(key), "<secret contents redacted>", "illegal base64 data");
        }
        size += decoded_length(text(value));
    }
    if size > BYTES_MAX {
        errors.too_long(&path, BYTES_MAX);
    }
    let mut require = |key: &str| {
        if !is_set(&data[key]) {
            errors.required(&path.key(key), "");
        }
    };
    match text(&secret["type"]) {
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        "kubernetes.io/ssh-auth" => require("ssh-privatekey"),
        "kubernetes.io/dockercfg" => {
            require(".dockercfg");
            json_content(data, ".dockercfg", &path, errors);
        }
        "kubernetes.io/dockerconfigjson" => {
            require(".dockerconfigjson");
            json_content(data, ".dockerconfigjson", &path, errors);
        }
        "kubernetes.io/basic-auth" if !is_set(&data["username"]) && !is_set(&data["password"]) => {
            require("username");
            require("password");
        }
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if crate::meta::annotation(secret, annotation).unwrap_or("").is_empty() {
                errors.required(&Path::new("metadata").at("annotations").key(annotation), "");
            }
        }
        _ => {}
    }
}

fn json_content(data: &Value, key: &str, path: &Path, errors: &mut Errors) {
    let content = STANDARD.decode(text(&data[key])).unwrap_or_default();
    if is_set(&data[key])
        && let Err(error) = serde_json::from_slice::<Value>(&content)
    {
        errors.invalid(&path.key(key), "<secret contents redacted>", &error.to_string());
    }
}

pub(crate) fn secret_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("type"), &old["type"], &new["type"]);
    frozen(old, new, &["data"], errors);
}

fn frozen(old: &Value, new: &Value, fields: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::new("immutable"), FROZEN);
    }
    for field in fields {
        if !same(&old[field], &new[field]) {
            errors.forbidden(&Path::new(field), FROZEN);
        }
    }
}

fn decoded_length(encoded: &str) -> usize {
    let padding = encoded.bytes().rev().take_while(|&b| b == b'=').count();
    (encoded.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn keys_and_size_are_limited() {
        let map = json!({"data": {"a b": "x", "ok": "y"}, "binaryData": {"ok": "eA=="}});
        let found = texts(|errors| config_map(&map, errors));
        assert!(found[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist"));
        assert_eq!(found[1], "data[ok]: Invalid value: \"ok\": duplicate of key present in binaryData");
        let big = json!({"data": {"a": "x".repeat(BYTES_MAX + 1)}});
        assert_eq!(texts(|errors| config_map(&big, errors)), [": Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn typed_secrets_need_their_keys() {
        let cases = [
            (json!({"type": "Opaque"}), vec![]),
            (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), vec!["data[tls.key]: Required value"]),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec!["data[username]: Required value", "data[password]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                json!({"type": "Opaque", "data": {"a": "!"}}),
                vec!["data[a]: Invalid value: \"<secret contents redacted>\": illegal base64 data"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(texts(|errors| secret(&object, errors)), expected, "{object}");
        }
    }

    #[test]
    fn immutable_means_immutable() {
        let old = json!({"type": "Opaque", "immutable": true, "data": {"a": "eA=="}});
        let new = json!({"type": "x", "data": {"a": "eQ=="}});
        assert_eq!(
            texts(|errors| secret_update(&old, &new, errors)),
            [
                "type: Invalid value: \"x\": field is immutable",
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}
