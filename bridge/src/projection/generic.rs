//! Projection of what the bridge cannot look into: one encoding at a time is
//! forwarded whole. Where key frames can be told, encodings are changed on
//! those; where not (end-to-end encryption, unknown codecs), at once.
//!
//! While an encoding is forwarded its numbers keep a constant distance; each
//! such stretch is remembered for as long as its latecomers may come.

use std::collections::VecDeque;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::choice::{EncodingChoice, Verdict};
use super::{CodecRewrite, CodecShift, Common, IncomingVideo, LayerIndex, Output, Rewrite};
use crate::rtp::{PacketIndex, PayloadType};

/// Most stretches remembered.
const MAX_STRETCHES: usize = 8;

/// Consecutive packets of one encoding that the receiver gets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stretch {
    encoding: u8,
    first: PacketIndex,
    last: PacketIndex,
    /// Packets above `last` do not belong to it.
    closed: bool,
    sequence_delta: u64,
    timestamp_delta: u32,
    /// Timestamp of the newest frame, as received.
    timestamp: u32,
}

/// The packets of a source, and what one receiver gets of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Generic {
    pub(super) payload_type: PayloadType,
    pub(super) choice: EncodingChoice,
    /// Newest last.
    stretches: VecDeque<Stretch>,
}

impl Generic {
    pub(super) fn new(payload_type: PayloadType) -> Self {
        Self {
            payload_type,
            choice: EncodingChoice::default(),
            stretches: VecDeque::new(),
        }
    }

    pub(super) fn needs_keyframe(&self) -> bool {
        self.stretches.is_empty() || self.choice.needs_keyframe
    }

    pub(super) fn timestamp_delta(&self, encoding: u8) -> Option<u32> {
        let newest = self.stretches.back()?;
        (newest.encoding == encoding && !newest.closed).then_some(newest.timestamp_delta)
    }

    /// Notes that packets come while the source is not wanted.
    pub(super) fn suspend(&mut self) {
        self.choice.suspend();
        self.close();
    }

    /// As [`super::Projection::shift_from`].
    pub(super) fn shift_from(&self, base: &Self, now: Instant) -> Option<Common> {
        let (own, other) = (self.stretches.back()?, base.stretches.back()?);
        let same = self.payload_type == base.payload_type
            && self.choice.is_as(&base.choice, now)
            && !own.closed
            && !other.closed
            && own.encoding == other.encoding
            && own.last == other.last
            && own.timestamp == other.timestamp;
        same.then(|| Common {
            sequence: own.sequence_delta.wrapping_sub(other.sequence_delta),
            timestamp: own.timestamp_delta.wrapping_sub(other.timestamp_delta),
            codec: CodecShift::default(),
            since: PacketIndex(
                own.first
                    .max(other.first)
                    .0
                    .wrapping_add(other.sequence_delta),
            ),
        })
    }

    pub(super) fn project(
        &mut self,
        packet: &IncomingVideo<'_>,
        key: Option<bool>,
        late: bool,
        target: Option<LayerIndex>,
        output: &mut Output,
    ) -> Option<Rewrite> {
        let Some(target) = target else {
            self.suspend();
            return None;
        };
        self.choice.aim(target.encoding());
        let at = match self.stretch_of(packet) {
            Some(at) => {
                let newest = at + 1 == self.stretches.len();
                if newest && packet.index > self.stretches[at].last {
                    self.note(packet, key, output);
                }
                at
            }
            None => {
                // What was to follow a latecomer has been withheld.
                if late || !self.enter(packet, key, target) {
                    return None;
                }
                self.begin(packet, output);
                self.stretches.len() - 1
            }
        };
        let stretch = &self.stretches[at];
        let index = PacketIndex(packet.index.0.wrapping_add(stretch.sequence_delta));
        output.highest = output.highest.max(index);
        Some(Rewrite {
            ssrc: output.ssrc,
            index,
            timestamp: packet.timestamp.wrapping_add(stretch.timestamp_delta),
            marker: packet.marker,
            codec: CodecRewrite::None,
        })
    }

    /// The stretch that a packet belongs to.
    fn stretch_of(&self, packet: &IncomingVideo<'_>) -> Option<usize> {
        self.stretches.iter().rposition(|stretch| {
            stretch.encoding == packet.encoding
                && packet.index >= stretch.first
                && (packet.index <= stretch.last || !stretch.closed)
        })
    }

    /// Takes account of the newest packet of the stretch in progress.
    fn note(&mut self, packet: &IncomingVideo<'_>, key: Option<bool>, output: &mut Output) {
        match key {
            Some(key) => {
                self.choice.decide(packet.encoding, key, packet.arrival);
            }
            // One request was due when the encoding was entered.
            None => self.choice.needs_keyframe = false,
        }
        let stretch = self.stretches.back_mut().expect("a stretch is in progress");
        stretch.last = packet.index;
        if packet.timestamp != stretch.timestamp {
            stretch.timestamp = packet.timestamp;
            let timestamp = packet.timestamp.wrapping_add(stretch.timestamp_delta);
            output.begin_frame(timestamp, packet.arrival);
        }
    }

    /// Whether the receiver gets this packet's encoding from here on.
    fn enter(&mut self, packet: &IncomingVideo<'_>, key: Option<bool>, target: LayerIndex) -> bool {
        if let Some(key) = key {
            return self.choice.decide(packet.encoding, key, packet.arrival) == Verdict::Enter;
        }
        let (encoding, target) = (packet.encoding, target.encoding());
        let nearer = match self.choice.current() {
            None => encoding <= target,
            Some(current) if current < target => encoding > current && encoding <= target,
            Some(current) => encoding <= target && target < current,
        };
        if nearer {
            self.choice.enter(encoding);
            self.choice.needs_keyframe = true;
        }
        nearer
    }

    fn begin(&mut self, packet: &IncomingVideo<'_>, output: &mut Output) {
        self.close();
        let index = output.highest.0 + 1;
        let timestamp = output.next_timestamp(packet.arrival);
        output.begin_frame(timestamp, packet.arrival);
        self.stretches.push_back(Stretch {
            encoding: packet.encoding,
            first: packet.index,
            last: packet.index,
            closed: false,
            sequence_delta: index.wrapping_sub(packet.index.0),
            timestamp_delta: timestamp.wrapping_sub(packet.timestamp),
            timestamp: packet.timestamp,
        });
        if self.stretches.len() > MAX_STRETCHES {
            self.stretches.pop_front();
        }
    }

    fn close(&mut self) {
        if let Some(newest) = self.stretches.back_mut() {
            newest.closed = true;
        }
    }
}
