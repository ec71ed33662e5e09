//! The per-packet Service path: the real programs on crafted packets, compared byte by byte, and under real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod sockets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use dataplane_abi::backend::{Backend, state};
use dataplane_abi::conntrack::flow_state;
use dataplane_abi::counters::FrontendCounters;
use dataplane_abi::endpoint::Endpoint;
use dataplane_abi::frontend::{Frontend, FrontendKey, Interval, flag};
use dataplane_abi::protocol::{TCP, UDP};
use dataplane_abi::reason::Reason;
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_abi::{Be16, Ip4, Ip6};
use dataplane_user::kernel::{Family, Kernel, KernelConfig, MapSizes, Maps};
use tidegate_tests::kernel_sandbox::KernelSandbox;
use tidegate_tests::packet::{Packet, checksum};

/// "No opinion": the next program, then the stack.
const NEXT: u32 = -1_i32 as u32;
const DROP: u32 = 2;
const REDIRECT: u32 = 7;
/// Test runs happen on the loopback interface.
const LOOPBACK: u32 = 1;

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// A family's addresses of the same scene: a pod, a backend on another node, a local one, a VIP.
trait Scene: Family + Copy {
    const POD: IpAddr;
    const REMOTE: IpAddr;
    const LOCAL: IpAddr;
    const VIP: IpAddr;
    fn of(address: IpAddr) -> Self;
}

impl Scene for Ip4 {
    const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));
    const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 7, 9));
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 3));
    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

    fn of(address: IpAddr) -> Self {
        let IpAddr::V4(address) = address else { panic!("{address}") };
        address.into()
    }
}

impl Scene for Ip6 {
    const POD: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 2));
    const REMOTE: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 7, 0, 0, 0, 9));
    const LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 3));
    const VIP: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa));

    fn of(address: IpAddr) -> Self {
        let IpAddr::V6(address) = address else { panic!("{address}") };
        address.into()
    }
}

const CLIENT_PORT: u16 = 40_000;
const VIP_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

/// A packet between two addresses.
fn between(source: (IpAddr, u16), destination: (IpAddr, u16), protocol: u8) -> Packet {
    let packet = Packet::new();
    let packet = match (source.0, destination.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => packet.ipv4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet.ipv6(from, to),
        _ => panic!("two families"),
    };
    let packet = packet.links(GATEWAY_MAC, POD_MAC);
    if protocol == TCP { packet.tcp(source.1, destination.1) } else { packet.udp(source.1, destination.1) }
}

struct Fixture {
    kernel: Kernel,
    sandbox: KernelSandbox,
}

impl Fixture {
    fn new<A: Scene>() -> Self {
        Self::sized::<A>(MapSizes::default())
    }

    fn sized<A: Scene>(sizes: MapSizes) -> Self {
        let sandbox = KernelSandbox::new();
        let config = KernelConfig { sizes, ..KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup()) };
        let mut kernel = Kernel::open(&config).unwrap();
        let endpoints = &mut A::tables_mut(&mut kernel.maps).endpoints;
        let pod = Endpoint { ifindex: LOOPBACK, mac: POD_MAC, gateway_mac: GATEWAY_MAC, ..Endpoint::default() };
        endpoints.insert(&A::of(A::POD), &pod).unwrap();
        let local = Endpoint { ifindex: 99, mac: BACKEND_MAC, ..pod };
        endpoints.insert(&A::of(A::LOCAL), &local).unwrap();
        Self { kernel, sandbox }
    }

    /// Runs a packet through an entry program; returns the verdict and the packet after it.
    fn run(&self, program: &str, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 128];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.program(program).test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    fn program(&self, name: &str) -> SchedClassifier {
        let pin = self.sandbox.pin_dir().join(format!("generations/{}/{name}", self.kernel.generation()));
        SchedClassifier::from_pin(pin).unwrap()
    }

    #[track_caller]
    fn expect(&self, program: &str, packet: &Packet, verdict: u32, after: &Packet) {
        let (given, frame) = self.run(program, &packet.build());
        assert_eq!((given, frame), (verdict, after.build()), "{program} {packet:?}");
    }

    fn count(&self, reason: Reason) -> u64 {
        self.kernel.maps.reason_counters.get(reason).unwrap().count
    }

    fn counters(&self, frontend: u32) -> FrontendCounters {
        self.kernel.maps.frontend_counters.get(frontend).unwrap().unwrap()
    }

    /// How many entries are among the unanswered and the answered flows.
    fn flows<A: Scene>(&self) -> (usize, usize) {
        let tables = A::tables(&self.kernel.maps);
        (tables.flows_unanswered.dump().unwrap().len(), tables.flows_answered.dump().unwrap().len())
    }
}

