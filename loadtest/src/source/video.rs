//! A camera: simulcast of up to three encodings with three temporal layers
//! each, at the bit rates of Jitsi's clients (media.md: 200, 500, 1500 kbit/s
//! for VP8 at 180, 360, 720 lines).
//!
//! Temporal layers follow the pattern 0 2 1 2 of libwebrtc: a frame of layer 2
//! is predicted from the frame before it, one of layer 1 from the frame two
//! before it, one of layer 0 from the last of layer 0.
//!
//! A frame's packets are spread over the first half of the frame time, as a
//! pacer would, so that receivers and sockets see no artificial bursts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::tag::{Kind, TAG_LEN, Tag};
use super::{Codec, SourcePacket, vp8};

/// 30 frames a second, in nanoseconds so that no drift adds up.
const FRAME_TIME: Duration = Duration::from_nanos(33_333_333);
/// RTP ticks of a frame (90 kHz).
const TICKS: u32 = 3000;
/// Payload octets of a packet, descriptor included: below what libwebrtc's
/// 1200 leave after header, extensions and SRTP.
const MAX_PAYLOAD: usize = 1100;
/// libwebrtc answers no request for a key frame sooner after the last one.
const KEY_FRAME_SPACING: Duration = Duration::from_millis(300);
/// A key frame is that much larger than the mean frame.
const KEY_FRAME_FACTOR: f64 = 5.0;
/// Share of the layers 0, 1, 2 in the octets of a group of four frames, per frame.
const TEMPORAL_WEIGHT: [f64; 3] = [1.6, 1.0, 0.7];

/// One encoding of a simulcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingSpec {
    pub width: u16,
    pub height: u16,
    pub bits_per_second: u32,
}

/// The three encodings of a Jitsi client with a 720p camera.
pub const CAMERA: [EncodingSpec; 3] = [
    EncodingSpec {
        width: 320,
        height: 180,
        bits_per_second: 200_000,
    },
    EncodingSpec {
        width: 640,
        height: 360,
        bits_per_second: 500_000,
    },
    EncodingSpec {
        width: 1280,
        height: 720,
        bits_per_second: 1_500_000,
    },
];

#[derive(Debug)]
struct Encoding {
    spec: EncodingSpec,
    index: u8,
    active: bool,
    needs_key: bool,
    frame: u32,
    /// Frames since the last key frame, which gives the temporal layer.
    since_key: u32,
    last_base: u32,
    picture_id: u16,
    tl0_pic_idx: u8,
    timestamp: u32,
    /// Packets of frames made but not yet sent.
    queue: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    due: Instant,
    tag: Tag,
    descriptor: vp8::Descriptor,
    filler: usize,
    timestamp: u32,
}

/// Source of one camera.
#[derive(Debug)]
pub struct VideoSource {
    run: u32,
    sender: u16,
    codec: Codec,
    rng: SmallRng,
    encodings: Vec<Encoding>,
    next_frame: Instant,
    last_key: Option<Instant>,
    key_wanted: bool,
}

impl VideoSource {
    /// A camera whose encodings are all active.
    pub fn new(
        run: u32,
        sender: u16,
        codec: Codec,
        specs: &[EncodingSpec],
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let encodings = specs
            .iter()
            .zip(0u8..)
            .map(|(spec, index)| Encoding {
                spec: *spec,
                index,
                active: true,
                needs_key: true,
                frame: 0,
                since_key: 0,
                last_base: 0,
                picture_id: rng.random_range(0..0x8000),
                tl0_pic_idx: rng.random(),
                timestamp: rng.random(),
                queue: VecDeque::new(),
            })
            .collect();
        Self {
            run,
            sender,
            codec,
            rng,
            encodings,
            next_frame: now,
            last_key: None,
            key_wanted: false,
        }
    }

    /// Begins to send at `now` with key frames, however long the pause was.
    pub fn resume(&mut self, now: Instant) {
        self.next_frame = self.next_frame.max(now);
        for encoding in &mut self.encodings {
            encoding.needs_key = true;
            encoding.queue.clear();
        }
    }

    /// `SenderSourceConstraints`: encodings above `height` stop, 0 stops all,
    /// any other height keeps the lowest one. Those that start again do so with
    /// a key frame.
    pub fn set_max_height(&mut self, height: i32) {
        for encoding in &mut self.encodings {
            let active = height < 0
                || height > 0 && (encoding.index == 0 || i32::from(encoding.spec.height) <= height);
            if active && !encoding.active {
                encoding.needs_key = true;
            }
            encoding.active = active;
        }
    }

