//! Real calls through parsers and projections: what a Jitsi Videobridge
//! received goes in, and what comes out is held against what a receiver may
//! expect and against what that bridge sent (`vectors/README.md`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use viaduct_bridge::projection::{
    CodecRewrite, CodecView, EgressExtensions, IncomingVideo, LayerIndex, Projection, write_packet,
};
use viaduct_bridge::rtcp;
use viaduct_bridge::rtp::dependency_descriptor::{DescriptorError, History};
use viaduct_bridge::rtp::{PacketIndex, PayloadType, RtpPacket, Ssrc, Unwrapper, rtx, vp8};

const DESCRIPTOR: u8 = 11;
const TRANSPORT_CC: u8 = 5;

/// A recording's datagrams with the time since the first.
fn datagrams(name: &str) -> Vec<(Duration, Vec<u8>)> {
    let path = format!("{}/tests/vectors/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(path).expect("the vector is there");
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four"));
    let mut found: Vec<(Duration, Vec<u8>)> = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let time = Duration::new(word(at).into(), word(at + 4) * 1000);
        let len = word(at + 8) as usize;
        // Ethernet, whose frames may be padded, IPv4 without options, UDP.
        let udp = &file[at + 16 + 34..at + 16 + len];
        let announced = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        found.push((time, udp[8..announced.min(udp.len())].to_vec()));
        at += 16 + len;
    }
    let first = found[0].0;
    found
        .into_iter()
        .map(|(time, datagram)| (time - first, datagram))
        .collect()
}

fn is_rtcp(datagram: &[u8]) -> bool {
    (192..=223).contains(&datagram[1])
}

/// One call: the SSRCs low to high with their RTX, and the payload types.
struct Call {
    name: &'static str,
    ssrcs: [(u32, u32); 3],
    payload_type: u8,
    rtx_payload_type: u8,
}

const VP8: Call = Call {
    name: "vp8",
    ssrcs: [
        (492714395, 499161191),
        (3654536911, 3884804333),
        (1766522492, 2965983847),
    ],
    payload_type: 100,
    rtx_payload_type: 96,
};

const AV1: Call = Call {
    name: "av1",
    ssrcs: [
        (125721277, 2391575483),
        (4079982124, 2626036061),
        (4108338229, 3324099328),
    ],
    payload_type: 41,
    rtx_payload_type: 42,
};

const LOSS: Call = Call {
    name: "loss-vp8",
    ssrcs: [
        (506436657, 3685675317),
        (3533125599, 1024869242),
        (4288007516, 256951521),
    ],
    payload_type: 100,
    rtx_payload_type: 96,
};

/// A packet that was forwarded.
#[derive(Clone, Debug)]
struct Forwarded {
    encoding: u8,
    received: PacketIndex,
    index: PacketIndex,
    timestamp: u32,
    codec: CodecRewrite,
    packet: Vec<u8>,
    repeated: bool,
}

