//! What the endpoint is told about the client, as ingress-nginx does by default: nothing that a client claims about its own
//! address, scheme or host is believed, unless it is a trusted proxy; its `X-Forwarded-For` is handed on under another
//! name.

use http::header::FORWARDED;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::origin::Origin;

/// A longer request id from a client is replaced.
const REQUEST_ID_LEN_MAX: usize = 128;

/// The client's request id if it sent a usable one, else a new one.
pub(super) fn request_id(request: &RequestHeader) -> HeaderValue {
    let given = request.headers.get("x-request-id").filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_LEN_MAX);
    given.cloned().unwrap_or_else(|| {
        // Hexadecimal digits are valid in every header.
        HeaderValue::try_from(format!("{:032x}", rand::random::<u128>())).unwrap_or(HeaderValue::from_static("0"))
    })
}

/// Sets the forwarding fields of the request to the endpoint.
pub(super) fn forward(request: &mut RequestHeader, origin: &Origin, request_id: &HeaderValue) -> pingora::Result<()> {
    if !origin.from_proxy {
        remove_claims(request)?;
    }
    // A CGI-like application would take this one for its own proxy setting.
    request.remove_header("proxy");
    request.insert_header("X-Request-ID", request_id.clone())?;
    request.insert_header("X-Real-IP", origin.ip.clone())?;
    request.insert_header("X-Forwarded-For", origin.chain.clone())?;
    request.insert_header("X-Forwarded-Host", origin.host.clone())?;
    request.insert_header("X-Forwarded-Port", origin.port.clone())?;
    request.insert_header("X-Forwarded-Proto", origin.scheme.clone())?;
    request.insert_header("X-Forwarded-Scheme", origin.scheme.clone())?;
    request.insert_header("X-Scheme", origin.scheme.clone())?;
    Ok(())
}

/// Removes everything that only a proxy may say. Applications build links and decide access by such fields.
fn remove_claims(request: &mut RequestHeader) -> pingora::Result<()> {
    let claimed = request.remove_header("x-forwarded-for");
    let is_claim = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-") || *name == FORWARDED;
    let claims: Vec<_> = request.headers.keys().filter(is_claim).cloned().collect();
    for name in &claims {
        request.remove_header(name);
    }
    if let Some(claimed) = claimed {
        request.insert_header("X-Original-Forwarded-For", claimed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pingora::http::RequestHeader;

    use super::{Origin, forward, request_id};

    fn origin(from_proxy: bool) -> Origin {
        Origin {
            ip: HeaderValue::from_static("192.0.2.7"),
            chain: HeaderValue::from_static("192.0.2.7"),
            host: HeaderValue::from_static("a.test:8080"),
            port: HeaderValue::from_static("8080"),
            scheme: HeaderValue::from_static("http"),
            from_proxy,
        }
    }

    #[test]
    fn what_a_client_claims_is_replaced() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Forwarded-Prefix", "/evil"),
            ("Forwarded", "for=6.6.6.6"),
            ("Proxy", "http://evil"),
        ] {
            request.insert_header(name, value).unwrap();
        }
        let id = request_id(&request);
        forward(&mut request, &origin(false), &id).unwrap();
        let get = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let expected = [
            ("x-forwarded-for", Some("192.0.2.7")),
            ("x-original-forwarded-for", Some("6.6.6.6")),
            ("x-real-ip", Some("192.0.2.7")),
            ("x-forwarded-host", Some("a.test:8080")),
            ("x-forwarded-port", Some("8080")),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-scheme", Some("http")),
            ("x-scheme", Some("http")),
            ("x-forwarded-prefix", None),
            ("forwarded", None),
            ("proxy", None),
        ];
        for (name, value) in expected {
            assert_eq!(get(name).as_deref(), value, "{name}");
        }
        assert_eq!(get("x-request-id").map(|id| id.len()), Some(32));
    }

    #[test]
    fn what_a_trusted_proxy_says_besides_goes_on() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("X-Forwarded-Prefix", "/app").unwrap();
        forward(&mut request, &origin(true), &HeaderValue::from_static("id")).unwrap();
        assert_eq!(request.headers.get("x-forwarded-prefix").unwrap(), "/app");
    }

    #[test]
    fn a_usable_request_id_is_kept() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("X-Request-ID", "abc").unwrap();
        assert_eq!(request_id(&request), "abc");
        request.insert_header("X-Request-ID", "x".repeat(200)).unwrap();
        assert_eq!(request_id(&request).len(), 32);
    }
}
