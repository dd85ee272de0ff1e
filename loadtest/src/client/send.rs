//! A participant's own streams: SSRCs, RTP headers, the buffer from which
//! NACKs are answered, transport-wide numbers, sender reports.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::{Rng, RngCore};
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use viaduct_signalling::sources::{
    EndpointSources, Group, MediaType, Semantics, Source, VideoType,
};

use super::jingle::Formats;
use super::media::Media;
use super::rtp::{self, Header};
use super::{Clock, source_name};
use crate::source::tag::Kind;
use crate::source::{Extension, SourcePacket};

/// Packets kept for retransmission, per encoding: over 2 s of 720p.
const RESEND_BUFFER: usize = 512;
/// A packet is not sent again sooner after the last time.
const RESEND_SPACING: Duration = Duration::from_millis(20);
/// Streams of a video source; clients signal three for every codec.
pub const ENCODINGS: usize = 3;

/// One RTP stream of ours.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    sequence: u16,
    /// RTP time and send time of the newest packet, for sender reports.
    newest: Option<(u32, Instant)>,
    packets: u32,
    octets: u32,
}

impl Stream {
    fn new(ssrc: u32, rng: &mut impl RngCore) -> Self {
        Self {
            ssrc,
            // libwebrtc starts in the lower half, so that SRTP's rollover
            // counter cannot be mistaken early on.
            sequence: rng.random_range(1..0x8000),
            newest: None,
            packets: 0,
            octets: 0,
        }
    }

    /// The header of the next packet.
    fn header(&mut self, payload_type: u8, packet: &SourcePacket, now: Instant) -> Header {
        let header = Header {
            marker: packet.marker,
            payload_type,
            sequence: self.sequence,
            timestamp: packet.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.newest = Some((packet.timestamp, now));
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        header
    }
}

#[derive(Debug)]
struct Sent {
    header: Header,
    extension: Extension,
    payload: Vec<u8>,
    last: Option<Instant>,
}

/// A simulcast encoding with its retransmissions.
#[derive(Debug)]
struct Encoding {
    media: Stream,
    rtx: Stream,
    buffer: VecDeque<Sent>,
}

/// The streams of a camera or screen.
#[derive(Debug)]
struct Video {
    kind: Kind,
    encodings: Vec<Encoding>,
}

impl Video {
    /// SSRCs: one of media and one of retransmissions for each encoding.
    fn new(kind: Kind, ssrcs: &[[u32; 2]; ENCODINGS], rng: &mut impl RngCore) -> Self {
        let encoding = |number: usize| Encoding {
            media: Stream::new(ssrcs[number][0], rng),
            rtx: Stream::new(ssrcs[number][1], rng),
            buffer: VecDeque::new(),
        };
        Self {
            kind,
            encodings: (0..ENCODINGS).map(encoding).collect(),
        }
    }
}

/// What was sent, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendStats {
    pub packets: u64,
    pub octets: u64,
    pub resent: u64,
    /// Requests for a key frame that came.
    pub key_requests: u64,
    pub nacked: u64,
}

/// The streams of one session.
#[derive(Debug)]
pub struct Sender {
    formats: Formats,
    audio: Stream,
    videos: Vec<Video>,
    transport_sequence: u16,
    /// The packet at hand, kept to spare an allocation for each.
    buffer: Vec<u8>,
    pub stats: SendStats,
}

impl Sender {
    /// Chooses SSRCs for a microphone and a camera.
    pub fn new(formats: Formats, rng: &mut impl RngCore) -> Self {
        let audio = rng.random_range(1..=u32::MAX);
        let camera = any_ssrcs(rng);
        Self::with_ssrcs(formats, audio, &camera, rng)
    }

    /// With given SSRCs: of the microphone, and of each encoding of the camera
    /// that of its media and that of its retransmissions.
    pub fn with_ssrcs(
        formats: Formats,
        audio: u32,
        camera: &[[u32; 2]; ENCODINGS],
        rng: &mut impl RngCore,
    ) -> Self {
        Self {
            formats,
            audio: Stream::new(audio, rng),
            videos: vec![Video::new(Kind::Camera, camera, rng)],
            transport_sequence: 0,
            buffer: Vec::new(),
            stats: SendStats::default(),
        }
    }

