//! The layers a video source has, and how much of each is being sent.
//!
//! Before media comes, and for codecs whose layers are not read, an encoding is
//! taken to have three temporal layers of the nominal height 180, 360, 720...
//! A dependency descriptor says more: one layer for each active decode target,
//! with its resolution. So does the scalability structure of VP9: its spatial
//! layers with their resolutions, times the temporal layers that are seen.

use std::sync::Arc;
use std::time::Instant;

use super::rate::Rate;
use crate::allocation::Layer;
use crate::projection::{CodecView, LayerIndex};
use crate::rtp::dependency_descriptor::{Dti, Structure};
use crate::rtp::vp9;

/// Layers assumed where they cannot be read, with their frame rates.
const NOMINAL_RATES: [f32; 3] = [7.5, 15.0, 30.0];
/// Height assumed for the lowest encoding; each further one doubles it.
const NOMINAL_HEIGHT: i32 = 180;
/// Frame rate of the highest layer of a structure, which tells only shares.
const FRAME_RATE: f32 = 30.0;

#[derive(Debug)]
enum Shape {
    Nominal,
    Structure {
        structure: Arc<Structure>,
        active: u32,
    },
    Vp9(Vp9Layers),
}

/// What the packets of a VP9 encoding tell of its layers.
#[derive(Debug)]
struct Vp9Layers {
    structure: Option<vp9::Structure>,
    /// Number of spatial and temporal layers, as far as they were seen.
    spatial: u8,
    temporal: u8,
    /// By spatial layer: whether it builds on the one below it in pictures that
    /// refer to others. In K-SVC it does not.
    dependent: [bool; vp9::MAX_SPATIAL_LAYERS],
}

impl Vp9Layers {
    fn new() -> Self {
        Self {
            structure: None,
            spatial: 1,
            temporal: 1,
            dependent: [false; vp9::MAX_SPATIAL_LAYERS],
        }
    }

    /// Takes over what a packet tells; whether that is new.
    fn learn(&mut self, descriptor: &vp9::Descriptor) -> bool {
        let before = (self.structure, self.spatial, self.temporal);
        if let Some(structure) = descriptor.structure {
            if before.0 != Some(structure) {
                self.temporal = 1;
            }
            self.structure = Some(structure);
            self.spatial = structure.spatial_layers;
        } else if self.structure.is_none() {
            self.spatial = self.spatial.max(descriptor.spatial_id + 1);
        }
        self.temporal = self.temporal.max(descriptor.temporal_id + 1);
        if descriptor.inter_picture {
            self.dependent[usize::from(descriptor.spatial_id)] = descriptor.inter_layer;
        }
        before != (self.structure, self.spatial, self.temporal)
    }

    /// Pixels of the shorter side, where sent.
    fn height(&self, spatial_id: u8) -> Option<i32> {
        let height = self.structure?.heights[usize::from(spatial_id)];
        (height > 0).then_some(height.into())
    }

    /// Frames a second: the share that a temporal layer has in the picture
    /// group; negative without a group, as in flexible mode.
    fn frame_rate(&self, temporal_id: u8) -> f32 {
        let group = self.structure.map_or([0; 8], |structure| structure.group);
        let upto = |count: usize| group[..count].iter().map(|n| f32::from(*n)).sum::<f32>();
        match upto(group.len()) {
            0.0 => -1.0,
            all => FRAME_RATE * upto(usize::from(temporal_id) + 1) / all,
        }
    }
}

/// Where the rate of a VP9 layer is counted.
fn vp9_rate(spatial_id: u8, temporal_id: u8) -> usize {
    usize::from(spatial_id) * vp9::MAX_TEMPORAL_LAYERS + usize::from(temporal_id)
}

/// The layers of one encoding.
#[derive(Debug)]
struct Encoding {
    shape: Shape,
    /// By temporal id or [`vp9_rate`] (a packet counts in its own layer alone),
    /// or by decode target (a packet counts in all that need it).
    rates: Vec<Rate>,
    seen: bool,
}

/// The layers of one source.
#[derive(Debug)]
pub struct Layers {
    encodings: Vec<Encoding>,
    /// Which encodings were being sent at the last look.
    sent: u32,
}

impl Layers {
    /// Those of a source of which nothing has come yet.
    pub fn new(encodings: usize) -> Self {
        let encoding = || Encoding {
            shape: Shape::Nominal,
            rates: Vec::new(),
            seen: false,
        };
        Self {
            encodings: (0..encodings).map(|_| encoding()).collect(),
            sent: 0,
        }
    }

