//! CronJob: a Job whenever the schedule says so.
//!
//! Owns: jobs it controls and the cron job's status. [`plan`] decides, this file looks up and calls.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use control_api::schedule::Schedule;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::cron_job::plan::plan;
use crate::events::Events;
use crate::meta;
use crate::queue::{self, Key, Next};

const KIND: &str = "CronJob";
/// A look again falls just behind the time that is due.
const SLACK: Duration = Duration::from_millis(100);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let controller =
        Arc::new(Controller { cluster: Arc::clone(cluster), events: Events::new(cluster, "cronjob-controller") });
    let queue = queue::start("cronjob", tasks, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    causes::itself(&cluster.cron_jobs, &queue);
    causes::controlled(&cluster.jobs, KIND, &queue);
}

struct Controller {
    cluster: Arc<Cluster>,
    events: Events,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let Some(cron) = self.cluster.cron_jobs.get(&key.namespace, &key.name) else { return Ok(Next::Await) };
        let spec = &cron.spec;
        let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                self.events.warning(
                    &*cron,
                    "UnparseableSchedule",
                    format!("unparseable schedule {:?}: {error}", spec.schedule),
                );
                return Ok(Next::Await);
            }
        };
        let uid = meta::uid(&*cron);
        let ours = |job: &Job| meta::controller_of(&job.metadata).is_some_and(|owner| owner.uid == uid);
        let jobs = self.cluster.jobs.filter(&key.namespace, ours);
        let plan = plan(&cron, &schedule, &jobs, Timestamp::now());
        for job in &plan.delete {
            self.delete(&cron, job).await?;
        }
        if let Some(job) = &plan.create {
            self.create(&cron, job).await?;
        }
        self.write_status(&cron, plan.status).await?;
        for (reason, note) in plan.news {
            match reason {
                "SawCompletedJob" | "JobAlreadyActive" => self.events.normal(&*cron, reason, note),
                _ => self.events.warning(&*cron, reason, note),
            }
        }
        Ok(plan.look_again.map_or(Next::Await, |wait| Next::After(wait.unsigned_abs() + SLACK)))
    }

    /// A job that is there already was made by an earlier try.
    async fn create(&self, cron: &CronJob, job: &Job) -> anyhow::Result<()> {
        match self.jobs(cron).create(&PostParams::default(), job).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            // Nothing can be made in a namespace that goes away.
            Err(kube::Error::Api(status)) if status.message.contains("is being terminated") => Ok(()),
            Err(error) => {
                self.events.warning(cron, "FailedCreate", format!("Error creating job: {}", meta::said(&error)));
                Err(error).context("cannot create a job")
            }
            Ok(made) => {
                self.events.normal(cron, "SuccessfulCreate", format!("Created job {}", made.name_any()));
                Ok(())
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> anyhow::Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(meta::uid(job)), resource_version: None }),
            ..DeleteParams::default()
        };
        meta::ignore_missing(self.jobs(cron).delete(&job.name_any(), &params).await)?;
        self.events.normal(cron, "SuccessfulDelete", format!("Deleted job {}", job.name_any()));
        Ok(())
    }

    fn jobs(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.cluster.client.clone(), &cron.namespace().unwrap_or_default())
    }

    async fn write_status(&self, cron: &CronJob, status: CronJobStatus) -> anyhow::Result<()> {
        if cron.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<CronJob> = Api::namespaced(self.cluster.client.clone(), &cron.namespace().unwrap_or_default());
        let mut new = cron.clone();
        new.status = Some(status);
        meta::ignore_missing(api.replace_status(&cron.name_any(), &PostParams::default(), &new).await)
    }
}
