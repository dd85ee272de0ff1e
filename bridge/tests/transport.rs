//! Two transports talk over a simulated network in virtual time: the bridge,
//! and a client that is one, too, with the roles turned round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use viaduct_bridge::command::{
    Candidate, CandidateKind, EndpointSettings, Fingerprint, IceCredentials, RemoteTransport, Setup,
};
use viaduct_bridge::io::certificate;
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::rtp::PacketIndex;
use viaduct_bridge::transport::demux::requested_ufrag;
use viaduct_bridge::transport::srtp::Profile;
use viaduct_bridge::transport::{
    Certificate, Drop, DtlsError, IceError, Output, Received, Transport, candidate_priority,
    local_credentials,
};

const BRIDGE: &str = "10.0.0.1:10000";
const CLIENT: &str = "192.168.1.2:5000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One end, as a shard would hold it.
struct End {
    transport: Transport,
    certificate: Arc<Certificate>,
    credentials: IceCredentials,
    local: Vec<SocketAddr>,
    /// Addresses known to be the peer's: the only ones heard, but for checks.
    bound: BTreeSet<SocketAddr>,
    outputs: Vec<(Duration, Output)>,
    drops: Vec<Drop>,
    media: Vec<(PacketIndex, Vec<u8>)>,
    wakes: u32,
    sent: u32,
}

impl End {
    fn new(now: Instant, seed: u8, controlling: bool, local: &[&str]) -> Self {
        let credentials = local_credentials(seed, &[seed; 24]);
        let local: Vec<_> = local.iter().map(|a| address(a)).collect();
        let settings = EndpointSettings {
            local_ice: credentials.clone(),
            ice_controlling: controlling,
            ice_tie_breaker: u64::from(seed),
            local_candidates: Vec::new(),
            visitor: false,
        };
        let certificate = Arc::new(certificate::generate());
        Self {
            transport: Transport::new(now, &settings, Arc::clone(&certificate), &local),
            certificate,
            credentials,
            local,
            bound: BTreeSet::new(),
            outputs: Vec::new(),
            drops: Vec::new(),
            media: Vec::new(),
            wakes: 0,
            sent: 0,
        }
    }

    /// What this end tells the other.
    fn description(&self, setup: Setup, candidates: &[SocketAddr]) -> RemoteTransport {
        let candidate = |&address: &SocketAddr| Candidate {
            kind: CandidateKind::Host,
            address,
            base: None,
            priority: candidate_priority(CandidateKind::Host, address.ip(), 1),
            foundation: "1".to_owned(),
        };
        RemoteTransport {
            ice: Some(self.credentials.clone()),
            fingerprints: vec![Fingerprint {
                hash: "sha-256".to_owned(),
                bytes: self.certificate.fingerprint(),
                setup,
            }],
            candidates: candidates.iter().map(candidate).collect(),
        }
    }

    fn saw(&self, wanted: impl Fn(&Output) -> bool) -> Option<Duration> {
        let (at, _) = self.outputs.iter().find(|(_, o)| wanted(o))?;
        Some(*at)
    }

