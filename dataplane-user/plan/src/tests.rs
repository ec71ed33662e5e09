//! Properties that every change to the planner must keep.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_abi::slot::SlotKey;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::invariants::{Violation, check};
use crate::{
    BackendKey, Contents, Desired, Endpoint, Failures, Frontend, FrontendKey, Ids, Limits, Observed, Op, Plan,
    Protocol, Scope, Service, ServiceName, Touched, plan, plan_touched,
};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Put(Service),
    Remove(ServiceName),
    /// Forget everything but the maps (a restart), after this share of the pending plan has been done.
    Crash(Index),
    Resync,
}

fn name(number: u8) -> ServiceName {
    ServiceName::new("default", format!("s{number}"))
}

fn address(ipv6: bool, last: u8) -> std::net::IpAddr {
    if ipv6 { std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into() } else { [10, 0, 0, last].into() }
}

fn endpoints(ipv6: bool, protocol: Protocol) -> impl Strategy<Value = Vec<Endpoint>> {
    let conditions =
        select(vec![(true, true, false), (false, true, true), (false, false, true), (false, false, false)]);
    subsequence((1..=6_u8).collect::<Vec<_>>(), 0..=5).prop_flat_map(move |hosts| {
        let endpoint = (any::<bool>(), conditions.clone());
        prop::collection::vec(endpoint, hosts.len()).prop_map(move |states| {
            let make = |(last, (local, (ready, serving, terminating))): (&u8, (bool, (bool, bool, bool)))| Endpoint {
                key: BackendKey { address: address(ipv6, 100 + last), port: 8080, protocol },
                local,
                ready,
                serving,
                terminating,
            };
            hosts.iter().zip(states).map(make).collect()
        })
    })
}

/// Addresses overlap between Services on purpose: conflicts and takeovers are part of every history.
fn service() -> impl Strategy<Value = Service> {
    let protocol = || select(vec![Protocol::Tcp, Protocol::Udp]);
    let frontend =
        (any::<bool>(), 1..=3_u8, protocol(), any::<bool>()).prop_flat_map(|(ipv6, last, protocol, local)| {
            endpoints(ipv6, protocol).prop_map(move |endpoints| {
                let key = FrontendKey { address: address(ipv6, last), port: 80, protocol, scope: Scope::Address };
                (key, local, endpoints)
            })
        });
    (1..=4_u8, prop::collection::vec(frontend, 0..4)).prop_map(|(number, frontends)| {
        let build = |(key, local, endpoints): (FrontendKey, bool, Vec<Endpoint>)| {
            (key, Frontend::cluster_ip(name(number), "http".into(), local, &endpoints))
        };
        Service { name: name(number), frontends: frontends.into_iter().map(build).collect() }
    })
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => service().prop_map(Step::Put),
        2 => (1..=4_u8).prop_map(|number| Step::Remove(name(number))),
        2 => any::<Index>().prop_map(Step::Crash),
        1 => Just(Step::Resync),
    ];
    prop::collection::vec(step, 1..12)
}

/// The agent in miniature: maps, what it believes of them, and a plan cut or failing at will.
#[derive(Default)]
struct Agent {
    desired: Desired,
    maps: Contents,
    observed: Observed,
    ids: Ids,
    limits: Limits,
    retry: Touched,
}

impl Agent {
    fn apply(&mut self, plan: Plan, mut fails: impl FnMut() -> bool) -> Result<bool, TestCaseError> {
        let mut failures = Failures::default();
        let mut found = meaning(&self.maps);
        let (mut blocked, mut failed) = (0, 0);
        for op in &plan.ops {
            if failures.block(op, &self.observed) {
                failures.record(op);
                blocked += 1;
                continue;
            }
            if fails() {
                failures.record(op);
                failed += 1;
                continue;
            }
            self.maps.apply(op);
            self.observed.apply(op);
            let unsafe_now: Vec<_> =
                check(&self.maps).into_iter().filter(|found| !matches!(found, Violation::NoCounters { .. })).collect();
            prop_assert!(unsafe_now.is_empty(), "after {op}: {unsafe_now:?}");
            let now = meaning(&self.maps);
            if !matches!(op, Op::PutFrontend { .. } | Op::DeleteFrontend { .. }) {
                prop_assert_eq!(&found, &now, "a lookup during {} sees something in between", op);
            }
            found = now;
        }
        prop_assert!(failed > 0 || blocked == 0, "a plan blocks itself");
        self.ids = plan.ids;
        self.ids.settle(&self.observed);
        Ok(failed + blocked == 0)
    }

    fn full_plan(&self) -> Plan {
        plan(&self.desired, &self.observed, &self.ids, &self.limits)
    }

