//! The snapshot: everything that decides where a connection and a request go, as one immutable value.

use std::collections::HashMap;
use std::sync::Arc;

use ingress_route::{RequestView, Rule, Table, find};

use crate::model::ObjectKey;
use crate::policy::Policy;
use crate::tls::Identity;
use crate::upstream::Upstream;

/// Where a rule sends its requests.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) policy: Arc<Policy>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.upstream, &other.upstream) && self.policy == other.policy
    }
}

pub(crate) type Route = Rule<Target>;

/// The TLS configuration that a name needs: that of a Secret, or the default. It stays the same when the Secret's
/// content changes, so that a renewed certificate misdirects nobody.
pub(crate) type TlsKey = Option<Arc<ObjectKey>>;

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) routes: Table<Target>,
    /// Which Secret a host name needs: a routing table whose rules have no paths.
    pub(crate) certificates: Table<TlsKey>,
    /// Usable certificates. A Secret that is missing or garbage is not here.
    pub(crate) identities: Arc<HashMap<ObjectKey, Arc<Identity>>>,
    pub(crate) default_identity: Arc<Identity>,
}

impl Snapshot {
    pub(crate) fn empty(default_identity: Arc<Identity>) -> Self {
        Self {
            generation: 0,
            routes: Table::default(),
            certificates: Table::default(),
            identities: Arc::default(),
            default_identity,
        }
    }

    pub(crate) fn route(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        find(&self.routes, &RequestView { host, path })
    }

    pub(crate) fn tls_key(&self, host: &str) -> TlsKey {
        find(&self.certificates, &RequestView { host, path: "/" }).and_then(|rule| rule.target.clone())
    }

    pub(crate) fn identity(&self, key: &TlsKey) -> &Arc<Identity> {
        key.as_ref().and_then(|key| self.identities.get(&**key)).unwrap_or(&self.default_identity)
    }
}
