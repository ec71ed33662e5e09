//! Names of the cluster, over both transports.

use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::api_server::ApiServer;
use crate::client::{dig, until};
use crate::process::Server;

fn service(api: &ApiServer, name: &str, spec: Value) {
    api.apply("services", "shop", name, json!({"spec": spec}));
}

fn slice(api: &ApiServer, name: &str, service: &str, kind: &str, endpoints: &Value) {
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    api.apply(
        "endpointslices",
        "shop",
        name,
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": kind, "ports": ports, "endpoints": endpoints,
        }),
    );
}

async fn cluster() -> ApiServer {
    let api = ApiServer::start().await;
    api.apply("namespaces", "", "shop", json!({}));
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    service(
        &api,
        "web",
        json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:10:96::5"], "ports": ports}),
    );
    service(&api, "db", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}));
    service(&api, "alias", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}));
    slice(
        &api,
        "db-4",
        "db",
        "IPv4",
        &json!([
            {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.0.8"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.9"], "hostname": "db-2", "conditions": {"ready": false}},
        ]),
    );
    slice(&api, "db-6", "db", "IPv6", &json!([{"addresses": ["fd00:10:244::7"], "hostname": "db-0"}]));
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_a_cluster_over_udp_and_tcp() {
    let api = cluster().await;
    let server = Server::start(&api, &[]).await;
    for transport in ["+notcp", "+tcp"] {
        for (question, code, expected) in [
            (vec!["web.shop.svc.cluster.local", "A"], "NOERROR", vec!["10.96.0.5"]),
            (vec!["web.shop.svc.cluster.local", "AAAA"], "NOERROR", vec!["fd00:10:96::5"]),
            (vec!["web.shop.svc.cluster.local", "TXT"], "NOERROR", vec![]),
            (vec!["none.shop.svc.cluster.local", "A"], "NXDOMAIN", vec![]),
            (vec!["db.shop.svc.cluster.local", "A"], "NOERROR", vec!["10.244.0.7", "10.244.0.8"]),
            (vec!["db-0.db.shop.svc.cluster.local", "AAAA"], "NOERROR", vec!["fd00:10:244::7"]),
            (vec!["db-2.db.shop.svc.cluster.local", "A"], "NXDOMAIN", vec![]),
            (
                vec!["_http._tcp.db.shop.svc.cluster.local", "SRV"],
                "NOERROR",
                vec!["0 50 8080 10-244-0-8.db.shop.svc.cluster.local.", "0 50 8080 db-0.db.shop.svc.cluster.local."],
            ),
            (vec!["alias.shop.svc.cluster.local", "A"], "NOERROR", vec!["10.96.0.5", "web.shop.svc.cluster.local."]),
            (vec!["1-2-3-4.shop.pod.cluster.local", "A"], "NOERROR", vec!["1.2.3.4"]),
            (vec!["dns-version.cluster.local", "TXT"], "NOERROR", vec!["\"1.1.0\""]),
            (vec!["-x", "10.96.0.5"], "NOERROR", vec!["web.shop.svc.cluster.local."]),
            (vec!["-x", "fd00:10:244::7"], "NOERROR", vec!["db-0.db.shop.svc.cluster.local."]),
            (vec!["www.example", "A"], "REFUSED", vec![]),
        ] {
            let reply = dig(server.address, &[question.as_slice(), &[transport]].concat()).await;
            assert_eq!((reply.code.as_str(), reply.data()), (code, expected), "{question:?} {transport}");
            let is_denial = reply.answers.is_empty() && code != "REFUSED";
            assert_eq!(reply.authorities.len(), usize::from(is_denial), "{question:?}: an SOA with denials");
            assert!(reply.answers.iter().all(|line| line.split(' ').nth(1) == Some("5")), "{:?}", reply.answers);
        }
    }
    let metrics = server.admin_page("/metrics").await.unwrap();
    assert!(metrics.contains("coredns_dns_requests_total{proto=\"tcp\",type=\"SRV\"} 1"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_follow_the_objects() {
    let api = cluster().await;
    let server = Server::start(&api, &[]).await;
    slice(&api, "db-4", "db", "IPv4", &json!([{"addresses": ["10.244.0.10"], "conditions": {"ready": true}}]));
    let question = ["db.shop.svc.cluster.local", "A"];
    until(server.address, &question, |reply| reply.data() == ["10.244.0.10"]).await;
    api.delete("endpointslices", "shop", "db-4");
    until(server.address, &question, |reply| reply.code == "NOERROR" && reply.answers.is_empty()).await;
    api.delete("services", "shop", "db");
    until(server.address, &question, |reply| reply.code == "NXDOMAIN").await;
    // What vanishes while the watch is broken is noticed by the list after it.
    api.delete_unseen("services", "shop", "web");
    assert_eq!(dig(server.address, &["web.shop.svc.cluster.local"]).await.code, "NOERROR");
    api.expire_watches();
    until(server.address, &["web.shop.svc.cluster.local"], |reply| reply.code == "NXDOMAIN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_truncated_over_udp_and_whole_over_tcp() {
    let api = cluster().await;
    let endpoints: Vec<_> = (1..=250).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
    slice(&api, "db-4", "db", "IPv4", &Value::from(endpoints));
    let server = Server::start(&api, &[]).await;
    for (arguments, is_cut, count) in [
        (["+notcp", "+ignore", "+noedns"], true, 28),
        (["+notcp", "+ignore", "+bufsize=1232"], true, 72),
        (["+tcp", "+noignore", "+noedns"], false, 250),
    ] {
        let reply = dig(server.address, &[&["db.shop.svc.cluster.local"], &arguments[..]].concat()).await;
        assert_eq!(reply.flags.contains(" tc"), is_cut, "{arguments:?}");
        assert!(reply.answers.len().abs_diff(count) <= 1, "{arguments:?}: {} answers", reply.answers.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_denied_before_everything_is_known() {
    let api = cluster().await;
    api.hold_lists(true);
    let server = Server::start_unready(&api, &[]);
    let question = ["web.shop.svc.cluster.local", "A"];
    until(server.address, &question, |reply| reply.code == "SERVFAIL").await;
    assert!(server.admin_page("/readyz").await.unwrap().starts_with("HTTP/1.1 503"));
    assert!(server.admin_page("/healthz").await.unwrap().starts_with("HTTP/1.1 200"));
    api.hold_lists(false);
    until(server.address, &question, |reply| reply.data() == ["10.96.0.5"]).await;
    server.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_from_the_address_that_was_asked() {
    let api = cluster().await;
    // One socket for both families, bound to every address.
    let server = Server::start_bound(&api, "[::]", &[]).await;
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("web.shop.svc.cluster.local.").unwrap(), RecordType::A));
    let bytes = message.to_vec().unwrap();
    for (own, server_ip) in [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.77"), ("[::1]:0", "::1")] {
        // A socket that is not connected takes answers from anywhere and says from where.
        let client = UdpSocket::bind(own).await.unwrap();
        client.send_to(&bytes, (server_ip, server.address.port())).await.unwrap();
        let mut buffer = [0; 1232];
        let received = tokio::time::timeout(Duration::from_secs(5), client.recv_from(&mut buffer)).await;
        let (len, from) = received.unwrap_or_else(|_| panic!("no answer from {server_ip}")).unwrap();
        assert_eq!(from.ip().to_string(), server_ip);
        assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers.len(), 1);
    }
    assert_eq!(dig(server.address, &["web.shop.svc.cluster.local", "+tcp"]).await.data(), ["10.96.0.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_costs_little() {
    const QUESTIONS: u64 = 20_000;
    let api = cluster().await;
    let server = Server::start(&api, &[]).await;
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("web.shop.svc.cluster.local.").unwrap(), RecordType::A));
    let bytes = message.to_vec().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(server.address).await.unwrap();
    let (before, mut buffer) = (server.cpu_ticks(), [0; 1232]);
    for _ in 0..QUESTIONS {
        client.send(&bytes).await.unwrap();
        client.recv(&mut buffer).await.unwrap();
    }
    let cost_us = (server.cpu_ticks() - before) * 10_000 / QUESTIONS;
    println!("{cost_us} µs of CPU per question, system calls included");
    // Wide, for builds without optimisation on busy machines.
    assert!(cost_us < 300, "{cost_us} µs per question");
}
