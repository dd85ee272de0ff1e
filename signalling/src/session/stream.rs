//! The XML stream of RFC 6120 §4: bytes to elements and back.
//!
//! In: the server's bytes, in any pieces. Out: its stream header, whole
//! first-level elements, the end of the stream.
//! An element that is nested too deep or too large is read to its end and
//! handed out without its content, so that a guest's stanza costs that guest
//! an error and not us the stream.
//!
//! A component's stream has a default namespace of its own (XEP-0114 §4);
//! here it is exchanged for `jabber:client` both ways.

use bytes::{BufMut, BytesMut};
use xso::AsXml;
use xso::exports::rxml::error::EndOrError;
use xso::exports::rxml::parser::EventMetrics;
use xso::exports::rxml::writer::{SimpleNamespaces, TrackNamespace};
use xso::exports::rxml::{
    self, AttrMap, Encoder, Event, Options, Parse, Parser, QName, WithOptions,
};

use crate::xml::ns::CLIENT;
use crate::xml::{Element, MAX_DEPTH, NcName};

/// Namespace of the stream element itself.
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// Namespace of a component's stream (XEP-0114 §4).
const COMPONENT: &str = "jabber:component:accept";

/// Octets of a stanza, and of one attribute. Prosody passes 256 KiB from a
/// client and 512 KiB from another server.
const MAX_OCTETS: usize = 1 << 20;
/// Elements in a stanza: each costs some 150 octets of memory.
const MAX_ELEMENTS: usize = 20_000;

/// What a server's stream is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The stream header; `id` is the stream's.
    Header { id: Option<String> },
    /// A first-level element.
    Element(Element),
    /// A first-level element that went over a bound: name and attributes.
    Oversized(Element),
    /// The server ended the stream.
    Footer,
}

/// What came is not an XML stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("{0}")]
    Xml(String),
    #[error("the document is not an XMPP stream but <{name} xmlns='{namespace}'>")]
    NotAStream { name: String, namespace: String },
    #[error("text between stanzas")]
    Text,
}

/// Reads one stream. A restart (after STARTTLS and SASL) takes a new reader.
pub struct StreamReader {
    parser: Parser,
    open: bool,
    /// The elements that are open, first level first.
    stack: Vec<Element>,
    /// Levels open below `stack` whose content is thrown away.
    ignored: usize,
    oversized: bool,
    octets: usize,
    elements: usize,
}

impl Default for StreamReader {
    fn default() -> Self {
        Self {
            parser: Parser::with_options(Options {
                max_token_length: MAX_OCTETS,
                ..Options::default()
            }),
            open: false,
            stack: Vec::new(),
            ignored: 0,
            oversized: false,
            octets: 0,
            elements: 0,
        }
    }
}

impl StreamReader {
    /// Reads from the front of `bytes`. `None`: all of it is taken and more
    /// is needed. After an error the stream is lost.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Incoming>, StreamError> {
        loop {
            // Between stanzas text must come out as it arrives: white space
            // that keeps the connection alive would pile up otherwise.
            self.parser.set_text_buffering(!self.stack.is_empty());
            let event = match self.parser.parse(bytes, false) {
                Ok(Some(event)) => event,
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(StreamError::Xml(error.to_string())),
            };
            if let Some(incoming) = self.take(event)? {
                return Ok(Some(incoming));
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Incoming>, StreamError> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, (namespace, name), mut attributes) if !self.open => {
                if namespace != STREAM || name != "stream" {
                    return Err(StreamError::NotAStream {
                        name: name.to_string(),
                        namespace: namespace.to_string(),
                    });
                }
                self.open = true;
                let id = attributes.remove(rxml::Namespace::none(), "id");
                Ok(Some(Incoming::Header { id }))
            }
            Event::StartElement(metrics, name, attributes) => {
                self.start(metrics, name, attributes);
                Ok(None)
            }
            Event::Text(metrics, text) => match self.stack.len() {
                0 if text.chars().all(|c| c.is_ascii_whitespace()) => Ok(None),
                0 => Err(StreamError::Text),
                _ => {
                    self.count(&metrics);
                    if let (Some(top), false) = (self.stack.last_mut(), self.oversized) {
                        top.append_text(text);
                    }
                    Ok(None)
                }
            },
            Event::EndElement(_) => Ok(self.end()),
        }
    }

    fn start(&mut self, metrics: EventMetrics, (namespace, name): QName, attributes: AttrMap) {
        self.elements += 1;
        self.count(&metrics);
        if !self.stack.is_empty()
            && (self.oversized || self.stack.len() >= MAX_DEPTH || self.elements > MAX_ELEMENTS)
        {
            self.oversized = true;
            self.ignored += 1;
            return;
        }
        let namespace = if namespace == COMPONENT {
            CLIENT.to_owned()
        } else {
            namespace.to_string()
        };
        let mut element = Element::bare(name.to_string(), namespace);
        *element.attrs_mut() = attributes;
        self.stack.push(element);
    }

    fn count(&mut self, metrics: &EventMetrics) {
        self.octets = self.octets.saturating_add(metrics.len());
        self.oversized |= self.octets > MAX_OCTETS;
    }

    fn end(&mut self) -> Option<Incoming> {
        if self.ignored > 0 {
            self.ignored -= 1;
            return None;
        }
        let Some(element) = self.stack.pop() else {
            return Some(Incoming::Footer);
        };
        if let Some(parent) = self.stack.last_mut() {
            if !self.oversized {
                parent.append_child(element);
            }
            return None;
        }
        self.octets = 0;
        self.elements = 0;
        if std::mem::take(&mut self.oversized) {
            let mut head = Element::bare(element.name(), element.ns());
            *head.attrs_mut() = element.attrs().clone();
            return Some(Incoming::Oversized(head));
        }
        Some(Incoming::Element(element))
    }
}