/// Publishes a frontend as the agent would: backends, slots of the next epoch, then the frontend.
fn publish<A: Scene>(maps: &mut Maps, protocol: u8, epoch: u32, backends: &[(u32, IpAddr, u16)], flags: u32) {
    let id = u32::from(protocol);
    maps.frontend_counters.ensure(id).unwrap();
    for (index, (backend, address, port)) in backends.iter().enumerate() {
        let value = Backend { address: A::of(*address), port: Be16::new(*port), protocol, state: state::ACTIVE };
        A::tables_mut(maps).backends.insert(backend, &value).unwrap();
        let slot = SlotKey { frontend: id, epoch, index: index as u32 };
        maps.slots.insert(&slot, &Slot { backend: *backend }).unwrap();
    }
    let cluster = Interval { start: 0, count: backends.len() as u32 };
    let local = if flags & flag::INTERNAL_LOCAL == 0 { cluster } else { Interval::default() };
    let frontend = Frontend { id, epoch, flags, cluster, local, ..Frontend::default() };
    let key = FrontendKey { address: A::of(A::VIP), port: Be16::new(VIP_PORT), protocol, scope: 0 };
    A::tables_mut(maps).frontends.insert(&key, &frontend).unwrap();
}

fn new_established_and_replied<A: Scene>(protocol: u8) {
    let mut fixture = Fixture::new::<A>();
    let (pod, vip, backend) = ((A::POD, CLIENT_PORT), (A::VIP, VIP_PORT), (A::REMOTE, BACKEND_PORT));
    publish::<A>(&mut fixture.kernel.maps, protocol, 1, &[(11, A::REMOTE, BACKEND_PORT)], 0);
    let request = |flags| between(pod, vip, protocol).tcp_flags(flags).payload(b"odd");
    let sent = |flags| between(pod, backend, protocol).tcp_flags(flags).payload(b"odd");
    let answer = |flags| between(backend, pod, protocol).tcp_flags(flags).payload(b"reply");
    let heard = |flags| between(vip, pod, protocol).tcp_flags(flags).payload(b"reply");

    fixture.expect("pod_from", &request(SYN), NEXT, &sent(SYN));
    fixture.expect("pod_from", &request(SYN), NEXT, &sent(SYN));
    assert_eq!(fixture.flows::<A>(), (2, 0));
    fixture.expect("pod_to", &answer(SYN_ACK), NEXT, &heard(SYN_ACK));
    assert_eq!(fixture.flows::<A>(), (0, 2));
    for _ in 0..3 {
        fixture.expect("pod_from", &request(ACK), NEXT, &sent(ACK));
        fixture.expect("pod_to", &answer(ACK), NEXT, &heard(ACK));
    }
    let counters = fixture.counters(u32::from(protocol));
    assert_eq!((counters.connections, counters.packets), (1, 9));
    assert_eq!((fixture.count(Reason::ServiceTranslated), fixture.count(Reason::ServiceReply)), (5, 4));

    // What is not the flow's is left alone: another port of the backend, another client port, the pod's own dialling.
    let other = between((A::REMOTE, BACKEND_PORT + 1), pod, protocol);
    fixture.expect("pod_to", &other, NEXT, &other);
    let other = between(backend, (A::POD, CLIENT_PORT + 1), protocol);
    fixture.expect("pod_to", &other, NEXT, &other);
    let direct = between((A::POD, CLIENT_PORT + 1), backend, protocol);
    fixture.expect("pod_from", &direct, NEXT, &direct);
    let other = between(pod, (A::VIP, VIP_PORT + 1), protocol);
    fixture.expect("pod_from", &other, NEXT, &other);
}

#[test]
fn packets_reach_the_backend_and_come_from_the_vip() {
    for protocol in [TCP, UDP] {
        new_established_and_replied::<Ip4>(protocol);
        new_established_and_replied::<Ip6>(protocol);
    }
}

