//! What the server keeps of API objects: compact values, in the lower case that DNS compares in.

mod service;
mod slice;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use service::{Service, ServiceKind};
pub use slice::{Endpoint, Slice};

/// An object's namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl ObjectKey {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

/// A port of a Service or of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Empty for the one port that may go without a name.
    pub name: Box<str>,
    /// Lower case: `tcp`, `udp`, `sctp`.
    pub protocol: Box<str>,
    pub number: u16,
}

impl Port {
    #[must_use]
    pub fn new(name: &str, protocol: &str, number: u16) -> Self {
        Self { name: name.to_ascii_lowercase().into(), protocol: protocol.to_ascii_lowercase().into(), number }
    }
}
