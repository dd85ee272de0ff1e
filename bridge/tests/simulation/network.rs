//! A network in virtual time: every datagram is delayed, media may be lost or
//! overtaken, all by a seeded generator.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A datagram on its way, ordered by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Transit {
    pub(crate) arrives: Instant,
    order: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// All links. Media has a generator of its own on each, so that its fate does
/// not depend on when ICE and DTLS, whose secrets are random, send what.
pub(crate) struct Network {
    seed: u64,
    /// Of a thousand media datagrams.
    pub(crate) lost: u32,
    /// Of a thousand, held up by the jitter, so that others may overtake them.
    pub(crate) late: u32,
    delay: Duration,
    jitter: Duration,
    links: BTreeMap<(SocketAddr, SocketAddr), SmallRng>,
    transits: BinaryHeap<Reverse<Transit>>,
    order: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, delay: Duration, jitter: Duration) -> Self {
        Self {
            seed,
            lost: 0,
            late: 0,
            delay,
            jitter,
            links: BTreeMap::new(),
            transits: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let mut delay = self.delay;
        if (128..192).contains(&datagram[0]) {
            let seed = self.seed ^ u64::from(from.port()) << 32 ^ u64::from(to.port());
            let random = self
                .links
                .entry((from, to))
                .or_insert_with(|| SmallRng::seed_from_u64(seed));
            let lost = random.random_range(0..1000) < self.lost;
            let late = random.random_range(0..1000) < self.late;
            let jitter = random.random_range(Duration::ZERO..=self.jitter);
            if lost {
                return;
            }
            delay += if late { jitter } else { Duration::ZERO };
        }
        self.order += 1;
        self.transits.push(Reverse(Transit {
            arrives: now + delay,
            order: self.order,
            from,
            to,
            datagram: datagram.to_vec(),
        }));
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.transits.peek().map(|Reverse(next)| next.arrives)
    }

    pub(crate) fn deliver(&mut self, now: Instant) -> Option<Transit> {
        if self.next_timeout()? > now {
            return None;
        }
        self.transits.pop().map(|Reverse(next)| next)
    }
}
