//! A worker: one thread, its sockets, its shard. It owns every endpoint homed
//! on it, and shares nothing with other threads but its mailbox, and a lane to
//! and from each other worker for datagrams that are the other's.
//!
//! A turn: wait for datagrams, mail or a timer; take what is queued, at most
//! [`DATAGRAMS_A_TURN`] and [`MAIL_A_TURN`] of each queue, so that none can
//! starve the others, and fewer where each goes to many receivers; run the timers that are due; send all that came of it in
//! one go; wake those workers that were given something.
//!
//! What shards tell each other goes through the mailboxes, too: so it cannot
//! overtake a command that the registry gave before.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::clock;
use super::mail::{Inbox, Letterbox, MAIL_A_TURN, Mail, letterbox};
use super::neighbours::{Neighbours, acquaint};
use super::udp::{Counters, Feedback, Sockets};
use crate::command::Event;
use crate::directory::Misdirected;
use crate::forward_delay::{ForwardDelays, Stopwatch};
use crate::peers::MAX_WORKERS;
use crate::shard::Shard;

/// Most datagrams taken of a queue in a turn before timers get theirs, and least
/// of those that may be waiting.
const DATAGRAMS_A_TURN: usize = 256;
const LEAST_DATAGRAMS_A_TURN: usize = 4;
/// Octets that a turn should send: more would not stay in the CPU's own cache
/// until the kernel reads them, and what was first would wait for the last.
const OUTPUT_A_TURN: usize = 1 << 20;
/// RTCP waits for media where that comes more often than this, and never longer:
/// each wake costs as much as several packets, and a receiver reports twenty times a
/// second. Nothing that is forwarded waits.
const FEEDBACK_WAITS: Duration = Duration::from_millis(5);
/// But only where it comes so often: else more wakes are for nothing, when that time
/// is over, than are saved.
const MANY_REPORTS: u32 = 20;
const REPORTS_COUNTED: Duration = Duration::from_millis(100);
/// The longest sleep: a turn at least this often shows that the worker lives.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// An event, with which worker it is from.
#[derive(Debug)]
pub struct Report {
    pub worker: usize,
    pub event: Event,
}

/// Where a worker's mail is put, and what can be seen of it from outside.
#[derive(Debug)]
pub struct Mailbox {
    letters: Letterbox,
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
    /// Sockets that cannot be received from just now.
    failing: AtomicUsize,
    /// As of the shard's last statistics.
    figures: Mutex<Figures>,
}

/// What a worker has counted beside its shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub sockets: Counters,
    pub forward_delays: ForwardDelays,
}

impl Vitals {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().expect("no holder panics")
    }
}

impl Mailbox {
    /// Never blocks. The queue is bounded by its senders: the registry's
    /// commands come one request at a time, a channel's by permit.
    pub fn send(&self, mail: Mail) {
        self.letters.put(mail);
        self.letters.waker.wake();
    }

    /// How long ago the worker last took a turn.
    pub fn silent_for(&self, now: Instant) -> Duration {
        let last = Duration::from_nanos(self.vitals.last_turn.load(Ordering::Relaxed));
        now.duration_since(self.vitals.started).saturating_sub(last)
    }

    /// How many of its sockets cannot be received from.
    pub fn failing_sockets(&self) -> usize {
        self.vitals.failing.load(Ordering::Relaxed)
    }

    /// What it has counted, as of a second ago or less.
    pub fn figures(&self) -> Figures {
        *self.vitals.figures()
    }

    /// Time spent in turns since the start.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.vitals.busy.load(Ordering::Relaxed))
    }
}

/// As many workers as there are CPUs for this process: those of its affinity
/// mask, or fewer if its control group allows less than their time.
pub fn default_count() -> usize {
    let cpus = std::thread::available_parallelism();
    cpus.map_or(1, NonZero::get).min(MAX_WORKERS)
}

