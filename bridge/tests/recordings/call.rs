//! Recorded calls, and what a receiver would have got of them: the sender's
//! packets go through the receiving side, the allocation and a projection, as
//! in a conference.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use viaduct_bridge::allocation::{Candidate, Layer, allocate};
use viaduct_bridge::command::{
    Codec, Encoding, Feedback, ForceMute, HeaderExtension, Media, MediaType, Payload, Source,
    VideoType,
};
use viaduct_bridge::formats::Formats;
use viaduct_bridge::projection::{
    CodecRewrite, CodecView, EgressExtensions, IncomingVideo, LayerIndex, Projection, write_packet,
};
use viaduct_bridge::receive::{ArrivalMedia, Uplink};
use viaduct_bridge::rtp::extension::DEPENDENCY_DESCRIPTOR;
use viaduct_bridge::rtp::{PacketIndex, PayloadType, RtpPacket, Ssrc, Unwrapper};
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::stats::{Counters, DropCause};

pub(crate) const DESCRIPTOR: u8 = 11;
const TRANSPORT_CC: u8 = 5;

/// A recorded datagram.
pub(crate) struct Datagram {
    /// Time since the first of its file.
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
    /// Nothing was cut off it.
    pub(crate) whole: bool,
}

/// A recording's datagrams.
pub(crate) fn datagrams(name: &str) -> Vec<Datagram> {
    let path = format!("{}/tests/vectors/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(path).expect("the vector is there");
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four"));
    let mut found: Vec<Datagram> = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let time = Duration::new(word(at).into(), word(at + 4) * 1000);
        let len = word(at + 8) as usize;
        // Ethernet, whose frames may be padded, IPv4 without options, UDP.
        let udp = &file[at + 16 + 34..at + 16 + len];
        let announced = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        found.push(Datagram {
            at: time,
            bytes: udp[8..announced.min(udp.len())].to_vec(),
            whole: announced <= udp.len(),
        });
        at += 16 + len;
    }
    let first = found[0].at;
    for datagram in &mut found {
        datagram.at -= first;
    }
    found
}

pub(crate) fn is_rtcp(datagram: &[u8]) -> bool {
    (192..=223).contains(&datagram[1])
}

/// One source of a call: its SSRCs low to high with their RTX, and its codec.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) ssrcs: [(u32, u32); 3],
    pub(crate) codec: Codec,
}

impl Call {
    /// The payload type of the codec, and that of its RTX.
    pub(crate) fn payload_types(&self) -> (u8, u8) {
        match self.codec {
            Codec::Vp8 => (100, 96),
            Codec::Vp9 => (101, 97),
            Codec::Av1 => (41, 42),
            Codec::H264 => (107, 99),
            _ => unreachable!("the recordings have four codecs"),
        }
    }
}

pub(crate) const VP8: Call = Call {
    name: "vp8",
    ssrcs: [
        (492714395, 499161191),
        (3654536911, 3884804333),
        (1766522492, 2965983847),
    ],
    codec: Codec::Vp8,
};

pub(crate) const VP9: Call = Call {
    name: "vp9",
    ssrcs: [
        (867275522, 157699954),
        (179725055, 2384807515),
        (404313941, 518440052),
    ],
    codec: Codec::Vp9,
};

pub(crate) const AV1: Call = Call {
    name: "av1",
    ssrcs: [
        (125721277, 2391575483),
        (4079982124, 2626036061),
        (4108338229, 3324099328),
    ],
    codec: Codec::Av1,
};

pub(crate) const H264: Call = Call {
    name: "h264",
    ssrcs: [
        (3303416818, 259665236),
        (815621468, 1075830850),
        (2707228559, 1455483871),
    ],
    codec: Codec::H264,
};

/// The camera, and from 7.6 s on the screen.
pub(crate) const SHARE_CAMERA: Call = Call {
    name: "share-av1",
    ssrcs: [
        (229991640, 786874638),
        (3208679097, 2681101482),
        (968245249, 1727255066),
    ],
    codec: Codec::Av1,
};

