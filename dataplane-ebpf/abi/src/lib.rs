//! Every byte that the kernel programs and user space share: map keys, values, numbers, and their layout versions.
//!
//! *Owns* the shapes, their sizes and what each field means. *Does not own* decisions (`dataplane-logic`), map contents
//! (`dataplane-plan`) or map sizes chosen by an operator (the agent).
//!
//! Rules: fixed-width integers only; no padding (a compile error, see [`layout`]); addresses and ports in network order
//! inside their own types; one map per file; a changed layout bumps that map's version, and with it the pin's file name.
//!
//! ```text
//!  FrontendKey ─► Frontend ──(id, epoch, start + n)──► SlotKey ─► Slot ──(backend)──► Backend   who serves this address
//!                    └────────────(id)──────────────► FrontendCounters                        how often, how much
//!  socket ─► SocketPeer, SocketSticky, SocketReverse     what a socket dialled, so that its peer can be named again
//!  FlowKey ─► Flow, first unanswered, then answered     which backend a flow's packets have
//!  pod address ─► Endpoint; prefix ─► Identity           where an address lives, and who it is
//! ```
//!
//! Identifiers: a frontend id is also its reverse-NAT id. Frontend ids and backend ids are two spaces, each shared by
//! both address families, 32 bits wide, never 0, and not reused while anything in the kernel may still name them.

#![no_std]

pub mod address;
pub mod affinity;
pub mod backend;
pub mod calls;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod endpoint;
pub mod event;
pub mod frontend;
pub mod identity;
pub mod layout;
pub mod mark;
pub mod protocol;
pub mod reason;
pub mod reverse_nat;
pub mod slot;
pub mod socket;
pub mod source_range;

pub use address::{Address, Be16, Ip4, Ip6};
pub use layout::Layout;

/// Every map that the programs of this build define and the agent pins, in no particular order.
///
/// Shapes of maps that a later program adds (identities, affinity, source ranges, reverse NAT)
/// live beside these, with their names and versions, and join this list with the program that uses them.
pub const MAPS: &[Layout] = &[
    frontend::MAP4,
    frontend::MAP6,
    slot::MAP,
    backend::MAP4,
    backend::MAP6,
    socket::PEERS,
    socket::STICKY,
    socket::REVERSE,
    socket::OFF,
    conntrack::NEW4,
    conntrack::NEW6,
    conntrack::REPLIED4,
    conntrack::REPLIED6,
    endpoint::MAP4,
    endpoint::MAP6,
    counters::FRONTENDS,
    counters::REASONS,
    config::MAP,
    event::MAP,
];

#[cfg(test)]
mod tests {
    use super::{MAPS, affinity, identity, reverse_nat, source_range};

    /// A layout that changes without its version would let two builds read each other's bytes wrongly: this table
    /// fails first. Add a line for the new version; never edit a released one.
    #[test]
    fn a_changed_layout_bumps_its_version() {
        let later = [
            identity::MAP4,
            identity::MAP6,
            affinity::MAP4,
            affinity::MAP6,
            affinity::MATCH,
            affinity::NETNS,
            reverse_nat::MAP4,
            reverse_nat::MAP6,
            source_range::MAP4,
            source_range::MAP6,
        ];
        let pinned: [(&str, u32, u32, u32); 29] = [
            ("frontends4", 1, 8, 32),
            ("frontends6", 1, 20, 32),
            ("slots", 1, 12, 4),
            ("backends4", 1, 4, 8),
            ("backends6", 1, 4, 20),
            ("socket_peers", 1, 4, 48),
            ("socket_sticky", 1, 16, 8),
            ("socket_reverse", 1, 32, 24),
            ("socket_off", 1, 8, 4),
            ("ct_new4", 1, 16, 40),
            ("ct_new6", 1, 40, 64),
            ("ct_replied4", 1, 16, 40),
            ("ct_replied6", 1, 40, 64),
            ("endpoints4", 1, 4, 24),
            ("endpoints6", 1, 16, 24),
            ("frontend_stats", 1, 4, 32),
            ("reason_stats", 1, 4, 16),
            ("config", 1, 4, 8),
            ("events", 1, 0, 0),
            ("identities4", 1, 8, 12),
            ("identities6", 1, 20, 12),
            ("affinity4", 1, 8, 16),
            ("affinity6", 1, 20, 16),
            ("affinity_match", 1, 8, 4),
            ("netns_pods", 1, 8, 20),
            ("reverse_nat4", 1, 4, 8),
            ("reverse_nat6", 1, 4, 20),
            ("source_ranges4", 1, 12, 4),
            ("source_ranges6", 1, 24, 4),
        ];
        let actual = MAPS.iter().chain(&later).map(|map| (map.name, map.version, map.key_size, map.value_size));
        assert!(actual.eq(pinned), "layouts changed without a new version");
    }

    #[test]
    fn names_fit_the_kernel_and_are_unique() {
        for (index, map) in MAPS.iter().enumerate() {
            assert!(map.name.len() <= 15, "{} is longer than the kernel keeps", map.name);
            assert!(!MAPS[..index].iter().any(|other| other.name == map.name), "{} is used twice", map.name);
        }
    }
}
