//! Prints what one `find` and one changed Ingress cost at 100,000 rules:
//! `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo run -p ingress-route --example find_cost`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_route::{Compiler, HostPattern, PathMatch, RequestView, Rule, Source, find};

const HOSTS: u32 = 20_000;
const PATHS: u32 = 5;
const LOOKUPS: u32 = 200_000;

fn rules(host: u32, target: u32) -> Vec<Rule<u32>> {
    let source = Arc::new(Source { created: i64::from(host), namespace: "ns".into(), name: format!("i{host}").into() });
    let pattern = HostPattern::Exact(format!("app-{host}.apps.example.com").into());
    (0..PATHS)
        .map(|index| Rule {
            host: pattern.clone(),
            path: PathMatch::Prefix(format!("/api/v1/part{index}").into()),
            source: Arc::clone(&source),
            index,
            target,
        })
        .collect()
}

fn main() {
    let mut compiler = Compiler::default();
    let start = Instant::now();
    for host in 0..HOSTS {
        compiler.replace("ns", &format!("i{host}"), rules(host, host));
    }
    let table = compiler.publish();
    println!("compile {} rules: {:?}", HOSTS * PATHS, start.elapsed());

    let requests: Vec<_> = (0..LOOKUPS)
        .map(|i| {
            let host = i.wrapping_mul(2_654_435_761) % HOSTS;
            (format!("app-{host}.apps.example.com:8443"), format!("/api/v1/part{}/items/{i}", i % PATHS))
        })
        .collect();
    let mut costs: Vec<_> = requests
        .iter()
        .map(|(host, path)| {
            // A request was just parsed, so that its text is in the caches.
            black_box((host.bytes().map(u64::from).sum::<u64>(), path.bytes().map(u64::from).sum::<u64>()));
            let start = Instant::now();
            assert!(black_box(find(&table, &RequestView { host, path })).is_some());
            start.elapsed()
        })
        .collect();
    costs.sort_unstable();
    let clock = start_to_end_of_nothing();
    let (p50, p99) = (costs[costs.len() / 2], costs[costs.len() * 99 / 100]);
    println!("find: p50 {p50:?}, p99 {p99:?}, of which the clock {clock:?}");

    let mut changes: Vec<_> = (0..200)
        .map(|i| {
            let start = Instant::now();
            compiler.replace("ns", &format!("i{i}"), rules(i, HOSTS + i));
            black_box(compiler.publish());
            start.elapsed()
        })
        .collect();
    changes.sort_unstable();
    println!("change one Ingress and publish: p50 {:?}, p99 {:?}", changes[100], changes[198]);
}

/// What it costs to look at the clock twice.
fn start_to_end_of_nothing() -> Duration {
    let mut costs: Vec<_> = (0..1000).map(|_| Instant::now().elapsed()).collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}