    /// Counts a packet. Whether the layers changed by it: one begins to be
    /// sent, or the structure is another.
    pub fn received(
        &mut self,
        now: Instant,
        encoding: usize,
        view: &CodecView<'_>,
        octets: usize,
    ) -> bool {
        let Some(encoding) = self.encodings.get_mut(encoding) else {
            return false;
        };
        let mut changed = encoding.adopt(view) | !std::mem::replace(&mut encoding.seen, true);
        let mut count = |at: usize| changed |= encoding.count(now, at, octets);
        match view {
            CodecView::Dd(frame) => {
                for target in 0..frame.structure.decode_targets() {
                    if frame.dtis.get(target) != Dti::NotPresent {
                        count(usize::from(target));
                    }
                }
            }
            CodecView::Vp8(descriptor) => {
                let highest = NOMINAL_RATES.len() - 1;
                count(usize::from(descriptor.temporal_id.unwrap_or(0)).min(highest));
            }
            CodecView::Vp9(descriptor) => {
                count(vp9_rate(descriptor.spatial_id, descriptor.temporal_id));
                changed |= encoding.foresee(now, descriptor, octets);
            }
            CodecView::Opaque { .. } => count(0),
        }
        changed
    }

    /// Whether other encodings are being sent than at the last call.
    pub fn take_change(&mut self, now: Instant) -> bool {
        let mut sent = 0;
        for (i, encoding) in self.encodings.iter_mut().enumerate() {
            if encoding.rates.iter_mut().any(|rate| rate.bits(now) > 0) {
                sent |= 1 << i;
            }
        }
        std::mem::replace(&mut self.sent, sent) != sent
    }

    /// All layers in order of quality.
    pub fn list(&mut self, now: Instant) -> Vec<(LayerIndex, Layer)> {
        let structured = self
            .encodings
            .iter()
            .any(|encoding| !matches!(encoding.shape, Shape::Nominal));
        let mut list = Vec::new();
        for (eid, encoding) in self.encodings.iter_mut().enumerate() {
            // Scalable layers take the place of simulcast: encodings that are
            // signalled but silent have no layers then.
            if !structured || encoding.seen {
                encoding.list(now, eid as u8, &mut list);
            }
        }
        list
    }
}

impl Encoding {
    /// Counts octets in a rate; whether it begins to be sent with them.
    fn count(&mut self, now: Instant, at: usize, octets: usize) -> bool {
        while self.rates.len() <= at {
            self.rates.push(Rate::new(now));
        }
        self.rates[at].add(now, octets)
    }

    /// At the beginning of a VP9 key picture all layers that its structure names
    /// are about to follow, and what a receiver is to get of it is decided on its
    /// first packet: those that were silent count as sent from here on.
    fn foresee(&mut self, now: Instant, descriptor: &vp9::Descriptor, octets: usize) -> bool {
        let spatial = match &self.shape {
            Shape::Vp9(layers) if descriptor.key_frame() => layers.spatial,
            _ => return false,
        };
        (descriptor.spatial_id + 1..spatial).fold(false, |begins, above| {
            let at = vp9_rate(above, descriptor.temporal_id);
            begins | (self.bits(now, at) == 0 && self.count(now, at, octets))
        })
    }

    /// Takes over what the packet tells of the structure; whether that is new.
    fn adopt(&mut self, view: &CodecView<'_>) -> bool {
        match (&mut self.shape, view) {
            (Shape::Structure { structure, active }, CodecView::Dd(frame)) => {
                if Arc::ptr_eq(structure, &frame.structure) && *active == frame.active_targets {
                    return false;
                }
                // A late packet may still be of the structure before; only the
                // packets that bring one change it.
                if !(frame.carries_structure || frame.carries_mask) {
                    return false;
                }
                if structure.decode_targets() != frame.structure.decode_targets() {
                    self.rates.clear();
                }
                *structure = frame.structure.clone();
                *active = frame.active_targets;
                true
            }
            (Shape::Vp9(layers), CodecView::Vp9(descriptor)) => layers.learn(descriptor),
            (Shape::Nominal | Shape::Structure { .. }, CodecView::Vp9(descriptor)) => {
                let mut layers = Vp9Layers::new();
                layers.learn(descriptor);
                self.shape = Shape::Vp9(layers);
                self.rates.clear();
                true
            }
            (Shape::Nominal | Shape::Vp9(_), CodecView::Dd(frame)) => {
                self.shape = Shape::Structure {
                    structure: frame.structure.clone(),
                    active: frame.active_targets,
                };
                self.rates.clear();
                true
            }
            (Shape::Structure { .. } | Shape::Vp9(_), _) => {
                self.shape = Shape::Nominal;
                self.rates.clear();
                true
            }
            (Shape::Nominal, _) => false,
        }
    }

