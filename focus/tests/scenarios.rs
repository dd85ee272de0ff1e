//! Whole calls in virtual time: what the focus does for a room, its members and
//! its bridges. Each test is named by what it promises.

mod world;

use std::time::Duration;

use viaduct_focus::outbox::Link;
use viaduct_signalling::brewery::HealthCheck;
use viaduct_signalling::colibri2::{self, ErrorReason};
use viaduct_signalling::disco::{DiscoInfo, Version};
use viaduct_signalling::iq::{Condition, Iq, Kind, StanzaError};
use viaduct_signalling::jingle::{
    Action, BridgeSession, Jingle, Reason, ReasonCondition, Transport,
};
use viaduct_signalling::jitsi::conference::Conference as ConferenceIq;
use viaduct_signalling::jitsi::{
    BridgeNotAvailable, ConferenceProperties, Mute, MuteMedia, feature,
};
use viaduct_signalling::muc::{Affiliation, Item, MucUser, Role};
use viaduct_signalling::presence::{Presence, PresenceType};
use viaduct_signalling::sources::{EndpointSources, MediaType};
use viaduct_signalling::xml::{self, Element, from_element, to_element};
use world::{BREWERY, FOCUS, ROOM, World, bare, error, full, is_result, occupant, source};

/// Two bridges and two clients in a call.
fn call() -> World {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.add_bridge("jvb2");
    world.join("alice");
    world.join("bobby");
    world
}

fn used(world: &World) -> (&'static str, &'static str) {
    if world
        .bridges
        .get("jvb1")
        .is_some_and(|b| !b.conferences.is_empty())
    {
        ("jvb1", "jvb2")
    } else {
        ("jvb2", "jvb1")
    }
}

fn hears(world: &mut World, nick: &str) -> Vec<String> {
    world
        .client(nick)
        .hears()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Nobody gets `bridgeNotAvailable`: the stock application would leave.
fn assert_never_unavailable(world: &mut World) {
    for presence in &world.room(ROOM).focus_presences {
        assert!(presence.payload::<BridgeNotAvailable>().is_none());
    }
}

#[test]
fn two_clients_get_a_call_and_hear_each_other() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    assert!(
        world.client("alice").offers().is_empty(),
        "alone there is no call"
    );
    assert_eq!(
        world.client("alice").affiliation,
        Affiliation::Owner,
        "the first is made owner"
    );
    world.join("bobby");
    assert_eq!(world.client("bobby").affiliation, Affiliation::None);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_eq!(hears(&mut world, "bobby"), ["alice"]);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby"]);
    assert_eq!(world.client("alice").queries, 1);
    assert_eq!(
        world.client("bobby").queries,
        0,
        "known capabilities are not asked again"
    );
    let requests = &world.bridge("jvb1").requests;
    assert!(requests[0].create && requests[0].name.as_deref() == Some(ROOM));
    assert!(requests.iter().skip(1).all(|request| !request.create));
    let update = requests
        .iter()
        .find(|r| r.endpoints.iter().any(|e| !e.create))
        .expect("an update");
    let endpoint = &update.endpoints[0];
    let ice = endpoint
        .transport
        .as_ref()
        .and_then(|t| t.ice_udp.as_ref())
        .expect("transport");
    assert_eq!(ice.ufrag.as_deref(), Some("client"));
    let sources = endpoint.sources.as_ref().expect("sources");
    assert_eq!(sources.media_sources.len(), 2);
    assert!(
        sources
            .media_sources
            .iter()
            .any(|m| m.ssrc_groups.len() == 4),
        "all layers"
    );
}

#[test]
fn receivers_are_told_one_pair_of_a_simulcast_and_the_feedback_sources() {
    let mut world = call();
    world.join("carol");
    let offer = world.client("carol").offers()[0].clone();
    let text = offer.json_message.expect("JSON sources").json;
    let told = viaduct_signalling::sources::ConferenceSources::from_json(&text).expect("JSON");
    let owners: Vec<&str> = told.0.keys().map(String::as_str).collect();
    assert_eq!(owners, ["alice", "bobby", "jvb"]);
    let alice = &told.0["alice"];
    assert_eq!(alice.only(|m| m == MediaType::Video).sources.len(), 2);
    assert_eq!(alice.groups.len(), 1);
    let msids: Vec<_> = told.0["jvb"]
        .sources
        .iter()
        .filter_map(|s| s.msid.clone())
        .collect();
    assert!(msids.contains(&"mixedmslabel mixedlabelaudio0".to_owned()));
    assert!(msids.contains(&"mixedmslabel mixedlabelvideo0".to_owned()));
}

/// The structure of client-focus §4.1, as recorded of jicofo.
#[test]
fn offer_has_jicofos_structure() {
    let mut world = call();
    let offer = world.client("alice").offers()[0].clone();
    assert_eq!(offer.initiator.as_deref(), Some(FOCUS));
    let names: Vec<&str> = offer.contents.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        ["audio", "video"],
        "no data content where the bridge has no SCTP"
    );
    assert_eq!(offer.groups[0].contents.len(), 2);
    let ids = |content: usize| -> Vec<u8> {
        let description = offer.contents[content]
            .description
            .as_ref()
            .expect("a description");
        assert!(description.rtcp_mux);
        description.payload_types.iter().map(|p| p.id).collect()
    };
    assert_eq!(ids(0), [111, 126]);
    assert_eq!(ids(1), [41, 100, 107, 101, 42, 96, 97, 99]);
    let extensions = |content: usize| -> Vec<u8> {
        let description = offer.contents[content]
            .description
            .as_ref()
            .expect("a description");
        description.header_extensions.iter().map(|e| e.id).collect()
    };
    assert_eq!(extensions(0), [1, 10, 5]);
    assert_eq!(extensions(1), [11, 10, 3, 5]);
    for content in &offer.contents {
        let transport = content
            .transport
            .as_ref()
            .expect("a transport in each content");
        assert_eq!(transport.ufrag.as_deref(), Some("ualice"));
        assert_eq!(transport.candidates.len(), 1);
        assert_eq!(transport.fingerprints[0].required, Some(false));
    }
    assert!(offer.bridge_session.and_then(|b| b.id).is_some());
    let bob = world.client("bobby").bridge_session.clone();
    assert_eq!(
        world.client("alice").bridge_session,
        bob,
        "one stay, one id"
    );
}

