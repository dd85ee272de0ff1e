//! One audio stream as one receiver gets it.
//!
//! The packet number in the tag tells what is missing; nothing repairs audio,
//! so what has not come is lost.

use std::time::Instant;

use super::delay::Histogram;
use super::{Expected, Gap};
use crate::source::audio::TICKS;
use crate::source::tag::{Tag, TagError};

/// How far back a late packet is still told from a repeated one.
const WINDOW: u32 = 512;

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
    pub delay: Histogram,
    pub first: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    ssrc: u32,
    frame: u32,
    sequence: u16,
    timestamp: u32,
}

/// Receiver of one microphone.
#[derive(Debug)]
pub struct AudioReceiver {
    expected: Expected,
    newest: Option<Newest>,
    /// Bit n: packet `newest.frame - n` has come.
    seen: Vec<bool>,
    pub stats: AudioStats,
}

impl AudioReceiver {
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            newest: None,
            seen: vec![false; WINDOW as usize],
            stats: AudioStats::default(),
        }
    }

    /// A packet's RTP header fields and payload, received at `now`.
    pub fn receive(
        &mut self,
        now: Instant,
        epoch: Instant,
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
        let Some(newest) = self.newest.filter(|newest| newest.ssrc == ssrc) else {
            // The first packet ever, or of a session after a new invitation:
            // what was sent between the two was not for this receiver.
            self.newest = Some(Newest {
                ssrc,
                frame: tag.frame,
                sequence,
                timestamp,
            });
            self.seen.fill(false);
            self.mark(tag.frame);
            if self.stats.first.is_none() {
                self.stats.first = Some(now);
            }
            self.stats.gap.pause();
            self.count(now, epoch, &tag);
            return;
        };
        let ahead = tag.frame.wrapping_sub(newest.frame) as i32;
        if ahead > 0 {
            for frame in 1..=(ahead as u32).min(WINDOW) {
                self.seen[((newest.frame.wrapping_add(frame)) % WINDOW) as usize] = false;
            }
            self.stats.lost += ahead as u64 - 1;
            let numbered = i32::from(sequence.wrapping_sub(newest.sequence) as i16) == ahead;
            let timed =
                timestamp.wrapping_sub(newest.timestamp) == (ahead as u32).wrapping_mul(TICKS);
            self.stats.misnumbered += u64::from(!(numbered && timed));
            self.newest = Some(Newest {
                ssrc,
                frame: tag.frame,
                sequence,
                timestamp,
            });
        } else if ahead.unsigned_abs() >= WINDOW || self.seen[(tag.frame % WINDOW) as usize] {
            self.stats.duplicate += 1;
            return;
        } else {
            self.stats.reordered += 1;
            self.stats.lost = self.stats.lost.saturating_sub(1);
        }
        self.mark(tag.frame);
        self.count(now, epoch, &tag);
    }

    /// A new session begins: what is sent until its first packet was not for
    /// this receiver, and numbers may start anew under the same SSRC.
    pub fn restart(&mut self) {
        self.newest = None;
    }

    /// The sender stopped at `end` after `sent` packets; what is still out at
    /// that time is lost.
    pub fn close(&mut self, end: Instant, sent: u32) {
        if let Some(newest) = self.newest {
            self.stats.lost += u64::from(sent.saturating_sub(newest.frame + 1));
            self.stats.gap.close(end);
        }
    }

    fn mark(&mut self, frame: u32) {
        self.seen[(frame % WINDOW) as usize] = true;
    }

    fn count(&mut self, now: Instant, epoch: Instant, tag: &Tag) {
        self.stats.received += 1;
        self.stats.gap.mark(now);
        let arrived = now.saturating_duration_since(epoch).as_nanos() as u64;
        self.stats.delay.record(arrived.saturating_sub(tag.sent_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            receiver.receive(end, start, (5, sequence, timestamp), &payload);
        }
        receiver.close(end, source.sent());
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
        other.receive(start, start, (5, 0, packet.timestamp), &packet.payload);
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
