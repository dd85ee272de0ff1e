//! Who knows of which source: a receiver gets no packet of a source that its
//! signalling has yet to tell it of.
//!
//! A client that gets packets before their source-add has to guess whose they
//! are. Chromium's guess does no harm. Firefox binds the SSRC by its payload
//! type to a media line of its own, and when the source-add comes the source
//! stays black and silent for the rest of the call (seen with Firefox ESR 153:
//! "Unable to add sink due to conflicting criteria"). The bridge is not told
//! what clients know, but it sees what their knowledge follows from: what was
//! signalled before an endpoint was made is in its offer; of later sources it
//! hears when the bridge does, and not before it has answered its offer.

use std::time::{Duration, Instant};

use super::{Conference, Turn};

/// From the word to the bridge to the end of a client's renegotiation. Firefox
/// ESR 153 took up to 0.3 s on a busy machine.
const SETTLE: Duration = Duration::from_millis(500);

impl Conference {
    /// Whether the receiver at `slot` is taken to know the source at `place`.
    pub(super) fn knows(&self, now: Instant, slot: usize, place: usize) -> bool {
        let receiver = self.endpoints[slot].as_ref();
        let (Some(receiver), Some(placed)) = (receiver, self.sources[place].as_ref()) else {
            return false;
        };
        placed.signalled <= receiver.created
            || receiver
                .answered
                .is_some_and(|answered| now >= answered.max(placed.signalled) + SETTLE)
    }

    /// New sources were signalled: in a while somebody knows more than now.
    pub(super) fn await_acquaintance(&mut self, now: Instant) {
        self.acquaintances.insert(now + SETTLE);
    }

    /// The endpoint at `slot` has answered its offer: in a while it knows what
    /// was signalled since that was made, if anything was.
    pub(super) fn offer_answered(&mut self, now: Instant, slot: usize) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        endpoint.answered = Some(now);
        let created = endpoint.created;
        let mut sources = self.sources.iter().flatten();
        if sources.any(|placed| placed.signalled > created) {
            self.await_acquaintance(now);
        }
    }

    pub(super) fn next_acquaintance(&self) -> Option<Instant> {
        self.acquaintances.first().copied()
    }

    /// Lets those have sources who are taken to know them by now.
    pub(super) fn make_acquaintances(&mut self, turn: &mut Turn<'_>) {
        let mut due = false;
        while self.next_acquaintance().is_some_and(|at| at <= turn.now) {
            self.acquaintances.pop_first();
            due = true;
        }
        if !due {
            return;
        }
        for place in 0..self.sources.len() {
            for receiver in 0..self.endpoints.len() {
                self.offer_audio(turn, place, receiver);
            }
        }
        self.allocate(turn, None);
    }
}
