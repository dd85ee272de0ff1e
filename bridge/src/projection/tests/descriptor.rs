//! Everything with a dependency descriptor: AV1 in its scalability modes, and
//! simulcast.

use super::*;

/// A structure as a current Chromium sends it for L3T3_KEY, and for L1T3. Behind
/// the mandatory octets of the descriptor.
pub(super) const L3T3_KEY: &str = "80a81485214eaaaaa8000600004000100002aa80a8000600004000100002a000a800060000\
400016d549241b5524906d54923157e001974ca864330e222396eca8655304224390eca87753013f00b3027f016704ff02cf";
const L1T3: &str = "8002\
14eaa860414d1410208427013f00b3";

/// A scalability mode: its layers, and whether spatial layers build on each
/// other in key pictures only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    spatial: u8,
    temporal: u8,
    key: bool,
}

pub(super) const fn mode(spatial: u8, temporal: u8, key: bool) -> Mode {
    Mode {
        spatial,
        temporal,
        key,
    }
}

const MODES: [Mode; 8] = [
    mode(1, 1, false),
    mode(1, 2, false),
    mode(1, 3, false),
    mode(2, 1, false),
    mode(2, 2, true),
    mode(3, 1, false),
    mode(3, 3, false),
    mode(3, 3, true),
];

impl Mode {
    /// The kinds of frames of each spatial layer, as (temporal id, pictures
    /// back to the one it refers to): of key pictures, then of others.
    fn kinds(self) -> &'static [(u8, u64)] {
        match self.temporal {
            1 => &[(0, 0), (0, 1)],
            2 => &[(0, 0), (0, 2), (1, 1)],
            _ => &[(0, 0), (0, 4), (1, 2), (2, 1), (2, 1)],
        }
    }

    /// The kind of a picture by how many came since the key picture.
    fn kind(self, since_key: usize) -> usize {
        match (self.temporal, since_key) {
            (_, 0) => 0,
            (1, _) => 1,
            // The first pictures after a key picture count from that.
            (2, n) => [1, 2][n % 2],
            (_, n) => [1, 3, 2, 4][n % 4],
        }
    }

    /// What a frame is to a decode target: not there 0, discardable 1, switch
    /// 2, required 3.
    fn indication(self, (spatial, kind): (u8, usize), (of_spatial, of_temporal): (u8, u8)) -> u32 {
        let (temporal, _) = self.kinds()[kind];
        let alone = self.key && kind > 0;
        if temporal > of_temporal || spatial > of_spatial || alone && spatial != of_spatial {
            0
        } else if spatial < of_spatial {
            3
        } else if temporal == of_temporal && temporal > 0 {
            1
        } else {
            2
        }
    }

    /// The structure, behind the mandatory octets.
    fn structure(self, offset: u8) -> Vec<u8> {
        let mut bits = Vec::new();
        let mut write = |value: u32, count: u32| {
            bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        };
        let kinds = self.kinds();
        let frames = || (0..self.spatial).flat_map(|s| (0..kinds.len()).map(move |k| (s, k)));
        let targets = || (0..self.spatial).flat_map(|s| (0..self.temporal).map(move |t| (s, t)));
        write(0b10000, 5);
        write(offset.into(), 6);
        write(u32::from(self.spatial * self.temporal) - 1, 5);
        for (spatial, kind) in frames() {
            let next = match kinds.get(kind + 1) {
                Some((temporal, _)) => u32::from(*temporal > kinds[kind].0),
                None if spatial + 1 < self.spatial => 2,
                None => 3,
            };
            write(next, 2);
        }
        for frame in frames() {
            for target in targets() {
                write(self.indication(frame, target), 2);
            }
        }
        for (spatial, kind) in frames() {
            let (_, back) = kinds[kind];
            if kind > 0 {
                write(1, 1);
                write(back as u32 * u32::from(self.spatial) - 1, 4);
            }
            if spatial > 0 && (kind == 0 || !self.key) {
                write(1, 1);
                write(0, 4);
            }
            write(0, 1);
        }
        // No chains: a zero below the number of targets plus one.
        let targets = u32::from(self.spatial * self.temporal) + 1;
        write(0, u32::BITS - targets.leading_zeros() - 1);
        write(0, 1);
        bits.chunks(8)
            .map(|octet| {
                let bits = octet.iter().zip((0..8).rev());
                bits.fold(0, |octet, (bit, at)| octet | u8::from(*bit) << at)
            })
            .collect()
    }
}

