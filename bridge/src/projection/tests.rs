//! What every receiver may rely on, whatever the network did to the sender's
//! packets, and the worked numbers of the protocol notes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rtp::RtpPacket;
use crate::rtp::dependency_descriptor::{DescriptorError, History, rewrite};
use crate::rtp::vp8::{Descriptor, PictureId};

const OUTPUT: Ssrc = Ssrc(0xabc);
const MS: Duration = Duration::from_millis(1);

/// A VP8 packet of the tests, by the numbers that matter.
#[derive(Clone, Copy, Debug)]
struct Vp8Packet {
    encoding: u8,
    index: u64,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    temporal_id: u8,
    key: bool,
    starts: bool,
    ends: bool,
}

impl Vp8Packet {
    fn incoming(&self, arrival: Instant) -> IncomingVideo<'static> {
        IncomingVideo {
            encoding: self.encoding,
            index: PacketIndex(self.index),
            timestamp: self.timestamp,
            marker: self.ends,
            payload_type: PayloadType(100),
            arrival,
            codec: CodecView::Vp8(Descriptor {
                len: 6,
                start_of_frame: self.starts,
                key_frame: self.key && self.starts,
                picture_id: Some(PictureId {
                    value: self.picture_id & 0x7fff,
                    long: true,
                }),
                tl0_pic_idx: Some(self.tl0),
                temporal_id: Some(self.temporal_id),
            }),
        }
    }
}

/// A frame of `packets` packets from `index` on.
fn frame(of: Vp8Packet, packets: u64) -> Vec<Vp8Packet> {
    (0..packets)
        .map(|n| Vp8Packet {
            index: of.index + n,
            starts: n == 0,
            ends: n + 1 == packets,
            ..of
        })
        .collect()
}

/// Index and VP8 numbers of what came of a packet.
fn seen(rewrite: Option<Rewrite>) -> Option<(u64, u32, u16, u8)> {
    let rewrite = rewrite?;
    let CodecRewrite::Vp8 {
        picture_id,
        tl0_pic_idx,
    } = rewrite.codec
    else {
        panic!("not VP8: {rewrite:?}");
    };
    Some((rewrite.index.0, rewrite.timestamp, picture_id, tl0_pic_idx))
}

const TL0: Vp8Packet = Vp8Packet {
    encoding: 0,
    index: 10,
    timestamp: 90_000,
    picture_id: 5,
    tl0: 7,
    temporal_id: 0,
    key: false,
    starts: true,
    ends: true,
};

fn projection(target: LayerIndex) -> Projection {
    let mut projection = Projection::new(OUTPUT);
    projection.set_target(Some(target));
    projection
}

#[test]
fn a_switch_goes_on_by_one_frame_and_by_the_time_that_passed() {
    let start = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 0, 2));
    let first = Vp8Packet { key: true, ..TL0 };
    let (index, timestamp, ..) = seen(projection.project(&first.incoming(start))).expect("sent");
    projection.set_target(Some(LayerIndex::new(1, 0, 2)));
    assert!(projection.needs_keyframe());
    let other = Vp8Packet {
        encoding: 1,
        index: 5000,
        timestamp: 1,
        picture_id: 300,
        tl0: 20,
        key: true,
        ..TL0
    };
    let later = start + Duration::from_millis(400);
    assert_eq!(
        seen(projection.project(&other.incoming(later))),
        // 400 ms are twelve frames and a little.
        Some((index + 1, timestamp + 12 * 3000, 6, 8))
    );
    assert!(!projection.needs_keyframe());
    // The 100 ms of the worked example, within a group of key frames.
    let mut projection = self::projection(LayerIndex::new(1, 0, 2));
    let before = seen(projection.project(&first.incoming(start))).expect("sent");
    assert_eq!(
        seen(projection.project(&other.incoming(start + 100 * MS))),
        Some((before.0 + 1, before.1 + 9000, before.2 + 1, before.3 + 1))
    );
}

/// The frames of the notes' example of temporal layers: A to E.
fn temporal_example() -> [Vec<Vp8Packet>; 5] {
    let one = |index, picture_id, temporal_id, packets| {
        frame(
            Vp8Packet {
                index,
                timestamp: 90_000 + 3000 * u32::from(picture_id),
                picture_id,
                temporal_id,
                key: index == 10,
                ..TL0
            },
            packets,
        )
    };
    [
        one(10, 5, 0, 2),
        one(12, 6, 2, 1),
        one(13, 7, 1, 1),
        one(14, 8, 2, 1),
        one(15, 9, 0, 2),
    ]
}

