//! The tag in every media payload, by which a receiver knows whose packet it
//! holds, where in the stream it belongs, and how long it travelled.
//!
//! | octets | field |
//! |---|---|
//! | 0-3 | magic |
//! | 4-7 | run, so that two load tests in one room are told apart |
//! | 8-9 | sender, its index in the run |
//! | 10 | kind of source |
//! | 11 | encoding, 0 the lowest |
//! | 12 | bit 7: of a key picture, for audio: first after a pause; bits 0-6: temporal layer |
//! | 13 | spatial layer; high nibble: that of the frame it is predicted from |
//! | 14-15 | height of the layer |
//! | 16-17 | packet's number in its frame |
//! | 18-19 | packets of the frame |
//! | 20-23 | picture, counted per encoding; for audio the packet |
//! | 24-27 | picture that this one is predicted from (itself for a key frame) |
//! | 28-35 | send time, ns since the start of the run |
//! | 36-43 | checksum over octets 0-35 and the filler behind the tag |
//!
//! A frame is one spatial layer of a picture. All numbers are big-endian. The filler depends on the frame and the packet,
//! so that a payload cut, doubled or spliced does not pass.

/// Length of a tag in octets.
pub const TAG_LEN: usize = 44;

const MAGIC: [u8; 4] = *b"vLT1";

/// What kind of source a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Audio,
    Camera,
    Desktop,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Self::Audio),
            1 => Some(Self::Camera),
            2 => Some(Self::Desktop),
            _ => None,
        }
    }
}

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub run: u32,
    pub sender: u16,
    pub kind: Kind,
    pub encoding: u8,
    pub key: bool,
    /// Temporal layer, 0 to 127.
    pub temporal: u8,
    /// Spatial layer, 0 to 15, and that of the frame this one is predicted from.
    pub spatial: u8,
    pub reference_spatial: u8,
    pub height: u16,
    pub packet: u16,
    pub packets: u16,
    pub picture: u32,
    pub reference: u32,
    pub sent_ns: u64,
}

/// Why a payload carries no tag that could be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    #[error("{0} octets are too few for a tag")]
    Short(usize),
    /// Not made by a load test at all.
    #[error("no tag")]
    Magic,
    /// Made by a load test and changed on the way.
    #[error("the checksum is wrong")]
    Checksum,
}

impl Tag {
    /// Whether the frame needs no other.
    pub fn is_intra(&self) -> bool {
        self.key && self.spatial == 0
    }

    /// Appends the tag and `filler` octets.
    pub fn write(&self, filler: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.sender.to_be_bytes());
        out.push(self.kind as u8);
        out.push(self.encoding);
        out.push(u8::from(self.key) << 7 | self.temporal & 0x7f);
        out.push(self.reference_spatial << 4 | self.spatial & 0x0f);
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.packet.to_be_bytes());
        out.extend_from_slice(&self.packets.to_be_bytes());
        out.extend_from_slice(&self.picture.to_be_bytes());
        out.extend_from_slice(&self.reference.to_be_bytes());
        out.extend_from_slice(&self.sent_ns.to_be_bytes());
        let checksum_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let word = (u64::from(self.picture) << 16 | u64::from(self.packet))
            .wrapping_mul(MULTIPLIER)
            .to_be_bytes();
        out.extend(word.iter().copied().cycle().take(filler));
        let sum = checksum(&out[start..checksum_at], &out[checksum_at + 8..]);
        out[checksum_at..checksum_at + 8].copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads the tag at the head of `payload`; all that follows is its filler.
    pub fn parse(payload: &[u8]) -> Result<Self, TagError> {
        let Some((head, filler)) = payload.split_first_chunk::<TAG_LEN>() else {
            return Err(TagError::Short(payload.len()));
        };
        if head[..4] != MAGIC {
            return Err(TagError::Magic);
        }
        let u16_at = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let u32_at =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        if checksum(&head[..36], filler) != u64_at(36) {
            return Err(TagError::Checksum);
        }
        Ok(Self {
            run: u32_at(4),
            sender: u16_at(8),
            kind: Kind::from_octet(head[10]).ok_or(TagError::Checksum)?,
            encoding: head[11],
            key: head[12] & 0x80 != 0,
            temporal: head[12] & 0x7f,
            spatial: head[13] & 0x0f,
            reference_spatial: head[13] >> 4,
            height: u16_at(14),
            packet: u16_at(16),
            packets: u16_at(18),
            picture: u32_at(20),
            reference: u32_at(24),
            sent_ns: u64_at(28),
        })
    }
}

/// An odd constant with well spread bits (the golden ratio times 2^64).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn checksum(head: &[u8], filler: &[u8]) -> u64 {
    let mut sum = MULTIPLIER ^ filler.len() as u64;
    for part in [head, filler] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            sum = (sum ^ u64::from_be_bytes(*word))
                .rotate_left(29)
                .wrapping_mul(MULTIPLIER);
        }
        for octet in rest {
            sum = (sum ^ u64::from(*octet))
                .rotate_left(29)
                .wrapping_mul(MULTIPLIER);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_tag() -> impl Strategy<Value = Tag> {
        (
            (
                any::<u32>(),
                any::<u16>(),
                0u8..3,
                any::<u8>(),
                any::<bool>(),
                0u8..128,
                (0u8..16, 0u8..16),
            ),
            (
                any::<u16>(),
                any::<u16>(),
                any::<u16>(),
                any::<u32>(),
                any::<u32>(),
                any::<u64>(),
            ),
        )
            .prop_map(
                |((run, sender, kind, encoding, key, temporal, spatial), rest)| Tag {
                    run,
                    sender,
                    kind: Kind::from_octet(kind).expect("0 to 2 are kinds"),
                    encoding,
                    key,
                    temporal,
                    spatial: spatial.0,
                    reference_spatial: spatial.1,
                    height: rest.0,
                    packet: rest.1,
                    packets: rest.2,
                    picture: rest.3,
                    reference: rest.4,
                    sent_ns: rest.5,
                },
            )
    }

    proptest! {
        #[test]
        fn a_tag_reads_back(tag in any_tag(), filler in 0usize..1200) {
            let mut payload = Vec::new();
            tag.write(filler, &mut payload);
            prop_assert_eq!(payload.len(), TAG_LEN + filler);
            prop_assert_eq!(Tag::parse(&payload), Ok(tag));
        }

        /// One octet changed, one cut off or one too many: never believed.
        #[test]
        fn a_damaged_payload_is_refused(
            tag in any_tag(), filler in 0usize..200, at in any::<prop::sample::Index>(),
            flip in 1u8..=255,
        ) {
            let mut payload = Vec::new();
            tag.write(filler, &mut payload);
            let shorter = &payload[..payload.len() - 1];
            prop_assert!(Tag::parse(shorter).is_err());
            let mut longer = payload.clone();
            longer.push(flip);
            prop_assert!(Tag::parse(&longer).is_err());
            let at = at.index(payload.len());
            payload[at] ^= flip;
            prop_assert!(Tag::parse(&payload).is_err());
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Tag::parse(&octets);
        }
    }
}
