//! RTP as views over the caller's bytes (RFC 3550, RFC 8285).
//!
//! A packet is checked once by [`RtpPacket::parse`], which allocates nothing
//! and keeps only offsets; all accessors after that are plain reads. What has
//! to change on its way through the bridge is patched or written by
//! [`crate::projection::write_packet`].
//!
//! Payload descriptors have a file each: [`vp8`], [`vp9`], [`h264`], [`av1`],
//! [`dependency_descriptor`] (AV1 and every codec that carries one), [`red`],
//! [`rtx`].

pub mod av1;
pub mod dependency_descriptor;
pub mod extension;
pub mod h264;
pub mod picture_id;
pub mod red;
pub mod rtx;
pub mod vp8;
pub mod vp9;

use serde::{Deserialize, Serialize};

use extension::Extensions;

/// Synchronisation source (RFC 3550 §3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0 to 127.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct PayloadType(pub u8);

/// Packet index of RFC 3711 §3.3.1: the 16-bit sequence number with its
/// rollovers counted in. Never wraps, so `<` means "sent earlier".
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct PacketIndex(pub u64);

impl PacketIndex {
    /// The sequence number on the wire.
    pub fn sequence_number(self) -> u16 {
        self.0 as u16
    }

    /// The rollover counter of RFC 3711 §3.3.1.
    pub fn rollover_counter(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The index with this sequence number that lies closest to `self`
    /// (RFC 3711 appendix A). Before the first rollover nothing is "earlier
    /// than zero": what would be is taken for a jump ahead.
    pub fn nearest(self, sequence_number: u16) -> Self {
        let step = sequence_number.wrapping_sub(self.0 as u16) as i16;
        match self.0.checked_add_signed(i64::from(step)) {
            Some(index) => Self(index),
            None => Self(u64::from(sequence_number)),
        }
    }
}

/// Counts the rollovers of one stream's sequence numbers.
///
/// Starts one rollover up, so that packets overtaken by the very first one
/// still have an index below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwrapper {
    highest: Option<PacketIndex>,
}

impl Unwrapper {
    /// The packet index of a sequence number seen now.
    pub fn unwrap(&mut self, sequence_number: u16) -> PacketIndex {
        let index = match self.highest {
            Some(highest) => highest.nearest(sequence_number),
            None => PacketIndex(0x1_0000 + u64::from(sequence_number)),
        };
        self.highest = self.highest.max(Some(index));
        index
    }

    /// The highest index so far.
    pub fn highest(&self) -> Option<PacketIndex> {
        self.highest
    }
}

/// Why an RTP packet was refused. The peer's doing, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than the header it announces (RFC 3550 §5.1).
    #[error("{have} octets where the header needs {need}")]
    Truncated { have: usize, need: usize },
    /// Not version 2.
    #[error("version {0} is not RTP")]
    Version(u8),
    /// The padding count is zero or exceeds the payload (RFC 3550 §5.1).
    #[error("{padding} octets of padding in {payload} of payload")]
    Padding { padding: usize, payload: usize },
}

/// Length of the RTP header with CSRCs and extension block, without reading
/// more of the packet. Padding is not looked at, so this also serves for a
/// packet that is still encrypted.
pub fn header_len(packet: &[u8]) -> Result<usize, RtpError> {
    let truncated = |need| RtpError::Truncated {
        have: packet.len(),
        need,
    };
    let first = *packet.first().ok_or(truncated(FIXED_HEADER))?;
    if first >> 6 != 2 {
        return Err(RtpError::Version(first >> 6));
    }
    let mut len = FIXED_HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let Some(words) = packet.get(len + 2..len + 4) else {
            return Err(truncated(len + 4));
        };
        len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    if packet.len() < len {
        return Err(truncated(len));
    }
    Ok(len)
}

/// Octets of an RTP header without CSRCs and extensions.
pub const FIXED_HEADER: usize = 12;

/// A decrypted RTP packet whose header has been checked.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    bytes: &'a [u8],
    header_len: u16,
    padding_len: u8,
}

