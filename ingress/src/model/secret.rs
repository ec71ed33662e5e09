//! Secret: the two PEM texts of a TLS secret.

use std::fmt;

use k8s_openapi::api::core::v1 as core;

use super::{Model, ObjectKey};

const TLS_TYPE: &str = "kubernetes.io/tls";

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsSecret {
    pub(crate) key: ObjectKey,
    /// Whether its type is `kubernetes.io/tls`.
    pub(crate) is_tls: bool,
    pub(crate) certificate: Vec<u8>,
    pub(crate) private_key: Vec<u8>,
}

impl fmt::Debug for TlsSecret {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSecret").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Model for TlsSecret {
    type Object = core::Secret;

    fn id(&self) -> &ObjectKey {
        &self.key
    }

    fn key(object: &Self::Object) -> ObjectKey {
        ObjectKey::of(&object.metadata)
    }

    fn from_object(object: Self::Object) -> Self {
        let mut data = object.data.unwrap_or_default();
        let mut take = |name| data.remove(name).map(|bytes| bytes.0).unwrap_or_default();
        Self {
            key: ObjectKey::of(&object.metadata),
            is_tls: object.type_.as_deref() == Some(TLS_TYPE),
            certificate: take("tls.crt"),
            private_key: take("tls.key"),
        }
    }
}
