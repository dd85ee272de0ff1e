//! One audio stream as one receiver gets it.
//!
//! The packet number in the tag tells what is missing; nothing repairs audio,
//! so what has not come is lost.

use std::time::Instant;

use super::mute::Mutes;
use super::{Arrival, Expected, Gap};
use crate::source::audio::TICKS;
use crate::source::tag::{Tag, TagError};

/// How far back a late packet is still told from a repeated one.
const WINDOW: u32 = 512;
const WORDS: usize = WINDOW as usize / 64;

/// What was found in the stream so far.
#[derive(Clone, Debug, Default)]
pub struct AudioStats {
    pub received: u64,
    /// Packets between the first and the last that never came.
    pub lost: u64,
    pub reordered: u64,
    pub duplicate: u64,
    /// Authentic content of somebody else.
    pub foreign: u64,
    /// Changed on the way.
    pub corrupt: u64,
    /// RTP numbers or timestamps that moved otherwise than the content.
    pub misnumbered: u64,
    pub gap: Gap,
    pub delay_max_ns: u64,
    pub first: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    ssrc: u32,
    packet: u32,
    sequence: u16,
    timestamp: u32,
}

/// Receiver of one microphone.
#[derive(Debug)]
pub struct AudioReceiver {
    expected: Expected,
    newest: Option<Newest>,
    /// One bit for each packet number modulo [`WINDOW`]: whether it has come.
    seen: [u64; WORDS],
    pub mutes: Mutes,
    pub stats: AudioStats,
}

impl AudioReceiver {
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            newest: None,
            seen: [0; WORDS],
            mutes: Mutes::default(),
            stats: AudioStats::default(),
        }
    }

    /// A packet's RTP header fields and payload.
    pub fn receive(
        &mut self,
        arrival: &mut Arrival<'_>,
        (ssrc, sequence, timestamp): (u32, u16, u32),
        payload: &[u8],
    ) {
        let tag = match Tag::parse(payload) {
            Ok(tag) => tag,
            Err(TagError::Magic | TagError::Short(_)) => {
                self.stats.foreign += 1;
                return;
            }
            Err(TagError::Checksum) => {
                self.stats.corrupt += 1;
                return;
            }
        };
        if !self.expected.matches(&tag) {
            self.stats.foreign += 1;
            return;
        }
        let now = arrival.now;
        self.mutes.packet(now);
        let Some(newest) = self.newest.filter(|newest| newest.ssrc == ssrc) else {
            // The first packet ever, or of a session after a new invitation:
            // what was sent between the two was not for this receiver.
            self.newest = Some(Newest {
                ssrc,
                packet: tag.picture,
                sequence,
                timestamp,
            });
            self.seen.fill(0);
            self.mark(tag.picture);
            if self.stats.first.is_none() {
                self.stats.first = Some(now);
            }
            self.count(arrival, &tag);
            return;
        };
        let ahead = tag.picture.wrapping_sub(newest.packet) as i32;
        if ahead > 0 {
            for step in 1..=(ahead as u32).min(WINDOW) {
                let (word, bit) = place(newest.packet.wrapping_add(step));
                self.seen[word] &= !bit;
            }
            self.stats.lost += ahead as u64 - 1;
            let numbered = i32::from(sequence.wrapping_sub(newest.sequence) as i16) == ahead;
            let passed = timestamp.wrapping_sub(newest.timestamp) / TICKS;
            let exact = timestamp.wrapping_sub(newest.timestamp) % TICKS == 0;
            // The clock goes on in a pause, in which there are no packets.
            let timed = exact && (passed == ahead as u32 || tag.key && passed > ahead as u32);
            self.stats.misnumbered += u64::from(!(numbered && timed));
            self.newest = Some(Newest {
                ssrc,
                packet: tag.picture,
                sequence,
                timestamp,
            });
        } else if ahead.unsigned_abs() >= WINDOW || self.has_seen(tag.picture) {
            self.stats.duplicate += 1;
            return;
        } else {
            self.stats.reordered += 1;
            self.stats.lost = self.stats.lost.saturating_sub(1);
        }
        self.mark(tag.picture);
        self.count(arrival, &tag);
    }

    /// A new session begins: what is sent until its first packet was not for
    /// this receiver, and numbers may start anew under the same SSRC.
    pub fn restart(&mut self) {
        self.newest = None;
    }

    /// Nothing counts from `end` on. `sent`: the packets the sender made, if it
    /// stopped for good and not by leaving; what is still out is lost then.
    pub fn close(&mut self, end: Instant, sent: Option<u32>) {
        if let (Some(newest), Some(sent)) = (self.newest, sent) {
            self.stats.lost += u64::from(sent.saturating_sub(newest.packet + 1));
        }
        if !self.mutes.is_muted() {
            self.stats.gap.close(end);
        }
        self.mutes.close(end);
    }

    /// Presence said whether the source is muted.
    pub fn set_muted(&mut self, now: Instant, muted: bool) {
        if self.mutes.set(now, muted) {
            self.stats.gap.pause();
        }
    }

    fn has_seen(&self, packet: u32) -> bool {
        let (word, bit) = place(packet);
        self.seen[word] & bit != 0
    }

    fn mark(&mut self, packet: u32) {
        let (word, bit) = place(packet);
        self.seen[word] |= bit;
    }

    fn count(&mut self, arrival: &mut Arrival<'_>, tag: &Tag) {
        self.stats.received += 1;
        self.stats.gap.mark(arrival.now);
        self.mutes.presented(arrival.now);
        self.stats.delay_max_ns = self.stats.delay_max_ns.max(arrival.count(tag));
    }
}

