//! Whether a muted source is silent, and how soon it is back.
//!
//! What a source is announced to be travels through the server, what it sends
//! through the bridge: either may be the first to arrive.

use std::time::{Duration, Instant};

/// How long after the announcement of a mute packets may still come, and how
/// long before that of its end.
const GRACE: Duration = Duration::from_secs(2);
/// A source that was unmuted is back within that.
const PATIENCE: Duration = Duration::from_secs(6);

/// One source's mutes, as one receiver sees them.
#[derive(Clone, Debug, Default)]
pub struct Mutes {
    muted_since: Option<Instant>,
    /// Packets that came while muted, and when the first of them did.
    strange: Option<(Instant, u64)>,
    awaited_since: Option<Instant>,
    pub stats: MuteStats,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct MuteStats {
    /// Ends of mutes.
    pub ends: u64,
    /// Packets of a source that was announced as muted.
    pub while_muted: u64,
    /// Ends of mutes after which nothing came.
    pub unresumed: u64,
    /// Longest time from the end of a mute to the first packet or picture.
    pub resumed_ms: f64,
}

impl Mutes {
    /// Presence said so at `now`. Whether that changed anything.
    pub fn set(&mut self, now: Instant, muted: bool) -> bool {
        match (muted, self.muted_since) {
            (true, None) => {
                self.give_up(now);
                self.muted_since = Some(now);
                true
            }
            (false, Some(_)) => {
                let strange = self.strange.take();
                self.judge(strange.filter(|(first, _)| now >= *first + GRACE));
                self.muted_since = None;
                self.stats.ends += 1;
                // Whoever is there before the announcement is not awaited.
                self.awaited_since = strange.is_none().then_some(now);
                true
            }
            _ => false,
        }
    }

    /// Whether it is announced as muted.
    pub fn is_muted(&self) -> bool {
        self.muted_since.is_some()
    }

    /// A packet came.
    pub fn packet(&mut self, now: Instant) {
        if self.muted_since.is_some_and(|since| now >= since + GRACE) {
            self.strange.get_or_insert((now, 0)).1 += 1;
        }
    }

    /// Something that can be heard or seen came.
    pub fn presented(&mut self, now: Instant) {
        if let Some(since) = self.awaited_since.take() {
            let took = now.saturating_duration_since(since).as_secs_f64() * 1e3;
            self.stats.resumed_ms = self.stats.resumed_ms.max(took);
        }
    }

    /// Nothing more comes from `end` on.
    pub fn close(&mut self, end: Instant) {
        let strange = self.strange.take();
        self.judge(strange.filter(|(first, _)| end >= *first + GRACE));
        self.give_up(end);
    }

    fn give_up(&mut self, now: Instant) {
        let awaited = self.awaited_since.take();
        self.stats.unresumed += u64::from(awaited.is_some_and(|since| now >= since + PATIENCE));
    }

    fn judge(&mut self, strange: Option<(Instant, u64)>) {
        self.stats.while_muted += strange.map_or(0, |(_, count)| count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in ms: mutes (`true`), their ends, and packets (`None`).
    fn judged(events: &[(u64, Option<bool>)], end: u64) -> MuteStats {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut mutes = Mutes::default();
        for (ms, event) in events {
            match event {
                Some(muted) => {
                    mutes.set(at(*ms), *muted);
                }
                None => {
                    mutes.packet(at(*ms));
                    mutes.presented(at(*ms));
                }
            }
        }
        mutes.close(at(end));
        mutes.stats
    }

    #[test]
    fn a_silent_mute_is_fine_and_its_end_is_timed() {
        let late = [
            (0, Some(true)),
            (100, None),
            (5_000, Some(false)),
            (5_250, None),
        ];
        let stats = judged(&late, 9_000);
        assert_eq!((stats.while_muted, stats.unresumed, stats.ends), (0, 0, 1));
        assert_eq!(stats.resumed_ms, 250.0);
        // Media overtakes the announcement.
        let early = [(0, Some(true)), (4_900, None), (5_000, Some(false))];
        let stats = judged(&early, 20_000);
        assert_eq!((stats.while_muted, stats.unresumed), (0, 0));
    }

    #[test]
    fn packets_of_a_muted_source_are_counted() {
        let through = [
            (0, Some(true)),
            (2_500, None),
            (2_520, None),
            (9_000, Some(false)),
            (9_001, None),
        ];
        assert_eq!(judged(&through, 20_000).while_muted, 2);
        assert_eq!(judged(&through[..3], 20_000).while_muted, 2);
    }

    #[test]
    fn a_source_that_stays_away_is_counted() {
        let away = [(0, Some(true)), (5_000, Some(false))];
        assert_eq!(judged(&away, 20_000).unresumed, 1);
        assert_eq!(judged(&away, 6_000).unresumed, 0);
    }
}
