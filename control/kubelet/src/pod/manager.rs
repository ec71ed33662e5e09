//! Starts and feeds the workers, and removes what belongs to no pod.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use control_runtime::{ContainerState, RuntimeEvent};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::effects;
use super::observed::Observed;
use super::worker::{Message, Worker};
use crate::spec::pod_ref::PodRef;

/// Events of the runtime can be lost; what they say is found out this often anyway.
const RELIST: Duration = Duration::from_secs(10);

/// The API server's object, and what the runtime holds of it.
type Known = (Arc<Pod>, Arc<Observed>);

/// What is known of every pod of this node, for the server and for routing the runtime's events.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pods: RwLock<HashMap<String, Known>>,
    /// Sandbox to pod uid.
    owners: RwLock<HashMap<String, String>>,
    /// Uids that have a worker: noted before the worker makes anything, so that nothing of it looks like an orphan.
    claimed: RwLock<BTreeSet<String>>,
}

impl Index {
    pub(crate) fn publish(&self, pod: Arc<Pod>, observed: Arc<Observed>) {
        self.pods.write().insert(pod.uid().to_owned(), (pod, observed));
    }

    pub(crate) fn own(&self, sandbox_id: &str, uid: &str) {
        let known = self.owners.read().get(sandbox_id).is_some_and(|owner| owner == uid);
        if !known {
            self.owners.write().insert(sandbox_id.into(), uid.into());
        }
    }

    pub(crate) fn disown(&self, sandbox_id: &str) {
        self.owners.write().remove(sandbox_id);
    }

    pub(crate) fn pods(&self) -> Vec<Known> {
        self.pods.read().values().cloned().collect()
    }

    /// The pod of this name; of two (one is still ending), the newer.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Known> {
        let pods = self.pods.read();
        let same = pods.values().filter(|(pod, _)| pod.namespace() == namespace && pod.name() == name);
        same.max_by_key(|(pod, _)| pod.metadata.creation_timestamp.clone()).cloned()
    }

    /// Whether this instance of a container still runs.
    pub(crate) fn is_running(&self, uid: &str, container_id: &str) -> bool {
        let pods = self.pods.read();
        let instance = pods.get(uid).and_then(|(_, observed)| observed.by_id(container_id));
        instance.is_some_and(|instance| instance.state == ContainerState::Running)
    }

    fn claim(&self, uid: &str) {
        self.claimed.write().insert(uid.to_owned());
    }

    fn is_claimed(&self, uid: &str) -> bool {
        self.claimed.read().contains(uid)
    }

    fn owner(&self, sandbox_id: &str) -> Option<String> {
        self.owners.read().get(sandbox_id).cloned()
    }

    fn forget(&self, uid: &str) {
        self.claimed.write().remove(uid);
        self.pods.write().remove(uid);
        self.owners.write().retain(|_, owner| owner != uid);
    }
}

pub(crate) struct Manager {
    context: Arc<Context>,
    index: Arc<Index>,
    workers: HashMap<String, mpsc::UnboundedSender<Message>>,
    /// Yields the uid of a worker that has ended.
    ended: JoinSet<String>,
    /// Uids seen since the watch began its list.
    listed: BTreeSet<String>,
    /// Before the first complete list nobody is known to be an orphan.
    synced: bool,
    cleaning: JoinSet<()>,
}

impl Manager {
    pub(crate) fn new(context: Arc<Context>, index: Arc<Index>) -> Self {
        Self {
            context,
            index,
            workers: HashMap::new(),
            ended: JoinSet::new(),
            listed: BTreeSet::new(),
            synced: false,
            cleaning: JoinSet::new(),
        }
    }

