//! From desired and observed to an ordered list of operations.
//!
//! Phases: 1. backends that appear or gain a state, 2. per frontend its counters, the slots of the next epoch and the
//! flip (or its deletion), 3. slots and counters that nobody reaches any more, 4. backends that lose their active state
//! or go. Frontends flip one by one, so that the first is served before the last is planned to be.

use std::collections::{BTreeMap, HashSet};

use dataplane_abi::frontend::Frontend as Value;
use dataplane_abi::slot::SlotKey;

use crate::desired::{Desired, Frontend, ServiceName, Touched};
use crate::ids::Ids;
use crate::key::{BackendKey, Family, FrontendKey};
use crate::limits::{Limit, Limits};
use crate::observed::{Backend, Observed};
use crate::op::Op;

/// What to do, in order, and what identifiers that uses up.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub ids: Ids,
    pub rejected: Vec<Rejected>,
}

/// A frontend that does not fit; what it had before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub key: FrontendKey,
    pub service: ServiceName,
    pub limit: Limit,
}

/// Plans everything: also finds what no Service and no earlier plan knows of.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, ids: &Ids, limits: &Limits) -> Plan {
    let contents = observed.contents();
    let mut touched = Touched::default();
    touched.frontends.extend(desired.frontends().map(|(key, _)| *key));
    touched.frontends.extend(contents.frontends.keys());
    touched.frontends.extend(ids.pending.keys());
    touched.backends.extend(desired.backends());
    touched.backends.extend(contents.backends.values().map(|backend| backend.key));
    let mut planner = Planner::new(desired, observed, ids, limits);
    planner.retire_strays();
    planner.plan_touched(&touched);
    planner.delete_orphans();
    planner.finish()
}

/// Plans only what a change touches; cost follows the change, not the cluster.
#[must_use]
pub fn plan_touched(desired: &Desired, observed: &Observed, ids: &Ids, limits: &Limits, touched: &Touched) -> Plan {
    let mut planner = Planner::new(desired, observed, ids, limits);
    planner.plan_touched(touched);
    planner.finish()
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    limits: &'a Limits,
    ids: Ids,
    rejected: Vec<Rejected>,
    /// Backends that appear in this plan, by key.
    new_backends: BTreeMap<BackendKey, u32>,
    appear: Vec<Op>,
    serve: Vec<Op>,
    clean: Vec<Op>,
    vanish: Vec<Op>,
    /// Slots that this plan removes, by the backend that they name.
    dropped: BTreeMap<u32, u32>,
    /// Frontend ids whose slots and counters this plan removes.
    deleted: HashSet<u32>,
    new_frontends: [usize; 2],
    new_backends_count: [usize; 2],
    new_slots: usize,
}

