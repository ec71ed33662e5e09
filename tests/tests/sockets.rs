//! The real socket programs under real sockets: in a network namespace and a cgroup of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use dataplane_abi::backend::{Backend, state};
use dataplane_abi::counters::FrontendCounters;
use dataplane_abi::event::hook;
use dataplane_abi::frontend::{Frontend, FrontendKey, Interval};
use dataplane_abi::protocol::{TCP, UDP};
use dataplane_abi::reason::Reason;
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_abi::{Be16, Ip4, Ip6};
use dataplane_user::kernel::{Family, Kernel, KernelConfig, Maps};
use tidegate_tests::kernel_sandbox::KernelSandbox;

const VIP4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa);
/// An address that no frontend has and no route leads to.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);
const PORT: u16 = 80;

/// A kernel side whose socket programs rule this process.
struct Fixture {
    kernel: Kernel,
    sandbox: KernelSandbox,
}

impl Fixture {
    fn new() -> Self {
        let mut sandbox = KernelSandbox::new();
        let kernel = open(&sandbox);
        sandbox.enter_cgroup();
        Self { kernel, sandbox }
    }

    fn passed(&self) -> u64 {
        self.kernel.maps.reason_counters.get(Reason::SocketPassed).unwrap().count
    }

    fn counters(&self, frontend: u32) -> FrontendCounters {
        self.kernel.maps.frontend_counters.get(frontend).unwrap().unwrap()
    }
}

fn open(sandbox: &KernelSandbox) -> Kernel {
    Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).unwrap()
}

/// Publishes a frontend as the agent would: backends, slots of the next epoch, then the frontend.
fn publish<A: Family>(maps: &mut Maps, key: FrontendKey<A>, id: u32, epoch: u32, backends: &[(u32, A, u16)]) {
    maps.frontend_counters.ensure(id).unwrap();
    for (index, (backend, address, port)) in backends.iter().enumerate() {
        let value = Backend { address: *address, port: Be16::new(*port), protocol: key.protocol, state: state::ACTIVE };
        A::tables_mut(maps).backends.insert(backend, &value).unwrap();
        let slot = SlotKey { frontend: id, epoch, index: index as u32 };
        maps.slots.insert(&slot, &Slot { backend: *backend }).unwrap();
    }
    let cluster = Interval { start: 0, count: backends.len() as u32 };
    let frontend = Frontend { id, epoch, cluster, local: cluster, ..Frontend::default() };
    A::tables_mut(maps).frontends.insert(&key, &frontend).unwrap();
}

fn key4(protocol: u8) -> FrontendKey<Ip4> {
    FrontendKey { address: VIP4.into(), port: Be16::new(PORT), protocol, scope: 0 }
}

fn key6(protocol: u8) -> FrontendKey<Ip6> {
    FrontendKey { address: VIP6.into(), port: Be16::new(PORT), protocol, scope: 0 }
}

/// A TCP server that answers every byte with its name.
fn tcp_server(address: IpAddr, name: u8) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[name]).is_ok() {}
            });
        }
    });
    port
}

/// A UDP server that answers every datagram with its name.
fn udp_server(address: IpAddr, name: u8) -> u16 {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[name], client);
        }
    });
    port
}

fn ask(stream: &mut TcpStream) -> u8 {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"?").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

fn mapped(address: Ipv4Addr) -> IpAddr {
    IpAddr::V6(address.to_ipv6_mapped())
}

