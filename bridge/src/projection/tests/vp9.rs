//! VP9: simulcast, SVC and K-SVC, in flexible and non-flexible mode.

use super::*;
use crate::rtp::vp9::Descriptor;

/// A VP9 packet of the tests.
#[derive(Clone, Debug)]
pub(super) struct Vp9Packet {
    pub(super) encoding: u8,
    pub(super) index: u64,
    timestamp: u32,
    marker: bool,
    pub(super) payload: Vec<u8>,
}

impl Vp9Packet {
    pub(super) fn incoming(&self, arrival: Instant) -> IncomingVideo<'static> {
        IncomingVideo {
            encoding: self.encoding,
            index: PacketIndex(self.index),
            timestamp: self.timestamp,
            marker: self.marker,
            payload_type: PayloadType(101),
            arrival,
            codec: CodecView::vp9(&self.payload).expect("a valid descriptor"),
        }
    }
}

/// How a source is coded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// Number of encodings, and of spatial layers in each.
    encodings: u8,
    spatial: u8,
    /// Spatial layers build on each other in key pictures only.
    key: bool,
    flexible: bool,
    long_ids: bool,
}

pub(super) fn modes() -> impl Strategy<Value = Mode> {
    let layers =
        prop::sample::select(&[(3, 1, false), (1, 1, false), (1, 3, false), (1, 3, true)][..]);
    (layers, any::<bool>(), any::<bool>()).prop_map(|(layers, flexible, long_ids)| Mode {
        encodings: layers.0,
        spatial: layers.1,
        key: layers.2,
        flexible,
        long_ids,
    })
}

/// A frame of the tests, and the payload descriptor that tells of it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    picture_id: u16,
    tl0: u8,
    spatial_id: u8,
    temporal_id: u8,
    /// How many pictures back the one lies that it refers to; 0: none.
    back: u8,
    inter_layer: bool,
    /// Another spatial layer of its picture refers to it.
    referenced: bool,
}

impl Frame {
    fn payload(self, mode: Mode, starts: bool, ends: bool) -> Vec<u8> {
        let inter_picture = self.back > 0;
        let structure = !inter_picture && starts && self.spatial_id == 0;
        let flags = [
            true,
            inter_picture,
            true,
            mode.flexible,
            starts,
            ends,
            structure,
            !self.referenced,
        ];
        let first = flags
            .iter()
            .fold(0, |octet, flag| octet << 1 | u8::from(*flag));
        let mut payload = vec![first];
        if mode.long_ids {
            payload.extend_from_slice(&(self.picture_id | 0x8000).to_be_bytes());
        } else {
            payload.push(self.picture_id as u8 & 0x7f);
        }
        let layers = self.temporal_id << 5 | 0x10 | self.spatial_id << 1;
        payload.push(layers | u8::from(self.inter_layer));
        if !mode.flexible {
            payload.push(self.tl0);
        } else if inter_picture {
            payload.push(self.back << 1);
        }
        if structure {
            payload.push((mode.spatial - 1) << 5 | 0x10);
            for spatial in 0..mode.spatial {
                payload.extend_from_slice(&(320u16 << spatial).to_be_bytes());
                payload.extend_from_slice(&(180u16 << spatial).to_be_bytes());
            }
        }
        payload.push(0x82);
        payload
    }
}

/// What a sender's frame refers to: its own place and those places, as
/// (encoding, picture, spatial layer).
pub(super) type References = HashMap<(u8, u64), ((u8, usize, u8), Vec<(u8, usize, u8)>)>;

/// A sender with three temporal layers, and what each of its packets needs.
pub(super) fn sender(
    pictures: &[Picture],
    mode: Mode,
    firsts: [(u32, u16, u8); 3],
) -> (Vec<(Duration, Option<u16>, Media)>, References) {
    let mut next = firsts.map(|(index, id, tl0)| (0x1_0000 + u64::from(index), id, tl0));
    let mut sent = Vec::new();
    let mut references = References::new();
    let mut target = Some(LayerIndex::new(0, 2, 2).0);
    let mut since_key = 0;
    for (n, picture) in pictures.iter().enumerate() {
        if let (Some(changed), 1..) = (picture.target, n) {
            target = changed.map(|t| {
                let (layer, temporal) = ((t / 3) as u8, (t % 3) as u8);
                match mode.encodings {
                    1 => LayerIndex::new(0, layer, temporal).0,
                    _ => LayerIndex::new(layer, 0, temporal).0,
                }
            });
        }
        let at = 33 * MS * n as u32;
        let key = picture.key || n == 0;
        since_key = if key { 0 } else { since_key + 1 };
        let (temporal_id, back) = match since_key {
            0 => (0, 0),
            n => [(0, 4), (2, 1), (1, 2), (2, 1)][n % 4],
        };
        for encoding in 0..mode.encodings {
            let (index, picture_id, tl0) = &mut next[usize::from(encoding)];
            *tl0 = tl0.wrapping_add(u8::from(temporal_id == 0));
            for spatial_id in 0..mode.spatial {
                let joined = mode.spatial > 1 && (key || !mode.key);
                let frame = Frame {
                    picture_id: *picture_id & 0x7fff,
                    tl0: *tl0,
                    spatial_id,
                    temporal_id,
                    back,
                    inter_layer: joined && spatial_id > 0,
                    referenced: joined && spatial_id + 1 < mode.spatial,
                };
                let mut needs = Vec::new();
                if back > 0 {
                    needs.push((encoding, n - usize::from(back), spatial_id));
                }
                if frame.inter_layer {
                    needs.push((encoding, n, spatial_id - 1));
                }
                for packet in 0..picture.packets {
                    let (starts, ends) = (packet == 0, packet + 1 == picture.packets);
                    references.insert(
                        (encoding, *index),
                        ((encoding, n, spatial_id), needs.clone()),
                    );
                    sent.push((
                        at,
                        target,
                        Media::Vp9(Vp9Packet {
                            encoding,
                            index: *index,
                            timestamp: 1_000_000 * u32::from(encoding) + 2970 * n as u32,
                            marker: spatial_id + 1 == mode.spatial && ends,
                            payload: frame.payload(mode, starts, ends),
                        }),
                    ));
                    *index += 1;
                }
            }
            *picture_id = picture_id.wrapping_add(1);
        }
    }
    (sent, references)
}

