//! How long forwarded packets are in the bridge: a histogram.
//!
//! In: when datagrams were taken from a socket, when what came of them had been
//! handed to the kernel, and how many packets had been forwarded in between. Out:
//! counts by delay. A packet that goes to ten receivers counts ten times; resends
//! do not count.
//!
//! The clock is read once a turn and not for each packet: a datagram counts as
//! taken when the turn of the worker began that took it, so what the worker did
//! before it got to it is included. The time it lay in the kernel is not; that
//! shows in the workers' busy share.

use std::time::{Duration, Instant};

/// Upper bounds of the buckets, in microseconds: fine where a bridge should be,
/// coarse where it must not be. What took longer has a bucket of its own.
pub const BOUNDS_US: [u32; 18] = [
    50, 100, 150, 200, 300, 400, 600, 800, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000,
];

/// The histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardDelays {
    counts: [u64; BOUNDS_US.len() + 1],
    sum: Duration,
}

impl ForwardDelays {
    fn observe(&mut self, delay: Duration, count: u64) {
        let within = |bound: &u32| delay <= Duration::from_micros(u64::from(*bound));
        let last = BOUNDS_US.len();
        self.counts[BOUNDS_US.iter().position(within).unwrap_or(last)] += count;
        let nanos = u128::from(count) * delay.as_nanos();
        self.sum += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// For each of [`BOUNDS_US`] how many packets took at most that long.
    pub fn cumulative(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS_US.into_iter().zip(counts)
    }

    /// How many packets there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All their delays together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// Measures the turns of one worker.
#[derive(Debug, Default)]
pub struct Stopwatch {
    delays: ForwardDelays,
    /// When datagrams were taken, and how many packets had been forwarded before
    /// the first of them was handled. Room is reused from turn to turn.
    laps: Vec<(Instant, u64)>,
    forwarded: u64,
}

impl Stopwatch {
    /// The next datagram to be handled was taken at `taken`; so many packets have
    /// been forwarded by now.
    pub fn handle(&mut self, taken: Instant, forwarded: u64) {
        if self.laps.last().is_none_or(|(last, _)| *last != taken) {
            self.laps.push((taken, forwarded));
        }
    }

    /// All datagrams of the turn have been handled.
    pub fn handled(&mut self, forwarded: u64) {
        self.forwarded = forwarded;
    }

    /// What came of them has been handed to the kernel.
    pub fn sent(&mut self, now: Instant) {
        let mut end = self.forwarded;
        while let Some((taken, start)) = self.laps.pop() {
            if end > start {
                let delay = now.saturating_duration_since(taken);
                self.delays.observe(delay, end - start);
            }
            end = start;
        }
    }

    pub fn delays(&self) -> &ForwardDelays {
        &self.delays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn packets_count_from_when_theirs_was_taken() {
        let start = Instant::now();
        let mut stopwatch = Stopwatch::default();
        // Ten were forwarded before; three come of our own socket, none of the
        // first neighbour's, five of two turns of the second's.
        stopwatch.handle(start + 100 * US, 10);
        stopwatch.handle(start, 13);
        stopwatch.handle(start, 13);
        stopwatch.handle(start + 20 * US, 13);
        stopwatch.handle(start + 40 * US, 17);
        stopwatch.handled(18);
        stopwatch.sent(start + 150 * US);
        let delays = *stopwatch.delays();
        let buckets: Vec<_> = delays.cumulative().take(4).collect();
        assert_eq!(buckets, [(50, 3), (100, 3), (150, 8), (200, 8)]);
        assert_eq!(delays.count(), 8);
        assert_eq!(delays.sum(), (3 * 50 + 4 * 130 + 110) * US);
        // A turn in which nothing was forwarded leaves it as it is.
        stopwatch.handle(start + 200 * US, 18);
        stopwatch.handled(18);
        stopwatch.sent(start + 300 * US);
        assert_eq!(*stopwatch.delays(), delays);
    }

    #[test]
    fn what_takes_longest_is_in_no_bucket_but_counted() {
        let mut delays = ForwardDelays::default();
        delays.observe(Duration::from_secs(1), 1);
        delays.observe(Duration::from_secs(2), 2);
        let mut sum = delays;
        sum.add(&delays);
        assert_eq!(sum.cumulative().last(), Some((1_000_000, 2)));
        assert_eq!((sum.count(), sum.sum()), (6, Duration::from_secs(10)));
    }
}
