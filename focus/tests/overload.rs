//! Bridges that take their time, in virtual time: a slow answer is worth waiting
//! for, the more so where nobody else would answer at all.

mod world;

use std::time::Duration;

use viaduct_focus::bridges::registry::MAX_ASKED;
use viaduct_signalling::jingle::Action;
use world::{BREWERY, ROOM, World};

const SLOW: Duration = Duration::from_secs(20);

/// So many bridges, the first of which takes so long for each answer.
fn bridges(nicks: &[&str], delay: Duration) -> World {
    let mut world = World::new();
    for nick in nicks {
        world.add_bridge(nick);
    }
    world.bridge(nicks[0]).delay = delay;
    world
}

/// Everybody was called once and hears all others.
fn assert_called_once(world: &mut World) {
    let nicks: Vec<String> = world.room(ROOM).clients.keys().cloned().collect();
    for nick in &nicks {
        let client = world.client(nick);
        assert_eq!(client.offers().len(), 1, "{nick} was called once");
        assert!(client.of(Action::SessionTerminate).is_empty(), "{nick}");
        assert_eq!(client.hears().len(), nicks.len() - 1, "{nick} hears all");
    }
}

fn health(world: &World, nick: &str) -> String {
    let debug = world.focus.debug();
    let bridge = &debug["bridge_selector"]["bridge"][format!("{BREWERY}/{nick}")];
    bridge["health"].as_str().expect("a state").to_owned()
}

#[test]
fn only_bridge_is_waited_for_however_slow() {
    let mut world = bridges(&["jvb1"], SLOW);
    world.join("alice");
    world.join("bobby");
    world.seconds(19);
    assert!(health(&world, "jvb1").starts_with("Silent"));
    assert!(world.client("alice").offers().is_empty());
    world.seconds(2);
    assert_called_once(&mut world);
    world.seconds(20);
    world.join("carol");
    world.seconds(60);
    assert_called_once(&mut world);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby", "carol"]);
    let bridge = world.bridge("jvb1");
    let made = bridge.requests.iter().filter(|r| r.endpoints[0].create);
    assert_eq!(made.count(), 3, "nobody was asked for twice");
    assert!(
        bridge.health_checks < 25,
        "{} in 100 s",
        bridge.health_checks
    );
    world.bridge("jvb1").delay = Duration::ZERO;
    world.seconds(120);
    assert_eq!(health(&world, "jvb1"), "Up");
    assert_called_once(&mut world);
}

#[test]
fn slow_bridge_is_left_for_one_that_is_well_and_keeps_nothing() {
    let mut world = bridges(&["jvb1", "jvb2"], SLOW);
    world.join("alice");
    world.join("bobby");
    world.seconds(6);
    assert_called_once(&mut world);
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    world.seconds(15);
    assert!(!world.bridges["jvb1"].requests.is_empty(), "it got to it");
    world.seconds(20);
    assert!(world.bridges["jvb1"].conferences.is_empty());
    world.bridge("jvb1").delay = Duration::ZERO;
    world.seconds(120);
    assert_eq!(health(&world, "jvb1"), "Up");
    assert_called_once(&mut world);
    assert_eq!(
        world.on_bridge("jvb2"),
        ["alice", "bobby"],
        "nobody is pulled back"
    );
}

#[test]
fn calls_do_not_go_from_one_slow_bridge_to_the_next() {
    let mut world = bridges(&["jvb1", "jvb2"], SLOW);
    world.bridge("jvb2").delay = SLOW;
    world.join("alice");
    world.join("bobby");
    world.seconds(300);
    assert_called_once(&mut world);
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    assert!(world.bridges["jvb1"].conferences.is_empty());
}

/// Where the XMPP server is slow, all bridges seem to be: no call has to move, and
/// who joins is called once.
#[test]
fn nobody_is_moved_because_the_server_is_slow() {
    let mut world = bridges(&["jvb1", "jvb2"], Duration::ZERO);
    for number in 0..10 {
        world.join(&format!("early{number}"));
    }
    world.seconds(30);
    let delay = Duration::from_millis(3500);
    world.server_delay = delay;
    for nick in ["jvb1", "jvb2"] {
        // Its answer has the same way.
        world.bridge(nick).delay = delay;
    }
    for number in 0..60 {
        world.join(&format!("late{number:02}"));
        world.seconds(1);
    }
    world.seconds(60);
    for nick in ["jvb1", "jvb2"] {
        assert_eq!(health(&world, nick), "Up");
    }
    assert_called_once(&mut world);
}

