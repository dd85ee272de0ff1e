//! A camera or a shared screen, as Jitsi's clients send them.
//!
//! VP8 and H264 are simulcast: up to three streams of one spatial layer each.
//! VP9 and AV1 are K-SVC: one stream of up to three spatial layers, of which
//! only key pictures predict from the layer below (L3T3_KEY). Either way each
//! spatial layer has three temporal ones in libwebrtc's pattern 0 2 1 2: a frame
//! of layer 2 is predicted from the picture before it, one of layer 1 from the
//! picture two before it, one of layer 0 from the last of layer 0.
//!
//! How large pictures are and when their packets go, a [`Profile`] says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::dependency_descriptor::{Described, Describer, Frame, Structure};
use super::tag::{Kind, TAG_LEN, Tag};
use super::{Codec, Extension, SourcePacket, av1, h264, vp8, vp9};

/// RTP ticks of a second.
const CLOCK: u64 = 90_000;
/// Payload octets of a packet, its head included: below what libwebrtc's 1200
/// leave after header, extensions and SRTP.
const MAX_PAYLOAD: usize = 1100;
/// What the head of a payload may take of it.
const MAX_HEAD: usize = 40;
/// libwebrtc answers no request for a key frame sooner after the last one.
const KEY_FRAME_SPACING: Duration = Duration::from_millis(300);
/// A key frame is that much larger than the mean frame.
const KEY_FRAME_FACTOR: f64 = 5.0;
/// Share of the temporal layers 0, 1, 2 in the octets of a group of four
/// pictures, per picture.
const TEMPORAL_WEIGHT: [f64; 3] = [1.6, 1.0, 0.7];

/// Time between packets of [`Profile::Even`], and between those of
/// [`Profile::Real`] that do not leave together.
const EVEN_GAP: Duration = Duration::from_millis(2);
const REAL_GAP: Duration = Duration::from_millis(1);
/// Payload octets of a packet of [`Profile::Even`], head apart: 1500 kbit/s at 30
/// pictures a second make six packets.
const EVEN_PAYLOAD: usize = 1060;
/// Packets of [`Profile::Real`] that leave together.
const BURST: usize = 3;

/// Sizes of pictures, and the times of their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Pictures of about a real encoder's sizes, whose packets are spread over
    /// half of the picture's time, so that sockets see no bursts.
    Spread,
    /// As recorded of Chromium: pictures of an encoder's sizes, key pictures
    /// large; packets of a picture differ by an octet, the larger ones last, and
    /// leave within a few milliseconds.
    Real,
    /// Every picture of a layer alike, in equal packets 2 ms apart, those of
    /// lower layers first: the load that servers are compared under.
    Even,
}

/// One spatial layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub width: u16,
    pub height: u16,
    pub bits_per_second: u32,
}

const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];

/// What a source shows, and how it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub kind: Kind,
    pub codec: Codec,
    /// Pictures a second.
    pub rate: u32,
    /// From the lowest up; those of a simulcast that are never sent included.
    pub layers: Vec<Layer>,
    /// The lowest one that is ever sent.
    pub lowest: u8,
    /// Whether layers are said in dependency descriptors, as by Chromium, or
    /// only in payloads, as by clients without that extension.
    pub descriptors: bool,
    pub profile: Profile,
}

impl Picture {
    /// A camera of 720 lines, with the bit rates of Jitsi's clients
    /// (media.md §2) for each layer by itself.
    pub fn camera(codec: Codec, descriptors: bool) -> Self {
        let kilobits: [u32; 3] = match codec {
            Codec::Vp8 => [200, 500, 1500],
            Codec::H264 => [400, 800, 2000],
            Codec::Vp9 => [100, 200, 900],
            Codec::Av1 => [100, 200, 700],
        };
        let layers = SIZES.iter().zip(kilobits).map(|(size, kilobits)| Layer {
            width: size.0,
            height: size.1,
            bits_per_second: kilobits * 1000,
        });
        Self {
            kind: Kind::Camera,
            codec,
            rate: 30,
            layers: layers.collect(),
            lowest: 0,
            descriptors,
            profile: Profile::Spread,
        }
    }

