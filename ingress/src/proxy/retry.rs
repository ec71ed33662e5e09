//! What a failed attempt means: for its endpoint's health, and whether the request may go to another one.
//!
//! Safe to send again is a request that was not sent (connecting failed), whatever its method; and one whose method is
//! idempotent, as long as nothing of an answer went to the client and its body is still there. A refused connection costs
//! nobody anything, so that going on from it takes neither from the tries nor from the budget: when the pods of a Service
//! end one after the other, each is asked before the client hears of it.

use std::time::Instant;

use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::context::Context;
use crate::metrics::Metrics;
use crate::policy::{TRIES_MAX, is_gateway_failure};

/// The endpoint could not be connected to. Decides whether another one is tried.
pub(super) fn after_connect_failure(metrics: &Metrics, ctx: &mut Context, error: &mut Error) {
    metrics.upstream_connect_failures.inc();
    let now = Instant::now();
    if is_endpoints_fault(error.etype()) {
        blame(metrics, ctx, now);
    }
    give_up_endpoint(ctx);
    let refused = matches!(error.etype(), ErrorType::ConnectRefused);
    ctx.refused_attempts += u32::from(refused);
    error.set_retry(if refused { may_go_on(ctx) } else { may_retry(metrics, ctx, now) });
}

/// The attempt broke. `reused` says that its connection was a kept one: then the endpoint may just have closed it.
pub(super) fn after_broken_attempt(
    metrics: &Metrics,
    session: &Session,
    ctx: &mut Context,
    error: &mut Error,
    reused: bool,
) {
    if std::mem::take(&mut ctx.retry_granted) {
        error.set_retry(true);
        return;
    }
    error.set_retry(false);
    if *error.esource() != ErrorSource::Upstream || session.response_written().is_some() {
        return;
    }
    let now = Instant::now();
    let broken = is_broken_connection(error.etype());
    if !(reused && broken) {
        blame(metrics, ctx, now);
        give_up_endpoint(ctx);
    }
    if broken && is_resendable(session) {
        error.set_retry(may_retry(metrics, ctx, now));
    }
}

/// The endpoint answered. Returns whether the answer is to be dropped and the request sent to another endpoint.
pub(super) fn after_answer(metrics: &Metrics, session: &Session, ctx: &mut Context, status: u16) -> bool {
    let now = Instant::now();
    if !is_gateway_failure(status) {
        if let Some(endpoint) = &ctx.endpoint {
            endpoint.succeeded(now);
        }
        return false;
    }
    blame(metrics, ctx, now);
    let wanted = ctx.route.as_ref().is_some_and(|route| route.target.policy.retry_statuses.contains(&status));
    if !wanted || !is_resendable(session) || session.response_written().is_some() {
        return false;
    }
    give_up_endpoint(ctx);
    ctx.retry_granted = may_retry(metrics, ctx, now);
    ctx.retry_granted
}

fn give_up_endpoint(ctx: &mut Context) {
    ctx.tried.extend(ctx.endpoint.as_ref().map(|endpoint| endpoint.address));
}

fn blame(metrics: &Metrics, ctx: &Context, now: Instant) {
    let Some(endpoint) = &ctx.endpoint else { return };
    if let Some(duration) = endpoint.failed(now) {
        metrics.upstream_ejections.inc();
        let upstream = ctx.route.as_ref().map(|route| tracing::field::display(&route.target.upstream.key));
        tracing::warn!(endpoint = %endpoint.address, upstream, seconds = duration.as_secs(), "endpoint ejected");
    }
}

/// Whether there is a try, an endpoint, time and budget left; takes from the budget.
fn may_retry(metrics: &Metrics, ctx: &Context, now: Instant) -> bool {
    let Some(route) = &ctx.route else { return false };
    let (upstream, policy) = (&route.target.upstream, &route.target.policy);
    if ctx.attempts - ctx.refused_attempts >= u32::from(policy.tries) || !may_go_on(ctx) {
        return false;
    }
    let within_budget = upstream.budget.withdraw(now);
    if !within_budget {
        metrics.upstream_retries_over_budget.inc();
    }
    within_budget
}

/// Whether there is another endpoint and time left.
fn may_go_on(ctx: &Context) -> bool {
    let has_other = ctx.route.as_ref().is_some_and(|route| route.target.upstream.has_other(&ctx.tried));
    has_other && ctx.attempts < u32::from(TRIES_MAX) && !ctx.is_late()
}

fn is_resendable(session: &Session) -> bool {
    session.req_header().method.is_idempotent() && !session.as_downstream().retry_buffer_truncated()
}

/// Not: that this process has no more files or ports.
fn is_endpoints_fault(error: &ErrorType) -> bool {
    use ErrorType::{ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout};
    matches!(error, ConnectError | ConnectNoRoute | ConnectRefused | ConnectTimedout)
}

fn is_broken_connection(error: &ErrorType) -> bool {
    use ErrorType::{ConnectionClosed, ReadError, WriteError};
    matches!(error, ConnectionClosed | ReadError | WriteError)
}