    /// Chooses SSRCs for another source; returns what is signalled of it.
    pub fn add(
        &mut self,
        kind: Kind,
        endpoint: &str,
        session: u32,
        rng: &mut impl RngCore,
    ) -> EndpointSources {
        let ssrcs = any_ssrcs(rng);
        self.videos.push(Video::new(kind, &ssrcs, rng));
        signalled(
            self.videos.last().expect("added just now"),
            endpoint,
            session,
        )
    }

    /// What is signalled of all. `session` counts the sessions of this
    /// participant: msids differ from session to session, names do not.
    pub fn signalled(&self, endpoint: &str, session: u32) -> EndpointSources {
        let audio = source(self.audio.ssrc, Kind::Audio, endpoint, session);
        let mut all = EndpointSources {
            sources: vec![audio],
            groups: Vec::new(),
        };
        for video in &self.videos {
            all.merge(&signalled(video, endpoint, session));
        }
        all
    }

    /// The SSRC that reports and feedback are sent from.
    pub fn feedback_ssrc(&self) -> u32 {
        self.videos
            .first()
            .and_then(|video| video.encodings.first())
            .map_or(self.audio.ssrc, |encoding| encoding.media.ssrc)
    }

    /// Everything that is due: calls `send` with each packet, its source and its
    /// spatial layer.
    pub fn poll(
        &mut self,
        now: Instant,
        epoch: Instant,
        media: &mut Media,
        mut send: impl FnMut(Kind, u8, &[u8]) -> bool,
    ) {
        while let Some((kind, packet)) = media.poll(now, epoch) {
            let formats = &self.formats;
            let stream = match kind {
                Kind::Audio => Some((&mut self.audio, formats.audio)),
                Kind::Camera | Kind::Desktop => self
                    .videos
                    .iter_mut()
                    .find(|video| video.kind == kind)
                    .and_then(|video| video.encodings.get_mut(usize::from(packet.encoding)))
                    .map(|encoding| (&mut encoding.media, formats.video)),
            };
            // A source of this participant need not be signalled in this session.
            let Some((stream, payload_type)) = stream else {
                continue;
            };
            let header = stream.header(payload_type, &packet, now);
            self.transport_sequence = self.transport_sequence.wrapping_add(1);
            let number = self.transport_sequence.to_be_bytes();
            let parts = [&packet.payload[..]];
            write(
                formats,
                &header,
                &packet.extension,
                number,
                &parts,
                &mut self.buffer,
            );
            if send(kind, packet.layer, &self.buffer) {
                self.stats.packets += 1;
                self.stats.octets += packet.payload.len() as u64;
            }
            if kind != Kind::Audio {
                self.keep(kind, header, packet);
            }
        }
    }

    /// Keeps a packet for retransmission.
    fn keep(&mut self, kind: Kind, header: Header, packet: SourcePacket) {
        let encoding = self
            .videos
            .iter_mut()
            .find(|video| video.kind == kind)
            .and_then(|video| video.encodings.get_mut(usize::from(packet.encoding)));
        if let Some(encoding) = encoding {
            if encoding.buffer.len() >= RESEND_BUFFER {
                encoding.buffer.pop_front();
            }
            encoding.buffer.push_back(Sent {
                header,
                extension: packet.extension,
                payload: packet.payload,
                last: None,
            });
        }
    }

