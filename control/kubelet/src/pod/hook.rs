//! Lifecycle hooks: exec, httpGet and sleep handlers of postStart and preStop.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probe::{OUTPUT_MAX, Outcome, http, target};
use crate::runtime::PodRuntime;

/// A handler without a time limit of its own is ended with its container at the latest.
const LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// Runs a handler to its end; the error is for an event.
pub(crate) async fn run(
    handler: &LifecycleHandler,
    runtime: &dyn PodRuntime,
    container: &Container,
    container_id: &str,
    pod_ip: Option<IpAddr>,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let shown = format!("{command:?}");
        let output = runtime.exec(container_id, command, LIMIT, OUTPUT_MAX).await;
        return match output {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                Err(format!(
                    "Exec lifecycle hook ({shown}) failed - error: command exited with {}: {text}",
                    output.exit_code
                ))
            }
            Err(error) => Err(format!("Exec lifecycle hook ({shown}) failed - error: {error}")),
        };
    }
    if let Some(action) = &handler.http_get {
        let request = target::http(action, container, pod_ip)?;
        return match http::probe(&request, LIMIT).await {
            Outcome::Success => Ok(()),
            Outcome::Failure(message) | Outcome::Error(message) => {
                Err(format!("HTTP lifecycle hook failed - error: {message}"))
            }
        };
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("invalid handler".into())
}
