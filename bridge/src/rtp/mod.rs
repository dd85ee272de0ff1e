//! RTP as views over the caller's bytes (RFC 3550, RFC 8285).

/// Synchronisation source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0 to 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadType(pub u8);

/// Packet index of RFC 3711 §3.3.1: the 16-bit sequence number with its
/// rollovers counted in. Never wraps, so `<` means "sent earlier".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketIndex(pub u64);
