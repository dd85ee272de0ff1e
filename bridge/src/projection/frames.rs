//! Frames of a source's encodings as their packets arrive, and the numbers
//! under which the receiver gets those that are accepted.
//!
//! A frame's fate is decided once, on the first of its packets seen; all its
//! packets then share one shift of sequence number and timestamp. Where the
//! shift of a new frame follows from its predecessors, packets that were seen
//! and withheld are closed up, and packets that were not seen leave their room,
//! so that they fit in if they come late.

use std::cmp::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::choice::EncodingChoice;
use super::recent::Recent;
use super::shift::Numbered;
use super::{CodecShift, Common, Output};
use crate::rtp::PacketIndex;

/// Most frames remembered of an encoding, and the largest step of pictures that
/// is a step and not a restart.
pub(super) const MAX_FRAMES: usize = 500;
/// Most frames remembered of an encoding from which none was accepted.
const MAX_REJECTED: usize = 16;
/// Frames older than the newest by more than this are forgotten, but for the
/// last few: 2 s, beyond which no packet is asked for again. It keeps what is
/// worked on small, and with it the way to memory short.
const KEPT: i32 = 2 * 90_000;
const LEAST_KEPT: usize = 16;
/// A step of timestamps this large is a restart.
const MAX_TIMESTAMP_STEP: u32 = MAX_FRAMES as u32 * 180_000;
/// How far the timestamps of a restarted encoding may run ahead of the time that
/// passed and still be taken for a continuation: two seconds. Our choice.
const MAX_LEAD: i32 = 2 * 90_000;
/// Unwrapped ids start here: a multiple of every id's modulus.
const FIRST_ID: u64 = 1 << 32;

/// What a codec remembers of a frame: all that it decides by.
pub(super) trait Remembered: Copy + PartialEq {
    /// How far apart the ids of consecutive pictures are.
    const IDS: u32 = 1;

    /// Whether no frame that the receiver would get can lie between this one and
    /// another, by their ids.
    fn adjoins(&self, id: u64, next: u64) -> bool {
        id + 1 == next
    }
}

/// A packet as the frame map sees it. `C` is what the codec decides by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<C> {
    pub(super) encoding: u8,
    pub(super) index: PacketIndex,
    pub(super) timestamp: u32,
    /// The frame's id on the wire, which counts modulo `modulus`, a power of two.
    pub(super) id: u32,
    pub(super) modulus: u32,
    /// First and last packet of the frame.
    pub(super) starts: bool,
    pub(super) ends: bool,
    pub(super) codec: C,
}

/// Where a packet's frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    map: usize,
    at: usize,
    /// The packet is the first one seen of its frame.
    pub(super) new: bool,
    restarted: bool,
}

/// How an accepted frame is numbered. `M` are the codec's own numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Numbers<M> {
    /// To be added to the packet index, modulo 2^64.
    sequence_delta: u64,
    pub(super) timestamp_delta: u32,
    pub(super) codec: M,
}

impl<M> Numbers<M> {
    pub(super) fn index(&self, received: PacketIndex) -> PacketIndex {
        PacketIndex(received.0.wrapping_add(self.sequence_delta))
    }
}

/// What a newly accepted frame follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum After<M> {
    /// An accepted frame of the same encoding, with its numbers and so many
    /// steps of frame ids before, those of withheld frames left out.
    Frame { numbers: M, ids: u64 },
    /// The same encoding before it restarted its ids.
    Restart { numbers: M },
    /// Another encoding, or the same before the source was suspended: the
    /// newest frame's wire id and its numbers.
    Switch { id: u32, numbers: M },
    /// Nothing.
    Nothing,
}

