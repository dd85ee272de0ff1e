//! A whole call with loss, a layer switch, a leave and a late join: what every
//! receiver must find in it, and that it repeats, on however many workers.

use super::*;

/// A packet that was lost on its way to the bridge and comes back only after a
/// change of layer may not be wanted any more: then its number stays unused.
/// That can be so for as long as packets are asked for, before and after.
const CHANGE: Duration = Duration::from_millis(1500);

/// What any receiver must find in what came under one SSRC, whatever was lost,
/// from the first packet on that it got: one owner, no number missing (but for the last second, which may still be on
/// its way), frames whole unless a switch cut them short, every layer entered by a key frame, and all counters
/// of the codec in step.
fn check_track(name: &str, track: &Track, owner: u8, until: Duration, asked: &[Duration]) {
    let mut changes: Vec<Duration> = encodings(track).iter().map(|(at, _)| *at).collect();
    changes.extend(asked);
    let changing = |at: Duration| changes.iter().any(|change| change.abs_diff(at) < CHANGE);
    let newest = track.video.iter().filter(|(_, seen)| seen.at < until);
    let newest = newest.map(|(index, _)| *index).max();
    // Nobody can know of packets before the first that came.
    let first = track.video.iter().min_by_key(|(_, seen)| seen.at);
    let first = first.map(|(index, _)| *index);
    let settled: Vec<(u64, Seen)> = track
        .video
        .iter()
        .filter(|(index, _)| Some(**index) <= newest && Some(**index) >= first)
        .map(|(index, seen)| (*index, *seen))
        .skip_while(|(_, seen)| !(seen.content.key && seen.content.part == 0))
        .collect();
    assert!(!settled.is_empty(), "{name}: nothing came");
    let mut before: Option<(u64, Seen)> = None;
    for (index, seen) in settled {
        let content = seen.content;
        assert_eq!(content.owner, owner, "{name}: another's content at {index}");
        let last = content.part + 1 == content.parts;
        assert_eq!(seen.marker, last, "{name}: marker at {index}");
        match before.replace((index, seen)) {
            None => {}
            Some((previous, earlier)) => {
                let at = format!("{name}: {index} after {previous}: {seen:?} after {earlier:?}");
                let was = earlier.content;
                let cut_short = was.part + 1 < was.parts;
                if cut_short && content.part == 0 && content.key {
                    // Another encoding was entered before the end of this frame
                    // came: nothing was lost, so there is no hole.
                    assert_eq!(index, previous + 1, "{at}");
                    assert_ne!(content.encoding, was.encoding, "{at}");
                } else if !changing(seen.at) {
                    assert_eq!(index, previous + 1, "{at}: missing");
                    assert!(
                        content.part > 0 || !cut_short,
                        "{at}: the frame before is not whole"
                    );
                }
                if content.part > 0 {
                    assert_eq!(
                        (content.encoding, content.frame),
                        (was.encoding, was.frame),
                        "{at}"
                    );
                    assert_eq!(content.part, was.part + 1, "{at}");
                    assert_eq!(seen.timestamp, earlier.timestamp, "{at}");
                    assert_eq!(seen.picture_id, earlier.picture_id, "{at}");
                    continue;
                }
                if index == previous + 1 {
                    assert_eq!(seen.picture_id, (earlier.picture_id + 1) & 0x7fff, "{at}");
                }
                let step = seen.timestamp.wrapping_sub(earlier.timestamp) as i32;
                assert!(step > 0, "{at}: time goes back");
                if content.encoding != was.encoding {
                    assert!(content.key, "{at}: entered without a key frame");
                } else if !content.key {
                    assert!(content.frame > was.frame, "{at}");
                }
                if index != previous + 1 {
                    continue;
                }
                let base = content.temporal_id == 0 || content.key;
                let tl0 = earlier.tl0_pic_idx.wrapping_add(u8::from(base));
                assert_eq!(seen.tl0_pic_idx, tl0, "{at}");
            }
        }
    }
}

/// Encodings in the order in which a receiver got them, with their times.
pub(crate) fn encodings(track: &Track) -> Vec<(Duration, u8)> {
    let mut order: Vec<(Duration, u8)> = Vec::new();
    for seen in track.video.values() {
        if order
            .last()
            .is_none_or(|last| last.1 != seen.content.encoding)
        {
            order.push((seen.at, seen.content.encoding));
        }
    }
    order
}

/// Three participants, one of them late, one leaving, with loss both ways and a
/// layer switch.
fn conference(seed: u64) {
    check_conference(play(Simulation::new(seed)));
}

/// A run that is over: who left meanwhile, and when A changed its mind.
struct Played {
    sim: Simulation,
    b: Client,
    down: Duration,
    up: Duration,
}

impl Played {
    /// All that every client got, in which two runs can be compared.
    fn transcript(&self) -> Vec<String> {
        let clients = self.sim.clients.values().chain([&self.b]);
        clients.flat_map(Client::transcript).collect()
    }
}

