//! One video stream as one receiver gets it: packets put in order by their RTP
//! numbers ([`order`]), frames put together and held against what a decoder
//! needs ([`pictures`]), and the heights that come against those asked for
//! ([`heights`]).

pub mod heights;
mod order;
mod pictures;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::mute::Mutes;
use super::{Arrival, Expected, Gap};
use crate::source::Codec;
use crate::source::payload::{Payload, PayloadError};
use crate::source::tag::TagError;
use heights::Heights;
use order::{Order, Place};
use pictures::{Packet, Pictures, Sinks};

/// Requests for a key frame come no closer than that.
const KEY_FRAME_REPEAT: Duration = Duration::from_millis(500);

/// What was found in the stream so far.
#[derive(Clone, Debug, Default)]
pub struct VideoStats {
    /// Packets, those recovered included.
    pub received: u64,
    /// Holes that were never filled, and packets that a frame lacks although
    /// the numbers have no hole.
    pub lost: u64,
    /// Holes filled after a NACK.
    pub recovered: u64,
    pub reordered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    /// Pictures a decoder could show.
    pub frames: u64,
    pub key_frames: u64,
    /// Whole frames a decoder could not show, for want of their reference.
    pub undecodable: u64,
    /// Changes of the encoding, and those of them without a key frame.
    pub switches: u64,
    pub bad_switches: u64,
    /// Numbers, references, descriptors or markers that are not as the content
    /// demands.
    pub misnumbered: u64,
    /// Padding-only packets.
    pub padding: u64,
    pub gap: Gap,
    pub delay_max_ns: u64,
    pub first_frame: Option<Instant>,
}

/// Header fields of a packet, and its dependency descriptor if it has one.
#[derive(Clone, Debug)]
pub struct Header {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub descriptor: Option<Bytes>,
}

#[derive(Debug)]
enum Held {
    Packet(Box<Packet>),
    /// Nothing a decoder sees: padding, or content already counted as bad.
    Empty,
}

/// Receiver of one camera or screen.
#[derive(Debug)]
pub struct VideoReceiver {
    expected: Expected,
    codec: Codec,
    ssrc: Option<u32>,
    beheaded: bool,
    order: Order<Held>,
    pictures: Pictures,
    key_asked: Option<Instant>,
    pub mutes: Mutes,
    pub heights: Heights,
    pub stats: VideoStats,
}

impl VideoReceiver {
    pub fn new(expected: Expected, codec: Codec) -> Self {
        Self {
            expected,
            codec,
            ssrc: None,
            beheaded: false,
            order: Order::default(),
            pictures: Pictures::default(),
            key_asked: None,
            mutes: Mutes::default(),
            heights: Heights::default(),
            stats: VideoStats::default(),
        }
    }

    /// A packet of the primary SSRC, or one recovered from RTX with its
    /// original number. `payload` is empty for padding.
    pub fn receive(
        &mut self,
        arrival: &mut Arrival<'_>,
        header: Header,
        payload: &[u8],
        retransmitted: bool,
    ) {
        if self.ssrc != Some(header.ssrc) {
            if retransmitted {
                return;
            }
            self.ssrc = Some(header.ssrc);
            self.order = Order::default();
            self.pictures.begin(std::mem::take(&mut self.beheaded));
        }
        let now = arrival.now;
        let place = self.order.place(now, header.sequence, retransmitted);
        let (index, late) = match place {
            Place::Newest(index) => (index, retransmitted),
            Place::Jumped { index, lost } => {
                self.stats.lost += lost;
                self.pictures.abandon();
                (index, retransmitted)
            }
            Place::Recovered(index) => {
                self.stats.recovered += 1;
                (index, true)
            }
            Place::Late(index) => {
                self.stats.reordered += 1;
                (index, true)
            }
            Place::Duplicate => {
                self.stats.duplicate += 1;
                return;
            }
        };
        let held = self.read(arrival, header, payload, late);
        if let Some(held) = self.order.put(index, held) {
            self.decode(held);
            self.release();
        } else if self.order.is_full() {
            self.skip();
        }
    }

    fn read(
        &mut self,
        arrival: &mut Arrival<'_>,
        header: Header,
        payload: &[u8],
        late: bool,
    ) -> Held {
        if payload.is_empty() {
            self.stats.padding += 1;
            return Held::Empty;
        }
        let payload = match Payload::parse(self.codec, payload) {
            Ok(payload) => payload,
            Err(PayloadError::Head | PayloadError::Tag(TagError::Checksum)) => {
                self.stats.corrupt += 1;
                return Held::Empty;
            }
            Err(PayloadError::Tag(TagError::Magic | TagError::Short(_))) => {
                self.stats.foreign += 1;
                return Held::Empty;
            }
        };
        if !self.expected.matches(&payload.tag) {
            self.stats.foreign += 1;
            return Held::Empty;
        }
        self.stats.received += 1;
        self.mutes.packet(arrival.now);
        if !late {
            let delay = arrival.count(&payload.tag);
            self.stats.delay_max_ns = self.stats.delay_max_ns.max(delay);
        }
        Held::Packet(Box::new(Packet {
            payload,
            descriptor: header.descriptor,
            marker: header.marker,
            timestamp: header.timestamp,
            arrival: arrival.now,
        }))
    }

    fn decode(&mut self, held: Held) {
        if let Held::Packet(packet) = held {
            let mut sinks = Sinks {
                stats: &mut self.stats,
                mutes: &mut self.mutes,
                heights: &mut self.heights,
            };
            self.pictures.assemble(*packet, &mut sinks);
        }
    }

    fn release(&mut self) {
        while let Some(held) = self.order.take() {
            self.decode(held);
        }
    }

    fn skip(&mut self) {
        self.stats.lost += self.order.skip();
        self.pictures.broken();
        self.release();
    }

    /// Numbers to ask for now, and whether to ask for a key frame. Call every
    /// few milliseconds while packets may come.
    pub fn feedback(&mut self, now: Instant) -> (Vec<u16>, bool) {
        let given_up = self.order.expire(now);
        self.stats.lost += given_up;
        self.pictures.needs_key |= given_up > 0;
        if self.order.is_stuck() {
            self.skip();
        }
        let numbers = self.order.missing(now);
        let ask_key = self.pictures.needs_key
            && self.order.holes() == 0
            && self.ssrc.is_some()
            && self
                .key_asked
                .is_none_or(|asked| now >= asked + KEY_FRAME_REPEAT);
        if ask_key {
            // The first request waits, as the stream usually begins with a key
            // frame of its own.
            let first = self.key_asked.is_none();
            self.key_asked = Some(now);
            return (numbers, !first);
        }
        (numbers, false)
    }

    /// A new session begins: numbers may start anew under the same SSRC.
    pub fn restart(&mut self) {
        self.stats.lost += self.order.holes();
        self.order = Order::default();
        self.ssrc = None;
    }

    /// The packets with which the stream begins were not kept: it need not
    /// begin with a key frame.
    pub fn behead(&mut self) {
        self.beheaded = true;
    }

    /// The SSRC the packets come on.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Presence said whether the source is muted.
    pub fn set_muted(&mut self, now: Instant, muted: bool) {
        if self.mutes.set(now, muted) {
            self.stats.gap.pause();
            self.heights.pause(now);
        }
    }

    /// Nothing counts from `end` on, which is long enough ago for repairs to
    /// have come.
    pub fn close(&mut self, end: Instant) {
        self.restart();
        if !self.mutes.is_muted() {
            self.stats.gap.close(end);
            self.heights.close(end);
        }
        self.mutes.close(end);
    }
}

#[cfg(test)]
mod tests;
