//! One conference: the room, who is in it, and their calls. A state machine
//! without I/O: in come presences, requests, answers, news of bridges and time;
//! out go stanzas, through [`Context`].
//!
//! - here: entering and leaving the room, its members, timers
//! - `invite`: placing participants on bridges, offering
//! - `stay`: on a bridge, from its choice to its loss, and moving
//! - `session`: Jingle requests of clients
//! - `signal`: who is told of whose sources
//! - `moderation`: owners, mute, and features that are not there
//! - [`sources`]: which sources there are
//!
//! Life of a member: it enters, its features are asked for (`Idle`); with enough
//! members a place on a bridge is asked for (`Allocating`); the bridge answers,
//! it gets an offer (`Offered`) and accepts (`Active`). Whatever ends a session
//! leads back to `Idle`, from where it is invited again.

mod invite;
mod moderation;
mod session;
mod signal;
pub mod sources;
mod stay;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viaduct_signalling::disco::{Caps, DiscoInfo};
use viaduct_signalling::iq::{Condition, Iq};
use viaduct_signalling::jid::{self, BareJid, FullJid, Jid};
use viaduct_signalling::jitsi::conference::Conference as ConferenceIq;
use viaduct_signalling::jitsi::occupant::{ComponentVersion, property};
use viaduct_signalling::jitsi::{ConferenceProperties, Etherpad, Occupant, Versions};
use viaduct_signalling::muc::{self, Affiliation, MucUser, OwnerQuery, Role, RoomInfo, status};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::sources::ConferenceSources;
use viaduct_signalling::xml::{from_element, to_element};

use crate::FOCUS_NICK;
use crate::bridges::select::NoBridge;
use crate::context::{Context, Settings};
use crate::disco;
use crate::jingle::features::Features;
use crate::outbox::{Answer, Expected, Failure, Link, Outbox, RoomRequest};
use sources::Sources;
use stay::BridgeSession;

/// Members of one room that are taken notice of. Beyond it newcomers get no call.
pub const MAX_MEMBERS: usize = 5_000;
/// Requests for a room that wait for the focus to be in it.
const MAX_WAITING: usize = 1_000;
/// Sessions of a member that ended and whose late requests are known.
const MAX_ENDED: usize = 8;
/// How long entering the room may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
/// A place on a bridge is asked for again that often while there is none.
const NO_BRIDGE_RETRY: Duration = Duration::from_secs(5);

/// Who asked for the conference.
#[derive(Clone, Debug, PartialEq)]
pub enum Asker {
    /// By IQ: what to answer.
    Iq(Link, Box<Iq>),
    /// Over HTTP, by number.
    Http(u64),
}

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    request: ConferenceIq,
    due: Instant,
}

/// Where the focus stands with the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Presence sent, not in yet.
    Joining { due: Instant, password_tried: bool },
    /// In, settings under way.
    Configuring,
    /// In and set up.
    Joined,
    /// Nothing more to do: to be forgotten.
    Left,
}

/// After a new session of ours: which members were seen again.
#[derive(Debug, Default)]
struct Resync {
    seen: BTreeSet<String>,
    /// The room had vanished: everybody gets time to come back.
    recreated: Option<Instant>,
}

/// Someone in the room.
#[derive(Debug)]
struct Member {
    /// Order of entering.
    order: u64,
    occupant: Occupant,
    /// `None` while they are asked for.
    features: Option<Features>,
    /// Which capabilities the features are of.
    ver: Option<String>,
    session: Session,
    /// Ids of sessions that ended, newest last.
    ended: VecDeque<String>,
    /// Sources this member has been told of, by owner.
    told: ConferenceSources,
    /// It has to be told everything that differs, not only what changed.
    told_stale: bool,
    /// Restarts it asked for lately.
    restarts: VecDeque<Instant>,
    /// Not invited before then.
    invite_after: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// A member's call.
#[derive(Clone, Debug, PartialEq)]
enum Session {
    /// None; may be invited.
    Idle,
    /// None, and none wanted: the client ended it.
    Closed,
    /// The bridge was asked for an endpoint.
    Allocating {
        bridge: u32,
        attempt: u64,
        suspect_at: Option<Instant>,
    },
    /// session-initiate was sent.
    Offered {
        bridge: u32,
        sid: String,
        due: Instant,
    },
    /// Accepted.
    Active { bridge: u32, sid: String },
}

impl Session {
    fn bridge(&self) -> Option<u32> {
        match self {
            Self::Idle | Self::Closed => None,
            Self::Allocating { bridge, .. }
            | Self::Offered { bridge, .. }
            | Self::Active { bridge, .. } => Some(*bridge),
        }
    }

