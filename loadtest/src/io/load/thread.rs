//! The threads that own the members of a load.
//!
//! A turn: what has come due is sent, then all sockets are looked at, then the
//! thread sleeps until the next packet is due or [`NAP`] has passed. Sockets are
//! polled, not waited for: a thread that waits is woken by who sends to it, and
//! that is the server, whose time is to be measured; the [`super::super::roofline`]
//! does the same. Between two batches what is due is sent first, so that
//! receiving does not make senders late.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::channel::{Channel, ChannelEvent};
use super::super::process;
use super::super::udp::{BATCH, Batch, Kernel, enter_network};
use crate::client::send::SendStats;
use crate::client::transport::Progress;
use crate::load::found::{Around, Found, Milestones};
use crate::load::layout::Seat;
use crate::load::member::Member;
use crate::measure::delay::Histogram;

/// Longest sleep between two looks at the sockets.
const NAP: Duration = Duration::from_micros(200);
/// Batches taken of a socket at a time.
const ROUNDS: usize = 4;
/// Interval of the gauges.
const GAUGES: Duration = Duration::from_millis(100);
/// Interval of the samples.
const SAMPLE: Duration = Duration::from_secs(1);

/// What is asked of a thread.
pub(super) enum Message {
    /// A member, its socket, and where its channel is, if that is a WebSocket.
    Join(Box<Member>, UdpSocket, Option<String>),
    Channel(Seat, ChannelEvent),
    Height(u16),
    /// Counts from now on; answers when that was.
    Mark(oneshot::Sender<Instant>),
    /// Ends a member; what it received counts if it was there when the marked
    /// time began, or came since.
    Leave(Seat),
    /// Ends the count.
    Close(oneshot::Sender<Taken>),
    End,
}

/// What a run sees of its threads meanwhile.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) members: AtomicU64,
    pub(super) connected: AtomicU64,
    /// Channel open as well.
    pub(super) complete: AtomicU64,
    /// Something came of every sender.
    pub(super) hearing: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) received: AtomicU64,
}

/// One second of a thread.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) end: Instant,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) delays: Histogram,
    pub(super) cpu_ns: u64,
}

/// What a thread found.
pub(super) struct Taken {
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) cpu_ns: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) delays: Histogram,
    pub(super) lateness: Histogram,
    pub(super) found: Found,
    pub(super) senders: SendStats,
    pub(super) samples: Vec<Sample>,
    pub(super) milestones: Vec<Milestones>,
    pub(super) profiles: BTreeMap<&'static str, u32>,
    /// Datagrams that the members' sockets had no room for.
    pub(super) overflow: u64,
}

/// How threads are run.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) cpu: Option<usize>,
    pub(super) netns: Option<String>,
    pub(super) kernel: Kernel,
}

impl Place {
    /// Moves the calling thread to where it belongs.
    pub(super) fn settle(&self) -> Result<()> {
        if let Some(name) = &self.netns {
            enter_network(name)?;
        }
        if let Some(cpu) = self.cpu {
            let mut set = CpuSet::new();
            set.set(cpu).with_context(|| format!("--cpu {cpu}"))?;
            sched_setaffinity(Pid::from_raw(0), &set)
                .with_context(|| format!("--cpu {cpu}: not a CPU this program may run on"))?;
        }
        Ok(())
    }
}

/// The threads of a load.
pub(super) struct Threads {
    threads: Vec<(mpsc::Sender<Message>, JoinHandle<()>)>,
    pub(super) gauges: Vec<Arc<Gauges>>,
}

