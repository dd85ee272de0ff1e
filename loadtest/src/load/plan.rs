//! From what a server was measured to bear, and the meetings that are to be
//! held, to bridges, cores and network.
//!
//! The model: a forwarded packet costs what it cost in the measurement, wherever
//! it goes; every microphone is forwarded to all others, every camera that is on
//! to all others at the height that they look at. A server is filled to a stated
//! share, and one meeting stays on one bridge.

use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;

use super::report::Report;

/// Packets of a microphone a second.
const AUDIO_RATE: f64 = 50.0;
/// Octets of a packet of audio, and of one of video, on the wire: IPv4 and UDP
/// included.
const AUDIO_OCTETS: f64 = 164.0;
const VIDEO_OCTETS: f64 = 1110.0;
/// Octets of a picture in a packet.
const VIDEO_PAYLOAD: f64 = 1060.0;
const HEIGHTS: [u16; 3] = [180, 360, 720];

/// Meetings of a kind, at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Meetings {
    pub count: u32,
    pub participants: u32,
    /// Cameras that are on in each.
    pub cameras: u32,
    /// At which height they are looked at.
    pub height: u16,
}

impl FromStr for Meetings {
    type Err = String;

    /// `50x10:3@360`: fifty of ten people with three cameras on, looked at in 360
    /// lines. Without `:3` all cameras are on, without `@360` in 720 lines.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text}: wanted is COUNTxPEOPLE[:CAMERAS][@LINES], for instance 50x10:3@360")
        };
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (rest, height) = match text.split_once('@') {
            None => (text, 720),
            Some((rest, height)) => (rest, u16::try_from(number(height)?).map_err(|_| wrong())?),
        };
        let (rest, cameras) = match rest.split_once(':') {
            None => (rest, None),
            Some((rest, cameras)) => (rest, Some(number(cameras)?)),
        };
        let (count, participants) = rest.split_once('x').ok_or_else(wrong)?;
        let (count, participants) = (number(count)?, number(participants)?);
        let cameras = cameras.unwrap_or(participants);
        match count > 0 && participants > 0 && cameras <= participants && height > 0 {
            true => Ok(Self {
                count,
                participants,
                cameras,
                height,
            }),
            false => Err(wrong()),
        }
    }
}

/// What a machine has, and how far it is to be filled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, clap::Args)]
pub struct Machine {
    /// Cores of a bridge's machine.
    #[arg(long, default_value_t = 4)]
    pub cores: u32,
    /// Its network, in Gbit/s.
    #[arg(long, default_value_t = 10.0)]
    pub gbit: f64,
    /// Share of either that is to be used.
    #[arg(long, default_value_t = 0.7)]
    pub fill: f64,
    /// Bridges beyond those needed, for one that fails.
    #[arg(long, default_value_t = 1)]
    pub spare: u32,
}

impl Machine {
    pub fn check(&self) -> Result<(), String> {
        match self.cores > 0 && self.gbit > 0.0 && self.fill > 0.0 && self.fill <= 1.0 {
            true => Ok(()),
            false => Err("--cores, --gbit and --fill must be above 0, --fill at most 1".to_owned()),
        }
    }
}

/// Packets and octets a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flow {
    pub packets: f64,
    pub gbit: f64,
}

impl Flow {
    fn new(audio: f64, video: f64) -> Self {
        Self {
            packets: audio + video,
            gbit: (audio * AUDIO_OCTETS + video * VIDEO_OCTETS) * 8.0 / 1e9,
        }
    }

