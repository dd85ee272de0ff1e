//! Bridge control into JSON. What is at its default is left out.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use crate::colibri2::{
    ConferenceModified, ConferenceModify, Endpoint, Media, MediaSource, Relay, Sctp, Sources,
    Transport,
};
use crate::jingle::{self, Candidate, Fingerprint, PayloadType, Source, SsrcGroup, WebSocket};
use crate::xml::ns;

#[derive(Default)]
struct Writer(Map<String, Value>);

impl Writer {
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// A number that is an attribute of the bridge's, and so a string.
    fn attribute(self, key: &str, value: Option<impl Display>) -> Self {
        self.some(key, value.map(|value| value.to_string()))
    }

    fn flag(self, key: &str, value: bool) -> Self {
        self.some(key, value.then_some(true))
    }

    fn list<T>(self, key: &str, entries: &[T], write: impl Fn(&T) -> Value) -> Self {
        let list = || entries.iter().map(write).collect::<Vec<_>>();
        self.some(key, (!entries.is_empty()).then(list))
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

pub(super) fn modify(modify: &ConferenceModify) -> Value {
    Writer::default()
        .put("meeting-id", modify.meeting_id.as_str())
        .some("name", modify.name.as_deref())
        .flag("create", modify.create)
        .flag("expire", modify.expire)
        .some("rtcstats-enabled", modify.rtcstats_enabled)
        .list("endpoints", &modify.endpoints, endpoint)
        .list("relays", &modify.relays, relay)
        .value()
}

pub(super) fn modified(modified: &ConferenceModified) -> Value {
    Writer::default()
        .list("endpoints", &modified.endpoints, endpoint)
        .list("relays", &modified.relays, relay)
        .some("sources", modified.sources.as_ref().map(sources))
        .value()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let force_mute = endpoint.force_mute;
    let last_n = endpoint.initial_last_n.and_then(|n| n.value);
    Writer::default()
        .put("id", endpoint.id.as_str())
        .flag("create", endpoint.create)
        .flag("expire", endpoint.expire)
        .some("stats-id", endpoint.stats_id.as_deref())
        .some("muc-role", endpoint.muc_role.as_deref())
        .list("medias", &endpoint.media, media)
        .some("transport", endpoint.transport.as_ref().map(transport))
        .some("sources", endpoint.sources.as_ref().map(sources))
        .some(
            "force-mute",
            force_mute.map(|mute| json!({"audio": mute.audio, "video": mute.video})),
        )
        .some("initial-last-n", last_n.map(|n| json!({"value": n})))
        .list("capabilities", &endpoint.capabilities, |capability| {
            capability.name.as_str().into()
        })
        .value()
}

fn relay(relay: &Relay) -> Value {
    let endpoints = relay.endpoints.as_ref();
    Writer::default()
        .put("id", relay.id.as_str())
        .flag("create", relay.create)
        .flag("expire", relay.expire)
        .some("mesh-id", relay.mesh_id.as_deref())
        .list("medias", &relay.media, media)
        .some("transport", relay.transport.as_ref().map(transport))
        .some(
            "endpoints",
            endpoints.map(|e| e.endpoints.iter().map(endpoint).collect::<Vec<_>>()),
        )
        .value()
}

fn media(media: &Media) -> Value {
    Writer::default()
        .put("type", media.kind.as_str())
        .list("payload-types", &media.payload_types, payload_type)
        .list(
            "rtp-hdrexts",
            &media.header_extensions,
            |extension| json!({"id": extension.id, "uri": extension.uri}),
        )
        .flag("extmap-allow-mixed", media.extmap_allow_mixed.is_some())
        .value()
}

fn payload_type(codec: &PayloadType) -> Value {
    let parameters = codec.parameters.iter();
    Writer::default()
        .attribute("id", Some(codec.id))
        .put("name", codec.name.as_str())
        .attribute("clockrate", codec.clockrate)
        .attribute("channels", codec.channels)
        .some(
            "parameters",
            pairs(parameters.map(|p| (p.name.as_deref(), p.value.as_str()))),
        )
        .list("rtcp-fbs", &codec.rtcp_fb, |feedback| {
            Writer::default()
                .put("type", feedback.kind.as_str())
                .some("subtype", feedback.subtype.as_deref())
                .value()
        })
        .value()
}

/// The first of each name counts. `None` if there are none.
fn pairs<'a>(
    pairs: impl Iterator<Item = (Option<&'a str>, &'a str)>,
) -> Option<Map<String, Value>> {
    let mut map = Map::new();
    for (name, value) in pairs {
        map.entry(name.unwrap_or("null")).or_insert(value.into());
    }
    (!map.is_empty()).then_some(map)
}

fn transport(transport: &Transport) -> Value {
    Writer::default()
        .flag("ice-controlling", transport.ice_controlling)
        .flag("use-unique-port", transport.use_unique_port)
        .flag("ice-restart", transport.ice_restart)
        .some("transport", transport.ice_udp.as_ref().map(ice_udp))
        .some("sctp", transport.sctp.as_ref().map(sctp))
        .value()
}

fn sctp(sctp: &Sctp) -> Value {
    let role = sctp.role.as_ref().map(|role| role.to_ascii_uppercase());
    Writer::default()
        .some("role", role)
        .some("port", sctp.port)
        .value()
}

fn ice_udp(transport: &jingle::Transport) -> Value {
    let web_sockets = transport.web_sockets.iter().filter_map(web_socket);
    let web_sockets: Vec<Value> = web_sockets.map(Value::from).collect();
    Writer::default()
        .put("xmlns", ns::ICE_UDP)
        .some("ufrag", transport.ufrag.as_deref())
        .some("pwd", transport.pwd.as_deref())
        .attribute("ice-generation", transport.ice_generation)
        .flag("rtcp-mux", transport.rtcp_mux)
        .list("fingerprints", &transport.fingerprints, fingerprint)
        .list("web-sockets", &web_sockets, Value::clone)
        .list("candidates", &transport.candidates, candidate)
        .value()
}

fn web_socket(web_socket: &WebSocket) -> Option<&str> {
    match web_socket.active {
        Some(true) => Some("active"),
        _ => web_socket.url.as_deref(),
    }
}

fn fingerprint(fingerprint: &Fingerprint) -> Value {
    let setup = fingerprint.setup.as_ref();
    Writer::default()
        .put("fingerprint", fingerprint.value.as_str())
        .put("hash", fingerprint.hash.as_str())
        .some("setup", setup.map(|setup| setup.as_str()))
        .attribute("required", fingerprint.required)
        .some("cryptex", fingerprint.cryptex)
        .value()
}

fn candidate(candidate: &Candidate) -> Value {
    Writer::default()
        .attribute("component", candidate.component)
        .some("foundation", candidate.foundation.as_deref())
        .attribute("generation", candidate.generation)
        .some("id", candidate.id.as_deref())
        .some("ip", candidate.ip.as_deref())
        .attribute("network", candidate.network)
        .attribute("port", candidate.port)
        .attribute("priority", candidate.priority)
        .some("protocol", candidate.protocol.as_deref())
        .some("rel-addr", candidate.rel_addr.as_deref())
        .attribute("rel-port", candidate.rel_port)
        .some("tcptype", candidate.tcptype.as_deref())
        .some("type", candidate.kind.as_ref().map(|kind| kind.as_str()))
        .value()
}

/// Always stands, since an empty set takes away what there was.
fn sources(sources: &Sources) -> Value {
    sources.media_sources.iter().map(media_source).collect()
}

fn media_source(media: &MediaSource) -> Value {
    Writer::default()
        .put("type", media.kind.as_str())
        .put("id", media.id.as_str())
        .flag("synthetic", media.synthetic)
        .list("sources", &media.sources, source)
        .list("ssrc-groups", &media.ssrc_groups, ssrc_group)
        .value()
}

/// A bare number where there is nothing but the SSRC.
fn source(source: &Source) -> Value {
    let parameters = source.parameters.iter();
    let writer = Writer::default()
        .some("name", source.name.as_deref())
        .some("rid", source.rid.as_deref())
        .some("videoType", source.video_type.as_deref())
        .some(
            "parameters",
            pairs(parameters.map(|p| (p.name.as_deref(), p.value.as_str()))),
        );
    if writer.0.is_empty() {
        return source.ssrc.into();
    }
    writer.put("ssrc", source.ssrc).value()
}

fn ssrc_group(group: &SsrcGroup) -> Value {
    let ssrcs: Vec<u32> = group.sources.iter().map(|source| source.ssrc).collect();
    json!({"semantics": group.semantics.as_str(), "sources": ssrcs})
}
