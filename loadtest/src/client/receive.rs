//! What a participant receives: packets to their streams, and the feedback a
//! client sends for them (receiver reports, NACK, PLI, transport-wide
//! congestion control).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rtc_shared::marshal::Unmarshal;
use rtcp::Packet;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc,
    SymbolTypeTcc, TransportLayerCc,
};
use rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use viaduct_signalling::sources::{ConferenceSources, MediaType, Semantics, VideoType};

use super::Clock;
use super::jingle::Formats;
use crate::measure::Expected;
use crate::measure::audio::AudioReceiver;
use crate::measure::video::VideoReceiver;
use crate::source::tag::Kind;

/// Interval of transport-wide feedback, as libwebrtc's at high rates.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// SSRCs of the bridge's choosing that are kept state for.
const MAX_STREAMS: usize = 4096;
/// Arrivals reported in one feedback packet.
const MAX_ARRIVALS: usize = 400;
/// Packets kept whose SSRC is not signalled yet: a sender's media may overtake
/// the source-add that tells of it.
const MAX_EARLY: usize = 1024;
/// How long they are kept.
const EARLY: Duration = Duration::from_secs(2);
/// Blocks of a receiver report (RFC 3550 §6.4.2).
const MAX_BLOCKS: usize = 31;

/// Which stream of which sender.
pub type StreamId = (u16, Kind);

/// Where packets of an SSRC belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Media(StreamId),
    /// Retransmissions of the stream with that primary SSRC.
    Rtx(StreamId, u32),
    /// Signalled, but by nobody of this run: the bridge's own, other people's.
    Other,
}

/// Packet counts outside of any stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveStats {
    pub packets: u64,
    pub octets: u64,
    /// Packets of SSRCs that nobody had signalled yet.
    pub unsignalled: u64,
    pub malformed: u64,
    /// Sender reports whose RTP time is not that of the packets around them.
    pub odd_reports: u64,
    pub reports: u64,
    pub nacks: u64,
    pub key_requests: u64,
}

/// Per SSRC, what a receiver report needs (RFC 3550 §A.3, §A.8).
#[derive(Debug)]
struct Reception {
    clock_rate: u32,
    base: u32,
    highest: u32,
    received: u32,
    expected_prior: u32,
    received_prior: u32,
    jitter: f64,
    timestamp: (u32, Instant),
    last_report: Option<(u32, Instant)>,
}

/// Receiver of everything.
#[derive(Debug)]
pub struct Receiver {
    run: u32,
    /// Endpoints of this run, and which sender they are.
    senders: BTreeMap<String, u16>,
    formats: Formats,
    sources: ConferenceSources,
    routes: BTreeMap<u32, Route>,
    pub audio: BTreeMap<u16, AudioReceiver>,
    pub video: BTreeMap<StreamId, VideoReceiver>,
    reception: BTreeMap<u32, Reception>,
    early: VecDeque<(Instant, rtp::Packet)>,
    arrivals: BTreeMap<u64, Instant>,
    newest_arrival: Option<u64>,
    reported_to: Option<u64>,
    feedback_count: u8,
    feedback_due: Instant,
    report_due: Instant,
    max_height: Option<(u16, Instant)>,
    pub stats: ReceiveStats,
}

impl Receiver {
    /// `senders`: the endpoints of this run and their numbers.
    pub fn new(run: u32, senders: BTreeMap<String, u16>, now: Instant) -> Self {
        Self {
            run,
            senders,
            formats: Formats::default(),
            sources: ConferenceSources::default(),
            routes: BTreeMap::new(),
            audio: BTreeMap::new(),
            video: BTreeMap::new(),
            reception: BTreeMap::new(),
            early: VecDeque::new(),
            arrivals: BTreeMap::new(),
            newest_arrival: None,
            reported_to: None,
            feedback_count: 0,
            feedback_due: now,
            report_due: now + REPORT_INTERVAL,
            max_height: None,
            stats: ReceiveStats::default(),
        }
    }

