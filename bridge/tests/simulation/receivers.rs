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

/// Of two cameras one receiver has room for one, by its own wish, and a third is
/// muted: an operator who asks is told so, and of what flows that it does.
#[test]
fn what_a_receiver_gets_or_why_not_is_told() {
    let mut sim = Simulation::new(29);
    for (number, id) in [(1, "a"), (2, "b"), (3, "c")] {
        sim.join(id, number);
        sim.want(id, 180);
    }
    sim.run_until(seconds(4));
    sim.say("a", r#"{"colibriClass":"LastNChangedEvent","lastN":1}"#);
    let force_mute = Some(ForceMute {
        audio: true,
        video: false,
    });
    sim.update(
        "c",
        EndpointUpdate {
            force_mute,
            ..EndpointUpdate::default()
        },
    );
    sim.run_for(seconds(2));
    let described = sim.describe(&Subject::Conference).endpoints;
    let ids: Vec<_> = described.keys().collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let reasons = |receiver: &str, end: &str| -> Vec<Option<&str>> {
        let receives = described[receiver].receives.as_ref().expect("few");
        let of_kind = receives.iter().filter(|(name, _)| name.ends_with(end));
        of_kind.map(|(_, received)| received.not_sent).collect()
    };
    let mut videos = reasons("a", "-v0");
    videos.sort_unstable();
    assert_eq!(videos, [None, Some("not asked for, or beyond lastN")]);
    assert_eq!(reasons("b", "-v0"), [None, None]);
    let muted = Some("its sender is muted by a moderator");
    assert_eq!(reasons("a", "-a0"), [None, muted]);
    let b = &described["b"];
    assert_eq!(b.ice_transport.state, "connected");
    let camera = &b.sources["b-v0"];
    assert_eq!(camera.encodings.len(), ENCODINGS);
    let lowest = &camera.encodings[0];
    assert!(lowest.silent_ms.is_some_and(|silent| silent < 1000));
    assert!(lowest.layers.iter().any(|layer| layer.bitrate > 0));
    assert_eq!(camera.wanted_height, Some(180));
    // The others have it as the target that they are told to have.
    let target = described["c"]
        .receives
        .as_ref()
        .and_then(|r| r["b-v0"].target);
    let indices: Vec<u16> = lowest.layers.iter().map(|layer| layer.index).collect();
    assert!(target.is_some_and(|target| indices.contains(&target)));
    // One alone is told in the same words, and of nobody that is not there.
    let alone = sim.describe(&Subject::Endpoint("b".into())).endpoints;
    assert_eq!(alone.keys().collect::<Vec<_>>(), ["b"]);
    let nobody = sim.describe(&Subject::Endpoint("x".into()));
    assert!(nobody.endpoints.is_empty() && nobody.speakers.is_none());
}
