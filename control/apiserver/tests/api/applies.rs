//! Server-side apply over HTTP: creating, owning, conflicts, what is refused, subresources.

use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Answer, Caller, TestServer, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/d";
const APPLY: &str = "application/apply-patch+yaml";

async fn apply(caller: &Caller, path: &str, query: &str, config: Value) -> Answer {
    caller.call(Method::PATCH, &format!("{path}?{query}"), APPLY, config.to_string()).await
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        deployment["spec"][key] = value.clone();
    }
    deployment
}

fn owners(object: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut owners: Vec<_> =
        entries.map(|e| (text(&e["manager"]), text(&e["operation"]), text(&e["subresource"]))).collect();
    owners.sort();
    owners
}

#[tokio::test]
async fn an_apply_creates_then_changes_then_finds_nothing_to_do() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n  y: \"1\"\n";
    let tried = server.admin.call(Method::PATCH, &format!("{MAP}?fieldManager=me&dryRun=All"), APPLY, yaml).await;
    tried.expect(201);
    server.admin.get(MAP).await.expect(404);
    let created = server.admin.call(Method::PATCH, &format!("{MAP}?fieldManager=me"), APPLY, yaml).await.expect(201);
    assert!(created["metadata"]["uid"].is_string());
    assert_eq!(owners(&created), [("me".into(), "Apply".into(), String::new())]);
    let same = server.admin.call(Method::PATCH, &format!("{MAP}?fieldManager=me"), APPLY, yaml).await.expect(200);
    assert_eq!(same, created);
    let changed = apply(&server.admin, MAP, "fieldManager=me", map(json!({"x": "2"}))).await.expect(200);
    assert_eq!(changed["data"], json!({"x": "2"}));
    assert!(version(&changed) > version(&created));
}

