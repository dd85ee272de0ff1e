//! One XMPP connection of the bridge: the rooms it is in, the presence that
//! tells its load, and the questions it answers (`focus-bridge` §1).
//!
//! No I/O: stanzas and the time go in, stanzas to send come out.
//!
//! Names are the delicate part. All bridges share one account, so to the room
//! two of them under one nickname are one occupant, and requests reach only the
//! first. A bridge that finds, on entering, another address behind its nickname
//! leaves and comes back with a suffix. One that was there first keeps the name,
//! and with it the calls it carries.

use std::time::{Duration, Instant};

use viaduct_signalling::brewery::Stats;
use viaduct_signalling::colibri2::{ConferenceModified, ConferenceModify};
use viaduct_signalling::disco::{Caps, DiscoInfo, Identity, Version};
use viaduct_signalling::iq::{Condition, Ids, Iq, IqError, StanzaError};
use viaduct_signalling::jid::{BareJid, FullJid, Jid, nick, occupant};
use viaduct_signalling::muc::{self, MucUser, OwnerQuery, status};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::xml::{Element, from_element, ns};

/// How long a room may take to let us in before it is asked again.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// A room that refused us, or threw us out, is asked again after this long.
const REJOIN_DELAY: Duration = Duration::from_secs(5);
/// The statistic in which our bridges say where they are, so that two that
/// met under one name can be told apart.
pub const ADDRESS: &str = "viaduct_address";

/// What the bridge behind the connection answers and publishes.
pub trait Host {
    /// Handles a request at once.
    fn modify(&mut self, request: &ConferenceModify) -> Result<ConferenceModified, StanzaError>;
    /// Why the bridge is not well, if it is not.
    fn unhealthy(&mut self) -> Option<String>;
    /// The statistics of this moment.
    fn statistics(&mut self) -> Stats;
    /// What `jabber:iq:version` answers.
    fn version(&self) -> Version;
}

/// See the head of this file.
#[derive(Debug)]
pub struct Brewery {
    /// The address the server gave us; `None` while offline.
    own: Option<FullJid>,
    rooms: Vec<Room>,
    /// Appended to a nickname that is taken.
    suffix: String,
    /// A name we left to another bridge, until it is known where that one is.
    given_up: Option<String>,
    ids: Ids,
    outgoing: Vec<Element>,
}

#[derive(Debug)]
struct Room {
    jid: BareJid,
    nickname: String,
    /// How many names were found taken.
    taken: u32,
    /// The last one that shared our name and was told of in the log.
    reported: Option<Jid>,
    state: RoomState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomState {
    /// Not in, and not trying before then.
    Out { until: Instant },
    /// Asked to be let in.
    Joining { since: Instant },
    /// In, alone behind our nickname.
    Joined,
    /// Left for good.
    Left,
}

impl Brewery {
    /// A connection to come. `seed` makes the ids of requests.
    pub fn new(rooms: &[BareJid], nickname: &str, suffix: String, seed: u64, now: Instant) -> Self {
        let room = |jid: &BareJid| Room {
            jid: jid.clone(),
            nickname: nickname.to_owned(),
            taken: 0,
            reported: None,
            state: RoomState::Out { until: now },
        };
        Self {
            own: None,
            rooms: rooms.iter().map(room).collect(),
            suffix,
            given_up: None,
            ids: Ids::new(seed),
            outgoing: Vec::new(),
        }
    }

    /// What is to be sent, in order.
    pub fn take_outgoing(&mut self) -> impl Iterator<Item = Element> + '_ {
        self.outgoing.drain(..)
    }

    /// Rooms in which focuses can see us.
    pub fn joined(&self) -> usize {
        let joined = |room: &&Room| room.state == RoomState::Joined;
        self.rooms.iter().filter(joined).count()
    }

    /// The nickname of the first room: rooms differ only after a clash.
    pub fn nickname(&self) -> &str {
        self.rooms.first().map_or("", |room| &room.nickname)
    }

    /// The stream is up under this address, and the server knows nothing of us.
    pub fn online(&mut self, now: Instant, own: FullJid) {
        self.own = Some(own);
        for index in 0..self.rooms.len() {
            self.join(now, index);
        }
    }

