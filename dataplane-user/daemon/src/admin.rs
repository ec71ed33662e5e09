//! The admin endpoint: `/metrics`, `/healthz`, `/livez`, `/readyz`, and what a component adds.
//!
//! For loopback and monitoring only: plain HTTP/1.1, small answers, no authentication.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An answer of a page: status, content type, body.
pub struct Page(pub StatusCode, pub &'static str, pub String);

impl Page {
    /// A plain-text page with status 200.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self(StatusCode::OK, "text/plain; charset=utf-8", body.into())
    }

    /// A plain-text page that says that something is not (yet) well.
    #[must_use]
    pub fn unavailable(body: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", body.into())
    }
}

type Handler = Box<dyn Fn(Option<&str>) -> Page + Send + Sync>;

/// The pages of one admin endpoint.
#[derive(Default)]
pub struct Admin {
    pages: HashMap<&'static str, Handler>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("pages", &self.pages.keys()).finish()
    }
}

impl Admin {
    /// An endpoint that serves `/metrics` of this registry and answers `ok` on the health paths; `page` replaces them.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self::default()
            .page("/healthz", |_| Page::text("ok"))
            .page("/livez", |_| Page::text("ok"))
            .page("/readyz", |_| Page::text("ok"))
            .page("/metrics", move |_| {
                let mut body = Vec::new();
                match TextEncoder::new().encode(&registry.gather(), &mut body) {
                    Ok(()) => {
                        Page(StatusCode::OK, prometheus::TEXT_FORMAT, String::from_utf8_lossy(&body).into_owned())
                    }
                    Err(error) => {
                        Page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("cannot encode metrics: {error}"))
                    }
                }
            })
    }

    /// Adds or replaces a page; the handler gets the query string.
    #[must_use]
    pub fn page(mut self, path: &'static str, handler: impl Fn(Option<&str>) -> Page + Send + Sync + 'static) -> Self {
        self.pages.insert(path, Box::new(handler));
        self
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Page(status, content_type, body) = match (request.method(), self.pages.get(request.uri().path())) {
            (&Method::GET | &Method::HEAD, Some(handler)) => handler(request.uri().query()),
            (_, Some(_)) => Page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is served here\n".into()),
            (_, None) => Page(StatusCode::NOT_FOUND, "text/plain", "no such page\n".into()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        response
    }

    /// Serves until the token is cancelled.
    ///
    /// # Errors
    /// If accepting fails for good.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let admin = Arc::new(self);
        loop {
            let (stream, _) = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted?,
            };
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = admin.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "admin connection ended");
                }
            });
        }
    }
}
