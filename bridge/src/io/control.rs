//! What the tasks of the control plane share: the registry of conferences, the
//! workers' mailboxes, open bridge channels, the latest statistics, and whether
//! the bridge is well.
//!
//! Locks here are held for the length of one request, never across an await,
//! and never by a worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::channels::Channels;
use super::host::CpuTime;
use super::mail::Mail;
use super::queries::Queries;
use super::udp::Steering;
use super::worker::Mailbox;
use super::{clock, worker};
use crate::colibri::Colibri;
use crate::command::{Command, Event};
use crate::config::Config;
use crate::id::ConferenceId;
use crate::lifecycle::Lifecycle;
use crate::stats::ShardStats;
use crate::view::{Part, Subject};

/// How long a worker may go without a turn before the bridge is unhealthy
/// (`videobridge.health.max-check-duration`); each takes a turn twice a second.
const WORKER_SILENCE: Duration = Duration::from_secs(3);

/// The bridge, as its control plane sees it.
#[derive(Debug)]
pub struct Bridge {
    pub config: Config,
    pub started_unix_ms: u64,
    /// Whether an address that strangers can reach is announced.
    pub has_valid_address: bool,
    /// Where this bridge is found, for a bridge that has to tell its double apart.
    pub address: String,
    pub channels: Channels,
    pub drain: AtomicBool,
    pub xmpp: XmppGauges,
    pub queries: Queries,
    lifecycle: watch::Sender<Lifecycle>,
    colibri: Mutex<Colibri>,
    mailboxes: Vec<Mailbox>,
    /// `None` if the kernel is not told whose datagrams are.
    steering: Mutex<Option<Steering>>,
    shards: Mutex<Vec<ShardStats>>,
    sample: Mutex<Sample>,
}

/// How the XMPP connections stand.
#[derive(Debug, Default)]
pub struct XmppGauges {
    pub clients_configured: usize,
    pub mucs_configured: usize,
    pub clients_connected: AtomicUsize,
    pub mucs_joined: AtomicUsize,
    pub disconnects: AtomicU64,
    /// Under which address and nickname each connection is logged in, by the
    /// server it goes to.
    pub logins: Mutex<BTreeMap<String, Login>>,
}

/// Who a connection is just now; both change when another bridge claims them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// The full address, with the resource bound.
    pub jid: String,
    pub nickname: String,
}

/// Rates and load over the last interval of `videobridge.stats.interval`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// RTP octets and packets a second.
    pub bytes_received: f64,
    pub bytes_sent: f64,
    pub packets_received: f64,
    pub packets_sent: f64,
    /// Fractions of RTP packets lost.
    pub incoming_loss: f64,
    pub outgoing_loss: f64,
    pub overall_loss: f64,
    /// Share of the workers' time spent at work, 0 to 1.
    pub busy: f64,
    /// Share of the machine's time that its host gave to others, 0 to 1.
    pub steal: f64,
}

/// What one worker has done.
#[derive(Clone, Debug)]
pub struct WorkerFigures {
    /// Time spent in turns since the start.
    pub busy: Duration,
    /// The share of it over the last interval, 0 to 1.
    pub busy_share: f64,
    pub own: worker::Figures,
    pub shard: ShardStats,
}

#[derive(Debug)]
struct Sample {
    taken: Instant,
    counters: crate::stats::Counters,
    /// Of each worker.
    busy: Vec<Duration>,
    /// Shares of the last interval, likewise.
    busy_shares: Vec<f64>,
    cpu: CpuTime,
    rates: Rates,
}

/// What there is to start a [`Bridge`] with.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub colibri: Colibri,
    pub mailboxes: Vec<Mailbox>,
    pub steering: Option<Steering>,
    pub has_valid_address: bool,
    pub address: String,
}

impl Bridge {
    pub fn new(parts: Parts) -> Self {
        let connections = &parts.config.xmpp;
        let xmpp = XmppGauges {
            clients_configured: connections.len(),
            mucs_configured: connections.iter().map(|c| c.rooms.len()).sum(),
            ..XmppGauges::default()
        };
        Self {
            started_unix_ms: clock::unix_ms(),
            has_valid_address: parts.has_valid_address,
            address: parts.address,
            channels: Channels::default(),
            drain: AtomicBool::new(parts.config.initial_drain),
            xmpp,
            queries: Queries::default(),
            lifecycle: watch::Sender::new(Lifecycle::Running),
            colibri: Mutex::new(parts.colibri),
            shards: Mutex::new(vec![ShardStats::default(); parts.mailboxes.len()]),
            mailboxes: parts.mailboxes,
            steering: Mutex::new(parts.steering),
            sample: Mutex::new(Sample {
                taken: clock::now(),
                counters: crate::stats::Counters::default(),
                busy: Vec::new(),
                busy_shares: Vec::new(),
                cpu: CpuTime::now(),
                rates: Rates::default(),
            }),
            config: parts.config,
        }
    }

