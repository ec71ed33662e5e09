//! The pod network library on real interfaces, in network namespaces of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane_user::cni::{AddRequest, Attachment, NetworkConfig, PodNetwork, host_ifname, record};
use tidegate_tests::kernel_sandbox::KernelSandbox;
use tidegate_tests::pod::PodNamespace;

struct Node {
    network: PodNetwork,
    runtime: tokio::runtime::Runtime,
    state: tempfile::TempDir,
    _sandbox: KernelSandbox,
}

impl Node {
    fn new(pod_cidrs: &[&str]) -> Self {
        let sandbox = KernelSandbox::new();
        let state = tempfile::tempdir().unwrap();
        let network = PodNetwork::new(NetworkConfig {
            bridge: "tg0".to_owned(),
            pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            mtu: Some(1400),
            agent_pin_dir: None,
            state_dir: state.path().to_owned(),
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(network.ensure_bridge()).unwrap();
        Self { network, runtime, state, _sandbox: sandbox }
    }

    fn add(&self, id: &str, pod: &PodNamespace) -> Attachment {
        self.runtime.block_on(self.network.add(request(id, pod.path()))).unwrap()
    }
}

fn request(id: &str, netns: impl AsRef<Path>) -> AddRequest {
    AddRequest {
        container_id: id.to_owned(),
        netns: netns.as_ref().to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_name: format!("pod-{id}"),
        pod_uid: format!("uid-{id}"),
        socket_lb: true,
    }
}

fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// Sends a line from one pod to an address that another listens on, and gets it back.
fn talk(server: &PodNamespace, client: &PodNamespace, address: IpAddr) -> IpAddr {
    let listener = server.run(move || TcpListener::bind((address, 8080)).unwrap());
    let echo = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut line = [0; 5];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        peer.ip()
    });
    client.run(move || {
        let mut stream = TcpStream::connect_timeout(&(address, 8080).into(), Duration::from_secs(5)).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut line = [0; 5];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello");
    });
    echo.join().unwrap()
}

#[test]
fn pods_reach_each_other_themselves_and_their_gateway_over_both_families() {
    let node = Node::new(&["10.244.3.0/24", "fd00:10:244:3::/64"]);
    node.runtime.block_on(node.network.ensure_bridge()).unwrap();
    let (first_pod, second_pod) = (PodNamespace::new(), PodNamespace::new());
    let start = Instant::now();
    let first = node.add("a", &first_pod);
    println!("one pod connected in {:?}", start.elapsed());
    let second = node.add("b", &second_pod);

    let text = |attachment: &Attachment| attachment.ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&first), ["10.244.3.2/24", "fd00:10:244:3::2/64"]);
    assert_eq!(text(&second), ["10.244.3.3/24", "fd00:10:244:3::3/64"]);
    assert_eq!(first.gateways, ["10.244.3.1".parse::<IpAddr>().unwrap(), "fd00:10:244:3::1".parse().unwrap()]);
    assert_eq!((first.mtu, first.host_ifname.as_str()), (1400, host_ifname("a").as_str()));
    node.runtime.block_on(node.network.check("a")).unwrap();

    for family in 0..2 {
        let (here, there) = (first.ips[family].addr(), second.ips[family].addr());
        assert_eq!(talk(&second_pod, &first_pod, there), here, "the source address must stay");
        assert_eq!(talk(&first_pod, &first_pod, here), here);
        // From the node itself, by the bridge's address.
        let listener = second_pod.run(move || TcpListener::bind((there, 8081)).unwrap());
        TcpStream::connect_timeout(&(there, 8081).into(), Duration::from_secs(5)).unwrap();
        drop(listener);
    }

    let records = record::list(node.state.path()).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].pod.name.as_str(), records[0].ips.clone()), ("pod-a", first.ips.clone()));
    assert_ne!(records[0].gateway_mac.0, [0; 6]);
}

#[test]
fn a_repeated_add_gives_the_same_and_del_and_gc_leave_nothing() {
    let node = Node::new(&["10.244.3.0/29", "fd00:10:244:3::/64"]);
    let pods: Vec<PodNamespace> = (0..3).map(|_| PodNamespace::new()).collect();
    let first = node.add("a", &pods[0]);
    let again = node.add("a", &pods[0]);
    assert_eq!((&first.ips, first.mac), (&again.ips, again.mac));
    for (id, pod) in ["b", "c"].into_iter().zip(&pods[1..]) {
        node.add(id, pod);
    }

    for _ in 0..2 {
        node.runtime.block_on(node.network.del("a")).unwrap();
    }
    assert!(!interface_exists(&first.host_ifname));
    assert!(node.runtime.block_on(node.network.check("a")).is_err());
    // The freed address comes last.
    let fourth = node.add("d", &pods[0]);
    assert_ne!(fourth.ips[0], first.ips[0]);

    // The namespace of "b" ends without a del, as after a crash.
    let gone = node.runtime.block_on(node.network.gc(&BTreeSet::from(["c".to_owned()]))).unwrap();
    assert_eq!(gone, ["b", "d"]);
    assert!(interface_exists(&host_ifname("c")) && !interface_exists(&host_ifname("b")));
    assert_eq!(record::list(node.state.path()).unwrap().len(), 1);
    node.runtime.block_on(node.network.del("c")).unwrap();
    let left: Vec<_> = std::fs::read_dir(node.state.path().join("ipam"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.parse::<IpAddr>().is_ok())
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_failed_add_is_undone() {
    let node = Node::new(&["10.244.3.0/24"]);
    let failed = node.runtime.block_on(node.network.add(request("a", "/nonexistent/netns")));
    assert!(failed.is_err());
    assert!(!interface_exists(&host_ifname("a")));
    assert_eq!(record::list(node.state.path()).unwrap(), []);
    assert!(node.runtime.block_on(node.network.gc(&BTreeSet::new())).unwrap().is_empty());
}

#[test]
fn pods_are_connected_at_the_same_time() {
    let node = Node::new(&["10.244.3.0/24", "fd00:10:244:3::/64"]);
    let pods: Vec<PodNamespace> = (0..8).map(|_| PodNamespace::new()).collect();
    let added =
        pods.iter().enumerate().map(|(number, pod)| node.network.add(request(&format!("p{number}"), pod.path())));
    let start = Instant::now();
    let attachments: Vec<Attachment> =
        node.runtime.block_on(futures::future::join_all(added)).into_iter().map(Result::unwrap).collect();
    println!("8 pods connected in {:?}", start.elapsed());
    let addresses: BTreeSet<_> = attachments.iter().flat_map(|attachment| attachment.ips.clone()).collect();
    assert_eq!(addresses.len(), 16);
    talk(&pods[7], &pods[0], attachments[7].ips[1].addr());
}