/// A recorded offer of jicofo and ours, part by part.
#[test]
fn offer_equals_a_recorded_one_of_jicofo() {
    let recorded = include_str!("recorded/session-initiate.xml");
    let recorded: Jingle =
        from_element(xml::parse(recorded.as_bytes()).expect("XML")).expect("a Jingle request");
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    let ours = world.client("bobby").offers()[0].clone();
    assert_eq!(ours.contents.len(), recorded.contents.len());
    for (ours, theirs) in ours.contents.iter().zip(&recorded.contents) {
        assert_eq!(
            (&ours.name, &ours.creator, &ours.senders),
            (&theirs.name, &theirs.creator, &theirs.senders)
        );
        let description =
            |content: &viaduct_signalling::jingle::Content| content.description.clone();
        let (mut ours, mut theirs) = (
            description(ours).expect("a description"),
            description(theirs).expect("a description"),
        );
        // Order within a codec means nothing.
        for description in [&mut ours, &mut theirs] {
            for codec in &mut description.payload_types {
                codec
                    .rtcp_fb
                    .sort_by_key(|fb| (fb.kind.clone(), fb.subtype.clone()));
            }
        }
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.groups, recorded.groups);
}

#[test]
fn data_content_only_where_the_bridge_grants_it() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.bridge("jvb1").sctp = true;
    world.join("alice");
    world.join("bobby");
    let offer = world.client("alice").offers()[0].clone();
    let data = offer.content("data").expect("a data content");
    let map = &data.transport.as_ref().expect("a transport").sctp_maps[0];
    assert_eq!((map.number, map.streams), (Some(5000), Some(1024)));
    assert!(
        offer.contents[0]
            .transport
            .as_ref()
            .is_some_and(|t| t.sctp_maps.is_empty())
    );
    assert_eq!(offer.groups[0].contents.len(), 3);
}

#[test]
fn ready_only_when_the_room_is_set_up() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.request(ROOM);
    let kinds: Vec<String> = world
        .sent
        .iter()
        .filter(|(_, _, stanza)| stanza.attr("to").is_some_and(|to| to.starts_with(ROOM)))
        .map(|(_, _, s)| {
            format!(
                "{} {}",
                s.name(),
                s.children().next().map_or("", Element::name)
            )
        })
        .collect();
    assert_eq!(
        kinds,
        ["presence x", "iq query", "iq query", "presence etherpad"]
    );
    let last = world.sent.last().expect("an answer").2.clone();
    let Ok(Iq {
        kind: Kind::Result(Some(answer)),
        ..
    }) = Iq::from_element(&last)
    else {
        panic!("the answer comes last")
    };
    let answer: ConferenceIq = from_element(answer).expect("a conference");
    assert_eq!(answer.focusjid.as_deref(), Some("focus@auth.meet.example"));
    assert_eq!(answer.property("authentication"), Some("false"));
}

#[test]
fn request_is_answered_within_a_second_even_if_the_room_is_slow() {
    let mut world = World::new();
    world.dead_server = true;
    let request = ConferenceIq {
        room: Some(ROOM.into()),
        ..ConferenceIq::default()
    };
    world.focus.http_request(world.now, 7, request);
    world.pass(Duration::from_millis(900));
    let answer = world.http[&7].clone().expect("an answer");
    assert_eq!(answer.ready, Some(false));
}

#[test]
fn requests_over_http_component_and_full_address_make_one_conference() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.request(ROOM);
    let request = ConferenceIq {
        room: Some(ROOM.into()),
        ..ConferenceIq::default()
    };
    world.focus.http_request(world.now, 1, request.clone());
    let mut iq = Iq::set("k1", bare("focus.meet.example"), &request);
    iq.from = Some(full("y@meet.example/r").into());
    world
        .focus
        .stanza(world.now, Link::Component, &iq.to_element());
    world.pump();
    assert_eq!(world.http[&1].as_ref().map(|a| a.ready), Ok(Some(true)));
    let answer = &world.component[0];
    assert_eq!((answer.id.as_str(), is_result(answer)), ("k1", true));
    assert_eq!(world.focus.rooms(), [ROOM]);
}

#[test]
fn http_is_told_not_ready_while_xmpp_is_down() {
    let mut world = World::new();
    world.focus.offline(world.now, Link::Client);
    let request = ConferenceIq {
        room: Some(ROOM.into()),
        ..ConferenceIq::default()
    };
    world.focus.http_request(world.now, 1, request);
    world.pump();
    let answer = world.http[&1].clone().expect("no error");
    assert_eq!(answer.ready, Some(false));
    assert_eq!(answer.focusjid.as_deref(), Some("focus@auth.meet.example"));
}

#[test]
fn requests_for_strange_rooms_are_refused() {
    let mut world = World::new();
    for room in [
        "",
        "conference.meet.example",
        "x@evil.example",
        BREWERY,
        "a b@conference.meet.example",
    ] {
        assert_eq!(
            error(&world.request(room)),
            Condition::BadRequest,
            "{room:?}"
        );
    }
    let nothing = Kind::Set(to_element(&ConferenceIq::default()));
    assert_eq!(
        error(&world.ask("x@meet.example/r", nothing)),
        Condition::BadRequest
    );
    assert!(world.focus.rooms().is_empty());
    assert!(is_result(&world.request("x@breakout.meet.example")));
}

