//! The data channel of one peer (RFC 8831) and how it is opened (DCEP,
//! RFC 8832): a stream of text messages in either direction, in order and
//! without loss.
//!
//! In: the SCTP packets of the peer, texts to send, the time. Out: packets for
//! DTLS, [`ChannelEvent`]s. The peer opens the one channel it may have, under
//! whatever label (clients of Jitsi: `JVB data channel`, protocol
//! `http://jitsi.org/protocols/colibri`); it counts as open from then on, as in
//! JVB. A further channel is closed at once (`videobridge.sctp.max-channels`
//! is 1 everywhere).
//!
//! Bounds are those of [`super::sctp`], and [`MAX_BUFFERED`] for a peer that
//! does not take what it is sent: it misses messages then, and when it has
//! caught up the channel opens again, for it to be told everything anew.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::sctp::{Protocol, Sctp, SctpError, SctpEvent};

/// Octets sent and not acknowledged, beyond which nothing more is sent
/// (JVB's `dcsctp` has 2 MB). A conference of hundreds is told in some 10 KiB.
pub const MAX_BUFFERED: usize = 1 << 20;

/// What a channel tells its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The peer can be told things from now on. Comes again after the peer has
    /// missed some.
    Opened,
    Message(String),
    Closed,
    Refused(ChannelRefusal),
}

/// Why something a peer sent went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelRefusal {
    #[error("SCTP: {0}")]
    Sctp(#[from] SctpError),
    #[error("DCEP: {0}")]
    Dcep(#[from] DcepError),
    /// There is one already.
    #[error("a second data channel")]
    TooMany,
    /// On a stream without a channel, or not text.
    #[error("not a text message on the data channel")]
    Message,
}

/// Why a DCEP message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DcepError {
    /// Shorter than its fields say (RFC 8832 §5.1).
    #[error("truncated")]
    Truncated,
    #[error("neither OPEN nor ACK")]
    Type,
    /// What is said on a bridge channel must arrive.
    #[error("a partially reliable channel")]
    Unreliable,
}

/// The data channel of one peer.
pub struct DataChannel {
    sctp: Sctp,
    /// The stream of the channel.
    stream: Option<u16>,
    /// The peer has missed a message.
    behind: bool,
    events: VecDeque<ChannelEvent>,
}

impl Default for DataChannel {
    fn default() -> Self {
        Self::new()
    }
}

impl DataChannel {
    /// A channel that the peer has yet to open.
    pub fn new() -> Self {
        Self {
            sctp: Sctp::new(),
            stream: None,
            behind: false,
            events: VecDeque::new(),
        }
    }

    /// A packet that came over DTLS. See [`Self::poll`] and [`Self::transmit`].
    pub fn handle(&mut self, now: Instant, packet: &[u8]) {
        if let Err(error) = self.sctp.handle(now, packet) {
            self.refuse(error.into());
        }
        self.advance(now);
    }