    /// The stream is lost, and with it our place in all rooms.
    pub fn offline(&mut self, now: Instant) {
        self.own = None;
        for room in &mut self.rooms {
            room.state = RoomState::Out { until: now };
        }
    }

    /// Another bridge took our address: the next stream is to use this name,
    /// and never the old one again.
    pub fn replaced(&mut self, now: Instant, nickname: String, suffix: String) {
        self.given_up = Some(self.nickname().to_owned());
        self.suffix = suffix;
        for room in &mut self.rooms {
            room.nickname.clone_from(&nickname);
            room.taken = 0;
        }
        self.offline(now);
    }

    /// Leaves all rooms for good.
    pub fn leave(&mut self) {
        for room in &mut self.rooms {
            let present = matches!(room.state, RoomState::Joined | RoomState::Joining { .. });
            if let Some(me) = occupant(&room.jid, &room.nickname)
                && present
            {
                self.outgoing.push(Presence::unavailable(me).into());
            }
            room.state = RoomState::Left;
        }
    }

    /// Tells all rooms the statistics of this moment.
    pub fn publish(&mut self, host: &mut dyn Host) {
        for index in 0..self.rooms.len() {
            self.publish_in(index, host);
        }
    }

    /// Enters rooms anew where that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.own.is_none() {
            return;
        }
        for index in 0..self.rooms.len() {
            let due = match self.rooms[index].state {
                RoomState::Out { until } => now >= until,
                RoomState::Joining { since } => now >= since + ROOM_TIMEOUT,
                RoomState::Joined | RoomState::Left => false,
            };
            if due {
                self.join(now, index);
            }
        }
    }

    /// Handles a stanza. Whatever makes no sense is passed over; a request is
    /// always answered.
    pub fn handle_stanza(&mut self, now: Instant, stanza: &Element, host: &mut dyn Host) {
        match stanza.name() {
            "presence" => match Presence::from_element(stanza) {
                Ok(presence) => self.handle_presence(now, &presence, host),
                Err(error) => tracing::debug!(%error, "presence passed over"),
            },
            "iq" => match Iq::from_element(stanza) {
                Ok(iq) => self.handle_iq(&iq, host),
                Err(IqError::BadRequest(answer)) => self.outgoing.push((*answer).into()),
                Err(error) => tracing::debug!(%error, "iq passed over"),
            },
            _ => {}
        }
    }

    fn join(&mut self, now: Instant, index: usize) {
        let room = &mut self.rooms[index];
        let Some(me) = occupant(&room.jid, &room.nickname) else {
            tracing::error!(
                nickname = room.nickname,
                "this nickname cannot be an XMPP resource: choose another MUC_NICKNAME"
            );
            room.state = RoomState::Left;
            return;
        };
        room.state = RoomState::Joining { since: now };
        self.outgoing.push(muc::join(me, None).into());
    }

    fn publish_in(&mut self, index: usize, host: &mut dyn Host) {
        let room = &self.rooms[index];
        if room.state != RoomState::Joined {
            return;
        }
        let me = occupant(&room.jid, &room.nickname).expect("joined under this name");
        let presence = Presence::available(me)
            .with(&host.statistics())
            .with(&Caps::new(CAPS_NODE, &features()));
        self.outgoing.push(presence.into());
    }

    fn handle_presence(&mut self, now: Instant, presence: &Presence, host: &mut dyn Host) {
        let Some(from) = &presence.from else { return };
        let Some(index) = self.rooms.iter().position(|r| r.jid == from.to_bare()) else {
            return;
        };
        if presence.kind == PresenceType::Error {
            return self.handle_refusal(now, index, presence);
        }
        let room = &self.rooms[index];
        if nick(from) != Some(&room.nickname) {
            return self.look_for_successor(from, presence);
        }
        let user: MucUser = presence.payload().unwrap_or_default();
        match presence.kind {
            PresenceType::Available => self.handle_own(now, index, &user, host),
            PresenceType::Unavailable => self.handle_own_exit(now, index, &user),
            _ => {}
        }
    }

    /// The room shows us as an occupant.
    fn handle_own(&mut self, now: Instant, index: usize, user: &MucUser, host: &mut dyn Host) {
        let own = self.own.clone().map(Jid::from);
        let room = &mut self.rooms[index];
        let other = user
            .items
            .iter()
            .filter_map(|item| item.jid.clone())
            .find(|jid| Some(jid) != own.as_ref());
        match (room.state, other) {
            (RoomState::Joining { .. }, Some(other)) => {
                let old = room.nickname.clone();
                self.outgoing.push(
                    Presence::unavailable(occupant(&room.jid, &old).expect("joined under it"))
                        .into(),
                );
                // The room takes these two in order, so nothing need be awaited.
                self.take_suffix(index);
                self.join(now, index);
                self.given_up = Some(old.clone());
                tracing::error!(
                    room = %self.rooms[index].jid,
                    nickname = old,
                    other = %other,
                    now = self.rooms[index].nickname,
                    "another bridge is in the brewery under this nickname; coming back with a \
                     suffix. Give every bridge a MUC_NICKNAME of its own, or none"
                );
            }
            (RoomState::Joining { .. }, None) => {
                room.state = RoomState::Joined;
                tracing::info!(room = %room.jid, nickname = room.nickname, "joined the brewery");
                if user.has_status(status::CREATED) {
                    // Also unlocks the room where new rooms are locked.
                    let id = self.ids.next_id();
                    let form = Iq::set(id, room.jid.clone(), &OwnerQuery::whois_anyone());
                    self.outgoing.push(form.into());
                }
                self.publish_in(index, host);
            }
            (RoomState::Joined, Some(other)) if room.reported.as_ref() != Some(&other) => {
                tracing::warn!(
                    room = %room.jid,
                    nickname = room.nickname,
                    other = %other,
                    "another bridge entered the brewery under our nickname; keeping it, the \
                     other one has to change"
                );
                room.reported = Some(other);
            }
            (RoomState::Joined, None) => room.reported = None,
            _ => {}
        }
    }

    /// The room shows that we are out.
    fn handle_own_exit(&mut self, now: Instant, index: usize, user: &MucUser) {
        let room = &mut self.rooms[index];
        match room.state {
            RoomState::Joined | RoomState::Joining { .. } => {
                let codes: Vec<u16> = user.status_codes().collect();
                tracing::warn!(room = %room.jid, ?codes, "removed from the brewery; coming back");
                room.state = RoomState::Out {
                    until: now + REJOIN_DELAY,
                };
            }
            RoomState::Out { .. } | RoomState::Left => {}
        }
    }

    /// The room refused what we sent.
    fn handle_refusal(&mut self, now: Instant, index: usize, presence: &Presence) {
        let error = presence
            .error()
            .unwrap_or_else(|| StanzaError::new(Condition::UndefinedCondition));
        let room = &mut self.rooms[index];
        if room.state == RoomState::Left {
            return;
        }
        if error.condition == Condition::Conflict {
            let old = room.nickname.clone();
            self.take_suffix(index);
            tracing::error!(
                room = %self.rooms[index].jid,
                nickname = old,
                now = self.rooms[index].nickname,
                "this nickname is taken by another account; coming back with a suffix"
            );
            self.join(now, index);
        } else {
            tracing::warn!(room = %room.jid, %error, "the brewery refused us; trying again");
            room.state = RoomState::Out {
                until: now + REJOIN_DELAY,
            };
        }
    }

    fn take_suffix(&mut self, index: usize) {
        let room = &mut self.rooms[index];
        room.taken += 1;
        room.nickname = match room.taken {
            1 => format!("{}-{}", room.nickname, self.suffix),
            again => format!("{}-{again}", room.nickname),
        };
    }

    /// Tells once where the bridge is that has the name we left.
    fn look_for_successor(&mut self, from: &Jid, presence: &Presence) {
        if self.given_up.is_some()
            && nick(from) == self.given_up.as_deref()
            && let Some(at) = address(presence)
        {
            tracing::error!(
                occupant = %from,
                other_address = at,
                "this is the bridge that has the name we left"
            );
            self.given_up = None;
        }
    }

    fn handle_iq(&mut self, iq: &Iq, host: &mut dyn Host) {
        let Some(payload) = iq.request() else {
            if let viaduct_signalling::iq::Kind::Error(error) = &iq.kind {
                tracing::debug!(id = iq.id, %error, "request refused");
            }
            return;
        };
        let answer = match self.answer(iq, payload, host) {
            Ok(answer) => answer,
            Err(error) => iq.error(error),
        };
        self.outgoing.push(answer.into());
    }

    fn answer(
        &mut self,
        iq: &Iq,
        payload: &Element,
        host: &mut dyn Host,
    ) -> Result<Iq, StanzaError> {
        if payload.is("query", ns::DISCO_INFO) {
            return Ok(iq.result(&DiscoInfo {
                node: payload.attr("node").map(str::to_owned),
                ..features()
            }));
        }
        let occupant = iq.from.as_ref().is_some_and(|from| {
            from.resource().is_some() && self.rooms.iter().any(|room| room.jid == from.to_bare())
        });
        if !occupant {
            return Err(StanzaError::new(Condition::Forbidden));
        }
        if payload.is("conference-modify", ns::COLIBRI2) {
            let request = from_element::<ConferenceModify>(payload).map_err(|error| {
                StanzaError::new(Condition::BadRequest).with_text(error.to_string())
            })?;
            return Ok(iq.result(&host.modify(&request)?));
        }
        if payload.is("healthcheck", ns::HEALTH_CHECK) {
            return match host.unhealthy() {
                None => Ok(iq.done()),
                Some(why) => Err(StanzaError::new(Condition::InternalServerError).with_text(why)),
            };
        }
        if payload.is("query", ns::VERSION) {
            return Ok(iq.result(&host.version()));
        }
        if payload.has_ns(ns::COLIBRI) && payload.name().ends_with("-shutdown") {
            return Err(StanzaError::new(Condition::ServiceUnavailable)
                .with_text(format!("Unsupported IQ request {}", payload.name())));
        }
        Err(StanzaError::new(Condition::FeatureNotImplemented))
    }
}

