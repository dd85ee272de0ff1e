//! A worker: one thread, its sockets, its shard. It owns every endpoint homed
//! on it, and shares nothing with other threads but its mailbox.
//!
//! A turn: wait for datagrams, mail or a timer; take what is queued, at most
//! [`DATAGRAMS_A_TURN`] and [`MAIL_A_TURN`], so that no queue can starve the
//! others; run the timers that are due; send all that came of it in one go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as queue;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::clock;
use super::udp::{Counters, Sockets, Waker};
use crate::command::{Command, Event};
use crate::shard::Shard;

/// Datagrams taken in a turn before timers get theirs.
const DATAGRAMS_A_TURN: usize = 256;
/// Commands taken in a turn.
const MAIL_A_TURN: usize = 64;
/// The longest sleep: a turn at least this often shows that the worker lives.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// A command on its way to a shard.
#[derive(Debug)]
pub struct Mail {
    pub command: Command,
    /// The registry's number of the command; 0 for what did not come from it.
    pub number: u64,
    /// Given back when the shard has taken the command.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// An event, with which worker it is from, and the number of the last of the
/// registry's commands that its shard had taken before.
#[derive(Debug)]
pub struct Report {
    pub worker: usize,
    pub worked_off: u64,
    pub event: Event,
}

/// Where a worker's mail is put, and what can be seen of it from outside.
#[derive(Debug)]
pub struct Mailbox {
    sender: queue::Sender<Mail>,
    waker: Waker,
    vitals: Arc<Vitals>,
}

/// Signs of life.
#[derive(Debug)]
struct Vitals {
    started: Instant,
    /// Both in nanoseconds: the last turn since `started`, and all time spent
    /// in turns.
    last_turn: AtomicU64,
    busy: AtomicU64,
    /// As of the shard's last statistics.
    sockets: Mutex<Counters>,
}

impl Vitals {
    fn sockets(&self) -> MutexGuard<'_, Counters> {
        self.sockets.lock().expect("no holder panics")
    }
}

impl Mailbox {
    /// Never blocks. The queue is bounded by its senders: the registry's
    /// commands come one request at a time, a channel's by permit.
    pub fn send(&self, mail: Mail) {
        // A worker ends only with the process.
        let _ = self.sender.send(mail);
        self.waker.wake();
    }

    /// How long ago the worker last took a turn.
    pub fn silent_for(&self, now: Instant) -> Duration {
        let last = Duration::from_nanos(self.vitals.last_turn.load(Ordering::Relaxed));
        now.duration_since(self.vitals.started).saturating_sub(last)
    }

    /// What the sockets have done, as of a second ago or less.
    pub fn sockets(&self) -> Counters {
        *self.vitals.sockets()
    }

    /// Time spent in turns since the start.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.vitals.busy.load(Ordering::Relaxed))
    }
}

/// Starts a worker. Its events go to `reports`.
pub fn spawn(
    index: usize,
    sockets: Sockets,
    shard: Shard,
    reports: mpsc::UnboundedSender<Report>,
) -> std::io::Result<Mailbox> {
    let (sender, mail) = queue::channel();
    let vitals = Arc::new(Vitals {
        started: clock::now(),
        last_turn: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        sockets: Mutex::default(),
    });
    let mailbox = Mailbox {
        sender,
        waker: sockets.waker(),
        vitals: Arc::clone(&vitals),
    };
    let worker = Worker {
        index,
        sockets,
        shard,
        mail,
        reports,
        vitals,
        worked_off: 0,
    };
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || worker.run())?;
    Ok(mailbox)
}

struct Worker {
    index: usize,
    sockets: Sockets,
    shard: Shard,
    mail: queue::Receiver<Mail>,
    reports: mpsc::UnboundedSender<Report>,
    vitals: Arc<Vitals>,
    worked_off: u64,
}

impl Worker {
    fn run(mut self) {
        loop {
            let turn = clock::now();
            let more_mail = self.take_mail(turn);
            let more = self.take_datagrams(turn) || more_mail;
            let now = clock::now();
            if self.shard.next_timeout().is_some_and(|due| due <= now) {
                self.shard.handle_timeout(now);
            }
            self.sockets.send(self.shard.outbox());
            for event in self.shard.take_events() {
                if let Event::Stats(_) = event {
                    *self.vitals.sockets() = self.sockets.counters();
                }
                let report = Report {
                    worker: self.index,
                    worked_off: self.worked_off,
                    event,
                };
                // Nobody listens any more when the process is ending.
                let _ = self.reports.send(report);
            }
            let now = clock::now();
            self.show_life(turn, now);
            let wait = match self.shard.next_timeout() {
                _ if more => Duration::ZERO,
                Some(due) => due.saturating_duration_since(now).min(LONGEST_WAIT),
                None => LONGEST_WAIT,
            };
            self.sockets.wait(wait);
        }
    }

    /// Whether there may be more than a turn takes; so too below.
    fn take_mail(&mut self, now: Instant) -> bool {
        let mut taken = 0;
        for mail in self.mail.try_iter().take(MAIL_A_TURN) {
            self.shard.handle_command(now, mail.command);
            self.worked_off = self.worked_off.max(mail.number);
            taken += 1;
        }
        taken == MAIL_A_TURN
    }

    fn take_datagrams(&mut self, now: Instant) -> bool {
        let shard = &mut self.shard;
        let taken = self
            .sockets
            .receive(DATAGRAMS_A_TURN, |local, from, datagram| {
                shard.handle_datagram(now, local, from, datagram);
            });
        taken == DATAGRAMS_A_TURN
    }

    fn show_life(&self, turn: Instant, now: Instant) {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).expect("less than 584 years");
        let last = nanos(now.duration_since(self.vitals.started));
        self.vitals.last_turn.store(last, Ordering::Relaxed);
        let busy = nanos(now.duration_since(turn));
        self.vitals.busy.fetch_add(busy, Ordering::Relaxed);
    }
}
