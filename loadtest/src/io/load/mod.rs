//! A run of a load: joins its members by the bridge's REST interface, lets them
//! talk, and puts together what was found.
//!
//! `mod > rest or xmpp (an endpoint each) > thread (media)`; the server's use of
//! the machine is read by [`server`].

mod gather;
mod limit;
mod options;
mod rest;
mod server;
mod thread;
mod xmpp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rand::Rng;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use viaduct_signalling::colibri2::{ConferenceModified, ConferenceModify};

use super::udp::bind_at;
use crate::client::Clock;
use crate::client::transport::{Identity, Remote};
use crate::load::colibri;
use crate::load::compare::Comparison;
use crate::load::found::Around;
use crate::load::layout::Seat;
use crate::load::member::Member;
use crate::load::report::{Outcome, Report, per};
use crate::load::{Channel, SentBoard, Settings, formats};
use limit::Way;
use rest::Rest;
use server::Watch;
use thread::{Message, Place, Threads};
use xmpp::Deployment;

pub use options::{Options, Target};

/// Joins that are under way at once.
const MAX_JOINING: usize = 16;
/// Interval at which the run is looked after.
const TICK: Duration = Duration::from_millis(50);
/// NTP counts from 1900.
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// Time to leave the rooms.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Who was let in so short a time before the end may still be joining.
const JOIN_TIME: Duration = Duration::from_secs(3);
/// Failures that are told.
const MAX_FAILURES: usize = 20;

/// Runs a load to its end.
pub fn run(target: &Target, options: &Options) -> Result<Report> {
    options.check()?;
    let place = Place {
        cpu: options.cpu,
        netns: None,
        kernel: options.kernel(),
    };
    // Whatever this program does stays off the server's CPU; threads inherit it.
    place.settle()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (mut report, way) = runtime.block_on(async {
        let mut load = Load::new(target, options)?;
        let outcome = load.run().await;
        let way = load.doors.way.get().cloned().unwrap_or_default();
        load.end().await;
        outcome.map(|outcome| (Report::new(outcome), way))
    })?;
    drop(runtime);
    if options.roofline {
        let server = report.server.as_ref().and_then(|server| server.cpu);
        let core = server.unwrap_or(0);
        let peers = options.cpu.filter(|cpu| *cpu != core);
        let peers = peers.unwrap_or(if core == 0 { 1 } else { 0 });
        report.set_limit(limit::measure(&report, &way, core, peers)?);
    }
    Ok(report)
}

/// Runs the same load on two targets in turn, `rounds` times each. `pids`: their
/// processes, where they are to be measured.
pub fn compare(
    targets: [&Target; 2],
    pids: [Option<u32>; 2],
    rounds: u32,
    options: &Options,
) -> Result<Comparison> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    let mut all = Vec::new();
    for round in 0..rounds {
        let side = |side: usize| {
            let options = Options {
                pid: pids[side],
                // The same packets for both, others in each round.
                seed: Some(seed.wrapping_add(u64::from(round) << 32)),
                ..options.clone()
            };
            let name = ["A", "B"][side];
            let report = run(targets[side], &options);
            report.with_context(|| format!("round {}, {name} ({})", round + 1, targets[side]))
        };
        // Who is first changes, for what one leaves behind.
        let pair = match round % 2 {
            0 => {
                let a = side(0)?;
                (a, side(1)?)
            }
            _ => {
                let b = side(1)?;
                (side(0)?, b)
            }
        };
        all.push(pair);
    }
    Ok(Comparison::new(all))
}

/// How members get in.
enum Entrance {
    Rest(Rest),
    Rooms(Arc<Deployment>),
}

/// What joins need.
struct Doors {
    entrance: Entrance,
    settings: Arc<Settings>,
    identity: Identity,
    place: Place,
    threads: Threads,
    ws_base: Option<String>,
    /// Which way the first member's packets take.
    way: OnceLock<Way>,
}

struct Load {
    options: Options,
    target: Target,
    doors: Arc<Doors>,
    watch: Option<Watch>,
    joins: JoinSet<Result<()>>,
    joined: u64,
    /// When those came that took the place of one who left.
    replacements: Vec<Instant>,
    /// Who is at each place now.
    generations: Vec<u16>,
    /// How those in rooms are told to leave.
    leaves: BTreeMap<Seat, Arc<Notify>>,
    failures: Vec<String>,
    bar: ProgressBar,
    seed: u64,
}