pub(crate) const SHARE_SCREEN: Call = Call {
    name: "share-av1",
    ssrcs: [
        (4015577814, 3905812531),
        (1958341299, 221641288),
        (738249236, 4218688332),
    ],
    codec: Codec::Av1,
};

pub(crate) const LOSS: Call = Call {
    name: "loss-vp8",
    ssrcs: [
        (506436657, 3685675317),
        (3533125599, 1024869242),
        (4288007516, 256951521),
    ],
    codec: Codec::Vp8,
};

/// Sent with pauses.
pub(crate) const REWRITING: Call = Call {
    name: "rewriting-vp8",
    ssrcs: [
        (2013729573, 747718894),
        (2572018727, 1144156438),
        (4186403803, 882413737),
    ],
    codec: Codec::Vp8,
};

/// What was negotiated; without dependency descriptor for who does not know it.
pub(crate) fn formats(descriptor: bool) -> Formats {
    let mut payload_types = Vec::new();
    for (codec, number, rtx) in [
        (Codec::Vp8, 100, 96),
        (Codec::Vp9, 101, 97),
        (Codec::Av1, 41, 42),
        (Codec::H264, 107, 99),
    ] {
        let apt = PayloadType(number);
        for (number, codec) in [(number, codec), (rtx, Codec::Rtx { apt })] {
            payload_types.push(Payload {
                payload_type: PayloadType(number),
                codec,
                clock_rate: 90_000,
                feedback: Feedback::default(),
            });
        }
    }
    let mut formats = Formats::default();
    formats.add(&[Media {
        media_type: MediaType::Video,
        payload_types,
        header_extensions: descriptor
            .then(|| HeaderExtension {
                uri: DEPENDENCY_DESCRIPTOR.to_owned(),
                id: DESCRIPTOR,
            })
            .into_iter()
            .collect(),
    }]);
    formats
}

/// What a receiver asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    Nothing,
    /// No more lines than that, as the allocation sees to it.
    Height(i32),
    Layer(LayerIndex),
}

/// How a call is played.
#[derive(Clone)]
pub(crate) struct Play<'a> {
    pub(crate) call: &'a Call,
    /// From each time on, in seconds, what is beside it.
    pub(crate) wanted: &'a [(f64, Wanted)],
    pub(crate) until: f64,
    /// The sender has negotiated the dependency descriptor.
    pub(crate) descriptor: bool,
    /// What happens to payloads before they are sent.
    pub(crate) alter: fn(f64, &mut [u8]),
}

impl<'a> Play<'a> {
    pub(crate) fn new(call: &'a Call, wanted: &'a [(f64, Wanted)]) -> Self {
        Self {
            call,
            wanted,
            until: f64::MAX,
            descriptor: true,
            alter: |_, _| {},
        }
    }

    pub(crate) fn run(&self) -> Played {
        let mut player = Player::new(self.call, self.descriptor);
        for mut datagram in datagrams(&format!("{}/rx", self.call.name)) {
            let at = datagram.at.as_secs_f64();
            if at > self.until || is_rtcp(&datagram.bytes) {
                continue;
            }
            let wanted = self.wanted.iter().rfind(|(from, _)| *from <= at);
            player.want(wanted.map_or(Wanted::Nothing, |(_, wanted)| *wanted));
            if let Ok(view) = RtpPacket::parse(&datagram.bytes) {
                // Behind the RTX header there is a payload as any other.
                let rtx = usize::from(view.payload_type().0 == self.call.payload_types().1) * 2;
                let start = view.header_len() + rtx;
                let end = start + view.payload().len().saturating_sub(rtx);
                (self.alter)(at, datagram.bytes.get_mut(start..end).unwrap_or_default());
            }
            player.receive(datagram.at, &mut datagram.bytes, datagram.whole);
        }
        player.played
    }
}

