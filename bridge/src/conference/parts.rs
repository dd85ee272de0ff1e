//! What the parts of a conference on several shards tell each other.
//!
//! A part whose receivers are to get something of a source elsewhere says so to
//! the source's home ([`Watch`]), which then publishes its packets and passes on
//! its sender's reports and layers; requests for key frames go the other way.
//! One part, the lead, hears all audio and decides who speaks. Texts between
//! endpoints, what sources show and who is out of reach go to all parts.

use super::sources::Ties;
use super::speakers::{Order, Speakers};
use super::{Conference, Member, Turn};
use crate::channel;
use crate::id::MemberId;
use crate::peers::{News, PeerMessage, Published, ShardSet, Watch};
use crate::receive::ArrivalMedia;
use crate::stats::DropCause;

/// Who speaks: decided here, or told by the part that does.
#[derive(Debug)]
pub(super) enum Floor {
    Decided(Speakers<usize>),
    Told(Order<usize>),
}

impl Floor {
    pub(super) fn new(lead: bool) -> Self {
        if lead {
            Self::Decided(Speakers::default())
        } else {
            Self::Told(Order::default())
        }
    }

    pub(super) fn order(&self) -> &Order<usize> {
        match self {
            Self::Decided(speakers) => speakers.order(),
            Self::Told(order) => order,
        }
    }

    pub(super) fn join(&mut self, slot: usize) {
        match self {
            Self::Decided(speakers) => speakers.join(slot),
            Self::Told(order) => order.join(slot),
        }
    }

    pub(super) fn leave(&mut self, slot: usize) {
        match self {
            Self::Decided(speakers) => speakers.leave(slot),
            Self::Told(order) => order.leave(slot),
        };
    }
}

impl Conference {
    /// Tells another part.
    pub(super) fn tell(&self, turn: &mut Turn<'_>, part: usize, news: News) {
        let conference = self.id;
        turn.peers
            .tell(part, PeerMessage::Part { conference, news });
    }

    /// Tells all other parts.
    pub(super) fn tell_parts(&self, turn: &mut Turn<'_>, news: &News) {
        for part in &self.parts {
            self.tell(turn, *part, news.clone());
        }
    }

    /// Tells a part that is new what it cannot know from the registry.
    pub(super) fn introduce(&self, turn: &mut Turn<'_>, part: usize) {
        for member in self
            .members
            .iter()
            .flatten()
            .filter(|m| m.home == self.shard)
        {
            if !member.video_types.is_empty() {
                self.tell(turn, part, video_types(member));
            }
            if !member.active {
                let news = News::Connectivity {
                    endpoint: member.number,
                    active: false,
                };
                self.tell(turn, part, news);
            }
        }
        if let Floor::Decided(_) = self.floor {
            let news = self.floor_news(false);
            self.tell(turn, part, news);
        }
    }

    /// Forgets a part with the last of its endpoints.
    pub(super) fn forget_part(&mut self, part: usize) {
        let lasts = part == self.lead || self.members.iter().flatten().any(|m| m.home == part);
        if !lasts {
            self.parts.remove(&part);
        }
    }

    /// Tells all other parts that this one ends.
    pub(super) fn tell_ended(&self, turn: &mut Turn<'_>) {
        self.tell_parts(turn, &News::Ended);
    }

    /// The present order of speakers, for other parts.
    pub(super) fn floor_news(&self, changed: bool) -> News {
        let number = |slot: &usize| self.members[*slot].as_ref().map(|member| member.number);
        let order = self.floor.order();
        News::Floor {
            order: order.list().iter().filter_map(number).collect(),
            spoken: order.spoken(),
            dominant: order.dominant().and_then(|slot| number(&slot)),
            changed,
        }
    }

    /// Tells other parts what sources here show, and the homes of sources
    /// elsewhere what is wanted of them here, where that has changed. To be called
    /// once all there was to handle has been.
    pub fn tell_homes(&mut self, turn: &mut Turn<'_>) {
        for slot in 0..self.members.len() {
            if let Some(member) = &mut self.members[slot]
                && std::mem::take(&mut member.retell_types)
                && member.home == self.shard
            {
                let news = video_types(member);
                self.tell_parts(turn, &news);
            }
        }
        for place in 0..self.sources.len() {
            let watch = self.watch(place);
            let Some(placed) = &mut self.sources[place] else {
                continue;
            };
            let Ties::Elsewhere { told, .. } = &mut placed.ties else {
                continue;
            };
            if told.replace(watch) == Some(watch) {
                continue;
            }
            if let Some(home) = self.home_of(place) {
                let source = self.key_of(place);
                self.tell(turn, home, News::Watch { source, watch });
            }
        }
    }

