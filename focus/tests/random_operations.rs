//! Whatever happens, in whatever order: once it is quiet and a bridge is there,
//! everybody hears everybody else, on one bridge, and nothing is left over.
//!
//! The model is the room itself: who is in it. Beside the end state the world
//! asserts on the way that no client gets a second offer without a terminate, an
//! empty source change, or a removal of what it was not told of, and that every
//! request is answered within a second.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use viaduct_focus::outbox::Link;
use viaduct_signalling::iq::{Condition, StanzaError};
use viaduct_signalling::jingle::{Action, Jingle};
use viaduct_signalling::jitsi::BridgeNotAvailable;
use viaduct_signalling::sources::{EndpointSources, MediaType};
use world::{FOCUS, ROOM, World, full, is_result, source};

/// Something that may happen. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    IceFailed(usize),
    ShareScreen(usize),
    StopSharing(usize),
    AddBridge(usize),
    RemoveBridge(usize),
    Freeze(usize),
    Thaw(usize),
    /// The bridge takes so many seconds for an answer.
    Slow(usize, u64),
    /// The bridge forgets all conferences, as one started anew.
    Forget(usize),
    Refuse(usize),
    Accept(usize),
    ShutDown(usize),
    Reconnect {
        resumed: bool,
        away: u64,
    },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..6).prop_map(Step::Join),
        3 => (0usize..6).prop_map(Step::Leave),
        3 => (0usize..6).prop_map(Step::IceFailed),
        2 => (0usize..6).prop_map(Step::ShareScreen),
        1 => (0usize..6).prop_map(Step::StopSharing),
        3 => (0usize..3).prop_map(Step::AddBridge),
        2 => (0usize..3).prop_map(Step::RemoveBridge),
        1 => (0usize..3).prop_map(Step::Freeze),
        1 => (0usize..3).prop_map(Step::Thaw),
        2 => (0usize..3, 0u64..30).prop_map(|(number, seconds)| Step::Slow(number, seconds)),
        1 => (0usize..3).prop_map(Step::Forget),
        1 => (0usize..3).prop_map(Step::Refuse),
        1 => (0usize..3).prop_map(Step::Accept),
        1 => (0usize..3).prop_map(Step::ShutDown),
        1 => (any::<bool>(), 0u64..20).prop_map(|(resumed, away)| Step::Reconnect { resumed, away }),
        4 => (1u64..30_000).prop_map(Step::Pass),
    ]
}

fn name(number: usize) -> String {
    format!("client{number}")
}

fn bridge_name(number: usize) -> String {
    format!("jvb{number}")
}

fn in_room(world: &World, nick: &str) -> bool {
    world
        .rooms
        .get(ROOM)
        .is_some_and(|room| room.clients.contains_key(nick))
}

fn in_session(world: &mut World, nick: &str) -> bool {
    in_room(world, nick) && world.client(nick).sid.is_some()
}

fn screen(world: &mut World, nick: &str, action: Action) {
    if !in_session(world, nick) {
        return;
    }
    let number = nick.bytes().last().map_or(0, u32::from);
    let client = world.client(nick);
    let msid = format!("screen-{nick}-{} s", client.generation);
    let ssrc = 4_000_000_000 + number * 1000 + client.generation;
    let set = EndpointSources {
        sources: vec![source(
            ssrc,
            MediaType::Video,
            Some(&format!("{nick}-v1")),
            Some(&msid),
        )],
        groups: vec![],
    };
    let mut jingle = Jingle::new(action, client.sid.clone().expect("checked above"));
    jingle.contents = set.to_contents();
    // Refused where it is shared already or not at all; answered in any case.
    world.jingle(nick, &jingle);
}

