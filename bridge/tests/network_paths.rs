//! Real sockets of a bridge with several addresses: IPv4 and IPv6 at once,
//! answers from the address that was asked, and a client whose address changes.

#[path = "simulation/client/mod.rs"]
#[allow(dead_code, reason = "simulated calls look at more of it")]
mod client;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use client::signalled::{BridgeSide, credentials, fingerprint, host, video_media, video_source};
use viaduct_bridge::command::{
    Command, ConferenceSettings, EndpointSettings, EndpointUpdate, RemoteTransport, Setup,
};
use viaduct_bridge::id::{ChannelId, ConferenceId, EndpointId, MemberId};
use viaduct_bridge::io::certificate;
use viaduct_bridge::io::udp::{Feedback, Sockets};
use viaduct_bridge::peers::Site;
use viaduct_bridge::rtp::Ssrc;
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::shard::Shard;
use viaduct_bridge::transport::Certificate;

const CONFERENCE: ConferenceId = ConferenceId(1);

/// A client with a socket of its own, which hears one address of the bridge
/// only: the kernel drops what comes from another.
struct Peer {
    client: Client,
    socket: UdpSocket,
    bridge: SocketAddr,
}

impl Peer {
    /// Another socket, as if a translator had forgotten the first.
    fn move_elsewhere(&mut self) {
        self.socket = socket(self.bridge);
    }

    fn pictures(&self, of: Ssrc) -> usize {
        self.client
            .tracks
            .get(&of)
            .map_or(0, |track| track.video.len())
    }
}

fn socket(bridge: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(bridge.ip(), 0)).expect("a free port");
    socket.connect(bridge).expect("a local address");
    socket.set_nonblocking(true).expect("it can be");
    socket
}

/// A shard on real sockets, and its clients, in real time.
struct Call {
    start: Instant,
    sockets: Sockets,
    shard: Shard,
    certificate: Arc<Certificate>,
    locals: Vec<SocketAddr>,
    peers: Vec<Peer>,
}

impl Call {
    /// `None` where this machine lacks one of the addresses.
    fn new(addresses: &[&str]) -> Option<Self> {
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        if addresses
            .iter()
            .any(|address| UdpSocket::bind(address).is_err())
        {
            return None;
        }
        let sockets = Sockets::open(&addresses, 1, true)
            .expect("free ports")
            .remove(0);
        let locals = sockets.locals().collect();
        let certificate = Arc::new(certificate::generate());
        let start = Instant::now();
        let mut shard = Shard::new(
            Site::ALONE,
            ShardSettings::default(),
            Arc::clone(&certificate),
        );
        let create = Command::CreateConference {
            conference: CONFERENCE,
            settings: Box::new(ConferenceSettings {
                created: start,
                audio_feedback: Ssrc(1),
                video_feedback: Ssrc(2),
                lead: 0,
                members: Vec::new(),
            }),
        };
        shard.handle_command(start, create);
        Some(Self {
            start,
            sockets,
            shard,
            certificate,
            locals,
            peers: Vec::new(),
        })
    }

    /// A client joins that knows only the bridge's address number `at`.
    fn join(&mut self, id: &'static str, number: u8, at: usize) {
        let now = Instant::now();
        let bridge = BridgeSide {
            ice: credentials(100 + number),
            fingerprint: self.certificate.fingerprint(),
            address: self.locals[at],
        };
        let settings = EndpointSettings {
            local_ice: bridge.ice.clone(),
            ice_controlling: true,
            ice_tie_breaker: 1,
            local_candidates: self.locals.iter().copied().map(host).collect(),
            visitor: false,
        };
        self.command(Command::CreateEndpoint {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            member: MemberId(u64::from(number)),
            settings: Box::new(settings),
        });
        let own = Arc::new(certificate::generate());
        let theirs = own.fingerprint();
        let socket = socket(bridge.address);
        let address = socket.local_addr().expect("it is bound");
        let client = Client::at(address, now, self.start, id, number, own, &bridge);
        let update = EndpointUpdate {
            media: Some(vec![video_media()]),
            transport: Some(RemoteTransport {
                ice: Some(credentials(number)),
                fingerprints: vec![fingerprint(theirs, Setup::Active)],
                candidates: Vec::new(),
            }),
            sources: Some(vec![video_source(&client)]),
            ..EndpointUpdate::default()
        };
        self.peers.push(Peer {
            client,
            socket,
            bridge: bridge.address,
        });
        self.command(Command::UpdateEndpoint {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            update: Box::new(update),
        });
        let channel = ChannelId(u64::from(number));
        self.command(Command::ChannelOpened {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            channel,
        });
        self.command(Command::ChannelMessage {
            conference: CONFERENCE,
            endpoint: EndpointId::from(id),
            channel,
            text: r#"{"colibriClass":"ReceiverVideoConstraints","defaultConstraints":{"maxHeight":180}}"#.to_owned(),
        });
    }

