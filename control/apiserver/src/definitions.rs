//! CustomResourceDefinitions at work: this server follows them, gives them their status, publishes a new registry when one
//! changes, and removes the objects of those that are deleted.
//!
//! A definition is published before its status says so: whoever reads `Established` finds its resources served.

mod cleanup;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use control_api::custom::{self, Definition, Settled, Taken};
use control_api::registry::{Registry, Resource};
use control_api::status::Status;
use control_store::{Event, EventKind, Range, Watch};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::bootstrap;
use crate::follow::RETRY_INTERVAL;
use crate::state::Server;
use crate::write;

const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";
/// How long the answer to a write of a definition waits for the registry to have it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// How far the definitions in the store have been published.
pub(crate) struct Progress(watch::Sender<u64>);

impl Default for Progress {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Progress {
    /// Waits, but not for long, until what was written at this revision is in force.
    pub(crate) async fn reached(&self, revision: u64) {
        let mut published = self.0.subscribe();
        let wait = published.wait_for(|published| *published >= revision);
        if tokio::time::timeout(PUBLISH_TIMEOUT, wait).await.is_err() {
            tracing::warn!(revision, "a custom resource definition is not published in time");
        }
    }
}

/// Reads the definitions, publishes what they define, and goes on following them in the background.
pub(crate) async fn start(server: &Arc<Server>, tasks: &mut JoinSet<()>) -> control_store::Result<()> {
    let mut follower = Follower::new(server);
    let watch = follower.read().await?;
    tasks.spawn(follower.run(watch));
    Ok(())
}

struct Follower {
    server: Arc<Server>,
    builtin: Registry,
    /// By key in the store.
    definitions: BTreeMap<Arc<str>, Definition>,
    /// Those whose objects are being removed, by uid.
    cleaning: HashMap<String, AbortHandle>,
    cleanups: JoinSet<()>,
}

impl Follower {
    fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            builtin: (**server.registry.load()).clone(),
            definitions: BTreeMap::new(),
            cleaning: HashMap::new(),
            cleanups: JoinSet::new(),
        }
    }

    async fn run(mut self, mut watch: Watch) {
        loop {
            let Some(first) = watch.next().await else {
                watch = self.read_again().await;
                continue;
            };
            let mut revision = first.revision;
            let mut settled = BTreeMap::new();
            self.take(&first, &mut settled);
            // A burst of changes makes one new registry.
            while let Some(event) = watch.try_next() {
                revision = event.revision;
                self.take(&event, &mut settled);
            }
            self.publish(revision);
            if !self.act(settled).await {
                tokio::time::sleep(RETRY_INTERVAL).await;
                watch = self.read_again().await;
            }
        }
    }

    async fn read(&mut self) -> control_store::Result<Watch> {
        let server = Arc::clone(&self.server);
        let page = server.store.range(Range::prefix(PREFIX)).await?;
        let watch = server.store.watch(PREFIX, page.revision).await?;
        self.definitions.retain(|key, _| page.entries.iter().any(|entry| entry.key == *key));
        let mut settled = BTreeMap::new();
        for entry in &page.entries {
            self.put(&entry.key, &entry.value, &mut settled);
        }
        self.publish(page.revision);
        // What could not be written is settled again when its definition changes.
        self.act(settled).await;
        Ok(watch)
    }

    async fn read_again(&mut self) -> Watch {
        loop {
            match self.read().await {
                Ok(watch) => return watch,
                Err(error) => {
                    tracing::warn!(%error, "cannot watch custom resource definitions");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    fn take(&mut self, event: &Event, settled: &mut BTreeMap<Arc<str>, Settled>) {
        if event.kind == EventKind::Delete {
            self.definitions.remove(&event.key);
            settled.remove(&event.key);
        } else {
            self.put(&event.key, &event.value, settled);
        }
    }

    /// Learns a definition, as it will be once its status is written.
    fn put(&mut self, key: &Arc<str>, stored: &[u8], settled: &mut BTreeMap<Arc<str>, Settled>) {
        let Ok(mut object) = serde_json::from_slice::<Value>(stored) else { return };
        let before = self.definitions.get(key);
        let mut definition = Definition::of(&object, before);
        if let Some(status) = definition.settle(&self.taken(key, &definition.group)) {
            status.write(&mut object, jiff::Timestamp::now());
            definition = Definition::of(&object, before);
            settled.insert(Arc::clone(key), status);
        } else {
            settled.remove(key);
        }
        self.definitions.insert(Arc::clone(key), definition);
    }

    /// The names of a group that others hold.
    fn taken(&self, key: &str, group: &str) -> Taken {
        let mut taken = Taken::default();
        for resource in self.builtin.iter().filter(|resource| resource.group == group) {
            taken.add(&custom::Names::of_resource(resource));
        }
        let others =
            self.definitions.iter().filter(|(other, definition)| &***other != key && definition.group == group);
        others.for_each(|(_, definition)| taken.add(&definition.accepted));
        taken
    }

    fn publish(&self, revision: u64) {
        let mut registry = self.builtin.clone();
        registry.insert_custom(self.definitions.values());
        self.server.publish(registry);
        self.server.definitions.0.send_replace(revision);
    }

    /// Writes the statuses that changed, also of those that wait for a name; begins and ends clean-ups.
    /// False if a status could not be written.
    async fn act(&mut self, mut settled: BTreeMap<Arc<str>, Settled>) -> bool {
        let mut is_written = true;
        for (key, definition) in &self.definitions {
            if let Some(status) = definition.settle(&self.taken(key, &definition.group)) {
                settled.entry(Arc::clone(key)).or_insert(status);
            }
        }
        for (key, status) in settled {
            let Some(definition) = self.definitions.get(&key) else { continue };
            if let Err(error) = write_status(&self.server, definition, &status).await {
                tracing::warn!(name = definition.name, %error, "cannot write the status of a definition");
                is_written = false;
            }
        }
        self.cleaning.retain(|_, task| !task.is_finished());
        while self.cleanups.try_join_next().is_some() {}
        for definition in self.definitions.values().filter(|one| one.terminating && one.has_finalizer) {
            if !self.cleaning.contains_key(&definition.uid) {
                let task = cleanup::run(Arc::clone(&self.server), definition.clone());
                self.cleaning.insert(definition.uid.clone(), self.cleanups.spawn(task));
            }
        }
        is_written
    }
}

async fn write_status(server: &Arc<Server>, definition: &Definition, status: &Settled) -> Result<(), Status> {
    let now = jiff::Timestamp::now();
    change(server, definition, "status", |object| status.write(object, now)).await
}

/// Changes a definition, unless it is another one by now.
async fn change(
    server: &Arc<Server>,
    definition: &Definition,
    subresource: &str,
    change: impl Fn(&mut Value),
) -> Result<(), Status> {
    let resource: Arc<Resource> = server.builtin(custom::GROUP, custom::PLURAL)?;
    let mut context = bootstrap::context(server, "update", "", &definition.name);
    context.info.subresource = subresource.to_owned();
    let changed = write::modify(&context, &resource, |current| {
        let mut object = current.clone();
        object["metadata"]["uid"] = definition.uid.as_str().into();
        change(&mut object);
        Ok(object)
    });
    match changed.await {
        // It is gone, or another one has its name: there is nothing to say of it.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}
