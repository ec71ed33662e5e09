//! Names of others: upstream servers and the cache.

use std::time::Duration;

use serde_json::json;

use crate::api_server::ApiServer;
use crate::client::{dig, until};
use crate::process::Server;
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_forwarded_and_cached() {
    let (api, upstream) = (ApiServer::start().await, Upstream::start().await);
    api.apply("services", "shop", "far", json!({"spec": {"type": "ExternalName", "externalName": "www.example"}}));
    let server = Server::start(&api, &["--forward", &upstream.address.to_string()]).await;

    let reply = dig(server.address, &["www.example", "A"]).await;
    assert_eq!((reply.code.as_str(), reply.data()), ("NOERROR", vec!["192.0.2.1"]));
    assert!(reply.flags.contains(" ra") && !reply.flags.contains(" aa"), "{}", reply.flags);
    assert_eq!(upstream.asked(), 1);
    let reply = dig(server.address, &["WWW.example", "A", "+tcp"]).await;
    assert_eq!((reply.data(), upstream.asked()), (vec!["192.0.2.1"], 1));

    let reply = dig(server.address, &["far.shop.svc.cluster.local", "A"]).await;
    assert_eq!((reply.data(), upstream.asked()), (vec!["192.0.2.1", "www.example."], 1));
    assert!(reply.answers[0].contains("CNAME"), "the alias comes first: {:?}", reply.answers);

    for _ in 0..2 {
        let reply = dig(server.address, &["x.none", "A"]).await;
        assert_eq!((reply.code.as_str(), reply.authorities.len(), upstream.asked()), ("NXDOMAIN", 1, 2));
    }
    let reply = dig(server.address, &["-x", "8.8.8.8"]).await;
    assert_eq!((reply.code.as_str(), upstream.asked()), ("NOERROR", 3));
    let metrics = server.admin_page("/metrics").await.unwrap();
    for line in [
        "coredns_cache_hits_total{type=\"success\"} 2",
        "coredns_cache_hits_total{type=\"denial\"} 1",
        "coredns_cache_misses_total 3",
        "dns_forward_requests_total 3",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_questions_are_asked_once() {
    let (api, upstream) = (ApiServer::start().await, Upstream::start().await);
    let server = Server::start(&api, &["--forward", &upstream.address.to_string(), "--cache-entries", "0"]).await;
    let question = ["slow.example", "A"];
    let (first, second) = tokio::join!(dig(server.address, &question), dig(server.address, &question));
    assert_eq!(first.data(), second.data());
    // The second may have come late; without any joining it would be asked every time.
    let mut joined = upstream.asked() == 1;
    for _ in 0..5 {
        let before = upstream.asked();
        tokio::join!(dig(server.address, &question), dig(server.address, &question));
        joined |= upstream.asked() == before + 1;
    }
    assert!(joined);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_fit_come_over_tcp() {
    let (api, upstream) = (ApiServer::start().await, Upstream::start().await);
    let server = Server::start(&api, &["--forward", &upstream.address.to_string()]).await;
    assert_eq!(dig(server.address, &["x.big", "A", "+tcp"]).await.answers.len(), 200);
    let reply = dig(server.address, &["x.big", "A", "+notcp", "+ignore"]).await;
    assert!(reply.flags.contains(" tc"), "{}", reply.flags);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_is_asked_when_one_is_silent_or_fails() {
    let api = ApiServer::start().await;
    // Nobody listens at the first.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = Upstream::start().await;
    let servers = format!("{closed},{}", upstream.address);
    let server = Server::start(&api, &["--forward", &servers]).await;
    assert_eq!(dig(server.address, &["www.example", "A"]).await.data(), ["192.0.2.1"]);
    assert_eq!(dig(server.address, &["x.broken", "A"]).await.code, "SERVFAIL");
    let (started, asked) = (std::time::Instant::now(), upstream.asked());
    assert_eq!(dig(server.address, &["x.dead", "A"]).await.code, "SERVFAIL");
    assert!(started.elapsed() < Duration::from_secs(5), "in time for the client");
    // A failure is remembered.
    assert_eq!(dig(server.address, &["x.dead", "A"]).await.code, "SERVFAIL");
    assert_eq!(upstream.asked(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_resolv_conf_is_read_again() {
    let (api, upstream) = (ApiServer::start().await, Upstream::start().await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "search example\n").unwrap();
    let server = Server::start(&api, &["--resolv-conf", path.to_str().unwrap()]).await;
    until(server.address, &["www.example", "A"], |reply| reply.code == "REFUSED").await;
    // Port 53 of loopback is not ours to use: that the file has been read shows in the code.
    std::fs::write(&path, "nameserver 127.0.0.254\n").unwrap();
    for _ in 0..100 {
        if dig(server.address, &["www.example", "A"]).await.code == "SERVFAIL" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(upstream.asked(), 0);
    panic!("the changed file has not been read within 10 s");
}
