//! Who may do what: certificates, tokens, nobody; RBAC, nodes, impersonation and reviews.

use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Answer, Caller, TestServer, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// What was granted holds at once; what was taken away, a moment later.
async fn until(caller: &Caller, path: &str, code: u16) -> Value {
    for _ in 0..200 {
        let answer = caller.get(path).await;
        if answer.code.as_u16() == code {
            return answer.body;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{path} never answered {code}");
}

async fn token(server: &TestServer, namespace: &str, spec: Value) -> Answer {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default/token");
    server.admin.post(&path, json!({"spec": spec})).await
}

async fn as_user(server: &TestServer, user: &str, method: Method, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("impersonate-user", user);
    let request = request.header("content-type", "application/json").body(body.to_string().into_bytes()).unwrap();
    server.admin.send(request).await
}

#[tokio::test]
async fn nobody_gets_health_and_version_alone() {
    let server = TestServer::start().await;
    let nobody = server.bearer(None).await;
    for path in ["/healthz", "/livez/ping", "/readyz?verbose", "/version"] {
        nobody.get(path).await.expect(200);
    }
    for path in ["/", "/api", "/metrics", "/openapi/v3", MAPS, "/healthzz"] {
        assert_eq!(nobody.get(path).await.message(401), "Unauthorized", "{path}");
    }
    let forged = server.bearer(Some("a.b.c")).await;
    forged.get("/version").await.expect(401);
}

#[tokio::test]
async fn a_service_account_gets_what_rbac_grants_and_no_more() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let issued = token(&server, "team", json!({"expirationSeconds": 600})).await.expect(201);
    let robot = server.bearer(issued["status"]["token"].as_str()).await;
    let maps = "/api/v1/namespaces/team/configmaps";
    assert_eq!(
        robot.get(maps).await.message(403),
        "configmaps is forbidden: User \"system:serviceaccount:team:default\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"team\""
    );
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"]}]});
    server.admin.post(&format!("{RBAC}/namespaces/team/roles"), role).await.expect(201);
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "team"}]});
    server.admin.post(&format!("{RBAC}/namespaces/team/rolebindings"), binding).await.expect(201);
    robot.get(maps).await.expect(200);
    robot.post(maps, config_map("a", json!({}))).await.expect(403);
    robot.get(MAPS).await.expect(403);
    let me = robot.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:team:default");
    server.admin.delete(&format!("{RBAC}/namespaces/team/rolebindings/b"), json!({})).await.expect(200);
    until(&robot, maps, 403).await;
}

#[tokio::test]
async fn a_token_falls_with_what_it_is_bound_to() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    server.admin.post("/api/v1/namespaces/team/pods", pod("p")).await.expect(201);
    let bound = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    let issued = token(&server, "team", bound).await.expect(201);
    let text = issued["status"]["token"].as_str().unwrap();
    let review = |token: &str, audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        let caller = server.admin.clone();
        async move { caller.post("/apis/authentication.k8s.io/v1/tokenreviews", body).await.expect(201)["status"].clone() }
    };
    let good = review(text, json!([])).await;
    assert_eq!(good["authenticated"], true);
    assert_eq!(good["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(review(text, json!(["elsewhere"])).await["authenticated"], false);
    let (head, signature) = text.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert_eq!(review(&forged, json!([])).await["authenticated"], false);
    server.admin.delete("/api/v1/namespaces/team/pods/p", json!({})).await.expect(200);
    assert_eq!(review(text, json!([])).await["authenticated"], false);
    let other = token(&server, "team", json!({"audiences": ["elsewhere"]})).await.expect(201);
    let stranger = server.bearer(other["status"]["token"].as_str()).await;
    stranger.get("/api").await.expect(401);
    token(&server, "team", json!({"expirationSeconds": 60})).await.expect(422);
}

#[tokio::test]
async fn the_keys_of_tokens_are_published() {
    let server = TestServer::start().await;
    let keys = server.admin.get("/openid/v1/jwks").await.expect(200);
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["alg"]), (&json!("EC"), &json!("ES256")));
    let configuration = server.admin.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
}

