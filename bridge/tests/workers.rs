//! Several workers on one port, with real sockets: the kernel gives a datagram
//! to any of them, and whoever it is for gets it.

#[path = "server/start.rs"]
mod start;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use start::start;
use viaduct_bridge::command::{
    Candidate, CandidateKind, EndpointSettings, Fingerprint, RemoteTransport, Setup,
};
use viaduct_bridge::io::certificate;
use viaduct_bridge::io::control::{Bridge, WorkerFigures};
use viaduct_bridge::io::udp::replaces_safely;
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::rtp::{PacketIndex, RtpPacket};
use viaduct_bridge::stats::DropCause;
use viaduct_bridge::transport::{Output, Received, Transport, local_credentials};
use viaduct_bridge::view::{self, Subject};
use viaduct_signalling::colibri2::{self, Capability, ConferenceModify, Endpoint, capability};
use viaduct_signalling::{jingle, xml};

const WORKERS: usize = 4;
const CLIENTS: u8 = 12;
/// Conferences are spread as far as they can be.
const SPREAD: &str = "viaduct.bridge.endpoints-per-worker = 1";

fn modify(bridge: &Bridge, meeting: &str, create: bool, endpoint: Endpoint) -> Option<Endpoint> {
    let request = ConferenceModify {
        create,
        endpoints: vec![endpoint],
        ..ConferenceModify::new(meeting)
    };
    let answer = bridge.colibri(|c| c.handle(Instant::now(), &request));
    answer.expect("an answer").endpoints.pop()
}

/// What a participant negotiates and sends: Opus, under its number as SSRC.
fn media(id: &str, number: u8) -> Endpoint {
    let text = format!(
        "<endpoint xmlns='jitsi:colibri2' id='{id}'>
          <media type='audio'><payload-type xmlns='urn:xmpp:jingle:apps:rtp:1' id='111'
           name='opus' clockrate='48000' channels='2'/></media>
          <sources><media-source type='audio' id='{id}-a0'>
           <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='{number}'/>
          </media-source></sources>
         </endpoint>"
    );
    let element = xml::parse(text.as_bytes()).expect("a test's XML");
    xml::from_element(element).expect("an endpoint")
}

