//! Conferences under random operations, beside a small model that knows who
//! should get what; and what is left of conferences in which many come and go.

use std::collections::{BTreeSet, VecDeque};

use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::*;
use viaduct_bridge::command::MediaType;
use viaduct_bridge::rtp::Ssrc;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const HEIGHTS: [i32; 4] = [0, 180, 360, 720];

/// What there is to know of a participant.
#[derive(Default)]
struct Person {
    audio: bool,
    video: bool,
    /// Its camera is on, as it told.
    shown: bool,
    muted: ForceMute,
    /// What it asked for, once it has.
    height: Option<i32>,
    /// Texts it must have been told, by others, in the order of each.
    messages: BTreeMap<&'static str, Vec<usize>>,
}

/// A conference with its model.
struct Play {
    sim: Simulation,
    random: SmallRng,
    people: BTreeMap<&'static str, Person>,
    texts: usize,
}

impl Play {
    fn new(seed: u64, workers: usize, endpoints_per_worker: usize, lag: Duration) -> Self {
        let mut sim = Simulation::spread(seed, workers, endpoints_per_worker);
        sim.lag = lag;
        Self {
            sim,
            random: SmallRng::seed_from_u64(seed),
            people: BTreeMap::new(),
            texts: 0,
        }
    }

    fn join(&mut self, id: &'static str) {
        // Channels and clients are numbered alike.
        let number = self.sim.channels as u8 + 1;
        self.sim.join(id, number);
        let person = Person {
            audio: true,
            video: true,
            shown: true,
            ..Person::default()
        };
        self.people.insert(id, person);
    }

    fn step(&mut self) {
        let someone = self.people.keys().copied().choose(&mut self.random);
        let Some(id) = someone else {
            return self.join(NAMES[0]);
        };
        match self.random.random_range(0..12) {
            0 | 1 => {
                let absent = NAMES.iter().filter(|name| !self.people.contains_key(*name));
                if let Some(absent) = absent.copied().choose(&mut self.random) {
                    self.join(absent);
                }
            }
            2 if self.people.len() > 2 => {
                self.people.remove(id);
                self.sim.leave(id);
            }
            3 => {
                let all = sources(&self.sim.clients[id]);
                let (audio, video) = self.random.random();
                let kept = all.into_iter().filter(|source| match source.media_type {
                    MediaType::Audio => audio,
                    MediaType::Video => video,
                });
                let update = EndpointUpdate {
                    sources: Some(kept.collect()),
                    ..EndpointUpdate::default()
                };
                self.sim.update(id, update);
                let person = self.person(id);
                (person.audio, person.video) = (audio, video);
            }
            4 => {
                let shown = self.random.random();
                let kind = if shown { "camera" } else { "none" };
                let text = format!(
                    r#"{{"colibriClass":"SourceVideoTypeMessage","sourceName":"{id}-v0","videoType":"{kind}"}}"#
                );
                self.sim.say(id, &text);
                self.person(id).shown = shown;
            }
            5 => {
                let (audio, video) = self.random.random();
                let muted = ForceMute { audio, video };
                let update = EndpointUpdate {
                    force_mute: Some(muted),
                    ..EndpointUpdate::default()
                };
                self.sim.update(id, update);
                self.person(id).muted = muted;
            }
            6..=8 => {
                let height = HEIGHTS[self.random.random_range(0..HEIGHTS.len())];
                self.sim.want(id, height);
                self.person(id).height = Some(height);
            }
            9 => {
                // Who speaks up; the others are quiet.
                for client in self.sim.clients.values_mut() {
                    client.audio_level = if client.id == id { 5 } else { 90 };
                }
            }
            _ => self.talk(id),
        }
        let pause = self.random.random_range(0..300);
        self.sim.run_for(Duration::from_millis(pause));
    }

    /// Says something to one of the others, or to all.
    fn talk(&mut self, from: &'static str) {
        self.texts += 1;
        let number = self.texts;
        let others = self.people.keys().copied().filter(|id| *id != from);
        let to = others.choose(&mut self.random);
        let to = to.filter(|_| self.random.random());
        for (id, person) in &mut self.people {
            if *id != from && to.is_none_or(|to| to == *id) {
                person.messages.entry(from).or_default().push(number);
            }
        }
        let to = to.unwrap_or_default();
        let text = format!(
            r#"{{"colibriClass":"EndpointMessage","to":"{to}","msgPayload":{{"number":{number}}}}}"#
        );
        self.sim.say(from, &text);
    }

    fn person(&mut self, id: &str) -> &mut Person {
        self.people.get_mut(id).expect("it is there")
    }

