//! A world for the focus in virtual time: a room service, bridges and clients,
//! as little of each as the focus can tell apart from the real ones.
//!
//! Everything the focus sends is answered at once unless a bridge or client is
//! told otherwise; nothing here reads a clock.

// Each scenario file uses its part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use viaduct_focus::FOCUS_NICK;
use viaduct_focus::context::Settings;
use viaduct_focus::focus::Focus;
use viaduct_focus::outbox::{Link, Output};
use viaduct_signalling::brewery::{HealthCheck, Stats};
use viaduct_signalling::colibri2::{self, ConferenceModified, ConferenceModify, Sctp};
use viaduct_signalling::disco::{Caps, DiscoInfo, Ping};
use viaduct_signalling::iq::{Condition, Iq, Kind, StanzaError};
use viaduct_signalling::jid::{self, BareJid, FullJid, Jid};
use viaduct_signalling::jingle::transport::{Candidate, Fingerprint, Transport};
use viaduct_signalling::jingle::{
    self, Action, BridgeSession, Content, Creator, Description, Jingle, Reason, ReasonCondition,
    unknown_session,
};
use viaduct_signalling::jitsi::conference::Conference as ConferenceIq;
use viaduct_signalling::jitsi::{Mute, Occupant, feature};
use viaduct_signalling::muc::{AdminQuery, Affiliation, Item, Join, MucUser, OwnerQuery, Role};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::sources::{
    ConferenceSources, EndpointSources, Group, MediaType, Semantics, Source,
};
use viaduct_signalling::xml::{Element, from_element, to_element};

pub const ROOM: &str = "demo@conference.meet.example";
pub const BREWERY: &str = "jvbbrewery@internal.auth.meet.example";
pub const FOCUS: &str = "focus@auth.meet.example/focus";

pub fn bare(text: &str) -> BareJid {
    BareJid::new(text).expect("a valid address")
}

pub fn full(text: &str) -> FullJid {
    FullJid::new(text).expect("a valid address")
}

pub fn occupant(room: &str, nick: &str) -> FullJid {
    jid::occupant(&bare(room), nick).expect("a valid nickname")
}

/// A bridge that gives every endpoint what it asks for.
#[derive(Debug, Default)]
pub struct Bridge {
    pub resource: String,
    /// Conferences by meeting id, with their endpoints.
    pub conferences: BTreeMap<String, BTreeSet<String>>,
    /// Answers nothing.
    pub frozen: bool,
    /// Does what it is asked so long after it was asked,
    pub delay: Duration,
    /// and one thing after the other, each for so long.
    pub work: Duration,
    /// What it has not done yet, in order, each with its time.
    backlog: VecDeque<(Instant, Iq)>,
    /// The most endpoints that ever were in it, to be made.
    pub most_to_make: usize,
    /// Ends what it is told to end at once, before what is still to be made.
    pub hasty: bool,
    pub shutting_down: bool,
    /// Answers every allocation with that.
    pub refusal: Option<StanzaError>,
    /// That many times; `None` for ever.
    pub refusals: Option<usize>,
    /// Answers health checks with that.
    pub sick: Option<StanzaError>,
    /// Grants data channels.
    pub sctp: bool,
    pub requests: Vec<ConferenceModify>,
    pub health_checks: usize,
}

/// A client that accepts every offer.
#[derive(Debug)]
pub struct Client {
    pub real: FullJid,
    pub affiliation: Affiliation,
    pub role: Role,
    pub features: Vec<String>,
    /// Does not answer session-initiate with an accept.
    pub lazy: bool,
    /// Does not answer disco#info.
    pub mute_disco: bool,
    /// Refuses the next offers.
    pub refuse: usize,
    /// The session it is in.
    pub sid: Option<String>,
    pub bridge_session: Option<String>,
    /// What it sends; the number changes with each session.
    pub generation: u32,
    /// Sources of others by owner, as it was told.
    pub remote: ConferenceSources,
    /// All Jingle requests it got.
    pub got: Vec<Jingle>,
    pub mutes: Vec<Mute>,
    pub queries: usize,
    /// Does not name its sources.
    pub nameless: bool,
    /// Sends nothing.
    pub silent: bool,
}