#[test]
fn withheld_temporal_layers_leave_no_gap() {
    let now = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 0, 0));
    let [a, b, c, d, e] = temporal_example();
    let first: Vec<_> = a
        .iter()
        .map(|p| seen(projection.project(&p.incoming(now))).expect("sent"))
        .collect();
    for packet in b.iter().chain(&c).chain(&d) {
        assert_eq!(projection.project(&packet.incoming(now)), None);
    }
    let last: Vec<_> = e
        .iter()
        .map(|p| seen(projection.project(&p.incoming(now))).expect("sent"))
        .collect();
    let (index, timestamp, ..) = first[0];
    assert_eq!(first[1].0, index + 1);
    assert_eq!(first[1].2, 5);
    assert_eq!(
        last.iter().map(|p| (p.0, p.2)).collect::<Vec<_>>(),
        [(index + 2, 6), (index + 3, 6)]
    );
    assert_eq!(last[0].1 - timestamp, 4 * 3000);
}

#[test]
fn lost_packets_of_withheld_frames_leave_no_gap_but_unseen_frames_do() {
    let now = Instant::now();
    // A accepted, of B (withheld) the first packet seen and the second lost.
    let mut projection = projection(LayerIndex::new(0, 0, 0));
    let a = frame(Vp8Packet { key: true, ..TL0 }, 2);
    let index = seen(projection.project(&a[0].incoming(now)))
        .expect("sent")
        .0;
    projection.project(&a[1].incoming(now));
    let b = frame(
        Vp8Packet {
            index: 12,
            picture_id: 6,
            timestamp: 93_000,
            temporal_id: 1,
            ..TL0
        },
        2,
    );
    assert_eq!(projection.project(&b[0].incoming(now)), None);
    let c = Vp8Packet {
        index: 14,
        picture_id: 7,
        timestamp: 96_000,
        ..TL0
    };
    assert_eq!(
        seen(projection.project(&c.incoming(now))).map(|p| p.0),
        Some(index + 2)
    );

    // A accepted, and nothing seen of what lies before C.
    let mut projection = self::projection(LayerIndex::new(0, 0, 0));
    for packet in &a {
        projection.project(&packet.incoming(now));
    }
    assert_eq!(
        seen(projection.project(&c.incoming(now))).map(|p| (p.0, p.2)),
        Some((index + 4, 7))
    );
}

/// The late packets of a frame that was forwarded find their place; those of
/// one that was cut short by a switch do not, and nothing is sent twice.
#[test]
fn latecomers_map_as_their_frame_does() {
    let now = Instant::now();
    let mut projection = projection(LayerIndex::new(1, 0, 2));
    let a = frame(Vp8Packet { key: true, ..TL0 }, 3);
    let b = frame(
        Vp8Packet {
            index: 13,
            picture_id: 6,
            timestamp: 93_000,
            ..TL0
        },
        3,
    );
    let index = seen(projection.project(&a[0].incoming(now)))
        .expect("sent")
        .0;
    let mut out =
        |packet: &Vp8Packet, now| seen(projection.project(&packet.incoming(now))).map(|p| p.0);
    assert_eq!(out(&b[1], now), Some(index + 4));
    assert_eq!(out(&a[2], now), Some(index + 2));
    assert_eq!(out(&b[0], now), Some(index + 3));
    let other = Vp8Packet {
        encoding: 1,
        index: 900,
        key: true,
        picture_id: 77,
        ..TL0
    };
    assert_eq!(out(&other, now + MS), Some(index + 5));
    assert_eq!(out(&b[2], now + MS), None, "its place is taken");
    assert_eq!(out(&a[1], now + MS), Some(index + 1));
    assert_eq!(out(&a[1], now + MS), Some(index + 1), "the same again");
}

