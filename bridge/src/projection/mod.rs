//! Turns the layers of one video source into the single stream that one
//! receiver decodes: chooses what it gets packet by packet, and renumbers that
//! so that it looks like one encoder's uninterrupted output.
//!
//! In: packets of a source's encodings (simulcast, or one with scalable
//! layers), each encoding with its own SSRC, sequence numbers, timestamps.
//! Out: a [`Rewrite`] for every packet the receiver shall have, all under the
//! source's primary SSRC. Sequence numbers never go back, none is given twice,
//! and there is no gap that is not a real loss; timestamps and the codec's own
//! counters advance in step.
//!
//! [`vp8`], [`vp9`] and [`dependency_descriptor`] know their codec's layers;
//! [`generic`] forwards whole encodings. They share [`choice`] (which encoding) and
//! [`frames`] (numbering with lost, late and withheld frames, each remembered in
//! a [`recent`] row). [`write`] makes
//! the outgoing packet, [`shift`] lets receivers share a projection. All state is
//! plain data.
//!
//! Elsewhere: which layer to aim for (`allocation`), resending (`send`).

mod choice;
mod dependency_descriptor;
mod frames;
mod generic;
mod recent;
mod shift;
mod vp8;
mod vp9;
mod write;

#[cfg(test)]
mod tests;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::rtp::dependency_descriptor::{DdFrame, DescriptorRewrite};
use crate::rtp::{PacketIndex, PayloadType, Ssrc, vp8 as vp8_payload, vp9 as vp9_payload};

pub use shift::{CodecShift, Shift};
pub use write::{EgressExtensions, IdSet, RtxHeader, write_packet, write_rtx};

/// Most encodings of a source. Signalled simulcast has three.
pub const MAX_ENCODINGS: u8 = 8;

/// A layer of a source, ordered by quality: `encoding << 6 | spatial << 3 |
/// temporal`, or `encoding << 6 | decode target` for streams that carry a
/// dependency descriptor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct LayerIndex(pub u16);

impl LayerIndex {
    /// A layer by its ids; spatial and temporal are below 8.
    pub fn new(encoding: u8, spatial_id: u8, temporal_id: u8) -> Self {
        Self(u16::from(encoding) << 6 | u16::from(spatial_id & 7) << 3 | u16::from(temporal_id & 7))
    }

    /// A decode target, below 32, of an encoding.
    pub fn of_target(encoding: u8, decode_target: u8) -> Self {
        Self(u16::from(encoding) << 6 | u16::from(decode_target & 63))
    }

    /// Position in the source's list of encodings, low to high.
    pub fn encoding(self) -> u8 {
        (self.0 >> 6) as u8
    }

    /// Decode target, for streams that carry a dependency descriptor.
    pub fn decode_target(self) -> u8 {
        (self.0 & 63) as u8
    }

    /// Spatial layer within the encoding.
    pub fn spatial_id(self) -> u8 {
        (self.0 >> 3 & 7) as u8
    }

    /// Temporal layer within the encoding.
    pub fn temporal_id(self) -> u8 {
        (self.0 & 7) as u8
    }
}

/// A received video packet, as far as projections look into it.
#[derive(Clone, Copy, Debug)]
pub struct IncomingVideo<'a> {
    /// Position of its encoding in the source, low to high.
    pub encoding: u8,
    /// Its index among the packets of that encoding, retransmissions restored.
    pub index: PacketIndex,
    pub timestamp: u32,
    pub marker: bool,
    pub payload_type: PayloadType,
    pub arrival: Instant,
    pub codec: CodecView<'a>,
}

/// What is known of a packet's place in its codec's structure.
#[derive(Clone, Copy, Debug)]
pub enum CodecView<'a> {
    /// VP8 with PictureID and temporal id.
    Vp8(vp8_payload::Descriptor),
    /// VP9 with PictureID.
    Vp9(vp9_payload::Descriptor),
    /// Any codec with a dependency descriptor.
    Dd(&'a DdFrame),
    /// Anything else; `key` says whether the packet is part of a key frame,
    /// where that can be told.
    Opaque { key: Option<bool> },
}

