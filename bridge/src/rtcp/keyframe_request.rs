//! Requests for a key frame: PLI (RFC 4585 §6.3.1) and FIR (RFC 5104 §4.3.1).

use super::*;

/// Picture loss indication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLoss {
    pub sender: Ssrc,
    pub media: Ssrc,
}

impl PictureLoss {
    pub(super) fn parse(body: &[u8]) -> Result<Self, RtcpError> {
        let ssrcs = need::<8>(body)?;
        Ok(Self {
            sender: ssrc(ssrcs),
            media: ssrc(&ssrcs[4..]),
        })
    }
}

/// Full intra request: names its streams one by one.
#[derive(Clone, Copy, Debug)]
pub struct FullIntraRequest<'a> {
    pub sender: Ssrc,
    entries: &'a [u8],
}

impl<'a> FullIntraRequest<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, RtcpError> {
        Ok(Self {
            sender: ssrc(need::<8>(body)?),
            entries: &body[8..],
        })
    }

    /// Each stream asked for, with the command sequence number by which
    /// repeats of one request are told from a new one.
    pub fn requests(&self) -> impl Iterator<Item = (Ssrc, u8)> + use<'a> {
        self.entries
            .chunks_exact(8)
            .map(|entry| (ssrc(entry), entry[4]))
    }
}

/// Appends a PLI.
pub fn write_pli(sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) {
    let start = begin_feedback(PAYLOAD_FEEDBACK, FMT_PLI, sender, media, out);
    finish(start, out);
}

/// Appends a FIR for one stream.
pub fn write_fir(sender: Ssrc, media: Ssrc, command: u8, out: &mut Vec<u8>) {
    // The media SSRC of the header is unused and zero (RFC 5104 §4.3.1.2).
    let start = begin_feedback(PAYLOAD_FEEDBACK, FMT_FIR, sender, Ssrc(0), out);
    out.extend_from_slice(&media.0.to_be_bytes());
    out.extend_from_slice(&[command, 0, 0, 0]);
    finish(start, out);
}
