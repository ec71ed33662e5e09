//! Addresses and networks, as Kubernetes' expression library has them.

use std::net::IpAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

/// An address without a zone, and no IPv4 address in IPv6 clothes.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (!is_mapped).then_some(address)
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (left, prefix) = text.split_once('/')?;
        let is_plain = prefix.bytes().all(|byte| byte.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
        let cidr = Self { address: address(left)?, prefix: prefix.parse().ok().filter(|_| is_plain)? };
        (cidr.prefix <= cidr.bits()).then_some(cidr)
    }

    fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn network(self, address: IpAddr) -> u128 {
        let host = u32::from(self.bits() - self.prefix);
        Self::number(address).checked_shr(host).unwrap_or(0)
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.network(address) == self.network(self.address)
    }

    pub(super) fn contains_cidr(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    pub(super) fn masked(self) -> Self {
        let host = u32::from(self.bits() - self.prefix);
        let number = self.network(self.address).checked_shl(host).unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        };
        Self { address, ..self }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
