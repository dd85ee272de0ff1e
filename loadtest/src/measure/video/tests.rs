//! Streams as a bridge would forward them, whole and with the faults that a
//! bridge could make.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::order::GIVE_UP;
use super::{Header, VideoReceiver, VideoStats};
use crate::measure::delay::Histogram;
use crate::measure::{Arrival, Expected};
use crate::source::dependency_descriptor::DescriptorReader;
use crate::source::payload::{Head, Payload};
use crate::source::tag::{Kind, Tag};
use crate::source::video::{Picture, VideoSource};
use crate::source::{Codec, Extension, vp8};

const EXPECTED: Expected = Expected {
    run: 1,
    sender: 0,
    kind: Kind::Camera,
};
const CODECS: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];

#[derive(Clone)]
struct Forwarded {
    header: Header,
    payload: Vec<u8>,
    at: Instant,
    tag: Tag,
}

/// Two seconds of one encoding (of an SVC: all of it), numbered as a bridge
/// would number it that forwards nothing else.
fn stream(what: Picture, encoding: u8, start: Instant) -> Vec<Forwarded> {
    let codec = what.codec;
    let mut source = VideoSource::new(1, 0, what, 3, start);
    let mut packets: Vec<Forwarded> = Vec::new();
    for ms in 0..2_000 {
        let at = start + Duration::from_millis(ms);
        while let Some(packet) = source.poll(at, start) {
            if packet.encoding != encoding {
                continue;
            }
            let descriptor = match packet.extension {
                Extension::DependencyDescriptor(octets) => Some(Bytes::from(octets)),
                _ => None,
            };
            packets.push(Forwarded {
                header: Header {
                    ssrc: 9,
                    sequence: 65_000u16.wrapping_add(packets.len() as u16),
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    descriptor,
                },
                tag: Payload::parse(codec, &packet.payload).expect("ours").tag,
                payload: packet.payload,
                at,
            });
        }
    }
    packets
}

/// VP8 with its numbers in the payload.
fn forwarded(encoding: u8, start: Instant) -> Vec<Forwarded> {
    stream(Picture::camera(Codec::Vp8, false), encoding, start)
}

fn renumber(packets: &mut [Forwarded]) {
    for (number, packet) in (65_000u16..=u16::MAX).chain(0..).zip(packets) {
        packet.header.sequence = number;
    }
}

fn receive(receiver: &mut VideoReceiver, packet: &Forwarded, late: Duration, repaired: bool) {
    let mut arrival = Arrival {
        now: packet.at + late,
        epoch: packet.at,
        delays: &mut Histogram::default(),
    };
    receiver.receive(
        &mut arrival,
        packet.header.clone(),
        &packet.payload,
        repaired,
    );
}

fn judged(codec: Codec, packets: &[Forwarded]) -> VideoStats {
    let mut receiver = VideoReceiver::new(EXPECTED, codec);
    for packet in packets {
        receive(&mut receiver, packet, Duration::ZERO, false);
        receiver.feedback(packet.at);
    }
    let end = packets.last().expect("some").at;
    receiver.feedback(end + GIVE_UP * 2);
    receiver.close(end);
    receiver.stats
}

fn clean(stats: &VideoStats) -> bool {
    [
        stats.lost,
        stats.reordered,
        stats.duplicate,
        stats.foreign,
        stats.corrupt,
        stats.misnumbered,
        stats.undecodable,
        stats.bad_switches,
    ] == [0; 8]
}

#[test]
fn a_clean_stream_is_shown_whole() {
    let start = Instant::now();
    for codec in CODECS {
        for descriptors in [true, codec == Codec::Av1] {
            let encoding = if codec.is_svc() { 0 } else { 2 };
            let packets = stream(Picture::camera(codec, descriptors), encoding, start);
            let stats = judged(codec, &packets);
            assert_eq!(stats.received, packets.len() as u64);
            assert!(clean(&stats), "{codec:?} {descriptors} {stats:?}");
            assert_eq!(stats.key_frames, 1);
            // The last one may still be on its way.
            assert!((59..=60).contains(&stats.frames), "{} frames", stats.frames);
        }
    }
}

