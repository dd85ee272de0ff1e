//! Conferences in virtual time: a shard, synthetic clients and a seeded network
//! in one thread. Minutes take milliseconds, and a run repeats exactly.

mod association;
mod channels;
mod churn;
mod client;
mod data_channel;
mod network;
mod paths;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{BridgeSide, Client, ENCODINGS, Seen, Track, credentials, fingerprint, host};
use network::Network;
use viaduct_bridge::command::{
    Codec, Command, Encoding, EndpointSettings, EndpointUpdate, Event, Feedback, ForceMute,
    HeaderExtension, Media, MediaType, Payload, RemoteTransport, Setup, Source, VideoType,
};
use viaduct_bridge::directory::Misdirected;
use viaduct_bridge::id::{ChannelId, ConferenceId, EndpointId, MemberId, SourceName};
use viaduct_bridge::peers::{PeerMessage, Published, Site};
use viaduct_bridge::placement::Placement;
use viaduct_bridge::rtp::{PayloadType, Ssrc, extension};
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::shard::Shard;
use viaduct_bridge::stats::{DropCause, ShardStats};
use viaduct_bridge::transport::{Certificate, local_credentials};

const CONFERENCE: ConferenceId = ConferenceId(1);

fn bridge_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 10_000))
}

fn certificate() -> Arc<Certificate> {
    Arc::new(viaduct_bridge::io::certificate::generate())
}

/// One run.
struct Simulation {
    start: Instant,
    now: Instant,
    /// The kernel gives a datagram to any of them.
    shards: Vec<Shard>,
    placement: Placement,
    members: BTreeMap<&'static str, MemberId>,
    certificate: Arc<Certificate>,
    network: Network,
    clients: BTreeMap<&'static str, Client>,
    channels: u64,
    events: Vec<(Duration, String)>,
    /// What clients negotiate from now on.
    media: Vec<Media>,
    /// How long it takes until a shard hears of what another tells it.
    lag: Duration,
    told: VecDeque<(Instant, Told)>,
}

/// What one shard tells another.
enum Told {
    Message {
        from: usize,
        to: usize,
        message: PeerMessage,
    },
    Published {
        to: usize,
        head: Published,
        packet: Vec<u8>,
    },
}

impl Simulation {
    /// A conference that is split as far as it can be: each endpoint but the
    /// first has some of the others on another shard.
    fn new(seed: u64) -> Self {
        Self::spread(seed, 2, 1)
    }

    /// So many workers, with at most so many endpoints each, if there is room.
    fn spread(seed: u64, workers: usize, endpoints_per_worker: usize) -> Self {
        let start = Instant::now();
        let certificate = certificate();
        let shard = |number| {
            let site = Site {
                number,
                count: workers,
                ufrag_prefix: 0,
            };
            Shard::new(site, ShardSettings::default(), certificate.clone())
        };
        let mut sim = Self {
            start,
            now: start,
            shards: (0..workers).map(shard).collect(),
            placement: Placement::new(workers, endpoints_per_worker),
            members: BTreeMap::new(),
            certificate: certificate.clone(),
            network: Network::new(
                seed,
                start,
                Duration::from_millis(20),
                Duration::from_millis(40),
            ),
            clients: BTreeMap::new(),
            channels: 0,
            events: Vec::new(),
            media: media(),
            lag: Duration::ZERO,
            told: VecDeque::new(),
        };
        sim.placement
            .create_conference(start, CONFERENCE, Ssrc(1), Ssrc(2));
        sim.exchange();
        sim
    }

    /// Word of a WebSocket, for the shard of its endpoint.
    fn command(&mut self, command: Command) {
        self.dispatch();
        let (Command::ChannelOpened { endpoint, .. }
        | Command::ChannelMessage { endpoint, .. }
        | Command::ChannelClosed { endpoint, .. }) = &command
        else {
            panic!("the placement makes {command:?}");
        };
        let home = self.placement.home(CONFERENCE, self.members[&*endpoint.0]);
        let shard = &mut self.shards[home.expect("it is there")];
        shard.handle_command(self.now, command);
        self.exchange();
    }

    fn update(&mut self, id: &'static str, update: EndpointUpdate) {
        self.placement
            .update_endpoint(CONFERENCE, self.members[id], update);
        self.exchange();
    }

    /// A client joins as the focus would let it: the endpoint first, the
    /// client's answer with its sources a little later.
    fn join(&mut self, id: &'static str, number: u8) {
        self.join_as(id, number, true);
    }

    fn join_as(&mut self, id: &'static str, number: u8, sends: bool) {
        self.admit(id, number, sends, false);
        self.open_channel(id);
    }

    /// Opens a WebSocket.
    fn open_channel(&mut self, id: &'static str) -> ChannelId {
        self.channels += 1;
        let channel = ChannelId(self.channels);
        let opened = Command::ChannelOpened {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            channel,
        };
        self.command(opened);
        channel
    }