/// Starts the workers, as many as there are shards. Their events go to `reports`.
pub fn spawn(
    sockets: Vec<Sockets>,
    shards: Vec<Shard>,
    reports: &mpsc::UnboundedSender<Report>,
) -> std::io::Result<Vec<Mailbox>> {
    let boxes = sockets.iter().map(|sockets| letterbox(sockets.waker()));
    let (letters, inboxes): (Vec<_>, Vec<_>) = boxes.unzip();
    let mut mailboxes = Vec::new();
    let neighbours = acquaint(&letters);
    let parts = sockets.into_iter().zip(shards).zip(inboxes).zip(neighbours);
    for (index, (((sockets, shard), inbox), neighbours)) in parts.enumerate() {
        let vitals = Arc::new(Vitals {
            started: clock::now(),
            last_turn: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            failing: AtomicUsize::new(0),
            figures: Mutex::default(),
        });
        mailboxes.push(Mailbox {
            letters: letters[index].clone(),
            vitals: Arc::clone(&vitals),
        });
        let worker = Worker {
            index,
            sockets,
            shard,
            inbox,
            neighbours,
            reports: reports.clone(),
            vitals,
            stopwatch: Stopwatch::default(),
            appetite: DATAGRAMS_A_TURN,
            pace: Pace::new(clock::now()),
        };
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || worker.run())?;
    }
    Ok(mailboxes)
}

/// How often media comes, and RTCP.
struct Pace {
    last: Instant,
    /// Between the last two turns in which some media came.
    gap: Duration,
    /// Since when reports are counted, and whether there were many before.
    counted: Instant,
    reports: u32,
    many: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            last: now,
            gap: Duration::MAX,
            counted: now,
            reports: 0,
            many: false,
        }
    }

    fn note(&mut self, turn: Instant, sockets: &Sockets) {
        if sockets.media_came() {
            self.gap = turn.saturating_duration_since(self.last);
            self.last = turn;
        }
        self.reports += sockets.reports_came() as u32;
        let passed = turn.saturating_duration_since(self.counted);
        if passed >= REPORTS_COUNTED {
            self.many = self.reports >= MANY_REPORTS && passed < 2 * REPORTS_COUNTED;
            (self.counted, self.reports) = (turn, 0);
        }
    }

    /// Whether RTCP may wait for media.
    fn is_brisk(&self, now: Instant) -> bool {
        self.many
            && self.gap < FEEDBACK_WAITS
            && now.saturating_duration_since(self.last) < FEEDBACK_WAITS
    }
}

struct Worker {
    index: usize,
    sockets: Sockets,
    shard: Shard,
    inbox: Inbox,
    neighbours: Neighbours,
    reports: mpsc::UnboundedSender<Report>,
    vitals: Arc<Vitals>,
    stopwatch: Stopwatch,
    /// Datagrams to take of each queue in the next turn.
    appetite: usize,
    pace: Pace,
}

impl Worker {
    fn run(mut self) {
        // Others may have something for this worker: they wake it, or it was not all
        // taken.
        let mut told = true;
        loop {
            let turn = clock::now();
            let appetite = self.appetite;
            if told {
                self.neighbours.look();
            }
            let mail_left = told && self.take_mail(turn);
            let own = self.take_datagrams(turn);
            let given = if told {
                self.take_from_neighbours(turn)
            } else {
                0
            };
            let left = mail_left || given >= appetite;
            let more = left || own >= appetite;
            self.digest(own + given);
            self.stopwatch.handled(self.shard.forwarded());
            let now = clock::now();
            self.shard.handle_timeout(now);
            if !self.neighbours.any_far_behind() {
                self.shard.tell_homes(now);
                self.shard.tell_senders(now);
            }
            self.neighbours.pass_on(turn, &mut self.shard);
            self.neighbours.wake();
            self.sockets.send(self.shard.outbox());
            self.report();
            let now = clock::now();
            self.stopwatch.sent(now);
            self.show_life(turn, now);
            let wait = match self.shard.next_timeout() {
                _ if more => Duration::ZERO,
                Some(due) => due.saturating_duration_since(now).min(LONGEST_WAIT),
                None => LONGEST_WAIT,
            };
            self.pace.note(turn, &self.sockets);
            let woken = match self.pace.is_brisk(now) {
                true => {
                    let wait = wait.min(FEEDBACK_WAITS);
                    self.sockets.wait(now, wait, Feedback::Waits)
                }
                false => self.sockets.wait(now, wait, Feedback::Wakes),
            };
            told = left || woken;
        }
    }

