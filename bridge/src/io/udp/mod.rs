//! The media port: UDP sockets of all workers, read and written in batches.
//!
//! Each worker has a socket of its own for each local address, all on one port
//! (SO_REUSEPORT); the kernel spreads peers over them, and is told whose they are.
//!
//! Receiving: up to 64 datagrams a system call. Sending: what goes to one
//! receiver in datagrams of one size (the last may be shorter) becomes one
//! message that the kernel or the device cuts up (UDP_SEGMENT), and up to 64
//! messages a call. Nothing ever blocks: what the kernel has no room for is
//! dropped and counted. The only `unsafe` of the bridge is here.

#![allow(unsafe_code)]

mod call;
mod open;
mod steering;
mod waker;
mod watch;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use call::{BATCH, Call, Intake, MAX_MESSAGE, MAX_SEGMENTS};
pub use open::OpenError;
use open::{Claim, fragment};
pub use steering::{Steering, replaces_safely};
pub use waker::Waker;
use watch::{Ready, Watch};

use crate::outbox::{Entry, Outbox};

/// What the sockets of a worker have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Messages they were sent in: fewer, where segments could be used.
    pub messages: u64,
    /// Those of them that had several segments, and how many segments.
    pub segmented_messages: u64,
    pub segments: u64,
    /// Datagrams for which the kernel had no room.
    pub send_no_room: u64,
    /// Datagrams the kernel refused: no route, a filter, an odd address.
    pub send_refused: u64,
    /// Datagrams that were received, of whatever kind.
    pub received: u64,
    /// Those of them that were too long to be meant for us.
    pub receive_too_long: u64,
    /// Attempts to receive that failed for the socket's sake.
    pub receive_failed: u64,
}

impl Counters {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.messages += other.messages;
        self.segmented_messages += other.segmented_messages;
        self.segments += other.segments;
        self.send_no_room += other.send_no_room;
        self.send_refused += other.send_refused;
        self.received += other.received;
        self.receive_too_long += other.receive_too_long;
        self.receive_failed += other.receive_failed;
    }
}

/// Whether RTCP that comes ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    Wakes,
    /// It lies until something else ends the wait. Only where the kernel takes it
    /// to sockets of its own, and not elsewhere.
    Waits,
}

/// The sockets of one worker.
#[derive(Debug)]
pub struct Sockets {
    /// Those for RTCP alone come last.
    sockets: Vec<Bound>,
    /// The kernel takes RTCP to those, and nothing else.
    apart: bool,
    /// At the last attempt to receive: something came that is not RTCP, and how much
    /// RTCP did.
    media_came: bool,
    reports_came: usize,
    waker: Waker,
    watch: Watch,
    intake: Box<Intake>,
    call: Box<Call>,
    /// Datagrams to send, those of one receiver next to each other.
    order: Vec<(u64, u32)>,
    /// Where receiving goes on, so that no socket can starve another.
    turn: usize,
    counters: Counters,
    _claim: Arc<Claim>,
}

#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    local: SocketAddr,
    /// There may be something to receive.
    readable: bool,
    /// The last attempt to receive failed.
    failing: bool,
    /// Whether messages of several segments are worth a try.
    segments: bool,
    /// No datagram has been too long for its path: see [`fragment`].
    whole: bool,
    /// For RTCP, once the kernel is told.
    feedback: bool,
}

impl Sockets {
    /// The addresses of the sockets, with the port that was chosen.
    pub fn locals(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.media().map(|s| s.local)
    }

    fn media(&self) -> impl Iterator<Item = &Bound> {
        self.sockets.iter().filter(|s| !s.feedback)
    }

    /// The kernel takes RTCP to sockets of its own from now on.
    pub fn set_apart(&mut self) {
        self.apart = true;
    }

    /// Whether something came, at the last attempt to receive, that is not known to
    /// be RTCP.
    pub fn media_came(&self) -> bool {
        self.media_came
    }

