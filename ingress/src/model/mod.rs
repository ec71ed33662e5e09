//! What the gateway keeps of API objects: compact values without managed fields, labels or anything unused.

mod class;
mod health_check;
mod ingress;
mod key;
mod secret;
mod service;
mod slice;

pub(crate) use class::IngressClass;
pub(crate) use health_check::{HealthCheck, Probe};
pub(crate) use ingress::{Address, Backend, Ingress, Path, PathKind, Port, Tls};
pub(crate) use key::ObjectKey;
pub(crate) use secret::TlsSecret;
pub(crate) use service::{Family, Service};
pub(crate) use slice::Slice;

/// The compact form of an API object.
pub(crate) trait Model: Sized + Send + 'static {
    type Object;

    fn key(object: &Self::Object) -> ObjectKey;
    fn from_object(object: Self::Object) -> Self;
    fn id(&self) -> &ObjectKey;
}
