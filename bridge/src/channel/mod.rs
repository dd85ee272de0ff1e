//! Messages of the bridge channel: JSON objects with a `colibriClass`.
//!
//! What is read is read leniently: unknown fields are ignored, and so are
//! fields of the wrong type where the rest still makes sense. What is written
//! is written as JVB writes it, to the byte. What only passes through
//! (`EndpointMessage`, `EndpointStats`) is not understood, only addressed.

mod read;
mod write;

pub use read::{ChannelError, Incoming, MAX_MESSAGE, VideoConstraints, parse};
pub use write::{
    connectivity, dominant_speaker, forwarded_sources, last_n_endpoints, sender_source_constraints,
    sender_video_constraints, server_hello,
};

use std::collections::BTreeSet;

/// Which audio sources a receiver wants (`ReceiverAudioSubscription`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSubscription {
    pub all: bool,
    pub include: BTreeSet<String>,
    pub exclude: BTreeSet<String>,
}

impl Default for AudioSubscription {
    /// That of a receiver that has said nothing: everything.
    fn default() -> Self {
        Self {
            all: true,
            include: BTreeSet::new(),
            exclude: BTreeSet::new(),
        }
    }
}

impl AudioSubscription {
    /// Whether the source of this name is wanted.
    pub fn wants(&self, source: &str) -> bool {
        (self.all || self.include.contains(source)) && !self.exclude.contains(source)
    }
}
