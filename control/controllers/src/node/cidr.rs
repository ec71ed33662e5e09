//! Ranges of pod addresses: a /24 of each IPv4 range and a /64 of each IPv6 range for every node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

#[derive(Debug, Error)]
#[error("{cidr:?} is not a range that can be divided among nodes: write ADDRESS/PREFIX, at most /24 or /64")]
pub(super) struct RangeError {
    cidr: String,
}

/// The cluster's ranges, each divided into one part a node.
#[derive(Debug)]
pub(super) struct Ranges {
    ranges: Vec<(IpAddr, u8)>,
}

impl Ranges {
    pub(super) fn parse(cidrs: &[String]) -> Result<Self, RangeError> {
        let parse = |cidr: &String| {
            let (address, prefix) = cidr.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let widest = if address.is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
            (prefix <= widest).then_some((address, prefix))
        };
        let ranges = cidrs.iter().map(|cidr| parse(cidr).ok_or_else(|| RangeError { cidr: cidr.clone() }));
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }

    /// The first part of each range that no node has; the same index in all ranges.
    pub(super) fn next(&self, taken: &BTreeSet<String>) -> Option<Vec<String>> {
        let parts = self.ranges.iter().map(|(address, prefix)| {
            let widest = if address.is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
            1_u64 << (widest - prefix).min(16)
        });
        let parts = parts.min()?;
        (0..parts).map(|index| self.part(index)).find(|part| part.iter().all(|cidr| !taken.contains(cidr)))
    }

    fn part(&self, index: u64) -> Vec<String> {
        self.ranges
            .iter()
            .map(|(address, _)| match address {
                IpAddr::V4(base) => {
                    let part = u32::from(*base) + ((index as u32) << (32 - NODE_PREFIX_V4));
                    format!("{}/{NODE_PREFIX_V4}", std::net::Ipv4Addr::from(part))
                }
                IpAddr::V6(base) => {
                    let part = u128::from(*base) + (u128::from(index) << (128 - NODE_PREFIX_V6));
                    format!("{}/{NODE_PREFIX_V6}", std::net::Ipv6Addr::from(part))
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn nodes_get_the_first_free_part_of_each_range() {
        let ranges = Ranges::parse(&["10.244.0.0/16".into(), "fd00:10:244::/56".into()]).unwrap();
        let first = ranges.next(&Default::default()).unwrap();
        assert_eq!(first, ["10.244.0.0/24", "fd00:10:244::/64"]);
        let second = ranges.next(&first.into_iter().collect()).unwrap();
        assert_eq!(second, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    }

    #[test]
    fn a_range_that_is_too_small_is_refused() {
        assert!(Ranges::parse(&["10.0.0.0/25".into()]).is_err());
        assert!(Ranges::parse(&["nonsense".into()]).is_err());
    }
}
