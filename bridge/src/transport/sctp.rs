//! SCTP with one peer, over DTLS (RFC 8261, RFC 9260): messages on streams.
//!
//! In: the datagrams of the peer as DTLS hands them out, messages to send, the
//! time. Out: packets for DTLS, [`SctpEvent`]s. The peer initiates, as all
//! clients of Jitsi do; of one peer there is one association at a time.
//!
//! The association proper is the work of the crate `sctp-proto`, behind
//! [`Association`]. What is here keeps a peer from growing it: every packet is
//! looked through before ([`Gate`]), and one that would go over a bound is
//! dropped like one that was lost. An honest peer sends it again when there is
//! room; the bounds are far beyond what one does.
//!
//! Nothing of this outlives its process: a client that is taken over by another
//! one has to open its channel anew.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The port that both sides use and colibri2 announces (every Jitsi bridge's).
pub const PORT: u16 = 5000;

/// Octets of a message in either direction: what a browser takes of a peer that
/// has not said more (RFC 8841 §6.1), and more than a channel message may have.
pub const MAX_MESSAGE: usize = 65_536;

/// Octets of one packet that leave an IPv6 datagram of 1280 octets room for its
/// headers (40 and 8) and those of a DTLS record with GCM (13, 8 and 16).
pub const MAX_PACKET: usize = 1280 - 40 - 8 - 37;

/// Octets of a message in one packet: less than fits, since the library counts
/// neither the header of the last chunk of a packet nor the padding of any.
const MAX_FRAGMENT: u32 = 1072;

/// Room for what has come and cannot be handed out yet.
const RECEIVE_BUFFER: u32 = 4 * MAX_MESSAGE as u32;

/// Chunks of data that have come, or are missing before one that has, and are
/// not part of a message handed out. Each may keep a datagram of 2 KiB alive.
pub const MAX_UNDELIVERED: u64 = 1024;

/// Streams on which a peer may have begun to send. It needs one.
pub const MAX_STREAMS: usize = 16;

/// Requests to reset streams in the life of an association. A client makes none
/// before it leaves.
pub const MAX_RESETS: usize = 256;

/// First and least time until data is sent again, doubled to the most. As in
/// libwebrtc (`dcsctp` defaults, and its limit of 3 s, which JVB copies); the
/// least must exceed the 200 ms for which a peer may hold back an answer.
const FIRST_TIMEOUT: Duration = Duration::from_millis(500);
const LEAST_TIMEOUT: Duration = Duration::from_millis(400);
const MOST_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a packet went no further. The peer's doing, never ours, except
/// [`Self::TooLong`], which is an answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SctpError {
    /// Shorter than its headers say (RFC 9260 §3).
    #[error("a malformed packet")]
    Malformed,
    /// The first packet of an association is an INIT, and only the first.
    #[error("an INIT where there is an association, or none where there is not")]
    Init,
    /// More than [`MAX_UNDELIVERED`].
    #[error("data too far ahead of what is complete")]
    Window,
    /// More than [`MAX_STREAMS`].
    #[error("data on too many streams")]
    Streams,
    /// More than [`MAX_RESETS`].
    #[error("too many resets of streams")]
    Resets,
    /// Abandoned data: no channel here is partially reliable.
    #[error("a FORWARD-TSN on reliable channels")]
    Abandoned,
    /// A packet of ours would have more than [`MAX_PACKET`] octets.
    #[error("an answer that fits no datagram")]
    TooLong,
}

/// What a message is (RFC 8831 §8, and DCEP of RFC 8832 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Dcep,
    /// Text, possibly empty.
    String,
    /// Anything else; clients of Jitsi send nothing else.
    Other,
}

/// What an association tells the channels on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SctpEvent {
    Message {
        stream: u16,
        protocol: Protocol,
        octets: Vec<u8>,
    },
    /// All that was sent on the stream has arrived.
    Drained(u16),
    /// The peer closed the stream.
    Reset(u16),
    /// There is no association any more.
    Lost,
    Dropped(SctpError),
}

/// What is asked of an SCTP implementation.
trait Association: Send {
    /// A packet that is for this association.
    fn handle(&mut self, now: Instant, packet: Bytes);
    fn handle_timeout(&mut self, now: Instant);
    fn next_timeout(&self) -> Option<Instant>;
    /// Whether the message was taken.
    fn send(&mut self, stream: u16, protocol: Protocol, message: &[u8]) -> bool;
    /// Octets of a stream that the peer has not acknowledged.
    fn buffered(&mut self, stream: u16) -> usize;
    /// Closes a stream.
    fn reset(&mut self, stream: u16);
    /// Hands out all there is.
    fn poll(&mut self, now: Instant, take: &mut dyn FnMut(Output));
}

