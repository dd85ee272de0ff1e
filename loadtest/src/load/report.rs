//! The report of a load: what was asked for, what was found, and whether the
//! figures can be believed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::found::Found;
use super::layout::Shape;
use crate::client::send::SendStats;
use crate::measure::delay::Histogram;

/// Share of a core beyond which this program itself may be what was measured.
pub const MAX_BUSY: f64 = 0.9;
/// Senders that are later than that do not send what the load says.
pub const MAX_LATENESS_MS: f64 = 5.0;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub target: String,
    pub conferences: u32,
    pub senders: u32,
    pub participants: u32,
    pub codec: String,
    pub profile: String,
    pub kilobits: Vec<u32>,
    pub frame_rate: u32,
    /// Heights asked for, one after the other.
    pub heights: Vec<u16>,
    /// Pictures asked for; -1 for all.
    pub last_n: i32,
    pub channel: String,
    pub feedback: String,
    pub churn: f64,
    pub loss: f64,
    pub limit_bits: u64,
    pub seconds: f64,
    pub warmup: f64,
    pub open_every: u32,
    pub gro: bool,
    pub kernel_times: bool,
    pub seed: u64,
}

impl Asked {
    pub fn shape(&self) -> Shape {
        Shape {
            senders: self.senders,
            participants: self.participants,
        }
    }

    /// What most loads are without.
    fn particulars(&self) -> String {
        let heights: Vec<String> = self.heights.iter().map(u16::to_string).collect();
        let parts = [
            (self.heights != [720]).then(|| format!("height {}", heights.join(" then "))),
            (self.last_n >= 0).then(|| format!("last-n {} (no pause is a freeze)", self.last_n)),
            (self.churn > 0.0).then(|| format!("{} replaced a second", self.churn)),
            (self.loss > 0.0).then(|| format!("{} % thrown away", self.loss * 100.0)),
            (self.limit_bits > 0).then(|| format!("at most {} kbit/s", self.limit_bits / 1000)),
        ];
        let parts = parts.into_iter().flatten();
        parts.map(|part| format!(", {part}")).collect()
    }

    pub fn shape_text(&self) -> String {
        match self.conferences {
            1 => self.shape().to_string(),
            count => format!("{count} of {}", self.shape()),
        }
    }
}

/// Quantiles of times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl From<&Histogram> for Quantiles {
    fn from(histogram: &Histogram) -> Self {
        Self {
            count: histogram.count(),
            p50: histogram.quantile_ms(0.5),
            p99: histogram.quantile_ms(0.99),
            p999: histogram.quantile_ms(0.999),
            max: histogram.max_ms(),
        }
    }
}

/// What the server used in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub pid: u32,
    /// Of all its threads and, if it is bound to one CPU, that CPU's softirq.
    pub cpu_us_per_packet: f64,
    /// CPUs used: 1 is one core.
    pub cores: f64,
    pub softirq_us_per_packet: f64,
    /// By name of its threads, the busiest first.
    pub threads: Vec<ServerThread>,
    pub rss_kib: u64,
    pub peak_rss_kib: u64,
    /// Memory before the first member came.
    pub rss_before_kib: u64,
    pub cpu: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerThread {
    pub name: String,
    pub cpu_us_per_packet: f64,
    pub cores: f64,
}

/// What this program used, and whether it kept up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Client {
    pub threads: usize,
    /// Of the busiest thread, as a share of a core.
    pub busy: f64,
    /// CPU time a packet, those sent and those received.
    pub cpu_us_per_packet: f64,
    /// How late packets were sent.
    pub lateness_ms: Quantiles,
    /// Datagrams that its sockets had no room for.
    pub overflow: u64,
}

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its end, since the measured time began.
    pub at: f64,
    pub received_per_second: f64,
    pub sent_per_second: f64,
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    pub client_busy: f64,
    pub server_cores: Option<f64>,
    pub server_rss_kib: Option<u64>,
}

/// Medians and slowest of a join's steps in milliseconds, since the endpoint was
/// first asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joins {
    pub count: u64,
    pub ice: f64,
    pub connected: f64,
    pub channel: f64,
    pub first_audio: f64,
    pub first_frame: f64,
    pub first_frame_p99: f64,
    pub first_frame_max: f64,
}

