//! Walks the packets of a compound (RFC 3550 §6.1) or reduced-size (RFC 5506)
//! datagram.

use super::keyframe_request::{FullIntraRequest, PictureLoss};
use super::nack::Nack;
use super::remb::Remb;
use super::report::{ReceiverReport, SenderReport};
use super::transport_cc::TransportFeedback;
use super::*;

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    Nack(Nack<'a>),
    PictureLoss(PictureLoss),
    FullIntraRequest(FullIntraRequest<'a>),
    Remb(Remb<'a>),
    TransportFeedback(TransportFeedback<'a>),
    /// SDES, whose items nobody here asks for.
    SourceDescription,
    /// BYE. Sources go away by signalling only.
    Goodbye,
    /// Anything else, with its `RC`, `SC` or `FMT` field.
    Other {
        packet_type: u8,
        count: u8,
    },
}

/// Iterates over the packets of a decrypted datagram. A packet whose own body
/// is malformed yields an error and is stepped over; one whose length cannot be
/// trusted yields an error and ends the walk.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

/// Cuts a compound of ours between its packets into pieces of `most` octets or
/// less, as few as can be. A packet that is longer is a piece alone.
pub fn parts(compound: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let mut len = 0;
        while let Some(&[_, _, high, low]) = rest.get(len..).and_then(|next| next.first_chunk()) {
            let next = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
            if len > 0 && len + next > most {
                break;
            }
            len += next;
        }
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// The iterator of [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Packets<'a> {
    fn split(&mut self) -> Result<Packet<'a>, RtcpError> {
        let &[first, packet_type, high, low] = need::<4>(self.rest)?;
        if first >> 6 != 2 {
            return Err(RtcpError::Version(first >> 6));
        }
        let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let (packet, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(RtcpError::Truncated {
                have: self.rest.len(),
                need: len,
            })?;
        self.rest = rest;
        let mut body = &packet[4..];
        if first & 0x20 != 0 {
            let padding = packet[len - 1];
            body = body
                .len()
                .checked_sub(usize::from(padding))
                .filter(|_| padding > 0)
                .map(|len| &body[..len])
                .ok_or(RtcpError::Padding(padding))?;
        }
        read(packet_type, first & 0x1f, body)
    }
}

fn read(packet_type: u8, count: u8, body: &[u8]) -> Result<Packet<'_>, RtcpError> {
    Ok(match (packet_type, count) {
        (SENDER_REPORT, _) => Packet::SenderReport(SenderReport::parse(count, body)?),
        (RECEIVER_REPORT, _) => Packet::ReceiverReport(ReceiverReport::parse(count, body)?),
        (SOURCE_DESCRIPTION, _) => Packet::SourceDescription,
        (GOODBYE, _) => Packet::Goodbye,
        (TRANSPORT_FEEDBACK, FMT_NACK) => Packet::Nack(Nack::parse(body)?),
        (TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC) => {
            Packet::TransportFeedback(TransportFeedback::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, FMT_PLI) => Packet::PictureLoss(PictureLoss::parse(body)?),
        (PAYLOAD_FEEDBACK, FMT_FIR) => Packet::FullIntraRequest(FullIntraRequest::parse(body)?),
        (PAYLOAD_FEEDBACK, FMT_APPLICATION) if Remb::is_remb(body) => {
            Packet::Remb(Remb::parse(body)?)
        }
        _ => Packet::Other { packet_type, count },
    })
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let before = self.rest.len();
        let packet = self.split();
        if self.rest.len() == before {
            self.rest = &[];
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Pieces together are the whole, each is as long as can be, and none is
        /// longer than asked for unless it is one packet.
        #[test]
        fn a_compound_is_cut_between_its_packets(
            sizes in vec(1usize..200, 0..40), most in 4usize..1500,
        ) {
            let mut compound = Vec::new();
            for words in &sizes {
                let length = (*words as u16 - 1).to_be_bytes();
                compound.extend_from_slice(&[0x80, SENDER_REPORT, length[0], length[1]]);
                compound.resize(compound.len() + 4 * (words - 1), 0);
            }
            let cut: Vec<&[u8]> = parts(&compound, most).collect();
            prop_assert_eq!(&cut.concat(), &compound);
            for (at, part) in cut.iter().enumerate() {
                prop_assert!(part.len() <= most || packets(part).count() == 1);
                if let Some(next) = cut.get(at + 1) {
                    let first = 4 * (usize::from(u16::from_be_bytes([next[2], next[3]])) + 1);
                    prop_assert!(part.len() + first > most);
                }
            }
        }
    }
}
