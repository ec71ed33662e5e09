//! The access log: one structured event per request, target `access`; `RUST_LOG=access=off` switches it off.

use pingora::Error;
use pingora::proxy::Session;
use tracing::Level;

use super::context::Context;
use super::request;
use crate::serve::Client;

const TARGET: &str = "access";

/// Writes the line of one request. `status` is that of the answer, 0 if none was sent.
pub(super) fn write(session: &Session, client: Option<&Client>, ctx: &Context, status: u16, error: Option<&Error>) {
    if !tracing::enabled!(target: TARGET, Level::INFO) {
        return;
    }
    let request = session.req_header();
    let route = ctx.route.as_ref();
    let tls = client.and_then(|client| client.tls.as_ref());
    tracing::info!(
        target: TARGET,
        client = ctx.origin.as_ref().and_then(|origin| origin.ip.to_str().ok()),
        peer = client.map(|client| display(client.address)),
        method = request.method.as_str(),
        host = request::host(request),
        path = request.uri.path(),
        protocol = if session.is_http2() { "h2" } else { "http/1.1" },
        tls = tls.map(|tls| tls.version),
        status,
        duration_us = u64::try_from(ctx.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        bytes_received = session.body_bytes_read(),
        bytes_sent = session.body_bytes_sent(),
        ingress = route.map(|route| display(&route.source)),
        service = route.map(|route| display(&route.target.upstream.key)),
        endpoint = ctx.endpoint.as_ref().map(|endpoint| display(endpoint.address)),
        attempts = ctx.attempts,
        request_id = ctx.request_id.as_ref().and_then(|id| id.to_str().ok()),
        refusal = ctx.refusal.map(|refusal| refusal.as_str()),
        error = error.map(display),
        "request"
    );
}
