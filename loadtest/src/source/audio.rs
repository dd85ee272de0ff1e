//! An Opus-like source: 50 packets a second, each with an audio level.
//!
//! Senders take turns in talking, four seconds each, so that the bridge's
//! speaker detection has something to detect; nobody is ever silent to the
//! point (level 127) where a bridge may drop the packet.

use std::time::{Duration, Instant};

use super::tag::{Kind, TAG_LEN, Tag};
use super::{Extension, SourcePacket};

/// Packet time of Jitsi's clients.
pub const PACKET_TIME: Duration = Duration::from_millis(20);
/// RTP ticks in a packet time: the clock is 48 kHz (RFC 7587 §4.1).
pub const TICKS: u32 = 960;

/// Octets of a packet: what Opus makes of speech at 40 kbit/s.
const PAYLOAD: usize = 100;
const TURN: Duration = Duration::from_secs(4);

/// Source of one microphone.
#[derive(Debug)]
pub struct AudioSource {
    run: u32,
    sender: u16,
    /// Sender's place in the turns, and how many take part.
    turn: (u32, u32),
    started: Instant,
    next: Instant,
    packet: u32,
    timestamp: u32,
    /// The next packet is the first after a pause.
    begins: bool,
}

impl AudioSource {
    pub fn new(run: u32, sender: u16, senders: u16, timestamp: u32, now: Instant) -> Self {
        Self {
            run,
            sender,
            turn: (u32::from(sender), u32::from(senders.max(1))),
            started: now,
            next: now,
            packet: 0,
            timestamp,
            begins: true,
        }
    }

    /// Begins to send at `now`, however long the pause was: packet numbers go
    /// on, and the RTP clock with the pause in it.
    pub fn resume(&mut self, now: Instant) {
        if now > self.next {
            let missed = (now - self.next).as_nanos() / PACKET_TIME.as_nanos() + 1;
            self.timestamp = self
                .timestamp
                .wrapping_add((missed as u32).wrapping_mul(TICKS));
            self.next = now;
            self.begins = true;
        }
    }

    /// When [`Self::poll`] has something again.
    pub fn next_due(&self) -> Instant {
        self.next
    }

    /// Packets made so far.
    pub fn sent(&self) -> u32 {
        self.packet
    }

    /// The packet that is due at `now`, if any.
    pub fn poll(&mut self, now: Instant, epoch: Instant) -> Option<SourcePacket> {
        if now < self.next {
            return None;
        }
        let tag = Tag {
            run: self.run,
            sender: self.sender,
            kind: Kind::Audio,
            encoding: 0,
            key: self.begins,
            temporal: 0,
            spatial: 0,
            reference_spatial: 0,
            height: 0,
            packet: 0,
            packets: 1,
            picture: self.packet,
            reference: self.packet,
            sent_ns: now.saturating_duration_since(epoch).as_nanos() as u64,
        };
        let mut payload = Vec::with_capacity(PAYLOAD);
        tag.write(PAYLOAD - TAG_LEN, &mut payload);
        let turn = (self.next - self.started).as_nanos() / TURN.as_nanos();
        let talking = (turn % u128::from(self.turn.1)) as u32 == self.turn.0 % self.turn.1;
        // -dBov; some movement, as the detector looks at the spread.
        let level = if talking { 20 } else { 90 } + (self.packet % 7) as u8;
        let packet = SourcePacket {
            encoding: 0,
            layer: 0,
            marker: self.begins,
            timestamp: self.timestamp,
            payload,
            extension: Extension::AudioLevel(u8::from(talking) << 7 | level),
            key: false,
        };
        self.begins = false;
        self.packet = self.packet.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(TICKS);
        self.next += PACKET_TIME;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_packets_a_second_in_order() {
        let start = Instant::now();
        let mut source = AudioSource::new(1, 0, 2, 1000, start);
        let mut packets = Vec::new();
        for ms in 0..1000 {
            let now = start + Duration::from_millis(ms);
            packets.extend(source.poll(now, start));
        }
        assert_eq!(packets.len(), 50);
        for (number, packet) in packets.iter().enumerate() {
            let tag = Tag::parse(&packet.payload).expect("tagged");
            assert_eq!(tag.picture as usize, number);
            assert_eq!(tag.sent_ns, number as u64 * 20_000_000);
            assert_eq!(packet.timestamp, 1000 + number as u32 * TICKS);
        }
    }

    #[test]
    fn speakers_take_turns() {
        let start = Instant::now();
        let mut sources: Vec<_> = (0..3)
            .map(|n| AudioSource::new(1, n, 3, 0, start))
            .collect();
        for second in 0..24u64 {
            let now = start + Duration::from_secs(second);
            let mut talking = Vec::new();
            for (index, source) in sources.iter_mut().enumerate() {
                source.resume(now);
                let packet = source.poll(now, start).expect("due");
                if matches!(packet.extension, Extension::AudioLevel(level) if level & 0x80 != 0) {
                    talking.push(index as u64);
                }
            }
            assert_eq!(talking, [second / 4 % 3]);
        }
    }
}
