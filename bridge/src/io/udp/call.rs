//! What sendmmsg and recvmmsg are given, and how they are called. Both are kept from
//! call to call, so that only what is used has to be written.

use std::io::{self, ErrorKind};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use crate::outbox::Outbox;

/// Datagrams a call of recvmmsg, messages a call of sendmmsg.
pub(super) const BATCH: usize = 64;

/// Room for one received datagram; a longer one is dropped. Browsers send at
/// most 1200 octets of payload, an Ethernet frame holds 1500.
pub(super) const DATAGRAM: usize = 2048;

/// Most segments of one message: UDP_MAX_SEGMENTS of Linux before 6.9.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Most octets of one message: what an IPv4 packet can hold.
pub(super) const MAX_MESSAGE: usize = 65_507;

/// Pieces of all messages of one call.
const MAX_PIECES: usize = 512;

/// What a call of sendmmsg takes.
pub(super) struct Call {
    headers: [libc::mmsghdr; BATCH],
    addresses: [libc::sockaddr_in6; BATCH],
    /// Room for a control message with a segment size, aligned for its header.
    controls: [[u64; CONTROL_WORDS]; BATCH],
    pieces: [libc::iovec; MAX_PIECES],
    /// Datagrams of each message to send.
    pub(super) segments: [usize; BATCH],
    pub(super) messages: usize,
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
    pub(super) fn new() -> Box<Self> {
        // SAFETY: all fields are integers, pointers and arrays of them, for
        // which zeros are valid.
        Box::new(unsafe { zeroed() })
    }

    pub(super) fn clear(&mut self) {
        (self.messages, self.used_pieces) = (0, 0);
    }

    /// Whether any message would still fit.
    pub(super) fn has_room(&self) -> bool {
        self.messages < BATCH && self.used_pieces + MAX_SEGMENTS <= MAX_PIECES
    }

    /// Adds a message of the datagrams in `run`. It is valid as long as the
    /// outbox is not written to.
    pub(super) fn add(&mut self, outbox: &Outbox, run: &[(u64, u32)]) {
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
    pub(super) fn send(&mut self, socket: &UdpSocket, first: usize) -> io::Result<usize> {
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
}

/// What a call of recvmmsg takes, and room for what it gives.
pub(super) struct Intake {
    headers: [libc::mmsghdr; BATCH],
    addresses: [libc::sockaddr_in6; BATCH],
    pieces: [libc::iovec; BATCH],
    buffers: [[u8; DATAGRAM]; BATCH],
}

// SAFETY: its pointers point into this value itself, which stays in its box.
unsafe impl Send for Intake {}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

impl Intake {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: all fields are integers, pointers and arrays of them, for
        // which zeros are valid.
        let mut intake: Box<Self> = Box::new(unsafe { zeroed() });
        let Self {
            headers,
            addresses,
            pieces,
            buffers,
        } = &mut *intake;
        let rooms = addresses.iter_mut().zip(pieces).zip(buffers);
        for (header, ((address, piece), buffer)) in headers.iter_mut().zip(rooms) {
            piece.iov_base = buffer.as_mut_ptr().cast();
            piece.iov_len = DATAGRAM;
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(address).cast();
            header.msg_namelen = ADDRESS;
            header.msg_iov = piece;
            header.msg_iovlen = 1;
        }
        intake
    }

    /// Receives what waits, at most so much or a batch. `take` gets `None` for a
    /// datagram that was too long. Answers how many there were; `None` if the socket
    /// cannot be received from.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        limit: usize,
        mut take: impl FnMut(SocketAddr, Option<&mut [u8]>),
    ) -> Option<usize> {
        let count = u32::try_from(limit.min(BATCH)).expect("a batch is small");
        // SAFETY: there are at least `count` headers; each points to an address and
        // a buffer of the length it gives, all within `self`, which nothing else
        // uses meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
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
        let filled = self.headers.iter_mut().zip(&self.addresses);
        let filled = filled.zip(&mut self.buffers).take(received);
        for ((header, address), buffer) in filled {
            // The kernel says here how long the address is: it is room again.
            header.msg_hdr.msg_namelen = ADDRESS;
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

/// Octets of room for an address.
const ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
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
