//! AV1 dependency descriptor (AV1 RTP payload format, appendix A): which frame
//! a packet belongs to, what that frame needs, and who needs it.
//!
//! A descriptor can be read only with the template structure that was in force
//! when it was sent. [`History`] keeps those of one SSRC by packet index, so
//! that a packet that arrives late, or by retransmission, is read with the
//! structure of its own time. [`rewrite`] makes a receiver's own copy, in the
//! smallest size, without needing the structure again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PacketIndex;

/// Most decode targets a structure can have: five bits, plus one.
pub const MAX_DECODE_TARGETS: usize = 32;
/// Most templates: their ids are six bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most frames that one frame refers to: AV1 has eight reference slots.
pub const MAX_FRAME_DIFFS: usize = 8;
/// Structures and masks remembered for an SSRC.
pub const MAX_HISTORY: usize = 500;

const MAX_SPATIAL_ID: u8 = 3;
const MAX_TEMPORAL_ID: u8 = 7;
/// Octets of the part that every descriptor has.
const MANDATORY: usize = 3;
/// Octets of the largest header-extension element.
const MAX_LEN: usize = 255;

/// Why a descriptor could not be read. After any of these the packet cannot be
/// used; a key frame brings a new structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    #[error("the dependency descriptor ends early")]
    Truncated,
    /// No structure has been seen that was sent before this packet.
    #[error("no template structure known before {0:?}")]
    NoStructure(PacketIndex),
    /// The structure in force has no such template.
    #[error("unknown template {0}")]
    UnknownTemplate(u8),
    /// A structure that breaks a limit of the specification.
    #[error("invalid template structure: {0}")]
    InvalidStructure(&'static str),
    /// More references than a frame can have.
    #[error("more than {MAX_FRAME_DIFFS} frame differences")]
    TooManyFrameDiffs,
}

/// Decode target indication: what a frame is to one decode target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dti {
    /// Not part of the target.
    NotPresent,
    /// Nothing refers to it.
    Discardable,
    /// The target can be entered here.
    Switch,
    Required,
}

/// The indications of a frame for all decode targets, two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dtis(u64);

impl Dtis {
    /// The indication for a target; those beyond the structure are not present.
    pub fn get(self, target: u8) -> Dti {
        match self.0.checked_shr(2 * u32::from(target)).unwrap_or(0) & 3 {
            0 => Dti::NotPresent,
            1 => Dti::Discardable,
            2 => Dti::Switch,
            _ => Dti::Required,
        }
    }

    fn set(&mut self, target: u8, value: u32) {
        self.0 |= u64::from(value & 3) << (2 * u32::from(target));
    }

    /// The highest target a frame is present for.
    pub fn highest_present(self) -> Option<u8> {
        (self.0 != 0).then(|| ((63 - self.0.leading_zeros()) / 2) as u8)
    }
}

/// The frames a frame refers to, as distances back in frame numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameDiffs {
    len: u8,
    values: [u16; MAX_FRAME_DIFFS],
}

impl FrameDiffs {
    fn push(&mut self, diff: u16) -> Result<(), DescriptorError> {
        *self
            .values
            .get_mut(usize::from(self.len))
            .ok_or(DescriptorError::TooManyFrameDiffs)? = diff;
        self.len += 1;
        Ok(())
    }

    /// The distances, each at least 1.
    pub fn as_slice(&self) -> &[u16] {
        &self.values[..usize::from(self.len)]
    }
}

/// A recurring kind of frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub spatial_id: u8,
    pub temporal_id: u8,
    pub dtis: Dtis,
    pub diffs: FrameDiffs,
}

/// The layers of a decode target: the highest ones it contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub spatial_id: u8,
    pub temporal_id: u8,
}

/// What the frames of a coded video sequence can be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// Id of the first template, 0 to 63; ids count up from it modulo 64.
    pub template_id_offset: u8,
    pub templates: Vec<Template>,
    /// One for each decode target, in order.
    pub targets: Vec<Target>,
    /// Number of chains; none if loss cannot be told from the descriptor.
    pub chains: u8,
    /// For each decode target the chain that protects it; empty without chains.
    pub protected_by: Vec<u8>,
    /// Width and height for each spatial id, where sent.
    pub resolutions: Vec<(u16, u16)>,
    /// Bits of it on the wire.
    bits: u16,
}

