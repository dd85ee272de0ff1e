//! Presence in a conference room (`client-focus` §3): what clients say of
//! themselves, and what the focus says of the conference.
//!
//! Clients put most of it into elements of the stanza's own namespace.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::disco::Caps;
use crate::jitsi::StartMuted;
use crate::muc::MucUser;
use crate::presence::Presence;
use crate::sources::{MediaType, VideoType};
use crate::xml::codec::truth;
use crate::xml::{self, Element, ns};

/// A nickname for people (XEP-0172).
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::NICK, name = "nick")]
pub struct Nick {
    #[xml(text)]
    pub name: String,
}

/// Facts about the conference, in the presence of the focus.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "conference-properties")]
pub struct ConferenceProperties {
    #[xml(child(n = ..))]
    properties: Vec<KeyedProperty>,
}

#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "property")]
struct KeyedProperty {
    #[xml(attribute)]
    key: String,
    #[xml(attribute(default))]
    value: String,
}

impl ConferenceProperties {
    /// The value of a property.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|property| property.key == key)
            .map(|property| property.value.as_str())
    }

    /// Sets a property; whether that changes anything.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> bool {
        let value = value.into();
        match self.properties.iter_mut().find(|p| p.key == key) {
            Some(property) if property.value == value => return false,
            Some(property) => property.value = value,
            None => self.properties.push(KeyedProperty {
                key: key.to_owned(),
                value,
            }),
        }
        true
    }
}

/// Keys of [`ConferenceProperties`].
pub mod property {
    pub const BRIDGE_COUNT: &str = "bridge-count";
    /// Not zero switches peer to peer off.
    pub const VISITOR_COUNT: &str = "visitor-count";
    /// Nobody more may unmute.
    pub const AUDIO_LIMIT_REACHED: &str = "audio-limit-reached";
    pub const VIDEO_LIMIT_REACHED: &str = "video-limit-reached";
    /// Always `true`; older clients ask for it.
    pub const SUPPORT_TERMINATE_RESTART: &str = "support-terminate-restart";
}

/// The programs that serve the conference.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JITMEET, name = "versions")]
pub struct Versions {
    #[xml(child(n = ..))]
    pub components: Vec<ComponentVersion>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JITMEET, name = "component")]
pub struct ComponentVersion {
    #[xml(attribute)]
    pub name: String,
    #[xml(text)]
    pub version: String,
}

/// The name of a document that the participants share.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::ETHERPAD, name = "etherpad")]
pub struct Etherpad {
    #[xml(text)]
    pub name: String,
}

/// There is no bridge and none is awaited: the stock application leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::FOCUS, name = "bridgeNotAvailable")]
pub struct BridgeNotAvailable;

/// In an unavailable presence: clients take no notice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JITMEET_SLASH, name = "ignore")]
pub struct Ignore;

/// `<SourceInfo/>`: the state of each of an endpoint's sources, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceInfo(pub BTreeMap<String, SourceState>);

/// The state of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Absent is `true`.
    pub muted: bool,
    /// Absent is camera; whatever is named and unknown is a screen.
    pub video_type: VideoType,
    /// As stated, or else as the name tells; `None` if it tells nothing.
    pub media_type: Option<MediaType>,
}

impl SourceInfo {
    /// Reads the JSON text. `None` if it is no JSON object.
    pub fn from_json(json: &str) -> Option<Self> {
        let Value::Object(sources) = serde_json::from_str(json).ok()? else {
            return None;
        };
        let state = |(name, value): (String, Value)| {
            let media_type = match value.get("mediaType").and_then(Value::as_str) {
                Some(text) if text.eq_ignore_ascii_case("audio") => Some(MediaType::Audio),
                Some(text) if text.eq_ignore_ascii_case("video") => Some(MediaType::Video),
                _ => MediaType::of_source_name(&name),
            };
            let video_type = match value.get("videoType").and_then(Value::as_str) {
                None => VideoType::Camera,
                Some(text) if text.eq_ignore_ascii_case("camera") => VideoType::Camera,
                Some(_) => VideoType::Desktop,
            };
            let state = SourceState {
                muted: value.get("muted").and_then(Value::as_bool).unwrap_or(true),
                video_type,
                media_type,
            };
            (name, state)
        };
        Some(Self(sources.into_iter().map(state).collect()))
    }

