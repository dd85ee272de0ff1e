//! One stream as one receiver gets it, read from the clear headers alone: order,
//! loss and repetition by sequence numbers, pictures by timestamps and markers.
//!
//! A few comparisons a packet and no memory beyond this struct, so that hundreds
//! of thousands of packets a second leave the CPU to other things.

use std::time::{Duration, Instant};

/// Packets behind the newest one of which it is remembered whether they came.
const WINDOW: u32 = 128;
/// Missing packets that are asked for again, of one stream.
const MAX_MISSING: usize = 256;
/// Time after which a packet is asked for again, and how often it is at all.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_TIMES: u8 = 10;
/// A hole in audio is one of more than three packet times.
pub const AUDIO_GAP: Duration = Duration::from_millis(60);

/// Of a header, what matters here.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
}

/// What was found of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, none twice.
    pub received: u64,
    /// Sequence numbers that there were.
    pub numbered: u64,
    pub duplicate: u64,
    /// Behind a later one; what was sent again apart.
    pub reordered: u64,
    pub recovered: u64,
    pub frames: u64,
    /// Pictures that were never whole.
    pub broken: u64,
    pub freezes: u64,
    pub frozen_ns: u64,
    /// Times without audio longer than [`AUDIO_GAP`].
    pub gaps: u64,
    pub longest_gap_ns: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.numbered += other.numbered;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.recovered += other.recovered;
        self.frames += other.frames;
        self.broken += other.broken;
        self.freezes += other.freezes;
        self.frozen_ns += other.frozen_ns;
        self.gaps += other.gaps;
        self.longest_gap_ns = self.longest_gap_ns.max(other.longest_gap_ns);
    }

    /// Numbers whose packets never came.
    pub fn lost(&self) -> u64 {
        self.numbered.saturating_sub(self.received)
    }
}

/// When a pause between two pictures is a freeze: three pictures' times, and at
/// least 150 ms more than one (webrtc-stats, `freezeCount`).
pub fn freeze_after(frame_time: Duration) -> Duration {
    (frame_time * 3).max(frame_time + Duration::from_millis(150))
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u16,
    asked: Option<Instant>,
    times: u8,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Highest sequence number with its rollovers; `None` before the first.
    highest: Option<u64>,
    /// Bit n: whether the packet n before the highest came.
    window: u128,
    /// Numbers count from here.
    base: u64,
    counts: Counts,
    /// When the last packet, or whole picture, came.
    last: Option<Instant>,
    timestamp: u32,
    /// Holes in the picture at hand, and whether its end came, and all of it.
    holes: u64,
    ended: bool,
    whole: bool,
    missing: Vec<Missing>,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            highest: None,
            window: 0,
            base: 0,
            counts: Counts::default(),
            last: None,
            timestamp: 0,
            holes: 0,
            ended: false,
            whole: true,
            missing: Vec::new(),
        }
    }
}

/// How a packet stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// That many numbers were left out before it.
    Next(u64),
    /// Fills a hole.
    Late,
    Again,
}

impl Stream {
    /// Whether anything came yet.
    pub fn has_begun(&self) -> bool {
        self.highest.is_some()
    }

    /// When the last packet, or whole picture, came.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whether the picture at hand lacks something.
    pub fn is_broken(&self) -> bool {
        self.holes > 0
    }

    /// A packet of a microphone.
    pub fn audio(&mut self, now: Instant, head: Head) {
        if self.place(head.sequence, false) != Place::Again {
            let gap = self.gap(now);
            self.counts.gaps += u64::from(gap > AUDIO_GAP);
        }
    }

    /// A packet of a camera. `repair`: what is missing is to be asked for.
    pub fn video(&mut self, now: Instant, head: Head, freeze: Duration, repair: bool) -> bool {
        match self.place(head.sequence, repair) {
            Place::Next(holes) => {
                if head.timestamp != self.timestamp || self.last.is_none() && self.whole {
                    self.counts.broken += u64::from(!self.whole);
                    self.timestamp = head.timestamp;
                    (self.holes, self.ended, self.whole) = (0, false, false);
                }
                self.holes += holes;
                self.ended |= head.marker;
            }
            Place::Late => {
                self.holes = self.holes.saturating_sub(1);
                self.ended |= head.marker && head.timestamp == self.timestamp;
            }
            Place::Again => return false,
        }
        self.settle(now, freeze)
    }

