//! The glue between kernel hooks and decisions: maps, contexts, counters, events. One program family per binary.
//!
//! ```text
//!   hook ─► bin/<family>.rs  entry: three lines  ─► this library: context → plain values
//!                                                 ─► dataplane-logic: decide
//!                                                 ─► this library: write the answer, count, report
//! ```
//!
//! Programs never log, never loop without a bound that the verifier sees, and always count the reason for what they do.

#![no_std]

pub mod count;
pub mod event;
pub mod maps;
pub mod nat;
pub mod packet;
pub mod refuse;
pub mod service;
pub mod socket;
pub mod tables;

/// A panic cannot be reported from a program, and must not be silent: an endless loop makes the verifier refuse any
/// program in which this is reachable, so that a program that loads has no panicking path.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
