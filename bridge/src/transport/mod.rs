//! The way to one peer: ICE finds it, DTLS proves who it is and gives the keys,
//! SRTP carries the media. What DTLS carries besides is for [`data_channel`],
//! which has timers and events of its own.
//!
//! In: datagrams of the peer, told apart by [`demux`]; what signalling says of
//! it; the time. Out: opened RTP and RTCP, datagrams to send, [`Output`]s.
//! A peer moves through it like this, each step as soon as it can be made:
//!
//! a check with our password binds its address (it may come before signalling
//! tells of the peer) - an answer to a check of ours makes the pair valid - DTLS
//! begins on the first valid pair - a nominated pair and the keys together make
//! it [`Output::Connected`].
//!
//! Nothing but a bounded queue exists for a peer before it has shown our
//! password, and nothing but STUN is sent to an address that has not answered.

pub mod data_channel;
pub mod demux;
pub mod dtls;
pub mod ice;
pub mod sctp;
pub mod srtp;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use data_channel::{ChannelEvent, ChannelRefusal, DataChannel};
pub use demux::{Kind, demux};
pub use dtls::{Certificate, DtlsError};
pub use ice::{IceError, candidate_priority, local_credentials, worker_of};
pub use sctp::SctpError;

use crate::command::{EndpointSettings, RemoteTransport};
use crate::outbox::Outbox;
use crate::rtp::PacketIndex;
use crate::stats::DropCause;
use crate::view;
use dtls::{Dtls, DtlsEvent};
use ice::{Ice, IceEvent};
use srtp::{Inbound, InboundState, KeyingMaterial, Outbound, OutboundState, Profile, SrtpError};

/// Outputs waiting, beyond which application data is dropped: a shard takes
/// them after each call, and SCTP repeats what is lost.
const MAX_OUTPUTS: usize = 256;

