//! A participant's own streams: SSRCs, RTP headers, the buffer from which
//! NACKs are answered, transport-wide numbers, sender reports.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng, RngCore};
use rtc_shared::marshal::Marshal;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use viaduct_signalling::sources::{
    EndpointSources, Group, MediaType, Semantics, Source, VideoType,
};

use super::Clock;
use super::jingle::Formats;
use crate::source::SourcePacket;
use crate::source::audio::AudioSource;
use crate::source::video::VideoSource;

/// Packets kept for retransmission, per encoding: over 2 s of 720p.
const RESEND_BUFFER: usize = 512;
/// A packet is not sent again sooner after the last time.
const RESEND_SPACING: Duration = Duration::from_millis(20);

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
    fn new(rng: &mut impl RngCore) -> Self {
        Self {
            ssrc: rng.random_range(1..=u32::MAX),
            // libwebrtc starts in the lower half, so that SRTP's rollover
            // counter cannot be mistaken early on.
            sequence: rng.random_range(1..0x8000),
            newest: None,
            packets: 0,
            octets: 0,
        }
    }
}

#[derive(Debug)]
struct Sent {
    sequence: u16,
    header: rtp::Header,
    payload: Bytes,
    last: Option<Instant>,
}

/// A simulcast encoding with its retransmissions.
#[derive(Debug)]
struct Encoding {
    media: Stream,
    rtx: Stream,
    buffer: VecDeque<Sent>,
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
    video: Vec<Encoding>,
    transport_sequence: u16,
    pub stats: SendStats,
}

impl Sender {
    /// Chooses SSRCs for a microphone and a camera of `encodings` encodings.
    pub fn new(formats: Formats, encodings: usize, rng: &mut impl RngCore) -> Self {
        Self {
            formats,
            audio: Stream::new(rng),
            video: (0..encodings)
                .map(|_| Encoding {
                    media: Stream::new(rng),
                    rtx: Stream::new(rng),
                    buffer: VecDeque::new(),
                })
                .collect(),
            transport_sequence: 0,
            stats: SendStats::default(),
        }
    }

    /// What is signalled of them. `session` counts the sessions of this
    /// participant: msids differ from session to session, names do not.
    pub fn signalled(&self, endpoint: &str, session: u32) -> EndpointSources {
        let source = |ssrc, media_type: MediaType| {
            let media = media_type.as_str();
            Source {
                ssrc,
                media_type,
                name: Some(format!("{endpoint}-{}0", &media[..1])),
                msid: Some(format!(
                    "{endpoint}-{media}-0-{session} {endpoint}{media}-{session}"
                )),
                video_type: (media_type == MediaType::Video).then_some(VideoType::Camera),
            }
        };
        let mut sources = vec![source(self.audio.ssrc, MediaType::Audio)];
        for encoding in &self.video {
            sources.push(source(encoding.media.ssrc, MediaType::Video));
            sources.push(source(encoding.rtx.ssrc, MediaType::Video));
        }
        let group = |semantics, ssrcs| Group {
            media_type: MediaType::Video,
            semantics,
            ssrcs,
        };
        let mut groups = Vec::new();
        if self.video.len() > 1 {
            let layers = self
                .video
                .iter()
                .map(|encoding| encoding.media.ssrc)
                .collect();
            groups.push(group(Semantics::Sim, layers));
        }
        for encoding in &self.video {
            let pair = vec![encoding.media.ssrc, encoding.rtx.ssrc];
            groups.push(group(Semantics::Fid, pair));
        }
        EndpointSources { sources, groups }
    }

    /// The SSRC that reports and feedback are sent from.
    pub fn feedback_ssrc(&self) -> u32 {
        self.video
            .first()
            .map_or(self.audio.ssrc, |encoding| encoding.media.ssrc)
    }