/// Which kind of stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Client,
    Component,
}

impl StreamKind {
    /// Writes the header of a stream to `domain`.
    pub fn write_header(self, domain: &str, out: &mut BytesMut) {
        let namespace = match self {
            Self::Client => CLIENT,
            Self::Component => COMPONENT,
        };
        out.put_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
        out.put_slice(namespace.as_bytes());
        out.put_slice(b"' xmlns:stream='");
        out.put_slice(STREAM.as_bytes());
        out.put_slice(b"' version='1.0' to='");
        for octet in domain.bytes() {
            match octet {
                b'&' => out.put_slice(b"&amp;"),
                b'<' => out.put_slice(b"&lt;"),
                b'\'' => out.put_slice(b"&apos;"),
                octet => out.put_u8(octet),
            }
        }
        out.put_slice(b"'>");
    }
}

/// Ends a stream.
pub const FOOTER: &[u8] = b"</stream:stream>";

/// Writes a first-level element. Nothing is written if it holds what XML
/// cannot express, such as a control character.
pub fn write_element(element: &Element, out: &mut BytesMut) -> Result<(), StreamError> {
    let before = out.len();
    encode(element, out).map_err(|error| {
        out.truncate(before);
        StreamError::Xml(error)
    })
}

/// What is `jabber:client` needs no declaration here: on the wire it takes
/// the namespace that the stream header has declared, whichever that is.
fn encode(element: &Element, out: &mut BytesMut) -> Result<(), String> {
    let stream = NcName::try_from("stream").expect("a literal name");
    let mut encoder = Encoder::<SimpleNamespaces>::new();
    let names = encoder.ns_tracker_mut();
    names.declare_fixed(Some(&stream), STREAM.into());
    names.declare_fixed(None, CLIENT.into());
    let mut header = BytesMut::new();
    for item in [
        rxml::Item::ElementHeadStart(STREAM.into(), &stream),
        rxml::Item::ElementHeadEnd,
    ] {
        encoder
            .encode_into_bytes(item, &mut header)
            .map_err(|error| error.to_string())?;
    }
    for item in element.as_xml_iter().map_err(|error| error.to_string())? {
        let item = item.map_err(|error| error.to_string())?;
        encoder
            .encode_into_bytes(item.as_rxml_item(), out)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' id='s1' version='1.0'>";

    fn read_all(reader: &mut StreamReader, mut bytes: &[u8]) -> Result<Vec<Incoming>, StreamError> {
        let mut all = Vec::new();
        while let Some(incoming) = reader.read(&mut bytes)? {
            all.push(incoming);
        }
        assert!(bytes.is_empty(), "everything is taken");
        Ok(all)
    }

    fn opened() -> StreamReader {
        let mut reader = StreamReader::default();
        let header = read_all(&mut reader, HEADER.as_bytes()).expect("a header");
        assert_eq!(
            header,
            [Incoming::Header {
                id: Some("s1".to_owned())
            }]
        );
        reader
    }

    #[test]
    fn reads_elements_white_space_and_the_end() {
        let mut reader = opened();
        let read = read_all(
            &mut reader,
            b" \n<iq type='get' id='a'><ping xmlns='urn:xmpp:ping'/></iq> <r xmlns='urn:xmpp:sm:3'/></stream:stream>",
        )
        .expect("a stream");
        let [
            Incoming::Element(iq),
            Incoming::Element(request),
            Incoming::Footer,
        ] = read.as_slice()
        else {
            panic!("{read:?}");
        };
        assert!(iq.is("iq", CLIENT) && iq.has_child("ping", "urn:xmpp:ping"));
        assert!(request.is("r", "urn:xmpp:sm:3"));
    }

    #[test]
    fn a_component_stream_speaks_jabber_client() {
        let mut reader = StreamReader::default();
        let header = HEADER.replace(CLIENT, COMPONENT);
        let stanza = "<iq type='error' id='a'><error type='cancel'/><forwarded xmlns='urn:xmpp:forward:0'>\
            <message xmlns='jabber:client'/></forwarded></iq>";
        let read = read_all(&mut reader, (header + stanza).as_bytes()).expect("a stream");
        let [Incoming::Header { .. }, Incoming::Element(iq)] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert!(iq.is("iq", CLIENT) && iq.has_child("error", CLIENT));
        let mut out = BytesMut::new();
        write_element(iq, &mut out).expect("an element");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "<iq id='a' type='error'><error type='cancel'></error><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client'></message></forwarded></iq>"
        );
    }

    /// A guest of a room can send all of these through the server.
    #[test]
    fn what_is_too_deep_too_wide_or_too_long_costs_only_itself() {
        let deep = "<a>".repeat(100_000) + &"</a>".repeat(100_000);
        let wide = "<a/>".repeat(MAX_ELEMENTS);
        let long = "x".repeat(MAX_OCTETS + 1);
        for content in [deep, wide, long] {
            let mut reader = opened();
            let text = format!("<iq type='get' id='a'>{content}</iq><iq type='get' id='b'/>");
            let read = read_all(&mut reader, text.as_bytes()).expect("a stream");
            let [Incoming::Oversized(first), Incoming::Element(second)] = read.as_slice() else {
                panic!("{} parts", read.len());
            };
            assert_eq!(
                (first.attr("id"), second.attr("id")),
                (Some("a"), Some("b"))
            );
            assert_eq!(first.nodes().count(), 0);
        }
    }

    #[test]
    fn an_attribute_may_be_longer_than_8_kib() {
        let mut reader = opened();
        let text = format!("<message a='{}'/>", "x".repeat(100_000));
        let read = read_all(&mut reader, text.as_bytes()).expect("a stream");
        assert!(matches!(read.as_slice(), [Incoming::Element(_)]));
    }

    #[test]
    fn depth_is_counted_for_each_stanza_anew() {
        let mut reader = opened();
        let nested = "<a>".repeat(MAX_DEPTH) + &"</a>".repeat(MAX_DEPTH);
        for _ in 0..3 {
            let read = read_all(&mut reader, nested.as_bytes()).expect("a stream");
            assert!(matches!(read.as_slice(), [Incoming::Element(_)]));
        }
    }

    #[test]
    fn refuses_what_is_no_stream() {
        let mut reader = StreamReader::default();
        assert!(matches!(
            read_all(&mut reader, b"<html>"),
            Err(StreamError::NotAStream { .. })
        ));
        assert_eq!(read_all(&mut opened(), b"text"), Err(StreamError::Text));
        assert!(read_all(&mut opened(), b"<a></b>").is_err());
    }

    #[test]
    fn what_xml_cannot_express_is_not_written() {
        let mut element = Element::bare("message", CLIENT);
        element.append_text("a\u{0}b");
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(write_element(&element, &mut out).is_err());
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn the_header_cannot_be_broken_out_of() {
        let mut out = BytesMut::new();
        StreamKind::Client.write_header("a'><b&", &mut out);
        let mut reader = StreamReader::default();
        let read = read_all(&mut reader, &out).expect("a header");
        assert_eq!(read, [Incoming::Header { id: None }]);
    }

    proptest! {
        /// How the network cuts the bytes makes no difference.
        #[test]
        fn pieces_read_like_the_whole(cuts in prop::collection::vec(0usize..600, 0..8)) {
            let text = format!(
                "{HEADER}<presence from='r@c/n'><x xmlns='u:x'><item a='&lt;&#228;'>t\u{e4}xt</item></x></presence> \
                 <message><body>{}</body></message></stream:stream>", "y".repeat(300));
            let whole = read_all(&mut StreamReader::default(), text.as_bytes()).expect("a stream");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut reader = StreamReader::default();
            let mut pieces = Vec::new();
            for pair in cuts.windows(2) {
                pieces.extend(read_all(&mut reader, &text.as_bytes()[pair[0]..pair[1]]).expect("a stream"));
            }
            prop_assert_eq!(whole, pieces);
        }

        /// Any bytes at all are an answer or an error.
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = opened();
            let mut rest = bytes.as_slice();
            while let Ok(Some(_)) = reader.read(&mut rest) {}
        }
    }
}
