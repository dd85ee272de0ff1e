//! A video source on its way to one receiver.

use std::time::{Duration, Instant};

use super::history::{History, SentPacket};
use super::{Forwarded, Sent, Tagging, Wire};
use crate::projection::{
    IncomingVideo, LayerIndex, Projection, RtxHeader, write_packet, write_rtx,
};
use crate::receive::keyframe::Pace;
use crate::rtp::{PacketIndex, RtpPacket, Ssrc};
use crate::stats::DropCause;

/// A packet is resent again only when the last one can have arrived: after
/// min(0.9 RTT, RTT - 5 ms) (`jitsi-videobridge:jitsi-media-transform/…/NackHandler`),
/// and never sooner than this, whatever the RTT. Our choice.
const MIN_RESEND_INTERVAL: Duration = Duration::from_millis(5);

/// Retransmissions under their own SSRC, numbered from 1.
#[derive(Debug)]
struct Rtx {
    ssrc: Ssrc,
    last: PacketIndex,
}

/// A video source on its way to one receiver.
#[derive(Debug)]
pub struct VideoOutput {
    pub projection: Projection,
    pub sent: Sent,
    /// When to ask for the key frame that the projection waits for.
    pub pace: Pace,
    /// Added to the projection's indices, in wrapping arithmetic, so that they
    /// follow those used before it was made.
    base: Option<u64>,
    highest: Option<PacketIndex>,
    rtx: Option<Rtx>,
    history: History,
}

impl VideoOutput {
    /// `last` is the last index already used under the SSRC, and likewise for
    /// the SSRC of retransmissions.
    pub fn new(
        ssrc: Ssrc,
        last: Option<PacketIndex>,
        rtx: Option<(Ssrc, Option<PacketIndex>)>,
    ) -> Self {
        Self {
            projection: Projection::new(ssrc),
            sent: Sent::default(),
            pace: Pace::default(),
            base: None,
            highest: last,
            rtx: rtx.map(|(ssrc, last)| Rtx {
                ssrc,
                last: last.unwrap_or_default(),
            }),
            history: History::default(),
        }
    }

    /// Its SSRCs and the last index used under each.
    pub fn last_used(&self) -> Vec<(Ssrc, Option<PacketIndex>)> {
        let rtx = self.rtx.iter();
        let rtx = rtx.map(|rtx| (rtx.ssrc, (rtx.last.0 > 0).then_some(rtx.last)));
        rtx.chain([(self.projection.ssrc(), self.highest)])
            .collect()
    }

    /// Aims for another layer.
    pub fn set_target(&mut self, target: Option<LayerIndex>) {
        if self.projection.target() != target {
            self.projection.set_target(target);
            self.pace.reset();
        }
    }

    /// Whether to ask for a key frame now; then it counts as asked for.
    pub fn wants_keyframe(&mut self, now: Instant) -> bool {
        if !self.projection.needs_keyframe() {
            if self.pace.is_waiting() {
                self.pace.reset();
            }
            return false;
        }
        let due = self.pace.due(now);
        if due {
            self.pace.asked(now);
        }
        due
    }

    pub(super) fn send(
        &mut self,
        incoming: &IncomingVideo<'_>,
        stored: PacketIndex,
        packet: &RtpPacket<'_>,
        mut tagging: Tagging<'_>,
        wire: &mut Wire<'_>,
    ) -> Forwarded {
        let now = incoming.arrival;
        let rewrite = self.projection.project(incoming);
        let wants_keyframe = self.wants_keyframe(now);
        let Some(mut rewrite) = rewrite else {
            return Forwarded {
                sent: false,
                wants_keyframe,
            };
        };
        let last = self.highest;
        let base = *self.base.get_or_insert_with(|| {
            last.map_or(0, |last| (last.0 + 1).wrapping_sub(rewrite.index.0))
        });
        rewrite.index.0 = rewrite.index.0.wrapping_add(base);
        self.highest = self.highest.max(Some(rewrite.index));
        let extensions = tagging.extensions();
        let sent = wire.rtp(rewrite.index, |out| {
            write_packet(packet, &rewrite, &extensions, out);
        });
        if sent {
            self.sent.count(packet.payload().len());
            self.history.push(&SentPacket {
                rewrite,
                encoding: incoming.encoding,
                stored,
                at: now,
            });
        }
        Forwarded {
            sent,
            wants_keyframe,
        }
    }

    pub(super) fn resend<'a>(
        &mut self,
        sequence_number: u16,
        round_trip: Option<Duration>,
        stored: &impl Fn(u8, PacketIndex) -> Option<&'a [u8]>,
        mut tagging: Tagging<'_>,
        wire: &mut Wire<'_>,
    ) -> Result<(), DropCause> {
        let sent = self
            .history
            .find(self.projection.ssrc(), sequence_number)
            .ok_or(DropCause::NotInCache)?;
        let interval = round_trip.map_or(Duration::ZERO, |rtt| {
            (rtt * 9 / 10).min(rtt.saturating_sub(Duration::from_millis(5)))
        });
        let since = tagging.now.saturating_duration_since(sent.at);
        if since < interval.max(MIN_RESEND_INTERVAL) {
            return Err(DropCause::ResendTooSoon);
        }
        let packet = stored(sent.encoding, sent.stored)
            .and_then(|bytes| RtpPacket::parse(bytes).ok())
            .ok_or(DropCause::NotInCache)?;
        let payload_type = tagging.formats.rtx_for(packet.payload_type());
        let (Some(rtx), Some(payload_type)) = (&mut self.rtx, payload_type) else {
            return Err(DropCause::ResendWithoutRtx);
        };
        self.history.resent(sent.rewrite.index, tagging.now);
        rtx.last.0 += 1;
        let header = RtxHeader {
            payload_type,
            ssrc: rtx.ssrc,
            index: rtx.last,
        };
        let extensions = tagging.extensions();
        let done = wire.rtp(header.index, |out| {
            write_rtx(&packet, &sent.rewrite, &header, &extensions, out);
        });
        wire.counters.retransmissions_sent += u64::from(done);
        Ok(())
    }

    /// Gives back memory if nothing was sent for long.
    pub fn tidy(&mut self, now: Instant) {
        self.history.tidy(now);
    }
}