#[test]
fn late_joiner_is_offered_everybody_and_announced_to_everybody() {
    let mut world = call();
    world.join("carol");
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby", "carol"]);
    assert_eq!(hears(&mut world, "bobby"), ["alice", "carol"]);
    assert_eq!(
        world.client("alice").offers().len(),
        1,
        "nobody is invited twice"
    );
}

#[test]
fn leave_costs_an_endpoint_and_no_jingle() {
    let mut world = call();
    world.join("carol");
    let (bridge, _) = used(&world);
    let before = world.client("alice").got.len();
    world.leave("carol");
    assert_eq!(world.on_bridge(bridge), ["alice", "bobby"]);
    assert_eq!(
        world.client("alice").got.len(),
        before,
        "clients drop the sources themselves"
    );
    world.leave("alice");
    assert_eq!(
        world.client("bobby").affiliation,
        Affiliation::Owner,
        "the next is elected"
    );
    world.leave("bobby");
    assert!(world.bridge(bridge).conferences.is_empty());
    assert!(world.focus.rooms().is_empty());
    assert!(!world.room(ROOM).focus, "the focus left");
    // A name that is used again makes a new conference.
    world.join("alice");
    world.join("bobby");
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

#[test]
fn sole_member_keeps_its_session_for_twenty_seconds() {
    let mut world = call();
    let (bridge, _) = used(&world);
    world.leave("alice");
    world.seconds(19);
    assert!(world.client("bobby").sid.is_some());
    world.seconds(2);
    let terminate = world.client("bobby").of(Action::SessionTerminate)[0].clone();
    let reason = terminate.reason.expect("a reason");
    assert_eq!(reason.condition, Some(ReasonCondition::Expired));
    assert_eq!(reason.text.as_deref(), Some("Idle session timeout"));
    assert!(world.bridge(bridge).conferences.is_empty());
    world.join("carol");
    assert_eq!(hears(&mut world, "bobby"), ["carol"]);
    assert_eq!(hears(&mut world, "carol"), ["bobby"]);
}

#[test]
fn nobody_comes_and_the_focus_leaves_after_fifteen_seconds() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.request(ROOM);
    world.seconds(10);
    assert!(
        is_result(&world.request(ROOM)),
        "asking again re-arms the time"
    );
    world.seconds(14);
    assert!(world.room(ROOM).focus);
    world.seconds(2);
    assert!(!world.room(ROOM).focus);
    assert!(world.bridge("jvb1").requests.is_empty());
}

#[test]
fn restart_is_answered_before_the_new_offer() {
    let mut world = call();
    let old = world.client("alice").sid.clone();
    let sent = world.sent.len();
    let answer = world.ice_failed("alice");
    assert!(is_result(&answer));
    let order: Vec<&str> = world.sent[sent..]
        .iter()
        .filter_map(|(_, _, stanza)| {
            if stanza.attr("id") == Some(&answer.id) {
                return Some("result");
            }
            let jingle: Jingle = from_element(stanza.children().next()?).ok()?;
            (jingle.action == Action::SessionInitiate).then_some("offer")
        })
        .collect();
    assert_eq!(order, ["result", "offer"]);
    assert_ne!(world.client("alice").sid, old);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_eq!(
        hears(&mut world, "bobby"),
        ["alice"],
        "old sources out, new ones in"
    );
    assert_eq!(world.client("bobby").of(Action::SourceRemove).len(), 1);
    assert!(
        world
            .client("bobby")
            .of(Action::SessionTerminate)
            .is_empty()
    );
}

/// A refusal would make the application reload; the new session is only delayed.
#[test]
fn restarts_in_quick_succession_are_slowed_and_never_refused() {
    let mut world = call();
    assert!(is_result(&world.ice_failed("alice")));
    assert!(is_result(&world.ice_failed("alice")));
    assert!(world.client("alice").sid.is_none());
    world.seconds(6);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    for _ in 0..10 {
        world.seconds(61);
        assert!(is_result(&world.ice_failed("alice")));
        assert!(
            world.client("alice").sid.is_some(),
            "the count is forgotten after a minute"
        );
    }
}

