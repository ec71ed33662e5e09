//! Garbage collection: objects whose owners are gone, and owners that wait for their dependents.
//!
//! One metadata watch for each deletable resource feeds a graph ([`graph`], pure); what the graph says is worth a look is
//! verified with live reads before anything is deleted, because a missing owner may only be an unseen one.

mod graph;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::TryStreamExt;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::garbage::graph::{Graph, Kind, Look, Object, OwnerRef, ResourceKey};
use crate::queue::{self, Key, Next, Queue};

/// How often new resources (custom ones) are looked for.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// Objects that nobody owns and that own nothing.
const IGNORED: &[&str] = &["events"];
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let collector = Arc::new(Collector {
        client: cluster.client.clone(),
        cluster: Arc::downgrade(cluster),
        graph: Mutex::default(),
    });
    let shared = Arc::clone(&collector);
    // Keys are uids: names come and go, and one uid is one object.
    let queue = queue::start("garbage", tasks, move |key| {
        let collector = Arc::clone(&shared);
        async move { collector.reconcile(&key.name).await }
    });
    tasks.spawn(async move { collector.watch_everything(queue).await });
}

struct Collector {
    client: Client,
    /// Told of what is gone.
    cluster: Weak<Cluster>,
    graph: Mutex<Graph>,
}

impl Collector {
    /// Starts a watch for every resource that can be listed, watched and deleted, now and when new ones appear.
    async fn watch_everything(self: Arc<Self>, queue: Queue) -> anyhow::Result<()> {
        let mut watched: BTreeMap<ResourceKey, tokio::task::AbortHandle> = BTreeMap::new();
        let mut watches = JoinSet::new();
        loop {
            match self.resources().await {
                Ok(found) => {
                    watched.retain(|key, handle| {
                        let stays = found.contains_key(key);
                        if !stays {
                            handle.abort();
                        }
                        stays
                    });
                    for (key, (resource, kind)) in found {
                        if let std::collections::btree_map::Entry::Vacant(free) = watched.entry(key.clone()) {
                            let watch = Arc::clone(&self).watch(key, resource, kind, queue.clone());
                            free.insert(watches.spawn(watch));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "discovery failed"),
            }
            tokio::time::sleep(DISCOVER_EVERY).await;
        }
    }

    async fn resources(&self) -> kube::Result<BTreeMap<ResourceKey, (ApiResource, Kind)>> {
        let discovery = Discovery::new(self.client.clone()).run().await?;
        let wanted = [verbs::LIST, verbs::WATCH, verbs::DELETE];
        let all = discovery.groups().flat_map(|group| group.recommended_resources());
        Ok(all
            .filter(|(resource, facts)| {
                wanted.iter().all(|verb| facts.supports_operation(verb)) && !IGNORED.contains(&resource.plural.as_str())
            })
            .map(|(resource, facts)| {
                let kind = Kind { namespaced: facts.scope == Scope::Namespaced };
                ((resource.group.clone(), resource.kind.clone()), (resource, kind))
            })
            .collect())
    }

    async fn watch(self: Arc<Self>, key: ResourceKey, resource: ApiResource, kind: Kind, queue: Queue) {
        self.graph.lock().add_resource(key.clone(), resource.clone(), kind);
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed = Vec::new();
        loop {
            match events.try_next().await {
                Ok(Some(Event::Apply(object))) => self.seen(&key, &object, &queue),
                Ok(Some(Event::Delete(object))) => {
                    self.gone(&object.metadata.uid.unwrap_or_default(), &queue);
                }
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(object))) => {
                    listed.push(object.metadata.uid.clone().unwrap_or_default());
                    self.seen(&key, &object, &queue);
                }
                Ok(Some(Event::InitDone)) => {
                    let missing = self.graph.lock().of_resource_except(&key, &listed);
                    missing.iter().for_each(|uid| self.gone(uid, &queue));
                }
                Ok(None) => return,
                Err(error) => tracing::debug!(resource = resource.plural, %error, "metadata watch interrupted"),
            }
        }
    }

