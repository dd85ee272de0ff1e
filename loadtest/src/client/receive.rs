//! What a participant receives: packets to their streams, NACK and PLI for what
//! they lack, and at the end what was found of each sender.
//!
//! Packets that overtake the source-add of their SSRC are kept until it comes,
//! so that what a bridge sends first is judged as well; a client would drop them
//! and show its first picture after the source-add, which is how it is timed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtcp::Packet;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use viaduct_signalling::jitsi::SourceInfo;
use viaduct_signalling::sources::{ConferenceSources, MediaType, Semantics, VideoType};

use super::board::Board;
use super::feedback::Feedback;
use super::jingle::Formats;
use super::{Clock, kind_of_name, rtp};
use crate::measure::audio::AudioReceiver;
use crate::measure::delay::Histogram;
use crate::measure::pair::{Pair, Pairs};
use crate::measure::video::{Header, VideoReceiver};
use crate::measure::{Arrival, Expected};
use crate::scenario::Roster;
use crate::source::Codec;
use crate::source::tag::Kind;
use crate::source::video::Picture;

/// Interval of transport-wide feedback, as libwebrtc's at high rates.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// SSRCs of the bridge's choosing that are kept state for.
const MAX_STREAMS: usize = 4096;
/// Packets kept whose SSRC is not signalled yet: a sender's media may overtake
/// the source-add that tells of it.
const MAX_EARLY: usize = 1024;
/// How long they are kept.
const EARLY: Duration = Duration::from_secs(2);

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

impl ReceiveStats {
    /// Takes in what another participant received.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.octets += other.octets;
        self.unsignalled += other.unsignalled;
        self.malformed += other.malformed;
        self.odd_reports += other.odd_reports;
        self.reports += other.reports;
        self.nacks += other.nacks;
        self.key_requests += other.key_requests;
    }
}

/// What to expect of whom.
#[derive(Clone, Debug)]
pub struct Expectations {
    pub run: u32,
    /// Our own number.
    pub number: u16,
    pub roster: Roster,
    pub board: Arc<Board>,
    pub codec: Codec,
    /// Heights asked for.
    pub camera: u16,
    pub desktop: u16,
    /// A source of who was there that long must have been heard or seen.
    pub patience: Duration,
}

/// Receiver of everything.
#[derive(Debug)]
pub struct Receiver {
    expect: Expectations,
    formats: Formats,
    sources: ConferenceSources,
    routes: BTreeMap<u32, Route>,
    audio: BTreeMap<u16, AudioReceiver>,
    video: BTreeMap<StreamId, VideoReceiver>,
    /// Sources that presence says are muted.
    muted: BTreeSet<StreamId>,
    /// Since when media could come.
    connected: Option<Instant>,
    /// What was found of those who left, and who they are.
    done: Pairs,
    left: BTreeSet<u16>,
    delays: Histogram,
    first_audio: Option<Instant>,
    first_frame: Option<Instant>,
    early: VecDeque<(Instant, Bytes)>,
    /// SSRCs of which packets were dropped before they were signalled.
    beheaded: BTreeSet<u32>,
    feedback: Feedback,
    feedback_due: Instant,
    report_due: Instant,
    pub stats: ReceiveStats,
}

impl Receiver {
    pub fn new(expect: Expectations, now: Instant) -> Self {
        Self {
            expect,
            formats: Formats::default(),
            sources: ConferenceSources::default(),
            routes: BTreeMap::new(),
            audio: BTreeMap::new(),
            video: BTreeMap::new(),
            muted: BTreeSet::new(),
            connected: None,
            done: Pairs::default(),
            left: BTreeSet::new(),
            delays: Histogram::default(),
            first_audio: None,
            first_frame: None,
            early: VecDeque::new(),
            beheaded: BTreeSet::new(),
            feedback: Feedback::default(),
            feedback_due: now,
            report_due: now + REPORT_INTERVAL,
            stats: ReceiveStats::default(),
        }
    }

    /// A new session begins: its numbers and sources replace the former ones.
    pub fn begin(&mut self, formats: Formats, sources: ConferenceSources) {
        self.formats = formats;
        self.sources = sources;
        self.early.clear();
        self.beheaded.clear();
        self.audio.values_mut().for_each(AudioReceiver::restart);
        self.video.values_mut().for_each(VideoReceiver::restart);
        self.feedback.restart();
        self.route();
    }

