//! Packets in their order into frames, frames into pictures, each held against
//! what a decoder needs.
//!
//! A bridge forwards one encoding at a time under one SSRC, leaves out layers,
//! and rewrites the numbers. So a change of encoding must come with a key
//! frame; the frame that another is predicted from must have been shown, and
//! the distance that the payload or the dependency descriptor gives must lead
//! to it; numbers must move with the pictures, and the marker must be on the
//! last packet of each (media.md §4.3 to §4.6).

use std::collections::VecDeque;

use bytes::Bytes;

use super::VideoStats;
use super::heights::Heights;
use crate::measure::mute::Mutes;
use crate::source::dependency_descriptor::{Descriptor, DescriptorReader};
use crate::source::payload::{Head, Payload};
use crate::source::tag::Tag;
use std::time::Instant;

/// Shown frames that are remembered as references: those of 16 pictures.
const MAX_SHOWN: usize = 48;

/// A packet whose turn has come.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) payload: Payload,
    /// Dependency descriptor; read in order, as a structure is said only once.
    pub(super) descriptor: Option<Bytes>,
    pub(super) marker: bool,
    pub(super) timestamp: u32,
    pub(super) arrival: Instant,
}

/// A frame being put together.
#[derive(Debug)]
struct Frame {
    tag: Tag,
    head: Head,
    descriptor: Option<Descriptor>,
    timestamp: u32,
    got: u16,
    whole: bool,
}

/// A frame that could be decoded, with the numbers it had on arrival.
#[derive(Clone, Copy, Debug)]
struct Shown {
    picture: u32,
    spatial: u8,
    picture_id: Option<u16>,
    frame_number: Option<u16>,
}

/// The numbers of the frame before.
#[derive(Clone, Copy, Debug)]
struct Previous {
    picture: u32,
    picture_id: Option<u16>,
    tl0_pic_idx: Option<u8>,
    frame_number: Option<u16>,
    timestamp: u32,
    marker: bool,
}

/// What a decoder would make of the stream.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    frame: Option<Frame>,
    shown: VecDeque<Shown>,
    encoding: Option<u8>,
    previous: Option<Previous>,
    reader: DescriptorReader,
    /// Nothing can be shown before the next key frame.
    pub(super) needs_key: bool,
    /// The beginning of the stream was not kept, so that it need not be a key
    /// frame.
    beheaded: bool,
}

impl Pictures {
    /// A stream begins; `beheaded` if not with the first packet that came.
    pub(super) fn begin(&mut self, beheaded: bool) {
        *self = Self {
            needs_key: true,
            beheaded,
            ..Self::default()
        };
    }

    /// Something is missing for good: the frame at hand is spoilt, and the
    /// fields of the next one cannot be foretold.
    pub(super) fn broken(&mut self) {
        self.frame = None;
        self.previous = None;
    }

    /// Much is missing: no frame shown before is of use any more.
    pub(super) fn abandon(&mut self) {
        self.broken();
        self.shown.clear();
    }

    /// Takes the next packet.
    pub(super) fn assemble(&mut self, packet: Packet, sinks: &mut Sinks<'_>) {
        let tag = packet.payload.tag;
        let descriptor = self.descriptor(&packet, sinks.stats);
        let consistent = packet.payload.is_consistent();
        self.open(&tag, &packet, descriptor.as_ref(), sinks.stats);
        let frame = self.frame.as_mut().expect("there is one by now");
        if tag.packet != frame.got {
            if frame.whole {
                sinks.stats.lost += u64::from(tag.packet.abs_diff(frame.got));
            }
            frame.whole = false;
            frame.got = tag.packet;
        }
        frame.got += 1;
        let goes_on = packet.timestamp == frame.timestamp
            && numbers(&packet.payload.head) == numbers(&frame.head)
            && descriptor.as_ref().map(|d| d.number) == frame.descriptor.as_ref().map(|d| d.number)
            && (!packet.marker || tag.packet + 1 == tag.packets);
        sinks.stats.misnumbered += u64::from(!consistent || !goes_on);
        if frame.got >= tag.packets {
            let frame = self.frame.take().expect("held just now");
            if frame.whole {
                self.show(&frame, packet.marker, packet.arrival, sinks);
            } else {
                self.needs_key = true;
            }
        }
    }

