//! Reception statistics of one SSRC, for receiver reports (RFC 3550 §6.4.1, A.3, A.8).

use std::time::{Duration, Instant};

use crate::rtp::PacketIndex;

/// What a report block says about one SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Fraction lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Packets lost since the last report.
    pub newly_lost: u32,
    /// Packets lost since the beginning; 24 bits, signed.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Inter-arrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time, 0 without one.
    pub last_sr: u32,
    /// Time since that report in 65536ths of a second.
    pub delay_since_last_sr: u32,
}

/// Reception statistics of one SSRC.
#[derive(Debug)]
pub struct Statistics {
    clock_rate: u32,
    base: PacketIndex,
    highest: PacketIndex,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Jitter times 16, in units of the RTP clock.
    jitter: u32,
    last: (Instant, u32),
    last_sr: Option<(Instant, u32)>,
    fresh: bool,
}

impl Statistics {
    /// Begins with the first packet of the SSRC.
    pub fn new(now: Instant, clock_rate: u32, index: PacketIndex, timestamp: u32) -> Self {
        Self {
            clock_rate,
            base: index,
            highest: index,
            received: 1,
            expected_before: 0,
            received_before: 0,
            jitter: 0,
            last: (now, timestamp),
            last_sr: None,
            fresh: true,
        }
    }

    /// Takes note of a further packet.
    pub fn received(&mut self, now: Instant, index: PacketIndex, timestamp: u32) {
        self.received += 1;
        self.fresh = true;
        if index <= self.highest {
            return;
        }
        self.highest = index;
        let (before, stamped) = self.last;
        self.last = (now, timestamp);
        if timestamp == stamped {
            return;
        }
        let elapsed = now.saturating_duration_since(before).as_micros() as i64
            * i64::from(self.clock_rate)
            / 1_000_000;
        let deviation = (elapsed - i64::from(timestamp.wrapping_sub(stamped) as i32)).abs();
        // Restarted or absurd timestamps say nothing about the network.
        if deviation < 10 * i64::from(self.clock_rate) {
            let deviation = deviation as u32;
            self.jitter = self.jitter + deviation - ((self.jitter + 8) >> 4);
        }
    }

    /// Takes note of a sender report with these middle 32 bits of NTP time.
    pub fn sender_report(&mut self, now: Instant, ntp_middle: u32) {
        self.last_sr = Some((now, ntp_middle));
    }

    /// When the last packet in order came.
    pub fn last_packet(&self) -> Instant {
        self.last.0
    }

    /// The report block, if anything came since the last one.
    pub fn report(&mut self, now: Instant) -> Option<Report> {
        if !std::mem::take(&mut self.fresh) {
            return None;
        }
        let expected = self.highest.0 - self.base.0 + 1;
        let expected_since = expected - self.expected_before;
        let received_since = self.received - self.received_before;
        self.expected_before = expected;
        self.received_before = self.received;
        let lost_since = expected_since.saturating_sub(received_since);
        let fraction_lost = (lost_since * 256).checked_div(expected_since);
        let fraction_lost = fraction_lost.unwrap_or(0).min(255) as u8;
        let (last_sr, delay_since_last_sr) = self.last_sr.map_or((0, 0), |(at, ntp)| {
            (ntp, ntp_short(now.saturating_duration_since(at)))
        });
        Some(Report {
            fraction_lost,
            newly_lost: lost_since as u32,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff)
                as i32,
            highest: self.highest.0 as u32,
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_last_sr,
        })
    }
}

/// A duration as NTP's short format: 65536ths of a second.
pub fn ntp_short(duration: Duration) -> u32 {
    u32::try_from((duration.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

/// The duration that NTP's short format names.
pub fn from_ntp_short(short: u32) -> Duration {
    Duration::from_micros((u64::from(short) * 1_000_000) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_since_the_last_report_and_in_all() {
        let now = Instant::now();
        let mut statistics = Statistics::new(now, 90_000, PacketIndex(65_530), 0);
        for index in [65_531, 65_532, 65_535] {
            statistics.received(now, PacketIndex(index), 0);
        }
        let report = statistics.report(now).expect("packets came");
        assert_eq!((report.fraction_lost, report.cumulative_lost), (85, 2));
        assert_eq!(statistics.report(now), None);
        for index in 65_536..65_546 {
            statistics.received(now, PacketIndex(index), 0);
        }
        statistics.received(now, PacketIndex(65_533), 0);
        let report = statistics.report(now).expect("packets came");
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 1));
        assert_eq!(report.highest, 65_545);
    }

    #[test]
    fn even_arrival_has_no_jitter_and_a_late_packet_has_a_sixteenth_of_its_delay() {
        let start = Instant::now();
        let mut statistics = Statistics::new(start, 48_000, PacketIndex(0), 0);
        for i in 1..100u32 {
            let now = start + Duration::from_millis(20) * i;
            statistics.received(now, PacketIndex(u64::from(i)), i * 960);
        }
        assert_eq!(statistics.report(start).map(|r| r.jitter), Some(0));
        let late = start + Duration::from_millis(20 * 100 + 10);
        statistics.received(late, PacketIndex(100), 96_000);
        assert_eq!(statistics.report(late).map(|r| r.jitter), Some(480 / 16));
    }

    #[test]
    fn the_last_sender_report_is_named_with_its_age() {
        let now = Instant::now();
        let mut statistics = Statistics::new(now, 90_000, PacketIndex(0), 0);
        statistics.sender_report(now, 0x1234_5678);
        let report = statistics
            .report(now + Duration::from_millis(500))
            .expect("a packet came");
        assert_eq!(
            (report.last_sr, report.delay_since_last_sr),
            (0x1234_5678, 0x8000)
        );
        assert_eq!(from_ntp_short(0x8000), Duration::from_millis(500));
    }
}
