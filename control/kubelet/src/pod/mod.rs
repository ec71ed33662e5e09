//! One worker a pod: what is seen goes through [`decide`] and [`status`], both pure, and comes out as effects.
//!
//! ```text
//! watch ─┐            ┌─ decide::next ─→ actions ─→ effects (runtime, network, volumes, hooks)
//! probes ─┼→ worker ──┤
//! runtime ┘           └─ status::compute ─→ patch ─→ API server
//! ```
//!
//! `manager` starts and feeds workers and removes what belongs to nobody; `worker` is the loop; `observed` is what the
//! runtime holds, `memory` what only this process knows.

pub(crate) mod backoff;
pub(crate) mod context;
pub(crate) mod decide;
pub(crate) mod effects;
pub(crate) mod files;
pub(crate) mod hook;
pub(crate) mod kill;
pub(crate) mod manager;
pub(crate) mod memory;
pub(crate) mod observed;
pub(crate) mod patch;
pub(crate) mod phase;
pub(crate) mod probes;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod status_writer;
pub(crate) mod worker;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod lifecycle_tests;
