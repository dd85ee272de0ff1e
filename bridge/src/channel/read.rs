//! From the text of a message to what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::AudioSubscription;
use super::write;
use crate::allocation::{Constraint, Constraints};
use crate::command::VideoType;
use crate::id::EndpointId;
use crate::settings::ShardSettings;

/// Octets of a message; more is refused (the default of JVB's web server).
pub const MAX_MESSAGE: usize = 65_536;
/// Names in a list, or constraints by name; the rest is ignored.
const MAX_NAMES: usize = 1000;
/// Octets of a name; longer ones name nothing.
const MAX_NAME: usize = 256;

/// Why a message was refused. The peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// More than [`MAX_MESSAGE`] octets.
    #[error("{0} octets are more than a message may have")]
    TooLarge(usize),
    /// Not one JSON object, or nested deeper than is read.
    #[error("not a JSON object")]
    NotAnObject,
    /// No `colibriClass`, or one that is not known.
    #[error("unknown or missing colibriClass")]
    UnknownClass,
    /// A field without which the message means nothing is missing or wrong.
    #[error("{0} is missing or of the wrong type")]
    Field(&'static str),
}

/// A message from a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    ClientHello,
    VideoConstraints(Box<VideoConstraints>),
    LastN(i32),
    SourceVideoType {
        source: String,
        video_type: VideoType,
    },
    /// The deprecated form without a source name.
    VideoType(VideoType),
    AudioSubscription(AudioSubscription),
    /// To one endpoint, or to all others if `to` is empty. `text` is the
    /// message with its sender filled in.
    EndpointMessage {
        to: String,
        text: String,
    },
    /// To all others. `text` is the message with its sender filled in.
    EndpointStats {
        text: String,
    },
    /// Clients of before 2022: endpoints, and the height for those.
    SelectedEndpoints(Vec<String>),
    FrameHeight(i32),
}

/// `ReceiverVideoConstraints`: what is `None` stays as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VideoConstraints {
    pub last_n: Option<i32>,
    pub on_stage: Option<Vec<String>>,
    pub selected: Option<Vec<String>>,
    pub default: Option<Constraint>,
    pub constraints: Option<BTreeMap<String, Constraint>>,
    pub assumed_bandwidth: Option<i64>,
    /// The form of before 2022, which names endpoints.
    pub by_endpoint: bool,
}

impl VideoConstraints {
    /// Applies the message to what the receiver asked for before.
    pub fn apply(self, to: &mut Constraints, settings: &ShardSettings) {
        if !to.spoken && self.default.is_none() {
            to.default = Constraint::height(settings.default_max_height);
        }
        to.spoken = true;
        let set = |field: &mut i32, value: Option<i32>| *field = value.unwrap_or(*field);
        set(&mut to.last_n, self.last_n);
        to.on_stage = self
            .on_stage
            .unwrap_or_else(|| std::mem::take(&mut to.on_stage));
        to.selected = self
            .selected
            .unwrap_or_else(|| std::mem::take(&mut to.selected));
        to.default = self.default.unwrap_or(to.default);
        to.constraints = self
            .constraints
            .unwrap_or_else(|| std::mem::take(&mut to.constraints));
        to.assumed_bandwidth = self.assumed_bandwidth.unwrap_or(to.assumed_bandwidth);
    }
}