    fn restart(&mut self) {
        // The floors that the agent keeps on disk are the identifiers it has handed out.
        let floors = (self.ids.next_frontend, self.ids.next_backend);
        self.observed = Observed::from(self.maps.clone());
        self.ids = Ids::restore(&self.observed, floors.0, floors.1);
    }

    fn assert_converged(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(check(&self.maps), vec![]);
        prop_assert_eq!(meaning(&self.maps), wanted(&self.desired));
        prop_assert_eq!(self.full_plan().ops, vec![]);
        prop_assert_eq!(self.observed.contents(), &self.maps);
        let slots: usize = self.desired.frontends().map(|(_, frontend)| frontend.placement.slots().len()).sum();
        prop_assert_eq!(self.maps.slots.len(), slots);
        prop_assert_eq!(self.maps.counters.len(), self.maps.frontends.len());
        Ok(())
    }
}

/// Per frontend: flags, backends of the local set, backends of the cluster set.
type Meaning = BTreeMap<FrontendKey, (u32, Vec<BackendKey>, Vec<BackendKey>)>;

/// What a client would find in the maps.
fn meaning(maps: &Contents) -> Meaning {
    let resolve = |id: u32, epoch: u32, set: dataplane_abi::frontend::Interval| -> Vec<BackendKey> {
        (set.start..set.start + set.count)
            .map(|index| maps.backends[&maps.slots[&SlotKey { frontend: id, epoch, index }]].key)
            .collect()
    };
    maps.frontends
        .iter()
        .map(|(key, value)| {
            let local = resolve(value.id, value.epoch, value.local);
            (*key, (value.flags, local, resolve(value.id, value.epoch, value.cluster)))
        })
        .collect()
}

/// What a client should find.
fn wanted(desired: &Desired) -> Meaning {
    desired
        .frontends()
        .map(|(key, frontend)| {
            let slots = frontend.placement.slots();
            let set = |set: dataplane_abi::frontend::Interval| {
                slots[set.start as usize..(set.start + set.count) as usize].iter().map(|placed| placed.key).collect()
            };
            (*key, (frontend.flags(), set(frontend.placement.local), set(frontend.placement.cluster)))
        })
        .collect()
}

fn run(steps: &[Step], mut fails: impl FnMut() -> bool) -> Result<Agent, TestCaseError> {
    let mut agent = Agent::default();
    for step in steps {
        let touched = match step {
            Step::Put(service) => agent.desired.put(service.clone()),
            Step::Remove(name) => agent.desired.remove(name),
            Step::Crash(at) => {
                let mut plan = agent.full_plan();
                plan.ops.truncate(at.index(plan.ops.len() + 1));
                agent.apply(plan, &mut fails)?;
                agent.restart();
                let plan = agent.full_plan();
                let done = agent.apply(plan, &mut fails)?;
                agent.retry = if done { Touched::default() } else { everything(&agent) };
                continue;
            }
            Step::Resync => {
                let plan = agent.full_plan();
                if agent.apply(plan, &mut fails)? {
                    agent.retry = Touched::default();
                }
                continue;
            }
        };
        agent.retry.merge(touched);
        let plan = plan_touched(&agent.desired, &agent.observed, &agent.ids, &agent.limits, &agent.retry);
        if agent.apply(plan, &mut fails)? {
            agent.retry = Touched::default();
        }
    }
    Ok(agent)
}

