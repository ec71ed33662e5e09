//! The real packet programs on crafted packets, by BPF_PROG_TEST_RUN: verdicts, counters, and bytes left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use dataplane_abi::calls;
use dataplane_abi::counters::ReasonCounters;
use dataplane_abi::endpoint::Endpoint;
use dataplane_abi::event::hook;
use dataplane_abi::frontend::{Frontend, FrontendKey};
use dataplane_abi::reason::Reason;
use dataplane_user::kernel::{self, Attachment, DeviceClass, Kernel, KernelConfig, KernelError, Maps, Side};
use tidegate_tests::kernel_sandbox::{KernelSandbox, ip, wait_for};
use tidegate_tests::packet::Packet;

/// "No opinion": the next program, then the stack.
const NEXT: u32 = -1_i32 as u32;
const DROP: u32 = 2;
/// Test runs happen on the loopback interface.
const LOOPBACK: u32 = 1;

const POD4: [u8; 4] = [10, 244, 0, 2];
const OTHER4: [u8; 4] = [10, 244, 0, 3];
const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 2);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 3);

/// A kernel side with one pod, whose programs are run directly.
struct Fixture {
    kernel: Kernel,
    sandbox: KernelSandbox,
}

impl Fixture {
    fn new() -> Self {
        let sandbox = KernelSandbox::new();
        let mut kernel = open(&sandbox);
        let endpoint = Endpoint { ifindex: LOOPBACK, ..Endpoint::default() };
        kernel.maps.v4.endpoints.insert(&std::net::Ipv4Addr::from(POD4).into(), &endpoint).unwrap();
        kernel.maps.v6.endpoints.insert(&POD6.into(), &endpoint).unwrap();
        Self { kernel, sandbox }
    }

    /// Runs a packet through an entry program; returns the verdict and what was counted, by reason.
    fn run(&self, program: &str, frame: &[u8]) -> (u32, Vec<(Reason, ReasonCounters)>) {
        let before = self.kernel.maps.reason_counters.dump().unwrap();
        let pin = self.sandbox.pin_dir().join(format!("generations/{}/{program}", self.kernel.generation()));
        let program = SchedClassifier::from_pin(pin).unwrap();
        let mut out = vec![0; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        assert_eq!(&out[..result.data_size_out as usize], frame, "the packet was changed");
        let counted = self.kernel.maps.reason_counters.dump().unwrap().into_iter().filter_map(|(reason, after)| {
            let (count, bytes) = (after.count - before[&reason].count, after.bytes - before[&reason].bytes);
            (count > 0).then_some((reason, ReasonCounters { count, bytes }))
        });
        (result.return_value, counted.collect())
    }

    /// Asserts a packet's verdict and the one reason it is counted for.
    #[track_caller]
    fn expect(&self, program: &str, frame: &[u8], verdict: u32, reason: Reason) {
        let counters = ReasonCounters { count: 1, bytes: frame.len() as u64 };
        assert_eq!(self.run(program, frame), (verdict, vec![(reason, counters)]), "{program}");
    }
}

fn open(sandbox: &KernelSandbox) -> Kernel {
    Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).unwrap()
}

#[test]
fn packets_of_the_interface_s_pod_pass_in_both_directions_and_families() {
    let fixture = Fixture::new();
    let out4 = Packet::new().ipv4(POD4, OTHER4).tcp(40_000, 80).payload(b"x").build();
    let in4 = Packet::new().ipv4(OTHER4, POD4).udp(53, 40_000).build();
    let out6 = Packet::new().ipv6(POD6, OTHER6).udp(40_000, 53).payload(b"query").build();
    let in6 = Packet::new().ipv6(OTHER6, POD6).tcp(80, 40_000).build();
    for (frame, program, reason) in [
        (out4, "pod_from", Reason::PodEgressPassed),
        (in4, "pod_to", Reason::PodIngressPassed),
        (out6, "pod_from", Reason::PodEgressPassed),
        (in6, "pod_to", Reason::PodIngressPassed),
    ] {
        fixture.expect(program, &frame, NEXT, reason);
    }
}

