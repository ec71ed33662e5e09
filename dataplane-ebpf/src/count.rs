//! Counting what happened. Per CPU, so that no two programs ever write the same memory.

use dataplane_abi::reason::Reason;

use crate::maps::{FRONTEND_STATS, REASON_STATS};

/// Counts a reason, with the bytes it concerned (0 for socket calls).
#[inline(always)]
pub fn reason(reason: Reason, bytes: u32) {
    if let Some(counters) = REASON_STATS.get_ptr_mut(u32::from(reason.number())) {
        // SAFETY: the value is this CPU's own, and programs are not preempted by programs that write the same entry
        // in a way that matters: a lost increment under preemption is the kernel's own contract for these maps.
        let counters = unsafe { &mut *counters };
        counters.count = counters.count.wrapping_add(1);
        counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
    }
}

/// Counts a connection that a frontend gave a backend.
#[inline(always)]
pub fn connection(frontend: u32) {
    if let Some(counters) = FRONTEND_STATS.get_ptr_mut(frontend) {
        // SAFETY: as in `reason`.
        let counters = unsafe { &mut *counters };
        counters.connections = counters.connections.wrapping_add(1);
    }
}

/// Counts a connection that a frontend refused.
#[inline(always)]
pub fn rejection(frontend: u32) {
    if let Some(counters) = FRONTEND_STATS.get_ptr_mut(frontend) {
        // SAFETY: as in `reason`.
        let counters = unsafe { &mut *counters };
        counters.rejections = counters.rejections.wrapping_add(1);
    }
}

/// Counts a packet that was translated for a frontend.
#[inline(always)]
pub fn packet(frontend: u32, bytes: u32) {
    if let Some(counters) = FRONTEND_STATS.get_ptr_mut(frontend) {
        // SAFETY: as in `reason`.
        let counters = unsafe { &mut *counters };
        counters.packets = counters.packets.wrapping_add(1);
        counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
    }
}
