//! Receiver estimated maximum bit rate (draft-alvestrand-rmcat-remb).

use super::*;

/// A receiver's estimate of its own downlink.
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    pub sender: Ssrc,
    /// Saturates where the exponent leads beyond 64 bits.
    pub bits_per_second: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    /// Whether an application-layer feedback message is a REMB.
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(8..12) == Some(b"REMB")
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, RtcpError> {
        let head = need::<16>(body)?;
        let exponent = u32::from(head[13] >> 2);
        let mantissa =
            u64::from(head[13] & 3) << 16 | u64::from(head[14]) << 8 | u64::from(head[15]);
        let need = 16 + 4 * usize::from(head[12]);
        let ssrcs = body.get(16..need).ok_or(RtcpError::Truncated {
            have: body.len(),
            need,
        })?;
        Ok(Self {
            sender: ssrc(head),
            bits_per_second: mantissa
                .saturating_mul(1u64.checked_shl(exponent).unwrap_or(u64::MAX)),
            ssrcs,
        })
    }

    /// The streams that the estimate is about.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        self.ssrcs.chunks_exact(4).map(ssrc)
    }
}

/// Appends a REMB, rounded down to 18 significant bits, for at most 255 streams.
pub fn write(sender: Ssrc, bits_per_second: u64, ssrcs: &[Ssrc], out: &mut Vec<u8>) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (u64::BITS - bits_per_second.leading_zeros()).saturating_sub(18);
    let mantissa = (bits_per_second >> exponent) as u32;
    let start = begin_feedback(PAYLOAD_FEEDBACK, FMT_APPLICATION, sender, Ssrc(0), out);
    out.extend_from_slice(b"REMB");
    let word = (ssrcs.len() as u32) << 24 | exponent << 18 | mantissa;
    out.extend_from_slice(&word.to_be_bytes());
    for ssrc in ssrcs {
        out.extend_from_slice(&ssrc.0.to_be_bytes());
    }
    finish(start, out);
}