impl Doors {
    /// Asks a bridge for a change.
    async fn ask(&self, conference: u32, modify: &ConferenceModify) -> Result<ConferenceModified> {
        match &self.entrance {
            Entrance::Rest(rest) => rest.modify(conference, modify).await,
            Entrance::Rooms(_) => bail!("rooms have a focus, which asks"),
        }
    }
}

impl Load {
    fn new(target: &Target, options: &Options) -> Result<Self> {
        let watch = match options.pid {
            None => None,
            Some(pid) => {
                Some(Watch::new(pid).with_context(|| format!("--pid {pid}: no such process"))?)
            }
        };
        let seed = options.seed.unwrap_or_else(|| rand::rng().random());
        let settings = Arc::new(options.settings(seed));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970 = since_1970.context("the clock is before 1970")?;
        let clock = Clock {
            epoch: Instant::now(),
            epoch_ntp: (since_1970.as_secs() + NTP_TO_UNIX) << 32,
        };
        let sent = Arc::new(SentBoard::new(settings.layout.places()));
        let place = Place {
            cpu: options.cpu,
            netns: options.netns.clone(),
            kernel: options.kernel(),
        };
        let around = || Around::new(settings.clone(), clock, sent.clone());
        let threads = Threads::start(options.threads, &place, around)?;
        let entrance = match target {
            Target::Colibri2(host) => Entrance::Rest(Rest::new(host)),
            Target::Xmpp(server) => Entrance::Rooms(Arc::new(options.deployment(server)?)),
        };
        let bar = ProgressBar::new(settings.layout.places().into());
        let style =
            ProgressStyle::with_template("{elapsed:>4} {msg:<12} {bar:30} {pos}/{len} {prefix}");
        bar.set_style(style.context("a template")?);
        Ok(Self {
            doors: Arc::new(Doors {
                entrance,
                identity: Identity::generate(options.srtp).context("making a certificate")?,
                place,
                threads,
                ws_base: options.ws_base.clone(),
                way: OnceLock::new(),
                settings: settings.clone(),
            }),
            options: options.clone(),
            target: target.clone(),
            watch,
            joins: JoinSet::new(),
            joined: 0,
            replacements: Vec::new(),
            generations: vec![0; settings.layout.places() as usize],
            leaves: BTreeMap::new(),
            failures: Vec::new(),
            bar,
            seed,
        })
    }

    async fn run(&mut self) -> Result<Outcome> {
        self.join_all().await?;
        self.talk(self.options.warmup, "warming up", false).await?;
        if let Some(watch) = &mut self.watch {
            watch.begin();
        }
        self.doors.threads.ask(Message::Mark).await?;
        let seconds = self.talk(self.options.seconds, "measuring", true).await?;
        let reading = self.watch.as_ref().map(Watch::read);
        let taken = self.doors.threads.ask(Message::Close).await?;
        self.collect();
        self.bar.finish_and_clear();
        let mut outcome = self.outcome(taken, &seconds);
        let packets = outcome.found.audio.received + outcome.found.video.received;
        if let (Some(watch), Some(reading)) = (&self.watch, &reading) {
            outcome.server = watch.end(reading, outcome.seconds, packets);
            if outcome.server.is_none() {
                outcome
                    .failures
                    .push("the server's process ended".to_owned());
            }
        }
        Ok(outcome)
    }