/// What our capabilities are announced under.
const CAPS_NODE: &str = "viaduct-bridge";

/// The features JVB announces.
fn features() -> DiscoInfo {
    DiscoInfo {
        identities: vec![Identity {
            category: "component".to_owned(),
            kind: "conference".to_owned(),
            lang: None,
            name: Some("Viaduct bridge".to_owned()),
        }],
        ..DiscoInfo::features([
            ns::DISCO_INFO,
            ns::HEALTH_CHECK,
            ns::DTLS,
            ns::ICE_UDP,
            ns::VERSION,
        ])
    }
}

/// Where the bridge behind a presence says it is.
fn address(presence: &Presence) -> Option<String> {
    let stats: Stats = presence.payload()?;
    stats.text(ADDRESS).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use viaduct_signalling::colibri2;
    use viaduct_signalling::xml::{parse, write};

    use super::*;

    const ROOM: &str = "jvbbrewery@internal.auth.meet.example";
    const OWN: &str = "jvb@auth.meet.example/viaduct-1";

    /// A bridge that knows one meeting and is as well as it is told to be.
    struct TestHost(Option<String>);

    impl Host for TestHost {
        fn modify(
            &mut self,
            request: &ConferenceModify,
        ) -> Result<ConferenceModified, StanzaError> {
            if request.meeting_id == "m" {
                return Ok(ConferenceModified::default());
            }
            Err(colibri2::error(
                Condition::ItemNotFound,
                colibri2::ErrorReason::ConferenceNotFound,
                "Conference not found",
            ))
        }

        fn unhealthy(&mut self) -> Option<String> {
            self.0.clone()
        }

        fn statistics(&mut self) -> Stats {
            [("stress_level", "0.1"), (ADDRESS, "192.0.2.1:10000")]
                .into_iter()
                .collect()
        }

        fn version(&self) -> Version {
            Version::default()
        }
    }

    /// A connection with one room, and the time.
    struct Test {
        brewery: Brewery,
        now: Instant,
        host: TestHost,
    }

    impl Test {
        fn new() -> Self {
            let now = Instant::now();
            let rooms = [ROOM.parse().expect("a room")];
            Self {
                brewery: Brewery::new(&rooms, "jvb", "ab12".into(), 1, now),
                now,
                host: TestHost(None),
            }
        }

        fn online() -> Self {
            let mut test = Self::new();
            test.brewery
                .online(test.now, OWN.parse().expect("an address"));
            assert_eq!(test.sent(), ["join jvb"]);
            test
        }

        fn joined() -> Self {
            let mut test = Self::online();
            assert_eq!(test.hear(&own("jvb", &[OWN], &[110])), ["stats jvb"]);
            test
        }

        fn wait(&mut self, time: Duration) -> Vec<String> {
            self.now += time;
            self.brewery.handle_timeout(self.now);
            self.sent()
        }

        fn hear(&mut self, stanza: &str) -> Vec<String> {
            let text = stanza.replacen(' ', " xmlns='jabber:client' ", 1);
            let stanza = parse(text.as_bytes()).expect("a test's XML");
            self.brewery
                .handle_stanza(self.now, &stanza, &mut self.host);
            self.sent()
        }

        /// What was sent, in brief; IQs in full.
        fn sent(&mut self) -> Vec<String> {
            self.brewery
                .take_outgoing()
                .map(|stanza| {
                    let Ok(presence) = Presence::from_element(&stanza) else {
                        return write(&stanza);
                    };
                    let to = presence.to.clone().expect("to an occupant");
                    assert_eq!(to.to_bare().as_str(), ROOM);
                    let kind = if presence.payload::<muc::Join>().is_some() {
                        "join"
                    } else if presence.payload::<Stats>().is_some() {
                        "stats"
                    } else {
                        presence.kind.as_str()
                    };
                    format!("{kind} {}", nick(&to).expect("an occupant"))
                })
                .collect()
        }
    }

    fn own(nick: &str, jids: &[&str], codes: &[u16]) -> String {
        let items: String = jids
            .iter()
            .map(|jid| format!("<item jid='{jid}' role='participant' affiliation='none'/>"))
            .collect();
        let codes: String = codes
            .iter()
            .map(|code| format!("<status code='{code}'/>"))
            .collect();
        format!(
            "<presence from='{ROOM}/{nick}' to='{OWN}'>\
             <x xmlns='http://jabber.org/protocol/muc#user'>{items}{codes}</x></presence>"
        )
    }

    fn exit(nick: &str, codes: &[u16]) -> String {
        own(nick, &[], codes).replacen("<presence", "<presence type='unavailable'", 1)
    }

    fn ask(from: &str, payload: &str) -> String {
        format!("<iq type='get' id='q' from='{from}' to='{OWN}'>{payload}</iq>")
    }

    const OTHER: &str = "jvb@auth.meet.example/viaduct-2";

    #[test]
    fn statistics_follow_at_once_and_then_as_asked() {
        let mut test = Test::joined();
        assert_eq!(test.brewery.joined(), 1);
        test.brewery.publish(&mut test.host);
        assert_eq!(test.sent(), ["stats jvb"]);
        test.brewery.offline(test.now);
        test.brewery.publish(&mut test.host);
        assert_eq!(test.sent(), [""; 0]);
        assert_eq!(test.brewery.joined(), 0);
    }

    #[test]
    fn a_new_room_is_unlocked() {
        let mut test = Test::online();
        let sent = test.hear(&own("jvb", &[OWN], &[201, 100, 110]));
        assert_eq!(sent.len(), 2);
        assert!(
            sent[0].contains("muc#roomconfig_whois") && sent[0].contains("anyone"),
            "{sent:?}"
        );
        assert_eq!(sent[1], "stats jvb");
    }

    #[test]
    fn a_name_that_another_address_has_is_left_for_a_suffixed_one() {
        let mut test = Test::online();
        let sent = test.hear(&own("jvb", &[OTHER, OWN], &[110]));
        assert_eq!(sent, ["unavailable jvb", "join jvb-ab12"]);
        assert_eq!(test.hear(&exit("jvb", &[110])), [""; 0]);
        assert_eq!(
            test.hear(&own("jvb-ab12", &[OWN], &[110])),
            ["stats jvb-ab12"]
        );
        // It is kept when the stream comes back.
        test.brewery.offline(test.now);
        test.brewery
            .online(test.now, OWN.parse().expect("an address"));
        assert_eq!(test.sent(), ["join jvb-ab12"]);
    }

    #[test]
    fn the_one_who_was_there_first_keeps_the_name() {
        let mut test = Test::joined();
        assert_eq!(test.hear(&own("jvb", &[OWN, OTHER], &[110])), [""; 0]);
        assert_eq!(test.brewery.joined(), 1);
        assert_eq!(test.brewery.nickname(), "jvb");
    }

    #[test]
    fn names_taken_by_other_accounts_are_suffixed_until_one_is_free() {
        let mut test = Test::online();
        let conflict = |nick: &str| {
            format!(
                "<presence type='error' from='{ROOM}/{nick}' to='{OWN}'><error type='cancel'>\
                 <conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
            )
        };
        assert_eq!(test.hear(&conflict("jvb")), ["join jvb-ab12"]);
        assert_eq!(test.hear(&conflict("jvb-ab12")), ["join jvb-ab12-2"]);
    }

    #[test]
    fn a_bridge_that_was_replaced_goes_on_under_another_name() {
        let mut test = Test::joined();
        test.brewery
            .replaced(test.now, "jvb-cd34".into(), "ef56".into());
        assert_eq!(test.brewery.joined(), 0);
        let own = "jvb@auth.meet.example/viaduct-9";
        test.brewery
            .online(test.now, own.parse().expect("an address"));
        assert_eq!(test.sent(), ["join jvb-cd34"]);
    }

    #[test]
    fn a_room_that_throws_us_out_or_is_silent_is_entered_again() {
        let mut test = Test::joined();
        assert_eq!(test.hear(&exit("jvb", &[110, 307])), [""; 0]);
        assert_eq!(test.wait(Duration::from_secs(4)), [""; 0]);
        assert_eq!(test.wait(Duration::from_secs(1)), ["join jvb"]);
        assert_eq!(test.wait(Duration::from_secs(10)), ["join jvb"]);
        let refused = format!(
            "<presence type='error' from='{ROOM}/jvb' to='{OWN}'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
        );
        assert_eq!(test.hear(&refused), [""; 0]);
        assert_eq!(test.wait(Duration::from_secs(5)), ["join jvb"]);
    }

    #[test]
    fn leaving_is_for_good() {
        let mut test = Test::joined();
        test.brewery.leave();
        assert_eq!(test.sent(), ["unavailable jvb"]);
        assert_eq!(test.hear(&exit("jvb", &[110])), [""; 0]);
        assert_eq!(test.wait(Duration::from_secs(60)), [""; 0]);
    }

    #[test]
    fn occupants_are_answered_and_others_forbidden() {
        let focus = format!("{ROOM}/focus");
        let health = "<healthcheck xmlns='http://jitsi.org/protocol/healthcheck'/>";
        let known = "<conference-modify xmlns='jitsi:colibri2' meeting-id='m'/>";
        let unknown = "<conference-modify xmlns='jitsi:colibri2' meeting-id='n'/>";
        let nameless = "<conference-modify xmlns='jitsi:colibri2'/>";
        let version = "<query xmlns='jabber:iq:version'/>";
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let shutdown = "<graceful-shutdown xmlns='http://jitsi.org/protocol/colibri'/>";
        for (from, payload, expected) in [
            (&*focus, health, "type='result'"),
            (&focus, known, "conference-modified"),
            (&focus, unknown, "conference_not_found"),
            (&focus, nameless, "bad-request"),
            (&focus, version, "type='result'"),
            (&focus, disco, "http://jitsi.org/protocol/healthcheck"),
            (&focus, shutdown, "service-unavailable"),
            (&focus, "<x xmlns='y'/>", "feature-not-implemented"),
            (&focus, "", "bad-request"),
            (ROOM, known, "forbidden"),
            ("focus@auth.meet.example/focus", known, "forbidden"),
            ("focus@auth.meet.example/focus", health, "forbidden"),
            ("auth.meet.example", disco, "type='result'"),
        ] {
            let mut test = Test::joined();
            let sent = test.hear(&ask(from, payload)).concat().replace('"', "'");
            assert!(sent.contains(expected), "{from} {payload}: {sent}");
            assert!(sent.contains("id='q'"), "{sent}");
            assert!(sent.contains(&format!("to='{from}'")), "{sent}");
        }
    }

    #[test]
    fn an_unwell_bridge_says_why() {
        let mut test = Test::joined();
        test.host.0 = Some("No valid IP addresses".into());
        let health = "<healthcheck xmlns='http://jitsi.org/protocol/healthcheck'/>";
        let sent = test.hear(&ask(&format!("{ROOM}/focus"), health)).concat();
        assert!(
            sent.contains("internal-server-error") && sent.contains("No valid IP addresses"),
            "{sent}"
        );
    }
}