    /// Lets `act` work on the registry and hands what it decided to the shards,
    /// in order: the lock is held until all is queued.
    pub fn colibri<R>(&self, act: impl FnOnce(&mut Colibri) -> R) -> R {
        let mut colibri = self.colibri.lock().expect("no holder panics");
        let result = act(&mut colibri);
        for dispatch in colibri.take_dispatches() {
            self.mailboxes[dispatch.worker].send(Mail::Command {
                command: dispatch.command,
                permit: None,
            });
        }
        result
    }

    /// Hands a bridge-channel command to a worker. `permit` is given back when
    /// the shard has taken it, which is how a channel is held to a few at once.
    pub fn channel_command(
        &self,
        worker: usize,
        command: Command,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        self.mailboxes[worker].send(Mail::Command { command, permit });
    }

    /// What the parts of a conference tell of it, and how many of them have not
    /// answered in time. Nothing of one that is not there.
    pub async fn describe(
        &self,
        conference: ConferenceId,
        subject: &Subject,
    ) -> (Vec<Part>, usize) {
        let mut query = self.queries.begin();
        let asked = self.colibri(|colibri| colibri.describe(conference, query.number, subject));
        let parts = query.answers(asked).await;
        let missing = asked - parts.len();
        (parts, missing)
    }

    /// Begins to end; see [`Lifecycle::shut_down`].
    pub fn shut_down(&self, graceful: bool) {
        self.live(|lifecycle| lifecycle.shut_down(clock::now(), graceful));
    }

    /// Where the bridge is in its life.
    pub fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    /// Waits until the bridge has come to its end.
    pub async fn ended(&self) {
        let mut lifecycle = self.lifecycle.subscribe();
        let ended = lifecycle.wait_for(|lifecycle| *lifecycle == Lifecycle::Ended);
        ended.await.expect("the sender is here as long as we are");
    }

    fn live(&self, step: impl FnOnce(Lifecycle) -> Lifecycle) {
        let changed = self.lifecycle.send_if_modified(|lifecycle| {
            let next = step(*lifecycle);
            std::mem::replace(lifecycle, next) != next
        });
        if changed {
            tracing::info!(now = ?self.lifecycle(), "shutting down");
            self.colibri(Colibri::refuse_conferences);
        }
    }