/// Word and bit of a packet number.
fn place(packet: u32) -> (usize, u64) {
    let at = packet % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::delay::Histogram;
    use crate::source::audio::AudioSource;
    use crate::source::tag::Kind;
    use std::time::Duration;

    const EXPECTED: Expected = Expected {
        run: 1,
        sender: 0,
        kind: Kind::Audio,
    };

    /// Sends `count` packets in the order and with the losses that `plan` makes.
    fn receive(plan: impl Fn(Vec<(u16, u32, Vec<u8>)>) -> Vec<(u16, u32, Vec<u8>)>) -> AudioStats {
        let start = Instant::now();
        let mut source = AudioSource::new(1, 0, 1, 77, start);
        let mut receiver = AudioReceiver::new(EXPECTED);
        let packets: Vec<_> = (0u16..100)
            .map(|n| {
                let now = start + Duration::from_millis(20) * u32::from(n);
                let packet = source.poll(now, start).expect("due");
                (n.wrapping_add(65_500), packet.timestamp, packet.payload)
            })
            .collect();
        let end = start + Duration::from_secs(2);
        for (sequence, timestamp, payload) in plan(packets) {
            let mut delays = Histogram::default();
            let mut arrival = Arrival {
                now: end,
                epoch: start,
                delays: &mut delays,
            };
            receiver.receive(&mut arrival, (5, sequence, timestamp), &payload);
        }
        receiver.close(end, Some(source.sent()));
        receiver.stats
    }

    #[test]
    fn a_clean_stream_has_no_faults() {
        let stats = receive(|packets| packets);
        assert_eq!(
            (
                stats.received,
                stats.lost,
                stats.reordered,
                stats.misnumbered
            ),
            (100, 0, 0, 0)
        );
    }

    #[test]
    fn loss_is_counted_in_the_middle_and_at_the_end() {
        let stats = receive(|mut packets| {
            packets.truncate(95);
            packets.drain(40..43);
            packets
        });
        assert_eq!((stats.received, stats.lost), (92, 8));
    }

    #[test]
    fn a_late_packet_is_reordered_and_not_lost() {
        let stats = receive(|mut packets| {
            packets.swap(10, 12);
            packets
        });
        assert_eq!((stats.received, stats.lost), (100, 0));
        assert_eq!(stats.reordered, 2);
    }

    #[test]
    fn repeated_foreign_and_changed_packets_are_told_apart() {
        let stats = receive(|mut packets| {
            let again = packets[5].clone();
            packets.insert(6, again);
            packets[20].2[50] ^= 1;
            packets[30].2[0] ^= 1;
            packets
        });
        assert_eq!((stats.duplicate, stats.corrupt, stats.foreign), (1, 1, 1));
        assert_eq!(stats.lost, 2);
        let mut other = AudioReceiver::new(Expected {
            sender: 9,
            ..EXPECTED
        });
        let start = Instant::now();
        let packet = AudioSource::new(1, 0, 1, 0, start)
            .poll(start, start)
            .expect("due");
        let mut arrival = Arrival {
            now: start,
            epoch: start,
            delays: &mut Histogram::default(),
        };
        other.receive(&mut arrival, (5, 0, packet.timestamp), &packet.payload);
        assert_eq!(other.stats.foreign, 1);
    }

    #[test]
    fn a_hole_in_the_numbers_that_hides_no_content_is_seen() {
        let stats = receive(|mut packets| {
            for packet in &mut packets[50..] {
                packet.0 = packet.0.wrapping_add(1);
            }
            packets
        });
        assert_eq!((stats.lost, stats.misnumbered), (0, 1));
    }
}
