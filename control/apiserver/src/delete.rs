//! DELETE: at once, gracefully, or once finalizers are gone.

use std::sync::Arc;

use bytes::Bytes;
use control_api::meta;
use control_api::registry::{GroupVersionKind, Resource};
use control_api::status::Status;
use control_api::strategy::{self, Deletion, Propagation};
use control_store::{Entry, Error, Expect, Op, Range};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{self, Operation};
use crate::allocation;
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::reply::Reply;
use crate::selection::Selection;
use crate::state::{parse, store_failure};
use crate::write::stored;
use crate::{body, form, object, reply};

const ATTEMPTS_MAX: usize = 20;

/// What a client wants of a deletion, from body and query.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    strategy: strategy::DeleteOptions,
    uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

pub(crate) async fn one(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let options = Options::read(context, &body)?;
    let (object, gone) = delete(context, resource, &context.info.namespace, &context.info.name, &options).await?;
    // Upstream answers with the object where it may live on, and for pods always.
    if !gone || resource.graceful_deletion {
        return form::one(context, resource, object, wanted, StatusCode::OK);
    }
    Ok(reply::json(StatusCode::OK, &success(resource, &object)))
}

pub(crate) async fn collection(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let selection = Selection::parse(resource, &context.info)?;
    let options = Options::read(context, &body)?;
    let range = Range::prefix(&resource.prefix(&context.info.namespace));
    let page = context.server.store.range(range).await.map_err(store_failure)?;
    let mut deleted = Vec::new();
    for entry in page.entries.into_iter().filter(|entry| selection.matches_stored(&entry.key, &entry.value)) {
        let (_, found) = parse(entry)?;
        match delete(context, resource, meta::namespace(&found), meta::name(&found), &options).await {
            Ok((object, _)) => deleted.push(object),
            // Somebody else deleted it first.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let mut metadata = serde_json::Map::new();
    metadata.insert("resourceVersion".into(), context.server.store.revision().to_string().into());
    form::many(context, resource, deleted, metadata, wanted)
}

fn success(resource: &Resource, object: &Value) -> Value {
    let mut details = json!({"name": meta::name(object), "kind": resource.plural, "uid": meta::uid(object)});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

impl Options {
    fn read(context: &Context, body: &Bytes) -> Result<Self, Status> {
        let options = body::optional(context, &GroupVersionKind::new("", "v1", "DeleteOptions"), body)?;
        Self::of(context, &options)
    }

    /// What a DeleteOptions object and the query say together.
    pub(crate) fn of(context: &Context, options: &Value) -> Result<Self, Status> {
        let info = &context.info;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let by_query = info.query.number("gracePeriodSeconds")?.map(|seconds| seconds as i64);
        let mut propagation = text(&options["propagationPolicy"]);
        if propagation.is_none() {
            propagation = info.query.get("propagationPolicy").map(str::to_owned);
        }
        let orphan = options["orphanDependents"]
            .as_bool()
            .or_else(|| info.query.has("orphanDependents").then(|| info.query.flag("orphanDependents")));
        if let Some(orphan) = orphan
            && propagation.is_none()
        {
            propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        }
        let propagation = propagation.as_deref().map(parse_propagation).transpose()?;
        let in_body = options["dryRun"].as_array().is_some_and(|values| values.iter().any(|value| value == "All"));
        Ok(Self {
            strategy: strategy::DeleteOptions {
                grace_period_seconds: options["gracePeriodSeconds"].as_i64().or(by_query),
                propagation,
            },
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            dry_run: in_body || info.dry_run()?,
        })
    }
}

fn parse_propagation(text: &str) -> Result<Propagation, Status> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(Status::bad_request(format!(
            "invalid propagationPolicy {other:?}: must be one of \"Foreground\", \"Background\" or \"Orphan\""
        ))),
    }
}

/// Deletes or begins to. Returns the object's last or newest state and whether it is gone.
pub(crate) async fn delete(
    context: &Context,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<(Value, bool), Status> {
    let key = resource.key(namespace, name);
    for _ in 0..ATTEMPTS_MAX {
        let entry = context.server.store.get(&key).await.map_err(store_failure)?;
        let entry = entry.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, name))?;
        let (entry, mut current) = parse(entry)?;
        resource.from_stored(&mut current);
        check_preconditions(resource, &current, options)?;
        let request = admission::Request::new(context, resource, Operation::Delete, "", Some(&current));
        admission::validate(&request, &current).await?;
        let mut marked = current.clone();
        let deletion = strategy::prepare_for_delete(resource, &mut marked, options.strategy, jiff::Timestamp::now());
        if deletion == Deletion::Remove {
            if remove(context, resource, &entry, &marked, options.dry_run).await? {
                return Ok((marked, true));
            }
            continue;
        }
        if deletion == Deletion::Unchanged || options.dry_run {
            return Ok((marked, false));
        }
        let op = Op::update(&entry.key, stored(resource, &marked), entry.revision);
        match context.server.store.txn(vec![op]).await {
            Ok(revision) => {
                object::set_revision(&mut marked, revision);
                return Ok((marked, false));
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(store_failure(error)),
        }
    }
    Err(Status::modified(&resource.group, &resource.plural, name))
}

fn check_preconditions(resource: &Resource, current: &Value, options: &Options) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(&resource.group, &resource.plural, meta::name(current), why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(current)) {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(current)
        ));
    }
    let found = meta::resource_version(current);
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != found) {
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {found}"
        ));
    }
    Ok(())
}

/// Takes an object out of the store, with everything it had allocated. False if somebody else wrote in between.
pub(crate) async fn remove(
    context: &Context,
    resource: &Resource,
    entry: &Entry,
    object: &Value,
    dry_run: bool,
) -> Result<bool, Status> {
    if dry_run {
        return Ok(true);
    }
    let mut ops = vec![Op::delete(&entry.key, Expect::Revision(entry.revision))];
    ops.extend(allocation::release(resource, object));
    match context.server.store.txn(ops).await {
        Ok(_) => Ok(true),
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(store_failure(error)),
    }
}
