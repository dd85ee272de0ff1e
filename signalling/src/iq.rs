//! Requests and their answers (RFC 6120 §8.2.3), errors (§8.3), and the table of
//! requests that wait for an answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::jid::Jid;
use crate::xml::{self, Element, codec::words, ns, xml_ncname};

/// A request or an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Iq {
    pub from: Option<Jid>,
    pub to: Option<Jid>,
    /// To be echoed byte for byte: a room packs addresses into it.
    pub id: String,
    pub kind: Kind,
}

/// What an [`Iq`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Get(Element),
    Set(Element),
    Result(Option<Element>),
    Error(StanzaError),
}

/// Why an element is no usable [`Iq`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IqError {
    #[error("not an iq")]
    NotAnIq,
    #[error("an iq without an id cannot be answered")]
    NoId,
    #[error("a sender or recipient that is no address")]
    BadAddress,
    /// A request that is to be answered with what is held here.
    #[error("a malformed request")]
    BadRequest(Box<Iq>),
    #[error("a malformed answer")]
    BadAnswer,
}

impl Iq {
    /// A request that asks.
    pub fn get<T: xso::AsXml>(id: impl Into<String>, to: impl Into<Jid>, payload: &T) -> Self {
        Self::new(id, to, Kind::Get(xml::to_element(payload)))
    }

    /// A request that changes something.
    pub fn set<T: xso::AsXml>(id: impl Into<String>, to: impl Into<Jid>, payload: &T) -> Self {
        Self::new(id, to, Kind::Set(xml::to_element(payload)))
    }

    /// Any IQ to that address.
    pub fn new(id: impl Into<String>, to: impl Into<Jid>, kind: Kind) -> Self {
        Self {
            from: None,
            to: Some(to.into()),
            id: id.into(),
            kind,
        }
    }

    /// Whether it asks for an answer, and if so its payload.
    pub fn request(&self) -> Option<&Element> {
        match &self.kind {
            Kind::Get(payload) | Kind::Set(payload) => Some(payload),
            Kind::Result(_) | Kind::Error(_) => None,
        }
    }

    /// The answer of that kind to this request: same id, addresses exchanged.
    pub fn answer(&self, kind: Kind) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone(),
            kind,
        }
    }

    /// The answer without content.
    pub fn done(&self) -> Self {
        self.answer(Kind::Result(None))
    }

    /// The answer with that content.
    pub fn result<T: xso::AsXml>(&self, payload: &T) -> Self {
        self.answer(Kind::Result(Some(xml::to_element(payload))))
    }

    /// The answer that refuses.
    pub fn error(&self, error: StanzaError) -> Self {
        self.answer(Kind::Error(error))
    }

    /// Reads an IQ. A request echoed beside an error is passed over.
    ///
    /// # Errors
    /// See [`IqError`]; a bad request carries its answer.
    pub fn from_element(element: &Element) -> Result<Self, IqError> {
        if element.name() != "iq" || !is_stanza(element) {
            return Err(IqError::NotAnIq);
        }
        let id = element.attr("id").ok_or(IqError::NoId)?;
        let from = address(element, "from")?;
        let to = address(element, "to")?;
        let iq = |kind| Self {
            from,
            to,
            id: id.to_owned(),
            kind,
        };
        let first = element.children().next();
        let bad_request = || {
            let error = StanzaError::new(Condition::BadRequest);
            Kind::Error(error)
        };
        match (element.attr("type"), first) {
            (Some("get"), Some(payload)) => Ok(iq(Kind::Get(payload.clone()))),
            (Some("set"), Some(payload)) => Ok(iq(Kind::Set(payload.clone()))),
            (Some("result"), payload) => Ok(iq(Kind::Result(payload.cloned()))),
            (Some("error"), _) => {
                let error = element
                    .children()
                    .find_map(StanzaError::from_element)
                    .ok_or(IqError::BadAnswer)?;
                Ok(iq(Kind::Error(error)))
            }
            _ => {
                let malformed = iq(bad_request());
                let reply = Self {
                    from: malformed.to,
                    to: malformed.from,
                    ..malformed
                };
                Err(IqError::BadRequest(Box::new(reply)))
            }
        }
    }

    /// The stanza.
    pub fn to_element(&self) -> Element {
        let mut element = stanza("iq", self.from.as_ref(), self.to.as_ref(), Some(&self.id));
        let (kind, child) = match &self.kind {
            Kind::Get(payload) => ("get", Some(payload.clone())),
            Kind::Set(payload) => ("set", Some(payload.clone())),
            Kind::Result(payload) => ("result", payload.clone()),
            Kind::Error(error) => ("error", Some(error.to_element())),
        };
        xml::set(&mut element, xml_ncname!("type"), kind);
        if let Some(child) = child {
            element.append_child(child);
        }
        element
    }
}