    /// Reads the descriptor, and whether it says of the packet what the tag does.
    fn descriptor(&mut self, packet: &Packet, stats: &mut VideoStats) -> Option<Descriptor> {
        let tag = &packet.payload.tag;
        let descriptor = match self.reader.read(packet.descriptor.as_deref()?) {
            Ok(descriptor) => descriptor,
            // Without the key frame there is no structure either.
            Err(_) if self.needs_key && !tag.is_intra() => return None,
            Err(error) => {
                tracing::debug!(%error, ?tag, "dependency descriptor");
                stats.misnumbered += 1;
                return None;
            }
        };
        let first = tag.packet == 0;
        let height = self
            .reader
            .structure()
            .and_then(|structure| structure.sizes.get(usize::from(tag.spatial)))
            .map(|size| size.1);
        let right = (descriptor.start, descriptor.end) == (first, tag.packet + 1 == tag.packets)
            && (descriptor.spatial, descriptor.temporal) == (tag.spatial, tag.temporal)
            && descriptor.structure == (first && tag.is_intra())
            && height.is_none_or(|height| height == tag.height)
            && descriptor.wanted;
        if !right {
            tracing::debug!(?descriptor, ?tag, "dependency descriptor");
        }
        stats.misnumbered += u64::from(!right);
        Some(descriptor)
    }

    /// Begins a new frame unless the packet goes on with the one at hand.
    fn open(
        &mut self,
        tag: &Tag,
        packet: &Packet,
        descriptor: Option<&Descriptor>,
        stats: &mut VideoStats,
    ) {
        let id = |tag: &Tag| (tag.encoding, tag.picture, tag.spatial);
        if self.frame.as_ref().is_some_and(|f| id(&f.tag) == id(tag)) {
            return;
        }
        if let Some(cut) = self.frame.take().filter(|frame| frame.whole) {
            // The numbers have no hole, yet the rest of the frame never came:
            // it was dropped by somebody who hid it. A frame cut short by a
            // change of the encoding is allowed (media.md §4.3): there it is
            // closed and a key frame follows.
            if !(tag.key && tag.encoding != cut.tag.encoding) {
                stats.lost += u64::from(cut.tag.packets.saturating_sub(cut.got));
            }
            self.previous = None;
        }
        // After a break the frame may begin in its middle.
        let whole = tag.packet == 0;
        if !whole && self.previous.is_some() {
            stats.lost += u64::from(tag.packet);
            self.previous = None;
        }
        self.frame = Some(Frame {
            tag: *tag,
            head: packet.payload.head.clone(),
            descriptor: descriptor.cloned(),
            timestamp: packet.timestamp,
            got: tag.packet,
            whole,
        });
    }

    fn show(&mut self, frame: &Frame, marker: bool, now: Instant, sinks: &mut Sinks<'_>) {
        let tag = &frame.tag;
        self.check_progress(frame, marker, sinks.stats);
        let switched = self
            .encoding
            .is_some_and(|encoding| encoding != tag.encoding);
        if switched {
            sinks.stats.switches += 1;
            sinks.stats.bad_switches += u64::from(!tag.key);
            self.shown.clear();
        }
        self.encoding = Some(tag.encoding);
        if tag.is_intra() {
            self.needs_key = false;
            self.beheaded = false;
            sinks.stats.key_frames += 1;
            self.shown.clear();
        }
        let reference = (tag.reference, tag.reference_spatial);
        let reference = self
            .shown
            .iter()
            .rfind(|shown| (shown.picture, shown.spatial) == reference)
            .copied();
        if reference.is_none() && !tag.is_intra() {
            sinks.stats.undecodable += u64::from(!self.beheaded);
            tracing::debug!(?tag, shown = ?self.shown.back(), "frame without its reference");
            self.needs_key = true;
            return;
        }
        let leads = self.leads_to(frame, reference.as_ref());
        if !leads {
            tracing::debug!(?frame, ?reference, "reference misnamed");
        }
        sinks.stats.misnumbered += u64::from(!leads);
        self.shown.push_back(Shown {
            picture: tag.picture,
            spatial: tag.spatial,
            picture_id: picture_id(&frame.head),
            frame_number: frame.descriptor.as_ref().map(|d| d.number),
        });
        if self.shown.len() > MAX_SHOWN {
            self.shown.pop_front();
        }
        if marker {
            sinks.stats.frames += 1;
            sinks.stats.gap.mark(now);
            sinks.stats.first_frame.get_or_insert(now);
            sinks.mutes.presented(now);
            sinks.heights.shown(now, tag.height);
        }
    }

