//! The sources of a conference, its own and those of other shards: at which
//! place each is, and what is known and wanted of it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Conference, Owner, Turn, free_place};
use crate::command::{MediaType, Source, VideoType};
use crate::peers::{LayerList, News, ShardSet, SourceKey, Watch};
use crate::receive::layers::Layers;
use crate::receive::store::PacketStore;
use crate::rtp::Ssrc;
use crate::send::Outputs;

/// Video types remembered for sources not signalled yet; beyond it a message
/// about yet another source is ignored.
const MAX_VIDEO_TYPES: usize = 64;

/// A source at its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// The place of the endpoint that sends it.
    pub(super) owner: usize,
    pub(super) source: Source,
    pub(super) signalled: Instant,
    /// Of a video source, as of its last change.
    pub(super) layers: LayerList,
    /// What receivers here get of it.
    pub(super) outputs: Outputs,
    pub(super) ties: Ties,
}

/// What goes to and fro about a source, by where it is homed.
#[derive(Debug)]
pub(super) enum Ties {
    Here {
        /// The greatest height its sender was told that anyone wants.
        wanted: Option<i32>,
        /// What other parts want of it, and which of them get its packets.
        watches: BTreeMap<usize, Watch>,
        getting: ShardSet,
    },
    Elsewhere {
        /// What its home was told that is wanted of it here.
        told: Option<Watch>,
        /// Its packets as they were published, by encoding, for resends.
        stores: Vec<PacketStore>,
    },
}

impl Placed {
    /// The SSRC that names the source: that of its lowest encoding.
    pub(super) fn primary(&self) -> Ssrc {
        self.source.encodings[0].primary
    }

    pub(super) fn is_video(&self) -> bool {
        self.source.media_type == MediaType::Video
    }

    /// Which other parts get its packets.
    pub(super) fn getting(&self) -> ShardSet {
        match &self.ties {
            Ties::Here { getting, .. } => *getting,
            Ties::Elsewhere { .. } => ShardSet::default(),
        }
    }
}

impl Conference {
    /// Replaces the sources of an endpoint. They keep their place while their
    /// name and SSRCs stay.
    pub(super) fn set_sources(&mut self, turn: &mut Turn<'_>, slot: usize, sources: Vec<Source>) {
        let Some(member) = &mut self.members[slot] else {
            return;
        };
        let here = member.home == self.shard;
        let mut old = std::mem::take(&mut member.sources);
        let video_types = member.video_types.clone();
        self.ssrcs.retain(|_, owner| owner.endpoint != slot);
        let mut new = Vec::new();
        for mut source in sources {
            if let Some(video_type) = video_types.get(&*source.name.0) {
                source.video_type = *video_type;
            }
            let kept = old.iter().position(|place| {
                self.sources[*place].as_ref().is_some_and(|placed| {
                    placed.source.name == source.name
                        && placed.source.media_type == source.media_type
                        && placed.source.encodings == source.encodings
                })
            });
            let place = match kept {
                Some(at) => {
                    let place = old.remove(at);
                    if let Some(placed) = &mut self.sources[place] {
                        placed.source = source.clone();
                    }
                    place
                }
                None => {
                    let place = free_place(&mut self.sources);
                    self.sources[place] = Some(placed(turn, slot, source.clone(), here));
                    self.await_acquaintance(turn.now);
                    place
                }
            };
            for ssrc in ssrcs(&source) {
                let owner = Owner {
                    endpoint: slot,
                    slot: place,
                };
                self.ssrcs.insert(ssrc, owner);
            }
            new.push((place, source));
        }
        for place in old {
            let Some(mut gone) = self.sources[place].take() else {
                continue;
            };
            for (receiver, other) in self.endpoints.iter_mut().enumerate() {
                let Some(other) = other else { continue };
                let last = gone.outputs.remove(receiver);
                other.downlink.retire(place, gone.primary(), last);
                other.granted.remove(&place);
                let before = other.forwarded.len();
                other.forwarded.retain(|forwarded| *forwarded != place);
                other.retell_forwarded |= other.forwarded.len() < before;
            }
        }
        let places: Vec<usize> = new.iter().map(|(place, _)| *place).collect();
        if let Some(endpoint) = &mut self.endpoints[slot] {
            endpoint.uplink.set_sources(turn.now, new, turn.counters);
        }
        for &place in &places {
            for receiver in 0..self.endpoints.len() {
                self.offer_audio(turn, place, receiver);
            }
        }
        if let Some(member) = &mut self.members[slot] {
            member.sources = places;
        }
    }

