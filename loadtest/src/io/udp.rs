//! UDP in batches: `recvmmsg` with the kernel's time of arrival, so that a busy
//! harness does not look like a slow bridge, and `sendmmsg`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use nix::sys::socket::sockopt::{ReceiveTimestampns, RxqOvfl};
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

/// Room for a batch, shared by all sockets of a thread.
pub struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    sending: MultiHeaders<SockaddrStorage>,
    buffers: Box<[[u8; MAX_DATAGRAM]; BATCH]>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            headers: headers(),
            sending: MultiHeaders::preallocate(BATCH, None),
            buffers: Box::new([[0; MAX_DATAGRAM]; BATCH]),
        }
    }
}

fn headers() -> MultiHeaders<SockaddrStorage> {
    MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec, u32)))
}

/// What a socket gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub count: usize,
    /// Datagrams that it has had no room for so far, where the kernel says so.
    pub overflow: Option<u32>,
}

impl Batch {
    /// Takes what is queued on a socket, at most a batch, and hands each
    /// datagram out with the time it arrived.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(Instant, SocketAddr, &[u8]),
    ) -> io::Result<Received> {
        let mut slices = self.buffers.each_mut().map(|b| [IoSliceMut::new(b)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let messages = recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None)?;
        let clock = (Instant::now(), SystemTime::now());
        let (mut received, mut stale) = (Received::default(), false);
        for message in messages {
            received.count += 1;
            let noted = noted(&message, clock);
            stale |= noted.arrival.is_none();
            received.overflow = noted.overflow.or(received.overflow);
            let from = message.address.as_ref().and_then(address);
            if let (Some(from), Some(datagram)) = (from, message.iovs().next()) {
                each(noted.arrival.unwrap_or(clock.0), from, datagram);
            }
        }
        if stale {
            // A message that brought less than there is room for has made the
            // room smaller.
            self.headers = headers();
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
