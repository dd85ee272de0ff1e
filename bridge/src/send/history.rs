//! What was sent of a source: for each number that receivers saw, which received
//! packet it was and how that was rewritten. A ring that grows until it holds
//! what a second brings.

use std::time::{Duration, Instant};

use crate::projection::{CodecRewrite, Rewrite};
use crate::receive::store::{MAX_SLOTS, MIN_SLOTS, RETENTION};
use crate::rtp::{PacketIndex, Ssrc};

/// Without a packet for so long, the memory is given back.
const IDLE: Duration = Duration::from_secs(15);

/// A packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// Its index as the receiver counts, also in `rewrite`.
    pub rewrite: Rewrite,
    /// Where the received packet is; of the index the low 32 bits count.
    pub encoding: u8,
    pub stored: PacketIndex,
    /// When it was sent first.
    pub at: Instant,
}

/// The same without what all packets of a history have in common. Indices are
/// the low 32 bits, and the time is in milliseconds since the first packet.
#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u32,
    stored: u32,
    timestamp: u32,
    at: u32,
    codec: CodecRewrite,
    encoding: u8,
    marker: bool,
}

/// A ring of sent packets.
#[derive(Clone, Debug, Default)]
pub struct History {
    slots: Vec<Option<Slot>>,
    /// When the first packet was sent.
    origin: Option<Instant>,
    newest: Option<(PacketIndex, Instant)>,
}

impl History {
    /// Notes a packet.
    pub fn push(&mut self, packet: &SentPacket) {
        let origin = *self.origin.get_or_insert(packet.at);
        let slot = Slot {
            index: packet.rewrite.index.0 as u32,
            stored: packet.stored.0 as u32,
            timestamp: packet.rewrite.timestamp,
            at: millis(packet.at, origin),
            codec: packet.rewrite.codec,
            encoding: packet.encoding,
            marker: packet.rewrite.marker,
        };
        let index = packet.rewrite.index;
        if self.newest.is_none_or(|(newest, _)| newest < index) {
            self.newest = Some((index, packet.at));
        }
        let retention = RETENTION.as_millis() as u32;
        let young = |old: &Slot| slot.at.saturating_sub(old.at) < retention;
        while self.slots.len() < MAX_SLOTS
            && self
                .slot_mut(slot.index)
                .is_none_or(|old| old.as_ref().is_some_and(young))
        {
            self.grow();
        }
        *self.slot_mut(slot.index).expect("it has slots by now") = Some(slot);
    }

    /// The packet of this sequence number, if it is remembered.
    pub fn find(&self, ssrc: Ssrc, sequence_number: u16) -> Option<SentPacket> {
        let (newest, _) = self.newest?;
        let index = newest.nearest(sequence_number);
        let at = self.place(index.0 as u32)?;
        let slot = self.slots[at].filter(|slot| slot.index == index.0 as u32)?;
        Some(SentPacket {
            rewrite: Rewrite {
                ssrc,
                index,
                timestamp: slot.timestamp,
                marker: slot.marker,
                codec: slot.codec,
            },
            encoding: slot.encoding,
            stored: PacketIndex(slot.stored.into()),
            at: self.origin? + Duration::from_millis(slot.at.into()),
        })
    }

    /// Gives the memory back if nothing was sent for long.
    pub fn tidy(&mut self, now: Instant) {
        if self
            .newest
            .is_some_and(|(_, at)| now.saturating_duration_since(at) >= IDLE)
        {
            *self = Self::default();
        }
    }

    fn place(&self, index: u32) -> Option<usize> {
        (index as usize).checked_rem(self.slots.len())
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Option<Slot>> {
        let at = self.place(index)?;
        self.slots.get_mut(at)
    }

    fn grow(&mut self) {
        let more = (self.slots.len() * 2).max(MIN_SLOTS);
        let former = std::mem::replace(&mut self.slots, vec![None; more]);
        for slot in former.into_iter().flatten() {
            *self.slot_mut(slot.index).expect("it has slots by now") = Some(slot);
        }
    }
}

/// Milliseconds between two times; they wrap after 49 days.
fn millis(at: Instant, origin: Instant) -> u32 {
    at.saturating_duration_since(origin).as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc(7);

    fn packet(start: Instant, n: u64, every: Duration) -> SentPacket {
        SentPacket {
            rewrite: Rewrite {
                ssrc: SSRC,
                index: PacketIndex((1 << 32) - 300 + n),
                timestamp: n as u32,
                marker: n.is_multiple_of(3),
                codec: CodecRewrite::None,
            },
            encoding: 2,
            stored: PacketIndex(400 + n),
            at: start + every * n as u32,
        }
    }

    #[test]
    fn a_second_is_remembered_and_at_most_so_many_packets() {
        let start = Instant::now();
        for (rate, slots) in [(20, 64), (180, 256), (5000, 512)] {
            let every = Duration::from_micros(1_000_000 / rate);
            let mut history = History::default();
            for n in 0..2000 {
                history.push(&packet(start, n, every));
            }
            assert_eq!(history.slots.len(), slots);
            for n in 0..2000 {
                let sent = packet(start, n, every);
                let number = sent.rewrite.index.sequence_number();
                let found = history.find(SSRC, number).map(|mut found| {
                    // Milliseconds are what is kept of the time.
                    assert!(sent.at - found.at < Duration::from_millis(1));
                    found.at = sent.at;
                    found
                });
                let kept = n >= 2000 - slots as u64;
                assert_eq!(found, kept.then_some(sent));
            }
            history.tidy(start + every * 1999 + IDLE);
            assert!(history.slots.is_empty());
        }
    }
}