    /// A new session begins: its numbers and sources replace the former ones.
    pub fn begin(&mut self, formats: Formats, sources: ConferenceSources) {
        self.formats = formats;
        self.sources = sources;
        self.reception.clear();
        self.early.clear();
        self.audio.values_mut().for_each(AudioReceiver::restart);
        self.video.values_mut().for_each(VideoReceiver::restart);
        self.arrivals.clear();
        self.newest_arrival = None;
        self.reported_to = None;
        self.route();
    }

    /// source-add.
    pub fn add(&mut self, clock: &Clock, sources: &ConferenceSources) {
        for (owner, more) in &sources.0 {
            self.sources.merge(owner, more);
        }
        self.route();
        for (arrival, packet) in std::mem::take(&mut self.early) {
            if self.routes.contains_key(&packet.header.ssrc) {
                self.deliver(arrival, clock, &packet);
            } else {
                self.early.push_back((arrival, packet));
            }
        }
    }

    /// source-remove.
    pub fn remove(&mut self, sources: &ConferenceSources) {
        for (owner, less) in &sources.0 {
            if let Some(entry) = self.sources.0.get_mut(owner) {
                entry.remove(less);
            }
        }
        self.route();
    }

    /// The owner left the room; the focus sends no source-remove for that.
    pub fn remove_owner(&mut self, owner: &str) {
        if self.sources.0.remove(owner).is_some() {
            self.route();
        }
    }

    fn route(&mut self) {
        self.routes.clear();
        for (owner, sources) in &self.sources.0 {
            let sender = self.senders.get(owner).copied();
            for source in sources.sources.iter().take(MAX_STREAMS) {
                let kind = match (source.media_type, source.video_type) {
                    (MediaType::Audio, _) => Kind::Audio,
                    (MediaType::Video, Some(VideoType::Desktop)) => Kind::Desktop,
                    (MediaType::Video, _) => Kind::Camera,
                };
                let route = sender.map_or(Route::Other, |sender| Route::Media((sender, kind)));
                self.routes.insert(source.ssrc, route);
            }
            for group in sources
                .groups
                .iter()
                .filter(|g| g.semantics == Semantics::Fid)
            {
                if let [primary, rtx] = group.ssrcs[..]
                    && let Some(Route::Media(stream)) = self.routes.get(&primary).copied()
                {
                    self.routes.insert(rtx, Route::Rtx(stream, primary));
                }
            }
        }
    }

    /// The height that was asked for, so that the change can be timed.
    pub fn set_max_height(&mut self, now: Instant, height: u16) {
        self.max_height = Some((height, now));
        for video in self.video.values_mut() {
            video.want_height(now, height);
        }
    }

    /// A decrypted RTP packet.
    pub fn receive(&mut self, now: Instant, clock: &Clock, packet: bytes::Bytes) {
        let octets = packet.len() as u64;
        let Ok(packet) = rtp::Packet::unmarshal(&mut packet.clone()) else {
            self.stats.malformed += 1;
            return;
        };
        self.stats.packets += 1;
        self.stats.octets += octets;
        self.note_arrival(now, &packet.header);
        if self.routes.contains_key(&packet.header.ssrc) {
            self.deliver(now, clock, &packet);
            return;
        }
        self.stats.unsignalled += 1;
        let fresh = |(arrival, _): &(Instant, rtp::Packet)| now < *arrival + EARLY;
        while self.early.len() >= MAX_EARLY || self.early.front().is_some_and(|p| !fresh(p)) {
            self.early.pop_front();
        }
        self.early.push_back((now, packet));
    }

