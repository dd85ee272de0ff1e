//! The participants' transport and the bridge's, two independent
//! implementations, against each other in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use viaduct_bridge::command::{
    EndpointSettings, Fingerprint, IceCredentials, RemoteTransport, Setup,
};
use viaduct_bridge::io::certificate;
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::rtp::PacketIndex;
use viaduct_bridge::transport::{Certificate, Received as AtBridge, Transport as Bridge};
use viaduct_loadtest::client::transport::{
    Identity, Profiles, Progress, Received, Remote, Transport as Client,
};

const BRIDGE: &str = "127.0.0.1:10000";
const CLIENT: &str = "127.0.0.1:40000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

struct Pair {
    now: Instant,
    bridge: Bridge,
    client: Client,
    outbox: Outbox,
}

impl Pair {
    /// Both ends as after offer and answer; each may be told a fingerprint
    /// that is not the other's.
    fn new(client_believes: Option<Vec<u8>>, bridge_believes: Option<Vec<u8>>) -> Self {
        let now = Instant::now();
        let certificate: Arc<Certificate> = Arc::new(certificate::generate());
        let ours = IceCredentials {
            ufrag: "bridge01".to_owned(),
            pwd: "0123456789abcdefghijklmn".to_owned(),
        };
        let settings = EndpointSettings {
            local_ice: ours.clone(),
            ice_controlling: true,
            ice_tie_breaker: 7,
            local_candidates: Vec::new(),
            visitor: false,
        };
        let mut bridge = Bridge::new(now, &settings, certificate.clone(), &[address(BRIDGE)]);
        let identity = Identity::generate(Profiles::default()).expect("a certificate");
        let remote = Remote {
            ufrag: ours.ufrag,
            pwd: ours.pwd,
            candidates: vec![address(BRIDGE)],
            fingerprint: client_believes.unwrap_or_else(|| certificate.fingerprint()),
        };
        let client = Client::new(now, &identity, address(CLIENT), &remote).expect("a transport");
        let (ufrag, pwd) = client.local_credentials();
        let told = RemoteTransport {
            ice: Some(IceCredentials {
                ufrag: ufrag.to_owned(),
                pwd: pwd.to_owned(),
            }),
            fingerprints: vec![Fingerprint {
                hash: "sha-256".to_owned(),
                bytes: bridge_believes.unwrap_or_else(|| identity.fingerprint().to_vec()),
                setup: Setup::Active,
            }],
            candidates: Vec::new(),
        };
        bridge.set_remote(now, &told);
        Self {
            now,
            bridge,
            client,
            outbox: Outbox::default(),
        }
    }

    /// One millisecond, in which every datagram arrives.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        if self
            .client
            .next_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.client.handle_timeout(self.now);
        }
        self.bridge.handle_timeout(self.now);
        loop {
            let mut quiet = true;
            while let Some((to, datagram)) = self.client.poll_transmit() {
                quiet = false;
                assert_eq!(to, address(BRIDGE));
                let mut datagram = datagram.to_vec();
                let (local, from) = (address(BRIDGE), address(CLIENT));
                if let Err(drop) = self.bridge.handle(self.now, local, from, &mut datagram) {
                    panic!("the bridge dropped a datagram: {drop}");
                }
            }
            while self.bridge.poll().is_some() {}
            self.bridge.transmit(&mut self.outbox);
            for entry in self.outbox.entries() {
                quiet = false;
                let datagram = self.outbox.datagram(entry);
                self.client.handle(self.now, address(BRIDGE), datagram);
            }
            self.outbox.clear();
            if quiet {
                return;
            }
        }
    }

    fn connect(&mut self, within: Duration) -> bool {
        let until = self.now + within;
        while self.now < until {
            self.step();
            if self.bridge.ready() && self.client.progress() == Progress::Ready {
                return true;
            }
        }
        false
    }
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 100, 0, 0, 0, 0, 0, 9, 0, 0, 0, 42];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(b"a payload of some length");
    packet
}

#[test]
fn media_flows_both_ways_between_independent_stacks() {
    let mut pair = Pair::new(None, None);
    assert!(
        pair.connect(Duration::from_secs(5)),
        "not connected within 5 s"
    );
    assert!(pair.client.profile().is_some());
    for sequence in [65_534u16, 65_535, 0, 1] {
        let plain = rtp(sequence);
        assert!(pair.client.send_rtp(&plain));
        let (_, sealed) = pair.client.poll_transmit().expect("a datagram");
        assert_ne!(sealed[12..], plain[12..]);
        let mut sealed = sealed.to_vec();
        let (local, from) = (address(BRIDGE), address(CLIENT));
        match pair.bridge.handle(pair.now, local, from, &mut sealed) {
            Ok(AtBridge::Rtp(_, opened)) => assert_eq!(opened, &plain),
            other => panic!("{other:?}"),
        }
        let index = if sequence > 1 {
            u64::from(sequence)
        } else {
            0x1_0000 + u64::from(sequence)
        };
        let mut packet = plain.clone();
        let outbound = pair.bridge.outbound().expect("keys");
        outbound.seal_rtp(PacketIndex(index), &mut packet, 0);
        match pair.client.handle(pair.now, address(BRIDGE), &packet) {
            Received::Rtp(opened) => assert_eq!(opened, plain),
            other => panic!("{other:?}"),
        }
    }
    let report: Vec<u8> = [&[0x80, 201, 0, 1][..], &42u32.to_be_bytes()].concat();
    assert!(pair.client.send_rtcp(&report));
    let (_, sealed) = pair.client.poll_transmit().expect("a datagram");
    let mut sealed = sealed.to_vec();
    match pair
        .bridge
        .handle(pair.now, address(BRIDGE), address(CLIENT), &mut sealed)
    {
        Ok(AtBridge::Rtcp(opened)) => assert_eq!(opened, &report),
        other => panic!("{other:?}"),
    }
    let mut packet = report.clone();
    pair.bridge
        .outbound()
        .expect("keys")
        .seal_rtcp(&mut packet, 0);
    match pair.client.handle(pair.now, address(BRIDGE), &packet) {
        Received::Rtcp(opened) => assert_eq!(opened, report),
        other => panic!("{other:?}"),
    }
}

/// Consent is renewed for as long as both are there.
#[test]
fn a_quiet_connection_stays() {
    let mut pair = Pair::new(None, None);
    assert!(pair.connect(Duration::from_secs(5)));
    for _ in 0..60_000 {
        pair.step();
    }
    assert!(pair.bridge.ready() && pair.client.progress() == Progress::Ready);
}

#[test]
fn a_bridge_with_another_certificate_is_refused() {
    let mut pair = Pair::new(Some(vec![1; 32]), None);
    assert!(!pair.connect(Duration::from_secs(3)));
    assert_ne!(pair.client.progress(), Progress::Ready);
}

#[test]
fn a_participant_with_another_certificate_is_refused() {
    let mut pair = Pair::new(None, Some(vec![1; 32]));
    pair.connect(Duration::from_secs(3));
    assert!(!pair.bridge.ready());
}
