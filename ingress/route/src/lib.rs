//! The routing table as a value: compile rules once, find the rule of a request.
//!
//! Owns: what a host pattern and a path match mean, which of several matching rules wins, and which of two rules that
//! claim the same traffic is shadowed. Does not own: where rules come from or what a target is (`T` is the caller's).
//!
//! ```text
//! Rule, Rule, …  ──compile──▶  Table + conflicts      find(&Table, &RequestView) ──▶ Option<&Arc<Rule>>
//!      └── Compiler: the same, one changed object at a time; hosts that did not change keep their `Arc`s
//! ```
//!
//! The meaning of [`find`] in one sentence: of all rules whose host pattern and path match the request, the one with the
//! greatest [`Precedence`]. Everything else here makes that fast; the property tests compare with exactly that scan.
//! Nothing here does I/O, reads a clock or logs.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap fails the test"))]

mod compile;
mod host;
mod host_map;
mod host_routes;
mod path;
mod path_map;
mod rule;
mod table;

pub use compile::{Compiler, Conflict, compile};
pub use host::{HostError, HostPattern, WildcardLabels, normalize_host};
pub use path::{PATH_DEPTH_MAX, PATH_LEN_MAX, PathError, PathMatch};
pub use rule::{Precedence, Rule, Source};
pub use table::{RequestView, Table, find};
