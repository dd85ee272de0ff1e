//! Whether the height a receiver asks for is what arrives.

use std::time::{Duration, Instant};

/// The bridge needs a key frame of the sender, and may first have to measure.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wanted now.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// `None` for no picture at all.
    height: Option<u16>,
    since: Instant,
    met: bool,
}

/// Heights asked for and shown.
#[derive(Clone, Debug, Default)]
pub struct Heights {
    wanted: Option<Wanted>,
    pub stats: HeightStats,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct HeightStats {
    /// Height of the last picture.
    pub last: Option<u16>,
    /// Times from asking for a height to the first picture of it.
    pub switch_ms: Vec<f64>,
    /// Heights asked for that never came.
    pub unmet: u64,
    /// Pictures of another height after the right one had come.
    pub strayed: u64,
}

impl Heights {
    /// The receiver wants pictures of that height from `now` on.
    pub fn want(&mut self, now: Instant, height: Option<u16>) {
        if self.wanted.is_some_and(|wanted| wanted.height == height) {
            return;
        }
        self.give_up(now);
        let met = height.is_some() && height == self.stats.last;
        self.wanted = Some(Wanted {
            height,
            since: now,
            met,
        });
    }

    /// A picture was shown.
    pub fn shown(&mut self, now: Instant, height: u16) {
        self.stats.last = Some(height);
        let Some(wanted) = &mut self.wanted else {
            return;
        };
        if wanted.height == Some(height) {
            if !wanted.met {
                wanted.met = true;
                let took = now.saturating_duration_since(wanted.since).as_secs_f64() * 1e3;
                self.stats.switch_ms.push(took);
            }
        } else if wanted.met || wanted.height.is_none() && now >= wanted.since + PATIENCE {
            self.stats.strayed += 1;
        }
    }

    /// The source pauses: what was not met yet need not be.
    pub fn pause(&mut self, now: Instant) {
        if let Some(wanted) = &mut self.wanted {
            wanted.since = now;
        }
    }

    /// Nothing more comes from `end` on.
    pub fn close(&mut self, end: Instant) {
        self.give_up(end);
    }

    fn give_up(&mut self, now: Instant) {
        if let Some(wanted) = self.wanted.take() {
            let due = !wanted.met && wanted.height.is_some() && now >= wanted.since + PATIENCE;
            self.stats.unmet += u64::from(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_met_missed_and_left() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heights = Heights::default();
        heights.want(at(0), Some(180));
        heights.shown(at(40), 180);
        heights.shown(at(80), 180);
        heights.want(at(100), Some(720));
        heights.shown(at(120), 180);
        heights.shown(at(400), 720);
        heights.shown(at(420), 360);
        // What is on the screen already need not come.
        heights.want(at(500), Some(360));
        heights.want(at(600), Some(720));
        heights.want(at(900), Some(180));
        heights.close(at(5_000));
        let stats = &heights.stats;
        assert_eq!(stats.switch_ms, [40.0, 300.0]);
        // Nobody waited long for 720, but for 180.
        assert_eq!((stats.unmet, stats.strayed, stats.last), (1, 1, Some(360)));
    }

    #[test]
    fn no_picture_may_be_wanted() {
        let start = Instant::now();
        let mut heights = Heights::default();
        heights.want(start, None);
        heights.shown(start, 180);
        heights.shown(start + PATIENCE, 180);
        heights.close(start + PATIENCE * 2);
        assert_eq!((heights.stats.strayed, heights.stats.unmet), (1, 0));
    }
}
