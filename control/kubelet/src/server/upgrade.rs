//! Leaving HTTP: which protocol a client and this server speak next over the same connection.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::routes::{self, Body};

const SEC_WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const STREAM_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";

/// What both sides agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) transport: Transport,
    pub(super) protocol: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// With the answer to the client's key.
    WebSocket {
        accept: String,
    },
    Spdy,
}

/// Protocols that an endpoint speaks, the best first.
pub(super) struct Spoken {
    pub(super) websocket: &'static [&'static str],
    pub(super) spdy: &'static [&'static str],
}

/// Finds the best common protocol; an error is the answer for the client.
pub(super) fn negotiate(headers: &HeaderMap, spoken: &Spoken) -> Result<Agreed, (StatusCode, String)> {
    let wanted = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) || wanted.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
    }
    let (transport, header, offers) = if wanted.eq_ignore_ascii_case("websocket") {
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or((StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key".to_owned()))?;
        let accept = derive_accept_key(key.as_bytes());
        (Transport::WebSocket { accept }, SEC_WEBSOCKET_PROTOCOL, spoken.websocket)
    } else if wanted.eq_ignore_ascii_case(SPDY) {
        (Transport::Spdy, STREAM_PROTOCOL_VERSION, spoken.spdy)
    } else {
        return Err((StatusCode::BAD_REQUEST, format!("unable to upgrade: unknown protocol {wanted:?}")));
    };
    let offered: Vec<&str> = tokens(headers, &header).collect();
    // Who names no protocol speaks the oldest.
    let protocol = match offered.as_slice() {
        [] => offers.last(),
        offered => offers.iter().find(|spoken| offered.contains(*spoken)),
    };
    let protocol = protocol.copied().ok_or_else(|| {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            offers.join(" ")
        );
        (StatusCode::FORBIDDEN, text)
    })?;
    Ok(Agreed { transport, protocol })
}

/// The answer that ends HTTP on a connection.
pub(super) fn switching(agreed: &Agreed) -> Response<Body> {
    let mut response = routes::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = HeaderValue::from_static(agreed.protocol);
    match &agreed.transport {
        Transport::WebSocket { accept } => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            // Base64 of a digest is a header value.
            if let Ok(accept) = HeaderValue::from_str(accept) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            if !agreed.protocol.is_empty() {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
        Transport::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(STREAM_PROTOCOL_VERSION, protocol);
        }
    }
    response
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKEN: Spoken = Spoken { websocket: &["v5", "v4", ""], spdy: &["v4", "v1"] };

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_best_common_protocol_wins() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut request = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-protocol", "v4, v5"),
            key,
        ]);
        let agreed = negotiate(&request, &SPOKEN).unwrap();
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(agreed, Agreed { transport: Transport::WebSocket { accept }, protocol: "v5" });
        let answer = switching(&agreed);
        assert_eq!(
            (answer.status(), &answer.headers()["sec-websocket-protocol"]),
            (StatusCode::SWITCHING_PROTOCOLS, &"v5".parse().unwrap())
        );
        request.remove("sec-websocket-protocol");
        assert_eq!(negotiate(&request, &SPOKEN).unwrap().protocol, "");
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v1")]);
        assert_eq!(negotiate(&spdy, &SPOKEN).unwrap(), Agreed { transport: Transport::Spdy, protocol: "v1" });
    }

    #[test]
    fn what_cannot_be_agreed_on_is_said() {
        let none = negotiate(&HeaderMap::new(), &SPOKEN).unwrap_err();
        assert_eq!(none, (StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
        let other = headers(&[("connection", "Upgrade"), ("upgrade", "h2c")]);
        assert_eq!(negotiate(&other, &SPOKEN).unwrap_err().0, StatusCode::BAD_REQUEST);
        let old = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")]);
        let (code, text) = negotiate(&old, &SPOKEN).unwrap_err();
        assert_eq!(code, StatusCode::FORBIDDEN);
        assert!(text.contains("client supports [v9], server accepts [v4 v1]"), "{text}");
    }
}
