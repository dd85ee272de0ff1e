//! Bridge control (`focus-bridge` §2): a focus changes a conference with
//! [`ConferenceModify`], the bridge answers with [`ConferenceModified`] or an
//! [`error`].
//!
//! Flags are written only where they differ from their default, and read in any
//! case. Whatever is not known here is ignored, `connects` included: a bridge
//! without exporting has to accept it (§2.1). Over HTTP the same travels as JSON.

mod error;
mod json;

pub use error::{ErrorDetail, ErrorEndpoint, ErrorReason, error, reason, unknown_endpoint};
pub use json::JsonError;

use crate::jingle::{self, ExtmapAllowMixed, HeaderExtension, PayloadType, SsrcGroup, TraceParent};
use crate::xml::codec::{Flag, Lax, MaybeFlag, words};
use crate::xml::ns;

/// A change of a conference.
#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "conference-modify")]
pub struct ConferenceModify {
    /// What the focus calls the conference; opaque to the bridge.
    #[xml(attribute(name = "meeting-id"))]
    pub meeting_id: String,
    /// The room, told when the conference is created.
    #[xml(attribute(default))]
    pub name: Option<String>,
    #[xml(attribute(codec = Flag, default))]
    pub create: bool,
    /// Ends the conference after all else is done.
    #[xml(attribute(codec = Flag, default))]
    pub expire: bool,
    /// Absent is `true`.
    #[xml(attribute(name = "rtcstats-enabled", codec = MaybeFlag, default))]
    pub rtcstats_enabled: Option<bool>,
    #[xml(child(default))]
    pub trace_parent: Option<TraceParent>,
    #[xml(child(n = ..))]
    pub endpoints: Vec<Endpoint>,
    #[xml(child(n = ..))]
    pub relays: Vec<Relay>,
}

impl ConferenceModify {
    /// A change of nothing yet.
    pub fn new(meeting_id: impl Into<String>) -> Self {
        Self {
            meeting_id: meeting_id.into(),
            name: None,
            create: false,
            expire: false,
            rtcstats_enabled: None,
            trace_parent: None,
            endpoints: Vec::new(),
            relays: Vec::new(),
        }
    }
}

/// What became of a [`ConferenceModify`].
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "conference-modified")]
pub struct ConferenceModified {
    /// One for each that was asked about.
    #[xml(child(n = ..))]
    pub endpoints: Vec<Endpoint>,
    #[xml(child(n = ..))]
    pub relays: Vec<Relay>,
    /// The bridge's own feedback sources, whenever something was created.
    #[xml(child(default))]
    pub sources: Option<Sources>,
}

/// A participant on this bridge, or behind a relay; in requests and answers.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "endpoint")]
pub struct Endpoint {
    #[xml(attribute)]
    pub id: String,
    #[xml(attribute(codec = Flag, default))]
    pub create: bool,
    #[xml(attribute(codec = Flag, default))]
    pub expire: bool,
    #[xml(attribute(name = "stats-id", default))]
    pub stats_id: Option<String>,
    /// `visitor`, or absent.
    #[xml(attribute(name = "muc-role", default))]
    pub muc_role: Option<String>,
    #[xml(child(n = ..))]
    pub media: Vec<Media>,
    #[xml(child(default))]
    pub transport: Option<Transport>,
    /// All sources of the endpoint; absent leaves them as they are.
    #[xml(child(default))]
    pub sources: Option<Sources>,
    #[xml(child(default))]
    pub force_mute: Option<ForceMute>,
    #[xml(child(default))]
    pub initial_last_n: Option<InitialLastN>,
    #[xml(child(n = ..))]
    pub capabilities: Vec<Capability>,
}

impl Endpoint {
    /// An endpoint with nothing but a name.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }

    /// Whether it has a capability.
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities.iter().any(|c| c.name == name)
    }
}

/// Another bridge of the same conference; in requests and answers.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "relay")]
pub struct Relay {
    /// The relay id of the other bridge.
    #[xml(attribute)]
    pub id: String,
    #[xml(attribute(codec = Flag, default))]
    pub create: bool,
    #[xml(attribute(codec = Flag, default))]
    pub expire: bool,
    #[xml(attribute(name = "mesh-id", default))]
    pub mesh_id: Option<String>,
    #[xml(child(n = ..))]
    pub media: Vec<Media>,
    #[xml(child(default))]
    pub transport: Option<Transport>,
    /// Participants on the other bridge.
    #[xml(child(default))]
    pub endpoints: Option<Endpoints>,
}

/// The participants behind a relay.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "endpoints")]
pub struct Endpoints {
    #[xml(child(n = ..))]
    pub endpoints: Vec<Endpoint>,
}

words! {
    /// Audio or video.
    MediaType {
        Audio = "audio",
        Video = "video",
    }
}

/// What was negotiated for a medium.
#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "media")]
pub struct Media {
    #[xml(attribute(name = "type"))]
    pub kind: MediaType,
    #[xml(child(n = ..))]
    pub payload_types: Vec<PayloadType>,
    #[xml(child(n = ..))]
    pub header_extensions: Vec<HeaderExtension>,
    #[xml(child(default))]
    pub extmap_allow_mixed: Option<ExtmapAllowMixed>,
}

