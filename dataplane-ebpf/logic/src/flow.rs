//! Flows through a frontend: their keys, whether they keep their backend, and their states.

use dataplane_abi::conntrack::{Flow, FlowKey, direction, flow_state};
use dataplane_abi::protocol::TCP;
use dataplane_abi::{Address, Be16};

use crate::tuple::Tuple;

/// Bits of a TCP header's flags.
pub mod tcp {
    /// The sender has no more to say.
    pub const FIN: u8 = 1 << 0;
    /// The sender opens.
    pub const SYN: u8 = 1 << 1;
    /// The sender gives up.
    pub const RST: u8 = 1 << 2;
    /// The sender has heard.
    pub const ACK: u8 = 1 << 4;
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who dialled the frontend.
    Client,
    /// Who serves it.
    Backend,
}

/// The key of a client's packet.
#[must_use]
#[inline(always)]
pub const fn original<A: Address>(request: &Tuple<A>, protocol: u8) -> FlowKey<A> {
    key(request, protocol, direction::ORIGINAL)
}

/// The key of a backend's packet.
#[must_use]
#[inline(always)]
pub const fn reply<A: Address>(answer: &Tuple<A>, protocol: u8) -> FlowKey<A> {
    key(answer, protocol, direction::REPLY)
}

/// The key of a flow's other direction.
#[must_use]
#[inline(always)]
pub fn other<A: Address>(seen: &FlowKey<A>, flow: &Flow<A>) -> FlowKey<A> {
    let here = Tuple {
        source: seen.source,
        destination: seen.destination,
        source_port: seen.source_port,
        destination_port: seen.destination_port,
    };
    if seen.direction == direction::ORIGINAL {
        reply(&reversed(&here.to_backend(flow.backend, flow.backend_port)), seen.protocol)
    } else {
        original(&reversed(&here.to_client(flow.frontend, flow.frontend_port)), seen.protocol)
    }
}

/// Whether the client's packet goes where the flow's packets went before, or to a backend selected anew.
///
/// An open TCP connection belongs to its backend until it is closed, whatever became of the endpoint. Everything else
/// needs a backend that takes new connections; an opening packet on a closing flow is another connection.
#[inline(always)]
pub fn keeps<A: Address>(flow: &Flow<A>, protocol: u8, flags: u8, is_active: impl FnOnce() -> bool) -> bool {
    if protocol != TCP {
        return is_active();
    }
    if is_opening(flags) {
        return flow.state < flow_state::CLOSING && is_active();
    }
    flow.state != flow_state::UNREPLIED || is_active()
}

/// Takes a packet into account.
#[inline(always)]
pub const fn observe<A: Address>(flow: &mut Flow<A>, side: Side, protocol: u8, flags: u8) {
    match side {
        Side::Client => flow.tcp_flags_original |= flags,
        Side::Backend => flow.tcp_flags_reply |= flags,
    }
    let replied = matches!(side, Side::Backend) || flow.state != flow_state::UNREPLIED;
    flow.state = if protocol != TCP {
        if replied { flow_state::ESTABLISHED } else { flow_state::UNREPLIED }
    } else {
        let (client, backend) = (flow.tcp_flags_original, flow.tcp_flags_reply);
        if (client | backend) & tcp::RST != 0 || client & backend & tcp::FIN != 0 {
            flow_state::CLOSED
        } else if (client | backend) & tcp::FIN != 0 {
            flow_state::CLOSING
        } else if replied {
            flow_state::ESTABLISHED
        } else {
            flow_state::UNREPLIED
        }
    };
}

/// Whether these flags change an answered flow's state.
#[must_use]
#[inline(always)]
pub const fn is_closing(flags: u8) -> bool {
    flags & (tcp::FIN | tcp::RST) != 0
}