    /// Hands a packet to the stream it belongs to.
    fn deliver(&mut self, now: Instant, clock: &Clock, packet: &rtp::Packet) {
        let header = &packet.header;
        let Some(route) = self.routes.get(&header.ssrc).copied() else {
            return;
        };
        let rate = match route {
            Route::Media((_, Kind::Audio)) => 48_000,
            Route::Media(_) => 90_000,
            Route::Rtx(stream, primary) => {
                if let Some((number, payload)) = packet.payload.split_at_checked(2) {
                    let sequence = u16::from_be_bytes([number[0], number[1]]);
                    let fields = (primary, sequence, header.timestamp, header.marker);
                    self.video(now, stream)
                        .receive(now, clock.epoch, fields, payload, true);
                }
                return;
            }
            Route::Other => return,
        };
        self.note_reception(now, rate, header);
        match route {
            Route::Media((sender, Kind::Audio)) => {
                let expected = Expected {
                    run: self.run,
                    sender,
                    kind: Kind::Audio,
                };
                let fields = (header.ssrc, header.sequence_number, header.timestamp);
                self.audio
                    .entry(sender)
                    .or_insert_with(|| AudioReceiver::new(expected))
                    .receive(now, clock.epoch, fields, &packet.payload);
            }
            Route::Media(stream) => {
                let fields = (
                    header.ssrc,
                    header.sequence_number,
                    header.timestamp,
                    header.marker,
                );
                self.video(now, stream)
                    .receive(now, clock.epoch, fields, &packet.payload, false);
            }
            Route::Rtx(..) | Route::Other => {}
        }
    }

    fn video(&mut self, now: Instant, stream: StreamId) -> &mut VideoReceiver {
        let (sender, kind) = stream;
        let expected = Expected {
            run: self.run,
            sender,
            kind,
        };
        let max_height = self.max_height;
        self.video.entry(stream).or_insert_with(|| {
            let mut video = VideoReceiver::new(expected);
            if let Some((height, _)) = max_height {
                video.want_height(now, height);
            }
            video
        })
    }

