//! Runs a scenario: lets participants join one after the other, waits until
//! all are connected, lets them talk, come and go, and judges.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;

use super::media::{Input, Media, Post, Status};
use super::process::{self, Usage};
use crate::client::Clock;
use crate::client::board::Board;
use crate::client::participant::{Participant, Settings};
use crate::client::room::RoomSettings;
use crate::client::transport::{Identity, Profiles};
use crate::report::outcome::{Outcome, Tally};
use crate::report::{Report, Surroundings};
use crate::scenario::{ChannelKind, Scenario};

/// Time for the last packets and their repairs to arrive.
const TAIL: Duration = Duration::from_millis(1500);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// A source of who was there for that long must have been heard or seen; with
/// mutes, which last for up to 7 s, for the longer one.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_WITH_MUTES: Duration = Duration::from_secs(15);
/// Who came later and was there for that long must have been able to take part.
const STAY: Duration = Duration::from_secs(10);

/// A number for [`Scenario::seed`] that no earlier run had.
pub fn random_seed() -> u64 {
    rand::random()
}

/// Runs a scenario on as many threads as the machine has, and reports.
pub fn join(scenario: Scenario) -> Result<Report> {
    raise_file_limit();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(join_all(Arc::new(scenario)))
}

/// Every participant takes up to three sockets.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// A participant that is there.
struct Present {
    post: Post,
    status: Arc<Status>,
    joined: Instant,
    role: Role,
}

/// What a participant does; who replaces it does the same.
#[derive(Clone, Copy)]
struct Role {
    sends: bool,
    shares: bool,
}

/// All of a run.
struct Crowd {
    scenario: Arc<Scenario>,
    media: Media,
    board: Arc<Board>,
    identity: Identity,
    clock: Clock,
    /// In the order they came.
    present: VecDeque<Present>,
    next_number: u16,
    height: u16,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    tally: Tally,
}

impl Crowd {
    fn new(scenario: Arc<Scenario>) -> Result<Self> {
        let identity = Identity::generate(Profiles::default()).context("making a certificate")?;
        let epoch = Instant::now();
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let clock = Clock {
            epoch,
            epoch_ntp: (since_1970.as_secs() + NTP_TO_UNIX) << 32,
        };
        // One outcome a participant: as many as it has numbers at most.
        let (sender, outcomes) = mpsc::unbounded_channel();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let media = Media::start(threads, &scenario, &sender)?;
        let board = Board::new(epoch, usize::from(scenario.numbers()));
        Ok(Self {
            height: scenario.heights.first().copied().unwrap_or(720),
            scenario,
            media,
            board: Arc::new(board),
            identity,
            clock,
            present: VecDeque::new(),
            next_number: 0,
            outcomes,
            tally: Tally::default(),
        })
    }

    /// Lets one more come. `None` when there is no number left for it.
    fn join(&mut self, role: Role) -> Result<Option<()>> {
        let number = self.next_number;
        if number >= self.board.participants() {
            return Ok(None);
        }
        self.next_number += 1;
        let settings = self.settings(number, role);
        let now = Instant::now();
        let participant = Participant::new(settings, self.clock, self.identity.clone(), now)
            .map_err(anyhow::Error::msg)?;
        let (post, status) = self.media.join(number, participant);
        self.present.push_back(Present {
            post,
            status,
            joined: now,
            role,
        });
        Ok(Some(()))
    }

    fn settings(&self, number: u16, role: Role) -> Settings {
        let scenario = &self.scenario;
        let roster = scenario.roster();
        let patience = match scenario.mute {
            true => PATIENCE_WITH_MUTES,
            false => PATIENCE,
        };
        Settings {
            room: RoomSettings {
                domain: scenario.domain.clone(),
                room: scenario.room.clone(),
                focus: scenario.focus.clone(),
                name: format!("loadtest-{number}"),
                endpoint: roster.endpoint(number),
                codecs: vec![scenario.codec.name().to_lowercase()],
                xml_sources: scenario.xml_sources,
                data_channel: scenario.channel == ChannelKind::Datachannel,
            },
            number,
            sends: role.sends,
            senders: scenario.senders,
            run: (scenario.seed >> 32) as u32,
            codec: scenario.codec,
            descriptors: scenario.descriptors,
            channel: scenario.channel,
            max_height: self.height,
            shares: role.shares,
            share_height: scenario.share_height,
            mutes: scenario.mute,
            roster,
            board: self.board.clone(),
            patience: patience.min(scenario.duration),
            seed: scenario.seed.wrapping_add(u64::from(number) << 40),
        }
    }

    /// The one who is there longest leaves, another one comes in its place.
    fn replace(&mut self) -> Result<()> {
        if let Some(oldest) = self.present.pop_front() {
            let complete = oldest.joined.elapsed() >= STAY;
            oldest.post.send(Input::Leave { complete });
            self.join(oldest.role)?;
        }
        self.collect();
        Ok(())
    }

