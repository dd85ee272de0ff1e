//! Messages of the bridge channel (media.md §7), as far as a client without a
//! picture on a screen sends and reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a participant sends.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "colibriClass")]
pub enum Outgoing {
    #[serde(rename_all = "camelCase")]
    SourceVideoTypeMessage {
        source_name: String,
        video_type: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    ReceiverVideoConstraints {
        last_n: i32,
        assumed_bandwidth_bps: i64,
        default_constraints: MaxHeight,
        /// Of sources by name; replaces all that was said before.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        constraints: BTreeMap<String, MaxHeight>,
    },
    #[serde(rename_all = "camelCase")]
    EndpointStats { connection_quality: u8 },
}

/// A limit in lines; -1 is none, 0 no video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaxHeight {
    pub max_height: i32,
}

impl Outgoing {
    /// The text frame.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data has a JSON form")
    }
}

/// What a participant acts on; all else is [`Incoming::Other`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "colibriClass")]
pub enum Incoming {
    ServerHello {},
    #[serde(rename_all = "camelCase")]
    SenderSourceConstraints {
        source_name: String,
        max_height: i32,
    },
    #[serde(rename_all = "camelCase")]
    ForwardedSources {
        forwarded_sources: Vec<String>,
    },
    #[serde(rename_all = "camelCase")]
    DominantSpeakerEndpointChangeEvent {
        dominant_speaker_endpoint: String,
    },
    #[serde(other)]
    Other,
}

impl Incoming {
    /// Reads a text frame. `None` if it is no message.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_messages_are_read() {
        for (text, expected) in [
            (
                r#"{"colibriClass":"ServerHello"}"#,
                Incoming::ServerHello {},
            ),
            (
                r#"{"colibriClass":"SenderSourceConstraints", "sourceName":"caf0ac19-v0", "maxHeight":180}"#,
                Incoming::SenderSourceConstraints {
                    source_name: "caf0ac19-v0".to_owned(),
                    max_height: 180,
                },
            ),
            (
                r#"{"colibriClass":"ForwardedSources","forwardedSources":["1d4ade0e-v0"]}"#,
                Incoming::ForwardedSources {
                    forwarded_sources: vec!["1d4ade0e-v0".to_owned()],
                },
            ),
            (
                r#"{"colibriClass":"DominantSpeakerEndpointChangeEvent","dominantSpeakerEndpoint":"caf0ac19","previousSpeakers":[],"silence":false}"#,
                Incoming::DominantSpeakerEndpointChangeEvent {
                    dominant_speaker_endpoint: "caf0ac19".to_owned(),
                },
            ),
            (
                r#"{"colibriClass":"ConnectionStats","estimatedDownlinkBandwidth":20000000}"#,
                Incoming::Other,
            ),
        ] {
            assert_eq!(Incoming::from_json(text), Some(expected), "{text}");
        }
        assert_eq!(Incoming::from_json("{}"), None);
        assert_eq!(Incoming::from_json("no"), None);
    }

    #[test]
    fn messages_are_written_as_clients_write_them() {
        let constraints = Outgoing::ReceiverVideoConstraints {
            last_n: -1,
            assumed_bandwidth_bps: -1,
            default_constraints: MaxHeight { max_height: 720 },
            constraints: BTreeMap::new(),
        };
        assert_eq!(
            constraints.to_json(),
            r#"{"colibriClass":"ReceiverVideoConstraints","lastN":-1,"assumedBandwidthBps":-1,"defaultConstraints":{"maxHeight":720}}"#
        );
        let screen = Outgoing::ReceiverVideoConstraints {
            last_n: -1,
            assumed_bandwidth_bps: -1,
            default_constraints: MaxHeight { max_height: 180 },
            constraints: [("caf0ac19-v1".to_owned(), MaxHeight { max_height: 2160 })].into(),
        };
        assert!(
            screen
                .to_json()
                .ends_with(r#","constraints":{"caf0ac19-v1":{"maxHeight":2160}}}"#)
        );
        let video_type = Outgoing::SourceVideoTypeMessage {
            source_name: "caf0ac19-v0".to_owned(),
            video_type: "camera",
        };
        assert_eq!(
            video_type.to_json(),
            r#"{"colibriClass":"SourceVideoTypeMessage","sourceName":"caf0ac19-v0","videoType":"camera"}"#
        );
    }
}
