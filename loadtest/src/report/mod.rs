//! The verdicts of a run, as a table for people and JSON for programs.

pub mod outcome;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::measure::pair::{Gaps, Pair, Totals};
use crate::scenario::Scenario;
use outcome::Tally;

/// What was measured from outside the participants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// From all connected to the end of sending.
    pub steady: Duration,
    /// CPU time of the bridge in that time, and its memory at the beginning and
    /// the end.
    pub bridge: Option<(f64, u64, u64)>,
    /// Packets received by all participants in that time.
    pub steady_packets: u64,
    /// CPU time of this program in that time, and its memory at the beginning
    /// and the end.
    pub own: Option<(f64, u64, u64)>,
    /// Whether the run was cut short from the keyboard.
    pub interrupted: bool,
}

/// One condition and whether it was met.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Medians over the participants, of the time from the start of each (for who
/// was alone: from the second one's coming) until it was reached.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Joins {
    pub login: f64,
    pub request: f64,
    pub room: f64,
    pub offer: f64,
    pub accepted: f64,
    pub ice: f64,
    pub connected: f64,
    pub channel: f64,
    pub first_audio: f64,
    pub first_frame: f64,
    /// Slowest participant to its first frame.
    pub max: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sent {
    pub packets: u64,
    pub octets: u64,
    pub resent: u64,
    pub nacked: u64,
    pub key_requests: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Received {
    pub packets: u64,
    pub octets: u64,
    pub unsignalled: u64,
    pub malformed: u64,
    pub padding: u64,
    /// Datagrams that this program was too slow to take.
    pub overflow: u64,
    pub sender_reports: u64,
    pub odd_sender_reports: u64,
    pub nacks: u64,
    pub key_requests: u64,
}

/// What a process used in the steady part.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Process {
    pub cpu_seconds: f64,
    /// CPU time for each packet that the participants received.
    pub cpu_us_per_packet: f64,
    /// Resident memory at the end, and at the beginning.
    pub rss_kib: u64,
    pub rss_begin_kib: u64,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub passed: bool,
    pub verdicts: Vec<Verdict>,
    pub participants: u16,
    pub senders: u16,
    /// Participants in all, one after the other.
    pub joined: usize,
    pub connected: usize,
    pub seconds: f64,
    #[serde(flatten)]
    pub totals: Totals,
    /// Of the packets that were or should have been delivered.
    pub delivered_ratio: f64,
    pub packets_per_second: f64,
    pub delay_ms: Quantiles,
    pub gap_ms: Gaps,
    /// Median time to the first frame.
    pub join_ms: f64,
    pub joins_ms: Joins,
    pub sent: Sent,
    pub received: Received,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<Process>,
    /// Longest time from the end of a mute to the first packet or picture.
    pub resumed_ms: f64,
    /// Sources that were to be heard or seen at a receiver; all that were.
    pub expected_pairs: u64,
    pub pair_count: u64,
    pub srtp_profiles: BTreeMap<&'static str, u32>,
    pub invitations: u32,
    pub restarts: u32,
    pub focus_left: u32,
    pub conference_requests: u32,
    pub dominant_speaker_changes: u64,
    #[serde(skip)]
    switch_ms: Vec<f64>,
    pub pairs: Vec<Pair>,
    pub failures: Vec<String>,
}

