//! Muting (`client-focus` §5.1): a participant asks the focus with `jid`, the
//! focus tells the one concerned with `actor`. The medium is in the namespace.

use xso::error::{Error, FromEventsError};
use xso::exports::rxml::{AttrMap, QName};
use xso::minidom_compat::{AsItemsViaElement, FromEventsViaElement};
use xso::{AsXml, Context, FromXml};

use crate::xml::{self, Element, codec::truth, ns, xml_ncname};

/// What is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MuteMedia {
    Audio,
    Video,
    Desktop,
}

impl MuteMedia {
    fn ns(self) -> &'static str {
        match self {
            Self::Audio => ns::MUTE_AUDIO,
            Self::Video => ns::MUTE_VIDEO,
            Self::Desktop => ns::MUTE_DESKTOP,
        }
    }

    fn from_ns(namespace: &str) -> Option<Self> {
        [Self::Audio, Self::Video, Self::Desktop]
            .into_iter()
            .find(|media| media.ns() == namespace)
    }
}

/// Mutes or unmutes somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    pub media: MuteMedia,
    /// The occupant concerned, in a request to the focus.
    pub jid: Option<String>,
    /// The occupant who asked, in the focus' request.
    pub actor: Option<String>,
    /// `None` if it is neither `true` nor `false`: `bad-request`.
    pub mute: Option<bool>,
}

impl TryFrom<Element> for Mute {
    type Error = Error;

    fn try_from(element: Element) -> Result<Self, Error> {
        let media = MuteMedia::from_ns(&element.ns()).filter(|_| element.name() == "mute");
        Ok(Self {
            media: media.ok_or(Error::TypeMismatch)?,
            jid: element.attr("jid").map(str::to_owned),
            actor: element.attr("actor").map(str::to_owned),
            mute: truth(&element.text()),
        })
    }
}

impl From<&Mute> for Element {
    fn from(mute: &Mute) -> Self {
        let mut element = Self::bare("mute", mute.media.ns());
        if let Some(jid) = &mute.jid {
            xml::set(&mut element, xml_ncname!("jid"), jid);
        }
        if let Some(actor) = &mute.actor {
            xml::set(&mut element, xml_ncname!("actor"), actor);
        }
        if let Some(value) = mute.mute {
            element.append_text(value.to_string());
        }
        element
    }
}

impl FromXml for Mute {
    type Builder = FromEventsViaElement<Self>;

    fn from_events(
        name: QName,
        attributes: AttrMap,
        _context: &Context<'_>,
    ) -> Result<Self::Builder, FromEventsError> {
        if name.1 == "mute" && MuteMedia::from_ns(&name.0).is_some() {
            FromEventsViaElement::new(name, attributes)
        } else {
            Err(FromEventsError::Mismatch {
                name,
                attrs: attributes,
            })
        }
    }
}

impl AsXml for Mute {
    type ItemIter<'x> = AsItemsViaElement<'x>;

    fn as_xml_iter(&self) -> Result<Self::ItemIter<'_>, Error> {
        AsItemsViaElement::new(Element::from(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_tells_what_is_muted() {
        for (namespace, media) in [
            (ns::MUTE_AUDIO, MuteMedia::Audio),
            (ns::MUTE_VIDEO, MuteMedia::Video),
            (ns::MUTE_DESKTOP, MuteMedia::Desktop),
        ] {
            let text = format!("<mute xmlns='{namespace}' jid='r@muc/e'> True<x/></mute>");
            let element = xml::parse(text.as_bytes()).expect("XML");
            let mute: Mute = xml::from_element(&element).expect("a mute");
            assert_eq!(mute.media, media);
            assert_eq!(mute.jid.as_deref(), Some("r@muc/e"));
            assert_eq!(mute.actor, None);
            assert_eq!(mute.mute, Some(true));
        }
        for other in [
            "<mute xmlns='http://jitsi.org/jitmeet/smell'>true</mute>",
            "<unmute xmlns='http://jitsi.org/jitmeet/audio'>true</unmute>",
        ] {
            let element = xml::parse(other.as_bytes()).expect("XML");
            assert!(xml::from_element::<Mute>(&element).is_err());
        }
    }

    #[test]
    fn a_word_that_is_neither_is_no_mute() {
        let text = format!("<mute xmlns='{}'>maybe</mute>", ns::MUTE_AUDIO);
        let element = xml::parse(text.as_bytes()).expect("XML");
        let mute: Mute = xml::from_element(&element).expect("a mute");
        assert_eq!(mute.mute, None);
    }
}