#[test]
fn addresses_that_are_not_the_pod_s_pass_but_are_counted_apart() {
    let mut fixture = Fixture::new();
    let spoofed4 = Packet::new().ipv4(OTHER4, POD4).tcp(1, 2).build();
    fixture.expect("pod_from", &spoofed4, NEXT, Reason::UnknownEndpoint);
    let spoofed6 = Packet::new().ipv6(OTHER6, POD6).tcp(1, 2).build();
    fixture.expect("pod_from", &spoofed6, NEXT, Reason::UnknownEndpoint);
    // A pod's address on another pod's interface.
    let elsewhere = Endpoint { ifindex: LOOPBACK + 1, ..Endpoint::default() };
    fixture.kernel.maps.v4.endpoints.insert(&std::net::Ipv4Addr::from(OTHER4).into(), &elsewhere).unwrap();
    fixture.expect("pod_from", &spoofed4, NEXT, Reason::UnknownEndpoint);
    // A pod that has left.
    assert!(fixture.kernel.maps.v6.endpoints.remove(&POD6.into()).unwrap());
    let out6 = Packet::new().ipv6(POD6, OTHER6).tcp(1, 2).build();
    fixture.expect("pod_from", &out6, NEXT, Reason::UnknownEndpoint);
}

#[test]
fn what_is_not_ip_passes() {
    let fixture = Fixture::new();
    fixture.expect("pod_from", &Packet::new().arp().build(), NEXT, Reason::NotIp);
    fixture.expect("pod_to", &Packet::new().payload(&[0x88; 46]).build(), NEXT, Reason::NotIp);
    // A tag inside the frame (one that the interface did not take off) hides what is behind it.
    let tagged = Packet::new().vlan(42).ipv4(POD4, OTHER4).tcp(1, 2).build();
    fixture.expect("pod_from", &tagged, NEXT, Reason::NotIp);
}

#[test]
fn header_options_are_no_obstacle() {
    let fixture = Fixture::new();
    let frame = Packet::new().ipv4(POD4, OTHER4).ipv4_options(40).udp(1, 2).payload(b"x").build();
    fixture.expect("pod_from", &frame, NEXT, Reason::PodEgressPassed);
}

#[test]
fn truncated_packets_are_dropped_counted_and_reported() {
    let fixture = Fixture::new();
    let mut events = fixture.kernel.events().unwrap();
    let four = Packet::new().ipv4(POD4, OTHER4).tcp(1, 2).payload(&[7; 32]).build();
    let six = Packet::new().ipv6(POD6, OTHER6).tcp(1, 2).payload(&[7; 32]).build();
    // Short of a byte, and of everything behind the fixed header (the test run itself refuses shorter ones).
    for (frame, length) in [(&four, four.len() - 1), (&four, 14 + 20), (&six, six.len() - 1), (&six, 14 + 40)] {
        fixture.expect("pod_from", &frame[..length], DROP, Reason::Truncated);
        let event = events.try_next().expect("no event");
        let told = (event.reason, event.hook, event.length, event.ifindex);
        assert_eq!(told, (Reason::Truncated.number(), hook::POD_EGRESS, length as u32, LOOPBACK));
        assert!(event.timestamp_ns > 0);
    }
    let mut nonsense = four.clone();
    nonsense[14] = 0x41;
    fixture.expect("pod_to", &nonsense, DROP, Reason::Truncated);
    assert_eq!(events.try_next().map(|event| (event.hook, event.family)), Some((hook::POD_INGRESS, 4)));
    assert_eq!(events.try_next(), None);
}

#[test]
fn a_missing_family_program_passes_the_packet() {
    let fixture = Fixture::new();
    let pin = fixture.sandbox.pin_dir().join(format!("generations/{}/calls", fixture.kernel.generation()));
    let map = aya::maps::Map::from_map_data(aya::maps::MapData::from_pin(pin).unwrap()).unwrap();
    let mut array = aya::maps::ProgramArray::try_from(map).unwrap();
    array.clear_index(&calls::FROM_POD4).unwrap();
    let frame = Packet::new().ipv4(POD4, OTHER4).tcp(1, 2).build();
    fixture.expect("pod_from", &frame, NEXT, Reason::TailCallMissing);
}