    /// How many datagrams came, at the last attempt to receive, that are RTCP.
    pub fn reports_came(&self) -> usize {
        self.reports_came
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many sockets could not be received from at the last attempt.
    pub fn failing(&self) -> usize {
        self.sockets.iter().filter(|s| s.failing).count()
    }

    /// Waits until there is something to receive, the waker was used, or about
    /// `timeout` is over from `now` on. Whether the waker was used.
    pub fn wait(&mut self, now: Instant, timeout: Duration, feedback: Feedback) -> bool {
        let (sockets, mut woken) = (&mut self.sockets, false);
        let note = |ready| match ready {
            Ready::Socket(at) => sockets[at].readable = true,
            Ready::Waker => woken = true,
            Ready::Timer => {}
        };
        if self.apart && feedback == Feedback::Waits {
            self.watch.wait_for_media(timeout).for_each(note);
            // To be looked at whatever ended the wait.
            let waiting = self.sockets.iter_mut().filter(|s| s.feedback);
            waiting.for_each(|s| s.readable = true);
        } else {
            self.watch.wait(now, timeout).for_each(note);
        }
        if woken {
            self.waker.reset();
        }
        woken
    }

    /// Hands each datagram that waits to `take`, with the local address and its
    /// sender's, but not more than `limit`. Answers how many there were.
    pub fn receive(
        &mut self,
        limit: usize,
        mut take: impl FnMut(SocketAddr, SocketAddr, &mut [u8]),
    ) -> usize {
        let mut taken = 0;
        (self.media_came, self.reports_came) = (false, 0);
        let count = self.sockets.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let socket = &mut self.sockets[at];
            while socket.readable && taken < limit {
                let room = BATCH.min(limit - taken);
                let received =
                    self.intake
                        .receive(&socket.socket, room, |from, datagram| match datagram {
                            Some(datagram) => take(socket.local, from, datagram),
                            None => self.counters.receive_too_long += 1,
                        });
                socket.failing = received.is_none();
                self.counters.receive_failed += u64::from(socket.failing);
                let received = received.unwrap_or(0);
                self.counters.received += received as u64;
                taken += received;
                match self.apart && socket.feedback {
                    true => self.reports_came += received,
                    false => self.media_came |= received > 0,
                }
                // Fewer than there was room for: the queue is empty, and what comes
                // from now on is told.
                socket.readable = received == room;
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        taken
    }

    /// Sends all that is in the outbox, each datagram from the address it
    /// names, and empties it.
    pub fn send(&mut self, outbox: &mut Outbox) {
        let entries = outbox.entries();
        self.order.clear();
        self.order.extend(
            entries
                .iter()
                .zip(0..)
                .map(|(entry, index)| (receiver_key(entry), index)),
        );
        self.order.sort_unstable();
        let mut start = 0;
        while let Some(&(_, first)) = self.order.get(start) {
            let from = entries[first as usize].from;
            let of_socket = |&(_, index): &(u64, u32)| entries[index as usize].from == from;
            let len = self.order[start..]
                .iter()
                .take_while(|o| of_socket(o))
                .count();
            let run = &self.order[start..start + len];
            start += len;
            match self.sockets.iter_mut().find(|s| s.local == from) {
                Some(socket) => socket.send(outbox, run, &mut self.call, &mut self.counters),
                None => self.counters.send_refused += len as u64,
            }
        }
        outbox.clear();
    }
}

/// Sorts datagrams by socket and receiver. Two receivers may share a key: it
/// only costs them a few messages more.
fn receiver_key(entry: &Entry) -> u64 {
    let fold = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(17)
        }
    };
    let from = fold(entry.from).wrapping_mul(0x9e37_79b9_7f4a_7c15) << 48;
    let to = fold(entry.to).rotate_left(16) ^ u64::from(entry.to.port());
    from | to & 0xffff_ffff_ffff
}

