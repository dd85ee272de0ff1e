//! Real calls through parsers and projections: what a Jitsi Videobridge
//! received goes in, and what comes out is held against what a receiver may
//! expect and against what that bridge sent (`vectors/README.md`).

mod call;
mod decode;
mod pictures;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use call::{
    AV1, Call, DESCRIPTOR, Forwarded, H264, LOSS, Play, VP8, VP9, Wanted, datagrams, is_rtcp,
};
use viaduct_bridge::command::Codec;
use viaduct_bridge::projection::{CodecRewrite, LayerIndex};
use viaduct_bridge::rtcp;
use viaduct_bridge::rtp::dependency_descriptor::{DescriptorError, History};
use viaduct_bridge::rtp::{RtpPacket, Ssrc, Unwrapper, vp8, vp9};

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

/// The packets of a source that the recorded bridge sent, first times only.
fn sent(call: &Call) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    datagrams(&format!("{}/tx", call.name))
        .into_iter()
        .map(|datagram| datagram.bytes)
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
    for call in [&VP8, &VP9, &AV1, &H264, &LOSS] {
        for side in ["rx", "tx"] {
            let mut histories: HashMap<Ssrc, (Unwrapper, History)> = HashMap::new();
            for datagram in datagrams(&format!("{}/{side}", call.name)) {
                let datagram = datagram.bytes;
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
                if call.codec == Codec::Vp8 {
                    vp8::Descriptor::parse(packet.payload()).expect("valid");
                    *kinds.entry("VP8").or_default() += 1;
                }
                if call.codec == Codec::Vp9 {
                    vp9::Descriptor::parse(packet.payload()).expect("valid");
                    *kinds.entry("VP9").or_default() += 1;
                    continue;
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
    let played = Play::new(
        &AV1,
        &[
            (0.0, Wanted::Layer(LayerIndex::of_target(0, 2))),
            (7.2, Wanted::Layer(LayerIndex::of_target(0, 8))),
            (16.3, Wanted::Layer(LayerIndex::of_target(0, 2))),
        ],
    )
    .run();
    let forwarded = &played.forwarded;
    check_stream(forwarded);
    assert_eq!(played.holes(), []);
    let sent = sent(&AV1);
    assert_eq!(forwarded.len(), sent.len());
    for (ours, theirs) in forwarded.iter().zip(&sent) {
        let ours = RtpPacket::parse(&ours.packet).expect("valid");
        let theirs = RtpPacket::parse(theirs).expect("valid");
        assert_eq!(ours.timestamp(), theirs.timestamp());
        let descriptor = |packet: &RtpPacket<'_>| packet.extension(DESCRIPTOR).map(<[u8]>::to_vec);
        assert_eq!(descriptor(&ours), descriptor(&theirs));
    }
    compare_meaning(forwarded, &sent);
}

/// Holds what was forwarded, in order, against what the recorded bridge sent:
/// the same but for the distance of timestamps at a change of encoding, which
/// goes by the time that passed in the bridge, and for the template ids, which
/// each bridge chooses.
fn compare_meaning(forwarded: &[Forwarded], sent: &[Vec<u8>]) {
    let mut histories: [History; 2] = Default::default();
    let (mut encoding, mut changes) = (0, 0);
    for (ours, theirs) in forwarded.iter().zip(sent) {
        let read = RtpPacket::parse(&ours.packet).expect("valid");
        let theirs = RtpPacket::parse(theirs).expect("valid");
        assert_eq!(read.sequence_number(), theirs.sequence_number());
        changes += u32::from(encoding != ours.encoding);
        encoding = ours.encoding;
        let apart = read.timestamp().abs_diff(theirs.timestamp());
        assert!(apart <= 3030 * changes, "by {apart}: {ours:?}");
        assert_eq!(read.marker(), theirs.marker(), "{ours:?}");
        // Where they were cut off, two octets fewer of one that came by RTX.
        let len = read.payload().len().min(theirs.payload().len());
        let whole = theirs.payload().len() < 34;
        assert!(
            len >= 34 || whole && len == read.payload().len(),
            "{ours:?}"
        );
        assert_eq!(read.payload()[..len], theirs.payload()[..len], "{ours:?}");
        let descriptors = [&read, &theirs].map(|packet| packet.extension(DESCRIPTOR));
        let [Some(descriptor), Some(their_descriptor)] = descriptors else {
            assert_eq!(descriptors, [None, None]);
            continue;
        };
        let [frame, their_frame] =
            [(descriptor, 0), (their_descriptor, 1)].map(|(descriptor, side)| {
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

/// As above for the other codecs. The timestamps of simulcast go on by the time
/// that passed in the bridge, so at each change of encoding they may come to
/// differ by a 30th of a second.
#[test]
fn other_codecs_come_out_as_from_the_recorded_bridge() {
    let target = LayerIndex::of_target;
    let vp9 = |spatial_id| LayerIndex::new(0, spatial_id, 2);
    let simulcast = |down| {
        [
            (0.0, target(0, 2)),
            (7.1, target(2, 2)),
            (down, target(0, 2)),
        ]
    };
    // The recorded bridge goes up one picture after the layers appear.
    let k_svc = [(0.0, vp9(0)), (7.3, vp9(1)), (7.9, vp9(2)), (16.1, vp9(0))];
    for (call, layers) in [
        (&VP8, &simulcast(16.2)[..]),
        (&VP9, &k_svc),
        (&H264, &simulcast(16.23)),
    ] {
        let wanted: Vec<_> = layers
            .iter()
            .map(|(at, layer)| (*at, Wanted::Layer(*layer)))
            .collect();
        let played = Play::new(call, &wanted).run();
        let forwarded = &played.forwarded;
        check_stream(forwarded);
        assert_eq!(played.holes(), [], "{}", call.name);
        let sent = sent(call);
        compare_meaning(forwarded, &sent);
        assert_eq!(forwarded.len(), sent.len(), "{}", call.name);
    }
}

#[test]
fn loss_is_passed_on_as_loss_and_retransmissions_fill_their_place() {
    let wanted = [(0.0, Wanted::Layer(LayerIndex::of_target(2, 2)))];
    let played = Play::new(&LOSS, &wanted).run();
    check_stream(&played.forwarded);
    assert!(played.forwarded.iter().any(|packet| packet.repeated));
    // The sender answered every request in the end.
    assert_eq!(played.holes(), []);
    let mut forwarded = played.forwarded;
    forwarded.sort_by_key(|packet| packet.index);
    let mut sent = sent(&LOSS);
    sent.sort_by_key(|datagram| RtpPacket::parse(datagram).map(|p| p.sequence_number()).ok());
    compare_meaning(&forwarded, &sent);
    assert_eq!(forwarded.len(), sent.len());
}