    /// Whether a receiver is to get video of a sender.
    fn sees(&self, receiver: &str, sender: &str) -> bool {
        let (receiver, sender) = (&self.people[receiver], &self.people[sender]);
        sender.video && sender.shown && receiver.height.is_some_and(|height| height > 0)
    }

    /// Compares what is with what should be, once all has come to rest.
    fn check(&mut self, name: &str) {
        self.sim.run_for(seconds(4));
        let counts = |sim: &Simulation| {
            let mut counts = BTreeMap::new();
            for receiver in sim.clients.values() {
                for sender in sim.clients.values().filter(|s| s.id != receiver.id) {
                    let len = |ssrc: Ssrc| {
                        let track = receiver.tracks.get(&ssrc);
                        track.map_or((0, 0), |track| (track.audio.len(), track.video.len()))
                    };
                    let got = (len(sender.audio_ssrc()).0, len(sender.primary()).1);
                    counts.insert((receiver.id, sender.id), got);
                }
            }
            counts
        };
        let before = counts(&self.sim);
        self.sim.run_for(seconds(1));
        let after = counts(&self.sim);
        for ((receiver, sender), (audio, video)) in after {
            let at = format!("{name}: {receiver} of {sender}");
            let (audio_before, video_before) = before[&(receiver, sender)];
            let person = &self.people[sender];
            let heard = person.audio && !person.muted.audio;
            assert_eq!(audio > audio_before, heard, "{at}: audio");
            let seen = self.sees(receiver, sender) && !person.muted.video;
            assert_eq!(video > video_before, seen, "{at}: video");
            if seen {
                let last = self.sim.track(receiver, sender).video.values().last();
                let encoding = last.map(|seen| 180 << seen.content.encoding);
                assert_eq!(encoding, self.people[receiver].height, "{at}: height");
            }
        }
        for (id, client) in &self.sim.clients {
            self.check_told(&format!("{name}: {id}"), id, client);
        }
        // Whoever was told who speaks was told the same.
        let floor = |client: &Client| {
            let told = client.messages.iter().rev().map(|(_, text)| text);
            let told = told.clone().find(|text| text.contains("DominantSpeaker"))?;
            let value: serde_json::Value = serde_json::from_str(told).expect("it is JSON");
            Some(value["dominantSpeakerEndpoint"].to_string())
        };
        let floors: BTreeSet<_> = self.sim.clients.values().filter_map(floor).collect();
        assert!(floors.len() <= 1, "{name}: {floors:?}");
    }

    fn check_told(&self, at: &str, id: &str, client: &Client) {
        let others = || self.people.keys().filter(|other| **other != id);
        let spoken = others().filter_map(|other| self.people[other].height);
        if let (true, Some(most)) = (self.people[id].video, spoken.max()) {
            let wanted = if self.people[id].shown { most } else { 0 };
            assert_eq!(client.wanted_height, wanted, "{at} is wanted");
        }
        let last = client.messages.iter().rev();
        let last = last
            .map(|(_, text)| text)
            .find(|t| t.contains("ForwardedSources"));
        let last = last.expect("it was told when its channel opened");
        let value: serde_json::Value = serde_json::from_str(last).expect("it is JSON");
        let told = value["forwardedSources"].as_array().expect("a list");
        let told: BTreeSet<_> = told.iter().filter_map(|name| name.as_str()).collect();
        let gets = others().filter(|other| self.sees(id, other));
        let gets: BTreeSet<_> = gets.map(|other| format!("{other}-v0")).collect();
        assert!(gets.iter().eq(&told), "{at}: told {told:?}, gets {gets:?}");
        let mut heard: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (_, text) in &client.messages {
            let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
            if value["colibriClass"] == "EndpointMessage" {
                let from = value["from"]
                    .as_str()
                    .and_then(|from| NAMES.iter().find(|n| **n == from));
                let number = value["msgPayload"]["number"].as_u64();
                let from = from.expect("one of ours");
                heard
                    .entry(from)
                    .or_default()
                    .push(number.expect("it was sent") as usize);
            }
        }
        assert_eq!(heard, self.people[id].messages, "{at}: messages");
    }
}

