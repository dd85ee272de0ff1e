//! Is a bridge alive? Rise and fall of one bridge, from answers to health IQs.
//!
//! A late answer degrades, it does not kill: a bridge that still carries media
//! must not lose its calls because its control connection is slow. Calls move
//! only when the bridge itself says that it is broken, or when a *suspicion*
//! (clients whose ICE failed, an allocation without answer) and an unanswered
//! IQ sent at that moment come together. One that answers nothing may be dead or
//! have more to do than it can: it is the last to be used, but used if it is all
//! there is, and asked again with growing pauses; an answer clears it, however
//! late. A bridge that came back earns its way by a quiet time, and one that was
//! broken by [`Settings::rise`] good answers before.
//!
//! Question and answer go by the XMPP server, and where that is slow all bridges
//! seem to be. So a ping to the server goes with each check ([`Echo`]), and what the
//! server takes for each way is not the bridge's.

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
    /// Failed checks in a row after which the bridge gets no new calls, unless
    /// no other answers.
    pub fall: u32,
    /// Good ones in a row after which one that was broken may get them again.
    pub rise: u32,
    /// Quiet time after the last failure: `failure-reset-threshold`.
    pub reset: Duration,
}

/// How often a bridge that is down is asked, and the first pause before a silent
/// one is asked again; the pause doubles up to the regular interval.
const RECHECK: Duration = Duration::from_secs(2);
/// How long a check is put off at a time while the server answers nothing, and how
/// old it may become: then it says nothing of the bridge.
const SERVER_WAIT: Duration = Duration::from_millis(500);
const SERVER_PATIENCE: Duration = Duration::from_secs(30);
/// Checks kept for their answer, those that failed for want of one included.
const MAX_CHECKS: usize = 8;

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

impl Settings {
    /// How long a check waits for its answer.
    fn patience(&self, suspicion: bool) -> Duration {
        match suspicion {
            true => self.suspicion_timeout,
            false => self.timeout,
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
    /// Answers nothing: used only where nothing answers.
    Silent { failures: u32, since: Instant },
    /// Answers again, but has not been well for long: used only where nothing
    /// else is.
    Recovering { last_failure: Instant },
    /// Says that it is broken and is not used; `passed` good answers since.
    Down { last_failure: Instant, passed: u32 },
}

/// The newest ping to our own server that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    pub sent: Instant,
    pub took: Duration,
}

/// A check that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    number: u64,
    sent: Instant,
    /// `None`: it has failed, an answer would be late.
    due: Option<Instant>,
    suspicion: bool,
}

impl Check {
    /// What the server took of the time since it was sent: to the bridge, and back.
    /// `None` while it has answered no ping of that time.
    fn on_the_way(&self, echo: Option<Echo>) -> Option<Duration> {
        let echo = echo.filter(|echo| echo.sent >= self.sent)?;
        Some(echo.took * 2)
    }
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
    /// In the order in which they were sent.
    checks: Vec<Check>,
    counter: u64,
    /// When the newest question that was answered had been sent.
    heard: Option<Instant>,
}