    /// A receiver asked for a key frame (PLI or FIR). As in libwebrtc all
    /// active encodings answer with their next frame.
    pub fn request_key_frame(&mut self) {
        self.key_wanted = true;
    }

    /// When [`Self::poll`] has something again.
    pub fn next_due(&self) -> Instant {
        self.encodings
            .iter()
            .filter_map(|encoding| encoding.queue.front().map(|packet| packet.due))
            .chain([self.next_frame])
            .min()
            .expect("the next frame is always due some time")
    }

    /// One packet that is due at `now`; call again until there is none.
    pub fn poll(&mut self, now: Instant, epoch: Instant) -> Option<SourcePacket> {
        while self.next_frame <= now {
            self.make_frames();
        }
        let encoding = self
            .encodings
            .iter_mut()
            .filter(|encoding| {
                encoding
                    .queue
                    .front()
                    .is_some_and(|packet| packet.due <= now)
            })
            .min_by_key(|encoding| encoding.queue.front().map(|packet| packet.due))?;
        let mut queued = encoding.queue.pop_front()?;
        queued.tag.sent_ns = now.saturating_duration_since(epoch).as_nanos() as u64;
        let mut payload = Vec::with_capacity(MAX_PAYLOAD);
        match self.codec {
            Codec::Vp8 => {
                let size = (encoding.spec.width, encoding.spec.height);
                vp8::write(
                    &queued.descriptor,
                    queued.tag.key.then_some(size),
                    &mut payload,
                );
            }
        }
        queued.tag.write(queued.filler, &mut payload);
        Some(SourcePacket {
            encoding: encoding.index,
            marker: queued.tag.packet + 1 == queued.tag.packets,
            timestamp: queued.timestamp,
            payload,
            audio_level: None,
            key: queued.tag.key,
        })
    }

    fn make_frames(&mut self) {
        let at = self.next_frame;
        self.next_frame += FRAME_TIME;
        let may_key = self
            .last_key
            .is_none_or(|last| at >= last + KEY_FRAME_SPACING);
        if self.key_wanted && may_key {
            self.key_wanted = false;
            for encoding in &mut self.encodings {
                encoding.needs_key = true;
            }
        }
        for encoding in &mut self.encodings {
            encoding.timestamp = encoding.timestamp.wrapping_add(TICKS);
            if !encoding.active {
                continue;
            }
            if encoding.needs_key {
                self.last_key = Some(at);
            }
            let spread = self.rng.random_range(0.8..1.2);
            encoding.make_frame(self.run, self.sender, at, spread);
        }
    }
}

impl Encoding {
    fn make_frame(&mut self, run: u32, sender: u16, at: Instant, spread: f64) {
        let key = std::mem::take(&mut self.needs_key);
        if key {
            self.since_key = 0;
        }
        let (temporal, reference) = match self.since_key % 4 {
            0 => (0, if key { self.frame } else { self.last_base }),
            2 => (1, self.frame.wrapping_sub(2)),
            _ => (2, self.frame.wrapping_sub(1)),
        };
        if temporal == 0 {
            self.last_base = self.frame;
            self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        }
        self.picture_id = (self.picture_id + 1) & 0x7fff;

        let mean = f64::from(self.spec.bits_per_second) / 8.0 * FRAME_TIME.as_secs_f64();
        let factor = if key {
            KEY_FRAME_FACTOR
        } else {
            TEMPORAL_WEIGHT[usize::from(temporal)]
        };
        let size = (mean * factor * spread) as usize;
        // Headers and tag take some 60 octets of each packet.
        let room = MAX_PAYLOAD - 64;
        let packets = size.div_ceil(room).max(1);
        let spacing = FRAME_TIME / 2 / packets as u32;
        let mut left = size;
        for packet in 0..packets {
            let share = left.div_ceil(packets - packet);
            left -= share;
            self.queue.push_back(Queued {
                due: at + spacing * packet as u32,
                tag: Tag {
                    run,
                    sender,
                    kind: Kind::Camera,
                    encoding: self.index,
                    key,
                    temporal,
                    height: self.spec.height,
                    packet: packet as u16,
                    packets: packets as u16,
                    frame: self.frame,
                    reference,
                    sent_ns: 0,
                },
                descriptor: vp8::Descriptor {
                    start: packet == 0,
                    droppable: temporal == 2,
                    picture_id: Some(self.picture_id),
                    tl0_pic_idx: Some(self.tl0_pic_idx),
                    temporal: Some((temporal, temporal > 0 && self.since_key < 4)),
                },
                filler: share.saturating_sub(TAG_LEN),
                timestamp: self.timestamp,
            });
        }
        self.frame = self.frame.wrapping_add(1);
        self.since_key = self.since_key.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: &mut VideoSource, start: Instant, ms: std::ops::Range<u64>) -> Vec<(u8, Tag)> {
        let mut tags = Vec::new();
        for at in ms {
            let now = start + Duration::from_millis(at);
            while let Some(packet) = source.poll(now, start) {
                let parsed = vp8::parse(&packet.payload).expect("VP8");
                let tag = Tag::parse(&packet.payload[parsed.len..]).expect("tagged");
                assert!(packet.payload.len() <= MAX_PAYLOAD);
                assert_eq!(tag.encoding, packet.encoding);
                assert_eq!(parsed.key, (tag.packet == 0).then_some(tag.key));
                assert_eq!(packet.marker, tag.packet + 1 == tag.packets);
                tags.push((packet.encoding, tag));
            }
        }
        tags
    }

