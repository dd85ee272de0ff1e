//! ICE for one peer (RFC 8445): which addresses are its own, which pair of
//! addresses is used, and whether it still wants to hear from us.
//!
//! Checks, answers and nomination are the work of the crate `is`, behind
//! [`Agent`]. What is here is policy that a server needs beside it:
//!
//! - Requests that come before the remote credentials are known are kept (the
//!   last of each address) and answered the moment they are, so the peer's
//!   first exchange connects although it knows us before we know it.
//! - An answer is heeded once, and only from where its request went.
//! - The pair in use follows the peer: to the nominated pair at first, then to
//!   whichever valid pair its media comes from (a NAT that gave it a new
//!   address), and away from a pair that has gone silent.
//! - Consent (RFC 7675): without an answer to any check for a while there is
//!   no path any more.
//! - Everything a peer can grow has a bound.
//!
//! Host names as candidates (mDNS) never get here: a candidate is an address.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::demux::{Binding, Class, StunError, TransactionId};
use crate::command::{Candidate, CandidateKind, EndpointSettings, IceCredentials};
use crate::view;

/// Without an answer for so long, a peer has withdrawn its consent. RFC 7675
/// §5.1 allows up to 30 s; Chromium gives up on us after about 17.
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(15);

/// A pair silent for longer is left for one that is not. Two of our own checks
/// (3 s apart in a steady state) go unanswered in that time.
const SILENCE: Duration = Duration::from_secs(7);

/// Media from another valid pair moves the path once the pair in use has had no
/// media for so long: stragglers of the old path arrive within this time.
const MEDIA_GRACE: Duration = Duration::from_millis(100);

/// Pairs of addresses known for one peer: a browser has a few interfaces, each
/// with a host, a mapped and a relayed address.
const MAX_PATHS: usize = 32;

/// A pair unheard for so long makes room for a new one.
const PATH_IDLE: Duration = Duration::from_secs(30);

/// Addresses the agent learns before it is made anew without those that fell
/// silent: it never forgets one by itself.
const MAX_LEARNED: usize = 64;

/// Candidates taken from signalling.
const MAX_SIGNALLED: usize = 32;

/// Requests kept until the remote credentials are known, one an address.
const MAX_KEPT: usize = 16;

/// Checks on their way: `is` has at most nine open for a pair.
const MAX_OUTSTANDING: usize = 256;

/// Addresses under which a peer may see us. More than one a local candidate
/// happens only behind an odd NAT of our own.
const MAX_MAPPED: usize = 16;

/// Rounds of one turn: each sends one check, so this is also the number of
/// checks that may leave at once.
const MAX_ROUNDS: usize = 64;

/// Why a STUN message was dropped. The peer's doing, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceError {
    #[error(transparent)]
    Malformed(#[from] StunError),
    /// Wrong user name or MESSAGE-INTEGRITY, or none.
    #[error("not signed with the credentials of this session")]
    Unauthenticated,
    /// An answer to nothing we asked, or not from where we asked.
    #[error("answer without a question")]
    Unexpected,
    /// The peer uses more addresses at once than there is room for.
    #[error("too many addresses")]
    TooManyAddresses,
}

/// What ICE tells its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IceEvent {
    /// A request with our password came from this address.
    Bound(SocketAddr),
    /// The address is the peer's no more.
    Unbound(SocketAddr),
    /// A pair is selected: media may flow. Again after each [`Self::Failed`].
    Connected,
    /// Consent has run out.
    Failed,
}

/// The local and the remote address of a datagram.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// What is asked of an ICE implementation: checks, answers, nomination.
trait Agent: Send {
    fn set_remote_credentials(&mut self, credentials: &IceCredentials);
    /// `priority` as signalled; `None` for an address learned from traffic.
    fn add_remote_candidate(&mut self, address: SocketAddr, priority: Option<u32>);
    /// Whether a message bears our user name and the right integrity.
    fn is_authentic(&self, message: &[u8]) -> bool;
    /// The address under which the peer sees us, from an answer of its.
    fn mapped_address(&self, message: &[u8]) -> Option<SocketAddr>;
    /// Takes a message; `false` if it is not authentic.
    fn handle(&mut self, now: Instant, pair: Pair, message: &[u8]) -> bool;
    /// Does one thing that is due.
    fn handle_timeout(&mut self, now: Instant);
    fn next_timeout(&mut self) -> Option<Instant>;
    fn transmit(&mut self) -> Option<(Pair, Vec<u8>)>;
    /// The pair nominated last, if that changed.
    fn nominated(&mut self) -> Option<Pair>;
}

