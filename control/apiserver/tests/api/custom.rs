//! Custom resources: from their definition to their end.

use http::Method;
use serde_json::{Value, json};

use crate::support::{TestServer, version};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn schema() -> Value {
    json!({"type": "object", "description": "A widget.", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How large it is."},
            "color": {"type": "string", "default": "blue", "enum": ["blue", "red"]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
            "port": {"x-kubernetes-int-or-string": true},
            "replicas": {"type": "integer"},
            "ports": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}}}})
}

fn definition(plural: &str, kind: &str) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [&kind[..2].to_lowercase()], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema()},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1}]}]}})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn server() -> TestServer {
    let server = TestServer::start().await;
    server.admin.post(DEFINITIONS, definition("widgets", "Widget")).await.expect(201);
    server
}

/// Waits until the definition's status says something about a condition.
async fn condition(server: &TestServer, name: &str, kind: &str, reason: &str) -> Value {
    for _ in 0..500 {
        let found = server.admin.get(&format!("{DEFINITIONS}/{name}")).await.expect(200);
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == kind && condition["reason"] == reason) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} never got {kind} with {reason}");
}

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_is_written() {
    let server = TestServer::start().await;
    assert_eq!(server.admin.get(WIDGETS).await.code, 404);
    server.admin.post(DEFINITIONS, definition("widgets", "Widget")).await.expect(201);
    let list = server.admin.get(WIDGETS).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("WidgetList"), &json!("example.com/v1")));
    let found = condition(&server, "widgets.example.com", "Established", "InitialNamesAccepted").await;
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(found["status"]["acceptedNames"]["listKind"], "WidgetList");
    assert_eq!(found["status"]["acceptedNames"]["shortNames"], json!(["wi"]));
    assert_eq!(found["spec"]["conversion"], json!({"strategy": "None"}));
}

