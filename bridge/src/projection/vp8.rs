//! VP8 projection: turns one sender's simulcast encodings and temporal layers
//! into the single stream that one receiver decodes.
//!
//! In: packets of several SSRCs, each with its own sequence numbers,
//! timestamps (90 kHz), PictureID (15 bits), TL0PICIDX (8 bits): RFC 7741 §4.2.
//! Out: the same payloads under one SSRC, those four rewritten so that each
//! advances as if the sender had never changed layer. PictureIDs of withheld
//! frames are closed up, those of lost frames leave a gap.
//! A change of encoding happens on a key frame only; temporal layers are
//! dropped and taken up at any time, as far as what is left can be decoded.

use serde::{Deserialize, Serialize};

use super::choice::Verdict;
use super::frames::{After, Frames, Place, Remembered, Sight};
use super::shift::Numbered;
use super::{CodecRewrite, CodecShift, IncomingVideo, LayerIndex, Output, Rewrite};
use crate::rtp::vp8::Descriptor;

/// What a VP8 frame is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Picture {
    key: bool,
    temporal_id: u8,
}

impl Remembered for Picture {}

/// A frame's own numbers as the receiver gets them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PictureNumbers {
    picture_id: u16,
    tl0_pic_idx: u8,
    /// From received to sent TL0PICIDX, modulo 2^8.
    tl0_delta: u8,
}

impl Numbered for PictureNumbers {
    fn shift_from(&self, base: &Self) -> Option<CodecShift> {
        let layer = self.tl0_delta.wrapping_sub(base.tl0_delta);
        (self.tl0_pic_idx.wrapping_sub(base.tl0_pic_idx) == layer).then(|| CodecShift {
            number: self.picture_id.wrapping_sub(base.picture_id) & 0x7fff,
            layer,
        })
    }
}

/// The VP8 frames of a source, and what one receiver gets of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Vp8 {
    pub(super) frames: Frames<Picture, PictureNumbers>,
}

impl Vp8 {
    pub(super) fn project(
        &mut self,
        packet: &IncomingVideo<'_>,
        descriptor: &Descriptor,
        target: Option<LayerIndex>,
        output: &mut Output,
    ) -> Option<Rewrite> {
        let Some(target) = target else {
            self.frames.suspend(packet.encoding, packet.index);
            return None;
        };
        let picture_id = descriptor.picture_id?;
        let picture = Picture {
            key: descriptor.key_frame,
            temporal_id: descriptor.temporal_id?,
        };
        self.frames.choice.aim(target.encoding());
        let place = self.frames.see(&Sight {
            encoding: packet.encoding,
            index: packet.index,
            timestamp: packet.timestamp,
            id: picture_id.value.into(),
            modulus: u32::from(picture_id.modulus()),
            starts: descriptor.start_of_frame,
            ends: packet.marker,
            codec: picture,
        })?;
        if place.new && self.wanted(place, packet, picture, target) {
            let tl0_pic_idx = descriptor.tl0_pic_idx.unwrap_or(0);
            self.frames.accept(place, packet.arrival, output, |after| {
                let next = |numbers: PictureNumbers, ids: u64, tl0_delta: u8| PictureNumbers {
                    picture_id: numbers.picture_id.wrapping_add(ids as u16),
                    tl0_pic_idx: tl0_pic_idx.wrapping_add(tl0_delta),
                    tl0_delta,
                };
                match after {
                    After::Frame { numbers, ids } => next(numbers, ids, numbers.tl0_delta),
                    After::Restart { numbers } => next(numbers, 1, numbers.tl0_delta),
                    After::Switch { numbers, .. } => {
                        let tl0 = numbers.tl0_pic_idx.wrapping_add(1);
                        next(numbers, 1, tl0.wrapping_sub(tl0_pic_idx))
                    }
                    After::Nothing => PictureNumbers {
                        picture_id: picture_id.value,
                        tl0_pic_idx,
                        tl0_delta: 0,
                    },
                }
            });
        }
        let numbers = self.frames.numbers(place, packet.index, output)?;
        Some(Rewrite {
            ssrc: output.ssrc,
            index: numbers.index(packet.index),
            timestamp: packet.timestamp.wrapping_add(numbers.timestamp_delta),
            marker: packet.marker,
            codec: CodecRewrite::Vp8 {
                picture_id: numbers.codec.picture_id & 0x7fff,
                tl0_pic_idx: numbers.codec.tl0_pic_idx,
            },
        })
    }

    /// Decides on a frame by the first of its packets seen.
    fn wanted(
        &mut self,
        place: Place,
        packet: &IncomingVideo<'_>,
        picture: Picture,
        target: LayerIndex,
    ) -> bool {
        if self.frames.precedes_entry(place) {
            return false;
        }
        let key = picture.key && !self.frames.passed(place, |p| p.temporal_id == 0);
        match self
            .frames
            .choice
            .decide(packet.encoding, key, packet.arrival)
        {
            Verdict::Reject => false,
            Verdict::Enter => true,
            Verdict::Continue => {
                let layers = match packet.encoding.cmp(&target.encoding()) {
                    std::cmp::Ordering::Greater => 0,
                    std::cmp::Ordering::Less => u8::MAX,
                    std::cmp::Ordering::Equal => target.temporal_id(),
                };
                picture.temporal_id <= layers
                    && (picture.temporal_id == 0 || self.decodable(place, picture.temporal_id))
            }
        }
    }

    /// Whether what a frame of a temporal layer refers to was forwarded, as far
    /// as that is known.
    fn decodable(&self, place: Place, temporal_id: u8) -> bool {
        let adjacent = self.frames.before(place).zip(1u64..);
        adjacent
            .take_while(|(before, pictures)| before.ids == *pictures)
            .find(|(before, _)| before.codec.key || before.codec.temporal_id <= temporal_id)
            .is_none_or(|(before, _)| before.accepted)
    }
}
