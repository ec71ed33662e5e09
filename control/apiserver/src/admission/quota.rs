//! ResourceQuotas of the namespace. What an object costs is charged in the very transaction that stores it: nothing is
//! charged for what is not stored, nothing is stored uncharged, and of two writers that would together exceed a quota one
//! finds it changed and asks again.

use std::hash::{BuildHasher, RandomState};

use control_api::meta;
use control_api::quota::{self, Source, Subject};
use control_api::status::Status;
use control_store::Op;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use super::{Operation, Request, objects};
use crate::object;

/// Namespaces share these; a few that wait for each other by chance do no harm.
const TURNS: usize = 64;

/// Lets the writers of a namespace with quotas pass one after the other, so that they do not starve each other by
/// conflicts. The transaction alone keeps the quota.
pub(crate) struct Turns {
    locks: [Mutex<()>; TURNS],
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Turns {
    async fn of(&self, namespace: &str) -> MutexGuard<'_, ()> {
        let at = self.hasher.hash_one(namespace) as usize % TURNS;
        self.locks[at].lock().await
    }
}

/// The charges of one write. Lives until its transaction is done.
#[derive(Default)]
pub(crate) struct Charges<'a> {
    ops: Vec<Op>,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Charges<'_> {
    pub(crate) fn ops(&self) -> impl Iterator<Item = Op> {
        self.ops.iter().cloned()
    }
}

/// Comes after every other step: what is charged is what will be stored.
///
/// # Errors
/// 403 if a quota does not allow the object.
pub(crate) async fn charge<'a>(request: &Request<'a>, object: &Value) -> Result<Charges<'a>, Status> {
    let namespace = meta::namespace(object);
    if namespace.is_empty() || !is_charged(request) || quotas(request, namespace).await?.is_empty() {
        return Ok(Charges::default());
    }
    let turn = request.context.server.turns.of(namespace).await;
    let source = Source::new(&request.resource.group, &request.resource.plural);
    let subject = Subject { source: &source, object, old: request.old, now: jiff::Timestamp::now() };
    let mut ops = Vec::new();
    for (entry, mut quota) in quotas(request, namespace).await? {
        let used = quota::charge(&quota, subject).map_err(|why| request.forbidden(meta::name(object), why))?;
        if let Some(used) = used {
            quota["status"]["used"] = used;
            ops.push(Op::update(&entry.key, object::encode(&quota), entry.revision));
        }
    }
    Ok(Charges { ops, _turn: Some(turn) })
}

/// New objects are, and Services when they change: those may take ports and balancers later.
fn is_charged(request: &Request<'_>) -> bool {
    let writes = match request.operation {
        Operation::Create => true,
        Operation::Update => request.resource.group.is_empty() && request.resource.plural == "services",
        _ => false,
    };
    writes && request.subresource.is_empty() && !request.resource.is_virtual
}

async fn quotas(request: &Request<'_>, namespace: &str) -> Result<Vec<(control_store::Entry, Value)>, Status> {
    objects(request, "", "resourcequotas", namespace).await
}