    fn note_arrival(&mut self, now: Instant, header: &rtp::Header) {
        let Some(number) = self
            .formats
            .transport_cc
            .and_then(|id| header.get_extension(id))
            .and_then(|value| Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?)))
        else {
            return;
        };
        let newest = self.newest_arrival.unwrap_or(u64::from(number) + (1 << 32));
        let index =
            newest.wrapping_add_signed(i64::from(number.wrapping_sub(newest as u16) as i16));
        self.newest_arrival = Some(newest.max(index));
        if self.arrivals.len() < MAX_ARRIVALS {
            self.arrivals.insert(index, now);
        }
    }

    fn note_reception(&mut self, now: Instant, clock_rate: u32, header: &rtp::Header) {
        if self.reception.len() >= MAX_STREAMS {
            return;
        }
        let sequence = u32::from(header.sequence_number);
        let stats = self.reception.entry(header.ssrc).or_insert(Reception {
            clock_rate,
            base: sequence,
            highest: sequence,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter: 0.0,
            timestamp: (header.timestamp, now),
            last_report: None,
        });
        stats.received = stats.received.wrapping_add(1);
        let ahead = header.sequence_number.wrapping_sub(stats.highest as u16) as i16;
        if ahead > 0 {
            stats.highest = stats.highest.wrapping_add(ahead as u32);
            let moved = now
                .saturating_duration_since(stats.timestamp.1)
                .as_secs_f64();
            let ticks = header.timestamp.wrapping_sub(stats.timestamp.0) as i32;
            let transit = (moved * f64::from(clock_rate)) as i64 - i64::from(ticks);
            stats.jitter += (transit.unsigned_abs() as f64 - stats.jitter) / 16.0;
            stats.timestamp = (header.timestamp, now);
        }
    }

    /// A sender report from the bridge.
    pub fn receive_report(&mut self, now: Instant, report: &SenderReport) {
        self.stats.reports += 1;
        let Some(stats) = self.reception.get_mut(&report.ssrc) else {
            return;
        };
        let since = now
            .saturating_duration_since(stats.timestamp.1)
            .as_secs_f64();
        let expected = stats
            .timestamp
            .0
            .wrapping_add((since * f64::from(stats.clock_rate)) as u32);
        let off = report.rtp_time.wrapping_sub(expected) as i32;
        // A second is far more than any network's delay and far less than
        // what unmapped timestamps differ by.
        if off.unsigned_abs() > stats.clock_rate {
            self.stats.odd_reports += 1;
        }
        stats.last_report = Some(((report.ntp_time >> 16) as u32, now));
    }

    /// When [`Self::feedback`] should be called next.
    pub fn next_feedback(&self) -> Instant {
        self.feedback_due.min(self.report_due)
    }

    /// Whether receiver reports are due; they go with the sender reports.
    pub fn reports_due(&self, now: Instant) -> bool {
        now >= self.report_due
    }

    /// Feedback packets due at `now`, from `ssrc`.
    pub fn feedback(&mut self, now: Instant, ssrc: u32, clock: &Clock) -> Vec<Box<dyn Packet>> {
        let mut packets: Vec<Box<dyn Packet>> = Vec::new();
        if now < self.feedback_due {
            return packets;
        }
        self.feedback_due = now + FEEDBACK_INTERVAL;
        for video in self.video.values_mut() {
            let Some(media_ssrc) = video.ssrc() else {
                continue;
            };
            let (numbers, key) = video.feedback(now);
            if !numbers.is_empty() {
                self.stats.nacks += numbers.len() as u64;
                packets.push(Box::new(TransportLayerNack {
                    sender_ssrc: ssrc,
                    media_ssrc,
                    nacks: nack_pairs_from_sequence_numbers(&numbers),
                }));
            }
            if key {
                self.stats.key_requests += 1;
                packets.push(Box::new(PictureLossIndication {
                    sender_ssrc: ssrc,
                    media_ssrc,
                }));
            }
        }
        if let Some(feedback) = self.transport_feedback(ssrc, clock) {
            packets.push(Box::new(feedback));
        }
        packets
    }

    /// Receiver reports of all streams heard since the last time.
    pub fn receiver_reports(&mut self, now: Instant, ssrc: u32) -> Vec<Box<dyn Packet>> {
        self.report_due = now + REPORT_INTERVAL;
        let blocks: Vec<ReceptionReport> = self
            .reception
            .iter_mut()
            .filter(|(_, stats)| stats.received != stats.received_prior)
            .map(|(ssrc, stats)| stats.block(*ssrc, now))
            .collect();
        let report = |reports: Vec<ReceptionReport>| -> Box<dyn Packet> {
            Box::new(ReceiverReport {
                ssrc,
                reports,
                ..ReceiverReport::default()
            })
        };
        if blocks.is_empty() {
            return vec![report(Vec::new())];
        }
        blocks
            .chunks(MAX_BLOCKS)
            .map(|blocks| report(blocks.to_vec()))
            .collect()
    }

    /// Arrivals since the last feedback (draft-holmer-rmcat-transport-wide-cc §3.1).
    fn transport_feedback(&mut self, ssrc: u32, clock: &Clock) -> Option<TransportLayerCc> {
        let arrivals = std::mem::take(&mut self.arrivals);
        let (&first, _) = arrivals.first_key_value()?;
        let (&last, _) = arrivals.last_key_value()?;
        let from = self
            .reported_to
            .filter(|to| *to < first && first - to < MAX_ARRIVALS as u64)
            .map_or(first, |to| to + 1);
        self.reported_to = Some(last);
        if last - from >= 0x4000 {
            return None;
        }
        let micros = |at: Instant| at.saturating_duration_since(clock.epoch).as_micros() as i64;
        let start =
            micros(*arrivals.first_key_value()?.1).min(micros(*arrivals.last_key_value()?.1));
        let reference = start / 64_000;
        let mut before = reference * 64_000;
        let mut symbols = Vec::new();
        let mut deltas = Vec::new();
        for index in from..=last {
            let Some(at) = arrivals.get(&index) else {
                symbols.push(SymbolTypeTcc::PacketNotReceived);
                continue;
            };
            let ticks = (micros(*at) - before) / 250;
            let kind = match ticks {
                0..=255 => SymbolTypeTcc::PacketReceivedSmallDelta,
                -32_768..=32_767 => SymbolTypeTcc::PacketReceivedLargeDelta,
                _ => break,
            };
            before += ticks * 250;
            symbols.push(kind);
            deltas.push(RecvDelta {
                type_tcc_packet: kind,
                delta: ticks * 250,
            });
        }
        let count = symbols.len() as u16;
        let chunks = symbols
            .chunks(7)
            .map(|symbols| {
                let mut symbol_list = symbols.to_vec();
                symbol_list.resize(7, SymbolTypeTcc::PacketNotReceived);
                PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                    type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                    symbol_size: SymbolSizeTypeTcc::TwoBit,
                    symbol_list,
                })
            })
            .collect();
        self.feedback_count = self.feedback_count.wrapping_add(1);
        let media_ssrc = self.reception.keys().next().copied().unwrap_or(0);
        Some(TransportLayerCc {
            sender_ssrc: ssrc,
            media_ssrc,
            base_sequence_number: from as u16,
            packet_status_count: count,
            reference_time: (reference & 0xff_ffff) as u32,
            fb_pkt_count: self.feedback_count,
            packet_chunks: chunks,
            recv_deltas: deltas,
        })
    }
}