    /// The JSON text: as clients write it, with `videoType` for screens only.
    pub fn to_json(&self) -> String {
        let sources = self.0.iter().map(|(name, state)| {
            let mut fields = serde_json::Map::new();
            fields.insert("muted".to_owned(), Value::Bool(state.muted));
            if state.video_type == VideoType::Desktop {
                fields.insert("videoType".to_owned(), Value::from("desktop"));
            }
            // Only names that do not tell the medium need it said.
            if let Some(media) = state.media_type
                && MediaType::of_source_name(name) != Some(media)
            {
                fields.insert("mediaType".to_owned(), Value::from(media.as_str()));
            }
            (name.clone(), Value::Object(fields))
        });
        Value::Object(sources.collect()).to_string()
    }
}

/// What an occupant says of itself, and the room of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Occupant {
    /// Items and status codes, from the room.
    pub muc: Option<MucUser>,
    pub caps: Option<Caps>,
    /// The name for people.
    pub nick: Option<String>,
    /// A name for statistics, handed to the bridge.
    pub stats_id: Option<String>,
    pub source_info: Option<SourceInfo>,
    /// Older clients' mute states.
    pub audio_muted: Option<bool>,
    pub video_muted: Option<bool>,
    /// Lower-case codec names in the order of preference.
    pub codecs: Vec<String>,
    pub region: Option<String>,
    /// Features of services; to be trusted of some domains only.
    pub features: Vec<String>,
    pub start_muted: Option<StartMuted>,
    /// The `<status/>` text; `switch_room` of one who moves to a breakout room.
    pub status: Option<String>,
}

impl Occupant {
    /// Reads the children of a presence. What cannot be read is absent.
    pub fn from_presence(presence: &Presence) -> Self {
        let mut occupant = Self {
            muc: presence.payload(),
            caps: presence.payload(),
            nick: presence.payload::<Nick>().map(|nick| nick.name),
            start_muted: presence.payload(),
            ..Self::default()
        };
        for child in &presence.payloads {
            if !child.has_ns(ns::CLIENT) {
                continue;
            }
            match child.name() {
                "stats-id" => occupant.stats_id = Some(child.text()),
                "SourceInfo" => occupant.source_info = SourceInfo::from_json(&child.text()),
                "audiomuted" => occupant.audio_muted = truth(&child.text()),
                "videomuted" => occupant.video_muted = truth(&child.text()),
                "jitsi_participant_codecList" => {
                    occupant.codecs = child
                        .text()
                        .split(',')
                        .map(|codec| codec.trim().to_lowercase())
                        .filter(|codec| !codec.is_empty())
                        .collect();
                }
                "jitsi_participant_region" => occupant.region = Some(child.text()),
                "features" => {
                    occupant.features = child
                        .children()
                        .filter_map(|feature| feature.attr("var"))
                        .map(str::to_owned)
                        .collect();
                }
                "status" => occupant.status = Some(child.text()),
                _ => {}
            }
        }
        occupant
    }

