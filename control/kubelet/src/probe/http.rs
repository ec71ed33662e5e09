//! HTTP probes and hooks: any answer from 200 to 399 is a success; redirects are followed on the same host only.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::target::{HttpTarget, join};
use super::{OUTPUT_MAX, Outcome};

const REDIRECTS_MAX: usize = 10;
const AGENT: &str = concat!("kube-probe/", "1.36");

pub(crate) async fn probe(target: &HttpTarget, limit: Duration) -> Outcome {
    match timeout(limit, follow(target)).await {
        Ok(Ok(Answer { status, .. })) if status.is_success() || status.is_redirection() => Outcome::Success,
        Ok(Ok(answer)) => {
            tracing::debug!(status = answer.status.as_u16(), body = %answer.body, "probe failed");
            Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
        }
        Ok(Err(error)) => Outcome::Failure(format!("Get \"{}\": {error}", url(target))),
        Err(_) => Outcome::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(target)
        )),
    }
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn follow(target: &HttpTarget) -> Result<Answer, Error> {
    let mut target = target.clone();
    for _ in 0..REDIRECTS_MAX {
        let answer = get(&target).await?;
        let Some(next) = answer.location.as_deref().filter(|_| answer.status.is_redirection()) else {
            return Ok(answer);
        };
        match redirected(&target, next) {
            Some(next) => target = next,
            // A redirect to elsewhere says that the server works.
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects").into())
}

/// The next request on the same host, if that is where the redirect leads.
fn redirected(target: &HttpTarget, location: &str) -> Option<HttpTarget> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if location.starts_with('/') || uri.host().is_some() {
        path.to_owned()
    } else {
        let base = target.path.split('?').next().unwrap_or("/");
        format!("{}{location}", &base[..=base.rfind('/').unwrap_or(0)])
    };
    let mut next = HttpTarget { path, ..target.clone() };
    if let Some(host) = uri.host() {
        if host.trim_matches(['[', ']']) != target.host {
            return None;
        }
        next.https = uri.scheme_str() == Some("https");
        next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
    }
    Some(next)
}

async fn get(target: &HttpTarget) -> Result<Answer, Error> {
    let address = join(&target.host, target.port);
    let stream = TcpStream::connect(&address).await;
    let stream = stream.map_err(|error| format!("dial tcp {address}: connect: {}", super::cause(&error)))?;
    stream.set_nodelay(true)?;
    if target.https {
        let name = ServerName::try_from(target.host.clone())?;
        let stream = TlsConnector::from(Arc::clone(&TLS)).connect(name, stream).await?;
        exchange(target, stream).await
    } else {
        exchange(target, stream).await
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    target: &HttpTarget,
    stream: S,
) -> Result<Answer, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Dropped with this future, so that an abandoned probe leaves no connection behind.
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::get(&target.path).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers(target)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut text = Vec::new();
    let mut body = response.into_body();
    while text.len() < OUTPUT_MAX {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data[..data.len().min(OUTPUT_MAX - text.len())]);
        }
    }
    drop(driver);
    Ok(Answer { status, location, body: String::from_utf8_lossy(&text).into_owned() })
}

fn headers(target: &HttpTarget) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers {
        headers.append(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    let default_port = if target.https { 443 } else { 80 };
    let host = join(&target.host, target.port);
    let host =
        if target.port == default_port { host.trim_end_matches(&format!(":{default_port}")).to_owned() } else { host };
    headers.entry(HOST).or_insert(host.parse()?);
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

fn url(target: &HttpTarget) -> String {
    let scheme = if target.https { "https" } else { "http" };
    format!("{scheme}://{}{}", join(&target.host, target.port), target.path)
}

/// Probes do not ask who answers: the certificate is the container's own business.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .unwrap_or_else(|error| unreachable!("the provider supports the default versions: {error}"));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
});

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with the next text; returns the port.
    async fn serve(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 2048];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                assert!(request.to_lowercase().contains("user-agent: kube-probe/1.36"), "{request}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        port
    }

    fn target(port: u16) -> HttpTarget {
        HttpTarget { https: false, host: "127.0.0.1".into(), port, path: "/healthz".into(), headers: vec![] }
    }

    #[tokio::test]
    async fn answers_are_judged_by_their_status() {
        for (answer, success) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            let outcome = probe(&target(serve(vec![answer]).await), Duration::from_secs(5)).await;
            assert_eq!(outcome == Outcome::Success, success, "{answer}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn redirects_on_the_same_host_are_followed() {
        let redirect = "HTTP/1.1 301 Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
        let port = serve(vec![redirect, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]).await;
        let outcome = probe(&target(port), Duration::from_secs(5)).await;
        assert_eq!(outcome, Outcome::Failure("HTTP probe failed with statuscode: 503".into()));
    }

    #[tokio::test]
    async fn silence_and_refusal_are_failures() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        assert!(matches!(probe(&target(port), Duration::from_millis(50)).await, Outcome::Failure(_)));
        drop(silent);
        assert!(matches!(probe(&target(port), Duration::from_secs(5)).await, Outcome::Failure(_)));
    }

    #[test]
    fn redirects_resolve_against_the_request() {
        let base = target(8080);
        assert_eq!(redirected(&base, "/x?y=1").unwrap().path, "/x?y=1");
        assert_eq!(redirected(&base, "https://127.0.0.1:9/z").map(|next| (next.https, next.port)), Some((true, 9)));
        assert_eq!(redirected(&base, "http://other/"), None);
    }
}
