//! How long to wait before the next attempt to connect.
//!
//! The first retry comes at once (a restarted server should find its bridges
//! back within a second), later ones double up to a cap, and each is spread
//! at random so that a fleet does not return in one instant.

use std::time::{Duration, Instant};

/// Longest wait before the first retry.
const FIRST: Duration = Duration::from_millis(500);
/// Longest wait of all.
const CAP: Duration = Duration::from_secs(15);
/// A session that lasted this long was a good one: the next starts afresh.
const STABLE: Duration = Duration::from_secs(10);

/// Counts failed attempts.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    online: Option<Instant>,
}

impl Backoff {
    /// The session is online as of `now`.
    pub fn online(&mut self, now: Instant) {
        self.online = Some(now);
    }

    /// An attempt failed or a session ended: how long to wait. `random` is
    /// any number, evenly distributed; it sets the wait between half and all
    /// of what the failures so far allow.
    pub fn failed(&mut self, now: Instant, random: u32) -> Duration {
        if let Some(since) = self.online.take()
            && now.saturating_duration_since(since) >= STABLE
        {
            self.failures = 0;
        }
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(5))
            .min(CAP)
            .as_secs_f64();
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(random) / f64::from(u32::MAX);
        Duration::from_secs_f64(longest * (0.5 + share / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_half_a_second_to_the_cap_and_are_spread_over_a_half() {
        let now = Instant::now();
        let mut high = Backoff::default();
        let mut low = Backoff::default();
        for longest in [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0] {
            assert_eq!(high.failed(now, u32::MAX).as_secs_f64(), longest);
            assert_eq!(low.failed(now, 0).as_secs_f64(), longest / 2.0);
        }
    }

    #[test]
    fn only_a_session_that_lasted_makes_the_next_retry_fast() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.failed(start, 0);
        }
        backoff.online(start);
        let brief = start + STABLE - Duration::from_millis(1);
        assert_eq!(backoff.failed(brief, u32::MAX), Duration::from_secs(8));
        backoff.online(brief);
        assert_eq!(backoff.failed(brief + STABLE, u32::MAX), FIRST);
    }
}
