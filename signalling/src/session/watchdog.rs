//! Pings the server (XEP-0199) and says when it is dead.

use std::time::{Duration, Instant};

/// How long a ping may take.
const GRACE: Duration = Duration::from_secs(10);
/// Pings in a row that may go unanswered before the server counts as dead.
const FAILURES: u8 = 2;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Alive,
    /// Send a ping.
    Ping,
    /// Give the connection up.
    Dead,
}

/// Watches one connection.
#[derive(Clone, Debug)]
pub struct Watchdog {
    interval: Duration,
    /// When the next ping, or the answer to the last one, is due.
    due: Instant,
    /// Pings sent since the last answer.
    unanswered: u8,
}

impl Watchdog {
    /// A connection that has just come up; the first ping follows after
    /// `interval`.
    pub fn new(now: Instant, interval: Duration) -> Self {
        Self {
            interval,
            due: now + interval,
            unanswered: 0,
        }
    }

    /// When to call `check` next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// What to do at `now`; early calls are harmless. Only the answer to a
    /// ping proves a server alive: other traffic shows that it can reach us,
    /// not that we can reach it.
    pub fn check(&mut self, now: Instant) -> Verdict {
        if now < self.due {
            return Verdict::Alive;
        }
        if self.unanswered >= FAILURES {
            return Verdict::Dead;
        }
        self.unanswered += 1;
        self.due = now + GRACE.min(self.interval);
        Verdict::Ping
    }

    /// A ping was answered, be it with an error.
    pub fn answered(&mut self, now: Instant) {
        self.unanswered = 0;
        self.due = now + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn an_answering_server_is_pinged_every_interval() {
        let mut now = Instant::now();
        let mut watchdog = Watchdog::new(now, INTERVAL);
        for _ in 0..5 {
            assert_eq!(watchdog.check(now), Verdict::Alive);
            now += INTERVAL;
            assert_eq!(watchdog.check(now), Verdict::Ping);
            now += Duration::from_secs(1);
            watchdog.answered(now);
        }
    }

    #[test]
    fn two_pings_without_an_answer_are_the_end_and_one_is_not() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start, INTERVAL);
        let mut sent = 0;
        loop {
            let now = watchdog.due();
            match watchdog.check(now) {
                Verdict::Ping => sent += 1,
                Verdict::Dead => {
                    assert_eq!(now - start, INTERVAL + GRACE * 2);
                    break;
                }
                Verdict::Alive => panic!("due means due"),
            }
        }
        assert_eq!(sent, FAILURES);

        let mut watchdog = Watchdog::new(start, INTERVAL);
        for _ in 0..3 {
            assert_eq!(watchdog.check(watchdog.due()), Verdict::Ping);
            assert_eq!(watchdog.check(watchdog.due()), Verdict::Ping);
            watchdog.answered(watchdog.due());
        }
    }
}