    /// source-add.
    pub fn add(&mut self, now: Instant, clock: &Clock, sources: &ConferenceSources) {
        for (owner, more) in &sources.0 {
            self.sources.merge(owner, more);
        }
        self.route();
        let before = self.firsts();
        for (arrival, packet) in std::mem::take(&mut self.early) {
            if !self.deliver(arrival, clock, &packet) {
                self.early.push_back((arrival, packet));
            }
        }
        self.first_audio = before.0.or(self.first_audio.map(|_| now));
        self.first_frame = before.1.or(self.first_frame.map(|_| now));
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
    pub fn remove_owner(&mut self, now: Instant, owner: &str) {
        if self.sources.0.remove(owner).is_some() {
            self.route();
        }
        if let Some(sender) = self.expect.roster.number(owner) {
            self.judge(now, sender, None);
            self.left.insert(sender);
        }
    }

    /// An occupant says of its sources which are muted.
    pub fn set_muted(&mut self, now: Instant, owner: &str, info: &SourceInfo) {
        let Some(sender) = self.expect.roster.number(owner) else {
            return;
        };
        for (name, state) in &info.0 {
            let Some(kind) = kind_of_name(name) else {
                continue;
            };
            let stream = (sender, kind);
            if state.muted {
                self.muted.insert(stream);
            } else {
                self.muted.remove(&stream);
            }
            if let Some(audio) = self.audio.get_mut(&sender).filter(|_| kind == Kind::Audio) {
                audio.set_muted(now, state.muted);
            }
            if let Some(video) = self.video.get_mut(&stream) {
                video.set_muted(now, state.muted);
            }
        }
    }

    /// Media can come from `now` on.
    pub fn set_connected(&mut self, now: Instant) {
        self.connected.get_or_insert(now);
    }

    /// Names of the shared screens, which have a height of their own.
    pub fn desktops(&self) -> BTreeSet<String> {
        let sources = self.sources.0.values().flat_map(|owned| &owned.sources);
        sources
            .filter(|source| source.video_type == Some(VideoType::Desktop))
            .filter_map(|source| source.name.clone())
            .collect()
    }

    /// Nothing counts from `end` on: what was found of all sources. `settled`:
    /// all senders stopped then and it is long ago, so that what they sent must
    /// have come to its end.
    pub fn close(&mut self, end: Instant, settled: bool) -> Pairs {
        for sender in 0..self.expect.board.participants() {
            if sender != self.expect.number && !self.left.contains(&sender) {
                let sent = self.expect.board.audio_sent(sender);
                self.judge(end, sender, sent.filter(|_| settled));
            }
        }
        std::mem::take(&mut self.done)
    }

    /// Moves a sender's streams to what is done.
    fn judge(&mut self, end: Instant, sender: u16, audio_sent: Option<u32>) {
        for kind in [Kind::Audio, Kind::Camera, Kind::Desktop] {
            let mut pair = Pair::silent(self.expect.number, sender, kind);
            pair.expected = self.connected.is_some_and(|since| {
                let together = self.expect.board.overlap(sender, kind, since, end);
                together >= self.expect.patience && self.wanted(kind)
            });
            let known = match kind {
                Kind::Audio => self.audio.remove(&sender).map(|mut audio| {
                    audio.close(end, audio_sent);
                    pair.clone().audio(&audio)
                }),
                Kind::Camera | Kind::Desktop => {
                    self.video.remove(&(sender, kind)).map(|mut video| {
                        video.close(end);
                        pair.clone().video(&video)
                    })
                }
            };
            if known.is_some() || pair.expected {
                self.done.add(known.unwrap_or(pair));
            }
            self.muted.remove(&(sender, kind));
        }
    }

    fn height(&self, kind: Kind) -> Option<u16> {
        let codec = self.expect.codec;
        match kind {
            Kind::Audio => None,
            Kind::Camera => Picture::camera(codec, true).height_for(self.expect.camera),
            Kind::Desktop => Picture::desktop(codec, true).height_for(self.expect.desktop),
        }
    }

    fn wanted(&self, kind: Kind) -> bool {
        kind == Kind::Audio || self.height(kind).is_some()
    }

    /// Delays of all packets, and when the first packet of audio and the first
    /// picture came.
    pub fn delays(&self) -> &Histogram {
        &self.delays
    }

    pub fn firsts(&self) -> (Option<Instant>, Option<Instant>) {
        (self.first_audio, self.first_frame)
    }

    fn route(&mut self) {
        self.routes.clear();
        for (owner, sources) in &self.sources.0 {
            let sender = self.expect.roster.number(owner);
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

    /// The heights that are asked for, so that the change can be timed.
    pub fn set_max_height(&mut self, now: Instant, camera: u16) {
        self.expect.camera = camera;
        let heights = [Kind::Camera, Kind::Desktop].map(|kind| (kind, self.height(kind)));
        for ((_, of), video) in &mut self.video {
            for (_, height) in heights.iter().filter(|(kind, _)| kind == of) {
                video.heights.want(now, *height);
            }
        }
    }

    /// A decrypted RTP packet.
    pub fn receive(&mut self, now: Instant, clock: &Clock, packet: Bytes) {
        let Some(parsed) = rtp::Packet::parse(&packet) else {
            self.stats.malformed += 1;
            return;
        };
        self.stats.packets += 1;
        self.stats.octets += packet.len() as u64;
        let number = self
            .formats
            .transport_cc
            .and_then(|id| parsed.extension(id))
            .and_then(|value| Some(u16::from_be_bytes(*value.first_chunk::<2>()?)));
        if let Some(number) = number {
            self.feedback.note_arrival(now, number);
        }
        if self.deliver(now, clock, &packet) {
            return;
        }
        self.stats.unsignalled += 1;
        let fresh = |(arrival, _): &(Instant, Bytes)| now < *arrival + EARLY;
        while self.early.len() >= MAX_EARLY || self.early.front().is_some_and(|p| !fresh(p)) {
            let dropped = self.early.pop_front();
            if let Some(dropped) = dropped.as_ref().and_then(|p| rtp::Packet::parse(&p.1))
                && self.beheaded.len() < MAX_STREAMS
            {
                self.beheaded.insert(dropped.header.ssrc);
            }
        }
        self.early.push_back((now, packet));
    }

    /// Hands a packet to the stream it belongs to; false if nobody signalled
    /// its SSRC.
    fn deliver(&mut self, now: Instant, clock: &Clock, whole: &Bytes) -> bool {
        let Some(packet) = rtp::Packet::parse(whole) else {
            return true;
        };
        let header = packet.header;
        let Some(route) = self.routes.get(&header.ssrc).copied() else {
            return false;
        };
        let (stream, primary, retransmitted) = match route {
            Route::Media((sender, Kind::Audio)) => {
                self.feedback.note_reception(now, 48_000, &header);
                self.hear(now, clock, sender, &packet);
                return true;
            }
            Route::Media(stream) => {
                self.feedback.note_reception(now, 90_000, &header);
                (stream, header.ssrc, None)
            }
            Route::Rtx(stream, primary) => {
                // Without a number it is a probe.
                let Some((number, _)) = packet.payload.split_first_chunk::<2>() else {
                    return true;
                };
                (stream, primary, Some(u16::from_be_bytes(*number)))
            }
            Route::Other => return true,
        };
        let descriptor = self
            .formats
            .dependency_descriptor
            .and_then(|id| packet.extension(id))
            .map(|octets| whole.slice_ref(octets));
        let fields = Header {
            ssrc: primary,
            sequence: retransmitted.unwrap_or(header.sequence),
            timestamp: header.timestamp,
            marker: header.marker,
            descriptor,
        };
        let payload = match retransmitted {
            Some(_) => &packet.payload[2..],
            None => packet.payload,
        };
        if !self.video.contains_key(&stream) {
            let video = self.new_video(now, stream, primary);
            self.video.insert(stream, video);
        }
        let video = self.video.get_mut(&stream).expect("inserted where missing");
        let mut arrival = Arrival {
            now,
            epoch: clock.epoch,
            delays: &mut self.delays,
        };
        video.receive(&mut arrival, fields, payload, retransmitted.is_some());
        if self.first_frame.is_none() {
            self.first_frame = video.stats.first_frame;
        }
        true
    }

    fn hear(&mut self, now: Instant, clock: &Clock, sender: u16, packet: &rtp::Packet<'_>) {
        let header = &packet.header;
        let expected = Expected {
            run: self.expect.run,
            sender,
            kind: Kind::Audio,
        };
        let audio = self.audio.entry(sender).or_insert_with(|| {
            let mut audio = AudioReceiver::new(expected);
            audio.set_muted(now, self.muted.contains(&(sender, Kind::Audio)));
            audio
        });
        let mut arrival = Arrival {
            now,
            epoch: clock.epoch,
            delays: &mut self.delays,
        };
        let fields = (header.ssrc, header.sequence, header.timestamp);
        audio.receive(&mut arrival, fields, packet.payload);
        self.first_audio = self.first_audio.or(audio.stats.first);
    }

    fn new_video(&mut self, now: Instant, stream: StreamId, ssrc: u32) -> VideoReceiver {
        let (sender, kind) = stream;
        let expected = Expected {
            run: self.expect.run,
            sender,
            kind,
        };
        let mut video = VideoReceiver::new(expected, self.expect.codec);
        video.heights.want(now, self.height(kind));
        video.set_muted(now, self.muted.contains(&stream));
        if self.beheaded.remove(&ssrc) {
            video.behead();
        }
        video
    }

    /// A sender report from the bridge.
    pub fn receive_report(&mut self, now: Instant, report: &SenderReport) {
        self.stats.reports += 1;
        self.stats.odd_reports += u64::from(!self.feedback.receive_report(now, report));
    }

    /// Receiver reports of all streams heard since the last time.
    pub fn receiver_reports(&mut self, now: Instant, ssrc: u32) -> Vec<Box<dyn Packet>> {
        self.report_due = now + REPORT_INTERVAL;
        self.feedback.receiver_reports(now, ssrc)
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
        if let Some(feedback) = self.feedback.transport(ssrc, clock) {
            packets.push(Box::new(feedback));
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::media::{Media, Owner};
    use crate::client::send::Sender;
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;

    const FORMATS: Formats = Formats {
        audio: 111,
        video: 100,
        video_rtx: Some(96),
        audio_level: Some(1),
        transport_cc: Some(5),
        dependency_descriptor: Some(11),
    };

    const OWNER: Owner = Owner {
        run: 1,
        number: 0,
        senders: 1,
    };

    fn roster() -> Roster {
        Roster::new(7, 2)
    }

    fn receiver(start: Instant, codec: Codec) -> Receiver {
        let board = Board::new(start, 2);
        board.begin(0, Kind::Audio, start);
        board.begin(0, Kind::Camera, start);
        let expect = Expectations {
            run: 1,
            number: 1,
            roster: roster(),
            board: Arc::new(board),
            codec,
            camera: 180,
            desktop: 720,
            patience: Duration::from_secs(3),
        };
        let mut receiver = Receiver::new(expect, start);
        receiver.set_connected(start);
        receiver
    }

    /// Closes the receiver; the pairs of audio and video.
    fn judged(receiver: &mut Receiver, end: Instant) -> [Pair; 2] {
        let pairs = receiver.close(end, true).listed;
        pairs.try_into().expect("audio and video")
    }

    /// Twenty seconds of a microphone and the lowest encoding of a camera to
    /// one receiver, of whose video packets one in `loss` is dropped.
    fn call(loss: u32) -> (Receiver, [Pair; 2], Vec<TransportLayerCc>) {
        let start = Instant::now();
        let clock = Clock {
            epoch: start,
            epoch_ntp: 0,
        };
        let mut rng = SmallRng::seed_from_u64(4);
        let mut sender = Sender::new(FORMATS.clone(), &mut rng);
        let mut media = Media::new(OWNER, Picture::camera(Codec::Vp8, true), 5, start);
        let owner = roster().endpoint(0);
        let mut sources = ConferenceSources::default();
        sources.merge(&owner, &sender.signalled(&owner, 1).without_simulcast());
        let mut receiver = receiver(start, Codec::Vp8);
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
            sender.poll(now, start, &mut media, |_, _, packet| keep(packet));
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
                    let camera = media.video(Kind::Camera).expect("a camera");
                    camera.request_key_frame();
                }
            }
        }
        let pairs = judged(&mut receiver, start + Duration::from_secs(20));
        (receiver, pairs, feedbacks)
    }

    #[test]
    fn a_clean_call_is_clean() {
        let (receiver, [audio, video], feedbacks) = call(0);
        assert_eq!(
            (audio.delivered, audio.lost, audio.misnumbered),
            (1_000, 0, 0)
        );
        assert_eq!(
            (video.misnumbered, video.unmet_heights, video.strayed),
            (0, 0, 0)
        );
        assert!(audio.expected && video.expected && video.height == 180);
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

    /// What is on its way when a receiver leaves is not lost; at the end of a
    /// run all must have come.
    #[test]
    fn the_end_of_a_stream_counts_once_all_is_settled() {
        for settled in [false, true] {
            let (mut receiver, ..) = call(0);
            let start = Instant::now();
            receiver.expect.board.end(0, 1_007, start);
            receiver.audio.insert(0, {
                let mut audio = AudioReceiver::new(Expected {
                    run: 1,
                    sender: 0,
                    kind: Kind::Audio,
                });
                let mut source = crate::source::audio::AudioSource::new(1, 0, 1, 0, start);
                let packet = source.poll(start, start).expect("due");
                let mut arrival = Arrival {
                    now: start,
                    epoch: start,
                    delays: &mut receiver.delays,
                };
                audio.receive(&mut arrival, (5, 0, packet.timestamp), &packet.payload);
                audio
            });
            let lost = receiver.close(start, settled).totals.lost;
            assert_eq!(lost, if settled { 1_006 } else { 0 });
        }
    }

    #[test]
    fn lost_video_is_repaired_by_nack_and_rtx() {
        let (_, [_, video], feedbacks) = call(20);
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
        let (_, _, feedbacks) = call(20);
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
        let mut sender = Sender::new(FORMATS.clone(), &mut rng);
        let mut media = Media::new(OWNER, Picture::camera(Codec::Av1, true), 5, start);
        let mut receiver = receiver(start, Codec::Av1);
        receiver.begin(FORMATS.clone(), ConferenceSources::default());
        for ms in 0..500 {
            let now = start + Duration::from_millis(ms);
            sender.poll(now, start, &mut media, |_, _, packet| {
                receiver.receive(now, &clock, Bytes::copy_from_slice(packet));
                true
            });
        }
        let owner = roster().endpoint(0);
        let mut sources = ConferenceSources::default();
        sources.merge(&owner, &sender.signalled(&owner, 1).without_simulcast());
        let signalled = start + Duration::from_millis(700);
        receiver.add(signalled, &clock, &sources);
        assert!(receiver.early.is_empty());
        assert_eq!(receiver.firsts(), (Some(signalled), Some(signalled)));
        assert!(receiver.delays.max_ms() < 1.0);
        let [audio, video] = judged(&mut receiver, start + Duration::from_millis(600));
        assert_eq!(audio.delivered, 25);
        assert!(video.frames >= 14 && video.undecodable == 0);
    }

    /// A sender that was there long enough and never came is missing; one that
    /// left is judged when it does, whatever the board says later.
    #[test]
    fn a_silent_sender_is_missing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(receiver(start, Codec::Vp8).close(at(2), true).missing, 0);
        assert_eq!(receiver(start, Codec::Vp8).close(at(4), true).missing, 2);
        let mut left = receiver(start, Codec::Vp8);
        left.expect.board.end(0, 100, at(2));
        left.remove_owner(at(4), &roster().endpoint(0));
        assert_eq!(left.close(at(20), true).missing, 0);
        let mut unwanted = receiver(start, Codec::Vp8);
        unwanted.set_max_height(start, 0);
        assert_eq!(unwanted.close(at(4), true).missing, 1);
    }

    #[test]
    fn sources_that_were_removed_are_nobodys() {
        let (mut receiver, ..) = call(0);
        assert!(!receiver.routes.is_empty());
        receiver.remove_owner(Instant::now(), &roster().endpoint(0));
        assert!(receiver.routes.is_empty());
    }
}