    /// A shared screen at 5 pictures a second: only the top layer is sent, of a
    /// simulcast the others stay silent.
    pub fn desktop(codec: Codec, descriptors: bool) -> Self {
        let mut picture = Self {
            kind: Kind::Desktop,
            rate: 5,
            ..Self::camera(codec, descriptors)
        };
        for layer in &mut picture.layers {
            layer.bits_per_second = 1_000_000;
        }
        if codec.is_svc() {
            picture.layers.drain(..2);
        } else {
            picture.lowest = 2;
        }
        picture
    }

    /// The same with other sizes and times of packets.
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Streams that are signalled: clients signal three for every codec.
    pub fn streams(&self) -> usize {
        SIZES.len()
    }

    /// The height that a receiver gets who asks for `height`; `None` if none.
    pub fn height_for(&self, height: u16) -> Option<u16> {
        let sent = &self.layers[usize::from(self.lowest)..];
        let fits = |layer: &&Layer| layer.height <= height;
        match height {
            0 => None,
            _ => sent.iter().rfind(fits).or(sent.first()).map(|l| l.height),
        }
    }

    fn frame_time(&self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.rate))
    }
}

/// One RTP stream: a simulcast encoding, or all layers of an SVC.
#[derive(Debug)]
struct Stream {
    index: u8,
    /// Index of its lowest layer in [`Picture::layers`].
    first_layer: usize,
    /// Spatial layers sent now; 0 for none.
    active: u8,
    needs_key: bool,
    picture: u32,
    /// Pictures since the last key picture, which gives the temporal layer.
    since_key: u32,
    last_base: u32,
    picture_id: u16,
    tl0_pic_idx: u8,
    timestamp: u32,
    describer: Option<Describer>,
    /// Frame numbers of the newest pictures, by picture and spatial layer.
    numbers: VecDeque<(u32, u8, u16)>,
    queue: VecDeque<Queued>,
}

#[derive(Debug)]
enum Head {
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
    Av1 { key: bool },
    H264,
}

#[derive(Debug)]
struct Queued {
    due: Instant,
    tag: Tag,
    head: Arc<Head>,
    described: Option<Arc<Described>>,
    filler: usize,
    timestamp: u32,
    /// Last packet of its picture.
    marker: bool,
}

/// Source of one camera or screen.
#[derive(Debug)]
pub struct VideoSource {
    run: u32,
    sender: u16,
    what: Picture,
    rng: SmallRng,
    streams: Vec<Stream>,
    started: Instant,
    /// Pictures' times passed since `started`, also those without a picture.
    slots: u64,
    last_key: Option<Instant>,
    key_wanted: bool,
    frame_number: u16,
    paused: bool,
}

impl VideoSource {
    /// A source whose layers are all active.
    pub fn new(run: u32, sender: u16, what: Picture, seed: u64, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = if what.codec.is_svc() {
            1
        } else {
            what.layers.len()
        };
        let streams = (0..count)
            .map(|index| Stream {
                index: index as u8,
                first_layer: index,
                active: 0,
                needs_key: true,
                picture: 0,
                since_key: 0,
                last_base: 0,
                picture_id: rng.random_range(0..0x8000),
                tl0_pic_idx: rng.random(),
                timestamp: rng.random(),
                describer: None,
                numbers: VecDeque::new(),
                queue: VecDeque::new(),
            })
            .collect();
        let mut source = Self {
            run,
            sender,
            what,
            rng,
            streams,
            started: now,
            slots: 0,
            last_key: None,
            key_wanted: false,
            frame_number: 0,
            paused: false,
        };
        source.set_max_height(-1);
        source
    }

    /// What it shows.
    pub fn picture(&self) -> &Picture {
        &self.what
    }

    /// Makes no more pictures; those it has begun it still sends to their end.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Begins to send at `now` with key frames, however long the pause was: the
    /// RTP clock goes on in it.
    pub fn resume(&mut self, now: Instant) {
        let time = self.what.frame_time();
        while self.started + time * (self.slots as u32) < now {
            self.slots += 1;
        }
        self.paused = false;
        for stream in &mut self.streams {
            stream.needs_key = true;
            stream.queue.clear();
        }
    }

