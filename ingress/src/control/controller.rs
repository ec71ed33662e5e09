//! The loop: changes in, snapshots out, and the things to do handed to those who do them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::change::{Change, Delta};
use super::class::ClassPolicy;
use super::event::{self, Report};
use super::external::ExternalNames;
use super::health::{self, Checked};
use super::names::Names;
use super::reader::Reader;
use super::secrets::Secrets;
use super::source::Source;
use super::status::{self, StatusWrite};
use super::world::{Counts, Outcome, World};
use crate::model::{Address, Model, ObjectKey};
use crate::policy::Policy;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::tls::{Identity, TlsPolicy};

/// Changes that wait; more make the watches wait.
const QUEUE_LEN: usize = 1024;
/// Changes to take in before a snapshot is due, however many wait.
const BATCH_MAX: usize = 4096;
const TLS_SECRETS: &str = "type=kubernetes.io/tls";

/// What the control side is told at start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) class: ClassPolicy,
    pub(crate) published: Vec<Address>,
    pub(crate) default_certificate: Option<ObjectKey>,
    pub(crate) policy: Policy,
    pub(crate) external: ExternalNames,
}

/// Watches and publishes for good.
///
/// # Errors
/// If the watches end, which they do not while the process lives.
pub(crate) async fn run(
    client: Client,
    settings: Settings,
    tls: TlsPolicy,
    self_signed: Arc<Identity>,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let (sender, mut changes) = mpsc::channel(QUEUE_LEN);
    let secrets = Secrets::new(tls, settings.default_certificate.as_ref());
    let controller = settings.class.controller.clone();
    let mut world = World::new(settings, secrets, self_signed);
    let hands = Hands::new(&client, &controller, sender.clone(), &shared);
    let watches = Watches { client, changes: sender, shared: Arc::clone(&shared) };
    watches.start();
    let mut secrets_watched = false;
    loop {
        let first = changes.recv().await.context("every watch has ended")?;
        let started = Instant::now();
        world.apply(first);
        for change in std::iter::from_fn(|| changes.try_recv().ok()).take(BATCH_MAX) {
            world.apply(change);
        }
        if !secrets_watched && world.ready_for_secrets() {
            watches.start_secrets();
            secrets_watched = true;
        }
        if world.is_synced() {
            let outcome = world.publish(&mut || rand::random::<u32>() as usize);
            hands.act(outcome, started, &world);
        }
    }
}

/// Starts the watches.
struct Watches {
    client: Client,
    changes: mpsc::Sender<Change>,
    shared: Arc<Shared>,
}

impl Watches {
    fn start(&self) {
        self.spawn("ingress", None, Change::Ingress);
        self.spawn("ingress_class", None, Change::Class);
        self.spawn("service", None, Change::Service);
        self.spawn("endpoint_slice", None, Change::Slice);
    }

    fn start_secrets(&self) {
        self.spawn("secret", Some(TLS_SECRETS), Change::Secret);
    }

    fn spawn<M>(&self, kind: &'static str, field_selector: Option<&'static str>, change: fn(Delta<M>) -> Change)
    where
        M: Model,
        M::Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (changes, shared) = (self.changes.clone(), Arc::clone(&self.shared));
        let source = Source { api: Api::all(self.client.clone()), kind, field_selector, change, changes, shared };
        tokio::spawn(source.run());
    }
}

/// Does what an outcome asks for.
struct Hands {
    reader: Reader,
    statuses: mpsc::UnboundedSender<StatusWrite>,
    reports: mpsc::Sender<Report>,
    checked: watch::Sender<Checked>,
    names: Names,
    shared: Arc<Shared>,
}

impl Hands {
    fn new(client: &Client, controller: &str, changes: mpsc::Sender<Change>, shared: &Arc<Shared>) -> Self {
        let (statuses, status_queue) = mpsc::unbounded_channel();
        let (reports, report_queue) = mpsc::channel(event::QUEUE_LEN);
        let writer = status::write_all(client.clone(), controller.to_owned(), Arc::clone(shared), status_queue);
        tokio::spawn(writer);
        tokio::spawn(event::write_all(client.clone(), controller.to_owned(), report_queue));
        let (checked, to_check) = watch::channel(Checked::new());
        tokio::spawn(health::run(to_check, Arc::clone(shared)));
        let (reader, names) = (Reader::new(client.clone(), changes.clone()), Names::new(changes));
        Self { reader, statuses, reports, checked, names, shared: Arc::clone(shared) }
    }

    fn act(&self, outcome: Outcome, started: Instant, world: &World) {
        if let Some(snapshot) = outcome.snapshot {
            self.publish(snapshot, started);
        }
        for key in outcome.secrets_to_read {
            self.reader.read(key);
        }
        for write in outcome.statuses {
            // The writer lives as long as this side of the channel.
            let _ = self.statuses.send(write);
        }
        for report in outcome.reports {
            tracing::warn!(ingress = %report.ingress, problem = %report.problem.message(), "ingress has a problem");
            if self.reports.try_send(report).is_err() {
                tracing::warn!("too many problems to write events for all");
            }
        }
        if let Some(checked) = outcome.checked {
            self.checked.send_replace(checked);
        }
        if let Some(names) = outcome.names {
            self.names.set(names);
        }
        self.count(world.counts());
    }

    fn publish(&self, snapshot: Snapshot, started: Instant) {
        let metrics = &self.shared.metrics;
        let (generation, rules) = (snapshot.generation, snapshot.routes.rules().count());
        self.shared.publish(snapshot);
        metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        metrics.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
        metrics.publish_seconds.observe(started.elapsed().as_secs_f64());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.publish_time.set(now.as_secs_f64());
        tracing::info!(generation, rules, elapsed_us = started.elapsed().as_micros() as u64, "snapshot published");
    }

    fn count(&self, counts: Counts) {
        let objects = &self.shared.metrics.objects;
        for (kind, count) in [
            ("ingress", counts.ingresses),
            ("ingress_served", counts.ingresses_served),
            ("service", counts.services),
            ("endpoint_slice", counts.endpoint_slices),
            ("certificate", counts.certificates),
        ] {
            objects.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.shared.metrics.conflicts.set(i64::try_from(counts.conflicts).unwrap_or(i64::MAX));
    }
}
