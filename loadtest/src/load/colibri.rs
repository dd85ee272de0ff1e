//! What a load asks of a bridge: the requests a focus would send for its
//! members (`focus-bridge` §2, §3), and what is read from the answers.

use viaduct_signalling::colibri2::{
    Capability, ConferenceModified, ConferenceModify, Endpoint, InitialLastN, Media, MediaType,
    Sctp, Sources, Transport, capability,
};
use viaduct_signalling::jingle::transport::Setup;
use viaduct_signalling::jingle::{
    self, ExtmapAllowMixed, Fingerprint, HeaderExtension, PayloadType,
};
use viaduct_signalling::sources::EndpointSources;

use super::{Channel, Feedback, Settings, formats};
use crate::client::jingle::remote;
use crate::client::transport::Remote;
use crate::source::Codec;

const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// What a bridge gave an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    pub remote: Remote,
    pub channel_url: Option<String>,
    pub has_sctp: bool,
}

/// The name of a conference of a run.
pub fn meeting_id(run: u32, conference: u32) -> String {
    format!("loadtest-{run:08x}-{conference}")
}

/// Asks for an endpoint; `first`: for its conference as well.
pub fn create(
    settings: &Settings,
    conference: u32,
    endpoint: &str,
    first: bool,
) -> ConferenceModify {
    let mut modify = ConferenceModify::new(meeting_id(settings.run, conference));
    if first {
        modify.create = true;
        modify.name = Some(format!("{}@loadtest.invalid", modify.meeting_id));
    }
    let capabilities = [capability::SOURCE_NAMES, capability::PRIVATE_ADDRESSES];
    modify.endpoints.push(Endpoint {
        create: true,
        stats_id: Some(format!("loadtest-{endpoint}")),
        media: media(settings),
        transport: Some(Transport {
            ice_controlling: true,
            sctp: (settings.channel == Channel::Datachannel).then(Sctp::default),
            ..Transport::default()
        }),
        sources: Some(Sources::default()),
        initial_last_n: (settings.last_n >= 0).then_some(InitialLastN {
            value: Some(settings.last_n),
        }),
        capabilities: capabilities
            .map(|name| Capability {
                name: name.to_owned(),
            })
            .into(),
        ..Endpoint::new(endpoint)
    });
    modify
}

fn media(settings: &Settings) -> Vec<Media> {
    let formats = formats(settings.picture.codec, settings.feedback);
    let feedback: &[&str] = match settings.feedback {
        Feedback::None => &["ccm fir", "nack pli"],
        Feedback::Full => &["ccm fir", "nack", "nack pli", "transport-cc"],
    };
    let codec = settings.picture.codec;
    let video = PayloadType::new(formats.video, codec.name(), 90_000)
        .with_feedback(feedback.iter().copied());
    let video = match codec {
        Codec::H264 => video
            .with_parameter("profile-level-id", "42e01f")
            .with_parameter("packetization-mode", "1"),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => video,
    };
    let mut videos = vec![video];
    if let Some(rtx) = formats.video_rtx {
        let apt = formats.video.to_string();
        videos.push(PayloadType::new(rtx, "rtx", 90_000).with_parameter("apt", &apt));
    }
    let opus = PayloadType::new(formats.audio, "opus", 48_000)
        .with_parameter("minptime", "10")
        .with_parameter("useinbandfec", "1");
    let opus = match formats.transport_cc {
        Some(_) => opus.with_feedback(["transport-cc"]),
        None => opus,
    };
    let extension = |id: Option<u8>, uri| id.map(|id| HeaderExtension::new(id, uri));
    let transport_cc = || extension(formats.transport_cc, TRANSPORT_CC);
    let medium = |kind, payload_types, extensions: [Option<HeaderExtension>; 2]| Media {
        kind,
        payload_types,
        header_extensions: extensions.into_iter().flatten().collect(),
        extmap_allow_mixed: Some(ExtmapAllowMixed),
    };
    let level = extension(formats.audio_level, AUDIO_LEVEL);
    let descriptor = extension(formats.dependency_descriptor, DEPENDENCY_DESCRIPTOR);
    vec![
        medium(
            MediaType::Audio,
            vec![PayloadType {
                channels: Some(2),
                ..opus
            }],
            [level, transport_cc()],
        ),
        medium(MediaType::Video, videos, [descriptor, transport_cc()]),
    ]
}

/// Tells of an endpoint's own transport and sources.
pub fn update(
    settings: &Settings,
    conference: u32,
    endpoint: &str,
    (ufrag, pwd): (&str, &str),
    fingerprint: &[u8],
    sources: &EndpointSources,
) -> ConferenceModify {
    let mut modify = ConferenceModify::new(meeting_id(settings.run, conference));
    let ice_udp = jingle::Transport {
        ufrag: Some(ufrag.to_owned()),
        pwd: Some(pwd.to_owned()),
        rtcp_mux: true,
        fingerprints: vec![Fingerprint {
            hash: "sha-256".to_owned(),
            setup: Some(Setup::Active),
            value: Fingerprint::text(fingerprint),
            ..Fingerprint::default()
        }],
        ..jingle::Transport::default()
    };
    modify.endpoints.push(Endpoint {
        transport: Some(Transport {
            ice_udp: Some(ice_udp),
            ..Transport::default()
        }),
        sources: Some(sources.to_colibri2()),
        ..Endpoint::new(endpoint)
    });
    modify
}

/// Ends an endpoint.
pub fn expire(settings: &Settings, conference: u32, endpoint: &str) -> ConferenceModify {
    let mut modify = ConferenceModify::new(meeting_id(settings.run, conference));
    modify.endpoints.push(Endpoint {
        expire: true,
        ..Endpoint::new(endpoint)
    });
    modify
}

/// Ends a conference.
pub fn end(settings: &Settings, conference: u32) -> ConferenceModify {
    ConferenceModify {
        expire: true,
        ..ConferenceModify::new(meeting_id(settings.run, conference))
    }
}

/// Reads what an endpoint got.
pub fn allocated(answer: &ConferenceModified, endpoint: &str) -> Result<Allocated, String> {
    let transport = answer
        .endpoints
        .iter()
        .find(|candidate| candidate.id == endpoint)
        .and_then(|endpoint| endpoint.transport.as_ref())
        .ok_or("the answer has no transport for the endpoint")?;
    let ice_udp = transport
        .ice_udp
        .as_ref()
        .ok_or("the answer's transport has no ICE")?;
    Ok(Allocated {
        remote: remote(ice_udp).map_err(|error| error.to_string())?,
        channel_url: ice_udp.web_sockets.iter().find_map(|s| s.url.clone()),
        has_sctp: transport.sctp.is_some(),
    })
}

/// Replaces scheme, host and port of a WebSocket's address, where the one that
/// a bridge names leads elsewhere.
pub fn redirect(url: &str, base: Option<&str>) -> String {
    let Some(base) = base else {
        return url.to_owned();
    };
    let path = url
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]))
        .unwrap_or_default();
    format!("{}{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_looked_for_elsewhere() {
        let url = "wss://meet.example/colibri-ws/a/b/c?pwd=x";
        assert_eq!(redirect(url, None), url);
        assert_eq!(
            redirect(url, Some("ws://127.0.0.1:9090/")),
            "ws://127.0.0.1:9090/colibri-ws/a/b/c?pwd=x"
        );
    }
}
