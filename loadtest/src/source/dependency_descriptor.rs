//! The dependency descriptor (AV1 RTP payload format, appendix A) as Chromium
//! writes it for VP8, VP9, AV1 and H264, and read again at the receiver.
//!
//! The bridge has a parser of its own; nothing of it is used here, so that a
//! misreading on one side shows. Structures are those of libwebrtc, octet for
//! octet (tests below): one spatial layer with three temporal ones, with or
//! without sizes, and K-SVC, in which only key pictures predict from the
//! spatial layer below.

/// Longest header extension element.
pub const MAX_LEN: usize = 255;
const MAX_TEMPLATES: usize = 64;
/// Frames that one frame can refer to.
const MAX_DIFFS: usize = 8;
/// Pictures from one of temporal layer 0 to the next.
pub const CYCLE: u16 = 4;

/// What a frame is to a decode target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dti {
    NotPresent,
    Discardable,
    Switch,
    Required,
}

impl Dti {
    fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::NotPresent,
            1 => Self::Discardable,
            2 => Self::Switch,
            _ => Self::Required,
        }
    }
}

/// A kind of frame that recurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub spatial: u8,
    pub temporal: u8,
    /// One for each decode target.
    pub dtis: Vec<Dti>,
    /// Distances to the frames it is predicted from, in frame numbers.
    pub diffs: Vec<u16>,
    /// Distances to the newest frame of each chain.
    pub chain_diffs: Vec<u16>,
}

/// The template structure that a key frame brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Id of the first template; ids count up from it modulo 64.
    pub offset: u8,
    pub targets: u8,
    pub templates: Vec<Template>,
    /// For each target the chain that protects it; empty without chains.
    pub protected_by: Vec<u8>,
    pub chains: u8,
    /// Width and height of each spatial layer; empty if not said.
    pub sizes: Vec<(u16, u16)>,
}

impl Structure {
    /// `layers` spatial layers with three temporal layers each, where only key
    /// pictures predict from the layer below: libwebrtc's L1T3, L2T3_KEY,
    /// L3T3_KEY. Target `3 s + t` is spatial layer s with temporal layers to t.
    pub fn key_svc(layers: u8, sizes: &[(u16, u16)]) -> Self {
        let n = u16::from(layers);
        let mut templates = Vec::new();
        for spatial in 0..layers {
            let s = u16::from(spatial);
            let dtis = |of: &dyn Fn(u8, u8) -> Dti| {
                (0..layers)
                    .flat_map(|layer| (0..3).map(move |temporal| (layer, temporal)))
                    .map(|(layer, temporal)| of(layer, temporal))
                    .collect()
            };
            let chain = |of: &dyn Fn(u16) -> u16| (0..n).map(of).collect();
            templates.push(Template {
                spatial,
                temporal: 0,
                dtis: dtis(&|layer, _| match layer >= spatial {
                    true => Dti::Switch,
                    false => Dti::NotPresent,
                }),
                diffs: if spatial == 0 { vec![] } else { vec![1] },
                chain_diffs: chain(&|c| match (s, c < s) {
                    (0, _) => 0,
                    (_, true) => s - c,
                    (_, false) => 1,
                }),
            });
            for (temporal, pictures) in [(0u8, CYCLE), (1, 2), (2, 1), (2, 3)] {
                let indication = |layer, target: u8| match (layer == spatial, temporal) {
                    (false, _) => Dti::NotPresent,
                    (true, 0) => Dti::Switch,
                    (true, _) if target < temporal => Dti::NotPresent,
                    (true, _) if target == temporal => Dti::Discardable,
                    (true, _) => Dti::Switch,
                };
                templates.push(Template {
                    spatial,
                    temporal,
                    dtis: dtis(&indication),
                    diffs: vec![n * if temporal == 2 { 1 } else { pictures }],
                    chain_diffs: chain(&|c| match temporal == 0 && c < s {
                        true => s - c,
                        false => pictures * n + s - c,
                    }),
                });
            }
        }
        Self {
            offset: 0,
            targets: 3 * layers,
            templates,
            protected_by: (0..layers).flat_map(|layer| [layer; 3]).collect(),
            chains: layers,
            sizes: sizes.to_vec(),
        }
    }