impl<M: Numbered> Numbers<M> {
    /// From those of another receiver to these.
    fn shift_from(&self, base: &Self) -> Option<(u64, u32, CodecShift)> {
        let codec = self.codec.shift_from(&base.codec)?;
        let sequence = self.sequence_delta.wrapping_sub(base.sequence_delta);
        let timestamp = self.timestamp_delta.wrapping_sub(base.timestamp_delta);
        Some((sequence, timestamp, codec))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frame<C, M> {
    id: u64,
    timestamp: u32,
    /// The lowest and the highest packet seen.
    first: PacketIndex,
    last: PacketIndex,
    /// Whether those are the frame's own first and last.
    starts: bool,
    ends: bool,
    /// Nothing above `last` belongs to the frame any more: its room is taken.
    closed: bool,
    codec: C,
    /// `None`: rejected, or not decided on yet.
    numbers: Option<Numbers<M>>,
}

/// The room between two neighbouring frames of one encoding: steps of packet
/// index and of frame id, without what the receiver does not get. `accepting`:
/// `to` is being accepted, so what was not seen of its beginning has its room.
fn step<C: Remembered, M>(from: &Frame<C, M>, to: &Frame<C, M>, accepting: bool) -> (i64, u64) {
    let withheld = from.numbers.is_none();
    let to_withheld = to.numbers.is_none() && !accepting;
    let ids = to.id - from.id;
    let mut gap = to.first.0.wrapping_sub(from.last.0) as i64;
    // What was not seen may be the end of the one, or the beginning of the other,
    // or between them: if nothing of that goes to the receiver, nor does this.
    let end = !withheld && !from.ends;
    let beginning = !to_withheld && !to.starts;
    if !end && !beginning && from.codec.adjoins(from.id, to.id) {
        gap = gap.min(1);
    }
    if withheld && !from.ends && gap > 1 {
        gap -= 1;
    }
    if to_withheld && !to.starts && gap > 1 {
        gap -= 1;
    }
    if withheld && gap > 0 {
        gap -= 1;
    }
    (gap, ids - u64::from(withheld))
}

/// The frames of one encoding, by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct FrameMap<C, M> {
    encoding: u8,
    frames: Recent<Frame<C, M>>,
    accepted: usize,
    /// The highest packet that passed unseen or is forgotten: nothing can begin
    /// before it.
    skipped: PacketIndex,
    /// The highest packet of those that were let pass by: the encoding cannot be
    /// entered before it.
    passed: PacketIndex,
}

impl<C: Remembered, M> FrameMap<C, M> {
    fn find(&self, id: u64) -> Result<usize, usize> {
        self.frames.search_by_key(&id, |frame| frame.id)
    }

    /// The id without its wrapping, and whether it is a restart; `None` for
    /// packets from before the map.
    fn unwrap(&self, sight: &Sight<C>) -> Option<(u64, bool)> {
        let modulus = u64::from(sight.modulus);
        debug_assert!(modulus.is_power_of_two());
        let wire = u64::from(sight.id);
        let Some(newest) = self.frames.newest() else {
            return Some((FIRST_ID + wire, false));
        };
        let ahead = wire.wrapping_sub(newest.id) & (modulus - 1);
        let step = if ahead < modulus / 2 {
            ahead as i64
        } else {
            ahead as i64 - modulus as i64
        };
        let timestamp_step = sight.timestamp.wrapping_sub(newest.timestamp) as i32;
        let later = sight.index > newest.last;
        let most = i64::from(C::IDS) * MAX_FRAMES as i64;
        let restarted = step > most
            || step < 0 && (later || timestamp_step > 0)
            || timestamp_step > MAX_TIMESTAMP_STEP as i32;
        if restarted {
            let id = (newest.id / modulus + 2) * modulus + wire;
            return later.then_some((id, true));
        }
        if step < -most {
            return None;
        }
        Some((newest.id.checked_add_signed(step)?, false))
    }

    /// Forgets the oldest frames beyond the bounds.
    fn trim(&mut self) {
        let most = if self.accepted == 0 {
            MAX_REJECTED
        } else {
            MAX_FRAMES
        };
        while let [Some(oldest), Some(newest)] = [self.frames.oldest(), self.frames.newest()] {
            let age = newest.timestamp.wrapping_sub(oldest.timestamp) as i32;
            let old = age > KEPT && self.frames.len() > LEAST_KEPT;
            if !old && self.frames.len() <= most {
                break;
            }
            self.accepted -= usize::from(oldest.numbers.is_some());
            self.skipped = self.skipped.max(oldest.last);
            self.frames.pop_oldest();
        }
    }