/// The numbers of a forwarded packet as its receiver reads them.
fn read(copy: &[u8]) -> (Descriptor, u16) {
    let descriptor = Descriptor::parse(copy).expect("as valid as before");
    let id = descriptor.picture_id.expect("always there");
    (descriptor, id.value % id.modulus())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_mode_is_one_stream_under_loss_and_reordering(
        pictures in pictures(9), fates in fates(), mode in modes(), firsts: [(u32, u16, u8); 3],
    ) {
        let mut delivery = deliver(sender(&pictures, mode, firsts).0, &fates);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
    }

    /// On a perfect network, moreover, numbers are consecutive, each frame
    /// referred to was sent and is found under the number that names it, and
    /// the last packet of each picture is marked.
    #[test]
    fn any_mode_is_one_decodable_stream(
        pictures in pictures(9), mode in modes(), firsts: [(u32, u16, u8); 3],
    ) {
        let (sent, references) = sender(&pictures, mode, firsts);
        let mut delivery = deliver(sent, &[]);
        let forwarded = play(&mut delivery);
        check(&delivery, &forwarded)?;
        prop_assert!(!forwarded.is_empty());
        let mut had = HashMap::new();
        for (n, (place, rewrite, copy)) in forwarded.iter().enumerate() {
            prop_assert_eq!(rewrite.index.0, forwarded[0].1.index.0 + n as u64);
            let (descriptor, id) = read(copy);
            let (frame, needs) = &references[place];
            for needed in needs {
                prop_assert!(had.contains_key(needed), "{needed:?} for {frame:?}");
            }
            if let (Some(back), Some(needed)) = (descriptor.references().first(), needs.first()) {
                let named = id.wrapping_sub((*back).into());
                let same = if mode.long_ids { 0x7fff } else { 0x7f };
                prop_assert_eq!(had[needed], named & same);
            }
            had.insert(*frame, id);
        }
        for pair in forwarded.windows(2) {
            let new = pair[0].1.timestamp != pair[1].1.timestamp;
            prop_assert_eq!(pair[0].1.marker, new);
            let [(before, from), (after, to)] = [read(&pair[0].2), read(&pair[1].2)];
            prop_assert_eq!(from != to, new, "PictureIDs of {:?}", pair);
            if let (Some(before), Some(after)) = (before.tl0_pic_idx, after.tl0_pic_idx) {
                prop_assert!(after.wrapping_sub(before) < 128, "TL0PICIDX of {:?}", pair);
            }
        }
    }
}

const KSVC: Mode = Mode {
    encodings: 1,
    spatial: 3,
    key: true,
    flexible: true,
    long_ids: true,
};
const SVC: Mode = Mode { key: false, ..KSVC };

/// Pictures of one packet a layer; `key` are key pictures.
fn plain(count: usize, key: &[usize]) -> Vec<Picture> {
    let picture = |n| Picture {
        packets: 1,
        key: key.contains(&n),
        target: None,
    };
    (0..count).map(picture).collect()
}

/// Feeds pictures, in turn with a target, and answers the layers sent of each,
/// with a key frame wanted behind it.
fn layers_sent(
    mode: Mode,
    pictures: &[Picture],
    target: impl Fn(usize) -> Option<LayerIndex>,
) -> Vec<(Vec<u8>, bool)> {
    let (sent, references) = sender(pictures, mode, [(0, 0, 0); 3]);
    let start = Instant::now();
    let mut projection = Projection::new(OUTPUT);
    let mut found = vec![(Vec::new(), false); pictures.len()];
    for (at, _, media) in sent {
        let Media::Vp9(packet) = &media else {
            unreachable!("a VP9 sender")
        };
        let (_, picture, spatial_id) = references[&media.place()].0;
        projection.set_target(target(picture));
        if projection.project(&packet.incoming(start + at)).is_some() {
            found[picture].0.push(spatial_id);
        }
        found[picture].1 = projection.needs_keyframe();
    }
    found
}

