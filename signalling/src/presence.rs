//! The presence stanza (RFC 6121 §4). Its extensions are elements, read with
//! [`Presence::payload`].

use crate::iq::{self, IqError, StanzaError};
use crate::jid::Jid;
use crate::xml::{self, Element, codec::words, ns, xml_ncname};

words! {
    /// The `type` of a presence; absent is `Available`.
    PresenceType {
        Available = "available",
        Error = "error",
        Probe = "probe",
        Subscribe = "subscribe",
        Subscribed = "subscribed",
        Unavailable = "unavailable",
        Unsubscribe = "unsubscribe",
        Unsubscribed = "unsubscribed",
    }
}

/// A presence.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    pub from: Option<Jid>,
    pub to: Option<Jid>,
    pub id: Option<String>,
    pub kind: PresenceType,
    /// All children, in order.
    pub payloads: Vec<Element>,
}

impl Presence {
    /// A presence without content.
    pub fn new(kind: PresenceType) -> Self {
        Self {
            from: None,
            to: None,
            id: None,
            kind,
            payloads: Vec::new(),
        }
    }

    /// "I am here", to that address.
    pub fn available(to: impl Into<Jid>) -> Self {
        Self::new(PresenceType::Available).with_to(to)
    }

    /// "I am gone", to that address.
    pub fn unavailable(to: impl Into<Jid>) -> Self {
        Self::new(PresenceType::Unavailable).with_to(to)
    }

    /// The same to that address.
    pub fn with_to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
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

    /// The error in a presence of type `error`.
    pub fn error(&self) -> Option<StanzaError> {
        self.payloads.iter().find_map(StanzaError::from_element)
    }

    /// Reads a presence.
    ///
    /// # Errors
    /// Another stanza, or an address that is none.
    pub fn from_element(element: &Element) -> Result<Self, IqError> {
        if element.name() != "presence" || !element.has_ns(ns::CLIENT) {
            return Err(IqError::NotAnIq);
        }
        Ok(Self {
            from: iq::address(element, "from")?,
            to: iq::address(element, "to")?,
            id: element.attr("id").map(str::to_owned),
            kind: element
                .attr("type")
                .map_or(PresenceType::Available, PresenceType::from),
            payloads: element.children().cloned().collect(),
        })
    }

    /// The stanza.
    pub fn to_element(&self) -> Element {
        let mut element = iq::stanza(
            "presence",
            self.from.as_ref(),
            self.to.as_ref(),
            self.id.as_deref(),
        );
        if self.kind != PresenceType::Available {
            xml::set(&mut element, xml_ncname!("type"), self.kind.as_str());
        }
        for payload in &self.payloads {
            element.append_child(payload.clone());
        }
        element
    }
}

impl From<Presence> for Element {
    fn from(presence: Presence) -> Self {
        presence.to_element()
    }
}
