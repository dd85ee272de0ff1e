//! The cost of a forwarded packet in a shard: everything but the kernel's part.
//! One sender of VP8 simulcast, 49 receivers of its top layer. `cargo bench`
//! prints nanoseconds and allocations a packet; under valgrind, which counts only
//! what [`turn`] does, `tests/instructions` gets the number of instructions.
//!
//! Then what a datagram costs that comes alone, for 10 receivers, when nothing of
//! the bridge is in the CPU's own caches: how it is when few packets come.

#[allow(dead_code)]
#[path = "../tests/simulation/client/mod.rs"]
mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use client::signalled::{BridgeSide, credentials, fingerprint, host, video_media, video_source};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use viaduct_bridge::command::{
    Command, ConferenceSettings, EndpointSettings, EndpointUpdate, RemoteTransport, Setup,
};
use viaduct_bridge::id::{ChannelId, ConferenceId, EndpointId, MemberId};
use viaduct_bridge::io::certificate::generate;
use viaduct_bridge::peers::Site;
use viaduct_bridge::rtp::Ssrc;
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::shard::Shard;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const CONFERENCE: ConferenceId = ConferenceId(1);
const ENDPOINTS: u8 = 50;
const COLD_ENDPOINTS: u8 = 11;
/// Octets that are written between two datagrams: more than the caches of a CPU
/// that it shares with no other.
const TRASH: usize = 8 << 20;
/// Time of the conference, in which real time has no part, and how much of it
/// passes until all is up and caches have their size.
const SECONDS: u64 = 12;
const WARM_UP: Duration = Duration::from_secs(4);
const BRIDGE: ([u8; 4], u16) = ([198, 51, 100, 1], 10_000);

fn main() {
    warm();
    // Without meaning where instructions are counted.
    if std::env::args().any(|argument| argument == "--bench") {
        cold();
    }
}

fn warm() {
    let (mut shard, mut clients, start) = conference(ENDPOINTS);
    let mut spent = Duration::ZERO;
    let (mut packets, mut allocations) = (0, 0);
    let mut now = start;
    while now < start + Duration::from_secs(SECONDS) {
        let mut datagrams = sent_by(&mut clients, now);
        if now < start + WARM_UP {
            handle(&mut shard, now, &mut datagrams);
        } else {
            let sent = shard.stats(now).counters.packets_sent;
            let (begin, region) = (Instant::now(), Region::new(ALLOCATOR));
            turn(&mut shard, now, &mut datagrams);
            spent += begin.elapsed();
            allocations += region.change().allocations;
            packets += shard.stats(now).counters.packets_sent - sent;
        }
        deliver(&mut shard, &mut clients, now);
        now += Duration::from_millis(5);
    }
    let nanos = spent.as_nanos() as f64 / packets as f64;
    let allocations = allocations as f64 / packets as f64;
    println!(
        "forward/vp8_1_to_49: {packets} packets, {nanos:.0} ns and {allocations:.4} allocations each"
    );
}

fn cold() {
    let (mut shard, mut clients, start) = conference(COLD_ENDPOINTS);
    let mut trash = vec![0u8; TRASH];
    let mut times = Vec::new();
    let mut now = start;
    while now < start + Duration::from_secs(SECONDS) {
        let mut datagrams = sent_by(&mut clients, now);
        if now < start + WARM_UP {
            handle(&mut shard, now, &mut datagrams);
            deliver(&mut shard, &mut clients, now);
            datagrams.clear();
        }
        for datagram in &mut datagrams {
            let sent = shard.stats(now).counters.packets_sent;
            for line in trash.chunks_mut(64) {
                line[0] = line[0].wrapping_add(1);
            }
            let begin = Instant::now();
            handle(&mut shard, now, std::slice::from_mut(datagram));
            let spent = begin.elapsed();
            if shard.stats(now).counters.packets_sent == sent + u64::from(COLD_ENDPOINTS) - 1 {
                times.push(spent.as_nanos());
            }
            deliver(&mut shard, &mut clients, now);
        }
        now += Duration::from_millis(5);
    }
    times.sort_unstable();
    println!(
        "forward/vp8_1_to_10_cold: {} datagrams, {} ns each (a quarter less than {}, a quarter more than {})",
        times.len(),
        times[times.len() / 2],
        times[times.len() / 4],
        times[times.len() * 3 / 4],
    );
}