#[test]
fn a_dialled_vip_reaches_its_backend_and_keeps_its_name() {
    let mut fixture = Fixture::new();
    let port4 = tcp_server(Ipv4Addr::LOCALHOST.into(), b'4');
    let port6 = tcp_server(Ipv6Addr::LOCALHOST.into(), b'6');
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), port4)]);
    publish(&mut fixture.kernel.maps, key6(TCP), 2, 1, &[(12, Ipv6Addr::LOCALHOST.into(), port6)]);

    for (vip, name) in [(IpAddr::V4(VIP4), b'4'), (IpAddr::V6(VIP6), b'6'), (mapped(VIP4), b'4')] {
        let mut stream = TcpStream::connect((vip, PORT)).unwrap_or_else(|error| panic!("{vip}: {error}"));
        assert_eq!(stream.peer_addr().unwrap(), SocketAddr::new(vip, PORT), "{vip}");
        assert_eq!(ask(&mut stream), name, "{vip}");
    }
    assert_eq!(fixture.counters(1).connections, 2);
    assert_eq!(fixture.counters(2).connections, 1);
    assert_eq!(fixture.passed(), 0);

    // What was not dialled by VIP is left alone, also in name.
    let direct = TcpStream::connect((Ipv4Addr::LOCALHOST, port4)).unwrap();
    assert_eq!(direct.peer_addr().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, port4)));
    let unreachable = TcpStream::connect((NOWHERE, PORT)).unwrap_err();
    assert_eq!(unreachable.raw_os_error(), Some(nix::libc::ENETUNREACH));
    let other_port = TcpStream::connect((VIP4, PORT + 1)).unwrap_err();
    assert_eq!(other_port.raw_os_error(), Some(nix::libc::ENETUNREACH));
    assert_eq!(fixture.passed(), 3);
}

#[test]
fn a_vip_without_endpoints_refuses() {
    let mut fixture = Fixture::new();
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 1, &[]);
    publish(&mut fixture.kernel.maps, key6(TCP), 2, 1, &[]);
    let mut events = fixture.kernel.events().unwrap();
    for vip in [IpAddr::V4(VIP4), IpAddr::V6(VIP6), mapped(VIP4)] {
        let refused = TcpStream::connect((vip, PORT)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{vip}: {refused}");
        let event = events.try_next().expect("no event");
        assert_eq!(event.destination.to_canonical(), vip.to_canonical());
        let told = (event.reason, event.hook, event.destination_port, event.protocol);
        assert_eq!(told, (Reason::NoEndpoint.number(), hook::CONNECT, Be16::new(PORT), TCP));
    }
    assert_eq!((fixture.counters(1).rejections, fixture.counters(2).rejections), (2, 1));
    assert_eq!(fixture.kernel.maps.reason_counters.get(Reason::NoEndpoint).unwrap().count, 3);
}

#[test]
fn connections_are_spread_over_the_backends_and_follow_a_flip() {
    let mut fixture = Fixture::new();
    let local = Ipv4Addr::LOCALHOST;
    let ports = [b'a', b'b', b'c'].map(|name| tcp_server(local.into(), name));
    let backends = [(11, local.into(), ports[0]), (12, local.into(), ports[1]), (13, local.into(), ports[2])];
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 1, &backends);
    let answers =
        |count| -> Vec<u8> { (0..count).map(|_| ask(&mut TcpStream::connect((VIP4, PORT)).unwrap())).collect() };
    let first = answers(150);
    for name in [b'a', b'b', b'c'] {
        // The odds against fewer than 20 of 150 at one third each are over ten million to one.
        assert!(first.iter().filter(|answer| **answer == name).count() >= 20, "{first:?}");
    }
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 2, &backends[2..]);
    assert_eq!(answers(20), vec![b'c'; 20]);
}

#[test]
fn a_dead_agent_changes_nothing_and_a_new_one_attaches_nothing_twice() {
    let mut fixture = Fixture::new();
    let port = tcp_server(Ipv4Addr::LOCALHOST.into(), b'x');
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), port)]);
    let mut old = TcpStream::connect((VIP4, PORT)).unwrap();
    let Fixture { kernel, sandbox } = fixture;
    drop(kernel);
    assert_eq!(ask(&mut TcpStream::connect((VIP4, PORT)).unwrap()), b'x');

    let fixture = Fixture { kernel: open(&sandbox), sandbox };
    let before = fixture.passed();
    let mut new = TcpStream::connect((VIP4, PORT)).unwrap();
    // A second program would meet the backend's address, and count it as passed.
    assert_eq!(fixture.passed(), before);
    assert_eq!(fixture.counters(1).connections, 3);
    for stream in [&mut old, &mut new] {
        assert_eq!(ask(stream), b'x');
        assert_eq!(stream.peer_addr().unwrap(), SocketAddr::from((VIP4, PORT)));
    }

    // With everything removed, the next call is an ordinary one; the connections stay.
    dataplane_user::kernel::remove_all(&fixture.sandbox.pin_dir()).unwrap();
    let Fixture { kernel, sandbox: _sandbox } = fixture;
    drop(kernel);
    let unreachable = TcpStream::connect((VIP4, PORT)).unwrap_err();
    assert_eq!(unreachable.raw_os_error(), Some(nix::libc::ENETUNREACH));
    assert_eq!((ask(&mut old), ask(&mut new)), (b'x', b'x'));
}