#[test]
fn bridge_without_an_answer_is_left_as_soon_as_there_is_a_better() {
    let mut world = bridges(&["jvb1"], Duration::ZERO);
    world.join("alice");
    world.join("bobby");
    world.bridge("jvb1").frozen = true;
    world.join("carol");
    world.seconds(30);
    assert_called_with_others(&mut world, "alice", &["bobby"]);
    world.add_bridge("jvb2");
    world.seconds(1);
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby", "carol"]);
    assert_called_with_others(&mut world, "carol", &["alice", "bobby"]);
}

fn assert_called_with_others(world: &mut World, nick: &str, others: &[&str]) {
    assert_eq!(world.client(nick).hears(), others);
}

/// A request that was lost is made again, once the bridge answers others.
#[test]
fn lost_request_is_made_again() {
    let mut world = bridges(&["jvb1"], Duration::ZERO);
    world.bridge("jvb1").frozen = true;
    world.join("alice");
    world.join("bobby");
    world.seconds(12);
    world.bridge("jvb1").frozen = false;
    world.seconds(20);
    assert_called_once(&mut world);
}

/// What a bridge makes after it was told to end it is ended once more.
#[test]
fn late_endpoints_and_conferences_are_given_back() {
    let hasty = |world: &mut World| world.bridge("jvb1").hasty = true;
    // The conference has left.
    let mut world = bridges(&["jvb1", "jvb2"], SLOW);
    hasty(&mut world);
    world.join("alice");
    world.join("bobby");
    world.seconds(30);
    assert_eq!(world.on_bridge("jvb2"), ["alice", "bobby"]);
    assert!(world.bridges["jvb1"].conferences.is_empty());

    // One has left it.
    let mut world = bridges(&["jvb1"], Duration::ZERO);
    hasty(&mut world);
    world.join("alice");
    world.join("bobby");
    world.bridge("jvb1").delay = SLOW;
    world.join("carol");
    world.seconds(16);
    world.leave("carol");
    world.seconds(10);
    assert_eq!(world.on_bridge("jvb1"), ["alice", "bobby"]);

    // All have left.
    let mut world = bridges(&["jvb1"], SLOW);
    hasty(&mut world);
    world.join("alice");
    world.join("bobby");
    world.seconds(16);
    world.leave("alice");
    world.leave("bobby");
    world.seconds(10);
    assert!(!world.bridges["jvb1"].requests.is_empty(), "it got to it");
    assert!(world.bridges["jvb1"].conferences.is_empty());
}

/// More than the only bridge can do: all are called in the end, nobody twice,
/// and those who come and go meanwhile change nothing.
#[test]
fn overloaded_bridge_gets_done_with_a_room_of_a_hundred() {
    let mut world = bridges(&["jvb1"], Duration::ZERO);
    world.bridge("jvb1").work = Duration::from_millis(300);
    let name = |number: usize| format!("p{number:03}");
    for number in 0..100 {
        world.join(&name(number));
        world.pass(Duration::from_millis(200));
    }
    for number in 100..150 {
        world.leave(&name(number - 100));
        world.join(&name(number));
        world.pass(Duration::from_millis(200));
    }
    let most = world.bridges["jvb1"].most_to_make;
    assert!(most > 20, "{most} at once are no overload");
    world.seconds(120);
    assert_called_once(&mut world);
    assert_eq!(world.on_bridge("jvb1").len(), 100);
}

/// A slow bridge is not asked for more endpoints at once than it may, by however
/// many rooms.
#[test]
fn a_bridge_owes_no_more_than_it_may() {
    let mut world = bridges(&["jvb1"], SLOW);
    let rooms: Vec<String> = (0..MAX_ASKED)
        .map(|number| format!("room{number}@conference.meet.example"))
        .collect();
    for room in &rooms {
        for (number, nick) in [(1, "alice"), (2, "bobby")] {
            let client = world.new_client(number);
            world.join_as(room, nick, client);
        }
    }
    world.seconds(100);
    assert_eq!(world.bridges["jvb1"].most_to_make, MAX_ASKED);
    assert_eq!(world.on_bridge("jvb1").len(), 2 * MAX_ASKED);
}
