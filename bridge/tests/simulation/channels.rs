//! Bridge channels in simulated calls: data channels with loss, both kinds
//! beside each other, and a client that takes nothing for a while.

use std::time::Duration;

use super::*;
use crate::calls::encodings;
use viaduct_bridge::transport::data_channel::MAX_BUFFERED;

const ANY_CONSTRAINTS: &str = r#"{"colibriClass":"ReceiverVideoConstraints","lastN":-1,"defaultConstraints":{"maxHeight":720}}"#;

fn message(to: &str, number: usize, len: usize) -> String {
    let fill = "x".repeat(len);
    format!(
        r#"{{"colibriClass":"EndpointMessage","to":"{to}","msgPayload":{{"n":{number},"fill":"{fill}"}}}}"#
    )
}

impl Simulation {
    fn say_on_data_channel(&mut self, id: &'static str, text: &str) {
        let client = self.clients.get_mut(id).expect("it is there");
        client.say(self.now, text);
        self.exchange();
    }

    fn tell(&mut self, id: &'static str, channel: ChannelId, text: &str) {
        self.command(Command::ChannelMessage {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            channel,
            text: text.to_owned(),
        });
    }

    /// What a client was told since it had been told `before` messages.
    fn told(&self, id: &str, before: usize) -> Vec<&str> {
        let messages = &self.clients[id].messages[before..];
        messages.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Messages that came on the data channel, and by WebSocket.
    fn counts(&self, id: &str) -> (usize, usize) {
        let client = &self.clients[id];
        let data = client.data_messages;
        (data, client.messages.len() - data)
    }
}

/// Everything that goes over a WebSocket goes over a data channel, however much
/// of it is lost on the way: each message once, in order, large ones too.
#[test]
fn a_call_on_data_channels_alone() {
    let mut sim = Simulation::new(11);
    for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
        sim.admit(id, number, true, true);
    }
    sim.run_until(seconds(2));
    for id in ["a", "b", "c"] {
        let client = &sim.clients[id];
        assert!(client.data_channel.as_ref().is_some_and(|c| c.open), "{id}");
        assert!(sim.told(id, 0)[0].contains("ServerHello"), "{id}");
        sim.say_on_data_channel(id, ANY_CONSTRAINTS);
    }
    sim.network.lost_records = 200;
    let before = sim.clients["b"].messages.len();
    for number in 0..100 {
        let len = if number % 10 == 0 { 60_000 } else { number };
        sim.say_on_data_channel("a", &message("b", number, len));
        sim.run_for(Duration::from_millis(50));
    }
    sim.network.lost_records = 0;
    sim.run_for(seconds(20));
    let told = sim.told("b", before);
    let numbers: Vec<usize> = told
        .iter()
        .filter(|text| text.contains(r#""from":"a""#))
        .map(|text| {
            let rest = text.split(r#""n":"#).nth(1).expect("it was sent");
            rest.split(',')
                .next()
                .expect("split gives one")
                .parse()
                .expect("a number")
        })
        .collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    for (receiver, sender) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let layers = encodings(sim.track(receiver, sender));
        assert_eq!(
            layers.last().map(|last| last.1),
            Some(2),
            "720 was asked for"
        );
    }
    assert_eq!(sim.stats().counters.drops[DropCause::Sctp], 0);
    assert_eq!(sim.stats().counters.drops[DropCause::ChannelBehind], 0);
    assert!(sim.stats().counters.data_channel_messages_received >= 103);
    assert!(
        sim.events
            .iter()
            .all(|(_, event)| !event.contains("ChannelClose"))
    );
}

/// What opened or spoke last is used; when it goes, the other one takes over.
#[test]
fn either_channel_may_come_and_go() {
    let mut sim = Simulation::new(12);
    sim.join("a", 1);
    sim.admit("b", 2, true, true);
    let web = sim.open_channel("b");
    sim.want("a", 360);
    sim.run_until(seconds(1));
    // The data channel opened after the WebSocket: it was greeted, too.
    let (data, web_messages) = sim.counts("b");
    assert!(data > 0 && web_messages > 0);
    let greeted = sim.told("b", web_messages);
    assert!(greeted.iter().any(|text| text.contains("ServerHello")));

    let ask = |sim: &mut Simulation| {
        let before = sim.counts("b");
        sim.say("a", &message("b", 0, 0));
        sim.run_for(Duration::from_millis(200));
        let after = sim.counts("b");
        (after.0 - before.0, after.1 - before.1)
    };
    assert_eq!(ask(&mut sim), (1, 0), "the newest");
    sim.tell("b", web, ANY_CONSTRAINTS);
    sim.run_for(seconds(1));
    assert_eq!(ask(&mut sim), (0, 1), "the one that spoke last");
    sim.say_on_data_channel("b", ANY_CONSTRAINTS);
    sim.run_for(seconds(1));
    assert_eq!(ask(&mut sim), (1, 0));

    // The data channel closes while the WebSocket is there.
    let before = sim.counts("b");
    let now = sim.now;
    let b = sim.clients.get_mut("b").expect("it is there");
    b.data_channel.as_mut().expect("it dialled").close(now);
    b.handle_timeout(now);
    sim.exchange();
    sim.run_for(seconds(1));
    let after = sim.counts("b");
    assert_eq!(after.0, before.0);
    assert!(after.1 > before.1, "told anew on the WebSocket");
    assert_eq!(ask(&mut sim), (0, 1));

    // It comes back, and the WebSocket goes.
    let now = sim.now;
    let b = sim.clients.get_mut("b").expect("it is there");
    b.data_channel.as_mut().expect("it dialled").reopen(now, 2);
    b.handle_timeout(now);
    sim.exchange();
    sim.run_for(seconds(2));
    assert_eq!(ask(&mut sim), (1, 0));
    sim.command(Command::ChannelClosed {
        conference: CONFERENCE,
        endpoint: EndpointId::from("b"),
        channel: web,
    });
    assert_eq!(ask(&mut sim), (1, 0));
    sim.tell("b", web, ANY_CONSTRAINTS);
    assert_eq!(ask(&mut sim), (1, 0), "a closed one cannot speak");

    // A WebSocket again, and again: one takes the place of the other.
    let first = sim.open_channel("b");
    assert_eq!(ask(&mut sim), (0, 1));
    let second = sim.open_channel("b");
    let replaced = format!("{first:?}, reason: Replaced");
    assert!(
        sim.events
            .iter()
            .any(|(_, event)| event.contains(&replaced))
    );
    sim.command(Command::ChannelClosed {
        conference: CONFERENCE,
        endpoint: EndpointId::from("b"),
        channel: second,
    });
    sim.run_for(seconds(1));
    assert_eq!(ask(&mut sim), (1, 0), "back to the data channel");
    // All the while, media went both ways.
    for (receiver, sender) in [("a", "b"), ("b", "a")] {
        let track = sim.track(receiver, sender);
        let last = track.video.values().map(|seen| seen.at).max();
        assert!(last.is_some_and(|at| at + seconds(1) > sim.elapsed()));
    }
}

/// A client that was not offered a data channel has none, and costs nothing.
#[test]
fn a_data_channel_that_was_not_offered_is_not_answered() {
    let mut sim = Simulation::new(13);
    sim.admit("a", 1, true, false);
    sim.run_until(seconds(1));
    let now = sim.now;
    sim.clients.get_mut("a").expect("it is there").dial(now);
    sim.run_for(seconds(5));
    let client = &sim.clients["a"];
    assert!(!client.data_channel.as_ref().is_some_and(|c| c.open));
    assert!(sim.stats().counters.drops[DropCause::Sctp] > 0);
    assert!(client.messages.is_empty());
}

/// A client whose data stops arriving is not queued for without end; when it is
/// back it is told everything anew.
#[test]
fn a_client_that_takes_nothing_is_told_anew_when_it_is_back() {
    let mut sim = Simulation::new(14);
    sim.join("a", 1);
    sim.admit("b", 2, true, true);
    sim.run_until(seconds(1));
    sim.network.lost_records = 1000;
    let len = 60_000;
    for number in 0..2 * MAX_BUFFERED / len {
        sim.say("a", &message("b", number, len));
        sim.run_for(Duration::from_millis(100));
    }
    sim.run_for(seconds(2));
    assert!(sim.stats().counters.drops[DropCause::ChannelBehind] > 0);
    let before = sim.clients["b"].messages.len();
    sim.network.lost_records = 0;
    sim.run_for(seconds(30));
    let told = sim.told("b", before);
    let kept = told.iter().filter(|text| text.contains("EndpointMessage"));
    assert!(kept.count() <= MAX_BUFFERED / len);
    let last = told
        .iter()
        .rposition(|text| text.contains("EndpointMessage"));
    let hello = told.iter().position(|text| text.contains("ServerHello"));
    assert!(
        last < hello,
        "greeted after what was kept: {last:?} {hello:?}"
    );
    sim.say("a", &message("b", 0, 0));
    sim.run_for(seconds(1));
    assert!(
        sim.told("b", 0)
            .last()
            .is_some_and(|text| text.contains(r#""n":0"#))
    );
}

#[test]
fn channel_messages_come_in_the_order_of_the_recordings() {
    let mut sim = Simulation::new(1);
    sim.join("a", 1);
    let classes = |client: &Client| -> Vec<String> {
        let class = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
            value["colibriClass"]
                .as_str()
                .expect("it has a class")
                .to_owned()
        };
        client
            .messages
            .iter()
            .map(|(_, text)| class(text))
            .collect()
    };
    assert_eq!(
        classes(&sim.clients["a"]),
        ["ServerHello", "ForwardedSources"]
    );
    sim.want("a", 180);
    sim.run_until(seconds(1));
    sim.join("b", 2);
    let b = &sim.clients["b"].messages;
    assert!(
        b.iter()
            .any(|(_, text)| text.contains(r#""sourceName":"b-v0", "maxHeight":180"#)),
        "A had asked before: {b:?}"
    );
    assert_eq!(b[0].1, r#"{"colibriClass":"ServerHello"}"#);
    sim.want("b", 720);
    sim.run_until(seconds(4));
    let a = &sim.clients["a"];
    assert!(
        a.messages
            .iter()
            .any(|(_, text)| text.contains(r#""forwardedSources":["b-v0"]"#))
    );
    assert_eq!(a.wanted_height, 720);
    assert!(classes(a).contains(&"DominantSpeakerEndpointChangeEvent".to_owned()));
    let told = sim.clients["b"].messages.len();
    sim.say(
        "a",
        r#"{"colibriClass":"EndpointMessage","to":"b","msgPayload":{"n":1}}"#,
    );
    sim.say("a", r#"{"colibriClass":"EndpointStats","jvbRTT":5}"#);
    let b = &sim.clients["b"].messages[told..];
    assert_eq!(
        b[0].1,
        r#"{"colibriClass":"EndpointMessage","to":"b","from":"a","msgPayload":{"n":1}}"#
    );
    assert_eq!(
        b[1].1,
        r#"{"colibriClass":"EndpointStats","from":"a","jvbRTT":5}"#
    );
    // A mutes: at once B gets nothing of A, and A is told so.
    sim.say(
        "a",
        r#"{"colibriClass":"SourceVideoTypeMessage","sourceName":"a-v0","videoType":"none"}"#,
    );
    assert_eq!(sim.clients["a"].wanted_height, 0);
    let last = sim.clients["b"].messages.last().expect("B was told");
    assert_eq!(
        last.1,
        r#"{"colibriClass":"ForwardedSources","forwardedSources":[]}"#
    );
    sim.leave("a");
    assert_eq!(sim.clients["b"].wanted_height, 0);
}