impl Reception {
    fn block(&mut self, ssrc: u32, now: Instant) -> ReceptionReport {
        let expected = self.highest.wrapping_sub(self.base).wrapping_add(1);
        let expected_interval = expected.wrapping_sub(self.expected_prior);
        let received_interval = self.received.wrapping_sub(self.received_prior);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8)
            .checked_div(expected_interval)
            .unwrap_or(0);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let (last_sender_report, delay) = self.last_report.map_or((0, 0), |(ntp, at)| {
            let since = now.saturating_duration_since(at).as_secs_f64();
            (ntp, (since * 65_536.0) as u32)
        });
        ReceptionReport {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff),
            last_sequence_number: self.highest,
            jitter: self.jitter as u32,
            last_sender_report,
            delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::send::Sender;
    use crate::source::Codec;
    use crate::source::audio::AudioSource;
    use crate::source::video::{CAMERA, VideoSource};
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    const FORMATS: Formats = Formats {
        audio: 111,
        video: 100,
        video_rtx: Some(96),
        audio_level: Some(1),
        transport_cc: Some(5),
    };

    /// Twenty seconds of a microphone and the lowest encoding of a camera to
    /// one receiver, of whose video packets one in `loss` is dropped.
    fn call(loss: u32) -> (Receiver, Vec<TransportLayerCc>) {
        let start = Instant::now();
        let clock = Clock {
            epoch: start,
            epoch_ntp: 0,
        };
        let mut rng = SmallRng::seed_from_u64(4);
        let mut sender = Sender::new(FORMATS.clone(), CAMERA.len(), &mut rng);
        let mut audio = AudioSource::new(1, 0, 1, 0, start);
        let mut video = VideoSource::new(1, 0, Codec::Vp8, &CAMERA, 5, start);
        let mut sources = ConferenceSources::default();
        sources.merge(
            "abcd1234",
            &sender.signalled("abcd1234", 1).without_simulcast(),
        );
        let mut receiver = Receiver::new(1, BTreeMap::from([("abcd1234".to_owned(), 0)]), start);
        receiver.begin(FORMATS.clone(), sources);
        let mut feedbacks = Vec::new();
        let mut due: Vec<TransportLayerNack> = Vec::new();
        for ms in 0..20_000 {
            let now = start + Duration::from_millis(ms);
            let mut packets = Vec::new();
            let mut keep = |packet: &[u8]| {
                packets.push(bytes::Bytes::copy_from_slice(packet));
                true
            };
            sender.poll(now, start, &mut audio, &mut video, &mut keep);
            for nack in due.drain(..) {
                sender.resend(now, &nack, &mut keep);
            }
            for packet in packets {
                let is_video = packet[1] & 0x7f == 100;
                if loss == 0 || !is_video || rng.random_range(0..loss) > 0 {
                    receiver.receive(now, &clock, packet);
                }
            }
            for packet in receiver.feedback(now, 77, &clock) {
                if let Some(nack) = packet.as_any().downcast_ref::<TransportLayerNack>() {
                    due.push(nack.clone());
                }
                if let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerCc>() {
                    feedbacks.push(feedback.clone());
                }
                if packet.as_any().is::<PictureLossIndication>() {
                    video.request_key_frame();
                }
            }
        }
        (receiver, feedbacks)
    }

