//! ResourceQuota: recounts what a namespace uses, when a quota changes and when something that it counts goes away.
//!
//! Owns: `status` of quotas, together with the API server, which charges it for every object it stores. A recount reads
//! the quota first and the objects after: a charge in between makes its write fail, so it never forgets an object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use control_api::quota::{self, Amounts, Source};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, ResourceExt, discovery};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::meta;
use crate::queue::{self, Key, Next, Queue};

/// What no event tells of, such as a new kind, is counted after this time at the latest.
const RECOUNT_EVERY: Duration = Duration::from_secs(300);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let counter = Arc::new(Counter { cluster: Arc::clone(cluster), kinds: Mutex::default() });
    let queue = queue::start("resourcequota", tasks, move |key| {
        let counter = Arc::clone(&counter);
        async move { counter.reconcile(&key).await }
    });
    let quotas = queue.clone();
    cluster.quotas.on_change(move |old, new| {
        // Charges change the status only, and need no recount.
        if let Some(quota) = new.filter(|new| !old.is_some_and(|old| old.spec == new.spec) || !is_counted(new)) {
            quotas.add(Key::of(quota));
        }
    });
    let (weak, pods) = (Arc::downgrade(cluster), queue.clone());
    cluster.pods.on_change(move |old, new| {
        if let (Some(cluster), Some(old), Some(new)) = (weak.upgrade(), old, new)
            && !meta::is_terminal(old)
            && meta::is_terminal(new)
        {
            recount(&cluster, &pods, &Source::new("", "pods"), &new.namespace().unwrap_or_default());
        }
    });
    let weak = Arc::downgrade(cluster);
    cluster.deletions.on_deletion(move |group, plural, namespace| {
        if let Some(cluster) = weak.upgrade() {
            recount(&cluster, &queue, &Source::new(group, plural), namespace);
        }
    });
}

/// The status is about the present spec, and has a figure for all of it that can be counted.
fn is_counted(quota: &ResourceQuota) -> bool {
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    quota.status.as_ref().is_some_and(|status| status.hard.as_ref() == wanted && status.used.is_some())
}

fn recount(cluster: &Cluster, queue: &Queue, source: &Source, namespace: &str) {
    let counts = |quota: &ResourceQuota| {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        quota::sources(&json!({"spec": {"hard": hard}})).contains(source)
    };
    for quota in cluster.quotas.filter(namespace, counts) {
        queue.add(Key::of(&*quota));
    }
}

struct Counter {
    cluster: Arc<Cluster>,
    kinds: Mutex<BTreeMap<Source, ApiResource>>,
}

impl Counter {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let api: Api<ResourceQuota> = Api::namespaced(self.cluster.client.clone(), &key.namespace);
        let Some(mut quota) = api.get_opt(&key.name).await? else { return Ok(Next::Await) };
        let value = serde_json::to_value(&quota)?;
        let mut used = Amounts::default();
        for source in quota::sources(&value) {
            if let Some(kind) = self.kind(&source).await? {
                let objects = self.list(&key.namespace, &source, &kind).await?;
                used.add(&quota::used_by(&value, &source, &objects, Timestamp::now()));
            }
        }
        let status = Some(serde_json::from_value(quota::status(&value, &used))?);
        if quota.status != status {
            quota.status = status;
            meta::ignore_missing(api.replace_status(&key.name, &PostParams::default(), &quota).await)
                .context("cannot write the status of a quota")?;
        }
        Ok(Next::After(RECOUNT_EVERY))
    }

    /// How a resource is asked for; none as long as the API server does not have it.
    async fn kind(&self, source: &Source) -> anyhow::Result<Option<ApiResource>> {
        if source.group.is_empty() && source.plural == "pods" {
            return Ok(Some(ApiResource::erase::<Pod>(&())));
        }
        if let Some(known) = self.kinds.lock().get(source) {
            return Ok(Some(known.clone()));
        }
        let group = match discovery::group(&self.cluster.client, &source.group).await {
            Err(kube::Error::Discovery(_)) => return Ok(None),
            group => group?,
        };
        let mut resources = group.recommended_resources().into_iter().map(|(resource, _)| resource);
        let Some(found) = resources.find(|resource| resource.plural == source.plural) else { return Ok(None) };
        self.kinds.lock().insert(source.clone(), found.clone());
        Ok(Some(found))
    }

    async fn list(&self, namespace: &str, source: &Source, kind: &ApiResource) -> anyhow::Result<Vec<Value>> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.cluster.client.clone(), namespace, kind);
        let every = ListParams::default();
        if source.is_weighed() {
            let objects = api.list(&every).await?.items;
            return Ok(objects.iter().map(serde_json::to_value).collect::<Result<_, _>>()?);
        }
        Ok(vec![Value::Null; api.list_metadata(&every).await?.items.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::is_counted;
    use k8s_openapi::api::core::v1::ResourceQuota;
    use serde_json::{Value, json};

    fn quota(status: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {}, "spec": {"hard": {"pods": "1"}}, "status": status})).unwrap()
    }

    #[test]
    fn a_status_of_another_spec_is_not_the_count() {
        assert!(!is_counted(&quota(json!({}))));
        assert!(!is_counted(&quota(json!({"hard": {"pods": "2"}, "used": {"pods": "0"}}))));
        assert!(is_counted(&quota(json!({"hard": {"pods": "1"}, "used": {"pods": "0"}}))));
    }
}
