//! VP8 simulcast with temporal layers.

use super::*;
use crate::rtp::picture_id::PictureId;
use crate::rtp::vp8::Descriptor;

/// A VP8 packet of the tests, by the numbers that matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vp8Packet {
    pub(super) encoding: u8,
    pub(super) index: u64,
    pub(super) timestamp: u32,
    pub(super) picture_id: u16,
    pub(super) tl0: u8,
    pub(super) temporal_id: u8,
    pub(super) key: bool,
    pub(super) starts: bool,
    pub(super) ends: bool,
}

impl Vp8Packet {
    pub(super) fn incoming(&self, arrival: Instant) -> IncomingVideo<'static> {
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

pub(super) const TL0: Vp8Packet = Vp8Packet {
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

/// Two seconds of frames are remembered, and 500 however fast they come.
#[test]
fn memory_is_bounded() {
    let now = Instant::now();
    for (ticks, most) in [(3000, 62), (1, 502)] {
        let mut projection = projection(LayerIndex::new(0, 0, 0));
        for n in 0..5000u64 {
            let packet = Vp8Packet {
                encoding: (n % 3) as u8,
                index: 10 + n / 3,
                picture_id: (n / 3) as u16,
                timestamp: ticks * (n / 3) as u32,
                key: n == 0,
                ..TL0
            };
            projection.project(&packet.incoming(now));
        }
        let written = serde_json::to_string(&projection).expect("plain data");
        let frames = written.matches("\"timestamp_delta\"").count();
        assert!((most - 2..=most).contains(&frames), "{frames}");
        let all = written.matches("\"closed\"").count();
        assert!(all <= most + 2 * 16, "{all}");
    }
}

/// A VP8 sender with three encodings and three temporal layers.
pub(super) fn vp8_sender(
    pictures: &[Picture],
    firsts: [(u64, u16, u8); 3],
) -> Vec<(Duration, Option<u16>, Media)> {
    let mut next = firsts;
    let mut sent = Vec::new();
    let mut target = Some(2);
    for (n, picture) in pictures.iter().enumerate() {
        if let (Some(changed), 1..) = (picture.target, n) {
            target = changed.map(|t| ((t / 3) << 6) | (t % 3));
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
}
