//! The end of a definition: its objects are deleted, then it goes itself.

use std::sync::Arc;
use std::time::Duration;

use control_api::custom::{Definition, FINALIZER, set_condition};
use control_api::meta;
use control_api::registry::Resource;
use control_api::status::Status;
use control_store::Range;
use serde_json::Value;

use super::change;
use crate::bootstrap;
use crate::delete::{self, Options};
use crate::state::{Server, parse, store_failure};

/// Between looks at what is left, while finalizers hold objects.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Ends with the definition's objects, or with the server.
pub(super) async fn run(server: Arc<Server>, definition: Definition) {
    let mut is_first = true;
    while !server.shutdown.is_cancelled() {
        match step(&server, &definition, is_first).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(name = definition.name, %error, "cannot remove the objects of a definition");
                let message = format!("could not issue all deletes: {error}");
                let failed = |object: &mut Value| report(object, "True", "InstanceDeletionFailed", &message);
                // The next attempt reports again.
                let _ = change(&server, &definition, "status", failed).await;
            }
        }
        is_first = false;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Deletes what is there; true once the definition is done with.
async fn step(server: &Arc<Server>, definition: &Definition, is_first: bool) -> Result<bool, Status> {
    let Some(resource) = definition.resources().first() else {
        return finish(server, definition, "NeverEstablished", "resource was never established").await;
    };
    if is_first {
        let begin = |object: &mut Value| {
            report(object, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
        };
        change(server, definition, "status", begin).await?;
    }
    let left = remove_objects(server, resource).await?;
    if left > 0 {
        return Ok(false);
    }
    finish(server, definition, "InstanceDeletionCompleted", "removed all instances").await
}

fn report(definition: &mut Value, status: &str, reason: &str, message: &str) {
    set_condition(definition, "Terminating", status, reason, message, jiff::Timestamp::now());
}

async fn finish(server: &Arc<Server>, definition: &Definition, reason: &str, message: &str) -> Result<bool, Status> {
    let done = |object: &mut Value| {
        report(object, "False", reason, message);
        let finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
        let rest: Vec<&str> = finalizers.iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        meta::set_finalizers(object, &rest);
    };
    change(server, definition, "status", done).await?;
    Ok(true)
}

/// Asks for the deletion of every object; says how many are still there.
async fn remove_objects(server: &Arc<Server>, resource: &Arc<Resource>) -> Result<usize, Status> {
    let prefix = resource.prefix("");
    let page = server.store.range(Range::prefix(&prefix)).await.map_err(store_failure)?;
    for entry in page.entries {
        let (_, object) = parse(entry)?;
        if meta::deletion_timestamp(&object).is_some() {
            continue;
        }
        let (namespace, name) = (meta::namespace(&object), meta::name(&object));
        let context = bootstrap::context(server, "delete", namespace, name);
        match delete::delete(&context, resource, namespace, name, &Options::default()).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    let left = server.store.range(Range::prefix(&prefix)).await.map_err(store_failure)?;
    Ok(left.entries.len())
}
