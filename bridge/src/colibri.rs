//! Colibri2: requests of the focus become changes to conferences.
//!
//! The registry of conferences and endpoints lives here. Every request is
//! answered at once, from the registry alone, and what it means for the media
//! plane leaves by way of [`crate::placement`] as commands in the order in which
//! it was asked; a shard never refuses one. So a request is answered before anything has happened to
//! a packet, requests of one conference are first in, first out by construction,
//! and a meeting that was expired can be created again by the next request.
//!
//! Rules and texts of the errors: `focus-bridge` §2.4 and §2.5. As upstream, a
//! request is not a transaction: what it did before an error stays done; but an
//! endpoint that is refused leaves nothing of itself behind.
//!
//! Not offered yet, and refused the way a JVB refuses what its configuration
//! turns off: relays ("Octo is disabled in configuration.").

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use viaduct_signalling::colibri2::{
    self as wire, ConferenceModified, ConferenceModify, ErrorReason, capability,
};
use viaduct_signalling::iq::{Condition, StanzaError};
use viaduct_signalling::jid::BareJid;
use viaduct_signalling::jingle;

use crate::candidates::is_private;
use crate::command::{
    Candidate, CandidateKind, Codec, Encoding, EndpointSettings, EndpointUpdate, ExpiryReason,
    Feedback, Fingerprint, ForceMute, HeaderExtension, IceCredentials, Media, MediaType, Payload,
    RemoteTransport, Setup, Source, VideoType,
};
use crate::id::{ConferenceId, EndpointId, MemberId, SourceName};
use crate::placement::{Dispatch, Placement};
use crate::rtp::{PayloadType, Ssrc};
use crate::transport::{local_credentials, sctp};

/// Conferences at once. Far beyond what one host can carry; the bound only
/// keeps a focus gone wild from filling the memory.
pub const MAX_CONFERENCES: usize = 65_536;
/// Endpoints of one conference at once, likewise.
pub const MAX_ENDPOINTS: usize = 4096;
/// Sources of one endpoint. jicofo allows 20 SSRCs a user.
pub const MAX_SOURCES: usize = 64;
/// Encodings of one source: layer indices keep two bits for them.
pub const MAX_ENCODINGS: usize = 4;
/// Header extensions and payload types each have at most so many ids.
pub const MAX_CODEC_ENTRIES: usize = 256;
/// Remote candidates taken from one request.
pub const MAX_CANDIDATES: usize = 64;
/// How long a conference without endpoints lives, unless a request empties it
/// (jitsi-videobridge:jvb/…/Conference.java, `shouldExpire`).
pub const EMPTY_CONFERENCE_LIFETIME: Duration = Duration::from_secs(20);

/// What every endpoint is told about this bridge.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The addresses announced.
    pub candidates: Vec<Candidate>,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// `ice.ufrag-prefix`: characters every local user name fragment begins with.
    pub ufrag_prefix: String,
    /// `ice.advertise-private-candidates`.
    pub advertise_private: bool,
    /// Beginnings of bridge-channel URLs, one per domain, up to and including
    /// the server id and a slash; empty when WebSockets are off.
    pub channel_urls: Vec<String>,
    /// `sctp.enabled`: bridge channels may be data channels.
    pub data_channels: bool,
    /// Over how many workers conferences are spread, and how many endpoints of
    /// one a worker gets before others do.
    pub workers: usize,
    pub endpoints_per_worker: usize,
}

/// A refusal without a colibri2 reason.
fn refuse(condition: Condition, text: impl Into<String>) -> StanzaError {
    StanzaError::new(condition).with_text(text)
}

fn bad_request(text: impl Into<String>) -> StanzaError {
    refuse(Condition::BadRequest, text)
}

/// The registry. See the head of this file.
#[derive(Debug)]
pub struct Colibri {
    settings: Settings,
    rng: StdRng,
    /// By meeting id.
    conferences: BTreeMap<String, Conference>,
    /// Meeting ids by the id in bridge-channel paths.
    meetings: BTreeMap<ConferenceId, String>,
    placement: Placement,
    refuse_conferences: bool,
    totals: Totals,
}

#[derive(Debug)]
struct Conference {
    id: ConferenceId,
    audio_feedback: Ssrc,
    video_feedback: Ssrc,
    created: Instant,
    /// When it lost its last endpoint, or began without any.
    empty_since: Option<Instant>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    visitor: bool,
    /// Opens the bridge channel; independent of ICE, stable for life.
    password: String,
    member: MemberId,
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub conferences_created: u64,
    pub conferences_completed: u64,
    /// Length of the completed ones.
    pub conference_seconds: u64,
    pub endpoints: u64,
    pub visitors: u64,
    pub endpoints_ice_failed: u64,
    pub endpoints_dtls_failed: u64,
}

/// What is registered now. These gauges follow a request at once, while those
/// of the shards are up to a second old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    pub conferences: usize,
    pub endpoints: usize,
    pub visitors: usize,
    pub largest_conference: usize,
}

impl Colibri {
    /// An empty registry. All ids and secrets come from `rng`.
    pub fn new(settings: Settings, rng: StdRng) -> Self {
        let placement = Placement::new(settings.workers, settings.endpoints_per_worker);
        Self {
            settings,
            rng,
            conferences: BTreeMap::new(),
            meetings: BTreeMap::new(),
            placement,
            refuse_conferences: false,
            totals: Totals::default(),
        }
    }

    /// Handles one request.
    pub fn handle(
        &mut self,
        now: Instant,
        request: &ConferenceModify,
    ) -> Result<ConferenceModified, StanzaError> {
        let meeting = &request.meeting_id;
        if request.create {
            self.create_conference(now, request)?;
        } else if !self.conferences.contains_key(meeting) {
            return Err(wire::error(
                Condition::ItemNotFound,
                ErrorReason::ConferenceNotFound,
                format!("Conference not found for ID: {meeting}"),
            ));
        }
        let answer = self.apply(now, request)?;
        let emptied = !request.create && self.conference(meeting).endpoints.is_empty();
        if request.expire || emptied {
            self.expire_conference(now, &meeting.clone());
        }
        Ok(answer)
    }

    /// Refuses new conferences from now on (graceful shutdown).
    pub fn refuse_conferences(&mut self) {
        self.refuse_conferences = true;
    }

