//! What controllers do to pods: make, remove, adopt, release; and the wait until the informer has seen it (expectations),
//! so that a stale view never makes a pod twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::Cluster;
use crate::events::Events;
use crate::meta;
use crate::queue::Key;

/// Pods made or removed in one reconcile.
pub(crate) const BURST_MAX: usize = 500;
/// How soon a reconcile that came too early is tried again.
pub(crate) const EXPECTATION_POLL: Duration = Duration::from_millis(50);
/// An expectation older than this is given up: the pod has come and gone unseen.
const EXPECTATION_MAX: Duration = Duration::from_secs(10);

/// The hands of one controller.
pub(crate) struct PodControl {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) events: Events,
    expectations: Mutex<HashMap<Key, Vec<Expectation>>>,
}

/// A change that the informer must show before the next reconcile.
struct Expectation {
    pod: String,
    uid: String,
    /// Whether the pod should be there (made) or not (removed).
    present: bool,
    since: Instant,
}

impl PodControl {
    pub(crate) fn new(cluster: &Arc<Cluster>, controller: &str) -> Self {
        Self { cluster: Arc::clone(cluster), events: Events::new(cluster, controller), expectations: Mutex::default() }
    }

    /// Whether the informer shows all that was done for this key.
    pub(crate) fn is_caught_up(&self, key: &Key) -> bool {
        let mut all = self.expectations.lock();
        let Some(expectations) = all.get_mut(key) else { return true };
        expectations.retain(|one| {
            let found = self.cluster.pods.get(&key.namespace, &one.pod);
            let seen =
                found.is_some_and(|pod| meta::uid(&*pod) == one.uid && (one.present || !meta::is_deleting(&*pod)));
            seen != one.present && one.since.elapsed() < EXPECTATION_MAX
        });
        expectations.is_empty()
    }

    /// The object of this key is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.expectations.lock().remove(key);
    }

    fn expect(&self, key: &Key, pod: &str, uid: String, present: bool) {
        let expectation = Expectation { pod: pod.into(), uid, present, since: Instant::now() };
        self.expectations.lock().entry(key.clone()).or_default().push(expectation);
    }

    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    /// Makes pods in waves of one, two, four …: an owner whose pods are refused asks only a few times.
    pub(crate) async fn create_all<K>(&self, key: &Key, owner: &K, pods: Vec<Pod>) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        let (mut rest, mut wave) = (pods.as_slice(), 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(wave.min(rest.len()));
            let calls = now.iter().map(|pod| self.create(key, owner, pod));
            for result in futures::future::join_all(calls).await {
                result?;
            }
            (rest, wave) = (later, wave * 2);
        }
        Ok(())
    }

    pub(crate) async fn create<K>(&self, key: &Key, owner: &K, pod: &Pod) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        let made = match self.api(&key.namespace).create(&PostParams::default(), pod).await {
            Ok(made) => made,
            Err(error) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.events.warning(owner, "FailedCreate", Act::Create.failed(owner, name, &meta::said(&error)));
                return Err(error).context("cannot create a pod");
            }
        };
        self.expect(key, &made.name_any(), meta::uid(&made), true);
        self.events.normal(owner, "SuccessfulCreate", Act::Create.done(owner, &made.name_any()));
        Ok(())
    }

    /// Removes exactly this pod; another under its name is spared.
    pub(crate) async fn delete<K>(&self, key: &Key, owner: &K, pod: &Pod) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        let (name, uid) = (pod.name_any(), meta::uid(pod));
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(&key.namespace).delete(&name, &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => {
                self.events.warning(owner, "FailedDelete", Act::Delete.failed(owner, &name, &meta::said(&error)));
                Err(error).context("cannot delete a pod")
            }
            Ok(_) => {
                self.expect(key, &name, uid, false);
                self.events.normal(owner, "SuccessfulDelete", Act::Delete.done(owner, &name));
                Ok(())
            }
        }
    }

    pub(crate) async fn delete_all<K>(&self, key: &Key, owner: &K, pods: &[Arc<Pod>]) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        for pod in pods {
            self.delete(key, owner, pod).await?;
        }
        Ok(())
    }

    /// Makes `owner` the controller of pods that have none, and lets pods go that it should not have.
    pub(crate) async fn settle<K>(&self, owner: &K, claim: &Claim) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = ()>,
    {
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let reference = meta::controller_reference(owner);
        for pod in &claim.adopt {
            let patch = json!({"metadata": {"uid": meta::uid(&**pod), "ownerReferences": [&reference]}});
            self.patch(&namespace, pod, &patch).await?;
        }
        for pod in &claim.release {
            let drop = json!({"$patch": "delete", "uid": reference.uid});
            let patch = json!({"metadata": {"uid": meta::uid(&**pod), "ownerReferences": [drop]}});
            self.patch(&namespace, pod, &patch).await?;
        }
        Ok(())
    }

    /// A strategic merge patch; a pod that is gone needs none.
    pub(crate) async fn patch(&self, namespace: &str, pod: &Pod, patch: &serde_json::Value) -> anyhow::Result<()> {
        match self.api(namespace).patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }
}

