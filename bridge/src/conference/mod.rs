//! One conference: who is in it, whose SSRC is whose, and all that one endpoint
//! does which concerns the others.
//!
//! Endpoints and sources have numbered places, reused when free, so that a
//! packet finds its outputs without a search; whatever is iterated is iterated
//! in a fixed order, so that a run repeats exactly.

mod allocate;
mod channels;
mod endpoint;
mod forward;
mod messages;
pub mod speakers;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::command::{EndpointUpdate, Event, ExpiryReason, MediaType, Source};
use crate::id::{ConferenceId, EndpointId, SourceName};
use crate::outbox::Outbox;
use crate::receive::FeedbackSsrcs;
use crate::rtp::Ssrc;
use crate::settings::ShardSettings;
use crate::stats::{Counters, DropCause};
use crate::transport::{Output, Received, Transport, demux};
use endpoint::Endpoint;
use speakers::Speakers;

/// Sources and encodings of one endpoint; signalling has far fewer, and what is
/// beyond is ignored.
const MAX_SOURCES: usize = 64;
const MAX_ENCODINGS: usize = crate::projection::MAX_ENCODINGS as usize;
/// Time between looks at what changes by time alone: connectivity
/// (`jitsi-videobridge:jvb/…/EndpointConnectionStatusMonitor`), layers that
/// ceased, idle memory.
pub const TICK: Duration = Duration::from_millis(500);

/// What a conference works with during one call.
pub struct Turn<'a> {
    pub now: Instant,
    pub settings: &'a ShardSettings,
    pub outbox: &'a mut Outbox,
    pub events: &'a mut VecDeque<Event>,
    pub counters: &'a mut Counters,
    /// Changes to who is at which address, for the shard to take over.
    pub addresses: &'a mut Vec<AddressChange>,
    /// Endpoints that may have something to do earlier than before, though
    /// nothing came from them.
    pub rearm: &'a mut Vec<usize>,
}

impl Turn<'_> {
    fn drop(&mut self, cause: DropCause) {
        self.counters.drops[cause] += 1;
    }
}

/// An address that has become, or ceased to be, that of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    pub endpoint: usize,
    pub address: SocketAddr,
    pub bound: bool,
}

/// A source at its place.
#[derive(Debug)]
struct Placed {
    owner: usize,
    name: SourceName,
    media_type: MediaType,
    primary: Ssrc,
    /// The greatest height its sender was told that anyone wants.
    wanted: Option<i32>,
}

/// Whose an SSRC is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    endpoint: usize,
    slot: usize,
}

/// One conference.
pub struct Conference {
    id: ConferenceId,
    bridge: FeedbackSsrcs,
    endpoints: Vec<Option<Box<Endpoint>>>,
    by_id: BTreeMap<EndpointId, usize>,
    sources: Vec<Option<Placed>>,
    ssrcs: BTreeMap<Ssrc, Owner>,
    speakers: Speakers<usize>,
    /// A key frame to ask of a new dominant speaker: when, and of whom.
    preemptive: Option<(Instant, usize)>,
    last_allocation: Instant,
    next_tick: Instant,
    next_expiry: Instant,
}

impl Conference {
    /// An empty conference. It first looks around `lead` earlier than others.
    pub fn new(now: Instant, lead: Duration, id: ConferenceId, bridge: FeedbackSsrcs) -> Self {
        Self {
            id,
            bridge,
            endpoints: Vec::new(),
            by_id: BTreeMap::new(),
            sources: Vec::new(),
            ssrcs: BTreeMap::new(),
            speakers: Speakers::default(),
            preemptive: None,
            last_allocation: now,
            next_tick: now + TICK - lead.min(TICK),
            next_expiry: now + watch::EXPIRY_INTERVAL,
        }
    }

    /// The place of an endpoint.
    pub fn find(&self, endpoint: &EndpointId) -> Option<usize> {
        self.by_id.get(endpoint).copied()
    }

