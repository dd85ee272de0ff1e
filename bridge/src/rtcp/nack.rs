//! Generic NACK (RFC 4585 §6.2.1).

use super::*;

/// A request for retransmission of packets of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    pub sender: Ssrc,
    pub media: Ssrc,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, RtcpError> {
        let ssrcs = need::<8>(body)?;
        Ok(Self {
            sender: ssrc(ssrcs),
            media: ssrc(&ssrcs[4..]),
            entries: &body[8..],
        })
    }

    /// The missing sequence numbers, in the order of the message.
    pub fn sequence_numbers(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries.chunks_exact(4).flat_map(|entry| {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            // Bit i of the mask is the packet i + 1 after the named one.
            let mask = u32::from(u16::from_be_bytes([entry[2], entry[3]])) << 1 | 1;
            (0..17u16)
                .filter(move |bit| mask >> bit & 1 == 1)
                .map(move |bit| id.wrapping_add(bit))
        })
    }
}

/// Appends a NACK for these sequence numbers, best given in ascending order
/// (modulo 2^16), for which it is the shortest. Nothing for none.
pub fn write(sender: Ssrc, media: Ssrc, missing: impl IntoIterator<Item = u16>, out: &mut Vec<u8>) {
    let mut missing = missing.into_iter().peekable();
    if missing.peek().is_none() {
        return;
    }
    let start = begin_feedback(TRANSPORT_FEEDBACK, FMT_NACK, sender, media, out);
    while let Some(id) = missing.next() {
        let mut mask = 0u16;
        while let Some(next) = missing.next_if(|next| (1..=16).contains(&next.wrapping_sub(id))) {
            mask |= 1 << (next.wrapping_sub(id) - 1);
        }
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
    finish(start, out);
}
