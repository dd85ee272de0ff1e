//! JSON into bridge control.

use serde_json::Value;

use super::JsonError;
use super::object::{Object, number, text};
use crate::colibri2::{
    Capability, ConferenceModified, ConferenceModify, Endpoint, Endpoints, ForceMute, InitialLastN,
    Media, MediaSource, MediaType, Relay, Sctp, Sources, Transport,
};
use crate::jingle::ssma::{Semantics, SourceParameter};
use crate::jingle::transport::{CandidateType, Setup};
use crate::jingle::{
    self, Candidate, ExtmapAllowMixed, Fingerprint, HeaderExtension, Parameter, PayloadType,
    RtcpFb, Source, SsrcGroup, WebSocket,
};
use crate::xml::ns;

type Read<T> = Result<T, JsonError>;

pub(super) fn modify(meeting_id: String, o: Object<'_>) -> Read<ConferenceModify> {
    Ok(ConferenceModify {
        meeting_id,
        name: o.text("name")?,
        create: o.flag("create")?.unwrap_or(false),
        expire: o.flag("expire")?.unwrap_or(false),
        rtcstats_enabled: o.flag("rtcstats-enabled")?,
        trace_parent: None,
        endpoints: o.list("endpoints", endpoint)?,
        relays: o.list("relays", relay)?,
    })
}

pub(super) fn modified(o: Object<'_>) -> Read<ConferenceModified> {
    Ok(ConferenceModified {
        endpoints: o.list("endpoints", endpoint)?,
        relays: o.list("relays", relay)?,
        sources: sources(o)?,
    })
}

fn endpoint(o: Object<'_>) -> Read<Endpoint> {
    let capability = |value: &Value| text(value).map(|name| Capability { name });
    Ok(Endpoint {
        id: o.required("id")?,
        create: o.flag("create")?.unwrap_or(false),
        expire: o.flag("expire")?.unwrap_or(false),
        stats_id: o.text("stats-id")?,
        muc_role: o.text("muc-role")?,
        media: o.list("medias", media)?,
        transport: o.object("transport", transport)?,
        sources: sources(o)?,
        force_mute: o.object("force-mute", force_mute)?,
        initial_last_n: o.object("initial-last-n", initial_last_n)?,
        capabilities: o.values("capabilities", capability)?.unwrap_or_default(),
    })
}

fn relay(o: Object<'_>) -> Read<Relay> {
    let endpoints = o.values("endpoints", |value| endpoint(Object::of(value)?))?;
    Ok(Relay {
        id: o.required("id")?,
        create: o.flag("create")?.unwrap_or(false),
        expire: o.flag("expire")?.unwrap_or(false),
        mesh_id: o.text("mesh-id")?,
        media: o.list("medias", media)?,
        transport: o.object("transport", transport)?,
        endpoints: endpoints.map(|endpoints| Endpoints { endpoints }),
    })
}

fn force_mute(o: Object<'_>) -> Read<ForceMute> {
    Ok(ForceMute {
        audio: o.flag("audio")?.unwrap_or(false),
        video: o.flag("video")?.unwrap_or(false),
    })
}

fn initial_last_n(o: Object<'_>) -> Read<InitialLastN> {
    Ok(InitialLastN {
        value: Some(o.required_number("value")?),
    })
}

fn media(o: Object<'_>) -> Read<Media> {
    Ok(Media {
        kind: MediaType::from(o.required("type")?.as_str()),
        payload_types: o.list("payload-types", payload_type)?,
        header_extensions: o.list("rtp-hdrexts", header_extension)?,
        extmap_allow_mixed: o
            .flag("extmap-allow-mixed")?
            .unwrap_or(false)
            .then_some(ExtmapAllowMixed),
    })
}

fn payload_type(o: Object<'_>) -> Read<PayloadType> {
    Ok(PayloadType {
        id: o.required_number("id")?,
        name: o.text("name")?.unwrap_or_default(),
        clockrate: o.number("clockrate")?,
        channels: o.number("channels")?,
        parameters: o.pairs("parameters", parameter)?,
        rtcp_fb: o.list("rtcp-fbs", |o| {
            Ok(RtcpFb {
                kind: o.required("type")?,
                subtype: o.text("subtype")?,
            })
        })?,
    })
}

/// That of RED has no name, for which JSON has a word.
fn parameter(name: &str, value: String) -> Parameter {
    let name = (name != "null").then(|| name.to_owned());
    Parameter { name, value }
}

