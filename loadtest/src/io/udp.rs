//! UDP in batches: `recvmmsg` with the kernel's time of arrival, so that a busy
//! harness does not look like a slow bridge, and `sendmmsg`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::BytesMut;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns, RxqOvfl, UdpGroSegment};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrLike, SockaddrStorage, recvmmsg,
    sendmmsg, setsockopt,
};
use nix::sys::time::TimeSpec;

/// Datagrams of one system call.
pub const BATCH: usize = 32;
/// Larger than any datagram of a bridge.
const MAX_DATAGRAM: usize = 2048;
/// Socket buffer to ask for; the system may give less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A time of arrival further back is not believed: the clock was set.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A socket on any address and port; where it is bound.
pub fn bind(ipv6: bool) -> io::Result<(UdpSocket, SocketAddr)> {
    let any: SocketAddr = if ipv6 {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    // As much as the system allows: a key frame of each of many senders may
    // come while this program has no turn on the CPU.
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    setsockopt(&socket, RxqOvfl, &1)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// What the kernel is to do for the sockets of a load, beyond the ordinary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Kernel {
    /// Note times of arrival: exact delays, at some 20 ns a packet, in the
    /// sender's context.
    pub times: bool,
    /// Hand over runs of datagrams as they were sent (UDP_GRO): what the sender's
    /// segmentation put together is then never taken apart.
    pub gro: bool,
}

/// Moves the calling thread to a network namespace; sockets that it makes then
/// are there.
pub fn enter_network(name: &str) -> anyhow::Result<()> {
    let file = std::fs::File::open(format!("/run/netns/{name}")).with_context(|| {
        format!("--netns {name}: no such network namespace (ip netns add {name})")
    })?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("entering network namespace {name} (are you root?)"))
}

/// A socket for a load, at `address`.
pub fn bind_at(address: std::net::IpAddr, kernel: Kernel) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // Without the right to more than the system's limit: up to that.
        socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    if kernel.times {
        setsockopt(&socket, ReceiveTimestampns, &true)?;
    }
    if kernel.gro {
        setsockopt(&socket, UdpGroSegment, &true)?;
    }
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// Room for a batch, shared by all sockets of a thread.
pub struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    sending: MultiHeaders<SockaddrStorage>,
    /// Each of `size` octets.
    buffers: Vec<u8>,
    size: usize,
    /// Whether the kernel says anything beside the datagrams.
    notes: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self::of(MAX_DATAGRAM, true)
    }
}

fn headers(notes: bool) -> MultiHeaders<SockaddrStorage> {
    let room = notes.then(|| nix::cmsg_space!(TimeSpec, u32, i32));
    MultiHeaders::preallocate(BATCH, room)
}

/// What a socket gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub count: usize,
    /// Datagrams that it has had no room for so far, where the kernel says so.
    pub overflow: Option<u32>,
}

impl Batch {
    fn of(size: usize, notes: bool) -> Self {
        Self {
            headers: headers(notes),
            sending: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![0; size * BATCH],
            size,
            notes,
        }
    }

    /// For sockets of [`bind_at`].
    pub fn for_load(kernel: Kernel) -> Self {
        let size = if kernel.gro { 1 << 16 } else { MAX_DATAGRAM };
        Self::of(size, kernel.times || kernel.gro)
    }