pub(super) fn hex(text: &str) -> Vec<u8> {
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

pub(super) fn descriptor(
    starts: bool,
    ends: bool,
    template: u8,
    number: u64,
    rest: &[u8],
) -> Vec<u8> {
    let mut octets = vec![u8::from(starts) << 7 | u8::from(ends) << 6 | template];
    octets.extend_from_slice(&(number as u16).to_be_bytes());
    octets.extend_from_slice(rest);
    octets
}

/// A sender with an encoding in each of these modes. With one mode, that of
/// L3T3_KEY may have the recorded structure.
pub(super) fn sender(
    pictures: &[Picture],
    modes: &[Mode],
    recorded: bool,
    firsts: [(u32, u16); 3],
) -> Vec<(Duration, Option<u16>, Media)> {
    let mut next = firsts.map(|(index, number)| (0x1_0000 + u64::from(index), u64::from(number)));
    let mut sent = Vec::new();
    let mut target = Some(8);
    let mut since_key = 0;
    for (n, picture) in pictures.iter().enumerate() {
        if let (Some(changed), 1..) = (picture.target, n) {
            // Three encodings: the target's encoding and temporal layer.
            target = changed.map(|t| {
                if modes.len() > 1 {
                    ((t / 3) << 6) | (t % 3)
                } else {
                    t
                }
            });
        }
        let at = 33 * MS * n as u32;
        let key = picture.key || n == 0;
        since_key = if key { 0 } else { since_key + 1 };
        for (encoding, (mode, (index, number))) in (0u8..).zip(modes.iter().zip(&mut next)) {
            let offset = if recorded { 5 } else { 60 + encoding };
            let structure = if recorded {
                hex(L3T3_KEY)
            } else {
                mode.structure(offset)
            };
            for spatial in 0..mode.spatial {
                let kinds = mode.kinds().len() as u8;
                let template = (offset + kinds * spatial + mode.kind(since_key) as u8) % 64;
                for packet in 0..picture.packets {
                    let (starts, ends) = (packet == 0, packet + 1 == picture.packets);
                    let brings = key && spatial == 0 && starts;
                    let rest: &[u8] = if brings { &structure } else { &[] };
                    sent.push((
                        at,
                        target,
                        Media::Dd(DdPacket {
                            encoding,
                            index: *index,
                            timestamp: 1_000_000 * u32::from(encoding) + 2970 * n as u32,
                            marker: spatial + 1 == mode.spatial && ends,
                            descriptor: descriptor(starts, ends, template, *number, rest),
                        }),
                    ));
                    *index += 1;
                }
                *number += 1;
            }
        }
    }
    sent
}

/// One encoding in some mode, or simulcast of three; whether the structure is
/// the recorded one.
pub(super) fn modes() -> impl Strategy<Value = (Vec<Mode>, bool)> {
    prop_oneof![
        Just((vec![mode(3, 3, true)], true)),
        prop::sample::select(&MODES[..]).prop_map(|mode| (vec![mode], false)),
        prop::sample::select(&MODES[..3]).prop_map(|mode| (vec![mode; 3], false)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_mode_is_one_stream_under_loss_and_reordering(
        pictures in pictures(9), fates in fates(), (modes, recorded) in modes(),
        firsts: [(u32, u16); 3],
    ) {
        let mut delivery = deliver(sender(&pictures, &modes, recorded, firsts), &fates);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
    }

    /// On a perfect network, moreover, a receiver can read every descriptor and
    /// has each frame referred to.
    #[test]
    fn any_mode_is_one_decodable_stream(
        pictures in pictures(9), (modes, recorded) in modes(), firsts: [(u32, u16); 3],
    ) {
        let mut delivery = deliver(sender(&pictures, &modes, recorded, firsts), &[]);
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
        ..vp8::TL0
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
