//! A participant's signalling, from the conference request to the answers of
//! Jingle requests (client-focus §2 to §4), without the connection under it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use viaduct_signalling::disco::{Caps, DiscoInfo};
use viaduct_signalling::iq::{Condition, Ids, Iq, IqError, Kind, Pending, StanzaError};
use viaduct_signalling::jid::{self, BareJid, FullJid, Jid};
use viaduct_signalling::jingle::{self, Action, BridgeSession, Jingle, Reason, ReasonCondition};
use viaduct_signalling::jitsi::{Conference, Occupant, SourceInfo, SourceState, feature};
use viaduct_signalling::muc::{MucUser, status};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::sources::{ConferenceSources, EndpointSources};
use viaduct_signalling::xml::{self, Element, ns};
use viaduct_signalling::{disco, muc};

use super::jingle::sources;

/// The nickname of the focus; no other occupant is taken for it.
const FOCUS: &str = "focus";
/// Longest time between two conference requests.
const MAX_RETRY: Duration = Duration::from_secs(16);
/// The focus answers within that or is asked again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The client library's limit for answers to its Jingle requests.
const JINGLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to wait for our own presence to come back from the room.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Occupants that are kept track of.
const MAX_OCCUPANTS: usize = 10_000;

/// What we announce; data channels only where they are wanted, as a focus offers
/// them to whoever knows them.
const FEATURES: [&str; 15] = [
    feature::SCTP,
    "http://jabber.org/protocol/caps",
    feature::JSON_SOURCES,
    feature::MULTI_STREAM,
    feature::SOURCE_NAME,
    feature::TCC,
    feature::RTX,
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:dtls:0",
    "urn:xmpp:jingle:apps:rtp:1",
    feature::AUDIO,
    feature::VIDEO,
    "urn:xmpp:jingle:transports:ice-udp:1",
    "http://jitsi.org/remb",
    feature::START_MUTED_METADATA,
];

const CAPS_NODE: &str = "https://jitsi.org/jitsi-meet";

/// Where and as whom to join.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    pub domain: BareJid,
    pub room: BareJid,
    /// Whom to ask for the conference.
    pub focus: Jid,
    /// Our nickname and endpoint.
    pub endpoint: String,
    /// Name for people and statistics.
    pub name: String,
    /// Codec names, the preferred first.
    pub codecs: Vec<String>,
    /// Whether to ask for sources in the XML form, as older clients do.
    pub xml_sources: bool,
    /// Whether to have the bridge channel over SCTP.
    pub data_channel: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The focus is in the room.
    Ready,
    /// We are in the room; `alone` when there is nobody but the focus.
    Joined {
        alone: bool,
    },
    /// Somebody else came into the room.
    Company,
    Offer(Box<Jingle>),
    Accepted,
    SourcesAdded(ConferenceSources),
    SourcesRemoved(ConferenceSources),
    /// The focus took our own additional source.
    SourceAccepted,
    /// What an occupant says of its sources: mutes.
    SourceInfo(String, SourceInfo),
    /// An occupant left, and its sources with it.
    Left(String),
    /// The focus ended the session; another offer may follow.
    Terminated,
    /// Something that a client cannot go on from.
    Failed(String),
}

#[derive(Debug)]
enum State {
    Offline,
    Requesting {
        retry_at: Option<Instant>,
        wait: Duration,
    },
    Joining {
        until: Instant,
        tries: u32,
    },
    In,
    Gone,
}

#[derive(Debug)]
enum Asked {
    Conference,
    Accept(String),
    SourceAdd,
    Restart,
    Ping,
}

#[derive(Clone, Debug)]
struct Session {
    sid: String,
    bridge_session: Option<String>,
}

/// The signalling of one participant.
#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    own: FullJid,
    ids: Ids,
    machine: String,
    pending: Pending<Asked>,
    state: State,
    occupants: BTreeSet<String>,
    session: Option<Session>,
    source_info: BTreeMap<String, SourceState>,
    ping_due: Option<Instant>,
    stanzas: VecDeque<Element>,
    events: VecDeque<Event>,
    /// Why the focus was not ready the last time.
    pub refusal: Option<String>,
    /// Conference requests sent.
    pub requests: u32,
    /// Times the focus was seen to leave the room.
    pub focus_left: u32,
}

impl Room {
    /// `seed` makes ids that no other participant uses.
    pub fn new(settings: RoomSettings, seed: u64) -> Result<Self, String> {
        let own = jid::occupant(&settings.room, &settings.endpoint)
            .ok_or_else(|| format!("{:?} cannot be a nickname", settings.endpoint))?;
        let mut ids = Ids::new(seed);
        let machine = ids.next_id() + &ids.next_id();
        Ok(Self {
            settings,
            own,
            ids,
            machine,
            pending: Pending::default(),
            state: State::Offline,
            occupants: BTreeSet::new(),
            session: None,
            source_info: BTreeMap::new(),
            ping_due: None,
            stanzas: VecDeque::new(),
            events: VecDeque::new(),
            refusal: None,
            requests: 0,
            focus_left: 0,
        })
    }

