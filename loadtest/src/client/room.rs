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
use viaduct_signalling::sources::{ConferenceSources, MediaType, VideoType};
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

/// What we announce. No data channels: the bridge channel is a WebSocket.
const FEATURES: [&str; 14] = [
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
            source_info: Some(SourceInfo(self.source_info.clone())),
            codecs: self.settings.codecs.clone(),
            ..Occupant::default()
        }
    }

    fn disco(&self) -> DiscoInfo {
        let features = FEATURES
            .into_iter()
            .filter(|name| !(self.settings.xml_sources && *name == feature::JSON_SOURCES));
        DiscoInfo::features(features)
    }

    /// Tells the room which sources we have now.
    pub fn publish(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let state = SourceState {
                muted: false,
                video_type: VideoType::Camera,
                media_type: MediaType::of_source_name(&name),
            };
            self.source_info.insert(name, state);
        }
        let mut presence = Presence::available(self.own.clone());
        presence.payloads = self.presence().payloads();
        self.stanzas.push_back(presence.to_element());
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
            PresenceType::Available => self.came(nick),
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
mod tests {
    use super::*;
    use crate::client::jingle::Offer;
    use crate::source::Codec;
    use rand::SeedableRng;

    const ROOM: &str = "demo@conference.meet.example";

    fn room() -> Room {
        let settings = RoomSettings {
            domain: BareJid::new("meet.example").expect("an address"),
            room: BareJid::new(ROOM).expect("an address"),
            focus: Jid::new("focus.meet.example").expect("an address"),
            endpoint: "abcd1234".to_owned(),
            name: "Alice".to_owned(),
            codecs: vec!["vp8".to_owned()],
            xml_sources: false,
        };
        Room::new(settings, 1).expect("a nickname")
    }

    fn give(room: &mut Room, now: Instant, stanza: &str) {
        let stanza = stanza.replacen(' ', " xmlns='jabber:client' ", 1);
        room.handle_stanza(now, &xml::parse(stanza.as_bytes()).expect("XML"));
    }

    fn stanzas(room: &mut Room) -> Vec<Element> {
        std::iter::from_fn(|| room.poll_stanza()).collect()
    }

    fn answer(room: &mut Room, now: Instant, request: &Element, ready: bool) {
        let id = request.attr("id").expect("an id");
        give(
            room,
            now,
            &format!(
                "<iq type='result' id='{id}' from='focus.meet.example'>\
                 <conference xmlns='http://jitsi.org/protocol/focus' room='{ROOM}' \
                 ready='{ready}' focusjid='focus@auth.meet.example'/></iq>"
            ),
        );
    }

    fn presence(nick: &str, extra: &str, status: &str) -> String {
        format!(
            "<presence from='{ROOM}/{nick}' {extra}><x xmlns='http://jabber.org/protocol/muc#user'>\
             <item affiliation='none' role='participant'/>{status}</x></presence>"
        )
    }

    /// A room that was asked for, joined, with another participant in it.
    fn joined(now: Instant) -> Room {
        let mut room = room();
        room.start(now);
        let request = stanzas(&mut room);
        answer(&mut room, now, &request[0], true);
        stanzas(&mut room);
        give(&mut room, now, &presence("focus", "", ""));
        give(&mut room, now, &presence("ef567890", "", ""));
        give(
            &mut room,
            now,
            &presence("abcd1234", "", "<status code='110'/>"),
        );
        while room.poll_event().is_some() {}
        room
    }

