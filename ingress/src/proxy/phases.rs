//! The phases of a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE};
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::context::Context;
use super::origin::Origin;
use super::refusal::{self, Refusal};
use super::{access_log, framing, headers, request, retry};
use crate::serve::{Client, Scheme};
use crate::shared::Shared;
use crate::snapshot::Route;

/// How long a client may take to accept a part of its answer.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the body of a refused request is read, so that the client gets to read the answer.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(5);
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The application that pingora runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    shared: Arc<Shared>,
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

    /// Whether a request is good enough in itself to be routed.
    fn check(&self, session: &Session) -> Result<(), Refusal> {
        let (request, limits) = (session.req_header(), &self.shared.limits);
        let headers = &request.headers;
        // HTTP/2 clients send each cookie as a field of its own.
        let count = headers.len() - headers.get_all(COOKIE).iter().count();
        if count > limits.header_count_max {
            return Err(Refusal::TooManyHeaders);
        }
        if request.raw_path().len() > limits.target_size_max as usize {
            return Err(Refusal::TargetTooLong);
        }
        // Over HTTP/2 framing is not ambiguous: pingora and h2 check it.
        let raw = session.as_http1().map(|http1| http1.get_headers_raw_bytes());
        let size = raw.as_ref().map_or_else(|| decoded_size(headers), |raw| raw.len());
        if size > limits.header_size_max as usize {
            return Err(Refusal::HeaderTooLarge);
        }
        raw.map_or(Ok(()), |raw| framing::check(request.version, headers, &raw).map_err(Refusal::BadFraming))
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if let Some(client) = client(session) {
            client.progress.head_ends();
        }
        session.set_read_timeout(Some(self.shared.limits.body_timeout));
        session.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        // Pingora lets a connection that may be kept wait for ever, and keeps none where the client asks it not to.
        if session.is_upgrade_req() {
            // What follows such a header is no request but belongs to the other protocol.
            session.set_pipelining_enabled(false);
        }
        let limits = &self.shared.limits;
        if session.get_keepalive().is_some() {
            // Zero would be for ever.
            session.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
        }
        let checked = self.check(session);
        checked.and_then(|()| request::settle_target(session.req_header_mut(), limits.keep_slashes)).map_err(
            |refusal| {
                ctx.refusal = Some(refusal);
                Error::explain(ErrorType::HTTPStatus(refusal.status()), refusal.as_str()).into_down()
            },
        )
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.origin = client(session).map(|client| Origin::of(session.req_header(), client, &self.shared.limits));
        let admitted = self.route(session).and_then(|route| {
            let announced = session.req_header().headers.get(CONTENT_LENGTH);
            let length = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
            let largest = route.target.policy.body_size_max;
            if length.zip(largest).is_some_and(|(length, largest)| length > largest) {
                return Err(Refusal::BodyTooLarge);
            }
            Ok(route)
        });
        match admitted {
            Ok(route) => {
                route.target.upstream.budget.deposit();
                if !session.is_upgrade_req() {
                    ctx.deadline = route.target.policy.request_timeout.map(|timeout| ctx.started + timeout);
                }
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
        let (policy, now) = (&route.target.policy, Instant::now());
        if ctx.is_late() {
            return Err(Error::explain(ErrorType::HTTPStatus(504), "request timeout"));
        }
        let endpoint = route.target.upstream.pick(&ctx.tried, now).map_err(|why| {
            let refusal = Refusal::Unavailable(why);
            ctx.refusal = Some(refusal);
            Error::explain(ErrorType::HTTPStatus(refusal.status()), why.as_str())
        })?;
        let mut peer = HttpPeer::new(endpoint.address, false, String::new());
        let connect_timeout = ctx.within_deadline(policy.connect_timeout, now);
        peer.options.connection_timeout = Some(connect_timeout);
        peer.options.total_connection_timeout = Some(connect_timeout);
        peer.options.read_timeout = Some(ctx.within_deadline(policy.read_timeout, now));
        peer.options.write_timeout = Some(ctx.within_deadline(policy.send_timeout, now));
        peer.options.idle_timeout = Some(UPSTREAM_IDLE_TIMEOUT);
        ctx.endpoint = Some(endpoint);
        ctx.body_received = 0;
        ctx.attempts += 1;
        if ctx.attempts > 1 {
            self.shared.metrics.upstream_retries.inc();
        }
        Ok(Box::new(peer))
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        ctx.body_received += body.as_ref().map_or(0, |body| body.len() as u64);
        let largest = ctx.route.as_ref().and_then(|route| route.target.policy.body_size_max);
        if largest.is_some_and(|largest| ctx.body_received > largest) {
            ctx.refusal = Some(Refusal::BodyTooLarge);
            return Err(Error::explain(ErrorType::HTTPStatus(413), "request body too large").into_down());
        }
        if ctx.is_late() {
            return Err(Error::explain(ErrorType::HTTPStatus(504), "request timeout"));
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        match (&ctx.origin, &ctx.request_id) {
            (Some(origin), Some(id)) => headers::forward(upstream, origin, id),
            _ => Error::e_explain(ErrorType::InternalError, "a request came without its connection's client"),
        }
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let status = response.status.as_u16();
        if retry::after_answer(&self.shared.metrics, session, ctx, status) {
            return Err(Error::explain(ErrorType::HTTPStatus(status), "another endpoint may do better").into_up());
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if ctx.is_late() {
            return Err(Error::explain(ErrorType::HTTPStatus(504), "request timeout"));
        }
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut Context,
    ) -> Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // From here on only the endpoint's silence ends the conversation.
            session.set_read_timeout(None);
        }
        if self.shared.is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        retry::after_connect_failure(&self.shared.metrics, ctx, &mut error);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        retry::after_broken_attempt(&self.shared.metrics, session, ctx, &mut error, reused);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut Context) -> FailToProxy {
        let status = status_of(error);
        if status > 0 {
            if let Err(error) = refusal::answer_and_close(session, status).await {
                tracing::debug!(%error, "client is gone before its error answer");
            } else if status == 413 {
                // Closing under a client that still sends would reset the connection and take the answer with it.
                session.set_total_drain_timeout(Some(REFUSED_BODY_TIMEOUT));
                let _ = session.as_downstream_mut().drain_request_body().await;
            }
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

/// The size of a header as HTTP/2 counts it (RFC 9113 §6.5.2), the pseudo-header fields apart.
fn decoded_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
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