/// client-focus §6.6: the client forgets its newer session at our result.
#[test]
fn restart_that_crosses_a_move_gets_another_session() {
    let mut world = call();
    let stale = world.client("alice").sid.clone().expect("in a session");
    let (bridge, _) = used(&world);
    world.remove_bridge(bridge);
    let second = world.client("alice").sid.clone().expect("moved");
    assert_ne!(second, stale);
    let mut jingle = Jingle::new(Action::SessionTerminate, stale);
    jingle.bridge_session = Some(BridgeSession {
        restart: Some(true),
        ..BridgeSession::default()
    });
    assert!(is_result(&world.jingle("alice", &jingle)));
    let third = world.client("alice").sid.clone().expect("invited again");
    assert_ne!(third, second);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

#[test]
fn lost_bridge_moves_its_conference_at_once() {
    let mut world = call();
    let (bridge, other) = used(&world);
    let at = world.now;
    world.remove_bridge(bridge);
    assert!(world.now - at < Duration::from_millis(1), "at once");
    assert_eq!(world.on_bridge(other), ["alice", "bobby"]);
    for (nick, peer) in [("alice", "bobby"), ("bobby", "alice")] {
        let terminate = world.client(nick).of(Action::SessionTerminate)[0].clone();
        let reason = terminate.reason.expect("a reason");
        assert_eq!(reason.text.as_deref(), Some("moving"));
        assert_eq!(hears(&mut world, nick), [peer]);
    }
    assert_never_unavailable(&mut world);
}

#[test]
fn bridge_that_says_it_is_broken_loses_its_calls() {
    let mut world = call();
    let (bridge, other) = used(&world);
    world.bridge(bridge).sick = Some(StanzaError::new(Condition::InternalServerError));
    world.seconds(11);
    assert_eq!(world.on_bridge(other), ["alice", "bobby"]);
    world.bridge(bridge).sick = None;
    world.seconds(120);
    assert_eq!(
        world.on_bridge(other),
        ["alice", "bobby"],
        "calls are never pulled back"
    );
}

/// A frozen bridge: clients notice after some twenty seconds; one unanswered
/// question then suffices, and everybody moves, not only who complained.
#[test]
fn silent_bridge_and_an_ice_failure_move_everybody_within_three_seconds() {
    let mut world = call();
    let (bridge, other) = used(&world);
    world.bridge(bridge).frozen = true;
    world.seconds(3);
    let asked = world.now;
    assert!(is_result(&world.ice_failed("alice")));
    while world.on_bridge(other).len() < 2 {
        world.pass(Duration::from_millis(100));
        assert!(world.now - asked < Duration::from_secs(3), "too slow");
    }
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_eq!(hears(&mut world, "bobby"), ["alice"]);
}

#[test]
fn silent_bridge_is_found_by_an_allocation_too() {
    let mut world = call();
    let (bridge, other) = used(&world);
    world.bridge(bridge).frozen = true;
    world.join("carol");
    world.seconds(6);
    assert_eq!(world.on_bridge(other), ["alice", "bobby", "carol"]);
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn silence_of_the_whole_server_accuses_no_bridge() {
    let mut world = call();
    let (bridge, _) = used(&world);
    world.dead_server = true;
    world.seconds(40);
    world.dead_server = false;
    world.seconds(30);
    assert_eq!(world.on_bridge(bridge), ["alice", "bobby"]);
    assert!(
        world
            .client("alice")
            .of(Action::SessionTerminate)
            .is_empty()
    );
}

#[test]
fn without_a_bridge_members_wait_and_are_invited_when_one_comes() {
    let mut world = World::new();
    world.join("alice");
    world.join("bobby");
    world.seconds(60);
    assert!(world.client("alice").offers().is_empty());
    world.add_bridge("jvb1");
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_never_unavailable(&mut world);
}

/// The media may flow on: nothing is ended before there is something better.
#[test]
fn last_bridge_lost_leaves_the_sessions_until_another_comes() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    world.remove_bridge("jvb1");
    world.seconds(10);
    assert!(world.client("alice").sid.is_some());
    world.add_bridge("jvb2");
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

#[test]
fn bridge_that_comes_back_with_the_conference_goes_on_with_it() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    let kept = world.bridges.remove("jvb1").expect("there");
    world
        .bridges
        .insert("jvb1".into(), world::Bridge::default());
    world.remove_bridge("jvb1");
    world.join("carol");
    assert!(world.client("carol").offers().is_empty());
    world.bridges.insert("jvb1".into(), kept);
    world.stats("jvb1", &[("drain", "false"), ("version", "v1")]);
    world.seconds(10);
    assert_eq!(world.client("alice").offers().len(), 1, "the call went on");
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby", "carol"]);
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn bridge_that_comes_back_empty_gets_the_conference_anew() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    world.remove_bridge("jvb1");
    world.add_bridge("jvb1");
    world.seconds(1);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_eq!(world.client("alice").offers().len(), 2);
}

/// The server keeps one occupant when a bridge restarts under its name.
#[test]
fn another_process_under_a_bridges_name_is_noticed() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    let bridge = world.bridge("jvb1");
    bridge.conferences.clear();
    bridge.resource = "another".into();
    world.stats("jvb1", &[("drain", "false")]);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

#[test]
fn two_rooms_at_once_go_to_different_bridges() {
    let mut world = call();
    let (first, second) = used(&world);
    let other = "other@conference.meet.example";
    for (number, nick) in [(11, "carol"), (12, "david")] {
        let client = world.new_client(number);
        world.join_as(other, nick, client);
    }
    assert_eq!(world.on_bridge(first), ["alice", "bobby"]);
    assert_eq!(world.on_bridge(second), ["carol", "david"]);
}

#[test]
fn refused_endpoint_costs_that_endpoint_only() {
    let mut world = call();
    let (bridge, _) = used(&world);
    world.bridge(bridge).refusal = Some(StanzaError::new(Condition::BadRequest));
    world.join("carol");
    assert!(world.client("carol").offers().is_empty());
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert!(
        world
            .client("alice")
            .of(Action::SessionTerminate)
            .is_empty()
    );
    world.bridge(bridge).refusal = None;
    world.seconds(3);
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn bridge_that_cannot_serve_a_conference_loses_it() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.add_bridge("jvb2");
    for nick in ["jvb1", "jvb2"] {
        world.bridge(nick).refusal = Some(StanzaError::new(Condition::InternalServerError));
    }
    world.bridge("jvb2").refusal = None;
    world.join("alice");
    world.join("bobby");
    world.seconds(5);
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

#[test]
fn conference_the_bridge_forgot_is_made_anew() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    world.bridge("jvb1").conferences.clear();
    world.join("carol");
    world.seconds(3);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby", "carol"]);
    assert_eq!(hears(&mut world, "alice"), ["bobby", "carol"]);
}

#[test]
fn taken_meeting_id_is_replaced() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.bridge("jvb1").refusal = Some(colibri2::error(
        Condition::Conflict,
        ErrorReason::ConferenceAlreadyExists,
        "exists",
    ));
    world.bridge("jvb1").refusals = Some(1);
    world.join("alice");
    world.join("bobby");
    let requests = &world.bridge("jvb1").requests;
    let ids: Vec<&String> = requests
        .iter()
        .filter(|r| r.create)
        .map(|r| &r.meeting_id)
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert!(
        requests.iter().all(|r| !r.expire),
        "the other's conference is not ours to end"
    );
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
}

/// A bridge that refuses for ever costs a question now and then, no more.
#[test]
fn hopeless_bridge_is_not_asked_in_a_circle() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.bridge("jvb1").refusal = Some(StanzaError::new(Condition::InternalServerError));
    world.join("alice");
    world.join("bobby");
    world.seconds(120);
    let asked = world
        .bridge("jvb1")
        .requests
        .iter()
        .filter(|r| !r.expire)
        .count();
    assert!((4..40).contains(&asked), "{asked} requests");
    world.bridge("jvb1").refusal = None;
    world.seconds(31);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_never_unavailable(&mut world);
}