/// What an event tells of; upstream's StatefulSets use words of their own.
#[derive(Debug, Clone, Copy)]
enum Act {
    Create,
    Delete,
}

impl Act {
    fn done<K: Resource<DynamicType = ()>>(self, owner: &K, pod: &str) -> String {
        let (word, Some(set)) = (self.word(), Self::set(owner)) else {
            return match self {
                Self::Create => format!("Created pod: {pod}"),
                Self::Delete => format!("Deleted pod: {pod}"),
            };
        };
        format!("{word} Pod {pod} in StatefulSet {set} successful")
    }

    fn failed<K: Resource<DynamicType = ()>>(self, owner: &K, pod: &str, error: &str) -> String {
        let (word, Some(set)) = (self.word(), Self::set(owner)) else {
            return match self {
                Self::Create => format!("Error creating: {error}"),
                Self::Delete => format!("Error deleting: {error}"),
            };
        };
        format!("{word} Pod {pod} in StatefulSet {set} failed error: {error}")
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    fn set<K: Resource<DynamicType = ()>>(owner: &K) -> Option<&str> {
        (K::kind(&()) == "StatefulSet").then_some(owner.meta().name.as_deref()?)
    }
}

/// An owner's pods: those it has or takes, and those it lets go.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub(crate) owned: Vec<Arc<Pod>>,
    /// Also in `owned`.
    pub(crate) adopt: Vec<Arc<Pod>>,
    pub(crate) release: Vec<Arc<Pod>>,
}

impl Claim {
    /// Sorts the pods of a namespace by what `owner` has to do with them; `may_adopt` says more than the selector does.
    pub(crate) fn of<K>(owner: &K, selector: &Selector, pods: Vec<Arc<Pod>>, may_adopt: impl Fn(&Pod) -> bool) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let (uid, is_deleting) = (meta::uid(owner), meta::is_deleting(owner));
        let mut claim = Self::default();
        for pod in pods {
            let controller = meta::controller_of(&pod.metadata).map(|found| found.uid.as_str());
            let matches = meta::matches(selector, pod.labels());
            match controller {
                Some(found) if found != uid => {}
                Some(_) if matches || is_deleting || meta::is_deleting(&*pod) => claim.owned.push(pod),
                Some(_) => claim.release.push(pod),
                None if matches && !is_deleting && is_active(&pod) && may_adopt(&pod) => {
                    claim.adopt.push(Arc::clone(&pod));
                    claim.owned.push(pod);
                }
                None => {}
            }
        }
        claim
    }
}

pub(crate) fn is_active(pod: &Pod) -> bool {
    !meta::is_terminal(pod) && !meta::is_deleting(pod)
}

/// A pod of this template with a generated name.
pub(crate) fn from_template<K>(owner: &K, template: &PodTemplateSpec) -> Pod
where
    K: Resource<DynamicType = ()>,
{
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", owner.meta().name.as_deref().unwrap_or_default())),
        namespace: owner.meta().namespace.clone(),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![meta::controller_reference(owner)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

#[cfg(test)]
mod tests {
    use super::Claim;
    use crate::meta;
    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use serde_json::json;
    use std::sync::Arc;

    fn pod(name: &str, label: &str, owner: Option<&str>) -> Arc<Pod> {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "x", "kind": "y", "name": "z", "uid": uid, "controller": true}]));
        let metadata = json!({"name": name, "uid": name, "labels": {"app": label}, "ownerReferences": owners});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn matching_orphans_are_adopted_and_strangers_released() {
        let owner: DaemonSet = serde_json::from_value(json!({"metadata": {"name": "a", "uid": "me"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {}}}))
        .unwrap();
        let selector = meta::selector(&owner.spec.as_ref().unwrap().selector).unwrap();
        let pods = vec![
            pod("mine", "a", Some("me")),
            pod("lost", "b", Some("me")),
            pod("orphan", "a", None),
            pod("other", "a", Some("you")),
            pod("foreign", "b", None),
        ];
        let claim = Claim::of(&owner, &selector, pods, |_| true);
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        assert_eq!(names(&claim.owned), ["mine", "orphan"]);
        assert_eq!(names(&claim.adopt), ["orphan"]);
        assert_eq!(names(&claim.release), ["lost"]);
    }
}
