//! What receivers are sent of each source, and how they can get a packet again.
//!
//! Packets are written once, into the outbox, and sealed there. A packet index
//! is never given twice under one SSRC: a source that leaves and comes back
//! goes on where it was, since the keys are still the same.

pub mod audio;
pub mod history;
pub mod rendition;
pub mod reports;
mod video;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use audio::AudioOutput;
use rendition::{Renditions, View};
use reports::SentReports;
use video::Repeats;

use crate::command::{Encoding, MediaType};
use crate::formats::Formats;
use crate::outbox::Outbox;
use crate::projection::{EgressExtensions, LayerIndex};
use crate::rtcp;
use crate::rtcp::report::{ReportBlock, SenderInfo, write_sender_report};
use crate::rtcp::transport_cc::TransportFeedback;
use crate::rtp::{PacketIndex, Ssrc};
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
    pub fn rtp(&mut self, index: PacketIndex, write: impl FnOnce(&mut Vec<u8>)) -> bool {
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
    /// A packet with so many octets of payload was sent.
    pub fn count(&mut self, payload: usize) {
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

/// All that the receivers of a part of a conference get of one source. What one
/// packet needs lies together: it is for most of them.
#[derive(Debug)]
pub enum Outputs {
    /// By the receiver's place in the conference.
    Audio(Vec<Option<AudioOutput>>),
    Video(Renditions),
}

impl Outputs {
    /// Nobody gets anything yet.
    pub fn new(media_type: MediaType, primary: Ssrc) -> Self {
        match media_type {
            MediaType::Audio => Self::Audio(Vec::new()),
            MediaType::Video => Self::Video(Renditions::new(primary)),
        }
    }

    /// What was sent to a receiver.
    pub fn sent(&self, slot: usize) -> Option<&Sent> {
        match self {
            Self::Audio(outputs) => Some(&outputs.get(slot)?.as_ref()?.sent),
            Self::Video(renditions) => Some(renditions.view(slot)?.sent()),
        }
    }

    fn sent_mut(&mut self, slot: usize) -> Option<&mut Sent> {
        match self {
            Self::Audio(outputs) => Some(&mut outputs.get_mut(slot)?.as_mut()?.sent),
            Self::Video(renditions) => renditions.sent_mut(slot),
        }
    }

    /// A source as a receiver gets it, if it is of video.
    pub fn view(&self, slot: usize) -> Option<View<'_>> {
        match self {
            Self::Audio(_) => None,
            Self::Video(renditions) => renditions.view(slot),
        }
    }

    /// Whether any receiver is, or was, to get video of it.
    pub fn follows_video(&self) -> bool {
        matches!(self, Self::Video(renditions) if renditions.any())
    }

    /// A receiver is gone, or the source is. The last index used between them.
    pub fn remove(&mut self, slot: usize) -> Option<PacketIndex> {
        match self {
            Self::Audio(outputs) => outputs.get_mut(slot)?.take()?.last_used(),
            Self::Video(renditions) => renditions.remove(slot),
        }
    }

    /// Lets a receiver have an audio source, or changes whether it is wanted.
    pub fn set_audio(
        &mut self,
        slot: usize,
        receiver: &Downlink,
        (ssrc, wanted): (Ssrc, bool),
        counters: &mut Counters,
    ) {
        let Self::Audio(outputs) = self else { return };
        if outputs.len() <= slot {
            outputs.resize_with(slot + 1, || None);
        }
        if let Some(audio) = &mut outputs[slot] {
            audio.wanted = wanted;
        } else if let Some(last) = receiver.begin(ssrc, counters) {
            outputs[slot] = Some(AudioOutput::new(ssrc, wanted, last));
        }
    }

    /// Lets a receiver have a video source up to a layer; `place` is the
    /// source's. Whether it can.
    pub fn set_video(
        &mut self,
        now: Instant,
        slot: usize,
        receiver: &mut Downlink,
        (place, encoding): (usize, Encoding),
        target: LayerIndex,
        counters: &mut Counters,
    ) -> bool {
        let Self::Video(renditions) = self else {
            return false;
        };
        if renditions.has(slot) {
            renditions.aim(now, slot, Some(target));
            return true;
        }
        let last = receiver.begin_video(place, encoding, counters);
        if let Some(last) = last {
            renditions.add(now, slot, target, last);
        }
        last.is_some()
    }

    /// A receiver does not get a video source for now.
    pub fn suspend(&mut self, now: Instant, slot: usize) {
        if let Self::Video(renditions) = self {
            renditions.aim(now, slot, None);
        }
    }

    /// Whether to ask for a key frame now for a receiver; then it counts as asked
    /// for.
    pub fn wants_keyframe(&mut self, now: Instant, slot: usize) -> bool {
        match self {
            Self::Audio(_) => false,
            Self::Video(renditions) => renditions.wants_keyframe(now, slot),
        }
    }

    /// Gives back what idle outputs hold.
    pub fn tidy(&mut self, now: Instant) {
        if let Self::Video(renditions) = self {
            renditions.tidy(now);
        }
    }
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

/// What one receiver has in common for all sources that it gets. What a packet needs
/// comes last, next to [`Formats`].
#[derive(Debug)]
#[repr(C)]
pub struct Downlink {
    /// What was sent again, by the source's place in the conference.
    repeats: BTreeMap<usize, Repeats>,
    /// The last index used under each SSRC whose output is gone.
    used: BTreeMap<Ssrc, PacketIndex>,
    reports: SentReports,
    /// The share lost of what was sent last, from 0 to 1.
    pub loss: f32,
    origin: Instant,
    tagger: Tagger,
}

impl Downlink {
    /// Nothing is sent yet.
    pub fn new(now: Instant) -> Self {
        Self {
            repeats: BTreeMap::new(),
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

    /// A source is gone. `last` is the last index used of it.
    pub fn retire(&mut self, place: usize, primary: Ssrc, last: Option<PacketIndex>) {
        let repeats = self.repeats.remove(&place);
        let rtx = repeats.and_then(|repeats| repeats.last_used());
        self.used.extend(last.map(|last| (primary, last)));
        self.used.extend(rtx);
    }

    /// The last index used under an SSRC so far; `None` if no more SSRCs can be
    /// kept track of.
    fn begin(&self, ssrc: Ssrc, counters: &mut Counters) -> Option<Option<PacketIndex>> {
        let last = self.used.get(&ssrc).copied();
        if last.is_none() && self.used.len() >= MAX_USED {
            counters.drops[DropCause::TooManySsrcs] += 1;
            return None;
        }
        Some(last)
    }

    /// As [`Self::begin`], of a video source with its retransmissions.
    fn begin_video(
        &mut self,
        place: usize,
        encoding: Encoding,
        counters: &mut Counters,
    ) -> Option<Option<PacketIndex>> {
        let last = self.begin(encoding.primary, counters)?;
        let rtx = match encoding.rtx {
            Some(ssrc) => Some((ssrc, self.begin(ssrc, counters)?)),
            None => None,
        };
        self.repeats.insert(place, Repeats::new(rtx));
        Some(last)
    }

    /// What else a video packet to this receiver leaves with.
    pub fn extensions(&mut self, now: Instant, formats: &Formats) -> EgressExtensions {
        let mut tagging = Tagging {
            formats,
            tagger: &mut self.tagger,
            origin: self.origin,
            now,
        };
        tagging.extensions()
    }

    /// Answers a request for retransmission of what is at `place`, `source` to
    /// this receiver. `stored` finds a received packet by encoding and index.
    pub fn resend<'a>(
        &mut self,
        now: Instant,
        (place, source): (usize, Option<View<'_>>),
        numbers: impl Iterator<Item = u16>,
        stored: impl Fn(u8, PacketIndex) -> Option<&'a [u8]>,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        let round_trip = self.reports.round_trip;
        let (Some(source), Some(repeats)) = (source, self.repeats.get_mut(&place)) else {
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
            let done = repeats.resend(source, number, round_trip, &stored, tagging, wire);
            if let Err(cause) = done {
                wire.counters.drops[cause] += 1;
            }
        }
    }

    /// Passes a sender report on with this receiver's counts, if it gets what
    /// the report is about; `slot` is the receiver's place in the conference.
    pub fn send_report(
        &mut self,
        now: Instant,
        (outputs, slot): (&Outputs, usize),
        encoding: u8,
        info: &SenderInfo,
        wire: &mut Wire<'_>,
    ) {
        let (ssrc, timestamp, sent) = match outputs {
            Outputs::Audio(outputs) => match outputs.get(slot).and_then(Option::as_ref) {
                Some(audio) if audio.wanted => (audio.ssrc, info.rtp_timestamp, &audio.sent),
                _ => return,
            },
            Outputs::Video(renditions) => {
                let Some(view) = renditions.view(slot) else {
                    return;
                };
                let mapped = view.rewrite_sender_report(encoding, info.rtp_timestamp);
                let Some(timestamp) = mapped else { return };
                (renditions.ssrc(), timestamp, view.sent())
            }
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

    /// Takes a report block of this receiver, whose place in the conference is
    /// `slot`, about what it gets of `outputs` under `primary`.
    pub fn reported(
        &mut self,
        now: Instant,
        (outputs, slot): (&mut Outputs, usize),
        primary: Ssrc,
        block: &ReportBlock,
        counters: &mut Counters,
    ) {
        self.reports.answered(now, block);
        if let Some(sent) = outputs.sent_mut(slot)
            && block.ssrc == primary
        {
            sent.reported(block, counters);
            self.loss = f32::from(block.fraction_lost) / 256.0;
        }
    }

    /// Takes transport-wide feedback of this receiver.
    pub fn transport_feedback(&self, feedback: &TransportFeedback<'_>, counters: &mut Counters) {
        counters.tcc_unmatched_feedback += self.tagger.unmatched(feedback);
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
    fn extensions(&mut self) -> EgressExtensions {
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
        EgressExtensions {
            keep: formats.keep_video,
            dependency_descriptor: formats.dependency_descriptor,
            transport_cc,
            abs_send_time,
        }
    }
}
