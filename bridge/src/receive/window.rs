//! Which packets of one SSRC came already: retransmission brings some twice.

use crate::rtp::PacketIndex;

/// Indices remembered (JVB remembers 1500).
const SIZE: u64 = 2048;

/// A sliding window over the indices of one SSRC.
#[derive(Debug)]
pub struct Window {
    highest: Option<u64>,
    bits: [u64; (SIZE / 64) as usize],
}

/// What [`Window::insert`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not before.
    First,
    /// Already.
    Again,
    /// Cannot be told any more.
    TooOld,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            highest: None,
            bits: [0; (SIZE / 64) as usize],
        }
    }
}

impl Window {
    /// Notes an index, and says whether it was noted before.
    pub fn insert(&mut self, index: PacketIndex) -> Seen {
        let index = index.0;
        match self.highest {
            None => self.highest = Some(index),
            Some(highest) if index > highest => {
                if index - highest >= SIZE {
                    self.bits.fill(0);
                } else {
                    for i in highest + 1..=index {
                        self.clear(i);
                    }
                }
                self.highest = Some(index);
            }
            Some(highest) if highest - index >= SIZE => return Seen::TooOld,
            Some(_) => {}
        }
        let (word, bit) = Self::place(index);
        if self.bits[word] & bit != 0 {
            return Seen::Again;
        }
        self.bits[word] |= bit;
        Seen::First
    }

    /// The highest index noted.
    pub fn highest(&self) -> Option<PacketIndex> {
        self.highest.map(PacketIndex)
    }

    fn clear(&mut self, index: u64) {
        let (word, bit) = Self::place(index);
        self.bits[word] &= !bit;
    }

    fn place(index: u64) -> (usize, u64) {
        let at = index % SIZE;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The window agrees with a set that remembers everything.
        #[test]
        fn window_agrees_with_a_set(steps in proptest::collection::vec(-40i64..3000, 1..300)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut at = 10_000i64;
            for step in steps {
                at = (at + if step > 100 { step % 90 } else { step }).max(0);
                let index = at as u64;
                let highest = seen.last().copied().unwrap_or(index);
                let expected = if highest >= index + SIZE {
                    Seen::TooOld
                } else if seen.insert(index) {
                    Seen::First
                } else {
                    Seen::Again
                };
                prop_assert_eq!(window.insert(PacketIndex(index)), expected);
            }
        }
    }
}