    /// Takes what is queued on a socket, at most a batch, and hands each
    /// datagram out with the time it arrived.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(Instant, SocketAddr, &[u8]),
    ) -> io::Result<Received> {
        let mut parts = self.buffers.chunks_exact_mut(self.size);
        let mut slices: [_; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(parts.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let messages = recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None)?;
        let clock = (Instant::now(), SystemTime::now());
        let (mut received, mut stale) = (Received::default(), false);
        for message in messages {
            received.count += 1;
            let noted = match self.notes {
                true => noted(&message, clock),
                false => Noted::default(),
            };
            stale |= noted.arrival.is_none() || noted.segment.is_none() && self.size > MAX_DATAGRAM;
            received.overflow = noted.overflow.or(received.overflow);
            let from = message.address.as_ref().and_then(address);
            if let (Some(from), Some(datagrams)) = (from, message.iovs().next()) {
                let segment = noted.segment.unwrap_or(datagrams.len()).max(1);
                for datagram in datagrams.chunks(segment) {
                    each(noted.arrival.unwrap_or(clock.0), from, datagram);
                }
            }
        }
        if stale && self.notes {
            // A message that brought less than there is room for has made the
            // room smaller.
            self.headers = headers(true);
        }
        Ok(received)
    }

    /// Sends datagrams and empties the list. What the socket does not take is
    /// dropped, as a network would.
    pub fn send(&mut self, socket: &UdpSocket, datagrams: &mut Vec<(SocketAddr, BytesMut)>) {
        for part in datagrams.chunks(BATCH) {
            let mut rest = part;
            while !rest.is_empty() {
                let slices: Vec<[IoSlice<'_>; 1]> =
                    rest.iter().map(|(_, d)| [IoSlice::new(d)]).collect();
                let addresses: Vec<Option<SockaddrStorage>> =
                    rest.iter().map(|(to, _)| Some((*to).into())).collect();
                let fd = socket.as_raw_fd();
                let flags = MsgFlags::MSG_DONTWAIT;
                let sent = sendmmsg(fd, &mut self.sending, &slices, &addresses, [], flags);
                let sent = match sent {
                    Ok(results) => results.count().max(1),
                    Err(error) => {
                        tracing::debug!(%error, "datagram not sent");
                        1
                    }
                };
                rest = &rest[sent.min(rest.len())..];
            }
        }
        datagrams.clear();
    }
}

/// What the kernel noted of a datagram.
#[derive(Default)]
struct Noted {
    arrival: Option<Instant>,
    overflow: Option<u32>,
    /// Octets of each datagram of a run.
    segment: Option<usize>,
}

fn noted(message: &RecvMsg<'_, '_, SockaddrStorage>, (now, wall): (Instant, SystemTime)) -> Noted {
    let mut noted = Noted::default();
    let Ok(parts) = message.cmsgs() else {
        return noted;
    };
    for part in parts {
        match part {
            ControlMessageOwned::ScmTimestampns(time) => {
                let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
                let age = wall.saturating_sub(Duration::from(time));
                noted.arrival = now.checked_sub(age.min(MAX_AGE));
            }
            ControlMessageOwned::RxqOvfl(count) => noted.overflow = Some(count),
            ControlMessageOwned::UdpGroSegments(size) => noted.segment = usize::try_from(size).ok(),
            _ => {}
        }
    }
    noted
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some((v4.ip(), v4.port()).into()),
        (None, Some(v6)) => Some((v6.ip(), v6.port()).into()),
        (None, None) => {
            tracing::debug!(family = ?storage.family(), "no IP address");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_and_come_in_batches_with_their_time() {
        let (one, _) = bind(false).expect("a socket");
        let (other, local) = bind(false).expect("a socket");
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, local.port()).into();
        let mut batch = Batch::default();
        // The kernel begins to note times a little after the first socket asked.
        std::thread::sleep(Duration::from_millis(300));
        for round in 0..3u8 {
            let before = Instant::now();
            let count = BATCH as u8 + 5 * round;
            let mut datagrams = (0..count)
                .map(|n| (to, BytesMut::from(&[round, n, 7][..])))
                .collect();
            batch.send(&one, &mut datagrams);
            assert!(datagrams.is_empty());
            let sent = Instant::now();
            std::thread::sleep(Duration::from_millis(20));
            let mut got = Vec::new();
            while let Ok(taken) = batch.receive(&other, |at, from, datagram| {
                assert!(from.ip().is_loopback());
                // Clocks are read one after the other.
                let slack = Duration::from_millis(1);
                assert!(at + slack >= before && at <= sent + slack);
                got.push(datagram.to_vec());
            }) {
                assert!((1..=BATCH).contains(&taken.count) && taken.overflow.is_none());
            }
            let expected: Vec<Vec<u8>> = (0..count).map(|n| vec![round, n, 7]).collect();
            assert_eq!(got, expected);
        }
    }

    /// Of sockets of a load, with whatever the kernel does for them.
    #[test]
    fn runs_are_taken_apart() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        for (times, gro) in [(false, false), (true, false), (false, true), (true, true)] {
            let kernel = Kernel { times, gro };
            let (one, _) = bind_at(Ipv4Addr::LOCALHOST.into(), kernel).expect("a socket");
            let (other, to) = bind_at(Ipv4Addr::LOCALHOST.into(), kernel).expect("a socket");
            let mut batch = Batch::for_load(kernel);
            let mut expected = Vec::new();
            for round in 0..3u8 {
                let run: Vec<u8> = (0..5 * 100 + 30)
                    .map(|at| (at / 100) as u8 + round)
                    .collect();
                let (to, part) = (SockaddrStorage::from(to), [IoSlice::new(&run)]);
                let segments = [ControlMessage::UdpGsoSegments(&100)];
                sendmsg(
                    one.as_raw_fd(),
                    &part,
                    &segments,
                    MsgFlags::empty(),
                    Some(&to),
                )
                .expect("sent");
                one.send_to(&[9], other.local_addr().expect("bound"))
                    .expect("sent");
                expected.extend(run.chunks(100).map(<[u8]>::to_vec));
                expected.push(vec![9]);
            }
            std::thread::sleep(Duration::from_millis(20));
            let mut got = Vec::new();
            while batch
                .receive(&other, |_, _, datagram| got.push(datagram.to_vec()))
                .is_ok()
            {}
            assert_eq!(got, expected, "{kernel:?}");
        }
    }

    /// Who does not read in time learns what that cost.
    #[test]
    fn what_finds_no_room_is_counted() {
        let (one, _) = bind(false).expect("a socket");
        let (other, local) = bind(false).expect("a socket");
        let small = socket2::SockRef::from(&other).set_recv_buffer_size(10_000);
        small.expect("a size");
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, local.port()).into();
        let mut batch = Batch::default();
        let (mut taken, mut overflow) = (0, 0);
        let mut sent = 0;
        for _ in 0..3 {
            let mut datagrams = (0..200)
                .map(|_| (to, BytesMut::from(&[7; 1_000][..])))
                .collect();
            batch.send(&one, &mut datagrams);
            sent += 200;
            while let Ok(received) = batch.receive(&other, |_, _, _| {}) {
                taken += received.count;
                overflow = received.overflow.unwrap_or(overflow);
            }
        }
        // The last ones dropped are told with the next one that comes.
        assert!(overflow > 0 && taken + overflow as usize <= sent);
        assert!(taken + overflow as usize >= sent - 200);
    }
}
