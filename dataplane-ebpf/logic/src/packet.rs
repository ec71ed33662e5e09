//! What a packet's network header says, as far as the pod programs ask.

use dataplane_abi::reason::Reason;
use dataplane_abi::{Address, Ip4, Ip6};

/// A packet's two addresses and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The protocol after the fixed header (in IPv6 possibly an extension header).
    pub protocol: u8,
    /// Where that begins, counted from this header.
    pub transport: u32,
    /// Whether it is only a part of what was sent.
    pub fragment: bool,
}

/// An address family's network header.
pub trait Header: Address {
    /// The fixed part of the header.
    type Bytes: Copy + Default + AsRef<[u8]>;
    /// Where the two addresses begin.
    const ADDRESSES: u32;
    /// Where the header's own checksum is, if it has one.
    const CHECKSUM: Option<u32>;

    /// Reads a header of a packet that has `length` bytes from this header on.
    ///
    /// # Errors
    /// [`Reason::Truncated`] when the packet is shorter than the header says, or the header makes no sense.
    fn parse(bytes: &Self::Bytes, length: u32) -> Result<Network<Self>, Reason>;
}

/// "More fragments" and the offset.
const FRAGMENT4: u16 = 0x3fff;
/// The extension header of fragments.
const FRAGMENT6: u8 = 44;

/// IPv4's fixed header.
pub type Header4 = [u8; 20];

/// IPv6's fixed header; its own type because `core` gives defaults to arrays of up to 32 elements only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header6(pub [u8; 40]);

impl Header for Ip4 {
    type Bytes = Header4;
    const ADDRESSES: u32 = 12;
    const CHECKSUM: Option<u32> = Some(10);

    #[inline(always)]
    fn parse(bytes: &Header4, length: u32) -> Result<Network<Self>, Reason> {
        let header_length = (bytes[0] & 0x0f) as u32 * 4;
        let total_length = u16::from_be_bytes([bytes[2], bytes[3]]) as u32;
        // A total length of 0 marks an aggregate larger than the field can say; its length is the packet's own.
        let impossible = total_length != 0 && (total_length < header_length || total_length > length);
        if bytes[0] >> 4 != 4 || header_length < 20 || header_length > length || impossible {
            return Err(Reason::Truncated);
        }
        Ok(Network {
            source: Self(u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])),
            destination: Self(u32::from_ne_bytes([bytes[16], bytes[17], bytes[18], bytes[19]])),
            protocol: bytes[9],
            transport: header_length,
            fragment: u16::from_be_bytes([bytes[6], bytes[7]]) & FRAGMENT4 != 0,
        })
    }
}

impl Header for Ip6 {
    type Bytes = Header6;
    const ADDRESSES: u32 = 8;
    const CHECKSUM: Option<u32> = None;

    #[inline(always)]
    fn parse(header: &Header6, length: u32) -> Result<Network<Self>, Reason> {
        let bytes = &header.0;
        let payload_length = u16::from_be_bytes([bytes[4], bytes[5]]) as u32;
        // A payload length of 0 marks a jumbogram or an aggregate; its length is the packet's own.
        if bytes[0] >> 4 != 6 || payload_length + 40 > length {
            return Err(Reason::Truncated);
        }
        Ok(Network {
            source: Self([word(bytes, 8), word(bytes, 12), word(bytes, 16), word(bytes, 20)]),
            destination: Self([word(bytes, 24), word(bytes, 28), word(bytes, 32), word(bytes, 36)]),
            protocol: bytes[6],
            transport: 40,
            fragment: bytes[6] == FRAGMENT6,
        })
    }
}

#[inline(always)]
const fn word(bytes: &[u8; 40], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Default for Header6 {
    #[inline(always)]
    fn default() -> Self {
        Self([0; 40])
    }
}

impl AsRef<[u8]> for Header6 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use dataplane_abi::reason::Reason;
    use dataplane_abi::{Ip4, Ip6};
    use proptest::prelude::*;

    use super::{Header, Header4, Header6, Network};

    fn header4() -> Header4 {
        let mut bytes = [0; 20];
        (bytes[0], bytes[3], bytes[9]) = (0x45, 40, 6);
        bytes[12..16].copy_from_slice(&[10, 244, 0, 2]);
        bytes[16..20].copy_from_slice(&[10, 96, 0, 1]);
        bytes
    }

    fn header6() -> Header6 {
        let mut bytes = [0; 40];
        (bytes[0], bytes[5], bytes[6]) = (0x60, 20, 6);
        bytes[8..24].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        bytes[24..40].copy_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7).octets());
        Header6(bytes)
    }

    #[test]
    fn addresses_and_protocol_are_read() {
        let four = Network {
            source: Ip4::from(Ipv4Addr::new(10, 244, 0, 2)),
            destination: Ip4::from(Ipv4Addr::new(10, 96, 0, 1)),
            protocol: 6,
            transport: 20,
            fragment: false,
        };
        assert_eq!(Ip4::parse(&header4(), 40), Ok(four));
        let six = Network {
            source: Ip6::from(Ipv6Addr::LOCALHOST),
            destination: Ip6::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7)),
            protocol: 6,
            transport: 40,
            fragment: false,
        };
        assert_eq!(Ip6::parse(&header6(), 60), Ok(six));
    }

    #[test]
    fn fragments_are_told_first_and_last_and_between() {
        for (high, low, fragment) in [(0x20, 0, true), (0x20, 9, true), (0, 9, true), (0x40, 0, false), (0, 0, false)] {
            let mut bytes = header4();
            (bytes[6], bytes[7]) = (high, low);
            assert_eq!(Ip4::parse(&bytes, 40).map(|network| network.fragment), Ok(fragment), "{high:#x} {low}");
        }
        let mut bytes = header6();
        bytes.0[6] = 44;
        assert_eq!(Ip6::parse(&bytes, 60).map(|network| network.fragment), Ok(true));
    }

    #[test]
    fn padding_behind_the_packet_is_fine() {
        assert!(Ip4::parse(&header4(), 46).is_ok());
        assert!(Ip6::parse(&header6(), 64).is_ok());
    }

    #[test]
    fn lengths_are_read_not_assumed() {
        assert_eq!(Ip4::parse(&header4(), 39), Err(Reason::Truncated));
        assert_eq!(Ip6::parse(&header6(), 59), Err(Reason::Truncated));
        for (first, total) in [(0x44, 40), (0x4f, 40), (0x45, 19), (0x65, 40)] {
            let mut bytes = header4();
            (bytes[0], bytes[3]) = (first, total);
            assert_eq!(Ip4::parse(&bytes, 40), Err(Reason::Truncated), "{first:#x} {total}");
        }
    }

    #[test]
    fn aggregates_larger_than_the_length_field_are_taken_at_their_own_length() {
        let mut four = header4();
        four[3] = 0;
        assert!(Ip4::parse(&four, 100_000).is_ok());
        let mut six = header6();
        six.0[5] = 0;
        assert!(Ip6::parse(&six, 100_000).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_accepted_fits_the_packet(mut bytes: [u8; 20], length in 0..2_000_u32) {
            bytes[0] = 0x40 | (bytes[0] & 0x0f);
            if Ip4::parse(&bytes, length).is_ok() {
                prop_assert!(u32::from(u16::from_be_bytes([bytes[2], bytes[3]])) <= length);
                prop_assert!(u32::from(bytes[0] & 0x0f) * 4 <= length);
            }
        }
    }
}
