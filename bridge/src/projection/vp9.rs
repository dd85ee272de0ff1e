//! VP9 projection: turns one sender's simulcast encodings, or the spatial and
//! temporal layers of one encoding, into the single stream that one receiver
//! decodes.
//!
//! A frame is one spatial layer's part of a picture. The receiver gets the
//! frames of the layer it is shown, and of lower ones those that it needs to
//! decode that. With SVC every layer builds on the one below it; with K-SVC only
//! key pictures do, so that elsewhere one layer's frames are enough, and a layer
//! can be left for another on a key picture only. What can be decoded is
//! followed frame by frame: by the references that a frame names (flexible
//! mode), or by its place in the temporal structure.
//!
//! Rewritten: sequence number, timestamp, PictureID and TL0PICIDX, all so that
//! they go on across changes of encoding; and the marker, which the last packet
//! of the highest layer sent now bears. Inside an encoding PictureIDs keep their
//! distances, and so a gap where a picture is withheld: references and picture
//! groups count in them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::choice::Verdict;
use super::frames::{After, Frames, Place, Remembered, Sight};
use super::shift::Numbered;
use super::{
    CodecRewrite, CodecShift, Common, IncomingVideo, LayerIndex, MAX_ENCODINGS, Output, Rewrite,
};
use crate::rtp::PacketIndex;
use crate::rtp::vp9::{Descriptor, MAX_SPATIAL_LAYERS};

/// Bits of a frame's id that tell the spatial layer; the others are PictureID.
const SPATIAL_BITS: u32 = MAX_SPATIAL_LAYERS.ilog2();

/// What a frame is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerFrame {
    spatial_id: u8,
    temporal_id: u8,
    /// The receiver gets nothing of its picture that lies above it.
    top: bool,
    /// Frames of higher temporal layers behind it need none before it.
    fresh: bool,
}

impl Remembered for LayerFrame {
    const IDS: u32 = 1 << SPATIAL_BITS;

    fn adjoins(&self, id: u64, next: u64) -> bool {
        let same_picture = id >> SPATIAL_BITS == next >> SPATIAL_BITS;
        let next_picture = ((id >> SPATIAL_BITS) + 1) << SPATIAL_BITS == next;
        id + 1 == next && same_picture || self.top && (same_picture || next_picture)
    }
}

/// A frame's own numbers for the receiver.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PictureNumbers {
    /// From received to sent PictureID, modulo 2^15.
    picture_delta: u16,
    tl0_pic_idx: u8,
    /// From received to sent TL0PICIDX, modulo 2^8.
    tl0_delta: u8,
    /// The highest spatial layer that the receiver gets of its picture.
    highest: u8,
}

impl Numbered for PictureNumbers {
    fn shift_from(&self, base: &Self) -> Option<CodecShift> {
        let layer = self.tl0_delta.wrapping_sub(base.tl0_delta);
        let same = self.tl0_pic_idx.wrapping_sub(base.tl0_pic_idx) == layer
            && self.highest == base.highest;
        same.then(|| CodecShift {
            number: self.picture_delta.wrapping_sub(base.picture_delta) & 0x7fff,
            layer,
        })
    }
}

/// What is known of an encoding's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Number of spatial layers: by its structure, or else as many as were
    /// seen; 0 before the first packet.
    spatial_layers: u8,
    /// The packet that brought the structure.
    since: Option<PacketIndex>,
}

/// The frames of a source, and what one receiver gets of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Vp9 {
    pub(super) frames: Frames<LayerFrame, PictureNumbers>,
    known: [Known; MAX_ENCODINGS as usize],
    /// The spatial layer of the current encoding that the receiver is shown.
    spatial_id: u8,
}

impl Vp9 {
    /// As [`super::Projection::shift_from`].
    pub(super) fn shift_from(&self, base: &Self, now: Instant) -> Option<Common> {
        let same = self.known == base.known && self.spatial_id == base.spatial_id;
        let common = self.frames.shift_from(&base.frames, now);
        common.filter(|_| same)
    }