    fn connected_at(&self) -> Option<Duration> {
        self.saw(|o| matches!(o, Output::Connected { .. }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Bridge,
    Client,
}

struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

struct World {
    start: Instant,
    now: Instant,
    bridge: End,
    client: End,
    flights: BTreeMap<(Instant, u64), Flight>,
    count: u64,
    delay: Duration,
    /// The client's addresses as the bridge sees them.
    translation: BTreeMap<SocketAddr, SocketAddr>,
    /// Datagrams that get lost, by their number.
    lost: BTreeSet<u64>,
    /// Nothing gets through.
    cut: bool,
    /// Addresses of the bridge from which something left.
    left_from: BTreeSet<SocketAddr>,
}

impl World {
    fn new() -> Self {
        Self::with(true, false, &[BRIDGE], &[CLIENT])
    }

    fn with(
        bridge_controls: bool,
        client_controls: bool,
        bridge: &[&str],
        client: &[&str],
    ) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            bridge: End::new(now, 1, bridge_controls, bridge),
            client: End::new(now, 2, client_controls, client),
            flights: BTreeMap::new(),
            count: 0,
            delay: ms(10),
            translation: BTreeMap::new(),
            lost: BTreeSet::new(),
            cut: false,
            left_from: BTreeSet::new(),
        }
    }

    /// The client gets to know the bridge, and begins.
    fn offer(&mut self) {
        let candidates = self.bridge.local.clone();
        self.offer_with(&candidates);
    }

    fn offer_with(&mut self, candidates: &[SocketAddr]) {
        let offer = self.bridge.description(Setup::Passive, candidates);
        self.client.transport.set_remote(self.now, &offer);
        self.settle(Side::Client);
    }

    /// The bridge gets to know the client, which names no candidates.
    fn answer(&mut self) {
        let answer = self.client.description(Setup::Active, &[]);
        self.bridge.transport.set_remote(self.now, &answer);
        self.settle(Side::Bridge);
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Bridge => &mut self.bridge,
            Side::Client => &mut self.client,
        }
    }

    /// Takes outputs and datagrams of one end.
    fn settle(&mut self, side: Side) {
        let at = self.elapsed();
        let end = self.end(side);
        while let Some(output) = end.transport.poll() {
            match output {
                Output::AddressValidated(address) => assert!(end.bound.insert(address)),
                Output::AddressForgotten(address) => assert!(end.bound.remove(&address)),
                _ => {}
            }
            end.outputs.push((at, output));
        }
        let mut outbox = Outbox::default();
        end.transport.transmit(&mut outbox);
        end.sent += u32::try_from(outbox.entries().len()).expect("few");
        for entry in outbox.entries() {
            self.send(side, entry.from, entry.to, outbox.datagram(entry));
        }
    }

    fn send(&mut self, side: Side, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let number = self.count;
        self.count += 1;
        if self.cut || self.lost.contains(&number) {
            return;
        }
        let (from, to) = match side {
            Side::Client => (self.translation.get(&from).copied().unwrap_or(from), to),
            Side::Bridge => {
                self.left_from.insert(from);
                let translated = self.translation.iter().find(|(_, outside)| **outside == to);
                match translated {
                    Some((inside, _)) => (from, *inside),
                    // The translator has forgotten this address.
                    None if !self.translation.is_empty() => return,
                    None => (from, to),
                }
            }
        };
        let flight = Flight {
            from,
            to,
            datagram: datagram.to_vec(),
        };
        self.flights.insert((self.now + self.delay, number), flight);
    }

    fn deliver(&mut self, flight: Flight) {
        let Flight {
            from,
            to,
            mut datagram,
        } = flight;
        let side = match self.bridge.local.contains(&to) {
            true => Side::Bridge,
            false if self.client.local.contains(&to) => Side::Client,
            false => return,
        };
        let now = self.now;
        let end = self.end(side);
        match requested_ufrag(&datagram) {
            Some(ufrag) if ufrag != end.credentials.ufrag => return,
            None if side == Side::Bridge && !end.bound.contains(&from) => return,
            _ => {}
        }
        match end.transport.handle(now, to, from, &mut datagram) {
            Ok(Received::Rtp(index, packet)) => end.media.push((index, packet.to_vec())),
            Ok(_) => {}
            Err(drop) => end.drops.push(drop),
        }
        self.settle(side);
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let flight = self.flights.keys().next().map(|(at, _)| *at);
            let due =
                [Side::Bridge, Side::Client].map(|side| self.end(side).transport.next_timeout());
            let next = due.into_iter().flatten().chain(flight).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.flights.first_entry()
                && entry.key().0 <= self.now
            {
                let flight = entry.remove();
                self.deliver(flight);
            }
            for side in [Side::Bridge, Side::Client] {
                let now = self.now;
                let end = self.end(side);
                if end.transport.next_timeout().is_some_and(|due| due <= now) {
                    end.wakes += 1;
                    assert!(end.wakes < 100_000, "a timer that never rests");
                    end.transport.handle_timeout(now);
                    self.settle(side);
                }
            }
        }
        self.now = until;
    }

    fn connect(&mut self) {
        self.offer();
        self.answer();
        self.run(ms(500));
        assert!(self.bridge.transport.ready() && self.client.transport.ready());
    }

    /// Sends an RTP packet from one end.
    fn media(&mut self, side: Side, index: u64) {
        let mut packet = vec![128, 96];
        packet.extend_from_slice(&index.to_be_bytes()[6..]);
        packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
        packet.extend_from_slice(b"media");
        let end = self.end(side);
        let Some((from, to)) = end.transport.path() else {
            return;
        };
        end.transport
            .outbound()
            .expect("keys")
            .seal_rtp(PacketIndex(index), &mut packet, 0);
        self.send(side, from, to, &packet);
    }
}

