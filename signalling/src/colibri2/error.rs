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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iq::Iq;
    use crate::jid::Jid;

    /// Example (h) of `focus-bridge` §2.7.
    #[test]
    fn an_unknown_endpoint_is_named() {
        let request = Iq::get(
            "f8",
            Jid::new("b@x/jvb").expect("a jid"),
            &crate::disco::Ping,
        );
        let text = xml::write(&request.error(unknown_endpoint("e5f60718")).to_element());
        let read = Iq::from_element(&xml::parse(text.as_bytes()).expect("XML"));
        let crate::iq::Kind::Error(error) = read.expect("an iq").kind else {
            panic!("an error");
        };
        assert_eq!(error.condition, Condition::ItemNotFound);
        assert_eq!(
            error.text.as_deref(),
            Some("Endpoint not found for ID: e5f60718")
        );
        assert_eq!(
            reason(&error),
            Some((ErrorReason::UnknownEndpoint, Some("e5f60718".to_owned())))
        );
    }

    #[test]
    fn an_error_of_the_room_has_no_reason() {
        assert_eq!(reason(&StanzaError::new(Condition::ItemNotFound)), None);
    }

    #[test]
    fn a_reason_unknown_here_is_kept() {
        let new = ErrorReason::from("too_hot");
        let error = error(Condition::Conflict, new.clone(), "x");
        assert_eq!(reason(&error), Some((new, None)));
    }
}
