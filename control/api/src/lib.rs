//! The Kubernetes API as data: schemas, protobuf, defaulting, validation, patches, tables. No I/O.

pub mod custom;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod duration;
pub mod limits;
pub mod managed_fields;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod prune;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod registry;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod strict;
pub mod table;
pub mod validation;
pub mod value;

/// The Kubernetes release whose API this is.
pub const KUBERNETES_RELEASE: &str = "v1.36.1";
/// Its minor version alone.
pub const KUBERNETES_MINOR: &str = "36";
