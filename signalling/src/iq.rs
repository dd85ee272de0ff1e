//! Requests and their answers (RFC 6120 §8.2.3), errors (§8.3), and the table of
//! requests that wait for an answer.

use std::collections::{BTreeSet, HashMap};
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
        if element.name() != "iq" || !element.has_ns(ns::CLIENT) {
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
        if element.name() != "error" || !element.has_ns(ns::CLIENT) {
            return None;
        }
        let mut error = Self::new(Condition::UndefinedCondition);
        for child in element.children() {
            // jicofo writes its text without the namespace.
            if child.name() == "text" && (child.has_ns(ns::STANZAS) || child.has_ns(ns::CLIENT)) {
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
        let condition = match &self.condition {
            Condition::Other(_) => &Condition::UndefinedCondition,
            known => known,
        };
        element.append_child(Element::bare(condition.as_str(), ns::STANZAS));
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

    /// As [`Pending::expired`], but where `again` names another deadline the
    /// request goes on waiting, with its context as `again` leaves it.
    pub fn overdue(
        &mut self,
        now: Instant,
        again: impl FnOnce(&mut T) -> Option<Instant>,
    ) -> Option<T>
    where
        T: Clone,
    {
        let (at, _) = self.deadlines.first()?;
        if *at > now {
            return None;
        }
        let (_, id) = self.deadlines.pop_first()?;
        let waiting = self.waiting.get_mut(&id)?;
        let context = waiting.context.clone();
        match again(&mut waiting.context) {
            Some(deadline) => {
                waiting.deadline = deadline;
                self.deadlines.insert((deadline, id));
            }
            None => {
                self.waiting.remove(&id);
            }
        }
        Some(context)
    }

    /// Gives up all requests, as when the session that would bring their
    /// answers is lost. In the order of their deadlines.
    pub fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.deadlines)
            .into_iter()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disco::Ping;

    fn jid(text: &str) -> Jid {
        Jid::new(text).expect("an address")
    }

    fn read(text: &str) -> Result<Iq, IqError> {
        Iq::from_element(&xml::parse(text.as_bytes()).expect("XML"))
    }

    #[test]
    fn an_answer_echoes_the_id_and_exchanges_the_addresses() {
        let request = read(
            "<iq xmlns='jabber:client' type='get' id='a+/=' from='r@muc/focus' to='b@host/r'>\
             <ping xmlns='urn:xmpp:ping'/></iq>",
        )
        .expect("a request");
        let answer = request.done();
        assert_eq!(answer.id, "a+/=");
        assert_eq!(answer.to, Some(jid("r@muc/focus")));
        assert_eq!(answer.from, Some(jid("b@host/r")));
        let text = xml::write(&answer.to_element());
        assert!(text.contains("type='result'") || text.contains("type=\"result\""));
    }

    #[test]
    fn malformed_requests_are_told_from_malformed_answers() {
        for bad in [
            "<iq xmlns='jabber:client' type='get' id='1' from='a@b' to='c@d'/>",
            "<iq xmlns='jabber:client' type='odd' id='1' from='a@b' to='c@d'><x xmlns='y'/></iq>",
            "<iq xmlns='jabber:client' id='1' from='a@b' to='c@d'><x xmlns='y'/></iq>",
        ] {
            let Err(IqError::BadRequest(answer)) = read(bad) else {
                panic!("{bad} is to be answered");
            };
            assert_eq!(answer.to, Some(jid("a@b")));
            assert_eq!(answer.from, Some(jid("c@d")));
            assert_eq!(answer.id, "1");
            let Kind::Error(error) = &answer.kind else {
                panic!("an error");
            };
            assert_eq!(error.condition, Condition::BadRequest);
        }
        let fault = |text| read(text).expect_err("a fault");
        assert_eq!(
            fault("<iq xmlns='jabber:client' type='error' id='1'/>"),
            IqError::BadAnswer
        );
        assert_eq!(
            fault("<iq xmlns='jabber:client' type='result'/>"),
            IqError::NoId
        );
        assert_eq!(
            fault("<iq xmlns='jabber:client' type='result' id='1' from='@'/>"),
            IqError::BadAddress
        );
        assert_eq!(
            fault("<iq xmlns='jabber:server' type='result' id='1'/>"),
            IqError::NotAnIq
        );
        assert_eq!(
            fault("<presence xmlns='jabber:client' id='1'/>"),
            IqError::NotAnIq
        );
    }

    #[test]
    fn only_requests_ask_for_an_answer() {
        let request = Iq::get("1", jid("a@b"), &Ping);
        assert!(request.request().is_some());
        assert!(Iq::set("1", jid("a@b"), &Ping).request().is_some());
        assert!(request.result(&Ping).request().is_none());
        let error = request.error(StanzaError::new(Condition::NotAllowed));
        assert!(error.request().is_none());
    }

    #[test]
    fn an_error_keeps_all_its_conditions() {
        let text = "<iq xmlns='jabber:client' type='error' id='1'>\
            <conference xmlns='http://jitsi.org/protocol/focus'/>\
            <error type='cancel'>\
            <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
            <text xml:lang='en'>gone</text>\
            <error xmlns='jitsi:colibri2' reason='unknown_endpoint'/>\
            <endpoint xmlns='jitsi:colibri2' id='e'/></error></iq>";
        let Kind::Error(error) = read(text).expect("an error").kind else {
            panic!("an error");
        };
        assert_eq!(error.condition, Condition::ItemNotFound);
        assert_eq!(error.kind, ErrorType::Cancel);
        assert_eq!(error.text.as_deref(), Some("gone"));
        assert_eq!(error.details.len(), 2);
        assert!(error.has_detail("endpoint", ns::COLIBRI2));
        assert!(!error.has_detail("endpoint", ns::COLIBRI));
        assert_eq!(error.to_string(), "item-not-found (gone)");
    }

    #[test]
    fn an_unknown_condition_is_undefined() {
        let text = "<error xmlns='jabber:client'>\
            <flood xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let element = xml::parse(text.as_bytes()).expect("XML");
        let error = StanzaError::from_element(&element).expect("an error");
        assert_eq!(error.condition, Condition::UndefinedCondition);
        assert_eq!(error.kind, ErrorType::Cancel);
        // Nor is one written, whatever it would do to the XML.
        let odd = StanzaError::new(Condition::Other("<".to_owned()));
        let again = StanzaError::from_element(&odd.to_element()).expect("an error");
        assert_eq!(again.condition, Condition::UndefinedCondition);
    }

    #[test]
    fn conditions_have_the_types_of_rfc_6120() {
        for (condition, kind) in [
            (Condition::BadRequest, ErrorType::Modify),
            (Condition::NotAuthorized, ErrorType::Auth),
            (Condition::Forbidden, ErrorType::Auth),
            (Condition::ItemNotFound, ErrorType::Cancel),
            (Condition::ResourceConstraint, ErrorType::Wait),
            (Condition::NotAcceptable, ErrorType::Modify),
            (Condition::UnexpectedRequest, ErrorType::Wait),
            (Condition::ServiceUnavailable, ErrorType::Cancel),
        ] {
            assert_eq!(condition.error_type(), kind, "{condition}");
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = Ids::new(7);
        let many: BTreeSet<_> = (0..1000).map(|_| ids.next_id()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|id| id.len() == 16));
        assert_ne!(Ids::new(8).next_id(), Ids::new(7).next_id());
    }

    fn from(sender: Option<&str>, id: &str) -> Iq {
        Iq {
            from: sender.map(jid),
            to: None,
            id: id.to_owned(),
            kind: Kind::Result(None),
        }
    }

    #[test]
    fn an_answer_counts_once_and_only_from_whom_was_asked() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let request = Iq::get("1", jid("r@muc/a"), &Ping);
        pending.insert(&request, now, "context");
        assert_eq!(pending.take(&from(Some("r@muc/b"), "1")), None);
        assert_eq!(pending.take(&from(Some("r@muc/a"), "2")), None);
        assert_eq!(pending.take(&request), None, "a request answers nothing");
        assert_eq!(pending.len(), 1);
        assert_eq!(pending.take(&from(Some("r@muc/a"), "1")), Some("context"));
        assert_eq!(pending.take(&from(Some("r@muc/a"), "1")), None);
        assert!(pending.is_empty());
        assert_eq!(pending.next_timeout(), None);
        assert_eq!(pending.expired(now), None);
    }

    #[test]
    fn an_overdue_request_may_still_be_answered() {
        let start = Instant::now();
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        let mut pending = Pending::default();
        pending.insert(&Iq::get("1", jid("r@muc/a"), &Ping), at(1), 0);
        let again = |times: &mut u32| {
            *times += 1;
            (*times < 2).then(|| at(5))
        };
        assert_eq!(pending.overdue(at(0), again), None);
        assert_eq!(pending.overdue(at(1), again), Some(0));
        assert_eq!(pending.next_timeout(), Some(at(5)));
        assert_eq!(pending.overdue(at(4), again), None);
        let mut other = Pending::default();
        other.insert(&Iq::get("1", jid("r@muc/a"), &Ping), at(1), 0);
        other.overdue(at(1), again);
        assert_eq!(other.take(&from(Some("r@muc/a"), "1")), Some(1));
        assert_eq!(other.next_timeout(), None);
        assert_eq!(pending.overdue(at(5), again), Some(1));
        assert!(pending.is_empty());
    }

    #[test]
    fn the_own_server_answers_for_nobody() {
        let mut pending = Pending::default();
        for (id, sender) in [("1", None), ("2", Some("host")), ("3", Some("me@host"))] {
            let mut request = Iq::get(id, jid("x"), &Ping);
            request.to = None;
            pending.insert(&request, Instant::now(), id);
            assert_eq!(pending.take(&from(sender, id)), Some(id));
        }
        let mut request = Iq::get("4", jid("x"), &Ping);
        request.to = None;
        pending.insert(&request, Instant::now(), "4");
        assert_eq!(pending.take(&from(Some("x@host/r"), "4")), None);
    }

    #[test]
    fn requests_expire_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pending = Pending::default();
        for (id, seconds) in [("b", 20), ("a", 10), ("c", 30), ("d", 5)] {
            pending.insert(&Iq::get(id, jid("x"), &Ping), at(seconds), id);
        }
        // The same id again replaces the earlier request and its deadline.
        pending.insert(&Iq::get("d", jid("x"), &Ping), at(40), "D");
        assert_eq!(pending.next_timeout(), Some(at(10)));
        assert_eq!(pending.expired(at(9)), None);
        assert_eq!(pending.expired(at(20)), Some("a"));
        assert_eq!(pending.expired(at(20)), Some("b"));
        assert_eq!(pending.expired(at(20)), None);
        assert_eq!(pending.drain(), ["c", "D"]);
        assert!(pending.is_empty());
        assert_eq!(pending.next_timeout(), None);
    }
}
