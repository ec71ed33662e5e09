//! Transport protocols by their IP protocol numbers, as keys and values hold them.

/// Transmission Control Protocol.
pub const TCP: u8 = 6;
/// User Datagram Protocol.
pub const UDP: u8 = 17;
/// Stream Control Transmission Protocol.
pub const SCTP: u8 = 132;