impl CodecView<'_> {
    /// Reads a VP8 payload. Without PictureID or temporal id it can only be
    /// forwarded as a whole; `None` if it is malformed.
    pub fn vp8(payload: &[u8]) -> Option<Self> {
        let descriptor = vp8_payload::Descriptor::parse(payload).ok()?;
        Some(
            if descriptor.picture_id.is_some() && descriptor.temporal_id.is_some() {
                Self::Vp8(descriptor)
            } else {
                Self::Opaque {
                    key: Some(descriptor.key_frame),
                }
            },
        )
    }

    /// Reads a VP9 payload. Without PictureID it can only be forwarded as a
    /// whole; `None` if it is malformed.
    pub fn vp9(payload: &[u8]) -> Option<Self> {
        let descriptor = vp9_payload::Descriptor::parse(payload).ok()?;
        Some(if descriptor.picture_id.is_some() {
            Self::Vp9(descriptor)
        } else {
            Self::Opaque {
                key: Some(
                    descriptor.key_frame()
                        && descriptor.start_of_frame
                        && descriptor.spatial_id == 0,
                ),
            }
        })
    }
}

impl CodecView<'_> {
    /// Whether a receiver might enter the encoding with this packet.
    fn may_enter(&self) -> bool {
        match self {
            Self::Vp8(descriptor) => descriptor.key_frame,
            Self::Vp9(descriptor) => descriptor.key_frame(),
            Self::Dd(frame) => frame.carries_structure,
            Self::Opaque { .. } => true,
        }
    }
}

/// All that is needed to make the outgoing packet from the received one, at
/// once or for a later resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    pub ssrc: Ssrc,
    pub index: PacketIndex,
    pub timestamp: u32,
    pub marker: bool,
    pub codec: CodecRewrite,
}

/// What changes in the codec's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodecRewrite {
    None,
    Vp8 { picture_id: u16, tl0_pic_idx: u8 },
    Vp9 { picture_id: u16, tl0_pic_idx: u8 },
    Dd(DescriptorRewrite),
}

/// Where the receiver's stream has got to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Output {
    ssrc: Ssrc,
    /// The highest packet index given so far.
    highest: PacketIndex,
    /// The timestamp of the newest frame, and when that frame's first packet came.
    timestamp: u32,
    #[serde(skip)]
    created: Option<Instant>,
}

impl Output {
    /// The timestamp for a frame that does not continue the last one's
    /// encoding: as many frames of a 30th of a second later as have passed.
    fn next_timestamp(&self, arrival: Instant) -> u32 {
        let passed = self.created.map_or(0, |created| {
            arrival.saturating_duration_since(created).as_millis() / 33
        });
        self.timestamp
            .wrapping_add(3000u32.wrapping_mul((passed as u32).max(1)))
    }

    /// Notes the newest frame.
    fn begin_frame(&mut self, timestamp: u32, arrival: Instant) {
        self.timestamp = timestamp;
        self.created = Some(arrival);
    }
}

/// Rules for the codec in use. One starts where the other ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Context {
    Vp8(vp8::Vp8),
    Vp9(vp9::Vp9),
    Dd(dependency_descriptor::Dd),
    Generic(generic::Generic),
}

impl Context {
    fn fits(&self, packet: &IncomingVideo<'_>) -> bool {
        match (self, packet.codec) {
            (Self::Vp8(_), CodecView::Vp8(_))
            | (Self::Vp9(_), CodecView::Vp9(_))
            | (Self::Dd(_), CodecView::Dd(_)) => true,
            (Self::Generic(generic), CodecView::Opaque { .. }) => {
                generic.payload_type == packet.payload_type
            }
            _ => false,
        }
    }

    /// Whether a packet with which no encoding can be entered means nothing, as
    /// the wanted encoding is forwarded and this is of another: most packets of a
    /// simulcast source. It is noted then.
    fn passes_by(&mut self, packet: &IncomingVideo<'_>) -> bool {
        let (encoding, index) = (packet.encoding, packet.index);
        match self {
            Self::Vp8(vp8) => vp8.frames.pass_by(encoding, index),
            Self::Vp9(vp9) => vp9.frames.pass_by(encoding, index),
            Self::Dd(dd) => dd.frames.pass_by(encoding, index),
            Self::Generic(_) => false,
        }
    }

