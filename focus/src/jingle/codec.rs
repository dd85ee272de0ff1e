//! Codecs and header extensions that are offered: jicofo's numbers and order
//! (`jicofo:CodecUtil.kt`), filtered by what the client can do. The bridge is
//! told the same list.

use viaduct_signalling::jingle::{ExtmapAllowMixed, HeaderExtension, Parameter, PayloadType};

use super::features::Features;

/// A video codec: `jicofo.codec.video.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoCodec {
    pub enabled: bool,
    pub pt: u8,
    /// `None`: no retransmission stream.
    pub rtx_pt: Option<u8>,
    pub remb: bool,
}

/// A header extension: `jicofo.codec.rtp-extensions.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    pub enabled: bool,
    pub id: u8,
}

/// `jicofo.codec`.
#[derive(Clone, Debug, PartialEq)]
pub struct Codecs {
    pub av1: VideoCodec,
    pub vp8: VideoCodec,
    pub h264: VideoCodec,
    pub vp9: VideoCodec,
    pub opus: Option<Opus>,
    /// Payload type of `telephone-event`.
    pub telephone_event: Option<u8>,
    pub audio_level: Extension,
    pub dependency_descriptor: Extension,
    pub video_layers_allocation: Extension,
    pub toffset: Extension,
    pub abs_send_time: Extension,
    pub rid: Extension,
    pub tcc: Extension,
    pub video_content_type: Extension,
    pub framemarking: Extension,
    pub mid: Extension,
    pub extmap_allow_mixed: bool,
}

/// `jicofo.codec.audio.opus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opus {
    pub pt: u8,
    pub minptime: u32,
    pub inband_fec: bool,
    /// Payload type of redundant audio (RFC 2198).
    pub red: Option<u8>,
}

impl Default for Codecs {
    fn default() -> Self {
        let video = |pt, rtx| VideoCodec {
            enabled: true,
            pt,
            rtx_pt: Some(rtx),
            remb: true,
        };
        let on = |id| Extension { enabled: true, id };
        let off = |id| Extension { enabled: false, id };
        Self {
            av1: video(41, 42),
            vp8: video(100, 96),
            h264: video(107, 99),
            vp9: video(101, 97),
            opus: Some(Opus {
                pt: 111,
                minptime: 10,
                inband_fec: true,
                red: None,
            }),
            telephone_event: Some(126),
            audio_level: on(1),
            dependency_descriptor: on(11),
            video_layers_allocation: off(12),
            toffset: off(2),
            abs_send_time: on(3),
            rid: off(4),
            tcc: on(5),
            video_content_type: off(7),
            framemarking: off(9),
            mid: on(10),
            extmap_allow_mixed: true,
        }
    }
}

/// What is offered for one medium.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offered {
    pub payload_types: Vec<PayloadType>,
    pub header_extensions: Vec<HeaderExtension>,
    pub extmap_allow_mixed: Option<ExtmapAllowMixed>,
}

/// Feedback of a codec that can be repaired.
const REPAIR: [&str; 3] = ["ccm fir", "nack", "nack pli"];

impl Codecs {
    pub fn audio(&self, client: &Features) -> Offered {
        let tcc = client.tcc && self.tcc.enabled;
        let mut payload_types = Vec::new();
        if let Some(opus) = self.opus {
            let red = opus.red.filter(|_| client.opus_red);
            if let Some(pt) = red {
                let mut red = PayloadType::new(pt, "red", 48_000);
                red.channels = Some(2);
                red.parameters
                    .push(Parameter::nameless(&format!("{0}/{0}", opus.pt)));
                payload_types.push(red);
            }
            let mut codec = PayloadType::new(opus.pt, "opus", 48_000)
                .with_parameter("minptime", &opus.minptime.to_string());
            codec.channels = Some(2);
            if opus.inband_fec && red.is_none() {
                codec = codec.with_parameter("useinbandfec", "1");
            }
            payload_types.push(codec.with_feedback(tcc.then_some("transport-cc")));
        }
        if let Some(pt) = self.telephone_event {
            payload_types.push(PayloadType::new(pt, "telephone-event", 8_000));
        }
        self.offered(
            payload_types,
            &[
                (
                    self.audio_level,
                    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
                ),
                (self.mid, MID),
                (
                    Extension {
                        enabled: tcc,
                        ..self.tcc
                    },
                    TCC,
                ),
            ],
        )
    }

    pub fn video(&self, client: &Features) -> Offered {
        let tcc = client.tcc && self.tcc.enabled;
        let codecs = [
            (self.av1, "AV1"),
            (self.vp8, "VP8"),
            (self.h264, "H264"),
            (self.vp9, "VP9"),
        ];
        let enabled = || codecs.iter().filter(|(codec, _)| codec.enabled);
        let mut payload_types: Vec<PayloadType> = enabled()
            .map(|(codec, name)| {
                let remb = codec.remb && client.remb && !client.tcc;
                let codec = PayloadType::new(codec.pt, name, 90_000)
                    .with_feedback(REPAIR)
                    .with_feedback(remb.then_some("goog-remb"))
                    .with_feedback(tcc.then_some("transport-cc"));
                // One parameter with the whole value: that is how jicofo writes it.
                if *name == "H264" {
                    codec.with_parameter("profile-level-id", H264)
                } else {
                    codec
                }
            })
            .collect();
        if client.rtx {
            // Retransmission streams in jicofo's order: that of H264 is last.
            let mut streams: Vec<_> = enabled().collect();
            streams.sort_by_key(|(_, name)| *name == "H264");
            for (codec, name) in streams {
                let Some(pt) = codec.rtx_pt else { continue };
                let rtx = PayloadType::new(pt, "rtx", 90_000)
                    .with_parameter("apt", &codec.pt.to_string());
                let repair = REPAIR.into_iter().filter(|_| *name != "H264");
                payload_types.push(rtx.with_feedback(repair));
            }
        }
        self.offered(
            payload_types,
            &[
                (self.dependency_descriptor, DEPENDENCY_DESCRIPTOR),
                (self.video_layers_allocation, VIDEO_LAYERS_ALLOCATION),
                (self.mid, MID),
                (self.toffset, "urn:ietf:params:rtp-hdrext:toffset"),
                (
                    self.abs_send_time,
                    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
                ),
                (
                    self.framemarking,
                    "http://tools.ietf.org/html/draft-ietf-avtext-framemarking-07",
                ),
                (self.video_content_type, VIDEO_CONTENT_TYPE),
                (self.rid, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
                (
                    Extension {
                        enabled: tcc,
                        ..self.tcc
                    },
                    TCC,
                ),
            ],
        )
    }

    fn offered(&self, payload_types: Vec<PayloadType>, all: &[(Extension, &str)]) -> Offered {
        Offered {
            payload_types,
            header_extensions: all
                .iter()
                .filter(|(extension, _)| extension.enabled)
                .map(|(extension, uri)| HeaderExtension::new(extension.id, uri))
                .collect(),
            extmap_allow_mixed: self.extmap_allow_mixed.then_some(ExtmapAllowMixed),
        }
    }
}

const H264: &str = "42e01f;level-asymmetry-allowed=1;packetization-mode=1;";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const TCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
const VIDEO_LAYERS_ALLOCATION: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00";
const VIDEO_CONTENT_TYPE: &str = "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type";
