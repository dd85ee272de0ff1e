//! Sources in their standard form (XEP-0339). Parameters and members of groups
//! are in this namespace too, which they inherit.
//!
//! [`crate::sources`] has the model that all forms of sources convert to.

use crate::jingle::rtp::Parameter;
use crate::xml::codec::words;
use crate::xml::ns;

/// One SSRC.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::SSMA, name = "source")]
pub struct Source {
    #[xml(attribute)]
    pub ssrc: u32,
    #[xml(attribute(default))]
    pub name: Option<String>,
    #[xml(attribute(default))]
    pub rid: Option<String>,
    #[xml(attribute(name = "videoType", default))]
    pub video_type: Option<String>,
    #[xml(child(n = ..))]
    pub parameters: Vec<SourceParameter>,
    #[xml(child(default))]
    pub info: Option<SsrcInfo>,
}

impl Source {
    /// An SSRC without anything else, as in groups.
    pub fn bare(ssrc: u32) -> Self {
        Self {
            ssrc,
            ..Self::default()
        }
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.value.as_str())
    }
}

/// A parameter of a source: `msid`, from some clients also `cname`. The same
/// as [`Parameter`] in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::SSMA, name = "parameter")]
pub struct SourceParameter {
    #[xml(attribute(default))]
    pub name: Option<String>,
    #[xml(attribute(default))]
    pub value: String,
}

impl From<Parameter> for SourceParameter {
    fn from(Parameter { name, value }: Parameter) -> Self {
        Self { name, value }
    }
}

/// Whose source it is: towards clients that do not read JSON.
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::JITMEET, name = "ssrc-info")]
pub struct SsrcInfo {
    /// An endpoint, or the full address of its occupant.
    #[xml(attribute(default))]
    pub owner: String,
}

/// SSRCs that belong together (RFC 5576 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::SSMA, name = "ssrc-group")]
pub struct SsrcGroup {
    #[xml(attribute)]
    pub semantics: Semantics,
    #[xml(child(n = ..))]
    pub sources: Vec<Source>,
}

words! {
    /// What a group of SSRCs means.
    Semantics {
        /// Simulcast layers, the lowest first.
        Sim = "SIM",
        /// A stream and its retransmissions (RFC 4588).
        Fid = "FID",
        /// A stream and its forward error correction.
        FecFr = "FEC-FR",
    }
}
