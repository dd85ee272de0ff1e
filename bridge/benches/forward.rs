//! The cost of a forwarded packet: one VP8 sender, 49 receivers, all in one
//! shard, everything but the kernel's send. Run with `cargo bench`.

#[allow(dead_code)]
#[path = "../tests/simulation/client/mod.rs"]
mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use client::signalled::{BridgeSide, credentials, fingerprint, host, video_media, video_source};
use viaduct_bridge::command::{
    Command, ConferenceSettings, EndpointSettings, EndpointUpdate, RemoteTransport, Setup,
};
use viaduct_bridge::id::{ChannelId, ConferenceId, EndpointId, MemberId};
use viaduct_bridge::io::certificate::generate;
use viaduct_bridge::peers::Site;
use viaduct_bridge::rtp::Ssrc;
use viaduct_bridge::settings::ShardSettings;
use viaduct_bridge::shard::Shard;

const CONFERENCE: ConferenceId = ConferenceId(1);
const ENDPOINTS: u8 = 50;
const SECONDS: u64 = 20;

fn main() {
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
    let bridge_address = SocketAddr::from(([198, 51, 100, 1], 10_000));
    let mut clients = Vec::new();
    for number in 1..=ENDPOINTS {
        let name: &'static str = Box::leak(format!("endpoint{number}").into_boxed_str());
        let id = EndpointId::from(name);
        let bridge = BridgeSide {
            ice: credentials(100 + number),
            fingerprint: certificate.fingerprint(),
            address: bridge_address,
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
    let mut now = start;
    let (mut spent, mut packets) = (Duration::ZERO, 0);
    while now < start + Duration::from_secs(SECONDS) {
        let measured = now > start + Duration::from_secs(2);
        let mut datagrams = Vec::new();
        for client in &mut clients {
            client.handle_timeout(now);
            client.take_datagrams(|from, _, datagram| datagrams.push((from, datagram.to_vec())));
        }
        let sent = shard.stats(now).counters.packets_sent;
        let begin = Instant::now();
        for (from, mut datagram) in datagrams {
            shard
                .handle_datagram(now, bridge_address, from, &mut datagram)
                .expect("all endpoints are here");
        }
        shard.handle_timeout(now);
        shard.tell_senders(now);
        if measured {
            spent += begin.elapsed();
            packets += shard.stats(now).counters.packets_sent - sent;
        }
        let outbox = shard.outbox();
        for entry in outbox.entries() {
            // Receivers need nothing of the measured part but to stay there.
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
        now += Duration::from_millis(5);
    }
    let each = spent.as_nanos() as u64 / packets.max(1);
    println!("forward/1_to_49_vp8: {packets} packets, {each} ns each");
}
