//! CREATE, UPDATE and PATCH: decode, default, admit, prepare, validate, own fields, store.

use std::sync::Arc;

use bytes::Bytes;
use control_api::registry::Resource;
use control_api::status::{Cause, Status};
use control_api::{custom, defaults, managed_fields, meta, names, strategy, validation};
use control_store::{Entry, Error, Expect, Op};
use http::StatusCode;
use serde_json::Value;

use crate::admission::{self, Operation};
use crate::allocation::Claims;
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::object;
use crate::patch::{self, Patch};
use crate::reply::Reply;
use crate::state::{parse, store_failure};
use crate::{apply, body, delete, form};

/// Attempts of a write whose client did not name the version that it changes.
const ATTEMPTS_MAX: usize = 20;
const GENERATED_NAMES_MAX: usize = 8;
/// Events are kept for an hour, as upstream does.
const EVENT_SECONDS: u64 = 3600;

pub(crate) async fn create(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let object = body::object_of(context, resource, &body)?;
    let created = create_object(context, resource, object).await?;
    published(context, resource, &created).await;
    form::one(context, resource, created, wanted, StatusCode::CREATED)
}

pub(crate) async fn update(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let object = body::object_of(context, resource, &body)?;
    let (updated, code) = update_object(context, resource, object).await?;
    published(context, resource, &updated).await;
    form::one(context, resource, updated, wanted, code)
}

/// Who sees to an object's `managedFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The write is an update: what it changes belongs to its manager from now on.
    Tracked,
    /// The change has decided that already, as an apply does.
    Decided,
}

pub(crate) async fn patch(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    if patch::is_apply(context) {
        return apply::apply(context, resource, body).await;
    }
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let patch = Patch::read(context, &body)?;
    let message = body::message_of(resource)?;
    let patched = modify(context, resource, |current| patch.apply(context, message, current)).await?;
    published(context, resource, &patched).await;
    form::one(context, resource, patched, wanted, StatusCode::OK)
}

/// Whoever has written a definition may use it at once.
pub(crate) async fn published(context: &Context, resource: &Resource, object: &Value) {
    if custom::is_definition(resource) && !context.info.dry_run().unwrap_or(true) {
        let revision = meta::resource_version(object).parse().unwrap_or(0);
        context.server.definitions.reached(revision).await;
    }
}

/// Creates an object in the resource's own form and returns it as stored.
pub(crate) async fn create_object(context: &Context, resource: &Arc<Resource>, object: Value) -> Result<Value, Status> {
    create_as(context, resource, object, Ownership::Tracked).await
}

pub(crate) async fn create_as(
    context: &Context,
    resource: &Arc<Resource>,
    object: Value,
    ownership: Ownership,
) -> Result<Value, Status> {
    let generates = meta::name(&object).is_empty() && !meta::field(&object, "generateName").is_empty();
    let attempts = if generates { GENERATED_NAMES_MAX } else { 1 };
    let mut last = Status::internal("no name was generated");
    for _ in 0..attempts {
        match create_named(context, resource, &object, ownership).await {
            Err(status) if generates && status.reason == "AlreadyExists" => last = status,
            result => return result,
        }
    }
    Err(last)
}

async fn create_named(
    context: &Context,
    resource: &Arc<Resource>,
    object: &Value,
    ownership: Ownership,
) -> Result<Value, Status> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(created) = create_once(context, resource, object.clone(), ownership).await? {
            return Ok(created);
        }
    }
    Err(Status::internal("the object's addresses or its quotas were taken again and again"))
}