    /// Does whatever has come due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sctp.handle_timeout(now);
        self.advance(now);
    }

    /// `None` while nothing is under way.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.sctp.next_timeout()
    }

    /// Sends a text. `false` if there is no channel or the peer is too far
    /// behind; it is told so by [`ChannelEvent::Opened`] when it no longer is.
    pub fn send(&mut self, now: Instant, text: &str) -> bool {
        let Some(stream) = self.stream else {
            return false;
        };
        let room = self.sctp.buffered(stream) + text.len() <= MAX_BUFFERED;
        let sent = room
            && self
                .sctp
                .send(now, stream, Protocol::String, text.as_bytes());
        self.behind |= !room;
        self.advance(now);
        sent
    }

    /// The way the channel rode on is gone.
    pub fn close(&mut self, now: Instant) {
        self.sctp.close();
        self.advance(now);
    }

    /// The next packet for DTLS.
    pub fn transmit(&mut self) -> Option<Bytes> {
        self.sctp.transmit()
    }

    /// What happened. Call until `None` after every other call.
    pub fn poll(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    fn refuse(&mut self, refusal: ChannelRefusal) {
        self.events.push_back(ChannelEvent::Refused(refusal));
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.sctp.poll() {
            match event {
                SctpEvent::Message {
                    stream,
                    protocol: Protocol::Dcep,
                    octets,
                } => match Dcep::parse(&octets) {
                    Ok(Dcep::Open) => self.open(now, stream),
                    // We open none.
                    Ok(Dcep::Ack) => {}
                    Err(error) => {
                        self.refuse(error.into());
                        self.sctp.reset(now, stream);
                    }
                },
                SctpEvent::Message {
                    stream,
                    protocol: Protocol::String,
                    octets,
                } if Some(stream) == self.stream => match String::from_utf8(octets) {
                    Ok(text) => self.events.push_back(ChannelEvent::Message(text)),
                    Err(_) => self.refuse(ChannelRefusal::Message),
                },
                SctpEvent::Message { .. } => self.refuse(ChannelRefusal::Message),
                SctpEvent::Drained(stream) => {
                    if Some(stream) == self.stream && std::mem::take(&mut self.behind) {
                        self.events.push_back(ChannelEvent::Opened);
                    }
                }
                SctpEvent::Reset(stream) => {
                    if Some(stream) == self.stream {
                        self.closed();
                    }
                }
                SctpEvent::Lost => self.closed(),
                SctpEvent::Dropped(error) => self.refuse(error.into()),
            }
        }
    }

    fn open(&mut self, now: Instant, stream: u16) {
        if self.stream.is_some_and(|open| open != stream) {
            self.refuse(ChannelRefusal::TooMany);
            return self.sctp.reset(now, stream);
        }
        self.sctp.send(now, stream, Protocol::Dcep, &[ACK]);
        if self.stream.replace(stream).is_none() {
            self.events.push_back(ChannelEvent::Opened);
        }
    }

    fn closed(&mut self) {
        self.behind = false;
        if self.stream.take().is_some() {
            self.events.push_back(ChannelEvent::Closed);
        }
    }
}

/// Message types (RFC 8832 §8.2.1).
const ACK: u8 = 2;
const OPEN: u8 = 3;

/// Bit of a channel type that says nothing about reliability (RFC 8832 §8.2.2):
/// the order of what the peer sends is its own affair.
const UNORDERED: u8 = 0x80;

/// A message of DCEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dcep {
    /// Of a reliable channel.
    Open,
    Ack,
}

impl Dcep {
    fn parse(octets: &[u8]) -> Result<Self, DcepError> {
        match octets {
            [ACK, ..] => Ok(Self::Ack),
            // Priority (2) and reliability (4) mean nothing here.
            &[OPEN, kind, _, _, _, _, _, _, a, b, c, d, ref names @ ..] => {
                let label = usize::from(u16::from_be_bytes([a, b]));
                let protocol = usize::from(u16::from_be_bytes([c, d]));
                if names.len() < label + protocol {
                    return Err(DcepError::Truncated);
                }
                if kind & !UNORDERED != 0 {
                    return Err(DcepError::Unreliable);
                }
                Ok(Self::Open)
            }
            [OPEN, ..] | [] => Err(DcepError::Truncated),
            _ => Err(DcepError::Type),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(kind: u8, label: &[u8], protocol: &[u8]) -> Vec<u8> {
        let mut octets = vec![OPEN, kind, 0, 0, 0, 0, 0, 0];
        octets.extend_from_slice(&(label.len() as u16).to_be_bytes());
        octets.extend_from_slice(&(protocol.len() as u16).to_be_bytes());
        octets.extend_from_slice(label);
        octets.extend_from_slice(protocol);
        octets
    }

    /// RFC 8832 §5.1, §5.2 and §8.2.
    #[test]
    fn dcep_messages() {
        let jitsi = open(
            0,
            b"JVB data channel",
            b"http://jitsi.org/protocols/colibri",
        );
        for (octets, expected) in [
            (&jitsi[..], Ok(Dcep::Open)),
            (&open(UNORDERED, b"", b""), Ok(Dcep::Open)),
            (&open(1, b"x", b""), Err(DcepError::Unreliable)),
            (&open(0x82, b"x", b""), Err(DcepError::Unreliable)),
            (&jitsi[..jitsi.len() - 1], Err(DcepError::Truncated)),
            (&jitsi[..11], Err(DcepError::Truncated)),
            (&[], Err(DcepError::Truncated)),
            (&[ACK], Ok(Dcep::Ack)),
            (&[1], Err(DcepError::Type)),
        ] {
            assert_eq!(Dcep::parse(octets), expected, "{octets:02x?}");
        }
    }
}
