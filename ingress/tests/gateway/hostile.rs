//! Requests that are made to be misunderstood.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bed::started;
use crate::client::{Wire, get};

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(Duration::from_secs(3), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_never_reach_an_endpoint() {
    let (_api, web, gateway) = started(&[]).await;
    for (what, request) in [
        (
            "both",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        ),
        (
            "both, other order",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH:6\r\n\r\n0\r\n\r\nX",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2, 2\r\n\r\nab"),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        ("absolute form of another host", "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("odd coding", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("space before colon", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("userinfo", "GET http://x@a.test/ HTTP/1.1\r\nHost: x@a.test\r\n\r\n"),
        ("absolute form without host", "GET http://a.test/ HTTP/1.1\r\n\r\n"),
        ("absolute form of another scheme", "GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("a target that is no path", "GET a.test HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n z\r\n\r\n"),
        ("a folded length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n 1\r\n\r\nx"),
        ("bare line feeds", "GET / HTTP/1.1\nHost: a.test\n\n"),
        ("one bare line feed", "GET / HTTP/1.1\r\nX: y\nHost: a.test\r\n\r\n"),
        ("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a.test\r\n\n"),
        ("a bare carriage return", "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\rContent-Length: 1\r\n\r\n"),
        ("a zero byte", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \0\r\n\r\n"),
        ("an encoding of HTTP/1.0", "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("above the root", "GET /../x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("above the root, encoded", "GET /a/%2e%2e/.%2E/x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("an encoded zero byte", "GET /a%00b HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ] {
        let answer = raw(gateway.http, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    assert_eq!(web.served(), 0);
    let connect = raw(gateway.http, "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 405 "), "{connect}");
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 200, "and the gateway goes on");
}

#[tokio::test]
async fn a_client_that_is_no_tls_client_harms_nobody() {
    let (_api, _web, gateway) = started(&[]).await;
    let mut plain = TcpStream::connect(gateway.https).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(3), plain.read_to_end(&mut rest)).await.unwrap();
    let _silent = TcpStream::connect(gateway.https).await.unwrap();
    assert_eq!(get(gateway.https, Wire::Https2("a.test"), "a.test", "/").await.status, 200);
    assert_eq!(gateway.metric("ingress_tls_handshakes_total{result=\"bad_hello\"}").await, 1.0);
    assert_eq!(gateway.metric("ingress_tls_handshakes_total{result=\"ok\"}").await, 1.0);
}

/// Everything that comes until the other side closes.
async fn converse(address: SocketAddr, parts: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        stream.write_all(part.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut all = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn every_request_of_a_pipeline_is_answered_in_turn() {
    let (_api, web, gateway) = started(&[]).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = "PUT /four HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let last = "GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let all = [&get("/one"), &post("/two", "GET /body HTTP/1.1"), &get("/slow-three"), chunked, last].concat();
    for cut in [all.len(), 1, get("/one").len() + 1, get("/one").len() + 70, all.len() - 30] {
        let (first, second) = all.split_at(cut);
        let answers = converse(gateway.http, &[first, second]).await;
        let paths: Vec<_> = answers.split("\"path\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(paths, ["/one", "/two", "/slow-three", "/four", "/last"], "cut at {cut}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 5);
    }
    assert_eq!(web.served(), 25);
    // A missing route does not break the pipeline; a malformed request ends it, and says so.
    let elsewhere = "GET /x HTTP/1.1\r\nHost: b.test\r\n\r\n";
    let bad = "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: x\r\n\r\n";
    let answers = converse(gateway.http, &[&[elsewhere, &get("/one"), bad, &get("/two")].concat()]).await;
    let statuses: Vec<_> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["404", "200", "400"], "{answers}");
    let end = answers.rsplit("HTTP/1.1 400").next().unwrap().to_ascii_lowercase();
    assert!(end.contains("connection: close"), "{answers}");
}

#[tokio::test]
async fn a_url_as_target_is_a_path_to_the_endpoint() {
    let (_api, _web, gateway) = started(&[]).await;
    let request = "GET http://a.test/x/../y?z HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let answer = converse(gateway.http, &[request]).await;
    assert!(answer.contains("\"path\":\"/y?z\""), "{answer}");
}