/// Reads a message of the endpoint `from`.
pub fn parse(text: &str, from: &EndpointId) -> Result<Incoming, ChannelError> {
    if text.len() > MAX_MESSAGE {
        return Err(ChannelError::TooLarge(text.len()));
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| ChannelError::NotAnObject)?;
    let class: String = fields
        .get("colibriClass")
        .ok_or(ChannelError::UnknownClass)?;
    Ok(match class.as_str() {
        "ClientHello" => Incoming::ClientHello,
        "ReceiverVideoConstraints" => Incoming::VideoConstraints(Box::new(VideoConstraints {
            last_n: fields.get("lastN").map(|n: f64| n as i32),
            on_stage: fields
                .names("onStageSources")
                .or(fields.names("onStageEndpoints")),
            selected: fields
                .names("selectedSources")
                .or(fields.names("selectedEndpoints")),
            default: fields.get("defaultConstraints").map(WireConstraint::read),
            constraints: fields
                .get("constraints")
                .map(|map: BTreeMap<String, WireConstraint>| {
                    map.into_iter()
                        .filter(|(name, _)| name.len() <= MAX_NAME)
                        .take(MAX_NAMES)
                        .map(|(name, constraint)| (name, constraint.read()))
                        .collect()
                }),
            assumed_bandwidth: fields.get("assumedBandwidthBps").map(|bps: f64| bps as i64),
            by_endpoint: fields.has("onStageEndpoints") || fields.has("selectedEndpoints"),
        })),
        "LastNChangedEvent" => {
            let last_n: f64 = fields.get("lastN").ok_or(ChannelError::Field("lastN"))?;
            Incoming::LastN(last_n as i32)
        }
        "SourceVideoTypeMessage" => Incoming::SourceVideoType {
            source: fields
                .get("sourceName")
                .filter(|name: &String| name.len() <= MAX_NAME)
                .ok_or(ChannelError::Field("sourceName"))?,
            video_type: fields.video_type()?,
        },
        "VideoTypeMessage" => Incoming::VideoType(fields.video_type()?),
        "ReceiverAudioSubscription" => Incoming::AudioSubscription(fields.audio_subscription()?),
        "EndpointMessage" => Incoming::EndpointMessage {
            to: fields.get("to").ok_or(ChannelError::Field("to"))?,
            text: write::endpoint_message(from, &fields.0),
        },
        "EndpointStats" => Incoming::EndpointStats {
            text: write::endpoint_stats(from, &fields.0),
        },
        "SelectedEndpointsChangedEvent" => Incoming::SelectedEndpoints(
            fields
                .names("selectedEndpoints")
                .ok_or(ChannelError::Field("selectedEndpoints"))?,
        ),
        "ReceiverVideoConstraint" => {
            let height: f64 = fields
                .get("maxFrameHeight")
                .ok_or(ChannelError::Field("maxFrameHeight"))?;
            Incoming::FrameHeight(height as i32)
        }
        _ => return Err(ChannelError::UnknownClass),
    })
}

