//! One sender: what comes from it, put in order, counted and asked for again.
//!
//! `RTP > payload type > transport-cc log > SSRC > force mute > audio: level,
//! silence; video: RTX, duplicates, NACK, padding, codec view, layers`
//!
//! What is left is an [`Arrival`], to be handed to each receiver. Whatever it
//! was, [`Uplink::take_feedback`] then says what RTCP the sender is to get.

pub mod arrivals;
pub mod audio_level;
pub mod codec;
pub mod keyframe;
pub mod layers;
pub mod nack;
pub mod rate;
pub mod renumber;
pub mod statistics;
pub mod store;
pub mod stream;
pub mod window;

use std::time::{Duration, Instant};

use arrivals::ArrivalLog;
use audio_level::{SilenceGate, loudness};
use codec::{ArrivalCodec, read_codec};
use keyframe::{Asker, KeyframeRequester};
use layers::Layers;
use stream::Stream;

use crate::command::{ForceMute, MediaType, Source};
use crate::formats::{Format, Formats, VideoCodec};
use crate::rtcp::report::{ReportBlock, SenderInfo};
use crate::rtcp::{keyframe_request, nack as nack_packet, report, transport_cc};
use crate::rtp::extension::{self, AudioLevel};
use crate::rtp::{PacketIndex, RtpPacket, Ssrc, rtx};
use crate::stats::{Counters, DropCause};

/// Time between receiver reports
/// (`jitsi-videobridge:jitsi-media-transform/…/RtcpTermination`).
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Sequence numbers in one NACK: at worst each takes four octets, and all of it
/// has to fit one datagram.
const MAX_NACKED: usize = 256;
/// Without a packet for so long a stream is not being received.
const STREAM_IDLE: Duration = Duration::from_secs(1);

/// A source as its sender sends it.
#[derive(Debug)]
pub struct UplinkSource {
    /// Its place among the sources of the conference.
    pub slot: usize,
    pub source: Source,
    pub streams: Vec<Stream>,
    pub layers: Layers,
}

impl UplinkSource {
    /// The SSRC that names the source: that of its lowest encoding.
    pub fn primary(&self) -> Ssrc {
        self.streams[0].ssrc()
    }
}

/// A packet for the receivers.
#[derive(Debug)]
pub struct Arrival {
    /// Where the packet begins in the buffer it came in.
    pub offset: usize,
    /// Position of its source among [`Uplink::sources`].
    pub source: usize,
    /// Its index with hidden packets left out.
    pub index: PacketIndex,
    pub media: ArrivalMedia,
}