    /// The offer of client-focus §4.1, shortened to what must be in one.
    fn offer() -> String {
        let content = |media: &str, payloads: &str| {
            format!(
                "<content creator='initiator' name='{media}' senders='both'>\
                 <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='{media}'>{payloads}\
                 <rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='5' uri='http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01'/>\
                 <rtcp-mux/></description>\
                 <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='8m2k' pwd='5r0p3n9q1t8v6x2z4b7d0f3h'>\
                 <rtcp-mux/><fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>AB:CD</fingerprint>\
                 <web-socket xmlns='http://jitsi.org/protocol/colibri' url='ws://127.0.0.1:9090/colibri-ws/a/b/abcd1234?pwd=c'/>\
                 <candidate component='1' foundation='1' generation='0' id='c1' network='0' ip='127.0.0.1' port='10000' priority='2130706431' protocol='udp' type='host'/>\
                 </transport></content>"
            )
        };
        format!(
            "<iq type='set' id='j1' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='focus@auth.meet.example/f1' sid='s1'>{}{}\
             <group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/><content name='video'/></group>\
             <bridge-session xmlns='http://jitsi.org/protocol/focus' id='b1'/>\
             <json-message xmlns='http://jitsi.org/jitmeet'>{}</json-message></jingle></iq>",
            content(
                "audio",
                "<payload-type id='111' name='opus' clockrate='48000' channels='2'/>"
            ),
            content(
                "video",
                "<payload-type id='41' name='AV1' clockrate='90000'/><payload-type id='100' name='VP8' clockrate='90000'/>\
                 <payload-type id='96' name='rtx' clockrate='90000'><parameter name='apt' value='100'/></payload-type>"
            ),
            r#"{"sources":{"jvb":[[{"s":1,"n":"jvb-v0","m":"mixedmslabel mixedlabelvideo0"}],[],[]],"ef567890":[[{"s":1001,"n":"ef567890-v0","m":"a b"},{"s":1004,"n":"ef567890-v0","m":"a b"}],[["f",1001,1004]],[]]}}"#,
        )
    }

    #[test]
    fn asks_until_the_focus_is_ready_and_joins() {
        let mut now = Instant::now();
        let mut room = room();
        room.start(now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let sent = stanzas(&mut room);
            assert!(sent[0].has_child("conference", ns::FOCUS));
            answer(&mut room, now, &sent[0], false);
            let next = room.next_timeout().expect("a retry");
            waits.push((next - now).as_secs());
            now = next;
            room.handle_timeout(now);
        }
        assert_eq!(waits, [1, 2, 4, 8]);
        let sent = stanzas(&mut room);
        answer(&mut room, now, &sent[0], true);
        let join = stanzas(&mut room);
        assert!(join[0].has_child("x", ns::MUC) && join[0].has_child("c", ns::CAPS));
        assert_eq!(
            join[0].attr("to"),
            Some("demo@conference.meet.example/abcd1234")
        );
        give(&mut room, now, &presence("focus", "", ""));
        give(
            &mut room,
            now,
            &presence("abcd1234", "", "<status code='110'/>"),
        );
        let events: Vec<_> = std::iter::from_fn(|| room.poll_event()).collect();
        assert!(
            matches!(events[..], [Event::Ready, Event::Joined { alone: true }]),
            "{events:?}"
        );
        give(&mut room, now, &presence("ef567890", "", ""));
        assert!(matches!(room.poll_event(), Some(Event::Company)));
    }

    #[test]
    fn a_refused_join_is_tried_again_three_times() {
        let mut now = Instant::now();
        let mut room = room();
        room.start(now);
        let request = stanzas(&mut room);
        answer(&mut room, now, &request[0], true);
        let mut joins = 0;
        while !room.joined() {
            joins += stanzas(&mut room)
                .iter()
                .filter(|s| s.has_child("x", ns::MUC))
                .count();
            give(
                &mut room,
                now,
                &format!(
                    "<presence type='error' from='{ROOM}/abcd1234'><error type='cancel'>\
                     <not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
                ),
            );
            let Some(next) = room.next_timeout() else {
                break;
            };
            now = next;
            room.handle_timeout(now);
            if matches!(room.state, State::Gone) {
                break;
            }
        }
        assert_eq!(joins, 3);
    }

