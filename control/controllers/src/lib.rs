//! Controllers: pure reconcile functions and the one runner that applies what they return.
//!
//! ```text
//! API server ──watch──► informer (one per kind, shared) ──keys──► queue (one per controller) ──► reconcile(key)
//!                            │ store: the last known objects                                        │
//!                            └──────────────────────────────── read ────────────────────────────────┘──► API calls
//! ```
//! Each controller's file holds a pure function from what is observed and wanted to what to do, and a thin part that calls
//! the API. Everything is level-triggered: a key says which object to look at, never what happened to it.

mod amount;
mod causes;
mod cron_job;
mod daemon_set;
mod deletions;
mod deployment;
mod disruption;
mod endpoint_mirror;
mod endpoint_slice;
mod endpoints;
mod events;
mod garbage;
mod hash;
mod informer;
mod job;
mod meta;
mod namespace;
mod node;
mod node_selector;
mod pod_control;
mod pod_garbage;
mod queue;
mod replica_set;
mod resource_quota;
mod revision;
mod service_account;
mod stateful_set;
mod taint;
mod trigger_time;

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ReplicationController, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::deletions::Deletions;
use crate::informer::Informer;

/// What the controllers must be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ranges from which each node gets its pods' addresses, IPv4 and IPv6.
    pub pod_cidrs: Vec<String>,
    /// The cluster's CA certificate, published to every namespace as `kube-root-ca.crt`.
    pub root_ca: PathBuf,
}

/// The shared view of the cluster that all controllers read.
struct Cluster {
    client: Client,
    config: Config,
    budgets: Informer<PodDisruptionBudget>,
    config_maps: Informer<ConfigMap>,
    cron_jobs: Informer<CronJob>,
    daemon_sets: Informer<DaemonSet>,
    deletions: Deletions,
    deployments: Informer<Deployment>,
    endpoints: Informer<Endpoints>,
    jobs: Informer<Job>,
    leases: Informer<Lease>,
    namespaces: Informer<Namespace>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    quotas: Informer<ResourceQuota>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    revisions: Informer<ControllerRevision>,
    service_accounts: Informer<ServiceAccount>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    stateful_sets: Informer<StatefulSet>,
}

/// Runs every controller until the token is cancelled.
///
/// # Errors
/// If a controller cannot start; failures of single objects are retried for ever.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let cluster = Arc::new(Cluster {
        budgets: Informer::start(Api::all(client.clone()), &mut tasks),
        config_maps: Informer::start_selected(
            Api::all(client.clone()),
            &format!("metadata.name={}", service_account::ROOT_CA),
            &mut tasks,
        ),
        cron_jobs: Informer::start(Api::all(client.clone()), &mut tasks),
        daemon_sets: Informer::start(Api::all(client.clone()), &mut tasks),
        deletions: Deletions::default(),
        deployments: Informer::start(Api::all(client.clone()), &mut tasks),
        endpoints: Informer::start(Api::all(client.clone()), &mut tasks),
        jobs: Informer::start(Api::all(client.clone()), &mut tasks),
        leases: Informer::start(Api::namespaced(client.clone(), node::LEASES), &mut tasks),
        namespaces: Informer::start(Api::all(client.clone()), &mut tasks),
        nodes: Informer::start(Api::all(client.clone()), &mut tasks),
        pods: Informer::start(Api::all(client.clone()), &mut tasks),
        quotas: Informer::start(Api::all(client.clone()), &mut tasks),
        replica_sets: Informer::start(Api::all(client.clone()), &mut tasks),
        replication_controllers: Informer::start(Api::all(client.clone()), &mut tasks),
        revisions: Informer::start(Api::all(client.clone()), &mut tasks),
        service_accounts: Informer::start(Api::all(client.clone()), &mut tasks),
        services: Informer::start(Api::all(client.clone()), &mut tasks),
        slices: Informer::start(Api::all(client.clone()), &mut tasks),
        stateful_sets: Informer::start(Api::all(client.clone()), &mut tasks),
        client,
        config,
    });
    tokio::select! {
        () = cluster.synced() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    tracing::info!("controllers started");
    cron_job::start(&cluster, &mut tasks);
    daemon_set::start(&cluster, &mut tasks);
    deployment::start(&cluster, &mut tasks);
    disruption::start(&cluster, &mut tasks);
    endpoint_mirror::start(&cluster, &mut tasks);
    endpoint_slice::start(&cluster, &mut tasks);
    endpoints::start(&cluster, &mut tasks);
    garbage::start(&cluster, &mut tasks);
    job::start(&cluster, &mut tasks);
    namespace::start(&cluster, &mut tasks);
    node::start(&cluster, &mut tasks)?;
    pod_garbage::start(&cluster, &mut tasks);
    replica_set::start::<ReplicaSet>(&cluster, &mut tasks);
    replica_set::start::<ReplicationController>(&cluster, &mut tasks);
    resource_quota::start(&cluster, &mut tasks);
    service_account::start(&cluster, &mut tasks)?;
    stateful_set::start(&cluster, &mut tasks);
    taint::start(&cluster, &mut tasks);
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = tasks.join_next() => anyhow::bail!("a controller task ended: {ended:?}"),
    }
}

impl Cluster {
    async fn synced(&self) {
        self.budgets.synced().await;
        self.config_maps.synced().await;
        self.cron_jobs.synced().await;
        self.daemon_sets.synced().await;
        self.deployments.synced().await;
        self.endpoints.synced().await;
        self.jobs.synced().await;
        self.leases.synced().await;
        self.namespaces.synced().await;
        self.nodes.synced().await;
        self.pods.synced().await;
        self.quotas.synced().await;
        self.replica_sets.synced().await;
        self.replication_controllers.synced().await;
        self.revisions.synced().await;
        self.service_accounts.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.stateful_sets.synced().await;
    }
}