/// Plays the sender's side of a call into a projection whose target follows
/// `targets`: from each time on the layer beside it.
fn play(call: &Call, targets: &[(f64, LayerIndex)]) -> (Vec<Forwarded>, Projection) {
    let start = Instant::now();
    let mut projection = Projection::new(Ssrc(call.ssrcs[0].0));
    let mut unwrappers = [Unwrapper::default(); 3];
    let mut histories: [History; 3] = Default::default();
    let mut seen: BTreeSet<(u8, PacketIndex)> = BTreeSet::new();
    let mut forwarded = Vec::new();
    let extensions = EgressExtensions {
        dependency_descriptor: Some(DESCRIPTOR),
        transport_cc: Some((TRANSPORT_CC, 0x1234)),
        ..EgressExtensions::default()
    };
    for (at, mut datagram) in datagrams(&format!("{}/rx", call.name)) {
        if is_rtcp(&datagram) {
            continue;
        }
        let view = RtpPacket::parse(&datagram).expect("valid RTP");
        let payload_type = view.payload_type().0;
        let of = |ssrc: u32| move |pair: &(u32, u32)| pair.0 == ssrc || pair.1 == ssrc;
        let Some(encoding) = call.ssrcs.iter().position(of(view.ssrc().0)) else {
            continue;
        };
        let ssrc = Ssrc(call.ssrcs[encoding].0);
        let repeated = payload_type == call.rtx_payload_type;
        let packet: &[u8] = if repeated {
            match rtx::restore(&mut datagram, call.payload_type, ssrc) {
                Some(restored) => restored,
                None => continue,
            }
        } else {
            &datagram
        };
        let view = RtpPacket::parse(packet).expect("valid RTP");
        let index = unwrappers[encoding].unwrap(view.sequence_number());
        let encoding = encoding as u8;
        if !seen.insert((encoding, index)) || view.payload().is_empty() {
            continue;
        }
        let frame = view.extension(DESCRIPTOR).map(|descriptor| {
            histories[usize::from(encoding)]
                .parse(index, descriptor)
                .expect("every descriptor can be read")
        });
        // VP8 has no PictureID where a dependency descriptor says more.
        let codec = match &frame {
            Some(frame) => CodecView::Dd(frame),
            None => CodecView::vp8(view.payload()).expect("a VP8 descriptor"),
        };
        let target = targets.iter().rfind(|(from, _)| *from <= at.as_secs_f64());
        projection.set_target(target.map(|(_, layer)| *layer));
        let rewrite = projection.project(&IncomingVideo {
            encoding,
            index,
            timestamp: view.timestamp(),
            marker: view.marker(),
            payload_type: view.payload_type(),
            arrival: start + at,
            codec,
        });
        let Some(rewrite) = rewrite else { continue };
        let mut out = b"before".to_vec();
        write_packet(&view, &rewrite, &extensions, &mut out);
        forwarded.push(Forwarded {
            encoding,
            received: index,
            index: rewrite.index,
            timestamp: rewrite.timestamp,
            codec: rewrite.codec,
            packet: out.split_off(6),
            repeated,
        });
        let written = RtpPacket::parse(&forwarded[forwarded.len() - 1].packet).expect("valid");
        assert_eq!(written.ssrc(), Ssrc(call.ssrcs[0].0));
        assert_eq!(written.payload_type(), PayloadType(call.payload_type));
        assert_eq!(written.sequence_number(), rewrite.index.sequence_number());
        assert_eq!(written.timestamp(), rewrite.timestamp);
        assert_eq!(written.marker(), rewrite.marker);
        assert_eq!(written.extension(TRANSPORT_CC), Some(&[0x12, 0x34][..]));
    }
    (forwarded, projection)
}

/// What any receiver may expect, in the order in which it decodes.
fn check_stream(forwarded: &[Forwarded]) {
    let mut by_index = BTreeMap::new();
    for packet in forwarded {
        let twice = by_index.insert(packet.index, packet);
        assert!(twice.is_none(), "{:?} was given twice", packet.index);
    }
    let in_order: Vec<_> = by_index.into_values().collect();
    for pair in in_order.windows(2) {
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
        assert!((0..1_000_000).contains(&step), "timestamps: {pair:?}");
        if let (
            CodecRewrite::Vp8 {
                picture_id: before, ..
            },
            CodecRewrite::Vp8 {
                picture_id: after, ..
            },
        ) = (pair[0].codec, pair[1].codec)
        {
            let pictures = after.wrapping_sub(before) & 0x7fff;
            let new_frame = step > 0;
            assert!(pictures < 100 && (pictures > 0) == new_frame, "{pair:?}");
        }
        if pair[0].encoding == pair[1].encoding {
            assert!(pair[0].received < pair[1].received, "order: {pair:?}");
        }
    }
}

/// Sequence numbers that the receiver does not get.
fn holes(forwarded: &[Forwarded]) -> Vec<PacketIndex> {
    let given: BTreeSet<u64> = forwarded.iter().map(|packet| packet.index.0).collect();
    let (Some(first), Some(last)) = (given.first(), given.last()) else {
        return Vec::new();
    };
    (*first..*last)
        .filter(|index| !given.contains(index))
        .map(PacketIndex)
        .collect()
}

