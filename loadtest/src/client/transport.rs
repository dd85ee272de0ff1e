//! One participant's ICE, DTLS and SRTP: controlled agent, DTLS client.
//!
//! ICE, DTLS, SRTCP and SRTP of the older profile come from the `rtc-*` family,
//! which the bridge does not use, so that a misreading of a standard cannot hide
//! by being made on both ends; SRTP of the AEAD profiles is [`super::srtp`].
//!
//! In: datagrams and the time. Out: datagrams, decrypted packets, a deadline.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_ice::candidate::CandidateConfig;
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::state::ConnectionState;
use rtc_ice::{Agent, AgentConfig};
use rtc_shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc_srtp::context::Context;
use rtc_srtp::crypto::{HashAlgorithm, RTCCryptoProvider, default_provider};
use rtc_srtp::protection_profile::ProtectionProfile;
use sansio::Protocol;

use super::srtp::{self, Direction};

/// Candidates of the bridge that are looked at; more are ignored.
const MAX_CANDIDATES: usize = 32;
/// Datagrams waiting to be sent; beyond that the oldest goes.
const MAX_QUEUED: usize = 4096;

/// Why a transport cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("ICE: {0}")]
    Ice(String),
    #[error("DTLS: {0}")]
    Dtls(String),
    #[error("SRTP: {0}")]
    Srtp(String),
}

/// The certificate of a run, shared by its participants: making one for each
/// would cost more than all else a participant does to join.
#[derive(Clone)]
pub struct Identity {
    crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: Vec<u8>,
    profiles: Profiles,
}

impl Identity {
    /// Makes a self-signed ECDSA P-256 certificate.
    pub fn generate(profiles: Profiles) -> Result<Self, TransportError> {
        let crypto = default_provider().map_err(|e| TransportError::Dtls(e.to_string()))?;
        let certificate =
            Certificate::generate_self_signed(vec!["viaduct-loadtest".to_owned()], crypto.crypto())
                .map_err(|e| TransportError::Dtls(e.to_string()))?;
        let fingerprint = crypto
            .crypto()
            .hash(HashAlgorithm::Sha256, &certificate.certificate[0])
            .map_err(|e| TransportError::Dtls(e.to_string()))?;
        Ok(Self {
            crypto,
            certificate,
            fingerprint,
            profiles,
        })
    }

    /// SHA-256 over the certificate.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

/// What the bridge told about its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    pub ufrag: String,
    pub pwd: String,
    pub candidates: Vec<SocketAddr>,
    /// SHA-256 of its certificate.
    pub fingerprint: Vec<u8>,
}

/// What a datagram brought.
#[derive(Debug)]
pub enum Received {
    Rtp(BytesMut),
    Rtcp(BytesMut),
    /// Handshake or checks; nothing for the layers above.
    Consumed,
    /// It did not belong here or was not authentic.
    Dropped,
}

/// How far the transport has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Checking,
    /// A pair was nominated; DTLS is under way.
    IceConnected,
    /// Media can flow.
    Ready,
    Failed,
}

/// A DTLS association and the address its peer is known under, which stays
/// the same when ICE moves to another pair.
struct Dtls {
    endpoint: Endpoint,
    peer: SocketAddr,
}

struct Srtp {
    inbound: Context,
    outbound: Context,
    /// RTP in and out where the profile is an AEAD.
    fast: Option<(Direction, Direction)>,
    profile: &'static str,
}

impl Srtp {
    fn open(&mut self, datagram: &[u8], payload: &mut Vec<u8>) -> Option<BytesMut> {
        match &mut self.fast {
            Some((inbound, _)) => {
                let head = inbound.open(datagram, payload)?;
                let mut packet = BytesMut::with_capacity(head + payload.len());
                packet.extend_from_slice(&datagram[..head]);
                packet.extend_from_slice(payload);
                Some(packet)
            }
            None => self.inbound.decrypt_rtp(datagram).ok(),
        }
    }

    fn seal(&mut self, packet: &[u8]) -> Result<BytesMut, String> {
        match &mut self.fast {
            Some((_, outbound)) => {
                let mut sealed = BytesMut::with_capacity(packet.len() + srtp::TAG);
                sealed.extend_from_slice(packet);
                match outbound.seal(&mut sealed) {
                    true => Ok(sealed),
                    false => Err("it could not be sealed".to_owned()),
                }
            }
            None => self
                .outbound
                .encrypt_rtp(packet)
                .map_err(|error| error.to_string()),
        }
    }
}