    /// A packet of this stream that was sent again, by its own number.
    pub fn recovered(&mut self, now: Instant, head: Head, freeze: Duration) -> bool {
        let whole = match self.place(head.sequence, false) {
            Place::Late => {
                self.counts.reordered -= 1;
                self.counts.recovered += 1;
                self.missing.retain(|m| m.sequence != head.sequence);
                self.holes = self.holes.saturating_sub(1);
                self.ended |= head.marker && head.timestamp == self.timestamp;
                true
            }
            // Ahead of what it repairs: the first packet of all.
            Place::Next(_) | Place::Again => false,
        };
        whole && self.settle(now, freeze)
    }

    /// Counts the picture at hand once all of it came; returns whether it did.
    fn settle(&mut self, now: Instant, freeze: Duration) -> bool {
        if !self.ended || self.holes > 0 || self.whole {
            return false;
        }
        self.whole = true;
        self.counts.frames += 1;
        let gap = self.gap(now);
        if gap > freeze {
            self.counts.freezes += 1;
            self.counts.frozen_ns += gap.as_nanos() as u64;
        }
        true
    }

    fn gap(&mut self, now: Instant) -> Duration {
        let gap = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let longest = &mut self.counts.longest_gap_ns;
        *longest = (*longest).max(gap.as_nanos() as u64);
        gap
    }

    fn place(&mut self, sequence: u16, repair: bool) -> Place {
        let Some(highest) = self.highest else {
            // One turn of the numbers ahead, so that what came before fits.
            let first = 0x1_0000 + u64::from(sequence);
            (self.highest, self.window, self.base) = (Some(first), 1, first);
            self.counts.received += 1;
            self.counts.numbered += 1;
            return Place::Next(0);
        };
        let step = sequence.wrapping_sub(highest as u16) as i16;
        if step > 0 {
            let ahead = step as u32;
            self.window = match ahead < WINDOW {
                true => self.window << ahead | 1,
                false => 1,
            };
            self.highest = Some(highest + u64::from(ahead));
            self.counts.received += 1;
            self.counts.numbered += u64::from(ahead);
            if repair && ahead > 1 {
                self.miss(sequence, ahead - 1);
            }
            return Place::Next(u64::from(ahead - 1));
        }
        let back = u32::from(step.unsigned_abs());
        let bit = 1u128.checked_shl(back).unwrap_or(0);
        if bit == 0 || self.window & bit != 0 {
            self.counts.duplicate += 1;
            return Place::Again;
        }
        self.window |= bit;
        // A hole of before the count began is not of this count.
        if highest - u64::from(back) >= self.base {
            self.counts.received += 1;
        }
        self.counts.reordered += 1;
        Place::Late
    }

    fn miss(&mut self, sequence: u16, holes: u32) {
        let room = MAX_MISSING.saturating_sub(self.missing.len());
        let first = sequence.wrapping_sub(holes as u16);
        self.missing
            .extend((0..holes.min(room as u32) as u16).map(|n| Missing {
                sequence: first.wrapping_add(n),
                asked: None,
                times: 0,
            }));
    }

    /// Numbers to ask for again now.
    pub fn wanted(&mut self, now: Instant) -> Vec<u16> {
        let highest = self.highest.unwrap_or_default();
        let window = self.window;
        self.missing.retain(|missing| {
            let back = u32::from((highest as u16).wrapping_sub(missing.sequence));
            let came = 1u128.checked_shl(back).is_none_or(|bit| window & bit != 0);
            !came && missing.times < ASK_TIMES
        });
        let mut wanted = Vec::new();
        for missing in &mut self.missing {
            if missing.asked.is_none_or(|asked| now >= asked + ASK_AGAIN) {
                missing.asked = Some(now);
                missing.times += 1;
                wanted.push(missing.sequence);
            }
        }
        wanted
    }

    /// Begins to count anew from the next packet on.
    pub fn mark(&mut self) {
        self.counts = Counts::default();
        self.base = self.highest.map_or(0, |highest| highest + 1);
    }

