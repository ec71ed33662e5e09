//! The whole agent on a real kernel: a file as its source, real pods, real connections through ClusterIPs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use dataplane_user::agent::{self, Args};
use dataplane_user::apply::{ServiceMaps, normalise};
use dataplane_user::cni::{self, AddRequest, NetworkConfig, PodNetwork};
use dataplane_user::inspect;
use dataplane_user::kernel::Maps;
use tidegate_tests::kernel_sandbox::{KernelSandbox, wait_for};
use tidegate_tests::pod::PodNamespace;
use tokio_util::sync::CancellationToken;

const VIP4: &str = "10.96.0.10";
const VIP6: &str = "fd00:10:96::a";
const LIMIT: Duration = Duration::from_secs(10);

/// A node: sandbox, pod network, folders.
struct Node {
    runtime: tokio::runtime::Runtime,
    network: PodNetwork,
    folder: tempfile::TempDir,
    sandbox: KernelSandbox,
}

/// A running agent.
struct Agent {
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

/// A pod with a server that answers with the pod's name, then echoes.
struct Pod {
    name: String,
    ips: Vec<IpAddr>,
    namespace: PodNamespace,
}

impl Node {
    fn new() -> Self {
        let sandbox = KernelSandbox::new();
        let folder = tempfile::tempdir().unwrap();
        let network = PodNetwork::new(NetworkConfig {
            bridge: "tg0".to_owned(),
            pod_cidrs: ["10.244.0.0/24", "fd00:10:244::/64"].map(|cidr| cidr.parse().unwrap()).to_vec(),
            mtu: Some(1400),
            agent_pin_dir: Some(sandbox.pin_dir()),
            state_dir: cni::state_dir(folder.path()),
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(network.ensure_bridge()).unwrap();
        let node = Self { runtime, network, folder, sandbox };
        node.tell(&[]);
        node
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source.yaml")
    }

    /// Makes the source tell a Service with these pods; none at all withdraws the Service too.
    fn tell(&self, pods: &[&Pod]) {
        let mut text = String::new();
        if !pods.is_empty() {
            text.push_str(&format!(
                "kind: Service\nmetadata: {{namespace: default, name: web}}\n\
                 spec: {{clusterIPs: [{VIP4}, \"{VIP6}\"], ports: [{{name: http, port: 80}}]}}\n"
            ));
            for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
                let labels = "labels: {kubernetes.io/service-name: web}";
                text.push_str(&format!(
                    "---\nkind: EndpointSlice\nmetadata: {{namespace: default, name: web-{family}, {labels}}}\n\
                     addressType: {kind}\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
                ));
                for pod in pods {
                    text.push_str(&format!("- {{addresses: [\"{}\"], nodeName: test}}\n", pod.ips[family]));
                }
            }
        }
        // In one step, as an editor or a mounted ConfigMap would do it.
        let temporary = self.source().with_extension("tmp");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.source()).unwrap();
    }

    fn start_agent(&self) -> Agent {
        let shutdown = CancellationToken::new();
        let args = Args {
            kubeconfig: None,
            node_name: Some("test".to_owned()),
            pin_dir: Some(self.sandbox.pin_dir()),
            cgroup: Some(self.sandbox.cgroup().to_owned()),
            run_dir: Some(self.folder.path().to_owned()),
            metrics_bind_address: "127.0.0.1:10249".parse().unwrap(),
            healthz_bind_address: "0.0.0.0:10256".parse().unwrap(),
            source_file: Some(self.source()),
            resync_interval: 1,
            cleanup: false,
        };
        let token = shutdown.clone();
        // The thread inherits this test's namespaces.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(agent::serve(args, token))
        });
        let agent = Agent { shutdown, thread: Some(thread) };
        assert!(
            wait_for(LIMIT, || get(10256, "/healthz").starts_with("HTTP/1.1 200")),
            "the agent never became healthy"
        );
        agent
    }

    fn connect(&self, name: &str, namespace: &PodNamespace) -> Result<cni::Attachment, cni::Error> {
        self.runtime.block_on(self.network.add(AddRequest {
            container_id: name.to_owned(),
            netns: namespace.path().to_owned(),
            ifname: "eth0".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: name.to_owned(),
            pod_uid: name.to_owned(),
            socket_lb: true,
        }))
    }

    fn add_pod(&self, name: &str) -> Pod {
        let namespace = PodNamespace::new();
        let attachment = self.connect(name, &namespace).unwrap();
        let pod = Pod { name: name.to_owned(), ips: attachment.ips.iter().map(|ip| ip.addr()).collect(), namespace };
        for ip in pod.ips.clone() {
            let (name, listener) =
                (pod.name.clone(), pod.namespace.run(move || TcpListener::bind((ip, 8080)).unwrap()));
            std::thread::spawn(move || serve(&name, &listener));
        }
        pod
    }

    fn maps(&self) -> Maps {
        Maps::open(&self.sandbox.pin_dir()).unwrap()
    }

    fn contents(&self) -> String {
        normalise(&self.maps().dump().unwrap())
    }

    fn ids(&self) -> BTreeSet<(String, u32)> {
        let contents = self.maps().dump().unwrap();
        let frontends = contents.frontends.iter().map(|(key, value)| (key.to_string(), value.id));
        frontends.chain(contents.backends.iter().map(|(id, backend)| (backend.key.to_string(), *id))).collect()
    }

    fn place(&self) -> inspect::Node {
        inspect::Node {
            node_name: Some("test".to_owned()),
            pin_dir: Some(self.sandbox.pin_dir()),
            run_dir: Some(self.folder.path().to_owned()),
            output: inspect::Output::Table,
        }
    }
}