/// What the clients send at `now`.
fn sent_by(clients: &mut [Client], now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut datagrams = Vec::new();
    for client in clients {
        client.handle_timeout(now);
        client.take_datagrams(|from, _, datagram| datagrams.push((from, datagram.to_vec())));
    }
    datagrams
}

/// What is measured, under a name that a profiler can find.
#[inline(never)]
fn turn(shard: &mut Shard, now: Instant, datagrams: &mut [(SocketAddr, Vec<u8>)]) {
    handle(shard, now, datagrams);
}

fn handle(shard: &mut Shard, now: Instant, datagrams: &mut [(SocketAddr, Vec<u8>)]) {
    for (from, datagram) in datagrams {
        shard
            .handle_datagram(now, BRIDGE.into(), *from, datagram)
            .expect("all endpoints are here");
    }
    shard.handle_timeout(now);
    shard.tell_senders(now);
}

/// Hands what the shard sent to those who need it to stay there: of media, only
/// the sender's.
fn deliver(shard: &mut Shard, clients: &mut [Client], now: Instant) {
    let outbox = shard.outbox();
    for entry in outbox.entries() {
        let control = outbox.datagram(entry)[0] < 128;
        let client = clients.iter_mut().find(|c| c.address == entry.to);
        if let Some(client) = client
            && (control || client.sends)
        {
            client.handle_datagram(now, entry.from, &mut outbox.datagram(entry).to_vec());
        }
    }
    outbox.clear();
    shard.take_events().for_each(drop);
}

/// A shard with a conference whose members are about to connect.
fn conference(endpoints: u8) -> (Shard, Vec<Client>, Instant) {
    let certificate = Arc::new(generate());
    let start = Instant::now();
    let mut shard = Shard::new(Site::ALONE, ShardSettings::default(), certificate.clone());
    shard.handle_command(
        start,
        Command::CreateConference {
            conference: CONFERENCE,
            settings: Box::new(ConferenceSettings {
                created: start,
                audio_feedback: Ssrc(1),
                video_feedback: Ssrc(2),
                lead: 0,
                members: Vec::new(),
            }),
        },
    );
    let mut clients = Vec::new();
    for number in 1..=endpoints {
        let name: &'static str = Box::leak(format!("endpoint{number}").into_boxed_str());
        let id = EndpointId::from(name);
        let bridge = BridgeSide {
            ice: credentials(100 + number),
            fingerprint: certificate.fingerprint(),
            address: BRIDGE.into(),
        };
        let settings = EndpointSettings {
            local_ice: bridge.ice.clone(),
            ice_controlling: true,
            ice_tie_breaker: 1,
            local_candidates: vec![host(bridge.address)],
            visitor: false,
        };
        shard.handle_command(
            start,
            Command::CreateEndpoint {
                conference: CONFERENCE,
                endpoint: id.clone(),
                member: MemberId(u64::from(number)),
                settings: Box::new(settings),
            },
        );
        let own = Arc::new(generate());
        let fingerprints = vec![fingerprint(own.fingerprint(), Setup::Active)];
        let mut client = Client::new(start, start, name, number, own, &bridge);
        client.sends = number == 1;
        let update = EndpointUpdate {
            media: Some(vec![video_media()]),
            transport: Some(RemoteTransport {
                ice: Some(credentials(number)),
                fingerprints,
                candidates: Vec::new(),
            }),
            sources: client.sends.then(|| vec![video_source(&client)]),
            ..EndpointUpdate::default()
        };
        let channel = ChannelId(u64::from(number));
        let text =
            r#"{"colibriClass":"ReceiverVideoConstraints","defaultConstraints":{"maxHeight":720}}"#;
        for command in [
            Command::UpdateEndpoint {
                conference: CONFERENCE,
                endpoint: id.clone(),
                update: Box::new(update),
            },
            Command::ChannelOpened {
                conference: CONFERENCE,
                endpoint: id.clone(),
                channel,
            },
            Command::ChannelMessage {
                conference: CONFERENCE,
                endpoint: id,
                channel,
                text: text.to_owned(),
            },
        ] {
            shard.handle_command(start, command);
        }
        clients.push(client);
    }
    (shard, clients, start)
}