/// Neither end has a candidate of the client's, and nothing is waited for:
/// check and answer, the bridge's check and answer with the ClientHello on its
/// heels, two flights of DTLS.
#[test]
fn the_first_exchange_connects() {
    let mut world = World::new();
    world.offer();
    world.answer();
    world.run(ms(200));
    let bridge = world.bridge.connected_at().expect("the bridge connected");
    let client = world.client.connected_at().expect("the client connected");
    assert!(bridge <= ms(60), "{bridge:?}");
    assert!(client <= ms(70), "{client:?}");
    let profile = Profile::AeadAes256Gcm;
    let connected = Output::Connected { profile };
    assert!(world.bridge.outputs.iter().any(|(_, o)| *o == connected));
    assert_eq!(
        world.bridge.transport.path(),
        Some((address(BRIDGE), address(CLIENT)))
    );
    world.media(Side::Client, 7);
    world.media(Side::Bridge, 1);
    world.run(ms(20));
    assert_eq!(world.bridge.media[0].1[12..], *b"media");
    assert_eq!(world.client.media[0].1[12..], *b"media");
    assert_eq!((world.bridge.drops, world.client.drops), (vec![], vec![]));
}

#[test]
fn checks_that_come_before_the_answer_are_not_lost() {
    let mut world = World::new();
    world.offer();
    world.run(ms(2_990));
    assert!(world.bridge.bound.contains(&address(CLIENT)));
    assert_eq!(world.bridge.sent, 0);
    world.answer();
    world.run(ms(200));
    let bridge = world.bridge.connected_at().expect("connected");
    assert!(bridge <= ms(2_990 + 60), "{bridge:?}");
}

#[test]
fn a_client_hello_waits_for_the_fingerprint() {
    let mut world = World::new();
    world.offer();
    let whole = world.client.description(Setup::Active, &[]);
    let mut ice = whole.clone();
    ice.fingerprints.clear();
    world.bridge.transport.set_remote(world.now, &ice);
    world.settle(Side::Bridge);
    world.run(ms(1_000));
    assert!(world.bridge.transport.path().is_some());
    assert!(!world.bridge.transport.ready());
    world.bridge.transport.set_remote(world.now, &whole);
    world.settle(Side::Bridge);
    world.run(ms(100));
    let bridge = world.bridge.connected_at().expect("connected");
    assert!(bridge <= ms(1_000 + 25), "{bridge:?}");
}