impl<'a> Planner<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed, ids: &Ids, limits: &'a Limits) -> Self {
        Self {
            desired,
            observed,
            limits,
            ids: ids.clone(),
            rejected: Vec::new(),
            new_backends: BTreeMap::new(),
            appear: Vec::new(),
            serve: Vec::new(),
            clean: Vec::new(),
            vanish: Vec::new(),
            dropped: BTreeMap::new(),
            deleted: HashSet::new(),
            new_frontends: [0; 2],
            new_backends_count: [0; 2],
            new_slots: 0,
        }
    }

    fn plan_touched(&mut self, touched: &Touched) {
        let desired = self.desired;
        for key in &touched.frontends {
            match desired.frontend(key) {
                Some(frontend) => match self.admit(key, frontend) {
                    Ok(()) => self.serve_frontend(key, frontend),
                    Err(limit) => {
                        self.rejected.push(Rejected { key: *key, service: frontend.service.clone(), limit });
                    }
                },
                None => self.delete_frontend(key),
            }
        }
        for id in self.ids.retired.clone() {
            self.delete_slots(id);
        }
        let contents = self.observed.contents();
        let dropped: Vec<BackendKey> =
            self.dropped.keys().filter_map(|id| contents.backends.get(id)).map(|backend| backend.key).collect();
        for key in touched.backends.iter().chain(dropped.iter().filter(|key| !touched.backends.contains(key))) {
            self.plan_backend(key);
        }
    }

    fn finish(self) -> Plan {
        let Self { mut appear, serve, clean, vanish, ids, rejected, .. } = self;
        appear.reserve_exact(serve.len() + clean.len() + vanish.len());
        appear.extend(serve);
        appear.extend(clean);
        appear.extend(vanish);
        Plan { ops: appear, ids, rejected }
    }

    /// Is there room for all that this frontend needs, beside what is there now?
    fn admit(&mut self, key: &FrontendKey, frontend: &Frontend) -> Result<(), Limit> {
        let slots = frontend.placement.slots();
        if slots.len() > self.limits.slots_per_frontend_max {
            return Err(Limit::SlotsPerFrontend);
        }
        let family = key.family();
        let is_new = !self.observed.contents().frontends.contains_key(key);
        let frontends = self.observed.frontend_count(family) + self.new_frontends[family as usize];
        if is_new && frontends >= self.limits.frontends_max {
            return Err(Limit::Frontends);
        }
        let new_slots = if self.slots_differ(key, frontend) { slots.len() } else { 0 };
        if self.observed.contents().slots.len() + self.new_slots + new_slots > self.limits.slots_max {
            return Err(Limit::Slots);
        }
        let unknown = slots.iter().filter(|placed| self.backend_id(&placed.key).is_none()).count();
        let backends = self.observed.backend_count(family) + self.new_backends_count[family as usize];
        if unknown > 0 && backends + unknown > self.limits.backends_max {
            return Err(Limit::Backends);
        }
        self.new_frontends[family as usize] += usize::from(is_new);
        self.new_slots += new_slots;
        Ok(())
    }

    fn serve_frontend(&mut self, key: &FrontendKey, frontend: &Frontend) {
        let observed = self.observed;
        let known = observed.frontend(key);
        let id = match (known, self.ids.pending.get(key)) {
            (Some(value), _) => value.id,
            (None, Some(id)) => *id,
            (None, None) => self.ids.take_frontend(observed),
        };
        // A retry may find it published: the id is then in the map, and no longer pending.
        match known {
            Some(_) => drop(self.ids.pending.remove(key)),
            None => drop(self.ids.pending.insert(*key, id)),
        }
        // It was to be deleted, that failed, and now it is wanted again.
        self.ids.retired.remove(&id);
        let differ = self.slots_differ(key, frontend);
        let epoch = match known {
            Some(value) if differ => value.epoch.wrapping_add(1),
            Some(value) => value.epoch,
            None => 1,
        };
        if !observed.contents().counters.contains(&id) {
            self.serve.push(Op::PutCounters { frontend: id });
        }
        for (index, placed) in (0..).zip(frontend.placement.slots()) {
            let backend = self.ensure_backend(&placed.key);
            let slot = SlotKey { frontend: id, epoch, index };
            let present = observed.contents().slots.get(&slot).copied();
            if present != Some(backend) {
                if let Some(overwritten) = present {
                    *self.dropped.entry(overwritten).or_default() += 1;
                }
                self.serve.push(Op::PutSlot { slot, backend });
            }
        }
        let value = encode(id, epoch, frontend);
        if observed.contents().frontends.get(key) != Some(&value) {
            self.serve.push(Op::PutFrontend { key: *key, value });
        }
        let count = frontend.placement.slots().len();
        for (slot, backend) in observed.slots(id) {
            if slot.epoch != epoch || slot.index as usize >= count {
                self.clean.push(Op::DeleteSlot { slot: *slot });
                *self.dropped.entry(backend).or_default() += 1;
            }
        }
    }

    fn delete_frontend(&mut self, key: &FrontendKey) {
        let observed = self.observed;
        let published = observed.contents().frontends.get(key).map(|value| value.id);
        if let Some(id) = published {
            self.serve.push(Op::DeleteFrontend { key: *key, id });
        }
        // Slots of an id that a damaged map gives to two frontends belong to the one that owns the id.
        let owned = published.filter(|_| observed.frontend(key).is_some());
        let pending = self.ids.pending.remove(key);
        self.ids.retired.extend(owned.into_iter().chain(pending));
    }

    fn delete_slots(&mut self, frontend: u32) {
        if !self.deleted.insert(frontend) {
            return;
        }
        for (slot, backend) in self.observed.slots(frontend) {
            self.clean.push(Op::DeleteSlot { slot: *slot });
            *self.dropped.entry(backend).or_default() += 1;
        }
        if self.observed.contents().counters.contains(&frontend) {
            self.clean.push(Op::DeleteCounters { frontend });
        }
    }

    /// Slots and counters of ids that no frontend owns: leftovers of a crash.
    fn retire_strays(&mut self) {
        let observed = self.observed;
        let contents = observed.contents();
        let pending: HashSet<u32> = self.ids.pending.values().copied().collect();
        let in_use = contents.slots.keys().map(|slot| slot.frontend).chain(contents.counters.iter().copied());
        let strays = in_use.filter(|id| observed.frontend_key(*id).is_none() && !pending.contains(id));
        self.ids.retired.extend(strays);
    }

    /// Second ids of backends that a damaged map holds twice.
    fn delete_orphans(&mut self) {
        let observed = self.observed;
        for (id, backend) in &observed.contents().backends {
            if observed.backend_id(&backend.key) != Some(*id) {
                self.delete_backend(*id, backend.key.family());
            }
        }
    }

    fn plan_backend(&mut self, key: &BackendKey) {
        let Some(id) = self.observed.backend_id(key) else { return };
        let Some(known) = self.observed.contents().backends.get(&id) else { return };
        match self.desired.backend_state(key) {
            Some(state) if state == known.state => {}
            Some(state) => {
                let backend = Backend { key: *key, state };
                let op = Op::PutBackend { id, backend };
                // What still has reachable slots must stay active until they are flipped away.
                if backend.is_active() || !known.is_active() {
                    self.appear.push(op);
                } else if self.is_unreferenced(id) {
                    self.vanish.push(op);
                }
            }
            None => self.delete_backend(id, key.family()),
        }
    }

    fn delete_backend(&mut self, id: u32, family: Family) {
        if self.is_unreferenced(id) {
            self.vanish.push(Op::DeleteBackend { id, family });
        }
    }

    /// Does no slot name it once this plan is done? (A frontend that was rejected keeps its slots.)
    fn is_unreferenced(&self, id: u32) -> bool {
        self.observed.references(id) <= self.dropped.get(&id).copied().unwrap_or_default()
    }

    fn backend_id(&self, key: &BackendKey) -> Option<u32> {
        self.observed.backend_id(key).or_else(|| self.new_backends.get(key).copied())
    }

    fn ensure_backend(&mut self, key: &BackendKey) -> u32 {
        if let Some(id) = self.backend_id(key) {
            return id;
        }
        let id = self.ids.take_backend(self.observed);
        // Every backend with a slot has uses; 0 would only make it unusable until the next plan.
        let state = self.desired.backend_state(key).unwrap_or_default();
        self.new_backends.insert(*key, id);
        self.new_backends_count[key.family() as usize] += 1;
        self.appear.push(Op::PutBackend { id, backend: Backend { key: *key, state } });
        id
    }

    /// Would the slots that are reachable now have to change?
    fn slots_differ(&self, key: &FrontendKey, frontend: &Frontend) -> bool {
        let slots = frontend.placement.slots();
        let Some(value) = self.observed.frontend(key) else { return true };
        slots.len() != reachable(value)
            || (0..).zip(slots).any(|(index, placed)| {
                let slot = SlotKey { frontend: value.id, epoch: value.epoch, index };
                let present = self.observed.contents().slots.get(&slot);
                present.is_none() || present.copied() != self.backend_id(&placed.key)
            })
    }
}

/// How many slots the sets of a frontend span.
fn reachable(value: &Value) -> usize {
    let end = |set: dataplane_abi::frontend::Interval| set.start.saturating_add(set.count) as usize;
    end(value.cluster).max(end(value.local))
}

fn encode(id: u32, epoch: u32, frontend: &Frontend) -> Value {
    Value {
        id,
        epoch,
        flags: frontend.flags(),
        affinity_timeout_s: 0,
        cluster: frontend.placement.cluster,
        local: frontend.placement.local,
    }
}
