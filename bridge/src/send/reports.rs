//! Round-trip time from the sender reports passed on to a receiver and its
//! report blocks about them (RFC 3550 §6.4.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::receive::statistics::from_ntp_short;
use crate::rtcp::report::ReportBlock;
use crate::rtp::Ssrc;

/// Sender reports remembered (`jitsi-videobridge:jitsi-media-transform/…/RttTracker`).
const REMEMBERED: usize = 200;
/// Answers that took longer, or lead to a longer round trip, are not believed
/// (same place).
const MAX_DELAY: Duration = Duration::from_secs(300);
const MAX_ROUND_TRIP: Duration = Duration::from_secs(7);

/// The sender reports passed on to one receiver.
#[derive(Debug, Default)]
pub struct SentReports {
    sent: VecDeque<(Ssrc, u32, Instant)>,
    /// The last round-trip time measured.
    pub round_trip: Option<Duration>,
}

impl SentReports {
    /// Notes a report with these middle 32 bits of NTP time.
    pub fn sent(&mut self, now: Instant, ssrc: Ssrc, compact_ntp: u32) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((ssrc, compact_ntp, now));
    }

    /// Takes a report block that may answer one.
    pub fn answered(&mut self, now: Instant, block: &ReportBlock) {
        let quoted = (block.ssrc, block.last_sender_report);
        let delay = from_ntp_short(block.delay_since_last_sender_report);
        if quoted.1 == 0 || delay > MAX_DELAY {
            return;
        }
        let found = self
            .sent
            .iter()
            .rev()
            .find(|(ssrc, ntp, _)| (*ssrc, *ntp) == quoted);
        if let Some((.., at)) = found
            && let Some(round_trip) = now.saturating_duration_since(*at).checked_sub(delay)
            && round_trip <= MAX_ROUND_TRIP
        {
            self.round_trip = Some(round_trip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_what_the_receiver_did_not_wait() {
        let start = Instant::now();
        let mut reports = SentReports::default();
        reports.sent(start, Ssrc(1), 0xabcd_1234);
        let block = |ssrc, ntp, delay| ReportBlock {
            ssrc: Ssrc(ssrc),
            last_sender_report: ntp,
            delay_since_last_sender_report: delay,
            ..ReportBlock::default()
        };
        let now = start + Duration::from_millis(580);
        for (unanswerable, why) in [
            (block(2, 0xabcd_1234, 0x8000), "another SSRC"),
            (block(1, 0xabcd_1235, 0x8000), "another report"),
            (block(1, 0, 0), "no report"),
            (
                block(1, 0xabcd_1234, 0x1_0000),
                "a delay longer than the time passed",
            ),
        ] {
            reports.answered(now, &unanswerable);
            assert_eq!(reports.round_trip, None, "{why}");
        }
        reports.answered(now, &block(1, 0xabcd_1234, 0x8000));
        assert_eq!(reports.round_trip, Some(Duration::from_millis(80)));
        reports.answered(
            start + Duration::from_secs(20),
            &block(1, 0xabcd_1234, 0x8000),
        );
        assert_eq!(reports.round_trip, Some(Duration::from_millis(80)));
    }
}