impl Bound {
    /// Sends datagrams of one socket.
    fn send(
        &mut self,
        outbox: &Outbox,
        mut run: &[(u64, u32)],
        call: &mut Call,
        counters: &mut Counters,
    ) {
        while !run.is_empty() {
            call.clear();
            let mut taken = 0;
            while call.has_room() {
                let segments = match self.segments {
                    true => segments(outbox, &run[taken..]),
                    false => run[taken..].len().min(1),
                };
                if segments == 0 {
                    break;
                }
                call.add(outbox, &run[taken..taken + segments]);
                taken += segments;
            }
            self.send_batch(outbox, &run[..taken], call, counters);
            run = &run[taken..];
        }
    }

    /// Sends what `call` was filled with from `run`.
    fn send_batch(
        &mut self,
        outbox: &Outbox,
        mut run: &[(u64, u32)],
        call: &mut Call,
        counters: &mut Counters,
    ) {
        let mut next = 0;
        while next < call.messages {
            let error = match call.send(&self.socket, next) {
                Ok(sent) => {
                    let mut datagrams = 0;
                    for &count in &call.segments[next..next + sent] {
                        datagrams += count;
                        counters.segmented_messages += u64::from(count > 1);
                        counters.segments += if count > 1 { count as u64 } else { 0 };
                    }
                    counters.messages += sent as u64;
                    counters.sent += datagrams as u64;
                    run = &run[datagrams..];
                    next += sent;
                    continue;
                }
                Err(error) => error.raw_os_error(),
            };
            let (message, rest) = run.split_at(call.segments[next]);
            match error {
                Some(libc::EINTR) => continue,
                // The socket's buffer is full: so it is for the rest.
                Some(libc::EAGAIN) => {
                    counters.send_no_room += run.len() as u64;
                    return;
                }
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    counters.send_no_room += message.len() as u64;
                }
                Some(libc::EMSGSIZE) if self.whole => {
                    self.allow_fragments();
                    continue;
                }
                // The device cannot take segments (EIO), or these are too long
                // for the path (EINVAL, EMSGSIZE): one by one, then.
                _ if message.len() > 1 => {
                    self.segments &= error != Some(libc::EIO);
                    for &(_, index) in message {
                        self.send_alone(outbox, &outbox.entries()[index as usize], counters);
                    }
                }
                _ => counters.send_refused += 1,
            }
            run = rest;
            next += 1;
        }
    }

    fn allow_fragments(&mut self) {
        fragment(&self.socket, true);
        self.whole = false;
    }

    fn send_alone(&mut self, outbox: &Outbox, entry: &Entry, counters: &mut Counters) {
        let mut sent = self.socket.send_to(outbox.datagram(entry), entry.to);
        let error = sent.as_ref().err().and_then(io::Error::raw_os_error);
        if error == Some(libc::EMSGSIZE) && self.whole {
            self.allow_fragments();
            sent = self.socket.send_to(outbox.datagram(entry), entry.to);
        }
        match sent {
            Ok(_) => {
                counters.messages += 1;
                counters.sent += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => counters.send_no_room += 1,
            Err(_) => counters.send_refused += 1,
        }
    }
}

