//! What members find: each its own counts, and what those of one thread share.

use std::sync::Arc;
use std::time::Instant;

use super::stream::Counts;
use super::{SentBoard, Settings};
use crate::client::Clock;
use crate::measure::delay::Histogram;

/// What members of one thread share.
pub struct Around {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub sent: Arc<SentBoard>,
    /// Delays of the packets that were opened, and how late packets were sent.
    pub delays: Histogram,
    pub lateness: Histogram,
    /// Packets received and sent by all.
    pub received: u64,
    pub transmitted: u64,
    pub(super) payload: Vec<u8>,
}

impl Around {
    pub fn new(settings: Arc<Settings>, clock: Clock, sent: Arc<SentBoard>) -> Self {
        Self {
            settings,
            clock,
            sent,
            delays: Histogram::default(),
            lateness: Histogram::default(),
            received: 0,
            transmitted: 0,
            payload: Vec::new(),
        }
    }
}

/// What a member received, all streams together.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub audio: Counts,
    pub video: Counts,
    /// Packets that the senders sent for it meanwhile.
    pub expected: u64,
    pub octets: u64,
    /// Streams to be had, and those of which nothing came.
    pub streams: u64,
    pub silent: u64,
    /// Packets of SSRCs of nobody, and retransmissions that repair nothing:
    /// probing.
    pub other: u64,
    pub padding: u64,
    pub opened: u64,
    /// Of those opened: not authentic; no tag of ours; the tag of another.
    pub forged: u64,
    pub corrupt: u64,
    pub foreign: u64,
    /// Pictures' packets opened, by layer.
    pub layers: [u64; 3],
    /// Thrown away on purpose.
    pub dropped: u64,
    pub nacks: u64,
    pub key_requests: u64,
}

impl Found {
    pub fn add(&mut self, other: &Self) {
        self.audio.add(&other.audio);
        self.video.add(&other.video);
        self.expected += other.expected;
        self.octets += other.octets;
        self.streams += other.streams;
        self.silent += other.silent;
        self.other += other.other;
        self.padding += other.padding;
        self.opened += other.opened;
        self.forged += other.forged;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        for (layer, more) in self.layers.iter_mut().zip(other.layers) {
            *layer += more;
        }
        self.dropped += other.dropped;
        self.nacks += other.nacks;
        self.key_requests += other.key_requests;
    }
}

/// When what was reached; counted from the first request for the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    pub asked: Option<Instant>,
    pub ice: Option<Instant>,
    pub connected: Option<Instant>,
    pub channel: Option<Instant>,
    pub audio: Option<Instant>,
    pub frame: Option<Instant>,
}
