//! What a client hears when nobody serves the address that it sent to: a reset, or "port unreachable".
//!
//! The answer comes from the address that was dialled, as if a host without a listener had it. It is built whole, with
//! its checksums, from the first bytes of the packet that it answers.

use crate::checksum;
use crate::flow::tcp::{ACK, FIN, RST, SYN};

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TTL: u8 = 64;

/// A TCP header without options.
pub type TcpHeader = [u8; 20];

/// An IPv4 reset; the client's packet had this much data behind its header. `None` for a reset, which is never answered.
#[must_use]
#[inline(always)]
pub fn reset4(header: &[u8; 20], segment: &TcpHeader, data: u32) -> Option<[u8; 40]> {
    let mut packet = [0; 40];
    write(&mut packet, 0, &header4(header, 40, TCP));
    let pseudo = words(&packet, 12, 8) + TCP as u32 + 20;
    write(&mut packet, 20, &reset(segment, data, pseudo)?);
    Some(packet)
}

/// An IPv6 reset, as [`reset4`].
#[must_use]
#[inline(always)]
pub fn reset6(header: &[u8; 40], segment: &TcpHeader, data: u32) -> Option<[u8; 60]> {
    let mut packet = [0; 60];
    write(&mut packet, 0, &header6(header, 20, TCP));
    let pseudo = words(&packet, 8, 32) + TCP as u32 + 20;
    write(&mut packet, 40, &reset(segment, data, pseudo)?);
    Some(packet)
}

/// An ICMP "port unreachable" that quotes an IPv4 header without options and eight bytes behind it.
#[must_use]
#[inline(always)]
pub fn unreachable4(quoted: &[u8; 28]) -> [u8; 56] {
    let mut packet = [0; 56];
    let mut message = [0; 36];
    (message[0], message[1]) = (3, 3);
    write(&mut message, 8, quoted);
    let sum = checksum::of(&message, 0).to_be_bytes();
    write(&mut message, 2, &sum);
    write(&mut packet, 0, &header4(quoted, 56, ICMP));
    write(&mut packet, 20, &message);
    packet
}

/// An ICMPv6 "port unreachable" that quotes the fixed header and eight bytes behind it.
#[must_use]
#[inline(always)]
pub fn unreachable6(quoted: &[u8; 48]) -> [u8; 96] {
    let mut packet = [0; 96];
    let mut message = [0; 56];
    (message[0], message[1]) = (1, 4);
    write(&mut message, 8, quoted);
    write(&mut packet, 0, &header6(quoted, 56, ICMP6));
    let pseudo = words(&packet, 8, 32) + ICMP6 as u32 + 56;
    let sum = checksum::of(&message, pseudo).to_be_bytes();
    write(&mut message, 2, &sum);
    write(&mut packet, 40, &message);
    packet
}

/// The header of an answer to a packet with this header.
#[inline(always)]
fn header4<const N: usize>(asked: &[u8; N], length: u16, protocol: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    write(&mut header, 2, &length.to_be_bytes());
    // Too short to be split, so "do not fragment" costs nothing and spares an identifier.
    (header[6], header[8], header[9]) = (0x40, TTL, protocol);
    copy(&mut header, 12, asked, 16, 4);
    copy(&mut header, 16, asked, 12, 4);
    let sum = checksum::of(&header, 0).to_be_bytes();
    write(&mut header, 10, &sum);
    header
}

#[inline(always)]
fn header6<const N: usize>(asked: &[u8; N], length: u16, protocol: u8) -> [u8; 40] {
    let mut header = [0; 40];
    header[0] = 0x60;
    write(&mut header, 4, &length.to_be_bytes());
    (header[6], header[7]) = (protocol, TTL);
    copy(&mut header, 8, asked, 24, 16);
    copy(&mut header, 24, asked, 8, 16);
    header
}

/// The reset that a segment gets (RFC 9293, 3.10.7.1), with its checksum on top of the pseudo header's sum.
#[inline(always)]
fn reset(segment: &TcpHeader, data: u32, pseudo: u32) -> Option<TcpHeader> {
    let flags = segment[13];
    if flags & RST != 0 {
        return None;
    }
    let mut answer = [0; 20];
    copy(&mut answer, 0, segment, 2, 2);
    copy(&mut answer, 2, segment, 0, 2);
    answer[12] = 0x50;
    if flags & ACK != 0 {
        copy(&mut answer, 4, segment, 8, 4);
        answer[13] = RST;
    } else {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let used = data + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        write(&mut answer, 8, &sequence.wrapping_add(used).to_be_bytes());
        answer[13] = RST | ACK;
    }
    let sum = checksum::of(&answer, pseudo).to_be_bytes();
    write(&mut answer, 16, &sum);
    Some(answer)
}