    /// Lets a client join without a bridge channel; it may dial one itself.
    fn admit(&mut self, id: &'static str, number: u8, sends: bool, dials: bool) {
        let home = self.placement.next_home(CONFERENCE);
        let bridge = BridgeSide {
            ice: local_credentials(home as u8, &[number; 24]),
            fingerprint: self.certificate.fingerprint(),
            address: bridge_address(),
        };
        let settings = Box::new(EndpointSettings {
            local_ice: bridge.ice.clone(),
            ice_controlling: true,
            ice_tie_breaker: 1,
            local_candidates: vec![host(bridge.address)],
            visitor: false,
        });
        let placement = &mut self.placement;
        let member = placement.create_endpoint(CONFERENCE, id.into(), home, settings);
        self.members.insert(id, member);
        self.exchange();
        let own = certificate();
        let their_fingerprint = own.fingerprint();
        let mut client = Client::new(self.now, self.start, id, number, own, &bridge);
        client.sends = sends;
        client.dials = dials;
        let sources = sources(&client);
        self.clients.insert(id, client);
        self.run_for(Duration::from_millis(50));
        self.update(
            id,
            EndpointUpdate {
                media: Some(self.media.clone()),
                transport: Some(RemoteTransport {
                    ice: Some(credentials(number)),
                    fingerprints: vec![fingerprint(their_fingerprint, Setup::Active)],
                    candidates: Vec::new(),
                }),
                sources: sends.then_some(sources),
                data_channel: dials,
                ..EndpointUpdate::default()
            },
        );
    }

    fn leave(&mut self, id: &'static str) -> Client {
        let member = self.members.remove(id).expect("it was there");
        self.placement.expire_endpoint(CONFERENCE, member);
        self.exchange();
        self.clients.remove(id).expect("it was there")
    }

    fn say(&mut self, id: &'static str, text: &str) {
        let number = self.clients[id].number;
        let message = Command::ChannelMessage {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            // Channels are numbered as the clients joined.
            channel: ChannelId(u64::from(number)),
            text: text.to_owned(),
        };
        self.command(message);
    }

    fn want(&mut self, id: &'static str, height: i32) {
        let text = format!(
            r#"{{"colibriClass":"ReceiverVideoConstraints","lastN":-1,"defaultConstraints":{{"maxHeight":{height}}}}}"#
        );
        self.say(id, &text);
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn run_until(&mut self, elapsed: Duration) {
        let end = self.start + elapsed;
        loop {
            let clients = self.clients.values().filter_map(Client::next_timeout);
            let next = clients
                .chain(self.network.next_timeout())
                .chain(self.shards.iter_mut().filter_map(Shard::next_timeout))
                .chain(self.told.front().map(|(at, _)| *at))
                .min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
            self.turn();
        }
        self.now = end;
    }

    fn run_for(&mut self, duration: Duration) {
        self.run_until(self.elapsed() + duration);
    }

    fn turn(&mut self) {
        while let Some(mut transit) = self.network.deliver(self.now) {
            if transit.to == bridge_address() {
                self.receive(transit.from, &mut transit.datagram);
            } else if let Some(client) = self.clients.values_mut().find(|c| c.address == transit.to)
            {
                client.handle_datagram(self.now, transit.from, &mut transit.datagram);
            }
        }
        self.settle();
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
        }
        for client in self.clients.values_mut() {
            client.handle_timeout(self.now);
        }
        self.exchange();
    }

    /// A datagram comes to the bridge, at the socket of some worker.
    fn receive(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        let (now, local) = (self.now, bridge_address());
        let first = usize::from(from.port()) % self.shards.len();
        let first = &mut self.shards[first];
        match first.handle_datagram(now, local, from, datagram) {
            Ok(()) => {}
            Err(Misdirected::Shard(owner)) => {
                let owner = &mut self.shards[owner];
                if let Err(cause) = owner.handle_handed_over(now, local, from, datagram) {
                    owner.count_drop(cause);
                }
            }
            Err(Misdirected::Nobody(cause)) => first.count_drop(cause),
        }
        self.settle();
    }

    /// Hands out what the registry decided.
    fn dispatch(&mut self) {
        for dispatch in self.placement.take_dispatches() {
            self.shards[dispatch.worker].handle_command(self.now, dispatch.command);
        }
    }

    /// Lets the shards tell each other what there is to tell, until all is said.
    fn settle(&mut self) {
        self.tell_peers();
        loop {
            for shard in &mut self.shards {
                shard.tell_homes(self.now);
            }
            if !self.tell_peers() {
                break;
            }
        }
        for shard in &mut self.shards {
            shard.tell_senders(self.now);
        }
    }

