//! Connections on which nothing, or not enough, is said; and too many of them.

use std::time::{Duration, Instant};

use control_apiserver::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, ask, connect, haunt, to_the_end};
use crate::support::{TestServer, config_map};
use serde_json::json;

const SHORT: Duration = Duration::from_millis(400);

async fn with_limits(limits: Limits) -> TestServer {
    TestServer::with(|config| config.limits = limits).await
}

/// Returns once the server has hung up.
async fn hung_up(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    let read = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    tokio::time::timeout(PATIENCE, read).await.expect("the server does not hang up");
}

#[tokio::test]
async fn who_says_nothing_is_hung_up_on() {
    let limits = Limits { handshake: SHORT, head: SHORT, idle: SHORT, ..Limits::default() };
    let server = with_limits(limits).await;
    let mut silent = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    hung_up(&mut silent).await;
    for (alpn, said) in [
        ("http/1.1", ""),
        ("http/1.1", "GET /version HTTP/1.1\r\nHost: a\r\nX-Slow: "),
        ("h2", ""),
        ("h2", "PRI * HT"),
        ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut stream = connect(&server, alpn).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let started = Instant::now();
        to_the_end(&mut stream).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{alpn} {said:?}");
    }
    // A watch on which nothing happens is not silence: its client has asked for it.
    let watch = "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0";
    let mut watch = server.admin.watch(watch).await;
    tokio::time::sleep(SHORT * 3).await;
    server.admin.post("/api/v1/namespaces/default/configmaps", config_map("a", json!({}))).await.expect(201);
    assert_eq!(watch.brief().await.1, "a");
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let server = with_limits(Limits { connections_per_address: 6, ..Limits::default() }).await;
    let mut open = Vec::new();
    for _ in 0..12 {
        match connect(&server, "h2").await {
            Ok(stream) => open.push(stream),
            Err(_) => break,
        }
    }
    // The test's own clients have some, too.
    assert!((1..6).contains(&open.len()), "{} connections", open.len());
    // Others are served on what they have.
    server.admin.get("/version").await.expect(200);
    drop(open);
    let again = async {
        while connect(&server, "h2").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("places are not given back");
}

#[tokio::test]
async fn watches_have_a_limit_of_their_own() {
    let server = with_limits(Limits { long_running: 3, ..Limits::default() }).await;
    let path = "/api/v1/configmaps?watch=true";
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(server.admin.watch(path).await);
    }
    let refused = server.admin.get(path).await;
    assert_eq!(refused.headers["retry-after"], "1");
    let body = refused.expect(429);
    assert_eq!((&body["reason"], &body["details"]["retryAfterSeconds"]), (&json!("TooManyRequests"), &json!(1)));
    server.admin.get("/api/v1/configmaps").await.expect(200);
    watches.pop();
    let again = async {
        while server.admin.get(&format!("{path}&timeoutSeconds=1")).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("places are not given back");
}

#[tokio::test]
async fn thousands_of_idle_watches_cost_nobody_anything() {
    let server = TestServer::start().await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let (mut client, connection) = h2::client::handshake(connect(&server, "h2").await.unwrap()).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..200 {
            let path = "/api/v1/namespaces/default/configmaps?watch=true";
            let uri = format!("https://localhost:{}{path}&resourceVersion=0", server.port);
            client = client.ready().await.unwrap();
            let (answer, _) = client.send_request(http::Request::get(uri).body(()).unwrap(), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            watches.push(answer.into_body());
        }
    }
    let started = Instant::now();
    server.admin.post("/api/v1/namespaces/default/configmaps", config_map("a", json!({}))).await.expect(201);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for mut watch in watches {
        let event = async {
            let mut text = String::new();
            while !text.contains("\"name\":\"a\"") {
                text.push_str(&String::from_utf8_lossy(&watch.data().await.unwrap().unwrap()));
            }
        };
        tokio::time::timeout(PATIENCE, event).await.expect("an event is missing");
    }
}

#[tokio::test]
async fn a_request_that_panics_ends_alone() {
    let server = TestServer::with(haunt).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let mut watch = server.admin.watch(&format!("{path}?watch=true&resourceVersion=0")).await;
    for _ in 0..3 {
        let answer = server.admin.get(&format!("{path}/boom")).await;
        let text = "This request caused apiserver to panic. Look in the logs for details.\n";
        assert_eq!(answer.expect(500), text);
    }
    let request = format!("GET {path}/boom HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(&server, request.as_bytes()).await.0, 500);
    server.admin.post(path, config_map("a", json!({}))).await.expect(201);
    assert_eq!(watch.brief().await.1, "a", "a watch on the same connection goes on");
}

#[tokio::test]
async fn a_request_that_takes_for_ever_is_given_up() {
    let server = TestServer::with(|config| {
        haunt(config);
        config.limits.in_flight = 1;
        config.limits.request = Duration::from_secs(2);
    })
    .await;
    let path = "/api/v1/namespaces/default/configmaps/never";
    for query in ["", "?timeout=300ms", "?timeout=1h"] {
        let started = Instant::now();
        let body = server.admin.get(&format!("{path}{query}")).await.expect(504);
        assert_eq!(body["reason"], "Timeout");
        assert_eq!(body["message"], "Timeout: request did not complete within the allotted timeout");
        assert!(started.elapsed() < Duration::from_secs(4), "{query}");
        // Its place is free again.
        server.admin.get("/api/v1/namespaces").await.expect(200);
    }
    let text = server.admin.get(&format!("{path}?timeout=soon")).await.message(400);
    assert_eq!(text, "invalid timeout specified in the request URL - time: invalid duration \"soon\"");
}
