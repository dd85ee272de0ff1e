//! A video source on its way to all its receivers.
//!
//! Receivers who are given the same of a source share a rendition: it decides
//! on a packet once, and each recipient has only its [`Shift`] from what was
//! decided. What that saves is less the deciding than the memory: of a thousand
//! receivers each packet would have to visit as many places that have gone cold
//! since the last one.
//!
//! Who comes gets a rendition of its own, as the numbers of each begin at its
//! own beginning, or joins those who wait for the same. Who wants another layer
//! leaves with a copy. Renditions that have come to the same are found by
//! [`Renditions::merge`].
//!
//! A rendition that nothing is wanted of rests, and costs a packet nothing.

use std::time::{Duration, Instant};

use super::Sent;
use super::history::{History, SentPacket};
use crate::projection::{IncomingVideo, LayerIndex, MAX_ENCODINGS, Projection, Rewrite, Shift};
use crate::receive::keyframe::Pace;
use crate::rtp::{PacketIndex, Ssrc};

/// How long a rendition must have been left alone to be compared with others:
/// longer than anything of before is remembered or sent again.
const SETTLED: Duration = Duration::from_secs(3);
/// Most renditions of the same layer that one is compared with: others come to the
/// first, unless that has a past which theirs will never equal.
const MAX_COMPARED: usize = 4;

/// One receiver of a rendition.
#[derive(Debug)]
pub struct Recipient {
    /// Its place in the conference.
    pub slot: usize,
    shift: Shift,
    /// The lowest of the rendition's indices that means for this receiver what
    /// it means here.
    floor: PacketIndex,
    pub sent: Sent,
}

impl Recipient {
    /// What this receiver gets where the rendition says `rewrite`; `None` for
    /// what came late of before it was one of this rendition.
    pub fn rewrite(&self, rewrite: &Rewrite) -> Option<Rewrite> {
        (rewrite.index >= self.floor).then(|| self.shift.rewrite(rewrite))
    }
}

/// What some receivers are given of a source.
#[derive(Debug)]
pub struct Rendition {
    number: u64,
    /// What it was copied from, and how many packets that had seen.
    parent: Option<(u64, u64)>,
    seen: u64,
    /// When it was made, or last aimed elsewhere.
    since: Instant,
    /// When to ask for the key frame that the projection waits for.
    pace: Pace,
    projection: Projection,
    history: History,
    recipients: Vec<Recipient>,
}

impl Rendition {
    /// Who gets it.
    pub fn recipients_mut(&mut self) -> &mut [Recipient] {
        &mut self.recipients
    }

    /// Notes that a packet was sent, for when it is asked for again.
    pub fn sent(&mut self, incoming: &IncomingVideo<'_>, stored: PacketIndex, rewrite: &Rewrite) {
        self.history.push(&SentPacket {
            rewrite: *rewrite,
            encoding: incoming.encoding,
            stored,
            at: incoming.arrival,
        });
    }

    /// Decides on a packet, and whether to ask for a key frame now; then it
    /// counts as asked for.
    pub fn project(&mut self, incoming: &IncomingVideo<'_>) -> (Option<Rewrite>, bool) {
        self.seen += 1;
        let changes = self.projection.codec_changes();
        let rewrite = self.projection.project(incoming);
        if self.projection.codec_changes() != changes {
            for recipient in &mut self.recipients {
                recipient.shift.pictures = Default::default();
            }
        }
        (rewrite, self.wants_keyframe(incoming.arrival))
    }

    fn wants_keyframe(&mut self, now: Instant) -> bool {
        if !self.projection.needs_keyframe() {
            if self.pace.is_waiting() {
                self.pace.reset();
            }
            return false;
        }
        let due = self.pace.due(now);
        if due {
            self.pace.asked(now);
        }
        due
    }

    /// Nothing has come for it yet that would set it apart from a new one.
    fn is_fresh(&self) -> bool {
        self.parent.is_none() && self.seen == 0
    }

    fn aim(&mut self, now: Instant, target: Option<LayerIndex>, newest: &Newest) {
        if self.projection.target().is_none() {
            self.projection.resume(newest);
        }
        self.projection.set_target(target);
        self.pace.reset();
        self.since = now;
        self.seen += 1;
    }
}

type Newest = [PacketIndex; MAX_ENCODINGS as usize];

#[derive(Clone, Copy, Debug)]
struct Seat {
    rendition: usize,
    at: usize,
}

/// A source as one receiver gets it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    rendition: &'a Rendition,
    recipient: &'a Recipient,
}

impl<'a> View<'a> {
    /// The best layer the receiver shall get.
    pub fn target(&self) -> Option<LayerIndex> {
        self.rendition.projection.target()
    }

    /// Whether the receiver can go on, or up, only with a key frame.
    pub fn needs_keyframe(&self) -> bool {
        self.rendition.projection.needs_keyframe()
    }

