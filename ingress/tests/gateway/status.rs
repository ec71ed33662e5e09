//! What is written back: addresses in status, for our Ingresses only, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::{ApiServer, Streaming, eventually};
use crate::backend::Backend;
use crate::client::{Wire, get};
use crate::objects::{NAMESPACE, backend, class, ingress, rule, served};
use crate::process::Gateway;

fn addresses(api: &ApiServer, name: &str) -> Value {
    api.get("ingresses", NAMESPACE, name).unwrap()["status"]["loadBalancer"]["ingress"].clone()
}

#[tokio::test]
async fn status_shows_where_our_ingresses_are_exposed() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    let spec =
        |class: &str, host: &str| json!({"ingressClassName": class, "rules": [rule(host, "Prefix", "/", "web")]});
    ingress(&api, "ours", spec("tidegate", "ours.test"));
    ingress(&api, "theirs", spec("some-invalid-class-name", "theirs.test"));
    let gateway = Gateway::start(&api, &["--publish-address", "192.0.2.1,lb.example.com"]).await;
    let published = json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]);
    eventually("status is written", || addresses(&api, "ours") == published).await;
    assert_eq!(addresses(&api, "theirs"), Value::Null);
    assert_eq!(get(gateway.http, Wire::Http, "theirs.test", "/").await.status, 404);

    // A change that does not concern status writes none; a foreign one is put right.
    ingress(&api, "ours", spec("tidegate", "moved.test"));
    gateway.until_route("moved.test", true).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(api.writes(), [format!("status {NAMESPACE}/ours")]);
    let mut object = api.get("ingresses", NAMESPACE, "ours").unwrap();
    object["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.9"}]);
    api.apply("ingresses", object);
    eventually("status is put right", || addresses(&api, "ours") == published).await;

    ingress(&api, "ours", spec("another", "moved.test"));
    eventually("status is taken back", || addresses(&api, "ours") == Value::Null).await;
    gateway.until_route("moved.test", false).await;
    assert!(api.all("events").is_empty());
}

#[tokio::test]
async fn a_gateway_that_was_down_takes_back_what_it_wrote_before() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let spec = |class: &str| json!({"ingressClassName": class, "defaultBackend": backend("none")});
    ingress(&api, "moved", spec("tidegate"));
    let arguments = ["--publish-address", "192.0.2.1"];
    let gateway = Gateway::start(&api, &arguments).await;
    eventually("status is written", || addresses(&api, "moved") != Value::Null).await;
    drop(gateway);
    ingress(&api, "moved", spec("another"));
    let _gateway = Gateway::start(&api, &arguments).await;
    eventually("status is taken back", || addresses(&api, "moved") == Value::Null).await;
}

#[tokio::test]
async fn ingresses_without_a_class_are_ours_if_the_default_class_is() {
    let api = ApiServer::start(Streaming::Supported).await;
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    api.apply(
        "ingresses",
        json!({"metadata": {"name": "bare", "namespace": NAMESPACE}, "spec": {"rules": [rule("bare.test", "Prefix", "/", "web")]}}),
    );
    api.apply(
        "ingresses",
        json!({
            "metadata": {"name": "legacy", "namespace": NAMESPACE, "annotations": {"kubernetes.io/ingress.class": "tidegate"}},
            "spec": {"rules": [rule("legacy.test", "Prefix", "/", "web")]},
        }),
    );
    class(&api);
    let gateway = Gateway::start(&api, &[]).await;
    assert_eq!(get(gateway.http, Wire::Http, "bare.test", "/").await.status, 404);
    assert_eq!(get(gateway.http, Wire::Http, "legacy.test", "/").await.status, 200);
    api.apply(
        "ingressclasses",
        json!({
            "metadata": {"name": "tidegate", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "tidegate.dev/ingress"},
        }),
    );
    gateway.until_route("bare.test", true).await;
    assert_eq!(get(gateway.http, Wire::Http, "bare.test", "/").await.status, 200);
    assert_eq!(api.writes(), [""; 0], "without an address to publish nothing is written");
}

#[tokio::test]
async fn of_two_claims_the_older_wins_and_the_younger_hears_of_it() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let (old, young) = (Backend::start("old", 0).await, Backend::start("young", 0).await);
    served(&api, "old", [&old]);
    served(&api, "young", [&young]);
    let object = |name: &str, created: &str| {
        json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": created},
            "spec": {"ingressClassName": "tidegate", "rules": [rule("a.test", "Prefix", "/", name)]},
        })
    };
    api.apply("ingresses", object("young", "2026-02-01T00:00:00Z"));
    api.apply("ingresses", object("old", "2026-01-01T00:00:00Z"));
    let gateway = Gateway::start(&api, &[]).await;
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.backend(), "old");
    eventually("event", || api.all("events").len() == 1).await;
    let event = &api.all("events")[0];
    assert_eq!((&event["reason"], &event["involvedObject"]["name"]), (&json!("RuleConflict"), &json!("young")));
    api.delete("ingresses", NAMESPACE, "old");
    for _ in 0..500 {
        if get(gateway.http, Wire::Http, "a.test", "/").await.backend() == "young" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the younger does not take over");
}

#[tokio::test]
async fn only_secrets_that_are_referred_to_are_read_one_by_one() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    crate::objects::secret(&api, "password", "Opaque", "x", "y");
    let gateway = Gateway::start(&api, &[]).await;
    ingress(
        &api,
        "late",
        json!({"tls": [{"hosts": ["a.test"], "secretName": "cert"}], "rules": [rule("a.test", "Prefix", "/", "web")]}),
    );
    gateway.until_route("a.test", true).await;
    eventually("the secret is asked for", || api.secret_reads().contains(&"cert".to_owned())).await;
    assert_eq!(api.secret_reads(), ["cert"]);
}
