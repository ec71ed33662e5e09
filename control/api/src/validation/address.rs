//! Rules for IP addresses and networks.

use std::net::IpAddr;

use super::errors::{Errors, Path};

pub(crate) const INVALID_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const INVALID_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(crate) fn ip(text: &str, path: &Path, errors: &mut Errors) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        errors.invalid(path, text, INVALID_IP);
    }
    address
}

/// An address that can be reached: not unspecified, loopback, link-local or link-local multicast.
pub(crate) fn ordinary(text: &str, path: &Path, errors: &mut Errors) {
    let Some(address) = ip(text, path, errors) else { return };
    let detail = match address {
        _ if address.is_unspecified() => format!("may not be unspecified ({text})"),
        _ if address.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        IpAddr::V4(v4) if v4.is_link_local() => link_local(),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => link_local(),
        IpAddr::V4(v4) if v4.octets()[..3] == [224, 0, 0] => link_local_multicast(),
        IpAddr::V6(v6) if v6.segments()[0] & 0xff0f == 0xff02 => link_local_multicast(),
        _ => return,
    };
    errors.invalid(path, text, &detail);
}

fn link_local() -> String {
    "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
}

fn link_local_multicast() -> String {
    "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
}

/// A network and its prefix length.
pub(crate) fn cidr(text: &str, path: &Path, errors: &mut Errors) -> Option<(IpAddr, u8)> {
    let network = parse_cidr(text);
    if network.is_none() {
        errors.invalid(path, text, INVALID_CIDR);
    }
    network
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Whether the second network lies within the first and is smaller.
pub(crate) fn strictly_contains(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = if outer.1 == 0 { 0 } else { u128::MAX << (128 - u32::from(outer.1)) };
    outer.0.is_ipv4() == inner.0.is_ipv4() && inner.1 > outer.1 && bits(outer.0) & mask == bits(inner.0) & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn special_addresses_are_refused() {
        for (text, good) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("x", false),
        ] {
            assert_eq!(texts(|errors| ordinary(text, &Path::new("a"), errors)).is_empty(), good, "{text}");
        }
    }

    #[test]
    fn networks_contain_smaller_ones() {
        let parse = |text| parse_cidr(text).expect(text);
        assert!(strictly_contains(parse("10.0.0.0/8"), parse("10.1.0.0/16")));
        assert!(!strictly_contains(parse("10.0.0.0/8"), parse("11.0.0.0/16")));
        assert!(!strictly_contains(parse("10.0.0.0/8"), parse("10.0.0.0/8")));
        assert!(strictly_contains(parse("::/0"), parse("fd00::/8")));
        assert!(!strictly_contains(parse("0.0.0.0/0"), parse("fd00::/8")));
        assert!(parse_cidr("10.0.0.0/33").is_none() && parse_cidr("10.0.0.0").is_none());
    }
}