    /// Expires conferences that have been empty for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |c: &Conference| {
            c.empty_since
                .is_some_and(|since| now.duration_since(since) >= EMPTY_CONFERENCE_LIFETIME)
        };
        let expired: Vec<String> = self
            .conferences
            .iter()
            .filter(|(_, conference)| due(conference))
            .map(|(meeting, _)| meeting.clone())
            .collect();
        for meeting in expired {
            self.expire_conference(now, &meeting);
        }
    }

    /// A shard found that an endpoint has gone. The focus is not told
    /// (`focus-bridge` §2.4); its next request about the endpoint is answered
    /// `unknown_endpoint`.
    pub fn endpoint_expired(
        &mut self,
        now: Instant,
        conference: ConferenceId,
        member: MemberId,
        reason: ExpiryReason,
    ) {
        let Some(meeting) = self.meetings.get(&conference) else {
            return;
        };
        let conference = self
            .conferences
            .get_mut(meeting)
            .expect("an id is listed as long as its meeting");
        let before = conference.endpoints.len();
        conference.endpoints.retain(|_, e| e.member != member);
        if conference.endpoints.len() == before {
            return;
        }
        self.placement.expire_endpoint(conference.id, member);
        if conference.endpoints.is_empty() {
            conference.empty_since = Some(now);
        }
        match reason {
            ExpiryReason::IceFailed => self.totals.endpoints_ice_failed += 1,
            ExpiryReason::DtlsFailed => self.totals.endpoints_dtls_failed += 1,
            ExpiryReason::Inactive => {}
        }
    }

    /// The worker to which a bridge channel belongs, if its path and password
    /// are those of an endpoint.
    pub fn channel(
        &self,
        conference: ConferenceId,
        endpoint: &EndpointId,
        password: &str,
    ) -> Option<usize> {
        let registered = self.conferences.get(self.meetings.get(&conference)?)?;
        let Endpoint {
            password: expected,
            member,
            ..
        } = registered.endpoints.get(endpoint)?;
        let opens = same(expected.as_bytes(), password.as_bytes());
        let home = || self.placement.home(conference, *member);
        opens.then(home).flatten()
    }

    /// The commands made since the last call, in order.
    pub fn take_dispatches(&mut self) -> impl Iterator<Item = Dispatch> + '_ {
        self.placement.take_dispatches()
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn registered(&self) -> Registered {
        self.conferences
            .values()
            .fold(Registered::default(), |sum, c| Registered {
                conferences: sum.conferences + 1,
                endpoints: sum.endpoints + c.endpoints.len(),
                visitors: sum.visitors + c.endpoints.values().filter(|e| e.visitor).count(),
                largest_conference: sum.largest_conference.max(c.endpoints.len()),
            })
    }

    fn conference(&mut self, meeting: &str) -> &mut Conference {
        self.conferences
            .get_mut(meeting)
            .expect("the caller looked the meeting up")
    }

    fn create_conference(
        &mut self,
        now: Instant,
        request: &ConferenceModify,
    ) -> Result<(), StanzaError> {
        let meeting = &request.meeting_id;
        if self.conferences.contains_key(meeting) {
            return Err(wire::error(
                Condition::Conflict,
                ErrorReason::ConferenceAlreadyExists,
                format!("Conference already exists for ID: {meeting}"),
            ));
        }
        if self.refuse_conferences {
            return Err(wire::error(
                Condition::ServiceUnavailable,
                ErrorReason::GracefulShutdown,
                "In graceful shutdown",
            ));
        }
        if let Some(name) = &request.name
            && name.parse::<BareJid>().is_err()
        {
            return Err(bad_request(format!(
                "Conference name is not a bare JID: {name}"
            )));
        }
        if self.conferences.len() >= MAX_CONFERENCES {
            return Err(refuse(
                Condition::InternalServerError,
                format!("More than {MAX_CONFERENCES} conferences"),
            ));
        }
        let id = loop {
            let id = ConferenceId(self.rng.random_range(1..=u64::MAX));
            if !self.meetings.contains_key(&id) {
                break id;
            }
        };
        let audio_feedback = Ssrc(self.rng.random_range(1..=u32::MAX));
        let video_feedback = loop {
            let ssrc = Ssrc(self.rng.random_range(1..=u32::MAX));
            if ssrc != audio_feedback {
                break ssrc;
            }
        };
        tracing::info!(conference = %id, meeting, "conference created");
        tracing::debug!(conference = %id, name = request.name, "conference named");
        self.meetings.insert(id, meeting.clone());
        self.conferences.insert(
            meeting.clone(),
            Conference {
                id,
                audio_feedback,
                video_feedback,
                created: now,
                empty_since: Some(now),
                endpoints: BTreeMap::new(),
            },
        );
        self.totals.conferences_created += 1;
        self.placement
            .create_conference(now, id, audio_feedback, video_feedback);
        Ok(())
    }

    fn expire_conference(&mut self, now: Instant, meeting: &str) {
        let conference = self
            .conferences
            .remove(meeting)
            .expect("the caller looked the meeting up");
        self.meetings.remove(&conference.id);
        let lived = now.duration_since(conference.created);
        self.totals.conferences_completed += 1;
        self.totals.conference_seconds += lived.as_secs();
        tracing::info!(
            conference = %conference.id,
            meeting,
            seconds = lived.as_secs(),
            "conference expired"
        );
        self.placement.expire_conference(conference.id);
    }

    fn apply(
        &mut self,
        now: Instant,
        request: &ConferenceModify,
    ) -> Result<ConferenceModified, StanzaError> {
        validate(request)?;
        // Requests that only expire, mute and the like may name endpoints that
        // are gone: the focus cannot know, and one of them must not spoil the rest.
        let lenient = request.endpoints.iter().all(|e| !allocates(e))
            && request.relays.iter().all(|r| r.expire);
        let mut endpoints = Vec::new();
        for endpoint in &request.endpoints {
            endpoints.push(self.apply_endpoint(now, &request.meeting_id, endpoint, lenient)?);
        }
        let mut relays = Vec::new();
        for relay in &request.relays {
            if !relay.expire {
                return Err(refuse(
                    Condition::FeatureNotImplemented,
                    "Octo is disabled in configuration.",
                ));
            }
            relays.push(wire::Relay {
                id: relay.id.clone(),
                expire: true,
                ..wire::Relay::default()
            });
        }
        let wants_sources = request.create || request.endpoints.iter().any(|e| e.create);
        let conference = self.conference(&request.meeting_id);
        let sources = wants_sources.then(|| feedback_sources(conference));
        Ok(ConferenceModified {
            endpoints,
            relays,
            sources,
        })
    }

    fn apply_endpoint(
        &mut self,
        now: Instant,
        meeting: &str,
        request: &wire::Endpoint,
        lenient: bool,
    ) -> Result<wire::Endpoint, StanzaError> {
        let id = EndpointId::from(request.id.as_str());
        let mut answer = wire::Endpoint::new(&request.id);
        let conference = self.conference(meeting);
        let conference_id = conference.id;
        let known = conference.endpoints.get(&id);
        let known = known.map(|endpoint| (endpoint.visitor, endpoint.member));
        if request.expire {
            if let Some((_, member)) = known {
                conference.endpoints.remove(&id);
                if conference.endpoints.is_empty() {
                    conference.empty_since = Some(now);
                }
                tracing::debug!(conference = %conference_id, endpoint = %id, "endpoint expired");
                self.placement.expire_endpoint(conference_id, member);
            }
            answer.expire = true;
            return Ok(answer);
        }
        if request.create {
            self.check_create(meeting, request, known.is_some())?;
        } else if known.is_none() {
            return if lenient {
                Ok(answer)
            } else {
                Err(wire::unknown_endpoint(&request.id))
            };
        }
        let sctp = request.transport.as_ref().and_then(|t| t.sctp.as_ref());
        if let Some(sctp) = sctp {
            self.check_sctp(sctp)?;
        }
        let asked = || request.muc_role.as_deref() == Some("visitor");
        let visitor = known.map_or_else(asked, |(visitor, _)| visitor);
        let update = update(request)?;
        if visitor && update.sources.as_ref().is_some_and(|s| !s.is_empty()) {
            return Err(bad_request("Visitors cannot have sources."));
        }
        let member = match known {
            Some((_, member)) => member,
            None => {
                let (member, transport) = self.create_endpoint(meeting, request, visitor);
                answer.transport = Some(transport);
                member
            }
        };
        self.placement
            .update_endpoint(conference_id, member, update);
        Ok(answer)
    }

    fn check_create(
        &mut self,
        meeting: &str,
        request: &wire::Endpoint,
        exists: bool,
    ) -> Result<(), StanzaError> {
        let id = &request.id;
        if exists {
            return Err(refuse(
                Condition::Conflict,
                format!("Endpoint with ID {id} already exists"),
            ));
        }
        if request.transport.is_none() {
            return Err(bad_request(
                "Attempt to create endpoint with no <transport>",
            ));
        }
        if !request.has_capability(capability::SOURCE_NAMES) {
            return Err(bad_request("Source name support is mandatory."));
        }
        if self.conference(meeting).endpoints.len() >= MAX_ENDPOINTS {
            return Err(refuse(
                Condition::InternalServerError,
                format!("More than {MAX_ENDPOINTS} endpoints"),
            ));
        }
        Ok(())
    }

    /// Whether what is asked of SCTP is what there is: the client dials.
    fn check_sctp(&self, sctp: &wire::Sctp) -> Result<(), StanzaError> {
        if !self.settings.data_channels {
            return Err(refuse(
                Condition::FeatureNotImplemented,
                "SCTP support is not configured",
            ));
        }
        if let Some(role) = &sctp.role
            && !role.eq_ignore_ascii_case("server")
        {
            return Err(refuse(
                Condition::FeatureNotImplemented,
                format!("Unsupported SCTP role: {role}"),
            ));
        }
        if sctp.port.is_some_and(|port| port != sctp::PORT) {
            return Err(bad_request("Specific SCTP port requested, not supported."));
        }
        Ok(())
    }

    /// Registers an endpoint and answers the transport it is offered.
    fn create_endpoint(
        &mut self,
        meeting: &str,
        request: &wire::Endpoint,
        visitor: bool,
    ) -> (MemberId, wire::Transport) {
        let id = EndpointId::from(request.id.as_str());
        let conference = self.conference(meeting).id;
        let home = self.placement.next_home(conference);
        let local_ice = self.credentials(home);
        let password = Alphanumeric.sample_string(&mut self.rng, 24);
        let controlling = request
            .transport
            .as_ref()
            .is_some_and(|transport| transport.ice_controlling);
        let private = self.settings.advertise_private
            || request.has_capability(capability::PRIVATE_ADDRESSES);
        let transport = wire::Transport {
            ice_udp: Some(self.ice_udp(conference, &id, &local_ice, &password, private)),
            sctp: request
                .transport
                .as_ref()
                .is_some_and(|transport| transport.sctp.is_some())
                .then(|| wire::Sctp {
                    role: Some("server".to_owned()),
                    port: Some(sctp::PORT),
                }),
            ..wire::Transport::default()
        };
        let settings = Box::new(EndpointSettings {
            local_ice,
            ice_controlling: controlling,
            ice_tie_breaker: self.rng.random(),
            local_candidates: self.settings.candidates.clone(),
            visitor,
        });
        tracing::debug!(%conference, endpoint = %id, visitor, "endpoint created");
        let member = self
            .placement
            .create_endpoint(conference, id.clone(), home, settings);
        self.totals.endpoints += 1;
        self.totals.visitors += u64::from(visitor);
        let conference = self.conference(meeting);
        conference.empty_since = None;
        conference.endpoints.insert(
            id,
            Endpoint {
                visitor,
                password,
                member,
            },
        );
        (member, transport)
    }

    /// Fresh ICE credentials. They name the worker, so that a check finds its
    /// shard without a shared map.
    fn credentials(&mut self, worker: usize) -> IceCredentials {
        let worker = u8::try_from(worker).expect("the configuration allows 256 workers");
        let credentials = local_credentials(worker, &self.rng.random());
        IceCredentials {
            ufrag: format!("{}{}", self.settings.ufrag_prefix, credentials.ufrag),
            ..credentials
        }
    }

    /// Our side of the transport, as one endpoint is told it.
    fn ice_udp(
        &self,
        conference: ConferenceId,
        endpoint: &EndpointId,
        credentials: &IceCredentials,
        password: &str,
        private: bool,
    ) -> jingle::Transport {
        let settings = &self.settings;
        let candidates = settings
            .candidates
            .iter()
            .filter(|c| private || !is_private(c.address.ip()))
            .map(|c| wire_candidate(c, &credentials.ufrag, private))
            .collect();
        let id = path_segment(&endpoint.0);
        let web_sockets = settings
            .channel_urls
            .iter()
            .map(|url| jingle::WebSocket {
                url: Some(format!("{url}{conference}/{id}?pwd={password}")),
                active: None,
            })
            .collect();
        jingle::Transport {
            ufrag: Some(credentials.ufrag.clone()),
            pwd: Some(credentials.pwd.clone()),
            rtcp_mux: true,
            fingerprints: vec![jingle::Fingerprint {
                hash: settings.fingerprint.hash.clone(),
                // Always, whatever the bridge would prefer (`focus-bridge` §2.3).
                setup: Some(jingle::transport::Setup::ActPass),
                value: jingle::Fingerprint::text(&settings.fingerprint.bytes),
                ..jingle::Fingerprint::default()
            }],
            web_sockets,
            candidates,
            ..jingle::Transport::default()
        }
    }
}