    /// What was found until `end`, when sending still went on.
    pub fn close(&mut self, end: Instant, freeze: Option<Duration>) -> Counts {
        let mut counts = self.counts;
        let gap = self
            .last
            .map_or(Duration::ZERO, |last| end.saturating_duration_since(last));
        counts.longest_gap_ns = counts.longest_gap_ns.max(gap.as_nanos() as u64);
        match freeze {
            Some(freeze) if gap > freeze => {
                counts.freezes += 1;
                counts.frozen_ns += gap.as_nanos() as u64;
            }
            Some(_) => {}
            None => counts.gaps += u64::from(gap > AUDIO_GAP),
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const FRAME: Duration = Duration::from_millis(33);

    proptest! {
        /// Whatever is lost, late or repeated within the window, the counts are
        /// those of a list of all numbers.
        #[test]
        fn counts_are_those_of_a_list(
            first in any::<u16>(), fates in prop::collection::vec((0u8..10, 1usize..40), 2..300),
        ) {
            let mut order: Vec<(usize, u64)> = Vec::new();
            for (index, (fate, delay)) in fates.iter().enumerate() {
                let number = 0x1_0000 + u64::from(first) + index as u64;
                match fate {
                    0 => {}
                    1 => order.push((2 * (index + delay), number)),
                    2 => order.extend([(2 * index, number), (2 * (index + delay) + 1, number)]),
                    _ => order.push((2 * index, number)),
                }
            }
            order.sort();
            prop_assume!(!order.is_empty());
            let mut stream = Stream::default();
            let now = Instant::now();
            let (mut seen, mut highest, mut expected) = (BTreeSet::new(), 0, Counts::default());
            let mut base = 0;
            for (place, (_, number)) in order.into_iter().enumerate() {
                stream.audio(now, Head { sequence: number as u16, timestamp: 0, marker: false });
                if place == 0 { base = number; }
                if number < base && base - number >= u64::from(WINDOW) || !seen.insert(number) {
                    expected.duplicate += 1;
                } else if number < highest {
                    expected.reordered += 1;
                }
                highest = highest.max(number);
            }
            expected.received = seen.iter().filter(|n| **n >= base).count() as u64;
            expected.numbered = highest - base + 1;
            let counts = stream.close(now, None);
            prop_assert_eq!(
                (counts.received, counts.numbered, counts.duplicate, counts.reordered),
                (expected.received, expected.numbered, expected.duplicate, expected.reordered)
            );
            prop_assert_eq!(counts.lost(), expected.numbered - expected.received);
        }
    }

    fn packet(frame: u16, number: u16) -> Head {
        Head {
            sequence: frame * 3 + number,
            timestamp: u32::from(frame) * 3000,
            marker: number == 2,
        }
    }

    #[test]
    fn pictures_are_whole_once_all_of_them_came() {
        let start = Instant::now();
        let freeze = freeze_after(FRAME);
        let mut stream = Stream::default();
        let mut whole = Vec::new();
        // The middle of picture 2 is lost and sent again; of picture 4 it stays lost.
        for frame in 0..6u16 {
            for number in 0..3u16 {
                let now = start + FRAME * u32::from(frame);
                if number == 1 && (frame == 2 || frame == 4) {
                    continue;
                }
                if stream.video(now, packet(frame, number), freeze, true) {
                    whole.push(frame);
                }
            }
            if frame == 2 {
                let now = start + FRAME * 2;
                assert_eq!(stream.wanted(now), [7]);
                assert!(stream.wanted(now + ASK_AGAIN / 2).is_empty());
                assert!(stream.recovered(now, packet(2, 1), freeze));
                whole.push(2);
                assert!(!stream.recovered(now, packet(2, 1), freeze));
                assert!(stream.wanted(now + ASK_AGAIN).is_empty());
            }
        }
        assert_eq!(whole, [0, 1, 2, 3, 5]);
        let counts = stream.close(start + FRAME * 5, Some(freeze));
        assert_eq!((counts.frames, counts.broken, counts.freezes), (5, 1, 0));
        assert_eq!(
            (counts.recovered, counts.reordered, counts.lost()),
            (1, 0, 1)
        );
        assert_eq!(stream.wanted(start + ASK_AGAIN * 3), [13]);
    }

    #[test]
    fn pauses_of_pictures_and_of_audio_count() {
        let start = Instant::now();
        let freeze = freeze_after(FRAME);
        assert_eq!(freeze, Duration::from_millis(183));
        let mut stream = Stream::default();
        let at = |ms| start + Duration::from_millis(ms);
        for (frame, ms) in [(0, 0), (1, 180), (2, 400)] {
            for number in 0..3 {
                stream.video(at(ms), packet(frame, number), freeze, false);
            }
        }
        let counts = stream.close(at(500), Some(freeze));
        assert_eq!((counts.freezes, counts.frozen_ns), (1, 220_000_000));
        assert_eq!(stream.close(at(900), Some(freeze)).freezes, 2);
        stream.mark();
        assert_eq!(stream.close(at(500), Some(freeze)).frames, 0);

        let mut stream = Stream::default();
        for (sequence, ms) in [(0, 0), (1, 20), (2, 90), (3, 110)] {
            let head = Head {
                sequence,
                timestamp: 0,
                marker: false,
            };
            stream.audio(at(ms), head);
        }
        let counts = stream.close(at(150), None);
        assert_eq!((counts.gaps, counts.longest_gap_ns), (1, 70_000_000));
    }
}
