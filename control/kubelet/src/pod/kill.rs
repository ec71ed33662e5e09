//! Ends one container: event, preStop hook inside the grace, SIGTERM, SIGKILL.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::RuntimeError;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::{Instant, timeout};

use super::context::Context;
use super::decide::{GRACE_MIN_S, Kill, KillCause};
use super::hook;
use super::memory::Condemned;
use crate::events::Severity;
use crate::spec::pod_ref::PodRef;

/// Returns when the container's process has ended.
pub(crate) async fn kill(
    context: Arc<Context>,
    pod: Arc<Pod>,
    kill: Kill,
    pod_ip: Option<IpAddr>,
) -> Result<(), RuntimeError> {
    let grace = Duration::from_secs(u64::try_from(kill.grace_s).unwrap_or(0));
    let begun = Instant::now();
    if kill.with_hook {
        context.events.container(&pod, &kill.name, Severity::Normal, "Killing", message(&kill));
        if let Some(container) = pod.container(&kill.name).filter(|_| !grace.is_zero()) {
            run_hook(&context, &pod, &container, &kill.id, pod_ip, grace).await;
        }
    }
    let left = if grace.is_zero() {
        Duration::ZERO
    } else {
        // A hook that used up the grace leaves the process a moment to hear of its end.
        grace.saturating_sub(begun.elapsed()).max(Duration::from_secs(GRACE_MIN_S.unsigned_abs()).min(grace))
    };
    match context.runtime.stop_container(&kill.id, left).await {
        Err(RuntimeError::NoContainer(_)) => Ok(()),
        result => result,
    }
}

fn message(kill: &Kill) -> String {
    let name = &kill.name;
    match kill.cause {
        KillCause::Stopping => format!("Stopping container {name}"),
        KillCause::Changed => format!("Container {name} definition changed, will be restarted"),
        KillCause::Resized => format!("Container {name} resize requires restart"),
        KillCause::Unhealthy(Condemned::Liveness) => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        KillCause::Unhealthy(Condemned::Startup) => format!("Container {name} failed startup probe, will be restarted"),
        KillCause::Lost => format!("Container {name} is in unknown state, try killing it before restart"),
    }
}

async fn run_hook(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: Option<IpAddr>,
    grace: Duration,
) {
    let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
    let run = hook::run(handler, &*context.runtime, container, id, pod_ip);
    match timeout(grace, run).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // What the hook said may be secret; upstream keeps it out of events, too.
            tracing::info!(container = %container.name, error, "preStop hook failed");
            let message = "PreStopHook failed";
            context.events.container(pod, &container.name, Severity::Warning, "FailedPreStopHook", message);
        }
        Err(_) => tracing::info!(container = %container.name, ?grace, "preStop hook outlasted the grace period"),
    }
}
