use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Upstream's objects with every field set, as JSON and as protobuf. Not part of this repository.
fn golden() -> Vec<(String, Value, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/kubernetes-wire");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no golden objects, {} is absent", folder.display());
        return Vec::new();
    };
    let mut objects = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        objects.push((name, value, std::fs::read(path.with_extension("pb")).unwrap()));
    }
    objects.sort_by(|a, b| a.0.cmp(&b.0));
    objects
}

#[test]
fn golden_objects_survive_both_directions() {
    let (mut same, mut absent) = (0, Vec::new());
    for (name, value, bytes) in golden() {
        if type_of(&value).is_err() {
            absent.push(name);
            continue;
        }
        let decoded = decode_reporting(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.unknown, Vec::<String>::new(), "{name}");
        assert_eq!(decoded.value, value, "{name}");
        assert_eq!(encode(&value).unwrap(), bytes, "{name}");
        same += 1;
    }
    eprintln!("{same} kinds equal in both directions; {} not in the table: {}", absent.len(), absent.join(" "));
}

/// What kubectl 1.32 sends for `kubectl create configmap`: zero values on the wire that JSON does not show.
#[test]
fn zero_values_are_absent_values() {
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let bytes = encode(&empty).unwrap();
    assert!(bytes.windows(2).any(|pair| pair == [0x42, 0]), "a zero creationTimestamp is written");
    assert_eq!(decode(&bytes).unwrap(), empty);
}

#[test]
fn pointers_tell_zero_from_absent() {
    let scaled = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec});
    let zero = decode(&encode(&scaled(json!({"replicas": 0}))).unwrap()).unwrap();
    assert_eq!(zero["spec"]["replicas"], json!(0));
    let absent = decode(&encode(&scaled(json!({}))).unwrap()).unwrap();
    assert_eq!(absent["spec"].get("replicas"), None);
    assert_eq!(absent["spec"].get("minReadySeconds"), None);
}

#[test]
fn unknown_tags_are_named() {
    let mut metadata = Vec::new();
    raw::put_number(&mut metadata, 99, 7);
    let mut content = Vec::new();
    raw::put_bytes(&mut content, 1, &metadata);
    let mut type_meta = Vec::new();
    raw::put_bytes(&mut type_meta, 1, b"v1");
    raw::put_bytes(&mut type_meta, 2, b"ConfigMap");
    let mut body = MAGIC.to_vec();
    raw::put_bytes(&mut body, 1, &type_meta);
    raw::put_bytes(&mut body, 2, &content);
    assert_eq!(decode_reporting(&body).unwrap().unknown, ["metadata.#99"]);
    let status = decode(&body).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "strict decoding error: unknown field \"metadata.#99\""));
}

#[test]
fn nesting_has_a_bound() {
    let mut schema = Vec::new();
    for _ in 0..10_000 {
        let mut outer = Vec::with_capacity(schema.len() + 8);
        raw::put_bytes(&mut outer, 28, &schema);
        schema = outer;
    }
    let kind = "CustomResourceDefinition";
    let value = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": kind});
    let mut versions = Vec::new();
    let mut validation = Vec::new();
    raw::put_bytes(&mut validation, 1, &schema);
    raw::put_bytes(&mut versions, 4, &validation);
    let (mut spec, mut content) = (Vec::new(), Vec::new());
    raw::put_bytes(&mut spec, 7, &versions);
    raw::put_bytes(&mut content, 2, &spec);
    let mut body = encode(&value).unwrap();
    raw::put_bytes(&mut body, 2, &content);
    assert!(decode(&body).unwrap_err().message.contains("levels"));
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(kind in 0usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let kind = ["Pod", "Service", "ConfigMap"][kind];
        let mut body = encode(&json!({"apiVersion": "v1", "kind": kind})).unwrap();
        raw::put_bytes(&mut body, 2, &bytes);
        let _ = decode(&body);
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_objects_never_panic(at in 0usize..2000, byte in any::<u8>()) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}},
                "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": "http"}}}]}});
        let mut body = encode(&pod).unwrap();
        let at = at % body.len();
        body[at] = byte;
        let _ = decode(&body);
    }
}
