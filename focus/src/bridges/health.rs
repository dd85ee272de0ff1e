//! Is a bridge alive? Rise and fall of one bridge, from answers to health IQs.
//!
//! A late answer degrades, it does not kill: a bridge that still carries media
//! must not lose its calls because its control connection is slow. Calls move
//! only when the bridge itself says that it is broken, or when a *suspicion*
//! (clients whose ICE failed, an allocation without answer) and an unanswered
//! IQ sent at that moment come together. A bridge that came back earns its way:
//! [`Settings::rise`] good answers and a quiet time.

use std::time::{Duration, Instant};

/// `jicofo.bridge.health-checks` and `viaduct.focus.health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub enabled: bool,
    pub interval: Duration,
    /// An answer that takes longer degrades the bridge.
    pub slow: Duration,
    /// A check without answer by then has failed.
    pub timeout: Duration,
    /// The same for a check made on suspicion.
    pub suspicion_timeout: Duration,
    /// Failed checks in a row after which the bridge gets no new calls.
    pub fall: u32,
    /// Good ones in a row after which it gets them again.
    pub rise: u32,
    /// Quiet time after the last failure: `failure-reset-threshold`.
    pub reset: Duration,
}

/// How often a bridge that is down is asked.
const RECHECK: Duration = Duration::from_secs(2);

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            slow: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            suspicion_timeout: Duration::from_secs(2),
            fall: 2,
            rise: 2,
            reset: Duration::from_secs(60),
        }
    }
}

/// What the focus holds of a bridge's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// May be used.
    Up,
    /// Answered late or not at all, not often enough to be written off.
    Degraded { failures: u32 },
    /// Answers again, but has not been well for long: used only where nothing
    /// else is.
    Recovering { last_failure: Instant },
    /// Not used; `passed` good answers since.
    Down { last_failure: Instant, passed: u32 },
}

/// A check that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    number: u64,
    sent: Instant,
    due: Instant,
    suspicion: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A result, or any error that shows the bridge at work.
    Alive,
    /// `internal-server-error` or `service-unavailable`: it says itself that it is broken.
    Broken,
}

/// What the conferences must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    /// Calls leave the bridge at once.
    Dead,
    /// It may be used (again).
    Usable,
}

/// The state machine of one bridge.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    next: Instant,
    checks: Vec<Check>,
    counter: u64,
}