    /// Answers a NACK, by RTX where that was agreed (RFC 4588 §4).
    pub fn resend(
        &mut self,
        now: Instant,
        nack: &TransportLayerNack,
        mut send: impl FnMut(&[u8]) -> bool,
    ) {
        let formats = &self.formats;
        let Some(encoding) = self
            .videos
            .iter_mut()
            .flat_map(|video| &mut video.encodings)
            .find(|encoding| encoding.media.ssrc == nack.media_ssrc)
        else {
            return;
        };
        for number in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
            self.stats.nacked += 1;
            let Some(sent) = encoding
                .buffer
                .iter_mut()
                .rev()
                .find(|sent| sent.header.sequence == number)
            else {
                continue;
            };
            if sent.last.is_some_and(|last| now < last + RESEND_SPACING) {
                continue;
            }
            sent.last = Some(now);
            let mut header = sent.header;
            let original = number.to_be_bytes();
            let both = [&original[..], &sent.payload];
            let mut parts = &both[..];
            if let Some(rtx) = formats.video_rtx {
                header.payload_type = rtx;
                header.ssrc = encoding.rtx.ssrc;
                header.sequence = encoding.rtx.sequence;
                encoding.rtx.sequence = encoding.rtx.sequence.wrapping_add(1);
            } else {
                parts = &both[1..];
            }
            self.transport_sequence = self.transport_sequence.wrapping_add(1);
            let number = self.transport_sequence.to_be_bytes();
            write(
                formats,
                &header,
                &sent.extension,
                number,
                parts,
                &mut self.buffer,
            );
            self.stats.resent += u64::from(send(&self.buffer));
        }
    }

    /// The source that an SSRC of ours shows.
    pub fn video_of(&self, ssrc: u32) -> Option<Kind> {
        self.videos
            .iter()
            .find(|video| video.encodings.iter().any(|e| e.media.ssrc == ssrc))
            .map(|video| video.kind)
    }

    /// A sender report of each stream that sent (RFC 3550 §6.4.1).
    pub fn reports(&self, now: Instant, clock: &Clock) -> Vec<SenderReport> {
        let videos = self.videos.iter().flat_map(|video| &video.encodings);
        let streams = std::iter::once((&self.audio, 48_000))
            .chain(videos.map(|encoding| (&encoding.media, 90_000)));
        streams
            .filter_map(|(stream, rate)| {
                let (timestamp, at) = stream.newest?;
                let since = now.saturating_duration_since(at).as_secs_f64() * f64::from(rate);
                Some(SenderReport {
                    ssrc: stream.ssrc,
                    ntp_time: clock.ntp(now),
                    rtp_time: timestamp.wrapping_add(since as u32),
                    packet_count: stream.packets,
                    octet_count: stream.octets,
                    ..SenderReport::default()
                })
            })
            .collect()
    }
}

impl SendStats {
    /// Takes in what an earlier session sent.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.octets += other.octets;
        self.resent += other.resent;
        self.key_requests += other.key_requests;
        self.nacked += other.nacked;
    }
}

fn any_ssrcs(rng: &mut impl RngCore) -> [[u32; 2]; ENCODINGS] {
    std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(1..=u32::MAX)))
}

/// Writes a packet with the extensions that were agreed.
fn write(
    formats: &Formats,
    header: &Header,
    extension: &Extension,
    number: [u8; 2],
    payload: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let level;
    let own: Option<(u8, &[u8])> = match extension {
        Extension::None => None,
        Extension::AudioLevel(octet) => {
            level = [*octet];
            formats.audio_level.map(|id| (id, &level[..]))
        }
        Extension::DependencyDescriptor(octets) => formats
            .dependency_descriptor
            .map(|id| (id, octets.as_slice())),
    };
    let congestion = formats.transport_cc.map(|id| (id, &number[..]));
    match (own, congestion) {
        (Some(own), Some(congestion)) => rtp::write(header, &[congestion, own], payload, out),
        (Some(one), None) | (None, Some(one)) => rtp::write(header, &[one], payload, out),
        (None, None) => rtp::write(header, &[], payload, out),
    }
}

fn source(ssrc: u32, kind: Kind, endpoint: &str, session: u32) -> Source {
    let media_type = match kind {
        Kind::Audio => MediaType::Audio,
        Kind::Camera | Kind::Desktop => MediaType::Video,
    };
    let media = media_type.as_str();
    let number = u8::from(kind == Kind::Desktop);
    Source {
        ssrc,
        media_type,
        name: Some(source_name(endpoint, kind)),
        msid: Some(format!(
            "{endpoint}-{media}-{number}-{session} {endpoint}{media}{number}-{session}"
        )),
        video_type: match kind {
            Kind::Audio => None,
            Kind::Camera => Some(VideoType::Camera),
            Kind::Desktop => Some(VideoType::Desktop),
        },
    }
}

fn signalled(video: &Video, endpoint: &str, session: u32) -> EndpointSources {
    let mut all = EndpointSources::default();
    let group = |semantics, ssrcs| Group {
        media_type: MediaType::Video,
        semantics,
        ssrcs,
    };
    let layers = video.encodings.iter().map(|e| e.media.ssrc).collect();
    all.groups.push(group(Semantics::Sim, layers));
    for encoding in &video.encodings {
        let pair = vec![encoding.media.ssrc, encoding.rtx.ssrc];
        for ssrc in &pair {
            all.sources
                .push(source(*ssrc, video.kind, endpoint, session));
        }
        all.groups.push(group(Semantics::Fid, pair));
    }
    all
}
