//! Sender and receiver reports (RFC 3550 §6.4).

use super::*;
use crate::rtp::be32;

const BLOCK: usize = 24;
/// Most report blocks in one packet: the count is five bits.
pub const MAX_BLOCKS: usize = 31;

/// What a sender says about a stream: SSRC, and the sender information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: Ssrc,
    /// Wall clock, 32.32 fixed-point seconds since 1900.
    pub ntp: u64,
    /// The same moment in the stream's own clock.
    pub rtp_timestamp: u32,
    pub packet_count: u32,
    pub octet_count: u32,
}

impl SenderInfo {
    /// The middle 32 bits of the wall clock, as LSR quotes them.
    pub fn compact_ntp(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// One stream as its receiver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: Ssrc,
    /// Of the packets since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Since the start; 24 bits, negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Highest sequence number with its rollovers, 16 bits of each.
    pub highest_sequence_number: u32,
    /// In units of the stream's clock.
    pub jitter: u32,
    /// Compact NTP time of the last sender report; 0 if none came.
    pub last_sender_report: u32,
    /// Since then, in 65536ths of a second.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    fn parse(block: &[u8]) -> Self {
        Self {
            ssrc: ssrc(block),
            fraction_lost: block[4],
            cumulative_lost: (be32(&block[4..]) << 8) as i32 >> 8,
            highest_sequence_number: be32(&block[8..]),
            jitter: be32(&block[12..]),
            last_sender_report: be32(&block[16..]),
            delay_since_last_sender_report: be32(&block[20..]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        for word in [
            self.ssrc.0,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_sequence_number,
            self.jitter,
            self.last_sender_report,
            self.delay_since_last_sender_report,
        ] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// The report blocks at the start of `bytes`, if they are all there.
fn blocks(count: u8, bytes: &[u8]) -> Result<&[u8], RtcpError> {
    let need = BLOCK * usize::from(count);
    bytes.get(..need).ok_or(RtcpError::Truncated {
        have: bytes.len(),
        need,
    })
}

/// A sender report (packet type 200).
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        let info = need::<24>(body)?;
        Ok(Self {
            info: SenderInfo {
                ssrc: ssrc(info),
                ntp: u64::from(be32(&info[4..])) << 32 | u64::from(be32(&info[8..])),
                rtp_timestamp: be32(&info[12..]),
                packet_count: be32(&info[16..]),
                octet_count: be32(&info[20..]),
            },
            blocks: blocks(count, &body[24..])?,
        })
    }

    /// The reports on streams this sender receives.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.blocks.chunks_exact(BLOCK).map(ReportBlock::parse)
    }
}

/// A receiver report (packet type 201).
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    pub sender: Ssrc,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        Ok(Self {
            sender: ssrc(need::<4>(body)?),
            blocks: blocks(count, &body[4..])?,
        })
    }

    /// The reports, one a stream.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        self.blocks.chunks_exact(BLOCK).map(ReportBlock::parse)
    }
}

/// Appends a sender report without report blocks.
pub fn write_sender_report(info: &SenderInfo, out: &mut Vec<u8>) {
    let start = begin(SENDER_REPORT, 0, out);
    out.extend_from_slice(&info.ssrc.0.to_be_bytes());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    for word in [info.rtp_timestamp, info.packet_count, info.octet_count] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    finish(start, out);
}

/// Appends receiver reports: as many packets as the blocks need, one if there
/// are none.
pub fn write_receiver_report(sender: Ssrc, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let mut rest = blocks;
    loop {
        let (some, later) = rest.split_at(rest.len().min(MAX_BLOCKS));
        let start = begin(RECEIVER_REPORT, some.len() as u8, out);
        out.extend_from_slice(&sender.0.to_be_bytes());
        for block in some {
            block.write(out);
        }
        finish(start, out);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}