    /// `SenderSourceConstraints`: layers above `height` stop, 0 stops all, any
    /// other height keeps the lowest one. Those that start again do so with a
    /// key frame.
    pub fn set_max_height(&mut self, height: i32) {
        let layers = &self.what.layers;
        let lowest = usize::from(self.what.lowest);
        let allowed = layers
            .iter()
            .filter(|layer| height < 0 || i32::from(layer.height) <= height)
            .count();
        let allowed = if height == 0 {
            0
        } else {
            allowed.max(lowest + 1)
        };
        for stream in &mut self.streams {
            let active = match self.what.codec.is_svc() {
                true => allowed,
                false => usize::from((lowest..allowed).contains(&stream.first_layer)),
            };
            if active as u8 != stream.active {
                stream.active = active as u8;
                stream.needs_key = true;
            }
        }
    }

    /// PLI or FIR for any stream: all of them make a key frame.
    pub fn request_key_frame(&mut self) {
        self.key_wanted = true;
    }

    /// When [`Self::poll`] has something again.
    pub fn next_due(&self) -> Option<Instant> {
        let queued = self.streams.iter().filter_map(|s| s.queue.front());
        let next = (!self.paused).then(|| self.next_frame());
        queued.map(|queued| queued.due).chain(next).min()
    }

    fn next_frame(&self) -> Instant {
        self.started + self.what.frame_time() * (self.slots as u32)
    }

    /// A packet that is due at `now`, if any. Call until `None`.
    pub fn poll(&mut self, now: Instant, epoch: Instant) -> Option<SourcePacket> {
        while !self.paused && now >= self.next_frame() {
            self.make_pictures();
        }
        let due = |stream: &&mut Stream| stream.queue.front().is_some_and(|q| q.due <= now);
        let stream = self.streams.iter_mut().find(due)?;
        let mut queued = stream.queue.pop_front()?;
        queued.tag.sent_ns = now.saturating_duration_since(epoch).as_nanos() as u64;
        let tag = &queued.tag;
        let (start, end) = (tag.packet == 0, tag.packet + 1 == tag.packets);
        let layer = stream.first_layer as u8 + tag.spatial;
        let mut payload = Vec::with_capacity(MAX_PAYLOAD);
        match &*queued.head {
            Head::Vp8(descriptor) => {
                let layer = &self.what.layers[stream.first_layer];
                let size = (layer.width, layer.height);
                let descriptor = vp8::Descriptor {
                    start,
                    ..*descriptor
                };
                vp8::write(&descriptor, tag.key.then_some(size), &mut payload);
            }
            Head::Vp9(descriptor) => {
                let mut descriptor = vp9::Descriptor {
                    start,
                    end,
                    ..descriptor.clone()
                };
                if !start {
                    descriptor.sizes.clear();
                }
                vp9::write(&descriptor, &mut payload);
            }
            Head::Av1 { key } => {
                let header = av1::Header {
                    start,
                    end,
                    key: *key && start,
                    spatial: tag.spatial,
                    temporal: tag.temporal,
                };
                av1::write(&header, &mut payload);
            }
            Head::H264 => {
                let header = h264::Header {
                    start,
                    end,
                    key: tag.key,
                    temporal: tag.temporal,
                };
                let content = TAG_LEN + queued.filler;
                h264::write(&header, tag.packet, content, &mut payload);
            }
        }
        queued.tag.write(queued.filler, &mut payload);
        Some(SourcePacket {
            encoding: stream.index,
            layer,
            marker: queued.marker,
            timestamp: queued.timestamp,
            payload,
            extension: queued.described.map_or(Extension::None, |described| {
                Extension::DependencyDescriptor(described.packet(start, end))
            }),
            key: queued.tag.key,
        })
    }

