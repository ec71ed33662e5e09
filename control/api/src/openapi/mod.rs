//! OpenAPI v3: one document per group and version, and the index that names them.
//!
//! `kubectl` reads them to explain types, to merge on the client side, and to see that the server validates fields itself
//! (the `fieldValidation` parameter of PATCH operations). Custom resources bring their schemas and descriptions along.

mod custom;
mod descriptions;
mod paths;
mod schemas;
pub mod swagger;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

pub use descriptions::Descriptions;
use serde_json::{Map, Value, json};

use crate::registry::Registry;

/// The release whose API this is.
const API_RELEASE: &str = crate::KUBERNETES_RELEASE;

/// Where a group and version are served, without a leading slash: `api/v1` or `apis/apps/v1`.
#[must_use]
pub fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// What tells one document from another; clients cache documents by it.
#[must_use]
pub fn hash(document: &[u8]) -> String {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        document.hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016X}{:016X}", half(0), half(1))
}

/// `/openapi/v3`: the path and hash of every document.
#[must_use]
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let entry = |(path, hash): (&str, &str)| {
        (path.to_owned(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
    };
    json!({"paths": documents.into_iter().map(entry).collect::<Map<String, Value>>()})
}

/// `/openapi/v3/…`: the types and operations of the resources of one group and version.
#[must_use]
pub fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let descriptions = Descriptions::get();
    let mut schemas = schemas::Schemas::new(group, version, &descriptions);
    let mut paths = Map::new();
    for resource in registry.iter().filter(|resource| resource.group == group && resource.version == version) {
        if let Some(custom) = &resource.custom {
            schemas.custom(resource, custom);
        }
        paths::of_resource(resource, &mut schemas, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": API_RELEASE},
        "paths": paths,
        "components": {"schemas": schemas.finish()},
    })
}

#[cfg(test)]
mod tests;
