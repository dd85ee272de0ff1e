//! A one-way queue of datagrams from one worker to another, each with a head of
//! plain data: bounded, without locks, and without an allocation a datagram.
//!
//! Heads and octets lie in a ring each, so a short datagram takes no more room
//! than it has octets. It is copied once, into the ring; the receiver works on
//! it where it lies, except for the one that reaches over the ring's end.

use rtrb::{Consumer, Producer, RingBuffer};

/// Room in one lane, in datagrams. Beyond it a worker is so far behind that what
/// waits is late anyway.
const HEADS: usize = 2048;
/// Room in one lane, in octets: at most and at least, and in all lanes of a kind
/// together, of which there are as many as pairs of workers.
const MOST_OCTETS: usize = 1 << 20;
const LEAST_OCTETS: usize = 1 << 16;
const ALL_OCTETS: usize = 1 << 26;

/// The way in.
pub(super) struct LaneSender<H> {
    heads: Producer<(H, usize)>,
    octets: Producer<u8>,
    /// Something was put in since the last flush.
    fresh: bool,
}

/// The way out.
pub(super) struct LaneReceiver<H> {
    heads: Consumer<(H, usize)>,
    octets: Consumer<u8>,
    /// For a datagram that reaches over the end of its ring.
    whole: Vec<u8>,
}

/// A lane between two of so many workers.
pub(super) fn lane<H>(workers: usize) -> (LaneSender<H>, LaneReceiver<H>) {
    let pairs = (workers * workers.saturating_sub(1)).max(1);
    let room = (ALL_OCTETS / pairs).clamp(LEAST_OCTETS, MOST_OCTETS);
    let (heads_in, heads_out) = RingBuffer::new(HEADS);
    let (octets_in, octets_out) = RingBuffer::new(room);
    let sender = LaneSender {
        heads: heads_in,
        octets: octets_in,
        fresh: false,
    };
    let receiver = LaneReceiver {
        heads: heads_out,
        octets: octets_out,
        whole: Vec::new(),
    };
    (sender, receiver)
}

impl<H> LaneSender<H> {
    /// Puts a datagram in; whether there was room.
    pub(super) fn push(&mut self, head: H, datagram: &[u8]) -> bool {
        // The octets first: where a head is, its octets are. Only this side
        // fills the ring of heads, so it still has room afterwards.
        if self.heads.is_full() || self.octets.push_entire_slice(datagram).is_err() {
            return false;
        }
        let pushed = self.heads.push((head, datagram.len()));
        self.fresh |= pushed.is_ok();
        pushed.is_ok()
    }

    /// Whether the receiver is to be woken for what was put in since the last
    /// call: once, however much that is.
    pub(super) fn flush(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }
}

impl<H> LaneReceiver<H> {
    /// How many datagrams lie in the lane.
    pub(super) fn waiting(&self) -> usize {
        self.heads.slots()
    }

    /// Hands out what lies in the lane, at most `limit`. Answers how much it was.
    pub(super) fn take(&mut self, limit: usize, mut take: impl FnMut(H, &mut [u8])) -> usize {
        for taken in 0..limit {
            let Ok((head, len)) = self.heads.pop() else {
                return taken;
            };
            let mut chunk = self
                .octets
                .read_chunk(len)
                .expect("octets are put in before their head");
            match chunk.as_mut_slices() {
                (datagram, []) => take(head, datagram),
                (first, second) => {
                    self.whole.clear();
                    self.whole.extend_from_slice(first);
                    self.whole.extend_from_slice(second);
                    take(head, &mut self.whole);
                }
            }
            chunk.commit_all();
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_whole_and_in_order_from_another_thread() {
        let (mut sender, mut receiver) = lane::<u32>(64);
        const COUNT: u32 = 50_000;
        let datagram = |number: u32| {
            let len = 1 + (number.wrapping_mul(2_654_435_761) >> 21) as usize;
            vec![number as u8; len]
        };
        let thread = std::thread::spawn(move || {
            for number in 0..COUNT {
                while !sender.push(number, &datagram(number)) {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < COUNT {
            receiver.take(100, |number, octets| {
                assert_eq!(number, next);
                assert_eq!(octets, datagram(number));
                next += 1;
            });
        }
        thread.join().expect("the sender ends");
    }

    #[test]
    fn a_full_lane_takes_nothing_more_and_one_flush_answers_for_all() {
        let (mut sender, mut receiver) = lane::<usize>(64);
        assert!(!sender.flush());
        let datagram = [7; 1200];
        let room = LEAST_OCTETS / datagram.len();
        let taken = (0..100).filter(|n| sender.push(*n, &datagram)).count();
        assert_eq!(taken, room);
        assert!(sender.flush());
        assert!(!sender.flush());
        assert_eq!(receiver.waiting(), room);
        assert_eq!(receiver.take(10, |_, _| {}), 10);
        assert_eq!(receiver.take(100, |_, _| {}), room - 10);
        // Empty datagrams are bounded by their heads.
        let taken = (0..2 * HEADS).filter(|n| sender.push(*n, &[])).count();
        assert_eq!(taken, HEADS);
    }
}
