//! What the endpoint is told about the client, as ingress-nginx does by default: nothing that the client claims about
//! its own address, scheme or host is believed; its `X-Forwarded-For` is handed on under another name.

use http::HeaderValue;
use pingora::http::RequestHeader;

use crate::serve::Client;

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

/// Sets the forwarding fields of the request to the endpoint. `host` is the host that the client asked for.
pub(super) fn forward(
    request: &mut RequestHeader,
    client: &Client,
    host: &str,
    request_id: &HeaderValue,
) -> pingora::Result<()> {
    let scheme = HeaderValue::from_static(if client.tls.is_some() { "https" } else { "http" });
    if let Some(claimed) = request.remove_header("x-forwarded-for") {
        request.insert_header("X-Original-Forwarded-For", claimed)?;
    }
    // A CGI-like application would take this one for its own proxy setting.
    request.remove_header("proxy");
    request.insert_header("X-Request-ID", request_id.clone())?;
    request.insert_header("X-Real-IP", client.ip.clone())?;
    request.insert_header("X-Forwarded-For", client.ip.clone())?;
    request.insert_header("X-Forwarded-Host", host)?;
    request.insert_header("X-Forwarded-Port", HeaderValue::from(client.port))?;
    request.insert_header("X-Forwarded-Proto", scheme.clone())?;
    request.insert_header("X-Forwarded-Scheme", scheme.clone())?;
    request.insert_header("X-Scheme", scheme)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;

    use super::{forward, request_id};
    use crate::serve::Client;

    #[test]
    fn what_a_client_claims_is_replaced() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("X-Real-IP", "6.6.6.6"),
            ("Proxy", "http://evil"),
        ] {
            request.insert_header(name, value).unwrap();
        }
        let client = Client::new("[::ffff:192.0.2.7]:1234".parse().unwrap(), 8080);
        let id = request_id(&request);
        forward(&mut request, &client, "a.test:8080", &id).unwrap();
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
            ("proxy", None),
        ];
        for (name, value) in expected {
            assert_eq!(get(name).as_deref(), value, "{name}");
        }
        assert_eq!(get("x-request-id").map(|id| id.len()), Some(32));
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
