//! Projection of everything that carries a dependency descriptor: AV1 in all
//! its scalability modes, and H.264 where the sender adds one.
//!
//! Layers are decode targets. The receiver gets the frames that its decode
//! target contains, with a descriptor of its own: frame numbers and template
//! ids go on across changes of encoding, and the mask of active decode targets
//! says which ones can still be decoded from what it gets.
//! A target is left at a frame that switches to the new one and whose
//! references were all forwarded, else at a key frame.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::choice::Verdict;
use super::frames::{After, Frames, Place, Remembered, Sight};
use super::shift::Numbered;
use super::{CodecRewrite, CodecShift, Common, IncomingVideo, LayerIndex, Output, Rewrite};
use crate::rtp::dependency_descriptor::{
    DdFrame, DescriptorRewrite, Dti, MAX_TEMPLATES, Structure,
};

/// What a frame is remembered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// In a chain that protects the target wanted when it came.
    base: bool,
}

impl Remembered for Layer {}

/// A frame's own numbers for the receiver.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct FrameNumbers {
    /// From received to sent frame number, modulo 2^16.
    frame_delta: u16,
    /// From received to sent template id, modulo 64.
    template_delta: u8,
    /// The decode target that the receiver gets from this frame on.
    decode_target: u8,
    /// It got another one before.
    retargeted: bool,
}

impl Numbered for FrameNumbers {
    fn shift_from(&self, base: &Self) -> Option<CodecShift> {
        let same = (self.decode_target, self.retargeted) == (base.decode_target, base.retargeted);
        same.then(|| CodecShift {
            number: self.frame_delta.wrapping_sub(base.frame_delta),
            layer: template_shift(self.template_delta, base.template_delta),
        })
    }
}

/// From one template id, or distance of them, to another.
fn template_shift(own: u8, base: u8) -> u8 {
    own.wrapping_sub(base) % MAX_TEMPLATES as u8
}

/// Where frame numbers and template ids go on after another codec was in use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Next {
    frame_number: u16,
    template_id: u8,
}

impl Next {
    /// From where another receiver goes on to where this one does.
    pub(super) fn shift_from(own: Option<Self>, base: Option<Self>) -> Option<CodecShift> {
        match (own, base) {
            (None, None) => Some(CodecShift::default()),
            (Some(own), Some(base)) => Some(CodecShift {
                number: own.frame_number.wrapping_sub(base.frame_number),
                layer: template_shift(own.template_id, base.template_id),
            }),
            _ => None,
        }
    }
}

/// The frames of a source, and what one receiver gets of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Dd {
    pub(super) frames: Frames<Layer, FrameNumbers>,
    /// The decode target of the current encoding that is forwarded.
    decode_target: u8,
    /// First template id after those of the structure the receiver has.
    next_template_id: u8,
    /// From the use of a dependency descriptor before the last other codec.
    resumed: Option<Next>,
}

impl Dd {
    pub(super) fn new(resumed: Option<Next>) -> Self {
        Self {
            frames: Frames::default(),
            decode_target: 0,
            next_template_id: resumed.map_or(0, |next| next.template_id),
            resumed,
        }
    }

    /// As [`super::Projection::shift_from`].
    pub(super) fn shift_from(&self, base: &Self, now: Instant) -> Option<Common> {
        let common = self.frames.shift_from(&base.frames, now)?;
        let templates = template_shift(self.next_template_id, base.next_template_id);
        let same = self.decode_target == base.decode_target && templates == common.codec.layer;
        same.then_some(common)
    }

    /// Where to go on, if anything was ever forwarded.
    pub(super) fn next(&self) -> Option<Next> {
        match self.frames.newest_id() {
            Some((id, numbers)) => Some(Next {
                frame_number: (id as u16)
                    .wrapping_add(numbers.frame_delta)
                    .wrapping_add(1),
                template_id: self.next_template_id,
            }),
            None => self.resumed,
        }
    }