/// What a bridge does of an SVC for a receiver of a lower layer: key pictures
/// up to that layer, else that layer alone, some temporal layers left out, the
/// marker moved, sequence numbers closed up.
#[test]
fn lower_layers_of_an_svc_are_shown_whole() {
    let start = Instant::now();
    for codec in [Codec::Vp9, Codec::Av1] {
        for (spatial, temporal) in [(0, 2), (1, 2), (1, 0), (2, 1)] {
            let mut packets = stream(Picture::camera(codec, true), 0, start);
            packets.retain(|packet| {
                let tag = &packet.tag;
                let layer = tag.spatial == spatial || tag.key && tag.spatial < spatial;
                layer && tag.temporal <= temporal
            });
            for packet in &mut packets {
                let tag = &packet.tag;
                packet.header.marker = tag.spatial == spatial && tag.packet + 1 == tag.packets;
            }
            renumber(&mut packets);
            let stats = judged(codec, &packets);
            assert!(clean(&stats), "{codec:?} S{spatial} T{temporal}: {stats:?}");
            assert!(stats.frames >= 14);
            // With the marker where it was, pictures never end.
            if spatial < 2 {
                for packet in &mut packets {
                    packet.header.marker = false;
                }
                assert!(judged(codec, &packets).misnumbered > 10);
            }
        }
    }
}

/// A spatial layer that is entered in the middle, without a key picture.
#[test]
fn a_layer_without_its_reference_is_found() {
    let start = Instant::now();
    for codec in [Codec::Vp9, Codec::Av1] {
        let mut packets = stream(Picture::camera(codec, true), 0, start);
        let mut pictures = 0;
        packets.retain_mut(|packet| {
            let spatial = if pictures < 30 { 0 } else { 1 };
            packet.header.marker =
                packet.tag.spatial == spatial && packet.tag.packet + 1 == packet.tag.packets;
            pictures += u32::from(packet.header.marker);
            packet.tag.spatial == spatial
        });
        renumber(&mut packets);
        let stats = judged(codec, &packets);
        assert!(stats.undecodable > 20, "{codec:?} {stats:?}");
    }
}

/// Distances that lead elsewhere, and a frame number that jumps back.
#[test]
fn a_misnamed_reference_is_found() {
    let start = Instant::now();
    let mut packets = stream(Picture::camera(Codec::Av1, true), 0, start);
    let moved = packets
        .iter()
        .position(|p| p.tag.picture == 20)
        .expect("long enough");
    for packet in &mut packets[moved..] {
        let mut octets = packet.header.descriptor.take().expect("one").to_vec();
        let number = u16::from_be_bytes([octets[1], octets[2]]).wrapping_add(1);
        octets[1..3].copy_from_slice(&number.to_be_bytes());
        packet.header.descriptor = Some(octets.into());
    }
    // References over the jump are misnamed, those behind it right again.
    let stats = judged(Codec::Av1, &packets);
    assert!((3..=12).contains(&stats.misnumbered), "{stats:?}");

    let mut packets = stream(Picture::camera(Codec::Vp9, false), 0, start);
    let moved = packets
        .iter()
        .position(|p| p.tag.picture == 20)
        .expect("long enough");
    for packet in &mut packets[moved..] {
        let Head::Vp9(mut head) = Payload::parse(Codec::Vp9, &packet.payload)
            .expect("ours")
            .head
        else {
            panic!("VP9");
        };
        head.picture_id = (head.picture_id + 1) & 0x7fff;
        packet.payload[1..3].copy_from_slice(&(head.picture_id | 0x8000).to_be_bytes());
    }
    let stats = judged(Codec::Vp9, &packets);
    assert!((3..=12).contains(&stats.misnumbered), "{stats:?}");
}

/// AV1 without the extension cannot be decoded by a client.
#[test]
fn a_descriptor_that_was_dropped_is_found() {
    let start = Instant::now();
    let mut packets = stream(Picture::camera(Codec::Av1, true), 0, start);
    for packet in &mut packets {
        packet.header.descriptor = None;
    }
    assert!(judged(Codec::Av1, &packets).misnumbered > 100);
}

