//! Messages to clients, in the bytes of JVB.

use std::fmt::{self, Display, Write};

use serde_json::value::RawValue;

use crate::id::{EndpointId, SourceName};

/// The first message on a WebSocket.
pub fn server_hello() -> String {
    r#"{"colibriClass":"ServerHello"}"#.into()
}

/// The names of all sources that are being forwarded.
pub fn forwarded_sources<'a>(sources: impl Iterator<Item = &'a SourceName>) -> String {
    let names = list(sources.map(|name| &*name.0));
    format!(r#"{{"colibriClass":"ForwardedSources","forwardedSources":{names}}}"#)
}

/// The same for clients of before 2022, by endpoint.
pub fn last_n_endpoints<'a>(endpoints: impl Iterator<Item = &'a EndpointId>) -> String {
    let names = list(endpoints.map(|id| &*id.0));
    format!(r#"{{"colibriClass":"LastNEndpointsChangeEvent","lastNEndpoints":{names}}}"#)
}

/// The greatest height anyone wants of one of the client's sources.
pub fn sender_source_constraints(source: &SourceName, max_height: i32) -> String {
    let name = Quoted(&source.0);
    // The spaces are JVB's.
    format!(
        r#"{{"colibriClass":"SenderSourceConstraints", "sourceName":{name}, "maxHeight":{max_height}}}"#
    )
}

/// The same for clients of before 2022, which have one video.
pub fn sender_video_constraints(max_height: i32) -> String {
    format!(
        r#"{{"colibriClass":"SenderVideoConstraints","videoConstraints":{{"idealHeight":{max_height}}}}}"#
    )
}

/// Who speaks, and who did before, newest first.
pub fn dominant_speaker<'a>(
    dominant: &EndpointId,
    previous: impl Iterator<Item = &'a EndpointId>,
) -> String {
    let dominant = Quoted(&dominant.0);
    let previous = list(previous.map(|id| &*id.0));
    format!(
        r#"{{"colibriClass":"DominantSpeakerEndpointChangeEvent","dominantSpeakerEndpoint":{dominant},"previousSpeakers":{previous},"silence":false}}"#
    )
}

/// Whether an endpoint is still there.
pub fn connectivity(endpoint: &EndpointId, active: bool) -> String {
    let endpoint = Quoted(&endpoint.0);
    format!(
        r#"{{"colibriClass":"EndpointConnectivityStatusChangeEvent","endpoint":{endpoint},"active":"{active}"}}"#
    )
}

/// An `EndpointMessage` with its true sender, other fields as they came.
pub(super) fn endpoint_message(from: &EndpointId, fields: &[(String, &RawValue)]) -> String {
    let to = fields.iter().find(|(name, _)| name == "to");
    let mut text = format!(
        r#"{{"colibriClass":"EndpointMessage","to":{},"from":{}"#,
        to.map_or(r#""""#, |(_, value)| value.get()),
        Quoted(&from.0)
    );
    append(&mut text, fields, &["colibriClass", "to", "from"]);
    text
}

/// An `EndpointStats` with its true sender, other fields as they came.
pub(super) fn endpoint_stats(from: &EndpointId, fields: &[(String, &RawValue)]) -> String {
    let from = Quoted(&from.0);
    let mut text = format!(r#"{{"colibriClass":"EndpointStats","from":{from}"#);
    append(&mut text, fields, &["colibriClass", "from"]);
    text
}

fn append(text: &mut String, fields: &[(String, &RawValue)], but: &[&str]) {
    for (name, value) in fields {
        if !but.contains(&name.as_str()) {
            write!(text, ",{}:{}", Quoted(name), value.get()).expect("a String takes all");
        }
    }
    text.push('}');
}

/// A JSON string.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

/// A JSON array of strings.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::from("[");
    for (i, name) in names.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(text, "{comma}{}", Quoted(name)).expect("a String takes all");
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_recordings() {
        let source = SourceName::from("824ee855-v0");
        let other = SourceName::from("1d64f272-v0");
        let endpoint = EndpointId::from("46adc5a0");
        for (text, expected) in [
            (server_hello(), r#"{"colibriClass":"ServerHello"}"#),
            (
                forwarded_sources([].into_iter()),
                r#"{"colibriClass":"ForwardedSources","forwardedSources":[]}"#,
            ),
            (
                forwarded_sources([&source, &other].into_iter()),
                r#"{"colibriClass":"ForwardedSources","forwardedSources":["824ee855-v0","1d64f272-v0"]}"#,
            ),
            (
                sender_source_constraints(&source, 180),
                r#"{"colibriClass":"SenderSourceConstraints", "sourceName":"824ee855-v0", "maxHeight":180}"#,
            ),
            (
                dominant_speaker(&endpoint, [&EndpointId::from("824ee855")].into_iter()),
                r#"{"colibriClass":"DominantSpeakerEndpointChangeEvent","dominantSpeakerEndpoint":"46adc5a0","previousSpeakers":["824ee855"],"silence":false}"#,
            ),
            (
                connectivity(&endpoint, false),
                r#"{"colibriClass":"EndpointConnectivityStatusChangeEvent","endpoint":"46adc5a0","active":"false"}"#,
            ),
            (
                sender_video_constraints(360),
                r#"{"colibriClass":"SenderVideoConstraints","videoConstraints":{"idealHeight":360}}"#,
            ),
            (
                last_n_endpoints([&endpoint].into_iter()),
                r#"{"colibriClass":"LastNEndpointsChangeEvent","lastNEndpoints":["46adc5a0"]}"#,
            ),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let text = connectivity(&EndpointId::from("a\",\"active\":\"true"), false);
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["active"], "false");
    }
}