    /// The children a client puts into its presence, in a client's order.
    pub fn payloads(&self) -> Vec<Element> {
        let text = |name, text: &str| {
            let mut element = Element::bare(name, ns::CLIENT);
            element.append_text(text);
            element
        };
        let mut payloads = Vec::new();
        payloads.extend(self.muc.as_ref().map(xml::to_element));
        payloads.extend(self.stats_id.as_deref().map(|id| text("stats-id", id)));
        payloads.extend(self.caps.as_ref().map(xml::to_element));
        if !self.codecs.is_empty() {
            let codecs = self.codecs.join(",");
            payloads.push(text("jitsi_participant_codecList", &codecs));
        }
        let region = self.region.as_deref();
        payloads.extend(region.map(|region| text("jitsi_participant_region", region)));
        payloads.extend(
            self.nick
                .as_ref()
                .map(|name| xml::to_element(&Nick { name: name.clone() })),
        );
        if !self.features.is_empty() {
            let mut features = Element::bare("features", ns::CLIENT);
            for var in &self.features {
                let mut feature = Element::bare("feature", ns::CLIENT);
                xml::set(&mut feature, xml::xml_ncname!("var"), var);
                features.append_child(feature);
            }
            payloads.push(features);
        }
        for (name, muted) in [
            ("audiomuted", self.audio_muted),
            ("videomuted", self.video_muted),
        ] {
            payloads.extend(muted.map(|muted| text(name, &muted.to_string())));
        }
        payloads.extend(self.status.as_deref().map(|status| text("status", status)));
        let info = self.source_info.as_ref();
        payloads.extend(info.map(|info| text("SourceInfo", &info.to_json())));
        payloads.extend(self.start_muted.as_ref().map(xml::to_element));
        payloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_info_has_defaults() {
        let info = SourceInfo::from_json(
            r#"{"e-a0":{"muted":false},"e-v0":{},"e-v1":{"muted":false,"videoType":"desktop"},
                "odd":{"mediaType":"VIDEO","videoType":"CAMERA"},"x":3}"#,
        )
        .expect("an object");
        let state = |muted, video_type, media_type| SourceState {
            muted,
            video_type,
            media_type,
        };
        let (camera, desktop) = (VideoType::Camera, VideoType::Desktop);
        let (audio, video) = (Some(MediaType::Audio), Some(MediaType::Video));
        assert_eq!(info.0["e-a0"], state(false, camera, audio));
        assert_eq!(info.0["e-v0"], state(true, camera, video));
        assert_eq!(info.0["e-v1"], state(false, desktop, video));
        assert_eq!(info.0["odd"], state(true, camera, video));
        assert_eq!(info.0["x"], state(true, camera, None));
        assert_eq!(SourceInfo::from_json(&info.to_json()), Some(info));
        assert_eq!(SourceInfo::from_json("[]"), None);
        assert_eq!(SourceInfo::from_json("{"), None);
        assert_eq!(SourceInfo::from_json("{}"), Some(SourceInfo::default()));
    }

    #[test]
    fn properties_tell_whether_they_changed() {
        let mut properties = ConferenceProperties::default();
        assert!(properties.set(property::BRIDGE_COUNT, "1"));
        assert!(!properties.set(property::BRIDGE_COUNT, "1"));
        assert!(properties.set(property::BRIDGE_COUNT, "0"));
        assert_eq!(properties.get(property::BRIDGE_COUNT), Some("0"));
        assert_eq!(properties.get(property::VISITOR_COUNT), None);
    }

    /// The example of `client-focus` §3.2.
    #[test]
    fn an_occupant_is_read_from_its_presence() {
        let text = r#"<presence xmlns="jabber:client" from="demo@conference.meet.example/abcd1234">
            <stats-id>Elvera-x7Q</stats-id>
            <SourceInfo>{"abcd1234-a0":{"muted":false}}</SourceInfo>
            <jitsi_participant_codecList>AV1, vp9,,h264</jitsi_participant_codecList>
            <jitsi_participant_region>eu-1</jitsi_participant_region>
            <nick xmlns="http://jabber.org/protocol/nick">Alice</nick>
            <audiomuted>true</audiomuted><videomuted>odd</videomuted>
            <features><feature var="https://jitsi.org/meet/e2ee"/><feature/></features>
            <status>switch_room</status><nick>not this</nick>
            <x xmlns="http://jabber.org/protocol/muc#user">
              <item jid="x1@meet.example/r1" affiliation="owner" role="moderator"/>
              <item jid="@" affiliation="new"/><status code="110"/><status code="no"/></x></presence>"#;
        let element = xml::parse(text.as_bytes()).expect("XML");
        let presence = Presence::from_element(&element).expect("a presence");
        let occupant = Occupant::from_presence(&presence);
        assert_eq!(occupant.stats_id.as_deref(), Some("Elvera-x7Q"));
        assert_eq!(occupant.codecs, ["av1", "vp9", "h264"]);
        assert_eq!(occupant.region.as_deref(), Some("eu-1"));
        assert_eq!(occupant.nick.as_deref(), Some("Alice"));
        assert_eq!(occupant.audio_muted, Some(true));
        assert_eq!(occupant.video_muted, None);
        assert_eq!(occupant.features, ["https://jitsi.org/meet/e2ee"]);
        assert_eq!(occupant.status.as_deref(), Some("switch_room"));
        assert!(occupant.caps.is_none());
        let muc = occupant.muc.expect("a room's word");
        assert_eq!(muc.items.len(), 2);
        assert!(muc.items[1].jid.is_none());
        assert!(muc.has_status(110));
        assert_eq!(muc.status_codes().count(), 1);
        assert!(occupant.source_info.is_some());
    }
}
