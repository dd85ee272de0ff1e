//! One receiver: what it is sent of each source, and how it can get a packet
//! again.
//!
//! Packets are written once, into the outbox, and sealed there. A packet index
//! is never given twice under one SSRC: a source that leaves and comes back
//! goes on where it was, since the keys are still the same.

pub mod audio;
pub mod history;
pub mod reports;
pub mod video;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use audio::AudioOutput;
use reports::SentReports;
use video::VideoOutput;

use crate::command::Encoding;
use crate::formats::Formats;
use crate::outbox::Outbox;
use crate::projection::{IncomingVideo, Projection};
use crate::rtcp;
use crate::rtcp::report::{ReportBlock, SenderInfo, write_sender_report};
use crate::rtcp::transport_cc::TransportFeedback;
use crate::rtp::{PacketIndex, RtpPacket, Ssrc};
use crate::stats::{Counters, DropCause};
use crate::transport::srtp;

/// SSRCs whose last index is remembered after their source has gone. A
/// conference would have to churn through so many for the next to be refused.
const MAX_USED: usize = 16_384;
/// The largest datagram sent: an Ethernet frame's. Media is passed on in the size
/// in which it came, or a few octets more: its sender knows the path to us, and
/// browsers stay below 1200.
const MAX_DATAGRAM: usize = 1500;
/// Octets of RTCP in one datagram: what an IPv6 packet of 1280 octets leaves
/// beside its headers (40 and 8), the tag of SRTCP (16) and its index (4).
const MAX_RTCP: usize = 1280 - 40 - 8 - 16 - 4;

/// The way out to one receiver.
pub struct Wire<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub srtp: &'a mut srtp::Outbound,
    pub outbox: &'a mut Outbox,
    pub counters: &'a mut Counters,
}

impl Wire<'_> {
    /// Sends RTP that `write` appends, under this index.
    fn rtp(&mut self, index: PacketIndex, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (srtp, counters) = (&mut *self.srtp, &mut *self.counters);
        self.outbox.write(self.from, self.to, |arena, start| {
            write(arena);
            srtp.seal_rtp(index, arena, start);
            let len = arena.len() - start;
            if len > MAX_DATAGRAM {
                counters.drops[DropCause::TooLong] += 1;
                return false;
            }
            counters.packets_sent += 1;
            counters.bytes_sent += len as u64;
            true
        })
    }

    /// Sends the RTCP that `write` appends, if it appends any, in as many
    /// datagrams as it takes.
    pub fn rtcp(&mut self, write: impl FnOnce(&mut Vec<u8>, &mut Counters)) {
        let (srtp, counters) = (&mut *self.srtp, &mut *self.counters);
        let mut long = Vec::new();
        self.outbox.write(self.from, self.to, |arena, start| {
            write(arena, counters);
            if arena.len() - start > MAX_RTCP {
                long.extend_from_slice(&arena[start..]);
            }
            if arena.len() == start || !long.is_empty() {
                return false;
            }
            srtp.seal_rtcp(arena, start);
            true
        });
        for part in rtcp::parts(&long, MAX_RTCP) {
            self.outbox.write(self.from, self.to, |arena, start| {
                arena.extend_from_slice(part);
                srtp.seal_rtcp(arena, start);
                true
            });
        }
    }
}

/// What was sent under one SSRC, as sender reports tell it, and what the
/// receiver says of it.
#[derive(Debug, Default)]
pub struct Sent {
    pub packets: u32,
    pub octets: u32,
    /// Highest sequence number and packets lost of the last report.
    reported: Option<(u32, i32)>,
}

impl Sent {
    fn count(&mut self, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
    }

    fn reported(&mut self, block: &ReportBlock, counters: &mut Counters) {
        let now = (block.highest_sequence_number, block.cumulative_lost);
        if let Some((highest, lost)) = self.reported.replace(now) {
            let expected = now.0.wrapping_sub(highest);
            // A report that went back says nothing.
            if expected < 1 << 16 {
                counters.outgoing_expected += u64::from(expected);
                let lost = u32::try_from(now.1.saturating_sub(lost)).unwrap_or(0);
                counters.outgoing_lost += u64::from(lost.min(expected));
            }
        }
    }
}

/// What a receiver gets of one source.
#[derive(Debug)]
enum Output {
    Audio(AudioOutput),
    Video(Box<VideoOutput>),
}

/// Numbers packets for transport-wide congestion control, from 1.
#[derive(Debug, Default)]
struct Tagger {
    last: u64,
}

impl Tagger {
    fn next(&mut self) -> u16 {
        self.last += 1;
        self.last as u16
    }

    /// How many packets that were never sent the feedback speaks of.
    fn unmatched(&self, feedback: &TransportFeedback<'_>) -> u64 {
        let newest = PacketIndex(self.last);
        feedback
            .arrivals()
            .filter(|(number, _)| newest.nearest(*number).0 > self.last)
            .count() as u64
    }
}