impl Client {
    pub fn offers(&self) -> Vec<&Jingle> {
        self.of(Action::SessionInitiate)
    }

    pub fn of(&self, action: Action) -> Vec<&Jingle> {
        self.got
            .iter()
            .filter(|jingle| jingle.action == action)
            .collect()
    }

    pub fn hears(&self) -> Vec<&str> {
        self.remote
            .0
            .iter()
            .filter(|(owner, set)| *owner != "jvb" && !set.is_empty())
            .map(|(owner, _)| owner.as_str())
            .collect()
    }
}

#[derive(Debug, Default)]
pub struct Room {
    pub focus: bool,
    pub clients: BTreeMap<String, Client>,
    pub focus_presences: Vec<Presence>,
    pub locked: Option<String>,
}

pub struct World {
    pub focus: Focus,
    pub start: Instant,
    pub now: Instant,
    pub bridges: BTreeMap<String, Bridge>,
    pub rooms: BTreeMap<String, Room>,
    /// Answers to requests that came over a component.
    pub component: Vec<Iq>,
    /// Answers to clients, by id.
    pub answers: BTreeMap<String, Iq>,
    pub http: BTreeMap<u64, Result<ConferenceIq, StanzaError>>,
    /// Everything the focus sent, with the time.
    pub sent: Vec<(Duration, Link, Element)>,
    inbox: VecDeque<Element>,
    pub in_brewery: bool,
    /// How often an owner was to be made, and why none is.
    pub grants_asked: usize,
    pub grants_refused: Option<Condition>,
    /// The server answers nothing at all.
    pub dead_server: bool,
    /// What the focus asks of bridges, and of the server itself, arrives so much later.
    pub server_delay: Duration,
    /// On its way, each with the time when it arrives.
    held: VecDeque<(Instant, Link, Element)>,
    ids: u64,
}

impl World {
    pub fn new() -> Self {
        let mut settings = Settings::new(bare("focus@auth.meet.example"));
        settings.brewery = Some(bare(BREWERY));
        settings.xmpp_domain = Some("meet.example".into());
        settings.conference_muc = Some("conference.meet.example".into());
        Self::with(settings)
    }

