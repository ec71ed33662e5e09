//! The Node object: what this machine is and how it does, and the lease that says that it lives.
//!
//! `machine` measures, `object` builds the desired Node (pure), `status` keeps it true, `lease` renews, `ranges` waits for
//! the pod address ranges and makes the pod network of them.

pub(crate) mod lease;
pub(crate) mod machine;
pub(crate) mod object;
pub(crate) mod ranges;
pub(crate) mod status;
mod transitions;
