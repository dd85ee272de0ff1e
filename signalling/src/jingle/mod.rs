//! Calls: Jingle (XEP-0166) with all that Jitsi puts into it.
//!
//! - [`rtp`]: codecs and header extensions (XEP-0167, 0293, 0294)
//! - [`transport`]: ICE, DTLS, bridge channel (XEP-0176, 0320, 0343)
//! - [`ssma`]: sources in their standard form (XEP-0339)

pub mod rtp;
pub mod ssma;
pub mod transport;

pub use rtp::{Description, ExtmapAllowMixed, HeaderExtension, Parameter, PayloadType, RtcpFb};
pub use ssma::{Source, SourceParameter, SsrcGroup, SsrcInfo};
pub use transport::{Candidate, Fingerprint, SctpMap, Transport, WebSocket};

use crate::colibri2::InitialLastN;
use crate::iq::{Condition, StanzaError};
use crate::jitsi::{JsonMessage, StartMuted};
use crate::xml::codec::{MaybeFlag, words};
use crate::xml::ns;

words! {
    /// What a Jingle request is about.
    Action {
        SessionInitiate = "session-initiate",
        SessionAccept = "session-accept",
        SessionInfo = "session-info",
        SessionTerminate = "session-terminate",
        TransportInfo = "transport-info",
        TransportAccept = "transport-accept",
        TransportReject = "transport-reject",
        TransportReplace = "transport-replace",
        SourceAdd = "source-add",
        SourceRemove = "source-remove",
        ContentModify = "content-modify",
    }
}

/// A Jingle request.
///
/// Addresses are text: nobody acts on them, and a client may write anything.
#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JINGLE, name = "jingle")]
pub struct Jingle {
    #[xml(attribute)]
    pub action: Action,
    #[xml(attribute(default))]
    pub initiator: Option<String>,
    #[xml(attribute(default))]
    pub responder: Option<String>,
    #[xml(attribute)]
    pub sid: String,
    #[xml(child(n = ..))]
    pub contents: Vec<Content>,
    #[xml(child(n = ..))]
    pub groups: Vec<Group>,
    #[xml(child(default))]
    pub reason: Option<Reason>,
    #[xml(child(default))]
    pub start_muted: Option<StartMuted>,
    #[xml(child(default))]
    pub bridge_session: Option<BridgeSession>,
    #[xml(child(default))]
    pub ice_state: Option<IceState>,
    /// Sources in their compact form; see [`crate::sources`].
    #[xml(child(default))]
    pub json_message: Option<JsonMessage>,
    #[xml(child(default))]
    pub trace_parent: Option<TraceParent>,
}

impl Jingle {
    /// A request without content.
    pub fn new(action: Action, sid: impl Into<String>) -> Self {
        Self {
            action,
            initiator: None,
            responder: None,
            sid: sid.into(),
            contents: Vec::new(),
            groups: Vec::new(),
            reason: None,
            start_muted: None,
            bridge_session: None,
            ice_state: None,
            json_message: None,
            trace_parent: None,
        }
    }

    /// Ends a session.
    pub fn terminate(sid: impl Into<String>, condition: ReasonCondition, text: &str) -> Self {
        Self {
            reason: Some(Reason {
                condition: Some(condition),
                text: Some(text.to_owned()),
            }),
            ..Self::new(Action::SessionTerminate, sid)
        }
    }

    /// The content of that name.
    pub fn content(&self, name: &str) -> Option<&Content> {
        self.contents.iter().find(|content| content.name == name)
    }

    /// The transport of the first content that has one; all are bundled.
    pub fn transport(&self) -> Option<&Transport> {
        self.contents.iter().find_map(|c| c.transport.as_ref())
    }
}

/// One medium of a session: `audio`, `video` or `data`.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JINGLE, name = "content")]
pub struct Content {
    #[xml(attribute(default))]
    pub creator: Option<Creator>,
    #[xml(attribute)]
    pub name: String,
    #[xml(attribute(default))]
    pub senders: Option<Senders>,
    /// Only in a session-accept, and only with the client's `channelLastN`.
    #[xml(child(default))]
    pub initial_last_n: Option<InitialLastN>,
    #[xml(child(default))]
    pub description: Option<Description>,
    #[xml(child(default))]
    pub transport: Option<Transport>,
}

words! {
    /// Who brought a content into the session.
    Creator {
        Initiator = "initiator",
        Responder = "responder",
    }
}