    /// Places of all endpoints.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_id.values().copied()
    }

    /// Adds an endpoint, and answers its place; `None` if it is there already.
    pub fn join(
        &mut self,
        turn: &mut Turn<'_>,
        id: EndpointId,
        visitor: bool,
        transport: Transport,
    ) -> Option<usize> {
        if self.by_id.contains_key(&id) {
            debug!(conference = %self.id, endpoint = %id, "endpoint is there already");
            return None;
        }
        info!(conference = %self.id, endpoint = %id, "endpoint joined");
        let endpoint = Endpoint::new(turn.now, id.clone(), visitor, transport, turn.settings);
        let slot = free_place(&mut self.endpoints);
        self.endpoints[slot] = Some(Box::new(endpoint));
        self.by_id.insert(id, slot);
        self.speakers.join(slot);
        for place in 0..self.sources.len() {
            self.offer_audio(turn, place, slot);
        }
        self.allocate(turn, Some(slot));
        Some(slot)
    }

    /// Takes an endpoint out, with all its sources.
    pub fn leave(&mut self, turn: &mut Turn<'_>, slot: usize) {
        self.set_sources(turn, slot, Vec::new());
        let Some(mut endpoint) = self.endpoints[slot].take() else {
            return;
        };
        info!(conference = %self.id, endpoint = %endpoint.id, "endpoint left");
        endpoint.uplink.finish(turn.now, turn.counters);
        self.by_id.remove(&endpoint.id);
        self.speakers.leave(slot);
        if let Some(channel) = endpoint.channels.web_socket() {
            turn.events.push_back(Event::ChannelClose {
                conference: self.id,
                endpoint: endpoint.id,
                channel,
                reason: crate::command::ChannelCloseReason::EndpointClosed,
            });
        }
        self.allocate(turn, None);
    }

    /// Takes all endpoints out.
    pub fn end(&mut self, turn: &mut Turn<'_>) {
        for slot in 0..self.endpoints.len() {
            self.leave(turn, slot);
        }
    }

    /// Changes an endpoint as signalling says.
    pub fn update(&mut self, turn: &mut Turn<'_>, slot: usize, update: EndpointUpdate) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        if let Some(media) = &update.media {
            endpoint.formats.add(media);
        }
        if let Some(force_mute) = update.force_mute {
            endpoint.force_mute = force_mute;
        }
        if let Some(last_n) = update.initial_last_n
            && !endpoint.constraints.spoken
        {
            endpoint.constraints.last_n = last_n;
        }
        if update.data_channel {
            endpoint.peer.offer_channel();
        }
        if let Some(remote) = &update.transport {
            endpoint.peer.transport.set_remote(turn.now, remote);
            self.transport_changed(turn, slot);
        }
        if let Some(sources) = update.sources {
            self.set_sources(turn, slot, sources);
        }
        self.allocate(turn, None);
    }

    /// Replaces the sources of an endpoint. An SSRC belongs to whoever named it
    /// first; sources keep their place while their name and SSRCs stay.
    fn set_sources(&mut self, turn: &mut Turn<'_>, slot: usize, sources: Vec<Source>) {
        let Some(endpoint) = &self.endpoints[slot] else {
            return;
        };
        let video_types = endpoint.video_types.clone();
        let mut old: Vec<(usize, Source)> = endpoint
            .uplink
            .sources()
            .iter()
            .map(|placed| (placed.slot, placed.source.clone()))
            .collect();
        let mut new = Vec::new();
        self.ssrcs.retain(|_, owner| owner.endpoint != slot);
        for mut source in sources.into_iter().take(MAX_SOURCES) {
            self.claim(slot, &mut source);
            if source.encodings.is_empty() {
                continue;
            }
            if let Some(video_type) = video_types.get(&*source.name.0) {
                source.video_type = *video_type;
            }
            let kept = old.iter().position(|(_, old)| {
                old.name == source.name
                    && old.media_type == source.media_type
                    && old.encodings == source.encodings
            });
            let place = match kept {
                Some(at) => old.swap_remove(at).0,
                None => free_place(&mut self.sources),
            };
            let primary = source.encodings[0].primary;
            let wanted = self.sources[place]
                .as_ref()
                .and_then(|placed| placed.wanted);
            self.sources[place] = Some(Placed {
                owner: slot,
                name: source.name.clone(),
                media_type: source.media_type,
                primary,
                wanted,
            });
            for ssrc in ssrcs(&source) {
                self.ssrcs.insert(
                    ssrc,
                    Owner {
                        endpoint: slot,
                        slot: place,
                    },
                );
            }
            new.push((place, source));
        }
        for (place, _) in old {
            self.sources[place] = None;
            for other in self.endpoints.iter_mut().flatten() {
                other.downlink.remove(place);
                other.granted.remove(&place);
            }
        }
        let places: Vec<usize> = new.iter().map(|(place, _)| *place).collect();
        if let Some(endpoint) = &mut self.endpoints[slot] {
            endpoint.uplink.set_sources(turn.now, new, turn.counters);
        }
        for place in places {
            for receiver in 0..self.endpoints.len() {
                self.offer_audio(turn, place, receiver);
            }
        }
    }

    /// Leaves a source only those encodings whose SSRCs are nobody else's, nor
    /// another of its own.
    fn claim(&self, slot: usize, source: &mut Source) {
        let mut seen = vec![self.bridge.audio, self.bridge.video];
        let id = self.id;
        let audio = source.media_type == MediaType::Audio;
        source.encodings.retain_mut(|encoding| {
            let mut free = |ssrc: Ssrc| {
                let taken = seen.contains(&ssrc) || self.ssrcs.contains_key(&ssrc);
                if taken {
                    debug!(conference = %id, slot, ?ssrc, "SSRC is in use already");
                }
                seen.push(ssrc);
                !taken
            };
            let primary = free(encoding.primary);
            encoding.rtx = encoding.rtx.filter(|rtx| !audio && free(*rtx));
            primary
        });
        source
            .encodings
            .truncate(if audio { 1 } else { MAX_ENCODINGS });
    }

    /// Makes the audio source at `place` go to a receiver, if it wants it.
    fn offer_audio(&mut self, turn: &mut Turn<'_>, place: usize, receiver: usize) {
        if let Some(placed) = &self.sources[place]
            && placed.media_type == MediaType::Audio
            && placed.owner != receiver
            && let Some(endpoint) = &mut self.endpoints[receiver]
        {
            let wanted = endpoint.audio.wants(&placed.name.0);
            endpoint
                .downlink
                .set_audio(place, placed.primary, wanted, turn.counters);
        }
    }

    /// Takes a datagram that belongs to an endpoint.
    pub fn handle_datagram(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        (local, from): (SocketAddr, SocketAddr),
        datagram: &mut [u8],
    ) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        let len = datagram.len() as u64;
        let proves = demux(datagram) != Some(crate::transport::Kind::Dtls);
        match endpoint
            .peer
            .transport
            .handle(turn.now, local, from, datagram)
        {
            Ok(received) => {
                // Media may come by another path, and takes ours along.
                endpoint.peer.refresh();
                // DTLS records are not authentic until much later.
                if proves {
                    endpoint.last_activity = Some(turn.now);
                }
                match received {
                    Received::Rtp(index, packet) => {
                        turn.counters.packets_received += 1;
                        turn.counters.bytes_received += len;
                        self.forward(turn, slot, index, packet);
                    }
                    Received::Rtcp(packet) => self.handle_rtcp(turn, slot, packet),
                    Received::Consumed => self.transport_changed(turn, slot),
                }
            }
            Err(refused) => turn.drop(refused.into()),
        }
    }

    /// Does what has come due for an endpoint.
    pub fn handle_endpoint_timeout(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        if endpoint
            .peer
            .next_timeout()
            .is_some_and(|due| due <= turn.now)
        {
            endpoint.peer.handle_timeout(turn.now);
            self.transport_changed(turn, slot);
        }
        self.send_feedback(turn, slot);
    }

    /// When an endpoint has something to do.
    pub fn next_endpoint_timeout(&self, slot: usize) -> Option<Instant> {
        self.endpoints.get(slot)?.as_ref()?.next_timeout()
    }

    /// Takes from a transport what it has to say and to send.
    fn transport_changed(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        endpoint.peer.refresh();
        let mut ready = false;
        while let Some(output) = endpoint.peer.transport.poll() {
            match output {
                Output::AddressValidated(address) => turn.addresses.push(AddressChange {
                    endpoint: slot,
                    address,
                    bound: true,
                }),
                Output::AddressForgotten(address) => turn.addresses.push(AddressChange {
                    endpoint: slot,
                    address,
                    bound: false,
                }),
                Output::Connected { profile } => {
                    ready = true;
                    endpoint.failed = None;
                    if let Some((_, remote)) = endpoint.peer.transport.path()
                        && endpoint.connected.is_none()
                    {
                        endpoint.connected = Some(turn.now);
                        turn.counters.ice_succeeded += 1;
                        debug!(conference = %self.id, endpoint = %endpoint.id, %remote, "connected");
                        turn.events.push_back(Event::EndpointConnected {
                            conference: self.id,
                            endpoint: endpoint.id.clone(),
                            remote,
                            srtp_profile: profile.name(),
                        });
                    }
                }
                Output::IceFailed => {
                    turn.counters.ice_failed += 1;
                    endpoint.failed = Some(ExpiryReason::IceFailed);
                }
                Output::DtlsFailed(error) => {
                    debug!(conference = %self.id, endpoint = %endpoint.id, %error, "DTLS failed");
                    turn.counters.dtls_failed += 1;
                    endpoint.failed = Some(ExpiryReason::DtlsFailed);
                }
                Output::DtlsClosed => endpoint.peer.close_channel(turn.now),
                Output::ApplicationData(packet) => {
                    if !endpoint.peer.handle_channel(turn.now, &packet) {
                        turn.drop(DropCause::Sctp);
                    }
                }
            }
        }
        endpoint.peer.transmit(turn.now, turn.outbox);
        if ready {
            self.allocate(turn, Some(slot));
        }
        self.data_channel_changed(turn, slot);
    }
}

/// A free place in a list, made if there is none.
fn free_place<T>(list: &mut Vec<Option<T>>) -> usize {
    list.iter().position(Option::is_none).unwrap_or_else(|| {
        list.push(None);
        list.len() - 1
    })
}

/// All SSRCs of a source.
fn ssrcs(source: &Source) -> impl Iterator<Item = Ssrc> + '_ {
    source
        .encodings
        .iter()
        .flat_map(|encoding| [Some(encoding.primary), encoding.rtx])
        .flatten()
}