/// How packets travel.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "transport")]
pub struct Transport {
    /// Whether the bridge that is addressed nominates.
    #[xml(attribute(name = "ice-controlling", codec = Flag, default))]
    pub ice_controlling: bool,
    /// A port of its own for a relay.
    #[xml(attribute(name = "use-unique-port", codec = Flag, default))]
    pub use_unique_port: bool,
    #[xml(attribute(name = "ice-restart", codec = Flag, default))]
    pub ice_restart: bool,
    #[xml(child(default))]
    pub ice_udp: Option<jingle::Transport>,
    #[xml(child(default))]
    pub sctp: Option<Sctp>,
}

/// A data channel is wanted, or granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "sctp")]
pub struct Sctp {
    /// `server` or `client`: of the addressed bridge in a relay request.
    #[xml(attribute(default))]
    pub role: Option<String>,
    #[xml(attribute(codec = Lax, default))]
    pub port: Option<u16>,
}

/// A set of sources; see [`crate::sources`].
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "sources")]
pub struct Sources {
    #[xml(child(n = ..))]
    pub media_sources: Vec<MediaSource>,
}

/// One named source with all its SSRCs.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "media-source")]
pub struct MediaSource {
    #[xml(attribute(name = "type"))]
    pub kind: MediaType,
    /// The source's name.
    #[xml(attribute)]
    pub id: String,
    #[xml(attribute(codec = Flag, default))]
    pub synthetic: bool,
    #[xml(child(n = ..))]
    pub sources: Vec<jingle::Source>,
    #[xml(child(n = ..))]
    pub ssrc_groups: Vec<SsrcGroup>,
}

/// What a moderator does not let an endpoint send. Always states both media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "force-mute")]
pub struct ForceMute {
    #[xml(attribute(codec = Flag, default))]
    pub audio: bool,
    #[xml(attribute(codec = Flag, default))]
    pub video: bool,
}

/// Something a client can do.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "capability")]
pub struct Capability {
    #[xml(attribute)]
    pub name: String,
}

/// Names of capabilities.
pub mod capability {
    /// Mandatory when an endpoint is created.
    pub const SOURCE_NAMES: &str = "source-names";
    pub const SSRC_REWRITING: &str = "ssrc-rewriting";
    pub const PRIVATE_ADDRESSES: &str = "private-address-connectivity";
    pub const RTP_MID_DEMUX: &str = "rtp-mid-demux";
}

/// How many videos an endpoint gets until it says so itself; -1 is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI2, name = "initial-last-n")]
pub struct InitialLastN {
    #[xml(attribute(codec = Lax, default))]
    pub value: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn read(text: &str) -> Result<ConferenceModify, xml::XmlError> {
        xml::from_element(xml::parse(text.as_bytes()).expect("XML"))
    }

    /// All that `focus-bridge` §2.1 says may come and a bridge must stand.
    #[test]
    fn whatever_a_focus_may_add_is_read_or_ignored() {
        let modify = read(
            r#"<conference-modify xmlns="jitsi:colibri2" meeting-id="m" create="TRUE" new="1"
                rtcstats-enabled="False">
                <connects><connect url="wss://x" protocol="mediajson" type="recorder"/></connects>
                <traceparent xmlns="jitsi:opentelemetry" trace_id="0"/>
                <endpoint id="e" create="true" diarize="true" muc-role="visitor">
                 <odd/><capability name="source-names"/><capability name="new"/>
                 <transport ice-controlling="True"><sctp/></transport>
                 <media type="smell"/><sources/><initial-last-n value="-1"/><force-mute audio="true"/>
                </endpoint>
                <relay id="r" mesh-id="0"><endpoints><endpoint id="f" expire="true"/></endpoints></relay>
               </conference-modify>"#,
        )
        .expect("a request");
        assert!(modify.create && !modify.expire);
        assert_eq!(modify.rtcstats_enabled, Some(false));
        let endpoint = &modify.endpoints[0];
        assert!(endpoint.has_capability(capability::SOURCE_NAMES));
        assert!(!endpoint.has_capability(capability::SSRC_REWRITING));
        let transport = endpoint.transport.as_ref().expect("a transport");
        assert!(transport.ice_controlling && !transport.ice_restart);
        assert_eq!(transport.sctp, Some(Sctp::default()));
        assert_eq!(endpoint.sources, Some(Sources::default()));
        assert_eq!(endpoint.initial_last_n.and_then(|n| n.value), Some(-1));
        assert_eq!(
            endpoint.force_mute,
            Some(ForceMute {
                audio: true,
                video: false
            })
        );
        assert_eq!(endpoint.media[0].kind, MediaType::Other("smell".to_owned()));
        let behind = modify.relays[0].endpoints.as_ref().expect("endpoints");
        assert!(behind.endpoints[0].expire);
    }

    #[test]
    fn what_a_bridge_cannot_do_without_is_missed() {
        for text in [
            "<conference-modify xmlns='jitsi:colibri2'/>",
            "<conference-modify xmlns='jitsi:colibri2' meeting-id='m'><endpoint/></conference-modify>",
            "<conference-modify xmlns='jitsi:colibri2' meeting-id='m'><relay/></conference-modify>",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_are_not_written() {
        let mut modify = ConferenceModify::new("m");
        modify.endpoints.push(Endpoint {
            force_mute: Some(ForceMute::default()),
            ..Endpoint::new("e")
        });
        let text = xml::write(&xml::to_element(&modify));
        assert!(!text.contains("false") && !text.contains("true"), "{text}");
        assert!(text.contains("<force-mute></force-mute>"), "{text}");
    }
}
