//! The PictureID that VP8 and VP9 descriptors share (RFC 7741 §4.2, RFC 9628
//! §4.2): seven bits, or fifteen behind a set bit.

use serde::{Deserialize, Serialize};

/// A PictureID with the width it has on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits (M set), else 7.
    pub long: bool,
}

impl PictureId {
    /// Number of different values: the id counts modulo this.
    pub fn modulus(self) -> u16 {
        if self.long { 1 << 15 } else { 1 << 7 }
    }

    /// Octets on the wire.
    pub(super) fn len(self) -> usize {
        1 + usize::from(self.long)
    }

    /// Reads an id at the start of `octets`; `None` if it is cut short.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let high = *octets.first()?;
        let long = high & 0x80 != 0;
        let mut value = u16::from(high & 0x7f);
        if long {
            value = value << 8 | u16::from(*octets.get(1)?);
        }
        Some(Self { value, long })
    }

    /// Overwrites the id at the start of `octets` by another of the same width,
    /// and answers its length; `None` if it is cut short.
    pub(super) fn patch(octets: &mut [u8], value: u16) -> Option<usize> {
        let id = Self::read(octets)?;
        if id.long {
            octets[0] = 0x80 | (value >> 8) as u8 & 0x7f;
            octets[1] = value as u8;
        } else {
            octets[0] = value as u8 & 0x7f;
        }
        Some(id.len())
    }
}