    /// The nearest accepted frame before `at`, and the steps from it.
    fn reference(&self, at: usize) -> Option<(&Frame<C, M>, i64, u64)> {
        let (mut gap, mut ids) = (0, 0);
        for before in (0..at).rev() {
            let frame = &self.frames[before];
            let accepting = before + 1 == at;
            let (frame_gap, frame_ids) = step(frame, &self.frames[before + 1], accepting);
            gap += frame_gap;
            ids += frame_ids;
            if frame.numbers.is_some() {
                return Some((frame, gap, ids));
            }
        }
        None
    }

    /// Whether an index for the frame at `at` lies between those of the
    /// accepted frames around it.
    fn fits(&self, at: usize, index: PacketIndex) -> bool {
        let out = |frame: &Frame<C, M>, received| frame.numbers.as_ref().map(|n| n.index(received));
        let below = (0..at).rev().find_map(|at| {
            let frame = &self.frames[at];
            out(frame, frame.last)
        });
        let above = (at + 1..self.frames.len()).find_map(|at| {
            let frame = &self.frames[at];
            out(frame, frame.first)
        });
        below.is_none_or(|below| below < index) && above.is_none_or(|above| index < above)
    }
}

/// A frame before another.
pub(super) struct Before<'a, C> {
    /// How many ids it lies back.
    pub(super) ids: u64,
    pub(super) codec: &'a C,
    pub(super) accepted: bool,
}

/// The newest accepted frame.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Newest<M> {
    encoding: u8,
    id: u64,
    numbers: Numbers<M>,
}

/// Where the receiver entered what it gets now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    encoding: u8,
    id: u64,
    /// The lowest index that belongs to it.
    first: PacketIndex,
}

/// The frames of all encodings of a source, and which encoding is forwarded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Frames<C, M> {
    pub(super) choice: EncodingChoice,
    maps: Vec<FrameMap<C, M>>,
    newest: Option<Newest<M>>,
    entry: Option<Entry>,
    /// Packets have passed unseen: the next frame cannot be numbered by its
    /// distance from the last.
    interrupted: bool,
}

impl<C, M> Default for Frames<C, M> {
    fn default() -> Self {
        Self {
            choice: EncodingChoice::default(),
            maps: Vec::new(),
            newest: None,
            entry: None,
            interrupted: false,
        }
    }
}

impl<C: Remembered, M: Copy> Frames<C, M> {
    /// Whether the receiver can go on, or up, only with a key frame.
    pub(super) fn needs_keyframe(&self) -> bool {
        self.newest.is_none() || self.choice.needs_keyframe
    }

    /// From the timestamps of an encoding to the receiver's, if that encoding is
    /// what the receiver gets.
    pub(super) fn timestamp_delta(&self, encoding: u8) -> Option<u32> {
        let newest = self.newest?;
        (newest.encoding == encoding && self.choice.current() == Some(encoding))
            .then_some(newest.numbers.timestamp_delta)
    }

    /// Whether a packet with that timestamp is of the picture that the receiver
    /// got last.
    pub(super) fn begun(&self, timestamp: u32, output: &Output) -> bool {
        self.newest.is_some_and(|newest| {
            timestamp.wrapping_add(newest.numbers.timestamp_delta) == output.timestamp
        })
    }

    /// The wire id of the newest accepted frame and its codec's numbers.
    pub(super) fn newest_id(&self) -> Option<(u32, M)> {
        self.newest
            .map(|newest| (newest.id as u32, newest.numbers.codec))
    }

    /// Notes a packet that comes while the source is not wanted.
    pub(super) fn suspend(&mut self, encoding: u8, index: PacketIndex) {
        self.choice.suspend();
        self.interrupted = true;
        let at = self.map_of(encoding);
        let skipped = &mut self.maps[at].skipped;
        *skipped = index.max(*skipped);
    }