    /// Lets everybody in, and waits until all hear each other.
    async fn join_all(&mut self) -> Result<()> {
        let places = self.doors.settings.layout.places();
        let limit = Arc::new(Semaphore::new(MAX_JOINING));
        let began = Instant::now();
        for place in 0..places {
            let due = began + Duration::from_secs_f64(f64::from(place) / self.options.ramp);
            while Instant::now() < due {
                tokio::time::sleep(TICK.min(due - Instant::now())).await;
                self.show("joining", self.doors.threads.gauge(|g| &g.complete));
            }
            let seat = Seat {
                place,
                generation: 0,
            };
            self.joined += 1;
            if let Entrance::Rooms(deployment) = &self.doors.entrance {
                let deployment = deployment.clone();
                self.enter(deployment, seat);
                self.collect();
                continue;
            }
            let first = place == self.doors.settings.layout.first(place);
            if first {
                // A conference is there before its others ask for it.
                join(&self.doors, seat, true).await?;
                continue;
            }
            let permit = limit.clone().acquire_owned().await.context("closed")?;
            let doors = self.doors.clone();
            self.joins.spawn(async move {
                let joined = join(&doors, seat, false).await;
                drop(permit);
                joined
            });
            self.collect();
        }
        let deadline = Instant::now() + Duration::from_secs_f64(self.options.join_timeout);
        let all = |load: &Self| load.doors.threads.gauge(|g| &g.hearing) == u64::from(places);
        while !all(self) && Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
            self.collect();
            self.show("connecting", self.doors.threads.gauge(|g| &g.complete));
            if self.failures.len() >= places as usize {
                break;
            }
        }
        if self.doors.threads.gauge(|g| &g.connected) == 0 {
            bail!(
                "nobody connected: {}",
                self.failures
                    .first()
                    .map_or("no answer to ICE or DTLS", String::as_str)
            );
        }
        Ok(())
    }

    /// Lets one into its room.
    fn enter(&mut self, deployment: Arc<Deployment>, seat: Seat) {
        let leave = Arc::new(Notify::new());
        self.leaves.insert(seat, leave.clone());
        let doors = self.doors.clone();
        self.joins
            .spawn(xmpp::take_part(doors, deployment, seat, leave));
    }

    fn show(&self, doing: &'static str, done: u64) {
        self.bar.set_message(doing);
        self.bar.set_position(done);
    }

    /// Takes in what became of joins.
    fn collect(&mut self) {
        while let Some(joined) = self.joins.try_join_next() {
            let failure = match joined {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => format!("{error:#}"),
                Err(error) => error.to_string(),
            };
            if self.failures.len() < MAX_FAILURES && !self.failures.contains(&failure) {
                self.failures.push(failure);
            }
        }
    }

    /// Lets time pass, with what is to happen meanwhile. Returns what the server
    /// used in each second.
    async fn talk(
        &mut self,
        seconds: f64,
        doing: &'static str,
        measured: bool,
    ) -> Result<Vec<Option<(f64, u64)>>> {
        let begin = Instant::now();
        let length = Duration::from_secs_f64(seconds);
        let heights = if measured {
            self.options.height.clone()
        } else {
            Vec::new()
        };
        let part = length / (heights.len().max(1) as u32);
        let (mut step, mut replaced) = (0, 0u32);
        let mut samples = Vec::new();
        self.bar.set_length((seconds * 10.0) as u64);
        let mut before = (begin, self.doors.threads.gauge(|g| &g.received));
        loop {
            let now = Instant::now();
            let passed = now - begin;
            if passed >= length {
                samples.push(self.watch.as_mut().and_then(Watch::sample));
                return Ok(samples);
            }
            if passed >= Duration::from_secs(samples.len() as u64 + 1) {
                samples.push(self.watch.as_mut().and_then(Watch::sample));
                let received = self.doors.threads.gauge(|g| &g.received);
                let rate = per((received - before.1) as f64, (now - before.0).as_secs_f64());
                self.bar.set_prefix(format!("{rate:.0} packets/s"));
                before = (now, received);
            }
            self.show(doing, (passed.as_secs_f64() * 10.0) as u64);
            if step + 1 < heights.len() && passed >= part * (step as u32 + 1) {
                step += 1;
                let height = heights[step];
                self.doors.threads.tell_all(|| Message::Height(height));
            }
            let mut next = begin + length;
            if measured && self.options.churn > 0.0 {
                let churn = self.options.churn;
                let due = |count: u32| begin + Duration::from_secs_f64(f64::from(count) / churn);
                while due(replaced + 1) <= now {
                    replaced += 1;
                    self.replace(replaced);
                }
                next = next.min(due(replaced + 1));
                self.collect();
            }
            let wait = next.saturating_duration_since(Instant::now()).min(TICK);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
    }

    /// One leaves, another takes its place.
    fn replace(&mut self, count: u32) {
        let places = self.doors.settings.layout.places();
        let place = (count - 1) % places;
        let generation = &mut self.generations[place as usize];
        let old = Seat {
            place,
            generation: *generation,
        };
        *generation = (*generation + 1) % 4096;
        let new = Seat {
            place,
            generation: *generation,
        };
        self.joined += 1;
        self.replacements.push(Instant::now());
        if let Entrance::Rooms(deployment) = &self.doors.entrance {
            let deployment = deployment.clone();
            if let Some(leave) = self.leaves.remove(&old) {
                leave.notify_one();
            }
            self.enter(deployment, new);
            return;
        }
        let doors = self.doors.clone();
        self.joins.spawn(async move {
            doors.threads.tell(old, Message::Leave(old));
            let settings = &doors.settings;
            let conference = settings.layout.conference(place);
            let expire = colibri::expire(settings, conference, &settings.layout.endpoint(old));
            doors.ask(conference, &expire).await?;
            join(&doors, new, false).await
        });
    }

    /// Ends all conferences on the server, and the threads.
    async fn end(self) {
        let settings = &self.doors.settings;
        for leave in self.leaves.values() {
            leave.notify_one();
        }
        if let Entrance::Rest(_) = &self.doors.entrance {
            for conference in 0..self.options.conferences {
                let end = colibri::end(settings, conference);
                if let Err(error) = self.doors.ask(conference, &end).await {
                    tracing::debug!(%error, conference, "not ended");
                }
            }
        }
        self.bar.finish_and_clear();
        let Self {
            doors,
            mut joins,
            leaves,
            ..
        } = self;
        if !leaves.is_empty() {
            let all_gone = async { while joins.join_next().await.is_some() {} };
            if tokio::time::timeout(LEAVE_TIMEOUT, all_gone).await.is_err() {
                tracing::warn!("not all left their rooms");
            }
        }
        joins.shutdown().await;
        if let Some(doors) = Arc::into_inner(doors) {
            doors.threads.end();
        }
    }
}