/// What there is to know of an arrival, by media type.
#[derive(Clone, Debug)]
pub enum ArrivalMedia {
    Audio {
        /// From 0 to 127, if the packet tells.
        loudness: Option<u8>,
        /// The packet repeats what came before it (RFC 2198).
        red: bool,
    },
    Video {
        encoding: usize,
        /// Its index as the sender counts: the key in the store.
        stored: PacketIndex,
        codec: ArrivalCodec,
        /// The layers of the source changed with this packet.
        layering_changed: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Place {
    source: usize,
    encoding: usize,
    rtx: bool,
}

/// The SSRCs under which the bridge speaks, one for each media type.
#[derive(Clone, Copy, Debug)]
pub struct FeedbackSsrcs {
    pub audio: Ssrc,
    pub video: Ssrc,
}

/// All that one sender sends.
#[derive(Debug, Default)]
pub struct Uplink {
    sources: Vec<UplinkSource>,
    /// All SSRCs, sorted.
    places: Vec<(Ssrc, Place)>,
    gate: SilenceGate,
    arrivals: ArrivalLog,
    /// Feedback about arrivals is to go, naming this SSRC.
    feedback_due: Option<Ssrc>,
    feedback_count: u8,
    /// The origin of the arrival times in feedback.
    origin: Option<Instant>,
    report_due: Option<Instant>,
    /// No stream has a packet to ask for again before.
    nacks_due: Option<Instant>,
    keyframes: KeyframeRequester,
    fir_command: u8,
    /// Position of the source of a packet that could not be read.
    unreadable: Option<usize>,
    pub last_audio: Option<Instant>,
    pub last_video: Option<Instant>,
    /// Room for lists of sequence numbers.
    numbers: Vec<u16>,
}

impl Uplink {
    /// Replaces the sources. Those that stay keep their state.
    pub fn set_sources(
        &mut self,
        now: Instant,
        sources: Vec<(usize, Source)>,
        counters: &mut Counters,
    ) {
        let mut old = std::mem::take(&mut self.sources);
        for (slot, source) in sources {
            let kept = old
                .iter()
                .position(|s| s.slot == slot)
                .map(|at| old.swap_remove(at));
            self.sources.push(match kept {
                Some(mut kept) => {
                    for (stream, encoding) in kept.streams.iter_mut().zip(&source.encodings) {
                        stream.encoding = *encoding;
                    }
                    kept.source = source;
                    kept
                }
                None => UplinkSource {
                    slot,
                    streams: source.encodings.iter().copied().map(Stream::new).collect(),
                    layers: Layers::new(source.encodings.len()),
                    source,
                },
            });
        }
        for stream in old.iter_mut().flat_map(|source| &mut source.streams) {
            finish_receiving(now, stream, counters);
        }
        self.places.clear();
        for (source, uplink) in self.sources.iter().enumerate() {
            for (encoding, stream) in uplink.streams.iter().enumerate() {
                let place = |rtx| Place {
                    source,
                    encoding,
                    rtx,
                };
                self.places.push((stream.ssrc(), place(false)));
                if let Some(ssrc) = stream.encoding.rtx {
                    self.places.push((ssrc, place(true)));
                }
            }
        }
        self.places.sort_by_key(|(ssrc, _)| *ssrc);
        let places = &self.places;
        self.keyframes
            .retain(|ssrc| places.binary_search_by_key(&ssrc, |(s, _)| *s).is_ok());
    }

    /// All sources, in the order in which signalling named them.
    pub fn sources(&self) -> &[UplinkSource] {
        &self.sources
    }

    /// As [`Self::sources`].
    pub fn sources_mut(&mut self) -> &mut [UplinkSource] {
        &mut self.sources
    }

    /// The source at a place of the conference.
    pub fn source_at(&self, slot: usize) -> Option<&UplinkSource> {
        self.sources.iter().find(|source| source.slot == slot)
    }

    /// As [`Self::source_at`].
    pub fn source_at_mut(&mut self, slot: usize) -> Option<&mut UplinkSource> {
        self.sources.iter_mut().find(|source| source.slot == slot)
    }

    /// Takes an authentic RTP packet in place.
    pub fn receive(
        &mut self,
        now: Instant,
        formats: &Formats,
        silence_limit: u32,
        mute: ForceMute,
        (index, packet): (PacketIndex, &mut [u8]),
        counters: &mut Counters,
    ) -> Result<Arrival, DropCause> {
        let view = RtpPacket::parse(packet).map_err(|_| DropCause::MalformedRtp)?;
        let ssrc = view.ssrc();
        let Some(format) = formats.get(view.payload_type()) else {
            self.hide(ssrc, index);
            return Err(DropCause::UnknownPayloadType);
        };
        self.note_arrival(now, formats, format, &view);
        let at = self
            .places
            .binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc)
            .map_err(|_| DropCause::UnknownSsrc)?;
        let place = self.places[at].1;
        let source = &mut self.sources[place.source];
        let stream = &mut source.streams[place.encoding];
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        match (source.source.media_type, format, place.rtx) {
            (MediaType::Audio, Format::Audio { clock_rate, red }, false) => {
                self.last_audio = Some(now);
                stream.count(now, clock_rate, index, view.timestamp());
                let level = formats
                    .audio_level
                    .and_then(|id| view.extension(id))
                    .and_then(AudioLevel::parse);
                let refused = if mute.audio {
                    Some(DropCause::ForceMuted)
                } else if view.payload().is_empty() {
                    Some(DropCause::PaddingOnly)
                } else if !self.gate.pass(level, silence_limit) {
                    Some(DropCause::Silence)
                } else {
                    None
                };
                if let Some(cause) = refused {
                    stream.renumber.hide(index);
                    return Err(cause);
                }
                Ok(Arrival {
                    offset: 0,
                    source: place.source,
                    index: stream.renumber.place(index).ok_or(DropCause::TooOld)?,
                    media: ArrivalMedia::Audio {
                        loudness: level.map(loudness),
                        red,
                    },
                })
            }
            (MediaType::Video, Format::Video { clock_rate, codec }, false) => {
                self.last_video = Some(now);
                stream.count(now, clock_rate, index, view.timestamp());
                stream.receiving_since.get_or_insert(now);
                if mute.video {
                    stream.renumber.hide(index);
                    return Err(DropCause::ForceMuted);
                }
                let packet = (codec, index, 0, &view);
                let result = Self::receive_video(now, formats, source, place, packet, counters);
                self.note_received(place, &result);
                result
            }
            (MediaType::Video, Format::Rtx { apt }, true) => {
                if mute.video {
                    return Err(DropCause::ForceMuted);
                }
                let Some(Format::Video { codec, .. }) = formats.get(apt) else {
                    return Err(DropCause::UnknownPayloadType);
                };
                let ssrc = stream.ssrc();
                let restored =
                    rtx::restore(packet, apt.0, ssrc).ok_or(DropCause::RtxWithoutPayload)?;
                let view = RtpPacket::parse(restored).map_err(|_| DropCause::MalformedRtp)?;
                let index = stream.restored_index(view.sequence_number());
                counters.retransmissions_received += 1;
                let packet = (codec, index, 2, &view);
                let result = Self::receive_video(now, formats, source, place, packet, counters);
                self.note_received(place, &result);
                result
            }
            _ => Err(DropCause::UnknownPayloadType),
        }
    }

    /// Leaves a packet of one of this sender's streams out of what is passed on.
    fn hide(&mut self, ssrc: Ssrc, index: PacketIndex) {
        let at = self.places.binary_search_by_key(&ssrc, |(ssrc, _)| *ssrc);
        if let Ok(at) = at
            && let place = self.places[at].1
            && !place.rtx
        {
            let stream = &mut self.sources[place.source].streams[place.encoding];
            stream.renumber.hide(index);
        }
    }

    fn receive_video(
        now: Instant,
        formats: &Formats,
        source: &mut UplinkSource,
        place: Place,
        (codec, index, offset, view): (VideoCodec, PacketIndex, usize, &RtpPacket<'_>),
        counters: &mut Counters,
    ) -> Result<Arrival, DropCause> {
        let stream = &mut source.streams[place.encoding];
        stream.check_new(index)?;
        stream.nack.received(now, index);
        if view.payload().is_empty() {
            stream.renumber.hide(index);
            return Err(DropCause::PaddingOnly);
        }
        let placed = stream.renumber.place(index).ok_or(DropCause::TooOld)?;
        let codec = read_codec(formats, stream, codec, index, view)?;
        counters.keyframes_received += u64::from(codec.begins_key_frame());
        let layering_changed =
            source
                .layers
                .received(now, place.encoding, &codec.view(), view.bytes().len());
        counters.layering_changes_received += u64::from(layering_changed);
        Ok(Arrival {
            offset,
            source: place.source,
            index: placed,
            media: ArrivalMedia::Video {
                encoding: place.encoding,
                stored: index,
                codec,
                layering_changed,
            },
        })
    }

    fn note_received(&mut self, place: Place, result: &Result<Arrival, DropCause>) {
        let nack = &self.sources[place.source].streams[place.encoding].nack;
        self.nacks_due = earlier(self.nacks_due, nack.next_timeout());
        if let Err(DropCause::UnreadablePayload) = result {
            self.unreadable = Some(place.source);
        }
    }

    /// The source of a packet that could not be read since the last call: only
    /// a key frame helps.
    pub fn take_unreadable(&mut self) -> Option<&UplinkSource> {
        self.sources.get(self.unreadable.take()?)
    }

    fn note_arrival(
        &mut self,
        now: Instant,
        formats: &Formats,
        format: Format,
        view: &RtpPacket<'_>,
    ) {
        let id = match format {
            _ if !formats.transport_cc => None,
            Format::Audio { .. } => formats.transport_cc_audio,
            Format::Video { .. } | Format::Rtx { .. } => formats.transport_cc_video,
        };
        let number = id
            .and_then(|id| view.extension(id))
            .and_then(extension::transport_cc);
        if let Some(number) = number {
            self.origin.get_or_insert(now);
            if self.arrivals.received(now, number, view.marker()) {
                self.feedback_due = Some(view.ssrc());
            }
        }
    }

    /// Takes note of a sender report. The source's position and the encoding it
    /// is about, if it is about one of this sender's.
    pub fn sender_report(&mut self, now: Instant, info: &SenderInfo) -> Option<(usize, usize)> {
        let at = self
            .places
            .binary_search_by_key(&info.ssrc, |(ssrc, _)| *ssrc)
            .ok()?;
        let place = self.places[at].1;
        if place.rtx {
            return None;
        }
        let stream = &mut self.sources[place.source].streams[place.encoding];
        if let Some(statistics) = &mut stream.statistics {
            statistics.sender_report(now, info.compact_ntp());
        }
        Some((place.source, place.encoding))
    }

    /// Asks for a key frame of the source with this primary SSRC, if the limits
    /// allow it: appends the request to `out`.
    pub fn request_keyframe(
        &mut self,
        now: Instant,
        asker: Asker,
        primary: Ssrc,
        round_trip: Option<Duration>,
        (formats, sender): (&Formats, Ssrc),
        out: &mut Vec<u8>,
    ) -> Result<(), DropCause> {
        if !self.keyframes.accept(now, asker, primary, round_trip) {
            return Err(DropCause::KeyframeLimit);
        }
        if formats.pli || !formats.fir {
            keyframe_request::write_pli(sender, primary, out);
        } else {
            keyframe_request::write_fir(sender, primary, self.fir_command, out);
            self.fir_command = self.fir_command.wrapping_add(1);
        }
        Ok(())
    }

    /// When [`Self::take_feedback`] has something to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        earlier(self.nacks_due, self.report_due)
    }

    /// Whether [`Self::take_feedback`] has something to say now.
    pub fn has_feedback(&self, now: Instant) -> bool {
        self.feedback_due.is_some() || self.next_timeout().is_some_and(|due| due <= now)
    }

    /// Appends the RTCP that has come due: arrival feedback, NACKs, receiver
    /// reports, as one reduced-size compound (RFC 5506).
    pub fn take_feedback(
        &mut self,
        now: Instant,
        formats: &Formats,
        bridge: FeedbackSsrcs,
        counters: &mut Counters,
        out: &mut Vec<u8>,
    ) {
        if let Some(media) = self.feedback_due.take() {
            self.write_arrivals(now, bridge.video, media, out);
        }
        self.nacks_due = None;
        for stream in self
            .sources
            .iter_mut()
            .flat_map(|source| &mut source.streams)
        {
            self.numbers.clear();
            stream.nack.take_due(now, &mut self.numbers);
            if formats.nack && !self.numbers.is_empty() {
                counters.nacks_sent += self.numbers.len() as u64;
                for missing in self.numbers.chunks(MAX_NACKED) {
                    let missing = missing.iter().copied();
                    nack_packet::write(bridge.video, stream.ssrc(), missing, out);
                }
            }
            self.nacks_due = earlier(self.nacks_due, stream.nack.next_timeout());
        }
        if self.report_due.is_some_and(|due| due <= now) {
            self.write_reports(now, bridge.video, counters, out);
        }
    }

    fn write_arrivals(&mut self, now: Instant, sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) {
        let Some(origin) = self.origin else { return };
        let mut next = self.arrivals.first();
        let mut pending = self.arrivals.pending();
        while let Some(&(last, _)) = pending.last() {
            let mut at = 0;
            let arrivals = (next..=last).map(|number| {
                let (found, arrival) = *pending.get(at)?;
                (found == number).then(|| {
                    at += 1;
                    arrival.saturating_duration_since(origin)
                })
            });
            let count = self.feedback_count;
            let reported = transport_cc::write(sender, media, count, next as u16, arrivals, out);
            if reported == 0 {
                // Nothing came in a span longer than one packet covers: go on
                // from what came after it.
                next = pending.first().map_or(last, |(number, _)| *number);
                continue;
            }
            self.feedback_count = self.feedback_count.wrapping_add(1);
            next += reported as u64;
            pending = &pending[pending.partition_point(|(number, _)| *number < next)..];
        }
        self.arrivals.reported(now);
    }

    fn write_reports(
        &mut self,
        now: Instant,
        sender: Ssrc,
        counters: &mut Counters,
        out: &mut Vec<u8>,
    ) {
        let mut blocks = Vec::new();
        let streams = self
            .sources
            .iter_mut()
            .flat_map(|source| &mut source.streams);
        for stream in streams {
            let Some(statistics) = &mut stream.statistics else {
                continue;
            };
            if let Some(found) = statistics.report(now) {
                counters.packets_lost += u64::from(found.newly_lost);
                blocks.push(ReportBlock {
                    ssrc: stream.encoding.primary,
                    fraction_lost: found.fraction_lost,
                    cumulative_lost: found.cumulative_lost,
                    highest_sequence_number: found.highest,
                    jitter: found.jitter,
                    last_sender_report: found.last_sr,
                    delay_since_last_sender_report: found.delay_since_last_sr,
                });
            }
        }
        if blocks.is_empty() {
            self.report_due = None;
        } else {
            report::write_receiver_report(sender, &blocks, out);
            self.report_due = Some(now + REPORT_INTERVAL);
        }
    }

    /// Gives back memory that idle streams hold, and counts the time for which
    /// video was received. To be called about twice a second.
    pub fn tidy(&mut self, now: Instant, counters: &mut Counters) {
        for stream in self
            .sources
            .iter_mut()
            .flat_map(|source| &mut source.streams)
        {
            stream.store.tidy(now);
            let idle = stream
                .statistics
                .as_ref()
                .is_some_and(|s| now.saturating_duration_since(s.last_packet()) > STREAM_IDLE);
            if idle {
                finish_receiving(now, stream, counters);
            }
        }
    }

    /// The places of all video sources, and of each whether the sender began or
    /// ceased to send one of its encodings.
    pub fn take_layer_changes(&mut self, now: Instant) -> Vec<(usize, bool)> {
        let sources = self.sources.iter_mut();
        sources
            .filter(|source| source.source.media_type == MediaType::Video)
            .map(|source| (source.slot, source.layers.take_change(now)))
            .collect()
    }

    /// The sender leaves: counts what was still being received.
    pub fn finish(&mut self, now: Instant, counters: &mut Counters) {
        for stream in self
            .sources
            .iter_mut()
            .flat_map(|source| &mut source.streams)
        {
            finish_receiving(now, stream, counters);
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn finish_receiving(now: Instant, stream: &mut Stream, counters: &mut Counters) {
    if let Some(since) = stream.receiving_since.take() {
        let last = stream.statistics.as_ref().map_or(now, |s| s.last_packet());
        counters.video_stream_milliseconds_received +=
            last.saturating_duration_since(since).as_millis() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Codec, Encoding, Feedback, Media, Payload, VideoType};
    use crate::rtp::PayloadType;

    fn video_formats() -> Formats {
        let payload = |number, codec| Payload {
            payload_type: PayloadType(number),
            codec,
            clock_rate: 90_000,
            feedback: Feedback::default(),
        };
        let mut formats = Formats::default();
        formats.add(&[Media {
            media_type: MediaType::Video,
            payload_types: vec![
                payload(107, Codec::H264),
                payload(108, Codec::Other("H265".into())),
                payload(116, Codec::Other("ulpfec".into())),
            ],
            header_extensions: Vec::new(),
        }]);
        formats
    }

    /// What is not passed on leaves no gap, whatever it is.
    #[test]
    fn padding_fec_and_unknown_payload_types_are_counted_and_hidden() {
        let now = Instant::now();
        let mut uplink = Uplink::default();
        let mut counters = Counters::default();
        let source = Source {
            name: "a-v0".into(),
            media_type: MediaType::Video,
            video_type: VideoType::Camera,
            encodings: vec![Encoding {
                primary: Ssrc(7),
                rtx: None,
            }],
        };
        uplink.set_sources(now, vec![(0, source)], &mut counters);
        let formats = video_formats();
        let mut take = |n: u8, payload_type: u8, payload: &[u8]| {
            let header = [0x80, payload_type, 0, n, 0, 0, 0, n, 0, 0, 0, 7];
            let mut packet = [&header[..], payload].concat();
            let packet = (PacketIndex(0x1_0000 + u64::from(n)), &mut packet[..]);
            let mute = ForceMute::default();
            uplink
                .receive(now, &formats, 3, mute, packet, &mut counters)
                .map(|arrival| match arrival.media {
                    ArrivalMedia::Video {
                        codec: ArrivalCodec::Opaque { key },
                        ..
                    } => (arrival.index.0 & 0xffff, key),
                    other => panic!("{other:?}"),
                })
        };
        assert_eq!(take(1, 107, &[0x67, 1]), Ok((1, Some(true))));
        assert_eq!(take(2, 107, &[]), Err(DropCause::PaddingOnly));
        assert_eq!(take(3, 116, &[1, 2]), Err(DropCause::UnknownPayloadType));
        assert_eq!(take(4, 99, &[1, 2]), Err(DropCause::UnknownPayloadType));
        assert_eq!(take(5, 107, &[0x61, 1]), Ok((2, Some(false))));
        // Of a codec that is not known nothing can be told.
        assert_eq!(take(6, 108, &[0x26, 1]), Ok((3, None)));
    }
}