/// What became of a video packet for this receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    pub sent: bool,
    /// The receiver cannot go on without a key frame, and it is time to ask.
    pub wants_keyframe: bool,
}

/// All that goes to one receiver.
#[derive(Debug)]
pub struct Downlink {
    /// By the source's place in the conference.
    outputs: Vec<Option<Output>>,
    /// The last index used under each SSRC whose output is gone.
    used: BTreeMap<Ssrc, PacketIndex>,
    tagger: Tagger,
    reports: SentReports,
    origin: Instant,
    /// The share lost of what was sent last, from 0 to 1.
    pub loss: f32,
}

impl Downlink {
    /// Nothing is sent yet.
    pub fn new(now: Instant) -> Self {
        Self {
            outputs: Vec::new(),
            used: BTreeMap::new(),
            tagger: Tagger::default(),
            reports: SentReports::default(),
            origin: now,
            loss: 0.0,
        }
    }

    /// Round-trip time to this receiver, once it is known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.reports.round_trip
    }

    /// Begins to send an audio source, or changes whether it is wanted.
    pub fn set_audio(&mut self, slot: usize, ssrc: Ssrc, wanted: bool, counters: &mut Counters) {
        if let Some(Output::Audio(audio)) = self.outputs.get_mut(slot).and_then(Option::as_mut) {
            audio.wanted = wanted;
        } else if let Some(last) = self.begin(ssrc, counters) {
            self.put(slot, Output::Audio(AudioOutput::new(ssrc, wanted, last)));
        }
    }

    /// What is sent of a video source; made at the first call.
    pub fn video_mut(
        &mut self,
        slot: usize,
        encoding: Encoding,
        counters: &mut Counters,
    ) -> Option<&mut VideoOutput> {
        if !matches!(self.outputs.get(slot), Some(Some(Output::Video(_)))) {
            let last = self.begin(encoding.primary, counters)?;
            let rtx = match encoding.rtx {
                Some(ssrc) => Some((ssrc, self.begin(ssrc, counters)?)),
                None => None,
            };
            let output = VideoOutput::new(encoding.primary, last, rtx);
            self.put(slot, Output::Video(Box::new(output)));
        }
        self.existing_video_mut(slot)
    }

    /// What is sent of a video source, if anything ever was to be.
    pub fn existing_video_mut(&mut self, slot: usize) -> Option<&mut VideoOutput> {
        match self.outputs.get_mut(slot)?.as_mut()? {
            Output::Video(video) => Some(video),
            Output::Audio(_) => None,
        }
    }

    /// What was sent of a source, if anything ever was to be.
    pub fn sent(&self, slot: usize) -> Option<&Sent> {
        match self.outputs.get(slot)?.as_ref()? {
            Output::Audio(audio) => Some(&audio.sent),
            Output::Video(video) => Some(&video.sent),
        }
    }

    /// The projection of a video source, if anything ever was to be sent of it.
    pub fn projection(&self, slot: usize) -> Option<&Projection> {
        match self.outputs.get(slot)?.as_ref()? {
            Output::Video(video) => Some(&video.projection),
            Output::Audio(_) => None,
        }
    }

    /// Whether a video source was ever to be sent. Then its packets have to pass
    /// by here even while it is suspended, so that it is known where it may go on.
    pub fn follows_video(&self, slot: usize) -> bool {
        matches!(self.outputs.get(slot), Some(Some(Output::Video(_))))
    }

    /// A source is gone.
    pub fn remove(&mut self, slot: usize) {
        let output = self.outputs.get_mut(slot).and_then(Option::take);
        let mut retire = |(ssrc, last): (Ssrc, Option<PacketIndex>)| {
            if let Some(last) = last {
                self.used.insert(ssrc, last);
            }
        };
        match output {
            Some(Output::Audio(audio)) => retire(audio.last_used()),
            Some(Output::Video(video)) => video.last_used().into_iter().for_each(retire),
            None => {}
        }
    }

    /// The last index used under an SSRC so far; `None` if no more SSRCs can be
    /// kept track of.
    fn begin(&mut self, ssrc: Ssrc, counters: &mut Counters) -> Option<Option<PacketIndex>> {
        let last = self.used.get(&ssrc).copied();
        if last.is_none() && self.used.len() >= MAX_USED {
            counters.drops[DropCause::TooManySsrcs] += 1;
            return None;
        }
        Some(last)
    }

    fn put(&mut self, slot: usize, output: Output) {
        if self.outputs.len() <= slot {
            self.outputs.resize_with(slot + 1, || None);
        }
        self.outputs[slot] = Some(output);
    }

    /// Sends an audio packet, if this receiver wants its source. `red`: it is
    /// redundant audio.
    pub fn send_audio(
        &mut self,
        slot: usize,
        index: PacketIndex,
        (packet, red): (&RtpPacket<'_>, bool),
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        if let Some(Some(Output::Audio(audio))) = self.outputs.get_mut(slot)
            && audio.wanted
            && formats.audio
        {
            audio.send(index, packet, red, formats, wire);
        }
    }

    /// Sends a video packet, if the layer this receiver is to get needs it.
    pub fn send_video(
        &mut self,
        slot: usize,
        incoming: &IncomingVideo<'_>,
        stored: PacketIndex,
        packet: &RtpPacket<'_>,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) -> Forwarded {
        let Some(Some(Output::Video(video))) = self.outputs.get_mut(slot) else {
            return Forwarded::default();
        };
        let tagging = Tagging {
            formats,
            tagger: &mut self.tagger,
            origin: self.origin,
            now: incoming.arrival,
        };
        video.send(incoming, stored, packet, tagging, wire)
    }

    /// Answers a request for retransmission. `stored` finds a received packet by
    /// encoding and index.
    pub fn resend<'a>(
        &mut self,
        now: Instant,
        slot: usize,
        numbers: impl Iterator<Item = u16>,
        stored: impl Fn(u8, PacketIndex) -> Option<&'a [u8]>,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        let round_trip = self.reports.round_trip;
        let Some(Some(Output::Video(video))) = self.outputs.get_mut(slot) else {
            wire.counters.drops[DropCause::NotInCache] += numbers.count() as u64;
            return;
        };
        for number in numbers {
            let tagging = Tagging {
                formats,
                tagger: &mut self.tagger,
                origin: self.origin,
                now,
            };
            if let Err(cause) = video.resend(number, round_trip, &stored, tagging, wire) {
                wire.counters.drops[cause] += 1;
            }
        }
    }

    /// Passes a sender report on with this receiver's counts, if it gets what
    /// the report is about.
    pub fn send_report(
        &mut self,
        now: Instant,
        slot: usize,
        encoding: u8,
        info: &SenderInfo,
        wire: &mut Wire<'_>,
    ) {
        let (ssrc, timestamp, sent) = match self.outputs.get(slot) {
            Some(Some(Output::Audio(audio))) if audio.wanted => {
                (audio.ssrc, info.rtp_timestamp, &audio.sent)
            }
            Some(Some(Output::Video(video))) => {
                let mapped = video
                    .projection
                    .rewrite_sender_report(encoding, info.rtp_timestamp);
                let Some(timestamp) = mapped else { return };
                (video.projection.ssrc(), timestamp, &video.sent)
            }
            _ => return,
        };
        if sent.packets == 0 {
            return;
        }
        let info = SenderInfo {
            ssrc,
            ntp: info.ntp,
            rtp_timestamp: timestamp,
            packet_count: sent.packets,
            octet_count: sent.octets,
        };
        wire.rtcp(|out, _| write_sender_report(&info, out));
        self.reports.sent(now, ssrc, info.compact_ntp());
    }

    /// Takes a report block of this receiver about what is at `slot`.
    pub fn reported(
        &mut self,
        now: Instant,
        slot: usize,
        block: &ReportBlock,
        counters: &mut Counters,
    ) {
        self.reports.answered(now, block);
        let sent = match self.outputs.get_mut(slot) {
            Some(Some(Output::Audio(audio))) => &mut audio.sent,
            Some(Some(Output::Video(video))) if video.projection.ssrc() == block.ssrc => {
                &mut video.sent
            }
            _ => return,
        };
        sent.reported(block, counters);
        self.loss = f32::from(block.fraction_lost) / 256.0;
    }

    /// Takes transport-wide feedback of this receiver.
    pub fn transport_feedback(&self, feedback: &TransportFeedback<'_>, counters: &mut Counters) {
        counters.tcc_unmatched_feedback += self.tagger.unmatched(feedback);
    }

    /// Gives back memory that idle outputs hold.
    pub fn tidy(&mut self, now: Instant) {
        for output in self.outputs.iter_mut().flatten() {
            if let Output::Video(video) = output {
                video.tidy(now);
            }
        }
    }
}

/// What numbers and times a video packet leaves with.
struct Tagging<'a> {
    formats: &'a Formats,
    tagger: &'a mut Tagger,
    origin: Instant,
    now: Instant,
}

impl Tagging<'_> {
    fn extensions(&mut self) -> crate::projection::EgressExtensions {
        let formats = self.formats;
        let transport_cc = formats
            .transport_cc_video
            .map(|id| (id, self.tagger.next()));
        let abs_send_time = match (transport_cc, formats.abs_send_time) {
            (None, Some(id)) => {
                // 6.18 fixed-point seconds.
                let micros = self.now.saturating_duration_since(self.origin).as_micros();
                Some((id, ((micros << 18) / 1_000_000) as u32 & 0xff_ffff))
            }
            _ => None,
        };
        crate::projection::EgressExtensions {
            keep: formats.keep_video,
            dependency_descriptor: formats.dependency_descriptor,
            transport_cc,
            abs_send_time,
        }
    }
}