#[test]
fn graceful_bridge_refuses_and_is_not_asked_again() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.bridge("jvb1").refusal = Some(colibri2::error(
        Condition::ServiceUnavailable,
        ErrorReason::GracefulShutdown,
        "In graceful shutdown",
    ));
    world.add_bridge("jvb2");
    world.stats("jvb2", &[("stress_level", "0.5")]);
    world.join("alice");
    world.join("bobby");
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    let asked = world
        .bridge("jvb1")
        .requests
        .iter()
        .filter(|r| !r.expire)
        .count();
    assert!(
        asked <= 2,
        "what was under way with the first refusal, nothing after"
    );
}

#[test]
fn shutting_down_moves_and_draining_does_not() {
    let mut world = call();
    let (bridge, other) = used(&world);
    world.stats(bridge, &[("drain", "true"), ("graceful_shutdown", "true")]);
    assert_eq!(world.on_bridge(bridge), ["alice", "bobby"]);
    world.stats(bridge, &[("shutting_down", "true")]);
    assert_eq!(world.on_bridge(other), ["alice", "bobby"]);
    assert!(world.bridge(bridge).conferences.is_empty());
}

#[test]
fn sources_added_and_removed_reach_the_others_and_the_bridge() {
    let mut world = call();
    let sid = world.client("alice").sid.clone().expect("in a call");
    let screen = EndpointSources {
        sources: vec![source(
            77,
            MediaType::Video,
            Some("alice-v1"),
            Some("screen s-1"),
        )],
        groups: vec![],
    };
    let mut jingle = Jingle::new(Action::SourceAdd, sid.clone());
    jingle.contents = screen.to_contents();
    assert!(is_result(&world.jingle("alice", &jingle)));
    assert!(world.client("bobby").remote.0["alice"].get(77).is_some());
    let (bridge, _) = used(&world);
    let update = world
        .bridge(bridge)
        .requests
        .last()
        .cloned()
        .expect("an update");
    let sources = update.endpoints[0].sources.clone().expect("all sources");
    assert_eq!(sources.media_sources.len(), 3, "always the full set");
    assert!(update.endpoints[0].transport.is_none());
    // The same again is a conflict, and only that request fails.
    assert_eq!(
        error(&world.jingle("alice", &jingle)),
        Condition::BadRequest
    );
    let mut jingle = Jingle::new(Action::SourceRemove, sid);
    jingle.contents = screen.to_contents();
    assert!(is_result(&world.jingle("alice", &jingle)));
    assert!(world.client("bobby").remote.0["alice"].get(77).is_none());
    assert_eq!(
        error(&world.jingle("alice", &jingle)),
        Condition::BadRequest
    );
}

#[test]
fn changes_within_the_delay_are_one_message() {
    let mut settings = viaduct_focus::context::Settings::new(bare("focus@auth.meet.example"));
    settings.brewery = Some(bare(BREWERY));
    settings.conference.source_delays = vec![(2, Duration::from_millis(500))];
    let mut world = World::with(settings);
    world.add_bridge("jvb1");
    for nick in ["alice", "bobby", "carol"] {
        world.join(nick);
    }
    world.seconds(2);
    let adds = world.client("alice").of(Action::SourceAdd).len();
    assert_eq!(adds, 1, "both others at once");
    assert_eq!(hears(&mut world, "alice"), ["bobby", "carol"]);
    let sid = world.client("bobby").sid.clone().expect("in a call");
    for action in [Action::SourceAdd, Action::SourceRemove] {
        let screen = EndpointSources {
            sources: vec![source(
                77,
                MediaType::Video,
                Some("bobby-v1"),
                Some("screen s-1"),
            )],
            groups: vec![],
        };
        let mut jingle = Jingle::new(action, sid.clone());
        jingle.contents = screen.to_contents();
        assert!(is_result(&world.jingle("bobby", &jingle)));
    }
    let before = world.client("alice").got.len();
    world.seconds(2);
    assert_eq!(
        world.client("alice").got.len(),
        before,
        "an add and its remove are nothing"
    );
}

#[test]
fn nothing_is_signalled_before_the_accept_and_all_of_it_after() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.lazy = true;
    world.join_as(ROOM, "carol", carol);
    assert_eq!(
        hears(&mut world, "carol"),
        ["alice", "bobby"],
        "from the offer"
    );
    world.join("david");
    assert!(world.client("carol").of(Action::SourceAdd).is_empty());
    let accept = world.client("carol").accept("carol");
    assert!(is_result(&world.jingle("carol", &accept)));
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby", "david"]);
    assert_eq!(world.client("carol").of(Action::SourceAdd).len(), 1);
}

#[test]
fn offer_never_accepted_is_made_again() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.lazy = true;
    world.join_as(ROOM, "carol", carol);
    world.seconds(50);
    assert_eq!(world.client("carol").offers().len(), 2);
    assert_eq!(world.client("carol").of(Action::SessionTerminate).len(), 1);
}

/// gst-meet: no JSON, no names, owner as the whole occupant address.
#[test]
fn clients_without_json_get_and_send_plain_sources() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.features.retain(|f| f != feature::JSON_SOURCES);
    carol.nameless = true;
    world.join_as(ROOM, "carol", carol);
    let offer = world.client("carol").offers()[0].clone();
    assert!(offer.json_message.is_none());
    let video = offer
        .content("video")
        .and_then(|c| c.description.clone())
        .expect("video");
    let owners: Vec<String> = video
        .sources
        .iter()
        .filter_map(|s| s.info.clone())
        .map(|i| i.owner)
        .collect();
    assert!(owners.contains(&format!("{ROOM}/alice")), "{owners:?}");
    assert!(owners.contains(&"jvb".to_owned()));
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
    let named = &world.client("alice").remote.0["carol"];
    let names: Vec<_> = named
        .sources
        .iter()
        .filter_map(|s| s.name.as_deref())
        .collect();
    assert_eq!(names, ["carol-v0", "carol-v0", "carol-a0"]);
}