    fn make_pictures(&mut self) {
        let at = self.next_frame();
        let elapsed = self.slots * CLOCK / u64::from(self.what.rate);
        self.slots += 1;
        let may_key = self
            .last_key
            .is_none_or(|last| at >= last + KEY_FRAME_SPACING);
        if self.key_wanted && may_key {
            self.key_wanted = false;
            for stream in &mut self.streams {
                stream.needs_key = true;
            }
        }
        // Packets of one picture, so far, over all streams.
        let mut before = 0;
        for stream in &mut self.streams {
            if stream.active == 0 {
                continue;
            }
            if stream.needs_key {
                self.last_key = Some(at);
            }
            let spread = self.rng.random_range(0.8..1.2);
            let mut maker = PictureMaker {
                before: &mut before,
                run: self.run,
                sender: self.sender,
                what: &self.what,
                frame_number: &mut self.frame_number,
                timestamp: stream.timestamp.wrapping_add(elapsed as u32),
                spread,
            };
            maker.make(stream, at);
        }
    }
}

/// What a stream's next picture is made with.
struct PictureMaker<'a> {
    before: &'a mut usize,
    run: u32,
    sender: u16,
    what: &'a Picture,
    frame_number: &'a mut u16,
    timestamp: u32,
    /// Factor on its size.
    spread: f64,
}