enum Output {
    Transmit(Bytes),
    Established,
    /// A message, and of how many chunks it was put together.
    Message {
        stream: u16,
        protocol: Protocol,
        octets: Vec<u8>,
        chunks: usize,
    },
    Drained(u16),
    Reset(u16),
    Lost,
}

/// SCTP with one peer.
pub(super) struct Sctp {
    state: State,
    transmits: VecDeque<Bytes>,
    events: VecDeque<SctpEvent>,
}

enum State {
    Closed,
    Open {
        association: Box<dyn Association>,
        gate: Gate,
    },
}

impl Sctp {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A packet of the peer. See [`Self::poll`] and [`Self::transmit`] then.
    pub(super) fn handle(&mut self, now: Instant, packet: &[u8]) -> Result<(), SctpError> {
        let packet = Bytes::copy_from_slice(packet);
        let known = match &mut self.state {
            State::Closed => false,
            State::Open { gate, .. } => gate.passes(&packet)?,
        };
        if !known {
            // An INIT with another tag before there is an association: the peer
            // has begun again.
            let gate = Gate::new(&packet)?;
            let association = library::SctpProto::new(now, packet).ok_or(SctpError::Init)?;
            self.state = State::Open {
                association: Box::new(association),
                gate,
            };
            self.advance(now);
        } else if let State::Open { association, .. } = &mut self.state {
            association.handle(now, packet);
            self.advance(now);
        }
        Ok(())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let State::Open { association, .. } = &mut self.state {
            association.handle_timeout(now);
            self.advance(now);
        }
    }

    /// `None` while nothing is under way: an idle association costs no timer.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Closed => None,
            State::Open { association, .. } => association.next_timeout(),
        }
    }

    /// Sends a message in order and reliably. Whether it was taken.
    pub(super) fn send(
        &mut self,
        now: Instant,
        stream: u16,
        protocol: Protocol,
        message: &[u8],
    ) -> bool {
        let State::Open { association, .. } = &mut self.state else {
            return false;
        };
        let taken = association.send(stream, protocol, message);
        self.advance(now);
        taken
    }

    /// Octets of a stream that the peer has not acknowledged.
    pub(super) fn buffered(&mut self, stream: u16) -> usize {
        match &mut self.state {
            State::Closed => 0,
            State::Open { association, .. } => association.buffered(stream),
        }
    }

    /// Closes a stream.
    pub(super) fn reset(&mut self, now: Instant, stream: u16) {
        if let State::Open { association, .. } = &mut self.state {
            association.reset(stream);
            self.advance(now);
        }
    }

    /// Forgets the association without a word to the peer.
    pub(super) fn close(&mut self) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(SctpEvent::Lost);
        }
    }

    pub(super) fn transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    pub(super) fn poll(&mut self) -> Option<SctpEvent> {
        self.events.pop_front()
    }

    /// Takes what the association has to say.
    fn advance(&mut self, now: Instant) {
        let State::Open { association, gate } = &mut self.state else {
            return;
        };
        let (transmits, events) = (&mut self.transmits, &mut self.events);
        let mut lost = false;
        association.poll(now, &mut |output| match output {
            Output::Transmit(packet) if packet.len() > MAX_PACKET => {
                events.push_back(SctpEvent::Dropped(SctpError::TooLong));
            }
            Output::Transmit(packet) => transmits.push_back(packet),
            Output::Established => gate.established = true,
            Output::Message {
                stream,
                protocol,
                octets,
                chunks,
            } => {
                gate.undelivered = gate.undelivered.saturating_sub(chunks as u64);
                events.push_back(SctpEvent::Message {
                    stream,
                    protocol,
                    octets,
                });
            }
            Output::Drained(stream) => events.push_back(SctpEvent::Drained(stream)),
            Output::Reset(stream) => {
                gate.streams.retain(|known| *known != stream);
                events.push_back(SctpEvent::Reset(stream));
            }
            Output::Lost => lost = true,
        });
        if lost {
            self.close();
        }
    }
}

/// What a peer has begun and is held to.
#[derive(Clone, Debug)]
struct Gate {
    established: bool,
    /// Of the peer's INIT (RFC 9260 §3.3.2).
    initiate_tag: u32,
    /// The highest transmission sequence number that has come.
    highest: u32,
    /// Numbers up to `highest` whose chunks were not handed out: of all that
    /// are lacking, or wait, each counts once, however often it is sent.
    undelivered: u64,
    streams: Vec<u16>,
    resets: usize,
}

