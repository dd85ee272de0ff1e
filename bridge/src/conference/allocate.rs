//! Runs the allocation for the receivers of a conference and carries out what
//! it decides: projections aim for their layers, receivers learn what they get,
//! senders what is wanted of them.

use super::parts::height_order;
use super::sources::Ties;
use super::{Conference, Turn};
use crate::allocation::{VideoSource, decide};
use crate::channel;
use crate::command::Encoding;
use crate::projection::LayerIndex;
use crate::receive::keyframe::Asker;

/// Video sources one receiver can get (`videobridge.ssrc-limit.video`).
const MAX_VIDEO_SOURCES: i32 = 50;

/// A video source with what a receiver's output needs to know of it.
struct Offer {
    owner: usize,
    encoding: Encoding,
    layers: Vec<LayerIndex>,
    /// Its key is the place of the source.
    source: VideoSource<usize>,
}

impl Conference {
    /// Decides anew for one receiver, or for all.
    pub(super) fn allocate(&mut self, turn: &mut Turn<'_>, only: Option<usize>) {
        let offers = self.offers();
        let receivers = match only {
            Some(slot) => slot..slot + 1,
            None => {
                self.last_allocation = turn.now;
                0..self.endpoints.len()
            }
        };
        for slot in receivers {
            self.allocate_for(turn, slot, &offers);
        }
        self.unsettled = true;
    }

    /// All video sources in speech order.
    fn offers(&self) -> Vec<Offer> {
        let mut offers = Vec::new();
        for &owner in self.floor.order().list() {
            let Some(member) = &self.members[owner] else {
                continue;
            };
            for &place in &member.sources {
                let Some(placed) = self.sources[place].as_ref().filter(|p| p.is_video()) else {
                    continue;
                };
                let (layers, sizes) = placed.layers.layers.iter().copied().unzip();
                offers.push(Offer {
                    owner,
                    encoding: placed.source.encodings[0],
                    layers,
                    source: VideoSource {
                        key: place,
                        name: placed.source.name.clone(),
                        owner: member.id.clone(),
                        video_type: placed.source.video_type,
                        layers: sizes,
                    },
                });
            }
        }
        offers
    }

    fn allocate_for(&mut self, turn: &mut Turn<'_>, slot: usize, offers: &[Offer]) {
        let offers: Vec<&Offer> = offers.iter().filter(|offer| offer.owner != slot).collect();
        // What it does not know yet it gets later; its senders may prepare.
        let places = offers.iter().map(|offer| offer.source.key);
        let unknown: Vec<usize> = places
            .filter(|place| !self.knows(turn.now, slot, *place))
            .collect();
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        let sources: Vec<_> = offers.iter().map(|offer| &offer.source).collect();
        let last_n = match turn.settings.last_n {
            0.. => turn.settings.last_n.min(MAX_VIDEO_SOURCES),
            _ => MAX_VIDEO_SOURCES,
        };
        let constraints = &endpoint.constraints;
        let available = endpoint.remb.map(|(bits, _)| bits);
        let grants = decide(turn.settings, constraints, last_n, available, &sources);
        endpoint.oversending = grants.oversending;
        endpoint.suspended = grants.suspended;
        endpoint.granted.clear();
        let mut forwarded = Vec::new();
        let mut keyframes = Vec::new();
        let ready = endpoint.peer.ready() && endpoint.formats.video;
        for granted in &grants.sources {
            let place = granted.key;
            endpoint.granted.insert(place, granted.max_height);
            let offer = offers.iter().find(|offer| offer.source.key == place);
            let target = offer.zip(granted.target);
            let target = target.filter(|_| !unknown.contains(&place));
            let Some((offer, target)) = target else {
                if let Some(placed) = &mut self.sources[place] {
                    placed.outputs.suspend(turn.now, slot);
                }
                continue;
            };
            forwarded.push(place);
            let Some(placed) = self.sources[place].as_mut().filter(|_| ready) else {
                // Once it is, this is decided anew.
                continue;
            };
            let (source, layer) = ((place, offer.encoding), offer.layers[target]);
            let downlink = &mut endpoint.downlink;
            let outputs = &mut placed.outputs;
            if outputs.set_video(turn.now, slot, downlink, source, layer, turn.counters)
                && outputs.wants_keyframe(turn.now, slot)
            {
                keyframes.push(place);
            }
        }
        self.tell_forwarded(turn, slot, forwarded);
        for place in keyframes {
            self.request_keyframe(turn, place, Asker::Projection);
        }
    }

