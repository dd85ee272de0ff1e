//! What a client reports of the packets that came: receiver reports
//! (RFC 3550 §6.4.2) and arrivals for transport-wide congestion control.

use std::collections::BTreeMap;
use std::time::Instant;

use rtcp::Packet;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc,
    SymbolTypeTcc, TransportLayerCc,
};

use super::Clock;
use super::rtp::Header;

/// SSRCs of the bridge's choosing that are kept state for.
const MAX_STREAMS: usize = 4096;
/// Arrivals reported in one feedback packet.
const MAX_ARRIVALS: usize = 400;
/// Blocks of a receiver report (RFC 3550 §6.4.2).
const MAX_BLOCKS: usize = 31;

/// Per SSRC, what a receiver report needs (RFC 3550 §A.3, §A.8).
#[derive(Debug)]
struct Reception {
    clock_rate: u32,
    base: u32,
    highest: u32,
    received: u32,
    expected_prior: u32,
    received_prior: u32,
    jitter: f64,
    timestamp: (u32, Instant),
    last_report: Option<(u32, Instant)>,
}

/// Arrivals and receptions of one session.
#[derive(Debug, Default)]
pub struct Feedback {
    reception: BTreeMap<u32, Reception>,
    arrivals: BTreeMap<u64, Instant>,
    newest_arrival: Option<u64>,
    reported_to: Option<u64>,
    count: u8,
}

impl Feedback {
    /// A new session begins.
    pub fn restart(&mut self) {
        *self = Self {
            count: self.count,
            ..Self::default()
        };
    }

    /// A packet with that transport-wide number came.
    pub fn note_arrival(&mut self, now: Instant, number: u16) {
        let newest = self.newest_arrival.unwrap_or(u64::from(number) + (1 << 32));
        let index =
            newest.wrapping_add_signed(i64::from(number.wrapping_sub(newest as u16) as i16));
        self.newest_arrival = Some(newest.max(index));
        if self.arrivals.len() < MAX_ARRIVALS {
            self.arrivals.insert(index, now);
        }
    }

    /// A packet of a media stream came.
    pub fn note_reception(&mut self, now: Instant, clock_rate: u32, header: &Header) {
        if self.reception.len() >= MAX_STREAMS {
            return;
        }
        let sequence = u32::from(header.sequence);
        let stats = self.reception.entry(header.ssrc).or_insert(Reception {
            clock_rate,
            base: sequence,
            highest: sequence,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter: 0.0,
            timestamp: (header.timestamp, now),
            last_report: None,
        });
        stats.received = stats.received.wrapping_add(1);
        let ahead = header.sequence.wrapping_sub(stats.highest as u16) as i16;
        if ahead > 0 {
            stats.highest = stats.highest.wrapping_add(ahead as u32);
            let moved = now
                .saturating_duration_since(stats.timestamp.1)
                .as_secs_f64();
            let ticks = header.timestamp.wrapping_sub(stats.timestamp.0) as i32;
            let transit = (moved * f64::from(clock_rate)) as i64 - i64::from(ticks);
            stats.jitter += (transit.unsigned_abs() as f64 - stats.jitter) / 16.0;
            stats.timestamp = (header.timestamp, now);
        }
    }

    /// A sender report from the bridge. False if its RTP time is not that of the
    /// packets around it.
    pub fn receive_report(&mut self, now: Instant, report: &SenderReport) -> bool {
        let Some(stats) = self.reception.get_mut(&report.ssrc) else {
            return true;
        };
        let since = now
            .saturating_duration_since(stats.timestamp.1)
            .as_secs_f64();
        let expected = stats
            .timestamp
            .0
            .wrapping_add((since * f64::from(stats.clock_rate)) as u32);
        let off = report.rtp_time.wrapping_sub(expected) as i32;
        stats.last_report = Some(((report.ntp_time >> 16) as u32, now));
        // A second is far more than any network's delay and far less than
        // what unmapped timestamps differ by.
        off.unsigned_abs() <= stats.clock_rate
    }

