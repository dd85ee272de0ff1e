//! The client's end of a data channel, on another SCTP stack than the bridge's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc_datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc_datachannel::message::message_channel_open::ChannelType;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;
use sansio::Protocol;

/// What a client opens (`media` §7.1).
const LABEL: &str = "JVB data channel";
const PROTOCOL: &str = "http://jitsi.org/protocols/colibri";

/// An association with one channel on it.
pub(crate) struct ClientChannel {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    channel: DataChannel,
    /// The peer has acknowledged the channel.
    pub(crate) open: bool,
    /// Streams that the peer closed.
    pub(crate) closed: Vec<u16>,
    received: VecDeque<String>,
}

impl ClientChannel {
    /// Dials, and opens a channel on a stream as soon as there is somebody.
    pub(crate) fn dial(now: Instant, stream: u16) -> Self {
        Self::dial_with(now, stream, ChannelType::Reliable)
    }

    pub(crate) fn dial_with(now: Instant, stream: u16, channel_type: ChannelType) -> Self {
        let peer = SocketAddr::from(([0, 0, 0, 0], 1));
        let config = Arc::new(EndpointConfig::new());
        let mut endpoint = Endpoint::new(peer, TransportProtocol::UDP, config, None);
        let config = ClientConfig::new(TransportConfig::default());
        let (handle, association) = endpoint
            .connect(now, config, peer)
            .expect("a new endpoint has room");
        Self {
            endpoint,
            handle,
            association,
            channel: channel(handle, stream, channel_type),
            open: false,
            closed: Vec::new(),
            received: VecDeque::new(),
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, packet: &[u8]) {
        let peer = SocketAddr::from(([0, 0, 0, 0], 1));
        let packet = Bytes::copy_from_slice(packet);
        if let Some((_, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, peer, None, packet)
        {
            self.association.handle_event(event);
        }
        self.advance(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.advance(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    pub(crate) fn say(&mut self, now: Instant, text: &str) {
        self.say_as(now, text.as_bytes(), PayloadProtocolIdentifier::String);
    }

    pub(crate) fn say_as(&mut self, now: Instant, octets: &[u8], ppi: PayloadProtocolIdentifier) {
        let message = DataChannelMessage {
            ppi,
            payload: BytesMut::from(octets),
            ..DataChannelMessage::default()
        };
        self.channel.handle_write(message).expect("it only queues");
        self.write(now);
    }

    /// Opens another channel beside the one there is, and forgets about it.
    pub(crate) fn open_another(&mut self, now: Instant, stream: u16, channel_type: ChannelType) {
        let mut another = channel(self.handle, stream, channel_type);
        write(now, &mut self.association, &mut another);
    }

    /// Opens the channel again, on another stream of the same association.
    pub(crate) fn reopen(&mut self, now: Instant, stream: u16) {
        self.open = false;
        self.channel = channel(self.handle, stream, ChannelType::Reliable);
        self.write(now);
    }

    /// Closes the channel.
    pub(crate) fn close(&mut self, now: Instant) {
        let stream = self.channel.stream_identifier();
        let mut stream = self.association.stream(stream).expect("it is open");
        stream.close(now).expect("an association that stands");
    }

    pub(crate) fn hear(&mut self) -> Option<String> {
        self.received.pop_front()
    }

    /// Hands out the packets that are to be sent.
    pub(crate) fn transmit(&mut self, now: Instant, mut take: impl FnMut(&[u8])) {
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                packets.iter().for_each(|packet| take(packet));
            }
        }
        while let Some(event) = self.association.poll_endpoint_event() {
            self.endpoint.handle_event(self.handle, event);
        }
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => self.write(now),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                // So this library says that a stream was reset.
                Event::AssociationLost { id, .. } => self.closed.push(id),
                _ => {}
            }
        }
    }

    fn read(&mut self, id: u16) {
        while let Ok(mut stream) = self.association.stream(id)
            && let Ok(Some(chunks)) = stream.read()
        {
            let mut payload = BytesMut::zeroed(chunks.len());
            chunks.read(&mut payload).expect("there is room for all");
            if id != self.channel.stream_identifier() {
                continue;
            }
            let message = DataChannelMessage {
                stream_id: id,
                ppi: chunks.ppi,
                payload,
                ..DataChannelMessage::default()
            };
            self.channel.handle_read(message).expect("valid DCEP");
            self.open |= self.channel.is_handshake_complete();
        }
        while let Some(message) = self.channel.poll_read() {
            assert_eq!(message.ppi, PayloadProtocolIdentifier::String);
            let text = String::from_utf8(message.payload.to_vec()).expect("UTF-8");
            self.received.push_back(text);
        }
    }

    fn write(&mut self, now: Instant) {
        if !self.association.is_handshaking() {
            write(now, &mut self.association, &mut self.channel);
        }
    }
}

fn channel(handle: AssociationHandle, stream: u16, channel_type: ChannelType) -> DataChannel {
    let config = DataChannelConfig {
        channel_type,
        label: LABEL.to_owned(),
        protocol: PROTOCOL.to_owned(),
        ..DataChannelConfig::default()
    };
    DataChannel::dial(config, handle.0, stream).expect("a channel can always be dialled")
}

fn write(now: Instant, association: &mut Association, channel: &mut DataChannel) {
    while let Some(message) = channel.poll_write() {
        let id = message.stream_id;
        if association.stream(id).is_err() {
            association
                .open_stream(id, PayloadProtocolIdentifier::String)
                .expect("a new stream");
        }
        let mut stream = association.stream(id).expect("it was opened");
        stream
            .write_with_ppi(now, &message.payload, message.ppi)
            .expect("an association that stands");
    }
}