/// Text as one segment of a path: all but unreserved characters (RFC 3986 §2.3)
/// in percent encoding. Endpoint ids are opaque, though mostly hexadecimal.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(octet).to_string()
            }
            _ => format!("%{octet:02X}"),
        })
        .collect()
}

/// What a request may combine (`focus-bridge` §2.4 step 3).
fn validate(request: &ConferenceModify) -> Result<(), StanzaError> {
    let text = if !request.endpoints.is_empty() && !request.relays.is_empty() {
        "Using both endpoints and relays in a single request"
    } else if request.endpoints.len() > 1 && request.endpoints.iter().any(allocates) {
        "Creating or updating multiple endpoints in a single request"
    } else if request.relays.len() > 1 {
        "Using multiple relays in a single request"
    } else {
        return Ok(());
    };
    Err(wire::error(
        Condition::FeatureNotImplemented,
        ErrorReason::FeatureNotImplemented,
        text,
    ))
}

/// Whether a request about an endpoint needs it to be there.
fn allocates(endpoint: &wire::Endpoint) -> bool {
    endpoint.create
        || !endpoint.media.is_empty()
        || endpoint.transport.is_some()
        || endpoint.sources.is_some()
}

/// `jvb-a0` and `jvb-v0`: the senders of the RTCP this bridge makes itself.
fn feedback_sources(conference: &Conference) -> wire::Sources {
    let source = |kind, name: &str, ssrc: Ssrc| wire::MediaSource {
        kind,
        id: name.to_owned(),
        synthetic: false,
        sources: vec![jingle::Source {
            name: Some(name.to_owned()),
            ..jingle::Source::bare(ssrc.0)
        }],
        ssrc_groups: Vec::new(),
    };
    wire::Sources {
        media_sources: vec![
            source(wire::MediaType::Audio, "jvb-a0", conference.audio_feedback),
            source(wire::MediaType::Video, "jvb-v0", conference.video_feedback),
        ],
    }
}

