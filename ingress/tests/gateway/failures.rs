//! Endpoints that fail: what the client notices, and which endpoints get no more requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Request;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::api_server::{ApiServer, Streaming};
use crate::backend::{Backend, Manner};
use crate::client::{Connection, Wire, get};
use crate::objects::{NAMESPACE, class, ingress, rule, served, service, slice_with};
use crate::process::Gateway;

/// A Service `web` at `a.test` with these endpoints, and a gateway.
async fn started(backends: &[Backend], arguments: &[&str]) -> (ApiServer, Gateway) {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    served(&api, "web", backends);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, arguments).await;
    (api, gateway)
}

async fn good_and(manner: Manner) -> [Backend; 2] {
    let good = Backend::start("good", 0).await;
    let port = good.address.port();
    [good, Backend::start_with("bad", port, manner).await]
}

async fn send(connection: &mut Connection, method: &str, body: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri("/");
    match connection.send(request, "a.test", "/", body).await {
        Ok(reply) => (reply.status, reply.body),
        Err(error) => panic!("{method}: {error}"),
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_is_left_alone_and_safe_requests_go_elsewhere() {
    let backends = good_and(Manner::Close).await;
    let (_api, gateway) = started(&backends, &[]).await;
    for wire in [Wire::Http, Wire::Https2("")] {
        let address = if matches!(wire, Wire::Http) { gateway.http } else { gateway.https };
        let mut connection = Connection::open(address, wire).await.unwrap();
        for _ in 0..15 {
            let (status, body) = send(&mut connection, "PUT", "the body").await;
            assert_eq!((status, body.contains("the body")), (200, true), "{wire:?} {body}");
        }
    }
    assert_eq!(backends[1].served(), 5, "five failures and it is ejected");
    assert_eq!(gateway.metric("ingress_upstream_ejections_total").await, 1.0);
    assert_eq!(gateway.metric("ingress_upstream_retries_total").await, 5.0);
    let explained = gateway.explain("http://a.test/").await;
    assert!(explained.contains(&format!("{}: ejected for ", backends[1].address)), "{explained}");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let backends = good_and(Manner::Close).await;
    let (_api, gateway) = started(&backends, &[]).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
        statuses.push(send(&mut connection, "POST", "the body").await.0);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 502, 502, 502]);
    assert_eq!((backends[0].served(), backends[1].served()), (3, 3));
}