/// The packets of a source that the recorded bridge sent, first times only.
fn sent(call: &Call) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    datagrams(&format!("{}/tx", call.name))
        .into_iter()
        .map(|(_, datagram)| datagram)
        .filter(|datagram| {
            !is_rtcp(datagram)
                && RtpPacket::parse(datagram).is_ok_and(|packet| {
                    packet.ssrc() == Ssrc(call.ssrcs[0].0) && seen.insert(packet.sequence_number())
                })
        })
        .collect()
}

#[test]
fn every_recorded_packet_is_read() {
    let mut kinds: HashMap<&str, usize> = HashMap::new();
    for call in [&VP8, &AV1, &LOSS] {
        for side in ["rx", "tx"] {
            let mut histories: HashMap<Ssrc, (Unwrapper, History)> = HashMap::new();
            for (_, datagram) in datagrams(&format!("{}/{side}", call.name)) {
                if is_rtcp(&datagram) {
                    for packet in rtcp::packets(&datagram) {
                        let kind = match packet.expect("valid RTCP") {
                            rtcp::Packet::SenderReport(_) => "sender report",
                            rtcp::Packet::ReceiverReport(_) => "receiver report",
                            rtcp::Packet::Nack(_) => "nack",
                            rtcp::Packet::PictureLoss(_) => "picture loss",
                            rtcp::Packet::TransportFeedback(_) => "transport feedback",
                            rtcp::Packet::SourceDescription => "source description",
                            other => panic!("{other:?}"),
                        };
                        *kinds.entry(kind).or_default() += 1;
                    }
                    continue;
                }
                let packet = RtpPacket::parse(&datagram).expect("valid RTP");
                *kinds.entry("extension").or_default() += packet.extensions().count();
                if call
                    .ssrcs
                    .iter()
                    .all(|(ssrc, _)| packet.ssrc() != Ssrc(*ssrc))
                {
                    continue;
                }
                if call.payload_type == 100 {
                    vp8::Descriptor::parse(packet.payload()).expect("valid");
                    *kinds.entry("VP8").or_default() += 1;
                }
                let (unwrapper, history) = histories.entry(packet.ssrc()).or_default();
                let index = unwrapper.unwrap(packet.sequence_number());
                let descriptor = packet.extension(DESCRIPTOR).expect("a descriptor");
                match history.parse(index, descriptor) {
                    Ok(_) => {}
                    // What is lost comes by RTX, which is not looked into here.
                    Err(DescriptorError::NoStructure(_)) if call.name == "loss-vp8" => continue,
                    Err(error) => panic!("{error}"),
                }
                *kinds.entry("descriptor").or_default() += 1;
            }
        }
    }
    for (kind, least) in [
        ("sender report", 300),
        ("receiver report", 300),
        ("nack", 5),
        ("picture loss", 3),
        ("transport feedback", 2000),
        ("extension", 20_000),
        ("VP8", 4000),
        ("descriptor", 6000),
    ] {
        assert!(kinds.get(kind) >= Some(&least), "{kind}: {kinds:?}");
    }
}

/// The recorded bridge chose its layers when they appeared; with the target
/// changed just before, every packet comes out as it sent it: the same ones,
/// with the same numbers, descriptors and masks.
#[test]
fn av1_comes_out_as_from_the_recorded_bridge() {
    let (forwarded, _) = play(
        &AV1,
        &[
            (0.0, LayerIndex::of_target(0, 2)),
            (7.2, LayerIndex::of_target(0, 8)),
            (16.3, LayerIndex::of_target(0, 2)),
        ],
    );
    check_stream(&forwarded);
    assert_eq!(holes(&forwarded), []);
    let sent = sent(&AV1);
    assert_eq!(forwarded.len(), sent.len());
    for (ours, theirs) in forwarded.iter().zip(&sent) {
        let ours = RtpPacket::parse(&ours.packet).expect("valid");
        let theirs = RtpPacket::parse(theirs).expect("valid");
        assert_eq!(ours.timestamp(), theirs.timestamp());
        let descriptor = |packet: &RtpPacket<'_>| packet.extension(DESCRIPTOR).map(<[u8]>::to_vec);
        assert_eq!(descriptor(&ours), descriptor(&theirs));
    }
    compare_meaning(&forwarded, &sent);
}