    fn sid(&self) -> Option<&str> {
        match self {
            Self::Idle | Self::Closed | Self::Allocating { .. } => None,
            Self::Offered { sid, .. } | Self::Active { sid, .. } => Some(sid),
        }
    }
}

impl Member {
    fn item(&self) -> Option<&muc::Item> {
        self.occupant.muc.as_ref()?.items.first()
    }

    fn real(&self) -> Option<&Jid> {
        self.item()?.jid.as_ref()
    }

    fn is_owner(&self) -> bool {
        self.item()
            .is_some_and(|item| item.affiliation == Some(Affiliation::Owner))
    }

    fn is_moderator(&self) -> bool {
        self.item().is_some_and(|item| {
            matches!(
                item.affiliation,
                Some(Affiliation::Owner | Affiliation::Admin)
            ) || item.role == Some(Role::Moderator)
        })
    }

    fn is_visitor(&self) -> bool {
        self.item()
            .is_some_and(|item| item.role == Some(Role::Visitor))
    }

    fn end_session(&mut self, next: Session) -> Option<String> {
        let sid = self.session.sid().map(str::to_owned);
        if let Some(sid) = &sid {
            if self.ended.len() >= MAX_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(sid.clone());
        }
        self.session = next;
        self.told = ConferenceSources::default();
        sid
    }
}

/// A conference.
#[derive(Debug)]
pub struct Conference {
    name: BareJid,
    room: Room,
    /// What the bridges call it.
    meeting_id: String,
    /// Bridges that have known it by that id.
    id_known_to: BTreeSet<FullJid>,
    created: Instant,
    password: Option<String>,
    document: String,
    properties: ConferenceProperties,
    waiting: Vec<Waiting>,
    members: BTreeMap<String, Member>,
    next_order: u64,
    sources: Sources,
    /// Owners whose sources changed since the last signalling.
    changed: BTreeSet<String>,
    signal_due: Option<Instant>,
    bridges: Vec<BridgeSession>,
    next_bridge: u32,
    /// Bridges that failed this conference, until when they are a last choice.
    avoided: BTreeMap<FullJid, Instant>,
    no_bridge: Option<NoBridge>,
    retry_due: Option<Instant>,
    /// Failures of whole bridge sessions in a row, and until when that makes
    /// everybody wait.
    setbacks: u32,
    pause: Option<Instant>,
    /// Nobody has come yet.
    empty_due: Option<Instant>,
    /// Too few for a call.
    alone_due: Option<Instant>,
    resync: Option<Resync>,
    /// Who was made owner and has not shown it yet.
    granted: Option<String>,
    breakout: bool,
    /// Why the last placements went where they did, for `/debug`.
    placements: VecDeque<Value>,
}

impl Conference {
    /// A conference asked for: the focus enters its room.
    pub fn new(ctx: &mut Context<'_>, name: BareJid) -> Self {
        ctx.counters.conferences_created += 1;
        let local = name.node().map_or_else(String::new, ToString::to_string);
        let document = if ctx.settings.conference.random_document {
            ctx.random.uuid()
        } else {
            local
        };
        let mut properties = ConferenceProperties::default();
        properties.set(property::SUPPORT_TERMINATE_RESTART, "true");
        let mut conference = Self {
            meeting_id: ctx.random.uuid(),
            name,
            room: Room::Left,
            id_known_to: BTreeSet::new(),
            created: ctx.now,
            password: None,
            document,
            properties,
            waiting: Vec::new(),
            members: BTreeMap::new(),
            next_order: 0,
            sources: Sources::default(),
            changed: BTreeSet::new(),
            signal_due: None,
            bridges: Vec::new(),
            next_bridge: 0,
            avoided: BTreeMap::new(),
            no_bridge: None,
            retry_due: None,
            setbacks: 0,
            pause: None,
            empty_due: None,
            alone_due: None,
            resync: None,
            granted: None,
            breakout: false,
            placements: VecDeque::new(),
        };
        tracing::info!(room = %conference.name, "conference created");
        conference.enter(ctx, false);
        conference
    }

