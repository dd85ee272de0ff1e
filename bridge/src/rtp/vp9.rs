//! VP9 payload descriptor (RFC 9628 §4.2), read and patched in place.
//!
//! In flexible mode a packet names the pictures it refers to; in non-flexible
//! mode those follow from its place in the picture group of the scalability
//! structure, of which only what the bridge needs is kept.

use serde::{Deserialize, Serialize};

use super::picture_id::PictureId;

/// Most spatial layers: three bits.
pub const MAX_SPATIAL_LAYERS: usize = 8;
/// Most temporal layers: three bits.
pub const MAX_TEMPORAL_LAYERS: usize = 8;
/// Most pictures that one refers to (§4.2, P_DIFF).
pub const MAX_REFERENCES: usize = 3;

/// Why a payload has no usable VP9 descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Vp9Error {
    /// It ends inside the descriptor.
    #[error("the payload ends inside its VP9 descriptor")]
    Truncated,
    /// More references than a picture can have.
    #[error("more than {MAX_REFERENCES} reference differences")]
    TooManyReferences,
}

/// The scalability structure of a sequence, sent with its key frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// Number of spatial layers, 1 to 8.
    pub spatial_layers: u8,
    /// The smaller side of the pictures of each spatial layer; 0 if not sent.
    pub heights: [u16; MAX_SPATIAL_LAYERS],
    /// How many pictures of a group each temporal layer has; all 0 without a
    /// group.
    pub group: [u8; MAX_TEMPORAL_LAYERS],
}

/// The descriptor in front of a VP9 payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Octets of the descriptor.
    pub len: usize,
    pub picture_id: Option<PictureId>,
    /// First and last packet of a frame, that is of one spatial layer's part of
    /// a picture (B, E).
    pub start_of_frame: bool,
    pub end_of_frame: bool,
    /// The frame refers to earlier pictures (P).
    pub inter_picture: bool,
    /// The frame refers to the spatial layer below it (D).
    pub inter_layer: bool,
    /// No spatial layer above refers to the frame (Z).
    pub not_a_reference: bool,
    /// Higher temporal layers can be taken up behind this picture (U).
    pub switching_up: bool,
    /// 0 to 7; 0 if the descriptor has no layer indices.
    pub spatial_id: u8,
    /// 0 to 7; 0 if the descriptor has no layer indices.
    pub temporal_id: u8,
    /// In non-flexible mode only.
    pub tl0_pic_idx: Option<u8>,
    /// References are named (F).
    pub flexible: bool,
    differences: [u8; MAX_REFERENCES],
    references: u8,
    pub structure: Option<Structure>,
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self, Vp9Error> {
        let mut octets = Octets { payload, at: 0 };
        let first = octets.next()?;
        let bit = |mask: u8| first & mask != 0;
        let mut found = Self {
            len: 0,
            picture_id: None,
            start_of_frame: bit(0x08),
            end_of_frame: bit(0x04),
            inter_picture: bit(0x40),
            inter_layer: false,
            not_a_reference: bit(0x01),
            switching_up: false,
            spatial_id: 0,
            temporal_id: 0,
            tl0_pic_idx: None,
            flexible: bit(0x10),
            differences: [0; MAX_REFERENCES],
            references: 0,
            structure: None,
        };
        if bit(0x80) {
            let id = PictureId::read(&payload[octets.at..]).ok_or(Vp9Error::Truncated)?;
            octets.at += id.len();
            found.picture_id = Some(id);
        }
        if bit(0x20) {
            let layers = octets.next()?;
            found.temporal_id = layers >> 5;
            found.switching_up = layers & 0x10 != 0;
            found.spatial_id = layers >> 1 & 7;
            found.inter_layer = layers & 1 != 0;
            if !found.flexible {
                found.tl0_pic_idx = Some(octets.next()?);
            }
        }
        if found.flexible && found.inter_picture {
            loop {
                let difference = octets.next()?;
                *found
                    .differences
                    .get_mut(usize::from(found.references))
                    .ok_or(Vp9Error::TooManyReferences)? = difference >> 1;
                found.references += 1;
                if difference & 1 == 0 {
                    break;
                }
            }
        }
        if bit(0x02) {
            found.structure = Some(Structure::read(&mut octets)?);
        }
        if octets.at >= payload.len() {
            return Err(Vp9Error::Truncated);
        }
        found.len = octets.at;
        Ok(found)
    }

    /// How many pictures back those lie that the frame refers to, in flexible
    /// mode.
    pub fn references(&self) -> &[u8] {
        &self.differences[..usize::from(self.references)]
    }

    /// Whether decoding can begin with this frame: it refers to nothing.
    pub fn key_frame(&self) -> bool {
        !self.inter_picture && (self.spatial_id == 0 || !self.inter_layer)
    }
}

impl Structure {
    fn read(octets: &mut Octets<'_>) -> Result<Self, Vp9Error> {
        let first = octets.next()?;
        let mut found = Self {
            spatial_layers: (first >> 5) + 1,
            heights: [0; MAX_SPATIAL_LAYERS],
            group: [0; MAX_TEMPORAL_LAYERS],
        };
        if first & 0x10 != 0 {
            for height in &mut found.heights[..usize::from(found.spatial_layers)] {
                let mut side = || Ok(u16::from_be_bytes([octets.next()?, octets.next()?]));
                *height = side()?.min(side()?);
            }
        }
        if first & 0x08 != 0 {
            for _ in 0..octets.next()? {
                let picture = octets.next()?;
                // At most 255 pictures: the count cannot overflow.
                found.group[usize::from(picture >> 5)] += 1;
                for _ in 0..picture >> 2 & 3 {
                    octets.next()?;
                }
            }
        }
        Ok(found)
    }
}

