//! Harness and tests that cross crates.

pub mod cluster;
pub mod control;
pub mod image;
pub mod kernel_sandbox;
pub mod kubectl;
pub mod packet;
pub mod pod;
pub mod registry;
pub mod syscalls;