impl Health {
    /// A bridge just seen is taken for good until it fails.
    pub fn new(now: Instant, settings: &Settings) -> Self {
        Self {
            state: State::Up,
            next: now + settings.interval,
            checks: Vec::new(),
            counter: 0,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn operational(&self) -> bool {
        matches!(self.state, State::Up | State::Degraded { .. })
    }

    /// It answers again, and may serve where nothing else can.
    pub fn recovering(&self) -> bool {
        matches!(self.state, State::Recovering { .. })
    }

    pub fn degraded(&self) -> bool {
        matches!(self.state, State::Degraded { .. })
    }

    /// When [`Self::due`] or [`Self::expire`] has something to do.
    pub fn next_timeout(&self, settings: &Settings) -> Option<Instant> {
        let check = self.checks.iter().map(|c| c.due).min();
        let regular = settings.enabled.then_some(self.next);
        check.into_iter().chain(regular).min()
    }

    /// A regular check is due: its number, to be sent now.
    pub fn due(&mut self, now: Instant, settings: &Settings) -> Option<u64> {
        if !settings.enabled || now < self.next {
            return None;
        }
        // One that is down is asked often: it may be the only one there is.
        let pause = match self.state {
            State::Down { .. } => settings.interval.min(RECHECK),
            _ => settings.interval,
        };
        self.next = now + pause;
        let running = self.checks.iter().any(|c| !c.suspicion);
        (!running).then(|| self.start(now, now + settings.timeout, false))
    }

    /// Someone has reason to doubt the bridge: the number of the check to send
    /// now, or `None` if one such check is already under way.
    pub fn suspect(&mut self, now: Instant, settings: &Settings) -> Option<u64> {
        let running = self.checks.iter().any(|c| c.suspicion);
        (!running).then(|| self.start(now, now + settings.suspicion_timeout, true))
    }

    fn start(&mut self, now: Instant, due: Instant, suspicion: bool) -> u64 {
        self.counter += 1;
        self.checks.push(Check {
            number: self.counter,
            sent: now,
            due,
            suspicion,
        });
        self.counter
    }

    /// The answer to check `number`; a late one changes nothing.
    pub fn answered(
        &mut self,
        now: Instant,
        number: u64,
        answer: Answer,
        settings: &Settings,
    ) -> Verdict {
        let Some(at) = self.checks.iter().position(|c| c.number == number) else {
            return Verdict::Nothing;
        };
        let check = self.checks.swap_remove(at);
        match answer {
            Answer::Broken => {
                self.checks.clear();
                self.state = State::Down {
                    last_failure: now,
                    passed: 0,
                };
                self.next = self.next.min(now + RECHECK);
                Verdict::Dead
            }
            Answer::Alive => {
                // An answer to a later question answers the earlier ones.
                self.checks.retain(|c| c.number > number);
                self.passed(
                    now,
                    now.duration_since(check.sent) > settings.slow,
                    settings,
                )
            }
        }
    }

    fn passed(&mut self, now: Instant, late: bool, settings: &Settings) -> Verdict {
        match self.state {
            State::Down {
                last_failure,
                passed,
            } if passed + 1 < settings.rise => {
                self.state = State::Down {
                    last_failure,
                    passed: passed + 1,
                };
                Verdict::Nothing
            }
            State::Down { last_failure, .. } | State::Recovering { last_failure } => {
                let recovering = matches!(self.state, State::Recovering { .. });
                if now >= last_failure + settings.reset {
                    self.state = State::Up;
                    return Verdict::Usable;
                }
                self.state = State::Recovering { last_failure };
                if recovering {
                    Verdict::Nothing
                } else {
                    Verdict::Usable
                }
            }
            State::Up if late => {
                self.state = State::Degraded { failures: 0 };
                Verdict::Nothing
            }
            State::Up => Verdict::Nothing,
            State::Degraded { .. } if late => {
                self.state = State::Degraded { failures: 0 };
                Verdict::Nothing
            }
            State::Degraded { .. } => {
                self.state = State::Up;
                Verdict::Usable
            }
        }
    }

    /// Ends checks that waited long enough. `server_heard`: the last sign of life
    /// of our own server; without one since the check was sent it is our
    /// connection that is silent, and nothing is held against the bridge.
    pub fn expire(
        &mut self,
        now: Instant,
        server_heard: Option<Instant>,
        settings: &Settings,
    ) -> Verdict {
        let mut verdict = Verdict::Nothing;
        let (late, waiting): (Vec<Check>, Vec<Check>) =
            self.checks.drain(..).partition(|c| c.due <= now);
        self.checks = waiting;
        for check in late {
            if server_heard.is_none_or(|heard| heard <= check.sent) {
                continue;
            }
            if check.suspicion {
                self.state = State::Down {
                    last_failure: now,
                    passed: 0,
                };
                self.next = self.next.min(now + RECHECK);
                verdict = Verdict::Dead;
                continue;
            }
            self.state = match self.state {
                State::Up if settings.fall > 1 => State::Degraded { failures: 1 },
                State::Degraded { failures } if failures + 1 < settings.fall => State::Degraded {
                    failures: failures + 1,
                },
                State::Up
                | State::Degraded { .. }
                | State::Recovering { .. }
                | State::Down { .. } => State::Down {
                    last_failure: now,
                    passed: 0,
                },
            };
            // Ask again soon: the second failure should not wait for the interval.
            self.next = self.next.min(now);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (Instant, Settings, Health) {
        let now = Instant::now();
        let settings = Settings::default();
        (now, settings.clone(), Health::new(now, &settings))
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn silence_takes_new_calls_away_but_moves_nobody() {
        let (t0, settings, mut health) = start();
        let first = health
            .due(after(t0, 10), &settings)
            .expect("the first check is due");
        assert_eq!(first, 1);
        let heard = Some(after(t0, 11));
        assert_eq!(
            health.expire(after(t0, 15), heard, &settings),
            Verdict::Nothing
        );
        assert_eq!(health.state(), State::Degraded { failures: 1 });
        assert!(
            health.due(after(t0, 15), &settings).is_some(),
            "asked again at once"
        );
        let heard = Some(after(t0, 16));
        assert_eq!(
            health.expire(after(t0, 20), heard, &settings),
            Verdict::Nothing
        );
        assert!(!health.operational());
    }

    #[test]
    fn suspicion_and_silence_are_death_within_two_seconds() {
        let (t0, settings, mut health) = start();
        assert!(health.suspect(after(t0, 3), &settings).is_some());
        assert!(
            health.suspect(after(t0, 4), &settings).is_none(),
            "one at a time"
        );
        assert_eq!(
            health.expire(after(t0, 4), Some(after(t0, 4)), &settings),
            Verdict::Nothing
        );
        assert_eq!(
            health.expire(after(t0, 5), Some(after(t0, 4)), &settings),
            Verdict::Dead
        );
        assert!(!health.operational());
    }

    #[test]
    fn own_silent_connection_accuses_nobody() {
        let (t0, settings, mut health) = start();
        assert!(health.suspect(after(t0, 3), &settings).is_some());
        assert_eq!(
            health.expire(after(t0, 5), Some(after(t0, 2)), &settings),
            Verdict::Nothing
        );
        assert!(health.operational());
    }

    #[test]
    fn returned_bridge_earns_its_way_back() {
        let (t0, settings, mut health) = start();
        let number = health.due(after(t0, 10), &settings).expect("due");
        assert_eq!(
            health.answered(after(t0, 10), number, Answer::Broken, &settings),
            Verdict::Dead
        );
        let mut usable_at = Vec::new();
        for second in 11..=200 {
            let now = after(t0, second);
            let Some(number) = health.due(now, &settings) else {
                continue;
            };
            if health.answered(now, number, Answer::Alive, &settings) == Verdict::Usable {
                usable_at.push((second, health.operational()));
            }
        }
        let [(answers, false), (well, true)] = usable_at[..] else {
            panic!("first where nothing else is, then like any other: {usable_at:?}");
        };
        assert_eq!(answers, 14, "two good answers");
        assert!(
            (70..=80).contains(&well),
            "a minute after the failure, not {well}"
        );
    }

    #[test]
    fn late_answer_degrades_and_prompt_one_mends() {
        let (t0, settings, mut health) = start();
        let number = health.due(after(t0, 10), &settings).expect("due");
        health.answered(after(t0, 13), number, Answer::Alive, &settings);
        assert!(health.operational() && health.degraded());
        let number = health.due(after(t0, 20), &settings).expect("due");
        assert_eq!(
            health.answered(after(t0, 20), number, Answer::Alive, &settings),
            Verdict::Usable
        );
        assert_eq!(health.state(), State::Up);
    }
}
