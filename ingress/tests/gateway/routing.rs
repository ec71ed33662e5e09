//! Host, path, default backend, classes, unavailable Services.

use std::collections::BTreeSet;

use http::{Request, Version};
use serde_json::json;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::Backend;
use crate::bed::started;
use crate::client::{Connection, WebSocket, Wire, get};
use crate::objects::{NAMESPACE, backend, certificate, class, ingress, rule, served, service, slice};
use crate::process::Gateway;

/// The path that an endpoint saw, and which.
async fn seen(address: std::net::SocketAddr, wire: Wire<'_>, path: &str) -> (String, String) {
    let reply = get(address, wire, "a.test", path).await;
    assert_eq!(reply.status, 200, "{wire:?} {path}: {}", reply.body);
    let target = reply.json()["path"].as_str().unwrap().to_owned();
    (reply.backend(), target.strip_prefix("https://a.test").map_or(target.clone(), str::to_owned))
}

#[tokio::test]
async fn the_rule_and_the_endpoint_see_one_path() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let (web, admin) = (Backend::start("web", 0).await, Backend::start("admin", 0).await);
    served(&api, "web", [&web]);
    served(&api, "admin", [&admin]);
    let rules = json!({"rules": [rule("a.test", "Prefix", "/", "web"), rule("a.test", "Prefix", "/admin", "admin")]});
    ingress(&api, "main", rules);
    let gateway = Gateway::start(&api, &[]).await;
    for (path, backend, sees) in [
        ("/admin/x", "admin", "/admin/x"),
        ("/public/../admin/x?q=..//", "admin", "/admin/x?q=..//"),
        ("/%2e/admin", "admin", "/admin"),
        ("/public/%2E%2e/admin/", "admin", "/admin/"),
        ("//admin", "admin", "/admin"),
        ("/%61dmin", "admin", "/admin"),
        ("/admin/../public", "web", "/public"),
        ("/admin/..", "web", "/"),
        ("/admin%2F..", "web", "/admin%2F.."),
        ("/x%2F..%2Fadmin", "web", "/x%2F..%2Fadmin"),
    ] {
        for (wire, address) in [(Wire::Http, gateway.http), (Wire::Https2("a.test"), gateway.https)] {
            let expected = (backend.to_owned(), sees.to_owned());
            assert_eq!(seen(address, wire, path).await, expected, "{wire:?} {path}");
        }
    }
    let explained = gateway.explain("http://a.test/public/%252e%252e/admin").await;
    assert!(explained.contains("path /admin/"), "{explained}");
    let explained = gateway.explain("http://a.test/../admin").await;
    assert!(explained.contains("answer: 400, path_above_root"), "{explained}");
    assert_eq!(get(gateway.https, Wire::Https2("a.test"), "a.test", "/../admin").await.status, 400);

    let gateway = Gateway::start(&api, &["--keep-slashes"]).await;
    for (path, backend, sees) in [
        ("//admin", "web", "//admin"),
        ("/proxy/http://b.test/./x", "web", "/proxy/http://b.test/x"),
        ("/x/../admin", "admin", "/admin"),
    ] {
        assert_eq!(seen(gateway.http, Wire::Http, path).await, (backend.to_owned(), sees.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn host_and_path_decide_over_both_protocols_and_both_schemes() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let (web, docs, wild) =
        (Backend::start("web", 0).await, Backend::start("docs", 0).await, Backend::start("wild", 0).await);
    served(&api, "web", [&web]);
    served(&api, "docs", [&docs]);
    served(&api, "wild", [&wild]);
    certificate(&api, "cert", "foo.bar.com");
    ingress(
        &api,
        "main",
        json!({
            "tls": [{"hosts": ["foo.bar.com", "a.foo.com", "x.y.com"], "secretName": "cert"}],
            "rules": [
                rule("foo.bar.com", "Prefix", "/", "web"),
                rule("foo.bar.com", "Exact", "/docs", "docs"),
                rule("*.foo.com", "Prefix", "/app", "wild"),
            ],
        }),
    );
    let gateway = Gateway::start(&api, &[]).await;
    let expected = [
        ("foo.bar.com", "/", Some("web")),
        ("foo.bar.com", "/docs", Some("docs")),
        ("foo.bar.com", "/docs/", Some("web")),
        ("FOO.bar.com", "/docs?query=1", Some("docs")),
        ("a.foo.com", "/app/x", Some("wild")),
        ("a.foo.com", "/apple", None),
        ("x.y.com", "/", None),
    ];
    for (host, path, target) in expected {
        let name = host.to_ascii_lowercase();
        for (wire, address) in
            [(Wire::Http, gateway.http), (Wire::Https1(&name), gateway.https), (Wire::Https2(&name), gateway.https)]
        {
            let reply = get(address, wire, host, path).await;
            match target {
                Some(target) => {
                    assert_eq!((reply.status, reply.backend().as_str()), (200, target), "{wire:?} {host}{path}")
                }
                None => assert_eq!(reply.status, 404, "{wire:?} {host}{path}"),
            }
            let http2 = matches!(wire, Wire::Https2(_));
            assert_eq!(reply.version, if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
        }
    }
    for host in ["subdomain.bar.com", "baz.bar.foo.com", "foo.com"] {
        assert_eq!(get(gateway.http, Wire::Http, host, "/app").await.status, 404, "{host}");
    }
    assert_eq!(gateway.metric("ingress_requests_refused_total{reason=\"no_route\"}").await, 9.0);
    assert_eq!(
        gateway.metric("ingress_requests_total{code_class=\"2xx\",protocol=\"h2\",scheme=\"https\"}").await,
        5.0
    );
    assert_eq!(gateway.admin_page("/healthz").await.unwrap().0, 200);
}

#[tokio::test]
async fn the_endpoint_is_told_the_truth_about_the_client() {
    let (_api, _web, gateway) = started(&[]).await;
    for (wire, address, proto) in [
        (Wire::Http, gateway.http, "http"),
        (Wire::Https1(""), gateway.https, "https"),
        (Wire::Https2("a.test"), gateway.https, "https"),
    ] {
        let mut connection = Connection::open(address, wire).await.unwrap();
        let claims = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil"),
            ("x-real-ip", "6.6.6.6"),
        ];
        let request =
            claims.into_iter().fold(Request::post("/p?q=1"), |request, (name, value)| request.header(name, value));
        let reply = connection.send(request, "a.test", "/p?q=1", "body").await.unwrap();
        let got = reply.json();
        let header = |name: &str| got["headers"][name].as_str().map(str::to_owned);
        assert_eq!((&got["method"], &got["path"], &got["body"]), (&json!("POST"), &json!("/p?q=1"), &json!("body")));
        assert_eq!(header("host").as_deref(), Some("a.test"));
        assert_eq!(header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(header("x-original-forwarded-for").as_deref(), Some("6.6.6.6"));
        assert_eq!(header("x-real-ip").as_deref(), Some("127.0.0.1"));
        assert_eq!(header("x-forwarded-host").as_deref(), Some("a.test"));
        assert_eq!(header("x-forwarded-proto").as_deref(), Some(proto));
        assert_eq!(header("x-forwarded-port"), Some(address.port().to_string()));
        assert_eq!(header("x-request-id").map(|id| id.len()), Some(32));
    }
}

#[tokio::test]
async fn requests_that_no_rule_takes_go_to_the_default_backend_if_there_is_one() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let (web, fallback) = (Backend::start("web", 0).await, Backend::start("fallback", 0).await);
    served(&api, "web", [&web]);
    served(&api, "fallback", [&fallback]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/app", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    assert_eq!(get(gateway.http, Wire::Http, "unknown", "/").await.status, 404);
    ingress(&api, "default", json!({"defaultBackend": backend("fallback")}));
    gateway.until_route("*", true).await;
    for (host, path, target) in
        [("unknown", "/x", "fallback"), ("a.test", "/other", "fallback"), ("a.test", "/app", "web")]
    {
        assert_eq!(get(gateway.http, Wire::Http, host, path).await.backend(), target, "{host}{path}");
    }
    api.delete("ingresses", NAMESPACE, "default");
    gateway.until_route("*", false).await;
    assert_eq!(get(gateway.http, Wire::Http, "unknown", "/").await.status, 404);
}

#[tokio::test]
async fn services_without_endpoints_answer_503_until_one_comes() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    service(&api, "empty");
    served(&api, "web", [&web]);
    let wrong_port = json!({"service": {"name": "web", "port": {"number": 81}}});
    ingress(
        &api,
        "main",
        json!({"rules": [
            rule("missing.test", "Prefix", "/", "missing"),
            rule("empty.test", "Prefix", "/", "empty"),
            {"host": "port.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": wrong_port}]}},
        ]}),
    );
    let gateway = Gateway::start(&api, &[]).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for host in ["missing.test", "empty.test", "port.test"] {
        assert_eq!(connection.get(host, "/").await.unwrap().status, 503, "{host}, on one connection");
    }
    slice(&api, "empty", [&web]);
    for _ in 0..500 {
        if connection.get("empty.test", "/").await.unwrap().status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the endpoint is not used");
}

