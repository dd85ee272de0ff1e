//! The ways to one client's bridge channel: a WebSocket, which the control
//! plane carries, and a data channel, which rides on the client's own transport.
//!
//! A client has one of each at most. Either may come and go while the other is
//! there: what opened or spoke last is what the client is told things on
//! (`jitsi-videobridge:jvb/…/EndpointMessageTransport`), and when that closes,
//! the other one takes over and is told everything anew.

use tracing::debug;

use super::{Conference, Turn};
use crate::command::{ChannelCloseReason, Event};
use crate::id::ChannelId;
use crate::stats::DropCause;
use crate::transport::{ChannelEvent, ChannelRefusal, SctpError};

/// A way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    WebSocket(ChannelId),
    Data,
}

/// The ways to a client that are open, the one in use last.
#[derive(Clone, Debug, Default)]
pub(super) struct Channels(Vec<Channel>);

impl Channels {
    /// The one to use.
    pub(super) fn current(&self) -> Option<Channel> {
        self.0.last().copied()
    }

    /// All that are open, the one in use last.
    pub(super) fn open(&self) -> &[Channel] {
        &self.0
    }

    /// The WebSocket, in use or not.
    pub(super) fn web_socket(&self) -> Option<ChannelId> {
        self.0.iter().find_map(|open| match open {
            Channel::WebSocket(id) => Some(*id),
            Channel::Data => None,
        })
    }

    /// A new one. Answers the WebSocket whose place it takes.
    fn opened(&mut self, channel: Channel) -> Option<ChannelId> {
        let replaced = match channel {
            Channel::WebSocket(_) => self.web_socket(),
            Channel::Data => None,
        };
        let same =
            |open: &Channel| std::mem::discriminant(open) == std::mem::discriminant(&channel);
        self.0.retain(|open| !same(open));
        self.0.push(channel);
        replaced
    }

    /// Something came on one. `false` if it is not open (any more).
    fn heard(&mut self, channel: Channel) -> bool {
        let Some(at) = self.0.iter().position(|open| *open == channel) else {
            return false;
        };
        self.0[at..].rotate_left(1);
        true
    }

    /// One is gone. Whether another takes over.
    fn closed(&mut self, channel: Channel) -> bool {
        let was = self.current();
        self.0.retain(|open| *open != channel);
        was == Some(channel) && !self.0.is_empty()
    }
}

impl Conference {
    /// A WebSocket opened; it takes the place of an earlier one.
    pub fn channel_opened(&mut self, turn: &mut Turn<'_>, slot: usize, channel: ChannelId) {
        self.opened(turn, slot, Channel::WebSocket(channel));
    }

    /// A WebSocket closed.
    pub fn channel_closed(&mut self, turn: &mut Turn<'_>, slot: usize, channel: ChannelId) {
        self.closed(turn, slot, Channel::WebSocket(channel));
    }

    /// A message came on a WebSocket; one that was replaced is too late.
    pub fn channel_message(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        channel: ChannelId,
        text: &str,
    ) {
        self.heard(turn, slot, Channel::WebSocket(channel), text);
    }

    /// Takes what has come of the data channel of an endpoint.
    pub(super) fn data_channel_changed(&mut self, turn: &mut Turn<'_>, slot: usize) {
        while let Some(endpoint) = &mut self.endpoints[slot]
            && let Some(event) = endpoint.peer.poll_channel()
        {
            match event {
                ChannelEvent::Opened => self.opened(turn, slot, Channel::Data),
                ChannelEvent::Closed => self.closed(turn, slot, Channel::Data),
                ChannelEvent::Message(text) => {
                    turn.counters.data_channel_messages_received += 1;
                    self.heard(turn, slot, Channel::Data, &text);
                }
                ChannelEvent::Refused(refusal) => {
                    debug!(conference = %self.id, endpoint = %endpoint.id, %refusal, "data channel");
                    match refusal {
                        ChannelRefusal::TooMany => turn.counters.rejected_data_channels += 1,
                        ChannelRefusal::Message => turn.drop(DropCause::ChannelMessage),
                        ChannelRefusal::Sctp(SctpError::TooLong) => turn.drop(DropCause::TooLong),
                        ChannelRefusal::Sctp(_) | ChannelRefusal::Dcep(_) => {
                            turn.drop(DropCause::Sctp);
                        }
                    }
                }
            }
        }
    }

    fn opened(&mut self, turn: &mut Turn<'_>, slot: usize, channel: Channel) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        debug!(conference = %self.id, endpoint = %endpoint.id, ?channel, "bridge channel opened");
        if let Some(replaced) = endpoint.channels.opened(channel) {
            turn.events.push_back(Event::ChannelClose {
                conference: self.id,
                endpoint: endpoint.id.clone(),
                channel: replaced,
                reason: ChannelCloseReason::Replaced,
            });
        }
        self.greet(turn, slot);
    }

    fn closed(&mut self, turn: &mut Turn<'_>, slot: usize, channel: Channel) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        debug!(conference = %self.id, endpoint = %endpoint.id, ?channel, "bridge channel closed");
        if endpoint.channels.closed(channel) {
            self.greet(turn, slot);
        }
    }

    fn heard(&mut self, turn: &mut Turn<'_>, slot: usize, channel: Channel, text: &str) {
        let open = |endpoint: &mut Box<super::Endpoint>| endpoint.channels.heard(channel);
        if self.endpoints[slot].as_mut().is_some_and(open) {
            self.read_message(turn, slot, text);
        }
    }

    /// Sends a message to an endpoint, if it has a channel.
    pub(super) fn send(&mut self, turn: &mut Turn<'_>, slot: usize, text: String) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        match endpoint.channels.current() {
            None => {}
            Some(Channel::WebSocket(channel)) => {
                turn.counters.channel_messages_sent += 1;
                turn.events.push_back(Event::ChannelSend {
                    conference: self.id,
                    endpoint: endpoint.id.clone(),
                    channel,
                    text,
                });
            }
            Some(Channel::Data) => {
                if endpoint.peer.send_message(turn.now, &text, turn.outbox) {
                    turn.counters.channel_messages_sent += 1;
                    turn.counters.data_channel_messages_sent += 1;
                } else {
                    turn.drop(DropCause::ChannelBehind);
                }
                turn.rearm.push(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with every event: what is in use, and what is replaced.
    #[test]
    fn the_newest_to_open_or_speak_is_used() {
        let (a, b) = (ChannelId(1), ChannelId(2));
        let (web, data) = (Channel::WebSocket, Channel::Data);
        let mut channels = Channels::default();
        assert_eq!(channels.current(), None);
        assert!(!channels.heard(data) && !channels.closed(web(a)));
        assert_eq!(channels.opened(web(a)), None);
        assert_eq!(channels.opened(data), None);
        assert_eq!(channels.current(), Some(data));
        assert!(channels.heard(web(a)));
        assert_eq!(channels.current(), Some(web(a)));
        assert_eq!(channels.opened(web(b)), Some(a), "one of each");
        assert!(!channels.heard(web(a)), "replaced");
        assert!(!channels.closed(web(a)), "belated");
        assert!(channels.heard(data));
        assert!(!channels.closed(web(b)), "it was not in use");
        assert_eq!(channels.current(), Some(data));
        assert_eq!(channels.opened(web(a)), None);
        assert_eq!(channels.opened(data), None, "opened again");
        assert!(channels.closed(data), "the WebSocket takes over");
        assert_eq!(channels.current(), Some(web(a)));
        assert!(!channels.closed(web(a)));
        assert_eq!(channels.current(), None);
    }
}