/// The roofline of the same shape and machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Microseconds a forwarded packet: under the load's pace, and without one.
    pub paced_us: f64,
    pub unpaced_us: f64,
    /// The server's over the paced one.
    pub ratio: Option<f64>,
    pub fanout: usize,
    pub size: usize,
    pub pace: u64,
    pub keep: f64,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub asked: Asked,
    pub srtp: BTreeMap<String, u32>,
    pub joined: u64,
    /// Not connected by the end, and let in only just before it.
    pub joining: u64,
    pub connected: u64,
    pub left: u64,
    /// Measured time.
    pub seconds: f64,
    pub expected: u64,
    pub received: u64,
    pub delivered_ratio: f64,
    pub packets_per_second: f64,
    pub sent_per_second: f64,
    pub megabits_per_second: f64,
    pub mean_octets: f64,
    pub lost: u64,
    pub recovered: u64,
    pub reordered: u64,
    pub duplicate: u64,
    /// Streams of which nothing came.
    pub silent: u64,
    pub other: u64,
    pub padding: u64,
    pub opened: u64,
    pub opened_share: f64,
    pub forged: u64,
    pub corrupt: u64,
    pub foreign: u64,
    pub thrown_away: u64,
    /// Share of pictures' packets by layer, from the lowest.
    pub layers: [f64; 3],
    pub delay_ms: Quantiles,
    pub frames: u64,
    pub frames_per_stream: f64,
    pub broken_frames: u64,
    pub freezes: u64,
    pub frozen_seconds: f64,
    pub longest_video_gap_ms: f64,
    pub audio_gaps: u64,
    pub longest_audio_gap_ms: f64,
    pub nacks: u64,
    pub key_requests: u64,
    /// What the server asked of senders.
    pub nacked: u64,
    pub resent: u64,
    pub key_frames_asked: u64,
    pub joins_ms: Joins,
    pub server: Option<Server>,
    pub client: Client,
    pub roofline: Option<Limit>,
    pub series: Vec<Second>,
    /// Why the figures are not to be believed; empty if they are.
    pub invalid: Vec<String>,
    /// What went wrong on the way.
    pub failures: Vec<String>,
}

/// What was found, before it is put into words.
pub struct Outcome {
    pub asked: Asked,
    pub srtp: BTreeMap<&'static str, u32>,
    pub joined: u64,
    /// Not connected by the end, and let in only just before it.
    pub joining: u64,
    pub connected: u64,
    pub left: u64,
    pub seconds: f64,
    pub found: Found,
    pub senders: SendStats,
    pub sent: u64,
    pub delays: Histogram,
    pub joins: Joins,
    pub server: Option<Server>,
    pub client: Client,
    pub series: Vec<Second>,
    pub failures: Vec<String>,
}

/// A quotient; 0 where there is nothing to divide by.
pub fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

/// Packets of a stream that may be on their way when measuring begins, or ends.
const ON_THE_WAY: u64 = 2;

/// What should have come. Where receivers saw as many numbers as were sent, up to what
/// was on its way at either end of the measured time, it is those numbers; else it is
/// what was sent, since packets can be lost without a gap in the numbers.
fn expected(found: &Found) -> u64 {
    let numbered = found.audio.numbered + found.video.numbered;
    match numbered.abs_diff(found.expected) <= ON_THE_WAY * found.streams {
        true => numbered,
        false => found.expected,
    }
}