words! {
    /// Who sends; absent is `Both`.
    Senders {
        Both = "both",
        Initiator = "initiator",
        Responder = "responder",
        None = "none",
        Rejected = "rejected",
    }
}

/// A group of contents (XEP-0338).
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::GROUPING, name = "group")]
pub struct Group {
    #[xml(attribute)]
    pub semantics: String,
    #[xml(child(n = ..))]
    pub contents: Vec<GroupContent>,
}

/// A member of a [`Group`].
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::GROUPING, name = "content")]
pub struct GroupContent {
    #[xml(attribute)]
    pub name: String,
}

impl Group {
    /// All of these contents share one transport (RFC 9143).
    pub fn bundle<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            semantics: "BUNDLE".to_owned(),
            contents: names
                .into_iter()
                .map(|name| GroupContent {
                    name: name.to_owned(),
                })
                .collect(),
        }
    }
}

/// Why a session ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JINGLE, name = "reason")]
pub struct Reason {
    /// `None` for a condition not known here.
    #[xml(child(default))]
    pub condition: Option<ReasonCondition>,
    #[xml(extract(name = "text", default, fields(text(type_ = String))))]
    pub text: Option<String>,
}

/// Conditions of XEP-0166 §7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JINGLE)]
pub enum ReasonCondition {
    #[xml(name = "busy")]
    Busy,
    #[xml(name = "cancel")]
    Cancel,
    #[xml(name = "connectivity-error")]
    ConnectivityError,
    #[xml(name = "decline")]
    Decline,
    #[xml(name = "expired")]
    Expired,
    #[xml(name = "failed-application")]
    FailedApplication,
    #[xml(name = "failed-transport")]
    FailedTransport,
    #[xml(name = "general-error")]
    GeneralError,
    #[xml(name = "gone")]
    Gone,
    #[xml(name = "incompatible-parameters")]
    IncompatibleParameters,
    #[xml(name = "media-error")]
    MediaError,
    #[xml(name = "security-error")]
    SecurityError,
    #[xml(name = "success")]
    Success,
    #[xml(name = "timeout")]
    Timeout,
    #[xml(name = "unsupported-applications")]
    UnsupportedApplications,
    #[xml(name = "unsupported-transports")]
    UnsupportedTransports,
}

/// Which stay of a conference on a bridge a session belongs to, and in the
/// client's direction what it wants done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "bridge-session")]
pub struct BridgeSession {
    #[xml(attribute(default))]
    pub id: Option<String>,
    /// Where the bridge is.
    #[xml(attribute(default))]
    pub region: Option<String>,
    /// The client ends the session and asks for another.
    #[xml(attribute(codec = MaybeFlag, default))]
    pub restart: Option<bool>,
    /// The client keeps the session and asks for fresh ICE credentials.
    #[xml(attribute(name = "ice-restart", codec = MaybeFlag, default))]
    pub ice_restart: Option<bool>,
}

/// What older clients say instead of ending a session whose ICE failed.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "ice-state")]
pub struct IceState {
    /// `failed`.
    #[xml(text)]
    pub state: String,
}

/// The tracing context that jicofo adds and clients echo.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::OPENTELEMETRY, name = "traceparent")]
pub struct TraceParent {
    #[xml(attribute(default))]
    pub trace_id: String,
    #[xml(attribute(default))]
    pub parent_id: String,
    #[xml(attribute(default))]
    pub trace_flags: String,
}

/// The error condition beside `item-not-found` for a session nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JINGLE_ERRORS, name = "unknown-session")]
pub struct UnknownSession;

