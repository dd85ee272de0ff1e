//! What a participant does by itself in a call: mutes and unmutes its
//! microphone and camera by turns, begins to share its screen.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::source::tag::Kind;

/// Between two changes, in milliseconds: a mute lasts for two of them.
const STEP_MS: std::ops::Range<u64> = 2_500..3_500;
/// From the connection to the screen.
const SHARE_AFTER: Duration = Duration::from_millis(1_500);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Mute(Kind, bool),
    Share,
}

/// Microphone off, camera off, microphone on, camera on.
const MUTES: [(Kind, bool); 4] = [
    (Kind::Audio, true),
    (Kind::Camera, true),
    (Kind::Audio, false),
    (Kind::Camera, false),
];

/// When a participant does what.
#[derive(Debug)]
pub struct Habits {
    rng: SmallRng,
    mutes: bool,
    shares: bool,
    step: usize,
    next_mute: Option<Instant>,
    share_at: Option<Instant>,
}

impl Habits {
    pub fn new(mutes: bool, shares: bool, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            mutes,
            shares,
            step: 0,
            next_mute: None,
            share_at: None,
        }
    }

    /// Media can be sent from `now` on.
    pub fn begin(&mut self, now: Instant) {
        if self.mutes && self.next_mute.is_none() {
            self.next_mute = Some(now + self.pause());
        }
        if std::mem::take(&mut self.shares) {
            self.share_at = Some(now + SHARE_AFTER);
        }
    }

    /// Does nothing any more.
    pub fn end(&mut self) {
        (self.next_mute, self.share_at) = (None, None);
    }

    /// When [`Self::poll`] has something again.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_mute.into_iter().chain(self.share_at).min()
    }

    /// What is to be done at `now`. Call until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Act> {
        if self.share_at.take_if(|at| now >= *at).is_some() {
            return Some(Act::Share);
        }
        let due = self.next_mute.filter(|at| now >= *at)?;
        let (kind, muted) = MUTES[self.step % MUTES.len()];
        self.step += 1;
        self.next_mute = Some(due + self.pause());
        Some(Act::Mute(kind, muted))
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(STEP_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutes_last_and_end_and_a_screen_is_shared_once() {
        let start = Instant::now();
        let mut habits = Habits::new(true, true, 1);
        assert_eq!(habits.next_due(), None);
        habits.begin(start);
        habits.begin(start);
        let mut acts = Vec::new();
        let mut since = [None; 3];
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            while let Some(act) = habits.poll(now) {
                if let Act::Mute(kind, muted) = act {
                    let before = since[kind as usize].replace(now);
                    // Long enough for what comes in it to be told from what
                    // was on its way.
                    let lasted = before.map(|before| now - before);
                    assert!(muted || lasted.is_some_and(|time| time >= Duration::from_secs(4)));
                }
                acts.push(act);
            }
        }
        assert_eq!(acts.iter().filter(|act| **act == Act::Share).count(), 1);
        assert!(acts.len() > 16);
        habits.end();
        assert_eq!(habits.poll(start + Duration::from_secs(100)), None);
        let mut none = Habits::new(false, false, 1);
        none.begin(start);
        assert_eq!(none.next_due(), None);
    }
}
