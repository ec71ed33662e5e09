//! The files of a volume as a value: keys of an object projected onto paths. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::{MODE_DEFAULT, SetUpError};
use crate::spec::fields::{self, PodFacts};

/// Relative paths and what is in them.
pub(crate) type Payload = BTreeMap<String, File>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Which keys go where.
pub(crate) struct Projection<'a> {
    items: Option<&'a [KeyToPath]>,
    default_mode: i32,
    optional: bool,
}

impl<'a> Projection<'a> {
    pub(crate) fn new(items: Option<&'a [KeyToPath]>, default_mode: Option<i32>, optional: Option<bool>) -> Self {
        Self {
            items: items.filter(|items| !items.is_empty()),
            default_mode: default_mode.unwrap_or(MODE_DEFAULT),
            optional: optional.unwrap_or(false),
        }
    }

    pub(crate) fn config_map(&self, name: &str, object: Option<&ConfigMap>) -> Result<Payload, SetUpError> {
        let object = self.present("configmap", name, object)?;
        let texts = object.and_then(|object| object.data.as_ref()).into_iter().flatten();
        let bytes = object.and_then(|object| object.binary_data.as_ref()).into_iter().flatten();
        let data = texts.map(|(key, value)| (key.as_str(), value.as_bytes()));
        let data = data.chain(bytes.map(|(key, value)| (key.as_str(), value.0.as_slice()))).collect();
        self.project("configmap", &data)
    }

    pub(crate) fn secret(&self, name: &str, object: Option<&Secret>) -> Result<Payload, SetUpError> {
        let object = self.present("secret", name, object)?;
        let bytes = object.and_then(|object| object.data.as_ref()).into_iter().flatten();
        self.project("secret", &bytes.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect())
    }

    fn present<'o, T>(
        &self,
        kind: &'static str,
        name: &str,
        object: Option<&'o T>,
    ) -> Result<Option<&'o T>, SetUpError> {
        match object {
            None if !self.optional => Err(SetUpError::Missing { kind, name: name.into() }),
            object => Ok(object),
        }
    }

    fn project(&self, kind: &'static str, data: &BTreeMap<&str, &[u8]>) -> Result<Payload, SetUpError> {
        let Some(items) = self.items else {
            let files = data.iter().map(|(key, bytes)| ((*key).to_owned(), file(bytes.to_vec(), self.default_mode)));
            return Ok(files.collect());
        };
        let mut payload = Payload::new();
        for item in items {
            match data.get(item.key.as_str()) {
                Some(bytes) => {
                    let mode = item.mode.unwrap_or(self.default_mode);
                    payload.insert(checked(&item.path)?, file(bytes.to_vec(), mode));
                }
                None if self.optional => {}
                None => return Err(SetUpError::Key { kind, key: item.key.clone() }),
            }
        }
        Ok(payload)
    }
}

/// Files with values of the pod itself.
pub(crate) fn downward(
    pod: &Pod,
    facts: &PodFacts,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
) -> Result<Payload, SetUpError> {
    let mut payload = Payload::new();
    for item in items {
        let value = if let Some(reference) = &item.field_ref {
            fields::field(pod, facts, &reference.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(pod, facts, "", selector)?
        } else {
            continue;
        };
        let mode = item.mode.or(default_mode).unwrap_or(MODE_DEFAULT);
        payload.insert(checked(&item.path)?, file(value.into_bytes(), mode));
    }
    Ok(payload)
}

pub(crate) fn single(path: &str, data: Vec<u8>, mode: i32) -> Result<Payload, SetUpError> {
    Ok([(checked(path)?, file(data, mode))].into())
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777 }
}

/// A relative path that stays inside and does not clash with the writer's own names.
fn checked(path: &str) -> Result<String, SetUpError> {
    let normal = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    if !normal || path.is_empty() || path.starts_with("..") {
        return Err(SetUpError::Path(path.into()));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}})).unwrap()
    }

    fn names(payload: &Payload) -> Vec<(&str, &[u8], u32)> {
        payload.iter().map(|(path, file)| (path.as_str(), file.data.as_slice(), file.mode)).collect()
    }

    #[test]
    fn all_keys_or_the_listed_ones() {
        let all = Projection::new(None, Some(0o400), None).config_map("m", Some(&map())).unwrap();
        assert_eq!(names(&all), [("a", &b"1"[..], 0o400), ("b", b"2", 0o400), ("c", &[0, 1], 0o400)]);
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "b", "path": "x/y", "mode": 0o600}])).unwrap();
        let listed = Projection::new(Some(&items), None, None).config_map("m", Some(&map())).unwrap();
        assert_eq!(names(&listed), [("x/y", &b"2"[..], 0o600)]);
    }

    #[test]
    fn only_optional_objects_and_keys_may_be_missing() {
        let items: Vec<KeyToPath> = serde_json::from_value(json!([{"key": "no", "path": "x"}])).unwrap();
        for (optional, ok) in [(Some(true), true), (None, false)] {
            assert_eq!(Projection::new(None, None, optional).secret("s", None).is_ok(), ok);
            assert_eq!(Projection::new(Some(&items), None, optional).config_map("m", Some(&map())).is_ok(), ok);
        }
        let missing = Projection::new(None, None, None).config_map("m", None).unwrap_err();
        assert_eq!(missing.to_string(), "configmap \"m\" not found");
    }

    #[test]
    fn paths_may_not_leave_the_volume() {
        for bad in ["", "/etc/x", "../x", "a/../../x", "..data"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert!(checked("a/b.c").is_ok());
    }
}
