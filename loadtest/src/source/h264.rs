//! H264 payloads (RFC 6184), packetisation mode 1: parameter sets in a STAP-A
//! before every IDR picture, small pictures as single NAL units, large ones as
//! FU-A. The [`super::tag`] is the content of the slice, or of a fragment; in a
//! STAP-A without a slice, of an SEI.

const IDR_SLICE: u8 = 5;
const SLICE: u8 = 1;
const SEI: u8 = 6;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// Parameter sets as Chromium sends them (constrained baseline, 1280x720).
const SPS: [u8; 19] = [
    0x67, 0x42, 0xc0, 0x20, 0x8c, 0x8d, 0x70, 0x28, 0x02, 0xdd, 0x37, 0x01, 0x0d, 0x01, 0x07, 0x84,
    0x42, 0x37, 0x00,
];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

/// What a packet is in its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// First and last packet of the picture.
    pub start: bool,
    pub end: bool,
    pub key: bool,
    pub temporal: u8,
}

/// What the headers of a payload tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Whether it is part of an IDR picture, or its parameter sets.
    pub key: bool,
    /// Octets in front of the tag.
    pub len: usize,
}

/// Why a payload is not H264 of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    #[error("the payload ends inside its headers")]
    Truncated,
    #[error("not the NAL units of this source")]
    Unit,
}

/// nal_ref_idc: nothing refers to layer 2, everything to layer 0.
fn importance(header: &Header) -> u8 {
    match (header.key, header.temporal) {
        (true, _) | (_, 0) => 3 << 5,
        (_, 1) => 1 << 5,
        _ => 0,
    }
}

/// Appends the headers of a packet with `content` octets behind them; `packet`
/// is its number in the picture.
pub fn write(header: &Header, packet: u16, content: usize, out: &mut Vec<u8>) {
    let importance = importance(header);
    let slice = if header.key { IDR_SLICE } else { SLICE };
    if header.key && header.start {
        out.push(importance | STAP_A);
        for unit in [&SPS[..], &PPS] {
            out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            out.extend_from_slice(unit);
        }
        out.extend_from_slice(&(content as u16 + 1).to_be_bytes());
        out.push(if header.end { importance | slice } else { SEI });
    } else if header.start && header.end {
        out.push(importance | slice);
    } else {
        // The parameter sets of a key picture travel in front of its slice.
        let first = packet == u16::from(header.key);
        if first && header.end {
            out.push(importance | slice);
            return;
        }
        out.push(importance | FU_A);
        out.push(u8::from(first) << 7 | u8::from(header.end) << 6 | slice);
    }
}

/// Reads what [`write()`] writes.
pub fn parse(payload: &[u8]) -> Result<Parsed, H264Error> {
    let first = *payload.first().ok_or(H264Error::Truncated)?;
    let key = |unit: u8| match unit & 0x1f {
        IDR_SLICE => Ok(true),
        SLICE => Ok(false),
        _ => Err(H264Error::Unit),
    };
    match first & 0x1f {
        STAP_A => {
            let mut at = 1;
            for unit in [&SPS[..], &PPS] {
                let end = at + 2 + unit.len();
                let found = payload.get(at + 2..end).ok_or(H264Error::Truncated)?;
                if found != unit {
                    return Err(H264Error::Unit);
                }
                at = end;
            }
            match payload.get(at + 2).ok_or(H264Error::Truncated)? & 0x1f {
                SEI | IDR_SLICE => Ok(Parsed {
                    key: true,
                    len: at + 3,
                }),
                _ => Err(H264Error::Unit),
            }
        }
        FU_A => Ok(Parsed {
            key: key(*payload.get(1).ok_or(H264Error::Truncated)?)?,
            len: 2,
        }),
        _ => Ok(Parsed {
            key: key(first)?,
            len: 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtp::packetizer::Depacketizer;

    proptest! {
        /// Every packet of a picture reads back, and an independent reader
        /// makes the same NAL units of them.
        #[test]
        fn pictures_read_back_and_are_put_together_elsewhere(
            key in any::<bool>(), temporal in 0u8..3, packets in 1u16..6,
        ) {
            let temporal = if key { 0 } else { temporal };
            let mut theirs = rtp::codec::h264::H264Packet::default();
            let mut units = Vec::new();
            for packet in 0..packets {
                let header = Header { start: packet == 0, end: packet + 1 == packets, key, temporal };
                let mut payload = Vec::new();
                write(&header, packet, 30, &mut payload);
                let len = payload.len();
                payload.extend_from_slice(&[b'a' + packet as u8; 30]);
                prop_assert_eq!(parse(&payload), Ok(Parsed { key, len }));
                units.extend_from_slice(&theirs.depacketize(&payload.into()).expect("read"));
            }
            let marks = units.windows(4).filter(|four| *four == [0, 0, 0, 1]).count();
            let expected = match (key, packets) {
                (false, _) => 1,
                (true, 1) => 3,
                (true, _) => 4,
            };
            prop_assert_eq!(marks, expected);
            let slices = usize::from(packets > 1 && key);
            let content: Vec<u8> = (slices..usize::from(packets))
                .flat_map(|packet| [b'a' + packet as u8; 30])
                .collect();
            prop_assert!(units.ends_with(&content));
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&octets);
        }
    }
}