    /// libwebrtc's structure for VP8 with three temporal layers: no chains.
    pub fn vp8(size: (u16, u16)) -> Self {
        use Dti::{Discardable as D, NotPresent as N, Required as R, Switch as S};
        let template = |temporal, dtis: [Dti; 3], diffs: &[u16]| Template {
            spatial: 0,
            temporal,
            dtis: dtis.to_vec(),
            diffs: diffs.to_vec(),
            chain_diffs: Vec::new(),
        };
        Self {
            offset: 0,
            targets: 3,
            templates: vec![
                template(0, [S, S, S], &[]),
                template(0, [S, S, S], &[4]),
                template(0, [S, R, R], &[4]),
                template(1, [N, S, S], &[2]),
                template(1, [N, D, S], &[4, 2]),
                template(2, [N, N, D], &[1]),
                template(2, [N, N, D], &[3, 1]),
            ],
            protected_by: Vec::new(),
            chains: 0,
            sizes: vec![size],
        }
    }

    /// The template that says most of such a frame, the first of several.
    fn template(&self, frame: &Frame, chain_diffs: &[u16]) -> usize {
        let of_layer = |template: &&Template| {
            (template.spatial, template.temporal) == (frame.spatial, frame.temporal)
        };
        // The first one of a spatial layer is that of its key frames.
        let skip = usize::from(frame.temporal == 0 && !frame.key);
        let dtis = self
            .templates
            .iter()
            .filter(of_layer)
            .nth(skip)
            .map(|t| &t.dtis);
        let fits = |template: &Template| {
            2 * u8::from(template.diffs == frame.diffs)
                + u8::from(template.chain_diffs == chain_diffs)
        };
        let alike = |template: &&Template| of_layer(template) && Some(&template.dtis) == dtis;
        let best = self.templates.iter().filter(alike).map(fits).max();
        self.templates
            .iter()
            .position(|template| alike(&template) && Some(fits(template)) == best)
            .unwrap_or(0)
    }

    fn write(&self, bits: &mut BitWriter) {
        bits.write(u32::from(self.offset), 6);
        bits.write(u32::from(self.targets) - 1, 5);
        for pair in self.templates.windows(2) {
            let next = match &pair[1] {
                next if next.spatial > pair[0].spatial => 2,
                next if next.temporal > pair[0].temporal => 1,
                _ => 0,
            };
            bits.write(next, 2);
        }
        bits.write(3, 2);
        for dti in self.templates.iter().flat_map(|template| &template.dtis) {
            bits.write(*dti as u32, 2);
        }
        for template in &self.templates {
            for diff in &template.diffs {
                bits.write(0x10 | u32::from(diff - 1), 5);
            }
            bits.write(0, 1);
        }
        bits.write_non_symmetric(u32::from(self.chains), u32::from(self.targets) + 1);
        if self.chains > 0 {
            for chain in &self.protected_by {
                bits.write_non_symmetric(u32::from(*chain), u32::from(self.chains));
            }
            for diff in self.templates.iter().flat_map(|t| &t.chain_diffs) {
                bits.write(u32::from(*diff), 4);
            }
        }
        bits.write(u32::from(!self.sizes.is_empty()), 1);
        for (width, height) in &self.sizes {
            bits.write(u32::from(width - 1), 16);
            bits.write(u32::from(height - 1), 16);
        }
    }

