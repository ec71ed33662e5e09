//! The socket path's question: where does a call to this address go?

use dataplane_abi::backend::{Backend, state};
use dataplane_abi::frontend::{Frontend, FrontendKey, Interval, scope};
use dataplane_abi::reason::Reason;
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_abi::socket::Sticky;
use dataplane_abi::{Address, Be16};

use crate::select::{internal_set, pick};

/// How many slots are searched for a socket's last backend after its frontend has changed; a larger set selects anew.
pub const STICKY_SEARCH_MAX: u32 = 64;

/// What a decision may look at. The programs answer from maps, tests from plain collections.
pub trait Tables<A: Address> {
    /// The frontend with this key.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend>;

    /// The slot with this key.
    fn slot(&self, key: &SlotKey) -> Option<Slot>;

    /// The backend with this id.
    fn backend(&self, id: u32) -> Option<Backend<A>>;

    /// The backend that the calling socket used last for this frontend, if it should stay with it.
    fn sticky(&self, _frontend: u32) -> Option<Sticky> {
        None
    }
}

/// The address that a program calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<A> {
    /// Its address.
    pub address: A,
    /// Its port.
    pub port: Be16,
    /// Its protocol.
    pub protocol: u8,
}

/// What becomes of a call.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<A> {
    /// It goes on as it is.
    Pass(Reason),
    /// It goes to a backend.
    Translate(Translation<A>),
    /// It fails as if nothing listened there.
    Refuse {
        /// The frontend's id.
        frontend: u32,
        /// Why.
        reason: Reason,
    },
}

/// The backend that a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<A> {
    /// The frontend's id.
    pub frontend: u32,
    /// The frontend's epoch at the time.
    pub epoch: u32,
    /// The backend's id.
    pub backend: u32,
    /// The backend's address.
    pub address: A,
    /// The backend's port.
    pub port: Be16,
    /// Whether the backend was selected for this call (as opposed to kept from an earlier one).
    pub selected: bool,
}

/// Decides about one call.
///
/// A frontend's value can be replaced, and its former slots deleted, between two lookups of one call: a miss behind a
/// frontend therefore asks once more from the start, and only the second miss is a [`Reason::StaleFrontend`].
#[inline(always)]
pub fn decide<A: Address, T: Tables<A>>(tables: &T, destination: Destination<A>, random: u32) -> Decision<A> {
    let key = FrontendKey {
        address: destination.address,
        port: destination.port,
        protocol: destination.protocol,
        scope: scope::ADDRESS,
    };
    match attempt(tables, &key, random) {
        Ok(decision) => decision,
        Err(_) => match attempt(tables, &key, random) {
            Ok(decision) => decision,
            Err(frontend) => Decision::Refuse { frontend, reason: Reason::StaleFrontend },
        },
    }
}

/// One pass over the maps; the error is the id of a frontend whose slot or backend was missing.
#[inline(always)]
fn attempt<A: Address, T: Tables<A>>(tables: &T, key: &FrontendKey<A>, random: u32) -> Result<Decision<A>, u32> {
    let Some(frontend) = tables.frontend(key) else {
        return Ok(Decision::Pass(Reason::SocketPassed));
    };
    let set = internal_set(&frontend);
    if let Some(translation) = keep(tables, &frontend, set) {
        return Ok(Decision::Translate(translation));
    }
    let Some(index) = pick(set, random) else {
        return Ok(if frontend.cluster.count == 0 {
            Decision::Refuse { frontend: frontend.id, reason: Reason::NoEndpoint }
        } else {
            Decision::Pass(Reason::NoLocalEndpoint)
        });
    };
    let slot_key = SlotKey { frontend: frontend.id, epoch: frontend.epoch, index };
    let slot = tables.slot(&slot_key).ok_or(frontend.id)?;
    let backend = tables.backend(slot.backend).ok_or(frontend.id)?;
    Ok(Decision::Translate(translation(&frontend, slot.backend, &backend, true)))
}

/// The backend that the socket used last, while it is active and still one of the frontend's.
#[inline(always)]
fn keep<A: Address, T: Tables<A>>(tables: &T, frontend: &Frontend, set: Interval) -> Option<Translation<A>> {
    let sticky = tables.sticky(frontend.id)?;
    let backend = tables.backend(sticky.backend)?;
    if backend.state & state::ACTIVE == 0 {
        return None;
    }
    if sticky.epoch != frontend.epoch && !serves(tables, frontend, set, sticky.backend) {
        return None;
    }
    Some(translation(frontend, sticky.backend, &backend, false))
}

