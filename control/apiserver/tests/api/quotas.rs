//! ResourceQuota and LimitRange: what they refuse, and that no race gets past them.

use serde_json::{Value, json};

use crate::support::{TestServer, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RANGES: &str = "/api/v1/namespaces/default/limitranges";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A quota as it is once its controller has counted.
async fn quota(server: &TestServer, name: &str, hard: Value) {
    let used: Value = hard.as_object().unwrap().keys().map(|key| (key.clone(), json!("0"))).collect();
    let mut quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
    quota = server.admin.post(QUOTAS, quota).await.expect(201);
    quota["status"] = json!({"hard": quota["spec"]["hard"], "used": used});
    server.admin.put(&format!("{QUOTAS}/{name}/status"), quota).await.expect(200);
}

async fn used(server: &TestServer, name: &str) -> Value {
    server.admin.get(&format!("{QUOTAS}/{name}")).await.expect(200)["status"]["used"].clone()
}

#[tokio::test]
async fn a_full_quota_says_what_it_lacks() {
    let server = TestServer::start().await;
    quota(&server, "few", json!({"configmaps": "1", "count/configmaps": "5"})).await;
    server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let refused = server.admin.post(MAPS, config_map("b", json!({}))).await;
    assert_eq!(
        refused.message(403),
        "configmaps \"b\" is forbidden: exceeded quota: few, requested: configmaps=1, used: configmaps=1, limited: \
         configmaps=1"
    );
    assert_eq!(used(&server, "few").await, json!({"configmaps": "1", "count/configmaps": "1"}));
    // What is not stored is not charged.
    server.admin.post(MAPS, config_map("a", json!({}))).await.expect(403);
    server.admin.post(&format!("{MAPS}?dryRun=All"), config_map("c", json!({}))).await.expect(403);
    assert_eq!(used(&server, "few").await["count/configmaps"], "1");
}

#[tokio::test]
async fn writers_at_once_never_exceed_a_quota() {
    const WRITERS: usize = 60;
    let server = TestServer::start().await;
    quota(&server, "ten", json!({"count/configmaps": "10"})).await;
    quota(&server, "twelve", json!({"configmaps": "12"})).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let admin = server.admin.clone();
        tasks.spawn(async move { admin.post(MAPS, config_map(&format!("m{writer}"), json!({}))).await.code.as_u16() });
    }
    let mut codes = tasks.join_all().await;
    codes.sort_unstable();
    assert_eq!(codes, [[201; 10].as_slice(), [403; WRITERS - 10].as_slice()].concat());
    assert_eq!(used(&server, "ten").await, json!({"count/configmaps": "10"}));
    assert_eq!(used(&server, "twelve").await, json!({"configmaps": "10"}));
}

#[tokio::test]
async fn a_service_that_changes_is_charged_for_the_change() {
    let server = TestServer::start().await;
    quota(&server, "ports", json!({"services": "1", "services.nodeports": "1", "services.loadbalancers": "0"})).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    server.admin.post(SERVICES, service).await.expect(201);
    let path = format!("{SERVICES}/s");
    server.admin.merge(&path, json!({"spec": {"type": "NodePort"}})).await.expect(200);
    assert_eq!(used(&server, "ports").await["services.nodeports"], "1");
    let refused = server.admin.merge(&path, json!({"spec": {"type": "LoadBalancer"}})).await;
    assert_eq!(
        refused.message(403),
        "services \"s\" is forbidden: exceeded quota: ports, requested: services.loadbalancers=1, used: \
         services.loadbalancers=0, limited: services.loadbalancers=0"
    );
    server.admin.merge(&path, json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!(used(&server, "ports").await["services.nodeports"], "0");
}

#[tokio::test]
async fn pods_must_say_what_is_limited_unless_a_range_says_it_for_them() {
    let server = TestServer::start().await;
    server.admin.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    quota(&server, "compute", json!({"requests.cpu": "1", "limits.memory": "1Gi"})).await;
    let refused = server.admin.post(PODS, pod("p")).await;
    let message = refused.message(403);
    assert!(
        message.starts_with("pods \"p\" is forbidden: failed quota: compute: must specify limits.memory for: "),
        "{message}"
    );
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "default": {"memory": "600Mi", "cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"memory": "700Mi"}}]}});
    server.admin.post(RANGES, range).await.expect(201);
    let made = server.admin.post(PODS, pod("p")).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["memory"], "600Mi");
    assert!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].is_string());
    assert_eq!(used(&server, "compute").await, json!({"requests.cpu": "100m", "limits.memory": "600Mi"}));
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "800Mi"}});
    assert_eq!(
        server.admin.post(PODS, large).await.message(403),
        "pods \"large\" is forbidden: maximum memory usage per Container is 700Mi, but limit is 800Mi"
    );
    assert!(
        server
            .admin
            .post(PODS, pod("q"))
            .await
            .message(403)
            .contains("exceeded quota: compute, requested: limits.memory=600Mi")
    );
}