#[test]
fn media_a_client_lacks_is_neither_offered_nor_signalled() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol
        .features
        .retain(|f| f != feature::VIDEO && f != feature::TCC && f != feature::RTX);
    carol.silent = true;
    world.join_as(ROOM, "carol", carol);
    let offer = world.client("carol").offers()[0].clone();
    assert_eq!(offer.contents.len(), 1);
    let audio = offer.contents[0].description.clone().expect("audio");
    assert!(
        audio.header_extensions.iter().all(|e| e.id != 5),
        "no transport-cc"
    );
    let told = &world.client("carol").remote.0["alice"];
    assert!(
        told.sources
            .iter()
            .all(|s| s.media_type == MediaType::Audio)
    );
}

#[test]
fn client_that_hides_its_features_is_invited_after_three_seconds() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.mute_disco = true;
    carol.features.push("something:else".into());
    world.join_as(ROOM, "carol", carol);
    assert!(world.client("carol").offers().is_empty());
    world.seconds(4);
    assert_eq!(world.client("carol").offers().len(), 1);
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn bad_sources_end_that_session_only() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.lazy = true;
    world.join_as(ROOM, "carol", carol);
    let stolen = world.client("alice").sources("alice");
    let mut accept = world.client("carol").accept("carol");
    accept.contents = stolen.to_contents();
    assert_eq!(
        error(&world.jingle("carol", &accept)),
        Condition::BadRequest
    );
    assert_eq!(hears(&mut world, "bobby"), ["alice"]);
    assert!(
        world
            .client("alice")
            .of(Action::SessionTerminate)
            .is_empty()
    );
}

#[test]
fn accept_that_crosses_a_move_is_not_refused() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.lazy = true;
    world.join_as(ROOM, "carol", carol);
    let accept = world.client("carol").accept("carol");
    let (bridge, _) = used(&world);
    world.remove_bridge(bridge);
    assert!(
        is_result(&world.jingle("carol", &accept)),
        "an error would make the client leave"
    );
}

#[test]
fn visitors_are_invited_and_may_send_nothing() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.role = Role::Visitor;
    carol.lazy = true;
    world.join_as(ROOM, "carol", carol);
    let (bridge, _) = used(&world);
    let create = world
        .bridge(bridge)
        .requests
        .iter()
        .rev()
        .find(|r| r.endpoints.iter().any(|e| e.create && e.id == "carol"));
    assert_eq!(
        create
            .and_then(|r| r.endpoints[0].muc_role.clone())
            .as_deref(),
        Some("visitor")
    );
    let accept = world.client("carol").accept("carol");
    assert_eq!(error(&world.jingle("carol", &accept)), Condition::Forbidden);
}

#[test]
fn moderator_mutes_one_or_all_and_nobody_else_may() {
    let mut world = call();
    world.join("carol");
    let mute = |target: &str, on: bool| {
        Kind::Set(to_element(&Mute {
            media: MuteMedia::Audio,
            jid: Some(occupant(ROOM, target).to_string()),
            actor: None,
            mute: Some(on),
        }))
    };
    let from = |nick: &str| occupant(ROOM, nick).to_string();
    for target in ["bobby", "carol"] {
        assert!(is_result(&world.ask(&from("alice"), mute(target, true))));
        let told = world.client(target).mutes[0].clone();
        assert_eq!(told.actor.as_deref(), Some(from("alice").as_str()));
        assert_eq!((told.jid, told.mute), (None, Some(true)));
    }
    assert!(
        is_result(&world.ask(&from("bobby"), mute("bobby", false))),
        "its own unmute"
    );
    assert_eq!(world.client("bobby").mutes.len(), 1);
    assert_eq!(
        error(&world.ask(&from("bobby"), mute("carol", true))),
        Condition::NotAllowed
    );
    assert_eq!(
        error(&world.ask(&from("alice"), mute("bobby", false))),
        Condition::NotAllowed
    );
    assert_eq!(
        error(&world.ask(&from("alice"), mute("nobody", true))),
        Condition::InternalServerError
    );
    let nothing = Kind::Set(to_element(&Mute {
        media: MuteMedia::Video,
        jid: None,
        actor: None,
        mute: Some(true),
    }));
    assert_eq!(
        error(&world.ask(&from("alice"), nothing)),
        Condition::BadRequest
    );
}

#[test]
fn every_request_is_answered() {
    let mut world = call();
    let alice = occupant(ROOM, "alice").to_string();
    let element = |text: &str| xml::parse(text.as_bytes()).expect("XML");
    let jibri = "<jibri xmlns='http://jitsi.org/protocol/jibri' action='start'/>";
    let dial = "<dial xmlns='urn:xmpp:rayo:1' to='+491234'/>";
    for (from, payload, expected) in [
        (alice.as_str(), jibri, Condition::ServiceUnavailable),
        (alice.as_str(), dial, Condition::ServiceUnavailable),
        (
            &occupant(ROOM, "bobby").to_string(),
            jibri,
            Condition::Forbidden,
        ),
        (
            &alice,
            "<unknown xmlns='some:thing'/>",
            Condition::FeatureNotImplemented,
        ),
        (
            "x@meet.example/r",
            "<unknown xmlns='some:thing'/>",
            Condition::ServiceUnavailable,
        ),
        (
            &alice,
            "<jingle xmlns='urn:xmpp:jingle:1' action='source-modify' sid='x'/>",
            Condition::FeatureNotImplemented,
        ),
        (
            &alice,
            "<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='x'/>",
            Condition::ItemNotFound,
        ),
        (
            &alice,
            "<jingle xmlns='urn:xmpp:jingle:1' sid='x'/>",
            Condition::BadRequest,
        ),
        (
            "x@meet.example/r",
            "<logout xmlns='http://jitsi.org/protocol/focus' session-id='x'/>",
            Condition::NotAcceptable,
        ),
    ] {
        let answer = world.ask(from, Kind::Set(element(payload)));
        assert_eq!(error(&answer), expected, "{payload}");
    }
    let terminate = "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='x'/>";
    assert!(is_result(&world.ask(&alice, Kind::Set(element(terminate)))));
    let gone = "old@conference.meet.example/alice";
    assert!(
        is_result(&world.ask(gone, Kind::Set(element(terminate)))),
        "a room we have left"
    );
    assert!(is_result(
        &world.ask(&alice, Kind::Get(to_element(&DiscoInfo::query(None))))
    ));
    assert!(is_result(&world.ask(
        "x@meet.example/r",
        Kind::Get(to_element(&Version::default()))
    )));
}