    /// Chooses how many datagrams to take in the next turn, by what became of
    /// those of this one.
    fn digest(&mut self, taken: usize) {
        let octets = self.shard.outbox().octets();
        if let Some(appetite) = (taken * OUTPUT_A_TURN).checked_div(octets) {
            self.appetite = appetite.clamp(LEAST_DATAGRAMS_A_TURN, DATAGRAMS_A_TURN);
        }
    }

    /// Whether there may be more than a turn takes.
    fn take_mail(&mut self, now: Instant) -> bool {
        self.inbox.hand_to(&mut self.shard, now) == MAIL_A_TURN
    }

    /// A datagram that nobody seems to be there for may have overtaken the news:
    /// that an endpoint is there, or its address proved, is in the mail before
    /// its peer knows, so that is looked into first. How many there were.
    fn take_datagrams(&mut self, now: Instant) -> usize {
        let (shard, neighbours) = (&mut self.shard, &mut self.neighbours);
        let inbox = &self.inbox;
        self.stopwatch.handle(now, shard.forwarded());
        self.sockets
            .receive(self.appetite, |local, from, datagram| {
                let mut refused = shard.handle_datagram(now, local, from, datagram);
                if let Err(Misdirected::Nobody(_)) = refused
                    && inbox.hand_to(shard, now) > 0
                {
                    refused = shard.handle_datagram(now, local, from, datagram);
                }
                match refused {
                    Ok(()) => {}
                    Err(Misdirected::Shard(number)) => {
                        let head = (now, (local, from));
                        neighbours.hand_over(shard, number, head, datagram);
                    }
                    Err(Misdirected::Nobody(cause)) => shard.count_drop(cause),
                }
            })
    }

    /// The most that was taken of one queue.
    fn take_from_neighbours(&mut self, now: Instant) -> usize {
        let (shard, neighbours) = (&mut self.shard, &mut self.neighbours);
        let stopwatch = &mut self.stopwatch;
        let handed_over =
            neighbours.take_handed_over(self.appetite, |(taken, (local, from)), datagram| {
                stopwatch.handle(taken, shard.forwarded());
                if let Err(cause) = shard.handle_handed_over(now, local, from, datagram) {
                    shard.count_drop(cause);
                }
            });
        let published = neighbours.take_published(self.appetite, |(taken, head), packet| {
            stopwatch.handle(taken, shard.forwarded());
            shard.handle_published(now, head, packet);
        });
        handed_over.max(published)
    }

    fn report(&mut self) {
        for event in self.shard.take_events() {
            if let Event::Stats(_) = event {
                *self.vitals.figures() = Figures {
                    sockets: self.sockets.counters(),
                    forward_delays: *self.stopwatch.delays(),
                };
            }
            let report = Report {
                worker: self.index,
                event,
            };
            // Nobody listens any more when the process is ending.
            let _ = self.reports.send(report);
        }
    }

    fn show_life(&self, turn: Instant, now: Instant) {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).expect("less than 584 years");
        let last = nanos(now.duration_since(self.vitals.started));
        self.vitals.last_turn.store(last, Ordering::Relaxed);
        let busy = nanos(now.duration_since(turn));
        self.vitals.busy.fetch_add(busy, Ordering::Relaxed);
        let failing = self.sockets.failing();
        self.vitals.failing.store(failing, Ordering::Relaxed);
    }
}