/// Whatever is done, on however many workers, and however late one hears of the
/// other: everybody gets what the model says, and in the end nothing is left.
#[test]
fn random_conferences_do_what_the_model_says() {
    for seed in 0..6 {
        for (workers, endpoints_per_worker, lag) in [(1, 1, 0), (2, 1, 0), (3, 2, 3), (4, 1, 20)] {
            let name = format!("seed {seed}, {workers} workers, {lag} ms");
            let lag = Duration::from_millis(lag);
            let mut play = Play::new(seed, workers, endpoints_per_worker, lag);
            for id in &NAMES[..3] {
                play.join(id);
            }
            for round in 0..3 {
                play.sim.network.lost = 20;
                (0..12).for_each(|_| play.step());
                play.sim.network.lost = 0;
                play.check(&format!("{name}, round {round}"));
            }
            let people: Vec<_> = play.people.keys().copied().collect();
            for id in people {
                play.sim.leave(id);
            }
            assert_tidy(&mut play.sim);
        }
    }
}

/// Nothing of an empty conference is left in any shard but itself.
fn assert_tidy(sim: &mut Simulation) {
    // Timers that were overtaken go when they would have been due.
    sim.run_for(seconds(60));
    let gauges = sim.stats().gauges;
    let left = (
        gauges.endpoints,
        gauges.proved_addresses,
        gauges.user_fragments,
    );
    assert_eq!(left, (0, 0, 0));
    // The part that leads looks around twice a second.
    assert_eq!((gauges.conference_parts, gauges.timers), (1, 1));
    sim.placement.expire_conference(CONFERENCE);
    sim.exchange();
    sim.run_for(seconds(2));
    let gauges = sim.stats().gauges;
    assert_eq!((gauges.conference_parts, gauges.timers), (0, 0));
}

/// A hundred participants, of whom all the time some go and others come, on four
/// workers: there is never more kept than there are participants for.
#[test]
fn many_that_come_and_go_leave_nothing_behind() {
    const PEOPLE: usize = 100;
    let names: Vec<&'static str> = (0..PEOPLE)
        .map(|n| &*Box::leak(format!("p{n}").into_boxed_str()))
        .collect();
    let mut sim = Simulation::spread(31, 4, 32);
    let mut random = SmallRng::seed_from_u64(31);
    let mut there: BTreeMap<&'static str, u8> = BTreeMap::new();
    // A number is used again long after its last owner has left.
    let mut numbers: VecDeque<u8> = (1..=250).collect();
    let mut join = |sim: &mut Simulation, name| {
        let left: Option<u8> = there.get(name).copied();
        numbers.extend(left);
        let number = numbers.pop_front().expect("fewer are there");
        there.insert(name, number);
        // Few send, so that many can be simulated.
        sim.admit(name, number, number.is_multiple_of(25), false);
    };
    for name in &names {
        join(&mut sim, *name);
    }
    for round in 0..200 {
        let name = names[random.random_range(0..PEOPLE)];
        sim.leave(name);
        sim.run_for(Duration::from_millis(100));
        join(&mut sim, name);
        if round % 50 == 49 {
            sim.run_for(seconds(2));
            let gauges = sim.stats().gauges;
            let people = PEOPLE as u32;
            assert_eq!(
                (gauges.endpoints, gauges.conferences),
                (people, 1),
                "{round}"
            );
            assert_eq!(gauges.user_fragments, people, "{round}");
            // Every shard knows of every address.
            assert_eq!(gauges.proved_addresses, 4 * people, "{round}");
            assert!(gauges.timers <= 4 * people, "{round}: {}", gauges.timers);
        }
    }
    for name in names {
        sim.leave(name);
    }
    assert_tidy(&mut sim);
}

#[test]
fn those_who_fall_silent_are_reported_and_dropped() {
    let mut sim = Simulation::new(13);
    sim.join("a", 1);
    sim.join("b", 2);
    sim.run_until(seconds(3));
    // B vanishes without a word.
    let b = sim.clients.remove("b").expect("it was there");
    sim.run_until(seconds(14));
    let status = |active: bool| format!(r#""endpoint":"{}","active":"{active}""#, b.id);
    let a = &sim.clients["a"].messages;
    let told = a.iter().find(|(_, text)| text.contains(&status(false)));
    let (at, _) = told.expect("A was told");
    assert!((seconds(11)..seconds(13)).contains(at), "{at:?}");
    sim.run_until(seconds(190));
    let gone: Vec<_> = sim
        .events
        .iter()
        .filter(|(_, e)| e.contains("gone"))
        .collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert_eq!(gone[0].1, "b has gone: IceFailed");
    assert_eq!(sim.stats().gauges.endpoints, 1);
    assert_eq!(sim.stats().gauges.conferences, 1);
    sim.placement.expire_conference(CONFERENCE);
    sim.exchange();
    sim.run_for(seconds(2));
    assert_eq!(sim.stats().gauges.conferences, 0);
}