/// Whether these flags are those of a connection's first packet.
#[must_use]
#[inline(always)]
pub const fn is_opening(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// How long a flow may be silent in a state before it is forgotten.
///
/// An open TCP connection is kept longer than the two hours after which keep-alives begin by default.
#[must_use]
pub const fn timeout_s(protocol: u8, state: u8) -> u64 {
    match (protocol, state) {
        (TCP, flow_state::ESTABLISHED) => 3 * 3_600,
        (TCP, flow_state::CLOSING) => 3_600,
        (TCP, flow_state::UNREPLIED) => 120,
        (TCP, _) => 60,
        (_, flow_state::UNREPLIED) => 30,
        _ => 180,
    }
}

#[inline(always)]
const fn key<A: Address>(tuple: &Tuple<A>, protocol: u8, direction: u8) -> FlowKey<A> {
    FlowKey {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol,
        direction,
        reserved: 0,
    }
}

#[inline(always)]
const fn reversed<A: Address>(tuple: &Tuple<A>) -> Tuple<A> {
    let (source_port, destination_port): (Be16, Be16) = (tuple.destination_port, tuple.source_port);
    Tuple { source: tuple.destination, destination: tuple.source, source_port, destination_port }
}

#[cfg(test)]
mod tests {
    use dataplane_abi::conntrack::{Flow, flow_state};
    use dataplane_abi::protocol::{TCP, UDP};
    use dataplane_abi::{Address, Be16, Ip4};
    use proptest::prelude::*;

    use super::{Side, keeps, observe, original, other, reply, tcp, timeout_s};
    use crate::tuple::Tuple;

    fn request() -> Tuple<Ip4> {
        Tuple { source: Ip4(1), destination: Ip4(2), source_port: Be16::new(40_000), destination_port: Be16::new(80) }
    }

    fn flow(backend: u32) -> Flow<Ip4> {
        Flow {
            frontend: Ip4(2),
            frontend_port: Be16::new(80),
            backend: Ip4(backend),
            backend_port: Be16::new(8080),
            ..Flow::default()
        }
    }

    /// The flow after these packets.
    fn after(packets: &[(Side, u8)]) -> Flow<Ip4> {
        let mut flow = flow(9);
        for (side, flags) in packets {
            observe(&mut flow, *side, TCP, *flags);
        }
        flow
    }

    const OPEN: [(Side, u8); 3] =
        [(Side::Client, tcp::SYN), (Side::Backend, tcp::SYN | tcp::ACK), (Side::Client, tcp::ACK)];

    #[test]
    fn each_direction_finds_the_other_also_of_a_pod_with_itself() {
        for backend in [9, 1] {
            let first = original(&request(), TCP);
            let second = other(&first, &flow(backend));
            assert_eq!((second.source, second.source_port), (Ip4(backend), Be16::new(8080)));
            let client = if backend == 1 { Ip4::HAIRPIN } else { Ip4(1) };
            assert_eq!((second.destination, second.destination_port), (client, Be16::new(40_000)));
            assert_eq!(other(&second, &flow(backend)), first);
        }
        assert_ne!(reply(&request(), TCP), original(&request(), TCP));
    }

    #[test]
    fn tcp_goes_through_its_states() {
        assert_eq!(after(&OPEN[..1]).state, flow_state::UNREPLIED);
        assert_eq!(after(&OPEN[..2]).state, flow_state::ESTABLISHED);
        assert_eq!(after(&OPEN).state, flow_state::ESTABLISHED);
        let mut packets = OPEN.to_vec();
        packets.push((Side::Backend, tcp::FIN | tcp::ACK));
        assert_eq!(after(&packets).state, flow_state::CLOSING);
        packets.push((Side::Client, tcp::ACK));
        assert_eq!(after(&packets).state, flow_state::CLOSING);
        packets.push((Side::Client, tcp::FIN | tcp::ACK));
        assert_eq!(after(&packets).state, flow_state::CLOSED);
        assert_eq!(after(&[OPEN[0], (Side::Backend, tcp::RST | tcp::ACK)]).state, flow_state::CLOSED);
    }

    #[test]
    fn an_open_connection_keeps_its_backend_whatever_becomes_of_the_endpoint() {
        let gone = || false;
        assert!(keeps(&after(&OPEN), TCP, tcp::ACK, gone));
        assert!(keeps(&after(&[OPEN[0], OPEN[1], (Side::Client, tcp::FIN)]), TCP, tcp::ACK, gone));
        // Unanswered: the packet may as well go to someone who answers. A retransmitted SYN must stay where it can.
        assert!(!keeps(&after(&OPEN[..1]), TCP, tcp::SYN, gone));
        assert!(!keeps(&after(&OPEN[..1]), TCP, tcp::ACK, gone));
        assert!(keeps(&after(&OPEN[..1]), TCP, tcp::SYN, || true));
        assert!(keeps(&after(&OPEN[..2]), TCP, tcp::SYN, || true));
        // A new connection from the same port.
        assert!(!keeps(&after(&OPEN), TCP, tcp::SYN, gone));
        assert!(!keeps(&after(&[OPEN[0], (Side::Backend, tcp::RST)]), TCP, tcp::SYN, || true));
    }

    #[test]
    fn datagrams_follow_the_backend_s_life() {
        let mut flow = flow(9);
        observe(&mut flow, Side::Client, UDP, 0);
        assert_eq!(flow.state, flow_state::UNREPLIED);
        observe(&mut flow, Side::Backend, UDP, 0);
        observe(&mut flow, Side::Client, UDP, 0);
        assert_eq!(flow.state, flow_state::ESTABLISHED);
        assert!(keeps(&flow, UDP, 0, || true));
        assert!(!keeps(&flow, UDP, 0, || false));
    }

    #[test]
    fn an_open_connection_outlives_the_first_keep_alive() {
        assert!(timeout_s(TCP, flow_state::ESTABLISHED) > 7_200);
        assert!(timeout_s(TCP, flow_state::CLOSED) < timeout_s(TCP, flow_state::CLOSING));
        assert!(timeout_s(UDP, flow_state::UNREPLIED) < timeout_s(UDP, flow_state::ESTABLISHED));
    }

    proptest! {
        #[test]
        fn a_closed_flow_stays_closed_and_no_flow_becomes_unanswered_again(
            packets in prop::collection::vec((any::<bool>(), 0..32_u8), 1..20),
        ) {
            let mut flow = flow(9);
            let mut last = 0;
            for (client, flags) in packets {
                observe(&mut flow, if client { Side::Client } else { Side::Backend }, TCP, flags);
                prop_assert!(flow.state >= last);
                last = flow.state;
            }
        }
    }
}