impl Report {
    /// Judges all who took part.
    pub fn new(scenario: &Scenario, tally: Tally, surroundings: &Surroundings) -> Self {
        let totals = tally.pairs.totals;
        let due = totals.delivered + totals.lost;
        let steady = surroundings.steady.as_secs_f64();
        let packets = surroundings.steady_packets;
        let process = |(cpu_seconds, rss_begin_kib, rss_kib)| Process {
            cpu_seconds,
            cpu_us_per_packet: cpu_seconds * 1e6 / packets.max(1) as f64,
            rss_kib,
            rss_begin_kib,
        };
        let joins_ms = Joins::new(&tally);
        let failures = tally.failures.iter().map(|(text, count)| match count {
            1 => text.clone(),
            _ => format!("{text} (x{count})"),
        });
        let mut report = Self {
            passed: false,
            verdicts: Vec::new(),
            participants: scenario.participants,
            senders: scenario.senders,
            joined: tally.count,
            connected: tally.connected,
            seconds: steady,
            totals,
            delivered_ratio: if due == 0 {
                0.0
            } else {
                totals.delivered as f64 / due as f64
            },
            packets_per_second: if steady > 0.0 {
                packets as f64 / steady
            } else {
                0.0
            },
            delay_ms: Quantiles {
                p50: tally.delays.quantile_ms(0.5),
                p99: tally.delays.quantile_ms(0.99),
                p999: tally.delays.quantile_ms(0.999),
                max: tally.delays.max_ms(),
            },
            gap_ms: tally.pairs.gaps,
            join_ms: joins_ms.first_frame,
            joins_ms,
            sent: Sent {
                packets: tally.sent.packets,
                octets: tally.sent.octets,
                resent: tally.sent.resent,
                nacked: tally.sent.nacked,
                key_requests: tally.sent.key_requests,
            },
            received: Received {
                packets: tally.received.packets,
                octets: tally.received.octets,
                unsignalled: tally.received.unsignalled,
                malformed: tally.received.malformed,
                padding: tally.pairs.padding,
                overflow: tally.overflow,
                sender_reports: tally.received.reports,
                odd_sender_reports: tally.received.odd_reports,
                nacks: tally.received.nacks,
                key_requests: tally.received.key_requests,
            },
            bridge: surroundings.bridge.map(process),
            own: surroundings.own.map(process),
            resumed_ms: tally.pairs.resumed_ms,
            expected_pairs: tally.pairs.expected,
            pair_count: tally.pairs.count,
            failures: failures.collect(),
            srtp_profiles: tally.profiles,
            invitations: tally.invitations,
            restarts: tally.restarts,
            focus_left: tally.focus_left,
            conference_requests: tally.requests,
            dominant_speaker_changes: tally.dominant_changes,
            switch_ms: tally.pairs.switch_ms,
            pairs: tally.pairs.listed,
        };
        report.judge(scenario, tally.channels, tally.pairs.missing, surroundings);
        report
    }

    fn judge(
        &mut self,
        scenario: &Scenario,
        channels: usize,
        missing: u64,
        surroundings: &Surroundings,
    ) {
        let all = self.joined;
        let shown: Vec<String> = self
            .pairs
            .iter()
            .filter(|pair| pair.is_missing())
            .take(8)
            .map(|pair| format!("{}>{} {}", pair.sender, pair.receiver, pair.kind))
            .collect();
        let totals = self.totals;
        let mut verdict = |name, passed, detail: String| {
            self.verdicts.push(Verdict {
                name,
                passed,
                detail,
            });
        };
        verdict(
            "connected",
            self.connected == all && channels == all,
            format!(
                "{} of {all}, {channels} with a bridge channel",
                self.connected
            ),
        );
        verdict(
            "every pair heard and seen",
            missing == 0,
            format!(
                "{missing} of {} missing {}",
                self.expected_pairs,
                shown.join(", ")
            )
            .trim_end()
            .to_owned(),
        );
        verdict(
            "lost",
            totals.lost <= scenario.max_lost,
            format!("{} of {}", totals.lost, totals.lost + totals.delivered),
        );
        verdict(
            "reordered",
            totals.reordered == 0,
            totals.reordered.to_string(),
        );
        verdict(
            "duplicates",
            totals.duplicate == 0,
            totals.duplicate.to_string(),
        );
        verdict(
            "content",
            totals.foreign == 0 && totals.corrupt == 0,
            format!("{} of others, {} damaged", totals.foreign, totals.corrupt),
        );
        verdict(
            "pictures",
            totals.undecodable == 0 && totals.bad_switches == 0,
            format!(
                "{} without their reference, {} changes of layer without a key frame",
                totals.undecodable, totals.bad_switches
            ),
        );
        verdict(
            "numbering",
            totals.misnumbered == 0,
            format!("{} packets or frames out of step", totals.misnumbered),
        );
        verdict(
            "layers",
            totals.unmet_heights == 0 && totals.strayed == 0,
            format!(
                "{} heights asked for never came, {} pictures of another",
                totals.unmet_heights, totals.strayed
            ),
        );
        if scenario.mute {
            verdict(
                "mutes",
                totals.mutes > 0 && totals.while_muted == 0 && totals.unresumed == 0,
                format!(
                    "{} ended, {} packets meanwhile, {} never back",
                    totals.mutes, totals.while_muted, totals.unresumed
                ),
            );
        }
        // Loss would then say nothing of the bridge.
        let overflow = self.received.overflow;
        verdict(
            "harness kept up",
            overflow == 0,
            format!("{overflow} datagrams found no room in its sockets"),
        );
        verdict(
            "no failure",
            self.failures.is_empty(),
            format!("{}", self.failures.len()),
        );
        if surroundings.interrupted {
            verdict("ran to its end", false, "interrupted".to_owned());
        }
        self.passed = self.verdicts.iter().all(|verdict| verdict.passed);
    }

