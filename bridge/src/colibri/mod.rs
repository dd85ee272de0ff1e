//! Colibri2: requests of the focus become changes to conferences.
//!
//! The registry of conferences and endpoints lives here. Every request is
//! answered at once, from the registry alone, and what it means for the media
//! plane leaves by way of [`crate::placement`] as commands in the order in which
//! it was asked; a shard never refuses one. So a request is answered before
//! anything has happened to a packet, requests of one conference are first in,
//! first out by construction, and a meeting that was expired can be created
//! again by the next request.
//!
//! Rules and texts of the errors: `focus-bridge` §2.4 and §2.5. As upstream, a
//! request is not a transaction: what it did before an error stays done; but an
//! endpoint that is refused leaves nothing of itself behind.
//!
//! Here: what is registered, and its end; `overview` shows it to operators. `conference` and `endpoint` take a
//! request apart; `transport`, `media` and `sources` translate between the words
//! of colibri2 and those of the bridge.
//!
//! Not offered yet, and refused the way a JVB refuses what its configuration
//! turns off: relays ("Octo is disabled in configuration.").

mod conference;
mod endpoint;
mod media;
mod overview;
mod sources;
#[cfg(test)]
mod tests;
mod transport;

pub use overview::Overview;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use viaduct_signalling::colibri2::{
    self as wire, ConferenceModified, ConferenceModify, ErrorReason,
};
use viaduct_signalling::iq::{Condition, StanzaError};

use crate::command::{Candidate, ExpiryReason, Fingerprint};
use crate::id::{ConferenceId, EndpointId, MemberId};
use crate::placement::{Dispatch, Placement};
use crate::rtp::Ssrc;

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
    /// The room, if the focus told it.
    name: Option<String>,
    rtcstats_enabled: bool,
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
    /// What it is called in statistics.
    stats_id: Option<String>,
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
}

/// Compares without telling by its duration where two secrets first differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}