impl Gate {
    /// For the association that an INIT begins.
    fn new(packet: &[u8]) -> Result<Self, SctpError> {
        let mut chunks = chunks(packet)?;
        let init = chunks.next().ok_or(SctpError::Malformed)??;
        let INIT = init.kind else {
            return Err(SctpError::Init);
        };
        // RFC 9260 §6.10: an INIT is alone in its packet.
        if chunks.next().is_some() {
            return Err(SctpError::Malformed);
        }
        Ok(Self {
            established: false,
            initiate_tag: init.word(0)?,
            highest: init.word(12)?.wrapping_sub(1),
            undelivered: 0,
            streams: Vec::new(),
            resets: 0,
        })
    }

    /// Whether a packet may reach the association there is; `false` if it
    /// begins another one.
    fn passes(&mut self, packet: &[u8]) -> Result<bool, SctpError> {
        for chunk in chunks(packet)? {
            let chunk = chunk?;
            match chunk.kind {
                // The library would end an association for a belated repetition.
                INIT if self.established => return Err(SctpError::Init),
                INIT => {
                    let same = chunk.word(0)? == self.initiate_tag;
                    if packet.len() > HEADER + padded(CHUNK_HEADER + chunk.value.len()) {
                        return Err(SctpError::Malformed);
                    }
                    return Ok(same);
                }
                DATA => self.data(&chunk)?,
                RE_CONFIG if self.resets == MAX_RESETS => return Err(SctpError::Resets),
                RE_CONFIG => self.resets += 1,
                FORWARD_TSN | I_FORWARD_TSN => return Err(SctpError::Abandoned),
                _ => {}
            }
        }
        Ok(true)
    }

    fn data(&mut self, chunk: &Chunk<'_>) -> Result<(), SctpError> {
        let ahead = chunk.word(0)?.wrapping_sub(self.highest) as i32;
        if let ahead @ 1.. = i64::from(ahead) {
            let undelivered = self.undelivered + ahead.unsigned_abs();
            if undelivered > MAX_UNDELIVERED {
                return Err(SctpError::Window);
            }
            self.undelivered = undelivered;
            self.highest = chunk.word(0)?;
        }
        let stream = (chunk.word(4)? >> 16) as u16;
        if !self.streams.contains(&stream) {
            if self.streams.len() == MAX_STREAMS {
                return Err(SctpError::Streams);
            }
            self.streams.push(stream);
        }
        Ok(())
    }
}

/// Octets of the header of a packet and of a chunk (RFC 9260 §3.1, §3.2).
const HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;

/// Types of chunks (RFC 9260 §3.2, RFC 6525 §3, RFC 3758 §3, RFC 8260 §2.3).
const DATA: u8 = 0;
const INIT: u8 = 1;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
const I_FORWARD_TSN: u8 = 194;

/// One chunk of a packet.
struct Chunk<'a> {
    kind: u8,
    value: &'a [u8],
}

impl Chunk<'_> {
    /// Four octets of the value.
    fn word(&self, at: usize) -> Result<u32, SctpError> {
        let octets = self.value.get(at..).and_then(|rest| rest.first_chunk());
        octets
            .map(|octets| u32::from_be_bytes(*octets))
            .ok_or(SctpError::Malformed)
    }
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Walks through a packet; an error is the last item.
fn chunks(packet: &[u8]) -> Result<impl Iterator<Item = Result<Chunk<'_>, SctpError>>, SctpError> {
    let mut rest = packet.get(HEADER..).ok_or(SctpError::Malformed)?;
    Ok(std::iter::from_fn(move || {
        let (&[kind, _flags, high, low], _) = match rest.split_first_chunk() {
            Some(split) => split,
            None if rest.is_empty() => return None,
            None => {
                rest = &[];
                return Some(Err(SctpError::Malformed));
            }
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(value) = rest.get(CHUNK_HEADER..length) else {
            rest = &[];
            return Some(Err(SctpError::Malformed));
        };
        // The padding of the last chunk may be missing.
        rest = rest.get(padded(length)..).unwrap_or_default();
        Some(Ok(Chunk { kind, value }))
    }))
}

/// [`Association`] by the crate `sctp-proto`.
mod library {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::{Arc, LazyLock};
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use sctp_proto::{
        AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
        PayloadProtocolIdentifier, ServerConfig, StreamEvent, TransportConfig,
    };

    use super::{Association, Output, Protocol};

    /// The library asks for an address, and DTLS has none.
    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    static ENDPOINT: LazyLock<Arc<EndpointConfig>> = LazyLock::new(|| {
        let mut config = EndpointConfig::new();
        config.max_payload_size(super::MAX_FRAGMENT);
        Arc::new(config)
    });

