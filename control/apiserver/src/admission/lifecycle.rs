//! Nothing is created in a namespace that is missing or ending, and three namespaces never end.

use control_api::meta;
use control_api::status::Status;
use serde_json::Value;

use super::{Operation, Request, Step};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait::async_trait]
impl Step for NamespaceLifecycle {
    /// Runs first, so that a missing namespace is what a client hears of, not a missing service account.
    async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.resource.namespaced || request.resource.is_virtual {
            return Ok(());
        }
        let name = meta::namespace(object);
        let server = &request.context.server;
        let namespaces = server.builtin("", "namespaces")?;
        let found = server.read(&namespaces, "", name).await?;
        let (_, namespace) = found.ok_or_else(|| Status::not_found("", "namespaces", name))?;
        if meta::deletion_timestamp(&namespace).is_none() && namespace["status"]["phase"] != "Terminating" {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        Err(request.forbidden(meta::name(object), why).with_cause(
            "NamespaceTerminating",
            &format!("namespace {name} is being terminated"),
            "metadata.namespace",
        ))
    }

    async fn validate(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let name = meta::name(object);
        if request.is(Operation::Delete, "", "namespaces") && IMMORTAL.contains(&name) {
            return Err(request.forbidden(name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