#[test]
fn transport_info_is_passed_on_and_ice_restart_declined() {
    let mut world = call();
    let sid = world.client("alice").sid.clone().expect("in a call");
    let mut jingle = Jingle::new(Action::TransportInfo, sid.clone());
    assert_eq!(
        error(&world.jingle("alice", &jingle)),
        Condition::BadRequest
    );
    jingle.contents.push(viaduct_signalling::jingle::Content {
        name: "0".into(),
        transport: Some(Transport {
            ufrag: Some("more".into()),
            ..Transport::default()
        }),
        ..Default::default()
    });
    assert!(is_result(&world.jingle("alice", &jingle)));
    let (bridge, _) = used(&world);
    let update = world
        .bridge(bridge)
        .requests
        .last()
        .cloned()
        .expect("an update");
    let ice = update.endpoints[0]
        .transport
        .clone()
        .and_then(|t| t.ice_udp)
        .expect("a transport");
    assert_eq!(ice.ufrag.as_deref(), Some("more"));
    let mut jingle = Jingle::new(Action::SessionInfo, sid);
    jingle.bridge_session = Some(BridgeSession {
        ice_restart: Some(true),
        ..BridgeSession::default()
    });
    assert_eq!(
        error(&world.jingle("alice", &jingle)),
        Condition::FeatureNotImplemented
    );
}

#[test]
fn client_that_leaves_its_call_is_not_called_again() {
    let mut world = call();
    let mut jingle = Jingle::new(
        Action::SessionTerminate,
        world.client("alice").sid.clone().expect("in"),
    );
    jingle.reason = Some(Reason {
        condition: Some(ReasonCondition::Success),
        text: Some("bye".into()),
    });
    world.client("alice").sid = None;
    assert!(is_result(&world.jingle("alice", &jingle)));
    world.seconds(120);
    assert_eq!(world.client("alice").offers().len(), 1);
    assert!(hears(&mut world, "bobby").is_empty());
}

#[test]
fn refused_offer_is_repeated_with_growing_pauses() {
    let mut world = call();
    let mut carol = world.new_client(3);
    carol.refuse = 2;
    world.join_as(ROOM, "carol", carol);
    assert_eq!(world.client("carol").offers().len(), 1);
    world.seconds(3);
    assert_eq!(world.client("carol").offers().len(), 2);
    world.seconds(5);
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn moderator_who_makes_owners_leaves_and_none_is_elected() {
    let mut world = call();
    world.client("bobby").affiliation = Affiliation::Owner;
    let presence = world.client_presence(ROOM, "bobby");
    world.deliver(presence);
    world.join("carol");
    world.leave("alice");
    assert_eq!(world.client("carol").affiliation, Affiliation::None);
    world.leave("bobby");
    assert_eq!(world.client("carol").affiliation, Affiliation::Owner);
}

/// Asked again at the next change, but not of a server that does not let us.
#[test]
fn owner_that_could_not_be_made_is_made_later() {
    for (why, asked, affiliation) in [
        (Condition::ResourceConstraint, 2, Affiliation::Owner),
        (Condition::Forbidden, 1, Affiliation::None),
    ] {
        let mut world = World::new();
        world.add_bridge("jvb1");
        world.grants_refused = Some(why);
        world.join("alice");
        assert_eq!(world.client("alice").affiliation, Affiliation::None);
        world.grants_refused = None;
        world.join("bobby");
        assert_eq!(world.client("alice").affiliation, affiliation);
        assert_eq!(world.grants_asked, asked);
    }
}

#[test]
fn destroyed_room_ends_the_conference() {
    let mut world = call();
    let (bridge, _) = used(&world);
    let mut user = MucUser::new(vec![Item::default()], &[110]);
    user.destroy = Some(Default::default());
    let mut presence = Presence::unavailable(full(FOCUS)).with(&user);
    presence.from = Some(occupant(ROOM, "focus").into());
    let sent = world.sent.len();
    world.deliver(presence.to_element());
    assert!(world.focus.rooms().is_empty());
    assert!(world.bridge(bridge).conferences.is_empty());
    assert!(
        world.sent[sent..]
            .iter()
            .all(|(_, _, s)| s.name() != "presence"),
        "it is out already"
    );
}

#[test]
fn locked_room_is_entered_with_its_password() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.room(ROOM).locked = Some("secret".into());
    world.join("alice");
    assert!(world.room(ROOM).focus);
}

#[test]
fn resumed_connection_changes_nothing() {
    let mut world = call();
    world.focus.offline(world.now, Link::Client);
    world.seconds(30);
    let sent = world.sent.len();
    world
        .focus
        .online(world.now, Link::Client, &full(FOCUS).into(), true);
    world.pump();
    assert_eq!(world.sent.len(), sent);
    world.join("carol");
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}