    /// Whether the distances in the packets lead to the reference.
    fn leads_to(&self, frame: &Frame, reference: Option<&Shown>) -> bool {
        let reference = reference.filter(|_| !frame.tag.is_intra());
        let payload = match (&frame.head, reference) {
            (Head::Vp9(head), Some(reference)) if !frame.tag.key => {
                reference.picture_id.is_some_and(|referred| {
                    let distance = head.picture_id.wrapping_sub(referred) & 0x7fff;
                    head.diffs.iter().any(|diff| u16::from(*diff) == distance)
                })
            }
            // Between layers: in the same picture.
            (Head::Vp9(head), Some(reference)) => reference.picture_id == Some(head.picture_id),
            _ => true,
        };
        let descriptor = match (&frame.descriptor, reference) {
            (Some(descriptor), Some(reference)) => reference.frame_number.is_some_and(|referred| {
                let distance = descriptor.number.wrapping_sub(referred);
                descriptor.diffs.contains(&distance)
            }),
            (Some(descriptor), None) => descriptor.diffs.is_empty(),
            // What says nothing of references must be of a codec whose payload
            // does.
            (None, _) => match &frame.head {
                Head::Vp8(head) => head.picture_id.is_some(),
                Head::Vp9(_) => true,
                Head::Av1(_) => false,
                Head::H264 => true,
            },
        };
        payload && descriptor
    }

    /// Whether the numbers moved with the frames.
    fn check_progress(&mut self, frame: &Frame, marker: bool, stats: &mut VideoStats) {
        let (picture_id, tl0_pic_idx) = numbers(&frame.head);
        let current = Previous {
            picture: frame.tag.picture,
            picture_id,
            tl0_pic_idx,
            frame_number: frame.descriptor.as_ref().map(|d| d.number),
            timestamp: frame.timestamp,
            marker,
        };
        if let Some(previous) = self.previous.replace(current) {
            let right = current.follows(&previous, frame);
            if !right {
                tracing::debug!(?previous, ?current, tag = ?frame.tag, "numbers out of step");
            }
            stats.misnumbered += u64::from(!right);
        }
    }
}

impl Previous {
    fn follows(&self, before: &Self, frame: &Frame) -> bool {
        let same_picture = frame.tag.spatial > 0 && self.timestamp == before.timestamp;
        let numbered = match (self.frame_number, before.frame_number) {
            (Some(now), Some(before)) => (now.wrapping_sub(before) as i16) > 0,
            _ => true,
        };
        if same_picture {
            return numbered
                && !before.marker
                && self.picture == before.picture
                && self.picture_id == before.picture_id;
        }
        let later = (self.timestamp.wrapping_sub(before.timestamp) as i32) > 0;
        let base = frame.tag.temporal == 0;
        let identified = match (&frame.head, self.picture_id, before.picture_id) {
            // VP8 demands consecutive ids, also where pictures were left out.
            (Head::Vp8(_), Some(now), Some(before)) => now == (before + 1) & 0x7fff,
            (Head::Vp9(_), Some(now), Some(before)) => {
                (1..0x4000).contains(&(now.wrapping_sub(before) & 0x7fff))
            }
            (_, now, before) => now.is_some() == before.is_some(),
        };
        let based = match (self.tl0_pic_idx, before.tl0_pic_idx) {
            (Some(now), Some(before)) => now == before.wrapping_add(u8::from(base)),
            (now, before) => now.is_some() == before.is_some(),
        };
        later && before.marker && numbered && identified && based
    }
}

/// Picture id and TL0PICIDX, where a payload has them.
fn numbers(head: &Head) -> (Option<u16>, Option<u8>) {
    match head {
        Head::Vp8(head) => (head.picture_id, head.tl0_pic_idx),
        Head::Vp9(head) => (Some(head.picture_id), None),
        Head::Av1(_) | Head::H264 => (None, None),
    }
}

fn picture_id(head: &Head) -> Option<u16> {
    numbers(head).0
}

/// Where findings go.
pub(super) struct Sinks<'a> {
    pub(super) stats: &'a mut VideoStats,
    pub(super) mutes: &'a mut Mutes,
    pub(super) heights: &'a mut Heights,
}
