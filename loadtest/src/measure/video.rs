//! One video stream as one receiver gets it: packets put in order by their RTP
//! numbers, holes asked for by NACK, frames put together, and each frame held
//! against what a decoder needs.
//!
//! A bridge forwards one encoding at a time under one SSRC and rewrites the
//! numbers. So the numbers must be free of holes that are not losses, a change
//! of encoding must come with a key frame, the frame a picture is predicted
//! from must have been shown, PictureID must advance by one, TL0PICIDX with
//! the base layer, and the timestamp with every picture (media.md §4.3, §4.4).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::delay::Histogram;
use super::{Expected, Gap};
use crate::source::tag::{Tag, TagError};
use crate::source::vp8;

/// A hole older than that is lost: a decoder would have asked for a key frame.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Repeat of a NACK, as libwebrtc does at a round trip below that.
const NACK_REPEAT: Duration = Duration::from_millis(100);
/// Time a packet may be late before it is asked for.
const NACK_DELAY: Duration = Duration::from_millis(10);
/// Larger holes are not repaired but begun behind.
const MAX_HOLE: u64 = 500;
/// Packets held back behind a hole.
const MAX_HELD: usize = 4096;
/// Requests for a key frame come no closer than that.
const KEY_FRAME_REPEAT: Duration = Duration::from_millis(500);
/// Shown frames that are remembered as references.
const MAX_SHOWN: usize = 64;

/// What was found in the stream so far.
#[derive(Clone, Debug, Default)]
pub struct VideoStats {
    /// Packets, those recovered included.
    pub received: u64,
    /// Holes that were never filled, and packets that a frame lacks although
    /// the numbers have no hole.
    pub lost: u64,
    /// Holes filled after a NACK.
    pub recovered: u64,
    pub reordered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    /// Whole frames a decoder could show.
    pub frames: u64,
    pub key_frames: u64,
    /// Whole frames a decoder could not show, for want of their reference.
    pub undecodable: u64,
    /// Changes of the encoding, and those of them without a key frame.
    pub switches: u64,
    pub bad_switches: u64,
    /// PictureID, TL0PICIDX or timestamp not as the previous frame demands.
    pub misnumbered: u64,
    /// Padding-only packets.
    pub padding: u64,
    pub gap: Gap,
    pub delay: Histogram,
    pub first_frame: Option<Instant>,
    /// Height of the last frame shown, and since when it is that.
    pub height: Option<(u16, Instant)>,
    /// Times from asking for a height to the first picture of it.
    pub switch_ms: Vec<f64>,
    /// Heights asked for that never came.
    pub unmet: u64,
}

#[derive(Debug)]
enum Held {
    Packet(Box<Packet>),
    /// Nothing a decoder sees: padding, or content already counted as bad.
    Empty,
}

#[derive(Debug)]
struct Packet {
    tag: Tag,
    descriptor: vp8::Descriptor,
    key: Option<bool>,
    marker: bool,
    timestamp: u32,
    arrival: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    since: Instant,
    asked: Option<Instant>,
}

/// A frame being put together.
#[derive(Debug)]
struct Frame {
    tag: Tag,
    descriptor: vp8::Descriptor,
    timestamp: u32,
    got: u16,
    whole: bool,
}

#[derive(Clone, Copy, Debug)]
struct Previous {
    picture_id: u16,
    tl0_pic_idx: u8,
    timestamp: u32,
}

/// Receiver of one camera.
#[derive(Debug)]
pub struct VideoReceiver {
    expected: Expected,
    ssrc: Option<u32>,
    /// Unwrapped: the next number to hand to the decoder, and the newest seen.
    next: u64,
    newest: u64,
    held: BTreeMap<u64, Held>,
    holes: BTreeMap<u64, Hole>,
    frame: Option<Frame>,
    shown: VecDeque<u32>,
    encoding: Option<u8>,
    previous: Option<Previous>,
    needs_key: bool,
    key_asked: Option<Instant>,
    wanted: Option<(u16, Instant)>,
    pub stats: VideoStats,
}