#[tokio::test]
async fn discovery_and_open_api_know_it_at_once() {
    let server = server().await;
    let list = server.admin.get("/apis/example.com/v1").await.expect(200);
    let widgets = &list["resources"][0];
    assert_eq!((&widgets["name"], &widgets["shortNames"]), (&json!("widgets"), &json!(["wi"])));
    assert_eq!(widgets["categories"], json!(["all"]));
    let names: Vec<&Value> = list["resources"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let document = server.admin.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["description"], "How large it is.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
    let index = |body: Value| body["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let before = index(server.admin.get("/openapi/v3").await.expect(200));
    let changed = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]}});
    server.admin.merge(&format!("{DEFINITIONS}/widgets.example.com"), changed).await.expect(200);
    assert_ne!(index(server.admin.get("/openapi/v3").await.expect(200)), before);
    let list = server.admin.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(list["resources"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_numbered() {
    let server = server().await;
    let mut object = widget(
        "a",
        json!({"size": 2.0, "bogus": 1, "name": null, "port": "http", "free": {"x": {"y": 1}},
        "ports": [{"name": "p", "extra": true}]}),
    );
    object["status"] = json!({"phase": "Done"});
    let created = server.admin.post(WIDGETS, object).await.expect(201);
    assert_eq!(
        created["spec"],
        json!({"size": 2, "color": "blue", "port": "http", "free": {"x": {"y": 1}}, "ports": [{"name": "p", "protocol": "TCP"}]})
    );
    assert_eq!((&created["status"], &created["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let fields = &created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(fields["f:ports"]["k:{\"name\":\"p\"}"]["f:protocol"].is_object(), "{fields}");
    let path = format!("{WIDGETS}/a");
    let labelled = server.admin.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let grown = server.admin.merge(&path, json!({"spec": {"size": 3}, "status": {"phase": "x"}})).await.expect(200);
    assert_eq!((&grown["metadata"]["generation"], &grown["status"]), (&json!(2), &Value::Null));
    let operations = json!([{"op": "replace", "path": "/spec/size", "value": 4}]).to_string();
    let patched = server.admin.call(Method::PATCH, &path, "application/json-patch+json", operations).await.expect(200);
    assert_eq!((&patched["spec"]["size"], &patched["metadata"]["generation"]), (&json!(4), &json!(3)));
    let refused = server.admin.call(Method::PATCH, &path, "application/strategic-merge-patch+json", "{}").await;
    assert!(refused.message(415).ends_with("application/merge-patch+json, application/apply-patch+yaml"));
    let same = server.admin.merge(&path, json!({"spec": {"size": 4}})).await.expect(200);
    assert_eq!(version(&same), version(&patched));
}

#[tokio::test]
async fn values_are_checked_in_upstreams_words() {
    let server = server().await;
    let causes = |status: Value| -> Vec<String> {
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        causes
            .iter()
            .map(|one| format!("{}: {}", one["field"].as_str().unwrap(), one["message"].as_str().unwrap()))
            .collect()
    };
    let bad = widget(
        "a",
        json!({"size": 11, "color": "green", "name": "UPPER", "port": true,
        "ports": [{"name": "p"}, {"name": "p"}]}),
    );
    let refused = server.admin.post(WIDGETS, bad).await.expect(422);
    assert!(refused["message"].as_str().unwrap().starts_with("Widget.example.com \"a\" is invalid: ["));
    assert_eq!(
        causes(refused),
        [
            "spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\"",
            "spec.name: Invalid value: \"UPPER\": spec.name in body should match '^[a-z]+$'",
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
            "spec.ports[1]: Duplicate value: {\"name\":\"p\"}",
        ]
    );
    let refused = server.admin.post(WIDGETS, widget("a", json!({"name": "toolong"}))).await.expect(422);
    assert_eq!(causes(refused), ["spec.name: Too long: may not be more than 5 bytes", "spec.size: Required value"]);
    let refused = server.admin.post(WIDGETS, widget("a", json!({"size": "big"}))).await;
    assert_eq!(
        refused.message(422),
        "Widget.example.com \"a\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""
    );
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_refused_where_asked() {
    let server = server().await;
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let text = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","bogus":1},
        "spec":{"size":1,"size":2,"foo":1,"ports":[{"name":"p","bar":1}],"free":{"any":1}}}"#;
    let refused = server.admin.call(Method::POST, &strict, "application/json", text).await;
    assert_eq!(
        refused.message(400),
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: duplicate field \"spec.size\", \
         unknown field \"metadata.bogus\", unknown field \"spec.foo\", unknown field \"spec.ports[0].bar\""
    );
    let warned = server.admin.call(Method::POST, WIDGETS, "application/json", text).await;
    assert_eq!(warned.headers.get_all("warning").iter().count(), 4);
    warned.expect(201);
    let patch = format!("{WIDGETS}/a?fieldValidation=Strict");
    let refused = server.admin.merge(&patch, json!({"spec": {"nope": 1}})).await.message(422);
    assert!(refused.ends_with("strict decoding error: unknown field \"spec.nope\""), "{refused}");
    let refused =
        server.admin.post(WIDGETS, json!({"metadata": {"name": "b", "labels": {"a": 1}}, "spec": {"size": 1}})).await;
    assert!(
        refused.message(400).contains("cannot unmarshal number into Go struct field ObjectMeta.labels of type string")
    );
    let protobuf = server.admin.call(Method::POST, WIDGETS, "application/vnd.kubernetes.protobuf", "k8s\0").await;
    protobuf.expect(415);
}

#[tokio::test]
async fn what_was_wrong_before_may_stay_so() {
    let server = server().await;
    server.admin.post(WIDGETS, widget("a", json!({"size": 10}))).await.expect(201);
    let mut tighter = server.admin.get(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    tighter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["maximum"] =
        5.into();
    server.admin.put(&format!("{DEFINITIONS}/widgets.example.com"), tighter).await.expect(200);
    let path = format!("{WIDGETS}/a");
    server.admin.merge(&path, json!({"spec": {"color": "red"}})).await.expect(200);
    server.admin.merge(&path, json!({"spec": {"size": 9}})).await.expect(422);
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let server = server().await;
    let path = format!("{WIDGETS}/a");
    server.admin.post(WIDGETS, widget("a", json!({"size": 1}))).await.expect(201);
    let body =
        json!({"metadata": {"labels": {"x": "y"}}, "spec": {"size": 5}, "status": {"replicas": 2, "selector": "a=b"}});
    let written = server.admin.merge(&format!("{path}/status"), body).await.expect(200);
    assert_eq!((&written["spec"]["size"], &written["status"]["replicas"]), (&json!(1), &json!(2)));
    assert_eq!((&written["metadata"]["labels"], &written["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let wrong = server.admin.merge(&format!("{path}/status"), json!({"status": {"phase": 1}})).await;
    assert!(
        wrong.message(422).contains("status.phase: Invalid value: \"integer\": phase in body must be of type string")
    );
    let missing = server.admin.get(&format!("{path}/scale")).await;
    assert!(missing.message(500).contains("the spec replicas field \".spec.replicas\" does not exist"));
    server.admin.merge(&path, json!({"spec": {"replicas": 3}})).await.expect(200);
    let scale = server.admin.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
    );
    server.admin.merge(&format!("{path}/scale"), json!({"spec": {"replicas": 7}})).await.expect(200);
    assert_eq!(server.admin.get(&path).await.expect(200)["spec"]["replicas"], 7);
    server.admin.get(&format!("{path}/bogus")).await.expect(404);
}

#[tokio::test]
async fn tables_selectors_and_collections() {
    let server = server().await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        let mut object = widget(name, json!({"size": 1, "color": color}));
        object["metadata"]["labels"] = json!({"color": color});
        server.admin.post(WIDGETS, object).await.expect(201);
    }
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let get = async |query: &str| server.admin.get(&format!("{WIDGETS}?{query}")).await;
    assert_eq!(names(get("fieldSelector=spec.color%3Dred").await.expect(200)), ["a", "c"]);
    assert_eq!(names(get("fieldSelector=metadata.name%3Db").await.expect(200)), ["b"]);
    assert_eq!(names(get("labelSelector=color%3Dblue").await.expect(200)), ["b"]);
    assert_eq!(get("fieldSelector=spec.size%3D1").await.message(400), "field label not supported: spec.size");
    let page = get("limit=2").await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(
        (names(page), names(get(&format!("limit=2&continue={token}")).await.expect(200))),
        (vec!["a".into(), "b".into()], vec!["c".into()])
    );
    let request = http::Request::get(WIDGETS).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = server.admin.send(request.body(Vec::new()).unwrap()).await.expect(200);
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(columns, ["Name", "Size", "Color"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "red"]));
    server.admin.call(Method::DELETE, &format!("{WIDGETS}?fieldSelector=spec.color%3Dred"), "", "").await.expect(200);
    assert_eq!(names(get("").await.expect(200)), ["b"]);
}

#[tokio::test]
async fn several_versions_share_their_objects() {
    let server = TestServer::start().await;
    let mut two = definition("widgets", "Widget");
    let mut beta = two["spec"]["versions"][0].clone();
    beta["name"] = "v1beta1".into();
    beta["storage"] = false.into();
    beta["deprecated"] = true.into();
    beta["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["default"] = 4.into();
    beta["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("free");
    two["spec"]["versions"].as_array_mut().unwrap().insert(0, beta);
    server.admin.post(DEFINITIONS, two.clone()).await.expect(201);
    let group = server.admin.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let old = WIDGETS.replace("/v1/", "/v1beta1/");
    let mut object = widget("a", json!({}));
    object["apiVersion"] = "example.com/v1beta1".into();
    let answer = server.admin.post(&old, object).await;
    let warning = answer.headers["warning"].to_str().unwrap().to_owned();
    assert_eq!(warning, "299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\"");
    assert_eq!(answer.expect(201)["spec"]["size"], 4);
    let new = server.admin.get(&format!("{WIDGETS}/a")).await.expect(200);
    assert_eq!((&new["apiVersion"], &new["spec"]["size"]), (&json!("example.com/v1"), &json!(4)));
    server.admin.merge(&format!("{WIDGETS}/a"), json!({"spec": {"free": {"x": 1}}})).await.expect(200);
    assert_eq!(server.admin.get(&format!("{old}/a")).await.expect(200)["spec"].get("free"), None);
    // The other version becomes the stored one; a write without a change moves the object.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut moved = server.admin.get(&path).await.expect(200);
    for version in moved["spec"]["versions"].as_array_mut().unwrap() {
        version["storage"] = (version["name"] == "v1beta1").into();
    }
    let moved = server.admin.put(&path, moved).await.expect(200);
    assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let before = server.admin.get(&format!("{old}/a")).await.expect(200);
    let after = server.admin.merge(&format!("{old}/a"), json!({})).await.expect(200);
    assert!(version(&after) > version(&before));
    assert_eq!(version(&server.admin.merge(&format!("{old}/a"), json!({})).await.expect(200)), version(&after));
    let mut dropped = server.admin.get(&path).await.expect(200);
    dropped["spec"]["versions"].as_array_mut().unwrap().retain(|version| version["name"] == "v1beta1");
    let refused = server.admin.put(&path, dropped.clone()).await.message(422);
    assert!(
        refused.contains("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{refused}"
    );
    server.admin.merge(&format!("{path}/status"), json!({"status": {"storedVersions": ["v1beta1"]}})).await.expect(200);
    dropped["metadata"]["resourceVersion"] =
        server.admin.get(&path).await.expect(200)["metadata"]["resourceVersion"].clone();
    server.admin.put(&path, dropped).await.expect(200);
    server.admin.get(WIDGETS).await.expect(404);
}

#[tokio::test]
async fn watches_carry_events_and_end_with_their_resource() {
    let server = server().await;
    let list = server.admin.get(WIDGETS).await.expect(200);
    let initial = format!(
        "{WIDGETS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    server.admin.post(WIDGETS, widget("a", json!({"size": 1}))).await.expect(201);
    let mut watch = server.admin.watch(&initial).await;
    assert_eq!(watch.brief().await, ("ADDED".into(), "a".into()));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let mut later = server.admin.watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&list))).await;
    let added = later.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["spec"]["color"]), (&json!("ADDED"), &json!("blue")));
    server.admin.delete(&format!("{DEFINITIONS}/widgets.example.com"), json!({})).await.expect(200);
    assert_eq!(later.brief().await, ("DELETED".into(), "a".into()));
    assert!(later.next().await.is_none());
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let server = server().await;
    let mut held = widget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.admin.post(WIDGETS, held).await.expect(201);
    server.admin.post(WIDGETS, widget("free", json!({"size": 1}))).await.expect(201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let ending = server.admin.delete(&path, json!({})).await.expect(200);
    assert_eq!(ending["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    condition(&server, "widgets.example.com", "Terminating", "InstanceDeletionInProgress").await;
    let refused = server.admin.post(WIDGETS, widget("late", json!({"size": 1}))).await;
    assert_eq!(
        refused.message(403),
        "widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    let verbs = server.admin.get("/apis/example.com/v1").await.expect(200)["resources"][0]["verbs"].clone();
    assert_eq!(verbs, json!(["delete", "deletecollection", "get", "list", "watch"]));
    server.admin.merge(&format!("{WIDGETS}/held"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    for _ in 0..500 {
        if server.admin.get(&path).await.code == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.admin.get(&path).await.expect(404);
    server.admin.get(WIDGETS).await.expect(404);
    server.admin.get("/apis/example.com/v1").await.expect(404);
    // The same name again begins empty.
    server.admin.post(DEFINITIONS, definition("widgets", "Widget")).await.expect(201);
    assert_eq!(server.admin.get(WIDGETS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn names_in_use_are_refused_until_they_are_free() {
    let server = server().await;
    let mut other = definition("gadgets", "Gadget");
    other["spec"]["names"]["shortNames"] = json!(["wi"]);
    server.admin.post(DEFINITIONS, other).await.expect(201);
    let found = condition(&server, "gadgets.example.com", "NamesAccepted", "ShortNamesConflict").await;
    let names =
        found["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "NamesAccepted").unwrap();
    assert_eq!((&names["status"], &names["message"]), (&json!("False"), &json!("\"wi\" is already in use")));
    condition(&server, "gadgets.example.com", "Established", "NotAccepted").await;
    server.admin.get("/apis/example.com/v1/gadgets").await.expect(404);
    server.admin.delete(&format!("{DEFINITIONS}/widgets.example.com"), json!({})).await.expect(200);
    condition(&server, "gadgets.example.com", "Established", "InitialNamesAccepted").await;
    server.admin.get("/apis/example.com/v1/gadgets").await.expect(200);
}

#[tokio::test]
async fn bad_definitions_are_refused_with_reasons() {
    let server = TestServer::start().await;
    let mut bad = definition("widgets", "Widget");
    bad["metadata"]["name"] = "other.example.com".into();
    bad["spec"]["versions"][0]["storage"] = false.into();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"minimum": 1});
    let status = server.admin.post(DEFINITIONS, bad).await.expect(422);
    let causes: Vec<String> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}: {}", one["field"].as_str().unwrap(), one["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        causes[0],
        "metadata.name: Invalid value: \"other.example.com\": must be spec.names.plural+\".\"+spec.group"
    );
    assert!(causes.iter().any(|cause| cause.starts_with("spec.versions: Invalid value")
        && cause.ends_with("must have exactly one version marked as storage version")));
    assert!(causes.contains(&"spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Required value: must not be empty for specified object fields".into()), "{causes:#?}");
    let unknown = json!({"metadata": {"name": "x"}, "spec": {"bogus": 1}});
    let refused = server.admin.post(&format!("{DEFINITIONS}?fieldValidation=Strict"), unknown).await;
    assert!(refused.message(400).contains("unknown field \"spec.bogus\""));
    let mut protected = definition("widgets", "Widget");
    protected["spec"]["group"] = "example.k8s.io".into();
    protected["metadata"]["name"] = "widgets.example.k8s.io".into();
    let refused = server.admin.post(DEFINITIONS, protected.clone()).await.message(422);
    assert!(
        refused
            .contains("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have")
    );
    protected["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://example.com/1"});
    server.admin.post(DEFINITIONS, protected).await.expect(201);
    condition(&server, "widgets.example.k8s.io", "KubernetesAPIApprovalPolicyConformant", "ApprovedAnnotation").await;
}

#[tokio::test]
async fn permissions_are_those_of_any_resource() {
    let server = server().await;
    let node = server.caller("node-node-1").await;
    let refused = node.get(WIDGETS).await.message(403);
    assert!(
        refused.contains("cannot list resource \"widgets\" in API group \"example.com\" in the namespace \"default\""),
        "{refused}"
    );
    node.get(DEFINITIONS).await.expect(403);
}

#[tokio::test]
async fn custom_kinds_named_like_built_in_ones_are_their_own() {
    let server = TestServer::start().await;
    for (plural, kind) in [("pods", "Pod"), ("events", "Event"), ("services", "Service")] {
        let mut same = definition(plural, kind);
        same["spec"]["names"]["shortNames"] = json!([]);
        server.admin.post(DEFINITIONS, same).await.expect(201);
        let path = format!("/apis/example.com/v1/namespaces/default/{plural}");
        let body =
            json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {"size": 1}});
        let created = server.admin.post(&path, body).await.expect(201);
        assert_eq!(created["spec"], json!({"size": 1, "color": "blue"}), "{kind}");
        let written =
            server.admin.merge(&format!("{path}/a/status"), json!({"status": {"phase": "Odd"}})).await.expect(200);
        assert_eq!(written["status"], json!({"phase": "Odd"}));
        server.admin.delete(&format!("{path}/a"), json!({})).await.expect(200);
        server.admin.get(&format!("{path}/a")).await.expect(404);
    }
}

#[tokio::test]
async fn applies_merge_by_the_schema() {
    let server = TestServer::start().await;
    let apply = async |path: &str, manager: &str, body: Value| {
        let path = format!("{path}?fieldManager={manager}&fieldValidation=Strict");
        server.admin.call(Method::PATCH, &path, "application/apply-patch+yaml", body.to_string()).await
    };
    let name = format!("{DEFINITIONS}/widgets.example.com");
    apply(&name, "kubectl", definition("widgets", "Widget")).await.expect(201);
    let path = format!("{WIDGETS}/a");
    let created = apply(&path, "one", widget("a", json!({"size": 1, "ports": [{"name": "x"}]}))).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 1, "color": "blue", "ports": [{"name": "x", "protocol": "TCP"}]}));
    let joined = apply(&path, "two", widget("a", json!({"ports": [{"name": "y"}]}))).await.expect(200);
    assert_eq!(joined["spec"]["ports"].as_array().unwrap().len(), 2);
    let conflict = apply(&path, "two", widget("a", json!({"size": 2}))).await;
    assert!(conflict.message(409).contains("conflict with \"one\": .spec.size"));
    let left = apply(&path, "one", widget("a", json!({"size": 1}))).await.expect(200);
    assert_eq!(left["spec"]["ports"], json!([{"name": "y", "protocol": "TCP"}]));
    let unknown = apply(&path, "one", widget("a", json!({"size": 1, "bogus": 1}))).await;
    assert!(unknown.message(500).contains(".spec.bogus: field not declared in schema"));
    let status = json!({"apiVersion": "example.com/v1", "kind": "Widget", "status": {"phase": "Done"}});
    let done = apply(&format!("{path}/status"), "three", status).await.expect(200);
    assert_eq!((&done["status"], &done["spec"]["size"]), (&json!({"phase": "Done"}), &json!(1)));
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 4}});
    server.admin.merge(&path, json!({"spec": {"replicas": 1}})).await.expect(200);
    let scaled = server
        .admin
        .call(
            Method::PATCH,
            &format!("{path}/scale?fieldManager=four&force=true"),
            "application/apply-patch+yaml",
            scale.to_string(),
        )
        .await;
    assert_eq!(scaled.expect(200)["spec"]["replicas"], 4);
    let swagger = server.admin.get("/openapi/v2").await.expect(200);
    assert!(swagger["definitions"]["com.example.v1.Widget"]["properties"]["spec"].is_object());
}

#[tokio::test]
async fn a_version_that_only_a_webhook_converts_says_so() {
    let server = TestServer::start().await;
    let mut two = definition("widgets", "Widget");
    let mut beta = two["spec"]["versions"][0].clone();
    (beta["name"], beta["storage"]) = ("v1beta1".into(), false.into());
    two["spec"]["versions"].as_array_mut().unwrap().push(beta);
    two["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/convert"}}});
    server.admin.post(DEFINITIONS, two).await.expect(201);
    server.admin.get(WIDGETS).await.expect(200);
    let refused = server.admin.get(&WIDGETS.replace("/v1/", "/v1beta1/")).await.message(500);
    assert!(refused.contains("conversion webhook for example.com/v1beta1, Kind=Widget failed"), "{refused}");
}