    /// Notes the newest packet of an encoding that came while the source was not
    /// wanted.
    fn suspend(&mut self, encoding: u8, index: PacketIndex) {
        match self {
            Self::Vp8(vp8) => vp8.frames.suspend(encoding, index),
            Self::Vp9(vp9) => vp9.frames.suspend(encoding, index),
            Self::Dd(dd) => dd.frames.suspend(encoding, index),
            Self::Generic(generic) => generic.suspend(),
        }
    }

    /// As [`Projection::shift_from`], of what the codec in use has.
    fn shift_from(&self, base: &Self, now: Instant) -> Option<Common> {
        match (self, base) {
            (Self::Vp8(own), Self::Vp8(base)) => own.frames.shift_from(&base.frames, now),
            (Self::Vp9(own), Self::Vp9(base)) => own.shift_from(base, now),
            (Self::Dd(own), Self::Dd(base)) => own.shift_from(base, now),
            (Self::Generic(own), Self::Generic(base)) => own.shift_from(base, now),
            _ => None,
        }
    }

    fn choice(&mut self) -> &mut choice::EncodingChoice {
        match self {
            Self::Vp8(vp8) => &mut vp8.frames.choice,
            Self::Vp9(vp9) => &mut vp9.frames.choice,
            Self::Dd(dd) => &mut dd.frames.choice,
            Self::Generic(generic) => &mut generic.choice,
        }
    }
}

/// How far two receivers are apart, and from where on.
#[derive(Clone, Copy, Debug)]
struct Common {
    sequence: u64,
    timestamp: u32,
    codec: CodecShift,
    /// The lowest index, as the one sees it from whom the distance is measured,
    /// from which on both were given the same.
    since: PacketIndex,
}

/// What one receiver gets of one video source, or several who get the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Projection {
    target: Option<LayerIndex>,
    output: Output,
    context: Option<Context>,
    /// Kept while another codec is in use, so that frame numbers and template
    /// ids go on where they were.
    descriptor_numbers: Option<dependency_descriptor::Next>,
    /// The newest packet of each encoding that `context` has seen.
    newest: [PacketIndex; MAX_ENCODINGS as usize],
    /// How often another codec came into use.
    codec_changes: u32,
}

impl Projection {
    /// Nothing is projected until a target is set.
    pub fn new(output: Ssrc) -> Self {
        Self {
            target: None,
            output: Output {
                ssrc: output,
                highest: PacketIndex(1),
                timestamp: 1,
                created: None,
            },
            context: None,
            descriptor_numbers: None,
            newest: [PacketIndex(0); MAX_ENCODINGS as usize],
            codec_changes: 0,
        }
    }

    /// The index given to the first packet.
    pub const FIRST: PacketIndex = PacketIndex(2);

    /// The highest index given so far, below [`Self::FIRST`] before the first.
    pub fn highest(&self) -> PacketIndex {
        self.output.highest
    }

    /// How often the source has changed its codec. With each change the numbers
    /// of pictures begin anew, as they are received.
    pub fn codec_changes(&self) -> u32 {
        self.codec_changes
    }

    /// The SSRC under which the receiver gets the source.
    pub fn ssrc(&self) -> Ssrc {
        self.output.ssrc
    }

    /// The best layer the receiver shall get; `None` suspends the source.
    pub fn set_target(&mut self, target: Option<LayerIndex>) {
        self.target = target;
        // A suspension counts from the first packet that meets it.
        if let (Some(target), Some(context)) = (target, &mut self.context) {
            context.choice().aim(target.encoding());
        }
    }

    /// The source was suspended and is wanted again; `newest` are the newest
    /// packets that came of each encoding, seen here or not.
    pub fn resume(&mut self, newest: &[PacketIndex; MAX_ENCODINGS as usize]) {
        for (encoding, (seen, newest)) in (0..).zip(self.newest.iter_mut().zip(newest)) {
            if *seen < *newest
                && let Some(context) = &mut self.context
            {
                *seen = *newest;
                context.suspend(encoding, *newest);
            }
        }
    }

