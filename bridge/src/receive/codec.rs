//! What there is to know of a packet's place in its codec's structure: from the
//! payload descriptor, the dependency descriptor, or the payload itself.

use super::stream::Stream;
use crate::formats::{Formats, VideoCodec};
use crate::projection::CodecView;
use crate::rtp::dependency_descriptor::DdFrame;
use crate::rtp::{PacketIndex, RtpPacket, av1, h264, vp8, vp9};
use crate::stats::DropCause;

/// The codec's view of a packet, owned.
#[derive(Clone, Debug)]
pub enum ArrivalCodec {
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
    Dd(DdFrame),
    Opaque { key: Option<bool> },
}

impl ArrivalCodec {
    /// As projections take it.
    pub fn view(&self) -> CodecView<'_> {
        match self {
            Self::Vp8(descriptor) => CodecView::Vp8(*descriptor),
            Self::Vp9(descriptor) => CodecView::Vp9(*descriptor),
            Self::Dd(frame) => CodecView::Dd(frame),
            Self::Opaque { key } => CodecView::Opaque { key: *key },
        }
    }

    /// Whether the packet begins a key frame, as far as can be told.
    pub(super) fn begins_key_frame(&self) -> bool {
        match self {
            Self::Vp8(descriptor) => descriptor.key_frame,
            Self::Vp9(d) => d.key_frame() && d.start_of_frame && d.spatial_id == 0,
            Self::Dd(frame) => frame.carries_structure,
            Self::Opaque { key } => *key == Some(true),
        }
    }
}

/// VP8 and VP9 by their payload descriptors where those have all that is needed;
/// else, and every other codec, by the dependency descriptor, if there is one.
/// Without, key frames are looked for in the payload.
pub(super) fn read_codec(
    formats: &Formats,
    stream: &mut Stream,
    codec: VideoCodec,
    index: PacketIndex,
    view: &RtpPacket<'_>,
) -> Result<ArrivalCodec, DropCause> {
    let payload = view.payload();
    let mut key = None;
    let read = match codec {
        VideoCodec::Vp8 => Some(CodecView::vp8(payload)),
        VideoCodec::Vp9 => Some(CodecView::vp9(payload)),
        VideoCodec::Av1 | VideoCodec::H264 | VideoCodec::Other => None,
    };
    match read
        .map(|read| read.ok_or(DropCause::UnreadablePayload))
        .transpose()?
    {
        Some(CodecView::Vp8(descriptor)) => return Ok(ArrivalCodec::Vp8(descriptor)),
        Some(CodecView::Vp9(descriptor)) => return Ok(ArrivalCodec::Vp9(descriptor)),
        Some(CodecView::Opaque { key: found }) => key = found,
        Some(CodecView::Dd(_)) | None => {}
    }
    let descriptor = formats
        .dependency_descriptor
        .and_then(|id| view.extension(id));
    if let Some(descriptor) = descriptor {
        let frame = stream.descriptors.parse(index, descriptor);
        return frame
            .map(ArrivalCodec::Dd)
            .map_err(|_| DropCause::UnreadablePayload);
    }
    let part_of_key = match codec {
        VideoCodec::Av1 => Some(av1::begins_sequence(payload)),
        VideoCodec::H264 => Some(h264::begins_key_frame(payload)),
        VideoCodec::Vp8 | VideoCodec::Vp9 | VideoCodec::Other => None,
    };
    if let Some(part) = part_of_key {
        key = Some(stream.begins_key_frame(view.timestamp(), part));
    }
    Ok(ArrivalCodec::Opaque { key })
}