/// The strongest hash counts, whatever else is signalled beside it.
#[test]
fn a_certificate_that_was_not_signalled_is_refused() {
    let fingerprint = |hash: &str, bytes: Vec<u8>| Fingerprint {
        hash: hash.to_owned(),
        bytes,
        setup: Setup::Active,
    };
    let right = |world: &World| world.client.certificate.fingerprint();
    let verdict = |make: &dyn Fn(&World) -> Vec<Fingerprint>| {
        let mut world = World::new();
        world.offer();
        let mut answer = world.client.description(Setup::Active, &[]);
        answer.fingerprints = make(&world);
        world.bridge.transport.set_remote(world.now, &answer);
        world.settle(Side::Bridge);
        world.run(ms(500));
        let failed = Output::DtlsFailed(DtlsError::Fingerprint);
        let refused = world.bridge.outputs.iter().any(|(_, o)| *o == failed);
        if refused {
            assert!(world.bridge.transport.outbound().is_none());
            assert!(!world.client.transport.ready());
        }
        assert_ne!(refused, world.bridge.transport.ready());
        !refused
    };
    assert!(!verdict(&|_| vec![fingerprint("sha-256", vec![7; 32])]));
    assert!(!verdict(&|w| vec![fingerprint("md5", right(w))]));
    assert!(!verdict(&|w| vec![
        fingerprint("sha-256", right(w)),
        fingerprint("sha-512", vec![7; 64]),
    ]));
    assert!(verdict(&|w| vec![
        fingerprint("sha-1", vec![7; 20]),
        fingerprint("sha-256", vec![7; 32]),
        fingerprint("SHA-256", right(w)),
    ]));
}

#[test]
fn silence_ends_consent_and_a_sign_of_life_renews_it() {
    let mut world = World::new();
    world.connect();
    world.run(ms(10_000));
    let check = intercept(&mut world, Side::Client).remove(0).datagram;
    let before = world.elapsed();
    world.cut = true;
    world.run(ms(20_000));
    let failed = world.bridge.saw(|o| *o == Output::IceFailed);
    let after = failed.expect("failed") - before;
    assert!(ms(11_500) <= after && after <= ms(15_100), "{after:?}");
    assert_eq!(world.bridge.transport.path(), None);
    assert!(!world.bridge.transport.ready());
    world.cut = false;
    world.bridge.outputs.clear();
    world.send(Side::Client, address(CLIENT), address(BRIDGE), &check);
    world.run(ms(3_500));
    assert!(world.bridge.connected_at().is_some());
    assert!(world.bridge.transport.ready());
}

#[test]
fn a_shorter_consent_can_be_chosen() {
    let mut world = World::new();
    world.bridge.transport.set_consent_timeout(ms(7_000));
    world.connect();
    world.cut = true;
    world.run(ms(7_500));
    assert!(world.bridge.saw(|o| *o == Output::IceFailed).is_some());
}

/// A translator gives the client a new address in mid-call: the client's next
/// check makes it known, its media then takes the bridge's along.
#[test]
fn the_path_follows_the_client_to_a_new_address() {
    let mut world = World::new();
    world.connect();
    let new = address("203.0.113.7:61000");
    let mut moved = None;
    for index in 0..400 {
        if index == 100 {
            world.translation.insert(address(CLIENT), new);
        }
        world.media(Side::Client, index);
        world.run(ms(20));
        if moved.is_none() && world.bridge.transport.path() == Some((address(BRIDGE), new)) {
            moved = Some((index - 100) * 20);
        }
    }
    // Checks are 3 s apart.
    let moved = moved.expect("the path moved");
    assert!(moved <= 3_200, "{moved} ms");
    assert!(world.bridge.transport.ready());
    assert!(world.bridge.saw(|o| *o == Output::IceFailed).is_none());
    world.client.media.clear();
    world.media(Side::Bridge, 5);
    world.run(ms(20));
    assert_eq!(world.client.media.len(), 1);
}

/// Without media only checks tell of the new address.
#[test]
fn a_silent_path_is_left() {
    let mut world = World::new();
    world.connect();
    world.run(ms(5_000));
    let new = address("203.0.113.7:61000");
    world.translation.insert(address(CLIENT), new);
    world.run(ms(12_000));
    assert_eq!(world.bridge.transport.path(), Some((address(BRIDGE), new)));
    assert!(world.bridge.saw(|o| *o == Output::IceFailed).is_none());
}

