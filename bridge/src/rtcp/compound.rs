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
