//! What the shards of a bridge tell each other: plain data, which whoever runs
//! them carries.
//!
//! A conference may have endpoints on several shards. Each has a part of it and
//! knows all its endpoints and sources: the registry tells them. A source is
//! received where its owner is homed: there alone it is opened, counted, asked
//! for again and read. What comes of it is published, once for each other part
//! that has receivers for it.
//!
//! [`PeerMessage`]s between any two shards arrive in the order in which they
//! were sent, and after all commands that the registry gave out before; none is
//! lost but, when the other is far behind, those that are expendable.
//! [`Published`] packets have a way of their own, on which the newest are lost
//! when it is full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::allocation::Layer;
use crate::command::VideoType;
use crate::id::{ConferenceId, EndpointId, MemberId};
use crate::projection::LayerIndex;
use crate::receive::ArrivalMedia;
use crate::receive::keyframe::Asker;
use crate::rtcp::report::SenderInfo;
use crate::rtp::{PacketIndex, Ssrc};

/// The most shards, and workers, of a bridge: a user name fragment has an octet
/// for their numbers.
pub const MAX_WORKERS: usize = 256;

/// Word of one shard for another.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// The address is that of one of the sender's endpoints, since then.
    AddressBound { address: SocketAddr, since: Instant },
    /// The address is not of the sender's endpoints any more.
    AddressForgotten { address: SocketAddr },
    /// Word of one part of a conference for another.
    Part {
        conference: ConferenceId,
        news: News,
    },
}

impl PeerMessage {
    /// Whether it may be dropped if the other is far behind: what clients bring
    /// about, packet by packet or message by message, as often as they like.
    pub fn is_expendable(&self) -> bool {
        let Self::Part { news, .. } = self else {
            return false;
        };
        matches!(
            news,
            News::Keyframe { .. }
                | News::SenderReport { .. }
                | News::Layers { .. }
                | News::Message { .. }
                | News::Statistics { .. }
        )
    }
}

/// A source, wherever it is homed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceKey {
    pub owner: MemberId,
    /// Of its lowest encoding.
    pub primary: Ssrc,
}

/// What the receivers of a part want of a source that is homed elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Somebody gets it, or got it and may again: its packets are to be published.
    pub gets: bool,
    /// The greatest height anyone there wants, -1 for unlimited; `None` while
    /// nobody has asked for anything.
    pub height: Option<i32>,
}

/// The layers of a video source with their rates, as of some moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerList {
    /// Grows with every change.
    pub version: u32,
    pub layers: Arc<[(LayerIndex, Layer)]>,
}

/// What one part of a conference tells another.
#[derive(Clone, Debug)]
pub enum News {
    /// To the home of a source: what is wanted of it there.
    Watch { source: SourceKey, watch: Watch },
    /// To the home of a source: ask for a key frame, within the limits.
    Keyframe { source: SourceKey, asker: Asker },
    /// From the home of a source, to all that watch it. If it began or ceased
    /// to send an encoding, receivers may get others than before.
    Layers {
        source: SourceKey,
        layers: LayerList,
        began_or_ceased: bool,
    },
    /// From the home of a source: what its sender reports of an encoding.
    SenderReport {
        source: SourceKey,
        encoding: u8,
        info: SenderInfo,
    },
    /// What an endpoint said its sources show, signalled or not yet.
    VideoTypes {
        owner: MemberId,
        types: Vec<(String, VideoType)>,
    },
    /// Whether an endpoint can be heard of.
    Connectivity { endpoint: MemberId, active: bool },
    /// From the part that decides who speaks.
    Floor {
        order: Vec<MemberId>,
        spoken: usize,
        dominant: Option<MemberId>,
        /// The dominant speaker is another than before.
        changed: bool,
    },
    /// To the home of a new dominant speaker: who is waiting there to see it.
    Audience {
        speaker: MemberId,
        audience: Audience,
    },
    /// An `EndpointMessage` for one endpoint or for all.
    Message {
        to: Option<EndpointId>,
        text: String,
    },
    /// An `EndpointStats`.
    Statistics { from: MemberId, text: String },
    /// To the part that counts: how many endpoints are sending here.
    Senders(Senders),
    /// The part ends, and wants nothing any more.
    Ended,
}