fn layer(spatial_id: u8, temporal_id: u8) -> Option<LayerIndex> {
    Some(LayerIndex::new(0, spatial_id, temporal_id))
}

#[test]
fn k_svc_sends_one_layer_and_changes_it_on_key_pictures() {
    let pictures = plain(24, &[0, 8, 16]);
    let sent = layers_sent(KSVC, &pictures, |n| match n {
        0..4 => layer(1, 2),
        4..13 => layer(2, 2),
        _ => layer(0, 2),
    });
    assert_eq!(sent[0], (vec![0, 1], false));
    for picture in &sent[1..4] {
        assert_eq!(*picture, (vec![1], false));
    }
    // Up: not before a key picture, which is asked for.
    for picture in &sent[4..8] {
        assert_eq!(*picture, (vec![1], true));
    }
    assert_eq!(sent[8], (vec![0, 1, 2], false));
    assert_eq!(sent[12], (vec![2], false));
    // Down: neither, and meanwhile only the base temporal layer is sent.
    for picture in &sent[13..16] {
        assert_eq!(*picture, (vec![], true));
    }
    assert_eq!(sent[16], (vec![0], false));
    assert_eq!(sent[23], (vec![0], false));
}

#[test]
fn svc_sends_a_layer_with_those_below_and_goes_down_at_once() {
    let pictures = plain(16, &[0, 12]);
    let sent = layers_sent(SVC, &pictures, |n| match n {
        0..4 => layer(2, 2),
        4..8 => layer(1, 2),
        _ => layer(2, 2),
    });
    assert_eq!(sent[1], (vec![0, 1, 2], false));
    assert_eq!(sent[4], (vec![0, 1], false));
    assert_eq!(sent[8], (vec![0, 1], true));
    assert_eq!(sent[12], (vec![0, 1, 2], false));
}

#[test]
fn temporal_layers_are_taken_up_where_nothing_is_missing() {
    for flexible in [true, false] {
        let mode = Mode { flexible, ..KSVC };
        let pictures = plain(12, &[0]);
        // Temporal ids: 0 2 1 2, again and again.
        let sent = layers_sent(mode, &pictures, |n| layer(0, if n < 6 { 0 } else { 2 }));
        let sent: Vec<_> = (0..12).filter(|n| !sent[*n].0.is_empty()).collect();
        // The picture at 6 refers to the one at 4; that at 7 to 6.
        assert_eq!(sent, [0, 4, 6, 7, 8, 9, 10, 11], "{flexible}");
        // At 7 it would be too late: what it refers to was not sent.
        let sent = layers_sent(mode, &pictures, |n| layer(0, if n < 7 { 0 } else { 2 }));
        let sent: Vec<_> = (0..12).filter(|n| !sent[*n].0.is_empty()).collect();
        assert_eq!(sent, [0, 4, 8, 9, 10, 11], "{flexible}");
    }
}

#[test]
fn a_structure_with_fewer_layers_ends_the_higher_ones() {
    let start = Instant::now();
    let mut projection = projection(LayerIndex::new(0, 2, 2));
    let frame = |picture_id, spatial_id, spatial| {
        let frame = Frame {
            picture_id,
            tl0: 0,
            spatial_id,
            temporal_id: 0,
            back: 0,
            inter_layer: spatial_id > 0,
            referenced: spatial_id + 1 < spatial,
        };
        let mode = Mode { spatial, ..KSVC };
        Vp9Packet {
            encoding: 0,
            index: 70_000 + u64::from(picture_id) * 3 + u64::from(spatial_id),
            timestamp: 3000 * u32::from(picture_id),
            marker: spatial_id + 1 == spatial,
            payload: frame.payload(mode, true, true),
        }
    };
    let mut markers = Vec::new();
    for (picture_id, spatial) in [(1, 3), (2, 1), (3, 2)] {
        for spatial_id in 0..spatial {
            let packet = frame(picture_id, spatial_id, spatial);
            let rewrite = projection.project(&packet.incoming(start));
            markers.push(rewrite.expect("sent").marker);
        }
    }
    assert_eq!(markers, [false, false, true, true, false, true]);
    assert!(!projection.needs_keyframe());
}

#[test]
fn lost_packets_of_layers_that_are_not_sent_leave_no_gap() {
    let start = Instant::now();
    let pictures = plain(12, &[0]);
    let (sent, references) = sender(&pictures, KSVC, [(0, 0, 0); 3]);
    let mut projection = projection(LayerIndex::new(0, 0, 2));
    let mut indices = Vec::new();
    for (at, _, media) in &sent {
        let Media::Vp9(packet) = media else {
            unreachable!("a VP9 sender")
        };
        let (_, picture, spatial_id) = references[&media.place()].0;
        // The highest layer, the one below, or both.
        let lost: &[u8] = [&[][..], &[2], &[1], &[1, 2]][picture % 4];
        if lost.contains(&spatial_id) {
            continue;
        }
        let rewrite = projection.project(&packet.incoming(start + *at));
        indices.extend(rewrite.map(|rewrite| rewrite.index.0));
    }
    assert_eq!(indices.len(), 12);
    assert!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1));
}
