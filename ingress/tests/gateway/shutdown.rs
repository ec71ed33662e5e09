//! Ending, orderly and not.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::Backend;
use crate::bed::started;
use crate::client::{Connection, WebSocket, Wire, get};
use crate::objects::{class, ingress, rule, served};
use crate::process::Gateway;

#[tokio::test]
async fn requests_in_flight_finish_and_connections_are_asked_to_close() {
    let (_api, _web, mut gateway) = started(&["--shutdown-grace-period", "12s"]).await;
    let mut slow = Vec::new();
    for (wire, address) in
        [(Wire::Http, gateway.http), (Wire::Https1(""), gateway.https), (Wire::Https2(""), gateway.https)]
    {
        let mut connection = Connection::open(address, wire).await.unwrap();
        assert_eq!(connection.get("a.test", "/").await.unwrap().status, 200);
        slow.push(tokio::spawn(async move {
            let reply = connection.get("a.test", "/slow").await.unwrap();
            let next = connection.get("a.test", "/").await.is_err();
            (reply, next)
        }));
    }
    let mut waiting = Connection::open(gateway.http, Wire::Http).await.unwrap();
    assert_eq!(waiting.get("a.test", "/").await.unwrap().status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gateway.admin_page("/readyz").await.unwrap().0, 503);
    assert_eq!(gateway.admin_page("/healthz").await.unwrap().0, 200);
    // A connection that waits for its next request may still send it, and is told that it is the last.
    let last = waiting.get("a.test", "/").await.unwrap();
    assert_eq!(
        (last.status, last.headers.get("connection").map(|v| v.to_str().unwrap().to_owned())),
        (200, Some("close".to_owned()))
    );
    for task in slow {
        let (reply, next_fails) = task.await.unwrap();
        assert_eq!(reply.status, 200);
        if reply.version == http::Version::HTTP_11 {
            assert_eq!(reply.headers.get("connection").unwrap(), "close");
        }
        assert!(next_fails, "the connection is over");
    }
    assert!(gateway.until_exit().await.success());
}

#[tokio::test]
async fn a_web_socket_goes_on_until_the_grace_period_is_over() {
    let (_api, _web, mut gateway) = started(&["--shutdown-grace-period", "1500ms"]).await;
    let mut socket = WebSocket::open(gateway.http, "a.test").await;
    socket.echo(b"before").await;
    gateway.signal(Signal::SIGTERM);
    // Beyond the time in which connections that wait for a request are closed.
    tokio::time::sleep(Duration::from_millis(700)).await;
    socket.echo(b"still there").await;
    assert!(gateway.until_exit().await.success());
}

#[tokio::test]
async fn the_grace_period_ends_the_wait() {
    let (_api, _web, mut gateway) = started(&["--shutdown-grace-period", "600ms"]).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    assert_eq!(
        connection.get("a.test", "/").await.unwrap().status,
        200,
        "it was accepted, and does not wait in the socket"
    );
    let slow = tokio::spawn(async move { connection.get("a.test", "/slow").await.is_err() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.until_exit().await.success());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(slow.await.unwrap(), "the request was cut");
}

#[tokio::test]
async fn a_killed_gateway_is_replaced_without_a_refused_connection() {
    let (_api, _web, mut gateway) = started(&[]).await;
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 200);
    gateway.signal(Signal::SIGKILL);
    assert!(!gateway.until_exit().await.success());
    // The sockets live on in their owner: the connection waits for the next process, and for its routes.
    let address = gateway.http;
    let early = tokio::spawn(async move { get(address, Wire::Http, "a.test", "/").await.status });
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.respawn();
    assert_eq!(early.await.unwrap(), 200);
}

#[tokio::test]
async fn nothing_is_answered_before_everything_is_known() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start_unready(&api, &[]);
    let early = get(gateway.http, Wire::Http, "a.test", "/").await;
    assert_eq!(early.status, 200);
}

#[tokio::test]
async fn own_sockets_serve_newcomers_for_a_while() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let mut gateway = Gateway::start_bound(&api, &["--shutdown-grace-period", "6s"]).await;
    let until_open = async |address| {
        for _ in 0..200 {
            match Connection::open(address, Wire::Http).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("the gateway does not listen");
    };
    assert_eq!(until_open(gateway.http).await.get("a.test", "/").await.unwrap().status, 200);
    gateway.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (wire, address) in [(Wire::Http, gateway.http), (Wire::Https2("a.test"), gateway.https)] {
        assert_eq!(get(address, wire, "a.test", "/").await.status, 200, "{wire:?}");
    }
    assert!(gateway.until_exit().await.success());
    assert!(Connection::open(gateway.http, Wire::Http).await.is_err(), "and then nobody listens");
}