impl Agent {
    fn stop(mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(name: &str, listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let name = format!("{name:<8}");
        std::thread::spawn(move || {
            let mut byte = [0];
            if stream.write_all(name.as_bytes()).is_err() {
                return;
            }
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
    }
}

/// Connects and returns who answered.
fn dial(vip: &str) -> std::io::Result<(TcpStream, String)> {
    let address = SocketAddr::new(vip.parse().unwrap(), 80);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    assert_eq!(stream.peer_addr().unwrap(), address, "getpeername must name the ClusterIP");
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut name = [0; 8];
    stream.read_exact(&mut name)?;
    Ok((stream, String::from_utf8_lossy(&name).trim().to_owned()))
}

fn answering(vip: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| dial(vip).unwrap().1).collect()
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *b"x"
}

fn get(port: u16, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

#[test]
fn an_agent_serves_is_killed_and_comes_back_without_a_connection_noticing() {
    let mut node = Node::new();
    node.sandbox.enter_cgroup();
    let agent = node.start_agent();
    let before = node.contents();
    let pods = ["one", "two", "three"].map(|name| node.add_pod(name));
    let [one, two, three] = &pods;
    let endpoint_count =
        || node.maps().v4.endpoints.dump().unwrap().len() + node.maps().v6.endpoints.dump().unwrap().len();
    assert_eq!(endpoint_count(), 6, "a pod was connected before the agent served it");

    node.tell(&[one, two]);
    assert!(wait_for(LIMIT, || node.contents().matches("frontend").count() == 2), "{}", node.contents());
    for vip in [VIP4, VIP6] {
        assert_eq!(answering(vip, 40), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    }
    let (mut held, server) = dial(VIP4).unwrap();

    // Without an agent everything goes on; with the next one identities are the same.
    let ids = node.ids();
    agent.stop();
    assert!(echoes(&mut held));
    assert_eq!(answering(VIP6, 20).len(), 2);
    let agent = node.start_agent();
    assert_eq!(node.ids(), ids);
    assert!(echoes(&mut held));

    // The pod of the held connection leaves the Service: new ones go elsewhere, the old one stays.
    let (stays, leaves) = if server == "one" { (two, one) } else { (one, two) };
    node.tell(&[stays, three]);
    let expected = BTreeSet::from([stays.name.clone(), three.name.clone()]);
    assert!(wait_for(LIMIT, || answering(VIP4, 20) == expected), "{} still answers", leaves.name);
    assert!(echoes(&mut held));

    let metrics = get(10249, "/metrics");
    let sample = metrics.lines().find(|line| line.starts_with("tidegate_agent_service_connections_total{")).unwrap();
    assert!(sample.contains("namespace=\"default\"") && sample.contains("service=\"web\""), "{sample}");
    assert!(sample.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 100.0, "{sample}");
    assert!(get(10249, "/proxyMode").ends_with("tidegate"));
    for command in [
        inspect::Command::Service { action: inspect::ServiceAction::List(node.place()) },
        inspect::Command::Service {
            action: inspect::ServiceAction::Show { name: "web".to_owned(), node: node.place() },
        },
        inspect::Command::Endpoint { action: inspect::EndpointAction::List(node.place()) },
        inspect::Command::Doctor(node.place()),
    ] {
        inspect::run(command).unwrap();
    }

    // Someone else writes to a map: the comparison of everything repairs it.
    let mut maps = node.maps();
    let frontends = maps.v4.frontends.dump().unwrap();
    maps.v4.frontends.remove(frontends.keys().next().unwrap()).unwrap();
    assert!(wait_for(LIMIT, || node.contents().matches("frontend").count() == 2), "the drift was not repaired");

    // Everything is withdrawn.
    node.tell(&[]);
    for pod in &pods {
        node.runtime.block_on(node.network.del(&pod.name)).unwrap();
    }
    assert!(wait_for(LIMIT, || node.contents() == before && endpoint_count() == 0), "{}", node.contents());
    agent.stop();
}

#[test]
fn no_pod_starts_without_an_agent_that_serves_it() {
    let node = Node::new();
    let pod = PodNamespace::new();
    let refused = node.connect("early", &pod).unwrap_err();
    assert!(matches!(refused, cni::Error::Unserved { .. }), "{refused}");
    let left = nix::net::if_::if_nametoindex(cni::host_ifname("early").as_str());
    assert!(left.is_err(), "its interface is still there");
    let _agent = node.start_agent();
    node.connect("early", &pod).unwrap();
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let mut node = Node::new();
    node.sandbox.enter_cgroup();
    let _agent = node.start_agent();
    std::fs::write(
        node.source(),
        format!(
            "kind: Service\nmetadata: {{namespace: a, name: web}}\nspec: {{clusterIP: {VIP4}, ports: [{{port: 80}}]}}\n"
        ),
    )
    .unwrap();
    assert!(wait_for(LIMIT, || node.contents().contains("frontend")));
    let refused = dial(VIP4).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let rejections =
        || get(10249, "/metrics").contains("service_rejections_total{namespace=\"a\",service=\"web\",port=\"\"} 1");
    assert!(wait_for(LIMIT, rejections), "{}", get(10249, "/metrics"));
}