/// Holds what was forwarded, in order, against what the recorded bridge sent:
/// the same but for the distance of timestamps at a change of encoding, which
/// goes by the time that passed in the bridge, and for the template ids, which
/// each bridge chooses.
fn compare_meaning(forwarded: &[Forwarded], sent: &[Vec<u8>]) {
    let mut histories: [History; 2] = Default::default();
    for (ours, theirs) in forwarded.iter().zip(sent) {
        let read = RtpPacket::parse(&ours.packet).expect("valid");
        let theirs = RtpPacket::parse(theirs).expect("valid");
        assert_eq!(read.sequence_number(), theirs.sequence_number());
        let apart = read.timestamp().abs_diff(theirs.timestamp());
        assert!(apart <= 3000, "by {apart}: {ours:?}");
        assert_eq!(read.marker(), theirs.marker(), "{ours:?}");
        // Of a payload that came by RTX two octets fewer are recorded.
        let len = read.payload().len();
        assert!(len + 2 >= theirs.payload().len(), "{ours:?}");
        assert_eq!(read.payload(), &theirs.payload()[..len], "{ours:?}");
        let [frame, their_frame] = [(&read, 0), (&theirs, 1)].map(|(packet, side)| {
            let descriptor = packet.extension(DESCRIPTOR).expect("one is sent");
            let history: &mut History = &mut histories[side];
            history
                .parse(ours.index, descriptor)
                .expect("a receiver can read it")
        });
        assert_eq!(frame.frame_number, their_frame.frame_number);
        assert_eq!(frame.active_targets, their_frame.active_targets);
        assert_eq!(frame.dtis, their_frame.dtis);
        assert_eq!(frame.diffs, their_frame.diffs);
        assert_eq!(frame.structure.targets, their_frame.structure.targets);
        assert_eq!(
            frame.structure.resolutions,
            their_frame.structure.resolutions
        );
    }
}

/// As above for simulcast. Its timestamps go on by the time that passed in the
/// bridge, so at a change of encoding they may differ by a 30th of a second.
#[test]
fn vp8_comes_out_as_from_the_recorded_bridge() {
    let (forwarded, _) = play(
        &VP8,
        &[
            (0.0, LayerIndex::of_target(0, 2)),
            (7.1, LayerIndex::of_target(2, 2)),
            (16.2, LayerIndex::of_target(0, 2)),
        ],
    );
    check_stream(&forwarded);
    assert_eq!(holes(&forwarded), []);
    let encodings: BTreeSet<u8> = forwarded.iter().map(|packet| packet.encoding).collect();
    assert_eq!(encodings, BTreeSet::from([0, 1, 2]));
    let sent = sent(&VP8);
    assert_eq!(forwarded.len(), sent.len());
    compare_meaning(&forwarded, &sent);
}

#[test]
fn loss_is_passed_on_as_loss_and_retransmissions_fill_their_place() {
    let (forwarded, _) = play(&LOSS, &[(0.0, LayerIndex::of_target(2, 2))]);
    check_stream(&forwarded);
    assert!(forwarded.iter().any(|packet| packet.repeated));
    // The sender answered every request in the end.
    assert_eq!(holes(&forwarded), []);
    let mut forwarded = forwarded;
    forwarded.sort_by_key(|packet| packet.index);
    let mut sent = sent(&LOSS);
    sent.sort_by_key(|datagram| RtpPacket::parse(datagram).map(|p| p.sequence_number()).ok());
    compare_meaning(&forwarded, &sent);
    assert_eq!(forwarded.len(), sent.len());
}
