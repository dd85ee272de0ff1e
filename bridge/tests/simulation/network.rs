//! A network in virtual time: every datagram is delayed, media may be lost or
//! overtaken. What becomes of a packet follows from the seed and from what it is,
//! not from what was sent before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The content type of a DTLS record (RFC 6347 §4.1).
const DTLS_APPLICATION_DATA: u8 = 23;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9);

/// A datagram on its way, ordered by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Transit {
    pub(crate) arrives: Instant,
    order: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// All links. Data has a generator of its own on each, so that its fate does not
/// depend on when ICE and DTLS, whose secrets are random, send what.
pub(crate) struct Network {
    seed: u64,
    /// Of a thousand media datagrams.
    pub(crate) lost: u32,
    /// Of a thousand, held up by the jitter, so that others may overtake them.
    pub(crate) late: u32,
    /// Of a thousand DTLS records that carry data.
    pub(crate) lost_records: u32,
    /// Translators: the address behind one, and what the world sees of it. What
    /// comes for an address that is no longer in use goes nowhere.
    pub(crate) translated: BTreeMap<SocketAddr, SocketAddr>,
    /// The longest datagram sent so far from each address.
    pub(crate) longest: BTreeMap<SocketAddr, usize>,
    delay: Duration,
    jitter: Duration,
    links: BTreeMap<(SocketAddr, SocketAddr), SmallRng>,
    start: Instant,
    transits: BinaryHeap<Reverse<Transit>>,
    order: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, start: Instant, delay: Duration, jitter: Duration) -> Self {
        Self {
            seed,
            start,
            lost: 0,
            late: 0,
            lost_records: 0,
            translated: BTreeMap::new(),
            longest: BTreeMap::new(),
            delay,
            jitter,
            links: BTreeMap::new(),
            transits: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let longest = self.longest.entry(from).or_default();
        *longest = datagram.len().max(*longest);
        let mut delay = self.delay;
        if datagram[0] == DTLS_APPLICATION_DATA && self.lost_records > 0 {
            let lost = self.lost_records;
            if self.random(from, to).random_range(0..1000) < lost {
                return;
            }
        }
        if (128..192).contains(&datagram[0]) {
            let mut random = SmallRng::seed_from_u64(self.fate(now, from, to, datagram));
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
            from: self.translated.get(&from).copied().unwrap_or(from),
            to,
            datagram: datagram.to_vec(),
        }));
    }

    /// The generator of data on one link.
    fn random(&mut self, from: SocketAddr, to: SocketAddr) -> &mut SmallRng {
        let seed = self.seed ^ u64::from(from.port()) << 32 ^ u64::from(to.port());
        self.links
            .entry((from, to))
            .or_insert_with(|| SmallRng::seed_from_u64(seed))
    }

    /// Two packets share a fate only if they are one, or RTCP of one kind at one
    /// moment. Of RTCP the first eight octets are not sealed, of RTP twelve.
    fn fate(&self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> u64 {
        let rtcp = (192..224).contains(&datagram[1]);
        let mut hasher = DefaultHasher::new();
        (self.seed, from.port(), to.port()).hash(&mut hasher);
        if rtcp {
            (&datagram[1..2], &datagram[4..8], now - self.start).hash(&mut hasher);
        } else {
            datagram[1..12].hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.transits.peek().map(|Reverse(next)| next.arrives)
    }

    pub(crate) fn deliver(&mut self, now: Instant) -> Option<Transit> {
        if self.next_timeout()? > now {
            return None;
        }
        let Reverse(mut next) = self.transits.pop()?;
        let inside = self.translated.iter().find(|(_, seen)| **seen == next.to);
        if let Some((inside, _)) = inside {
            next.to = *inside;
        } else if self.translated.contains_key(&next.to) {
            // Nobody outside can address it so.
            next.to = NOWHERE;
        }
        Some(next)
    }
}