impl Structure {
    /// Number of decode targets, 1 to 32.
    pub fn decode_targets(&self) -> u8 {
        self.targets.len() as u8
    }

    /// The mask of all decode targets.
    pub fn all_targets(&self) -> u32 {
        u32::MAX >> (MAX_DECODE_TARGETS - self.targets.len())
    }

    /// The smaller side of the pictures of a decode target, where sent.
    pub fn height(&self, target: u8) -> Option<u16> {
        let spatial_id = self.targets.get(usize::from(target))?.spatial_id;
        let (width, height) = self.resolutions.get(usize::from(spatial_id))?;
        Some(*width.min(height))
    }

    /// The share of the full frame rate that a decode target has, 0 to 1: by
    /// the number of its spatial layer's templates that predict over time.
    pub fn frame_rate_share(&self, target: u8) -> f32 {
        let count = |target: &Target| {
            self.templates
                .iter()
                .filter(|t| {
                    t.spatial_id == target.spatial_id
                        && t.temporal_id <= target.temporal_id
                        && self.predicts_over_time(t)
                })
                .count()
        };
        let most = self.targets.iter().map(count).max().unwrap_or(0);
        match self.targets.get(usize::from(target)) {
            Some(of) if most > 0 => count(of) as f32 / most as f32,
            _ => 1.0,
        }
    }

    /// Whether all references of a template stay within one temporal unit
    /// cannot be read off it directly; but such references are shorter than
    /// the number of spatial layers, and others are not.
    pub(crate) fn predicts_over_time(&self, template: &Template) -> bool {
        template
            .diffs
            .as_slice()
            .iter()
            .any(|diff| *diff > u16::from(template.spatial_id))
    }

    /// The targets that a receiver of only `target` can decode: those that
    /// need no template which `target` goes without.
    pub fn decodable_with(&self, target: u8) -> u32 {
        let mut mask = self.all_targets();
        for template in &self.templates {
            if template.dtis.get(target) == Dti::NotPresent {
                for other in 0..self.decode_targets() {
                    if template.dtis.get(other) != Dti::NotPresent {
                        mask &= !(1 << other);
                    }
                }
            }
        }
        mask
    }

    /// Whether a frame with these indications belongs to the chain that
    /// protects `target`: it is indispensable to every target of that chain.
    /// Without chains, whether it is indispensable to `target` and to the
    /// lowest target there is.
    pub fn in_chain_of(&self, target: u8, dtis: Dtis) -> bool {
        let indispensable = |target: u8| dtis.get(target) >= Dti::Switch;
        match self.protected_by.get(usize::from(target)) {
            Some(chain) => (0u8..)
                .zip(&self.protected_by)
                .filter(|(_, other)| *other == chain)
                .all(|(target, _)| indispensable(target)),
            None => indispensable(target) && indispensable(0),
        }
    }