#[tokio::test]
async fn a_silent_endpoint_is_a_504_within_its_time() {
    let backends = [Backend::start_with("silent", 0, Manner::Hang).await];
    for (arguments, least) in [
        (&["--upstream-read-timeout", "400ms"][..], 400),
        (&["--request-timeout", "600ms"], 600),
        (&["--upstream-read-timeout", "5s", "--request-timeout", "300ms"], 300),
    ] {
        let (_api, gateway) = started(&backends, arguments).await;
        for wire in [Wire::Http, Wire::Https2("")] {
            let address = if matches!(wire, Wire::Http) { gateway.http } else { gateway.https };
            let start = Instant::now();
            let reply = get(address, wire, "a.test", "/").await;
            let took = start.elapsed();
            assert_eq!((reply.status, reply.body.as_str()), (504, "504 Gateway Timeout\n"), "{arguments:?}");
            let expected = Duration::from_millis(least - 50)..Duration::from_millis(least + 1500);
            assert!(expected.contains(&took), "{arguments:?} {took:?}");
        }
        assert_eq!(gateway.metric("ingress_upstream_retries_total").await, 0.0, "it may be at work");
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_when_the_time_of_the_request_is_over() {
    let backends = [Backend::start_with("drip", 0, Manner::Drip).await];
    let (_api, gateway) = started(&backends, &["--request-timeout", "500ms"]).await;
    let start = Instant::now();
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    assert!(connection.get("a.test", "/").await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_a_504_or_somebody_elses_work() {
    let good = Backend::start("good", 0).await;
    let hole = BlackHole::new(good.address.port());
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    service(&api, "both");
    service(&api, "hole");
    for (name, addresses) in [("both", vec![good.address.ip(), hole.address.ip()]), ("hole", vec![hole.address.ip()])] {
        api.apply(
            "endpointslices",
            json!({
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": good.address.port()}],
                "endpoints": addresses.iter().map(|ip| json!({"addresses": [ip]})).collect::<Vec<_>>(),
            }),
        );
    }
    ingress(
        &api,
        "main",
        json!({"rules": [rule("both.test", "Prefix", "/", "both"), rule("hole.test", "Prefix", "/", "hole")]}),
    );
    let gateway = Gateway::start(&api, &["--upstream-connect-timeout", "200ms"]).await;
    assert_eq!(get(gateway.http, Wire::Http, "hole.test", "/").await.status, 504);
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for _ in 0..10 {
        let reply = connection.send(Request::post("/"), "both.test", "/", "body").await.unwrap();
        assert_eq!(reply.status, 200, "nothing was sent, so that even a POST may go elsewhere");
    }
    let explained = gateway.explain("http://hole.test/").await;
    assert!(explained.contains("fewer than half are available"), "one address has one health: {explained}");
}

#[tokio::test]
async fn endpoints_that_leave_serve_until_the_last_is_gone() {
    let backends = Backend::start_many("web", 2).await;
    let (api, gateway) = started(&backends, &[]).await;
    let port = backends[0].address.port();
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let ended = json!({"ready": false, "serving": false, "terminating": true});
    let ips = [backends[0].ip(), backends[1].ip()];
    let until = async |what: &str, expected: bool| {
        for _ in 0..500 {
            if gateway.explain("http://a.test/").await.contains(what) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what:?} is not {expected}: {}", gateway.explain("http://a.test/").await);
    };

    slice_with(&api, "web", port, &[(ips[0], json!({"ready": true})), (ips[1], leaving.clone())]);
    until(&ips[1].to_string(), false).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for _ in 0..4 {
        assert_eq!(connection.get("a.test", "/").await.unwrap().backend(), "web-0", "a ready one is preferred");
    }
    slice_with(&api, "web", port, &[(ips[0], leaving.clone()), (ips[1], leaving.clone())]);
    until("none is ready", true).await;
    let mut who = std::collections::BTreeSet::new();
    for _ in 0..4 {
        who.insert(connection.get("a.test", "/").await.unwrap().backend());
    }
    assert_eq!(who.len(), 2, "{who:?}");

    // Three of four have closed their sockets already, and the slice does not know it yet.
    let gone = [1, 2, 3].map(|last| IpAddr::from([127, 2, 0, last]));
    let mut endpoints: Vec<_> = gone.iter().map(|ip| (*ip, leaving.clone())).collect();
    endpoints.push((ips[0], leaving.clone()));
    slice_with(&api, "web", port, &endpoints);
    until("127.2.0.3", true).await;
    for wire in [Wire::Http, Wire::Https2("")] {
        let address = if matches!(wire, Wire::Http) { gateway.http } else { gateway.https };
        let mut connection = Connection::open(address, wire).await.unwrap();
        for _ in 0..60 {
            assert_eq!(
                send(&mut connection, "POST", "the body").await.0,
                200,
                "{wire:?}: nothing was sent to the others"
            );
        }
    }
    assert_eq!(gateway.metric("ingress_upstream_retries_over_budget_total").await, 0.0);

    slice_with(&api, "web", port, &[(ips[0], ended)]);
    until("no_endpoints", true).await;
    assert_eq!(connection.get("a.test", "/").await.unwrap().status, 503);
}

/// A socket whose queue is full: the kernel answers no more.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _fillers: Vec<Socket>,
}

impl BlackHole {
    fn new(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::new(127, 1, (std::process::id() % 250) as u8, 1), port));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let fillers = (0..4).map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address.into());
            filler
        });
        let fillers = fillers.collect();
        std::thread::sleep(Duration::from_millis(100));
        Self { address, _listener: listener, _fillers: fillers }
    }
}

#[tokio::test]
async fn bad_answers_go_through_unless_another_endpoint_is_asked_for() {
    let backends = good_and(Manner::Status(503)).await;
    let (_api, gateway) = started(&backends, &[]).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    let mut statuses = [send(&mut connection, "GET", "").await.0, send(&mut connection, "GET", "").await.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);

    let backends = good_and(Manner::Status(503)).await;
    let (_api, gateway) = started(&backends, &["--retry-on-status", "502,503"]).await;
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for _ in 0..4 {
        assert_eq!(send(&mut connection, "PUT", "the body").await.0, 200);
    }
    let mut posts = [send(&mut connection, "POST", "x").await.0, send(&mut connection, "POST", "x").await.0];
    posts.sort_unstable();
    assert_eq!(posts, [200, 503], "a POST may have been done");

    let hopeless = [Backend::start_with("bad", 0, Manner::Status(503)).await];
    let (_api, gateway) = started(&hopeless, &["--retry-on-status", "503"]).await;
    let reply = get(gateway.http, Wire::Http, "a.test", "/").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "bad"),
        "without another endpoint its own answer goes through"
    );
}

#[tokio::test]
async fn when_everything_fails_retries_do_not_multiply_the_load() {
    let first = Backend::start_with("bad", 0, Manner::Close).await;
    let port = first.address.port();
    let mut backends = vec![first];
    for _ in 0..3 {
        backends.push(Backend::start_with("bad", port, Manner::Close).await);
    }
    let (_api, gateway) = started(&backends, &[]).await;
    let start = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let address = gateway.http;
        clients.push(tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(get(address, Wire::Http, "a.test", "/").await.status, 502);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let attempts: u64 = backends.iter().map(Backend::served).sum();
    let allowed = 800.0 + 100.0 + 800.0 / 5.0 + 10.0 * (start.elapsed().as_secs_f64() + 1.0);
    assert!(attempts as f64 <= allowed, "{attempts} attempts for 800 requests, {allowed} allowed");
    assert!(gateway.metric("ingress_upstream_retries_over_budget_total").await > 100.0);
}
