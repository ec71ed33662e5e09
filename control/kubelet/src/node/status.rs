//! Registers the node and keeps its status true; written when it changes, and every five minutes anyway. Changes become
//! events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::machine::{Machine, Usage};
use super::object::{self, Measured, NodeSettings};
use super::transitions;
use crate::events::{Events, Severity};
use crate::network::PodNet;
use crate::runtime::PodRuntime;

/// How often the machine is measured.
const CHECK: Duration = Duration::from_secs(10);
/// How often an unchanged status is written; the lease says that the node lives.
const REPORT: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct NodeReporter {
    pub client: Client,
    pub settings: NodeSettings,
    pub machine: Machine,
    pub data_dir: PathBuf,
    pub runtime: Arc<dyn PodRuntime>,
    pub network: watch::Receiver<Option<Arc<dyn PodNet>>>,
    pub images_loaded: watch::Receiver<bool>,
    pub events: Events,
    pub unschedulable: bool,
}

impl NodeReporter {
    /// Creates the Node or brings its labels up to date; tries until it succeeds.
    pub(crate) async fn register(&self) -> Node {
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(node = %self.settings.name, %error, "cannot register the node");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Keeps the status true for ever.
    pub(crate) async fn run(mut self) {
        let mut written = None;
        loop {
            let mut pause = CHECK;
            match self.report(written).await {
                Ok(true) => written = Some(Instant::now()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(node = %self.settings.name, %error, "cannot write node status");
                    pause = RETRY;
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                // Readiness must not wait for the next check.
                Ok(()) = self.network.changed() => {}
                Ok(()) = self.images_loaded.changed() => {}
            }
        }
    }

    async fn try_register(&self) -> kube::Result<Node> {
        let nodes = self.nodes();
        let node = object::node(&self.settings, &self.measure().await, crate::clock::now());
        match nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let labels = object::labels(&self.settings, &self.machine);
                let patch = json!({"metadata": {"labels": labels}});
                nodes.patch(&self.settings.name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            result => result,
        }
    }

    /// Writes the status if it says something new; true if it did.
    async fn report(&mut self, written: Option<Instant>) -> kube::Result<bool> {
        let nodes = self.nodes();
        let node = match nodes.get_opt(&self.settings.name).await? {
            Some(node) => node,
            // Someone deleted it: this machine is still here.
            None => self.try_register().await?,
        };
        let old = node.status.clone().unwrap_or_default();
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if let Some(reason) = transitions::of_scheduling(self.unschedulable, unschedulable) {
            self.tell(&node, reason);
        }
        self.unschedulable = unschedulable;
        let new = object::status(&self.settings, &self.measure().await, &old, crate::clock::now());
        let overdue = written.is_none_or(|written| written.elapsed() >= REPORT);
        if !overdue && !object::differs(&old, &new) {
            return Ok(false);
        }
        nodes.patch_status(&self.settings.name, &PatchParams::default(), &Patch::Strategic(patch(&old, &new))).await?;
        transitions::of_conditions(&old, &new).into_iter().for_each(|reason| self.tell(&node, reason));
        Ok(true)
    }

    fn tell(&self, node: &Node, reason: &'static str) {
        let message = format!("Node {} status is now: {reason}", self.settings.name);
        self.events.node(node, Severity::Normal, reason, message);
    }

    async fn measure(&self) -> Measured {
        let not_ready = self.network.borrow().is_none().then(|| {
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
             message:the node has no pod address range yet"
                .to_owned()
        });
        Measured {
            machine: self.machine.clone(),
            usage: Usage::read(&self.data_dir),
            images: self.runtime.images().await.unwrap_or_default(),
            not_ready,
        }
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}

/// Changed fields only; addresses and images are merged by key at the API server and so are replaced as a whole.
fn patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    let object = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let changed = new.into_iter().filter(|(key, value)| old.get(key) != Some(value));
    let fields: Map<String, Value> = changed
        .map(|(key, value)| match (key.as_str(), value) {
            ("addresses", Value::Array(list)) => (key, replacement(list)),
            (_, value) => (key, value),
        })
        .collect();
    json!({"status": fields})
}

fn replacement(list: Vec<Value>) -> Value {
    let mut all = vec![json!({"$patch": "replace"})];
    all.extend(list);
    Value::Array(all)
}