    /// Packets and octets so far.
    pub fn sent(&self) -> &'a Sent {
        &self.recipient.sent
    }

    /// Maps the RTP timestamp of a sender report of an encoding to the
    /// receiver's clock; `None` unless that encoding is what the receiver gets.
    pub fn rewrite_sender_report(&self, encoding: u8, timestamp: u32) -> Option<u32> {
        let projection = &self.rendition.projection;
        let mapped = projection.rewrite_sender_report(encoding, timestamp)?;
        Some(mapped.wrapping_add(self.recipient.shift.timestamp))
    }

    /// What was sent under a sequence number, if it is remembered.
    pub fn find(&self, sequence_number: u16) -> Option<SentPacket> {
        let Recipient { shift, floor, .. } = self.recipient;
        let number = sequence_number.wrapping_sub(shift.index as u16);
        let ssrc = self.rendition.projection.ssrc();
        let mut sent = self.rendition.history.find(ssrc, number)?;
        if sent.rewrite.index < *floor {
            return None;
        }
        sent.rewrite = shift.rewrite(&sent.rewrite);
        Some(sent)
    }

    /// The last index used under the source's SSRC.
    fn last_used(&self) -> PacketIndex {
        self.recipient
            .shift
            .index(self.rendition.projection.highest())
    }
}

/// What all receivers of a part of a conference get of a video source.
#[derive(Debug)]
pub struct Renditions {
    ssrc: Ssrc,
    list: Vec<Rendition>,
    /// Where each receiver is, by its place in the conference.
    seats: Vec<Option<Seat>>,
    /// The newest packets that came of each encoding.
    newest: Newest,
    /// Renditions made so far.
    made: u64,
}

impl Renditions {
    /// Nobody gets anything yet. `ssrc` is the one under which all get it.
    pub fn new(ssrc: Ssrc) -> Self {
        Self {
            ssrc,
            list: Vec::new(),
            seats: Vec::new(),
            newest: [PacketIndex(0); MAX_ENCODINGS as usize],
            made: 0,
        }
    }

    /// Whether anything was ever to be sent. Then its packets have to pass by
    /// even while nobody wants them, so that it is known where they may go on.
    pub fn any(&self) -> bool {
        !self.list.is_empty()
    }

    /// How many renditions there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Whether a receiver is one, perhaps of a rendition that rests.
    pub fn has(&self, slot: usize) -> bool {
        self.seat(slot).is_some()
    }