/// Overwrites PictureID and TL0PICIDX where the descriptor has them. A 7-bit
/// PictureID takes the low seven bits. The payload must have been parsed.
pub fn patch(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) {
    let Some(&first) = payload.first() else {
        return;
    };
    let mut at = 1;
    if first & 0x80 != 0 {
        match PictureId::patch(&mut payload[at..], picture_id) {
            Some(len) => at += len,
            None => return,
        }
    }
    // Layer indices, and not flexible.
    if first & 0x30 == 0x20
        && let Some(octet) = payload.get_mut(at + 1)
    {
        *octet = tl0_pic_idx;
    }
}

struct Octets<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Octets<'_> {
    fn next(&mut self) -> Result<u8, Vp9Error> {
        let octet = *self.payload.get(self.at).ok_or(Vp9Error::Truncated)?;
        self.at += 1;
        Ok(octet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_frame_of_a_recorded_call_is_read() {
        // I L F B E V; PictureID 28433; TID 0, U, SID 0; 2 layers with sizes.
        let payload = [
            0xbe, 0xef, 0x11, 0x10, 0x30, 1, 0x40, 0, 180, 2, 0x80, 1, 0x68, 0x82,
        ];
        let descriptor = Descriptor::parse(&payload).expect("valid");
        let structure = descriptor.structure.expect("V is set");
        assert_eq!(descriptor.len, 13);
        assert_eq!(
            descriptor.picture_id,
            Some(PictureId {
                value: 28433,
                long: true
            })
        );
        assert!(descriptor.start_of_frame && descriptor.end_of_frame);
        assert!(descriptor.switching_up && descriptor.flexible);
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.heights[..3], [180, 360, 0]);
        assert_eq!(structure.group, [0; 8]);
        assert!(descriptor.key_frame());
        assert!(!descriptor.not_a_reference);
    }

    #[test]
    fn references_of_flexible_mode_are_read() {
        // I P L F B Z; 7-bit PictureID; TID 2, SID 1, D; 4 and 1 back.
        let payload = [0xf9, 5, 0x43, 4 << 1 | 1, 1 << 1, 0];
        let descriptor = Descriptor::parse(&payload).expect("valid");
        assert_eq!(descriptor.references(), [4, 1]);
        assert_eq!((descriptor.temporal_id, descriptor.spatial_id), (2, 1));
        assert!(descriptor.inter_layer && !descriptor.switching_up && descriptor.not_a_reference);
        assert!(!descriptor.key_frame());
        assert_eq!(descriptor.tl0_pic_idx, None);
        let many = [0xf9, 5, 0x43, 9, 9, 9, 9, 0, 0];
        assert_eq!(Descriptor::parse(&many), Err(Vp9Error::TooManyReferences));
    }

    #[test]
    fn a_picture_group_of_non_flexible_mode_is_counted() {
        // I L B V; TID 0; TL0PICIDX 9; one layer, four pictures 0 2 1 2.
        let payload = [
            0xaa, 0x80, 7, 0, 9, 0x08, 4, 0x14, 4, 0x54, 1, 0x34, 2, 0x58, 1, 2, 0x82,
        ];
        let descriptor = Descriptor::parse(&payload).expect("valid");
        assert_eq!(descriptor.tl0_pic_idx, Some(9));
        let structure = descriptor.structure.expect("V is set");
        assert_eq!(structure.group[..4], [1, 1, 2, 0]);
        assert_eq!(descriptor.len, payload.len() - 1);
    }

    #[test]
    fn frames_that_refer_to_nothing_are_key_frames() {
        for (first, layers, key) in [
            (0x20, 0x00, true),
            (0x60, 0x00, false),
            // The second spatial layer, by itself and on top of the first.
            (0x20, 0x02, true),
            (0x20, 0x03, false),
        ] {
            let descriptor = Descriptor::parse(&[first, layers, 0, 0]).expect("valid");
            assert_eq!(descriptor.key_frame(), key, "{first:#x} {layers:#x}");
        }
        assert!(Descriptor::parse(&[0, 0]).expect("valid").key_frame());
    }

    proptest! {
        /// Patching changes the two numbers and nothing else.
        #[test]
        fn a_patched_descriptor_reads_as_written(
            bytes in prop::collection::vec(any::<u8>(), 0..24), id: u16, tl0: u8,
        ) {
            let mut patched = bytes.clone();
            patch(&mut patched, id, tl0);
            if let Ok(before) = Descriptor::parse(&bytes) {
                let after = Descriptor::parse(&patched).expect("still valid");
                let expected = Descriptor {
                    picture_id: before.picture_id.map(|p| PictureId { value: id % p.modulus(), ..p }),
                    tl0_pic_idx: before.tl0_pic_idx.map(|_| tl0),
                    ..before
                };
                prop_assert_eq!(after, expected);
                prop_assert_eq!(&patched[before.len..], &bytes[before.len..]);
            }
        }

        /// A descriptor cut short is refused.
        #[test]
        fn a_descriptor_without_payload_is_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            if let Ok(descriptor) = Descriptor::parse(&bytes) {
                let cut = &bytes[..descriptor.len];
                prop_assert_eq!(Descriptor::parse(cut), Err(Vp9Error::Truncated));
            }
        }
    }
}
