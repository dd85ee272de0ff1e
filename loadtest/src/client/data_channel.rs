//! The bridge channel over SCTP (media.md §7.1): the client's end of the
//! association and its one data channel, in `rtc-sctp` and `rtc-datachannel`,
//! which the bridge does not use.
//!
//! In: SCTP packets out of DTLS, texts to send, the time. Out: SCTP packets for
//! DTLS, events, a deadline.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc_datachannel::data_channel::{DataChannel as Channel, DataChannelConfig};
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;
use sansio::Protocol;

/// As the client library names it.
const LABEL: &str = "JVB data channel";
const PROTOCOL: &str = "http://jitsi.org/protocols/colibri";
/// The DTLS client takes even numbers (RFC 8832 §6).
const STREAM: u16 = 0;
/// Longest message that is taken; none of a bridge comes near.
const MAX_MESSAGE: usize = 256 << 10;
/// Packets that may wait for DTLS; beyond that SCTP repeats what was dropped.
const MAX_QUEUED: usize = 1024;

/// What happened on the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The bridge acknowledged it.
    Opened,
    Text(String),
    /// For good, with the reason.
    Closed(String),
}

/// The association and its channel.
pub struct DataChannel {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    peer: SocketAddr,
    channel: Option<Channel>,
    opened: bool,
    packets: VecDeque<Bytes>,
    events: VecDeque<ChannelEvent>,
}

impl DataChannel {
    /// Begins to connect over DTLS between these addresses.
    pub fn new(now: Instant, local: SocketAddr, peer: SocketAddr) -> Result<Self, String> {
        let config = Arc::new(EndpointConfig::default());
        let mut endpoint = Endpoint::new(local, TransportProtocol::UDP, config, None);
        let client = ClientConfig::new(TransportConfig::default());
        let (handle, association) = endpoint
            .connect(now, client, peer)
            .map_err(|error| format!("SCTP: {error}"))?;
        let mut channel = Self {
            endpoint,
            handle,
            association,
            peer,
            channel: None,
            opened: false,
            packets: VecDeque::new(),
            events: VecDeque::new(),
        };
        channel.advance(now);
        Ok(channel)
    }

    /// An SCTP packet that DTLS brought.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) {
        let packet = Bytes::copy_from_slice(packet);
        if let Some((_, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, self.peer, None, packet)
        {
            self.association.handle_event(event);
        }
        self.advance(now);
    }