    /// The focus is in the room and has set it up.
    pub fn ready(&self) -> bool {
        self.room == Room::Joined
    }

    /// Nothing is left of it.
    pub fn ended(&self) -> bool {
        self.room == Room::Left
    }

    pub fn meeting_id(&self) -> &str {
        &self.meeting_id
    }

    pub fn members(&self) -> usize {
        self.members.len()
    }

    fn me(&self) -> FullJid {
        jid::occupant(&self.name, FOCUS_NICK).expect("the nickname is a resource")
    }

    fn occupant(&self, nick: &str) -> FullJid {
        jid::occupant(&self.name, nick).expect("it came as a resource")
    }

    // ---- requests -------------------------------------------------------

    /// Someone asks for the conference: answered once the focus is in the room,
    /// or as "not yet" before a second is over.
    pub fn request(&mut self, ctx: &mut Context<'_>, asker: Asker, request: ConferenceIq) {
        if self.members.is_empty() && self.ready() {
            self.empty_due = Some(ctx.now + ctx.settings.conference.initial_timeout);
        }
        if self.ready() || self.waiting.len() >= MAX_WAITING {
            answer_request(ctx.out, ctx.settings, &asker, &request, self.ready());
            return;
        }
        let due = ctx.now + ctx.settings.conference.ready_wait;
        self.waiting.push(Waiting {
            asker,
            request,
            due,
        });
    }

    fn answer_waiting(&mut self, ctx: &mut Context<'_>, ready: bool) {
        for waiting in self.waiting.drain(..) {
            answer_request(
                ctx.out,
                ctx.settings,
                &waiting.asker,
                &waiting.request,
                ready,
            );
        }
    }

    // ---- the room -------------------------------------------------------

    fn enter(&mut self, ctx: &mut Context<'_>, password_tried: bool) {
        self.room = Room::Joining {
            due: ctx.now + JOIN_TIMEOUT,
            password_tried,
        };
        self.send_join(ctx);
    }

    fn send_join(&self, ctx: &mut Context<'_>) {
        let presence = muc::join(self.me(), self.password.clone()).with(&disco::caps());
        ctx.out.presence(Link::Client, presence);
    }

    /// Our session is a new one: the server knows nothing of us in the room.
    pub fn rejoin(&mut self, ctx: &mut Context<'_>) {
        match self.room {
            Room::Left => {}
            Room::Joining { .. } => self.enter(ctx, false),
            Room::Configuring | Room::Joined => {
                self.resync = Some(Resync::default());
                self.room = Room::Joining {
                    due: ctx.now + JOIN_TIMEOUT,
                    password_tried: false,
                };
                self.send_join(ctx);
            }
        }
    }

    fn entered(&mut self, ctx: &mut Context<'_>, user: &MucUser) {
        if let Some(resync) = &mut self.resync
            && user.has_status(status::CREATED)
        {
            resync.recreated = Some(ctx.now + ctx.settings.conference.initial_timeout);
        }
        self.room = Room::Configuring;
        ctx.out.get(
            Link::Client,
            self.name.clone(),
            to_element(&OwnerQuery::default()),
            ctx.reply_deadline(),
            Expected::Room(self.name.clone(), RoomRequest::Form),
        );
    }

