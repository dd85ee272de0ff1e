//! What a participant reads in an offer, and the answer it gives.

use std::net::SocketAddr;

use viaduct_signalling::jingle::{
    Action, Content, Creator, Description, Fingerprint, Group, Jingle, PayloadType, SctpMap,
    Senders, Transport, transport::Setup,
};
use viaduct_signalling::sources::{ConferenceSources, EndpointSources, MediaType};

use super::transport::Remote;
use crate::source::Codec;

/// What was agreed about packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    pub audio: u8,
    pub video: u8,
    /// Payload type of retransmissions of `video`.
    pub video_rtx: Option<u8>,
    /// Header extension numbers.
    pub audio_level: Option<u8>,
    pub transport_cc: Option<u8>,
    pub dependency_descriptor: Option<u8>,
}

/// An offer, as far as a participant needs it.
#[derive(Clone, Debug)]
pub struct Offer {
    pub sid: String,
    pub bridge_session: Option<String>,
    pub remote: Remote,
    pub formats: Formats,
    pub channel_url: Option<String>,
    /// SCTP port of the data channel, where one is offered.
    pub sctp_port: Option<u16>,
    pub sources: ConferenceSources,
    contents: Vec<Content>,
}

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("no {0} content")]
    NoContent(&'static str),
    #[error("the {0} content has no transport with ufrag and pwd")]
    NoTransport(String),
    #[error("no sha-256 fingerprint with setup actpass or passive")]
    NoFingerprint,
    #[error("no payload type for {0}")]
    NoCodec(&'static str),
    #[error("no BUNDLE group over all contents")]
    NoBundle,
    #[error("no usable UDP candidate")]
    NoCandidate,
    #[error("sources: {0}")]
    Sources(String),
}

impl Offer {
    /// Reads a session-initiate, as strict as a browser with the client
    /// library would be about what it cannot do without (client-focus §4.1).
    pub fn read(jingle: &Jingle, codec: Codec) -> Result<Self, OfferError> {
        let audio = content(jingle, "audio")?;
        let video = content(jingle, "video")?;
        for content in &jingle.contents {
            let usable = content
                .transport
                .as_ref()
                .is_some_and(|t| t.ufrag.is_some() && t.pwd.is_some());
            if !usable {
                return Err(OfferError::NoTransport(content.name.clone()));
            }
            let bundled = jingle.groups.iter().any(|group| {
                group.semantics == "BUNDLE"
                    && group
                        .contents
                        .iter()
                        .any(|member| member.name == content.name)
            });
            if !bundled {
                return Err(OfferError::NoBundle);
            }
        }
        let transport = jingle
            .transport()
            .ok_or_else(|| OfferError::NoTransport("audio".into()))?;
        Ok(Self {
            sid: jingle.sid.clone(),
            bridge_session: jingle
                .bridge_session
                .as_ref()
                .and_then(|session| session.id.clone()),
            remote: remote(transport)?,
            formats: formats(audio, video, codec)?,
            channel_url: jingle
                .contents
                .iter()
                .filter_map(|content| content.transport.as_ref())
                .flat_map(|transport| &transport.web_sockets)
                .find_map(|socket| socket.url.clone()),
            sctp_port: jingle
                .contents
                .iter()
                .filter_map(|content| content.transport.as_ref())
                .flat_map(|transport| &transport.sctp_maps)
                .find_map(|map| map.number),
            sources: sources(jingle)?,
            contents: jingle.contents.clone(),
        })
    }

    /// The session-accept with our transport and sources. A data content is
    /// taken wherever it is offered: one is offered only to who can use it.
    pub fn accept(
        &self,
        responder: &str,
        initiator: &str,
        (ufrag, pwd): (&str, &str),
        fingerprint: &[u8],
        ours: &EndpointSources,
    ) -> Jingle {
        let transport = Transport {
            ufrag: Some(ufrag.to_owned()),
            pwd: Some(pwd.to_owned()),
            fingerprints: vec![Fingerprint {
                hash: "sha-256".to_owned(),
                setup: Some(Setup::Active),
                value: Fingerprint::text(fingerprint),
                ..Fingerprint::default()
            }],
            ..Transport::default()
        };
        let own_contents = ours.to_contents();
        let media = |content: &&Content| MediaType::from_word(&content.name).is_some();
        let mut contents: Vec<Content> = self
            .contents
            .iter()
            .filter(media)
            .map(|offered| {
                let mut description = offered.description.clone().unwrap_or_default();
                description.sources.clear();
                description.ssrc_groups.clear();
                self.prefer(&mut description);
                let own = own_contents
                    .iter()
                    .find(|content| content.name == offered.name)
                    .and_then(|content| content.description.clone());
                if let Some(own) = own {
                    description.sources = own.sources;
                    description.ssrc_groups = own.ssrc_groups;
                }
                Content {
                    creator: Some(Creator::Responder),
                    name: offered.name.clone(),
                    senders: Some(Senders::Both),
                    initial_last_n: None,
                    description: Some(description),
                    transport: Some(transport.clone()),
                }
            })
            .collect();
        if let Some(port) = self.sctp_port {
            let map = SctpMap {
                number: Some(port),
                protocol: Some("webrtc-datachannel".to_owned()),
                streams: Some(0),
            };
            contents.push(Content {
                creator: Some(Creator::Responder),
                name: "data".to_owned(),
                transport: Some(Transport {
                    sctp_maps: vec![map],
                    ..transport
                }),
                ..Content::default()
            });
        }
        // The client library names all three, whatever was offered.
        let names = ["audio", "video", "data"];
        Jingle {
            initiator: Some(initiator.to_owned()),
            responder: Some(responder.to_owned()),
            contents,
            groups: vec![Group::bundle(names)],
            ..Jingle::new(Action::SessionAccept, self.sid.clone())
        }
    }

    /// Puts the codec we send first, its retransmissions behind it.
    fn prefer(&self, description: &mut Description) {
        description.payload_types.sort_by_key(|payload| {
            if payload.id == self.formats.video || payload.id == self.formats.audio {
                0
            } else if Some(payload.id) == self.formats.video_rtx {
                1
            } else {
                2
            }
        });
    }
}

fn content<'a>(jingle: &'a Jingle, name: &'static str) -> Result<&'a Description, OfferError> {
    jingle
        .content(name)
        .and_then(|content| content.description.as_ref())
        .ok_or(OfferError::NoContent(name))
}

/// What a transport element says of the other end.
pub fn remote(transport: &Transport) -> Result<Remote, OfferError> {
    let fingerprint = transport
        .fingerprints
        .iter()
        .filter(|fingerprint| fingerprint.hash.eq_ignore_ascii_case("sha-256"))
        .filter(|f| matches!(f.setup, None | Some(Setup::ActPass | Setup::Passive)))
        .find_map(Fingerprint::bytes)
        .ok_or(OfferError::NoFingerprint)?;
    let candidates: Vec<SocketAddr> = transport
        .candidates
        .iter()
        .filter(|c| {
            c.protocol
                .as_deref()
                .is_none_or(|p| p.eq_ignore_ascii_case("udp"))
        })
        .filter_map(|c| Some(SocketAddr::new(c.ip.as_deref()?.parse().ok()?, c.port?)))
        .collect();
    if candidates.is_empty() {
        return Err(OfferError::NoCandidate);
    }
    Ok(Remote {
        ufrag: transport.ufrag.clone().unwrap_or_default(),
        pwd: transport.pwd.clone().unwrap_or_default(),
        candidates,
        fingerprint,
    })
}

fn formats(audio: &Description, video: &Description, codec: Codec) -> Result<Formats, OfferError> {
    let named = |description: &Description, name: &'static str| {
        description
            .payload_types
            .iter()
            .find(|payload| payload.name.eq_ignore_ascii_case(name))
            .map(|payload| payload.id)
            .ok_or(OfferError::NoCodec(name))
    };
    let video_id = named(video, codec.name())?;
    let is_rtx = |payload: &&PayloadType| payload.name.eq_ignore_ascii_case("rtx");
    let rtx = |apt: u8| {
        video
            .payload_types
            .iter()
            .filter(is_rtx)
            .find(|payload| payload.parameter("apt").and_then(|id| id.parse().ok()) == Some(apt))
            .map(|payload| payload.id)
    };
    let extension = |description: &Description, uri: &str| {
        description
            .header_extensions
            .iter()
            .find(|extension| extension.uri == uri && (1..=14).contains(&extension.id))
            .map(|extension| extension.id)
    };
    Ok(Formats {
        audio: named(audio, "opus")?,
        video: video_id,
        video_rtx: rtx(video_id),
        audio_level: extension(audio, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
        transport_cc: extension(
            video,
            "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        ),
        dependency_descriptor: extension(
            video,
            "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        ),
    })
}

/// The sources in an offer, a source-add or a source-remove, in either form.
pub fn sources(jingle: &Jingle) -> Result<ConferenceSources, OfferError> {
    match &jingle.json_message {
        Some(message) => ConferenceSources::from_json(&message.json)
            .map_err(|error| OfferError::Sources(error.to_string())),
        None => Ok(ConferenceSources::from_contents(&jingle.contents)),
    }
}