#[tokio::test]
async fn all_endpoints_take_turns_and_a_dead_one_costs_nobody_an_error() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let mut backends = Backend::start_many("web", 3).await;
    served(&api, "web", &backends);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    let mut seen = BTreeSet::new();
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for _ in 0..30 {
        seen.insert(connection.get("a.test", "/").await.unwrap().backend());
    }
    assert_eq!(seen.len(), 3);
    assert!(backends.iter().all(|backend| backend.served() == 10), "turns are even");

    // It is gone, but its slice still lists it: nothing was sent, so even a POST may go elsewhere.
    drop(backends.remove(0));
    let fresh = Gateway::start(&api, &[]).await;
    let mut connection = Connection::open(fresh.http, Wire::Http).await.unwrap();
    for _ in 0..30 {
        let reply = connection.send(Request::post("/"), "a.test", "/", "body").await.unwrap();
        assert_eq!((reply.status, reply.json()["body"].as_str()), (200, Some("body")));
    }
    assert!(fresh.metric("ingress_upstream_connect_failures_total").await >= 5.0);
}

#[tokio::test]
async fn web_sockets_pass() {
    let (_api, _web, gateway) = started(&[]).await;
    let mut socket = WebSocket::open(gateway.http, "a.test").await;
    for message in [&b"hello"[..], &[7; 40_000]] {
        socket.echo(message).await;
    }
}

#[tokio::test]
async fn servers_without_streaming_lists_are_listed() {
    for streaming in [Streaming::Refused, Streaming::Ignored] {
        let api = ApiServer::start(streaming).await;
        class(&api);
        let web = Backend::start("web", 0).await;
        served(&api, "web", [&web]);
        ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
        let gateway = Gateway::start(&api, &[]).await;
        assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 200, "{streaming:?}");
        ingress(&api, "later", json!({"rules": [rule("b.test", "Prefix", "/", "web")]}));
        gateway.until_route("b.test", true).await;
    }
}

#[tokio::test]
async fn answers_of_the_gateway_itself_are_well_formed() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let gateway = Gateway::start(&api, &[]).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for _ in 0..2 {
        let reply = connection.send(Request::head("/"), "unknown", "/", "").await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (404, ""));
        let reply = connection.send(Request::post("/"), "unknown", "/", &"x".repeat(100_000)).await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (404, "404 Not Found\n"), "and the connection goes on");
        assert_eq!(reply.headers.get("server").unwrap(), "tidegate");
    }
}
