//! What a request asks of one endpoint: to be created, changed or expired.

use std::time::Instant;

use rand::Rng;
use rand::distr::{Alphanumeric, SampleString};
use viaduct_signalling::colibri2::{self as wire, capability};
use viaduct_signalling::iq::{Condition, StanzaError};

use super::media::media;
use super::sources::sources;
use super::transport::remote_transport;
use super::{Colibri, Endpoint, MAX_ENDPOINTS, bad_request, refuse};
use crate::command::{EndpointSettings, EndpointUpdate, ForceMute};
use crate::id::{EndpointId, MemberId};
use crate::transport::sctp;

impl Colibri {
    pub(super) fn apply_endpoint(
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
                stats_id: request.stats_id.clone(),
                password,
                member,
            },
        );
        (member, transport)
    }
}

/// What a request changes about an endpoint.
pub(super) fn update(request: &wire::Endpoint) -> Result<EndpointUpdate, StanzaError> {
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