fn endpoint_leaves<A: Scene>() {
    let mut fixture = Fixture::new::<A>();
    let (pod, vip) = ((A::POD, CLIENT_PORT), (A::VIP, VIP_PORT));
    let (old, new) = ((A::REMOTE, BACKEND_PORT), (A::REMOTE, BACKEND_PORT + 1));
    for protocol in [TCP, UDP] {
        publish::<A>(&mut fixture.kernel.maps, protocol, 1, &[(10 + u32::from(protocol), old.0, old.1)], 0);
        let sent = between(pod, old, protocol);
        fixture.expect("pod_from", &between(pod, vip, protocol), NEXT, &sent);
        fixture.expect(
            "pod_to",
            &between(old, pod, protocol).tcp_flags(SYN_ACK),
            NEXT,
            &between(vip, pod, protocol).tcp_flags(SYN_ACK),
        );
        publish::<A>(&mut fixture.kernel.maps, protocol, 2, &[(50 + u32::from(protocol), new.0, new.1)], 0);
        A::tables_mut(&mut fixture.kernel.maps).backends.remove(&(10 + u32::from(protocol))).unwrap();
    }
    // The open connection stays until it closes, even without its Service; datagrams move on.
    let tcp = |flags| between(pod, vip, TCP).tcp_flags(flags);
    fixture.expect("pod_from", &tcp(ACK), NEXT, &between(pod, old, TCP).tcp_flags(ACK));
    fixture.expect("pod_from", &between(pod, vip, UDP), NEXT, &between(pod, new, UDP));
    fixture.expect("pod_to", &between(new, pod, UDP), NEXT, &between(vip, pod, UDP));
    let key = FrontendKey { address: A::of(A::VIP), port: Be16::new(VIP_PORT), protocol: TCP, scope: 0 };
    let frontend = A::tables(&fixture.kernel.maps).frontends.get(&key).unwrap().unwrap();
    A::tables_mut(&mut fixture.kernel.maps).frontends.remove(&key).unwrap();
    fixture.expect("pod_from", &tcp(FIN_ACK), NEXT, &between(pod, old, TCP).tcp_flags(FIN_ACK));
    let back = |from, flags| between(from, pod, TCP).tcp_flags(flags);
    fixture.expect("pod_to", &back(old, ACK), NEXT, &back(vip, ACK));
    A::tables_mut(&mut fixture.kernel.maps).frontends.insert(&key, &frontend).unwrap();
    fixture.expect("pod_to", &back(old, FIN_ACK), NEXT, &back(vip, FIN_ACK));
    // Closed: its last packet still finds its way, and the next connection from that port goes to who serves now.
    let closed = A::tables(&fixture.kernel.maps).flows_unanswered.dump().unwrap();
    assert!(closed.values().filter(|flow| flow.state == flow_state::CLOSED).count() == 2, "{closed:?}");
    fixture.expect("pod_from", &tcp(ACK), NEXT, &between(pod, old, TCP).tcp_flags(ACK));
    fixture.expect("pod_from", &tcp(SYN), NEXT, &between(pod, new, TCP));
}

#[test]
fn a_connection_outlives_its_endpoint_and_datagrams_move_on() {
    endpoint_leaves::<Ip4>();
    endpoint_leaves::<Ip6>();
}

#[test]
fn the_agent_s_restart_keeps_flows() {
    let mut fixture = Fixture::new::<Ip4>();
    publish::<Ip4>(&mut fixture.kernel.maps, TCP, 1, &[(11, Ip4::REMOTE, BACKEND_PORT)], 0);
    let (pod, vip, backend) = ((Ip4::POD, CLIENT_PORT), (Ip4::VIP, VIP_PORT), (Ip4::REMOTE, BACKEND_PORT));
    fixture.expect("pod_from", &between(pod, vip, TCP), NEXT, &between(pod, backend, TCP));
    let syn_ack = |from| between(from, pod, TCP).tcp_flags(SYN_ACK);
    fixture.expect("pod_to", &syn_ack(backend), NEXT, &syn_ack(vip));
    let Fixture { kernel, sandbox } = fixture;
    drop(kernel);
    let kernel = Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).unwrap();
    let mut fixture = Fixture { kernel, sandbox };
    fixture.kernel.maps.v4.backends.remove(&11).unwrap();
    let ack = |to| between(pod, to, TCP).tcp_flags(ACK);
    fixture.expect("pod_from", &ack(vip), NEXT, &ack(backend));
}

