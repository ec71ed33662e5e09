//! What names a frontend and a backend, independent of the address family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_abi::frontend::scope;
use dataplane_abi::protocol;

/// A transport protocol that Services may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    Tcp = protocol::TCP,
    Udp = protocol::UDP,
}

/// An address family; each has its own frontend and backend maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// What the address of a frontend stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Exactly that address.
    Address = scope::ADDRESS,
    /// Every address of this node; the key's address is unspecified.
    Node = scope::NODE,
}

/// What a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub scope: Scope,
}

/// One port of one endpoint; the same for every Service that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl Protocol {
    /// The protocol with this IP protocol number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name as the Kubernetes API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl Scope {
    /// The scope with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            scope::ADDRESS => Some(Self::Address),
            scope::NODE => Some(Self::Node),
            _ => None,
        }
    }

    /// Its number in a key.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The address that stands for every address of the node.
    #[must_use]
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl FrontendKey {
    /// The key's address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl BackendKey {
    /// The key's address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Address => write_socket(f, self.address, self.port, self.protocol),
            Scope::Node => write!(f, "node/{}:{}/{}", family_name(self.family()), self.port, self.protocol.name()),
        }
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_socket(f, self.address, self.port, self.protocol)
    }
}

fn write_socket(f: &mut fmt::Formatter<'_>, address: IpAddr, port: u16, protocol: Protocol) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(f, "{address}:{port}/{}", protocol.name()),
        IpAddr::V6(address) => write!(f, "[{address}]:{port}/{}", protocol.name()),
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}