/// Structures are said once: what is recovered late is read in its turn.
#[test]
fn descriptors_are_read_in_order() {
    let start = Instant::now();
    let packets = stream(Picture::camera(Codec::Av1, true), 0, start);
    let mut receiver = VideoReceiver::new(EXPECTED, Codec::Av1);
    let (first, rest) = packets.split_first().expect("some");
    let mut probe = first.clone();
    probe.header.sequence = first.header.sequence.wrapping_sub(1);
    probe.payload.clear();
    receive(&mut receiver, &probe, Duration::ZERO, false);
    let late = Duration::from_millis(150);
    for packet in rest {
        receive(&mut receiver, packet, Duration::ZERO, false);
        receiver.feedback(packet.at);
        if packet.header.sequence == rest[20].header.sequence {
            receive(&mut receiver, first, late, true);
        }
    }
    assert!(clean(&receiver.stats), "{:?}", receiver.stats);
    assert_eq!((receiver.stats.recovered, receiver.stats.padding), (1, 1));
    let mut reader = DescriptorReader::default();
    assert!(
        reader
            .read(rest[0].header.descriptor.as_ref().expect("one"))
            .is_err()
    );
}

#[test]
fn a_hole_is_asked_for_and_its_repair_restores_everything() {
    let start = Instant::now();
    for codec in CODECS {
        let encoding = if codec.is_svc() { 0 } else { 2 };
        let mut packets = stream(Picture::camera(codec, true), encoding, start);
        let lost = packets.remove(100);
        let mut receiver = VideoReceiver::new(EXPECTED, codec);
        let mut asked = Vec::new();
        for packet in &packets {
            receive(&mut receiver, packet, Duration::ZERO, false);
            let (numbers, _) = receiver.feedback(packet.at);
            if numbers.contains(&lost.header.sequence) && asked.is_empty() {
                receive(&mut receiver, &lost, packet.at - lost.at, true);
            }
            asked.extend(numbers);
        }
        assert_eq!(asked, [lost.header.sequence]);
        assert_eq!(receiver.stats.recovered, 1);
        assert!(clean(&receiver.stats), "{:?}", receiver.stats);
    }
}

#[test]
fn a_hole_that_stays_is_lost_and_asks_for_a_key_frame() {
    let start = Instant::now();
    let mut packets = forwarded(2, start);
    packets.remove(30);
    let mut receiver = VideoReceiver::new(EXPECTED, Codec::Vp8);
    let mut wants_key = false;
    for packet in &packets {
        receive(&mut receiver, packet, Duration::ZERO, false);
    }
    let end = packets.last().expect("some").at;
    for ms in (0..4_000).step_by(50) {
        wants_key |= receiver.feedback(end + Duration::from_millis(ms)).1;
    }
    receiver.close(end);
    assert_eq!(receiver.stats.lost, 1);
    assert!(wants_key);
}

#[test]
fn late_packets_are_reordered_and_repeated_ones_counted() {
    let start = Instant::now();
    let mut packets = forwarded(1, start);
    packets.swap(50, 51);
    let again = packets[60].clone();
    packets.insert(62, again);
    let stats = judged(Codec::Vp8, &packets);
    assert_eq!((stats.lost, stats.reordered, stats.duplicate), (0, 1, 1));
    assert_eq!((stats.undecodable, stats.misnumbered), (0, 0));
}

/// A packet that somebody dropped and hid by renumbering.
#[test]
fn a_hidden_hole_is_found() {
    let start = Instant::now();
    for codec in CODECS {
        let encoding = if codec.is_svc() { 0 } else { 2 };
        let mut packets = stream(Picture::camera(codec, true), encoding, start);
        let middle = packets.iter().skip(60).position(|p| p.tag.packet == 1);
        packets.remove(60 + middle.expect("a frame of several packets"));
        renumber(&mut packets);
        assert!(judged(codec, &packets).lost >= 1);
    }
}