    fn configure(&mut self, ctx: &mut Context<'_>, answer: Answer) {
        if self.room != Room::Configuring {
            return;
        }
        match answer {
            Ok(form) => {
                let info = form
                    .and_then(|form| from_element::<OwnerQuery>(form).ok())
                    .and_then(|query| query.form)
                    .map(|form| RoomInfo::from_form(&form))
                    .unwrap_or_default();
                if let Some(id) = info.meeting_id
                    && self.bridges.is_empty()
                {
                    self.meeting_id = id;
                }
                self.breakout = info.is_breakout;
                self.password = info.password;
                ctx.out.set(
                    Link::Client,
                    self.name.clone(),
                    to_element(&OwnerQuery::whois_anyone()),
                    ctx.reply_deadline(),
                    Expected::Room(self.name.clone(), RoomRequest::Configured),
                );
            }
            Err(failure) => {
                tracing::warn!(room = %self.name, %failure, "the focus is no owner of the room: \
                    clients will only trust it if the room shows real addresses");
                self.set_up(ctx);
            }
        }
    }

    /// The room is as it should be: say so, and let those in who wait.
    fn set_up(&mut self, ctx: &mut Context<'_>) {
        if self.room != Room::Configuring {
            return;
        }
        self.room = Room::Joined;
        self.send_presence(ctx);
        self.answer_waiting(ctx, true);
        self.reconcile(ctx);
        if self.members.is_empty() {
            self.empty_due = Some(ctx.now + ctx.settings.conference.initial_timeout);
        }
        self.elect_owner(ctx);
        self.invite_all(ctx);
    }

    fn send_presence(&self, ctx: &mut Context<'_>) {
        let presence = Presence::available(self.me())
            .with(&Etherpad {
                name: self.document.clone(),
            })
            .with(&Versions {
                components: vec![ComponentVersion {
                    name: "focus".to_owned(),
                    version: crate::VERSION.to_owned(),
                }],
            })
            .with(&self.properties)
            .with(&disco::caps());
        ctx.out.presence(Link::Client, presence);
    }

    fn publish_bridges(&mut self, ctx: &mut Context<'_>) {
        let count = self.bridges.len().to_string();
        let unset = self.properties.get(property::BRIDGE_COUNT).is_none() && count == "0";
        if !unset && self.properties.set(property::BRIDGE_COUNT, count) && self.ready() {
            self.send_presence(ctx);
        }
    }

    /// After a rejoin: members that the room no longer has are gone.
    fn reconcile(&mut self, ctx: &mut Context<'_>) {
        let Some(resync) = &self.resync else { return };
        if resync.recreated.is_some() {
            return;
        }
        let gone: Vec<String> = self
            .members
            .keys()
            .filter(|nick| !resync.seen.contains(*nick))
            .cloned()
            .collect();
        self.resync = None;
        for nick in gone {
            self.left(ctx, &nick);
        }
    }

    /// Ends everything: the bridges forget the conference, the focus leaves.
    pub fn end(&mut self, ctx: &mut Context<'_>, why: &'static str) {
        if self.room == Room::Left {
            return;
        }
        tracing::info!(room = %self.name, why, "conference ended");
        ctx.counters.conference_seconds += ctx.now.duration_since(self.created).as_secs();
        self.drop_bridges(ctx);
        let in_room = !matches!(self.room, Room::Joining { .. });
        self.room = Room::Left;
        self.answer_waiting(ctx, false);
        self.members.clear();
        if in_room {
            ctx.out
                .presence(Link::Client, Presence::unavailable(self.me()));
        }
    }

    // ---- presence -------------------------------------------------------

    /// A presence from the room.
    pub fn presence(&mut self, ctx: &mut Context<'_>, nick: &str, presence: &Presence) {
        match presence.kind {
            PresenceType::Error => self.refused(ctx, presence),
            PresenceType::Unavailable if nick == FOCUS_NICK => {
                let user: MucUser = presence.payload().unwrap_or_default();
                let why = if user.destroy.is_some() {
                    "the room was destroyed"
                } else {
                    "the focus was removed from the room"
                };
                // Out already: nothing is to be left any more.
                self.drop_bridges(ctx);
                self.room = Room::Joining {
                    due: ctx.now,
                    password_tried: true,
                };
                self.end(ctx, why);
            }
            PresenceType::Unavailable => self.left(ctx, nick),
            PresenceType::Available if nick == FOCUS_NICK => {
                let user: MucUser = presence.payload().unwrap_or_default();
                if user.has_status(status::SELF) && matches!(self.room, Room::Joining { .. }) {
                    self.entered(ctx, &user);
                }
            }
            PresenceType::Available => self.seen(ctx, nick, Occupant::from_presence(presence)),
            _ => {}
        }
    }