impl Report {
    pub fn new(outcome: Outcome) -> Self {
        let Outcome { found, .. } = &outcome;
        let (audio, video) = (&found.audio, &found.video);
        let (received, expected) = (audio.received + video.received, expected(found));
        let layers: u64 = found.layers.iter().sum();
        let streams = per(found.streams as f64, 2.0);
        let mut report = Self {
            srtp: outcome
                .srtp
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            joined: outcome.joined,
            joining: outcome.joining,
            connected: outcome.connected,
            left: outcome.left,
            seconds: outcome.seconds,
            expected,
            received,
            delivered_ratio: per(received as f64, expected as f64),
            packets_per_second: per(received as f64, outcome.seconds),
            sent_per_second: per(outcome.sent as f64, outcome.seconds),
            megabits_per_second: per(found.octets as f64 * 8.0 / 1e6, outcome.seconds),
            mean_octets: per(found.octets as f64, received as f64),
            lost: audio.lost() + video.lost(),
            recovered: video.recovered,
            reordered: audio.reordered + video.reordered,
            duplicate: audio.duplicate + video.duplicate,
            silent: found.silent,
            other: found.other,
            padding: found.padding,
            opened: found.opened,
            opened_share: per(1.0, f64::from(outcome.asked.open_every)),
            forged: found.forged,
            corrupt: found.corrupt,
            foreign: found.foreign,
            thrown_away: found.dropped,
            layers: found.layers.map(|count| per(count as f64, layers as f64)),
            delay_ms: Quantiles::from(&outcome.delays),
            frames: video.frames,
            frames_per_stream: per(video.frames as f64, streams),
            broken_frames: video.broken,
            freezes: video.freezes,
            frozen_seconds: video.frozen_ns as f64 / 1e9,
            longest_video_gap_ms: video.longest_gap_ns as f64 / 1e6,
            audio_gaps: audio.gaps,
            longest_audio_gap_ms: audio.longest_gap_ns as f64 / 1e6,
            nacks: found.nacks,
            key_requests: found.key_requests,
            nacked: outcome.senders.nacked,
            resent: outcome.senders.resent,
            key_frames_asked: outcome.senders.key_requests,
            joins_ms: outcome.joins,
            server: outcome.server,
            client: outcome.client,
            roofline: None,
            series: outcome.series,
            invalid: Vec::new(),
            failures: outcome.failures,
            asked: outcome.asked,
        };
        report.judge();
        report
    }

    /// Notes why the figures would be this program's, not the server's.
    fn judge(&mut self) {
        let client = &self.client;
        if client.busy > MAX_BUSY {
            self.invalid.push(format!(
                "this program was busy {:.0} % of a core: give it more (--threads, --cpu)",
                client.busy * 100.0
            ));
        }
        if client.overflow > 0 {
            self.invalid.push(format!(
                "{} datagrams found no room in this program's sockets",
                client.overflow
            ));
        }
        if client.lateness_ms.p99 > MAX_LATENESS_MS {
            self.invalid.push(format!(
                "packets were sent late: p99 {:.1} ms",
                client.lateness_ms.p99
            ));
        }
        if self.connected + self.joining < self.joined {
            self.invalid.push(format!(
                "{} of {} members connected",
                self.connected, self.joined
            ));
        }
        let wrong = self.forged + self.corrupt + self.foreign;
        if wrong > 0 {
            self.invalid.push(format!(
                "of {} packets opened {} were not authentic, {} damaged, {} of somebody else",
                self.opened, self.forged, self.corrupt, self.foreign
            ));
        }
    }