impl PictureMaker<'_> {
    fn make(&mut self, stream: &mut Stream, at: Instant) {
        let key = std::mem::take(&mut stream.needs_key);
        if key {
            stream.since_key = 0;
            stream.numbers.clear();
            self.restructure(stream);
        }
        let picture = stream.picture;
        let (temporal, reference) = match stream.since_key % 4 {
            0 => (0, if key { picture } else { stream.last_base }),
            2 => (1, picture.wrapping_sub(2)),
            _ => (2, picture.wrapping_sub(1)),
        };
        if temporal == 0 {
            stream.last_base = picture;
            stream.tl0_pic_idx = stream.tl0_pic_idx.wrapping_add(1);
        }
        stream.picture_id = (stream.picture_id + 1) & 0x7fff;
        let time = self.what.frame_time() / 2 / u32::from(stream.active);
        for spatial in 0..stream.active {
            let tag = Tag {
                run: self.run,
                sender: self.sender,
                kind: self.what.kind,
                encoding: stream.index,
                key,
                temporal,
                spatial,
                reference_spatial: if key {
                    spatial.saturating_sub(1)
                } else {
                    spatial
                },
                height: self.layer(stream, spatial).height,
                packet: 0,
                packets: 0,
                picture,
                reference,
                sent_ns: 0,
            };
            self.make_frame(stream, &tag, (at, at + time * u32::from(spatial)), time);
        }
        if let Some(last) = stream.queue.back_mut() {
            last.marker = true;
        }
        stream.picture = stream.picture.wrapping_add(1);
        stream.since_key = stream.since_key.wrapping_add(1);
    }

    fn layer(&self, stream: &Stream, spatial: u8) -> &Layer {
        &self.what.layers[stream.first_layer + usize::from(spatial)]
    }

    /// The template structure of the layers that are active from now on.
    fn restructure(&self, stream: &mut Stream) {
        if !self.what.descriptors {
            return;
        }
        let sizes: Vec<(u16, u16)> = self.what.layers[stream.first_layer..]
            .iter()
            .map(|layer| (layer.width, layer.height))
            .collect();
        // libwebrtc keeps the structure when only the top layers are off.
        let layers = match stream.active {
            1 => 1,
            _ => sizes.len(),
        };
        let sizes = &sizes[..layers];
        let structure = match self.what.codec {
            Codec::Vp8 => Structure::vp8(sizes[0]),
            Codec::H264 => Structure::key_svc(1, &[]),
            Codec::Vp9 | Codec::Av1 => Structure::key_svc(layers as u8, sizes),
        };
        match &mut stream.describer {
            Some(describer) => describer.change(structure, stream.active),
            None => stream.describer = Some(Describer::new(structure, stream.active)),
        }
    }

    fn describe(&mut self, stream: &mut Stream, tag: &Tag) -> Option<Described> {
        let describer = stream.describer.as_mut()?;
        // One counter for all streams of a source, as in libwebrtc.
        *self.frame_number = self.frame_number.wrapping_add(1);
        let number = *self.frame_number;
        let reference = (tag.reference, tag.reference_spatial);
        let diffs = stream
            .numbers
            .iter()
            .filter(|(picture, spatial, _)| !tag.is_intra() && (*picture, *spatial) == reference)
            .map(|(_, _, referred)| number.wrapping_sub(*referred))
            .collect();
        stream.numbers.push_back((tag.picture, tag.spatial, number));
        if stream.numbers.len() > 5 * usize::from(stream.active) {
            stream.numbers.pop_front();
        }
        Some(describer.describe(&Frame {
            number,
            spatial: tag.spatial,
            temporal: tag.temporal,
            key: tag.key,
            diffs,
        }))
    }

    fn head(&self, stream: &Stream, tag: &Tag) -> Head {
        match self.what.codec {
            // With dependency descriptors Chromium leaves the fields out.
            Codec::Vp8 => Head::Vp8(vp8::Descriptor {
                start: false,
                droppable: tag.temporal == 2,
                picture_id: (!self.what.descriptors).then_some(stream.picture_id),
                tl0_pic_idx: (!self.what.descriptors).then_some(stream.tl0_pic_idx),
                temporal: (!self.what.descriptors)
                    .then_some((tag.temporal, tag.temporal > 0 && stream.since_key < 4)),
            }),
            Codec::Vp9 => Head::Vp9(vp9::Descriptor {
                picture_id: stream.picture_id,
                spatial: tag.spatial,
                temporal: tag.temporal,
                inter_layer: tag.key && tag.spatial > 0,
                diffs: match tag.key {
                    true => Vec::new(),
                    false => vec![tag.picture.wrapping_sub(tag.reference) as u8],
                },
                not_a_reference: !tag.key || tag.spatial + 1 == stream.active,
                sizes: match tag.is_intra() {
                    true => self.what.layers[..usize::from(stream.active)]
                        .iter()
                        .map(|layer| (layer.width, layer.height))
                        .collect(),
                    false => Vec::new(),
                },
                ..vp9::Descriptor::default()
            }),
            Codec::Av1 => Head::Av1 {
                key: tag.is_intra(),
            },
            Codec::H264 => Head::H264,
        }
    }

    /// Queues a frame's packets: `start` is when the picture's time begins, `at`
    /// when the frame's part of it does, which lasts `time`.
    fn make_frame(
        &mut self,
        stream: &mut Stream,
        tag: &Tag,
        (start, at): (Instant, Instant),
        time: Duration,
    ) {
        let head = Arc::new(self.head(stream, tag));
        let described = self.describe(stream, tag).map(Arc::new);
        let bits = self.layer(stream, tag.spatial).bits_per_second;
        let mean = f64::from(bits) / 8.0 / f64::from(self.what.rate);
        let factor = match self.what.profile {
            Profile::Even => 1.0,
            Profile::Spread | Profile::Real if tag.key => KEY_FRAME_FACTOR * self.spread,
            Profile::Spread | Profile::Real => {
                TEMPORAL_WEIGHT[usize::from(tag.temporal)] * self.spread
            }
        };
        let size = (mean * factor) as usize;
        let room = match self.what.profile {
            Profile::Even => EVEN_PAYLOAD,
            Profile::Spread | Profile::Real => MAX_PAYLOAD - TAG_LEN - MAX_HEAD,
        };
        let packets = size.div_ceil(room).max(1);
        let mut left = size;
        for packet in 0..packets {
            let share = match self.what.profile {
                Profile::Spread => left.div_ceil(packets - packet),
                Profile::Even => size / packets,
                // As libwebrtc divides: what is over goes to the last ones.
                Profile::Real => left / (packets - packet),
            };
            left -= share;
            let number = *self.before + packet;
            let due = match self.what.profile {
                Profile::Spread => at + time / packets as u32 * packet as u32,
                Profile::Even => start + EVEN_GAP * number as u32,
                Profile::Real => start + REAL_GAP * (number / BURST) as u32,
            };
            stream.queue.push_back(Queued {
                due,
                tag: Tag {
                    packet: packet as u16,
                    packets: packets as u16,
                    ..*tag
                },
                head: head.clone(),
                described: described.clone(),
                filler: share.saturating_sub(TAG_LEN),
                timestamp: self.timestamp,
                marker: false,
            });
        }
        *self.before += packets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::dependency_descriptor::DescriptorReader;
    use crate::source::payload::Payload;

    const CODECS: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];

    /// Packets of a time, with what of them the receiver can tell.
    fn run(source: &mut VideoSource, start: Instant, ms: std::ops::Range<u64>) -> Vec<(u8, Tag)> {
        let mut tags = Vec::new();
        for at in ms {
            let now = start + Duration::from_millis(at);
            while let Some(packet) = source.poll(now, start) {
                let codec = source.picture().codec;
                let payload = Payload::parse(codec, &packet.payload).expect("one of ours");
                let tag = payload.tag;
                assert!(packet.payload.len() <= MAX_PAYLOAD);
                assert_eq!(tag.encoding, packet.encoding);
                assert!(payload.is_consistent(), "{payload:?}");
                tags.push((packet.encoding, tag));
            }
        }
        tags
    }

    fn camera(codec: Codec, start: Instant) -> VideoSource {
        VideoSource::new(7, 3, Picture::camera(codec, true), 1, start)
    }

    /// The layers of a tag among all: encoding or spatial layer.
    fn layer(encoding: u8, tag: &Tag) -> u8 {
        encoding + tag.spatial
    }

    /// Packets of the given profile: when, of which encoding, of which picture,
    /// how many octets.
    fn sizes(profile: Profile, kilobits: [u32; 3]) -> Vec<(u64, u8, u32, usize)> {
        let start = Instant::now();
        let mut picture = Picture::camera(Codec::Vp8, false).with_profile(profile);
        for (layer, kilobits) in picture.layers.iter_mut().zip(kilobits) {
            layer.bits_per_second = kilobits * 1000;
        }
        let mut source = VideoSource::new(7, 3, picture, 1, start);
        let mut packets = Vec::new();
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            while let Some(packet) = source.poll(now, start) {
                let payload = Payload::parse(Codec::Vp8, &packet.payload).expect("one of ours");
                // The descriptor's four octets and, on the first packet, the frame's.
                let frame = match (payload.tag.packet, payload.tag.key) {
                    (0, true) => 10,
                    (0, false) => 3,
                    _ => 0,
                };
                let size = packet.payload.len() - frame - 6;
                packets.push((ms, packet.encoding, payload.tag.picture, size));
            }
        }
        packets
    }

    /// What servers are compared under: 1 + 2 + 6 packets a picture, 2 ms apart.
    #[test]
    fn even_pictures_are_all_alike() {
        let packets = sizes(Profile::Even, [150, 500, 1500]);
        assert_eq!(packets.len(), 30 * 9);
        for picture in packets.chunks(9) {
            let begin = picture[0].0;
            for (number, packet) in picture.iter().enumerate() {
                assert!(packet.0.abs_diff(begin + 2 * number as u64) <= 1);
            }
            let encodings: Vec<u8> = picture.iter().map(|packet| packet.1).collect();
            assert_eq!(encodings, [0, 1, 1, 2, 2, 2, 2, 2, 2]);
            assert!(
                picture
                    .iter()
                    .all(|p| p.3 == [625, 1041, 1041][usize::from(p.1)])
            );
        }
    }

    /// As recorded: packets of a picture differ by an octet at most, the larger
    /// ones come last, pictures differ, and key pictures are large.
    #[test]
    fn real_pictures_are_divided_as_an_encoder_does() {
        let packets = sizes(Profile::Real, [200, 500, 1500]);
        let top: Vec<_> = packets.iter().filter(|packet| packet.1 == 2).collect();
        let picture = |wanted: u32| -> Vec<usize> {
            let of = top.iter().filter(|packet| packet.2 == wanted);
            of.map(|packet| packet.3).collect()
        };
        let mut totals = Vec::new();
        for number in 0..30 {
            let sizes = picture(number);
            assert!(
                sizes.is_sorted() && sizes[sizes.len() - 1] - sizes[0] <= 1,
                "{sizes:?}"
            );
            totals.push(sizes.iter().sum::<usize>());
        }
        assert!(totals[0] > 3 * totals[1]);
        totals.sort_unstable();
        totals.dedup();
        assert!(totals.len() > 20);
        assert!((0..30).any(|number| {
            let p = picture(number);
            p[0] != p[p.len() - 1]
        }));
    }

    #[test]
    fn rates_are_those_of_a_client() {
        for codec in CODECS {
            let start = Instant::now();
            let tags = run(&mut camera(codec, start), start, 0..10_000);
            for wanted in 0..3u8 {
                let frames = tags
                    .iter()
                    .filter(|(e, t)| layer(*e, t) == wanted && t.packet == 0)
                    .count();
                assert!((299..=301).contains(&frames), "{frames} frames in 10 s");
            }
            let keys = tags.iter().filter(|(_, t)| t.key && t.packet == 0);
            assert_eq!(keys.count(), 3);
        }
    }

    /// Whatever a frame is predicted from, it was sent before and in a layer
    /// that is not higher: dropping higher layers leaves the rest decodable.
    /// Between key pictures no spatial layer needs another.
    #[test]
    fn lower_layers_stand_alone() {
        for codec in CODECS {
            let start = Instant::now();
            let tags = run(&mut camera(codec, start), start, 0..3_000);
            for encoding in 0..3u8 {
                let frames: Vec<Tag> = tags
                    .iter()
                    .filter(|(e, t)| *e == encoding && t.packet == 0)
                    .map(|t| t.1)
                    .collect();
                for (index, frame) in frames.iter().enumerate() {
                    if frame.is_intra() {
                        assert_eq!(frame.reference, frame.picture);
                        continue;
                    }
                    let reference = frames[..index]
                        .iter()
                        .find(|f| {
                            (f.picture, f.spatial) == (frame.reference, frame.reference_spatial)
                        })
                        .expect("predicted from a frame that was sent before");
                    assert!(reference.temporal < frame.temporal || frame.temporal == 0);
                    assert_eq!(reference.spatial == frame.spatial, !frame.key);
                }
            }
        }
    }

    /// The distances in payload and dependency descriptors lead to the frame
    /// that the tag names, also with layers switched off and on.
    #[test]
    fn descriptors_name_the_reference() {
        for (codec, heights) in CODECS
            .into_iter()
            .flat_map(|c| [(c, [720, 360]), (c, [180, 720])])
        {
            let start = Instant::now();
            let mut source = camera(codec, start);
            let mut readers = [const { None::<DescriptorReader> }; 3];
            let mut frames = std::collections::BTreeMap::new();
            let (mut markers, mut pictures) = (0, std::collections::BTreeSet::new());
            for ms in 0..4_000 {
                source.set_max_height(heights[usize::from(ms / 500 % 2 == 1)]);
                let now = start + Duration::from_millis(ms);
                while let Some(packet) = source.poll(now, start) {
                    let tag = Payload::parse(codec, &packet.payload).expect("ours").tag;
                    let Extension::DependencyDescriptor(octets) = &packet.extension else {
                        panic!("no descriptor");
                    };
                    let reader = readers[usize::from(packet.encoding)].get_or_insert_default();
                    let said = reader.read(octets).expect("a descriptor");
                    assert_eq!((said.spatial, said.temporal), (tag.spatial, tag.temporal));
                    assert_eq!(said.start, tag.packet == 0);
                    assert_eq!(said.end, tag.packet + 1 == tag.packets);
                    assert_eq!(said.structure, tag.is_intra() && said.start);
                    assert!(said.wanted);
                    let heights = &reader.structure().expect("one by now").sizes;
                    if let Some((_, height)) = heights.get(usize::from(tag.spatial)) {
                        assert_eq!(*height, tag.height);
                    }
                    if said.start && !tag.is_intra() {
                        let key = (tag.encoding, tag.reference, tag.reference_spatial);
                        let referred: u16 = frames[&key];
                        assert_eq!(said.diffs, [said.number.wrapping_sub(referred)]);
                    }
                    frames.insert((tag.encoding, tag.picture, tag.spatial), said.number);
                    markers += u32::from(packet.marker);
                    pictures.insert((tag.encoding, tag.picture));
                }
            }
            assert!(pictures.len().abs_diff(markers as usize) <= 3);
        }
    }

    #[test]
    fn a_constraint_stops_layers_and_lifting_it_brings_a_key_frame() {
        for codec in CODECS {
            let start = Instant::now();
            let mut source = camera(codec, start);
            run(&mut source, start, 0..1_000);
            source.set_max_height(180);
            run(&mut source, start, 1_000..1_100);
            let limited = run(&mut source, start, 1_100..2_000);
            assert!(
                limited
                    .iter()
                    .all(|(encoding, tag)| layer(*encoding, tag) == 0)
            );
            source.set_max_height(0);
            run(&mut source, start, 2_000..2_100);
            assert!(run(&mut source, start, 2_100..3_000).is_empty());
            source.set_max_height(720);
            let lifted = run(&mut source, start, 3_000..3_500);
            for wanted in 0..3u8 {
                let first = lifted
                    .iter()
                    .find(|(e, t)| layer(*e, t) == wanted)
                    .expect("sent again");
                assert!(first.1.key && first.1.packet == 0);
            }
        }
    }

    #[test]
    fn requests_for_key_frames_are_answered_and_limited() {
        let start = Instant::now();
        let mut source = camera(Codec::Vp8, start);
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

    /// The RTP clock is that of the wall, with pauses in it.
    #[test]
    fn timestamps_go_on_in_a_pause() {
        let start = Instant::now();
        let mut source = camera(Codec::Av1, start);
        let first = source.poll(start, start).expect("a packet").timestamp;
        let later = start + Duration::from_secs(20);
        source.resume(later);
        let resumed = source.next_due().expect("it sends");
        let packet = source.poll(resumed, start).expect("a packet");
        let ticks = packet.timestamp.wrapping_sub(first);
        let expected = (resumed - start).as_secs_f64() * 90_000.0;
        assert!(
            packet.key && (f64::from(ticks) - expected).abs() < 10.0,
            "{ticks}"
        );
    }

    /// A pause cuts no picture short: its receivers would miss the rest.
    #[test]
    fn a_picture_begun_is_sent_to_its_end() {
        for codec in CODECS {
            let start = Instant::now();
            let mut source = camera(codec, start);
            let mut packets = Vec::new();
            packets.extend(source.poll(start, start));
            source.pause();
            while let Some(due) = source.next_due() {
                packets.extend(source.poll(due, start));
            }
            assert!(packets.len() > 1 && packets.last().expect("some").marker);
            assert!(source.poll(start + Duration::from_secs(1), start).is_none());
        }
    }

    /// Of a screen only one layer is sent, whatever height is asked for.
    #[test]
    fn a_screen_has_one_layer() {
        for codec in CODECS {
            let start = Instant::now();
            let screen = Picture::desktop(codec, true);
            assert_eq!(screen.height_for(180), Some(720));
            assert_eq!(screen.height_for(0), None);
            let mut source = VideoSource::new(7, 3, screen, 1, start);
            for (second, height) in (0..).zip([-1, 180, 720]) {
                source.set_max_height(height);
                let tags = run(&mut source, start, second * 1_000..(second + 1) * 1_000);
                let pictures = tags.iter().filter(|(_, tag)| tag.packet == 0).count();
                assert!((4..=6).contains(&pictures), "{pictures} at 5 a second");
                assert!(tags.iter().all(|(_, tag)| tag.height == 720));
            }
            source.set_max_height(0);
            run(&mut source, start, 3_000..3_300);
            assert!(run(&mut source, start, 3_300..4_000).is_empty());
        }
    }

    #[test]
    fn heights_asked_for_have_a_layer() {
        let camera = Picture::camera(Codec::Vp9, true);
        let asked = [0, 90, 180, 359, 360, 540, 720, 2160].map(|h| camera.height_for(h));
        let expected = [0, 180, 180, 180, 360, 360, 720, 720];
        assert_eq!(asked.map(Option::unwrap_or_default), expected);
    }
}
