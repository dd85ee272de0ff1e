//! AV1 payloads: the aggregation header of the AV1 RTP payload format §4.4,
//! sequence and frame OBU headers as far as a receiver looks at them, then the
//! [`super::tag`]. Layers and references are said by the dependency descriptor.

/// A sequence header OBU as Chromium sends it; nobody on the way reads it.
const SEQUENCE_HEADER: [u8; 15] = [
    0x08, 0x00, 0x21, 0x07, 0x00, 0x81, 0x80, 0x40, 0x41, 0x0f, 0x3f, 0xb3, 0x00, 0x68, 0x02,
];
/// Header of a frame OBU with extension and without size.
const FRAME_OBU: u8 = 0x34;

/// What is in front of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// Not continued from the packet before, not going on in the next (Z, Y).
    pub start: bool,
    pub end: bool,
    /// First packet of a coded video sequence (N): a key picture.
    pub key: bool,
    /// Said on a frame's first packet only.
    pub spatial: u8,
    pub temporal: u8,
}

/// Why a payload is not AV1 of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Av1Error {
    #[error("the payload ends inside its headers")]
    Truncated,
    #[error("not the OBUs of this source")]
    Obu,
}

/// Appends the headers of a packet.
pub fn write(header: &Header, out: &mut Vec<u8>) {
    let elements = if header.key { 2 } else { 1 };
    out.push(
        u8::from(!header.start) << 7
            | u8::from(!header.end) << 6
            | elements << 4
            | u8::from(header.key) << 3,
    );
    if header.key {
        out.push(SEQUENCE_HEADER.len() as u8);
        out.extend_from_slice(&SEQUENCE_HEADER);
    }
    if header.start {
        out.push(FRAME_OBU);
        out.push(header.temporal << 5 | header.spatial << 3);
    }
}

/// Reads what [`write()`] writes, and the octets it takes.
pub fn parse(payload: &[u8]) -> Result<(Header, usize), Av1Error> {
    let first = *payload.first().ok_or(Av1Error::Truncated)?;
    let mut header = Header {
        start: first & 0x80 == 0,
        end: first & 0x40 == 0,
        key: first & 0x08 != 0,
        ..Header::default()
    };
    let elements = if header.key { 2 } else { 1 };
    if first >> 4 & 3 != elements || header.key && !header.start {
        return Err(Av1Error::Obu);
    }
    let mut at = 1;
    if header.key {
        let sequence = payload.get(1..17).ok_or(Av1Error::Truncated)?;
        if sequence[0] != 15 || sequence[1..] != SEQUENCE_HEADER {
            return Err(Av1Error::Obu);
        }
        at = 17;
    }
    if header.start {
        let [kind, layers] = *payload
            .get(at..)
            .and_then(<[u8]>::first_chunk::<2>)
            .ok_or(Av1Error::Truncated)?;
        if kind != FRAME_OBU {
            return Err(Av1Error::Obu);
        }
        (header.temporal, header.spatial) = (layers >> 5, layers >> 3 & 3);
        at += 2;
    }
    Ok((header, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtp::packetizer::Depacketizer;

    fn headers() -> impl Strategy<Value = Header> {
        (any::<[bool; 3]>(), 0u8..3, 0u8..3).prop_map(|(flags, spatial, temporal)| Header {
            start: flags[0],
            end: flags[1],
            key: flags[0] && flags[2],
            spatial: if flags[0] { spatial } else { 0 },
            temporal: if flags[0] { temporal } else { 0 },
        })
    }

    /// Heads of payloads as Chromium 156 sent them: a key picture's first
    /// packet and the two packets of a frame of layer S1 T0.
    #[test]
    fn headers_are_those_of_chromium() {
        let key = Header {
            start: true,
            end: true,
            key: true,
            ..Header::default()
        };
        let first = Header {
            start: true,
            spatial: 1,
            ..Header::default()
        };
        let second = Header {
            end: true,
            ..Header::default()
        };
        for (header, recorded) in [
            (key, &[0x28, 0x0f, 0x08, 0x00, 0x21][..]),
            (first, &[0x50, 0x34, 0x08]),
            (second, &[0x90]),
        ] {
            let mut payload = Vec::new();
            write(&header, &mut payload);
            assert_eq!(payload[..recorded.len()], *recorded);
        }
    }

    proptest! {
        #[test]
        fn headers_read_back(header in headers()) {
            let mut payload = Vec::new();
            write(&header, &mut payload);
            let len = payload.len();
            payload.extend_from_slice(b"content");
            prop_assert_eq!(parse(&payload), Ok((header, len)));
        }

        /// A frame in several packets is one frame to an independent reader.
        #[test]
        fn frames_are_put_together_elsewhere(key in any::<bool>(), parts in 1usize..5) {
            let mut theirs = rtp::codec::av1::Av1Depacketizer::new();
            let mut whole = Vec::new();
            for part in 0..parts {
                let header = Header {
                    start: part == 0, end: part + 1 == parts, key: key && part == 0, ..Header::default()
                };
                let mut payload = Vec::new();
                write(&header, &mut payload);
                payload.extend_from_slice(&[b'a' + part as u8; 20]);
                whole.extend_from_slice(&theirs.depacketize(&payload.into()).expect("read"));
            }
            let content: Vec<u8> = (0..parts).flat_map(|part| [b'a' + part as u8; 20]).collect();
            prop_assert!(whole.ends_with(&content));
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&octets);
        }
    }
}
