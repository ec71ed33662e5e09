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
    links: Option<[[u8; 6]; 2]>,
    vlan: Option<u16>,
    network: Option<Network>,
    transport: Option<Transport>,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Network {
    V4 { source: Ipv4Addr, destination: Ipv4Addr, options: usize, fragment: u16 },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
    Arp,
}

#[derive(Clone, Copy, Debug)]
struct Transport {
    protocol: u8,
    source: u16,
    destination: u16,
    tcp: Tcp,
}

/// What else a TCP header says.
#[derive(Clone, Copy, Debug)]
struct Tcp {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    window: u16,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { sequence: 1, acknowledged: 0, flags: TCP_SYN, window: 0xffff }
    }
}

impl Packet {
    /// An Ethernet frame without anything in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has these link addresses instead of made-up ones.
    #[must_use]
    pub fn links(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.links = Some([destination, source]);
        self
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
        self.network =
            Some(Network::V4 { source: source.into(), destination: destination.into(), options: 0, fragment: 0x4000 });
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

    /// Is a fragment: IPv4's word of flags and offset.
    #[must_use]
    pub fn ipv4_fragment(mut self, word: u16) -> Self {
        if let Some(Network::V4 { fragment, .. }) = &mut self.network {
            *fragment = word;
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
        self.transport = Some(Transport { protocol: TCP, source, destination, tcp: Tcp::default() });
        self
    }

    /// Carries a UDP datagram.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Some(Transport { protocol: UDP, source, destination, tcp: Tcp::default() });
        self
    }

    /// Has other flags than SYN.
    #[must_use]
    pub fn tcp_flags(mut self, flags: u8) -> Self {
        if let Some(transport) = &mut self.transport {
            transport.tcp.flags = flags;
        }
        self
    }

    /// Has other numbers than a first segment's.
    #[must_use]
    pub fn tcp_numbers(mut self, sequence: u32, acknowledged: u32, window: u16) -> Self {
        if let Some(transport) = &mut self.transport {
            transport.tcp = Tcp { sequence, acknowledged, window, ..transport.tcp };
        }
        self
    }

    /// Carries the payload as another protocol's, without a header of our making.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.transport = Some(Transport { protocol, source: 0, destination: 0, tcp: Tcp::default() });
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
        let mut frame = self.links.unwrap_or([[0x02, 0, 0, 0, 0, 2], [0x02, 0, 0, 0, 0, 1]]).concat();
        if let Some(id) = self.vlan {
            frame.extend(ETHERTYPE_VLAN.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        match self.network {
            Some(Network::V4 { source, destination, options, fragment }) => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                let pseudo = [source.octets(), destination.octets()].concat();
                let body = self.transport_bytes(&pseudo);
                let words = (options, fragment);
                frame.extend(ipv4_header(source, destination, words, self.next_protocol(), body.len()));
                frame.extend(body);
            }
            Some(Network::V6 { source, destination }) => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                let pseudo = [source.octets(), destination.octets()].concat();
                let body = self.transport_bytes(&pseudo);
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((body.len() as u16).to_be_bytes());
                frame.extend([self.next_protocol(), 64]);
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

    fn next_protocol(&self) -> u8 {
        // 59: no next header.
        self.transport.map_or(59, |transport| transport.protocol)
    }

    fn transport_bytes(&self, addresses: &[u8]) -> Vec<u8> {
        let Some(Transport { protocol, source, destination, tcp }) = self.transport else {
            return self.payload.clone();
        };
        if protocol != TCP && protocol != UDP {
            return self.payload.clone();
        }
        let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        let checksum_at = if protocol == TCP {
            bytes.extend(tcp.sequence.to_be_bytes());
            bytes.extend(tcp.acknowledged.to_be_bytes());
            bytes.extend([0x50, tcp.flags]);
            bytes.extend(tcp.window.to_be_bytes());
            bytes.extend([0; 4]);
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

fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    (options, fragment): (usize, u16),
    protocol: u8,
    body: usize,
) -> Vec<u8> {
    let length = 20 + options;
    let mut header = vec![0x40 | (length / 4) as u8, 0];
    header.extend(((length + body) as u16).to_be_bytes());
    header.extend([0, 0]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
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
