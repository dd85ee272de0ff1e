//! XML as the rest of the crate sees it: a generic [`Element`], and conversions
//! between it and the typed payloads.

pub(crate) mod codec;
mod limit;
pub mod ns;

use std::borrow::Borrow;

pub use limit::MAX_DEPTH;
pub use xmpp_parsers::minidom::Element;
pub use xso::exports::rxml::{NcName, NcNameStr, xml_ncname};

use xso::exports::rxml::Namespace;

/// Why a payload could not be read. The peer's doing.
pub type XmlError = xso::error::Error;

/// The XML form of a payload.
pub fn to_element<T: xso::AsXml>(payload: &T) -> Element {
    xso::transform(payload).expect("a payload of ours has an XML form")
}

/// The payload an element holds.
///
/// # Errors
/// The element has another name or namespace (`TypeMismatch`), lacks something
/// the payload cannot do without, or holds a value out of range.
pub fn from_element<T: xso::FromXml>(element: impl Borrow<Element>) -> Result<T, XmlError> {
    xso::transform(element.borrow())
}

/// The first of several elements that holds a `T`. Elements of the right name
/// with unusable content are passed over.
pub fn find<'a, T: xso::FromXml>(elements: impl IntoIterator<Item = &'a Element>) -> Option<T> {
    elements.into_iter().find_map(|e| from_element(e).ok())
}

/// Reads a document of one element.
///
/// Elements nested deeper than [`MAX_DEPTH`] are dropped.
///
/// # Errors
/// Not well-formed.
pub fn parse(xml: &[u8]) -> Result<Element, XmlError> {
    xso::from_bytes::<limit::Limited>(xml).map(|limited| limited.0)
}

/// Writes an element as a document of its own, without an XML declaration.
/// Control characters, which XML cannot express, are left out.
pub fn write(element: &Element) -> String {
    let bytes = xso::to_vec(element)
        .or_else(|_| xso::to_vec(&expressible(element)))
        .expect("an element without control characters can be written");
    String::from_utf8(bytes).expect("XML is written as UTF-8")
}

/// The element without what XML 1.0 §2.2 does not count as a character.
fn expressible(element: &Element) -> Element {
    let clean = |text: &str| -> String {
        text.chars()
            .filter(|c| {
                matches!(c, '\t' | '\n' | '\r')
                    || !c.is_ascii_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
            })
            .collect()
    };
    let mut copy = Element::bare(element.name(), element.ns());
    for ((namespace, name), value) in element.attrs() {
        copy.set_attr(namespace.clone(), name.clone(), clean(value));
    }
    for node in element.nodes() {
        match (node.as_element(), node.as_text()) {
            (Some(child), _) => drop(copy.append_child(expressible(child))),
            (None, Some(text)) => copy.append_text(clean(text)),
            (None, None) => {}
        }
    }
    copy
}

/// Adds `xml:lang` to an element made by hand.
pub(crate) fn set_lang(element: &mut Element, lang: &str) {
    element.set_attr(Namespace::XML, xml_ncname!("lang").to_owned(), lang);
}

/// An attribute without a namespace of an element made by hand.
pub(crate) fn set(element: &mut Element, name: &'static NcNameStr, value: impl Into<String>) {
    element.set_attr(Namespace::NONE, name.to_owned(), value.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_express_is_left_out() {
        let mut element = Element::bare("a", "urn:x");
        set(&mut element, xml_ncname!("b"), "1\u{0}2\u{ffff}");
        element.append_text("\u{7}x\ty<");
        element.append_child(Element::bare("c", "urn:y"));
        let read = parse(write(&element).as_bytes()).expect("XML");
        assert_eq!(read.attr("b"), Some("12"));
        assert_eq!(read.text(), "x\ty<");
        assert!(read.has_child("c", "urn:y"));
    }
}