    fn refused(&mut self, ctx: &mut Context<'_>, presence: &Presence) {
        let Room::Joining { password_tried, .. } = self.room else {
            return;
        };
        let error = presence.error();
        let condition = error.as_ref().map(|error| error.condition.clone());
        if condition == Some(Condition::NotAuthorized) && !password_tried {
            // A locked room asks owners too; they can read the password.
            ctx.out.get(
                Link::Client,
                self.name.clone(),
                to_element(&OwnerQuery::default()),
                ctx.reply_deadline(),
                Expected::Room(self.name.clone(), RoomRequest::Password),
            );
            return;
        }
        let error = error.map_or_else(|| "no reason given".to_owned(), |error| error.to_string());
        tracing::warn!(room = %self.name, error, "the room does not let the focus in");
        self.end(ctx, "the room does not let the focus in");
    }

    fn seen(&mut self, ctx: &mut Context<'_>, nick: &str, occupant: Occupant) {
        if let Some(resync) = &mut self.resync {
            resync.seen.insert(nick.to_owned());
        }
        let known = self.members.contains_key(nick);
        if !known {
            if self.members.len() >= MAX_MEMBERS {
                tracing::warn!(room = %self.name, limit = MAX_MEMBERS, "too many members, one is ignored");
                return;
            }
            self.next_order += 1;
            ctx.counters.participants += 1;
            let member = Member {
                order: self.next_order,
                occupant: Occupant::default(),
                features: None,
                ver: None,
                session: Session::Idle,
                ended: VecDeque::new(),
                told: ConferenceSources::default(),
                told_stale: false,
                restarts: VecDeque::new(),
                invite_after: None,
                failures: 0,
            };
            tracing::debug!(room = %self.name, nick, "member entered");
            self.members.insert(nick.to_owned(), member);
        }
        let member = self.members.get_mut(nick).expect("known or just entered");
        let real_before = member.real().cloned();
        member.occupant = occupant;
        if let (true, Some(before), Some(now)) = (known, &real_before, member.real())
            && before != now
        {
            // The nick was taken over without a leave: it is somebody else.
            let occupant = std::mem::take(&mut member.occupant);
            self.left(ctx, nick);
            if !self.ended() {
                self.seen(ctx, nick, occupant);
            }
            return;
        }
        self.empty_due = None;
        self.elect_owner(ctx);
        self.learn_features(ctx, nick);
        if self.members.len() >= ctx.settings.conference.min_participants {
            self.alone_due = None;
        }
        self.invite_all(ctx);
    }

    fn learn_features(&mut self, ctx: &mut Context<'_>, nick: &str) {
        let to = self.occupant(nick);
        let Some(member) = self.members.get_mut(nick) else {
            return;
        };
        let caps = member.occupant.caps.clone();
        let ver = caps.as_ref().map(|caps| caps.ver.clone());
        if member.ver.is_some() && (ver.is_none() || member.ver == ver) {
            return;
        }
        // An older client may announce none: it is asked all the same, once.
        if let Some(features) = caps.as_ref().and_then(|caps| ctx.remembered.get(caps)) {
            member.features = Some(features);
            member.ver = ver;
            return;
        }
        let ver = ver.unwrap_or_default();
        member.ver = Some(ver.clone());
        let query = DiscoInfo::query(caps.as_ref().map(Caps::query_node));
        ctx.out.get(
            Link::Client,
            to,
            to_element(&query),
            ctx.now + ctx.settings.conference.features_timeout,
            Expected::Room(
                self.name.clone(),
                RoomRequest::Features {
                    nick: nick.to_owned(),
                    ver,
                },
            ),
        );
    }

    fn features_answered(&mut self, ctx: &mut Context<'_>, nick: &str, ver: &str, answer: Answer) {
        let Some(member) = self.members.get_mut(nick) else {
            return;
        };
        if member.ver.as_deref() != Some(ver) {
            return;
        }
        let info = answer
            .ok()
            .flatten()
            .and_then(|e| from_element::<DiscoInfo>(e).ok());
        member.features = Some(match &info {
            Some(info) => {
                if let Some(caps) = &member.occupant.caps {
                    ctx.remembered.learn(caps, info);
                }
                Features::from_disco(info)
            }
            None => Features::ASSUMED,
        });
        self.invite_all(ctx);
    }

