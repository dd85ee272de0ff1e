//! Which packets to ask a sender for again (RFC 4585 §6.2.1).
//!
//! One generator a primary SSRC, fed after RTX recovery, so that a packet that
//! came by retransmission counts as come. A sequence number is asked for as
//! soon as its absence shows, then every 150 ms, ten times in all.

use std::time::{Duration, Instant};

use crate::rtp::PacketIndex;

/// Time between two requests for one packet
/// (`jitsi-videobridge:jitsi-media-transform/…/RetransmissionRequester.kt`).
const INTERVAL: Duration = Duration::from_millis(150);
/// How often one packet is asked for (same place).
const MAX_REQUESTS: u8 = 10;
/// A jump that leaves this many or more missing is a restart, not loss (same place).
const MAX_GAP: u64 = 100;
/// Packets missing at a time; beyond it the oldest are given up. Our choice:
/// five of the largest gaps.
const MAX_MISSING: usize = 500;

#[derive(Clone, Copy, Debug)]
struct Missing {
    index: PacketIndex,
    requests: u8,
    due: Instant,
}

/// The packets of one SSRC that are missing.
#[derive(Debug, Default)]
pub struct NackGenerator {
    highest: Option<PacketIndex>,
    /// In the order of their indices.
    missing: Vec<Missing>,
    /// The earliest `due` among them.
    due: Option<Instant>,
}

impl NackGenerator {
    /// Takes note of a packet. If it leaves others missing, they are due now.
    pub fn received(&mut self, now: Instant, index: PacketIndex) {
        let Some(highest) = self.highest else {
            self.highest = Some(index);
            return;
        };
        if index <= highest {
            if let Ok(at) = self.missing.binary_search_by_key(&index, |m| m.index) {
                self.missing.remove(at);
                self.update_due();
            }
            return;
        }
        self.highest = Some(index);
        let gap = index.0 - highest.0 - 1;
        if gap == 0 {
            return;
        }
        if gap >= MAX_GAP {
            self.missing.clear();
            self.due = None;
            return;
        }
        let excess = (self.missing.len() + gap as usize).saturating_sub(MAX_MISSING);
        self.missing.drain(..excess.min(self.missing.len()));
        self.missing
            .extend((highest.0 + 1..index.0).map(|i| Missing {
                index: PacketIndex(i),
                requests: 0,
                due: now,
            }));
        self.due = Some(now);
    }

    /// When [`Self::take_due`] has something to say; `None`: nothing is missing.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Appends to `out` the sequence numbers to ask for now, in order.
    pub fn take_due(&mut self, now: Instant, out: &mut Vec<u16>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.missing.retain_mut(|m| {
            if m.due > now {
                return true;
            }
            if m.requests == MAX_REQUESTS {
                return false;
            }
            out.push(m.index.0 as u16);
            m.requests += 1;
            m.due = now + INTERVAL;
            true
        });
        self.update_due();
    }

    fn update_due(&mut self) {
        self.due = self.missing.iter().map(|m| m.due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(generator: &mut NackGenerator, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        generator.take_due(now, &mut out);
        out
    }

    #[test]
    fn ninety_nine_missing_are_asked_for_and_a_hundred_are_not() {
        let now = Instant::now();
        for (missing, expected) in [(1, 1), (99, 99), (100, 0)] {
            let mut generator = NackGenerator::default();
            generator.received(now, PacketIndex(65_500));
            generator.received(now, PacketIndex(65_500 + missing + 1));
            let asked = asked(&mut generator, now);
            assert_eq!(asked.len(), expected, "{missing} missing");
            if expected > 0 {
                assert_eq!(asked[0], 65_501);
            }
        }
    }

    #[test]
    fn the_tenth_request_is_the_last() {
        let mut now = Instant::now();
        let mut generator = NackGenerator::default();
        generator.received(now, PacketIndex(1));
        generator.received(now, PacketIndex(3));
        let mut requests = 0;
        while let Some(due) = generator.next_timeout() {
            now = due;
            requests += asked(&mut generator, now).len();
        }
        assert_eq!(requests, 10);
    }

    #[test]
    fn arrival_ends_the_asking_and_the_rest_is_repeated_after_150_ms() {
        let now = Instant::now();
        let mut generator = NackGenerator::default();
        generator.received(now, PacketIndex(10));
        generator.received(now, PacketIndex(13));
        assert_eq!(asked(&mut generator, now), [11, 12]);
        generator.received(now + INTERVAL / 2, PacketIndex(11));
        assert!(asked(&mut generator, now + INTERVAL / 2).is_empty());
        assert_eq!(asked(&mut generator, now + INTERVAL), [12]);
        generator.received(now + INTERVAL, PacketIndex(12));
        assert_eq!(generator.next_timeout(), None);
    }

    #[test]
    fn what_is_missing_is_bounded() {
        let now = Instant::now();
        let mut generator = NackGenerator::default();
        for i in 0..1000 {
            generator.received(now, PacketIndex(i * 99));
        }
        assert!(asked(&mut generator, now).len() <= MAX_MISSING);
    }
}
