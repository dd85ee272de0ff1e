//! Transport-wide congestion-control feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which packets of
//! a transport arrived, and when.

use std::time::Duration;

use super::*;

/// Times are sent in units of 250 us, from a base in units of 64 ms.
const TICK: u64 = 250;
const TICKS_PER_BASE: u64 = 64_000 / TICK;
/// Most packets reported at once. Keeps a feedback packet below 1200 octets
/// even if every delta takes two octets.
pub const MAX_PACKETS: usize = 500;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// A feedback packet, checked as a whole.
#[derive(Clone, Copy, Debug)]
pub struct TransportFeedback<'a> {
    pub sender: Ssrc,
    pub media: Ssrc,
    /// Sequence number of the first packet reported on.
    pub base_sequence_number: u16,
    /// Number of packets reported on.
    pub packet_count: u16,
    /// Counts feedback packets.
    pub feedback_count: u8,
    /// The base of all times, in units of 64 ms; 24 bits.
    pub reference_time: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, RtcpError> {
        let head = need::<16>(body)?;
        let mut feedback = Self {
            sender: ssrc(head),
            media: ssrc(&head[4..]),
            base_sequence_number: u16::from_be_bytes([head[8], head[9]]),
            packet_count: u16::from_be_bytes([head[10], head[11]]),
            reference_time: u32::from_be_bytes([0, head[12], head[13], head[14]]),
            feedback_count: head[15],
            chunks: &body[16..],
            deltas: &[],
        };
        let mut symbols = feedback.symbols();
        let mut delta_octets = 0;
        for _ in 0..feedback.packet_count {
            match symbols.next() {
                Some(NOT_RECEIVED) => {}
                Some(SMALL_DELTA) => delta_octets += 1,
                Some(LARGE_DELTA) => delta_octets += 2,
                _ => return Err(RtcpError::TransportFeedback),
            }
        }
        let rest = symbols.rest.len();
        let (chunks, deltas) = feedback.chunks.split_at(feedback.chunks.len() - rest);
        feedback.chunks = chunks;
        feedback.deltas = deltas.get(..delta_octets).ok_or(RtcpError::Truncated {
            have: deltas.len(),
            need: delta_octets,
        })?;
        Ok(feedback)
    }

    fn symbols(&self) -> Symbols<'a> {
        Symbols {
            rest: self.chunks,
            chunk: 0,
            left: 0,
        }
    }

    /// Each packet reported on: its sequence number and its arrival in
    /// microseconds of the reporter's clock, counted from where 24 bits of
    /// reference time begin; `None` if it has not arrived.
    pub fn arrivals(&self) -> impl Iterator<Item = (u16, Option<i64>)> + use<'a> {
        let mut ticks = i64::from(self.reference_time) * TICKS_PER_BASE as i64;
        let mut deltas = self.deltas;
        let base = self.base_sequence_number;
        self.symbols()
            .zip(0..self.packet_count)
            .map(move |(symbol, n)| {
                let delta = match (symbol, deltas) {
                    (SMALL_DELTA, [delta, rest @ ..]) => {
                        deltas = rest;
                        Some(i64::from(*delta))
                    }
                    (LARGE_DELTA, [high, low, rest @ ..]) => {
                        deltas = rest;
                        Some(i64::from(i16::from_be_bytes([*high, *low])))
                    }
                    _ => None,
                };
                ticks += delta.unwrap_or(0);
                (base.wrapping_add(n), delta.map(|_| ticks * TICK as i64))
            })
    }
}

/// Expands packet status chunks (§3.1.2 to §3.1.4) into symbols.
#[derive(Clone, Debug)]
struct Symbols<'a> {
    rest: &'a [u8],
    chunk: u16,
    left: u16,
}