    static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
        let millis = |time: Duration| u64::try_from(time.as_millis()).expect("a few seconds");
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(super::RECEIVE_BUFFER)
            .with_max_receive_message_size(super::MAX_MESSAGE as u32)
            .with_max_send_message_size(super::MAX_MESSAGE as u32)
            .with_rto_initial_ms(millis(super::FIRST_TIMEOUT))
            .with_rto_min_ms(millis(super::LEAST_TIMEOUT))
            .with_rto_max_ms(millis(super::MOST_TIMEOUT))
            // Whether the peer is still there is for ICE to say.
            .with_max_init_retransmits(None)
            .with_max_data_retransmits(None)
            .with_local_port(super::PORT)
            .with_remote_port(super::PORT);
        let mut server = ServerConfig::new();
        server.transport = Arc::new(transport);
        Arc::new(server)
    });

    pub(super) struct SctpProto {
        endpoint: Endpoint,
        handle: AssociationHandle,
        association: sctp_proto::Association,
    }

    impl SctpProto {
        /// Begins the association that an INIT asks for.
        pub(super) fn new(now: Instant, init: Bytes) -> Option<Self> {
            let mut endpoint = Endpoint::new(ENDPOINT.clone(), Some(SERVER.clone()));
            match endpoint.handle(now, PEER, None, None, init)? {
                (handle, DatagramEvent::NewAssociation(association)) => Some(Self {
                    endpoint,
                    handle,
                    association,
                }),
                (_, DatagramEvent::AssociationEvent(_)) => None,
            }
        }

        /// Hands out the messages of a stream that are complete.
        fn read(&mut self, stream: u16, take: &mut dyn FnMut(Output)) {
            while let Ok(mut readable) = self.association.stream(stream)
                && let Ok(Some(message)) = readable.read()
            {
                let protocol = match message.ppi {
                    PayloadProtocolIdentifier::Dcep => Protocol::Dcep,
                    PayloadProtocolIdentifier::String | PayloadProtocolIdentifier::StringEmpty => {
                        Protocol::String
                    }
                    _ => Protocol::Other,
                };
                let mut octets = vec![0; message.len()];
                message
                    .read(&mut octets)
                    .expect("the buffer has the length of the message");
                if message.ppi == PayloadProtocolIdentifier::StringEmpty {
                    // SCTP has no empty messages: one octet stands for none.
                    octets.clear();
                }
                take(Output::Message {
                    stream,
                    protocol,
                    octets,
                    chunks: message.chunks.len(),
                });
            }
        }
    }

    impl Association for SctpProto {
        fn handle(&mut self, now: Instant, packet: Bytes) {
            if let Some((_, DatagramEvent::AssociationEvent(event))) =
                self.endpoint.handle(now, PEER, None, None, packet)
            {
                self.association.handle_event(event);
            }
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.association.handle_timeout(now);
        }

        fn next_timeout(&self) -> Option<Instant> {
            self.association.poll_timeout()
        }

        fn send(&mut self, stream: u16, protocol: Protocol, message: &[u8]) -> bool {
            let protocol = match protocol {
                Protocol::Dcep => PayloadProtocolIdentifier::Dcep,
                Protocol::String => PayloadProtocolIdentifier::String,
                Protocol::Other => PayloadProtocolIdentifier::Binary,
            };
            self.association
                .stream(stream)
                .and_then(|mut stream| stream.write_with_ppi(message, protocol))
                .is_ok()
        }

        fn buffered(&mut self, stream: u16) -> usize {
            self.association
                .stream(stream)
                .and_then(|stream| stream.buffered_amount())
                .unwrap_or(0)
        }

        fn reset(&mut self, stream: u16) {
            if let Ok(mut stream) = self.association.stream(stream)
                && let Err(error) = stream.close()
            {
                tracing::debug!(%error, "SCTP stream not closed");
            }
        }

        fn poll(&mut self, now: Instant, take: &mut dyn FnMut(Output)) {
            while let Some(event) = self.association.poll() {
                match event {
                    Event::Connected => take(Output::Established),
                    Event::Stream(StreamEvent::Readable { id }) => self.read(id, take),
                    Event::Stream(StreamEvent::BufferedAmountLow { id }) => {
                        take(Output::Drained(id));
                    }
                    Event::Stream(StreamEvent::Finished { id }) => take(Output::Reset(id)),
                    Event::HandshakeFailed { reason } | Event::AssociationLost { reason } => {
                        tracing::debug!(%reason, "SCTP association lost");
                        take(Output::Lost);
                    }
                    _ => {}
                }
            }
            // Who sends on a stream has opened it: nothing waits to be accepted.
            while self.association.accept_stream().is_some() {}
            while let Some(transmit) = self.association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = transmit.payload {
                    packets
                        .into_iter()
                        .for_each(|packet| take(Output::Transmit(packet)));
                }
            }
            while let Some(event) = self.association.poll_endpoint_event() {
                self.endpoint.handle_event(self.handle, event);
            }
        }
    }
}
