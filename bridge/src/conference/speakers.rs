//! Who speaks: dominant speaker identification and the order of endpoints. One
//! part of a conference decides; the others are told the order.
//!
//! The algorithm is that of I. Volfin and I. Cohen, "Dominant Speaker
//! Identification for Multipoint Videoconferencing" (2012), with the constants
//! of `jitsi-utils:org/jitsi/utils/dsi/DominantSpeakerIdentification`. Three
//! spans of time are looked at: immediate (20 ms), medium (100 ms) and long
//! (1 s); in each, a level is active or not, and the count of active ones gives
//! a score. A challenger wins who beats the dominant speaker in all three.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Thresholds on the logarithm of the challenger's score over the dominant's.
const C1: f64 = 3.0;
const C2: f64 = 2.0;
const C3: f64 = 0.0;
/// Levels in a sub-unit of an immediate: (127 + 12) / 13.
const SUB_UNIT: u8 = 10;
/// Sub-units of an immediate; immediates in a medium; mediums in a long.
const N1: usize = 13;
const N2: usize = 5;
const N3: usize = 10;
/// Immediates kept: one second.
const IMMEDIATES: usize = N2 * N3;
/// Counts above which a medium's immediate and a long's medium are active.
const MEDIUM_THRESHOLD: u8 = 7;
const LONG_THRESHOLD: u8 = 4;
/// Time between two decisions.
const DECISION: Duration = Duration::from_millis(300);
/// One immediate, and how long a speaker may go without a level before it
/// counts as silent.
const LEVEL: Duration = Duration::from_millis(20);
const LEVEL_IDLE: Duration = Duration::from_millis(40);
/// Time after which a silent speaker is no longer considered.
const SPEAKER_IDLE: Duration = Duration::from_secs(3600);
/// Levels over which a minimum is taken: 15 s.
const MINIMUM_SPAN: u32 = 750;
/// Least score.
const MIN_SCORE: f64 = 1e-10;
/// Rates of the exponential distributions of the scores.
const LAMBDA_IMMEDIATE: f64 = 0.78;
const LAMBDA_MEDIUM: f64 = 24.0;
const LAMBDA_LONG: f64 = 47.0;

/// The score of a count, for each of the three spans.
struct Scores {
    immediate: [f64; N1 + 1],
    medium: [f64; N2 + 1],
    long: [f64; N3 + 1],
}

static SCORES: LazyLock<Scores> = LazyLock::new(|| Scores {
    immediate: scores(LAMBDA_IMMEDIATE),
    medium: scores(LAMBDA_MEDIUM),
    long: scores(LAMBDA_LONG),
});

fn scores<const N: usize>(lambda: f64) -> [f64; N] {
    std::array::from_fn(|count| score(count as u32, N as u32 - 1, lambda))
}

/// ln C(n,k) + k ln ½ + (n-k) ln ½ - ln λ + λk
fn score(count: u32, of: u32, lambda: f64) -> f64 {
    let binomial: f64 = (1..=count)
        .map(|i| (f64::from(of - count + i) / f64::from(i)).ln())
        .sum();
    let score = binomial + f64::from(of) * 0.5f64.ln() - lambda.ln() + lambda * f64::from(count);
    score.max(MIN_SCORE)
}

/// The levels of one endpoint.
#[derive(Debug)]
struct Speaker<K> {
    key: K,
    /// Activity of the last second, newest first.
    immediates: [u8; IMMEDIATES],
    last_level: Option<Instant>,
    minimum: u8,
    next_minimum: u8,
    minimum_count: u32,
}

impl<K> Speaker<K> {
    fn new(key: K) -> Self {
        Self {
            key,
            immediates: [0; IMMEDIATES],
            last_level: None,
            minimum: 0,
            next_minimum: 0,
            minimum_count: 0,
        }
    }

    fn level(&mut self, now: Instant, level: u8) {
        self.last_level = Some(now);
        self.push(level);
        if level == 0 {
            return;
        }
        if self.next_minimum == 0 || level < self.next_minimum {
            self.next_minimum = level;
            self.minimum_count = 1;
            if self.minimum == 0 || level < self.minimum {
                self.minimum = level;
            }
        } else {
            self.minimum_count += 1;
        }
        if self.minimum_count >= MINIMUM_SPAN {
            let mean = (f64::from(self.minimum) * f64::from(self.next_minimum)).sqrt();
            self.minimum = mean as u8;
            self.next_minimum = 0;
            self.minimum_count = 0;
        }
    }

    fn push(&mut self, level: u8) {
        self.immediates.copy_within(..IMMEDIATES - 1, 1);
        let active = level >= self.minimum.saturating_add(SUB_UNIT);
        self.immediates[0] = if active { level / SUB_UNIT } else { 0 };
    }