/// A packet of the sender, as the receiving side took it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) encoding: u8,
    pub(crate) index: PacketIndex,
    pub(crate) timestamp: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) whole: bool,
    pub(crate) spatial_id: u8,
    pub(crate) key: bool,
}

/// A packet that was forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    /// Position of what came in among [`Played::received`].
    pub(crate) of: usize,
    pub(crate) encoding: u8,
    pub(crate) received: PacketIndex,
    pub(crate) index: PacketIndex,
    pub(crate) timestamp: u32,
    pub(crate) codec: CodecRewrite,
    pub(crate) packet: Vec<u8>,
    pub(crate) repeated: bool,
}

/// What came of a call.
#[derive(Default)]
pub(crate) struct Played {
    pub(crate) received: Vec<Received>,
    pub(crate) forwarded: Vec<Forwarded>,
    pub(crate) drops: Vec<DropCause>,
    /// Heights of the layers that the allocation chose, in turn.
    pub(crate) heights: Vec<i32>,
}

/// One sender, and one receiver of its source.
pub(crate) struct Player {
    call: Call,
    formats: Formats,
    uplink: Uplink,
    counters: Counters,
    unwrappers: Vec<(Ssrc, Unwrapper)>,
    projection: Projection,
    start: Instant,
    wanted: Wanted,
    pub(crate) played: Played,
}

impl Player {
    pub(crate) fn new(call: &Call, descriptor: bool) -> Self {
        let start = Instant::now();
        let mut uplink = Uplink::default();
        let mut counters = Counters::default();
        let encoding = |(primary, rtx): (u32, u32)| Encoding {
            primary: Ssrc(primary),
            rtx: Some(Ssrc(rtx)),
        };
        let source = Source {
            name: "a-v0".into(),
            media_type: MediaType::Video,
            video_type: VideoType::Camera,
            encodings: call.ssrcs.map(encoding).to_vec(),
        };
        uplink.set_sources(start, vec![(0, source)], &mut counters);
        Self {
            call: call.clone(),
            formats: formats(descriptor),
            uplink,
            counters,
            unwrappers: Vec::new(),
            projection: Projection::new(Ssrc(call.ssrcs[0].0)),
            start,
            wanted: Wanted::Nothing,
            played: Played::default(),
        }
    }

    pub(crate) fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// From here on the sender uses the codec of another call.
    pub(crate) fn speak(&mut self, call: &Call) {
        self.call.codec = call.codec.clone();
    }

    /// The newest sequence number under an SSRC.
    pub(crate) fn last_number(&self, ssrc: u32) -> Option<u16> {
        let known = self.unwrappers.iter().find(|(of, _)| of.0 == ssrc)?;
        Some(known.1.highest()?.sequence_number())
    }

    /// Chooses the layer to aim for.
    fn aim(&mut self, now: Instant) {
        let height = match self.wanted {
            Wanted::Nothing => return self.projection.set_target(None),
            Wanted::Layer(layer) => return self.projection.set_target(Some(layer)),
            Wanted::Height(height) => height,
        };
        let list = self.uplink.sources_mut()[0].layers.list(now);
        let (indices, layers): (Vec<LayerIndex>, Vec<Layer>) = list.into_iter().unzip();
        let candidate = Candidate {
            layers: &layers,
            video_type: VideoType::Camera,
            max_height: height,
            on_stage: false,
        };
        let allocation = allocate(&ShardSettings::default(), None, &[candidate]);
        let target = allocation.choices[0].target;
        if let Some(height) = target.map(|target| layers[target].height)
            && self.played.heights.last() != Some(&height)
        {
            self.played.heights.push(height);
        }
        self.projection.set_target(target.map(|at| indices[at]));
    }