    /// Why the bridge is not well, if it is not.
    pub fn unhealthy(&self) -> Option<String> {
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let silent = mailbox.silent_for(clock::now());
            if silent > WORKER_SILENCE {
                return Some(format!(
                    "Worker {index} has not answered for {} s.",
                    silent.as_secs()
                ));
            }
            let failing = mailbox.failing_sockets();
            if failing > 0 {
                return Some(format!(
                    "Worker {index} cannot receive from {failing} of its sockets."
                ));
            }
        }
        if self.config.health.require_valid_address && !self.has_valid_address {
            return Some("No valid IP addresses available for harvesting.".to_owned());
        }
        None
    }

    /// All shards' counters and gauges, added up.
    pub fn shard_stats(&self) -> ShardStats {
        let shards = self.shards.lock().expect("no holder panics");
        let mut sum = ShardStats::default();
        for shard in shards.iter() {
            sum.add(shard);
        }
        sum
    }

    /// What each worker has done.
    pub fn workers(&self) -> Vec<WorkerFigures> {
        let shares = self.sample.lock().expect("no holder panics");
        let shares = shares.busy_shares.clone();
        let shards = self.shards.lock().expect("no holder panics");
        let workers = self.mailboxes.iter().zip(&*shards).enumerate();
        workers
            .map(|(number, (mailbox, shard))| WorkerFigures {
                busy: mailbox.busy(),
                busy_share: shares.get(number).copied().unwrap_or(0.0),
                own: mailbox.figures(),
                shard: shard.clone(),
            })
            .collect()
    }

    /// The rates of the last interval.
    pub fn rates(&self) -> Rates {
        self.sample.lock().expect("no holder panics").rates
    }

    /// `stress_level`: the workers' busy share over `load-threshold`, where
    /// JVB takes that of the whole machine. 1 is full.
    pub fn stress(&self) -> f64 {
        self.rates().busy / self.config.load_threshold
    }

    /// Takes the sample that [`Self::rates`] answers from now on.
    fn sample(&self) {
        let now = clock::now();
        let counters = self.shard_stats().counters;
        let busy: Vec<Duration> = self.mailboxes.iter().map(Mailbox::busy).collect();
        let cpu = CpuTime::now();
        let mut sample = self.sample.lock().expect("no holder panics");
        let seconds = now.duration_since(sample.taken).as_secs_f64().max(0.001);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let before = &sample.counters;
        let lost = counters.packets_lost.saturating_sub(before.packets_lost) as f64;
        let received = counters
            .packets_received
            .saturating_sub(before.packets_received) as f64;
        let out_lost = counters.outgoing_lost.saturating_sub(before.outgoing_lost) as f64;
        let out_expected = counters
            .outgoing_expected
            .saturating_sub(before.outgoing_expected) as f64;
        let fraction = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let before_busy = sample.busy.iter().chain(std::iter::repeat(&Duration::ZERO));
        let busy_shares: Vec<f64> = busy
            .iter()
            .zip(before_busy)
            .map(|(now, before)| now.saturating_sub(*before).as_secs_f64() / seconds)
            .collect();
        let workers = busy_shares.len().max(1) as f64;
        let rates = Rates {
            bytes_received: rate(counters.bytes_received, before.bytes_received),
            bytes_sent: rate(counters.bytes_sent, before.bytes_sent),
            packets_received: rate(counters.packets_received, before.packets_received),
            packets_sent: rate(counters.packets_sent, before.packets_sent),
            incoming_loss: fraction(lost, lost + received),
            outgoing_loss: fraction(out_lost, out_expected),
            overall_loss: fraction(lost + out_lost, lost + received + out_expected),
            busy: busy_shares.iter().sum::<f64>() / workers,
            steal: cpu.steal_since(sample.cpu),
        };
        *sample = Sample {
            taken: now,
            counters,
            busy,
            busy_shares,
            cpu,
            rates,
        };
    }

    /// Lets the kernel give datagrams to the worker whose they are. If it cannot, all
    /// is as it would be without: workers hand them over.
    fn steer(&self, homes: &[(SocketAddr, usize)]) {
        let mut steering = self.steering.lock().expect("no holder panics");
        let result = steering.as_mut().map(|steering| steering.steer(homes));
        if let Some(Err(error)) = result {
            tracing::info!(%error, "the kernel steers datagrams no further");
            *steering = None;
        }
    }

    fn handle_event(&self, worker: usize, event: Event) {
        match event {
            Event::ChannelSend { channel, text, .. } => self.channels.send(channel, text),
            Event::ChannelClose {
                channel, reason, ..
            } => self.channels.close(channel, reason),
            Event::EndpointExpired {
                conference,
                member,
                reason,
            } => {
                self.colibri(|colibri| {
                    colibri.endpoint_expired(clock::now(), conference, member, reason);
                });
            }
            Event::EndpointConnected {
                conference,
                endpoint,
                remote,
                srtp_profile,
            } => {
                tracing::debug!(%conference, %endpoint, %remote, srtp_profile, "endpoint connected");
            }
            Event::Homes(homes) => self.steer(&homes),
            Event::Described { query, part } => self.queries.answer(query, *part),
            Event::Stats(stats) => {
                self.shards.lock().expect("no holder panics")[worker] = *stats;
            }
        }
    }
}

/// Works off what the shards tell, until all workers are gone.
pub async fn handle_events(
    bridge: std::sync::Arc<Bridge>,
    mut events: mpsc::UnboundedReceiver<worker::Report>,
) {
    while let Some(report) = events.recv().await {
        bridge.handle_event(report.worker, report.event);
    }
}

/// Runs the registry's timers and takes samples, for ever.
pub async fn keep_time(bridge: std::sync::Arc<Bridge>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut last_sample = clock::now();
    loop {
        second.tick().await;
        let now = clock::now();
        let participants = bridge.colibri(|colibri| {
            colibri.handle_timeout(now);
            colibri.registered().endpoints
        });
        bridge.live(|life| life.advance(now, participants, &bridge.config.shutdown));
        if clock::now().duration_since(last_sample) >= bridge.config.stats_interval {
            last_sample = clock::now();
            bridge.sample();
        }
    }
}

/// Reads a counter that only tells how much.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
