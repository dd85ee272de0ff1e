//! VP9 payloads: the descriptor of RFC 9628 §4.2 in flexible mode, as Chromium
//! writes it for SVC, the first octets of a frame, then the [`super::tag`].

/// References of a frame that the descriptor can name (P_DIFF).
const MAX_DIFFS: usize = 3;
/// First octets of a key frame: frame marker, profile 0, sync code.
const KEY_FRAME: [u8; 4] = [0x83, 0x49, 0x83, 0x42];
/// First octet of any other frame.
const INTER_FRAME: u8 = 0x87;

/// What a descriptor says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// 15 bits.
    pub picture_id: u16,
    /// First and last packet of the frame (B, E).
    pub start: bool,
    pub end: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// Predicted from the layer below of the same picture (D).
    pub inter_layer: bool,
    /// Distances to the pictures it is predicted from; empty for P = 0.
    pub diffs: Vec<u8>,
    /// No layer above is predicted from it (Z).
    pub not_a_reference: bool,
    /// The sizes of the spatial layers, where said.
    pub sizes: Vec<(u16, u16)>,
}

/// Why a payload is not VP9 of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Vp9Error {
    #[error("the payload ends inside its descriptor or frame header")]
    Truncated,
    #[error("no picture id of 15 bits, no layers, or not in flexible mode")]
    Fields,
    #[error("more than {MAX_DIFFS} references")]
    References,
    #[error("not the header of the frame that the descriptor promises")]
    FrameHeader,
}

/// Appends descriptor and, on the first packet, the frame header.
pub fn write(descriptor: &Descriptor, out: &mut Vec<u8>) {
    let predicted = !descriptor.diffs.is_empty();
    out.push(
        0x80 | u8::from(predicted) << 6
            | 0x20
            | 0x10
            | u8::from(descriptor.start) << 3
            | u8::from(descriptor.end) << 2
            | u8::from(!descriptor.sizes.is_empty()) << 1
            | u8::from(descriptor.not_a_reference),
    );
    out.extend_from_slice(&(descriptor.picture_id | 0x8000).to_be_bytes());
    // Every layer may be entered at (U), as Chromium says of this pattern.
    out.push(
        descriptor.temporal << 5
            | 0x10
            | descriptor.spatial << 1
            | u8::from(descriptor.inter_layer),
    );
    for (left, diff) in (0..descriptor.diffs.len()).rev().zip(&descriptor.diffs) {
        out.push(diff << 1 | u8::from(left > 0));
    }
    if let Some(last) = descriptor.sizes.len().checked_sub(1) {
        // N_S, Y; no picture group, as flexible mode names references itself.
        out.push((last as u8) << 5 | 0x10);
        for (width, height) in &descriptor.sizes {
            out.extend_from_slice(&width.to_be_bytes());
            out.extend_from_slice(&height.to_be_bytes());
        }
    }
    if descriptor.start {
        match predicted || descriptor.inter_layer {
            false => out.extend_from_slice(&KEY_FRAME),
            true => out.push(INTER_FRAME),
        }
    }
}

