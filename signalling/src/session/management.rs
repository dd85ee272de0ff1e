//! Stream management (XEP-0198): which stanzas the server has, which of the
//! server's we have, and the state from which another process can go on.
//!
//! In: stanzas to send, `h` values of the server, stanzas received.
//! Out: what to write next, what `h` to tell.
//! Without stream management the same queue forgets a stanza once written.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xmpp_parsers::minidom::Element;

/// How many stanzas may wait for the server's acknowledgement, or for the
/// stream to be resumed. A server that gets this far behind is given up.
pub(super) const MAX_UNACKNOWLEDGED: usize = 4096;

/// All that another process needs to go on with a stream (XEP-0198 §5).
/// Plain data, to be written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// The `id` of `<enabled/>`.
    pub id: String,
    /// The full JID that the stream is bound to.
    pub bound: String,
    /// How long the server keeps the stream after a loss, seconds, if it said.
    pub max: Option<u32>,
    /// Stanzas received *and handled by the owner*, modulo 2^32.
    pub handled: u32,
    /// Our stanzas that the server has acknowledged, modulo 2^32.
    pub acknowledged: u32,
    /// Our stanzas after those, oldest first.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub unacknowledged: Vec<Element>,
}

fn to_text<S: Serializer>(elements: &[Element], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(elements.iter().map(String::from))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Element>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .collect()
}

/// The server acknowledged stanzas that it was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server acknowledged {told}, where {acknowledged} of {sent} could be")]
pub struct BadAcknowledgement {
    pub told: u32,
    pub acknowledged: u32,
    pub sent: u32,
}

/// The stream to come back to.
#[derive(Clone, Debug)]
struct Resumable {
    id: String,
    bound: String,
    max: Option<u32>,
}

/// Counters and queue of one session.
#[derive(Debug, Default)]
pub struct Management {
    resumable: Option<Resumable>,
    /// Both sides count stanzas on the present stream.
    counting: bool,
    received: u32,
    acknowledged: u32,
    queue: VecDeque<Element>,
    /// How many of `queue` were written on the present connection.
    written: usize,
}

impl Management {
    /// Goes on from what another process wrote down.
    pub fn restore(state: StreamState) -> Self {
        Self {
            resumable: Some(Resumable {
                id: state.id,
                bound: state.bound,
                max: state.max,
            }),
            counting: false,
            received: state.handled,
            acknowledged: state.acknowledged,
            queue: state.unacknowledged.into(),
            written: 0,
        }
    }

    /// What to write down now. `handled` is how many stanzas the owner is
    /// done with. `None`: the stream cannot be resumed.
    pub fn state(&self, handled: u32) -> Option<StreamState> {
        let Resumable { id, bound, max } = self.resumable.clone()?;
        Some(StreamState {
            id,
            bound,
            max,
            handled,
            acknowledged: self.acknowledged,
            unacknowledged: self.queue.iter().cloned().collect(),
        })
    }

    /// Id and `h` for `<resume/>`, if there is a stream to resume.
    pub fn resume_request(&self) -> Option<(&str, u32)> {
        let resumable = self.resumable.as_ref()?;
        Some((&resumable.id, self.received))
    }

    /// The JID of the stream that can be resumed.
    pub fn bound(&self) -> Option<&str> {
        Some(&self.resumable.as_ref()?.bound)
    }

    /// A fresh stream: whatever was in flight is gone. Returns how many
    /// stanzas that were.
    pub fn reset(&mut self) -> usize {
        std::mem::take(self).queue.len()
    }

    /// `<enabled/>` came: both sides count from here. `resume` holds id and
    /// `max` if the server keeps the stream.
    pub fn enabled(&mut self, bound: &str, resume: Option<(String, Option<u32>)>) {
        self.counting = true;
        self.received = 0;
        self.acknowledged = 0;
        self.resumable = resume.map(|(id, max)| Resumable {
            id,
            bound: bound.to_owned(),
            max,
        });
    }

    /// `<resumed/>` came with the server's `h`: what it lacks is written again.
    pub fn resumed(&mut self, h: u32) -> Result<usize, BadAcknowledgement> {
        self.counting = true;
        self.written = self.queue.len();
        let taken = self.acknowledge(h)?;
        self.written = 0;
        Ok(taken)
    }

    /// The connection is gone. What can be resumed is kept.
    pub fn disconnected(&mut self) {
        self.counting = false;
        self.written = 0;
        if self.resumable.is_none() {
            self.queue.clear();
        }
    }

    /// Whether a stanza that is pushed now will be kept until it can be sent.
    pub fn resumable(&self) -> bool {
        self.resumable.is_some()
    }

    /// Whether stanzas are counted on the present stream.
    pub fn counting(&self) -> bool {
        self.counting
    }

    /// Puts a stanza at the end of the queue; `false` if there is no room.
    pub fn push(&mut self, stanza: Element) -> bool {
        let room = self.queue.len() < MAX_UNACKNOWLEDGED;
        if room {
            self.queue.push_back(stanza);
        }
        room
    }

    /// The next stanza to write, if any.
    pub fn unwritten(&self) -> Option<&Element> {
        self.queue.get(self.written)
    }

    /// `unwritten` was written.
    pub fn wrote(&mut self) {
        if self.counting {
            self.written += 1;
        } else {
            self.queue.pop_front();
        }
    }

    /// `unwritten` cannot be written at all: forget it.
    pub fn discard(&mut self) {
        self.queue.remove(self.written);
    }

    /// How many written stanzas the server has not acknowledged.
    pub fn pending(&self) -> usize {
        self.written
    }

    /// A stanza came. Returns its number on this stream.
    pub fn receive(&mut self) -> u32 {
        if self.counting {
            self.received = self.received.wrapping_add(1);
        }
        self.received
    }

    /// How many stanzas came on this stream.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// `<a/>` came. Returns how many stanzas it took off the queue.
    pub fn acknowledge(&mut self, h: u32) -> Result<usize, BadAcknowledgement> {
        let count = h.wrapping_sub(self.acknowledged) as usize;
        if count > self.written {
            return Err(BadAcknowledgement {
                told: h,
                acknowledged: self.acknowledged,
                sent: self.acknowledged.wrapping_add(self.written as u32),
            });
        }
        self.queue.drain(..count);
        self.written -= count;
        self.acknowledged = h;
        Ok(count)
    }
}