#[test]
fn the_programs_follow_the_node_to_another_cgroup_even_when_the_old_one_is_gone() {
    let Fixture { kernel, sandbox } = Fixture::new();
    drop(kernel);
    let passed = || Maps::open(&sandbox.pin_dir()).unwrap().reason_counters.get(Reason::SocketPassed).unwrap().count;
    let other = sandbox.cgroup().join("other");
    std::fs::create_dir(&other).unwrap();
    let moved = Kernel::open(&KernelConfig::new(sandbox.pin_dir(), &other));
    // The process is in the parent: the programs no longer see it.
    let _ = TcpStream::connect((NOWHERE, PORT));
    let away = passed();
    std::fs::remove_dir(&other).unwrap();
    moved.unwrap();
    let _back = open(&sandbox);
    let _ = TcpStream::connect((NOWHERE, PORT));
    assert_eq!((away, passed()), (0, 1));
}

#[test]
fn connected_udp_keeps_its_peer_s_name_and_backend() {
    let mut fixture = Fixture::new();
    let port = udp_server(Ipv4Addr::LOCALHOST.into(), b'u');
    let port6 = udp_server(Ipv6Addr::LOCALHOST.into(), b'v');
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), port)]);
    publish(&mut fixture.kernel.maps, key6(UDP), 2, 1, &[(12, Ipv6Addr::LOCALHOST.into(), port6)]);
    for (own, vip, name) in [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(VIP4), b'u'),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(VIP6), b'v'),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), mapped(VIP4), b'u'),
    ] {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect((vip, PORT)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), SocketAddr::new(vip, PORT));
        socket.send(b"?").unwrap();
        let mut answer = [0; 4];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (&[name][..], SocketAddr::new(vip, PORT)), "{vip}");
    }
}

#[test]
fn a_connected_udp_socket_may_also_send_to_a_named_vip() {
    let mut fixture = Fixture::new();
    let first = udp_server(Ipv4Addr::LOCALHOST.into(), b'1');
    let second = udp_server(Ipv4Addr::LOCALHOST.into(), b'2');
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), first)]);
    let other = FrontendKey { port: Be16::new(PORT + 1), ..key4(UDP) };
    publish(&mut fixture.kernel.maps, other, 2, 1, &[(12, Ipv4Addr::LOCALHOST.into(), second)]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect((VIP4, PORT)).unwrap();
    let mut answer = [0; 4];
    socket.send_to(b"?", (VIP4, PORT)).unwrap();
    assert_eq!(socket.recv_from(&mut answer).unwrap(), (1, (VIP4, PORT).into()));
    // The kernel gives a connected socket its peer's datagrams only: this one's answer is not for it.
    socket.send_to(b"?", (VIP4, PORT + 1)).unwrap();
    socket.send(b"?").unwrap();
    assert_eq!(socket.recv_from(&mut answer).unwrap(), (1, (VIP4, PORT).into()));
    assert_eq!((answer[0], fixture.counters(2).connections), (b'1', 1));
}

#[test]
fn every_kind_of_datagram_to_a_vip_without_endpoints_is_refused_at_the_call() {
    let mut fixture = Fixture::new();
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 1, &[]);
    publish(&mut fixture.kernel.maps, key6(UDP), 2, 1, &[]);
    for (own, vip) in [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(VIP4)),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(VIP6)),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), mapped(VIP4)),
    ] {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        let sent = socket.send_to(b"?", (vip, PORT)).unwrap_err();
        let connected = socket.connect((vip, PORT)).unwrap_err();
        let kinds = (sent.kind(), connected.kind());
        assert_eq!(kinds, (ErrorKind::ConnectionRefused, ErrorKind::ConnectionRefused), "{vip}: {sent}, {connected}");
    }
    assert_eq!((fixture.counters(1).rejections, fixture.counters(2).rejections), (4, 2));
    assert_eq!(fixture.kernel.maps.reason_counters.get(Reason::NoEndpoint).unwrap().count, 6);
}

