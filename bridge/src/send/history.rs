//! What a receiver was sent of a source: for each number it saw, which received
//! packet it was and how that was rewritten.

use std::time::{Duration, Instant};

use crate::projection::Rewrite;
use crate::rtp::PacketIndex;

/// Packets remembered, as many as [`crate::receive::store`] keeps.
const SLOTS: u64 = 512;
/// Without a packet for so long, the memory is given back.
const IDLE: Duration = Duration::from_secs(15);

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub struct SentPacket {
    /// Its index as the receiver counts, also in `rewrite`.
    pub rewrite: Rewrite,
    /// Where the received packet is.
    pub encoding: u8,
    pub stored: PacketIndex,
    /// When it was last sent.
    pub at: Instant,
}

/// A ring of sent packets.
#[derive(Debug, Default)]
pub struct History {
    slots: Vec<Option<SentPacket>>,
    newest: Option<(PacketIndex, Instant)>,
}

impl History {
    /// Notes a packet.
    pub fn push(&mut self, packet: SentPacket) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS as usize, None);
        }
        let index = packet.rewrite.index;
        if self.newest.is_none_or(|(newest, _)| newest < index) {
            self.newest = Some((index, packet.at));
        }
        self.slots[(index.0 % SLOTS) as usize] = Some(packet);
    }

    /// The packet of this sequence number, if it is remembered.
    pub fn find(&mut self, sequence_number: u16) -> Option<&mut SentPacket> {
        let (newest, _) = self.newest?;
        let index = newest.nearest(sequence_number);
        let slot = self.slots.get_mut((index.0 % SLOTS) as usize)?;
        slot.as_mut().filter(|packet| packet.rewrite.index == index)
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
}