impl From<Iq> for Element {
    fn from(iq: Iq) -> Self {
        iq.to_element()
    }
}

/// Whether an element is in a namespace of stanzas.
pub(crate) fn is_stanza(element: &Element) -> bool {
    element.has_ns(ns::CLIENT) || element.has_ns(ns::COMPONENT)
}

/// The address in an attribute.
pub(crate) fn address(element: &Element, name: &str) -> Result<Option<Jid>, IqError> {
    element
        .attr(name)
        .map(Jid::new)
        .transpose()
        .map_err(|_| IqError::BadAddress)
}

/// An empty stanza.
pub(crate) fn stanza(
    name: &'static str,
    from: Option<&Jid>,
    to: Option<&Jid>,
    id: Option<&str>,
) -> Element {
    let mut element = Element::bare(name, ns::CLIENT);
    if let Some(from) = from {
        xml::set(&mut element, xml_ncname!("from"), from.as_str());
    }
    if let Some(to) = to {
        xml::set(&mut element, xml_ncname!("to"), to.as_str());
    }
    if let Some(id) = id {
        xml::set(&mut element, xml_ncname!("id"), id);
    }
    element
}

words! {
    /// Defined conditions of a stanza error (RFC 6120 §8.3.3).
    Condition {
        BadRequest = "bad-request",
        Conflict = "conflict",
        FeatureNotImplemented = "feature-not-implemented",
        Forbidden = "forbidden",
        Gone = "gone",
        InternalServerError = "internal-server-error",
        ItemNotFound = "item-not-found",
        JidMalformed = "jid-malformed",
        NotAcceptable = "not-acceptable",
        NotAllowed = "not-allowed",
        NotAuthorized = "not-authorized",
        PolicyViolation = "policy-violation",
        RecipientUnavailable = "recipient-unavailable",
        Redirect = "redirect",
        RegistrationRequired = "registration-required",
        RemoteServerNotFound = "remote-server-not-found",
        RemoteServerTimeout = "remote-server-timeout",
        ResourceConstraint = "resource-constraint",
        ServiceUnavailable = "service-unavailable",
        SubscriptionRequired = "subscription-required",
        UndefinedCondition = "undefined-condition",
        UnexpectedRequest = "unexpected-request",
    }
}

words! {
    /// What to do about an error (RFC 6120 §8.3.2).
    ErrorType {
        Auth = "auth",
        Cancel = "cancel",
        Continue = "continue",
        Modify = "modify",
        Wait = "wait",
    }
}

impl Condition {
    /// The type that RFC 6120 gives to a condition.
    pub fn error_type(&self) -> ErrorType {
        match self {
            Self::BadRequest
            | Self::JidMalformed
            | Self::NotAcceptable
            | Self::PolicyViolation
            | Self::Redirect => ErrorType::Modify,
            Self::Forbidden
            | Self::NotAuthorized
            | Self::RegistrationRequired
            | Self::SubscriptionRequired => ErrorType::Auth,
            Self::RecipientUnavailable
            | Self::RemoteServerTimeout
            | Self::ResourceConstraint
            | Self::UnexpectedRequest => ErrorType::Wait,
            _ => ErrorType::Cancel,
        }
    }
}

/// A stanza error. The protocol has conditions of its own beside the defined
/// one (colibri2 adds two), so there may be several.
#[derive(Clone, Debug, PartialEq)]
pub struct StanzaError {
    pub kind: ErrorType,
    pub condition: Condition,
    pub text: Option<String>,
    /// Application-specific conditions.
    pub details: Vec<Element>,
}

impl StanzaError {
    /// An error of that condition's usual type.
    pub fn new(condition: Condition) -> Self {
        Self {
            kind: condition.error_type(),
            condition,
            text: None,
            details: Vec::new(),
        }
    }

    /// The same with an explanation for people.
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The same with a condition of an application.
    pub fn with_detail<T: xso::AsXml>(mut self, detail: &T) -> Self {
        self.details.push(xml::to_element(detail));
        self
    }

    /// Whether it has that application-specific condition.
    pub fn has_detail(&self, name: &str, namespace: &str) -> bool {
        self.details.iter().any(|e| e.is(name, namespace))
    }

