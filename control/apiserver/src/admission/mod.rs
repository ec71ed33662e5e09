//! Admission: a chain of steps that complete an object before it is validated, or refuse it after.

mod defaults;
mod escalation;
mod lifecycle;
mod limit_ranger;
mod node;
pub(crate) mod quota;
mod service_account;

use std::sync::Arc;

use control_api::registry::Resource;
use control_api::status::Status;
use control_store::{Entry, Range};
use serde_json::Value;

use crate::handler::Context;
use crate::state::{parse, store_failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// A subresource that acts on an object without writing it, such as `binding`.
    Connect,
}

/// What the chain judges.
pub(crate) struct Request<'a> {
    pub(crate) context: &'a Context,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) operation: Operation,
    pub(crate) subresource: &'a str,
    /// The object as it is before an update or a deletion.
    pub(crate) old: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        context: &'a Context,
        resource: &'a Arc<Resource>,
        operation: Operation,
        subresource: &'a str,
        old: Option<&'a Value>,
    ) -> Self {
        Self { context, resource, operation, subresource, old }
    }

    /// Whether this is an operation on the main resource of a group.
    fn is(&self, operation: Operation, group: &str, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.resource.group == group
            && self.resource.plural == plural
    }

    fn forbidden(&self, name: &str, why: impl AsRef<str>) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.plural, name, why)
    }
}

/// One rule. Both parts may read the store; only the first may change the object.
#[async_trait::async_trait]
trait Step: Sync {
    async fn mutate(&self, _request: &Request<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    async fn validate(&self, _request: &Request<'_>, _object: &Value) -> Result<(), Status> {
        Ok(())
    }
}

/// In upstream's order; quotas come last of all and are charged with the write itself ([`quota`]).
const CHAIN: &[&dyn Step] = &[
    &lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node::NodeRestriction,
    &node::TaintNodesByCondition,
    &escalation::Escalation,
    &defaults::RuntimeClass,
    &defaults::Priority,
    &defaults::DefaultTolerationSeconds,
    &defaults::DefaultIngressClass,
];

/// Every object of a built-in kind: those of a namespace, or all if it is empty. For kinds of which there are few.
async fn objects(
    request: &Request<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
) -> Result<Vec<(Entry, Value)>, Status> {
    let server = &request.context.server;
    let resource = server.builtin(group, plural)?;
    let page = server.store.range(Range::prefix(&resource.prefix(namespace))).await.map_err(store_failure)?;
    page.entries.into_iter().map(parse).collect()
}

pub(crate) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    for step in CHAIN {
        step.mutate(request, object).await?;
    }
    Ok(())
}

pub(crate) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    for step in CHAIN {
        step.validate(request, object).await?;
    }
    Ok(())
}
