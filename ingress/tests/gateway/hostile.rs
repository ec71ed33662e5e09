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