    fn parse(bits: &mut Reader<'_>) -> Result<Self, DescriptorError> {
        use DescriptorError::InvalidStructure;
        let start = bits.at;
        let template_id_offset = bits.read(6)? as u8;
        let count = bits.read(5)? as u8 + 1;
        let mut templates = Vec::new();
        let (mut spatial_id, mut temporal_id) = (0, 0);
        loop {
            if templates.len() == MAX_TEMPLATES {
                return Err(InvalidStructure("more than 64 templates"));
            }
            templates.push(Template {
                spatial_id,
                temporal_id,
                dtis: Dtis::default(),
                diffs: FrameDiffs::default(),
            });
            match bits.read(2)? {
                0 => {}
                1 => temporal_id += 1,
                2 => (spatial_id, temporal_id) = (spatial_id + 1, 0),
                _ => break,
            }
            if spatial_id > MAX_SPATIAL_ID || temporal_id > MAX_TEMPORAL_ID {
                return Err(InvalidStructure("layer id out of range"));
            }
        }
        for template in &mut templates {
            for target in 0..count {
                template.dtis.set(target, bits.read(2)?);
            }
        }
        for template in &mut templates {
            while bits.read(1)? == 1 {
                template.diffs.push(bits.read(4)? as u16 + 1)?;
            }
        }
        let chains = bits.read_non_symmetric(u32::from(count) + 1)? as u8;
        let mut protected_by = Vec::new();
        if chains > 0 {
            for _ in 0..count {
                protected_by.push(bits.read_non_symmetric(u32::from(chains))? as u8);
            }
            for _ in 0..templates.len() * usize::from(chains) {
                bits.read(4)?;
            }
        }
        let mut resolutions = Vec::new();
        if bits.read(1)? == 1 {
            for _ in 0..=spatial_id {
                let (width, height) = (bits.read(16)?, bits.read(16)?);
                // One less than the size, which itself need not fit 16 bits.
                let size = |value: u32| (value as u16).saturating_add(1);
                resolutions.push((size(width), size(height)));
            }
        }
        let targets = (0..count)
            .map(|target| {
                let present = |t: &&Template| t.dtis.get(target) != Dti::NotPresent;
                let of = |layer: fn(&Template) -> u8| {
                    templates
                        .iter()
                        .filter(present)
                        .map(layer)
                        .max()
                        .unwrap_or(0)
                };
                Target {
                    spatial_id: of(|t| t.spatial_id),
                    temporal_id: of(|t| t.temporal_id),
                }
            })
            .collect();
        let bits = u16::try_from(bits.at - start).map_err(|_| InvalidStructure("too long"))?;
        Ok(Self {
            template_id_offset,
            templates,
            targets,
            chains,
            protected_by,
            resolutions,
            bits,
        })
    }
}

/// A packet's descriptor, read with the structure of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdFrame {
    /// First packet of its frame.
    pub start_of_frame: bool,
    /// Last packet of its frame.
    pub end_of_frame: bool,
    /// Counts frames, spatial layers one by one, modulo 2^16.
    pub frame_number: u16,
    pub structure: Arc<Structure>,
    /// The packet brings the structure: it starts a key frame.
    pub carries_structure: bool,
    /// The packet brings a mask of active decode targets.
    pub carries_mask: bool,
    /// The decode targets that the sender is producing.
    pub active_targets: u32,
    pub spatial_id: u8,
    pub temporal_id: u8,
    pub dtis: Dtis,
    pub diffs: FrameDiffs,
}

/// From which packet on a structure and a mask are in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InForce {
    since: PacketIndex,
    #[serde(with = "shared")]
    structure: Arc<Structure>,
    active_targets: u32,
}

/// A shared structure is written down as the structure itself.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Structure;

    pub(super) fn serialize<S: Serializer>(
        structure: &Arc<Structure>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        structure.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Structure>, D::Error> {
        Structure::deserialize(deserializer).map(Arc::new)
    }
}

/// The template structures of one SSRC. Empty at first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// In order of `since`.
    in_force: VecDeque<InForce>,
}

