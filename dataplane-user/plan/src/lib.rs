//! Pure planning: what the maps should hold (desired), what they hold (observed), and the ordered operations between.
//!
//! *Owns* the choice of slots, identifiers, limits and the order of operations. *Does not own* I/O, clocks, Kubernetes
//! types or map handles: everything here is a total, deterministic function of its arguments.
//!
//! ```text
//!  Service ─ put ─► Desired ─┐ Touched
//!                            ├─ plan / plan_touched ─► Plan { ops, ids, rejected } ─► (apply) ─► Observed::apply
//!  maps ─ dump ─► Observed ──┘
//! ```
//!
//! The order of a plan makes every prefix of it safe: backends are there before the slots that name them, all slots of
//! an epoch before the frontend that flips to it, and what nobody can reach any more goes last.

mod desired;
mod failures;
mod ids;
pub mod invariants;
mod key;
mod limits;
mod observed;
mod op;
mod placement;
mod planner;

pub use desired::{Conflict, Desired, Frontend, FrontendKind, Service, ServiceName, Touched};
pub use failures::Failures;
pub use ids::Ids;
pub use key::{BackendKey, Family, FrontendKey, Protocol, Scope};
pub use limits::{Limit, Limits};
pub use observed::{Backend, Contents, Observed};
pub use op::Op;
pub use placement::{Endpoint, Placed, Placement};
pub use planner::{Plan, Rejected, plan, plan_touched};

#[cfg(test)]
mod tests;