    /// Takes a datagram of the sender; those of other sources are left alone.
    pub(crate) fn receive(&mut self, at: Duration, datagram: &mut [u8], whole: bool) {
        let now = self.start + at;
        let view = RtpPacket::parse(datagram).expect("valid RTP");
        let ssrc = view.ssrc();
        let mut known = self.call.ssrcs.iter();
        if !known.any(|(primary, rtx)| [*primary, *rtx].contains(&ssrc.0)) {
            return;
        }
        let repeated = view.payload_type().0 == self.call.payload_types().1;
        let known = self.unwrappers.iter().position(|(of, _)| *of == ssrc);
        let known = known.unwrap_or_else(|| {
            self.unwrappers.push((ssrc, Unwrapper::default()));
            self.unwrappers.len() - 1
        });
        let index = self.unwrappers[known].1.unwrap(view.sequence_number());
        let arrival = self.uplink.receive(
            now,
            &self.formats,
            3,
            ForceMute::default(),
            (index, datagram),
            &mut self.counters,
        );
        let arrival = match arrival {
            Ok(arrival) => arrival,
            Err(cause) => return self.played.drops.push(cause),
        };
        let ArrivalMedia::Video {
            encoding, codec, ..
        } = &arrival.media
        else {
            unreachable!("only video is negotiated")
        };
        self.aim(now);
        let encoding = *encoding as u8;
        let view = RtpPacket::parse(&datagram[arrival.offset..]).expect("valid RTP");
        let codec = codec.view();
        let (spatial_id, key) = match codec {
            CodecView::Vp8(d) => (0, d.key_frame),
            CodecView::Vp9(d) => (d.spatial_id, d.key_frame()),
            CodecView::Dd(frame) => (frame.spatial_id, frame.carries_structure),
            CodecView::Opaque { key } => (0, key == Some(true)),
        };
        self.played.received.push(Received {
            encoding,
            index: arrival.index,
            timestamp: view.timestamp(),
            payload: view.payload().to_vec(),
            whole,
            spatial_id,
            key,
        });
        let rewrite = self.projection.project(&IncomingVideo {
            encoding,
            index: arrival.index,
            timestamp: view.timestamp(),
            marker: view.marker(),
            payload_type: view.payload_type(),
            arrival: now,
            codec,
        });
        let Some(rewrite) = rewrite else { return };
        let extensions = EgressExtensions {
            dependency_descriptor: Some(DESCRIPTOR),
            transport_cc: Some((TRANSPORT_CC, 0x1234)),
            ..EgressExtensions::default()
        };
        let mut out = b"before".to_vec();
        write_packet(&view, &rewrite, &extensions, &mut out);
        let packet = out.split_off(6);
        let written = RtpPacket::parse(&packet).expect("valid");
        assert_eq!(written.ssrc(), Ssrc(self.call.ssrcs[0].0));
        assert_eq!(written.payload_type(), view.payload_type());
        assert_eq!(written.sequence_number(), rewrite.index.sequence_number());
        assert_eq!(written.timestamp(), rewrite.timestamp);
        assert_eq!(written.marker(), rewrite.marker);
        assert_eq!(written.extension(TRANSPORT_CC), Some(&[0x12, 0x34][..]));
        self.played.forwarded.push(Forwarded {
            of: self.played.received.len() - 1,
            encoding,
            received: arrival.index,
            index: rewrite.index,
            timestamp: rewrite.timestamp,
            codec: rewrite.codec,
            packet,
            repeated,
        });
    }
}

impl Played {
    /// What was forwarded, in the order in which a receiver decodes it.
    pub(crate) fn in_order(&self) -> Vec<&Forwarded> {
        let mut forwarded: Vec<_> = self.forwarded.iter().collect();
        forwarded.sort_by_key(|packet| packet.index);
        forwarded
    }

    /// Sequence numbers that the receiver does not get.
    pub(crate) fn holes(&self) -> Vec<PacketIndex> {
        let given: BTreeSet<u64> = self.forwarded.iter().map(|p| p.index.0).collect();
        let (Some(first), Some(last)) = (given.first(), given.last()) else {
            return Vec::new();
        };
        (*first..*last)
            .filter(|index| !given.contains(index))
            .map(PacketIndex)
            .collect()
    }
}