fn local_and_own<A: Scene>(protocol: u8) {
    let mut fixture = Fixture::new::<A>();
    let (pod, vip) = ((A::POD, CLIENT_PORT), (A::VIP, VIP_PORT));
    publish::<A>(&mut fixture.kernel.maps, protocol, 1, &[(11, A::LOCAL, BACKEND_PORT)], 0);
    let sent = between(pod, (A::LOCAL, BACKEND_PORT), protocol).links(BACKEND_MAC, POD_MAC);
    fixture.expect("pod_from", &between(pod, vip, protocol), NEXT, &sent);

    // The pod serves itself: from an address that is not its own, and back into its interface.
    publish::<A>(&mut fixture.kernel.maps, protocol, 2, &[(12, A::POD, BACKEND_PORT)], 0);
    let itself = (A::HAIRPIN.to_ip6().to_canonical(), CLIENT_PORT + 1);
    let request = between((A::POD, CLIENT_PORT + 1), vip, protocol);
    let sent = between(itself, (A::POD, BACKEND_PORT), protocol).links(POD_MAC, GATEWAY_MAC);
    fixture.expect("pod_from", &request, REDIRECT, &sent);
    let answer = between((A::POD, BACKEND_PORT), itself, protocol).tcp_flags(SYN_ACK);
    let heard = between(vip, (A::POD, CLIENT_PORT + 1), protocol).tcp_flags(SYN_ACK).links(POD_MAC, GATEWAY_MAC);
    fixture.expect("pod_from", &answer, REDIRECT, &heard);
}

#[test]
fn a_local_backend_gets_its_link_address_and_a_pod_reaches_itself() {
    for protocol in [TCP, UDP] {
        local_and_own::<Ip4>(protocol);
        local_and_own::<Ip6>(protocol);
    }
}

fn nobody_serves<A: Scene>() {
    let mut fixture = Fixture::new::<A>();
    let (pod, vip) = ((A::POD, CLIENT_PORT), (A::VIP, VIP_PORT));
    for protocol in [TCP, UDP] {
        publish::<A>(&mut fixture.kernel.maps, protocol, 1, &[], 0);
    }
    let reset = |flags| between(vip, pod, TCP).links(POD_MAC, GATEWAY_MAC).tcp_flags(flags);
    fixture.expect("pod_from", &between(pod, vip, TCP), REDIRECT, &reset(RST | ACK).tcp_numbers(0, 2, 0));
    let data = between(pod, vip, TCP).tcp_flags(ACK).tcp_numbers(7, 9, 100).payload(b"hello");
    fixture.expect("pod_from", &data, REDIRECT, &reset(RST).tcp_numbers(9, 0, 0));
    let (verdict, _) = fixture.run("pod_from", &between(pod, vip, TCP).tcp_flags(RST).build());
    assert_eq!(verdict, DROP, "a reset is not answered");

    // The datagram's network header and eight bytes are quoted, whatever its length.
    for payload in [&b""[..], b"hello", &[7; 1_000]] {
        let datagram = between(pod, vip, UDP).payload(payload);
        let header = if A::FAMILY == 4 { 20 } else { 40 };
        let (kind, protocol) = if A::FAMILY == 4 { ([3, 3], 1) } else { ([1, 4], 58) };
        let mut message = [kind[0], kind[1], 0, 0, 0, 0, 0, 0].to_vec();
        message.extend(&datagram.build()[14..14 + header + 8]);
        let mut summed = match (A::VIP, A::POD) {
            (IpAddr::V6(vip), IpAddr::V6(pod)) => [vip.octets(), pod.octets()].concat(),
            _ => vec![],
        };
        if A::FAMILY == 6 {
            summed.extend([0, 0, 0, message.len() as u8, 0, 0, 0, protocol]);
        }
        summed.extend(&message);
        let sum = checksum(&summed).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let expected = between(vip, pod, UDP).links(POD_MAC, GATEWAY_MAC).protocol(protocol).payload(&message);
        fixture.expect("pod_from", &datagram, REDIRECT, &expected);
    }
    assert_eq!(fixture.count(Reason::NoEndpoint), 6);
    assert_eq!((fixture.counters(6).rejections, fixture.counters(17).rejections), (3, 3));
    assert_eq!(fixture.flows::<A>(), (0, 0));
}

