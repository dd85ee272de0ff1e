//! Packet sources: what a synthetic participant sends.
//!
//! A source makes payloads on a clock of its own; sequence numbers, SSRCs,
//! header extensions and encryption are the business of `client`.

pub mod audio;
pub mod av1;
pub mod dependency_descriptor;
pub mod h264;
pub mod payload;
pub mod tag;
pub mod video;
pub mod vp8;
pub mod vp9;

/// Video codecs that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Codec {
    Vp8,
    Vp9,
    Av1,
    H264,
}

impl Codec {
    /// The name in Jingle's `payload-type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::H264 => "H264",
        }
    }

    /// Whether spatial layers share one stream (SVC), or have one each
    /// (simulcast), as in Jitsi's clients.
    pub fn is_svc(self) -> bool {
        matches!(self, Self::Vp9 | Self::Av1)
    }
}

/// The header extension that goes with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    None,
    /// The octet of RFC 6464 §3.
    AudioLevel(u8),
    DependencyDescriptor(Vec<u8>),
}

/// One packet to send now.
#[derive(Debug)]
pub struct SourcePacket {
    /// Stream of the source: the simulcast encoding, 0 the lowest; else 0.
    pub encoding: u8,
    /// Spatial layer among all of the source, the encoding's included.
    pub layer: u8,
    pub marker: bool,
    pub timestamp: u32,
    pub payload: Vec<u8>,
    pub extension: Extension,
    /// Part of a key picture.
    pub key: bool,
}
