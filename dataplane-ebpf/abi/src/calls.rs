//! Tail calls of the packet programs: entry → family.
//!
//! Each loaded generation of programs has its own array, so that an entry program only ever calls programs that were
//! built with it; an upgrade swaps the entry programs, and with them the whole array.

/// The array's name in the objects that have one (not pinned under a layout version: it belongs to a generation).
pub const NAME: &str = "calls";

/// Index of the program for IPv4 packets.
pub const IPV4: u32 = 0;
/// Index of the program for IPv6 packets.
pub const IPV6: u32 = 1;
/// How many there are room for.
pub const NUMBERS: u32 = 8;
