//! Addresses and ports in network order, so that no byte order is ever guessed.

use core::fmt;
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family's address: what the generic key and value types are made of. There are exactly two.
pub trait Address: sealed::Sealed + Copy + Ord + Hash + fmt::Debug + 'static {
    /// Bits of an address: 32 or 128.
    const BITS: u32;
    /// The family in events: 4 or 6.
    const FAMILY: u8;
    /// The address that stands for every address of the node in `scope::NODE` keys.
    const UNSPECIFIED: Self;
    /// The source that a pod sees when it reaches itself through a Service, so that its answer leaves it again.
    const HAIRPIN: Self;

    /// The address as IPv6: itself, or IPv4-mapped (`::ffff:a.b.c.d`).
    fn to_ip6(self) -> Ip6;

    /// The inverse of [`Self::to_ip6`]: `None` where the address is of the other family.
    fn from_ip6(address: Ip6) -> Option<Self>;
}

/// An IPv4 address in network order, as the kernel keeps it.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip4(pub u32);

/// An IPv6 address in network order, as four words, as the kernel keeps it.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip6(pub [u32; 4]);

/// A 16-bit number in network order: a port.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Be16(pub u16);

/// The third word of an IPv4-mapped IPv6 address.
const MAPPED_WORD: u32 = 0xffff_u32.to_be();

impl Address for Ip4 {
    const BITS: u32 = 32;
    const FAMILY: u8 = 4;
    const UNSPECIFIED: Self = Self(0);
    /// 169.254.73.1: link-local, so nothing in a cluster has it.
    const HAIRPIN: Self = Self(u32::from_ne_bytes([169, 254, 73, 1]));

    #[inline(always)]
    fn to_ip6(self) -> Ip6 {
        Ip6([0, 0, MAPPED_WORD, self.0])
    }

    #[inline(always)]
    fn from_ip6(address: Ip6) -> Option<Self> {
        let [first, second, third, last] = address.0;
        (first == 0 && second == 0 && third == MAPPED_WORD).then_some(Self(last))
    }
}

impl Address for Ip6 {
    const BITS: u32 = 128;
    const FAMILY: u8 = 6;
    const UNSPECIFIED: Self = Self([0; 4]);
    /// `100::4901`, of the discard-only block: nobody has it, and yet it is routed like any other.
    const HAIRPIN: Self = Self([u32::from_ne_bytes([1, 0, 0, 0]), 0, 0, u32::from_ne_bytes([0, 0, 73, 1])]);

    #[inline(always)]
    fn to_ip6(self) -> Ip6 {
        self
    }

    #[inline(always)]
    fn from_ip6(address: Ip6) -> Option<Self> {
        Ip4::from_ip6(address).is_none().then_some(address)
    }
}

impl Ip6 {
    /// The address as the standard library has it, with IPv4-mapped addresses as IPv4.
    #[must_use]
    pub fn to_canonical(self) -> IpAddr {
        Ipv6Addr::from(self).to_canonical()
    }
}

impl Be16 {
    /// From a number in host order.
    #[must_use]
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The number in host order.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(address: Ip4) -> Self {
        Self::from(address.0.to_ne_bytes())
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(address: Ipv6Addr) -> Self {
        let bytes = address.octets();
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ip6> for Ipv6Addr {
    fn from(address: Ip6) -> Self {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(address.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(bytes)
    }
}

impl From<Ip4> for IpAddr {
    fn from(address: Ip4) -> Self {
        Self::V4(address.into())
    }
}

impl From<Ip6> for IpAddr {
    fn from(address: Ip6) -> Self {
        Self::V6(address.into())
    }
}

impl From<u16> for Be16 {
    fn from(host: u16) -> Self {
        Self::new(host)
    }
}

impl fmt::Debug for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

impl fmt::Debug for Ip6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(*self), f)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Ip4 {}
    impl Sealed for super::Ip6 {}
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: a transparent 32-bit integer.
    unsafe impl aya::Pod for super::Ip4 {}
    // SAFETY: four 32-bit integers.
    unsafe impl aya::Pod for super::Ip6 {}
    // SAFETY: a transparent 16-bit integer.
    unsafe impl aya::Pod for super::Be16 {}
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::{Address, Be16, Ip4, Ip6};

    #[test]
    fn conversions_keep_network_order() {
        let four = Ip4::from(Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(four.0.to_ne_bytes(), [10, 96, 0, 1]);
        assert_eq!(Ipv4Addr::from(four), Ipv4Addr::new(10, 96, 0, 1));
        let six: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa);
        assert_eq!(Ipv6Addr::from(Ip6::from(six)), six);
        assert_eq!(Be16::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(Be16::new(80).get(), 80);
    }

    #[test]
    fn mapped_addresses_belong_to_ipv4_only() {
        let mapped = Ip6::from(Ipv4Addr::new(10, 96, 0, 1).to_ipv6_mapped());
        assert_eq!(Ip4::from_ip6(mapped), Some(Ip4::from(Ipv4Addr::new(10, 96, 0, 1))));
        assert_eq!(Ip6::from_ip6(mapped), None);
        assert_eq!(Ip4::from(Ipv4Addr::new(10, 96, 0, 1)).to_ip6(), mapped);
        let native = Ip6::from(Ipv6Addr::LOCALHOST);
        assert_eq!(Ip4::from_ip6(native), None);
        assert_eq!(Ip6::from_ip6(native), Some(native));
    }
}