    /// The connection is logged in: asks the focus.
    pub fn start(&mut self, now: Instant) {
        self.ping_due = Some(now + PING_INTERVAL);
        self.request(now, Duration::from_secs(1));
    }

    /// Our address in the room, and that of the focus.
    pub fn addresses(&self) -> (String, String) {
        (
            self.own.to_string(),
            format!("{}/{FOCUS}", self.settings.room),
        )
    }

    /// Whether we are in the room.
    pub fn joined(&self) -> bool {
        matches!(self.state, State::In)
    }

    pub fn poll_stanza(&mut self) -> Option<Element> {
        self.stanzas.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Requesting { retry_at, .. } => *retry_at,
            State::Joining { until, .. } => Some(*until),
            _ => None,
        };
        [state, self.pending.next_timeout(), self.ping_due]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Requesting {
                retry_at: Some(at),
                wait,
            } if now >= at => {
                self.request(now, (wait * 2).min(MAX_RETRY));
            }
            State::Joining { until, tries } if now >= until => self.join(now, tries + 1),
            _ => {}
        }
        while let Some(asked) = self.pending.expired(now) {
            match asked {
                Asked::Conference => {
                    self.refusal = Some("no answer".to_owned());
                    self.retry(now);
                }
                Asked::Accept(_) => self.fail("no answer to session-accept within 10 s"),
                Asked::SourceAdd => self.fail("no answer to source-add within 10 s"),
                Asked::Restart => self.fail("no answer to the request for a restart within 10 s"),
                Asked::Ping => self.fail("the server does not answer a ping"),
            }
        }
        if self.ping_due.is_some_and(|due| now >= due) {
            self.ping_due = Some(now + PING_INTERVAL);
            let ping = Element::bare("ping", ns::PING);
            let ping = Iq::new(
                self.ids.next_id(),
                self.settings.domain.clone(),
                Kind::Get(ping),
            );
            self.ask(ping, now + PING_INTERVAL, Asked::Ping);
        }
    }

    fn ask(&mut self, iq: Iq, deadline: Instant, asked: Asked) {
        self.pending.insert(&iq, deadline, asked);
        self.stanzas.push_back(iq.to_element());
    }

    fn fail(&mut self, text: impl Into<String>) {
        self.events.push_back(Event::Failed(text.into()));
    }

    fn request(&mut self, now: Instant, wait: Duration) {
        self.requests += 1;
        self.state = State::Requesting {
            retry_at: None,
            wait,
        };
        let conference = Conference {
            room: Some(self.settings.room.to_string()),
            machine_uid: Some(self.machine.clone()),
            ..Conference::default()
        }
        .with_property("rtcstatsEnabled", "false");
        let iq = Iq::set(self.ids.next_id(), self.settings.focus.clone(), &conference);
        self.ask(iq, now + REQUEST_TIMEOUT, Asked::Conference);
    }

    fn retry(&mut self, now: Instant) {
        if let State::Requesting { retry_at, wait } = &mut self.state {
            *retry_at = Some(now + *wait);
        }
    }

    fn join(&mut self, now: Instant, tries: u32) {
        if tries > 3 {
            self.fail("the room did not let us in");
            self.state = State::Gone;
            return;
        }
        self.state = State::Joining {
            until: now + JOIN_TIMEOUT,
            tries,
        };
        self.occupants.clear();
        let mut presence = muc::join(self.own.clone(), None);
        presence.payloads.extend(self.presence().payloads());
        self.stanzas.push_back(presence.to_element());
    }

    fn presence(&self) -> Occupant {
        Occupant {
            caps: Some(Caps::new(CAPS_NODE, &self.disco())),
            nick: Some(self.settings.name.clone()),
            stats_id: Some(self.settings.name.clone()),
            // Empty at first, as the client library has it.
            source_info: Some(SourceInfo(self.source_info.clone())),
            codecs: self.settings.codecs.clone(),
            ..Occupant::default()
        }
    }

    fn disco(&self) -> DiscoInfo {
        let features = FEATURES
            .into_iter()
            .filter(|name| self.settings.data_channel || *name != feature::SCTP)
            .filter(|name| !(self.settings.xml_sources && *name == feature::JSON_SOURCES));
        DiscoInfo::features(features)
    }

    /// Tells the room of sources that are new, or muted or not from now on.
    pub fn publish(&mut self, sources: impl IntoIterator<Item = (String, SourceState)>) {
        self.source_info.extend(sources);
        let mut presence = Presence::available(self.own.clone());
        presence.payloads = self.presence().payloads();
        self.stanzas.push_back(presence.to_element());
    }

    /// Asks the focus to take another source of ours.
    pub fn add_source(&mut self, now: Instant, sources: &EndpointSources) {
        let Some(session) = &self.session else { return };
        let add = Jingle {
            initiator: Some(self.addresses().1),
            contents: sources.to_contents(),
            ..Jingle::new(Action::SourceAdd, session.sid.clone())
        };
        self.jingle(now, &add, Asked::SourceAdd);
    }

    /// Sends the answer to an offer.
    pub fn accept(&mut self, now: Instant, accept: &Jingle) {
        let asked = Asked::Accept(accept.sid.clone());
        self.jingle(now, accept, asked);
    }

    fn jingle(&mut self, now: Instant, jingle: &Jingle, asked: Asked) {
        if let Some(focus) = jid::occupant(&self.settings.room, FOCUS) {
            let iq = Iq::set(self.ids.next_id(), focus, jingle);
            self.ask(iq, now + JINGLE_TIMEOUT, asked);
        }
    }

    /// ICE failed: ends the session and asks for another (client-focus §4.7).
    pub fn restart(&mut self, now: Instant) {
        let Some(session) = self.session.take() else {
            return;
        };
        let terminate = Jingle {
            initiator: Some(self.addresses().1),
            reason: Some(Reason {
                condition: Some(ReasonCondition::ConnectivityError),
                text: Some("ICE FAILED".to_owned()),
            }),
            bridge_session: Some(BridgeSession {
                id: session.bridge_session,
                restart: Some(true),
                ..BridgeSession::default()
            }),
            ..Jingle::new(Action::SessionTerminate, session.sid)
        };
        self.jingle(now, &terminate, Asked::Restart);
    }

    /// Leaves the room as a client does that is closed.
    pub fn leave(&mut self) {
        if matches!(self.state, State::In | State::Joining { .. }) {
            let occupant = Presence::unavailable(self.own.clone());
            self.stanzas.push_back(occupant.to_element());
            self.stanzas
                .push_back(Presence::new(PresenceType::Unavailable).to_element());
        }
        self.state = State::Gone;
        self.ping_due = None;
        self.pending.drain();
    }

    /// A stanza from the server.
    pub fn handle_stanza(&mut self, now: Instant, stanza: &Element) {
        match stanza.name() {
            "iq" => match Iq::from_element(stanza) {
                Ok(iq) if iq.request().is_some() => self.handle_request(&iq),
                Ok(iq) => self.handle_answer(now, &iq),
                Err(IqError::BadRequest(answer)) => self.stanzas.push_back(answer.to_element()),
                Err(error) => tracing::debug!(%error, "iq passed over"),
            },
            "presence" => match Presence::from_element(stanza) {
                Ok(presence) => self.handle_presence(now, &presence),
                Err(error) => tracing::debug!(%error, "presence passed over"),
            },
            _ => {}
        }
    }

    fn handle_answer(&mut self, now: Instant, iq: &Iq) {
        let Some(asked) = self.pending.take(iq) else {
            return;
        };
        match (asked, &iq.kind) {
            (Asked::Conference, Kind::Result(payload)) => {
                let ready = payload
                    .as_ref()
                    .and_then(|payload| xml::from_element::<Conference>(payload).ok())
                    .and_then(|conference| conference.ready);
                if ready == Some(true) {
                    self.events.push_back(Event::Ready);
                    self.join(now, 1);
                } else {
                    self.refusal = Some("not ready".to_owned());
                    self.retry(now);
                }
            }
            (Asked::Conference, Kind::Error(error)) => {
                tracing::debug!(%error, "conference request refused");
                self.refusal = Some(error.to_string());
                self.retry(now);
            }
            (Asked::Accept(sid), _) if !self.is_current(&sid) => {}
            (Asked::Accept(_), Kind::Result(_)) => self.events.push_back(Event::Accepted),
            (Asked::Accept(_), Kind::Error(error)) => {
                self.fail(format!("session-accept refused: {error}"));
            }
            (Asked::SourceAdd, Kind::Result(_)) => {
                self.events.push_back(Event::SourceAccepted);
            }
            (Asked::SourceAdd, Kind::Error(error)) => {
                self.fail(format!("source-add refused: {error}"));
            }
            (Asked::Restart, Kind::Error(error)) => self.fail(format!("restart refused: {error}")),
            _ => {}
        }
    }

    fn handle_presence(&mut self, now: Instant, presence: &Presence) {
        let Some(from) = &presence.from else { return };
        if from.to_bare() != self.settings.room {
            return;
        }
        let Some(nick) = jid::nick(from).map(str::to_owned) else {
            return;
        };
        let muc: Option<MucUser> = presence.payload();
        let is_self = nick == self.settings.endpoint
            || muc.as_ref().is_some_and(|muc| muc.has_status(status::SELF));
        match presence.kind {
            PresenceType::Error => {
                let text = presence
                    .error()
                    .map_or("no reason".to_owned(), |e| e.to_string());
                tracing::debug!(%text, "the room refused");
                self.refusal = Some(text);
                if let State::Joining { until, .. } = &mut self.state {
                    // As the client library: asks the focus again and rejoins.
                    *until = now + Duration::from_secs(1);
                }
            }
            PresenceType::Unavailable if is_self => {
                if matches!(self.state, State::In) {
                    self.state = State::Gone;
                    self.fail("removed from the room");
                }
            }
            PresenceType::Unavailable => {
                if nick == FOCUS {
                    self.focus_left += 1;
                }
                if self.occupants.remove(&nick) {
                    self.events.push_back(Event::Left(nick));
                }
            }
            PresenceType::Available if is_self => {
                if matches!(self.state, State::Joining { .. }) {
                    self.state = State::In;
                    let alone = !self.occupants.iter().any(|nick| nick != FOCUS);
                    self.events.push_back(Event::Joined { alone });
                }
            }
            PresenceType::Available => {
                let info = presence
                    .payloads
                    .iter()
                    .find(|child| child.is("SourceInfo", ns::CLIENT))
                    .and_then(|child| SourceInfo::from_json(&child.text()));
                if let Some(info) = info.filter(|info| !info.0.is_empty()) {
                    self.events.push_back(Event::SourceInfo(nick.clone(), info));
                }
                self.came(nick);
            }
            _ => {}
        }
    }

    fn came(&mut self, nick: String) {
        let company = nick != FOCUS && self.joined();
        if self.occupants.len() < MAX_OCCUPANTS && self.occupants.insert(nick) && company {
            self.events.push_back(Event::Company);
        }
    }

    fn is_current(&self, sid: &str) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.sid == sid)
    }

    fn handle_request(&mut self, iq: &Iq) {
        let Some(payload) = iq.request() else { return };
        let answer = if let Ok(jingle) = xml::from_element::<Jingle>(payload) {
            let from_focus = iq.from.as_ref().is_some_and(|from| {
                from.to_bare() == self.settings.room && jid::nick(from) == Some(FOCUS)
            });
            if from_focus {
                self.handle_jingle(jingle, iq)
            } else {
                // Peer to peer is not for us.
                Some(iq.error(StanzaError::new(Condition::ServiceUnavailable)))
            }
        } else if let Ok(query) = xml::from_element::<disco::DiscoInfo>(payload) {
            Some(iq.result(&DiscoInfo {
                node: query.node,
                ..self.disco()
            }))
        } else if payload.is("ping", ns::PING) {
            Some(iq.done())
        } else if payload.name() == "mute" {
            // Clients never answer it (client-focus §0.6).
            None
        } else {
            Some(iq.error(StanzaError::new(Condition::ServiceUnavailable)))
        };
        // A session-initiate is answered before what it leads to is sent.
        self.stanzas
            .extend(answer.map(|answer| answer.to_element()));
    }

    fn handle_jingle(&mut self, jingle: Jingle, iq: &Iq) -> Option<Iq> {
        if jingle.action == Action::SessionInitiate {
            self.session = Some(Session {
                sid: jingle.sid.clone(),
                bridge_session: jingle.bridge_session.as_ref().and_then(|b| b.id.clone()),
            });
            self.events.push_back(Event::Offer(Box::new(jingle)));
            return Some(iq.done());
        }
        if !self.is_current(&jingle.sid) {
            return Some(iq.error(jingle::unknown_session()));
        }
        match jingle.action {
            Action::SourceAdd | Action::SourceRemove => match sources(&jingle) {
                Ok(sources) if jingle.action == Action::SourceAdd => {
                    self.events.push_back(Event::SourcesAdded(sources));
                }
                Ok(sources) => self.events.push_back(Event::SourcesRemoved(sources)),
                Err(error) => {
                    self.fail(format!("unusable {}: {error}", jingle.action.as_str()));
                    return Some(iq.error(StanzaError::new(Condition::BadRequest)));
                }
            },
            Action::SessionTerminate => {
                self.session = None;
                self.events.push_back(Event::Terminated);
            }
            Action::TransportInfo | Action::TransportReplace => {}
            _ => return Some(iq.error(StanzaError::new(Condition::BadRequest))),
        }
        Some(iq.done())
    }
}

#[cfg(test)]
mod tests;