    fn bits(&mut self, now: Instant, at: usize) -> u64 {
        self.rates.get_mut(at).map_or(0, |rate| rate.bits(now))
    }

    fn list(&mut self, now: Instant, eid: u8, list: &mut Vec<(LayerIndex, Layer)>) {
        let nominal_height = NOMINAL_HEIGHT << eid.min(8);
        let (structure, active) = match &self.shape {
            Shape::Structure { structure, active } => (structure.clone(), *active),
            Shape::Vp9(_) => return self.list_vp9(now, eid, list),
            Shape::Nominal => {
                let mut bitrate = 0;
                for (tid, frame_rate) in NOMINAL_RATES.into_iter().enumerate() {
                    bitrate += self.bits(now, tid);
                    let layer = Layer {
                        height: nominal_height,
                        frame_rate,
                        bitrate,
                    };
                    list.push((LayerIndex::new(eid, 0, tid as u8), layer));
                }
                return;
            }
        };
        let targets = 0..structure.decode_targets();
        let one_spatial_layer = structure.targets.iter().all(|t| t.spatial_id == 0);
        let unknown = targets.clone().all(|t| structure.height(t).is_none());
        for target in targets.filter(|target| active >> target & 1 == 1) {
            let height = match structure.height(target) {
                Some(height) => i32::from(height),
                None if unknown && one_spatial_layer => nominal_height,
                None => -1,
            };
            let layer = Layer {
                height,
                frame_rate: structure.frame_rate_share(target) * FRAME_RATE,
                bitrate: self.bits(now, usize::from(target)),
            };
            list.push((LayerIndex::of_target(eid, target), layer));
        }
    }

