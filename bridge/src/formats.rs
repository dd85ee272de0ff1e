//! What was negotiated with an endpoint: its payload types and header
//! extensions, by number.

use crate::command::{Codec, Media, MediaType};
use crate::projection::IdSet;
use crate::rtp::{PayloadType, extension};

/// A video codec, by what the bridge can read of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    Vp8,
    Vp9,
    Av1,
    H264,
    Other,
}

/// Forward error correction in streams of media (RFC 5109, RFC 8627), by the
/// names of its payload types.
const FEC: [&str; 3] = ["ulpfec", "flexfec", "flexfec-03"];

/// A payload type, as far as the bridge tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Audio {
        clock_rate: u32,
        /// Redundant data around another payload type (RFC 2198).
        red: bool,
    },
    Video {
        clock_rate: u32,
        codec: VideoCodec,
    },
    /// Retransmissions of another payload type (RFC 4588).
    Rtx {
        apt: PayloadType,
    },
}

/// Payload types of RTP: seven bits.
const PAYLOAD_TYPES: usize = 128;

/// The formats of one endpoint. They only grow. What each packet needs comes first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Formats {
    /// Extension ids; those of audio and video may differ.
    pub audio_level: Option<u8>,
    pub transport_cc_audio: Option<u8>,
    pub transport_cc_video: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub dependency_descriptor: Option<u8>,
    /// Extensions passed on as they come.
    pub keep_audio: IdSet,
    pub keep_video: IdSet,
    /// Whether the endpoint can be sent audio and video at all.
    pub audio: bool,
    pub video: bool,
    /// Whether some payload type signals transport-cc feedback, and REMB.
    pub transport_cc: bool,
    pub remb: bool,
    /// Whether a video payload type signals PLI, and FIR.
    pub pli: bool,
    pub fir: bool,
    /// Whether one signals NACK.
    pub nack: bool,
    formats: [Option<Format>; PAYLOAD_TYPES],
    /// The RTX payload type for each video payload type.
    rtx: [Option<PayloadType>; PAYLOAD_TYPES],
}

impl Default for Formats {
    fn default() -> Self {
        Self {
            formats: [None; PAYLOAD_TYPES],
            rtx: [None; PAYLOAD_TYPES],
            audio_level: None,
            transport_cc_audio: None,
            transport_cc_video: None,
            abs_send_time: None,
            dependency_descriptor: None,
            keep_audio: IdSet::default(),
            keep_video: IdSet::default(),
            audio: false,
            video: false,
            transport_cc: false,
            remb: false,
            pli: false,
            fir: false,
            nack: false,
        }
    }
}

impl Formats {
    /// Adds what signalling tells.
    pub fn add(&mut self, media: &[Media]) {
        for media in media {
            let video = media.media_type == MediaType::Video;
            for payload in &media.payload_types {
                let number = usize::from(payload.payload_type.0);
                let Some(format) = self.formats.get_mut(number) else {
                    continue;
                };
                let clock_rate = payload.clock_rate;
                *format = Some(match payload.codec {
                    Codec::Rtx { apt } => {
                        if let Some(rtx) = self.rtx.get_mut(usize::from(apt.0)) {
                            *rtx = Some(payload.payload_type);
                        }
                        Format::Rtx { apt }
                    }
                    // Protects one hop; the next has losses of its own.
                    Codec::Other(ref name) if FEC.contains(&name.to_ascii_lowercase().as_str()) => {
                        continue;
                    }
                    _ if video => Format::Video {
                        clock_rate,
                        codec: match payload.codec {
                            Codec::Vp8 => VideoCodec::Vp8,
                            Codec::Vp9 => VideoCodec::Vp9,
                            Codec::Av1 => VideoCodec::Av1,
                            Codec::H264 => VideoCodec::H264,
                            _ => VideoCodec::Other,
                        },
                    },
                    _ => Format::Audio {
                        clock_rate,
                        red: payload.codec == Codec::Red,
                    },
                });
                self.transport_cc |= payload.feedback.transport_cc;
                self.remb |= payload.feedback.remb;
                self.pli |= video && payload.feedback.pli;
                self.fir |= video && payload.feedback.fir;
                self.nack |= video && payload.feedback.nack;
            }
            if video {
                self.video = true;
            } else {
                self.audio = true;
            }
            for found in &media.header_extensions {
                self.add_extension(video, &found.uri, found.id);
            }
        }
    }

    fn add_extension(&mut self, video: bool, uri: &str, id: u8) {
        match uri {
            extension::AUDIO_LEVEL if !video => {
                self.audio_level = Some(id);
                self.keep_audio.insert(id);
            }
            extension::VIDEO_ORIENTATION if video => self.keep_video.insert(id),
            extension::ABS_SEND_TIME if video => self.abs_send_time = Some(id),
            extension::DEPENDENCY_DESCRIPTOR if video => self.dependency_descriptor = Some(id),
            extension::TRANSPORT_CC if video => self.transport_cc_video = Some(id),
            extension::TRANSPORT_CC => self.transport_cc_audio = Some(id),
            _ => {}
        }
    }

    /// What a payload type stands for.
    pub fn get(&self, payload_type: PayloadType) -> Option<Format> {
        *self.formats.get(usize::from(payload_type.0))?
    }

    /// The payload type for retransmissions of another.
    pub fn rtx_for(&self, payload_type: PayloadType) -> Option<PayloadType> {
        *self.rtx.get(usize::from(payload_type.0))?
    }
}
