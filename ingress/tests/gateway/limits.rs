//! Clients that are slow, large or many.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::bed::started;
use crate::client::{Connection, Wire, get};

/// Everything that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends what it can, then reads the answer.
async fn push(address: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    rest(&mut stream).await
}

#[tokio::test]
async fn a_header_that_trickles_is_a_408_and_a_connection_that_waits_is_not() {
    let (_api, web, gateway) = started(&["--client-header-timeout", "500ms"]).await;
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let start = Instant::now();
    let (mut read, mut write) = stream.split();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: and so on and so on and so on".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = String::new();
    tokio::select! {
        () = drip => {}
        read = timeout(Duration::from_secs(5), read.read_to_string(&mut answer)) => { read.unwrap().unwrap(); }
    }
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(start.elapsed() > Duration::from_millis(450) && start.elapsed() < Duration::from_secs(2));
    assert_eq!(web.served(), 0);
    gateway.until_metric("ingress_requests_refused_total{reason=\"slow_header\"}", 1.0).await;

    let mut waiting = Connection::open(gateway.http, Wire::Http).await.unwrap();
    assert_eq!(waiting.get("a.test", "/").await.unwrap().status, 200);
    sleep(Duration::from_millis(800)).await;
    assert_eq!(waiting.get("a.test", "/slow").await.unwrap().status, 200, "nor is an endpoint's time the client's");
    assert_eq!(waiting.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_second_header_of_a_connection_has_its_own_limits() {
    let (_api, _web, gateway) = started(&["--client-header-timeout", "500ms", "--max-request-header-size", "4k"]).await;
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let big = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Big: {}\r\n\r\n", "x".repeat(3500));
    for _ in 0..3 {
        stream.write_all(big.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn large_headers_are_refused_before_they_take_memory() {
    let (_api, web, gateway) = started(&[]).await;
    let flood = vec![b'x'; 1 << 20];
    let before = gateway.resident_kib();
    let parts: [&[u8]; 2] = [b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Flood: ", &flood];
    let clients = (0..300).map(|_| push(gateway.http, &parts));
    let answers = futures::future::join_all(clients).await;
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 431 ")), "{:?}", answers.first());
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 40 * 1024, "300 clients with 1 MiB of header each took {grown} KiB");
    assert_eq!(web.served(), 0);
    gateway.until_metric("ingress_requests_refused_total{reason=\"header_too_large\"}", 300.0).await;
    assert_eq!(get(gateway.http, Wire::Http, "a.test", "/").await.status, 200);
}

#[tokio::test]
async fn many_header_fields_are_refused_over_both_protocols() {
    let (_api, web, gateway) = started(&["--max-request-header-count", "20"]).await;
    for (wire, address) in [(Wire::Http, gateway.http), (Wire::Https2("a.test"), gateway.https)] {
        for (count, status) in [(10, 200), (30, 431)] {
            let mut connection = Connection::open(address, wire).await.unwrap();
            let request =
                (0..count).fold(Request::get("/"), |request, index| request.header(format!("x-{index}"), "y"));
            let reply = connection.send(request, "a.test", "/", "").await.unwrap();
            assert_eq!(reply.status, status, "{wire:?} {count}");
        }
    }
    assert_eq!(web.served(), 2);
}

#[tokio::test]
async fn large_bodies_are_refused_however_they_are_announced() {
    let (_api, web, gateway) = started(&["--max-request-body-size", "10k"]).await;
    for (wire, address) in [(Wire::Http, gateway.http), (Wire::Https2("a.test"), gateway.https)] {
        let mut connection = Connection::open(address, wire).await.unwrap();
        for (size, status) in [(10 * 1024, 200), (10 * 1024 + 1, 413), (100, 200)] {
            let reply = connection.send(Request::post("/"), "a.test", "/", &"x".repeat(size)).await.unwrap();
            assert_eq!(reply.status, status, "{wire:?} {size}");
        }
    }
    let served = web.served();
    let chunk = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n"].concat();
    let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut parts: Vec<&[u8]> = vec![head];
    parts.extend(vec![chunk.as_slice(); 300]);
    parts.push(b"0\r\n\r\n");
    let answer = push(gateway.http, &parts).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(web.served() <= served + 1);
    assert_eq!(gateway.metric("ingress_requests_refused_total{reason=\"body_too_large\"}").await, 3.0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408() {
    let (_api, _web, gateway) = started(&["--client-body-timeout", "300ms"]).await;
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nonly this").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let (_api, _web, gateway) = started(&["--max-connections", "2"]).await;
    let mut first = Connection::open(gateway.http, Wire::Http).await.unwrap();
    let mut second = Connection::open(gateway.http, Wire::Http).await.unwrap();
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.get("a.test", "/").await.unwrap().status, 200);
    }
    let mut third = Connection::open(gateway.http, Wire::Http).await.unwrap();
    let waits = timeout(Duration::from_millis(300), third.get("a.test", "/"));
    assert!(waits.await.is_err(), "there is no room");
    assert_eq!(first.get("a.test", "/").await.unwrap().status, 200, "and the others go on");
    let mut fourth = Connection::open(gateway.http, Wire::Http).await.unwrap();
    let served = tokio::spawn(async move { fourth.get("a.test", "/").await.unwrap().status });
    drop((first, third));
    assert_eq!(timeout(Duration::from_secs(5), served).await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn an_http2_client_that_never_begins_is_cut() {
    let (_api, _web, gateway) = started(&["--client-header-timeout", "300ms"]).await;
    let silent = crate::client::tls(gateway.https, "a.test", b"h2").await;
    let (mut read, _write) = tokio::io::split(silent);
    let mut got = Vec::new();
    let _ = timeout(Duration::from_secs(3), read.read_to_end(&mut got)).await.expect("the connection ends");
    let mut busy = Connection::open(gateway.https, Wire::Https2("a.test")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(busy.get("a.test", "/").await.unwrap().status, 200);
        sleep(Duration::from_millis(400)).await;
    }
}

/// How long a connection lives after this was sent, and what came.
async fn lifetime(address: SocketAddr, sent: &[u8]) -> (Duration, String) {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let answer = rest(&mut stream).await;
    (start.elapsed(), answer)
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_soon_and_counted() {
    let arguments = ["--client-header-timeout", "600ms", "--tls-handshake-timeout", "300ms"];
    let (_api, _web, gateway) = started(&arguments).await;
    let expected = |least: u64| Duration::from_millis(least - 50)..Duration::from_millis(least + 1200);

    let (lived, answer) = lifetime(gateway.http, b"").await;
    assert!(expected(600).contains(&lived) && answer.is_empty(), "{lived:?} {answer}");
    gateway.until_metric("ingress_requests_refused_total{reason=\"no_request\"}", 1.0).await;

    for start_of_hello in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0, 1]] {
        let (lived, answer) = lifetime(gateway.https, start_of_hello).await;
        assert!(expected(300).contains(&lived) && answer.is_empty(), "{lived:?} {answer}");
    }
    gateway.until_metric("ingress_tls_handshakes_total{result=\"timeout\"}", 2.0).await;

    let start = Instant::now();
    let (mut read, _write) = tokio::io::split(crate::client::tls(gateway.https, "a.test", b"http/1.1").await);
    let mut got = Vec::new();
    let _ = timeout(Duration::from_secs(5), read.read_to_end(&mut got)).await.expect("the connection ends");
    assert!(expected(600).contains(&start.elapsed()) && got.is_empty(), "{:?}", start.elapsed());
    gateway.until_metric("ingress_requests_refused_total{reason=\"no_request\"}", 2.0).await;
}

#[tokio::test]
async fn a_connection_rests_between_requests_for_its_time_only() {
    let (_api, _web, gateway) =
        started(&["--client-keepalive-timeout", "1s", "--client-header-timeout", "300ms"]).await;
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let (lived, answer) = lifetime(gateway.http, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("408"), "{answer}");
    assert!((Duration::from_millis(950)..Duration::from_secs(3)).contains(&lived), "{lived:?}");
    let start = Instant::now();
    let mut idle = Connection::open(gateway.https, Wire::Https2("a.test")).await.unwrap();
    assert_eq!(idle.get("a.test", "/").await.unwrap().status, 200);
    let Connection::Http2(sender, _) = &idle else { panic!("not HTTP/2") };
    while !sender.is_closed() {
        assert!(start.elapsed() < Duration::from_secs(5), "an idle HTTP/2 connection stays");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(950), "{:?}", start.elapsed());
}

#[tokio::test]
async fn more_fields_than_the_parser_takes_are_a_431_too() {
    let (_api, web, gateway) = started(&[]).await;
    for count in [150, 300, 3000] {
        let fields: String = (0..count).map(|index| format!("X-{index}: y\r\n")).collect();
        let whole = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        let (start, end) = whole.split_at(1000);
        for parts in [&[whole.as_bytes()][..], &[start.as_bytes(), end.as_bytes()]] {
            let answer = push(gateway.http, parts).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{count}: {answer}");
        }
    }
    assert_eq!(web.served(), 0);
    gateway.until_metric("ingress_requests_refused_total{reason=\"too_many_headers\"}", 6.0).await;
}

#[tokio::test]
async fn a_long_target_is_a_414() {
    let (_api, web, gateway) = started(&[]).await;
    for (length, status) in [(8000, "200"), (8192, "414"), (20_000, "414"), (200_000, "414")] {
        let path = "/".to_owned() + &"x".repeat(length);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = push(gateway.http, &[request.as_bytes()]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {}", &answer[..answer.len().min(300)]);
    }
    let mut connection = Connection::open(gateway.https, Wire::Https2("a.test")).await.unwrap();
    for (length, status) in [(8000, 200), (8192, 414), (20_000, 414), (100, 200)] {
        let path = "/".to_owned() + &"x".repeat(length);
        assert_eq!(connection.get("a.test", &path).await.unwrap().status, status, "{length}");
    }
    assert_eq!(web.served(), 3);
    gateway.until_metric("ingress_requests_refused_total{reason=\"uri_too_long\"}", 5.0).await;
}

#[tokio::test]
async fn a_large_header_over_http2_ends_its_stream_and_not_the_connection() {
    let (_api, web, gateway) = started(&[]).await;
    let mut connection = Connection::open(gateway.https, Wire::Https2("a.test")).await.unwrap();
    for (size, status) in [(30_000, 200), (40_000, 431), (100_000, 431), (100, 200), (200_000, 431), (100, 200)] {
        let one = Request::get("/").header("x-large", "x".repeat(size));
        assert_eq!(connection.send(one, "a.test", "/", "").await.unwrap().status, status, "one of {size}");
        let many = (0..size / 1000)
            .fold(Request::get("/"), |request, index| request.header(format!("x-{index}"), "x".repeat(960)));
        assert_eq!(connection.send(many, "a.test", "/", "").await.unwrap().status, status, "together {size}");
    }
    assert_eq!(web.served(), 6);
    gateway.until_metric("ingress_connections_total{scheme=\"https\"}", 1.0).await;
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let (_api, _web, gateway) = started(&["--max-connections-per-client", "3"]).await;
    let mut first = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
        assert_eq!(connection.get("a.test", "/").await.unwrap().status, 200);
        first.push(connection);
    }
    let mut fourth = Connection::open(gateway.http, Wire::Http).await.unwrap();
    assert!(fourth.get("a.test", "/").await.is_err(), "closed at once");
    gateway.until_metric("ingress_requests_refused_total{reason=\"client_connections\"}", 1.0).await;

    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.3.0.1:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(gateway.http).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut other).await.starts_with("HTTP/1.1 200 "), "another client has its own");
    drop(first);
    for _ in 0..100 {
        let mut connection = Connection::open(gateway.http, Wire::Http).await.unwrap();
        if connection.get("a.test", "/").await.is_ok_and(|reply| reply.status == 200) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("places are not given back");
}
