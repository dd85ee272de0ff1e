//! What a receiver sees: everything forwarded goes through a real decoder, and
//! each picture must be the very one that the sender's own layer decodes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use viaduct_bridge::command::Codec;
use viaduct_bridge::projection::LayerIndex;
use viaduct_bridge::rtp::{RtpPacket, vp8, vp9};

use crate::call::{
    AV1, Call, H264, LOSS, Play, Played, Player, REWRITING, Received, SHARE_CAMERA, SHARE_SCREEN,
    VP8, VP9, Wanted, datagrams,
};
use crate::check_stream;
use crate::decode::{Picture, available, decode, picture};

/// A picture to be decoded.
struct Unit<'a> {
    /// As the sender's timestamp.
    timestamp: u32,
    encoding: u8,
    /// The highest spatial layer in it.
    spatial_id: u8,
    key: bool,
    whole: bool,
    payloads: Vec<&'a [u8]>,
}

/// Groups packets, in order, each with the payload that is to be decoded.
fn units<'a>(packets: impl Iterator<Item = (&'a Received, &'a [u8])>) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = Vec::new();
    for (packet, payload) in packets {
        let same = |unit: &&mut Unit<'_>| {
            (unit.timestamp, unit.encoding) == (packet.timestamp, packet.encoding)
        };
        match units.last_mut().filter(same) {
            Some(unit) => {
                unit.spatial_id = unit.spatial_id.max(packet.spatial_id);
                unit.key |= packet.key;
                unit.whole &= packet.whole;
                unit.payloads.push(payload);
            }
            None => units.push(Unit {
                timestamp: packet.timestamp,
                encoding: packet.encoding,
                spatial_id: packet.spatial_id,
                key: packet.key,
                whole: packet.whole,
                payloads: vec![payload],
            }),
        }
    }
    units
}

fn decode_units(codec: &Codec, units: &[Unit<'_>]) -> Vec<Picture> {
    let pictures = units.iter().map(|unit| picture(codec, &unit.payloads));
    decode(codec, &pictures.collect::<Vec<_>>())
}

/// The pictures of one layer as the sender made it, by timestamp. Layers of one
/// encoding build on each other in key pictures only (K-SVC).
fn originals(
    codec: &Codec,
    received: &[Received],
    (encoding, spatial_id): (u8, u8),
) -> HashMap<u32, Picture> {
    let mut packets: Vec<_> = received.iter().filter(|p| p.encoding == encoding).collect();
    packets.sort_by_key(|packet| packet.index);
    let keys: BTreeSet<u32> = packets
        .iter()
        .filter(|packet| packet.key)
        .map(|packet| packet.timestamp)
        .collect();
    packets.retain(|packet| {
        let below = packet.spatial_id < spatial_id && keys.contains(&packet.timestamp);
        packet.spatial_id == spatial_id || below
    });
    let mut found = HashMap::new();
    let mut stretch = Vec::new();
    let mut finish = |stretch: &mut Vec<Unit<'_>>| {
        if !stretch.is_empty() {
            let pictures = decode_units(codec, stretch);
            found.extend(stretch.iter().map(|unit| unit.timestamp).zip(pictures));
            stretch.clear();
        }
    };
    let packets = packets.into_iter().map(|p| (p, p.payload.as_slice()));
    for unit in units(packets) {
        if !unit.whole || unit.spatial_id != spatial_id {
            finish(&mut stretch);
        } else if unit.key || !stretch.is_empty() {
            stretch.push(unit);
        }
    }
    finish(&mut stretch);
    found
}

