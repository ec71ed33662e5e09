//! HTTP/2 spoken by those who know it too well.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATIENCE, connect};
use crate::support::TestServer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Writes the same again and again, reading nothing, until the server takes no more; returns how many bytes it took.
async fn flood(server: &TestServer, first: &[u8], again: &[u8], max: usize) -> usize {
    let mut stream = connect(server, "h2").await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream.write_all(first).await.unwrap();
    let block = again.repeat((64 << 10) / again.len());
    let mut written = 0;
    while written < max {
        match tokio::time::timeout(Duration::from_secs(3), stream.write_all(&block)).await {
            Ok(Ok(())) => written += block.len(),
            _ => return written,
        }
    }
    written
}

#[tokio::test]
async fn floods_of_frames_are_not_taken_without_end() {
    let server = TestServer::start().await;
    let max = 64 << 20;
    // Headers without end; `0x40 0x01 a 0x01 b` is a literal that no table keeps.
    let literal = b"\x00\x01a\x01b".repeat(1000);
    let taken = flood(&server, &frame(HEADERS, 0, 1, &literal), &frame(CONTINUATION, 0, 1, &literal), max).await;
    assert!(taken < max, "CONTINUATION: {taken} bytes");
    for (name, again) in
        [("PING", frame(PING, 0, 0, &[7; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]))]
    {
        let taken = flood(&server, &[], &again, max).await;
        assert!(taken < max, "{name}: {taken} bytes");
    }
    server.admin.get("/version").await.expect(200);
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_tire_nobody() {
    let server = TestServer::start().await;
    let stream = connect(&server, "h2").await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let started = Instant::now();
    let resets = async {
        let mut client = client.ready().await?;
        for _ in 0..20_000 {
            let uri = format!("https://localhost:{}/api/v1/pods?watch=true", server.port);
            let request = http::Request::get(uri).body(()).unwrap();
            let (_answer, mut stream) = client.send_request(request, true)?;
            stream.send_reset(h2::Reason::CANCEL);
            client = client.ready().await?;
        }
        Ok::<_, h2::Error>(())
    };
    // To be hung up on is as good as to be served.
    let _ = tokio::time::timeout(PATIENCE, resets).await.expect("the server hangs");
    server.admin.get("/api/v1/pods").await.expect(200);
    assert!(started.elapsed() < PATIENCE);
    let metrics = server.admin.get("/metrics").await;
    let metrics = metrics.body.as_str().unwrap();
    let open = metrics.lines().find(|line| line.starts_with("apiserver_longrunning_requests") && line.contains("pods"));
    assert!(open.is_none_or(|line| line.ends_with(" 0")), "{open:?}");
    connection.abort();
}

#[tokio::test]
async fn more_streams_than_one_may_have_are_refused_or_wait() {
    let server = TestServer::start().await;
    let mut stream = connect(&server, "h2").await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut settings = vec![0; 256];
    let read = stream.read(&mut settings).await.unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS
    let has_limit = settings[..read].windows(6).any(|entry| entry == [0, 3, 0, 0, 0, 250]);
    assert!(has_limit, "{:?}", Bytes::copy_from_slice(&settings[..read]));
}
