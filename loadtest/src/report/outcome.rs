//! What is left of a participant when it has gone, and the sum of that over all
//! who came and went: of bounded size, however long a run lasts.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::client::participant::Participant;
use crate::client::receive::ReceiveStats;
use crate::client::send::SendStats;
use crate::measure::delay::Histogram;
use crate::measure::pair::Pairs;

/// Different texts of failures that are kept.
const MAX_TEXTS: usize = 100;

/// Steps of a join, in their order.
pub const STEPS: usize = 10;

/// How a participant went.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Nothing counts from then on.
    pub end: Instant,
    /// It had the time to take part in full.
    pub complete: bool,
    /// All senders stopped at `end`, and it is long ago.
    pub settled: bool,
    /// Datagrams for it that its socket had no room for.
    pub overflow: u64,
}

/// A participant that has gone.
#[derive(Debug)]
pub struct Outcome {
    connected: bool,
    channel: bool,
    pairs: Pairs,
    delays: Histogram,
    /// Nanoseconds from its start (for who was alone: from the second one's
    /// coming) to each step.
    steps: [Option<u64>; STEPS],
    sent: SendStats,
    received: ReceiveStats,
    failures: Vec<String>,
    profile: Option<&'static str>,
    invitations: u32,
    restarts: u32,
    focus_left: u32,
    requests: u32,
    dominant_changes: u64,
    overflow: u64,
}

impl Outcome {
    /// Judges a participant at its departure.
    pub fn new(mut participant: Participant, departure: Departure) -> Self {
        let complete = departure.complete;
        let times = participant.milestones;
        let (first_audio, first_frame) = participant.receiver().firsts();
        let reached = [
            times.online,
            times.ready,
            times.joined,
            times.offered,
            times.accepted,
            times.ice,
            times.connected,
            times.channel,
            first_audio,
            first_frame,
        ];
        let begin = times.company.max(times.started);
        let since = |at: Option<Instant>| {
            let passed = at?.saturating_duration_since(begin?);
            Some(passed.as_nanos() as u64)
        };
        let mut failures = participant.failures.clone();
        failures.extend(participant.missing().filter(|_| complete));
        let (requests, focus_left) = participant.focus_counts();
        Self {
            connected: times.connected.is_some() || !complete,
            channel: times.channel.is_some() || !complete,
            pairs: participant.close(departure.end, departure.settled),
            delays: participant.receiver().delays().clone(),
            steps: reached.map(since),
            sent: participant.send_stats(),
            received: *participant.receive_stats(),
            failures,
            profile: participant.profile(),
            invitations: participant.invitations,
            restarts: participant.restarts,
            focus_left,
            requests,
            dominant_changes: participant.dominant_changes,
            overflow: departure.overflow,
        }
    }
}

/// All participants that have gone.
#[derive(Debug, Default)]
pub struct Tally {
    pub count: usize,
    pub connected: usize,
    pub channels: usize,
    pub pairs: Pairs,
    pub delays: Histogram,
    pub steps: [Histogram; STEPS],
    pub sent: SendStats,
    pub received: ReceiveStats,
    /// What went wrong or never came, and how often.
    pub failures: BTreeMap<String, u32>,
    pub profiles: BTreeMap<&'static str, u32>,
    pub invitations: u32,
    pub restarts: u32,
    pub focus_left: u32,
    pub requests: u32,
    pub dominant_changes: u64,
    /// Datagrams that this program was too slow to take.
    pub overflow: u64,
}

impl Tally {
    pub fn add(&mut self, outcome: Outcome) {
        self.count += 1;
        self.connected += usize::from(outcome.connected);
        self.channels += usize::from(outcome.channel);
        self.pairs.merge(outcome.pairs);
        self.delays.merge(&outcome.delays);
        for (all, one) in self.steps.iter_mut().zip(outcome.steps) {
            if let Some(nanoseconds) = one {
                all.record(nanoseconds);
            }
        }
        self.sent.add(&outcome.sent);
        self.received.add(&outcome.received);
        for text in outcome.failures {
            if self.failures.len() < MAX_TEXTS || self.failures.contains_key(&text) {
                *self.failures.entry(text).or_default() += 1;
            }
        }
        if let Some(profile) = outcome.profile {
            *self.profiles.entry(profile).or_default() += 1;
        }
        self.invitations += outcome.invitations;
        self.restarts += outcome.restarts;
        self.focus_left += outcome.focus_left;
        self.requests += outcome.requests;
        self.dominant_changes += outcome.dominant_changes;
        self.overflow += outcome.overflow;
    }
}
