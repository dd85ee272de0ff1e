//! What is said to a bridge about a conference: colibri2 requests, and what an
//! answer means (focus-bridge §2).
//!
//! One endpoint a request; all requests of a conference to one bridge leave in
//! order over one stream. An error is given the smallest scope that is true.

use viaduct_signalling::colibri2::{
    self, Capability, ConferenceModified, ConferenceModify, Endpoint, ErrorReason, InitialLastN,
    Media, MediaType as ColibriMedia, Sctp, capability,
};
use viaduct_signalling::iq::Condition;
use viaduct_signalling::jid::BareJid;
use viaduct_signalling::jingle;
use viaduct_signalling::sources::EndpointSources;
use viaduct_signalling::xml::{Element, from_element, to_element};

use crate::jingle::codec::{Codecs, Offered};
use crate::jingle::features::Features;
use crate::outbox::{Answer, Failure};

/// An endpoint to be made.
#[derive(Debug)]
pub struct Create<'a> {
    pub meeting_id: &'a str,
    /// The room; `Some` in the first request for a conference on this bridge.
    pub create_conference: Option<&'a BareJid>,
    pub endpoint: &'a str,
    pub stats_id: Option<&'a str>,
    pub features: &'a Features,
    pub codecs: &'a Codecs,
    /// A data channel is wanted.
    pub sctp: bool,
    pub visitor: bool,
}

/// The request that makes an endpoint.
pub fn create(create: &Create<'_>) -> Element {
    let mut modify = ConferenceModify::new(create.meeting_id);
    if let Some(room) = create.create_conference {
        modify.create = true;
        modify.name = Some(room.to_string());
    }
    let mut endpoint = Endpoint::new(create.endpoint);
    endpoint.create = true;
    endpoint.stats_id = create.stats_id.map(str::to_owned);
    endpoint.muc_role = create.visitor.then(|| "visitor".to_owned());
    let offered = [
        (
            create.features.audio,
            ColibriMedia::Audio,
            create.codecs.audio(create.features),
        ),
        (
            create.features.video,
            ColibriMedia::Video,
            create.codecs.video(create.features),
        ),
    ];
    for (
        wanted,
        kind,
        Offered {
            payload_types,
            header_extensions,
            extmap_allow_mixed,
        },
    ) in offered
    {
        if wanted {
            endpoint.media.push(Media {
                kind,
                payload_types,
                header_extensions,
                extmap_allow_mixed,
            });
        }
    }
    endpoint.transport = Some(colibri2::Transport {
        ice_controlling: true,
        sctp: create.sctp.then(Sctp::default),
        ..colibri2::Transport::default()
    });
    endpoint.sources = (!create.visitor).then(colibri2::Sources::default);
    endpoint.capabilities.push(Capability {
        name: capability::SOURCE_NAMES.to_owned(),
    });
    modify.endpoints.push(endpoint);
    to_element(&modify)
}

/// What has changed about an endpoint.
#[derive(Debug, Default)]
pub struct Update<'a> {
    pub stats_id: Option<&'a str>,
    pub transport: Option<&'a jingle::Transport>,
    /// All sources of the endpoint, not only what changed.
    pub sources: Option<&'a EndpointSources>,
    pub last_n: Option<i32>,
}

/// The request that changes an endpoint.
pub fn update(meeting_id: &str, id: &str, update: &Update<'_>) -> Element {
    let mut modify = ConferenceModify::new(meeting_id);
    let mut endpoint = Endpoint::new(id);
    endpoint.stats_id = update.stats_id.map(str::to_owned);
    endpoint.transport = update.transport.map(|transport| colibri2::Transport {
        ice_udp: Some(jingle::Transport {
            rtcp_mux: true,
            sctp_maps: Vec::new(),
            web_sockets: Vec::new(),
            ..transport.clone()
        }),
        ..colibri2::Transport::default()
    });
    endpoint.sources = update.sources.map(EndpointSources::to_colibri2);
    endpoint.initial_last_n = update
        .last_n
        .map(|value| InitialLastN { value: Some(value) });
    modify.endpoints.push(endpoint);
    to_element(&modify)
}

/// The request that ends an endpoint.
pub fn expire_endpoint(meeting_id: &str, id: &str) -> Element {
    let mut modify = ConferenceModify::new(meeting_id);
    modify.endpoints.push(Endpoint {
        expire: true,
        ..Endpoint::new(id)
    });
    to_element(&modify)
}

/// The request that ends the conference.
pub fn expire_conference(meeting_id: &str) -> Element {
    to_element(&ConferenceModify {
        expire: true,
        ..ConferenceModify::new(meeting_id)
    })
}

/// A request that changes nothing: a bridge without the conference refuses it.
pub fn probe(meeting_id: &str) -> Element {
    to_element(&ConferenceModify::new(meeting_id))
}

/// What a bridge gave an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    pub transport: jingle::Transport,
    /// The bridge does data channels on this port.
    pub sctp_port: Option<u16>,
    /// Its feedback sources as clients are told them.
    pub feedback: Option<EndpointSources>,
}