    pub(super) fn project(
        &mut self,
        packet: &IncomingVideo<'_>,
        descriptor: &Descriptor,
        target: Option<LayerIndex>,
        output: &mut Output,
    ) -> Option<Rewrite> {
        self.learn(packet, descriptor)?;
        let Some(target) = target else {
            self.frames.suspend(packet.encoding, packet.index);
            return None;
        };
        let picture_id = descriptor.picture_id?;
        self.frames.choice.aim(target.encoding());
        let frame = LayerFrame {
            spatial_id: descriptor.spatial_id,
            temporal_id: descriptor.temporal_id,
            top: descriptor.spatial_id >= self.aim(packet.encoding, target).max(self.spatial_id),
            fresh: descriptor.switching_up || !descriptor.inter_picture,
        };
        let place = self.frames.see(&Sight {
            encoding: packet.encoding,
            index: packet.index,
            timestamp: packet.timestamp,
            id: u32::from(picture_id.value) << SPATIAL_BITS | u32::from(frame.spatial_id),
            modulus: u32::from(picture_id.modulus()) << SPATIAL_BITS,
            starts: descriptor.start_of_frame,
            ends: descriptor.end_of_frame,
            codec: frame,
        })?;
        if place.new && self.wanted(place, packet, (descriptor, frame), target, output) {
            let received = descriptor.tl0_pic_idx.unwrap_or(0);
            let highest = self.spatial_id;
            self.frames.accept(place, packet.arrival, output, |after| {
                let next = |picture_delta: u16, tl0_delta: u8| PictureNumbers {
                    picture_delta,
                    tl0_pic_idx: received.wrapping_add(tl0_delta),
                    tl0_delta,
                    highest,
                };
                match after {
                    After::Frame { numbers, .. } | After::Restart { numbers } => {
                        next(numbers.picture_delta, numbers.tl0_delta)
                    }
                    After::Switch { id, numbers } => {
                        let last =
                            ((id >> SPATIAL_BITS) as u16).wrapping_add(numbers.picture_delta);
                        next(
                            last.wrapping_add(1).wrapping_sub(picture_id.value),
                            numbers.tl0_pic_idx.wrapping_add(1).wrapping_sub(received),
                        )
                    }
                    After::Nothing => next(0, 0),
                }
            });
        }
        let numbers = self.frames.numbers(place, packet.index, output)?;
        let PictureNumbers {
            picture_delta,
            tl0_pic_idx,
            highest,
            ..
        } = numbers.codec;
        Some(Rewrite {
            ssrc: output.ssrc,
            index: numbers.index(packet.index),
            timestamp: packet.timestamp.wrapping_add(numbers.timestamp_delta),
            // The last packet of a picture, now that layers above are missing.
            marker: packet.marker || descriptor.end_of_frame && frame.spatial_id == highest,
            codec: CodecRewrite::Vp9 {
                picture_id: picture_id.value.wrapping_add(picture_delta) & 0x7fff,
                tl0_pic_idx,
            },
        })
    }

    /// Takes note of how many spatial layers the packet's encoding has.
    fn learn(&mut self, packet: &IncomingVideo<'_>, descriptor: &Descriptor) -> Option<()> {
        let known = self.known.get_mut(usize::from(packet.encoding))?;
        if known.since.is_none_or(|since| since < packet.index) {
            known.spatial_layers = match descriptor.structure {
                Some(structure) => structure.spatial_layers,
                // It may be of a layer of which a structure that is late tells.
                None => known.spatial_layers.max(descriptor.spatial_id + 1),
            };
            known.since = descriptor.structure.map(|_| packet.index).or(known.since);
        }
        Some(())
    }

    /// The spatial layer that the receiver shall be shown of an encoding.
    fn aim(&self, encoding: u8, target: LayerIndex) -> u8 {
        let wanted = match encoding.cmp(&target.encoding()) {
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Less => u8::MAX,
            std::cmp::Ordering::Equal => target.spatial_id(),
        };
        let known = self.known[usize::from(encoding)];
        wanted.min(known.spatial_layers.saturating_sub(1))
    }

