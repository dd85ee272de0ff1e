//! DTLS 1.2 with one peer, for its SRTP keys (RFC 5764) and its data channel.
//!
//! The handshake proper is the work of the crate `dimpl`, behind [`Session`].
//! What is here: a handshake begins once the peer's role and fingerprint are
//! known and ICE has a valid pair, whichever comes last; what the peer sends
//! before is kept, so its first flight is not lost. The peer's certificate must
//! have the fingerprint that was signalled (RFC 8122 §5), or there are no keys.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use super::srtp::Profile;
use crate::command::{Fingerprint, Setup};

/// From the first chance to talk to the last; as in JVB's `DtlsStack`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Datagrams kept until the handshake may begin; as in JVB's `DtlsTransport`.
const MAX_HELD: usize = 128;

/// First retransmission of a flight, doubled by each further one. One too many
/// costs a kilobyte, a late one costs the join; libwebrtc begins with 50 ms.
const FLIGHT_RTO: Duration = Duration::from_millis(100);

/// Retransmissions until [`HANDSHAKE_TIMEOUT`] cuts them off.
const FLIGHT_RETRIES: usize = 9;

/// Longest datagram that is looked at. Browsers send at most 1200 octets, an
/// Ethernet frame holds no more than 1500.
const MAX_DATAGRAM: usize = 2048;

/// Datagrams of a flight that are put together; a certificate comes in a few.
const MAX_QUEUED: usize = 30;

/// Hashes of RFC 8122 §5 worth a look, strongest first.
const HASHES: [(&str, &digest::Algorithm); 4] = [
    ("sha-512", &digest::SHA512),
    ("sha-384", &digest::SHA384),
    ("sha-256", &digest::SHA256),
    ("sha-1", &digest::SHA1_FOR_LEGACY_USE_ONLY),
];

/// The certificate this process shows all its peers, with what a handshake
/// needs beside it.
pub struct Certificate {
    certificate: dimpl::DtlsCertificate,
    config: Arc<dimpl::Config>,
}

impl Certificate {
    /// `certificate` is X.509 in DER, `private_key` an ECDSA key in PKCS #8.
    pub fn new(certificate: Vec<u8>, private_key: Vec<u8>) -> Self {
        let config = dimpl::Config::builder()
            // ICE has proved the peer's address: a cookie would cost a round
            // trip and add nothing.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .max_queue_rx(MAX_QUEUED)
            .build()
            .expect("a constant configuration");
        Self {
            certificate: dimpl::DtlsCertificate {
                certificate,
                private_key,
            },
            config: Arc::new(config),
        }
    }

    /// SHA-256 over the certificate.
    pub fn fingerprint(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.certificate.certificate)
            .as_ref()
            .to_vec()
    }

    /// The fingerprint as signalling writes it: `AB:CD:…`, to go with the hash
    /// name `sha-256`.
    pub fn fingerprint_text(&self) -> String {
        let octets: Vec<String> = self
            .fingerprint()
            .iter()
            .map(|octet| format!("{octet:02X}"))
            .collect();
        octets.join(":")
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.fingerprint_text())
    }
}

/// Why there is no secure connection with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DtlsError {
    /// The certificate is not the one that was signalled.
    #[error("the certificate does not match the signalled fingerprint")]
    Fingerprint,
    /// Not done within [`HANDSHAKE_TIMEOUT`].
    #[error("the handshake took too long")]
    Timeout,
    /// The peer speaks no SRTP, or no profile that we do.
    #[error("no common SRTP profile")]
    Profile,
    /// No common version or cipher suite, a bad signature, a fatal alert.
    #[error("the handshake failed")]
    Handshake,
}

/// What DTLS tells its transport.
pub(super) enum DtlsEvent {
    /// The handshake is done. `exported` is laid out as in RFC 5764 §4.2.
    Connected {
        profile: Profile,
        exported: Vec<u8>,
        is_client: bool,
    },
    Data(Vec<u8>),
    /// The peer ended the connection (`close_notify`).
    Closed,
    Failed(DtlsError),
}

