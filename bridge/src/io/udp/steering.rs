//! Gives the kernel the program by which it chooses a worker's socket
//! ([`crate::steering`]), one for each local address, and a new one when the homes
//! of addresses have changed.
//!
//! A socket's place in its group is the number of its worker, and behind those the
//! same again for RTCP: they are bound in that order, and none is closed before the
//! end.
//!
//! The first program knows nobody; it keeps RTCP apart. Further ones replace it while
//! datagrams come in, and kernels before the middle of 2026 free the old one though
//! another CPU may be running it (CVE-2026-52910). So those are for kernels that are
//! known to wait, or where the operator says so.

use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::Sockets;
use crate::steering::{Family, Instruction, MAX_INSTRUCTIONS, program};

/// The shortest program to try where the kernel has no room for a longer one
/// (`net.core.optmem_max`): about a hundred addresses.
const LEAST_ROOM: usize = 256;

/// The first releases with the fix, of the series before that in which it was made.
/// From the record of CVE-2026-52910; commit 18fc650ccd7f of Linux.
const FIXED: [Release; 7] = [
    (5, 10, 259),
    (5, 15, 210),
    (6, 1, 176),
    (6, 6, 143),
    (6, 12, 94),
    (6, 18, 36),
    (7, 0, 13),
];
const MADE_IN: Release = (7, 1, 0);

type Release = (u32, u32, u32);

/// The groups that the sockets of all workers make.
#[derive(Debug)]
pub struct Steering {
    groups: Vec<Group>,
    workers: usize,
    /// A program may be replaced by another.
    replaces: bool,
    /// Instructions that the kernel has room for, as far as is known.
    room: usize,
}

/// The sockets of one local address.
#[derive(Debug)]
struct Group {
    /// One of them.
    socket: UdpSocket,
    family: Family,
    attached: Vec<Instruction>,
}

impl Steering {
    /// That of the groups which the sockets of all workers make; from now on the
    /// kernel keeps RTCP apart, and with `replaces` it can be told of homes.
    pub fn new(all: &mut [Sockets], replaces: bool) -> io::Result<Self> {
        let group = |bound: &super::Bound| {
            Ok(Group {
                socket: bound.socket.try_clone()?,
                family: Family::of(bound.local),
                attached: Vec::new(),
            })
        };
        let first = all.first().into_iter().flat_map(Sockets::media);
        let mut steering = Self {
            groups: first.map(group).collect::<io::Result<_>>()?,
            workers: all.len(),
            replaces: true,
            room: MAX_INSTRUCTIONS,
        };
        steering.steer(&[])?;
        steering.replaces = replaces;
        all.iter_mut().for_each(Sockets::set_apart);
        Ok(steering)
    }

    /// Whether there is anybody to choose from, and the kernel can be told whom.
    pub fn knows_homes(&self) -> bool {
        self.replaces && self.workers > 1
    }

    /// Tells the kernel which worker each address belongs to. After an error things
    /// are as before, in some of the groups.
    pub fn steer(&mut self, homes: &[(SocketAddr, usize)]) -> io::Result<()> {
        if !self.replaces {
            return Ok(());
        }
        for family in [Family::V4, Family::V6] {
            while let Err(error) = self.steer_family(family, homes) {
                if error.raw_os_error() != Some(libc::ENOMEM) || self.room <= LEAST_ROOM {
                    return Err(error);
                }
                self.room /= 2;
            }
        }
        Ok(())
    }

    fn steer_family(&mut self, family: Family, homes: &[(SocketAddr, usize)]) -> io::Result<()> {
        let ours = self.groups.iter_mut().filter(|g| g.family == family);
        let mut ours = ours.peekable();
        if ours.peek().is_none() {
            return Ok(());
        }
        let program = program(family, self.workers, homes, self.room);
        tracing::debug!(?family, known = program.known, of = program.of, "steering");
        for group in ours {
            if group.attached != program.instructions {
                attach(&group.socket, &program.instructions)?;
                group.attached.clone_from(&program.instructions);
            }
        }
        Ok(())
    }
}

