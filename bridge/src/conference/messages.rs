//! What is said on the bridge channels of a conference: what clients ask for,
//! and what they tell each other.

use tracing::debug;

use super::{Conference, Turn};
use crate::allocation::Constraint;
use crate::channel::{self, Incoming};
use crate::command::VideoType;
use crate::peers::News;
use crate::stats::DropCause;

/// Height of what an older client did not select.
const UNSELECTED_HEIGHT: i32 = 180;

impl Conference {
    /// Tells a client that was told nothing yet, or not everything, how things
    /// stand.
    pub(super) fn greet(&mut self, turn: &mut Turn<'_>, slot: usize) {
        self.send(turn, slot, channel::server_hello());
        for place in self.places_of(slot) {
            self.send_wanted(turn, place);
        }
        self.send_forwarded(turn, slot);
        let inactive = self.members.iter().flatten().filter(|m| !m.active);
        let inactive: Vec<String> = inactive
            .map(|other| channel::connectivity(&other.id, false))
            .collect();
        for text in inactive {
            self.send(turn, slot, text);
        }
        if let Some(text) = self.dominant_speaker(turn) {
            self.send(turn, slot, text);
        }
    }

    /// A message came on a channel of an endpoint.
    pub(super) fn read_message(&mut self, turn: &mut Turn<'_>, slot: usize, text: &str) {
        let Some(endpoint) = &self.endpoints[slot] else {
            return;
        };
        turn.counters.channel_messages_received += 1;
        match channel::parse(text, &endpoint.id) {
            Ok(message) => self.handle_message(turn, slot, message),
            Err(error) => {
                debug!(conference = %self.id, endpoint = %endpoint.id, %error, "message refused");
                turn.drop(DropCause::ChannelMessage);
            }
        }
    }

    fn handle_message(&mut self, turn: &mut Turn<'_>, slot: usize, message: Incoming) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        match message {
            Incoming::ClientHello => self.send(turn, slot, channel::server_hello()),
            Incoming::VideoConstraints(message) => {
                let by_endpoint = message.by_endpoint;
                message.apply(&mut endpoint.constraints, turn.settings);
                self.asked(turn, slot, by_endpoint);
            }
            Incoming::LastN(last_n) => {
                endpoint.constraints.last_n = last_n;
                self.allocate(turn, Some(slot));
            }
            Incoming::SelectedEndpoints(selected) => {
                let constraints = &mut endpoint.constraints;
                constraints.selected = selected;
                // The height goes with the selection.
                let height = constraints.constraints.values().next().copied();
                if let Some(height) = height {
                    let names = constraints.selected.iter().cloned();
                    constraints.constraints = names.map(|name| (name, height)).collect();
                }
                self.asked(turn, slot, true);
            }
            Incoming::FrameHeight(height) => {
                let constraints = &mut endpoint.constraints;
                let names = constraints.selected.iter().cloned();
                let wanted = Constraint::height(height);
                constraints.constraints = names.map(|name| (name, wanted)).collect();
                constraints.default = Constraint::height(UNSELECTED_HEIGHT.min(height));
                constraints.spoken = true;
                self.asked(turn, slot, true);
            }
            Incoming::SourceVideoType { source, video_type } => {
                self.set_video_type(turn, slot, &source, video_type);
            }
            Incoming::VideoType(video_type) => {
                let source = format!("{}-v0", endpoint.id);
                self.set_video_type(turn, slot, &source, video_type);
            }
            Incoming::AudioSubscription(subscription) => {
                endpoint.audio = subscription;
                for place in 0..self.sources.len() {
                    self.offer_audio(turn, place, slot);
                }
                self.unsettled = true;
            }
            Incoming::EndpointMessage { .. } if endpoint.visitor => turn.drop(DropCause::Visitor),
            Incoming::EndpointMessage { to, text } if to.is_empty() => {
                self.broadcast(turn, Some(slot), &text);
                self.tell_parts(turn, &News::Message { to: None, text });
            }
            Incoming::EndpointMessage { to, text } => {
                let id = to.as_str().into();
                match self
                    .by_id
                    .get(&id)
                    .and_then(|to| self.members[*to].as_ref())
                {
                    Some(member) if member.home != self.shard => {
                        let to = Some(id);
                        self.tell(turn, member.home, News::Message { to, text });
                    }
                    Some(_) => {
                        if let Some(to) = self.find(&id) {
                            self.send(turn, to, text);
                        }
                    }
                    None => {}
                }
            }
            Incoming::EndpointStats { text } => {
                self.pass_statistics(turn, slot, &text);
                if let Some(member) = &self.members[slot] {
                    let from = member.number;
                    self.tell_parts(turn, &News::Statistics { from, text });
                }
            }
        }
    }

    /// A client said what one of its sources shows.
    fn set_video_type(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        source: &str,
        video_type: VideoType,
    ) {
        if self.note_video_type(slot, source, video_type) {
            self.allocate(turn, None);
        }
    }

    /// A receiver asked for other video than before.
    fn asked(&mut self, turn: &mut Turn<'_>, slot: usize, by_endpoint: bool) {
        let older = self.endpoints[slot].as_mut().is_some_and(|endpoint| {
            // Known as an older client only now: what it was told so far, it
            // did not understand.
            by_endpoint && !std::mem::replace(&mut endpoint.older, true)
        });
        if older {
            self.send_forwarded(turn, slot);
            let own = self.places_of(slot);
            let told = own.into_iter().find(|place| self.wanted(*place).is_some());
            if let Some(place) = told {
                self.send_wanted(turn, place);
            }
        }
        self.allocate(turn, Some(slot));
    }

    /// The places of a member's sources.
    fn places_of(&self, slot: usize) -> Vec<usize> {
        let member = self.members[slot].as_ref();
        member.map_or(Vec::new(), |member| member.sources.clone())
    }

    /// Statistics go to all others; in a large conference only to those that
    /// look at the sender.
    pub(super) fn pass_statistics(&mut self, turn: &mut Turn<'_>, from: usize, text: &str) {
        let Some(sender) = &self.members[from] else {
            return;
        };
        let everybody = self.by_id.len() <= turn.settings.stats_filter_threshold;
        let order = self.floor.order().list();
        let recent = order.len().min(1 + turn.settings.recent_speakers);
        let speaks = order[..recent].contains(&from);
        let looks = |slot: &usize| {
            let Some(receiver) = self.endpoints[*slot].as_ref() else {
                return false;
            };
            let granted = |place| receiver.granted.get(place).is_some_and(|h| *h != 0);
            *slot != from && (everybody || speaks || sender.sources.iter().any(granted))
        };
        let looking: Vec<usize> = (0..self.endpoints.len()).filter(looks).collect();
        for slot in looking {
            self.send(turn, slot, text.to_owned());
        }
    }

    /// Sends to all endpoints here but one.
    pub(super) fn broadcast(&mut self, turn: &mut Turn<'_>, but: Option<usize>, text: &str) {
        for slot in 0..self.endpoints.len() {
            if Some(slot) != but {
                self.send(turn, slot, text.to_owned());
            }
        }
    }

    /// The message that names the dominant speaker, if there is one.
    pub(super) fn dominant_speaker(&self, turn: &Turn<'_>) -> Option<String> {
        let order = self.floor.order();
        let dominant = self.members[order.dominant()?].as_ref()?;
        let previous = order
            .previous()
            .iter()
            .take(turn.settings.recent_speakers)
            .filter_map(|slot| self.members[*slot].as_ref())
            .map(|member| &member.id);
        Some(channel::dominant_speaker(&dominant.id, previous))
    }
}