    fn add(&mut self, other: Self, times: f64) {
        self.packets += other.packets * times;
        self.gbit += other.gbit * times;
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub meetings: Vec<Meetings>,
    pub machine: Machine,
    pub participants: u32,
    pub ingress: Flow,
    pub egress: Flow,
    /// Of the measurement: forwarded packets a second that keep a core busy.
    pub packets_per_core: f64,
    pub memory_per_participant_kib: f64,
    /// Cores at work when nothing is left over.
    pub cores: f64,
    pub bridges: u32,
    /// What decides their number.
    pub bound_by: &'static str,
    pub memory_per_bridge_mib: f64,
    /// Kinds of meetings of which one alone is more than a bridge is to bear.
    pub too_large: Vec<Meetings>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the report has no CPU time of the server: measure with --pid")]
    NoServer,
    #[error("the report does not count: {0}")]
    Invalid(String),
}

/// Packets a second of a camera's layer.
fn layer_rate(kilobits: u32, frame_rate: u32) -> f64 {
    let frame = f64::from(kilobits) * 125.0 / f64::from(frame_rate.max(1));
    (frame / VIDEO_PAYLOAD).ceil() * f64::from(frame_rate)
}

/// Plans for these meetings by what was measured.
pub fn plan(report: &Report, meetings: &[Meetings], machine: Machine) -> Result<Plan, PlanError> {
    if let Some(why) = report.invalid.first() {
        return Err(PlanError::Invalid(why.clone()));
    }
    let server = report.server.as_ref().ok_or(PlanError::NoServer)?;
    if server.cores <= 0.0 || report.packets_per_second <= 0.0 {
        return Err(PlanError::NoServer);
    }
    let packets_per_core = report.packets_per_second / server.cores;
    let rates: Vec<f64> = report
        .asked
        .kilobits
        .iter()
        .map(|kilobits| layer_rate(*kilobits, report.asked.frame_rate))
        .collect();
    let watched = |height: u16| {
        let layer = HEIGHTS
            .iter()
            .rposition(|lines| *lines <= height)
            .unwrap_or(0);
        rates.get(layer).or(rates.last()).copied().unwrap_or(0.0)
    };
    let (usable_cores, usable_gbit) = (
        f64::from(machine.cores) * machine.fill,
        machine.gbit * machine.fill,
    );
    let (mut ingress, mut egress) = (Flow::default(), Flow::default());
    let (mut participants, mut too_large) = (0, Vec::new());
    for kind in meetings {
        let people = f64::from(kind.participants);
        let cameras = f64::from(kind.cameras);
        let others = people - 1.0;
        // What nobody looks at is not sent.
        let top = HEIGHTS
            .iter()
            .filter(|lines| **lines <= kind.height)
            .count()
            .max(1);
        let sent: f64 = rates.iter().take(top).sum();
        ingress.add(
            Flow::new(people * AUDIO_RATE, cameras * sent),
            f64::from(kind.count),
        );
        let one = Flow::new(
            people * others * AUDIO_RATE,
            cameras * others * watched(kind.height),
        );
        egress.add(one, f64::from(kind.count));
        if one.packets / packets_per_core > usable_cores || one.gbit > usable_gbit {
            too_large.push(*kind);
        }
        participants += kind.count * kind.participants;
    }
    let cores = egress.packets / packets_per_core;
    let (by_cores, by_network) = (cores / usable_cores, egress.gbit / usable_gbit);
    let needed = by_cores.max(by_network).ceil().max(1.0) as u32;
    let members = (report.asked.conferences * report.asked.participants).max(1);
    let memory = server.rss_kib.saturating_sub(server.rss_before_kib) as f64 / f64::from(members);
    let bridges = needed + machine.spare;
    Ok(Plan {
        meetings: meetings.to_vec(),
        machine,
        participants,
        ingress,
        egress,
        packets_per_core,
        memory_per_participant_kib: memory,
        cores,
        bridges,
        bound_by: if by_cores >= by_network {
            "cores"
        } else {
            "network"
        },
        memory_per_bridge_mib: (server.rss_before_kib as f64
            + memory * f64::from(participants) / f64::from(needed))
            / 1024.0,
        too_large,
    })
}

impl Plan {
    /// The table for people.
    pub fn to_table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(out, "{name:<22} {value}").expect("a string takes all");
        };
        for kind in &self.meetings {
            line(
                "meetings",
                format!(
                    "{} of {} people, {} cameras on, looked at in {} lines",
                    kind.count, kind.participants, kind.cameras, kind.height
                ),
            );
        }
        line("participants", self.participants.to_string());
        line(
            "into the bridges",
            format!(
                "{:.0} packets/s, {:.2} Gbit/s",
                self.ingress.packets, self.ingress.gbit
            ),
        );
        line(
            "out of the bridges",
            format!(
                "{:.0} packets/s, {:.2} Gbit/s",
                self.egress.packets, self.egress.gbit
            ),
        );
        line(
            "measured",
            format!(
                "{:.0} forwarded packets/s a core, {:.0} KiB a participant",
                self.packets_per_core, self.memory_per_participant_kib
            ),
        );
        line("cores at work", format!("{:.1}", self.cores));
        line(
            "bridges",
            format!(
                "{} of {} cores and {} Gbit/s, filled to {:.0} %, {} of them spare; bound by {}",
                self.bridges,
                self.machine.cores,
                self.machine.gbit,
                self.machine.fill * 100.0,
                self.machine.spare,
                self.bound_by
            ),
        );
        line(
            "memory of each",
            format!("{:.0} MiB", self.memory_per_bridge_mib),
        );
        for kind in &self.too_large {
            line(
                "TOO LARGE",
                format!(
                    "one meeting of {} with {} cameras is more than a bridge is to bear",
                    kind.participants, kind.cameras
                ),
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::{Server, tests::report};
    use proptest::prelude::*;

    fn measured() -> Report {
        let mut report = report();
        report.packets_per_second = 100_000.0;
        report.asked.kilobits = vec![150, 500, 1500];
        report.asked.frame_rate = 30;
        (report.asked.conferences, report.asked.participants) = (1, 20);
        report.server = Some(Server {
            cores: 0.5,
            rss_kib: 40 << 10,
            rss_before_kib: 20 << 10,
            ..Server::default()
        });
        report
    }

    const MACHINE: Machine = Machine {
        cores: 4,
        gbit: 10.0,
        fill: 0.5,
        spare: 1,
    };

    #[test]
    fn meetings_are_read() {
        let read = |text: &str| text.parse::<Meetings>();
        assert_eq!(
            read("50x10:3@360"),
            Ok(Meetings {
                count: 50,
                participants: 10,
                cameras: 3,
                height: 360
            })
        );
        assert_eq!(
            read("2x4"),
            Ok(Meetings {
                count: 2,
                participants: 4,
                cameras: 4,
                height: 720
            })
        );
        for text in ["", "10", "0x4", "2x4:5", "2x4@0", "ax4", "2x4:b"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    /// The shape that everybody compares by: ten who all see each other.
    #[test]
    fn ten_by_ten_is_what_was_measured() {
        let one = plan(&measured(), &["1x10".parse().expect("a mix")], MACHINE).expect("a plan");
        assert_eq!(
            (one.egress.packets, one.ingress.packets),
            (20_700.0, 3_200.0)
        );
        assert_eq!(one.packets_per_core, 200_000.0);
        assert!((one.cores - 0.1035).abs() < 1e-9);
        assert_eq!((one.bridges, one.bound_by), (2, "cores"));
        assert_eq!(one.memory_per_participant_kib, 1024.0);
        assert!(one.too_large.is_empty());
        let big = plan(&measured(), &["1x100".parse().expect("a mix")], MACHINE).expect("a plan");
        assert_eq!(big.too_large.len(), 1);
    }

    #[test]
    fn without_a_measurement_there_is_no_plan() {
        let mix = ["1x2".parse().expect("a mix")];
        let mut report = measured();
        report.server = None;
        assert_eq!(plan(&report, &mix, MACHINE), Err(PlanError::NoServer));
        report.invalid.push("busy".to_owned());
        assert_eq!(
            plan(&report, &mix, MACHINE),
            Err(PlanError::Invalid("busy".to_owned()))
        );
    }

    proptest! {
        /// The bridges of a plan bear what it says they have to, and one fewer
        /// would not.
        #[test]
        fn bridges_suffice_and_are_all_needed(count in 1u32..2000, people in 1u32..40, cameras in 0u32..40) {
            let mix = [Meetings { count, participants: people, cameras: cameras.min(people), height: 720 }];
            let plan = plan(&measured(), &mix, MACHINE).expect("a plan");
            let bears = |bridges: u32| {
                let bridges = f64::from(bridges);
                plan.cores <= bridges * 2.0 * 1.000_001 && plan.egress.gbit <= bridges * 5.0 * 1.000_001
            };
            let needed = plan.bridges - MACHINE.spare;
            prop_assert!(bears(needed));
            prop_assert!(needed == 1 || !bears(needed - 1));
        }
    }
}
