//! Jitsi's own elements.
//!
//! - [`conference`]: the request that starts a conference, over XMPP and HTTP
//! - [`occupant`]: what clients and the focus say in their room presence
//! - [`mute`]: moderation of microphones, cameras and screens

pub mod conference;
pub mod mute;
pub mod occupant;

pub use conference::{Conference, LoginUrl, Logout, Property, ReservationError, SessionInvalid};
pub use mute::{Mute, MuteMedia};
pub use occupant::{
    BridgeNotAvailable, ConferenceProperties, Etherpad, Ignore, Nick, Occupant, SourceInfo,
    SourceState, Versions,
};

use crate::xml::codec::Flag;
use crate::xml::ns;

/// JSON in a stanza: sources in a Jingle request, words of Jitsi's server
/// plugins in a message.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JITMEET, name = "json-message")]
pub struct JsonMessage {
    #[xml(attribute(default))]
    pub room: Option<String>,
    #[xml(text)]
    pub json: String,
}

impl JsonMessage {
    /// A message of that text.
    pub fn new(json: impl Into<String>) -> Self {
        Self {
            room: None,
            json: json.into(),
        }
    }
}

/// Who joins muted: in the offer for older clients, in a moderator's presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::START_MUTED, name = "startmuted")]
pub struct StartMuted {
    #[xml(attribute(codec = Flag, default))]
    pub audio: bool,
    #[xml(attribute(codec = Flag, default))]
    pub video: bool,
}

/// Strings that a client announces in its capabilities (`client-focus` §1.6).
pub mod feature {
    pub const AUDIO: &str = "urn:xmpp:jingle:apps:rtp:audio";
    pub const VIDEO: &str = "urn:xmpp:jingle:apps:rtp:video";
    pub const SCTP: &str = "urn:xmpp:jingle:transports:dtls-sctp:1";
    pub const JSON_SOURCES: &str = "http://jitsi.org/json-encoded-sources";
    pub const RTX: &str = "urn:ietf:rfc:4588";
    pub const TCC: &str = "http://jitsi.org/tcc";
    pub const REMB: &str = "http://jitsi.org/remb";
    pub const OPUS_RED: &str = "http://jitsi.org/opus-red";
    pub const SOURCE_NAME: &str = "http://jitsi.org/source-name";
    pub const MULTI_STREAM: &str = "http://jitsi.org/receive-multiple-video-streams";
    pub const SSRC_REWRITING: &str = "http://jitsi.org/ssrc-rewriting-1";
    pub const RTP_MID_DEMUX: &str = "http://jitsi.org/rtp-mid-demux";
    pub const VISITORS: &str = "http://jitsi.org/visitors-1";
    pub const START_MUTED_METADATA: &str = "http://jitsi.org/start-muted-room-metadata";
    pub const AUDIO_MUTE: &str = "http://jitsi.org/protocol/audio-mute";
    pub const JIBRI: &str = "http://jitsi.org/protocol/jibri";
    pub const JIGASI: &str = "http://jitsi.org/protocol/jigasi";
    pub const TRANSCRIBER: &str = "http://jitsi.org/protocol/transcriber";
}
