//! The least an SFU must do for a forwarded packet, measured on this machine:
//! take an SRTP datagram, open it once, and for each receiver write a header,
//! seal with that receiver's key, and hand the datagram to the kernel.
//!
//! One pinned thread does that and nothing else ([`forward`]); another one on
//! another core makes the input and empties the receivers' sockets by polling
//! ([`peers`]), so that no wake-up of a receiver is charged to the first. The
//! figure is the first one's CPU time, with what the kernel's softirq thread of
//! that core took, over the packets forwarded.
//!
//! Without a pace the input waits in the socket and caches are warm: the limit
//! of throughput. With one it comes in ticks of a millisecond, and the thread
//! pays for its wake-ups: the limit under a steady load.

mod forward;
mod peers;
mod seal;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{SockaddrIn, setsockopt};
use nix::unistd::Pid;
use serde::Serialize;

use super::udp::enter_network;

/// Octets of a fixed RTP header.
const HEADER: usize = 12;
/// Messages of one `sendmmsg`.
const MESSAGES: usize = 64;
/// Socket buffers: no packet is to be lost for want of them.
const SOCKET_BUFFER: usize = 32 << 20;

/// How packets are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Send {
    /// `sendmmsg` of up to 64 datagrams.
    Mmsg,
    /// `sendmmsg` of messages with UDP segmentation: what came in together for
    /// one receiver goes as one.
    Gso,
}

/// What is measured.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Options {
    /// Receivers of each packet.
    #[arg(long, default_value_t = 50)]
    pub fanout: usize,
    /// Forwarded packets of a run.
    #[arg(long, default_value_t = 1_000_000)]
    pub packets: u64,
    #[arg(long, value_enum, default_value = "mmsg")]
    pub send: Send,
    /// Packets taken at once, at most.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Packets that wait before the measured part begins.
    #[arg(long, default_value_t = 256)]
    pub burst: usize,
    /// Octets of a datagram.
    #[arg(long, default_value_t = 1200)]
    pub size: usize,
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// CPU of the forwarding thread.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// CPU of the other one.
    #[arg(long, default_value_t = 1)]
    pub peer_core: usize,
    /// Packets that come in a second; 0 for as many as can be forwarded.
    #[arg(long, default_value_t = 0)]
    pub pace: u64,
    /// Share of them that is forwarded; the others are taken, opened and
    /// dropped, as layers that nobody watches.
    #[arg(long, default_value_t = 1.0)]
    pub keep: f64,
    /// Address of the forwarding thread's socket, and of the peers'.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub fwd_ip: Ipv4Addr,
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub peer_ip: Ipv4Addr,
    /// Network namespace of the peers' sockets.
    #[arg(long)]
    pub netns: Option<String>,
}

