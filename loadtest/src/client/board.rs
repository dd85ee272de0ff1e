//! What the participants of a run know of each other past the bridge: since
//! when each sends, until when, and how much. By it a receiver tells a source
//! that should have come from one that never was.
//!
//! Of fixed size, and read and written without a lock from all threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::source::tag::Kind;

/// Milliseconds since the start of the run, plus one; 0 is never.
#[derive(Debug, Default)]
struct Entry {
    from: [AtomicU32; 3],
    until: [AtomicU32; 3],
    audio: AtomicU32,
}

/// One entry for each participant that a run may come to have.
#[derive(Debug)]
pub struct Board {
    epoch: Instant,
    entries: Vec<Entry>,
}

impl Board {
    pub fn new(epoch: Instant, participants: usize) -> Self {
        Self {
            epoch,
            entries: (0..participants).map(|_| Entry::default()).collect(),
        }
    }

    fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_millis() as u32 + 1
    }

    /// `sender` began to send that source; only the first time counts.
    pub fn begin(&self, sender: u16, kind: Kind, now: Instant) {
        if let Some(entry) = self.entries.get(usize::from(sender)) {
            let stamp = self.stamp(now);
            let from = &entry.from[kind as usize];
            // Who loses this race has nothing to add.
            let _ = from.compare_exchange(0, stamp, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// `sender` stopped all it sent, with so many packets of audio in all.
    pub fn end(&self, sender: u16, audio: u32, now: Instant) {
        if let Some(entry) = self.entries.get(usize::from(sender)) {
            entry.audio.store(audio, Ordering::Relaxed);
            for until in &entry.until {
                until.store(self.stamp(now), Ordering::Relaxed);
            }
        }
    }

    /// Packets of audio that `sender` made, once it has stopped.
    pub fn audio_sent(&self, sender: u16) -> Option<u32> {
        let entry = self.entries.get(usize::from(sender))?;
        let stopped = entry.until[Kind::Audio as usize].load(Ordering::Relaxed) > 0;
        stopped.then(|| entry.audio.load(Ordering::Relaxed))
    }

    /// How long between `from` and `until` that source was sent.
    pub fn overlap(&self, sender: u16, kind: Kind, from: Instant, until: Instant) -> Duration {
        let load = |stamp: &AtomicU32| stamp.load(Ordering::Relaxed);
        let Some(entry) = self.entries.get(usize::from(sender)) else {
            return Duration::ZERO;
        };
        let (begin, end) = (
            load(&entry.from[kind as usize]),
            load(&entry.until[kind as usize]),
        );
        if begin == 0 {
            return Duration::ZERO;
        }
        let begin = begin.max(self.stamp(from));
        let end = match end {
            0 => self.stamp(until),
            end => end.min(self.stamp(until)),
        };
        Duration::from_millis(u64::from(end.saturating_sub(begin)))
    }

    /// Participants that the run may come to have.
    pub fn participants(&self) -> u16 {
        self.entries.len() as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_those_of_both() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let board = Board::new(start, 2);
        let overlap = |kind, from, until| board.overlap(1, kind, at(from), at(until)).as_millis();
        assert_eq!(overlap(Kind::Audio, 0, 5_000), 0);
        board.begin(1, Kind::Audio, at(1_000));
        board.begin(1, Kind::Audio, at(3_000));
        assert_eq!(overlap(Kind::Audio, 0, 5_000), 4_000);
        assert_eq!(overlap(Kind::Audio, 2_000, 5_000), 3_000);
        assert_eq!(board.audio_sent(1), None);
        board.end(1, 50, at(4_000));
        assert_eq!(overlap(Kind::Audio, 2_000, 5_000), 2_000);
        assert_eq!(overlap(Kind::Audio, 4_500, 5_000), 0);
        assert_eq!(overlap(Kind::Camera, 0, 5_000), 0);
        assert_eq!(board.audio_sent(1), Some(50));
        assert_eq!((board.audio_sent(7), board.participants()), (None, 2));
    }
}