fn act(world: &mut World, step: &Step) {
    match step {
        Step::Join(number) => {
            let nick = name(*number);
            if !in_room(world, &nick) {
                let client = world.new_client(*number);
                world.join_as(ROOM, &nick, client);
            }
        }
        Step::Leave(number) => {
            let nick = name(*number);
            if in_room(world, &nick) {
                world.leave(&nick);
            }
        }
        Step::IceFailed(number) => {
            let nick = name(*number);
            if in_session(world, &nick) {
                assert!(is_result(&world.ice_failed(&nick)));
            }
        }
        Step::ShareScreen(number) => screen(world, &name(*number), Action::SourceAdd),
        Step::StopSharing(number) => screen(world, &name(*number), Action::SourceRemove),
        Step::AddBridge(number) => {
            let nick = bridge_name(*number);
            if !world.bridges.contains_key(&nick) {
                world.add_bridge(&nick);
            }
        }
        Step::RemoveBridge(number) => {
            let nick = bridge_name(*number);
            if world.bridges.contains_key(&nick) {
                world.remove_bridge(&nick);
            }
        }
        Step::Pass(millis) => world.pass(Duration::from_millis(*millis)),
        Step::Reconnect { resumed, away } => {
            world.focus.offline(world.now, Link::Client);
            world.seconds(*away);
            world
                .focus
                .online(world.now, Link::Client, &full(FOCUS).into(), *resumed);
            world.pump();
        }
        Step::ShutDown(number) => {
            let nick = bridge_name(*number);
            if world.bridges.contains_key(&nick) {
                world.bridge(&nick).shutting_down = true;
                world.stats(&nick, &[("shutting_down", "true")]);
            }
        }
        Step::Freeze(number)
        | Step::Thaw(number)
        | Step::Slow(number, _)
        | Step::Forget(number)
        | Step::Refuse(number)
        | Step::Accept(number) => {
            let Some(bridge) = world.bridges.get_mut(&bridge_name(*number)) else {
                return;
            };
            match step {
                Step::Freeze(_) => bridge.frozen = true,
                Step::Thaw(_) => bridge.frozen = false,
                Step::Slow(_, seconds) => bridge.delay = Duration::from_secs(*seconds),
                Step::Forget(_) => bridge.conferences.clear(),
                Step::Refuse(_) => {
                    bridge.refusal = Some(StanzaError::new(Condition::InternalServerError));
                }
                _ => bridge.refusal = None,
            }
        }
    }
}

/// All bridges work again; what is there stays, if anything is.
fn mend(world: &mut World) {
    for number in 0..3 {
        let nick = bridge_name(number);
        if let Some(bridge) = world.bridges.get_mut(&nick) {
            bridge.frozen = false;
            bridge.delay = Duration::ZERO;
            bridge.refusal = None;
        }
    }
    let usable = |bridge: &world::Bridge| !bridge.shutting_down;
    if !world.bridges.values().any(usable) {
        world.add_bridge("fresh");
    }
    // Longer than every back-off, rate limit and offer that was not accepted.
    world.seconds(200);
}

/// The only bridge left is one that knows nothing.
fn replace(world: &mut World) {
    let nicks: Vec<String> = world.bridges.keys().cloned().collect();
    for nick in nicks {
        world.remove_bridge(&nick);
    }
    world.add_bridge("fresh");
    world.seconds(200);
}

fn check_hearing(world: &mut World) -> BTreeSet<String> {
    let nicks: BTreeSet<String> = world.room(ROOM).clients.keys().cloned().collect();
    if nicks.len() < 2 {
        return nicks;
    }
    for nick in &nicks {
        let others: Vec<String> = nicks
            .iter()
            .filter(|other| *other != nick)
            .cloned()
            .collect();
        let client = world.client(nick);
        assert!(client.sid.is_some(), "{nick} is in a session");
        let hears: Vec<String> = client.hears().into_iter().map(str::to_owned).collect();
        assert_eq!(hears, others, "{nick} hears all others and nobody else");
    }
    let debug = world.focus.debug();
    let bridges = debug["bridge_selector"]["bridge"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let booked: Vec<u64> = bridges
        .values()
        .filter_map(|bridge| bridge["endpoints"].as_u64())
        .filter(|n| *n > 0)
        .collect();
    assert_eq!(
        booked,
        [nicks.len() as u64],
        "one bridge, and what was booked is what is there"
    );
    for presence in &world.room(ROOM).focus_presences {
        assert!(presence.payload::<BridgeNotAvailable>().is_none());
    }
    nicks
}

fn check_nothing_is_left_over(world: &World, nicks: &BTreeSet<String>) {
    let conferences = &world.bridges["fresh"].conferences;
    if nicks.len() < 2 {
        assert!(conferences.is_empty(), "nobody is in a call alone");
        return;
    }
    let endpoints: BTreeSet<String> = conferences.values().flatten().cloned().collect();
    assert_eq!(endpoints, *nicks, "the bridge has who is in the room");
    assert_eq!(conferences.len(), 1, "one conference for one room");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn calls_always_mend(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.add_bridge("jvb0");
        for step in &steps {
            act(&mut world, step);
        }
        mend(&mut world);
        check_hearing(&mut world);
        replace(&mut world);
        let nicks = check_hearing(&mut world);
        check_nothing_is_left_over(&world, &nicks);
    }
}