/// Decodes what was forwarded, and holds each picture against the original.
/// The heights in turn, and the number of pictures.
fn seen(codec: &Codec, played: &Played) -> (Vec<u32>, usize) {
    check_stream(&played.forwarded);
    let parsed: Vec<_> = played
        .in_order()
        .into_iter()
        .map(|forwarded| {
            let packet = RtpPacket::parse(&forwarded.packet).expect("valid");
            (&played.received[forwarded.of], packet)
        })
        .collect();
    let mut units = units(parsed.iter().map(|(of, packet)| (*of, packet.payload())));
    // The last picture may be cut short by the end of the recording.
    units.pop();
    assert!(units.iter().all(|unit| unit.whole), "payloads are cut off");
    let pictures = decode_units(codec, &units);
    let mut layers = BTreeMap::new();
    let mut heights = Vec::new();
    for (unit, picture) in units.iter().zip(&pictures) {
        let layer = (unit.encoding, unit.spatial_id);
        let originals = layers
            .entry(layer)
            .or_insert_with(|| originals(codec, &played.received, layer));
        let original = originals.get(&unit.timestamp);
        assert_eq!(Some(picture), original, "{layer:?} at {}", unit.timestamp);
        let height = picture.width.min(picture.height);
        if heights.last() != Some(&height) {
            heights.push(height);
        }
    }
    (heights, pictures.len())
}

#[test]
fn decoded_heights_follow_what_is_asked_for() {
    if !available() {
        return;
    }
    for call in [VP8, VP9, AV1, H264] {
        let wanted = [180, 720, 180].map(Wanted::Height);
        let wanted = [0.0, 7.0, 16.1].into_iter().zip(wanted).collect::<Vec<_>>();
        let played = Play {
            until: 17.0,
            ..Play::new(&call, &wanted)
        }
        .run();
        let (heights, pictures) = seen(&call.codec, &played);
        println!("{}: {heights:?}, {pictures} pictures", call.name);
        assert_eq!(heights[0], 180, "{}", call.name);
        assert!(heights.contains(&720), "{}", call.name);
        assert_eq!(heights.last(), Some(&180), "{}", call.name);
        assert!(pictures > 80, "{}", call.name);
    }
}

/// The middle height is reached and left as well, where the recording has a key
/// frame for it.
#[test]
fn decoded_heights_stop_at_the_middle_layer() {
    if !available() {
        return;
    }
    for (call, until, expected) in [
        (VP8, 7.55, &[180, 360][..]),
        (H264, 8.9, &[180, 360]),
        (VP9, 17.0, &[180, 360, 180]),
        (AV1, 17.0, &[180, 360, 180]),
    ] {
        let wanted = [180, 360, 180].map(Wanted::Height);
        let wanted = [0.0, 7.0, 16.1].into_iter().zip(wanted).collect::<Vec<_>>();
        let played = Play {
            until,
            ..Play::new(&call, &wanted)
        }
        .run();
        let (heights, _) = seen(&call.codec, &played);
        assert_eq!(heights, expected, "{}", call.name);
    }
}

/// Without their upper layers the pictures that are left are the same.
#[test]
fn fewer_pictures_a_second_are_decoded_alike() {
    if !available() {
        return;
    }
    for call in [VP8, VP9, AV1, H264] {
        let mut counts = Vec::new();
        // VP9 counts layers by their ids; for the others it is the same here.
        for temporal_id in [2, 1, 0] {
            let layer = LayerIndex::new(0, 0, temporal_id);
            let played = Play {
                until: 16.9,
                ..Play::new(&call, &[(0.0, Wanted::Layer(layer))])
            }
            .run();
            let (heights, pictures) = seen(&call.codec, &played);
            assert_eq!(heights, [180], "{}", call.name);
            assert!(played.holes().is_empty());
            counts.push(pictures);
        }
        println!("{}: {counts:?} pictures", call.name);
        // H.264 is sent without temporal layers.
        if call.codec != Codec::H264 {
            let [all, half, quarter] = [counts[0], counts[1], counts[2]];
            assert!(half * 2 <= all + 4 && quarter * 4 <= all + 8, "{counts:?}");
            assert!(quarter * 5 > all, "{counts:?}");
        }
    }
}

/// A sender that has not negotiated the dependency descriptor: key frames are
/// found in the payload, and simulcast is switched on those.
#[test]
fn simulcast_is_switched_without_the_dependency_descriptor() {
    if !available() {
        return;
    }
    for call in [VP8, H264] {
        let wanted = [180, 720, 180].map(Wanted::Height);
        let wanted = [0.0, 7.0, 16.1].into_iter().zip(wanted).collect::<Vec<_>>();
        let played = Play {
            until: 17.0,
            descriptor: false,
            ..Play::new(&call, &wanted)
        }
        .run();
        let (heights, pictures) = seen(&call.codec, &played);
        assert!(played.holes().is_empty());
        assert!(heights.contains(&720), "{}: {heights:?}", call.name);
        assert_eq!(heights.last(), Some(&180), "{}: {heights:?}", call.name);
        assert!(pictures > 200, "{}: {pictures}", call.name);
    }
}

