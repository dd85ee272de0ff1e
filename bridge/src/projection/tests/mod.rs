//! What every receiver may rely on, whatever the network did to the sender's
//! packets, and the worked examples of the rules.
//!
//! Here: random senders' packets through a random network into a projection,
//! and what holds of the outcome for any codec. The senders are in the files
//! of their codecs.

mod descriptor;
mod opaque;
mod shared;
mod vp8;
mod vp9;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rtp::dependency_descriptor::{DescriptorError, History, rewrite};
use vp8::Vp8Packet;
use vp9::Vp9Packet;

const OUTPUT: Ssrc = Ssrc(0xabc);
const MS: Duration = Duration::from_millis(1);

fn projection(target: LayerIndex) -> Projection {
    let mut projection = Projection::new(OUTPUT);
    projection.set_target(Some(target));
    projection
}

/// A packet of a random sender, before the network.
#[derive(Clone, Debug)]
enum Media {
    Vp8(Vp8Packet),
    Vp9(Vp9Packet),
    Dd(DdPacket),
}

#[derive(Clone, Debug)]
struct DdPacket {
    encoding: u8,
    index: u64,
    timestamp: u32,
    marker: bool,
    descriptor: Vec<u8>,
}

impl Media {
    fn place(&self) -> (u8, u64) {
        match self {
            Self::Vp8(packet) => (packet.encoding, packet.index),
            Self::Vp9(packet) => (packet.encoding, packet.index),
            Self::Dd(packet) => (packet.encoding, packet.index),
        }
    }
}

/// What the network does to a packet that does not simply arrive.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    /// Comes so many packets late, of all encodings together.
    Late(usize),
}

/// The packets, counted from the first sent, that do not simply arrive.
fn fates() -> impl Strategy<Value = Vec<(usize, Fate)>> {
    let fate = prop_oneof![Just(Fate::Lost), (1usize..30).prop_map(Fate::Late)];
    prop::collection::vec((0usize..900, fate), 0..150)
}

/// One picture of a source: how many packets each encoding or layer makes of
/// it, whether it is a key frame, and a new target before it.
#[derive(Clone, Debug)]
struct Picture {
    packets: u64,
    key: bool,
    target: Option<Option<u16>>,
}

fn pictures(targets: u16) -> impl Strategy<Value = Vec<Picture>> {
    let target = prop_oneof![
        20 => Just(None),
        4 => (0..targets).prop_map(|t| Some(Some(t))),
        1 => Just(Some(None)),
    ];
    let picture =
        (1u64..4, prop::bool::weighted(0.05), target).prop_map(|(packets, key, target)| Picture {
            packets,
            key,
            target,
        });
    prop::collection::vec(picture, 1..150)
}

/// Packets in the order in which they arrive, with the time of their arrival
/// and the target in force, and those lost or late.
struct Delivery {
    arrivals: Vec<(Duration, Option<u16>, Media)>,
    disturbed: Vec<(u8, u64)>,
}

fn deliver(sent: Vec<(Duration, Option<u16>, Media)>, fates: &[(usize, Fate)]) -> Delivery {
    let mut disturbed = Vec::new();
    let mut queue = Vec::new();
    for (n, (at, target, media)) in sent.into_iter().enumerate() {
        let delay = match fates.iter().find(|(of, _)| *of == n) {
            None => 0,
            Some((_, Fate::Lost)) => {
                disturbed.push(media.place());
                continue;
            }
            Some((_, Fate::Late(by))) => {
                disturbed.push(media.place());
                2 * by + 1
            }
        };
        queue.push((2 * n + delay, at, target, media));
    }
    queue.sort_by_key(|(order, ..)| *order);
    // Time and target are those of the moment of arrival.
    let mut now = Duration::ZERO;
    let mut current = None;
    let arrivals = queue
        .into_iter()
        .map(|(_, at, target, media)| {
            if at >= now {
                (now, current) = (at, target);
            }
            (now, current, media)
        })
        .collect();
    Delivery {
        arrivals,
        disturbed,
    }
}