impl History {
    /// Reads the descriptor of the packet with this index, and learns the
    /// structure and the mask it may bring.
    pub fn parse(
        &mut self,
        index: PacketIndex,
        descriptor: &[u8],
    ) -> Result<DdFrame, DescriptorError> {
        let mut bits = Reader::new(descriptor);
        let start_of_frame = bits.read(1)? == 1;
        let end_of_frame = bits.read(1)? == 1;
        let template_id = bits.read(6)? as u8;
        let frame_number = bits.read(16)? as u16;
        let flags = Flags::read(&mut bits, descriptor.len())?;

        let known = self.in_force.iter().rposition(|i| i.since <= index);
        let before = known.map(|at| &self.in_force[at]);
        let (structure, mut active_targets) = if flags.structure {
            let parsed = Structure::parse(&mut bits)?;
            let all = parsed.all_targets();
            // Key frames repeat their structure: one copy serves them all.
            let structure = match before {
                Some(known) if *known.structure == parsed => known.structure.clone(),
                _ => Arc::new(parsed),
            };
            (structure, all)
        } else {
            let before = before.ok_or(DescriptorError::NoStructure(index))?;
            (before.structure.clone(), before.active_targets)
        };
        let targets = structure.decode_targets();
        if flags.mask {
            // The least significant bit is decode target 0.
            active_targets = bits.read(u32::from(targets))?;
        }
        let template = template_id
            .wrapping_sub(structure.template_id_offset)
            .wrapping_add(MAX_TEMPLATES as u8)
            % MAX_TEMPLATES as u8;
        let template = structure
            .templates
            .get(usize::from(template))
            .ok_or(DescriptorError::UnknownTemplate(template_id))?;
        let mut dtis = template.dtis;
        if flags.dtis {
            dtis = Dtis::default();
            for target in 0..targets {
                dtis.set(target, bits.read(2)?);
            }
        }
        let mut diffs = template.diffs;
        if flags.diffs {
            diffs = FrameDiffs::default();
            loop {
                match bits.read(2)? {
                    0 => break,
                    size => diffs.push(bits.read(4 * size)? as u16 + 1)?,
                }
            }
        }
        if flags.chains {
            bits.skip(8 * usize::from(structure.chains))?;
        }
        let (spatial_id, temporal_id) = (template.spatial_id, template.temporal_id);
        if (flags.structure || flags.mask)
            && before.is_none_or(|known| {
                !Arc::ptr_eq(&known.structure, &structure) || known.active_targets != active_targets
            })
        {
            let entry = InForce {
                since: index,
                structure: structure.clone(),
                active_targets,
            };
            self.in_force.insert(known.map_or(0, |at| at + 1), entry);
            if self.in_force.len() > MAX_HISTORY {
                self.in_force.pop_front();
            }
        }
        Ok(DdFrame {
            start_of_frame,
            end_of_frame,
            frame_number,
            structure,
            carries_structure: flags.structure,
            carries_mask: flags.mask,
            active_targets,
            spatial_id,
            temporal_id,
            dtis,
            diffs,
        })
    }
}

/// What is in a descriptor beyond the mandatory part.
#[derive(Clone, Copy, Default)]
struct Flags {
    structure: bool,
    mask: bool,
    dtis: bool,
    diffs: bool,
    chains: bool,
}

impl Flags {
    fn read(bits: &mut Reader<'_>, len: usize) -> Result<Self, DescriptorError> {
        if len <= MANDATORY {
            return Ok(Self::default());
        }
        Ok(Self {
            structure: bits.read(1)? == 1,
            mask: bits.read(1)? == 1,
            dtis: bits.read(1)? == 1,
            diffs: bits.read(1)? == 1,
            chains: bits.read(1)? == 1,
        })
    }

    fn write(self, bits: &mut BitWriter) {
        for flag in [
            self.structure,
            self.mask,
            self.dtis,
            self.diffs,
            self.chains,
        ] {
            bits.write(u32::from(flag), 1);
        }
    }
}

/// What changes in a receiver's copy of a descriptor, with what has to be
/// known of the structure to find the way through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorRewrite {
    pub frame_number: u16,
    /// Added to template ids and template id offset, modulo 64.
    pub template_id_delta: u8,
    /// The mask to write; `None` writes none.
    pub active_targets: Option<u32>,
    decode_targets: u8,
    chains: u8,
    structure_bits: u16,
}

impl DescriptorRewrite {
    /// For a packet with this descriptor.
    pub fn new(
        frame: &DdFrame,
        frame_number: u16,
        template_id_delta: u8,
        active_targets: Option<u32>,
    ) -> Self {
        Self {
            frame_number,
            template_id_delta,
            active_targets,
            decode_targets: frame.structure.decode_targets(),
            chains: frame.structure.chains,
            structure_bits: if frame.carries_structure {
                frame.structure.bits
            } else {
                0
            },
        }
    }
}

/// A rewritten descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Rewritten {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Rewritten {
    /// Its octets, at least 3, at most 255.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Makes a receiver's copy of a descriptor, in the fewest octets that hold it.
