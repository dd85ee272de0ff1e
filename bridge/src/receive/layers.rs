//! The layers a video source has, and how much of each is being sent.
//!
//! Before media comes, and for codecs whose layers are not read, an encoding is
//! taken to have three temporal layers of the nominal height 180, 360, 720...
//! A dependency descriptor says more: one layer for each active decode target,
//! with its resolution.

use std::sync::Arc;
use std::time::Instant;

use super::rate::Rate;
use crate::allocation::Layer;
use crate::projection::{CodecView, LayerIndex};
use crate::rtp::dependency_descriptor::{Dti, Structure};

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
}

/// The layers of one encoding.
#[derive(Debug)]
struct Encoding {
    shape: Shape,
    /// By temporal id (a packet counts in its own layer alone), or by decode
    /// target (a packet counts in all that need it).
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
        let mut count = |at: usize| {
            while encoding.rates.len() <= at {
                encoding.rates.push(Rate::new(now));
            }
            changed |= encoding.rates[at].bits(now) == 0;
            encoding.rates[at].add(now, octets);
        };
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
            .any(|encoding| matches!(encoding.shape, Shape::Structure { .. }));
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
            (Shape::Nominal, CodecView::Dd(frame)) => {
                self.shape = Shape::Structure {
                    structure: frame.structure.clone(),
                    active: frame.active_targets,
                };
                self.rates.clear();
                true
            }
            (Shape::Structure { .. }, _) => {
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rtp::vp8::Descriptor;

    fn vp8(temporal_id: u8) -> CodecView<'static> {
        // X, I and T present: PictureID 1 in 15 bits, the temporal id, P set.
        let payload = [0x90, 0xa0, 0x80, 0x01, temporal_id << 6, 0x01];
        CodecView::Vp8(Descriptor::parse(&payload).expect("a valid descriptor"))
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
