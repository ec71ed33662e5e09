//! Why a connection or packet went the way it did: one numbered list for kernel, metrics, events and documentation.
//!
//! Numbers are never changed or reused. Numbers below [`FIRST_DROP`] are verdicts that let traffic go on; from there on
//! they are refusals and drops.

/// Numbers in use are below this; the counters' array has one entry each.
pub const NUMBERS: u32 = 256;
/// The first number that stands for a refusal or a drop.
pub const FIRST_DROP: u8 = 128;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// A verdict or a drop reason.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The label in metrics and output: lower case, words joined by underscores.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// One sentence for documentation and people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// A socket call to an address that is no frontend; left alone.
    SocketPassed = 0, "socket_passed";
    /// A socket call was given a backend.
    SocketTranslated = 1, "socket_translated";
    /// A socket call in a network namespace for which the socket path is switched off.
    SocketSkipped = 2, "socket_skipped";
    /// A packet from a pod, handed on to the stack.
    PodEgressPassed = 3, "pod_egress_passed";
    /// A packet to a pod, handed on to the pod.
    PodIngressPassed = 4, "pod_ingress_passed";
    /// A packet on a pod's interface that is neither IPv4 nor IPv6 (ARP, for example); handed on.
    NotIp = 5, "not_ip";
    /// A packet on a pod's interface whose pod-side address is not that of this interface's pod (link-local and multicast
    /// addresses, for example); handed on.
    UnknownEndpoint = 6, "unknown_endpoint";
    /// A packet program found no program for the packet's family in its generation's array; the packet was handed on.
    TailCallMissing = 7, "tail_call_missing";
    /// An event was lost because the ring was full; nothing happened to the traffic.
    EventLost = 8, "event_lost";
    /// Translation state of a socket could not be stored, so the call went on untranslated.
    SocketStateFull = 9, "socket_state_full";
    /// A socket call to a frontend with endpoints, but none on this node while its policy asks for one; left alone.
    NoLocalEndpoint = 10, "no_local_endpoint";
    /// A fragment of a packet on a pod's interface; handed on without looking for a Service, which needs its ports.
    Fragment = 11, "fragment";
    /// A packet from a pod to a frontend, sent on to the flow's backend.
    ServiceTranslated = 12, "service_translated";
    /// A packet from a backend to the pod that had dialled a frontend, which it was given as its source again.
    ServiceReply = 13, "service_reply";
    /// Refused: the frontend has no endpoint.
    NoEndpoint = 128, "no_endpoint";
    /// Refused: the frontend's slots or backends were not in the maps, twice in a row.
    StaleFrontend = 129, "stale_frontend";
    /// Dropped: the packet is shorter than its headers say.
    Truncated = 130, "truncated";
    /// The table of answered flows is full; the flow stays among the unanswered ones.
    ConntrackFull = 131, "conntrack_full";
    /// Dropped: a packet to a frontend with endpoints, but none on this node while its policy asks for one.
    NoLocalEndpointDropped = 132, "no_local_endpoint_dropped";
    /// Dropped: the backend already has a flow from the same client port through another frontend.
    FlowCollision = 133, "flow_collision";
    /// Dropped: a new flow could not be stored.
    FlowUnstored = 134, "flow_unstored";
    /// Dropped: the kernel refused to change the packet.
    Unwritable = 135, "unwritable";
}

impl Reason {
    /// Its number.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether the traffic ended here.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self.number() >= FIRST_DROP
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn numbers_and_labels_are_unique_and_round_trip() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            assert!(!reason.description().is_empty() && reason.description().ends_with('.'), "{reason:?}");
            for other in &Reason::ALL[..index] {
                assert!(other.number() < reason.number(), "{other:?} and {reason:?} are out of order");
                assert_ne!(other.label(), reason.label());
            }
        }
    }

    /// Numbers are an interface: this list may only grow.
    #[test]
    fn released_numbers_never_change() {
        let released = [
            (0, "socket_passed"),
            (1, "socket_translated"),
            (2, "socket_skipped"),
            (3, "pod_egress_passed"),
            (4, "pod_ingress_passed"),
            (5, "not_ip"),
            (6, "unknown_endpoint"),
            (7, "tail_call_missing"),
            (8, "event_lost"),
            (9, "socket_state_full"),
            (10, "no_local_endpoint"),
            (11, "fragment"),
            (12, "service_translated"),
            (13, "service_reply"),
            (128, "no_endpoint"),
            (129, "stale_frontend"),
            (130, "truncated"),
            (131, "conntrack_full"),
            (132, "no_local_endpoint_dropped"),
            (133, "flow_collision"),
            (134, "flow_unstored"),
            (135, "unwritable"),
        ];
        for (number, label) in released {
            assert_eq!(Reason::from_number(number).map(Reason::label), Some(label));
        }
    }
}