    /// Notes a packet that cannot be entered with and is of an encoding that is
    /// not wanted, if nothing else depends on it. What belongs to a frame that was
    /// accepted, before a switch, does.
    pub(super) fn pass_by(&mut self, encoding: u8, index: PacketIndex) -> bool {
        if !self.choice.is_settled_beside(encoding) {
            return false;
        }
        let at = self.map_of(encoding);
        let map = &mut self.maps[at];
        let over = |frame: &Frame<C, M>| {
            frame.last < index && (frame.numbers.is_none() || frame.ends || frame.closed)
        };
        let passes = map.frames.newest().is_none_or(over);
        if passes {
            map.passed = index.max(map.passed);
        }
        passes
    }

    /// As [`super::Projection::shift_from`]: whether all that is remembered of
    /// the encoding in use is the same. Of the others nothing is left that
    /// matters, but latecomers to what was given before.
    pub(super) fn shift_from(&self, base: &Self, now: Instant) -> Option<Common>
    where
        M: Numbered,
    {
        let encoding = self.choice.current()?;
        let map = |frames: &'_ Self| frames.maps.iter().position(|m| m.encoding == encoding);
        let (own, other) = (&self.maps[map(self)?], &base.maps[map(base)?]);
        let (newest, newest_of_base) = (self.newest?, base.newest?);
        let shift = newest.numbers.shift_from(&newest_of_base.numbers)?;
        let same = self.choice.is_as(&base.choice, now)
            && !self.interrupted
            && !base.interrupted
            && newest.encoding == encoding
            && newest_of_base.encoding == encoding
            && newest.id == newest_of_base.id
            && own.accepted == other.accepted
            && own.frames.len() == other.frames.len();
        if !same {
            return None;
        }
        let mut since = None;
        for at in 0..own.frames.len() {
            let (frame, of_base) = (&own.frames[at], &other.frames[at]);
            if !frame.is_as(of_base) {
                return None;
            }
            match (&frame.numbers, &of_base.numbers) {
                (None, None) => {}
                (Some(own), Some(base)) if own.shift_from(base)? == shift => {
                    since.get_or_insert(base.index(frame.first));
                }
                _ => return None,
            }
        }
        let (sequence, timestamp, codec) = shift;
        Some(Common {
            sequence,
            timestamp,
            codec,
            since: since?,
        })
    }

    fn map_of(&mut self, encoding: u8) -> usize {
        let known = self.maps.iter().position(|m| m.encoding == encoding);
        known.unwrap_or_else(|| {
            self.maps.push(FrameMap {
                encoding,
                frames: Recent::default(),
                accepted: 0,
                skipped: PacketIndex(0),
                passed: PacketIndex(0),
            });
            self.maps.len() - 1
        })
    }

    /// Enters a packet into its frame. `None`: it is too old, contradicts what
    /// is known of its frame and the frames around it, or its room is taken.
    pub(super) fn see(&mut self, sight: &Sight<C>) -> Option<Place> {
        let map_at = self.map_of(sight.encoding);
        let map = &mut self.maps[map_at];
        let (id, restarted) = map.unwrap(sight)?;
        if restarted {
            let last = map.frames.newest().map(|newest| newest.last);
            map.skipped = map.skipped.max(last.unwrap_or_default());
            map.frames.clear();
            map.accepted = 0;
        }
        let place = |at, new| Place {
            map: map_at,
            at,
            new,
            restarted,
        };
        match map.find(id) {
            Ok(at) => {
                let frame = &map.frames[at];
                let forgotten = sight.index < frame.first && sight.index <= map.skipped;
                if forgotten || !frame.extend(sight) {
                    return None;
                }
                let before = at.checked_sub(1).filter(|_| sight.index < frame.first);
                let after = (sight.index > frame.last).then_some(at + 1);
                let meets = |at: usize, own: fn(&Frame<C, M>) -> PacketIndex, order| {
                    let other = map.frames.get(at).map(own);
                    other.is_some_and(|other| sight.index.cmp(&other) != order)
                };
                if before.is_some_and(|at| meets(at, |f| f.last, Ordering::Greater))
                    || after.is_some_and(|at| meets(at, |f| f.first, Ordering::Less))
                {
                    return None;
                }
                map.frames[at].take(sight);
                Some(place(at, false))
            }
            Err(at) => {
                if sight.index <= map.skipped {
                    return None;
                }
                let follows = at == 0 || map.frames[at - 1].last < sight.index;
                let precedes = map.frames.get(at).is_none_or(|f| sight.index < f.first);
                if !follows || !precedes {
                    return None;
                }
                map.frames.insert(
                    at,
                    Frame {
                        id,
                        timestamp: sight.timestamp,
                        first: sight.index,
                        last: sight.index,
                        starts: sight.starts,
                        ends: sight.ends,
                        closed: false,
                        codec: sight.codec,
                        numbers: None,
                    },
                );
                let before = map.frames.len();
                map.trim();
                let at = at.checked_sub(before - map.frames.len())?;
                Some(place(at, true))
            }
        }
    }