/// Whether a backend is in the set.
#[inline(always)]
fn serves<A: Address, T: Tables<A>>(tables: &T, frontend: &Frontend, set: Interval, backend: u32) -> bool {
    for offset in 0..STICKY_SEARCH_MAX {
        if offset >= set.count {
            return false;
        }
        let key = SlotKey { frontend: frontend.id, epoch: frontend.epoch, index: set.start.wrapping_add(offset) };
        if tables.slot(&key).is_some_and(|slot| slot.backend == backend) {
            return true;
        }
    }
    false
}

#[inline(always)]
const fn translation<A: Address>(frontend: &Frontend, id: u32, backend: &Backend<A>, selected: bool) -> Translation<A> {
    Translation {
        frontend: frontend.id,
        epoch: frontend.epoch,
        backend: id,
        address: backend.address,
        port: backend.port,
        selected,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::cell::Cell;
    use core::net::Ipv4Addr;
    use std::collections::BTreeMap;

    use dataplane_abi::backend::{Backend, state};
    use dataplane_abi::frontend::{Frontend, FrontendKey, Interval, flag};
    use dataplane_abi::protocol::{TCP, UDP};
    use dataplane_abi::reason::Reason;
    use dataplane_abi::slot::{Slot, SlotKey};
    use dataplane_abi::socket::Sticky;
    use dataplane_abi::{Be16, Ip4};
    use proptest::prelude::*;

    use super::{Decision, Destination, STICKY_SEARCH_MAX, Tables, decide};

    const FRONTEND: u32 = 3;

    /// Maps as plain collections. With `flips`, the first lookup of the frontend still sees an epoch without slots.
    #[derive(Clone, Default)]
    struct Fake {
        frontend: Option<Frontend>,
        slots: BTreeMap<SlotKey, Slot>,
        backends: BTreeMap<u32, Backend<Ip4>>,
        sticky: Option<Sticky>,
        flips: Cell<bool>,
    }

    impl Fake {
        fn with(cluster: &[u32], local: usize) -> Self {
            let mut fake = Self {
                frontend: Some(Frontend {
                    id: FRONTEND,
                    epoch: 5,
                    cluster: Interval { start: 0, count: cluster.len() as u32 },
                    local: Interval { start: 0, count: local as u32 },
                    ..Frontend::default()
                }),
                ..Self::default()
            };
            for (index, &backend) in cluster.iter().enumerate() {
                fake.slots.insert(SlotKey { frontend: FRONTEND, epoch: 5, index: index as u32 }, Slot { backend });
                fake.backends.insert(backend, endpoint(backend));
            }
            fake
        }
    }

    impl Tables<Ip4> for Fake {
        fn frontend(&self, key: &FrontendKey<Ip4>) -> Option<Frontend> {
            let dialled = destination();
            let ours = key.address == dialled.address && key.port == dialled.port && key.protocol == dialled.protocol;
            let frontend = self.frontend.filter(|_| ours)?;
            Some(if self.flips.take() { Frontend { epoch: frontend.epoch - 1, ..frontend } } else { frontend })
        }

        fn slot(&self, key: &SlotKey) -> Option<Slot> {
            self.slots.get(key).copied()
        }

        fn backend(&self, id: u32) -> Option<Backend<Ip4>> {
            self.backends.get(&id).copied()
        }

        fn sticky(&self, frontend: u32) -> Option<Sticky> {
            self.sticky.filter(|_| frontend == FRONTEND)
        }
    }

    fn endpoint(id: u32) -> Backend<Ip4> {
        Backend { address: Ip4(id), port: Be16::new(8080), protocol: TCP, state: state::ACTIVE }
    }

    fn destination() -> Destination<Ip4> {
        Destination { address: Ipv4Addr::new(10, 96, 0, 9).into(), port: Be16::new(80), protocol: TCP }
    }

    fn backend_of(decision: Decision<Ip4>) -> Option<(u32, bool)> {
        match decision {
            Decision::Translate(translation) => Some((translation.backend, translation.selected)),
            _ => None,
        }
    }

    #[test]
    fn an_address_that_is_no_frontend_passes() {
        let fake = Fake::with(&[11], 0);
        let other = Destination { protocol: UDP, ..destination() };
        assert_eq!(decide(&fake, other, 0), Decision::Pass(Reason::SocketPassed));
    }

    #[test]
    fn a_frontend_goes_to_its_backend() {
        let Decision::Translate(translation) = decide(&Fake::with(&[11], 0), destination(), 99) else {
            panic!("not translated");
        };
        assert_eq!((translation.frontend, translation.epoch, translation.backend), (FRONTEND, 5, 11));
        assert_eq!((translation.address, translation.port), (Ip4(11), Be16::new(8080)));
        assert!(translation.selected);
    }

    #[test]
    fn a_frontend_without_endpoints_refuses() {
        let refused = Decision::Refuse { frontend: FRONTEND, reason: Reason::NoEndpoint };
        assert_eq!(decide(&Fake::with(&[], 0), destination(), 0), refused);
    }

    #[test]
    fn the_local_policy_without_local_endpoints_passes_but_uses_them_when_there_are() {
        let mut fake = Fake::with(&[11, 12], 0);
        fake.frontend = fake.frontend.map(|frontend| Frontend { flags: flag::INTERNAL_LOCAL, ..frontend });
        assert_eq!(decide(&fake, destination(), u32::MAX), Decision::Pass(Reason::NoLocalEndpoint));
        let local = Interval { start: 0, count: 1 };
        fake.frontend = fake.frontend.map(|frontend| Frontend { local, ..frontend });
        assert_eq!(backend_of(decide(&fake, destination(), u32::MAX)), Some((11, true)));
    }

    #[test]
    fn a_flip_between_two_lookups_is_asked_again() {
        let fake = Fake::with(&[11], 0);
        fake.flips.set(true);
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((11, true)));
    }

    #[test]
    fn slots_that_stay_missing_refuse() {
        let mut fake = Fake::with(&[11], 0);
        fake.backends.clear();
        let refused = Decision::Refuse { frontend: FRONTEND, reason: Reason::StaleFrontend };
        assert_eq!(decide(&fake, destination(), 0), refused);
    }

    #[test]
    fn a_sticky_socket_keeps_its_backend_until_it_leaves_the_frontend_or_goes_inactive() {
        let mut fake = Fake::with(&[11, 12, 13], 0);
        fake.sticky = Some(Sticky { backend: 13, epoch: 5 });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((13, false)));
        // The frontend changed, but still has it.
        fake.sticky = Some(Sticky { backend: 13, epoch: 4 });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((13, false)));
        // It serves another frontend only.
        fake.backends.insert(14, endpoint(14));
        fake.sticky = Some(Sticky { backend: 14, epoch: 4 });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((11, true)));
        // It is there for established connections only.
        fake.sticky = Some(Sticky { backend: 13, epoch: 5 });
        fake.backends.insert(13, Backend { state: state::TERMINATING, ..endpoint(13) });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((11, true)));
    }

    #[test]
    fn the_search_for_a_sticky_backend_is_bounded() {
        let ids: std::vec::Vec<u32> = (100..100 + STICKY_SEARCH_MAX + 1).collect();
        let mut fake = Fake::with(&ids, 0);
        fake.sticky = Some(Sticky { backend: 100 + STICKY_SEARCH_MAX, epoch: 4 });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((100, true)));
        fake.sticky = Some(Sticky { backend: 100 + STICKY_SEARCH_MAX - 1, epoch: 4 });
        assert_eq!(backend_of(decide(&fake, destination(), 0)), Some((100 + STICKY_SEARCH_MAX - 1, false)));
    }

    proptest! {
        #[test]
        fn a_translation_always_names_a_backend_of_the_set(
            backends in prop::collection::btree_set(1..10_000_u32, 0..20),
            local_share in 0.0..=1.0_f64,
            local_policy: bool,
            random: u32,
        ) {
            let backends: std::vec::Vec<u32> = backends.into_iter().collect();
            let local = (backends.len() as f64 * local_share) as usize;
            let mut fake = Fake::with(&backends, local);
            let flags = if local_policy { flag::INTERNAL_LOCAL } else { 0 };
            fake.frontend = fake.frontend.map(|frontend| Frontend { flags, ..frontend });
            let set = if local_policy { &backends[..local] } else { &backends[..] };
            match decide(&fake, destination(), random) {
                Decision::Translate(translation) => prop_assert!(set.contains(&translation.backend)),
                Decision::Refuse { reason, .. } => prop_assert!(backends.is_empty() && reason == Reason::NoEndpoint),
                Decision::Pass(reason) => {
                    prop_assert!(set.is_empty() && !backends.is_empty() && reason == Reason::NoLocalEndpoint);
                }
            }
        }
    }
}
