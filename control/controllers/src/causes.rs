//! What makes a controller look at an object again: a change of the object, of what it controls, of pods it selects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use crate::Cluster;
use crate::informer::{Informer, Known};
use crate::meta;
use crate::queue::{Key, Queue};

/// Looks again at every object that changes.
pub(crate) fn itself<K: Known>(objects: &Informer<K>, queue: &Queue) {
    let queue = queue.clone();
    objects.on_change(move |old, new| {
        if let Some(object) = new.or(old) {
            queue.add(Key::of(object));
        }
    });
}

/// Looks again at the controller, of this kind, of every object that changes.
pub(crate) fn controlled<C: Known>(objects: &Informer<C>, kind: &'static str, queue: &Queue) {
    let queue = queue.clone();
    objects.on_change(move |old, new| {
        for object in [old, new].into_iter().flatten() {
            if let Some(name) = meta::controller_name(object.meta(), kind) {
                queue.add(Key::new(object.namespace().unwrap_or_default(), name));
            }
        }
    });
}

/// Looks again at the controller of every pod that changes, or at all that could adopt it if it has none.
pub(crate) fn pods_of<K: Known>(
    cluster: &Arc<Cluster>,
    kind: &'static str,
    owners: fn(&Cluster) -> &Informer<K>,
    adopts: fn(&K, &Pod) -> bool,
    queue: &Queue,
) {
    controlled(&cluster.pods, kind, queue);
    let (weak, queue) = (Arc::downgrade(cluster), queue.clone());
    cluster.pods.on_change(move |old, new| {
        let Some(cluster) = weak.upgrade() else { return };
        for pod in [old, new].into_iter().flatten().filter(|pod| meta::controller_of(&pod.metadata).is_none()) {
            let namespace = pod.namespace().unwrap_or_default();
            owners(&cluster)
                .filter(&namespace, |owner| adopts(owner, pod))
                .iter()
                .for_each(|owner| queue.add(Key::of(&**owner)));
        }
    });
}

/// Looks again at everything that selects a pod before or after its change.
pub(crate) fn selected_pods<K: Known>(
    cluster: &Arc<Cluster>,
    selecting: fn(&Cluster) -> &Informer<K>,
    selects: fn(&K, &Pod) -> bool,
    queue: &Queue,
) {
    let (weak, queue) = (Arc::downgrade(cluster), queue.clone());
    cluster.pods.on_change(move |old, new| {
        let (Some(cluster), Some(pod)) = (weak.upgrade(), new.or(old)) else { return };
        let matches = |object: &K| [old, new].into_iter().flatten().any(|pod| selects(object, pod));
        for object in selecting(&cluster).filter(&pod.namespace().unwrap_or_default(), matches) {
            queue.add(Key::of(&*object));
        }
    });
}

/// Whether a workload's selector, which must require something, is true of a pod.
pub(crate) fn adopts(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    let selector = selector.and_then(|selector| meta::selector(selector).ok());
    selector.is_some_and(|selector| meta::matches(&selector, pod.labels()))
}
