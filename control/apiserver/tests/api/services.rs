//! Services: addresses and node ports, taken with the object and given back with it.

use serde_json::{Value, json};

use crate::support::TestServer;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": spec});
    object["spec"]["ports"] = json!([{"port": 80}]);
    object
}

#[tokio::test]
async fn the_server_has_a_service_of_its_own() {
    let server = TestServer::start().await;
    let own = server.admin.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(own["spec"]["clusterIPs"], json!(["10.96.0.1", "fd00:10:96::1"]));
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = server.admin.get(slice).await.expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.168.77.10"]));
    assert_eq!(slice["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn services_made_at_once_get_addresses_of_their_own() {
    let server = TestServer::start().await;
    let created = (0..40).map(|n| {
        let caller = server.admin.clone();
        let spec = json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack"});
        async move { caller.post(SERVICES, service(&format!("s{n}"), spec)).await.expect(201) }
    });
    let created = futures::future::join_all(created).await;
    let mut taken = std::collections::HashSet::new();
    for service in &created {
        for address in service["spec"]["clusterIPs"].as_array().unwrap() {
            assert!(taken.insert(address.to_string()), "{address} was given twice");
        }
        assert!(taken.insert(service["spec"]["ports"][0]["nodePort"].to_string()));
    }
    assert_eq!(taken.len(), 40 * 3);
}

#[tokio::test]
async fn an_address_is_given_back_with_its_service() {
    let server = TestServer::start().await;
    let fixed = || service("a", json!({"clusterIP": "10.96.7.7"}));
    server.admin.post(SERVICES, fixed()).await.expect(201);
    let mut second = fixed();
    second["metadata"]["name"] = "b".into();
    let refused = server.admin.post(SERVICES, second.clone()).await.message(422);
    assert!(refused.contains("provided IP is already allocated"), "{refused}");
    server.admin.get(&format!("{SERVICES}/b")).await.expect(404);
    server.admin.delete(&format!("{SERVICES}/a"), json!({})).await.expect(200);
    server.admin.post(SERVICES, second).await.expect(201);
}

#[tokio::test]
async fn an_address_stays_through_updates() {
    let server = TestServer::start().await;
    let created = server.admin.post(SERVICES, service("a", json!({}))).await.expect(201);
    let address = created["spec"]["clusterIP"].clone();
    let replaced =
        server.admin.put(&format!("{SERVICES}/a"), service("a", json!({"type": "NodePort"}))).await.expect(200);
    assert_eq!(replaced["spec"]["clusterIP"], address);
    assert!(replaced["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30000);
    let changed = server.admin.merge(&format!("{SERVICES}/a"), json!({"spec": {"clusterIP": "10.96.9.9"}})).await;
    assert_eq!(changed.code, 422, "{}", changed.body);
}
