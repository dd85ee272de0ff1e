//! A payload of any codec: its own head, then the [`super::tag`].

use super::tag::{Tag, TagError};
use super::{Codec, av1, h264, vp8, vp9};

/// What the head of a payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
    Av1(av1::Header),
    H264,
}

/// A payload that was read.
#[derive(Clone, Debug)]
pub struct Payload {
    pub head: Head,
    /// Whether it is of a key picture, where the head tells.
    pub key: Option<bool>,
    pub tag: Tag,
}

/// Why a payload is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("its head cannot be read")]
    Head,
    #[error(transparent)]
    Tag(#[from] TagError),
}

impl Payload {
    /// Reads a payload of `codec`.
    pub fn parse(codec: Codec, payload: &[u8]) -> Result<Self, PayloadError> {
        let (head, key, len) = match codec {
            Codec::Vp8 => {
                let parsed = vp8::parse(payload).map_err(|_| PayloadError::Head)?;
                (Head::Vp8(parsed.descriptor), parsed.key, parsed.len)
            }
            Codec::Vp9 => {
                let (head, len) = vp9::parse(payload).map_err(|_| PayloadError::Head)?;
                let key = head.diffs.is_empty();
                (Head::Vp9(head), Some(key), len)
            }
            Codec::Av1 => {
                let (head, len) = av1::parse(payload).map_err(|_| PayloadError::Head)?;
                let first = head.start && head.spatial == 0;
                (Head::Av1(head), first.then_some(head.key), len)
            }
            Codec::H264 => {
                let parsed = h264::parse(payload).map_err(|_| PayloadError::Head)?;
                (Head::H264, Some(parsed.key), parsed.len)
            }
        };
        let tag = Tag::parse(&payload[len..])?;
        Ok(Self { head, key, tag })
    }

    /// Whether the head says of the packet what the tag does: that no bridge
    /// changes.
    pub fn is_consistent(&self) -> bool {
        let tag = &self.tag;
        let (start, end) = (tag.packet == 0, tag.packet + 1 == tag.packets);
        let layers = (tag.spatial, tag.temporal);
        let head = match &self.head {
            Head::Vp8(head) => head.start == start && head.temporal.is_none_or(|t| t.0 == layers.1),
            Head::Vp9(head) => {
                (head.start, head.end) == (start, end)
                    && (head.spatial, head.temporal) == layers
                    && head.inter_layer == (tag.key && tag.spatial > 0)
            }
            Head::Av1(head) => {
                (head.start, head.end) == (start, end)
                    && (!start || (head.spatial, head.temporal) == layers)
            }
            Head::H264 => true,
        };
        head && self.key.is_none_or(|key| key == tag.key)
    }
}
