//! Several workers on one port, with real sockets: the kernel gives a datagram
//! to any of them, and whoever it is for gets it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use viaduct_bridge::command::{
    Candidate, CandidateKind, EndpointSettings, Fingerprint, RemoteTransport, Setup,
};
use viaduct_bridge::config::Config;
use viaduct_bridge::io::control::{Bridge, handle_events};
use viaduct_bridge::io::udp::Sockets;
use viaduct_bridge::io::{certificate, program};
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::stats::DropCause;
use viaduct_bridge::transport::{Output, Transport, local_credentials};
use viaduct_signalling::colibri2::{self, Capability, ConferenceModify, Endpoint, capability};
use viaduct_signalling::jingle;

const WORKERS: usize = 4;
const CLIENTS: u8 = 12;

fn start() -> (Arc<Bridge>, tokio::runtime::Runtime) {
    let media = UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let path = std::env::temp_dir().join(format!("viaduct-workers-{}.conf", std::process::id()));
    let text = format!(
        "videobridge {{ ice.udp.port = {media}, health.require-valid-address = false }}
         ice4j.harvest.allowed-addresses = [ 127.0.0.1 ]"
    );
    std::fs::write(&path, text).expect("a temporary file");
    let config = Config::load(&path).expect("a test's configuration");
    std::fs::remove_file(&path).expect("the file just written");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let bases = [SocketAddr::from((Ipv4Addr::LOCALHOST, media))];
    let sockets = Sockets::open(&bases, WORKERS).expect("a free port");
    let (bridge, reports) = program::start(config, &bases, sockets).expect("a bridge");
    runtime.spawn(handle_events(Arc::clone(&bridge), reports));
    (bridge, runtime)
}

fn modify(bridge: &Bridge, meeting: &str, create: bool, endpoint: Endpoint) -> Option<Endpoint> {
    let request = ConferenceModify {
        create,
        endpoints: vec![endpoint],
        ..ConferenceModify::new(meeting)
    };
    let answer = bridge.colibri(|c| c.handle(Instant::now(), &request));
    answer.expect("an answer").endpoints.pop()
}

/// One peer, with a socket of its own.
struct Client {
    socket: UdpSocket,
    address: SocketAddr,
    transport: Transport,
    connected: bool,
}

impl Client {
    fn join(bridge: &Bridge, number: u8) -> Self {
        let meeting = format!("meeting-{number}");
        let endpoint = Endpoint {
            create: true,
            transport: Some(colibri2::Transport::default()),
            capabilities: vec![Capability {
                name: capability::SOURCE_NAMES.into(),
            }],
            ..Endpoint::new("a")
        };
        let answer = modify(bridge, &meeting, true, endpoint).expect("an endpoint");
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
            ..Endpoint::new("a")
        };
        modify(bridge, &meeting, false, update);
        Self {
            socket,
            address,
            transport,
            connected: false,
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.transport
                .handle(now, self.address, from, &mut buffer[..len])
                .expect("the bridge sends what can be read");
        }
        self.transport.handle_timeout(now);
        while let Some(output) = self.transport.poll() {
            self.connected |= matches!(output, Output::Connected { .. });
        }
        let mut outbox = Outbox::default();
        self.transport.transmit(&mut outbox);
        for entry in outbox.entries() {
            self.socket
                .send_to(outbox.datagram(entry), entry.to)
                .expect("room");
        }
    }
}

#[test]
fn peers_reach_their_worker_through_any_other() {
    let (bridge, _runtime) = start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::join(&bridge, n)).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Every conference is on one worker; each has as many as the next.
    let spread = [u32::from(CLIENTS) / WORKERS as u32; WORKERS];
    loop {
        clients.iter_mut().for_each(Client::turn);
        let all = clients.iter().all(|client| client.connected);
        let endpoints: Vec<_> = bridge
            .workers()
            .iter()
            .map(|w| w.shard.gauges.endpoints)
            .collect();
        if all && endpoints == spread {
            break;
        }
        let connected = clients.iter().filter(|client| client.connected).count();
        assert!(
            Instant::now() < deadline,
            "{connected} connected, {endpoints:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(bridge.unhealthy(), None);
    let workers = bridge.workers();
    let handed: u64 = workers
        .iter()
        .map(|w| w.shard.counters.datagrams_handed_over)
        .sum();
    let received: u64 = workers.iter().map(|w| w.sockets.received).sum();
    // Of twelve peers, chance puts three at their worker's socket; all twelve
    // it does once in 16 million runs.
    assert!(handed > 0 && handed < received, "{handed} of {received}");
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