#[test]
fn a_vip_without_endpoints_answers_at_once() {
    nobody_serves::<Ip4>();
    nobody_serves::<Ip6>();
}

#[test]
fn a_local_policy_without_local_endpoints_drops() {
    let mut fixture = Fixture::new::<Ip4>();
    publish::<Ip4>(&mut fixture.kernel.maps, TCP, 1, &[(11, Ip4::REMOTE, BACKEND_PORT)], flag::INTERNAL_LOCAL);
    let request = between((Ip4::POD, CLIENT_PORT), (Ip4::VIP, VIP_PORT), TCP);
    fixture.expect("pod_from", &request, DROP, &request);
    assert_eq!(fixture.count(Reason::NoLocalEndpointDropped), 1);
}

#[test]
fn two_vips_of_one_backend_do_not_mix_flows() {
    let mut fixture = Fixture::new::<Ip4>();
    let (pod, backend) = ((Ip4::POD, CLIENT_PORT), (Ip4::REMOTE, BACKEND_PORT));
    publish::<Ip4>(&mut fixture.kernel.maps, TCP, 1, &[(11, Ip4::REMOTE, BACKEND_PORT)], 0);
    let frontends = &mut fixture.kernel.maps.v4.frontends;
    let (key, frontend) = frontends.dump().unwrap().pop_first().unwrap();
    frontends.insert(&FrontendKey { port: Be16::new(VIP_PORT + 1), ..key }, &frontend).unwrap();
    fixture.expect("pod_from", &between(pod, (Ip4::VIP, VIP_PORT), TCP), NEXT, &between(pod, backend, TCP));
    fixture.run("pod_to", &between(backend, pod, TCP).tcp_flags(SYN_ACK).build());
    let second = between(pod, (Ip4::VIP, VIP_PORT + 1), TCP);
    fixture.expect("pod_from", &second, DROP, &second);
    assert_eq!(fixture.count(Reason::FlowCollision), 1);
}

fn more_flows_than_room<A: Scene>(protocol: u8) {
    const ROOM: u16 = 32;
    let mut fixture = Fixture::sized::<A>(MapSizes { flows: u32::from(ROOM) * 2, ..MapSizes::default() });
    publish::<A>(&mut fixture.kernel.maps, protocol, 1, &[(11, A::REMOTE, BACKEND_PORT)], 0);
    let (vip, backend) = ((A::VIP, VIP_PORT), (A::REMOTE, BACKEND_PORT));
    let exchange = |number: u16, first, second| {
        let pod = (A::POD, CLIENT_PORT + number);
        let to = |to| between(pod, to, protocol).tcp_flags(first);
        let from = |from| between(from, pod, protocol).tcp_flags(second);
        fixture.expect("pod_from", &to(vip), NEXT, &to(backend));
        fixture.expect("pod_to", &from(backend), NEXT, &from(vip));
    };
    for number in 0..ROOM {
        exchange(number, SYN, SYN_ACK);
    }
    assert_eq!((fixture.count(Reason::ConntrackFull), fixture.flows::<A>()), (0, (0, usize::from(ROOM) * 2)));
    // One too many: it works all the same, among those that can be pushed out; each answer tries again, and is counted.
    exchange(ROOM, SYN, SYN_ACK);
    exchange(ROOM, ACK, ACK);
    assert_eq!((fixture.count(Reason::ConntrackFull), fixture.flows::<A>()), (2, (2, usize::from(ROOM) * 2)));
    // Those that have their place keep it, and its end makes room.
    exchange(0, ACK, ACK);
    let oldest = A::tables(&fixture.kernel.maps).flows_answered.dump().unwrap().into_keys().take(2).collect::<Vec<_>>();
    for key in &oldest {
        A::tables_mut(&mut fixture.kernel.maps).flows_answered.remove(key).unwrap();
    }
    let pod = (A::POD, CLIENT_PORT + ROOM);
    let from = |from| between(from, pod, protocol).tcp_flags(ACK);
    fixture.expect("pod_to", &from(backend), NEXT, &from(vip));
    assert_eq!((fixture.count(Reason::ConntrackFull), fixture.flows::<A>()), (2, (0, usize::from(ROOM) * 2)));
}