    fn left(&mut self, ctx: &mut Context<'_>, nick: &str) {
        if !self.members.contains_key(nick) {
            return;
        }
        tracing::debug!(room = %self.name, nick, "member left");
        self.expire_endpoint(ctx, nick);
        self.members.remove(nick);
        self.sources.forget(nick);
        self.changed.remove(nick);
        // Clients drop the sources of who leaves by themselves.
        for member in self.members.values_mut() {
            member.told.0.remove(nick);
        }
        if self.granted.as_deref() == Some(nick) {
            self.granted = None;
        }
        if self.members.is_empty() {
            if self.resync.is_none() {
                self.end(ctx, "everybody left");
            }
            return;
        }
        self.publish_bridges(ctx);
        self.elect_owner(ctx);
        if self.members.len() < ctx.settings.conference.min_participants {
            let due = ctx.now + ctx.settings.conference.single_timeout;
            self.alone_due.get_or_insert(due);
        }
    }

    // ---- requests and answers ---------------------------------------------

    /// A request from a member of the room, to the occupant `focus`.
    pub fn iq(&mut self, ctx: &mut Context<'_>, nick: &str, iq: &Iq) {
        self.handle_iq(ctx, nick, iq);
        self.signal(ctx);
    }

    /// An answer to one of this conference's requests, or the lack of it.
    pub fn answered(&mut self, ctx: &mut Context<'_>, request: RoomRequest, answer: Answer) {
        if self.ended() {
            return;
        }
        match request {
            RoomRequest::Password => self.unlocked(ctx, answer),
            RoomRequest::Form => self.configure(ctx, answer),
            RoomRequest::Configured => {
                if let Err(failure) = &answer {
                    tracing::warn!(room = %self.name, %failure, "the room could not be set up");
                }
                self.set_up(ctx);
            }
            RoomRequest::Grant { nick } => self.grant_answered(&nick, &answer),
            RoomRequest::Features { nick, ver } => {
                self.features_answered(ctx, &nick, &ver, answer);
            }
            RoomRequest::Jingle {
                nick,
                sid,
                initiate,
            } => {
                self.jingle_answered(ctx, &nick, &sid, initiate, answer);
            }
            RoomRequest::Allocation(place) => self.allocated(ctx, &place, answer),
            RoomRequest::Update { session, nick } => self.updated(ctx, session, &nick, answer),
            RoomRequest::Probe { session } => self.probed(ctx, session, answer),
        }
        self.signal(ctx);
    }

    fn unlocked(&mut self, ctx: &mut Context<'_>, answer: Answer) {
        let password = answer
            .ok()
            .flatten()
            .and_then(|form| from_element::<OwnerQuery>(form).ok())
            .and_then(|query| query.form)
            .and_then(|form| RoomInfo::from_form(&form).password);
        match password {
            Some(password) => {
                self.password = Some(password);
                self.enter(ctx, true);
            }
            None => self.end(ctx, "the room is locked and its password cannot be read"),
        }
    }

    /// Members now make a call, or wait for a bridge that may have come.
    pub fn bridge_usable(&mut self, ctx: &mut Context<'_>) {
        self.resettle(ctx);
        self.invite_all(ctx);
        self.signal(ctx);
    }

    /// A bridge failed.
    pub fn bridge_lost(&mut self, ctx: &mut Context<'_>, bridge: &FullJid, why: &'static str) {
        self.lose_bridge(ctx, bridge, why);
        self.signal(ctx);
    }

    /// A bridge may be another process than before.
    pub fn bridge_doubtful(&mut self, ctx: &mut Context<'_>, bridge: &FullJid) {
        self.probe_bridge(ctx, bridge);
    }

    // ---- time -----------------------------------------------------------

