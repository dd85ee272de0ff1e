//! How a bridge ends without ending a call (`focus-bridge` §4.3).
//!
//! Asked to shut down gracefully, it refuses new conferences and waits until
//! nobody is left, or long enough. Then it says that it is going, which makes
//! the focus move whatever is still there, waits a little for that, and ends.

use std::time::{Duration, Instant};

/// `videobridge.shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// The longest wait for people to leave.
    pub graceful_max_duration: Duration,
    /// With so many people or fewer, nobody counts as left.
    pub graceful_min_participants: usize,
    /// From saying so to the end.
    pub shutting_down_delay: Duration,
}

/// Where a bridge is in its life. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Running,
    /// No new conferences; published as `graceful_shutdown`.
    Graceful {
        since: Instant,
    },
    /// Conferences are moved away; published as `shutting_down`.
    ShuttingDown {
        since: Instant,
    },
    /// The process is to end.
    Ended,
}

impl Lifecycle {
    /// A shutdown is asked for. Asking again hastens it, never delays it.
    pub fn shut_down(self, now: Instant, graceful: bool) -> Self {
        match self {
            Self::Running if graceful => Self::Graceful { since: now },
            Self::Running | Self::Graceful { .. } if !graceful => Self::ShuttingDown { since: now },
            other => other,
        }
    }

    /// What time and people's leaving make of it.
    pub fn advance(self, now: Instant, participants: usize, settings: &ShutdownSettings) -> Self {
        match self {
            Self::Graceful { since }
                if participants <= settings.graceful_min_participants
                    || now >= since + settings.graceful_max_duration =>
            {
                Self::ShuttingDown { since: now }
            }
            Self::ShuttingDown { since } if now >= since + settings.shutting_down_delay => {
                Self::Ended
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ShutdownSettings = ShutdownSettings {
        graceful_max_duration: Duration::from_secs(100),
        graceful_min_participants: 1,
        shutting_down_delay: Duration::from_secs(10),
    };

    #[test]
    fn every_state_meets_every_event() {
        use Lifecycle::*;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (graceful, going) = (Graceful { since: start }, ShuttingDown { since: start });
        for (state, is_graceful, then) in [
            (Running, true, Graceful { since: at(5) }),
            (Running, false, ShuttingDown { since: at(5) }),
            (graceful, true, graceful),
            (graceful, false, ShuttingDown { since: at(5) }),
            (going, true, going),
            (going, false, going),
            (Ended, true, Ended),
            (Ended, false, Ended),
        ] {
            assert_eq!(state.shut_down(at(5), is_graceful), then, "{state:?}");
        }
        for (state, seconds, participants, then) in [
            (Running, 1000, 0, Running),
            (graceful, 1, 2, graceful),
            (graceful, 1, 1, ShuttingDown { since: at(1) }),
            (graceful, 99, 2, graceful),
            (graceful, 100, 2, ShuttingDown { since: at(100) }),
            (going, 9, 0, going),
            (going, 10, 5, Ended),
            (Ended, 0, 0, Ended),
        ] {
            let next = state.advance(at(seconds), participants, &SETTINGS);
            assert_eq!(next, then, "{state:?} after {seconds} s");
        }
    }
}
