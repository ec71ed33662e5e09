//! Internet checksums: of whole messages, and what a change of addresses or ports adds to one.
//!
//! The sum is one's complement, so it does not care about byte order as long as everything is read alike: differences
//! are of words as they lie in memory, which is what the kernel's helpers take.

use dataplane_abi::{Be16, Ip4, Ip6};

use crate::tuple::Tuple;

/// The words of an address, as far as sums ask.
pub trait Words {
    /// The sum of its words.
    fn sum(&self) -> u64;

    /// The sum of its words' complements: what takes it out of a checksum.
    fn complement(&self) -> u64;
}

impl Words for Ip4 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn complement(&self) -> u64 {
        !self.0 as u64
    }
}

impl Words for Ip6 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        let [first, second, third, last] = self.0;
        first as u64 + second as u64 + third as u64 + last as u64
    }

    #[inline(always)]
    fn complement(&self) -> u64 {
        let [first, second, third, last] = self.0;
        !first as u64 + !second as u64 + !third as u64 + !last as u64
    }
}

/// What changed addresses add to a checksum that covers them.
#[must_use]
#[inline(always)]
pub fn addresses<A: Words>(old: &Tuple<A>, new: &Tuple<A>) -> u32 {
    fold(old.source.complement() + old.destination.complement() + new.source.sum() + new.destination.sum())
}

/// What changed ports add to a checksum that covers them.
#[must_use]
#[inline(always)]
pub const fn ports<A>(old: &Tuple<A>, new: &Tuple<A>) -> u32 {
    let taken = complement(old.source_port) + complement(old.destination_port);
    fold(taken + new.source_port.0 as u64 + new.destination_port.0 as u64)
}

/// The checksum over words that sum to this, in memory's order.
#[must_use]
#[inline(always)]
pub const fn of_words(sum: u64) -> u16 {
    let sum = fold(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
const fn complement(port: Be16) -> u64 {
    !port.0 as u64
}

/// Folds a sum of a few words into one, with the carries added at its end.
#[inline(always)]
const fn fold(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    (once + (once >> 32)) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use dataplane_abi::{Be16, Ip4, Ip6};
    use proptest::prelude::*;

    use super::{Words, addresses, of_words, ports};
    use crate::tuple::Tuple;

    /// The checksum of everything, the plain way: 16-bit words in memory's order.
    fn full(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// What the kernel does with a difference.
    fn apply(checksum: u16, difference: u32) -> u16 {
        let mut sum = u64::from(!checksum) + u64::from(difference);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn halves(words: &[u32]) -> Vec<u16> {
        words.iter().flat_map(|word| [(*word >> 16) as u16, *word as u16]).collect()
    }

    /// 0 and 0xffff are the same number.
    fn normal(checksum: u16) -> u16 {
        if checksum == 0xffff { 0 } else { checksum }
    }

    fn tuple<A>(source: A, destination: A, ports: (u16, u16)) -> Tuple<A> {
        Tuple { source, destination, source_port: Be16(ports.0), destination_port: Be16(ports.1) }
    }

    fn check<A: Words>(old: &Tuple<A>, new: &Tuple<A>, words: impl Fn(&A) -> Vec<u32>, rest: &[u16]) {
        let all = |tuple: &Tuple<A>| -> Vec<u16> {
            let mut all = halves(&words(&tuple.source));
            all.extend(halves(&words(&tuple.destination)));
            all.extend([tuple.source_port.0, tuple.destination_port.0]);
            all.extend(rest);
            all
        };
        let by_difference = apply(apply(full(&all(old)), addresses(old, new)), ports(old, new));
        assert_eq!(normal(by_difference), normal(full(&all(new))));
    }

    proptest! {
        #[test]
        fn differences_give_what_a_full_sum_gives(
            old: (u32, u32, u16, u16),
            new: (u32, u32, u16, u16),
            old6: ([u32; 4], [u32; 4]),
            new6: ([u32; 4], [u32; 4]),
            rest in prop::collection::vec(any::<u16>(), 0..40),
        ) {
            let before = tuple(Ip4(old.0), Ip4(old.1), (old.2, old.3));
            let after = tuple(Ip4(new.0), Ip4(new.1), (new.2, new.3));
            check(&before, &after, |ip| std::vec![ip.0], &rest);
            let before = tuple(Ip6(old6.0), Ip6(old6.1), (old.2, old.3));
            let after = tuple(Ip6(new6.0), Ip6(new6.1), (new.2, new.3));
            check(&before, &after, |ip| ip.0.to_vec(), &rest);
        }
    }

    #[test]
    fn the_textbook_header_has_its_textbook_checksum() {
        let header =
            [[0x45, 0, 0, 0x73], [0, 0, 0x40, 0], [0x40, 0x11, 0, 0], [0xc0, 0xa8, 0, 1], [0xc0, 0xa8, 0, 0xc7]];
        let sum = header.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        assert_eq!(of_words(sum).to_ne_bytes(), [0xb8, 0x61]);
    }
}