fn wire_candidate(candidate: &Candidate, ufrag: &str, private: bool) -> jingle::Candidate {
    let base = candidate.base.map(|base| {
        if private {
            base
        } else {
            SocketAddr::from(([0, 0, 0, 0], 9))
        }
    });
    jingle::Candidate {
        component: Some(1),
        foundation: Some(candidate.foundation.clone()),
        generation: Some(0),
        id: Some(format!("{ufrag}{}", candidate.foundation)),
        ip: Some(candidate.address.ip().to_string()),
        network: Some(0),
        port: Some(candidate.address.port()),
        priority: Some(candidate.priority),
        protocol: Some("udp".to_owned()),
        rel_addr: base.map(|base| base.ip().to_string()),
        rel_port: base.map(|base| base.port()),
        tcptype: None,
        kind: Some(match candidate.kind {
            CandidateKind::Host => jingle::transport::CandidateType::Host,
            CandidateKind::ServerReflexive => jingle::transport::CandidateType::ServerReflexive,
            CandidateKind::PeerReflexive => jingle::transport::CandidateType::PeerReflexive,
            CandidateKind::Relayed => jingle::transport::CandidateType::Relay,
        }),
    }
}

/// What a request changes about an endpoint.
fn update(request: &wire::Endpoint) -> Result<EndpointUpdate, StanzaError> {
    let media = if request.media.is_empty() {
        None
    } else {
        Some(
            request
                .media
                .iter()
                .filter_map(|m| media(m).transpose())
                .collect::<Result<_, _>>()?,
        )
    };
    let transport = match request.transport.as_ref().and_then(|t| t.ice_udp.as_ref()) {
        // Of a restart of ICE, and no restart was ever granted here.
        Some(transport) if transport.ice_generation.is_some() => None,
        Some(transport) => Some(remote_transport(transport)?),
        None => None,
    };
    Ok(EndpointUpdate {
        media,
        transport,
        sources: request.sources.as_ref().map(sources).transpose()?,
        initial_last_n: request.initial_last_n.and_then(|last_n| last_n.value),
        force_mute: request.force_mute.map(|mute| ForceMute {
            audio: mute.audio,
            video: mute.video,
        }),
        data_channel: request.transport.as_ref().is_some_and(|t| t.sctp.is_some()),
    })
}

fn media_type(kind: &wire::MediaType) -> Option<MediaType> {
    match kind {
        wire::MediaType::Audio => Some(MediaType::Audio),
        wire::MediaType::Video => Some(MediaType::Video),
        wire::MediaType::Other(_) => None,
    }
}

/// `None` for a medium that is neither audio nor video.
fn media(media: &wire::Media) -> Result<Option<Media>, StanzaError> {
    let Some(media_type) = media_type(&media.kind) else {
        return Ok(None);
    };
    let entries = media.payload_types.len().max(media.header_extensions.len());
    if entries > MAX_CODEC_ENTRIES {
        return Err(bad_request(format!(
            "More than {MAX_CODEC_ENTRIES} payload types or header extensions"
        )));
    }
    let payload_types = media
        .payload_types
        .iter()
        .map(payload)
        .collect::<Result<_, _>>()?;
    let header_extensions = media
        .header_extensions
        .iter()
        // 0 is padding (RFC 8285 §4.2).
        .filter(|extension| extension.id != 0)
        .map(|extension| HeaderExtension {
            id: extension.id,
            uri: extension.uri.clone(),
        })
        .collect();
    Ok(Some(Media {
        media_type,
        payload_types,
        header_extensions,
    }))
}

fn payload(payload: &jingle::PayloadType) -> Result<Payload, StanzaError> {
    let payload_type = |id: u8| {
        if id < 128 {
            Ok(PayloadType(id))
        } else {
            Err(bad_request(format!("{id} is no RTP payload type")))
        }
    };
    let name = payload.name.to_ascii_lowercase();
    let codec = match name.as_str() {
        "opus" => Codec::Opus,
        "red" => Codec::Red,
        "vp8" => Codec::Vp8,
        "vp9" => Codec::Vp9,
        "av1" => Codec::Av1,
        "h264" => Codec::H264,
        "rtx" => {
            let apt = payload.parameter("apt").and_then(|apt| apt.parse().ok());
            let apt: u8 = apt.ok_or_else(|| {
                bad_request(format!("rtx payload type {} without apt", payload.id))
            })?;
            Codec::Rtx {
                apt: payload_type(apt)?,
            }
        }
        _ => Codec::Other(payload.name.clone()),
    };
    Ok(Payload {
        payload_type: payload_type(payload.id)?,
        codec,
        // What RFC 3551 gives a payload type that tells nothing.
        clock_rate: payload.clockrate.unwrap_or(8000),
        feedback: Feedback {
            nack: payload.has_feedback("nack"),
            pli: payload.has_feedback("nack pli"),
            fir: payload.has_feedback("ccm fir"),
            transport_cc: payload.has_feedback("transport-cc"),
            remb: payload.has_feedback("goog-remb"),
        },
    })
}