/// SRTP profiles to offer, the first preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Profiles {
    /// AEAD_AES_128_GCM, AEAD_AES_256_GCM, AES128_CM_HMAC_SHA1_80.
    #[default]
    All,
    /// AEAD_AES_128_GCM alone.
    Gcm128,
    /// AES128_CM_HMAC_SHA1_80 alone.
    Cm,
}

impl Profiles {
    fn list(self) -> Vec<SrtpProtectionProfile> {
        use SrtpProtectionProfile::{
            Srtp_Aead_Aes_128_Gcm as Gcm128, Srtp_Aead_Aes_256_Gcm as Gcm256,
            Srtp_Aes128_Cm_Hmac_Sha1_80 as Cm,
        };
        match self {
            Self::All => vec![Gcm128, Gcm256, Cm],
            Self::Gcm128 => vec![Gcm128],
            Self::Cm => vec![Cm],
        }
    }
}

/// ICE, DTLS and SRTP of one session.
pub struct Transport {
    crypto: Arc<dyn RTCCryptoProvider>,
    handshake: Arc<HandshakeConfig>,
    local: SocketAddr,
    ice: Agent,
    dtls: Option<Dtls>,
    srtp: Option<Srtp>,
    failed: bool,
    /// Where ICE sends to now.
    path: Option<SocketAddr>,
    queue: VecDeque<(SocketAddr, BytesMut)>,
    /// What came inside DTLS.
    data: VecDeque<BytesMut>,
    /// Payload of the packet at hand.
    payload: Vec<u8>,
}