impl Default for Options {
    /// On loopback, unpaced.
    fn default() -> Self {
        Self {
            fanout: 50,
            packets: 1_000_000,
            send: Send::Mmsg,
            batch: 8,
            burst: 256,
            size: 1200,
            runs: 5,
            core: 0,
            peer_core: 1,
            pace: 0,
            keep: 1.0,
            fwd_ip: Ipv4Addr::LOCALHOST,
            peer_ip: Ipv4Addr::LOCALHOST,
            netns: None,
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        ensure!(self.fanout > 0, "--fanout 0: at least 1 is needed");
        ensure!(self.runs > 0, "--runs 0: at least 1 is needed");
        let batch = (1..=MESSAGES).contains(&self.batch);
        ensure!(batch, "--batch {}: must be 1 to {MESSAGES}", self.batch);
        let burst = self.burst >= self.batch;
        ensure!(burst, "--burst {}: less than --batch", self.burst);
        let size = (64..=1472).contains(&self.size);
        ensure!(size, "--size {}: must be 64 to 1472", self.size);
        let keep = self.keep > 0.0 && self.keep <= 1.0;
        ensure!(keep, "--keep {}: must be above 0, at most 1", self.keep);
        Ok(())
    }

    /// Packets to take in.
    fn ingress(&self) -> u64 {
        (self.packets / self.fanout as u64).max(self.burst as u64)
    }
}

/// What was measured; times are nanoseconds a forwarded packet.
#[derive(Clone, Debug, Serialize)]
pub struct Roofline {
    #[serde(flatten)]
    pub options: Options,
    pub forwarded: u64,
    /// Forwarded packets that no receiver got, and receivers that could not
    /// open their first one: both must be 0.
    pub lost: u64,
    pub bad: u64,
    /// Median, least and most of the runs.
    pub ns_per_fwd: f64,
    pub ns_min: f64,
    pub ns_max: f64,
    pub user_ns: f64,
    pub sys_ns: f64,
    pub softirq_ns: f64,
    pub fwd_pps_per_core: f64,
}

/// What the two threads share.
struct Shared {
    /// Packets that may be taken: as many as were sent.
    queued: Mutex<u64>,
    more: Condvar,
    /// Packets that were taken and forwarded.
    done: AtomicU64,
    stop: AtomicBool,
}

/// One run, seen from both sides.
struct Run {
    forward: forward::Figures,
    peers: peers::Figures,
}

/// Measures.
pub fn measure(options: &Options) -> Result<Roofline> {
    options.check()?;
    let runs: Vec<Run> = (0..options.runs)
        .map(|_| run(options))
        .collect::<Result<_>>()?;
    let sorted = |of: fn(&forward::Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(|run| of(&run.forward)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let median = |values: &[f64]| {
        let middle = values.len() / 2;
        match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        }
    };
    let total = sorted(|f| f.cpu_ns + f.softirq_ns);
    let forwarded = runs.iter().map(|run| run.forward.forwarded).sum::<u64>();
    let received = runs.iter().map(|run| run.peers.received).sum::<u64>();
    Ok(Roofline {
        options: options.clone(),
        forwarded,
        lost: forwarded.saturating_sub(received),
        bad: runs.iter().map(|run| run.peers.bad).sum(),
        ns_per_fwd: median(&total),
        ns_min: total[0],
        ns_max: total[total.len() - 1],
        user_ns: median(&sorted(|f| f.cpu_ns * f.user_share)),
        sys_ns: median(&sorted(|f| f.cpu_ns * (1.0 - f.user_share))),
        softirq_ns: median(&sorted(|f| f.softirq_ns)),
        fwd_pps_per_core: 1e9 / median(&total),
    })
}

fn run(options: &Options) -> Result<Run> {
    let shared = Arc::new(Shared {
        queued: Mutex::new(0),
        more: Condvar::new(),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let socket = socket(options.fwd_ip)?;
    let to = address(&socket)?;
    let receivers: Vec<UdpSocket> = in_peers_network(options, || {
        let sockets = (0..options.fanout).map(|_| self::socket(options.peer_ip));
        sockets.collect::<Result<_>>()
    })?;
    let addresses: Vec<SockaddrIn> = receivers
        .iter()
        .map(|receiver| Ok(address(receiver)?.into()))
        .collect::<Result<_>>()?;
    let peers = {
        let (options, shared) = (options.clone(), shared.clone());
        thread("peers", options.peer_core, move || {
            let figures = in_peers_network(&options, || self::socket(options.peer_ip))
                .and_then(|source| peers::run(&options, &shared, &receivers, source, to));
            // Whatever happened, the other one must not wait for ever.
            shared.stop.store(true, Ordering::Release);
            shared.more.notify_all();
            figures
        })?
    };
    let forward = {
        let (options, shared) = (options.clone(), shared.clone());
        thread("forward", options.core, move || {
            let figures = forward::run(&options, &shared, &socket, &addresses);
            shared.stop.store(true, Ordering::Release);
            figures
        })?
    };
    let join = |_| anyhow!("a thread panicked");
    let figures = forward.join().map_err(join)??;
    let peers = peers.join().map_err(join)??;
    Ok(Run {
        forward: figures,
        peers,
    })
}

/// Starts a thread that stays on one CPU.
fn thread<T: std::marker::Send + 'static>(
    name: &str,
    core: usize,
    work: impl FnOnce() -> Result<T> + std::marker::Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut set = CpuSet::new();
            set.set(core).with_context(|| format!("CPU {core}"))?;
            let pinned = sched_setaffinity(Pid::from_raw(0), &set);
            pinned.with_context(|| format!("staying on CPU {core}"))?;
            work()
        })
        .context("starting a thread")
}

/// Does something where the peers' sockets are. A namespace is a thread's: the
/// caller's stays as it is.
fn in_peers_network<T: std::marker::Send>(
    options: &Options,
    work: impl FnOnce() -> Result<T> + std::marker::Send,
) -> Result<T> {
    let Some(name) = &options.netns else {
        return work();
    };
    let done = std::thread::scope(|scope| {
        let there = scope.spawn(|| enter_network(name).and_then(|()| work()));
        there.join()
    });
    done.map_err(|_| anyhow!("a thread panicked"))?
}

fn socket(address: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0)).context("UDP socket")?;
    let forced = setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)
        .and_then(|()| setsockopt(&socket, SndBufForce, &SOCKET_BUFFER));
    if forced.is_err() {
        // Without the right to more than the system's limit: up to that.
        let plain = socket2::SockRef::from(&socket);
        plain.set_recv_buffer_size(SOCKET_BUFFER)?;
        plain.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    Ok(socket)
}

fn address(socket: &UdpSocket) -> Result<SocketAddrV4> {
    match socket.local_addr().context("address of a socket")? {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(address) => Err(anyhow!("{address} is no IPv4 address")),
    }
}

/// The header of packet `index`.
fn write_header(packet: &mut [u8], index: u64, ssrc: u32) {
    packet[..2].copy_from_slice(&[0x80, 96]);
    packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    packet[4..8].copy_from_slice(&((index * 300) as u32).to_be_bytes());
    packet[8..HEADER].copy_from_slice(&ssrc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_arrives_and_opens() {
        for (send, pace) in [(Send::Mmsg, 0), (Send::Gso, 0), (Send::Gso, 5_000)] {
            let options = Options {
                fanout: 5,
                packets: 5_000,
                send,
                batch: 8,
                burst: 100,
                size: 400,
                runs: 2,
                core: 0,
                peer_core: 0,
                pace,
                ..Options::default()
            };
            let roofline = measure(&options).expect("measured");
            assert_eq!((roofline.lost, roofline.bad), (0, 0), "{roofline:?}");
            assert_eq!(roofline.forwarded, 10_000);
            assert!(roofline.ns_per_fwd > 0.0 && roofline.ns_min <= roofline.ns_max);
        }
    }

    #[test]
    fn what_nobody_watches_is_dropped() {
        let options = Options {
            fanout: 3,
            packets: 3_000,
            send: Send::Mmsg,
            batch: 8,
            burst: 100,
            size: 200,
            runs: 1,
            core: 0,
            peer_core: 0,
            keep: 0.25,
            ..Options::default()
        };
        let roofline = measure(&options).expect("measured");
        assert_eq!((roofline.forwarded, roofline.lost), (750, 0));
        let impossible = Options {
            fanout: 0,
            ..options
        };
        assert!(measure(&impossible).is_err());
    }
}