/// Reads what [`write()`] writes, in any form a bridge may give it on the way,
/// and the octets it takes.
pub fn parse(payload: &[u8]) -> Result<(Descriptor, usize), Vp9Error> {
    let mut reader = Reader { payload, at: 0 };
    let first = reader.next()?;
    if first & 0xb0 != 0xb0 {
        return Err(Vp9Error::Fields);
    }
    let picture_id = reader.u16()?;
    if picture_id & 0x8000 == 0 {
        return Err(Vp9Error::Fields);
    }
    let layers = reader.next()?;
    let mut descriptor = Descriptor {
        picture_id: picture_id & 0x7fff,
        start: first & 0x08 != 0,
        end: first & 0x04 != 0,
        spatial: layers >> 1 & 7,
        temporal: layers >> 5,
        inter_layer: layers & 1 != 0,
        not_a_reference: first & 1 != 0,
        ..Descriptor::default()
    };
    if first & 0x40 != 0 {
        loop {
            let octet = reader.next()?;
            descriptor.diffs.push(octet >> 1);
            if octet & 1 == 0 {
                break;
            }
            if descriptor.diffs.len() == MAX_DIFFS {
                return Err(Vp9Error::References);
            }
        }
    }
    if first & 0x02 != 0 {
        let octet = reader.next()?;
        if octet & 0x18 != 0x10 {
            return Err(Vp9Error::Fields);
        }
        for _ in 0..=octet >> 5 {
            descriptor.sizes.push((reader.u16()?, reader.u16()?));
        }
    }
    if descriptor.start {
        let key = descriptor.diffs.is_empty() && !descriptor.inter_layer;
        let expected: &[u8] = if key { &KEY_FRAME } else { &[INTER_FRAME] };
        for octet in expected {
            if reader.next()? != *octet {
                return Err(Vp9Error::FrameHeader);
            }
        }
    }
    Ok((descriptor, reader.at))
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<u8, Vp9Error> {
        let octet = *self.payload.get(self.at).ok_or(Vp9Error::Truncated)?;
        self.at += 1;
        Ok(octet)
    }

    fn u16(&mut self) -> Result<u16, Vp9Error> {
        Ok(u16::from_be_bytes([self.next()?, self.next()?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtp::packetizer::Depacketizer;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Heads of payloads as Chromium 156 sent them.
    #[test]
    fn descriptors_are_those_of_chromium() {
        let key = Descriptor {
            picture_id: 0x6f11,
            start: true,
            end: true,
            sizes: vec![(320, 180), (640, 360)],
            ..Descriptor::default()
        };
        let above = Descriptor {
            sizes: Vec::new(),
            spatial: 1,
            inter_layer: true,
            ..key.clone()
        };
        let delta = Descriptor {
            picture_id: 0x6f1d,
            temporal: 1,
            diffs: vec![2],
            inter_layer: false,
            not_a_reference: true,
            ..above.clone()
        };
        for (descriptor, recorded) in [
            (&key, "beef111030014000b40280016883498342"),
            (&above, "bcef111387"),
            (&delta, "fdef1d320487"),
        ] {
            let mut payload = Vec::new();
            write(descriptor, &mut payload);
            assert_eq!(hex(&payload), recorded);
        }
    }

    proptest! {
        /// What we write, an independent parser reads the same way (with fewer
        /// than the three references of the RFC), and so do we.
        #[test]
        fn descriptors_parse_elsewhere(
            flags in any::<[bool; 4]>(), picture_id in 0u16..0x8000, spatial in 0u8..3,
            temporal in 0u8..3, diffs in prop::collection::vec(1u8..128, 0..=2), layers in 0usize..=3,
        ) {
            let sizes = [(320, 180), (640, 360), (1280, 720)];
            let descriptor = Descriptor {
                picture_id, spatial, temporal, diffs,
                start: flags[0], end: flags[1], inter_layer: flags[2], not_a_reference: flags[3],
                sizes: sizes[..layers].to_vec(),
            };
            let mut payload = Vec::new();
            write(&descriptor, &mut payload);
            let len = payload.len();
            prop_assert_eq!(parse(&payload), Ok((descriptor.clone(), len)));
            payload.extend_from_slice(b"content");
            let mut theirs = rtp::codec::vp9::Vp9Packet::default();
            let rest = theirs.depacketize(&payload.clone().into()).expect("their parser reads it");
            prop_assert!(rest.ends_with(b"content"));
            prop_assert_eq!((theirs.b, theirs.e), (descriptor.start, descriptor.end));
            prop_assert_eq!((theirs.i, theirs.l, theirs.f), (true, true, true));
            prop_assert_eq!(theirs.z, descriptor.not_a_reference);
            prop_assert_eq!(theirs.picture_id, picture_id);
            prop_assert_eq!((theirs.sid, theirs.tid, theirs.d), (spatial, temporal, flags[2]));
            prop_assert_eq!(&theirs.pdiff, &descriptor.diffs);
            let heights: Vec<u16> = descriptor.sizes.iter().map(|size| size.1).collect();
            prop_assert_eq!(&theirs.height, &heights);
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&octets);
        }
    }
}
