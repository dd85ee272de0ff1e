//! The other workers, from one worker's side: where their mail is put, and the
//! lanes for datagrams that are theirs and packets published for them.
//!
//! Everything on its way between two workers has a bound: a lane has its room, and
//! a worker that is [far behind](super::mail) is told no more than what cannot wait, which
//! only grows with what there is.

use std::net::SocketAddr;
use std::time::Instant;

use super::lane::{LaneReceiver, LaneSender, lane};
use super::mail::{Letterbox, Mail};
use crate::peers::Published;
use crate::shard::Shard;
use crate::stats::DropCause;

/// The local and the remote address of a datagram.
type Pair = (SocketAddr, SocketAddr);

/// Something with when it, or what it came of, was taken from a socket.
type Timed<T> = (Instant, T);

/// Another worker.
struct Neighbour {
    number: usize,
    letters: Letterbox,
    /// There is mail it was not woken for yet.
    told: bool,
    datagrams_out: LaneSender<Timed<Pair>>,
    datagrams_in: LaneReceiver<Timed<Pair>>,
    /// How many of those there were at the last look.
    handed_over: usize,
    published_out: LaneSender<Timed<Published>>,
    published_in: LaneReceiver<Timed<Published>>,
}

/// All other workers, by their numbers.
pub(super) struct Neighbours {
    own: usize,
    all: Vec<Neighbour>,
}

/// Makes every worker known to every other.
pub(super) fn acquaint(letters: &[Letterbox]) -> Vec<Neighbours> {
    let count = letters.len();
    let mut workers: Vec<Neighbours> = (0..count)
        .map(|own| Neighbours {
            own,
            all: Vec::new(),
        })
        .collect();
    for a in 0..count {
        for b in a + 1..count {
            let ((d_ab, d_b), (d_ba, d_a)) = (lane(count), lane(count));
            let ((p_ab, p_b), (p_ba, p_a)) = (lane(count), lane(count));
            for (own, number, datagrams, published) in [
                (a, b, (d_ab, d_a), (p_ab, p_a)),
                (b, a, (d_ba, d_b), (p_ba, p_b)),
            ] {
                workers[own].all.push(Neighbour {
                    number,
                    letters: letters[number].clone(),
                    told: false,
                    datagrams_out: datagrams.0,
                    datagrams_in: datagrams.1,
                    handed_over: 0,
                    published_out: published.0,
                    published_in: published.1,
                });
            }
        }
    }
    workers
}

impl Neighbours {
    fn get(&mut self, number: usize) -> &mut Neighbour {
        let found = self.all.iter_mut().find(|n| n.number == number);
        found.expect("a shard names shards of this bridge, and never itself")
    }

    /// Hands a datagram over to the worker whose it is.
    pub(super) fn hand_over(
        &mut self,
        shard: &mut Shard,
        number: usize,
        head: Timed<Pair>,
        datagram: &[u8],
    ) {
        if !self.get(number).datagrams_out.push(head, datagram) {
            shard.count_drop(DropCause::HandoverFull);
        }
    }

    /// Passes on what the shard has for the others; what it publishes was taken
    /// from a socket at `taken`.
    pub(super) fn pass_on(&mut self, taken: Instant, shard: &mut Shard) {
        let from = self.own;
        let mut behind = 0;
        for (number, message) in shard.peers().take_messages() {
            let neighbour = self.get(number);
            if message.is_expendable() && neighbour.letters.is_far_behind() {
                behind += 1;
                continue;
            }
            neighbour.letters.put(Mail::Peer { from, message });
            neighbour.told = true;
        }
        let mut full = 0;
        shard.peers().take_published(|to, head, packet| {
            for number in to.iter() {
                let lane = &mut self.get(number).published_out;
                full += u64::from(!lane.push((taken, head.clone()), packet));
            }
        });
        shard.count_drops(DropCause::PeerBehind, behind);
        shard.count_drops(DropCause::PublishFull, full);
    }

    /// Wakes those that were given something.
    pub(super) fn wake(&mut self) {
        for neighbour in &mut self.all {
            let fresh = neighbour.datagrams_out.flush()
                | neighbour.published_out.flush()
                | std::mem::take(&mut neighbour.told);
            if fresh {
                neighbour.letters.waker.wake();
            }
        }
    }

    /// Whether one of them is so far behind that it should not be told what is
    /// wanted of it each time that changes.
    pub(super) fn any_far_behind(&self) -> bool {
        self.all.iter().any(|n| n.letters.is_far_behind())
    }

    /// Looks what was handed over. [`Self::take_handed_over`] gives no more than
    /// that: if mail is taken in between, all that the datagrams build upon has
    /// been.
    pub(super) fn look(&mut self) {
        for neighbour in &mut self.all {
            neighbour.handed_over = neighbour.datagrams_in.waiting();
        }
    }

    /// Takes datagrams that were handed over, at most `limit` of each. The most
    /// that one gave; so too below.
    pub(super) fn take_handed_over(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Timed<Pair>, &mut [u8]),
    ) -> usize {
        let mut most = 0;
        for neighbour in &mut self.all {
            let count = neighbour.handed_over.min(limit);
            most = most.max(neighbour.datagrams_in.take(count, &mut take));
        }
        most
    }

    /// Takes packets that were published for this worker.
    pub(super) fn take_published(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Timed<Published>, &mut [u8]),
    ) -> usize {
        let mut most = 0;
        for neighbour in &mut self.all {
            most = most.max(neighbour.published_in.take(limit, &mut take));
        }
        most
    }
}