impl VideoReceiver {
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            ssrc: None,
            next: 0,
            newest: 0,
            held: BTreeMap::new(),
            holes: BTreeMap::new(),
            frame: None,
            shown: VecDeque::new(),
            encoding: None,
            previous: None,
            needs_key: true,
            key_asked: None,
            wanted: None,
            stats: VideoStats::default(),
        }
    }

    /// A packet of the primary SSRC, or one recovered from RTX with its
    /// original number. `payload` is empty for padding.
    pub fn receive(
        &mut self,
        now: Instant,
        epoch: Instant,
        (ssrc, sequence, timestamp, marker): (u32, u16, u32, bool),
        payload: &[u8],
        retransmitted: bool,
    ) {
        if self.ssrc != Some(ssrc) {
            if retransmitted {
                return;
            }
            self.begin(ssrc, u64::from(sequence) + (1 << 32));
        }
        let index = self
            .newest
            .wrapping_add_signed(i64::from(sequence.wrapping_sub(self.newest as u16) as i16));
        if index > self.newest {
            if index - self.newest > MAX_HOLE {
                self.stats.lost += index - self.newest - 1;
                self.abandon();
                self.next = index;
            } else {
                for missing in self.newest + 1..index {
                    self.holes.insert(
                        missing,
                        Hole {
                            since: now,
                            asked: None,
                        },
                    );
                }
            }
            self.newest = index;
        } else if index == self.newest && self.next == index && self.held.is_empty() {
            // The first packet of the stream.
        } else if let Some(hole) = self.holes.remove(&index) {
            if hole.asked.is_some() || retransmitted {
                self.stats.recovered += 1;
            } else {
                self.stats.reordered += 1;
            }
        } else {
            self.stats.duplicate += 1;
            return;
        }
        let repaired = index < self.newest;
        let held = self.read(
            now,
            epoch,
            timestamp,
            marker,
            payload,
            retransmitted || repaired,
        );
        self.held.insert(index, held);
        self.release();
        if self.held.len() > MAX_HELD {
            self.skip_to_held();
        }
    }

    fn begin(&mut self, ssrc: u32, index: u64) {
        self.abandon();
        self.ssrc = Some(ssrc);
        self.next = index;
        self.newest = index;
        self.encoding = None;
        self.previous = None;
        self.stats.gap.pause();
    }

    /// Forgets packets and frames in flight, after a break in the stream.
    fn abandon(&mut self) {
        self.held.clear();
        self.holes.clear();
        self.broken();
        self.shown.clear();
    }

    /// Something is missing for good: the frame at hand is spoilt, and the
    /// fields of the next one cannot be foretold.
    fn broken(&mut self) {
        self.frame = None;
        self.previous = None;
    }

    fn read(
        &mut self,
        now: Instant,
        epoch: Instant,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        late: bool,
    ) -> Held {
        if payload.is_empty() {
            self.stats.padding += 1;
            return Held::Empty;
        }
        let Ok(parsed) = vp8::parse(payload) else {
            self.stats.corrupt += 1;
            return Held::Empty;
        };
        let tag = match Tag::parse(&payload[parsed.len..]) {
            Ok(tag) => tag,
            Err(TagError::Checksum) => {
                self.stats.corrupt += 1;
                return Held::Empty;
            }
            Err(TagError::Magic | TagError::Short(_)) => {
                self.stats.foreign += 1;
                return Held::Empty;
            }
        };
        if !self.expected.matches(&tag) {
            self.stats.foreign += 1;
            return Held::Empty;
        }
        self.stats.received += 1;
        if !late {
            let arrived = now.saturating_duration_since(epoch).as_nanos() as u64;
            self.stats.delay.record(arrived.saturating_sub(tag.sent_ns));
        }
        Held::Packet(Box::new(Packet {
            tag,
            descriptor: parsed.descriptor,
            key: parsed.key,
            marker,
            timestamp,
            arrival: now,
        }))
    }

    fn release(&mut self) {
        while let Some(held) = self.held.remove(&self.next) {
            self.next += 1;
            if let Held::Packet(packet) = held {
                self.assemble(&packet);
            }
        }
    }

    fn skip_to_held(&mut self) {
        let Some(first) = self.held.keys().next().copied() else {
            return;
        };
        let still_open = self.holes.split_off(&first);
        self.stats.lost += self.holes.len() as u64;
        self.holes = still_open;
        self.next = first;
        self.broken();
        self.release();
    }

    fn assemble(&mut self, packet: &Packet) {
        let tag = &packet.tag;
        let same =
            |frame: &Frame| (frame.tag.encoding, frame.tag.frame) == (tag.encoding, tag.frame);
        if !self.frame.as_ref().is_some_and(same) {
            if let Some(cut) = self.frame.take().filter(|frame| frame.whole) {
                // The numbers have no hole, yet the rest of the frame never
                // came: it was dropped by somebody who hid it. A frame cut
                // short by a change of the encoding is allowed (media.md
                // §4.3): there it is closed and a key frame follows.
                if !(tag.key && tag.encoding != cut.tag.encoding) {
                    self.stats.lost += u64::from(cut.tag.packets.saturating_sub(cut.got));
                }
                self.previous = None;
            }
            // After a break the frame may begin in its middle.
            let whole = tag.packet == 0;
            if !whole && self.previous.is_some() {
                self.stats.lost += u64::from(tag.packet);
                self.previous = None;
            }
            self.frame = Some(Frame {
                tag: *tag,
                descriptor: packet.descriptor,
                timestamp: packet.timestamp,
                got: tag.packet,
                whole,
            });
        }
        let frame = self.frame.as_mut().expect("there is one by now");
        if tag.packet != frame.got {
            if frame.whole {
                self.stats.lost += u64::from(tag.packet.abs_diff(frame.got));
            }
            frame.whole = false;
            frame.got = tag.packet;
        }
        frame.got += 1;
        let consistent = packet.timestamp == frame.timestamp
            && packet.descriptor.picture_id == frame.descriptor.picture_id
            && packet.descriptor.tl0_pic_idx == frame.descriptor.tl0_pic_idx
            && packet.marker == (tag.packet + 1 == tag.packets)
            && packet.key == (tag.packet == 0).then_some(tag.key);
        if !consistent {
            self.stats.misnumbered += 1;
        }
        if frame.got >= tag.packets {
            let frame = self.frame.take().expect("held just now");
            if frame.whole {
                self.show(&frame, packet.arrival);
            } else {
                self.needs_key = true;
            }
        }
    }

    fn show(&mut self, frame: &Frame, now: Instant) {
        let tag = &frame.tag;
        self.check_numbers(frame);
        let switched = self
            .encoding
            .is_some_and(|encoding| encoding != tag.encoding);
        if switched {
            self.stats.switches += 1;
            self.stats.bad_switches += u64::from(!tag.key);
            self.shown.clear();
        }
        self.encoding = Some(tag.encoding);
        if tag.key {
            self.needs_key = false;
            self.stats.key_frames += 1;
            self.shown.clear();
        } else if !self.shown.contains(&tag.reference) {
            // A stream may be joined in its middle, where the client learns of
            // the source late; what the first picture takes is measured by itself.
            self.stats.undecodable += u64::from(self.stats.first_frame.is_some());
            tracing::debug!(?tag, shown = ?self.shown.back(), "picture without its reference");
            self.needs_key = true;
            return;
        }
        self.shown.push_back(tag.frame);
        if self.shown.len() > MAX_SHOWN {
            self.shown.pop_front();
        }
        self.stats.frames += 1;
        self.stats.gap.mark(now);
        if self.stats.first_frame.is_none() {
            self.stats.first_frame = Some(now);
        }
        if self
            .stats
            .height
            .is_none_or(|(height, _)| height != tag.height)
        {
            self.stats.height = Some((tag.height, now));
        }
        if let Some((_, since)) = self.wanted.take_if(|(height, _)| *height == tag.height) {
            let took = now.saturating_duration_since(since).as_secs_f64() * 1e3;
            self.stats.switch_ms.push(took);
        }
    }

    fn check_numbers(&mut self, frame: &Frame) {
        let (Some(picture_id), Some(tl0_pic_idx)) =
            (frame.descriptor.picture_id, frame.descriptor.tl0_pic_idx)
        else {
            self.stats.misnumbered += 1;
            return;
        };
        if let Some(previous) = self.previous {
            let base = frame
                .descriptor
                .temporal
                .is_none_or(|(temporal, _)| temporal == 0);
            let as_foretold = picture_id == (previous.picture_id + 1) & 0x7fff
                && tl0_pic_idx == previous.tl0_pic_idx.wrapping_add(u8::from(base))
                && (frame.timestamp.wrapping_sub(previous.timestamp) as i32) > 0;
            self.stats.misnumbered += u64::from(!as_foretold);
        }
        self.previous = Some(Previous {
            picture_id,
            tl0_pic_idx,
            timestamp: frame.timestamp,
        });
    }

    /// Numbers to ask for now, and whether to ask for a key frame. Call every
    /// few milliseconds while packets may come.
    pub fn feedback(&mut self, now: Instant) -> (Vec<u16>, bool) {
        let mut given_up = false;
        while let Some((&index, hole)) = self.holes.first_key_value() {
            if now < hole.since + GIVE_UP {
                break;
            }
            self.holes.remove(&index);
            self.stats.lost += 1;
            given_up = true;
        }
        self.needs_key |= given_up;
        let open = self.holes.keys().next().copied();
        if self
            .held
            .keys()
            .next()
            .is_some_and(|held| open.is_none_or(|open| *held < open))
        {
            // Only holes given up stand before it.
            self.skip_to_held();
        }
        let mut numbers = Vec::new();
        for (index, hole) in &mut self.holes {
            let due = hole
                .asked
                .map_or(hole.since + NACK_DELAY, |asked| asked + NACK_REPEAT);
            if now >= due {
                hole.asked = Some(now);
                numbers.push(*index as u16);
            }
        }
        let ask_key = self.needs_key
            && self.holes.is_empty()
            && self.ssrc.is_some()
            && self
                .key_asked
                .is_none_or(|asked| now >= asked + KEY_FRAME_REPEAT);
        if ask_key {
            // The first request waits, as the stream usually begins with a key
            // frame of its own.
            let first = self.key_asked.is_none();
            self.key_asked = Some(now);
            return (numbers, !first);
        }
        (numbers, false)
    }

    /// A new session begins: numbers may start anew under the same SSRC.
    pub fn restart(&mut self) {
        self.ssrc = None;
    }

    /// The SSRC the packets come on.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// The receiver asked for pictures of that height at `now`.
    pub fn want_height(&mut self, now: Instant, height: u16) {
        self.stats.unmet += u64::from(self.wanted.is_some());
        let shown = self.stats.height.is_some_and(|(shown, _)| shown == height);
        self.wanted = (!shown).then_some((height, now));
    }

    /// The sender stopped at `end`, long enough ago for repairs to have come.
    pub fn close(&mut self, end: Instant) {
        self.stats.lost += self.holes.len() as u64;
        self.holes.clear();
        self.stats.unmet += u64::from(self.wanted.take().is_some());
        self.stats.gap.close(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Codec;
    use crate::source::tag::Kind;
    use crate::source::video::{CAMERA, VideoSource};

    const EXPECTED: Expected = Expected {
        run: 1,
        sender: 0,
        kind: Kind::Camera,
    };

    #[derive(Clone)]
    struct Forwarded {
        sequence: u16,
        timestamp: u32,
        marker: bool,
        payload: Vec<u8>,
        at: Instant,
        encoding: u8,
        key: bool,
    }

    /// Two seconds of one encoding, numbered as a bridge would number it that
    /// forwards nothing else.
    fn forwarded(encoding: u8, start: Instant) -> Vec<Forwarded> {
        let mut source = VideoSource::new(1, 0, Codec::Vp8, &CAMERA, 3, start);
        let mut sequence = 65_000u16;
        let mut packets = Vec::new();
        for ms in 0..2_000 {
            let at = start + Duration::from_millis(ms);
            while let Some(packet) = source.poll(at, start) {
                if packet.encoding != encoding {
                    continue;
                }
                packets.push(Forwarded {
                    sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload: packet.payload,
                    at,
                    encoding,
                    key: packet.key,
                });
                sequence = sequence.wrapping_add(1);
            }
        }
        packets
    }

    fn receive(receiver: &mut VideoReceiver, packet: &Forwarded, late: Duration, start: Instant) {
        let fields = (9, packet.sequence, packet.timestamp, packet.marker);
        receiver.receive(packet.at + late, start, fields, &packet.payload, false);
    }

    fn judged(packets: &[Forwarded], start: Instant) -> VideoStats {
        let mut receiver = VideoReceiver::new(EXPECTED);
        for packet in packets {
            receive(&mut receiver, packet, Duration::ZERO, start);
            receiver.feedback(packet.at);
        }
        let end = packets.last().expect("some").at;
        receiver.feedback(end + GIVE_UP * 2);
        receiver.close(end);
        receiver.stats
    }

    #[test]
    fn a_clean_stream_is_shown_whole() {
        let start = Instant::now();
        let packets = forwarded(2, start);
        let stats = judged(&packets, start);
        assert_eq!(stats.received, packets.len() as u64);
        assert_eq!((stats.lost, stats.reordered, stats.misnumbered), (0, 0, 0));
        assert_eq!((stats.undecodable, stats.key_frames), (0, 1));
        // The last frame may still be on its way.
        assert!((59..=60).contains(&stats.frames), "{} frames", stats.frames);
        assert_eq!(stats.height.map(|(height, _)| height), Some(720));
    }

    #[test]
    fn a_hole_is_asked_for_and_its_repair_restores_everything() {
        let start = Instant::now();
        let mut packets = forwarded(2, start);
        let lost = packets.remove(100);
        let mut receiver = VideoReceiver::new(EXPECTED);
        let mut asked = Vec::new();
        for packet in &packets {
            receive(&mut receiver, packet, Duration::ZERO, start);
            let (numbers, _) = receiver.feedback(packet.at);
            if numbers.contains(&lost.sequence) && asked.is_empty() {
                let fields = (9, lost.sequence, lost.timestamp, lost.marker);
                receiver.receive(packet.at, start, fields, &lost.payload, true);
            }
            asked.extend(numbers);
        }
        assert_eq!(asked, [lost.sequence]);
        let stats = &receiver.stats;
        assert_eq!((stats.lost, stats.recovered, stats.reordered), (0, 1, 0));
        assert_eq!((stats.undecodable, stats.misnumbered), (0, 0));
    }

    #[test]
    fn a_hole_that_stays_is_lost_and_asks_for_a_key_frame() {
        let start = Instant::now();
        let mut packets = forwarded(2, start);
        packets.remove(30);
        let mut receiver = VideoReceiver::new(EXPECTED);
        let mut wants_key = false;
        for packet in &packets {
            receive(&mut receiver, packet, Duration::ZERO, start);
        }
        let end = packets.last().expect("some").at;
        for ms in (0..4_000).step_by(50) {
            wants_key |= receiver.feedback(end + Duration::from_millis(ms)).1;
        }
        receiver.close(end);
        assert_eq!(receiver.stats.lost, 1);
        assert!(wants_key);
    }

    #[test]
    fn late_packets_are_reordered_and_repeated_ones_counted() {
        let start = Instant::now();
        let mut packets = forwarded(1, start);
        packets.swap(50, 51);
        let again = packets[60].clone();
        packets.insert(62, again);
        let stats = judged(&packets, start);
        assert_eq!((stats.lost, stats.reordered, stats.duplicate), (0, 1, 1));
        assert_eq!((stats.undecodable, stats.misnumbered), (0, 0));
    }

    /// A packet that somebody dropped and hid by renumbering.
    #[test]
    fn a_hidden_hole_is_found() {
        let start = Instant::now();
        let mut packets = forwarded(2, start);
        packets.remove(100);
        for packet in &mut packets[100..] {
            packet.sequence = packet.sequence.wrapping_sub(1);
        }
        assert!(judged(&packets, start).lost >= 1);
    }

    /// A change of encoding that comes on a delta frame.
    #[test]
    fn a_switch_without_a_key_frame_is_found() {
        let start = Instant::now();
        let low = forwarded(0, start);
        let high = forwarded(2, start);
        let at = start + Duration::from_millis(1_000);
        let mut packets: Vec<_> = low.into_iter().filter(|p| p.at < at).collect();
        let next = packets.last().expect("some").sequence.wrapping_add(1);
        let rest = high.into_iter().filter(|p| p.at >= at).collect::<Vec<_>>();
        let boundary = rest.iter().position(|p| p.marker).expect("a frame") + 1;
        for (number, mut packet) in (0u16..).zip(rest.into_iter().skip(boundary)) {
            packet.sequence = next.wrapping_add(number);
            assert!(packet.encoding == 2 && !packet.key);
            packets.push(packet);
        }
        let stats = judged(&packets, start);
        assert_eq!((stats.switches, stats.bad_switches), (1, 1));
        assert!(stats.undecodable > 0);
    }

    /// Temporal layers may be dropped if the numbers close up.
    #[test]
    fn a_dropped_temporal_layer_is_fine_if_the_numbers_close_up() {
        let start = Instant::now();
        let mut sequence = 0u16;
        let mut picture_id = None;
        let mut kept = Vec::new();
        for mut packet in forwarded(0, start) {
            let parsed = vp8::parse(&packet.payload).expect("VP8");
            let tag = Tag::parse(&packet.payload[parsed.len..]).expect("tagged");
            if tag.temporal == 2 {
                continue;
            }
            let next = match picture_id {
                None => parsed.descriptor.picture_id.expect("has one"),
                Some(id) if tag.packet == 0 => (id + 1) & 0x7fff,
                Some(id) => id,
            };
            picture_id = Some(next);
            packet.payload[2..4].copy_from_slice(&(next | 0x8000).to_be_bytes());
            packet.sequence = sequence;
            sequence += 1;
            kept.push(packet);
        }
        let stats = judged(&kept, start);
        assert_eq!(
            (stats.lost, stats.undecodable, stats.misnumbered),
            (0, 0, 0)
        );
        assert!(stats.frames >= 29);
    }

    #[test]
    fn the_time_to_a_height_is_measured() {
        let start = Instant::now();
        let mut receiver = VideoReceiver::new(EXPECTED);
        receiver.want_height(start, 180);
        for packet in &forwarded(0, start) {
            receive(&mut receiver, packet, Duration::from_millis(40), start);
        }
        let end = start + Duration::from_secs(2);
        receiver.want_height(end, 180);
        receiver.want_height(end, 720);
        receiver.close(end);
        let took = receiver.stats.switch_ms.as_slice();
        assert!(
            matches!(took, [ms] if (40.0..80.0).contains(ms)),
            "{took:?}"
        );
        assert_eq!(receiver.stats.unmet, 1);
    }

    #[test]
    fn content_of_others_is_foreign() {
        let start = Instant::now();
        let packets = forwarded(0, start);
        let mut receiver = VideoReceiver::new(Expected {
            sender: 1,
            ..EXPECTED
        });
        for packet in &packets {
            receive(&mut receiver, packet, Duration::ZERO, start);
        }
        assert_eq!(receiver.stats.foreign, packets.len() as u64);
        assert_eq!(receiver.stats.frames, 0);
    }
}
