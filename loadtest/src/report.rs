//! The verdicts of a run, as a table for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::Participant;
use crate::measure::delay::Histogram;
use crate::scenario::Scenario;
use crate::source::tag::Kind;

/// What was measured from outside the participants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// From all connected to the end of sending.
    pub steady: Duration,
    /// CPU time of the bridge in that time, and its memory at the end.
    pub bridge: Option<(f64, u64)>,
    /// Packets received by all participants in that time.
    pub steady_packets: u64,
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

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Gaps {
    pub audio: f64,
    pub video: f64,
}

/// One source at one receiver.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pair {
    pub receiver: u16,
    pub sender: u16,
    pub kind: &'static str,
    pub delivered: u64,
    pub lost: u64,
    pub reordered: u64,
    pub recovered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    pub misnumbered: u64,
    pub delay_p99_ms: f64,
    pub gap_ms: f64,
    /// From the receiver's first packet on; video only.
    pub frames: u64,
    pub key_frames: u64,
    pub undecodable: u64,
    pub switches: u64,
    pub bad_switches: u64,
    pub height: u16,
    pub switch_ms: Vec<f64>,
    pub unmet_heights: u64,
}

/// Sums over pairs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub delivered: u64,
    pub lost: u64,
    pub reordered: u64,
    pub recovered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    pub misnumbered: u64,
    pub undecodable: u64,
    pub bad_switches: u64,
    pub unmet_heights: u64,
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
    pub sender_reports: u64,
    pub odd_sender_reports: u64,
    pub nacks: u64,
    pub key_requests: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bridge {
    pub cpu_seconds: f64,
    /// CPU time for each packet that the participants received.
    pub cpu_us_per_packet: f64,
    pub rss_kib: u64,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub passed: bool,
    pub verdicts: Vec<Verdict>,
    pub participants: u16,
    pub senders: u16,
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
    pub bridge: Option<Bridge>,
    pub srtp_profiles: BTreeMap<&'static str, u32>,
    pub invitations: u32,
    pub restarts: u32,
    pub focus_left: u32,
    pub conference_requests: u32,
    pub dominant_speaker_changes: u64,
    pub pairs: Vec<Pair>,
    pub failures: Vec<String>,
}

