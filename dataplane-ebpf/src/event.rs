//! Reporting what happened, when someone asked for it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dataplane_abi::config::{flag, setting};
use dataplane_abi::event::Event;
use dataplane_abi::reason::Reason;

use crate::count;
use crate::maps::{EVENTS, setting as read_setting};

/// Writes an event, unless events are off; a full ring loses it and counts the loss. The time is filled in here.
#[inline(always)]
pub fn report(event: &Event) {
    if read_setting(setting::FLAGS) & flag::EVENTS == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        count::reason(Reason::EventLost, 0);
        return;
    };
    // SAFETY: the helper has no preconditions.
    let timestamp_ns = unsafe { bpf_ktime_get_ns() };
    entry.write(Event { timestamp_ns, ..*event });
    entry.submit(0);
}