#[test]
fn a_role_conflict_resolves_itself() {
    for (bridge, client) in [(true, true), (false, false), (false, true)] {
        let mut world = World::with(bridge, client, &[BRIDGE], &[CLIENT]);
        world.offer();
        world.answer();
        world.run(ms(1_500));
        assert!(world.bridge.transport.ready(), "{bridge} {client}");
        assert!(world.client.transport.ready(), "{bridge} {client}");
    }
}

/// The client knows only one address, and not the first: what it gets comes
/// from there.
#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let bridges = [BRIDGE, "10.0.0.2:10000", "[fd00::1]:10000"];
    let mut world = World::with(true, false, &bridges, &[CLIENT]);
    world.offer_with(&[address(bridges[1])]);
    world.answer();
    world.run(ms(10_000));
    assert!(world.bridge.transport.ready());
    let (from, _) = world.bridge.transport.path().expect("a path");
    assert_eq!(from, address(bridges[1]));
    assert_eq!(world.left_from, BTreeSet::from([address(bridges[1])]));
}

#[test]
fn ipv6_serves_as_well() {
    let (bridge, client) = ("[2001:db8::1]:10000", "[2001:db8:1::2]:5000");
    let mut world = World::with(true, false, &[BRIDGE, bridge], &[client]);
    world.offer();
    world.answer();
    world.run(ms(300));
    assert_eq!(
        world.bridge.transport.path(),
        Some((address(bridge), address(client)))
    );
    assert!(world.bridge.transport.ready());
}

/// Whatever two datagrams of the first are lost, they are soon made up for.
#[test]
fn losses_delay_but_do_not_prevent() {
    for first in 0..14 {
        for second in first..14 {
            let mut world = World::new();
            world.lost = BTreeSet::from([first, second]);
            world.offer();
            world.answer();
            world.run(ms(1_500));
            assert!(world.bridge.transport.ready(), "{first} {second}");
            assert!(world.client.transport.ready(), "{first} {second}");
        }
    }
}

#[test]
fn without_a_handshake_the_client_is_given_up() {
    let mut world = World::new();
    let mut offer = world.bridge.description(Setup::Passive, &[address(BRIDGE)]);
    offer.fingerprints.clear();
    world.client.transport.set_remote(world.now, &offer);
    world.settle(Side::Client);
    world.answer();
    world.run(ms(29_000));
    let failed = Output::DtlsFailed(DtlsError::Timeout);
    assert_eq!(world.bridge.saw(|o| *o == failed), None);
    world.run(ms(2_000));
    assert!(world.bridge.saw(|o| *o == failed).is_some());
}

#[test]
fn application_data_goes_both_ways() {
    let mut world = World::new();
    world.connect();
    let now = world.now;
    world.bridge.transport.send_application_data(now, b"down");
    world.settle(Side::Bridge);
    world.client.transport.send_application_data(now, b"up");
    world.settle(Side::Client);
    world.run(ms(20));
    let got = |end: &End, data: &[u8]| {
        let wanted = Output::ApplicationData(data.to_vec());
        end.outputs.iter().any(|(_, o)| *o == wanted)
    };
    assert!(got(&world.client, b"down"));
    assert!(got(&world.bridge, b"up"));
}

/// What one end sends next, taken off the wire.
fn intercept(world: &mut World, side: Side) -> Vec<Flight> {
    for _ in 0..1000 {
        let due = world.end(side).transport.next_timeout().expect("a timer");
        world.run((due - world.now).saturating_sub(ms(1)));
        world.now += ms(1);
        let now = world.now;
        world.end(side).transport.handle_timeout(now);
        let mut outbox = Outbox::default();
        world.end(side).transport.transmit(&mut outbox);
        if !outbox.is_empty() {
            return outbox
                .entries()
                .iter()
                .map(|entry| Flight {
                    from: entry.from,
                    to: entry.to,
                    datagram: outbox.datagram(entry).to_vec(),
                })
                .collect();
        }
    }
    panic!("nothing was sent");
}