#[test]
fn interfaces_are_attached_once_however_often_the_agent_starts() {
    let fixture = Fixture::new();
    ip(&["link", "add", "tgpod", "type", "veth", "peer", "name", "peer"]);
    ip(&["link", "set", "tgpod", "up"]);
    fixture.kernel.attach("tgpod", DeviceClass::Pod).unwrap();
    fixture.kernel.attach("tgpod", DeviceClass::Pod).unwrap();
    let ifindex = nix::net::if_::if_nametoindex("tgpod").unwrap();
    let expected = [Side::Ingress, Side::Egress].map(|side| Attachment { ifindex, class: DeviceClass::Pod, side });
    assert_eq!(fixture.kernel.attachments().unwrap(), expected);
    let programs = attached_programs();

    // The agent dies: programs stay. It starts again: each side runs the new program, and only that.
    let Fixture { kernel, sandbox } = fixture;
    drop(kernel);
    assert_eq!(attached_programs(), programs);
    let kernel = open(&sandbox);
    let renewed = attached_programs();
    assert_eq!(renewed.len(), 2);
    assert!(renewed.iter().all(|program| !programs.contains(program)), "{programs:?} {renewed:?}");
    assert_eq!(kernel.attachments().unwrap(), expected);
    let generations = fs::read_dir(sandbox.pin_dir().join("generations")).unwrap().count();
    assert_eq!((kernel.generation(), generations), (2, 1));

    // An interface that is gone leaves nothing, and detaching takes both sides off.
    kernel.detach("tgpod").unwrap();
    assert_eq!((attached_programs(), kernel.attachments().unwrap()), (vec![], vec![]));
    kernel.attach("tgpod", DeviceClass::Pod).unwrap();
    ip(&["link", "del", "tgpod"]);
    assert!(wait_for(Duration::from_secs(5), || kernel.attachments().unwrap().is_empty()));
    assert!(
        !fs::read_dir(sandbox.pin_dir().join("links"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("pod_") })
    );
    assert!(matches!(kernel.attach("tgpod", DeviceClass::Pod), Err(KernelError::NoInterface { .. })));
}

/// The programs on both sides of the test's interface, by id.
fn attached_programs() -> Vec<u32> {
    use aya::programs::tc::TcAttachType;
    [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .flat_map(|side| SchedClassifier::query_tcx("tgpod", side).unwrap().1)
        .map(|program| program.id())
        .collect()
}

#[test]
fn maps_survive_the_agent_and_are_checked_before_they_are_adopted() {
    let Fixture { mut kernel, sandbox } = Fixture::new();
    let key = FrontendKey { address: std::net::Ipv4Addr::from(POD4).into(), ..FrontendKey::default() };
    let frontend = Frontend { id: 7, ..Frontend::default() };
    kernel.maps.v4.frontends.insert(&key, &frontend).unwrap();
    kernel.maps.frontend_counters.ensure(7).unwrap();
    drop(kernel);
    let maps = Maps::open(&sandbox.pin_dir()).unwrap();
    assert_eq!(maps.v4.frontends.dump().unwrap(), [(key, frontend)].into());
    assert_eq!(maps.frontend_counters.dump().unwrap().keys().collect::<Vec<_>>(), [&7]);
    drop(maps);

    // A map of another version goes; one that claims this version but is laid out differently stops the start.
    let folder = sandbox.pin_dir().join("maps");
    fs::rename(folder.join("slots_v1"), folder.join("slots_v0")).unwrap();
    let kernel = open(&sandbox);
    assert!(!folder.join("slots_v0").exists() && folder.join("slots_v1").exists());
    assert_eq!(kernel.maps.v4.frontends.get(&key).unwrap(), Some(frontend));
    drop(kernel);
    fs::remove_file(folder.join("slots_v1")).unwrap();
    fs::rename(folder.join("config_v1"), folder.join("slots_v1")).unwrap();
    let refused = Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).err();
    assert!(matches!(refused, Some(KernelError::Layout { found_key: 4, key: 12, .. })), "{refused:?}");
}

#[test]
fn a_full_map_says_so_and_removing_everything_leaves_nothing() {
    let sandbox = KernelSandbox::new();
    let mut config = KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup());
    config.sizes.endpoints = 2;
    let mut kernel = Kernel::open(&config).unwrap();
    let endpoints = &mut kernel.maps.v4.endpoints;
    let inserted: Vec<_> = (0..3)
        .map(|last| endpoints.insert(&std::net::Ipv4Addr::new(10, 0, 0, last).into(), &Endpoint::default()))
        .collect();
    assert!(matches!(inserted[..], [Ok(()), Ok(()), Err(KernelError::Full { map: "endpoints4", entries: 2 })]));
    assert!(!endpoints.remove(&std::net::Ipv4Addr::new(10, 0, 0, 9).into()).unwrap());
    drop(kernel);
    kernel::remove_all(&sandbox.pin_dir()).unwrap();
    kernel::remove_all(&sandbox.pin_dir()).unwrap();
    assert!(!sandbox.pin_dir().exists());
    assert!(matches!(Maps::open(&sandbox.pin_dir()), Err(KernelError::NoMap { .. })));
}

#[test]
fn pins_need_a_bpf_file_system() {
    let sandbox = KernelSandbox::new();
    let folder = std::env::temp_dir().join("tidegate-no-bpf");
    let refused = Kernel::open(&KernelConfig::new(&folder, sandbox.cgroup())).err();
    assert!(matches!(refused, Some(KernelError::NotBpfFs { .. })), "{refused:?}");
    assert!(!folder.exists());
    let events = open(&sandbox).events().unwrap();
    assert!(events.as_raw_fd() > 0);
}