#[tokio::test]
async fn conflicts_are_told_and_forced() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    admin.post(&format!("{MAPS}?fieldManager=creator"), map(json!({"x": "1", "y": "1"}))).await.expect(201);
    let refused = apply(admin, MAP, "fieldManager=me&force=false", map(json!({"x": "2", "y": "1"}))).await.expect(409);
    assert_eq!(
        refused,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict", "code": 409,
            "message": "Apply failed with 1 conflict: conflict with \"creator\" using v1: .data.x",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".data.x",
                "message": "conflict with \"creator\" using v1"}]}})
    );
    let tried = apply(admin, MAP, "fieldManager=me&force=true&dryRun=All", map(json!({"x": "2"}))).await.expect(200);
    assert_eq!(tried["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(admin.get(MAP).await.expect(200)["data"]["x"], "1");
    let forced = apply(admin, MAP, "fieldManager=me&force=true", map(json!({"x": "2"}))).await.expect(200);
    assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
    admin.merge(&format!("{MAP}?fieldManager=editor"), json!({"data": {"x": "3"}})).await.expect(200);
    let left = apply(admin, MAP, "fieldManager=me", map(json!({}))).await.expect(200);
    assert_eq!(left["data"], json!({"x": "3", "y": "1"}), "the editor took it over");
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let message = apply(admin, MAP, "", map(json!({}))).await.message(422);
    assert_eq!(
        message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let forced = admin.call(Method::PATCH, &format!("{MAP}?force=true"), "application/merge-patch+json", "{}").await;
    assert_eq!(
        forced.message(422),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let cbor = admin.call(Method::PATCH, &format!("{MAP}?fieldManager=me"), "application/apply-patch+cbor", "").await;
    assert!(cbor.message(415).contains("application/apply-patch+yaml"));

    let with = |field: &str, value: &str| {
        let mut map = map(json!({"x": "1"}));
        map["metadata"][field] = value.into();
        map
    };
    let me = "fieldManager=me";
    let mut owned = map(json!({}));
    owned["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(apply(admin, MAP, me, owned).await.message(400), "metadata.managedFields must be nil");
    assert_eq!(
        apply(admin, MAP, me, json!({"metadata": {"name": "a"}})).await.message(400),
        "invalid object type: /, Kind="
    );
    assert_eq!(
        apply(admin, MAP, me, with("name", "b")).await.message(400),
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let elsewhere = apply(admin, MAP, me, with("namespace", "other")).await.message(400);
    assert!(elsewhere.contains("does not match the namespace"), "{elsewhere}");
    assert_eq!(
        apply(admin, MAP, me, with("uid", "u")).await.message(409),
        "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and no \
         existing object was found"
    );
    admin.get(MAP).await.expect(404);
    apply(admin, MAP, me, map(json!({"x": "1"}))).await.expect(201);
    let stale = apply(admin, MAP, me, with("resourceVersion", "1")).await.message(409);
    assert!(stale.contains("the object has been modified"), "{stale}");
    let other = apply(admin, MAP, me, with("uid", "u")).await.message(422);
    assert!(other.contains("metadata.uid: Invalid value"), "{other}");
    let mut unknown = map(json!({}));
    unknown["dat"] = json!({});
    assert_eq!(
        apply(admin, MAP, me, unknown).await.message(500),
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dat: field not declared in schema"
    );
}

#[tokio::test]
async fn repeated_keys_are_refused_or_told() {
    let server = TestServer::start().await;
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: \"1\"\n  x: \"2\"\n";
    let send = async |validation: &str| {
        let path = format!("{MAP}?fieldManager=me&fieldValidation={validation}");
        server.admin.call(Method::PATCH, &path, APPLY, twice).await
    };
    assert_eq!(
        send("Strict").await.message(400),
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 6: key \"x\" already \
         set in map"
    );
    let warned = send("Warn").await;
    assert!(warned.headers["warning"].to_str().unwrap().contains("already set in map"));
    assert_eq!(warned.expect(201)["data"]["x"], "2");
    assert!(!send("Ignore").await.headers.contains_key("warning"));
}

#[tokio::test]
async fn status_and_scale_have_owners_of_their_own() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let created = apply(admin, DEPLOYMENT, "fieldManager=me", deployment(json!({"replicas": 1}))).await.expect(201);
    assert_eq!(created["spec"]["strategy"]["type"], "RollingUpdate", "defaults are filled in");

    let mut status = deployment(json!({"replicas": 9}));
    status["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let path = format!("{DEPLOYMENT}/status");
    let written = apply(admin, &path, "fieldManager=controller", status).await.expect(200);
    assert_eq!((&written["status"]["replicas"], &written["spec"]["replicas"]), (&json!(1), &json!(1)));
    let main = ("controller".to_owned(), "Apply".to_owned(), "status".to_owned());
    assert!(owners(&written).contains(&main), "{:?}", owners(&written));
    let none = "/apis/apps/v1/namespaces/default/deployments/none/status";
    let mut missing = deployment(json!({}));
    missing["metadata"]["name"] = "none".into();
    apply(admin, none, "fieldManager=controller", missing).await.expect(404);

    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let path = format!("{DEPLOYMENT}/scale");
    let refused = apply(admin, &path, "fieldManager=scaler", scale(3)).await.message(409);
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    let scaled = apply(admin, &path, "fieldManager=scaler&force=true", scale(3)).await.expect(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let refused = apply(admin, DEPLOYMENT, "fieldManager=me", deployment(json!({"replicas": 1}))).await.message(409);
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\": .spec.replicas"
    );
    // Left out, it stays with the one who scales.
    let kept = apply(admin, DEPLOYMENT, "fieldManager=me", deployment(json!({}))).await.expect(200);
    assert_eq!(kept["spec"]["replicas"], 3);
}

#[tokio::test]
async fn ownership_can_be_edited_and_reset() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    apply(admin, MAP, "fieldManager=me", map(json!({"x": "1"}))).await.expect(201);
    let stripped = admin.merge(MAP, json!({"metadata": {"managedFields": []}})).await.expect(200);
    assert_eq!(stripped["metadata"].get("managedFields"), None);
    let refused = apply(admin, MAP, "fieldManager=me", map(json!({"x": "2"}))).await.message(409);
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x");
    apply(admin, MAP, "fieldManager=me&force=true", map(json!({"x": "2"}))).await.expect(200);
    let rename = json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "you"}]);
    let renamed = admin.call(Method::PATCH, MAP, "application/json-patch+json", rename.to_string()).await.expect(200);
    assert_eq!(owners(&renamed)[1].0, "you");
}

#[tokio::test]
async fn appliers_that_race_all_get_their_fields() {
    let server = TestServer::start().await;
    let all = (0..8).map(|n| {
        let caller = server.admin.clone();
        async move {
            let answer = apply(&caller, MAP, &format!("fieldManager=m{n}"), map(json!({format!("k{n}"): "v"}))).await;
            assert!(answer.code.is_success(), "{}", answer.body);
            answer.code.as_u16()
        }
    });
    let mut codes = futures::future::join_all(all).await;
    codes.sort_unstable();
    assert_eq!(codes, [200, 200, 200, 200, 200, 200, 200, 201]);
    let map = server.admin.get(MAP).await.expect(200);
    assert_eq!((map["data"].as_object().unwrap().len(), owners(&map).len()), (8, 8));
}

#[tokio::test]
async fn who_may_only_patch_cannot_create_by_applying() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]);
    admin.post(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules})).await.expect(201);
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    admin.post(&format!("{rbac}/rolebindings"), binding).await.expect(201);
    let as_ann = async |path: &str, config: Value| {
        let request = Request::patch(format!("{path}?fieldManager=ann"))
            .header("content-type", APPLY)
            .header("impersonate-user", "ann");
        admin.send(request.body(config.to_string().into_bytes()).unwrap()).await
    };
    admin.post(MAPS, map(json!({}))).await.expect(201);
    // Permissions follow a watch.
    let patched = async {
        while as_ann(MAP, map(json!({"x": "1"}))).await.code != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), patched).await.expect("ann may patch");
    let mut other = map(json!({}));
    other["metadata"]["name"] = "b".into();
    let message = as_ann(&format!("{MAPS}/b"), other).await.message(403);
    assert!(message.contains("User \"ann\" cannot create resource \"configmaps\""), "{message}");
}
