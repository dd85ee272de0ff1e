//! How the streams of two receivers differ who are given the same of a source.
//!
//! Receivers that came at different times have other sequence numbers,
//! timestamps and picture numbers, but once they are given the same packets those
//! keep their distances. So one projection serves all of them, and each has its
//! [`Shift`] from it.

use serde::{Deserialize, Serialize};

use super::{CodecRewrite, Rewrite};
use crate::rtp::PacketIndex;
use crate::rtp::dependency_descriptor::MAX_TEMPLATES;

/// The distance between the numbers of a codec, modulo what each counts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecShift {
    /// Of PictureIDs (VP8, VP9), or of frame numbers (dependency descriptor).
    pub number: u16,
    /// Of TL0PICIDX, or of template ids.
    pub layer: u8,
}

impl CodecShift {
    fn and(self, other: Self) -> Self {
        Self {
            number: self.number.wrapping_add(other.number),
            layer: self.layer.wrapping_add(other.layer),
        }
    }
}

/// What is to be added to the numbers of a projection to get a receiver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// Modulo 2^64.
    pub index: u64,
    pub timestamp: u32,
    pub pictures: CodecShift,
    pub descriptors: CodecShift,
}

impl Shift {
    /// First the one, then the other.
    pub fn and(self, other: Self) -> Self {
        Self {
            index: self.index.wrapping_add(other.index),
            timestamp: self.timestamp.wrapping_add(other.timestamp),
            pictures: self.pictures.and(other.pictures),
            descriptors: self.descriptors.and(other.descriptors),
        }
    }

    /// The index that a receiver sees.
    pub fn index(&self, index: PacketIndex) -> PacketIndex {
        PacketIndex(index.0.wrapping_add(self.index))
    }

    /// What a receiver gets where the projection says `rewrite`.
    pub fn rewrite(&self, rewrite: &Rewrite) -> Rewrite {
        let pictures = |picture_id: u16, tl0_pic_idx: u8| {
            let by = self.pictures;
            (
                picture_id.wrapping_add(by.number) & 0x7fff,
                tl0_pic_idx.wrapping_add(by.layer),
            )
        };
        let codec = match rewrite.codec {
            CodecRewrite::None => CodecRewrite::None,
            CodecRewrite::Vp8 {
                picture_id,
                tl0_pic_idx,
            } => {
                let (picture_id, tl0_pic_idx) = pictures(picture_id, tl0_pic_idx);
                CodecRewrite::Vp8 {
                    picture_id,
                    tl0_pic_idx,
                }
            }
            CodecRewrite::Vp9 {
                picture_id,
                tl0_pic_idx,
            } => {
                let (picture_id, tl0_pic_idx) = pictures(picture_id, tl0_pic_idx);
                CodecRewrite::Vp9 {
                    picture_id,
                    tl0_pic_idx,
                }
            }
            CodecRewrite::Dd(mut descriptor) => {
                let by = self.descriptors;
                let template = descriptor.template_id_delta.wrapping_add(by.layer);
                descriptor.frame_number = descriptor.frame_number.wrapping_add(by.number);
                descriptor.template_id_delta = template % MAX_TEMPLATES as u8;
                CodecRewrite::Dd(descriptor)
            }
        };
        Rewrite {
            index: self.index(rewrite.index),
            timestamp: rewrite.timestamp.wrapping_add(self.timestamp),
            codec,
            ..*rewrite
        }
    }
}

/// Of numbers that a codec has for each frame.
pub(super) trait Numbered {
    /// What leads from those of another receiver to these; `None` if they differ
    /// by more than that.
    fn shift_from(&self, base: &Self) -> Option<CodecShift>;
}
