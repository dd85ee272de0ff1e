//! The whole focus, without I/O: connections coming and going, the brewery, and
//! which stanza belongs to which conference.
//!
//! `io` hands in events with the time and sends what [`Focus::take_outputs`]
//! returns. Everything repeats exactly for the same input and seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viaduct_signalling::brewery::{Stats, stat};
use viaduct_signalling::disco::{DiscoInfo, Ping, Version};
use viaduct_signalling::iq::{Condition, Iq, IqError, Kind, StanzaError};
use viaduct_signalling::jid::{self, BareJid, FullJid, Jid};
use viaduct_signalling::jingle::{Action, Jingle, unknown_session};
use viaduct_signalling::jitsi::{Conference as ConferenceIq, Ignore, Logout, SessionInvalid};
use viaduct_signalling::muc::{self, MucUser, OwnerQuery, status};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::roster;
use viaduct_signalling::xml::{Element, from_element, ns, to_element};

use crate::FOCUS_NICK;
use crate::bridges::health::Answer as HealthAnswer;
use crate::bridges::registry::{Event, Registry, Report};
use crate::bridges::session::expire_conference;
use crate::conference::{Asker, Conference, answer_request};
use crate::context::{Context, Settings, send_checks};
use crate::disco;
use crate::jingle::features::Remembered;
use crate::outbox::{Answer, Expected, Failure, Link, Outbox, Output, RoomRequest};
use crate::random::Random;
use crate::stats::{Counters, Gauges, Statistics};

/// Entering the brewery is tried again after that.
const BREWERY_RETRY: Duration = Duration::from_secs(5);
/// After a resumed session answers that were on their way get that long.
const RESUMED_GRACE: Duration = Duration::from_secs(3);

/// Where the focus stands with the brewery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brewery {
    Out { retry: Option<Instant> },
    Joining { due: Instant },
    Joined,
}

/// All conferences, all bridges.
#[derive(Debug)]
pub struct Focus {
    settings: Settings,
    /// The full address the account is bound to; `None` before the first login.
    me: Option<FullJid>,
    online: BTreeSet<Link>,
    brewery: Brewery,
    brewery_seen: BTreeSet<FullJid>,
    /// No request times out before then.
    quiet_until: Option<Instant>,
    registry: Registry,
    remembered: Remembered,
    random: Random,
    out: Outbox,
    counters: Counters,
    conferences: BTreeMap<BareJid, Conference>,
    lost: Vec<Event>,
}