#[test]
fn a_screen_is_seen_beside_the_camera() {
    if !available() {
        return;
    }
    for (call, heights) in [(SHARE_CAMERA, &[180][..]), (SHARE_SCREEN, &[360])] {
        let wanted = [(0.0, Wanted::Height(-1))];
        let played = Play {
            until: 11.9,
            ..Play::new(&call, &wanted)
        }
        .run();
        let (seen, pictures) = seen(&call.codec, &played);
        println!("{seen:?}, {pictures} pictures");
        assert_eq!(seen, heights);
    }
}

#[test]
fn pictures_are_whole_under_loss_once_retransmissions_have_come() {
    if !available() {
        return;
    }
    let wanted = [(0.0, Wanted::Height(720))];
    let played = Play {
        until: 2.1,
        ..Play::new(&LOSS, &wanted)
    }
    .run();
    assert!(played.forwarded.iter().any(|packet| packet.repeated));
    let (heights, pictures) = seen(&LOSS.codec, &played);
    println!("{heights:?}, {pictures} pictures");
    assert_eq!(heights.last(), Some(&720));
}

/// Not wanted for a while, and not sent for another: the stream goes on behind
/// each with a key frame and without a gap.
#[test]
fn a_source_that_pauses_goes_on_with_a_whole_picture() {
    if !available() {
        return;
    }
    let wanted = [
        (0.0, Wanted::Layer(LayerIndex::of_target(0, 2))),
        (4.0, Wanted::Nothing),
        (6.5, Wanted::Layer(LayerIndex::of_target(0, 2))),
    ];
    let played = Play {
        until: 13.9,
        ..Play::new(&REWRITING, &wanted)
    }
    .run();
    assert!(played.holes().is_empty());
    let (_, pictures) = seen(&REWRITING.codec, &played);
    let resumed = played.forwarded.iter().filter(|packet| {
        let first = played.received[0].timestamp;
        played.received[packet.of].timestamp.wrapping_sub(first) > 6 * 90_000
    });
    assert!(resumed.count() > 10 && pictures > 60, "{pictures}");
}

/// What end-to-end encryption leaves in the clear of each frame: ten octets of
/// a key frame, three of another (lib-jitsi-meet, `doc/e2ee.md`). It encrypts
/// before packets are made, so payload descriptors stay.
fn encrypt_frame(at: f64, payload: &mut [u8], descriptor: usize, (starts, key): (bool, bool)) {
    let clear = match (starts, key) {
        (true, true) => 10,
        (true, false) => 3,
        (false, _) => 0,
    };
    encrypt(
        at,
        payload.get_mut(descriptor + clear..).unwrap_or_default(),
    );
}

fn encrypt_vp8(at: f64, payload: &mut [u8]) {
    if let Ok(d) = vp8::Descriptor::parse(payload) {
        encrypt_frame(at, payload, d.len, (d.start_of_frame, d.key_frame));
    }
}

fn encrypt_vp9(at: f64, payload: &mut [u8]) {
    if let Ok(d) = vp9::Descriptor::parse(payload) {
        encrypt_frame(at, payload, d.len, (d.start_of_frame, d.key_frame()));
    }
}

/// Of H.264 and AV1 nothing at all need be readable.
fn encrypt(at: f64, payload: &mut [u8]) {
    if (3.0..15.0).contains(&at) {
        for (octet, n) in payload.iter_mut().zip((0..=255u8).cycle()) {
            *octet ^= n.wrapping_mul(73) | 1;
        }
    }
}