    /// Whether from now on whatever comes makes of this projection what it makes
    /// of `base`, but for the distance between their numbers. Answers that, and
    /// the index of `base` from which on it was so already: what comes late of
    /// before is not common.
    pub fn shift_from(&self, base: &Self, now: Instant) -> Option<(Shift, PacketIndex)> {
        let (context, other) = (self.context.as_ref()?, base.context.as_ref()?);
        let common = context.shift_from(other, now)?;
        let (output, of_base) = (&self.output, &base.output);
        let same = self.target == base.target
            && output.ssrc == of_base.ssrc
            && output.highest.0.wrapping_sub(of_base.highest.0) == common.sequence
            && output.timestamp.wrapping_sub(of_base.timestamp) == common.timestamp
            && output.created == of_base.created;
        let (pictures, descriptors) = match context {
            Context::Dd(_) => (CodecShift::default(), common.codec),
            _ => (
                common.codec,
                dependency_descriptor::Next::shift_from(
                    self.descriptor_numbers,
                    base.descriptor_numbers,
                )?,
            ),
        };
        let shift = Shift {
            index: common.sequence,
            timestamp: common.timestamp,
            pictures,
            descriptors,
        };
        same.then_some((shift, common.since))
    }

    /// The best layer the receiver shall get.
    pub fn target(&self) -> Option<LayerIndex> {
        self.target
    }

    /// Decides on a packet. `None`: it is not for this receiver.
    pub fn project(&mut self, packet: &IncomingVideo<'_>) -> Option<Rewrite> {
        let newest = self.newest.get_mut(usize::from(packet.encoding))?;
        if !self.context.as_ref().is_some_and(|c| c.fits(packet)) {
            // A latecomer in the codec before the last does not bring it back.
            if packet.index < *newest || self.target.is_none() {
                return None;
            }
            self.change_codec(packet);
        }
        let newest = &mut self.newest[usize::from(packet.encoding)];
        let late = packet.index < *newest;
        *newest = packet.index.max(*newest);
        let (target, output) = (self.target, &mut self.output);
        let context = self.context.as_mut()?;
        if target.is_some() && !packet.codec.may_enter() && context.passes_by(packet) {
            return None;
        }
        match (context, packet.codec) {
            (Context::Vp8(vp8), CodecView::Vp8(d)) => vp8.project(packet, &d, target, output),
            (Context::Vp9(vp9), CodecView::Vp9(d)) => vp9.project(packet, &d, target, output),
            (Context::Dd(dd), CodecView::Dd(frame)) => dd.project(packet, frame, target, output),
            (Context::Generic(generic), CodecView::Opaque { key }) => {
                generic.project(packet, key, late, target, output)
            }
            _ => None,
        }
    }

    fn change_codec(&mut self, packet: &IncomingVideo<'_>) {
        self.codec_changes += 1;
        if let Some(Context::Dd(dd)) = &self.context {
            self.descriptor_numbers = dd.next();
        }
        self.context = Some(match packet.codec {
            CodecView::Vp8(_) => Context::Vp8(vp8::Vp8::default()),
            CodecView::Vp9(_) => Context::Vp9(vp9::Vp9::default()),
            CodecView::Dd(_) => {
                Context::Dd(dependency_descriptor::Dd::new(self.descriptor_numbers))
            }
            CodecView::Opaque { .. } => {
                Context::Generic(generic::Generic::new(packet.payload_type))
            }
        });
    }

    /// Whether the receiver can go on, or up, only with a key frame. To be
    /// asked after each packet of the source, and after a change of target.
    pub fn needs_keyframe(&self) -> bool {
        self.target.is_some()
            && match &self.context {
                None => true,
                Some(Context::Vp8(vp8)) => vp8.frames.needs_keyframe(),
                Some(Context::Vp9(vp9)) => vp9.frames.needs_keyframe(),
                Some(Context::Dd(dd)) => dd.frames.needs_keyframe(),
                Some(Context::Generic(generic)) => generic.needs_keyframe(),
            }
    }

    /// Maps the RTP timestamp of a sender report of an encoding to the
    /// receiver's clock; `None` unless that encoding is what the receiver gets.
    pub fn rewrite_sender_report(&self, encoding: u8, timestamp: u32) -> Option<u32> {
        self.target?;
        let delta = match self.context.as_ref()? {
            Context::Vp8(vp8) => vp8.frames.timestamp_delta(encoding),
            Context::Vp9(vp9) => vp9.frames.timestamp_delta(encoding),
            Context::Dd(dd) => dd.frames.timestamp_delta(encoding),
            Context::Generic(generic) => generic.timestamp_delta(encoding),
        }?;
        Some(timestamp.wrapping_add(delta))
    }
}
