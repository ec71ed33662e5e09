//! What a client hears when nobody serves the address that it sent to: a reset, or "port unreachable".
//!
//! The answer comes from the address that was dialled, as if a host without a listener had it. It is made, with its
//! checksums, from the first bytes of the packet that it answers.

use crate::checksum;
use crate::flow::tcp::{ACK, FIN, RST, SYN};

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TTL: u8 = 64;

/// A TCP header without options, as words in memory's order: kernel programs have few registers and a small stack.
pub type TcpHeader = [u32; 5];

/// An IPv4 reset, header and segment; the client's packet had this much data. `None` for a reset, which is never
/// answered.
#[must_use]
#[inline(always)]
pub const fn reset4(asked: &[u32; 5], segment: &TcpHeader, data: u32) -> Option<([u32; 5], TcpHeader)> {
    let pseudo = asked[3] as u64 + asked[4] as u64 + pseudo(TCP, 20);
    match reset(segment, data, pseudo) {
        Some(answer) => Some((header4(asked[3], asked[4], 40, TCP), answer)),
        None => None,
    }
}

/// An IPv6 reset, as [`reset4`].
#[must_use]
#[inline(always)]
pub const fn reset6(asked: &[u32; 10], segment: &TcpHeader, data: u32) -> Option<([u32; 10], TcpHeader)> {
    match reset(segment, data, words(asked, 2) + pseudo(TCP, 20)) {
        Some(answer) => Some((header6(asked, 20, TCP), answer)),
        None => None,
    }
}

/// The two headers of an ICMP "port unreachable" that quotes an IPv4 header without options and eight bytes behind it.
#[must_use]
#[inline(always)]
pub const fn unreachable4(quoted: &[u32; 7]) -> ([u32; 5], [u32; 2]) {
    (header4(quoted[3], quoted[4], 56, ICMP), icmp([3, 3], words(quoted, 0)))
}

/// The two headers of an ICMPv6 "port unreachable" that quotes the fixed header and eight bytes behind it.
#[must_use]
#[inline(always)]
pub const fn unreachable6(quoted: &[u32; 12]) -> ([u32; 10], [u32; 2]) {
    let mut addresses = 0;
    let mut at = 2;
    while at < 10 {
        addresses += quoted[at] as u64;
        at += 1;
    }
    (header6(quoted, 56, ICMP6), icmp([1, 4], words(quoted, 0) + addresses + pseudo(ICMP6, 56)))
}