/// The descriptor must be the one that `with` was made for; for another the
/// outcome is `Truncated` or nonsense of the right form.
pub fn rewrite(descriptor: &[u8], with: &DescriptorRewrite) -> Result<Rewritten, DescriptorError> {
    let mut bits = Reader::new(descriptor);
    let mut out = BitWriter::new();
    out.write(bits.read(2)?, 2);
    let shifted = |id: u32| (id + u32::from(with.template_id_delta)) % MAX_TEMPLATES as u32;
    out.write(shifted(bits.read(6)?), 6);
    bits.skip(16)?;
    out.write(u32::from(with.frame_number), 16);

    let before = Flags::read(&mut bits, descriptor.len())?;
    let mut after = Flags {
        mask: with.active_targets.is_some(),
        ..before
    };
    let targets = usize::from(with.decode_targets);
    // What a mask may take must still fit the element's 255 octets.
    let grown = 8 * descriptor.len() + 5 + targets;
    if grown > 8 * MAX_LEN && !before.mask {
        after.mask = false;
    }
    if after.structure || after.mask || after.dtis || after.diffs || after.chains {
        after.write(&mut out);
    }
    if before.structure {
        out.write(shifted(bits.read(6)?), 6);
        let rest = usize::from(with.structure_bits).saturating_sub(6);
        out.copy(&mut bits, rest)?;
    }
    if before.mask {
        bits.skip(targets)?;
    }
    if let Some(mask) = with.active_targets
        && after.mask
    {
        out.write(mask, targets as u32);
    }
    if before.dtis {
        out.copy(&mut bits, 2 * targets)?;
    }
    if before.diffs {
        loop {
            let size = bits.read(2)?;
            out.write(size, 2);
            if size == 0 {
                break;
            }
            out.copy(&mut bits, 4 * size as usize)?;
        }
    }
    if before.chains {
        out.copy(&mut bits, 8 * usize::from(with.chains))?;
    }
    Ok(out.finish())
}

/// Reads bits, most significant first.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn skip(&mut self, count: usize) -> Result<(), DescriptorError> {
        if self.at + count > 8 * self.bytes.len() {
            return Err(DescriptorError::Truncated);
        }
        self.at += count;
        Ok(())
    }

    /// Up to 32 bits.
    fn read(&mut self, count: u32) -> Result<u32, DescriptorError> {
        let from = self.at;
        self.skip(count as usize)?;
        let mut value = 0u64;
        for octet in &self.bytes[from / 8..self.at.div_ceil(8)] {
            value = value << 8 | u64::from(*octet);
        }
        let below = self.at.div_ceil(8) * 8 - self.at;
        Ok((value >> below & ((1 << count) - 1)) as u32)
    }

    /// `ns(n)` of the AV1 specification: a number below `n`.
    fn read_non_symmetric(&mut self, n: u32) -> Result<u32, DescriptorError> {
        let width = u32::BITS - n.leading_zeros();
        let short = (1 << width) - n;
        let value = self.read(width - 1)?;
        if value < short {
            return Ok(value);
        }
        Ok((value << 1) - short + self.read(1)?)
    }
}

/// Writes bits, most significant first.
struct BitWriter {
    bytes: [u8; MAX_LEN],
    at: usize,
}

impl BitWriter {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_LEN],
            at: 0,
        }
    }

    /// Up to 32 bits. What does not fit is lost; callers keep within 255 octets.
    fn write(&mut self, value: u32, mut count: u32) {
        while count > 0
            && let Some(octet) = self.bytes.get_mut(self.at / 8)
        {
            let free = 8 - (self.at % 8) as u32;
            let step = count.min(free);
            let chunk = value >> (count - step) & ((1 << step) - 1);
            *octet |= (chunk << (free - step)) as u8;
            self.at += step as usize;
            count -= step;
        }
    }

    fn copy(&mut self, from: &mut Reader<'_>, mut count: usize) -> Result<(), DescriptorError> {
        while count > 0 {
            let step = count.min(32);
            self.write(from.read(step as u32)?, step as u32);
            count -= step;
        }
        Ok(())
    }

    fn finish(self) -> Rewritten {
        Rewritten {
            bytes: self.bytes,
            len: self.at.div_ceil(8),
        }
    }
}
