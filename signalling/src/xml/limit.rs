//! Reading an element without letting its nesting grow.
//!
//! An element is built, walked and dropped by recursion, so a stanza of some
//! hundred kilobytes of opening tags would exhaust the stack. No element of
//! this protocol is nested deeper than a dozen levels.

use xso::error::{Error, FromEventsError};
use xso::exports::rxml::{AttrMap, Event, QName};
use xso::minidom_compat::ElementFromEvents;
use xso::{Context, FromEventsBuilder, FromXml};

use super::Element;

/// Levels that are kept, the stanza itself being the first. Deeper elements are
/// dropped with their content, as unknown children are.
pub const MAX_DEPTH: usize = 32;

/// An element of at most [`MAX_DEPTH`] levels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limited(pub(crate) Element);

/// Builds a [`Limited`].
pub(crate) struct Builder {
    inner: ElementFromEvents,
    depth: usize,
}

impl FromXml for Limited {
    type Builder = Builder;

    fn from_events(
        name: QName,
        attributes: AttrMap,
        _context: &Context<'_>,
    ) -> Result<Builder, FromEventsError> {
        Ok(Builder {
            inner: ElementFromEvents::new(name, attributes),
            depth: 1,
        })
    }
}

impl FromEventsBuilder for Builder {
    type Output = Limited;

    fn feed(&mut self, event: Event, context: &Context<'_>) -> Result<Option<Limited>, Error> {
        let keep = match &event {
            Event::StartElement(..) => {
                self.depth += 1;
                self.depth <= MAX_DEPTH
            }
            Event::EndElement(_) => {
                self.depth -= 1;
                self.depth < MAX_DEPTH
            }
            Event::Text(..) | Event::XmlDeclaration(..) => self.depth <= MAX_DEPTH,
        };
        if keep {
            Ok(self.inner.feed(event, context)?.map(Limited))
        } else {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    fn depth(element: &Element) -> usize {
        1 + element.children().map(depth).max().unwrap_or(0)
    }

    #[test]
    fn elements_nested_too_deep_are_dropped_and_the_rest_is_kept() {
        let deep = 50_000;
        let xml = format!(
            "<iq xmlns='jabber:client'>{}x{}<last/></iq>",
            "<a>".repeat(deep),
            "</a>".repeat(deep)
        );
        let element = parse(xml.as_bytes()).expect("well-formed");
        assert_eq!(depth(&element), MAX_DEPTH);
        assert_eq!(
            element.children().last().map(Element::name),
            Some("last"),
            "what follows a deep element is still read"
        );
    }

    #[test]
    fn an_element_of_the_greatest_depth_is_whole() {
        let xml = format!(
            "<iq xmlns='jabber:client'>{}x{}</iq>",
            "<a>".repeat(MAX_DEPTH - 1),
            "</a>".repeat(MAX_DEPTH - 1)
        );
        let element = parse(xml.as_bytes()).expect("well-formed");
        let mut innermost = &element;
        while let Some(child) = innermost.children().next() {
            innermost = child;
        }
        assert_eq!(innermost.text(), "x");
    }
}
