//! The ways packets take in simulated calls: a translator that forgets, many
//! clients behind one address, and networks that carry small datagrams only.

use super::*;

/// What an IPv6 packet of 1280 octets leaves for UDP's payload.
const SMALLEST: usize = 1280 - 40 - 8;

/// When a receiver got video of a sender, from some time on.
fn video_since(sim: &Simulation, receiver: &str, sender: &str, since: Duration) -> Vec<Duration> {
    let seen = sim.track(receiver, sender).video.values();
    let mut times: Vec<Duration> = seen.map(|s| s.at).filter(|at| *at >= since).collect();
    times.sort();
    times
}

fn outside(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], port))
}

/// The address of a client changes, and neither it nor signalling knows. What it
/// sends and gets goes on as soon as one of its checks has told the bridge, and
/// nothing is sent to the old address any more.
#[test]
fn media_follows_a_client_whose_address_changes() {
    for sends in [true, false] {
        let mut sim = Simulation::new(21);
        sim.join("a", 1);
        sim.admit("b", 2, sends, true);
        let inside = sim.clients["b"].address;
        sim.network.translated.insert(inside, outside(20_001));
        sim.want("a", 360);
        sim.run_until(seconds(2));
        sim.say_to_bridge("b", 360);
        sim.run_until(seconds(6));
        sim.network.translated.insert(inside, outside(20_002));
        let changed = sim.elapsed();
        sim.run_until(seconds(30));
        let mut ways = vec![("b", "a")];
        if sends {
            ways.push(("a", "b"));
        }
        for (receiver, sender) in ways {
            let after = video_since(&sim, receiver, sender, changed + Duration::from_millis(50));
            let back = after.first().expect("it came back");
            // The client's checks leave every 3 s; reports of one that sends no
            // media are as good as media.
            let patience = seconds(4);
            assert!(
                *back - changed < patience,
                "{receiver} from {sender}: {back:?}"
            );
            let settled = &after[after.len() / 2..];
            let holes = settled.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(holes.max() < Some(Duration::from_millis(100)));
            assert_eq!(sim.track(receiver, sender).duplicates, 0);
        }
        // The data channel went along.
        let before = sim.clients["b"].data_messages;
        sim.say(
            "a",
            r#"{"colibriClass":"EndpointMessage","to":"b","msgPayload":{}}"#,
        );
        sim.run_for(seconds(4));
        assert!(sim.clients["b"].data_messages > before);
        assert!(
            sim.events
                .iter()
                .all(|(_, event)| !event.contains("Expired"))
        );
    }
}

impl Simulation {
    fn say_to_bridge(&mut self, id: &'static str, height: i32) {
        let text = format!(
            r#"{{"colibriClass":"ReceiverVideoConstraints","lastN":-1,"defaultConstraints":{{"maxHeight":{height}}}}}"#
        );
        let client = self.clients.get_mut(id).expect("it is there");
        client.say(self.now, &text);
        self.exchange();
    }
}

/// An office: two hundred clients of one public address, each told apart by its
/// port, each with its own media.
#[test]
fn two_hundred_clients_share_one_address() {
    const CLIENTS: u8 = 200;
    let mut sim = Simulation::new(22);
    let mut ids = Vec::new();
    for number in 1..=CLIENTS {
        let id: &'static str = Box::leak(format!("p{number:03}").into_boxed_str());
        let inside = SocketAddr::from(([192, 0, 2, number], 4000 + u16::from(number)));
        let port = 20_000 + u16::from(number);
        sim.network.translated.insert(inside, outside(port));
        // Two talk, the others listen.
        sim.admit(id, number, number <= 2, true);
        ids.push(id);
    }
    sim.run_for(seconds(2));
    for id in &ids {
        let client = &sim.clients[id];
        assert!(client.connected.is_some(), "{id} is not connected");
        assert!(client.data_channel.as_ref().is_some_and(|c| c.open), "{id}");
        sim.say_to_bridge(id, 180);
    }
    let from = sim.elapsed();
    sim.run_for(seconds(3));
    for receiver in &ids {
        for sender in &ids[..2] {
            if receiver != sender {
                let frames = video_since(&sim, receiver, sender, from + seconds(1));
                assert!(
                    frames.len() > 50,
                    "{receiver} from {sender}: {}",
                    frames.len()
                );
            }
        }
    }
    let drops = &sim.stats().counters.drops;
    assert_eq!(drops[DropCause::UnknownUfrag], 0);
    assert_eq!(drops[DropCause::Forged], 0);
}

/// With senders that make packets as long as browsers do, nothing that leaves
/// the bridge is longer than the smallest IPv6 datagram: checks, handshakes,
/// data, reports, and media with what the bridge adds.
#[test]
fn nothing_is_longer_than_the_smallest_datagram() {
    let mut sim = Simulation::new(23);
    for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
        sim.admit(id, number, true, true);
        // RTP of 1200 octets, as libwebrtc packs it.
        sim.clients.get_mut(id).expect("it is there").fill = 1200 - 20 - 6 - 12;
    }
    sim.run_until(seconds(2));
    for id in ["a", "b", "c"] {
        sim.say_to_bridge(id, 720);
    }
    sim.network.lost = 150;
    sim.network.lost_records = 100;
    let now = sim.now;
    for number in 0..40 {
        let fill = "x".repeat(number * 200);
        let text = format!(
            r#"{{"colibriClass":"EndpointMessage","to":"","msgPayload":{{"fill":"{fill}"}}}}"#
        );
        sim.clients
            .get_mut("a")
            .expect("it is there")
            .say(now, &text);
        sim.run_for(Duration::from_millis(250));
    }
    let longest = sim.network.longest[&bridge_address()];
    assert!(
        longest > 1200,
        "the senders' packets were not long: {longest}"
    );
    assert!(longest <= SMALLEST, "{longest} octets");
    assert!(sim.stats().counters.retransmissions_sent > 0);
    assert!(sim.stats().counters.nacks_sent > 0);
    assert_eq!(sim.stats().counters.drops[DropCause::TooLong], 0);
}

#[test]
fn what_is_not_expected_is_counted_and_dropped() {
    let mut sim = Simulation::new(15);
    sim.join("a", 1);
    sim.run_until(seconds(1));
    let stranger = SocketAddr::from(([203, 0, 113, 9], 5000));
    let member = sim.clients["a"].address;
    let mut rtp = vec![0x80u8; 60];
    rtp[1] = 100;
    for (from, mut datagram, cause) in [
        (stranger, rtp.clone(), DropCause::UnknownAddress),
        (stranger, vec![22u8; 40], DropCause::UnknownAddress),
        (stranger, vec![0u8; 20], DropCause::UnknownAddress),
        (member, rtp, DropCause::Forged),
        (member, vec![200u8; 40], DropCause::NotDemuxed),
        (member, Vec::new(), DropCause::NotDemuxed),
    ] {
        let count = |sim: &Simulation| sim.stats().counters.drops[cause];
        let before = count(&sim);
        sim.receive(from, &mut datagram);
        assert_eq!(count(&sim), before + 1, "{cause:?} for {datagram:?}");
        let silent = sim.shards.iter_mut().all(|shard| shard.outbox().is_empty());
        assert!(silent, "no answer to {cause:?}");
    }
    assert_eq!(ENCODINGS, 3);
}