/// Whose loss a failed request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This participant: it is invited again.
    Endpoint,
    /// The conference is not (or not any more) on the bridge.
    Session,
    /// The conference's id is taken there: another id is needed.
    Taken,
    /// The bridge takes nothing new.
    Graceful,
    /// The bridge cannot serve: this conference leaves it, and it is checked.
    Bridge,
    /// It is no longer in the brewery.
    Gone,
    /// No answer within the time.
    Silence,
    /// Our own connection was lost meanwhile; nothing is known.
    Unknown,
}

/// Reads the answer to [`create`].
pub fn allocation(
    answer: Answer,
    endpoint: &str,
    sctp: bool,
) -> Result<Allocation, (Scope, String)> {
    let payload = answer.map_err(|failure| (scope(&failure), failure.to_string()))?;
    let modified: ConferenceModified = payload
        .and_then(|payload| from_element(payload).ok())
        .ok_or_else(|| {
            (
                Scope::Bridge,
                "an answer that is no conference-modified".to_owned(),
            )
        })?;
    let feedback = modified
        .sources
        .as_ref()
        .map(EndpointSources::bridge_feedback);
    let transport = modified
        .endpoints
        .into_iter()
        .find(|answered| answered.id == endpoint)
        .and_then(|answered| answered.transport)
        .ok_or_else(|| (Scope::Endpoint, "an answer without transport".to_owned()))?;
    let sctp_port = transport
        .sctp
        .filter(|_| sctp)
        .map(|answered| answered.port.unwrap_or(DEFAULT_SCTP_PORT));
    let transport = transport.ice_udp.ok_or_else(|| {
        (
            Scope::Endpoint,
            "an answer without ICE credentials".to_owned(),
        )
    })?;
    Ok(Allocation {
        transport,
        sctp_port,
        feedback,
    })
}

/// Every Jitsi bridge's (focus-bridge §2.4).
const DEFAULT_SCTP_PORT: u16 = 5000;

/// How far a failure reaches.
pub fn scope(failure: &Failure) -> Scope {
    let error = match failure {
        Failure::Timeout => return Scope::Silence,
        Failure::Lost => return Scope::Unknown,
        Failure::Refused(error) => error,
    };
    match colibri2::reason(error).map(|(reason, _)| reason) {
        Some(ErrorReason::ConferenceNotFound) => Scope::Session,
        Some(ErrorReason::ConferenceAlreadyExists) => Scope::Taken,
        Some(ErrorReason::GracefulShutdown) => Scope::Graceful,
        Some(ErrorReason::UnknownEndpoint | ErrorReason::FeatureNotImplemented) => Scope::Endpoint,
        Some(ErrorReason::Unspecified | ErrorReason::Other(_)) | None => match error.condition {
            // Without the bridge's own element the room speaks: nobody there.
            Condition::ItemNotFound | Condition::RecipientUnavailable => Scope::Gone,
            Condition::BadRequest | Condition::Conflict | Condition::FeatureNotImplemented => {
                Scope::Endpoint
            }
            _ => Scope::Bridge,
        },
    }
}

#[cfg(test)]
mod tests {
    use viaduct_signalling::colibri2::error;
    use viaduct_signalling::iq::StanzaError;

    use super::*;

    /// Focus-bridge §2.5, with our scopes.
    #[test]
    fn errors_cost_no_more_than_they_must() {
        let plain = StanzaError::new;
        for (failure, expected) in [
            (Failure::Timeout, Scope::Silence),
            (Failure::Lost, Scope::Unknown),
            (
                Failure::Refused(error(
                    Condition::ItemNotFound,
                    ErrorReason::ConferenceNotFound,
                    "",
                )),
                Scope::Session,
            ),
            (
                Failure::Refused(error(
                    Condition::Conflict,
                    ErrorReason::ConferenceAlreadyExists,
                    "",
                )),
                Scope::Taken,
            ),
            (
                Failure::Refused(colibri2::unknown_endpoint("a")),
                Scope::Endpoint,
            ),
            (
                Failure::Refused(error(
                    Condition::ServiceUnavailable,
                    ErrorReason::GracefulShutdown,
                    "",
                )),
                Scope::Graceful,
            ),
            (
                Failure::Refused(plain(Condition::Conflict)),
                Scope::Endpoint,
            ),
            (
                Failure::Refused(plain(Condition::BadRequest)),
                Scope::Endpoint,
            ),
            (
                Failure::Refused(plain(Condition::ItemNotFound)),
                Scope::Gone,
            ),
            (
                Failure::Refused(plain(Condition::ServiceUnavailable)),
                Scope::Bridge,
            ),
            (
                Failure::Refused(plain(Condition::InternalServerError)),
                Scope::Bridge,
            ),
        ] {
            assert_eq!(scope(&failure), expected, "{failure}");
        }
    }
}
