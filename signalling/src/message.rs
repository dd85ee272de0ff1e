//! The message stanza (RFC 6121 §5), as far as programs speak by it: Jitsi's
//! server plugins send JSON in messages.

use crate::iq::{self, IqError};
use crate::jid::Jid;
use crate::xml::{self, Element, ns, xml_ncname};

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub from: Option<Jid>,
    pub to: Option<Jid>,
    pub id: Option<String>,
    /// The `type`; absent means `normal`.
    pub kind: Option<String>,
    /// All children, in order.
    pub payloads: Vec<Element>,
}

impl Message {
    /// A message without content.
    pub fn new(to: impl Into<Jid>) -> Self {
        Self {
            from: None,
            to: Some(to.into()),
            id: None,
            kind: None,
            payloads: Vec::new(),
        }
    }

    /// The same with one more child.
    pub fn with<T: xso::AsXml>(mut self, payload: &T) -> Self {
        self.payloads.push(xml::to_element(payload));
        self
    }

    /// The first child that holds a `T`.
    pub fn payload<T: xso::FromXml>(&self) -> Option<T> {
        xml::find(&self.payloads)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Another stanza, or an address that is none.
    pub fn from_element(element: &Element) -> Result<Self, IqError> {
        if element.name() != "message" || !element.has_ns(ns::CLIENT) {
            return Err(IqError::NotAnIq);
        }
        Ok(Self {
            from: iq::address(element, "from")?,
            to: iq::address(element, "to")?,
            id: element.attr("id").map(str::to_owned),
            kind: element.attr("type").map(str::to_owned),
            payloads: element.children().cloned().collect(),
        })
    }

    /// The stanza.
    pub fn to_element(&self) -> Element {
        let mut element = iq::stanza(
            "message",
            self.from.as_ref(),
            self.to.as_ref(),
            self.id.as_deref(),
        );
        if let Some(kind) = &self.kind {
            xml::set(&mut element, xml_ncname!("type"), kind);
        }
        for payload in &self.payloads {
            element.append_child(payload.clone());
        }
        element
    }
}

impl From<Message> for Element {
    fn from(message: Message) -> Self {
        message.to_element()
    }
}