/// A client that guesses the password.
#[test]
fn a_check_with_a_wrong_password_gets_no_answer() {
    for known in [false, true] {
        let mut world = World::new();
        if known {
            world.answer();
        }
        let mut offer = world.bridge.description(Setup::Passive, &[address(BRIDGE)]);
        offer.ice.as_mut().expect("credentials").pwd = "a".repeat(26);
        world.client.transport.set_remote(world.now, &offer);
        world.settle(Side::Client);
        world.run(ms(100));
        assert!(!world.bridge.drops.is_empty());
        let unauthenticated = Drop::Stun(IceError::Unauthenticated);
        assert!(world.bridge.drops.iter().all(|d| *d == unauthenticated));
        assert_eq!(world.bridge.sent, 0);
        assert!(world.bridge.outputs.is_empty());
    }
}

/// Checks with one signature from ever new addresses, as a client with a grudge
/// could send them.
#[test]
fn addresses_of_one_client_are_bounded() {
    let mut world = World::new();
    world.connect();
    let check = intercept(&mut world, Side::Client).remove(0).datagram;
    let mut refused = 0;
    for port in 1..2000 {
        let from = SocketAddr::from(([198, 51, 100, 1], port));
        let now = world.now;
        let transport = &mut world.bridge.transport;
        if let Err(drop) = transport.handle(now, address(BRIDGE), from, &mut check.clone()) {
            assert_eq!(drop, Drop::Stun(IceError::TooManyAddresses));
            refused += 1;
        }
        world.settle(Side::Bridge);
    }
    assert_eq!(world.bridge.bound.len(), 32);
    assert_eq!(refused, 1999 - 31);
    // Those that fell silent make room again, and the call goes on.
    for round in 0..20u8 {
        world.run(ms(31_000));
        for port in 1..20 {
            let from = SocketAddr::from(([198, 51, 100, round], port));
            let now = world.now;
            let transport = &mut world.bridge.transport;
            let mut check = check.clone();
            let outcome = transport.handle(now, address(BRIDGE), from, &mut check);
            assert!(outcome.is_ok(), "{round} {port}");
            world.settle(Side::Bridge);
        }
    }
    assert!(world.bridge.bound.len() <= 32);
    assert!(world.bridge.transport.ready());
    assert!(world.bridge.saw(|o| *o == Output::IceFailed).is_none());
}

#[test]
fn an_answer_counts_once_and_only_from_where_it_was_asked() {
    let mut world = World::new();
    world.connect();
    let check = intercept(&mut world, Side::Bridge);
    let Flight { from, to, datagram } = &check[0];
    let now = world.now;
    let client = &mut world.client.transport;
    client
        .handle(now, *to, *from, &mut datagram.clone())
        .expect("a check of the bridge");
    let mut outbox = Outbox::default();
    client.transmit(&mut outbox);
    let answer = outbox.datagram(&outbox.entries()[0]).to_vec();
    assert_eq!(answer[..2], [1, 1]);
    let mut handle = |from: &str, mut answer: Vec<u8>| {
        world
            .bridge
            .transport
            .handle(now, address(BRIDGE), address(from), &mut answer)
            .map(|_| ())
    };
    let unexpected = Err(Drop::Stun(IceError::Unexpected));
    assert_eq!(handle("192.168.1.2:5001", answer.clone()), unexpected);
    let mut forged = answer.clone();
    forged[30] ^= 1;
    let unauthenticated = Err(Drop::Stun(IceError::Unauthenticated));
    assert_eq!(handle(CLIENT, forged), unauthenticated);
    assert_eq!(handle(CLIENT, answer.clone()), Ok(()));
    assert_eq!(handle(CLIENT, answer), unexpected);
}

