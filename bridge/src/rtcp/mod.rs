//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104, transport-wide feedback): views that
//! read any octets safely, and functions that append packets to a buffer.
//!
//! [`compound::packets`] walks a compound or reduced-size packet. The views
//! borrow from it; what they iterate over was checked when they were made.

pub mod compound;
pub mod keyframe_request;
pub mod nack;
pub mod remb;
pub mod report;
pub mod transport_cc;

pub use compound::{Packet, packets, parts};

use crate::rtp::Ssrc;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
pub(crate) const SENDER_REPORT: u8 = 200;
pub(crate) const RECEIVER_REPORT: u8 = 201;
pub(crate) const SOURCE_DESCRIPTION: u8 = 202;
pub(crate) const GOODBYE: u8 = 203;
pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;
pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;

/// Feedback message types of [`TRANSPORT_FEEDBACK`].
pub(crate) const FMT_NACK: u8 = 1;
pub(crate) const FMT_TRANSPORT_CC: u8 = 15;
/// Feedback message types of [`PAYLOAD_FEEDBACK`].
pub(crate) const FMT_PLI: u8 = 1;
pub(crate) const FMT_FIR: u8 = 4;
pub(crate) const FMT_APPLICATION: u8 = 15;

/// Why RTCP was refused. The peer's doing, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// Shorter than it announces, or than its type needs.
    #[error("{have} octets where {need} are needed")]
    Truncated { have: usize, need: usize },
    /// Not version 2.
    #[error("version {0} is not RTCP")]
    Version(u8),
    /// The padding count is impossible (RFC 3550 §6.4.1).
    #[error("{0} octets of padding")]
    Padding(u8),
    /// A status symbol or count that transport-wide feedback does not have.
    #[error("malformed transport-wide feedback")]
    TransportFeedback,
}

/// Appends a header whose length [`finish`] fills in; answers where it begins.
fn begin(packet_type: u8, count: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count & 0x1f, packet_type, 0, 0]);
    start
}

/// As [`begin`], with the two SSRCs of a feedback message (RFC 4585 §6.1).
fn begin_feedback(packet_type: u8, fmt: u8, sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) -> usize {
    let start = begin(packet_type, fmt, out);
    out.extend_from_slice(&sender.0.to_be_bytes());
    out.extend_from_slice(&media.0.to_be_bytes());
    start
}

/// Pads the packet that begins at `start` to whole words, announcing padding
/// if there is any, and fills in its length.
fn finish(start: usize, out: &mut Vec<u8>) {
    let padding = (4 - (out.len() - start) % 4) % 4;
    if padding > 0 {
        out.extend_from_slice(&[0; 3][..padding - 1]);
        out.push(padding as u8);
        out[start] |= 0x20;
    }
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// The part of `body` that a packet type must have, as an array.
fn need<const N: usize>(body: &[u8]) -> Result<&[u8; N], RtcpError> {
    body.first_chunk().ok_or(RtcpError::Truncated {
        have: body.len(),
        need: N,
    })
}

fn ssrc(bytes: &[u8]) -> Ssrc {
    Ssrc(crate::rtp::be32(bytes))
}