    /// The shard on which a source is homed.
    pub(super) fn home_of(&self, place: usize) -> Option<usize> {
        let owner = self.sources[place].as_ref()?.owner;
        Some(self.members[owner].as_ref()?.home)
    }

    /// What is wanted of a source here.
    pub(super) fn watch(&self, place: usize) -> Watch {
        let Some(placed) = &self.sources[place] else {
            return Watch::default();
        };
        let receivers = || {
            let all = self.endpoints.iter().enumerate();
            all.filter(|(slot, _)| *slot != placed.owner)
                .filter_map(|(_, endpoint)| endpoint.as_ref())
        };
        if !placed.is_video() {
            let name = &placed.source.name.0;
            let decides = matches!(self.floor, Floor::Decided(_));
            return Watch {
                gets: decides || receivers().any(|endpoint| endpoint.audio.wants(name)),
                height: None,
            };
        }
        // Receivers that have not asked for anything yet do not count: a sender
        // told 0 stops encoding and takes its time to begin again, only because
        // a receiver was still connecting.
        let spoken = receivers().filter(|endpoint| endpoint.constraints.spoken);
        let heights = spoken.map(|e| e.granted.get(&place).copied().unwrap_or(0));
        Watch {
            gets: placed.outputs.follows_video(),
            height: heights.max_by_key(|height| height_order(*height)),
        }
    }

    /// Publishes a packet of an endpoint here for the parts that get its source.
    pub(super) fn publish(
        &self,
        turn: &mut Turn<'_>,
        place: usize,
        index: crate::rtp::PacketIndex,
        media: &ArrivalMedia,
        packet: &[u8],
    ) {
        let Some(placed) = &self.sources[place] else {
            return;
        };
        let to: ShardSet = placed.getting();
        if to.is_empty() {
            return;
        }
        let changed = matches!(
            media,
            ArrivalMedia::Video {
                layering_changed: true,
                ..
            }
        );
        let head = Published {
            conference: self.id,
            source: self.key_of(place),
            index,
            media: media.clone(),
            layers: changed.then(|| placed.layers.clone()),
        };
        turn.counters.packets_published += to.iter().count() as u64;
        turn.peers.publish(to, head, packet);
    }

    /// Takes another part's word.
    pub fn handle_news(&mut self, turn: &mut Turn<'_>, from: usize, news: News) {
        match news {
            News::Watch { source, watch } => self.watched(turn, from, source, watch),
            News::Keyframe { source, asker } => {
                if let Some(place) = self.place_of(source) {
                    self.request_keyframe(turn, place, asker);
                }
            }
            News::Layers {
                source,
                layers,
                began_or_ceased,
            } => {
                let place = self.place_of(source);
                if let Some(Some(placed)) = place.map(|place| &mut self.sources[place])
                    && placed.layers.version < layers.version
                {
                    placed.layers = layers;
                }
                if began_or_ceased {
                    self.allocate(turn, None);
                }
            }
            News::SenderReport {
                source,
                encoding,
                info,
            } => {
                if let Some(place) = self.place_of(source) {
                    self.pass_sender_report(turn, place, encoding, &info);
                }
            }
            News::VideoTypes { owner, types } => {
                if let Some(&slot) = self.by_number.get(&owner) {
                    let mut changed = false;
                    for (source, video_type) in types {
                        changed |= self.note_video_type(slot, &source, video_type);
                    }
                    if changed {
                        self.allocate(turn, None);
                    }
                }
            }
            News::Connectivity { endpoint, active } => {
                let slot = self.by_number.get(&endpoint);
                if let Some(Some(member)) = slot.map(|slot| &mut self.members[*slot]) {
                    member.active = active;
                    let text = channel::connectivity(&member.id, active);
                    self.broadcast(turn, None, &text);
                }
            }
            News::Floor {
                order,
                spoken,
                dominant,
                changed,
            } => self.told_floor(turn, &order, (spoken, dominant), changed),
            News::Audience { speaker, audience } => {
                if let Some(&slot) = self.by_number.get(&speaker) {
                    self.note_audience(turn.now, slot, audience);
                }
            }
            News::Message { to: None, text } => self.broadcast(turn, None, &text),
            News::Message { to: Some(to), text } => {
                if let Some(slot) = self.find(&to) {
                    self.send(turn, slot, text);
                }
            }
            News::Statistics { from, text } => {
                if let Some(&slot) = self.by_number.get(&from) {
                    self.pass_statistics(turn, slot, &text);
                }
            }
            News::Senders(count) => {
                self.senders.insert(from, count);
            }
            News::Ended => self.part_ended(from),
        }
    }