/// A pair over which an authentic message came.
#[derive(Clone, Copy, Debug)]
struct Path {
    pair: Pair,
    /// The last authentic datagram of any kind.
    heard: Instant,
    /// The last authentic media.
    media: Option<Instant>,
    /// The last answer to a check of ours: what makes the pair valid.
    answered: Option<Instant>,
}

/// A check of ours that has not been answered.
struct Outstanding {
    transaction: TransactionId,
    pair: Pair,
}

/// A request that came before the remote credentials.
struct Kept {
    pair: Pair,
    message: Vec<u8>,
}

/// ICE for one peer.
pub(super) struct Ice {
    agent: Box<dyn Agent>,
    identity: Identity,
    remote: Option<IceCredentials>,
    consent_timeout: Duration,
    paths: Vec<Path>,
    nominated: Option<Pair>,
    selected: Option<Pair>,
    connected: bool,
    kept: Vec<Kept>,
    outstanding: VecDeque<Outstanding>,
    learned: usize,
    signalled: usize,
    mapped: Vec<SocketAddr>,
    next: Option<Instant>,
    transmits: VecDeque<(Pair, Vec<u8>)>,
    events: VecDeque<IceEvent>,
}

/// What an agent is made from, and made anew from.
#[derive(Clone, Debug)]
struct Identity {
    credentials: IceCredentials,
    controlling: bool,
    tie_breaker: u64,
    hosts: Vec<SocketAddr>,
    /// Server-reflexive addresses with their bases.
    mappings: Vec<(SocketAddr, SocketAddr)>,
}