/// Whether the kernel is known to let a program end before it is freed.
pub fn replaces_safely() -> bool {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    match (read("osrelease"), read("version")) {
        (Ok(release), Ok(build)) => has_fix(&release, &build),
        _ => false,
    }
}

/// By what `uname -r` and `uname -v` tell. Debian names its release of the series in
/// the latter; whose numbers are his own is not known to have it.
fn has_fix(release: &str, build: &str) -> bool {
    let mut words = build.split_whitespace();
    let debian = words.find(|word| *word == "Debian").and(words.next());
    let Some(release) = debian.or(Some(release)).and_then(parse) else {
        return false;
    };
    let of_series = |fixed: &&Release| (fixed.0, fixed.1) == (release.0, release.1);
    release >= MADE_IN || FIXED.iter().find(of_series).is_some_and(|f| release >= *f)
}

fn parse(text: &str) -> Option<Release> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let mut numbers = text[..end.unwrap_or(text.len())].split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next().unwrap_or(0)))
}

/// Gives the group of a socket a program, in place of the one it has.
fn attach(socket: &UdpSocket, program: &[Instruction]) -> io::Result<()> {
    let filter = |instruction: &Instruction| libc::sock_filter {
        code: instruction.code,
        jt: instruction.jump_true,
        jf: instruction.jump_false,
        k: instruction.operand,
    };
    let mut filters: Vec<libc::sock_filter> = program.iter().map(filter).collect();
    let value = libc::sock_fprog {
        len: u16::try_from(filters.len()).expect("a program has a bound"),
        filter: filters.as_mut_ptr(),
    };
    // SAFETY: the option's value is a `sock_fprog`, which points to as many
    // instructions as it says; the kernel reads both before the call ends.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};
    use std::time::{Duration, Instant};

    use super::super::Feedback;
    use super::super::tests::LOOPBACK;
    use super::*;

    const WORKERS: usize = 4;

    /// Sends something from each peer, and looks that those of `homes` come to their
    /// worker and all to somebody.
    fn arrive(workers: &mut [Sockets], peers: &[UdpSocket], homes: &[(SocketAddr, usize)]) {
        let local = workers[0].locals().next().expect("one address");
        for peer in peers {
            peer.send_to(b"hello", local).expect("room");
        }
        let mut arrived = 0;
        while arrived < peers.len() {
            let before = arrived;
            for (number, worker) in workers.iter_mut().enumerate() {
                worker.wait(Instant::now(), Duration::from_millis(50), Feedback::Wakes);
                arrived += worker.receive(64, |_, from, _| {
                    let home = homes.iter().find(|(address, _)| *address == from);
                    assert!(home.is_none_or(|(_, home)| *home == number), "{from}");
                });
            }
            assert!(arrived > before, "{arrived} arrived");
        }
    }

    #[test]
    fn datagrams_come_to_the_worker_whose_they_are() {
        for any in [LOOPBACK, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let Ok(peers) = (0..60)
                .map(|_| UdpSocket::bind(any))
                .collect::<io::Result<Vec<_>>>()
            else {
                continue;
            };
            let mut workers = Sockets::open(&[any], WORKERS, true).expect("a free port");
            let steering = Steering::new(&mut workers, true);
            let mut steering = steering.expect("a kernel that takes programs");
            // Chance would get one of these right once in 10^30 runs.
            for shift in 0..3 {
                let of = |(n, peer): (usize, &UdpSocket)| {
                    let address = peer.local_addr().expect("bound");
                    (address, (n / 3 + shift) % WORKERS)
                };
                let known = peers.iter().enumerate().skip(10).map(of);
                let homes: Vec<_> = known.collect();
                steering
                    .steer(&homes)
                    .expect("a kernel that takes programs");
                arrive(&mut workers, &peers, &homes);
            }
        }
    }

    /// It is there when something else ends the wait.
    #[test]
    fn feedback_waits_for_media_where_that_is_asked_for() {
        let mut workers = Sockets::open(&[LOOPBACK], 1, true).expect("a free port");
        Steering::new(&mut workers, false).expect("a kernel that takes programs");
        let worker = &mut workers[0];
        let local = worker.locals().next().expect("one address");
        let peer = UdpSocket::bind(LOOPBACK).expect("a free port");
        let (media, feedback) = ([0x90, 111, 0], [0x8f, 205, 0]);
        let mut next = |wait, feedback| {
            worker.wait(Instant::now(), Duration::from_millis(wait), feedback);
            let mut came = Vec::new();
            worker.receive(64, |_, _, datagram| came.push(datagram.to_vec()));
            (came, worker.media_came())
        };
        assert_eq!(next(0, Feedback::Wakes), (vec![], false));
        peer.send_to(&feedback, local).expect("room");
        assert_eq!(
            next(5000, Feedback::Wakes),
            (vec![feedback.to_vec()], false)
        );
        let began = std::time::Instant::now();
        peer.send_to(&feedback, local).expect("room");
        assert_eq!(next(20, Feedback::Waits), (vec![feedback.to_vec()], false));
        assert!(began.elapsed() >= Duration::from_millis(20));
        for datagram in [feedback, media] {
            peer.send_to(&datagram, local).expect("room");
        }
        let (mut came, media_came) = next(5000, Feedback::Waits);
        came.sort();
        assert_eq!(
            (came, media_came),
            (vec![feedback.to_vec(), media.to_vec()], true)
        );
    }

    /// As long as a program can be, and longer than a kernel may have room for.
    #[test]
    fn a_thousand_times_more_are_steered_as_far_as_there_is_room() {
        let mut workers = Sockets::open(&[LOOPBACK], WORKERS, true).expect("a free port");
        let steering = Steering::new(&mut workers, true);
        let mut steering = steering.expect("a kernel that takes programs");
        let peers: Vec<_> = (0..4)
            .map(|_| UdpSocket::bind(LOOPBACK).expect("a free port"))
            .collect();
        let others = (1..=60_000).map(|port| {
            let ip = IpAddr::from([198, 51, 100, (port % 250) as u8]);
            (SocketAddr::new(ip, port), usize::from(port) % WORKERS)
        });
        let homes: Vec<_> = others.collect();
        steering
            .steer(&homes)
            .expect("a kernel that takes programs");
        let len = steering.groups[0].attached.len();
        assert!((LEAST_ROOM / 2..=MAX_INSTRUCTIONS).contains(&len), "{len}");
        arrive(&mut workers, &peers, &homes);
    }

    #[test]
    fn kernels_are_known_by_what_they_say_of_themselves() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)";
        let old_debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-02)";
        let ubuntu = "#63-Ubuntu SMP PREEMPT_DYNAMIC Tue Apr 15 19:04:15 UTC 2026";
        for (release, build, fixed) in [
            ("6.18.44-fc-v595\n", "#1 SMP PREEMPT_DYNAMIC @0\n", true),
            ("6.18.36", "", true),
            ("6.18.35", "", false),
            ("6.12.94+deb13-amd64", "#1 SMP Debian 6.12.94-1", true),
            ("6.1.0-49-amd64", debian, true),
            ("6.1.0-48-amd64", old_debian, false),
            ("6.8.0-60-generic", ubuntu, false),
            ("6.17.99", "", false),
            ("5.14.0-503.el9.x86_64", "", false),
            ("7.0.12-arch1-1", "", false),
            ("7.0.13-arch1-1", "", true),
            ("7.1.0", "", true),
            ("7.2-rc3", "", true),
            ("10.0.1", "", true),
            ("6", "", false),
            ("", "", false),
        ] {
            assert_eq!(has_fix(release, build), fixed, "{release} {build}");
        }
    }
}