#[test]
fn flows_beyond_the_room_for_answered_ones_work_and_are_counted() {
    for protocol in [TCP, UDP] {
        more_flows_than_room::<Ip4>(protocol);
        more_flows_than_room::<Ip6>(protocol);
    }
}

#[test]
fn fragments_options_and_foreign_packets() {
    let mut fixture = Fixture::new::<Ip4>();
    publish::<Ip4>(&mut fixture.kernel.maps, UDP, 1, &[(11, Ip4::REMOTE, BACKEND_PORT)], 0);
    let (pod, vip, backend) = ((Ip4::POD, CLIENT_PORT), (Ip4::VIP, VIP_PORT), (Ip4::REMOTE, BACKEND_PORT));
    let request = between(pod, vip, UDP).payload(b"hello");
    for word in [0x2000, 0x2001, 0x0001] {
        let fragment = request.clone().ipv4_fragment(word);
        fixture.expect("pod_from", &fragment, NEXT, &fragment);
    }
    assert_eq!(fixture.count(Reason::Fragment), 3);
    let options = |to| between(pod, to, UDP).payload(b"hello").ipv4_options(40);
    fixture.expect("pod_from", &options(vip), NEXT, &options(backend));
    // Another protocol to the same address, and another pod's packet on this interface.
    let icmp = between(pod, vip, UDP).protocol(1).payload(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    fixture.expect("pod_from", &icmp, NEXT, &icmp);
    let foreign = between((Ip4::LOCAL, CLIENT_PORT), vip, UDP);
    fixture.expect("pod_from", &foreign, NEXT, &foreign);
    assert_eq!(fixture.count(Reason::UnknownEndpoint), 1);
    // A datagram without a checksum keeps none; one that ends within its header goes.
    let mut unchecked = request.build();
    unchecked[14 + 20 + 6..14 + 20 + 8].copy_from_slice(&[0, 0]);
    let (_, after) = fixture.run("pod_from", &unchecked);
    assert_eq!(after[14 + 20 + 6..14 + 20 + 8], [0, 0]);
    let mut short = between(pod, vip, TCP).build();
    short.truncate(14 + 20 + 12);
    short[16..18].copy_from_slice(&32_u16.to_be_bytes());
    assert_eq!(fixture.run("pod_from", &short).0, DROP);
    assert_eq!(fixture.count(Reason::Truncated), 1);
}

/// Prints what a packet costs; the bound is only against something being very wrong.
#[test]
fn what_a_packet_costs() {
    let mut fixture = Fixture::new::<Ip4>();
    publish::<Ip4>(&mut fixture.kernel.maps, TCP, 1, &[(11, Ip4::REMOTE, BACKEND_PORT)], 0);
    let (pod, vip, backend) = ((Ip4::POD, CLIENT_PORT), (Ip4::VIP, VIP_PORT), (Ip4::REMOTE, BACKEND_PORT));
    fixture.run("pod_from", &between(pod, vip, TCP).build());
    fixture.run("pod_to", &between(backend, pod, TCP).tcp_flags(SYN_ACK).build());
    // A repeated run sees the packet as the last one left it, so only the first packet of each is a Service's: the
    // figures for translation come from single runs, the cheapest of many.
    for (name, program, packet) in [
        ("established to backend", "pod_from", between(pod, vip, TCP).tcp_flags(ACK)),
        ("established to client", "pod_to", between(backend, pod, TCP).tcp_flags(ACK)),
        ("no Service, from pod", "pod_from", between(pod, backend, TCP).tcp_flags(ACK)),
        ("no Service, to pod", "pod_to", between((Ip4::LOCAL, 1), pod, TCP).tcp_flags(ACK)),
    ] {
        let program = fixture.program(program);
        let frame = packet.build();
        let cost = (0..2_000)
            .map(|_| {
                let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
                program.test_run(options).unwrap().duration
            })
            .min()
            .unwrap();
        println!("{name}: {} ns", cost.as_nanos());
        assert!(cost < Duration::from_micros(20), "{name}: {cost:?}");
    }
}
