//! What the server itself watches: RBAC objects for the policy, pods for what nodes may read; and the store's compaction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use control_store::{Event, EventKind, Range, Watch};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::authz::{Policy, Sources, Waiter};
use crate::definitions;
use crate::state::Server;

const RBAC_PREFIX: &str = "/registry/rbac.authorization.k8s.io/";
const PODS_PREFIX: &str = "/registry/core/pods/";
const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
/// After a lost watch.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Background tasks of a server.
pub(crate) struct Tasks(JoinSet<()>);

impl Tasks {
    /// Returns when one of them ends, which none does but by a panic: the server would go on with what it knew last.
    pub(crate) async fn ended(&mut self) {
        self.0.join_next().await;
    }

    pub(crate) async fn shutdown(mut self) {
        self.0.shutdown().await;
    }
}

/// Reads what is there and goes on following in the background.
pub(crate) async fn start(server: &Arc<Server>) -> control_store::Result<Tasks> {
    let mut tasks = JoinSet::new();
    definitions::start(server, &mut tasks).await?;
    let (rbac, watch) = read_rbac(server).await?;
    let (policy, waiters) = mpsc::unbounded_channel();
    tasks.spawn(follow_rbac(Arc::clone(server), rbac, watch, waiters));
    let watch = read_pods(server).await?;
    let (pods, waiters) = mpsc::unbounded_channel();
    tasks.spawn(follow_pods(Arc::clone(server), watch, waiters));
    server.authorizer.follow(vec![policy, pods]);
    tasks.spawn(compact(Arc::clone(server)));
    Ok(Tasks(tasks))
}

type Objects = BTreeMap<Arc<str>, Value>;
type Waiters = mpsc::UnboundedReceiver<Waiter>;

/// What a follower has to take note of, and whom to tell then.
struct News {
    events: VecDeque<Arc<Event>>,
    waiter: Option<Waiter>,
}

/// The next events, also none if somebody waits; `None` if the watch was lost.
async fn news(watch: &mut Watch, waiters: &mut Waiters) -> Option<News> {
    let (first, waiter) = tokio::select! {
        event = watch.next() => (Some(event?), None),
        Some(waiter) = waiters.recv() => (None, Some(waiter)),
    };
    // The store hands out events before it acknowledges their write: what a waiter may ask for is here already.
    let events = first.into_iter().chain(std::iter::from_fn(|| watch.try_next())).collect();
    Some(News { events, waiter })
}

fn tell(waiter: Option<Waiter>) {
    if let Some(waiter) = waiter {
        // Who has asked may have gone.
        let _ = waiter.send(());
    }
}

async fn read_rbac(server: &Server) -> control_store::Result<(Objects, Watch)> {
    let page = server.store.range(Range::prefix(RBAC_PREFIX)).await?;
    let watch = server.store.watch(RBAC_PREFIX, page.revision).await?;
    let parse = |value: &[u8]| serde_json::from_slice(value).unwrap_or_default();
    let objects = page.entries.into_iter().map(|entry| (entry.key, parse(&entry.value))).collect();
    publish(server, &objects);
    Ok((objects, watch))
}

fn publish(server: &Server, objects: &Objects) {
    let mut sources = Sources::default();
    for (key, object) in objects {
        let list = match key.strip_prefix(RBAC_PREFIX).and_then(|rest| rest.split('/').next()) {
            Some("clusterroles") => &mut sources.cluster_roles,
            Some("roles") => &mut sources.roles,
            Some("clusterrolebindings") => &mut sources.cluster_role_bindings,
            Some("rolebindings") => &mut sources.role_bindings,
            _ => continue,
        };
        list.push(object.clone());
    }
    server.authorizer.publish(Policy::compile(&sources));
}

async fn follow_rbac(server: Arc<Server>, mut objects: Objects, mut watch: Watch, mut waiters: Waiters) {
    loop {
        let Some(News { events, waiter }) = news(&mut watch, &mut waiters).await else {
            (objects, watch) = retry(|| read_rbac(&server)).await;
            continue;
        };
        // A burst of changes makes one new policy.
        let changed = !events.is_empty();
        for event in events {
            if event.kind == EventKind::Delete {
                objects.remove(&event.key);
            } else {
                objects.insert(event.key.clone(), serde_json::from_slice(&event.value).unwrap_or_default());
            }
        }
        if changed {
            publish(&server, &objects);
        }
        tell(waiter);
    }
}

async fn read_pods(server: &Server) -> control_store::Result<Watch> {
    let page = server.store.range(Range::prefix(PODS_PREFIX)).await?;
    let watch = server.store.watch(PODS_PREFIX, page.revision).await?;
    let graph = server.authorizer.nodes();
    graph.clear();
    for entry in page.entries {
        if let Ok(pod) = serde_json::from_slice(&entry.value) {
            graph.set(&entry.key, &pod);
        }
    }
    Ok(watch)
}

async fn follow_pods(server: Arc<Server>, mut watch: Watch, mut waiters: Waiters) {
    let graph = server.authorizer.nodes();
    loop {
        let Some(News { events, waiter }) = news(&mut watch, &mut waiters).await else {
            watch = retry(|| read_pods(&server)).await;
            continue;
        };
        for event in events {
            match (event.kind, serde_json::from_slice(&event.value)) {
                (EventKind::Create | EventKind::Update, Ok(pod)) => graph.set(&event.key, &pod),
                _ => graph.remove(&event.key),
            }
        }
        tell(waiter);
    }
}

/// Until it works; a store that fails for good ends the server, and with it this task.
async fn retry<T, F: Future<Output = control_store::Result<T>>>(read: impl Fn() -> F) -> T {
    loop {
        match read().await {
            Ok(result) => return result,
            Err(error) => {
                tracing::warn!(%error, "cannot watch the store");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

/// Forgets what is older than one to two intervals.
async fn compact(server: Arc<Server>) {
    let mut before = server.store.revision();
    loop {
        tokio::time::sleep(COMPACTION_INTERVAL).await;
        let now = server.store.revision();
        if let Err(error) = server.store.compact(before).await {
            tracing::warn!(%error, revision = before, "cannot compact the store");
        }
        before = now;
    }
}
