//! The received packets of one SSRC, kept once whatever the number of
//! receivers, for their requests for retransmission.

use std::time::{Duration, Instant};

use crate::rtp::PacketIndex;

/// Packets kept (JVB keeps 500 for each receiver).
const SLOTS: u64 = 512;
/// Without a packet for so long, the memory is given back (as with JVB).
const IDLE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct Slot {
    index: PacketIndex,
    bytes: Vec<u8>,
}

/// A ring of received packets, decrypted, retransmissions restored.
#[derive(Debug, Default)]
pub struct PacketStore {
    slots: Vec<Slot>,
    last: Option<Instant>,
}

impl PacketStore {
    /// Keeps a packet in the place of the one 512 before it.
    pub fn keep(&mut self, now: Instant, index: PacketIndex, packet: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS as usize, Slot::default);
        }
        self.last = Some(now);
        let slot = &mut self.slots[(index.0 % SLOTS) as usize];
        slot.index = index;
        slot.bytes.clear();
        slot.bytes.extend_from_slice(packet);
    }

    /// A packet, if it is still here.
    pub fn get(&self, index: PacketIndex) -> Option<&[u8]> {
        let slot = self.slots.get((index.0 % SLOTS) as usize)?;
        (slot.index == index && !slot.bytes.is_empty()).then_some(&slot.bytes)
    }

    /// Gives the memory back if nothing came for long.
    pub fn tidy(&mut self, now: Instant) {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) >= IDLE)
        {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_512_are_kept_until_nothing_comes_for_15_s() {
        let now = Instant::now();
        let mut store = PacketStore::default();
        assert_eq!(store.get(PacketIndex(0)), None);
        for i in 0..600u64 {
            store.keep(now, PacketIndex(i), &i.to_be_bytes());
        }
        assert_eq!(store.get(PacketIndex(87)), None);
        for i in 88..600u64 {
            assert_eq!(store.get(PacketIndex(i)), Some(&i.to_be_bytes()[..]));
        }
        store.tidy(now + IDLE - Duration::from_millis(1));
        assert!(store.get(PacketIndex(599)).is_some());
        store.tidy(now + IDLE);
        assert_eq!(store.get(PacketIndex(599)), None);
    }
}
