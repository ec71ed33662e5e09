//! What all requests of one server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use control_api::registry::{Registry, Resource};
use control_api::status::Status;
use control_store::{Entry, Error, Store};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::admission::quota::Turns;
use crate::allocation::Allocator;
use crate::authn::token::Tokens;
use crate::authz::Authorizer;
use crate::config::Config;
use crate::definitions::Progress;
use crate::kubelet::Kubelet;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::{body, object};

pub(crate) struct Server {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: ArcSwap<Registry>,
    /// Told when another registry is in force.
    pub(crate) registry_changes: watch::Sender<()>,
    pub(crate) definitions: Progress,
    pub(crate) tokens: Tokens,
    pub(crate) authorizer: Authorizer,
    pub(crate) allocator: Allocator,
    pub(crate) turns: Turns,
    pub(crate) kubelet: Option<Kubelet>,
    pub(crate) openapi: OpenApi,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) in_flight: Semaphore,
    pub(crate) long_running: Arc<Semaphore>,
    /// Room for request bodies.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) advertised: Advertised,
    /// Cancelled when the server should end; long-running requests end then.
    pub(crate) shutdown: CancellationToken,
    ready: AtomicBool,
}

/// Where clients in the cluster find this server.
#[derive(Debug, Clone)]
pub(crate) struct Advertised {
    pub(crate) addresses: Vec<std::net::IpAddr>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn new(config: &Config, shutdown: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let registry = Registry::builtin();
        Ok(Arc::new(Self {
            store: Arc::clone(&config.store),
            tokens: Tokens::load(&config.service_accounts)?,
            authorizer: Authorizer::default(),
            allocator: Allocator::new(&config.service_cidrs)?,
            turns: Turns::default(),
            kubelet: config.kubelet.as_ref().map(Kubelet::new).transpose()?,
            openapi: OpenApi::default(),
            metrics: Metrics::new()?,
            in_flight: Semaphore::new(config.limits.in_flight),
            long_running: Arc::new(Semaphore::new(config.limits.long_running)),
            bodies: Arc::new(Semaphore::new(body::room(config.limits.bodies_bytes))),
            limits: config.limits.clone(),
            advertised: Advertised { addresses: config.advertise_addresses.clone(), port: config.advertise_port },
            registry: ArcSwap::from_pointee(registry),
            registry_changes: watch::Sender::new(()),
            definitions: Progress::default(),
            shutdown,
            ready: AtomicBool::new(false),
        }))
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.shutdown.is_cancelled()
    }

    /// Puts a registry in force as a whole: requests go on with the one that they began with.
    pub(crate) fn publish(&self, registry: Registry) {
        self.registry.store(Arc::new(registry));
        self.registry_changes.send_replace(());
    }

    /// Whether a resource is still served in this very form.
    pub(crate) fn still_serves(&self, resource: &Arc<Resource>) -> bool {
        let registry = self.registry.load();
        let found = registry.get(&resource.group, &resource.version, &resource.plural);
        let kind = |resource: &Arc<Resource>| resource.custom.as_ref().map(Arc::as_ptr);
        found.is_some_and(|found| kind(found) == kind(resource))
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.registry.load().get(group, version, plural).cloned()
    }

    /// A built-in resource of version v1.
    pub(crate) fn builtin(&self, group: &str, plural: &str) -> Result<Arc<Resource>, Status> {
        let missing = || Status::internal(format!("resource {plural} of group {group:?} is not registered"));
        self.resource(group, "v1", plural).ok_or_else(missing)
    }

    /// The newest version of an object, as a value in its stored form.
    pub(crate) async fn read(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Entry, Value)>, Status> {
        let entry = self.store.get(&resource.key(namespace, name)).await.map_err(store_failure)?;
        entry.map(parse).transpose()
    }
}

/// Pairs an entry with its object.
pub(crate) fn parse(entry: Entry) -> Result<(Entry, Value), Status> {
    let object = object::decode(&entry.value, entry.revision)
        .ok_or_else(|| Status::internal(format!("stored object {} is not JSON", entry.key)))?;
    Ok((entry, object))
}

/// Failures of the store that no request can cause or mend.
pub(crate) fn store_failure(error: Error) -> Status {
    match error {
        Error::TooLarge { size, max, .. } => {
            Status::too_large(format!("Request entity too large: limit is {max}, the object has {size} bytes"))
        }
        // 507 has no upstream reason; etcd's "database space exceeded" is a plain 500 there, which says less.
        Error::Full => Status::new(507, "InsufficientStorage", error.to_string()),
        error => {
            tracing::error!(%error, "store request failed");
            Status::internal(error.to_string())
        }
    }
}
