//! Packets into the order of their numbers: holes are asked for, what comes
//! behind a hole waits, what comes twice is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A hole older than that is lost: a decoder would have asked for a key frame.
pub(super) const GIVE_UP: Duration = Duration::from_secs(2);
/// Repeat of a NACK, as libwebrtc does at a round trip below that.
const NACK_REPEAT: Duration = Duration::from_millis(100);
/// Time a packet may be late before it is asked for.
const NACK_DELAY: Duration = Duration::from_millis(10);
/// Larger holes are not repaired but begun behind.
const MAX_HOLE: u64 = 500;
/// Packets held back behind a hole.
const MAX_HELD: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Hole {
    since: Instant,
    asked: bool,
    next_ask: Instant,
}

/// Where a packet stands among those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Newer than all, with or without a hole before it.
    Newest(u64),
    /// Newer by more than a hole can be; so many are lost.
    Jumped {
        index: u64,
        lost: u64,
    },
    /// Into a hole that was asked for, or by retransmission.
    Recovered(u64),
    /// Into a hole, by itself.
    Late(u64),
    Duplicate,
}

/// The numbers of one stream, unwrapped.
#[derive(Debug)]
pub(super) struct Order<T> {
    /// The next number to hand out, and the newest that came, once any has.
    next: u64,
    newest: Option<u64>,
    held: BTreeMap<u64, T>,
    holes: BTreeMap<u64, Hole>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            next: 0,
            newest: None,
            held: BTreeMap::new(),
            holes: BTreeMap::new(),
        }
    }
}

impl<T> Order<T> {
    /// Finds the place of a packet, and notes the holes before it.
    pub(super) fn place(&mut self, now: Instant, sequence: u16, retransmitted: bool) -> Place {
        let Some(newest) = self.newest else {
            // A cycle up, so that an earlier packet still has a number.
            let index = u64::from(sequence) + (1 << 32);
            (self.next, self.newest) = (index, Some(index));
            return Place::Newest(index);
        };
        let step = i64::from(sequence.wrapping_sub(newest as u16) as i16);
        let index = newest.wrapping_add_signed(step);
        if index > newest {
            self.newest = Some(index);
            let missing = index - newest - 1;
            if missing >= MAX_HOLE {
                let lost = missing + self.holes.len() as u64;
                self.holes.clear();
                self.held.clear();
                self.next = index;
                return Place::Jumped { index, lost };
            }
            for missing in newest + 1..index {
                let hole = Hole {
                    since: now,
                    asked: false,
                    next_ask: now + NACK_DELAY,
                };
                self.holes.insert(missing, hole);
            }
            return Place::Newest(index);
        }
        match self.holes.remove(&index) {
            Some(hole) if hole.asked || retransmitted => Place::Recovered(index),
            Some(_) => Place::Late(index),
            None => Place::Duplicate,
        }
    }

    /// Takes the packet of that number; gives it back if its turn is now.
    pub(super) fn put(&mut self, index: u64, packet: T) -> Option<T> {
        if index == self.next {
            self.next += 1;
            return Some(packet);
        }
        self.held.insert(index, packet);
        None
    }

    /// The next packet whose turn has come.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.held.is_empty() {
            return None;
        }
        let packet = self.held.remove(&self.next)?;
        self.next += 1;
        Some(packet)
    }

    /// Whether more is held than should be.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() > MAX_HELD
    }

    /// Gives up the holes in front of what is held; returns how many.
    pub(super) fn skip(&mut self) -> u64 {
        let Some(first) = self.held.keys().next().copied() else {
            return 0;
        };
        let still_open = self.holes.split_off(&first);
        let given_up = std::mem::replace(&mut self.holes, still_open);
        self.next = first;
        given_up.len() as u64
    }

    /// Gives up the holes that are too old; returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut count = 0;
        while let Some(entry) = self.holes.first_entry()
            && now >= entry.get().since + GIVE_UP
        {
            entry.remove();
            count += 1;
        }
        count
    }

    /// Whether what is held waits for nothing any more.
    pub(super) fn is_stuck(&self) -> bool {
        let first = self.held.keys().next();
        let open = self.holes.keys().next();
        first.is_some_and(|first| open.is_none_or(|open| first < open))
    }

    /// Numbers to ask for now.
    pub(super) fn missing(&mut self, now: Instant) -> Vec<u16> {
        let mut numbers = Vec::new();
        for (index, hole) in &mut self.holes {
            if now >= hole.next_ask {
                hole.asked = true;
                hole.next_ask = now + NACK_REPEAT;
                numbers.push(*index as u16);
            }
        }
        numbers
    }

    /// Holes that are still open.
    pub(super) fn holes(&self) -> u64 {
        self.holes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is lost, late or repeated: packets come out in order, each
        /// at most once, and those that came all do once the holes are old.
        #[test]
        fn packets_come_out_in_order(
            first in any::<u16>(), steps in prop::collection::vec((0u64..40, any::<bool>()), 1..200),
        ) {
            let now = Instant::now();
            let mut order = Order::default();
            let mut came = std::collections::BTreeSet::from([100u64]);
            let mut out = Vec::new();
            for (step, again) in std::iter::once((0, false)).chain(steps) {
                let newest = *came.last().expect("one");
                let wanted = if again { newest.saturating_sub(step).max(100) } else { newest + step % 5 };
                let sequence = first.wrapping_add((wanted - 100) as u16);
                match order.place(now, sequence, false) {
                    Place::Newest(index) | Place::Late(index) => {
                        let fresh = came.insert(wanted) || came.len() == 1;
                        prop_assert!(fresh);
                        out.extend(order.put(index, wanted));
                        out.extend(std::iter::from_fn(|| order.take()));
                    }
                    Place::Duplicate => prop_assert!(came.contains(&wanted)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            order.expire(now + GIVE_UP);
            while order.is_stuck() {
                order.skip();
                out.extend(std::iter::from_fn(|| order.take()));
            }
            prop_assert_eq!(out, came.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_jump_begins_anew_and_counts_what_is_lost() {
        let now = Instant::now();
        let mut order = Order::<()>::default();
        order.place(now, 10, false);
        order.put(1 << 32 | 10, ());
        order.place(now, 12, false);
        let jumped = order.place(now, 1_012, false);
        let index = 1 << 32 | 1_012;
        assert_eq!(jumped, Place::Jumped { index, lost: 1_000 });
        assert!(order.put(index, ()).is_some() && order.holes() == 0);
    }

    #[test]
    fn holes_are_asked_for_after_a_while_and_again() {
        let now = Instant::now();
        let mut order = Order::<()>::default();
        order.place(now, 10, false);
        order.place(now, 12, false);
        assert!(order.missing(now).is_empty());
        assert_eq!(order.missing(now + NACK_DELAY), [11]);
        assert!(order.missing(now + NACK_DELAY * 2).is_empty());
        assert_eq!(order.missing(now + NACK_DELAY + NACK_REPEAT), [11]);
        assert!(matches!(order.place(now, 11, false), Place::Recovered(_)));
        assert_eq!(order.place(now, 11, true), Place::Duplicate);
    }
}