impl<'a> RtpPacket<'a> {
    /// Checks header, extension block and padding against the packet's length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let header_len = header_len(bytes)?;
        let payload = bytes.len() - header_len;
        let mut padding_len = 0;
        if bytes[0] & 0x20 != 0 {
            padding_len = bytes[bytes.len() - 1];
            let padding = usize::from(padding_len);
            if padding == 0 || padding > payload {
                return Err(RtpError::Padding { padding, payload });
            }
        }
        let header_len = u16::try_from(header_len).map_err(|_| RtpError::Truncated {
            have: usize::from(u16::MAX),
            need: header_len,
        })?;
        Ok(Self {
            bytes,
            header_len,
            padding_len,
        })
    }

    /// The marker bit.
    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// The payload type.
    pub fn payload_type(&self) -> PayloadType {
        PayloadType(self.bytes[1] & 0x7f)
    }

    /// The sequence number.
    pub fn sequence_number(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The timestamp, in units of the payload type's clock.
    pub fn timestamp(&self) -> u32 {
        be32(&self.bytes[4..])
    }

    /// The synchronisation source.
    pub fn ssrc(&self) -> Ssrc {
        Ssrc(be32(&self.bytes[8..]))
    }

    /// Octets of the header: fixed part, CSRCs, extension block.
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// Octets of padding at the end, its count included; 0 without padding.
    pub fn padding_len(&self) -> usize {
        usize::from(self.padding_len)
    }

    /// The payload without padding.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len()..self.bytes.len() - self.padding_len()]
    }

    /// The whole packet.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The contributing sources: the octets between fixed header and extensions.
    pub fn csrcs(&self) -> &'a [u8] {
        &self.bytes[FIXED_HEADER..FIXED_HEADER + 4 * usize::from(self.bytes[0] & 0x0f)]
    }

    /// The header extensions in their order on the wire. Empty when there is
    /// none or the profile is not one of RFC 8285.
    pub fn extensions(&self) -> Extensions<'a> {
        if self.bytes[0] & 0x10 == 0 {
            return Extensions::none();
        }
        let at = FIXED_HEADER + 4 * usize::from(self.bytes[0] & 0x0f);
        let profile = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        Extensions::new(profile, &self.bytes[at + 4..self.header_len()])
    }

    /// The first extension with this id.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions()
            .find(|(found, _)| *found == id)
            .map(|(_, data)| data)
    }
}

pub(crate) fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(first: u8, tail: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0x80 | 100, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 7];
        packet.extend_from_slice(tail);
        packet
    }

    #[test]
    fn the_fields_are_where_rfc_3550_puts_them() {
        let bytes = packet(0x80, b"payload");
        let view = RtpPacket::parse(&bytes).expect("valid");
        assert!(view.marker());
        assert_eq!(view.payload_type(), PayloadType(100));
        assert_eq!(view.sequence_number(), 0x1234);
        assert_eq!(view.timestamp(), 9);
        assert_eq!(view.ssrc(), Ssrc(7));
        assert_eq!(view.payload(), b"payload");
        assert_eq!(view.extensions().count(), 0);
    }

    #[test]
    fn padding_is_cut_off_and_impossible_padding_refused() {
        let bytes = packet(0xa0, &[1, 2, 3, 0, 2]);
        let view = RtpPacket::parse(&bytes).expect("valid");
        assert_eq!((view.payload(), view.padding_len()), (&[1, 2, 3][..], 2));
        let only = packet(0xa0, &[0, 0, 3]);
        assert!(RtpPacket::parse(&only).expect("valid").payload().is_empty());
        for tail in [&[1, 2, 0][..], &[1, 2, 4], &[]] {
            let bytes = packet(0xa0, tail);
            assert!(matches!(
                RtpPacket::parse(&bytes),
                Err(RtpError::Padding { .. })
            ));
        }
    }

    #[test]
    fn a_header_longer_than_the_packet_is_refused() {
        for (first, tail) in [
            (0x81, &[][..]),
            (0x90, &[]),
            (0x90, &[0xbe, 0xde, 0]),
            (0x90, &[0xbe, 0xde, 0, 1]),
        ] {
            let bytes = packet(first, tail);
            assert!(matches!(
                RtpPacket::parse(&bytes),
                Err(RtpError::Truncated { .. })
            ));
        }
        assert_eq!(
            RtpPacket::parse(&packet(0x40, &[])).err(),
            Some(RtpError::Version(1))
        );
    }

    #[test]
    fn the_nearest_index_follows_rfc_3711() {
        for (from, sequence_number, index) in [
            (0x1_fff0, 5, 0x2_0005),
            (0x2_0005, 0xfff0, 0x1_fff0),
            (0x2_0005, 0x7fff, 0x2_7fff),
            (0x2_0005, 0x8006, 0x1_8006),
            (5, 0xfff0, 0xfff0),
            (0, 0, 0),
        ] {
            assert_eq!(
                PacketIndex(from).nearest(sequence_number),
                PacketIndex(index),
                "{sequence_number:#x} near {from:#x}"
            );
        }
    }

    proptest! {
        /// Any walk with steps of less than half the number space, back or
        /// forth, is followed exactly.
        #[test]
        fn unwrapping_follows_any_walk(first: u16, steps in prop::collection::vec(-100i64..30_000, 1..300)) {
            let mut unwrapper = Unwrapper::default();
            let mut at = unwrapper.unwrap(first);
            let mut highest = at;
            for step in steps {
                let next = PacketIndex(at.0.saturating_add_signed(step).max(highest.0.saturating_sub(20_000)));
                prop_assert_eq!(unwrapper.unwrap(next.sequence_number()), next);
                at = next;
                highest = highest.max(next);
            }
        }

        #[test]
        fn any_octets_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                let total = packet.header_len() + packet.payload().len() + packet.padding_len();
                prop_assert_eq!(total, bytes.len());
                for (id, data) in packet.extensions() {
                    prop_assert!(id != 0 && data.len() <= 255);
                }
            }
        }
    }
}
