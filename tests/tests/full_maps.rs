//! Full maps: the whole agent on a real kernel with room for two frontends, told three by a real API server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control_apiserver::{Config, ServiceAccountKeys, TlsFiles};
use control_store::{Embedded, Options};
use dataplane_user::agent::{self, Args};
use dataplane_user::apply::{ServiceMaps, normalise};
use dataplane_user::kernel::{Kernel, KernelConfig, MapSizes, Maps};
use dataplane_user::source::apiserver;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tidegate_tests::kernel_sandbox::{KernelSandbox, ip, wait_for};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "../../control/apiserver/examples/dev/pki.rs"]
mod pki;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
/// Where the servers listen: endpoints must not have loopback addresses.
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

/// An API server and an agent, both within the sandbox's namespaces.
struct Node {
    runtime: Runtime,
    client: Client,
    shutdown: CancellationToken,
    agent: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    _server: DropGuard,
    _folder: tempfile::TempDir,
    sandbox: KernelSandbox,
}

impl Node {
    fn new(sizes: MapSizes) -> Self {
        let sandbox = KernelSandbox::new();
        ip(&["address", "add", &ENDPOINT.to_string(), "dev", "lo"]);
        let folder = tempfile::tempdir().unwrap();
        // A map that exists keeps its size: the agent adopts these.
        let small = KernelConfig { sizes, ..KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup()) };
        drop(Kernel::open(&small).unwrap());
        let (server, admin, agent) = serve_api(folder.path());
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(apiserver::client(Some(&admin))).unwrap();
        let shutdown = CancellationToken::new();
        let args = Args {
            kubeconfig: Some(agent),
            node_name: Some("node-1".to_owned()),
            pin_dir: Some(sandbox.pin_dir()),
            cgroup: Some(sandbox.cgroup().to_owned()),
            run_dir: Some(folder.path().join("run")),
            metrics_bind_address: "127.0.0.1:10249".parse().unwrap(),
            healthz_bind_address: "0.0.0.0:10256".parse().unwrap(),
            source_file: None,
            resync_interval: 300,
            cleanup: false,
        };
        let token = shutdown.clone();
        // The thread inherits this test's namespaces.
        let agent = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(agent::serve(args, token))
        });
        Self { runtime, client, shutdown, agent: Some(agent), _server: server, _folder: folder, sandbox }
    }

    /// Creates a Service with one endpoint; returns the address that it was given.
    fn create(&self, name: &str, endpoint: SocketAddr) -> SocketAddr {
        let service = self.post::<Service>(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": PORT, "targetPort": endpoint.port()}]},
        }));
        self.post::<EndpointSlice>(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "", "port": endpoint.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [endpoint.ip()], "conditions": {"ready": true}}],
        }));
        let ip: IpAddr = service.spec.unwrap().cluster_ip.unwrap().parse().unwrap();
        SocketAddr::new(ip, PORT)
    }

    fn post<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), "default");
        let object = serde_json::from_value(object).unwrap();
        self.runtime.block_on(api.create(&PostParams::default(), &object)).unwrap()
    }

    fn delete(&self, name: &str) {
        let services = Api::<Service>::namespaced(self.client.clone(), "default");
        self.runtime.block_on(services.delete(name, &DeleteParams::default())).unwrap();
    }

    /// The notes of the Events of a Service.
    fn notes(&self, name: &str) -> Vec<String> {
        let events = Api::<Event>::namespaced(self.client.clone(), "default");
        let found = self.runtime.block_on(events.list(&ListParams::default())).unwrap();
        let ours = found.into_iter().filter(|event| {
            let about = event.regarding.clone().unwrap_or_default();
            let about = (about.kind.as_deref(), about.name.as_deref(), about.uid.is_some());
            about == (Some("Service"), Some(name), true) && event.type_.as_deref() == Some("Warning")
        });
        ours.map(|event| format!("{}: {}", event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    fn contents(&self) -> String {
        normalise(&Maps::open(&self.sandbox.pin_dir()).unwrap().dump().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(agent) = self.agent.take() {
            let ended = agent.join().unwrap();
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
    }
}

/// Serves the Kubernetes API on loopback; returns what ends it, and the administrator's and the agent's kubeconfig.
fn serve_api(folder: &std::path::Path) -> (DropGuard, PathBuf, PathBuf) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Ipv4Addr::new(192, 168, 77, 10).into();
    pki::ensure(folder, port, "node-1", &[address]).unwrap();
    let file = |name: &str| folder.join("pki").join(name);
    let config = Config {
        listeners: vec![listener],
        tls: TlsFiles { certificate: file("apiserver.crt"), key: file("apiserver.key"), client_ca: file("ca.crt") },
        service_accounts: ServiceAccountKeys {
            private_key: file("sa.key"),
            public_key: file("sa.pub"),
            issuer: ServiceAccountKeys::DEFAULT_ISSUER.into(),
        },
        store: Arc::new(Embedded::open(&folder.join("store"), Options::default()).unwrap()),
        service_cidrs: vec!["10.96.0.0/16".into()],
        advertise_addresses: vec![address],
        advertise_port: 6443,
        kubelet: None,
        limits: control_apiserver::Limits::default(),
    };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    std::thread::spawn(move || {
        Runtime::new().unwrap().block_on(control_apiserver::serve(config, token)).unwrap();
    });
    let kubeconfig = |name: &str| folder.join("kubeconfig").join(name);
    (shutdown.drop_guard(), kubeconfig("admin.yaml"), kubeconfig("agent.yaml"))
}

/// A server that says its name.
fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((ENDPOINT, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(name.as_bytes());
        }
    });
    address
}

/// Who answers there.
fn dial(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut name = String::new();
    stream.read_to_string(&mut name)?;
    Ok(name)
}

fn get(path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", 10249))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

#[test]
fn a_full_map_refuses_what_does_not_fit_says_so_and_serves_the_rest() {
    // The API server's own Service, and one more.
    let mut node = Node::new(MapSizes { frontends: 2, ..MapSizes::default() });
    node.sandbox.enter_cgroup();
    assert!(wait_for(LIMIT, || node.contents().matches("frontend").count() == 1), "{}", node.contents());
    let fits = node.create("fits", server("fits"));
    assert!(wait_for(LIMIT, || dial(fits).is_ok_and(|name| name == "fits")), "{}", node.contents());
    let before = node.contents();

    // Nothing of the one too many is in any map, and it is told three ways.
    let extra = node.create("extra", server("extra"));
    assert!(wait_for(LIMIT, || !node.notes("extra").is_empty()), "no event: {}", get("/status"));
    let told = "there is no room for it: frontends_max is 2";
    let note = format!("NotServed: {extra}/TCP is not served as it should be on node node-1: {told}");
    assert_eq!(node.notes("extra"), [note]);
    assert_eq!(node.notes("fits"), Vec::<String>::new());
    assert_eq!(node.contents(), before);
    assert!(get("/metrics").contains("tidegate_agent_frontends_refused 1"), "{}", get("/metrics"));
    let status = get("/status");
    assert!(status.contains("default/extra") && status.contains(told), "{status}");
    assert!(get("/healthz").starts_with("HTTP/1.1 200"), "other Services are served: the agent is healthy");

    // The others are served, and change as ever.
    assert_eq!(dial(fits).unwrap(), "fits");
    assert_eq!(dial(extra).unwrap_err().raw_os_error(), Some(nix::libc::ENETUNREACH));
    // Room comes: it is served without anybody's doing.
    node.delete("fits");
    assert!(wait_for(LIMIT, || dial(extra).is_ok_and(|name| name == "extra")), "{}", node.contents());
    assert!(wait_for(LIMIT, || get("/metrics").contains("tidegate_agent_frontends_refused 0")));
    assert_eq!(node.notes("extra").len(), 1, "retries are no news");
}