/// Encryption is switched on and off while all goes on: not one decision is
/// another for it.
#[test]
fn end_to_end_encryption_changes_no_decision() {
    for (call, descriptor) in [
        (VP8, true),
        (VP8, false),
        (VP9, true),
        (VP9, false),
        (AV1, true),
        (H264, true),
    ] {
        let wanted = [180, 720, 180].map(Wanted::Height);
        let wanted = [0.0, 7.0, 16.1].into_iter().zip(wanted).collect::<Vec<_>>();
        let plain = Play {
            descriptor,
            ..Play::new(&call, &wanted)
        };
        let alter = match call.codec {
            Codec::Vp8 => encrypt_vp8,
            Codec::Vp9 => encrypt_vp9,
            _ => encrypt,
        };
        let encrypted = Play {
            alter,
            ..plain.clone()
        };
        let (plain, encrypted) = (plain.run(), encrypted.run());
        assert!(plain.drops == encrypted.drops);
        assert!(encrypted.forwarded.len() > 300, "{}", call.name);
        let decisions = |played: &Played| {
            let decision = |p: &crate::call::Forwarded| (p.of, p.index, p.timestamp, p.codec);
            played.forwarded.iter().map(decision).collect::<Vec<_>>()
        };
        assert_eq!(decisions(&plain), decisions(&encrypted), "{}", call.name);
        let payloads = |played: &Played| {
            let payload = |p: &crate::call::Forwarded| p.packet[p.packet.len() - 3..].to_vec();
            played.forwarded.iter().map(payload).collect::<Vec<_>>()
        };
        assert!(payloads(&plain) != payloads(&encrypted));
    }
}

/// The SSRCs of one call with the media of another, numbered on from it.
fn continue_as(player: &mut Player, from: &Call, to: &Call, times: std::ops::Range<f64>, by: f64) {
    let (payload_type, _) = to.payload_types();
    let mut shifts = [None; 3];
    for mut datagram in datagrams(&format!("{}/rx", to.name)) {
        let at = datagram.at.as_secs_f64();
        let bytes = &mut datagram.bytes;
        let Some(encoding) = RtpPacket::parse(bytes).ok().and_then(|view| {
            let known = |(ssrc, _): &(u32, u32)| view.ssrc().0 == *ssrc;
            to.ssrcs.iter().position(known)
        }) else {
            continue;
        };
        if bytes[1] & 0x7f != payload_type || !times.contains(&at) {
            continue;
        }
        let number = u16::from_be_bytes([bytes[2], bytes[3]]);
        let ssrc = from.ssrcs[encoding].0;
        let shift = *shifts[encoding].get_or_insert_with(|| {
            let last = player.last_number(ssrc).unwrap_or(0);
            last.wrapping_add(1).wrapping_sub(number)
        });
        bytes[2..4].copy_from_slice(&number.wrapping_add(shift).to_be_bytes());
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let at = datagram.at + std::time::Duration::from_secs_f64(by);
        player.receive(at, bytes, datagram.whole);
    }
}

/// A sender that changes its codec in mid-call, each way that the bridge tells
/// codecs apart: what comes out is one stream still, and every picture whole.
#[test]
fn a_change_of_codec_goes_on_as_one_stream() {
    if !available() {
        return;
    }
    for (first, second) in [(AV1, VP8), (VP9, H264), (H264, VP9), (VP8, VP9), (VP9, AV1)] {
        let mut player = Player::new(&first, true);
        player.want(Wanted::Height(180));
        continue_as(&mut player, &first, &first, 0.0..17.0, 0.0);
        let before = player.played.forwarded.len();
        let of = player.played.received.len();
        player.speak(&second);
        continue_as(&mut player, &first, &second, 0.0..16.9, 20.0);
        let mut played = player.played;
        let name = format!("{} to {}", first.name, second.name);
        check_stream(&played.forwarded);
        assert!(played.holes().is_empty(), "{name}");
        assert!(
            before > 50 && played.forwarded.len() > before + 50,
            "{name}"
        );
        // Whole pictures in the second codec.
        played.forwarded.drain(..before);
        for packet in &mut played.forwarded {
            packet.of -= of;
        }
        played.received.drain(..of);
        let first_whole = played
            .forwarded
            .iter()
            .position(|p| played.received[p.of].whole);
        played.forwarded.drain(..first_whole.expect("some are"));
        let (heights, pictures) = seen(&second.codec, &played);
        assert_eq!(heights, [180], "{name}");
        assert!(pictures > 10, "{name}: {pictures}");
    }
}
