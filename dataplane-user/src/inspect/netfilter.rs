//! Reads nftables' base chains: a foreign FORWARD policy of drop stops pods that talk across the bridge.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// A base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: Option<u32>,
    pub(super) policy: Option<u32>,
}

/// `NF_INET_FORWARD`.
pub(super) const HOOK_FORWARD: u32 = 2;
/// `NF_DROP`.
pub(super) const POLICY_DROP: u32 = 0;

const SUBSYSTEM_NFTABLES: u16 = 10;
const GET_CHAIN: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;

/// The base chains of this network namespace.
///
/// # Errors
/// If the kernel has no nftables or does not let us look.
pub(super) fn base_chains() -> io::Result<Vec<BaseChain>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut chains = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if !read_messages(&answer, &mut chains)? {
            return Ok(chains);
        }
    }
}

fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + NFGENMSG);
    message.extend(((HEADER + NFGENMSG) as u32).to_ne_bytes());
    message.extend((SUBSYSTEM_NFTABLES << 8 | GET_CHAIN).to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port number, then family (any), version and resource.
    message.extend([0; 8 + NFGENMSG]);
    message
}

/// Returns whether more datagrams follow.
fn read_messages(mut bytes: &[u8], chains: &mut Vec<BaseChain>) -> io::Result<bool> {
    while let Some(length) = u32_at(bytes, 0) {
        let length = length as usize;
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else { return Ok(false) };
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(false),
            Some(NLMSG_ERROR) => {
                let code = u32_at(message, HEADER).unwrap_or_default().cast_signed();
                return if code == 0 { Ok(false) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => {
                let chain = message.get(HEADER + NFGENMSG..).map(read_chain).unwrap_or_default();
                chains.extend(chain.hook.is_some().then_some(chain));
            }
        }
        bytes = bytes.get(align(length)..).unwrap_or_default();
    }
    Ok(true)
}

fn read_chain(attributes: &[u8]) -> BaseChain {
    let mut chain = BaseChain::default();
    for (kind, value) in Attributes(attributes) {
        match kind {
            CHAIN_TABLE => chain.table = text(value),
            CHAIN_NAME => chain.name = text(value),
            CHAIN_POLICY => chain.policy = be32(value),
            CHAIN_HOOK => {
                chain.hook =
                    Attributes(value).find(|(kind, _)| *kind == HOOK_NUMBER).and_then(|(_, value)| be32(value));
            }
            _ => {}
        }
    }
    chain
}

/// Netlink attributes: length and type in host order, then the value, padded to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The two upper bits say "nested" and "network order".
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use super::{BaseChain, NLMSG_DONE, read_messages};

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn base_chains_are_told_from_others_and_torn_input_is_harmless() {
        let hook = attribute(1, &2_u32.to_be_bytes());
        let mut body = vec![2, 0, 0, 0];
        for part in [attribute(1, b"filter\0"), attribute(3, b"FORWARD\0"), attribute(4 | 0x8000, &hook)] {
            body.extend(part);
        }
        body.extend(attribute(5, &0_u32.to_be_bytes()));
        let mut plain = vec![2, 0, 0, 0];
        plain.extend(attribute(3, b"other\0"));
        let mut bytes = message(0x0a03, &body);
        bytes.extend(message(0x0a03, &plain));
        let mut chains = Vec::new();
        assert!(read_messages(&bytes, &mut chains).unwrap());
        let expected = BaseChain { table: "filter".into(), name: "FORWARD".into(), hook: Some(2), policy: Some(0) };
        assert_eq!(chains, [expected]);
        assert!(!read_messages(&message(NLMSG_DONE, &[0; 4]), &mut chains).unwrap());
        for end in 0..bytes.len() {
            read_messages(&bytes[..end], &mut Vec::new()).unwrap();
        }
    }
}
