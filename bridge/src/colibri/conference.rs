//! Conferences begin and end, and a request is taken apart into what it asks of
//! endpoints and relays.

use std::collections::BTreeMap;
use std::time::Instant;

use rand::Rng;
use viaduct_signalling::colibri2::{
    self as wire, ConferenceModified, ConferenceModify, ErrorReason,
};
use viaduct_signalling::iq::{Condition, StanzaError};
use viaduct_signalling::jid::BareJid;

use super::sources::feedback_sources;
use super::{Colibri, Conference, MAX_CONFERENCES, bad_request, refuse};
use crate::id::ConferenceId;
use crate::rtp::Ssrc;

impl Colibri {
    pub(super) fn create_conference(
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
                name: request.name.clone(),
                rtcstats_enabled: request.rtcstats_enabled.unwrap_or(true),
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

    pub(super) fn expire_conference(&mut self, now: Instant, meeting: &str) {
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

    pub(super) fn apply(
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