impl Report {
    /// Judges the participants of a run in which sending stopped at `end`.
    pub fn new(
        scenario: &Scenario,
        participants: &mut [Participant],
        end: Instant,
        surroundings: &Surroundings,
    ) -> Self {
        let audio_sent: Vec<u32> = participants.iter().map(Participant::audio_sent).collect();
        for participant in participants.iter_mut() {
            for (sender, audio) in &mut participant.receiver.audio {
                let sent = audio_sent.get(usize::from(*sender)).copied().unwrap_or(0);
                audio.close(end, sent);
            }
            for video in participant.receiver.video.values_mut() {
                video.close(end);
            }
        }
        let mut delay = Histogram::default();
        let mut pairs = Vec::new();
        for (index, participant) in (0u16..).zip(participants.iter()) {
            for sender in (0..scenario.senders).filter(|sender| *sender != index) {
                pairs.push(audio_pair(participant, index, sender, &mut delay));
                pairs.push(video_pair(participant, index, sender, &mut delay));
            }
        }
        let mut totals = Totals::default();
        let mut gap_ms = Gaps::default();
        for pair in &pairs {
            totals.add(pair);
            let gap = if pair.kind == "audio" {
                &mut gap_ms.audio
            } else {
                &mut gap_ms.video
            };
            *gap = gap.max(pair.gap_ms);
        }
        let due = totals.delivered + totals.lost;
        let joins_ms = joins(participants);
        let steady = surroundings.steady.as_secs_f64();
        let packets = surroundings.steady_packets;
        let mut report = Self {
            passed: false,
            verdicts: Vec::new(),
            participants: scenario.participants,
            senders: scenario.senders,
            connected: participants
                .iter()
                .filter(|p| p.milestones.connected.is_some())
                .count(),
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
                p50: delay.quantile_ms(0.5),
                p99: delay.quantile_ms(0.99),
                p999: delay.quantile_ms(0.999),
                max: delay.max_ms(),
            },
            gap_ms,
            join_ms: joins_ms.first_frame,
            joins_ms,
            sent: sent(participants),
            received: received(participants),
            bridge: surroundings.bridge.map(|(cpu_seconds, rss_kib)| Bridge {
                cpu_seconds,
                cpu_us_per_packet: cpu_seconds * 1e6 / packets.max(1) as f64,
                rss_kib,
            }),
            srtp_profiles: BTreeMap::new(),
            invitations: participants.iter().map(|p| p.invitations).sum(),
            restarts: participants.iter().map(|p| p.restarts).sum(),
            focus_left: participants.iter().map(|p| p.focus_counts().1).sum(),
            conference_requests: participants.iter().map(|p| p.focus_counts().0).sum(),
            dominant_speaker_changes: participants.iter().map(|p| p.dominant_changes).sum(),
            pairs,
            failures: failures(participants),
        };
        for participant in participants.iter() {
            if let Some(profile) = participant.profile() {
                *report.srtp_profiles.entry(profile).or_default() += 1;
            }
        }
        report.judge(scenario, participants, surroundings);
        report
    }

    fn judge(
        &mut self,
        scenario: &Scenario,
        participants: &[Participant],
        surroundings: &Surroundings,
    ) {
        let all = usize::from(self.participants);
        let channels = participants
            .iter()
            .filter(|p| p.milestones.channel.is_some())
            .count();
        let silent: Vec<String> = self
            .pairs
            .iter()
            .filter(|pair| pair.delivered == 0 || pair.kind == "video" && pair.frames == 0)
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
        let shown = silent
            .iter()
            .take(8)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        verdict(
            "every pair heard and seen",
            silent.is_empty(),
            format!("{} of {} missing {shown}", silent.len(), self.pairs.len())
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
        if scenario.heights.len() > 1 {
            verdict(
                "layers",
                totals.unmet_heights == 0,
                format!("{} requested heights never came", totals.unmet_heights),
            );
        }
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
                "{} ({} senders), {} connected",
                self.participants, self.senders, self.connected
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
        let switches: Vec<f64> = self
            .pairs
            .iter()
            .flat_map(|pair| pair.switch_ms.iter().copied())
            .collect();
        if !switches.is_empty() {
            let slowest = switches.iter().copied().fold(0.0, f64::max);
            line(
                "layer reached after",
                format!("median {:.0} ms, slowest {slowest:.0} ms", median(switches)),
            );
        }
        let profiles: Vec<String> = self
            .srtp_profiles
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        line("SRTP", profiles.join(", "));
        if let Some(bridge) = &self.bridge {
            line(
                "bridge",
                format!(
                    "{:.2} s CPU, {:.2} us a packet, {} KiB resident",
                    bridge.cpu_seconds, bridge.cpu_us_per_packet, bridge.rss_kib
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

impl Totals {
    fn add(&mut self, pair: &Pair) {
        self.delivered += pair.delivered;
        self.lost += pair.lost;
        self.reordered += pair.reordered;
        self.recovered += pair.recovered;
        self.duplicate += pair.duplicate;
        self.foreign += pair.foreign;
        self.corrupt += pair.corrupt;
        self.misnumbered += pair.misnumbered;
        self.undecodable += pair.undecodable;
        self.bad_switches += pair.bad_switches;
        self.unmet_heights += pair.unmet_heights;
    }
}

fn audio_pair(
    participant: &Participant,
    receiver: u16,
    sender: u16,
    delay: &mut Histogram,
) -> Pair {
    let pair = Pair {
        receiver,
        sender,
        kind: "audio",
        ..Pair::default()
    };
    let Some(audio) = participant.receiver.audio.get(&sender) else {
        return pair;
    };
    let stats = &audio.stats;
    delay.merge(&stats.delay);
    Pair {
        delivered: stats.received,
        lost: stats.lost,
        reordered: stats.reordered,
        duplicate: stats.duplicate,
        foreign: stats.foreign,
        corrupt: stats.corrupt,
        misnumbered: stats.misnumbered,
        delay_p99_ms: stats.delay.quantile_ms(0.99),
        gap_ms: stats.gap.longest_ms(),
        ..pair
    }
}

fn video_pair(
    participant: &Participant,
    receiver: u16,
    sender: u16,
    delay: &mut Histogram,
) -> Pair {
    let pair = Pair {
        receiver,
        sender,
        kind: "video",
        ..Pair::default()
    };
    let Some(video) = participant.receiver.video.get(&(sender, Kind::Camera)) else {
        return pair;
    };
    let stats = &video.stats;
    delay.merge(&stats.delay);
    Pair {
        delivered: stats.received,
        lost: stats.lost,
        reordered: stats.reordered,
        recovered: stats.recovered,
        duplicate: stats.duplicate,
        foreign: stats.foreign,
        corrupt: stats.corrupt,
        misnumbered: stats.misnumbered,
        delay_p99_ms: stats.delay.quantile_ms(0.99),
        gap_ms: stats.gap.longest_ms(),
        frames: stats.frames,
        key_frames: stats.key_frames,
        undecodable: stats.undecodable,
        switches: stats.switches,
        bad_switches: stats.bad_switches,
        height: stats.height.map_or(0, |(height, _)| height),
        switch_ms: stats.switch_ms.clone(),
        unmet_heights: stats.unmet,
        ..pair
    }
}

fn sent(participants: &[Participant]) -> Sent {
    let mut total = Sent::default();
    for participant in participants {
        let sent = participant.send_stats();
        total.packets += sent.packets;
        total.octets += sent.octets;
        total.resent += sent.resent;
        total.nacked += sent.nacked;
        total.key_requests += sent.key_requests;
    }
    total
}

fn received(participants: &[Participant]) -> Received {
    let mut total = Received::default();
    for participant in participants {
        let stats = &participant.receiver.stats;
        total.packets += stats.packets;
        total.octets += stats.octets;
        total.unsignalled += stats.unsignalled;
        total.malformed += stats.malformed;
        total.sender_reports += stats.reports;
        total.odd_sender_reports += stats.odd_reports;
        total.nacks += stats.nacks;
        total.key_requests += stats.key_requests;
        let video = participant.receiver.video.values();
        total.padding += video.map(|video| video.stats.padding).sum::<u64>();
    }
    total
}

/// What went wrong or never came; the same of several participants as one line.
fn failures(participants: &[Participant]) -> Vec<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for participant in participants {
        let texts = participant
            .failures
            .iter()
            .cloned()
            .chain(participant.missing());
        for text in texts {
            *counts.entry(text).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|(text, count)| match count {
            1 => text,
            _ => format!("{text} (x{count})"),
        })
        .collect()
}

fn joins(participants: &[Participant]) -> Joins {
    let mut columns: [Vec<f64>; 10] = Default::default();
    for participant in participants {
        let times = &participant.milestones;
        let Some(begin) = times.company.max(times.started) else {
            continue;
        };
        let receiver = &participant.receiver;
        let first_audio = receiver
            .audio
            .values()
            .filter_map(|audio| audio.stats.first)
            .min();
        let first_frame = receiver
            .video
            .values()
            .filter_map(|video| video.stats.first_frame)
            .min();
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
        for (column, at) in columns.iter_mut().zip(reached) {
            column.extend(at.map(|at| at.saturating_duration_since(begin).as_secs_f64() * 1e3));
        }
    }
    let max = columns[9].iter().copied().fold(0.0, f64::max);
    let [
        login,
        request,
        room,
        offer,
        accepted,
        ice,
        connected,
        channel,
        audio,
        frame,
    ] = columns.map(median);
    Joins {
        login,
        request,
        room,
        offer,
        accepted,
        ice,
        connected,
        channel,
        first_audio: audio,
        first_frame: frame,
        max,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
