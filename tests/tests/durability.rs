//! What the API has acknowledged survives kill -9 of the real process; a failed fsync ends it.
//!
//! `TIDEGATE_FAULTS=long` kills 100 times instead of 3.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use control_store::{Embedded, Options, Range, Store};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidegate_tests::control::Control;
use tidegate_tests::syscalls::Syncs;

const WRITERS: usize = 16;
/// Of each writer.
const OBJECTS: usize = 4;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// An answer, or nothing if the connection broke.
type Answer = Option<(u16, Value)>;

#[derive(Clone)]
struct Client(kube::Client);

impl Client {
    /// One connection for each client, as separate programs have.
    async fn new(control: &Control) -> Self {
        let file = Kubeconfig::read_from(control.kubeconfig()).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        Self(kube::Client::try_from(config).unwrap())
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body.into());
        let exchange = async {
            let response = self.0.send(request.unwrap()).await.ok()?;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.ok()?.to_bytes();
            Some((code, serde_json::from_slice(&bytes).unwrap_or_default()))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.ok().flatten()
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

/// A value and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    value: u64,
    version: u64,
}

/// What a writer asked for without hearing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Put(u64),
    Delete,
}

/// One object as its only writer knows it.
#[derive(Debug, Default)]
struct Object {
    is_service: bool,
    name: String,
    acknowledged: Option<Known>,
    doubt: Option<Doubt>,
}

/// What all writers share.
#[derive(Debug, Default)]
struct Ledger {
    next_value: AtomicU64,
    acknowledged: AtomicU64,
    /// Everything acknowledged from now on is newer than this.
    floor: AtomicU64,
    versions: std::sync::Mutex<HashSet<u64>>,
}

impl Object {
    fn collection(&self) -> &'static str {
        if self.is_service { SERVICES } else { MAPS }
    }

    /// The value twice, so that a half-written object would show; a Service also takes an address in the same write.
    fn body(&self, value: u64, filler: usize) -> Value {
        let annotations = json!({"value": value.to_string(), "again": value.to_string()});
        let metadata = json!({"name": self.name, "annotations": annotations, "labels": {"test": "durability"}});
        if self.is_service {
            return json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}});
        }
        json!({"metadata": metadata, "data": {"filler": "x".repeat(filler)}})
    }

    /// One write; false if the connection broke.
    async fn write(&mut self, client: &Client, ledger: &Ledger, random: &mut StdRng) -> bool {
        let value = ledger.next_value.fetch_add(1, Ordering::Relaxed);
        let body = self.body(value, random.random_range(0..20_000));
        let path = format!("{}/{}", self.collection(), self.name);
        let (answer, doubt) = match self.acknowledged {
            None => (client.call(Method::POST, self.collection(), &body).await, Doubt::Put(value)),
            Some(_) if random.random_bool(0.2) => {
                (client.call(Method::DELETE, &path, &Value::Null).await, Doubt::Delete)
            }
            Some(known) if !self.is_service && random.random_bool(0.5) => {
                let mut body = body;
                body["metadata"]["resourceVersion"] = known.version.to_string().into();
                (client.call(Method::PUT, &path, &body).await, Doubt::Put(value))
            }
            Some(_) => (client.call(Method::PATCH, &path, &body).await, Doubt::Put(value)),
        };
        let Some((code, object)) = answer else {
            self.doubt = Some(doubt);
            return false;
        };
        assert!((200..300).contains(&code), "{doubt:?} of {self:?} was answered {code}: {object}");
        ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.acknowledged = match doubt {
            Doubt::Delete => None,
            Doubt::Put(value) => {
                let version = version(&object);
                let floor = ledger.floor.load(Ordering::Relaxed);
                assert!(version > floor, "version {version} was given out after {floor} had been");
                assert!(ledger.versions.lock().unwrap().insert(version), "version {version} was given out twice");
                Some(Known { value, version })
            }
        };
        true
    }

    /// What a restart finds is what was acknowledged, or all of what was in doubt.
    fn check(&mut self, found: Option<&Value>, place: &str) -> bool {
        let found = found.map(|object| {
            let annotations = &object["metadata"]["annotations"];
            assert_eq!(annotations["value"], annotations["again"], "{place}: half-applied: {object}");
            let value = annotations["value"].as_str().unwrap().parse().unwrap();
            Known { value, version: version(object) }
        });
        let newer = found.map_or(0, |known| known.version) > self.acknowledged.map_or(0, |known| known.version);
        let applied = match self.doubt {
            Some(Doubt::Delete) => found.is_none(),
            Some(Doubt::Put(value)) => newer && found.is_some_and(|known| known.value == value),
            None => false,
        };
        assert!(found == self.acknowledged || applied, "{place}: found {found:?} of {self:?}");
        self.acknowledged = found;
        self.doubt = None;
        applied
    }
}

/// Writes until the process dies.
async fn write_on(client: Client, mut objects: Vec<Object>, ledger: Arc<Ledger>, seed: u64) -> Vec<Object> {
    let random = &mut StdRng::seed_from_u64(seed);
    loop {
        let at = random.random_range(0..objects.len());
        if !objects[at].write(&client, &ledger, random).await {
            return objects;
        }
    }
}

