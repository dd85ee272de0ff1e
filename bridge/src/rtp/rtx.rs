//! Retransmission payload format (RFC 4588, SSRC-multiplexed).

use super::RtpPacket;

/// A retransmitted packet: the original's sequence number and payload. All
/// else is as in the RTX packet, save payload type and SSRC, which follow from
/// the session (`apt`, `FID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmission<'a> {
    /// Original sequence number (OSN).
    pub sequence_number: u16,
    pub payload: &'a [u8],
}

/// What is inside an RTX packet; `None` for a probe: padding only, or too
/// short for the original sequence number and at least an octet of payload.
pub fn parse<'a>(packet: &RtpPacket<'a>) -> Option<Retransmission<'a>> {
    let (osn, payload) = packet.payload().split_at_checked(2)?;
    if payload.is_empty() {
        return None;
    }
    Some(Retransmission {
        sequence_number: u16::from_be_bytes([osn[0], osn[1]]),
        payload,
    })
}

/// Turns an RTX packet in place into the packet it repeats. The result lies in
/// `packet[2..]`, and all before the payload is moved up by the two octets of
/// the OSN. `None`, with the packet unchanged, when [`parse`] finds nothing.
pub fn restore(packet: &mut [u8], payload_type: u8, ssrc: super::Ssrc) -> Option<&mut [u8]> {
    let view = RtpPacket::parse(packet).ok()?;
    let osn = parse(&view)?.sequence_number;
    let header_len = view.header_len();
    packet.copy_within(..header_len, 2);
    let restored = &mut packet[2..];
    restored[1] = restored[1] & 0x80 | payload_type & 0x7f;
    restored[2..4].copy_from_slice(&osn.to_be_bytes());
    restored[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
    Some(restored)
}

#[cfg(test)]
mod tests {
    use super::super::{PayloadType, Ssrc};
    use super::*;

    #[test]
    fn the_original_is_restored_with_its_extensions() {
        let mut packet = vec![0xb0, 0x80 | 96, 0, 5, 0, 0, 0, 9, 0, 0, 0, 7];
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x51, 1, 2, 0]);
        packet.extend_from_slice(&[0x12, 0x34, 1, 2, 3, 0, 2]);
        let restored = restore(&mut packet, 100, Ssrc(42)).expect("a retransmission");
        let view = RtpPacket::parse(restored).expect("valid");
        assert_eq!(view.payload_type(), PayloadType(100));
        assert_eq!((view.ssrc(), view.timestamp()), (Ssrc(42), 9));
        assert_eq!(view.sequence_number(), 0x1234);
        assert_eq!(view.extension(5), Some(&[1, 2][..]));
        assert_eq!((view.payload(), view.padding_len()), (&[1, 2, 3][..], 2));
        assert!(view.marker());
    }

    #[test]
    fn probes_are_nothing() {
        for tail in [&[0, 0, 3][..], &[0x12, 1], &[0x12, 0x34, 1]] {
            let mut packet = vec![0xa0, 96, 0, 5, 0, 0, 0, 9, 0, 0, 0, 7];
            packet.extend_from_slice(tail);
            let before = packet.clone();
            assert!(restore(&mut packet, 100, Ssrc(42)).is_none());
            assert_eq!(packet, before);
        }
    }
}
