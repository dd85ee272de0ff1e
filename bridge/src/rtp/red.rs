//! Redundant audio data (RFC 2198): a packet that repeats what came before it,
//! so that it makes up for the loss of its predecessors.

use super::PayloadType;

/// Most blocks repeated in one packet. Clients repeat one or two.
pub const MAX_REPEATED: usize = 8;

/// Why a payload is no redundant data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedError {
    /// It ends before the blocks that it announces.
    #[error("the payload ends inside its redundant blocks")]
    Truncated,
    /// More than anybody needs.
    #[error("more than {MAX_REPEATED} repeated blocks")]
    TooManyBlocks,
}

/// A block repeated from an earlier packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeated<'a> {
    pub payload_type: PayloadType,
    /// How much earlier its timestamp is: 14 bits.
    pub timestamp_offset: u16,
    pub data: &'a [u8],
}

/// The blocks of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a> {
    repeated: [Repeated<'a>; MAX_REPEATED],
    count: usize,
    /// What the packet itself is about.
    pub payload_type: PayloadType,
    pub primary: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Reads the headers (§3), and finds the blocks behind them.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RedError> {
        let mut found = Self {
            repeated: [Repeated::default(); MAX_REPEATED],
            count: 0,
            payload_type: PayloadType(0),
            primary: &[],
        };
        let mut lengths = [0; MAX_REPEATED];
        let mut rest = payload;
        loop {
            let first = *rest.first().ok_or(RedError::Truncated)?;
            let payload_type = PayloadType(first & 0x7f);
            if first & 0x80 == 0 {
                found.payload_type = payload_type;
                rest = &rest[1..];
                break;
            }
            let (header, tail) = rest.split_first_chunk::<4>().ok_or(RedError::Truncated)?;
            let [_, high, middle, low] = *header;
            if found.count == MAX_REPEATED {
                return Err(RedError::TooManyBlocks);
            }
            found.repeated[found.count] = Repeated {
                payload_type,
                timestamp_offset: u16::from(high) << 6 | u16::from(middle >> 2),
                data: &[],
            };
            lengths[found.count] = usize::from(middle & 3) << 8 | usize::from(low);
            found.count += 1;
            rest = tail;
        }
        for (block, len) in found.repeated[..found.count].iter_mut().zip(lengths) {
            let (data, tail) = rest.split_at_checked(len).ok_or(RedError::Truncated)?;
            block.data = data;
            rest = tail;
        }
        found.primary = rest;
        Ok(found)
    }

    /// The repeated blocks, the oldest first.
    pub fn repeated(&self) -> &[Repeated<'a>] {
        &self.repeated[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_behind_their_headers() {
        // 1920 and 960 earlier, two octets and one; then Opus itself.
        let payload = [
            0x80 | 111,
            0x1e,
            0x00,
            2,
            0x80 | 111,
            0x0f,
            0x00,
            1,
            111,
            1,
            2,
            3,
            4,
            5,
            6,
        ];
        let blocks = Blocks::parse(&payload).expect("valid");
        let repeated: Vec<_> = blocks
            .repeated()
            .iter()
            .map(|block| (block.payload_type.0, block.timestamp_offset, block.data))
            .collect();
        assert_eq!(repeated, [(111, 1920, &[1, 2][..]), (111, 960, &[3])]);
        assert_eq!(
            (blocks.payload_type.0, blocks.primary),
            (111, &[4, 5, 6][..])
        );
        let only = Blocks::parse(&[111, 7]).expect("valid");
        assert_eq!((only.repeated().len(), only.primary), (0, &[7][..]));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for payload in [&[][..], &[0xef], &[0xef, 0, 0, 2], &[0xef, 0, 0, 2, 111, 1]] {
            assert_eq!(Blocks::parse(payload), Err(RedError::Truncated));
        }
        let many = [0xef, 0, 0, 0].repeat(MAX_REPEATED + 1);
        assert_eq!(Blocks::parse(&many), Err(RedError::TooManyBlocks));
    }
}