fn remote_transport(transport: &jingle::Transport) -> Result<RemoteTransport, StanzaError> {
    let ice = match (&transport.ufrag, &transport.pwd) {
        (Some(ufrag), Some(pwd)) => Some(IceCredentials {
            ufrag: ufrag.clone(),
            pwd: pwd.clone(),
        }),
        _ => None,
    };
    let fingerprints = transport
        .fingerprints
        .iter()
        .filter_map(|fingerprint| {
            let setup = match fingerprint.setup {
                Some(jingle::transport::Setup::Active) => Setup::Active,
                Some(jingle::transport::Setup::Passive) => Setup::Passive,
                Some(jingle::transport::Setup::ActPass) => Setup::ActPass,
                _ => return None,
            };
            Some((fingerprint, setup))
        })
        .map(|(fingerprint, setup)| {
            Ok(Fingerprint {
                hash: fingerprint.hash.to_ascii_lowercase(),
                bytes: fingerprint
                    .bytes()
                    .ok_or_else(|| bad_request("A fingerprint is not hexadecimal octets"))?,
                setup,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(RemoteTransport {
        ice,
        fingerprints,
        candidates: transport
            .candidates
            .iter()
            .filter_map(remote_candidate)
            .take(MAX_CANDIDATES)
            .collect(),
    })
}

/// `None` for what the one UDP port cannot reach or check: TCP, other
/// components, names (mDNS) in place of addresses.
fn remote_candidate(candidate: &jingle::Candidate) -> Option<Candidate> {
    let udp = candidate
        .protocol
        .as_deref()
        .is_some_and(|p| p.eq_ignore_ascii_case("udp"));
    if !udp || candidate.component.is_some_and(|component| component != 1) {
        return None;
    }
    let address = |ip: &Option<String>, port: Option<u16>| {
        let ip: IpAddr = ip.as_deref()?.parse().ok()?;
        Some(SocketAddr::new(ip, port?))
    };
    Some(Candidate {
        kind: match candidate.kind.as_ref()? {
            jingle::transport::CandidateType::Host => CandidateKind::Host,
            jingle::transport::CandidateType::ServerReflexive => CandidateKind::ServerReflexive,
            jingle::transport::CandidateType::PeerReflexive => CandidateKind::PeerReflexive,
            jingle::transport::CandidateType::Relay => CandidateKind::Relayed,
            jingle::transport::CandidateType::Other(_) => return None,
        },
        address: address(&candidate.ip, candidate.port).filter(|a| a.port() != 0)?,
        base: address(&candidate.rel_addr, candidate.rel_port),
        priority: candidate.priority?,
        foundation: candidate.foundation.clone().unwrap_or_default(),
    })
}

fn sources(sources: &wire::Sources) -> Result<Vec<Source>, StanzaError> {
    if sources.media_sources.len() > MAX_SOURCES {
        return Err(bad_request(format!("More than {MAX_SOURCES} sources")));
    }
    sources
        .media_sources
        .iter()
        .filter_map(|source| Some((source, media_type(&source.kind)?)))
        .map(|(source, media_type)| {
            let encodings = encodings(source);
            if encodings.len() > MAX_ENCODINGS {
                return Err(bad_request(format!(
                    "Source {} has more than {MAX_ENCODINGS} encodings",
                    source.id
                )));
            }
            Ok(Source {
                name: SourceName::from(source.id.as_str()),
                media_type,
                video_type: video_type(source),
                encodings,
            })
        })
        // A source without an SSRC is none yet.
        .filter(|source| source.as_ref().map_or(true, |s| !s.encodings.is_empty()))
        .collect()
}

/// The primary SSRCs in the order of the `SIM` group, each with the second of
/// its `FID` group. Whatever is second in a group is no encoding of its own.
fn encodings(source: &wire::MediaSource) -> Vec<Encoding> {
    use jingle::ssma::Semantics;
    let pairs = |semantics: Semantics| {
        source
            .ssrc_groups
            .iter()
            .filter(move |group| group.semantics == semantics)
            .filter_map(|group| Some((group.sources.first()?.ssrc, group.sources.get(1)?.ssrc)))
    };
    let secondary = |ssrc: u32| {
        pairs(Semantics::Fid)
            .chain(pairs(Semantics::FecFr))
            .any(|(_, second)| second == ssrc)
    };
    let simulcast = source
        .ssrc_groups
        .iter()
        .find(|group| group.semantics == Semantics::Sim);
    let primaries: Vec<u32> = match simulcast {
        Some(group) => group.sources.iter().map(|s| s.ssrc).collect(),
        None => source
            .sources
            .iter()
            .map(|s| s.ssrc)
            .filter(|ssrc| !secondary(*ssrc))
            .collect(),
    };
    primaries
        .into_iter()
        .map(|primary| Encoding {
            primary: Ssrc(primary),
            rtx: pairs(Semantics::Fid)
                .find(|(first, _)| *first == primary)
                .map(|(_, second)| Ssrc(second)),
        })
        .collect()
}

fn video_type(source: &wire::MediaSource) -> VideoType {
    let word = source.sources.iter().find_map(|s| s.video_type.as_deref());
    match word.unwrap_or("camera").to_ascii_lowercase().as_str() {
        "desktop" => VideoType::Desktop,
        "desktop_high_fps" => VideoType::DesktopHighFps,
        "none" => VideoType::None,
        _ => VideoType::Camera,
    }
}

/// Compares without telling by its duration where two secrets first differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use viaduct_signalling::iq::{Iq, Kind};
    use viaduct_signalling::xml::{self, Element};

    use super::*;
    use crate::command::Command;
    use crate::placement::ENDPOINTS_PER_WORKER;

    fn settings() -> Settings {
        Settings {
            candidates: crate::candidates::candidates(
                &["10.0.0.5:10000".parse().expect("an address")],
                &[crate::candidates::StaticMapping {
                    local: "10.0.0.5".parse().expect("an address"),
                    local_port: None,
                    public: "203.0.113.7".parse().expect("an address"),
                    public_port: None,
                }],
            ),
            fingerprint: Fingerprint {
                hash: "sha-256".into(),
                bytes: vec![0xab; 32],
                setup: Setup::ActPass,
            },
            ufrag_prefix: String::new(),
            advertise_private: true,
            channel_urls: vec!["wss://meet.example/colibri-ws/jvb1/".into()],
            data_channels: true,
            workers: 1,
            endpoints_per_worker: ENDPOINTS_PER_WORKER,
        }
    }

    fn bridge() -> Colibri {
        Colibri::new(settings(), StdRng::seed_from_u64(7))
    }

    /// A request written as the inside of a `conference-modify`.
    fn request(attributes: &str, children: &str) -> ConferenceModify {
        let text = format!(
            "<conference-modify xmlns='jitsi:colibri2' {attributes}>{children}</conference-modify>"
        );
        let element = xml::parse(text.as_bytes()).expect("a test's XML");
        xml::from_element(element).expect("a request")
    }

    fn create(id: &str) -> String {
        format!(
            "<endpoint id='{id}' create='true'><capability name='source-names'/>\
             <transport ice-controlling='true'/><sources/></endpoint>"
        )
    }

    const M: &str = "meeting-id='m'";
    const CREATE: &str = "meeting-id='m' create='true' name='r@conference.meet.example'";

    /// What was decided, by name.
    fn decided(bridge: &mut Colibri) -> Vec<String> {
        bridge
            .take_dispatches()
            .map(|dispatch| {
                let name = format!("{:?}", dispatch.command);
                name.split([' ', '{']).next().unwrap_or_default().to_owned()
            })
            .collect()
    }

    fn refusal(bridge: &mut Colibri, attributes: &str, children: &str) -> StanzaError {
        bridge
            .handle(Instant::now(), &request(attributes, children))
            .expect_err("a refusal")
    }

    /// Condition, colibri2 reason and text of every error in `focus-bridge`
    /// §2.4 and §2.5, each on a fresh bridge with conference `m` and endpoint `a`.
    #[test]
    fn errors_are_those_of_the_reference() {
        let relay = "<relay id='r' create='true'><transport/></relay>";
        let two = format!("{}{}", create("b"), create("c"));
        let mixed = format!("<endpoint id='a'/>{relay}");
        let twice = "<relay id='r' expire='true'/><relay id='s' expire='true'/>";
        let no_names = "<endpoint id='b' create='true'><transport/></endpoint>";
        let no_transport =
            "<endpoint id='b' create='true'><capability name='source-names'/></endpoint>";
        let sctp = "<endpoint id='b' create='true'><capability name='source-names'/><transport><sctp port='5001'/></transport></endpoint>";
        let sctp_update =
            "<endpoint id='a'><transport><sctp role='client'/></transport></endpoint>";
        let visitor = "<endpoint id='b' create='true' muc-role='visitor'><capability name='source-names'/><transport/>\
            <sources><media-source type='audio' id='b-a0'><source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='5'/></media-source></sources></endpoint>";
        let unknown = "<endpoint id='x'><sources/></endpoint>";
        let fingerprint = "<endpoint id='a'><transport><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'>\
            <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='active'>xyz</fingerprint></transport></transport></endpoint>";
        let rtx = "<endpoint id='a'><media type='video'><payload-type xmlns='urn:xmpp:jingle:apps:rtp:1' id='96' name='rtx'/></media></endpoint>";
        use Condition::*;
        use ErrorReason as R;
        for (attributes, children, condition, reason, text) in [
            (
                "meeting-id='n'",
                "",
                ItemNotFound,
                Some(R::ConferenceNotFound),
                "Conference not found for ID: n",
            ),
            (
                "meeting-id='n' expire='true'",
                "",
                ItemNotFound,
                Some(R::ConferenceNotFound),
                "Conference not found for ID: n",
            ),
            (
                CREATE,
                "",
                Conflict,
                Some(R::ConferenceAlreadyExists),
                "Conference already exists for ID: m",
            ),
            (
                "meeting-id='n' create='true' name='r@c/nick'",
                "",
                BadRequest,
                None,
                "Conference name is not a bare JID: r@c/nick",
            ),
            (
                M,
                unknown,
                ItemNotFound,
                Some(R::UnknownEndpoint),
                "Endpoint not found for ID: x",
            ),
            (
                M,
                &create("a"),
                Conflict,
                None,
                "Endpoint with ID a already exists",
            ),
            (
                M,
                no_transport,
                BadRequest,
                None,
                "Attempt to create endpoint with no <transport>",
            ),
            (
                M,
                no_names,
                BadRequest,
                None,
                "Source name support is mandatory.",
            ),
            (
                M,
                sctp,
                BadRequest,
                None,
                "Specific SCTP port requested, not supported.",
            ),
            (
                M,
                sctp_update,
                FeatureNotImplemented,
                None,
                "Unsupported SCTP role: client",
            ),
            (
                M,
                visitor,
                BadRequest,
                None,
                "Visitors cannot have sources.",
            ),
            (
                M,
                &two,
                FeatureNotImplemented,
                Some(R::FeatureNotImplemented),
                "Creating or updating multiple endpoints in a single request",
            ),
            (
                M,
                &mixed,
                FeatureNotImplemented,
                Some(R::FeatureNotImplemented),
                "Using both endpoints and relays in a single request",
            ),
            (
                M,
                twice,
                FeatureNotImplemented,
                Some(R::FeatureNotImplemented),
                "Using multiple relays in a single request",
            ),
            (
                M,
                relay,
                FeatureNotImplemented,
                None,
                "Octo is disabled in configuration.",
            ),
            (
                M,
                fingerprint,
                BadRequest,
                None,
                "A fingerprint is not hexadecimal octets",
            ),
            (M, rtx, BadRequest, None, "rtx payload type 96 without apt"),
        ] {
            let mut bridge = bridge();
            bridge
                .handle(Instant::now(), &request(CREATE, &create("a")))
                .expect("a conference with an endpoint");
            let before = bridge.registered();
            let error = refusal(&mut bridge, attributes, children);
            assert_eq!(error.condition, condition, "{attributes} {children}");
            let told = wire::reason(&error).map(|(reason, _)| reason);
            assert_eq!(told, reason, "{attributes} {children}");
            assert_eq!(error.text.as_deref(), Some(text));
            assert_eq!(bridge.registered(), before, "nothing half made: {text}");
        }
    }

    /// `focus-bridge` §2.1 and §2.4: the client dials, on port 5000, if the focus
    /// asks for it and the bridge may.
    #[test]
    fn a_data_channel_is_offered_to_those_who_ask() {
        let mut bridge = bridge();
        let endpoint = |id: &str, sctp: &str| {
            format!(
                "<endpoint id='{id}' create='true'><capability name='source-names'/>\
                 <transport>{sctp}</transport></endpoint>"
            )
        };
        let mut ask = |attributes, id, sctp| {
            let answer = bridge.handle(Instant::now(), &request(attributes, &endpoint(id, sctp)));
            let transport = answer.expect("created").endpoints.remove(0).transport;
            let transport = transport.expect("a transport");
            let channels = transport.ice_udp.expect("ICE").web_sockets.len();
            let offered: Vec<bool> = bridge
                .take_dispatches()
                .filter_map(|dispatch| match dispatch.command {
                    Command::UpdateEndpoint { update, .. } => Some(update.data_channel),
                    _ => None,
                })
                .collect();
            (transport.sctp, channels, offered)
        };
        let server = wire::Sctp {
            role: Some("server".into()),
            port: Some(5000),
        };
        assert_eq!(ask(CREATE, "a", ""), (None, 1, vec![false]));
        for (id, sctp) in [
            ("b", "<sctp/>"),
            ("c", "<sctp role='server' port='5000'/>"),
            ("d", "<sctp role='SERVER'/>"),
        ] {
            // The WebSocket is offered beside it: the client chooses.
            assert_eq!(ask(M, id, sctp), (Some(server.clone()), 1, vec![true]));
        }
        let mut bridge = Colibri::new(
            Settings {
                data_channels: false,
                ..settings()
            },
            StdRng::seed_from_u64(7),
        );
        let refused = bridge
            .handle(Instant::now(), &request(CREATE, &endpoint("a", "<sctp/>")))
            .expect_err("it is off");
        assert_eq!(refused.condition, Condition::FeatureNotImplemented);
        assert_eq!(
            refused.text.as_deref(),
            Some("SCTP support is not configured")
        );
        assert_eq!(bridge.registered().endpoints, 0);
    }

    #[test]
    fn an_unknown_endpoint_is_named_in_the_error() {
        let mut bridge = bridge();
        bridge
            .handle(Instant::now(), &request(CREATE, &create("a")))
            .expect("created");
        let error = refusal(&mut bridge, M, "<endpoint id='x'><transport/></endpoint>");
        let (_, endpoint) = wire::reason(&error).expect("a reason");
        assert_eq!(endpoint.as_deref(), Some("x"));
    }

    #[test]
    fn graceful_shutdown_refuses_conferences_and_takes_endpoints() {
        let mut bridge = bridge();
        bridge
            .handle(Instant::now(), &request(CREATE, &create("a")))
            .expect("created");
        bridge.refuse_conferences();
        let error = refusal(&mut bridge, "meeting-id='n' create='true'", "");
        assert_eq!(error.condition, Condition::ServiceUnavailable);
        let (reason, _) = wire::reason(&error).expect("a reason");
        assert_eq!(reason, ErrorReason::GracefulShutdown);
        bridge
            .handle(Instant::now(), &request(M, &create("b")))
            .expect("still taken");
    }

    /// Requests that only expire or mute pass over endpoints that are gone.
    #[test]
    fn one_lost_endpoint_does_not_spoil_the_others() {
        let mut bridge = bridge();
        bridge
            .handle(Instant::now(), &request(CREATE, &create("a")))
            .expect("created");
        decided(&mut bridge);
        let children = "<endpoint id='x'><force-mute audio='true'/></endpoint>\
             <endpoint id='a'><force-mute audio='true'/></endpoint>\
             <endpoint id='y' expire='true'/>";
        let answer = bridge
            .handle(Instant::now(), &request(M, children))
            .expect("lenient");
        let answered: Vec<_> = answer
            .endpoints
            .iter()
            .map(|e| (e.id.as_str(), e.expire, e.transport.is_some()))
            .collect();
        assert_eq!(
            answered,
            [("x", false, false), ("a", false, false), ("y", true, false)]
        );
        assert_eq!(answer.sources, None);
        assert_eq!(decided(&mut bridge), ["UpdateEndpoint"]);
    }

    #[test]
    fn a_meeting_ends_with_its_last_endpoint_and_can_begin_again_at_once() {
        let mut bridge = bridge();
        let now = Instant::now();
        let created = |bridge: &mut Colibri| {
            let answer = bridge.handle(now, &request(CREATE, &create("a")));
            let endpoint = answer.expect("created").endpoints.remove(0);
            let transport = endpoint.transport.and_then(|t| t.ice_udp);
            transport.expect("a transport").web_sockets[0].url.clone()
        };
        let first = created(&mut bridge);
        for end in [
            request(M, "<endpoint id='a' expire='true'/>"),
            request("meeting-id='m' expire='true'", ""),
        ] {
            let answer = bridge.handle(now, &end).expect("ended");
            assert!(answer.endpoints.iter().all(|e| e.expire));
            assert_eq!(bridge.registered(), Registered::default());
            assert_ne!(created(&mut bridge), first, "a new conference");
        }
        assert_eq!(bridge.totals().conferences_completed, 2);
    }

    #[test]
    fn an_empty_conference_lives_for_20_seconds() {
        let mut bridge = bridge();
        let start = Instant::now();
        bridge.handle(start, &request(CREATE, "")).expect("created");
        let lifetime = EMPTY_CONFERENCE_LIFETIME;
        bridge.handle_timeout(start + lifetime - Duration::from_millis(1));
        assert_eq!(bridge.registered().conferences, 1);
        bridge.handle_timeout(start + lifetime);
        assert_eq!(bridge.registered().conferences, 0);
        assert_eq!(
            decided(&mut bridge),
            ["CreateConference", "ExpireConference"]
        );
    }

    /// A shard's word about an endpoint counts only for the one it meant.
    #[test]
    fn a_late_word_of_a_shard_spares_the_successor() {
        let mut bridge = bridge();
        let now = Instant::now();
        bridge
            .handle(now, &request(CREATE, &create("a")))
            .expect("created");
        bridge
            .handle(now, &request(M, &create("b")))
            .expect("created");
        let conference = bridge.conferences["m"].id;
        let a = EndpointId::from("a");
        let member = |bridge: &Colibri| bridge.conferences["m"].endpoints[&a].member;
        let first = member(&bridge);
        bridge
            .handle(now, &request(M, "<endpoint id='a' expire='true'/>"))
            .expect("expired");
        bridge
            .handle(now, &request(M, &create("a")))
            .expect("created again");
        decided(&mut bridge);
        bridge.endpoint_expired(now, conference, first, ExpiryReason::IceFailed);
        assert_eq!(bridge.registered().endpoints, 2);
        assert!(decided(&mut bridge).is_empty());
        let second = member(&bridge);
        bridge.endpoint_expired(now, conference, second, ExpiryReason::IceFailed);
        assert_eq!(bridge.registered().endpoints, 1);
        assert_eq!(decided(&mut bridge), ["ExpireEndpoint"]);
        let error = refusal(&mut bridge, M, "<endpoint id='a'><sources/></endpoint>");
        assert_eq!(error.condition, Condition::ItemNotFound);
    }

    #[test]
    fn only_the_password_of_an_endpoint_opens_its_channel() {
        let mut bridge = bridge();
        let answer = bridge
            .handle(Instant::now(), &request(CREATE, &create("a")))
            .expect("created");
        let transport = answer.endpoints[0].transport.clone();
        let url = transport
            .and_then(|t| t.ice_udp)
            .and_then(|t| t.web_sockets[0].url.clone())
            .expect("a URL");
        let conference = bridge.conferences["m"].id;
        let beginning = format!("wss://meet.example/colibri-ws/jvb1/{conference}/a?pwd=");
        let password = url.strip_prefix(&beginning).expect("the path");
        assert_eq!(password.len(), 24);
        let a = EndpointId::from("a");
        assert_eq!(bridge.channel(conference, &a, password), Some(0));
        assert_eq!(bridge.channel(conference, &a, ""), None);
        assert_eq!(bridge.channel(conference, &a, &password[1..]), None);
        let b = EndpointId::from("b");
        assert_eq!(bridge.channel(conference, &b, password), None);
        let other = ConferenceId(conference.0 ^ 1);
        assert_eq!(bridge.channel(other, &a, password), None);
    }

    #[test]
    fn private_addresses_are_hidden_from_those_who_cannot_use_them() {
        let mut bridge = Colibri::new(
            Settings {
                advertise_private: false,
                ..settings()
            },
            StdRng::seed_from_u64(7),
        );
        let inside = create("b").replace(
            "<transport",
            "<capability name='private-address-connectivity'/><transport",
        );
        let mut candidates = |attributes, children: &str| {
            let answer = bridge
                .handle(Instant::now(), &request(attributes, children))
                .expect("created");
            let transport = answer.endpoints[0].transport.clone();
            let transport = transport.and_then(|t| t.ice_udp).expect("a transport");
            transport
                .candidates
                .into_iter()
                .map(|c| (c.ip, c.rel_addr, c.rel_port))
                .collect::<Vec<_>>()
        };
        let text = |text: &str| Some(text.to_owned());
        let outside = (text("203.0.113.7"), text("0.0.0.0"), Some(9));
        assert_eq!(candidates(CREATE, &create("a")), [outside]);
        assert_eq!(
            candidates(M, &inside),
            [
                (text("10.0.0.5"), None, None),
                (text("203.0.113.7"), text("10.0.0.5"), Some(10_000))
            ]
        );
    }

    #[test]
    fn sources_pair_what_the_groups_pair() {
        let text = "<endpoint id='a'><sources>\
            <media-source type='video' id='a-v0'>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='1' videoType='desktop'/>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='11'/>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='2'/>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='12'/>\
             <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='2'/><source ssrc='12'/></ssrc-group>\
             <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='1'/><source ssrc='11'/></ssrc-group>\
             <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='SIM'><source ssrc='2'/><source ssrc='1'/></ssrc-group>\
            </media-source>\
            <media-source type='video' id='a-v1'>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='31'/>\
             <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='3'/>\
             <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='3'/><source ssrc='31'/></ssrc-group>\
            </media-source>\
            <media-source type='audio' id='a-a0'><source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='4'/></media-source>\
            <media-source type='audio' id='a-a1'/>\
            </sources></endpoint>";
        let endpoint = &request(M, text).endpoints[0];
        let update = update(endpoint).expect("an update");
        let encoding = |primary, rtx: Option<u32>| Encoding {
            primary: Ssrc(primary),
            rtx: rtx.map(Ssrc),
        };
        let told: Vec<_> = update
            .sources
            .expect("sources")
            .into_iter()
            .map(|s| (s.name.0.to_string(), s.video_type, s.encodings))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "a-v0".into(),
                    VideoType::Desktop,
                    vec![encoding(2, Some(12)), encoding(1, Some(11))]
                ),
                (
                    "a-v1".into(),
                    VideoType::Camera,
                    vec![encoding(3, Some(31))]
                ),
                ("a-a0".into(), VideoType::Camera, vec![encoding(4, None)]),
            ]
        );
        assert!(update.transport.is_none() && update.media.is_none());
    }

    /// Element names and attributes, with the values that are not this bridge's
    /// own secrets, addresses and random numbers.
    fn shape(element: &Element, depth: usize, lines: &mut Vec<String>) {
        let own = [
            "ufrag",
            "pwd",
            "url",
            "ssrc",
            "ip",
            "id",
            "port",
            "priority",
            "foundation",
        ];
        let attributes: std::collections::BTreeMap<_, _> = element
            .attrs()
            .into_iter()
            .map(|((_, name), value)| (name.to_string(), value.to_owned()))
            .map(|(name, value)| {
                let hidden = own.contains(&name.as_str())
                    && !(name == "id" && matches!(element.name(), "endpoint" | "media-source"));
                let value = if hidden { String::new() } else { value };
                (name, value)
            })
            .collect();
        lines.push(format!(
            "{depth} {} {} {attributes:?}",
            element.name(),
            element.ns()
        ));
        let mut children: Vec<_> = element.children().collect();
        children.sort_by_key(|child| child.name().to_owned());
        // One candidate stands for all: how many there are is the host's affair.
        children.dedup_by_key(|child| {
            if child.name() == "candidate" {
                "candidate".to_owned()
            } else {
                format!("{child:?}")
            }
        });
        for child in children {
            shape(child, depth + 1, lines);
        }
    }

    /// Every request of a recorded call is answered as the recorded bridge
    /// answered it, secrets, addresses and random numbers aside.
    #[test]
    fn a_recorded_call_is_answered_as_recorded() {
        let text = include_bytes!("../testdata/colibri2-call.xml");
        let stanzas = xml::parse(text).expect("the recording");
        let mut bridge = Colibri::new(
            Settings {
                candidates: settings().candidates[..1].to_vec(),
                ..settings()
            },
            StdRng::seed_from_u64(7),
        );
        let mut answers = Vec::new();
        let mut recorded = Vec::new();
        for stanza in stanzas.children() {
            let iq = Iq::from_element(stanza).expect("a recorded IQ");
            match &iq.kind {
                Kind::Get(payload) => {
                    let request: ConferenceModify =
                        xml::from_element(payload).expect("a recorded request");
                    let answer = bridge.handle(Instant::now(), &request);
                    answers.push(xml::to_element(&answer.expect("an answer")));
                }
                Kind::Result(Some(payload)) => recorded.push(payload.clone()),
                other => panic!("not in the recording: {other:?}"),
            }
        }
        assert_eq!(answers.len(), 6);
        for (ours, theirs) in answers.iter().zip(&recorded) {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            shape(ours, 0, &mut a);
            shape(theirs, 0, &mut b);
            assert_eq!(a, b);
        }
        assert_eq!(bridge.registered(), Registered::default());
        let commands: Vec<Command> = bridge.take_dispatches().map(|d| d.command).collect();
        let update = commands
            .iter()
            .filter_map(|command| match command {
                Command::UpdateEndpoint { update, .. } => update.sources.as_ref(),
                _ => None,
            })
            .find(|sources| !sources.is_empty())
            .expect("sources were told");
        let video = &update[1];
        assert_eq!(video.encodings.len(), 3);
        assert!(video.encodings.iter().all(|e| e.rtx.is_some()));
        assert_eq!(video.encodings[0].primary, Ssrc(783_762_106));
    }
}
