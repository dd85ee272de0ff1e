//! What receivers make of the packets they get: delay, order, loss, whose
//! content it is, and whether the pictures could be decoded.

pub mod audio;
pub mod delay;
pub mod mute;
pub mod pair;
pub mod video;

use std::time::Instant;

use crate::source::tag::{Kind, Tag};
use delay::Histogram;

/// Who a stream is expected to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub run: u32,
    pub sender: u16,
    pub kind: Kind,
}

impl Expected {
    fn matches(&self, tag: &Tag) -> bool {
        (tag.run, tag.sender, tag.kind) == (self.run, self.sender, self.kind)
    }
}

/// When a packet came, and where its delay is counted.
pub struct Arrival<'a> {
    pub now: Instant,
    /// Send times count from here.
    pub epoch: Instant,
    /// Of all that one receiver gets.
    pub delays: &'a mut Histogram,
}

impl Arrival<'_> {
    /// Counts the time since the packet was sent, and returns it.
    fn count(&mut self, tag: &Tag) -> u64 {
        let arrived = self.now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let delay = arrived.saturating_sub(tag.sent_ns);
        self.delays.record(delay);
        delay
    }
}

/// The longest time without a packet, or without a whole picture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    last: Option<Instant>,
    longest_ns: u64,
}

impl Gap {
    /// Something arrived.
    pub fn mark(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last).as_nanos() as u64;
            self.longest_ns = self.longest_ns.max(gap);
        }
        self.last = Some(now);
    }

    /// Sending ended at `end`: what was missing until then counts as well.
    pub fn close(&mut self, end: Instant) {
        if self.last.is_some_and(|last| last < end) {
            self.mark(end);
        }
    }

    /// Begins anew: the peer paused on purpose.
    pub fn pause(&mut self) {
        self.last = None;
    }

    pub fn longest_ms(&self) -> f64 {
        self.longest_ns as f64 / 1e6
    }
}
