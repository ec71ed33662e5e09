//! The node agent: watches the API server and keeps the kernel's maps true.
//!
//! ```text
//!  source (API server or file) ─► inventory ─► plan ─► apply ─► kernel maps          services
//!  cni (kubelet or plugin) ─► endpoint records ─► endpoints ─► kernel maps, tc links  pods
//!  inspect ◄─ kernel maps                                                             people
//! ```

pub mod agent;
pub mod apply;
pub mod cni;
pub mod inspect;
pub mod inventory;
pub mod kernel;
pub mod names;
pub mod reconcile;
pub mod source;
