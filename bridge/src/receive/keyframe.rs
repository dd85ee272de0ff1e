//! Key-frame requests towards one sender: who may ask, and how often.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::MemberId;
use crate::rtp::Ssrc;

/// Time between two requests for one SSRC, unless the round trip is shorter
/// (`jitsi-videobridge:jitsi-media-transform/…/KeyframeRequester.kt`).
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// What the key frame may take beyond the round trip (same place).
const ROUND_TRIP_MARGIN: Duration = Duration::from_millis(10);
/// Requests of one receiver for one SSRC, in this time (same place).
const MAX_PER_RECEIVER: usize = 3;
const RECEIVER_WINDOW: Duration = Duration::from_secs(10);
/// (receiver, SSRC) pairs remembered. Our choice: beyond it the oldest request
/// is forgotten, which can only allow one more.
const MAX_REMEMBERED: usize = 4096;

/// Who wants a key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A receiver with a PLI or FIR of its own.
    Receiver(MemberId),
    /// A projection of ours, which paces itself (see [`Pace`]).
    Projection,
    /// The bridge itself: not limited.
    Bridge,
}

/// The requester of one sending endpoint.
#[derive(Debug, Default)]
pub struct KeyframeRequester {
    /// Accepted requests of receivers, oldest first.
    receivers: VecDeque<(Instant, MemberId, Ssrc)>,
    /// The last accepted request for each SSRC; as many as the endpoint signalled.
    last: Vec<(Ssrc, Instant)>,
}

impl KeyframeRequester {
    /// Whether a request may go to the sender now; then it counts as sent.
    pub fn accept(
        &mut self,
        now: Instant,
        asker: Asker,
        ssrc: Ssrc,
        round_trip: Option<Duration>,
    ) -> bool {
        let interval = round_trip.map_or(MIN_INTERVAL, |rtt| {
            (rtt + ROUND_TRIP_MARGIN).min(MIN_INTERVAL)
        });
        let last = self.last.iter_mut().find(|(of, _)| *of == ssrc);
        if asker != Asker::Bridge
            && let Some((_, at)) = &last
            && now.saturating_duration_since(*at) < interval
        {
            return false;
        }
        if let Asker::Receiver(receiver) = asker {
            while self
                .receivers
                .front()
                .is_some_and(|&(at, ..)| now.saturating_duration_since(at) >= RECEIVER_WINDOW)
            {
                self.receivers.pop_front();
            }
            let asked = self
                .receivers
                .iter()
                .filter(|&&(_, who, what)| who == receiver && what == ssrc)
                .count();
            if asked >= MAX_PER_RECEIVER {
                return false;
            }
            if self.receivers.len() == MAX_REMEMBERED {
                self.receivers.pop_front();
            }
            self.receivers.push_back((now, receiver, ssrc));
        }
        match last {
            Some((_, at)) => *at = now,
            None => self.last.push((ssrc, now)),
        }
        true
    }

    /// Forgets SSRCs that are no longer signalled, and receivers that left.
    pub fn retain(&mut self, keep: impl Fn(Ssrc) -> bool) {
        self.last.retain(|&(ssrc, _)| keep(ssrc));
        self.receivers.retain(|&(.., ssrc)| keep(ssrc));
    }
}

/// How often a projection that waits for a key frame asks for one: after 200 ms
/// again, then each time twice as long, at most every 3.2 s. JVB allows three
/// requests in 10 s, which leaves a receiver without a picture for the rest of
/// the time when the sender was still starting the layer it wants.
#[derive(Debug, Default)]
pub struct Pace {
    next: Option<Instant>,
    asked: u32,
}

impl Pace {
    const MAX_DOUBLINGS: u32 = 4;

    /// Whether it is time to ask (again).
    pub fn due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Notes that a request went out.
    pub fn asked(&mut self, now: Instant) {
        self.next = Some(now + MIN_INTERVAL * (1 << self.asked.min(Self::MAX_DOUBLINGS)));
        self.asked += 1;
    }

    /// The key frame came, or another one is wanted.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether anything was asked for since the last reset.
    pub fn is_waiting(&self) -> bool {
        self.asked > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc(7);

    #[test]
    fn second_within_200_ms_and_fourth_within_10_s_are_dropped() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::default();
        for (ms, accepted) in [
            (0, true),
            (199, false),
            (200, true),
            (3000, true),
            (6000, false),
            (9999, false),
            (10_000, true),
        ] {
            let now = start + Duration::from_millis(ms);
            assert_eq!(
                requester.accept(now, Asker::Receiver(MemberId(1)), SSRC, None),
                accepted,
                "at {ms} ms"
            );
        }
    }

    #[test]
    fn receivers_share_one_request_in_200_ms_but_not_the_ten_seconds() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::default();
        assert!(requester.accept(start, Asker::Receiver(MemberId(1)), SSRC, None));
        assert!(!requester.accept(start, Asker::Receiver(MemberId(2)), SSRC, None));
        assert!(!requester.accept(start, Asker::Projection, SSRC, None));
        assert!(requester.accept(start, Asker::Receiver(MemberId(2)), Ssrc(8), None));
        assert!(requester.accept(start, Asker::Bridge, SSRC, None));
        for i in 1..3 {
            let now = start + Duration::from_millis(250 * i);
            assert!(requester.accept(now, Asker::Receiver(MemberId(1)), SSRC, None));
        }
        let now = start + Duration::from_secs(1);
        assert!(!requester.accept(now, Asker::Receiver(MemberId(1)), SSRC, None));
        assert!(requester.accept(now, Asker::Receiver(MemberId(2)), SSRC, None));
    }

    #[test]
    fn a_short_round_trip_shortens_the_wait() {
        let start = Instant::now();
        let mut requester = KeyframeRequester::default();
        let rtt = Some(Duration::from_millis(20));
        assert!(requester.accept(start, Asker::Receiver(MemberId(1)), SSRC, rtt));
        let now = start + Duration::from_millis(29);
        assert!(!requester.accept(now, Asker::Receiver(MemberId(1)), SSRC, rtt));
        let now = start + Duration::from_millis(30);
        assert!(requester.accept(now, Asker::Receiver(MemberId(1)), SSRC, rtt));
    }

    #[test]
    fn a_waiting_projection_asks_less_and_less_often() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(pace.due(now));
            pace.asked(now);
            let asked = now;
            while !pace.due(now) {
                now += Duration::from_millis(100);
            }
            waits.push((now - asked).as_millis());
        }
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 3200, 3200]);
    }
}