    /// The source as a receiver gets it.
    pub fn view(&self, slot: usize) -> Option<View<'_>> {
        let seat = self.seat(slot)?;
        let rendition = &self.list[seat.rendition];
        Some(View {
            rendition,
            recipient: &rendition.recipients[seat.at],
        })
    }

    /// The SSRC under which all get the source.
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// What is counted of a receiver.
    pub fn sent_mut(&mut self, slot: usize) -> Option<&mut Sent> {
        let seat = self.seat(slot)?;
        Some(&mut self.list[seat.rendition].recipients[seat.at].sent)
    }

    /// The renditions that a packet is for, once it is noted.
    pub fn awake(&mut self, incoming: &IncomingVideo<'_>) -> impl Iterator<Item = &mut Rendition> {
        if let Some(newest) = self.newest.get_mut(usize::from(incoming.encoding)) {
            *newest = incoming.index.max(*newest);
        }
        let wanted = |rendition: &&mut Rendition| rendition.projection.target().is_some();
        self.list.iter_mut().filter(wanted)
    }

    /// Lets a new receiver have the source up to a layer. `last` is the last
    /// index already used with it under this SSRC.
    pub fn add(
        &mut self,
        now: Instant,
        slot: usize,
        target: LayerIndex,
        last: Option<PacketIndex>,
    ) {
        let alike = |rendition: &Rendition| {
            rendition.is_fresh() && rendition.projection.target() == Some(target)
        };
        let rendition = self.list.iter().position(alike).unwrap_or_else(|| {
            let mut projection = Projection::new(self.ssrc);
            projection.set_target(Some(target));
            self.push(now, projection, None)
        });
        let first = last.map_or(Projection::FIRST.0, |last| last.0 + 1);
        let shift = Shift {
            index: first.wrapping_sub(Projection::FIRST.0),
            ..Shift::default()
        };
        let recipient = Recipient {
            slot,
            shift,
            floor: Projection::FIRST,
            sent: Sent::default(),
        };
        self.sit(rendition, recipient);
    }

    /// Lets a receiver have the source up to another layer, or not at all.
    pub fn aim(&mut self, now: Instant, slot: usize, target: Option<LayerIndex>) {
        let Some(seat) = self.seat(slot) else { return };
        let from = &self.list[seat.rendition];
        if from.projection.target() == target {
            return;
        }
        // Others may have left it for the same just now.
        let parent = Some((from.number, from.seen));
        let sibling =
            |r: &Rendition| r.parent == parent && r.seen == 1 && r.projection.target() == target;
        let to = match self.list.iter().position(sibling) {
            Some(to) => to,
            None if from.recipients.len() == 1 => {
                self.list[seat.rendition].aim(now, target, &self.newest);
                return;
            }
            None => {
                let (projection, history) = (from.projection.clone(), from.history.clone());
                let to = self.push(now, projection, parent);
                self.list[to].history = history;
                self.list[to].aim(now, target, &self.newest);
                to
            }
        };
        let number = self.list[to].number;
        let recipient = self.stand(slot, seat);
        let to = self.list.iter().position(|r| r.number == number);
        self.sit(to.expect("nobody left it"), recipient);
    }

    /// Whether to ask for a key frame now for a receiver; then it counts as asked
    /// for.
    pub fn wants_keyframe(&mut self, now: Instant, slot: usize) -> bool {
        let seat = self.seat(slot);
        seat.is_some_and(|seat| self.list[seat.rendition].wants_keyframe(now))
    }

    /// A receiver is gone, or what it gets of the source is. The last index used
    /// with it.
    pub fn remove(&mut self, slot: usize) -> Option<PacketIndex> {
        let seat = self.seat(slot)?;
        let last = self.view(slot)?.last_used();
        self.stand(slot, seat);
        Some(last)
    }

    /// Gives back memory that idle renditions hold, and makes one of those that
    /// have come to the same.
    pub fn tidy(&mut self, now: Instant) {
        for rendition in &mut self.list {
            rendition.history.tidy(now);
        }
        self.merge(now);
    }

    fn merge(&mut self, now: Instant) {
        let settled = |rendition: &Rendition| {
            let since = now.saturating_duration_since(rendition.since);
            rendition.projection.target().is_some() && since >= SETTLED
        };
        let mut at = 1;
        while at < self.list.len() {
            let own = &self.list[at];
            let same = |base: &Rendition| {
                settled(base) && base.projection.target() == own.projection.target()
            };
            let bases = self.list[..at].iter().enumerate();
            let common = bases
                .filter(|(_, base)| settled(own) && same(base))
                .take(MAX_COMPARED)
                .find_map(|(number, base)| {
                    let common = own.projection.shift_from(&base.projection, now)?;
                    Some((number, common))
                });
            let Some((base, (shift, since))) = common else {
                at += 1;
                continue;
            };
            let merged = self.list.swap_remove(at);
            self.renumber(at);
            for mut recipient in merged.recipients {
                let floor = recipient.floor.0.wrapping_sub(shift.index);
                // One that was not used yet lies before all indices.
                let floor = if floor > u64::MAX / 2 { 0 } else { floor };
                recipient.shift = shift.and(recipient.shift);
                recipient.floor = since.max(PacketIndex(floor));
                self.sit(base, recipient);
            }
        }
    }

    fn seat(&self, slot: usize) -> Option<Seat> {
        *self.seats.get(slot)?
    }

    /// Adds a rendition without recipients.
    fn push(&mut self, now: Instant, projection: Projection, parent: Option<(u64, u64)>) -> usize {
        self.made += 1;
        self.list.push(Rendition {
            number: self.made,
            parent,
            seen: 0,
            since: now,
            pace: Pace::default(),
            projection,
            history: History::default(),
            recipients: Vec::new(),
        });
        self.list.len() - 1
    }

    fn sit(&mut self, rendition: usize, recipient: Recipient) {
        let slot = recipient.slot;
        if self.seats.len() <= slot {
            self.seats.resize(slot + 1, None);
        }
        let recipients = &mut self.list[rendition].recipients;
        recipients.push(recipient);
        let at = recipients.len() - 1;
        self.seats[slot] = Some(Seat { rendition, at });
    }

    /// Takes a receiver from its seat, and away what nobody is left of.
    fn stand(&mut self, slot: usize, seat: Seat) -> Recipient {
        self.seats[slot] = None;
        let recipients = &mut self.list[seat.rendition].recipients;
        let recipient = recipients.swap_remove(seat.at);
        if recipients.is_empty() {
            self.list.swap_remove(seat.rendition);
            self.renumber(seat.rendition);
        } else if let Some(moved) = recipients.get(seat.at) {
            self.seats[moved.slot] = Some(seat);
        }
        recipient
    }

    /// The rendition at a place has come there from another.
    fn renumber(&mut self, rendition: usize) {
        let recipients = self.list.get(rendition).map(|r| &r.recipients);
        for (at, recipient) in recipients.into_iter().flatten().enumerate() {
            self.seats[recipient.slot] = Some(Seat { rendition, at });
        }
    }
}
