//! Real sockets of pods whose sockets are left alone: their packets go through the programs on the pods' interfaces.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use dataplane_abi::endpoint::Endpoint;
use dataplane_abi::protocol::{TCP, UDP};
use dataplane_abi::reason::Reason;
use dataplane_abi::{Ip4, Ip6};
use dataplane_user::cni::{self, AddRequest, NetworkConfig, PodNetwork, record};
use dataplane_user::kernel::{DeviceClass, Kernel, KernelConfig};
use tidegate_tests::kernel_sandbox::KernelSandbox;
use tidegate_tests::pod::PodNamespace;

use crate::{BACKEND_PORT, Scene, VIP_PORT, publish};

/// A node with pods on a bridge, whose packets go through the programs.
struct Node {
    kernel: Kernel,
    network: PodNetwork,
    runtime: tokio::runtime::Runtime,
    state: tempfile::TempDir,
    sandbox: KernelSandbox,
}

struct Pod {
    namespace: PodNamespace,
    ips: Vec<IpAddr>,
}

impl Node {
    fn new() -> Self {
        let sandbox = KernelSandbox::new();
        let state = tempfile::tempdir().unwrap();
        let network = PodNetwork::new(NetworkConfig {
            bridge: "tg0".to_owned(),
            pod_cidrs: ["10.244.3.0/24", "fd00:10:244:3::/64"].map(|cidr| cidr.parse().unwrap()).to_vec(),
            mtu: Some(1400),
            agent_pin_dir: None,
            state_dir: state.path().to_owned(),
        })
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(network.ensure_bridge()).unwrap();
        let kernel = Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).unwrap();
        Self { kernel, network, runtime, state, sandbox }
    }

    /// Connects a pod; its endpoint and its switch are written as the agent would.
    fn pod(&mut self, id: &str, socket_lb: bool) -> Pod {
        let namespace = PodNamespace::new();
        let request = AddRequest {
            container_id: id.to_owned(),
            netns: namespace.path().to_owned(),
            ifname: "eth0".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: id.to_owned(),
            pod_uid: id.to_owned(),
            socket_lb,
        };
        let attachment = self.runtime.block_on(self.network.add(request)).unwrap();
        let records = record::list(self.state.path()).unwrap();
        let record = records.iter().find(|record| record.container_id == id).unwrap();
        assert!(record.netns_cookie != 0 && record.socket_lb == socket_lb);
        if !socket_lb {
            self.kernel.maps.socket_off.insert(&record.netns_cookie, &1).unwrap();
        }
        self.kernel.attach(&cni::host_ifname(id), DeviceClass::Pod).unwrap();
        let endpoint = Endpoint {
            ifindex: attachment.host_ifindex,
            mac: record.mac.0,
            gateway_mac: record.gateway_mac.0,
            ..Endpoint::default()
        };
        let ips: Vec<IpAddr> = attachment.ips.iter().map(|ip| ip.addr()).collect();
        for ip in &ips {
            match ip {
                IpAddr::V4(ip) => self.kernel.maps.v4.endpoints.insert(&(*ip).into(), &endpoint).unwrap(),
                IpAddr::V6(ip) => self.kernel.maps.v6.endpoints.insert(&(*ip).into(), &endpoint).unwrap(),
            }
        }
        Pod { namespace, ips }
    }
}

impl Pod {
    /// A TCP and a UDP server that answer everything with the client's address and what they got.
    fn serve(&self, ip: IpAddr) {
        let (listener, socket) = self.namespace.run(move || {
            (TcpListener::bind((ip, BACKEND_PORT)).unwrap(), UdpSocket::bind((ip, BACKEND_PORT)).unwrap())
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 65_536];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], client);
            }
        });
    }
}

fn echo(stream: &mut TcpStream, length: usize) {
    let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut got = vec![0; length];
    stream.read_exact(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == bytes, "the bytes changed on their way");
}

/// IPv4 addresses as mapped ones.
fn as_an_ipv6_socket_says(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Datagrams of a new socket, and their echoes, which come from where they were sent to.
fn datagrams(vip: SocketAddr, connected: bool) {
    let own = if vip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
    let socket = UdpSocket::bind((own, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2_000];
    for length in [1, 2, 1_000] {
        if connected {
            socket.connect(vip).unwrap();
            socket.send(&vec![7; length]).unwrap();
        } else {
            socket.send_to(&vec![7; length], vip).unwrap();
        }
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (length, vip));
        assert!(buffer[..length].iter().all(|byte| *byte == 7));
    }
}

fn real_sockets<A: Scene>(family: usize) {
    let mut node = Node::new();
    // Now the socket programs see this process: only the switch makes the packet path do the work.
    node.sandbox.enter_cgroup();
    let server = node.pod("server", true);
    let client = node.pod("client", false);
    server.serve(server.ips[family]);
    client.serve(client.ips[family]);
    for protocol in [TCP, UDP] {
        let backend = [(u32::from(protocol), server.ips[family], BACKEND_PORT)];
        publish::<A>(&mut node.kernel.maps, protocol, 1, &backend, 0);
    }
    let vip = SocketAddr::new(A::VIP, VIP_PORT);
    let mut open = client.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), vip);
        echo(&mut stream, 3_000_000);
        for dialled in [vip, as_an_ipv6_socket_says(vip)] {
            for connected in [true, false] {
                datagrams(dialled, connected);
            }
        }
        stream
    });
    let maps = &node.kernel.maps;
    assert_eq!(maps.reason_counters.get(Reason::SocketTranslated).unwrap().count, 0);
    assert!(maps.reason_counters.get(Reason::SocketSkipped).unwrap().count >= 1);
    assert!(maps.reason_counters.get(Reason::ServiceReply).unwrap().count > 10);
    assert_eq!(maps.frontend_counters.get(u32::from(TCP)).unwrap().unwrap().connections, 1);

    // The endpoint leaves: the open connection goes on; new ones are refused, at once.
    for protocol in [TCP, UDP] {
        publish::<A>(&mut node.kernel.maps, protocol, 2, &[], 0);
        A::tables_mut(&mut node.kernel.maps).backends.remove(&u32::from(protocol)).unwrap();
    }
    echo(&mut open, 100_000);
    drop(open);
    client.namespace.run(move || {
        let refused = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        let own = if vip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(vip).unwrap();
        socket.send(b"?").unwrap();
        let refused = socket.recv(&mut [0; 4]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    });

    // A pod that is its own backend.
    for protocol in [TCP, UDP] {
        let itself = [(100 + u32::from(protocol), client.ips[family], BACKEND_PORT)];
        publish::<A>(&mut node.kernel.maps, protocol, 3, &itself, 0);
    }
    client.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap();
        echo(&mut stream, 100_000);
    });

    // The other pod's sockets are translated as ever.
    let before = node.kernel.maps.reason_counters.get(Reason::SocketTranslated).unwrap().count;
    server.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap();
        echo(&mut stream, 1_000);
    });
    assert_eq!(node.kernel.maps.reason_counters.get(Reason::SocketTranslated).unwrap().count, before + 1);
}

#[test]
fn real_sockets_of_a_pod_whose_sockets_are_left_alone_ipv4() {
    real_sockets::<Ip4>(0);
}

#[test]
fn real_sockets_of_a_pod_whose_sockets_are_left_alone_ipv6() {
    real_sockets::<Ip6>(1);
}
