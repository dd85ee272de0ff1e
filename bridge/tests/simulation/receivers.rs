//! What a receiver gets by its own limits: in pictures, in bits, in what it
//! understands.

use super::*;

#[test]
fn last_n_of_one_gives_each_receiver_one_picture() {
    let mut sim = Simulation::new(3);
    for (number, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        sim.join(id, number);
        sim.want(id, 180);
    }
    sim.run_until(seconds(4));
    for id in ["a", "b", "c", "d"] {
        sim.say(id, r#"{"colibriClass":"LastNChangedEvent","lastN":1}"#);
    }
    sim.run_for(Duration::from_millis(200));
    let from = sim.elapsed();
    sim.run_for(seconds(2));
    for client in sim.clients.values() {
        let fresh = client
            .tracks
            .values()
            .filter(|track| track.video.values().any(|seen| seen.at > from));
        assert_eq!(fresh.count(), 1, "{}", client.id);
    }
}

#[test]
fn a_receiver_without_rtx_is_sent_nothing_twice() {
    let mut sim = Simulation::new(17);
    sim.join("a", 1);
    sim.media[1].payload_types.pop();
    sim.join("b", 2);
    sim.want("b", 720);
    sim.run_until(seconds(2));
    sim.network.lost = 100;
    sim.run_until(seconds(6));
    let counters = sim.stats().counters;
    assert!(
        counters.drops[DropCause::ResendWithoutRtx] > 10,
        "{counters:?}"
    );
    assert_eq!(counters.retransmissions_sent, 0);
    let track = sim.track("b", "a");
    assert!(track.video.values().all(|seen| !seen.by_rtx));
    assert_eq!(track.duplicates, 0);
}

#[test]
fn a_receiver_without_better_feedback_gets_what_it_has_room_for() {
    let mut sim = Simulation::new(19);
    sim.join("a", 1);
    for payload in sim.media.iter_mut().flat_map(|m| &mut m.payload_types) {
        payload.feedback.transport_cc = false;
        payload.feedback.remb = true;
    }
    sim.join("b", 2);
    sim.want("b", 720);
    // All three encodings together are 36, 72 and 144 kbit/s.
    for (bits, encoding) in [(10_000_000, 2), (100_000, 1), (50_000, 0), (1_000_000, 2)] {
        sim.run_for(seconds(2));
        sim.clients
            .get_mut("b")
            .expect("it is there")
            .estimate(bits);
        sim.run_for(seconds(2));
        let last = sim.track("b", "a").video.values().last();
        let last = last.map(|seen| seen.content.encoding);
        assert_eq!(last, Some(encoding), "at {bits} bit/s");
    }
    assert_eq!(sim.stats().gauges.endpoints_with_spurious_remb, 0);
    // To one that told of more, it means nothing.
    sim.clients.get_mut("a").expect("it is there").estimate(1);
    sim.run_for(seconds(1));
    assert_eq!(sim.stats().gauges.endpoints_with_spurious_remb, 1);
}
