//! What is sent in a content: codecs (XEP-0167), their feedback (XEP-0293),
//! header extensions (XEP-0294).

use super::ssma::{Source, SsrcGroup};
use crate::xml::codec::Lax;
use crate::xml::ns;

/// The RTP description of a content. Colibri2 has the same children in `media`.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTP, name = "description")]
pub struct Description {
    /// `audio`, `video` or `application`.
    #[xml(attribute(default))]
    pub media: Option<String>,
    #[xml(attribute(codec = Lax, default))]
    pub maxptime: Option<u32>,
    /// Only older clients and P2P sessions: the first source.
    #[xml(attribute(codec = Lax, default))]
    pub ssrc: Option<u32>,
    #[xml(child(n = ..))]
    pub payload_types: Vec<PayloadType>,
    #[xml(child(n = ..))]
    pub sources: Vec<Source>,
    #[xml(child(n = ..))]
    pub ssrc_groups: Vec<SsrcGroup>,
    #[xml(child(n = ..))]
    pub header_extensions: Vec<HeaderExtension>,
    #[xml(child(default))]
    pub extmap_allow_mixed: Option<ExtmapAllowMixed>,
    /// The client library makes `a=rtcp-mux` of this one, not of the transport's.
    #[xml(flag(name = "rtcp-mux"))]
    pub rtcp_mux: bool,
}

/// A codec.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTP, name = "payload-type")]
pub struct PayloadType {
    /// RTP payload type, 0-127.
    #[xml(attribute)]
    pub id: u8,
    #[xml(attribute(default))]
    pub name: String,
    /// Hertz.
    #[xml(attribute(codec = Lax, default))]
    pub clockrate: Option<u32>,
    /// Absent is 1.
    #[xml(attribute(codec = Lax, default))]
    pub channels: Option<u8>,
    #[xml(child(n = ..))]
    pub parameters: Vec<Parameter>,
    #[xml(child(n = ..))]
    pub rtcp_fb: Vec<RtcpFb>,
}

impl PayloadType {
    /// A codec without parameters and feedback.
    pub fn new(id: u8, name: &str, clockrate: u32) -> Self {
        Self {
            id,
            name: name.to_owned(),
            clockrate: Some(clockrate),
            ..Self::default()
        }
    }

    /// The same with a parameter.
    pub fn with_parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push(Parameter::new(name, value));
        self
    }

    /// The same with RTCP feedback, the type and its subtype separated by a
    /// blank as in SDP: `nack pli`.
    pub fn with_feedback<'a>(mut self, feedback: impl IntoIterator<Item = &'a str>) -> Self {
        self.rtcp_fb
            .extend(feedback.into_iter().map(RtcpFb::from_sdp));
        self
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.value.as_str())
    }

    /// Whether it has that feedback, written as for [`PayloadType::with_feedback`].
    pub fn has_feedback(&self, feedback: &str) -> bool {
        self.rtcp_fb.contains(&RtcpFb::from_sdp(feedback))
    }
}

/// A format parameter of a codec.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTP, name = "parameter")]
pub struct Parameter {
    /// Absent for RED, whose value is a bare `111/111`.
    #[xml(attribute(default))]
    pub name: Option<String>,
    #[xml(attribute(default))]
    pub value: String,
}

impl Parameter {
    /// A named parameter.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            value: value.to_owned(),
        }
    }

    /// A bare value.
    pub fn nameless(value: &str) -> Self {
        Self {
            name: None,
            value: value.to_owned(),
        }
    }
}

/// RTCP feedback of a codec.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTCP_FB, name = "rtcp-fb")]
pub struct RtcpFb {
    #[xml(attribute(name = "type"))]
    pub kind: String,
    #[xml(attribute(default))]
    pub subtype: Option<String>,
}

impl RtcpFb {
    fn from_sdp(text: &str) -> Self {
        let (kind, subtype) = match text.split_once(' ') {
            Some((kind, subtype)) => (kind, Some(subtype.to_owned())),
            None => (text, None),
        };
        Self {
            kind: kind.to_owned(),
            subtype,
        }
    }
}

/// A header extension (RFC 8285).
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTP_HDREXT, name = "rtp-hdrext")]
pub struct HeaderExtension {
    /// 1-14 in the one-byte form, to 255 in the two-byte form.
    #[xml(attribute)]
    pub id: u8,
    #[xml(attribute)]
    pub uri: String,
}

impl HeaderExtension {
    /// An extension under that number.
    pub fn new(id: u8, uri: &str) -> Self {
        Self {
            id,
            uri: uri.to_owned(),
        }
    }
}

/// One-byte and two-byte forms may be mixed (RFC 8285 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::RTP_HDREXT, name = "extmap-allow-mixed")]
pub struct ExtmapAllowMixed;
