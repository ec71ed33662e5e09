//! What a request remembers. Of the snapshot it keeps its rule only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::origin::Origin;
use super::refusal::Refusal;
use crate::snapshot::Route;
use crate::upstream::Endpoint;

#[derive(Debug)]
pub(crate) struct Context {
    pub(super) started: Instant,
    pub(super) route: Option<Arc<Route>>,
    pub(super) refusal: Option<Refusal>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) origin: Option<Origin>,
    /// The endpoint of the present attempt.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) attempts: u32,
    /// Of the attempts, those whose connection was refused.
    pub(super) refused_attempts: u32,
    /// Endpoints that failed this request.
    pub(super) tried: Vec<SocketAddr>,
    /// The present attempt ends so that the next one can be made.
    pub(super) retry_granted: bool,
    pub(super) deadline: Option<Instant>,
    /// Of the body, within the present attempt.
    pub(super) body_received: u64,
}

impl Context {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            route: None,
            refusal: None,
            request_id: None,
            origin: None,
            endpoint: None,
            attempts: 0,
            refused_attempts: 0,
            tried: Vec::new(),
            retry_granted: false,
            deadline: None,
            body_received: 0,
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// A timeout, cut to what is left of the request's time.
    pub(super) fn within_deadline(&self, timeout: Duration, now: Instant) -> Duration {
        self.deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(now)))
    }
}
