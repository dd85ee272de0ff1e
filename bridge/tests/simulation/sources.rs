//! Sources that come late, go, come back, fall silent, are muted or claimed by
//! another.

use super::*;

#[test]
fn silence_is_dropped_without_a_gap_and_mute_by_order_stops_media() {
    let mut sim = Simulation::new(5);
    sim.join("a", 1);
    sim.join("b", 2);
    sim.want("a", 180);
    sim.run_until(seconds(2));
    sim.clients.get_mut("b").expect("it is there").audio_level = 127;
    sim.run_until(seconds(4));
    sim.clients.get_mut("b").expect("it is there").audio_level = 40;
    sim.run_until(seconds(6));
    let ssrc = sim.clients["b"].audio_ssrc();
    let heard = |sim: &Simulation| sim.clients["a"].tracks[&ssrc].audio.clone();
    let before = heard(&sim);
    let numbers: Vec<u64> = before.keys().copied().collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    let silent = sim.stats().counters.drops[DropCause::Silence];
    assert!((90..=100).contains(&silent), "{silent}");
    let force_mute = Some(ForceMute {
        audio: true,
        video: true,
    });
    sim.update(
        "b",
        EndpointUpdate {
            force_mute,
            ..EndpointUpdate::default()
        },
    );
    sim.run_for(Duration::from_millis(100));
    let (muted, seen) = (heard(&sim).len(), sim.track("a", "b").video.len());
    sim.run_for(seconds(2));
    assert_eq!(
        (heard(&sim).len(), sim.track("a", "b").video.len()),
        (muted, seen)
    );
    let force_mute = Some(ForceMute::default());
    sim.update(
        "b",
        EndpointUpdate {
            force_mute,
            ..EndpointUpdate::default()
        },
    );
    sim.run_for(seconds(2));
    assert!(heard(&sim).len() > muted && sim.track("a", "b").video.len() > seen);
    assert!(
        heard(&sim)
            .keys()
            .zip(heard(&sim).keys().skip(1))
            .all(|(a, b)| a + 1 == *b)
    );
}

#[test]
fn sources_may_come_after_their_packets_and_go_and_come_back() {
    let mut sim = Simulation::new(9);
    sim.join("a", 1);
    sim.join("b", 2);
    sim.want("a", 720);
    sim.run_until(seconds(2));
    let known = sources(&sim.clients["b"]);
    for _ in 0..2 {
        let sources = Some(Vec::new());
        sim.update(
            "b",
            EndpointUpdate {
                sources,
                ..EndpointUpdate::default()
            },
        );
        sim.run_for(Duration::from_millis(300));
        let before = sim.stats().counters.drops[DropCause::UnknownSsrc];
        sim.run_for(seconds(2));
        assert!(sim.stats().counters.drops[DropCause::UnknownSsrc] > before);
        let seen = sim.track("a", "b").video.len();
        let sources = Some(known.clone());
        sim.update(
            "b",
            EndpointUpdate {
                sources,
                ..EndpointUpdate::default()
            },
        );
        sim.run_for(seconds(1));
        assert!(
            sim.track("a", "b").video.len() > seen + 20,
            "the picture is back"
        );
    }
    // The client would have noticed a sequence number used twice.
    let track = sim.track("a", "b");
    assert_eq!(track.duplicates, 0);
    assert!(
        track
            .video
            .keys()
            .zip(track.video.keys().skip(1))
            .all(|(a, b)| a + 1 == *b)
    );
    assert_eq!(
        sim.clients["a"].tracks[&sim.clients["b"].audio_ssrc()].duplicates,
        0
    );
}

/// Firefox takes packets that come before their source-add for its own line of
/// media, and stays black.
#[test]
fn no_packet_comes_before_its_source_is_known() {
    let mut sim = Simulation::new(23);
    sim.join("a", 1);
    sim.want("a", 720);
    sim.run_until(seconds(3));
    sim.join("b", 2);
    sim.want("b", 720);
    let first = |sim: &Simulation, receiver: &str, sender: &str| {
        let track = sim.track(receiver, sender);
        let video = track.video.values().map(|seen| seen.at).min();
        video.expect("pictures came")
    };
    sim.run_until(seconds(6));
    // What was there before is in the offer; what comes later has to be told.
    assert!(first(&sim, "b", "a") < Duration::from_millis(3450));
    assert!(first(&sim, "a", "b") >= Duration::from_millis(3500));
    assert!(first(&sim, "a", "b") < Duration::from_millis(3900));
}

#[test]
fn an_ssrc_belongs_to_whoever_named_it_first() {
    let mut sim = Simulation::new(11);
    sim.join("a", 1);
    sim.join("b", 2);
    sim.join_as("c", 3, false);
    sim.want("c", 180);
    let stolen = sources(&sim.clients["a"]);
    sim.update(
        "b",
        EndpointUpdate {
            sources: Some(stolen),
            ..EndpointUpdate::default()
        },
    );
    sim.run_until(seconds(4));
    let track = sim.track("c", "a");
    assert!(track.video.values().all(|seen| seen.content.owner == 1));
    assert!(sim.stats().counters.drops[DropCause::UnknownSsrc] > 0);
    assert_eq!(sim.clients["c"].tracks.len(), 2, "A's audio and video");
}
