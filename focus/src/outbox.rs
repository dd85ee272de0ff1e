//! What leaves the state machines: stanzas, answers to HTTP requests, and the
//! table of requests that wait for an answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use viaduct_signalling::iq::{Ids, Iq, Kind, Pending, StanzaError};
use viaduct_signalling::jid::{BareJid, FullJid, Jid};
use viaduct_signalling::jitsi::Conference as ConferenceIq;
use viaduct_signalling::presence::Presence;
use viaduct_signalling::xml::Element;

/// One of the focus' connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// The account that is the occupant `focus`.
    Client,
    /// A server for bridges alone (`jicofo.xmpp.service`).
    Service,
    /// The component that only answers requests.
    Component,
}

/// What leaves.
#[derive(Debug)]
pub enum Output {
    Stanza(Link, Element),
    /// The answer to a conference request that came over HTTP.
    Http(u64, Result<ConferenceIq, StanzaError>),
}

/// What an answer is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// A bridge's health check, by number.
    Health {
        bridge: FullJid,
        number: u64,
    },
    /// The server's own sign of life.
    ServerPing {
        sent: Instant,
    },
    BreweryConfigured,
    Room(BareJid, RoomRequest),
}

/// What an answer is for, within a conference.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomRequest {
    /// The form of a room that could not be entered without its password.
    Password,
    Form,
    Configured,
    Grant {
        nick: String,
    },
    Features {
        nick: String,
        ver: String,
    },
    /// session-initiate, source-add or source-remove.
    Jingle {
        nick: String,
        sid: String,
        initiate: bool,
    },
    /// An endpoint on a bridge.
    Allocation(Place),
    Update {
        session: u32,
        nick: String,
    },
    /// Does the bridge still have the conference?
    Probe {
        session: u32,
    },
}

/// An endpoint that a bridge was asked for. The answer is waited for longer than
/// it should take: a bridge that is slow is not dead.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub session: u32,
    pub nick: String,
    /// Tells a later try from this one.
    pub attempt: u64,
    pub bridge: FullJid,
    /// Of the bridge, when it was asked.
    pub tenure: u64,
    pub meeting_id: String,
    pub asked: Instant,
    /// How often the answer was due and had not come.
    pub overdue: u32,
}

/// So often an endpoint's answer is waited for once more, each time for
/// [`OVERDUE`].
const MAX_OVERDUE: u32 = 4;
const OVERDUE: Duration = Duration::from_secs(15);

impl Place {
    /// Whether this is the last that will be heard of the request.
    pub fn is_over(&self, answer: &Answer) -> bool {
        self.overdue >= MAX_OVERDUE || !matches!(answer, Err(Failure::Timeout))
    }
}

/// Collects what leaves, and keeps what is waited for.
#[derive(Debug)]
pub struct Outbox {
    outputs: Vec<Output>,
    /// By connection: what was asked over a lost one stays unanswered.
    pending: BTreeMap<Link, Pending<Expected>>,
    ids: Ids,
}

impl Outbox {
    pub fn new(seed: u64) -> Self {
        Self {
            outputs: Vec::new(),
            pending: BTreeMap::new(),
            ids: Ids::new(seed),
        }
    }

    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    pub fn presence(&mut self, link: Link, presence: Presence) {
        self.outputs
            .push(Output::Stanza(link, presence.to_element()));
    }

    pub fn iq(&mut self, link: Link, iq: Iq) {
        self.outputs.push(Output::Stanza(link, iq.to_element()));
    }

    pub fn http(&mut self, request: u64, answer: Result<ConferenceIq, StanzaError>) {
        self.outputs.push(Output::Http(request, answer));
    }

    /// A request whose answer is of interest until `deadline`.
    pub fn get(
        &mut self,
        link: Link,
        to: impl Into<Jid>,
        payload: Element,
        deadline: Instant,
        expected: Expected,
    ) {
        self.request(link, to.into(), Kind::Get(payload), deadline, expected);
    }

    pub fn set(
        &mut self,
        link: Link,
        to: impl Into<Jid>,
        payload: Element,
        deadline: Instant,
        expected: Expected,
    ) {
        self.request(link, to.into(), Kind::Set(payload), deadline, expected);
    }

    fn request(&mut self, link: Link, to: Jid, kind: Kind, deadline: Instant, expected: Expected) {
        let iq = Iq::new(self.ids.next_id(), to, kind);
        self.pending
            .entry(link)
            .or_default()
            .insert(&iq, deadline, expected);
        self.iq(link, iq);
    }

    /// A request whose answer changes nothing.
    pub fn tell(&mut self, link: Link, to: impl Into<Jid>, payload: Element) {
        let iq = Iq::new(self.ids.next_id(), to.into(), Kind::Set(payload));
        self.iq(link, iq);
    }

    /// The same as a question, as bridges want it.
    pub fn ask(&mut self, link: Link, to: impl Into<Jid>, payload: Element) {
        let iq = Iq::new(self.ids.next_id(), to.into(), Kind::Get(payload));
        self.iq(link, iq);
    }

    /// What this answer was waited for.
    pub fn answered(&mut self, link: Link, answer: &Iq) -> Option<Expected> {
        self.pending.get_mut(&link)?.take(answer)
    }

    /// What was not answered in time.
    pub fn expired(&mut self, now: Instant) -> Option<Expected> {
        let again = |expected: &mut Expected| match expected {
            Expected::Room(_, RoomRequest::Allocation(place)) if place.overdue < MAX_OVERDUE => {
                place.overdue += 1;
                Some(now + OVERDUE)
            }
            _ => None,
        };
        self.pending
            .values_mut()
            .find_map(|pending| pending.overdue(now, again))
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.pending
            .values()
            .filter_map(Pending::next_timeout)
            .min()
    }

    /// The session is lost: nothing asked over it will be answered.
    pub fn lost(&mut self, link: Link) -> Vec<Expected> {
        self.pending
            .get_mut(&link)
            .map(Pending::drain)
            .unwrap_or_default()
    }
}

/// An answer, an error, or none in time.
pub type Answer = Result<Option<Element>, Failure>;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Refused(StanzaError),
    #[error("no answer in time")]
    Timeout,
    #[error("the connection was lost")]
    Lost,
}