fn everything(agent: &Agent) -> Touched {
    Touched {
        frontends: agent.desired.frontends().map(|(key, _)| *key).chain(agent.maps.frontends.keys().copied()).collect(),
        backends: agent.desired.backends().copied().chain(agent.maps.backends.values().map(|b| b.key)).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn incremental_plans_converge_and_every_prefix_is_safe(steps in history()) {
        run(&steps, || false)?.assert_converged()?;
    }

    #[test]
    fn failing_operations_delay_but_never_harm(steps in history(), seed in any::<u64>()) {
        let mut state = seed | 1;
        let one_in_ten = || {
            // xorshift: a fixed sequence per seed.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.is_multiple_of(10)
        };
        let mut agent = run(&steps, one_in_ten)?;
        let retry = std::mem::take(&mut agent.retry);
        let plan = plan_touched(&agent.desired, &agent.observed, &agent.ids, &agent.limits, &retry);
        agent.apply(plan, || false)?;
        // Counters that failed alone wait for the full resync; nothing else may be left for it.
        let left: Vec<_> = agent.full_plan().ops.into_iter().filter(|op| op.name() != "put_counters").collect();
        prop_assert_eq!(left, vec![]);
        let plan = agent.full_plan();
        agent.apply(plan, || false)?;
        agent.assert_converged()?;
    }

    #[test]
    fn what_stays_keeps_its_identity(before in service(), after in service()) {
        let mut agent = Agent::default();
        agent.desired.put(before);
        let plan = agent.full_plan();
        agent.apply(plan, || false)?;
        let old = agent.maps.clone();
        let touched = agent.desired.put(after);
        let plan = plan_touched(&agent.desired, &agent.observed, &agent.ids, &agent.limits, &touched);
        let bound = 3 * (old.slots.len() + old.backends.len() + old.frontends.len())
            + 4 * agent.desired.frontends().map(|(_, f)| f.placement.slots().len() + 1).sum::<usize>();
        prop_assert!(plan.ops.len() <= bound, "{} operations for a bound of {bound}", plan.ops.len());
        agent.apply(plan, || false)?;
        for (key, value) in &agent.maps.frontends {
            if let Some(known) = old.frontends.get(key) {
                prop_assert_eq!(known.id, value.id);
            }
        }
        let old_ids: BTreeMap<_, _> = old.backends.iter().map(|(id, backend)| (backend.key, *id)).collect();
        for (id, backend) in &agent.maps.backends {
            match old_ids.get(&backend.key) {
                Some(known) => prop_assert_eq!(known, id),
                None => prop_assert!(!old.backends.contains_key(id), "backend id {} was reused", id),
            }
        }
    }

    #[test]
    fn a_full_map_refuses_whole_frontends_and_keeps_the_rest(
        steps in history(), frontends_max in 0..3_usize, backends_max in 0..4_usize, slots_max in 0..8_usize,
    ) {
        let limits = Limits { frontends_max, backends_max, slots_max, slots_per_frontend_max: 3 };
        let mut agent = Agent { limits, ..Agent::default() };
        for step in &steps {
            let touched = match step {
                Step::Put(service) => agent.desired.put(service.clone()),
                Step::Remove(name) => agent.desired.remove(name),
                _ => continue,
            };
            let plan = plan_touched(&agent.desired, &agent.observed, &agent.ids, &agent.limits, &touched);
            agent.apply(plan, || false)?;
            prop_assert!(agent.maps.slots.len() <= slots_max);
            for ipv6 in [false, true] {
                let in_family = |address: &std::net::IpAddr| address.is_ipv6() == ipv6;
                prop_assert!(agent.maps.frontends.keys().filter(|key| in_family(&key.address)).count() <= frontends_max);
                prop_assert!(agent.maps.backends.values().filter(|b| in_family(&b.key.address)).count() <= backends_max);
            }
        }
        agent.limits = Limits::default();
        let plan = agent.full_plan();
        agent.apply(plan, || false)?;
        agent.assert_converged()?;
    }
}

#[test]
fn a_damaged_dump_is_repaired() {
    let key =
        |last| FrontendKey { address: address(false, last), port: 80, protocol: Protocol::Tcp, scope: Scope::Address };
    let mut agent = Agent::default();
    let endpoint = |last| Endpoint {
        key: BackendKey { address: address(false, last), port: 8080, protocol: Protocol::Tcp },
        local: false,
        ready: true,
        serving: true,
        terminating: false,
    };
    for number in [1, 2] {
        let frontend = Frontend::cluster_ip(name(number), "".into(), false, &[endpoint(101), endpoint(102)]);
        agent.desired.put(Service { name: name(number), frontends: vec![(key(number), frontend)] });
    }
    let first = agent.full_plan();
    assert!(agent.apply(first, || false).is_ok());
    // Two frontends with one id, a slot to nowhere, a stray slot and a second id for one backend.
    let shared = agent.maps.frontends[&key(1)];
    agent.maps.frontends.insert(key(2), shared);
    agent.maps.slots.insert(SlotKey { frontend: shared.id, epoch: shared.epoch, index: 0 }, 99);
    agent.maps.slots.insert(SlotKey { frontend: 77, epoch: 5, index: 0 }, 1);
    let twin = agent.maps.backends[&1];
    agent.maps.backends.insert(50, twin);
    assert_ne!(check(&agent.maps), vec![]);
    for _ in 0..3 {
        agent.restart();
        for op in agent.full_plan().ops {
            agent.maps.apply(&op);
        }
    }
    agent.restart();
    assert_eq!(check(&agent.maps), vec![]);
    assert_eq!(meaning(&agent.maps), wanted(&agent.desired));
    assert_eq!(agent.full_plan().ops, vec![]);
    let ids: BTreeSet<_> = agent.maps.frontends.values().map(|value| value.id).collect();
    assert_eq!(ids.len(), 2);
}