/// Hands each packet as it arrives to `take`, with its descriptor if it has one,
/// and the target in force.
fn each_arrival(
    delivery: &mut Delivery,
    mut take: impl FnMut(&Media, &IncomingVideo<'_>, Option<LayerIndex>),
) {
    let start = Instant::now();
    let mut histories: HashMap<u8, History> = HashMap::new();
    for (at, target, media) in &delivery.arrivals {
        let arrival = start + *at;
        let target = target.map(LayerIndex);
        match media {
            Media::Vp8(packet) => take(media, &packet.incoming(arrival), target),
            Media::Vp9(packet) => take(media, &packet.incoming(arrival), target),
            Media::Dd(packet) => {
                let index = PacketIndex(packet.index);
                let history = histories.entry(packet.encoding).or_default();
                let frame = match history.parse(index, &packet.descriptor) {
                    Ok(frame) => frame,
                    // As good as lost: the receiving side drops it.
                    Err(DescriptorError::NoStructure(_)) => {
                        delivery.disturbed.push(media.place());
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let incoming = IncomingVideo {
                    encoding: packet.encoding,
                    index,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload_type: PayloadType(41),
                    arrival,
                    codec: CodecView::Dd(&frame),
                };
                take(media, &incoming, target);
            }
        }
    }
}

/// The receiver's copy of the descriptor of a packet.
fn copied(media: &Media, rewritten: &Rewrite) -> Vec<u8> {
    match (media, &rewritten.codec) {
        (
            Media::Vp9(packet),
            CodecRewrite::Vp9 {
                picture_id,
                tl0_pic_idx,
            },
        ) => {
            let mut copy = packet.payload.clone();
            crate::rtp::vp9::patch(&mut copy, *picture_id, *tl0_pic_idx);
            copy
        }
        (Media::Dd(packet), CodecRewrite::Dd(with)) => rewrite(&packet.descriptor, with)
            .expect("its own descriptor")
            .as_slice()
            .to_vec(),
        _ => Vec::new(),
    }
}

/// Plays a delivery into a projection and answers what was forwarded: the
/// place of each packet with its rewrite, and the copy of its descriptor.
fn play(delivery: &mut Delivery) -> Vec<((u8, u64), Rewrite, Vec<u8>)> {
    let mut projection = Projection::new(OUTPUT);
    let mut forwarded = Vec::new();
    let mut seen = 0;
    each_arrival(delivery, |media, incoming, target| {
        projection.set_target(target);
        if let Some(rewritten) = projection.project(incoming) {
            let copy = copied(media, &rewritten);
            forwarded.push((media.place(), rewritten, copy));
        }
        // State that is written down and read again goes on the same.
        seen += 1;
        if seen % 64 == 0 {
            let written = serde_json::to_string(&projection).expect("plain data");
            projection = serde_json::from_str(&written).expect("as written");
        }
    });
    forwarded
}

/// What holds for any codec and network.
fn check(
    delivery: &Delivery,
    forwarded: &[((u8, u64), Rewrite, Vec<u8>)],
) -> Result<(), TestCaseError> {
    let mut by_index = BTreeMap::new();
    for (place, rewrite, _) in forwarded {
        prop_assert_eq!(rewrite.ssrc, OUTPUT);
        let twice = by_index.insert(rewrite.index, (*place, *rewrite));
        prop_assert!(
            twice.is_none(),
            "{:?} given to {:?} and {:?}",
            rewrite.index,
            twice,
            place
        );
    }
    let in_order: Vec<_> = by_index.into_values().collect();
    // What may be missing of the encoding that is being sent: where packets were
    // lost or late, some room may have been left before a packet that was late
    // itself, and none between that and the next.
    let mut allowed = 0;
    for pair in in_order.windows(2) {
        let [(from, before), (to, after)] = [pair[0], pair[1]];
        let step = after.timestamp.wrapping_sub(before.timestamp) as i32;
        prop_assert!((0..90_000 * 60).contains(&step), "timestamps of {:?}", pair);
        let missing = after.index.0 - before.index.0 - 1;
        if from.0 == to.0 {
            prop_assert!(from.1 < to.1, "order of {:?}", pair);
        }
        let disturbed = if from.0 == to.0 {
            let between =
                |place: &&(u8, u64)| place.0 == from.0 && (from.1..to.1).contains(&place.1);
            delivery.disturbed.iter().filter(between).count() as u64
        } else {
            0
        };
        allowed = if from.0 == to.0 { allowed } else { 0 } + disturbed;
        prop_assert!(
            missing <= allowed,
            "{missing} missing for {allowed} lost or late: {pair:?}"
        );
        allowed -= missing;
        if let (
            CodecRewrite::Vp8 {
                picture_id: before,
                tl0_pic_idx: tl0_before,
            },
            CodecRewrite::Vp8 {
                picture_id: after,
                tl0_pic_idx: tl0_after,
            },
        ) = (before.codec, after.codec)
        {
            let pictures = after.wrapping_sub(before) & 0x7fff;
            prop_assert_eq!(pictures > 0, step > 0, "pictures of {:?}", pair);
            prop_assert!(
                u64::from(pictures) <= 1 + disturbed,
                "pictures of {:?}",
                pair
            );
            prop_assert!(
                tl0_after.wrapping_sub(tl0_before) < 128,
                "TL0PICIDX of {:?}",
                pair
            );
        }
    }
    Ok(())
}