fn header_extension(o: Object<'_>) -> Read<HeaderExtension> {
    Ok(HeaderExtension {
        id: o.required_number("id")?,
        uri: o.required("uri")?,
    })
}

fn transport(o: Object<'_>) -> Read<Transport> {
    Ok(Transport {
        ice_controlling: o.flag("ice-controlling")?.unwrap_or(false),
        use_unique_port: o.flag("use-unique-port")?.unwrap_or(false),
        ice_restart: o.flag("ice-restart")?.unwrap_or(false),
        ice_udp: o.object("transport", ice_udp)?,
        sctp: o.object("sctp", sctp)?,
    })
}

fn sctp(o: Object<'_>) -> Read<Sctp> {
    Ok(Sctp {
        role: o.text("role")?.map(|role| role.to_ascii_lowercase()),
        port: o.number("port")?,
    })
}

fn ice_udp(o: Object<'_>) -> Read<jingle::Transport> {
    if o.text("xmlns")?.is_none_or(|xmlns| xmlns != ns::ICE_UDP) {
        return Err(JsonError::shape("xmlns of ICE over UDP"));
    }
    let web_sockets = o.values("web-sockets", |value| text(value).map(web_socket))?;
    Ok(jingle::Transport {
        ufrag: o.text("ufrag")?,
        pwd: o.text("pwd")?,
        ice_generation: o.number("ice-generation")?,
        rtcp_mux: o.flag_or_word("rtcp-mux")?.unwrap_or(false),
        fingerprints: o.list("fingerprints", fingerprint)?,
        sctp_maps: Vec::new(),
        web_sockets: web_sockets.unwrap_or_default(),
        candidates: o.list("candidates", candidate)?,
    })
}

fn fingerprint(o: Object<'_>) -> Read<Fingerprint> {
    Ok(Fingerprint {
        hash: o.text("hash")?.unwrap_or_default(),
        setup: o.text("setup")?.map(|word| Setup::from(word.as_str())),
        required: o.flag_or_word("required")?,
        cryptex: o.flag_or_word("cryptex")?,
        value: o.required("fingerprint")?,
    })
}

fn web_socket(text: String) -> WebSocket {
    match text.as_str() {
        "active" => WebSocket {
            url: None,
            active: Some(true),
        },
        _ => WebSocket {
            url: Some(text),
            active: None,
        },
    }
}

fn candidate(o: Object<'_>) -> Read<Candidate> {
    Ok(Candidate {
        component: o.number("component")?,
        foundation: o.text_or_number("foundation")?,
        generation: o.number("generation")?,
        id: o.text_or_number("id")?,
        ip: o.text("ip")?,
        network: o.number("network")?,
        port: o.number("port")?,
        priority: o.number("priority")?,
        protocol: o.text("protocol")?,
        rel_addr: o.text("rel-addr")?,
        rel_port: o.number("rel-port")?,
        tcptype: o.text("tcptype")?,
        kind: o.text("type")?.map(|w| CandidateType::from(w.as_str())),
    })
}

fn sources(o: Object<'_>) -> Read<Option<Sources>> {
    let sources = o.values("sources", |value| media_source(Object::of(value)?))?;
    Ok(sources.map(|media_sources| Sources { media_sources }))
}

fn media_source(o: Object<'_>) -> Read<MediaSource> {
    Ok(MediaSource {
        kind: MediaType::from(o.required("type")?.as_str()),
        id: o.required("id")?,
        synthetic: o.flag("synthetic")?.unwrap_or(false),
        sources: o.values("sources", source)?.unwrap_or_default(),
        ssrc_groups: o.list("ssrc-groups", |o| {
            Ok(SsrcGroup {
                semantics: Semantics::from(o.required("semantics")?.as_str()),
                sources: o.values("sources", source)?.unwrap_or_default(),
            })
        })?,
    })
}

/// A source, or its SSRC alone.
fn source(value: &Value) -> Read<Source> {
    if !value.is_object() {
        return number(value).map(Source::bare);
    }
    let o = Object::of(value)?;
    Ok(Source {
        ssrc: o.required_number("ssrc")?,
        name: o.text("name")?,
        rid: o.text("rid")?,
        video_type: o.text("videoType")?,
        parameters: o.pairs("parameters", |name, value| {
            SourceParameter::from(parameter(name, value))
        })?,
        info: None,
    })
}