impl Ice {
    /// `local` are the addresses of the sockets.
    pub(super) fn new(settings: &EndpointSettings, local: &[SocketAddr]) -> Self {
        let identity = Identity {
            credentials: settings.local_ice.clone(),
            controlling: settings.ice_controlling,
            tie_breaker: settings.ice_tie_breaker,
            hosts: local.to_vec(),
            mappings: settings
                .local_candidates
                .iter()
                .filter(|c| c.kind == CandidateKind::ServerReflexive)
                .filter_map(|c| Some((c.address, c.base?)))
                .collect(),
        };
        Self {
            agent: Box::new(library::Is::new(&identity)),
            identity,
            remote: None,
            consent_timeout: CONSENT_TIMEOUT,
            paths: Vec::new(),
            nominated: None,
            selected: None,
            connected: false,
            kept: Vec::new(),
            outstanding: VecDeque::new(),
            learned: 0,
            signalled: 0,
            mapped: Vec::new(),
            next: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn set_consent_timeout(&mut self, timeout: Duration) {
        self.consent_timeout = timeout;
    }

    /// Credentials and candidates of the peer. Checks start with the
    /// credentials, even without candidates. Candidates that come after a path
    /// was found are of no use: a better one shows in the peer's own checks.
    pub(super) fn set_remote(
        &mut self,
        now: Instant,
        credentials: Option<&IceCredentials>,
        candidates: &[Candidate],
    ) {
        if let Some(credentials) = credentials
            && self.remote.as_ref() != Some(credentials)
        {
            let known = self.remote.replace(credentials.clone()).is_some();
            if known {
                // Checks under the old credentials would never be answered.
                self.renew();
            } else {
                self.agent.set_remote_credentials(credentials);
            }
        }
        if !self.connected {
            let room = MAX_SIGNALLED.saturating_sub(self.signalled);
            let usable = |c: &&Candidate| c.address.port() != 0;
            for candidate in candidates.iter().filter(usable).take(room) {
                self.signalled += 1;
                self.agent
                    .add_remote_candidate(candidate.address, Some(candidate.priority));
            }
        }
        if self.remote.is_some() {
            for Kept { pair, message } in std::mem::take(&mut self.kept) {
                // One that fails now named another remote user: not our peer.
                let _ = self.handle_request(now, pair, &message);
            }
            self.drive(now);
        }
    }

    /// A STUN message.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        pair: Pair,
        message: &[u8],
    ) -> Result<(), IceError> {
        let binding = Binding::parse(message)?;
        match binding.class {
            // Keeps a NAT open and says nothing (RFC 8489 §6.3.2).
            Class::Indication => return Ok(()),
            Class::Request if self.remote.is_none() => return self.keep(now, pair, message),
            Class::Request => self.handle_request(now, pair, message)?,
            Class::Success | Class::Error => self.handle_answer(now, pair, &binding, message)?,
        }
        self.drive(now);
        Ok(())
    }

    /// Authentic media came over `pair`.
    pub(super) fn heard_media(&mut self, now: Instant, pair: Pair) {
        let Some(path) = self.paths.iter_mut().find(|p| p.pair == pair) else {
            return;
        };
        path.heard = now;
        path.media = Some(now);
        if self.selected != Some(pair) && path.answered.is_some() {
            let recent = |p: &Path| p.media.is_some_and(|at| now - at < MEDIA_GRACE);
            let selected = self.selected;
            if !self
                .paths
                .iter()
                .any(|p| Some(p.pair) == selected && recent(p))
            {
                self.select(now);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_some_and(|due| due <= now) {
            self.drive(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn poll(&mut self) -> Option<IceEvent> {
        self.events.pop_front()
    }

    pub(super) fn transmit(&mut self) -> Option<(Pair, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The selected pair, or else the best valid one: what DTLS may use.
    pub(super) fn path(&self) -> Option<Pair> {
        self.selected
    }

    /// A pair is selected and consent is fresh.
    pub(super) fn connected(&self) -> bool {
        self.connected
    }

    /// How it stands, for who looks.
    pub(super) fn describe(&self) -> view::Ice {
        let state = if self.connected {
            "connected"
        } else if self.remote.is_some() {
            "checking"
        } else {
            "new"
        };
        view::Ice {
            state,
            local: self.selected.map(|(local, _)| local),
            remote: self.selected.map(|(_, remote)| remote),
            local_ufrag: self.identity.credentials.ufrag.clone(),
            controlling: self.identity.controlling,
            paths: self.paths.len(),
            remote_candidates: self.signalled,
        }
    }

    /// Whether an authentic message came over `pair`.
    pub(super) fn knows(&self, pair: Pair) -> bool {
        self.paths.iter().any(|p| p.pair == pair)
    }

    /// Keeps a request until the remote credentials are known. Its sender has
    /// our password, so its address is its own to bind.
    fn keep(&mut self, now: Instant, pair: Pair, message: &[u8]) -> Result<(), IceError> {
        if !self.agent.is_authentic(message) {
            return Err(IceError::Unauthenticated);
        }
        if let Some(kept) = self.kept.iter_mut().find(|k| k.pair == pair) {
            kept.message = message.to_vec();
        } else if self.kept.len() == MAX_KEPT {
            return Err(IceError::TooManyAddresses);
        } else {
            let message = message.to_vec();
            self.kept.push(Kept { pair, message });
        }
        self.note(now, pair);
        Ok(())
    }

    fn handle_request(&mut self, now: Instant, pair: Pair, message: &[u8]) -> Result<(), IceError> {
        let known = self.knows(pair);
        if !known && self.paths.len() == MAX_PATHS && self.evictable(now).is_none() {
            return Err(IceError::TooManyAddresses);
        }
        if !self.agent.handle(now, pair, message) {
            return Err(IceError::Unauthenticated);
        }
        self.note(now, pair);
        if !known {
            self.learned += 1;
            if self.learned > MAX_LEARNED {
                self.collect();
                self.renew();
            }
        }
        Ok(())
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        pair: Pair,
        binding: &Binding<'_>,
        message: &[u8],
    ) -> Result<(), IceError> {
        // An answer from elsewhere than the request went to proves nothing
        // about that path (RFC 8445 §7.2.5.2.1).
        let asked = |o: &Outstanding| o.transaction == binding.transaction && o.pair == pair;
        let at = self.outstanding.iter().position(asked);
        let at = at.ok_or(IceError::Unexpected)?;
        if let Some(mapped) = self.agent.mapped_address(message)
            && !self.mapped.contains(&mapped)
        {
            if !self.agent.is_authentic(message) {
                return Err(IceError::Unauthenticated);
            }
            if self.mapped.len() == MAX_MAPPED {
                return Err(IceError::TooManyAddresses);
            }
            self.mapped.push(mapped);
        }
        if !self.agent.handle(now, pair, message) {
            return Err(IceError::Unauthenticated);
        }
        self.outstanding.remove(at);
        if binding.class == Class::Success
            && let Some(path) = self.note(now, pair)
        {
            path.answered = Some(now);
        }
        Ok(())
    }

    /// Notes that an authentic message came over `pair`; `None` if there is no
    /// room to remember it.
    fn note(&mut self, now: Instant, pair: Pair) -> Option<&mut Path> {
        if let Some(at) = self.paths.iter().position(|p| p.pair == pair) {
            self.paths[at].heard = now;
            return Some(&mut self.paths[at]);
        }
        if self.paths.len() == MAX_PATHS {
            let gone = self.evictable(now)?;
            let (_, remote) = self.paths.swap_remove(gone).pair;
            if !self.paths.iter().any(|p| p.pair.1 == remote) {
                self.events.push_back(IceEvent::Unbound(remote));
            }
        }
        if !self.paths.iter().any(|p| p.pair.1 == pair.1) {
            self.events.push_back(IceEvent::Bound(pair.1));
        }
        self.paths.push(Path {
            pair,
            heard: now,
            media: None,
            answered: None,
        });
        self.paths.last_mut()
    }

    /// The path to forget first, if any has been idle for long enough.
    fn evictable(&self, now: Instant) -> Option<usize> {
        let idle = |p: &&Path| now - p.heard >= PATH_IDLE && Some(p.pair) != self.selected;
        let oldest = self.paths.iter().filter(idle).min_by_key(|p| p.heard)?;
        self.paths.iter().position(|p| p.pair == oldest.pair)
    }

    /// Makes a new agent that knows only the addresses still in use.
    fn renew(&mut self) {
        self.agent = Box::new(library::Is::new(&self.identity));
        if let Some(remote) = &self.remote {
            self.agent.set_remote_credentials(remote);
        }
        for path in &self.paths {
            self.agent.add_remote_candidate(path.pair.1, None);
        }
        self.outstanding.clear();
        self.mapped.clear();
        self.learned = 0;
    }

    /// Lets the agent do all that is due and takes what it has to say.
    fn drive(&mut self, now: Instant) {
        for _ in 0..MAX_ROUNDS {
            self.agent.handle_timeout(now);
            self.collect();
            if self.agent.next_timeout().is_none_or(|due| due > now) {
                break;
            }
        }
        if let Some(nominated) = self.agent.nominated() {
            self.nominated = Some(nominated);
        }
        self.select(now);
        let checks = match self.remote {
            Some(_) => self.agent.next_timeout(),
            None => None,
        };
        let consent = self.consent_until().filter(|_| self.connected);
        self.next = [checks, consent].into_iter().flatten().min();
    }

    /// Takes what the agent wants sent, and remembers what it asks.
    fn collect(&mut self) {
        while let Some((pair, message)) = self.agent.transmit() {
            if let Ok(binding) = Binding::parse(&message)
                && binding.class == Class::Request
            {
                if self.outstanding.len() == MAX_OUTSTANDING {
                    self.outstanding.pop_front();
                }
                let transaction = binding.transaction;
                self.outstanding
                    .push_back(Outstanding { transaction, pair });
            }
            self.transmits.push_back((pair, message));
        }
    }

    /// Chooses the path, and finds out whether there is one.
    fn select(&mut self, now: Instant) {
        let consent_timeout = self.consent_timeout;
        let valid = |p: &&Path| p.answered.is_some_and(|at| now - at < consent_timeout);
        let best = self.paths.iter().filter(valid).max_by_key(|p| {
            (
                now - p.heard < SILENCE,
                p.media,
                Some(p.pair) == self.nominated,
                Some(p.pair) == self.selected,
            )
        });
        self.selected = best.map(|p| p.pair);
        match (self.connected, self.selected.is_some()) {
            (false, true) if self.nominated.is_some() => {
                self.connected = true;
                self.events.push_back(IceEvent::Connected);
            }
            (true, false) => {
                self.connected = false;
                self.events.push_back(IceEvent::Failed);
            }
            _ => {}
        }
    }

    /// When the consent of all paths will have run out.
    fn consent_until(&self) -> Option<Instant> {
        let last = self.paths.iter().filter_map(|p| p.answered).max()?;
        Some(last + self.consent_timeout)
    }
}

/// Characters of a worker number at the start of a user name fragment.
const WORKER_CHARS: usize = 2;
const ICE_CHARS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Makes the local credentials of an endpoint.
///
/// The user name fragment begins with the number of the worker that owns the
/// endpoint, so any worker that gets a request knows whom to hand it to; 64
/// random bits follow, and the password has 128 (RFC 8445 §5.3).
pub fn local_credentials(worker: u8, random: &[u8; 24]) -> IceCredentials {
    let (name, password) = random.split_at(8);
    let mut ufrag = base32(&[worker]);
    ufrag.push_str(&base32(name));
    IceCredentials {
        ufrag,
        pwd: base32(password),
    }
}

/// The worker named by a local user name fragment of [`local_credentials`].
pub fn worker_of(ufrag: &str) -> Option<u8> {
    let digit = |c: &u8| ICE_CHARS.iter().position(|d| d == c);
    let [high, low] = ufrag.as_bytes().get(..WORKER_CHARS)? else {
        return None;
    };
    u8::try_from(digit(high)? << 3 | digit(low)? >> 2).ok()
}

/// RFC 4648 §6 in lower case, without padding.
fn base32(octets: &[u8]) -> String {
    let bit = |i: usize| {
        octets
            .get(i / 8)
            .map_or(0, |o| usize::from(o >> (7 - i % 8) & 1))
    };
    (0..octets.len() * 8)
        .step_by(5)
        .map(|start| (start..start + 5).fold(0, |value, i| value << 1 | bit(i)))
        .map(|value| char::from(ICE_CHARS[value]))
        .collect()
}

/// Priority of a candidate of ours (RFC 8445 §5.1.2.1), component 1.
///
/// `hosts` is the number of host candidates: a single one has the highest local
/// preference, several are ordered IPv6 before IPv4, link-local in between.
pub fn candidate_priority(kind: CandidateKind, address: IpAddr, hosts: usize) -> u32 {
    let kind = match kind {
        CandidateKind::Host => 126,
        CandidateKind::PeerReflexive => 110,
        CandidateKind::ServerReflexive => 100,
        CandidateKind::Relayed => 0,
    };
    kind << 24 | local_preference(address, hosts) << 8 | 255
}

fn local_preference(address: IpAddr, hosts: usize) -> u32 {
    match address {
        _ if hosts < 2 => 65535,
        IpAddr::V6(address) if address.is_unicast_link_local() => 30,
        IpAddr::V6(_) => 40,
        IpAddr::V4(_) => 10,
    }
}

/// [`Agent`] by the crate `is`.
mod library {
    use std::time::{Duration, Instant};

    use aws_lc_rs::hmac;
    use is::stun::{StunMessage, StunPacket};
    use is::{Candidate, CandidateKind, IceAgent, IceAgentEvent, IceCreds, Protocol};

    use super::{Agent, IceCredentials, Identity, Pair, SocketAddr};

    /// First retransmission of a check; doubles up to the interval below.
    const RTO: Duration = Duration::from_millis(100);
    /// Interval of the checks that keep a pair.
    const KEEP_INTERVAL: Duration = Duration::from_secs(3);

    pub(super) struct Is(IceAgent);

    #[derive(Debug)]
    struct Hmac;

    impl is::Sha1HmacProvider for Hmac {
        fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
            let mut context = hmac::Context::with_key(&key);
            payloads.iter().for_each(|part| context.update(part));
            let tag = context.sign();
            tag.as_ref().try_into().expect("SHA-1 has 20 octets")
        }
    }

    fn credentials(ours: &IceCredentials) -> IceCreds {
        IceCreds {
            ufrag: ours.ufrag.clone(),
            pass: ours.pwd.clone(),
        }
    }

    impl Is {
        pub(super) fn new(identity: &Identity) -> Self {
            let mut agent = IceAgent::with_hmac(credentials(&identity.credentials), &Hmac);
            agent.set_controlling(identity.controlling);
            agent.set_control_tie_breaker(identity.tie_breaker);
            // A check leaves in the turn that calls for it: with pacing, the
            // one a request triggers would wait behind those of candidates
            // that lead nowhere.
            agent.set_timing_advance(Duration::ZERO);
            agent.set_initial_stun_rto(RTO);
            agent.set_max_stun_rto(KEEP_INTERVAL);
            let hosts = identity.hosts.len();
            agent.set_local_preference(move |candidate: &Candidate, _| {
                super::local_preference(candidate.addr().ip(), hosts)
            });
            // What `is` finds no address to talk from or to (unspecified,
            // multicast) is left out.
            let host = |&address| Candidate::host(address, "udp").ok();
            for candidate in identity.hosts.iter().filter_map(host) {
                agent.add_local_candidate(candidate);
            }
            let reflexive =
                |&(address, base)| Candidate::server_reflexive(address, base, "udp").ok();
            for candidate in identity.mappings.iter().filter_map(reflexive) {
                agent.add_local_candidate(candidate);
            }
            Self(agent)
        }
    }

    impl Agent for Is {
        fn set_remote_credentials(&mut self, remote: &IceCredentials) {
            self.0.set_remote_credentials(credentials(remote));
        }

        fn add_remote_candidate(&mut self, address: SocketAddr, priority: Option<u32>) {
            // Checks the address, which `from_parts` does not.
            let Ok(host) = Candidate::host(address, "udp") else {
                return;
            };
            self.0.add_remote_candidate(match priority {
                Some(priority) => Candidate::from_parts(
                    "1".to_owned(),
                    1,
                    Protocol::Udp,
                    priority,
                    address,
                    CandidateKind::Host,
                    None,
                    None,
                    None,
                ),
                None => host,
            });
        }

        fn is_authentic(&self, message: &[u8]) -> bool {
            StunMessage::parse(message).is_ok_and(|message| self.0.accepts_message(&message))
        }

        fn mapped_address(&self, message: &[u8]) -> Option<SocketAddr> {
            StunMessage::parse(message).ok()?.mapped_address()
        }

        fn handle(&mut self, now: Instant, (local, remote): Pair, message: &[u8]) -> bool {
            let Ok(message) = StunMessage::parse(message) else {
                return false;
            };
            let packet = StunPacket {
                proto: Protocol::Udp,
                source: remote,
                destination: local,
                message,
            };
            self.0.handle_packet(now, packet)
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.0.handle_timeout(now);
        }

        fn next_timeout(&mut self) -> Option<Instant> {
            self.0.poll_timeout()
        }

        fn transmit(&mut self) -> Option<(Pair, Vec<u8>)> {
            let transmit = self.0.poll_transmit()?;
            let pair = (transmit.source, transmit.destination);
            Some((pair, transmit.contents.into()))
        }

        fn nominated(&mut self) -> Option<Pair> {
            let mut nominated = None;
            while let Some(event) = self.0.poll_event() {
                if let IceAgentEvent::NominatedSend {
                    source,
                    destination,
                    ..
                } = event
                {
                    nominated = Some((source, destination));
                }
            }
            nominated
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_user_name_leads_to_its_worker() {
        let mut seen = BTreeSet::new();
        for worker in 0..=255 {
            for random in [[0; 24], [255; 24], [7; 24]] {
                let IceCredentials { ufrag, pwd } = local_credentials(worker, &random);
                assert_eq!(worker_of(&ufrag), Some(worker));
                // 8 + 64 bits, and 128: RFC 8445 §5.3 wants 4 and 22 characters.
                assert_eq!((ufrag.len(), pwd.len()), (15, 26));
                let chars = ufrag.bytes().chain(pwd.bytes());
                assert!(chars.into_iter().all(|c| c.is_ascii_alphanumeric()));
                seen.insert(ufrag);
            }
        }
        assert_eq!(seen.len(), 3 * 256);
        assert_eq!(worker_of(""), None);
        assert_eq!(worker_of("a"), None);
        assert_eq!(worker_of("A!xx"), None);
    }

    /// RFC 4648 §10.
    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(b"fooba"), "mzxw6ytb");
        assert_eq!(base32(b"f"), "my");
    }

    #[test]
    fn priorities_order_candidates_as_the_bridge_prefers_them() {
        use CandidateKind::{Host, PeerReflexive, Relayed, ServerReflexive};
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let global: IpAddr = "2001:db8::1".parse().expect("an address");
        let link: IpAddr = "fe80::1".parse().expect("an address");
        // A single host candidate, as RFC 8445 §5.1.2.1 recommends.
        assert_eq!(candidate_priority(Host, v4, 1), 2_130_706_431);
        assert_eq!(candidate_priority(ServerReflexive, v4, 1), 1_694_498_815);
        let order = [
            candidate_priority(Host, global, 3),
            candidate_priority(Host, link, 3),
            candidate_priority(Host, v4, 3),
            candidate_priority(PeerReflexive, v4, 3),
            candidate_priority(ServerReflexive, v4, 3),
            candidate_priority(Relayed, v4, 3),
        ];
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
        assert_eq!(order[2], 126 << 24 | 10 << 8 | 255);
    }
}