/// What is asked of a DTLS implementation.
trait Session: Send {
    fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError>;
    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError>;
    fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError>;
    /// Hands out all there is, and answers when [`Self::handle_timeout`] is due.
    fn poll(&mut self, take: &mut dyn FnMut(Output<'_>)) -> Instant;
}

enum Output<'a> {
    Transmit(&'a [u8]),
    /// The certificate the peer has proved to own, in DER.
    PeerCertificate(&'a [u8]),
    /// The exporter's octets (RFC 5764 §4.2); `None` for a profile unknown here.
    Keys(Option<(Profile, Vec<u8>)>),
    Connected,
    Data(&'a [u8]),
    Closed,
}

/// DTLS with one peer.
pub(super) struct Dtls {
    certificate: Arc<Certificate>,
    fingerprints: Vec<Fingerprint>,
    state: State,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<DtlsEvent>,
    next: Option<Instant>,
}

enum State {
    /// Something is missing to begin.
    Waiting {
        held: VecDeque<Vec<u8>>,
    },
    Handshaking {
        session: Box<dyn Session>,
        is_client: bool,
        verified: bool,
        keys: Option<(Profile, Vec<u8>)>,
        deadline: Instant,
    },
    Connected {
        session: Box<dyn Session>,
    },
    Over,
}

impl Dtls {
    pub(super) fn new(certificate: Arc<Certificate>) -> Self {
        Self {
            certificate,
            fingerprints: Vec::new(),
            state: State::Waiting {
                held: VecDeque::new(),
            },
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next: None,
        }
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Waiting { .. } => "waiting",
            State::Handshaking { .. } => "handshaking",
            State::Connected { .. } => "connected",
            State::Over => "over",
        }
    }

    /// What the peer told about its certificate and role.
    pub(super) fn set_remote(&mut self, fingerprints: &[Fingerprint]) {
        if !fingerprints.is_empty() {
            self.fingerprints = fingerprints.to_vec();
        }
    }

    /// Begins the handshake if all it takes is known. `reachable` is whether
    /// ICE has a valid pair.
    pub(super) fn begin(&mut self, now: Instant, reachable: bool) {
        let State::Waiting { held } = &mut self.state else {
            return;
        };
        let role = self.fingerprints.iter().find_map(|f| match f.setup {
            Setup::Active => Some(false),
            Setup::Passive => Some(true),
            Setup::ActPass => None,
        });
        let (true, Some(is_client)) = (reachable, role) else {
            return;
        };
        let held = std::mem::take(held);
        self.state = State::Handshaking {
            session: Box::new(library::Dimpl::new(&self.certificate, is_client, now)),
            is_client,
            verified: false,
            keys: None,
            deadline: now + HANDSHAKE_TIMEOUT,
        };
        self.step(now, |session| session.handle_timeout(now));
        for datagram in held {
            self.handle(now, &datagram);
        }
    }

    /// A datagram from an address of the peer; `false` if it was dropped for
    /// its length or for want of room.
    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) -> bool {
        if datagram.len() > MAX_DATAGRAM {
            return false;
        }
        if let State::Waiting { held } = &mut self.state {
            let room = held.len() < MAX_HELD;
            if room {
                held.push_back(datagram.to_vec());
            }
            return room;
        }
        self.step(now, |session| session.handle(now, datagram));
        true
    }

    /// Sends application data; dropped unless the connection stands.
    pub(super) fn send(&mut self, now: Instant, data: &[u8]) {
        if matches!(self.state, State::Connected { .. }) {
            self.step(now, |session| session.send(now, data));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|due| due > now) {
            return;
        }
        match self.state {
            State::Handshaking { deadline, .. } if deadline <= now => {
                self.fail(DtlsError::Timeout);
            }
            _ => self.step(now, |session| session.handle_timeout(now)),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    pub(super) fn poll(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    /// Does something with the session and takes all that comes of it.
    fn step(&mut self, now: Instant, act: impl FnOnce(&mut dyn Session) -> Result<(), DtlsError>) {
        let (session, mut handshake) = match &mut self.state {
            State::Handshaking {
                session,
                verified,
                keys,
                ..
            } => (session, Some((verified, keys))),
            State::Connected { session } => (session, None),
            State::Waiting { .. } | State::Over => return,
        };
        let mut error = act(session.as_mut()).err();
        let mut done = false;
        let until = session.poll(&mut |output| match output {
            // Nothing more is said to an impostor.
            _ if error == Some(DtlsError::Fingerprint) => {}
            Output::Transmit(datagram) => self.transmits.push_back(datagram.to_vec()),
            Output::PeerCertificate(der) => match &mut handshake {
                Some((verified, _)) if matches_fingerprint(der, &self.fingerprints) => {
                    **verified = true;
                }
                _ => error = Some(DtlsError::Fingerprint),
            },
            Output::Keys(exported) => {
                if let Some((_, keys)) = &mut handshake {
                    **keys = exported;
                }
            }
            Output::Connected => done = true,
            Output::Data(data) => self.events.push_back(DtlsEvent::Data(data.to_vec())),
            Output::Closed => {
                self.events.push_back(DtlsEvent::Closed);
                error = Some(DtlsError::Handshake);
            }
        });
        // A timer in the past would be asked for again and again.
        self.next = Some(until.max(now));
        if let State::Handshaking { deadline, .. } = &self.state {
            self.next = self.next.map(|due| due.min(*deadline));
        }
        if done && error.is_none() {
            self.connect();
        }
        if let Some(error) = error {
            match self.state {
                State::Handshaking { .. } => self.fail(error),
                // Media goes on under the keys it has; only the data channel
                // is gone.
                _ => self.end(),
            }
        }
    }

    /// The handshake is done: hands out the keys, if the peer has earned them.
    fn connect(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over);
        let State::Handshaking {
            session,
            is_client,
            verified,
            keys,
            ..
        } = state
        else {
            self.state = state;
            return;
        };
        if !verified {
            return self.fail(DtlsError::Fingerprint);
        }
        let Some((profile, exported)) = keys else {
            return self.fail(DtlsError::Profile);
        };
        self.state = State::Connected { session };
        self.events.push_back(DtlsEvent::Connected {
            profile,
            exported,
            is_client,
        });
    }

    fn fail(&mut self, error: DtlsError) {
        self.events.push_back(DtlsEvent::Failed(error));
        self.end();
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.next = None;
    }
}

/// Whether a certificate has one of the fingerprints signalled with the
/// strongest hash among them.
fn matches_fingerprint(certificate: &[u8], signalled: &[Fingerprint]) -> bool {
    let with_hash = |name: &str| {
        let name = name.to_owned();
        signalled
            .iter()
            .filter(move |f| f.hash.eq_ignore_ascii_case(&name))
    };
    HASHES
        .iter()
        .find(|(name, _)| with_hash(name).next().is_some())
        .is_some_and(|(name, algorithm)| {
            let digest = digest::digest(algorithm, certificate);
            with_hash(name).any(|f| f.bytes == digest.as_ref())
        })
}

/// [`Session`] by the crate `dimpl`.
mod library {
    use std::time::Instant;

    use dimpl::{Dtls, SrtpProfile};

    use super::{Certificate, DtlsError, Output, Profile, Session};

    /// Room for what a poll may give. `dimpl` panics if a peer's certificate
    /// does not fit, so while one may come there is room for all that it could
    /// have put together of the datagrams it queues.
    const BUFFER: usize = 2048;
    const HANDSHAKE_BUFFER: usize = super::MAX_DATAGRAM * super::MAX_QUEUED;

    pub(super) struct Dimpl {
        dtls: Dtls,
        buffer: Vec<u8>,
    }

    impl Dimpl {
        pub(super) fn new(certificate: &Certificate, is_client: bool, now: Instant) -> Self {
            // Explicitly 1.2: with 1.3 the client's order of SRTP profiles
            // would rule, and browsers list the slowest first.
            let mut dtls = Dtls::new_12(
                certificate.config.clone(),
                certificate.certificate.clone(),
                now,
            );
            dtls.set_active(is_client);
            Self {
                dtls,
                buffer: vec![0; HANDSHAKE_BUFFER],
            }
        }
    }

    fn outcome<T>(result: Result<T, dimpl::Error>) -> Result<(), DtlsError> {
        match result {
            Ok(_) => Ok(()),
            Err(dimpl::Error::Timeout(_)) => Err(DtlsError::Timeout),
            Err(error) => {
                tracing::debug!(%error, "DTLS");
                Err(DtlsError::Handshake)
            }
        }
    }

    impl Session for Dimpl {
        fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
            // `dimpl` has no clock but this, and panics on a packet without one.
            outcome(self.dtls.handle_timeout(now))?;
            outcome(self.dtls.handle_packet(datagram))
        }

        fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
            outcome(self.dtls.handle_timeout(now))
        }

        fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError> {
            outcome(self.dtls.handle_timeout(now))?;
            outcome(self.dtls.send_application_data(data))
        }

        fn poll(&mut self, take: &mut dyn FnMut(Output<'_>)) -> Instant {
            loop {
                match self.dtls.poll_output(&mut self.buffer) {
                    dimpl::Output::BufferTooSmall { needed } => self.buffer.resize(needed, 0),
                    dimpl::Output::Packet(datagram) => take(Output::Transmit(datagram)),
                    dimpl::Output::PeerCert(der) => take(Output::PeerCertificate(der)),
                    dimpl::Output::KeyingMaterial(keys, profile) => {
                        let profile = match profile {
                            SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
                            SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
                            SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
                            _ => None,
                        };
                        take(Output::Keys(profile.map(|p| (p, keys.to_vec()))));
                    }
                    dimpl::Output::Connected => {
                        self.buffer = vec![0; BUFFER];
                        take(Output::Connected);
                    }
                    dimpl::Output::ApplicationData(data) => take(Output::Data(data)),
                    dimpl::Output::CloseNotify => take(Output::Closed),
                    dimpl::Output::Timeout(until) => return until,
                    _ => {}
                }
            }
        }
    }
}