    /// Makes the audio source at `place` go to a receiver, if it knows and wants
    /// it.
    pub(super) fn offer_audio(&mut self, turn: &mut Turn<'_>, place: usize, receiver: usize) {
        if !self.knows(turn.now, receiver, place) {
            return;
        }
        if let Some(placed) = &mut self.sources[place]
            && !placed.is_video()
            && placed.owner != receiver
            && let Some(endpoint) = &mut self.endpoints[receiver]
        {
            let wanted = endpoint.audio.wants(&placed.source.name.0);
            let stream = (placed.primary(), wanted);
            placed
                .outputs
                .set_audio(receiver, &endpoint.downlink, stream, turn.counters);
        }
    }

    /// Remembers what a source of a member shows, signalled or not yet. Whether
    /// that changes one there is.
    pub(super) fn note_video_type(&mut self, slot: usize, name: &str, shown: VideoType) -> bool {
        let Some(member) = &mut self.members[slot] else {
            return false;
        };
        let types = &mut member.video_types;
        if types.len() < MAX_VIDEO_TYPES || types.contains_key(name) {
            let known = types.insert(name.to_owned(), shown);
            member.retell_types |= known != Some(shown);
            self.unsettled |= member.retell_types;
        }
        let mut changed = false;
        for place in &member.sources {
            if let Some(placed) = &mut self.sources[*place]
                && *placed.source.name.0 == *name
            {
                changed |= std::mem::replace(&mut placed.source.video_type, shown) != shown;
            }
        }
        changed
    }

    /// Takes over the present layers of a source that is homed here, and tells
    /// whoever watches it, if there is news; those that get the packet on which
    /// it is learn it from that.
    pub(super) fn note_layers(
        &mut self,
        turn: &mut Turn<'_>,
        place: usize,
        learn_from_packet: bool,
        began_or_ceased: bool,
    ) {
        let Some(Some(placed)) = self.sources.get_mut(place) else {
            return;
        };
        let uplink = self.endpoints[placed.owner].as_mut();
        let Some(source) = uplink.and_then(|e| e.uplink.source_at_mut(place)) else {
            return;
        };
        let layers = source.layers.list(turn.now);
        if *placed.layers.layers != *layers {
            self.layer_version += 1;
            placed.layers = LayerList {
                version: self.layer_version,
                layers: layers.into(),
            };
        } else if !began_or_ceased {
            return;
        }
        let Some(Placed {
            layers,
            ties: Ties::Here { watches, .. },
            ..
        }) = &self.sources[place]
        else {
            return;
        };
        for (part, watch) in watches {
            if watch.gets && learn_from_packet {
                continue;
            }
            let news = News::Layers {
                source: self.key_of(place),
                layers: layers.clone(),
                began_or_ceased,
            };
            self.tell(turn, *part, news);
        }
    }

    /// The name by which other parts know a source.
    pub(super) fn key_of(&self, place: usize) -> SourceKey {
        let placed = self.sources[place].as_ref();
        let placed = placed.expect("the caller looked the source up");
        let owner = self.members[placed.owner].as_ref();
        SourceKey {
            owner: owner.expect("sources go with their owner").number,
            primary: placed.primary(),
        }
    }

    /// The place of a source that another part named, if it is still there.
    pub(super) fn place_of(&self, key: SourceKey) -> Option<usize> {
        let owner = self.ssrcs.get(&key.primary)?;
        let member = self.members[owner.endpoint].as_ref()?;
        (member.number == key.owner).then_some(owner.slot)
    }
}

fn placed(turn: &Turn<'_>, owner: usize, source: Source, here: bool) -> Placed {
    let video = source.media_type == MediaType::Video;
    let encodings = source.encodings.len();
    let layers = video.then(|| Layers::new(encodings).list(turn.now));
    let ties = if here {
        Ties::Here {
            wanted: None,
            watches: BTreeMap::new(),
            getting: ShardSet::default(),
        }
    } else {
        let stores = (0..if video { encodings } else { 0 }).map(|_| PacketStore::default());
        Ties::Elsewhere {
            told: None,
            stores: stores.collect(),
        }
    };
    Placed {
        owner,
        outputs: Outputs::new(source.media_type, source.encodings[0].primary),
        source,
        signalled: turn.now,
        layers: LayerList {
            version: 0,
            layers: layers.unwrap_or_default().into(),
        },
        ties,
    }
}

/// All SSRCs of a source.
fn ssrcs(source: &Source) -> impl Iterator<Item = Ssrc> + '_ {
    source
        .encodings
        .iter()
        .flat_map(|encoding| [Some(encoding.primary), encoding.rtx])
        .flatten()
}
