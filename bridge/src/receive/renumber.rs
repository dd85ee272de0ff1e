//! Hides packets that are not passed on: those after a hidden packet move up,
//! so that no receiver sees a gap where nothing was lost.

use std::collections::VecDeque;

use crate::rtp::PacketIndex;

/// Hidden packets whose place is remembered, for late packets (as JVB's).
const HISTORY: usize = 1000;

/// The renumbering of one SSRC.
#[derive(Debug, Default)]
pub struct Renumber {
    highest: Option<PacketIndex>,
    /// Packets hidden so far.
    hidden: u64,
    /// The places of the last [`HISTORY`] of them, ascending.
    places: VecDeque<u64>,
}

impl Renumber {
    /// Hides a packet. One that is late is left as a hole: those behind it have
    /// gone out already.
    pub fn hide(&mut self, index: PacketIndex) {
        if self.highest.is_some_and(|highest| index <= highest) {
            return;
        }
        self.highest = Some(index);
        self.hidden += 1;
        if self.places.len() == HISTORY {
            self.places.pop_front();
        }
        self.places.push_back(index.0);
    }

    /// The index under which a packet is passed on; `None` if it is so late
    /// that its place is no longer known.
    pub fn place(&mut self, index: PacketIndex) -> Option<PacketIndex> {
        if self.highest.is_none_or(|highest| index > highest) {
            self.highest = Some(index);
            return index.0.checked_sub(self.hidden).map(PacketIndex);
        }
        let before = self.places.partition_point(|&place| place < index.0);
        let forgotten = self.hidden - self.places.len() as u64;
        if before == 0 && forgotten > 0 {
            return None;
        }
        index
            .0
            .checked_sub(forgotten + before as u64)
            .map(PacketIndex)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order packets come, no two are given one place, and in
        /// the order sent they are consecutive but for what was lost.
        #[test]
        fn places_are_unique_and_without_gaps(
            first in 2000u64..100_000,
            packets in proptest::collection::vec((any::<bool>(), 0u64..8), 1..300),
        ) {
            let mut arrivals: Vec<_> = packets
                .iter()
                .enumerate()
                .map(|(i, &(hide, delay))| (i as u64 + delay, first + i as u64, hide))
                .collect();
            arrivals.sort();
            let mut renumber = Renumber::default();
            let mut places = Vec::new();
            let mut in_order = true;
            let mut highest = 0;
            for (_, index, hide) in arrivals {
                in_order &= index > highest;
                highest = highest.max(index);
                if hide {
                    renumber.hide(PacketIndex(index));
                } else {
                    places.push(renumber.place(PacketIndex(index)).expect("the history is long enough"));
                }
            }
            let sent = places.len();
            if in_order {
                prop_assert!(places.windows(2).all(|w| w[0].0 + 1 == w[1].0));
            }
            places.sort();
            places.dedup();
            prop_assert_eq!(places.len(), sent);
        }
    }

    #[test]
    fn a_packet_older_than_the_history_has_no_place() {
        let mut renumber = Renumber::default();
        renumber.place(PacketIndex(5000));
        for i in 0..=HISTORY as u64 {
            renumber.hide(PacketIndex(5002 + i));
        }
        assert_eq!(renumber.place(PacketIndex(5001)), None);
        assert_eq!(
            renumber.place(PacketIndex(7000)),
            Some(PacketIndex(7000 - 1 - HISTORY as u64))
        );
    }
}