    /// Receiver reports of all streams heard since the last time.
    pub fn receiver_reports(&mut self, now: Instant, ssrc: u32) -> Vec<Box<dyn Packet>> {
        let blocks: Vec<ReceptionReport> = self
            .reception
            .iter_mut()
            .filter(|(_, stats)| stats.received != stats.received_prior)
            .map(|(ssrc, stats)| stats.block(*ssrc, now))
            .collect();
        let report = |reports: Vec<ReceptionReport>| -> Box<dyn Packet> {
            Box::new(ReceiverReport {
                ssrc,
                reports,
                ..ReceiverReport::default()
            })
        };
        if blocks.is_empty() {
            return vec![report(Vec::new())];
        }
        blocks
            .chunks(MAX_BLOCKS)
            .map(|blocks| report(blocks.to_vec()))
            .collect()
    }

    /// Arrivals since the last feedback (draft-holmer-rmcat-transport-wide-cc §3.1).
    pub fn transport(&mut self, ssrc: u32, clock: &Clock) -> Option<TransportLayerCc> {
        let arrivals = std::mem::take(&mut self.arrivals);
        let (&first, _) = arrivals.first_key_value()?;
        let (&last, _) = arrivals.last_key_value()?;
        let from = self
            .reported_to
            .filter(|to| *to < first && first - to < MAX_ARRIVALS as u64)
            .map_or(first, |to| to + 1);
        self.reported_to = Some(last);
        if last - from >= 0x4000 {
            return None;
        }
        let micros = |at: Instant| at.saturating_duration_since(clock.epoch).as_micros() as i64;
        let start =
            micros(*arrivals.first_key_value()?.1).min(micros(*arrivals.last_key_value()?.1));
        let reference = start / 64_000;
        let mut before = reference * 64_000;
        let mut symbols = Vec::new();
        let mut deltas = Vec::new();
        for index in from..=last {
            let Some(at) = arrivals.get(&index) else {
                symbols.push(SymbolTypeTcc::PacketNotReceived);
                continue;
            };
            let ticks = (micros(*at) - before) / 250;
            let kind = match ticks {
                0..=255 => SymbolTypeTcc::PacketReceivedSmallDelta,
                -32_768..=32_767 => SymbolTypeTcc::PacketReceivedLargeDelta,
                _ => break,
            };
            before += ticks * 250;
            symbols.push(kind);
            deltas.push(RecvDelta {
                type_tcc_packet: kind,
                delta: ticks * 250,
            });
        }
        let count = symbols.len() as u16;
        let chunks = symbols
            .chunks(7)
            .map(|symbols| {
                let mut symbol_list = symbols.to_vec();
                symbol_list.resize(7, SymbolTypeTcc::PacketNotReceived);
                PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                    type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                    symbol_size: SymbolSizeTypeTcc::TwoBit,
                    symbol_list,
                })
            })
            .collect();
        self.count = self.count.wrapping_add(1);
        let media_ssrc = self.reception.keys().next().copied().unwrap_or(0);
        Some(TransportLayerCc {
            sender_ssrc: ssrc,
            media_ssrc,
            base_sequence_number: from as u16,
            packet_status_count: count,
            reference_time: (reference & 0xff_ffff) as u32,
            fb_pkt_count: self.count,
            packet_chunks: chunks,
            recv_deltas: deltas,
        })
    }
}

impl Reception {
    fn block(&mut self, ssrc: u32, now: Instant) -> ReceptionReport {
        let expected = self.highest.wrapping_sub(self.base).wrapping_add(1);
        let expected_interval = expected.wrapping_sub(self.expected_prior);
        let received_interval = self.received.wrapping_sub(self.received_prior);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8)
            .checked_div(expected_interval)
            .unwrap_or(0);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let (last_sender_report, delay) = self.last_report.map_or((0, 0), |(ntp, at)| {
            let since = now.saturating_duration_since(at).as_secs_f64();
            (ntp, (since * 65_536.0) as u32)
        });
        ReceptionReport {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff),
            last_sequence_number: self.highest,
            jitter: self.jitter as u32,
            last_sender_report,
            delay,
        }
    }
}