/// One attempt; `None` if somebody else took an address or charged a quota in between.
async fn create_once(
    context: &Context,
    resource: &Arc<Resource>,
    mut object: Value,
    ownership: Ownership,
) -> Result<Option<Value>, Status> {
    let info = &context.info;
    let store = &*context.server.store;
    set_namespace(resource, &info.namespace, &mut object)?;
    if resource.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&resource.group, &resource.plural, meta::name(&object), why));
    }
    defaults::apply(resource, &mut object);
    let request = admission::Request::new(context, resource, Operation::Create, &info.subresource, None);
    admission::mutate(&request, &mut object).await?;
    let birth = strategy::Birth {
        namespace: &info.namespace,
        now: jiff::Timestamp::now(),
        uid: &uuid::Uuid::new_v4().to_string(),
        suffix: &names::suffix(rand::random()),
    };
    strategy::prepare_for_create(resource, &mut object, &birth)?;
    let claims = context.server.allocator.claim(store, resource, &mut object, None).await?;
    validation::check(resource, &object, validation::validate_create(resource, &object))?;
    admission::validate(&request, &object).await?;
    let charges = admission::quota::charge(&request, &object).await?;
    if ownership == Ownership::Tracked {
        track(context, resource, None, &mut object)?;
    }
    object::check_depth(&object)?;
    let name = meta::name(&object);
    let key = resource.key(meta::namespace(&object), name);
    if info.dry_run()? {
        let exists = store.get(&key).await.map_err(store_failure)?.is_some();
        return if exists { Err(already_exists(resource, name)) } else { Ok(Some(object)) };
    }
    let value = stored(resource, &object);
    let put = Op::Put { key: key.as_str().into(), value, expect: Expect::Absent, expires: expiry(resource) };
    let ops = std::iter::once(put).chain(claims.ops()).chain(charges.ops()).collect();
    match store.txn(ops).await {
        Ok(revision) => {
            object::set_revision(&mut object, revision);
            Ok(Some(object))
        }
        Err(Error::Conflict { key: taken, .. }) if *taken == *key => Err(already_exists(resource, name)),
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(store_failure(error)),
    }
}

/// Replaces an object (PUT), or creates it where the resource allows that.
async fn update_object(
    context: &Context,
    resource: &Arc<Resource>,
    mut object: Value,
) -> Result<(Value, StatusCode), Status> {
    let info = &context.info;
    set_namespace(resource, &info.namespace, &mut object)?;
    if meta::name(&object).is_empty() {
        meta::set_field(&mut object, "name", info.name.as_str());
    }
    if meta::name(&object) != info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&object),
            info.name
        )));
    }
    let version = meta::resource_version(&object).to_owned();
    let replace = |current: &Value| {
        check_uid(resource, current, &object)?;
        if version.is_empty() && !resource.unconditional_update {
            let message = "Invalid value: 0: must be specified for an update";
            return Err(invalid(resource, &object, "FieldValueInvalid", message, "metadata.resourceVersion"));
        }
        Ok(object.clone())
    };
    match modify(context, resource, replace).await {
        Err(status)
            if status.code == 404 && resource.create_on_update && info.subresource.is_empty() && version.is_empty() =>
        {
            Ok((create_object(context, resource, object).await?, StatusCode::CREATED))
        }
        result => Ok((result?, StatusCode::OK)),
    }
}

/// Reads, changes and writes an object. The change gets the current object in the resource's own form; if its result
/// names a version, that must be the current one, else a concurrent write only means another attempt.
pub(crate) async fn modify(
    context: &Context,
    resource: &Arc<Resource>,
    change: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Value, Status> {
    modify_as(context, resource, Ownership::Tracked, change).await
}

pub(crate) async fn modify_as(
    context: &Context,
    resource: &Arc<Resource>,
    ownership: Ownership,
    change: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Value, Status> {
    let info = &context.info;
    let key = resource.key(&info.namespace, &info.name);
    for _ in 0..ATTEMPTS_MAX {
        let entry = context.server.store.get(&key).await.map_err(store_failure)?;
        let entry = entry.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, &info.name))?;
        let (entry, mut current) = parse(entry)?;
        resource.from_stored(&mut current);
        let wanted = change(&current)?;
        let version = meta::resource_version(&wanted);
        if !version.is_empty() && version != meta::resource_version(&current) {
            return Err(Status::modified(&resource.group, &resource.plural, &info.name));
        }
        if let Some(written) = write_over(context, resource, &entry, &current, wanted, ownership).await? {
            return Ok(written);
        }
    }
    Err(Status::modified(&resource.group, &resource.plural, &info.name))
}

