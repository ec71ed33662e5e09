//! What the health pages say: kube-proxy's meaning on kube-proxy's paths.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daemon::admin::{Admin, Page};
use serde_json::json;

use crate::apply::ServiceMaps;
use crate::reconcile::Reconciler;

/// Changes that wait longer than this mean that we are stuck.
const PENDING_MAX: Duration = Duration::from_secs(60);

/// The agent's state as others see it.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    node_deleting: bool,
    applied: Option<Instant>,
    pending_since: Option<Instant>,
    refused: Vec<(String, String, String)>,
}

/// Adds the health pages. `/healthz` also fails while the node is being deleted, so that load balancers move on;
/// `/livez` does not, so that nobody restarts us for it.
pub(super) fn pages(admin: Admin, health: &Arc<Health>) -> Admin {
    let page = |with_node: bool| {
        let health = Arc::clone(health);
        move |_: Option<&str>| health.page(with_node)
    };
    admin.page("/healthz", page(true)).page("/livez", page(false)).page("/readyz", page(true))
}

impl Health {
    /// A change has come in.
    pub(super) fn queued(&self) {
        self.lock().pending_since.get_or_insert_with(Instant::now);
    }

    /// Everything that was known has been applied.
    pub(super) fn applied(&self) {
        let mut state = self.lock();
        state.applied = Some(Instant::now());
        state.pending_since = None;
    }

    /// Takes over what the reconciler knows.
    pub(super) fn update<M: ServiceMaps>(&self, reconciler: &Reconciler<M>) {
        let mut state = self.lock();
        state.ready = reconciler.is_ready();
        state.node_deleting = reconciler.is_node_deleting();
        let refused = reconciler.refused().iter();
        state.refused = refused
            .map(|(key, refusal)| {
                let service = refusal.service.as_ref().map(ToString::to_string).unwrap_or_default();
                (key.to_string(), service, refusal.reason.clone())
            })
            .collect();
        if !reconciler.has_work() {
            state.pending_since = None;
        }
    }

    /// Frontends that are not served as they should be, as JSON.
    pub(super) fn status(&self) -> String {
        let state = self.lock();
        let refused: Vec<_> = state
            .refused
            .iter()
            .map(|(frontend, service, reason)| json!({"frontend": frontend, "service": service, "reason": reason}))
            .collect();
        json!({"ready": state.ready, "nodeDeleting": state.node_deleting, "refused": refused}).to_string()
    }

    fn page(&self, with_node: bool) -> Page {
        let state = self.lock();
        let stuck = state.pending_since.is_some_and(|since| since.elapsed() > PENDING_MAX);
        let node_eligible = !state.node_deleting;
        let healthy = state.ready && !stuck && (node_eligible || !with_node);
        let body = json!({
            "healthy": healthy,
            "ready": state.ready,
            "nodeEligible": node_eligible,
            "secondsSinceUpdate": state.applied.map(|at| at.elapsed().as_secs()),
        });
        let status = if healthy { http::StatusCode::OK } else { http::StatusCode::SERVICE_UNAVAILABLE };
        Page(status, "application/json", body.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