/// How many datagrams at the start of `run` can be one message: for one
/// receiver, and all of one size but the last, which may be shorter.
fn segments(outbox: &Outbox, run: &[(u64, u32)]) -> usize {
    let entry = |&(_, index): &(u64, u32)| &outbox.entries()[index as usize];
    let Some(first) = run.first().map(entry) else {
        return 0;
    };
    let size = outbox.datagram(first).len();
    let most = MAX_SEGMENTS.min(MAX_MESSAGE / size.max(1)).max(1);
    let mut count = 1;
    for next in run.iter().take(most).skip(1).map(entry) {
        let len = outbox.datagram(next).len();
        if (next.to, next.from) != (first.to, first.from) || len > size || len == 0 {
            break;
        }
        count += 1;
        if len < size {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::os::fd::AsRawFd;

    use super::call::DATAGRAM;
    use super::*;

    pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// A worker's sockets as the bridge has them: RTCP is kept apart.
    fn open(addresses: &[SocketAddr]) -> Sockets {
        let mut sockets = Sockets::open(addresses, 1, true).expect("free ports");
        Steering::new(&mut sockets, false).expect("a kernel that takes programs");
        sockets.into_iter().next().expect("one worker")
    }

    fn open_one(address: SocketAddr) -> (Sockets, SocketAddr) {
        let one = open(&[address]);
        let local = one.locals().next().expect("one address");
        (one, local)
    }

    pub(super) fn peer() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind(LOOPBACK).expect("a free port");
        let timeout = Some(Duration::from_secs(5));
        socket.set_read_timeout(timeout).expect("a valid timeout");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn next(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 70_000];
        let len = socket.recv(&mut buffer).expect("a datagram");
        buffer[..len].to_vec()
    }

    #[test]
    fn datagrams_come_with_both_addresses() {
        let (mut sockets, local) = open_one(LOOPBACK);
        let (one, one_address) = peer();
        let (two, two_address) = peer();
        for i in 0..70u8 {
            one.send_to(&[1, i], local).expect("room");
        }
        two.send_to(&[2; DATAGRAM + 1], local).expect("room");
        two.send_to(&[2; DATAGRAM], local).expect("room");
        sockets.wait(Instant::now(), Duration::from_secs(5), Feedback::Wakes);
        let mut got = Vec::new();
        let mut take = |to, from, datagram: &mut [u8]| got.push((to, from, datagram.to_vec()));
        assert_eq!(sockets.receive(65, &mut take), 65);
        assert_eq!(sockets.receive(65, &mut take), 7);
        assert_eq!(sockets.receive(65, &mut take), 0);
        let expected = (0..70).map(|i| (local, one_address, vec![1, i])).chain([(
            local,
            two_address,
            vec![2; DATAGRAM],
        )]);
        assert_eq!(got, expected.collect::<Vec<_>>());
        assert_eq!(sockets.counters().receive_too_long, 1);
    }

    /// Interleaved as a fan-out makes them, sizes falling and rising.
    #[test]
    fn each_receiver_gets_its_datagrams_in_order_in_few_messages() {
        let (mut sockets, local) = open_one(LOOPBACK);
        let peers: Vec<_> = (0..5).map(|_| peer()).collect();
        let sizes = [900, 900, 900, 700, 900, 1100, 1100, 60];
        let mut outbox = Outbox::default();
        for (i, size) in sizes.into_iter().enumerate() {
            for (j, (_, to)) in peers.iter().enumerate() {
                let content = u8::try_from(i * 16 + j).expect("small");
                outbox.push(local, *to, &vec![content; size]);
            }
        }
        sockets.send(&mut outbox);
        assert!(outbox.is_empty());
        for (j, (peer, _)) in peers.iter().enumerate() {
            for (i, size) in sizes.into_iter().enumerate() {
                let content = u8::try_from(i * 16 + j).expect("small");
                assert_eq!(next(peer), vec![content; size]);
            }
        }
        let counters = sockets.counters();
        assert_eq!(counters.sent, 40);
        // 900 900 900 700 | 900 | 1100 1100 60
        assert_eq!(counters.messages, 15);
        assert_eq!((counters.segmented_messages, counters.segments), (10, 35));
    }

    #[test]
    fn a_long_run_is_cut_where_the_kernel_wants() {
        let (mut sockets, local) = open_one(LOOPBACK);
        let (peer, to) = peer();
        let mut outbox = Outbox::default();
        for i in 0..80u8 {
            outbox.push(local, to, &[i; 1200]);
        }
        sockets.send(&mut outbox);
        for i in 0..80u8 {
            assert_eq!(next(&peer), [i; 1200]);
        }
        // 65507 / 1200 = 54
        assert_eq!(sockets.counters().messages, 2);
    }

    #[test]
    fn what_cannot_be_sent_costs_nobody_else() {
        let (mut sockets, local) = open_one(LOOPBACK);
        let (peer, to) = peer();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let foreign = SocketAddr::from(([127, 0, 0, 9], 9));
        let mut outbox = Outbox::default();
        outbox.push(local, nowhere, b"port 0");
        outbox.push(local, nowhere, b"again!");
        outbox.push(local, to, b"arrives");
        outbox.push(foreign, to, b"from an address that is not ours");
        // Segments that do not fit an MTU are refused; alone they are
        // fragments.
        outbox.push(local, to, &[7; 65_000]);
        outbox.push(local, to, &[8; 65_000]);
        sockets.send(&mut outbox);
        let got = [next(&peer), next(&peer), next(&peer)];
        assert_eq!(got.map(|d| d[0]), [b'a', 7, 8]);
        let counters = sockets.counters();
        assert_eq!((counters.sent, counters.send_refused), (3, 3));
    }

    #[test]
    fn several_addresses_share_one_port() {
        let second = SocketAddr::from(([127, 0, 0, 2], 0));
        let mut sockets = open(&[LOOPBACK, second]);
        let locals: Vec<_> = sockets.locals().collect();
        assert_eq!(locals[0].port(), locals[1].port());
        let (peer, address) = peer();
        for local in &locals {
            peer.send_to(b"to you", local).expect("room");
        }
        let mut outbox = Outbox::default();
        sockets.wait(Instant::now(), Duration::from_secs(5), Feedback::Wakes);
        sockets.receive(64, |local, from, datagram| {
            assert_eq!(from, address);
            outbox.push(local, from, datagram);
        });
        sockets.send(&mut outbox);
        let mut from: Vec<_> = (0..2)
            .map(|_| peer.recv_from(&mut [0; 16]).expect("an answer").1)
            .collect();
        from.sort();
        assert_eq!(from, locals);
    }

    #[test]
    fn ipv6_works_where_there_is_any() {
        let any = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let Ok(peer) = UdpSocket::bind(any) else {
            return;
        };
        let (mut sockets, local) = open_one(any);
        let to = peer.local_addr().expect("bound");
        let mut outbox = Outbox::default();
        outbox.push(local, to, b"one");
        outbox.push(local, to, b"two");
        sockets.send(&mut outbox);
        assert_eq!([next(&peer), next(&peer)], [b"one", b"two"]);
        peer.send_to(b"back", local).expect("room");
        sockets.wait(Instant::now(), Duration::from_secs(5), Feedback::Wakes);
        let mut senders = Vec::new();
        sockets.receive(64, |_, from, _| senders.push(from));
        assert_eq!(senders, [to]);
    }

    #[test]
    fn a_broken_socket_shows_and_the_others_go_on() {
        let second = SocketAddr::from(([127, 0, 0, 2], 0));
        let mut sockets = open(&[LOOPBACK, second]);
        let locals: Vec<_> = sockets.locals().collect();
        let (peer, _) = peer();
        peer.send_to(b"still here", locals[1]).expect("room");
        let null = File::open("/dev/null").expect("it is there");
        // SAFETY: no pointers; both descriptors are open.
        let dup = unsafe { libc::dup2(null.as_raw_fd(), sockets.sockets[0].socket.as_raw_fd()) };
        assert!(dup >= 0);
        sockets.wait(Instant::now(), Duration::from_secs(5), Feedback::Wakes);
        let mut got = Vec::new();
        sockets.receive(64, |local, _, datagram| {
            got.push((local, datagram.to_vec()))
        });
        assert_eq!(got, [(locals[1], b"still here".to_vec())]);
        assert_eq!(sockets.failing(), 1);
        assert_eq!(sockets.counters().receive_failed, 1);
    }

    #[test]
    fn a_wait_ends_by_waker_and_by_time() {
        let (mut sockets, _) = open_one(LOOPBACK);
        let waker = sockets.waker();
        let start = Instant::now();
        waker.wake();
        waker.wake();
        sockets.wait(Instant::now(), Duration::from_secs(60), Feedback::Wakes);
        sockets.wait(Instant::now(), Duration::from_millis(5), Feedback::Wakes);
        assert!(start.elapsed() >= Duration::from_millis(5));
        let thread = std::thread::spawn(move || waker.wake());
        sockets.wait(Instant::now(), Duration::from_secs(60), Feedback::Wakes);
        thread.join().expect("no panic");
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