    /// Whether the frame lies before the point where the receiver entered its
    /// encoding, or the encoding it is of was restarted.
    pub(super) fn precedes_entry(&self, place: Place) -> bool {
        let map = &self.maps[place.map];
        self.entry.is_some_and(|entry| {
            entry.encoding == map.encoding && map.frames[place.at].id < entry.id
        })
    }

    /// Whether another encoding can no longer be left for that of a frame, with
    /// it: a later frame was accepted, or rejected though it is `needed` from
    /// there on, or one may have been among what passed by.
    pub(super) fn passed(&self, place: Place, needed: impl Fn(&C) -> bool) -> bool {
        let map = &self.maps[place.map];
        let elsewhere = self
            .newest
            .is_some_and(|newest| newest.encoding != map.encoding);
        let mut later = map.frames.after(place.at);
        elsewhere
            && (map.frames[place.at].first < map.passed
                || later.any(|frame| frame.numbers.is_some() || needed(&frame.codec)))
    }

    /// Whether the frame so many ids back was accepted, if it is known.
    pub(super) fn accepted_back(&self, place: Place, ids: u32) -> Option<bool> {
        let map = &self.maps[place.map];
        let id = map.frames[place.at].id - u64::from(ids);
        let at = map.find(id).ok()?;
        Some(map.frames[at].numbers.is_some())
    }