    fn seen(&self, key: &ResourceKey, object: &PartialObjectMeta<DynamicObject>, queue: &Queue) {
        let meta = &object.metadata;
        let owners = meta.owner_references.iter().flatten().map(|owner| OwnerRef {
            uid: owner.uid.clone(),
            group: owner.api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            blocks: owner.block_owner_deletion.unwrap_or(false),
        });
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|found| found == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        let looks = self.graph.lock().put(Object {
            uid: meta.uid.clone().unwrap_or_default(),
            resource: key.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: owners.collect(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        });
        looks.into_iter().for_each(|uid| queue.add(Key::new("", uid)));
    }

    fn gone(&self, uid: &str, queue: &Queue) {
        let mut graph = self.graph.lock();
        let gone =
            graph.object(uid).and_then(|object| Some((graph.resource(&object.resource)?.0, object.namespace.clone())));
        let looks = graph.remove(uid);
        drop(graph);
        if let (Some((resource, namespace)), Some(cluster)) = (gone, self.cluster.upgrade()) {
            cluster.deletions.tell(&resource.group, &resource.plural, &namespace);
        }
        looks.into_iter().for_each(|uid| queue.add(Key::new("", uid)));
    }

    fn api(&self, object: &Object) -> Option<Api<DynamicObject>> {
        let (resource, kind) = self.graph.lock().resource(&object.resource)?;
        Some(if kind.namespaced {
            Api::namespaced_with(self.client.clone(), &object.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        })
    }

    async fn reconcile(&self, uid: &str) -> anyhow::Result<Next> {
        let look = self.graph.lock().look(uid);
        let Some((object, look)) = look else { return Ok(Next::Await) };
        match look {
            Look::Orphan { dependents } => {
                for dependent in &dependents {
                    self.drop_owners(dependent, &[uid.to_owned()]).await?;
                }
                self.drop_finalizer(&object, ORPHAN).await?;
            }
            Look::Foreground { dependents, blocked } => {
                for dependent in &dependents {
                    self.delete(dependent, PropagationPolicy::Foreground).await?;
                }
                if !blocked {
                    self.drop_finalizer(&object, FOREGROUND).await?;
                }
            }
            Look::Owners { known, unknown } => self.check_owners(&object, known, &unknown).await?,
        }
        Ok(Next::Await)
    }

    /// Deletes an object none of whose owners lives; strips the dead ones where some still do.
    async fn check_owners(&self, object: &Object, known: usize, unknown: &[OwnerRef]) -> anyhow::Result<()> {
        let mut living = known;
        let mut dead = Vec::new();
        for owner in unknown {
            if self.lives(object, owner).await? { living += 1 } else { dead.push(owner.uid.clone()) }
        }
        if dead.is_empty() {
            Ok(())
        } else if living == 0 {
            self.delete(object, PropagationPolicy::Background).await
        } else {
            self.drop_owners(object, &dead).await
        }
    }

    /// Asks the API server itself whether an owner exists. An owner of an unknown kind counts as alive.
    async fn lives(&self, object: &Object, owner: &OwnerRef) -> anyhow::Result<bool> {
        let found = self.graph.lock().resource(&(owner.group.clone(), owner.kind.clone()));
        let Some((resource, kind)) = found else { return Ok(true) };
        let api: Api<DynamicObject> = if kind.namespaced {
            Api::namespaced_with(self.client.clone(), &object.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
    }

    async fn delete(&self, object: &Object, policy: PropagationPolicy) -> anyhow::Result<()> {
        let Some(api) = self.api(object) else { return Ok(()) };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(object.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        ignore_gone(api.delete(&object.name, &params).await.map(drop))
    }

    async fn drop_owners(&self, object: &Object, dead: &[String]) -> anyhow::Result<()> {
        let Some(api) = self.api(object) else { return Ok(()) };
        let Some(mut live) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        if live.metadata.uid.as_deref() != Some(&object.uid) {
            return Ok(());
        }
        let owners = live.metadata.owner_references.take().unwrap_or_default();
        let rest: Vec<_> = owners.into_iter().filter(|owner| !dead.contains(&owner.uid)).collect();
        let patch = json!({"metadata": {
            "uid": object.uid, "resourceVersion": live.metadata.resource_version, "ownerReferences": rest}});
        ignore_gone(api.patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop))
    }

    async fn drop_finalizer(&self, object: &Object, finalizer: &str) -> anyhow::Result<()> {
        let Some(api) = self.api(object) else { return Ok(()) };
        let Some(live) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        let finalizers = live.metadata.finalizers.unwrap_or_default();
        let rest: Vec<_> = finalizers.iter().filter(|found| *found != finalizer).collect();
        if rest.len() == finalizers.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": object.uid, "resourceVersion": live.metadata.resource_version, "finalizers": rest}});
        ignore_gone(api.patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop))
    }
}

/// What is gone, or another object under the same name, needs no more work.
fn ignore_gone(result: kube::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result?),
    }
}