/// The receivers of a dominant speaker, or some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Somebody has a camera on stage.
    pub staged: bool,
    /// The longest round trip to any of them.
    pub round_trip: Option<Duration>,
}

impl Audience {
    /// This and another together.
    pub fn and(self, other: Self) -> Self {
        Self {
            staged: self.staged | other.staged,
            round_trip: self.round_trip.max(other.round_trip),
        }
    }
}

/// How many endpoints are sending media just now, and how many of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Senders {
    pub any: u32,
    pub audio: u32,
    pub video: u32,
}

impl Senders {
    /// These and those of another part.
    pub fn and(self, other: Self) -> Self {
        Self {
            any: self.any + other.any,
            audio: self.audio + other.audio,
            video: self.video + other.video,
        }
    }
}

/// What there is to know of a packet that is published, beside its octets.
#[derive(Clone, Debug)]
pub struct Published {
    pub conference: ConferenceId,
    pub source: SourceKey,
    /// Its index with hidden packets left out.
    pub index: PacketIndex,
    pub media: ArrivalMedia,
    /// The layers of the source, if they changed with this packet.
    pub layers: Option<LayerList>,
}

/// Some of a bridge's shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; MAX_WORKERS / 64]);

impl ShardSet {
    /// Puts a shard in or takes it out.
    pub fn set(&mut self, number: usize, present: bool) {
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        *word = if present { *word | bit } else { *word & !bit };
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Their numbers.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                // The lowest of the bits goes; of none, none is left.
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

/// What a shard has for the others. Room is reused from turn to turn, so a
/// published packet costs no allocation.
#[derive(Debug, Default)]
pub struct PeerOutbox {
    messages: Vec<(usize, PeerMessage)>,
    published: Vec<(ShardSet, Published, usize)>,
    arena: Vec<u8>,
}

impl PeerOutbox {
    /// Tells a shard something.
    pub fn tell(&mut self, to: usize, message: PeerMessage) {
        self.messages.push((to, message));
    }

    /// Publishes a packet for some shards: the octets are held once.
    pub fn publish(&mut self, to: ShardSet, head: Published, packet: &[u8]) {
        self.arena.extend_from_slice(packet);
        self.published.push((to, head, packet.len()));
    }

    /// The messages, each with whom it is for.
    pub fn take_messages(&mut self) -> impl Iterator<Item = (usize, PeerMessage)> {
        self.messages.drain(..)
    }

    /// Hands out the packets, each with whom it is for, and forgets them.
    pub fn take_published(&mut self, mut take: impl FnMut(ShardSet, Published, &[u8])) {
        let mut start = 0;
        for (to, head, len) in self.published.drain(..) {
            take(to, head, &self.arena[start..][..len]);
            start += len;
        }
        self.arena.clear();
    }
}

/// Which of a bridge's shards one is.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Its number, and that of the worker that runs it.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// Length of `ice.ufrag-prefix`, behind which a user name fragment names
    /// the worker.
    pub ufrag_prefix: usize,
}

impl Site {
    /// The only shard of a bridge.
    pub const ALONE: Self = Self {
        number: 0,
        count: 1,
        ufrag_prefix: 0,
    };

    /// All shards but this one.
    pub fn others(self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(move |number| *number != self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_shard_by_itself() {
        let mut set = ShardSet::default();
        for number in [0, 63, 64, 200, 255] {
            set.set(number, true);
        }
        set.set(64, false);
        set.set(3, false);
        assert!(set.iter().eq([0, 63, 200, 255]));
        assert!(!set.is_empty());
        set.iter().for_each(|number| set.set(number, false));
        assert!(set.is_empty());
        assert_eq!(set.iter().next(), None);
    }
}
