//! One state machine from changes to map operations: it knows neither time nor threads.

use std::collections::BTreeMap;
use std::io;

use dataplane_plan::{
    Contents, Desired, FrontendKey, Ids, Limits, Observed, Op, Plan, ServiceName, Touched, invariants, plan,
    plan_touched,
};

use crate::apply::{Failed, MapError, ServiceMaps, apply_all};
use crate::inventory::Inventory;
use crate::names::{FrontendName, Names};
use crate::source::Change;

/// Keeps maps true to what the sources tell.
#[derive(Debug)]
pub struct Reconciler<M> {
    maps: M,
    inventory: Inventory,
    desired: Desired,
    observed: Observed,
    ids: Ids,
    limits: Limits,
    names: Names,
    /// What is to be planned again: failures and refusals.
    retry: Touched,
    refused: BTreeMap<FrontendKey, Refusal>,
    planned_once: bool,
}

/// Why a frontend is not served as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub service: Option<ServiceName>,
    pub reason: String,
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// It was a plan of everything.
    pub full: bool,
    /// Operations done, by name.
    pub done: BTreeMap<&'static str, u64>,
    /// Operations that failed, by name.
    pub failed: BTreeMap<&'static str, u64>,
    /// The first failure, for people.
    pub error: Option<MapError>,
}

/// What could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("cannot read the maps")]
    Dump(#[source] MapError),
    #[error("cannot write the journal of names")]
    Names(#[source] io::Error),
}

impl Outcome {
    /// Is anything left to retry?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// How many operations were done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.done.values().sum()
    }
}

