//! The forwarding thread.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use super::seal::{Peer, TAG};
use super::{HEADER, MESSAGES, Options, Send, Shared, write_header};
use crate::io::process::softirq_ns;

/// Larger than any packet.
const MAX_PACKET: usize = 2048;
/// Octets of one segmented message: what UDP can carry.
const MAX_MESSAGE: usize = 65_507;
/// With a pace, nothing more comes when nothing came for that long.
const SILENCE: Duration = Duration::from_secs(2);

/// What it cost, in nanoseconds a forwarded packet.
pub(super) struct Figures {
    pub(super) forwarded: u64,
    pub(super) cpu_ns: f64,
    pub(super) user_share: f64,
    pub(super) softirq_ns: f64,
}

pub(super) fn run(
    options: &Options,
    shared: &Shared,
    socket: &UdpSocket,
    receivers: &[SockaddrIn],
) -> Result<Figures> {
    let sender = Peer::new(u32::MAX)?;
    let peers: Vec<Peer> = (0..receivers.len() as u32)
        .map(Peer::new)
        .collect::<Result<_>>()?;
    let mut egress = Egress::new(options, socket, receivers, &peers);
    let mut buffers = Box::new([[0u8; MAX_PACKET]; MESSAGES]);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(options.batch, None);
    let mut indices = Vec::with_capacity(options.batch);
    if options.pace > 0 {
        socket.set_read_timeout(Some(SILENCE))?;
    }
    let (mut taken, mut cpu) = (0u64, 0);
    let (usage_before, softirq_before) = (thread_times()?, softirq_ns(options.core));
    loop {
        let goal = {
            let mut queued = shared.queued.lock().unwrap_or_else(PoisonError::into_inner);
            while *queued <= taken && !shared.stop.load(Ordering::Acquire) {
                let waited = shared.more.wait(queued);
                queued = waited.unwrap_or_else(PoisonError::into_inner);
            }
            *queued
        };
        if goal <= taken {
            break;
        }
        let before = thread_cpu_ns()?;
        while taken < goal {
            let mut slices = buffers.each_mut().map(|b| [IoSliceMut::new(b)]);
            let room = slices[..options.batch].iter_mut();
            let flags = MsgFlags::MSG_WAITFORONE;
            let fd = socket.as_raw_fd();
            let received = match recvmmsg(fd, &mut headers, room, flags, None) {
                Ok(messages) => messages.map(|message| message.bytes).collect::<Lengths>(),
                Err(Errno::EAGAIN) if options.pace > 0 => break,
                Err(error) => return Err(error).context("receiving"),
            };
            indices.clear();
            for (number, len) in received.as_slice().iter().enumerate() {
                let packet = &mut buffers[number][..*len];
                let low = u64::from(u16::from_be_bytes([packet[2], packet[3]]));
                let index = nearest(taken + number as u64, low);
                ensure!(sender.open(index, packet), "what came is not authentic");
                let upto = |count: u64| (count as f64 * options.keep) as u64;
                if upto(index + 1) > upto(index) {
                    indices.push((number, index));
                }
            }
            egress.forward(&buffers[..], &indices)?;
            taken += received.as_slice().len() as u64;
        }
        cpu += thread_cpu_ns()? - before;
        shared.done.store(taken, Ordering::Release);
        if options.pace > 0 {
            break;
        }
    }
    let (usage, softirq) = (thread_times()?, softirq_ns(options.core));
    let (user, system) = (usage.0 - usage_before.0, usage.1 - usage_before.1);
    let forwarded = egress.forwarded;
    Ok(Figures {
        forwarded,
        cpu_ns: cpu as f64 / forwarded.max(1) as f64,
        user_share: user as f64 / (user + system).max(1) as f64,
        softirq_ns: (softirq - softirq_before) as f64 / forwarded.max(1) as f64,
    })
}

/// Lengths of the packets of a batch, without an allocation.
struct Lengths {
    values: [usize; MESSAGES],
    count: usize,
}

impl Lengths {
    fn as_slice(&self) -> &[usize] {
        &self.values[..self.count]
    }
}

impl FromIterator<usize> for Lengths {
    fn from_iter<I: IntoIterator<Item = usize>>(values: I) -> Self {
        let mut lengths = Self {
            values: [0; MESSAGES],
            count: 0,
        };
        for (room, value) in lengths.values.iter_mut().zip(values) {
            *room = value;
            lengths.count += 1;
        }
        lengths
    }
}