#[test]
fn a_socket_that_dials_its_backend_directly_forgets_the_vip() {
    let mut fixture = Fixture::new();
    let port = udp_server(Ipv4Addr::LOCALHOST.into(), b'u');
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), port)]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for address in [SocketAddr::from((VIP4, PORT)), (Ipv4Addr::LOCALHOST, port).into(), (VIP4, PORT).into()] {
        socket.connect(address).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), address);
    }
}

#[test]
fn unconnected_udp_hears_from_the_vip_and_stays_with_its_backend_while_that_lives() {
    let mut fixture = Fixture::new();
    let local = Ipv4Addr::LOCALHOST;
    let ports = [b'a', b'b', b'c', b'd'].map(|name| udp_server(local.into(), name));
    let backends: Vec<_> = ports.iter().zip(11..).map(|(port, id)| (id, local.into(), *port)).collect();
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 1, &backends);
    let port6 = udp_server(Ipv6Addr::LOCALHOST.into(), b'v');
    publish(&mut fixture.kernel.maps, key6(UDP), 2, 1, &[(21, Ipv6Addr::LOCALHOST.into(), port6)]);

    let ask = |socket: &UdpSocket, vip: IpAddr| -> u8 {
        socket.send_to(b"?", (vip, PORT)).unwrap();
        let mut answer = [0; 4];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((length, from), (1, SocketAddr::new(vip, PORT)));
        answer[0]
    };
    let dual = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let plain = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for (socket, vip) in [(&plain, IpAddr::V4(VIP4)), (&dual, mapped(VIP4))] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let first = ask(socket, vip);
        for _ in 0..20 {
            assert_eq!(ask(socket, vip), first, "{vip}");
        }
    }
    // One socket, two frontends of two families.
    assert_eq!(ask(&dual, IpAddr::V6(VIP6)), b'v');
    assert_eq!(fixture.counters(1).connections, 2);

    // The frontend changes but keeps the backend: so does the socket. It loses the backend: the socket moves on.
    let kept = ask(&plain, VIP4.into());
    let position = usize::from(kept - b'a');
    let reordered: Vec<_> = backends.iter().copied().rev().collect();
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 2, &reordered);
    assert_eq!(ask(&plain, VIP4.into()), kept);
    let others: Vec<_> = (0..4).filter(|index| *index != position).map(|index| backends[index]).collect();
    publish(&mut fixture.kernel.maps, key4(UDP), 1, 3, &others);
    let next = ask(&plain, VIP4.into());
    assert_ne!(next, kept);
    assert_eq!(ask(&plain, VIP4.into()), next);

    // Datagrams to other addresses go where they are sent.
    plain.send_to(b"?", (local, ports[0])).unwrap();
    let mut answer = [0; 4];
    let (_, from) = plain.recv_from(&mut answer).unwrap();
    assert_eq!(answer[0], b'a');
    assert!(from == SocketAddr::from((local, ports[0])) || from == SocketAddr::from((VIP4, PORT)));

    publish(&mut fixture.kernel.maps, key4(UDP), 1, 4, &[]);
    let refused = plain.send_to(b"?", (VIP4, PORT)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn sockets_outside_the_node_s_namespace_can_be_left_alone() {
    let sandbox = KernelSandbox::new();
    let mut fixture = {
        let mut config = KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup());
        config.socket_host_only = true;
        let kernel = Kernel::open(&config).unwrap();
        Fixture { kernel, sandbox }
    };
    fixture.sandbox.enter_cgroup();
    let port = tcp_server(Ipv4Addr::LOCALHOST.into(), b'h');
    publish(&mut fixture.kernel.maps, key4(TCP), 1, 1, &[(11, Ipv4Addr::LOCALHOST.into(), port)]);
    assert_eq!(ask(&mut TcpStream::connect((VIP4, PORT)).unwrap()), b'h');
    let elsewhere = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        TcpStream::connect((VIP4, PORT)).unwrap_err().raw_os_error()
    });
    assert_eq!(elsewhere.join().unwrap(), Some(nix::libc::ENETUNREACH));
    assert_eq!(fixture.kernel.maps.reason_counters.get(Reason::SocketSkipped).unwrap().count, 1);
    assert_eq!(fixture.counters(1).connections, 1);
}
