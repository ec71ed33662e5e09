//! The agent's source against API servers that are not ours: scripted ones, with the habits that real ones have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod server;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dataplane_user::apply::{FakeMaps, normalise};
use dataplane_user::names::Names;
use dataplane_user::reconcile::Reconciler;
use dataplane_user::source::Change;
use dataplane_user::source::apiserver;
use serde_json::{Value, json};
use server::{InitialEvents, Kind, Server};

const NODE: &str = "here";
const LIMIT: Duration = Duration::from_secs(20);

/// An agent without a kernel, fed by a server.
struct Agent {
    reconciler: Reconciler<FakeMaps>,
    queue: mpsc::Receiver<Change>,
    _folder: tempfile::TempDir,
}

impl Agent {
    async fn start(server: &Server, maps: FakeMaps) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = write_kubeconfig(folder.path(), server);
        let client = apiserver::client(Some(&kubeconfig)).await.unwrap();
        let (sender, queue) = mpsc::channel();
        tokio::spawn(apiserver::watch(client, NODE.to_owned(), Arc::new(move |change| sender.send(change).is_ok())));
        let names = Names::open(folder.path().join("frontends.jsonl")).unwrap();
        Self { reconciler: Reconciler::restore(maps, names).unwrap(), queue, _folder: folder }
    }

    fn step(&mut self) -> String {
        while let Ok(change) = self.queue.try_recv() {
            self.reconciler.change(change);
        }
        self.reconciler.reconcile().unwrap();
        normalise(&self.reconciler.maps_mut().contents)
    }

    /// Works until the cluster set of 10.96.0.10:80 is this.
    async fn wait_for(&mut self, endpoints: &[&str]) {
        let members: String = endpoints.iter().map(|address| format!(" {address}:8080/TCP")).collect();
        let wanted = format!("  cluster:{members}\n");
        let end = Instant::now() + LIMIT;
        loop {
            let found = self.step();
            if found.contains(&wanted) {
                return;
            }
            assert!(Instant::now() < end, "the maps never got{members}:\n{found}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn write_kubeconfig(folder: &Path, server: &Server) -> std::path::PathBuf {
    let path = folder.join("kubeconfig.yaml");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://{}", server.address())}}],
        "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn service() -> Value {
    json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}})
}

fn slice(endpoints: &[&str]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({
        "metadata": {"namespace": "a", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

async fn server_with(initial_events: InitialEvents) -> Server {
    let server = Server::start(initial_events).await;
    server.put(Kind::Node, json!({"metadata": {"name": "another"}}));
    server.put(Kind::Node, json!({"metadata": {"name": NODE}}));
    server.put(Kind::Service, service());
    server.put(Kind::Slice, slice(&["10.0.0.1"]));
    server
}

/// Everything that may happen to a watch.
async fn live_through(server: &Server, agent: &mut Agent) {
    agent.wait_for(&["10.0.0.1"]).await;
    server.put(Kind::Slice, slice(&["10.0.0.1", "10.0.0.2"]));
    agent.wait_for(&["10.0.0.1", "10.0.0.2"]).await;
    server.disconnect();
    server.put(Kind::Slice, slice(&["10.0.0.3"]));
    agent.wait_for(&["10.0.0.3"]).await;
    // Now the connection breaks and what the agent has seen is forgotten: 410, list again.
    server.refuse(true);
    server.disconnect();
    server.put(Kind::Slice, slice(&["10.0.0.4"]));
    server.compact();
    server.refuse(false);
    agent.wait_for(&["10.0.0.4"]).await;
    // A deletion that the agent never sees as an event.
    server.refuse(true);
    server.disconnect();
    server.delete(Kind::Slice, "a/web-1");
    server.compact();
    server.refuse(false);
    agent.wait_for(&[]).await;
    server.delete(Kind::Service, "a/web");
    let end = Instant::now() + LIMIT;
    while agent.step() != "slots 0 counters 0 backends 0\n" {
        assert!(Instant::now() < end, "the Service never went");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_streaming_lists() {
    let server = server_with(InitialEvents::Supported).await;
    let mut agent = Agent::start(&server, FakeMaps::default()).await;
    live_through(&server, &mut agent).await;
    assert_eq!(server.requests("GET list"), 0, "a list was asked for although initial events work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_streaming_lists_and_pages_its_lists() {
    let server = server_with(InitialEvents::Refused).await;
    for number in 0..1_200 {
        let mut other = service();
        other["metadata"]["name"] = format!("other-{number}").into();
        other["spec"]["clusterIP"] = format!("10.97.{}.{}", number / 200, number % 200 + 1).into();
        server.put(Kind::Service, other);
    }
    let mut agent = Agent::start(&server, FakeMaps::default()).await;
    agent.wait_for(&["10.0.0.1"]).await;
    assert_eq!(agent.reconciler.contents().frontends.len(), 1_201);
    for number in 0..1_200 {
        server.delete(Kind::Service, &format!("a/other-{number}"));
    }
    live_through(&server, &mut agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_streaming_lists_and_never_ends_one() {
    let server = server_with(InitialEvents::Ignored).await;
    let mut agent = Agent::start(&server, FakeMaps::default()).await;
    live_through(&server, &mut agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shrinks_while_one_source_is_missing() {
    let server = server_with(InitialEvents::Supported).await;
    let mut agent = Agent::start(&server, FakeMaps::default()).await;
    agent.wait_for(&["10.0.0.1"]).await;
    let held = agent.reconciler.maps_mut().clone();
    let before = normalise(&held.contents);
    drop(agent);

    // A new agent finds its maps, and a server that has lost its slices for now.
    server.refuse_kind(Some(Kind::Slice));
    server.put(Kind::Slice, slice(&["10.0.0.9"]));
    let mut agent = Agent::start(&server, held).await;
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        assert_eq!(agent.step(), before);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.refuse_kind(None);
    agent.wait_for(&["10.0.0.9"]).await;
}