impl Health {
    /// A bridge just seen is taken for good until it fails.
    pub fn new(now: Instant, settings: &Settings) -> Self {
        Self {
            state: State::Up,
            next: now + settings.interval,
            checks: Vec::new(),
            counter: 0,
            heard: None,
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

    /// It answers nothing.
    pub fn silent(&self) -> bool {
        matches!(self.state, State::Silent { .. })
    }

    /// Whether it has answered anything asked after that.
    pub fn heard_since(&self, asked: Instant) -> bool {
        self.heard.is_some_and(|heard| heard > asked)
    }

    /// It let some other question wait for too long.
    pub fn slow(&mut self) {
        if self.state == State::Up {
            self.state = State::Degraded { failures: 0 };
        }
    }

    /// When [`Self::due`] or [`Self::expire`] has something to do.
    pub fn next_timeout(&self, settings: &Settings) -> Option<Instant> {
        let check = self.checks.iter().filter_map(|c| c.due).min();
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
        (!self.running(false)).then(|| self.start(now, settings, false))
    }

    /// Someone has reason to doubt the bridge: the number of the check to send
    /// now, or `None` if one such check is already under way.
    pub fn suspect(&mut self, now: Instant, settings: &Settings) -> Option<u64> {
        (!self.running(true)).then(|| self.start(now, settings, true))
    }

    fn running(&self, suspicion: bool) -> bool {
        let waiting = |c: &Check| c.due.is_some() && c.suspicion == suspicion;
        self.checks.iter().any(waiting)
    }

    fn start(&mut self, now: Instant, settings: &Settings, suspicion: bool) -> u64 {
        self.counter += 1;
        if self.checks.len() >= MAX_CHECKS {
            self.checks.remove(0);
        }
        self.checks.push(Check {
            number: self.counter,
            sent: now,
            due: Some(now + settings.patience(suspicion)),
            suspicion,
        });
        self.counter
    }

    /// The answer to check `number`, in time or late.
    pub fn answered(
        &mut self,
        now: Instant,
        number: u64,
        answer: Answer,
        echo: Option<Echo>,
        settings: &Settings,
    ) -> Verdict {
        let Some(at) = self.checks.iter().position(|c| c.number == number) else {
            return Verdict::Nothing;
        };
        let check = self.checks.remove(at);
        self.heard = self.heard.max(Some(check.sent));
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
                let took = now.duration_since(check.sent);
                let of_server = check.on_the_way(echo).unwrap_or_default();
                self.passed(now, took > settings.slow + of_server, settings)
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
            State::Silent { since, .. } => {
                self.state = State::Recovering {
                    last_failure: since,
                };
                Verdict::Usable
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

    /// Ends checks that waited long enough. While the server does not answer the ping
    /// that went with one, nothing is held against the bridge.
    pub fn expire(&mut self, now: Instant, echo: Option<Echo>, settings: &Settings) -> Verdict {
        let mut verdict = Verdict::Nothing;
        let mut failed = Vec::new();
        for check in &mut self.checks {
            if check.due.is_none_or(|due| due > now) {
                continue;
            }
            let timeout = settings.patience(check.suspicion);
            let fair = match check.on_the_way(echo) {
                Some(on_the_way) => check.sent + timeout + on_the_way,
                None if now < check.sent + SERVER_PATIENCE => now + SERVER_WAIT,
                None => {
                    check.due = None;
                    continue;
                }
            };
            check.due = Some(fair).filter(|fair| *fair > now);
            if check.due.is_none() {
                failed.push(*check);
            }
        }
        for check in failed {
            if check.suspicion {
                verdict = Verdict::Dead;
            }
            self.failed(now, check.suspicion, settings);
        }
        verdict
    }

    fn failed(&mut self, now: Instant, suspicion: bool, settings: &Settings) {
        // Ask again soon: the second failure should not wait for the interval.
        let mut pause = Duration::ZERO;
        self.state = match self.state {
            State::Up if !suspicion && settings.fall > 1 => State::Degraded { failures: 1 },
            State::Degraded { failures } if !suspicion && failures + 1 < settings.fall => {
                State::Degraded {
                    failures: failures + 1,
                }
            }
            State::Down { .. } => State::Down {
                last_failure: now,
                passed: 0,
            },
            State::Silent { failures, .. } => {
                pause = RECHECK.saturating_mul(1 << failures.min(16));
                State::Silent {
                    failures: failures + 1,
                    since: now,
                }
            }
            State::Up | State::Degraded { .. } | State::Recovering { .. } => {
                pause = RECHECK;
                State::Silent {
                    failures: 1,
                    since: now,
                }
            }
        };
        self.next = match self.state {
            State::Silent { .. } => now + pause.min(settings.interval),
            _ => self.next.min(now + pause),
        };
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

    /// The server answers a ping of that time at once.
    fn echo(sent: Instant) -> Option<Echo> {
        let took = Duration::ZERO;
        Some(Echo { sent, took })
    }

    #[test]
    fn silence_takes_new_calls_away_but_moves_nobody() {
        let (t0, settings, mut health) = start();
        let first = health
            .due(after(t0, 10), &settings)
            .expect("the first check is due");
        assert_eq!(first, 1);
        let heard = echo(after(t0, 10));
        assert_eq!(
            health.expire(after(t0, 15), heard, &settings),
            Verdict::Nothing
        );
        assert_eq!(health.state(), State::Degraded { failures: 1 });
        assert!(
            health.due(after(t0, 15), &settings).is_some(),
            "asked again at once"
        );
        let heard = echo(after(t0, 15));
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
            health.expire(after(t0, 4), echo(after(t0, 3)), &settings),
            Verdict::Nothing
        );
        assert_eq!(
            health.expire(after(t0, 5), echo(after(t0, 3)), &settings),
            Verdict::Dead
        );
        assert!(!health.operational());
    }

    #[test]
    fn a_server_that_is_silent_or_slow_accuses_no_bridge() {
        let (t0, settings, mut health) = start();
        health.suspect(after(t0, 3), &settings).expect("no other");
        let mut expire = |second, echo| health.expire(after(t0, second), echo, &settings);
        // An answer to an earlier ping says nothing of now.
        assert_eq!(expire(5, echo(after(t0, 2))), Verdict::Nothing);
        assert_eq!(expire(9, None), Verdict::Nothing);
        // Six seconds to the server and back: twice that beside the bridge's two.
        let took = Duration::from_secs(6);
        let sent = after(t0, 3);
        let slow = Some(Echo { sent, took });
        assert_eq!(expire(10, slow), Verdict::Nothing);
        assert_eq!(expire(16, slow), Verdict::Nothing);
        assert_eq!(expire(17, slow), Verdict::Dead);
    }

    #[test]
    fn a_check_that_the_server_never_took_is_forgotten() {
        let (t0, settings, mut health) = start();
        health.suspect(after(t0, 3), &settings).expect("no other");
        for second in 4..=40 {
            let verdict = health.expire(after(t0, second), None, &settings);
            assert_eq!(verdict, Verdict::Nothing);
            let again = health.suspect(after(t0, second), &settings);
            assert_eq!(again.is_some(), second == 33, "after {second} s");
        }
        assert!(health.operational() && !health.degraded());
    }

    #[test]
    fn an_answer_is_late_by_what_the_server_did_not_take() {
        let (t0, settings, mut health) = start();
        for (server, degraded) in [(0, true), (3, false)] {
            let number = health.suspect(t0, &settings).expect("no other");
            let took = Duration::from_secs(server);
            let slow = Some(Echo { sent: t0, took });
            health.answered(after(t0, 7), number, Answer::Alive, slow, &settings);
            assert_eq!(health.degraded(), degraded);
        }
    }

    #[test]
    fn returned_bridge_earns_its_way_back() {
        let (t0, settings, mut health) = start();
        let number = health.due(after(t0, 10), &settings).expect("due");
        assert_eq!(
            health.answered(after(t0, 10), number, Answer::Broken, None, &settings),
            Verdict::Dead
        );
        let mut usable_at = Vec::new();
        for second in 11..=200 {
            let now = after(t0, second);
            let Some(number) = health.due(now, &settings) else {
                continue;
            };
            if health.answered(now, number, Answer::Alive, None, &settings) == Verdict::Usable {
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

    /// An answer that comes after its check has failed shows a bridge that is
    /// slow, not one that is dead.
    #[test]
    fn silent_bridge_is_cleared_by_an_answer_however_late() {
        let (t0, settings, mut health) = start();
        let number = health.suspect(after(t0, 3), &settings).expect("no other");
        let heard = echo(after(t0, 3));
        assert_eq!(health.expire(after(t0, 5), heard, &settings), Verdict::Dead);
        assert!(health.silent() && !health.heard_since(t0));
        assert_eq!(
            health.answered(after(t0, 23), number, Answer::Alive, None, &settings),
            Verdict::Usable
        );
        assert!(health.recovering() && health.heard_since(after(t0, 2)));
        assert!(!health.heard_since(after(t0, 3)), "it was asked then");
    }

    #[test]
    fn silent_bridge_is_asked_again_with_growing_pauses() {
        let (t0, settings, mut health) = start();
        let mut asked = Vec::new();
        for second in 1..=120 {
            let now = after(t0, second);
            health.expire(now, echo(now), &settings);
            if health.due(now, &settings).is_some() {
                asked.push(second);
            }
        }
        let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..5], [5, 7, 9, 13, 15], "timeout and pause");
        assert!(pauses[5..].iter().all(|pause| *pause == 15));
        assert!(health.checks.len() <= MAX_CHECKS);
    }

    #[test]
    fn late_answer_degrades_and_prompt_one_mends() {
        let (t0, settings, mut health) = start();
        let number = health.due(after(t0, 10), &settings).expect("due");
        health.answered(after(t0, 13), number, Answer::Alive, None, &settings);
        assert!(health.operational() && health.degraded());
        let number = health.due(after(t0, 20), &settings).expect("due");
        assert_eq!(
            health.answered(after(t0, 20), number, Answer::Alive, None, &settings),
            Verdict::Usable
        );
        assert_eq!(health.state(), State::Up);
    }
}
