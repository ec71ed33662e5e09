//! Exec probes: a command in the container that ends with 0 in time is a success.

use std::time::Duration;

use control_runtime::RuntimeError;

use super::{OUTPUT_MAX, Outcome};
use crate::runtime::PodRuntime;

pub(crate) async fn probe(
    runtime: &dyn PodRuntime,
    container_id: &str,
    command: Vec<String>,
    limit: Duration,
) -> Outcome {
    let shown = command.join(" ");
    match runtime.exec(container_id, command, limit, OUTPUT_MAX).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Outcome::Failure(String::from_utf8_lossy(&text[..text.len().min(OUTPUT_MAX)]).into_owned())
        }
        Err(RuntimeError::Timeout(_)) => {
            Outcome::Failure(format!("command timed out: {shown:?} timed out after {limit:?}"))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}
