//! Packet sources: what a synthetic participant sends.
//!
//! A source makes payloads on a clock of its own; sequence numbers, SSRCs,
//! header extensions and encryption are the business of `client`.

pub mod audio;
pub mod tag;
pub mod video;
pub mod vp8;

/// Video codecs that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Codec {
    Vp8,
}

impl Codec {
    /// The name in Jingle's `payload-type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
        }
    }
}

/// One packet to send now.
#[derive(Debug)]
pub struct SourcePacket {
    /// Simulcast encoding, 0 the lowest; 0 for audio.
    pub encoding: u8,
    pub marker: bool,
    pub timestamp: u32,
    pub payload: Vec<u8>,
    /// Octet of the audio level extension (RFC 6464 §3).
    pub audio_level: Option<u8>,
    /// Part of a key frame.
    pub key: bool,
}