/// The answer to a request about a session that is not known.
pub fn unknown_session() -> StanzaError {
    StanzaError::new(Condition::ItemNotFound).with_detail(&UnknownSession)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn read(text: &str) -> Jingle {
        xml::from_element(xml::parse(text.as_bytes()).expect("XML")).expect("jingle")
    }

    /// The example of `client-focus` §4.7.
    #[test]
    fn a_client_ends_its_session_to_get_another() {
        let jingle = read(
            r#"<jingle xmlns="urn:xmpp:jingle:1" action="session-terminate" sid="6q2m8ro1k4e7c"
                initiator="demo@conference.meet.example/focus">
                <reason><connectivity-error/><text>ICE FAILED</text></reason>
                <bridge-session xmlns="http://jitsi.org/protocol/focus" id="0b5c0d3e" restart="true"/>
               </jingle>"#,
        );
        assert_eq!(jingle.action, Action::SessionTerminate);
        let reason = jingle.reason.expect("a reason");
        assert_eq!(reason.condition, Some(ReasonCondition::ConnectivityError));
        assert_eq!(reason.text.as_deref(), Some("ICE FAILED"));
        let session = jingle.bridge_session.expect("a bridge session");
        assert_eq!(session.restart, Some(true));
        assert_eq!(session.ice_restart, None);
    }

    /// The examples of `client-focus` §4.6.
    #[test]
    fn ice_is_restarted_in_place() {
        let jingle = read(
            r#"<jingle xmlns="urn:xmpp:jingle:1" action="session-info" sid="s">
                <bridge-session xmlns="http://jitsi.org/protocol/focus" id="b" ice-restart="true"/>
               </jingle>"#,
        );
        assert_eq!(
            jingle.bridge_session.and_then(|b| b.ice_restart),
            Some(true)
        );
        let jingle = read(
            r#"<jingle xmlns="urn:xmpp:jingle:1" action="transport-info" sid="s">
                <content name="data"/><content creator="initiator" name="audio">
                <transport xmlns="urn:xmpp:jingle:transports:ice-udp:1" ufrag="new1" pwd="p"
                 ice-generation="1"/></content></jingle>"#,
        );
        let transport = jingle.transport().expect("a transport");
        assert_eq!(transport.ice_generation, Some(1));
        assert!(jingle.content("audio").is_some());
        assert!(jingle.content("video").is_none());
    }

    #[test]
    fn unknown_words_and_elements_do_not_harm() {
        let jingle = read(
            r#"<jingle xmlns="urn:xmpp:jingle:1" action="security-info" sid="s" odd="1">
                <reason><tired/></reason><odd xmlns="x"><jingle/></odd>
                <content name="audio" senders="some"><description xmlns="urn:other"/></content>
                <ice-state xmlns="http://jitsi.org/protocol/focus">failed</ice-state></jingle>"#,
        );
        assert_eq!(jingle.action, Action::Other("security-info".to_owned()));
        assert_eq!(jingle.reason, Some(Reason::default()));
        assert_eq!(jingle.ice_state.map(|i| i.state).as_deref(), Some("failed"));
        assert_eq!(
            jingle.contents[0].senders,
            Some(Senders::Other("some".to_owned()))
        );
        assert!(jingle.contents[0].description.is_none());
    }

    #[test]
    fn what_cannot_be_done_without_is_missed() {
        for text in [
            "<jingle xmlns='urn:xmpp:jingle:1' action='source-add'/>",
            "<jingle xmlns='urn:xmpp:jingle:1' sid='s'/>",
            "<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='s'><content/></jingle>",
        ] {
            let element = xml::parse(text.as_bytes()).expect("XML");
            assert!(xml::from_element::<Jingle>(&element).is_err(), "{text}");
        }
    }

    #[test]
    fn a_terminate_holds_only_its_reason() {
        let jingle = Jingle::terminate("s", ReasonCondition::Success, "moving");
        let element = xml::to_element(&jingle);
        let reason = element.children().next().expect("a reason");
        let names: Vec<_> = reason.children().map(xml::Element::name).collect();
        assert_eq!(names, ["success", "text"]);
        assert_eq!(element.children().count(), 1);
    }

    #[test]
    fn red_has_a_parameter_without_a_name() {
        let mut red = PayloadType::new(112, "red", 48000);
        red.parameters.push(Parameter::nameless("111/111"));
        let text = xml::write(&xml::to_element(&red));
        assert!(
            !text.contains("name=\"\"") && text.contains("111/111"),
            "{text}"
        );
        let read: PayloadType =
            xml::from_element(xml::parse(text.as_bytes()).expect("XML")).expect("a codec");
        assert_eq!(read, red);
        assert_eq!(read.parameter("apt"), None);
    }

    #[test]
    fn feedback_is_named_as_in_sdp() {
        let codec = PayloadType::new(100, "VP8", 90000)
            .with_feedback(["ccm fir", "nack"])
            .with_parameter("apt", "1");
        assert!(codec.has_feedback("nack"));
        assert!(codec.has_feedback("ccm fir"));
        assert!(!codec.has_feedback("nack pli"));
        assert_eq!(codec.parameter("apt"), Some("1"));
        assert_eq!(codec.rtcp_fb[0].subtype.as_deref(), Some("fir"));
    }
}