    /// Counts of the newest immediate, medium and long.
    fn counts(&self) -> (u8, u8, u8) {
        let mut mediums = [0u8; N3];
        for (medium, block) in mediums.iter_mut().zip(self.immediates.chunks(N2)) {
            *medium = block.iter().filter(|i| **i > MEDIUM_THRESHOLD).count() as u8;
        }
        let long = mediums.iter().filter(|m| **m > LONG_THRESHOLD).count() as u8;
        (self.immediates[0], mediums[0], long)
    }

    fn scores(&self) -> [f64; 3] {
        let (immediate, medium, long) = self.counts();
        [
            SCORES.immediate[usize::from(immediate)],
            SCORES.medium[usize::from(medium)],
            SCORES.long[usize::from(long)],
        ]
    }
}

/// The endpoints of a conference in speech order.
#[derive(Clone, Debug)]
pub struct Order<K> {
    /// All endpoints: the dominant speaker, previous ones newest first, then
    /// those who never were, in the order in which they joined.
    list: Vec<K>,
    dominant: Option<K>,
    /// How many of `list` have been dominant.
    spoken: usize,
}

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            dominant: None,
            spoken: 0,
        }
    }
}

impl<K: Copy + PartialEq> Order<K> {
    /// That of `list`, of whom the first `spoken` have been dominant.
    pub fn new(list: Vec<K>, spoken: usize, dominant: Option<K>) -> Self {
        Self {
            spoken: spoken.min(list.len()),
            list,
            dominant,
        }
    }

    /// An endpoint joins, last in the order.
    pub fn join(&mut self, key: K) {
        self.list.push(key);
    }

    /// An endpoint leaves. Whether it was the dominant speaker.
    pub fn leave(&mut self, key: K) -> bool {
        if let Some(at) = self.list.iter().position(|k| *k == key) {
            self.list.remove(at);
            self.spoken -= usize::from(at < self.spoken);
        }
        let dominant = self.dominant == Some(key);
        if dominant {
            self.dominant = None;
        }
        dominant
    }

    /// All endpoints in speech order.
    pub fn list(&self) -> &[K] {
        &self.list
    }

    /// The dominant speaker, if there is one.
    pub fn dominant(&self) -> Option<K> {
        self.dominant
    }

    /// How many of the first in the list have been dominant.
    pub fn spoken(&self) -> usize {
        self.spoken
    }

    /// Those who were dominant before, newest first.
    pub fn previous(&self) -> &[K] {
        let first = usize::from(self.dominant.is_some());
        &self.list[first.min(self.spoken)..self.spoken]
    }

    /// Another endpoint is dominant from now on; whether it is one of these.
    fn promote(&mut self, winner: K) -> bool {
        let Some(at) = self.list.iter().position(|k| *k == winner) else {
            return false;
        };
        self.list[..=at].rotate_right(1);
        self.spoken += usize::from(at >= self.spoken);
        self.dominant = Some(winner);
        true
    }
}

/// Decides who is the dominant speaker of a conference.
#[derive(Debug)]
pub struct Speakers<K> {
    speakers: Vec<Speaker<K>>,
    order: Order<K>,
    next_decision: Option<Instant>,
}

impl<K> Default for Speakers<K> {
    fn default() -> Self {
        Self {
            speakers: Vec::new(),
            order: Order::default(),
            next_decision: None,
        }
    }
}

impl<K: Copy + PartialEq> Speakers<K> {
    /// An endpoint joins, last in the order.
    pub fn join(&mut self, key: K) {
        self.order.join(key);
    }

    /// An endpoint leaves. Whether it was the dominant speaker.
    pub fn leave(&mut self, key: K) -> bool {
        self.speakers.retain(|s| s.key != key);
        self.order.leave(key)
    }

    /// The endpoints in speech order.
    pub fn order(&self) -> &Order<K> {
        &self.order
    }

    /// Notes the loudness (0 to 127) of an audio packet of an endpoint.
    pub fn level(&mut self, now: Instant, key: K, loudness: u8) {
        let at = match self.speakers.iter().position(|s| s.key == key) {
            Some(at) => at,
            None => {
                self.speakers.push(Speaker::new(key));
                self.speakers.len() - 1
            }
        };
        self.speakers[at].level(now, loudness);
        self.next_decision.get_or_insert(now + DECISION);
    }

