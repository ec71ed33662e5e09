//! Job: pods until enough of them have succeeded.
//!
//! Owns: pods it controls with the finalizer that keeps them until they are counted, and the job's status. [`plan`]
//! decides, this file looks up and calls.

mod indexes;
mod plan;
mod pods;
mod verdict;

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::job::plan::plan;
use crate::meta;
use crate::pod_control::{Claim, EXPECTATION_POLL, PodControl};
use crate::queue::{self, Key, Next};

const KIND: &str = "Job";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let controller = Arc::new(Controller { pods: PodControl::new(cluster, "job-controller") });
    let queue = queue::start("job", tasks, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    causes::itself(&cluster.jobs, &queue);
    causes::pods_of(cluster, KIND, |cluster| &cluster.jobs, adopts, &queue);
}

fn adopts(job: &Job, pod: &Pod) -> bool {
    causes::adopts(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()), pod)
}

struct Controller {
    pods: PodControl,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let cluster = &self.pods.cluster;
        let Some(job) = cluster.jobs.get(&key.namespace, &key.name) else {
            self.pods.forget(key);
            return self.release_orphans(key, "").await;
        };
        let spec = job.spec.as_ref().context("a Job without a spec")?;
        if spec.managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Next::Await);
        }
        self.release_orphans(key, &meta::uid(&*job)).await?;
        if !self.pods.is_caught_up(key) {
            return Ok(Next::After(EXPECTATION_POLL));
        }
        let selector = meta::selector(spec.selector.as_ref().context("a Job without a selector")?)?;
        let claim = Claim::of(&*job, &selector, cluster.pods.filter(&key.namespace, |_| true), |_| true);
        self.pods.settle(&*job, &claim).await?;
        let plan = plan(&job, &claim.owned, Timestamp::now());
        if plan.expire && !meta::is_deleting(&*job) {
            self.expire(&job).await?;
            return Ok(Next::Await);
        }
        // The counts are written before a pod may vanish, and a write on an old view fails here, before anything is done.
        self.write_status(&job, plan.status).await?;
        if let Some((reason, message)) = plan.news {
            self.tell(&job, reason, message);
        }
        let shrinking = plan.delete.iter().filter(|_| plan.is_shrinking);
        for pod in plan.let_go.iter().chain(shrinking) {
            self.drop_finalizer(key, pod).await?;
        }
        self.pods.delete_all(key, &*job, &plan.delete).await?;
        self.pods.create_all(key, &*job, plan.create).await?;
        Ok(plan.look_again.map_or(Next::Await, |wait| Next::After(wait.unsigned_abs())))
    }

    fn tell(&self, job: &Job, reason: &str, message: String) {
        match reason {
            "Completed" | "Suspended" | "Resumed" => self.pods.events.normal(job, reason, message),
            _ => self.pods.events.warning(job, reason, message),
        }
    }

    /// Pods of a job that is gone, or of another of its name, wait for nobody.
    async fn release_orphans(&self, key: &Key, living: &str) -> anyhow::Result<Next> {
        let is_orphan = |pod: &Pod| {
            let owner = meta::controller_of(&pod.metadata);
            let was_ours = owner.is_some_and(|one| one.kind == KIND && one.name == key.name && one.uid != living);
            was_ours && pods::has_finalizer(pod)
        };
        for pod in self.pods.cluster.pods.filter(&key.namespace, is_orphan) {
            self.drop_finalizer(key, &pod).await?;
        }
        Ok(Next::Await)
    }

    async fn drop_finalizer(&self, key: &Key, pod: &Pod) -> anyhow::Result<()> {
        let drop = json!({"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [pods::FINALIZER]});
        self.pods.patch(&key.namespace, pod, &json!({"metadata": drop})).await
    }

    async fn expire(&self, job: &Job) -> anyhow::Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: Some(meta::uid(job)), resource_version: None }),
            ..DeleteParams::default()
        };
        meta::ignore_missing(self.api(job).delete(&job.name_any(), &params).await)
    }

    async fn write_status(&self, job: &Job, status: JobStatus) -> anyhow::Result<()> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut new = job.clone();
        new.status = Some(status);
        meta::ignore_missing(self.api(job).replace_status(&job.name_any(), &PostParams::default(), &new).await)
    }

    fn api(&self, job: &Job) -> Api<Job> {
        Api::namespaced(self.pods.cluster.client.clone(), &job.namespace().unwrap_or_default())
    }
}