/// The fields of a message in their order, their values as they were written.
pub(super) struct Fields<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl Fields<'_> {
    fn raw(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| *value)
    }

    fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The value of a field; `None` if it is absent or of another type.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    fn names(&self, name: &str) -> Option<Vec<String>> {
        let mut names: Vec<String> = self.get(name)?;
        names.retain(|name| name.len() <= MAX_NAME);
        names.truncate(MAX_NAMES);
        Some(names)
    }

    fn video_type(&self) -> Result<VideoType, ChannelError> {
        let name: String = self
            .get("videoType")
            .ok_or(ChannelError::Field("videoType"))?;
        match name.to_ascii_lowercase().as_str() {
            "camera" => Ok(VideoType::Camera),
            "desktop" => Ok(VideoType::Desktop),
            "desktop_high_fps" => Ok(VideoType::DesktopHighFps),
            "none" => Ok(VideoType::None),
            _ => Err(ChannelError::Field("videoType")),
        }
    }

    fn audio_subscription(&self) -> Result<AudioSubscription, ChannelError> {
        let set = |name| -> BTreeSet<String> {
            self.names(name).unwrap_or_default().into_iter().collect()
        };
        let Some(mode) = self.get::<String>("mode") else {
            return Ok(AudioSubscription {
                all: self.get("all").unwrap_or(false),
                include: set("include"),
                exclude: set("exclude"),
            });
        };
        let (all, include, exclude) = match mode.to_ascii_lowercase().as_str() {
            "all" => (true, BTreeSet::new(), BTreeSet::new()),
            "none" => (false, BTreeSet::new(), BTreeSet::new()),
            "include" => (false, set("list"), BTreeSet::new()),
            "exclude" => (true, BTreeSet::new(), set("list")),
            _ => return Err(ChannelError::Field("mode")),
        };
        Ok(AudioSubscription {
            all,
            include,
            exclude,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A constraint as it is written; what is absent is unlimited.
#[derive(Deserialize)]
struct WireConstraint {
    #[serde(rename = "maxHeight")]
    max_height: Option<f64>,
    #[serde(rename = "maxFrameRate")]
    max_frame_rate: Option<f64>,
}

impl WireConstraint {
    fn read(self) -> Constraint {
        Constraint {
            max_height: self.max_height.map_or(-1, |height| height as i32),
            max_frame_rate: self.max_frame_rate.unwrap_or(-1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Incoming, ChannelError> {
        parse(text, &EndpointId::from("caf0ac19"))
    }

    fn constraints(texts: &[&str]) -> Constraints {
        let settings = ShardSettings::default();
        let mut constraints = Constraints::initial(&settings);
        for text in texts {
            let Ok(Incoming::VideoConstraints(message)) = read(text) else {
                panic!("not read: {text}");
            };
            message.apply(&mut constraints, &settings);
        }
        constraints
    }

    #[test]
    fn the_first_message_of_a_client_sets_180_and_keeps_its_other_fields() {
        let first =
            r#"{"colibriClass":"ReceiverVideoConstraints","assumedBandwidthBps":-1,"lastN":-1}"#;
        let after = constraints(&[first]);
        assert_eq!(after.default, Constraint::height(180));
        assert_eq!((after.last_n, after.assumed_bandwidth), (-1, -1));
        let second = r#"{"colibriClass":"ReceiverVideoConstraints","lastN":1}"#;
        let third = r#"{"colibriClass":"ReceiverVideoConstraints","defaultConstraints":{"maxHeight":720},"futureField":[{}]}"#;
        let after = constraints(&[first, second, third]);
        assert_eq!(after.default, Constraint::height(720));
        assert_eq!(after.last_n, 1);
    }

    #[test]
    fn constraints_replace_the_whole_map_when_present() {
        let full = r#"{"colibriClass":"ReceiverVideoConstraints","assumedBandwidthBps":-1,"lastN":25,
            "onStageSources":["a1b2c3d4-v0"],"selectedSources":["x"],"defaultConstraints":{"maxHeight":0},
            "constraints":{"a1b2c3d4-v0":{"maxHeight":720},"e5f6a7b8-v0":{"maxHeight":180,"maxFrameRate":-1}}}"#;
        let after = constraints(&[full]);
        assert_eq!(after.on_stage, ["a1b2c3d4-v0"]);
        assert_eq!(after.constraints.len(), 2);
        assert_eq!(after.constraints["a1b2c3d4-v0"], Constraint::height(720));
        let other = r#"{"colibriClass":"ReceiverVideoConstraints","onStageSources":[],"constraints":{"b":{"maxHeight":90}}}"#;
        let after = constraints(&[full, other]);
        assert_eq!(after.constraints.len(), 1);
        assert!(after.on_stage.is_empty());
        assert_eq!(after.selected, ["x"]);
    }

    #[test]
    fn the_form_of_older_clients_is_read_and_known_as_such() {
        let old = r#"{"colibriClass":"ReceiverVideoConstraints","constraints":{"b":{"maxHeight":2160}},
            "defaultConstraints":{"maxHeight":180},"lastN":-1,"onStageEndpoints":["b"],"selectedEndpoints":[]}"#;
        let Ok(Incoming::VideoConstraints(message)) = read(old) else {
            panic!("not read");
        };
        assert!(message.by_endpoint);
        assert_eq!(message.on_stage, Some(vec!["b".to_owned()]));
        for (text, expected) in [
            (
                r#"{"colibriClass":"SelectedEndpointsChangedEvent","selectedEndpoints":["b"]}"#,
                Incoming::SelectedEndpoints(vec!["b".into()]),
            ),
            (
                r#"{"colibriClass":"ReceiverVideoConstraint","maxFrameHeight":2160}"#,
                Incoming::FrameHeight(2160),
            ),
            (
                r#"{"colibriClass":"LastNChangedEvent","lastN":10}"#,
                Incoming::LastN(10),
            ),
            (
                r#"{"colibriClass":"VideoTypeMessage","videoType":"DESKTOP"}"#,
                Incoming::VideoType(VideoType::Desktop),
            ),
        ] {
            assert_eq!(read(text), Ok(expected));
        }
    }

    #[test]
    fn endpoint_messages_get_their_sender_and_nothing_else_changes() {
        let text = r#"{"colibriClass":"EndpointMessage","msgPayload":{"type":"acceptance","n":[1.50,null],"b":1,"a":2},"to":"","from":"forged"}"#;
        assert_eq!(
            read(text),
            Ok(Incoming::EndpointMessage {
                to: String::new(),
                text: r#"{"colibriClass":"EndpointMessage","to":"","from":"caf0ac19","msgPayload":{"type":"acceptance","n":[1.50,null],"b":1,"a":2}}"#.into(),
            })
        );
        let text =
            r#"{"colibriClass":"EndpointStats","bitrate":{"download":0},"serverRegion":null}"#;
        assert_eq!(
            read(text),
            Ok(Incoming::EndpointStats {
                text: r#"{"colibriClass":"EndpointStats","from":"caf0ac19","bitrate":{"download":0},"serverRegion":null}"#.into(),
            })
        );
    }

    #[test]
    fn audio_subscriptions_old_and_new() {
        for (text, wanted) in [
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","all":true,"include":[],"exclude":["b"]}"#,
                [true, false],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","include":["b"]}"#,
                [false, true],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","all":true}"#,
                [true, true],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","mode":"All"}"#,
                [true, true],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","mode":"None"}"#,
                [false, false],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","mode":"Include","list":["a"]}"#,
                [true, false],
            ),
            (
                r#"{"colibriClass":"ReceiverAudioSubscription","mode":"Exclude","list":["a"]}"#,
                [false, true],
            ),
        ] {
            let Ok(Incoming::AudioSubscription(subscription)) = read(text) else {
                panic!("not read: {text}");
            };
            assert_eq!(
                ["a", "b"].map(|name| subscription.wants(name)),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let large = format!(
            r#"{{"colibriClass":"EndpointMessage","to":"{}"}}"#,
            "x".repeat(MAX_MESSAGE)
        );
        let deep = format!(r#"{{"a":{}}}"#, "[".repeat(10_000));
        for (text, error) in [
            (large.as_str(), ChannelError::TooLarge(large.len())),
            (deep.as_str(), ChannelError::NotAnObject),
            ("", ChannelError::NotAnObject),
            ("[]", ChannelError::NotAnObject),
            ("{}", ChannelError::UnknownClass),
            (r#"{"colibriClass":"Nonsense"}"#, ChannelError::UnknownClass),
            (r#"{"colibriClass":7}"#, ChannelError::UnknownClass),
            (
                r#"{"colibriClass":"LastNChangedEvent","lastN":"1"}"#,
                ChannelError::Field("lastN"),
            ),
            (
                r#"{"colibriClass":"EndpointMessage"}"#,
                ChannelError::Field("to"),
            ),
            (
                r#"{"colibriClass":"SourceVideoTypeMessage","sourceName":"a","videoType":"hologram"}"#,
                ChannelError::Field("videoType"),
            ),
        ] {
            assert_eq!(read(text), Err(error));
        }
    }
}
