//! gRPC probes: `grpc.health.v1.Health/Check` over clear-text HTTP/2; SERVING is a success.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Outcome;

const SERVING: u8 = 1;
/// Bytes before a gRPC message: compression flag and length.
const PREFIX: usize = 5;

pub(crate) async fn probe(address: &str, service: &str, limit: Duration) -> Outcome {
    match timeout(limit, check(address, service)).await {
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("service unhealthy (responded with {status:?})")),
        Ok(Err(error)) => Outcome::Failure(format!("failed to connect service {address:?}: {error}")),
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {limit:?}: context deadline exceeded"
        )),
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn check(address: &str, service: &str) -> Result<u8, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(message(service)?)))?;
    let response = sender.send_request(request).await?;
    let early = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned().or(early);
    drop(driver);
    match status {
        Some(status) if status != "0" => Err(format!("gRPC status {}", status.to_str().unwrap_or("?")).into()),
        _ => serving_status(&body.to_bytes()).ok_or_else(|| "malformed health answer".into()),
    }
}

/// `HealthCheckRequest{service = 1}` with its gRPC prefix.
fn message(service: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            body.push(u8::try_from(length & 0x7f)? | 0x80);
            length >>= 7;
        }
        body.push(u8::try_from(length)?);
        body.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
    message.append(&mut body);
    Ok(message)
}

/// Field 1 of `HealthCheckResponse`, an enum below 128; absent means UNKNOWN.
fn serving_status(data: &[u8]) -> Option<u8> {
    let body = data.get(PREFIX..)?;
    match body {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_the_wire_format() {
        assert_eq!(message("").unwrap(), [0, 0, 0, 0, 0]);
        assert_eq!(message("db").unwrap(), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = "x".repeat(200);
        assert_eq!(message(&long).unwrap()[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving_status(&[0]), None);
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(matches!(probe(&address, "", Duration::from_secs(1)).await, Outcome::Failure(_)));
    }
}
