//! Objects in the forms that clients ask for: whole, as a Table, or metadata only.

use control_api::registry::Resource;
use control_api::status::Status;
use control_api::table::{self, IncludeObject, TableOptions};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::handler::Context;
use crate::negotiate::{Form, Wanted};
use crate::object;
use crate::reply::{self, Reply};

/// How rows of a Table carry their objects (`includeObject`).
pub(crate) fn include_object(context: &Context) -> Result<IncludeObject, Status> {
    IncludeObject::parse(context.info.query.get("includeObject").unwrap_or_default())
}

fn options<'a>(context: &Context, version: &'a str) -> Result<TableOptions<'a>, Status> {
    Ok(TableOptions { version, include: include_object(context)?, with_columns: true, now: jiff::Timestamp::now() })
}

/// One object in the wanted form.
pub(crate) fn one(context: &Context, resource: &Resource, object: Value, wanted: Wanted, code: StatusCode) -> Reply {
    let shaped = match wanted.form {
        Form::Object => object,
        Form::Metadata => table::partial(&object, "v1"),
        Form::Table(version) => table::table_of_one(resource, &object, options(context, version)?),
    };
    reply::value(code, &shaped, wanted)
}

/// A list that had to be parsed, in the wanted form.
pub(crate) fn many(
    context: &Context,
    resource: &Resource,
    objects: Vec<Value>,
    metadata: Map<String, Value>,
    wanted: Wanted,
) -> Reply {
    let list = match wanted.form {
        Form::Table(version) => table::table(resource, &objects, metadata.into(), options(context, version)?),
        Form::Metadata => table::partial_list(&objects, metadata.into(), "v1"),
        Form::Object => json!({
            "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": objects,
        }),
    };
    reply::value(StatusCode::OK, &list, wanted)
}

/// Parses a stored object into the resource's own form.
pub(crate) fn parse(resource: &Resource, key: &str, stored: &[u8], revision: u64) -> Result<Value, Status> {
    let mut object =
        object::decode(stored, revision).ok_or_else(|| Status::internal(format!("stored object {key} is not JSON")))?;
    resource.from_stored(&mut object);
    Ok(object)
}
