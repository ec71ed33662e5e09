//! The Kubernetes API as data: schemas, protobuf, defaulting, validation, patches, tables. No I/O.

pub mod status;