    /// Another part wants something else of a source here than before.
    fn watched(
        &mut self,
        turn: &mut Turn<'_>,
        part: usize,
        source: crate::peers::SourceKey,
        watch: Watch,
    ) {
        let Some(place) = self.place_of(source) else {
            return;
        };
        let Some(placed) = &mut self.sources[place] else {
            return;
        };
        let video = placed.is_video();
        let Ties::Here {
            watches, getting, ..
        } = &mut placed.ties
        else {
            return;
        };
        getting.set(part, watch.gets);
        let first = watches.insert(part, watch).is_none();
        let placed = &*placed;
        self.unsettled |= video;
        if first && video {
            let news = News::Layers {
                source,
                layers: placed.layers.clone(),
                began_or_ceased: true,
            };
            self.tell(turn, part, news);
        }
    }

    fn told_floor(
        &mut self,
        turn: &mut Turn<'_>,
        order: &[MemberId],
        (spoken, dominant): (usize, Option<MemberId>),
        changed: bool,
    ) {
        let Floor::Told(told) = &mut self.floor else {
            return;
        };
        let slot = |number: &MemberId| self.by_number.get(number).copied();
        // Who joined, as the registry told, after the lead decided is last.
        let mut list: Vec<usize> = order.iter().filter_map(slot).collect();
        let unknown = order[..spoken.min(order.len())]
            .iter()
            .filter(|n| slot(n).is_none());
        let spoken = spoken - unknown.count().min(spoken);
        let late = told.list().iter().filter(|slot| !list.contains(slot));
        let late: Vec<usize> = late.copied().collect();
        list.extend(late);
        *told = Order::new(list, spoken, dominant.as_ref().and_then(slot));
        if changed {
            self.floor_changed(turn);
        } else {
            self.allocate(turn, None);
        }
    }

    /// Another part has ended: it wants nothing any more.
    fn part_ended(&mut self, part: usize) {
        self.senders.remove(&part);
        for placed in self.sources.iter_mut().flatten() {
            if let Ties::Here {
                watches, getting, ..
            } = &mut placed.ties
            {
                self.unsettled |= watches.remove(&part).is_some();
                getting.set(part, false);
            }
        }
    }

    /// Takes a packet of an endpoint elsewhere, and sends it on.
    pub fn handle_published(&mut self, turn: &mut Turn<'_>, head: Published, packet: &[u8]) {
        let Some(place) = self.place_of(head.source) else {
            turn.drop(DropCause::UnwantedPublished);
            return;
        };
        if let (Some(layers), Some(placed)) = (head.layers, &mut self.sources[place]) {
            if placed.layers.version < layers.version {
                placed.layers = layers;
            }
            self.allocate(turn, None);
        }
        let sent = self.fan_out(turn, place, head.index, &head.media, packet);
        if let ArrivalMedia::Video {
            encoding, stored, ..
        } = head.media
            && sent
            && let Some(placed) = &mut self.sources[place]
            && let Ties::Elsewhere { stores, .. } = &mut placed.ties
            && let Some(store) = stores.get_mut(encoding)
        {
            store.keep(turn.now, stored, packet);
        }
    }
}

/// What the sources of a member show.
fn video_types(member: &Member) -> News {
    let types = member.video_types.iter();
    News::VideoTypes {
        owner: member.number,
        types: types.map(|(name, shown)| (name.clone(), *shown)).collect(),
    }
}

/// Orders heights: -1 is unlimited, the greatest of all.
pub(super) fn height_order(height: i32) -> u32 {
    height as u32
}
