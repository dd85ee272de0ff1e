//! The media threads: each owns participants outright, with their sockets in one
//! epoll set and their deadlines in one list.
//!
//! A turn: what was posted, deadlines that have come, sockets that are readable,
//! each a batch. Deadlines are kept to the millisecond, so that those close to
//! each other cost one turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::BytesMut;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::runtime::Handle;
use viaduct_signalling::xml::Element;

use super::channel::{Channel, ChannelEvent};
use super::signalling::Stream;
use super::udp::{self, Batch};
use crate::client::participant::{Output, Participant};
use crate::report::outcome::{Departure, Outcome};
use crate::scenario::Scenario;

/// Sockets looked at in a turn.
const READY: usize = 128;
/// Batches taken of a socket in a turn.
const ROUNDS: usize = 4;
/// Posts taken in a turn.
const POSTS: usize = 256;
/// Longest sleep: everything that ends one is posted or a deadline.
const MAX_SLEEP: Duration = Duration::from_millis(500);
/// Who leaves stops to send that long before, so that nothing of it is lost on
/// the way.
const FAREWELL: Duration = Duration::from_millis(300);
/// Marks the waker among the sockets.
const WAKER: u64 = u64::MAX;

/// What happens to a participant from outside of its media.
#[derive(Debug)]
pub enum Input {
    Online,
    Offline(String),
    Stanza(Box<Element>),
    /// On the channel with that number.
    Channel(u32, ChannelEvent),
    MaxHeight(u16),
    StopSending,
    /// Stops to send and then leaves. `complete`: it had the time to take part
    /// in full.
    Leave {
        complete: bool,
    },
    /// Leaves at once; nothing counts since `end`.
    Finish {
        end: Instant,
    },
}

/// What the run sees of a participant meanwhile.
#[derive(Debug, Default)]
pub struct Status {
    pub connected: AtomicBool,
    /// Channel open too.
    pub complete: AtomicBool,
    pub failed: AtomicBool,
}

enum Message {
    Join(u16, Box<Participant>, Arc<Status>),
    Input(u16, Input),
    End,
}

/// The way to one participant.
#[derive(Clone)]
pub struct Post {
    thread: Mailbox,
    number: u16,
}

impl Post {
    pub fn send(&self, input: Input) {
        self.thread.send(Message::Input(self.number, input));
    }
}

#[derive(Clone)]
struct Mailbox {
    messages: mpsc::Sender<Message>,
    waker: Arc<EventFd>,
}

impl Mailbox {
    fn send(&self, message: Message) {
        // A thread that has ended needs nothing more.
        if self.messages.send(message).is_ok()
            && let Err(error) = self.waker.write(1)
        {
            tracing::warn!(%error, "waking a media thread");
        }
    }
}

/// Where participants that have gone are reported to.
pub type Outcomes = tokio::sync::mpsc::UnboundedSender<Outcome>;

/// The media threads of a run.
pub struct Media {
    threads: Vec<(Mailbox, JoinHandle<()>)>,
    packets: Arc<AtomicU64>,
}

impl Media {
    /// Starts `count` threads. `outcomes` gets one outcome a participant.
    pub fn start(count: usize, scenario: &Arc<Scenario>, outcomes: &Outcomes) -> Result<Self> {
        let packets = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for number in 0..count {
            let waker = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).context("eventfd")?;
            let (sender, messages) = mpsc::channel();
            let mailbox = Mailbox {
                messages: sender,
                waker: Arc::new(waker),
            };
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
            let readable = EpollEvent::new(EpollFlags::EPOLLIN, WAKER);
            epoll.add(&*mailbox.waker, readable).context("epoll")?;
            let around = Surroundings {
                scenario: scenario.clone(),
                runtime: Handle::current(),
                mailbox: mailbox.clone(),
                outcomes: outcomes.clone(),
                packets: packets.clone(),
            };
            let handle = std::thread::Builder::new()
                .name(format!("media-{number}"))
                .spawn(move || Thread::new(around, epoll).run(&messages))
                .context("starting a thread")?;
            threads.push((mailbox, handle));
        }
        Ok(Self { threads, packets })
    }

    /// Hands a participant over; it joins at once.
    pub fn join(&self, number: u16, participant: Participant) -> (Post, Arc<Status>) {
        let (mailbox, _) = &self.threads[usize::from(number) % self.threads.len()];
        let status = Arc::new(Status::default());
        let message = Message::Join(number, Box::new(participant), status.clone());
        mailbox.send(message);
        let post = Post {
            thread: mailbox.clone(),
            number,
        };
        (post, status)
    }

    /// Packets that all participants have received.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Ends the threads; participants that have not left by then just vanish.
    pub fn end(self) {
        for (mailbox, _) in &self.threads {
            mailbox.send(Message::End);
        }
        for (_, handle) in self.threads {
            if handle.join().is_err() {
                tracing::error!("a media thread panicked");
            }
        }
    }
}

