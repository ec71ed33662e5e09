//! Tail calls of the packet programs: entry → family → new flow → refusal.
//!
//! Each loaded generation of programs has its own array, so that an entry program only ever calls programs that were
//! built with it; an upgrade swaps the entry programs, and with them the whole array.

/// The array's name in the objects that have one (not pinned under a layout version: it belongs to a generation).
pub const NAME: &str = "calls";

/// Index of the program for IPv4 packets from a pod.
pub const FROM_POD4: u32 = 0;
/// Index of the program for IPv6 packets from a pod.
pub const FROM_POD6: u32 = 1;
/// Index of the program for IPv4 packets to a pod.
pub const TO_POD4: u32 = 2;
/// Index of the program for IPv6 packets to a pod.
pub const TO_POD6: u32 = 3;
/// Index of the program for packets from a pod that open an IPv4 flow through a Service.
pub const NEW_FLOW4: u32 = 4;
/// Index of the program for packets from a pod that open an IPv6 flow through a Service.
pub const NEW_FLOW6: u32 = 5;
/// Index of the program that answers an IPv4 packet to a Service that nobody serves.
pub const REFUSE4: u32 = 6;
/// Index of the program that answers an IPv6 packet to a Service that nobody serves.
pub const REFUSE6: u32 = 7;
/// How many there are room for.
pub const NUMBERS: u32 = 16;
