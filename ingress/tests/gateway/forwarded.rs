//! Proxies in front: whose word is believed.

use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::started;
use crate::client::{Connection, Wire};
use crate::process::Gateway;

const CLAIMS: [(&str, &str); 5] = [
    ("x-forwarded-for", "6.6.6.6, 192.0.2.9, 127.0.0.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.test"),
    ("x-forwarded-prefix", "/shop"),
    ("forwarded", "for=192.0.2.9"),
];

async fn told(gateway: &Gateway) -> Value {
    let request = CLAIMS.iter().fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
    let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
    connection.send(request, "a.test", "/", "").await.unwrap().json()["headers"].take()
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed() {
    let (_api, _web, gateway) = started(&["--trusted-proxies", "127.0.0.0/8"]).await;
    let headers = told(&gateway).await;
    for (name, value) in [
        ("x-real-ip", "192.0.2.9"),
        ("x-forwarded-for", "6.6.6.6, 192.0.2.9, 127.0.0.9, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-prefix", "/shop"),
        ("forwarded", "for=192.0.2.9"),
        ("host", "a.test"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let (_api, _web, gateway) = started(&["--trusted-proxies", "10.0.0.0/8"]).await;
    let headers = told(&gateway).await;
    for (name, value) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.test"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!((&headers["x-forwarded-prefix"], &headers["forwarded"]), (&Value::Null, &Value::Null));
}

/// What a connection gets that begins with these bytes.
async fn answer(gateway: &Gateway, start: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(&[start, request].concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let (_api, web, gateway) = started(&["--trusted-proxies", "127.0.0.0/8", "--proxy-protocol"]).await;
    let text = answer(&gateway, b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 8443\r\n").await;
    assert!(text.contains("\"x-real-ip\":\"192.0.2.7\"") && text.contains("\"x-forwarded-port\":\"8443\""), "{text}");
    let binary =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &[192, 0, 2, 8, 198, 51, 100, 1, 0x13, 0x88, 0, 80]];
    let text = answer(&gateway, &binary.concat()).await;
    assert!(text.contains("\"x-real-ip\":\"192.0.2.8\""), "{text}");
    let own = answer(&gateway, b"PROXY UNKNOWN\r\n").await;
    assert!(own.contains("\"x-real-ip\":\"127.0.0.1\""), "{own}");
    let served = web.served();
    for bad in [&b""[..], b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00"] {
        assert_eq!(answer(&gateway, bad).await, "", "{}", String::from_utf8_lossy(bad));
    }
    assert_eq!(web.served(), served);
    assert_eq!(gateway.metric("ingress_requests_refused_total{reason=\"proxy_protocol\"}").await, 3.0);
}

#[tokio::test]
async fn the_proxy_protocol_comes_before_tls() {
    let (_api, _web, gateway) = started(&["--trusted-proxies", "127.0.0.1", "--proxy-protocol"]).await;
    let mut tcp = TcpStream::connect(gateway.https).await.unwrap();
    tcp.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n").await.unwrap();
    let mut tls = crate::client::tls_over(tcp, "a.test", b"http/1.1").await;
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = tls.read_to_string(&mut answer).await;
    assert!(
        answer.contains("\"x-real-ip\":\"2001:db8::7\"") && answer.contains("\"x-forwarded-proto\":\"https\""),
        "{answer}"
    );
}

#[tokio::test]
async fn strangers_may_not_speak_the_proxy_protocol() {
    let (_api, web, gateway) = started(&["--trusted-proxies", "10.0.0.0/8", "--proxy-protocol"]).await;
    assert_eq!(answer(&gateway, b"PROXY TCP4 10.0.0.1 198.51.100.1 5000 80\r\n").await, "");
    assert_eq!(web.served(), 0);
}