    fn list_vp9(&mut self, now: Instant, eid: u8, list: &mut Vec<(LayerIndex, Layer)>) {
        let Self { shape, rates, .. } = self;
        let Shape::Vp9(layers) = shape else {
            return;
        };
        // What a layer needs: its own lower temporal layers, and where it is
        // dependent all that the one below it needs.
        let mut below = [0; vp9::MAX_TEMPORAL_LAYERS];
        for sid in 0..layers.spatial {
            if !layers.dependent[usize::from(sid)] {
                below = Default::default();
            }
            let height = match layers.height(sid) {
                Some(height) => height,
                None if layers.spatial == 1 => NOMINAL_HEIGHT << eid.min(8),
                None => -1,
            };
            let mut own = 0;
            for (tid, needed) in (0..layers.temporal).zip(&mut below) {
                own += rates
                    .get_mut(vp9_rate(sid, tid))
                    .map_or(0, |rate| rate.bits(now));
                *needed += own;
                let layer = Layer {
                    height,
                    frame_rate: layers.frame_rate(tid),
                    bitrate: *needed,
                };
                list.push((LayerIndex::new(eid, sid, tid), layer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    fn vp8(temporal_id: u8) -> CodecView<'static> {
        // X, I and T present: PictureID 1 in 15 bits, the temporal id, P set.
        let payload = [0x90, 0xa0, 0x80, 0x01, temporal_id << 6, 0x01];
        CodecView::vp8(&payload).expect("a valid descriptor")
    }

    /// A packet of a picture that refers to others, in flexible mode.
    fn vp9(spatial_id: u8, temporal_id: u8, inter_layer: bool) -> CodecView<'static> {
        let layers = temporal_id << 5 | spatial_id << 1 | u8::from(inter_layer);
        CodecView::vp9(&[0xf8, 1, layers, 2, 0]).expect("a valid descriptor")
    }

    /// The same with a structure of three layers, 180 to 720 lines, and a group
    /// of one, one and two pictures.
    fn vp9_structure() -> CodecView<'static> {
        let sizes = [1, 64, 0, 180, 2, 128, 1, 104, 5, 0, 2, 208];
        let group = [4, 0x00, 0x40, 0x20, 0x40];
        let payload = [&[0xba, 1, 0, 0x58], &sizes[..], &group, &[0]].concat();
        CodecView::vp9(&payload).expect("a valid descriptor")
    }

    fn told(layers: &mut Layers, now: Instant) -> Vec<(u16, i32, f32, u64)> {
        let list = layers.list(now);
        list.iter()
            .map(|(index, l)| (index.0, l.height, l.frame_rate, l.bitrate / 8))
            .collect()
    }

    #[test]
    fn vp9_layers_are_those_of_its_structure() {
        let start = Instant::now();
        let mut layers = Layers::new(3);
        assert!(layers.received(start, 0, &vp9(0, 0, false), 100));
        // Without a structure the height is nominal, and one layer is known;
        // the encodings that are silent have none.
        assert_eq!(told(&mut layers, start), [(0, 180, -1.0, 100)]);
        assert!(layers.received(start, 0, &vp9_structure(), 100));
        for (spatial_id, octets) in [(0, 100), (1, 1000), (2, 10_000)] {
            for temporal_id in 0..3 {
                layers.received(start, 0, &vp9(spatial_id, temporal_id, false), octets);
            }
        }
        // K-SVC: each spatial layer by itself. The key picture's first packet told
        // of all.
        let rates = [7.5, 15.0, 30.0];
        assert_eq!(
            told(&mut layers, start),
            [
                (0, 180, rates[0], 300),
                (1, 180, rates[1], 400),
                (2, 180, rates[2], 500),
                (8, 360, rates[0], 1100),
                (9, 360, rates[1], 2100),
                (10, 360, rates[2], 3100),
                (16, 720, rates[0], 10_100),
                (17, 720, rates[1], 20_100),
                (18, 720, rates[2], 30_100),
            ]
        );
        // SVC: each on top of those below.
        for spatial_id in [1, 2] {
            layers.received(start, 0, &vp9(spatial_id, 0, true), 0);
        }
        let bits: Vec<_> = told(&mut layers, start).iter().map(|l| l.3).collect();
        assert_eq!(bits[3..6], [1400, 2500, 3600]);
        assert_eq!(bits[6..], [11_500, 22_600, 33_700]);
        // After a pause, too, the first packet of a key picture tells of all.
        let later = start + Duration::from_secs(20);
        assert!(told(&mut layers, later).iter().all(|layer| layer.3 == 0));
        assert!(layers.received(later, 0, &vp9_structure(), 100));
        assert!(told(&mut layers, later).iter().all(|layer| layer.3 > 0));
        assert!(!layers.received(later, 0, &vp9(2, 0, true), 100));
    }

    #[test]
    fn vp9_simulcast_has_the_layers_of_the_encodings_that_are_sent() {
        let start = Instant::now();
        let mut layers = Layers::new(3);
        // One layer of 320x180, of 1280x720.
        let low = [0xba, 1, 0, 0x10, 1, 64, 0, 180, 0];
        let high = [0xba, 1, 0, 0x10, 5, 0, 2, 208, 0];
        for (encoding, payload) in [(0, low), (2, high)] {
            let view = CodecView::vp9(&payload).expect("a valid descriptor");
            assert!(layers.received(start, encoding, &view, 10));
            assert!(!layers.received(start, encoding, &view, 10));
        }
        assert_eq!(
            told(&mut layers, start),
            [(0, 180, -1.0, 20), (2 << 6, 720, -1.0, 20)]
        );
        // A change of codec begins anew.
        assert!(layers.received(start, 2, &vp8(0), 10));
        assert_eq!(told(&mut layers, start)[1..].len(), 3);
    }

    #[test]
    fn temporal_layers_add_up_and_a_stopped_encoding_shows() {
        let start = Instant::now();
        let mut layers = Layers::new(3);
        assert_eq!(layers.list(start).len(), 9);
        assert!(layers.received(start, 0, &vp8(0), 1000));
        assert!(layers.received(start, 0, &vp8(2), 500));
        assert!(!layers.received(start, 0, &vp8(2), 500));
        assert!(layers.received(start, 1, &vp8(0), 3000));
        let rates: Vec<_> = layers
            .list(start)
            .iter()
            .map(|(_, layer)| (layer.height, layer.bitrate))
            .collect();
        assert_eq!(rates[..3], [(180, 8000), (180, 8000), (180, 16_000)]);
        assert_eq!(rates[3], (360, 24_000));
        assert_eq!(rates[8], (720, 0));
        assert!(layers.take_change(start));
        assert!(!layers.take_change(start));
        assert!(layers.take_change(start + Duration::from_secs(2)));
    }
}
