//! One watch a kind, shared by all controllers: a store of the last known objects and a call for every change.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::TryStreamExt;
use kube::runtime::reflector::{Lookup, ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

type Listener<K> = Box<dyn Fn(Option<&K>, Option<&K>) + Send + Sync>;

/// The objects of one kind and who listens to their changes.
pub(crate) struct Informer<K: Lookup + Clone + 'static>
where
    K::DynamicType: Hash + Eq,
{
    store: Store<K>,
    listeners: Arc<RwLock<Vec<Listener<K>>>>,
}

/// A kind that is known when the program is built.
pub(crate) trait Known:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Known for K where K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Known> Informer<K> {
    pub(crate) fn start(api: Api<K>, tasks: &mut JoinSet<anyhow::Result<()>>) -> Self {
        Self::start_with(api, watcher::Config::default(), tasks)
    }

    /// Only objects that a field selector selects.
    pub(crate) fn start_selected(api: Api<K>, fields: &str, tasks: &mut JoinSet<anyhow::Result<()>>) -> Self {
        Self::start_with(api, watcher::Config::default().fields(fields), tasks)
    }

    fn start_with(api: Api<K>, config: watcher::Config, tasks: &mut JoinSet<anyhow::Result<()>>) -> Self {
        let (store, mut writer) = store();
        let listeners: Arc<RwLock<Vec<Listener<K>>>> = Arc::default();
        let informer = Self { store: store.clone(), listeners: Arc::clone(&listeners) };
        tasks.spawn(async move {
            let mut events = std::pin::pin!(watch(api, config).default_backoff());
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => {
                        let before = known(&store, &event);
                        writer.apply_watcher_event(&event);
                        tell(&listeners.read(), &store, &event, before);
                    }
                    Ok(None) => anyhow::bail!("a watch of {} ended", K::kind(&())),
                    Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted"),
                }
            }
        });
        informer
    }

    pub(crate) async fn synced(&self) {
        // The writer lives in a task that never ends.
        let _ = self.store.wait_until_ready().await;
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectRef::<K>::new(name);
        self.store.get(&if namespace.is_empty() { key } else { key.within(namespace) })
    }

    /// The objects of a namespace for which `wanted` holds.
    pub(crate) fn filter(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace) && wanted(object))
    }

    /// All known objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Calls `listener` with the object before and after each change, and once for each object known already.
    pub(crate) fn on_change(&self, listener: impl Fn(Option<&K>, Option<&K>) + Send + Sync + 'static) {
        let mut listeners = self.listeners.write();
        for object in self.store.state() {
            listener(None, Some(&object));
        }
        listeners.push(Box::new(listener));
    }
}

/// What the store holds of the objects that an event is about, before the event is applied.
fn known<K>(store: &Store<K>, event: &Event<K>) -> HashMap<ObjectRef<K>, Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    match event {
        Event::Apply(object) | Event::Delete(object) => {
            let key = ObjectRef::from_obj(object);
            store.get(&key).map(|found| (key, found)).into_iter().collect()
        }
        Event::InitDone => store.state().into_iter().map(|object| (ObjectRef::from_obj(&*object), object)).collect(),
        Event::Init | Event::InitApply(_) => HashMap::new(),
    }
}

fn tell<K>(listeners: &[Listener<K>], store: &Store<K>, event: &Event<K>, mut before: HashMap<ObjectRef<K>, Arc<K>>)
where
    K: Resource<DynamicType = ()> + Clone,
{
    let call = |old: Option<&K>, new: Option<&K>| listeners.iter().for_each(|listener| listener(old, new));
    match event {
        Event::Apply(object) => {
            let old = before.remove(&ObjectRef::from_obj(object));
            call(old.as_deref(), Some(object));
        }
        Event::Delete(object) => call(Some(object), None),
        Event::InitDone => {
            for object in store.state() {
                let old = before.remove(&ObjectRef::from_obj(&*object));
                if old.as_ref().is_none_or(|old| old.meta().resource_version != object.meta().resource_version) {
                    call(old.as_deref(), Some(&object));
                }
            }
            before.values().for_each(|gone| call(Some(gone), None));
        }
        Event::Init | Event::InitApply(_) => {}
    }
}
