//! What starting and asking costs. Not a test that can fail, so it is no test: run it alone, on a quiet machine, with
//! `cargo bench -p control-runtime --bench speed -- --nocapture`. Needs root.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::Node;

const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    let node = Node::new().await;
    let (mut sandboxes, mut creates, mut starts, mut execs, mut stops, mut removes) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let mut memory = vec![];
    for round in 0..ROUNDS {
        let spec = node.sandbox_spec(&format!("p{round}"));
        let (sandbox, time) = timed(node.runtime.run_sandbox(spec)).await;
        let sandbox = sandbox.unwrap();
        sandboxes.push(time);
        let spec = node.shell("c", "sleep 1000");
        let (id, time) = timed(node.runtime.create_container(&sandbox.id, spec)).await;
        let id = id.unwrap();
        creates.push(time);
        starts.push(timed(node.runtime.start_container(&id)).await.1);
        let command = vec!["true".to_owned()];
        execs.push(timed(node.runtime.exec_sync(&id, command, Duration::from_secs(9), 9)).await.1);
        memory.push(private_kilobytes(&sandbox.netns));
        stops.push(timed(node.runtime.stop_container(&id, Duration::ZERO)).await.1);
        removes.push(timed(node.runtime.remove_sandbox(&sandbox.id)).await.1);
    }
    memory.sort_unstable();
    println!("shim: private memory {} KiB (median)", memory[memory.len() / 2]);
    let rows = [
        ("run_sandbox", sandboxes),
        ("create_container", creates),
        ("start_container", starts),
        ("exec_sync true", execs),
        ("stop_container, killed", stops),
        ("remove_sandbox", removes),
    ];
    for (name, mut times) in rows {
        times.sort_unstable();
        println!("{name}: p50 {:?}, p90 {:?}", times[times.len() / 2], times[times.len() * 9 / 10]);
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let before = Instant::now();
    let result = work.await;
    (result, before.elapsed())
}

/// Memory that only the shim uses, by its network namespace's path.
fn private_kilobytes(netns: &std::path::Path) -> u64 {
    let process = netns.ancestors().nth(2).unwrap();
    let text = fs::read_to_string(process.join("smaps_rollup")).unwrap();
    // Clean pages are those of the program file, which all shims and the node share.
    let fields = text.lines().filter_map(|line| line.strip_prefix("Private_Dirty:"));
    fields.map(|field| field.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
}
