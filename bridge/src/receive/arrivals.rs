//! Arrival times for transport-wide congestion control feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Every authenticated packet with the extension is noted, audio, video and
//! RTX alike. Feedback is driven by packets: 100 ms after the last one, or
//! 20 ms if the packet ends a frame.

use std::time::{Duration, Instant};

use crate::rtp::PacketIndex;

/// `jitsi-videobridge:jitsi-media-transform/…/TccGeneratorNode.kt`.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_AT_FRAME_END: Duration = Duration::from_millis(20);
/// Arrivals kept until they are reported; at this many feedback goes at once.
const MAX_PENDING: usize = 1000;
/// Numbers one feedback covers; a jump beyond it is taken for a restart.
const MAX_SPAN: u64 = 2000;

/// What came since the last feedback.
#[derive(Debug, Default)]
pub struct ArrivalLog {
    highest: Option<PacketIndex>,
    last_feedback: Option<Instant>,
    /// First number not reported yet.
    window_start: u64,
    /// (number, arrival), ascending, each number once.
    pending: Vec<(u64, Instant)>,
}

impl ArrivalLog {
    /// Notes a packet, and says whether feedback is to go now.
    pub fn received(&mut self, now: Instant, sequence_number: u16, marker: bool) -> bool {
        let index = match self.highest {
            // Room below for packets that were overtaken by the first.
            None => (1 << 16) | u64::from(sequence_number),
            Some(highest) => highest.nearest(sequence_number).0,
        };
        if self.highest.is_none_or(|highest| index > highest.0) {
            self.highest = Some(PacketIndex(index));
        }
        let Some(last_feedback) = self.last_feedback else {
            self.last_feedback = Some(now);
            self.window_start = index;
            self.pending.push((index, now));
            return false;
        };
        if index >= self.window_start + MAX_SPAN {
            self.pending.clear();
            self.window_start = index;
        } else if index < self.window_start {
            let newest = self.pending.last().map_or(self.window_start, |p| p.0);
            if newest - index >= MAX_SPAN {
                return false;
            }
            self.window_start = index;
        }
        let at = self.pending.partition_point(|p| p.0 < index);
        if self.pending.get(at).is_none_or(|p| p.0 != index) {
            self.pending.insert(at, (index, now));
        }
        let since = now.saturating_duration_since(last_feedback);
        since >= INTERVAL
            || (marker && since >= INTERVAL_AT_FRAME_END)
            || self.pending.len() >= MAX_PENDING
    }

    /// The arrivals to report: numbers from the first on, ascending, with those
    /// missing left out. The first number is [`Self::first`]'s.
    pub fn pending(&self) -> &[(u64, Instant)] {
        &self.pending
    }

    /// The first number the next feedback covers.
    pub fn first(&self) -> u64 {
        self.window_start
    }

    /// Notes that all that is pending has been reported.
    pub fn reported(&mut self, now: Instant) {
        if let Some(&(newest, _)) = self.pending.last() {
            self.window_start = self.window_start.max(newest + 1);
        }
        self.pending.clear();
        self.last_feedback = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_goes_after_20_ms_with_marker_and_100_ms_without() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut log = ArrivalLog::default();
        assert!(
            !log.received(ms(0), 65_535, true),
            "the first starts the timer"
        );
        assert!(!log.received(ms(19), 0, true));
        assert!(!log.received(ms(20), 1, false));
        assert!(log.received(ms(21), 2, true));
        log.reported(ms(21));
        assert!(!log.received(ms(120), 3, false));
        assert!(log.received(ms(121), 4, false));
    }

    #[test]
    fn reports_cover_each_number_once_and_reach_back_for_late_packets() {
        let start = Instant::now();
        let mut log = ArrivalLog::default();
        for number in [65_534, 65_535, 1, 0, 0, 3] {
            log.received(start, number, false);
        }
        let numbers =
            |log: &ArrivalLog| -> Vec<u16> { log.pending().iter().map(|p| p.0 as u16).collect() };
        assert_eq!(numbers(&log), [65_534, 65_535, 0, 1, 3]);
        assert_eq!(log.first() as u16, 65_534);
        log.reported(start);
        assert_eq!(log.first() as u16, 4);
        log.received(start, 2, false);
        log.received(start, 5, false);
        assert_eq!((log.first() as u16, numbers(&log)), (2, vec![2, 5]));
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_comes() {
        let start = Instant::now();
        let mut log = ArrivalLog::default();
        let mut number = 0u16;
        for i in 0..100_000u32 {
            number = number.wrapping_add((i.wrapping_mul(2_654_435_761) >> 20) as u16);
            if log.received(start, number, false) {
                log.reported(start);
            }
            assert!(log.pending().len() <= MAX_PENDING);
            let newest = log.pending().last().map_or(log.first(), |p| p.0);
            assert!(newest - log.first() < MAX_SPAN);
        }
    }
}
