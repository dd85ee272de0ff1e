//! The conference request (`client-focus` §2): a client asks the focus for a
//! room. Over XMPP question and answer are one element; over HTTP they are JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::xml::codec::MaybeFlag;
use crate::xml::ns;

/// The request and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "conference")]
pub struct Conference {
    /// Mandatory in a request; the focus answers `bad-request` without.
    #[xml(attribute(default))]
    pub room: Option<String>,
    /// Identifies a browser, for authentication.
    #[xml(attribute(name = "machine-uid", default))]
    pub machine_uid: Option<String>,
    /// A JSON Web Token.
    #[xml(attribute(default))]
    pub token: Option<String>,
    #[xml(attribute(name = "session-id", default))]
    pub session_id: Option<String>,
    /// Answer: the focus is in the room.
    #[xml(attribute(codec = MaybeFlag, default))]
    pub ready: Option<bool>,
    /// Answer: the bare address by which the client knows the focus.
    #[xml(attribute(default))]
    pub focusjid: Option<String>,
    /// Answer: who is logged in.
    #[xml(attribute(default))]
    pub identity: Option<String>,
    /// Answer: the node a visitor is to go to.
    #[xml(attribute(default))]
    pub vnode: Option<String>,
    #[xml(child(n = ..))]
    pub properties: Vec<Property>,
}

/// A setting of a conference.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "property")]
pub struct Property {
    #[xml(attribute)]
    pub name: String,
    #[xml(attribute(default))]
    pub value: String,
}

impl Conference {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|property| property.name == name)
            .map(|property| property.value.as_str())
    }

    /// Adds a property.
    pub fn with_property(mut self, name: &str, value: impl Into<String>) -> Self {
        self.properties.push(Property {
            name: name.to_owned(),
            value: value.into(),
        });
        self
    }
}

/// Beside `not-acceptable`: forget the session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "session-invalid")]
pub struct SessionInvalid;

/// A reservation system refused the conference.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "reservation-error")]
pub struct ReservationError {
    #[xml(attribute(name = "error-code", default))]
    pub error_code: Option<String>,
}

/// Ends an authentication session; the answer may tell where to go then.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "logout")]
pub struct Logout {
    #[xml(attribute(name = "session-id", default))]
    pub session_id: Option<String>,
    #[xml(attribute(name = "logout-url", default))]
    pub logout_url: Option<String>,
}

/// Asks where to log in. Current clients do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "login-url")]
pub struct LoginUrl {
    #[xml(attribute(default))]
    pub room: Option<String>,
    #[xml(attribute(name = "machine-uid", default))]
    pub machine_uid: Option<String>,
    #[xml(attribute(default))]
    pub url: Option<String>,
    #[xml(attribute(codec = MaybeFlag, default))]
    pub popup: Option<bool>,
}

/// The request as JSON (`client-focus` §2.3).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRequest {
    pub room: Option<String>,
    pub machine_uid: Option<String>,
    pub session_id: Option<String>,
    /// Values are text, numbers or truth values.
    pub properties: BTreeMap<String, serde_json::Value>,
}

/// The answer as JSON. Absent values are written as `null`, and `properties`
/// even when empty: the client reads it unguarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAnswer {
    pub room: Option<String>,
    pub ready: bool,
    pub focus_jid: Option<String>,
    pub session_id: Option<String>,
    pub identity: Option<String>,
    pub vnode: Option<String>,
    pub properties: BTreeMap<String, String>,
}

impl From<HttpRequest> for Conference {
    fn from(request: HttpRequest) -> Self {
        let value = |value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Self {
            room: request.room,
            machine_uid: request.machine_uid,
            session_id: request.session_id,
            properties: request
                .properties
                .into_iter()
                .map(|(name, v)| Property {
                    name,
                    value: value(v),
                })
                .collect(),
            ..Self::default()
        }
    }
}

impl From<Conference> for HttpAnswer {
    fn from(answer: Conference) -> Self {
        Self {
            room: answer.room,
            ready: answer.ready.unwrap_or(false),
            focus_jid: answer.focusjid,
            session_id: answer.session_id,
            identity: answer.identity,
            vnode: answer.vnode,
            properties: answer
                .properties
                .into_iter()
                .map(|property| (property.name, property.value))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of `client-focus` §2.3.
    #[test]
    fn http_has_the_same_request_and_answer() {
        let request: HttpRequest = serde_json::from_str(
            r#"{"machineUid":"2f9d","room":"demo@conference.meet.example","sessionId":"7a31",
                "properties":{"rtcstatsEnabled":false,"visitors-version":1,"x":"y"},"new":{}}"#,
        )
        .expect("a request");
        let request = Conference::from(request);
        assert_eq!(
            request.room.as_deref(),
            Some("demo@conference.meet.example")
        );
        assert_eq!(request.machine_uid.as_deref(), Some("2f9d"));
        assert_eq!(request.session_id.as_deref(), Some("7a31"));
        assert_eq!(request.property("rtcstatsEnabled"), Some("false"));
        assert_eq!(request.property("visitors-version"), Some("1"));
        assert_eq!(request.property("x"), Some("y"));
        assert_eq!(request.property("z"), None);

        let answer = Conference {
            room: request.room,
            ready: Some(true),
            focusjid: Some("focus@auth.meet.example".to_owned()),
            ..Conference::default()
        }
        .with_property("authentication", "false");
        let json = serde_json::to_value(HttpAnswer::from(answer)).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "room": "demo@conference.meet.example", "ready": true,
                "focusJid": "focus@auth.meet.example", "sessionId": null, "identity": null,
                "vnode": null, "properties": {"authentication": "false"}
            })
        );
    }

    #[test]
    fn an_empty_request_is_read() {
        let request: HttpRequest = serde_json::from_str("{}").expect("a request");
        assert_eq!(request, HttpRequest::default());
    }
}