fn play(mut sim: Simulation) -> Played {
    sim.join("a", 1);
    sim.join("b", 2);
    for id in ["a", "b"] {
        sim.want(id, 720);
    }
    sim.run_until(seconds(2));
    for client in sim.clients.values() {
        let connected = client.connected.expect("the handshake is done");
        assert!(connected < seconds(1), "{} took {connected:?}", client.id);
    }
    sim.network.lost = 100;
    sim.network.late = 30;
    sim.run_until(seconds(5));
    sim.join("c", 3);
    sim.want("c", 360);
    sim.run_until(seconds(8));
    // Everyone but A still wants 720 of B: only A changes.
    sim.want("a", 180);
    let down = sim.elapsed();
    sim.run_until(seconds(11));
    sim.want("a", 360);
    let up = sim.elapsed();
    sim.run_until(seconds(14));
    let b = sim.leave("b");
    sim.run_until(seconds(18));
    sim.network.lost = 0;
    sim.network.late = 0;
    sim.run_until(seconds(20));
    Played { sim, b, down, up }
}

fn check_conference(played: Played) {
    let Played { sim, b, down, up } = played;
    for receiver in ["a", "c"] {
        for (sender, owner) in [("a", 1), ("c", 3)] {
            if receiver != sender {
                let name = format!("{sender} at {receiver}");
                check_track(
                    &name,
                    sim.track(receiver, sender),
                    owner,
                    seconds(19),
                    &[down, up],
                );
            }
        }
        let of_b = &sim.clients[receiver].tracks[&b.primary()];
        check_track(
            &format!("b at {receiver}"),
            of_b,
            2,
            seconds(13),
            &[down, up],
        );
    }
    for (sender, owner) in [("a", 1), ("c", 3)] {
        let track = &b.tracks[&sim.clients[sender].primary()];
        check_track(
            &format!("{sender} at b"),
            track,
            owner,
            seconds(13),
            &[down, up],
        );
    }

    let of_b = &sim.clients["a"].tracks[&b.primary()];
    let switches = encodings(of_b);
    let entered = |from: Duration, encoding| {
        let found = switches
            .iter()
            .find(|(at, e)| *at >= from && *e == encoding);
        found.map(|(at, _)| *at - from)
    };
    assert!(
        switches.iter().any(|(at, e)| *e == 2 && *at < down),
        "720 first: {switches:?}"
    );
    for (from, encoding) in [(down, 0), (up, 1)] {
        let took = entered(from, encoding);
        assert!(
            took.is_some_and(|took| took < seconds(2)),
            "to {encoding}: {took:?} in {switches:?}"
        );
    }

    let a = &sim.clients["a"];
    assert!(
        a.resent > 10 && b.resent > 10,
        "the bridge asks for what is lost"
    );
    let by_rtx = of_b.video.values().filter(|seen| seen.by_rtx).count();
    assert!(by_rtx > 10, "the bridge answers requests: {by_rtx}");
    assert!(a.feedback > 1000 && !a.reports.is_empty());
    let audio = &a.tracks[&b.audio_ssrc()].audio;
    assert!(audio.values().all(|(from, _)| *from == 2));
    assert!(audio.len() > 500, "{} audio packets", audio.len());
    assert_eq!(sim.stats().counters.drops[DropCause::MalformedRtp], 0);
    assert!(
        sim.stats().gauges.rtt_count >= 2,
        "{:?}",
        sim.stats().gauges
    );
    let rtt = sim.stats().gauges.rtt_ms_sum / f64::from(sim.stats().gauges.rtt_count);
    assert!((40.0..60.0).contains(&rtt), "{rtt} ms");
}

#[test]
fn three_participants_with_loss_a_layer_switch_a_leave_and_a_late_join() {
    conference(7);
}

/// Of two transcripts, the first line that differs.
fn assert_same(one: &[String], other: &[String], name: &str) {
    let differs = one.iter().zip(other).find(|(one, other)| one != other);
    assert_eq!(differs, None, "{name}");
    assert_eq!(one.len(), other.len(), "{name}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| play(Simulation::new(seed)).transcript();
    let first = run(42);
    assert_same(&first, &run(42), "again");
    assert_ne!(first, run(43));
}

/// However a conference is spread over workers, every client gets the same
/// packets and messages, at the same time.
#[test]
fn workers_make_no_difference() {
    for seed in 200..205 {
        let alone = play(Simulation::spread(seed, 1, 1)).transcript();
        for workers in [2, 4] {
            let spread = play(Simulation::spread(seed, workers, 1)).transcript();
            assert_same(&alone, &spread, &format!("seed {seed}, {workers} workers"));
        }
    }
}

#[test]
fn conferences_hold_under_many_seeds() {
    for seed in 100..120 {
        conference(seed);
    }
}