    /// Says the limit of the machine, and the server's ratio to it.
    pub fn set_limit(&mut self, mut limit: Limit) {
        let server = self.server.as_ref();
        limit.ratio = server
            .map(|server| per(server.cpu_us_per_packet, limit.paced_us))
            .filter(|ratio| *ratio > 0.0);
        self.roofline = Some(limit);
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    /// The table for people.
    pub fn to_table(&self) -> String {
        let mut out = String::new();
        for (name, value) in self.rows() {
            writeln!(out, "{name:<22} {value}").expect("a string takes all");
        }
        for failure in &self.failures {
            writeln!(out, "{:<22} {failure}", "failure").expect("a string takes all");
        }
        for reason in &self.invalid {
            writeln!(out, "INVALID {reason}").expect("a string takes all");
        }
        out
    }

    /// What the table and the page say in words.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let asked = &self.asked;
        let srtp: Vec<String> = self
            .srtp
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        let mut rows = vec![
            (
                "load",
                format!(
                    "{} {}, {} {} kbit/s at {}/s, {}, channel {}, feedback {}{}",
                    asked.shape_text(),
                    asked.target,
                    asked.codec,
                    asked
                        .kilobits
                        .iter()
                        .map(u32::to_string)
                        .collect::<Vec<_>>()
                        .join("/"),
                    asked.frame_rate,
                    asked.profile,
                    asked.channel,
                    asked.feedback,
                    asked.particulars()
                ),
            ),
            (
                "members",
                format!(
                    "{} of {} connected, {} joining, {} left, {}",
                    self.connected,
                    self.joined,
                    self.joining,
                    self.left,
                    srtp.join(", ")
                ),
            ),
            (
                "forwarded",
                format!(
                    "{:.0} packets/s over {:.1} s, {:.1} Mbit/s, mean {:.0} octets; {:.0} packets/s in",
                    self.packets_per_second,
                    self.seconds,
                    self.megabits_per_second,
                    self.mean_octets,
                    self.sent_per_second
                ),
            ),
            (
                "delivered",
                format!(
                    "{:.6} ({} of {}), {} streams silent",
                    self.delivered_ratio, self.received, self.expected, self.silent
                ),
            ),
            (
                "lost, recovered",
                format!(
                    "{}, {}; {} reordered, {} twice",
                    self.lost, self.recovered, self.reordered, self.duplicate
                ),
            ),
            (
                "opened",
                format!(
                    "{} (1 of {}): {} not authentic, {} damaged, {} of somebody else",
                    self.opened, asked.open_every, self.forged, self.corrupt, self.foreign
                ),
            ),
            (
                "forward delay",
                format!(
                    "p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.1} ms",
                    self.delay_ms.p50, self.delay_ms.p99, self.delay_ms.p999, self.delay_ms.max
                ),
            ),
            (
                "pictures",
                format!(
                    "{} whole, {} never whole, {} freezes ({:.1} s), longest gap {:.0} ms",
                    self.frames,
                    self.broken_frames,
                    self.freezes,
                    self.frozen_seconds,
                    self.longest_video_gap_ms
                ),
            ),
            (
                "audio",
                format!(
                    "{} gaps over 60 ms, longest {:.0} ms",
                    self.audio_gaps, self.longest_audio_gap_ms
                ),
            ),
            (
                "time to first frame",
                format!(
                    "median {:.0} ms, p99 {:.0} ms, slowest {:.0} ms (ICE {:.0}, connected {:.0}, channel {:.0}, audio {:.0})",
                    self.joins_ms.first_frame,
                    self.joins_ms.first_frame_p99,
                    self.joins_ms.first_frame_max,
                    self.joins_ms.ice,
                    self.joins_ms.connected,
                    self.joins_ms.channel,
                    self.joins_ms.first_audio
                ),
            ),
        ];
        if asked.feedback == "full" {
            rows.push((
                "feedback",
                format!(
                    "{} packets asked for again, {} key pictures; the server asked for {} packets and {} key pictures",
                    self.nacks, self.key_requests, self.nacked, self.key_frames_asked
                ),
            ));
        }
        if let Some(server) = &self.server {
            let threads: Vec<String> = server
                .threads
                .iter()
                .take(4)
                .map(|thread| format!("{} {:.2}", thread.name, thread.cpu_us_per_packet))
                .collect();
            rows.push((
                "server",
                format!(
                    "{:.3} us CPU a forwarded packet ({}), {:.0} % of a core, {:.1} MB resident, {:.1} MB at most",
                    server.cpu_us_per_packet,
                    threads.join(", "),
                    server.cores * 100.0,
                    server.rss_kib as f64 / 1024.0,
                    server.peak_rss_kib as f64 / 1024.0
                ),
            ));
        }
        if let Some(limit) = &self.roofline {
            let ratio = limit
                .ratio
                .map_or(String::new(), |ratio| format!(": {ratio:.2} times that"));
            rows.push((
                "roofline",
                format!(
                    "{:.3} us paced, {:.3} us unpaced{ratio}",
                    limit.paced_us, limit.unpaced_us
                ),
            ));
        }
        rows.push((
            "this program",
            format!(
                "{:.0} % of a core, {:.2} us a packet, sent late by p99 {:.3} ms, GRO {}, times by {}",
                self.client.busy * 100.0,
                self.client.cpu_us_per_packet,
                self.client.lateness_ms.p99,
                if asked.gro { "on" } else { "off" },
                if asked.kernel_times { "the kernel" } else { "itself" }
            ),
        ));
        rows
    }

