//! VP8 payloads: the descriptor of RFC 7741 §4.2, the frame header of
//! RFC 6386 §9.1 as far as an SFU looks at it, then the [`super::tag`].
//!
//! The pictures are not VP8 that a decoder could show; everything that a
//! bridge reads in order to forward them is as a real encoder writes it.

/// The fields of a payload descriptor that a Jitsi client's encoder sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// First packet of the frame (S=1, PID=0).
    pub start: bool,
    /// No other frame is predicted from this one (N).
    pub droppable: bool,
    /// 15 bits.
    pub picture_id: Option<u16>,
    pub tl0_pic_idx: Option<u8>,
    /// Temporal layer, and whether it depends on the base layer only (Y).
    pub temporal: Option<(u8, bool)>,
}

/// Why a payload is not VP8 of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Vp8Error {
    #[error("the payload ends inside its descriptor or frame header")]
    Truncated,
    #[error("a key frame without its start code")]
    StartCode,
}

/// Appends descriptor and, on the first packet, the frame header: with
/// `key = Some((width, height))` that of a key frame.
pub fn write(descriptor: &Descriptor, key: Option<(u16, u16)>, out: &mut Vec<u8>) {
    let extended = descriptor.picture_id.is_some()
        || descriptor.tl0_pic_idx.is_some()
        || descriptor.temporal.is_some();
    out.push(
        u8::from(extended) << 7
            | u8::from(descriptor.droppable) << 5
            | u8::from(descriptor.start) << 4,
    );
    if extended {
        out.push(
            u8::from(descriptor.picture_id.is_some()) << 7
                | u8::from(descriptor.tl0_pic_idx.is_some()) << 6
                | u8::from(descriptor.temporal.is_some()) << 5,
        );
    }
    if let Some(picture_id) = descriptor.picture_id {
        out.extend_from_slice(&(picture_id | 0x8000).to_be_bytes());
    }
    if let Some(tl0_pic_idx) = descriptor.tl0_pic_idx {
        out.push(tl0_pic_idx);
    }
    if let Some((temporal, sync)) = descriptor.temporal {
        out.push(temporal << 6 | u8::from(sync) << 5);
    }
    if !descriptor.start {
        return;
    }
    // Frame tag: inverted key-frame bit, version 0, show_frame, and the size of
    // the first partition, which nobody on the way checks.
    let first_partition = 20u32;
    let tag = u32::from(key.is_none()) | 1 << 4 | first_partition << 5;
    out.extend_from_slice(&tag.to_le_bytes()[..3]);
    if let Some((width, height)) = key {
        out.extend_from_slice(&[0x9d, 0x01, 0x2a]);
        out.extend_from_slice(&(width & 0x3fff).to_le_bytes());
        out.extend_from_slice(&(height & 0x3fff).to_le_bytes());
    }
}

/// What [`parse`] found in front of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub descriptor: Descriptor,
    /// On the first packet of a frame: whether its header says key frame.
    pub key: Option<bool>,
    /// Octets of descriptor and frame header.
    pub len: usize,
}

/// Reads what [`write()`] writes, in any form a bridge may give it on the way.
pub fn parse(payload: &[u8]) -> Result<Parsed, Vp8Error> {
    let mut reader = Reader { payload, at: 0 };
    let first = reader.next()?;
    let mut descriptor = Descriptor {
        start: first & 0x10 != 0 && first & 0x07 == 0,
        droppable: first & 0x20 != 0,
        ..Descriptor::default()
    };
    if first & 0x80 != 0 {
        let present = reader.next()?;
        if present & 0x80 != 0 {
            let high = reader.next()?;
            descriptor.picture_id = Some(if high & 0x80 != 0 {
                u16::from(high & 0x7f) << 8 | u16::from(reader.next()?)
            } else {
                u16::from(high)
            });
        }
        if present & 0x40 != 0 {
            descriptor.tl0_pic_idx = Some(reader.next()?);
        }
        if present & 0x30 != 0 {
            let octet = reader.next()?;
            if present & 0x20 != 0 {
                descriptor.temporal = Some((octet >> 6, octet & 0x20 != 0));
            }
        }
    }
    let mut key = None;
    if descriptor.start {
        let is_key = reader.next()? & 1 == 0;
        reader.next()?;
        reader.next()?;
        if is_key {
            for expected in [0x9d, 0x01, 0x2a] {
                if reader.next()? != expected {
                    return Err(Vp8Error::StartCode);
                }
            }
            for _ in 0..4 {
                reader.next()?;
            }
        }
        key = Some(is_key);
    }
    Ok(Parsed {
        descriptor,
        key,
        len: reader.at,
    })
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<u8, Vp8Error> {
        let octet = *self.payload.get(self.at).ok_or(Vp8Error::Truncated)?;
        self.at += 1;
        Ok(octet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtp::packetizer::Depacketizer;

    proptest! {
        /// What we write, an independent parser reads the same way, and so do we.
        #[test]
        fn descriptors_parse_elsewhere(
            start in any::<bool>(), droppable in any::<bool>(), picture_id in 0u16..0x8000,
            tl0 in any::<u8>(), temporal in 0u8..4, sync in any::<bool>(), key in any::<bool>(),
        ) {
            let descriptor = Descriptor {
                start, droppable, picture_id: Some(picture_id), tl0_pic_idx: Some(tl0),
                temporal: Some((temporal, sync)),
            };
            let mut payload = Vec::new();
            write(&descriptor, key.then_some((1280, 720)), &mut payload);
            let header = payload.len();
            payload.extend_from_slice(b"content");

            let mut theirs = rtp::codec::vp8::Vp8Packet::default();
            let rest = theirs.depacketize(&payload.clone().into()).expect("their parser reads it");
            prop_assert_eq!(theirs.s == 1 && theirs.pid == 0, start);
            prop_assert_eq!(theirs.n == 1, droppable);
            prop_assert_eq!(theirs.picture_id, picture_id);
            prop_assert_eq!(theirs.tl0_pic_idx, tl0);
            prop_assert_eq!(theirs.tid, temporal);
            prop_assert_eq!(theirs.y == 1, sync);
            prop_assert!(rest.ends_with(b"content"));
            prop_assert_eq!(!start || rest[0] & 1 == u8::from(!key), true);

            let ours = parse(&payload).expect("our parser reads it");
            prop_assert_eq!(ours.descriptor, descriptor);
            prop_assert_eq!(ours.len, header);
            prop_assert_eq!(ours.key, start.then_some(key));
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&octets);
        }
    }
}