#[test]
fn rubbish_is_dropped_by_cause() {
    let mut world = World::new();
    let now = world.now;
    let mut handle = |datagram: &[u8]| {
        let transport = &mut world.bridge.transport;
        let result = transport
            .handle(
                now,
                address(BRIDGE),
                address(CLIENT),
                &mut datagram.to_vec(),
            )
            .map(|_| ());
        assert_eq!(transport.poll(), None);
        let mut outbox = Outbox::default();
        transport.transmit(&mut outbox);
        assert!(outbox.is_empty());
        result
    };
    assert_eq!(handle(&[]), Err(Drop::Unknown));
    assert_eq!(handle(&[64; 100]), Err(Drop::Unknown));
    assert_eq!(handle(&[22; 100]), Err(Drop::UnknownAddress));
    assert_eq!(handle(&[128; 100]), Err(Drop::NotReady));
    assert_eq!(handle(&[128, 200, 0, 0]), Err(Drop::NotReady));
    let malformed = handle(&[0; 100]);
    assert!(matches!(malformed, Err(Drop::Stun(IceError::Malformed(_)))));
}

/// DTLS rubbish from the client's own address does not disturb a call.
#[test]
fn rubbish_records_do_not_end_a_call() {
    let mut world = World::new();
    world.connect();
    let mut random = 1u32;
    for len in 1..1500 {
        let mut datagram: Vec<u8> = (0..len)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                random.to_be_bytes()[0]
            })
            .collect();
        datagram[0] = [20, 21, 22, 23][len % 4];
        if len > 3 && len % 2 == 0 {
            datagram[1..3].copy_from_slice(&[254, 253]);
        }
        let now = world.now;
        let transport = &mut world.bridge.transport;
        let _ = transport.handle(now, address(BRIDGE), address(CLIENT), &mut datagram);
        world.settle(Side::Bridge);
    }
    world.run(ms(5_000));
    assert!(world.bridge.transport.ready());
    world.media(Side::Client, 9);
    world.run(ms(20));
    assert_eq!(world.bridge.media.len(), 1);
}

/// A steady state costs a check each way every 3 s, and a timer for it.
#[test]
fn an_idle_client_is_cheap() {
    let mut world = World::new();
    world.connect();
    world.run(ms(10_000));
    (world.bridge.wakes, world.bridge.sent) = (0, 0);
    world.run(ms(60_000));
    assert!(world.bridge.wakes <= 25, "{} wakes", world.bridge.wakes);
    assert!(world.bridge.sent <= 45, "{} datagrams", world.bridge.sent);
}

#[path = "../fuzz/transport.rs"]
mod fuzz;

/// The corpus of the fuzz target `transport`.
#[test]
fn nothing_fuzzing_ever_found_comes_back() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/transport");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        fuzz::conversation(&bytes);
        files += 1;
    }
    assert!(files > 0);
}

proptest! {
    /// Steps of the fuzz target, most of them close to sense.
    #[test]
    fn no_conversation_is_a_surprise(
        steps in vec((any::<u8>(), 0u8..5, 0u8..5, 0usize..6, vec(any::<u8>(), 0..24)), 1..40),
    ) {
        let mut bytes = Vec::new();
        for (what, port, place, body, noise) in steps {
            let mut datagram = match body {
                // ICE-CONTROLLED, ICE-CONTROLLING, USE-CANDIDATE,
                // XOR-MAPPED-ADDRESS, a DTLS record: then noise.
                0 => vec![0x80, 0x29, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
                1 => vec![0x80, 0x2a, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
                2 => vec![0, 0x25, 0, 0],
                3 => vec![0, 0x20, 0, 8, 0, 1, 0x32, 0x12, 0xe1, 0x12, 0xa6, 0x43],
                4 => vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 1, 0, 0, 12],
                _ => vec![],
            };
            datagram.extend_from_slice(&noise);
            datagram.resize(datagram.len().next_multiple_of(8), 0);
            let units = u8::try_from(datagram.len() / 8).expect("short");
            bytes.extend_from_slice(&[what, port, units, place]);
            bytes.extend_from_slice(&datagram);
        }
        fuzz::conversation(&bytes);
    }
}