    fn read(bits: &mut BitReader<'_>) -> Result<Self, DescriptorError> {
        let offset = bits.read(6)? as u8;
        let targets = bits.read(5)? as u8 + 1;
        let mut templates = Vec::new();
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            if templates.len() == MAX_TEMPLATES {
                return Err(DescriptorError::Structure);
            }
            templates.push(Template {
                spatial,
                temporal,
                dtis: Vec::new(),
                diffs: Vec::new(),
                chain_diffs: Vec::new(),
            });
            match bits.read(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
        }
        for template in &mut templates {
            for _ in 0..targets {
                template.dtis.push(Dti::from_bits(bits.read(2)?));
            }
        }
        for template in &mut templates {
            while bits.read(1)? == 1 {
                template.diffs.push(bits.read(4)? as u16 + 1);
                if template.diffs.len() > MAX_DIFFS {
                    return Err(DescriptorError::Structure);
                }
            }
        }
        let chains = bits.read_non_symmetric(u32::from(targets) + 1)? as u8;
        let mut protected_by = Vec::new();
        if chains > 0 {
            for _ in 0..targets {
                protected_by.push(bits.read_non_symmetric(u32::from(chains))? as u8);
            }
            for template in &mut templates {
                for _ in 0..chains {
                    template.chain_diffs.push(bits.read(4)? as u16);
                }
            }
        }
        let mut sizes = Vec::new();
        if bits.read(1)? == 1 {
            for _ in 0..=spatial {
                let (width, height) = (bits.read(16)? as u16, bits.read(16)? as u16);
                sizes.push((width.saturating_add(1), height.saturating_add(1)));
            }
        }
        Ok(Self {
            offset,
            targets,
            templates,
            protected_by,
            chains,
            sizes,
        })
    }
}

/// A frame to be described.
#[derive(Clone, Debug)]
pub struct Frame {
    pub number: u16,
    pub spatial: u8,
    pub temporal: u8,
    /// Of a key picture.
    pub key: bool,
    pub diffs: Vec<u16>,
}

/// A frame's descriptors: of its first packet, and of the others. In both the
/// first two bits, start and end of the frame, are still to be set.
#[derive(Clone, Debug)]
pub struct Described {
    pub first: Vec<u8>,
    pub other: Vec<u8>,
}

impl Described {
    /// The descriptor of a packet of the frame.
    pub fn packet(&self, start: bool, end: bool) -> Vec<u8> {
        let mut octets = if start { &self.first } else { &self.other }.clone();
        octets[0] |= u8::from(start) << 7 | u8::from(end) << 6;
        octets
    }
}

/// Describes the frames of one stream, in their order.
#[derive(Clone, Debug)]
pub struct Describer {
    structure: Structure,
    /// Spatial layers that are sent.
    active: u8,
    chains: Vec<Option<u16>>,
}

impl Describer {
    pub fn new(structure: Structure, active: u8) -> Self {
        let chains = vec![None; usize::from(structure.chains)];
        Self {
            structure,
            active,
            chains,
        }
    }

    /// From the next key frame on, `structure` holds. Its templates get ids
    /// behind those of the one before, as in libwebrtc.
    pub fn change(&mut self, mut structure: Structure, active: u8) {
        structure.offset = self.structure.offset;
        if structure != self.structure {
            let before = self.structure.templates.len() as u8;
            structure.offset = (structure.offset + before) % MAX_TEMPLATES as u8;
        }
        *self = Self::new(structure, active);
    }

