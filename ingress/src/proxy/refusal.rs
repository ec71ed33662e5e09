//! Answers that the gateway gives itself.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::framing::BadFraming;
use crate::request_path::BadPath;
use crate::upstream::Unavailable;

/// Why a request is not sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BadFraming(BadFraming),
    /// The target is neither a path nor an `http` URL (nor `*`).
    BadTarget,
    BadPath(BadPath),
    NoRoute,
    TooManyHeaders,
    HeaderTooLarge,
    TargetTooLong,
    BodyTooLarge,
    /// The host needs another TLS configuration than the connection has.
    Misdirected,
    Unavailable(Unavailable),
}

impl Refusal {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::BadFraming(_) | Self::BadTarget | Self::BadPath(_) => 400,
            Self::NoRoute => 404,
            Self::TooManyHeaders | Self::HeaderTooLarge => 431,
            Self::TargetTooLong => 414,
            Self::BodyTooLarge => 413,
            Self::Misdirected => 421,
            Self::Unavailable(Unavailable::Exhausted) => 502,
            Self::Unavailable(_) => 503,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BadFraming(why) => why.as_str(),
            Self::BadTarget => "bad_target",
            Self::BadPath(why) => why.as_str(),
            Self::NoRoute => "no_route",
            Self::TooManyHeaders => "too_many_headers",
            Self::HeaderTooLarge => "header_too_large",
            Self::TargetTooLong => "uri_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::Misdirected => "misdirected",
            Self::Unavailable(why) => why.as_str(),
        }
    }
}

/// Answers with a status and a line that says it; the connection can go on.
pub(super) async fn answer(session: &mut Session, status: u16) -> pingora::Result<()> {
    let (header, body) = response(status)?;
    session.write_response_header(Box::new(header), false).await?;
    session.write_response_body(Some(body), true).await
}

/// Answers with a status, unless an answer has begun, and closes the connection.
pub(super) async fn answer_and_close(session: &mut Session, status: u16) -> pingora::Result<()> {
    let (header, body) = response(status)?;
    session.as_downstream_mut().write_error_response(header, body).await
}

fn response(status: u16) -> pingora::Result<(ResponseHeader, Bytes)> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("error");
    let body = Bytes::from(format!("{status} {reason}\n"));
    let mut header = ResponseHeader::build(status, Some(4))?;
    header.insert_header(header::SERVER, HeaderValue::from_static("tidegate"))?;
    header.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))?;
    header.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    header.set_content_length(body.len())?;
    Ok((header, body))
}
