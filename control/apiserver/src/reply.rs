//! Answers: bodies, encodings, compression.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use control_api::status::Status;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, SizeHint};
use serde_json::Value;

use crate::negotiate::{Encoding, Form, Wanted};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Reply = Result<Response<Body>, Status>;

/// Smaller answers are not worth compressing.
const GZIP_MIN_BYTES: usize = 128 << 10;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A body that something is held for until it is out.
struct Holding<T> {
    body: Body,
    _held: T,
}

pub(crate) fn holding(response: Response<Body>, held: impl Send + Unpin + 'static) -> Response<Body> {
    response.map(|body| Holding { body, _held: held }.boxed_unsync())
}

impl<T: Unpin> hyper::body::Body for Holding<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(crate) fn with_type(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", full(body))
}

pub(crate) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    with_type(code, "application/json", full(value.to_string()))
}

/// A value in the encoding that the client asked for.
pub(crate) fn value(code: StatusCode, value: &Value, wanted: Wanted) -> Reply {
    match wanted.encoding {
        Encoding::Json => {
            let content_type = match wanted.form {
                Form::Table("v1") => "application/json;as=Table;v=v1;g=meta.k8s.io",
                _ => "application/json",
            };
            Ok(with_type(code, content_type, full(value.to_string())))
        }
        Encoding::Yaml => {
            let yaml = serde_saphyr::to_string(value).map_err(|error| Status::internal(error.to_string()))?;
            Ok(with_type(code, "application/yaml", full(yaml)))
        }
    }
}

pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Compresses a body of known, considerable length off the event loop.
pub(crate) async fn gzip(response: Response<Body>) -> Response<Body> {
    let known = response.body().size_hint().exact();
    let is_large = known.is_none_or(|bytes| bytes >= GZIP_MIN_BYTES as u64);
    if !is_large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, compress(body))
}

fn compress(body: Body) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let chunks = futures::stream::unfold(Some((body, encoder)), |state| async move {
        let (mut body, mut encoder) = state?;
        loop {
            let Some(frame) = body.frame().await else {
                return Some((encoder.finish().map(Bytes::from), None));
            };
            let chunk = match frame.map(|frame| frame.into_data().unwrap_or_default()) {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), None)),
            };
            // Compressing takes milliseconds per megabyte: other tasks must not wait for it.
            let compressed = tokio::task::spawn_blocking(move || {
                let result = encoder.write_all(&chunk);
                (encoder, result)
            });
            let result = match compressed.await {
                Ok((next, result)) => {
                    encoder = next;
                    result
                }
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            };
            if let Err(error) = result {
                return Some((Err(error), None));
            }
            let out = std::mem::take(encoder.get_mut());
            if !out.is_empty() {
                return Some((Ok(Bytes::from(out)), Some((body, encoder))));
            }
        }
    });
    stream(chunks)
}