struct Surroundings {
    scenario: Arc<Scenario>,
    runtime: Handle,
    mailbox: Mailbox,
    outcomes: Outcomes,
    packets: Arc<AtomicU64>,
}

/// One participant and its connections.
struct Seat {
    participant: Participant,
    status: Arc<Status>,
    stream: Stream,
    channel: Option<Channel>,
    channels: u32,
    socket: Option<UdpSocket>,
    /// Datagrams its sockets had no room for: of this one, of those before.
    overflow: (u32, u64),
    /// Its entry in the list of deadlines.
    due: Option<Instant>,
    leaves: Option<(Instant, bool)>,
}

struct Thread {
    around: Surroundings,
    epoll: Epoll,
    seats: BTreeMap<u16, Seat>,
    deadlines: BTreeSet<(Instant, u16)>,
    batch: Batch,
    /// Datagrams of the participant at hand that are to be sent.
    datagrams: Vec<(SocketAddr, BytesMut)>,
}

impl Thread {
    fn new(around: Surroundings, epoll: Epoll) -> Self {
        Self {
            around,
            epoll,
            seats: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            batch: Batch::default(),
            datagrams: Vec::new(),
        }
    }

    fn run(mut self, messages: &mpsc::Receiver<Message>) {
        let mut events = [EpollEvent::empty(); READY];
        loop {
            let mut posts = 0;
            for message in messages.try_iter().take(POSTS) {
                posts += 1;
                match message {
                    Message::Join(number, participant, status) => {
                        self.seat(number, *participant, status);
                    }
                    Message::Input(number, input) => self.input(number, input),
                    Message::End => return,
                }
            }
            let now = Instant::now();
            while let Some((due, number)) = self.deadlines.first().copied()
                && due <= now
            {
                self.deadlines.pop_first();
                self.fire(number, now);
            }
            let sleep = match self.deadlines.first() {
                _ if posts == POSTS => Duration::ZERO,
                Some((due, _)) => due.saturating_duration_since(now).min(MAX_SLEEP),
                None => MAX_SLEEP,
            };
            // Rounded up: a turn too early would find nothing due.
            let timeout = sleep.as_nanos().div_ceil(1_000_000) as u16;
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(timeout)) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "epoll");
                    return;
                }
            };
            for event in &events[..ready] {
                match event.data() {
                    // Read to lower the flag; what it stands for comes next turn.
                    WAKER => {
                        let _ = self.around.mailbox.waker.read();
                    }
                    number => self.readable(number as u16),
                }
            }
        }
    }

    fn seat(&mut self, number: u16, participant: Participant, status: Arc<Status>) {
        let post = self.post(number);
        let _entered = self.around.runtime.enter();
        let stream = Stream::open(self.around.scenario.clone(), post);
        let seat = Seat {
            participant,
            status,
            stream,
            channel: None,
            channels: 0,
            socket: None,
            overflow: (0, 0),
            due: None,
            leaves: None,
        };
        self.seats.insert(number, seat);
        self.serve(number);
    }

    fn post(&self, number: u16) -> Post {
        Post {
            thread: self.around.mailbox.clone(),
            number,
        }
    }

    fn input(&mut self, number: u16, input: Input) {
        let Some(seat) = self.seats.get_mut(&number) else {
            return;
        };
        let now = Instant::now();
        let participant = &mut seat.participant;
        match input {
            Input::Online => participant.handle_online(now),
            Input::Offline(text) => participant.handle_offline(text),
            Input::Stanza(stanza) => participant.handle_stanza(now, &stanza),
            Input::Channel(of, event) => {
                if seat.channel.as_ref().is_some_and(|open| open.number == of) {
                    match event {
                        ChannelEvent::Opened => participant.handle_channel_open(now),
                        ChannelEvent::Text(text) => participant.handle_channel_text(&text),
                        ChannelEvent::Closed => participant.handle_channel_closed(),
                    }
                }
            }
            Input::MaxHeight(height) => participant.set_max_height(now, height),
            Input::StopSending => participant.stop_sending(now),
            Input::Leave { complete } => {
                participant.stop_sending(now);
                seat.leaves = Some((now + FAREWELL, complete));
            }
            Input::Finish { end } => {
                return self.leave(number, end, true, true);
            }
        }
        self.serve(number);
    }

    fn fire(&mut self, number: u16, now: Instant) {
        let Some(seat) = self.seats.get_mut(&number) else {
            return;
        };
        seat.due = None;
        if let Some((_, complete)) = seat.leaves.filter(|(at, _)| now >= *at) {
            return self.leave(number, now, complete, false);
        }
        seat.participant.handle_timeout(now);
        self.serve(number);
    }

    fn readable(&mut self, number: u16) {
        let Some(seat) = self.seats.get_mut(&number) else {
            return;
        };
        let Some(socket) = &seat.socket else { return };
        let (mut packets, mut quiet) = (0, true);
        for _ in 0..ROUNDS {
            let participant = &mut seat.participant;
            let received = self.batch.receive(socket, |now, from, datagram| {
                quiet &= participant.handle_datagram(now, from, datagram);
            });
            match received {
                Ok(received) => {
                    packets += received.count;
                    seat.overflow.0 = received.overflow.unwrap_or(seat.overflow.0);
                    if received.count < udp::BATCH {
                        break;
                    }
                }
                // Nothing left, or an answer that a port is closed.
                Err(_) => break,
            }
        }
        let all = &self.around.packets;
        all.fetch_add(packets as u64, Ordering::Relaxed);
        if !quiet {
            self.serve(number);
        }
    }

    /// Carries out what a participant wants done, and notes its deadline.
    fn serve(&mut self, number: u16) {
        let post = self.post(number);
        let Some(seat) = self.seats.get_mut(&number) else {
            return;
        };
        while let Some(output) = seat.participant.poll() {
            match output {
                Output::Stanza(stanza) => {
                    if !seat.stream.send(stanza) {
                        tracing::debug!(number, "stanza dropped");
                    }
                }
                Output::Bind { ipv6 } => match bind(&self.epoll, number, ipv6) {
                    Ok((socket, local)) => {
                        // The former one leaves the epoll set by closing.
                        seat.socket = Some(socket);
                        seat.overflow = (0, seat.overflow.1 + u64::from(seat.overflow.0));
                        seat.participant.handle_bound(Instant::now(), local);
                    }
                    Err(error) => {
                        let failures = &mut seat.participant.failures;
                        failures.push(format!("UDP socket: {error}"));
                    }
                },
                Output::Datagram(to, datagram) => self.datagrams.push((to, datagram)),
                Output::OpenChannel(url) => {
                    seat.channels += 1;
                    let runtime = &self.around.runtime;
                    let (post, number) = (post.clone(), seat.channels);
                    let tell = move |event| post.send(Input::Channel(number, event));
                    seat.channel = Some(Channel::open(runtime, url, number, tell));
                }
                Output::ChannelText(text) => {
                    if let Some(channel) = &seat.channel {
                        channel.send(text);
                    }
                }
                Output::CloseChannel => seat.channel = None,
            }
        }
        match &seat.socket {
            Some(socket) if !self.datagrams.is_empty() => {
                self.batch.send(socket, &mut self.datagrams);
            }
            _ => self.datagrams.clear(),
        }
        let participant = &mut seat.participant;
        let connected = participant.connected();
        let complete = connected && participant.milestones.channel.is_some();
        seat.status.connected.store(connected, Ordering::Relaxed);
        seat.status.complete.store(complete, Ordering::Relaxed);
        let failed = !participant.failures.is_empty();
        seat.status.failed.store(failed, Ordering::Relaxed);
        let leaves = seat.leaves.map(|(at, _)| at);
        let due = participant.next_timeout().into_iter().chain(leaves).min();
        // A deadline that has moved back is found out when it fires.
        if let Some(due) = due
            && seat.due.is_none_or(|noted| due < noted)
        {
            if let Some(noted) = seat.due.replace(due) {
                self.deadlines.remove(&(noted, number));
            }
            self.deadlines.insert((due, number));
        }
    }

    fn leave(&mut self, number: u16, end: Instant, complete: bool, settled: bool) {
        let Some(mut seat) = self.seats.remove(&number) else {
            return;
        };
        if let Some(noted) = seat.due {
            self.deadlines.remove(&(noted, number));
        }
        seat.participant.leave();
        while let Some(output) = seat.participant.poll() {
            if let Output::Stanza(stanza) = output {
                seat.stream.send(stanza);
            }
        }
        seat.stream.close();
        let departure = Departure {
            end,
            complete,
            settled,
            overflow: u64::from(seat.overflow.0) + seat.overflow.1,
        };
        let outcome = Outcome::new(seat.participant, departure);
        // Nobody waits any more when the run was given up.
        let _ = self.around.outcomes.send(outcome);
    }
}

fn bind(epoll: &Epoll, number: u16, ipv6: bool) -> std::io::Result<(UdpSocket, SocketAddr)> {
    let (socket, local) = udp::bind(ipv6)?;
    let readable = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number));
    epoll.add(&socket, readable)?;
    Ok((socket, local))
}
