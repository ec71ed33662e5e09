//! Picking one slot of an interval.

use dataplane_abi::frontend::{Frontend, Interval, flag};

/// The index of a slot picked by a random number, every slot equally likely; `None` when there is none.
///
/// Scales instead of taking a remainder: no division, and no index outside the interval for the verifier to doubt.
#[must_use]
#[inline(always)]
pub const fn pick(interval: Interval, random: u32) -> Option<u32> {
    if interval.count == 0 {
        return None;
    }
    let offset = (random as u64 * interval.count as u64) >> 32;
    Some(interval.start.wrapping_add(offset as u32))
}

/// The interval that clients of this node may use.
#[must_use]
#[inline(always)]
pub const fn internal_set(frontend: &Frontend) -> Interval {
    if frontend.flags & flag::INTERNAL_LOCAL != 0 { frontend.local } else { frontend.cluster }
}

#[cfg(test)]
mod tests {
    use dataplane_abi::frontend::{Frontend, Interval, flag};
    use proptest::prelude::*;

    use super::{internal_set, pick};

    #[test]
    fn an_empty_interval_has_no_slot() {
        assert_eq!(pick(Interval { start: 7, count: 0 }, 1234), None);
    }

    #[test]
    fn every_slot_is_picked_about_equally_often() {
        let mut hits = [0_u32; 3];
        for step in 0..30_000_u32 {
            let index = pick(Interval { start: 0, count: 3 }, step.wrapping_mul(2_654_435_761));
            hits[index.map_or(usize::MAX, |index| index as usize)] += 1;
        }
        assert!(hits.iter().all(|hits| (9_500..10_500).contains(hits)), "{hits:?}");
    }

    #[test]
    fn the_internal_policy_chooses_the_set() {
        let cluster = Interval { start: 1, count: 4 };
        let local = Interval { start: 0, count: 2 };
        let mut frontend = Frontend { cluster, local, ..Frontend::default() };
        assert_eq!(internal_set(&frontend), cluster);
        frontend.flags = flag::EXTERNAL_LOCAL;
        assert_eq!(internal_set(&frontend), cluster);
        frontend.flags |= flag::INTERNAL_LOCAL;
        assert_eq!(internal_set(&frontend), local);
    }

    proptest! {
        #[test]
        fn a_picked_slot_lies_within_the_interval(start in 0..1_000_000_u32, count in 1..1_000_000_u32, random: u32) {
            let index = pick(Interval { start, count }, random);
            prop_assert!(index.is_some_and(|index| index >= start && index < start + count));
        }
    }
}
