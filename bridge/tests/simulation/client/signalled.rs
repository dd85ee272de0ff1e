//! What is signalled of a synthetic participant: what it negotiates, its sources,
//! and both ends of its transport.

use std::net::SocketAddr;

use viaduct_bridge::command::{
    Candidate, CandidateKind, Codec, Encoding, Feedback, Fingerprint, HeaderExtension,
    IceCredentials, Media, MediaType, Payload, Setup, Source, VideoType,
};
use viaduct_bridge::id::SourceName;
use viaduct_bridge::rtp::{PayloadType, extension};

use super::{AUDIO_LEVEL, Client, OPUS, TRANSPORT_CC, VP8, VP8_RTX};

/// All that a participant negotiates.
pub(crate) fn media() -> Vec<Media> {
    let audio = Media {
        media_type: MediaType::Audio,
        payload_types: vec![payload(OPUS, Codec::Opus, 48_000)],
        header_extensions: vec![extension(AUDIO_LEVEL, extension::AUDIO_LEVEL)],
    };
    vec![audio, video_media()]
}

/// The video of it.
pub(crate) fn video_media() -> Media {
    let apt = PayloadType(VP8);
    Media {
        media_type: MediaType::Video,
        payload_types: vec![
            payload(VP8, Codec::Vp8, 90_000),
            payload(VP8_RTX, Codec::Rtx { apt }, 90_000),
        ],
        header_extensions: vec![extension(TRANSPORT_CC, extension::TRANSPORT_CC)],
    }
}

fn payload(number: u8, codec: Codec, clock_rate: u32) -> Payload {
    Payload {
        payload_type: PayloadType(number),
        codec,
        clock_rate,
        feedback: Feedback {
            nack: true,
            pli: true,
            transport_cc: true,
            ..Feedback::default()
        },
    }
}

fn extension(id: u8, uri: &str) -> HeaderExtension {
    HeaderExtension {
        id,
        uri: uri.to_owned(),
    }
}

/// All that a participant sends.
pub(crate) fn sources(client: &Client) -> Vec<Source> {
    let audio = Encoding {
        primary: client.audio_ssrc(),
        rtx: None,
    };
    let audio = source(client, MediaType::Audio, "a0", vec![audio]);
    vec![audio, video_source(client)]
}

/// The video of it.
pub(crate) fn video_source(client: &Client) -> Source {
    let video = client.video_ssrcs();
    let video = video.into_iter().map(|(primary, rtx)| Encoding {
        primary,
        rtx: Some(rtx),
    });
    source(client, MediaType::Video, "v0", video.collect())
}

fn source(
    client: &Client,
    media_type: MediaType,
    suffix: &str,
    encodings: Vec<Encoding>,
) -> Source {
    Source {
        name: SourceName::from(format!("{}-{suffix}", client.id).as_str()),
        media_type,
        video_type: VideoType::Camera,
        encodings,
    }
}

/// What signalling tells a client of the bridge.
pub(crate) struct BridgeSide {
    pub(crate) ice: IceCredentials,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn credentials(number: u8) -> IceCredentials {
    IceCredentials {
        ufrag: format!("ufrag{number}"),
        pwd: format!("password-of-at-least-22-{number}"),
    }
}

pub(crate) fn host(address: SocketAddr) -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        address,
        base: None,
        priority: 2_130_706_431,
        foundation: "1".into(),
    }
}

pub(crate) fn fingerprint(bytes: Vec<u8>, setup: Setup) -> Fingerprint {
    Fingerprint {
        hash: "sha-256".into(),
        bytes,
        setup,
    }
}
