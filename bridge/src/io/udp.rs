//! The media port: UDP sockets of all workers, read and written in batches.
//!
//! Each worker has a socket of its own for each local address, all on one port
//! (SO_REUSEPORT); the kernel spreads peers over them. It would spread them
//! over a second bridge of the same user, too, without a word. So the port is
//! claimed before: by a name that only one process of a network namespace can
//! hold, and by an attempt to bind it alone, which fails beside any other
//! program. The name is an abstract socket address and not a file: it has the
//! scope of a port, goes when its process does, and needs no directory.
//!
//! Receiving: up to 64 datagrams a system call. Sending: what goes to one
//! receiver in datagrams of one size (the last may be shorter) becomes one
//! message that the kernel or the device cuts up (UDP_SEGMENT), and up to 64
//! messages a call. Nothing ever blocks: what the kernel has no room for is
//! dropped and counted. The only `unsafe` of the bridge is here.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::outbox::{Entry, Outbox};

/// Datagrams a call of recvmmsg, messages a call of sendmmsg.
const BATCH: usize = 64;

/// Room for one received datagram; a longer one is dropped. Browsers send at
/// most 1200 octets of payload, an Ethernet frame holds 1500.
const DATAGRAM: usize = 2048;

/// Most segments of one message: UDP_MAX_SEGMENTS of Linux before 6.9.
const MAX_SEGMENTS: usize = 64;

/// Most octets of one message: what an IPv4 packet can hold.
const MAX_MESSAGE: usize = 65_507;

/// Pieces of all messages of one call.
const MAX_PIECES: usize = 512;

/// Room in the kernel for bursts; as in JVB (`ice4j` SO_RCVBUF).
const KERNEL_BUFFER: usize = 10 << 20;

/// `videobridge.ice.udp.port` or the addresses cannot be used: the operator's
/// fault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "UDP {address} is already in use by {holder}: stop it, or choose another port with \
         videobridge.ice.udp.port"
    )]
    InUse { address: SocketAddr, holder: String },
    #[error(
        "{address} is no address of this machine: choose others with \
         ice4j.harvest.allowed-addresses"
    )]
    NotHere { address: SocketAddr },
    #[error(
        "no permission for UDP {address}: choose a port above 1023 with videobridge.ice.udp.port"
    )]
    Denied { address: SocketAddr },
    #[error("cannot open UDP {address}: {source}")]
    Other {
        address: SocketAddr,
        source: io::Error,
    },
}

impl OpenError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::InUse {
                address,
                holder: holder(address).unwrap_or_else(|| "another program".to_owned()),
            },
            ErrorKind::AddrNotAvailable => Self::NotHere { address },
            ErrorKind::PermissionDenied => Self::Denied { address },
            _ => Self::Other { address, source },
        }
    }
}

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

/// The sockets of one worker.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Bound>,
    waker: Waker,
    polled: Vec<libc::pollfd>,
    buffers: Box<[[u8; DATAGRAM]; BATCH]>,
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
    readable: bool,
    /// The last attempt to receive failed.
    failing: bool,
    /// Whether messages of several segments are worth a try.
    segments: bool,
    /// No datagram has been too long for its path: see [`fragment`].
    whole: bool,
}

/// The names held while the port is ours.
#[derive(Debug)]
struct Claim {
    _names: Vec<UnixDatagram>,
}

/// Ends the wait of a worker from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<File>);

impl Waker {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Self(Arc::new(unsafe { File::from_raw_fd(fd) })))
    }

    /// Makes the worker's wait end, now or as soon as it begins.
    pub fn wake(&self) {
        // Fails only if 2^64 - 2 wakes are pending: it will wake, then.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    fn reset(&self) {
        let mut count = [0; 8];
        let _ = (&*self.0).read(&mut count);
    }
}

impl Sockets {
    /// Claims the port and opens the sockets of `workers` workers on each of
    /// `addresses`, which share one port. Port 0 takes any free one.
    pub fn open(addresses: &[SocketAddr], workers: usize) -> Result<Vec<Self>, OpenError> {
        let mut names = Vec::new();
        let mut locals = Vec::new();
        let mut alone = Vec::new();
        let mut chosen = None;
        for &address in addresses {
            let mut local = address;
            if local.port() == 0 {
                local.set_port(chosen.unwrap_or(0));
            }
            let error = |source| OpenError::new(local, source);
            let probe = bind(local, false).map_err(error)?;
            let local = probe.local_addr().map_err(error)?;
            chosen = Some(local.port());
            names.push(claim(local).map_err(|source| OpenError::new(local, source))?);
            locals.push(local);
            alone.push(probe);
        }
        // A socket that does not share its port would bar those that do.
        drop(alone);
        let claim = Arc::new(Claim { _names: names });
        let worker = |_| {
            let open = |&local| {
                let error = |source| OpenError::new(local, source);
                Ok(Bound {
                    socket: bind(local, true).map_err(error)?,
                    local,
                    readable: true,
                    failing: false,
                    segments: true,
                    whole: true,
                })
            };
            let waker = Waker::new().map_err(|source| OpenError::Other {
                address: locals[0],
                source,
            })?;
            Ok(Self {
                sockets: locals.iter().map(open).collect::<Result<_, _>>()?,
                waker,
                polled: Vec::new(),
                buffers: Box::new([[0; DATAGRAM]; BATCH]),
                call: Call::new(),
                order: Vec::new(),
                turn: 0,
                counters: Counters::default(),
                _claim: Arc::clone(&claim),
            })
        };
        (0..workers).map(worker).collect()
    }