impl Threads {
    pub(super) fn start(count: usize, place: &Place, around: impl Fn() -> Around) -> Result<Self> {
        let (mut threads, mut gauges) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (sender, messages) = mpsc::channel();
            let gauge = Arc::new(Gauges::default());
            let (ready, started) = mpsc::channel();
            let (around, runtime) = (around(), Handle::current());
            let (own, shown, place) = (sender.clone(), gauge.clone(), place.clone());
            let handle = std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || {
                    let settled = place.settle();
                    let usable = settled.is_ok();
                    if ready.send(settled).is_err() || !usable {
                        return;
                    }
                    let thread = Thread {
                        around,
                        seats: Vec::new(),
                        height: None,
                        due: BinaryHeap::new(),
                        batch: Batch::for_load(place.kernel),
                        runtime,
                        messages: own,
                        gauges: shown,
                        count: Count::default(),
                    };
                    thread.run(&messages);
                })
                .context("starting a thread")?;
            started.recv().context("a thread ended")??;
            threads.push((sender, handle));
            gauges.push(gauge);
        }
        Ok(Self { threads, gauges })
    }

    /// To the thread of a seat.
    pub(super) fn tell(&self, seat: Seat, message: Message) {
        let (thread, _) = &self.threads[seat.place as usize % self.threads.len()];
        // A thread that has ended needs nothing more.
        let _ = thread.send(message);
    }

    /// To all threads.
    pub(super) fn tell_all(&self, message: impl Fn() -> Message) {
        for (thread, _) in &self.threads {
            let _ = thread.send(message());
        }
    }

    /// To all threads, and their answers.
    pub(super) async fn ask<T>(
        &self,
        message: impl Fn(oneshot::Sender<T>) -> Message,
    ) -> Result<Vec<T>> {
        let mut answers = Vec::new();
        for (thread, _) in &self.threads {
            let (answer, answered) = oneshot::channel();
            let _ = thread.send(message(answer));
            answers.push(answered);
        }
        let mut taken = Vec::new();
        for answer in answers {
            taken.push(answer.await.context("a load thread ended")?);
        }
        Ok(taken)
    }

    /// A gauge over all threads.
    pub(super) fn gauge(&self, of: impl Fn(&Gauges) -> &AtomicU64) -> u64 {
        self.gauges.iter().map(|g| of(g).load(Relaxed)).sum()
    }

    pub(super) fn end(self) {
        self.tell_all(|| Message::End);
        for (_, handle) in self.threads {
            if handle.join().is_err() {
                tracing::error!("a load thread panicked");
            }
        }
    }
}

/// A member and its connections.
struct Occupied {
    member: Member,
    socket: UdpSocket,
    port: u16,
    channel: Option<Channel>,
    /// When it is next in the list of deadlines.
    due: Option<Instant>,
}

/// What is counted since the mark.
#[derive(Default)]
struct Count {
    marked: Option<(Instant, u64)>,
    left: Found,
    left_senders: SendStats,
    samples: Vec<Sample>,
    before: (u64, u64, u64),
    received: u64,
    sent: u64,
    milestones: Vec<Milestones>,
    profiles: BTreeMap<&'static str, u32>,
    overflow: u64,
    delays: Histogram,
}

struct Thread {
    around: Around,
    seats: Vec<Occupied>,
    /// What all ask for since it last changed, newcomers too.
    height: Option<u16>,
    /// Deadlines and whose; those that have moved since are skipped.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    batch: Batch,
    runtime: Handle,
    messages: mpsc::Sender<Message>,
    gauges: Arc<Gauges>,
    count: Count,
}