    /// Serves until the token is cancelled; containers go on.
    pub(crate) async fn run(mut self, pods: impl Stream<Item = Event<Pod>>, shutdown: CancellationToken) {
        let mut pods = pin!(pods);
        let mut events = self.context.runtime.events();
        let mut deaf = false;
        let mut relist = tokio::time::interval(RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = pods.next() => self.watched(event),
                event = events.recv(), if !deaf => {
                    deaf = matches!(event, Err(broadcast::error::RecvError::Closed));
                    self.happened(event);
                }
                Some(ended) = self.ended.join_next(), if !self.ended.is_empty() => self.worker_ended(ended),
                Some(_) = self.cleaning.join_next(), if !self.cleaning.is_empty() => {}
                _ = relist.tick() => {
                    self.tell_all();
                    self.clean();
                }
            }
        }
    }

    fn watched(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) => self.update(pod),
            Event::Delete(pod) => self.tell(pod.uid(), Message::Gone),
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.insert(pod.uid().to_owned());
                self.update(pod);
            }
            Event::InitDone => {
                for (uid, worker) in &self.workers {
                    if !self.listed.contains(uid) {
                        let _ = worker.send(Message::Gone);
                    }
                }
                self.synced = true;
                self.clean();
            }
        }
    }

    fn update(&mut self, pod: Pod) {
        let uid = pod.uid().to_owned();
        let pod = Arc::new(pod);
        let told = self.workers.get(&uid).is_some_and(|worker| worker.send(Message::Pod(Arc::clone(&pod))).is_ok());
        if told {
            return;
        }
        self.index.claim(&uid);
        let (sender, messages) = mpsc::unbounded_channel();
        let worker = Worker::spawn(Arc::clone(&self.context), Arc::clone(&self.index), pod, messages, sender.clone());
        self.workers.insert(uid.clone(), sender);
        self.count();
        self.ended.spawn(async move {
            if let Err(error) = worker.await {
                tracing::error!(uid, %error, "a pod worker panicked");
            }
            uid
        });
    }

    fn happened(&mut self, event: Result<RuntimeEvent, broadcast::error::RecvError>) {
        let sandbox_id = match event {
            Ok(RuntimeEvent::ContainerExited { sandbox_id, .. } | RuntimeEvent::SandboxExited { sandbox_id }) => {
                sandbox_id
            }
            // Too many to keep: look everywhere.
            Err(_) => return self.tell_all(),
        };
        match self.index.owner(&sandbox_id) {
            Some(uid) => self.tell(&uid, Message::Look),
            None => self.tell_all(),
        }
    }

    fn worker_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        let Ok(uid) = ended else { return };
        // A newer worker of the same uid may have taken its place.
        if self.workers.get(&uid).is_some_and(mpsc::UnboundedSender::is_closed) {
            self.workers.remove(&uid);
            self.index.forget(&uid);
            self.count();
        }
    }

    fn count(&self) {
        self.context.metrics.pods.set(i64::try_from(self.workers.len()).unwrap_or(i64::MAX));
    }

    fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.workers.get(uid) {
            // An ended worker has nothing to hear.
            let _ = worker.send(message);
        }
    }

    fn tell_all(&self) {
        for worker in self.workers.values() {
            let _ = worker.send(Message::Look);
        }
    }

    /// Removes sandboxes and directories of pods that the API server does not know.
    fn clean(&mut self) {
        if !self.synced || !self.cleaning.is_empty() {
            return;
        }
        let (context, index) = (Arc::clone(&self.context), Arc::clone(&self.index));
        self.cleaning.spawn(async move {
            if let Err(error) = remove_orphans(&context, &index).await {
                tracing::warn!(error, "cannot remove what belongs to no pod");
            }
        });
    }
}

async fn remove_orphans(context: &Arc<Context>, index: &Index) -> Result<(), String> {
    let sandboxes = context.runtime.sandboxes().await;
    let mut left = BTreeSet::new();
    for sandbox in sandboxes.into_iter().filter(|sandbox| !index.is_claimed(&sandbox.spec.pod_uid)) {
        tracing::info!(sandbox = %sandbox.id, pod.uid = %sandbox.spec.pod_uid, "removing the sandbox of an unknown pod");
        let stopped = effects::stop_sandbox(Arc::clone(context), sandbox.id.clone(), sandbox.spec.host_network).await;
        let removed = match stopped {
            Ok(()) => effects::remove_sandbox(Arc::clone(context), sandbox.id.clone()).await,
            failed => failed,
        };
        if let Err(error) = removed {
            tracing::warn!(sandbox = %sandbox.id, %error, "cannot remove the sandbox of an unknown pod");
            left.insert(sandbox.spec.pod_uid);
        }
    }
    for uid in context.volumes.uids().into_iter().filter(|uid| !index.is_claimed(uid) && !left.contains(uid)) {
        context.volumes.tear_down(&uid).await.map_err(|error| format!("directory of pod {uid}: {error}"))?;
    }
    Ok(())
}