    /// The addresses of the sockets, with the port that was chosen.
    pub fn locals(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|s| s.local)
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

    /// Waits until there is something to receive, the waker was used, or
    /// `timeout` is over.
    pub fn wait(&mut self, timeout: Duration) {
        let poll = |fd: &dyn AsRawFd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        self.polled.clear();
        self.polled
            .extend(self.sockets.iter().map(|s| poll(&s.socket)));
        self.polled.push(poll(&*self.waker.0));
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let count = libc::nfds_t::try_from(self.polled.len()).expect("few sockets");
        // SAFETY: `self.polled` holds `count` entries; the timeout outlives the call.
        let ready =
            unsafe { libc::ppoll(self.polled.as_mut_ptr(), count, &timeout, std::ptr::null()) };
        if ready <= 0 {
            return;
        }
        let mut ready = self.polled.iter().map(|p| p.revents != 0);
        for (socket, ready) in self.sockets.iter_mut().zip(&mut ready) {
            socket.readable |= ready;
        }
        if ready.next() == Some(true) {
            self.waker.reset();
        }
    }

    /// Hands each datagram that waits to `take`, with the local address and its
    /// sender's, but not more than `limit`. Answers how many there were.
    pub fn receive(
        &mut self,
        limit: usize,
        mut take: impl FnMut(SocketAddr, SocketAddr, &mut [u8]),
    ) -> usize {
        let mut taken = 0;
        let count = self.sockets.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let socket = &mut self.sockets[at];
            while socket.readable && taken < limit {
                let room = BATCH.min(limit - taken);
                let buffers = &mut self.buffers[..room];
                let received = self
                    .call
                    .receive(&socket.socket, buffers, |from, datagram| match datagram {
                        Some(datagram) => take(socket.local, from, datagram),
                        None => self.counters.receive_too_long += 1,
                    });
                socket.failing = received.is_none();
                self.counters.receive_failed += u64::from(socket.failing);
                let received = received.unwrap_or(0);
                self.counters.received += received as u64;
                taken += received;
                // Fewer than there was room for: the queue is empty.
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

/// What a call of sendmmsg or recvmmsg takes, kept from call to call so that
/// only what is used has to be written.
struct Call {
    headers: [libc::mmsghdr; BATCH],
    addresses: [libc::sockaddr_in6; BATCH],
    /// Room for a control message with a segment size, aligned for its header.
    controls: [[u64; CONTROL_WORDS]; BATCH],
    pieces: [libc::iovec; MAX_PIECES],
    /// Datagrams of each message to send.
    segments: [usize; BATCH],
    messages: usize,
    used_pieces: usize,
}

// SAFETY: its pointers are written before each call, from what the call is given
// and from this value itself, and not read after it.
unsafe impl Send for Call {}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

impl Call {
    fn new() -> Box<Self> {
        // SAFETY: all fields are integers, pointers and arrays of them, for
        // which zeros are valid.
        Box::new(unsafe { zeroed() })
    }

    fn clear(&mut self) {
        (self.messages, self.used_pieces) = (0, 0);
    }

    /// Whether any message would still fit.
    fn has_room(&self) -> bool {
        self.messages < BATCH && self.used_pieces + MAX_SEGMENTS <= MAX_PIECES
    }

    /// Adds a message of the datagrams in `run`. It is valid as long as the
    /// outbox is not written to.
    fn add(&mut self, outbox: &Outbox, run: &[(u64, u32)]) {
        let entry = |at: usize| &outbox.entries()[run[at].1 as usize];
        let pieces = &mut self.pieces[self.used_pieces..][..run.len()];
        for (at, piece) in pieces.iter_mut().enumerate() {
            let octets = outbox.datagram(entry(at));
            piece.iov_base = octets.as_ptr().cast_mut().cast();
            piece.iov_len = octets.len();
        }
        let header = &mut self.headers[self.messages].msg_hdr;
        let address = &mut self.addresses[self.messages];
        header.msg_namelen = encode(entry(0).to, address);
        header.msg_name = std::ptr::from_mut(address).cast();
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = run.len() as _;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        if run.len() > 1 {
            let size = u16::try_from(pieces[0].iov_len).expect("a segment is a datagram");
            header.msg_control = self.controls[self.messages].as_mut_ptr().cast();
            // SAFETY: the control message is aligned for its header and has room
            // for a value of two octets, so CMSG_FIRSTHDR points into it.
            unsafe {
                header.msg_controllen = libc::CMSG_SPACE(SEGMENT_SIZE_LEN) as _;
                let segment = libc::CMSG_FIRSTHDR(header);
                (*segment).cmsg_level = libc::SOL_UDP;
                (*segment).cmsg_type = libc::UDP_SEGMENT;
                (*segment).cmsg_len = libc::CMSG_LEN(SEGMENT_SIZE_LEN) as _;
                std::ptr::write_unaligned(libc::CMSG_DATA(segment).cast::<u16>(), size);
            }
        }
        self.segments[self.messages] = run.len();
        self.messages += 1;
        self.used_pieces += run.len();
    }

    /// Sends the messages from `first` on. Answers how many were taken, at
    /// least one, or why the first was not.
    fn send(&mut self, socket: &UdpSocket, first: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..self.messages];
        let count = u32::try_from(headers.len()).expect("a batch is small");
        // SAFETY: `count` headers were filled in by `add`. What they point to is
        // in `self` and in the outbox, which both outlive the call unchanged;
        // the kernel only reads it.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives what waits, into `buffers`. `take` gets `None` for a datagram
    /// that was too long. Answers how many there were; `None` if the socket
    /// cannot be received from.
    fn receive(
        &mut self,
        socket: &UdpSocket,
        buffers: &mut [[u8; DATAGRAM]],
        mut take: impl FnMut(SocketAddr, Option<&mut [u8]>),
    ) -> Option<usize> {
        let headers = &mut self.headers[..buffers.len()];
        for (((header, address), piece), buffer) in headers
            .iter_mut()
            .zip(&mut self.addresses)
            .zip(&mut self.pieces)
            .zip(buffers.iter_mut())
        {
            piece.iov_base = buffer.as_mut_ptr().cast();
            piece.iov_len = DATAGRAM;
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(address).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
        }
        let count = u32::try_from(headers.len()).expect("a batch is small");
        // SAFETY: `count` headers are filled in; each points to an address and a
        // buffer of the length it gives, which nothing else uses meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error().kind();
            // Nothing waits, or a signal came.
            let harmless = matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted);
            return harmless.then_some(0);
        };
        for ((header, address), buffer) in headers
            .iter()
            .zip(&self.addresses)
            .zip(buffers.iter_mut())
            .take(received)
        {
            let Some(from) = decode(address) else {
                continue;
            };
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let len = header.msg_len as usize;
            take(from, whole.then(|| &mut buffer[..len]));
        }
        Some(received)
    }
}

/// Octets of the value of UDP_SEGMENT.
const SEGMENT_SIZE_LEN: u32 = size_of::<u16>() as u32;
/// A control message with it: a header of 16 octets and 8 of data.
const CONTROL_WORDS: usize = 3;

/// Writes an address as the kernel wants it; answers its length. An IPv4
/// address takes the first part of the room of an IPv6 one.
fn encode(address: SocketAddr, room: &mut libc::sockaddr_in6) -> libc::socklen_t {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: address.ip().to_bits().to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_in is shorter than sockaddr_in6 and its
            // alignment is no stricter.
            unsafe {
                std::ptr::from_mut(room)
                    .cast::<libc::sockaddr_in>()
                    .write(v4)
            };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(address) => {
            *room = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Reads an address as the kernel writes it.
fn decode(room: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(room.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the family says what is there; both begin with it, and
            // sockaddr_in is shorter and aligned no stricter.
            let v4 = unsafe { &*std::ptr::from_ref(room).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(room.sin6_addr.s6_addr);
            let port = u16::from_be(room.sin6_port);
            // The flow label is no part of who the sender is.
            Some(SocketAddrV6::new(ip, port, 0, room.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn bind(local: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
        // The kernel grants what net.core.rmem_max and wmem_max allow.
        socket.set_recv_buffer_size(KERNEL_BUFFER)?;
        socket.set_send_buffer_size(KERNEL_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    let socket = socket.into();
    fragment(&socket, false);
    Ok(socket)
}

/// Lets the kernel cut up datagrams that are too long for their path, or not.
/// Without, it need not number each datagram for its fragments, a fortieth of
/// what a send costs. So that is left until a path proves to be so narrow:
/// media comes in packets of 1200 octets, but for tunnels in tunnels.
fn fragment(socket: &UdpSocket, allowed: bool) {
    let value = match allowed {
        true => libc::IP_PMTUDISC_WANT,
        false => libc::IP_PMTUDISC_DO,
    };
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(&value).cast();
    // SAFETY: the option's value is an integer, which outlives the call. An
    // IPv6 socket refuses it, and has no such numbers.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            pointer,
            len,
        );
    }
}

/// Takes the name of a port. Held by another process, it is in use.
fn claim(local: SocketAddr) -> io::Result<UnixDatagram> {
    let name = UnixAddr::from_abstract_name(format!("viaduct-bridge/udp/{local}"))?;
    UnixDatagram::bind_addr(&name)
}

/// The program that has a socket on this port, as far as we may see.
fn holder(address: SocketAddr) -> Option<String> {
    let table = match address {
        SocketAddr::V4(_) => "/proc/net/udp",
        SocketAddr::V6(_) => "/proc/net/udp6",
    };
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string(table).ok()?;
    let sockets: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&port)))
        .filter_map(|fields| Some(format!("socket:[{}]", fields.get(9)?)))
        .collect();
    let holds = |process: &Path| {
        let open = std::fs::read_dir(process.join("fd")).ok()?;
        open.flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|target| sockets.iter().any(|s| target.as_os_str() == s.as_str()))
            .then_some(())
    };
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            holds(&entry.path())?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some(format!("{} (process {pid})", name.trim()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn open_one(address: SocketAddr) -> (Sockets, SocketAddr) {
        let sockets = Sockets::open(&[address], 1).expect("a free port");
        let one = sockets.into_iter().next().expect("one worker");
        let local = one.locals().next().expect("one address");
        (one, local)
    }

    fn peer() -> (UdpSocket, SocketAddr) {
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
        sockets.wait(Duration::from_secs(5));
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
    fn workers_share_a_port_that_nobody_else_gets() {
        let workers = Sockets::open(&[LOOPBACK], 3).expect("a free port");
        let local = workers[0].locals().next().expect("one address");
        assert!(workers.iter().all(|w| w.locals().eq([local])));
        let refused = Sockets::open(&[local], 1).expect_err("in use");
        let text = refused.to_string();
        assert!(text.contains(&local.to_string()), "{text}");
        let me = format!("(process {})", std::process::id());
        assert!(text.contains(&me), "{text}");
        assert!(text.contains("videobridge.ice.udp.port"), "{text}");
        drop(workers);
        Sockets::open(&[local], 1).expect("free again");
    }

    #[test]
    fn a_port_of_another_program_is_refused() {
        let (_other, taken) = peer();
        let refused = Sockets::open(&[taken], 1).expect_err("in use");
        assert!(matches!(refused, OpenError::InUse { address, .. } if address == taken));
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        let refused = Sockets::open(&[elsewhere], 1).expect_err("not ours");
        assert!(matches!(refused, OpenError::NotHere { .. }));
    }

    #[test]
    fn several_addresses_share_one_port() {
        let second = SocketAddr::from(([127, 0, 0, 2], 0));
        let sockets = Sockets::open(&[LOOPBACK, second], 1).expect("free ports");
        let mut sockets = sockets.into_iter().next().expect("one worker");
        let locals: Vec<_> = sockets.locals().collect();
        assert_eq!(locals[0].port(), locals[1].port());
        let (peer, address) = peer();
        for local in &locals {
            peer.send_to(b"to you", local).expect("room");
        }
        let mut outbox = Outbox::default();
        sockets.wait(Duration::from_secs(5));
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
        sockets.wait(Duration::from_secs(5));
        let mut senders = Vec::new();
        sockets.receive(64, |_, from, _| senders.push(from));
        assert_eq!(senders, [to]);
    }

    #[test]
    fn a_broken_socket_shows_and_the_others_go_on() {
        let second = SocketAddr::from(([127, 0, 0, 2], 0));
        let sockets = Sockets::open(&[LOOPBACK, second], 1).expect("free ports");
        let mut sockets = sockets.into_iter().next().expect("one worker");
        let locals: Vec<_> = sockets.locals().collect();
        let (peer, _) = peer();
        peer.send_to(b"still here", locals[1]).expect("room");
        let null = File::open("/dev/null").expect("it is there");
        // SAFETY: no pointers; both descriptors are open.
        let dup = unsafe { libc::dup2(null.as_raw_fd(), sockets.sockets[0].socket.as_raw_fd()) };
        assert!(dup >= 0);
        sockets.wait(Duration::from_secs(5));
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
        sockets.wait(Duration::from_secs(60));
        sockets.wait(Duration::from_millis(5));
        assert!(start.elapsed() >= Duration::from_millis(5));
        let thread = std::thread::spawn(move || waker.wake());
        sockets.wait(Duration::from_secs(60));
        thread.join().expect("no panic");
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