/// Lets all work until `done`.
fn run(clients: &mut [Client], mut done: impl FnMut(&mut [Client]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done(clients) {
        clients.iter_mut().for_each(Client::turn);
        let connected = clients.iter().filter(|client| client.connected).count();
        assert!(Instant::now() < deadline, "{connected} connected");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One peer, with a socket of its own.
struct Client {
    socket: UdpSocket,
    number: u8,
    address: SocketAddr,
    transport: Transport,
    connected: bool,
    /// What came of each SSRC: sequence numbers, in the order of arrival.
    heard: BTreeMap<u32, Vec<u16>>,
}

impl Client {
    /// Joins, as the first if `create`.
    fn join(bridge: &Bridge, meeting: &str, create: bool, number: u8) -> Self {
        let id = format!("endpoint-{number}");
        let endpoint = Endpoint {
            create: true,
            transport: Some(colibri2::Transport::default()),
            capabilities: vec![Capability {
                name: capability::SOURCE_NAMES.into(),
            }],
            ..Endpoint::new(&id)
        };
        let answer = modify(bridge, meeting, create, endpoint).expect("an endpoint");
        let theirs = answer.transport.and_then(|t| t.ice_udp).expect("ICE");

        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("bound");
        let host = |address| Candidate {
            kind: CandidateKind::Host,
            address,
            base: None,
            priority: 1,
            foundation: "1".into(),
        };
        let own = Arc::new(certificate::generate());
        let local_ice = local_credentials(0, &[number; 24]);
        let settings = EndpointSettings {
            local_ice: local_ice.clone(),
            ice_controlling: true,
            ice_tie_breaker: u64::from(number),
            local_candidates: vec![host(address)],
            visitor: false,
        };
        let now = Instant::now();
        let mut transport = Transport::new(now, &settings, own.clone(), &[address]);
        let candidate = &theirs.candidates[0];
        let bridge_address = SocketAddr::new(
            candidate
                .ip
                .as_ref()
                .and_then(|ip| ip.parse().ok())
                .expect("an address"),
            candidate.port.expect("a port"),
        );
        transport.set_remote(
            now,
            &RemoteTransport {
                ice: Some(viaduct_bridge::command::IceCredentials {
                    ufrag: theirs.ufrag.clone().expect("a fragment"),
                    pwd: theirs.pwd.clone().expect("a password"),
                }),
                fingerprints: vec![Fingerprint {
                    hash: "sha-256".into(),
                    bytes: theirs.fingerprints[0].bytes().expect("hexadecimal"),
                    setup: Setup::Passive,
                }],
                candidates: vec![host(bridge_address)],
            },
        );
        let ours = jingle::Transport {
            ufrag: Some(local_ice.ufrag),
            pwd: Some(local_ice.pwd),
            fingerprints: vec![jingle::Fingerprint {
                hash: "sha-256".into(),
                setup: Some(jingle::transport::Setup::Active),
                value: jingle::Fingerprint::text(&own.fingerprint()),
                ..jingle::Fingerprint::default()
            }],
            ..jingle::Transport::default()
        };
        let update = Endpoint {
            transport: Some(colibri2::Transport {
                ice_udp: Some(ours),
                ..colibri2::Transport::default()
            }),
            ..media(&id, number)
        };
        modify(bridge, meeting, false, update);
        Self {
            socket,
            number,
            address,
            transport,
            connected: false,
            heard: BTreeMap::new(),
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            let datagram = &mut buffer[..len];
            let received = self.transport.handle(now, self.address, from, datagram);
            if let Received::Rtp(_, packet) = received.expect("the bridge sends what can be read") {
                let packet = RtpPacket::parse(packet).expect("it sends RTP");
                let heard = self.heard.entry(packet.ssrc().0).or_default();
                heard.push(packet.sequence_number());
            }
        }
        self.transport.handle_timeout(now);
        while let Some(output) = self.transport.poll() {
            self.connected |= matches!(output, Output::Connected { .. });
        }
        let mut outbox = Outbox::default();
        self.transport.transmit(&mut outbox);
        self.flush(outbox);
    }

    /// Sends an audio packet of this sequence number.
    fn speak(&mut self, number: u16) {
        let mut packet = vec![0x80, 111];
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&(u32::from(number) * 960).to_be_bytes());
        packet.extend_from_slice(&u32::from(self.number).to_be_bytes());
        packet.extend_from_slice(&[7; 100]);
        let mut outbox = Outbox::default();
        let (from, to) = self.transport.path().expect("it is connected");
        let srtp = self.transport.outbound().expect("it is connected");
        outbox.write(from, to, |arena, start| {
            arena.extend_from_slice(&packet);
            srtp.seal_rtp(PacketIndex(u64::from(number)), arena, start);
            true
        });
        self.flush(outbox);
    }

    fn flush(&self, outbox: Outbox) {
        for entry in outbox.entries() {
            self.socket
                .send_to(outbox.datagram(entry), entry.to)
                .expect("room");
        }
    }
}

#[test]
fn peers_reach_their_worker_through_any_other() {
    let (bridge, _runtime) = start("workers", WORKERS, SPREAD);
    let join = |number: u8| Client::join(&bridge, &format!("meeting-{number}"), true, number);
    let mut clients: Vec<_> = (1..=CLIENTS).map(join).collect();
    // Every conference is on one worker; each has as many as the next.
    let spread = [u32::from(CLIENTS) / WORKERS as u32; WORKERS];
    run(&mut clients, |clients| {
        let workers = bridge.workers();
        let endpoints = workers.iter().map(|w| w.shard.gauges.endpoints);
        clients.iter().all(|client| client.connected) && endpoints.eq(spread)
    });
    assert_eq!(bridge.unhealthy(), None);
    let workers = bridge.workers();
    let handed: u64 = workers
        .iter()
        .map(|w| w.shard.counters.datagrams_handed_over)
        .sum();
    // Of twelve peers, chance puts three at their worker's socket; all twelve
    // it does once in 16 million runs.
    assert!(handed > 0, "{handed}");
    for cause in [
        DropCause::HandoverFull,
        DropCause::UnknownAddress,
        DropCause::UnknownUfrag,
    ] {
        assert!(
            workers.iter().all(|w| w.shard.counters.drops[cause] == 0),
            "{cause:?}"
        );
    }
}

#[test]
fn a_conference_on_four_workers_loses_nothing_between_them() {
    const PEOPLE: u8 = 8;
    const PACKETS: u16 = 200;
    let (bridge, runtime) = start("split", WORKERS, SPREAD);
    let join = |number: u8| Client::join(&bridge, "meeting", number == 1, number);
    let mut clients: Vec<_> = (1..=PEOPLE).map(join).collect();
    run(&mut clients, |clients| {
        clients.iter().all(|client| client.connected)
    });
    // The bridge may learn later than a peer that it is connected.
    let mut number = 0;
    run(&mut clients, |clients| {
        number += 1;
        clients.iter_mut().for_each(|client| client.speak(number));
        clients
            .iter()
            .all(|client| client.heard.len() == usize::from(PEOPLE) - 1)
    });
    let first = number + 1;
    let mut next = first;
    run(&mut clients, |clients| {
        // No more on the way than a socket has room for, however slow the machine.
        let heard = || clients.iter().flat_map(|client| client.heard.values());
        let slowest = heard().filter_map(|heard| heard.last()).min();
        if next < first + PACKETS && slowest.is_some_and(|slowest| next < slowest + 10) {
            clients.iter_mut().for_each(|client| client.speak(next));
            next += 1;
        }
        let last = Some(&(first + PACKETS - 1));
        let all = clients.iter().flat_map(|client| client.heard.values());
        all.clone().all(|heard| heard.last() == last)
    });
    for client in &clients {
        for (ssrc, heard) in &client.heard {
            let settled: Vec<u16> = heard.iter().copied().filter(|n| *n >= first).collect();
            assert!(
                settled.iter().copied().eq(first..first + PACKETS),
                "{ssrc}: {settled:?}"
            );
        }
    }
    let published = |w: &WorkerFigures| w.shard.counters.packets_published;
    run(&mut clients, |_| {
        bridge.workers().iter().all(|w| published(w) > 0)
    });
    let workers = bridge.workers();
    let lost = [DropCause::PublishFull, DropCause::UnwantedPublished];
    assert!(
        workers
            .iter()
            .all(|w| lost.iter().all(|cause| w.shard.counters.drops[*cause] == 0))
    );
    // What was forwarded on any of them took its time there, and all of it is in
    // the histogram: nothing was resent.
    run(&mut clients, |_| {
        let workers = bridge.workers();
        let measured = workers.iter().map(|w| w.own.forward_delays.count());
        let sent = workers.iter().map(|w| w.shard.counters.packets_sent);
        measured.eq(sent)
    });
    let parts: u32 = workers
        .iter()
        .map(|w| w.shard.gauges.conference_parts)
        .sum();
    assert_eq!(parts, WORKERS as u32);
    let ask = |conference, subject| runtime.block_on(bridge.describe(conference, &subject));
    let conference = bridge.colibri(|colibri| colibri.find("meeting"));
    let conference = conference.expect("it is there");
    let (parts, missing) = ask(conference, Subject::Conference);
    assert_eq!((parts.len(), missing), (WORKERS, 0));
    let speakers: Vec<_> = parts
        .iter()
        .filter_map(|part| part.speakers.clone())
        .collect();
    assert_eq!(speakers.len(), 1);
    assert_eq!(speakers[0].order.len(), usize::from(PEOPLE));
    let described = parts.into_iter().flat_map(|part| part.endpoints);
    let described: BTreeMap<String, view::Endpoint> = described.collect();
    assert_eq!(described.len(), usize::from(PEOPLE));
    for client in &clients {
        let id = format!("endpoint-{}", client.number);
        let endpoint = &described[&id];
        assert_eq!(endpoint.ice_transport.state, "connected");
        assert_eq!(endpoint.ice_transport.remote, Some(client.address));
        assert!(endpoint.dtls_transport.srtp_profile.is_some());
        let source = &endpoint.sources[&format!("{id}-a0")];
        assert_eq!(source.encodings[0].ssrc, u32::from(client.number));
        assert!(source.encodings[0].silent_ms.is_some());
        let receives = endpoint.receives.as_ref().expect("few enough");
        assert_eq!(receives.len(), usize::from(PEOPLE) - 1);
        for received in receives.values() {
            assert_eq!(received.not_sent, None);
            assert!(received.packets_sent >= u32::from(PACKETS));
        }
        let (parts, _) = ask(conference, Subject::Endpoint(id.as_str().into()));
        let alone: Vec<_> = parts
            .iter()
            .flat_map(|part| part.endpoints.keys())
            .collect();
        assert_eq!(alone, [&id]);
    }
    let nowhere = viaduct_bridge::id::ConferenceId(conference.0 ^ 1);
    assert_eq!(ask(nowhere, Subject::Conference), (Vec::new(), 0));
    assert_eq!(bridge.shard_stats().gauges.conferences, 1);
    assert_eq!(
        bridge.shard_stats().gauges.largest_conference,
        u32::from(PEOPLE)
    );
}

/// A kernel that knows whose a datagram is takes it there itself.
#[test]
fn once_addresses_are_known_hardly_anything_is_handed_over() {
    const ENOUGH: u64 = 1000;
    if !replaces_safely() {
        return;
    }
    let (bridge, _runtime) = start("steered", WORKERS, SPREAD);
    let join = |number: u8| Client::join(&bridge, &format!("meeting-{number}"), true, number);
    let mut clients: Vec<_> = (1..=CLIENTS).map(join).collect();
    run(&mut clients, |clients| {
        clients.iter().all(|client| client.connected)
    });
    let mut number = 0;
    let mut mark = (0, 0);
    run(&mut clients, |clients| {
        number += 1;
        clients
            .iter_mut()
            .filter(|client| client.transport.path().is_some())
            .for_each(|client| client.speak(number));
        let counters = bridge.shard_stats().counters;
        let received = counters.packets_received;
        let handed_over = counters.datagrams_handed_over;
        let unchanged = handed_over == mark.1;
        if !unchanged {
            mark = (received, handed_over);
        }
        unchanged && handed_over > 0 && received >= mark.0 + ENOUGH
    });
}
