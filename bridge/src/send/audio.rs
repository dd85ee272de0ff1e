//! An audio source on its way to one receiver.

use super::{Sent, Wire};
use crate::formats::Formats;
use crate::projection::{CodecRewrite, EgressExtensions, Rewrite, write_packet};
use crate::rtp::{PacketIndex, RtpPacket, Ssrc};
use crate::stats::DropCause;

/// An audio source on its way to one receiver: timestamps and sequence numbers
/// as received, but for the rollovers, which a receiver counts from its own
/// first packet.
#[derive(Debug)]
pub struct AudioOutput {
    pub ssrc: Ssrc,
    pub wanted: bool,
    pub sent: Sent,
    /// What is taken from an index, in wrapping arithmetic.
    shift: Option<u64>,
    /// The last index used before this output was made.
    floor: Option<PacketIndex>,
    highest: Option<PacketIndex>,
}

impl AudioOutput {
    /// `floor` is the last index already used under this SSRC.
    pub fn new(ssrc: Ssrc, wanted: bool, floor: Option<PacketIndex>) -> Self {
        Self {
            ssrc,
            wanted,
            sent: Sent::default(),
            shift: None,
            floor,
            highest: None,
        }
    }

    /// Its SSRC and the last index used under it.
    pub fn last_used(&self) -> (Ssrc, Option<PacketIndex>) {
        (self.ssrc, self.highest.or(self.floor))
    }

    /// The index for the receiver. The first lies in the lower half of the
    /// numbers, so that the receiver, which takes it to be in the first cycle,
    /// cannot be wrong about it if packets come out of order (RFC 3711 §3.3.1).
    fn place(&mut self, index: PacketIndex) -> Option<PacketIndex> {
        let floor = self.floor;
        let shift = *self.shift.get_or_insert_with(|| {
            let first = floor.map_or(index.0 & 0x7fff, |floor| floor.0 + 1);
            index.0.wrapping_sub(first)
        });
        let placed = PacketIndex(index.0.wrapping_sub(shift));
        // Older than the first packet: before the beginning, or a number that
        // may have been used.
        let before = placed.0 > u64::MAX / 2 || floor.is_some_and(|floor| placed <= floor);
        (!before).then_some(placed)
    }

    pub(super) fn send(
        &mut self,
        index: PacketIndex,
        packet: &RtpPacket<'_>,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        let Some(index) = self.place(index) else {
            wire.counters.drops[DropCause::TooOld] += 1;
            return;
        };
        let rewrite = Rewrite {
            ssrc: self.ssrc,
            index,
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            codec: CodecRewrite::None,
        };
        let extensions = EgressExtensions {
            keep: formats.keep_audio,
            ..EgressExtensions::default()
        };
        self.highest = self.highest.max(Some(index));
        let sent = wire.rtp(index, |out| {
            write_packet(packet, &rewrite, &extensions, out);
        });
        if sent {
            self.sent.count(packet.payload().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_joins_late_starts_in_its_first_cycle() {
        let mut output = AudioOutput::new(Ssrc(1), true, None);
        let index = |i| Some(PacketIndex(i));
        assert_eq!(output.place(PacketIndex(0x7_ff05)), index(0x7f05));
        assert_eq!(output.place(PacketIndex(0x7_ff04)), index(0x7f04));
        assert_eq!(output.place(PacketIndex(0x8_0005)), index(0x8005));
        assert_eq!(output.place(PacketIndex(0x7_7fff)), None);
    }

    #[test]
    fn an_ssrc_that_comes_back_goes_on_where_it_was() {
        let mut output = AudioOutput::new(Ssrc(1), true, Some(PacketIndex(0x1_0000)));
        let index = |i| Some(PacketIndex(i));
        assert_eq!(output.place(PacketIndex(5)), index(0x1_0001));
        assert_eq!(output.place(PacketIndex(4)), None);
        assert_eq!(output.place(PacketIndex(6)), index(0x1_0002));
    }
}
