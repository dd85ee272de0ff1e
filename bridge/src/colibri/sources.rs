//! Sources of endpoints, with the encodings that their groups tell of, and the
//! two of the bridge itself.

use viaduct_signalling::colibri2 as wire;
use viaduct_signalling::iq::StanzaError;
use viaduct_signalling::jingle;

use super::media::media_type;
use super::{Conference, MAX_ENCODINGS, MAX_SOURCES, bad_request};
use crate::command::{Encoding, Source, VideoType};
use crate::id::SourceName;
use crate::rtp::Ssrc;

/// `jvb-a0` and `jvb-v0`: the senders of the RTCP this bridge makes itself.
pub(super) fn feedback_sources(conference: &Conference) -> wire::Sources {
    let source = |kind, name: &str, ssrc: Ssrc| wire::MediaSource {
        kind,
        id: name.to_owned(),
        synthetic: false,
        sources: vec![jingle::Source {
            name: Some(name.to_owned()),
            ..jingle::Source::bare(ssrc.0)
        }],
        ssrc_groups: Vec::new(),
    };
    wire::Sources {
        media_sources: vec![
            source(wire::MediaType::Audio, "jvb-a0", conference.audio_feedback),
            source(wire::MediaType::Video, "jvb-v0", conference.video_feedback),
        ],
    }
}

pub(super) fn sources(sources: &wire::Sources) -> Result<Vec<Source>, StanzaError> {
    if sources.media_sources.len() > MAX_SOURCES {
        return Err(bad_request(format!("More than {MAX_SOURCES} sources")));
    }
    sources
        .media_sources
        .iter()
        .filter_map(|source| Some((source, media_type(&source.kind)?)))
        .map(|(source, media_type)| {
            let encodings = encodings(source);
            if encodings.len() > MAX_ENCODINGS {
                return Err(bad_request(format!(
                    "Source {} has more than {MAX_ENCODINGS} encodings",
                    source.id
                )));
            }
            Ok(Source {
                name: SourceName::from(source.id.as_str()),
                media_type,
                video_type: video_type(source),
                encodings,
            })
        })
        // A source without an SSRC is none yet.
        .filter(|source| source.as_ref().map_or(true, |s| !s.encodings.is_empty()))
        .collect()
}

/// The primary SSRCs in the order of the `SIM` group, each with the second of
/// its `FID` group. Whatever is second in a group is no encoding of its own.
fn encodings(source: &wire::MediaSource) -> Vec<Encoding> {
    use jingle::ssma::Semantics;
    let pairs = |semantics: Semantics| {
        source
            .ssrc_groups
            .iter()
            .filter(move |group| group.semantics == semantics)
            .filter_map(|group| Some((group.sources.first()?.ssrc, group.sources.get(1)?.ssrc)))
    };
    let secondary = |ssrc: u32| {
        pairs(Semantics::Fid)
            .chain(pairs(Semantics::FecFr))
            .any(|(_, second)| second == ssrc)
    };
    let simulcast = source
        .ssrc_groups
        .iter()
        .find(|group| group.semantics == Semantics::Sim);
    let primaries: Vec<u32> = match simulcast {
        Some(group) => group.sources.iter().map(|s| s.ssrc).collect(),
        None => source
            .sources
            .iter()
            .map(|s| s.ssrc)
            .filter(|ssrc| !secondary(*ssrc))
            .collect(),
    };
    primaries
        .into_iter()
        .map(|primary| Encoding {
            primary: Ssrc(primary),
            rtx: pairs(Semantics::Fid)
                .find(|(first, _)| *first == primary)
                .map(|(_, second)| Ssrc(second)),
        })
        .collect()
}

fn video_type(source: &wire::MediaSource) -> VideoType {
    let word = source.sources.iter().find_map(|s| s.video_type.as_deref());
    match word.unwrap_or("camera").to_ascii_lowercase().as_str() {
        "desktop" => VideoType::Desktop,
        "desktop_high_fps" => VideoType::DesktopHighFps,
        "none" => VideoType::None,
        _ => VideoType::Camera,
    }
}