    /// Tells a receiver which sources it gets, if those are others than before.
    fn tell_forwarded(&mut self, turn: &mut Turn<'_>, slot: usize, forwarded: Vec<usize>) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        let sorted = |places: &[usize]| {
            let mut places = places.to_vec();
            places.sort_unstable();
            places
        };
        let retell = std::mem::take(&mut endpoint.retell_forwarded);
        let changed = retell || sorted(&endpoint.forwarded) != sorted(&forwarded);
        endpoint.forwarded = forwarded;
        if changed {
            self.send_forwarded(turn, slot);
        }
    }

    /// Tells senders the greatest height anyone wants of their sources, where
    /// that has changed. To be called once all there was to handle has been:
    /// what some receivers cease to want may be what others begin to.
    pub fn tell_senders(&mut self, turn: &mut Turn<'_>) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        for place in 0..self.sources.len() {
            let here = self.watch(place).height;
            let Some(placed) = &mut self.sources[place] else {
                continue;
            };
            if !placed.is_video() {
                continue;
            }
            let Ties::Here {
                wanted, watches, ..
            } = &mut placed.ties
            else {
                continue;
            };
            let elsewhere = watches.values().map(|watch| watch.height);
            let all = elsewhere.chain([here]).flatten();
            // Nothing is said while nobody has asked for anything.
            let greatest = all
                .max_by_key(|height| height_order(*height))
                .or(wanted.map(|_| 0));
            if std::mem::replace(wanted, greatest) != greatest {
                self.send_wanted(turn, place);
            }
        }
    }

    /// The greatest height of a source that its sender was told.
    pub(super) fn wanted(&self, place: usize) -> Option<i32> {
        match self.sources[place].as_ref()?.ties {
            Ties::Here { wanted, .. } => wanted,
            Ties::Elsewhere { .. } => None,
        }
    }

    /// Tells the sender of a source what is wanted of it.
    pub(super) fn send_wanted(&mut self, turn: &mut Turn<'_>, place: usize) {
        let (Some(placed), Some(wanted)) = (&self.sources[place], self.wanted(place)) else {
            return;
        };
        let owner = placed.owner;
        let text = channel::sender_source_constraints(&placed.source.name, wanted);
        self.send(turn, owner, text);
        let older = self.endpoints[owner].as_ref().is_some_and(|e| e.older);
        if let (true, Some(member)) = (older, &self.members[owner]) {
            let heights = member
                .sources
                .iter()
                .filter_map(|place| self.wanted(*place));
            let greatest = heights.max_by_key(|height| height_order(*height));
            let text = channel::sender_video_constraints(greatest.unwrap_or(0));
            self.send(turn, owner, text);
        }
    }

    /// Tells a receiver which sources it gets.
    pub(super) fn send_forwarded(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(endpoint) = &self.endpoints[slot] else {
            return;
        };
        let places = || {
            let placed = |place: &usize| self.sources.get(*place)?.as_ref();
            endpoint.forwarded.iter().filter_map(placed)
        };
        let text = channel::forwarded_sources(places().map(|placed| &placed.source.name));
        let older = endpoint.older.then(|| {
            let owners = places().filter_map(|placed| self.members[placed.owner].as_ref());
            channel::last_n_endpoints(owners.map(|owner| &owner.id))
        });
        self.send(turn, slot, text);
        if let Some(text) = older {
            self.send(turn, slot, text);
        }
    }
}
