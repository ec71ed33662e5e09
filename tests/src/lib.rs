//! Harness and tests that cross crates.

pub mod cluster;
pub mod kernel_sandbox;
pub mod packet;
pub mod pod;
