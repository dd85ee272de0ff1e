//! The received packets of one SSRC, kept once whatever the number of
//! receivers, for their requests for retransmission.

use std::time::{Duration, Instant};

use crate::rtp::PacketIndex;

/// Most packets kept (JVB keeps 500 for each receiver), and least.
pub const MAX_SLOTS: usize = 512;
pub const MIN_SLOTS: usize = 64;
/// Within those bounds, what came in the last second: what is later than that
/// no receiver waits for. Our choice.
pub const RETENTION: Duration = Duration::from_secs(1);
/// Without a packet for so long, the memory is given back (as with JVB).
const IDLE: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Slot {
    index: PacketIndex,
    at: Instant,
    bytes: Vec<u8>,
}

/// A ring of received packets, decrypted, retransmissions restored. It grows
/// until it holds what a second brings.
#[derive(Debug, Default)]
pub struct PacketStore {
    slots: Vec<Option<Slot>>,
    last: Option<Instant>,
}

impl PacketStore {
    /// Keeps a packet in the place of the one a ring before it.
    pub fn keep(&mut self, now: Instant, index: PacketIndex, packet: &[u8]) {
        self.last = Some(now);
        let young = |old: &Slot| now.saturating_duration_since(old.at) < RETENTION;
        while self.slots.len() < MAX_SLOTS
            && self
                .slot_mut(index)
                .is_none_or(|old| old.as_ref().is_some_and(young))
        {
            self.grow();
        }
        let slot = self.slot_mut(index).expect("it has slots by now");
        let slot = slot.get_or_insert_with(|| Slot {
            index,
            at: now,
            bytes: Vec::new(),
        });
        (slot.index, slot.at) = (index, now);
        slot.bytes.clear();
        slot.bytes.extend_from_slice(packet);
    }

    /// A packet, if it is still here. The low 32 bits of its index are enough.
    pub fn get(&self, index: PacketIndex) -> Option<&[u8]> {
        let slot = self.slots.get(self.place(index)?)?.as_ref()?;
        (slot.index.0 as u32 == index.0 as u32).then_some(&slot.bytes)
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

    fn place(&self, index: PacketIndex) -> Option<usize> {
        (index.0 as usize).checked_rem(self.slots.len())
    }

    fn slot_mut(&mut self, index: PacketIndex) -> Option<&mut Option<Slot>> {
        let at = self.place(index)?;
        self.slots.get_mut(at)
    }

    fn grow(&mut self) {
        let more = (self.slots.len() * 2).max(MIN_SLOTS);
        let empty = std::iter::repeat_with(|| None).take(more).collect();
        let former = std::mem::replace(&mut self.slots, empty);
        for slot in former.into_iter().flatten() {
            let place = self.slot_mut(slot.index);
            *place.expect("it has slots by now") = Some(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_kept_until_nothing_comes_for_15_s() {
        let start = Instant::now();
        for (rate, kept) in [(20, 64), (180, 256), (5000, 512)] {
            let mut store = PacketStore::default();
            assert_eq!(store.get(PacketIndex(0)), None);
            let at = |i: u64| start + Duration::from_micros(i * 1_000_000 / rate);
            for i in 0..1000u64 {
                store.keep(at(i), PacketIndex(i), &i.to_be_bytes());
            }
            assert_eq!(store.get(PacketIndex(1000 - kept - 1)), None);
            for i in 1000 - kept..1000 {
                assert_eq!(store.get(PacketIndex(i)), Some(&i.to_be_bytes()[..]));
            }
            store.tidy(at(999) + IDLE - Duration::from_millis(1));
            assert!(store.get(PacketIndex(999)).is_some());
            store.tidy(at(999) + IDLE);
            assert_eq!(store.get(PacketIndex(999)), None);
        }
    }
}
