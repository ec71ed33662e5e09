//! Changes under load: nobody notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::Backend;
use crate::client::{Connection, WebSocket, Wire, get};
use crate::objects::{class, ingress, rule, served, slice};
use crate::process::Gateway;

/// Clients that send requests on kept connections until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: &Gateway, host: &'static str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let wires =
            [(Wire::Http, gateway.http), (Wire::Https1(""), gateway.https), (Wire::Https2(host), gateway.https)];
        let clients = wires.into_iter().flat_map(|wire| [wire, wire]);
        let clients = clients
            .map(|(wire, address)| tokio::spawn(client(address, wire, host, Arc::clone(&stop), Arc::clone(&sent))))
            .collect();
        Self { stop, sent, clients }
    }

    /// Waits until more requests have been answered.
    async fn run(&self, more: u64) {
        let target = self.sent.load(Ordering::SeqCst) + more;
        while self.sent.load(Ordering::SeqCst) < target {
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(!self.clients.iter().all(JoinHandle::is_finished), "every client failed");
        }
    }

    /// Returns the number of requests and the failures.
    async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        (self.sent.load(Ordering::SeqCst), failures)
    }
}

async fn client(
    address: SocketAddr,
    wire: Wire<'static>,
    host: &'static str,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = Connection::open(address, wire).await.unwrap();
    while !stop.load(Ordering::SeqCst) && failures.len() < 10 {
        match connection.get(host, "/").await {
            Ok(reply) if reply.status == 200 => {}
            Ok(reply) => failures.push(format!("{wire:?}: {} {}", reply.status, reply.body)),
            Err(error) => {
                failures.push(format!("{wire:?}: {error}"));
                connection = Connection::open(address, wire).await.unwrap();
            }
        }
        sent.fetch_add(1, Ordering::SeqCst);
    }
    failures
}

#[tokio::test]
async fn scaling_under_load_fails_no_request_and_removed_endpoints_get_none() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let mut backends = Backend::start_many("web", 5).await;
    served(&api, "web", &backends[..3]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    let load = Load::start(&gateway, "a.test");
    load.run(300).await;
    slice(&api, "web", &backends);
    load.run(300).await;
    assert!(backends.iter().all(|backend| backend.served() > 0), "new endpoints get requests");
    for keep in [4, 3, 2] {
        slice(&api, "web", &backends[..keep]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let removed = backends.pop().unwrap();
        let served = removed.served();
        load.run(100).await;
        assert_eq!(removed.served(), served, "{} was removed", removed.name);
        drop(removed);
    }
    load.run(300).await;
    let (sent, failures) = load.finish().await;
    assert_eq!(failures, [""; 0], "of {sent} requests");
    assert!(sent >= 1200);
}

#[tokio::test]
async fn endpoints_that_die_with_their_removal_fail_no_request() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let mut backends = Backend::start_many("web", 4).await;
    served(&api, "web", &backends);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    let load = Load::start(&gateway, "a.test");
    while backends.len() > 1 {
        load.run(100).await;
        // The socket goes first, as with a pod that does not wait for its removal to be known.
        let removed = backends.pop().unwrap();
        drop(removed);
        slice(&api, "web", &backends);
    }
    load.run(200).await;
    let (sent, failures) = load.finish().await;
    assert_eq!(failures, [""; 0], "of {sent} requests");
}

#[tokio::test]
async fn routes_that_change_elsewhere_fail_no_request() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let (web, other) = (Backend::start("web", 0).await, Backend::start("other", 0).await);
    served(&api, "web", [&web]);
    served(&api, "other", [&other]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, &[]).await;
    let load = Load::start(&gateway, "a.test");
    for round in 0..20 {
        for index in 0..5 {
            let host = format!("h{index}-{round}.test");
            ingress(&api, &format!("churn-{index}"), json!({"rules": [rule(&host, "Prefix", "/", "other")]}));
        }
        ingress(
            &api,
            "main",
            json!({"rules": [rule("a.test", "Prefix", "/", if round % 2 == 0 { "other" } else { "web" })]}),
        );
        load.run(20).await;
    }
    let (sent, failures) = load.finish().await;
    assert_eq!(failures, [""; 0], "of {sent} requests");
    gateway.until_route("h4-19.test", true).await;
    assert_eq!(get(gateway.http, Wire::Http, "h4-19.test", "/").await.backend(), "other");
    assert!(gateway.metric("ingress_snapshot_generation").await > 20.0);
}

#[tokio::test]
async fn a_web_socket_survives_changes_of_endpoints_and_routes() {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let backends = Backend::start_many("web", 2).await;
    served(&api, "web", &backends[..1]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    // What limits requests does not limit the conversation that one of them began.
    let limits = ["--request-timeout", "300ms", "--client-body-timeout", "200ms", "--max-request-body-size", "64"];
    let gateway = Gateway::start(&api, &limits).await;
    let mut socket = WebSocket::open(gateway.http, "a.test").await;
    socket.echo(b"before").await;
    slice(&api, "web", &backends[1..]);
    for _ in 0..500 {
        if get(gateway.http, Wire::Http, "a.test", "/").await.backend() == "web-1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.backend(), "web-1");
    socket.echo(b"the endpoint is not listed any more").await;
    api.delete("ingresses", crate::objects::NAMESPACE, "main");
    gateway.until_route("a.test", false).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    socket.echo(b"nor is the route, and the time of a request is over").await;
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 404);
}