    /// Whether anything was told.
    fn tell_peers(&mut self) -> bool {
        let mut told_any = false;
        loop {
            let at = self.now + self.lag;
            for (from, shard) in self.shards.iter_mut().enumerate() {
                let peers = shard.peers();
                for (to, message) in peers.take_messages() {
                    let told = Told::Message { from, to, message };
                    self.told.push_back((at, told));
                }
                peers.take_published(|shards, head, packet| {
                    for to in shards.iter() {
                        let (head, packet) = (head.clone(), packet.to_vec());
                        let told = Told::Published { to, head, packet };
                        self.told.push_back((at, told));
                    }
                });
            }
            let due = self.told.front().is_some_and(|(at, _)| *at <= self.now);
            let next = if due { self.told.pop_front() } else { None };
            let Some((_, told)) = next else {
                return told_any;
            };
            told_any = true;
            match told {
                Told::Message { from, to, message } => {
                    self.shards[to].handle_peer(self.now, from, message);
                }
                Told::Published { to, head, packet } => {
                    self.shards[to].handle_published(self.now, head, &packet);
                }
            }
        }
    }

    /// Takes what the shards and the clients have to send.
    fn exchange(&mut self) {
        self.dispatch();
        self.settle();
        let (now, network) = (self.now, &mut self.network);
        for shard in &mut self.shards {
            let outbox = shard.outbox();
            for entry in outbox.entries() {
                network.send(now, entry.from, entry.to, outbox.datagram(entry));
            }
            outbox.clear();
        }
        for client in self.clients.values_mut() {
            client.take_datagrams(|from, to, datagram| network.send(now, from, to, datagram));
        }
        let mut expired = Vec::new();
        for shard in &mut self.shards {
            for event in shard.take_events() {
                match event {
                    Event::EndpointExpired { member, reason, .. } => {
                        let id = self.members.iter().find(|(_, m)| **m == member);
                        let id = *id.expect("it was there").0;
                        let at = now - self.start;
                        self.events.push((at, format!("{id} has gone: {reason:?}")));
                        expired.push(id);
                    }
                    Event::ChannelSend { endpoint, text, .. } => {
                        if let Some(client) = self.clients.get_mut(&*endpoint.0) {
                            client.handle_message(now, &text);
                        }
                    }
                    Event::Stats(_) => {}
                    other => self.events.push((now - self.start, format!("{other:?}"))),
                }
            }
        }
        for id in expired {
            let member = self.members.remove(id).expect("it was there");
            self.placement.expire_endpoint(CONFERENCE, member);
            self.exchange();
        }
    }

    /// The figures of all shards.
    fn stats(&self) -> ShardStats {
        let mut sum = ShardStats::default();
        for shard in &self.shards {
            sum.add(&shard.stats(self.now));
        }
        sum
    }

    fn track(&self, receiver: &str, sender: &str) -> &Track {
        let ssrc = self.clients[sender].primary();
        &self.clients[receiver].tracks[&ssrc]
    }
}

fn media() -> Vec<Media> {
    let payload = |number, codec, clock_rate| Payload {
        payload_type: PayloadType(number),
        codec,
        clock_rate,
        feedback: Feedback {
            nack: true,
            pli: true,
            transport_cc: true,
            ..Feedback::default()
        },
    };
    let extension = |id, uri: &str| HeaderExtension {
        id,
        uri: uri.to_owned(),
    };
    let apt = PayloadType(client::VP8);
    vec![
        Media {
            media_type: MediaType::Audio,
            payload_types: vec![payload(client::OPUS, Codec::Opus, 48_000)],
            header_extensions: vec![extension(client::AUDIO_LEVEL, extension::AUDIO_LEVEL)],
        },
        Media {
            media_type: MediaType::Video,
            payload_types: vec![
                payload(client::VP8, Codec::Vp8, 90_000),
                payload(client::VP8_RTX, Codec::Rtx { apt }, 90_000),
            ],
            header_extensions: vec![extension(client::TRANSPORT_CC, extension::TRANSPORT_CC)],
        },
    ]
}

fn sources(client: &Client) -> Vec<Source> {
    let source = |media_type, suffix: &str, encodings| Source {
        name: SourceName::from(format!("{}-{suffix}", client.id).as_str()),
        media_type,
        video_type: VideoType::Camera,
        encodings,
    };
    let video = client.video_ssrcs();
    let video = video.into_iter().map(|(primary, rtx)| Encoding {
        primary,
        rtx: Some(rtx),
    });
    let audio = Encoding {
        primary: client.audio_ssrc(),
        rtx: None,
    };
    vec![
        source(MediaType::Audio, "a0", vec![audio]),
        source(MediaType::Video, "v0", video.collect()),
    ]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

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
fn encodings(track: &Track) -> Vec<(Duration, u8)> {
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
