//! Bit rate over a sliding second.

use std::time::{Duration, Instant};

/// Width of a bucket, and how many make the window
/// (`jitsi-videobridge:jitsi-media-transform/…/BitrateTracker`: 1 s of 20 ms).
const BUCKET: Duration = Duration::from_millis(20);
const BUCKETS: usize = 50;

/// Octets of the last second, by bucket.
#[derive(Clone, Debug)]
pub struct Rate {
    start: Instant,
    /// Number of the newest bucket since `start`.
    newest: u64,
    octets: [u32; BUCKETS],
    sum: u64,
}

impl Rate {
    /// Nothing so far.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            newest: 0,
            octets: [0; BUCKETS],
            sum: 0,
        }
    }

    /// Adds a packet. Whether nothing had come in the second before it.
    pub fn add(&mut self, now: Instant, octets: usize) -> bool {
        self.advance(now);
        let begins = self.sum == 0;
        let octets = octets as u32;
        let bucket = &mut self.octets[(self.newest % BUCKETS as u64) as usize];
        *bucket = bucket.saturating_add(octets);
        self.sum += u64::from(octets);
        begins
    }

    /// Bits a second over the last second.
    pub fn bits(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.sum * 8
    }

    fn advance(&mut self, now: Instant) {
        // In 64 bits, which divide in a fraction of the time.
        let elapsed = now.saturating_duration_since(self.start).as_millis() as u64;
        let at = elapsed / BUCKET.as_millis() as u64;
        let passed = at.saturating_sub(self.newest).min(BUCKETS as u64);
        for i in 0..passed {
            let bucket = &mut self.octets[((at - i) % BUCKETS as u64) as usize];
            self.sum -= u64::from(std::mem::take(bucket));
        }
        self.newest = self.newest.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate_and_a_stopped_one_none() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for i in 0..300u32 {
            rate.add(start + Duration::from_millis(10) * i, 125);
        }
        let now = start + Duration::from_millis(10) * 299;
        assert_eq!(rate.bits(now), 100_000);
        assert_eq!(rate.bits(now + Duration::from_millis(500)), 50_000);
        assert_eq!(rate.bits(now + Duration::from_secs(1)), 0);
        assert_eq!(rate.bits(now + Duration::from_secs(5)), 0);
    }
}
