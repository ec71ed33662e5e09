//! The Kubernetes API as data: schemas, protobuf, defaulting, validation, patches, tables. No I/O.

pub mod discovery;
pub mod meta;
pub mod names;
pub mod registry;
pub mod selector;
pub mod status;