    pub(super) fn project(
        &mut self,
        packet: &IncomingVideo<'_>,
        frame: &DdFrame,
        target: Option<LayerIndex>,
        output: &mut Output,
    ) -> Option<Rewrite> {
        let Some(target) = target else {
            self.frames.suspend(packet.encoding, packet.index);
            return None;
        };
        self.frames.choice.aim(target.encoding());
        let wanted = target.decode_target();
        let base = frame
            .structure
            .in_chain_of(wanted.min(frame.structure.decode_targets() - 1), frame.dtis);
        let place = self.frames.see(&Sight {
            encoding: packet.encoding,
            index: packet.index,
            timestamp: packet.timestamp,
            id: frame.frame_number.into(),
            modulus: 1 << 16,
            starts: frame.start_of_frame,
            ends: frame.end_of_frame,
            codec: Layer { base },
        })?;
        if place.new {
            let before = self.decode_target;
            if self.wanted(place, packet, frame, target, output) {
                let codec = FrameNumbers {
                    frame_delta: 0,
                    template_delta: 0,
                    decode_target: self.decode_target,
                    retargeted: self.decode_target != before,
                };
                let (number, offset) = (frame.frame_number, frame.structure.template_id_offset);
                let (resumed, next_template_id) = (self.resumed, self.next_template_id);
                let continued = |frame_number: u16, template_id: u8| FrameNumbers {
                    frame_delta: frame_number.wrapping_sub(number),
                    template_delta: template_id.wrapping_sub(offset) % MAX_TEMPLATES as u8,
                    retargeted: true,
                    ..codec
                };
                self.frames.accept(place, packet.arrival, output, |after| {
                    match (after, resumed) {
                        (After::Frame { numbers, .. } | After::Restart { numbers }, _) => {
                            FrameNumbers {
                                frame_delta: numbers.frame_delta,
                                template_delta: numbers.template_delta,
                                ..codec
                            }
                        }
                        (After::Switch { id, numbers }, _) => {
                            let last = (id as u16).wrapping_add(numbers.frame_delta);
                            continued(last.wrapping_add(1), next_template_id)
                        }
                        (After::Nothing, Some(next)) => {
                            continued(next.frame_number, next.template_id)
                        }
                        (After::Nothing, None) => FrameNumbers {
                            retargeted: true,
                            ..codec
                        },
                    }
                });
            }
        }
        let numbers = self.frames.numbers(place, packet.index, output)?;
        let FrameNumbers {
            frame_delta,
            template_delta,
            decode_target,
            retargeted,
        } = numbers.codec;
        let structure = &frame.structure;
        if frame.carries_structure {
            let templates = structure.templates.len() as u8;
            self.next_template_id = structure
                .template_id_offset
                .wrapping_add(template_delta)
                .wrapping_add(templates)
                % MAX_TEMPLATES as u8;
        }
        let mask = (retargeted || frame.carries_mask || frame.carries_structure)
            .then(|| structure.decodable_with(decode_target) & frame.active_targets)
            // A structure alone says that all targets are active.
            .filter(|mask| !frame.carries_structure || *mask != structure.all_targets());
        let spatial_id = structure
            .targets
            .get(usize::from(decode_target))
            .map(|target| target.spatial_id);
        Some(Rewrite {
            ssrc: output.ssrc,
            index: numbers.index(packet.index),
            timestamp: packet.timestamp.wrapping_add(numbers.timestamp_delta),
            // The last packet of a picture, now that layers above are missing.
            marker: packet.marker || frame.end_of_frame && spatial_id == Some(frame.spatial_id),
            codec: CodecRewrite::Dd(DescriptorRewrite::new(
                frame,
                frame.frame_number.wrapping_add(frame_delta),
                template_delta,
                mask,
            )),
        })
    }

    /// Decides on a frame by the first of its packets seen.
    fn wanted(
        &mut self,
        place: Place,
        packet: &IncomingVideo<'_>,
        frame: &DdFrame,
        target: LayerIndex,
        output: &Output,
    ) -> bool {
        if self.frames.precedes_entry(place) {
            return false;
        }
        let key = frame.carries_structure && !self.frames.passed(place, |layer| layer.base);
        let within_target = packet.encoding == target.encoding();
        match self
            .frames
            .choice
            .decide(packet.encoding, key, packet.arrival)
        {
            Verdict::Reject => false,
            Verdict::Enter => {
                let decode_target = if within_target {
                    available(frame, target.decode_target())
                } else {
                    frame.dtis.highest_present()
                };
                let present = decode_target
                    .filter(|decode_target| frame.dtis.get(*decode_target) != Dti::NotPresent);
                match present {
                    Some(decode_target) => self.decode_target = decode_target,
                    None => self.frames.choice.needs_keyframe = true,
                }
                present.is_some()
            }
            Verdict::Continue => {
                if within_target {
                    let Some(wanted) = available(frame, target.decode_target()) else {
                        return false;
                    };
                    let begun = self.frames.begun(packet.timestamp, output);
                    self.approach(place, frame, wanted, begun);
                }
                let dti = frame.dtis.get(self.decode_target);
                let least = if packet.encoding > target.encoding() {
                    Dti::Switch
                } else {
                    Dti::Discardable
                };
                dti >= least
            }
        }
    }

    /// Changes the decode target at a frame where that is possible, or asks for
    /// a key frame where no other frame will ever do. Once a picture has
    /// `begun`, its highest layer has been marked: it cannot get a higher one.
    fn approach(&mut self, place: Place, frame: &DdFrame, wanted: u8, begun: bool) {
        if self.decode_target == wanted {
            return;
        }
        let layer = |target: u8| {
            let targets = &frame.structure.targets;
            targets.get(usize::from(target)).map(|t| t.spatial_id)
        };
        let too_late = begun && layer(wanted) > layer(self.decode_target);
        let referenced = frame.diffs.as_slice();
        if frame.dtis.get(wanted) == Dti::Switch
            && !too_late
            && referenced
                .iter()
                .all(|diff| self.frames.accepted_back(place, u32::from(*diff)) == Some(true))
        {
            self.decode_target = wanted;
        } else if !leads_to(&frame.structure, self.decode_target, wanted) {
            self.frames.choice.needs_keyframe = true;
        }
    }
}

/// The highest decode target up to `wanted` that the sender is producing.
fn available(frame: &DdFrame, wanted: u8) -> Option<u8> {
    let highest = wanted.min(frame.structure.decode_targets() - 1);
    let upto = frame.active_targets & u32::MAX >> (31 - u32::from(highest));
    (upto != 0).then(|| (31 - upto.leading_zeros()) as u8)
}

/// Whether delta frames of one decode target can lead to another.
fn leads_to(structure: &Structure, from: u8, to: u8) -> bool {
    structure.templates.iter().any(|template| {
        structure.predicts_over_time(template)
            && template.dtis.get(from) != Dti::NotPresent
            && template.dtis.get(to) == Dti::Switch
    })
}
