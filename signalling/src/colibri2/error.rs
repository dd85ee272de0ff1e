//! Errors of a bridge (`focus-bridge` §2.5). The colibri2 element in them proves
//! that the bridge itself speaks, and not the room.

use crate::iq::{Condition, StanzaError};
use crate::xml::codec::words;
use crate::xml::{self, ns};

words! {
    /// What went wrong.
    ErrorReason {
        ConferenceNotFound = "conference_not_found",
        ConferenceAlreadyExists = "conference_already_exists",
        UnknownEndpoint = "unknown_endpoint",
        GracefulShutdown = "graceful_shutdown",
        FeatureNotImplemented = "feature_not_implemented",
        Unspecified = "unspecified",
    }
}

/// The condition that names the reason.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "error")]
pub struct ErrorDetail {
    #[xml(attribute(default))]
    pub reason: Option<ErrorReason>,
}

/// The endpoint an error is about.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "endpoint")]
pub struct ErrorEndpoint {
    #[xml(attribute)]
    pub id: String,
}

/// An error with its reason.
pub fn error(condition: Condition, reason: ErrorReason, text: impl Into<String>) -> StanzaError {
    StanzaError::new(condition)
        .with_text(text)
        .with_detail(&ErrorDetail {
            reason: Some(reason),
        })
}

/// The error about an endpoint that is not there.
pub fn unknown_endpoint(id: &str) -> StanzaError {
    error(
        Condition::ItemNotFound,
        ErrorReason::UnknownEndpoint,
        format!("Endpoint not found for ID: {id}"),
    )
    .with_detail(&ErrorEndpoint { id: id.to_owned() })
}

/// What a bridge said in an error: its reason, and the endpoint concerned.
/// `None` if the error carries no colibri2 element.
pub fn reason(error: &StanzaError) -> Option<(ErrorReason, Option<String>)> {
    let detail: ErrorDetail = xml::find(&error.details)?;
    let endpoint: Option<ErrorEndpoint> = xml::find(&error.details);
    Some((
        detail.reason.unwrap_or(ErrorReason::Unspecified),
        endpoint.map(|endpoint| endpoint.id),
    ))
}