impl Thread {
    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        // The default is to wake up 50 us late.
        if let Err(error) = nix::sys::prctl::set_timerslack(1) {
            tracing::debug!(%error, "timer slack");
        }
        let mut look = Instant::now();
        let mut gauges = look;
        loop {
            while let Ok(message) = messages.try_recv() {
                if !self.handle(message) {
                    return;
                }
            }
            let now = Instant::now();
            self.run_due(now);
            if now >= look {
                let taken = self.receive();
                let after = Instant::now();
                // Sockets that mostly have nothing do not take more than half of
                // the time; those that have are looked at as soon as it pays.
                let nap = match taken >= self.seats.len() {
                    true => NAP,
                    false => NAP.max(after - now),
                };
                look = after + nap;
                if after >= gauges {
                    gauges = after + GAUGES;
                    self.show();
                }
                self.sample(after);
            }
            let next = self.next_due().map_or(look, |due| due.min(look));
            let now = Instant::now();
            if next > now {
                std::thread::sleep(next - now);
            }
        }
    }

    fn handle(&mut self, message: Message) -> bool {
        let now = Instant::now();
        match message {
            Message::Join(member, socket, url) => self.join(now, *member, socket, url),
            Message::Channel(seat, event) => {
                let found = self.seats.iter().position(|s| s.member.seat == seat);
                let Some(index) = found else { return true };
                let member = &mut self.seats[index].member;
                match event {
                    ChannelEvent::Opened => member.handle_channel_open(now),
                    ChannelEvent::Closed => member.handle_channel_closed(),
                    ChannelEvent::Text(text) => member.handle_channel_text(&text),
                }
                self.flush(index);
            }
            Message::Height(height) => {
                self.height = Some(height);
                for index in 0..self.seats.len() {
                    let member = &mut self.seats[index].member;
                    member.set_height(now, height, &self.around);
                    self.flush(index);
                }
            }
            Message::Mark(answer) => {
                self.mark(now);
                let _ = answer.send(now);
            }
            Message::Leave(seat) => {
                let found = self.seats.iter().position(|s| s.member.seat == seat);
                if let Some(index) = found {
                    self.leave(now, index);
                }
            }
            Message::Close(answer) => {
                let _ = answer.send(self.close(now));
            }
            Message::End => return false,
        }
        true
    }

    fn join(&mut self, now: Instant, mut member: Member, socket: UdpSocket, url: Option<String>) {
        if let Some(height) = self.height {
            member.set_height(now, height, &self.around);
        }
        let channel = url.map(|url| {
            let (messages, seat) = (self.messages.clone(), member.seat);
            let tell = move |event| {
                // A thread that has ended needs nothing more.
                let _ = messages.send(Message::Channel(seat, event));
            };
            Channel::open(&self.runtime, url, 0, tell)
        });
        let port = socket.local_addr().map_or(0, |address| address.port());
        self.seats.push(Occupied {
            member,
            socket,
            port,
            channel,
            due: None,
        });
        let index = self.seats.len() - 1;
        self.seats[index]
            .member
            .handle_timeout(now, &mut self.around);
        self.flush(index);
    }

    /// The seat at `index` goes; the last one takes its place.
    fn leave(&mut self, now: Instant, index: usize) {
        let mut seat = self.seats.swap_remove(index);
        self.around.sent.end(seat.member.seat);
        self.count.overflow += process::dropped_datagrams(&[seat.port].into());
        self.count.left.add(&seat.member.close(now, &self.around));
        self.count.left_senders.add(&seat.member.send_stats());
        self.note(&seat.member);
        if let Some(moved) = self.seats.get_mut(index) {
            // Its deadline is in the list under its former number.
            moved.due = None;
            self.flush(index);
        }
    }

    fn note(&mut self, member: &Member) {
        self.count.milestones.push(member.milestones);
        if let Some(profile) = member.profile() {
            *self.count.profiles.entry(profile).or_default() += 1;
        }
    }

    fn mark(&mut self, now: Instant) {
        for seat in &mut self.seats {
            seat.member.mark(now, &self.around);
        }
        let ports = self.ports();
        let overflow = process::dropped_datagrams(&ports);
        self.around.delays = Histogram::default();
        self.around.lateness = Histogram::default();
        self.count = Count {
            marked: Some((now, thread_cpu_ns())),
            before: (
                self.around.received,
                self.around.transmitted,
                thread_cpu_ns(),
            ),
            received: self.around.received,
            sent: self.around.transmitted,
            // Those that happened before do not count.
            overflow: 0u64.wrapping_sub(overflow),
            ..Count::default()
        };
    }

    fn ports(&self) -> BTreeSet<u16> {
        self.seats.iter().map(|seat| seat.port).collect()
    }

    fn sample(&mut self, now: Instant) {
        let Some((marked, _)) = self.count.marked else {
            return;
        };
        let next = marked + SAMPLE * (self.count.samples.len() as u32 + 1);
        if now >= next {
            self.take_sample(now);
        }
    }

    fn take_sample(&mut self, now: Instant) {
        let reached = (
            self.around.received,
            self.around.transmitted,
            thread_cpu_ns(),
        );
        let before = std::mem::replace(&mut self.count.before, reached);
        let delays = std::mem::take(&mut self.around.delays);
        self.count.delays.merge(&delays);
        self.count.samples.push(Sample {
            end: now,
            received: reached.0 - before.0,
            sent: reached.1 - before.1,
            delays,
            cpu_ns: reached.2 - before.2,
        });
    }

    fn close(&mut self, now: Instant) -> Taken {
        let last = self.count.samples.last().map(|sample| sample.end);
        let since = last.or(self.count.marked.map(|marked| marked.0));
        if since.is_some_and(|since| now >= since + SAMPLE / 2) {
            self.take_sample(now);
        }
        let cpu = thread_cpu_ns();
        let (begin, cpu_before) = self.count.marked.unwrap_or((now, cpu));
        let (received, sent) = (self.around.received, self.around.transmitted);
        let mut found = std::mem::take(&mut self.count.left);
        let mut senders = self.count.left_senders;
        for index in 0..self.seats.len() {
            let member = &mut self.seats[index].member;
            found.add(&member.close(now, &self.around));
            senders.add(&member.send_stats());
            self.count.milestones.push(member.milestones);
            if let Some(profile) = member.profile() {
                *self.count.profiles.entry(profile).or_default() += 1;
            }
        }
        let overflow = process::dropped_datagrams(&self.ports());
        let mut count = std::mem::take(&mut self.count);
        count.delays.merge(&self.around.delays);
        Taken {
            begin,
            end: now,
            cpu_ns: cpu - cpu_before,
            received: received - count.received,
            sent: sent - count.sent,
            delays: count.delays,
            lateness: std::mem::take(&mut self.around.lateness),
            found,
            senders,
            samples: count.samples,
            milestones: count.milestones,
            profiles: count.profiles,
            overflow: count.overflow.wrapping_add(overflow),
        }
    }

    fn show(&self) {
        let count = |of: &dyn Fn(&Member) -> bool| {
            self.seats.iter().filter(|seat| of(&seat.member)).count() as u64
        };
        let gauges = &self.gauges;
        gauges.members.store(self.seats.len() as u64, Relaxed);
        let ready = count(&|member| member.progress() == Progress::Ready);
        gauges.connected.store(ready, Relaxed);
        gauges.complete.store(count(&Member::is_complete), Relaxed);
        gauges.hearing.store(count(&Member::hears_all), Relaxed);
        let failed = count(&|member| member.progress() == Progress::Failed);
        gauges.failed.store(failed, Relaxed);
        gauges.received.store(self.around.received, Relaxed);
    }

    /// Looks at all sockets. Returns the messages that there were.
    fn receive(&mut self) -> usize {
        let mut all = 0;
        for index in 0..self.seats.len() {
            for _ in 0..ROUNDS {
                let seat = &mut self.seats[index];
                let (member, around) = (&mut seat.member, &mut self.around);
                let mut quiet = true;
                let taken = self.batch.receive(&seat.socket, |at, from, datagram| {
                    quiet &= member.handle_datagram(at, from, datagram, around);
                });
                let Ok(taken) = taken else { break };
                all += taken.count;
                if !quiet {
                    self.flush(index);
                }
                self.run_due(Instant::now());
                if taken.count < BATCH {
                    break;
                }
            }
        }
        all
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Does what has come due.
    fn run_due(&mut self, now: Instant) {
        while let Some(Reverse((due, index))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let Some(seat) = self.seats.get_mut(index) else {
                continue;
            };
            if seat.due != Some(due) {
                continue;
            }
            seat.due = None;
            seat.member.handle_timeout(now, &mut self.around);
            self.flush(index);
        }
    }

    /// Sends what a member has to send, and notes when it is due next.
    fn flush(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        while let Some((to, datagram)) = seat.member.poll_transmit() {
            if let Err(error) = seat.socket.send_to(&datagram, to) {
                tracing::debug!(%error, "datagram not sent");
            }
        }
        while let Some(text) = seat.member.poll_text() {
            if let Some(channel) = &seat.channel {
                channel.send(text);
            }
        }
        let due = seat.member.next_due();
        if let Some(due) = due
            && seat.due.is_none_or(|noted| due < noted)
        {
            seat.due = Some(due);
            self.due.push(Reverse((due, index)));
        }
    }
}

/// CPU time of this thread.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| time.num_nanoseconds().unsigned_abs())
}