impl Iterator for Symbols<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while self.left == 0 {
            let (chunk, rest) = self.rest.split_first_chunk::<2>()?;
            self.rest = rest;
            self.chunk = u16::from_be_bytes(*chunk);
            self.left = match self.chunk >> 14 {
                0 | 1 => self.chunk & 0x1fff,
                2 => 14,
                _ => 7,
            };
        }
        self.left -= 1;
        Some(match self.chunk >> 14 {
            0 | 1 => (self.chunk >> 13) as u8 & 3,
            2 => (self.chunk >> self.left) as u8 & 1,
            _ => (self.chunk >> (2 * self.left)) as u8 & 3,
        })
    }
}

/// Appends one feedback packet about consecutive packets from
/// `base_sequence_number` on: for each its arrival since an origin that stays
/// the same for all feedback of a transport, or `None`.
///
/// Answers how many were reported. The caller goes on from there with the next
/// `feedback_count`: a packet ends at [`MAX_PACKETS`], and where the time
/// between two arrivals does not fit 16 bits. 0, with nothing written, if none
/// of the first [`MAX_PACKETS`] has arrived.
pub fn write(
    sender: Ssrc,
    media: Ssrc,
    feedback_count: u8,
    base_sequence_number: u16,
    arrivals: impl IntoIterator<Item = Option<Duration>>,
    out: &mut Vec<u8>,
) -> usize {
    let mut symbols = [NOT_RECEIVED; MAX_PACKETS];
    let mut deltas = [0i16; MAX_PACKETS];
    let mut reported = 0;
    let mut reference = None;
    let mut last = 0u64;
    for (at, arrival) in arrivals.into_iter().take(MAX_PACKETS).enumerate() {
        if let Some(arrival) = arrival {
            let ticks = arrival.as_micros() as u64 / TICK;
            if reference.is_none() {
                let base = ticks / TICKS_PER_BASE;
                reference = Some(base);
                last = base * TICKS_PER_BASE;
            }
            let Ok(delta) = i16::try_from(ticks.wrapping_sub(last) as i64) else {
                break;
            };
            last = ticks;
            deltas[at] = delta;
            symbols[at] = if (0..=255).contains(&delta) {
                SMALL_DELTA
            } else {
                LARGE_DELTA
            };
            reported = at + 1;
        }
    }
    // Packets missing at the end may still be on their way: they are left to
    // the next report. What ends here was received.
    let (Some(reference), symbols) = (reference, &symbols[..reported]) else {
        return 0;
    };
    let start = begin_feedback(TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC, sender, media, out);
    out.extend_from_slice(&base_sequence_number.to_be_bytes());
    out.extend_from_slice(&(reported as u16).to_be_bytes());
    out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
    out.push(feedback_count);
    write_chunks(symbols, out);
    for (symbol, delta) in symbols.iter().zip(deltas) {
        match *symbol {
            SMALL_DELTA => out.push(delta as u8),
            LARGE_DELTA => out.extend_from_slice(&delta.to_be_bytes()),
            _ => {}
        }
    }
    finish(start, out);
    reported
}

/// Appends the status chunks: a run where it says more than a vector would,
/// else a vector of 14 one-bit or 7 two-bit symbols.
fn write_chunks(mut symbols: &[u8], out: &mut Vec<u8>) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|s| **s == first).count();
        let small = symbols.iter().take(14).all(|symbol| *symbol != LARGE_DELTA);
        let vector = if small { 14 } else { 7 };
        let (chunk, taken) = if run >= vector || run == symbols.len() {
            // A run's length is 13 bits, more than there are symbols.
            (u16::from(first) << 13 | run as u16, run)
        } else {
            let taken = vector.min(symbols.len());
            let bits = if small { 1 } else { 2 };
            let mut chunk = if small { 0x8000 } else { 0xc000 };
            for (at, symbol) in symbols[..taken].iter().enumerate() {
                chunk |= u16::from(*symbol) << (bits * (vector - 1 - at));
            }
            (chunk, taken)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        symbols = &symbols[taken..];
    }
}