#[tokio::test]
async fn a_node_changes_its_own_objects_and_reads_what_its_pods_use() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let node = server.caller("node-node-1").await;
    let created = node.post("/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await.expect(201);
    assert_eq!(created["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    assert!(node.post("/api/v1/nodes", json!({"metadata": {"name": "node-2"}})).await.message(403).contains("node-2"));
    server.admin.post("/api/v1/nodes", json!({"metadata": {"name": "node-2"}})).await.expect(201);
    let ready = json!({"status": {"phase": "Running"}});
    node.merge("/api/v1/nodes/node-1/status", ready.clone()).await.expect(200);
    node.merge("/api/v1/nodes/node-2/status", ready).await.expect(403);
    node.merge("/api/v1/nodes/node-1", json!({"spec": {"taints": []}})).await.expect(403);

    let secrets = "/api/v1/namespaces/team/secrets";
    server.admin.post(secrets, json!({"metadata": {"name": "s"}})).await.expect(201);
    node.get(&format!("{secrets}/s")).await.expect(403);
    let mut mine = pod("mine");
    mine["spec"]["nodeName"] = "node-1".into();
    mine["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    server.admin.post("/api/v1/namespaces/team/pods", mine).await.expect(201);
    let mut other = pod("other");
    other["spec"]["nodeName"] = "node-2".into();
    server.admin.post("/api/v1/namespaces/team/pods", other).await.expect(201);
    node.get(&format!("{secrets}/s")).await.expect(200);
    node.get(secrets).await.expect(403);

    let running = json!({"status": {"phase": "Running"}});
    node.merge("/api/v1/namespaces/team/pods/mine/status", running.clone()).await.expect(200);
    node.merge("/api/v1/namespaces/team/pods/other/status", running).await.expect(403);
    node.delete("/api/v1/namespaces/team/pods/other", json!({})).await.expect(403);
    let lease = json!({"metadata": {"name": "node-1"}});
    node.post("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await.expect(201);
    let path = "/api/v1/namespaces/team/serviceaccounts/default/token";
    let bound_to = |name: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name}}});
    node.post(path, bound_to("mine")).await.expect(201);
    node.post(path, bound_to("other")).await.expect(403);
    node.post(path, json!({"spec": {}})).await.expect(403);
}

#[tokio::test]
async fn components_have_the_roles_they_need() {
    let server = TestServer::start().await;
    let scheduler = server.caller("scheduler").await;
    scheduler.get("/api/v1/pods").await.expect(200);
    scheduler.get("/api/v1/secrets").await.expect(403);
    let agent = server.caller("agent").await;
    for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/nodes"] {
        agent.get(path).await.expect(200);
    }
    let ingress = server.caller("ingress").await;
    for path in ["/apis/networking.k8s.io/v1/ingresses", "/api/v1/secrets"] {
        ingress.get(path).await.expect(200);
    }
}

#[tokio::test]
async fn nobody_hands_on_what_he_does_not_hold() {
    let server = TestServer::start().await;
    let grant = |verbs: Value| json!({"metadata": {"name": "x"}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["configmaps"]}]});
    let editor = json!({"metadata": {"name": "editor"}, "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]},
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "resourceNames": []}]});
    let mut editor = editor;
    editor["rules"][1]["verbs"] = json!(["create", "get"]);
    server.admin.post(&format!("{RBAC}/clusterroles"), editor).await.expect(201);
    let binding = json!({"metadata": {"name": "ann"}, "roleRef": {"kind": "ClusterRole", "name": "editor", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    server.admin.post(&format!("{RBAC}/clusterrolebindings"), binding).await.expect(201);
    let roles = format!("{RBAC}/namespaces/default/roles");
    as_user(&server, "ann", Method::GET, &format!("{roles}/none"), &json!({})).await.expect(404);
    let refused = as_user(&server, "ann", Method::POST, &roles, &grant(json!(["get", "delete"]))).await;
    assert!(refused.message(403).contains("attempting to grant RBAC permissions not currently held"));
    as_user(&server, "ann", Method::POST, &roles, &grant(json!(["get"]))).await.expect(201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let to_the_new = json!({"metadata": {"name": "new"}, "roleRef": {"kind": "Role", "name": "x", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    as_user(&server, "ann", Method::POST, &bindings, &to_the_new).await.expect(201);
    let to_admin = json!({"metadata": {"name": "up"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    as_user(&server, "ann", Method::POST, &bindings, &to_admin).await.expect(403);
}

#[tokio::test]
async fn only_those_who_may_impersonate() {
    let server = TestServer::start().await;
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = as_user(&server, "ann", Method::POST, whoami, &json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"], json!({"username": "ann", "groups": ["system:authenticated"]}));
    let scheduler = server.caller("scheduler").await;
    let request = Request::get("/api").header("impersonate-user", "system:admin").body(Vec::new()).unwrap();
    let refused = scheduler.send(request).await.message(403);
    assert!(refused.contains("cannot impersonate resource \"users\""), "{refused}");
    let request = Request::get("/api").header("impersonate-group", "system:masters").body(Vec::new()).unwrap();
    scheduler.send(request).await.expect(400);
}

#[tokio::test]
async fn access_reviews_answer_for_others() {
    let server = TestServer::start().await;
    let ask = |user: &'static str, verb: &'static str| {
        let spec =
            json!({"user": user, "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}});
        let caller = server.admin.clone();
        async move {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            caller.post(path, json!({"spec": spec})).await.expect(201)["status"].clone()
        }
    };
    let allowed = ask("system:kube-scheduler", "list").await;
    assert_eq!(allowed["allowed"], true);
    assert!(allowed["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"), "{allowed}");
    assert_eq!(ask("bob", "list").await["allowed"], false);
    let rules = server
        .admin
        .post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json!({"spec": {"namespace": "default"}}));
    assert_eq!(rules.await.expect(201)["status"]["resourceRules"][0]["verbs"], json!(["*"]));
}
