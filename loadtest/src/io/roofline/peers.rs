//! The other thread: makes the input, empties the receivers' sockets.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::seal::{Peer, TAG};
use super::{HEADER, MESSAGES, Options, Shared, write_header};

/// Of all packets but the first only the head is copied out.
const HEAD: usize = 64;
/// Sleep between two rounds of emptying: a thread that never sleeps slows the
/// forwarding core where both share a physical one.
const NAP: Duration = Duration::from_micros(200);
/// With a pace, packets come in ticks.
const TICK: Duration = Duration::from_millis(1);

/// What arrived.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) received: u64,
    /// Receivers whose first packet was not what had been sent.
    pub(super) bad: u64,
}

pub(super) fn run(
    options: &Options,
    shared: &Shared,
    receivers: &[UdpSocket],
    source: UdpSocket,
    to: SocketAddrV4,
) -> Result<Figures> {
    let mut source = Source::new(options, source, to)?;
    let mut sink = Sink::new(options, receivers)?;
    let ingress = options.ingress();
    let start = Instant::now();
    let announce = |count: u64| {
        *shared.queued.lock().unwrap_or_else(PoisonError::into_inner) = count;
        shared.more.notify_one();
    };
    if options.pace > 0 {
        announce(ingress);
    }
    let mut made = 0;
    while made < ingress && !shared.stop.load(Ordering::Acquire) {
        let mut wanted = (ingress - made).min(options.burst as u64);
        if options.pace > 0 {
            std::thread::sleep(TICK);
            let due = (start.elapsed().as_secs_f64() * options.pace as f64) as u64;
            wanted = due.min(ingress) - made;
        }
        source.send(made, wanted)?;
        made += wanted;
        if options.pace > 0 {
            sink.drain()?;
            continue;
        }
        announce(made);
        while shared.done.load(Ordering::Acquire) < made && !shared.stop.load(Ordering::Acquire) {
            sink.drain()?;
            std::thread::sleep(NAP);
        }
        sink.drain()?;
    }
    while !shared.stop.load(Ordering::Acquire) && shared.done.load(Ordering::Acquire) < made {
        sink.drain()?;
        std::thread::sleep(NAP);
    }
    while sink.drain()? > 0 {}
    Ok(sink.figures)
}

/// Where the input comes from.
struct Source {
    socket: UdpSocket,
    to: SockaddrIn,
    peer: Peer,
    headers: MultiHeaders<SockaddrIn>,
    payload: Vec<u8>,
    packets: Vec<Vec<u8>>,
}

/// The content of every packet.
fn payload(size: usize) -> Vec<u8> {
    (0..size - HEADER - TAG).map(|at| (at * 7) as u8).collect()
}

impl Source {
    fn new(options: &Options, socket: UdpSocket, to: SocketAddrV4) -> Result<Self> {
        Ok(Self {
            socket,
            to: to.into(),
            peer: Peer::new(u32::MAX)?,
            headers: MultiHeaders::preallocate(MESSAGES, None),
            payload: payload(options.size),
            packets: vec![vec![0; options.size]; MESSAGES],
        })
    }

    fn send(&mut self, from: u64, count: u64) -> Result<()> {
        let mut made = 0;
        while made < count {
            let part = (count - made).min(MESSAGES as u64) as usize;
            for (packet, index) in self.packets[..part].iter_mut().zip(from + made..) {
                write_header(packet, index, 0x1234_5678);
                packet[HEADER..HEADER + self.payload.len()].copy_from_slice(&self.payload);
                self.peer.seal(index, packet)?;
            }
            let mut sent = 0;
            while sent < part {
                let slices: Vec<[IoSlice<'_>; 1]> = self.packets[sent..part]
                    .iter()
                    .map(|packet| [IoSlice::new(packet)])
                    .collect();
                let to = vec![Some(self.to); slices.len()];
                let fd = self.socket.as_raw_fd();
                let flags = MsgFlags::empty();
                let results = sendmmsg(fd, &mut self.headers, &slices, to, [], flags);
                sent += results.context("sending the input")?.count();
            }
            made += part as u64;
        }
        Ok(())
    }
}

/// Where the packets end.
struct Sink<'a> {
    options: &'a Options,
    receivers: &'a [UdpSocket],
    peers: Vec<Peer>,
    checked: Vec<bool>,
    headers: MultiHeaders<SockaddrIn>,
    heads: Box<[[u8; HEAD]; MESSAGES]>,
    figures: Figures,
}

impl<'a> Sink<'a> {
    fn new(options: &'a Options, receivers: &'a [UdpSocket]) -> Result<Self> {
        for receiver in receivers {
            receiver.set_nonblocking(true)?;
        }
        let peers = (0..receivers.len() as u32).map(Peer::new);
        Ok(Self {
            options,
            receivers,
            peers: peers.collect::<Result<_>>()?,
            checked: vec![false; receivers.len()],
            headers: MultiHeaders::preallocate(MESSAGES, None),
            heads: Box::new([[0; HEAD]; MESSAGES]),
            figures: Figures::default(),
        })
    }

    /// Empties all sockets; how many packets there were.
    fn drain(&mut self) -> Result<u64> {
        let before = self.figures.received;
        for (number, receiver) in self.receivers.iter().enumerate() {
            if !self.checked[number] {
                let mut packet = [0; 2048];
                let Ok(len) = receiver.recv(&mut packet) else {
                    continue;
                };
                self.checked[number] = true;
                self.figures.received += 1;
                let right = self.is_right(number, &mut packet[..len]);
                self.figures.bad += u64::from(!right);
            }
            loop {
                let mut slices = self.heads.each_mut().map(|head| [IoSliceMut::new(head)]);
                let fd = receiver.as_raw_fd();
                let flags = MsgFlags::MSG_DONTWAIT;
                let headers = &mut self.headers;
                let count = match recvmmsg(fd, headers, slices.iter_mut(), flags, None) {
                    Ok(messages) => messages.count(),
                    Err(Errno::EAGAIN) => 0,
                    Err(error) => return Err(error).context("emptying a receiver"),
                };
                self.figures.received += count as u64;
                if count < MESSAGES {
                    break;
                }
            }
        }
        Ok(self.figures.received - before)
    }

    /// Whether a receiver can open its first packet and finds what was sent.
    fn is_right(&self, receiver: usize, packet: &mut [u8]) -> bool {
        if packet.len() != self.options.size {
            return false;
        }
        let index = u64::from(u16::from_be_bytes([packet[2], packet[3]]));
        self.peers[receiver].open(index, packet)
            && packet[HEADER..packet.len() - TAG] == payload(self.options.size)
    }
}