    #[test]
    fn an_offer_is_acknowledged_read_and_answered() {
        let now = Instant::now();
        let mut room = joined(now);
        give(&mut room, now, &offer());
        let sent = stanzas(&mut room);
        assert_eq!(
            (sent[0].attr("type"), sent[0].attr("id")),
            (Some("result"), Some("j1"))
        );
        let Some(Event::Offer(jingle)) = room.poll_event() else {
            panic!("no offer");
        };
        let offer = Offer::read(&jingle, Codec::Vp8).expect("a good offer");
        assert_eq!((offer.formats.audio, offer.formats.video), (111, 100));
        assert_eq!(offer.formats.video_rtx, Some(96));
        assert_eq!(offer.formats.transport_cc, Some(5));
        assert!(offer.channel_url.is_some());
        assert_eq!(offer.sources.0["ef567890"].sources.len(), 2);

        let ours = crate::client::send::Sender::new(
            offer.formats.clone(),
            3,
            &mut rand::rngs::SmallRng::seed_from_u64(1),
        );
        let accept = offer.accept(
            "a",
            "b",
            ("u", "p"),
            &[1, 2],
            &ours.signalled("abcd1234", 1),
        );
        room.accept(now, &accept);
        let sent = stanzas(&mut room);
        let jingle: Jingle = sent[0]
            .children()
            .find_map(|c| xml::from_element(c).ok())
            .expect("one");
        assert_eq!(
            (jingle.action.as_str(), jingle.sid.as_str()),
            ("session-accept", "s1")
        );
        let video = jingle
            .content("video")
            .and_then(|c| c.description.as_ref())
            .expect("video");
        assert_eq!((video.sources.len(), video.ssrc_groups.len()), (6, 4));
        assert_eq!(video.payload_types[0].id, 100);

        let id = sent[0].attr("id").expect("an id").to_owned();
        give(
            &mut room,
            now,
            &format!("<iq type='result' id='{id}' from='{ROOM}/focus'/>"),
        );
        assert!(matches!(room.poll_event(), Some(Event::Accepted)));
    }

    #[test]
    fn sources_come_and_go_and_other_sessions_are_refused() {
        let now = Instant::now();
        let mut room = joined(now);
        give(&mut room, now, &offer());
        room.poll_event();
        stanzas(&mut room);
        let sources = |action: &str, sid: &str| {
            format!(
                "<iq type='set' id='x' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'>\
                 <json-message xmlns='http://jitsi.org/jitmeet'>{}</json-message></jingle></iq>",
                r#"{"sources":{"ef567890":[[],[],[{"s":1000,"n":"ef567890-a0","m":"c d"}]]}}"#
            )
        };
        give(&mut room, now, &sources("source-add", "s1"));
        assert!(matches!(room.poll_event(), Some(Event::SourcesAdded(_))));
        give(&mut room, now, &sources("source-remove", "s1"));
        assert!(matches!(room.poll_event(), Some(Event::SourcesRemoved(_))));
        stanzas(&mut room);
        give(&mut room, now, &sources("source-add", "other"));
        let refused = stanzas(&mut room);
        assert_eq!(refused[0].attr("type"), Some("error"));
        let terminate = format!(
            "<iq type='set' id='t' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s1'><reason><success/></reason></jingle></iq>"
        );
        give(&mut room, now, &terminate);
        assert!(matches!(room.poll_event(), Some(Event::Terminated)));
        assert_eq!(stanzas(&mut room)[0].attr("type"), Some("result"));
    }

    #[test]
    fn answers_what_a_client_must_and_only_that() {
        let now = Instant::now();
        let mut room = joined(now);
        give(
            &mut room,
            now,
            &format!(
                "<iq type='get' id='d' from='{ROOM}/focus'><query xmlns='http://jabber.org/protocol/disco#info' node='n#v'/></iq>"
            ),
        );
        give(
            &mut room,
            now,
            &format!(
                "<iq type='set' id='m' from='{ROOM}/focus'><mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute></iq>"
            ),
        );
        give(
            &mut room,
            now,
            "<iq type='get' id='u' from='meet.example'><query xmlns='jabber:iq:version'/></iq>",
        );
        let sent = stanzas(&mut room);
        let ids: Vec<_> = sent
            .iter()
            .map(|s| (s.attr("id"), s.attr("type")))
            .collect();
        assert_eq!(
            ids,
            [(Some("d"), Some("result")), (Some("u"), Some("error"))]
        );
        let info: DiscoInfo = sent[0]
            .children()
            .find_map(|c| xml::from_element(c).ok())
            .expect("disco");
        assert!(info.has(feature::JSON_SOURCES) && info.node.as_deref() == Some("n#v"));
    }
}
