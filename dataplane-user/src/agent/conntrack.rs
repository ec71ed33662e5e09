//! Forgetting flows of the packet path that have been silent for too long. The kernel pushes out unanswered flows by
//! itself; answered ones stay until they close or until this finds them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dataplane_abi::conntrack::{Flow, FlowKey};
use dataplane_abi::reason::Reason;
use dataplane_abi::{Ip4, Ip6};
use dataplane_logic::flow::{other, timeout_s};
use nix::time::{ClockId, clock_gettime};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio_util::sync::CancellationToken;

use crate::kernel::{Family, KernelError, Maps};

/// Short against every timeout, long against the time that reading a full map takes.
const INTERVAL: Duration = Duration::from_secs(10);
const ENTRIES_PER_FLOW: u32 = 2;

/// Collects silent flows of one node.
pub(super) struct Collector {
    pin_dir: PathBuf,
    flows: IntGauge,
    flows_max: IntGauge,
    expired: IntCounter,
    /// How many flows had no room among the answered ones, by the last look.
    unplaced: u64,
}

impl Collector {
    pub(super) fn register(registry: &Registry, pin_dir: PathBuf) -> prometheus::Result<Self> {
        let flows = IntGauge::new("tidegate_agent_flows", "Answered flows of the packet path")?;
        let flows_max =
            IntGauge::new("tidegate_agent_flows_max", "Answered flows that there is room for, both families")?;
        let expired =
            IntCounter::new("tidegate_agent_flows_expired_total", "Flows forgotten because they were silent")?;
        registry.register(Box::new(flows.clone()))?;
        registry.register(Box::new(flows_max.clone()))?;
        registry.register(Box::new(expired.clone()))?;
        Ok(Self { pin_dir, flows, flows_max, expired, unplaced: 0 })
    }

    /// Works until the token is cancelled.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut maps = match Maps::open(&self.pin_dir) {
            Ok(maps) => maps,
            Err(error) => {
                tracing::error!(error = %super::health::chain(&error), "silent flows are not collected");
                return;
            }
        };
        let room = (maps.v4.flows_answered.max_entries() + maps.v6.flows_answered.max_entries()) / ENTRIES_PER_FLOW;
        self.flows_max.set(i64::from(room));
        self.unplaced = unplaced(&maps).unwrap_or_default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let work = tokio::task::spawn_blocking(move || (collect_all(&mut maps), maps));
            let Ok((result, returned)) = work.await else { return };
            maps = returned;
            match result {
                Ok(pass) => self.tell(&pass),
                Err(error) => tracing::warn!(error = %super::health::chain(&error), "cannot collect silent flows"),
            }
        }
    }
}

impl Collector {
    fn tell(&mut self, pass: &Pass) {
        self.flows.set(i64::try_from(pass.flows).unwrap_or(i64::MAX));
        self.expired.inc_by(pass.expired as u64);
        if pass.unplaced > self.unplaced {
            tracing::warn!(
                answers = pass.unplaced - self.unplaced,
                flows = pass.flows,
                flows_max = self.flows_max.get(),
                "the table of answered flows is full: further flows can be pushed out by new ones"
            );
        }
        self.unplaced = pass.unplaced;
    }
}

/// What one pass found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pass {
    flows: usize,
    expired: usize,
    /// Answers, since the maps were made, that found no room for their flow.
    unplaced: u64,
}

fn unplaced(maps: &Maps) -> Result<u64, KernelError> {
    Ok(maps.reason_counters.get(Reason::ConntrackFull)?.count)
}

fn collect_all(maps: &mut Maps) -> Result<Pass, KernelError> {
    // Without a clock nothing is silent.
    let now_ns = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64);
    let (ipv4, ipv6) = (collect::<Ip4>(maps, now_ns)?, collect::<Ip6>(maps, now_ns)?);
    Ok(Pass { flows: ipv4.flows + ipv6.flows, expired: ipv4.expired + ipv6.expired, unplaced: unplaced(maps)? })
}

fn collect<A: Family>(maps: &mut Maps, now_ns: u64) -> Result<Pass, KernelError> {
    let flows = A::tables(maps).flows_answered.dump()?;
    let silent = silent(&flows, now_ns);
    let table = &mut A::tables_mut(maps).flows_answered;
    silent.iter().try_for_each(|key| table.remove(key).map(drop))?;
    Ok(Pass { flows: (flows.len() - silent.len()) / 2, expired: silent.len() / 2, unplaced: 0 })
}

/// The entries of flows that have been silent in both directions for longer than their state allows.
fn silent<A: Family>(flows: &BTreeMap<FlowKey<A>, Flow<A>>, now_ns: u64) -> Vec<FlowKey<A>> {
    let expired = |(key, flow): (&FlowKey<A>, &Flow<A>)| {
        let reverse = flows.get(&other(key, flow)).filter(|reverse| reverse.backend == flow.backend);
        let last_seen = reverse.map_or(flow.last_seen_ns, |reverse| reverse.last_seen_ns.max(flow.last_seen_ns));
        let silent = Duration::from_nanos(now_ns.saturating_sub(last_seen));
        silent > Duration::from_secs(timeout_s(key.protocol, flow.state))
    };
    flows.iter().filter(|entry| expired((entry.0, entry.1))).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataplane_abi::conntrack::{Flow, FlowKey, direction, flow_state};
    use dataplane_abi::protocol::{TCP, UDP};
    use dataplane_abi::{Be16, Ip4};
    use dataplane_logic::flow::{other, timeout_s};

    use super::silent;

    const SECOND: u64 = 1_000_000_000;

    /// Both directions of a flow, last seen at these seconds.
    fn flow(protocol: u8, state: u8, client_s: u64, backend_s: u64) -> BTreeMap<FlowKey<Ip4>, Flow<Ip4>> {
        let key = FlowKey {
            source: Ip4(1),
            destination: Ip4(2),
            source_port: Be16::new(40_000),
            destination_port: Be16::new(80),
            protocol,
            direction: direction::ORIGINAL,
            reserved: 0,
        };
        let flow = Flow {
            last_seen_ns: client_s * SECOND,
            frontend: Ip4(2),
            frontend_port: Be16::new(80),
            backend: Ip4(9),
            backend_port: Be16::new(8080),
            state,
            ..Flow::default()
        };
        [(key, flow), (other(&key, &flow), Flow { last_seen_ns: backend_s * SECOND, ..flow })].into()
    }

    #[test]
    fn a_flow_lives_as_long_as_one_of_its_sides_speaks() {
        for (protocol, state) in
            [(TCP, flow_state::ESTABLISHED), (TCP, flow_state::CLOSING), (UDP, flow_state::ESTABLISHED)]
        {
            let timeout = timeout_s(protocol, state);
            for (client, backend) in [(10, 100), (100, 10)] {
                let flows = flow(protocol, state, client, backend);
                assert_eq!(silent(&flows, (100 + timeout) * SECOND), vec![], "{protocol} {state}");
                assert_eq!(silent(&flows, (101 + timeout) * SECOND).len(), 2, "{protocol} {state}");
            }
        }
    }

    #[test]
    fn a_clock_behind_the_kernel_s_expires_nothing() {
        assert_eq!(silent(&flow(UDP, flow_state::ESTABLISHED, 100, 100), 0), vec![]);
    }
}
