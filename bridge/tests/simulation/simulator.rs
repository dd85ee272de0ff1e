//! One simulated conference: the shards it is spread over, its clients and the
//! network between them, each woken at its time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use viaduct_bridge::command::{
    Command, EndpointSettings, EndpointUpdate, Event, Media, RemoteTransport, Setup,
};
use viaduct_bridge::directory::Misdirected;
use viaduct_bridge::id::{ChannelId, ConferenceId, EndpointId, MemberId};
use viaduct_bridge::peers::{PeerMessage, Published, Site};
use viaduct_bridge::placement::Placement;
use viaduct_bridge::rtp::Ssrc;
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::shard::Shard;
use viaduct_bridge::stats::ShardStats;
use viaduct_bridge::transport::{Certificate, local_credentials};
use viaduct_bridge::view::{Part, Subject};

use crate::client::signalled::{BridgeSide, credentials, fingerprint, host, media, sources};
use crate::client::{Client, Track};
use crate::network::Network;

pub(crate) const CONFERENCE: ConferenceId = ConferenceId(1);

pub(crate) fn bridge_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 10_000))
}

fn certificate() -> Arc<Certificate> {
    Arc::new(viaduct_bridge::io::certificate::generate())
}

/// One run.
pub(crate) struct Simulation {
    start: Instant,
    pub(crate) now: Instant,
    /// The kernel gives a datagram to any of them.
    pub(crate) shards: Vec<Shard>,
    pub(crate) placement: Placement,
    members: BTreeMap<&'static str, MemberId>,
    certificate: Arc<Certificate>,
    pub(crate) network: Network,
    pub(crate) clients: BTreeMap<&'static str, Client>,
    pub(crate) channels: u64,
    pub(crate) events: Vec<(Duration, String)>,
    /// What clients negotiate from now on.
    pub(crate) media: Vec<Media>,
    /// How long it takes until a shard hears of what another tells it.
    pub(crate) lag: Duration,
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
    pub(crate) fn new(seed: u64) -> Self {
        Self::spread(seed, 2, 1)
    }

    /// So many workers, with at most so many endpoints each, if there is room.
    pub(crate) fn spread(seed: u64, workers: usize, endpoints_per_worker: usize) -> Self {
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
    pub(crate) fn command(&mut self, command: Command) {
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

    pub(crate) fn update(&mut self, id: &'static str, update: EndpointUpdate) {
        self.placement
            .update_endpoint(CONFERENCE, self.members[id], update);
        self.exchange();
    }

    /// A client joins as the focus would let it: the endpoint first, the
    /// client's answer with its sources a little later.
    pub(crate) fn join(&mut self, id: &'static str, number: u8) {
        self.join_as(id, number, true);
    }

    pub(crate) fn join_as(&mut self, id: &'static str, number: u8, sends: bool) {
        self.admit(id, number, sends, false);
        self.open_channel(id);
    }

    /// Opens a WebSocket.
    pub(crate) fn open_channel(&mut self, id: &'static str) -> ChannelId {
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
    pub(crate) fn admit(&mut self, id: &'static str, number: u8, sends: bool, dials: bool) {
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

    pub(crate) fn leave(&mut self, id: &'static str) -> Client {
        let member = self.members.remove(id).expect("it was there");
        self.placement.expire_endpoint(CONFERENCE, member);
        self.exchange();
        self.clients.remove(id).expect("it was there")
    }

    pub(crate) fn say(&mut self, id: &'static str, text: &str) {
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

    pub(crate) fn want(&mut self, id: &'static str, height: i32) {
        let text = format!(
            r#"{{"colibriClass":"ReceiverVideoConstraints","lastN":-1,"defaultConstraints":{{"maxHeight":{height}}}}}"#
        );
        self.say(id, &text);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn run_until(&mut self, elapsed: Duration) {
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

    pub(crate) fn run_for(&mut self, duration: Duration) {
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
    pub(crate) fn receive(&mut self, from: SocketAddr, datagram: &mut [u8]) {
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
    pub(crate) fn exchange(&mut self) {
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
                    Event::Stats(_) | Event::Homes(_) => {}
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

    /// What all shards tell of their parts, put together.
    pub(crate) fn describe(&mut self, subject: &Subject) -> Part {
        let mut whole = Part::default();
        for shard in &mut self.shards {
            shard.handle_command(
                self.now,
                Command::Describe {
                    conference: CONFERENCE,
                    query: 7,
                    subject: subject.clone(),
                },
            );
            let described = shard.take_events().find_map(|event| match event {
                Event::Described { query: 7, part } => Some(*part),
                _ => None,
            });
            let part = described.expect("an answer");
            whole.endpoints.extend(part.endpoints);
            assert!(whole.speakers.is_none() || part.speakers.is_none());
            whole.speakers = whole.speakers.or(part.speakers);
        }
        whole
    }

    /// The figures of all shards.
    pub(crate) fn stats(&self) -> ShardStats {
        let mut sum = ShardStats::default();
        for shard in &self.shards {
            sum.add(&shard.stats(self.now));
        }
        sum
    }

    pub(crate) fn track(&self, receiver: &str, sender: &str) -> &Track {
        let ssrc = self.clients[sender].primary();
        &self.clients[receiver].tracks[&ssrc]
    }
}