/// What a datagram turned out to be.
#[derive(Debug)]
pub enum Received<'a> {
    /// An RTP packet, opened, without its tag.
    Rtp(PacketIndex, &'a mut [u8]),
    /// A compound RTCP packet, opened, without tag and index.
    Rtcp(&'a mut [u8]),
    /// STUN or DTLS: look at [`Transport::poll`] and [`Transport::transmit`].
    Consumed,
}

/// Why a datagram went no further. The peer's doing, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drop {
    /// None of the protocols that are spoken here (RFC 7983 §7).
    #[error("neither STUN, DTLS nor RTP")]
    Unknown,
    #[error("STUN: {0}")]
    Stun(#[from] IceError),
    /// DTLS or media from an address without an authentic check.
    #[error("from an address that no check has shown to be the peer's")]
    UnknownAddress,
    /// A DTLS datagram that is too long, or beyond the queue.
    #[error("no room for a DTLS datagram")]
    Dtls,
    /// Media before there are keys for it.
    #[error("media before the keys")]
    NotReady,
    #[error("SRTP: {0}")]
    Srtp(#[from] SrtpError),
}

impl From<Drop> for DropCause {
    fn from(drop: Drop) -> Self {
        match drop {
            Drop::Unknown => Self::NotDemuxed,
            Drop::Stun(_) => Self::Stun,
            Drop::UnknownAddress => Self::UnknownAddress,
            Drop::Dtls => Self::Dtls,
            Drop::NotReady => Self::NotReady,
            Drop::Srtp(SrtpError::Replayed { .. }) => Self::Replayed,
            Drop::Srtp(SrtpError::Truncated | SrtpError::Header(_)) => Self::MalformedRtp,
            Drop::Srtp(SrtpError::Forged) => Self::Forged,
        }
    }
}

/// What a transport tells the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The address is the peer's: datagrams from there that name nobody are
    /// for this transport.
    AddressValidated(SocketAddr),
    /// The address is no longer the peer's.
    AddressForgotten(SocketAddr),
    /// Media can flow. Comes again after [`Self::IceFailed`], if the peer does.
    Connected { profile: Profile },
    /// The peer has not answered for [`ice::CONSENT_TIMEOUT`].
    IceFailed,
    /// There will be no keys.
    DtlsFailed(DtlsError),
    /// The peer ended the DTLS connection; media may go on.
    DtlsClosed,
    /// A datagram of SCTP.
    ApplicationData(Vec<u8>),
}

/// One peer. The keys for what goes to it come first.
#[repr(C)]
pub struct Transport {
    media: Option<Media>,
    ice: Ice,
    dtls: Dtls,
    outputs: VecDeque<Output>,
}

/// Keys of the two directions.
#[repr(C)]
struct Media {
    outbound: Outbound,
    inbound: Inbound,
    profile: Profile,
}

impl Transport {
    /// `local` are the addresses of our sockets: the bases of all pairs.
    pub fn new(
        _now: Instant,
        settings: &EndpointSettings,
        certificate: Arc<Certificate>,
        local: &[SocketAddr],
    ) -> Self {
        Self {
            ice: Ice::new(settings, local),
            dtls: Dtls::new(certificate),
            media: None,
            outputs: VecDeque::new(),
        }
    }

    /// How long a peer may leave our checks unanswered.
    pub fn set_consent_timeout(&mut self, timeout: Duration) {
        self.ice.set_consent_timeout(timeout);
    }

    /// What signalling tells of the peer, at once or in parts, at any time.
    pub fn set_remote(&mut self, now: Instant, remote: &RemoteTransport) {
        self.dtls.set_remote(&remote.fingerprints);
        self.ice
            .set_remote(now, remote.ice.as_ref(), &remote.candidates);
        self.advance(now);
    }

    /// A datagram from the network, taken in place.
    pub fn handle<'a>(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Result<Received<'a>, Drop> {
        let pair = (local, from);
        match demux(datagram).ok_or(Drop::Unknown)? {
            Kind::Rtp => {
                let media = self.media.as_mut().ok_or(Drop::NotReady)?;
                let (index, len) = media.inbound.open_rtp(datagram)?;
                self.ice.heard_media(now, pair);
                Ok(Received::Rtp(index, &mut datagram[..len]))
            }
            Kind::Rtcp => {
                let media = self.media.as_mut().ok_or(Drop::NotReady)?;
                let len = media.inbound.open_rtcp(datagram)?;
                self.ice.heard_media(now, pair);
                Ok(Received::Rtcp(&mut datagram[..len]))
            }
            Kind::Stun => {
                self.ice.handle(now, pair, datagram)?;
                self.advance(now);
                Ok(Received::Consumed)
            }
            Kind::Dtls => {
                if !self.ice.knows(pair) {
                    return Err(Drop::UnknownAddress);
                }
                if !self.dtls.handle(now, datagram) {
                    return Err(Drop::Dtls);
                }
                self.advance(now);
                Ok(Received::Consumed)
            }
        }
    }

    /// Does whatever has come due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        self.dtls.handle_timeout(now);
        self.advance(now);
    }

    /// When to call [`Self::handle_timeout`]; changes with every other call.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = [self.ice.next_timeout(), self.dtls.next_timeout()];
        due.into_iter().flatten().min()
    }

    /// What happened. Call until `None` after every other call.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Puts the STUN and DTLS datagrams that wait into the outbox.
    pub fn transmit(&mut self, outbox: &mut Outbox) {
        while let Some(((from, to), message)) = self.ice.transmit() {
            outbox.push(from, to, &message);
        }
        if let Some((from, to)) = self.path() {
            while let Some(datagram) = self.dtls.transmit() {
                outbox.push(from, to, &datagram);
            }
        }
    }

    /// Where to send: our address and the peer's. `None` while there is no
    /// valid pair, and when consent has run out.
    pub fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ice.path()
    }

    /// Whether media can flow: ICE is connected and DTLS is done.
    pub fn ready(&self) -> bool {
        self.ice.connected() && self.media.is_some()
    }

    /// Whether DTLS is done.
    pub fn has_keys(&self) -> bool {
        self.media.is_some()
    }

    /// How the peer is reached, for who looks.
    pub fn describe_ice(&self) -> view::Ice {
        self.ice.describe()
    }

    /// How far DTLS has come, for who looks.
    pub fn describe_dtls(&self) -> view::Dtls {
        view::Dtls {
            state: self.dtls.state_name(),
            is_connected: self.media.is_some(),
            srtp_profile: self.media.as_ref().map(|media| media.profile.name()),
        }
    }

    /// Seals what goes to the peer; `None` before DTLS is done.
    pub fn outbound(&mut self) -> Option<&mut Outbound> {
        self.media.as_mut().map(|media| &mut media.outbound)
    }

    /// Sends a datagram of SCTP; dropped while DTLS is not connected.
    pub fn send_application_data(&mut self, now: Instant, data: &[u8]) {
        self.dtls.send(now, data);
        self.advance(now);
    }

    /// Lets each layer see what the one below it found.
    fn advance(&mut self, now: Instant) {
        self.dtls.begin(now, self.ice.path().is_some());
        while let Some(event) = self.ice.poll() {
            match event {
                IceEvent::Bound(address) => {
                    self.outputs.push_back(Output::AddressValidated(address));
                }
                IceEvent::Unbound(address) => {
                    self.outputs.push_back(Output::AddressForgotten(address));
                }
                IceEvent::Failed => self.outputs.push_back(Output::IceFailed),
                IceEvent::Connected => self.connected(),
            }
        }
        while let Some(event) = self.dtls.poll() {
            match event {
                DtlsEvent::Connected {
                    profile,
                    exported,
                    is_client,
                } => {
                    self.media = Some(Media::new(profile, &exported, is_client));
                    self.connected();
                }
                DtlsEvent::Failed(error) => self.outputs.push_back(Output::DtlsFailed(error)),
                DtlsEvent::Closed => self.outputs.push_back(Output::DtlsClosed),
                DtlsEvent::Data(data) => {
                    if self.outputs.len() < MAX_OUTPUTS {
                        self.outputs.push_back(Output::ApplicationData(data));
                    }
                }
            }
        }
    }

    /// ICE or DTLS got there: it is news if the other has, too.
    fn connected(&mut self) {
        if let Some(media) = self.media.as_ref().filter(|_| self.ice.connected()) {
            let profile = media.profile;
            self.outputs.push_back(Output::Connected { profile });
        }
    }
}

impl Media {
    /// `exported` has the length that the profile asks for.
    fn new(profile: Profile, exported: &[u8], is_client: bool) -> Self {
        let KeyingMaterial { client, server } = KeyingMaterial::from_exporter(profile, exported)
            .expect("DTLS exports as much as the profile takes");
        let (ours, theirs) = if is_client {
            (client, server)
        } else {
            (server, client)
        };
        Self {
            profile,
            inbound: Inbound::new(&theirs, InboundState::default()),
            outbound: Outbound::new(&ours, OutboundState::default()),
        }
    }
}