    fn command(&mut self, command: Command) {
        self.shard.handle_command(Instant::now(), command);
    }

    /// Goes on until `done`, for ten seconds at most. Whether it was done.
    fn run_until(&mut self, done: impl Fn(&[Peer]) -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while !done(&self.peers) {
            if Instant::now() >= end {
                return false;
            }
            self.turn();
        }
        true
    }

    fn turn(&mut self) {
        self.sockets
            .wait(Instant::now(), Duration::from_millis(1), Feedback::Wakes);
        let (now, shard) = (Instant::now(), &mut self.shard);
        self.sockets.receive(256, |local, from, datagram| {
            // Nobody's until a check has come from that address.
            let _ = shard.handle_datagram(now, local, from, datagram);
        });
        shard.handle_timeout(now);
        self.sockets.send(shard.outbox());
        shard.take_events().for_each(drop);
        for peer in &mut self.peers {
            let mut datagram = [0; 2048];
            while let Ok(len) = peer.socket.recv(&mut datagram) {
                peer.client
                    .handle_datagram(now, peer.bridge, &mut datagram[..len]);
            }
            peer.client.handle_timeout(now);
            peer.client.take_datagrams(|_, to, datagram| {
                assert_eq!(to, peer.bridge);
                // Refused while the other side has no socket there (ICMP).
                let _ = peer.socket.send(datagram);
            });
        }
    }
}

/// Each of two peers has so many packets of the other's video.
fn both_see(peers: &[Peer], packets: usize) -> bool {
    let [a, b] = peers else {
        panic!("a call of two")
    };
    a.pictures(b.client.primary()) >= packets && b.pictures(a.client.primary()) >= packets
}

#[test]
fn a_call_between_ipv4_and_ipv6() {
    let Some(mut call) = Call::new(&["127.0.0.1:0", "[::1]:0"]) else {
        eprintln!("no IPv6 here");
        return;
    };
    call.join("a", 1, 0);
    call.join("b", 2, 1);
    assert!(call.peers[0].bridge.is_ipv4() && call.peers[1].bridge.is_ipv6());
    assert!(call.run_until(|peers| both_see(peers, 100)));
}

/// Each client hears one address of the bridge only, and is not the one the
/// bridge would choose by itself.
#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let call = Call::new(&["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"]);
    let mut call = call.expect("all of 127.0.0.0/8 is this machine");
    call.join("a", 1, 1);
    call.join("b", 2, 2);
    assert!(call.run_until(|peers| both_see(peers, 100)));
}

/// As when a translator on the way gives a client another port in mid-call.
#[test]
fn media_follows_a_client_whose_socket_changes() {
    let mut call = Call::new(&["127.0.0.1:0"]).expect("IPv4");
    call.join("a", 1, 0);
    call.join("b", 2, 0);
    assert!(call.run_until(|peers| both_see(peers, 50)));
    let before = call.peers[1].pictures(call.peers[0].client.primary());
    call.peers[1].move_elsewhere();
    let enough = |peers: &[Peer]| both_see(peers, before + 100);
    let moved = Instant::now();
    assert!(call.run_until(enough), "media did not follow");
    assert!(moved.elapsed() < Duration::from_secs(9));
}