#[test]
fn fresh_connection_reenters_and_finds_who_left() {
    let mut world = call();
    let (bridge, _) = used(&world);
    world.join("carol");
    let sids = [
        world.client("alice").sid.clone(),
        world.client("bobby").sid.clone(),
    ];
    world.focus.offline(world.now, Link::Client);
    world.room(ROOM).clients.remove("carol");
    world.seconds(5);
    world
        .focus
        .online(world.now, Link::Client, &full(FOCUS).into(), false);
    world.pump();
    assert_eq!(
        world.on_bridge(bridge),
        ["alice", "bobby"],
        "who left meanwhile is expired"
    );
    assert_eq!(
        [
            world.client("alice").sid.clone(),
            world.client("bobby").sid.clone()
        ],
        sids
    );
    world.join("david");
    assert_eq!(hears(&mut world, "david"), ["alice", "bobby"]);
}

#[test]
fn restarted_server_gives_everybody_time_to_come_back() {
    let mut world = call();
    let (bridge, _) = used(&world);
    world.focus.offline(world.now, Link::Client);
    let clients = std::mem::take(&mut world.room(ROOM).clients);
    world.room(ROOM).focus = false;
    world.seconds(5);
    world
        .focus
        .online(world.now, Link::Client, &full(FOCUS).into(), false);
    world.pump();
    world.seconds(5);
    assert_eq!(world.on_bridge(bridge), ["alice", "bobby"], "media goes on");
    for (nick, client) in clients {
        world.enter(ROOM, &nick, client);
    }
    world.seconds(30);
    assert_eq!(world.client("alice").offers().len(), 1, "the same session");
    assert_eq!(world.on_bridge(bridge), ["alice", "bobby"]);
}

#[test]
fn planned_stop_is_not_noticed_by_clients() {
    let mut world = call();
    world.focus.shut_down();
    world.pump();
    let last = world.sent.last().expect("a presence").2.clone();
    let presence = Presence::from_element(&last).expect("a presence");
    assert_eq!(presence.kind, PresenceType::Unavailable);
    assert!(presence.to.is_none(), "all rooms at once");
    assert!(
        last.children()
            .any(|c| c.is("ignore", "http://jitsi.org/jitmeet/"))
    );
}

#[test]
fn bridge_count_is_published() {
    let mut world = call();
    let count = |world: &mut World| {
        let presence = world
            .room(ROOM)
            .focus_presences
            .last()
            .cloned()
            .expect("a presence");
        let properties: ConferenceProperties = presence.payload().expect("properties");
        properties.get("bridge-count").map(str::to_owned)
    };
    assert_eq!(count(&mut world).as_deref(), Some("1"));
    world.leave("alice");
    world.seconds(21);
    assert_eq!(count(&mut world).as_deref(), Some("0"));
}

#[test]
fn health_is_asked_every_ten_seconds() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.seconds(41);
    assert_eq!(world.bridge("jvb1").health_checks, 4);
    let asked = world
        .sent
        .iter()
        .filter(|(_, _, stanza)| {
            stanza
                .children()
                .any(|child| from_element::<HealthCheck>(child).is_ok())
        })
        .count();
    assert_eq!(asked, 4);
}

#[test]
fn malformed_stanzas_disturb_nobody() {
    let mut world = call();
    for text in [
        "<iq xmlns='jabber:client' type='set' from='x@y/z'/>",
        "<iq xmlns='jabber:client' type='set' id='1' from='x@y/z'/>",
        "<iq xmlns='jabber:client' type='nonsense' id='1'/>",
        "<iq xmlns='jabber:client' type='error' id='1'/>",
        "<presence xmlns='jabber:client' from='@@'/>",
        "<presence xmlns='jabber:client' from='demo@conference.meet.example/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='nonsense' role='x' jid='@'/></x><SourceInfo>{</SourceInfo></presence>",
        "<message xmlns='jabber:client' from='demo@conference.meet.example/alice'><json-message xmlns='http://jitsi.org/jitmeet'>{}</json-message></message>",
        "<other xmlns='jabber:client'/>",
        "<presence xmlns='jabber:client' from='jvbbrewery@internal.auth.meet.example/jvb1'><stats xmlns='http://jitsi.org/protocol/colibri'><stat name='stress_level' value='NaN'/><stat name='drain'/></stats></presence>",
    ] {
        let stanza = xml::parse(text.as_bytes()).expect("XML");
        world.deliver(stanza);
    }
    world.join("carol");
    assert_eq!(hears(&mut world, "bobby").len(), 2);
}

#[test]
fn the_same_seed_and_events_give_the_same_stanzas() {
    let run = || {
        let mut world = call();
        world.join("carol");
        world.ice_failed("carol");
        world.seconds(20);
        world
            .sent
            .iter()
            .map(|(_, _, s)| xml::write(s))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn debug_tells_why_a_bridge_was_chosen() {
    let world = call();
    let debug = world.focus.debug();
    let room = &debug["focus_manager"]["conferences"][ROOM];
    assert_eq!(room["placements"][0]["because"], "least load");
    assert!(room["placements"][0]["candidates"]["jvb1"].is_object());
    let (bridge, _) = used(&world);
    let bridges = &debug["bridge_selector"]["bridge"];
    assert_eq!(bridges[format!("{BREWERY}/{bridge}")]["endpoints"], 2);
}

/// A machine that stalled for some seconds must not be without calls for a minute.
#[test]
fn only_bridge_serves_again_soon_after_it_answers_again() {
    let mut world = World::new();
    world.add_bridge("jvb1");
    world.join("alice");
    world.join("bobby");
    world.bridge("jvb1").frozen = true;
    assert!(is_result(&world.ice_failed("alice")));
    world.seconds(4);
    world.bridge("jvb1").frozen = false;
    world.seconds(16);
    assert_eq!(hears(&mut world, "alice"), ["bobby"]);
    assert_eq!(hears(&mut world, "bobby"), ["alice"]);
    world.join("carol");
    assert_eq!(hears(&mut world, "carol"), ["alice", "bobby"]);
}