#[test]
fn a_suspended_source_resumes_on_a_key_frame_right_behind() {
    let now = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 0, 2));
    let key = Vp8Packet { key: true, ..TL0 };
    let (index, timestamp, ..) = seen(projection.project(&key.incoming(now))).expect("sent");
    assert_eq!(projection.rewrite_sender_report(0, 90_000), Some(timestamp));
    assert_eq!(projection.rewrite_sender_report(1, 90_000), None);
    projection.set_target(None);
    assert_eq!(projection.rewrite_sender_report(0, 90_000), None);
    let next = |n: u64, key| Vp8Packet {
        index: 10 + n,
        picture_id: 5 + n as u16,
        timestamp: 90_000 + 3000 * n as u32,
        key,
        ..TL0
    };
    assert_eq!(projection.project(&next(1, false).incoming(now)), None);
    projection.set_target(Some(LayerIndex::new(0, 0, 2)));
    assert_eq!(projection.project(&next(9, false).incoming(now)), None);
    assert!(projection.needs_keyframe());
    let later = now + 990 * MS;
    assert_eq!(
        seen(projection.project(&next(30, true).incoming(later))),
        Some((index + 1, timestamp + 30 * 3000, 6, 8))
    );
    assert!(!projection.needs_keyframe());
    // Older than the point of resumption: there is no room for it.
    assert_eq!(projection.project(&next(12, false).incoming(later)), None);
}

#[test]
fn a_restarted_encoder_goes_on_in_step() {
    let now = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 0, 2));
    let key = Vp8Packet { key: true, ..TL0 };
    let first = seen(projection.project(&key.incoming(now))).expect("sent");
    let restarted = Vp8Packet {
        index: 11,
        picture_id: 9000,
        timestamp: 93_000,
        ..key
    };
    assert_eq!(
        seen(projection.project(&restarted.incoming(now + 33 * MS))).map(|p| (p.0, p.1, p.2)),
        Some((first.0 + 1, first.1 + 3000, 6))
    );
}

#[test]
fn memory_is_bounded() {
    let now = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 0, 0));
    for n in 0..5000u64 {
        let packet = Vp8Packet {
            encoding: (n % 3) as u8,
            index: 10 + n / 3,
            picture_id: (n / 3) as u16,
            timestamp: 3000 * (n / 3) as u32,
            key: n == 0,
            ..TL0
        };
        projection.project(&packet.incoming(now));
    }
    let written = serde_json::to_string(&projection).expect("plain data");
    let frames = written.matches("\"timestamp_delta\"").count();
    assert!((500..510).contains(&frames), "{frames}");
    let all = written.matches("\"closed\"").count();
    assert!(all <= 500 + 2 * 64, "{all}");
}

// Random senders and networks.