    /// The JSON form, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    /// The table for people.
    pub fn to_table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(out, "{name:<22} {value}").expect("a string takes all");
        };
        let totals = &self.totals;
        line(
            "participants",
            format!(
                "{} ({} senders), {} in all, {} connected",
                self.participants, self.senders, self.joined, self.connected
            ),
        );
        line(
            "delivered",
            format!(
                "{} packets, {:.0}/s over {:.1} s",
                totals.delivered, self.packets_per_second, self.seconds
            ),
        );
        line(
            "lost, recovered",
            format!(
                "{}, {} ({:.6} delivered)",
                totals.lost, totals.recovered, self.delivered_ratio
            ),
        );
        line(
            "reordered, repeated",
            format!("{}, {}", totals.reordered, totals.duplicate),
        );
        line(
            "foreign, damaged",
            format!("{}, {}", totals.foreign, totals.corrupt),
        );
        let delay = &self.delay_ms;
        line(
            "delay",
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.1} ms",
                delay.p50, delay.p99, delay.p999, delay.max
            ),
        );
        line(
            "longest gap",
            format!(
                "audio {:.0} ms, video {:.0} ms",
                self.gap_ms.audio, self.gap_ms.video
            ),
        );
        let joins = &self.joins_ms;
        line(
            "join to first frame",
            format!(
                "median {:.0} ms, slowest {:.0} ms (offer {:.0}, connected {:.0}, channel {:.0})",
                joins.first_frame, joins.max, joins.offer, joins.connected, joins.channel
            ),
        );
        if !self.switch_ms.is_empty() {
            let mut times = self.switch_ms.clone();
            times.sort_by(f64::total_cmp);
            let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
            line(
                "layer reached after",
                format!("median {median:.0} ms, slowest {slowest:.0} ms"),
            );
        }
        if self.totals.mutes > 0 {
            line(
                "back after a mute",
                format!("{:.0} ms at most", self.resumed_ms),
            );
        }
        let profiles: Vec<String> = self
            .srtp_profiles
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        line("SRTP", profiles.join(", "));
        for (name, process) in [("bridge", &self.bridge), ("this program", &self.own)] {
            let Some(process) = process else { continue };
            line(
                name,
                format!(
                    "{:.2} s CPU, {:.2} us a packet, {} KiB resident ({} at first)",
                    process.cpu_seconds,
                    process.cpu_us_per_packet,
                    process.rss_kib,
                    process.rss_begin_kib
                ),
            );
        }
        for failure in &self.failures {
            line("failure", failure.clone());
        }
        for verdict in &self.verdicts {
            let word = if verdict.passed { "PASS" } else { "FAIL" };
            writeln!(out, "{word} {}: {}", verdict.name, verdict.detail)
                .expect("a string takes all");
        }
        out
    }
}

impl Joins {
    fn new(tally: &Tally) -> Self {
        let [
            login,
            request,
            room,
            offer,
            accepted,
            ice,
            connected,
            channel,
            first_audio,
            first_frame,
        ] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|step: usize| tally.steps[step].quantile_ms(0.5));
        Self {
            login,
            request,
            room,
            offer,
            accepted,
            ice,
            connected,
            channel,
            first_audio,
            first_frame,
            max: tally.steps[9].max_ms(),
        }
    }
}
