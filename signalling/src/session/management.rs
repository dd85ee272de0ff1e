//! Stream management (XEP-0198): which stanzas the server has, which of the
//! server's we have, and the state from which another process can go on.
//!
//! In: stanzas to send, `h` values of the server, stanzas received.
//! Out: what to write next, what `h` to tell.
//! Without stream management the same queue forgets a stanza once written.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::xml::{self, Element};

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
    /// Stanzas received *and handled by the owner*, modulo 2^32. The server
    /// must not have been told of more, or it ends the stream instead of
    /// resuming it (seen with Prosody 0.12).
    pub handled: u32,
    /// Our stanzas that the server has acknowledged, modulo 2^32.
    pub acknowledged: u32,
    /// Our stanzas after those, oldest first.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub unacknowledged: Vec<Element>,
}

fn to_text<S: Serializer>(elements: &[Element], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(elements.iter().map(xml::write))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Element>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| xml::parse(text.as_bytes()).map_err(serde::de::Error::custom))
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

/// What a stanza is to the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Stanzas are not counted on this stream.
    Uncounted,
    /// Sent again after a loss, though it had come.
    Repeated,
    /// Its number on this stream.
    Number(u32),
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
    /// Stanzas to come that came before the last loss.
    repeated: u32,
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
            repeated: 0,
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

    /// The id for `<resume/>`, if there is a stream to resume.
    pub fn resumable_id(&self) -> Option<&str> {
        Some(&self.resumable.as_ref()?.id)
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
        self.repeated = 0;
        self.acknowledged = 0;
        self.resumable = resume.map(|(id, max)| Resumable {
            id,
            bound: bound.to_owned(),
            max,
        });
    }

    /// `<resumed/>` came with the server's `h`, in answer to `told`: what
    /// either side lacks is sent again.
    pub fn resumed(&mut self, told: u32, h: u32) -> Result<usize, BadAcknowledgement> {
        self.counting = true;
        self.repeated = self.received.wrapping_sub(told);
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

    /// Puts a stanza at the end of the queue; `false` if there is no room.
    pub fn push(&mut self, stanza: Element) -> bool {
        let room = !self.full();
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

    /// Whether the queue has no room left.
    pub fn full(&self) -> bool {
        self.queue.len() >= MAX_UNACKNOWLEDGED
    }

    /// A stanza came.
    pub fn receive(&mut self) -> Receipt {
        if !self.counting {
            return Receipt::Uncounted;
        }
        if self.repeated > 0 {
            self.repeated -= 1;
            return Receipt::Repeated;
        }
        self.received = self.received.wrapping_add(1);
        Receipt::Number(self.received)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stanza(number: u32) -> Element {
        let mut stanza = Element::bare("message", "jabber:client");
        stanza.append_text(number.to_string());
        stanza
    }

    fn managed(resumable: bool) -> Management {
        let mut management = Management::default();
        management.enabled("a@b/c", resumable.then(|| ("s".to_owned(), Some(60))));
        management
    }

    /// Writes what waits, and returns it.
    fn write_all(management: &mut Management) -> Vec<String> {
        let mut written = Vec::new();
        while let Some(stanza) = management.unwritten() {
            written.push(stanza.text());
            management.wrote();
        }
        written
    }

    #[test]
    fn without_counting_a_written_stanza_is_forgotten() {
        let mut management = Management::default();
        assert!(management.push(stanza(1)));
        assert_eq!(write_all(&mut management), ["1"]);
        assert_eq!(
            (management.pending(), management.receive()),
            (0, Receipt::Uncounted)
        );
        assert_eq!(management.state(0), None);
    }

    #[test]
    fn a_resumed_stream_repeats_exactly_what_the_server_lacks() {
        let mut management = managed(true);
        for number in 1..=5 {
            management.push(stanza(number));
        }
        assert_eq!(write_all(&mut management).len(), 5);
        assert_eq!(management.acknowledge(2), Ok(2));
        for number in 1..=3 {
            assert_eq!(management.receive(), Receipt::Number(number));
        }
        management.disconnected();
        management.push(stanza(6));
        assert_eq!(management.resumable_id(), Some("s"));
        // The third was not written down, so the server sends it again.
        assert_eq!(management.resumed(2, 4), Ok(2));
        assert_eq!(write_all(&mut management), ["5", "6"]);
        assert_eq!(management.acknowledge(6), Ok(2));
        assert_eq!(management.receive(), Receipt::Repeated);
        assert_eq!(management.receive(), Receipt::Number(4));
    }

    #[test]
    fn another_process_goes_on_from_what_was_written_down() {
        let mut management = managed(true);
        for number in 1..=3 {
            management.push(stanza(number));
        }
        write_all(&mut management);
        management.acknowledge(1).expect("one of three");
        for _ in 0..4 {
            management.receive();
        }
        let state = management.state(3).expect("a resumable stream");
        let text = serde_json::to_string(&state).expect("plain data");
        let read: StreamState = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read, state);

        let mut other = Management::restore(read);
        assert_eq!((other.resumable_id(), other.received()), (Some("s"), 3));
        assert_eq!(other.bound(), Some("a@b/c"));
        other.resumed(3, 2).expect("two of three");
        assert_eq!(write_all(&mut other), ["3"]);
    }

    #[test]
    fn a_lost_stream_without_resumption_keeps_nothing() {
        let mut management = managed(false);
        management.push(stanza(1));
        management.disconnected();
        assert_eq!(management.unwritten(), None);
        assert_eq!(management.resumable_id(), None);
    }

    #[test]
    fn acknowledging_what_was_never_sent_is_an_error() {
        let mut management = managed(true);
        management.push(stanza(1));
        let error = BadAcknowledgement {
            told: 1,
            acknowledged: 0,
            sent: 0,
        };
        assert_eq!(management.acknowledge(1), Err(error));
        write_all(&mut management);
        assert_eq!(management.acknowledge(1), Ok(1));
        assert!(management.acknowledge(0).is_err());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut management = managed(true);
        for number in 0..MAX_UNACKNOWLEDGED as u32 {
            assert!(management.push(stanza(number)));
        }
        assert!(management.full() && !management.push(stanza(0)));
    }

    proptest! {
        /// However pushes, writes, losses and acknowledgements interleave,
        /// the server gets every stanza once and in order, counters wrapping.
        #[test]
        fn nothing_is_lost_or_doubled(
            start in prop_oneof![Just(0u32), Just(u32::MAX - 3)],
            steps in prop::collection::vec(0u8..4, 1..200),
        ) {
            let mut management = managed(true);
            management.acknowledged = start;
            let mut server: Vec<String> = Vec::new();
            let mut pushed = 0u32;
            for step in steps {
                match step {
                    0 => { management.push(stanza(pushed)); pushed += 1; }
                    1 => if let Some(stanza) = management.unwritten() {
                        server.push(stanza.text());
                        management.wrote();
                    },
                    2 => {
                        let h = start.wrapping_add(server.len() as u32);
                        prop_assert!(management.acknowledge(h).is_ok());
                    }
                    _ => {
                        management.disconnected();
                        let h = start.wrapping_add(server.len() as u32);
                        prop_assert!(management.resumed(0, h).is_ok());
                    }
                }
            }
            server.extend(write_all(&mut management));
            let all: Vec<String> = (0..pushed).map(|number| number.to_string()).collect();
            prop_assert_eq!(server, all);
        }
    }
}