/// A packet of a random sender, before the network.
#[derive(Clone, Debug)]
enum Media {
    Vp8(Vp8Packet),
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

/// A VP8 sender with three encodings and three temporal layers.
fn vp8_sender(
    pictures: &[Picture],
    firsts: [(u64, u16, u8); 3],
) -> Vec<(Duration, Option<u16>, Media)> {
    let mut next = firsts;
    let mut sent = Vec::new();
    let mut target = Some(2);
    for (n, picture) in pictures.iter().enumerate() {
        if let (Some(changed), 1..) = (picture.target, n) {
            target = changed.map(|t| (t / 3) << 6 | (t % 3));
        }
        let at = 33 * MS * n as u32;
        for (encoding, (index, picture_id, tl0)) in (0u8..).zip(&mut next) {
            let key = picture.key || n == 0;
            let temporal_id = if key { 0 } else { [0, 2, 1, 2][n % 4] };
            *tl0 = tl0.wrapping_add(u8::from(temporal_id == 0));
            let packets = picture.packets + u64::from(encoding);
            let of = Vp8Packet {
                encoding,
                index: *index,
                timestamp: 1_000_000 * u32::from(encoding) + 2970 * n as u32,
                picture_id: *picture_id,
                tl0: *tl0,
                temporal_id,
                key,
                starts: true,
                ends: true,
            };
            for packet in frame(of, packets) {
                sent.push((at, target, Media::Vp8(packet)));
            }
            *index += packets;
            *picture_id = picture_id.wrapping_add(1);
        }
    }
    sent
}

/// An AV1 sender in mode L3T3_KEY, its structure as a current Chromium sends it.
const L3T3_KEY: &str = "80a81485214eaaaaa8000600004000100002aa80a8000600004000100002a000a800060000\
400016d549241b5524906d54923157e001974ca864330e222396eca8655304224390eca87753013f00b3027f016704ff02cf";
const L1T3: &str = "8002\
14eaa860414d1410208427013f00b3";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn descriptor(starts: bool, ends: bool, template: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    let mut octets = vec![u8::from(starts) << 7 | u8::from(ends) << 6 | template];
    octets.extend_from_slice(&(number as u16).to_be_bytes());
    octets.extend_from_slice(rest);
    octets
}

fn av1_sender(pictures: &[Picture], first: (u64, u64)) -> Vec<(Duration, Option<u16>, Media)> {
    let structure = hex(L3T3_KEY);
    let (mut index, mut number) = first;
    let mut sent = Vec::new();
    let mut target = Some(8);
    let mut since_key = 0;
    for (n, picture) in pictures.iter().enumerate() {
        if let (Some(changed), 1..) = (picture.target, n) {
            target = changed;
        }
        let at = 33 * MS * n as u32;
        let key = picture.key || n == 0;
        since_key = if key { 0 } else { since_key + 1 };
        for spatial in 0u8..3 {
            // The structure's templates begin at 5, five for each layer.
            let template = 5 + 5 * spatial + if key { 0 } else { [1, 3, 2, 4][since_key % 4] };
            for packet in 0..picture.packets {
                let (starts, ends) = (packet == 0, packet + 1 == picture.packets);
                let brings = key && spatial == 0 && starts;
                let rest: &[u8] = if brings { &structure } else { &[] };
                sent.push((
                    at,
                    target,
                    Media::Dd(DdPacket {
                        encoding: 0,
                        index,
                        timestamp: 2970 * n as u32,
                        marker: spatial == 2 && ends,
                        descriptor: descriptor(starts, ends, template, number, rest),
                    }),
                ));
                index += 1;
            }
            number += 1;
        }
    }
    sent
}

/// Plays a delivery into a projection and answers what was forwarded: the
/// place of each packet with its rewrite, and the copy of its descriptor.
fn play(delivery: &mut Delivery) -> Vec<((u8, u64), Rewrite, Vec<u8>)> {
    let start = Instant::now();
    let mut projection = Projection::new(OUTPUT);
    let mut histories: HashMap<u8, History> = HashMap::new();
    let mut forwarded = Vec::new();
    for (n, (at, target, media)) in delivery.arrivals.iter().enumerate() {
        projection.set_target(target.map(LayerIndex));
        let arrival = start + *at;
        let mut copy = Vec::new();
        let rewritten = match media {
            Media::Vp8(packet) => projection.project(&packet.incoming(arrival)),
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
                let rewritten = projection.project(&IncomingVideo {
                    encoding: packet.encoding,
                    index,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload_type: PayloadType(41),
                    arrival,
                    codec: CodecView::Dd(&frame),
                });
                if let Some(Rewrite {
                    codec: CodecRewrite::Dd(with),
                    ..
                }) = &rewritten
                {
                    copy = rewrite(&packet.descriptor, with)
                        .expect("its own descriptor")
                        .as_slice()
                        .to_vec();
                }
                rewritten
            }
        };
        if let Some(rewritten) = rewritten {
            forwarded.push((media.place(), rewritten, copy));
        }
        // State that is written down and read again goes on the same.
        if n % 64 == 63 {
            let written = serde_json::to_string(&projection).expect("plain data");
            projection = serde_json::from_str(&written).expect("as written");
        }
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However packets are lost and overtaken while the receiver changes its
    /// mind: no number is given twice, what is missing was lost or late, and
    /// time and pictures go forward.
    #[test]
    fn vp8_is_one_stream_under_loss_and_reordering(
        pictures in pictures(9), fates in fates(), firsts: [(u32, u16, u8); 3],
    ) {
        let firsts = firsts.map(|(index, id, tl0)| (0x1_0000 + u64::from(index), id, tl0));
        let mut delivery = deliver(vp8_sender(&pictures, firsts), &fates);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
    }

    /// On a perfect network the numbers are consecutive, and so are pictures.
    #[test]
    fn vp8_is_one_stream_without_gaps(pictures in pictures(9), firsts: [(u32, u16, u8); 3]) {
        let firsts = firsts.map(|(index, id, tl0)| (0x1_0000 + u64::from(index), id, tl0));
        let mut delivery = deliver(vp8_sender(&pictures, firsts), &[]);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
        prop_assert!(!forwarded.is_empty());
        for pair in forwarded.windows(2) {
            prop_assert_eq!(pair[1].1.index.0, pair[0].1.index.0 + 1);
        }
    }

    #[test]
    fn av1_is_one_stream_under_loss_and_reordering(
        pictures in pictures(9), fates in fates(), first: u32, number: u16,
    ) {
        let first = (0x1_0000 + u64::from(first), u64::from(number));
        let mut delivery = deliver(av1_sender(&pictures, first), &fates);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
    }

    /// On a perfect network, moreover, a receiver can read every descriptor and
    /// has, or knows to have gone without by choice, each frame referred to.
    #[test]
    fn av1_is_one_decodable_stream(pictures in pictures(9), first: u32, number: u16) {
        let first = (0x1_0000 + u64::from(first), u64::from(number));
        let mut delivery = deliver(av1_sender(&pictures, first), &[]);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
        prop_assert!(!forwarded.is_empty());
        let mut history = History::default();
        let mut numbers = std::collections::HashSet::new();
        let mut unwrapper = crate::rtp::Unwrapper::default();
        for (n, (_, rewrite, copy)) in forwarded.iter().enumerate() {
            prop_assert_eq!(rewrite.index.0, forwarded[0].1.index.0 + n as u64);
            let frame = history.parse(rewrite.index, copy).expect("readable");
            let number = unwrapper.unwrap(frame.frame_number).0;
            if frame.start_of_frame {
                for diff in frame.diffs.as_slice() {
                    prop_assert!(numbers.contains(&(number - u64::from(*diff))), "{frame:?}");
                }
            }
            numbers.insert(number);
        }
        // The last packet of each picture is marked.
        for pair in forwarded.windows(2) {
            prop_assert_eq!(pair[0].1.marker, pair[0].1.timestamp != pair[1].1.timestamp);
        }
    }

    /// Whole encodings whose key frames are known, or not known at all.
    #[test]
    fn opaque_media_is_one_stream(
        pictures in pictures(9), fates in fates(), known: bool,
    ) {
        let delivery = deliver(vp8_sender(&pictures, [(70_000, 0, 0); 3]), &fates);
        let start = Instant::now();
        let mut projection = Projection::new(OUTPUT);
        let mut given = HashMap::new();
        for (at, target, media) in &delivery.arrivals {
            projection.set_target(target.map(LayerIndex));
            let Media::Vp8(packet) = media else { unreachable!() };
            let incoming = IncomingVideo {
                codec: CodecView::Opaque { key: known.then_some(packet.key) },
                ..packet.incoming(start + *at)
            };
            if let Some(rewrite) = projection.project(&incoming) {
                let twice = given.insert(rewrite.index, media.place());
                prop_assert!(twice.is_none(), "{:?} given twice", rewrite.index);
                prop_assert_eq!(rewrite.codec, CodecRewrite::None);
            }
        }
    }
}

/// Plays one AV1 packet per frame into a projection: (encoding, index, first
/// octet of the descriptor's template, frame number, rest), and answers the
/// receiver's descriptors.
fn descriptors(
    projection: &mut Projection,
    histories: &mut [History; 2],
    packets: &[(u8, u64, u8, u64, &[u8])],
) -> Vec<Option<Vec<u8>>> {
    let now = Instant::now();
    packets
        .iter()
        .map(|(encoding, index, template, number, rest)| {
            let octets = descriptor(true, true, *template, *number, rest);
            let frame = histories[usize::from(*encoding)]
                .parse(PacketIndex(*index), &octets)
                .expect("readable");
            let rewritten = projection.project(&IncomingVideo {
                encoding: *encoding,
                index: PacketIndex(*index),
                timestamp: 3000 * *index as u32,
                marker: true,
                payload_type: PayloadType(41),
                arrival: now,
                codec: CodecView::Dd(&frame),
            })?;
            let CodecRewrite::Dd(with) = rewritten.codec else {
                panic!("{rewritten:?}");
            };
            Some(
                rewrite(&octets, &with)
                    .expect("its own")
                    .as_slice()
                    .to_vec(),
            )
        })
        .collect()
}

#[test]
fn the_structure_offset_goes_on_after_a_switch_and_a_full_mask_is_left_out() {
    let structure = hex(L1T3);
    let mut histories: [History; 2] = Default::default();
    let mut projection = projection(LayerIndex::of_target(1, 2));
    let out = descriptors(
        &mut projection,
        &mut histories,
        &[
            (0, 100, 0, 50, &structure),
            (1, 200, 0, 9, &structure),
            (1, 201, 3, 10, &[]),
        ],
    );
    // The first keeps its numbers; with all targets active there is no mask.
    let first = out[0].as_ref().expect("sent");
    assert_eq!(first[..], descriptor(true, true, 0, 50, &structure)[..]);
    // The second follows frame 50, its templates those of the first, 0 to 4.
    let second = out[1].as_ref().expect("sent");
    let frame = History::default()
        .parse(PacketIndex(0), second)
        .expect("readable");
    assert_eq!((second[0] & 63, frame.frame_number), (5, 51));
    assert_eq!(frame.structure.template_id_offset, 5);
    assert!(!frame.carries_mask);
    let third = out[2].as_ref().expect("sent");
    assert_eq!(third[..], [0xc0 | 8, 0, 52], "in the smallest size");
}

#[test]
fn a_lower_target_gets_a_mask_and_a_higher_one_waits_for_a_key_frame() {
    let structure = hex(L3T3_KEY);
    let mut histories: [History; 2] = Default::default();
    let mut projection = projection(LayerIndex::of_target(0, 4));
    let out = descriptors(
        &mut projection,
        &mut histories,
        &[
            (0, 100, 5, 1, &structure),
            (0, 101, 10, 2, &[]),
            (0, 102, 15, 3, &[]),
            (0, 103, 8, 4, &[]),
            (0, 104, 13, 5, &[]),
        ],
    );
    let key = History::default()
        .parse(PacketIndex(0), out[0].as_ref().expect("sent"))
        .expect("readable");
    // 360 lines without the highest temporal layer: targets 3 and 4.
    assert!(key.carries_mask);
    assert_eq!(key.active_targets, 0b11000);
    assert!(
        out[1].is_some(),
        "the second spatial layer of the key frame"
    );
    assert_eq!(out[2..], [None, None, None]);
    assert!(!projection.needs_keyframe());

    // Up in time: possible at the next frame of the base temporal layer.
    projection.set_target(Some(LayerIndex::of_target(0, 5)));
    let out = descriptors(&mut projection, &mut histories, &[(0, 114, 11, 14, &[])]);
    assert!(!projection.needs_keyframe());
    let up = out[0].as_ref().expect("sent");
    assert!(up.len() > 3, "the new mask is told");
    // Up in space: only by a key frame.
    projection.set_target(Some(LayerIndex::of_target(0, 8)));
    let out = descriptors(&mut projection, &mut histories, &[(0, 117, 14, 17, &[])]);
    assert!(out[0].is_some() && projection.needs_keyframe());
}

#[test]
fn a_codec_that_comes_back_goes_on_with_its_frame_numbers_and_templates() {
    let structure = hex(L1T3);
    let mut histories: [History; 2] = Default::default();
    let mut projection = projection(LayerIndex::of_target(0, 2));
    descriptors(
        &mut projection,
        &mut histories,
        &[(0, 100, 0, 50, &structure), (0, 101, 3, 51, &[])],
    );
    let now = Instant::now();
    let key = Vp8Packet {
        index: 102,
        key: true,
        ..TL0
    };
    let vp8 = projection.project(&key.incoming(now)).expect("sent");
    assert_eq!(vp8.index, PacketIndex(4));
    // A latecomer of the other codec does not bring it back.
    let late = descriptors(
        &mut projection,
        &mut histories,
        &[(0, 99, 0, 49, &structure)],
    );
    assert_eq!(late, [None]);
    let back = descriptors(
        &mut projection,
        &mut histories,
        &[(0, 103, 0, 7, &structure)],
    );
    let back = History::default()
        .parse(PacketIndex(0), back[0].as_ref().expect("sent"))
        .expect("readable");
    assert_eq!(
        (back.frame_number, back.structure.template_id_offset),
        (52, 5)
    );
}

/// A received VP8 packet with extensions that are kept, dropped and added.
#[test]
fn the_outgoing_packet_has_what_the_receiver_shall_have() {
    let mut received = vec![0xb1, 0xe4, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 7, 9, 9, 9, 9];
    received.extend_from_slice(&[0xbe, 0xde, 0, 3, 0x10, 0x85, 0x51, 1, 2, 0x30, 7]);
    received.extend_from_slice(&[0xb2, 1, 2, 3, 0]);
    received.extend_from_slice(&[0x90, 0xe0, 0x81, 0x2c, 20, 0x80, 0x55, 0x66, 0, 2]);
    let view = RtpPacket::parse(&received).expect("valid");
    let rewrite = Rewrite {
        ssrc: OUTPUT,
        index: PacketIndex(0x2_0001),
        timestamp: 0x0102_0304,
        marker: false,
        codec: CodecRewrite::Vp8 {
            picture_id: 41,
            tl0_pic_idx: 8,
        },
    };
    let extensions = EgressExtensions {
        keep: IdSet::from_iter([1, 13]),
        dependency_descriptor: Some(11),
        transport_cc: Some((5, 0xaabb)),
        abs_send_time: Some((3, 0x01_0203)),
    };
    let mut out = vec![0xff];
    write_packet(&view, &rewrite, &extensions, &mut out);
    let header = [0x91, 0x64, 0, 1, 1, 2, 3, 4, 0, 0, 0x0a, 0xbc, 9, 9, 9, 9];
    let block = [
        0xbe, 0xde, 0, 3, 0x10, 0x85, 0x32, 1, 2, 3, 0x51, 0xaa, 0xbb, 0, 0, 0,
    ];
    let payload = [0x90, 0xe0, 0x80, 41, 8, 0x80, 0x55, 0x66];
    assert_eq!(out[0], 0xff, "what was there stays");
    assert_eq!(out[1..], [&header[..], &block, &payload].concat());

    let mut out = Vec::new();
    let rtx = RtxHeader {
        payload_type: PayloadType(96),
        ssrc: Ssrc(5),
        index: PacketIndex(77),
    };
    write_rtx(&view, &rewrite, &rtx, &extensions, &mut out);
    let resent = RtpPacket::parse(&out).expect("valid");
    assert_eq!(resent.payload_type(), rtx.payload_type);
    assert_eq!((resent.ssrc(), resent.sequence_number()), (Ssrc(5), 77));
    assert_eq!(resent.timestamp(), rewrite.timestamp);
    assert_eq!(resent.payload(), [&[0, 1][..], &payload].concat());
}

#[test]
fn a_long_descriptor_is_written_in_the_two_byte_form() {
    let octets = descriptor(true, true, 5, 112, &hex(L3T3_KEY));
    let frame = History::default()
        .parse(PacketIndex(0), &octets)
        .expect("readable");
    let mut received = vec![0x90, 41, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 0x10, 0, 0, 0];
    received.extend_from_slice(&[5, 2, 1, 2, 11, octets.len() as u8]);
    received.extend_from_slice(&octets);
    while !(received.len() - 16).is_multiple_of(4) {
        received.push(0);
    }
    received[15] = ((received.len() - 16) / 4) as u8;
    received.extend_from_slice(b"payload");
    let view = RtpPacket::parse(&received).expect("valid");
    let with = |rewrite| Rewrite {
        ssrc: OUTPUT,
        index: PacketIndex(1),
        timestamp: 1,
        marker: true,
        codec: CodecRewrite::Dd(rewrite),
    };
    let extensions = EgressExtensions {
        dependency_descriptor: Some(11),
        transport_cc: Some((5, 9)),
        ..EgressExtensions::default()
    };
    for mask in [None, Some(0b111)] {
        let rewrite = with(DescriptorRewrite::new(&frame, 7, 60, mask));
        let mut out = Vec::new();
        write_packet(&view, &rewrite, &extensions, &mut out);
        let written = RtpPacket::parse(&out).expect("valid");
        assert_eq!(written.payload(), b"payload");
        assert_eq!(written.extension(5), Some(&[0, 9][..]));
        let read = History::default()
            .parse(PacketIndex(0), written.extension(11).expect("kept"))
            .expect("readable");
        assert_eq!(read.frame_number, 7);
        // Modulo 64: 5 and 60 make 1.
        assert_eq!(read.structure.template_id_offset, 1);
        assert_eq!(read.structure.templates, frame.structure.templates);
        assert_eq!(read.structure.resolutions, frame.structure.resolutions);
        assert_eq!(read.active_targets, mask.unwrap_or(0x1ff));
        assert_eq!(read.dtis, frame.dtis);
    }
}