/// The header of an answer to a packet with these addresses.
#[inline(always)]
const fn header4(source: u32, destination: u32, length: u16, protocol: u8) -> [u32; 5] {
    let [high, low] = length.to_be_bytes();
    // Too short to be split, so "do not fragment" costs nothing and spares an identifier.
    let mut header = [
        u32::from_ne_bytes([0x45, 0, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([TTL, protocol, 0, 0]),
        destination,
        source,
    ];
    let [first, second] = checksum::of_words(words(&header, 0)).to_ne_bytes();
    header[2] = u32::from_ne_bytes([TTL, protocol, first, second]);
    header
}

#[inline(always)]
const fn header6<const N: usize>(asked: &[u32; N], length: u16, protocol: u8) -> [u32; 10] {
    let [high, low] = length.to_be_bytes();
    [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([high, low, protocol, TTL]),
        asked[6],
        asked[7],
        asked[8],
        asked[9],
        asked[2],
        asked[3],
        asked[4],
        asked[5],
    ]
}

/// An ICMP header of this type and code, over what sums to this.
#[inline(always)]
const fn icmp(kind: [u8; 2], others: u64) -> [u32; 2] {
    let bare = u32::from_ne_bytes([kind[0], kind[1], 0, 0]);
    let [first, second] = checksum::of_words(bare as u64 + others).to_ne_bytes();
    [u32::from_ne_bytes([kind[0], kind[1], first, second]), 0]
}

/// The reset that a segment gets (RFC 9293, 3.10.7.1), with its checksum on top of the pseudo header's sum.
#[inline(always)]
const fn reset(segment: &TcpHeader, data: u32, pseudo: u64) -> Option<TcpHeader> {
    let flags = segment[3].to_ne_bytes()[1];
    if flags & RST != 0 {
        return None;
    }
    let ports = segment[0].rotate_left(16);
    let mut answer = if flags & ACK != 0 {
        [ports, segment[2], 0, u32::from_ne_bytes([0x50, RST, 0, 0]), 0]
    } else {
        let used = data + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        let heard = u32::from_be(segment[1]).wrapping_add(used);
        [ports, 0, heard.to_be(), u32::from_ne_bytes([0x50, RST | ACK, 0, 0]), 0]
    };
    let [first, second] = checksum::of_words(words(&answer, 0) + pseudo).to_ne_bytes();
    answer[4] = u32::from_ne_bytes([first, second, 0, 0]);
    Some(answer)
}

/// What protocol and length add to a pseudo header's sum.
#[inline(always)]
const fn pseudo(protocol: u8, length: u16) -> u64 {
    (protocol as u16).to_be() as u64 + length.to_be() as u64
}

/// The sum of the words from an index on.
#[inline(always)]
const fn words<const N: usize>(words: &[u32; N], from: usize) -> u64 {
    let mut sum = 0;
    let mut at = from;
    while at < N {
        sum += words[at] as u64;
        at += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{TcpHeader, reset4, reset6, unreachable4, unreachable6};

    fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
        let mut words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        core::array::from_fn(|_| words.next().unwrap())
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn segment(flags: u8) -> TcpHeader {
        words(&[0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 1, 0, 0x50, flags, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn a_syn_is_told_that_it_was_heard_and_an_open_connection_where_it_was() {
        let told = |flags, data| reset4(&[0; 5], &segment(flags), data).map(|(_, answer)| bytes(&answer));
        let syn = told(0x02, 0).unwrap();
        assert_eq!((&syn[..4], &syn[4..8], &syn[8..12]), (&[0, 80, 0x9c, 0x40][..], &[0; 4][..], &[0, 0, 0, 10][..]));
        assert_eq!(syn[13], 0x14);
        assert_eq!(told(0x02, 5).unwrap()[8..12], [0, 0, 0, 15]);
        let open = told(0x18, 100).unwrap();
        assert_eq!((&open[4..8], &open[8..12], open[13]), (&[0, 0, 1, 0][..], &[0; 4][..], 0x04));
        assert_eq!(told(0x14, 0), None);
    }

    /// The checksum over everything is zero with the checksum in place.
    fn is_sound(message: &[u8], addresses: &[u8], protocol: u8) -> bool {
        let pairs = addresses.chunks(2).chain(message.chunks(2));
        let sum: u32 = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let mut sum = sum + u32::from(protocol) + if protocol == 0 { 0 } else { message.len() as u32 };
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }

    proptest! {
        #[test]
        fn answers_go_back_with_sound_checksums(
            head: [u32; 7],
            head6: [u32; 12],
            flags in 0..4_u8,
            data in 0..1_400_u32,
        ) {
            let (asked, asked6) = (bytes(&head), bytes(&head6));
            let (header, body) = reset4(&words(&asked[..20]), &segment(flags), data).unwrap();
            let header = bytes(&header);
            prop_assert_eq!((&header[12..16], &header[16..20]), (&asked[16..20], &asked[12..16]));
            prop_assert!(is_sound(&header, &[], 0));
            prop_assert!(is_sound(&bytes(&body), &header[12..], 6));

            let (header, body) = reset6(&words(&asked6[..40]), &segment(flags), data).unwrap();
            let header = bytes(&header);
            prop_assert_eq!((&header[8..24], &header[24..40]), (&asked6[24..40], &asked6[8..24]));
            prop_assert!(is_sound(&bytes(&body), &header[8..], 6));

            let (header, icmp) = unreachable4(&head);
            let message = [bytes(&icmp), asked].concat();
            prop_assert!(is_sound(&bytes(&header), &[], 0));
            prop_assert!(is_sound(&message, &[], 0));
            prop_assert_eq!(&message[..2], &[3, 3][..]);

            let (header, icmp) = unreachable6(&head6);
            let message = [bytes(&icmp), asked6].concat();
            prop_assert!(is_sound(&message, &bytes(&header)[8..], 58));
            prop_assert_eq!(&message[..2], &[1, 4][..]);
        }
    }
}