impl<M: ServiceMaps> Reconciler<M> {
    /// Takes over what the maps hold, with their identities. Writes nothing yet.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn restore(maps: M, names: Names) -> Result<Self, ReconcileError> {
        let observed = Observed::from(maps.dump().map_err(ReconcileError::Dump)?);
        for violation in invariants::check(observed.contents()) {
            tracing::warn!(%violation, "the maps of an earlier run need repair");
        }
        let (frontend_floor, backend_floor) = names.floors();
        Ok(Self {
            ids: Ids::restore(&observed, frontend_floor, backend_floor),
            limits: maps.limits(),
            maps,
            inventory: Inventory::default(),
            desired: Desired::default(),
            observed,
            names,
            retry: Touched::default(),
            refused: BTreeMap::new(),
            planned_once: false,
        })
    }

    /// Takes in a change; returns how many objects it changed.
    pub fn change(&mut self, change: Change) -> usize {
        self.inventory.apply(change)
    }

    /// Brings the maps to what is known now. Does nothing until every source has told its whole state; the first time
    /// everything is planned, later only what changed or failed.
    ///
    /// # Errors
    /// If the journal of names cannot be written. Failing map operations are no error: they are retried next time.
    pub fn reconcile(&mut self) -> Result<Outcome, ReconcileError> {
        if !self.inventory.is_synced() {
            return Ok(Outcome::default());
        }
        let touched = self.take_touched();
        if !self.planned_once {
            return self.run_full();
        }
        if touched.is_empty() {
            return Ok(Outcome::default());
        }
        let plan = plan_touched(&self.desired, &self.observed, &self.ids, &self.limits, &touched);
        self.run(plan, touched, false)
    }

    /// Reads the maps anew and plans everything. What this has to do although nothing changed is drift: someone else
    /// wrote to the maps.
    ///
    /// # Errors
    /// If the maps cannot be read, or the journal of names cannot be written.
    pub fn resync(&mut self) -> Result<Outcome, ReconcileError> {
        if !self.inventory.is_synced() {
            return Ok(Outcome::default());
        }
        self.take_touched();
        self.observed = Observed::from(self.maps.dump().map_err(ReconcileError::Dump)?);
        self.run_full()
    }

    /// Is there anything to do?
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.has_changes() || self.has_retries()
    }

    /// Is there anything new to do?
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.inventory.is_synced() && (!self.planned_once || self.inventory.has_stale())
    }

    /// Is there anything to do again?
    #[must_use]
    pub fn has_retries(&self) -> bool {
        !self.retry.is_empty()
    }

    /// Have the maps been brought to a complete view since the start?
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.planned_once
    }

    /// Is this node going away?
    #[must_use]
    pub fn is_node_deleting(&self) -> bool {
        self.inventory.node().is_some_and(|node| node.deleting)
    }

    /// Frontends that are not served as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<FrontendKey, Refusal> {
        &self.refused
    }

    /// What the maps hold, as far as we know.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        self.observed.contents()
    }

    /// The maps.
    pub const fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    /// Gives the maps back.
    #[must_use]
    pub fn into_maps(self) -> M {
        self.maps
    }

    fn take_touched(&mut self) -> Touched {
        let mut touched = std::mem::take(&mut self.retry);
        for (name, service) in self.inventory.take_stale() {
            touched.merge(match service {
                Some(service) => self.desired.put(service),
                None => self.desired.remove(&name),
            });
        }
        touched
    }

    fn run_full(&mut self) -> Result<Outcome, ReconcileError> {
        let plan = plan(&self.desired, &self.observed, &self.ids, &self.limits);
        let contents = self.observed.contents();
        let everything = Touched {
            frontends: self
                .desired
                .frontends()
                .map(|(key, _)| *key)
                .chain(contents.frontends.keys().copied())
                .collect(),
            backends: self
                .desired
                .backends()
                .copied()
                .chain(contents.backends.values().map(|backend| backend.key))
                .collect(),
        };
        let outcome = self.run(plan, everything, true)?;
        self.planned_once = true;
        self.name_everything().map_err(ReconcileError::Names)?;
        Ok(outcome)
    }

    fn run(&mut self, plan: Plan, touched: Touched, full: bool) -> Result<Outcome, ReconcileError> {
        let frontends = touched.frontends.clone();
        // Until all is done, all of it is to be done again.
        self.retry.merge(touched);
        self.names.reserve(plan.ids.next_frontend, plan.ids.next_backend).map_err(ReconcileError::Names)?;
        let mut outcome = Outcome { full, ..Outcome::default() };
        let mut renamed = Vec::new();
        let failed = apply_all(&plan.ops, &mut self.maps, &mut self.observed, |op| {
            *outcome.done.entry(op.name()).or_default() += 1;
            if matches!(op, Op::PutFrontend { .. } | Op::DeleteFrontend { .. }) {
                renamed.push(*op);
            }
        });
        self.ids = plan.ids;
        self.ids.settle(&self.observed);
        self.name(&renamed).map_err(ReconcileError::Names)?;
        self.refused.retain(|key, _| !frontends.contains(key));
        if failed.is_empty() {
            self.retry = Touched::default();
        }
        for rejected in plan.rejected {
            let reason = format!("there is no room for it: {} is {}", rejected.limit, self.limits.of(rejected.limit));
            self.refused.insert(rejected.key, Refusal { service: Some(rejected.service), reason });
            self.retry.frontends.insert(rejected.key);
        }
        self.record_failures(failed, &mut outcome);
        Ok(outcome)
    }

    fn record_failures(&mut self, failed: Vec<Failed>, outcome: &mut Outcome) {
        for Failed { op, error } in failed {
            *outcome.failed.entry(op.name()).or_default() += 1;
            let key = match op {
                Op::PutFrontend { key, .. } | Op::DeleteFrontend { key, .. } => Some(key),
                _ => None,
            };
            if let Some(key) = key {
                let service = self.desired.frontend(&key).map(|frontend| frontend.service.clone());
                let reason = match &error {
                    Some(error) => format!("{} failed: {error}", op.name()),
                    None => format!("{} waits for an operation that failed", op.name()),
                };
                self.refused.insert(key, Refusal { service, reason });
            }
            if outcome.error.is_none() {
                outcome.error = error;
            }
        }
    }

    fn name(&mut self, ops: &[Op]) -> io::Result<()> {
        for op in ops {
            match op {
                Op::PutFrontend { key, value } => self.name_one(key, value.id)?,
                Op::DeleteFrontend { id, .. } => self.names.remove(*id)?,
                _ => {}
            }
        }
        if ops.is_empty() { Ok(()) } else { self.names.flush() }
    }

    fn name_one(&mut self, key: &FrontendKey, id: u32) -> io::Result<()> {
        let Some(frontend) = self.desired.frontend(key) else { return Ok(()) };
        let name = FrontendName {
            namespace: frontend.service.namespace.clone(),
            service: frontend.service.name.clone(),
            port_name: frontend.port_name.clone(),
            address: key.to_string(),
        };
        self.names.put(id, name)
    }

    /// A crash may have come between an operation and its line in the journal.
    fn name_everything(&mut self) -> io::Result<()> {
        let published: Vec<(FrontendKey, u32)> =
            self.observed.contents().frontends.iter().map(|(key, value)| (*key, value.id)).collect();
        for (key, id) in &published {
            self.name_one(key, *id)?;
        }
        let observed = &self.observed;
        self.names.retain(|id| observed.frontend_key(id).is_some())?;
        self.names.flush()
    }
}
