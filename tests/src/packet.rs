//! Packets for tests: built field by field, with true lengths and checksums unless a test breaks them.
//!
//! ```
//! use tidegate_tests::packet::Packet;
//! let frame = Packet::new().ipv4([10, 244, 0, 2], [10, 96, 0, 1]).tcp(40_000, 80).payload(b"hello").build();
//! assert_eq!(frame.len(), 14 + 20 + 20 + 5);
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_SYN: u8 = 0x02;

/// A frame in the making.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    vlan: Option<u16>,
    network: Option<Network>,
    transport: Option<Transport>,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Network {
    V4 { source: Ipv4Addr, destination: Ipv4Addr, options: usize },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
    Arp,
}

#[derive(Clone, Copy, Debug)]
struct Transport {
    protocol: u8,
    source: u16,
    destination: u16,
}

impl Packet {
    /// An Ethernet frame without anything in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an 802.1Q tag.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// Carries IPv4.
    #[must_use]
    pub fn ipv4(mut self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        self.network = Some(Network::V4 { source: source.into(), destination: destination.into(), options: 0 });
        self
    }

    /// Adds this many bytes of padding options to the IPv4 header (a multiple of four).
    #[must_use]
    pub fn ipv4_options(mut self, bytes: usize) -> Self {
        if let Some(Network::V4 { options, .. }) = &mut self.network {
            *options = bytes;
        }
        self
    }

    /// Carries IPv6.
    #[must_use]
    pub fn ipv6(mut self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        self.network = Some(Network::V6 { source: source.into(), destination: destination.into() });
        self
    }

    /// Carries an ARP request.
    #[must_use]
    pub fn arp(mut self) -> Self {
        self.network = Some(Network::Arp);
        self
    }

    /// Carries a TCP SYN.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Some(Transport { protocol: TCP, source, destination });
        self
    }

    /// Carries a UDP datagram.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Some(Transport { protocol: UDP, source, destination });
        self
    }

    /// Ends with these bytes.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// The frame's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        if let Some(id) = self.vlan {
            frame.extend(ETHERTYPE_VLAN.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        match self.network {
            Some(Network::V4 { source, destination, options }) => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                let pseudo = [source.octets(), destination.octets()].concat();
                let body = self.transport_bytes(&pseudo);
                frame.extend(ipv4_header(source, destination, options, self.protocol(), body.len()));
                frame.extend(body);
            }
            Some(Network::V6 { source, destination }) => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                let pseudo = [source.octets(), destination.octets()].concat();
                let body = self.transport_bytes(&pseudo);
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((body.len() as u16).to_be_bytes());
                frame.extend([self.protocol(), 64]);
                frame.extend(pseudo);
                frame.extend(body);
            }
            Some(Network::Arp) => {
                frame.extend(ETHERTYPE_ARP.to_be_bytes());
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend([0; 20]);
            }
            None => frame.extend(&self.payload),
        }
        frame
    }

    fn protocol(&self) -> u8 {
        // 59: no next header.
        self.transport.map_or(59, |transport| transport.protocol)
    }

    fn transport_bytes(&self, addresses: &[u8]) -> Vec<u8> {
        let Some(Transport { protocol, source, destination }) = self.transport else {
            return self.payload.clone();
        };
        let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        let checksum_at = if protocol == TCP {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, TCP_SYN, 0xff, 0xff, 0, 0, 0, 0]);
            16
        } else {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            6
        };
        bytes.extend(&self.payload);
        let mut pseudo = addresses.to_vec();
        pseudo.extend((bytes.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        pseudo.extend(&bytes);
        let sum = checksum(&pseudo);
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// The internet checksum of bytes whose checksum field is zero; zero when it is already in place.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, options: usize, protocol: u8, body: usize) -> Vec<u8> {
    let length = 20 + options;
    let mut header = vec![0x40 | (length / 4) as u8, 0];
    header.extend(((length + body) as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    // Option 1 is "no operation".
    header.extend(vec![1; options]);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::{Packet, checksum};

    #[test]
    fn checksums_are_in_place() {
        let frame = Packet::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).ipv4_options(8).udp(1, 2).payload(b"odd").build();
        assert_eq!(checksum(&frame[14..14 + 28]), 0);
        let mut pseudo = frame[14 + 12..14 + 20].to_vec();
        pseudo.extend([0, 17, 0, 11]);
        pseudo.extend(&frame[14 + 28..]);
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn lengths_are_true() {
        let tagged = Packet::new().vlan(7).ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST).tcp(1, 2).build();
        assert_eq!(tagged.len(), 18 + 40 + 20);
        assert_eq!(tagged[18 + 4..18 + 6], [0, 20]);
    }
}