    /// Takes in who has gone.
    fn collect(&mut self) {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.tally.add(outcome);
        }
    }

    fn tell(&self, input: impl Fn() -> Input) {
        for present in &self.present {
            present.post.send(input());
        }
    }

    fn count(&self, of: fn(&Status) -> bool) -> usize {
        self.present.iter().filter(|p| of(&p.status)).count()
    }

    fn is_complete(&self) -> bool {
        let complete = |status: &Status| status.complete.load(Ordering::Relaxed);
        self.count(complete) == self.present.len()
    }
}

async fn join_all(scenario: Arc<Scenario>) -> Result<Report> {
    let mut crowd = Crowd::new(scenario.clone())?;
    let mut progress = Progress::new();
    for number in 0..scenario.participants {
        crowd.join(Role {
            sends: number < scenario.senders,
            shares: number < scenario.shares,
        })?;
        if number + 1 < scenario.participants {
            tokio::time::sleep(scenario.join_interval).await;
            progress.show("joining", &crowd);
        }
    }

    let deadline = Instant::now() + scenario.join_timeout;
    let mut interrupted = false;
    while !crowd.is_complete() && Instant::now() < deadline && !interrupted {
        interrupted = pause(Duration::from_millis(20)).await;
        progress.show("joining", &crowd);
    }
    let all_there = crowd.is_complete();

    let steady_from = Instant::now();
    let packets_before = crowd.media.packets();
    let usage = || {
        let own = process::usage(std::process::id());
        (scenario.bridge_pid.and_then(process::usage), own)
    };
    let before = usage();
    if all_there && !interrupted {
        interrupted = talk(&mut crowd, &mut progress, steady_from).await?;
    }
    let end = Instant::now();
    crowd.tell(|| Input::StopSending);
    let after = usage();
    let surroundings = Surroundings {
        steady: end - steady_from,
        steady_packets: crowd.media.packets() - packets_before,
        bridge: difference(before.0, after.0),
        own: difference(before.1, after.1),
        interrupted,
    };
    tokio::time::sleep(TAIL).await;
    progress.show("leaving", &crowd);
    crowd.tell(|| Input::Finish { end });
    while crowd.tally.count < usize::from(crowd.next_number) {
        let outcome = crowd
            .outcomes
            .recv()
            .await
            .context("a media thread ended")?;
        crowd.tally.add(outcome);
    }
    progress.end();
    let Crowd { media, tally, .. } = crowd;
    media.end();
    Ok(Report::new(&scenario, tally, &surroundings))
}

/// The steady part. Returns whether it was interrupted.
async fn talk(crowd: &mut Crowd, progress: &mut Progress, from: Instant) -> Result<bool> {
    let scenario = crowd.scenario.clone();
    let part = scenario.duration / u32::try_from(scenario.heights.len()).unwrap_or(1);
    let mut replaced = 0u32;
    for (number, height) in (0u32..).zip(&scenario.heights) {
        crowd.height = *height;
        if number > 0 {
            crowd.tell(|| Input::MaxHeight(*height));
        }
        let until = from + part * (number + 1);
        loop {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let mut next = until.min(now + PROGRESS_INTERVAL);
            if scenario.churn > 0.0 {
                let due = |count| from + Duration::from_secs_f64(f64::from(count) / scenario.churn);
                while due(replaced + 1) <= now {
                    replaced += 1;
                    crowd.replace()?;
                }
                next = next.min(due(replaced + 1));
            }
            if pause(next.saturating_duration_since(now)).await {
                return Ok(true);
            }
            progress.show("talking", crowd);
        }
    }
    Ok(false)
}

/// Sleeps; true when the user asked to stop.
async fn pause(time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        _ = tokio::signal::ctrl_c() => true,
    }
}

fn difference(before: Option<Usage>, after: Option<Usage>) -> Option<(f64, u64, u64)> {
    let (before, after) = (before?, after?);
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    Some((cpu_seconds, before.rss_kib, after.rss_kib))
}

/// The line on standard error, once a second.
struct Progress {
    begin: Instant,
    shown: Instant,
    packets: u64,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            shown: now,
            packets: 0,
        }
    }

    fn show(&mut self, doing: &str, crowd: &Crowd) {
        let now = Instant::now();
        let elapsed = now - self.shown;
        if elapsed < PROGRESS_INTERVAL {
            return;
        }
        let packets = crowd.media.packets();
        let rate = (packets - self.packets) as f64 / elapsed.as_secs_f64();
        let (begin, end) = if std::io::stderr().is_terminal() {
            ("\r", "   ")
        } else {
            ("", "\n")
        };
        eprint!(
            "{begin}{:>4.0} s {doing}: {} of {} connected, {} with trouble, {rate:.0} packets/s{end}",
            (now - self.begin).as_secs_f64(),
            crowd.count(|status| status.connected.load(Ordering::Relaxed)),
            crowd.present.len(),
            crowd.count(|status| status.failed.load(Ordering::Relaxed)),
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
