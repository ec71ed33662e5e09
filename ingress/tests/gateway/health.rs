//! Active checks and external names.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::{Backend, Manner};
use crate::client::{Wire, get};
use crate::objects::{NAMESPACE, backend, class, ingress, rule, slice};
use crate::process::Gateway;

async fn until_explained(gateway: &Gateway, text: &str, present: bool) {
    let mut explained = String::new();
    for _ in 0..300 {
        explained = gateway.explain("http://a.test/").await;
        if explained.contains(text) == present {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{text:?} is not {present}: {explained}");
}

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let backends = Backend::start_many("web", 2).await;
    let annotated = |annotations| {
        json!({
            "metadata": {"name": "web", "namespace": NAMESPACE, "annotations": annotations},
            "spec": {"ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80}]},
        })
    };
    api.apply(
        "services",
        annotated(json!({
            "tidegate.dev/health-check": "http",
            "tidegate.dev/health-check-path": "/health",
            "tidegate.dev/health-check-interval": "100ms",
            "tidegate.dev/health-check-timeout": "1s",
        })),
    );
    slice(&api, "web", &backends);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 200);

    backends[0].healthy.store(false, Ordering::SeqCst);
    let failing = format!("{}: fails its health checks", backends[0].address);
    until_explained(&gateway, &failing, true).await;
    for _ in 0..20 {
        assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.backend(), "web-1");
    }
    backends[0].healthy.store(true, Ordering::SeqCst);
    until_explained(&gateway, &failing, false).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        seen.insert(get(gateway.http, Wire::Http, "a.test", "/").await.backend());
    }
    assert_eq!(seen.len(), 2);

    backends[1].healthy.store(false, Ordering::SeqCst);
    until_explained(&gateway, "fails its health checks", true).await;
    api.apply("services", annotated(json!({})));
    until_explained(&gateway, "fails its health checks", false).await;
}

#[tokio::test]
async fn an_external_name_is_served_where_the_operator_allows_it() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let local = Backend::start_at("local", Ipv4Addr::LOCALHOST, 0, Manner::Echo).await;
    api.apply(
        "services",
        json!({
            "metadata": {"name": "outside", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }),
    );
    let mut target = backend("outside");
    target["service"]["port"] = json!({"number": local.address.port()});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": target});
    ingress(&api, "main", json!({"rules": [{"host": "a.test", "http": {"paths": [path]}}]}));
    let gateway = Gateway::start(&api, &["--allow-external-names", "localhost"]).await;
    until_explained(&gateway, &format!("{}: available", local.address), true).await;
    for _ in 0..4 {
        assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.backend(), "local");
    }
    let strict = Gateway::start(&api, &[]).await;
    assert_eq!(get(strict.http, Wire::Http, "a.test", "/").await.status, 503);
    assert!(strict.explain("http://a.test/").await.contains("answer: 503, external_name_forbidden"));
}