    /// Whether the run counts and delivered that share.
    pub fn passed(&self, delivered: f64) -> bool {
        self.invalid.is_empty() && self.silent == 0 && self.delivered_ratio >= delivered
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::stream::Counts;

    /// A report of nothing in particular.
    pub(in crate::load) fn report() -> Report {
        let asked = Asked {
            target: "colibri2+http://127.0.0.1:8080".to_owned(),
            conferences: 1,
            senders: 2,
            participants: 2,
            codec: "VP8".to_owned(),
            profile: "even".to_owned(),
            kilobits: vec![150, 500, 1500],
            frame_rate: 30,
            heights: vec![720],
            last_n: -1,
            channel: "datachannel".to_owned(),
            feedback: "none".to_owned(),
            churn: 0.0,
            loss: 0.0,
            limit_bits: 0,
            seconds: 2.0,
            warmup: 1.0,
            open_every: 16,
            gro: false,
            kernel_times: true,
            seed: 1,
        };
        let audio = Counts {
            received: 99,
            numbered: 100,
            ..Counts::default()
        };
        let video = Counts {
            received: 300,
            numbered: 300,
            frames: 50,
            ..Counts::default()
        };
        Report::new(Outcome {
            asked,
            srtp: BTreeMap::new(),
            joined: 2,
            joining: 0,
            connected: 2,
            left: 0,
            seconds: 2.0,
            found: Found {
                audio,
                video,
                expected: 400,
                streams: 4,
                octets: 39_900,
                ..Found::default()
            },
            senders: SendStats::default(),
            sent: 640,
            delays: Histogram::default(),
            joins: Joins::default(),
            server: Some(Server {
                cpu_us_per_packet: 3.0,
                ..Server::default()
            }),
            client: Client::default(),
            series: vec![
                Second {
                    at: 1.0,
                    ..Second::default()
                },
                Second {
                    at: 2.0,
                    server_cores: Some(0.5),
                    ..Second::default()
                },
            ],
            failures: Vec::new(),
        })
    }

    #[test]
    fn figures_are_what_was_found() {
        let mut report = report();
        assert_eq!(
            (report.received, report.lost, report.delivered_ratio),
            (399, 1, 399.0 / 400.0)
        );
        assert_eq!(
            (report.packets_per_second, report.mean_octets),
            (199.5, 100.0)
        );
        assert_eq!(report.frames_per_stream, 25.0);
        report.set_limit(Limit {
            paced_us: 2.0,
            ..Limit::default()
        });
        assert_eq!(
            report.roofline.as_ref().and_then(|limit| limit.ratio),
            Some(1.5)
        );
        assert!(report.passed(0.99) && !report.passed(0.999));
        let read: Report = serde_json::from_str(&report.to_json()).expect("it reads back");
        assert_eq!(read, report);
        let page = report.to_html();
        assert!(page.contains("1.50 x") && page.contains("<svg") && !page.contains("http://www"));
    }

    #[test]
    fn what_was_on_its_way_at_either_end_was_not_lost() {
        let found = |received, numbered, sent| {
            let video = Counts {
                received,
                numbered,
                ..Counts::default()
            };
            let found = Found {
                video,
                expected: sent,
                streams: 5,
                ..Found::default()
            };
            per(received as f64, expected(&found) as f64)
        };
        assert_eq!(found(1000, 1000, 1010), 1.0);
        assert_eq!(found(1000, 1000, 990), 1.0);
        assert_eq!(found(990, 1000, 1010), 0.99);
        // Left out without a gap.
        assert_eq!(found(500, 500, 1000), 0.5);
        assert_eq!(found(1000, 1000, 800), 1.25);
        assert_eq!(found(0, 0, 0), 0.0);
    }

    #[test]
    fn a_run_that_measured_the_client_does_not_count() {
        let mut outcome = report();
        outcome.client.busy = 0.95;
        outcome.client.overflow = 3;
        outcome.client.lateness_ms.p99 = 7.0;
        outcome.connected = 1;
        outcome.forged = 1;
        outcome.judge();
        assert_eq!(outcome.invalid.len(), 5);
        assert!(!outcome.passed(0.0) && outcome.to_table().contains("INVALID"));
    }
}
