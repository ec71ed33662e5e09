//! Objects as bytes: how they are stored, and how `resourceVersion` gets into them without parsing.
//!
//! A stored object is JSON that begins `{"kind":"K","apiVersion":"V","metadata":{` and has no `resourceVersion`: the
//! store's revision is spliced in after the second brace on the way out.

use bytes::{BufMut, Bytes, BytesMut};
use control_api::status::Status;
use control_api::value;
use serde_json::{Map, Value};

use crate::limits::DEPTH_MAX;

/// Room for `"resourceVersion":"18446744073709551615",`.
const SPLICE_BYTES: usize = 48;

/// The stored form. The object must have `kind`, `apiVersion` and non-empty `metadata`.
pub(crate) fn encode(object: &Value) -> Bytes {
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"kind\":");
    write_json(&mut out, text("kind"));
    out.extend_from_slice(b",\"apiVersion\":");
    write_json(&mut out, text("apiVersion"));
    out.extend_from_slice(b",\"metadata\":{");
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut first = true;
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
        if !first {
            out.push(b',');
        }
        first = false;
        write_json(&mut out, key);
        out.push(b':');
        write_json(&mut out, value);
    }
    out.push(b'}');
    for (key, value) in fields.iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata")) {
        out.push(b',');
        write_json(&mut out, key);
        out.push(b':');
        write_json(&mut out, value);
    }
    out.push(b'}');
    out.into()
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // JSON values and strings serialise, and a vector takes every write.
    let _ = serde_json::to_writer(out, value);
}

/// Whether a reader of JSON will take the object in again. Bookkeeping of fields nests deeper than what it is about, so
/// that not every object that could be read can be stored.
///
/// # Errors
/// 400 if it is nested too deep.
pub(crate) fn check_depth(object: &Value) -> Result<(), Status> {
    match value::is_deeper(object, DEPTH_MAX) {
        false => Ok(()),
        true => Err(Status::bad_request("exceeded max depth")),
    }
}

/// Parses a stored object and gives it its `resourceVersion`.
pub(crate) fn decode(stored: &[u8], revision: u64) -> Option<Value> {
    let mut object: Value = serde_json::from_slice(stored).ok()?;
    set_revision(&mut object, revision);
    Some(object)
}

pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

/// The whole object as clients see it.
pub(crate) fn splice(stored: &[u8], revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.len() + SPLICE_BYTES);
    splice_into(&mut out, stored, revision);
    out.freeze()
}

pub(crate) fn splice_into(out: &mut BytesMut, stored: &[u8], revision: u64) {
    let at = metadata_start(stored);
    out.reserve(stored.len() + SPLICE_BYTES);
    out.put_slice(&stored[..at]);
    put_revision(out, revision);
    out.put_slice(&stored[at..]);
}

/// As an item of a list of its kind, which needs no `kind` and `apiVersion`.
pub(crate) fn splice_item_into(out: &mut BytesMut, stored: &[u8], revision: u64) {
    let at = metadata_start(stored);
    out.reserve(stored.len() + SPLICE_BYTES);
    out.put_slice(b"{\"metadata\":{");
    put_revision(out, revision);
    out.put_slice(&stored[at..]);
}

fn put_revision(out: &mut BytesMut, revision: u64) {
    out.put_slice(b"\"resourceVersion\":\"");
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = revision;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\",");
}

/// Kinds and API versions hold no braces, so the second one opens the metadata.
fn metadata_start(stored: &[u8]) -> usize {
    let mut braces = stored.iter().enumerate().filter(|(_, byte)| **byte == b'{').map(|(at, _)| at + 1);
    braces.nth(1).unwrap_or(stored.len())
}

/// Reads a field by path, for objects that are plain values.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().try_fold(object, |value, part| value.get(part)).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, splice, splice_item_into};
    use bytes::BytesMut;
    use serde_json::{Value, json};

    #[test]
    fn the_revision_is_spliced_into_what_is_stored() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a{": "}"},
            "metadata": {"name": "x", "namespace": "y", "resourceVersion": "3"},
        });
        let stored = encode(&object);
        assert!(stored.starts_with(b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{"));
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = "18446744073709551615".into();
        assert_eq!(serde_json::from_slice::<Value>(&splice(&stored, u64::MAX)).unwrap(), expected);
        assert_eq!(decode(&stored, u64::MAX).unwrap(), expected);
        let mut item = BytesMut::new();
        splice_item_into(&mut item, &stored, 0);
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert_eq!(item["metadata"]["resourceVersion"], "0");
        assert_eq!(item["data"], object["data"]);
        assert!(item.get("kind").is_none());
    }
}