    /// Everything that is due: calls `send` with each packet.
    pub fn poll(
        &mut self,
        now: Instant,
        epoch: Instant,
        audio: &mut AudioSource,
        video: &mut VideoSource,
        mut send: impl FnMut(&[u8]) -> bool,
    ) {
        while let Some(packet) = audio.poll(now, epoch) {
            let formats = &self.formats;
            let header = header(formats, formats.audio, &mut self.audio, &packet, now);
            let header = tagged(header, formats.transport_cc, &mut self.transport_sequence);
            let payload = Bytes::from(packet.payload);
            self.stats.count(&payload, send(&marshal(header, &payload)));
        }
        while let Some(packet) = video.poll(now, epoch) {
            let Some(encoding) = self.video.get_mut(usize::from(packet.encoding)) else {
                continue;
            };
            let formats = &self.formats;
            let bare = header(formats, formats.video, &mut encoding.media, &packet, now);
            let payload = Bytes::from(packet.payload);
            if encoding.buffer.len() >= RESEND_BUFFER {
                encoding.buffer.pop_front();
            }
            encoding.buffer.push_back(Sent {
                sequence: bare.sequence_number,
                header: bare.clone(),
                payload: payload.clone(),
                last: None,
            });
            let header = tagged(bare, formats.transport_cc, &mut self.transport_sequence);
            self.stats.count(&payload, send(&marshal(header, &payload)));
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
            .video
            .iter_mut()
            .find(|e| e.media.ssrc == nack.media_ssrc)
        else {
            return;
        };
        for number in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
            self.stats.nacked += 1;
            let Some(sent) = encoding
                .buffer
                .iter_mut()
                .rev()
                .find(|s| s.sequence == number)
            else {
                continue;
            };
            if sent.last.is_some_and(|last| now < last + RESEND_SPACING) {
                continue;
            }
            sent.last = Some(now);
            let mut header = sent.header.clone();
            let mut payload = sent.payload.clone();
            if let Some(rtx) = formats.video_rtx {
                header.payload_type = rtx;
                header.ssrc = encoding.rtx.ssrc;
                header.sequence_number = encoding.rtx.sequence;
                encoding.rtx.sequence = encoding.rtx.sequence.wrapping_add(1);
                payload = [&number.to_be_bytes()[..], &sent.payload[..]]
                    .concat()
                    .into();
            }
            let header = tagged(header, formats.transport_cc, &mut self.transport_sequence);
            let ok = send(&marshal(header, &payload));
            self.stats.resent += u64::from(ok);
        }
    }

    /// Whether an SSRC is one of ours that shows pictures.
    pub fn sends_video(&self, ssrc: u32) -> bool {
        self.video
            .iter()
            .any(|encoding| encoding.media.ssrc == ssrc)
    }

    /// A sender report of each stream that sent (RFC 3550 §6.4.1).
    pub fn reports(&self, now: Instant, clock: &Clock) -> Vec<SenderReport> {
        let streams = std::iter::once((&self.audio, 48_000))
            .chain(self.video.iter().map(|encoding| (&encoding.media, 90_000)));
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

    fn count(&mut self, payload: &[u8], sent: bool) {
        if sent {
            self.packets += 1;
            self.octets += payload.len() as u64;
        }
    }
}

fn header(
    formats: &Formats,
    payload_type: u8,
    stream: &mut Stream,
    packet: &SourcePacket,
    now: Instant,
) -> rtp::Header {
    let mut header = rtp::Header {
        version: 2,
        marker: packet.marker,
        payload_type,
        sequence_number: stream.sequence,
        timestamp: packet.timestamp,
        ssrc: stream.ssrc,
        ..rtp::Header::default()
    };
    if let (Some(id), Some(level)) = (formats.audio_level, packet.audio_level) {
        header
            .set_extension(id, Bytes::copy_from_slice(&[level]))
            .expect("the number is between 1 and 14");
    }
    stream.sequence = stream.sequence.wrapping_add(1);
    stream.newest = Some((packet.timestamp, now));
    stream.packets = stream.packets.wrapping_add(1);
    stream.octets = stream.octets.wrapping_add(packet.payload.len() as u32);
    header
}

fn tagged(mut header: rtp::Header, id: Option<u8>, sequence: &mut u16) -> rtp::Header {
    if let Some(id) = id {
        *sequence = sequence.wrapping_add(1);
        header
            .set_extension(id, Bytes::copy_from_slice(&sequence.to_be_bytes()))
            .expect("the number is between 1 and 14");
    }
    header
}

fn marshal(header: rtp::Header, payload: &Bytes) -> Bytes {
    rtp::Packet {
        header,
        payload: payload.clone(),
    }
    .marshal()
    .expect("a packet we made can be written")
    .freeze()
}
