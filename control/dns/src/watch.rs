//! Watches of the API server, applied to the zone one object at a time.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::model::{ObjectKey, Service, Slice};
use crate::responder::Responder;
use crate::zone::Zone;

/// HTTP's code for a resource version that is too old.
const GONE: u16 = 410;

/// How the objects of a kind change a zone.
trait Kind: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    const NAME: &'static str;

    fn apply(self, zone: &mut Zone);
    fn delete(key: &ObjectKey, zone: &mut Zone);
}

impl Kind for core::Service {
    const NAME: &'static str = "service";

    fn apply(self, zone: &mut Zone) {
        zone.apply_service(Service::from_object(self));
    }

    fn delete(key: &ObjectKey, zone: &mut Zone) {
        zone.delete_service(key);
    }
}

impl Kind for discovery::EndpointSlice {
    const NAME: &'static str = "endpoint_slice";

    fn apply(self, zone: &mut Zone) {
        zone.apply_slice(Slice::from_object(self));
    }

    fn delete(key: &ObjectKey, zone: &mut Zone) {
        zone.delete_slice(key);
    }
}

impl Kind for core::Namespace {
    const NAME: &'static str = "namespace";

    fn apply(self, zone: &mut Zone) {
        zone.apply_namespace(&ObjectKey::of(&self.metadata).name);
    }

    fn delete(key: &ObjectKey, zone: &mut Zone) {
        zone.delete_namespace(&key.name);
    }
}

/// Keeps the zone in step with the API server for good, and says when it is complete for the first time.
///
/// # Errors
/// If a watch ends, which none does while the process lives.
pub(crate) async fn run(client: Client, responder: Arc<Responder>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let (listed, mut all_listed) = tokio::sync::mpsc::channel(1);
    let mut watches = JoinSet::new();
    watches.spawn(follow::<core::Service>(
        client.clone(),
        Arc::clone(&responder),
        Arc::clone(&metrics),
        listed.clone(),
    ));
    watches.spawn(follow::<discovery::EndpointSlice>(
        client.clone(),
        Arc::clone(&responder),
        Arc::clone(&metrics),
        listed.clone(),
    ));
    watches.spawn(follow::<core::Namespace>(client, Arc::clone(&responder), metrics, listed));
    // Each watch lets go of its sender after its first listing.
    let completed = async {
        all_listed.recv().await;
        responder.set_complete();
        tracing::info!("zone is complete");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = completed => Ok(()),
        ended = watches.join_next() => anyhow::bail!("a watch has ended: {ended:?}"),
    }
}

/// Watches one kind. A listing is applied as it comes; what it lacks goes at its end.
async fn follow<K: Kind>(
    client: Client,
    responder: Arc<Responder>,
    metrics: Arc<Metrics>,
    listed: tokio::sync::mpsc::Sender<()>,
) {
    let mut listed = Some(listed);
    let mut known = HashSet::new();
    let mut stale = HashSet::new();
    let mut events = pin!(watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => stale = known.clone(),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                let key = ObjectKey::of(object.meta());
                stale.remove(&key);
                known.insert(key);
                responder.change_zone(|zone| object.apply(zone));
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = ObjectKey::of(object.meta());
                known.remove(&key);
                responder.change_zone(|zone| K::delete(&key, zone));
            }
            Ok(watcher::Event::InitDone) => {
                for key in stale.drain() {
                    known.remove(&key);
                    responder.change_zone(|zone| K::delete(&key, zone));
                }
                listed = None;
            }
            // The server has forgotten our place: usual after a while, and a listing follows.
            Err(watcher::Error::WatchError(status)) if status.code == GONE => {
                tracing::debug!(kind = K::NAME, "watch expired");
            }
            Err(error) => {
                metrics.watch_errors.with_label_values(&[K::NAME]).inc();
                tracing::warn!(kind = K::NAME, %error, "watch failed");
            }
        }
    }
    drop(listed);
}