impl Transport {
    /// A transport over the socket bound to `local` toward `remote`.
    pub fn new(
        now: Instant,
        identity: &Identity,
        local: SocketAddr,
        remote: &Remote,
    ) -> Result<Self, TransportError> {
        let ice_error = |error: rtc_shared::error::Error| TransportError::Ice(error.to_string());
        let config = AgentConfig {
            multicast_dns_mode: MulticastDnsMode::Disabled,
            ..AgentConfig::default()
        };
        let mut ice =
            Agent::new(now, Arc::new(config), identity.crypto.clone()).map_err(ice_error)?;
        ice.add_local_candidate(host_candidate(local)?)
            .map_err(ice_error)?;
        for address in remote.candidates.iter().take(MAX_CANDIDATES) {
            if address.is_ipv4() == local.is_ipv4() {
                ice.add_remote_candidate(host_candidate(*address)?)
                    .map_err(ice_error)?;
            }
        }
        ice.start_connectivity_checks(now, false, remote.ufrag.clone(), remote.pwd.clone())
            .map_err(ice_error)?;

        let expected = remote.fingerprint.clone();
        let crypto = identity.crypto.clone();
        let handshake = ConfigBuilder::default()
            .with_crypto_provider(identity.crypto.clone())
            .with_certificates(vec![identity.certificate.clone()])
            .with_extended_master_secret(ExtendedMasterSecretType::Request)
            .with_srtp_protection_profiles(identity.profiles.list())
            // A bridge's certificate is self-signed; what counts is its
            // fingerprint (RFC 8122 §6.2).
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |chain: &[Vec<u8>], _: &[_]| {
                let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
                let actual = crypto.crypto().hash(HashAlgorithm::Sha256, leaf);
                match actual {
                    Ok(actual) if actual == expected => Ok(()),
                    _ => Err(rtc_shared::error::Error::Other(
                        "the certificate is not the one whose fingerprint was signalled".into(),
                    )),
                }
            })))
            .build(true, None)
            .map_err(|error| TransportError::Dtls(error.to_string()))?;
        Ok(Self {
            crypto: identity.crypto.clone(),
            handshake: Arc::new(handshake),
            local,
            ice,
            dtls: None,
            srtp: None,
            failed: false,
            path: None,
            queue: VecDeque::new(),
            data: VecDeque::new(),
            payload: Vec::new(),
        })
    }

    /// Our ICE user name fragment and password, for the answer.
    pub fn local_credentials(&self) -> (&str, &str) {
        let credentials = self.ice.get_local_credentials();
        (&credentials.ufrag, &credentials.pwd)
    }

    pub fn progress(&self) -> Progress {
        if self.failed {
            Progress::Failed
        } else if self.srtp.is_some() {
            Progress::Ready
        } else if self.dtls.is_some() {
            Progress::IceConnected
        } else {
            Progress::Checking
        }
    }

    /// The SRTP profile in use, once there is one.
    pub fn profile(&self) -> Option<&'static str> {
        self.srtp.as_ref().map(|srtp| srtp.profile)
    }

    /// Takes a datagram from the socket (first octet: RFC 7983 §7).
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Received {
        match datagram {
            [0..=3, ..] => {
                let message = TaggedBytesMut {
                    now,
                    transport: TransportContext {
                        local_addr: self.local,
                        peer_addr: from,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    },
                    message: BytesMut::from(datagram),
                };
                let handled = self.ice.handle_read(message);
                self.advance(now);
                match handled {
                    Ok(()) => Received::Consumed,
                    Err(_) => Received::Dropped,
                }
            }
            [20..=63, ..] => {
                let received = self.handle_dtls(now, datagram);
                self.advance(now);
                received
            }
            [128..=191, kind, ..] => match &mut self.srtp {
                None => Received::Dropped,
                Some(srtp) if (192..=223).contains(kind) => srtp
                    .inbound
                    .decrypt_rtcp(datagram)
                    .map_or(Received::Dropped, Received::Rtcp),
                Some(srtp) => srtp
                    .open(datagram, &mut self.payload)
                    .map_or(Received::Dropped, Received::Rtp),
            },
            _ => Received::Dropped,
        }
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> Received {
        let Some(dtls) = &mut self.dtls else {
            return Received::Dropped;
        };
        match dtls
            .endpoint
            .read(now, dtls.peer, None, BytesMut::from(datagram))
        {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            if let Err(error) = self.export_keys() {
                                tracing::warn!(%error, "no media keys");
                                self.failed = true;
                            }
                        }
                        EndpointEvent::ApplicationData(data) if self.data.len() < MAX_QUEUED => {
                            self.data.push_back(data);
                        }
                        EndpointEvent::PeerClosed => self.failed = true,
                        _ => {}
                    }
                }
                Received::Consumed
            }
            Err(error) => {
                tracing::debug!(%error, "DTLS record refused");
                Received::Dropped
            }
        }
    }

    fn export_keys(&mut self) -> Result<(), TransportError> {
        let dtls_error = |text: &str| TransportError::Dtls(text.to_owned());
        let dtls = self
            .dtls
            .as_ref()
            .ok_or_else(|| dtls_error("no association"))?;
        let state = dtls
            .endpoint
            .get_connection_state(dtls.peer)
            .ok_or_else(|| dtls_error("no association"))?;
        let (profile, name) = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => {
                (ProtectionProfile::AeadAes128Gcm, "AEAD_AES_128_GCM")
            }
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => {
                (ProtectionProfile::AeadAes256Gcm, "AEAD_AES_256_GCM")
            }
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => (
                ProtectionProfile::Aes128CmHmacSha1_80,
                "AES128_CM_HMAC_SHA1_80",
            ),
            other => return Err(TransportError::Dtls(format!("SRTP profile {other:?}"))),
        };
        let mut config = rtc_srtp::config::Config {
            profile,
            ..Default::default()
        };
        let material = state
            .export_keying_material(
                rtc_srtp::config::LABEL_EXTRACTOR_DTLS_SRTP,
                &[],
                config.keying_material_len(),
            )
            .map_err(|error| TransportError::Dtls(error.to_string()))?;
        let srtp_error = |error: rtc_shared::error::Error| TransportError::Srtp(error.to_string());
        config
            .set_session_keys_from_keying_material(&material.into_bytes(), true)
            .map_err(srtp_error)?;
        let keys = &config.keys;
        let context = |key: &[u8], salt: &[u8]| {
            Context::new(key, salt, profile, None, None, self.crypto.crypto()).map_err(srtp_error)
        };
        let fast = Direction::new(&keys.remote_master_key, &keys.remote_master_salt).zip(
            Direction::new(&keys.local_master_key, &keys.local_master_salt),
        );
        self.srtp = Some(Srtp {
            fast,
            inbound: context(&keys.remote_master_key, &keys.remote_master_salt)?,
            outbound: context(&keys.local_master_key, &keys.local_master_salt)?,
            profile: name,
        });
        Ok(())
    }

    /// What came inside DTLS: packets of SCTP.
    pub fn poll_data(&mut self) -> Option<BytesMut> {
        self.data.pop_front()
    }

    /// Sends a packet of SCTP inside DTLS.
    pub fn send_data(&mut self, now: Instant, packet: &[u8]) {
        if let Some(dtls) = &mut self.dtls
            && let Err(error) = dtls.endpoint.write(now, dtls.peer, packet)
        {
            tracing::debug!(%error, "SCTP packet not sent");
        }
        self.advance(now);
    }

    /// Both ends, once ICE has settled on a pair.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.local, self.path?))
    }

    /// Encrypts and queues an RTP packet. False when it could not be sent.
    pub fn send_rtp(&mut self, packet: &[u8]) -> bool {
        self.send(packet, Srtp::seal)
    }

    /// Encrypts and queues a compound RTCP packet.
    pub fn send_rtcp(&mut self, packet: &[u8]) -> bool {
        self.send(packet, |srtp, packet| {
            let sealed = srtp.outbound.encrypt_rtcp(packet);
            sealed.map_err(|error| error.to_string())
        })
    }

    /// Opens an RTP packet whose header the caller reads by itself: its payload
    /// is left in `payload`. False if it is not authentic.
    pub fn open_payload(&mut self, datagram: &[u8], payload: &mut Vec<u8>) -> bool {
        match &mut self.srtp {
            Some(Srtp {
                fast: Some((inbound, _)),
                ..
            }) => inbound.open(datagram, payload).is_some(),
            Some(srtp) => srtp.inbound.decrypt_rtp(datagram).is_ok_and(|packet| {
                payload.clear();
                let head = super::rtp::header_len(&packet).unwrap_or(packet.len());
                payload.extend_from_slice(&packet[head..]);
                true
            }),
            None => false,
        }
    }

    fn send(
        &mut self,
        packet: &[u8],
        seal: impl FnOnce(&mut Srtp, &[u8]) -> Result<BytesMut, String>,
    ) -> bool {
        let (Some(to), Some(srtp)) = (self.path, &mut self.srtp) else {
            return false;
        };
        match seal(srtp, packet) {
            Ok(sealed) => {
                self.enqueue(to, sealed);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "packet not sent");
                false
            }
        }
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.ice.handle_timeout(now) {
            tracing::debug!(%error, "ICE timer");
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.endpoint.get_connection_state(dtls.peer).is_some()
            && let Err(error) = dtls.endpoint.handle_timeout(dtls.peer, now)
        {
            tracing::warn!(%error, "DTLS handshake failed");
            self.failed = true;
        }
        self.advance(now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let dtls = self
            .dtls
            .as_ref()
            .and_then(|dtls| dtls.endpoint.poll_timeout(&dtls.peer));
        [self.ice.poll_timeout(), dtls].into_iter().flatten().min()
    }

    /// The next datagram for the socket.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, BytesMut)> {
        self.queue.pop_front()
    }

    /// Moves what ICE and DTLS want to send into the queue; starts DTLS once a
    /// pair is nominated.
    fn advance(&mut self, now: Instant) {
        while self.ice.poll_event().is_some() {}
        if self.ice.state() == ConnectionState::Failed {
            self.failed = true;
        }
        let pair = self.ice.get_selected_candidate_pair();
        self.path = pair.map(|(_, remote)| remote.addr());
        if self.dtls.is_none()
            && let Some(peer) = self.path
        {
            let mut endpoint = Endpoint::new(self.local, TransportProtocol::UDP, None);
            if let Err(error) = endpoint.connect(now, peer, self.handshake.clone(), None) {
                tracing::warn!(%error, "DTLS cannot start");
                self.failed = true;
            }
            self.dtls = Some(Dtls { endpoint, peer });
        }
        while let Some(message) = self.ice.poll_write() {
            self.enqueue(message.transport.peer_addr, message.message);
        }
        while let Some((to, record)) = self.dtls.as_mut().and_then(|dtls| {
            let record = dtls.endpoint.poll_transmit()?;
            Some((self.path.unwrap_or(dtls.peer), record.message))
        }) {
            self.enqueue(to, record);
        }
    }

    fn enqueue(&mut self, to: SocketAddr, datagram: BytesMut) {
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
        }
        self.queue.push_back((to, datagram));
    }
}

fn host_candidate(address: SocketAddr) -> Result<rtc_ice::candidate::Candidate, TransportError> {
    CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            component: 1,
            ..CandidateConfig::default()
        },
        ..CandidateHostConfig::default()
    }
    .new_candidate_host()
    .map_err(|error| TransportError::Ice(error.to_string()))
}