/// What replaces an object must be about this very one.
fn check_uid(resource: &Resource, current: &Value, wanted: &Value) -> Result<(), Status> {
    let (sent, found) = (meta::uid(wanted), meta::uid(current));
    if sent.is_empty() || sent == found {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {found}");
    Err(Status::conflict(&resource.group, &resource.plural, meta::name(current), why))
}

/// One attempt; `None` if somebody else wrote in between.
async fn write_over(
    context: &Context,
    resource: &Arc<Resource>,
    entry: &Entry,
    current: &Value,
    mut wanted: Value,
    ownership: Ownership,
) -> Result<Option<Value>, Status> {
    let info = &context.info;
    let dry_run = info.dry_run()?;
    let store = &*context.server.store;
    defaults::apply(resource, &mut wanted);
    let request = admission::Request::new(context, resource, Operation::Update, &info.subresource, Some(current));
    admission::mutate(&request, &mut wanted).await?;
    strategy::prepare_for_update(resource, &info.subresource, current, &mut wanted);
    object::set_revision(&mut wanted, entry.revision);
    let claims = match info.subresource.as_str() {
        "" => context.server.allocator.claim(store, resource, &mut wanted, Some(current)).await?,
        _ => Claims::default(),
    };
    let causes = validation::validate_update(resource, &info.subresource, current, &wanted);
    validation::check(resource, &wanted, causes)?;
    admission::validate(&request, &wanted).await?;
    let charges = admission::quota::charge(&request, &wanted).await?;
    if ownership == Ownership::Tracked {
        track(context, resource, Some(current), &mut wanted)?;
    }
    object::check_depth(&wanted)?;
    // A custom resource that is stored in another version is written anew even if nothing else changes.
    let is_stored_so = resource.custom.is_none() || entry.value == stored(resource, current);
    if is_stored_so && managed_fields::same_but_for_times(current, &wanted) {
        return Ok(Some(current.clone()));
    }
    if strategy::is_finished(resource, &wanted) {
        return delete::remove(context, resource, entry, &wanted, dry_run).await.map(|done| done.then_some(wanted));
    }
    if dry_run {
        return Ok(Some(wanted));
    }
    let value = stored(resource, &wanted);
    let put =
        Op::Put { key: entry.key.clone(), value, expect: Expect::Revision(entry.revision), expires: expiry(resource) };
    let mut ops = vec![put];
    ops.extend(claims.ops());
    ops.extend(charges.ops());
    match store.txn(ops).await {
        Ok(revision) => {
            object::set_revision(&mut wanted, revision);
            Ok(Some(wanted))
        }
        // The next attempt tells a client that named a version, and chooses another address where one was taken.
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(store_failure(error)),
    }
}

/// Records which manager set which fields.
fn track(context: &Context, resource: &Resource, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
    managed_fields::track(managed_fields::TrackUpdate {
        old,
        new,
        manager: &context.field_manager(),
        subresource: &context.info.subresource,
        api_version: &resource.api_version(),
        time: &control_api::schema::time::seconds(jiff::Timestamp::now()),
        message: body::message_of(resource)?,
    });
    Ok(())
}

pub(crate) fn stored(resource: &Resource, object: &Value) -> bytes::Bytes {
    if resource.is_served_as_stored() {
        return object::encode(object);
    }
    let mut object = object.clone();
    resource.to_stored(&mut object);
    object::encode(&object)
}

fn expiry(resource: &Resource) -> Option<u64> {
    let is_event = resource.storage.0.is_empty() && resource.storage.1 == "events";
    is_event.then(|| u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0) + EVENT_SECONDS)
}

/// The namespace of the URL holds; a body may repeat it.
fn set_namespace(resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let found = meta::namespace(object);
    if !resource.namespaced {
        // Bodies of namespaces name none, whatever their URL looks like.
        meta::set_field(object, "namespace", Value::Null);
        return Ok(());
    }
    if !found.is_empty() && found != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set_field(object, "namespace", namespace);
    Ok(())
}

pub(crate) fn invalid(resource: &Resource, object: &Value, reason: &str, message: &str, field: &str) -> Status {
    let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
    Status::invalid(&resource.group, &resource.kind, meta::name(object), vec![cause])
}

fn already_exists(resource: &Resource, name: &str) -> Status {
    Status::already_exists(&resource.group, &resource.plural, name)
}
