//! VP8 payload descriptor (RFC 7741 §4.2), read and patched in place.

use super::picture_id::PictureId;

/// Why a payload has no usable VP8 descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Vp8Error {
    /// It ends inside the descriptor.
    #[error("the payload ends inside its VP8 descriptor")]
    Truncated,
}

/// The descriptor in front of a VP8 payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Octets of the descriptor.
    pub len: usize,
    /// First packet of a frame: start of its first partition.
    pub start_of_frame: bool,
    /// Known on the first packet of a frame only (`P` of the payload header).
    pub key_frame: bool,
    pub picture_id: Option<PictureId>,
    pub tl0_pic_idx: Option<u8>,
    /// Temporal layer, 0 to 3.
    pub temporal_id: Option<u8>,
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self, Vp8Error> {
        let octet = |at: usize| payload.get(at).copied().ok_or(Vp8Error::Truncated);
        let first = octet(0)?;
        let start_of_frame = first & 0x10 != 0 && first & 0x07 == 0;
        let mut len = 1;
        let (mut picture_id, mut tl0_pic_idx, mut temporal_id) = (None, None, None);
        if first & 0x80 != 0 {
            let flags = octet(len)?;
            len += 1;
            if flags & 0x80 != 0 {
                let id = PictureId::read(&payload[len..]).ok_or(Vp8Error::Truncated)?;
                len += id.len();
                picture_id = Some(id);
            }
            if flags & 0x40 != 0 {
                tl0_pic_idx = Some(octet(len)?);
                len += 1;
            }
            if flags & 0x30 != 0 {
                let octet = octet(len)?;
                if flags & 0x20 != 0 {
                    temporal_id = Some(octet >> 6);
                }
                len += 1;
            }
        }
        // The payload header's P bit is inverted: 0 is a key frame (§4.3).
        let header = octet(len)?;
        Ok(Self {
            len,
            start_of_frame,
            key_frame: start_of_frame && header & 1 == 0,
            picture_id,
            tl0_pic_idx,
            temporal_id,
        })
    }
}

/// Overwrites PictureID and TL0PICIDX where the descriptor has them. A 7-bit
/// PictureID takes the low seven bits. The payload must have been parsed.
pub fn patch(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) {
    if payload.len() < 2 || payload[0] & 0x80 == 0 {
        return;
    }
    let flags = payload[1];
    let mut at = 2;
    if flags & 0x80 != 0 {
        match PictureId::patch(&mut payload[at..], picture_id) {
            Some(len) => at += len,
            None => return,
        }
    }
    if flags & 0x40 != 0
        && let Some(octet) = payload.get_mut(at)
    {
        *octet = tl0_pic_idx;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_descriptor_is_read() {
        // X, S, PID 0; I L T K; 15-bit id; TL0PICIDX; TID 2, Y, KEYIDX 3; key frame.
        let payload = [0x90, 0xf0, 0x81, 0x2c, 20, 0xa3, 0x10, 0];
        assert_eq!(
            Descriptor::parse(&payload),
            Ok(Descriptor {
                len: 6,
                start_of_frame: true,
                key_frame: true,
                picture_id: Some(PictureId {
                    value: 300,
                    long: true
                }),
                tl0_pic_idx: Some(20),
                temporal_id: Some(2),
            })
        );
    }

    #[test]
    fn only_the_first_packet_of_the_first_partition_starts_a_frame() {
        for (first, header, start, key) in [
            (0x10, 0, true, true),
            (0x10, 1, true, false),
            (0x00, 0, false, false),
            (0x11, 0, false, false),
        ] {
            let descriptor = Descriptor::parse(&[first, header]).expect("valid");
            assert_eq!(
                (descriptor.start_of_frame, descriptor.key_frame),
                (start, key),
                "{first:#x}"
            );
        }
    }

    #[test]
    fn a_descriptor_without_payload_is_refused() {
        for payload in [&[][..], &[0x10], &[0x90, 0x80], &[0x90, 0x80, 0x81]] {
            assert_eq!(Descriptor::parse(payload), Err(Vp8Error::Truncated));
        }
    }

    proptest! {
        /// Patching changes the two numbers and nothing else.
        #[test]
        fn a_patched_descriptor_reads_as_written(
            bytes in prop::collection::vec(any::<u8>(), 0..12), id: u16, tl0: u8,
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
    }
}