    pub fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let mut world = Self {
            focus: Focus::new(settings, 1),
            start: now,
            now,
            bridges: BTreeMap::new(),
            rooms: BTreeMap::new(),
            component: Vec::new(),
            answers: BTreeMap::new(),
            http: BTreeMap::new(),
            sent: Vec::new(),
            inbox: VecDeque::new(),
            in_brewery: false,
            grants_asked: 0,
            grants_refused: None,
            dead_server: false,
            server_delay: Duration::ZERO,
            held: VecDeque::new(),
            ids: 0,
        };
        world
            .focus
            .online(now, Link::Client, &full(FOCUS).into(), false);
        world.pump();
        world
    }

    // ---- time -----------------------------------------------------------------

    /// Lets time pass; whatever comes due happens at its time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            let backlogs = self.bridges.values().filter_map(|b| b.backlog.front());
            let done = backlogs.map(|(at, _)| *at).min();
            let arrives = self.held.front().map(|(at, ..)| *at);
            let next = done.into_iter().chain(arrives);
            let next = next.chain(self.focus.next_timeout()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                break;
            };
            assert!(turns < 100_000, "the focus does not come to rest");
            turns += 1;
            self.now = self.now.max(at);
            self.work_off();
            self.let_arrive();
            self.focus.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
        self.pump();
    }

    fn let_arrive(&mut self) {
        while let Some((at, ..)) = self.held.front()
            && *at <= self.now
            && let Some((_, link, stanza)) = self.held.pop_front()
        {
            self.arrived(link, stanza);
        }
    }

    /// What slow bridges have got done by now.
    fn work_off(&mut self) {
        for bridge in self.bridges.values_mut() {
            while let Some((at, _)) = bridge.backlog.front()
                && *at <= self.now
                && let Some((_, iq)) = bridge.backlog.pop_front()
            {
                let request = iq.request().expect("only requests wait");
                let mut answer = iq.answer(bridge.asked(request));
                answer.to = Some(full(FOCUS).into());
                self.inbox.push_back(answer.to_element());
            }
        }
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    pub fn pump(&mut self) {
        for _ in 0..10_000 {
            for output in self.focus.take_outputs() {
                match output {
                    Output::Stanza(link, stanza) => self.sent(link, stanza),
                    Output::Http(number, answer) => {
                        self.http.insert(number, answer);
                    }
                }
            }
            let Some(stanza) = self.inbox.pop_front() else {
                return;
            };
            // Answers take their time, if only a moment.
            self.now += Duration::from_micros(1);
            if !self.dead_server {
                self.focus.stanza(self.now, Link::Client, &stanza);
            }
        }
        panic!("stanzas go in circles");
    }

    pub fn deliver(&mut self, stanza: Element) {
        self.inbox.push_back(stanza);
        self.pump();
    }

    // ---- bridges -----------------------------------------------------------------

    pub fn bridge(&mut self, nick: &str) -> &mut Bridge {
        self.bridges.get_mut(nick).expect("such a bridge")
    }

    /// A bridge enters, idle.
    pub fn add_bridge(&mut self, nick: &str) {
        let bridge = Bridge {
            resource: nick.to_owned(),
            ..Bridge::default()
        };
        self.bridges.insert(nick.to_owned(), bridge);
        self.stats(
            nick,
            &[
                ("stress_level", "0.0"),
                ("drain", "false"),
                ("version", "v1"),
            ],
        );
    }

    pub fn stats(&mut self, nick: &str, stats: &[(&str, &str)]) {
        let stats: Stats = stats.iter().copied().collect();
        let stanza = self.bridge_presence(nick, stats);
        self.deliver(stanza);
    }

    fn bridge_presence(&self, nick: &str, stats: Stats) -> Element {
        let real = format!("jvb@auth.meet.example/{}", self.bridges[nick].resource);
        let item = Item {
            jid: Jid::new(&real).ok(),
            ..Item::default()
        };
        let mut presence = Presence::available(full(FOCUS))
            .with(&stats)
            .with(&MucUser::new(vec![item], &[]));
        presence.from = Some(occupant(BREWERY, nick).into());
        presence.to_element()
    }

    pub fn remove_bridge(&mut self, nick: &str) {
        self.bridges.remove(nick);
        let mut presence =
            Presence::unavailable(full(FOCUS)).with(&MucUser::new(vec![Item::default()], &[]));
        presence.from = Some(occupant(BREWERY, nick).into());
        self.deliver(presence.to_element());
    }

    /// Endpoints of all conferences on a bridge.
    pub fn on_bridge(&self, nick: &str) -> Vec<&str> {
        self.bridges[nick]
            .conferences
            .values()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    // ---- clients -----------------------------------------------------------------

    pub fn room(&mut self, room: &str) -> &mut Room {
        self.rooms.entry(room.to_owned()).or_default()
    }

    pub fn client(&mut self, nick: &str) -> &mut Client {
        self.room(ROOM)
            .clients
            .get_mut(nick)
            .expect("such a client")
    }

    /// Asks for the conference as a client; the answer.
    pub fn request(&mut self, room: &str) -> Iq {
        let request = ConferenceIq {
            room: Some(room.to_owned()),
            ..ConferenceIq::default()
        };
        self.ask("x@meet.example/r", Kind::Set(to_element(&request)))
    }

    /// Sends a request and returns the answer, which may take its time.
    pub fn ask(&mut self, from: &str, kind: Kind) -> Iq {
        self.ids += 1;
        let id = format!("c{}", self.ids);
        let mut iq = Iq::new(id.clone(), full(FOCUS), kind);
        iq.from = Some(full(from).into());
        self.deliver(iq.to_element());
        let mut waited = Duration::ZERO;
        while !self.answers.contains_key(&id) {
            assert!(waited < Duration::from_secs(1), "no answer within a second");
            self.pass(Duration::from_millis(100));
            waited += Duration::from_millis(100);
        }
        self.answers.remove(&id).expect("waited for above")
    }

    pub fn jingle(&mut self, nick: &str, jingle: &Jingle) -> Iq {
        let from = occupant(ROOM, nick).to_string();
        self.ask(&from, Kind::Set(to_element(jingle)))
    }

    pub fn new_client(&self, number: usize) -> Client {
        Client {
            real: full(&format!("x{number}@meet.example/r{number}")),
            affiliation: Affiliation::None,
            role: Role::Participant,
            features: [
                feature::AUDIO,
                feature::VIDEO,
                feature::SCTP,
                feature::JSON_SOURCES,
                feature::RTX,
                feature::TCC,
                feature::REMB,
            ]
            .map(str::to_owned)
            .to_vec(),
            lazy: false,
            mute_disco: false,
            refuse: 0,
            sid: None,
            bridge_session: None,
            generation: 0,
            remote: ConferenceSources::default(),
            got: Vec::new(),
            mutes: Vec::new(),
            queries: 0,
            nameless: false,
            silent: false,
        }
    }

    /// A current client asks and joins.
    pub fn join(&mut self, nick: &str) {
        let client = self.new_client(self.rooms.get(ROOM).map_or(0, |r| r.clients.len()) + 1);
        self.join_as(ROOM, nick, client);
    }

    pub fn join_as(&mut self, room: &str, nick: &str, client: Client) {
        let answer = self.request(room);
        let Kind::Result(Some(answer)) = answer.kind else {
            panic!("refused: {answer:?}")
        };
        let answer: ConferenceIq = from_element(answer).expect("a conference");
        assert_eq!(answer.ready, Some(true));
        self.enter(room, nick, client);
    }

    /// Enters the room without asking.
    pub fn enter(&mut self, room: &str, nick: &str, client: Client) {
        self.room(room).clients.insert(nick.to_owned(), client);
        let stanza = self.client_presence(room, nick);
        self.deliver(stanza);
    }

    pub fn client_presence(&self, room: &str, nick: &str) -> Element {
        let client = &self.rooms[room].clients[nick];
        let item = Item {
            affiliation: Some(client.affiliation.clone()),
            role: Some(client.role.clone()),
            jid: Some(client.real.clone().into()),
            ..Item::default()
        };
        let info = DiscoInfo::features(client.features.iter().map(String::as_str));
        let occupied = Occupant {
            stats_id: Some(format!("{nick}-stats")),
            caps: Some(Caps::new("https://jitsi.org/jitsi-meet", &info)),
            muc: Some(MucUser::new(vec![item], &[])),
            ..Occupant::default()
        };
        let mut presence = Presence::available(full(FOCUS));
        presence.from = Some(occupant(room, nick).into());
        presence.payloads = occupied.payloads();
        presence.to_element()
    }

    pub fn leave(&mut self, nick: &str) {
        self.room(ROOM).clients.remove(nick);
        // Clients forget who leaves by themselves.
        for client in self.room(ROOM).clients.values_mut() {
            client.remote.0.remove(nick);
        }
        let mut presence =
            Presence::unavailable(full(FOCUS)).with(&MucUser::new(vec![Item::default()], &[]));
        presence.from = Some(occupant(ROOM, nick).into());
        self.deliver(presence.to_element());
    }

    /// What a client does when its ICE has failed.
    pub fn ice_failed(&mut self, nick: &str) -> Iq {
        let client = self.client(nick);
        let sid = client.sid.clone().expect("it is in a session");
        let mut jingle = Jingle::new(Action::SessionTerminate, sid);
        jingle.reason = Some(Reason {
            condition: Some(ReasonCondition::ConnectivityError),
            text: Some("ICE FAILED".into()),
        });
        jingle.bridge_session = Some(BridgeSession {
            id: client.bridge_session.clone(),
            restart: Some(true),
            ..BridgeSession::default()
        });
        client.sid = None;
        client.remote = ConferenceSources::default();
        self.jingle(nick, &jingle)
    }

    // ---- what the focus sent ------------------------------------------------------

    fn sent(&mut self, link: Link, stanza: Element) {
        self.sent
            .push((self.now - self.start, link, stanza.clone()));
        if self.dead_server {
            return;
        }
        let to = stanza.attr("to").unwrap_or_default();
        let slow = to.starts_with(BREWERY) || !to.contains('@');
        if slow && (!self.server_delay.is_zero() || !self.held.is_empty()) {
            let at = self.now + self.server_delay;
            self.held.push_back((at, link, stanza));
        } else {
            self.arrived(link, stanza);
        }
    }

    fn arrived(&mut self, link: Link, stanza: Element) {
        match stanza.name() {
            "presence" => self.focus_presence(&stanza),
            "iq" => {
                let iq = Iq::from_element(&stanza).expect("a good iq");
                match &iq.kind {
                    Kind::Result(_) | Kind::Error(_) if link == Link::Component => {
                        self.component.push(iq);
                    }
                    Kind::Result(_) | Kind::Error(_) => {
                        self.answers.insert(iq.id.clone(), iq);
                    }
                    Kind::Get(payload) | Kind::Set(payload) => {
                        if let Some(kind) = self.asked(&iq, payload) {
                            let mut answer = iq.answer(kind);
                            answer.to = Some(full(FOCUS).into());
                            self.inbox.push_back(answer.to_element());
                            self.after(&iq);
                        }
                    }
                }
            }
            other => panic!("the focus sends no {other}"),
        }
    }

    fn focus_presence(&mut self, stanza: &Element) {
        let presence = Presence::from_element(stanza).expect("a good presence");
        let Some(to) = presence.to.clone() else {
            return;
        };
        let room = to.to_bare().to_string();
        let joins = presence.payload::<Join>();
        let item = Item {
            affiliation: Some(Affiliation::Owner),
            role: Some(Role::Moderator),
            jid: Some(full(FOCUS).into()),
            ..Item::default()
        };
        if room == BREWERY {
            if joins.is_some() {
                let nicks: Vec<String> = self.bridges.keys().cloned().collect();
                for nick in nicks {
                    let stats: Stats = [("stress_level", "0.0"), ("drain", "false")]
                        .into_iter()
                        .collect();
                    let stanza = self.bridge_presence(&nick, stats);
                    self.inbox.push_back(stanza);
                }
                let mut own =
                    Presence::available(full(FOCUS)).with(&MucUser::new(vec![item], &[110]));
                own.from = Some(occupant(BREWERY, FOCUS_NICK).into());
                self.inbox.push_back(own.to_element());
                self.in_brewery = true;
            }
            return;
        }
        let entry = self.room(&room);
        entry.focus_presences.push(presence.clone());
        if presence.kind == PresenceType::Unavailable {
            entry.focus = false;
            return;
        }
        let Some(join) = joins else { return };
        if entry.locked.is_some() && entry.locked != join.password {
            let mut refused = Presence::new(PresenceType::Error).with_to(full(FOCUS));
            refused.from = Some(occupant(&room, FOCUS_NICK).into());
            refused
                .payloads
                .push(StanzaError::new(Condition::NotAuthorized).to_element());
            self.inbox.push_back(refused.to_element());
            return;
        }
        let fresh = !entry.focus && entry.clients.is_empty();
        entry.focus = true;
        let nicks: Vec<String> = entry.clients.keys().cloned().collect();
        for nick in nicks {
            let stanza = self.client_presence(&room, &nick);
            self.inbox.push_back(stanza);
        }
        let codes: &[u16] = if fresh { &[201, 100, 110] } else { &[100, 110] };
        let mut own = Presence::available(full(FOCUS)).with(&MucUser::new(vec![item], codes));
        own.from = Some(occupant(&room, FOCUS_NICK).into());
        self.inbox.push_back(own.to_element());
    }

    fn asked(&mut self, iq: &Iq, payload: &Element) -> Option<Kind> {
        let to = iq.to.clone().expect("requests go to somebody");
        let room = to.to_bare().to_string();
        let gone = || {
            Some(Kind::Error(
                StanzaError::new(Condition::ItemNotFound).with_text("Recipient not in room"),
            ))
        };
        if from_element::<Ping>(payload).is_ok() {
            return Some(Kind::Result(None));
        }
        if let Ok(query) = from_element::<OwnerQuery>(payload) {
            let password = self.rooms.get(&room).and_then(|r| r.locked.clone());
            let form = viaduct_signalling::disco::DataForm::submit(
                "http://jabber.org/protocol/muc#roomconfig",
                &[(
                    "muc#roomconfig_roomsecret",
                    password.as_deref().unwrap_or_default(),
                )],
            );
            return Some(Kind::Result(
                query
                    .form
                    .is_none()
                    .then(|| to_element(&OwnerQuery { form: Some(form) })),
            ));
        }
        if let Ok(query) = from_element::<AdminQuery>(payload) {
            self.grants_asked += 1;
            if let Some(condition) = self.grants_refused.clone() {
                return Some(Kind::Error(StanzaError::new(condition)));
            }
            self.administer(&room, &query);
            return Some(Kind::Result(None));
        }
        let Some(nick) = jid::nick(&to).map(str::to_owned) else {
            return Some(Kind::Result(None));
        };
        if room == BREWERY {
            return match self.bridges.get_mut(&nick) {
                Some(bridge) if bridge.frozen => None,
                Some(bridge) if bridge.is_slow() && !(bridge.hasty && expires(payload)) => {
                    bridge.enqueue(self.now, iq);
                    None
                }
                Some(bridge) => Some(bridge.asked(payload)),
                None => gone(),
            };
        }
        match self
            .rooms
            .get_mut(&room)
            .and_then(|r| r.clients.get_mut(&nick))
        {
            Some(client) => client.asked(payload),
            None => gone(),
        }
    }

    /// What a client does after it has answered a request.
    fn after(&mut self, iq: &Iq) {
        let (Some(to), Some(payload)) = (&iq.to, iq.request()) else {
            return;
        };
        let Ok(jingle) = from_element::<Jingle>(payload) else {
            return;
        };
        let Some(nick) = jid::nick(to).map(str::to_owned) else {
            return;
        };
        let room = to.to_bare().to_string();
        let Some(client) = self
            .rooms
            .get_mut(&room)
            .and_then(|r| r.clients.get_mut(&nick))
        else {
            return;
        };
        let accepted = jingle.action == Action::SessionInitiate
            && client.sid.as_deref() == Some(&jingle.sid)
            && !client.lazy;
        if accepted {
            self.ids += 1;
            let accept = client.accept(&nick);
            let mut iq = Iq::set(format!("accept-{nick}-{}", self.ids), full(FOCUS), &accept);
            iq.from = Some(occupant(&room, &nick).into());
            self.inbox.push_back(iq.to_element());
        }
    }

    fn administer(&mut self, room: &str, query: &AdminQuery) {
        let mut changed = Vec::new();
        if let Some(entry) = self.rooms.get_mut(room) {
            for item in &query.items {
                for (nick, client) in &mut entry.clients {
                    let meant = item
                        .jid
                        .as_ref()
                        .is_some_and(|jid| *jid == client.real.to_bare());
                    if let (true, Some(affiliation)) = (meant, &item.affiliation) {
                        client.affiliation = affiliation.clone();
                        client.role = Role::Moderator;
                        changed.push(nick.clone());
                    }
                }
            }
        }
        for nick in changed {
            let stanza = self.client_presence(room, &nick);
            self.inbox.push_back(stanza);
        }
    }
}

fn expires(payload: &Element) -> bool {
    from_element::<ConferenceModify>(payload)
        .is_ok_and(|modify| modify.expire || modify.endpoints.iter().any(|e| e.expire))
}

fn makes(iq: &Iq) -> bool {
    iq.request()
        .and_then(|payload| from_element::<ConferenceModify>(payload).ok())
        .is_some_and(|modify| modify.endpoints.iter().any(|e| e.create))
}

impl Bridge {
    fn is_slow(&self) -> bool {
        let slow = self.delay + self.work > Duration::ZERO;
        slow || !self.backlog.is_empty()
    }

    fn enqueue(&mut self, now: Instant, iq: &Iq) {
        let before = self.backlog.back().map_or(now, |(at, _)| *at);
        let done = before.max(now + self.delay) + self.work;
        self.backlog.push_back((done, iq.clone()));
        let to_make = self.backlog.iter().filter(|(_, iq)| makes(iq)).count();
        self.most_to_make = self.most_to_make.max(to_make);
    }

    fn asked(&mut self, payload: &Element) -> Kind {
        if from_element::<HealthCheck>(payload).is_ok() {
            self.health_checks += 1;
            return self.sick.clone().map_or(Kind::Result(None), Kind::Error);
        }
        let modify: ConferenceModify = from_element(payload).expect("a conference-modify");
        self.requests.push(modify.clone());
        let creates = modify.endpoints.iter().any(|endpoint| endpoint.create);
        let left = self.refusals.is_none_or(|left| left > 0);
        if let Some(refusal) = self.refusal.clone().filter(|_| creates && left) {
            self.refusals = self.refusals.map(|left| left - 1);
            return Kind::Error(refusal);
        }
        if modify.create {
            if self.conferences.contains_key(&modify.meeting_id) {
                return Kind::Error(colibri2::error(
                    Condition::Conflict,
                    colibri2::ErrorReason::ConferenceAlreadyExists,
                    "exists",
                ));
            }
            self.conferences
                .insert(modify.meeting_id.clone(), BTreeSet::new());
        }
        let Some(endpoints) = self.conferences.get_mut(&modify.meeting_id) else {
            return Kind::Error(colibri2::error(
                Condition::ItemNotFound,
                colibri2::ErrorReason::ConferenceNotFound,
                "not found",
            ));
        };
        let mut modified = ConferenceModified::default();
        for endpoint in &modify.endpoints {
            let mut answer = colibri2::Endpoint::new(endpoint.id.clone());
            if endpoint.expire {
                endpoints.remove(&endpoint.id);
                answer.expire = true;
            } else if endpoint.create {
                if !endpoints.insert(endpoint.id.clone()) {
                    return Kind::Error(StanzaError::new(Condition::Conflict));
                }
                let sctp = endpoint
                    .transport
                    .as_ref()
                    .is_some_and(|t| t.sctp.is_some());
                answer.transport = Some(colibri2::Transport {
                    ice_udp: Some(Transport {
                        ufrag: Some(format!("u{}", endpoint.id)),
                        pwd: Some("bridgepassword0123456789".into()),
                        rtcp_mux: true,
                        fingerprints: vec![Fingerprint {
                            hash: "sha-256".into(),
                            setup: Some(jingle::transport::Setup::ActPass),
                            value: "AB:CD".into(),
                            ..Fingerprint::default()
                        }],
                        candidates: vec![Candidate {
                            ip: Some("192.0.2.10".into()),
                            port: Some(10000),
                            ..Candidate::default()
                        }],
                        ..Transport::default()
                    }),
                    sctp: (sctp && self.sctp).then(|| Sctp {
                        role: Some("server".into()),
                        port: Some(5000),
                    }),
                    ..colibri2::Transport::default()
                });
            } else if !endpoints.contains(&endpoint.id) {
                return Kind::Error(colibri2::unknown_endpoint(&endpoint.id));
            }
            modified.endpoints.push(answer);
        }
        if creates {
            let feedback = EndpointSources {
                sources: vec![
                    source(9001, MediaType::Audio, Some("jvb-a0"), None),
                    source(9002, MediaType::Video, Some("jvb-v0"), None),
                ],
                groups: vec![],
            };
            modified.sources = Some(feedback.to_colibri2());
        }
        if modify.expire || (!modify.create && endpoints.is_empty()) {
            self.conferences.remove(&modify.meeting_id);
        }
        Kind::Result(Some(to_element(&modified)))
    }
}

pub fn source(ssrc: u32, media_type: MediaType, name: Option<&str>, msid: Option<&str>) -> Source {
    Source {
        ssrc,
        media_type,
        name: name.map(str::to_owned),
        msid: msid.map(str::to_owned),
        video_type: None,
    }
}

impl Client {
    fn asked(&mut self, payload: &Element) -> Option<Kind> {
        if let Ok(query) = from_element::<DiscoInfo>(payload) {
            self.queries += 1;
            if self.mute_disco {
                return None;
            }
            let mut info = DiscoInfo::features(self.features.iter().map(String::as_str));
            info.node = query.node;
            return Some(Kind::Result(Some(to_element(&info))));
        }
        if let Ok(mute) = from_element::<Mute>(payload) {
            self.mutes.push(mute);
            return None;
        }
        let jingle: Jingle = from_element(payload).expect("a Jingle request");
        self.got.push(jingle.clone());
        match jingle.action {
            Action::SessionInitiate => {
                if self.refuse > 0 {
                    self.refuse -= 1;
                    return Some(Kind::Error(StanzaError::new(Condition::ServiceUnavailable)));
                }
                assert!(
                    self.sid.is_none(),
                    "a second session-initiate without terminate"
                );
                self.sid = Some(jingle.sid.clone());
                self.bridge_session = jingle.bridge_session.clone().and_then(|b| b.id);
                self.remote = told(&jingle);
            }
            Action::SessionTerminate => {
                if self.sid.as_deref() != Some(&jingle.sid) {
                    return Some(Kind::Error(unknown_session()));
                }
                self.sid = None;
                self.remote = ConferenceSources::default();
            }
            _ if self.sid.as_deref() != Some(&jingle.sid) => {
                return Some(Kind::Error(unknown_session()));
            }
            Action::SourceAdd => {
                let come = told(&jingle);
                assert!(!come.is_empty(), "an empty source-add");
                for (owner, set) in &come.0 {
                    self.remote.merge(owner, set);
                }
            }
            Action::SourceRemove => {
                let gone = told(&jingle);
                assert!(!gone.is_empty(), "an empty source-remove");
                for (owner, set) in &gone.0 {
                    let own = self.remote.0.get_mut(owner).expect("it was told of them");
                    let removed = own.remove(set);
                    assert_eq!(removed.sources.len(), set.sources.len(), "all were known");
                }
            }
            _ => {}
        }
        Some(Kind::Result(None))
    }

    /// Camera with three layers and microphone.
    pub fn sources(&self, nick: &str) -> EndpointSources {
        if self.silent {
            return EndpointSources::default();
        }
        let seed: u32 = nick.bytes().fold(7u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u32::from(byte))
        }) % 100_000;
        let base = seed * 1_000 + self.generation * 20 + 1;
        let name = |letter: char| (!self.nameless).then(|| format!("{nick}-{letter}0"));
        let video_msid = format!("{nick}-video-0-{g} t{g}", g = self.generation);
        let audio_msid = format!("{nick}-audio-0-{g} t{g}", g = self.generation);
        let video = |ssrc| {
            source(
                ssrc,
                MediaType::Video,
                name('v').as_deref(),
                Some(video_msid.as_str()),
            )
        };
        let group = |semantics, ssrcs: &[u32]| Group {
            media_type: MediaType::Video,
            semantics,
            ssrcs: ssrcs.to_vec(),
        };
        let mut sources: Vec<Source> = (0..6).map(|i| video(base + i)).collect();
        sources.push(source(
            base + 6,
            MediaType::Audio,
            name('a').as_deref(),
            Some(audio_msid.as_str()),
        ));
        EndpointSources {
            sources,
            groups: vec![
                group(Semantics::Fid, &[base, base + 3]),
                group(Semantics::Sim, &[base, base + 1, base + 2]),
                group(Semantics::Fid, &[base + 1, base + 4]),
                group(Semantics::Fid, &[base + 2, base + 5]),
            ],
        }
    }

    pub fn accept(&mut self, nick: &str) -> Jingle {
        self.generation += 1;
        let mut jingle = Jingle::new(
            Action::SessionAccept,
            self.sid.clone().expect("it was offered one"),
        );
        let transport = Transport {
            ufrag: Some("client".into()),
            pwd: Some("clientpassword0123456789".into()),
            fingerprints: vec![Fingerprint {
                hash: "sha-256".into(),
                setup: Some(jingle::transport::Setup::Active),
                value: "12:34".into(),
                ..Fingerprint::default()
            }],
            ..Transport::default()
        };
        let sources = self.sources(nick);
        for media in MediaType::ALL {
            let mut contents = sources.only(|m| m == media).to_contents();
            let mut content = contents.pop().unwrap_or_else(|| Content {
                name: media.as_str().into(),
                description: Some(Description {
                    media: Some(media.as_str().into()),
                    ..Description::default()
                }),
                ..Content::default()
            });
            content.creator = Some(Creator::Responder);
            content.transport = Some(transport.clone());
            jingle.contents.push(content);
        }
        jingle
    }
}

fn told(jingle: &Jingle) -> ConferenceSources {
    match &jingle.json_message {
        Some(message) => ConferenceSources::from_json(&message.json).expect("good JSON"),
        None => ConferenceSources::from_contents(&jingle.contents),
    }
}

pub fn error(iq: &Iq) -> Condition {
    match &iq.kind {
        Kind::Error(error) => error.condition.clone(),
        other => panic!("no error: {other:?}"),
    }
}

pub fn is_result(iq: &Iq) -> bool {
    matches!(iq.kind, Kind::Result(_))
}