/// The index nearest to `around` with these low 16 bits.
fn nearest(around: u64, low: u64) -> u64 {
    let step = (low as u16).wrapping_sub(around as u16) as i16;
    around.wrapping_add_signed(i64::from(step))
}

/// Messages on their way out.
struct Egress<'a> {
    options: &'a Options,
    socket: &'a UdpSocket,
    receivers: &'a [SockaddrIn],
    peers: &'a [Peer],
    headers: MultiHeaders<SockaddrIn>,
    /// Slots, each for one message.
    buffer: Vec<u8>,
    slot: usize,
    /// Length and receiver of the messages at hand.
    messages: Vec<(usize, Option<SockaddrIn>)>,
    forwarded: u64,
}

impl<'a> Egress<'a> {
    fn new(
        options: &'a Options,
        socket: &'a UdpSocket,
        receivers: &'a [SockaddrIn],
        peers: &'a [Peer],
    ) -> Self {
        let segments = match options.send {
            Send::Mmsg => 1,
            Send::Gso => options.batch.min(MAX_MESSAGE / options.size),
        };
        let slot = segments * options.size;
        // Room for it must hold one: the kernel reads what is there.
        let control = match options.send {
            Send::Mmsg => None,
            Send::Gso => Some(nix::cmsg_space!(u16)),
        };
        Self {
            options,
            socket,
            receivers,
            peers,
            headers: MultiHeaders::preallocate(MESSAGES, control),
            buffer: vec![0; MESSAGES * slot],
            slot,
            messages: Vec::with_capacity(MESSAGES),
            forwarded: 0,
        }
    }

    /// Sends packets, opened before, to all receivers.
    fn forward(&mut self, packets: &[[u8; MAX_PACKET]], indices: &[(usize, u64)]) -> Result<()> {
        match self.options.send {
            Send::Mmsg => {
                for one in indices.chunks(1) {
                    for receiver in 0..self.receivers.len() {
                        self.message(packets, one, receiver)?;
                    }
                }
            }
            Send::Gso => {
                let segments = self.slot / self.options.size;
                for receiver in 0..self.receivers.len() {
                    for part in indices.chunks(segments) {
                        self.message(packets, part, receiver)?;
                    }
                }
            }
        }
        self.forwarded += (indices.len() * self.receivers.len()) as u64;
        self.flush()
    }

    /// Writes the next message: these packets for that receiver.
    fn message(
        &mut self,
        packets: &[[u8; MAX_PACKET]],
        part: &[(usize, u64)],
        receiver: usize,
    ) -> Result<()> {
        let size = self.options.size;
        let start = self.messages.len() * self.slot;
        let slot = &mut self.buffer[start..start + part.len() * size];
        for ((number, index), packet) in part.iter().zip(slot.chunks_exact_mut(size)) {
            write_header(packet, *index, receiver as u32);
            let payload = HEADER..size - TAG;
            packet[payload.clone()].copy_from_slice(&packets[*number][payload]);
            self.peers[receiver].seal(*index, packet)?;
        }
        self.messages
            .push((part.len() * size, Some(self.receivers[receiver])));
        match self.messages.len() < MESSAGES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        let segment = self.options.size as u16;
        let segmented = [ControlMessage::UdpGsoSegments(&segment)];
        let control = match self.options.send {
            Send::Mmsg => &segmented[..0],
            Send::Gso => &segmented[..],
        };
        while sent < self.messages.len() {
            let rest = &self.messages[sent..];
            let mut slices: [_; MESSAGES] = std::array::from_fn(|_| [IoSlice::new(&[])]);
            let mut to = [None; MESSAGES];
            for (number, (len, address)) in rest.iter().enumerate() {
                let start = (sent + number) * self.slot;
                slices[number] = [IoSlice::new(&self.buffer[start..start + len])];
                to[number] = *address;
            }
            let (slices, to) = (&slices[..rest.len()], &to[..rest.len()]);
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::empty();
            match sendmmsg(fd, &mut self.headers, slices, to, control, flags) {
                Ok(results) => sent += results.count(),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        self.messages.clear();
        Ok(())
    }
}

fn thread_cpu_ns() -> Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("CPU time")?;
    Ok(time.num_nanoseconds())
}

/// User and system time of this thread, in microseconds.
fn thread_times() -> Result<(i64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("CPU time")?;
    let (user, system) = (usage.user_time(), usage.system_time());
    Ok((user.num_microseconds(), system.num_microseconds()))
}
