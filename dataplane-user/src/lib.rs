//! The node agent: watches the API server and keeps the kernel's maps true.

pub mod cni;