/// The newest version that a watcher was told of, until the process dies.
async fn watch_on(client: Client, after: u64) -> u64 {
    let path = format!("{MAPS}?watch=true&resourceVersion={after}&labelSelector=test%3Ddurability");
    let request = Request::get(path).body(Vec::new().into()).unwrap();
    let Ok(response) = client.0.send(request).await else { return after };
    let (mut body, mut rest, mut seen) = (response.into_body(), Vec::new(), after);
    while let Some(Ok(frame)) = body.frame().await {
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            seen = seen.max(version(&event["object"]));
        }
    }
    seen
}

/// Everything of one kind by name, and the version of the list.
async fn list(client: &Client, path: &str) -> (BTreeMap<String, Value>, u64) {
    let (code, list) = client.call(Method::GET, path, &Value::Null).await.expect("no answer to a list");
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().unwrap().iter();
    let by_name = items.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), item.clone()));
    (by_name.collect(), version(&list))
}

/// One life of the process: writers write, a watcher watches, the process is killed and started again.
async fn kill_once(control: &mut Control, objects: Vec<Object>, ledger: &Arc<Ledger>, seed: u64) -> (Vec<Object>, u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let watcher = tokio::spawn(watch_on(Client::new(control).await, ledger.floor.load(Ordering::Relaxed)));
    let before = ledger.acknowledged.load(Ordering::Relaxed);
    let mut writers = Vec::new();
    let mut rest = objects.into_iter();
    for writer in 0..WRITERS as u64 {
        let own = rest.by_ref().take(OBJECTS).collect();
        let client = Client::new(control).await;
        writers.push(tokio::spawn(write_on(client, own, Arc::clone(ledger), seed * 1000 + writer)));
    }
    while ledger.acknowledged.load(Ordering::Relaxed) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_micros(random.random_range(0..600_000))).await;
    control.kill();
    let mut objects = Vec::new();
    for writer in writers {
        objects.extend(writer.await.unwrap());
    }
    let watched = watcher.await.unwrap();
    control.start();

    let place = format!("after kill {seed}");
    let client = Client::new(control).await;
    let (maps, at) = list(&client, MAPS).await;
    let (services, _) = list(&client, SERVICES).await;
    let newest = ledger.versions.lock().unwrap().iter().copied().max().unwrap_or(0).max(watched);
    assert!(at >= newest, "{place}: the store is at version {at}, but {newest} was seen");
    ledger.floor.store(at, Ordering::Relaxed);
    let mut applied = 0;
    for object in &mut objects {
        let found = if object.is_service { &services } else { &maps }.get(&object.name);
        applied += u64::from(object.check(found, &place));
    }
    (objects, applied)
}

/// Every address that a Service has is taken in its name, and no other is.
async fn check_addresses(control: &Control) {
    let store = Embedded::open(&control.dir().join("store"), Options::default()).unwrap();
    let page = store.range(Range::prefix("/")).await.unwrap();
    let (mut taken, mut used) = (BTreeSet::new(), BTreeSet::new());
    for entry in &page.entries {
        if let Some(address) = entry.key.split_once("/ranges/serviceips/").map(|(_, address)| address) {
            taken.insert(address.to_owned());
        } else if entry.key.contains("/services/") {
            let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            let addresses = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
            used.extend(addresses.iter().map(|address| address.as_str().unwrap().to_owned()));
        }
    }
    assert!(used.len() > 1, "no Service has an address");
    assert_eq!(taken, used, "addresses taken and used");
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let kills = if std::env::var("TIDEGATE_FAULTS").as_deref() == Ok("long") { 100 } else { 3 };
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::new(dir.path());
    control.start();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ledger = Arc::new(Ledger::default());
    let name =
        |at: usize| Object { is_service: at.is_multiple_of(OBJECTS), name: format!("o{at}"), ..Object::default() };
    let mut objects: Vec<Object> = (0..WRITERS * OBJECTS).map(name).collect();
    let mut applied = 0;
    for kill in 0..kills {
        let more;
        (objects, more) = runtime.block_on(kill_once(&mut control, objects, &ledger, kill));
        applied += more;
    }
    control.kill();
    runtime.block_on(check_addresses(&control));
    println!(
        "acknowledged_writes_survive_kill_9: {kills} kills under {WRITERS} writers, {} writes acknowledged, 0 lost, 0 \
         half-applied, {} versions given out, none twice; {applied} unacknowledged writes found whole",
        ledger.acknowledged.load(Ordering::Relaxed),
        ledger.versions.lock().unwrap().len(),
    );
}

#[test]
fn a_failed_fsync_ends_the_process_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::new(dir.path());
    let mut command = control.command();
    let syncs = Syncs::watch(&mut command, "store.redb");
    syncs.answer();
    control.start_with(command);
    let created = control.kubectl("1.37", "create configmap before --from-literal=a=b", "");
    assert!(created.status.success(), "{created:?}");
    let (good, failed) = syncs.count();
    assert!(good > 0 && failed == 0, "{good} syncs went through, {failed} failed");

    syncs.fail();
    let refused = control.kubectl("1.37", "create configmap after --from-literal=a=b", "");
    assert!(!refused.status.success(), "a write was acknowledged: {refused:?}");
    let status = control.wait();
    let log = control.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the store can no longer write: I/O error: Input/output error"), "{log}");
    assert_eq!(syncs.count().1, 1, "a sync was tried after one had failed");

    control.start();
    let kept = control.kubectl("1.37", "get configmap before -o jsonpath={.data.a}", "");
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "b", "{kept:?}");
    println!("a_failed_fsync_ends_the_process: {good} syncs went through, 1 failed, 0 after it, exit code 1");
}
