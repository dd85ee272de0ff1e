//! Opening: claiming the port, binding the sockets of all workers, and why that
//! may fail.
//!
//! The kernel would spread peers over the sockets of a second bridge of the same
//! user, too, without a word. So the port is claimed before: by a name that only
//! one process of a network namespace can hold, and by an attempt to bind it
//! alone, which fails beside any other program. The name is an abstract socket
//! address and not a file: it has the scope of a port, goes when its process
//! does, and needs no directory.

use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::call::{Call, Intake};
use super::watch::Watch;
use super::{Bound, Counters, Sockets, Waker};

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

/// The names held while the port is ours.
#[derive(Debug)]
pub(super) struct Claim {
    _names: Vec<UnixDatagram>,
}

impl Sockets {
    /// Claims the port and opens the sockets of `workers` workers on each of
    /// `addresses`, which share one port. Port 0 takes any free one. `apart`: others
    /// beside them for RTCP, once the kernel is told ([`Self::set_apart`]).
    pub fn open(
        addresses: &[SocketAddr],
        workers: usize,
        apart: bool,
    ) -> Result<Vec<Self>, OpenError> {
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
        // The place of a socket in its group is what the kernel is told by: first all
        // those for media, then all those for RTCP.
        let open = |feedback| {
            let open = |&local| {
                let error = |source| OpenError::new(local, source);
                Ok(Bound {
                    socket: bind(local, true).map_err(error)?,
                    local,
                    readable: true,
                    failing: false,
                    segments: true,
                    whole: true,
                    feedback,
                })
            };
            let of_worker = |_| locals.iter().map(open).collect::<Result<Vec<_>, _>>();
            (0..workers)
                .map(of_worker)
                .collect::<Result<Vec<_>, OpenError>>()
        };
        let media = open(false)?;
        let feedback = match apart {
            true => open(true)?,
            false => media.iter().map(|_| Vec::new()).collect(),
        };
        let worker = |(mut sockets, mut feedback): (Vec<Bound>, Vec<Bound>)| {
            sockets.append(&mut feedback);
            let error = |source| OpenError::Other {
                address: locals[0],
                source,
            };
            let waker = Waker::new().map_err(error)?;
            let watched = sockets.iter().map(|bound| (&bound.socket, bound.feedback));
            let watch = Watch::new(watched, &waker).map_err(error)?;
            Ok(Self {
                sockets,
                apart: false,
                media_came: false,
                reports_came: 0,
                waker,
                watch,
                intake: Intake::new(),
                call: Call::new(),
                order: Vec::new(),
                turn: 0,
                counters: Counters::default(),
                _claim: Arc::clone(&claim),
            })
        };
        media.into_iter().zip(feedback).map(worker).collect()
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
pub(super) fn fragment(socket: &UdpSocket, allowed: bool) {
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
    use super::super::tests::{LOOPBACK, peer};
    use super::*;

    #[test]
    fn workers_share_a_port_that_nobody_else_gets() {
        let workers = Sockets::open(&[LOOPBACK], 3, true).expect("a free port");
        let local = workers[0].locals().next().expect("one address");
        assert!(workers.iter().all(|w| w.locals().eq([local])));
        let refused = Sockets::open(&[local], 1, true).expect_err("in use");
        let text = refused.to_string();
        assert!(text.contains(&local.to_string()), "{text}");
        let me = format!("(process {})", std::process::id());
        assert!(text.contains(&me), "{text}");
        assert!(text.contains("videobridge.ice.udp.port"), "{text}");
        drop(workers);
        Sockets::open(&[local], 1, true).expect("free again");
    }

    #[test]
    fn a_port_of_another_program_is_refused() {
        let (_other, taken) = peer();
        let refused = Sockets::open(&[taken], 1, true).expect_err("in use");
        assert!(matches!(refused, OpenError::InUse { address, .. } if address == taken));
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        let refused = Sockets::open(&[elsewhere], 1, true).expect_err("not ours");
        assert!(matches!(refused, OpenError::NotHere { .. }));
    }
}