    /// Decides on a frame by the first of its packets seen.
    fn wanted(
        &mut self,
        place: Place,
        packet: &IncomingVideo<'_>,
        (descriptor, frame): (&Descriptor, LayerFrame),
        target: LayerIndex,
        output: &Output,
    ) -> bool {
        if self.frames.precedes_entry(place) {
            return false;
        }
        let encoding = packet.encoding;
        let aim = self.aim(encoding, target);
        let needed = |f: &LayerFrame| f.temporal_id == 0 && f.spatial_id <= aim;
        // Every packet of a key frame tells that it is of one; but what came
        // before the first that is seen would find no room any more.
        let continues = self.frames.choice.current() == Some(encoding);
        let key = descriptor.key_frame()
            && (continues || descriptor.start_of_frame)
            && !self.frames.passed(place, needed);
        let referenced = !descriptor.not_a_reference;
        match self.frames.choice.decide(encoding, key, packet.arrival) {
            Verdict::Reject => false,
            Verdict::Enter => {
                self.spatial_id = aim;
                frame.spatial_id == aim || frame.spatial_id < aim && referenced
            }
            Verdict::Continue => {
                let decodable = self.decodable(place, descriptor, frame);
                let begun = self.frames.begun(packet.timestamp, output);
                self.approach(frame.spatial_id, aim, decodable, begun);
                let shown = self.spatial_id;
                if !decodable && frame.spatial_id == shown && frame.temporal_id == 0 {
                    self.frames.choice.needs_keyframe = true;
                }
                let temporal = match encoding.cmp(&target.encoding()) {
                    std::cmp::Ordering::Greater => 0,
                    std::cmp::Ordering::Less => u8::MAX,
                    std::cmp::Ordering::Equal => match shown.cmp(&aim) {
                        std::cmp::Ordering::Greater => 0,
                        std::cmp::Ordering::Less => u8::MAX,
                        std::cmp::Ordering::Equal => target.temporal_id(),
                    },
                };
                decodable
                    && frame.temporal_id <= temporal
                    && (frame.spatial_id == shown || frame.spatial_id < shown && referenced)
            }
        }
    }

    /// Changes the layer shown at a frame of one that lies nearer to the aim, if
    /// it can be decoded, or asks for a key frame. Once a picture has `begun`,
    /// its highest layer has been marked: it cannot get a higher one.
    fn approach(&mut self, spatial_id: u8, aim: u8, decodable: bool, begun: bool) {
        let shown = self.spatial_id;
        let up = shown < spatial_id && spatial_id <= aim;
        let down = aim <= spatial_id && spatial_id < shown;
        if !(up || down) {
            return;
        }
        if decodable && !(up && begun) {
            self.spatial_id = spatial_id;
        } else {
            self.frames.choice.needs_keyframe = true;
        }
    }

    /// Whether all that a frame refers to was forwarded, as far as that is
    /// known.
    fn decodable(&self, place: Place, descriptor: &Descriptor, frame: LayerFrame) -> bool {
        let had = |ids: u32| self.frames.accepted_back(place, ids) != Some(false);
        if descriptor.inter_layer && frame.spatial_id > 0 && !had(1) {
            return false;
        }
        if !descriptor.inter_picture {
            return true;
        }
        if descriptor.flexible {
            let mut references = descriptor.references().iter();
            return references.all(|pictures| had(u32::from(*pictures) << SPATIAL_BITS));
        }
        self.follows_what_was_sent(place, frame)
    }

    /// As [`Self::decodable`], without references: by the nearest frame that
    /// this one may refer to and that settles the question.
    fn follows_what_was_sent(&self, place: Place, frame: LayerFrame) -> bool {
        let same_layer = |f: &LayerFrame| f.spatial_id == frame.spatial_id;
        for before in self.frames.before(place) {
            let codec = before.codec;
            if !same_layer(codec) || codec.temporal_id > frame.temporal_id {
                continue;
            }
            if !before.accepted {
                return false;
            }
            if codec.temporal_id == frame.temporal_id || codec.fresh {
                return true;
            }
        }
        true
    }
}
