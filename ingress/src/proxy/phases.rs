//! The phases of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::HeaderValue;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::refusal::{self, Refusal};
use super::{ATTEMPTS_MAX, access_log, framing, headers, request};
use crate::serve::{Client, Scheme};
use crate::shared::Shared;
use crate::snapshot::Route;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to accept a part of its answer.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an HTTP/1 connection may wait for its next request.
const KEEPALIVE_SECONDS: u64 = 75;
/// How long the body of a refused request is read, so that the client gets to read the answer.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(5);
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The application that pingora runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    shared: Arc<Shared>,
}

/// What a request remembers. Of the snapshot it keeps its rule only.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) started: Instant,
    pub(super) route: Option<Arc<Route>>,
    pub(super) refusal: Option<Refusal>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) attempts: u32,
    /// Endpoints that could not be connected to.
    unreachable: Vec<SocketAddr>,
}

impl Gateway {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The rule of a request, from one snapshot.
    fn route(&self, session: &Session) -> Result<Arc<Route>, Refusal> {
        let request = session.req_header();
        let host = request::host(request);
        let snapshot = self.shared.snapshot();
        let route = snapshot.route(host, request.uri.path()).ok_or(Refusal::NoRoute)?;
        let tls = client(session).and_then(|client| client.tls.as_ref());
        // A client that named no server could not have chosen another configuration.
        if tls.is_some_and(|tls| tls.named && tls.key != snapshot.tls_key(host)) {
            return Err(Refusal::Misdirected);
        }
        route.target.upstream.check().map_err(Refusal::Unavailable)?;
        Ok(Arc::clone(route))
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            started: Instant::now(),
            route: None,
            refusal: None,
            request_id: None,
            endpoint: None,
            attempts: 0,
            unreachable: Vec::new(),
        }
    }

    /// Refuses ambiguous HTTP/1 framing. (Over HTTP/2 there is none: pingora and h2 check it.)
    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        session.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        // Pingora lets a connection that may be kept wait for ever, and keeps none where the client asks it not to.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        let Some(http1) = session.as_http1() else { return Ok(()) };
        let request = http1.req_header();
        framing::check(request.version, &request.headers, &http1.get_headers_raw_bytes()).map_err(|why| {
            ctx.refusal = Some(Refusal::BadFraming(why));
            Error::explain(ErrorType::HTTPStatus(400), why.as_str()).into_down()
        })
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        match self.route(session) {
            Ok(route) => {
                ctx.route = Some(route);
                ctx.request_id = Some(headers::request_id(session.req_header()));
                Ok(false)
            }
            Err(refusal) => {
                ctx.refusal = Some(refusal);
                if self.shared.is_draining() {
                    session.set_keepalive(None);
                }
                session.set_close_on_response_before_downstream_finish(false);
                session.set_total_drain_timeout(Some(REFUSED_BODY_TIMEOUT));
                refusal::answer(session, refusal.status()).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let Some(route) = &ctx.route else {
            return Error::e_explain(ErrorType::InternalError, "a request without a rule was proxied");
        };
        let endpoint = route.target.upstream.pick(&ctx.unreachable).map_err(|why| {
            let refusal = Refusal::Unavailable(why);
            ctx.refusal = Some(refusal);
            Error::explain(ErrorType::HTTPStatus(refusal.status()), why.as_str())
        })?;
        ctx.endpoint = Some(endpoint);
        ctx.attempts += 1;
        if ctx.attempts > 1 {
            self.shared.metrics.upstream_retries.inc();
        }
        let mut peer = HttpPeer::new(endpoint, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.read_timeout = Some(READ_TIMEOUT);
        peer.options.write_timeout = Some(WRITE_TIMEOUT);
        peer.options.idle_timeout = Some(UPSTREAM_IDLE_TIMEOUT);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        match (client(session), &ctx.request_id) {
            (Some(client), Some(id)) => headers::forward(upstream, client, request::host(session.req_header()), id),
            _ => Error::e_explain(ErrorType::InternalError, "a request came without its connection's client"),
        }
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut Context,
    ) -> Result<()> {
        if self.shared.is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Nothing was sent yet, so any other endpoint may have the request, whatever its method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.shared.metrics.upstream_connect_failures.inc();
        ctx.unreachable.extend(ctx.endpoint);
        let remaining = ctx.route.as_ref().is_some_and(|route| {
            route.target.upstream.endpoints().addresses().iter().any(|address| !ctx.unreachable.contains(address))
        });
        error.set_retry(remaining && (ctx.attempts as usize) < ATTEMPTS_MAX);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut Context) -> FailToProxy {
        let status = status_of(error);
        if status > 0
            && let Err(error) = refusal::answer_and_close(session, status).await
        {
            tracing::debug!(%error, "client is gone before its error answer");
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let metrics = &self.shared.metrics;
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let tls = client(session).is_some_and(|client| client.tls.is_some());
        let scheme = if tls { Scheme::Https } else { Scheme::Http };
        metrics.request(scheme, session.is_http2(), status, ctx.started.elapsed());
        metrics.request_bytes.inc_by(session.body_bytes_read() as u64);
        metrics.response_bytes.inc_by(session.body_bytes_sent() as u64);
        if let Some(refusal) = ctx.refusal {
            metrics.refused(refusal.as_str());
        }
        access_log::write(session, client(session), ctx, status, error);
    }

    /// The access log has the error.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

fn client(session: &Session) -> Option<&Client> {
    Client::of(session.digest()?)
}

/// The status that tells the client of an error; 0 if the client is gone.
fn status_of(error: &Error) -> u16 {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (_, HTTPStatus(status)) => *status,
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => 504,
        (ErrorSource::Upstream, _) => 502,
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed) => 0,
        (ErrorSource::Downstream, ReadTimedout | WriteTimedout) => 408,
        (ErrorSource::Downstream, _) => 400,
        (ErrorSource::Internal | ErrorSource::Unset, _) => 500,
    }
}
