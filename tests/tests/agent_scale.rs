//! How the cost of a change depends on the size of the cluster: it must not. Real maps, no API server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane_plan::{Protocol, ServiceName};
use dataplane_user::kernel::{Kernel, KernelConfig, Maps};
use dataplane_user::names::Names;
use dataplane_user::reconcile::Reconciler;
use dataplane_user::source::{Change, Delta, NodeSpec, ServicePort, ServiceSpec, SliceEndpoint, SliceName, SliceSpec};
use tidegate_tests::kernel_sandbox::KernelSandbox;

const SERVICES: u32 = 10_000;

fn name(number: u32) -> ServiceName {
    ServiceName::new("default", format!("service-{number}"))
}

fn port(number: u16) -> ServicePort {
    ServicePort { name: "http".into(), port: number, protocol: Protocol::Tcp }
}

fn service(number: u32) -> (ServiceName, ServiceSpec) {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number);
    (name(number), ServiceSpec { cluster_ips: vec![address.into()], ports: vec![port(80)], internal_local: false })
}

fn slice(number: u32, endpoints: [u32; 2]) -> (SliceName, SliceSpec) {
    let endpoint = |number: u32| SliceEndpoint {
        address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number).into(),
        local: number.is_multiple_of(2),
        ready: true,
        serving: true,
        terminating: false,
    };
    let spec =
        SliceSpec { service: name(number), ports: vec![port(8080)], endpoints: endpoints.map(endpoint).to_vec() };
    (SliceName { namespace: "default".into(), name: format!("service-{number}-1").into() }, spec)
}

#[test]
fn one_changed_endpoint_costs_the_same_among_ten_thousand_services() {
    let sandbox = KernelSandbox::new();
    let _kernel = Kernel::open(&KernelConfig::new(sandbox.pin_dir(), sandbox.cgroup())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("frontends.jsonl");
    let maps = Maps::open(&sandbox.pin_dir()).unwrap();
    let mut reconciler = Reconciler::restore(maps, Names::open(journal).unwrap()).unwrap();
    reconciler.change(Change::Node(Delta::Replace(vec![("test".into(), NodeSpec::default())])));
    reconciler.change(Change::Slices(Delta::Replace((0..SERVICES).map(|n| slice(n, [2 * n, 2 * n + 1])).collect())));
    reconciler.change(Change::Services(Delta::Replace((0..SERVICES).map(service).collect())));

    let start = Instant::now();
    let first = reconciler.reconcile().unwrap();
    println!("{SERVICES} Services x 2 endpoints filled in {:?}, {} operations", start.elapsed(), first.operations());
    assert!(first.is_complete() && first.full);
    assert_eq!(reconciler.contents().frontends.len(), SERVICES as usize);

    let mut times: Vec<Duration> = Vec::new();
    for round in 0..50 {
        let number = round * 97;
        let start = Instant::now();
        let (name, spec) = slice(number, [2 * number, 1_000_000 + round]);
        reconciler.change(Change::Slices(Delta::Put(name, spec)));
        let outcome = reconciler.reconcile().unwrap();
        times.push(start.elapsed());
        // One backend comes, two slots and the frontend flip, two slots and a backend go.
        assert!(!outcome.full && outcome.operations() == 7, "{outcome:?}");
    }
    times.sort_unstable();
    println!("one changed endpoint: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);

    let start = Instant::now();
    assert_eq!(reconciler.resync().unwrap().operations(), 0);
    println!("everything read and compared in {:?}", start.elapsed());
    reconciler.change(Change::Services(Delta::Replace(Vec::new())));
    reconciler.reconcile().unwrap();
    assert_eq!(reconciler.resync().unwrap().operations(), 0);
    assert!(reconciler.contents().backends.is_empty() && reconciler.contents().slots.is_empty());
}