impl Focus {
    /// The seed should be random where it matters.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            registry: Registry::new(settings.bridge.clone()),
            out: Outbox::new(random.id()),
            settings,
            me: None,
            online: BTreeSet::new(),
            brewery: Brewery::Out { retry: None },
            brewery_seen: BTreeSet::new(),
            quiet_until: None,
            remembered: Remembered::default(),
            random,
            counters: Counters::default(),
            conferences: BTreeMap::new(),
            lost: Vec::new(),
        }
    }

    /// What is to leave, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.out.take()
    }

    // ---- connections ------------------------------------------------------

    /// A connection is up. Unless `resumed`, the server has forgotten us.
    pub fn online(&mut self, now: Instant, link: Link, jid: &Jid, resumed: bool) {
        self.online.insert(link);
        if link == Link::Client {
            match jid.clone().try_into_full() {
                Ok(full) => self.me = Some(full),
                Err(jid) => tracing::error!(%jid, "the account has no resource"),
            }
        }
        if resumed {
            self.quiet_until = Some(now + RESUMED_GRACE);
            return;
        }
        let lost = self.out.lost(link);
        if link == Link::Client {
            // Undirected: a component that forwards requests must see us.
            let presence = Presence::new(PresenceType::Available).with(&disco::caps());
            self.out.presence(link, presence);
        }
        if link == self.settings.brewery_link {
            self.join_brewery(now);
        }
        for expected in lost {
            self.dispatch(now, expected, Err(Failure::Lost));
        }
        if link == Link::Client {
            self.each(now, |ctx, conference| conference.rejoin(ctx));
        }
        self.settle(now);
    }

    /// A connection is down; it may come back as if nothing had been.
    pub fn offline(&mut self, now: Instant, link: Link) {
        if self.online.remove(&link) {
            self.counters.xmpp_disconnects += 1;
        }
        self.settle(now);
    }

    /// A planned end: clients take no notice of a focus that leaves like this,
    /// and their calls go on (client-focus §6.3, S4).
    pub fn shut_down(&mut self) {
        let ignored = Presence::new(PresenceType::Unavailable).with(&Ignore);
        self.out.presence(Link::Client, ignored);
        if self.settings.brewery_link != Link::Client {
            let gone = Presence::new(PresenceType::Unavailable);
            self.out.presence(self.settings.brewery_link, gone);
        }
    }

    // ---- stanzas ------------------------------------------------------------

    /// A stanza from one of the connections.
    pub fn stanza(&mut self, now: Instant, link: Link, stanza: &Element) {
        match stanza.name() {
            "iq" => match Iq::from_element(stanza) {
                Ok(iq) => self.iq(now, link, &iq),
                Err(IqError::BadRequest(answer)) => {
                    self.counters.bad_stanzas += 1;
                    self.out.iq(link, *answer);
                }
                Err(error) => self.bad(stanza, &error),
            },
            "presence" => match Presence::from_element(stanza) {
                Ok(presence) => self.presence(now, link, &presence),
                Err(error) => self.bad(stanza, &error),
            },
            // Words of Jitsi's room plugins; none is acted on.
            _ => {}
        }
        self.settle(now);
    }

    fn bad(&mut self, stanza: &Element, error: &IqError) {
        self.counters.bad_stanzas += 1;
        tracing::debug!(name = stanza.name(), %error, "a stanza that cannot be used");
    }

    fn iq(&mut self, now: Instant, link: Link, iq: &Iq) {
        let payload = match &iq.kind {
            Kind::Result(payload) => {
                if let Some(expected) = self.out.answered(link, iq) {
                    self.dispatch(now, expected, Ok(payload.clone()));
                }
                return;
            }
            Kind::Error(error) => {
                if let Some(expected) = self.out.answered(link, iq) {
                    self.dispatch(now, expected, Err(Failure::Refused(error.clone())));
                }
                return;
            }
            Kind::Get(payload) | Kind::Set(payload) => payload,
        };
        if let Ok(query) = from_element::<DiscoInfo>(payload) {
            self.out.iq(link, iq.result(&disco::info(query.node)));
            return;
        }
        if from_element::<Version>(payload).is_ok() {
            self.out.iq(link, iq.result(&disco::version()));
            return;
        }
        let pushed = payload.has_ns(ns::ROSTER) && link != Link::Component;
        if from_element::<Ping>(payload).is_ok() || pushed {
            self.out.iq(link, iq.done());
            return;
        }
        if let (Some(from), Link::Client) = (&iq.from, link)
            && let Some(nick) = jid::nick(from)
        {
            let room = from.to_bare();
            if self.conferences.contains_key(&room) {
                let nick = nick.to_owned();
                self.with(now, |ctx, conferences| {
                    if let Some(conference) = conferences.get_mut(&room) {
                        conference.iq(ctx, &nick, iq);
                    }
                });
                return;
            }
        }
        if payload.has_ns(ns::FOCUS) && link != Link::Service {
            self.focus_iq(now, link, iq, payload);
            return;
        }
        let kind = match from_element::<Jingle>(payload) {
            // A room we have left: whatever ends is ended.
            Ok(jingle) if jingle.action == Action::SessionTerminate => Kind::Result(None),
            Ok(_) => Kind::Error(unknown_session()),
            Err(_) => Kind::Error(StanzaError::new(Condition::ServiceUnavailable)),
        };
        self.out.iq(link, iq.answer(kind));
    }

    fn focus_iq(&mut self, now: Instant, link: Link, iq: &Iq, payload: &Element) {
        if let Ok(request) = from_element::<ConferenceIq>(payload) {
            let asker = Asker::Iq(link, Box::new(iq.clone()));
            if let Err(error) = self.request(now, asker, request) {
                self.out.iq(link, iq.error(error));
            }
            return;
        }
        let error = match from_element::<Logout>(payload) {
            Ok(_) => StanzaError::new(Condition::NotAcceptable).with_detail(&SessionInvalid),
            Err(_) => StanzaError::new(Condition::FeatureNotImplemented),
        };
        self.out.iq(link, iq.error(error));
    }

    /// A conference request over HTTP; the answer comes with that number.
    pub fn http_request(&mut self, now: Instant, number: u64, request: ConferenceIq) {
        if let Err(error) = self.request(now, Asker::Http(number), request) {
            self.out.http(number, Err(error));
        }
        self.settle(now);
    }

    fn request(
        &mut self,
        now: Instant,
        asker: Asker,
        request: ConferenceIq,
    ) -> Result<(), StanzaError> {
        self.counters.conference_requests += 1;
        let bad = |text: &str| StanzaError::new(Condition::BadRequest).with_text(text);
        let room = request
            .room
            .as_deref()
            .ok_or_else(|| bad("No 'room' specified."))?;
        let room = BareJid::new(room).map_err(|_| bad("'room' is no address of a room."))?;
        if room.node().is_none() || !self.admits(&room) {
            return Err(bad("'room' is no room of this deployment."));
        }
        let up = self.online.contains(&Link::Client) && self.me.is_some();
        let known = self.conferences.contains_key(&room);
        let full = self.conferences.len() >= self.settings.conference.max_conferences;
        if !known {
            self.counters.conference_requests_new += 1;
        }
        if !up || (!known && full) {
            if up {
                tracing::warn!(
                    limit = self.settings.conference.max_conferences,
                    "too many conferences, one is not admitted"
                );
            }
            answer_request(&mut self.out, &self.settings, &asker, &request, false);
            return Ok(());
        }
        self.with(now, |ctx, conferences| {
            conferences
                .entry(room.clone())
                .or_insert_with(|| Conference::new(ctx, room))
                .request(ctx, asker, request);
        });
        Ok(())
    }

    /// Rooms of this deployment only: nobody may send the focus elsewhere, nor
    /// make a call of the brewery.
    fn admits(&self, room: &BareJid) -> bool {
        if self
            .settings
            .brewery
            .as_ref()
            .is_some_and(|b| b.domain() == room.domain())
        {
            return false;
        }
        let domain = room.domain().as_str();
        let beneath = |parent: &str| {
            domain
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        match (&self.settings.conference_muc, &self.settings.xmpp_domain) {
            (None, None) => true,
            (muc, parent) => {
                muc.as_deref() == Some(domain) || parent.as_deref().is_some_and(beneath)
            }
        }
    }

    fn presence(&mut self, now: Instant, link: Link, presence: &Presence) {
        let Some(from) = &presence.from else { return };
        if presence.kind == PresenceType::Subscribe {
            if self.settings.client_proxy.as_ref() == Some(&from.to_bare())
                && let Some(accepted) = roster::accept_subscription(presence)
            {
                self.out.presence(link, accepted);
            }
            return;
        }
        let room = from.to_bare();
        if link == self.settings.brewery_link && self.settings.brewery.as_ref() == Some(&room) {
            self.brewery_presence(now, presence, from);
        } else if link == Link::Client {
            // An error comes from the occupant's address, ours.
            let nick = jid::nick(from).unwrap_or(FOCUS_NICK).to_owned();
            self.with(now, |ctx, conferences| {
                if let Some(conference) = conferences.get_mut(&room) {
                    conference.presence(ctx, &nick, presence);
                }
            });
        }
    }

    // ---- the brewery ----------------------------------------------------------

    fn join_brewery(&mut self, now: Instant) {
        let Some(brewery) = &self.settings.brewery else {
            return;
        };
        let Some(me) = jid::occupant(brewery, FOCUS_NICK) else {
            return;
        };
        self.brewery = Brewery::Joining {
            due: now + self.settings.reply_timeout,
        };
        self.brewery_seen.clear();
        let presence = muc::join(me, None).with(&disco::caps());
        self.out.presence(self.settings.brewery_link, presence);
    }

    fn brewery_presence(&mut self, now: Instant, presence: &Presence, from: &Jid) {
        let own = jid::nick(from) == Some(FOCUS_NICK);
        let user: MucUser = presence.payload().unwrap_or_default();
        match presence.kind {
            PresenceType::Error if matches!(self.brewery, Brewery::Joining { .. }) => {
                let error = presence.error().map(|error| error.to_string());
                tracing::warn!(brewery = %from.to_bare(), error, "cannot enter the brewery, trying again");
                self.brewery = Brewery::Out {
                    retry: Some(now + BREWERY_RETRY),
                };
            }
            PresenceType::Available if own && self.brewery == Brewery::Joined => {}
            PresenceType::Available if own && user.has_status(status::SELF) => {
                tracing::info!(brewery = %from.to_bare(), "in the brewery");
                self.brewery = Brewery::Joined;
                self.out.set(
                    self.settings.brewery_link,
                    from.to_bare(),
                    to_element(&OwnerQuery::whois_anyone()),
                    now + self.settings.reply_timeout,
                    Expected::BreweryConfigured,
                );
                let seen = std::mem::take(&mut self.brewery_seen);
                self.registry.rejoined(now, &|bridge| seen.contains(bridge));
            }
            PresenceType::Available if own => {}
            PresenceType::Unavailable if own => {
                tracing::warn!(brewery = %from.to_bare(), "removed from the brewery, entering again");
                self.brewery = Brewery::Out {
                    retry: Some(now + BREWERY_RETRY),
                };
            }
            PresenceType::Available => {
                let Ok(occupant) = from.clone().try_into_full() else {
                    return;
                };
                if self.brewery != Brewery::Joined {
                    self.brewery_seen.insert(occupant.clone());
                }
                let items: Vec<Jid> = user.items.into_iter().filter_map(|item| item.jid).collect();
                let report = presence.payload::<Stats>().map(|stats| report(&stats));
                let events = self.registry.presence(now, &occupant, &items, report);
                self.lost.extend(events);
            }
            PresenceType::Unavailable => {
                if let Ok(occupant) = from.clone().try_into_full() {
                    let events = self.registry.gone(&occupant);
                    self.lost.extend(events);
                }
            }
            _ => {}
        }
    }

    // ---- answers ----------------------------------------------------------------

    fn dispatch(&mut self, now: Instant, expected: Expected, answer: Answer) {
        match expected {
            Expected::Room(room, request) => {
                if let RoomRequest::Allocation(place) = &request
                    && place.is_over(&answer)
                {
                    self.registry.settled(&place.bridge, place.tenure);
                }
                self.with(now, |ctx, conferences| {
                    match (conferences.get_mut(&room), request) {
                        (Some(conference), request) => conference.answered(ctx, request, answer),
                        (None, RoomRequest::Allocation(place))
                            if answer.is_ok() && place.overdue > 0 =>
                        {
                            ctx.expire(&place.bridge, expire_conference(&place.meeting_id));
                        }
                        (None, _) => {}
                    }
                });
            }
            Expected::Health { bridge, number } => self.health(now, &bridge, number, answer),
            Expected::BreweryConfigured => {
                if let Err(failure) = answer {
                    tracing::debug!(%failure, "not an owner of the brewery; that is fine once it exists");
                }
            }
            Expected::ServerPing { sent } => {
                if !matches!(answer, Err(Failure::Timeout | Failure::Lost)) {
                    self.registry.server_answered(now, sent);
                }
            }
        }
    }

    fn health(&mut self, now: Instant, bridge: &FullJid, number: u64, answer: Answer) {
        let answer = match answer {
            Ok(_) => HealthAnswer::Alive,
            // The registry has noticed by itself.
            Err(Failure::Timeout | Failure::Lost) => return,
            Err(Failure::Refused(error)) => match error.condition {
                Condition::InternalServerError | Condition::ServiceUnavailable => {
                    tracing::warn!(bridge = %bridge.resource(), %error, "bridge reports itself broken");
                    HealthAnswer::Broken
                }
                Condition::ItemNotFound | Condition::RecipientUnavailable => {
                    let events = self.registry.gone(bridge);
                    self.lost.extend(events);
                    return;
                }
                _ => {
                    tracing::debug!(bridge = %bridge.resource(), %error, "odd answer to a health check");
                    HealthAnswer::Alive
                }
            },
        };
        let events = self.registry.health_answer(now, bridge, number, answer);
        self.lost.extend(events);
    }

    // ---- time ---------------------------------------------------------------------

    fn brewery_online(&self) -> bool {
        self.online.contains(&self.settings.brewery_link)
    }

    fn up(&self) -> bool {
        self.online.contains(&Link::Client) && self.brewery_online()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.up() {
            return self
                .conferences
                .values()
                .filter_map(Conference::next_waiting)
                .min();
        }
        let brewery = match self.brewery {
            Brewery::Out { retry } => retry,
            Brewery::Joining { due } => Some(due),
            Brewery::Joined => None,
        };
        let pending = self
            .out
            .next_timeout()
            .map(|at| at.max(self.quiet_until.unwrap_or(at)));
        let conferences = self
            .conferences
            .values()
            .filter_map(Conference::next_timeout)
            .min();
        [brewery, pending, self.registry.next_timeout(), conferences]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what has come due. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.up() {
            // Nothing can be said to anybody; only HTTP askers must not wait.
            self.each(now, |ctx, conference| conference.waiting_due(ctx));
            return;
        }
        match self.brewery {
            Brewery::Out { retry: Some(at) } if at <= now => self.join_brewery(now),
            Brewery::Joining { due } if due <= now => {
                tracing::warn!("the brewery does not answer, trying again");
                self.join_brewery(now);
            }
            _ => {}
        }
        if self.quiet_until.is_none_or(|until| until <= now) {
            self.quiet_until = None;
            while let Some(expected) = self.out.expired(now) {
                self.dispatch(now, expected, Err(Failure::Timeout));
            }
        }
        let (checks, events) = self.registry.handle_timeout(now);
        send_checks(&mut self.out, &self.settings, now, &checks);
        self.lost.extend(events);
        self.each(now, |ctx, conference| {
            if conference.next_timeout().is_some_and(|at| at <= ctx.now) {
                conference.handle_timeout(ctx);
            }
        });
        self.settle(now);
    }

    /// Spreads the news of bridges and forgets what has ended.
    fn settle(&mut self, now: Instant) {
        while !self.lost.is_empty() {
            for event in std::mem::take(&mut self.lost) {
                self.each(now, |ctx, conference| match &event {
                    Event::Usable => conference.bridge_usable(ctx),
                    Event::Lost { bridge, why } => conference.bridge_lost(ctx, bridge, why),
                    Event::Doubtful { bridge } => conference.bridge_doubtful(ctx, bridge),
                });
            }
        }
        self.conferences.retain(|_, conference| !conference.ended());
    }

    fn each(&mut self, now: Instant, mut act: impl FnMut(&mut Context<'_>, &mut Conference)) {
        self.with(now, |ctx, conferences| {
            for conference in conferences.values_mut() {
                act(ctx, conference);
            }
        });
    }

    /// Borrows the whole for one event. Before the first login there is no
    /// conference, so nothing is to be done.
    fn with(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Context<'_>, &mut BTreeMap<BareJid, Conference>),
    ) {
        let Some(me) = &self.me else { return };
        let mut ctx = Context {
            now,
            settings: &self.settings,
            me,
            registry: &mut self.registry,
            remembered: &mut self.remembered,
            random: &mut self.random,
            out: &mut self.out,
            counters: &mut self.counters,
            lost: &mut self.lost,
        };
        act(&mut ctx, &mut self.conferences);
    }

    // ---- what it shows ---------------------------------------------------------------

    pub fn statistics(&self) -> Statistics {
        let versions: BTreeSet<String> = self
            .registry
            .iter()
            .filter_map(|(_, bridge)| bridge.full_version())
            .collect();
        let count = |wanted: &dyn Fn(&crate::bridges::registry::Bridge) -> bool| {
            self.registry
                .iter()
                .filter(|(_, bridge)| wanted(bridge))
                .count()
        };
        Statistics {
            counters: self.counters.clone(),
            gauges: Gauges {
                connected: self.up(),
                brewery_joined: self.brewery == Brewery::Joined || self.settings.brewery.is_none(),
                sizes: self.conferences.values().map(Conference::members).collect(),
                bridges: count(&|_| true),
                bridges_operational: count(&|bridge| bridge.operational()),
                bridges_in_shutdown: count(&|bridge| bridge.in_shutdown()),
                bridge_versions: versions.len(),
                lost_bridges: self.registry.lost(),
                bridge_endpoints: self
                    .registry
                    .iter()
                    .map(|(jid, bridge)| (jid.resource().to_string(), bridge.participants()))
                    .collect(),
            },
        }
    }

    /// `/debug`: bridges, conferences, and why each is where it is.
    pub fn debug(&self) -> Value {
        let conferences: BTreeMap<String, Value> = self
            .conferences
            .iter()
            .map(|(room, c)| (room.to_string(), c.debug()))
            .collect();
        json!({
            "focus_manager": {
                "account": self.me.as_ref().map(ToString::to_string),
                "online": self.online.iter().map(|l| format!("{l:?}")).collect::<Vec<_>>(),
                "brewery": format!("{:?}", self.brewery),
                "conferences": conferences,
            },
            "bridge_selector": self.registry.debug(),
        })
    }

    /// The state of one conference, or of all by room.
    pub fn debug_conference(&self, room: &str) -> Option<Value> {
        let room = BareJid::new(room).ok()?;
        self.conferences.get(&room).map(Conference::debug)
    }

    pub fn rooms(&self) -> Vec<String> {
        self.conferences.keys().map(ToString::to_string).collect()
    }
}

fn report(stats: &Stats) -> Report {
    let text = |name| {
        stats
            .text(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Report {
        stress: stats.number(stat::STRESS_LEVEL),
        average_participant_stress: stats.number(stat::AVERAGE_PARTICIPANT_STRESS),
        drain: stats.flag(stat::DRAIN),
        graceful_shutdown: stats.flag(stat::GRACEFUL_SHUTDOWN),
        shutting_down: stats.flag(stat::SHUTTING_DOWN),
        version: text(stat::VERSION),
        release: text(stat::RELEASE),
        region: text(stat::REGION),
        relay_id: text(stat::RELAY_ID),
    }
}
