//! Makes sure that a container's image is on the node, as its pull policy has it.

use std::time::Duration;

use control_runtime::{Credentials, ImageRecord, PullError, Reference};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::keyring::Keyring;
use crate::cluster::chain;
use crate::events::Severity;
use crate::pod::context::Context;
use crate::pod::start::{Order, StartError};
use crate::spec::pod_ref::PodRef;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The image, pulled if need be; what happens is told as events.
pub(crate) async fn ensure(context: &Context, order: &Order) -> Result<ImageRecord, StartError> {
    let text = order.container.image.clone().unwrap_or_default();
    let image = match Reference::parse(&text) {
        Ok(image) => image,
        Err(error) => return Err(invalid(context, order, text, &chain(&error))),
    };
    let present = find(context, order, &text).await?;
    match (policy(order), present) {
        (Policy::Never, None) => Err(StartError::NeverPull(text)),
        (Policy::Never | Policy::IfNotPresent, Some(found)) => {
            tell(
                context,
                order,
                Severity::Normal,
                "Pulled",
                format!("Container image \"{text}\" already present on machine"),
            );
            Ok(found)
        }
        (_, present) => pull(context, order, &image, present).await,
    }
}

/// The API server has filled it in, by the tag.
fn policy(order: &Order) -> Policy {
    match order.container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        _ => Policy::IfNotPresent,
    }
}

fn invalid(context: &Context, order: &Order, text: String, error: &str) -> StartError {
    let message =
        format!("Failed to apply default image tag \"{text}\": couldn't parse image name \"{text}\": {error}");
    tell(context, order, Severity::Warning, "InspectFailed", message.clone());
    StartError::BadImageName(message)
}

async fn find(context: &Context, order: &Order, text: &str) -> Result<Option<ImageRecord>, StartError> {
    if let Some(found) = context.runtime.resolve_image(text).await {
        return Ok(Some(found));
    }
    // It may be among those that are being imported right now.
    let mut loaded = context.images_loaded.clone();
    if *loaded.borrow() {
        return Ok(None);
    }
    let ready = async { loaded.wait_for(|loaded| *loaded).await.is_ok() };
    tokio::select! {
        _ = ready => Ok(context.runtime.resolve_image(text).await),
        () = order.cancelled.cancelled() => Err(StartError::Cancelled),
    }
}

async fn pull(
    context: &Context,
    order: &Order,
    image: &Reference,
    present: Option<ImageRecord>,
) -> Result<ImageRecord, StartError> {
    let text = order.container.image.clone().unwrap_or_default();
    let credentials = credentials(context, &order.pod, image).await?;
    tell(context, order, Severity::Normal, "Pulling", format!("Pulling image \"{text}\""));
    let asked = Instant::now();
    let work = async {
        // The semaphore is never closed; without a permit the pull would merely not wait.
        let _turn = context.pulls.acquire().await.ok();
        let began = Instant::now();
        (context.runtime.pull_image(image, &credentials).await, began.elapsed())
    };
    let (result, took) = tokio::select! {
        done = work => done,
        () = order.cancelled.cancelled() => return Err(StartError::Cancelled),
    };
    match (result, present) {
        (Ok(pulled), _) => {
            let message = pulled_message(&text, took, asked.elapsed(), pulled.size_bytes);
            tell(context, order, Severity::Normal, "Pulled", message);
            Ok(pulled)
        }
        // No registry has ever had a say in an imported image; that none can be reached says nothing against it.
        (Err(error), Some(imported)) if error.is_unreachable() && imported.pulled.is_empty() => {
            let message =
                format!("Container image \"{text}\" already present on machine; its registry cannot be reached");
            tell(context, order, Severity::Normal, "Pulled", message);
            Ok(imported)
        }
        (Err(error), _) => Err(StartError::Pull { image: text, message: message(&error) }),
    }
}

fn message(error: &PullError) -> String {
    match error {
        PullError::Unreachable { .. } => format!("{error}; images can also be imported with `tidegate image import`"),
        other => chain(other),
    }
}

/// What the pod's Secrets offer; one that cannot be read is told of, and does without.
async fn credentials(context: &Context, pod: &Pod, image: &Reference) -> Result<Vec<Credentials>, StartError> {
    let mut secrets = Vec::new();
    let mut missing = Vec::new();
    for name in pod.pod_spec().image_pull_secrets.iter().flatten().map(|secret| &secret.name) {
        match context.cluster.secret(pod.namespace(), name).await {
            Ok(Some(secret)) => secrets.push(secret),
            Ok(None) => missing.push(name.clone()),
            Err(error) => {
                tracing::debug!(pod = %pod.label(), secret = %name, %error, "cannot read an image pull secret");
                missing.push(name.clone());
            }
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        context.events.pod(pod, Severity::Warning, "FailedToRetrieveImagePullSecret", message);
    }
    Ok(Keyring::new(&secrets).of(image))
}

fn tell(context: &Context, order: &Order, severity: Severity, reason: &'static str, message: String) {
    context.events.container(&order.pod, &order.container.name, severity, reason, message);
}

fn pulled_message(image: &str, took: Duration, with_waiting: Duration, size: u64) -> String {
    let (took, with_waiting) = (milliseconds(took), milliseconds(with_waiting));
    format!(
        "Successfully pulled image \"{image}\" in {took} ({with_waiting} including waiting). Image size: {size} bytes."
    )
}

/// As Go prints a duration that is cut to milliseconds.
fn milliseconds(duration: Duration) -> String {
    let total = duration.as_millis();
    let (minutes, milliseconds) = (total / 60_000, total % 60_000);
    if total < 1_000 {
        return if total == 0 { "0s".to_owned() } else { format!("{total}ms") };
    }
    let decimals = format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000);
    let seconds = decimals.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cut_to_milliseconds() {
        for (micros, text) in [
            (999, "0s"),
            (1_000, "1ms"),
            (999_999, "999ms"),
            (1_000_000, "1s"),
            (1_234_567, "1.234s"),
            (60_000_000, "1m0s"),
            (90_500_000, "1m30.5s"),
        ] {
            assert_eq!(milliseconds(Duration::from_micros(micros)), text);
        }
    }
}
