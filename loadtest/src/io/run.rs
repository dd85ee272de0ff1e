//! Runs a scenario: lets participants join one after the other, waits until
//! all are connected, lets them talk, and judges.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::participant::{Command, Status, run};
use super::process::{self, Usage};
use crate::client::room::RoomSettings;
use crate::client::transport::Identity;
use crate::client::{Clock, Participant, Settings};
use crate::report::{Report, Surroundings};
use crate::scenario::Scenario;

/// Time for the last packets and their repairs to arrive.
const TAIL: Duration = Duration::from_millis(1500);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_TO_UNIX: u64 = 2_208_988_800;

struct Handle {
    commands: mpsc::Sender<Command>,
    status: Arc<Status>,
    task: JoinHandle<Participant>,
}

/// A number for [`Scenario::seed`] that no earlier run had.
pub fn random_seed() -> u64 {
    rand::random()
}

/// Runs a scenario on as many threads as the machine has, and reports.
pub fn join(scenario: Scenario) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(join_all(Arc::new(scenario)))
}

async fn join_all(scenario: Arc<Scenario>) -> Result<Report> {
    let identity = Identity::generate().context("making a certificate")?;
    let epoch = Instant::now();
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let clock = Clock {
        epoch,
        epoch_ntp: (since_1970.as_secs() + NTP_TO_UNIX) << 32,
    };
    let sending: BTreeMap<String, u16> = (0..scenario.senders)
        .map(|index| (scenario.endpoint(index), index))
        .collect();

    let mut handles: Vec<Handle> = Vec::new();
    let mut progress = Progress::new(&scenario);
    for index in 0..scenario.participants {
        let settings = settings(&scenario, index, sending.clone());
        let participant = Participant::new(settings, clock, identity.clone(), Instant::now())
            .map_err(anyhow::Error::msg)?;
        let (commands, receiver) = mpsc::channel(64);
        let status = Arc::new(Status::default());
        let task = tokio::spawn(run(participant, scenario.clone(), receiver, status.clone()));
        handles.push(Handle {
            commands,
            status,
            task,
        });
        if index + 1 < scenario.participants {
            tokio::time::sleep(scenario.join_interval).await;
            progress.show("joining", &handles);
        }
    }

    let deadline = Instant::now() + scenario.join_timeout;
    let mut interrupted = false;
    let complete = |handle: &Handle| handle.status.complete.load(Ordering::Relaxed);
    while !handles.iter().all(complete) && Instant::now() < deadline && !interrupted {
        interrupted = pause(Duration::from_millis(20)).await;
        progress.show("joining", &handles);
    }
    let all_there = handles.iter().all(complete);

    let steady_from = Instant::now();
    let packets_before = packets(&handles);
    let usage_before = scenario.bridge_pid.and_then(process::usage);
    if all_there && !interrupted {
        interrupted = talk(&scenario, &handles, &mut progress, steady_from).await;
    }
    let end = Instant::now();
    broadcast(&handles, Command::StopSending).await;
    let usage_after = scenario.bridge_pid.and_then(process::usage);
    let surroundings = Surroundings {
        steady: end - steady_from,
        steady_packets: packets(&handles) - packets_before,
        bridge: difference(usage_before, usage_after),
        interrupted,
    };
    tokio::time::sleep(TAIL).await;
    progress.show("leaving", &handles);
    broadcast(&handles, Command::Finish).await;
    let mut participants = Vec::new();
    for handle in handles {
        participants.push(handle.task.await.context("a participant's task ended")?);
    }
    progress.end();
    Ok(Report::new(
        &scenario,
        &mut participants,
        end,
        &surroundings,
    ))
}

fn settings(scenario: &Scenario, index: u16, sending: BTreeMap<String, u16>) -> Settings {
    let endpoint = scenario.endpoint(index);
    Settings {
        room: RoomSettings {
            domain: scenario.domain.clone(),
            room: scenario.room.clone(),
            focus: scenario.focus.clone(),
            name: format!("loadtest-{index}"),
            endpoint,
            codecs: vec![scenario.codec.name().to_lowercase()],
            xml_sources: scenario.xml_sources,
        },
        index,
        senders: scenario.senders,
        sending,
        run: (scenario.seed >> 32) as u32,
        codec: scenario.codec,
        max_height: scenario.heights.first().copied().unwrap_or(720),
        seed: scenario.seed.wrapping_add(u64::from(index) << 40),
    }
}

/// The steady part. Returns whether it was interrupted.
async fn talk(
    scenario: &Scenario,
    handles: &[Handle],
    progress: &mut Progress,
    from: Instant,
) -> bool {
    let part = scenario.duration / u32::try_from(scenario.heights.len()).unwrap_or(1);
    for (number, height) in (0u32..).zip(&scenario.heights) {
        if number > 0 {
            broadcast(handles, Command::MaxHeight(*height)).await;
        }
        let until = from + part * (number + 1);
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            if pause(left.min(PROGRESS_INTERVAL)).await {
                return true;
            }
            progress.show("talking", handles);
        }
    }
    false
}

/// Sleeps; true when the user asked to stop.
async fn pause(time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        _ = tokio::signal::ctrl_c() => true,
    }
}

async fn broadcast(handles: &[Handle], command: Command) {
    for handle in handles {
        if handle.commands.send(command).await.is_err() {
            tracing::debug!("a participant is gone already");
        }
    }
}

fn packets(handles: &[Handle]) -> u64 {
    handles
        .iter()
        .map(|handle| handle.status.received.load(Ordering::Relaxed))
        .sum()
}

fn difference(before: Option<Usage>, after: Option<Usage>) -> Option<(f64, u64)> {
    let (before, after) = (before?, after?);
    Some((after.cpu_seconds - before.cpu_seconds, after.rss_kib))
}

/// The line on standard error, once a second.
struct Progress {
    participants: u16,
    begin: Instant,
    shown: Instant,
    packets: u64,
}

impl Progress {
    fn new(scenario: &Scenario) -> Self {
        let now = Instant::now();
        Self {
            participants: scenario.participants,
            begin: now,
            shown: now,
            packets: 0,
        }
    }

    fn show(&mut self, doing: &str, handles: &[Handle]) {
        let now = Instant::now();
        let elapsed = now - self.shown;
        if elapsed < PROGRESS_INTERVAL {
            return;
        }
        let count = |of: fn(&Status) -> bool| handles.iter().filter(|h| of(&h.status)).count();
        let packets = packets(handles);
        let rate = (packets - self.packets) as f64 / elapsed.as_secs_f64();
        let (begin, end) = if std::io::stderr().is_terminal() {
            ("\r", "   ")
        } else {
            ("", "\n")
        };
        eprint!(
            "{begin}{:>4.0} s {doing}: {} of {} connected, {} with trouble, {rate:.0} packets/s{end}",
            (now - self.begin).as_secs_f64(),
            count(|status| status.connected.load(Ordering::Relaxed)),
            self.participants,
            count(|status| status.failed.load(Ordering::Relaxed)),
        );
        self.shown = now;
        self.packets = packets;
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}
