//! The gateway against nginx and against a bare pingora proxy: CPU per request, and latency at a modest rate, over TLS.
//!
//! ```text
//! h2load ──TLS, HTTP/1.1 or 2──▶ tidegate ingress │ nginx │ bare pingora ──HTTP/1.1──▶ nginx (answers 1 KiB)
//!   cpu 0                                 the last cpu, one at a time                      cpu 0
//! ```
//! All three run at the same time with one serving thread each, without access logs, with the same certificate and
//! origin; the load takes turns between them (A B C A B C …), so that whatever else the machine does hits all alike.
//! Everything is on loopback, and the numbers of requests and seconds are fixed.

mod cpu;
mod load;
mod objects;
mod proxies;

use anyhow::Context;

use crate::bench::Pace;
use crate::bench::ingress::load::{Load, Protocol};
use crate::bench::ingress::proxies::{Bed, Proxy};
use crate::bench::report::{self, Measure, Target, median};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// The name under which each proxy serves the origin.
const HOST: &str = "bench.test";
const WARM_UP_REQUESTS: u32 = 2_000;

/// What the gateway may cost more than a peer. A gateway that routes, checks and counts may take a seventh more than
/// pingora alone; against nginx, pingora itself starts at 1.3 (HTTP/1.1) and 1.2 (HTTP/2) on such machines.
struct Peer {
    name: &'static str,
    cpu: [Target; 2],
    latency: Target,
}

const PEERS: [Peer; 2] = [
    Peer { name: "nginx", cpu: [Target::AtMost(1.55), Target::AtMost(1.35)], latency: Target::AtMost(1.5) },
    Peer { name: "bare pingora", cpu: [Target::AtMost(1.15), Target::AtMost(1.15)], latency: Target::AtMost(1.25) },
];

/// One turn of one proxy.
#[derive(Debug, Clone, Copy)]
struct Sample {
    cpu_us_per_request: f64,
    p99_us: f64,
}

pub(crate) fn measure(pace: Pace) -> anyhow::Result<Vec<Measure>> {
    let bed = Bed::set_up()?;
    let load = match pace {
        Pace::Quick => Load { requests: 10_000, seconds: 2 },
        Pace::Full => Load { requests: 40_000, seconds: 5 },
    };
    let rounds = match pace {
        Pace::Quick => 5,
        Pace::Full => 11,
    };
    for proxy in &bed.proxies {
        for protocol in PROTOCOLS {
            load::saturate(proxy, protocol, WARM_UP_REQUESTS).with_context(|| format!("{} is not well", proxy.name))?;
        }
    }
    // By protocol, then by proxy.
    let mut samples = [(); PROTOCOLS.len()].map(|()| vec![Vec::new(); bed.proxies.len()]);
    for round in 1..=rounds {
        eprintln!("bench: ingress, round {round} of {rounds}");
        for (protocol, samples) in PROTOCOLS.into_iter().zip(&mut samples) {
            for (proxy, samples) in bed.proxies.iter().zip(samples) {
                samples.push(sample(proxy, protocol, load)?);
            }
        }
    }
    let mut measures = Vec::new();
    for ((index, protocol), samples) in PROTOCOLS.into_iter().enumerate().zip(&samples) {
        measures.extend(compare(protocol, &bed.proxies, samples, |peer| peer.cpu[index])?);
    }
    Ok(measures)
}

fn sample(proxy: &Proxy, protocol: Protocol, load: Load) -> anyhow::Result<Sample> {
    let before = proxy.cpu()?;
    load::saturate(proxy, protocol, load.requests)?;
    let used = proxy.cpu()?.saturating_sub(before);
    let latencies = load::pace(proxy, protocol, load.seconds)?;
    let p99_us = percentile(latencies, 99).context("no request was measured")?;
    Ok(Sample { cpu_us_per_request: used.as_secs_f64() * 1e6 / f64::from(load.requests), p99_us })
}

/// The first proxy is ours, the others are the peers, in their order.
fn compare(
    protocol: Protocol,
    proxies: &[Proxy],
    samples: &[Vec<Sample>],
    cpu_target: impl Fn(&Peer) -> Target,
) -> anyhow::Result<Vec<Measure>> {
    let values = |what: fn(&Sample) -> f64| -> anyhow::Result<Vec<f64>> {
        samples.iter().map(|turns| median(turns.iter().map(what)).context("no round was run")).collect()
    };
    let (cpu, latency) = (values(|sample| sample.cpu_us_per_request)?, values(|sample| sample.p99_us)?);
    let mut measures = Vec::new();
    for (index, proxy) in proxies.iter().enumerate().skip(1) {
        let peer = PEERS.iter().find(|peer| peer.name == proxy.name).context("a peer without targets")?;
        let measure = |what: &str, unit, values: &[f64], target| Measure {
            name: format!("ingress {} {what} vs {}", protocol.name(), peer.name),
            unit,
            ours: values[0],
            peer: Some(report::Peer { name: peer.name, value: values[index] }),
            target: Some(target),
        };
        measures.push(measure("cpu per request", "µs", &cpu, cpu_target(peer)));
        measures.push(measure("p99 latency", "µs", &latency, peer.latency));
    }
    Ok(measures)
}

/// The value that `percent` of all values do not exceed.
fn percentile(mut values: Vec<u64>, percent: usize) -> Option<f64> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.checked_sub(1)?).map(|value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        assert_eq!(percentile((1..=1000).rev().collect(), 99), Some(990.0));
        assert_eq!(percentile(vec![7], 99), Some(7.0));
        assert_eq!(percentile(vec![], 99), None);
    }
}