/// A change of encoding that comes on a delta frame.
#[test]
fn a_switch_without_a_key_frame_is_found() {
    let start = Instant::now();
    let at = start + Duration::from_millis(1_000);
    let mut packets: Vec<_> = forwarded(0, start)
        .into_iter()
        .filter(|p| p.at < at)
        .collect();
    let high = forwarded(2, start);
    let rest: Vec<_> = high.into_iter().filter(|p| p.at >= at).collect();
    let boundary = rest.iter().position(|p| p.header.marker).expect("a frame") + 1;
    packets.extend(rest.into_iter().skip(boundary));
    renumber(&mut packets);
    let stats = judged(Codec::Vp8, &packets);
    assert_eq!((stats.switches, stats.bad_switches), (1, 1));
    assert!(stats.undecodable > 0);
}

/// A stream whose first frame is no key frame is a fault, except where the
/// receiver did not keep its beginning.
#[test]
fn a_stream_begins_with_a_key_frame() {
    let start = Instant::now();
    let packets = forwarded(2, start);
    let second = packets
        .iter()
        .position(|p| p.tag.picture == 1)
        .expect("more");
    assert!(judged(Codec::Vp8, &packets[second..]).undecodable > 0);
    let mut receiver = VideoReceiver::new(EXPECTED, Codec::Vp8);
    receiver.behead();
    for packet in &packets[second..] {
        receive(&mut receiver, packet, Duration::ZERO, false);
    }
    assert_eq!(receiver.stats.undecodable, 0);
    receiver.restart();
    for packet in &packets[second..] {
        receive(&mut receiver, packet, Duration::ZERO, false);
    }
    assert!(receiver.stats.undecodable > 0);
}

/// VP8's temporal layers may be dropped if all numbers close up.
#[test]
fn a_dropped_temporal_layer_is_fine_if_the_numbers_close_up() {
    let start = Instant::now();
    let mut packets = forwarded(0, start);
    packets.retain(|packet| packet.tag.temporal < 2);
    assert!(judged(Codec::Vp8, &packets).lost > 0);
    renumber(&mut packets);
    assert!(judged(Codec::Vp8, &packets).misnumbered > 0);
    let mut next = None;
    for packet in &mut packets {
        let parsed = vp8::parse(&packet.payload).expect("VP8");
        let id = match next {
            None => parsed.descriptor.picture_id.expect("has one"),
            Some(id) if packet.tag.packet == 0 => (id + 1) & 0x7fff,
            Some(id) => id,
        };
        next = Some(id);
        packet.payload[2..4].copy_from_slice(&(id | 0x8000).to_be_bytes());
    }
    let stats = judged(Codec::Vp8, &packets);
    assert!(clean(&stats) && stats.frames >= 29, "{stats:?}");
}

#[test]
fn the_height_that_comes_is_known() {
    let start = Instant::now();
    let mut receiver = VideoReceiver::new(EXPECTED, Codec::Av1);
    receiver.heights.want(start, Some(720));
    for packet in &stream(Picture::camera(Codec::Av1, true), 0, start) {
        receive(&mut receiver, packet, Duration::from_millis(40), false);
    }
    receiver.close(start + Duration::from_secs(4));
    let heights = &receiver.heights.stats;
    assert!(
        matches!(heights.switch_ms[..], [ms] if (40.0..80.0).contains(&ms)),
        "{heights:?}"
    );
    assert_eq!(
        (heights.unmet, heights.strayed, heights.last),
        (0, 0, Some(720))
    );
}

#[test]
fn content_of_others_is_foreign() {
    let start = Instant::now();
    let packets = forwarded(0, start);
    let expected = Expected {
        sender: 1,
        ..EXPECTED
    };
    let mut receiver = VideoReceiver::new(expected, Codec::Vp8);
    for packet in &packets {
        receive(&mut receiver, packet, Duration::ZERO, false);
    }
    assert_eq!(receiver.stats.foreign, packets.len() as u64);
    assert_eq!(receiver.stats.frames, 0);
}