/// Asks for an endpoint, and hands the member to its thread.
async fn join(doors: &Doors, seat: Seat, first: bool) -> Result<()> {
    let settings = &doors.settings;
    let conference = settings.layout.conference(seat.place);
    let endpoint = settings.layout.endpoint(seat);
    let asked = Instant::now();
    let create = colibri::create(settings, conference, &endpoint, first);
    let answer = doors.ask(conference, &create).await?;
    let allocated = colibri::allocated(&answer, &endpoint).map_err(anyhow::Error::msg)?;
    let (socket, local) = bind(doors, &allocated.remote)?;
    let url = match settings.channel {
        Channel::Websocket => {
            let url = allocated.channel_url.as_deref();
            let url = url.context("--channel websocket: the bridge offers none (is videobridge.websockets.enabled = true?)")?;
            Some(colibri::redirect(url, doors.ws_base.as_deref()))
        }
        Channel::Datachannel if !allocated.has_sctp => {
            bail!(
                "--channel datachannel: the bridge offers none (is videobridge.sctp.enabled = true?)"
            )
        }
        Channel::Datachannel | Channel::None => None,
    };
    let now = Instant::now();
    let formats = formats(settings.picture.codec, settings.feedback);
    let mut member = Member::new(
        now,
        settings.clone(),
        formats,
        &doors.identity,
        seat,
        local,
        &allocated.remote,
    )?;
    member.milestones.asked = Some(asked);
    let update = colibri::update(
        settings,
        conference,
        &endpoint,
        member.local_credentials(),
        doors.identity.fingerprint(),
        &member.signalled(),
    );
    doors.ask(conference, &update).await?;
    doors
        .threads
        .tell(seat, Message::Join(Box::new(member), socket, url));
    Ok(())
}

/// A socket in the members' network, at the address from which the bridge is
/// reached.
fn bind(doors: &Doors, remote: &Remote) -> Result<(UdpSocket, SocketAddr)> {
    let place = &doors.place;
    let open = || -> Result<_> {
        let mut candidates = remote.candidates.iter();
        let way = candidates.find_map(|peer| Some((local_for(*peer)?, *peer)));
        let (local, peer) = way.with_context(|| {
            format!(
                "none of the bridge's addresses can be reached: {:?}",
                remote.candidates
            )
        })?;
        if let (IpAddr::V4(server), IpAddr::V4(members)) = (peer.ip(), local) {
            doors.way.get_or_init(|| Way {
                server,
                members,
                netns: place.netns.clone(),
            });
        }
        bind_at(local, place.kernel).context("UDP socket")
    };
    if place.netns.is_none() {
        return open();
    }
    // A namespace is a thread's: this one's must stay as it is.
    let settled =
        std::thread::scope(|scope| scope.spawn(|| place.settle().and_then(|()| open())).join());
    settled.map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// The address that packets to `peer` leave from, if there is a way to it.
fn local_for(peer: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let probe = UdpSocket::bind(any).ok()?;
    probe.connect(peer).ok()?;
    Some(probe.local_addr().ok()?.ip())
}