    /// The descriptor of the next frame.
    pub fn describe(&mut self, frame: &Frame) -> Described {
        let begins = frame.key && frame.spatial == 0;
        if begins {
            self.chains.fill(None);
        }
        let chain_diffs: Vec<u16> = self
            .chains
            .iter()
            .map(|last| last.map_or(0, |last| frame.number.wrapping_sub(last)))
            .collect();
        for (chain, last) in (0u8..self.active).zip(&mut self.chains) {
            let member = match frame.key {
                true => chain >= frame.spatial,
                false => frame.temporal == 0 && chain == frame.spatial,
            };
            if member {
                *last = Some(frame.number);
            }
        }
        let index = self.structure.template(frame, &chain_diffs);
        let template = &self.structure.templates[index];
        let all = self.structure.sizes.len().max(1) == usize::from(self.active);
        let flags = Flags {
            structure: begins,
            mask: begins && !all,
            dtis: false,
            diffs: template.diffs != frame.diffs,
            chains: !begins && template.chain_diffs != chain_diffs,
        };
        let id = (self.structure.offset + index as u8) % MAX_TEMPLATES as u8;
        let write = |flags: Flags| {
            let mut bits = BitWriter::default();
            bits.write(u32::from(id), 8);
            bits.write(u32::from(frame.number), 16);
            if flags != Flags::default() {
                flags.write(&mut bits);
            }
            if flags.structure {
                self.structure.write(&mut bits);
            }
            if flags.mask {
                let mask = (1 << (3 * self.active)) - 1;
                bits.write(mask, u32::from(self.structure.targets));
            }
            if flags.diffs {
                for diff in &frame.diffs {
                    let value = u32::from(diff - 1);
                    let size = (35 - (value | 1).leading_zeros()) / 4;
                    bits.write(size, 2);
                    bits.write(value, 4 * size);
                }
                bits.write(0, 2);
            }
            if flags.chains {
                for diff in &chain_diffs {
                    bits.write(u32::from(*diff).min(255), 8);
                }
            }
            bits.octets
        };
        Described {
            first: write(flags),
            other: write(Flags {
                structure: false,
                mask: false,
                ..flags
            }),
        }
    }
}

/// Why a descriptor cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    #[error("it ends early")]
    Truncated,
    #[error("no structure came before it")]
    NoStructure,
    #[error("its structure breaks a limit")]
    Structure,
    #[error("its template is not in the structure")]
    Template,
}

/// What a packet's descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub start: bool,
    pub end: bool,
    pub number: u16,
    pub spatial: u8,
    pub temporal: u8,
    /// Distances to the frames it is predicted from.
    pub diffs: Vec<u16>,
    /// Whether it brought a structure.
    pub structure: bool,
    /// Whether any decode target that is active contains the frame.
    pub wanted: bool,
}

/// Reads the descriptors of one stream, in the order of their packets.
#[derive(Clone, Debug, Default)]
pub struct DescriptorReader {
    structure: Option<Structure>,
    active: u32,
}

