//! What an endpoint can send and receive: payload types and header extensions.

use viaduct_signalling::colibri2 as wire;
use viaduct_signalling::iq::StanzaError;
use viaduct_signalling::jingle;

use super::{MAX_CODEC_ENTRIES, bad_request};
use crate::command::{Codec, Feedback, HeaderExtension, Media, MediaType, Payload};
use crate::rtp::PayloadType;

pub(super) fn media_type(kind: &wire::MediaType) -> Option<MediaType> {
    match kind {
        wire::MediaType::Audio => Some(MediaType::Audio),
        wire::MediaType::Video => Some(MediaType::Video),
        wire::MediaType::Other(_) => None,
    }
}

/// `None` for a medium that is neither audio nor video.
pub(super) fn media(media: &wire::Media) -> Result<Option<Media>, StanzaError> {
    let Some(media_type) = media_type(&media.kind) else {
        return Ok(None);
    };
    let entries = media.payload_types.len().max(media.header_extensions.len());
    if entries > MAX_CODEC_ENTRIES {
        return Err(bad_request(format!(
            "More than {MAX_CODEC_ENTRIES} payload types or header extensions"
        )));
    }
    let payload_types = media
        .payload_types
        .iter()
        .map(payload)
        .collect::<Result<_, _>>()?;
    let header_extensions = media
        .header_extensions
        .iter()
        // 0 is padding (RFC 8285 §4.2).
        .filter(|extension| extension.id != 0)
        .map(|extension| HeaderExtension {
            id: extension.id,
            uri: extension.uri.clone(),
        })
        .collect();
    Ok(Some(Media {
        media_type,
        payload_types,
        header_extensions,
    }))
}

fn payload(payload: &jingle::PayloadType) -> Result<Payload, StanzaError> {
    let payload_type = |id: u8| {
        if id < 128 {
            Ok(PayloadType(id))
        } else {
            Err(bad_request(format!("{id} is no RTP payload type")))
        }
    };
    let name = payload.name.to_ascii_lowercase();
    let codec = match name.as_str() {
        "opus" => Codec::Opus,
        "red" => Codec::Red,
        "vp8" => Codec::Vp8,
        "vp9" => Codec::Vp9,
        "av1" => Codec::Av1,
        "h264" => Codec::H264,
        "rtx" => {
            let apt = payload.parameter("apt").and_then(|apt| apt.parse().ok());
            let apt: u8 = apt.ok_or_else(|| {
                bad_request(format!("rtx payload type {} without apt", payload.id))
            })?;
            Codec::Rtx {
                apt: payload_type(apt)?,
            }
        }
        _ => Codec::Other(payload.name.clone()),
    };
    Ok(Payload {
        payload_type: payload_type(payload.id)?,
        codec,
        // What RFC 3551 gives a payload type that tells nothing.
        clock_rate: payload.clockrate.unwrap_or(8000),
        feedback: Feedback {
            nack: payload.has_feedback("nack"),
            pli: payload.has_feedback("nack pli"),
            fir: payload.has_feedback("ccm fir"),
            transport_cc: payload.has_feedback("transport-cc"),
            remb: payload.has_feedback("goog-remb"),
        },
    })
}