    /// When [`Self::handle_timeout`] has something to decide.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_decision
    }

    /// Decides if it is time to. Whether the dominant speaker changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.next_decision.is_none_or(|at| at > now) {
            return false;
        }
        let mut idle = true;
        self.speakers.retain_mut(|speaker| {
            let Some(last) = speaker.last_level else {
                return true;
            };
            let silent = now.saturating_duration_since(last);
            if silent > LEVEL_IDLE {
                // As many levels as would have come since the last decision.
                let missing = (silent.min(DECISION).as_micros() / LEVEL.as_micros()) as usize;
                for _ in 0..missing {
                    speaker.push(0);
                }
            }
            idle &= silent > Duration::from_secs(2);
            silent < SPEAKER_IDLE
        });
        // Nobody has sent a level for long: the next one starts the clock again.
        self.next_decision = (!idle).then_some(now + DECISION);
        let winner = self.winner();
        match winner {
            Some(winner) if self.order.dominant != Some(winner) => self.order.promote(winner),
            _ => false,
        }
    }

    fn winner(&self) -> Option<K> {
        let dominant = self.order.dominant;
        let dominant = self.speakers.iter().find(|s| dominant == Some(s.key));
        let Some(dominant) = dominant else {
            return self.speakers.first().map(|s| s.key);
        };
        let own = dominant.scores();
        let mut best: Option<(f64, K)> = None;
        for speaker in &self.speakers {
            if Some(speaker.key) == self.order.dominant {
                continue;
            }
            let scores = speaker.scores();
            let [c1, c2, c3] = std::array::from_fn(|i| (scores[i] / own[i]).ln());
            if c1 > C1 && c2 > C2 && c3 > C3 && best.is_none_or(|(most, _)| c2 > most) {
                best = Some((c2, speaker.key));
            }
        }
        best.map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Talk {
        now: Instant,
        speakers: Speakers<usize>,
        changes: Vec<usize>,
    }

    impl Talk {
        fn new(endpoints: usize) -> Self {
            let mut speakers = Speakers::default();
            (0..endpoints).for_each(|key| speakers.join(key));
            Self {
                now: Instant::now(),
                speakers,
                changes: Vec::new(),
            }
        }

        fn run(&mut self, ms: u64, levels: &[u8]) {
            for _ in 0..ms / 20 {
                self.now += LEVEL;
                for (key, level) in levels.iter().enumerate() {
                    self.speakers.level(self.now, key, *level);
                }
                if self.speakers.handle_timeout(self.now) {
                    self.changes.extend(self.speakers.order().dominant());
                }
            }
        }
    }

    #[test]
    fn speech_goes_round_and_a_cough_does_not_take_the_floor() {
        let mut talk = Talk::new(3);
        talk.run(4000, &[100, 10, 10]);
        assert_eq!(talk.changes, [0]);
        talk.run(100, &[100, 10, 110]);
        talk.run(1000, &[100, 10, 10]);
        assert_eq!(talk.changes, [0], "100 ms are no speech");
        talk.run(4000, &[10, 100, 10]);
        assert_eq!(talk.changes, [0, 1]);
        talk.run(4000, &[10, 10, 100]);
        assert_eq!(talk.changes, [0, 1, 2]);
        assert_eq!(talk.speakers.order().list(), [2, 1, 0]);
        assert_eq!(talk.speakers.order().previous(), [1, 0]);
    }

    #[test]
    fn the_order_survives_leaves() {
        let mut talk = Talk::new(4);
        talk.run(3000, &[10, 100, 10, 10]);
        talk.run(3000, &[10, 10, 10, 100]);
        assert_eq!(talk.speakers.order().dominant(), Some(3));
        assert!(!talk.speakers.leave(1));
        assert_eq!(talk.speakers.order().list(), [3, 0, 2]);
        assert!(talk.speakers.leave(3));
        assert_eq!(talk.speakers.order().dominant(), None);
        assert_eq!(talk.speakers.order().list(), [0, 2]);
        talk.run(600, &[100]);
        assert_eq!(talk.speakers.order().dominant(), Some(0));
        assert_eq!(talk.speakers.order().list(), [0, 2]);
    }

    #[test]
    fn a_room_without_audio_needs_no_timer() {
        let mut talk = Talk::new(2);
        assert_eq!(talk.speakers.next_timeout(), None);
        talk.run(1000, &[50, 50]);
        assert!(talk.speakers.next_timeout().is_some());
        let mut now = talk.now;
        while let Some(at) = talk.speakers.next_timeout() {
            now = at;
            talk.speakers.handle_timeout(now);
        }
        assert!(now < talk.now + Duration::from_secs(3));
    }

    #[test]
    fn scores_of_medium_and_long_grow_with_the_count_and_none_is_nothing() {
        assert!(SCORES.medium.is_sorted());
        assert!(SCORES.long.is_sorted());
        let all = SCORES
            .immediate
            .iter()
            .chain(&SCORES.medium)
            .chain(&SCORES.long);
        assert!(all.into_iter().all(|score| *score >= MIN_SCORE));
    }
}