    /// The known frames of the same encoding before this one, the nearest
    /// first.
    pub(super) fn before(&self, place: Place) -> impl Iterator<Item = Before<'_, C>> {
        let map = &self.maps[place.map];
        let id = map.frames[place.at].id;
        map.frames.before(place.at).map(move |frame| Before {
            ids: id - frame.id,
            codec: &frame.codec,
            accepted: frame.numbers.is_some(),
        })
    }

    /// Accepts a new frame; `codec` makes the codec's own numbers from those of
    /// the frame it follows. `false` if there is no room for it after all.
    pub(super) fn accept(
        &mut self,
        place: Place,
        arrival: Instant,
        output: &mut Output,
        codec: impl FnOnce(After<M>) -> M,
    ) -> bool {
        let map = &self.maps[place.map];
        let frame = &map.frames[place.at];
        let (id, timestamp, first) = (frame.id, frame.timestamp, frame.first);
        let encoding = map.encoding;
        let is_last = place.at + 1 == map.frames.len();
        let continues = !self.interrupted && self.newest.is_some_and(|n| n.encoding == encoding);
        let reference = (continues && !place.restarted)
            .then(|| map.reference(place.at))
            .flatten();

        let mut entered = false;
        let numbers = if let Some((from, gap, ids)) = reference {
            let numbers = from.numbers.as_ref().expect("a reference is accepted");
            let index = PacketIndex(numbers.index(from.last).0.wrapping_add_signed(gap));
            if !map.fits(place.at, index) {
                return false;
            }
            Numbers {
                sequence_delta: index.0.wrapping_sub(first.0),
                timestamp_delta: numbers.timestamp_delta,
                codec: codec(After::Frame {
                    numbers: numbers.codec,
                    ids,
                }),
            }
        } else if continues && !is_last {
            return false;
        } else {
            entered = true;
            let before = self.newest;
            let linear = before.filter(|before| {
                let from_newest = |timestamp: u32| timestamp.wrapping_sub(output.timestamp) as i32;
                let forward = from_newest(timestamp.wrapping_add(before.numbers.timestamp_delta));
                let due = from_newest(output.next_timestamp(arrival));
                continues
                    && place.restarted
                    && before.numbers.index(first) > output.highest
                    && forward > 0
                    && forward < due.saturating_add(MAX_LEAD)
            });
            if let Some(before) = linear {
                Numbers {
                    codec: codec(After::Restart {
                        numbers: before.numbers.codec,
                    }),
                    ..before.numbers
                }
            } else {
                let index = self.index_after_newest(output);
                Numbers {
                    sequence_delta: index.0.wrapping_sub(first.0),
                    timestamp_delta: output.next_timestamp(arrival).wrapping_sub(timestamp),
                    codec: codec(match before {
                        Some(before) => After::Switch {
                            id: before.id as u32,
                            numbers: before.numbers.codec,
                        },
                        None => After::Nothing,
                    }),
                }
            }
        };

        let map = &mut self.maps[place.map];
        map.frames[place.at].numbers = Some(numbers);
        map.accepted += 1;
        if entered {
            self.interrupted = false;
            self.entry = Some(Entry {
                encoding,
                id,
                first: numbers.index(first),
            });
        }
        if entered || self.newest.is_none_or(|newest| newest.id < id) {
            self.newest = Some(Newest {
                encoding,
                id,
                numbers,
            });
            output.begin_frame(timestamp.wrapping_add(numbers.timestamp_delta), arrival);
        }
        true
    }

    /// The index for a frame that starts anew: the next one. Where the newest
    /// frame's end was not seen that frame is closed: the rest of it would come
    /// behind the new one. Upstream leaves a hole there, which receivers ask for
    /// again and again, though nothing was lost; a frame without its end is told
    /// by its missing marker as well.
    fn index_after_newest(&mut self, output: &Output) -> PacketIndex {
        if let Some(newest) = self.newest
            && let Some(map) = self.maps.iter_mut().find(|m| m.encoding == newest.encoding)
            && let Ok(at) = map.find(newest.id)
            && !map.frames[at].ends
        {
            map.frames[at].closed = true;
        }
        PacketIndex(output.highest.0 + 1)
    }

    /// The numbers of a packet whose frame is accepted.
    pub(super) fn numbers(
        &self,
        place: Place,
        index: PacketIndex,
        output: &mut Output,
    ) -> Option<Numbers<M>> {
        let map = &self.maps[place.map];
        let frame = &map.frames[place.at];
        let numbers = frame.numbers?;
        let out = numbers.index(index);
        if out.0 > u64::MAX / 2 {
            // Before the first index there is.
            return None;
        }
        if let Some(entry) = self.entry
            && entry.encoding == map.encoding
            && frame.id >= entry.id
            && out < entry.first
        {
            return None;
        }
        if out > output.highest {
            output.highest = out;
        } else if !map.fits(place.at, out) {
            return None;
        }
        Some(numbers)
    }
}

impl<C: PartialEq, M> Frame<C, M> {
    /// Whether it is the same but for its numbers.
    fn is_as(&self, other: &Self) -> bool {
        (self.id, self.timestamp, self.first, self.last)
            == (other.id, other.timestamp, other.first, other.last)
            && (self.starts, self.ends, self.closed) == (other.starts, other.ends, other.closed)
            && self.codec == other.codec
    }
}

impl<C, M> Frame<C, M> {
    /// Whether a packet can belong to this frame.
    fn extend(&self, sight: &Sight<C>) -> bool {
        sight.timestamp == self.timestamp
            && !(sight.index > self.last && (self.closed || self.ends))
            && !(sight.index < self.first && self.starts)
            && !(sight.starts && sight.index > self.first)
            && !(sight.ends && sight.index < self.last)
    }

    fn take(&mut self, sight: &Sight<C>) {
        self.first = self.first.min(sight.index);
        self.last = self.last.max(sight.index);
        self.starts |= sight.starts;
        self.ends |= sight.ends;
    }
}
