//! One primary SSRC of a sender, with its retransmissions restored.

use std::time::Instant;

use super::nack::NackGenerator;
use super::renumber::Renumber;
use super::statistics::Statistics;
use super::store::PacketStore;
use super::window::{Seen, Window};
use crate::command::Encoding;
use crate::rtp::dependency_descriptor::History;
use crate::rtp::{PacketIndex, Ssrc};
use crate::stats::DropCause;

/// The state of one primary SSRC.
#[derive(Debug)]
pub struct Stream {
    pub encoding: Encoding,
    pub statistics: Option<Statistics>,
    pub nack: NackGenerator,
    pub store: PacketStore,
    pub(super) renumber: Renumber,
    pub(super) descriptors: History,
    /// Timestamp of the newest key frame found in a payload.
    key_frame: Option<u32>,
    window: Window,
    /// When packets began to come in an unbroken row, for the time received.
    pub(super) receiving_since: Option<Instant>,
}

impl Stream {
    /// Nothing has come yet.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            statistics: None,
            nack: NackGenerator::default(),
            store: PacketStore::default(),
            renumber: Renumber::default(),
            descriptors: History::default(),
            key_frame: None,
            window: Window::default(),
            receiving_since: None,
        }
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> Ssrc {
        self.encoding.primary
    }

    /// The index of a packet that came by retransmission. Without a packet to
    /// measure from, it is taken to be in the first cycle.
    pub(super) fn restored_index(&self, sequence_number: u16) -> PacketIndex {
        match self.window.highest() {
            Some(highest) => highest.nearest(sequence_number),
            None => PacketIndex(u64::from(sequence_number)),
        }
    }

    /// Whether a packet is the first one seen of those of a picture with this
    /// timestamp that begin a part of a key frame.
    pub(super) fn begins_key_frame(&mut self, timestamp: u32, part: bool) -> bool {
        part && self.key_frame.replace(timestamp) != Some(timestamp)
    }

    /// Refuses packets that came already.
    pub(super) fn check_new(&mut self, index: PacketIndex) -> Result<(), DropCause> {
        match self.window.insert(index) {
            Seen::First => Ok(()),
            Seen::Again => Err(DropCause::Duplicate),
            Seen::TooOld => Err(DropCause::TooOld),
        }
    }

    /// Counts a packet for the receiver report.
    pub(super) fn count(
        &mut self,
        now: Instant,
        clock_rate: u32,
        index: PacketIndex,
        timestamp: u32,
    ) {
        match &mut self.statistics {
            Some(statistics) => statistics.received(now, index, timestamp),
            None => {
                self.statistics = Some(Statistics::new(now, clock_rate, index, timestamp));
            }
        }
    }
}