    pub fn next_timeout(&self) -> Option<Instant> {
        let joining = match self.room {
            Room::Joining { due, .. } => Some(due),
            Room::Left => return None,
            Room::Configuring | Room::Joined => None,
        };
        let waiting = self.next_waiting();
        let recreated = self.resync.as_ref().and_then(|resync| resync.recreated);
        let members = self.members.values().filter_map(|member| {
            let session = match &member.session {
                Session::Allocating { suspect_at, .. } => *suspect_at,
                Session::Offered { due, .. } => Some(*due),
                Session::Idle => member.invite_after,
                Session::Closed | Session::Active { .. } => None,
            };
            session.into_iter().min()
        });
        [
            joining,
            waiting,
            recreated,
            self.signal_due,
            self.empty_due,
            self.alone_due,
            self.retry_due,
        ]
        .into_iter()
        .flatten()
        .chain(members)
        .min()
    }

    /// When the first request that waits must be answered.
    pub fn next_waiting(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.due).min()
    }

    /// Answers requests that have waited long enough.
    pub fn waiting_due(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.due <= now);
        self.waiting = waiting;
        for Waiting { asker, request, .. } in due {
            answer_request(ctx.out, ctx.settings, &asker, &request, false);
        }
    }

    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        self.waiting_due(ctx);
        if let Room::Joining { due, .. } = self.room
            && due <= now
        {
            tracing::warn!(room = %self.name, "the room does not answer");
            self.end(ctx, "the room does not answer");
            return;
        }
        if let Some(resync) = &mut self.resync
            && resync.recreated.is_some_and(|due| due <= now)
        {
            resync.recreated = None;
            self.reconcile(ctx);
            if self.members.is_empty() {
                self.end(ctx, "everybody left while the server was away");
            }
        }
        if self.empty_due.is_some_and(|due| due <= now) {
            self.empty_due = None;
            if self.members.is_empty() {
                self.end(ctx, "nobody came");
            }
        }
        if self.alone_due.is_some_and(|due| due <= now) {
            self.alone_due = None;
            self.disband(ctx);
        }
        if self.retry_due.is_some_and(|due| due <= now) {
            self.retry_due = None;
            self.resettle(ctx);
        }
        if self.ended() {
            return;
        }
        self.sessions_due(ctx);
        self.invite_all(ctx);
        self.signal(ctx);
    }

    /// Its state, for `/debug`.
    pub fn debug(&self) -> Value {
        let members: BTreeMap<&String, Value> = self
            .members
            .iter()
            .map(|(nick, member)| {
                let session = match &member.session {
                    Session::Idle => "waiting",
                    Session::Closed => "closed",
                    Session::Allocating { .. } => "allocating",
                    Session::Offered { .. } => "offered",
                    Session::Active { .. } => "active",
                };
                let sources = self.sources.get(nick).map_or(0, |set| set.sources.len());
                let value = json!({
                    "session": session,
                    "sid": member.session.sid(),
                    "bridge": member.session.bridge(),
                    "ssrcs": sources,
                    "region": member.occupant.region,
                    "stats-id": member.occupant.stats_id,
                    "json-sources": member.features.map(|f| f.json_sources),
                });
                (nick, value)
            })
            .collect();
        json!({
            "meeting-id": self.meeting_id,
            "room": format!("{:?}", self.room),
            "members": members,
            "bridges": self.bridges.iter().map(BridgeSession::debug).collect::<Vec<_>>(),
            "no-bridge": self.no_bridge.map(|why| why.to_string()),
            "placements": self.placements,
        })
    }
}

/// Answers a conference request.
pub fn answer_request(
    out: &mut Outbox,
    settings: &Settings,
    asker: &Asker,
    request: &ConferenceIq,
    ready: bool,
) {
    let answer = ConferenceIq {
        room: request.room.clone(),
        ready: Some(ready),
        focusjid: Some(settings.account.to_string()),
        ..ConferenceIq::default()
    }
    .with_property("authentication", "false")
    .with_property("visitors-supported", "false");
    match asker {
        Asker::Iq(link, iq) => out.iq(*link, iq.result(&answer)),
        Asker::Http(number) => out.http(*number, Ok(answer)),
    }
}

/// Whether a request failed because the one asked is no longer there.
fn is_gone(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(error) if error.condition == Condition::ItemNotFound)
}