impl DescriptorReader {
    /// The structure in force.
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    pub fn read(&mut self, octets: &[u8]) -> Result<Descriptor, DescriptorError> {
        let mut bits = BitReader { octets, at: 0 };
        let (start, end) = (bits.read(1)? == 1, bits.read(1)? == 1);
        let id = bits.read(6)? as u8;
        let number = bits.read(16)? as u16;
        let flags = match octets.len() > 3 {
            true => Flags::read(&mut bits)?,
            false => Flags::default(),
        };
        if flags.structure {
            let structure = Structure::read(&mut bits)?;
            self.active = u32::MAX >> (32 - u32::from(structure.targets));
            self.structure = Some(structure);
        }
        let structure = self
            .structure
            .as_ref()
            .ok_or(DescriptorError::NoStructure)?;
        if flags.mask {
            self.active = bits.read(u32::from(structure.targets))?;
        }
        let index = (id + MAX_TEMPLATES as u8 - structure.offset) % MAX_TEMPLATES as u8;
        let template = structure
            .templates
            .get(usize::from(index))
            .ok_or(DescriptorError::Template)?;
        let mut present = template.dtis.clone();
        if flags.dtis {
            for dti in &mut present {
                *dti = Dti::from_bits(bits.read(2)?);
            }
        }
        let mut diffs = template.diffs.clone();
        if flags.diffs {
            diffs.clear();
            while diffs.len() <= MAX_DIFFS {
                match bits.read(2)? {
                    0 => break,
                    size => diffs.push((bits.read(4 * size)? + 1) as u16),
                }
            }
        }
        if flags.chains {
            for _ in 0..structure.chains {
                bits.read(8)?;
            }
        }
        Ok(Descriptor {
            start,
            end,
            number,
            spatial: template.spatial,
            temporal: template.temporal,
            diffs,
            structure: flags.structure,
            wanted: (0..).zip(&present).any(|(target, dti)| {
                *dti != Dti::NotPresent && self.active.checked_shr(target).unwrap_or(0) & 1 == 1
            }),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    structure: bool,
    mask: bool,
    dtis: bool,
    diffs: bool,
    chains: bool,
}

impl Flags {
    fn write(self, bits: &mut BitWriter) {
        let flags = [
            self.structure,
            self.mask,
            self.dtis,
            self.diffs,
            self.chains,
        ];
        for flag in flags {
            bits.write(u32::from(flag), 1);
        }
    }

    fn read(bits: &mut BitReader<'_>) -> Result<Self, DescriptorError> {
        Ok(Self {
            structure: bits.read(1)? == 1,
            mask: bits.read(1)? == 1,
            dtis: bits.read(1)? == 1,
            diffs: bits.read(1)? == 1,
            chains: bits.read(1)? == 1,
        })
    }
}

/// Bits, the most significant first.
#[derive(Default)]
struct BitWriter {
    octets: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn write(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.octets.push(0);
            }
            let last = self.octets.last_mut().expect("pushed when needed");
            *last |= (((value >> bit) & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }

    /// `ns(n)` of the AV1 specification §4.10.7.
    fn write_non_symmetric(&mut self, value: u32, n: u32) {
        let width = u32::BITS - n.leading_zeros();
        let short = (1 << width) - n;
        if value < short {
            self.write(value, width - 1);
        } else {
            self.write(value + short, width);
        }
    }
}

struct BitReader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn read(&mut self, count: u32) -> Result<u32, DescriptorError> {
        let mut value = 0;
        for _ in 0..count {
            let octet = self
                .octets
                .get(self.at / 8)
                .ok_or(DescriptorError::Truncated)?;
            value = value << 1 | u32::from(octet >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    fn read_non_symmetric(&mut self, n: u32) -> Result<u32, DescriptorError> {
        let width = u32::BITS - n.leading_zeros();
        let short = (1 << width) - n;
        let value = self.read(width - 1)?;
        match value < short {
            true => Ok(value),
            false => Ok((value << 1 | self.read(1)?) - short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use viaduct_bridge::rtp::PacketIndex;
    use viaduct_bridge::rtp::dependency_descriptor::History;

    const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn key(number: u16, spatial: u8) -> Frame {
        Frame {
            number,
            spatial,
            temporal: 0,
            key: true,
            diffs: if spatial == 0 { vec![] } else { vec![1] },
        }
    }

    /// First packets of key frames as Chromium 156 sent them.
    #[test]
    fn structures_are_those_of_chromium() {
        let mut one = Describer::new(Structure::key_svc(1, &SIZES[..1]), 1);
        assert_eq!(
            hex(&one.describe(&key(1, 0)).packet(true, true)),
            "c00001800214eaa860414d1410208427013f00b3"
        );
        let mut h264 = Describer::new(Structure::key_svc(1, &[]), 1);
        assert_eq!(
            hex(&h264.describe(&key(1, 0)).packet(true, true)),
            "c00001800214eaa860414d1410208426"
        );
        let mut vp8 = Describer::new(Structure::vp8(SIZES[0]), 1);
        assert_eq!(
            hex(&vp8.describe(&key(1, 0)).packet(true, true)),
            "c000018002044eaaaf2860414d34538a0940404fc02cc0"
        );
        one.change(Structure::key_svc(3, &SIZES), 2);
        assert_eq!(
            hex(&one.describe(&key(112, 0)).packet(true, true)),
            "c50070c0a81485214eaaaaa8000600004000100002aa80a8000600004000100002a000a80006\
             0000400016d549241b5524906d54923157e001974ca864330e222396eca8655304224390eca8\
             7753013f00b3027f016704ff02cf1f80"
        );
        one.change(Structure::key_svc(3, &SIZES), 3);
        assert_eq!(
            hex(&one.describe(&key(114, 0)).packet(true, true)[..4]),
            "c5007280"
        );
        one.change(Structure::key_svc(1, &SIZES[..1]), 1);
        assert_eq!(
            hex(&one.describe(&key(512, 0)).packet(true, false)),
            "940200828214eaa860414d1410208427013f00b3"
        );
    }

    /// Frames as Chromium described them: where the distances are those of a
    /// template nothing is added, else diffs and chains are.
    #[test]
    fn frames_are_described_as_chromium_does() {
        let mut svc = Describer::new(Structure::key_svc(3, &SIZES), 3);
        let mut describe = |number, spatial, temporal, diff: u16| {
            let frame = Frame {
                number,
                spatial,
                temporal,
                key: diff < 2,
                diffs: if diff == 0 { vec![] } else { vec![diff] },
            };
            hex(&svc.describe(&frame).packet(true, true))
        };
        describe(114, 0, 0, 0);
        assert_eq!(describe(115, 1, 0, 1), "c50073");
        assert_eq!(describe(116, 2, 0, 1), "ca0074");
        assert_eq!(describe(117, 0, 2, 3), "c30075");
        assert_eq!(describe(118, 1, 2, 3), "c80076");
        assert_eq!(describe(119, 2, 2, 3), "cd0077");
        assert_eq!(describe(120, 0, 1, 6), "c20078");
        // A frame less than usual in between, as at 7.741 s of the recording
        // (there behind an offset of 5).
        assert_eq!(describe(125, 0, 0, 11), "c1007d1b40585048");
        assert_eq!(describe(126, 1, 0, 11), "c6007e1b40085850");

        let mut h264 = Describer::new(Structure::key_svc(1, &[]), 1);
        h264.describe(&key(327, 0));
        let mut describe = |number, temporal, diff| {
            let frame = Frame {
                number,
                spatial: 0,
                temporal,
                key: false,
                diffs: vec![diff],
            };
            hex(&h264.describe(&frame).packet(true, false))
        };
        assert_eq!(describe(330, 2, 3), "84014a1240");
        assert_eq!(describe(333, 1, 6), "82014d1aa030");
        assert_eq!(describe(336, 2, 3), "8301501a4048");
        assert_eq!(describe(339, 0, 12), "8001531b6060");
    }

    proptest! {
        /// What is written reads the same here and in the bridge.
        #[test]
        fn descriptors_read_back_here_and_in_the_bridge(
            layers in 1u8..=3, active in 1u8..=3, first in any::<u16>(),
            frames in prop::collection::vec((0u8..3, 0u8..3, 1u16..300), 1..40),
        ) {
            let active = active.min(layers);
            let sizes = &SIZES[..usize::from(layers)];
            let mut describer = Describer::new(Structure::key_svc(layers, sizes), active);
            let mut reader = DescriptorReader::default();
            let mut history = History::default();
            let mut number = first;
            let begin = describer.describe(&key(number, 0)).packet(true, true);
            prop_assert!(begin.len() <= MAX_LEN);
            reader.read(&begin).expect("a structure");
            history.parse(PacketIndex(1), &begin).expect("a structure");
            for (index, (spatial, temporal, diff)) in (2u64..).zip(frames) {
                number = number.wrapping_add(1);
                let frame = Frame {
                    number, spatial: spatial.min(active - 1), temporal, key: false, diffs: vec![diff],
                };
                let octets = describer.describe(&frame).packet(true, false);
                let ours = reader.read(&octets).expect("it reads here");
                prop_assert_eq!((ours.number, &ours.diffs), (number, &frame.diffs));
                prop_assert_eq!((ours.spatial, ours.temporal), (frame.spatial, temporal));
                prop_assert!(ours.start && !ours.end && ours.wanted && !ours.structure);
                let theirs = history.parse(PacketIndex(index), &octets).expect("it reads there");
                prop_assert_eq!(theirs.frame_number, number);
                prop_assert_eq!(theirs.diffs.as_slice(), &frame.diffs[..]);
                prop_assert_eq!((theirs.spatial_id, theirs.temporal_id), (frame.spatial, temporal));
                prop_assert_eq!(theirs.active_targets, (1u32 << (3 * active)) - 1);
            }
        }

        #[test]
        fn any_octets_are_read_without_panic(
            octets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
        ) {
            let mut reader = DescriptorReader::default();
            for octets in octets {
                let _ = reader.read(&octets);
            }
        }
    }
}