    /// Sends a message once the channel is open. False if it is not.
    pub fn send(&mut self, now: Instant, text: &str) -> bool {
        let Some(channel) = self.channel.as_mut().filter(|_| self.opened) else {
            return false;
        };
        let message = Channel::get_data_channel_message(true, BytesMut::from(text));
        let sent = channel.handle_write(message).is_ok();
        self.advance(now);
        sent
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.advance(now);
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    /// The next packet for DTLS.
    pub fn poll_packet(&mut self) -> Option<Bytes> {
        self.packets.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => self.open(),
                Event::HandshakeFailed { reason } => self.lost(format!("SCTP: {reason}")),
                Event::AssociationLost { reason, .. } => self.lost(format!("SCTP: {reason}")),
                Event::Stream(StreamEvent::Readable { id: STREAM }) => self.read(),
                Event::Stream(StreamEvent::Finished { id: STREAM }) => {
                    self.lost("the data channel was closed".to_owned());
                }
                _ => {}
            }
        }
        self.write(now);
        while let Some(event) = self.association.poll_endpoint_event() {
            self.endpoint.handle_event(self.handle, event);
        }
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                self.packets.extend(packets);
            }
        }
        while self.packets.len() > MAX_QUEUED {
            self.packets.pop_front();
        }
    }

    fn open(&mut self) {
        let config = DataChannelConfig {
            label: LABEL.to_owned(),
            protocol: PROTOCOL.to_owned(),
            ..DataChannelConfig::default()
        };
        let string = PayloadProtocolIdentifier::String;
        let opened = self.association.open_stream(STREAM, string).map(|_| ());
        match opened.and_then(|()| Channel::dial(config, self.handle.0, STREAM)) {
            Ok(channel) => self.channel = Some(channel),
            Err(error) => self.lost(format!("data channel: {error}")),
        }
    }

    fn lost(&mut self, reason: String) {
        self.channel = None;
        self.opened = false;
        self.events.push_back(ChannelEvent::Closed(reason));
    }

    fn read(&mut self) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        let mut fault = None;
        while let Ok(mut stream) = self.association.stream(STREAM)
            && let Ok(Some(chunks)) = stream.read_sctp()
        {
            let ppi = chunks.ppi;
            let message = chunks.to_payload(MAX_MESSAGE).and_then(|payload| {
                channel.handle_read(rtc_datachannel::data_channel::DataChannelMessage {
                    association_handle: self.handle.0,
                    stream_id: STREAM,
                    ppi,
                    payload,
                    negotiated: false,
                })
            });
            if let Err(error) = message {
                fault = Some(format!("data channel: {error}"));
                break;
            }
        }
        if channel.is_handshake_complete() && !self.opened {
            self.opened = true;
            self.events.push_back(ChannelEvent::Opened);
        }
        while let Some(message) = channel.poll_read() {
            // The bridge sends nothing binary (media.md §7.1).
            match String::from_utf8(message.payload.to_vec()) {
                Ok(text) if message.ppi == PayloadProtocolIdentifier::String => {
                    self.events.push_back(ChannelEvent::Text(text));
                }
                _ => fault = Some("a message that is no text".to_owned()),
            }
        }
        if let Some(fault) = fault {
            self.lost(fault);
        }
    }

    fn write(&mut self, now: Instant) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        let mut fault = None;
        while let Some(message) = channel.poll_write() {
            let sent = self
                .association
                .stream(STREAM)
                .and_then(|mut stream| stream.write_with_ppi(now, &message.payload, message.ppi));
            fault = fault.or(sent.err());
        }
        if let Some(error) = fault {
            self.lost(format!("data channel: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc_datachannel::data_channel::DataChannelMessage;
    use rtc_sctp::ServerConfig;
    use std::time::Duration;

    const CLIENT: &str = "127.0.0.1:40000";
    const BRIDGE: &str = "127.0.0.1:10000";

    /// A bridge's end: takes the association and the channel, keeps what is
    /// said to it.
    struct Bridge {
        endpoint: Endpoint,
        association: Option<Association>,
        channel: Option<Channel>,
        said: Vec<String>,
    }

    impl Bridge {
        fn new() -> Self {
            let server = ServerConfig::new(TransportConfig::default());
            Self {
                endpoint: Endpoint::new(
                    BRIDGE.parse().expect("an address"),
                    TransportProtocol::UDP,
                    Arc::new(EndpointConfig::default()),
                    Some(Arc::new(server)),
                ),
                association: None,
                channel: None,
                said: Vec::new(),
            }
        }

        fn receive(&mut self, now: Instant, packet: Bytes) {
            let client = CLIENT.parse().expect("an address");
            match self.endpoint.handle(now, client, None, packet) {
                Some((_, DatagramEvent::NewAssociation(new))) => self.association = Some(new),
                Some((_, DatagramEvent::AssociationEvent(event))) => {
                    let association = self.association.as_mut().expect("one by now");
                    association.handle_event(event);
                }
                _ => {}
            }
        }

        fn say(&mut self, text: &str) {
            let message = Channel::get_data_channel_message(true, BytesMut::from(text));
            let channel = self.channel.as_mut().expect("an open channel");
            channel.handle_write(message).expect("said");
        }

        fn packets(&mut self, now: Instant) -> Vec<Bytes> {
            let Some(association) = &mut self.association else {
                return Vec::new();
            };
            while association.poll().is_some() {}
            while let Ok(mut stream) = association.stream(STREAM)
                && let Ok(Some(chunks)) = stream.read_sctp()
            {
                let payload = chunks.to_payload(MAX_MESSAGE).expect("short");
                if let Some(channel) = &mut self.channel {
                    let message = DataChannelMessage {
                        ppi: chunks.ppi,
                        payload,
                        ..DataChannelMessage::default()
                    };
                    channel.handle_read(message).expect("a message");
                    self.said.extend(
                        std::iter::from_fn(|| channel.poll_read()).map(|message| {
                            String::from_utf8(message.payload.to_vec()).expect("text")
                        }),
                    );
                } else {
                    let config = DataChannelConfig::default();
                    let accepted = Channel::accept(config, 0, STREAM, chunks.ppi, &payload);
                    let accepted = accepted.expect("an OPEN");
                    assert_eq!(accepted.config().label, LABEL);
                    assert_eq!(accepted.config().protocol, PROTOCOL);
                    self.channel = Some(accepted);
                }
            }
            while let Some(message) = self.channel.as_mut().and_then(|c| c.poll_write()) {
                let mut stream = association.stream(STREAM).expect("open");
                let sent = stream.write_with_ppi(now, &message.payload, message.ppi);
                sent.expect("there is room");
            }
            let mut packets = Vec::new();
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(more) = transmit.message {
                    packets.extend(more);
                }
            }
            packets
        }
    }

    /// Lets packets pass, but for the first `lost` of each direction, until
    /// `done`.
    fn run(
        client: &mut DataChannel,
        bridge: &mut Bridge,
        now: &mut Instant,
        mut lost: [u32; 2],
        done: impl Fn(&Bridge, &[ChannelEvent]) -> bool,
    ) -> Vec<ChannelEvent> {
        let mut events = Vec::new();
        let mut passes = |direction: usize| {
            let passes = lost[direction] == 0;
            lost[direction] = lost[direction].saturating_sub(1);
            passes
        };
        for _ in 0..20_000 {
            *now += Duration::from_millis(1);
            if client.next_timeout().is_some_and(|due| due <= *now) {
                client.handle_timeout(*now);
            }
            if let Some(association) = &mut bridge.association {
                association.handle_timeout(*now);
            }
            while let Some(packet) = client.poll_packet() {
                if passes(0) {
                    bridge.receive(*now, packet);
                }
            }
            for packet in bridge.packets(*now) {
                if passes(1) {
                    client.receive(*now, &packet);
                }
            }
            events.extend(std::iter::from_fn(|| client.poll_event()));
            if done(bridge, &events) {
                return events;
            }
        }
        panic!("not within 20 s: {events:?}, said {:?}", bridge.said);
    }

    #[test]
    fn opens_talks_and_survives_loss() {
        for lost in [[0, 0], [1, 0], [0, 1], [2, 2]] {
            let mut now = Instant::now();
            let (client, bridge) = (CLIENT.parse(), BRIDGE.parse());
            let addresses = (client.expect("an address"), bridge.expect("an address"));
            let mut client = DataChannel::new(now, addresses.0, addresses.1).expect("it begins");
            assert!(!client.send(now, "too early"));
            let mut bridge = Bridge::new();
            let opened = |_: &Bridge, events: &[ChannelEvent]| !events.is_empty();
            let events = run(&mut client, &mut bridge, &mut now, lost, opened);
            assert_eq!(events, [ChannelEvent::Opened]);

            assert!(client.send(now, r#"{"colibriClass":"ClientHello"}"#));
            let long = "x".repeat(5_000);
            assert!(client.send(now, &long));
            bridge.say(r#"{"colibriClass":"ServerHello"}"#);
            let both = |bridge: &Bridge, events: &[ChannelEvent]| {
                bridge.said.len() == 2 && !events.is_empty()
            };
            let events = run(&mut client, &mut bridge, &mut now, lost, both);
            assert_eq!(bridge.said, [r#"{"colibriClass":"ClientHello"}"#, &long]);
            let hello = r#"{"colibriClass":"ServerHello"}"#.to_owned();
            assert_eq!(events, [ChannelEvent::Text(hello)]);
        }
    }
}