    #[test]
    fn a_clean_call_is_clean() {
        let (receiver, feedbacks) = call(0);
        let audio = &receiver.audio[&0].stats;
        assert_eq!(
            (audio.received, audio.lost, audio.misnumbered),
            (1_000, 0, 0)
        );
        let video = &receiver.video[&(0, Kind::Camera)].stats;
        assert_eq!((video.lost, video.recovered, video.undecodable), (0, 0, 0));
        assert!(video.frames >= 598, "{} frames", video.frames);
        // The two other encodings are signalled by nobody.
        assert!(receiver.stats.unsignalled > 0 && receiver.stats.nacks == 0);
        let reported: u64 = feedbacks
            .iter()
            .map(|f| u64::from(f.packet_status_count))
            .sum();
        assert!(reported >= receiver.stats.packets - 50, "{reported}");
    }

    #[test]
    fn lost_video_is_repaired_by_nack_and_rtx() {
        let (receiver, feedbacks) = call(20);
        let video = &receiver.video[&(0, Kind::Camera)].stats;
        assert!(video.recovered > 10, "{} recovered", video.recovered);
        assert_eq!((video.lost, video.reordered, video.undecodable), (0, 0, 0));
        assert_eq!(video.misnumbered, 0);
        let holes: usize = feedbacks
            .iter()
            .map(|f| usize::from(f.packet_status_count) - f.recv_deltas.len())
            .sum();
        assert!(holes > 10, "{holes} packets reported missing");
    }

    /// What is written for the bridge reads back.
    #[test]
    fn feedback_can_be_read() {
        let (_, feedbacks) = call(20);
        for feedback in feedbacks {
            let packets: Vec<Box<dyn Packet>> = vec![Box::new(feedback.clone())];
            let mut octets = rtcp::packet::marshal(&packets).expect("written").freeze();
            let read = rtcp::packet::unmarshal(&mut octets).expect("read");
            let read = read[0]
                .as_any()
                .downcast_ref::<TransportLayerCc>()
                .expect("the same kind");
            assert_eq!(read.recv_deltas, feedback.recv_deltas);
            assert_eq!(read.base_sequence_number, feedback.base_sequence_number);
        }
    }

    /// Media that overtakes the source-add is not lost.
    #[test]
    fn early_packets_wait_for_their_source() {
        let start = Instant::now();
        let clock = Clock {
            epoch: start,
            epoch_ntp: 0,
        };
        let mut rng = SmallRng::seed_from_u64(4);
        let mut sender = Sender::new(FORMATS.clone(), CAMERA.len(), &mut rng);
        let mut audio = AudioSource::new(1, 0, 1, 0, start);
        let mut video = VideoSource::new(1, 0, Codec::Vp8, &CAMERA, 5, start);
        let mut receiver = Receiver::new(1, BTreeMap::from([("abcd1234".to_owned(), 0)]), start);
        receiver.begin(FORMATS.clone(), ConferenceSources::default());
        for ms in 0..500 {
            let now = start + Duration::from_millis(ms);
            sender.poll(now, start, &mut audio, &mut video, |packet| {
                receiver.receive(now, &clock, bytes::Bytes::copy_from_slice(packet));
                true
            });
        }
        let mut sources = ConferenceSources::default();
        sources.merge(
            "abcd1234",
            &sender.signalled("abcd1234", 1).without_simulcast(),
        );
        receiver.add(&clock, &sources);
        assert_eq!(receiver.audio[&0].stats.received, 25);
        let video = &receiver.video[&(0, Kind::Camera)].stats;
        assert!(video.frames >= 14 && video.undecodable == 0);
        assert!(video.delay.quantile_ms(1.0) < 1.0);
        assert!(
            !receiver.early.is_empty(),
            "two encodings are still nobody's"
        );
    }

    #[test]
    fn sources_that_were_removed_are_nobodys() {
        let (mut receiver, _) = call(0);
        assert!(!receiver.routes.is_empty());
        receiver.remove_owner("abcd1234");
        assert!(receiver.routes.is_empty());
    }
}
