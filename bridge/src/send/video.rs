//! How one receiver gets packets of a video source again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rendition::View;
use super::{Tagging, Wire};
use crate::projection::{RtxHeader, write_rtx};
use crate::receive::store::{MAX_SLOTS, RETENTION};
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

/// What was sent again of a source.
#[derive(Debug)]
pub(super) struct Repeats {
    rtx: Option<Rtx>,
    /// Which packets, by the indices the receiver sees, and when; oldest first.
    resent: VecDeque<(PacketIndex, Instant)>,
}

impl Repeats {
    /// `rtx` is the SSRC of retransmissions, with the last index already used
    /// under it.
    pub(super) fn new(rtx: Option<(Ssrc, Option<PacketIndex>)>) -> Self {
        Self {
            rtx: rtx.map(|(ssrc, last)| Rtx {
                ssrc,
                last: last.unwrap_or_default(),
            }),
            resent: VecDeque::new(),
        }
    }

    /// The SSRC of retransmissions and the last index used under it.
    pub(super) fn last_used(&self) -> Option<(Ssrc, PacketIndex)> {
        let rtx = self.rtx.as_ref().filter(|rtx| rtx.last.0 > 0);
        rtx.map(|rtx| (rtx.ssrc, rtx.last))
    }

    /// Sends a packet of `source` again. `stored` finds a received packet by
    /// encoding and index.
    pub(super) fn resend<'a>(
        &mut self,
        source: View<'_>,
        sequence_number: u16,
        round_trip: Option<Duration>,
        stored: &impl Fn(u8, PacketIndex) -> Option<&'a [u8]>,
        mut tagging: Tagging<'_>,
        wire: &mut Wire<'_>,
    ) -> Result<(), DropCause> {
        let sent = source.find(sequence_number).ok_or(DropCause::NotInCache)?;
        let interval = round_trip.map_or(Duration::ZERO, |rtt| {
            (rtt * 9 / 10).min(rtt.saturating_sub(Duration::from_millis(5)))
        });
        let index = sent.rewrite.index;
        let last = self
            .resent
            .iter()
            .rev()
            .find(|(resent, _)| *resent == index);
        let last = last.map_or(sent.at, |(_, at)| *at);
        if tagging.now.saturating_duration_since(last) < interval.max(MIN_RESEND_INTERVAL) {
            return Err(DropCause::ResendTooSoon);
        }
        let packet = stored(sent.encoding, sent.stored)
            .and_then(|bytes| RtpPacket::parse(bytes).ok())
            .ok_or(DropCause::NotInCache)?;
        let payload_type = tagging.formats.rtx_for(packet.payload_type());
        let (Some(rtx), Some(payload_type)) = (&mut self.rtx, payload_type) else {
            return Err(DropCause::ResendWithoutRtx);
        };
        rtx.last.0 += 1;
        let header = RtxHeader {
            payload_type,
            ssrc: rtx.ssrc,
            index: rtx.last,
        };
        self.note(tagging.now, index);
        let extensions = tagging.extensions();
        let done = wire.rtp(header.index, |out| {
            write_rtx(&packet, &sent.rewrite, &header, &extensions, out);
        });
        wire.counters.retransmissions_sent += u64::from(done);
        Ok(())
    }

    fn note(&mut self, now: Instant, index: PacketIndex) {
        let past =
            |(_, at): &(PacketIndex, Instant)| now.saturating_duration_since(*at) >= RETENTION;
        while self.resent.len() >= MAX_SLOTS || self.resent.front().is_some_and(past) {
            self.resent.pop_front();
        }
        self.resent.push_back((index, now));
    }
}