    fn camera(start: Instant) -> VideoSource {
        VideoSource::new(7, 3, Codec::Vp8, &CAMERA, 1, start)
    }

    #[test]
    fn rates_are_those_of_a_client() {
        let start = Instant::now();
        let tags = run(&mut camera(start), start, 0..10_000);
        for encoding in 0..3u8 {
            let frames = tags
                .iter()
                .filter(|(e, t)| *e == encoding && t.packet == 0)
                .count();
            assert!((299..=301).contains(&frames), "{frames} frames in 10 s");
        }
        assert_eq!(
            tags.iter()
                .filter(|(_, tag)| tag.key && tag.packet == 0)
                .count(),
            3
        );
    }

    /// Whatever frame is predicted from, it was sent before and in a layer that
    /// is not higher: dropping higher layers leaves the rest decodable.
    #[test]
    fn lower_temporal_layers_stand_alone() {
        let start = Instant::now();
        let tags = run(&mut camera(start), start, 0..3_000);
        for encoding in 0..3u8 {
            let frames: Vec<Tag> = tags
                .iter()
                .filter(|(e, t)| *e == encoding && t.packet == 0)
                .map(|t| t.1)
                .collect();
            for frame in &frames {
                if frame.key {
                    assert_eq!(frame.reference, frame.frame);
                    continue;
                }
                let reference = frames.iter().find(|f| f.frame == frame.reference);
                let reference = reference.expect("predicted from a frame that exists");
                assert!(reference.frame < frame.frame);
                assert!(reference.temporal < frame.temporal || frame.temporal == 0);
            }
        }
    }

    #[test]
    fn a_constraint_stops_encodings_and_lifting_it_brings_a_key_frame() {
        let start = Instant::now();
        let mut source = camera(start);
        run(&mut source, start, 0..1_000);
        source.set_max_height(180);
        run(&mut source, start, 1_000..1_100);
        let limited = run(&mut source, start, 1_100..2_000);
        assert!(limited.iter().all(|(encoding, _)| *encoding == 0));
        source.set_max_height(0);
        run(&mut source, start, 2_000..2_100);
        assert!(run(&mut source, start, 2_100..3_000).is_empty());
        source.set_max_height(720);
        let lifted = run(&mut source, start, 3_000..3_500);
        for encoding in 0..3u8 {
            let first = lifted
                .iter()
                .find(|(e, _)| *e == encoding)
                .expect("sent again");
            assert!(first.1.key && first.1.packet == 0);
        }
    }

    #[test]
    fn requests_for_key_frames_are_answered_and_limited() {
        let start = Instant::now();
        let mut source = camera(start);
        run(&mut source, start, 0..1_000);
        let mut keys = 0;
        for at in (1_000..2_000).step_by(10) {
            source.request_key_frame();
            let tags = run(&mut source, start, at..at + 10);
            keys += tags
                .iter()
                .filter(|(e, t)| *e == 2 && t.key && t.packet == 0)
                .count();
        }
        assert!(
            (3..=4).contains(&keys),
            "{keys} key frames in a second of requests"
        );
    }
}