    /// Reads an `<error/>`. `None` if it is something else. An unknown or absent
    /// condition is `undefined-condition` (RFC 6120 §8.3.3).
    pub fn from_element(element: &Element) -> Option<Self> {
        if element.name() != "error" || !is_stanza(element) {
            return None;
        }
        let mut error = Self::new(Condition::UndefinedCondition);
        for child in element.children() {
            // jicofo writes its text without the namespace.
            if child.name() == "text" && (child.has_ns(ns::STANZAS) || is_stanza(child)) {
                error.text = Some(child.text());
            } else if child.has_ns(ns::STANZAS) {
                error.condition = match Condition::from(child.name()) {
                    Condition::Other(_) => Condition::UndefinedCondition,
                    known => known,
                };
            } else {
                error.details.push(child.clone());
            }
        }
        error.kind = element
            .attr("type")
            .map_or_else(|| error.condition.error_type(), ErrorType::from);
        Some(error)
    }

    /// The `<error/>`.
    pub fn to_element(&self) -> Element {
        let mut element = Element::bare("error", ns::CLIENT);
        xml::set(&mut element, xml_ncname!("type"), self.kind.as_str());
        element.append_child(Element::bare(self.condition.as_str(), ns::STANZAS));
        if let Some(text) = &self.text {
            let mut child = Element::bare("text", ns::STANZAS);
            xml::set_lang(&mut child, "en");
            child.append_text(text);
            element.append_child(child);
        }
        for detail in &self.details {
            element.append_child(detail.clone());
        }
        element
    }
}

impl std::fmt::Display for StanzaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.condition)?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StanzaError {}

/// Makes ids for requests: unlike those of another process or an earlier start.
#[derive(Clone, Debug)]
pub struct Ids {
    state: u64,
}

impl Ids {
    /// The seed should be random.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next id: 16 hexadecimal digits.
    pub fn next_id(&mut self) -> String {
        // SplitMix64 visits every state once, and its output is a bijection of
        // the state, so no id repeats within 2^64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016x}", z ^ (z >> 31))
    }
}

/// Requests that wait for their answers.
///
/// An answer counts only if it comes from the address that was asked: an id can
/// be guessed or learned by others in a room.
#[derive(Debug)]
pub struct Pending<T> {
    waiting: HashMap<String, Waiting<T>>,
    deadlines: BTreeSet<(Instant, String)>,
}

#[derive(Debug)]
struct Waiting<T> {
    to: Option<Jid>,
    deadline: Instant,
    context: T,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<T> Pending<T> {
    /// Notes a request that was sent, and what is to be known at its answer.
    pub fn insert(&mut self, request: &Iq, deadline: Instant, context: T) {
        let waiting = Waiting {
            to: request.to.clone(),
            deadline,
            context,
        };
        self.deadlines.insert((deadline, request.id.clone()));
        if let Some(earlier) = self.waiting.insert(request.id.clone(), waiting)
            && earlier.deadline != deadline
        {
            self.deadlines
                .remove(&(earlier.deadline, request.id.clone()));
        }
    }

    /// What was noted for the request that this answers. `None`: it answers
    /// nothing that is waiting, or comes from somebody who was not asked.
    pub fn take(&mut self, answer: &Iq) -> Option<T> {
        let (Kind::Result(_) | Kind::Error(_)) = answer.kind else {
            return None;
        };
        let waiting = self.waiting.get(&answer.id)?;
        let genuine = match (&waiting.to, &answer.from) {
            // Only our own server leaves the sender out.
            (_, None) => true,
            (Some(asked), Some(from)) => asked == from,
            // What is sent to nobody is answered by the server or the account.
            (None, Some(from)) => from.resource().is_none(),
        };
        if !genuine {
            return None;
        }
        let waiting = self.waiting.remove(&answer.id)?;
        self.deadlines
            .remove(&(waiting.deadline, answer.id.clone()));
        Some(waiting.context)
    }

    /// When [`Pending::expired`] has something to say next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A request that has waited until its deadline. Call until `None`.
    pub fn expired(&mut self, now: Instant) -> Option<T> {
        let (at, _) = self.deadlines.first()?;
        if *at > now {
            return None;
        }
        let (_, id) = self.deadlines.pop_first()?;
        self.waiting.remove(&id).map(|waiting| waiting.context)
    }

    /// Gives up all requests, as when the session that would bring their
    /// answers is lost. In the order of their deadlines.
    pub fn drain(&mut self) -> Vec<T> {
        let ids: BTreeMap<_, _> = std::mem::take(&mut self.deadlines)
            .into_iter()
            .enumerate()
            .collect();
        ids.into_values()
            .filter_map(|(_, id)| self.waiting.remove(&id))
            .map(|waiting| waiting.context)
            .collect()
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