/// The sum of the big-endian words in a range.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N], from: usize, length: usize) -> u32 {
    let mut sum = 0;
    let mut at = from;
    while at < from + length {
        sum += u16::from_be_bytes([bytes[at], bytes[at + 1]]) as u32;
        at += 2;
    }
    sum
}

#[inline(always)]
fn write<const N: usize, const M: usize>(to: &mut [u8; N], at: usize, from: &[u8; M]) {
    copy(to, at, from, 0, M);
}

/// A loop instead of a slice copy: with constant bounds nothing is left that could panic.
#[inline(always)]
fn copy<const N: usize, const M: usize>(to: &mut [u8; N], at: usize, from: &[u8; M], start: usize, length: usize) {
    let mut step = 0;
    while step < length {
        to[at + step] = from[start + step];
        step += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{reset4, reset6, unreachable4, unreachable6};
    use crate::checksum;

    fn segment(flags: u8) -> [u8; 20] {
        let mut segment = [0; 20];
        segment[..12].copy_from_slice(&[0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 1, 0]);
        (segment[12], segment[13]) = (0x50, flags);
        segment
    }

    #[test]
    fn a_syn_is_told_that_it_was_heard_and_an_open_connection_where_it_was() {
        let header = [0; 20];
        let syn = reset4(&header, &segment(0x02), 0).unwrap();
        assert_eq!((&syn[20..24], &syn[24..28], &syn[28..32]), (&[0, 80, 0x9c, 0x40][..], &[0; 4][..], &[0, 0, 0, 10][..]));
        assert_eq!(syn[33], 0x14);
        let with_data = reset4(&header, &segment(0x02), 5).unwrap();
        assert_eq!(with_data[28..32], [0, 0, 0, 15]);
        let open = reset4(&header, &segment(0x18), 100).unwrap();
        assert_eq!((&open[24..28], &open[28..32], open[33]), (&[0, 0, 1, 0][..], &[0; 4][..], 0x04));
        assert_eq!(reset4(&header, &segment(0x14), 0), None);
    }

    /// The sum over a pseudo header and a message with its checksum in place is zero.
    fn is_sound<const N: usize>(message: [u8; N], addresses: &[u8], protocol: u8) -> bool {
        let pairs = addresses.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        checksum::of(&message, pairs.sum::<u32>() + u32::from(protocol) + N as u32) == 0
    }

    proptest! {
        #[test]
        fn answers_go_back_with_sound_checksums(
            head: [u8; 28],
            head6_first: [u8; 28],
            head6_second: [u8; 20],
            flags in 0..4_u8,
            data in 0..1_400_u32,
        ) {
            let mut head6 = [0; 48];
            head6[..28].copy_from_slice(&head6_first);
            head6[28..].copy_from_slice(&head6_second);
            let four: [u8; 20] = head[..20].try_into().unwrap();
            let six: [u8; 40] = head6[..40].try_into().unwrap();

            let answer = reset4(&four, &segment(flags), data).unwrap();
            prop_assert_eq!((&answer[12..16], &answer[16..20]), (&head[16..20], &head[12..16]));
            prop_assert_eq!(checksum::of::<20>(answer[..20].try_into().unwrap(), 0), 0);
            prop_assert!(is_sound::<20>(answer[20..].try_into().unwrap(), &answer[12..20], 6));

            let answer = reset6(&six, &segment(flags), data).unwrap();
            prop_assert_eq!((&answer[8..24], &answer[24..40]), (&head6[24..40], &head6[8..24]));
            prop_assert!(is_sound::<20>(answer[40..].try_into().unwrap(), &answer[8..40], 6));

            let answer = unreachable4(&head);
            prop_assert_eq!(checksum::of::<20>(answer[..20].try_into().unwrap(), 0), 0);
            prop_assert_eq!(checksum::of::<36>(answer[20..].try_into().unwrap(), 0), 0);
            prop_assert_eq!((answer[20], answer[21], &answer[28..]), (3, 3, &head[..]));

            let answer = unreachable6(&head6);
            prop_assert!(is_sound::<56>(answer[40..].try_into().unwrap(), &answer[8..40], 58));
            prop_assert_eq!((answer[40], answer[41], &answer[48..]), (1, 4, &head6[..]));
        }
    }
}
